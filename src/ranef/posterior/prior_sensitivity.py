"""How the marginal likelihood depends on the scales of the priors of the standard deviations.

The scales of all these priors are multiplied by s. Only the prior changes, so that p(y | s) / p(y)
is the posterior mean of the ratio of the two priors, and no likelihood is computed anew: on the
lattice of a quadrature, or by importance weights for draws. The density in the outermost nodes says
where the lattice does not reach far enough for another scale; there the integral is done again.

Source: Kass & Raftery (1995), *J. American Statistical Association* 90, section 5 (sensitivity of
Bayes factors); Vehtari, Simpson, Gelman, Yao & Gabry (2024), *JMLR* 25(72) (importance weights).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ranef._typing import Array, Flags, Places
from ranef.errors import FitError, listed
from ranef.numerics.importance_sampling import good_khat, smoothed_log_mean
from ranef.numerics.matrices import ReadOnly
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.quadrature.lattice import Lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.quadrature.whitening import log_prior
from ranef.posterior.transforms import (
    FLAT,
    LOGIT,
    MIN_VALUE,
    Coordinate,
    Space,
    coordinate,
    log_pdf,
)
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Prior, Relative, Uniform

SCALES = 2.0 ** np.linspace(-2, 2, 9)  # of the priors of the sds: a quarter to four times
MAX_FALL = 17.0  # of the log density, beyond which nodes are left out
MAX_LOG_ERROR = 1e-5  # of log p(y), up to which a lattice is used for another scale


@dataclass(frozen=True, eq=False)
class Sensitivity(ReadOnly):
    """The marginal likelihood with all scales of the priors of the sds multiplied.

    Attributes
    ----------
    scales : ndarray, shape (G,)
        What the scales are multiplied by.
    log_ratio : ndarray, shape (G,)
        log p(y | scales) - log p(y).
    mcse : ndarray, shape (G,)
        The Monte Carlo error of the log ratios, or the error of the quadrature. Infinite where the
        two posteriors are too far apart for importance weights.
    """

    scales: Array
    log_ratio: Array
    mcse: Array


# --------------------------------------------------------------------------------- the priors


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
    >>> from ranef.priors.distributions import Exponential, HalfStudentT
    >>> print(scaled(HalfStudentT(3, 10), 2), scaled(Relative(Exponential(1)), 0.5))
    HalfStudentT(3, 20) sigma * Exponential(0.5)
    """
    _checked_scales([s])
    of_number = prior.prior if isinstance(prior, Relative) else prior
    if not (prior.positive and prior.proper):
        lacks = "has no scale" if not prior.proper else "is not one of a positive number"
        raise FitError(
            f"{of_number} {lacks}, so that it cannot be multiplied: give the standard deviation a "
            "prior such as HalfNormal or HalfStudentT."
        )
    return prior.times(s)


def with_scaled_effects(priors: Priors, effects: Collection[str], s: float) -> Priors:
    """Return priors of which those of some fixed effects are s times as wide, where they are."""
    scaled_beta = tuple(
        _widened(prior, s) if name in effects else prior
        for name, prior in zip(priors.fixed, priors.beta, strict=True)
    )
    return replace(priors, beta=scaled_beta)


def _widened(prior: Prior, s: float) -> Prior:
    """Return a prior s times as wide around its location; one of a positive number from zero."""
    if isinstance(prior, Uniform):
        middle, half = (prior.lower + prior.upper) / 2, s * (prior.upper - prior.lower) / 2
        return Uniform(middle - half, middle + half)
    return prior.times(s)


def _checked_scales(scales: ArrayLike) -> Array:
    numbers = np.atleast_1d(np.asarray(scales, dtype=np.float64))
    if numbers.ndim != 1 or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise FitError(f"scales must be positive numbers, such as 0.5 and 2, got {scales!r}.")
    return numbers


# ----------------------------------------------------------------------------- its coordinates


def _sds(space: Space) -> list[int]:
    """Return the coordinates that are standard deviations of random effects.

    Raises
    ------
    FitError
        If one of them has a flat prior.
    """
    sds = {place for sd, _ in space.places for place in range(sd.start, sd.stop)}
    coordinates = [i for i, place in enumerate(space.free) if int(place) in sds]
    flat = [
        space.free_names[i]
        for i in coordinates
        if space.coordinates[i].family == FLAT and space.coordinates[i].transform != LOGIT
    ]
    if flat:
        one = len(flat) == 1
        raise FitError(
            f"{'a flat prior' if one else 'flat priors'} on {listed(flat)} "
            f"{'has no scale, and leaves' if one else 'have no scale, and leave'} p(y) undefined: "
            "use a proper prior such as HalfNormal or HalfStudentT."
        )
    return coordinates


def _moved(c: Coordinate, s: float) -> Coordinate:
    """Return the coordinate of s times a parameter."""
    assert c.prior is not None
    return coordinate(scaled(c.prior, s), positive=True)


def _moved_space(space: Space, s: float) -> Space:
    """Return the space with the priors of the sds multiplied by s."""
    sds = set(_sds(space))
    moved = [_moved(c, s) if i in sds else c for i, c in enumerate(space.coordinates)]
    return replace(space, coordinates=tuple(moved))


def _log_ratio(c: Coordinate, s: float, log_value: Array) -> Array:
    """Return the change of the log prior density of a value when its scale is multiplied."""
    if c.transform != LOGIT:
        return log_prior(_moved(c, s), log_value) - log_prior(c, log_value)
    value = np.exp(log_value)
    inside = (value > c.b * s) & (value < c.c * s)
    return np.where(inside, -np.log(s), -np.inf)


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
    scales, space = _checked_scales(scales), exact.target.space
    lattice = exact.lattice.down_to(MAX_FALL)
    log_sds = [(space.coordinates[i], _log_sds(lattice, space, i)) for i in _sds(space)]
    weighted = _WeightedLattice(exact, lattice, log_sds)
    table = np.array([weighted.log_ratio(float(s)) for s in scales]).reshape(-1, 2)
    return Sensitivity(scales, table[:, 0], table[:, 1])


def _log_sds(lattice: Lattice, space: Space, i: int) -> Array:
    """Return the logarithm of an sd, or of the ratio to sigma that has the prior, (N, T)."""
    place = space.free[i]
    log_ratio = np.log(np.maximum(lattice.nodes.values[:, place, None], MIN_VALUE))
    return log_ratio + np.where(space.relative[place], 0.0, lattice.log_sigma)


@dataclass(frozen=True, eq=False)
class _WeightedLattice:
    """A posterior on a lattice, and the logarithms of the sds at its nodes."""

    exact: Exact
    lattice: Lattice
    log_sds: Sequence[tuple[Coordinate, Array]]

    @cached_property
    def outermost(self) -> tuple[Flags, Places]:
        """The nodes at the edge of the lattice, and the ends of the axis of sigma."""
        return self.lattice.outermost()

    def log_ratio(self, s: float) -> tuple[float, float]:
        """Return the change of log p(y), and its error, for one scale.

        The lattice is grown until the density has fallen all around; whether it has with the other
        priors, the share of the outermost nodes says.
        """
        if s == 1 or not self.log_sds:
            return 0.0, 0.0
        change = sum((_log_ratio(c, s, log_sd) for c, log_sd in self.log_sds), np.zeros(1))
        weights = self.lattice.weights * np.exp(change)
        rows, ends = self.outermost
        share_outside = (weights[rows].sum() + weights[:, ends].sum()) / weights.sum()
        error = self.lattice.error_of(weights) + float(share_outside)
        if error <= MAX_LOG_ERROR:
            return float(
                np.log(weights.sum() / self.lattice.weights.sum())
            ), error + self.exact.error
        target = replace(self.exact.target, space=_moved_space(self.exact.target.space, s))
        again = Exact.of(target)
        return again.log_evidence - self.exact.log_evidence, again.error + self.exact.error


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
    scales, space = _checked_scales(scales), target.space
    values = values if values.ndim == 3 else values[:, None]  # independent draws: chains of one
    log_sds = [(space.coordinates[i], _log_values(values, space, i)) for i in _sds(space)]
    table = np.array([_by_weights(log_sds, float(s)) for s in scales]).reshape(-1, 2)
    return Sensitivity(scales, table[:, 0], table[:, 1])


def from_effects(
    priors: Priors, effects: Collection[str], beta: Array, scales: ArrayLike = SCALES
) -> Sensitivity:
    """Return the sensitivity to the priors of fixed effects by importance weights for draws.

    Parameters
    ----------
    priors : Priors
    effects : collection of str
        The fixed effects whose priors are scaled.
    beta : ndarray, shape (chains, n, p)
        Draws of all fixed effects, at centred predictors where the priors hold there.
    scales : array_like, shape (G,)
    """
    scales = _checked_scales(scales)
    before = [(j, p) for j, p in enumerate(priors.beta) if priors.fixed[j] in effects]

    def ratios(s: float) -> Array:
        after = with_scaled_effects(priors, effects, s).beta
        changes = [
            log_pdf(after[j], beta[..., j], positive=False)
            - log_pdf(p, beta[..., j], positive=False)
            for j, p in before
        ]
        return np.asarray(sum(changes, np.zeros(beta.shape[:-1])))

    ends = {s for s in scales if any(isinstance(p, Uniform) for _, p in before) and s > 1}
    table = [
        (0.0, 0.0) if s == 1 else _by_ratios(ratios(float(s)), reaches=s not in ends)
        for s in scales
    ]
    log_ratio, mcse = np.array(table).reshape(-1, 2).T
    return Sensitivity(scales, log_ratio, mcse)


def _log_values(values: Array, space: Space, i: int) -> Array:
    """Return the logarithm of an sd, or of the ratio to sigma that has the prior, (chains, n)."""
    place = space.free[i]
    log_value = np.log(np.maximum(values[..., place], MIN_VALUE))
    return log_value - np.log(values[..., space.n_given]) if space.relative[place] else log_value


def _by_weights(log_sds: Sequence[tuple[Coordinate, Array]], s: float) -> tuple[float, float]:
    """Return the logarithm of the mean ratio of the priors, and its Monte Carlo error."""
    if s == 1 or not log_sds:
        return 0.0, 0.0
    ratios = sum((_log_ratio(c, s, log_sd) for c, log_sd in log_sds), np.zeros(1))
    return _by_ratios(ratios, reaches=not any(_ends_beyond(c, s) for c, _ in log_sds))


def _by_ratios(ratios: Array, *, reaches: bool) -> tuple[float, float]:
    """Return the logarithm of the mean of ratios, with an infinite error where it has none."""
    (value, mcse), khat = smoothed_log_mean(ratios)
    return value, mcse if reaches and not khat > good_khat(ratios.size) else np.inf


def _ends_beyond(c: Coordinate, s: float) -> bool:
    """Return whether a uniform prior with another scale allows values without any draws."""
    return c.transform == LOGIT and (c.c * s > c.c or c.b * s < c.b)
