"""The average information against differences of gradients, dense matrices, and at zero."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, random_frame
from other_covariances import Autoregressive, CompoundSymmetry

import ranef as rf
from ranef.covariances.covariance import factors, n_theta, pull_back
from ranef.likelihood.linear import blocked_cholesky, reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.optimum.average_information import (
    average_information,
    by_theta,
    of_factors,
)
from ranef.numerics.finite_differences import central_hessian

WITH_EFFECTS = {name: f for name, f in STRUCTURES.items() if "|" in f}


def crossed(formula, seed=0):
    frame = random_frame(np.random.default_rng(seed))
    frame["y"] += 0.4 * frame["c"] + 0.3 * (frame["c"] % 3) * frame["x"]
    return cross_products(rf.Model(formula, frame, weights="w").design)


def points(cross, seed=1):
    """Return an ordinary theta, and one with variances of zero."""
    theta = np.random.default_rng(seed).uniform(0.1, 2, n_theta(cross.covariances))
    simple = theta.copy()
    simple[-1] = 0.0
    return theta, simple


def residual_sum_of_squares(cross, theta):
    """Return r^2 of the profiled criterion, its gradient, and that by factors with the scores."""
    factorized = blocked_cholesky.factorize(cross, factors(theta, cross.covariances))
    contrast = np.append(-reml.profiled(factorized, reml=True).gamma, 1.0)
    with_response = blocked_cholesky.scores(factorized, np.outer(contrast, contrast))
    without = blocked_cholesky.scores(factorized, np.zeros_like(factorized.reduced))
    scores = [a - b for a, b in zip(with_response, without, strict=True)]
    slopes = [2 * G @ Lambda for G, Lambda in zip(scores, factorized.Lambdas, strict=True)]
    r2 = float(contrast @ factorized.reduced @ contrast)
    return r2, pull_back(slopes, theta, cross.covariances), slopes, scores


@pytest.mark.parametrize("formula", WITH_EFFECTS.values(), ids=WITH_EFFECTS.keys())
def test_the_response_has_these_second_derivatives(formula):
    """r^2 = y'P y has the Hessian 2 y'P V_i P V_j P y - y'P V_ij P y."""
    cross = crossed(formula)
    for theta in points(cross):
        factorized = blocked_cholesky.factorize(cross, factors(theta, cross.covariances))
        profile = reml.profiled(factorized, reml=True)
        contrast = np.append(-profile.gamma, 1.0)
        directions = by_theta(theta, factorized.Lambdas, cross.covariances)
        information = average_information(factorized, contrast, profile.gamma_cov, directions)
        _, gradient, slopes, scores = residual_sum_of_squares(cross, theta)
        np.testing.assert_allclose(information.once, -gradient, rtol=1e-7, atol=1e-8)
        expected = central_hessian(lambda x: residual_sum_of_squares(cross, x)[:2], theta, 1e-5)
        found = 2 * information.twice + of_factors(slopes, scores, theta, cross.covariances)
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_products_are_those_of_dense_matrices():
    frame = random_frame(np.random.default_rng(2), 40)
    model = rf.Model("y ~ x + (x | c) + (1 | i)", frame, weights="w")
    cross, rows = cross_products(model.design), model.design.rows
    theta = np.array([0.9, 0.3, 0.5, 0.7])
    Z, W = [], np.diag(rows.weights)
    for term, T in zip(rows.terms, cross.bases, strict=True):
        columns = np.linalg.solve(T.T, term.columns.T).T
        indicators = np.eye(term.n_levels)[term.codes]
        Z.append(indicators[:, :, None] * columns[:, None, :])

    def V(x):
        V = np.linalg.inv(W)
        for effects, Lambda in zip(Z, factors(x, cross.covariances), strict=True):
            root = (effects @ Lambda).reshape(len(W), -1)
            V = V + root @ root.T
        return V

    inverse = np.linalg.inv(V(theta))
    K = np.linalg.inv(rows.X.T @ inverse @ rows.X)
    P = inverse - inverse @ rows.X @ K @ rows.X.T @ inverse
    slopes = [(V(theta + 1e-4 * e) - V(theta - 1e-4 * e)) / 2e-4 for e in np.eye(4)]
    Py = P @ rows.y
    factorized = blocked_cholesky.factorize(cross, factors(theta, cross.covariances))
    profile = reml.profiled(factorized, reml=True)
    contrast = np.append(-profile.gamma, 1.0)
    directions = by_theta(theta, factorized.Lambdas, cross.covariances)
    found = average_information(factorized, contrast, profile.gamma_cov, directions)
    twice = [[Py @ one @ P @ other @ Py for other in slopes] for one in slopes]
    np.testing.assert_allclose(found.twice, twice, rtol=1e-8)
    np.testing.assert_allclose(found.once, [Py @ one @ Py for one in slopes], rtol=1e-8)


@pytest.mark.parametrize("restricted", [True, False], ids=["reml", "ml"])
@pytest.mark.parametrize("formula", WITH_EFFECTS.values(), ids=WITH_EFFECTS.keys())
def test_without_random_effects_the_curvature_is_exact(formula, restricted):
    cross = crossed(formula)
    zero = np.zeros(n_theta(cross.covariances))
    value, gradient, curvature = reml.CurvedCriterion(cross, reml=restricted)(zero)
    assert (value, gradient.any()) == (reml.criterion(cross, zero, reml=restricted)[0], False)
    expected = central_hessian(lambda x: reml.criterion(cross, x, reml=restricted), zero, 1e-4)
    np.testing.assert_allclose(curvature, expected, atol=1e-5 * np.abs(expected).max())


def test_with_many_levels_it_is_nearly_the_hessian():
    rng = np.random.default_rng(3)
    g, h = rng.integers(0, 2000, 20_000), rng.integers(0, 40, 20_000)
    x = rng.normal(size=20_000)
    y = rng.normal(size=(2000, 2))[g] @ [0.5, 0.0] + rng.normal(size=2000)[g] * x / 3
    y += rng.normal(size=40)[h] / 2 + rng.normal(size=20_000)
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "h": h})
    model = rf.Model("y ~ x + (x | g) + (1 | h)", frame)
    cross, fit = cross_products(model.design), model.fit()
    theta = reml.basis_theta(cross, fit.theta)
    curvature = reml.CurvedCriterion(cross, reml=True)(theta)[2]
    hessian = central_hessian(lambda x: reml.criterion(cross, x, reml=True), theta, 1e-4)
    size = np.sqrt(np.diag(hessian))
    np.testing.assert_allclose(
        (curvature / np.outer(size, size))[:3, :3],
        (hessian / np.outer(size, size))[:3, :3],
        atol=0.1,
    )
    assert fit.estimate.evaluations <= 7


@pytest.mark.parametrize("structure", [CompoundSymmetry, Autoregressive])
def test_any_covariance_says_how_its_factor_curves(structure):
    covariance, theta = structure(3), np.array([0.8, 0.6])
    slope = np.random.default_rng(4).normal(size=(3, 3))
    np.testing.assert_allclose(
        covariance.jacobian(theta),
        [
            (covariance.factor(theta + e) - covariance.factor(theta - e)) / 2e-5
            for e in 1e-5 * np.eye(2)
        ],
        atol=1e-8,
    )

    def along(x):
        return float((slope * covariance.factor(x)).sum())

    h = 1e-3
    expected = [
        [
            (
                along(theta + a + b)
                - along(theta + a - b)
                - along(theta - a + b)
                + along(theta - a - b)
            )
            / (4 * h * h)
            for a in h * np.eye(2)
        ]
        for b in h * np.eye(2)
    ]
    np.testing.assert_allclose(covariance.curvature(slope, theta), expected, atol=1e-5)


@pytest.mark.parametrize("formula", WITH_EFFECTS.values(), ids=WITH_EFFECTS.keys())
def test_the_criterion_as_a_function_of_covariances(formula, monkeypatch):
    """It has the criterion's slope and curvature at its point, and its own derivatives anywhere."""
    monkeypatch.setattr(reml, "COSTLY", -1)
    cross = crossed(formula)
    for theta in points(cross):
        objective = reml.CurvedCriterion(cross, reml=True)
        _, gradient, curvature = objective(theta)
        near = objective.nearby
        value, slope, bend = near(theta)
        assert value == 0
        np.testing.assert_allclose(slope, gradient, rtol=1e-10)
        np.testing.assert_allclose(bend, curvature, atol=1e-9 * np.abs(curvature).max())
        other = theta + 0.3
        value, slope, bend = near(other)
        expected = central_hessian(lambda x, near=near: near(x)[:2], other, 1e-4)
        np.testing.assert_allclose(bend, expected, atol=1e-6 * np.abs(expected).max())
        steps = 1e-5 * np.eye(len(theta))
        differences = [(near(other + e)[0] - near(other - e)[0]) / 2e-5 for e in steps]
        np.testing.assert_allclose(slope, differences, atol=1e-6 * np.abs(slope).max())


def test_a_variance_of_zero_is_reached_in_few_evaluations(monkeypatch):
    """As a quadratic function of theta the criterion says: a third of the way at each step."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"g": rng.integers(0, 60, 3000), "h": rng.integers(0, 40, 3000)})
    frame["y"] = rng.normal(size=3000) + rng.normal(size=40)[frame["h"]]
    frame["x"] = rng.normal(size=3000)
    model = rf.Model("y ~ x + (x || g) + (1 | h)", frame)
    cross, plain = cross_products(model.design), model.fit()
    monkeypatch.setattr(reml, "COSTLY", -1)
    found = reml.estimate(cross, reml=True)
    assert found.evaluations < plain.estimate.evaluations
    assert found.objective == pytest.approx(plain.objective, abs=1e-5)
