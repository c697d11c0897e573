"""The parametric bootstrap: a model fitted again to responses that are simulated from its fit.

For a Gaussian model the cross-products of responses are drawn and refitted, many at a time. For
other families, and for a statistic of the user's own, responses are drawn row by row.

Source: Davison and Hinkley (1997), *Bootstrap Methods and their Application*, chapters 2 and 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array, Flags
from ranef.arguments import check_counts, check_seed
from ranef.covariances.covariance import Shape
from ranef.design import identifiability
from ranef.design.design import Design
from ranef.errors import DataError, DataWarning, FitError, probability, suggestion, warn
from ranef.fits.point import PointFit
from ranef.fits.tables import Summary
from ranef.likelihood.bootstrap.many_responses import unpacked
from ranef.likelihood.bootstrap.refits import Refits, Refitter, likelihood_ratios, refitter, rivals
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Span,
    children,
    entropy_of,
    null_of,
    responses,
    simulated,
    span,
)
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.generalized.pirls import NoModesError
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.predictions import Draws
from ranef.likelihood.predictions import simulated as simulated_rows

type Seeds = Sequence[np.random.SeedSequence]
type Statistic = Callable[[PointFit], Any]

TOGETHER = 2500  # replicates of a task that are fitted together
APART = 10  # ... one by one
ABSENT = 1e-10  # an sd that counts as zero, over what it is made of
FAILED = (FitError, DataError, NoModesError, np.linalg.LinAlgError)
KINDS = ("percentile", "basic")
_CRITERIA = {"reml": "REML", "ml": "maximum likelihood"}


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap:
    """Estimates of simulated responses.

    Attributes
    ----------
    estimates : DataFrame
        One row for each replicate that could be fitted, by its number; one column for each
        parameter, or number of the statistic.
    failures : int
        How many replicates are missing.
    seed : int
        What makes the same replicates again.
    original : Series
        The same numbers of the fit that was simulated from.
    criterion : str
        By what the model was fitted.
    """

    estimates: pd.DataFrame
    failures: int
    seed: int
    original: pd.Series[float]
    criterion: str

    def se(self) -> pd.Series[float]:
        """Return the standard deviations over replicates."""
        return self.estimates.std().rename("se")

    def bias(self) -> pd.Series[float]:
        """Return the means over replicates minus the original."""
        return (self.estimates.mean() - self.original).rename("bias")

    def confint(self, prob: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Return bootstrap intervals.

        Parameters
        ----------
        prob : float
        kind : {"percentile", "basic"}
            Quantiles of the replicates; or the original plus what it lacks in these, mirrored.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`, one row for each column of `estimates`. A correlation
            that is not defined, beside a variance of zero, is left out of its quantiles.

        Notes
        -----
        Quantiles are interpolated between order statistics on the normal scale: Davison and
        Hinkley (1997), eq. 5.8, as in R's boot and in lme4.
        """
        tail = (1 - probability(prob)) / 2
        if kind not in KINDS:
            raise FitError(
                f"kind={kind!r} is not a bootstrap interval. {suggestion(str(kind), KINDS)}"
            )
        if tail * (len(self.estimates) + 1) < 1:
            warn(
                f"{len(self.estimates)} replicates are too few for {100 * prob:g} % intervals: "
                "their ends are the smallest and the largest replicates.",
                DataWarning,
            )
        columns = (values.dropna().to_numpy() for _, values in self.estimates.items())
        bounds = np.array([_quantiles(values, (tail, 1 - tail)) for values in columns])
        bounds = bounds.reshape(-1, 2)
        if kind == "basic":
            bounds = 2 * self.original.to_numpy()[:, None] - bounds[:, ::-1]
        return pd.DataFrame(bounds, index=self.estimates.columns, columns=["lower", "upper"])

    def summary(self, prob: float = 0.95) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        table = pd.DataFrame({"estimate": self.original, "bias": self.bias(), "se": self.se()})
        table = table.join(self.confint(prob))
        return Summary(
            title=f"Parametric bootstrap: {len(self.estimates)} fits of simulated responses",
            facts=(f"by {self.criterion}; seed={self.seed}",),
            sections=((f"Estimates, with {100 * prob:g} % percentile intervals", table),),
            notes=tuple(self._notes()),
            frame=table,
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.failures:
            count = f"{self.failures} replicate{'s' * (self.failures > 1)}"
            notes.append(f"{count} could not be fitted and are missing.")
        zero = (self.estimates == 0).mean()
        notes += [
            f"{name} is zero in {share:.1%} of the replicates."
            for name, share in zero.items()
            if str(name).startswith("sd_") and share > 0
        ]
        absent = self.estimates.isna().sum()
        notes += [
            f"{name} is not defined in {count} replicates, which are left out of its numbers."
            for name, count in absent.items()
            if count
        ]
        return notes

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def _quantiles(values: Array, probs: Sequence[float]) -> list[float]:
    """Return quantiles, interpolated between order statistics on the normal scale."""
    R, ordered = len(values), np.sort(values)
    if not R:
        return [np.nan] * len(probs)
    found = []
    for prob in probs:
        rank = (R + 1) * prob
        k = int(np.floor(rank + 1e-9))
        if k < 1 or k >= R:
            found.append(float(ordered[0 if k < 1 else -1]))
            continue
        low, at, high = special.ndtri([k / (R + 1), prob, (k + 1) / (R + 1)])
        share = (at - low) / (high - low) if rank > k else 0.0
        found.append(float(ordered[k - 1] + share * (ordered[k] - ordered[k - 1])))
    return found


def replicate(
    fit: PointFit,
    n: int,
    *,
    statistic: Statistic | None = None,
    seed: int | None = None,
    executor: Executor | None = None,
) -> Bootstrap:
    """Fit a model again to responses that are simulated from its fit.

    Parameters
    ----------
    fit : PointFit
        By REML or ML, of any family.
    n : int
        Number of replicates.
    statistic : callable, optional
        From a fit to a number, a Series or a dict of numbers; all parameters by default.
    seed : int, optional
        Each replicate has a seed of its own, made of this one and its number.
    executor : concurrent.futures.Executor, optional
        Takes the work in parts; the result is the same.

    Raises
    ------
    FitError
        If the fit is not by REML or ML, the statistic is not numbers, or no replicate can be
        fitted.
    """
    _check(fit, n, seed)
    entropy, plain = entropy_of(seed), replace(fit, engine=None)
    task: Callable[[Seeds], tuple[Array, Flags]]
    if statistic is None and fit.family.is_normal:
        original = fit.estimates()
        task = together = _together(plain)
        size = TOGETHER if together.refitter.shared is not None else APART
    else:
        own = PointFit.estimates if statistic is None else statistic
        original = _numbers(own(fit))
        names = tuple(original.index)
        task, size = _OneByOne(plain, own, names), APART
    seeds = children(entropy, n)
    parts = [seeds[start : start + size] for start in range(0, n, size)]
    results = list(map(task, parts) if executor is None else executor.map(task, parts))
    found = np.concatenate([part for part, _ in results])
    fitted = ~np.concatenate([failed for _, failed in results])
    if not fitted.any():
        raise FitError(
            f"the model could not be fitted to any of {n} simulated responses, so that there is "
            "no bootstrap."
        )
    estimates = pd.DataFrame(found, columns=original.index).rename_axis("replicate")[fitted]
    failures = int((~fitted).sum())
    return Bootstrap(estimates, failures, entropy, original, _CRITERIA[fit.method])


def _check(fit: PointFit, n: int, seed: int | None) -> None:
    check_counts(n=n)
    check_seed(seed)
    if fit.method not in _CRITERIA:
        raise FitError(
            f"a fit by method={fit.method!r} has no parametric bootstrap, which is about the "
            'sampling distribution of estimates: use a fit by "reml" or "ml", or the posterior.'
        )


# ------------------------------------------------------------------------- many at a time


@dataclass(frozen=True, eq=False)
class _Together:
    """Draws and refits responses of a Gaussian model; returns all parameters, and which failed."""

    columns: Span
    null: Null
    refitter: Refitter
    beta: Array

    def __call__(self, seeds: Seeds) -> tuple[Array, Flags]:
        cross = self.refitter.cross
        sums = simulated(self.columns, self.null, seeds)
        drawn = responses(self.columns, sums, cross, beta=self.beta)
        found = self.refitter.refit(drawn)
        return parameters(self.refitter, found), found.failed


def _together(fit: PointFit) -> _Together:
    design, estimate, cross = fit.design, fit.estimate, cross_products(fit.design)
    refits = refitter(design, cross, estimate.theta, reml=fit.method == "reml")
    return _Together(span(design), null_of(estimate), refits, estimate.beta)


def parameters(model: Refitter, found: Refits) -> Array:
    """Return all parameters of refits, shape (B, d), in the order of `PointFit.estimates`."""
    shapes = model.cross.shapes
    parts = [found.beta, found.sigma[:, None]]
    for T, Lambda, shape in zip(model.cross.bases, unpacked(found.x, shapes), shapes, strict=True):
        parts += _sds(np.linalg.inv(T), Lambda, found.sigma, shape)
    return np.concatenate(parts, axis=1)


def _sds(to_users: Array, Lambda: Array, sigma: Array, shape: Shape) -> list[Array]:
    """Return the sds of a term, shape (B, k), and its correlations, if it has any."""
    root = to_users @ Lambda
    length = np.linalg.norm(root, axis=2)
    most = np.linalg.norm(np.abs(to_users) @ np.abs(Lambda), axis=2)
    length = np.where(length <= ABSENT * most, 0.0, length)
    sds = sigma[:, None] * length
    if not shape.correlated or shape.k == 1:
        return [sds]
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = root @ root.swapaxes(1, 2) / (length[:, :, None] * length[:, None, :])
    corr = np.where((length[:, :, None] * length[:, None, :]) > 0, corr, np.nan)
    return [sds, np.clip(corr[:, *np.triu_indices(shape.k, 1)], -1.0, 1.0)]


# ----------------------------------------------------------------------------- one by one


@dataclass(frozen=True, eq=False)
class _OneByOne:
    """Draws responses row by row, fits the model again and asks for a statistic."""

    fit: PointFit
    statistic: Statistic
    names: tuple[object, ...]

    def __call__(self, seeds: Seeds) -> tuple[Array, Flags]:
        found = np.full((len(seeds), len(self.names)), np.nan)
        failed = np.ones(len(seeds), dtype=bool)
        for i, seed in enumerate(seeds):
            again = refitted(self.fit, simulated_response(self.fit, seed))
            if again is not None:
                numbers = _numbers(self.statistic(again))
                if tuple(numbers.index) != self.names:
                    raise FitError(
                        "the statistic must have the same names for every fit; it has "
                        f"{list(numbers.index)} for a replicate, {list(self.names)} for the data."
                    )
                found[i], failed[i] = numbers.to_numpy(), False
        return found, failed


def _numbers(value: object) -> pd.Series[float]:
    """Return what a statistic answers as a Series of numbers."""
    if isinstance(value, Mapping):
        value = pd.Series(dict(value), dtype=object)
    if not isinstance(value, pd.Series):
        value = pd.Series([value], index=["statistic"], dtype=object)
    try:
        return value.astype(np.float64).rename("estimate")
    except (TypeError, ValueError):
        raise FitError(
            "the statistic must answer with a number, or a Series or dict of numbers, got "
            f"{value.tolist()!r}."
        ) from None


def simulated_response(fit: PointFit, seed: np.random.SeedSequence) -> Design:
    """Return the design of a fit with a response that is drawn from it."""
    estimate, rng = fit.estimate, np.random.default_rng(seed)
    own = {name: np.array([value]) for name, value in fit.parameters.items()}
    draws = Draws(
        beta=estimate.beta[None],
        sigma=own.pop("sigma", None),
        factors=[fit.sigma * Lambda[None] for Lambda in estimate.Lambdas],
        b=[b[None] for b in estimate.b],
        parameters=own,
    )
    y = simulated_rows(fit.design, fit.family, draws, rng, new=True)[:, 0]
    return replace(fit.design, y=y)


def refitted(fit: PointFit, design: Design) -> PointFit | None:
    """Return the same model fitted to another design; None where that fails."""
    try:
        estimate = _estimate(fit, design)
    except FAILED:
        return None
    if not estimate.convergence.ok:
        return None
    return PointFit(design, fit.family, fit.method, estimate)


def _estimate(fit: PointFit, design: Design) -> Estimate:
    if fit.family.is_normal:
        return reml.estimate(cross_products(design), reml=fit.method == "reml")
    identifiability.check_identified(design, fit.family)
    identifiability.check_separation(design, fit.family)
    return maximum.estimate(prepare(design, fit.family), n_agq=fit.estimate.n_agq)


# ------------------------------------------------------------------------------ of two models


def null_statistics(
    null: PointFit, large: Design, n: int, *, seed: int | None = None, first: int = 0
) -> tuple[Array, Flags]:
    """Return likelihood-ratio statistics of two models under the smaller one.

    Parameters
    ----------
    null : PointFit
        The fit of the smaller model, by the method of both.
    large : Design
        Of the larger model, on the same rows; X of full column rank.
    n : int
        Number of replicates.
    seed : int, optional
    first : int
        The number of the first replicate, so that a sequence can be continued.

    Returns
    -------
    statistics : ndarray, shape (n,)
        nan where a refit failed.
    failed : ndarray of bool, shape (n,)
    """
    _check(null, n, seed)
    if null.family.is_normal:
        models = rivals(null.design, large, null.estimate, reml=null.method == "reml")
        return likelihood_ratios(models, n, seed, first=first)
    other = replace(null, design=large, engine=None)
    found = np.full(n, np.nan)
    for i, child in enumerate(children(entropy_of(seed), n, first)):
        design = simulated_response(null, child)
        fits = refitted(null, design), refitted(other, replace(large, y=design.y))
        if fits[0] is not None and fits[1] is not None:
            found[i] = max(2 * (fits[1].loglik - fits[0].loglik), 0.0)
    return found, np.isnan(found)
