"""The marks of shrinkage plots: own estimates, the model's, and the way from one to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from scipy.special import ndtri

from ranef._typing import Array, Axes, Flags, Style
from ranef.plots import canvas
from ranef.plots.by_group.name_places import NO_ROOM, Room, at_ends, settle, text_size, write_names

if TYPE_CHECKING:
    from matplotlib.artist import Artist

REGION_PROBABILITIES = (0.5, 0.95)
REGIONS = "50 % and 95 % of groups, by the model"
NO_SD = "sd estimated as 0: the model sees no differences between groups, which is not certainty"
MAX_CENTRES = 4  # populations that have regions of their own
MOST_NAMED = 4  # groups in a note
LARGEST_RING = 6.0  # points, the diameter of a ring in the plane
LEGEND_ROW = 14.0  # points


@dataclass(frozen=True, eq=False)
class Groups:
    """The m groups of a term that have own estimates of the k = 1 or 2 coefficients drawn.

    Attributes
    ----------
    term, own_name : str
        The factor, and what its own estimates are called.
    coefs, labels, levels : tuple of str
        Coefficients, what stands at their axes, and groups.
    own, model, population : ndarray, shape (m, k)
        The estimates of each group from its own observations, nan where there is none, of the
        model, and its fixed part.
    n : ndarray, shape (m,)
        The number of observations of each group.
    absent : tuple of str
        The groups that have no estimate of their own.
    """

    term: str
    own_name: str
    coefs: tuple[str, ...]
    labels: tuple[str, ...]
    levels: tuple[str, ...]
    own: Array
    model: Array
    population: Array
    n: Array
    absent: tuple[str, ...]

    @property
    def centres(self) -> Array:
        """The populations that differ by more than rounding, shape (c, k)."""
        size = np.abs(self.population).max(axis=0, initial=1e-300)
        _, first = np.unique((self.population / size).round(9), axis=0, return_index=True)
        return np.asarray(self.population[np.sort(first)])

    @property
    def is_whole(self) -> Flags:
        """Whether a group has all its coefficients of its own, shape (m,)."""
        return np.isfinite(self.own).all(axis=1)

    @property
    def tails(self) -> Array:
        """The own estimates; the model's where a group has none of a coefficient, (m, k)."""
        return np.where(np.isfinite(self.own), self.own, self.model)


def new_single(groups: Groups, **style: Unpack[Style]) -> Axes:
    """Return the axes of a new figure for one shrinkage plot."""
    size = 6.4, 5.9
    if len(groups.coefs) == 1:
        size = (
            canvas.labels_width(groups.levels) + 5.4,
            canvas.rows_height(len(groups.levels)) + 0.6,
        )
    return canvas.one_axes(groups.term, size, **style)


def draw_groups(axes: Axes, groups: Groups, cov: Array | None, labels: bool | str) -> None:
    """Draw a shrinkage plot: rows for one coefficient, the plane for two."""
    has_regions = cov is not None and bool(np.any(cov)) and _are_few(groups.centres)
    remarks = [] if cov is None or np.any(cov) else [NO_SD]
    handles = _legend_handles(axes, groups, has_regions=has_regions)
    pad = 8.0 + LEGEND_ROW * math.ceil(len(handles) / 2)
    canvas.draw_title(axes, groups.term, len(groups.levels) + len(groups.absent), pad=pad)
    axes.legend(
        handles=handles, ncols=2, handletextpad=0.4, columnspacing=1.2, **canvas.LEGEND_ABOVE
    )
    canvas.label_x(axes, groups.labels[0])
    draw = _draw_rows if len(groups.coefs) == 1 else _draw_plane
    draw(axes, groups, cov if has_regions else None, labels, remarks)


def _are_few(centres: Array) -> bool:
    return len(centres) <= (1 if centres.shape[1] == 1 else MAX_CENTRES)


def _draw_rows(
    axes: Axes, groups: Groups, cov: Array | None, labels: bool | str, remarks: list[str]
) -> None:
    rank = np.argsort(groups.own[:, 0], kind="stable")
    own, model, m = groups.own[rank, 0], groups.model[rank, 0], len(rank)
    centre = groups.population[rank, 0]
    rows = np.arange(m, dtype=float)
    sd = 0.0 if cov is None else math.sqrt(cov[0, 0])
    ends = [_draw_band(axes, centre[0], sd, p) for p in REGION_PROBABILITIES if sd > 0.0 and m]
    axes.set_xlim(_limits(own, np.concatenate([model, centre, *ends])))
    canvas.name_rows(axes, [groups.levels[i] for i in rank], m, labels=labels)
    if ends:
        # Room below the rows for the shares that the bands hold.
        axes.set_ylim(
            bottom=axes.get_ylim()[0] - 12.0 * canvas.font_scale() / canvas.row_points(axes, m)
        )
    size, width = canvas.mark_sizes(axes, m)
    size = max(size, 2.0)
    if len(groups.centres) == 1:
        axes.axvline(centre[0], color=canvas.ink(axes), linewidth=1.0, linestyle="--", zorder=1.5)
    else:
        axes.plot(centre, rows, "|", color=canvas.ink(axes), markersize=1.6 * size, zorder=1.5)
    axes.hlines(rows, own, model, color=canvas.TINT, linewidth=width, zorder=2)
    _draw_own(axes, np.column_stack([own, rows]), groups.n[rank], size)
    axes.plot(model, rows, "o", color=canvas.ACCENT, markersize=size, zorder=4)
    canvas.strip(axes, "x")
    _note_remarks(axes, groups, remarks)


def _draw_plane(
    axes: Axes, groups: Groups, cov: Array | None, labels: bool | str, remarks: list[str]
) -> None:
    m, centres, whole = len(groups.levels), groups.centres, groups.is_whole
    contours = [
        [] if cov is None else [canvas.ellipse(one, cov, p) for one in centres]
        for p in REGION_PROBABILITIES
    ]
    core = np.vstack([groups.model, centres, *(c for of_prob in contours for c in of_prob)])
    axes.set_xlim(_limits(groups.own[:, 0], core[:, 0]))
    axes.set_ylim(_limits(groups.own[:, 1], core[:, 1]))
    for contour in (c for of_prob in contours for c in of_prob):
        axes.plot(*contour.T, color=canvas.GREY, linewidth=0.8, zorder=1.2)
    size = 4.5 * canvas.font_scale() * min(1.0, math.sqrt(60 / max(m, 1)))
    _draw_arrows(axes, groups, size)
    _draw_own(axes, groups.own[whole], groups.n[whole], size)
    for j, mark in enumerate("|_"):
        only = np.isfinite(groups.own[:, j]) & ~whole
        axes.plot(*groups.tails[only].T, mark, color=canvas.GREY, markersize=1.8 * size, zorder=3)
    axes.plot(*groups.model.T, "o", color=canvas.ACCENT, markersize=size, zorder=4)
    many = min(1.0, math.sqrt(MAX_CENTRES / len(centres))) if len(centres) else 1.0
    axes.plot(*centres.T, "D", color=canvas.ink(axes), markersize=6.5 * many, zorder=5)
    canvas.label_y(axes, groups.labels[1])
    axes.spines[["top", "right"]].set_visible(False)
    unnamed = _note_remarks(axes, groups, remarks)
    settle(axes)
    ways = np.stack([groups.tails, groups.model], axis=1)
    marks = np.vstack([groups.tails, groups.model, centres])
    room = Room(axes, marks, ways, radius=max(LARGEST_RING * size / 4.5 / 2, 2.0))
    for prob, of_prob in zip(REGION_PROBABILITIES, contours, strict=True):
        for contour in of_prob:
            _name_contour(room, contour, prob)
    if labels is True or (labels == "auto" and m <= canvas.MAX_NAMED_POINTS):
        chosen = ~unnamed
        away = room.points(groups.tails) - room.points(groups.model)
        names = list(compress(groups.levels, chosen))
        write_names(room, names, groups.tails[chosen], away[chosen], force=labels is True)
    elif labels == "auto":
        _name_extremes(room, groups, ~unnamed)


def _name_extremes(room: Room, groups: Groups, chosen: Flags) -> None:
    """Name the groups that are farthest out in each coefficient."""
    places = np.flatnonzero(chosen & groups.is_whole)
    ends = places[at_ends(groups.own[places])]
    away = room.points(groups.tails) - room.points(groups.model)
    write_names(room, [groups.levels[i] for i in ends], groups.tails[ends], away[ends])


def _draw_band(axes: Axes, centre: float, sd: float, prob: float) -> tuple[float, float]:
    """Shade the interval that holds `prob` of N(centre, sd^2) and return its ends."""
    reach = sd * float(ndtri((1.0 + prob) / 2.0))
    low, high = centre - reach, centre + reach
    axes.axvspan(low, high, color=canvas.ACCENT, alpha=0.05, linewidth=0.0, zorder=0)
    is_inner = prob == min(REGION_PROBABILITIES)  # its share stands inside, the other's beside it
    axes.annotate(
        f"{100 * prob:.0f} %", (high, 0.0), xycoords=axes.get_xaxis_transform(),
        xytext=(-2 if is_inner else 2, 2), textcoords="offset points",
        ha="right" if is_inner else "left", va="bottom", fontsize="small", color=canvas.GREY,
    )  # fmt: skip
    return low, high


def _name_contour(room: Room, contour: Array, prob: float) -> None:
    """Write the share that a contour holds on it, where that covers nothing."""
    if not np.ptp(contour, axis=0).any():
        return
    axes = room.axes
    box = {"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 0.5}
    text = axes.annotate(
        f"{100 * prob:.0f} %", contour[0], ha="center", va="center", fontsize="small",
        color=canvas.GREY, bbox=box, zorder=1.3,
    )  # fmt: skip
    size, points = text_size(text), room.points(contour)
    below = (points[:, 1] - points[:, 1].min()) / 100.0  # the lowest, all else the same
    costs = room.costs(points, size + 1.0) + below
    best = int(np.argmin(costs))
    if costs[best] >= NO_ROOM:
        text.remove()
        return
    text.xy = tuple(contour[best])
    text.set_position(tuple(contour[best]))
    room.take(points[best], size + 1.0)


def _draw_arrows(axes: Axes, groups: Groups, size: float) -> None:
    axes.quiver(
        *groups.tails.T, *(groups.model - groups.tails).T, angles="xy", scale_units="xy", scale=1,
        units="inches", width=0.003 * size, headwidth=5, headlength=6, headaxislength=6,
        color=canvas.TINT, zorder=2,
    )  # fmt: skip


def _draw_own(axes: Axes, points: Array, n: Array, size: float) -> None:
    """Draw the groups' own estimates as rings, their area by the number of observations."""
    share = n / n.max() if _varies(n) else np.full(len(n), 0.8)
    x, y = points.T
    axes.scatter(
        x, y, s=(0.4 + 1.6 * share) * size**2, facecolor=axes.get_facecolor(),
        edgecolor=canvas.GREY, linewidth=min(0.9, 0.2 * size), zorder=3,
    )  # fmt: skip


def _varies(n: Array) -> bool:
    return len(set(n.tolist())) > 1


def _limits(own: Array, core: Array) -> tuple[float, float]:
    """Return ends that hold all of `core`, and of `own` all numbers that are no outliers."""
    own, core = own[np.isfinite(own)], core[np.isfinite(core)]
    if len(own):
        low, high = np.percentile(own, [25.0, 75.0])
        reach = 3.0 * (high - low)
        core = np.concatenate([core, own[(own >= low - reach) & (own <= high + reach)]])
    if not len(core):
        return -1.0, 1.0
    pad = 0.06 * float(np.ptp(core)) or 1.0
    return float(core.min()) - pad, float(core.max()) + pad


def _legend_handles(axes: Axes, groups: Groups, *, has_regions: bool) -> list[Artist]:
    """Return the marks of the legend: own estimates, the model's, the population, regions."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    one, lone = len(groups.coefs) == 1, len(groups.centres) <= 1
    own = groups.own_name + " (area: rows)" * _varies(groups.n)
    ring, dot, centre = (Line2D([], [], linestyle="", marker="o", markersize=s) for s in (6, 5, 6))
    ring.set(label=own, markeredgecolor=canvas.GREY, markerfacecolor=axes.get_facecolor())
    dot.set(label="model's estimate", color=canvas.ACCENT)
    centre.set(label="population" + ", by its predictors" * (not lone), color=canvas.ink(axes))
    centre.set(marker=("" if lone else "|") if one else "D", linestyle="--" if one and lone else "")
    handles: list[Artist] = [ring, dot, centre]
    if has_regions:
        shade = Patch(color=canvas.ACCENT, alpha=0.1, label=REGIONS)
        handles.append(
            shade if one else Line2D([], [], color=canvas.GREY, linewidth=0.8, label=REGIONS)
        )
    if not one and not groups.is_whole.all():
        marks: dict[str, Any] = {
            "marker": "|",
            "markersize": 7,
            "color": canvas.GREY,
            "linestyle": "",
        }
        handles.append(Line2D([], [], label="own estimate of one of the two alone", **marks))
    return handles


def _note_remarks(axes: Axes, groups: Groups, remarks: list[str]) -> Flags:
    """Say below the axes what the marks do not show, and return which groups are beyond them."""
    ends = np.sort([axes.get_xlim(), axes.get_ylim()][: len(groups.coefs)], axis=1)
    outside = ((groups.own < ends[:, 0]) | (groups.own > ends[:, 1])).any(axis=1)
    remarks = [*remarks]
    if groups.absent:
        whose = "no group has an estimate" if not groups.levels else "without an estimate"
        alone = "" if not groups.levels else f": {_some(groups.absent)}"
        remarks.append(f"{whose} of its own{alone}")
    if outside.any():
        beyond = list(compress(groups.levels, outside))
        if len(groups.coefs) == 1:
            values = groups.own[outside, 0]
            beyond = [f"{name} ({x:.4g})" for name, x in zip(beyond, values, strict=True)]
        remarks.append(f"own estimate beyond the axes: {_some(beyond)}")
    canvas.note(
        axes,
        "\n".join(remarks),
        (0.0, 0.0),
        xytext=(0.0, -36.0 * canvas.font_scale()),
        ha="left",
        va="top",
    )
    return np.asarray(outside)


def _some(names: Any) -> str:
    """Return some names and the number of the others."""
    names = list(names)
    if len(names) <= MOST_NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
