"""Conditional modes at many points: Newton's method for all points and pieces of data at once.

Rows that share no level, not even through other rows, are independent given the parameters. A
`Piece` is one such component of the data, or several that have the same numbers of levels. Of small
ones the random effects are found elementwise, each component with a step length of its own; so are
the levels of a single factor. A large one is taken as a whole, its most numerous effects eliminated
first, and so are parts of its rows, all together.

Then the Laplace approximation or adaptive Gauss-Hermite quadrature, as in `gauss_hermite`.

Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 3.4;
Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Flags, Places
from ranef.design.groups import row_components
from ranef.families.derivatives import Expansion
from ranef.families.family import Family
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.pirls import (
    ARMIJO,
    MAX_DECREMENT,
    MAX_HALVINGS,
    MAX_HIDDEN_GAIN,
    MAX_STEPS,
    ROUNDING_OF_DENSITY,
    Problem,
)
from ranef.likelihood.generalized.weighted_crossproducts import product_map
from ranef.numerics.matrices import ArrowCholesky, scattered, stack_cholesky_or_nan

CHUNK = 40_000  # numbers of an array of rows: such stay in the processor's cache
HELD = 100_000  # numbers of an array of matrices
ROUGHLY = 1e-5  # a Newton decrement, from where a last step leaves the square of that
MOST_ELEMENTWISE = 8  # effects of a component up to which it is handled elementwise


@dataclass(frozen=True, eq=False)
class Points:
    """Where a likelihood is wanted.

    Attributes
    ----------
    known : ndarray, shape (S, N)
        The part of eta that is known, of the rows in question.
    Lambdas : sequence of ndarray, shape (S, k, k)
        The factor of each term, in the design's order.
    psi : ndarray, shape (S, r)
    """

    known: Array
    Lambdas: Sequence[Array]
    psi: Array


@dataclass(frozen=True, eq=False)
class Piece:
    """Components of the data with the same numbers of levels: P of them, each with q effects.

    Attributes
    ----------
    family : Family
    rows : ndarray of int, shape (N,)
        Component by component.
    y, weights : ndarray, shape (N,)
    codes : ndarray of int, shape (N,)
        The component of each row.
    terms : sequence of int
        The terms in the order in which their effects are eliminated.
    sizes : sequence of int
        k of each of them.
    levels : sequence of ndarray of int, shape (P, levels of a component)
        Which levels of each of them these are.
    places : ndarray of int, shape (N, K)
        Where the effects of each row are among the q of its component.
    columns : ndarray, shape (N, K)
    """

    family: Family
    rows: Places
    y: Array
    weights: Array
    codes: Codes
    terms: Sequence[int]
    sizes: Sequence[int]
    levels: Sequence[Places]
    places: Places
    columns: Array

    @property
    def P(self) -> int:
        """The number of components."""
        return 1 + int(self.codes[-1])

    @cached_property
    def q(self) -> int:
        """The number of random effects of a component."""
        return sum(slot.stop - slot.start for slot in self.slots)

    @property
    def is_elementwise(self) -> bool:
        """Whether components are small, and so handled elementwise."""
        return self.P > 1 or self.q <= MOST_ELEMENTWISE

    @cached_property
    def slots(self) -> list[slice[int, int, None]]:
        """Where the effects of each term are among the q."""
        counts = [levels.shape[1] * k for levels, k in zip(self.levels, self.sizes, strict=True)]
        return [slice(b - n, b) for n, b in zip(counts, accumulate(counts), strict=True)]

    @cached_property
    def wide(self) -> Array:
        """The columns of all q effects, shape (N, q)."""
        wide = np.zeros((len(self.rows), self.q))
        wide[np.arange(len(wide))[:, None], self.places] = self.columns
        return wide

    @cached_property
    def sums(self) -> sparse.csr_array:
        """Z' of one component, shape (q, N)."""
        return scattered(self.places, self.columns, self.q)

    @cached_property
    def products(self) -> tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]:
        """The maps from weights W to Z'WZ of one component.

        Shapes (m k k, N), (m k r, N) and (r r, N): of the first term's m levels, across, and of the
        other r effects.
        """
        k, m = self.sizes[0], self.slots[0].stop
        first, later, r = self.places[:, :k, None], self.places[:, None, k:] - m, self.q - m
        x, z = self.columns[:, :k], self.columns[:, k:]
        return (
            product_map(first * k + np.arange(k), x, x, m * k),
            product_map(first * r + later, x, z, m * r),
            product_map(later.swapaxes(1, 2) * r + later, z, z, r * r),
        )

    def weight(self, parts: int = 1) -> int:
        """Return how many numbers the arrays of a point have, for so many parts of the rows."""
        if self.is_elementwise:
            return len(self.rows) * max(self.q, 1) * (HELD // CHUNK)
        m = self.slots[0].stop
        return parts * max(len(self.rows), self.q * (self.q - m), m * self.sizes[0])

    def chunks(self, points: int, parts: int = 1) -> Iterator[slice]:
        """Yield slices of points, of a size that fits into memory."""
        step = max(1, HELD // max(self.weight(parts), 1))
        for start in range(0, points, step):
            yield slice(start, min(start + step, points))

    def factors(self, points: Points) -> list[Array]:
        """Return the factors of the terms in the piece's order."""
        return [points.Lambdas[term] for term in self.terms]

    def effects(self, u: Array, points: Points) -> list[Array]:
        """Return b = Lambda u of each term in the piece's order, shape (S, P, levels, k)."""
        return [
            u[..., slot].reshape(*u.shape[:-1], -1, k) @ Lambda[:, None].swapaxes(2, 3)
            for slot, k, Lambda in zip(self.slots, self.sizes, self.factors(points), strict=True)
        ]

    def gathered(self, effects: Sequence[Array]) -> Array:
        """Return effects of the design's terms, (S, m, k), as those of components, (S, P, q)."""
        terms = zip(self.terms, self.levels, strict=True)
        chosen = [effects[term][:, levels] for term, levels in terms]
        flat = [of_term.reshape(len(of_term), self.P, -1) for of_term in chosen]
        return np.concatenate(flat, axis=2) if flat else np.empty((1, self.P, 0))

    def search(self, points: Points) -> Elementwise | Parts:
        """Return the search for the modes of all components."""
        if self.is_elementwise:
            return Elementwise(self, points)
        return Parts(self, points, np.ones((1, len(self.rows)), dtype=np.bool_))

    def modes(
        self, points_at: Callable[[slice], Points], count: int, start: Array
    ) -> Iterator[tuple[slice, Elementwise | Parts, ManyModes]]:
        """Yield the modes of some of the points at a time, the search, and which points they are.

        Parameters
        ----------
        points_at : callable
            From a slice to these points.
        count : int
            The number of all points.
        start : ndarray, shape (1, P, q)
            Where every search starts.
        """
        for chosen in self.chunks(count):
            search = self.search(points_at(chosen))
            yield chosen, search, search.run(start)

    def log_densities(
        self,
        points_at: Callable[[slice], Points],
        count: int,
        start: Array,
        nodes: Rule | None = None,
    ) -> Array:
        """Return log p(y_R | phi) of each component, shape (S, P); minus infinity if there is none.

        Parameters
        ----------
        points_at : callable
            From a slice to these points.
        count : int
            The number of all points.
        start : ndarray, shape (1, P, q)
            Where every search starts.
        nodes : Rule, optional
            Of a quadrature, for small components; without one the Laplace approximation is taken.
        """
        log_p = np.empty((count, self.P))
        for chosen, search, modes in self.modes(points_at, count, start):
            log_p[chosen] = search.log_densities(modes, nodes)
        return log_p


def components_of_rows(problem: Problem, rows: Places) -> list[Places]:
    """Split rows into components, which share no level of any term; without terms, single rows."""
    blocks = problem.Z.blocks
    if not blocks or not len(rows):
        return np.split(rows, len(rows)) if len(rows) else []
    labels = row_components([block.codes[rows] for block in blocks])
    order = np.argsort(labels, kind="stable")
    return list(np.split(rows[order], np.flatnonzero(np.diff(labels[order])) + 1))


def numbers_of_levels(problem: Problem, rows: Places) -> tuple[int, ...]:
    """Return how many levels of each term some rows have."""
    return tuple(len(np.unique(block.codes[rows])) for block in problem.Z.blocks)


def number_of_effects(problem: Problem, rows: Places) -> int:
    """Return how many random effects some rows have."""
    counts = numbers_of_levels(problem, rows)
    return sum(n * block.k for n, block in zip(counts, problem.Z.blocks, strict=True))


def piece_of(problem: Problem, components: Sequence[Places]) -> Piece:
    """Return components of the data that have the same number of levels of each term.

    Parameters
    ----------
    problem : Problem
    components : sequence of ndarray of int
        Their rows.
    """
    blocks, rows = problem.Z.blocks, np.concatenate(components)
    terms = [*problem.Z.chain, *(term for term, _ in problem.Z.others)]
    if all(np.array_equal(block.codes, blocks[0].codes) for block in blocks):
        terms = list(range(len(blocks)))
    levels, places, start = [], [np.empty((len(rows), 0), dtype=np.intp)], 0
    for block in (blocks[term] for term in terms):
        unique = [np.unique(block.codes[c], return_inverse=True) for c in components]
        levels.append(np.array([levels_of_component for levels_of_component, _ in unique]))
        codes = np.concatenate([code for _, code in unique])
        places.append(start + codes[:, None] * block.k + np.arange(block.k))
        start += levels[-1].shape[1] * block.k
    columns = [np.empty((len(rows), 0)), *(blocks[term].columns[rows] for term in terms)]
    return Piece(
        family=problem.family,
        rows=rows,
        y=problem.y[rows],
        weights=problem.weights[rows],
        codes=np.repeat(np.arange(len(components)), [len(c) for c in components]),
        terms=terms,
        sizes=[blocks[term].k for term in terms],
        levels=levels,
        places=np.hstack(places),
        columns=np.hstack(columns),
    )


# ----------------------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class ManyModes:
    """Conditional modes at S points, of U components or parts.

    Attributes
    ----------
    u : ndarray, shape (S, U, q)
    eta : ndarray, shape (S, N), or (S, U, N) for parts
    expansion : Expansion
        Of all rows there.
    h : ndarray, shape (S, U)
        log f(y | u) - |u|^2 / 2: minus infinity where there are no modes.
    roots : ArrowCholesky
        Of the negative Hessians.
    """

    u: Array
    eta: Array
    expansion: Expansion
    h: Array
    roots: ArrowCholesky

    @cached_property
    def laplace(self) -> Array:
        """Laplace's approximation of log p(y | phi), shape (S, U)."""
        log_p = self.h - self.roots.half_log_det
        return np.where(np.isfinite(log_p), log_p, -np.inf)

    def tilts(self, search: Elementwise | Parts, z: Array) -> Array:
        """Return log ratios of the integrand to the normal approximation, shape (S, U).

        The mean of their exponentials is p(y | phi) over Laplace's approximation of it. Each is of
        two opposite draws, of which what is odd in z is gone.

        Parameters
        ----------
        search : Elementwise or Parts
            The one that found these modes.
        z : ndarray, shape (S, U, q)
            Standard normal numbers.
        """
        ends = [search.at(self.drawn(side))[3] for side in (z, -z)]
        ratios = np.logaddexp(*ends) - np.log(2) - self.h + 0.5 * (z**2).sum(axis=-1)
        return np.where(np.isfinite(ratios), ratios, np.nan)

    def drawn(self, z: Array) -> Array:
        """Return draws of u from the normal approximations, for standard normal z, (S, U, q)."""
        return np.asarray(self.u + self.roots.back(z[..., None])[..., 0])


type Place = tuple[Array, Array, Expansion, Array]  # u, eta, the expansion and h there


class _Search(ABC):
    """Newton's method for all points, and all components or parts, together."""

    piece: Piece
    points: Points
    psi: Array

    @abstractmethod
    def at(self, u: Array) -> Place:
        """Return where effects lead."""

    @abstractmethod
    def slopes(self, u: Array, score: Array) -> Array:
        """Return the derivatives by u, shape (S, U, q)."""

    @abstractmethod
    def roots(self, weights: Array) -> ArrowCholesky:
        """Return Cholesky factors of the negative Hessians."""

    def log_densities(self, modes: ManyModes, nodes: Rule | None) -> Array:  # noqa: ARG002
        """Return log p(y_R | phi) of every component or part, shape (S, U)."""
        return modes.laplace

    def rows(self, eta: Array) -> Expansion:
        """Return the expansion of all rows."""
        return self.piece.family.expansion(self.piece.y, eta, self.piece.weights, self.psi)

    def run(self, start: Array, near: float = MAX_DECREMENT) -> ManyModes:
        """Return the modes, from a start, or zero where that is nowhere.

        Parameters
        ----------
        start : ndarray, shape (S or 1, U, q)
        near : float
            The Newton decrement below which one more step is the last.
        """
        start = np.broadcast_to(start, (len(self.points.known), *start.shape[1:]))
        place = self.at(start)
        if not np.isfinite(place[3]).all():
            place = self.at(np.where(np.isfinite(place[3])[..., None], start, 0.0))
        good = np.isfinite(place[3])
        going = good & bool(self.piece.q)
        for _ in range(MAX_STEPS):
            if not going.any():
                break
            step, gain, observed = self.newton(place)
            good &= np.isfinite(gain) | ~going
            going &= np.isfinite(gain)
            is_last = observed & (gain < near)
            step = np.where(going[..., None], step, 0.0)
            place, moved = self.walked(place, step, np.where(is_last, 0.0, gain))
            good &= moved | (gain < MAX_HIDDEN_GAIN) | ~going
            going &= moved & ~is_last
        u, eta, expansion, h = place
        h = np.where(good & ~going, h, -np.inf)
        return ManyModes(u, eta, expansion, h, self.roots(expansion.weight))

    def newton(self, place: Place) -> tuple[Array, Array, Flags]:
        """Return full steps, their Newton decrements, and whether the weights were observed."""
        u, eta, expansion, _ = place
        roots = self.roots(expansion.weight)
        observed = roots.exist
        if not observed.all():
            expected = self.piece.family.information(eta, self.piece.weights, self.psi)
            roots = roots.where(observed, self.roots(expected))
        slopes = self.slopes(u, expansion.score)
        step = roots.back(roots.forward(slopes[..., None]))[..., 0]
        return step, (step * slopes).sum(-1), observed

    def walked(self, place: Place, step: Array, gain: Array) -> tuple[Place, Flags]:
        """Return where steps that are short enough lead, and for which there were such."""
        u, _, _, h = place
        share = np.ones(h.shape)
        rounding = np.maximum(MAX_DECREMENT, ROUNDING_OF_DENSITY * np.abs(h))
        for _ in range(MAX_HALVINGS):
            new = self.at(u + share[..., None] * step)
            bad = ~(new[3] >= h + ARMIJO * share * gain - rounding) & (step != 0).any(-1)
            if not bad.any():
                return new, ~bad
            share[bad] /= 2
        share[bad] = 0.0
        return self.at(u + share[..., None] * step), ~bad


class Elementwise(_Search):
    """The search for all effects of small components, each with a step length of its own."""

    def __init__(self, piece: Piece, points: Points) -> None:
        self.piece, self.points, self.psi = piece, points, points.psi.T[:, :, None]
        self.starts = np.flatnonzero(np.diff(piece.codes, prepend=-1))
        self.scaled = piece.wide @ _block_diagonal(piece, points)  # (S, N, q)

    def by_component(self, rows: Array) -> Array:
        """Return sums over the rows of each component: (S, N) to (S, P)."""
        return np.asarray(np.add.reduceat(rows, self.starts, axis=1))

    def at(self, u: Array) -> Place:
        eta = self.points.known + np.einsum("sna,sna->sn", self.scaled, u[:, self.piece.codes])
        expansion = self.rows(eta)
        h = self.by_component(expansion.value) - 0.5 * (u**2).sum(-1)
        return u, eta, expansion, np.where(np.isfinite(h), h, -np.inf)

    def slopes(self, u: Array, score: Array) -> Array:
        q = self.piece.q
        sums = [self.by_component(score * self.scaled[:, :, a]) for a in range(q)]
        return np.stack(sums, axis=-1) - u

    def roots(self, weights: Array) -> ArrowCholesky:
        q, scaled = self.piece.q, self.scaled
        H = np.empty((len(weights), self.piece.P, 1, q, q))
        for a in range(q):
            products = weights * scaled[:, :, a]
            for b in range(a + 1):
                H[:, :, 0, a, b] = self.by_component(products * scaled[:, :, b])
                H[:, :, 0, b, a] = H[:, :, 0, a, b]
            H[:, :, 0, a, a] += 1.0
        nothing = np.empty((*H.shape[:2], 0, 0))
        return ArrowCholesky(stack_cholesky_or_nan(H), np.empty((*H.shape[:3], q, 0)), nothing)

    def log_densities(self, modes: ManyModes, nodes: Rule | None) -> Array:
        if nodes is None or not self.piece.q:
            return modes.laplace
        total = np.zeros_like(modes.h)
        for share, _ in self.at_nodes(modes, nodes):
            total += share
        log_p = modes.h + np.log(total) - modes.roots.half_log_det
        return np.where(np.isfinite(log_p), log_p, -np.inf)

    def at_nodes(self, modes: ManyModes, nodes: Rule) -> Iterator[tuple[Array, Array]]:
        """Yield the share of each node, relative to the mode, and log f of the rows there."""
        C = np.linalg.inv(modes.roots.front[:, :, 0]).swapaxes(2, 3)
        steps = np.einsum("sna,snab->snb", self.scaled, C[:, self.piece.codes])
        for z, log_weight in zip(nodes.nodes, nodes.log_weights, strict=True):
            rows = self.rows(modes.eta + steps @ z).value
            h = self.by_component(rows) - 0.5 * ((modes.u + C @ z) ** 2).sum(-1)
            yield np.exp(h - modes.h + log_weight + z @ z / 2), rows


class Parts(_Search):
    """The search for all effects of parts of the rows of one large component."""

    def __init__(self, piece: Piece, points: Points, keep: Flags) -> None:
        self.piece, self.points, self.keep = piece, points, keep
        self.psi, self.Lambdas = points.psi.T[:, :, None, None], piece.factors(points)

    def at(self, u: Array) -> Place:
        eta = self.points.known[:, None]
        b = [effects.reshape(*u.shape[:2], -1) for effects in self.piece.effects(u, self.points)]
        every = np.concatenate(b, axis=-1)
        for place, column in zip(self.piece.places.T, self.piece.columns.T, strict=True):
            eta = eta + every[..., place] * column
        expansion = self.rows(eta)
        h = np.where(self.keep, expansion.value, 0.0).sum(-1) - 0.5 * (u**2).sum(-1)
        return u, eta, expansion, np.where(np.isfinite(h), h, -np.inf)

    def slopes(self, u: Array, score: Array) -> Array:
        sums = _applied(self.piece.sums, np.where(self.keep, score, 0.0))
        return self._scaled(sums[..., None, :], range(len(self.Lambdas)))[..., 0, :] - u

    def roots(self, weights: Array) -> ArrowCholesky:
        rows = np.where(self.keep, weights, 0.0)
        lead, k = rows.shape[:2], self.piece.sizes[0]
        r, later = self.piece.q - self.piece.slots[0].stop, range(1, len(self.Lambdas))
        A, B, D = (_applied(product, rows) for product in self.piece.products)
        front = A.reshape(*lead, -1, k, k)
        across = self._scaled(B.reshape(*lead, -1, r), later).reshape(*lead, -1, k, r)
        rest = self._scaled(D.reshape(*lead, r, r), later).swapaxes(2, 3)
        Lambda = self.Lambdas[0][:, None, None]
        turned = Lambda.swapaxes(3, 4)
        A = front * Lambda**2 if k == 1 else turned @ front @ Lambda
        B = across * Lambda if k == 1 else turned @ across
        return ArrowCholesky.of(A + np.eye(k), B, self._scaled(rest, later) + np.eye(r))

    def _scaled(self, matrices: Array, terms: range) -> Array:
        """Return matrices, shape (S, U, ., effects of some terms), times the terms' factors."""
        product, stop = np.empty_like(matrices), 0
        for term in terms:
            slot, k, Lambda = self.piece.slots[term], self.piece.sizes[term], self.Lambdas[term]
            start, stop = stop, stop + slot.stop - slot.start
            columns = matrices[..., start:stop]
            if k == 1:
                product[..., start:stop] = columns * Lambda[:, None]
            else:
                shape = (*columns.shape[:-1], -1, k)
                turned = columns.reshape(shape) @ Lambda[:, None, None]
                product[..., start:stop] = turned.reshape(columns.shape)
        return product

    def scaled_columns(self) -> Array:
        """Return Z Lambda, shape (S, N, q)."""
        wide = np.broadcast_to(self.piece.wide, (len(self.points.known), 1, *self.piece.wide.shape))
        return self._scaled(wide, range(len(self.Lambdas)))[:, 0]

    def bends(self, eta: Array) -> Array:
        """Return the third derivatives of log f, shape (S, U, N)."""
        piece = self.piece
        return -piece.family.further_expansion(piece.y, eta, piece.weights, self.psi).third


def _block_diagonal(piece: Piece, points: Points) -> Array:
    """Return the factor of all effects of a component, shape (S, q, q)."""
    Lambda, at = np.zeros((len(points.known), piece.q, piece.q)), 0
    for factor, k, levels in zip(piece.factors(points), piece.sizes, piece.levels, strict=True):
        for start in range(at, at + levels.shape[1] * k, k):
            at = start + k
            Lambda[:, start:at, start:at] = factor
    return Lambda


def _applied(matrix: sparse.csr_array, rows: Array) -> Array:
    """Return a matrix, shape (r, N), times vectors, shape (S, U, N): shape (S, U, r)."""
    sums = (matrix @ rows.reshape(-1, rows.shape[-1]).T).T
    return np.ascontiguousarray(sums).reshape(*rows.shape[:-1], -1)
