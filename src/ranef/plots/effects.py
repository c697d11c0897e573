"""Predicted means: curves with bands over a number, points with intervals over levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Size, Style
from ranef.plots import canvas
from ranef.plots.comparisons import COLOURS

NUMBERS = ("estimate", "lower", "upper")
MAX_PANELS = 30  # above, one panel has all curves, without bands and names
MAX_COLUMNS = 5  # of panels beside each other
DODGE = 0.5  # of the distance of two levels, that the series of a level take


@dataclass(frozen=True, eq=False)
class _Panel:
    """The rows of a table that stand in one panel.

    Attributes
    ----------
    title : str
    series : list of (str, str, DataFrame)
        The name, colour and rows of each curve.
    """

    title: str
    series: list[tuple[str, str, pd.DataFrame]]


def effects(
    table: pd.DataFrame,
    variable: str,
    *,
    by: Sequence[str] = (),
    label: str = "",
    rows: pd.DataFrame | None = None,
    **style: Unpack[Style],
) -> Panels:
    """Draw predicted means over the values of a predictor.

    Parameters
    ----------
    table : DataFrame
        Columns `estimate, lower, upper`, the variable and those of `by`, as `ranef.means` returns;
        `.attrs["interval"]` is written above.
    variable : str
        The column along the axis: numbers have a curve with a band, levels points with intervals.
    by : sequence of str
        The first column has a colour for each of its values, or panels if there are more than six;
        others have panels. Where there are more than thirty, all curves stand in one panel.
    label : str
        What the means are of.
    rows : DataFrame, optional
        The data behind, drawn as points: the same columns, and `y`.
    ax : Axes or iterable of Axes, optional
        One for each panel; by default a new figure is made.
    figsize : tuple of float, optional
        The size of a new figure, in inches.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    DataError
        If the table is empty or lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({"x": [0, 1, 2], "estimate": [1.0, 2.0, 4.0],
    ...     "lower": [0.5, 1.6, 3.0], "upper": [1.5, 2.4, 5.0]})
    >>> axes = effects(table, "x", label="y")
    >>> len(axes), axes[0].get_ylabel()
    (1, 'y')
    """
    panels = _panels(table, list(by))
    names, is_new = [panel.title or variable for panel in panels], style.get("ax") is None
    grid = canvas.axes_of(names, partial(_new_axes, len(panels)), **style)
    is_curve = table[variable].dtype.kind in "iuf"
    levels = [] if is_curve else list(dict.fromkeys(table[variable]))
    for place, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        if rows is not None:
            _draw_rows(axes, _of_panel(rows, panel, by), variable, levels)
        _draw_panel(axes, panel, variable, levels)
        axes.spines[["top", "right"]].set_visible(False)
        canvas.label_x(axes, variable)
        canvas.head_panel(axes, panel.title, loc="left", fontsize="medium")
        if place == 0:
            up = 18.0 if panel.title else 5.0
            text = str(table.attrs.get("interval", "")) if len(panel.series) <= len(COLOURS) else ""
            canvas.note(axes, text, (0.0, 1.0), xytext=(0.0, up), ha="left", va="bottom")
        if not is_new or len(panels) == 1:
            canvas.label_y(axes, label)
    if is_new:
        _share_labels(grid, variable, label)
    if by and 1 < len(panels[0].series) <= len(COLOURS):
        grid[min(len(grid), MAX_COLUMNS) - 1].legend(
            title=by[0],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            fontsize="small",
        )
    return grid


def _panels(table: pd.DataFrame, by: list[str]) -> list[_Panel]:
    """Return what stands in which panel."""
    if not by:
        return [_Panel("", [("", canvas.ACCENT, table)])]
    named = _split(table, by[:1])
    many = len(named) > len(COLOURS)
    if len(by) == 1 and many and len(named) <= MAX_PANELS:
        return [_Panel(name, [(name, canvas.ACCENT, part)]) for name, part in named]
    palette = [canvas.ACCENT] * len(named) if many else COLOURS
    colours = {name: colour for (name, _), colour in zip(named, palette, strict=False)}
    parts = _split(table, by[1:]) if len(by) > 1 else [("", table)]
    return [
        _Panel(title, [(name, colours[name], rows) for name, rows in _split(part, by[:1])])
        for title, part in parts
    ]


def _split(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of each combination of values, by its name, in the order of the table."""
    found = table.groupby(list(names), sort=False, observed=True)
    return [
        (", ".join(f"{n} = {_word(v)}" for n, v in zip(names, key, strict=True)), part)
        for key, part in found
    ]


def _word(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _of_panel(
    rows: pd.DataFrame, panel: _Panel, by: Sequence[str]
) -> list[tuple[str, pd.DataFrame]]:
    """Return the colour and the data of each series of a panel."""
    found = []
    for _, colour, part in panel.series:
        here = np.ones(len(rows), dtype=bool)
        for name in by:
            if name in rows and rows[name].dtype.kind != "f":
                here &= (rows[name].astype(str) == str(part[name].iloc[0])).to_numpy()
        found.append((colour if len(panel.series) <= len(COLOURS) else canvas.GREY, rows[here]))
    return found


def _new_axes(n: int, figsize: Size | None) -> Panels:
    """Return the axes of a new figure, n panels with the same scales."""
    columns = min(n, MAX_COLUMNS)
    down = math.ceil(n / columns)
    wide, high = (5.6, 4.0) if n == 1 else (2.3 * columns + 0.9, 2.2 * down + 0.6)
    figure = canvas.new_figure((wide, high), figsize)
    grid = figure.subplots(down, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in grid[n:]:
        axes.remove()
    return np.asarray(grid[:n], dtype=object)


def _share_labels(grid: Panels, variable: str, label: str) -> None:
    """Leave numbers and labels to the outer panels, the last of a column among them."""
    n, columns = len(grid), min(len(grid), MAX_COLUMNS)
    for i, axes in enumerate(grid):
        axes.label_outer()
        if i >= n - columns:
            axes.tick_params(labelbottom=True)
            canvas.label_x(axes, variable)
    if n > 1:
        grid[0].figure.supylabel(label, fontsize="medium", parse_math=False)


def _draw_panel(axes: Axes, panel: _Panel, variable: str, levels: Sequence[object]) -> None:
    m = len(panel.series)
    for i, (name, colour, part) in enumerate(panel.series):
        estimate, lower, upper = (part[c].to_numpy(dtype=np.float64) for c in NUMBERS)
        if not levels:
            x = part[variable].to_numpy(dtype=np.float64)
            if m <= len(COLOURS):
                axes.fill_between(
                    x, lower, upper, color=colour, alpha=0.18, linewidth=0.0, zorder=2
                )
            width = 1.8 if m <= len(COLOURS) else 0.6
            axes.plot(
                x, estimate, color=colour, linewidth=width, label=_short_label(name), zorder=3
            )
            continue
        x = _places(part[variable], levels) + _dodge(i, m)
        axes.vlines(x, lower, upper, color=colour, linewidth=1.8, alpha=0.6, zorder=2)
        size = 5.0 if m * len(levels) <= 40 else 3.0
        axes.plot(
            x, estimate, "o", color=colour, markersize=size, label=_short_label(name), zorder=3
        )
    if levels:
        canvas.name_columns(axes, [str(level) for level in levels])
        axes.set_xlim(-0.6, len(levels) - 0.4)


def _short_label(name: str) -> str:
    """Return the value of a name: the legend has the variable as its title."""
    return canvas.short(name.split(" = ", 1)[-1])


def _dodge(i: int, m: int) -> float:
    return DODGE * ((i + 0.5) / m - 0.5) if m > 1 else 0.0


def _places(values: pd.Series, levels: Sequence[object]) -> Array:
    """Return the places of levels along the axis."""
    known = {str(level): float(place) for place, level in enumerate(levels)}
    return np.array([known.get(str(value), np.nan) for value in values])


def _draw_rows(
    axes: Axes, data: Sequence[tuple[str, pd.DataFrame]], variable: str, levels: Sequence[object]
) -> None:
    """Draw the data as small points, those of levels side by side."""
    m = len(data)
    is_binary = all(rows["y"].isin([0, 1]).all() for _, rows in data)
    for i, (colour, rows) in enumerate(data):
        x, y = rows[variable], rows["y"].to_numpy(dtype=np.float64)
        if is_binary:  # not all in one place
            y = y + (0.5 - y) * 0.12 * (np.arange(len(y)) * 0.618 % 1)
        at = _places(x, levels) + _dodge(i, m) if levels else x.to_numpy(dtype=np.float64)
        if levels:  # a few columns of points, so that not all cover each other
            at = at + 0.3 * DODGE / m * (np.arange(len(at)) % 5 - 2) / 2
        axes.plot(at, y, "o", color=colour, markersize=2.5, alpha=0.3, zorder=1, mew=0)
