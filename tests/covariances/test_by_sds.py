"""A covariance by sds and partial correlations, against matrices and differences."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.covariances.by_sds import BySds, with_smooth_correlations
from ranef.covariances.covariance import Diagonal, Unstructured

BASIS = np.array([[1.0, 0.7, -2.0], [0.0, 0.5, 0.3], [0.0, 0.0, 3.0]])


def case(seed=1):
    return BySds(3, BASIS), np.random.default_rng(seed).normal(size=6)


def test_the_covariance_is_that_of_the_transformed_coefficients():
    covariance, theta = case()
    sds = theta[:3] / np.linalg.norm(BASIS, axis=0)
    r, s, partial = np.tanh(theta[3:])
    other = partial * np.sqrt((1 - r**2) * (1 - s**2)) + r * s
    corr = np.array([[1, r, s], [r, 1, other], [s, other, 1]])
    expected = BASIS @ (corr * np.outer(sds, sds)) @ BASIS.T
    root = covariance.factor(theta)
    np.testing.assert_allclose(root @ root.T, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(covariance.factor(np.stack([theta, theta]))[1], root)


@pytest.mark.parametrize("zero", [[], [1], [0, 2]])
def test_theta_comes_back_from_a_factor(zero):
    covariance, theta = case()
    theta[:3] = np.abs(theta[:3])
    theta[zero] = 0.0
    again = covariance.theta_of(covariance.factor(theta))
    np.testing.assert_allclose(again[:3], theta[:3], atol=1e-12)
    root, expected = covariance.factor(again), covariance.factor(theta)
    np.testing.assert_allclose(root @ root.T, expected @ expected.T, atol=1e-10)


@pytest.mark.parametrize("zero", [[], [1]])
def test_derivatives_equal_differences(zero):
    covariance, theta = case()
    theta[zero] = 0.0
    slope = np.random.default_rng(2).normal(size=(3, 3))

    def value(x):
        density, _ = covariance.log_density(x, 1.5)
        return (slope * covariance.factor(x)).sum() + density

    h = 1e-5 * np.eye(6)
    found = covariance.pull_back(slope, theta) + covariance.log_density(theta, 1.5)[1]
    expected = [(value(theta + step) - value(theta - step)) / 2e-5 for step in h]
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
    jacobian = covariance.jacobian(theta)
    expected = [(covariance.factor(theta + s) - covariance.factor(theta - s)) / 2e-5 for s in h]
    np.testing.assert_allclose(jacobian, expected, rtol=1e-8, atol=1e-8)
    curvature = covariance.curvature(slope, theta)
    assert curvature[1, 3] == pytest.approx(
        (covariance.pull_back(slope, theta + h[3])[1] - covariance.pull_back(slope, theta)[1])
        / 1e-5,
        abs=1e-3,
    )


def test_the_density_is_a_power_of_the_determinant_of_the_correlations():
    covariance, theta = case()
    root = np.linalg.solve(BASIS, covariance.factor(theta))
    cov = root @ root.T
    corr = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    value, _ = covariance.log_density(theta, 0.7)
    assert value == pytest.approx(0.7 * np.linalg.slogdet(corr)[1], rel=1e-10)
    far, slope = covariance.log_density(np.full(6, 800.0), 1.0)
    assert np.isfinite(far)
    assert np.isfinite(slope).all()


def test_small_sds_become_zero_with_their_correlations():
    covariance, _ = case()
    theta = np.array([2.0, 0.01, -3.0, 0.4, 0.5, 0.6])
    np.testing.assert_array_equal(covariance.simplest(theta), [2, 0, -3, 0, 0.5, 0])


def test_only_correlations_with_a_density_are_searched_so():
    covariances = (Unstructured(3), Diagonal(2), Unstructured(2))
    found = with_smooth_correlations(covariances, [BASIS, np.eye(2), np.eye(2)], [1.0, 0.0, 0.0])
    assert isinstance(found[0], BySds)
    assert found[1:] == covariances[1:]
    assert found[0].n_theta == 6
