"""Correlation matrices by their partial correlations: one number for every pair of coefficients.

The partial correlation of coefficients r and c < r is taken given all coefficients before c. Any
numbers between -1 and 1 are the partial correlations of one correlation matrix. They stand row by
row, (1, 0), (2, 0), (2, 1), ..., and there can be many points, along leading axes.

Source: Lewandowski, Kurowicka & Joe (2009), *Journal of Multivariate Analysis* 100, section 2.4.
"""

from __future__ import annotations

import numpy as np

from ranef._typing import Array

MIN_REMAINDER = np.finfo(np.float64).tiny  # of 1 - p^2, by which is divided
DIAGONAL_JITTER = 1e-14  # added to a correlation matrix whose Cholesky factor is taken


def unit_factor(partial: Array, k: int) -> Array:
    """Return the Cholesky factor of a correlation matrix from its partial correlations.

    Parameters
    ----------
    partial : ndarray, shape (..., k (k - 1) / 2)

    Returns
    -------
    ndarray, shape (..., k, k)
    """
    U = np.zeros((*partial.shape[:-1], k, k))
    pair = 0
    for r in range(k):
        length = np.ones(partial.shape[:-1])  # of the rest of the row
        for c in range(r):
            U[..., r, c] = partial[..., pair] * length
            length = length * np.sqrt(np.maximum(1.0 - partial[..., pair] ** 2, 0.0))
            pair += 1
        U[..., r, r] = length
    return U


def partial_slopes(slope: Array, U: Array, partial: Array) -> Array:
    """Return the derivative by the partial correlations from the one by the unit factor U.

    A row of U is (p_1, p_2 s_1, p_3 s_1 s_2, ..., s_1 s_2 ...), s_i = sqrt(1 - p_i^2).

    Parameters
    ----------
    slope, U : ndarray, shape (..., k, k)
    partial : ndarray, shape (..., k (k - 1) / 2)
    """
    by_partial = np.zeros(partial.shape)
    pair = 0
    for r in range(1, U.shape[-1]):
        ahead = slope[..., r, r] * U[..., r, r]
        for c in range(r - 1, -1, -1):
            p, u = partial[..., pair + c], U[..., r, c]
            remainder = np.maximum(1.0 - p * p, MIN_REMAINDER)  # where it is zero, so is `ahead`
            before = np.sqrt(np.maximum(0.0, 1.0 - (U[..., r, :c] ** 2).sum(-1)))
            by_partial[..., pair + c] = slope[..., r, c] * before - ahead * p / remainder
            ahead = ahead + slope[..., r, c] * u
        pair += r
    return by_partial


def partial_correlations(corr: Array) -> Array:
    """Return the partial correlations, shape (..., k (k - 1) / 2), of correlation matrices."""
    k = corr.shape[-1]
    U = cholesky_of_correlations(corr)
    columns, lengths = [], np.ones(U.shape[:-1])  # of the rest of each row
    for c in range(k - 1):
        ratio = np.clip(U[..., c] / lengths, -1.0, 1.0)
        columns.append(ratio)
        lengths = lengths * np.sqrt(np.maximum(1.0 - ratio**2, MIN_REMAINDER))
    pairs = [columns[c][..., r] for r in range(1, k) for c in range(r)]
    return np.stack(pairs, axis=-1) if pairs else np.empty((*corr.shape[:-2], 0))


def cholesky_of_correlations(corr: Array) -> Array:
    """Return Cholesky factors, shape (..., k, k), of correlations that may round to one."""
    return np.linalg.cholesky(corr + DIAGONAL_JITTER * np.eye(corr.shape[-1]))


def correlations(U: Array) -> Array:
    """Return U U' with a diagonal of exactly one, shape (..., k, k), from U of k rows."""
    corr = U @ U.swapaxes(-1, -2)
    corr[..., np.arange(U.shape[-2]), np.arange(U.shape[-2])] = 1.0
    return np.clip(corr, -1.0, 1.0)
