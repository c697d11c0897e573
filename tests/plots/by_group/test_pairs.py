"""Pairs of coefficients: one panel each, in the order of a matrix."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from ranef.errors import DataError, RanefError
from ranef.plots.by_group.pairs import pairs

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def table(coefs, m=12):
    rng = np.random.default_rng(8)
    values = rng.normal(size=(m, len(coefs)))
    frames = [
        pd.DataFrame({"term": "g", "level": range(m), "coef": c, "estimate": v})
        for c, v in zip(coefs, values.T, strict=True)
    ]
    return pd.concat(frames, ignore_index=True), values


def points(axes):
    (line,) = (one for one in axes.lines if one.get_marker() == "o")
    return line.get_xydata()


def test_three_coefficients_have_the_lower_half_of_a_matrix():
    made, values = table(["a", "b", "c"])
    axes = pairs(made)
    assert [(one.get_xlabel(), one.get_ylabel()) for one in axes] == [
        ("", "b"),
        ("a", "c"),
        ("b", ""),
    ]
    for one, (j, i) in zip(axes, [(0, 1), (0, 2), (1, 2)], strict=True):
        np.testing.assert_array_equal(points(one), values[:, [j, i]])


def test_ellipses_are_those_of_the_pair():
    made, _ = table(["a", "b", "c"])
    cov = pd.DataFrame(np.diag([1.0, 4.0, 9.0]), index=list("abc"), columns=list("abc"))
    axes = pairs(made, covariance=cov, centre=pd.Series({"a": 5.0, "b": 0.0, "c": -5.0}))
    outer = [line for line in axes[1].lines if len(line.get_xdata()) == 181][1].get_xydata()
    reach = np.sqrt(5.991465)
    np.testing.assert_allclose(outer.max(axis=0), [5 + reach, -5 + 3 * reach], rtol=1e-3)


def test_no_name_covers_a_point():
    made, values = table(["a", "b"], 30)
    (axes,) = pairs(made)
    axes.figure.draw_without_rendering()
    named = {text.get_text() for text in axes.texts} - {""}
    assert len(named) >= 25
    pixels = axes.transData.transform(values)
    for text in (t for t in axes.texts if t.get_text()):
        assert not any(text.get_window_extent().contains(*pixel) for pixel in pixels)


def test_of_many_groups_the_extremes_are_named():
    made, values = table(["a", "b"], 300)
    (axes,) = pairs(made)
    named = {text.get_text() for text in axes.texts} - {""}
    assert {str(i) for i in (*values.argmin(axis=0), *values.argmax(axis=0))} <= named
    assert len(named) <= 8


def test_one_coefficient_has_no_pair():
    with pytest.raises(DataError) as caught:
        pairs(table(["a"])[0])
    assert str(caught.value) == (
        "the term `g` has one coefficient, `a`, and so no pair: see the caterpillar plot."
    )


def test_axes_are_one_a_pair():
    _, (left, right) = plt.subplots(1, 2)
    with pytest.raises(RanefError) as caught:
        pairs(table(["a", "b"])[0], ax=[left, right])
    assert str(caught.value) == (
        "`ax` must hold one axes for each panel, 1 in all (a, b), but it holds 2."
    )
    assert pairs(table(["a", "b"])[0], ax=left)[0] is left
