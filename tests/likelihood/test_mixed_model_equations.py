"""Henderson's equations against the dense inverse of their matrix, for any structure."""

import numpy as np
import pytest
from generalized_fits import simulated
from scipy import linalg

import ranef as rf
from fits import fit_of
from ranef.design.new_data.new_rows import own_rows


def dense(fit):
    """Return A, G and Z by the dense covariance of the (working) responses."""
    estimate, rows = fit.estimate, fit.design.rows
    weights = estimate.working_weights
    weights = rows.weights / fit.sigma**2 if weights is None else weights
    blocks, covariances = [], []
    for term, Lambda in zip(rows.terms, estimate.Lambdas, strict=True):
        Z = np.zeros((len(rows.X), term.n_levels, term.n_coefs))
        Z[np.arange(len(Z)), term.codes] = term.columns
        blocks.append(Z.reshape(len(Z), -1))
        covariances.append(np.kron(np.eye(term.n_levels), fit.sigma**2 * Lambda @ Lambda.T))
    Z, Sigma = np.hstack(blocks), linalg.block_diag(*covariances)
    V = Z @ Sigma @ Z.T + np.diag(1 / weights)
    G = Sigma - Sigma @ Z.T @ np.linalg.solve(V, Z @ Sigma)
    return G @ Z.T @ (weights[:, None] * rows.X), G, Z


DATA = {name: simulated(name) for name in ("poisson", "gamma")}
FITS = {
    "one": lambda: fit_of("one factor", "reml"),
    "crossed": lambda: fit_of("crossed", "ml"),
    "nested": lambda: fit_of("nested", "reml"),
    "poisson": lambda: rf.fit("y ~ x + (1 | g) + (1 | h)", DATA["poisson"], family="poisson"),
    "gamma": lambda: rf.fit("y ~ x + (x | g)", DATA["gamma"], family="gamma", link="log"),
}


@pytest.fixture(params=FITS)
def fit(request):
    return FITS[request.param]()


def test_errors_are_those_of_the_dense_inverse(fit):
    A, G, Z = dense(fit)
    equations = fit.asked.equations(fit.fitted_model)
    found = np.vstack([fall.reshape(-1, A.shape[1]) for fall in equations.modes_by_fixed])
    np.testing.assert_allclose(found, A, rtol=1e-6, atol=1e-9)
    variances = equations.conditional_variances(own_rows(fit.design).terms)
    np.testing.assert_allclose(variances, np.einsum("ij,jk,ik->i", Z, G, Z), rtol=1e-6)


def test_draws_have_the_covariance_of_the_dense_inverse():
    fit = fit_of("crossed", "reml")
    _, G, _ = dense(fit)
    n, equations = 4000, fit.asked.equations(fit.fitted_model)
    draws = equations.conditional_draws(n, np.random.default_rng(1))
    found = np.cov(np.hstack([one.reshape(n, -1) for one in draws]), rowvar=False)
    scale = np.sqrt(np.outer(np.diag(G), np.diag(G))) + 1e-9
    assert np.abs((found - G) / scale).max() < 5.5 * np.sqrt(2 / n)


def test_leverages_are_the_diagonal_of_the_dense_hat_matrix(fit):
    equations = fit.asked.equations(fit.fitted_model)
    _, G, Z = dense(fit)
    weights = fit.estimate.working_weights
    weights = fit.design.rows.weights / fit.sigma**2 if weights is None else weights
    X = fit.design.rows.X
    of_effects = Z @ G @ Z.T * weights
    slopes = X - of_effects @ X
    V = np.linalg.inv(X.T @ (weights[:, None] * slopes))
    hat = of_effects + slopes @ V @ slopes.T * weights
    np.testing.assert_allclose(equations.leverages, np.diag(hat), rtol=1e-6)


def test_effects_of_the_response_are_those_of_the_fit():
    for name in ("one", "crossed", "nested"):
        fit = FITS[name]()
        equations = fit.asked.equations(fit.fitted_model)
        beta, effects = equations.effects_of(fit.design.rows.y)
        np.testing.assert_allclose(beta, fit.estimate.beta, rtol=1e-8)
        for found, b in zip(effects, fit.estimate.b, strict=True):
            np.testing.assert_allclose(found, b, atol=1e-8)


def test_effects_of_the_response_heed_the_offset_and_the_weights():
    fit = fit_of("weights and offset", "reml")
    beta, _ = fit.asked.equations(fit.fitted_model).effects_of(fit.design.rows.y)
    np.testing.assert_allclose(beta, fit.estimate.beta, rtol=1e-8)
