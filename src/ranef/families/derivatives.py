"""The log density of a row as a function of its linear predictor: value, slope and curvatures.

What an engine needs of a response distribution is how log f(y | eta, psi) changes with eta, up to
the third derivative, and with the logarithms of the distribution's own parameters psi (a scale, a
shape). Distributions that are known have these in closed form; for any other they come from
central differences of a high order, which keep ten digits of a slope and eight of a third
derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

type Array = NDArray[np.float64]

REACH = 4  # points on either side
STEP = 0.015  # of a linear predictor
PSI_STEP = 1e-3  # of the logarithm of a parameter


@dataclass(frozen=True, eq=False)
class Expansion:
    """log f and its first two derivatives, arrays of the shape of eta.

    Attributes
    ----------
    value : ndarray
        log f(y | eta), with all constants.
    score : ndarray
        The derivative with respect to eta.
    weight : ndarray
        Minus the second derivative: the observed information of eta. Can be negative.
    """

    value: Array
    score: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class Further:
    """The derivatives that the gradient of an integral over random effects needs besides.

    Attributes
    ----------
    third : ndarray
        The derivative of `Expansion.weight` with respect to eta: minus the third derivative of
        log f.
    value, score, weight : ndarray, shape (r, ...)
        The derivatives of the parts of the `Expansion` with respect to the logarithm of each of
        the r parameters of the distribution.
    """

    third: Array
    value: Array
    score: Array
    weight: Array


def differenced(log_density: Callable[[Array], Array], eta: Array, step: Array) -> list[Array]:
    """Return a function of eta, elementwise, and its first three derivatives, by differences."""
    values = np.stack([log_density(eta + k * step) for k in range(-REACH, REACH + 1)])
    found = [values[REACH]]
    for order, row in enumerate(_stencil(), start=1):
        found.append(np.tensordot(row, values, axes=1) / step**order)
    return found


@cache
def _stencil() -> Array:
    """Return the coefficients of the first three derivatives at unit steps, shape (3, points)."""
    points = np.arange(-REACH, REACH + 1, dtype=np.float64)
    powers = points ** np.arange(len(points))[:, None]  # of Taylor's series, times k!
    wanted = np.zeros((len(points), 3))
    wanted[[1, 2, 3], [0, 1, 2]] = 1.0, 2.0, 6.0
    return np.linalg.solve(powers, wanted).T
