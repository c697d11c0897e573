"""REML and ML estimates of a Gaussian model: optimise the criterion, return to the user's scale.

The optimiser works on the elements of Lambda in the basis of the cross-products, without bounds:
the criterion is even in every column of Lambda, so that a variance of zero is an ordinary
stationary point, and the sign of the curvature there says whether it is a minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import (
    Covariance,
    factors,
    n_theta,
    pull_back,
    simplest,
    theta_of,
)
from ranef.errors import Convergence
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import CrossProducts, residual_sums
from ranef.likelihood.linear.equal_levels import condensed
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import Optimum, Step, best_of

EVALUATIONS = 10  # of the criterion, until it is at its minimum
FEW_ROWS = 100  # up to which several starts are tried
SIZES_OF_OTHER_STARTS = (1.0, 3.0)  # relative sds
GREAT_SIZE = 30.0  # a relative sd of a start
SHARE_OF_ITS_OWN = 0.1  # of the sd of a coefficient of a start that varies with the others
LIMIT_LENGTH = 1e4  # of theta, as good as endless: sigma is zero
NEGLIGIBLE_GAIN = 1e-4  # of the criterion, which sets no sigma apart from zero
MIN_RELATIVE_SD = 1e-4  # below which a standard deviation counts as zero, as lme4's isSingular
TINY = np.finfo(np.float64).tiny


def estimate(cross: CrossProducts, *, reml: bool) -> Estimate:
    """Minimise the profiled deviance (ML) or the REML criterion.

    Starts from the moments of the data; with few rows, where the criterion can have several
    minima, from larger covariances and from strong correlations too, and keeps the lowest.
    """
    covariances, few = cross.covariances, cross.n <= FEW_ROWS
    fewer = condensed(cross, evaluations=EVALUATIONS)
    with threads_for(len(cross.fixed)):
        starts = starts_from(moment_start(cross), covariances, several=few) + far_starts(cross)
        optimum = best_of(
            lambda x: criterion(fewer, x, reml=reml),
            starts,
            simplify=lambda x: simplest(x, covariances),
        )
        if _falls_as_sigma_vanishes(cross, optimum, starts if few else [], reml=reml):
            optimum = replace(optimum, convergence=Convergence.EXACT)
        factorized = blocked_cholesky.factorize(cross, factors(optimum.x, covariances))
        return at_optimum(cross, optimum, factorized, _solution(factorized, reml=reml))


def moment_start(cross: CrossProducts) -> Array:
    """Return a diagonal Lambda for every term from the moments of the least-squares residuals.

    With s_l the residuals' sums Z_l'e and D_l = Z_l'Z_l, E s_l^2 / sigma^2 is about
    D_l + Lambda^2 D_l^2 for each coefficient, as if it were the only one. Kept within 0.1 and 3.
    """
    variance = max(cross.fixed[-1, -1], TINY) / max(cross.n - cross.p, 1)
    starts = [np.empty(0)] * len(cross.covariances)
    for term, D, s in residual_sums(cross):
        excess = (s**2 / variance - D).sum(axis=0) / (D**2).sum(axis=0)
        starts[term] = np.diag(np.sqrt(np.clip(excess, 0.01, 9.0)))
    return theta_of(starts, cross.covariances)


def starts_from(start: Array, covariances: Sequence[Covariance], *, several: bool) -> list[Array]:
    """Return a start, theta in the basis, and if several are wanted two larger ones."""
    sizes = SIZES_OF_OTHER_STARTS if several and covariances else ()
    return [start, *(multiple_of_identity(size, covariances) for size in sizes)]


def far_starts(cross: CrossProducts) -> list[Array]:
    """Return starts far from the others, where there are few rows: great or correlated effects."""
    covariances = cross.covariances
    if cross.n > FEW_ROWS or not covariances:
        return []
    starts = [multiple_of_identity(GREAT_SIZE, covariances)]
    for sign in (1.0, -1.0) if any(c.has_correlations for c in covariances) else ():
        roots = []
        for c in covariances:
            together = np.where(np.arange(c.k) > 0, sign, 1.0)
            root = np.column_stack([together, SHARE_OF_ITS_OWN * np.eye(c.k)])
            roots.append(SIZES_OF_OTHER_STARTS[-1] * root)
        starts.append(theta_of(roots, covariances))
    return starts


def _falls_as_sigma_vanishes(
    cross: CrossProducts, optimum: Optimum, starts: Sequence[Array], *, reml: bool
) -> bool:
    """Whether the criterion is as low as at its optimum in the limit of sigma zero.

    With as many effects as rows that limit is finite. It depends on the ratios of the relative
    sds, which are searched at a great length of theta.
    """
    q = sum(m * c.k for m, c in zip(cross.n_levels, cross.covariances, strict=True))
    if not cross.covariances or cross.p + q < cross.n:
        return False
    length = max(LIMIT_LENGTH, float(np.linalg.norm(optimum.x)))

    def at_limit(x: Array) -> tuple[float, Array]:
        size = float(np.linalg.norm(x))
        unit = x / size
        value, gradient = criterion(cross, length * unit, reml=reml)
        return value, length / size * (gradient - unit * (unit @ gradient))

    directions = [x / np.linalg.norm(x) for x in (optimum.x, *starts) if x.any()]
    return best_of(at_limit, directions).value < optimum.value + NEGLIGIBLE_GAIN


def multiple_of_identity(size: float, covariances: Sequence[Covariance]) -> Array:
    """Return theta in the basis for independent coefficients with the same relative sd."""
    return theta_of([size * np.eye(c.k) for c in covariances], covariances)


def criterion(cross: CrossProducts, theta: Array, *, reml: bool) -> tuple[float, Array]:
    """Return the criterion and its gradient at theta in the basis; inf where it overflows."""
    covariances = cross.covariances
    with np.errstate(all="ignore"):
        try:
            factorized = blocked_cholesky.factorize(cross, factors(theta, covariances))
            profile = profiled(factorized, reml=reml)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(theta)
        if not profile.r2 > 0:
            return np.inf, np.zeros_like(theta)
        slopes = blocked_cholesky.gradient(factorized, profile.slope)
        return profile.value, pull_back(slopes, theta, covariances)


def estimate_given_sigma(cross: CrossProducts, sigma: float, *, reml: bool) -> Estimate:
    """Minimise the deviance (ML) or the REML criterion where sigma is known.

    As where the standard error of each row is: then the weights are 1 / s^2, and sigma is 1.
    """
    covariances, fewer = cross.covariances, condensed(cross, evaluations=EVALUATIONS)
    with threads_for(len(cross.fixed)):
        starts = starts_from(moment_start(cross), covariances, several=True) + far_starts(cross)
        optimum = best_of(
            lambda x: criterion_given_sigma(fewer, x, sigma, reml=reml),
            starts,
            simplify=lambda x: simplest(x, covariances),
        )
        factorized = blocked_cholesky.factorize(cross, factors(optimum.x, covariances))
        with np.errstate(all="ignore"):  # a sigma that is not asked for may be zero over zero
            profile, to_users = profiled(factorized, reml=reml), np.linalg.inv(cross.R)
        solution = Solution(
            gamma=profile.gamma,
            beta=cross.beta_ols + to_users @ profile.gamma,
            vcov=sigma**2 * to_users @ profile.gamma_cov @ to_users.T,
            sigma=sigma,
            loglik=-optimum.value / 2,
        )
        return replace(at_optimum(cross, optimum, factorized, solution), n_known=1)


def criterion_given_sigma(
    cross: CrossProducts, theta: Array, sigma: float, *, reml: bool
) -> tuple[float, Array]:
    """Return the criterion for a known sigma, and its gradient, at theta in the basis."""
    covariances, nu = cross.covariances, cross.n - cross.p if reml else cross.n
    with np.errstate(all="ignore"):
        try:
            factorized = blocked_cholesky.factorize(cross, factors(theta, covariances))
            profile = profiled(factorized, reml=reml)
        except np.linalg.LinAlgError:
            return np.inf, np.zeros_like(theta)
        contrast, r2 = np.append(-profile.gamma, 1.0), max(profile.r2, 0.0)
        value = factorized.logdet + nu * np.log(2 * np.pi * sigma**2) - cross.log_weights
        value += r2 / sigma**2
        slope = np.outer(contrast, contrast) / sigma**2
        if reml:
            value += profile.logdet_of_fixed
            slope[:-1, :-1] += profile.gamma_cov
        slopes = blocked_cholesky.gradient(factorized, slope)
        return float(value), pull_back(slopes, theta, covariances)


@dataclass(frozen=True, eq=False)
class ProfiledCriterion:
    """The deviance or the REML criterion with beta and sigma at their optimum.

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
    logdet_of_fixed : float
        The logarithm of the determinant of X' V^-1 X sigma^2.
    """

    value: float
    slope: Array
    gamma: Array
    gamma_cov: Array
    r2: float
    logdet_of_fixed: float


def profiled(factorized: blocked_cholesky.Factorized, *, reml: bool) -> ProfiledCriterion:
    """Profile beta and sigma out of the (restricted) likelihood."""
    cross, K, c = factorized.cross, factorized.reduced[:-1, :-1], factorized.reduced[:-1, -1]
    L = np.linalg.cholesky(K)
    inverse = np.linalg.inv(L)
    gamma_cov, half = inverse.T @ inverse, inverse @ c
    gamma = inverse.T @ half
    r2 = float(factorized.reduced[-1, -1] - half @ half)
    nu = cross.n - cross.p if reml else cross.n
    value = factorized.logdet + nu * (1 + np.log(2 * np.pi * np.divide(r2, nu))) - cross.log_weights
    contrast = np.append(-gamma, 1.0)
    slope = np.divide(nu, r2) * np.outer(contrast, contrast)
    of_fixed = 2 * float(np.log(np.diag(L) * np.abs(np.diag(cross.R))).sum())
    if reml:
        value += of_fixed
        slope[:-1, :-1] += gamma_cov
    return ProfiledCriterion(float(value), slope, gamma, gamma_cov, r2, of_fixed)


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


def _solution(factorized: blocked_cholesky.Factorized, *, reml: bool) -> Solution:
    cross, profile = factorized.cross, profiled(factorized, reml=reml)
    variance = profile.r2 / (cross.n - cross.p if reml else cross.n)
    to_users = np.linalg.inv(cross.R)
    return Solution(
        gamma=profile.gamma,
        beta=cross.beta_ols + to_users @ profile.gamma,
        vcov=variance * to_users @ profile.gamma_cov @ to_users.T,
        sigma=float(np.sqrt(variance)),
        loglik=-profile.value / 2,
    )


def at_optimum(
    cross: CrossProducts,
    optimum: Optimum,
    factorized: blocked_cholesky.Factorized,
    solution: Solution,
) -> Estimate:
    """Gather all estimates at the optimum of a criterion."""
    Lambdas = factorized.Lambdas
    inverses = [np.linalg.inv(T) for T in cross.bases]
    theta = users_theta(cross.bases, cross.covariances, Lambdas)
    singular = tuple(smallest_sd(f) < MIN_RELATIVE_SD for f in Lambdas)
    converged = optimum.convergence
    if converged.ok and any(singular):
        converged = Convergence.SINGULAR
    modes = blocked_cholesky.modes(factorized, solution.gamma)
    covariances = blocked_cholesky.conditional_covariances(factorized)
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
        trace=_on_users_scale(cross, optimum.trace),
    )


def users_theta(
    bases: Sequence[Array], covariances: Sequence[Covariance], Lambdas: Sequence[Array]
) -> Array:
    """Return theta on the user's scale from factors in the basis."""
    return theta_of(
        [np.linalg.solve(T, f) for T, f in zip(bases, Lambdas, strict=True)], covariances
    )


def basis_theta(cross: CrossProducts, theta: Array) -> Array:
    """Return theta in the basis of the cross-products for a user's theta."""
    users = factors(np.asarray(theta, dtype=np.float64), cross.covariances)
    return theta_of([T @ f for T, f in zip(cross.bases, users, strict=True)], cross.covariances)


def _on_users_scale(cross: CrossProducts, steps: Sequence[Step]) -> tuple[tuple[float, Array], ...]:
    """Return the value and theta of every step."""
    x = np.array([step.x for step in steps])
    Lambdas = factors(x[:, x.shape[1] - n_theta(cross.covariances) :], cross.covariances)
    thetas = users_theta(cross.bases, cross.covariances, Lambdas).reshape(len(steps), -1)
    return tuple((step.value, theta) for step, theta in zip(steps, thetas, strict=True))


def smallest_sd(Lambda: Array) -> float:
    """Return the smallest standard deviation of any combination of coefficients."""
    return float(np.linalg.svd(Lambda, compute_uv=False)[-1])
