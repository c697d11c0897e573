"""Many small matrices at once: products, Cholesky factors, forward substitution.

A stack has the shape (..., rows, columns, points). Small matrices are handled elementwise, each
operation running along all points; larger ones, from where that is faster, by LAPACK.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy import sparse
from threadpoolctl import ThreadpoolController

from ranef._typing import Array, Flags, Places

NEARLY_SINGULAR = 1e-13  # ratio of eigenvalues from which on a matrix may have no Cholesky factor
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

    What one matrix gives does not depend on the others: those that are nearly singular are tried
    one by one.
    """
    if A.shape[-1] == 1:
        return np.sqrt(np.where(A > 0, A, np.nan))
    try:
        return np.asarray(np.linalg.cholesky(A))
    except np.linalg.LinAlgError:
        flat = A.reshape(-1, *A.shape[-2:])
        found = np.full(flat.shape, np.nan)
        finite = np.flatnonzero(np.isfinite(flat).all((1, 2)))
        values = np.linalg.eigvalsh(flat[finite])
        least, noise = values[:, 0], NEARLY_SINGULAR * np.abs(values).max(axis=1)
        sure = finite[least > noise]
        found[sure] = np.linalg.cholesky(flat[sure])
        for place in finite[np.abs(least) <= noise]:
            try:
                found[place] = np.linalg.cholesky(flat[place])
            except np.linalg.LinAlgError:
                continue
        return found.reshape(A.shape)


def forward_substituted(L: Array, right: Array) -> Array:
    """Solve L x = right for lower triangular L, shape (..., k, k), and right, (..., k, c)."""
    x = np.empty(right.shape)
    for i in range(L.shape[-1]):
        left = right[..., i, :]
        if i:
            left = left - (L[..., i, None, :i] @ x[..., :i, :])[..., 0, :]
        x[..., i, :] = left / L[..., i, i, None]
    return x


def back_substituted(L: Array, right: Array) -> Array:
    """Solve L' x = right for lower triangular L, shape (..., k, k), and right, (..., k, c)."""
    x, k = np.empty(right.shape), L.shape[-1]
    for i in reversed(range(k)):
        left = right[..., i, :]
        if i < k - 1:
            left = left - (L[..., None, i + 1 :, i] @ x[..., i + 1 :, :])[..., 0, :]
        x[..., i, :] = left / L[..., i, i, None]
    return x


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


@dataclass(frozen=True, eq=False)
class ArrowCholesky:
    """Cholesky factors of stacked matrices [A B; B' D], A block diagonal; nan where there are none.

    Attributes
    ----------
    front : ndarray, shape (..., m, k, k)
        Of A.
    across : ndarray, shape (..., m, k, r)
        Those of A, solved for B.
    rest : ndarray, shape (..., r, r)
        Of D without what A takes.
    """

    front: Array
    across: Array
    rest: Array

    @staticmethod
    def of(A: Array, B: Array, D: Array) -> ArrowCholesky:
        """Factorise matrices."""
        front = choleskies(A)
        across = forward_substituted(front, B)
        flat = across.reshape(*across.shape[:-3], -1, across.shape[-1])
        return ArrowCholesky(front, across, choleskies(D - flat.swapaxes(-1, -2) @ flat))

    @cached_property
    def half_log_det(self) -> Array:
        """Half the logarithms of the determinants, shape (...)."""
        found = np.log(np.diagonal(self.front, axis1=-2, axis2=-1)).sum((-2, -1))
        return np.asarray(found + np.log(np.diagonal(self.rest, axis1=-2, axis2=-1)).sum(-1))

    @property
    def exist(self) -> Flags:
        """Which matrices have a factor, shape (...)."""
        return np.isfinite(self.half_log_det)

    def where(self, chosen: Flags, other: ArrowCholesky) -> ArrowCholesky:
        """Return these factors where they are chosen, and else the others."""
        return ArrowCholesky(
            np.where(chosen[..., None, None, None], self.front, other.front),
            np.where(chosen[..., None, None, None], self.across, other.across),
            np.where(chosen[..., None, None], self.rest, other.rest),
        )

    def forward(self, x: Array) -> Array:
        """Solve L z = x for columns x, shape (..., q, c)."""
        *lead, m, k, _ = self.front.shape
        first = forward_substituted(self.front, x[..., : m * k, :].reshape(*lead, m, k, -1))
        first = first.reshape(*lead, m * k, -1)
        if not self.rest.shape[-1]:
            return first
        flat = self.across.reshape(*lead, m * k, -1)
        later = x[..., m * k :, :] - flat.swapaxes(-1, -2) @ first
        return np.concatenate([first, forward_substituted(self.rest, later)], axis=-2)

    def back(self, z: Array) -> Array:
        """Solve L' x = z for columns z, shape (..., q, c)."""
        *lead, m, k, _ = self.front.shape
        first = z[..., : m * k, :].reshape(*lead, m, k, -1)
        if not self.rest.shape[-1]:
            return back_substituted(self.front, first).reshape(*lead, m * k, -1)
        later = back_substituted(self.rest, z[..., m * k :, :])
        first = back_substituted(self.front, first - self.across @ later[..., None, :, :])
        return np.concatenate([first.reshape(*lead, m * k, -1), later], axis=-2)


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
