"""The parts of the expected information against dense n x n matrices, for every structure."""

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, random_design, random_factors

import ranef as rf
from fits import dense_Z
from ranef.likelihood.linear import expected_information
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.expected_information import derivatives, inner_products


def dense_derivatives(design, cross, covs):
    """Return the same products from V and its derivatives as n x n matrices."""
    X = design.rows.X @ np.linalg.inv(cross.R)
    V, parts = np.diag(1 / design.rows.weights), []
    for term, T, cov in zip(design.terms, cross.bases, covs, strict=True):
        Z = dense_Z(design.rows.term(term.label)) @ np.kron(np.eye(term.n_levels), np.linalg.inv(T))
        k = term.n_coefs
        pairs = [(i, j) for j in range(k) for i in range(j, k)]
        for i, j in pairs if term.covariance.has_correlations else [(i, i) for i in range(k)]:
            unit = np.zeros((k, k))
            unit[i, j] += 1
            unit[j, i] += 1
            parts.append(Z @ np.kron(np.eye(term.n_levels), unit) @ Z.T)
        V = V + Z @ np.kron(np.eye(term.n_levels), cov) @ Z.T
    parts.append(V)
    inverse = np.linalg.inv(V)
    K = X.T @ inverse @ X
    left = [inverse @ part for part in parts]
    P = [X.T @ one @ inverse @ X for one in left]
    T = [[np.trace(one @ other) for other in left] for one in left]
    Q = [[X.T @ one @ other @ inverse @ X for other in left] for one in left]
    return K, np.array(T), np.array(P), np.array(Q)


def compare(found, expected):
    for one, other in zip((found.K, found.T, found.P, found.Q), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("block", [2**21, 1])
def test_as_dense_matrices(formula, block, monkeypatch):
    monkeypatch.setattr(expected_information, "NUMBERS_OF_A_BATCH", block)
    design = random_design(formula, seed=1)
    cross = cross_products(design)
    covs = [f @ f.T for f in random_factors(cross, seed=2)]
    compare(derivatives(cross, covs), dense_derivatives(design, cross, covs))


@pytest.mark.parametrize("structure", ["nested slopes", "crossed slopes", "factor slope"])
def test_singular_covariances(structure):
    design = random_design(STRUCTURES[structure], seed=3)
    cross = cross_products(design)
    covs = [np.outer(f[:, 0], f[:, 0]) for f in random_factors(cross, seed=4)]
    covs[-1] = np.zeros_like(covs[-1])
    compare(derivatives(cross, covs), dense_derivatives(design, cross, covs))


def test_sets_of_different_size():
    """Nested factors with one, two and three inner levels, and a crossed part on its own."""
    frame = random_design("y ~ x + (1 | s/c)", seed=5).rows.y
    rng = np.random.default_rng(6)
    outer = np.repeat([0, 1, 1, 2, 2, 2, 3], 20)
    inner = np.repeat(np.arange(7), 20)
    data = {"y": frame[:140], "x": rng.normal(size=140), "s": outer, "c": inner, "i": inner % 2}
    data["i"] = np.where(outer == 3, 7, rng.integers(0, 3, 140) + 10 * outer)
    model = rf.Model("y ~ x + (x | s/c) + (1 | i)", pd.DataFrame(data))
    cross = cross_products(model.design)
    covs = [f @ f.T for f in random_factors(cross, seed=7)]
    compare(derivatives(cross, covs), dense_derivatives(model.design, cross, covs))


def test_sparse_cross_products(monkeypatch):
    """Rows of the head of the chain that are held as a sparse array."""
    monkeypatch.setattr("ranef.likelihood.linear.crossproducts.SPARSE_SIZE", 0)
    monkeypatch.setattr("ranef.likelihood.linear.crossproducts.SPARSE_SHARE", 2.0)
    design = random_design(STRUCTURES["all of it"], seed=8)
    cross = cross_products(design)
    assert not cross.chain[0].rest.is_dense
    covs = [f @ f.T for f in random_factors(cross, seed=9)]
    compare(derivatives(cross, covs), dense_derivatives(design, cross, covs))


def test_too_many(monkeypatch):
    monkeypatch.setattr(expected_information, "MAX_CONNECTED_EFFECTS", 11)
    derivatives(cross_products(random_design("y ~ x + (1 | c)", seed=1)), [np.eye(1)])
    cross = cross_products(random_design("y ~ x + (1 | c) + (1 | i)", seed=1))
    with pytest.raises(rf.FitError) as caught:
        derivatives(cross, [np.eye(1), np.eye(1)])
    assert str(caught.value) == (
        "Kenward-Roger degrees of freedom need a dense matrix of the random effects that the data "
        'connect, here 19, where 11 are feasible. With so many levels df="satterthwaite" says '
        "nearly the same."
    )


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
@pytest.mark.parametrize("block", [2**21, 1])
@pytest.mark.parametrize("most", [10_000, 0], ids=["dense", "sparse"])
def test_inner_products_as_dense_matrices(formula, block, most, monkeypatch):
    monkeypatch.setattr(expected_information, "NUMBERS_OF_A_BATCH", block)
    monkeypatch.setattr(expected_information, "MAX_DENSE_EFFECTS", most)
    design = random_design(formula, seed=1)
    cross = cross_products(design)
    found = inner_products(cross)
    root, parts = np.sqrt(design.rows.weights), [np.eye(design.n_obs)]
    for term, T, units in reversed(list(zip(design.terms, cross.bases, found.units, strict=True))):
        Z = root[:, None] * dense_Z(design.rows.term(term.label))
        Z = Z @ np.kron(np.eye(term.n_levels), np.linalg.inv(T))
        parts = [*(Z @ np.kron(np.eye(term.n_levels), unit) @ Z.T for unit in units), *parts]
    Q = np.linalg.qr(design.rows.X * root[:, None])[0]
    M = np.eye(design.n_obs) - Q @ Q.T
    for products, projector in ((found.all, np.eye(design.n_obs)), (found.unexplained, M)):
        left = np.array([projector @ part @ projector for part in parts])
        expected = np.einsum("iab,jab->ij", left, left)
        np.testing.assert_allclose(products, expected, rtol=1e-10, atol=1e-10 * found.all.max())
