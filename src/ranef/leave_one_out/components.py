"""Pieces of data that are independent given the parameters of a generalised model.

Rows that share no level, not even through other rows, are independent given the fixed effects and
variances. The density of a piece with few random effects is found at many draws of the parameters
by adaptive Gauss-Hermite quadrature, pieces of the same make together: they are the levels of one
factor.

Source: Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ranef._typing import Array
from ranef.covariances.covariance import Unstructured
from ranef.design.groups import row_components
from ranef.likelihood.generalized import many_modes
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.pirls import Problem
from ranef.likelihood.generalized.weighted_crossproducts import Block, weighted
from ranef.posterior.generalized_posterior import GeneralizedPosterior

type Rows = NDArray[np.intp]

CACHED = 32_000  # numbers of an array that stays in the processor's cache
FAR = 600.0  # of an exponent


def connected(blocks: Sequence[Block], rows: Rows) -> list[Rows]:
    """Split rows into parts that share no level of any term; without terms into single rows."""
    if not blocks or not len(rows):
        return np.split(rows, len(rows)) if len(rows) else []
    labels = row_components([block.codes[rows] for block in blocks])
    order = np.argsort(labels, kind="stable")
    return list(np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1))


def signed_pieces(
    blocks: Sequence[Block], n: int, sets: Sequence[Rows]
) -> tuple[list[Rows], list[Rows], sparse.csr_array]:
    """Return the pieces that sets of rows lie in, and those that are left without each set.

    Returns
    -------
    pieces : list of ndarray of int
    around : list of ndarray of int
        The piece of all data that each is, or is part of.
    signs : sparse array, shape (U, pieces)
        1 for a piece around a set, -1 for one that is left of it.
    """
    all_pieces = connected(blocks, np.arange(n))
    number = np.empty(n, dtype=np.intp)
    for place, piece in enumerate(all_pieces):
        number[piece] = place
    places: dict[bytes, int] = {}
    pieces: list[Rows] = []
    entries: list[tuple[int, int, int]] = []
    for unit, rows in enumerate(sets):
        around = [all_pieces[place] for place in np.unique(number[rows])]
        left = np.setdiff1d(np.concatenate([rows[:0], *around]), rows)
        for sign, parts in ((1, around), (-1, connected(blocks, left))):
            for part in parts:
                place = places.setdefault(part.tobytes(), len(places))
                if place == len(pieces):
                    pieces.append(part)
                entries.append((unit, place, sign))
    units, columns, signs = np.array(entries, dtype=np.intp).reshape(-1, 3).T
    matrix = sparse.coo_array((signs, (units, columns)), shape=(len(sets), len(pieces)))
    return pieces, [all_pieces[number[piece[0]]] for piece in pieces], matrix.tocsr()


def points_of(
    joint: GeneralizedPosterior, rows: Rows, values: Array, counts: Sequence[int]
) -> many_modes.Points:
    """Return where the density of rows is wanted, each term having so many levels.

    Parameters
    ----------
    joint : GeneralizedPosterior
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
    return many_modes.Points(known, Lambda, joint.own(values.T).T)


@dataclass(frozen=True, eq=False)
class Stack:
    """Pieces with the same numbers of levels: the levels of a single factor.

    Attributes
    ----------
    joint : GeneralizedPosterior
    rows : ndarray of int, shape (N,)
        Piece by piece.
    counts : tuple of int
        The number of levels of each term in a piece.
    problem : Problem
        One block: all effects of a piece are those of a level.
    """

    joint: GeneralizedPosterior
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


def stack(joint: GeneralizedPosterior, pieces: Sequence[Rows]) -> Stack:
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
    block = Block(codes, columns, len(pieces), Unstructured(columns.shape[1]))
    Z = replace(weighted([], len(rows)), blocks=(block,))  # there is no need of cross-products
    y, weights = problem.y[rows], problem.weights[rows]
    return Stack(joint, rows, tuple(counts), Problem(problem.family, y, weights, Z))


class _Integrand:
    """The densities of the rows of a stack as functions of the random effects, at many draws."""

    def __init__(self, problem: Problem, points: many_modes.Points) -> None:
        (block,) = problem.Z.blocks
        self.problem, self.codes, self.k = problem, block.codes, block.k
        self.starts = np.flatnonzero(np.diff(self.codes, prepend=-1))
        self.psi, self.eta = points.psi.T[:, :, None], points.known
        if self.k:
            zeros = np.zeros((block.n_levels, self.k))
            first = many_modes.Points(points.known[:1], points.Lambda[:1], points.psi[:1])
            start = many_modes.find_level_modes(problem, first, zeros).u[0]
            self.modes = many_modes.find_level_modes(problem, points, start)
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
