"""Many small matrices at once: products, Cholesky factors, forward substitution.

A stack has the shape (..., rows, columns, points). Small matrices are handled elementwise, each
operation running along all points; larger ones, from where that is faster, by LAPACK.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import numpy as np
from scipy import sparse
from threadpoolctl import ThreadpoolController

from ranef._typing import Array, Places

MAX_ELEMENTWISE_SIZE = 8  # rows up to which elementwise operations are faster than LAPACK


def gram(A: Array, B: Array) -> Array:
    """Return A' B.

    Examples
    --------
    >>> A = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])  # two points, of 2 x 1 matrices
    >>> gram(A, A)[0, 0]
    array([10., 20.])
    """
    if A.shape[-3] > MAX_ELEMENTWISE_SIZE:
        return _matrices(np.matmul, A.swapaxes(-3, -2), B)
    return np.asarray(np.einsum("...kaq,...kbq->...abq", A, B))


def from_left(Z: Array, A: Array) -> Array:
    """Return Z A, with Z, (N, a, c), the same at all points."""
    N, c, b, points = A.shape
    found = Z @ A.reshape(N, c, b * points)
    return np.asarray(found).reshape(len(Z), Z.shape[1], b, points)


def from_right(A: Array, Z: Array) -> Array:
    """Return A Z', with Z, (N, a, c), the same at all points."""
    return np.asarray(Z[:, None] @ A)


def _matrices(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply one of NumPy's functions of stacks of matrices."""
    return np.moveaxis(function(*(np.moveaxis(A, -1, 0) for A in arrays)), 0, -1)


def cholesky(A: Array) -> Array:
    """Return the lower Cholesky factor, with nan where there is none."""
    size = A.shape[-3]
    if size > MAX_ELEMENTWISE_SIZE:
        return _matrices(choleskies, A)
    L = np.zeros_like(A)
    for j in range(size):
        for i in range(j, size):
            left = A[..., i, j, :] - (L[..., i, :j, :] * L[..., j, :j, :]).sum(axis=-2)
            L[..., i, j, :] = np.sqrt(left) if i == j else left / L[..., j, j, :]
    return L


def choleskies(A: Array) -> Array:
    """Return the lower Cholesky factors of matrices, shape (..., k, k), with nan where is none.

    What one matrix gives does not depend on the others.
    """
    try:
        return np.asarray(np.linalg.cholesky(A))
    except np.linalg.LinAlgError:
        flat = A.reshape(-1, *A.shape[-2:])
        if len(flat) == 1:
            return np.full_like(A, np.nan)
        half = len(flat) // 2  # few are bad, and found by halving
        return np.concatenate([choleskies(flat[:half]), choleskies(flat[half:])]).reshape(A.shape)


def forward(L: Array, right: Array) -> Array:
    """Solve L x = right."""
    size = L.shape[-3]
    if size > MAX_ELEMENTWISE_SIZE:
        return _matrices(np.linalg.solve, L, right)
    found: list[Array] = []
    for i in range(size):
        left = sum(L[..., i, j, None, :] * found[j] for j in range(i))
        found.append((right[..., i, :, :] - left) / L[..., i, i, None, :])
    shape = np.broadcast_shapes(L.shape[:-3], right.shape[:-3])
    if not found:
        return np.zeros((*shape, *right.shape[-3:-1], max(L.shape[-1], right.shape[-1])))
    return np.stack(found, axis=-3)


def eliminated(A: Array) -> tuple[Array, Array]:
    """Return log|A| without its last row and column, and what is left of the last element."""
    L = cholesky(A[..., :-1, :-1, :])
    half = forward(L, A[..., :-1, -1:, :])
    log_det = 2 * np.log(np.einsum("...aaq->a...q", L)).sum(axis=0)
    return log_det, A[..., -1, -1, :] - (half[..., 0, :] ** 2).sum(axis=-2)


MAX_SIZE_OF_ONE_THREAD = 2000  # rows of the largest matrix that one thread factorises


def threads_for(size: int) -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread if the largest matrix is small."""
    return (
        _controller().limit(limits=1, user_api="blas")
        if size <= MAX_SIZE_OF_ONE_THREAD
        else nullcontext()
    )


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


def scattered(places: Places, values: Array, size: int) -> sparse.csr_array:
    """Return the sparse matrix, shape (size, n), whose column i has `values[i]` in `places[i]`.

    Examples
    --------
    >>> scattered(np.array([[0], [2], [0]]), np.array([[1.0], [2.0], [3.0]]), 3).toarray()
    array([[1., 0., 3.],
           [0., 0., 0.],
           [0., 2., 0.]])
    """
    n, each = values.shape
    starts = each * np.arange(n + 1)
    return sparse.csc_array((values.ravel(), places.ravel(), starts), shape=(size, n)).tocsr()
