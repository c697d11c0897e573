"""The beta distribution."""

from __future__ import annotations

import numpy as np
import pytest
from family_cases import check_unit_deviances, family_cases, single
from scipy import special, stats


@family_cases("beta", ("logit", "probit", "cloglog"), tails=("logit", "probit", "cloglog"))
def test_beta(check, name, link):
    check(name, link)


def test_unit_deviances_of_beta_are_those_of_r():
    check_unit_deviances(
        "beta",
        (5.5,),
        ([0.2, 0.5, 0.93], [0.1, 0.7, 0.9]),
        [1.10872706004201, 1.101841516697418, 0.357568275807114],
    )


@pytest.mark.parametrize("phi", [1e-6, 1e-2, 1e4, 1e8])
def test_any_precision_of_a_beta_distribution(phi):
    p = 0.42
    y = p + 0.3 * np.sqrt(p * (1 - p) / (1 + phi))
    value, score, weight, _ = single("beta", y, special.logit(p), (phi,))
    expected = stats.beta(p * phi, (1 - p) * phi).logpdf(y)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-15 * phi * np.log(2 + phi))
    alpha, beta = p * phi, (1 - p) * phi
    excess = special.logit(y) - special.digamma(alpha) + special.digamma(beta)
    np.testing.assert_allclose(score, phi * p * (1 - p) * excess, rtol=1e-8)
    curvature = special.polygamma(1, alpha) + special.polygamma(1, beta)
    slope = p * (1 - p)
    np.testing.assert_allclose(
        weight,
        slope**2 * phi**2 * curvature - phi * slope * (1 - 2 * p) * excess,
        rtol=1e-8,
        atol=1e-15,
    )
