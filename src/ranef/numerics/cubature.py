"""Few points with positive weights that integrate polynomials as many points do.

A measure on many points has, for any M functions, a measure on no more than M of the points with
the same integrals. It is found by halving: points are put into 2 M groups, of which each moment is
a mean, and weights move along directions that change no integral until half of the groups have
none.

Source: Tchakaloff (1957), *Bulletin des Sciences Mathématiques* 81, 123-134 (existence); Litterer &
Lyons (2012), *Annals of Applied Probability* 22, 1301-1327 (recombination by groups).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranef._typing import Array, Places
from ranef.numerics.matrices import threads_for

NEGLIGIBLE_DIRECTION = 1e-12  # of the largest element of a direction


def orthonormal(c: Array, weights: Array, degree: int) -> Array:
    """Return orthonormal polynomials of a coordinate that varies, shape (degree + 1, N).

    Parameters
    ----------
    c, weights : ndarray, shape (N,)
        The weights are positive.
    degree : int
    """
    middle, root = (c.max() + c.min()) / 2, np.sqrt(weights)[:, None]
    powers = np.vander((c - middle) / (c.max() - middle), degree + 1, increasing=True)
    return np.ascontiguousarray((np.linalg.qr(root * powers)[0] / root).T)


def products(along: Sequence[Array], degree: int) -> tuple[Array, Places]:
    """Return all products of polynomials along coordinates up to a total degree, and the degrees.

    Parameters
    ----------
    along : sequence of ndarray, shape (<= degree + 1, N)
        For each coordinate polynomials of degree 0, 1, ...
    degree : int

    Returns
    -------
    values : ndarray, shape (N, M)
    degrees : ndarray of int, shape (M,)
    """
    values, degrees = np.ones((1, along[0].shape[1])), np.zeros(1, dtype=np.intp)
    for of_axis in along:
        places, powers = np.nonzero(degrees[:, None] + np.arange(len(of_axis)) <= degree)
        values, degrees = values[places] * of_axis[powers], degrees[places] + powers
    return values.T, degrees


def recombined(values: Array, weights: Array) -> tuple[Places, Array]:
    """Return at most M of the points, and their weights, with the same integrals of M functions.

    Parameters
    ----------
    values : ndarray, shape (N, M)
        The functions at the points, a constant among them.
    weights : ndarray, shape (N,)
        Positive.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 1001)
    >>> places, weights = recombined(np.vander(x, 4), np.full(1001, 1 / 1001))
    >>> len(places), (weights @ x[places] ** 2).round(6)  # (1 + 2 / 1000) / 3
    (4, np.float64(0.334))
    """
    M, kept, weights = values.shape[1], np.arange(len(weights)), weights.copy()
    with threads_for(2 * M):
        while len(kept) > M:
            starts = np.unique(np.linspace(0, len(kept), 2 * M, endpoint=False).astype(np.intp))
            sizes = np.diff(np.append(starts, len(kept)))
            of_groups = np.add.reduceat(weights[kept], starts)
            means = np.add.reduceat(values[kept] * weights[kept, None], starts, axis=0)
            ratios = _vertex(means / of_groups[:, None], of_groups) / of_groups
            weights[kept] *= np.repeat(ratios, sizes)
            kept = kept[np.repeat(ratios > 0, sizes)]
    return kept, weights[kept]


def _vertex(values: Array, weights: Array) -> Array:
    """Return weights, of which at most M are not zero, with the same integrals.

    Along a direction that changes no integral the weights move until one of them is zero; the
    other directions are changed so that it stays there.
    """
    M, weights = values.shape[1], weights.copy()
    directions = np.linalg.qr(values, mode="complete")[0].T[M:].copy()
    for i, direction in enumerate(directions):
        largest = np.abs(direction).max()
        falls = direction > NEGLIGIBLE_DIRECTION * largest
        steps = np.full(len(weights), np.inf)
        steps[falls] = weights[falls] / direction[falls]
        first = int(np.argmin(steps))
        weights = np.maximum(weights - steps[first] * direction, 0.0)
        weights[first] = 0.0
        rest = directions[i + 1 :]
        rest -= np.outer(rest[:, first] / direction[first], direction)
        rest[:, first] = 0.0
    return weights
