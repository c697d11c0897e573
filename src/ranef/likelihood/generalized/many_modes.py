"""Many points at once: the likelihood of a generalised model with one grouping factor.

Given the fixed effects the levels of a single factor are independent, so that the conditional modes
of all levels at all points of a sample are found together, elementwise: a Newton iteration in which
every level has its own step length and stops by itself. Then the Laplace approximation or adaptive
Gauss-Hermite quadrature, as in `gauss_hermite`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ranef._typing import Array
from ranef.families.derivatives import Expansion
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.pirls import (
    ARMIJO,
    DECREMENT,
    MAX_HALVINGS,
    MAX_STEPS,
    ROUNDING,
    Problem,
)

CHUNK = 30_000  # rows times points of an array: such stay in the processor's cache
SINGULAR = 1e-13  # ratio of eigenvalues below which a Hessian has no Cholesky factor


@dataclass(frozen=True, eq=False)
class Points:
    """Where a likelihood is wanted.

    Attributes
    ----------
    known : ndarray, shape (S, n)
        The part of eta that is known.
    Lambda : ndarray, shape (S, k, k)
    psi : ndarray, shape (S, r)
    """

    known: Array
    Lambda: Array
    psi: Array


@dataclass(frozen=True, eq=False)
class LevelModes:
    """The conditional modes of every level at every point.

    Attributes
    ----------
    u : ndarray, shape (S, m, k)
    L : ndarray, shape (S, m, k, k)
        Cholesky factors of the negative Hessians; nan where there are no modes.
    h : ndarray, shape (S, m)
        log f(y_l | u) - |u|^2 / 2.
    """

    u: Array
    L: Array
    h: Array


def chunks(points: int, rows: int) -> Iterator[slice]:
    """Yield slices of points, of a size that fits into memory."""
    step = max(1, CHUNK // max(rows, 1))
    for start in range(0, points, step):
        yield slice(start, min(start + step, points))


def find_level_modes(problem: Problem, points: Points, u: Array) -> LevelModes:
    """Find the conditional modes of all levels at all points.

    Parameters
    ----------
    problem : Problem
        With one block.
    points : Points
    u : ndarray, shape (m, k)
        Where every search starts.
    """
    with np.errstate(all="ignore"):
        return _Search(problem, points).run(u)


def log_likelihoods(
    problem: Problem, points: Points, modes: LevelModes, nodes: Rule | None
) -> Array:
    """Return the log-likelihood at every point, shape (S,): minus infinity where there is none.

    Parameters
    ----------
    problem : Problem
    points : Points
    modes : LevelModes
    nodes : Rule, optional
        Of a quadrature; without one the Laplace approximation is taken.
    """
    search = _Search(problem, points)
    with np.errstate(all="ignore"):
        logdet = np.log(np.diagonal(modes.L, axis1=2, axis2=3)).sum(-1)
        if nodes is None:
            total = modes.h
        else:
            C = np.linalg.inv(modes.L).swapaxes(2, 3)
            total = np.full(modes.h.shape, -np.inf)
            for z, log_weight in zip(nodes.nodes, nodes.log_weights, strict=True):
                h = search.heights(modes.u + C @ z) + log_weight + z @ z / 2
                total = np.logaddexp(total, h)
        found = (total - logdet).sum(axis=1)
    return np.where(np.isfinite(found), found, -np.inf)


class _Search:
    """Newton's method for all levels and points together."""

    def __init__(self, problem: Problem, points: Points) -> None:
        (block,) = problem.Z.blocks
        self.problem, self.points, self.codes = problem, points, block.codes
        self.sums: sparse.csr_array = block.indicator
        self.scaled = block.columns @ points.Lambda  # (S, n, k)
        self.psi = points.psi.T[:, :, None]

    def expansion(self, u: Array) -> Expansion:
        eta = self.points.known + np.einsum("sna,sna->sn", self.scaled, u[:, self.codes])
        return self.problem.family.expansion(self.problem.y, eta, self.problem.weights, self.psi)

    def by_level(self, rows: Array) -> Array:
        """Return sums over the rows of each level: (S, n) to (S, m)."""
        return np.asarray((self.sums @ rows.T).T)

    def heights(self, u: Array) -> Array:
        return self._heights(u, self.expansion(u))

    def _heights(self, u: Array, expansion: Expansion) -> Array:
        h = self.by_level(expansion.value) - 0.5 * (u**2).sum(-1)
        return np.where(np.isfinite(h), h, -np.inf)

    def run(self, start: Array) -> LevelModes:
        u = np.repeat(start[None], len(self.points.known), axis=0)
        u[~np.isfinite(self.heights(u))] = 0.0
        expansion = self.expansion(u)
        going = np.ones(u.shape[:2], dtype=np.bool_)
        for _ in range(MAX_STEPS):
            h = self._heights(u, expansion)
            step, gain, observed = self.newton(u, expansion)
            exact = observed & np.asarray(gain < DECREMENT)
            step[~going] = 0.0
            u, expansion, moved = self.walked(u, step, h, np.where(exact, 0.0, gain))
            going &= moved & ~exact & np.isfinite(gain)
            if not going.any():
                break
        L = _cholesky(self.hessian(expansion.weight))
        L[going] = np.nan  # not reached
        return LevelModes(u, L, self._heights(u, expansion))

    def hessian(self, weights: Array) -> Array:
        """Return the negative Hessians, shape (S, m, k, k)."""
        k = self.scaled.shape[2]
        H = np.empty((len(weights), self.sums.shape[0], k, k))
        for a in range(k):
            for b in range(a + 1):
                products = weights * self.scaled[:, :, a] * self.scaled[:, :, b]
                H[:, :, a, b] = H[:, :, b, a] = self.by_level(products)
        H[:, :, np.arange(k), np.arange(k)] += 1.0
        return H

    def newton(self, u: Array, expansion: Expansion) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return full steps, their Newton decrements, and whether the weights were observed."""
        k = self.scaled.shape[2]
        slopes = np.stack(
            [self.by_level(expansion.score * self.scaled[:, :, a]) for a in range(k)], axis=-1
        )
        slopes -= u
        L = _cholesky(self.hessian(expansion.weight))
        observed: NDArray[np.bool_] = np.isfinite(L[..., 0, 0])
        if not observed.all():
            eta = self.points.known + np.einsum("sna,sna->sn", self.scaled, u[:, self.codes])
            expected = self.problem.family.information(eta, self.problem.weights, self.psi)
            L = np.where(observed[..., None, None], L, _cholesky(self.hessian(expected)))
        half = np.linalg.solve(L, slopes[..., None])
        step = np.linalg.solve(L.swapaxes(2, 3), half)[..., 0]
        return step, (step * slopes).sum(-1), observed

    def walked(
        self, u: Array, step: Array, h: Array, gain: Array
    ) -> tuple[Array, Expansion, NDArray[np.bool_]]:
        """Return u after steps that are short enough, its expansion, and where there were such."""
        share = np.ones(h.shape)
        rounding = np.maximum(DECREMENT, ROUNDING * np.abs(h))
        for _ in range(MAX_HALVINGS):
            new = u + share[..., None] * step
            expansion = self.expansion(new)
            enough = self._heights(new, expansion) >= h + ARMIJO * share * gain - rounding
            bad = ~enough & (step != 0).any(-1)
            if not bad.any():
                return new, expansion, ~bad
            share[bad] /= 2
        share[bad] = 0.0
        new = u + share[..., None] * step
        return new, self.expansion(new), ~bad


def _cholesky(H: Array) -> Array:
    """Return Cholesky factors of stacked matrices, nan where there is none."""
    if H.shape[-1] == 1:
        return np.sqrt(np.where(H > 0, H, np.nan))
    try:
        return np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        good = np.isfinite(H).all((-2, -1))
        values = np.linalg.eigvalsh(H[good])
        good[good] = values[..., 0] > SINGULAR * values[..., -1]
        L = np.full(H.shape, np.nan)
        L[good] = np.linalg.cholesky(H[good])
        return L
