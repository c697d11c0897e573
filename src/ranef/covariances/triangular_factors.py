"""Lower-triangular factors of a covariance matrix, singular or not, from any square root of it."""

from __future__ import annotations

import numpy as np
from scipy import linalg
from scipy.linalg import lapack

from ranef._typing import Array

MIN_RELATIVE_LENGTH = 1e-10  # of what remains of a row; a diagonal element below is zero
MIN_RELATIVE_REMAINDER = 1e-6  # of a row, from where on reflections of columns do as well
MIN_RELATIVE_SD = 1e-7  # relative to the error of a row; a standard deviation below is zero


def lower_factor(root: Array) -> Array:
    """Return the lower-triangular Lambda with Lambda Lambda' = root root' and diagonal >= 0.

    Works for any rank: where the covariance is singular, diagonal elements are exactly zero.

    Parameters
    ----------
    root : ndarray, shape (..., k, r)

    Examples
    --------
    >>> lower_factor(np.array([[3.0, 4.0], [3.0, 4.0]]))
    array([[5., 0.],
           [5., 0.]])
    """
    if root.ndim == 2 and root.shape[1] >= root.shape[0] > 0:
        R = lapack.dgeqrf(root.T)[0][: len(root)]
        diagonal = np.diagonal(R)
        if (abs(diagonal) > MIN_RELATIVE_REMAINDER * abs(root).max(axis=1)).all():
            return np.tril(R.T) * np.sign(diagonal)
    k, size = root.shape[-2], np.linalg.norm(root, axis=-1)
    Lambda = np.zeros((*root.shape[:-1], k))
    remaining = np.array(root, dtype=np.float64)
    for j in range(k):  # Householder by rows; a row that is used up leaves a zero diagonal
        row = remaining[..., j, :]
        length = np.linalg.norm(row, axis=-1)
        used_up = length <= MIN_RELATIVE_LENGTH * size[..., j]
        direction = np.where(used_up[..., None], 0.0, row)
        direction /= np.where(used_up, 1.0, length)[..., None]
        column = (remaining[..., j:, :] * direction[..., None, :]).sum(-1)
        Lambda[..., j:, j] = column
        remaining[..., j:, :] -= column[..., None] * direction[..., None, :]
    return Lambda


def canonical(root: Array) -> Array:
    """Return the triangular factor on which the nodes of a quadrature depend; never singular."""
    L = lower_factor(root)
    floor = MIN_RELATIVE_SD * max(1.0, float(np.abs(L).max(initial=0.0)))
    return np.asarray(L + np.diag(np.where(np.diag(L) < floor, floor, 0.0)))


def by_root(root: Array, L: Array, slope: Array) -> Array:
    """Return the derivative by a root from the one by its triangular factor L = root Q.

    Source: Murray (2016), *Differentiation of the Cholesky decomposition*, arXiv:1602.07527,
    section 3.
    """
    P = np.tril(L.T @ np.tril(slope))
    P[np.diag_indices_from(P)] /= 2
    by_L = linalg.solve_triangular(L, (P + P.T), lower=True, trans="T")
    return np.asarray(by_L @ linalg.solve_triangular(L, root, lower=True))
