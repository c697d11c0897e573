"""The pictures that fits draw of themselves, on axes of their own or given ones."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

import ranef as rf
from ranef.errors import RanefError


@pytest.fixture(scope="module")
def fit():
    return rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")


def test_each_picture_takes_axes_or_a_size(fit):
    assert fit.plot_parameters(figsize=(3, 4))[0].figure.get_size_inches().tolist() == [3, 4]
    assert fit.plot_matrices(figsize=(3, 4))[0].figure.get_size_inches().tolist() == [3, 4]
    figure, axes = plt.subplots(1, 5)
    assert [ax.figure for ax in fit.plot_matrices(ax=axes)] == [figure] * 5
    assert fit.plot_parameters("sigma", ax=axes[0])[0] is axes[0]
    (panel,) = fit.plot_parameters("sigma", kind="qq")
    assert panel.get_ylabel() == "normal quantile"
    for draw in (fit.plot_matrices, fit.plot_parameters):
        with pytest.raises(RanefError, match="`ax` must hold one axes for each panel"):
            draw(ax=axes[:2])


def test_a_point_fit_and_a_posterior_have_the_same_matrices(fit):
    point = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    titles = [[ax.get_title(loc="left") for ax in one.plot_matrices()] for one in (fit, point)]
    assert titles[0] == titles[1]
    assert titles[0][0] == "Z'\n6 x 30, 30 entries"
