"""Small operations on stacks of blocks: one k x k or k x w matrix for each level of a factor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import blas, lapack

from ranef.design.factors import Codes
from ranef.likelihood.linear.crossproducts import SparseRows

type Array = NDArray[np.float64]


def transposed(x: Array) -> Array:
    """Return every matrix of a stack transposed."""
    return x.swapaxes(-1, -2)


def rows_of(x: Array, k: int) -> Array:
    """Return a vector as rows of k."""
    return np.asarray(x).reshape(-1, k)


def dense(C: Array | SparseRows) -> Array:
    """Return the rows of a block as an array, shape (m, k, w)."""
    return C if isinstance(C, np.ndarray) else C.dense()


def diagonal_blocks(x: Array, k: int) -> Array:
    """Return the k x k blocks on the diagonal of a matrix, shape (m, k, k)."""
    m = len(x) // k
    places = np.arange(m)
    return np.asarray(x.reshape(m, k, m, k)[places, :, places, :])


def batched_cholesky(M: Array) -> Array:
    """Return the Cholesky factor of every matrix of a stack."""
    return np.sqrt(M) if M.shape[-1] == 1 else np.linalg.cholesky(M)


def batched_solve(R: Array, right: Array) -> Array:
    """Solve with every matrix of a stack for one right side."""
    if R.shape[-1] == 1:
        return np.asarray(right / R)
    return np.linalg.solve(R, np.broadcast_to(right, R.shape))


def summed(parent: Codes, x: Array) -> Array:
    """Sum over the children of each level of the parent."""
    m = int(parent.max()) + 1
    indicator = sparse.csr_array(
        (np.ones(len(parent)), (parent, np.arange(len(parent)))), shape=(m, len(parent))
    )
    return np.asarray(indicator @ x.reshape(len(x), -1)).reshape(m, *x.shape[1:])


def summed_rows(parent: Codes, YB: Array, C: Array | SparseRows) -> Array:
    """Return the sum of (Y B)_l' C_l over the children of each level, shape (m', f - k, w)."""
    if isinstance(C, np.ndarray):
        return summed(parent, transposed(YB) @ C)
    m, k, f = YB.shape
    rows = np.broadcast_to((parent[:, None] * f + np.arange(f))[:, None], YB.shape)
    columns = np.broadcast_to(np.arange(m * k).reshape(m, k, 1), YB.shape)
    shape = ((int(parent.max()) + 1) * f, m * k)
    weights = sparse.csr_array((YB.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
    return np.asarray((weights @ C.rows).toarray()).reshape(-1, f, C.rows.shape[1])


def cholesky(M: Array) -> Array:
    """Return the lower Cholesky factor of a matrix, which may be empty."""
    if not len(M):
        return M
    L, failed = lapack.dpotrf(M, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError("the system matrix is not positive definite")
    return np.asarray(L)


def triangular_solve(L: Array, right: Array, *, transposed: bool = False) -> Array:
    """Solve with a lower triangle. BLAS, as LAPACK's dtrtrs starts threads for 2 x 2 matrices."""
    if not right.size:
        return np.zeros_like(right)
    if right.ndim == 1:
        return np.asarray(blas.dtrsv(L, right, lower=1, trans=int(transposed)))
    return np.asarray(blas.dtrsm(1.0, L, right, lower=1, trans_a=int(transposed)))


def inverse(L: Array, size: int) -> Array:
    """Return the inverse of the first `size` rows and columns of L L', shape (size, size)."""
    if not size:
        return np.empty((0, 0))
    inverse, _ = lapack.dpotri(L[:size, :size], lower=1)  # with zeros above the diagonal
    diagonal = np.diag(inverse).copy()
    inverse = inverse + inverse.T
    inverse[np.diag_indices(size)] = diagonal
    return np.asarray(inverse)
