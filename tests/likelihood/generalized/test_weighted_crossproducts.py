"""Weighted cross-products, sums and leverages against dense matrices, for every structure."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES
from nonlinear import KNOWN, indicator, random_model, random_point, spread
from scipy import sparse

from ranef.covariances.covariance import factors
from ranef.likelihood.generalized.weighted_crossproducts import weighted
from ranef.likelihood.linear import blocked_cholesky


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


@pytest.fixture(params=["positive", "some negative"])
def weights(request):
    low = 0.1 if request.param == "positive" else -0.05
    return np.random.default_rng(8).uniform(low, 1, 90)


def model_of(formula, seed=1):
    return random_model(formula, KNOWN["poisson"], seed)[1]


def assembled(cross):
    """Return the dense matrix that cross-products stand for, the random effects first."""
    sizes = [m * shape.k for m, shape in zip(cross.n_levels, cross.covariances, strict=True)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    q, w = int(starts[-1]), len(cross.rest) - cross.q_rest
    found = np.zeros((q + w, q + w))
    rest = np.arange(q + w - len(cross.rest), q + w)
    for term, place in cross.rest_terms:
        rest[place] = np.arange(starts[term], starts[term + 1])
    rest[cross.q_rest :] = np.arange(q, q + w)
    found[np.ix_(rest, rest)] = cross.rest
    for i, link in enumerate(cross.chain):
        levels, columns = np.arange(len(link.front)), []
        for later in cross.chain[i:]:
            columns.append(starts[later.term] + levels[:, None] * later.k + np.arange(later.k))
            levels = levels if later.parent is None else later.parent[levels]
        own, columns = columns[0], np.hstack(columns)
        for level in range(len(link.front)):
            block = link.front[level]
            assert not block[link.k :, link.k :].any()
            np.testing.assert_array_equal(block[link.k :, : link.k], block[: link.k, link.k :].T)
            found[np.ix_(own[level], columns[level])] = block[: link.k]
            found[np.ix_(columns[level], own[level])] = block[: link.k].T
            found[np.ix_(own[level], rest)] = link.rest.dense()[level]
            found[np.ix_(rest, own[level])] = link.rest.dense()[level].T
    return found


def test_cross_products_equal_the_dense_ones(formula, weights):
    model = model_of(formula)
    cross = model.problem.Z.cross(weights, model.X)
    columns = np.hstack([indicator(model.problem), model.X, np.zeros((90, 1))])
    expected = (columns.T * weights) @ columns
    np.testing.assert_allclose(assembled(cross), expected, atol=1e-12)
    assert (cross.n, cross.p) == model.X.shape


def test_sums_and_fitted_values_equal_the_dense_ones(formula):
    model = model_of(formula)
    Z, rng = indicator(model.problem), np.random.default_rng(3)
    rows = rng.normal(size=90)
    sums = model.problem.Z.sums(rows)
    assert [s.shape for s in sums] == [(b.n_levels, b.k) for b in model.problem.Z.blocks]
    flat = np.concatenate([*(s.ravel() for s in sums), []])
    np.testing.assert_allclose(flat, Z.T @ rows, atol=1e-12)
    b = [rng.normal(size=s.shape) for s in sums]
    whole = np.concatenate([*(one.ravel() for one in b), []])
    np.testing.assert_allclose(model.problem.Z.fitted(b), Z @ whole, atol=1e-12)


def test_leverages_equal_the_dense_ones(formula, weights):
    model = model_of(formula)
    Lambdas = factors(random_point(model, 4).theta, model.covariances)
    factorized = blocked_cholesky.factorize(model.problem.Z.cross(weights, model.X), Lambdas)
    root = indicator(model.problem) @ spread(model.problem, Lambdas)
    H = (root.T * weights) @ root + np.eye(root.shape[1])
    found = model.problem.Z.leverages(blocked_cholesky.selected_inverse(factorized))
    np.testing.assert_allclose(found, np.einsum("nq,qr,nr->n", root, np.linalg.inv(H), root))


def test_leverages_are_zero_where_the_variance_is(formula):
    model = model_of(formula)
    Lambdas = [np.zeros((shape.k, shape.k)) for shape in model.covariances]
    factorized = blocked_cholesky.factorize(model.problem.Z.cross(np.ones(90), model.X), Lambdas)
    assert not model.problem.Z.leverages(blocked_cholesky.selected_inverse(factorized)).any()


def test_cross_products_are_linear_in_the_weights(formula):
    model = model_of(formula)
    Z, (one, other) = model.problem.Z, np.random.default_rng(2).normal(size=(2, 90))
    parts = [assembled(Z.cross(w, model.X)) for w in (one, other, 2 * one - other)]
    np.testing.assert_allclose(parts[2], 2 * parts[0] - parts[1], atol=1e-11)


def test_the_indicator_sums_over_levels():
    (block,) = model_of("y ~ x + (x | c)").problem.Z.blocks
    counts = np.bincount(block.codes, minlength=block.n_levels)
    np.testing.assert_array_equal(block.indicator @ np.ones(90), counts)
    assert sparse.issparse(block.indicator)


def test_without_random_effects_there_are_fixed_columns_alone():
    Z, X = weighted([], 5), np.arange(10.0).reshape(5, 2)
    cross = Z.cross(np.ones(5), X)
    assert (cross.chain, cross.q_rest, Z.sums(np.ones(5))) == ((), 0, [])
    np.testing.assert_array_equal(cross.rest[:-1, :-1], X.T @ X)
    np.testing.assert_array_equal(Z.fitted([]), np.zeros(5))
