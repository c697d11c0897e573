"""The distributions of positive numbers with a scale sigma: gamma, and inverse Gaussian."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from ranef._typing import Array
from ranef.families.derivatives import (
    MAX_EXPONENT,
    ByPsi,
    Distribution,
    Parts,
    is_positive,
    remainder,
    remainder_slope,
)
from ranef.families.family import MIN_POSITIVE, SIGMA, Family, OwnParameter, PymcForm
from ranef.families.gaussian import gaussian_information
from ranef.families.links import (
    INVERSE,
    INVERSE_SQUARED,
    LOG,
    MAX_SQUARED_EXPONENT,
    POSITIVE_IDENTITY,
    Link,
)


def gamma_parts(y: Array, lam: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in log mu."""
    a, v = w / sigma**2, np.minimum(np.log(y) - lam, MAX_SQUARED_EXPONENT)
    excess = np.expm1(v)
    L = 0.5 * np.log(a / (2 * np.pi)) - remainder(a) - np.log(y) - a * (excess - v)
    return L, a * excess, -a * (excess + 1)


def gamma_others(y: Array, lam: Array, w: Array, sigma: float) -> tuple[Array, list[ByPsi]]:
    """Return L3, and the derivatives in log sigma."""
    a, v = w / sigma**2, np.minimum(np.log(y) - lam, MAX_SQUARED_EXPONENT)
    excess = np.expm1(v)
    value = 2 * a * (remainder_slope(a) + excess - v) - 1
    return a * (excess + 1), [(value, -2 * a * excess, 2 * a * (excess + 1))]


def gamma_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return mu^2."""
    return mu**2


def gamma_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return 2 ((y - mu) / mu - log(y / mu))."""
    return np.asarray(2 * ((y - mu) / mu - np.log(y / mu)))


def gamma_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw positive numbers."""
    a = w / sigma**2
    return np.asarray(np.maximum(rng.gamma(a, mu / a), MIN_POSITIVE))


def gamma_graph(pm: Any, link: Link, eta: Any, w: Array, sigma: Any) -> dict[str, Any]:
    """Return the parameters of PyMC's distribution."""
    a = w / sigma**2
    return {"alpha": a, "beta": a / link.graph(pm, eta)}


def inverse_gaussian_parts(y: Array, lam: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in log mu."""
    tau, v = w / sigma**2, np.minimum(np.log(y) - lam, MAX_SQUARED_EXPONENT)
    excess, ratio = np.expm1(v), np.exp(v)
    L = 0.5 * np.log(tau / (2 * np.pi)) - 1.5 * np.log(y) - 0.5 * (tau / y) * excess**2
    return L, tau / y * excess * ratio, -tau / y * ratio * (2 * ratio - 1)


def inverse_gaussian_others(
    y: Array, lam: Array, w: Array, sigma: float
) -> tuple[Array, list[ByPsi]]:
    """Return L3, and the derivatives in log sigma."""
    tau, v = w / sigma**2, np.minimum(np.log(y) - lam, MAX_SQUARED_EXPONENT)
    excess, ratio = np.expm1(v), np.exp(v)
    of_sigma = (
        tau / y * excess**2 - 1,
        -2 * tau / y * excess * ratio,
        2 * tau / y * ratio * (2 * ratio - 1),
    )
    return tau / y * ratio * (4 * ratio - 1), [of_sigma]


def inverse_gaussian_information(lam: Array, w: Array, sigma: float) -> Array:
    """Return the expected information of log mu."""
    return w / sigma**2 * np.exp(np.minimum(-lam, MAX_EXPONENT))


def inverse_gaussian_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return mu^3."""
    return mu**3


def inverse_gaussian_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return (y - mu)^2 / (mu^2 y)."""
    return (y - mu) ** 2 / (mu**2 * y)


def inverse_gaussian_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw positive numbers.

    By Michael, Schucany & Haas (1976), *The American Statistician* 30, 88-90; the smaller root is
    written without a difference, which would lose its digits where the variance is huge.
    """
    mu, w = np.broadcast_arrays(mu, w)
    r = mu * sigma**2 / w * rng.chisquare(1, mu.shape) / 2
    smaller = mu / (1 + r + np.sqrt(r * (r + 2)))
    takes_smaller = rng.uniform(size=mu.shape) * (mu + smaller) <= mu
    y = np.where(takes_smaller, smaller, mu * (mu / smaller))
    return np.asarray(np.maximum(y, MIN_POSITIVE))


def inverse_gaussian_graph(pm: Any, link: Link, eta: Any, w: Array, sigma: Any) -> dict[str, Any]:
    """Return the parameters of PyMC's distribution."""
    return {"mu": link.graph(pm, eta), "lam": w / sigma**2}


GAMMA_DENSITY = Distribution(
    "GAMMA_DENSITY", Link.log_mean, gamma_parts, gamma_others, gaussian_information, is_positive
)
INVERSE_GAUSSIAN_DENSITY = Distribution(
    "INVERSE_GAUSSIAN_DENSITY",
    Link.log_mean,
    inverse_gaussian_parts,
    inverse_gaussian_others,
    inverse_gaussian_information,
    is_positive,
)

GAMMA_SIGMA = OwnParameter(
    "sigma",
    default=("Exponential", ()),
    elsewhere="that package has one of 1 / sigma^2 instead",
    spread="mean",
)
GAMMA = Family(
    "gamma",
    LOG,
    support="positive",
    parameters=("sigma",),
    variance=gamma_variance,
    deviance=gamma_deviance,
    draw=gamma_draw,
    pymc=PymcForm("Gamma", gamma_graph),
    own_parameters=(GAMMA_SIGMA,),
    links=(LOG, INVERSE, POSITIVE_IDENTITY),
    pins=("log", "inverse"),
    **GAMMA_DENSITY.fields(),
)
"""Positive numbers with coefficient of variation sigma; the shape is w / sigma^2.

The link is the log and not, as in R, the canonical inverse: any eta then has a mean, which random
effects that are normal require, and coefficients are ratios of means.
"""

INVERSE_GAUSSIAN = Family(
    "inverse_gaussian",
    LOG,
    support="positive",
    parameters=("sigma",),
    variance=inverse_gaussian_variance,
    deviance=inverse_gaussian_deviance,
    draw=inverse_gaussian_draw,
    pymc=PymcForm("Wald", inverse_gaussian_graph),
    own_parameters=(replace(GAMMA_SIGMA, default=SIGMA.default),),
    links=(LOG, INVERSE_SQUARED, INVERSE),
    aliases=("wald",),
    pins=("inverse", "inverse_squared"),
    **INVERSE_GAUSSIAN_DENSITY.fields(),
)
"""Positive numbers with variance sigma^2 mu^3 / w. The link is the log, as for `GAMMA`."""
