"""The cross-products Z'WZ of random effects for any row weights W: linear maps of the weights.

A generalised model needs them anew at every step of its iterations. Which rows add to which
element does not change, so that each block is one sparse matrix times the vector of weights. The
blocks are those of `linear.crossproducts`, and the engine of the linear model takes them as they
are. Weights may be negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Covariance
from ranef.design.groups import chain_of, transposed
from ranef.likelihood.linear.blocked_cholesky import Selected
from ranef.likelihood.linear.crossed_rows import CrossedRows
from ranef.likelihood.linear.crossproducts import ChainFactor, CrossProducts
from ranef.numerics.matrices import scattered, spans


@dataclass(frozen=True, eq=False)
class TermColumns:
    """The columns of one random-effects term: shape (n, k), and the level of each row."""

    codes: Codes
    columns: Array
    n_levels: int
    covariance: Covariance

    @property
    def k(self) -> int:
        """The number of coefficients."""
        return int(self.columns.shape[1])

    @cached_property
    def indicator(self) -> sparse.csr_array:
        """The sums over the rows of each level, shape (m, n)."""
        return transposed(self.codes, np.ones((len(self.codes), 1)), self.n_levels)

    @property
    def places(self) -> Codes:
        """The places of each row's effects in a vector of all effects of the term, shape (n, k)."""
        return np.asarray(self.codes[:, None] * self.k + np.arange(self.k), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps from weights to the blocks of one term of the chain, flattened.

    Attributes
    ----------
    front : sparse array, shape (m k f, n)
    crossed : sparse array, shape (m k q, n)
    wide : ndarray, shape (n, f)
        The term's columns and those of the later terms of the chain.
    parent : ndarray of int, shape (m,), or None
    """

    front: sparse.csr_array
    crossed: sparse.csr_array
    wide: Array
    parent: Codes | None


@dataclass(frozen=True, eq=False)
class Weighted:
    """The columns Z as maps from weights to cross-products and from effects to residuals.

    Attributes
    ----------
    blocks : tuple of Block
        In the design's order.
    transposes : tuple of sparse array, shape (m k, n)
        Z' of each term.
    chain : tuple of int
        Which terms form the chain of nested factors.
    maps : tuple of Maps
        Of the terms of the chain.
    others : tuple of (int, slice)
        The terms in the rest, and the places of their effects there.
    rest : sparse array, shape (q q, n)
    rest_places : ndarray, shape (n, sum of k)
        The places of each row's effects in the rest.
    rest_columns : ndarray, shape (n, sum of k)
    """

    blocks: tuple[TermColumns, ...]
    transposes: tuple[sparse.csr_array, ...]
    chain: tuple[int, ...]
    maps: tuple[Maps, ...]
    others: tuple[tuple[int, slice], ...]
    rest: sparse.csr_array
    rest_places: Codes
    rest_columns: Array

    @property
    def q_rest(self) -> int:
        """The number of random effects in the rest."""
        return self.others[-1][1].stop if self.others else 0

    def cross(self, weights: Array, fixed: Array) -> CrossProducts:
        """Return the cross-products of [Z fixed 0] in the metric of the weights.

        Parameters
        ----------
        weights : ndarray, shape (n,)
        fixed : ndarray, shape (n, p)
        """
        n, p = fixed.shape
        q = self.q_rest
        right = np.column_stack([fixed * weights[:, None], np.zeros(n)])
        across = [self.transposes[term] @ right for term, _ in self.others]
        own = np.zeros((p + 1, p + 1))
        own[:-1, :-1] = fixed.T @ right[:, :-1]
        return CrossProducts(
            n=n,
            p=p,
            log_weights=0.0,
            covariances=tuple(block.covariance for block in self.blocks),
            n_levels=tuple(block.n_levels for block in self.blocks),
            chain=tuple(
                self._link(term, maps, weights, right)
                for term, maps in zip(self.chain, self.maps, strict=True)
            ),
            inner=(self.rest @ weights).reshape(q, q),
            fixed=np.vstack([*across, own]),
            rest_terms=self.others,
            bases=tuple(np.eye(block.k) for block in self.blocks),
            R=np.eye(p),
            beta_ols=np.zeros(p),
        )

    def sums(self, rows: Array) -> list[Array]:
        """Return Z' times a vector, shape (n,), term by term: shape (m, k)."""
        terms = zip(self.transposes, self.blocks, strict=True)
        return [np.asarray(Zt @ rows).reshape(block.n_levels, block.k) for Zt, block in terms]

    def fitted(self, b: Sequence[Array]) -> Array:
        """Return Z b, shape (n,), for effects of shape (m, k) in the basis of the columns."""
        total = np.zeros(self.rest_places.shape[0])
        for block, effects in zip(self.blocks, b, strict=True):
            for j in range(block.k):
                total += effects[block.codes, j] * block.columns[:, j]
        return total

    def leverages(self, selected: Selected) -> Array:
        """Return z_i' G z_i for every row, shape (n,), G as in `Selected`."""
        x, places = self.rest_columns, self.rest_places
        d = np.einsum("na,nab,nb->n", x, selected.rest[places[:, :, None], places[:, None, :]], x)
        for term, maps, (front, crossed) in zip(self.chain, self.maps, selected.chain, strict=True):
            block = self.blocks[term]
            wide = 2 * maps.wide
            wide[:, : block.k] /= 2
            d += np.einsum("na,nab,nb->n", block.columns, front[block.codes], wide)
            if places.shape[1]:
                of_rows = crossed[block.codes[:, None], :, places]
                d += 2 * np.einsum("nba,na,nb->n", of_rows, block.columns, x)
        return np.asarray(d)

    def _link(self, term: int, maps: Maps, weights: Array, right: Array) -> ChainFactor:
        block = self.blocks[term]
        m, k = block.n_levels, block.k
        wide = (maps.front @ weights).reshape(m, k, -1)
        crossed = (maps.crossed @ weights).reshape(m * k, self.q_rest)
        rest = CrossedRows(crossed, self.transposes[term] @ right, k)
        return ChainFactor.of(term, wide, rest, maps.parent)


def weighted(blocks: Sequence[TermColumns], n: int) -> Weighted:
    """Return the maps from weights of n rows to cross-products."""
    chain, others = chain_of(blocks)
    slots = spans(blocks[j].n_levels * blocks[j].k for j in others)
    q = slots[-1].stop if slots else 0
    places = [blocks[j].places + slot.start for j, slot in zip(others, slots, strict=True)]
    rest_places = np.column_stack([np.empty((n, 0), dtype=np.int64), *places])
    rest_columns = np.column_stack([np.empty((n, 0)), *(blocks[j].columns for j in others)])
    rest_rows = rest_places[:, :, None] * q + rest_places[:, None, :]
    return Weighted(
        blocks=tuple(blocks),
        transposes=tuple(transposed(b.codes, b.columns, b.n_levels) for b in blocks),
        chain=tuple(chain),
        maps=tuple(
            _maps(blocks, chain[i:], rest_places, rest_columns, q) for i in range(len(chain))
        ),
        others=tuple(zip(others, slots, strict=True)),
        rest=product_map(rest_rows, rest_columns, rest_columns, q * q),
        rest_places=rest_places,
        rest_columns=rest_columns,
    )


def _maps(
    blocks: Sequence[TermColumns], chain: list[int], places: Codes, columns: Array, q: int
) -> Maps:
    block, *later = [blocks[i] for i in chain]
    wide = np.column_stack([blocks[i].columns for i in chain])
    f, size = wide.shape[1], block.n_levels * block.k
    parent = None
    if later:
        parent = np.empty(block.n_levels, dtype=np.int64)
        parent[block.codes] = later[0].codes
    rows = block.places[:, :, None]
    return Maps(
        front=product_map(rows * f + np.arange(f), block.columns, wide, size * f),
        crossed=product_map(rows * q + places[:, None, :], block.columns, columns, size * q),
        wide=wide,
        parent=parent,
    )


def product_map(rows: Codes, left: Array, right: Array, size: int) -> sparse.csr_array:
    """Return the map to sums of products of two columns, which go to `rows`, shape (n, a, b)."""
    products = left[:, :, None] * right[:, None, :]
    return scattered(rows.reshape(len(rows), -1), products.reshape(len(rows), -1), size)
