"""Dot plots: what is seen of each group in a row of its own, the rows ordered by their means."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Size, Style
from ranef.plots import canvas

APART = 0.16  # of a row, between values that are the same
FEW = 8  # parts that are told apart by colours
# Of Okabe and Ito, seen on white and on black; an olive of Tol in place of black
COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#0072B2", "#999933", "0.5")
ORDERS = ("mean", "level")


def dots(
    points: pd.DataFrame,
    *,
    estimates: pd.DataFrame | None = None,
    order: str = "mean",
    title: str = "",
    xlabel: str = "y",
    by: str = "",
    **style: Unpack[Style],
) -> Axes:
    """Draw a dot plot: groups in rows, by increasing means from the bottom.

    Parameters
    ----------
    points : DataFrame
        Columns `level, y`; `n`, which the area of the points goes by; and `by`, whose values have
        lines of their own colours where they are few. Equal values of a row stand apart.
    estimates : DataFrame, optional
        Columns `level, own, model, population`, drawn beside the points.
    order : {"mean", "level"}
        Rows by their means, or from the top in the order of the table.
    title : str
        What the groups are.
    xlabel, by : str
        What is drawn, and what the colours stand for.
    ax : Axes, optional
        By default a new figure is made.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    Axes

    Examples
    --------
    >>> points = pd.DataFrame({"level": list("aabbcc"), "y": [1.0, 2, 8, 9, 4, 5]})
    >>> [label.get_text() for label in dots(points).get_yticklabels()]
    ['a', 'c', 'b']
    """
    means = _means(points, order)
    levels, m = [str(level) for level in means.index], len(means)
    axes = canvas.one_axes(
        title or "dots", (canvas.labels_width(levels) + 5.4, canvas.rows_height(m) + 0.4), **style
    )
    _draw_rows(axes, points, means, by, estimates)
    canvas.label_x(axes, xlabel)
    _head(axes, title, m)
    return axes


def nested_dots(
    points: pd.DataFrame,
    *,
    order: str = "mean",
    title: str = "",
    xlabel: str = "y",
    by: str = "",
    **style: Unpack[Style],
) -> Panels:
    """Draw a dot plot of groups within groups: a panel each of the outer ones, with its rows.

    Parameters
    ----------
    points : DataFrame
        Columns as of `dots`, and `panel`, the outer group.
    order : {"mean", "level"}
        Of panels and of rows, as of `dots`.
    title, xlabel, by
        As of `dots`.
    ax : several Axes, optional
        One for each panel, from the top; by default a new figure is made.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of Axes

    Examples
    --------
    >>> points = pd.DataFrame({"panel": list("AABB"), "level": list("abab"), "y": [1.0, 2, 8, 4]})
    >>> upper, lower = nested_dots(points)
    >>> upper.get_ylabel(), [label.get_text() for label in upper.get_yticklabels()]
    ('B', ['b', 'a'])
    """
    outer = _means(points.drop(columns="level").rename(columns={"panel": "level"}), order)
    parts = {str(name): points[points["panel"] == name] for name in outer.index[::-1]}
    means = [_means(part, order) for part in parts.values()]
    counts, m = [len(each) for each in means], sum(map(len, means))
    levels = [str(level) for level in points["level"].unique()]
    width = canvas.labels_width([*parts]) + canvas.labels_width(levels) + 5.0

    def below_each_other(figsize: Size | None) -> Panels:
        figure = canvas.new_figure((width, canvas.rows_height(m + len(parts)) + 0.4), figsize)
        ratios = [1.0 + count for count in counts]
        axes = figure.subplots(len(parts), 1, sharex=True, height_ratios=ratios, squeeze=False)
        return np.ravel(axes)

    grid = canvas.axes_of(list(parts), below_each_other, **style)
    for axes, (name, part), own in zip(grid, parts.items(), means, strict=True):
        _draw_rows(axes, part, own, by)
        axes.set_ylabel(canvas.short(name), rotation=0, ha="right", va="center", parse_math=False)
        axes.label_outer()
    canvas.label_x(grid[-1], xlabel)
    _head(grid[0], title, m)
    return grid


def _means(points: pd.DataFrame, order: str) -> pd.Series[Any]:
    """Return the means of levels in the order of rows, from the bottom."""
    weights = points["n"] if "n" in points else pd.Series(1.0, points.index)
    weighted = points.assign(y=points["y"] * weights, n=weights)
    sums = weighted.groupby("level", observed=True, sort=False)[["y", "n"]].sum()
    means = sums["y"] / sums["n"]
    return means.sort_values(kind="stable") if order == "mean" else means.iloc[::-1]


def _draw_rows(
    axes: Axes,
    points: pd.DataFrame,
    means: pd.Series[Any],
    by: str,
    estimates: pd.DataFrame | None = None,
) -> None:
    m = len(means)
    canvas.name_rows(axes, [str(level) for level in means.index], m)
    rows = pd.Series(np.arange(m), index=means.index)
    _draw_points(axes, points, rows.loc[points["level"]].to_numpy(dtype=float), by)
    if estimates is not None:
        _draw_estimates(axes, estimates, rows)
    elif "by" not in points or points["by"].nunique() > FEW:
        axes.plot(means, np.arange(m), label="mean", color=canvas.TINT, linewidth=1.5, zorder=2)
    canvas.strip(axes, "x")


def _head(axes: Axes, title: str, m: int) -> None:
    """Write the title, and below it what the marks are."""
    handles, _ = axes.get_legend_handles_labels()
    columns = min(len(handles), 4)
    lines = -(-len(handles) // columns) if handles else 0
    canvas.draw_title(axes, title, m, pad=8.0 + 14.0 * lines)
    if handles:
        axes.legend(ncols=columns, handletextpad=0.4, columnspacing=1.2, **canvas.LEGEND_ABOVE)


def _draw_points(axes: Axes, points: pd.DataFrame, rows: Array, by: str) -> None:
    size, _ = canvas.mark_sizes(axes, len(set(rows)))
    area = (1.3 * size) ** 2
    if "n" in points and len(set(points["n"])) > 1:
        area = area * (0.4 + 1.6 * (points["n"] / points["n"].max()).to_numpy(dtype=float))
    places = rows + _apart(rows, points["y"].to_numpy(dtype=float))
    color: Any = canvas.GREY
    if "by" in points and points["by"].nunique() <= FEW:
        parts = sorted(points["by"].unique(), key=str)
        color = [COLOURS[parts.index(value)] for value in points["by"]]
        for part, one in zip(parts, COLOURS, strict=False):
            mine = points["by"].to_numpy() == part
            rank = np.argsort(rows[mine], kind="stable")
            line = points["y"].to_numpy()[mine][rank], rows[mine][rank]
            label = f"{by} {part}".strip()
            axes.plot(*line, color=one, linewidth=0.8, alpha=0.6, label=label, zorder=2)
    axes.scatter(
        points["y"], places, s=area, facecolor=axes.get_facecolor(), edgecolor=color,
        linewidth=min(0.9, 0.2 * size), zorder=3,
    )  # fmt: skip


def _apart(rows: Array, values: Array) -> Array:
    """Return how far points of one row and value stand from its middle, so that all are seen."""
    table = pd.DataFrame({"row": rows, "value": values})
    groups = table.groupby(["row", "value"])
    place, count = groups.cumcount().to_numpy(), groups["row"].transform("size").to_numpy()
    step = np.minimum(APART, 0.7 / np.maximum(count - 1, 1))
    return np.asarray((place - (count - 1) / 2) * step)


def _draw_estimates(axes: Axes, estimates: pd.DataFrame, rows: pd.Series[Any]) -> None:
    """Draw the three estimates of each group."""
    size, width = canvas.mark_sizes(axes, len(rows))
    at = rows.loc[estimates["level"]].to_numpy(dtype=float)
    own, model, population = (
        estimates[name].to_numpy(dtype=float) for name in ("own", "model", "population")
    )
    axes.hlines(at, own, model, color=canvas.TINT, linewidth=width, zorder=2)
    axes.plot(
        own,
        at,
        "D",
        color=canvas.ink(axes),
        markersize=0.8 * size,
        label="by its rows alone",
        zorder=4,
    )
    axes.plot(model, at, "o", color=canvas.ACCENT, markersize=size, label="the model", zorder=5)
    centre = {"color": canvas.ink(axes), "label": "population"}
    if np.ptp(population) <= 1e-9 * np.abs(population).max():
        axes.axvline(population[0], linewidth=1.0, linestyle="--", zorder=1.5, **centre)
    else:
        axes.plot(population, at, "|", markersize=1.6 * size, zorder=1.5, **centre)
