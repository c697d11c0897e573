"""REML and ML refits of many responses to one design, and likelihood-ratio statistics of them.

All replicates go together, from the estimates of the data; where a variance is small, from a second
start too. Replicates that do not end in a minimum go one by one, and all replicates do where a
structure has many crossed effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from ranef._typing import Array, Executor, Flags, Places
from ranef.covariances.covariance import (
    NEARLY_ZERO_SD,
    Covariance,
    factors,
    n_theta,
    simplest,
    theta_of,
)
from ranef.design.design import Design
from ranef.likelihood.bootstrap.many_responses import Shared, profiles, response_columns, shared_by
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Responses,
    Span,
    entropy_of,
    null_of,
    responses,
    seeds_of_replicates,
    simulated,
    span,
    with_response,
)
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear import reml as engine
from ranef.likelihood.linear.crossproducts import CrossProducts, cross_products
from ranef.likelihood.linear.optimum.starts import (
    FEW_ROWS,
    moment_start,
    multiple_of_identity,
    starts_from,
)
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import lowest
from ranef.numerics.minimize_many import Minima, minimized
from ranef.progress import mapped

SMALL_RELATIVE_SD = 0.2  # below which another start is tried
MIN_SD_OF_START = 0.1  # a relative sd
SD_OF_OTHER_START = 1.0  # a relative sd
RATIO_ROUNDING = 1e-8  # a likelihood-ratio statistic below it is zero: an ordinary value
MIN_RELATIVE_GAIN = 1e-10  # of another start, over the size of the value
MAX_RELATIVE_LOSS = 1e-10  # of a point with exact zeros
BATCH = 2500  # replicates that are simulated together


@dataclass(frozen=True, eq=False)
class Refits:
    """Estimates of B replicates.

    Attributes
    ----------
    x : ndarray, shape (B, d)
        Free elements of the relative factors, in the basis of the cross-products.
    objective : ndarray, shape (B,)
        The REML criterion or the deviance.
    beta : ndarray, shape (B, p)
    sigma : ndarray, shape (B,)
    failed : ndarray of bool, shape (B,)
        The replicates without estimates; all other numbers are nan there.
    """

    x: Array
    objective: Array
    beta: Array
    sigma: Array
    failed: Flags

    def at(self, which: Places) -> Refits:
        """Return the estimates of some replicates."""
        return Refits(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Refitter:
    """A design whose response is replaced again and again.

    Attributes
    ----------
    cross : CrossProducts
    shared : Shared or None
        None where replicates are fitted one by one.
    start : ndarray, shape (d,)
        Free elements of the relative factors, in the basis, from which each search starts.
    reml : bool
    """

    cross: CrossProducts
    shared: Shared | None
    start: Array
    reml: bool

    def refit(self, drawn: Responses) -> Refits:
        """Return the estimates of every replicate."""
        with threads_for(len(self.cross.fixed)):
            if self.shared is None:
                parts = [self._one(drawn, i) for i in range(len(drawn))]
            else:
                step = self.shared.step
                parts = [
                    self._together(self.shared, drawn.at(np.arange(a, min(a + step, len(drawn)))))
                    for a in range(0, len(drawn), step)
                ]
        return joined(parts)

    def again(self, drawn: Responses, which: Places) -> Refits:
        """Return the estimates of some replicates with all the care of a single fit."""
        return joined([self._one(drawn, int(i), careful=True) for i in which])

    def _together(self, shared: Shared, drawn: Responses) -> Refits:
        y, cross = response_columns(shared, drawn), self.cross

        def search(start: Array, which: Places) -> Minima:
            def objective(x: Array, who: Places) -> tuple[Array, Array]:
                criterion = profiles(shared, y.at(which[who]), x, reml=self.reml)
                return criterion.value, criterion.gradient

            return minimized(objective, start)

        few = cross.n <= FEW_ROWS
        start = np.tile(self.start, (len(drawn), 1))
        minima = best_minima(search, start, cross.covariances, several=few)
        best = profiles(shared, y, minima.x, reml=self.reml)
        refits = self._gathered(drawn, minima.x, best.value, best.gamma, best.r2)
        unsettled = np.flatnonzero(~minima.settled | refits.failed)
        if not len(unsettled):
            return refits
        return replaced(refits, unsettled, self.again(drawn, unsettled))

    def _one(self, drawn: Responses, i: int, *, careful: bool = False) -> Refits:
        """Fit one replicate as a fit of its own."""
        cross = with_response(self.cross, drawn, i)
        optimum = _fitted(cross, self.start, reml=self.reml, careful=careful)
        if optimum is None:
            x, gamma = np.full(len(self.start), np.nan), np.full(cross.p, np.nan)
            value = r2 = np.nan
        else:
            x, profile = optimum
            gamma, value, r2 = profile.gamma, profile.value, profile.r2
        values, gammas = np.array([value]), gamma[None]
        return self._gathered(drawn.at(np.array([i])), x[None], values, gammas, np.array([r2]))

    def _gathered(
        self, drawn: Responses, x: Array, value: Array, gamma: Array, r2: Array
    ) -> Refits:
        cross = self.cross
        failed = ~(np.isfinite(value) & np.isfinite(x).all(axis=1))
        nu = cross.n - cross.p if self.reml else cross.n
        beta = drawn.beta_ols + gamma @ np.linalg.inv(cross.R).T
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt(r2 / nu)
        refits = Refits(x.copy(), value.copy(), beta, sigma, failed)
        for numbers in (refits.x, refits.objective, refits.beta, refits.sigma):
            numbers[failed] = np.nan
        return refits


def best_minima(
    search: Callable[[Array, Places], Minima],
    start: Array,
    covariances: Sequence[Covariance],
    *,
    several: bool,
) -> Minima:
    """Return the lowest minimum of each replicate, at an sd of zero where that is as good.

    Parameters
    ----------
    search : callable
        From starts, shape (b, d), and the places of their replicates, (b,), to minima.
    start : ndarray, shape (B, d)
        The last elements are those of the factors.
    covariances : sequence of Covariance
    several : bool
        Whether every replicate is searched from a second start, or those with a small sd.
    """
    minima, lead = search(start, np.arange(len(start))), start.shape[1] - n_theta(covariances)
    if lead == start.shape[1]:
        return minima
    limit = np.inf if several else SMALL_RELATIVE_SD
    which = np.flatnonzero(_smallest_sds(minima.x[:, lead:], covariances) < limit)
    others = minima.x[which]
    others[:, lead:] = multiple_of_identity(SD_OF_OTHER_START, covariances)
    minima = minima.improved(search(others, which), which, -MIN_RELATIVE_GAIN)
    which = np.flatnonzero(_smallest_sds(minima.x[:, lead:], covariances) < NEARLY_ZERO_SD)
    simple = minima.x[which]
    for x in simple:
        x[lead:] = simplest(x[lead:], covariances)
    return minima.improved(search(simple, which), which, MAX_RELATIVE_LOSS)


def _smallest_sds(x: Array, covariances: Sequence[Covariance]) -> Array:
    """Return the least of all terms' smallest sds over their largest, or 1, shape (B,)."""
    smallest = np.full(len(x), np.inf)
    for Lambda in factors(x, covariances):
        sds = np.linalg.svd(np.nan_to_num(Lambda), compute_uv=False)
        smallest = np.minimum(smallest, sds[:, -1] / np.maximum(1.0, sds[:, 0]))
    return smallest


def refitter(design: Design, cross: CrossProducts, theta: Array, *, reml: bool) -> Refitter:
    """Prepare the refits of a design.

    Parameters
    ----------
    design : Design
    cross : CrossProducts
        Of this design.
    theta : ndarray
        The relative covariance parameters, on the user's scale, near which replicates are.
    reml : bool
    """
    return Refitter(cross, shared_by(design, cross), start_near(cross, theta), reml)


def start_near(cross: CrossProducts, theta: Array) -> Array:
    """Return the elements of the factors in the basis, with none of the sds zero.

    The criterion is even in every column of a factor, and so at rest where a column is zero.
    """
    Lambdas = factors(engine.basis_theta(cross, theta), cross.covariances)
    return theta_of([without_zeros(Lambda) for Lambda in Lambdas], cross.covariances)


def without_zeros(Lambda: Array) -> Array:
    """Return a factor, shape (k, k), none of whose diagonal elements is nearly zero."""
    sds, start = np.diagonal(Lambda), Lambda.copy()
    np.fill_diagonal(start, np.where(np.abs(sds) < MIN_SD_OF_START, MIN_SD_OF_START, sds))
    return start


def joined(parts: Sequence[Refits]) -> Refits:
    """Return the refits of several sets of replicates as one."""
    names = [field.name for field in fields(Refits)]
    return Refits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def replaced(refits: Refits, which: Places, others: Refits) -> Refits:
    """Return refits with some of them replaced."""
    order = np.arange(len(refits.failed))
    order[which] = len(order) + np.arange(len(which))
    return joined([refits, others]).at(order)


def _fitted(
    cross: CrossProducts, start: Array, *, reml: bool, careful: bool
) -> tuple[Array, engine.ProfiledCriterion] | None:
    """Minimise the criterion of one response; None where that fails.

    From where the data's own fit is; with care from the usual starts too.
    """
    covariances = cross.covariances
    if not cross.fixed[-1, -1] > 0:  # a response without residuals
        return None
    objective = engine.CurvedCriterion(cross, reml=reml)
    first = engine.minimum(objective, [start])
    sds = [engine.smallest_sd(Lambda) for Lambda in factors(first.x, covariances)]
    is_small = min(sds, default=np.inf) < SMALL_RELATIVE_SD
    optima = [first]
    if len(start) and (careful or is_small or not first.convergence.ok):
        others = starts_from(moment_start(cross), covariances, several=careful)
        optima += [engine.minimum(objective, [x]) for x in others]
    usable = [optimum for optimum in optima if optimum.convergence.ok]
    if not usable:
        return None
    best = lowest(usable)
    return best.x, engine.profiled(
        blocked_cholesky.factorize(cross, factors(best.x, covariances)), reml=reml
    )


# ----------------------------------------------------------------- likelihood-ratio statistics


@dataclass(frozen=True, eq=False)
class Rivals:
    """Two models of the same rows, to be fitted to the same simulated responses.

    Attributes
    ----------
    columns : Span
        Of both; the small model is the first.
    null : Null
        The fitted small model.
    small, large : Refitter
    """

    columns: Span
    null: Null
    small: Refitter
    large: Refitter


def rivals(small: Design, large: Design, estimate: Estimate, *, reml: bool) -> Rivals:
    """Prepare likelihood-ratio statistics of two models under the small one.

    Parameters
    ----------
    small, large : Design
        On the same rows, with the same weights and offset; X of full column rank.
    estimate : Estimate
        Of the small model, by the same criterion.
    reml : bool
        The restricted likelihoods, for models with the same space of fixed effects; else ML.

    Raises
    ------
    DataError
        If the rows, responses, weights or offsets differ.
    """
    columns = span(small, large)
    crosses = cross_products(small), cross_products(large)
    theta = engine.estimate(crosses[1], reml=reml).theta
    return Rivals(
        columns,
        null_of(estimate),
        refitter(small, crosses[0], estimate.theta, reml=reml),
        refitter(large, crosses[1], theta, reml=reml),
    )


def likelihood_ratios(
    models: Rivals,
    n: int,
    seed: int | None = None,
    *,
    first: int = 0,
    executor: Executor | None = None,
) -> tuple[Array, Flags]:
    """Return likelihood-ratio statistics of responses drawn from the small model.

    Parameters
    ----------
    models : Rivals
    n : int
        How many.
    seed : int, optional
    first : int
        The number of the first replicate: statistics of the same seed go on where others ended.
    executor : concurrent.futures.Executor, optional
        Takes the work in parts; the result is the same.

    Returns
    -------
    statistics : ndarray, shape (n,)
        Twice the difference of the (restricted) log-likelihoods, zeros included; nan where a
        refit failed. Restricted likelihoods are those of orthonormal fixed columns.
    failed : ndarray of bool, shape (n,)
    """
    seeds = seeds_of_replicates(entropy_of(seed), n, first)
    parts = [seeds[start : start + BATCH] for start in range(0, n, BATCH)]
    statistics = np.concatenate([*mapped(executor, partial(_ratios, models), parts)])
    return statistics, np.isnan(statistics)


def _ratios(models: Rivals, seeds: Sequence[np.random.SeedSequence]) -> Array:
    sums = simulated(models.columns, models.null, seeds)
    both = models.small, models.large
    drawn = [responses(models.columns, sums, model.cross, i) for i, model in enumerate(both)]
    refits = [model.refit(replicates) for model, replicates in zip(both, drawn, strict=True)]
    statistic = _contrast(models, refits)
    worse = np.flatnonzero(statistic < -RATIO_ROUNDING)  # a minimum that is not the lowest
    if len(worse):
        refits = [
            replaced(first, worse, model.again(replicates, worse))
            for model, replicates, first in zip(both, drawn, refits, strict=True)
        ]
        statistic = _contrast(models, refits)
    return np.where(statistic < RATIO_ROUNDING, 0.0, statistic)


def _contrast(models: Rivals, refits: Sequence[Refits]) -> Array:
    """Return the difference of the criteria, whatever the units of the fixed columns."""
    small, large = (
        r.objective - (2 * np.log(np.abs(np.diag(model.cross.R))).sum() if model.reml else 0.0)
        for model, r in zip((models.small, models.large), refits, strict=True)
    )
    return np.asarray(small - large)
