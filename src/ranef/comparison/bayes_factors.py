"""Bayes factors of several models: whether they are defined, and over which priors they hold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array
from ranef.arguments import check_numbers
from ranef.errors import FitError, listed
from ranef.fits.posterior import PosteriorFit
from ranef.posterior.marginal_likelihood import MarginalLikelihood
from ranef.posterior.prior_sensitivity import SCALES, Sensitivity
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Constant


def bayes_factors(
    marginals: Mapping[str, tuple[MarginalLikelihood, Sensitivity]], prior: Array
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return marginal likelihoods with probabilities and Bayes factors, and their sensitivities.

    Parameters
    ----------
    marginals : mapping of str to (MarginalLikelihood, Sensitivity)
        By the name of the model.
    prior : ndarray, shape (models,)
        Prior probabilities.

    Returns
    -------
    tuple of DataFrame
        One row a model, Bayes factors being those against the most probable data; and one row a
        model and scale of the priors of all sds, with `log_bf` and its `mcse`.
    """
    names = list(marginals)
    found, sensitivities = zip(*marginals.values(), strict=True)
    value = np.array([marginal.value for marginal in found])
    error = np.array([marginal.mcse for marginal in found])
    best = int(np.argmax(value))
    with np.errstate(divide="ignore"):  # of a prior probability of zero
        log_prior = np.log(prior)
    log_bf = np.stack([s.log_ratio for s in sensitivities]) + value[:, None]
    log_bf -= log_bf[best]
    spread = np.hypot(error, error[best]) * (np.arange(len(names)) != best)
    noise = np.stack([s.mcse for s in sensitivities])
    noise = np.sqrt(noise**2 + noise[best] ** 2 + spread[:, None] ** 2)
    noise[best] = 0.0
    table = pd.DataFrame(
        {
            "log_ml": value,
            "log_ml_error": error,
            "probability": special.softmax(value + log_prior),
            "log_bayes_factor": value - value[best],
            "log_bayes_factor_error": spread,
            "log_bayes_factor_lower": log_bf.min(axis=1),
            "log_bayes_factor_upper": log_bf.max(axis=1),
            "how_ml": [marginal.method for marginal in found],
        },
        index=names,
    )
    long = pd.DataFrame(
        {
            "model": np.repeat(names, len(SCALES)),
            "scale": np.tile(SCALES, len(names)),
            "log_bf": log_bf.ravel(),
            "mcse": noise.ravel(),
        }
    )
    return table, long


def prior_probabilities(prior: Mapping[str, float] | None, names: list[str]) -> Array:
    """Return prior probabilities of the models; the same for all where none are given."""
    if prior is None:
        return np.full(len(names), 1 / len(names))
    if set(prior) != set(names):
        raise FitError(f"`prior` is for the models {listed(names)}; got {listed(prior) or 'none'}.")
    values = check_numbers("prior", [prior[name] for name in names], len(names))
    if not (values >= 0).all() or not np.isfinite(values).all() or not values.sum() > 0:
        raise FitError(f"`prior` must be probabilities, got {dict(prior)}.")
    return np.asarray(values / values.sum())


def no_bayes_factors(fits: Mapping[str, PosteriorFit]) -> str:
    """Return why the marginal likelihoods of fits have no ratio; empty where they have one.

    Notes
    -----
    An improper prior has an arbitrary constant, which cancels where all models share the
    parameter: that of a fixed effect, as long as the models have the same fixed columns, and that
    of sigma, as long as they have the same weights. It never cancels for a parameter that some
    models do not have.

    Source: Berger, Pericchi & Varshavsky (1998), *Sankhya A* 60, 307-321.
    """
    priors = {name: fit.asked.priors for name, fit in fits.items()}
    for name, own in priors.items():
        flat = _improper_variances(own)
        if flat:
            return (
                f"`{name}` has a flat prior on {listed(flat)}, whose arbitrary height would be a "
                "factor of its marginal likelihood: give it a proper prior."
            )
    improper = {name: _improper_common(own) for name, own in priors.items()}
    first = next(iter(fits))
    for name, names in improper.items():
        if names != improper[first]:
            return (
                f"`{first}` and `{name}` do not have flat priors on the same parameters "
                f"({listed(improper[first]) or 'none'}; {listed(names) or 'none'}), so that their "
                "arbitrary heights do not cancel: give all of them proper priors."
            )
        one, other = fits[first].design, fits[name].design
        if "sigma" in names and not np.array_equal(one.weights, other.weights):
            return (
                f"`{first}` and `{name}` have different weights, so that the arbitrary heights of "
                "their flat priors on `sigma` do not cancel: give it a proper prior."
            )
        if any(p != "sigma" for p in names) and not np.array_equal(one.X, other.X):
            return (
                f"`{first}` and `{name}` have different fixed effects with flat priors, whose "
                "arbitrary heights do not cancel: give the fixed effects proper priors."
            )
    return ""


def _improper_variances(priors: Priors) -> list[str]:
    found = [
        f"sd_{term.label}[{coef}]"
        for term in priors.terms
        for coef, sd in zip(term.coefs, term.sd, strict=True)
        if not sd.proper
    ]
    return found + [name for name, prior in priors.parameters if not prior.proper]


def _improper_common(priors: Priors) -> list[str]:
    beta = [n for n, p in zip(priors.fixed, priors.beta, strict=True) if not p.proper]
    is_flat = not priors.sigma.proper and not isinstance(priors.sigma, Constant)
    return beta + ["sigma"] * is_flat
