"""Operations on stacks of blocks against NumPy, matrix by matrix."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from ranef.likelihood.linear.crossproducts import SparseRows
from ranef.numerics import blocks

RNG = np.random.default_rng(0)


def positive(k, m=4):
    A = RNG.normal(size=(m, k, k + 2))
    return A @ A.swapaxes(1, 2)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_factors_and_solutions_are_those_of_each_matrix(k):
    M, right = positive(k), RNG.normal(size=(k, k))
    R = blocks.batched_cholesky(M)
    solved = blocks.batched_solve(R, right)
    for one, factor, found in zip(M, R, solved, strict=True):
        np.testing.assert_allclose(factor, np.linalg.cholesky(one))
        np.testing.assert_allclose(found, np.linalg.solve(factor, right))


def test_diagonal_blocks_and_rows():
    x = np.arange(36.0).reshape(6, 6)
    np.testing.assert_array_equal(blocks.diagonal_blocks(x, 2)[1], x[2:4, 2:4])
    np.testing.assert_array_equal(blocks.rows_of(np.arange(6.0), 3), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(blocks.transposed(x[None])[0], x.T)


def test_sums_over_children():
    parent, x = np.array([1, 0, 1, 1]), RNG.normal(size=(4, 2, 3))
    found = blocks.summed(parent, x)
    np.testing.assert_allclose(found[1], x[0] + x[2] + x[3])
    np.testing.assert_allclose(found[0], x[1])


def test_sums_of_products_over_children_of_dense_and_sparse_rows():
    parent, YB, C = np.array([1, 0, 1]), RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 2, 5))
    stored = SparseRows(sparse.csr_array(C.reshape(6, 5)), sparse.csr_array((25, 9)), 2)
    expected = np.stack([YB[1].T @ C[1], YB[0].T @ C[0] + YB[2].T @ C[2]])
    for rows in (C, stored):
        np.testing.assert_allclose(blocks.summed_rows(parent, YB, rows), expected)
    np.testing.assert_array_equal(blocks.dense(stored), C)
    assert blocks.dense(C) is C


def test_triangles_and_inverses_of_a_dense_matrix():
    (M,) = positive(5, 1)
    L, right = blocks.cholesky(M), RNG.normal(size=(5, 2))
    np.testing.assert_allclose(L @ L.T, M)
    np.testing.assert_allclose(L @ blocks.triangular_solve(L, right), right)
    np.testing.assert_allclose(L.T @ blocks.triangular_solve(L, right, transposed=True), right)
    np.testing.assert_allclose(L @ blocks.triangular_solve(L, right[:, 0]), right[:, 0])
    np.testing.assert_allclose(blocks.inverse(L, 5), np.linalg.inv(M))
    np.testing.assert_allclose(blocks.inverse(L, 3), np.linalg.inv(M[:3, :3]))


def test_nothing_is_solved_where_there_is_nothing():
    empty = np.empty((0, 0))
    assert blocks.cholesky(empty).shape == (0, 0)
    assert blocks.inverse(empty, 0).shape == (0, 0)
    assert blocks.triangular_solve(empty, np.empty((0, 3))).shape == (0, 3)


def test_a_matrix_that_is_not_positive_definite_is_an_error():
    with pytest.raises(
        np.linalg.LinAlgError, match=r"^the system matrix is not positive definite$"
    ):
        blocks.cholesky(np.diag([1.0, -1.0]))
