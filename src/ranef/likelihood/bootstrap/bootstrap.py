"""The parametric bootstrap: a model fitted again to responses that are simulated from its fit.

For a Gaussian model the cross-products of responses are drawn and refitted, many at a time. For
other families, and for a statistic of the user's own, responses are drawn row by row.

Source: Davison and Hinkley (1997), *Bootstrap Methods and their Application*, chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ranef._typing import Array, Executor, Flags
from ranef.arguments import check_counts
from ranef.covariances.covariance import Covariance, factors
from ranef.design import identifiability
from ranef.design.design import Design
from ranef.errors import DataError, FitError
from ranef.likelihood.bootstrap.generalized_refits import (
    GeneralizedRefits,
    GeneralizedRefitter,
    generalized_refitter,
)
from ranef.likelihood.bootstrap.refits import (
    RATIO_ROUNDING,
    Refits,
    Refitter,
    likelihood_ratios,
    refitter,
    rivals,
)
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Span,
    entropy_of,
    null_of,
    responses,
    seeds_of_replicates,
    simulated,
    span,
)
from ranef.likelihood.estimate import Estimate, FittedModel, Replicates
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.generalized.pirls import NoModesError
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.predictions import Draws, drawn_responses
from ranef.numerics.matrices import threads_for
from ranef.progress import mapped, running

type Seeds = Sequence[np.random.SeedSequence]
type Statistic = Callable[[FittedModel], Array]

BATCH_TOGETHER = 2500  # replicates of a task that are fitted together
BATCH_GENERALIZED = 100  # ... of a generalised model
BATCH_ONE_BY_ONE = 10  # replicates of a task that are fitted one by one
MIN_RELATIVE_SD = 1e-10  # over the sum of the absolute terms of an sd: below it an sd is zero
ERRORS_OF_A_REFIT = (FitError, DataError, NoModesError, np.linalg.LinAlgError)


def replicate(
    model: FittedModel,
    n: int,
    statistic: Statistic,
    *,
    all_parameters: bool,
    seed: int | None = None,
    executor: Executor | None = None,
) -> Replicates:
    """Fit a model again to responses that are simulated from its fit.

    Parameters
    ----------
    model : FittedModel
        By REML or ML, of any family.
    n : int
        Number of replicates.
    statistic : callable
        From a refit, the model with another response and estimate, to numbers, shape (d,).
    all_parameters : bool
        Whether these are the numbers of `design.labels.parameter_names`, which a linear model has
        without rows.
    seed : int, optional
        Each replicate has a seed of its own, made of this one and its number.
    executor : concurrent.futures.Executor, optional
        Takes the work in parts; the result is the same.

    Raises
    ------
    FitError
        If the fit is not by REML or ML, or no replicate can be fitted.
    """
    _check(model.method, n)
    entropy = entropy_of(seed)
    task, size = _task(model, statistic, all_parameters=all_parameters)
    seeds = seeds_of_replicates(entropy, n)
    batches = [seeds[start : start + size] for start in range(0, n, size)]
    made = mapped(executor, task, batches)
    results = []
    with running("Refitting simulated responses", n) as advance:
        for batch, result in zip(batches, made, strict=True):
            results.append(result)
            advance(len(batch))
    failed = np.concatenate([flags for _, flags in results])
    if failed.all():
        raise FitError(
            f"the model could not be fitted to any of {n} simulated responses, so that there is "
            "no bootstrap."
        )
    width = max(values.shape[1] for values, _ in results)
    values = [np.broadcast_to(rows, (len(rows), width)) for rows, _ in results]
    return Replicates(np.concatenate(values), failed, entropy)


type Task = Callable[[Seeds], tuple[Array, Flags]]


def _task(model: FittedModel, statistic: Statistic, *, all_parameters: bool) -> tuple[Task, int]:
    """Return what fits the replicates of some seeds, and of how many at a time."""
    if all_parameters and model.family.is_linear:
        design, found, cross = model.design, model.estimate, cross_products(model.design)
        with threads_for(len(cross.fixed)):
            again = refitter(design, cross, found.theta, reml=model.method == "reml")
            together = partial(_together, span(design), null_of(found), again, found.beta)
        return together, BATCH_ONE_BY_ONE if again.shared is None else BATCH_TOGETHER
    refits = generalized_refitter(model) if all_parameters else None
    size = BATCH_ONE_BY_ONE if refits is None else BATCH_GENERALIZED
    return _RowByRow(model, statistic, refits, _generalized_parameters), size


def _check(method: str, n: int) -> None:
    check_counts(n=n)
    if method not in ("reml", "ml"):
        raise FitError(
            f"a fit by method={method!r} has no parametric bootstrap, which is about the "
            'sampling distribution of estimates: use a fit by "reml" or "ml", or the posterior.'
        )


# ------------------------------------------------------------------------- many at a time


def _together(
    columns: Span, null: Null, model: Refitter, beta: Array, seeds: Seeds
) -> tuple[Array, Flags]:
    """Draw and refit responses of a Gaussian model; return all parameters, and which failed."""
    with threads_for(len(model.cross.fixed)):
        drawn = responses(columns, simulated(columns, null, seeds), model.cross, beta=beta)
        refits = model.refit(drawn)
        return parameters(model, refits), refits.failed


def parameters(model: Refitter, refits: Refits) -> Array:
    """Return all parameters of refits, shape (B, d), in the order of their names."""
    covariances = model.cross.covariances
    columns = [refits.beta, refits.sigma[:, None]]
    for T, Lambda, covariance in zip(
        model.cross.bases, factors(refits.x, covariances), covariances, strict=True
    ):
        columns += _sds(np.linalg.inv(T), Lambda, refits.sigma, covariance)
    return np.concatenate(columns, axis=1)


def _sds(to_users: Array, Lambda: Array, sigma: Array, covariance: Covariance) -> list[Array]:
    """Return the sds of a term, shape (B, k), and its correlations, if it has any."""
    root = to_users @ Lambda
    length = np.linalg.norm(root, axis=2)
    largest = np.linalg.norm(np.abs(to_users) @ np.abs(Lambda), axis=2)
    length = np.where(length <= MIN_RELATIVE_SD * largest, 0.0, length)
    sds = sigma[:, None] * length
    if not covariance.has_correlations:
        return [sds]
    products = length[:, :, None] * length[:, None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = np.where(products > 0, root @ root.swapaxes(1, 2) / products, np.nan)
    return [sds, np.clip(corr[:, *np.triu_indices(covariance.k, 1)], -1.0, 1.0)]


# ----------------------------------------------------------------------------- one by one


@dataclass(frozen=True, eq=False)
class _RowByRow:
    """Responses drawn row by row, to each of which a model is fitted again, and asked something.

    Attributes
    ----------
    model : FittedModel
    statistic : callable
        What is asked of a refit.
    refitter : GeneralizedRefitter or None
        What refits all responses together; without it they are refitted one by one.
    of_many : callable, optional
        The same statistic of such refits, shape (B, d).
    """

    model: FittedModel
    statistic: Statistic
    refitter: GeneralizedRefitter | None = None
    of_many: Callable[[Design, GeneralizedRefits], Array] | None = None

    def __call__(self, seeds: Seeds) -> tuple[Array, Flags]:
        return self.of(np.array([simulated_response(self.model, seed) for seed in seeds]))

    def of(self, y: Array) -> tuple[Array, Flags]:
        """Return the statistics of responses, shape (B, n), and which could not be fitted."""
        if self.refitter is None or self.of_many is None:
            return self.alone(y)
        refits = self.refitter.refit(y)
        values, failed = self.of_many(self.model.design, refits), np.zeros(len(y), dtype=bool)
        others = np.flatnonzero(~refits.settled)
        if len(others):
            values[others], failed[others] = self.alone(y[others])
        return values, failed

    def alone(self, y: Array) -> tuple[Array, Flags]:
        """Return the same of responses that are fitted one by one."""
        design = self.model.design
        refits = [refitted(self.model, design.with_rows(y=response)) for response in y]
        failed = np.array([refit is None for refit in refits])
        rows = [self.statistic(refit) for refit in refits if refit]
        values = np.full((len(refits), len(rows[0]) if rows else 1), np.nan)
        if rows:
            values[~failed] = rows
        return values, failed


def _generalized_parameters(design: Design, refits: GeneralizedRefits) -> Array:
    """Return all parameters of refits, shape (B, d), in the order of their names."""
    columns, one = [refits.beta, refits.psi], np.ones(len(refits.beta))
    for Lambda, term in zip(refits.Lambdas, design.terms, strict=True):
        columns += _sds(np.eye(term.n_coefs), Lambda, one, term.covariance)
    return np.concatenate(columns, axis=1)


def simulated_response(model: FittedModel, seed: np.random.SeedSequence) -> Array:
    """Return a response, shape (n,), that is drawn from a fitted model."""
    estimate, rng = model.estimate, np.random.default_rng(seed)
    draws = Draws.of_point(1, estimate.beta, model.parameters, estimate.roots, estimate.b)
    return drawn_responses(model.design, model.family, draws, rng, new=True)[:, 0]


def refitted(model: FittedModel, design: Design) -> FittedModel | None:
    """Return the same model fitted to another design; None where that fails."""
    try:
        estimate = _estimate(model, design)
    except ERRORS_OF_A_REFIT:
        return None
    return replace(model, design=design, estimate=estimate) if estimate.convergence.ok else None


def _estimate(model: FittedModel, design: Design) -> Estimate:
    if model.family.is_linear:
        return reml.estimate(cross_products(design), reml=model.method == "reml")
    identifiability.check_identified(design, model.family)
    identifiability.check_separation(design, model.family)
    return maximum.maximum_likelihood(prepare(design, model.family), n_agq=model.estimate.n_agq)


# ------------------------------------------------------------------------------ of two models


def null_statistics(
    null: FittedModel,
    large: Design,
    n: int,
    *,
    seed: int | None = None,
    first: int = 0,
    executor: Executor | None = None,
) -> tuple[Array, Flags]:
    """Return likelihood-ratio statistics of two models under the smaller one.

    Parameters
    ----------
    null : FittedModel
        The smaller model, by the method of both.
    large : Design
        Of the larger model, on the same rows; X of full column rank.
    n : int
        Number of replicates.
    seed : int, optional
    first : int
        The number of the first replicate, so that a sequence can be continued.
    executor : concurrent.futures.Executor, optional
        Takes the work in parts; the result is the same.

    Returns
    -------
    statistics : ndarray, shape (n,)
        nan where a refit failed.
    failed : ndarray of bool, shape (n,)
    """
    _check(null.method, n)
    if null.family.is_linear:
        models = rivals(null.design, large, null.estimate, reml=null.method == "reml")
        return likelihood_ratios(models, n, seed, first=first, executor=executor)
    sides = [_side(null, null), _side(replace(null, design=large), refitted(null, large))]
    seeds = seeds_of_replicates(entropy_of(seed), n, first)
    parts = [seeds[start : start + BATCH_GENERALIZED] for start in range(0, n, BATCH_GENERALIZED)]
    statistics = np.concatenate([*mapped(executor, partial(_ratios, null, sides), parts)])
    return statistics, np.isnan(statistics)


def _side(model: FittedModel, fitted: FittedModel | None) -> _RowByRow:
    """Return what fits one of two generalised models to the same responses, for its deviances."""
    refits = None if fitted is None else generalized_refitter(fitted)
    return _RowByRow(model, _deviance, refits, _deviances)


def _deviance(refit: FittedModel) -> Array:
    return np.array([-2 * refit.estimate.loglik])


def _deviances(_: Design, refits: GeneralizedRefits) -> Array:
    return refits.objective[:, None].copy()


def _ratios(null: FittedModel, sides: Sequence[_RowByRow], seeds: Seeds) -> Array:
    """Return likelihood-ratio statistics of responses drawn from the small model."""
    return _ratios_of(sides, np.array([simulated_response(null, seed) for seed in seeds]))


def ratios_of(small: FittedModel, large: FittedModel, y: Array) -> Array:
    """Return likelihood-ratio statistics of responses, wherever these are from.

    Parameters
    ----------
    small, large : FittedModel
        Two generalised models of one design's rows, fitted to a response like these.
    y : ndarray, shape (B, n)

    Returns
    -------
    ndarray, shape (B,)
        nan where a refit failed.
    """
    sides = [_side(model, model) for model in (small, large)]
    parts = [
        _ratios_of(sides, y[a : a + BATCH_GENERALIZED]) for a in range(0, len(y), BATCH_GENERALIZED)
    ]
    return np.concatenate(parts)


def _ratios_of(sides: Sequence[_RowByRow], y: Array) -> Array:
    small, large = (side.of(y)[0][:, 0] for side in sides)
    worse = small - large < -RATIO_ROUNDING  # a maximum that is not the highest
    if worse.any():
        small[worse], large[worse] = (side.alone(y[worse])[0][:, 0] for side in sides)
    ratios = small - large
    return np.where(ratios < RATIO_ROUNDING, 0.0, ratios)
