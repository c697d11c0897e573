"""The space of the variance parameters: unconstrained coordinates x and the values they mean.

A point has a *value* for every parameter that is not integrated out: the fixed effects without a
normal or flat prior, or all of them, where none can be integrated out; the family's own parameters;
sigma; and of each term its sds and the free parameters of its correlations. Values that are known,
such as the sigma of a family without one, are left out of x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from ranef._typing import Array, Codes, Flags, Places
from ranef.covariances.covariance import Covariance
from ranef.numerics.constants import LOG_2, LOG_2PI, LOG_PI
from ranef.numerics.matrices import spans
from ranef.priors.assignment import Priors, TermPriors
from ranef.priors.distributions import (
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    Relative,
    StudentT,
    Uniform,
)

MIN_VALUE = 1e-300  # least positive value that has a coordinate
MIN_EDGE = 1e-15  # least distance to the ends of a range, in floating point
EDGE = 0.05  # least distance of a starting point to the ends of a range, as a share of it


@dataclass(frozen=True, eq=False)
class Space:
    """The coordinates of one model.

    Attributes
    ----------
    names : tuple of str
        One for each value: `Days`, `sigma`, `sd_Subject[Days]`, `corr_Subject[Intercept, Days]`.
    coordinates : tuple of Coordinate
        One for each free value.
    free : ndarray of int, shape (d,)
        The positions of the free values.
    known : ndarray, shape (n_values,)
        The values that are not free; nan elsewhere.
    relative : ndarray of bool, shape (n_values,)
        Sds whose coordinate stands for sd / sigma.
    n_given : int
        The number of fixed effects and own parameters of the family, which come before sigma.
    covariances : tuple of Covariance
        The covariance of each term.
    """

    names: tuple[str, ...]
    coordinates: tuple[Coordinate, ...]
    free: Places
    known: Array
    relative: Flags
    n_given: int
    covariances: tuple[Covariance, ...]

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return len(self.free)

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.names[i] for i in self.free)

    @cached_property
    def codes(self) -> Codes:
        """Family and transform of each coordinate, shape (d, 2)."""
        codes = [(c.family, c.transform) for c in self.coordinates]
        return np.array(codes, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def numbers(self) -> Array:
        """Numbers of the family of each coordinate, shape (d, 3)."""
        return np.array([(c.a, c.b, c.c) for c in self.coordinates]).reshape(-1, 3)

    @cached_property
    def constant(self) -> float:
        """Logarithm of the normalising constant of the prior."""
        return float(sum(c.constant for c in self.coordinates))

    @cached_property
    def places(self) -> tuple[tuple[slice, slice], ...]:
        """The positions of the values of each term: its sds, its correlations."""
        sizes = [n for c in self.covariances for n in (c.n_sds, c.n_correlations)]
        _, *places = spans([self.n_given + 1, *sizes])
        return tuple(zip(places[::2], places[1::2], strict=True))

    def values(self, x: Array, *, natural: bool = False) -> tuple[Array, Array]:
        """Return the values, shape (..., n_values), and the log prior density, shape (...).

        Parameters
        ----------
        x : ndarray, shape (..., d)
        natural : bool
            Whether the density is that of the parameters, or that of x.
        """
        values = np.broadcast_to(self.known, (*x.shape[:-1], len(self.known))).copy()
        logp = np.zeros(x.shape[:-1])
        with np.errstate(over="ignore", invalid="ignore"):  # far out a value is infinite
            for i, (c, place) in enumerate(zip(self.coordinates, self.free, strict=True)):
                values[..., place], _, log_prior, _ = c.at(x[..., i], natural=natural)
                logp += log_prior
            values[..., self.relative] *= values[..., self.n_given, None]
        return values, logp

    def point(self, values: Array, *, edge: float = EDGE) -> Array:
        """Return the coordinates x, shape (..., d), of values inside their ranges.

        Parameters
        ----------
        values : ndarray, shape (..., n_values)
        edge : float
            The least distance to the ends of a uniform prior, as a share of its range.
        """
        values = np.where(self.relative, values / values[..., self.n_given, None], values)
        x = np.empty((*values.shape[:-1], self.d))
        for i, (c, place) in enumerate(zip(self.coordinates, self.free, strict=True)):
            x[..., i] = coordinate_of(c, values[..., place], edge)
        return x

    def factors(self, values: Array) -> list[Array]:
        """Return the covariance factor of each term, shape (..., k, k)."""
        return [
            covariance.factor_of(values[..., sd], values[..., correlations])
            for (sd, correlations), covariance in zip(self.places, self.covariances, strict=True)
        ]


def space_of(priors: Priors, *, all_effects: bool = False) -> Space:
    """Return the space of a model with these priors.

    Parameters
    ----------
    priors : Priors
    all_effects : bool
        Whether every fixed effect is a coordinate, whatever its prior.

    Notes
    -----
    Fixed effects and random-effects terms are those of the place where their priors hold:
    `Priors.change` and `TermPriors.change` turn them into the user's.
    """
    names: list[str] = []
    known: list[float] = []
    relative: list[bool] = []
    coordinates: list[Coordinate] = []

    def add(name: str, prior: Prior, *, positive: bool) -> None:
        inner = prior.prior if isinstance(prior, Relative) else prior
        names.append(name)
        relative.append(isinstance(prior, Relative))
        known.append(float(inner.value) if isinstance(inner, Constant) else np.nan)
        if not isinstance(inner, Constant):
            coordinates.append(coordinate(inner, positive=positive))

    given = range(len(priors.beta)) if all_effects else given_effects(priors)
    for j in given:
        add(priors.fixed[j], priors.beta[j], positive=False)
    for name, prior in priors.parameters:
        add(name, prior, positive=name not in priors.real_parameters)
    add("sigma", priors.sigma, positive=True)
    for term in priors.terms:
        for coef, prior in zip(term.covariance.sd_coefs(term.coefs), term.sd, strict=True):
            add(_named(f"sd_{term.label}", coef), prior, positive=True)
        correlations = _correlations(term)
        names += [name for name, _ in correlations]
        coordinates += [c for _, c in correlations]
        known += [np.nan] * len(correlations)
        relative += [False] * len(correlations)
    return Space(
        names=tuple(names),
        coordinates=tuple(coordinates),
        free=np.flatnonzero(np.isnan(known)),
        known=np.array(known),
        relative=np.array(relative, dtype=bool),
        n_given=len(given) + len(priors.parameters),
        covariances=tuple(t.covariance for t in priors.terms),
    )


def given_effects(priors: Priors) -> list[int]:
    """Return the fixed effects that are not integrated out: those whose prior is not normal."""
    return [j for j, prior in enumerate(priors.beta) if not isinstance(prior, Normal | Flat)]


def _named(parameter: str, coef: str) -> str:
    return f"{parameter}[{coef}]" if coef else parameter


def _correlations(term: TermPriors) -> list[tuple[str, Coordinate]]:
    """Return names and coordinates of the free parameters of a term's correlations."""
    if term.corr is None:
        return []
    eta, names = term.corr.eta, term.covariance.correlation_names(term.coefs)
    shapes = term.covariance.correlation_shapes(eta).tolist()
    return [
        (_named(f"corr_{term.label}", name), free_correlation(eta, b))
        for name, b in zip(names, shapes, strict=True)
    ]


# Families of densities; half-normal and normal are one up to a constant, and so on
FLAT, NORMAL, STUDENT_T, GAMMA, INVERSE_GAMMA, LOG_NORMAL, POWER = range(7)
# How the parameter comes from its coordinate
IDENTITY, LOG, LOGIT, TANH = range(4)


@dataclass(frozen=True)
class Coordinate:
    """The prior of one parameter on the real line.

    Attributes
    ----------
    family, transform : int
    a, b, c : float
        The numbers of the family; for a logit, `b` and `c` are the bounds.
    constant : float
        Logarithm of the normalising constant.
    prior : Prior or None
        The prior that it is of; None for a parameter of correlations.
    """

    family: int
    transform: int
    a: float = 0.0
    b: float = 1.0
    c: float = 1.0
    constant: float = 0.0
    prior: Prior | None = None

    @property
    def without_mode(self) -> str | None:
        """Where the density of the parameter itself rises without end, if it does."""
        if self.family == POWER and self.b < 0:
            return "correlations of -1 and 1"
        return "zero" if self.family == GAMMA and self.a < 1 else None

    def at(self, x: Any, *, natural: bool = False) -> tuple[Any, Any, Any, Any]:
        """Return what `evaluate` does, the log density with its constant.

        Parameters
        ----------
        x : float or ndarray
        natural : bool
            Whether the density is that of the parameter, or that of x.
        """
        value, slope, logp, logp_slope = evaluate(
            self.family, self.transform, self.a, self.b, self.c, x, natural
        )
        return value, slope, logp + self.constant, logp_slope


def coordinate(prior: Prior, *, positive: bool) -> Coordinate:
    """Return the coordinate of a parameter with this prior.

    Parameters
    ----------
    prior : Prior
        Any record for one number, but `Constant` and `Relative`, which are no densities of it.
    positive : bool
        Whether the parameter is a standard deviation. Half of a symmetric density, and a
        distribution of positive numbers, get the logarithm as coordinate in any case.
    """
    if isinstance(prior, Flat):
        return Coordinate(FLAT, LOG if positive else IDENTITY, prior=prior)
    return replace(_COORDINATES[type(prior)](prior), prior=prior)


def _normal(transform: int, mu: float, sigma: float) -> Coordinate:
    half = LOG_2 if transform == LOG else 0.0
    return Coordinate(NORMAL, transform, mu, sigma, 1.0, half - LOG_2PI / 2 - math.log(sigma))


def _student_t(transform: int, nu: float, mu: float, sigma: float) -> Coordinate:
    gammas = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)
    constant = gammas - (math.log(nu) + LOG_PI) / 2 - math.log(sigma)
    half = LOG_2 if transform == LOG else 0.0
    return Coordinate(STUDENT_T, transform, mu, sigma, nu, half + constant)


def _gamma(family: int, alpha: float, beta: float) -> Coordinate:
    constant = alpha * math.log(beta) - math.lgamma(alpha)
    return Coordinate(family, LOG, alpha, beta, 1.0, constant)


_COORDINATES: dict[type[Prior], Callable[[Any], Coordinate]] = {
    Normal: lambda p: _normal(IDENTITY, p.mu, p.sigma),
    HalfNormal: lambda p: _normal(LOG, 0.0, p.sigma),
    StudentT: lambda p: _student_t(IDENTITY, p.nu, p.mu, p.sigma),
    HalfStudentT: lambda p: _student_t(LOG, p.nu, 0.0, p.sigma),
    HalfCauchy: lambda p: _student_t(LOG, 1.0, 0.0, p.beta),
    Exponential: lambda p: _gamma(GAMMA, 1.0, 1 / p.scale),
    Gamma: lambda p: _gamma(GAMMA, p.alpha, p.beta),
    InverseGamma: lambda p: _gamma(INVERSE_GAMMA, p.alpha, p.beta),
    LogNormal: lambda p: Coordinate(
        LOG_NORMAL, LOG, p.mu, p.sigma, 1.0, -LOG_2PI / 2 - math.log(p.sigma)
    ),
    Uniform: lambda p: Coordinate(FLAT, LOGIT, 0.0, p.lower, p.upper, -math.log(p.upper - p.lower)),
}


def free_correlation(eta: float, b: float) -> Coordinate:
    """Return the coordinate of a free parameter of correlations under LKJ(eta).

    It is Beta(b, b) on (-1, 1). The record's `b` holds the power of 1 - x^2 that is due to the
    correlation matrix's own density, det(R)^(eta - 1), and `a` the rest.
    """
    constant = -(2 * b - 1) * LOG_2 - float(special.betaln(b, b))
    return Coordinate(POWER, TANH, b - eta, eta - 1, 1.0, constant)


def evaluate(  # noqa: PLR0917 -- Numba knows no keywords
    family: Any, transform: Any, a: Any, b: Any, c: Any, x: Any, is_natural: Any
) -> tuple[Any, Any, Any, Any]:
    """Return a parameter and its log density where its coordinate is x.

    Parameters
    ----------
    family, transform, a, b, c : int and float
        As in `Coordinate`.
    x : float or ndarray
    is_natural : bool
        Whether the density is that of the parameter (of a correlation matrix: of the matrix), as
        for a mode, or that of x.

    Returns
    -------
    value, slope : float or ndarray
        The parameter, and its derivative with respect to x.
    logp, logp_slope : float or ndarray
        Log density without its constant, and the derivative with respect to x.
    """
    if transform == TANH:
        value = np.tanh(0.5 * x)
        slope = 0.5 * (1.0 - value * value)
        # log(1 - value^2), also where value rounds to 1
        log_rest = 2.0 * LOG_2 - np.abs(x) - 2.0 * np.log1p(np.exp(-np.abs(x)))
        power = b if is_natural else a + b + 1.0
        shift = 0.0 if is_natural else LOG_2
        return value, slope, power * log_rest - shift, -power * value
    if transform == LOG:
        value = np.exp(x)
        slope, log_slope, d_log_slope = value, x, 1.0 + 0.0 * x
    elif transform == LOGIT:
        share = 1.0 / (1.0 + np.exp(-x))
        value = b + (c - b) * share
        slope = (c - b) * share * (1.0 - share)
        log_slope = math.log(c - b) - np.abs(x) - 2.0 * np.log1p(np.exp(-np.abs(x)))
        d_log_slope = 1.0 - 2.0 * share
    else:
        value = 1.0 * x
        slope, log_slope, d_log_slope = 1.0 + 0.0 * x, 0.0 * x, 0.0 * x
    logp, d_value = 0.0 * x, 0.0 * x
    if family == NORMAL:
        z = (value - a) / b
        logp, d_value = -0.5 * z * z, -z / b
    elif family == STUDENT_T:
        z = (value - a) / b
        logp = -0.5 * (c + 1.0) * np.log1p(z * z / c)
        d_value = -(c + 1.0) * z / (b * (c + z * z))
    elif family == GAMMA:
        logp, d_value = (a - 1.0) * x - b * value, (a - 1.0) / value - b
    elif family == INVERSE_GAMMA:
        logp, d_value = -(a + 1.0) * x - b / value, -(a + 1.0 - b / value) / value
    elif family == LOG_NORMAL:
        z = (x - a) / b
        logp, d_value = -x - 0.5 * z * z, -(1.0 + z / b) / value
    if is_natural:
        return value, slope, logp, d_value * slope
    return value, slope, logp + log_slope, d_value * slope + d_log_slope


def coordinate_of(c: Coordinate, value: Any, edge: float = EDGE) -> Any:
    """Return x for values of the parameter; values outside its range are moved inside.

    Parameters
    ----------
    c : Coordinate
    value : float or ndarray
    edge : float
        The least distance to the ends of a bounded range, as a share of the range.
    """
    if c.transform == LOG:
        return np.log(np.maximum(value, MIN_VALUE))
    if c.transform == LOGIT:
        edge = max(edge, MIN_EDGE)
        return special.logit(np.clip((value - c.b) / (c.c - c.b), edge, 1 - edge))
    if c.transform == TANH:
        return 2 * np.arctanh(np.clip(value, -1 + MIN_EDGE, 1 - MIN_EDGE))
    return value


def log_pdf(prior: Prior, values: Array, *, positive: bool) -> Array:
    """Return the log density of a prior at values of its parameter; zero for a constant.

    Parameters
    ----------
    prior : Prior
        Not `Relative`, whose density is one of a ratio.
    values : ndarray
    positive : bool
        Whether the parameter is a standard deviation.

    Examples
    --------
    >>> np.exp(log_pdf(Uniform(0, 2), np.array([-1.0, 1.0]), positive=False))
    array([0. , 0.5])
    """
    if isinstance(prior, Constant):
        return np.zeros(values.shape)
    c = coordinate(prior, positive=positive)
    low, high = {LOG: (0.0, np.inf), LOGIT: (c.b, c.c)}.get(c.transform, (-np.inf, np.inf))
    density = c.at(coordinate_of(c, values, 0.0), natural=True)[2]
    return np.where((values >= low) & (values <= high), density, -np.inf)
