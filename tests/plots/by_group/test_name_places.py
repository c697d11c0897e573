"""Names stand where they cover no mark, no other name, and not the edge."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from ranef.plots.by_group.name_places import Room, write_names


@pytest.fixture
def axes():
    figure, axes = plt.subplots(figsize=(5, 4))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    yield axes
    plt.close(figure)


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts if text.get_text()]


def test_names_cover_no_mark_and_no_other_name(axes):
    rng = np.random.default_rng(3)
    points = 0.1 + 0.8 * rng.uniform(size=(25, 2))
    left = write_names(Room(axes, points), [f"group {i}" for i in range(25)], points)
    assert left == []
    placed, pixels = boxes(axes), axes.transData.transform(points)
    assert not any(box.contains(*pixel) for box in placed for pixel in pixels)
    pairs = [(a, b) for i, a in enumerate(placed) for b in placed[:i]]
    assert not any(a.overlaps(b) for a, b in pairs)
    window = axes.bbox
    assert all(window.x0 <= b.x0 and b.x1 <= window.x1 for b in placed)
    assert all(window.y0 <= b.y0 and b.y1 <= window.y1 for b in placed)


def test_a_name_stands_on_the_side_that_is_asked_for(axes):
    point = np.array([[0.5, 0.5]])
    write_names(Room(axes, point), ["a"], point, np.array([[0.0, -20.0]]))
    (box,) = boxes(axes)
    x, y = axes.transData.transform(point)[0]
    assert box.y1 < y
    assert box.x0 < x < box.x1


def test_a_name_without_room_is_left_out_unless_it_is_asked_for(axes):
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 60), np.linspace(0, 1, 60)), -1).reshape(-1, 2)
    centre = np.array([[0.5, 0.5]])
    assert write_names(Room(axes, grid), ["a name"], centre) == ["a name"]
    assert boxes(axes) == []
    assert write_names(Room(axes, grid), ["a name"], centre, force=True) == []
    assert len(boxes(axes)) == 1


def test_what_is_taken_is_taken(axes):
    room, size = Room(axes, np.empty((0, 2))), np.array([20.0, 10.0])
    centre = np.array([[180.0, 150.0]])
    assert room.costs(centre, size)[0] == 0.0
    room.take(centre[0], size)
    assert room.costs(centre, size)[0] > 0.0
    assert room.costs(centre + np.array([[30.0, 0.0]]), size)[0] == 0.0
