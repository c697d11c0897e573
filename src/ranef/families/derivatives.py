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
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy import special

from ranef._typing import Array

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
    derivatives = [values[REACH]]
    for order, row in enumerate(_stencil(), start=1):
        derivatives.append(np.tensordot(row, values, axes=1) / step**order)
    return derivatives


@cache
def _stencil() -> Array:
    """Return the coefficients of the first three derivatives at unit steps, shape (3, points)."""
    points = np.arange(-REACH, REACH + 1, dtype=np.float64)
    powers = points ** np.arange(len(points))[:, None]  # of Taylor's series, times k!
    wanted = np.zeros((len(points), 3))
    wanted[[1, 2, 3], [0, 1, 2]] = 1.0, 2.0, 6.0
    return np.linalg.solve(powers, wanted).T


BERNOULLI = np.array([1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510])
ODD = 2 * np.arange(len(BERNOULLI)) + 1
STIRLING = BERNOULLI / (ODD * (ODD + 1))  # of x^-1, x^-3, ...
LARGE = 12.0  # from where on the series have all digits
SHIFTS = 9  # recurrences that bring a number above 1 near there


def log_rising(y: Any, k: Any) -> Array:
    """Return log Gamma(k + y) - log Gamma(k) - y log k, which vanishes for large k.

    Examples
    --------
    >>> log_rising(2.0, 1e12).round(15)
    np.float64(1e-12)
    """
    return np.asarray((k + y - 0.5) * np.log1p(y / k) - y + remainder(k + y) - remainder(k))


def log_rising_slope(y: Any, k: Any) -> Array:
    """Return the derivative of `log_rising` in log k."""
    of_remainders = remainder_slope(k + y) - remainder_slope(k)
    return np.asarray(k * np.log1p(y / k) - y + 0.5 * y / (k + y) + k * of_remainders)


def remainder(x: Any) -> Array:
    """Return what Stirling's formula leaves: log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2."""
    x = np.asarray(x, dtype=np.float64)
    small, inverse = x < LARGE, 1 / np.maximum(x, LARGE)
    series = inverse * polyval(inverse * inverse, STIRLING)
    if small.any():
        direct = special.gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * np.log(2 * np.pi)
        series = np.where(small, direct, series)
    return np.asarray(series)


def remainder_slope(x: Any) -> Array:
    """Return the derivative of `remainder`: digamma(x) - log x + 1 / (2 x)."""
    x = np.asarray(x, dtype=np.float64)
    small, inverse = x < LARGE, 1 / np.maximum(x, LARGE)
    t = inverse * inverse
    series = -t * polyval(t, STIRLING * ODD)
    if small.any():
        series = np.where(small, special.digamma(x) - np.log(x) + 0.5 / x, series)
    return np.asarray(series)


def trigamma(x: Array) -> tuple[Array, Array]:
    """Return the second and third derivatives of log Gamma at numbers of 1 or more.

    Examples
    --------
    >>> trigamma(np.array([1.0]))[0].round(6), round(np.pi**2 / 6, 6)
    (array([1.644934]), 1.644934)
    """
    second: Array = np.zeros_like(x)
    third: Array = np.zeros_like(x)
    for j in range(SHIFTS):
        inverse = 1 / (x + j)
        square = inverse * inverse
        second += square
        third += square * inverse
    inverse = 1 / (x + SHIFTS)
    t = inverse * inverse
    second += inverse + t * (0.5 + inverse * polyval(t, BERNOULLI))
    third += 0.5 * t * (1 + inverse + t * polyval(t, BERNOULLI * (ODD + 2)))
    return second, -2 * third
