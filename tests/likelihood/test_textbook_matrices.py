"""Z, Lambda, L and V of a fit against matrices that are filled row by row."""

from __future__ import annotations

import numpy as np
import pytest
from generalized_fits import made_up
from scipy import sparse, stats

import ranef as rf
from fits import FORMULAS, dense_Z, fit_of
from ranef.likelihood.textbook_matrices import cholesky_factor


@pytest.fixture(params=FORMULAS)
def fit(request):
    return fit_of(request.param, "reml")


def size(fit):
    return sum(t.n_levels * t.n_coefs for t in fit.design.terms)


def test_they_are_sparse_and_of_the_right_size(fit):
    q = size(fit)
    for matrix, shape in ((fit.Z(), (240, q)), (fit.Lambda(), (q, q))):
        assert isinstance(matrix, sparse.csc_array)
        assert (matrix.shape, matrix.dtype) == (shape, np.float64)
        assert matrix.has_canonical_format
    assert fit.Z().nnz <= 240 * sum(t.n_coefs for t in fit.design.terms)
    L = fit.cholesky()
    assert (L.shape, L.dtype) == ((q, q), np.float64)


def test_Z_has_the_coefficient_columns_at_the_level_of_the_row(fit):
    blocks = [np.empty((240, 0)), *map(dense_Z, fit.design.rows.terms)]
    np.testing.assert_array_equal(fit.Z().toarray(), np.hstack(blocks))


def test_Lambda_repeats_the_factor_of_each_term(fit):
    Lambda, start = fit.Lambda().toarray(), 0
    for term in fit.design.terms:
        block = fit.lambda_blocks()[term.label].to_numpy()
        for _ in range(term.n_levels):
            stop = start + term.n_coefs
            np.testing.assert_array_equal(Lambda[start:stop, start:stop], block)
            Lambda[start:stop, start:stop] = 0
            start = stop
    assert not Lambda.any()


def test_Zb_is_the_random_part_of_the_fitted_values(fit):
    b = [np.empty(0), *(table.to_numpy().ravel() for table in fit.ranef().values())]
    random = fit.fitted() - fit.predict(groups="population")
    np.testing.assert_allclose(fit.Z() @ np.concatenate(b), random, atol=1e-10)


def test_L_is_the_cholesky_factor(fit):
    L, W = fit.cholesky(), np.diag(fit.design.rows.weights)
    ZL = fit.Z().toarray() @ fit.Lambda().toarray()
    np.testing.assert_allclose(L @ L.T, ZL.T @ W @ ZL + np.eye(size(fit)), atol=1e-9)
    np.testing.assert_array_equal(L, np.tril(L))
    assert (np.diag(L) >= 1 - 1e-12).all()


def test_R_ZX_and_R_X_follow_L(fit):
    """Bates et al. (2015), eqs. 49 to 51, and the covariance of the fixed effects, eq. 54."""
    q, X, W = size(fit), fit.design.rows.X, np.diag(fit.design.rows.weights)
    factor = fit.cholesky(fixed=True)
    L, R_ZX, R_X = factor[:q, :q], factor[q:, :q].T, factor[q:, q:].T
    ZL = fit.Z().toarray() @ fit.Lambda().toarray()
    np.testing.assert_allclose(L, fit.cholesky(), atol=1e-10)
    np.testing.assert_allclose(L @ R_ZX, ZL.T @ W @ X, atol=1e-9)
    np.testing.assert_allclose(R_X.T @ R_X, X.T @ W @ X - R_ZX.T @ R_ZX, atol=1e-8)
    np.testing.assert_allclose(
        fit.sigma**2 * np.linalg.inv(R_X.T @ R_X), fit.vcov(), rtol=1e-7, atol=1e-12
    )


def test_the_density_of_the_response_is_made_of_V():
    """The multivariate normal one, at the estimates by maximum likelihood."""
    for kind in FORMULAS:
        fit = fit_of(kind, "ml")
        V, mean = fit.V(), fit.predict(groups="population")
        assert isinstance(V, sparse.csc_array)
        density = stats.multivariate_normal(mean, V.toarray()).logpdf(fit.design.rows.y)
        assert density == pytest.approx(fit.loglik, rel=1e-9)


def test_the_criterion_is_made_of_L(fit):
    """Bates et al. (2015), eq. 41, with the weights' own term."""
    L, X, w = fit.cholesky(), fit.design.rows.X, fit.design.rows.weights
    n, p = X.shape
    ZL = fit.Z().toarray() @ fit.Lambda().toarray()
    RZX = np.linalg.solve(L, ZL.T @ (w[:, None] * X))
    RX2 = X.T @ (w[:, None] * X) - RZX.T @ RZX
    left = fit.residuals("pearson")
    u = np.linalg.lstsq(fit.Lambda().toarray(), b_of(fit), rcond=None)[0]
    r2 = left @ left + u @ u
    expected = 2 * np.log(np.diag(L)).sum() + np.linalg.slogdet(RX2)[1] - np.log(w).sum()
    expected += (n - p) * (1 + np.log(2 * np.pi * r2 / (n - p)))
    assert fit.objective == pytest.approx(expected, rel=1e-9)
    assert fit.sigma**2 == pytest.approx(r2 / (n - p))


def b_of(fit):
    return np.concatenate([[], *(table.to_numpy().ravel() for table in fit.ranef().values())])


def test_one_balanced_factor_in_closed_form():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    np.testing.assert_allclose(fit.cholesky(), np.eye(6) * np.sqrt(5 * fit.theta**2 + 1))
    # D. Bates, IMPS 2008 (slides): the diagonal of Lambda Lambda' is 0.71949
    assert (fit.Lambda() @ fit.Lambda().T).toarray()[0, 0] == pytest.approx(0.71949, abs=3e-4)


def test_a_perfect_correlation_leaves_L_positive_definite():
    fit = fit_of("crossed", "reml")
    assert fit.is_singular
    assert (fit.Lambda().toarray().diagonal() == 0).sum() == 6
    assert np.isfinite(np.log(np.diag(fit.cholesky()))).all()


def test_a_negative_information_of_a_row_is_allowed():
    made = made_up("t", "one factor")
    weights = np.where(np.arange(200) % 50, 1.0, -0.5)
    found = cholesky_factor(made.design, made.estimate.Lambdas, weights)
    sums = np.bincount(made.design.rows.terms[0].codes, weights)
    expected = np.diag(np.sqrt(made.theta**2 * sums + 1))
    np.testing.assert_allclose(found, expected, atol=1e-12)
