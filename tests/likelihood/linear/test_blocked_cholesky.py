"""The blocked engine against the n x n covariance matrix, and its gradient against differences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, dense, random_design, random_factors
from scipy import linalg

import ranef as rf
from ranef.covariances.covariance import factors, pull_back, theta_of
from ranef.likelihood.linear import blocked_cholesky, crossed_rows, crossproducts
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import profiled
from ranef.numerics.matrices import lower_cholesky

SEEDS = range(3)


@pytest.fixture(params=["dense rows", "sparse rows", "pairs"])
def storage(request, monkeypatch):
    """Run with the crossed blocks stored densely, sparsely, and with products of elements.

    What is large goes in parts of three levels.
    """
    monkeypatch.setattr(crossed_rows, "CHUNK", 12)
    monkeypatch.setattr(blocked_cholesky, "CHUNK", 12)
    if request.param != "dense rows":
        monkeypatch.setattr(crossproducts, "SPARSE_SIZE", 0)
        monkeypatch.setattr(crossproducts, "SPARSE_SHARE", 2.0)
        monkeypatch.setattr(crossed_rows, "COST_OF_A_PAIR", 0 if request.param == "pairs" else 1e9)
    return request.param


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


def everything(formula, seed):
    design = random_design(formula, seed)
    cross = cross_products(design)
    Lambdas = random_factors(cross, seed)
    return design, cross, Lambdas, blocked_cholesky.factorize(cross, Lambdas)


@pytest.mark.parametrize("seed", SEEDS)
def test_criteria_equal_the_dense_ones(formula, storage, seed):  # noqa: ARG001 -- sets storage
    design, cross, Lambdas, factorized = everything(formula, seed)
    expected = dense(design, cross, Lambdas)
    deviance, reml = (profiled(factorized, reml=reml) for reml in (False, True))
    assert deviance.value == pytest.approx(expected.deviance, rel=1e-12)
    assert reml.value == pytest.approx(expected.reml, rel=1e-12)
    assert reml.r2 == pytest.approx(expected.r2, rel=1e-10)


@pytest.mark.parametrize("seed", SEEDS)
def test_fixed_and_random_effects_equal_the_dense_ones(formula, storage, seed):  # noqa: ARG001
    design, cross, Lambdas, factorized = everything(formula, seed)
    expected = dense(design, cross, Lambdas)
    profile, back = profiled(factorized, reml=True), np.linalg.inv(cross.R)
    beta, beta_cov = cross.beta_ols + back @ profile.gamma, back @ profile.gamma_cov @ back.T
    np.testing.assert_allclose(beta, expected.beta, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(beta_cov, expected.beta_cov, rtol=1e-8, atol=1e-11)
    modes = blocked_cholesky.modes(factorized, profile.gamma)
    for T, b, whole in zip(cross.bases, modes, expected.b, strict=True):
        np.testing.assert_allclose((b @ np.linalg.inv(T).T).ravel(), whole, atol=1e-8)


def test_conditional_covariances_equal_the_dense_ones(formula, storage):  # noqa: ARG001
    design, cross, Lambdas, factorized = everything(formula, 1)
    wholes = dense(design, cross, Lambdas).b_cov
    found = blocked_cholesky.conditional_covariances(factorized)
    for T, blocks, whole in zip(cross.bases, found, wholes, strict=True):
        back, k = np.linalg.inv(T), len(T)
        for level, block in enumerate(blocks):
            rows = slice(level * k, (level + 1) * k)
            np.testing.assert_allclose(back @ block @ back.T, whole[rows, rows], atol=1e-9)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("where", ["inside", "at zero", "far out"])
def test_gradient_equals_central_differences(formula, storage, reml, where):  # noqa: ARG001
    cross = cross_products(random_design(formula, 5))
    theta = theta_of(random_factors(cross, 5), cross.covariances)
    if where == "at zero":
        theta[:1] = 0.0
    if where == "far out":
        theta *= 20

    def criterion(x):
        return profiled(
            blocked_cholesky.factorize(cross, factors(x, cross.covariances)), reml=reml
        ).value

    def difference(h):
        near, far = (criterion(theta + s * h) - criterion(theta - s * h) for s in (1, 2))
        return (8 * near - far) / (12 * h.sum())

    steps = 1e-3 * np.maximum(1, np.abs(theta))[:, None] * np.eye(len(theta))
    expected = np.array([difference(h) for h in steps])
    factorized = blocked_cholesky.factorize(cross, factors(theta, cross.covariances))
    slopes = blocked_cholesky.gradient(factorized, profiled(factorized, reml=reml).slope)
    found = pull_back(slopes, theta, cross.covariances)
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-6)


def test_a_singular_factor_is_nothing_special(formula, storage):  # noqa: ARG001
    design, cross, Lambdas, _ = everything(formula, 2)
    for Lambda in Lambdas:
        Lambda[-1] = 0.0
    expected = dense(design, cross, Lambdas)
    profile = profiled(blocked_cholesky.factorize(cross, Lambdas), reml=True)
    assert profile.value == pytest.approx(expected.reml)


@pytest.mark.parametrize("seed", range(4))
def test_great_factors_of_nested_terms_whose_levels_have_few_rows(seed):
    """A level of one row leaves a direction of its effects as great as the factor."""
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 5, 60), rng.integers(0, 6, 60)
    frame = pd.DataFrame({"g": g, "h": 10 * g + h, "t": rng.integers(0, 2, 60)})
    frame = frame.assign(x=rng.normal(size=60), y=rng.normal(size=60), w=rng.uniform(1, 5, 60))
    design = rf.Model("y ~ x + (x | g) + (t | h)", frame, weights="w").design
    cross = cross_products(design)
    Lambdas = [1e4 * T / np.linalg.norm(T, axis=0) for T in cross.bases]
    profile = profiled(blocked_cholesky.factorize(cross, Lambdas), reml=True)
    assert profile.value == pytest.approx(dense(design, cross, Lambdas).reml, abs=0.02)


def test_called_twice_it_answers_twice_the_same(formula):
    _, cross, Lambdas, _ = everything(formula, 3)
    first, second = (blocked_cholesky.factorize(cross, Lambdas) for _ in range(2))
    np.testing.assert_array_equal(first.reduced, second.reduced)
    slope = np.eye(cross.p + 1)
    for one, other in zip(
        blocked_cholesky.gradient(first, slope),
        blocked_cholesky.gradient(second, slope),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_an_indefinite_system_is_an_error_for_the_caller_to_catch():
    with pytest.raises(np.linalg.LinAlgError, match="the system matrix is not positive definite"):
        lower_cholesky(-np.eye(2))


def dense_system(design, cross, Lambdas):
    """Return Lambda (Lambda'Z'WZ Lambda + I)^-1 Lambda' and Z'WZ in the basis, term by term."""
    n, blocks, roots = design.n_obs, [np.empty((design.n_obs, 0))], [np.empty((0, 0))]
    for term, T, Lambda in zip(design.rows.terms, cross.bases, Lambdas, strict=True):
        columns = np.linalg.solve(T.T, term.columns.T).T * np.sqrt(design.rows.weights)[:, None]
        Z = np.zeros((n, term.n_levels * term.n_coefs))
        for a in range(term.n_coefs):
            Z[np.arange(n), term.codes * term.n_coefs + a] = columns[:, a]
        blocks.append(Z)
        roots.append(np.kron(np.eye(term.n_levels), Lambda))
    root, Z = linalg.block_diag(*roots), np.hstack(blocks)
    H = root.T @ Z.T @ Z @ root + np.eye(len(root))
    return root @ np.linalg.solve(H, root.T), Z.T @ Z, np.linalg.solve(H, root.T)


def starts_of(cross):
    sizes = [m * shape.k for m, shape in zip(cross.n_levels, cross.covariances, strict=True)]
    return np.concatenate([[0], np.cumsum(sizes)])


@pytest.mark.parametrize("where", ["inside", "singular"])
def test_solve_equals_the_dense_inverse(formula, storage, where):  # noqa: ARG001
    design, cross, Lambdas, _ = everything(formula, 6)
    if where == "singular":
        for Lambda in Lambdas:
            Lambda[-1] = 0.0
    G = dense_system(design, cross, Lambdas)[0]
    rng, sizes = np.random.default_rng(1), zip(cross.n_levels, cross.covariances, strict=True)
    sums = [rng.normal(size=(m, shape.k)) for m, shape in sizes]
    before = [s.copy() for s in sums]
    found = blocked_cholesky.solve(blocked_cholesky.factorize(cross, Lambdas), sums)
    assert [b.shape for b in found] == [s.shape for s in sums]
    flat, right = (np.concatenate([*(x.ravel() for x in xs), []]) for xs in (found, sums))
    np.testing.assert_allclose(flat, G @ right, atol=1e-10)
    for one, other in zip(sums, before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_selected_inverse_holds_elements_of_the_dense_inverse(formula, storage):  # noqa: ARG001
    design, cross, Lambdas, factorized = everything(formula, 7)
    G, starts = dense_system(design, cross, Lambdas)[0], starts_of(cross)
    found = blocked_cholesky.selected_inverse(factorized)
    others = [np.arange(starts[t], starts[t + 1]) for t, _ in cross.rest_terms]
    rest = np.concatenate([*others, []]).astype(int)
    np.testing.assert_allclose(found.rest, G[np.ix_(rest, rest)], atol=1e-10)
    for i, (link, (front, crossed)) in enumerate(zip(cross.chain, found.chain, strict=True)):
        levels, columns = np.arange(len(link.front)), []
        for later in cross.chain[i:]:
            columns.append(starts[later.term] + levels[:, None] * later.k + np.arange(later.k))
            levels = levels if later.parent is None else later.parent[levels]
        for level, (own, wide) in enumerate(zip(columns[0], np.hstack(columns), strict=True)):
            np.testing.assert_allclose(front[level], G[np.ix_(own, wide)], atol=1e-10)
            np.testing.assert_allclose(crossed[level], G[np.ix_(own, rest)], atol=1e-10)


def test_the_derivative_of_the_determinant_is_the_dense_one(formula, storage):  # noqa: ARG001
    design, cross, Lambdas, factorized = everything(formula, 7)
    _, ZZ, half = dense_system(design, cross, Lambdas)
    whole, starts = 2 * half @ ZZ, starts_of(cross)
    for term, slope in enumerate(blocked_cholesky.selected_inverse(factorized).gradient):
        k, m = cross.covariances[term].k, cross.n_levels[term]
        places = starts[term] + np.arange(m * k).reshape(m, k)
        expected = sum(whole[np.ix_(own, own)] for own in places).T
        np.testing.assert_allclose(slope, expected, atol=1e-9)


@pytest.mark.parametrize("where", ["inside", "near zero"])
def test_a_gradient_that_takes_the_place_of_the_factor_is_the_same(formula, storage, where):  # noqa: ARG001
    _, cross, Lambdas, _ = everything(formula, 4)
    if where == "near zero":
        Lambdas = [Lambda / 1000 for Lambda in Lambdas]
    slope = np.eye(cross.p + 1)
    first, second = (
        blocked_cholesky.gradient(blocked_cholesky.factorize(cross, Lambdas), slope, overwrite=o)
        for o in (False, True)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_gradient_has_no_step_where_a_division_by_lambda_begins(formula, storage, monkeypatch):  # noqa: ARG001
    _, cross, _, factorized = everything(formula, 4)
    slope = np.eye(cross.p + 1)
    divided = blocked_cholesky.gradient(factorized, slope)
    monkeypatch.setattr(blocked_cholesky, "MIN_SIZE", np.inf)
    for one, other in zip(divided, blocked_cholesky.gradient(factorized, slope), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11 * np.abs(other).max())


@pytest.mark.parametrize("by", ["scores", "inverse"])
def test_modes_and_covariances_of_an_inverted_factor(formula, storage, by):  # noqa: ARG001
    _, cross, Lambdas, factorized = everything(formula, 8)
    gamma = np.arange(1.0, cross.p + 1)
    expected = (
        blocked_cholesky.modes(factorized, gamma),
        blocked_cholesky.conditional_covariances(factorized),
    )
    other = blocked_cholesky.factorize(cross, Lambdas)
    if by == "scores":
        blocked_cholesky.scores(other, np.eye(cross.p + 1), overwrite=True)
    else:
        blocked_cholesky.inner_inverse(other, overwrite=True)
    found = (
        blocked_cholesky.modes(other, gamma),
        blocked_cholesky.conditional_covariances(other, inverted=True),
    )
    for before, after in zip(expected, found, strict=True):
        for one, another in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, another)
