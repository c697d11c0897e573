"""Penalised iteratively reweighted least squares: the conditional modes of a generalised model.

With b = Lambda u and u ~ N(0, I) the modes maximise log f(y | eta) - |u|^2 / 2. Each step is one of
Newton's, with the observed weights W = -d^2 log f / d eta^2 where these make a positive definite
system and the expected ones otherwise; it is the solution of a linear mixed model with weights W. A
step is shortened until the penalised log density has grown enough (Armijo).

Fixed effects either are known, or are found together with u.

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 3; for generalised
models Bates (2024), and Nocedal & Wright (2006), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array, Flags
from ranef.errors import FitError
from ranef.families.derivatives import Expansion
from ranef.families.family import Family
from ranef.likelihood.generalized.weighted_crossproducts import Weighted
from ranef.likelihood.linear import blocked_cholesky

MAX_DECREMENT = 1e-10  # with which one more Newton step is exact to rounding
MAX_HIDDEN_GAIN = 1e-6  # of a step, which rounding may hide where numbers are large
ARMIJO = 1e-4  # the least share of its linear prediction that a step has to gain
ROUNDING_OF_DENSITY = 1e-14  # relative to a log density
MAX_STEPS = 200
MAX_HALVINGS = 40


@dataclass(frozen=True, eq=False)
class Problem:
    """A generalised model: its response and its random effects, in a basis.

    Attributes
    ----------
    family : Family
    y, weights : ndarray, shape (n,)
    Z : Weighted
    of_responses : ndarray, shape (n,), optional
        The part of the log density that is of the responses alone, where these are means of others.
    """

    family: Family
    y: Array
    weights: Array
    Z: Weighted
    of_responses: Array | None = None

    def expansion(self, eta: Array, psi: Array) -> Expansion:
        """Return the log density of the rows, and its derivatives in eta."""
        return self.family.expansion(self.y, eta, self.weights, psi, self.constant)

    @cached_property
    def constant(self) -> Array:
        """The part of the log density that is of the responses alone."""
        if self.of_responses is not None:
            return self.of_responses
        return self.family.constant(self.y, self.weights)


@dataclass(frozen=True, eq=False)
class Point:
    """The penalised log density of the response at random and fixed effects.

    Attributes
    ----------
    u : list of ndarray, shape (m, k)
    gamma : ndarray, shape (p,)
        Coefficients of the fixed columns, where these are found together with u.
    eta : ndarray, shape (n,)
    expansion : Expansion
    value : float
        log f(y | eta) - |u|^2 / 2.
    """

    u: list[Array]
    gamma: Array
    eta: Array
    expansion: Expansion
    value: float


@dataclass(frozen=True, eq=False)
class Modes(Point):
    """Conditional modes: the point where the penalised log density is largest.

    Attributes
    ----------
    factorized : Factorized
        At the modes, with the observed weights.
    steps : int
    """

    factorized: blocked_cholesky.Factorized
    steps: int


class NoModesError(FitError):
    """There are no conditional modes, or none were found."""


@dataclass(frozen=True, eq=False)
class Setting:
    """The data and the parameters that stay as they are while modes are found.

    Attributes
    ----------
    problem : Problem
    base : ndarray, shape (n,)
        The part of eta that is known.
    fixed : ndarray, shape (n, p)
        Columns whose coefficients are found together with u; with p = 0 there are none.
    Lambdas : sequence of ndarray, shape (k, k)
    psi : ndarray, shape (r,)
        The family's own parameters.
    """

    problem: Problem
    base: Array
    fixed: Array
    Lambdas: Sequence[Array]
    psi: Array

    def point(self, u: list[Array], gamma: Array) -> Point:
        """Return the penalised log density at effects."""
        b = [effects @ Lambda.T for effects, Lambda in zip(u, self.Lambdas, strict=True)]
        eta = self.base + self.problem.Z.fitted(b)
        if len(gamma):
            eta = eta + self.fixed @ gamma
        with np.errstate(all="ignore"):
            expansion = self.problem.expansion(eta, self.psi)
            penalty = 0.5 * sum(float(np.vdot(effects, effects)) for effects in u)
            value = float(expansion.value.sum()) - penalty
        return Point(u, gamma, eta, expansion, value if np.isfinite(value) else -np.inf)

    def factorized(self, weights: Array) -> blocked_cholesky.Factorized:
        """Return the factorised system for weights of the rows.

        Raises
        ------
        LinAlgError
            If it is not positive definite.
        """
        if not np.isfinite(weights).all():
            raise np.linalg.LinAlgError("the weights are not finite")
        with np.errstate(all="ignore"):
            cross = self.problem.Z.cross(weights, self.fixed)
            factorized = blocked_cholesky.factorize(cross, self.Lambdas)
        if not np.isfinite(factorized.logdet) or not np.isfinite(factorized.reduced).all():
            raise np.linalg.LinAlgError("the system is not positive definite")
        np.linalg.cholesky(factorized.reduced[:-1, :-1])  # of the fixed columns; raises if it isn't
        return factorized

    def information(self, fixed: Array, weights: Array) -> Array:
        """Return the information of coefficients of fixed columns, effects integrated out."""
        with np.errstate(all="ignore"):
            cross = self.problem.Z.cross(weights, fixed)
            return blocked_cholesky.factorize(cross, self.Lambdas).reduced[:-1, :-1]

    def solve(
        self, factorized: blocked_cholesky.Factorized, weights: Array, rows: Array
    ) -> tuple[list[Array], Array, Array]:
        """Solve the mixed-model equations for the right side [Z Lambda, fixed]' rows.

        Returns
        -------
        u : list of ndarray, shape (m, k)
        gamma : ndarray, shape (p,)
        fitted : ndarray, shape (n,)
            Z Lambda u + fixed gamma.
        """
        Z = self.problem.Z
        b = blocked_cholesky.solve(factorized, Z.sums(rows))
        fitted, gamma = Z.fitted(b), np.empty(0)
        if self.fixed.shape[1]:
            sums = self.fixed.T @ (rows - weights * fitted)
            gamma = np.linalg.solve(factorized.reduced[:-1, :-1], sums)
            of_fixed = self.fixed @ gamma
            b = blocked_cholesky.solve(factorized, Z.sums(rows - weights * of_fixed))
            fitted = Z.fitted(b) + of_fixed
        return self._spherical(b, weights, rows - weights * fitted), gamma, fitted

    def _spherical(self, b: list[Array], weights: Array, remaining: Array) -> list[Array]:
        """Return u of effects b = Lambda u, from b or from u = Lambda'Z' remaining.

        Along each axis u comes from b where the data tell more than the prior, and elsewhere from
        the residuals of the rows, so that no rounding is divided by a small sd.
        """
        axes, is_told = self._axes, self._told(weights)
        if all(map(np.all, is_told)):
            return [((x @ P) / sds) @ Q for x, (P, sds, Q) in zip(b, axes, strict=True)]
        sums = self.problem.Z.sums(remaining)
        return [
            np.where(by_data, (x @ P) / np.where(by_data, sds, 1.0), (of_rows @ P) * sds) @ Q
            for x, of_rows, (P, sds, Q), by_data in zip(b, sums, axes, is_told, strict=True)
        ]

    def score_sums(self, modes: Modes) -> list[Array]:
        """Return Z' times the scores at the modes, term by term, shape (m, k).

        As Lambda'Z' score is u there, they come from u along the axes of which the data tell much.
        Where numbers are large a sum of scores would be the rounding of its parts.
        """
        sums = self.problem.Z.sums(modes.expansion.score)
        told = self._told(modes.expansion.weight)
        return [
            np.where(by_data, (u @ Q.T) / np.where(by_data, sds, 1.0), of_rows @ P) @ P.T
            for u, of_rows, (P, sds, Q), by_data in zip(
                modes.u, sums, self._axes, told, strict=True
            )
        ]

    def _told(self, weights: Array) -> list[Flags]:
        """Return along which axes of each term the data tell more than the prior, shape (k,)."""
        information = float(np.abs(weights).sum())
        pairs = zip(self.problem.Z.blocks, self._axes, strict=True)
        return [sds**2 * information > block.n_levels for block, (_, sds, _) in pairs]

    @cached_property
    def _axes(self) -> list[tuple[Array, Array, Array]]:
        """The singular value decompositions of the factors."""
        return [np.linalg.svd(Lambda) for Lambda in self.Lambdas]

    def scores(self, rows: Array) -> list[Array]:
        """Return Lambda'Z' times a vector, term by term, shape (m, k)."""
        return [
            s @ Lambda for s, Lambda in zip(self.problem.Z.sums(rows), self.Lambdas, strict=True)
        ]


def find_modes(setting: Setting, u: Sequence[Array], gamma: Array) -> Modes:
    """Return the conditional modes, from a start.

    Raises
    ------
    NoModesError
        If no finite modes are found.
    """
    point = setting.point(list(u), gamma)
    if not np.isfinite(point.value):
        point = setting.point([np.zeros_like(effects) for effects in u], gamma)
    if not np.isfinite(point.value):
        raise NoModesError("the log density is not finite at the start")
    least = np.inf
    for step in range(MAX_STEPS):
        new, gain, observed = _newton_step(setting, point)
        rounding = ROUNDING_OF_DENSITY * abs(point.value)
        hidden = max(MAX_HIDDEN_GAIN, rounding)
        if observed and abs(gain) < hidden and new.value > point.value - hidden:
            if abs(gain) < MAX_DECREMENT or abs(gain) >= least:
                is_better = new.value > point.value - max(MAX_DECREMENT, rounding)
                return _finished(setting, new if is_better else point, step)
            least, point = abs(gain), new
            continue
        better = _shortened(setting, point, new, gain)
        if better is None and gain > hidden:
            raise NoModesError("no step towards the modes helps")
        if better is None or (gain < MAX_HIDDEN_GAIN and better.value <= point.value):
            return _finished(setting, point, step)
        point = better
    raise NoModesError("the modes were not reached")


def _newton_step(setting: Setting, point: Point) -> tuple[Point, float, bool]:
    """Return where a full step leads, the Newton decrement, and whether W was observed."""
    problem, expansion = setting.problem, point.expansion
    weights, observed = expansion.weight, True
    try:
        factorized = setting.factorized(weights)
    except np.linalg.LinAlgError:
        weights = problem.family.information(point.eta, problem.weights, setting.psi)
        observed = False
        message = "the expected information is not positive definite"
        factorized = _needed_system(setting, weights, message)
    rows = expansion.score + weights * (point.eta - setting.base)
    u, gamma, _ = setting.solve(factorized, weights, rows)
    slopes = setting.scores(expansion.score)
    gain = sum(
        float(np.vdot(new - old, slope - old))
        for new, old, slope in zip(u, point.u, slopes, strict=True)
    )
    gain += float((gamma - point.gamma) @ (setting.fixed.T @ expansion.score))
    if not np.isfinite(gain):
        raise NoModesError("a step is not finite")
    return setting.point(u, gamma), gain, observed


def _needed_system(setting: Setting, weights: Array, message: str) -> blocked_cholesky.Factorized:
    """Return the factorised system, without which there are no modes."""
    try:
        return setting.factorized(weights)
    except np.linalg.LinAlgError as error:
        raise NoModesError(message) from error


def _shortened(setting: Setting, point: Point, new: Point, gain: float) -> Point | None:
    """Return a point on the way to a Newton step that is better enough; None if there is none."""
    share, rounding = 1.0, ROUNDING_OF_DENSITY * abs(point.value)
    for _ in range(MAX_HALVINGS):
        if new.value >= point.value + ARMIJO * share * gain - rounding:
            return new
        share /= 2
        u = [start + (end - start) / 2 for start, end in zip(point.u, new.u, strict=True)]
        new = setting.point(u, point.gamma + (new.gamma - point.gamma) / 2)
    return None


def _finished(setting: Setting, point: Point, steps: int) -> Modes:
    weights = point.expansion.weight
    factorized = _needed_system(setting, weights, "the modes are no maximum")
    return Modes(point.u, point.gamma, point.eta, point.expansion, point.value, factorized, steps)
