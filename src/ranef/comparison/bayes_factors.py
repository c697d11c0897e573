"""Bayes factors of several models: where they are defined, and over which priors they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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

SDS, EFFECTS = "random-effect sds", "fixed effects that differ"  # whose priors are scaled together


def bayes_factors(
    marginals: Mapping[str, tuple[MarginalLikelihood, Sensitivity]],
    prior: Array,
    effects: Mapping[str, Sensitivity] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return marginal likelihoods with probabilities and Bayes factors, and their sensitivities.

    Parameters
    ----------
    marginals : mapping of str to (MarginalLikelihood, Sensitivity)
        By the name of the model.
    prior : ndarray, shape (models,)
        Prior probabilities.
    effects : mapping of str to Sensitivity, optional
        To the priors of the fixed effects that not all models have.

    Returns
    -------
    tuple of DataFrame
        One row a model, with the Bayes factor against the model under which the data are the most
        probable; and one row a model and scale, with `log_bf` and `mcse`, of the priors of all sds
        and of those of the fixed effects, which `priors` tells apart.
    """
    names = list(marginals)
    likelihoods, sensitivities = zip(*marginals.values(), strict=True)
    log_ml = np.array([likelihood.value for likelihood in likelihoods])
    error = np.array([likelihood.error for likelihood in likelihoods])
    best = int(np.argmax(log_ml))
    with np.errstate(divide="ignore"):  # of a prior probability of zero
        log_prior = np.log(prior)
    bf_error = np.hypot(error, error[best]) * (np.arange(len(names)) != best)
    moved = {SDS: sensitivities}
    if effects is not None:
        moved[EFFECTS] = tuple(effects[name] for name in names)
    lines = [_lines(names, log_ml, bf_error, each).assign(priors=of) for of, each in moved.items()]
    by_scale = pd.concat(lines, ignore_index=True)
    log_bf = by_scale.groupby("model", sort=False)["log_bf"]
    table = pd.DataFrame(
        {
            "log_ml": log_ml,
            "log_ml_error": error,
            "probability": special.softmax(log_ml + log_prior),
            "log_bayes_factor": log_ml - log_ml[best],
            "log_bayes_factor_error": bf_error,
            "log_bayes_factor_lower": log_bf.min(),
            "log_bayes_factor_upper": log_bf.max(),
            "how_ml": [likelihood.method for likelihood in likelihoods],
        },
        index=names,
    )
    return table, by_scale


def _lines(
    names: list[str], log_ml: Array, error: Array, moved: Sequence[Sensitivity]
) -> pd.DataFrame:
    """Return the Bayes factors against the best model by the scale of some priors."""
    best = int(np.argmax(log_ml))
    log_bf = np.stack([s.log_ratio for s in moved]) + log_ml[:, None]
    mcse = np.stack([s.mcse for s in moved])
    mcse = np.sqrt(mcse**2 + mcse[best] ** 2 + error[:, None] ** 2)
    mcse[best] = 0.0
    return pd.DataFrame(
        {
            "model": np.repeat(names, len(SCALES)),
            "scale": np.tile(SCALES, len(names)),
            "log_bf": (log_bf - log_bf[best]).ravel(),
            "mcse": mcse.ravel(),
        }
    )


def prior_probabilities(prior: Mapping[str, float] | None, names: list[str]) -> Array:
    """Return prior probabilities of the models, equal ones by default."""
    if prior is None:
        return np.full(len(names), 1 / len(names))
    if set(prior) != set(names):
        raise FitError(f"`prior` is for the models {listed(names)}; got {listed(prior) or 'none'}.")
    values = check_numbers("prior", [prior[name] for name in names], len(names))
    if not (values >= 0).all() or not values.sum() > 0:
        raise FitError(f"`prior` must be probabilities, got {dict(prior)}.")
    return np.asarray(values / values.sum())


def no_bayes_factors(fits: Mapping[str, PosteriorFit]) -> str:
    """Return the reason why Bayes factors of fits are not defined; empty where they are.

    Notes
    -----
    An improper prior has an arbitrary constant, which cancels where all models share the
    parameter: a fixed effect, as long as the models have the same fixed columns, or sigma, as long
    as they have the same weights. It never cancels for a parameter that some models do not have.

    Source: Berger, Pericchi & Varshavsky (1998), *Sankhya A* 60, 307-321.
    """
    priors = {name: fit.asked.priors for name, fit in fits.items()}
    for name, fit_priors in priors.items():
        flat = _improper_variances(fit_priors)
        if flat:
            return (
                f"`{name}` has a flat prior on {listed(flat)}, whose arbitrary height would be a "
                "factor of its marginal likelihood: give it a proper prior."
            )
    improper = {name: _improper_common(fit_priors) for name, fit_priors in priors.items()}
    first = next(iter(fits))
    first_design = fits[first].design
    for name, parameters in improper.items():
        if parameters != improper[first]:
            return (
                f"`{first}` and `{name}` do not have flat priors on the same parameters "
                f"({listed(improper[first]) or 'none'}; {listed(parameters) or 'none'}), so that "
                "their arbitrary heights do not cancel: give all of them proper priors."
            )
        design = fits[name].design
        if "sigma" in parameters and not np.array_equal(
            first_design.sufficient.weights, design.sufficient.weights
        ):
            return (
                f"`{first}` and `{name}` have different weights, so that the arbitrary heights of "
                "their flat priors on `sigma` do not cancel: give it a proper prior."
            )
        if set(parameters) - {"sigma"} and not np.array_equal(
            first_design.sufficient.X, design.sufficient.X
        ):
            return (
                f"`{first}` and `{name}` have different fixed effects with flat priors, whose "
                "arbitrary heights do not cancel: give the fixed effects proper priors."
            )
    return ""


def _improper_variances(priors: Priors) -> list[str]:
    """Return the parameters with improper priors that not every model need have."""
    sds = [
        f"sd_{term.label}[{coef}]"
        for term in priors.terms
        for coef, sd in zip(term.coefs, term.sd, strict=True)
        if not sd.proper
    ]
    return sds + [name for name, prior in priors.parameters if not prior.proper]


def _improper_common(priors: Priors) -> list[str]:
    """Return the fixed effects, and sigma, that have improper priors."""
    beta = [name for name, p in zip(priors.fixed, priors.beta, strict=True) if not p.proper]
    is_flat = not priors.sigma.proper and not isinstance(priors.sigma, Constant)
    return beta + ["sigma"] * is_flat
