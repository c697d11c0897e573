"""How the marginal likelihood depends on the scales of the priors of the standard deviations.

All of them are multiplied by s. Only the prior changes, so that p(y | s) / p(y) is the posterior
mean of the ratio of the two priors, and no likelihood is computed anew: on the lattice of a
quadrature, or by importance weights for draws. The lattice says itself where it does not reach
far enough for another scale; there the integral is done again.

Source: Kass & Raftery (1995), *J. American Statistical Association* 90, section 5 (sensitivity of
Bayes factors); Vehtari, Simpson, Gelman, Yao & Gabry (2024), *JMLR* 25(72) (importance weights).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ranef._typing import Array
from ranef.errors import FitError, listed
from ranef.numerics.importance_sampling import good_khat, smoothed_log_mean
from ranef.posterior.laplace import find_mode
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.lattice import Lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.quadrature.whitening import frame, log_prior
from ranef.posterior.transforms import (
    FLAT,
    GAMMA,
    INVERSE_GAMMA,
    LOG_NORMAL,
    LOGIT,
    MIN_VALUE,
    NORMAL,
    STUDENT_T,
    Coordinate,
    Space,
    evaluate,
)
from ranef.priors.distributions import (
    Constant,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Prior,
    Relative,
    Uniform,
)

SCALES = 2.0 ** np.linspace(-2, 2, 9)  # of the priors of the sds: a quarter to four times
DEEP = 17.0  # how far the density falls before nodes are left out
ENOUGH = 1e-5  # error of the logarithm up to which a lattice is used for another scale


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """The marginal likelihood with all scales of the priors of the sds multiplied.

    Attributes
    ----------
    scales : ndarray, shape (G,)
        What the scales are multiplied by.
    log_ratio : ndarray, shape (G,)
        log p(y | scales) - log p(y).
    mcse : ndarray, shape (G,)
        The Monte Carlo error of that, or the error of the quadrature. Infinite where the draws
        cannot say, as the two posteriors are too far apart.
    slope : float
        The derivative of log p(y) by the logarithm of the scale, at the priors as they are; nan
        for a uniform prior, whose end moves.
    """

    scales: Array
    log_ratio: Array
    mcse: Array
    slope: float


# --------------------------------------------------------------------------------- the priors

_SCALED: dict[type[Prior], Callable[[Any, float], Prior]] = {
    HalfNormal: lambda p, s: HalfNormal(p.sigma * s),
    HalfStudentT: lambda p, s: HalfStudentT(p.nu, p.sigma * s),
    HalfCauchy: lambda p, s: HalfCauchy(p.beta * s),
    Exponential: lambda p, s: Exponential(p.scale * s),
    Gamma: lambda p, s: Gamma(p.alpha, p.beta / s),
    InverseGamma: lambda p, s: InverseGamma(p.alpha, p.beta * s),
    LogNormal: lambda p, s: LogNormal(p.mu + float(np.log(s)), p.sigma),
    Uniform: lambda p, s: Uniform(p.lower * s, p.upper * s),
    Constant: lambda p, _: p,
    Relative: lambda p, s: Relative(scaled(p.prior, s)),
}


def scaled(prior: Prior, s: float) -> Prior:
    """Return the prior of s times a number that has this prior.

    Parameters
    ----------
    prior : Prior
        Of a positive number. One that is known stays as it is, as that is no matter of scale.
    s : float

    Raises
    ------
    FitError
        If the prior is flat, and so has no scale, or is not one of a positive number.

    Examples
    --------
    >>> print(scaled(HalfStudentT(3, 10), 2), scaled(Relative(Exponential(1)), 0.5))
    HalfStudentT(3, 20) sigma * Exponential(0.5)
    """
    _checked_scales([s])
    if not prior.positive or type(prior) not in _SCALED:
        lacks = "has no scale" if not prior.proper else "is not one of a positive number"
        raise FitError(
            f"{prior} {lacks}, so that it cannot be multiplied: give the standard deviation a "
            "prior such as HalfNormal or HalfStudentT."
        )
    return _SCALED[type(prior)](prior, s)


def _checked_scales(scales: ArrayLike) -> Array:
    found = np.atleast_1d(np.asarray(scales, dtype=np.float64))
    if found.ndim != 1 or not (np.isfinite(found) & (found > 0)).all():
        raise FitError(f"scales must be positive numbers, such as 0.5 and 2, got {scales!r}.")
    return found


# ----------------------------------------------------------------------------- its coordinates


def _sds(space: Space) -> list[int]:
    """Return which coordinates are sds of random effects.

    Raises
    ------
    FitError
        If one of them has a flat prior.
    """
    sds = {place for sd, _ in space.places for place in range(sd.start, sd.stop)}
    found = [i for i, place in enumerate(space.free) if int(place) in sds]
    flat = [
        space.free_names[i]
        for i in found
        if space.coordinates[i].family == FLAT and space.coordinates[i].transform != LOGIT
    ]
    if flat:
        one = len(flat) == 1
        raise FitError(
            f"{'a flat prior' if one else 'flat priors'} on {listed(flat)} "
            f"{'has no scale, and leaves' if one else 'have no scale, and leave'} p(y) undefined: "
            "use a proper prior such as HalfNormal or HalfStudentT."
        )
    return found


def _moved(c: Coordinate, s: float) -> Coordinate:
    """Return the coordinate of s times a parameter."""
    shift = float(np.log(s))
    if c.transform == LOGIT:
        return replace(c, b=c.b * s, c=c.c * s, constant=c.constant - shift)
    if c.family in {NORMAL, STUDENT_T}:
        return replace(c, b=c.b * s, constant=c.constant - shift)
    if c.family == GAMMA:
        return replace(c, b=c.b / s, constant=c.constant - c.a * shift)
    if c.family == INVERSE_GAMMA:
        return replace(c, b=c.b * s, constant=c.constant + c.a * shift)
    assert c.family == LOG_NORMAL
    return replace(c, a=c.a + shift)


def _moved_space(space: Space, s: float) -> Space:
    sds = set(_sds(space))
    moved = [_moved(c, s) if i in sds else c for i, c in enumerate(space.coordinates)]
    return replace(space, coordinates=tuple(moved))


def _log_ratio(c: Coordinate, s: float, log_value: Array) -> Array:
    """Return how the prior density of a value changes when its scale is multiplied."""
    if c.transform != LOGIT:
        return log_prior(_moved(c, s), log_value) - log_prior(c, log_value)
    value = np.exp(log_value)
    inside = (value > c.b * s) & (value < c.c * s)
    return np.where(inside, -np.log(s), -np.inf)


def _slope(c: Coordinate, log_value: Array) -> Array:
    """Return the derivative of the log prior density of a value by the logarithm of its scale.

    The density of the logarithm is moved along, so that this is minus its derivative.
    """
    if c.transform == LOGIT:
        return np.full_like(log_value, np.nan)
    found = evaluate(c.family, c.transform, c.a, c.b, c.c, log_value, is_natural=False)[3]
    return np.asarray(-found)


# ------------------------------------------------------------------------------ from a lattice


def from_lattice(exact: Exact, scales: ArrayLike = SCALES) -> Sensitivity:
    """Return the sensitivity of a marginal likelihood that was computed by quadrature.

    Parameters
    ----------
    exact : Exact
    scales : array_like, shape (G,)

    Raises
    ------
    FitError
        If an sd has a flat prior, or a scale is not positive.
    """
    found, space = _checked_scales(scales), exact.target.space
    lattice = exact.lattice.down_to(DEEP)
    logs = [(space.coordinates[i], _log_sds(lattice, space, i)) for i in _sds(space)]
    own = _Own(exact, lattice, logs)
    table = np.array([own.moved(float(s)) for s in found]).reshape(-1, 2)
    slope = sum(float((own.weights * _slope(c, log)).sum()) for c, log in logs)
    return Sensitivity(found, table[:, 0], table[:, 1], slope / float(own.weights.sum()))


def _log_sds(lattice: Lattice, space: Space, i: int) -> Array:
    """Return the logarithm of an sd, or of its ratio to sigma, that the prior is one of, (N, T)."""
    place = space.free[i]
    own = np.log(np.maximum(lattice.nodes.values[:, place, None], MIN_VALUE))
    found = np.broadcast_to(own, lattice.log_sigma.shape)
    return np.asarray(found if space.relative[place] else found + lattice.log_sigma)


@dataclass(frozen=True, eq=False)
class _Own:
    """A posterior on a lattice, and the logarithms of the sds at its nodes."""

    exact: Exact
    lattice: Lattice
    logs: Sequence[tuple[Coordinate, Array]]

    @cached_property
    def weights(self) -> Array:
        return np.asarray(np.exp(self.lattice.log_density - self.lattice.log_density.max()))

    @cached_property
    def outer(self) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
        return self.lattice.outermost()

    def moved(self, s: float) -> tuple[float, float]:
        """Return the change of log p(y), and its error, for one scale."""
        if s == 1 or not self.logs:
            return 0.0, 0.0
        change = sum((_log_ratio(c, s, own) for c, own in self.logs), np.zeros(1))
        weights = self.weights * np.exp(change)
        error = self.lattice.error_of(weights) + self._share_outside(weights)
        if error <= ENOUGH:
            return float(np.log(weights.sum() / self.weights.sum())), error + self.exact.error
        target = replace(self.exact.target, space=_moved_space(self.exact.target.space, s))
        found = lattice.integrate(frame(target, find_mode(target)))
        return found.log_evidence - self.exact.log_evidence, found.error + self.exact.error

    def _share_outside(self, weights: Array) -> float:
        """Return the share of the density in the outermost nodes.

        A lattice is grown until the density has fallen all around, as it need not with other
        priors.
        """
        rows, ends = self.outer
        return float((weights[rows].sum() + weights[:, ends].sum()) / weights.sum())


# --------------------------------------------------------------------------------- from draws


def from_draws(target: LogPosterior, values: Array, scales: ArrayLike = SCALES) -> Sensitivity:
    """Return the sensitivity of a marginal likelihood by importance weights for draws.

    Parameters
    ----------
    target : LogPosterior
    values : ndarray, shape (S, n_values) or (chains, n, n_values)
        As `Space.values` returns them. Along a chain draws may be correlated.
    scales : array_like, shape (G,)

    Raises
    ------
    FitError
        If an sd has a flat prior, or a scale is not positive.
    """
    found = _checked_scales(scales)
    space = target.space
    values = values if values.ndim == 3 else values[:, None]  # independent draws: chains of one
    logs = [(space.coordinates[i], _log_values(values, space, i)) for i in _sds(space)]
    table = np.array([_by_weights(logs, float(s)) for s in found]).reshape(-1, 2)
    slope = sum(float(_slope(c, own).mean()) for c, own in logs)
    return Sensitivity(found, table[:, 0], table[:, 1], float(slope))


def _log_values(values: Array, space: Space, i: int) -> Array:
    """Return the logarithm of what the prior of an sd is one of, shape (chains, n)."""
    place = space.free[i]
    found = np.log(np.maximum(values[..., place], MIN_VALUE))
    return found - np.log(values[..., space.n_given]) if space.relative[place] else found


def _by_weights(logs: Sequence[tuple[Coordinate, Array]], s: float) -> tuple[float, float]:
    """Return the logarithm of the mean ratio of the priors, and its Monte Carlo error."""
    if s == 1 or not logs:
        return 0.0, 0.0
    ratios = sum((_log_ratio(c, s, own) for c, own in logs), np.zeros(1))
    (value, mcse), khat = smoothed_log_mean(ratios)
    reaches = not khat > good_khat(ratios.size) and not any(_ends_beyond(c, s) for c, _ in logs)
    return value, mcse if reaches else np.inf


def _ends_beyond(c: Coordinate, s: float) -> bool:
    """Whether a uniform prior with another scale allows values of which there are no draws."""
    return c.transform == LOGIT and (c.c * s > c.c or c.b * s < c.b)
