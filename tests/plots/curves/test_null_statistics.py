"""Simulated statistics as they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ranef.errors import RanefError
from ranef.plots.curves.null_statistics import null_statistics


@pytest.fixture
def table():
    drawn = pd.DataFrame({"test": "Model 2 against 1", "statistic": [0, 0, 0, 0.5, 1, 2, 3, 4.0]})
    drawn.attrs |= {"observed": {"Model 2 against 1": (1.9, 0.4)}, "kind": "likelihood ratio"}
    return drawn


def test_shares_zeros_and_the_observed_one(table):
    (axes,) = null_statistics(table, figsize=(4, 3))
    every, reached = (patch.get_data() for patch in axes.patches[:2])
    assert every.values.sum() == pytest.approx(5 / 8)
    assert reached.values.sum() == pytest.approx(3 / 8)
    assert [text.get_text() for text in axes.texts] == [
        "38% are zero",
        "observed 1.9\np = 0.4",
        "8 simulated",
    ]
    assert axes.lines[0].get_xdata() == [1.9, 1.9]
    assert axes.get_xlabel() == "likelihood ratio"
    assert np.allclose(axes.figure.get_size_inches(), [4, 3])


def test_axes_are_counted(table):
    (axes,) = null_statistics(table)
    assert null_statistics(table, ax=axes)[0] is axes
    with pytest.raises(RanefError, match="`ax` must hold one axes for each panel, 1 in all"):
        null_statistics(table, ax=[axes, axes])
