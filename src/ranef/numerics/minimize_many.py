"""Unconstrained minimisation of one function for many data sets at once.

Newton steps, with a curvature differenced from the gradient, run for all data sets that still
move. A direction of negative curvature is a way down from a saddle, which a vanishing gradient does
not show. Where the curvature of one data set is known, those like it start with it, and change it
as their gradients change (BFGS), which takes no differences. Nothing here knows statistics; for a
single data set see `ranef.numerics.minimize`.

Source: Nocedal & Wright (2006), *Numerical Optimization*, sections 3.4 and 18.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Flags, Places
from ranef.numerics.finite_differences import MIN_COORDINATE, ObjectiveOfMany, forward_hessians
from ranef.numerics.minimize import CURVATURE_TOLERANCE, largest_element, rounding_of
from ranef.progress import Advance, running

MAX_STEPS = 60
MAX_DECREMENT = 1e-10  # twice the gain of one more Newton step from a minimum
MAX_DECREMENT_IF_STUCK = 1e-6  # ... where rounding leaves no better point
MIN_STEP_DOWNWARDS = 0.3  # along a direction that curves downwards
MAX_GRADIENT_SHARE = 0.1  # that a step may leave without a new curvature
DAMPING = (1.0, 0.5, 0.25, 0.1, 0.01, 1e-3)  # shares of a Newton step that are tried
LEAST_CHANGE = 0.2  # of a curvature along a step, by which a gradient may change it


@dataclass(frozen=True, eq=False)
class Minima:
    """The ends of the minimisations of many replicates.

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
        """Take the other results of some replicates where they are minima that are as good.

        Parameters
        ----------
        other : Minima
        which : ndarray of int
            The replicates of `other`.
        slack : float
            How much higher the other value may be, over its size.
        """
        with np.errstate(invalid="ignore"):  # an infinite value is not settled
            tolerance = slack * np.maximum(1.0, np.abs(self.value[which]))
            is_lower = other.value <= self.value[which] + tolerance
        better = other.settled & (~self.settled[which] | is_lower)
        x, value, settled = self.x.copy(), self.value.copy(), self.settled.copy()
        places = which[better]
        x[places], value[places], settled[places] = other.x[better], other.value[better], True
        return Minima(x, value, settled)


def minimized(
    objective: ObjectiveOfMany,
    start: Array,
    curvature: Array | None = None,
    *,
    least: float = MIN_COORDINATE,
) -> Minima:
    """Minimise a function of d numbers for every replicate.

    Parameters
    ----------
    objective : callable
        From points, shape (b, d), and the places of their replicates, (b,), to values and
        gradients.
    start : ndarray, shape (B, d)
    curvature : ndarray, shape (d, d), optional
        Near the Hessians of all replicates at their starts, and positive definite. From it those
        of later points are built up; else they are differenced anew wherever they are needed.
    least : float
        The size of a coordinate up to which steps of differences are the same.
    """
    if not len(start):
        return Minima(start.copy(), np.empty(0), np.empty(0, dtype=bool))
    with running("Minimising", len(start)) as advance:
        return _minimized(objective, start, curvature, least, advance)


def _minimized(
    objective: ObjectiveOfMany,
    start: Array,
    curvature: Array | None,
    least: float,
    advance: Advance,
) -> Minima:
    """Minimise each function, and say when each has come to its minimum."""
    x, moving = start.copy(), np.arange(len(start))
    value, gradient = objective(x, moving)
    settled, stale = np.zeros(len(x), dtype=bool), np.full(len(x), curvature is None)
    hessian = np.zeros((len(x), x.shape[1], x.shape[1]))
    hessian += 0.0 if curvature is None else curvature
    for _ in range(MAX_STEPS):
        if not len(moving):
            break
        new = moving[stale[moving]]
        if len(new):
            hessian[new] = forward_hessians(objective, x[new], gradient[new], new, least)
        at = x[moving], value[moving], gradient[moving]
        step, gain, saddle = _steps(hessian[moving], at[0], at[2])
        x[moving], value[moving], gradient[moving], moved = _searched(objective, at, step, moving)
        ended = ~moved & stale[moving]
        enough = np.where(
            ended, MAX_DECREMENT_IF_STUCK, np.maximum(MAX_DECREMENT, rounding_of(at[1]))
        )
        settled[moving] = (gain < enough) & ~saddle & np.isfinite(at[1])
        stale[moving] = ~moved
        if curvature is None:
            left = largest_element(gradient[moving])
            stale[moving] |= left > MAX_GRADIENT_SHARE * largest_element(at[2])
        else:
            steps = x[moving] - at[0], gradient[moving] - at[2]
            hessian[moving] = _updated(hessian[moving], *steps)
        left = moving[~ended & ~settled[moving]]
        advance(len(moving) - len(left))
        moving = left
    return Minima(x, value, settled)


def _updated(hessian: Array, step: Array, change: Array) -> Array:
    """Return Hessians that explain how the gradients changed along a step, as BFGS has them.

    Positive definite ones stay such: where a gradient changes too little, or the wrong way, only
    a part of the change is believed (Powell's damping).
    """
    pull = np.einsum("bij,bj->bi", hessian, step)
    expected, seen = (step * pull).sum(1), (step * change).sum(1)
    with np.errstate(all="ignore"):
        share = np.where(
            seen < LEAST_CHANGE * expected, (1 - LEAST_CHANGE) * expected / (expected - seen), 1.0
        )
        change = pull + share[:, None] * (change - pull)
        gained = change[:, :, None] * change[:, None, :] / (step * change).sum(1)[:, None, None]
        lost = pull[:, :, None] * pull[:, None, :] / expected[:, None, None]
        new = hessian + gained - lost
    usable = (expected > 0) & np.isfinite(new).all((1, 2))
    return np.where(usable[:, None, None], new, hessian)


def _steps(hessian: Array, x: Array, gradient: Array) -> tuple[Array, Array, Flags]:
    """Return Newton steps, their decrements, and where the objective curves downwards.

    Coordinates at rest at exactly zero do not mix with others, by the symmetry of the objective.
    """
    still = (x == 0) & (gradient == 0)
    mixed = still[:, :, None] != still[:, None, :]
    values, vectors = np.linalg.eigh(np.where(mixed | ~np.isfinite(hessian), 0.0, hessian))
    flat = CURVATURE_TOLERANCE * np.abs(values).max(axis=1, keepdims=True, initial=0.0)
    along = np.einsum("bji,bj->bi", vectors, gradient)
    curvature = np.maximum(np.abs(values), np.maximum(flat, np.finfo(np.float64).tiny))
    size = np.where(np.abs(values) > flat, along / curvature, 0.0)
    downwards = values < -flat
    pushed = np.where(along < 0, -1.0, 1.0) * np.maximum(np.abs(size), MIN_STEP_DOWNWARDS)
    step = -np.einsum("bij,bj->bi", vectors, np.where(downwards, pushed, size))
    length = np.linalg.norm(step, axis=1)
    longest = np.maximum(1.0, np.linalg.norm(x, axis=1))
    step *= np.minimum(1.0, longest / np.maximum(length, 1e-300))[:, None]
    is_saddle = downwards.any(axis=1)
    step[still & ~is_saddle[:, None]] = 0.0  # and not a rounding error
    return step, (along**2 / curvature).sum(axis=1), is_saddle


def _searched(
    objective: ObjectiveOfMany, at: tuple[Array, Array, Array], step: Array, who: Places
) -> tuple[Array, Array, Array, Flags]:
    """Take the largest share of each step that is better; say where there is one."""
    x, value, gradient = (array.copy() for array in at)
    waiting = np.arange(len(x))
    for share in DAMPING:
        points = at[0][waiting] + share * step[waiting]
        new, slope = objective(points, who[waiting])
        with np.errstate(invalid="ignore"):  # from one infinite value to another
            change, rounding = new - at[1][waiting], rounding_of(at[1][waiting])
        flatter = largest_element(slope) < largest_element(at[2][waiting])
        better = np.isfinite(new) & ((change < -rounding) | ((change <= rounding) & flatter))
        going = waiting[better]
        x[going], value[going], gradient[going] = points[better], new[better], slope[better]
        waiting = waiting[~better]
        if not len(waiting):
            break
    moved = np.ones(len(x), dtype=bool)
    moved[waiting] = False
    return x, value, gradient, moved
