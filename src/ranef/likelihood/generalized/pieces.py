"""Pieces of the data that are independent given the parameters, for many points at once.

Rows that share no level, not even through other rows, are independent given the parameters: such
rows are a component of the data. A `Piece` is one component, or several that have the same numbers
of levels. Small ones are handled elementwise, and so are the levels of a single factor; a large one
as a whole, its most numerous effects first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Places
from ranef.design.groups import row_components
from ranef.families.family import Family
from ranef.likelihood.generalized.pirls import Problem
from ranef.likelihood.generalized.weighted_crossproducts import product_map
from ranef.numerics.matrices import chunks, scattered, spans

CHUNK = 40_000  # numbers of an array of rows: such stay in the processor's cache
HELD = 100_000  # numbers of an array of matrices
MOST_ELEMENTWISE = 8  # effects of a component up to which it is handled elementwise
MAX_ELEMENTS_TOGETHER = 15_000  # of a point's matrices, up to which many points go together


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
    y : ndarray, shape (S, N), optional
        Responses, where each point has its own.
    of_responses : ndarray, shape (S, N), optional
        The part of the log density that is of these alone, where they are means of others.
    """

    known: Array
    Lambdas: Sequence[Array]
    psi: Array
    y: Array | None = None
    of_responses: Array | None = None


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
    constant : ndarray, shape (N,) or ()
        The part of the rows' log density that is of the responses alone.
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
    constant: Array

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
        return spans(counts)

    @cached_property
    def starts(self) -> Places:
        """The first row of each component, shape (P,)."""
        return np.flatnonzero(np.diff(self.codes, prepend=-1))

    @cached_property
    def own_places(self) -> Places:
        """Where the effects of each row are among those of all components, shape (K, N)."""
        return np.ascontiguousarray((self.codes[:, None] * self.q + self.places).T)

    @cached_property
    def column_products(self) -> list[tuple[int, int, Array]]:
        """Pairs of the q effects that share rows, the second not after the first.

        Each with the product of their columns, shape (N,).
        """
        pairs = ((a, b) for a in range(self.q) for b in range(a + 1))
        products = [(a, b, self.wide[:, a] * self.wide[:, b]) for a, b in pairs]
        return [(a, b, product) for a, b, product in products if product.any()]

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

    @cached_property
    def pattern(self) -> list[tuple[Places, Array]]:
        """The pairs of effects of a row of one component, in a matrix of its effects.

        Of each pair its places, shape (N,), in the blocks one after the other that `products` has,
        and the product of the columns, twice for two different ones.
        """
        k, m = self.sizes[0], self.slots[0].stop
        r, pairs = self.q - m, []
        for a, x in enumerate(self.places.T):
            for b, z in enumerate(self.places.T[: a + 1]):
                if a < k:
                    places = x * k + b
                elif b < k:
                    places = m * k + z * r + x - m
                else:
                    places = m * k + m * r + (x - m) * r + z - m
                product = self.columns[:, a] * self.columns[:, b]
                pairs.append((places, product * (1 + (a != b))))
        return pairs

    def diagonal_sums(self, matrix: Array, first: int = 0) -> list[Array]:
        """Return the sums over levels of the blocks on the diagonal, of terms from one on.

        Parameters
        ----------
        matrix : ndarray, shape (S, effects of these terms, the same)
        first : int

        Returns
        -------
        list of ndarray, shape (S, k, k)
        """
        sums, at = [], 0
        for slot, k in list(zip(self.slots, self.sizes, strict=True))[first:]:
            start, at = at, at + slot.stop - slot.start
            block = matrix[:, start:at, start:at].reshape(len(matrix), -1, k, (at - start) // k, k)
            sums.append(np.einsum("slalb->sab", block))
        return sums

    def outer(self, sums: Array, u: Array) -> list[Array]:
        """Return the sum over levels of s_l u_l' of each term, shape (S, k, k)."""
        products = []
        for slot, k in zip(self.slots, self.sizes, strict=True):
            left, right = (x[..., slot].reshape(len(x), -1, k) for x in (sums, u))
            products.append(left.swapaxes(1, 2) @ right)
        return products

    def weight(self, parts: int = 1) -> int:
        """Return how many numbers the arrays of a point have, for so many parts of the rows."""
        if self.is_elementwise:
            return len(self.rows) * max(self.q, 1) * (HELD // CHUNK)
        m = self.slots[0].stop
        return parts * max(len(self.rows), self.q * (self.q - m), m * self.sizes[0])

    def chunks(self, points: int, parts: int = 1) -> Iterator[slice]:
        """Yield slices of points, of a size that fits into memory."""
        return chunks(points, max(1, HELD // max(self.weight(parts), 1)))

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
        constant=problem.constant[rows] if problem.constant.ndim else problem.constant,
    )


def pieces_of(problem: Problem, *, by_level: bool) -> list[Piece]:
    """Return the independent components of the data, alike ones together.

    Parameters
    ----------
    problem : Problem
    by_level : bool
        Whether components are the levels of a single factor, which go together however many
        effects they have.
    """
    everything = np.arange(len(problem.y))
    if not problem.Z.blocks:
        return [piece_of(problem, [everything])]
    alike: dict[tuple[int, ...], list[Places]] = {}
    for rows in components_of_rows(problem, everything):
        counts = numbers_of_levels(problem, rows)
        few = by_level or number_of_effects(problem, rows) <= MOST_ELEMENTWISE
        alike.setdefault(counts if few else (*counts, int(rows[0])), []).append(rows)
    return [piece_of(problem, components) for components in alike.values()]


def go_together(pieces: Sequence[Piece]) -> bool:
    """Whether pieces have so few effects that many points go together sooner than one by one."""
    large = sum(piece.weight() for piece in pieces if not piece.is_elementwise)
    return large <= MAX_ELEMENTS_TOGETHER
