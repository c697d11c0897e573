"""The mean of each row against the joint normal distribution of means and responses."""

from __future__ import annotations

import numpy as np
import pytest

from fits import dense_Z, frame, model_of
from ranef.fits.studies.row_means import Settings, interval, intervals, row_means

RNG = np.random.default_rng(5)


def spd(k):
    root = RNG.normal(size=(k, k + 2))
    return root @ root.T


@pytest.mark.parametrize("kind", ["correlated slopes", "crossed", "weights and offset"])
def test_means_are_those_of_a_joint_normal(kind):
    design = model_of(kind).design
    rows, n, p = design.rows, design.n_obs, len(design.fixed)
    covs = tuple(np.stack([spd(t.n_coefs), spd(t.n_coefs)]) for t in design.terms)
    beta, beta_cov = RNG.normal(size=(2, p)), np.stack([spd(p), np.zeros((p, p))])
    settings = Settings(np.array([0.4, 0.6]), covs, beta, beta_cov, np.array([0.7, 1.3]))
    means, sds = row_means(design, settings)
    for c in range(2):
        Zs = [dense_Z(t) for t in rows.terms]
        G = sum(
            Z @ np.kron(np.eye(t.n_levels), cov[c]) @ Z.T
            for Z, t, cov in zip(Zs, rows.terms, covs, strict=True)
        )
        V = G + settings.sigma[c] ** 2 * np.diag(1 / rows.weights)
        A = G @ np.linalg.inv(V)
        mean = rows.X @ beta[c] + rows.offset
        B = rows.X - A @ rows.X
        np.testing.assert_allclose(means[c], mean + A @ (rows.y - mean), rtol=1e-8, atol=1e-8)
        expected = np.diag(G - A @ G + B @ beta_cov[c] @ B.T)
        np.testing.assert_allclose(sds[c] ** 2, expected, rtol=1e-6, atol=1e-8)
    assert n == len(frame())


def test_intervals_of_one_setting_are_normal():
    one = np.ones(1)
    assert interval(one, np.array([3.0]), np.array([2.0]), 0.95) == pytest.approx(
        (3.0, 3 - 3.919928, 3 + 3.919928)
    )
    assert interval(one, np.array([3.0]), np.array([0.0]), 0.95) == (3.0, 3.0, 3.0)


def test_intervals_of_mixtures_hold_their_share():
    weights, means, sds = np.array([0.3, 0.7]), np.array([0.0, 1.0]), np.array([1.0, 0.5])
    ((mean, lower, upper),) = intervals(weights, (means[:, None], sds[:, None]), 0.8)
    drawn = RNG.normal(np.repeat(means, [300_000, 700_000]), np.repeat(sds, [300_000, 700_000]))
    assert mean == pytest.approx(0.7)
    assert np.mean((drawn > lower) & (drawn < upper)) == pytest.approx(0.8, abs=2e-3)
