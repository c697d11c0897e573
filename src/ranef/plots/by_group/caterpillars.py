"""The marks of caterpillar plots: estimates with intervals, one row or one quantile a group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ranef._typing import Array, Axes, Panels, Size
from ranef.plots import canvas
from ranef.plots.by_group.name_places import Room, settle, write_names

LEAST_POINT = 2.2  # points, on a quantile plot
EXTREMES = 3  # named at each end of a quantile plot
TALLEST, MOST_BESIDE = 8.0, 4  # inches; and panels of terms that are not below each other then
NO_WIDTH = "sd estimated as 0: that no differences are seen is not certainty"


@dataclass(frozen=True, eq=False)
class Panel:
    """One coefficient of one term, its levels sorted from the bottom of the axes to the top.

    Attributes
    ----------
    term, coef : str
    title, xlabel : str
        What the term is called, and what stands at the axis.
    levels : tuple of str
    estimate, lower, upper : ndarray, shape (m,)
    population : float
        Where a line is drawn.
    has_title : bool
        Whether this is the first panel of its term, which carries the title.
    has_names : bool
        Whether the rows carry the names of the levels.
    """

    term: str
    coef: str
    title: str
    xlabel: str
    levels: tuple[str, ...]
    estimate: Array
    lower: Array
    upper: Array
    population: float
    has_title: bool
    has_names: bool

    @property
    def has_no_width(self) -> bool:
        """Whether the intervals are points, as of effects whose sd is estimated as zero."""
        known = np.isfinite(self.estimate)
        return bool(known.any() and np.all(self.lower[known] == self.upper[known]))


def draw_panel(axes: Axes, panel: Panel, kind: str, interval_label: str) -> None:
    """Draw one panel of a caterpillar plot, `kind` "interval" or "qq"."""
    m = len(panel.levels)
    rows = np.arange(m, dtype=float)
    heights = ndtri((rows + 0.5) / m) if kind == "qq" else rows
    size, width = canvas.mark_sizes(axes, m)
    size = max(size, LEAST_POINT) if kind == "qq" else size
    axes.axvline(panel.population, color=canvas.GREY, linewidth=0.8, zorder=1)
    fill = axes.get_facecolor() if panel.has_no_width else canvas.ACCENT
    axes.plot(
        panel.estimate,
        heights,
        "o",
        color=canvas.ACCENT,
        markersize=size,
        markerfacecolor=fill,
        zorder=3,
    )
    if not panel.has_no_width:
        axes.hlines(heights, panel.lower, panel.upper, color=canvas.TINT, linewidth=width, zorder=2)
    canvas.strip(axes, "both" if kind == "qq" else "x")
    if kind == "qq":
        _draw_quartile_line(axes, panel.estimate, heights)
    _label_panel(axes, panel, kind, interval_label)


def name_extremes(axes: Axes, panel: Panel) -> None:
    """Name the levels at the two ends of a quantile plot."""
    m = len(panel.levels)
    ends = [i for i in range(m) if min(i, m - 1 - i) < EXTREMES]
    heights = ndtri((np.arange(m) + 0.5) / m)
    points = np.column_stack([panel.estimate, heights])
    lines = np.stack([np.column_stack([x, heights]) for x in (panel.lower, panel.upper)], axis=1)
    room = Room(axes, points, lines, radius=canvas.mark_sizes(axes, m)[0] / 2)
    write_names(room, [panel.levels[i] for i in ends], points[ends])


def _draw_quartile_line(axes: Axes, estimate: Array, heights: Array) -> None:
    """Draw the line through the quartiles of estimates and of the normal distribution."""
    low, high = np.nanpercentile(estimate, [25.0, 75.0])
    if not high > low:
        return
    slope = (ndtri(0.75) - ndtri(0.25)) / (high - low)
    middle = (low + high) / 2
    ends = np.array([heights.min(), heights.max()])
    axes.plot(middle + ends / slope, ends, "--", color=canvas.GREY, linewidth=1.0, zorder=1.5)


def new_grid(rows: list[list[Panel]], kind: str, figsize: Size | None) -> Panels:
    """Return the axes of a new figure, a row for each term and a column for each coefficient."""
    heights = [3.6 if kind == "qq" else canvas.rows_height(len(row[0].levels)) for row in rows]
    if sum(heights) > TALLEST and sum(map(len, rows)) <= MOST_BESIDE:
        rows, heights = [[panel for row in rows for panel in row]], [max(heights)]
    # A term with fewer coefficients than another fills the width with wider panels.
    columns = math.lcm(*(len(row) for row in rows))
    widest = max(len(row) for row in rows)
    named = [
        sum(0.7 if kind == "qq" else canvas.labels_width(p.levels) * p.has_names for p in row)
        for row in rows
    ]
    width = max(named) + (4.4 if widest == 1 else 3.0 * widest)
    size = min(width, canvas.WIDEST), min(sum(heights), 1.2 * TALLEST)
    figure = canvas.new_figure(size, figsize)
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    axes = []
    for i, row in enumerate(rows):
        span = columns // len(row)
        axes += [figure.add_subplot(grid[i, j : j + span]) for j in range(0, columns, span)]
    return np.array(axes, dtype=object)


def share_limits(axes: Panels, panels: Sequence[Panel]) -> None:
    """Give all panels of one coefficient the same limits."""
    for label in {panel.xlabel for panel in panels}:
        same = [one for one, panel in zip(axes, panels, strict=True) if panel.xlabel == label]
        limits = np.array([one.get_xlim() for one in same])
        for one in same:
            one.set_xlim(limits.min(), limits.max())


def finish(axes: Panels, panels: Sequence[Panel], kind: str) -> None:
    """Write the names that need to know where everything else is."""
    if kind == "qq":
        settle(axes[0])
        for one, panel in zip(axes, panels, strict=True):
            name_extremes(one, panel)


def _label_panel(axes: Axes, panel: Panel, kind: str, interval_label: str) -> None:
    m = len(panel.levels)
    extra = f"\n{NO_WIDTH}" if panel.has_no_width else ""
    canvas.label_x(axes, panel.xlabel + extra)
    if panel.has_title:
        canvas.draw_title(axes, panel.title, m, pad=20.0 if interval_label else 6.0)
        place = axes.get_subplotspec()
        if place is None or place.is_first_col():
            canvas.note(axes, interval_label, (0.0, 1.0), xytext=(0.0, 6.0), ha="left", va="bottom")
    if kind == "interval":
        canvas.name_rows(axes, panel.levels if panel.has_names else (), m)
        if m > canvas.MAX_NAMED_ROWS and not panel.has_names:
            canvas.name_largest(axes, panel.levels, panel.estimate)
    elif panel.has_title:
        canvas.label_y(axes, "standard normal quantile")
