"""The gamma and the inverse Gaussian distribution."""

from __future__ import annotations

import numpy as np
import pytest
from family_cases import check_unit_deviances, family_cases, single
from scipy import stats


@family_cases("gamma", ("log", "inverse", "identity"), tails=("log",))
def test_gamma(check, name, link):
    check(name, link)


@family_cases("inverse_gaussian", ("log", "inverse_squared", "inverse"), tails=("log",))
def test_inverse_gaussian(check, name, link):
    check(name, link)


def test_unit_deviances_of_gamma_are_those_of_r():
    check_unit_deviances(
        "gamma",
        (0.5,),
        ([0.2, 3.0, 7.0], [0.5, 2.2, 9.1]),
        [0.63258146374831, 0.1069628706650482, 0.0631900673965206],
    )


def test_unit_deviances_of_inverse_gaussian_are_those_of_r():
    check_unit_deviances(
        "inverse_gaussian",
        (0.5,),
        ([0.2, 3.0, 7.0], [0.5, 2.2, 9.1]),
        [1.8, 0.04407713498622586, 0.00760777683854607],
    )


@pytest.mark.parametrize("sigma", [1e-4, 1e-7])
def test_a_small_coefficient_of_variation(sigma):
    """The gamma distribution is normal then, up to the third moment."""
    z = 0.7
    value, score, weight, _ = single("gamma", np.exp(1 + sigma * z), 1.0, (sigma,))
    log_normal = stats.norm.logpdf(z) - np.log(sigma) - 1 - sigma * z
    np.testing.assert_allclose(value, log_normal, rtol=1e-9 + sigma)
    np.testing.assert_allclose(score, z / sigma, rtol=1e-8 + sigma)
    np.testing.assert_allclose(weight, 1 / sigma**2, rtol=1e-8 + sigma)
