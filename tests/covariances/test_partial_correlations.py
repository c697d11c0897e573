"""Correlation matrices and their partial correlations."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.covariances.partial_correlations import (
    cholesky_of_correlations,
    correlations,
    partial_correlations,
    partial_slopes,
    unit_factor,
)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_unit_factor_is_the_cholesky_factor_of_a_correlation_matrix(k):
    partial = np.random.default_rng(k).uniform(-0.95, 0.95, (7, k * (k - 1) // 2))
    U = unit_factor(partial, k)
    R = U @ U.swapaxes(1, 2)
    np.testing.assert_allclose(np.diagonal(R, axis1=1, axis2=2), 1.0)
    np.testing.assert_allclose(U, np.linalg.cholesky(R), atol=1e-13)


def test_partial_correlations_are_those_of_the_matrix():
    """Of r and c given all before c: from the inverse of the matrix of these."""
    k = 4
    partial = np.random.default_rng(9).uniform(-0.9, 0.9, k * (k - 1) // 2)
    U = unit_factor(partial, k)
    R = U @ U.T
    for place, (r, c) in enumerate(zip(*np.tril_indices(k, -1), strict=True)):
        involved = [*range(c), c, r]
        inverse = np.linalg.inv(R[np.ix_(involved, involved)])
        found = -inverse[-1, -2] / np.sqrt(inverse[-1, -1] * inverse[-2, -2])
        assert found == pytest.approx(partial[place], abs=1e-12)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_partial_slopes_equal_central_differences(k):
    rng = np.random.default_rng(k)
    partial = rng.uniform(-0.9, 0.9, k * (k - 1) // 2)
    slope = rng.normal(size=(k, k))

    def along(p):
        return np.sum(slope * unit_factor(p, k))

    expected = [
        (along(partial + h) - along(partial - h)) / 2e-6 for h in 1e-6 * np.eye(len(partial))
    ]
    found = partial_slopes(slope, unit_factor(partial, k), partial)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_one_coefficient_has_no_partial_correlations():
    assert partial_slopes(np.ones((1, 1)), np.eye(1), np.empty(0)).shape == (0,)
    assert partial_correlations(np.ones((5, 1, 1))).shape == (5, 0)


def test_correlations_have_a_diagonal_of_exactly_one_and_stay_inside():
    partial = np.array([[1 - 1e-16, 0.3, 0.5], [-1.0, 1.0, 0.1], [0.0, 0.0, 0.0]])
    found = correlations(unit_factor(partial, 3))
    assert (np.diagonal(found, axis1=1, axis2=2) == 1.0).all()
    assert (np.abs(found) <= 1.0).all()
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_partial_correlations_and_their_slopes_at_many_points(k):
    rng = np.random.default_rng(k)
    partial = rng.uniform(-0.9, 0.9, (2, 3, k * (k - 1) // 2))
    U, slope = unit_factor(partial, k), rng.normal(size=(2, 3, k, k))
    np.testing.assert_allclose(partial_correlations(correlations(U)), partial, atol=1e-11)
    found = partial_slopes(slope, U, partial)
    for place in np.ndindex(2, 3):
        one = partial_slopes(slope[place], U[place], partial[place])
        np.testing.assert_allclose(found[place], one, rtol=1e-14)


def test_correlations_of_one_have_a_cholesky_factor():
    corr = np.array([[1.0, -1.0], [-1.0, 1.0]])
    U = cholesky_of_correlations(corr)
    np.testing.assert_allclose(U @ U.T, corr, atol=1e-13)
    np.testing.assert_allclose(partial_correlations(corr), [-1.0], atol=1e-13)
