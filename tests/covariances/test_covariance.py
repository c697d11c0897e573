"""theta, Lambda, standard deviations and correlations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranef.covariances.covariance import (
    Shape,
    factors,
    lower_factor,
    pack,
    sd_and_corr,
    theta_names,
)

SHAPES = [Shape(3, correlated=True), Shape(2, correlated=False), Shape(1, correlated=True)]


def test_theta_goes_down_the_columns_of_each_factor():
    theta = np.arange(1.0, 10.0)
    full, diagonal, scalar = factors(theta, SHAPES)
    np.testing.assert_array_equal(full, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    np.testing.assert_array_equal(diagonal, [[7, 0], [0, 8]])
    np.testing.assert_array_equal(scalar, [[9]])
    np.testing.assert_array_equal(pack([full, diagonal, scalar], SHAPES), theta)


def test_no_terms_no_theta():
    assert factors(np.empty(0), []) == []
    assert pack([], []).shape == (0,)


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


def test_lower_factor_is_exactly_zero_where_the_covariance_is_singular():
    Lambda = lower_factor(np.array([[1.0], [2.0], [-0.3]]))
    np.testing.assert_array_equal(np.diag(Lambda)[1:], 0)
    Lambda = lower_factor(np.array([[0.0, 0.0], [1.0, 2.0]]))
    np.testing.assert_array_equal(Lambda[:, 0], 0)
    assert Lambda[1, 1] == pytest.approx(np.sqrt(5))


def test_sds_and_correlations():
    sd, corr = sd_and_corr(np.array([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(sd, [2, 3, 0])
    assert corr[0, 1] == corr[1, 0] == -0.5
    assert np.isnan(corr[0, 2])
    np.testing.assert_array_equal(np.diag(corr), 1)


def test_names_are_lme4s():
    coefs = [["Intercept", "x", "z"], ["Intercept", "x"], ["Intercept"]]
    assert theta_names(["g", "h", "h_1"], coefs, SHAPES) == [
        "g.Intercept",
        "g.x.Intercept",
        "g.z.Intercept",
        "g.x",
        "g.z.x",
        "g.z",
        "h.Intercept",
        "h.x",
        "h_1.Intercept",
    ]
