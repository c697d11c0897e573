"""Cross-products of the random effects' columns by level and by pairs of levels.

All that a Gaussian model needs of the rows of its random terms: products among the columns of a
term, level by level; with the fixed columns and the response; and with the columns of another term,
for each pair of levels that meet in some row. Of crossed factors these are fewer than the
combinations of levels of all factors together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Codes
from ranef.numerics.matrices import ReadOnly


@dataclass(frozen=True, eq=False)
class PairTable(ReadOnly):
    """The pairs of levels of two terms that meet in some row, with their cross-products.

    Attributes
    ----------
    first, second : ndarray of int, shape (P,)
        The levels of the first and of the second term.
    products : ndarray, shape (P, k, k')
        Of the columns of the first with those of the second.
    """

    first: Codes
    second: Codes
    products: Array

    def of_bases(self, first: Array, second: Array) -> PairTable:
        """Return the products of columns that are these times matrices."""
        return PairTable(self.first, self.second, first.T @ self.products @ second)

    @property
    def turned(self) -> PairTable:
        """The table with the second term first."""
        return PairTable(self.second, self.first, self.products.mT)


@dataclass(frozen=True, eq=False)
class PairSums:
    """Cross-products by level and by pairs of levels, in a basis of the columns of each term.

    Attributes
    ----------
    own : tuple of ndarray, shape (m, k, k)
        Products among the basis columns of each term, level by level.
    fixed : tuple of ndarray, shape (m, k, f)
        Products with orthonormal columns, of which the fixed columns, offset and response are
        combinations: the first f rows of a design have the coefficients.
    changes : tuple of ndarray, shape (k, k)
        The columns of a term are those of its basis times it.
    pairs : mapping of (int, int) to PairTable
        By the numbers of two terms, the smaller first.
    """

    own: tuple[Array, ...]
    fixed: tuple[Array, ...]
    changes: tuple[Array, ...]
    pairs: Mapping[tuple[int, int], PairTable]

    def reordered(self, order: list[int]) -> PairSums:
        """Return the sums of the same terms in another order."""
        numbered = {
            (i, j): self.table(order[i], order[j]) for j in range(len(order)) for i in range(j)
        }
        own, fixed, changes = (
            tuple(arrays[t] for t in order) for arrays in (self.own, self.fixed, self.changes)
        )
        return PairSums(own, fixed, changes, numbered)

    def table(self, one: int, other: int) -> PairTable:
        """Return the pairs of levels of two terms, those of the first named first."""
        found = self.pairs.get((one, other))
        return self.pairs[other, one].turned if found is None else found

    def of_bases(self, bases: tuple[Array, ...]) -> PairSums:
        """Return the sums of columns that are the terms' own times the inverse of matrices."""
        turns = [c @ np.linalg.inv(T) for c, T in zip(self.changes, bases, strict=True)]
        return PairSums(
            own=tuple(t.T @ D @ t for t, D in zip(turns, self.own, strict=True)),
            fixed=tuple(t.T @ F for t, F in zip(turns, self.fixed, strict=True)),
            changes=bases,
            pairs={(i, j): p.of_bases(turns[i], turns[j]) for (i, j), p in self.pairs.items()},
        )
