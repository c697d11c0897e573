"""REML and ML estimates of a Gaussian model: optimise the criterion, return to the user's scale.

The optimiser works on the elements of Lambda in the basis of the cross-products, without bounds:
the criterion is even in every column of Lambda, so that a variance of zero is an ordinary
stationary point, and the sign of the curvature there says whether it is a minimum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranef import lmm
from ranef.covariance import Shape, factors, lower_factor, pack
from ranef.crossproducts import CrossProducts, residual_sums
from ranef.errors import Convergence
from ranef.estimates import Estimate
from ranef.optimize import Optimum, Step, minimize
from ranef.threads import threads_for

Array = NDArray[np.float64]

NEARLY_ZERO = 0.03  # a relative sd for which zero is tried
FEW_ROWS = 100  # up to which several starts are tried
SINGULAR = 1e-4  # a relative sd that counts as zero, as lme4's isSingular


def estimate(cross: CrossProducts, *, reml: bool) -> Estimate:
    """Minimise the profiled deviance (ML) or the REML criterion.

    Starts from the moments of the data; with few rows, where the criterion can have several
    minima, from two larger covariances too, and keeps the lowest.
    """
    shapes = cross.shapes

    def best_from(start: Array) -> Optimum:
        return minimize(
            lambda x: criterion(cross, factors(x, shapes), reml=reml),
            start,
            simplify=lambda x: pack([_simplest(f) for f in factors(x, shapes)], shapes),
        )

    with threads_for(len(cross.rest)):
        starts = [moment_start(cross)]
        if cross.n <= FEW_ROWS and shapes:
            identity = pack([np.eye(s.k) for s in shapes], shapes)
            starts += [identity, 3 * identity]
        optimum = min(map(best_from, starts), key=lambda found: round(found.value, 9))
        return at_optimum(cross, optimum, reml=reml)


def moment_start(cross: CrossProducts) -> Array:
    """Return a diagonal Lambda for every term from the moments of the least-squares residuals.

    With s_l the residuals' sums Z_l'e and D_l = Z_l'Z_l, E s_l^2 / sigma^2 is about
    D_l + Lambda^2 D_l^2 for each coefficient, as if it were the only one. Kept within 0.1 and 3.
    """
    variance = cross.rest[-1, -1] / (cross.n - cross.p)
    starts = [np.empty(0)] * len(cross.shapes)
    for term, D, s in residual_sums(cross):
        excess = (s**2 / variance - D).sum(axis=0) / (D**2).sum(axis=0)
        starts[term] = np.diag(np.sqrt(np.clip(excess, 0.01, 9.0)))
    return pack(starts, cross.shapes)


def criterion(cross: CrossProducts, Lambdas: list[Array], *, reml: bool) -> tuple[float, Array]:
    """Return the criterion and its gradient in the free elements; inf where it overflows."""
    nowhere = np.inf, np.zeros(sum(s.n_theta for s in cross.shapes))
    with np.errstate(all="ignore"):
        try:
            factorized = lmm.factorize(cross, Lambdas)
        except np.linalg.LinAlgError:
            return nowhere
        if not factorized.r2 > 0:
            return nowhere
        slopes = lmm.gradient(factorized, reml=reml)
        return factorized.criterion(reml=reml), pack(slopes, cross.shapes)


def at_optimum(cross: CrossProducts, optimum: Optimum, *, reml: bool) -> Estimate:
    """Compute all estimates at the optimum of the criterion."""
    Lambdas = factors(optimum.x, cross.shapes)
    factorized = lmm.factorize(cross, Lambdas)
    variance = factorized.r2 / (cross.n - cross.p if reml else cross.n)
    beta, unscaled = lmm.fixed_effects(factorized)
    inverses = [np.linalg.inv(T) for T in cross.bases]
    users = users_factors(cross, Lambdas)
    singular = tuple(_smallest_sd(f) < SINGULAR for f in Lambdas)
    converged = optimum.convergence
    if converged.ok and any(singular):
        converged = Convergence.SINGULAR
    covariances = lmm.conditional_covariances(factorized)
    return Estimate(
        theta=pack(users, cross.shapes),
        Lambdas=tuple(users),
        beta=beta,
        vcov=variance * unscaled,
        sigma=float(np.sqrt(variance)),
        b=tuple(b @ T.T for b, T in zip(lmm.modes(factorized), inverses, strict=True)),
        b_cov=tuple(variance * (T @ c @ T.T) for c, T in zip(covariances, inverses, strict=True)),
        objective=optimum.value,
        singular=singular,
        convergence=converged,
        decrement=optimum.decrement,
        evaluations=optimum.evaluations,
        trace=tuple(_on_users_scale(cross, step) for step in optimum.trace),
    )


def users_factors(cross: CrossProducts, Lambdas: list[Array]) -> list[Array]:
    """Return the relative factors on the user's scale, triangular with diagonal >= 0."""
    roots = [np.linalg.solve(T, f) for T, f in zip(cross.bases, Lambdas, strict=True)]
    return [_canonical(r, s) for r, s in zip(roots, cross.shapes, strict=True)]


def basis_factors(cross: CrossProducts, theta: Array) -> list[Array]:
    """Return the relative factors in the basis of the cross-products for a user's theta."""
    users = factors(np.asarray(theta, dtype=np.float64), cross.shapes)
    roots = [T @ f for T, f in zip(cross.bases, users, strict=True)]
    return [_canonical(r, s) for r, s in zip(roots, cross.shapes, strict=True)]


def _canonical(root: Array, shape: Shape) -> Array:
    return lower_factor(root) if shape.correlated else np.diag(np.abs(np.diag(root)))


def _on_users_scale(cross: CrossProducts, step: Step) -> tuple[float, Array]:
    users = users_factors(cross, factors(step.x, cross.shapes))
    return step.value, pack(users, cross.shapes)


def _simplest(Lambda: Array) -> Array:
    """Return a factor of nearly the same covariance whose smallest sds are exactly zero."""
    if not np.tril(Lambda, -1).any():  # diagonal: each element by itself
        return np.where(np.abs(Lambda) < NEARLY_ZERO, 0.0, Lambda)
    vectors, sds, _ = np.linalg.svd(Lambda)
    small = sds < NEARLY_ZERO * max(1.0, sds[0])
    return lower_factor(vectors * np.where(small, 0.0, sds)) if small.any() else Lambda


def _smallest_sd(Lambda: Array) -> float:
    return float(np.linalg.svd(Lambda, compute_uv=False)[-1])
