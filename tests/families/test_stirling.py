"""The gamma function's logarithm and what is made of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from ranef.families.stirling import (
    LARGE,
    log_rising,
    log_rising_slope,
    remainder,
    remainder_slope,
    trigamma,
)

X = np.array([1e-3, 0.5, 1, 2.5, 11.9, 12.1, 30, 99])


def test_the_remainder_is_that_of_stirlings_formula():
    main = (X - 0.5) * np.log(X) - X + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(remainder(X), special.gammaln(X) - main, rtol=1e-9, atol=1e-13)
    slope = special.digamma(X) - np.log(X) + 0.5 / X
    np.testing.assert_allclose(remainder_slope(X), slope, rtol=1e-8, atol=1e-14)


def test_both_forms_agree_where_they_meet():
    near = LARGE * np.array([1 - 1e-14, 1.0])
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
