"""The posterior mode of the variance parameters: maximum a posteriori, or penalised likelihood.

beta and b are integrated out, so that with flat priors this is REML. Priors count as densities of
sds, correlation matrices and sigma themselves, and the optimiser works on the elements of Lambda
as for REML: a variance of zero is an ordinary point.

Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), *Psychometrika* 78, 685-709.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import Covariance, factors, pull_back, simplest, theta_of
from ranef.errors import FitError
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.maximum import NOWHERE, covariance_of, gathered
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.reml import (
    FEW_ROWS,
    Solution,
    at_optimum,
    moment_start,
    starts_from,
    users_theta,
)
from ranef.numerics.finite_differences import standardised_hessian
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import Optimum, best_of
from ranef.posterior.generalized_posterior import GeneralizedPosterior
from ranef.posterior.linear_posterior import LinearPosterior, marginal
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.transforms import MIN_VALUE


def posterior_mode(target: LinearPosterior) -> Estimate:
    """Maximise the posterior density of the variance parameters of a Gaussian model.

    Raises
    ------
    FitError
        If a prior fixes the sd of a random effect.
    """
    penalty = _Marginal(target)
    return penalty.at(_best(penalty, moment_start(target.cross), few=target.cross.n <= FEW_ROWS))


def estimate_jointly(joint: GeneralizedPosterior) -> Estimate:
    """Maximise the posterior density of all parameters of a generalised model.

    Raises
    ------
    FitError
        If a prior fixes the sd of a random effect.
    """
    penalty, model = _Joint(joint), joint.model
    sigma = joint.space.values(joint.start())[0][joint.space.n_given]
    start = theta_of([f / sigma for f in model.Lambdas], model.covariances)
    return penalty.at(_best(penalty, start, few=len(model.offset) <= FEW_ROWS))


def _best(penalty: _Penalty, theta: Array, *, few: bool) -> Optimum:
    """Return the best optimum of three starts with few rows, where there can be several."""
    with threads_for(penalty.target.width):
        lead = penalty.start()
        thetas = starts_from(theta, penalty.covariances, several=few)
        starts = [np.append(lead, theta) for theta in thetas]
        return best_of(penalty, starts, units=penalty.units(theta), simplify=penalty.simplify)


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
    """

    value: float
    leading: Array
    Lambdas: list[Array]


@dataclass(frozen=True, eq=False)
class _Penalty(ABC):
    """-2 times the log posterior density, as a function of given values, log sigma and Lambda."""

    target: LogPosterior

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

    @property
    @abstractmethod
    def covariances(self) -> tuple[Covariance, ...]:
        """The covariance of each term."""

    @abstractmethod
    def likelihood(self, values: Array, Lambdas: list[Array]) -> LikelihoodSlopes | None:
        """Return the likelihood at given values, sigma and relative factors."""

    @property
    def lead(self) -> int:
        """The number of given values, and sigma if it is free."""
        space = self.target.space
        return int((space.free <= space.n_given).sum())

    def units(self, theta: Array) -> Array | None:  # noqa: ARG002 -- those near this theta
        """Return about the standard errors of all coordinates, as a matrix; None for ones."""
        return None

    def start(self) -> Array:
        """Return where given values and log sigma start."""
        return self.target.start()[: self.lead]

    def simplify(self, x: Array) -> Array:
        """Return a point nearby with variances of exactly zero."""
        return np.append(x[: self.lead], simplest(x[self.lead :], self.covariances))

    def __call__(self, x: Array) -> tuple[float, Array]:
        space, lead = self.target.space, self.lead
        Lambdas = factors(x[lead:], self.covariances)
        with np.errstate(all="ignore"):
            values, logp, slope = self._leading(x)
            sigma = values[space.n_given]
            likelihood = self.likelihood(values, Lambdas)
            if likelihood is None:
                return np.inf, np.zeros_like(x)
            try:
                priors = [self._prior(t, Lambda, sigma) for t, Lambda in enumerate(Lambdas)]
            except np.linalg.LinAlgError:
                return np.inf, np.zeros_like(x)
            total = likelihood.value + logp + sum(p[0] for p in priors)
            if not np.isfinite(total):
                return np.inf, np.zeros_like(x)
            gradient = np.empty_like(x)
            by_value = likelihood.leading.copy()
            by_value[-1] += sum(p[2] for p in priors)
            gradient[:lead] = slope[0] + by_value[space.free[:lead]] * slope[1]
            by_Lambdas = [p[1] + s for p, s in zip(priors, likelihood.Lambdas, strict=True)]
            gradient[lead:] = pull_back(by_Lambdas, x[lead:], self.covariances)
        return -2 * total, -2 * gradient

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

    def _prior(self, term: int, Lambda: Array, sigma: float) -> tuple[float, Array, float]:
        """Return the log prior of a term, and its derivatives by Lambda and by log sigma."""
        target, space = self.target, self.target.space
        sd, partial = space.places[term]
        back = np.linalg.inv(target.bases[term])
        R = back @ Lambda
        lengths = np.linalg.norm(R, axis=1)
        by_row, by_sigma, logp = np.zeros(len(R)), 0.0, 0.0
        coordinates = dict(zip(space.free.tolist(), space.coordinates, strict=True))
        for row, place in enumerate(range(sd.start, sd.stop)):
            c, scale = coordinates[place], 1.0 if space.relative[place] else sigma
            log_sd = np.log(max(scale * lengths[row], MIN_VALUE))
            _, _, log_prior, slope = c.at(log_sd, natural=True)
            logp += log_prior
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


class _Marginal(_Penalty):
    """The penalty of a Gaussian model, with beta and b integrated out."""

    target: LinearPosterior

    @property
    def covariances(self) -> tuple[Covariance, ...]:
        return self.target.cross.covariances

    def likelihood(self, values: Array, Lambdas: list[Array]) -> LikelihoodSlopes | None:
        target, g = self.target, self.target.space.n_given
        try:
            factorized = blocked_cholesky.factorize(target.condensed, Lambdas)
            density = marginal(factorized, target.fixed, values[g], values[:g])
        except np.linalg.LinAlgError:
            return None
        slopes = [-slope / 2 for slope in blocked_cholesky.gradient(factorized, density.slope)]
        leading = np.append(density.d_given, density.d_sigma * values[g])
        return LikelihoodSlopes(density.value, leading, slopes)

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
        return at_optimum(target.cross, optimum, factorized, solution)


class _Joint(_Penalty):
    """The penalty of a generalised model, with b integrated out."""

    target: GeneralizedPosterior

    @property
    def covariances(self) -> tuple[Covariance, ...]:
        return self.target.model.covariances

    def likelihood(self, values: Array, Lambdas: list[Array]) -> LikelihoodSlopes | None:
        joint, g = self.target, self.target.space.n_given
        sigma = values[g]
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
            trace=tuple((step.value, self._users_theta(step.x)) for step in optimum.trace),
            n_agq=joint.n_agq,
        )

    def units(self, theta: Array) -> Array:
        """Return about the standard errors of all coordinates, as a matrix."""
        joint = self.target
        sigma = joint.space.values(joint.start())[0][joint.space.n_given]
        sds = joint.model.theta_units([sigma * f for f in factors(theta, self.covariances)])
        leading = joint.units()[: self.lead, : self.lead]
        return np.asarray(linalg.block_diag(leading, np.diag(sds / sigma)))

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

    def _users_theta(self, x: Array) -> Array:
        """Return theta on the user's scale."""
        model = self.target.model
        return users_theta(
            model.bases, model.covariances, factors(x[self.lead :], model.covariances)
        )
