"""Pieces of data that are independent given the parameters of a generalised model.

Rows that share no level, not even through other rows, are independent given the fixed effects and
variances. The density of such a piece, with its random effects integrated out, is found at many
draws of the parameters: by adaptive Gauss-Hermite quadrature where the piece has few effects, with
as many nodes as it takes, and by the Laplace approximation otherwise. Of a piece also the densities
of some of its rows are found, all of them together: the search for the modes of each starts at
those of the whole.

Source: Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35; Rasmussen & Williams (2006),
*Gaussian Processes for Machine Learning*, section 3.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from ranef import onefactor
from ranef.agq import Rule
from ranef.covariance import Shape
from ranef.expansions import Expansion
from ranef.joint import Joint
from ranef.pirls import ARMIJO, HIDDEN, MAX_HALVINGS, MAX_STEPS, ROUNDING, Problem
from ranef.weighted import Block, weighted

type Array = NDArray[np.float64]
type Rows = NDArray[np.intp]

DECREMENT = 1e-8  # twice what a log density may still gain
SINGULAR = 1e-13  # an eigenvalue, relative to the largest, that counts as zero
CACHED = 32_000  # numbers of an array that stays in the processor's cache
HELD = 400_000  # numbers of an array of matrices
FAR = 600.0  # of an exponent


def connected(blocks: Sequence[Block], rows: Rows) -> list[Rows]:
    """Split rows into parts that share no level of any term; without terms into single rows."""
    if not blocks or not len(rows):
        return np.split(rows, len(rows)) if len(rows) else []
    n, starts = len(rows), np.cumsum([len(rows), *(block.n_levels for block in blocks)])
    ends = np.concatenate([s + b.codes[rows] for s, b in zip(starts, blocks, strict=False)])
    edges = (np.tile(np.arange(n), len(blocks)), ends)
    graph = sparse.coo_array((np.ones(len(ends)), edges), shape=(starts[-1], starts[-1]))
    labels = csgraph.connected_components(graph, directed=False)[1][:n]
    order = np.argsort(labels, kind="stable")
    return list(np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1))


def points_of(joint: Joint, rows: Rows, values: Array, counts: Sequence[int]) -> onefactor.Points:
    """Return where the density of rows is wanted, each term having so many levels.

    Parameters
    ----------
    joint : Joint
    rows : ndarray of int, shape (N,)
    values : ndarray, shape (S, n_values)
    counts : sequence of int
    """
    factors = [A @ F for A, F in zip(joint.bases, joint.space.factors(values), strict=True)]
    sizes = [count * F.shape[-1] for count, F in zip(counts, factors, strict=True)]
    Lambda, at = np.zeros((len(values), sum(sizes), sum(sizes))), 0
    for factor, count in zip(factors, counts, strict=True):
        for start in range(at, at + count * factor.shape[-1], factor.shape[-1]):
            at = start + factor.shape[-1]
            Lambda[:, start:at, start:at] = factor
    known = joint.model.offset[rows] + values[:, : joint.p] @ joint.X[rows].T
    return onefactor.Points(known, Lambda, joint.own(values.T).T)


# ---------------------------------------------------------------- few effects: by quadrature


@dataclass(frozen=True, eq=False)
class Stack:
    """Pieces with the same numbers of levels: the levels of a single factor.

    Attributes
    ----------
    joint : Joint
    rows : ndarray of int, shape (N,)
        Piece by piece.
    counts : tuple of int
        The number of levels of each term in a piece.
    problem : Problem
        One block: all effects of a piece are those of a level.
    """

    joint: Joint
    rows: Rows
    counts: tuple[int, ...]
    problem: Problem

    @property
    def block(self) -> Block:
        """All random effects."""
        return self.problem.Z.blocks[0]

    def log_densities(self, values: Array, nodes: Rule) -> Array:
        """Return log p(y_R | phi) of every piece, shape (S, P)."""
        found = np.empty((len(values), self.block.n_levels))
        for part in self._chunks(len(values)):
            found[part] = self.integrand(values[part]).pieces(nodes)
        return found

    def single_rows(self, values: Array, nodes: Rule) -> Array:
        """Return log p(y_i | the other rows of its piece, phi), shape (S, N)."""
        found = np.empty((len(values), len(self.rows)))
        for part in self._chunks(len(values)):
            found[part] = self.integrand(values[part]).single(nodes)
        return found

    def integrand(self, values: Array) -> _Integrand:
        """Return the densities as functions of the effects, at some draws."""
        points = points_of(self.joint, self.rows, values, self.counts)
        return _Integrand(self.problem, points)

    def _chunks(self, count: int) -> Iterator[slice]:
        """Yield slices of draws, so few at a time that their arrays stay in the cache."""
        step = max(1, CACHED // (len(self.rows) * max(self.block.k, 1)))
        for start in range(0, count, step):
            yield slice(start, min(start + step, count))


def stack(joint: Joint, pieces: Sequence[Rows]) -> Stack:
    """Stack pieces that have the same number of levels of each term."""
    problem, rows = joint.model.problem, np.concatenate(pieces)
    codes = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    parts, counts = [np.empty((len(rows), 0))], []
    for block in problem.Z.blocks:
        own = [np.unique(block.codes[piece], return_inverse=True)[1] for piece in pieces]
        counts.append(int(own[0].max()) + 1)
        wide = np.zeros((len(rows), counts[-1], block.k))
        wide[np.arange(len(rows)), np.concatenate(own)] = block.columns[rows]
        parts.append(wide.reshape(len(rows), -1))
    columns = np.hstack(parts)
    block = Block(codes, columns, len(pieces), Shape(columns.shape[1], correlated=True))
    Z = replace(weighted([], len(rows)), blocks=(block,))  # there is no need of cross-products
    y, weights = problem.y[rows], problem.weights[rows]
    return Stack(joint, rows, tuple(counts), Problem(problem.family, y, weights, Z))


class _Integrand:
    """The densities of the rows of a stack as functions of the random effects, at many draws."""

    def __init__(self, problem: Problem, points: onefactor.Points) -> None:
        (block,) = problem.Z.blocks
        self.problem, self.codes, self.k = problem, block.codes, block.k
        self.starts = np.flatnonzero(np.diff(self.codes, prepend=-1))
        self.psi, self.eta = points.psi.T[:, :, None], points.known
        if self.k:
            zeros = np.zeros((block.n_levels, self.k))
            first = onefactor.Points(points.known[:1], points.Lambda[:1], points.psi[:1])
            start = onefactor.find_level_modes(problem, first, zeros).u[0]
            self.modes = onefactor.find_level_modes(problem, points, start)
            self.scaled = block.columns @ points.Lambda
            self.eta = self.eta + (self.scaled * self.modes.u[:, self.codes]).sum(-1)

    def rows(self, eta: Array) -> Array:
        """Return log f(y_i | eta_i), shape (S, N)."""
        return self.problem.expansion(eta, self.psi).value

    def by_piece(self, rows: Array) -> Array:
        """Return sums over the rows of each piece, shape (S, P)."""
        return np.asarray(np.add.reduceat(rows, self.starts, axis=1))

    def pieces(self, nodes: Rule) -> Array:
        """Return log p(y_R | phi) of every piece, shape (S, P)."""
        if not self.k:
            return self.by_piece(self.rows(self.eta))
        total = np.zeros_like(self.modes.h)
        for share, _ in self.at_nodes(nodes):
            total += share
        logdet = np.log(np.diagonal(self.modes.L, axis1=2, axis2=3)).sum(-1)
        found = self.modes.h + np.log(total) - logdet
        return np.where(np.isfinite(found), found, -np.inf)

    def single(self, nodes: Rule) -> Array:
        """Return log p(y_i | the other rows of its piece, phi), shape (S, N)."""
        mode = self.rows(self.eta)
        total, without = np.zeros_like(self.modes.h), np.zeros_like(mode)
        for share, rows in self.at_nodes(nodes):
            total += share
            exponent = np.log(share)[:, self.codes] - (rows - mode)
            without += np.exp(np.minimum(exponent, FAR))
        return np.asarray(mode + np.log(total)[:, self.codes] - np.log(without))

    def at_nodes(self, nodes: Rule) -> Iterator[tuple[Array, Array]]:
        """Yield the share of each node, relative to the mode, and log f of the rows there."""
        C = np.linalg.inv(self.modes.L).swapaxes(2, 3)
        steps = np.einsum("sna,snab->snb", self.scaled, C[:, self.codes])
        for z, log_weight in zip(nodes.nodes, nodes.log_weights, strict=True):
            rows = self.rows(self.eta + steps @ z)
            h = self.by_piece(rows) - 0.5 * ((self.modes.u + C @ z) ** 2).sum(-1)
            yield np.exp(h - self.modes.h + log_weight + z @ z / 2), rows


# -------------------------------------------------------- many effects: Laplace's approximation


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
    joint : Joint
    rows : ndarray of int, shape (N,)
    counts : tuple of int
        The number of levels of each term.
    places : ndarray of int, shape (N, K)
        Where the effects of each row are in the vector.
    columns : ndarray, shape (N, K)
    """

    joint: Joint
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
        C = self._covariances(at, points)
        v = np.diagonal(C, axis1=2, axis2=3)
        score, weight = at.expansion.score, at.expansion.weight
        left, root, total = 1 - v * weight, np.sqrt(v), np.zeros_like(v)
        for z, log_weight in zip(nodes.nodes[:, 0], nodes.log_weights, strict=True):
            change = search.rows(at.eta + root * z).value - at.expansion.value
            total += np.exp(change + z * z * v * weight / 2 - root * z * score + log_weight)
        gain = np.log(total) - v * score**2 / (2 * left) + np.log(left) / 2
        gain += self._skewness(C, score / left, weight / left, search.bends(at.eta))
        found = np.where(np.isfinite(gain), at.expansion.value + gain, -np.inf)
        return found[:, 0], np.abs(v * score / left)[:, 0]

    def _covariances(self, found: Fitted, points: onefactor.Points) -> Array:
        """Return the covariance of the rows' eta in the normal approximation, (S, 1, N, N)."""
        scaled = np.zeros((len(found.u), 1, len(self.rows), self.q))
        scaled[:, :, np.arange(len(self.rows))[:, None], self.places] = self.columns
        half = np.linalg.solve(found.root, (scaled @ points.Lambda[:, None]).swapaxes(2, 3))
        return np.asarray(half.swapaxes(2, 3) @ half)

    def _skewness(self, C, pull, weight, bends):
        """Return what other rows' third derivatives change"""
        v = np.diagonal(C, axis1=2, axis2=3)
        moved = -C * pull[..., None, :]          # of row j when i is left out: [j, i]
        spread = v[..., :, None] + C**2 * weight[..., None, :]
        terms = bends[..., :, None] * (moved**3 / 6 + spread * moved / 2)
        return np.diagonal(terms, axis1=2, axis2=3) - terms.sum(-2)


def whole(joint: Joint, rows: Rows) -> Whole:
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

    def __init__(self, piece: Whole, points: onefactor.Points, keep: NDArray[np.bool_]) -> None:
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
        return _cholesky(Lambda.swapaxes(2, 3) @ D @ Lambda + np.eye(q))

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


def _cholesky(H: Array) -> Array:
    """Return Cholesky factors of stacked matrices, nan where there is none."""
    try:
        return np.linalg.cholesky(H)
    except np.linalg.LinAlgError:
        L = np.full(H.shape, np.nan)
        good = np.isfinite(H).all((-2, -1))
        values = np.linalg.eigvalsh(H[good])
        good[good] = values[..., 0] > SINGULAR * values[..., -1]
        L[good] = np.linalg.cholesky(H[good])
        return L
