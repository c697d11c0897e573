"""Many small matrices against NumPy, one by one."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ranef.numerics import matrices
from ranef.numerics.matrices import (
    MAX_SIZE_OF_ONE_THREAD,
    choleskies,
    cholesky,
    eliminated,
    forward,
    from_left,
    from_right,
    gram,
    scattered,
    threads_for,
)

SIZES = pytest.mark.parametrize("size", [0, 1, 3, 8, 9, 12])


def stack(rows, columns, seed=0, shape=(4,), points=5):
    return np.random.default_rng(seed).normal(size=(*shape, rows, columns, points))


def positive(size):
    A = stack(size + 2, size)
    return gram(A, A) + np.eye(size)[:, :, None]


def each(A):
    return np.moveaxis(A, -1, 0)


@SIZES
def test_products(size):
    A, B = stack(size, 3), stack(size, 2, 1)
    np.testing.assert_allclose(each(gram(A, B)), each(A).swapaxes(-1, -2) @ each(B))
    one = B[:1, :, :, :1]  # the same at all components and points
    expected = each(A).swapaxes(-1, -2) @ each(one)
    np.testing.assert_allclose(each(gram(A, one)), np.broadcast_to(expected, (5, 4, 3, 2)))
    Z = np.random.default_rng(2).normal(size=(4, 3, size))
    np.testing.assert_allclose(each(from_left(Z, B)), Z @ each(B))
    C = stack(2, size, 3)
    np.testing.assert_allclose(each(from_right(C, Z)), each(C) @ Z.swapaxes(1, 2))


@SIZES
def test_factors(size):
    A, b = positive(size), stack(size, 2, 1)
    L = cholesky(A)
    np.testing.assert_allclose(each(L), np.linalg.cholesky(each(A)), atol=1e-12)
    np.testing.assert_allclose(each(forward(L, b)), np.linalg.solve(each(L), each(b)), atol=1e-12)
    shared = forward(L, b[:1, :, :, :1])
    expected = np.linalg.solve(each(L), np.broadcast_to(each(b[:1, :, :, :1]), (5, 4, size, 2)))
    np.testing.assert_allclose(each(shared), expected.reshape(each(shared).shape), atol=1e-12)


@pytest.mark.parametrize("size", [1, 4, 9, 12])
def test_what_is_left_of_the_last_element(size):
    A = positive(size)
    log_det, left = eliminated(A)
    part = each(A)
    np.testing.assert_allclose(log_det.T, np.linalg.slogdet(part[..., :-1, :-1])[1], atol=1e-12)
    total = np.linalg.slogdet(part)[1]
    np.testing.assert_allclose(np.log(left.T), total - log_det.T, atol=1e-11)


@pytest.mark.parametrize("small", [0, 8])
def test_no_factor_is_nan(small, monkeypatch):
    monkeypatch.setattr(matrices, "MAX_ELEMENTWISE_SIZE", small)
    A = positive(3)
    expected = cholesky(A)
    A[1, 2, 2, 3] = -1.0
    with np.errstate(invalid="ignore"):
        found = cholesky(A)
    assert np.isnan(found[1, 2, 2, 3])
    others = np.ones((4, 5), dtype=bool)
    others[1, 3] = False
    np.testing.assert_allclose(
        found.transpose(0, 3, 1, 2)[others], expected.transpose(0, 3, 1, 2)[others]
    )


def test_matrices_without_a_factor_leave_the_others_as_they_are():
    A = np.moveaxis(positive(3), -1, 0)  # (5, 4, 3, 3)
    expected = np.linalg.cholesky(A)
    A[1, 2, 1, 1], A[4, 0] = -1.0, np.diag([1.0, 1e-16, 1e-16])
    expected[1, 2], expected[4, 0] = np.nan, np.linalg.cholesky(A[4, 0])
    np.testing.assert_array_equal(choleskies(A), expected)
    assert choleskies(A[:0]).shape == (0, 4, 3, 3)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_small_matrices_use_one_thread_and_large_ones_what_there_was():
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        with threads_for(MAX_SIZE_OF_ONE_THREAD):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with threads_for(MAX_SIZE_OF_ONE_THREAD + 1):
            assert blas_threads() == before
        assert blas_threads() == before


def test_scattered_columns():
    rng = np.random.default_rng(0)
    places = np.array([rng.permutation(7)[:3] for _ in range(10)])
    values = rng.normal(size=(10, 3))
    expected = np.zeros((7, 10))
    for i in range(10):
        expected[places[i], i] = values[i]
    np.testing.assert_array_equal(scattered(places, values, 7).toarray(), expected)
