"""The gamma function's logarithm, where differences of it would lose digits or cost time.

Source: Abramowitz & Stegun (1964), sections 6.1.40, 6.3.18 and 6.4.11 (Stirling's series and its
derivatives) and 6.4.6 (recurrence).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray
from scipy import special

type Array = NDArray[np.float64]

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
    found = inverse * polyval(inverse * inverse, STIRLING)
    if small.any():
        direct = special.gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * np.log(2 * np.pi)
        found = np.where(small, direct, found)
    return np.asarray(found)


def remainder_slope(x: Any) -> Array:
    """Return the derivative of `remainder`: digamma(x) - log x + 1 / (2 x)."""
    x = np.asarray(x, dtype=np.float64)
    small, inverse = x < LARGE, 1 / np.maximum(x, LARGE)
    t = inverse * inverse
    found = -t * polyval(t, STIRLING * ODD)
    if small.any():
        found = np.where(small, special.digamma(x) - np.log(x) + 0.5 / x, found)
    return np.asarray(found)


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
