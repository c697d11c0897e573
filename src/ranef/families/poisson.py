"""The distributions of counts: Poisson, and negative binomial with a shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import special

from ranef._typing import Array
from ranef.families.derivatives import (
    MAX_EXPONENT,
    ByPsi,
    Distribution,
    Parts,
    divergence,
    is_count,
    log_poisson_at_mean,
    remainder,
    remainder_slope,
)
from ranef.families.family import Family, OwnParameter, PymcForm
from ranef.families.links import LOG, LOGIT, POSITIVE_IDENTITY, SQRT, Link

MAX_DRAWABLE_MEAN = 1e18  # of a count that NumPy draws


def poisson_parts(y: Array, lam: Array, w: Array) -> Parts:
    """Return L without its constant, L1 and L2 in log mu."""
    mu = np.exp(np.minimum(lam, MAX_EXPONENT))
    return -w * divergence(y, lam), w * (y - mu), -w * mu


def count_constant(y: Array, w: Array) -> Array:
    """Return the log density of a Poisson response at a mean that is the response itself."""
    return np.asarray(w * log_poisson_at_mean(y))


def poisson_others(y: Array, lam: Array, w: Array) -> tuple[Array, list[ByPsi]]:  # noqa: ARG001
    """Return L3; there are no parameters."""
    return -w * np.exp(np.minimum(lam, MAX_EXPONENT)), []


def poisson_information(lam: Array, w: Array) -> Array:
    """Return the expected information of log mu."""
    return w * np.exp(np.minimum(lam, MAX_EXPONENT))


def poisson_variance(mu: Array) -> Array:
    """Return mu."""
    return mu


def poisson_deviance(y: Array, mu: Array) -> Array:
    """Return 2 (y log(y / mu) - (y - mu))."""
    return np.asarray(2 * special.kl_div(y, mu))


def poisson_draw(rng: Generator, mu: Array, w: Array) -> Array:  # noqa: ARG001
    """Draw counts."""
    return np.asarray(rng.poisson(np.minimum(mu, MAX_DRAWABLE_MEAN)), dtype=np.float64)


def poisson_graph(pm: Any, link: Link, eta: Any, w: Array) -> dict[str, Any]:  # noqa: ARG001
    """Return the parameter of PyMC's distribution."""
    return {"mu": link.graph(pm, eta)}


def poisson_of_means(pm: Any, y: Array, mu: Any) -> Any:
    """Return the log density of PyMC's distribution, of means of counts up to a constant."""
    return y * pm.math.log(mu) - mu - special.gammaln(y + 1)


def negative_binomial_parts(y: Array, lam: Array, w: Array, shape: float) -> Parts:
    """Return L without its constant, L1 and L2 in log mu.

    Stable up to the Poisson distribution, shape = inf nearly.
    """
    (log_p, q, _, _), (log_q, minus_p, _, _) = LOGIT.log_chances(lam - np.log(shape))
    p, total = -minus_p, y + shape
    constant = remainder(total) - remainder(shape) - 0.5 * np.log1p(y / shape)
    apart = divergence(y / total, log_p) + divergence(shape / total, log_q)
    L = w * (constant - total * apart)
    return L, w * (y * q - shape * p), -w * (shape + y) * p * q


def negative_binomial_others(
    y: Array, lam: Array, w: Array, shape: float
) -> tuple[Array, list[ByPsi]]:
    """Return L3, and the derivatives in log shape."""
    (_, q, _, _), (log_q, minus_p, _, _) = LOGIT.log_chances(lam - np.log(shape))
    p = -minus_p
    score = y * q - shape * p
    both = w * (shape + y) * p * q
    constant = 0.5 * y / (shape + y) + shape * (remainder_slope(shape + y) - remainder_slope(shape))
    of_shape = (
        w * (shape * (log_q + np.log1p(y / shape)) - score + constant),
        w * p * score,
        -w * p * q * (2 * p * (shape + y) - y),
    )
    return both * (p - q), [of_shape]


def negative_binomial_information(lam: Array, w: Array, shape: float) -> Array:
    """Return the expected information of log mu."""
    return np.asarray(w * shape * special.expit(lam - np.log(shape)))


def negative_binomial_variance(mu: Array, shape: Any) -> Array:
    """Return mu + mu^2 / shape."""
    return np.asarray(mu + mu**2 / shape)


def negative_binomial_deviance(y: Array, mu: Array, shape: Any) -> Array:
    """Return 2 (y log(y / mu) - (y + shape) log((y + shape) / (mu + shape)))."""
    excess = (y + shape) * np.log1p((y - mu) / (mu + shape))
    return np.asarray(2 * (special.rel_entr(y, mu) - excess))


def negative_binomial_draw(rng: Generator, mu: Array, w: Array, shape: Any) -> Array:
    """Draw counts: Poisson with means of a gamma distribution."""
    return poisson_draw(rng, rng.gamma(shape, mu / shape), w)


def negative_binomial_graph(pm: Any, link: Link, eta: Any, w: Array, shape: Any) -> dict[str, Any]:  # noqa: ARG001
    """Return the parameters of PyMC's distribution."""
    return {"mu": link.graph(pm, eta), "alpha": shape}


POISSON_DENSITY = Distribution(
    "POISSON_DENSITY",
    Link.log_mean,
    poisson_parts,
    poisson_others,
    poisson_information,
    is_count,
    constant=count_constant,
    of_means=True,
)
NEGATIVE_BINOMIAL_DENSITY = Distribution(
    "NEGATIVE_BINOMIAL_DENSITY",
    Link.log_mean,
    negative_binomial_parts,
    negative_binomial_others,
    negative_binomial_information,
    is_count,
    constant=count_constant,
)

POISSON = Family(
    "poisson",
    LOG,
    support="counts",
    variance=poisson_variance,
    deviance=poisson_deviance,
    draw=poisson_draw,
    pymc=PymcForm(
        "Poisson", poisson_graph, is_count=True, multiplies=True, of_means=poisson_of_means
    ),
    links=(LOG, SQRT, POSITIVE_IDENTITY),
    pins=("log", "sqrt", "identity"),
    **POISSON_DENSITY.fields(),
)
"""Counts whose variance is their mean."""

NEGATIVE_BINOMIAL = Family(
    "negative_binomial",
    LOG,
    support="counts",
    parameters=("shape",),
    variance=negative_binomial_variance,
    deviance=negative_binomial_deviance,
    draw=negative_binomial_draw,
    pymc=PymcForm("NegativeBinomial", negative_binomial_graph, is_count=True, multiplies=True),
    own_parameters=(
        OwnParameter(
            "shape",
            default=("InverseGamma", (0.4, 0.3)),
            brms=("InverseGamma", (0.4, 0.3)),
            rstanarm=("Exponential", (1,)),
            limit="Poisson",
        ),
    ),
    links=(LOG,),
    aliases=("negbinomial", "negbin", "negbinomial2", "nbinom", "nbinom2", "nb", "nb2"),
    pins=("log",),
    **NEGATIVE_BINOMIAL_DENSITY.fields(),
)
"""Counts with variance mu + mu^2 / shape (NB2); a large shape is the Poisson distribution."""
