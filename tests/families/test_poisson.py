"""The Poisson and the negative binomial distribution."""

from __future__ import annotations

import large_counts
import numpy as np
import pytest
from family_cases import check_unit_deviances, family_cases, single

from ranef.families.links import Link
from ranef.families.names import find_family

COUNTS = [0.0, 3.0, 7.0], [0.5, 2.2, 9.1]


@family_cases("poisson", ("log", "sqrt", "identity"), tails=("log",))
def test_poisson(check, name, link):
    check(name, link)


@family_cases("negative_binomial", ("log",), tails=("log",))
def test_negative_binomial(check, name, link):
    check(name, link)


def test_unit_deviances_of_poisson_are_those_of_r():
    check_unit_deviances("poisson", (), COUNTS, [1.0, 0.260929569823037, 0.526900297455125])


def test_unit_deviances_of_negative_binomial_are_those_of_r():
    check_unit_deviances(
        "negative_binomial",
        (1.7,),
        COUNTS,
        [0.87661897162714, 0.107021587367163, 0.089182384826791],
    )


def test_a_large_shape_is_a_poisson_distribution():
    for y, eta in [(0.0, 0.3), (4.0, 1.2), (60.0, 4.0)]:
        poisson = single("poisson", y, eta)
        for shape in (1e10, 1e13, 1e15):
            np.testing.assert_allclose(
                single("negative_binomial", y, eta, (shape,)),
                poisson,
                rtol=1e-12 + 1e4 / shape,
                atol=1e-12,
            )
        further = find_family("negative_binomial").further_expansion(
            np.array([y]), np.array([eta]), np.ones(1), np.array([1e10])
        )
        expected = (y - (y - np.exp(eta)) ** 2) / 2e10  # from the series of L in 1 / shape
        np.testing.assert_allclose(further.value[0], expected, rtol=1e-4, atol=2e-13)


def test_the_deviance_of_a_large_shape_is_that_of_the_poisson_distribution():
    y, mu = map(np.array, COUNTS)
    found = find_family("negative_binomial").deviance(y, mu, 1e14)
    np.testing.assert_allclose(found, find_family("poisson").deviance(y, mu), rtol=1e-10)


def test_the_curve_of_a_log_mean_is_eta_for_the_log_link():
    link = find_family("poisson").link
    assert isinstance(link, Link)
    assert link.log_mean(np.array([3.0]))[0] == 3.0


@pytest.mark.parametrize("y", [0.0, 3.0, 1e5, 1e9])
@pytest.mark.parametrize("shape", [1, 20, 10**5, 10**12])
def test_densities_of_large_counts_keep_their_digits(y, shape):
    spread = np.sqrt(y + y**2 / shape)
    for z in (-0.5, 0.01, 2.0):
        lam = np.log(y + z * spread if y else 0.7)
        poisson = large_counts.poisson(y, np.log(y + z * np.sqrt(y)) if y else lam)
        found = single("poisson", y, np.log(y + z * np.sqrt(y)) if y else lam)[0]
        assert found == pytest.approx(poisson, rel=1e-13, abs=1e-9)
        expected = large_counts.negative_binomial(y, lam, shape)
        found = single("negative_binomial", y, lam, (float(shape),))[0]
        assert found == pytest.approx(expected, rel=1e-13, abs=1e-9)
