"""Covariance of a random-effects term: theta, the relative factor Lambda, sds and correlations.

The k coefficients of a level have the covariance sigma^2 Lambda Lambda', Lambda lower triangular
(Bates et al. 2015, eq. 4). theta holds the free elements of Lambda column by column, for one term
after the other, as lme4 does. A diagonal term (`||`) has the diagonal elements only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array

ZERO = 1e-10  # a diagonal element below this share of its row counts as zero


@dataclass(frozen=True)
class Shape:
    """The pattern of one term's relative factor.

    Attributes
    ----------
    k : int
        Number of coefficients.
    correlated : bool
        A full lower triangle, or a diagonal.
    """

    k: int
    correlated: bool

    @property
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the free elements, in the order of theta."""
        return _places(self.k, self.correlated)

    @property
    def n_theta(self) -> int:
        """The number of free elements."""
        return self.k * (self.k + 1) // 2 if self.correlated else self.k


@cache
def _places(k: int, correlated: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    if not correlated:
        return np.arange(k), np.arange(k)
    columns, rows = np.triu_indices(k)
    return rows, columns


def factors(theta: Array, shapes: Sequence[Shape]) -> list[Array]:
    """Return the relative factor of each term.

    Parameters
    ----------
    theta : ndarray, shape (sum of n_theta,)
    shapes : sequence of Shape

    Returns
    -------
    list of ndarray, shape (k, k)

    Examples
    --------
    >>> factors(np.array([1.0, 0.5, 2.0]), [Shape(2, True)])[0]
    array([[1. , 0. ],
           [0.5, 2. ]])
    """
    found, start = [], 0
    for shape in shapes:
        Lambda = np.zeros((shape.k, shape.k))
        Lambda[shape.places] = theta[start : start + shape.n_theta]
        start += shape.n_theta
        found.append(Lambda)
    return found


def pack(matrices: Sequence[Array], shapes: Sequence[Shape]) -> Array:
    """Return the free elements of one matrix a term as a vector: the inverse of `factors`."""
    parts = [m[s.places] for m, s in zip(matrices, shapes, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0)


def lower_factor(root: Array) -> Array:
    """Return the lower-triangular Lambda with Lambda Lambda' = root root' and diagonal >= 0.

    Works for any rank: where the covariance is singular, diagonal elements are exactly zero.

    Parameters
    ----------
    root : ndarray, shape (k, r)

    Examples
    --------
    >>> lower_factor(np.array([[3.0, 4.0], [3.0, 4.0]]))
    array([[5., 0.],
           [5., 0.]])
    """
    k = len(root)
    Lambda = np.zeros((k, k))
    left = root.copy()
    for j in range(k):  # Householder by rows; a row that is used up leaves a zero diagonal
        length = np.linalg.norm(left[j])
        if length <= ZERO * np.linalg.norm(root[j]):
            left[j] = 0.0
            continue
        direction = left[j] / length
        Lambda[j:, j] = left[j:] @ direction
        left[j:] -= np.outer(Lambda[j:, j], direction)
    return Lambda


def theta_names(
    labels: Sequence[str], coefs: Sequence[Sequence[str]], shapes: Sequence[Shape]
) -> list[str]:
    """Return lme4's names of the elements of theta.

    Examples
    --------
    >>> theta_names(["g"], [["Intercept", "x"]], [Shape(2, True)])
    ['g.Intercept', 'g.x.Intercept', 'g.x']
    """
    names = []
    for label, terms, shape in zip(labels, coefs, shapes, strict=True):
        for i, j in zip(*shape.places, strict=True):
            names.append(f"{label}.{terms[i]}" + (f".{terms[j]}" if i != j else ""))
    return names


def sd_and_corr(cov: Array) -> tuple[Array, Array]:
    """Return standard deviations, shape (k,), and correlations, shape (k, k), of a covariance.

    A correlation with a coefficient of zero variance is not defined: nan.
    """
    sd = np.sqrt(np.diag(cov))
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = cov / np.outer(sd, sd)
    corr[np.diag_indices_from(corr)] = 1.0
    return sd, np.clip(corr, -1.0, 1.0)
