"""The deviance with one parameter held: every parameter of a model as a coordinate.

With all others free to move, the deviance is a smooth function of the parameter's coordinate w and
of a vector x without bounds; `HeldFactors` says how for the sds and correlations.

Of a linear model beta is optimised in closed form, and so is sigma, except where an sd is held,
which is not relative to it. With a coefficient c'beta held at t the residual sum of squares becomes
r^2 + (t - c'beta^)^2 / (c'(X'V^-1 X)^-1 c), and nothing else changes.

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 5.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import Covariance, factors, pull_back
from ranef.covariances.triangular_factors import MIN_RELATIVE_SD, by_root, canonical
from ranef.families.links import LOG, Link
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.gauss_hermite import Likelihood, if_any
from ranef.likelihood.generalized.glmm import Generalized
from ranef.likelihood.generalized.pirls import find_modes
from ranef.likelihood.linear import blocked_cholesky, reml
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.profile.likelihood_profile import Scale

type Value = tuple[float, float, Array]  # the deviance, and its derivatives by w and by x
type Objective = Callable[[float, Array], Value]

RIGHT_ANGLE = np.pi / 2
LONGEST_LOG_STEP = np.log(10.0)  # of a parameter on the logarithmic scale
UNDEFINED = (
    "it has no estimate, as a standard deviation is estimated as zero: the likelihood does not "
    "exclude any correlation."
)


@dataclass(frozen=True, eq=False)
class Focus:
    """A parameter as a coordinate.

    Attributes
    ----------
    name : str
    objective : callable
        w and x to the deviance and its derivatives; inf where there is none.
    w : float
        The coordinate of the estimate.
    x : ndarray, shape (d,)
        All other parameters at the estimate.
    scale : Scale
        From w to the parameter.
    bounds : (float, float)
        The ends of w.
    n_theta : int
        The number of elements of theta that come last in x.
    longest : float
        The longest step in w.
    undefined : str
        Why the parameter has no estimate, if it has none.
    """

    name: str
    objective: Objective
    w: float
    x: Array
    scale: Scale = field(default_factory=Scale)
    bounds: tuple[float, float] = (-np.inf, np.inf)
    n_theta: int = 0
    longest: float = np.inf
    undefined: str = ""


@dataclass(frozen=True, eq=False)
class Surface(ABC):
    """The deviance of a model around its maximum likelihood estimate.

    Attributes
    ----------
    estimate : Estimate
    model : CrossProducts or Generalized
    psi : ndarray, shape (r,)
        The family's own parameters at the estimate, sigma among them.
    """

    estimate: Estimate
    model: CrossProducts | Generalized
    psi: Array

    @property
    @abstractmethod
    def width(self) -> int:
        """The size of the largest matrix that is factorised."""

    @property
    @abstractmethod
    def factor_scale(self) -> float:
        """The multiple of the relative factors that the objectives take: sigma, or 1."""

    @abstractmethod
    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        """Return a fixed effect: its objective, w and x at the estimate, and its scale."""

    @abstractmethod
    def own_parameter(self, i: int) -> tuple[Objective, float, Array, Link]:
        """Return one of the family's own parameters: its objective, w and x, and its link."""

    @abstractmethod
    def variance(self, held: HeldFactors, theta: Array) -> tuple[Objective, Array]:
        """Return the objective of an sd or a correlation of a term, and x at the estimate."""

    def focus(self, index: int, name: str) -> Focus:
        """Return the focus of a parameter by its index among `fit.estimates()`."""
        p, n_theta = len(self.estimate.beta), len(self.theta)
        if index < p:
            objective, w, x, scale = self.effect(index)
            return Focus(name, objective, w, x, scale, n_theta=n_theta)
        if index < p + len(self.psi):
            objective, w, x, link = self.own_parameter(index - p)
            undefined = self.undefined(index - p)
            scale = Scale(np.exp if link.is_log else link.inverse)  # exp has no largest number
            longest = np.inf if link.is_identity else LONGEST_LOG_STEP
            return Focus(
                name, objective, w, x, scale, n_theta=n_theta, longest=longest, undefined=undefined
            )
        return self._variance(index - p - len(self.psi), name)

    def undefined(self, i: int) -> str:  # noqa: ARG002 -- all are free
        """Return why one of the family's own parameters has no profile, if it has none."""
        return ""

    def _variance(self, index: int, name: str) -> Focus:
        """Return the focus of one of the sds and correlations, term by term."""
        covariances = self.model.covariances
        term, coefs = [
            (term, coefs)
            for term, covariance in enumerate(covariances)
            for coefs in [*((i,) for i in range(covariance.k)), *covariance.pairs]
        ][index]
        held, turn = held_factors(self.model.bases, covariances, term, coefs)
        thetas = list(self.thetas)
        thetas[term] = covariances[term].theta_of(
            self.factor_scale * turn @ self.estimate.Lambdas[term]
        )
        w, theta = held.start(thetas)
        objective, x = self.variance(held, theta)
        if not held.is_correlation:
            unit = self.estimate.sigma / (self.factor_scale * turn[0, coefs[0]])
            return Focus(name, objective, w, x, Scale(unit=unit), (0.0, np.inf), len(theta))
        sds = theta[held.start_of_term : held.start_of_term + 2] ** 2
        undefined = UNDEFINED if sds.min() < MIN_RELATIVE_SD else ""
        bounds = (-RIGHT_ANGLE, RIGHT_ANGLE)
        return Focus(name, objective, w, x, Scale(np.sin), bounds, len(theta), undefined=undefined)

    @cached_property
    def thetas(self) -> list[Array]:
        """The estimated theta of each term in the basis."""
        terms = zip(self.model.covariances, self.model.bases, self.estimate.Lambdas, strict=True)
        return [c.theta_of(self.factor_scale * T @ Lambda) for c, T, Lambda in terms]

    @property
    def theta(self) -> Array:
        """The estimated theta of all terms in the basis."""
        return np.concatenate([np.empty(0), *self.thetas])


@dataclass(frozen=True, eq=False)
class Linear(Surface):
    """The deviance of a linear model, whose factors are relative to sigma.

    Attributes
    ----------
    model : CrossProducts
    known : float or None
        Sigma, where it is not estimated.
    """

    model: CrossProducts
    known: float | None = None
    factor_scale = 1.0

    def undefined(self, i: int) -> str:  # noqa: ARG002 -- sigma is the only one
        return "" if self.known is None else f"it is known to be {self.known:g}."

    @property
    def width(self) -> int:
        return len(self.model.fixed)

    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        cross, c = self.model, np.linalg.inv(self.model.R)[j]
        origin, unit = float(self.estimate.beta[j]), float(np.sqrt(self.estimate.vcov[j, j]))

        def objective(w: float, x: Array) -> Value:
            target = origin - float(cross.beta_ols[j]) + unit * w
            Lambdas = factors(x, cross.covariances)
            result = deviance(cross, Lambdas, held=(c, target), sigma=self.known)
            gradient = pull_back(result.Lambdas, x, cross.covariances)
            return result.value, unit * result.by_held, gradient

        return objective, 0.0, self.theta, Scale(origin=origin, unit=unit)

    def own_parameter(self, i: int) -> tuple[Objective, float, Array, Link]:
        cross = self.model

        def objective(w: float, x: Array) -> Value:
            result = deviance(cross, factors(x, cross.covariances), sigma=float(np.exp(w)))
            gradient = pull_back(result.Lambdas, x, cross.covariances)
            return result.value, result.by_log_sigma, gradient

        return objective, float(np.log(self.psi[i])), self.theta, LOG

    def variance(self, held: HeldFactors, theta: Array) -> tuple[Objective, Array]:
        cross, sigma = self.model, self.estimate.sigma

        def of_angle(w: float, x: Array) -> Value:
            result = deviance(cross, held.factors(w, x), sigma=self.known)
            return result.value, *held.pull_back(w, x, result.Lambdas)

        def of_sd(w: float, x: Array) -> Value:
            # the sd is in units of the estimated sigma; x starts with log sigma over that
            with np.errstate(over="ignore"):
                ratio = float(np.exp(x[0]))
            relative = w / ratio
            result = deviance(cross, held.factors(relative, x[1:]), sigma=sigma * ratio)
            slope, gradient = held.pull_back(relative, x[1:], result.Lambdas)
            by_sigma = result.by_log_sigma - slope * relative
            return result.value, slope / ratio, np.append(by_sigma, gradient)

        if held.is_correlation or self.known is not None:
            return of_angle, theta  # or an sd over the known sigma
        return of_sd, np.append(0.0, theta)


@dataclass(frozen=True, eq=False)
class Deviance:
    """The deviance of a linear model with beta at its optimum, and its derivatives.

    Attributes
    ----------
    value : float
        With sigma at its optimum too where it is not given. inf where there is none.
    Lambdas : list of ndarray, shape (k, k)
        The derivatives by the relative factors.
    by_log_sigma : float
        The derivative by log sigma at constant Lambda, where sigma is given.
    by_held : float
        The derivative by the value at which a coefficient is held.
    """

    value: float
    Lambdas: list[Array]
    by_log_sigma: float = 0.0
    by_held: float = 0.0


def deviance(
    cross: CrossProducts,
    Lambdas: list[Array],
    *,
    sigma: float | None = None,
    held: tuple[Array, float] | None = None,
) -> Deviance:
    """Return the deviance at relative factors.

    Parameters
    ----------
    cross : CrossProducts
    Lambdas : list of ndarray, shape (k, k)
        In the basis; any roots.
    sigma : float, optional
        By default at its optimum.
    held : (ndarray of shape (p,), float), optional
        c and t, if the coefficients gamma in the basis are to have c'gamma = t.
    """
    nowhere = Deviance(np.inf, [np.zeros_like(Lambda) for Lambda in Lambdas])
    with np.errstate(all="ignore"):
        try:
            factorized = blocked_cholesky.factorize(cross, Lambdas)
            free = reml.profiled(factorized, reml=False)
        except np.linalg.LinAlgError:
            return nowhere
        gamma, r2, by_held = free.gamma, free.r2, 0.0
        if held is not None:
            c, target = held
            direction = free.gamma_cov @ c
            by_held = (target - float(c @ gamma)) / float(c @ direction)
            gamma, r2 = gamma + direction * by_held, r2 + by_held**2 * float(c @ direction)
        if not r2 > 0:
            return nowhere
        n, v = cross.n, np.append(-gamma, 1.0)
        variance = r2 / n if sigma is None else sigma**2
        ratio = r2 / variance  # n, where sigma is at its optimum
        value = factorized.logdet + n * np.log(2 * np.pi * variance) + ratio - cross.log_weights
        if not np.isfinite(value):
            return nowhere
        return Deviance(
            value=float(value),
            Lambdas=blocked_cholesky.gradient(factorized, np.outer(v, v) / variance),
            by_log_sigma=float(2 * n - 2 * ratio),
            by_held=2 * by_held / variance,
        )


@dataclass(frozen=True, eq=False)
class Nonlinear(Surface):
    """The deviance of a generalised model, whose factors are not relative to sigma.

    The vector x is gamma, links of psi, and theta.

    Attributes
    ----------
    model : Generalized
    """

    model: Generalized

    @property
    def width(self) -> int:
        return self.model.problem.Z.q_rest

    @property
    def factor_scale(self) -> float:
        return self.estimate.sigma

    @cached_property
    def _gamma(self) -> Array:
        return np.asarray(np.linalg.solve(self.model.to_users, self.estimate.beta))

    @cached_property
    def _linked(self) -> Array:
        return self.model.family.linked(self.psi)

    @cached_property
    def _u(self) -> list[Array]:
        """The random effects from which every search for conditional modes starts."""
        Lambdas = factors(self.theta, self.model.covariances)
        setting = self.model.at(self._gamma, Lambdas, self.psi)
        return find_modes(setting, self.model.zeros(), np.empty(0)).u

    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        p, c = len(self._gamma), self.model.to_users[j]
        unit = float(np.linalg.norm(c))
        turn = np.column_stack([c / unit, linalg.null_space(c[None])])  # orthogonal

        def objective(w: float, x: Array) -> Value:
            gamma = self._gamma + turn @ np.append(w, x[: p - 1])
            value, by_gamma, slopes = self._free(gamma, x[p - 1 :])
            by_w, *by_others = turn.T @ by_gamma
            return value, float(by_w), np.concatenate([by_others, slopes])

        x = np.concatenate([np.zeros(p - 1), self._linked, self.theta])
        return objective, 0.0, x, Scale(origin=float(self.estimate.beta[j]), unit=unit)

    def own_parameter(self, i: int) -> tuple[Objective, float, Array, Link]:
        p = len(self._gamma)

        def objective(w: float, x: Array) -> Value:
            value, by_gamma, slopes = self._free(x[:p], np.insert(x[p:], i, w))
            return value, float(slopes[i]), np.concatenate([by_gamma, np.delete(slopes, i)])

        x = np.concatenate([self._gamma, np.delete(self._linked, i), self.theta])
        return objective, float(self._linked[i]), x, self.model.family.records[i].link

    def variance(self, held: HeldFactors, theta: Array) -> tuple[Objective, Array]:
        stops = np.cumsum([len(self._gamma), len(self.psi)])

        def objective(w: float, x: Array) -> Value:
            gamma, linked, theta = np.split(x, stops)
            value, *slopes, by_roots = self._deviance(gamma, linked, held.factors(w, theta))
            by_w, by_theta = held.pull_back(w, theta, by_roots)
            return value, by_w, np.concatenate([*slopes, by_theta])

        return objective, np.concatenate([self._gamma, self._linked, theta])

    def _free(self, gamma: Array, others: Array) -> tuple[float, Array, Array]:
        """Return the deviance and its derivatives by gamma, and by links of psi and theta."""
        linked, theta = others[: len(self.psi)], others[len(self.psi) :]
        covariances = self.model.covariances
        deviance = self._deviance(gamma, linked, factors(theta, covariances))
        value, by_gamma, by_linked, by_roots = deviance
        return value, by_gamma, np.append(by_linked, pull_back(by_roots, theta, covariances))

    def _deviance(
        self, gamma: Array, linked: Array, roots: Sequence[Array]
    ) -> tuple[float, Array, Array, list[Array]]:
        """Return the deviance and its derivatives by gamma, links of psi and roots."""
        model, n_agq = self.model, self.estimate.n_agq

        def likelihood() -> Likelihood:
            Lambdas = [canonical(root) for root in roots] if n_agq > 1 else roots
            setting = model.at(gamma, Lambdas, model.family.unlinked(linked))
            result = model.likelihood(setting, self._u, n_agq)
            if n_agq == 1:
                return result
            return replace(result, Lambdas=list(map(by_root, roots, Lambdas, result.Lambdas)))

        if (result := if_any(likelihood)) is None:
            return np.inf, 0 * gamma, 0 * linked, [np.zeros_like(root) for root in roots]
        by_gamma = -2 * model.X.T @ result.rows
        return -2 * result.value, by_gamma, -2 * result.psi, [-2 * S for S in result.Lambdas]


@dataclass(frozen=True, eq=False)
class HeldFactors:
    """All factors as functions of w, which belongs to one term, and of theta without it.

    Attributes
    ----------
    covariances : tuple of Covariance
    term : int
        The term whose sd or correlation w stands for.
    is_correlation : bool
        Whether it is the correlation of the first two coefficients, or the sd of the first.
    turn : ndarray, shape (k, k)
        Lambda = turn F for this term.
    """

    covariances: tuple[Covariance, ...]
    term: int
    is_correlation: bool
    turn: Array

    @property
    def start_of_term(self) -> int:
        """The index of the term's first element of theta."""
        return sum(covariance.n_theta for covariance in self.covariances[: self.term])

    @property
    def k(self) -> int:
        """The number of coefficients of the term."""
        return self.covariances[self.term].k

    def factors(self, w: float, theta: Array) -> list[Array]:
        """Return the factor Lambda of each term, w being the first element of F, or phi."""
        Lambdas = factors(self._whole(w, theta), self.covariances)
        Lambdas[self.term] = self.turn @ Lambdas[self.term]
        return Lambdas

    def pull_back(self, w: float, theta: Array, by_factors: Sequence[Array]) -> tuple[float, Array]:
        """Return derivatives by w and theta from the ones by the factors."""
        slopes, i, k = list(by_factors), self.start_of_term, self.k
        slopes[self.term] = self.turn.T @ slopes[self.term]
        whole = pull_back(slopes, self._whole(w, theta), self.covariances)
        if not self.is_correlation:
            return float(whole[i]), np.delete(whole, i)
        alpha, tau, (sin, cos) = theta[i], theta[i + 1], (np.sin(w), np.cos(w))
        by_w = tau**2 * (cos * whole[i + 1] - sin * whole[i + k])
        by_length = sin * whole[i + 1] + cos * whole[i + k]
        whole[i], whole[i + 1] = 2 * alpha * whole[i], 2 * tau * by_length
        return float(by_w), np.delete(whole, i + k)

    def _whole(self, w: float, theta: Array) -> Array:
        """Return theta of F and all other terms."""
        i = self.start_of_term
        if not self.is_correlation:
            return np.insert(theta, i, w)
        length = theta[i + 1] ** 2
        whole = np.insert(theta, i + self.k, length * np.cos(w))
        whole[i], whole[i + 1] = theta[i] ** 2, length * np.sin(w)
        return whole

    def start(self, thetas: Sequence[Array]) -> tuple[float, Array]:
        """Return w and theta from theta of each term, for this term theta of F."""
        parts, whole = list(thetas), thetas[self.term]
        if not self.is_correlation:
            parts[self.term] = whole[1:]
            return float(whole[0]), np.concatenate(parts)
        first, below, second = whole[[0, 1, self.k]]
        sds = np.sqrt([abs(first), np.hypot(below, second)])
        parts[self.term] = np.concatenate([sds, np.delete(whole, [0, 1, self.k])])
        return float(np.arctan2(below, second)), np.concatenate(parts)


def held_factors(
    bases: Sequence[Array], covariances: tuple[Covariance, ...], term: int, coefs: tuple[int, ...]
) -> tuple[HeldFactors, Array]:
    """Return the factors with the sd of a coefficient held, or the correlation of two.

    Returns
    -------
    HeldFactors
    ndarray, shape (k, k)
        The matrix that turns the user's effects of the term into those that F belongs to; its
        first row, or two, have the length of a row of the term on the diagonal and nothing else.
    """
    blocks, k = covariances[term].free_blocks, covariances[term].k
    order = [*coefs, *(i for block in blocks for i in block if i not in coefs)]
    moved = bases[term][:, order]
    T = np.linalg.qr(moved[:, ::-1], mode="r")[::-1, ::-1]
    T = np.sign(np.diag(T))[:, None] * T  # lower triangular, as moved'moved = T'T
    T[: len(coefs), : len(coefs)] = np.diag(np.diag(T)[: len(coefs)])
    held = HeldFactors(covariances, term, len(coefs) == 2, moved @ np.linalg.inv(T))
    return held, T @ np.eye(k)[order]
