"""Pictures of predictive checks: what is drawn where."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ranef.errors import RanefError
from ranef.plots.predicted_responses import predictive


def table(what="density"):
    numbers = {"observed": [0.2, 0.5, 0.3], "median": [0.3, 0.4, 0.3]}
    found = pd.DataFrame({"value": [0.0, 1.0, 2.0]} | numbers)
    found = found.assign(lower=0.1, upper=0.6)
    found.attrs |= {"what": what, "response": "y", "prob": 0.9}
    return found


def test_lines_of_densities():
    axes = predictive(table())
    median, observed = axes.lines
    np.testing.assert_allclose(observed.get_ydata(), table()["observed"])
    np.testing.assert_allclose(median.get_ydata(), table()["median"])
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["90 % of simulations, and their median", "observed"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("y", "density")


def test_bars_of_shares():
    axes = predictive(table("share of rows"))
    assert [bar.get_height() for bar in axes.patches] == [0.2, 0.5, 0.3]
    assert axes.get_ylabel() == "share of rows"


def test_axes_and_sizes_are_the_users():
    _, axes = plt.subplots()
    assert predictive(table(), ax=axes) is axes
    assert tuple(predictive(table(), figsize=(3, 2)).figure.get_size_inches()) == (3, 2)
    _, two = plt.subplots(1, 2)
    with pytest.raises(RanefError, match=r"one axes for each panel, 1 in all \(responses\), but"):
        predictive(table(), ax=two)


def test_few_values_have_a_tick_each():
    table = pd.DataFrame({"value": [0.0, 1.0], "observed": 0.5, "median": 0.5, "lower": 0.4})
    table["upper"] = 0.6
    table.attrs["what"] = "share of rows"
    assert predictive(table).get_xticks().tolist() == [0.0, 1.0]
