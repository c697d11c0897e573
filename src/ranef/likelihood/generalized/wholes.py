"""The Laplace approximation of the density of many parts of a generalised model at many draws.

All random effects of a piece of the data are one vector, and its densities, and those of parts of
its rows, are found together: Newton's method runs for all parts and all draws of the parameters at
once, and for a part starts at the modes of the whole. For single rows that are left out there is a
shortcut, which takes the piece as a whole alone.

Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 3.4;
Vehtari, Mononen, Tolvanen, Sivula & Winther (2016), *JMLR* 17(103), 1-38.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ranef._typing import Array
from ranef.families.derivatives import Expansion
from ranef.leave_one_out.components import Rows, points_of
from ranef.likelihood.generalized import many_modes
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.pirls import ARMIJO, HIDDEN, MAX_HALVINGS, MAX_STEPS, ROUNDING
from ranef.numerics.matrices import choleskies
from ranef.posterior.generalized_posterior import GeneralizedPosterior

DECREMENT = 1e-8  # twice what a log density may still gain
HELD = 400_000  # numbers of an array of matrices


@dataclass(frozen=True, eq=False)
class Fitted:
    """The conditional modes of parts of a piece, at many draws.

    Attributes
    ----------
    u : ndarray, shape (S, U, q)
    eta : ndarray, shape (S, U, N)
    expansion : Expansion
        Of all rows of the piece, at these eta.
    value : ndarray, shape (S, U)
        Laplace's approximation of the log density of each part.
    root : ndarray, shape (S, U, q, q)
        Cholesky factors of the negative Hessians.
    """

    u: Array
    eta: Array
    expansion: Expansion
    value: Array
    root: Array


@dataclass(frozen=True, eq=False)
class Whole:
    """A piece whose random effects are one vector of length q.

    Attributes
    ----------
    joint : GeneralizedPosterior
    rows : ndarray of int, shape (N,)
    counts : tuple of int
        The number of levels of each term.
    places : ndarray of int, shape (N, K)
        Where the effects of each row are in the vector.
    columns : ndarray, shape (N, K)
    """

    joint: GeneralizedPosterior
    rows: Rows
    counts: tuple[int, ...]
    places: NDArray[np.int64]
    columns: Array

    @cached_property
    def q(self) -> int:
        """The number of random effects."""
        return int(self.places.max()) + 1

    @cached_property
    def sums(self) -> sparse.csr_array:
        """Z', shape (q, N)."""
        return _map(self.places, self.columns, self.q)

    @cached_property
    def products(self) -> sparse.csr_array:
        """The map from weights W to Z'WZ, shape (q q, N)."""
        n, q = len(self.rows), self.q
        places = (self.places[:, :, None] * q + self.places[:, None, :]).reshape(n, -1)
        columns = (self.columns[:, :, None] * self.columns[:, None, :]).reshape(n, -1)
        return _map(places, columns, q * q)

    def chunks(self, count: int, parts: int) -> Iterator[slice]:
        """Yield slices of draws, for so many parts."""
        step = max(1, HELD // (parts * max(len(self.rows), self.q**2)))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))

    def fitted(self, values: Array, keep: NDArray[np.bool_], u: Array | None = None) -> Fitted:
        """Find the conditional modes of parts of the piece.

        Parameters
        ----------
        values : ndarray, shape (S, n_values)
        keep : ndarray of bool, shape (U, N)
            The rows of each part.
        u : ndarray, shape (S, 1, q), optional
            Where to start.
        """
        points = points_of(self.joint, self.rows, values, self.counts)
        start = np.zeros((len(values), len(keep), self.q))
        return _Newton(self, points, keep).run(start if u is None else start + u)

    def single_rows(self, values: Array, nodes: Rule) -> tuple[Array, Array]:
        """Return log p(y_i | the other rows, phi) of every row, and how far it pulls its eta.

        With v the variance of eta_i in the normal approximation, s the score and W the weight at
        the mode, what is known of eta_i without row i, the cavity, has variance v / (1 - v W) and
        a mean that is s times that away from the mode. Its product with f(y_i | eta) has its mode
        at that of eta_i, and the variance v: there are the nodes.

        Parameters
        ----------
        values : ndarray, shape (S, n_values)
        nodes : Rule

        Returns
        -------
        log_p, pull : ndarray, shape (S, N)
        """
        points = points_of(self.joint, self.rows, values, self.counts)
        search = _Newton(self, points, np.ones((1, len(self.rows)), dtype=np.bool_))
        at = search.run(np.zeros((len(values), 1, self.q)))
        eta, score, weight = at.eta[:, 0], at.expansion.score[:, 0], at.expansion.weight[:, 0]
        half = self._half_covariances(at, points)
        v = (half**2).sum(axis=1)
        left, root, total = 1 - v * weight, np.sqrt(v), np.zeros_like(v)
        for z, log_weight in zip(nodes.nodes[:, 0], nodes.log_weights, strict=True):
            change = search.rows((eta + root * z)[:, None]).value[:, 0] - at.expansion.value[:, 0]
            total += np.exp(change + z * z * v * weight / 2 - root * z * score + log_weight)
        found = at.expansion.value[:, 0] + np.log(total) + np.log(left) / 2
        found -= v * score**2 / (2 * left)
        found -= _skewness(half, score / left, weight / left, search.bends(at.eta)[:, 0])
        return np.where(np.isfinite(found), found, -np.inf), np.abs(v * score / left)

    def _half_covariances(self, found: Fitted, points: many_modes.Points) -> Array:
        """Return a matrix, shape (S, q, N): its square is the covariance of all eta at the mode."""
        scaled = np.zeros((len(self.rows), self.q))
        scaled[np.arange(len(self.rows))[:, None], self.places] = self.columns
        right = (scaled @ points.Lambda).swapaxes(1, 2)
        return np.asarray(np.linalg.solve(found.root[:, 0], right))


def _skewness(half: Array, pull: Array, weight: Array, bends: Array) -> Array:
    """Return what third derivatives of the other rows add to log p(y_-i | phi), shape (S, N).

    Where row i is left out the modes move, and other rows' weights with them: to first order in
    the third derivatives l_j, this adds the sum over j of l_j (d_j^3 / 6 + v_j d_j / 2), with d_j
    how far eta_j moves and v_j its variance without row i.

    Parameters
    ----------
    half : ndarray, shape (S, q, N)
    pull, weight : ndarray, shape (S, N)
        Of each row, over what is left of its variance.
    bends : ndarray, shape (S, N)
        The third derivatives of log f.
    """
    count, _, n = half.shape
    v, found = (half**2).sum(axis=1)[:, :, None], np.empty((count, n))
    step = max(1, HELD // (count * n))
    for start in range(0, n, step):
        own = np.arange(start, min(start + step, n))
        C = half.swapaxes(1, 2) @ half[:, :, own]
        moved = -C * pull[:, None, own]
        added = bends[:, :, None] * moved * (moved**2 / 6 + (v + C**2 * weight[:, None, own]) / 2)
        added[:, own, np.arange(len(own))] = 0.0
        found[:, own] = added.sum(axis=1)
    return found


def whole(joint: GeneralizedPosterior, rows: Rows) -> Whole:
    """Return a piece with its random effects as one vector."""
    places, counts, start = [], [], 0
    for block in joint.model.problem.Z.blocks:
        levels, codes = np.unique(block.codes[rows], return_inverse=True)
        places.append(start + codes[:, None] * block.k + np.arange(block.k))
        counts.append(len(levels))
        start += len(levels) * block.k
    columns = np.hstack([block.columns[rows] for block in joint.model.problem.Z.blocks])
    return Whole(joint, rows, tuple(counts), np.hstack(places), columns)


class _Newton:
    """Newton's method for the modes of all parts at all draws together."""

    def __init__(self, piece: Whole, points: many_modes.Points, keep: NDArray[np.bool_]) -> None:
        problem = piece.joint.model.problem
        self.piece, self.family, self.keep = piece, problem.family, keep
        self.y, self.weights = problem.y[piece.rows], problem.weights[piece.rows]
        self.known, self.Lambda = points.known[:, None], points.Lambda
        self.psi = points.psi.T[:, :, None, None]

    def rows(self, eta: Array) -> Expansion:
        """Return the expansion of all rows, shape (S, U, N)."""
        return self.family.expansion(self.y, eta, self.weights, self.psi)

    def bends(self, eta: Array) -> Array:
        """Return the third derivatives of log f, shape (S, U, N)."""
        return -self.family.further_expansion(self.y, eta, self.weights, self.psi).third

    def at(self, u: Array) -> tuple[Array, Expansion, Array]:
        """Return eta, the expansion of the rows there, and the penalised log density."""
        b, eta = u @ self.Lambda.swapaxes(1, 2), self.known
        for place, column in zip(self.piece.places.T, self.piece.columns.T, strict=True):
            eta = eta + b[..., place] * column
        expansion = self.rows(eta)
        value = np.where(self.keep, expansion.value, 0.0).sum(-1) - 0.5 * (u**2).sum(-1)
        return eta, expansion, np.where(np.isfinite(value), value, -np.inf)

    def root(self, weights: Array) -> Array:
        """Return Cholesky factors of the negative Hessians, shape (S, U, q, q), else nan."""
        rows, q = np.where(self.keep, weights, 0.0), self.piece.q
        D = _applied(self.piece.products, rows).reshape(*rows.shape[:2], q, q)
        Lambda = self.Lambda[:, None]
        return choleskies(Lambda.swapaxes(2, 3) @ D @ Lambda + np.eye(q))

    def run(self, u: Array) -> Fitted:
        """Return the modes, from a start; a value of minus infinity where there are none."""
        eta, expansion, h = self.at(u)
        good = np.isfinite(h)
        going = good.copy()
        for _ in range(MAX_STEPS):
            L = self.root(expansion.weight)
            step, gain, observed = self.newton(u, eta, expansion, L)
            good &= np.isfinite(gain) | ~going
            going &= np.isfinite(gain) & ~(observed & (gain < DECREMENT))
            if not going.any():
                break
            step = np.where(going[..., None], step, 0.0)
            u, (eta, expansion, h), moved = self.walked(u, step, h, gain)
            good &= moved | (gain < HIDDEN) | ~going
            going &= moved
        logdet = np.log(np.diagonal(L, axis1=2, axis2=3)).sum(-1)
        value = np.where(good & ~going, h - logdet, -np.inf)
        return Fitted(u, eta, expansion, np.where(np.isfinite(value), value, -np.inf), L)

    def newton(
        self, u: Array, eta: Array, expansion: Expansion, L: Array
    ) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return full steps, their Newton decrements, and whether the weights were observed."""
        observed = np.isfinite(L[..., 0, 0])
        if not observed.all():
            expected = self.family.information(eta, self.weights, self.psi)
            L = np.where(observed[..., None, None], L, self.root(expected))
        rows = np.where(self.keep, expansion.score, 0.0)
        slopes = _applied(self.piece.sums, rows) @ self.Lambda - u
        half = np.linalg.solve(L, slopes[..., None])
        step = np.linalg.solve(L.swapaxes(2, 3), half)[..., 0]
        return step, (step * slopes).sum(-1), observed

    def walked(
        self, u: Array, step: Array, h: Array, gain: Array
    ) -> tuple[Array, tuple[Array, Expansion, Array], NDArray[np.bool_]]:
        """Return u after steps that are short enough, what is there, and where there were such."""
        share, rounding = np.ones(h.shape), np.maximum(DECREMENT, ROUNDING * np.abs(h))
        for _ in range(MAX_HALVINGS):
            new = u + share[..., None] * step
            found = self.at(new)
            bad = ~(found[2] >= h + ARMIJO * share * gain - rounding) & (step != 0).any(-1)
            if not bad.any():
                return new, found, ~bad
            share[bad] /= 2
        share[bad] = 0.0
        new = u + share[..., None] * step
        return new, self.at(new), ~bad


def _applied(matrix: sparse.csr_array, rows: Array) -> Array:
    """Return a matrix, shape (r, N), times vectors, shape (S, U, N): shape (S, U, r)."""
    found = (matrix @ rows.reshape(-1, rows.shape[-1]).T).T
    return np.ascontiguousarray(found).reshape(*rows.shape[:-1], -1)


def _map(places: NDArray[np.int64], values: Array, size: int) -> sparse.csr_array:
    """Return the sparse matrix, shape (size, N), whose column i has `values[i]` in `places[i]`."""
    columns = np.repeat(np.arange(len(places)), places.shape[1])
    at = (places.ravel(), columns)
    return sparse.coo_array((values.ravel(), at), shape=(size, len(places))).tocsr()
