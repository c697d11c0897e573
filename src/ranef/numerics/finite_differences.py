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
CENTRAL_STEP = 1e-4


def forward_hessian(objective: Objective, x: Array) -> Array:
    """Return the Hessian by forward differences of the gradient, shape (d, d)."""
    gradient = objective(x)[1]
    steps = np.diag(_forward_steps(x))
    hessian = np.array([(objective(x + step)[1] - gradient) / step.sum() for step in steps])
    return np.asarray((hessian + hessian.T) / 2)


def forward_hessians(
    objective: ObjectiveOfMany, x: Array, gradient: Array, replicates: Places
) -> Array:
    """Return the Hessians of many data sets by forward differences, shape (b, d, d).

    Parameters
    ----------
    objective : callable
        From points, shape (b, d), and the places of their replicates, (b,), to values and
        gradients.
    x, gradient : ndarray, shape (b, d)
    replicates : ndarray of int, shape (b,)
    """
    hessians, steps = np.empty((*x.shape, x.shape[1])), _forward_steps(x)
    for j, step in enumerate(steps.T):
        moved = x.copy()
        moved[:, j] += step
        hessians[:, j] = (objective(moved, replicates)[1] - gradient) / step[:, None]
    return (hessians + hessians.swapaxes(1, 2)) / 2


def _forward_steps(x: Array) -> Array:
    return np.asarray(FORWARD_STEP * np.maximum(np.abs(x), MIN_COORDINATE))


def central_hessian(objective: Objective, x: Array) -> Array:
    """Return the Hessian by central differences of the gradient, shape (d, d).

    On one side only where the objective is infinite on the other; nan where it is on both.
    """
    center = objective(x)[1]
    rows = []
    for step in CENTRAL_STEP * np.eye(len(x)):
        ends = [objective(x + step), objective(x - step)]
        up, down = (g if np.isfinite(value) else None for value, g in ends)
        sides = 2 - (up is None) - (down is None)
        difference = (center if up is None else up) - (center if down is None else down)
        rows.append(difference / (sides * CENTRAL_STEP) if sides else np.full(len(x), np.nan))
    hessian = np.array(rows).reshape(len(x), len(x))
    return np.asarray((hessian + hessian.T) / 2)
