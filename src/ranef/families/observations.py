"""Observations of a distribution: their variance and deviance, draws of them, and PyMC's form.

Notation: mu the mean, w the prior weight of a row (for the binomial its number of trials).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import special

from ranef._typing import Array
from ranef.families.likelihoods import beta_density
from ranef.families.link import Link

MOST = 1e18  # of the mean of a count that can be drawn
LEAST, BELOW_ONE = np.finfo(np.float64).tiny, 1 - 2.0**-53


def constant_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return 1."""
    return np.ones_like(mu)


def t_variance(mu: Array, sigma: Any, nu: Any) -> Array:  # noqa: ARG001
    """Return nu / (nu - 2), which is infinite for nu <= 2."""
    with np.errstate(divide="ignore"):
        return np.ones_like(mu) * np.where(nu > 2, nu / np.maximum(nu - 2, 0.0), np.inf)


def binomial_variance(mu: Array) -> Array:
    """Return mu (1 - mu)."""
    return mu * (1 - mu)


def poisson_variance(mu: Array) -> Array:
    """Return mu."""
    return mu


def negative_binomial_variance(mu: Array, shape: Any) -> Array:
    """Return mu + mu^2 / shape."""
    return np.asarray(mu + mu**2 / shape)


def gamma_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return mu^2."""
    return mu**2


def inverse_gaussian_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return mu^3."""
    return mu**3


def beta_variance(mu: Array, phi: Any) -> Array:
    """Return mu (1 - mu) / (1 + phi)."""
    return np.asarray(mu * (1 - mu) / (1 + phi))


def gaussian_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return the squared residual."""
    return (y - mu) ** 2


def t_deviance(y: Array, mu: Array, sigma: Any, nu: Any) -> Array:
    """Return sigma^2 (nu + 1) log(1 + z^2 / nu), with z the residual over sigma."""
    return np.asarray(sigma**2 * (nu + 1) * np.log1p(((y - mu) / sigma) ** 2 / nu))


def binomial_deviance(y: Array, mu: Array) -> Array:
    """Return 2 (y log(y / mu) + (1 - y) log((1 - y) / (1 - mu)))."""
    return np.asarray(2 * (special.rel_entr(y, mu) + special.rel_entr(1 - y, 1 - mu)))


def poisson_deviance(y: Array, mu: Array) -> Array:
    """Return 2 (y log(y / mu) - (y - mu))."""
    return np.asarray(2 * special.kl_div(y, mu))


def negative_binomial_deviance(y: Array, mu: Array, shape: Any) -> Array:
    """Return 2 (y log(y / mu) - (y + shape) log((y + shape) / (mu + shape)))."""
    excess = (y + shape) * np.log1p((y - mu) / (mu + shape))
    return np.asarray(2 * (special.rel_entr(y, mu) - excess))


def gamma_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return 2 ((y - mu) / mu - log(y / mu))."""
    return np.asarray(2 * ((y - mu) / mu - np.log(y / mu)))


def inverse_gaussian_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return (y - mu)^2 / (mu^2 y)."""
    return (y - mu) ** 2 / (mu**2 * y)


def beta_deviance(y: Array, mu: Array, phi: Any) -> Array:
    """Return 2 |log f(y | y) - log f(y | mu)|: the density is highest near mu = y, not at it.

    Source: Ferrari & Cribari-Neto (2004), *Journal of Applied Statistics* 31(7).
    """
    one = np.ones_like(y)
    return 2 * np.abs(beta_density(y, y, one, phi) - beta_density(y, mu, one, phi))


def gaussian_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw responses."""
    return np.asarray(rng.normal(mu, sigma / np.sqrt(w)))


def t_draw(rng: Generator, mu: Array, w: Array, sigma: Any, nu: Any) -> Array:
    """Draw responses."""
    return np.asarray(mu + sigma / np.sqrt(w) * rng.standard_t(nu, np.shape(mu)))


def binomial_draw(rng: Generator, mu: Array, w: Array) -> Array:
    """Draw proportions of successes in w trials."""
    return np.asarray(rng.binomial(np.round(w).astype(np.int64), mu) / w)


def bernoulli_draw(rng: Generator, mu: Array, w: Array) -> Array:  # noqa: ARG001
    """Draw 0 or 1."""
    return np.asarray(rng.binomial(1, mu), dtype=np.float64)


def poisson_draw(rng: Generator, mu: Array, w: Array) -> Array:  # noqa: ARG001
    """Draw counts."""
    return np.asarray(rng.poisson(np.minimum(mu, MOST)), dtype=np.float64)


def negative_binomial_draw(rng: Generator, mu: Array, w: Array, shape: Any) -> Array:
    """Draw counts: Poisson with means of a gamma distribution."""
    return poisson_draw(rng, rng.gamma(shape, mu / shape), w)


def gamma_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw positive numbers."""
    a = w / sigma**2
    return np.asarray(np.maximum(rng.gamma(a, mu / a), LEAST))


def inverse_gaussian_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw positive numbers.

    By Michael, Schucany & Haas (1976), *The American Statistician* 30, 88-90; the smaller root is
    written without a difference, which would lose its digits where the variance is huge.
    """
    mu, w = np.broadcast_arrays(mu, w)
    r = mu * sigma**2 / w * rng.chisquare(1, mu.shape) / 2
    smaller = mu / (1 + r + np.sqrt(r * (r + 2)))
    taken = rng.uniform(size=mu.shape) * (mu + smaller) <= mu
    return np.asarray(np.maximum(np.where(taken, smaller, mu * (mu / smaller)), LEAST))


def beta_draw(rng: Generator, mu: Array, w: Array, phi: Any) -> Array:  # noqa: ARG001
    """Draw numbers between 0 and 1."""
    drawn = rng.beta(np.maximum(mu * phi, LEAST), np.maximum((1 - mu) * phi, LEAST))
    return np.asarray(np.clip(drawn, LEAST, BELOW_ONE))


def gaussian_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Any, dims: Any
) -> Any:
    """Add the likelihood to the PyMC model in whose context this is called, as all `*_pymc`."""
    (sigma,) = psi
    mu, s = link.graph(pm, eta), _over_root(sigma, w)
    return pm.Normal(name, mu=mu, sigma=s, observed=observed, dims=dims)


def t_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Any, dims: Any
) -> Any:
    """Add the likelihood."""
    sigma, nu = psi
    mu, s = link.graph(pm, eta), _over_root(sigma, w)
    return pm.StudentT(name, nu=nu, mu=mu, sigma=s, observed=observed, dims=dims)


def binomial_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *, observed: Array, dims: Any
) -> Any:
    """Add the likelihood of the numbers of successes."""
    trials = np.round(w).astype(np.int64)
    successes = np.round(observed * w).astype(np.int64)
    chance = _chance(pm, link, eta)
    return pm.Binomial(name, n=trials, observed=successes, dims=dims, **chance)


def bernoulli_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *, observed: Array, dims: Any
) -> Any:
    """Add the likelihood."""
    y = np.round(observed).astype(np.int64)
    return _weighted(pm, pm.Bernoulli, (name, dims), w, y, **_chance(pm, link, eta))


def poisson_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *, observed: Array, dims: Any
) -> Any:
    """Add the likelihood."""
    y = np.round(observed).astype(np.int64)
    return _weighted(pm, pm.Poisson, (name, dims), w, y, mu=link.graph(pm, eta))


def negative_binomial_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Array, dims: Any
) -> Any:
    """Add the likelihood."""
    (shape,) = psi
    y, mu = np.round(observed).astype(np.int64), link.graph(pm, eta)
    return _weighted(pm, pm.NegativeBinomial, (name, dims), w, y, mu=mu, alpha=shape)


def gamma_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Any, dims: Any
) -> Any:
    """Add the likelihood."""
    (sigma,) = psi
    mu, a = link.graph(pm, eta), w / sigma**2
    return pm.Gamma(name, alpha=a, beta=a / mu, observed=observed, dims=dims)


def inverse_gaussian_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Any, dims: Any
) -> Any:
    """Add the likelihood."""
    (sigma,) = psi
    mu, tau = link.graph(pm, eta), w / sigma**2
    return pm.Wald(name, mu=mu, lam=tau, observed=observed, dims=dims)


def beta_pymc(
    pm: Any, name: str, link: Link, eta: Any, w: Array, *psi: Any, observed: Any, dims: Any
) -> Any:
    """Add the likelihood."""
    (phi,) = psi
    mu = _inside(pm, link.graph(pm, eta))
    shapes = {"alpha": mu * phi, "beta": (1 - mu) * phi}
    return _weighted(pm, pm.Beta, (name, dims), w, observed, **shapes)


def _weighted(
    pm: Any, family: Any, at: tuple[str, Any], w: Array, observed: Any, **parameters: Any
) -> Any:
    """Add observations; with weights their log density times the weights, as a potential.

    PyMC has no weights. A potential counts in all that uses the density; what PyMC itself would do
    with observations, such as to draw new ones, it cannot do with it.

    Parameters
    ----------
    at : tuple
        The name and the dimensions.
    """
    name, dims = at
    if (w == 1).all():
        return family(name, observed=observed, dims=dims, **parameters)
    return pm.Potential(name, w * pm.logp(family.dist(**parameters), observed), dims=dims)


def _over_root(sigma: Any, w: Array) -> Any:
    return sigma if (w == 1).all() else sigma * (1 / np.sqrt(w))


def _chance(pm: Any, link: Link, eta: Any) -> dict[str, Any]:
    """Return the argument that says how probable a success is: its logit where this is eta."""
    if link.name == "logit":
        return {"logit_p": eta}
    return {"p": _inside(pm, link.graph(pm, eta))}


def _inside(pm: Any, mu: Any) -> Any:
    """Keep a mean off 0 and 1, where a gradient would not be a number."""
    return pm.math.clip(mu, LEAST, BELOW_ONE)
