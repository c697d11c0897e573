"""Dot plots: rows by their means, equal values apart, colours of few parts."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from ranef.plots.by_group.dot_plots import dots

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


POINTS = pd.DataFrame({"level": list("aabbcc"), "y": [1.0, 3, 8, 8, 4, 5]})


def places(axes):
    return axes.collections[-1].get_offsets()


def test_points_stand_in_the_row_of_their_group():
    axes = dots(POINTS)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "b"]
    np.testing.assert_array_equal(places(axes)[:, 0], POINTS["y"])
    np.testing.assert_array_equal(places(axes)[:, 1].round(), [0, 0, 2, 2, 1, 1])


def test_equal_values_of_a_row_stand_apart():
    heights = places(dots(POINTS))[:, 1]
    assert heights[2] != heights[3]
    assert heights[2] + heights[3] == pytest.approx(4.0)
    many = pd.DataFrame({"level": ["a"] * 30, "y": 1.0})
    assert np.abs(places(dots(many))[:, 1]).max() <= 0.36


def test_means_weigh_by_the_number():
    table = pd.DataFrame({"level": list("aabb"), "y": [0.0, 1, 0.4, 0.4], "n": [9, 1, 5, 5]})
    axes = dots(table)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [0.1, 0.4])


def test_a_row_of_its_own_part_has_a_colour_and_a_line():
    axes = dots(POINTS.assign(by=list("pqpqpq")), by="kind")
    assert [line.get_label() for line in axes.lines] == ["kind p", "kind q"]
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [1, 4, 8])
    colours = axes.collections[-1].get_edgecolor()
    assert len(np.unique(colours, axis=0)) == 2


def test_many_parts_have_no_colours():
    axes = dots(pd.DataFrame({"level": "a", "y": np.arange(9.0), "by": np.arange(9)}))
    assert [line.get_label() for line in axes.lines] == ["mean"]


@pytest.mark.parametrize("m", [60, 148, 600])
def test_long_lists_are_named_or_counted(m):
    rng = np.random.default_rng(m)
    table = pd.DataFrame({"level": [f"s{i}" for i in range(m)] * 2, "y": rng.normal(size=2 * m)})
    axes = dots(table)
    axes.figure.draw_without_rendering()
    assert len(axes.get_yticklabels()) == (m if m == 60 else 0)
    assert axes.get_ylabel() == ("" if m == 60 else f"{m} levels")
    assert len([t for t in axes.texts if t.get_text()]) == (0 if m == 60 else 6)


def test_estimates_stand_beside_the_points():
    estimates = pd.DataFrame({"level": list("abc"), "own": [2.0, 8, 4.5], "model": [3.0, 7, 5]})
    axes = dots(POINTS, estimates=estimates.assign(population=5.0))
    marks = {line.get_marker(): line for line in axes.lines if len(line.get_xdata()) == 3}
    np.testing.assert_array_equal(marks["D"].get_xydata(), [[2, 0], [8, 2], [4.5, 1]])
    np.testing.assert_array_equal(marks["o"].get_xydata(), [[3, 0], [7, 2], [5, 1]])
    apart = dots(POINTS, estimates=estimates.assign(population=[1.0, 2, 3]))
    assert any(line.get_marker() == "|" for line in apart.lines)


def test_one_axes_is_enough():
    _, ax = plt.subplots()
    assert dots(POINTS, ax=ax, title="g") is ax
    assert ax.get_title(loc="left") == "g, 3 levels"
