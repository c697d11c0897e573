"""The record of power: what it prints, and what is drawn of it."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import FitError, RanefError
from ranef.planning.power_table import Power


@pytest.fixture(scope="module")
def power():
    table = pd.DataFrame(
        {
            "g": [5, 5, 10, 10],
            "rows": [2, 4, 2, 4],
            "n_obs": [10, 20, 20, 40],
            "found": "x",
            "test": "t",
            "power": [0.1, 0.4, 0.5, 0.9],
            "lower": [0.05, 0.3, 0.4, 0.8],
            "upper": [0.2, 0.5, 0.6, 0.95],
            "studies": 100,
            "failed": [0, 0, 3, 0],
        }
    )
    return Power(table, ("g", "rows"), "y ~ x + (1 | g)", ("x 1", "sigma 2"), 0.05, 7)


def test_it_prints_itself(power):
    text = str(power)
    assert text.splitlines()[1:4] == [
        "  y ~ x + (1 | g)",
        "  true values: x 1, sigma 2",
        "  seed=7",
    ]
    assert "the share of 100 simulated studies in which the test has p < 0.05" in text
    assert "3 studies could not be fitted, and count as finding nothing." in text
    assert power.to_frame() is not power.table


def test_lines_are_drawn_for_what_is_not_on_the_axis(power):
    axes = power.plot(target=None)
    lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in lines] == [[5, 10], [5, 10]]
    assert [line.get_ydata().tolist() for line in lines] == [[0.1, 0.5], [0.4, 0.9]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["x, rows 2", "x, rows 4"]
    assert axes.get_xlabel() == "number of g groups"
    other = power.plot(x="rows", ax=axes.figure.add_subplot())
    assert other.get_xlabel() == "rows of each group"
    with pytest.raises(FitError, match="x='z' is no size of a study"):
        power.plot(x="z")


def test_the_smallest_study_with_enough_power(power):
    assert power.smallest(0.45)["n_obs"].tolist() == [20]
    with pytest.raises(FitError, match=r"no study of these sizes has a power of 0.95: the largest"):
        power.smallest(0.95)


def test_what_cannot_be_asked_is_said(power):
    with pytest.raises(FitError, match="`power` must lie between 0 and 1, got 2"):
        power.smallest(2)
    with pytest.raises(FitError, match="`target` must lie between 0 and 1, got 'a'"):
        power.plot(target="a")
    with pytest.raises(
        RanefError, match=r"`ax` must hold one axes for each panel, 1 in all \(power"
    ):
        power.plot(ax=plt.subplots(1, 2)[1])


def test_one_size_is_one_point():
    found = rf.power(rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")), n=50, seed=1)
    assert found.sizes == ()
    assert found.plot(figsize=(3, 2)).figure.get_size_inches().tolist() == [3, 2]
