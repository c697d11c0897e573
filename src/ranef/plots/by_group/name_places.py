"""Where names have room: text near a point that covers no mark and no other text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ranef._typing import Array, Axes
from ranef.plots import canvas

NAME_SIZE = 8.0  # points, of a name where fonts have their usual size
TURNS = 16  # directions that are tried
DISTANCES = (3.0, 7.0, 13.0, 21.0, 31.0, 43.0, 57.0)  # from the mark to the text, in points
LINE_FROM = 10.0  # points; a name that is farther away has a line to its mark
MARGIN = np.array([3.0, 1.0])  # points beside and above a text
COSTS = {"mark": 1e4, "text": 1e4, "outside": 1e5, "line": 40.0}
NO_ROOM = min(COSTS["mark"], COSTS["text"])  # a cost from which something is covered


class Room:
    """The room on axes, in points: the marks and texts that are there already.

    Parameters
    ----------
    axes : Axes
        Limits and layout are to be settled: what changes them later moves the marks, not the room.
    marks : ndarray, shape (n, 2)
        Places of marks, in data coordinates.
    lines : ndarray, shape (l, 2, 2), optional
        Ends of lines that a name had better not cross.
    radius : float
        Of the marks, in points.
    """

    def __init__(
        self, axes: Axes, marks: Array, lines: Array | None = None, radius: float = 3.0
    ) -> None:
        self.axes, self.radius = axes, radius
        self.marks = _by_place(self.points(marks))
        ends = self.points(np.empty((0, 2)) if lines is None else lines.reshape(-1, 2))
        share = np.linspace(0.0, 1.0, 12)[:, None, None]
        self.lines = _by_place((ends[::2] * (1 - share) + ends[1::2] * share).reshape(-1, 2))
        self.texts = np.empty((0, 4))

    def points(self, places: Array) -> Array:
        """Return places of the data in points of the figure, shape (n, 2)."""
        if not len(places):
            return np.empty((0, 2))
        pixels = self.axes.transData.transform(places)
        return np.asarray(pixels * 72.0 / self.axes.figure.dpi)

    def costs(self, centres: Array, size: Array) -> Array:
        """Return what texts of a size in points would cover, one number for each centre."""
        half = size / 2 + MARGIN
        low, high = centres - half, centres + half
        window = self.axes.bbox
        scale = 72.0 / self.axes.figure.dpi
        inside = (low >= np.array([window.x0, window.y0]) * scale).all(axis=1)
        inside &= (high <= np.array([window.x1, window.y1]) * scale).all(axis=1)
        clash = (low[:, None] < self.texts[:, 2:]) & (high[:, None] > self.texts[:, :2])
        return np.asarray(
            COSTS["mark"] * self._covered(centres, half + self.radius, self.marks)
            + COSTS["line"] * self._covered(centres, half, self.lines)
            + COSTS["text"] * clash.all(axis=2).sum(axis=1)
            + COSTS["outside"] * ~inside
        )

    def take(self, centre: Array, size: Array) -> None:
        """Remember that there is a text."""
        self.texts = np.vstack([self.texts, np.concatenate([centre - size / 2, centre + size / 2])])

    @staticmethod
    def _covered(centres: Array, half: Array, points: Array) -> Array:
        """Return how many points, which are sorted by their first coordinate, are in each box."""
        first = np.searchsorted(points[:, 0], centres[:, 0] - half[0], side="right")
        last = np.searchsorted(points[:, 0], centres[:, 0] + half[0], side="left")
        near = (points[i:j, 1] - y for i, j, y in zip(first, last, centres[:, 1], strict=True))
        return np.array([np.count_nonzero(np.abs(away) < half[1]) for away in near])


def _by_place(points: Array) -> Array:
    return points[np.argsort(points[:, 0], kind="stable")]


def write_names(
    room: Room,
    names: Sequence[str],
    places: Array,
    away: Array | None = None,
    *,
    force: bool = False,
) -> list[str]:
    """Write names near places, each where it covers no mark and no other name.

    Parameters
    ----------
    room : Room
    names : sequence of str
    places : ndarray, shape (n, 2)
        In data coordinates.
    away : ndarray, shape (n, 2), optional
        A direction in which a name had better stand, in points.
    force : bool
        Whether a name without room is written where it covers least, in place of being left out.

    Returns
    -------
    list of str
        The names that had no room.
    """
    turns = 2 * math.pi * np.arange(TURNS) / TURNS
    units, anchors, left = np.column_stack([np.cos(turns), np.sin(turns)]), room.points(places), []
    for i, (name, place, anchor) in enumerate(zip(names, places, anchors, strict=True)):
        text = room.axes.annotate(
            canvas.short(name), tuple(place), xytext=(0.0, 0.0), textcoords="offset points",
            ha="center", va="center", fontsize=NAME_SIZE * canvas.font_scale(), zorder=6,
            parse_math=False, annotation_clip=True,
        )  # fmt: skip
        size = text_size(text)
        reach = np.minimum(*(size[:, None] / 2 / np.maximum(np.abs(units.T), 1e-9)))
        wanted = np.zeros(TURNS)
        if away is not None and np.any(away[i]):
            wanted = 1 - units @ away[i] / np.linalg.norm(away[i])
        steps = np.array(DISTANCES)[:, None] + room.radius
        offsets = ((reach + steps)[..., None] * units).reshape(-1, 2)
        liking = (steps + 3.0 * wanted).ravel()
        costs = room.costs(anchor + offsets, size) + liking
        best = int(np.argmin(costs))
        if costs[best] >= NO_ROOM and not force:
            text.remove()
            left.append(name)
            continue
        text.set_position(tuple(offsets[best]))
        room.take(anchor + offsets[best], size)
        if np.repeat(DISTANCES, TURNS)[best] > LINE_FROM:
            _line_to(room.axes, place, offsets[best], size)
    return left


def at_ends(values: Array) -> list[int]:
    """Return the rows that are farthest out in a column, two at each end, each row once."""
    orders = np.argsort(values, axis=0, kind="stable").T
    return list(dict.fromkeys(i for o in orders.tolist() for i in (*o[:2], *o[-2:])))


def _line_to(axes: Axes, place: Array, offset: Array, size: Array) -> None:
    """Draw a thin line from a mark to the nearest edge of its name."""
    shrink = float(np.min(size / 2 / np.maximum(np.abs(offset), 1e-9)))
    end = offset * max(1.0 - shrink, 0.0)
    axes.annotate(
        "", tuple(place), xytext=tuple(end), textcoords="offset points", annotation_clip=True,
        arrowprops={"arrowstyle": "-", "color": canvas.GREY, "linewidth": 0.5, "shrinkA": 0,
        "shrinkB": 2}, zorder=1.8,
    )  # fmt: skip


def text_size(text: Any) -> Array:
    """Return width and height of a text, in points."""
    box = text.get_window_extent()
    return np.asarray(np.array([box.width, box.height]) * 72.0 / text.figure.dpi)


def settle(axes: Axes) -> None:
    """Lay the figure out, so that places on it are what they will be when it is drawn."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
