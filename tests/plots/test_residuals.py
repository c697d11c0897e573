"""Pictures of residuals: what is drawn where."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ranef.errors import RanefError
from ranef.plots.residuals import residuals, slices


def normal(m=20, **attrs):
    rng = np.random.default_rng(1)
    y = np.sort(rng.normal(size=m))
    found = pd.DataFrame({"theoretical": np.linspace(-2, 2, m), "residual": y})
    found = found.assign(lower=y - 1, upper=y + 1)
    found.attrs |= {"x": "standard normal quantile", "residual": "thing"} | attrs
    return found


def test_means_of_slices():
    x = np.repeat([0.0, 1.0, 2.0], 4)
    y = np.arange(12.0)
    middle, mean, error = slices(x, y)
    assert middle.tolist() == [0, 1, 2]
    assert mean.tolist() == [1.5, 5.5, 9.5]
    np.testing.assert_allclose(error, np.std([0, 1, 2, 3], ddof=1) / 2)
    x = np.random.default_rng(1).normal(size=1000)
    middle, mean, _ = slices(x, 2 * x)
    assert len(middle) == 20
    np.testing.assert_allclose(mean, 2 * middle)
    assert slices(np.zeros(1), np.ones(1))[2].tolist() == [0.0]


def test_points_and_means_stand_at_the_numbers():
    table = pd.DataFrame({"x": [0.0, 0.0, 1.0, 1.0], "residual": [1.0, 3.0, -1.0, 0.0]})
    table.attrs |= {"x": "Days", "residual": "residual"}
    axes = residuals(table)
    assert axes.get_xlabel() == "Days"
    cloud, means = (line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(cloud.get_ydata(), table["residual"])
    np.testing.assert_allclose(means.get_ydata(), [2.0, -0.5])


def test_labels_have_their_places():
    table = pd.DataFrame({"x": list("abab"), "residual": [1.0, 3.0, -1.0, 0.0]})
    names = [label.get_text() for label in residuals(table).get_xticklabels()]
    assert names == ["a", "b"]


def test_groups_are_ordered_by_their_mean():
    table = pd.DataFrame({"level": list("aabbcc"), "residual": [5, 6, 1, 0, -9, 2.0]})
    axes = residuals(table)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "b", "a"]
    means = axes.lines[-1]
    np.testing.assert_allclose(means.get_xdata(), [-3.5, 0.5, 5.5])


def test_points_beyond_the_envelope_have_another_colour():
    table = normal()
    table.loc[19, "upper"] = table.loc[19, "residual"] - 0.1
    axes = residuals(table)
    colours = axes.collections[-1].get_facecolors()
    assert (colours[19] != colours[0]).any()
    assert (colours[:19] == colours[0]).all()
    assert axes.get_ylabel() == "thing"


def test_the_band_is_explained():
    axes = residuals(normal(prob=0.9, p_value=0.4))
    assert [text.get_text() for text in axes.texts] == [
        "band: holds 90 % of simulated curves; p = 0.4"
    ]


def test_random_effects_have_a_panel_for_each_coefficient():
    both = [normal(prob=0.95).assign(coef=name, term="g", level=range(20)) for name in "ab"]
    table = pd.concat(both, ignore_index=True)
    table.attrs |= {"prob": 0.95, "p_value": {"a": 0.3, "b": 0.01}}
    table.loc[5, "lower"] = table.loc[5, "residual"] + 1
    grid = residuals(table)
    assert [axes.get_title(loc="left") for axes in grid] == ["g: a", "g: b"]
    names = [[text.get_text() for text in axes.texts] for axes in grid]
    assert names[0] == ["5", "band: holds 95 % of simulated curves; p = 0.3"]
    assert names[1] == ["0", "19", "band: holds 95 % of simulated curves; p = 0.01"]
    _, axes = plt.subplots(1, 3)
    with pytest.raises(
        RanefError, match=r"one axes for each panel, 2 in all \(a, b\), but it holds 3"
    ):
        residuals(table, ax=axes)


@pytest.mark.parametrize("n", [1, 2, 60, 20_000])
def test_any_number_of_points_is_drawn(n):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, n))
    residuals(pd.DataFrame({"x": x, "residual": y})).figure.canvas.draw()
    residuals(normal(n)).figure.canvas.draw()
    residuals(pd.DataFrame({"level": np.arange(n) % 600, "residual": y})).figure.canvas.draw()


def test_axes_and_sizes_are_the_users():
    table = pd.DataFrame({"x": [0.0, 1.0], "residual": [1.0, 3.0]})
    _, axes = plt.subplots()
    assert residuals(table, ax=axes) is axes
    assert tuple(residuals(table, figsize=(3, 2)).figure.get_size_inches()) == (3, 2)
