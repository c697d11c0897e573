"""Draw residuals from tidy tables: against a variable, group by group, against normal quantiles.

Any table made by hand can be drawn too, on given axes or on a new figure. Matplotlib loads with the
first plot.
"""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Style
from ranef.plots import canvas

ROWS_OF_SLICE = 20  # whose mean is drawn, at least
MOST_SLICES = 20
NAMED_OUTSIDE = 5  # random effects outside of the envelope, or the most extreme ones


def residuals(table: pd.DataFrame, **style: Unpack[Style]) -> Axes | Panels:
    """Draw residuals, as the columns of the table say.

    Parameters
    ----------
    table : DataFrame
        Columns `x, residual`: points with the mean in slices of x. Columns `level, residual`: a
        row for each level, ordered by its mean. Columns `theoretical, residual, lower, upper`:
        against quantiles, with an envelope; with `level, coef` a panel for each coefficient. What
        is written at the axes is in `.attrs`: `x`, `residual`, `kind`.
    ax : Axes or sequence of Axes, optional
        One for each panel; by default a new figure is made.
    figsize : tuple of float, optional
        Width and height of the new figure, in inches.

    Returns
    -------
    Axes, or an ndarray of Axes for coefficients

    Raises
    ------
    DataError
        If the table is empty or lacks a column.
    RanefError
        If the number of axes is not that of the panels.

    Examples
    --------
    >>> table = pd.DataFrame({"x": [1.0, 2.0, 3.0], "residual": [0.1, -0.2, 0.1]})
    >>> residuals(table).get_ylabel()
    'residual'
    """
    kind = _kind(table)
    if kind == "effects":
        return _draw_effects(table, **style)
    if kind == "group":
        return _draw_groups(table, **style)
    axes = canvas.one_axes("residuals", (5.6, 4.2), **style)
    if kind == "qq":
        _draw_quantiles(axes, table)
        _say_envelope(axes, table.attrs, table.attrs.get("p_value"))
    else:
        _draw_against(axes, table, is_size=table.attrs.get("kind") == "scale")
    canvas.label_x(axes, table.attrs.get("x", "x"))
    canvas.label_y(axes, table.attrs.get("residual", "residual"))
    return axes


def _kind(table: pd.DataFrame) -> str:
    """Return what a table is of, by its columns."""
    by_column = {"coef": "effects", "theoretical": "qq", "level": "group"}
    return next((kind for name, kind in by_column.items() if name in table), "x")


# --------------------------------------------------------------------------- against a variable


def _draw_against(axes: Axes, table: pd.DataFrame, *, is_size: bool) -> None:
    x, names = _positions(table["x"])
    y = table["residual"].to_numpy(dtype=float)
    if not is_size:
        axes.axhline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    _draw_cloud(axes, x + _jitter(len(x)) * (names is not None), y)
    middle, mean, error = slices(x, y)
    axes.errorbar(
        middle, mean, 2 * error, fmt="-o", color=canvas.ACCENT, markersize=4.0, linewidth=1.6,
        elinewidth=1.0, zorder=4,
    )  # fmt: skip
    if names is not None:
        axes.tick_params(labelsize="small" if len(names) <= 12 else "xx-small", axis="x")
        canvas.name_columns(axes, names)
    _clear(axes)


def _draw_cloud(axes: Axes, x: Array, y: Array) -> None:
    """Draw all points, the smaller and fainter the more there are."""
    n = max(len(x), 1)
    size = float(np.clip(60 / np.sqrt(n), 2.0, 5.0))
    alpha = float(np.clip(20 / np.sqrt(n), 0.2, 0.8))
    axes.plot(
        x, y, "o", color=canvas.TINT, markersize=size, markeredgecolor="none", alpha=alpha,
        zorder=2, rasterized=n > 5_000,
    )  # fmt: skip


def _positions(values: pd.Series[Any]) -> tuple[Array, list[str] | None]:
    """Return numbers to draw at, and names where the values are labels."""
    if values.dtype.kind in "fiub":
        return values.to_numpy(dtype=float), None
    levels = pd.Categorical(values)
    return levels.codes.astype(float), [str(level) for level in levels.categories]


def _jitter(n: int) -> Array:
    return np.random.default_rng(0).uniform(-0.15, 0.15, n)


def slices(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return the middle of slices of x, the mean of y there, and its standard error.

    Each value of x is a slice if there are few; slices have about equal numbers of points.

    Examples
    --------
    >>> middle, mean, _ = slices(np.array([1.0, 1.0, 2.0, 2.0]), np.array([0.0, 2.0, 5.0, 7.0]))
    >>> middle.tolist(), mean.tolist()
    ([1.0, 2.0], [1.0, 6.0])
    """
    seen = np.isfinite(x) & np.isfinite(y)
    x, y = x[seen], y[seen]
    values, codes = np.unique(x, return_inverse=True)
    if len(values) > MOST_SLICES:
        count = int(np.clip(len(x) // ROWS_OF_SLICE, 3, MOST_SLICES))
        edges = np.unique(np.quantile(x, np.linspace(0, 1, count + 1)[1:-1]))
        codes = np.unique(np.searchsorted(edges, x, side="right"), return_inverse=True)[1]
    n = np.bincount(codes)
    middle, mean = np.bincount(codes, x) / n, np.bincount(codes, y) / n
    squares = np.bincount(codes, (y - mean[codes]) ** 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(n > 1, np.sqrt(squares / (n - 1) / n), 0.0)
    return middle, mean, error


# -------------------------------------------------------------------------------- by group


def _draw_groups(table: pd.DataFrame, **style: Unpack[Style]) -> Axes:
    means = table.groupby("level", observed=True, sort=False)["residual"].mean()
    order = means.sort_values(kind="stable").index
    levels, m = [str(level) for level in order], len(order)
    size = canvas.labels_width(levels) + 5.0, canvas.rows_height(m) + 0.2
    axes = canvas.one_axes("residuals", size, **style)
    codes = pd.Index(order).get_indexer(pd.Index(table["level"]))
    y = table["residual"].to_numpy(dtype=float)
    axes.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    _draw_cloud(axes, y, codes.astype(float))
    rows = np.arange(m, dtype=float)
    axes.plot(
        means.loc[order].to_numpy(), rows, "o", color=canvas.ACCENT, zorder=3,
        markersize=max(canvas.mark_sizes(axes, m)[0], 2.0),
    )  # fmt: skip
    canvas.name_rows(axes, levels, m)
    name = table.attrs.get("x", "group")
    axes.set_title(f"{name}, {m} levels", loc="left", fontsize="medium", parse_math=False)
    canvas.label_x(axes, f"{table.attrs.get('residual', 'residual')}\n(large: mean of the group)")
    axes.grid(axis="x", color=canvas.GREY, alpha=0.2, linewidth=0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return axes


# ------------------------------------------------------------------------- against quantiles


def _draw_effects(table: pd.DataFrame, **style: Unpack[Style]) -> Panels:
    coefs = [str(name) for name in table["coef"].unique()]
    grid = canvas.panels_of(coefs, lambda columns, _: (0.8 + 3.6 * columns, 4.0), **style)
    p_values = table.attrs.get("p_value", {})
    for j, (axes, coef) in enumerate(zip(grid, coefs, strict=True)):
        part = table[table["coef"] == coef]
        _draw_quantiles(axes, part)
        _name_extremes(axes, part)
        _say_envelope(axes, table.attrs, p_values.get(coef))
        canvas.label_x(axes, table.attrs.get("x", "standard normal quantile"))
        if j == 0:
            canvas.label_y(axes, table.attrs.get("residual", "random effect"))
        term = str(part["term"].iloc[0]) if "term" in part else ""
        title = f"{term}: {coef}" if term else coef
        canvas.head_panel(axes, title, loc="left", pad=20, fontsize="medium")
    return grid


def _draw_quantiles(axes: Axes, table: pd.DataFrame) -> None:
    x, y = (table[name].to_numpy(dtype=float) for name in ("theoretical", "residual"))
    lower, upper = (table[name].to_numpy(dtype=float) for name in ("lower", "upper"))
    axes.fill_between(x, lower, upper, color=canvas.ACCENT, alpha=0.13, linewidth=0.0, zorder=1)
    middle = (lower + upper) / 2
    slope, level = np.polyfit(x, middle, 1) if len(x) > 1 else (1.0, 0.0)
    ends = np.array([x.min(), x.max()])
    axes.plot(
        ends, level + slope * ends, color=canvas.ink(axes), linewidth=0.9, linestyle="--", zorder=2
    )
    size = float(np.clip(60 / np.sqrt(max(len(x), 1)), 1.5, 5.0))
    outside = (y < lower) | (y > upper)
    colours = np.where(outside, "#D55E00", canvas.ACCENT)
    axes.scatter(x, y, s=size**2, c=colours, linewidth=0.0, zorder=3, rasterized=len(x) > 5_000)
    _clear(axes)


def _say_envelope(axes: Axes, attrs: dict[Any, Any], p_value: float | None) -> None:
    if "prob" not in attrs:
        return
    said = f"band: holds {100 * attrs['prob']:g} % of simulated curves"
    if p_value is not None:
        said += f"; p = {p_value:.2g}"
    canvas.note(axes, said, (0.0, 1.0), xytext=(0.0, 5.0), ha="left", va="bottom")


def _name_extremes(axes: Axes, table: pd.DataFrame) -> None:
    """Name the random effects outside of the envelope, or the two at the ends."""
    y = table["residual"].to_numpy(dtype=float)
    lower, upper = (table[name].to_numpy(dtype=float) for name in ("lower", "upper"))
    beyond = np.maximum(lower - y, y - upper)
    extreme = np.argsort(-beyond, kind="stable")[:NAMED_OUTSIDE]
    places = [place for place in extreme if beyond[place] > 0]
    levels = [str(level) for level in table["level"]]
    x = table["theoretical"].to_numpy(dtype=float)
    for place in places or sorted({0, len(y) - 1}):
        is_low = x[place] < 0
        axes.annotate(
            canvas.short(levels[place]), (x[place], y[place]),
            xytext=(4, -3) if is_low else (-4, 3), textcoords="offset points",
            ha="left" if is_low else "right", va="top" if is_low else "bottom", fontsize="small",
            parse_math=False, zorder=5,
        )  # fmt: skip


def _clear(axes: Axes) -> None:
    axes.grid(color=canvas.GREY, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
