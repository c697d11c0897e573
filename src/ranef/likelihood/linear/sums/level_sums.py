"""Cross-products of a design's random columns by level, and by pairs of levels of two terms.

Two sources give the same: rows, whose columns are multiplied as sparse matrices, and tables that
were added up where the rows are. The columns are those in the basis of each term.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg, sparse

from ranef._typing import Array, Codes
from ranef.design.groups import transposed
from ranef.design.rows.pair_sums import PairSums
from ranef.design.rows.rows import Rows, TermRows
from ranef.numerics.matrices import threads_for


class LevelSums(ABC):
    """Sums of products by level."""

    @abstractmethod
    def own(self, i: int) -> Array:
        """Return the products among the columns of a term, shape (m, k, k)."""

    @abstractmethod
    def fixed(self, i: int) -> Array:
        """Return the products with the fixed columns and the response, shape (m k, p + 1)."""

    @abstractmethod
    def crossed(self, i: int, j: int) -> sparse.csr_array:
        """Return the products with the columns of another term, shape (m k, m' k')."""

    @abstractmethod
    def nested(self, i: int, j: int) -> tuple[Codes, Array]:
        """Return the level of a term that each of another is in, and its products, (m, k, k')."""

    def among(self, terms: Sequence[int]) -> sparse.csr_array:
        """Return the products among the columns of several terms, a sparse matrix."""
        blocks = [[self._block(i, j) for j in terms] for i in terms]
        return sparse.csr_array(sparse.block_array(blocks))

    def _block(self, i: int, j: int) -> sparse.csr_array:
        if i == j:
            D = self.own(i)
            m, k = D.shape[:2]
            place = np.arange(m)
            return _scattered(place, place, D, (m * k, m * k))
        return self.crossed(i, j) if i < j else sparse.csr_array(self.crossed(j, i).T)


def level_sums(rows: Rows, bases: Sequence[Array], fixed: Array) -> LevelSums:
    """Return the sums of a design.

    Parameters
    ----------
    rows : Rows
    bases : sequence of ndarray, shape (k, k)
        The columns of a term, times the roots of the weights, are those summed times it.
    fixed : ndarray, shape (n, p + 1)
        The fixed columns and the response, row by row.
    """
    if rows.condensed is None or rows.condensed.pairs is None:
        root = np.sqrt(rows.weights)[:, None]
        with threads_for(0):
            columns = [
                linalg.solve_triangular(T, (term.columns * root).T, trans="T").T
                for term, T in zip(rows.terms, bases, strict=True)
            ]
        return _OfRows(rows.terms, columns, fixed)
    return _OfPairs(rows.condensed.pairs.of_bases(tuple(bases)), fixed)


@dataclass(frozen=True, eq=False)
class _OfRows(LevelSums):
    terms: Sequence[TermRows]
    columns: list[Array]
    right: Array

    @cached_property
    def turned(self) -> list[sparse.csr_array]:
        """Z' of each term."""
        return [
            transposed(term.codes, Z, term.n_levels)
            for term, Z in zip(self.terms, self.columns, strict=True)
        ]

    def own(self, i: int) -> Array:
        return self._by_level(i, i)

    def fixed(self, i: int) -> Array:
        return np.asarray(self.turned[i] @ self.right)

    def crossed(self, i: int, j: int) -> sparse.csr_array:
        return sparse.csr_array(self.turned[i] @ self.turned[j].T)

    def nested(self, i: int, j: int) -> tuple[Codes, Array]:
        parent = np.empty(self.terms[i].n_levels, dtype=np.int64)
        parent[self.terms[i].codes] = self.terms[j].codes
        return parent, self._by_level(i, j)

    def _by_level(self, i: int, j: int) -> Array:
        found = self.turned[i] @ self.columns[j]
        return np.asarray(found).reshape(self.terms[i].n_levels, self.terms[i].n_coefs, -1)


@dataclass(frozen=True, eq=False)
class _OfPairs(LevelSums):
    sums: PairSums
    right: Array

    def own(self, i: int) -> Array:
        return self.sums.own[i]

    def fixed(self, i: int) -> Array:
        F = self.sums.fixed[i]
        return F.reshape(-1, F.shape[2]) @ self.right[: F.shape[2]]

    def crossed(self, i: int, j: int) -> sparse.csr_array:
        table, (m, k), (n, h) = self.sums.table(i, j), self._shape(i), self._shape(j)
        return _scattered(table.first, table.second, table.products, (m * k, n * h))

    def nested(self, i: int, j: int) -> tuple[Codes, Array]:
        table, (m, k), (_, h) = self.sums.table(i, j), self._shape(i), self._shape(j)
        parent, products = np.empty(m, dtype=np.int64), np.empty((m, k, h))
        parent[table.first], products[table.first] = table.second, table.products
        return parent, products

    def _shape(self, i: int) -> tuple[int, int]:
        m, k = self.sums.own[i].shape[:2]
        return m, k


def _scattered(
    first: Codes, second: Codes, products: Array, shape: tuple[int, int]
) -> sparse.csr_array:
    """Return blocks, shape (P, k, k'), at the places of their levels in a sparse matrix."""
    _, k, h = products.shape
    row = np.broadcast_to((first[:, None] * k + np.arange(k))[:, :, None], products.shape)
    column = np.broadcast_to((second[:, None] * h + np.arange(h))[:, None, :], products.shape)
    places = row.ravel(), column.ravel()
    return sparse.csr_array(sparse.coo_array((products.ravel(), places), shape=shape))
