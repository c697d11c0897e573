"""Hessians by finite differences of the gradient, for three purposes.

Newton steps need a curvature that is cheap: forward differences, one gradient for each parameter
(`forward_hessian`), or one batch of gradients where many data sets go together
(`forward_hessians`). Standard errors need one that is accurate: central differences
(`central_hessian`), whose error is of second order in the step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ranef._typing import Array, Places

type Objective = Callable[[Array], tuple[float, Array]]
type ObjectiveOfMany = Callable[[Array, Places], tuple[Array, Array]]

FORWARD_STEP = 1e-5  # relative to the coordinate
MIN_COORDINATE = 0.1  # in size, for forward steps
MIN_STANDARDISED = 10.0  # the same of a coordinate in standard errors, for which 1e-4 is small
CENTRAL_STEP = 1e-4
MIN_INFORMATION = 1e-300
LEAST_CURVATURE = 1e-8  # of a direction, relative to that of single coordinates
STANDARDISED_STEP = 3e-3  # of a coordinate in standard errors


def forward_hessian(objective: Objective, x: Array, least: float = MIN_COORDINATE) -> Array:
    """Return the Hessian by forward differences of the gradient, shape (d, d).

    Parameters
    ----------
    objective : callable
    x : ndarray, shape (d,)
    least : float
        The size of a coordinate up to which steps are the same.
    """
    gradient = objective(x)[1]
    steps = np.diag(_forward_steps(x, least))
    hessian = np.array([(objective(x + step)[1] - gradient) / step.sum() for step in steps])
    return np.asarray((hessian + hessian.T) / 2)


def forward_hessians(
    objective: ObjectiveOfMany,
    x: Array,
    gradient: Array,
    replicates: Places,
    least: float = MIN_COORDINATE,
) -> Array:
    """Return the Hessians of many data sets by forward differences, shape (b, d, d).

    Parameters
    ----------
    objective : callable
        From points, shape (b, d), and the places of their replicates, (b,), to values and
        gradients.
    x, gradient : ndarray, shape (b, d)
    replicates : ndarray of int, shape (b,)
    least : float
        The size of a coordinate up to which steps are the same.
    """
    hessians, steps = np.empty((*x.shape, x.shape[1])), _forward_steps(x, least)
    for j, step in enumerate(steps.T):
        moved = x.copy()
        moved[:, j] += step
        hessians[:, j] = (objective(moved, replicates)[1] - gradient) / step[:, None]
    return (hessians + hessians.swapaxes(1, 2)) / 2


def _forward_steps(x: Array, least: float = MIN_COORDINATE) -> Array:
    return np.asarray(FORWARD_STEP * np.maximum(np.abs(x), least))


def standardised(objective: Objective, units: Array) -> Objective:
    """Return a function of coordinates z in units, x = units z, with its gradient.

    Parameters
    ----------
    objective : callable
    units : ndarray, shape (d, d)
        Standard errors, as a matrix: in z the function curves alike in all directions, and a step
        of differences is as far above rounding in one as in another.
    """

    def of_units(z: Array) -> tuple[float, Array]:
        value, gradient = objective(units @ z)
        return value, units.T @ gradient

    return of_units


def units_of(information: Array) -> Array:
    """Return a matrix of standard errors, units' information units = I, for `standardised`.

    Directions of no information, or of less, count as having a little.
    """
    size = np.sqrt(np.maximum(np.diag(information), MIN_INFORMATION))
    values, vectors = np.linalg.eigh(np.nan_to_num(information / np.outer(size, size)))
    return np.asarray(vectors / np.sqrt(np.maximum(values, LEAST_CURVATURE)) / size[:, None])


def standardised_hessian(objective: Objective, x: Array, units: Array) -> Array:
    """Return the Hessian in z, x = units z, by central differences of the gradient."""
    z = np.linalg.solve(units, x)
    return central_hessian(standardised(objective, units), z, STANDARDISED_STEP)


def central_hessian(objective: Objective, x: Array, size: float = CENTRAL_STEP) -> Array:
    """Return the Hessian by central differences of the gradient, shape (d, d).

    On one side only where the objective is infinite on the other; nan where it is on both.

    Parameters
    ----------
    objective : callable
    x : ndarray, shape (d,)
    size : float
        Of a step.
    """
    center = objective(x)[1]
    rows = []
    for step in size * np.eye(len(x)):
        ends = [objective(x + step), objective(x - step)]
        up, down = (g if np.isfinite(value) else None for value, g in ends)
        sides = 2 - (up is None) - (down is None)
        difference = (center if up is None else up) - (center if down is None else down)
        rows.append(difference / (sides * size) if sides else np.full(len(x), np.nan))
    hessian = np.array(rows).reshape(len(x), len(x))
    return np.asarray((hessian + hessian.T) / 2)
