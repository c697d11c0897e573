"""Log densities of the priors, on the unconstrained scale, with derivatives.

Every free parameter is one coordinate x on the real line with an independent prior, the partial
correlations of an LKJ matrix included. `evaluate` is written so that NumPy runs it on arrays and
Numba compiles it for numbers: the sampler and everything else use the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef.priors.distributions import (
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    StudentT,
    Uniform,
)

type Array = NDArray[np.float64]

# Families of densities; half-normal and normal are one up to a constant, and so on
FLAT, NORMAL, STUDENT_T, GAMMA, INVERSE_GAMMA, LOG_NORMAL, POWER = range(7)
# How the parameter comes from its coordinate
IDENTITY, LOG, LOGIT, TANH = range(4)

TINY, EDGE = 1e-300, 0.05  # nearest to the ends of a range that a coordinate is looked up
NEXT = 1e-15  # as near as floating point comes

LOG_2, LOG_PI, LOG_2PI = math.log(2), math.log(math.pi), math.log(2 * math.pi)


@dataclass(frozen=True)
class Coordinate:
    """The prior of one parameter on the real line.

    Attributes
    ----------
    family, transform : int
    a, b, c : float
        The numbers of the family; for a logit, `b` and `c` are the bounds.
    constant : float
        Logarithm of the normalising constant.
    """

    family: int
    transform: int
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    constant: float = 0.0


def coordinate(prior: Prior, *, positive: bool) -> Coordinate:
    """Return the coordinate of a parameter with this prior.

    Parameters
    ----------
    prior : Prior
        Any record for one number, but `Constant` and `Relative`, which are no densities of it.
    positive : bool
        Whether the parameter is a standard deviation. What is half of a symmetric density, and
        what is positive by itself, gets the logarithm as its coordinate in any case.
    """
    if isinstance(prior, Flat):
        return Coordinate(FLAT, LOG if positive else IDENTITY)
    return _COORDINATES[type(prior)](prior)


def _normal(transform: int, mu: float, sigma: float) -> Coordinate:
    half = LOG_2 if transform == LOG else 0.0
    return Coordinate(NORMAL, transform, mu, sigma, 1.0, half - LOG_2PI / 2 - math.log(sigma))


def _student_t(transform: int, nu: float, mu: float, sigma: float) -> Coordinate:
    gammas = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)
    constant = gammas - (math.log(nu) + LOG_PI) / 2 - math.log(sigma)
    half = LOG_2 if transform == LOG else 0.0
    return Coordinate(STUDENT_T, transform, mu, sigma, nu, half + constant)


def _gamma(family: int, alpha: float, beta: float) -> Coordinate:
    constant = alpha * math.log(beta) - math.lgamma(alpha)
    return Coordinate(family, LOG, alpha, beta, 1.0, constant)


_COORDINATES: dict[type[Prior], Callable[[Any], Coordinate]] = {
    Normal: lambda p: _normal(IDENTITY, p.mu, p.sigma),
    HalfNormal: lambda p: _normal(LOG, 0.0, p.sigma),
    StudentT: lambda p: _student_t(IDENTITY, p.nu, p.mu, p.sigma),
    HalfStudentT: lambda p: _student_t(LOG, p.nu, 0.0, p.sigma),
    HalfCauchy: lambda p: _student_t(LOG, 1.0, 0.0, p.beta),
    Exponential: lambda p: _gamma(GAMMA, 1.0, 1 / p.scale),
    Gamma: lambda p: _gamma(GAMMA, p.alpha, p.beta),
    InverseGamma: lambda p: _gamma(INVERSE_GAMMA, p.alpha, p.beta),
    LogNormal: lambda p: Coordinate(
        LOG_NORMAL, LOG, p.mu, p.sigma, 1.0, -LOG_2PI / 2 - math.log(p.sigma)
    ),
    Uniform: lambda p: Coordinate(FLAT, LOGIT, 0.0, p.lower, p.upper, -math.log(p.upper - p.lower)),
}


def partial_correlation(eta: float, k: int, column: int) -> Coordinate:
    """Return the coordinate of a partial correlation of a k x k LKJ matrix.

    It is Beta(b, b) on (-1, 1), b = eta + (k - 2 - column) / 2 (Lewandowski, Kurowicka & Joe 2009,
    section 2.4). `b` holds the power of 1 - x^2 that is due to the matrix's own density,
    det(R)^(eta - 1), and `a` the rest.
    """
    b = eta + (k - 2 - column) / 2
    constant = -(2 * b - 1) * LOG_2 - float(special.betaln(b, b))
    return Coordinate(POWER, TANH, b - eta, eta - 1, 1.0, constant)


def evaluate(  # noqa: PLR0917 -- Numba knows no keywords
    family: Any, transform: Any, a: Any, b: Any, c: Any, x: Any, is_natural: Any
) -> tuple[Any, Any, Any, Any]:
    """Return a parameter and its log density where its coordinate is x.

    Parameters
    ----------
    family, transform, a, b, c : int and float
        As in `Coordinate`.
    x : float or ndarray
    is_natural : bool
        Whether the density is that of the parameter (of a correlation matrix: of the matrix), as
        for a mode, or that of x.

    Returns
    -------
    value, slope : float or ndarray
        The parameter, and its derivative with respect to x.
    logp, logp_slope : float or ndarray
        Log density without its constant, and the derivative with respect to x.
    """
    if transform == TANH:
        value = np.tanh(0.5 * x)
        slope = 0.5 * (1.0 - value * value)
        # log(1 - value^2), also where value rounds to 1
        log_rest = 2.0 * LOG_2 - np.abs(x) - 2.0 * np.log1p(np.exp(-np.abs(x)))
        power = b if is_natural else a + b + 1.0
        shift = 0.0 if is_natural else LOG_2
        return value, slope, power * log_rest - shift, -power * value
    if transform == LOG:
        value = np.exp(x)
        slope, log_slope, d_log_slope = value, x, 1.0 + 0.0 * x
    elif transform == LOGIT:
        share = 1.0 / (1.0 + np.exp(-x))
        value = b + (c - b) * share
        slope = (c - b) * share * (1.0 - share)
        log_slope = math.log(c - b) - np.abs(x) - 2.0 * np.log1p(np.exp(-np.abs(x)))
        d_log_slope = 1.0 - 2.0 * share
    else:
        value = 1.0 * x
        slope, log_slope, d_log_slope = 1.0 + 0.0 * x, 0.0 * x, 0.0 * x
    logp, d_value = 0.0 * x, 0.0 * x
    if family == NORMAL:
        z = (value - a) / b
        logp, d_value = -0.5 * z * z, -z / b
    elif family == STUDENT_T:
        z = (value - a) / b
        logp = -0.5 * (c + 1.0) * np.log1p(z * z / c)
        d_value = -(c + 1.0) * z / (b * (c + z * z))
    elif family == GAMMA:
        logp, d_value = (a - 1.0) * x - b * value, (a - 1.0) / value - b
    elif family == INVERSE_GAMMA:
        logp, d_value = -(a + 1.0) * x - b / value, -(a + 1.0 - b / value) / value
    elif family == LOG_NORMAL:
        z = (x - a) / b
        logp, d_value = -x - 0.5 * z * z, -(1.0 + z / b) / value
    if is_natural:
        return value, slope, logp, d_value * slope
    return value, slope, logp + log_slope, d_value * slope + d_log_slope


def coordinate_of(found: Coordinate, value: Any, edge: float = EDGE) -> Any:
    """Return x for values of the parameter; what is outside its range is moved inside.

    Parameters
    ----------
    found : Coordinate
    value : float or ndarray
    edge : float
        How near to the ends of a bounded range a value may come, as a share of the range.
    """
    if found.transform == LOG:
        return np.log(np.maximum(value, TINY))
    if found.transform == LOGIT:
        edge = max(edge, NEXT)
        share = np.clip((value - found.b) / (found.c - found.b), edge, 1 - edge)
        return np.log(share / (1 - share))
    if found.transform == TANH:
        return 2 * np.arctanh(np.clip(value, -1 + NEXT, 1 - NEXT))
    return value
