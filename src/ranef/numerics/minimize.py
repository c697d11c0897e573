"""Unconstrained minimisation with a gradient, down to rounding error.

Quasi-Newton steps (SciPy's BFGS) bring the point near a minimum; the Hessian, differenced from
the gradient, then tells a minimum from a saddle, which a vanishing gradient cannot, and Newton
steps finish. Rounding of the gradient may bend a flat direction downwards: a point is a saddle only
where going that way lowers the objective by more than its own rounding. Nothing here knows
statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ranef._typing import Array, Flags
from ranef.errors import Convergence
from ranef.numerics.finite_differences import (
    MIN_COORDINATE,
    MIN_STANDARDISED,
    Objective,
    forward_hessian,
    standardised,
)
from ranef.progress import counted

EVALUATING = "Fitting, evaluations"
GRADIENT_TOLERANCE = 1e-3  # over the root of the curvature: where Newton steps take over
DECREMENT_TOLERANCE = 1e-6  # twice what a Newton step would still gain
CURVATURE_TOLERANCE = 1e-7  # relative to the largest curvature
MAX_LOSS_OF_SIMPLE = 0.1  # of a simpler point, before Newton steps start from it
MAX_RESTARTS = 6
MAX_NEWTON = 40
DAMPING = (1.0, 0.5, 0.25, 0.1, 0.01)  # shares of a Newton step that are tried
LENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)  # of the steps that are tried to leave a saddle
RELATIVE_ROUNDING = 1e-12  # of a value
DECIMALS_OF_A_VALUE = 9  # of two optima, beyond which they are equally good
MAX_GRADIENT_SHARE = 0.01  # that a Newton step may leave without a new Hessian
ROUNDING_DECREMENT = 1e-4  # of a step, over the rounding of a value, after which rounding is left


@dataclass(frozen=True)
class Step:
    """One accepted step: the value of the objective, the point, and by how much the next falls.

    The decrease is what a Newton step predicts; nan where none was at hand.
    """

    value: float
    x: Array
    decrease: float = np.nan


@dataclass(frozen=True)
class Optimum:
    """The end of a minimisation.

    Attributes
    ----------
    x : ndarray, shape (d,)
    value : float
    decrement : float
        g' H^-1 g, twice the gain of one more Newton step; H by differences of g nearby.
    evaluations : int
        Calls of the objective.
    convergence : Convergence
    trace : tuple of Step
    """

    x: Array
    value: float
    decrement: float
    evaluations: int
    convergence: Convergence
    trace: tuple[Step, ...]


class _Valued(Protocol):
    @property
    def value(self) -> float: ...


def lowest[Result: _Valued](results: Iterable[Result]) -> Result:
    """Return the result with the lowest value; of those that only rounding sets apart, the first.

    Parameters
    ----------
    results : iterable
        Of anything that has a `value`, such as an `Optimum`.
    """
    return min(results, key=lambda result: round(result.value, DECIMALS_OF_A_VALUE))


def best_of(
    objective: Objective,
    starts: Iterable[Array],
    *,
    units: Array | None = None,
    simplify: Callable[[Array], Array] | None = None,
    report: Callable[[Step], None] | None = None,
) -> Optimum:
    """Minimise a smooth function from each of several starts, and return the lowest optimum."""
    return lowest(
        minimize(objective, x, units=units, simplify=simplify, report=report) for x in starts
    )


def rounding_of(value: Array | float) -> Array:
    """Return the error by rounding of values of this size, one or many."""
    return np.asarray(RELATIVE_ROUNDING * np.maximum(1.0, np.abs(value)))


def largest_element(gradient: Array) -> Array:
    """Return the size of the largest element of one gradient or of many, shape (..., d)."""
    return np.asarray(np.abs(gradient).max(axis=-1, initial=0.0))


@dataclass
class _Counter:
    """Calls an objective, never twice at a point; keeps the accepted steps, and tells of them."""

    objective: Objective
    report: Callable[[Step], None]
    least: float = MIN_COORDINATE  # of coordinates, for differences
    evaluated: dict[bytes, tuple[float, Array]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def __call__(self, x: Array) -> tuple[float, Array]:
        key = x.tobytes()
        if key not in self.evaluated:
            self.evaluated[key] = self.objective(x)
        return self.evaluated[key]

    def accept(self, value: float, x: Array) -> None:
        self.steps.append(Step(value, np.array(x)))
        self.report(self.steps[-1])

    def hessian(self, x: Array) -> Array:
        return forward_hessian(self, x, self.least)


def minimize(
    objective: Objective,
    start: Array,
    *,
    units: Array | None = None,
    simplify: Callable[[Array], Array] | None = None,
    report: Callable[[Step], None] | None = None,
    max_iterations: int = 1000,
) -> Optimum:
    """Minimise a smooth function.

    Parameters
    ----------
    objective : callable
        Point, shape (d,), to value and gradient, shape (d,). May answer `inf`.
    start : ndarray, shape (d,)
    units : ndarray, shape (d, d), optional
        Standard errors, as a matrix: the search is in z, x = units z, where the function curves
        about alike in all directions. Without it x itself should be such.
    simplify : callable, optional
        Point to a nearby point that would be nicer (with exact zeros, say). It is taken where it
        is a minimum too.
    report : callable, optional
        Is told of every step when it is taken.
    max_iterations : int

    Returns
    -------
    Optimum
        Its `convergence` says how far to trust it; nothing is raised.

    Examples
    --------
    >>> bowl = lambda x: (float((x - 1) @ (x - 1)), 2 * (x - 1))
    >>> minimize(bowl, np.zeros(2)).x
    array([1., 1.])
    """
    with counted(EVALUATING, objective) as called:
        count = _Counter(called, report or (lambda _: None))
        if units is not None:
            return _standardised(count, start, units, simplify, max_iterations)
        return _minimized(count, start, simplify, max_iterations)


def _standardised(
    count: _Counter,
    start: Array,
    units: Array,
    simplify: Callable[[Array], Array] | None,
    limit: int,
) -> Optimum:
    """Minimise in z, x = units z."""

    def turned(step: Step) -> Step:
        return replace(step, x=units @ step.x)

    def simpler(z: Array) -> Array:
        x = units @ z
        simple = x if simplify is None else simplify(x)
        return np.where(simple == x, z, np.linalg.solve(units, simple))

    objective = standardised(count.objective, units)
    of_z = _Counter(objective, lambda step: count.report(turned(step)), MIN_STANDARDISED)
    found = _minimized(of_z, np.linalg.solve(units, start), simpler, limit)
    return replace(found, x=units @ found.x, trace=tuple(map(turned, found.trace)))


def _minimized(
    count: _Counter, start: Array, simplify: Callable[[Array], Array] | None, limit: int
) -> Optimum:
    x = np.array(start, dtype=np.float64)
    count.accept(count(x)[0], x)
    if not len(x):
        return _finished(count, x, np.zeros((0, 0)), Convergence.CONVERGED)
    x, ended = _quasi_newton(count, x, limit)
    settled = _settled(count, x, ended, limit)
    if simplify is not None:
        settled = _simplified(count, settled, simplify, limit)
    return _finished(count, *settled)


type Settled = tuple[Array, Array, Convergence]  # a point, its Hessian, and how it ended


def _settled(count: _Counter, x: Array, ended: Convergence, limit: int) -> Settled:
    """Leave saddles, then take Newton steps; return the point, its Hessian, and how it ended."""
    hessian = count.hessian(x)
    for _ in range(MAX_RESTARTS):
        lower = _off_saddle(count, x, hessian)
        if lower is None:
            break
        x, ended = _quasi_newton(count, lower, limit)
        hessian = count.hessian(x)
    x, hessian = _newton(count, x, hessian)
    count.accept(count(x)[0], x)
    return x, hessian, ended


def _quasi_newton(count: _Counter, start: Array, limit: int) -> tuple[Array, Convergence]:
    from scipy import optimize

    curvature = count.hessian(start)
    options: Any = {"maxiter": limit, "gtol": GRADIENT_TOLERANCE}
    if np.isfinite(curvature).all():
        values = np.linalg.eigvalsh(curvature)
        options["gtol"] = GRADIENT_TOLERANCE * np.sqrt(max(1.0, values[-1]))
        if values[0] > CURVATURE_TOLERANCE * values[-1]:
            inverse = np.linalg.inv(curvature)
            options["hess_inv0"] = (inverse + inverse.T) / 2
    result = optimize.minimize(
        count,
        start,
        jac=True,
        method="BFGS",
        callback=lambda intermediate_result: count.accept(
            intermediate_result.fun, intermediate_result.x
        ),
        options=options,
    )
    reached = result.nit >= limit
    return result.x, Convergence.MAX_ITERATIONS if reached else Convergence.CONVERGED


def _simplified(
    count: _Counter, settled: Settled, simplify: Callable[[Array], Array], limit: int
) -> Settled:
    """Prefer a simpler point where it leads to a minimum that is as good."""
    x, _, ended = settled
    value, simple = count(x)[0], simplify(x)
    if np.array_equal(x, simple) or count(simple)[0] > value + MAX_LOSS_OF_SIMPLE:
        return settled
    if _is_saddle(count, simple, count.hessian(simple)):
        return settled
    n_steps = len(count.steps)
    simpler = _settled(count, simple, ended, limit)
    if count(simpler[0])[0] <= value + 100 * rounding_of(value):
        return simpler
    del count.steps[n_steps:]
    return settled


def _still(count: _Counter, x: Array) -> Flags:
    """Return which coordinates are at rest at exactly zero, by the symmetry of the objective.

    A step of one from there would gain less than rounding, to first order. They do not mix with
    others. The objective may have a kink: a curvature without bound.
    """
    value, gradient = count(x)
    return np.asarray((x == 0) & (np.abs(gradient) <= rounding_of(value)))


def _off_saddle(count: _Counter, x: Array, hessian: Array) -> Array | None:
    """Return a point that is lower than a saddle; None if there is none, or rounding hides it."""
    points = _downwards(count, x, hessian)
    lower = min(points, key=lambda point: count(point)[0], default=x)
    return lower if _is_lower(count, lower, x) else None


def _is_saddle(count: _Counter, x: Array, hessian: Array) -> bool:
    """Whether a point along a direction of negative curvature is lower; the nearest tell first."""
    return any(_is_lower(count, point, x) for point in reversed(_downwards(count, x, hessian)))


def _is_lower(count: _Counter, point: Array, x: Array) -> bool:
    """Whether the value at a point is lower by more than rounding."""
    value = count(point)[0]
    return bool(value + rounding_of(value) < count(x)[0])


def _downwards(count: _Counter, x: Array, hessian: Array) -> list[Array]:
    """Return points both ways along a direction of negative curvature, the farthest first."""
    direction = _negative_curvature(hessian, _still(count, x))
    if direction is None:
        return []
    return [x + sign * size * direction for size in LENGTHS for sign in (1, -1)]


def _negative_curvature(hessian: Array, still: Flags) -> Array | None:
    """Return a direction in which the objective curves downwards, if there is one."""
    if not hessian.size or not np.isfinite(hessian).all():
        return None
    for block in (np.flatnonzero(~still), np.flatnonzero(still)):
        values, vectors = np.linalg.eigh(hessian[np.ix_(block, block)])
        if len(block) and values[0] < -CURVATURE_TOLERANCE * np.abs(values).max():
            direction = np.zeros(len(hessian))
            direction[block] = vectors[:, 0]
            return direction
    return None


def _newton(count: _Counter, x: Array, hessian: Array) -> tuple[Array, Array]:
    """Take Newton steps while they help; renew the Hessian where the gradient shrinks slowly."""
    for _ in range(MAX_NEWTON):
        value, gradient = count(x)
        moving = ~_still(count, x)  # a simplified point stays simple
        step = np.zeros_like(x)
        step[moving] = -_inverse(hessian[np.ix_(moving, moving)]) @ gradient[moving]
        is_last = abs(step @ gradient) < ROUNDING_DECREMENT * rounding_of(value)
        better = next((x + t * step for t in DAMPING if _is_better(count, x, x + t * step)), None)
        if better is None:
            break
        is_slow = largest_element(count(better)[1]) > MAX_GRADIENT_SHARE * largest_element(gradient)
        x = better
        if is_last:
            break
        if is_slow:
            hessian = count.hessian(x)
    return x, hessian


def _is_better(count: _Counter, x: Array, other: Array) -> bool:
    """Whether a point has a lower value; where rounding hides that, a smaller gradient."""
    (value, gradient), (new_value, new_gradient) = count(x), count(other)
    if abs(new_value - value) > rounding_of(value):
        return new_value < value
    return bool(largest_element(new_gradient) < largest_element(gradient))


def _inverse(hessian: Array) -> Array:
    """Return the inverse on the directions that curve upwards, zero on flat ones."""
    values, vectors = np.linalg.eigh(np.nan_to_num(hessian))
    curved = values > CURVATURE_TOLERANCE * np.abs(values).max(initial=0.0)
    return np.asarray((vectors[:, curved] / values[curved]) @ vectors[:, curved].T)


def _finished(count: _Counter, x: Array, hessian: Array, ended: Convergence) -> Optimum:
    value, gradient = count(x)
    still = _still(count, x)
    decrement = _decrement(gradient[~still], hessian[np.ix_(~still, ~still)])
    can_gain = decrement > max(DECREMENT_TOLERANCE, float(rounding_of(value)))
    if _is_saddle(count, x, hessian) or can_gain or not np.isfinite(value):
        ended = ended if ended is Convergence.MAX_ITERATIONS else Convergence.STALLED
    else:
        ended = Convergence.CONVERGED
    return Optimum(x, value, decrement, len(count.evaluated), ended, tuple(count.steps))


def _decrement(gradient: Array, hessian: Array) -> float:
    """Return g' H^-1 g, with a flat or downward direction as curved as it might just be."""
    if not len(gradient):
        return 0.0
    values, vectors = np.linalg.eigh(np.nan_to_num(hessian))
    curvature = np.maximum(np.abs(values), CURVATURE_TOLERANCE * np.abs(values).max())
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.nan_to_num((vectors.T @ gradient) ** 2 / curvature).sum())
