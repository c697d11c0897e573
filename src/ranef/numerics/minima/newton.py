"""Unconstrained minimisation by Newton steps, with a curvature that comes with every value.

The curvature need not be exact. What it lacks is learnt from the change of the gradient along the
steps, a structured quasi-Newton update, so that a search ends nearly as fast as with the Hessian.
It is to be exact where the objective is symmetric, so that its gradient vanishes: there it tells a
saddle from a minimum, and a saddle is left along the direction that curves downwards. Nothing here
knows statistics; `ranef.numerics.minimize` does with a gradient alone.

Source: Dennis, Gay & Welsch (1981), *ACM Transactions on Mathematical Software* 7, 348-368.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ranef._typing import Array, Flags
from ranef.errors import Convergence
from ranef.numerics.minimize import (
    CURVATURE_TOLERANCE,
    DECREMENT_TOLERANCE,
    EVALUATING,
    MAX_LOSS_OF_SIMPLE,
    Optimum,
    Step,
    lowest,
    minimize,
    rounding_of,
)
from ranef.progress import counted

type CurvedObjective = Callable[[Array], tuple[float, Array, Array]]
"""From a point to the value, the gradient, and the Hessian or about that; may answer `inf`."""

MAX_STEPS = 100
LAST_STEP = 1e-10  # that is left after the last, over the point, in the curvature's metric
SURE = 1e-4  # a decrement from which on steps get better and better
LAST_DECREMENT = 1e-14  # that is left, over the rounding of the value
MIN_SHARE = 1e-4  # of a step, the last that is tried
SHARES = (0.1, 0.5)  # of a step that is not good enough: the least and the greatest tried next
MIN_DESCENT = 1e-4  # over what the gradient promises
MIN_GAIN = 0.1  # of what is proposed, over the decrement
MIN_STEP_DOWNWARDS = 0.3  # along a direction that curves downwards
INFORMATIVE = 1.0  # a decrement: steps from where it is greater say nothing of the curvature here
SHARE_LEFT = 0.01  # of such a decrement, up to which a step has nothing to teach
TINY = np.finfo(np.float64).tiny
NEAR = 0.1  # a squared distance of a minimum in standard errors, from where a search ends in it
MAX_LEARNT = 1.0  # of the curvature, over the greatest, in one step


@dataclass(frozen=True, eq=False)
class _Point:
    """A point with what is known there.

    Attributes
    ----------
    x : ndarray, shape (d,)
    value : float
    gradient : ndarray, shape (d,)
    given : ndarray, shape (d, d)
        The curvature that comes with the value.
    learnt : ndarray, shape (d, d)
        What is to be added to it.
    before : float
        The decrement of the point before; zero if there is none.
    """

    x: Array
    value: float
    gradient: Array
    given: Array
    learnt: Array
    before: float = 0.0

    @property
    def rounding(self) -> float:
        """The error of the value by rounding."""
        return float(rounding_of(self.value))

    @property
    def still(self) -> Flags:
        """Which coordinates are at rest at exactly zero, by the symmetry of the objective."""
        return np.asarray((self.x == 0) & (np.abs(self.gradient) <= self.rounding))

    @cached_property
    def scale(self) -> Array:
        """The units of the coordinates: great ones count by their own size."""
        return np.maximum(1.0, np.abs(self.x))

    @cached_property
    def axes(self) -> tuple[Array, Array]:
        """The curvatures along its principal axes, and these axes, in units of the coordinates.

        What was learnt counts if all curvatures are then positive. Coordinates at rest do not mix
        with others.
        """
        still = self.still
        mixed = (still[:, None] != still) if still.any() else False
        units = np.outer(self.scale, self.scale)
        values, vectors = _eigen((self.given + self.learnt) * units, mixed)
        if values[0] <= 0 and self.learnt.any():
            return _eigen(self.given * units, mixed)
        return values, vectors

    @cached_property
    def sizes(self) -> Array:
        """The sizes of the curvatures along the axes, flat ones as just curved."""
        sizes = np.abs(self.axes[0])
        return np.maximum(sizes, max(CURVATURE_TOLERANCE * sizes.max(), TINY))

    @cached_property
    def along(self) -> Array:
        """The gradient along the axes."""
        return np.asarray((self.gradient * self.scale) @ self.axes[1])

    @cached_property
    def curves_downwards(self) -> bool:
        """Whether the objective curves downwards along an axis."""
        values = self.axes[0]
        return bool(values[0] < -CURVATURE_TOLERANCE * max(abs(values[0]), abs(values[-1])))

    @cached_property
    def decrement(self) -> float:
        """Gradient' H^-1 gradient, twice the gain of a Newton step."""
        return self.square_of(self.along)

    def square_of(self, along: Array) -> float:
        """Return a gradient's square over the curvatures, from its elements along the axes."""
        with np.errstate(over="ignore", invalid="ignore"):
            square = float(along @ (along / self.sizes))
        return square if np.isfinite(square) else np.finfo(np.float64).max

    def distance_of(self, other: _Point) -> float:
        """Return how far another point is, squared, in standard errors."""
        return float(((((other.x - self.x) / self.scale) @ self.axes[1]) ** 2 * self.sizes).sum())

    @property
    def step(self) -> Array:
        """The Newton step, downhill along all axes, and no longer than the point is far from 0.

        Coordinates at rest at exactly zero stay, but where the objective curves downwards.
        """
        values, vectors = self.axes
        length = -self.along / self.sizes
        if self.curves_downwards:
            pushed = np.where(length < 0, -1.0, 1.0) * np.maximum(abs(length), MIN_STEP_DOWNWARDS)
            length = np.where(values < 0, pushed, length)
        longest = max(1.0, float(np.linalg.norm(self.x / self.scale)))
        size = max(float(np.linalg.norm(length)), TINY)
        step = self.scale * (vectors @ length) * min(1.0, longest / size)
        return np.where(self.still & (not self.curves_downwards), 0.0, step)

    @property
    def left(self) -> float:
        """The decrement after one more step, if that is as good as the last; or before it."""
        if not 0 < self.decrement < min(self.before, SURE):
            return self.decrement
        return self.decrement**2 / self.before

    @property
    def is_settled(self) -> bool:
        """Whether the step ahead is the last, whose end need not be evaluated."""
        size = float((((self.x / self.scale) @ self.axes[1]) ** 2 * self.sizes).sum())
        least = max(LAST_STEP**2 * size, LAST_DECREMENT * self.rounding)
        return self.left < least and not self.curves_downwards

    def after(self) -> Array:
        """Return where the step ahead leads."""
        return self.x + self.step if self.is_settled else self.x

    def is_better(self, other: _Point) -> bool:
        """Whether another value is lower; where rounding hides that, another gradient smaller."""
        change = other.value - self.value
        if abs(change) > self.rounding:
            return change < 0
        return self.square_of((other.gradient * self.scale) @ self.axes[1]) < self.decrement


def newton(
    objective: CurvedObjective,
    starts: Sequence[Array],
    *,
    simplify: Callable[[Array], Array] | None = None,
    report: Callable[[Step], None] | None = None,
    propose: Callable[[Array], Array] | None = None,
    beside: Callable[[Optimum], Sequence[Array]] | None = None,
) -> Optimum:
    """Minimise a smooth function from each of several starts, and return the lowest optimum.

    A search that comes near a minimum found from an earlier start ends there. Where steps do not
    come to an end, `ranef.numerics.minimize` goes on.

    Parameters
    ----------
    objective : callable
    starts : sequence of ndarray, shape (d,)
    simplify : callable, optional
        Point to a nearby point that would be nicer (with exact zeros, say). It is taken where it
        is a minimum too.
    report : callable, optional
        Is told of every step when it is taken.
    propose : callable, optional
        The last point evaluated to a point that should be better than where a step would lead, of
        an objective that is costly. Such a search ends at the first point evaluated from where a
        step would gain less than makes a difference, and not when steps come to an end.
    beside : callable, optional
        The lowest optimum to more starts, which lie where another optimum could be near.

    Returns
    -------
    Optimum
        Its `convergence` says how far to trust it; nothing is raised.

    Examples
    --------
    >>> bowl = lambda x: (float((x - 1) @ (x - 1)), 2 * (x - 1), 2 * np.eye(2))
    >>> newton(bowl, [np.zeros(2)]).x
    array([1., 1.])
    """
    simpler, tell = simplify or (lambda x: x), report or (lambda _: None)
    with counted(EVALUATING, objective) as called:
        search = _Search(called, simpler, tell, [], propose)
        best = lowest(_optima(search, starts))
        return best if beside is None else lowest([best, *_optima(search, beside(best))])


def _optima(first: _Search, starts: Sequence[Array]) -> Iterator[Optimum]:
    """Yield the optimum from each start, but for those found already."""
    for start in starts:
        search = replace(first, evaluated={}, steps=[])
        point, ended = search.descended(search.at(np.array(start, dtype=np.float64)))
        if any(point is minimum for minimum in first.minima):
            continue
        point, ended = search.simplified(point, ended)
        if not ended.ok:
            yield search.continued(point)
            continue
        yield search.optimum(point, ended)
        if len(start) and not point.curves_downwards:
            first.minima.append(point)


def _eigen(hessian: Array, mixed: Array | bool) -> tuple[Array, Array]:
    """Return the eigenvalues and vectors of a Hessian without some elements."""
    if mixed is not False or not np.isfinite(hessian).all():
        hessian = np.where(mixed | ~np.isfinite(hessian), 0.0, hessian)
    values, vectors = np.linalg.eigh(hessian)
    return values, vectors


@dataclass(eq=False)
class _Search:
    """A minimisation: calls the objective, never twice at a point, and keeps the steps taken."""

    objective: CurvedObjective
    simplify: Callable[[Array], Array]
    report: Callable[[Step], None]
    minima: list[_Point]
    propose: Callable[[Array], Array] | None
    evaluated: dict[bytes, tuple[float, Array, Array]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)

    def at(self, x: Array) -> _Point:
        """Evaluate the objective."""
        key = x.tobytes()
        if key not in self.evaluated:
            self.evaluated[key] = self.objective(x)
        value, gradient, curvature = self.evaluated[key]
        return _Point(x, value, gradient, curvature, np.zeros_like(curvature))

    def optimum(self, point: _Point, ended: Convergence) -> Optimum:
        """Return the end of a search: a last step ahead of its last point, whose value it has."""
        x, left = point.x, point.decrement if len(point.x) else 0.0
        if len(x) and not self.propose:
            x, left = point.after(), point.left
        if not np.array_equal(x, point.x):
            self.steps.append(Step(point.value, x, left / 2))
            self.report(self.steps[-1])
        return Optimum(x, point.value, left, len(self.evaluated), ended, tuple(self.steps))

    def continued(self, point: _Point) -> Optimum:
        """Go on without the curvature, which misleads, as rounding may make it."""
        end = minimize(lambda x: self.objective(x)[:2], point.x, simplify=self.simplify)
        for step in end.trace[1:]:
            self.steps.append(step)
            self.report(step)
        evaluations = len(self.evaluated) + end.evaluations
        return replace(end, evaluations=evaluations, trace=tuple(self.steps))

    def take(self, point: _Point) -> None:
        """Keep a step, and tell of it."""
        decrement = point.decrement if len(point.x) else 0.0
        self.steps.append(Step(point.value, point.x, decrement / 2))
        self.report(self.steps[-1])

    def descended(self, point: _Point) -> tuple[_Point, Convergence]:
        """Take steps until rounding leaves no better point, and say how that ended."""
        self.take(point)
        tried: set[bytes] = set()  # which coordinates were zero
        for _ in range(MAX_STEPS):
            if not len(point.x) or self._is_enough(point):
                return point, _ended(point)
            near = next((m for m in self.minima if self._leads_to(m, point)), None)
            if near is not None:
                return near, Convergence.CONVERGED
            lower = self._simpler_once(point, tried) or self._lower(point)
            if lower is None and not point.learnt.any():
                return point, _ended(point)
            if lower is None:  # what was learnt misleads
                point = self.at(point.x)
                continue
            point = lower
            self.take(point)
        return point, Convergence.MAX_ITERATIONS

    def _is_enough(self, point: _Point) -> bool:
        """Whether no other point needs to be evaluated."""
        is_good = self.propose is not None and point.decrement <= DECREMENT_TOLERANCE
        return (is_good and not point.curves_downwards) or point.is_settled

    def simplified(self, point: _Point, ended: Convergence) -> tuple[_Point, Convergence]:
        """Prefer a simpler point where it leads to a minimum that is as good."""
        simple = self.simplify(point.x)
        if np.array_equal(simple, point.x):
            return point, ended
        simpler = self._simpler(simple, point, MAX_LOSS_OF_SIMPLE)
        if simpler is None:
            return point, ended
        search = replace(self, steps=[], report=lambda _: None)
        lower, how = search.descended(simpler)
        if lower.value > point.value + 100 * point.rounding:
            return point, ended
        for step in search.steps:
            self.steps.append(step)
            self.report(step)
        return lower, how

    def _simpler_once(self, point: _Point, tried: set[bytes]) -> _Point | None:
        """Return a simpler point that is lower, if one with its zeros was not tried before."""
        if point.decrement > INFORMATIVE:
            return None
        simple = self.simplify(point.x)
        zeros = (simple == 0).tobytes()
        if zeros in tried or np.array_equal(simple, point.x):
            return None
        tried.add(zeros)
        return self._simpler(simple, point, 0.0)

    def _simpler(self, simple: Array, point: _Point, loss: float) -> _Point | None:
        """Return a simpler point that is no saddle, and higher by a loss at most."""
        simpler = self.at(simple)
        is_usable = simpler.value <= point.value + loss and not simpler.curves_downwards
        return simpler if is_usable else None

    @staticmethod
    def _leads_to(minimum: _Point, point: _Point) -> bool:
        """Whether a point is so near a minimum that a search would end there."""
        rise = point.value - minimum.value
        return -point.rounding <= rise < NEAR and minimum.distance_of(point) < NEAR

    def _lower(self, point: _Point) -> _Point | None:
        """Return a better point along a step, shorter ones by interpolation; None if none is."""
        if self.propose and point.decrement > SURE and not point.curves_downwards:
            other = self.at(self.propose(point.x))
            if other.value - point.value < -MIN_GAIN * point.decrement:
                return _taught(point, other)
        step, share = point.step, 1.0
        slope = min(float(point.gradient @ step), 0.0)
        while share > MIN_SHARE:
            other = self.at(point.x + share * step)
            change = other.value - point.value
            enough = change < MIN_DESCENT * share * slope or abs(change) <= point.rounding
            if np.isfinite(other.value) and enough and point.is_better(other):
                return _taught(point, other)
            if point.decrement < point.rounding and not point.curves_downwards:
                return None
            bend = change - share * slope
            shorter = -slope / (2 * bend) if np.isfinite(bend) and bend > 0 else 0.0
            share *= float(np.clip(share * shorter, *SHARES))
        return None


def _taught(point: _Point, other: _Point) -> _Point:
    """Return another point with what the step there tells of the curvature.

    The symmetric update of rank one (SR1) learns fastest, but may leave a curvature that is not
    positive; that of Broyden, Fletcher, Goldfarb & Shanno (BFGS) does not.
    """
    none = np.zeros_like(point.learnt)
    is_far = point.decrement >= INFORMATIVE
    if is_far and other.decrement < SHARE_LEFT * point.decrement:  # what is known does well
        return replace(other, before=point.decrement)
    for before in (none,) if is_far else (point.learnt, none):
        for update in _updates(point, other, other.given + before):
            learnt = before + update
            units = np.outer(other.scale, other.scale)
            if np.linalg.eigvalsh((other.given + learnt) * units)[0] > 0:
                return replace(other, learnt=learnt, before=point.decrement)
    return replace(other, before=point.decrement)


def _updates(point: _Point, other: _Point, hessian: Array) -> Iterator[Array]:
    """Yield what a step to another point adds to a Hessian: SR1, if it is safe, and BFGS."""
    s, y, Hs = other.x - point.x, other.gradient - point.gradient, hessian @ (other.x - point.x)
    missed = y - Hs
    along, greatest = float(missed @ s), float(point.sizes.max())
    if float(((missed * point.scale) ** 2).sum()) < MAX_LEARNT * greatest * abs(along):
        yield np.outer(missed, missed) / along
    if min(float(y @ s), float(s @ Hs)) > 0:
        yield np.outer(y, y) / (y @ s) - np.outer(Hs, Hs) / (s @ Hs)


def _ended(point: _Point) -> Convergence:
    if not len(point.x):
        return Convergence.CONVERGED
    enough = max(DECREMENT_TOLERANCE, point.rounding)
    is_minimum = point.decrement <= enough and np.isfinite(point.value)
    return Convergence.CONVERGED if is_minimum else Convergence.STALLED
