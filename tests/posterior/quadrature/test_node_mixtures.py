"""Mixtures over the points of a lattice against sums that are written out."""

from __future__ import annotations

import numpy as np
import pytest
from lattice_cases import sleep_exact

from ranef.posterior.quadrature.node_mixtures import heaviest, mixture_of

TERMS = " + (Days | Subject)"


@pytest.fixture(scope="module")
def coarse():
    return sleep_exact(TERMS).coarse


def test_the_heaviest_points_are_those_of_largest_density(coarse):
    found = heaviest(coarse, 1e-3)
    weights = np.sort(np.exp(coarse.log_density - coarse.log_density.max()).ravel())[::-1]
    count = int(np.searchsorted(np.cumsum(weights) / weights.sum(), 1 - 1e-3)) + 1
    assert abs(len(found.weights) - count) <= 1
    np.testing.assert_allclose(
        np.sort(found.weights)[::-1][:50], weights[:50] / weights[:count].sum(), rtol=1e-9
    )
    assert len(found.nodes.values) == len(np.unique(found.nodes.values[:, 1:], axis=0))


def test_the_covariance_of_gamma_is_its_sum_over_points(coarse):
    mixed = heaviest(coarse, 0.05)
    cov = mixed.gamma()[1]
    np.testing.assert_allclose(
        mixed.covariance_within(), np.tensordot(mixed.weights, cov, axes=1), rtol=1e-12
    )


def test_gamma_solves_its_normal_equations(coarse):
    """With the prior as rows of data whose variance is that of the residuals."""
    points = np.arange(coarse.log_density.size) % 5003 == 0
    mixed = mixture_of(coarse, points.reshape(coarse.log_density.shape))
    fixed = coarse.frame.target.fixed
    mean, cov = mixed.gamma()
    for c, sigma in enumerate(mixed.sigma):
        nodes = mixed.nodes[[mixed.rows[c]]]
        lower = np.zeros((3, 3))
        lower[np.tril_indices(3)] = nodes.products[0]
        total = lower + np.tril(lower, -1).T
        turn = fixed.turn(np.zeros(0))
        total = turn.T @ total @ turn + sigma**2 * fixed.rows.T @ fixed.rows
        np.testing.assert_allclose(
            mean[c], np.linalg.solve(total[:-1, :-1], total[:-1, -1]), rtol=1e-7
        )
        np.testing.assert_allclose(cov[c], sigma**2 * np.linalg.inv(total[:-1, :-1]), rtol=1e-7)


def test_what_is_linear_in_gamma_has_its_moments(coarse):
    mixed, rng = heaviest(coarse, 0.05), np.random.default_rng(1)
    size = len(mixed.nodes.values), 4
    at_zero, slope, within = (
        rng.normal(size=size),
        rng.normal(size=(*size, 2)),
        rng.gamma(2, size=size),
    )
    mean, variance = mixed.linear(at_zero, slope, within)
    gamma, cov = mixed.gamma()
    by_point = slope[mixed.rows]
    expected = at_zero[mixed.rows] + np.einsum("cnr,cr->cn", by_point, gamma)
    np.testing.assert_allclose(mean, expected, rtol=1e-9, atol=1e-9)
    expected = np.einsum("cnr,crs,cns->cn", by_point, cov, by_point)
    expected += mixed.sigma[:, None] ** 2 * within[mixed.rows]
    np.testing.assert_allclose(variance, expected, rtol=1e-9)
