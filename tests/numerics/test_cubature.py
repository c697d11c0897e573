"""Few points that integrate polynomials, against moments in closed form and Gauss's rules."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from ranef.numerics.cubature import orthonormal, products, recombined


def cloud(n=3000, d=3, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.exponential(size=(n, 1))
    weights = rng.gamma(0.3, size=n) + 1e-9
    return x, weights / weights.sum()


def polynomials(x, weights, degree):
    along = [orthonormal(c, weights, degree) for c in x.T]
    return products(along or [np.ones((1, len(x)))], degree)


@pytest.mark.parametrize(("d", "degree"), [(1, 7), (2, 5), (3, 4), (4, 2), (3, 0), (0, 3)])
def test_every_monomial_has_the_mean_of_all_points(d, degree):
    x, weights = cloud(d=d) if d else (np.empty((50, 0)), np.full(50, 0.02))
    values, degrees = polynomials(x, weights, degree)
    assert values.shape == (len(x), comb(d + degree, d))
    assert degrees.max() == (degree if d else 0)
    places, rule = recombined(values, weights)
    assert len(places) <= comb(d + degree, d)
    assert (rule > 0).all()
    exponents = np.random.default_rng(2).multinomial(degree, [1 / (d + 1)] * (d + 1), 30)[:, :d]
    for powers in exponents:
        monomial = np.prod(x**powers, axis=1)
        size = weights @ np.abs(monomial)
        assert rule @ monomial[places] == pytest.approx(weights @ monomial, abs=1e-10 * size)


def test_polynomials_are_orthonormal_along_one_coordinate():
    x, weights = cloud(d=1)
    values, degrees = polynomials(x, weights, 6)
    np.testing.assert_allclose((values * weights[:, None]).T @ values, np.eye(7), atol=1e-10)
    np.testing.assert_array_equal(degrees, np.arange(7))


def test_a_smooth_function_is_integrated_as_a_degree_allows():
    x, weights = cloud(d=2)
    x = x / x.std(axis=0)
    smooth, errors = np.exp(0.3 * x[:, 0] - 0.2 * x[:, 1]), []
    for degree in (2, 4, 6, 8):
        places, rule = recombined(polynomials(x, weights, degree)[0], weights)
        errors.append(abs(rule @ smooth[places] / (weights @ smooth) - 1))
    assert errors[3] < min(1e-6, errors[0] / 100)


def test_fewer_points_than_functions_stay():
    x, weights = cloud(n=5, d=2)
    places, rule = recombined(polynomials(x, weights, 3)[0], weights)
    np.testing.assert_array_equal(places, np.arange(5))
    np.testing.assert_array_equal(rule, weights)


def test_functions_that_depend_on_each_other():
    x, weights = cloud(d=1)
    values = np.column_stack([np.ones(len(x)), x, 2 * x + 1, x])
    places, rule = recombined(values, weights)
    assert len(places) <= 4
    np.testing.assert_allclose(rule @ values[places], weights @ values, rtol=1e-10)
