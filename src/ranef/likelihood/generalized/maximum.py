"""Maximum likelihood of a generalised model: first the variances, then all parameters together.

In the first stage the fixed effects are those of the conditional modes, found together with the
random effects, and the Laplace approximation is maximised over the variances and the family's own
parameters. From there it is, or the quadrature, over all parameters jointly. Both have exact
gradients. Factors are unconstrained as for linear models; a variance of zero is an ordinary point.

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), for the two stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import factors, pull_back, simplest, theta_of
from ranef.errors import Convergence, FitError
from ranef.families.family import Family
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.gauss_hermite import Likelihood, if_any, laplace
from ranef.likelihood.generalized.glmm import Generalized, diagonal_parts, own_parameters
from ranef.likelihood.generalized.pirls import Modes, find_modes
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.optimum.starts import (
    ENDLESS_SIZE,
    FEW_ROWS,
    multiple_of_identity,
    starts_from,
    theta_of_effects,
)
from ranef.likelihood.linear.reml import MIN_RELATIVE_SD, Report, smallest_sd, users_theta
from ranef.numerics.finite_differences import standardised_hessian, units_of
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import (
    DECREMENT_TOLERANCE,
    Optimum,
    Step,
    lowest,
    minimize,
    rounding_of,
)

NOWHERE = (
    "the likelihood cannot be computed where the search for its maximum starts: the linear "
    "predictor or the response is out of reach for this family and link. Rescale the predictors, "
    "or use another link; for relative risks, with the log link of a probability, the maximum may "
    'lie where the mean of a row is 1, and family="poisson" estimates the same coefficients.'
)
ROUNDS_OF_POOLING = 2  # of effects and their covariance
MAX_LINKED_PARAMETER = np.log(1e4)  # beyond which a shape does as well as an infinite one
MAX_DECREMENT_AT_LIMIT = 1e-2  # of the objective, where an own parameter is beyond that
MIN_RELATIVE_CURVATURE = 1e-8  # over the largest curvature


@dataclass(frozen=True, eq=False)
class Vector:
    """The layout of vectors: coefficients if `joint`, links of own parameters, and theta.

    Attributes
    ----------
    model : Generalized
    joint : bool
    """

    model: Generalized
    joint: bool

    @property
    def p(self) -> int:
        """The number of coefficients."""
        return self.model.X.shape[1] if self.joint else 0

    def parts(self, x: Array) -> tuple[Array, Array, list[Array]]:
        """Return coefficients, own parameters and factors, of one vector or of many."""
        psi = self.model.family.unlinked(x[..., self.p : self.p + len(self.model.psi)].T).T
        return x[..., : self.p], psi, factors(self.theta(x), self.model.covariances)

    def theta(self, x: Array) -> Array:
        """Return theta, of one vector or of many."""
        return x[..., self.p + len(self.model.psi) :]

    def packed(self, gamma: Array, psi: Array, theta: Array) -> Array:
        """Return the vector of parameters."""
        return np.concatenate([gamma[: self.p], self.model.family.linked(psi), theta])

    def objective(self, x: Array, likelihood: Likelihood | None) -> tuple[float, Array]:
        """Return -2 log-likelihood and its gradient; infinite where there is no likelihood."""
        if likelihood is None:
            return np.inf, np.zeros_like(x)
        by_gamma = (self.model.X.T @ likelihood.rows)[: self.p]
        by_theta = pull_back(likelihood.Lambdas, self.theta(x), self.model.covariances)
        return -2 * likelihood.value, -2 * np.concatenate([by_gamma, likelihood.psi, by_theta])

    def simplified(self, x: Array) -> Array:
        """Return a vector near another whose smallest sds are exactly zero."""
        theta = self.theta(x)
        return np.append(x[: len(x) - len(theta)], simplest(theta, self.model.covariances))


def maximum_likelihood(
    model: Generalized, *, n_agq: int = 1, report: Report | None = None
) -> Estimate:
    """Maximise the likelihood.

    Parameters
    ----------
    model : Generalized
    n_agq : int
        Points of the quadrature in each dimension; 1 for the Laplace approximation; 0 stops after
        the first stage.
    report : callable, optional
        Is told of every step of both stages when it is taken.
    """

    def tell(vector: Vector) -> Callable[[Step], None] | None:
        return report and (lambda step: report(*on_users_scale(vector, step)))

    first, few = theta_of(model.Lambdas, model.covariances), model.n_obs <= FEW_ROWS
    thetas = starts_from(first, model.covariances, several=few)
    vector, tell_first = Vector(model, joint=n_agq > 0), tell(Vector(model, joint=False))
    with threads_for(model.problem.Z.q_rest):
        tried = (_start(model, theta, model.psi) for theta in thetas)
        starts = [start for start in tried if start is not None]
        if not starts:
            raise FitError(NOWHERE)
        if n_agq:
            starts[0] = _profiled(model, starts[0], tell_first).start
            ended = partial(_jointly, model, n_agq=n_agq, report=tell(vector))
        else:
            ended = partial(_profiled, model, report=tell_first)
        best = lowest(map(ended, starts))
        unpooled = _unpooled_start(model, best.value)
        if unpooled is not None:
            best = lowest([best, ended(unpooled)])
        return _at_optimum(model, vector, best, n_agq)


def on_users_scale(vector: Vector, step: Step) -> tuple[float, Array, float]:
    """Return the objective at a step, theta on the user's scale, and the decrease it predicts."""
    model, (_, psi, Lambdas) = vector.model, vector.parts(step.x)
    own_parameters = dict(zip(model.family.parameters, psi.tolist(), strict=True))
    relative = [f / own_parameters.get("sigma", 1.0) for f in Lambdas]
    return step.value, users_theta(model.bases, model.covariances, relative), step.decrease


def joint_units(model: Generalized, modes: Modes, psi: Array, Lambdas: Sequence[Array]) -> Array:
    """Return about the standard errors of gamma, links of psi, and theta, as a matrix."""
    setting = model.profile(Lambdas, psi)
    information = setting.information(model.X, modes.expansion.weight)
    others = np.append(np.ones(len(psi)), model.theta_units(Lambdas))
    return linalg.block_diag(units_of(information), np.diag(others))


@dataclass(eq=False)
class JointObjective:
    """-2 log-likelihood of gamma, links of psi, and theta, with its gradient.

    Attributes
    ----------
    model : Generalized
    u : list of ndarray, shape (m, k)
        Where the search for conditional modes starts: those of the lowest value so far, if it is
        lower by more than rounding, so that differences are those of one function.
    n_agq : int
    least : float
        The lowest value so far; -inf if modes are always searched from the same ones.
    """

    model: Generalized
    u: list[Array]
    n_agq: int
    least: float = np.inf

    def __call__(self, x: Array) -> tuple[float, Array]:
        vector = Vector(self.model, joint=True)
        gamma, psi, Lambdas = vector.parts(x)
        setting = self.model.at(gamma, Lambdas, psi)
        found = if_any(lambda: self.model.likelihood(setting, self.u, self.n_agq))
        value, gradient = vector.objective(x, found)
        if found is not None and value < self.least - max(
            DECREMENT_TOLERANCE, float(rounding_of(value))
        ):
            self.u = found.modes.u if np.isfinite(self.least) else self.u
            self.least = value
        return value, gradient


type _Start = tuple[Array, Modes]  # links of own parameters and theta, and conditional modes there


@dataclass(frozen=True, eq=False)
class _Stage:
    """Where a stage ended from one start, and conditional modes there or near it."""

    optimum: Optimum
    modes: Modes

    @property
    def value(self) -> float:
        return self.optimum.value

    @property
    def start(self) -> _Start:
        """Where the next stage starts."""
        return self.optimum.x, self.modes


def _likelihood(model: Generalized, x: Array, u: list[Array], gamma: Array) -> Likelihood | None:
    """Return Laplace's likelihood with the coefficients of the conditional modes, if there is one.

    Parameters
    ----------
    model : Generalized
    x : ndarray
        Links of own parameters, and theta.
    u : list of ndarray, shape (m, k)
    gamma : ndarray, shape (p,)
        Where the search for modes starts.
    """
    _, psi, Lambdas = Vector(model, joint=False).parts(x)
    setting = model.profile(Lambdas, psi)
    return if_any(lambda: laplace(setting, find_modes(setting, u, gamma)))


def _start(model: Generalized, theta: Array, psi: Array, highest: float = np.inf) -> _Start | None:
    """Return a start, if -2 log-likelihood can be computed there and is lower."""
    x = Vector(model, joint=False).packed(model.gamma, psi, theta)
    found = _likelihood(model, x, model.zeros(), model.gamma)
    return None if found is None or not -2 * found.value < highest else (x, found.modes)


def _unpooled_start(model: Generalized, highest: float) -> _Start | None:
    """Return a start by effects without pooling, then with little; see `no_pooling_starts`."""
    covariances, psi = model.covariances, model.psi
    if not covariances:
        return None
    theta = multiple_of_identity(ENDLESS_SIZE, covariances)
    for _ in range(ROUNDS_OF_POOLING):
        start = _start(model, theta, psi)
        if start is None:
            return None
        _, modes = start
        psi = own_parameters(model.problem, modes.eta, psi)
        Lambdas = factors(theta, covariances)
        effects = [u @ Lambda.T for u, Lambda in zip(modes.u, Lambdas, strict=True)]
        theta = theta_of_effects(effects, covariances)
    return _start(model, theta, psi, highest)


def _profiled(model: Generalized, start: _Start, report: Callable[[Step], None] | None) -> _Stage:
    """Return the optimum over own parameters and theta, with the coefficients of the modes."""
    vector, (x, modes) = Vector(model, joint=False), start
    of_theta = model.theta_units(factors(vector.theta(x), model.covariances))
    optimum = minimize(
        lambda x: vector.objective(x, _likelihood(model, x, modes.u, modes.gamma)),
        x,
        units=np.diag(np.append(np.ones(len(model.psi)), of_theta)),
        simplify=vector.simplified,
        report=report,
    )
    found = _likelihood(model, optimum.x, modes.u, modes.gamma)
    return _Stage(optimum, modes if found is None else found.modes)


def _jointly(
    model: Generalized, start: _Start, n_agq: int, report: Callable[[Step], None] | None
) -> _Stage:
    """Return the optimum over all parameters."""
    vector, modes = Vector(model, joint=True), start[1]
    x, objective = np.append(modes.gamma, start[0]), JointObjective(model, modes.u, n_agq)
    optimum = minimize(
        objective,
        x,
        units=joint_units(model, modes, *vector.parts(x)[1:]),
        simplify=vector.simplified,
        report=report,
    )
    return _Stage(optimum, replace(modes, u=objective.u))


def _at_optimum(model: Generalized, vector: Vector, end: _Stage, n_agq: int) -> Estimate:
    optimum = end.optimum
    joint_gamma, psi, Lambdas = vector.parts(optimum.x)
    gamma = joint_gamma if vector.joint else end.modes.gamma
    modes = find_modes(model.at(gamma, Lambdas, psi), end.modes.u, np.empty(0))
    x = Vector(model, joint=True).packed(gamma, psi, vector.theta(optimum.x))
    units, p = joint_units(model, modes, psi, Lambdas), len(gamma)
    objective = JointObjective(model, modes.u, max(n_agq, 1), -np.inf)
    hessian = standardised_hessian(objective, x, units)
    to_users = model.to_users @ units[:p, :p]

    return gathered(
        model,
        optimum,
        beta=model.to_users @ gamma,
        vcov=to_users @ covariance_of(hessian / 2, p) @ to_users.T,
        psi=psi,
        Lambdas=Lambdas,
        modes=modes,
        loglik=-optimum.value / 2,
        trace=tuple(on_users_scale(vector, step) for step in optimum.trace),
        n_agq=n_agq,
    )


def gathered(
    model: Generalized,
    optimum: Optimum,
    *,
    beta: Array,
    vcov: Array,
    psi: Array,
    Lambdas: Sequence[Array],
    modes: Modes,
    loglik: float,
    trace: tuple[tuple[float, Array, float], ...],
    n_agq: int,
) -> Estimate:
    """Gather all estimates at an optimum, on the user's scale.

    Parameters
    ----------
    model : Generalized
    optimum : Optimum
    beta, vcov : ndarray
        Fixed effects and their covariance, on the user's scale.
    psi : ndarray, shape (r,)
    Lambdas : sequence of ndarray, shape (k, k)
        In the basis; not relative to sigma.
    modes : Modes
    loglik : float
    trace : tuple of (float, ndarray, float)
    n_agq : int
    """
    own_parameters = dict(zip(model.family.parameters, psi.tolist(), strict=True))
    sigma = own_parameters.pop("sigma", 1.0)
    theta = users_theta(model.bases, model.covariances, [f / sigma for f in Lambdas])
    inverses = [np.linalg.inv(T) for T in model.bases]
    singular = tuple(smallest_sd(f) < MIN_RELATIVE_SD for f in Lambdas)
    covariances = blocked_cholesky.conditional_covariances(modes.factorized)
    if len(covariances) < len(modes.u):  # terms of one factor that were taken as one
        covariances = diagonal_parts(covariances[0], model.covariances)
    return Estimate(
        theta=theta,
        Lambdas=tuple(factors(theta, model.covariances)),
        beta=beta,
        vcov=vcov,
        sigma=sigma,
        b=tuple(u @ f.T @ T.T for u, f, T in zip(modes.u, Lambdas, inverses, strict=True)),
        b_cov=tuple(T @ c @ T.T for c, T in zip(covariances, inverses, strict=True)),
        objective=optimum.value,
        loglik=loglik,
        singular=singular,
        convergence=_ended(optimum, model.family, psi, singular),
        decrement=optimum.decrement,
        evaluations=optimum.evaluations,
        trace=trace,
        parameters=tuple(own_parameters.values()),
        n_agq=n_agq,
        working_weights=model.cells.weights_at(modes.eta, modes.expansion.weight, psi),
    )


def _ended(optimum: Optimum, family: Family, psi: Array, singular: Sequence[bool]) -> Convergence:
    """Return how the optimisation ended, at an edge of its space perhaps."""
    ended = optimum.convergence
    is_endless = [
        x > MAX_LINKED_PARAMETER and not record.is_real and record.name != "sigma"
        for x, record in zip(family.linked(psi), family.records, strict=True)
    ]
    if any(is_endless) and optimum.decrement < MAX_DECREMENT_AT_LIMIT:
        return Convergence.LIMIT
    return Convergence.SINGULAR if ended.ok and any(singular) else ended


def covariance_of(information: Array, p: int) -> Array:
    """Return the covariance of the first p parameters; the others count as known where flat."""
    if not np.isfinite(information).all():
        return np.full((p, p), np.nan)
    values, vectors = np.linalg.eigh(information[p:, p:])
    curved = values > MIN_RELATIVE_CURVATURE * np.abs(values).max(initial=0.0)
    half = vectors[:, curved].T @ information[p:, :p]
    remaining = information[:p, :p] - half.T @ (half / values[curved, None])
    if not np.isfinite(remaining).all() or np.linalg.eigvalsh(remaining).min(initial=1.0) <= 0:
        return np.full((p, p), np.nan)  # no maximum, so no standard errors
    return np.asarray(np.linalg.inv(remaining))
