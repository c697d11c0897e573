"""Derivatives by differences, and those of families that have no closed form."""

from __future__ import annotations

from dataclasses import replace

import large_counts
import numpy as np
import pytest
from scipy import special

from ranef.families.binomial import BERNOULLI, BINOMIAL
from ranef.families.derivatives import (
    ETA_STEP,
    MIN_SERIES_ARGUMENT,
    STENCIL_REACH,
    differenced,
    divergence,
    log_poisson_at_mean,
    log_rising,
    log_rising_slope,
    remainder,
    remainder_slope,
    trigamma,
)
from ranef.families.family import Family
from ranef.families.links import LOG
from ranef.families.names import FAMILIES, find_family
from ranef.families.poisson import NEGATIVE_BINOMIAL, POISSON

ETA = np.array([-1.3, 0.2, 1.7])


def test_differences_of_what_has_known_derivatives():
    found = differenced(np.sin, ETA, np.asarray(ETA_STEP))
    expected = np.sin(ETA), np.cos(ETA), -np.sin(ETA), -np.cos(ETA)
    for a, b, tolerance in zip(found, expected, (0, 1e-12, 1e-10, 1e-8), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance)


def test_differences_are_exact_for_a_polynomial_of_their_order():
    polynomial = np.polynomial.Polynomial(np.arange(1.0, 2 * STENCIL_REACH + 2))
    found = differenced(polynomial, ETA, np.asarray(0.3))
    for order, values in enumerate(found):
        expected = polynomial.deriv(order)(ETA) if order else polynomial(ETA)
        np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_steps_can_differ_between_elements():
    found = differenced(np.log, np.array([0.01, 1.0]), np.array([1e-4, 1e-2]))
    np.testing.assert_allclose(found[1], [100, 1], rtol=1e-9)
    np.testing.assert_allclose(found[2], [-1e4, -1], rtol=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_without_closed_form_has_the_same_derivatives(name):
    family = find_family(name)
    rng = np.random.default_rng(3)
    eta, psi = rng.uniform(0.3, 1.0, 12), np.array([0.9, 4.5])[: len(family.parameters)]
    w = rng.integers(1, 4, 12).astype(float)
    y = family.draw(rng, family.link.inverse(eta), w, *psi)
    plain = replace(family, expand=None, further=None)
    for part, tolerance in {"value": 1e-13, "score": 1e-8, "weight": 1e-7}.items():
        one, other = (getattr(f.expansion(y, eta, w, psi), part) for f in (plain, family))
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    one, other = (f.further_expansion(y, eta, w, psi) for f in (plain, family))
    np.testing.assert_allclose(one.third, other.third, rtol=1e-4, atol=1e-4)
    for part in ("value", "score", "weight"):
        assert getattr(one, part).shape == (len(psi), 12)
        np.testing.assert_allclose(getattr(one, part), getattr(other, part), rtol=1e-5, atol=1e-5)


def test_a_family_of_ones_own():
    """The exponential distribution, with eta the log of its mean, and several rows of eta."""
    own = Family(
        "exponential",
        LOG,
        variance=lambda mu: mu**2,
        log_density=lambda y, mu, w: w * (-np.log(mu) - y / mu),
        deviance=lambda y, mu: 2 * (y / mu - 1 - np.log(y / mu)),
        draw=lambda rng, mu, w: rng.exponential(mu) + 0 * w,
        support="positive",
    )
    y, w, psi = np.array([0.5, 2.0, 1.0]), np.array([1.0, 1.0, 2.0]), np.empty(0)
    eta = np.stack([ETA, ETA + 1])
    found, further = own.expansion(y, eta, w, psi), own.further_expansion(y, eta, w, psi)
    ratio = w * y * np.exp(-eta)
    np.testing.assert_allclose(found.value, -w * eta - ratio, rtol=1e-14)
    np.testing.assert_allclose(found.score, ratio - w, rtol=1e-10)
    np.testing.assert_allclose(found.weight, ratio, rtol=1e-8)
    np.testing.assert_allclose(further.third, -ratio, rtol=1e-5)
    assert further.value.shape == (0, 2, 3)
    np.testing.assert_allclose(own.information(eta, w, psi), w * np.ones_like(eta), rtol=1e-12)


X = np.array([1e-3, 0.5, 1, 2.5, 11.9, 12.1, 30, 99])


def test_the_remainder_is_that_of_stirlings_formula():
    main = (X - 0.5) * np.log(X) - X + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(remainder(X), special.gammaln(X) - main, rtol=1e-9, atol=1e-13)
    slope = special.digamma(X) - np.log(X) + 0.5 / X
    np.testing.assert_allclose(remainder_slope(X), slope, rtol=1e-8, atol=1e-14)


def test_both_forms_agree_where_they_meet():
    near = MIN_SERIES_ARGUMENT * np.array([1 - 1e-14, 1.0])
    np.testing.assert_allclose(*remainder(near), rtol=1e-11)
    np.testing.assert_allclose(*remainder_slope(near), rtol=1e-11)


@pytest.mark.parametrize("k", [1e-3, 0.7, 5.0, 20.0, 300.0])
def test_rising_factorials(k):
    y = np.arange(6.0)
    expected = np.array([np.sum(np.log1p(np.arange(n) / k)) for n in y])
    np.testing.assert_allclose(log_rising(y, k), expected, rtol=1e-11, atol=1e-13)
    slope = np.array([-np.sum(np.arange(n) / (k + np.arange(n))) for n in y])
    np.testing.assert_allclose(log_rising_slope(y, k), slope, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("k", [1e8, 1e12, 1e15])
def test_rising_factorials_with_hardly_a_rise(k):
    y = np.array([0.0, 1.0, 4.0, 50.0])
    expected = y * (y - 1) / (2 * k)
    np.testing.assert_allclose(log_rising(y, k), expected, rtol=1e-5, atol=1e-13)
    np.testing.assert_allclose(log_rising_slope(y, k), -expected, rtol=1e-5, atol=1e-13)


def test_higher_derivatives():
    x = np.concatenate([1 + X, [1.0, 1e5, 1e150]])
    second, third = trigamma(x)
    np.testing.assert_allclose(second, special.polygamma(1, x), rtol=1e-13)
    np.testing.assert_allclose(third[:-1], special.polygamma(2, x[:-1]), rtol=1e-13)


@pytest.mark.parametrize("y", [0.0, 1.0, 11.0, 13.0, 1e3, 1e9, 1e12])
def test_a_count_and_its_mean_leave_all_digits(y):
    """log f = `log_poisson_at_mean` - `divergence`, within the rounding of a log mean."""
    for z in (-2.0, 0.0, 1e-3, 3.0):
        lam = np.log(max(y + z * np.sqrt(y), 0.3))
        found = log_poisson_at_mean(np.array([y])) - divergence(np.array([y]), np.array([lam]))
        expected = large_counts.poisson(y, lam)
        assert found[0] == pytest.approx(expected, abs=1e-14 * (1 + np.sqrt(y)))


def test_a_constant_apart_is_added_once():
    """Whether it is computed for each linear predictor, or once for all."""
    y, w, eta = np.array([0.0, 3.0, 40.0]), np.array([1.0, 2.0, 1.0]), np.array([0.1, 1.0, 3.5])
    cases = [(BINOMIAL, y / 40, 40 * w, ()), (POISSON, y, w, ()), (NEGATIVE_BINOMIAL, y, w, (2.0,))]
    for family, response, weights, psi in cases:
        constant = family.constant(response, weights)
        assert constant.shape == (3,)
        full = family.expand(family.link, response, eta, weights, psi)
        for found in (
            family.expansion(response, eta, weights, psi),
            family.expansion(response, eta, weights, psi, constant),
        ):
            np.testing.assert_array_equal(found.value, full.value)
            np.testing.assert_array_equal(found.score, full.score)
        mu = family.link.inverse(eta)
        np.testing.assert_allclose(full.value, family.log_density(response, mu, weights, *psi))


def test_a_family_of_ones_own_has_no_constant_apart():
    own = replace(POISSON, expand=None, further=None)
    y, w, eta = np.array([0.0, 3.0]), np.ones(2), np.array([0.1, 1.0])
    constant = own.constant(y, w)
    assert constant == 0
    found = own.expansion(y, eta, w, (), constant)
    np.testing.assert_allclose(found.value, POISSON.expansion(y, eta, w, ()).value)


def test_zero_and_one_of_one_have_no_constant():
    y, w, eta = np.array([0.0, 1.0]), np.ones(2), np.array([0.1, 1.0])
    assert BERNOULLI.constant(y, w) == 0
    expected = np.log([1 - 1 / (1 + np.exp(-0.1)), 1 / (1 + np.exp(-1.0))])
    np.testing.assert_allclose(BERNOULLI.expansion(y, eta, w, ()).value, expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_log_densities_alone_are_the_values_of_expansions(name):
    family = FAMILIES[name]
    y, w = np.array([0.0, 1.0, 1.0]), np.ones(3)
    if not family.is_discrete:
        y = np.array([0.2, 0.5, 0.9])
    psi = np.array([record.start for record in family.records])
    for eta in (np.array([0.4, 1.5, 0.9]), np.array([[40.0, 800.0, 1.0], [0.1, 0.2, 30.0]])):
        with np.errstate(all="ignore"):
            expected = family.expansion(y, eta, w, psi).value
            found = family.log_density_at(y, eta, w, psi)
        np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_log_densities_of_trials_and_out_of_reach():
    y, w, eta = np.array([0.25, 0.5]), np.array([4.0, 6.0]), np.array([-0.3, 0.2])
    for link in ("logit", "probit", "cloglog"):
        family = find_family("binomial", link)
        found = family.log_density_at(y, eta, w, (), family.constant(y, w))
        np.testing.assert_allclose(found, family.expansion(y, eta, w, ()).value, rtol=1e-14)
    positive = find_family("binomial", replace(LOG, positive=True))
    with np.errstate(all="ignore"):
        assert positive.log_density_at(y, eta, w, ())[0] == -np.inf
