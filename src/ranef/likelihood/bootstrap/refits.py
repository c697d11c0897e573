"""REML and ML refits of many responses to one design, and likelihood-ratio statistics of them.

All replicates go together, from the estimates of the data; where a variance is small, from a second
start too. What does not end in a minimum, and structures with many crossed effects, go one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Flags, Places
from ranef.covariances.covariance import (
    NEARLY_ZERO_SD,
    factors,
    simplest,
    theta_of,
)
from ranef.design.design import Design
from ranef.likelihood.bootstrap.many_responses import (
    Shared,
    columns_of,
    profiles,
    shared_by,
)
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    Responses,
    Span,
    children,
    entropy_of,
    null_of,
    responses,
    simulated,
    span,
    with_response,
)
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear import reml as engine
from ranef.likelihood.linear.crossproducts import CrossProducts, cross_products
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import Optimum, lowest, minimize
from ranef.numerics.minimize_many import Minima, minimized

NEAR = 0.2  # a relative sd below which another start is tried
AWAY = 0.1  # how far from zero a start is kept
OTHER = 1.0  # the relative sds of the other start
RATIO_ROUNDING = 1e-8  # a likelihood-ratio statistic below it is zero: an ordinary value
BETTER = 1e-10  # what another start has to gain, over the size of the value
AS_GOOD = 1e-10  # what a point with exact zeros may lose
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
        Where there are no estimates; the rest is nan there.
    """

    x: Array
    objective: Array
    beta: Array
    sigma: Array
    failed: Flags


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
        with threads_for(len(self.cross.rest)):
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
        y, cross = columns_of(shared, drawn), self.cross

        def search(start: Array, which: Places) -> Minima:
            def objective(x: Array, who: Places) -> tuple[Array, Array]:
                found = profiles(shared, y.at(which[who]), x, reml=self.reml)
                return found.value, found.gradient

            return minimized(objective, start)

        everyone = np.arange(len(drawn))
        found = search(np.tile(self.start, (len(drawn), 1)), everyone)
        if len(self.start):
            near = self._smallest(found.x) < (NEAR if cross.n > engine.FEW_ROWS else np.inf)
            which = np.flatnonzero(near)
            found = found.improved(
                search(np.tile(self._other, (len(which), 1)), which), which, -BETTER
            )
            which, simple = self._simpler(found.x)
            found = found.improved(search(simple, which), which, AS_GOOD)
        best = profiles(shared, y, found.x, reml=self.reml)
        refits = self._gathered(drawn, found.x, best.value, best.gamma, best.r2)
        left = np.flatnonzero(~found.settled | refits.failed)
        return replaced(refits, left, self.again(drawn, left)) if len(left) else refits

    def _simpler(self, x: Array) -> tuple[Places, Array]:
        """Return which points have sds that are nearly zero, and the points with exact zeros."""
        which = np.flatnonzero(self._smallest(x) < NEARLY_ZERO_SD)
        simple = [simplest(one, self.cross.covariances) for one in x[which]]
        return which, np.array(simple).reshape(len(which), x.shape[1])

    @property
    def _other(self) -> Array:
        return engine.multiple_of_identity(OTHER, self.cross.covariances)

    def _smallest(self, x: Array) -> Array:
        """Return the least of all terms' smallest sds over their largest, or 1, shape (B,)."""
        found = np.full(len(x), np.inf)
        for Lambda in factors(x, self.cross.covariances):
            sds = np.linalg.svd(np.nan_to_num(Lambda), compute_uv=False)
            found = np.minimum(found, sds[:, -1] / np.maximum(1.0, sds[:, 0]))
        return found

    def _one(self, drawn: Responses, i: int, *, careful: bool = False) -> Refits:
        """Fit one replicate as a fit of its own."""
        cross = with_response(self.cross, drawn, i)
        one = drawn.at(np.array([i]))
        found = _fitted(cross, self.start, reml=self.reml, careful=careful)
        if found is None:
            nothing = np.full((1, len(self.start)), np.nan)
            gone = np.array([np.nan])
            return self._gathered(one, nothing, gone, np.full((1, cross.p), np.nan), gone)
        x, profile = found
        value, r2 = np.array([profile.value]), np.array([profile.r2])
        return self._gathered(one, x[None], value, profile.gamma[None], r2)

    def _gathered(
        self, drawn: Responses, x: Array, value: Array, gamma: Array, r2: Array
    ) -> Refits:
        cross = self.cross
        failed = ~(np.isfinite(value) & np.isfinite(x).all(axis=1))
        nu = cross.n - cross.p if self.reml else cross.n
        beta = drawn.beta_ols + gamma @ np.linalg.inv(cross.R).T
        with np.errstate(invalid="ignore"):
            sigma = np.sqrt(r2 / nu)
        found = Refits(x.copy(), value.copy(), beta, sigma, failed)
        for part in (found.x, found.objective, found.beta, found.sigma):
            part[failed] = np.nan
        return found


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
    for Lambda in Lambdas:
        sds = np.diagonal(Lambda)
        np.fill_diagonal(Lambda, np.where(np.abs(sds) < AWAY, AWAY, sds))
    return theta_of(Lambdas, cross.covariances)


def joined(parts: Sequence[Refits]) -> Refits:
    """Return the refits of several sets of replicates as one."""
    return Refits(
        x=np.concatenate([part.x for part in parts]),
        objective=np.concatenate([part.objective for part in parts]),
        beta=np.concatenate([part.beta for part in parts]),
        sigma=np.concatenate([part.sigma for part in parts]),
        failed=np.concatenate([part.failed for part in parts]),
    )


def replaced(refits: Refits, which: Places, others: Refits) -> Refits:
    """Return refits with some of them replaced."""
    order = np.arange(len(refits.failed))
    order[which] = len(order) + np.arange(len(which))
    both = joined([refits, others])
    return Refits(
        both.x[order],
        both.objective[order],
        both.beta[order],
        both.sigma[order],
        both.failed[order],
    )


def _fitted(
    cross: CrossProducts, start: Array, *, reml: bool, careful: bool
) -> tuple[Array, engine.Profile] | None:
    """Minimise the criterion of one response; None where that fails.

    From where the data's own fit is; with care from the usual starts too.
    """
    covariances = cross.covariances
    if not cross.rest[-1, -1] > 0:  # a response without residuals
        return None
    others = engine.starts_from(engine.moment_start(cross), covariances, several=careful)

    def search(x: Array) -> Optimum:
        return minimize(
            lambda x: engine.criterion(cross, x, reml=reml),
            x,
            simplify=lambda x: simplest(x, covariances),
        )

    found = [search(start)]
    near = any(engine.smallest_sd(f) < NEAR for f in factors(found[0].x, covariances))
    if len(start) and (careful or near or not found[0].convergence.ok):
        found += [search(x) for x in others]
    usable = [one for one in found if one.convergence.ok]
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
    models: Rivals, n: int, seed: int | None = None, *, first: int = 0
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

    Returns
    -------
    statistics : ndarray, shape (n,)
        Twice the difference of the (restricted) log-likelihoods, zeros included; nan where a
        refit failed. Restricted likelihoods are those of orthonormal fixed columns.
    failed : ndarray of bool, shape (n,)
    """
    seeds = children(entropy_of(seed), n, first)
    found = [_ratios(models, seeds[a : a + BATCH]) for a in range(0, n, BATCH)]
    statistics = np.concatenate(found)
    return statistics, np.isnan(statistics)


def _ratios(models: Rivals, seeds: Sequence[np.random.SeedSequence]) -> Array:
    sums = simulated(models.columns, models.null, seeds)
    both = models.small, models.large
    drawn = [responses(models.columns, sums, one.cross, i) for i, one in enumerate(both)]
    found = [one.refit(own) for one, own in zip(both, drawn, strict=True)]
    statistic = _contrast(models, found)
    worse = np.flatnonzero(statistic < -RATIO_ROUNDING)  # a minimum that is not the lowest
    if len(worse):
        found = [
            replaced(old, worse, one.again(own, worse))
            for one, own, old in zip(both, drawn, found, strict=True)
        ]
        statistic = _contrast(models, found)
    return np.where(statistic < RATIO_ROUNDING, 0.0, statistic)


def _contrast(models: Rivals, found: Sequence[Refits]) -> Array:
    """Return the difference of the criteria, whatever the units of the fixed columns."""
    small, large = (
        refits.objective - (2 * np.log(np.abs(np.diag(one.cross.R))).sum() if one.reml else 0.0)
        for one, refits in zip((models.small, models.large), found, strict=True)
    )
    return np.asarray(small - large)
