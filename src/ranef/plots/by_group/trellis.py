"""A lattice of groups, one a panel: what is seen of it, and the lines through that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from ranef._typing import Array, Axes, Panels, Size, Style
from ranef.plots import canvas

if TYPE_CHECKING:
    from matplotlib.artist import Artist

WIDTH, HEIGHT = 1.75, 1.55  # of a panel, in inches
LINES: dict[str, tuple[str, str, Any, float]] = {
    "own": ("by its rows alone", canvas.GREY, "-", 1.1),
    "model": ("the model", canvas.ACCENT, "-", 1.6),
    "population": ("population", "", "--", 1.0),
}
POINT_SIZE = 9.0  # square points
TITLE_POINTS = 15.0  # the height of the title, below which the legend stands


@dataclass(frozen=True, eq=False)
class GroupPanel:
    """One group: its points and the lines through them.

    Attributes
    ----------
    level : str
    points : ndarray, shape (n, 2)
    sizes : ndarray, shape (n,)
        Share of the largest number of rows or trials.
    along : ndarray, shape (l,)
        Where the lines are.
    lines : dict of str to ndarray, shape (l,)
        Of "own", "model" and "population" those that there are.
    band : ndarray, shape (2, l), or None
    """

    level: str
    points: Array
    sizes: Array
    along: Array
    lines: dict[str, Array]
    band: Array | None


def trellis(
    points: pd.DataFrame,
    lines: pd.DataFrame,
    *,
    levels: Sequence[object] | None = None,
    title: str = "",
    xlabel: str = "x",
    ylabel: str = "y",
    **style: Unpack[Style],
) -> Panels:
    """Draw groups side by side, one a panel, on the same axes.

    Parameters
    ----------
    points : DataFrame
        Columns `level, x, y`; and `n`, which the area of the points goes by. `x` are numbers, or
        the levels of a factor.
    lines : DataFrame
        Columns `level, x, own`, and where there are such lines `model`, `population`, and the band
        `lower, upper`, which `.attrs["interval"]` says in the legend.
    levels : sequence, optional
        The groups in the order of the panels, from the upper left; all by default.
    title, xlabel, ylabel : str
        Written above, below and beside all panels.
    ax : several Axes, optional
        One for each panel. By default a new figure is made.
    figsize : tuple of float, optional
        Width and height of a new figure in inches.

    Returns
    -------
    ndarray of Axes, shape (panels,)

    Raises
    ------
    DataError
        If a table is empty or lacks a column.
    RanefError
        If the number of axes is wrong.

    Examples
    --------
    >>> points = pd.DataFrame({"level": list("aabb"), "x": [0, 1, 0, 1], "y": [1.0, 2, 5, 3]})
    >>> panels = trellis(points, points.rename(columns={"y": "own"}), levels=["b", "a"])
    >>> [panel.get_title() for panel in panels]
    ['b', 'a']
    """
    chosen = list(dict.fromkeys(points["level"])) if levels is None else list(levels)
    ticks = _ticks(points["x"])
    panels = _group_panels(points, lines, chosen, ticks)
    longest, is_new = (
        max((len(canvas.short(t)) for t in ticks or ()), default=0),
        style.get("ax") is None,
    )
    make = partial(_new_axes, len(panels), longest)
    axes = canvas.axes_of([panel.level for panel in panels], make, **style)
    for one in axes[:1] if is_new else axes:  # a new figure's panels share theirs
        one.set(xlim=_x_limits(panels), ylim=_y_limits(panels))
    for one, panel in zip(axes, panels, strict=True):
        one.autoscale(enable=False)
        if ticks is not None:
            canvas.name_columns(one, ticks)
            is_above = is_new and not one.get_subplotspec().is_last_row()
            for label in one.get_xticklabels() if is_above else ():
                label.set_in_layout(False)  # there is room where no panel is below
        _draw_panel(one, panel)
    handles = _legend_handles(axes[0], panels[0], str(lines.attrs.get("interval", "its interval")))
    _label(axes, handles, title, (xlabel, ylabel), is_new=is_new)
    return axes


def _ticks(x: pd.Series[Any]) -> list[str] | None:
    """Return the levels along the axis, if these are no numbers."""
    if is_numeric_dtype(x) and x.dtype != bool:
        return None
    if isinstance(x.dtype, pd.CategoricalDtype):
        return [str(level) for level in x.cat.categories]
    return [str(level) for level in sorted(x.unique())]


def _group_panels(
    points: pd.DataFrame, lines: pd.DataFrame, levels: Sequence[object], ticks: list[str] | None
) -> list[GroupPanel]:
    largest = float(points["n"].max()) if "n" in points else 1.0
    known = [name for name in LINES if name in lines]
    by_level: dict[Any, Any] = dict(list(points.groupby("level", observed=True)))
    along: dict[Any, Any] = dict(list(lines.groupby("level", observed=True)))
    panels = []
    for level in levels:
        mine, line = by_level.get(level, points.iloc[:0]), along.get(level, lines.iloc[:0])
        sizes = mine["n"].to_numpy(dtype=float) / largest if "n" in mine else np.ones(len(mine))
        band = line[["lower", "upper"]].to_numpy(dtype=float).T if "lower" in line else None
        panels.append(
            GroupPanel(
                level=str(level),
                points=np.column_stack([_numbers(mine["x"], ticks), mine["y"]]),
                sizes=sizes,
                along=_numbers(line["x"], ticks),
                lines={name: line[name].to_numpy(dtype=float) for name in known},
                band=band,
            )
        )
    return panels


def _numbers(x: pd.Series[Any], ticks: list[str] | None) -> Array:
    if ticks is None:
        return x.to_numpy(dtype=float)
    return np.array([ticks.index(str(value)) for value in x], dtype=float)


def _x_limits(panels: Sequence[GroupPanel]) -> tuple[float, float]:
    return _around([part for panel in panels for part in (panel.points[:, 0], panel.along)])


def _y_limits(panels: Sequence[GroupPanel]) -> tuple[float, float]:
    """Return ends that hold the points and the model's lines; own lines may leave the axes."""
    parts = [panel.points[:, 1] for panel in panels]
    parts += [line for panel in panels for name, line in panel.lines.items() if name != "own"]
    return _around(parts)


def _around(parts: Sequence[Array]) -> tuple[float, float]:
    values = np.concatenate(parts)
    values = values[np.isfinite(values)]
    pad = 0.06 * float(np.ptp(values)) or 1.0
    return float(values.min()) - pad, float(values.max()) + pad


def _new_axes(count: int, characters: int, figsize: Size | None) -> Panels:
    usual = min(count, max(math.ceil(math.sqrt(1.5 * count)), min(count, 3)))
    near = (usual, usual + 1, usual - 1)
    columns = min((c for c in near if 0 < c <= count), key=lambda c: -count % c)  # places left free
    rows = -(-count // columns)
    size = (
        max(min(WIDTH * columns, canvas.WIDEST), 4.5),
        HEIGHT * rows + 0.9 + canvas.CHARACTER_WIDTH * characters,
    )
    figure = canvas.new_figure(size, figsize)
    axes: list[Any] = []
    for i in range(count):
        first = axes[0] if axes else None
        one = figure.add_subplot(rows, columns, i + 1, sharex=first, sharey=first)
        one.tick_params(labelsize="small")
        one.tick_params(labelleft=i % columns == 0, labelbottom=i + columns >= count)
        axes.append(one)
    return np.array(axes, dtype=object)


def _draw_panel(axes: Axes, panel: GroupPanel) -> None:
    if panel.band is not None:
        axes.fill_between(
            panel.along, *panel.band, color=canvas.TINT, alpha=0.4, linewidth=0, zorder=1
        )
    for name, line in panel.lines.items():
        _, color, style, width = LINES[name]
        axes.plot(
            panel.along, line, color=color or canvas.ink(axes), linestyle=style, linewidth=width
        )
    x, y = panel.points.T
    axes.scatter(
        x, y, s=POINT_SIZE * (0.4 + 1.6 * panel.sizes), facecolor=axes.get_facecolor(),
        edgecolor=canvas.GREY, linewidth=0.8, zorder=3,
    )  # fmt: skip
    canvas.head_panel(axes, panel.level, 0.83, fontsize="small", pad=2.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=canvas.GREY, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)


def _label(
    axes: Panels, handles: list[Artist], title: str, labels: tuple[str, str], *, is_new: bool
) -> None:
    if not is_new:
        for one in axes:
            canvas.label_x(one, labels[0])
            canvas.label_y(one, labels[1])
        axes[0].legend(handles=handles, fontsize="x-small", frameon=False)
        return
    figure = axes[0].figure
    figure.suptitle(
        f"{title}\n ", x=0.01, ha="left", fontsize="medium", linespacing=1.45, parse_math=False
    )
    figure.supxlabel(labels[0], fontsize="medium", parse_math=False)
    figure.supylabel(labels[1], fontsize="medium", parse_math=False)
    below_title = 1.0 - TITLE_POINTS * canvas.font_scale() / 72.0 / figure.get_figheight()
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.0, below_title), ncols=len(handles),
        frameon=False, fontsize="small", handletextpad=0.5, columnspacing=1.4, borderpad=0.2,
    )  # fmt: skip


def _legend_handles(axes: Axes, panel: GroupPanel, interval: str) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = []
    for name in panel.lines:
        text, color, style, width = LINES[name]
        handles.append(
            Line2D(
                [],
                [],
                color=color or canvas.ink(axes),
                linestyle=style,
                linewidth=width,
                label=text,
            )
        )
    if panel.band is not None:
        handles.append(Patch(color=canvas.TINT, alpha=0.4, label=interval))
    return handles
