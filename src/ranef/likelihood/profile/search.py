"""Profile likelihoods: every parameter in turn held at some values, all others at their optimum.

The values of a parameter are taken one after the other, from the estimate outwards, each starting
from the ones before: quasi-Newton steps whose Hessian is handed on. By the envelope theorem the
derivative of the profile is that of the deviance, so that a step ahead can be as long as is wanted
in zeta, the signed root of the deviance's rise, and what lies between two values is a cubic.

Sources: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 5.1; Venzon &
Moolgavkar (1988), *Applied Statistics* 37, 87-94.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array, Executor
from ranef.arguments import check_known
from ranef.design.design import RandomTerm
from ranef.design.labels import parameter_names
from ranef.errors import FitError
from ranef.likelihood.estimate import Estimate, FittedModel
from ranef.likelihood.generalized.glmm import Generalized
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.linear.equal_levels import condensed
from ranef.likelihood.profile.constrained import Focus, Linear, Nonlinear, Surface
from ranef.likelihood.profile.likelihood_profile import Profile, ProfileCurve, cutoff_of
from ranef.numerics.finite_differences import forward_hessian
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import minimize
from ranef.progress import mapped, tracked

STEPS_TO_CUTOFF = 6  # from the estimate
MAX_NODES = 40  # on each side
MAX_DECREMENT = 1e-10  # twice what a further step would gain in the deviance
MAX_CORRECTIONS = 15
DAMPING = (1.0, 0.5, 0.2, 0.05)  # shares of a step that are tried
MIN_RELATIVE_CURVATURE = 1e-9  # below which a curvature, over the largest one, counts as zero
MAX_ELEMENT_AT_SADDLE = 0.02  # of a factor
SADDLE_STEP = 1e-4  # of such an element, for second derivatives
MIN_SADDLE_CURVATURE = 1e-4  # downwards, over the largest one upwards
MAX_SHARE_OF_RISE = 0.01  # of the rise still missing, where the deviance levels off
MAX_FALL = 1e-6  # of a deviance below the minimum
MIN_SHARE_OF_STEP = 1e-9  # of a new node from the nodes on either side
COMMON_PROBS = (0.9, 0.95, 0.99)  # of the intervals whose limits are made nodes


def profile(
    model: FittedModel,
    surface: Surface,
    names: Sequence[str] | None = None,
    *,
    prob: float = 0.99,
    executor: Executor | None = None,
) -> Profile:
    """Return the profile likelihood of a fit's parameters.

    Parameters
    ----------
    model : FittedModel
    surface : Surface
        The deviance around its maximum: `linear_surface` or `generalized_surface` of the model.
    names : sequence of str, optional
        Parameters as `design.labels.parameter_names` has them; all by default.
    prob : float
        The intervals that the profiles are to reach out to.
    executor : concurrent.futures.Executor, optional
        Takes the parameters one by one; the result is the same.

    Raises
    ------
    FitError
        If a name is not known.

    Notes
    -----
    Where the deviance rises to less than the cutoff, the record says so; see `Profile.confint`.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> fit.profile().confint().round(2)
                           lower    upper
    Intercept            1486.45  1568.55
    sigma                  38.23    67.66
    sd_Batch[Intercept]    12.20    84.06
    """
    cutoff = cutoff_of(prob)
    parameters = parameter_names(model.design, model.family)
    given: Any = parameters if names is None else names  # whatever it may really be
    wanted: list[str] = (
        list(given) if isinstance(given, list | tuple | pd.Index | pd.Series) else [given]
    )
    check_known(wanted, parameters, lambda name: f"there is no parameter {name!r}.")
    freed = _freed(model.design.terms)
    also = [sd for name in wanted for sd in freed.get(name, ())]
    needed = list(dict.fromkeys([*wanted, *also]))
    work = partial(_of_parameter, surface, cutoff)
    made = mapped(executor, work, map(parameters.index, needed), needed)
    profiles = dict(zip(needed, tracked("Profiling", made, len(needed)), strict=True))
    curves = {
        name: _capped(profiles[name][0], [profiles[sd][0] for sd in freed.get(name, ())], cutoff)
        for name in wanted
    }
    lowest = min((profiles[name][1] for name in wanted), default=0.0)
    how = f" ({model.approximation})" if model.approximation else ""
    return Profile(
        curves=curves,
        deviance=surface.estimate.objective,
        prob=float(prob),
        title=f"Profile likelihood{how}",
        general_notes=tuple(_notes(model, surface.estimate, lowest)),
    )


def _of_parameter(
    surface: Surface, cutoff: float, place: int, name: str
) -> tuple[ProfileCurve, float]:
    """Return the profile of one parameter, and the lowest rise of the deviance that was met."""
    with threads_for(surface.width):
        return _curve(surface.focus(place, name), cutoff)


def _freed(terms: Sequence[RandomTerm]) -> dict[str, tuple[str, str]]:
    """Return for each correlation the two sds, either of which leaves it free where it is zero."""
    return {
        f"corr_{t.label}[{a}, {b}]": (f"sd_{t.label}[{a}]", f"sd_{t.label}[{b}]")
        for t in terms
        for a, b in ((t.coefs[i], t.coefs[j]) for i, j in t.covariance.pairs)
    }


def _capped(curve: ProfileCurve, sds: Sequence[ProfileCurve], cutoff: float) -> ProfileCurve:
    """Return a profile that rises no higher than where another parameter frees this one.

    With an sd of zero its correlations can be anything, so that their deviance is never above
    that of the best model with one of the two sds at zero. Followed from the estimate, it may be.
    """
    ends = [sd.rise[0] for sd in sds if len(sd.x) and sd.x[0] == sd.bounds[0]]
    cap = min(ends, default=np.inf)
    if not len(curve.x) or not curve.rise.max() > cap:
        return curve
    inside = (curve.rise < cap) | (curve.x == curve.center)
    x, rise, slope = curve.x[inside], curve.rise[inside], curve.slope[inside]
    for side, end in zip((-1, 1), curve.bounds, strict=True):
        limit = curve.crossing(float(np.sqrt(cap)), side)
        if np.isnan(limit) or limit == end:
            continue
        x = np.concatenate([x, [limit, np.nextafter(limit, end), end]])
        rise = np.concatenate([rise, [cap, cap, cap]])
        slope = np.concatenate([slope, [0.0, 0.0, 0.0]])
    order = np.argsort(x, kind="stable")
    x, rise, slope = x[order], rise[order], slope[order]
    (low, high), (start, end) = curve.complete, curve.bounds
    complete = low or bool(x[0] == start), high or bool(x[-1] == end)
    capped = replace(curve, x=x, rise=rise, slope=slope, complete=complete, notes=())
    return _explained(capped, cutoff)


def linear_surface(model: FittedModel, cross: CrossProducts, sigma: float | None = None) -> Surface:
    """Return the deviance of a linear model around its maximum.

    After REML the parameters are estimated again by ML: a restricted likelihood cannot compare
    fixed effects, and lme4 does so too.

    Parameters
    ----------
    model : FittedModel
    cross : CrossProducts
        Of its design.
    sigma : float, optional
        If it is known.

    Raises
    ------
    FitError
        If the fit has no likelihood to profile.
    """
    _check_likelihood(model)
    estimate = model.estimate
    if model.method == "reml":
        estimate = reml.estimate(cross, reml=False, sigma=sigma)
    return Linear(estimate, condensed(cross), np.array([estimate.sigma]), sigma)


def generalized_surface(model: FittedModel, prepared: Generalized) -> Surface:
    """Return the deviance of a generalised model around its maximum.

    Parameters
    ----------
    model : FittedModel
    prepared : Generalized
        Its design in the basis of the engine.

    Raises
    ------
    FitError
        If the fit has no likelihood to profile.
    """
    _check_likelihood(model)
    if model.estimate.n_agq == 0:
        raise FitError(
            "the estimates of n_agq=0 do not maximise the likelihood, so that it has no profile "
            "around them. Fit with n_agq=1, the default."
        )
    return Nonlinear(model.estimate, prepared, np.array(list(model.parameters.values())))


def _check_likelihood(model: FittedModel) -> None:
    if model.method not in ("ml", "reml"):
        raise FitError(
            f"a fit by {model.method!r} has no profile likelihood: what it rests on is not the "
            'likelihood alone. Profile the fit by method="ml".'
        )


def _notes(model: FittedModel, estimate: Estimate, lowest: float) -> Iterator[str]:
    if model.method == "reml":
        yield "The likelihood is profiled, not the REML criterion: the estimates are those by ML."
    if not estimate.convergence.ok:
        yield estimate.convergence.value
    if lowest < -MAX_FALL:
        yield (
            f"The likelihood has another, higher maximum: a deviance lower by {-lowest:.4g} "
            "was found on the way. The estimates and these intervals are not to be relied on."
        )


# --------------------------------------------------------------------------- one parameter


@dataclass(frozen=True, eq=False)
class _Node:
    """A point of a profile: the optimum of all other parameters at one coordinate w."""

    w: float
    x: Array
    deviance: float
    slope: float
    hessian: Array


def _curve(focus: Focus, cutoff: float) -> tuple[ProfileCurve, float]:
    """Return the profile of one parameter, and how far the deviance fell below its minimum."""
    w, x = focus.w, focus.x
    if focus.undefined:
        undefined = _through(focus, _Node(w, x, np.nan, 0.0, np.empty((0, 0))), [])
        return replace(undefined, notes=(focus.undefined,)), 0.0
    hessian = _hessian(focus, w, x)
    tangent = -_inverse(hessian[1:, 1:]) @ hessian[1:, 0]
    curvature = max(float(hessian[0, 0] + hessian[0, 1:] @ tangent), 0.0)
    center = _Node(w, x, focus.objective(w, x)[0], 0.0, hessian[1:, 1:])
    sides = [_Side(focus, center, side, cutoff) for side in (-1, 1)]
    down, up = (side.nodes(tangent, curvature) for side in sides)
    curve = _through(focus, center, [*down[:0:-1], center, *up[1:]])
    complete = sides[0].is_complete(down), sides[1].is_complete(up)
    lowest, rise = float(curve.rise.min()), np.maximum(curve.rise, 0.0)
    curve = replace(curve, rise=rise, curvature=curvature, complete=complete)
    return _explained(curve, cutoff), lowest


def _through(focus: Focus, center: _Node, nodes: Sequence[_Node]) -> ProfileCurve:
    """Return the curve through nodes, whose coordinates increase."""
    return ProfileCurve(
        name=focus.name,
        scale=focus.scale,
        center=center.w,
        bounds=focus.bounds,
        x=np.array([node.w for node in nodes]),
        rise=np.array([node.deviance - center.deviance for node in nodes]),
        slope=np.array([node.slope for node in nodes]),
        curvature=0.0,
    )


def _explained(curve: ProfileCurve, cutoff: float) -> ProfileCurve:
    """Add notes to a profile that has no limit on a side, or one at the end of its range."""
    notes = []
    for side, word in ((-1, "lower"), (1, "upper")):
        limit, outermost = curve.crossing(cutoff, side), 0 if side < 0 else -1
        zeta = abs(float(curve.zeta[outermost]))
        share = f"{100 * (2 * float(special.ndtr(zeta)) - 1):.3g} %"
        which = f"intervals of more than {share}" if zeta > 0 else "all intervals"
        if np.isnan(limit):
            value = f"{float(curve.values[outermost]):.4g}"
            notes.append(
                f"{which} have no {word} limit: the deviance cannot be followed beyond {value}."
            )
        elif limit == curve.bounds[side > 0]:
            end = f"{curve.ranges[side > 0]:g}"
            notes.append(f"{which} end at {end}, which the likelihood does not exclude.")
    return replace(curve, notes=tuple(notes))


@dataclass(frozen=True, eq=False)
class _Side:
    """The search for nodes on one side of the estimate, -1 or +1."""

    focus: Focus
    center: _Node
    side: int
    cutoff: float

    @property
    def end(self) -> float:
        """The end of the coordinate on this side."""
        return self.focus.bounds[self.side > 0]

    def zeta(self, node: _Node) -> float:
        """Return |zeta| of a node."""
        return float(np.sqrt(max(node.deviance - self.center.deviance, 0.0)))

    def nodes(self, tangent: Array, curvature: float) -> list[_Node]:
        """Return the nodes from the estimate outwards, beyond the cutoff or to the end."""
        nodes, pace = [self.center], self.cutoff / STEPS_TO_CUTOFF
        length = max(1.0, abs(self.center.w))  # coordinates are about of this size
        if curvature > 0:
            length = min(length, pace / np.sqrt(curvature / 2))
        while not self.is_complete(nodes) and len(nodes) < MAX_NODES:
            node = self._next(nodes, tangent, length)
            if node is None:
                break
            nodes.append(node)
            if (zeta := self.zeta(node)) >= self.cutoff or self.is_complete(nodes):
                break
            length, slope = 2 * abs(node.w - nodes[-2].w), self.side * node.slope
            if slope > 0 and zeta > 0:
                length = min(length, 2 * zeta * pace / slope)
            length = min(length, self.focus.longest)
        nodes = self._refined(nodes, 2 * pace)
        for prob in COMMON_PROBS:
            nodes = self._with_limit(nodes, cutoff_of(prob))
        return nodes

    def is_complete(self, nodes: list[_Node]) -> bool:
        """Whether the nodes come to the end of the range, or the deviance levels off."""
        last = nodes[-1]
        if np.isfinite(self.end):
            return last.w == self.end
        is_far = len(nodes) > 2 * STEPS_TO_CUTOFF or self.zeta(last) > self.cutoff / STEPS_TO_CUTOFF
        return is_far and all(self._is_flat(node) for node in nodes[-2:])

    def _is_flat(self, node: _Node) -> bool:
        """Whether the deviance would stay well below the cutoff were it a hyperbola from here."""
        reach = self.side * node.slope * abs(node.w - self.center.w)
        return node is not self.center and reach < MAX_SHARE_OF_RISE * (
            self.cutoff**2 - self.zeta(node) ** 2
        )

    def _next(self, nodes: list[_Node], tangent: Array, length: float) -> _Node | None:
        """Return the next node, nearer where the deviance cannot be computed; None if nowhere."""
        last = nodes[-1]
        if len(nodes) > 1:
            tangent = (last.x - nodes[-2].x) / (last.w - nodes[-2].w)
        for _ in range(10):
            w = last.w + self.side * length
            if self.side * (w - self.end) > 0:
                w = self.end
            node = _optimum(self.focus, w, last.x + (w - last.w) * tangent, last)
            if node is not None:
                return node
            length /= 4
        return None

    def _refined(self, nodes: list[_Node], widest: float) -> list[_Node]:
        """Halve the steps that are long in zeta, as far as the cutoff."""
        i, budget = 0, MAX_NODES
        while i + 1 < len(nodes) and budget:
            near, far = self.zeta(nodes[i]), self.zeta(nodes[i + 1])
            if near < self.cutoff and far - near > widest:
                middle = (nodes[i].w + nodes[i + 1].w) / 2
                budget -= 1
                if (node := self._between(nodes[i], nodes[i + 1], middle)) is not None:
                    nodes.insert(i + 1, node)
                    continue
            i += 1
        return nodes

    def _with_limit(self, nodes: list[_Node], target: float) -> list[_Node]:
        """Make the limit of an interval a node, as far as the cubic tells it."""
        for i, (near, far) in enumerate(pairwise(nodes)):
            if self.zeta(near) < target <= self.zeta(far):
                pair = sorted((near, far), key=lambda node: node.w)
                limit = _through(self.focus, self.center, pair).crossing(target, self.side)
                node = self._between(near, far, limit)
                return [*nodes[: i + 1], *([node] if node else []), *nodes[i + 1 :]]
        return nodes

    def _between(self, near: _Node, far: _Node, w: float) -> _Node | None:
        share = (w - near.w) / (far.w - near.w)
        if not MIN_SHARE_OF_STEP < share < 1 - MIN_SHARE_OF_STEP:
            return None
        return _optimum(self.focus, w, near.x + share * (far.x - near.x), near)


# -------------------------------------------------- the optimum of all other parameters


def _optimum(focus: Focus, w: float, x: Array, last: _Node) -> _Node | None:
    """Minimise the deviance over x, from a point that should be near; None if there is none."""
    near = _corrected(focus, w, x, last.hessian)
    if near is not None and not _is_saddle(focus, near):
        return near
    return _searched(focus, w, [x, last.x])


def _is_saddle(focus: Focus, node: _Node) -> bool:
    """Whether the deviance curves downwards where elements of factors are about zero.

    By symmetry the gradient vanishes there, so that steps do not leave.
    """
    start = len(node.x) - focus.n_theta
    zeros = start + np.flatnonzero(np.abs(node.x[start:]) < MAX_ELEMENT_AT_SADDLE)
    if not len(zeros):
        return False
    gradient = focus.objective(node.w, node.x)[2]
    moved = [node.x + SADDLE_STEP * unit for unit in np.eye(len(node.x))[zeros]]
    changes = np.array([focus.objective(node.w, x)[2] - gradient for x in moved])
    hessian = changes[:, zeros] / SADDLE_STEP
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    return bool(values[0] < -MIN_SADDLE_CURVATURE * max(1.0, values[-1]))


def _corrected(focus: Focus, w: float, x: Array, hessian: Array) -> _Node | None:
    """Take quasi-Newton (BFGS) steps; None if they do not arrive soon."""
    value, slope, gradient = focus.objective(w, x)
    for _ in range(MAX_CORRECTIONS):
        if not np.isfinite(value):
            return None
        step = -_inverse(hessian) @ gradient
        if -(step @ gradient) < MAX_DECREMENT:
            return _Node(w, x, value, slope, hessian)
        for share in DAMPING:
            damped = share * step
            new_value, slope, new_gradient = focus.objective(w, x + damped)
            if new_value <= value + MAX_DECREMENT:
                break
        else:
            return None
        hessian = _updated(hessian, damped, new_gradient - gradient)
        value, x, gradient = new_value, x + damped, new_gradient
    return None


def _updated(hessian: Array, s: Array, y: Array) -> Array:
    """Return the BFGS update for a step s in which the gradient changes by y."""
    curved, Hs = float(s @ y), hessian @ s
    if curved <= MIN_RELATIVE_CURVATURE * np.linalg.norm(s) * np.linalg.norm(y) or s @ Hs <= 0:
        return hessian
    return np.asarray(hessian + np.outer(y, y) / curved - np.outer(Hs, Hs) / (s @ Hs))


def _searched(focus: Focus, w: float, starts: Sequence[Array]) -> _Node | None:
    """Minimise thoroughly: past saddles, whose gradient vanishes too."""

    def objective(x: Array) -> tuple[float, Array]:
        value, _, gradient = focus.objective(w, x)
        return value, gradient

    for start in starts:
        if not np.isfinite(objective(start)[0]):
            continue
        x = minimize(objective, start, max_iterations=100).x
        value, slope, _ = focus.objective(w, x)
        if np.isfinite(value):
            return _Node(w, x, value, slope, forward_hessian(objective, x))
    return None


def _hessian(focus: Focus, w: float, x: Array) -> Array:
    """Return the Hessian by the coordinate, first, and x."""

    def objective(z: Array) -> tuple[float, Array]:
        value, slope, gradient = focus.objective(float(z[0]), z[1:])
        return value, np.append(slope, gradient)

    return np.nan_to_num(forward_hessian(objective, np.append(w, x)))


def _inverse(hessian: Array) -> Array:
    """Return the inverse of the absolute Hessian; zero where it is flat."""
    values, vectors = np.linalg.eigh(hessian)
    values = np.abs(values)
    curved = values > MIN_RELATIVE_CURVATURE * values.max(initial=0.0)
    return np.asarray((vectors[:, curved] / values[curved]) @ vectors[:, curved].T)
