"""Lower-triangular factors of a covariance matrix, singular or not, from any square root of it."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ranef._typing import Array

NO_LENGTH = 1e-10  # a diagonal element below this share of its row counts as zero


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
    k, size = root.shape[-2], np.linalg.norm(root, axis=-1)
    Lambda = np.zeros((*root.shape[:-1], k))
    remaining = np.array(root, dtype=np.float64)
    for j in range(k):  # Householder by rows; a row that is used up leaves a zero diagonal
        row = remaining[..., j, :]
        length = np.linalg.norm(row, axis=-1)
        used_up = length <= NO_LENGTH * size[..., j]
        direction = np.where(used_up[..., None], 0.0, row)
        direction /= np.where(used_up, 1.0, length)[..., None]
        column = (remaining[..., j:, :] * direction[..., None, :]).sum(-1)
        Lambda[..., j:, j] = column
        remaining[..., j:, :] -= column[..., None] * direction[..., None, :]
    return Lambda


NO_SD = 1e-7  # a standard deviation, relative to the error of a row, that counts as zero


def canonical(root: Array) -> Array:
    """Return the triangular factor on which the nodes of a quadrature depend; never singular."""
    L = lower_factor(root)
    floor = NO_SD * max(1.0, float(np.abs(L).max(initial=0.0)))
    return np.asarray(L + np.diag(np.where(np.diag(L) < floor, floor, 0.0)))


def by_root(root: Array, L: Array, slope: Array) -> Array:
    """Return the derivative by a root from that by its triangular factor L = root Q.

    Source: Murray (2016), *Differentiation of the Cholesky decomposition*, arXiv:1602.07527,
    section 3.
    """
    P = np.tril(L.T @ np.tril(slope))
    P[np.diag_indices_from(P)] /= 2
    half = linalg.solve_triangular(L, (P + P.T), lower=True, trans="T")
    return np.asarray(half @ linalg.solve_triangular(L, root, lower=True))
