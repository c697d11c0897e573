"""What all plots share: figures and axes, colours, sizes, names of rows, titles and notes.

Nothing here reads a table or touches Matplotlib's global settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast

import numpy as np

from ranef._typing import Array, Axes, Panels, Size, Style
from ranef.arguments import check_known
from ranef.errors import RanefError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# The blue of the colour-blind-safe palette of Okabe and Ito, and a tint of it.
ACCENT, TINT, GREY = "#0072B2", "#8FC1E0", "0.45"
MAX_NAMED_ROWS = 60
MAX_NAMED_POINTS = 30
MIN_ROW_POINTS = 6.5  # of height, for a row with a name
MAX_NAME_CHARACTERS = 32
CHARACTER_WIDTH = 0.075  # inches, at the usual size of fonts
WIDEST = 12.0  # inches, of a new figure
TICK_WIDTH = 0.5  # inches, that a tick with its number needs
LABEL_SHARE, HEAD_SHARE = 1.05, 1.15  # of the width of axes, that a label and a title take at most
TICKS_SHARE = 0.6  # of the width of axes, that is left to them beside labels and a legend
NAMED_ENDS, NAME_POINTS = 3, 8.5  # names at each end of a long list, and the height of one
LINE_POINTS = 12.0  # of height, of a name beside a mark
LEGEND_ABOVE: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (0.0, 1.0),
    "frameon": False,
    "fontsize": "small",
    "borderaxespad": 0.2,
    "borderpad": 0.2,
}


class InFigure(np.ndarray[tuple[int], np.dtype[np.object_]]):
    """The axes of a picture with several panels: an array that knows its figure.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> panels = fit.plot_caterpillar()
    >>> panels, type(panels.figure).__name__
    (<1 panel of a figure>, 'Figure')
    """

    @property
    def figure(self) -> Figure:
        """The figure, which has `savefig`."""
        one: Any = self.flat[0]
        return cast("Figure", one.figure)

    def __repr__(self) -> str:
        return f"<{self.size} panel{'s' * (self.size != 1)} of a figure>"


def checked_axes(ax: Axes | Iterable[Axes], panels: Sequence[str]) -> Panels:
    """Return the user's axes as an array, one a panel; refuse another number, and what is none."""
    from matplotlib.axes import Axes as IsAxes

    axes = np.ravel(np.array(list(ax) if isinstance(ax, Iterable) else ax, dtype=object))
    if others := [one for one in axes if not isinstance(one, IsAxes)]:
        raise RanefError(
            f"`ax` takes axes of matplotlib, as plt.subplots() makes them, got {others[0]!r}."
        )
    if len(axes) != len(panels):
        raise RanefError(
            f"`ax` must hold one axes for each panel, {len(panels)} in all "
            f"({', '.join(panels)}), but it holds {len(axes)}."
        )
    return axes


def axes_of(
    names: Sequence[str], make: Callable[[Size | None], Panels], **style: Unpack[Style]
) -> Panels:
    """Return the axes of a picture's panels: those given, or those of a new figure.

    Parameters
    ----------
    names : sequence of str
        Of the panels.
    make : callable
        Makes the axes of a new figure, which is given its size, or None.
    **style
        `ax` and `figsize`.
    """
    check_known(
        style, Style.__annotations__, lambda name: f"a picture has no option `{name}`.",
        error=RanefError,
    )  # fmt: skip
    ax = style.get("ax")
    axes = make(style.get("figsize")) if ax is None else checked_axes(ax, names)
    return axes.view(InFigure)


def panels_of(
    names: Sequence[str], size: Callable[[int, int], Size], most: int = 100, **style: Unpack[Style]
) -> Panels:
    """Return the axes of panels that fill a figure row by row.

    Parameters
    ----------
    names : sequence of str
        Of the panels.
    size : callable
        The size of a new figure with so many columns and rows of panels.
    most : int
        Panels of a row.
    **style
        `ax` and `figsize`.
    """
    columns = min(len(names), most)
    rows = -(-len(names) // columns)

    def made(figsize: Size | None) -> Panels:
        figure = new_figure(size(columns, rows), figsize)
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(len(names))]
        return np.array(axes, dtype=object)

    return axes_of(names, made, **style)


def one_axes(name: str, size: Size, **style: Unpack[Style]) -> Axes:
    """Return the axes of a picture with one panel: those given, or those of a new figure."""
    axes: Axes = panels_of([name], lambda *_: size, **style)[0]
    return axes


def new_figure(size: Size, figsize: Size | None = None) -> Figure:
    """Return a figure whose elements do not overlap.

    Parameters
    ----------
    size : tuple of float
        Width and height in inches with fonts of the usual size; larger fonts, as on slides, have a
        figure that is larger by as much, so that everything keeps its place.
    figsize : tuple of float, optional
        What the user wants.
    """
    import matplotlib.pyplot as plt
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scale = max(font_scale(), 1.0)
    wanted = (size[0] * scale, size[1] * scale) if figsize is None else _checked_size(figsize)
    return plt.figure(figsize=wanted, layout=ConstrainedLayoutEngine(wspace=0.04))


def _checked_size(figsize: object) -> tuple[float, float]:
    """Return width and height, or refuse them."""
    pair = list(figsize) if isinstance(figsize, Iterable) else []
    if len(pair) == 2 and all(isinstance(x, Real) and 0 < float(x) < np.inf for x in pair):
        return float(pair[0]), float(pair[1])
    raise RanefError(
        f"`figsize` must be two positive numbers, width and height in inches, got {figsize!r}."
    )


def font_scale() -> float:
    """Return how much larger than usual the fonts are, as on slides."""
    import matplotlib as mpl

    return float(mpl.rcParams["font.size"]) / 10.0


def rows_height(m: int, of_row: float = 0.18) -> float:
    """Return the height, in inches, of a plot with a row for each of m levels.

    Beyond 20, rows are half as high, and their names smaller.
    """
    rows = max(m, 4)
    return 0.9 + of_row / 2 * (rows + min(rows, 20)) if m <= MAX_NAMED_ROWS else 6.0


def labels_width(levels: Sequence[str]) -> float:
    """Return the width, in inches, of the names of levels beside a plot."""
    longest = max((len(short(level)) for level in levels), default=0)
    return 0.4 + CHARACTER_WIDTH * longest if len(levels) <= MAX_NAMED_ROWS else 0.6


def short(name: str, most: int = MAX_NAME_CHARACTERS) -> str:
    """Return a name in one line, with its middle left out where it is too long."""
    name, half = " ".join(name.split("\n")), most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"


def _room(inches: float, size: float = 1.0) -> int:
    """Return how many characters have room, of a size relative to the usual one."""
    return max(int(inches / (CHARACTER_WIDTH * size * font_scale())), 8)


def _lines(text: str, room: int) -> str:
    """Return text in lines that have room, of which too long words lose their middle."""
    lines = [
        line
        for part in text.split("\n")
        for line in fill(part, room, break_long_words=False, break_on_hyphens=False).split("\n")
    ]
    return "\n".join(short(line, room) for line in lines)


def label_x(axes: Axes, text: str) -> None:
    """Write what the values are below the axes, in lines no longer than these are wide."""
    room = _room(LABEL_SHARE * axes.bbox.width / axes.figure.dpi)
    axes.set_xlabel(_lines(text, room), parse_math=False)


def label_y(axes: Axes, text: str) -> None:
    """Write what the values are beside the axes; their power of ten leaves room for a legend."""
    room = _room(LABEL_SHARE * axes.bbox.height / axes.figure.dpi)
    axes.set_ylabel(_lines(text, room), parse_math=False)
    axes.yaxis.get_offset_text().set_horizontalalignment("right")


def head_panel(axes: Axes, text: str, size: float = 1.0, **style: Any) -> None:
    """Write the title of a panel, no longer than that is wide."""
    room = _room(HEAD_SHARE * axes.bbox.width / axes.figure.dpi, size)
    axes.set_title(short(text, room), parse_math=False, **style)


def name_columns(axes: Axes, names: Sequence[str]) -> None:
    """Write names below the places 0, 1, ..., in lines; upright where these have no room."""
    inches = TICKS_SHARE * axes.bbox.width / axes.figure.dpi / max(len(names), 1)
    room = max(int(inches / (CHARACTER_WIDTH * font_scale())), 1)
    words = [short(name) for name in names]
    lines = [fill(one, room, break_long_words=False, break_on_hyphens=False) for one in words]
    steep = any(len(line) > room for one in lines for line in one.split("\n"))
    axes.set_xticks(range(len(words)), words if steep else lines, parse_math=False)
    axes.tick_params(axis="x", rotation=90 if steep else 0)


def name_rows(axes: Axes, levels: Sequence[str], m: int, *, labels: bool | str = "auto") -> None:
    """Write the level at each of m rows; where names have no room their number and the ends."""
    points, margin = row_points(axes, m), max(0.6, 0.01 * m)
    axes.set_ylim(-margin, m - 1 + margin)
    axes.set_yticks([])
    if levels and (labels is True or (labels == "auto" and points >= MIN_ROW_POINTS)):
        size = np.clip(0.85 * points, 4.0, 9.0 * font_scale())
        names = [short(level) for level in levels]
        axes.set_yticks(range(m), names, fontsize=size, parse_math=False)
    elif levels:
        width = 0.0 if labels is False else _name_ends(axes, levels, points)
        axes.set_ylabel(f"{m} levels", labelpad=4.0 + width)


def _name_ends(axes: Axes, levels: Sequence[str], points: float) -> float:
    """Name the rows at the bottom and at the top, and return the width of the names in points."""
    m, count, height = len(levels), min(NAMED_ENDS, len(levels) // 2), NAME_POINTS * font_scale()
    places = [(i, i * (height - points)) for i in range(count)]
    places += [(m - 1 - i, -shift) for i, shift in places]
    for row, shift in places:
        axes.annotate(
            short(levels[row]), (0.0, row), xycoords=axes.get_yaxis_transform(),
            xytext=(-9.0, shift), textcoords="offset points", ha="right", va="center",
            fontsize=0.83 * height, parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 0,
                        "shrinkA": 0, "relpos": (1.0, 0.5)},
        )  # fmt: skip
    longest = max((len(short(levels[row])) for row, _ in places), default=0)
    return 9.0 + 0.55 * height * longest


def name_largest(axes: Axes, levels: Sequence[str], values: Array) -> None:
    """Write the level beside the numbers farthest from the middle, where rows have no names."""
    sizes = np.nan_to_num(np.abs(values - np.nanmedian(values)), nan=-1.0)
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.15 * (high - low), high + 0.15 * (high - low))
    points, above = axes.bbox.height * 72.0 / axes.figure.dpi / len(levels), np.inf
    for row in sorted(np.argsort(-sizes, kind="stable")[:NAMED_ENDS].tolist(), reverse=True):
        is_right = values[row] >= (low + high) / 2
        above = min(row * points, above - LINE_POINTS)  # names do not lie on each other
        axes.annotate(
            short(levels[row]), (values[row], row),
            xytext=(4 if is_right else -4, above - row * points),
            textcoords="offset points", ha="left" if is_right else "right", va="center",
            fontsize="small", parse_math=False, zorder=5,
        )  # fmt: skip


def row_points(axes: Axes, m: int) -> float:
    """Return the height in points of one of m rows."""
    return float(axes.bbox.height * 72.0 / axes.figure.dpi / max(m, 1))


def mark_sizes(axes: Axes, m: int) -> tuple[float, float]:
    """Return the diameter of a point and the width of a line, in points, for m rows."""
    points = min(row_points(axes, m), 9.0 * font_scale())
    return max(0.55 * points, 1.2), min(max(0.4 * points, 0.4), 1.8 * font_scale())


def draw_title(axes: Axes, term: str, m: int, pad: float) -> None:
    """Write what a term is called above the axes, with the number of its levels."""
    text = f"{term}, {m} level{'' if m == 1 else 's'}"
    axes.set_title(text, loc="left", pad=pad * font_scale(), parse_math=False)


def note(axes: Axes, text: str, corner: tuple[float, float], **place: Any) -> None:
    """Write small grey text at a corner of the axes, if there is any.

    It may be longer than the axes are wide, which are not made narrower for it; below them it has
    lines.
    """
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

    class Note(Annotation):
        def get_tightbbox(self, renderer: Any = None) -> Bbox | None:
            box, of_axes = super().get_tightbbox(renderer), axes.bbox
            if box is None:
                return None
            ends = np.clip([box.x0, box.x1], of_axes.x0, of_axes.x1)
            return Bbox([[ends[0], box.y0], [ends[1], box.y1]])

    if not text:
        return
    if place.get("va") == "top":
        text = _lines(text, _room(axes.bbox.width / axes.figure.dpi, 0.83))
    one = Note(
        text, corner, xycoords="axes fraction", textcoords="offset points", fontsize="small",
        color=GREY, parse_math=False, zorder=6, **place,
    )  # fmt: skip
    axes.add_artist(one).set_clip_on(False)


def strip(axes: Axes, grid: Literal["x", "both"]) -> None:
    """Remove the frame but for the axis of values, and add a light grid."""
    axes.grid(axis=grid, color=GREY, alpha=0.2, linewidth=0.6)
    inches = axes.bbox.width / axes.figure.dpi
    axes.locator_params(axis="x", nbins=int(np.clip(inches / (TICK_WIDTH * font_scale()), 2, 9)))
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


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


def ink(axes: Axes) -> Any:
    """Return the colour of text and lines on these axes."""
    return axes.xaxis.label.get_color()
