"""The posterior mode of the variance parameters: maximum a posteriori, or penalised likelihood.

beta and b are integrated out, so that with flat priors this is REML. Priors count as densities of
sds, correlation matrices and sigma themselves, and the optimiser works on the elements of Lambda
as for REML: a variance of zero is an ordinary point.

Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), *Psychometrika* 78, 685-709.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranef import lmm
from ranef.covariance import factors, pack
from ranef.densities import Coordinate, evaluate
from ranef.errors import FitError
from ranef.estimates import Estimate
from ranef.laplace import start
from ranef.marginal import Target, marginal
from ranef.optimize import Optimum, minimize
from ranef.reml import FEW_ROWS, Solution, at_optimum, moment_start, simplest
from ranef.threads import threads_for

type Array = NDArray[np.float64]


def estimate(target: Target) -> Estimate:
    """Maximise the posterior density of the variance parameters.

    Raises
    ------
    FitError
        If a prior fixes the sd of a random effect.
    """
    penalty = _Penalty(target)
    cross = target.cross
    with threads_for(len(cross.rest)):
        first = np.concatenate([penalty.start(), moment_start(cross)])
        starts = [first]
        if cross.n <= FEW_ROWS and cross.shapes:
            identity = pack([np.eye(s.k) for s in cross.shapes], cross.shapes)
            lead = first[: len(first) - len(identity)]
            starts += [np.append(lead, identity), np.append(lead, 3 * identity)]
        found = (minimize(penalty, x, simplify=penalty.simplify) for x in starts)
        optimum = min(found, key=lambda one: round(one.value, 9))
        return penalty.at(optimum)


@dataclass(frozen=True, eq=False)
class _Penalty:
    """-2 times the log posterior density, as a function of the given effects, log sigma, Lambda."""

    target: Target

    def __post_init__(self) -> None:
        space = self.target.space
        known = np.isfinite(space.known)
        for sd, _ in space.places:
            for place in np.flatnonzero(known[sd]) + sd.start:
                raise FitError(
                    f"the prior of `{space.names[place]}` is a constant: a posterior mode keeps no "
                    'standard deviation of random effects fixed; use method="mcmc" or "laplace".'
                )

    @property
    def lead(self) -> int:
        """The number of given effects, and sigma if it is free."""
        space = self.target.space
        return int((space.free <= space.n_given).sum())

    def start(self) -> Array:
        """Return where given effects and log sigma start."""
        return start(self.target)[: self.lead]

    def simplify(self, x: Array) -> Array:
        """Return a point nearby with variances of exactly zero."""
        shapes = self.target.cross.shapes
        Lambdas = [simplest(f) for f in factors(x[self.lead :], shapes)]
        return np.append(x[: self.lead], pack(Lambdas, shapes))

    def __call__(self, x: Array) -> tuple[float, Array]:
        target, space, lead = self.target, self.target.space, self.lead
        Lambdas = factors(x[lead:], target.cross.shapes)
        with np.errstate(all="ignore"):
            values, logp, slope = self._leading(x)
            sigma = values[space.n_given]
            try:
                factorized = lmm.factorize(target.cross, Lambdas)
                found = marginal(factorized, target.fixed, sigma, values[: space.n_given])
                priors = [self._prior(t, Lambda, sigma) for t, Lambda in enumerate(Lambdas)]
            except np.linalg.LinAlgError:
                return np.inf, np.zeros_like(x)
            slopes = lmm.gradient(factorized, found.slope)
            total = found.value + logp + sum(p[0] for p in priors)
            if not np.isfinite(total):
                return np.inf, np.zeros_like(x)
            gradient = np.empty_like(x)
            by_value = np.append(found.d_given, found.d_sigma * sigma + sum(p[2] for p in priors))
            gradient[:lead] = slope[0] + by_value[space.free[:lead]] * slope[1]
            parts = [p[1] - s / 2 for p, s in zip(priors, slopes, strict=True)]
            gradient[lead:] = pack(parts, target.cross.shapes)
        return -2 * total, -2 * gradient

    def _leading(self, x: Array) -> tuple[Array, float, tuple[Array, Array]]:
        """Return given effects and sigma, their log prior, its slopes, and those by coordinate.

        The derivative of what depends on sigma is taken by log sigma.
        """
        space = self.target.space
        values, logp = space.known[: space.n_given + 1].copy(), 0.0
        slopes, chain = np.empty(self.lead), np.empty(self.lead)
        for i in range(self.lead):
            c, place = space.coordinates[i], space.free[i]
            value, slope, part, slopes[i] = _density(c, x[i])
            values[place] = value
            logp += part
            chain[i] = slope / value if place == space.n_given else slope
        return values, logp, (slopes, chain)

    def _prior(self, term: int, Lambda: Array, sigma: float) -> tuple[float, Array, float]:
        """Return the log prior of a term, its derivative by Lambda, and that by log sigma."""
        target, space = self.target, self.target.space
        sd, partial = space.places[term]
        back = np.linalg.inv(target.bases[term])
        R = back @ Lambda
        lengths = np.linalg.norm(R, axis=1)
        by_row, by_sigma, logp = np.zeros(len(R)), 0.0, 0.0
        coordinates = dict(zip(space.free.tolist(), space.coordinates, strict=True))
        for row, place in enumerate(range(sd.start, sd.stop)):
            c, scale = coordinates[place], 1.0 if space.relative[place] else sigma
            _, _, part, slope = _density(c, np.log(max(scale * lengths[row], TINY)))
            logp += part
            by_row[row] = slope
            by_sigma += 0.0 if space.relative[place] else slope
        by_R, seen = np.zeros_like(R), lengths > 0
        power = coordinates[partial.start].b if partial.stop > partial.start else 0.0
        if power and seen.sum() > 1:  # det(corr)^power; without correlations where an sd is zero
            cov = R[seen] @ R[seen].T
            logp += power * float(np.linalg.slogdet(cov)[1] - 2 * np.log(lengths[seen]).sum())
            by_R[seen] += 2 * power * np.linalg.solve(cov, R[seen])
            by_row -= 2 * power
        by_R[seen] += (by_row[seen] / lengths[seen] ** 2)[:, None] * R[seen]
        return logp, back.T @ by_R, by_sigma

    def at(self, optimum: Optimum) -> Estimate:
        """Compute all estimates at the mode."""
        target, space = self.target, self.target.space
        values, _, _ = self._leading(optimum.x)
        sigma, given = float(values[space.n_given]), values[: space.n_given]
        Lambdas = factors(optimum.x[self.lead :], target.cross.shapes)
        factorized = lmm.factorize(target.cross, Lambdas)
        found = marginal(factorized, target.fixed, sigma, given)
        solution = Solution(
            gamma=target.fixed.J @ found.gamma + target.fixed.offset(given),
            beta=target.fixed.effects(found.gamma, given),
            vcov=target.fixed.covariance(sigma**2 * found.gamma_cov),
            sigma=sigma,
            loglik=found.value,
        )
        return at_optimum(target.cross, optimum, factorized, solution)


TINY = 1e-300


def _density(c: Coordinate, x: float) -> tuple[float, float, float, float]:
    """Return a parameter, its slope, and its log prior density, with constant, and its slope."""
    value, slope, logp, logp_slope = evaluate(
        c.family, c.transform, c.a, c.b, c.c, x, is_natural=True
    )
    return value, slope, logp + c.constant, logp_slope
