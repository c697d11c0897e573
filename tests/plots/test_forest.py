"""Forest plots: what is drawn where."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from meta_cases import SCHOOLS

import ranef as rf
from ranef.plots.forest import forest

mpl.use("Agg")


@pytest.fixture(scope="module")
def table():
    return rf.fit("y ~ 1 + (1 | study)", SCHOOLS, "quadrature", se="s").forest_table()


def test_rows_stand_from_the_top(table):
    axes = forest(table, response="y")
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["a new study", "mean", *reversed("ABCDEFGH")]
    assert axes.get_xlabel() == "y"
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["the study by itself", "in the light of the others, 95 % HPD interval"]


def test_marks_are_at_the_numbers(table):
    axes = forest(table)
    studies = table[table["kind"] == "study"].iloc[::-1]
    squares = axes.collections[1]
    np.testing.assert_allclose(squares.get_offsets()[:, 0], studies["own"].astype(float))
    points = next(line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xdata(), studies["estimate"].astype(float))
    assert np.argmax(squares.get_sizes()) == list(studies["label"]).index("E")
    (diamond,) = axes.patches
    mean = table.set_index("kind").loc["mean"]
    corners = diamond.get_xy()[:, 0]
    assert (corners.min(), corners.max()) == (mean["lower"], mean["upper"])
    assert 0.0 in [line.get_xdata()[0] for line in axes.lines]


def test_zero_far_away_is_not_drawn(table):
    numbers = table.columns[2:]
    axes = forest(table.assign(**{name: table[name] + 1000 for name in numbers}))
    assert axes.get_xlim()[0] > 900


def test_given_axes_are_used():
    fit = rf.fit("y ~ 1 + (1 | study)", SCHOOLS, se="s")
    axes = mpl.figure.Figure().add_subplot()
    assert fit.plot_forest(ax=axes) is axes
    assert axes.get_xlabel() == "y"
    with pytest.raises(rf.RanefError, match="`ax` must hold one axes"):
        fit.plot_forest(ax=[axes, axes])
