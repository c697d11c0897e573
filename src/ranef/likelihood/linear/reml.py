"""REML and ML estimates of a Gaussian model: optimise the criterion, return to the user's scale.

The optimiser, Newton steps with the average information, works on the elements of Lambda in the
basis of the cross-products, without bounds: the criterion is even in every column of Lambda, so
that a variance of zero is an ordinary stationary point, and the sign of the curvature there, which
is exact, says whether it is a minimum.

Equations `deviance`, `reml-criterion` and `average-information` in docs/mathematics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import (
    Covariance,
    by_term,
    factors,
    n_theta,
    pull_back,
    simplest,
    theta_of,
)
from ranef.errors import Convergence
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.linear.equal_levels import condensed
from ranef.likelihood.linear.expected_information import InnerProducts, tangents
from ranef.likelihood.linear.optimum.average_information import (
    QuadraticInCovariances,
    average_information,
    by_theta,
    of_factors,
)
from ranef.likelihood.linear.optimum.starts import (
    FEW_ROWS,
    all_starts,
    moment_start,
    no_pooling_starts,
    starts_beside,
)
from ranef.numerics.matrices import threads_for
from ranef.numerics.minima.newton import newton
from ranef.numerics.minimize import Optimum, Step, best_of

COSTLY = 2000  # crossed effects from which on an evaluation takes longer than the rest of a fit
MUCH_LESS = 0.5  # of an sd, that takes many steps in theta
MUCH_OF_THE_WAY = 0.75  # towards such an sd
EVALUATIONS = 5  # of the criterion, until it is at its minimum
LIMIT_LENGTH = 1e4  # of theta, as good as endless: sigma is zero
NEGLIGIBLE_GAIN = 1e-4  # of the criterion, which sets no sigma apart from zero
LITTLE_ROUNDING = 1e-3  # of the criterion, which may keep an optimum from being found exactly
MAX_ROUNDING = 1e-2  # with which an optimum can be found
MIN_RELATIVE_SD = 1e-4  # below which a standard deviation counts as zero, as lme4's isSingular


type Report = Callable[[float, Array, float], None]
"""Is told the criterion, theta on the user's scale, and the predicted decrease of every step."""


def estimate(
    cross: CrossProducts,
    *,
    reml: bool,
    sigma: float | None = None,
    products: InnerProducts | None = None,
    report: Report | None = None,
) -> Estimate:
    """Minimise the profiled deviance (ML) or the REML criterion.

    Starts from the moments of the data, and where an evaluation is cheap and the lowest minimum is
    singular, from there with a great sd of what has none; with few rows, where the criterion can
    have several minima, from larger covariances and from strong correlations too, and from the
    lowest minimum without one of its coefficients. Keeps the lowest.

    Parameters
    ----------
    cross : CrossProducts
    reml : bool
    sigma : float, optional
        The residual standard deviation where it is known, as where the standard error of each row
        is: then the weights are 1 / s^2, and sigma is 1.
    products : InnerProducts, optional
        Of the cross-products, if they are at hand.
    report : callable, optional
        Is told of every step when it is taken.
    """
    covariances, few = cross.covariances, cross.n <= FEW_ROWS
    with threads_for(len(cross.fixed)):
        moments = moment_start(cross, products)
        starts = all_starts(moments, covariances, several=few or sigma is not None)
        fewer = condensed(cross, evaluations=EVALUATIONS)
        objective = CurvedCriterion(fewer, sigma, reml=reml)
        optimum = minimum(objective, starts, report=report, beside=not objective.is_costly)
        if sigma is None and _falls_as_sigma_vanishes(
            cross, optimum, starts if few else [], reml=reml
        ):
            optimum = replace(optimum, convergence=Convergence.EXACT)
        if sigma is not None:  # where the criterion is what a user sees at theta, singular or not
            users = users_theta(cross.bases, covariances, factors(optimum.x, covariances))
            optimum = replace(optimum, x=basis_theta(cross, users))
        factorized = objective.inverted_at(optimum.x) if fewer is cross else None
        if factorized is None:
            factorized = blocked_cholesky.factorize(cross, factors(optimum.x, covariances))
            blocked_cholesky.inner_inverse(factorized, overwrite=True)
        solution = _solution(factorized, sigma, reml=reml)
        ended = _ended(optimum, cross, solution.sigma)
        optimum = replace(optimum, value=-2 * solution.loglik, convergence=ended)
        found = at_optimum(cross, optimum, factorized, solution, inverted=True)
        return replace(found, n_known=int(sigma is not None))


def _ended(optimum: Optimum, cross: CrossProducts, sigma: float) -> Convergence:
    """Say how a search ended, given the rounding of the criterion by that of y'y in r^2."""
    ended, rounding = optimum.convergence, np.finfo(np.float64).eps * cross.fixed[-1, -1] / sigma**2
    if ended is Convergence.EXACT:
        return ended
    if not rounding < MAX_ROUNDING:
        return Convergence.ROUNDED
    is_enough = optimum.decrement <= rounding <= LITTLE_ROUNDING
    return Convergence.CONVERGED if is_enough and not ended.ok else ended


def minimum(
    objective: CurvedCriterion,
    starts: Sequence[Array],
    *,
    report: Report | None = None,
    beside: bool = False,
) -> Optimum:
    """Minimise a criterion from some starts, theta in the basis, and beside the lowest minimum."""
    cross = objective.cross

    def others(best: Optimum) -> list[Array]:
        starts = starts_beside(best.x, cross.covariances, few=cross.n <= FEW_ROWS)
        unpooled = no_pooling_starts(cross, cross.covariances)
        return starts + [x for x, _ in unpooled if objective(x)[0] < best.value]

    return newton(
        objective,
        starts,
        simplify=lambda x: simplest(x, cross.covariances),
        report=telling(cross.bases, cross.covariances, report),
        propose=objective.proposed if objective.is_costly else None,
        beside=others if beside else None,
    )


def telling(
    bases: Sequence[Array], covariances: Sequence[Covariance], report: Report | None
) -> Callable[[Step], None] | None:
    """Return what tells of a step on the user's scale, if anybody is to be told."""
    return report and (lambda step: report(*on_users_scale(bases, covariances, [step])[0]))


def _falls_as_sigma_vanishes(
    cross: CrossProducts, optimum: Optimum, starts: Sequence[Array], *, reml: bool
) -> bool:
    """Whether the criterion is as low as at its optimum in the limit of sigma zero.

    With as many effects as rows that limit is finite. It depends on the ratios of the relative
    sds, which are searched at a great length of theta.
    """
    if not cross.covariances or cross.p + sum(cross.sizes) < cross.n:
        return False
    length = max(LIMIT_LENGTH, float(np.linalg.norm(optimum.x)))

    def at_limit(x: Array) -> tuple[float, Array]:
        size = float(np.linalg.norm(x))
        unit = x / size
        value, gradient = criterion(cross, length * unit, reml=reml)
        return value, length / size * (gradient - unit * (unit @ gradient))

    directions = [x / np.linalg.norm(x) for x in (optimum.x, *starts) if x.any()]
    return best_of(at_limit, directions).value < optimum.value + NEGLIGIBLE_GAIN


def criterion(
    cross: CrossProducts, theta: Array, sigma: float | None = None, *, reml: bool
) -> tuple[float, Array]:
    """Return the criterion and its gradient at theta in the basis; inf where it overflows."""
    covariances = cross.covariances
    with np.errstate(all="ignore"):
        try:
            factorized = blocked_cholesky.factorize(cross, factors(theta, covariances))
            profile = profiled(factorized, sigma, reml=reml)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(theta)
        if sigma is None and not profile.r2 > 0:
            return np.inf, np.zeros_like(theta)
        slopes = blocked_cholesky.gradient(factorized, profile.slope)
        return profile.value, pull_back(slopes, theta, covariances)


@dataclass(eq=False)
class CurvedCriterion:
    """The criterion with its gradient and about its Hessian, the average information.

    It keeps what it has made of the factor at the last theta: the inverse, as conditional
    covariances need it.
    """

    cross: CrossProducts
    sigma: float | None = None
    reml: bool = field(kw_only=True)
    last: tuple[Array, blocked_cholesky.Factorized] | None = None
    nearby: QuadraticInCovariances | None = None

    @property
    def is_costly(self) -> bool:
        """Whether an evaluation takes longer than all else."""
        return self.cross.q_rest > COSTLY

    def __call__(self, theta: Array) -> tuple[float, Array, Array]:
        """Return value, gradient and curvature at theta in the basis; inf where it overflows."""
        covariances, d = self.cross.covariances, len(theta)
        nowhere = np.inf, np.zeros(d), np.zeros((d, d))
        self.last = None  # frees the largest array
        with np.errstate(all="ignore"):
            try:
                factorized = blocked_cholesky.factorize(self.cross, factors(theta, covariances))
                profile = profiled(factorized, self.sigma, reml=self.reml)
            except np.linalg.LinAlgError:
                return nowhere
            if self.sigma is None and not profile.r2 > 0:
                return nowhere
            self.last = theta.copy(), factorized
            return self._curved(factorized, profile, theta)

    def inverted_at(self, theta: Array) -> blocked_cholesky.Factorized | None:
        """Return the inverted factor if the criterion was last computed at this theta."""
        is_last = self.last is not None and np.array_equal(self.last[0], theta)
        return self.last[1] if self.last is not None and is_last else None

    def proposed(self, theta: Array) -> Array:
        """Return where the criterion is least as a quadratic function of the covariances.

        That is for a way towards a variance of zero, which is not taken to its end, where a search
        might be caught; elsewhere this returns theta itself.
        """
        covariances, near = self.cross.covariances, self.nearby
        if near is None or not np.array_equal(near.theta, theta):
            return theta
        pairs = [by_term(x, covariances) for x in (theta, newton(near, [theta]).x)]
        proposed, shrinks = [], False
        for covariance, before, after in zip(covariances, *pairs, strict=True):
            sds = [smallest_sd(covariance.factor(x)) for x in (before, after)]
            is_less = sds[1] < MUCH_LESS * sds[0]
            shrinks |= is_less
            proposed.append(before + (MUCH_OF_THE_WAY if is_less else 1.0) * (after - before))
        return np.concatenate(proposed) if shrinks else theta

    def _curved(
        self, factorized: blocked_cholesky.Factorized, profile: ProfiledCriterion, theta: Array
    ) -> tuple[float, Array, Array]:
        covariances = self.cross.covariances
        curvature = self._information(
            factorized, profile, by_theta(theta, factorized.Lambdas, covariances)
        )
        units = [tangents(c) for c in covariances if c.is_free] if self.is_costly else []
        by_units = self._information(factorized, profile, units) if units else np.empty((0, 0))
        scores = blocked_cholesky.scores(factorized, profile.slope, overwrite=True)
        slopes = [2 * G @ Lambda for G, Lambda in zip(scores, factorized.Lambdas, strict=True)]
        curvature += of_factors(slopes, scores, theta, covariances)
        if len(units) == len(covariances):
            self.nearby = QuadraticInCovariances(theta, covariances, scores, units, by_units)
        return profile.value, pull_back(slopes, theta, covariances), curvature

    def _information(
        self,
        factorized: blocked_cholesky.Factorized,
        profile: ProfiledCriterion,
        directions: Sequence[Array],
    ) -> Array:
        """Return the average information, sigma being known or profiled out, along directions."""
        nu = self.cross.n - self.cross.p if self.reml else self.cross.n
        contrast = np.append(-profile.gamma, 1.0)
        found = average_information(factorized, contrast, profile.gamma_cov, directions)
        if self.sigma is not None:
            return np.asarray(found.twice / self.sigma**2)
        variance = profile.r2 / nu
        return found.twice / variance - np.outer(found.once, found.once) / (nu * variance**2)


@dataclass(frozen=True, eq=False)
class ProfiledCriterion:
    """The deviance or the REML criterion with beta, and sigma if it is free, at their optimum.

    Attributes
    ----------
    value : float
        With all constants: Bates et al. (2015), eqs. 34 and 41, with prior weights.
    slope : ndarray, shape (p + 1, p + 1)
        Its derivative with respect to the reduced cross-products.
    gamma, gamma_cov : ndarray, shapes (p,) and (p, p)
        Coefficients in the basis, and their covariance over sigma^2.
    r2 : float
        The penalised residual sum of squares.
    """

    value: float
    slope: Array
    gamma: Array
    gamma_cov: Array
    r2: float


def profiled(
    factorized: blocked_cholesky.Factorized, sigma: float | None = None, *, reml: bool
) -> ProfiledCriterion:
    """Profile beta, and sigma unless it is known, out of the (restricted) likelihood."""
    cross, K, c = factorized.cross, factorized.reduced[:-1, :-1], factorized.reduced[:-1, -1]
    L = np.linalg.cholesky(K)
    inverse = np.linalg.inv(L)
    gamma_cov, half = inverse.T @ inverse, inverse @ c
    gamma = inverse.T @ half
    r2 = float(factorized.reduced[-1, -1] - half @ half)
    nu = cross.n - cross.p if reml else cross.n
    contrast, value = np.append(-gamma, 1.0), factorized.logdet - cross.log_weights
    if sigma is None:
        value += nu * (1 + np.log(2 * np.pi * np.divide(r2, nu)))
        slope = np.divide(nu, r2) * np.outer(contrast, contrast)
    else:
        value += nu * np.log(2 * np.pi * sigma**2) + max(r2, 0.0) / sigma**2
        slope = np.outer(contrast, contrast) / sigma**2
    if reml:
        value += 2 * float(np.log(np.diag(L) * np.abs(np.diag(cross.R))).sum())
        slope[:-1, :-1] += gamma_cov
    return ProfiledCriterion(float(value), slope, gamma, gamma_cov, r2)


@dataclass(frozen=True, eq=False)
class Solution:
    """The estimates given theta.

    Attributes
    ----------
    gamma : ndarray, shape (p,)
        Coefficients of the columns of X in the basis.
    beta, vcov : ndarray
        Fixed effects on the user's scale, and their covariance.
    sigma : float
    loglik : float
        The (restricted) log-likelihood.
    """

    gamma: Array
    beta: Array
    vcov: Array
    sigma: float
    loglik: float


def _solution(
    factorized: blocked_cholesky.Factorized, sigma: float | None = None, *, reml: bool
) -> Solution:
    cross, profile = factorized.cross, profiled(factorized, sigma, reml=reml)
    if sigma is None:
        sigma = float(np.sqrt(profile.r2 / (cross.n - cross.p if reml else cross.n)))
    to_users = np.linalg.inv(cross.R)
    return Solution(
        gamma=profile.gamma,
        beta=cross.beta_ols + to_users @ profile.gamma,
        vcov=sigma**2 * to_users @ profile.gamma_cov @ to_users.T,
        sigma=sigma,
        loglik=-profile.value / 2,
    )


def at_optimum(
    cross: CrossProducts,
    optimum: Optimum,
    factorized: blocked_cholesky.Factorized,
    solution: Solution,
    *,
    inverted: bool = False,
) -> Estimate:
    """Gather all estimates at the optimum of a criterion, from a factor, inverted or not."""
    Lambdas = factorized.Lambdas
    inverses = [np.linalg.inv(T) for T in cross.bases]
    theta = users_theta(cross.bases, cross.covariances, Lambdas)
    singular = tuple(smallest_sd(f) < MIN_RELATIVE_SD for f in Lambdas)
    converged = optimum.convergence
    if converged.ok and any(singular):
        converged = Convergence.SINGULAR
    modes = blocked_cholesky.modes(factorized, solution.gamma)
    covariances = blocked_cholesky.conditional_covariances(factorized, inverted=inverted)
    variance = solution.sigma**2
    return Estimate(
        theta=theta,
        Lambdas=tuple(factors(theta, cross.covariances)),
        beta=solution.beta,
        vcov=solution.vcov,
        sigma=solution.sigma,
        b=tuple(b @ T.T for b, T in zip(modes, inverses, strict=True)),
        b_cov=tuple(variance * (T @ c @ T.T) for c, T in zip(covariances, inverses, strict=True)),
        objective=optimum.value,
        loglik=solution.loglik,
        singular=singular,
        convergence=converged,
        decrement=optimum.decrement,
        evaluations=optimum.evaluations,
        trace=on_users_scale(cross.bases, cross.covariances, optimum.trace),
    )


def users_theta(
    bases: Sequence[Array], covariances: Sequence[Covariance], Lambdas: Sequence[Array]
) -> Array:
    """Return theta on the user's scale, (..., n_theta), from factors in the basis, (..., k, k)."""
    return theta_of(
        [np.linalg.solve(T, f) for T, f in zip(bases, Lambdas, strict=True)], covariances
    )


def basis_theta(cross: CrossProducts, theta: Array) -> Array:
    """Return theta in the basis of the cross-products for a user's theta."""
    users = factors(np.asarray(theta, dtype=np.float64), cross.covariances)
    return theta_of([T @ f for T, f in zip(cross.bases, users, strict=True)], cross.covariances)


def on_users_scale(
    bases: Sequence[Array], covariances: Sequence[Covariance], steps: Sequence[Step]
) -> tuple[tuple[float, Array, float], ...]:
    """Return the value, theta, and the predicted decrease of steps; theta stands last in each."""
    x = np.array([step.x[len(step.x) - n_theta(covariances) :] for step in steps])
    if covariances:
        x = users_theta(bases, covariances, factors(x, covariances))
    return tuple((step.value, theta, step.decrease) for step, theta in zip(steps, x, strict=True))


def smallest_sd(Lambda: Array) -> float:
    """Return the smallest standard deviation of any combination of coefficients."""
    return float(np.linalg.svd(Lambda, compute_uv=False)[-1])
