"""The posterior density of parameters, with their priors and the estimates by REML and ML."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy

from ranef._typing import Array
from ranef.arguments import check_known
from ranef.design.labels import parameter_names
from ranef.errors import FitError, RanefWarning
from ranef.posterior.draws import quantities
from ranef.posterior.savage_dickey import prior_density
from ranef.priors.distributions import Normal
from ranef.priors.scales import moved_coefs

POINTS = 401  # of a curve
TAIL = 0.0005  # probability beyond each end of a curve
METHODS = {"reml": "REML", "ml": "ML"}


def densities(fit: Any, names: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Return the posterior and prior densities of parameters.

    Parameters
    ----------
    fit : PosteriorFit
    names : str or sequence of str, optional
        As in `estimates()`; by default all.

    Returns
    -------
    DataFrame
        Columns `parameter, value, posterior, prior`; the prior is nan where it is no density of
        the parameter by itself. `.attrs["estimates"]` has the estimates by parameter and method.

    Raises
    ------
    FitError
        If the fit has no posterior, or no parameter of that name.
    """
    if getattr(fit, "marginals", None) is None:
        raise FitError(
            f"a fit by {fit.method!r} has no posterior density: fit by "
            'method="quadrature", "laplace" or "mcmc"; fit.profile() has its likelihood.'
        )
    known = parameter_names(fit.design, fit.family)
    wanted = known if names is None else [names] if isinstance(names, str) else list(names)
    check_known(wanted, known, lambda name: f"the posterior has no parameter {name!r}.")
    draws = {} if hasattr(fit, "curve") else quantities(fit.posterior, include_b=False)
    tables = []
    for name in wanted:
        curve = _of_lattice(fit, name) if not draws else of_draws(name, draws[name].ravel())
        if curve is None:  # a parameter that is known
            continue
        value, posterior = curve
        prior = _prior(fit, name, value)
        columns = {"parameter": name, "value": value, "posterior": posterior, "prior": prior}
        tables.append(pd.DataFrame(columns))
    if not tables:
        raise FitError("the value of every one of these parameters is known: nothing to draw.")
    table = pd.concat(tables, ignore_index=True)
    table.attrs["estimates"] = _estimates(fit, wanted)
    return table


def _of_lattice(fit: Any, name: str) -> tuple[Array, Array] | None:
    curve = fit.marginals.curve(name)
    if isinstance(curve, float):
        return None
    low, high = (float(curve.quantile(p)) for p in (TAIL, 1 - TAIL))
    value = np.linspace(low, high, POINTS)
    return value, curve.pdf(value)


def of_draws(name: str, draws: Array) -> tuple[Array, Array] | None:
    """Return the density of draws by a normal kernel, reflected at the ends of the range."""
    if not np.ptp(draws) > 0:
        return None
    low, high = np.quantile(draws, [TAIL, 1 - TAIL])
    ends: tuple[float, ...] = ()
    if name.startswith("corr_"):
        ends = (-1.0, 1.0)
    elif draws.min() >= 0:
        ends = (0.0,)
    kernel = scipy.stats.gaussian_kde(draws)
    pad = 2 * float(np.sqrt(kernel.covariance[0, 0]))
    low = max(low - pad, ends[0]) if ends else low - pad
    high = min(high + pad, ends[1]) if len(ends) == 2 else high + pad
    value = np.linspace(low, high, POINTS)
    return value, kernel(value) + sum((kernel(2 * end - value) for end in ends), np.zeros(1))


def _prior(fit: Any, name: str, value: Array) -> Array:
    """Return the prior density; nan where it is none of the parameter by itself."""
    priors = fit.asked.priors
    plain = name.removeprefix("beta[").removesuffix("]") if name.startswith("beta[") else name
    if plain in moved_coefs(priors.fixed, priors.change):
        return _of_combination(priors.change[priors.fixed.index(plain)], priors.beta, value)
    safe = np.clip(value, -1 + 1e-12, 1 - 1e-12) if name.startswith("corr_") else value
    safe = np.maximum(safe, 1e-12) if name.startswith(("sd_", "sigma")) else safe
    try:
        return prior_density(priors, fit.asked.density.space, name, safe)
    except FitError:
        return np.full(len(value), np.nan)


def _of_combination(row: Array, priors: Sequence[object], value: Array) -> Array:
    """Return the density of a combination of independent coefficients with normal priors."""
    involved = [(c, prior) for c, prior in zip(row, priors, strict=True) if c]
    mean = variance = 0.0
    for c, prior in involved:
        if not isinstance(prior, Normal):
            return np.full(len(value), np.nan)
        mean, variance = mean + c * prior.mu, variance + (c * prior.sigma) ** 2
    return np.asarray(scipy.stats.norm.pdf(value, mean, np.sqrt(variance)))


def _estimates(fit: Any, names: Sequence[str]) -> Mapping[str, dict[str, float]]:
    """Return the estimates by REML and by maximum likelihood, where there are any."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for method, label in METHODS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RanefWarning)
                estimates = fit.asked.refit(method).estimates()
        except (FitError, KeyError):
            continue
        for name in names:
            if name in estimates and np.isfinite(estimates[name]):
                found[name][label] = float(estimates[name])
    return found
