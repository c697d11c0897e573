"""Products with the rows of crossed factors, against sums over levels of dense products."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ranef.likelihood.linear import crossed_rows as module
from ranef.likelihood.linear.crossed_rows import CrossedRows, count_pairs, crossed_rows

M, Q, P = 9, 12, 3


@pytest.fixture(params=["dense", "sparse", "pairs"])
def storage(request, monkeypatch):
    """Products of dense rows, of sparse ones made dense in parts, and of pairs of elements."""
    monkeypatch.setattr(module, "CHUNK", 4 * Q)
    monkeypatch.setattr(module, "COST_OF_A_PAIR", 0 if request.param == "pairs" else 1e9)
    return request.param


@pytest.fixture(params=[1, 2, 3])
def k(request):
    return request.param


def rows_of(storage, k):
    """Return rows, and the same as an array, shape (m, k, w)."""
    rng = np.random.default_rng(k)
    C = rng.normal(size=(M, k, Q)) * (rng.random((M, 1, Q)) < 0.4)
    C[0, 0, 0] = 0.0  # an element that is zero in one row of a level only
    C[3] = 0.0  # a level that meets no other
    fixed = rng.normal(size=(M * k, P))
    whole = np.concatenate([C, fixed.reshape(M, k, P)], axis=2)
    if storage == "dense":
        return CrossedRows.split(whole, Q), whole
    return crossed_rows(sparse.csr_array(C.reshape(M * k, Q)), fixed, k), whole


def symmetric(rng, shape):
    root = rng.normal(size=shape)
    return root.swapaxes(-1, -2) @ root, root


def lower(A):
    """Return the lower triangle in Fortran's order, with nonsense above it."""
    return np.asfortranarray(np.where(np.tri(len(A), dtype=bool), A, 99.0))


def test_the_sandwich_is_taken_off_a_lower_triangle(storage, k):
    C, whole = rows_of(storage, k)
    rng = np.random.default_rng(10)
    Y, V = symmetric(rng, (M, k, k))
    S = symmetric(rng, (Q, Q))[0]
    sandwich = np.einsum("lav,lab,lbw->vw", whole[..., :Q], Y, whole[..., :Q])
    for start in (None, S):
        found = C.less_sandwich(None if start is None else lower(start), Y, V)
        expected = -sandwich if start is None else start - sandwich
        np.testing.assert_allclose(np.tril(found), np.tril(expected), atol=1e-12)
        assert found.flags.f_contiguous
    whole_sandwich = np.einsum("lav,lab,lbw->vw", whole, Y, whole)
    np.testing.assert_allclose(C.fixed_sandwich(V), whole_sandwich[:, Q:], atol=1e-12)


def test_quadratic_forms_of_a_lower_triangle(storage, k):
    C, whole = rows_of(storage, k)
    A = symmetric(np.random.default_rng(11), (Q, Q))[0]
    before = lower(A)
    given = before.copy(order="F")
    expected = whole[..., :Q] @ A @ whole[..., :Q].mT
    np.testing.assert_allclose(C.quadratic(given), expected, atol=1e-11)
    np.testing.assert_array_equal(given, before)
    products = np.concatenate([CA for _, _, CA in C.products(given)])
    np.testing.assert_allclose(products, whole[..., :Q] @ A, atol=1e-12)


@pytest.mark.parametrize("c", [(), (1,), (4,)])
def test_products_with_a_vector_or_a_few(storage, k, c):
    C, whole = rows_of(storage, k)
    rng = np.random.default_rng(12)
    x, e = rng.normal(size=(Q + P, *c)), rng.normal(size=(M, k, *c))
    np.testing.assert_allclose(C.times(x), np.tensordot(whole, x, axes=1), atol=1e-12)
    expected = np.tensordot(whole, e, axes=([0, 1], [0, 1]))
    np.testing.assert_allclose(C.sums(e), expected, atol=1e-12)
    np.testing.assert_array_equal(C.dense(), whole)


def test_products_of_levels_with_matrices_of_their_parents(storage, k):
    C, whole = rows_of(storage, k)
    rng = np.random.default_rng(13)
    parent, x = np.array([0, 2, 1, 1, 0, 2, 2, 0, 0]), rng.normal(size=(3, 2, Q + P))
    expected = whole @ x[parent].mT
    np.testing.assert_allclose(C.beside(x, parent), expected, atol=1e-12)
    YB = rng.normal(size=(M, k, 2))
    summed = np.zeros((3, 2, Q + P))
    np.add.at(summed, parent, YB.mT @ whole)
    np.testing.assert_allclose(C.summed(parent, YB), summed, atol=1e-12)


def test_pairs_are_kept_where_they_are_cheaper_and_fit(monkeypatch):
    rng = np.random.default_rng(0)
    full, few = np.ones((300, 40)), np.zeros((3000, 400))
    few[np.arange(3000)[:, None], rng.integers(0, 400, (3000, 5))] = 1.0
    kept = [crossed_rows(sparse.csr_array(C), C[:, :1], 1).pairs is not None for C in (full, few)]
    assert kept == [False, True]
    assert (
        count_pairs(sparse.csr_array(few), 1)
        == crossed_rows(sparse.csr_array(few), few, 1).pairs.nnz
    )
    assert count_pairs(sparse.csr_array(few), 3) == 6 * sum(
        n * (n + 1) // 2 for n in (few.reshape(1000, 3, 400) != 0).any(1).sum(1)
    )
    monkeypatch.setattr(module, "available", lambda: 1000.0)
    assert crossed_rows(sparse.csr_array(few), few[:, :1], 1).pairs is None
