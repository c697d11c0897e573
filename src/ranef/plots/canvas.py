"""Marks on axes, as the records behind the plots are drawn.

Nothing here reads a table or chooses a term: a function takes complete records of arrays, draws
them on the axes it is given and leaves all else in the figure alone. Colours, sizes and the room
for names are settled here, without touching Matplotlib's global settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ranef._typing import Array
from ranef.errors import RanefError

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


REGION_PROBABILITIES = (0.5, 0.95)

# The blue of the colour-blind-safe palette of Okabe and Ito, and a tint of it.
ACCENT, TINT, GREY = "#0072B2", "#8FC1E0", "0.45"
MAX_NAMED_ROWS = 60
MAX_NAMED_POINTS = 30
MIN_ROW_POINTS = 7.0  # of height, for a row with a name
MAX_NAME_CHARACTERS = 32
LEGEND_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "frameon": False,
    "fontsize": "small",
    "borderaxespad": 0.2,
    "borderpad": 0.2,
}


@dataclass(frozen=True, eq=False)
class Panel:
    """One coefficient of one term, its levels sorted from the bottom of the axes to the top.

    Attributes
    ----------
    term, coef : str
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
    levels: tuple[str, ...]
    estimate: Array
    lower: Array
    upper: Array
    population: float
    has_title: bool
    has_names: bool


@dataclass(frozen=True, eq=False)
class Groups:
    """The m groups of a term that have own estimates of the k = 1 or 2 coefficients drawn.

    Attributes
    ----------
    term : str
    coefs, levels : tuple of str
    own, model : ndarray, shape (m, k)
        The estimates of each group from its own observations, and of the model.
    population : ndarray, shape (k,)
    n : ndarray, shape (m,)
        The number of observations of each group.
    n_absent : int
        The number of groups that have no estimate of their own.
    """

    term: str
    coefs: tuple[str, ...]
    levels: tuple[str, ...]
    own: Array
    model: Array
    population: Array
    n: Array
    n_absent: int


def draw_panel(axes: Axes, panel: Panel, kind: str, interval_label: str) -> None:
    """Draw one panel of a caterpillar plot, `kind` "interval" or "qq"."""
    m = len(panel.levels)
    rows = np.arange(m, dtype=float)
    heights = ndtri((rows + 0.5) / m) if kind == "qq" else rows
    size, width = mark_sizes(axes, m)
    axes.axvline(panel.population, color=GREY, linewidth=0.8, zorder=1)
    axes.hlines(heights, panel.lower, panel.upper, color=TINT, linewidth=width, zorder=2)
    axes.plot(panel.estimate, heights, "o", color=ACCENT, markersize=size, zorder=3)
    strip(axes, "both" if kind == "qq" else "x")
    _label_panel(axes, panel, kind, interval_label)


def draw_groups(axes: Axes, groups: Groups, cov: Array | None, labels: bool | str) -> None:
    """Draw a shrinkage plot: rows for one coefficient, the plane for two."""
    draw = _draw_rows if len(groups.coefs) == 1 else _draw_plane
    draw(axes, groups, cov, labels)
    axes.set_xlabel(groups.coefs[0], parse_math=False)
    _draw_title(axes, groups.term, len(groups.levels) + groups.n_absent, pad=22.0)
    handles = _legend_handles(axes, groups)
    axes.legend(handles=handles, ncols=3, handletextpad=0.4, columnspacing=1.2, **LEGEND_ABOVE)
    _note_remarks(axes, groups)


def new_grid(rows: list[list[Panel]], kind: str) -> NDArray[np.object_]:
    """Return the axes of a new figure, a row for each term and a column for each coefficient."""
    # A term with fewer coefficients than another fills the width with wider panels.
    columns = math.lcm(*(len(row) for row in rows))
    widest = max(len(row) for row in rows)
    margins = [0.7 if kind == "qq" else labels_width(row[0].levels) for row in rows]
    heights = [3.6 if kind == "qq" else rows_height(len(row[0].levels)) for row in rows]
    figure = new_figure(max(margins) + (4.4 if widest == 1 else 3.0 * widest), sum(heights))
    grid = figure.add_gridspec(len(rows), columns, height_ratios=heights)
    axes = []
    for i, row in enumerate(rows):
        span = columns // len(row)
        axes += [figure.add_subplot(grid[i, j : j + span]) for j in range(0, columns, span)]
    return np.array(axes, dtype=object)


def new_single(groups: Groups) -> NDArray[np.object_]:
    """Return the axes of a new figure for one shrinkage plot."""
    width, height = 6.4, 5.6
    if len(groups.coefs) == 1:
        width = labels_width(groups.levels) + 5.4
        height = rows_height(len(groups.levels)) + 0.2
    return np.array([new_figure(width, height).add_subplot()], dtype=object)


def checked_axes(ax: Axes | Iterable[Axes], panels: Sequence[str]) -> NDArray[np.object_]:
    """Return the user's axes as an array, one a panel; refuse another number."""
    axes = np.ravel(np.array(list(ax) if isinstance(ax, Iterable) else ax, dtype=object))
    if len(axes) != len(panels):
        raise RanefError(
            f"`ax` must hold one axes for each panel, {len(panels)} in all "
            f"({', '.join(panels)}), but it holds {len(axes)}."
        )
    return axes


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in inches, whose elements do not overlap."""
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return plt.figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.04))


def rows_height(m: int) -> float:
    """Return the height, in inches, of a plot with a row for each of m levels."""
    return 0.9 + 0.18 * max(m, 4) if m <= MAX_NAMED_ROWS else 6.0


def labels_width(levels: Sequence[str]) -> float:
    """Return the width, in inches, of the names of levels beside a plot."""
    longest = max((len(short(level)) for level in levels), default=0)
    return 0.4 + 0.075 * longest if len(levels) <= MAX_NAMED_ROWS else 0.6


def short(name: str) -> str:
    """Return a name with its middle left out where it is too long."""
    half = MAX_NAME_CHARACTERS // 2
    return name if len(name) <= 2 * half else f"{name[: half - 1]}…{name[-half:]}"


def _label_panel(axes: Axes, panel: Panel, kind: str, interval_label: str) -> None:
    m = len(panel.levels)
    axes.set_xlabel(panel.coef, parse_math=False)
    if panel.has_title:
        _draw_title(axes, panel.term, m, pad=20.0 if interval_label else 6.0)
        note(axes, interval_label, (0.0, 1.0), xytext=(0.0, 6.0), ha="left", va="bottom")
    if kind == "interval":
        name_rows(axes, panel.levels if panel.has_names else (), m)
    elif panel.has_title:
        axes.set_ylabel("standard normal quantile")


def name_rows(axes: Axes, levels: Sequence[str], m: int, *, labels: bool | str = "auto") -> None:
    """Write the level at each of m rows, or the number of levels where names have no room."""
    points, margin = _row_points(axes, m), max(0.6, 0.01 * m)
    axes.set_ylim(-margin, m - 1 + margin)
    axes.set_yticks([])
    if levels and (labels is True or (labels == "auto" and points >= MIN_ROW_POINTS)):
        size = np.clip(0.85 * points, 4.0, 9.0)
        names = [short(level) for level in levels]
        axes.set_yticks(range(m), names, fontsize=size, parse_math=False)
    elif levels:
        axes.set_ylabel(f"{m} levels")


def _row_points(axes: Axes, m: int) -> float:
    """Return the height in points of one of m rows."""
    return float(axes.bbox.height * 72.0 / axes.figure.dpi / max(m, 1))


def mark_sizes(axes: Axes, m: int) -> tuple[float, float]:
    """Return the diameter of a point and the width of a line, in points, for m rows."""
    points = min(_row_points(axes, m), 9.0)
    return max(0.55 * points, 1.2), min(max(0.4 * points, 0.4), 1.8)


def _draw_title(axes: Axes, term: str, m: int, pad: float) -> None:
    text = f"{term}, {m} level{'' if m == 1 else 's'}"
    axes.set_title(text, loc="left", pad=pad, parse_math=False)


def note(axes: Axes, text: str, corner: tuple[float, float], **place: Any) -> None:
    """Write small grey text at a corner of the axes, if there is any."""
    if not text:
        return
    axes.annotate(
        text, corner, xycoords="axes fraction", textcoords="offset points", fontsize="small",
        color=GREY, parse_math=False, zorder=6, **place,
    )  # fmt: skip


def strip(axes: Axes, grid: Literal["x", "both"]) -> None:
    """Remove the frame but for the axis of values, and add a light grid."""
    axes.grid(axis=grid, color=GREY, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _draw_rows(axes: Axes, groups: Groups, cov: Array | None, labels: bool | str) -> None:
    rank = np.argsort(groups.own[:, 0], kind="stable")
    own, model, m = groups.own[rank, 0], groups.model[rank, 0], len(rank)
    rows = np.arange(m, dtype=float)
    (centre,) = groups.population
    sd = 0.0 if cov is None else math.sqrt(cov[0, 0])
    edges = [_draw_band(axes, centre, sd, prob) for prob in REGION_PROBABILITIES if sd > 0.0]
    axes.set_xlim(_limits(own, np.concatenate([model, [centre], *edges])))
    name_rows(axes, [groups.levels[i] for i in rank], m, labels=labels)
    if edges:
        # Room below the rows for the shares that the bands hold.
        axes.set_ylim(bottom=axes.get_ylim()[0] - 12.0 / _row_points(axes, m))
    size, width = mark_sizes(axes, m)
    size = max(size, 2.0)
    axes.axvline(centre, color=ink(axes), linewidth=1.0, linestyle="--", zorder=1.5)
    axes.hlines(rows, own, model, color=TINT, linewidth=width, zorder=2)
    _draw_own(axes, np.column_stack([own, rows]), groups.n[rank], size)
    axes.plot(model, rows, "o", color=ACCENT, markersize=size, zorder=4)
    strip(axes, "x")


def _draw_plane(axes: Axes, groups: Groups, cov: Array | None, labels: bool | str) -> None:
    centre, m = groups.population, len(groups.levels)
    contours = [] if cov is None else [ellipse(centre, cov, p) for p in REGION_PROBABILITIES]
    core = np.vstack([groups.model, centre, *contours])
    axes.set_xlim(_limits(groups.own[:, 0], core[:, 0]))
    axes.set_ylim(_limits(groups.own[:, 1], core[:, 1]))
    for prob, contour in zip(REGION_PROBABILITIES, contours, strict=False):
        _draw_contour(axes, contour, prob)
    size = 4.5 * min(1.0, math.sqrt(60 / max(m, 1)))
    _draw_arrows(axes, groups, size)
    _draw_own(axes, groups.own, groups.n, size)
    axes.plot(*groups.model.T, "o", color=ACCENT, markersize=size, zorder=4)
    axes.plot(*centre, "D", color=ink(axes), markersize=6.5, zorder=5)
    axes.set_ylabel(groups.coefs[1], parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    if labels is True or (labels == "auto" and m <= MAX_NAMED_POINTS):
        _name_points(axes, groups)


def _draw_band(axes: Axes, centre: float, sd: float, prob: float) -> tuple[float, float]:
    """Shade the interval that holds `prob` of N(centre, sd^2) and return its ends."""
    reach = sd * float(ndtri((1.0 + prob) / 2.0))
    low, high = centre - reach, centre + reach
    axes.axvspan(low, high, color=ACCENT, alpha=0.05, linewidth=0.0, zorder=0)
    axes.annotate(
        f"{100 * prob:.0f} %", (high, 0.0), xycoords=axes.get_xaxis_transform(), xytext=(-2, 2),
        textcoords="offset points", ha="right", va="bottom", fontsize="small", color=GREY,
    )  # fmt: skip
    return low, high


def _draw_contour(axes: Axes, contour: Array, prob: float) -> None:
    axes.plot(*contour.T, color=GREY, linewidth=0.8, zorder=4.2)
    if not np.ptp(contour, axis=0).any():
        return
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1.0}
    lowest = contour[np.argmin(contour[:, 1])]
    axes.annotate(
        f"{100 * prob:.0f} %", lowest, ha="center", va="center", fontsize="small", color=GREY,
        bbox=box, zorder=4.3,
    )  # fmt: skip


def ellipse(centre: Array, cov: Array, prob: float) -> Array:
    """Return the contour that holds `prob` of N(centre, cov), as 181 points, shape (181, 2).

    The squared Mahalanobis distance of two normal variables is chi-squared with two degrees of
    freedom, whose quantiles are -2 log(1 - prob). A singular covariance gives a line or a point.

    Examples
    --------
    >>> contour = ellipse(np.zeros(2), np.diag([4.0, 1.0]), 0.95)
    >>> float(contour[:, 0].max().round(3)), float(contour[:, 1].max().round(3))
    (4.895, 2.448)
    """
    variances, directions = np.linalg.eigh(cov)
    turn = np.linspace(0.0, 2.0 * np.pi, 181)
    circle = np.sqrt(-2.0 * np.log1p(-prob)) * np.column_stack([np.cos(turn), np.sin(turn)])
    contour: Array = centre + circle * np.sqrt(np.maximum(variances, 0.0)) @ directions.T
    return contour


def _draw_arrows(axes: Axes, groups: Groups, size: float) -> None:
    step = (groups.model - groups.own).T
    axes.quiver(
        *groups.own.T, *step, angles="xy", scale_units="xy", scale=1, units="inches",
        width=0.003 * size, headwidth=5, headlength=6, headaxislength=6, color=TINT, zorder=2,
    )  # fmt: skip


def _draw_own(axes: Axes, points: Array, n: Array, size: float) -> None:
    """Draw the groups' own estimates as rings, their area by the number of observations."""
    share = n / n.max() if _varies(n) else np.full(len(n), 0.8)
    x, y = points.T
    axes.scatter(
        x, y, s=(0.4 + 1.6 * share) * size**2, facecolor=axes.get_facecolor(), edgecolor=GREY,
        linewidth=min(0.9, 0.2 * size), zorder=3,
    )  # fmt: skip


def _varies(n: Array) -> bool:
    return len(set(n.tolist())) > 1


def ink(axes: Axes) -> Any:
    """Return the colour of text and lines on these axes."""
    return axes.xaxis.label.get_color()


def _limits(own: Array, core: Array) -> tuple[float, float]:
    """Return ends that hold all of `core`, and of `own` all numbers that are no outliers."""
    if len(own):
        low, high = np.percentile(own, [25.0, 75.0])
        reach = 3.0 * (high - low)
        core = np.concatenate([core, own[(own >= low - reach) & (own <= high + reach)]])
    pad = 0.06 * float(np.ptp(core)) or 1.0
    return float(core.min()) - pad, float(core.max()) + pad


def _name_points(axes: Axes, groups: Groups) -> None:
    """Write each level near the tail of its arrow, on the side that is least taken."""
    points_per_pixel = 72.0 / axes.figure.dpi
    own, model = (
        axes.transData.transform(values) * points_per_pixel for values in (groups.own, groups.model)
    )
    taken = np.vstack([own, model, (own + model) / 2.0])
    for level, point, tail, head in zip(groups.levels, groups.own, own, model, strict=True):
        name = short(level)
        offset = _freest(tail, head, taken, reach=np.array([5.0 + 2.6 * len(name), 9.0]))
        taken = np.vstack([taken, tail + offset])
        axes.annotate(
            name, point, xytext=tuple(offset), textcoords="offset points", ha="center",
            va="center", fontsize=8.0, zorder=6, parse_math=False, annotation_clip=True,
        )  # fmt: skip


def _freest(tail: Array, head: Array, taken: Array, reach: Array) -> Array:
    """Return the offset from `tail` with the fewest taken points, first opposite the arrow."""
    away = math.atan2(*(tail - head)[::-1]) if np.any(tail != head) else math.pi / 2.0
    turns = away + np.pi / 4.0 * np.array([0, 1, -1, 2, -2, 3, -3])
    offsets = np.column_stack([np.cos(turns), np.sin(turns)]) * reach
    is_near = np.abs(taken[None] - (tail + offsets)[:, None]) < reach
    return np.asarray(offsets[np.argmin(is_near.all(axis=2).sum(axis=1))])


def _legend_handles(axes: Axes, groups: Groups) -> list[Artist]:
    """Return the marks of the legend: own estimates, the model's, and the population."""
    from matplotlib.lines import Line2D

    own = "group's own estimate" + " (area: observations)" * _varies(groups.n)
    ring, dot, centre = (Line2D([], [], linestyle="", marker="o", markersize=s) for s in (6, 5, 6))
    ring.set(label=own, markeredgecolor=GREY, markerfacecolor=axes.get_facecolor())
    dot.set(label="model's estimate", color=ACCENT)
    centre.set(label="population", color=ink(axes))
    centre.set(**({"marker": "", "linestyle": "--"} if len(groups.coefs) == 1 else {"marker": "D"}))
    return [ring, dot, centre]


def _note_remarks(axes: Axes, groups: Groups) -> None:
    # Rows rise from the lower left to the upper right and leave the upper left free.
    corner, ha, va = (0.99, 0.01), "right", "bottom"
    if len(groups.coefs) == 1:
        corner, ha, va = (0.01, 0.99), "left", "top"
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    note(axes, _remarks(axes, groups), corner, xytext=(0.0, 0.0), ha=ha, va=va, bbox=box)


def _remarks(axes: Axes, groups: Groups) -> str:
    """Say what the marks do not show: groups without estimates, and estimates beyond the axes."""
    ends = np.sort([axes.get_xlim(), axes.get_ylim()][: len(groups.coefs)], axis=1)
    outside = (groups.own < ends[:, 0]) | (groups.own > ends[:, 1])
    beyond, absent = int(outside.any(axis=1).sum()), groups.n_absent
    remarks = []
    if absent:
        whose = "group without an estimate of its own"
        if absent > 1:
            whose = "groups without an estimate of their own"
        remarks.append(f"{absent} {whose}")
    if beyond:
        remarks.append(f"{beyond} own estimate{'' if beyond == 1 else 's'} beyond the axes")
    return "\n".join(remarks)
