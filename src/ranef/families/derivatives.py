"""The log density of a row as a function of its linear predictor: value, slope and curvatures.

An engine needs the derivatives of log f(y | eta, psi) in eta, up to the third, and in the links of
the distribution's own parameters psi, such as the logarithm of a scale or a shape. The families of
the package have them in closed form; for any other they come from central differences of a high
order, which keep ten digits of a slope and eight of a third derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial.polynomial import polyval
from scipy import special

from ranef._typing import Array, Flags

if TYPE_CHECKING:
    from ranef.families.links import Curve, Link

type Parts = tuple[Array, Array, Array]  # L, L1, L2
type ByPsi = tuple[Array, Array, Array]  # derivatives of L, L1 and L2 in the link of one psi

MIN_MEAN = 5e-324  # the smallest number that has a logarithm
MAX_EXPONENT = 700.0  # of e: exp of it, and of minus it, is a number
STENCIL_REACH = 4  # points on either side of a difference
ETA_STEP = 0.015  # of a linear predictor
LINKED_PSI_STEP = 1e-3  # of the link of a parameter


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

    def plus(self, constant: Array) -> Expansion:
        """Return the expansion of this log density and a constant."""
        return replace(self, value=with_constant(self.value, constant))


def with_constant(value: Array, constant: Array) -> Array:
    """Return log densities and the constant that was kept apart, which is one zero if none was."""
    return value if constant.ndim == 0 and not constant else np.asarray(value + constant)


@dataclass(frozen=True)
class Apart:
    """An expansion whose constant is computed apart, once for many linear predictors.

    Attributes
    ----------
    kernel : callable (link, y, eta, w, psi)
        The expansion without the constant.
    constant : callable (y, w)
        The part of log f that is of the response and its weight alone.
    value : callable (link, y, eta, w, psi), optional
        The value of the kernel, where it is quicker to have without derivatives.
    of_means : bool
        Whether the kernels of responses with one linear predictor add up to that of their weighted
        mean, with the sum of their weights, but for a constant.
    """

    kernel: Callable[..., Expansion]
    constant: Callable[[Array, Array], Array]
    value: Callable[..., Array] | None = None
    of_means: bool = False

    def __call__(self, link: Any, y: Array, eta: Array, w: Array, psi: Any) -> Expansion:
        """Return the whole expansion."""
        return self.kernel(link, y, eta, w, psi).plus(self.constant(y, w))


@dataclass(frozen=True, eq=False)
class Further:
    """The higher derivatives of log f, which the gradient of an integral over effects needs.

    Attributes
    ----------
    third : ndarray
        The derivative of `Expansion.weight` with respect to eta: minus the third derivative of
        log f.
    value, score, weight : ndarray, shape (r, ...)
        The derivatives of the parts of the `Expansion` with respect to the link of each of the r
        parameters of the distribution.
    """

    third: Array
    value: Array
    score: Array
    weight: Array


@dataclass(frozen=True, eq=False)
class Distribution:
    """A distribution that is written in one function x of eta: mu or log mu.

    Attributes
    ----------
    name : str
        Of the constant that holds the distribution, in the file of its functions.
    inner : callable (link, eta)
        The curve of x.
    parts : callable (y, x, w, *psi)
        L, L1 and L2.
    others : callable (y, x, w, *psi)
        L3, and for each of psi the derivatives of L, L1 and L2 in its link.
    information : callable (x, w, *psi)
        The expected information of x.
    supported : callable (y), optional
        Which responses are possible, if not all are.
    constant : callable (y, w), optional
        The part of L that is of the response and its weight alone; `parts` leaves it out.
    is_normal : bool
        Whether this is the normal distribution of mean x.
    of_means : bool
        As of `Apart`.
    """

    name: str
    inner: Callable[[Link, Array], Curve]
    parts: Callable[..., Parts]
    others: Callable[..., tuple[Array, list[ByPsi]]]
    information: Callable[..., Array]
    supported: Callable[[Array], Flags] | None = None
    is_normal: bool = False
    constant: Callable[[Array, Array], Array] | None = None
    of_means: bool = False

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        """Travel to other processes by name: a family is known by its distribution."""
        return resolve_name, (f"{self.parts.__module__}:{self.name}",)

    def fields(self) -> dict[str, Any]:
        """Return the fields of a family that say this distribution in closed form."""
        expand: Any = self.expand
        if self.constant is not None:
            expand = Apart(self.expand, self.constant, of_means=self.of_means)
        return {
            "log_density": self.density,
            "expand": expand,
            "further": self.further,
            "expected": self.expected,
        }

    def density(self, y: Array, mu: Array, w: Array, *psi: Any) -> Array:
        """Return the log density, -inf outside of the support."""
        if self.supported is None:
            return self.parts(y, mu, w, *psi)[0]
        with np.errstate(all="ignore"):
            L = self.parts(y, np.log(np.maximum(mu, MIN_MEAN)), w, *psi)[0]
            L = L if self.constant is None else L + self.constant(y, w)
        return np.where(self.supported(y) & (mu >= 0), L, -np.inf)

    def expand(self, link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:
        """Return the log density, without a constant that is apart, and its derivatives in eta."""
        x, first, second, _ = self.inner(link, eta)
        L, L1, L2 = self.parts(y, x, w, *psi)
        return Expansion(L, L1 * first, -(L2 * (first * first) + L1 * second))

    def further(self, link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:
        """Return the higher derivatives."""
        x, first, second, third = self.inner(link, eta)
        _, L1, L2 = self.parts(y, x, w, *psi)
        L3, by_psi = self.others(y, x, w, *psi)
        square = first * first
        of_weight = -(L3 * (square * first) + 3 * L2 * (first * second) + L1 * third)
        in_eta = [(l, l1 * first, -(l2 * square + l1 * second)) for l, l1, l2 in by_psi]
        return stacked(of_weight, in_eta)

    def expected(self, link: Link, eta: Array, w: Array, psi: Array) -> Array:
        """Return the expected information of eta."""
        with np.errstate(all="ignore"):  # a mean of zero may be inside, as under the root
            x, first, _, _ = self.inner(link, eta)
            return self.information(x, w, *psi) * (first * first)


def is_count(y: Array) -> Flags:
    """Return whether numbers are 0, 1, 2 and so on."""
    return np.asarray((y >= 0) & (y == np.floor(y)))


def is_positive(y: Array) -> Flags:
    """Return whether numbers are above 0."""
    return np.asarray(y > 0)


def stacked(third: Array, by_psi: list[ByPsi]) -> Further:
    """Return the third derivative with the derivatives in the link of each psi, stacked."""
    value, score, weight = np.empty((3, len(by_psi), *third.shape))
    for j, derivatives in enumerate(by_psi):
        value[j], score[j], weight[j] = derivatives
    return Further(third, value, score, weight)


def differenced(function: Callable[[Array], Array], eta: Array, step: Array) -> list[Array]:
    """Return a function of eta, elementwise, and its first three derivatives, by differences."""
    places = np.arange(-STENCIL_REACH, STENCIL_REACH + 1).reshape(-1, *[1] * np.ndim(eta + step))
    values = function(eta + places * step)
    derivatives = [values[STENCIL_REACH]]
    for order, row in enumerate(_stencil(), start=1):
        derivatives.append(np.tensordot(row, values, axes=1) / step**order)
    return derivatives


def slopes_of(function: Callable[[Array], Array], linked: Array) -> Array:
    """Return the derivatives of a function of r numbers by each of them, shape (r, ...)."""
    slopes = []
    for j in range(len(linked)):
        moved = np.repeat(linked[None], 4, axis=0)
        for at, steps in zip(moved, (-2, -1, 1, 2), strict=True):
            at[j] += steps * LINKED_PSI_STEP
        down2, down, up, up2 = map(function, moved)
        slopes.append((8 * (up - down) - (up2 - down2)) / (12 * LINKED_PSI_STEP))
    return np.array(slopes)


@cache
def _stencil() -> Array:
    """Return the coefficients of the first three derivatives at unit steps, shape (3, points)."""
    points = np.arange(-STENCIL_REACH, STENCIL_REACH + 1, dtype=np.float64)
    powers = points ** np.arange(len(points))[:, None]  # of Taylor's series, times k!
    orders = np.zeros((len(points), 3))
    orders[[1, 2, 3], [0, 1, 2]] = 1.0, 2.0, 6.0
    return np.linalg.solve(powers, orders).T


BERNOULLI_NUMBERS = np.array(
    [1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510]
)
ODD_NUMBERS = 2 * np.arange(len(BERNOULLI_NUMBERS)) + 1
STIRLING_SERIES = BERNOULLI_NUMBERS / (ODD_NUMBERS * (ODD_NUMBERS + 1))  # of x^-1, x^-3, ...
MIN_SERIES_ARGUMENT = 12.0  # from where on the series have all digits
TRIGAMMA_SHIFTS = 9  # recurrences that bring a number above 1 near there


def divergence(y: Array, log_mu: Array) -> Array:
    """Return y log(y / mu) - y + mu, for y = 0 too, with all digits where mu is near y.

    Log densities of counts are this, less a constant: so they keep their digits where counts are
    large, of which y log mu would leave few.

    Examples
    --------
    >>> y = np.array([0.0, 1e12])
    >>> divergence(y, np.log([2.0, 1e12 + 1e6])).round(3)
    array([2. , 0.5])
    """
    is_zero = y == 0
    log_mu = np.minimum(log_mu, MAX_EXPONENT)
    v = log_mu - np.log(np.where(is_zero, 1.0, y))
    return np.where(is_zero, np.exp(log_mu), y * (np.expm1(v) - v))


def log_poisson_at_mean(y: Array) -> Array:
    """Return the log density of a Poisson response at a mean that is the response itself.

    By Stirling's formula, without a difference of large numbers. So for the binomial distribution,
    log f(k | n, k / n) is that of k plus that of n - k less that of n.

    Source: Loader (2000), *Fast and Accurate Computation of Binomial Probabilities*.
    """
    some = np.where(y == 0, 1.0, y)
    return np.where(y == 0, 0.0, -0.5 * np.log(2 * np.pi * some) - remainder(some))


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
    """Return log Gamma(x) - (x - 1/2) log x + x - log(2 pi) / 2, the rest of Stirling's formula."""
    x = np.asarray(x, dtype=np.float64)
    small, inverse = x < MIN_SERIES_ARGUMENT, 1 / np.maximum(x, MIN_SERIES_ARGUMENT)
    series = inverse * polyval(inverse * inverse, STIRLING_SERIES)
    if small.any():
        direct = special.gammaln(x) - (x - 0.5) * np.log(x) + x - 0.5 * np.log(2 * np.pi)
        series = np.where(small, direct, series)
    return np.asarray(series)


def remainder_slope(x: Any) -> Array:
    """Return the derivative of `remainder`: digamma(x) - log x + 1 / (2 x)."""
    x = np.asarray(x, dtype=np.float64)
    small, inverse = x < MIN_SERIES_ARGUMENT, 1 / np.maximum(x, MIN_SERIES_ARGUMENT)
    t = inverse * inverse
    series = -t * polyval(t, STIRLING_SERIES * ODD_NUMBERS)
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
    for j in range(TRIGAMMA_SHIFTS):
        inverse = 1 / (x + j)
        square = inverse * inverse
        second += square
        third += square * inverse
    inverse = 1 / (x + TRIGAMMA_SHIFTS)
    t = inverse * inverse
    second += inverse + t * (0.5 + inverse * polyval(t, BERNOULLI_NUMBERS))
    third += 0.5 * t * (1 + inverse + t * polyval(t, BERNOULLI_NUMBERS * (ODD_NUMBERS + 2)))
    return second, -2 * third
