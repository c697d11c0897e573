"""Levels with equal designs rotated, so that many responses need fewer of them.

As in `ranef.likelihood.linear.equal_levels`, but y is not known yet. Of n levels with the same D
and the same products with other random effects, the rotation begins with an orthonormal basis W of
the ones and of the products that differ: the r levels W'C have all of C. What a response has
besides W'y is known by its K x K cross-products: K more levels, for which C is zero. The others
count in the log determinant only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Codes, Flags, Places
from ranef.design.groups import ranks_within
from ranef.likelihood.linear.equal_levels import ROUNDING, alike


@dataclass(frozen=True, eq=False)
class Batch:
    """T kinds of levels, of about the same number.

    Attributes
    ----------
    levels : ndarray of int, shape (T, P)
    exists : ndarray of bool, shape (T, P)
        Whether a kind has so many levels; any others are zero.
    W : ndarray, shape (T, P, r)
        With orthonormal columns.
    """

    levels: Places
    exists: Flags
    W: Array

    def turned(self, x: Array) -> tuple[Array, Array]:
        """Return W'x, shape (..., T, r, K), and x - WW'x, (..., T, P, K), of (..., m, K)."""
        of_kinds = x[..., self.levels, :] * self.exists[..., None]
        inside = self.W.swapaxes(1, 2) @ of_kinds
        return inside, of_kinds - self.W @ inside


@dataclass(frozen=True, eq=False)
class Rotation:
    """Fewer levels of a factor, with the same density of all responses.

    Attributes
    ----------
    D : ndarray, shape (m', K, K)
        Cross-products within each new level.
    C : ndarray, shape (m', K, w)
        And with all other columns.
    counts : ndarray, shape (m',)
        For how many levels one stands in the log determinant.
    kept : ndarray of int
        The levels that stay as they are: the first new ones.
    batches : list of Batch
        The others.
    """

    D: Array
    C: Array
    counts: Array
    kept: Places
    batches: list[Batch]

    def sums(self, c: Array) -> Array:
        """Return the products of the new levels with responses, (B, m', K), from (B, m, K)."""
        parts, flat = [c[:, self.kept]], (len(c), -1, c.shape[2])
        for batch in self.batches:
            inside, left = batch.turned(c)
            parts += [inside.reshape(flat), np.linalg.qr(left, mode="r").reshape(flat)]
        return np.concatenate(parts, axis=1)


def rotation(D: Array, C: Array, q: int) -> Rotation:
    """Rotate levels with equal designs, where that leaves fewer of them.

    Parameters
    ----------
    D : ndarray, shape (m, K, K)
    C : ndarray, shape (m, K, w)
    q : int
        The number of columns of C that belong to other random effects.
    """
    m, K = C.shape[:2]
    kind = alike(np.concatenate([D.reshape(m, K * K), C[:, :, :q].reshape(m, K * q)], axis=1))
    first, n = np.unique(kind, return_index=True, return_counts=True)[1:]
    varies = (np.abs(C - C[first[kind]]) > ROUNDING * np.abs(C).max(axis=0, initial=0)).any(axis=0)
    r = 1 + int(varies.sum())
    chosen = np.where(n > r + K, np.frexp(n)[1], 0)  # the batch of each kind
    kept, batches = np.flatnonzero(chosen[kind] == 0), []
    new = [(D[kept], C[kept], np.ones(len(kept)))]
    for batch in np.setdiff1d(chosen, 0):
        kinds = np.flatnonzero(chosen == batch)
        batches.append(_batch(kind, kinds, C[:, varies]))
        turned = np.moveaxis(batches[-1].turned(np.moveaxis(C, 2, 0))[0], 0, -1)
        with_y = np.zeros((len(kinds), K, *C.shape[1:]))
        counts = np.ones((len(kinds), r + K))
        counts[:, 0] = n[kinds] - (r + K - 1)
        for products, part in ((turned, counts[:, :r]), (with_y, counts[:, r:])):
            of_kind = np.repeat(D[first[kinds]], part.shape[1], axis=0)
            new.append((of_kind, products.reshape(len(of_kind), *C.shape[1:]), part.ravel()))
    every = [np.concatenate(part) for part in zip(*new, strict=True)]
    return Rotation(every[0], every[1], every[2], kept, batches)


def _batch(kind: Codes, kinds: Codes, differing: Array) -> Batch:
    """Return the levels of some kinds with W, from the products that differ, shape (m, c)."""
    places = np.flatnonzero(np.isin(kind, kinds))
    row, column = np.searchsorted(kinds, kind[places]), ranks_within(kind[places])
    levels = np.zeros((len(kinds), int(column.max()) + 1), dtype=np.intp)
    exists = np.zeros(levels.shape, dtype=bool)
    levels[row, column], exists[row, column] = places, True
    ones = np.ones((len(differing), 1))
    basis = np.column_stack([ones, differing])[levels] * exists[:, :, None]
    return Batch(levels, exists, np.linalg.qr(basis).Q)
