"""Unconstrained minimisation of one function for many data sets at once.

Newton steps, with a curvature differenced from the gradient, run for all data sets that still
move. A direction of negative curvature is a way down from a saddle, which a vanishing gradient does
not show. Nothing here knows statistics; for a single data set see `ranef.numerics.minimize`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Flags, Places
from ranef.numerics.finite_differences import ObjectiveOfMany, forward_hessians
from ranef.numerics.minimize import largest_element, rounding_of

MAX_STEPS = 60
SETTLED = 1e-10  # what a Newton step may still gain, doubled
STUCK = 1e-6  # ... where rounding leaves no better point
CURVATURE = 1e-7  # relative to the largest one
PUSH = 0.3  # the least step along a direction that curves downwards
SLOW = 0.1  # a gradient that a step leaves larger than this share asks for a new curvature
SHARES = (1.0, 0.5, 0.25, 0.1, 0.01, 1e-3)  # of a Newton step


@dataclass(frozen=True, eq=False)
class Minima:
    """Where the minimisations of many replicates ended.

    Attributes
    ----------
    x : ndarray, shape (B, d)
    value : ndarray, shape (B,)
    settled : ndarray of bool, shape (B,)
        Whether it is a minimum.
    """

    x: Array
    value: Array
    settled: Flags

    def improved(self, other: Minima, which: Places, slack: float) -> Minima:
        """Take what others found for some replicates where it is a minimum that is as good.

        Parameters
        ----------
        other : Minima
        which : ndarray of int
            The replicates of `other`.
        slack : float
            How much higher the other value may be, over its size.
        """
        with np.errstate(invalid="ignore"):  # what is nowhere is not settled
            room = slack * np.maximum(1.0, np.abs(self.value[which]))
            lower = other.value <= self.value[which] + room
        taken = other.settled & (~self.settled[which] | lower)
        x, value, settled = self.x.copy(), self.value.copy(), self.settled.copy()
        places = which[taken]
        x[places], value[places], settled[places] = other.x[taken], other.value[taken], True
        return Minima(x, value, settled)


def minimized(objective: ObjectiveOfMany, start: Array) -> Minima:
    """Minimise a function of d numbers for every replicate.

    Parameters
    ----------
    objective : callable
        From points, shape (b, d), and the places of their replicates, (b,), to values and
        gradients.
    start : ndarray, shape (B, d)
    """
    x, moving = start.copy(), np.arange(len(start))
    if not len(moving):
        return Minima(x, np.empty(0), np.empty(0, dtype=bool))
    value, gradient = objective(x, moving)
    settled, stale = np.zeros(len(x), dtype=bool), np.ones(len(x), dtype=bool)
    hessian = np.zeros((len(x), x.shape[1], x.shape[1]))
    for _ in range(MAX_STEPS):
        if not len(moving):
            break
        new = moving[stale[moving]]
        if len(new):
            hessian[new] = forward_hessians(objective, x[new], gradient[new], new)
        at = x[moving], value[moving], gradient[moving]
        step, gain, saddle = _steps(hessian[moving], at[0], at[2])
        x[moving], value[moving], gradient[moving], moved = _searched(objective, at, step, moving)
        ended = ~moved & stale[moving]
        enough = np.where(ended, STUCK, np.maximum(SETTLED, rounding_of(at[1])))
        settled[moving] = (gain < enough) & ~saddle & np.isfinite(at[1])
        stale[moving] = ~moved | (largest_element(gradient[moving]) > SLOW * largest_element(at[2]))
        moving = moving[~ended & ~settled[moving]]
    return Minima(x, value, settled)


def _steps(hessian: Array, x: Array, gradient: Array) -> tuple[Array, Array, Flags]:
    """Return Newton steps, what they gain (doubled), and where the objective curves downwards.

    Coordinates at rest at exactly zero do not mix with others, by the symmetry of the objective.
    """
    still = (x == 0) & (gradient == 0)
    mixed = still[:, :, None] != still[:, None, :]
    values, vectors = np.linalg.eigh(np.where(mixed | ~np.isfinite(hessian), 0.0, hessian))
    least = CURVATURE * np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    along = np.einsum("bji,bj->bi", vectors, gradient)
    curvature = np.maximum(np.abs(values), np.maximum(least, np.finfo(np.float64).tiny))
    size = np.where(np.abs(values) > least, along / curvature, 0.0)
    downwards = values < -least
    pushed = np.where(along < 0, -1.0, 1.0) * np.maximum(np.abs(size), PUSH)
    step = -np.einsum("bij,bj->bi", vectors, np.where(downwards, pushed, size))
    length = np.linalg.norm(step, axis=1)
    most = np.maximum(1.0, np.linalg.norm(x, axis=1))
    step *= np.minimum(1.0, most / np.maximum(length, 1e-300))[:, None]
    return step, (along**2 / curvature).sum(axis=1), downwards.any(axis=1)


def _searched(
    objective: ObjectiveOfMany, at: tuple[Array, Array, Array], step: Array, who: Places
) -> tuple[Array, Array, Array, Flags]:
    """Take the largest share of each step that is better; say where there is one."""
    x, value, gradient = (part.copy() for part in at)
    left = np.arange(len(x))
    for share in SHARES:
        points = at[0][left] + share * step[left]
        new, slope = objective(points, who[left])
        with np.errstate(invalid="ignore"):  # from nowhere to nowhere
            change, noise = new - at[1][left], rounding_of(at[1][left])
        flatter = largest_element(slope) < largest_element(at[2][left])
        better = np.isfinite(new) & ((change < -noise) | ((change <= noise) & flatter))
        taken = left[better]
        x[taken], value[taken], gradient[taken] = points[better], new[better], slope[better]
        left = left[~better]
        if not len(left):
            break
    moved = np.ones(len(x), dtype=bool)
    moved[left] = False
    return x, value, gradient, moved
