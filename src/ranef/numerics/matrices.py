"""Matrices, one or many small ones at once: products, Cholesky factors, substitution.

Many are handled in three forms. `gram`, `from_left`, `from_right` and the *pointwise* functions
take the points last, (..., rows, columns, points): small matrices are handled elementwise, each
operation running along all points; larger ones, from where that is faster, by LAPACK. The functions
of a *stack* take matrices as NumPy does, (..., rows, columns). The *elementwise* functions take a
list of rows of elements, which may be of different shapes. The functions of a *single* matrix call
BLAS and LAPACK directly.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from scipy import sparse
from scipy.linalg import blas, lapack
from threadpoolctl import OpenBLASController, ThreadpoolController

from ranef._typing import Array, Codes, Flags, Places
from ranef.numerics.memory import keep_freed_memory

type Elements = list[list[Array]]

MIN_EIGENVALUE_RATIO = 1e-13  # below which a matrix may have no Cholesky factor
MAX_ELEMENTWISE_SIZE = 8  # rows up to which elementwise operations are faster than LAPACK

keep_freed_memory()


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
    return np.asarray(Z @ A.reshape(N, c, b * points)).reshape(len(Z), Z.shape[1], b, points)


def from_right(A: Array, Z: Array) -> Array:
    """Return A Z', with Z, (N, a, c), the same at all points."""
    return np.asarray(Z[:, None] @ A)


def _matrices(function: Callable[..., Array], *arrays: Array) -> Array:
    """Apply one of NumPy's functions of stacks of matrices."""
    return np.moveaxis(function(*(np.moveaxis(A, -1, 0) for A in arrays)), 0, -1)


def pointwise_cholesky(A: Array) -> Array:
    """Return the lower Cholesky factor, with nan where there is none."""
    size = A.shape[-3]
    if size > MAX_ELEMENTWISE_SIZE:
        return _matrices(stack_cholesky_or_nan, A)
    L, lower = np.zeros_like(A), [[A[..., i, j, :] for j in range(i + 1)] for i in range(size)]
    for i, row in enumerate(elementwise_cholesky(lower)):
        for j, element in enumerate(row):
            L[..., i, j, :] = element
    return L


def stack_cholesky_or_nan(A: Array) -> Array:
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
        L = np.full(flat.shape, np.nan)
        finite = np.flatnonzero(np.isfinite(flat).all((1, 2)))
        values = np.linalg.eigvalsh(flat[finite])
        smallest, rounding = values[:, 0], MIN_EIGENVALUE_RATIO * np.abs(values).max(axis=1)
        regular = finite[smallest > rounding]
        L[regular] = np.linalg.cholesky(flat[regular])
        for place in finite[np.abs(smallest) <= rounding]:
            try:
                L[place] = np.linalg.cholesky(flat[place])
            except np.linalg.LinAlgError:
                continue
        return L.reshape(A.shape)


def stack_forward(L: Array, right: Array) -> Array:
    """Solve L x = right for lower triangular L, shape (..., k, k), and right, (..., k, c)."""
    x = np.empty(right.shape)
    for i in range(L.shape[-1]):
        remaining = right[..., i, :]
        if i:
            remaining = remaining - (L[..., i, None, :i] @ x[..., :i, :])[..., 0, :]
        x[..., i, :] = remaining / L[..., i, i, None]
    return x


def stack_backward(L: Array, right: Array) -> Array:
    """Solve L' x = right for lower triangular L, shape (..., k, k), and right, (..., k, c)."""
    x, k = np.empty(right.shape), L.shape[-1]
    for i in reversed(range(k)):
        remaining = right[..., i, :]
        if i < k - 1:
            remaining = remaining - (L[..., None, i + 1 :, i] @ x[..., i + 1 :, :])[..., 0, :]
        x[..., i, :] = remaining / L[..., i, i, None]
    return x


def stack_inverse(L: Array) -> Array:
    """Return the inverses of lower triangular L, shape (..., k, k)."""
    return stack_forward(L, np.broadcast_to(np.eye(L.shape[-1]), L.shape))


def pointwise_forward(L: Array, right: Array) -> Array:
    """Solve L x = right."""
    size = L.shape[-3]
    if size > MAX_ELEMENTWISE_SIZE:
        return _matrices(np.linalg.solve, L, right)
    if not size:
        shape = np.broadcast_shapes(L.shape[:-3], right.shape[:-3])
        return np.zeros((*shape, *right.shape[-3:-1], max(L.shape[-1], right.shape[-1])))
    lower = [[L[..., i, j, None, :] for j in range(i + 1)] for i in range(size)]
    return np.stack(elementwise_forward(lower, [right[..., i, :, :] for i in range(size)]), axis=-3)


@dataclass(frozen=True, eq=False)
class ArrowCholesky:
    """Cholesky factors of stacked matrices [A B; B' D], A block diagonal; nan where there are none.

    Attributes
    ----------
    front : ndarray, shape (..., m, k, k)
        Of A.
    across : ndarray, shape (..., m, k, r)
        The factors of A, solved for B.
    rest : ndarray, shape (..., r, r)
        The factors of D - B' A^-1 B.
    """

    front: Array
    across: Array
    rest: Array

    @staticmethod
    def of(A: Array, B: Array, D: Array) -> ArrowCholesky:
        """Factorise matrices."""
        front = stack_cholesky_or_nan(A)
        across = stack_forward(front, B)
        flat = across.reshape(*across.shape[:-3], -1, across.shape[-1])
        return ArrowCholesky(front, across, stack_cholesky_or_nan(D - flat.swapaxes(-1, -2) @ flat))

    @cached_property
    def half_log_det(self) -> Array:
        """Half the logarithms of the determinants, shape (...)."""
        of_front = np.log(np.diagonal(self.front, axis1=-2, axis2=-1)).sum((-2, -1))
        return np.asarray(of_front + np.log(np.diagonal(self.rest, axis1=-2, axis2=-1)).sum(-1))

    @property
    def exist(self) -> Flags:
        """Which matrices have a factor, shape (...)."""
        return np.isfinite(self.half_log_det)

    @cached_property
    def selected_inverse(self) -> tuple[Array, Array, Array]:
        """The blocks of the inverses that are where A, B and D are."""
        half, of_rest = stack_inverse(self.front), stack_inverse(self.rest)
        rest = of_rest.swapaxes(-1, -2) @ of_rest
        solved = stack_backward(self.front, self.across)
        across = -solved @ rest[..., None, :, :]
        return half.swapaxes(-1, -2) @ half - across @ solved.swapaxes(-1, -2), across, rest

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
        first = stack_forward(self.front, x[..., : m * k, :].reshape(*lead, m, k, x.shape[-1]))
        first = first.reshape(*lead, m * k, x.shape[-1])
        if not self.rest.shape[-1]:
            return first
        flat = self.across.reshape(*lead, m * k, -1)
        later = x[..., m * k :, :] - flat.swapaxes(-1, -2) @ first
        return np.concatenate([first, stack_forward(self.rest, later)], axis=-2)

    def back(self, z: Array) -> Array:
        """Solve L' x = z for columns z, shape (..., q, c)."""
        *lead, m, k, _ = self.front.shape
        first = z[..., : m * k, :].reshape(*lead, m, k, z.shape[-1])
        if not self.rest.shape[-1]:
            return stack_backward(self.front, first).reshape(*lead, m * k, z.shape[-1])
        later = stack_backward(self.rest, z[..., m * k :, :])
        first = stack_backward(self.front, first - self.across @ later[..., None, :, :])
        return np.concatenate([first.reshape(*lead, m * k, -1), later], axis=-2)


def eliminated(A: Array) -> tuple[Array, Array]:
    """Return log|B| of A = [B b; b' c], and c - b' B^-1 b, the Schur complement."""
    L = pointwise_cholesky(A[..., :-1, :-1, :])
    half = pointwise_forward(L, A[..., :-1, -1:, :])
    log_det = 2 * np.log(np.einsum("...aaq->a...q", L)).sum(axis=0)
    return log_det, A[..., -1, -1, :] - (half[..., 0, :] ** 2).sum(axis=-2)


MAX_SIZE_OF_ONE_THREAD = 2000  # rows of the largest matrix that one thread factorises
LOOKS = 5  # at what else runs, of which the least counts
TIME_BETWEEN_LOOKS = 0.004  # seconds


@contextlib.contextmanager
def threads_for(size: int) -> Iterator[None]:
    """Let BLAS use one thread if the largest matrix is small, else as many as cores are idle.

    Threads that wait for a core spin, and take several times the work of one. The limit holds for
    the process, never raises what was set before, and ends with the last context of all threads.
    """
    limit = 1 if size <= MAX_SIZE_OF_ONE_THREAD else idle_cores()
    _LIMITS.add(limit)
    try:
        yield
    finally:
        _LIMITS.remove(limit)


def idle_cores() -> int:
    """Return the number of cores that nothing but this thread uses, at least one."""
    cores, running = os.cpu_count() or 1, np.inf
    for look in range(LOOKS):
        time.sleep(TIME_BETWEEN_LOOKS * (look > 0))
        try:
            now = Path("/proc/loadavg").read_text(encoding="ascii").split()[3]
        except OSError:  # where nobody says
            return cores
        running = min(running, int(now.split("/")[0]))
    return max(1, cores - max(0, int(running) - 1))


class _Limits:
    """The limits of BLAS threads of all that is under way, the least of which holds."""

    def __init__(self) -> None:
        self._lock, self._limits = Lock(), list[int]()

    @cached_property
    def _libraries(self) -> list[Any]:
        return list(ThreadpoolController().select(user_api="blas").lib_controllers)

    def add(self, limit: int) -> None:
        with self._lock:
            if not self._limits:
                self._before = [library.get_num_threads() for library in self._libraries]
            self._limits.append(limit)
            self._set()

    def remove(self, limit: int) -> None:
        with self._lock:
            self._limits.remove(limit)
            self._set()

    def _set(self) -> None:
        _free_control()
        for library, before in zip(self._libraries, self._before, strict=True):
            library.set_num_threads(min([before, *self._limits]))
        _free_control()


def _free_control() -> None:
    """Let any thread set limits: from threadpoolctl 3.8 on only the first that did so can."""
    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


_LIMITS = _Limits()


def spans(sizes: Iterable[int]) -> list[slice[int, int, None]]:
    """Return where parts of some sizes are that stand one after the other.

    Examples
    --------
    >>> spans([2, 1])
    [slice(0, 2, None), slice(2, 3, None)]
    """
    return [slice(a, b) for a, b in pairwise(accumulate(sizes, initial=0))]


def chunks(stop: int, step: int, start: int = 0) -> Iterator[slice[int, int, None]]:
    """Yield slices of a range, each of which has a number of elements at most.

    Examples
    --------
    >>> list(chunks(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    return (slice(a, min(a + step, stop)) for a in range(start, stop, step))


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


def summed_by(codes: Codes, x: Array) -> Array:
    """Return the sums of the elements of x with the same code, shape (codes, ...).

    Examples
    --------
    >>> summed_by(np.array([1, 0, 1]), np.array([1.0, 2.0, 3.0]))
    array([2., 4.])
    """
    size = int(codes.max()) + 1
    indicator = scattered(codes[:, None], np.ones((len(codes), 1)), size)
    return np.asarray(indicator @ x.reshape(len(x), -1)).reshape(size, *x.shape[1:])


def leading_choleskies(A: Array) -> tuple[Array, Flags]:
    """Return the Cholesky factors of all but the last row and column, and where they exist.

    A matrix that has none, or an element that is not finite, is replaced by the identity, in place.

    Parameters
    ----------
    A : ndarray, shape (points, r + 1, r + 1)
    """
    usable = np.isfinite(A).all(axis=(1, 2))
    if not usable.all():
        A[~usable] = np.eye(A.shape[-1])
    L = stack_cholesky_or_nan(A[:, :-1, :-1])
    usable &= np.isfinite(np.trace(L, axis1=1, axis2=2))
    if not usable.all():
        A[~usable], L[~usable] = np.eye(A.shape[-1]), np.eye(L.shape[-1])
    return L, usable


def symmetric_eigen(A: Array) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors of many symmetric matrices, shape (points, r, r).

    Those of two rows by one rotation (Jacobi), of all matrices at once, and in no order.

    Examples
    --------
    >>> symmetric_eigen(np.array([[[2.0, 1.0], [1.0, 2.0]]]))[0]
    array([[1., 3.]])
    """
    if A.shape[-1] != 2:
        values, vectors = np.linalg.eigh(A)
        return values, vectors
    half, off = (A[:, 1, 1] - A[:, 0, 0]) / 2, A[:, 1, 0]
    tan = off / (half + np.copysign(np.hypot(half, off) + np.finfo(np.float64).tiny, half))
    cos = 1 / np.sqrt(1 + tan * tan)
    values = np.stack([A[:, 0, 0] - tan * off, A[:, 1, 1] + tan * off], axis=-1)
    return values, np.stack([cos, tan * cos, -tan * cos, cos], axis=-1).reshape(A.shape)


# ------------------------------------------------- a stack, all of whose matrices have a factor


def stack_cholesky(A: Array) -> Array:
    """Return the lower Cholesky factor of every matrix of a stack."""
    return np.sqrt(A) if A.shape[-1] == 1 else np.linalg.cholesky(A)


def stack_solve(A: Array, right: Array) -> Array:
    """Solve with every matrix of a stack for one right side."""
    if A.shape[-1] == 1:
        return np.asarray(right / A)
    return np.linalg.solve(A, np.broadcast_to(right, A.shape))


def stack_times(stack: Array, A: Array) -> Array:
    """Return the product of every matrix of a stack with one matrix, as one product of matrices.

    NumPy's `@` calls BLAS once for every matrix of the stack.
    """
    flat = stack.reshape(-1, stack.shape[-1]) @ A
    return np.asarray(flat.reshape(*stack.shape[:-1], A.shape[1]))


# --------------------------------------------------------------------------- a single matrix


def single_triangular_solve(L: Array, right: Array, *, transposed: bool = False) -> Array:
    """Solve with a lower triangle. BLAS, as LAPACK's dtrtrs starts threads for 2 x 2 matrices."""
    if not right.size:
        return np.zeros_like(right)
    if right.ndim == 1:
        return np.asarray(blas.dtrsv(L, right, lower=1, trans=int(transposed)))
    return np.asarray(blas.dtrsm(1.0, L, right, lower=1, trans_a=int(transposed)))


MANY_COLUMNS = 64  # from which on Cholesky factors of products are faster than reflections
MAX_RATIO = 1e3  # of elements on R's diagonal, for columns of one length: products lose 1e6


def orthonormal(X: Array) -> tuple[Array, Array]:
    """Return Q with orthonormal columns and R, upper triangular, with Q R = X of full rank.

    Many columns take two Cholesky factorisations of their products, the second of which repairs
    the rounding of the first.

    References
    ----------
    Yamamoto, Nakatsukasa, Yanagisawa & Fukaya (2015), *Electronic Transactions on Numerical
    Analysis* 44, 306-326.
    """
    n, p = X.shape
    if MANY_COLUMNS <= p <= n:
        with threads_for(p), contextlib.suppress(np.linalg.LinAlgError):
            size = np.linalg.norm(X, axis=0)
            Q, R = X, np.eye(p)
            for scale in (size, np.ones(p)):
                L = np.linalg.cholesky(Q.T @ Q / np.outer(scale, scale))
                if np.ptp(np.log(np.diag(L))) > np.log(MAX_RATIO):
                    raise np.linalg.LinAlgError
                upper = L.T * scale
                Q = blas.dtrsm(1.0, upper, Q, side=1, overwrite_b=Q is not X)
                R = upper @ R
            return Q, R
    Q, R = np.linalg.qr(X)
    return Q, R


# -------------------------------- a single symmetric matrix: its lower triangle in Fortran's order


def lower_cholesky(A: Array) -> Array:
    """Return the lower Cholesky factor of a matrix, in its place, which may be empty."""
    if not len(A):
        return A
    L, failed = lapack.dpotrf(A, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise np.linalg.LinAlgError("the system matrix is not positive definite")
    return np.asarray(L)


def lower_inverse(L: Array, *, overwrite: bool = False) -> Array:
    """Return the lower triangle of the inverse of L L', in the place of L if that may be."""
    return np.asarray(lapack.dpotri(L, lower=1, overwrite_c=overwrite)[0]) if len(L) else L


def lower_columns(A: Array, which: slice) -> Array:
    """Return whole columns of a symmetric matrix from its lower triangle.

    Examples
    --------
    >>> lower_columns(np.array([[1.0, np.nan], [2.0, 3.0]]), slice(1, 2))
    array([[2.],
           [3.]])
    """
    columns = A[:, which].copy()
    columns[: which.start] = A[which, : which.start].T
    own = np.tril(A[which, which])
    columns[which] = own + np.tril(own, -1).T
    return columns


def lower_blocks(A: Array, place: slice, k: int, *, mirror: bool = False) -> Array:
    """Return the k x k blocks on a part of the diagonal, shape (m, k, k), from a lower triangle.

    Parameters
    ----------
    A : ndarray, shape (q, q)
    place : slice
        The part of the diagonal.
    k : int
    mirror : bool
        Whether to fill in the upper triangles of these blocks in A too.
    """
    first = np.arange(place.start, place.stop, k)
    blocks = np.empty((len(first), k, k))
    for a in range(k):
        for b in range(a + 1):
            blocks[:, a, b] = blocks[:, b, a] = A[first + a, first + b]
            if mirror:
                A[first + b, first + a] = blocks[:, a, b]
    return blocks


# ------------------------------------------------------------------------- element by element


def elementwise_cholesky(A: Elements) -> Elements:
    """Return the lower triangle of the Cholesky factor from that of a matrix, nan for none."""
    L: Elements = []
    for i, row in enumerate(A):
        L.append([])
        for j, element in enumerate(row):
            before = sum(L[i][c] * L[j][c] for c in range(j))
            L[i].append(np.sqrt(element - before) if i == j else (element - before) / L[j][j])
    return L


def elementwise_factor(D: Array, Lambda: Array) -> tuple[Elements, Elements]:
    """Return R, lower triangular, with R R' = I + Lambda' D Lambda, and Lambda.

    Parameters
    ----------
    D : ndarray, shape (m, k, k)
    Lambda : ndarray, shape (points, k, k)

    Returns
    -------
    tuple of lists of lists
        The elements of the lower triangle of R, shape (points, m), and of Lambda, (points, 1).
    """
    k = Lambda.shape[-1]
    L = [[Lambda[:, a, i, None] for i in range(k)] for a in range(k)]
    DL = [[sum(D[:, a, b] * L[b][i] for b in range(k)) for i in range(k)] for a in range(k)]
    M = [
        [
            np.asarray(sum(L[a][i] * DL[a][j] for a in range(k)) + float(i == j))
            for j in range(i + 1)
        ]
        for i in range(k)
    ]
    return elementwise_cholesky(M), L


def elementwise_forward(R: Elements, right: Sequence[Array]) -> list[Array]:
    """Solve R x = right."""
    x: list[Array] = []
    for i, r in enumerate(right):
        x.append((r - sum(R[i][c] * x[c] for c in range(i))) / R[i][i])
    return x


def elementwise_backward(R: Elements, right: Sequence[Array]) -> list[Array]:
    """Solve R' x = right."""
    x = list(right)
    for i in reversed(range(len(right))):
        later = sum(R[c][i] * x[c] for c in range(i + 1, len(right)))
        x[i] = (right[i] - later) / R[i][i]
    return x


def read_only(value: object) -> None:
    """Make an array, or all arrays of a tuple, read-only, so that it can be handed out.

    Examples
    --------
    >>> a = np.zeros(2)
    >>> read_only((a,))
    >>> a[0] = 1.0
    Traceback (most recent call last):
    ...
    ValueError: assignment destination is read-only
    """
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, tuple):
        for one in value:
            read_only(one)


@dataclass(frozen=True, eq=False)
class ReadOnly:
    """A record whose arrays cannot be written into."""

    def __post_init__(self) -> None:
        for field in fields(self):
            read_only(getattr(self, field.name))
