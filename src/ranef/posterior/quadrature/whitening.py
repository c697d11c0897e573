"""Whitened coordinates of the variance parameters, made for integration.

Coordinates xi are sd / sigma, mapped from the half-line; a transformed correlation; effects that
are given; and log sigma last. So every costly number depends on the other coordinates only, and
every point has a whole axis of values of sigma. Near a mode the Laplace approximation makes the
coordinates independent and of unit size.

Sds and correlations are taken where the priors hold: at the origin of the predictors or, where zero
is not observed, at the observed values nearest to it. There the two coefficients of a term are far
less dependent than at a far origin. Only for the density of one of the user's parameters do the
coordinates of its term have that parameter among them.

Source: Takahasi & Mori (1974), *Publ. RIMS Kyoto* 9, 721-741 (the map from the half-line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import special

from ranef._typing import Array, Flags, Places
from ranef.covariances.triangular_factors import lower_factor
from ranef.posterior.laplace import Mode
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.transforms import Coordinate

MAX_COUNT = 3.0  # of the steps of one xi in a step of another, where these are aligned
MAX_SAME_BASIS = 1e-9  # relative change of a coefficient by another origin that is rounding


@dataclass(frozen=True, eq=False)
class Frame:
    """Whitened coordinates: xi = center + root z, z = 0 near the mode.

    Attributes
    ----------
    target : LinearPosterior
    order : ndarray of int, shape (d,)
        The free values that the coordinates belong to; sigma, if it is free, comes last.
    bases : tuple of ndarray, shape (k, k)
        Of each term: turns coefficients on the scale of its coordinates into those of the basis.
    scales : ndarray, shape (n_values,)
        Relative sds below which a smaller one makes no difference; nan for other values.
    center : ndarray, shape (d,)
    root : ndarray, shape (d, d)
        Lower triangular.
    """

    target: LinearPosterior
    order: Places
    bases: tuple[Array, ...]
    scales: Array
    center: Array
    root: Array

    @property
    def has_sigma(self) -> bool:
        """Whether sigma is free."""
        return bool(len(self.order)) and self.order[-1] == self.target.space.n_given

    @property
    def heavy(self) -> int:
        """The number of coordinates other than sigma."""
        return len(self.order) - self.has_sigma

    @property
    def log_sigma(self) -> float:
        """The logarithm of sigma at the centre, or where it is known."""
        known = self.target.space.known[self.target.space.n_given]
        return float(self.center[-1] if self.has_sigma else np.log(known))

    @cached_property
    def is_sd(self) -> Flags:
        """Which values are standard deviations of random effects."""
        return np.isfinite(self.scales)

    @property
    def share_of_sigma(self) -> float:
        """The largest squared correlation of log sigma with another whitened coordinate."""
        if not self.has_sigma:
            return 0.0
        row = self.root[-1]
        return float((row[:-1] ** 2).max(initial=0.0) / (row**2).sum())

    def counts(self, steps: Array) -> Array:
        """Return how many steps of each xi, a row, every step of z makes, shape (heavy, heavy)."""
        of_z = self.root[: self.heavy, : self.heavy] * steps[: self.heavy]
        return np.asarray(of_z / np.diag(of_z)[:, None])

    def aligned(self, steps: Array) -> Frame:
        """Return nearly the same frame, in which a lattice has rows of nodes along every xi.

        Each xi of a node is then a multiple of one step. For a normal density such a lattice is
        as exact as one with equal steps in z: of no wave that it takes for a constant is the
        length, in z, below 2 pi over the largest step. A frame that is far from that stays as it
        is.

        Parameters
        ----------
        steps : ndarray, shape (d,)
            Of z.
        """
        h, counts, aligned = self.heavy, self.counts(steps), self.root.copy()
        if np.abs(counts).max(initial=0.0) > MAX_COUNT:
            return self
        by_others = np.linalg.solve(aligned[:h, :h].T, aligned[h:, :h].T).T  # log sigma by xi
        aligned[:h, :h] = np.rint(counts) * np.diag(aligned)[:h, None] * steps[:h, None] / steps[:h]
        aligned[h:, :h] = by_others @ aligned[:h, :h]
        return replace(self, root=aligned)


def frame(target: LinearPosterior, mode: Mode, first: int | None = None) -> Frame:
    """Return the frame around a mode; `first` is the free value that the first axis follows."""
    space = target.space
    sigma = space.n_given
    others = [int(i) for i in space.free if i not in (sigma, first)]
    lead = [] if first is None or first == sigma else [first]
    order = np.array(lead + others + [sigma] * (sigma in space.free), dtype=np.intp)

    bases = _bases(target, first, mode)
    scales = _scales(target, bases)

    def coordinates(x: Array) -> Array:
        return _from_x(target, bases, scales, x)[..., order]

    steps = 1e-4 * np.eye(space.d)
    slopes = (coordinates(mode.x + steps) - coordinates(mode.x - steps)) / 2e-4
    spread = slopes.T @ mode.root
    return Frame(target, order, bases, scales, coordinates(mode.x), lower_factor(spread))


def log_prior(c: Coordinate, log_value: Array) -> Array:
    """Return the log prior density of the logarithm of a positive parameter."""
    return np.asarray(c.at(log_value)[2])


def _bases(target: LinearPosterior, first: int | None, mode: Mode) -> tuple[Array, ...]:
    """Return of each term the basis of the priors, or where `first` differs there, one with it."""
    space, bases = target.space, []
    values, _ = space.values(mode.x)
    for (sd, partial), A, T in zip(space.places, target.bases, target.cross.bases, strict=True):
        basis = A
        if first is not None and sd.start <= first < partial.stop:
            size = np.linalg.norm(T, axis=0)
            change = np.linalg.solve(T, A)
            moved = np.abs(change - np.eye(len(T))) * size[:, None] / size > MAX_SAME_BASIS
            if first >= sd.stop and moved.any():
                basis = T
            elif first < sd.stop and moved[first - sd.start].any():
                basis = A @ np.linalg.inv(_with_users(change, first - sd.start, values[sd]))
        bases.append(basis)
    return tuple(bases)


def _with_users(change: Array, j: int, sds: Array) -> Array:
    """Return the matrix from coefficients where the priors hold to the user's j-th and the others.

    The one that makes up most of it, by its sd, is left out: the rest can vary when it is known.
    """
    left_out = int(np.argmax(np.abs(change[j]) * sds))
    rows = np.delete(np.eye(len(change)), left_out, axis=0)
    return np.insert(rows, j, change[j], axis=0)


def _scales(target: LinearPosterior, bases: Sequence[Array]) -> Array:
    """Return for each sd the standard error of one level's effect over sigma, all else known."""
    cross, scales = target.cross, np.full(len(target.space.known), np.nan)
    for (sd, _), B, m in zip(target.space.places, bases, cross.n_levels, strict=True):
        scales[sd] = np.sqrt(m / cross.n) / np.linalg.norm(B, axis=0)
    return scales


def half_line(t: Array) -> tuple[Array, Array]:
    """Return log y for y = exp(t - exp(-t)), and the logarithm of its derivative by t.

    With it a density on the half-line that is finite at zero falls doubly exponentially to the
    left (Takahasi & Mori 1974), where its logarithm would have a long exponential tail.
    """
    back = np.exp(-np.maximum(t, -300.0))
    return t - back, np.log1p(back)


def _from_half_line(log_y: Array) -> Array:
    """Return t: by the Wright omega function, as exp(-t) + log exp(-t) = -log y."""
    return np.asarray(log_y + special.wrightomega(-log_y))


def _from_x(target: LinearPosterior, bases: Sequence[Array], scales: Array, x: Array) -> Array:
    """Return xi of all values, shape (..., n_values), at points of the unconstrained space."""
    space = target.space
    values, _ = space.values(x)
    sigma = values[..., space.n_given].copy()
    xi = values.copy()
    xi[..., space.free[space.free < space.n_given]] = x[..., space.free < space.n_given]
    xi[..., space.n_given] = np.log(sigma)
    for (sd, partial), Lambda, B in zip(
        space.places, target.basis_factors(values), bases, strict=True
    ):
        F = np.linalg.solve(B, Lambda)
        ratio = np.linalg.norm(F, axis=-1) / sigma[..., None] / scales[sd]
        xi[..., sd] = _from_half_line(np.log(ratio))
        if F.shape[-1] == 2 and partial.stop > partial.start:
            xi[..., partial] = _unbounded_correlation(F)[..., None]
    return xi


def _unbounded_correlation(F: Array) -> Array:
    """Return 2 artanh of the correlation of F F', shape (..., 2, 2), accurate near 1."""
    size = np.linalg.norm(F, axis=-1)
    product = size[..., 0] * size[..., 1]
    corr = (F[..., 0, :] * F[..., 1, :]).sum(axis=-1) / product
    det = F[..., 0, 0] * F[..., 1, 1] - F[..., 0, 1] * F[..., 1, 0]
    return np.sign(corr) * 2 * np.log((1 + np.abs(corr)) * product / np.abs(det))


def values_at(frame: Frame, xi: Array) -> tuple[Array, Array]:
    """Return values, (N, n_values), with relative sds, and their log prior density by xi."""
    target, space = frame.target, frame.target.space
    values = np.broadcast_to(space.known, (len(xi), len(space.known))).copy()
    logp = np.zeros(len(xi))
    coordinates = dict(zip(space.free.tolist(), space.coordinates, strict=True))
    for place, x in zip(frame.order[: frame.heavy].tolist(), xi.T, strict=True):
        if frame.is_sd[place]:
            log_ratio, log_slope = half_line(x)
            values[:, place] = frame.scales[place] * np.exp(log_ratio)
            logp += log_slope
        else:
            values[:, place], _, log_density, _ = coordinates[place].at(x)
            logp += log_density
    for covariance, (sd, partial), A, B in zip(
        space.covariances, space.places, target.bases, frame.bases, strict=True
    ):
        if partial.stop > partial.start and not np.array_equal(A, B):
            change = np.linalg.solve(A, B)
            F = change @ covariance.factor_of(values[:, sd], values[:, partial])
            logp += _move(values, (sd, partial), F, coordinates[partial.start])
            logp += np.linalg.slogdet(change)[1]
    known = frame.is_sd & np.isfinite(space.known) & ~space.relative
    values[:, known] /= space.known[space.n_given]
    for place in np.flatnonzero(frame.is_sd & space.relative):
        if place in coordinates:
            logp += log_prior(coordinates[place], np.log(values[:, place]))
    return values, logp


def _move(values: Array, places: tuple[slice, slice], F: Array, c: Coordinate) -> Array:
    """Turn sds and correlation in another basis into those where the priors hold, in place.

    F is the factor where they hold. Returns what this changes in the log density, up to the
    determinant of the change of basis: the prior of the correlation, which was taken where it does
    not hold, and the Jacobian. That of the covariance matrix by (log sd_1, log sd_2, 2 artanh corr)
    is |Sigma| sd_1 sd_2, and one matrix by the other |change|^3.
    """
    sd, partial = places
    others, before = values[:, sd].copy(), c.at(2 * np.arctanh(values[:, partial.start]))[2]
    values[:, sd] = np.linalg.norm(F, axis=2)
    values[:, partial.start], _, log_density, _ = c.at(_unbounded_correlation(F))
    return np.asarray(log_density - before + np.log(others / values[:, sd]).sum(axis=1))
