"""Triangular factors of a covariance, whatever its rank, and their derivatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranef.covariances.triangular_factors import by_root, canonical, lower_factor


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(
        float,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.floats(-100, 100).filter(lambda x: x == 0 or abs(x) > 1e-3),
    )
)
def test_lower_factor_has_the_same_covariance_whatever_the_rank(root):
    Lambda = lower_factor(root)
    np.testing.assert_allclose(
        Lambda @ Lambda.T, root @ root.T, atol=1e-6 * (1 + np.abs(root).max() ** 2)
    )
    np.testing.assert_array_equal(np.triu(Lambda, 1), 0)
    assert (np.diag(Lambda) >= 0).all()
    rounding = 1e-14 * np.abs(root).max()  # of a row, however small one of its elements
    stacked = lower_factor(np.stack([root, root]))[1]
    np.testing.assert_allclose(stacked, Lambda, rtol=1e-13, atol=rounding)


def test_lower_factor_is_exactly_zero_where_the_covariance_is_singular():
    Lambda = lower_factor(np.array([[1.0], [2.0], [-0.3]]))
    np.testing.assert_array_equal(np.diag(Lambda)[1:], 0)
    Lambda = lower_factor(np.array([[0.0, 0.0], [1.0, 2.0]]))
    np.testing.assert_array_equal(Lambda[:, 0], 0)
    assert Lambda[1, 1] == pytest.approx(np.sqrt(5))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (3, 5)])
def test_one_matrix_has_the_factor_that_it_has_among_others(shape):
    root = np.random.default_rng(0).normal(size=shape)
    root[-1] = 1e-4 * root[-1] + root[0]  # nearly singular
    L, factor = lower_factor(root), np.linalg.cholesky(root @ root.T)
    np.testing.assert_allclose(L, lower_factor(root[None])[0], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(L, factor, rtol=1e-6)
    np.testing.assert_array_equal(np.triu(L, 1), 0)


def test_the_gradient_through_a_triangular_factor():
    rng = np.random.default_rng(0)
    root, weights = rng.normal(size=(3, 3)), np.tril(rng.normal(size=(3, 3)))
    found = by_root(root, canonical(root), weights)
    for place in np.ndindex(3, 3):
        h = np.zeros((3, 3))
        h[place] = 1e-6
        change = np.sum(weights * (canonical(root + h) - canonical(root - h))) / 2e-6
        assert found[place] == pytest.approx(change, abs=1e-8)
