"""The beta distribution of numbers between 0 and 1, by its mean and its precision phi."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import special

from ranef._typing import Array
from ranef.families.derivatives import Expansion, Further, stacked, trigamma
from ranef.families.family import (
    MAX_PROPORTION,
    MIN_POSITIVE,
    Family,
    OwnParameter,
    PymcForm,
    inside,
)
from ranef.families.links import CLOGLOG, LOGIT, PROBIT, Curve, Link


def beta_density(y: Array, mu: Array, w: Array, phi: Any) -> Array:
    """Return the log density of a proportion, by its mean and precision, times w."""
    with np.errstate(all="ignore"):
        first, second = mu * phi, (1 - mu) * phi
        L = special.xlogy(first - 1, y) + special.xlog1py(second - 1, -y)
        L = w * (L - special.betaln(first, second))
    return np.where((y > 0) & (y < 1) & (mu > 0) & (mu < 1), L, -np.inf)


def beta_expand(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:
    """Return the expansion of the beta distribution."""
    (A, A1, A2, _), (B, B1, B2, _) = link.log_chances(eta)
    (phi,) = psi
    T, U = _beta_side(np.log(y), A, phi), _beta_side(np.log1p(-y), B, phi)
    constant = special.gammaln(phi) - np.log(y) - np.log1p(-y)
    return Expansion(
        w * (T[0] + U[0] + constant),
        w * (T[1] * A1 + U[1] * B1),
        -w * (T[2] * A1 * A1 + T[1] * A2 + U[2] * B1 * B1 + U[1] * B2),
    )


def beta_further(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:
    """Return the higher derivatives of the beta distribution."""
    (phi,) = psi
    third: Array = np.zeros_like(eta)
    value = phi * special.digamma(phi)
    score, weight = np.zeros_like(eta), np.zeros_like(eta)
    sides = zip((np.log(y), np.log1p(-y)), link.log_chances(eta), strict=True)
    for log_y, (A, A1, A2, A3) in sides:
        _, T1, T2, T3 = _beta_side(log_y, A, phi)
        third = third - (T3 * A1 * A1 * A1 + 3 * T2 * A1 * A2 + T1 * A3)
        value = value + T1
        score = score + T2 * A1
        weight = weight - (T3 * A1 * A1 + T2 * A2)
    return stacked(w * third, [(w * value, w * score, w * weight)])


def beta_expected(link: Link, eta: Array, w: Array, psi: Array) -> Array:
    """Return the expected information of eta."""
    information: Array = np.zeros_like(eta)
    for A, A1, _, _ in link.log_chances(eta):
        alpha = psi[0] * np.exp(A)
        information = information + (1 + alpha * alpha * trigamma(1 + alpha)[0]) * (A1 * A1)
    return w * information


def _beta_side(log_y: Array, A: Array, phi: float) -> Curve:
    """Return alpha log y - log Gamma(alpha) and its derivatives in log alpha = A + log phi.

    log Gamma(alpha) = log Gamma(1 + alpha) - log alpha keeps all digits where alpha is small.
    """
    alpha = phi * np.exp(A)
    second, third = trigamma(1 + alpha)
    psi, square = alpha * special.digamma(1 + alpha), alpha * alpha
    psi1, psi2 = square * second, square * alpha * third
    of_y = alpha * log_y
    return (
        of_y - special.gammaln(1 + alpha) + A + np.log(phi),
        of_y - psi + 1,
        of_y - psi - psi1,
        of_y - psi - 3 * psi1 - psi2,
    )


def beta_variance(mu: Array, phi: Any) -> Array:
    """Return mu (1 - mu) / (1 + phi)."""
    return np.asarray(mu * (1 - mu) / (1 + phi))


def beta_deviance(y: Array, mu: Array, phi: Any) -> Array:
    """Return 2 |log f(y | y) - log f(y | mu)|: the density is highest near mu = y, not at it.

    Source: Ferrari & Cribari-Neto (2004), *Journal of Applied Statistics* 31(7).
    """
    w = np.ones_like(y)
    return 2 * np.abs(beta_density(y, y, w, phi) - beta_density(y, mu, w, phi))


def beta_draw(rng: Generator, mu: Array, w: Array, phi: Any) -> Array:  # noqa: ARG001
    """Draw numbers between 0 and 1."""
    y = rng.beta(np.maximum(mu * phi, MIN_POSITIVE), np.maximum((1 - mu) * phi, MIN_POSITIVE))
    return np.asarray(np.clip(y, MIN_POSITIVE, MAX_PROPORTION))


def beta_graph(pm: Any, link: Link, eta: Any, w: Array, phi: Any) -> dict[str, Any]:  # noqa: ARG001
    """Return the parameters of PyMC's distribution."""
    mu = inside(pm, link.graph(pm, eta))
    return {"alpha": mu * phi, "beta": (1 - mu) * phi}


BETA = Family(
    "beta",
    LOGIT,
    variance=beta_variance,
    log_density=beta_density,
    deviance=beta_deviance,
    draw=beta_draw,
    support="unit",
    parameters=("phi",),
    pymc=PymcForm("Beta", beta_graph, multiplies=True),
    expand=beta_expand,
    further=beta_further,
    expected=beta_expected,
    own_parameters=(
        OwnParameter(
            "phi",
            default=("LogNormal", (math.log(10), 2)),
            brms=("Gamma", (0.01, 0.01)),
            rstanarm=("Exponential", (1,)),
        ),
    ),
    links=(LOGIT, PROBIT, CLOGLOG),
    aliases=("betafamily", "betaregression"),
    pins=("logit", "probit", "cloglog"),
)
"""Numbers between 0 and 1, with variance mu (1 - mu) / (1 + phi)."""
