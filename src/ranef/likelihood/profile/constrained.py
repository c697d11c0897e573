"""The deviance with one parameter held: every parameter of a model as a coordinate.

With all others free to move, the deviance is a smooth function of the parameter's coordinate w and
of a vector x without bounds; `heldfactors` says how for the sds and correlations.

Of a linear model beta is optimised in closed form, and sigma too, but for an sd, which is not
relative to it. With a coefficient c'beta held at t the residual sum of squares becomes
r^2 + (t - c'beta^)^2 / (c'(X'V^-1 X)^-1 c), and nothing else changes.

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 5.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import Covariance, factors, pull_back, theta_of
from ranef.covariances.triangular_factors import NO_SD, by_root, canonical
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.glmm import Generalized
from ranef.likelihood.generalized.pirls import NoModesError, find_modes
from ranef.likelihood.linear import blocked_cholesky, reml
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.profile.likelihood_profile import Scale

type Value = tuple[float, float, Array]  # the deviance, and its derivatives by w and by x
type Objective = Callable[[float, Array], Value]

RIGHT_ANGLE = np.pi / 2
TENFOLD = np.log(10.0)
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
        At the estimate.
    x : ndarray, shape (d,)
        Likewise.
    scale : Scale
        From w to the parameter.
    bounds : (float, float)
        Of w.
    n_theta : int
        How many elements of factors come last in x.
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
    """

    estimate: Estimate

    @property
    @abstractmethod
    def covariances(self) -> tuple[Covariance, ...]:
        """The covariance of each term."""

    @property
    @abstractmethod
    def bases(self) -> tuple[Array, ...]:
        """T of each term, which turns the user's effects into those of the basis."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The size of the largest matrix that is factorised."""

    @property
    @abstractmethod
    def size(self) -> float:
        """What turns relative factors into those of this model: sigma, or 1."""

    @property
    @abstractmethod
    def n_own(self) -> int:
        """The number of the family's own parameters, sigma among them."""

    @abstractmethod
    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        """Return a fixed effect: its objective, w and x at the estimate, and its scale."""

    @abstractmethod
    def own(self, i: int) -> tuple[Objective, float, Array]:
        """Return the logarithm of one of the family's own parameters."""

    @abstractmethod
    def variance(self, known: Held, theta: Array) -> tuple[Objective, Array]:
        """Return the objective of what is held of a term's factor, and x at the estimate."""

    def focus(self, place: int, name: str) -> Focus:
        """Return the focus of a parameter by its place among `fit.estimates()`."""
        n_theta, place = len(self.theta), place - len(self.estimate.beta)
        if place < 0:
            objective, w, x, scale = self.effect(place + len(self.estimate.beta))
            return Focus(name, objective, w, x, scale, n_theta=n_theta)
        if place < self.n_own:
            objective, w, x = self.own(place)
            return Focus(name, objective, w, x, Scale(np.exp), n_theta=n_theta, longest=TENFOLD)
        return self._variance(name, *self._variances[place - self.n_own])

    def _variance(self, name: str, term: int, coefs: tuple[int, ...]) -> Focus:
        known, to_own = held(self.bases, self.covariances, term, coefs)
        root = self.size * to_own @ self.estimate.Lambdas[term]
        parts = [c.theta_of(f) for f, c in zip(self.factors, self.covariances, strict=True)]
        parts[term] = self.covariances[term].theta_of(root)
        w, theta = known.start(parts)
        objective, x = self.variance(known, theta)
        if not known.pair:
            length = self.estimate.sigma / (self.size * to_own[0, coefs[0]])
            scale, bounds = Scale(unit=length), (0.0, np.inf)
            return Focus(name, objective, w, x, scale, bounds, n_theta=len(theta))
        sds = theta[known.before : known.before + 2] ** 2
        undefined = UNDEFINED if sds.min() < NO_SD else ""
        bounds = (-RIGHT_ANGLE, RIGHT_ANGLE)
        return Focus(name, objective, w, x, Scale(np.sin), bounds, len(theta), undefined=undefined)

    @cached_property
    def _variances(self) -> list[tuple[int, tuple[int, ...]]]:
        """The term and the coefficients of each sd and correlation, in their order."""
        found: list[tuple[int, tuple[int, ...]]] = []
        for term, covariance in enumerate(self.covariances):
            found += [(term, (i,)) for i in range(covariance.k)]
            found += [(term, pair) for pair in covariance.pairs]
        return found

    @cached_property
    def factors(self) -> list[Array]:
        """The estimated factors in the basis."""
        return factors(self.theta, self.covariances)

    @cached_property
    def theta(self) -> Array:
        """The estimated theta of all factors in the basis."""
        roots = [
            self.size * T @ Lambda
            for T, Lambda in zip(self.bases, self.estimate.Lambdas, strict=True)
        ]
        return theta_of(roots, self.covariances)


@dataclass(frozen=True, eq=False)
class Linear(Surface):
    """A linear model. Factors are relative to sigma.

    Attributes
    ----------
    cross : CrossProducts
    """

    cross: CrossProducts

    @property
    def covariances(self) -> tuple[Covariance, ...]:
        return self.cross.covariances

    @property
    def bases(self) -> tuple[Array, ...]:
        return self.cross.bases

    @property
    def width(self) -> int:
        return len(self.cross.rest)

    @property
    def size(self) -> float:
        return 1.0

    @property
    def n_own(self) -> int:
        return 1

    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        cross, known = self.cross, Held(self.covariances)
        c = np.linalg.inv(cross.R)[j]
        origin, unit = float(self.estimate.beta[j]), float(np.sqrt(self.estimate.vcov[j, j]))

        def objective(w: float, x: Array) -> Value:
            target = origin - float(cross.beta_ols[j]) + unit * w
            found = deviance(cross, known.factors(0.0, x), held=(c, target))
            _, gradient = known.back(0.0, x, found.Lambdas)
            return found.value, unit * found.by_held, gradient

        return objective, 0.0, self.theta, Scale(origin=origin, unit=unit)

    def own(self, i: int) -> tuple[Objective, float, Array]:  # noqa: ARG002 -- there is sigma only
        cross, known = self.cross, Held(self.covariances)

        def objective(w: float, x: Array) -> Value:
            found = deviance(cross, known.factors(0.0, x), sigma=float(np.exp(w)))
            return found.value, found.by_log_sigma, known.back(0.0, x, found.Lambdas)[1]

        return objective, float(np.log(self.estimate.sigma)), self.theta

    def variance(self, known: Held, theta: Array) -> tuple[Objective, Array]:
        cross, sigma = self.cross, self.estimate.sigma

        def angle(w: float, x: Array) -> Value:
            found = deviance(cross, known.factors(w, x))
            return found.value, *known.back(w, x, found.Lambdas)

        def spread(w: float, x: Array) -> Value:
            # the sd is in units of the estimated sigma; x starts with log sigma over that
            with np.errstate(over="ignore"):
                ratio = float(np.exp(x[0]))
            relative = w / ratio
            found = deviance(cross, known.factors(relative, x[1:]), sigma=sigma * ratio)
            slope, gradient = known.back(relative, x[1:], found.Lambdas)
            by_sigma = found.by_log_sigma - slope * relative
            return found.value, slope / ratio, np.append(by_sigma, gradient)

        return (angle, theta) if known.pair else (spread, np.append(0.0, theta))


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
        That by log sigma at constant Lambda, where it is given.
    by_held : float
        That by the value at which a coefficient is held.
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
            found = reml.profiled(factorized, reml=False)
        except np.linalg.LinAlgError:
            return nowhere
        gamma, r2, by_held = found.gamma, found.r2, 0.0
        if held is not None:
            along = found.gamma_cov @ held[0]
            spread = float(held[0] @ along)
            gap = held[1] - float(held[0] @ gamma)
            gamma, r2 = gamma + along * (gap / spread), r2 + gap**2 / spread
            by_held = 2 * gap / spread
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
            by_held=by_held / variance,
        )


@dataclass(frozen=True, eq=False)
class Nonlinear(Surface):
    """A generalised model. Factors are not relative to sigma; x is gamma, log psi, theta.

    Attributes
    ----------
    model : Generalized
    psi : ndarray, shape (r,)
        The family's own parameters at the estimate.
    """

    model: Generalized
    psi: Array

    @property
    def covariances(self) -> tuple[Covariance, ...]:
        return self.model.covariances

    @property
    def bases(self) -> tuple[Array, ...]:
        return self.model.bases

    @property
    def width(self) -> int:
        return self.model.problem.Z.q_rest

    @property
    def size(self) -> float:
        return self.estimate.sigma

    @property
    def n_own(self) -> int:
        return len(self.psi)

    @cached_property
    def _gamma(self) -> Array:
        return np.asarray(np.linalg.solve(self.model.to_users, self.estimate.beta))

    @cached_property
    def _u(self) -> list[Array]:
        """Where every search for conditional modes starts."""
        setting = self.model.at(self._gamma, self.factors, np.log(self.psi))
        return find_modes(setting, self.model.zeros(), np.empty(0)).u

    def effect(self, j: int) -> tuple[Objective, float, Array, Scale]:
        known, p = Held(self.covariances), len(self._gamma)
        c = self.model.to_users[j]
        unit = float(np.linalg.norm(c))
        turn = np.column_stack([c / unit, linalg.null_space(c[None])])  # orthogonal

        def objective(w: float, x: Array) -> Value:
            gamma = self._gamma + turn @ np.append(w, x[: p - 1])
            value, by_gamma, by_log_psi, slopes = self._likelihood(gamma, x[p - 1 :], 0.0, known)
            slope, *rest = turn.T @ by_gamma
            return value, float(slope), np.concatenate([rest, by_log_psi, slopes[1]])

        x = np.concatenate([np.zeros(p - 1), np.log(self.psi), self.theta])
        return objective, 0.0, x, Scale(origin=float(self.estimate.beta[j]), unit=unit)

    def own(self, i: int) -> tuple[Objective, float, Array]:
        known, p = Held(self.covariances), len(self._gamma)

        def objective(w: float, x: Array) -> Value:
            rest = np.insert(x[p:], i, w)
            value, by_gamma, by_log_psi, slopes = self._likelihood(x[:p], rest, 0.0, known)
            others = np.delete(by_log_psi, i)
            return value, float(by_log_psi[i]), np.concatenate([by_gamma, others, slopes[1]])

        log_psi = np.log(self.psi)
        x = np.concatenate([self._gamma, np.delete(log_psi, i), self.theta])
        return objective, float(log_psi[i]), x

    def variance(self, known: Held, theta: Array) -> tuple[Objective, Array]:
        p = len(self._gamma)

        def objective(w: float, x: Array) -> Value:
            value, by_gamma, by_log_psi, slopes = self._likelihood(x[:p], x[p:], w, known)
            return value, slopes[0], np.concatenate([by_gamma, by_log_psi, slopes[1]])

        return objective, np.concatenate([self._gamma, np.log(self.psi), theta])

    def _likelihood(
        self, gamma: Array, rest: Array, w: float, known: Held
    ) -> tuple[float, Array, Array, tuple[float, Array]]:
        """Return the deviance and its derivatives by gamma, log psi, and w and theta."""
        r = self.n_own
        log_psi, theta = rest[:r], rest[r:]
        roots, n_agq = known.factors(w, theta), self.estimate.n_agq
        nowhere = np.inf, 0 * gamma, 0 * log_psi, (0.0, 0 * theta)
        with np.errstate(all="ignore"):
            try:
                Lambdas = [canonical(root) for root in roots] if n_agq > 1 else roots
                found = self.model.likelihood(
                    self.model.at(gamma, Lambdas, log_psi), self._u, n_agq
                )
                slopes = found.Lambdas
                if n_agq > 1:
                    pairs = zip(roots, Lambdas, slopes, strict=True)
                    slopes = [by_root(*three) for three in pairs]
            except (NoModesError, np.linalg.LinAlgError):
                return nowhere
            by_w, by_theta = known.back(w, theta, slopes)
            parts = (found.value, self.model.X.T @ found.rows, found.psi, by_w, by_theta)
        if not all(np.isfinite(part).all() for part in parts):
            return nowhere
        value, by_gamma, by_psi, _, _ = parts
        return -2 * value, -2 * by_gamma, -2 * by_psi, (-2 * by_w, -2 * by_theta)


@dataclass(frozen=True, eq=False)
class Held:
    """All factors as functions of w and theta, w being of one term and not in theta.

    Attributes
    ----------
    covariances : tuple of Covariance
    term : int
        Whose sd or correlation w stands for; -1 for none.
    pair : bool
        Whether it is the correlation of the first two coefficients, or the sd of the first.
    turn : ndarray, shape (k, k)
        Lambda = turn F for this term.
    """

    covariances: tuple[Covariance, ...]
    term: int = -1
    pair: bool = False
    turn: Array = field(default_factory=lambda: np.empty((0, 0)))

    @cached_property
    def before(self) -> int:
        """Where the term begins in theta."""
        return sum(shape.n_theta for shape in self.covariances[: self.term])

    def factors(self, w: float, theta: Array) -> list[Array]:
        """Return the factor Lambda of each term, w being the first element of F, or phi."""
        if self.term < 0:
            return factors(theta, self.covariances)
        found = factors(self._whole(w, theta), self.covariances)
        found[self.term] = self.turn @ found[self.term]
        return found

    def back(self, w: float, theta: Array, slopes: Sequence[Array]) -> tuple[float, Array]:
        """Return derivatives by w and theta from those by the factors."""
        if self.term < 0:
            return 0.0, pull_back(slopes, theta, self.covariances)
        own = list(slopes)
        own[self.term] = self.turn.T @ own[self.term]
        whole, at = self._whole(w, theta), self.before
        whole = pull_back(own, whole, self.covariances)
        if not self.pair:
            return float(whole[at]), np.delete(whole, at)
        k = self.covariances[self.term].k
        alpha, tau, (sin, cos) = theta[at], theta[at + 1], (np.sin(w), np.cos(w))
        by_w = tau**2 * (cos * whole[at + 1] - sin * whole[at + k])
        along = sin * whole[at + 1] + cos * whole[at + k]
        whole[at], whole[at + 1] = 2 * alpha * whole[at], 2 * tau * along
        return float(by_w), np.delete(whole, at + k)

    def _whole(self, w: float, theta: Array) -> Array:
        at = self.before
        if not self.pair:
            return np.insert(theta, at, w)
        k = self.covariances[self.term].k
        square = theta[at + 1] ** 2
        whole = np.insert(theta, at + k, square * np.cos(w))
        whole[at], whole[at + 1] = theta[at] ** 2, square * np.sin(w)
        return whole

    def start(self, thetas: Sequence[Array]) -> tuple[float, Array]:
        """Return w and theta from theta of each term, that of F for this one."""
        parts = list(thetas)
        whole = parts[self.term]
        if not self.pair:
            parts[self.term] = whole[1:]
            return float(whole[0]), np.concatenate(parts)
        k = self.covariances[self.term].k
        first, below, second = whole[[0, 1, k]]
        sds = np.sqrt([abs(first), np.hypot(below, second)])
        parts[self.term] = np.concatenate([sds, np.delete(whole, [0, 1, k])])
        return float(np.arctan2(below, second)), np.concatenate(parts)


def held(
    bases: Sequence[Array], covariances: tuple[Covariance, ...], term: int, coefs: tuple[int, ...]
) -> tuple[Held, Array]:
    """Return the factors with the sd of a coefficient held, or the correlation of two.

    Returns
    -------
    Held
    ndarray, shape (k, k)
        Which turns the user's effects of the term into those that F belongs to; its first
        row, or two, have the length of a row of the term on the diagonal and nothing else.
    """
    blocks, k = covariances[term].free_blocks, covariances[term].k
    order = [*coefs, *(i for block in blocks for i in block if i not in coefs)]
    moved = bases[term][:, order]
    T = np.linalg.qr(moved[:, ::-1], mode="r")[::-1, ::-1]
    T = np.sign(np.diag(T))[:, None] * T  # lower triangular, as moved'moved = T'T
    T[: len(coefs), : len(coefs)] = np.diag(np.diag(T)[: len(coefs)])
    turn = moved @ np.linalg.inv(T)
    to_own = T @ np.eye(k)[order]
    return Held(covariances, term, len(coefs) == 2, turn), to_own
