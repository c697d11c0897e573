"""The posterior mode of the variance parameters: maximum a posteriori, or penalised likelihood.

beta and b are integrated out, so that with flat priors this is REML. Priors count as densities of
sds, correlation matrices and sigma themselves. The optimiser works on the elements of Lambda as for
REML, so that a variance of zero is an ordinary point; where correlations have a prior, on sds and
partial correlations, for the same reason.

Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), *Psychometrika* 78, 685-709.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.by_sds import BySds, with_smooth_correlations
from ranef.covariances.covariance import (
    Covariance,
    by_term,
    factors,
    pull_back,
    simplest,
    theta_of,
)
from ranef.errors import FitError
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.maximum import NOWHERE, covariance_of, gathered
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.optimum.average_information import (
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
    starts_from,
)
from ranef.likelihood.linear.reml import Report, Solution, at_optimum, on_users_scale, telling
from ranef.numerics.finite_differences import forward_hessian, standardised_hessian
from ranef.numerics.matrices import threads_for
from ranef.numerics.minima.newton import newton
from ranef.numerics.minimize import Optimum, Step, best_of
from ranef.posterior.generalized_posterior import GeneralizedPosterior
from ranef.posterior.linear_posterior import LinearPosterior, Marginal, marginal
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.transforms import MIN_VALUE, coordinate_of


def posterior_mode(target: LinearPosterior, report: Report | None = None) -> Estimate:
    """Maximise the posterior density of the variance parameters of a Gaussian model.

    Parameters
    ----------
    target : LinearPosterior
    report : callable, optional
        Is told of every step when it is taken.

    Raises
    ------
    FitError
        If a prior fixes the sd of a random effect, or has no mode.
    """
    penalty = _Marginal(target, report)
    few, start = target.cross.n <= FEW_ROWS, moment_start(target.cross)
    return penalty.at(_best(penalty, start, all_starts, few=few))


def estimate_jointly(joint: GeneralizedPosterior, report: Report | None = None) -> Estimate:
    """Maximise the posterior density of all parameters of a generalised model.

    Parameters
    ----------
    joint : GeneralizedPosterior
    report : callable, optional
        Is told of every step when it is taken.

    Raises
    ------
    FitError
        If a prior fixes the sd of a random effect, or has no mode.
    """
    penalty, model = _Joint(joint, report), joint.model
    sigma = joint.space.values(joint.start())[0][joint.space.n_given]
    start = theta_of([f / sigma for f in model.Lambdas], model.covariances)
    return penalty.at(_best(penalty, start, starts_from, few=model.n_obs <= FEW_ROWS))


def _best(
    penalty: _Penalty, theta: Array, others: Callable[..., list[Array]], *, few: bool
) -> Optimum:
    """Return the best optimum of several starts with few rows, where there can be several."""
    with threads_for(penalty.target.width):
        lead = penalty.start()
        start = theta_of(factors(theta, penalty.structures), penalty.covariances)
        thetas = others(start, penalty.covariances, several=few)
        return penalty.minimum([np.append(lead, start) for start in thetas], start)


@dataclass(frozen=True, eq=False)
class LikelihoodSlopes:
    """A log-likelihood and its derivatives.

    Attributes
    ----------
    value : float
    leading : ndarray, shape (n_given + 1,)
        By the given effects and own parameters, and by log sigma.
    Lambdas : list of ndarray, shape (k, k)
        By the relative factors in the basis.
    curvature : ndarray, shape (n_given + 1 + d, n_given + 1 + d)
        About its second derivatives, by theta in the place of the factors; empty if not known.
    """

    value: float
    leading: Array
    Lambdas: list[Array]
    curvature: Array = field(default_factory=lambda: np.empty((0, 0)))


@dataclass(frozen=True, eq=False)
class _Penalty(ABC):
    """-2 times the log posterior density, as a function of given values, log sigma and Lambda."""

    target: LogPosterior
    report: Report | None = None

    def __post_init__(self) -> None:
        space = self.target.space
        for covariance in space.covariances:
            covariance.check_free("a posterior mode")
        known = np.isfinite(space.known)
        for sd, _ in space.places:
            for place in np.flatnonzero(known[sd]) + sd.start:
                raise FitError(
                    f"the prior of `{space.names[place]}` is a constant: a posterior mode keeps no "
                    'standard deviation of random effects fixed; use method="mcmc" or "laplace".'
                )
        for place, c in zip(space.free, space.coordinates, strict=True):
            if place > space.n_given and (where := c.without_mode) is not None:
                raise FitError(
                    f"the prior of `{space.names[place]}` has no greatest density, but rises "
                    f"without end towards {where}, so that there is no mode: use another prior, "
                    'such as LKJ(2) or HalfNormal(1), or method="mcmc" or "laplace".'
                )

    @property
    @abstractmethod
    def structures(self) -> tuple[Covariance, ...]:
        """The covariance of each term."""

    @cached_property
    def powers(self) -> list[float]:
        """The power of each term's determinant of correlations that is its prior; zero if none."""
        space = self.target.space
        coordinates = dict(zip(space.free.tolist(), space.coordinates, strict=True))
        partials = [partial for _, partial in space.places]
        return [coordinates[p.start].b if p.stop > p.start else 0.0 for p in partials]

    @cached_property
    def covariances(self) -> tuple[Covariance, ...]:
        """The covariance of each term, by the parameters that are searched."""
        return with_smooth_correlations(self.structures, self.target.bases, self.powers)

    def of_structures(self, step: Step) -> Step:
        """Return a step with theta as the structures have it."""
        theta = theta_of(factors(step.x[self.lead :], self.covariances), self.structures)
        return replace(step, x=np.append(step.x[: self.lead], theta))

    def telling(self, bases: Sequence[Array]) -> Callable[[Step], None] | None:
        """Return what tells of a step on the user's scale, if anybody is to be told."""
        tell = telling(bases, self.structures, self.report)
        return tell and (lambda step: tell(self.of_structures(step)))

    @abstractmethod
    def likelihood(self, values: Array, theta: Array) -> LikelihoodSlopes | None:
        """Return the likelihood at given values, sigma and theta in the basis."""

    @abstractmethod
    def minimum(self, starts: Sequence[Array], theta: Array) -> Optimum:
        """Return the lowest optimum from some starts, of which theta is the best known."""

    @property
    def lead(self) -> int:
        """The number of given values, and sigma if it is free."""
        space = self.target.space
        return int((space.free <= space.n_given).sum())

    def start(self) -> Array:
        """Return where given values and log sigma start."""
        return self.target.start()[: self.lead]

    def simplify(self, x: Array) -> Array:
        """Return a point nearby with variances of exactly zero."""
        return np.append(x[: self.lead], simplest(x[self.lead :], self.covariances))

    def __call__(self, x: Array) -> tuple[float, Array]:
        return self.curved(x)[:2]

    def curved(self, x: Array) -> tuple[float, Array, Array]:
        """Return the value, the gradient and, where the likelihood knows it, about the Hessian."""
        space, lead, nowhere = self.target.space, self.lead, np.zeros_like(x)
        with np.errstate(all="ignore"):
            values, _, (_, chain) = self._leading(x)
            likelihood = self.likelihood(values, x[lead:])
            if likelihood is None:
                return np.inf, nowhere, np.diag(nowhere)
            value, gradient = self.of_priors(x)
            value -= 2 * likelihood.value
            if not np.isfinite(value):
                return np.inf, nowhere, np.diag(nowhere)
            gradient[:lead] -= 2 * likelihood.leading[space.free[:lead]] * chain
            gradient[lead:] -= 2 * pull_back(likelihood.Lambdas, x[lead:], self.covariances)
            if not likelihood.curvature.size:
                return value, gradient, likelihood.curvature
            kept = [*space.free[:lead], *range(space.n_given + 1, len(likelihood.curvature))]
            scale = np.append(chain, np.ones(len(x) - lead))
            curvature = likelihood.curvature[np.ix_(kept, kept)] * np.outer(scale, scale)
            curvature += np.nan_to_num(forward_hessian(self.of_priors, x))
        return value, gradient, curvature

    def of_priors(self, x: Array) -> tuple[float, Array]:
        """Return -2 times the log density of the priors, and its gradient; may be infinite."""
        lead, gradient = self.lead, np.zeros_like(x)
        thetas = by_term(x[lead:], self.covariances)
        with np.errstate(all="ignore"):
            values, logp, (slopes, chain) = self._leading(x)
            sigma = values[self.target.space.n_given]
            priors = [self._prior(t, theta, sigma) for t, theta in enumerate(thetas)]
            has_sigma = self.target.space.free[:lead] == self.target.space.n_given
            gradient[:lead] = slopes + has_sigma * sum(p[2] for p in priors) * chain
            gradient[lead:] = np.concatenate([gradient[:0], *(p[1] for p in priors)])
            return -2 * (logp + sum(p[0] for p in priors)), -2 * gradient

    def _leading(self, x: Array) -> tuple[Array, float, tuple[Array, Array]]:
        """Return given effects and sigma, their log prior, its slopes, and their own slopes.

        Slopes are by the coordinates; sigma's own is that of log sigma.
        """
        space = self.target.space
        values, logp = space.known[: space.n_given + 1].copy(), 0.0
        slopes, chain = np.empty(self.lead), np.empty(self.lead)
        for i in range(self.lead):
            c, place = space.coordinates[i], space.free[i]
            value, slope, log_prior, slopes[i] = c.at(x[i], natural=True)
            values[place] = value
            logp += log_prior
            chain[i] = slope / value if place == space.n_given else slope
        return values, logp, (slopes, chain)

    def _prior(self, term: int, theta: Array, sigma: float) -> tuple[float, Array, float]:
        """Return the log prior of a term, and its derivatives by theta and by log sigma."""
        covariance = self.covariances[term]
        if isinstance(covariance, BySds):
            sds = np.abs(covariance.sds(theta))
            logp, by_theta = covariance.log_density(theta, self.powers[term])
            by_row, of_sds, by_sigma = self._prior_of_sds(term, sds, sigma)
            by_theta[: len(sds)] = np.where(sds > 0, by_row / theta[: len(sds)], 0.0)
            return logp + of_sds, by_theta, by_sigma
        back = np.linalg.inv(self.target.bases[term])
        R = back @ covariance.factor(theta)
        sds = np.linalg.norm(R, axis=1)
        by_row, logp, by_sigma = self._prior_of_sds(term, sds, sigma)
        by_R = np.where(sds > 0, by_row / sds**2, 0.0)[:, None] * R
        return logp, covariance.pull_back(back.T @ by_R, theta), by_sigma

    def _prior_of_sds(self, term: int, sds: Array, sigma: float) -> tuple[Array, float, float]:
        """Return the log prior's derivatives by the log sds of a term, itself, and by log sigma."""
        space, by_row, logp, by_sigma = self.target.space, np.zeros(len(sds)), 0.0, 0.0
        coordinates = dict(zip(space.free.tolist(), space.coordinates, strict=True))
        for row, sd in enumerate(sds):
            place = space.places[term][0].start + row
            scale = 1.0 if space.relative[place] else sigma
            log_sd = np.log(max(scale * sd, MIN_VALUE))
            _, _, log_prior, by_row[row] = coordinates[place].at(log_sd, natural=True)
            logp += log_prior
            by_sigma += 0.0 if space.relative[place] else by_row[row]
        return by_row, logp, by_sigma


@dataclass(frozen=True, eq=False)
class _Marginal(_Penalty):
    """The penalty of a Gaussian model, with beta and b integrated out."""

    target: LinearPosterior

    @property
    def structures(self) -> tuple[Covariance, ...]:
        return self.target.cross.covariances

    def minimum(self, starts: Sequence[Array], theta: Array) -> Optimum:  # noqa: ARG002
        tell = self.telling(self.target.cross.bases)
        cross, lead, space = self.target.cross, self.lead, self.target.space

        def beside(best: Optimum) -> list[Array]:
            given, found = np.split(best.x, [lead])
            thetas = starts_beside(found, self.covariances, few=cross.n <= FEW_ROWS)
            starts = [np.append(given, x) for x in thetas]
            for x, sigma in no_pooling_starts(cross, self.covariances):
                # sigma is the last of what is given, where it is not known
                moved = coordinate_of(space.coordinates[lead - 1], sigma) if lead else 0.0
                start = np.append(np.where(space.free[:lead] == space.n_given, moved, given), x)
                starts += [start] if self(start)[0] < best.value else []
            return starts

        return newton(self.curved, starts, simplify=self.simplify, report=tell, beside=beside)

    def likelihood(self, values: Array, theta: Array) -> LikelihoodSlopes | None:
        target, g = self.target, self.target.space.n_given
        try:
            factorized = blocked_cholesky.factorize(
                target.condensed, factors(theta, self.covariances)
            )
            density = marginal(factorized, target.fixed, values[g], values[:g])
        except np.linalg.LinAlgError:
            return None
        information = self._information(factorized, density, values, theta)
        scores = blocked_cholesky.scores(factorized, density.slope, overwrite=True)
        slopes = [2 * G @ Lambda for G, Lambda in zip(scores, factorized.Lambdas, strict=True)]
        information[g + 1 :, g + 1 :] += of_factors(slopes, scores, theta, self.covariances)
        leading = np.append(density.d_given, density.d_sigma * values[g])
        return LikelihoodSlopes(density.value, leading, [-s / 2 for s in slopes], information)

    def _information(
        self,
        factorized: blocked_cholesky.Factorized,
        density: Marginal,
        values: Array,
        theta: Array,
    ) -> Array:
        """Return the average information of given effects, log sigma, and theta."""
        fixed, g = self.target.fixed, self.target.space.n_given
        variance = values[g] ** 2
        contrast = fixed.turn(values[:g]) @ np.append(-density.gamma, 1.0)
        known = fixed.J @ density.gamma_cov @ fixed.J.T
        directions = by_theta(theta, factorized.Lambdas, self.covariances)
        of_theta = average_information(factorized, contrast, known, directions)
        left = np.eye(len(known)) - factorized.reduced[:-1, :-1] @ known
        A = np.empty((g + 1 + len(theta), g + 1 + len(theta)))
        A[:g, :g] = fixed.given.T @ left @ factorized.reduced[:-1, :-1] @ fixed.given
        A[:g, g] = 2 * variance * density.d_given
        A[:g, g + 1 :] = fixed.given.T @ left @ of_theta.fixed[:-1]
        A[g, g] = 2 * contrast @ factorized.reduced @ contrast
        A[g, g + 1 :] = of_theta.once
        A[g + 1 :, g + 1 :] = of_theta.twice / 2
        A = np.triu(A)
        return np.asarray((A + A.T - np.diag(np.diag(A))) * 2 / variance)

    def at(self, optimum: Optimum) -> Estimate:
        """Compute all estimates at the mode."""
        target, space = self.target, self.target.space
        values, _, _ = self._leading(optimum.x)
        sigma, given = float(values[space.n_given]), values[: space.n_given]
        Lambdas = factors(optimum.x[self.lead :], self.covariances)
        factorized = blocked_cholesky.factorize(target.cross, Lambdas)
        density = marginal(factorized, target.fixed, sigma, given)
        solution = Solution(
            gamma=target.fixed.J @ density.gamma + target.fixed.offset(given),
            beta=target.fixed.effects(density.gamma, given),
            vcov=target.fixed.covariance(sigma**2 * density.gamma_cov),
            sigma=sigma,
            loglik=density.value,
        )
        found = replace(optimum, trace=tuple(map(self.of_structures, optimum.trace)))
        return at_optimum(target.cross, found, factorized, solution)


class _Joint(_Penalty):
    """The penalty of a generalised model, with b integrated out."""

    target: GeneralizedPosterior

    @property
    def structures(self) -> tuple[Covariance, ...]:
        return self.target.model.covariances

    def minimum(self, starts: Sequence[Array], theta: Array) -> Optimum:
        tell = self.telling(self.target.model.bases)
        return best_of(self, starts, units=self.units(theta), simplify=self.simplify, report=tell)

    def likelihood(self, values: Array, theta: Array) -> LikelihoodSlopes | None:
        joint, g = self.target, self.target.space.n_given
        sigma, Lambdas = values[g], factors(theta, self.covariances)
        likelihood = joint.evaluate(joint.at(values, [sigma * f for f in Lambdas]))
        if likelihood is None:
            return None
        by_value = joint.by_effects(likelihood, values)
        slopes = [sigma * slope for slope in likelihood.Lambdas]
        by_value[g] *= sigma
        by_value[g] += sum(float(np.vdot(s, f)) for s, f in zip(slopes, Lambdas, strict=True))
        return LikelihoodSlopes(likelihood.value, by_value[: g + 1], slopes)

    def at(self, optimum: Optimum) -> Estimate:
        """Compute all estimates at the mode."""
        joint = self.target
        values, Lambdas = self._absolute(optimum.x)
        likelihood = joint.evaluate(joint.at(values, Lambdas))
        if likelihood is None:
            raise FitError(NOWHERE)
        return gathered(
            joint.model,
            optimum,
            beta=joint.change @ values[: joint.p],
            vcov=joint.change @ self._covariance(optimum.x) @ joint.change.T,
            psi=joint.own(values),
            Lambdas=Lambdas,
            modes=likelihood.modes,
            loglik=likelihood.value,
            trace=on_users_scale(
                joint.model.bases, self.structures, list(map(self.of_structures, optimum.trace))
            ),
            n_agq=joint.n_agq,
        )

    def units(self, theta: Array) -> Array:
        """Return about the standard errors of all coordinates, as a matrix."""
        joint = self.target
        sigma = joint.space.values(joint.start())[0][joint.space.n_given]
        sds = joint.model.theta_units([sigma * f for f in factors(theta, self.covariances)])
        units = [
            np.append(
                np.diag(structure.factor(of_term / sigma)), np.full(len(structure.pairs), 0.5)
            )
            if isinstance(covariance, BySds)
            else of_term / sigma
            for of_term, structure, covariance in zip(
                by_term(sds, self.structures), self.structures, self.covariances, strict=True
            )
        ]
        leading = joint.units()[: self.lead, : self.lead]
        return np.asarray(linalg.block_diag(leading, np.diag(np.concatenate([sds[:0], *units]))))

    def _covariance(self, x: Array) -> Array:
        """Return the covariance of the fixed effects, zero for those that are known."""
        space, lead, units = self.target.space, self.lead, self.units(x[self.lead :])
        _, _, (_, slopes) = self._leading(x)
        free = np.zeros((space.n_given + 1, lead))  # what is known has no variance
        free[space.free[:lead]] = slopes[:, None] * units[:lead, :lead]
        information = standardised_hessian(self, x, units) / 2
        p = self.target.p
        return np.asarray((free @ covariance_of(information, lead) @ free.T)[:p, :p])

    def _absolute(self, x: Array) -> tuple[Array, list[Array]]:
        """Return given values and sigma, and the factors in the basis, sigma included."""
        values, _, _ = self._leading(x)
        sigma = values[self.target.space.n_given]
        return values, [sigma * f for f in factors(x[self.lead :], self.covariances)]
