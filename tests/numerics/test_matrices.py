"""Many small matrices against NumPy, one by one."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ranef.numerics import matrices
from ranef.numerics.matrices import (
    MAX_SIZE_OF_ONE_THREAD,
    ArrowCholesky,
    elementwise_backward,
    elementwise_factor,
    elementwise_forward,
    eliminated,
    from_left,
    from_right,
    gram,
    leading_choleskies,
    lower_blocks,
    lower_cholesky,
    lower_columns,
    lower_inverse,
    orthonormal,
    pointwise_cholesky,
    pointwise_forward,
    scattered,
    single_triangular_solve,
    stack_cholesky,
    stack_cholesky_or_nan,
    stack_solve,
    stack_times,
    summed_by,
    symmetric_eigen,
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
    L = pointwise_cholesky(A)
    np.testing.assert_allclose(each(L), np.linalg.cholesky(each(A)), atol=1e-12)
    np.testing.assert_allclose(
        each(pointwise_forward(L, b)), np.linalg.solve(each(L), each(b)), atol=1e-12
    )
    shared = pointwise_forward(L, b[:1, :, :, :1])
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
    expected = pointwise_cholesky(A)
    A[1, 2, 2, 3] = -1.0
    with np.errstate(invalid="ignore"):
        found = pointwise_cholesky(A)
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
    np.testing.assert_array_equal(stack_cholesky_or_nan(A), expected)
    assert stack_cholesky_or_nan(A[:0]).shape == (0, 4, 3, 3)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def idle(monkeypatch):
    """Set the number of idle cores."""
    return lambda cores: monkeypatch.setattr(matrices, "idle_cores", lambda: cores)


@pytest.mark.parametrize(("set_before", "cores", "expected"), [(2, 8, 2), (2, 1, 1), (1, 8, 1)])
def test_small_matrices_use_one_thread_and_large_ones_idle_cores(idle, set_before, cores, expected):
    idle(cores)
    with threadpool_limits(set_before, "blas"):
        before = blas_threads()
        with threads_for(MAX_SIZE_OF_ONE_THREAD):
            assert set(blas_threads()) == {1}
        assert blas_threads() == before
        with threads_for(MAX_SIZE_OF_ONE_THREAD + 1):
            assert set(blas_threads()) == {expected}
            with threads_for(10):
                assert set(blas_threads()) == {1}
            assert set(blas_threads()) == {expected}
        assert blas_threads() == before


def test_cores_are_idle_unless_others_run(monkeypatch):
    looks = iter(["3/99", "2/99", "4/99", "9/99", "3/99"] + ["50/99"] * matrices.LOOKS)
    monkeypatch.setattr(matrices.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(matrices.time, "sleep", lambda _: None)
    monkeypatch.setattr(matrices.Path, "read_text", lambda *_, **__: f"1.0 1.0 1.0 {next(looks)} 7")
    assert matrices.idle_cores() == 7
    assert matrices.idle_cores() == 1

    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(matrices.Path, "read_text", missing)
    assert matrices.idle_cores() == 8


def test_the_number_of_threads_is_back_after_contexts_of_threads_that_overlap():
    entered, left = threading.Event(), threading.Event()

    def hold():
        with threads_for(10):
            entered.set()
            left.wait(60)

    with threadpool_limits(2, "blas"):
        before = blas_threads()
        first = threading.Thread(target=hold)
        first.start()
        entered.wait(60)
        with threads_for(10):  # left last, though entered last
            left.set()
            first.join()
            assert set(blas_threads()) == {1}
        assert blas_threads() == before


def test_the_number_of_threads_is_back_after_many_contexts_in_no_order():
    def work(seed):
        pause = np.random.default_rng(seed).uniform(0, 1e-3, 30)
        for seconds in pause:
            with threads_for(10), threads_for(5):
                time.sleep(seconds)
                assert set(blas_threads()) == {1}

    def fail():
        with threads_for(10):
            raise ZeroDivisionError

    with threadpool_limits(2, "blas"), ThreadPoolExecutor(8) as pool:
        before = blas_threads()
        list(pool.map(work, range(8)))
        with pytest.raises(ZeroDivisionError):
            pool.submit(fail).result()
        assert blas_threads() == before


def test_scattered_columns():
    rng = np.random.default_rng(0)
    places = np.array([rng.permutation(7)[:3] for _ in range(10)])
    values = rng.normal(size=(10, 3))
    expected = np.zeros((7, 10))
    for i in range(10):
        expected[places[i], i] = values[i]
    np.testing.assert_array_equal(scattered(places, values, 7).toarray(), expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_choleskies_are_those_of_each_matrix_whatever_the_others(size):
    A = each(positive(size))
    A[0, 0], A[1, 2], A[2, 3, 0, 0], A[4, 1] = -A[0, 0], np.nan, np.inf, 1e-20 * np.eye(size)
    found = stack_cholesky_or_nan(A)
    for one, L in zip(A.reshape(-1, size, size), found.reshape(-1, size, size), strict=True):
        exists = np.isfinite(one).all() and one[0, 0] > 0
        expected = np.linalg.cholesky(one) if exists else np.nan
        if np.isfinite(one).all():
            np.testing.assert_allclose(L, np.broadcast_to(expected, L.shape), rtol=1e-14)


def test_a_matrix_that_is_not_positive_definite_has_no_leading_factor():
    A = each(positive(4)).reshape(-1, 4, 4)
    A[1, 0, 0], A[2, 3, 3], A[5] = -1.0, np.nan, np.inf
    before = A.copy()
    L, usable = leading_choleskies(A)
    np.testing.assert_array_equal(np.flatnonzero(~usable), [1, 2, 5])
    np.testing.assert_array_equal(A[~usable], np.broadcast_to(np.eye(4), (3, 4, 4)))
    np.testing.assert_array_equal(L[~usable], np.broadcast_to(np.eye(3), (3, 3, 3)))
    np.testing.assert_array_equal(A[usable], before[usable])
    np.testing.assert_allclose(L[usable], np.linalg.cholesky(before[usable, :3, :3]))
    L, usable = leading_choleskies(np.array([[[2.0]], [[np.nan]]]))
    assert L.shape == (2, 0, 0)
    np.testing.assert_array_equal(usable, [True, False])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_many_symmetric_matrices_have_their_eigenvalues(k):
    rng = np.random.default_rng(k)
    A = rng.normal(size=(50, k, k)) * 10.0 ** rng.integers(-6, 6, 50)[:, None, None]
    A = A + A.swapaxes(1, 2)
    A[0], A[1], A[2] = 0.0, np.diag(np.arange(k)), 1.0
    values, vectors = symmetric_eigen(A)
    expected = np.linalg.eigvalsh(A)
    size = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(np.sort(values) - expected) <= 1e-14 * size).all()
    again = (vectors * values[:, None]) @ vectors.swapaxes(1, 2)
    assert (np.abs(again - A) <= 1e-14 * size[..., None]).all()
    np.testing.assert_allclose(vectors @ vectors.swapaxes(1, 2), [np.eye(k)] * 50, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_factors_and_solutions_of_a_stack_are_those_of_each_matrix(k):
    A, right = each(positive(k))[0], np.random.default_rng(3).normal(size=(k, k))
    R = stack_cholesky(A)
    solved = stack_solve(R, right)
    for one, factor, found in zip(A, R, solved, strict=True):
        np.testing.assert_allclose(factor, np.linalg.cholesky(one))
        np.testing.assert_allclose(found, np.linalg.solve(factor, right))


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_elements_of_factors_and_solutions(k):
    rng = np.random.default_rng(4)
    A, Lambda = rng.normal(size=(5, k, k + 1)), rng.normal(size=(3, k, k))
    D = A @ A.mT
    R, L = elementwise_factor(D, Lambda)
    right = rng.normal(size=(k, 3, 5))
    x, y = elementwise_forward(R, list(right)), elementwise_backward(R, list(right))
    assert len(R) == len(L) == len(x) == len(y) == k
    for point in range(3 if k else 0):
        for level in range(5):
            M = np.eye(k) + Lambda[point].T @ D[level] @ Lambda[point]
            factor, one = np.linalg.cholesky(M), right[:, point, level]
            for i, j in zip(*np.tril_indices(k), strict=True):
                assert R[i][j][point, level] == pytest.approx(factor[i, j])
            np.testing.assert_allclose(factor @ [e[point, level] for e in x], one, atol=1e-12)
            np.testing.assert_allclose(factor.T @ [e[point, level] for e in y], one, atol=1e-12)


def test_sums_by_code():
    codes, x = np.array([1, 0, 1, 1]), stack(2, 3)[..., 0]
    found = summed_by(codes, x)
    np.testing.assert_allclose(found[1], x[0] + x[2] + x[3])
    np.testing.assert_allclose(found[0], x[1])
    assert summed_by(codes, np.empty((4, 0, 3))).shape == (2, 0, 3)


def test_a_stack_times_one_matrix():
    rng = np.random.default_rng(3)
    A = rng.normal(size=(4, 3))
    for shape in ((5, 1, 4), (2, 5, 2, 4), (0, 2, 4)):
        x = rng.normal(size=shape)
        np.testing.assert_allclose(stack_times(x, A), x @ A, atol=1e-14)


@pytest.mark.parametrize("p", [3, matrices.MANY_COLUMNS])
@pytest.mark.parametrize("near", [1.0, 1e-2, 1e-6])
def test_an_orthonormal_basis_of_few_and_many_columns(p, near):
    X = np.random.default_rng(p).normal(size=(200, p)) * np.logspace(-4, 4, p)
    X[:, 1] = X[:, 0] + near * X[:, 1]
    Q, R = orthonormal(X)
    np.testing.assert_allclose(Q.T @ Q, np.eye(p), atol=1e-13)
    np.testing.assert_array_equal(np.tril(R, -1), 0)
    np.testing.assert_allclose(Q @ R, X, rtol=1e-10, atol=1e-14 * np.abs(X).max())
    size = np.linalg.norm(X, axis=0)
    np.testing.assert_allclose(Q @ R / size, X / size, atol=1e-13)


def test_the_triangles_of_a_single_matrix():
    A, right = each(positive(5))[0, 0], np.random.default_rng(5).normal(size=(5, 2))
    given = np.asfortranarray(np.where(np.tri(5, dtype=bool), A, np.nan))
    L = lower_cholesky(given)
    assert np.shares_memory(L, given)
    np.testing.assert_allclose(np.tril(L) @ np.tril(L).T, A)
    whole = np.tril(L)
    np.testing.assert_allclose(whole @ single_triangular_solve(L, right), right)
    np.testing.assert_allclose(whole.T @ single_triangular_solve(L, right, transposed=True), right)
    np.testing.assert_allclose(whole @ single_triangular_solve(L, right[:, 0]), right[:, 0])
    inverse = np.linalg.inv(A)
    found = lower_inverse(L)
    assert not np.shares_memory(found, L)
    np.testing.assert_array_equal(np.tril(L), whole)
    np.testing.assert_allclose(np.tril(found), np.tril(inverse))
    np.testing.assert_allclose(lower_columns(found, slice(1, 4)), inverse[:, 1:4])
    assert np.shares_memory(lower_inverse(L, overwrite=True), L)
    np.testing.assert_allclose(np.tril(L), np.tril(inverse))


def test_blocks_on_the_diagonal_of_a_lower_triangle():
    A = np.arange(36.0).reshape(6, 6)
    A = np.asfortranarray(np.tril(A + A.T))
    blocks = lower_blocks(A, slice(2, 6), 2)
    np.testing.assert_array_equal(blocks, [[[28, 35], [35, 42]], [[56, 63], [63, 70]]])
    assert A[2, 3] == 0
    np.testing.assert_array_equal(lower_blocks(A, slice(2, 6), 2, mirror=True), blocks)
    assert A[2, 3] == 35
    assert A[0, 1] == A[3, 4] == 0


def test_nothing_is_solved_where_there_is_nothing():
    empty = np.empty((0, 0))
    assert lower_cholesky(empty).shape == (0, 0)
    assert lower_inverse(empty).shape == (0, 0)
    assert single_triangular_solve(empty, np.empty((0, 3))).shape == (0, 3)


def test_a_single_matrix_that_is_not_positive_definite_is_an_error():
    with pytest.raises(
        np.linalg.LinAlgError, match=r"^the system matrix is not positive definite$"
    ):
        lower_cholesky(np.diag([1.0, -1.0]))


def test_the_selected_inverse_of_an_arrow():
    """The blocks where the matrices themselves have some, against the whole inverse."""
    rng, (m, k, r) = np.random.default_rng(2), (4, 2, 3)
    q = m * k + r
    root = rng.normal(size=(5, q, q))
    whole = root @ root.swapaxes(1, 2) + q * np.eye(q)
    mask = np.ones((q, q))
    mask[: m * k, : m * k] = np.kron(np.eye(m), np.ones((k, k)))
    whole *= mask
    A = np.stack([whole[:, a : a + k, a : a + k] for a in range(0, m * k, k)], axis=1)
    B, D = whole[:, : m * k, m * k :].reshape(5, m, k, r), whole[:, m * k :, m * k :]
    front, across, rest = ArrowCholesky.of(A, B, D).selected_inverse
    inverse = np.linalg.inv(whole)
    for level in range(m):
        rows = slice(level * k, level * k + k)
        np.testing.assert_allclose(front[:, level], inverse[:, rows, rows], rtol=1e-10)
        np.testing.assert_allclose(across[:, level], inverse[:, rows, m * k :], atol=1e-12)
    np.testing.assert_allclose(rest, inverse[:, m * k :, m * k :], rtol=1e-10)
