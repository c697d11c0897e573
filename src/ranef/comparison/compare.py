"""Comparing models: by predictions of new groups and of known ones, and by Bayes factors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Executor, Seed
from ranef.arguments import check_seed
from ranef.comparison.bayes_factors import bayes_factors, no_bayes_factors, prior_probabilities
from ranef.comparison.comparable import (
    UNITS,
    check_comparable,
    checked_units,
    default_note,
    group_of,
    n_variances,
    named_fits,
    unreliable,
)
from ranef.comparison.comparison_table import Comparison
from ranef.comparison.stacking import bayesian_bootstrap, differences, stack
from ranef.comparison.words.legend import NO_RANDOM_EFFECTS, caveats, title
from ranef.comparison.words.verdict import Score, features_of
from ranef.errors import ConvergenceWarning, FitError, RanefError
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit
from ranef.leave_one_out.elpd import GROUP, OBSERVATION, Scores
from ranef.model.model import Model
from ranef.posterior.marginal_likelihood import MarginalLikelihood
from ranef.posterior.prior_sensitivity import SCALES, Sensitivity
from ranef.progress import mapped, running, silent

POINT_METHODS = ("reml", "ml", "map")  # their fits have no predictive densities
N_REPLICATES = 1000  # of the Bayesian bootstrap of stacking weights


def compare(
    fits: Mapping[str, Fit],
    *unnamed: Fit,
    group: str | ArrayLike | None = None,
    units: str | Sequence[str] = UNITS,
    prior: Mapping[str, float] | None = None,
    seed: Seed = None,
    executor: Executor | None = None,
    progressbar: bool = True,
) -> Comparison:
    """Compare models of the same data, which may differ in their random effects.

    Parameters
    ----------
    fits : mapping of str to Fit
        Fits by name. Posteriors are compared in full; of point estimates the table has the
        log-likelihood, AIC and BIC.
    group : str or array of shape (n_obs,), optional
        The grouping factor whose levels are predicted as new groups. By default it is the first
        one of the largest model, which `print(model)` shows and the comparison says.
    units : sequence of {"group", "observation"}
        What is left out: groups, rows, both, or nothing, `()`. A question that is not asked costs
        nothing and has no columns.
    prior : mapping of str to float, optional
        Prior probabilities of the models; the same for all by default.
    seed : int, numpy Generator or SeedSequence, optional
        For what takes random numbers: bridge sampling, the bootstrap of the stacking weights.
    executor : concurrent.futures.Executor, optional
        Where the models are to be looked at, side by side.
    progressbar : bool
        Whether to show, in a terminal or notebook, which model is being looked at.

    Returns
    -------
    Comparison
        Prints itself; `.to_frame()` has one row a model. Two questions about predictions: of a
        *new group* (all of its rows together, nothing known of it), which is where random-effects
        structures differ, and of a *new row of a known group*; each with the difference to the
        best model and its standard error over the units that were left out. And how probable the
        data are under each model: marginal likelihood, posterior probability and Bayes factor,
        with its range as the scales of the priors of all random-effect standard deviations, and
        in turn those of the fixed effects that not all models have, are multiplied by 1/4 to 4.
        Every number comes with its error and how it was obtained.

    Raises
    ------
    FitError
        If fits have no names or no reliable convergence.
    DataError
        If they are fits of different rows or of different responses.

    Notes
    -----
    A Bayes factor is a statement about priors as much as about data, and one that depends on
    their scale is not decided. Where it is not defined, as flat priors leave it, the reason is
    given in its place.

    Source: Merkle, Furr & Rabe-Hesketh (2019), *Psychometrika* 84; Vehtari, Gelman & Gabry (2017),
    *Statistics and Computing* 27; Yao, Vehtari, Simpson & Gelman (2018), *Bayesian Analysis* 13;
    Sivula, Magnusson, Matamoros & Vehtari (2025), *Bayesian Analysis*.

    Examples
    --------
    >>> import ranef as rf
    >>> yields = rf.load_dataset("Dyestuff")
    >>> fits = {
    ...     "batches": rf.fit("Yield ~ 1 + (1 | Batch)", yields, "quadrature"),
    ...     "none": rf.fit("Yield ~ 1", yields, "quadrature"),
    ... }
    >>> table = rf.compare(fits, seed=1).to_frame()
    >>> table["log_bayes_factor"].round(2).to_dict()
    {'batches': 0.0, 'none': -2.3}
    """
    seed = check_seed(seed)
    units = checked_units(units, group)
    by_name = named_fits([fits, *unnamed] if unnamed else fits)
    check_comparable(by_name)
    posteriors = {name: fit for name, fit in by_name.items() if isinstance(fit, PosteriorFit)}
    said = _without_answers(by_name, posteriors)
    if len(posteriors) < 2:
        return said
    probabilities = prior_probabilities(prior, list(posteriors))
    reason, effects = no_bayes_factors(posteriors), _differing_effects(posteriors)
    ask = partial(
        _ask,
        group=group_of(posteriors, group) if GROUP in units else None,
        by_row=OBSERVATION in units,
        seed=seed,
        evidence=not reason,
        effects=effects,
    )
    with silent(when=not progressbar):
        answers, failed = _one_by_one("Comparing", posteriors, ask, executor)
    notes = default_note(posteriors, asked=GROUP in units and group is None)
    notes += caveats(by_name, posteriors, reason, effects)
    said = replace(said, caveats=notes, effects=effects, failures=failed)
    of_models = dict(zip(posteriors, probabilities, strict=True))
    return _with_answers(said, posteriors, answers, of_models, seed)


def _without_answers(fits: Mapping[str, Fit], posteriors: Mapping[str, PosteriorFit]) -> Comparison:
    """Return what is known of fits before the posteriors are asked."""
    methods = [fit.method for fit in fits.values()]
    table = pd.concat([_structures(fits).assign(method=methods), _likelihoods(fits)], axis=1)
    families = {str(fit.family) for fit in fits.values()}
    return Comparison(
        *(table, None, None, None, caveats(fits, posteriors)),
        title=title([fit.design for fit in fits.values()], families=len(families)),
        parts={name: features_of(fit.design, fit.family) for name, fit in fits.items()},
    )


def _with_answers(
    said: Comparison,
    posteriors: Mapping[str, PosteriorFit],
    answers: Mapping[str, Answers],
    probabilities: Mapping[str, float],
    seed: int | None,
) -> Comparison:
    """Return a comparison with what posteriors answered, and the prior probabilities of models."""

    def given(name: str) -> dict[str, Any]:
        found = {of: getattr(answer, name) for of, answer in answers.items()}
        return {of: answer for of, answer in found.items() if answer is not None}

    new, known, marginals = map(given, ("new_group", "known_group", "marginal"))
    evidence, sensitivity = None, None
    if marginals:
        of_models = np.array([probabilities[name] for name in marginals])
        evidence, sensitivity = bayes_factors(marginals, of_models, given("by_effects") or None)
    tables = [said.table, _predicted(new, "group", seed), _predicted(known, "row", seed), evidence]
    return replace(
        said,
        table=pd.concat([t for t in tables if t is not None], axis=1),
        new_group=Score.of(new),
        known_group=Score.of(known, is_known=any(f.design.terms for f in posteriors.values())),
        sensitivity=sensitivity,
    )


def compare_structures(
    model: Model,
    method: str | None = None,
    *,
    group: str | ArrayLike | None = None,
    units: str | Sequence[str] = UNITS,
    seed: Seed = None,
    executor: Executor | None = None,
    progressbar: bool = True,
    **options: Any,
) -> Comparison:
    """Fit a model with all simpler random-effects structures, and compare them.

    Parameters
    ----------
    model : Model
        The largest of them; the others are those of `model.structures()`.
    method : str, optional
        As of `Model.fit`. By default the posterior by "quadrature" where a model has few enough
        variance parameters, by "laplace" otherwise, and by "mcmc" where the latter's importance
        weights say that it is not to be relied on.
    group, units, seed, executor, progressbar
        As of `compare`.
    **options
        Of `Model.fit`.

    Returns
    -------
    Comparison
        Its rows are named by their random effects.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> comparison = rf.compare_structures(model, seed=1, progressbar=False)
    >>> comparison.to_frame()["probability"].round(2).to_dict()
    {'no random effects': 0.09, '(1 | Batch)': 0.91}
    """
    argument: object = model
    if not isinstance(argument, Model):
        message = f"compare_structures takes a model, got {type(argument).__name__}: "
        raise FitError(f"{message}rf.compare_structures(rf.Model(formula, data)).")
    models = model.structures()
    if len(models) < 2:
        raise FitError("the model has no random effects, and so no simpler structures.")
    units, seed = checked_units(units, group), check_seed(seed)
    if method not in POINT_METHODS and GROUP in units:
        group_of(models, group)  # before anything is fitted
    fit_model = partial(_fitted, method=method, seed=seed, options=options)
    with silent(when=not progressbar):
        fits, failed = _one_by_one("Fitting", models, fit_model, executor)
        comparison = compare(fits, group=group, units=units, seed=seed, executor=executor)
    facts = _structures(models).assign(random=list(models))
    return replace(
        comparison,
        table=comparison.table.reindex(list(models)).assign(**facts),
        title=title([one.design for one in models.values()], model.formula.text),
        failures=failed | dict(comparison.failures),
    )


def _one_by_one[T, R](
    verb: str, named: Mapping[str, T], work: Callable[[T], R], executor: Executor | None
) -> tuple[dict[str, R], dict[str, str]]:
    """Do some work for each of several models; return what they give, and why some give nothing.

    Raises
    ------
    RanefError
        If fewer than two give anything.
    """
    attempts = mapped(executor, partial(_attempt, work), named.values())
    done: dict[str, R] = {}
    failed: dict[str, RanefError] = {}
    with running(verb, len(named)) as step:
        for name in named:
            step(0, f"{verb} {name}")
            result = next(attempts)
            if isinstance(result, RanefError):
                failed[name] = result
            else:
                done[name] = result
            step()
    if failed and len(done) < 2:
        raise next(iter(failed.values()))
    return done, {name: str(error) for name, error in failed.items()}


def _attempt[T, R](work: Callable[[T], R], one: T) -> R | RanefError:
    try:
        return work(one)
    except RanefError as error:
        return error


def _fitted(model: Model, *, method: str | None, seed: int | None, options: dict[str, Any]) -> Fit:
    """Fit one of several models, by a slower method where a fast one fails."""
    if method is not None:
        defaults: dict[str, Any] = {} if method in POINT_METHODS else {"seed": seed}
        defaults |= {"progressbar": False} if method == "mcmc" else {}
        fit = model.fit(method, **(defaults | options))
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit = model.fit(model.engine.posterior_method, seed=seed, **options)
        if not fit.converged:
            priors = {name: options[name] for name in ("priors",) if name in options}
            fit = model.fit("mcmc", seed=seed, progressbar=False, **priors)
    if not fit.converged:
        raise FitError(unreliable(fit))
    return fit


@dataclass(frozen=True, eq=False)
class Answers:
    """The predictive densities of one posterior, and its marginal likelihood.

    Attributes
    ----------
    new_group, known_group : Scores
        Of groups and of rows that are left out, where asked for; no groups where no model has a
        grouping factor.
    marginal : tuple of (MarginalLikelihood, Sensitivity) or None
        None where Bayes factors are not defined.
    by_effects : Sensitivity or None
        To the priors of the fixed effects that not all models have; None where all have the same.
    """

    new_group: Scores | None
    known_group: Scores | None
    marginal: tuple[MarginalLikelihood, Sensitivity] | None
    by_effects: Sensitivity | None


def _ask(
    fit: PosteriorFit,
    *,
    group: Any,
    by_row: bool,
    seed: int | None,
    evidence: bool,
    effects: Sequence[str],
) -> Answers:
    """Ask a fit for all that a comparison needs of it."""
    rng, engine = np.random.default_rng(seed), fit.asked
    new_group = None if group is None else fit.scores(GROUP, group, seed=seed)
    known_group = fit.scores(OBSERVATION, seed=seed) if by_row else None
    marginal, by_effects = None, None
    if evidence:
        marginal = (
            engine.evidence(fit.marginals, rng, fit.evidence),
            engine.sensitivity(fit.marginals, SCALES),
        )
    if evidence and effects:
        own = [name for name in fit.design.fixed if name in effects]
        nothing = Sensitivity(SCALES, np.zeros(len(SCALES)), np.zeros(len(SCALES)))
        by_effects = engine.sensitivity(fit.marginals, SCALES, own) if own else nothing
    return Answers(new_group, known_group, marginal, by_effects)


def _differing_effects(fits: Mapping[str, Fit]) -> tuple[str, ...]:
    """Return the fixed effects that not all models have."""
    names = [fit.design.fixed for fit in fits.values()]
    every = dict.fromkeys(name for of_model in names for name in of_model)
    return tuple(name for name in every if not all(name in of_model for of_model in names))


# ------------------------------------------------------------------------------- the columns


def _structures(models: Mapping[str, Fit | Model]) -> pd.DataFrame:
    """Return the formula and the random effects of each model."""
    rows = {
        name: {
            "formula": model.design.formula.text,
            "random": " + ".join(t.text for t in model.design.terms) or NO_RANDOM_EFFECTS,
            "n_variances": n_variances(model),
        }
        for name, model in models.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _likelihoods(fits: Mapping[str, Fit]) -> pd.DataFrame | None:
    """Return log-likelihood, AIC and BIC of the point estimates."""
    rows = {
        name: {"df": fit.df, "loglik": fit.loglik, "aic": fit.aic, "bic": fit.bic}
        for name, fit in fits.items()
        if isinstance(fit, PointFit) and fit.method != "map"
    }
    return pd.DataFrame.from_dict(rows, orient="index").reindex(list(fits)) if rows else None


def _predicted(scores: Mapping[str, Scores], unit: str, seed: int | None) -> pd.DataFrame | None:
    """Return elpd, differences to the best with flags, and stacking weights with intervals."""
    if not scores:
        return None
    elpd = pd.DataFrame({name: s.elpd for name, s in scores.items()})
    k_hat = pd.DataFrame({name: s.khat for name, s in scores.items()})
    table = differences(elpd, k_hat=k_hat).reindex(list(scores))
    table["error"] = [s.error for s in scores.values()]
    table["how"] = [s.method for s in scores.values()]
    if unit == "group":
        replicates = bayesian_bootstrap(elpd.to_numpy(), N_REPLICATES, seed)
        table["weight"] = stack(elpd.to_numpy())
        table[["weight_lower", "weight_upper"]] = np.quantile(replicates, [0.025, 0.975], axis=0).T
    return table.add_suffix(f"_{unit}")
