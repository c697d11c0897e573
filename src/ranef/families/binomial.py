"""Distributions of proportions of w trials (binomial), and of 0 and 1 (Bernoulli)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import special

from ranef._typing import Array
from ranef.families.derivatives import (
    Apart,
    Expansion,
    Further,
    divergence,
    log_poisson_at_mean,
    stacked,
)
from ranef.families.family import Family, PymcForm, inside
from ranef.families.links import CAUCHIT, CLOGLOG, LOG, LOGIT, PROBIT, Link


def binomial_density(y: Array, mu: Array, w: Array) -> Array:
    """Return the log density of w y successes in w trials."""
    with np.errstate(all="ignore"):
        L = _log_kernel(y, np.log(mu), np.log1p(-mu), w) + binomial_constant(y, w)
    return np.where((y >= 0) & (y <= 1) & (mu >= 0) & (mu <= 1), L, -np.inf)


def binomial_kernel(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:  # noqa: ARG001
    """Return the expansion of the binomial distribution, without its constant."""
    signs = _signs(y, w)
    if link.log_slopes is not None and signs is not None:
        value, first, second = link.log_slopes(signs * eta)
        return Expansion(value, signs * first, -second)
    (A, A1, A2, _), (B, B1, B2, _) = link.log_chances(eta)
    successes = w * y
    failures = w - successes
    L = _log_kernel(y, A, B, w)
    return Expansion(L, successes * A1 + failures * B1, -(successes * A2 + failures * B2))


def binomial_value(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Array:  # noqa: ARG001
    """Return the log density of the binomial distribution, without its constant."""
    signs = _signs(y, w)
    if link.log_value is not None and signs is not None:
        return link.log_value(signs * eta)
    return _log_kernel(y, *link.log_probabilities(eta), w)


def binomial_further(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:  # noqa: ARG001
    """Return the higher derivatives of the binomial distribution."""
    A, B = link.log_chances(eta)
    successes = w * y
    return stacked(-(successes * A[3] + (w - successes) * B[3]), [])


def binomial_expected(link: Link, eta: Array, w: Array, psi: Array) -> Array:  # noqa: ARG001
    """Return the expected information of eta, (d mu / d eta)^2 / (mu (1 - mu)) per trial."""
    A, B = link.log_chances(eta)
    return -w * A[1] * B[1]


def _signs(y: Array, w: Array) -> Array | None:
    """Return 1 for successes and -1 for failures of single trials; None where there are others."""
    signs = 2 * y - 1
    return signs if (w == 1).all() and (np.abs(signs) == 1).all() else None


def _log_kernel(y: Array, A: Array, B: Array, w: Array) -> Array:
    """Return the log density from log mu and log(1 - mu), without its constant."""
    if (w == 1).all():
        return np.where(y == 0, B, np.where(y == 1, A, y * A + (1 - y) * B))
    return np.asarray(-w * (divergence(y, A) + divergence(1 - y, B)))


def binomial_constant(y: Array, w: Array) -> Array:
    """Return the log density where mu is the response itself; zero for 0 and 1 of one."""
    if (w == 1).all():
        return np.zeros(())
    k = w * y
    of_k, of_rest, of_w = log_poisson_at_mean(np.stack([k, w - k, np.broadcast_to(w, k.shape)]))
    return np.asarray(of_k + of_rest - of_w)


def binomial_variance(mu: Array) -> Array:
    """Return mu (1 - mu)."""
    return mu * (1 - mu)


def binomial_deviance(y: Array, mu: Array) -> Array:
    """Return 2 (y log(y / mu) + (1 - y) log((1 - y) / (1 - mu)))."""
    return np.asarray(2 * (special.rel_entr(y, mu) + special.rel_entr(1 - y, 1 - mu)))


def binomial_draw(rng: Generator, mu: Array, w: Array) -> Array:
    """Draw proportions of successes in w trials."""
    return np.asarray(rng.binomial(np.round(w).astype(np.int64), mu) / w)


def bernoulli_draw(rng: Generator, mu: Array, w: Array) -> Array:  # noqa: ARG001
    """Draw 0 or 1."""
    return np.asarray(rng.binomial(1, mu), dtype=np.float64)


def binomial_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *, observed: Array, dims: Any
) -> Any:
    """Add the likelihood of the numbers of successes."""
    n, successes = np.round(w).astype(np.int64), np.round(observed * w).astype(np.int64)
    chance = bernoulli_graph(pm, link, eta, w)
    return pm.Binomial(name, n=n, observed=successes, dims=dims, **chance)


def bernoulli_graph(pm: Any, link: Link, eta: Any, w: Array) -> dict[str, Any]:  # noqa: ARG001
    """Return the parameter of PyMC's distribution: the logit of a success where this is eta."""
    return {"logit_p": eta} if link.name == "logit" else {"p": inside(pm, link.graph(pm, eta))}


def bernoulli_of_means(pm: Any, y: Array, p: Any = None, logit_p: Any = None) -> Any:
    """Return the log density of PyMC's distribution, of means of 0 and 1."""
    if logit_p is None:
        return y * pm.math.log(p) + (1 - y) * pm.math.log1p(-p)
    return y * logit_p - pm.math.log1pexp(logit_p)


BINOMIAL = Family(
    "binomial",
    LOGIT,
    variance=binomial_variance,
    log_density=binomial_density,
    deviance=binomial_deviance,
    draw=binomial_draw,
    support="proportions",
    pymc=binomial_pymc,
    expand=Apart(binomial_kernel, binomial_constant, binomial_value, of_means=True),
    further=binomial_further,
    expected=binomial_expected,
    links=(LOGIT, PROBIT, CLOGLOG, CAUCHIT, LOG),
    pins=("logit", "probit", "cloglog", "log"),
)
"""The proportion of successes in w trials."""

BERNOULLI = replace(
    BINOMIAL,
    name="bernoulli",
    support="binary",
    draw=bernoulli_draw,
    pymc=PymcForm(
        "Bernoulli", bernoulli_graph, is_count=True, multiplies=True, of_means=bernoulli_of_means
    ),
    aliases=("binary",),
)
"""0 or 1; weights are not trials but multiply the log density."""
