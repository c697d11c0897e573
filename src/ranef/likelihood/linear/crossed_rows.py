"""The rows of a chain's factor in the columns of the crossed factors, of X and of y.

A level has k rows, C_l, and few of their elements are not zero where factors are crossed. Two
products with them cost all the time that an elimination takes: the sum over levels of C_l' Y_l C_l,
and C_l A C_l' of every level. The products of any two elements of a level are computed once, as
the columns of a sparse matrix, where that is cheaper than the dense products and fits into memory;
otherwise chunks of levels become dense, and each chunk is one product of matrices.

Symmetric matrices are lower triangles in Fortran's order, which BLAS and LAPACK change in place.
What stands above the diagonal is arbitrary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import blas

from ranef._typing import Array, Codes
from ranef.design.groups import CROSSED_COPIES
from ranef.numerics.matrices import chunks
from ranef.numerics.memory import BYTES, available

CHUNK = 4_000_000  # elements of the arrays that are made of a part of the levels at a time
COST_OF_A_PAIR = 300  # over that of a multiplication and addition within a dense product
DENSE_PASSES = 1.5  # multiplications of an element by a whole row: half of Y's product, all of A's
PAIR_SIZE = 1.5  # numbers that a stored pair fills: its value, and its place in half a number


@dataclass(frozen=True, eq=False)
class CrossedRows:
    """C: the cross-products of a factor's levels with the rest.

    Attributes
    ----------
    rows : ndarray or sparse array, shape (m k, q)
        With the random effects of the rest.
    fixed : ndarray, shape (m k, p + 1)
        With X and y.
    k : int
        Rows of a level.
    pairs : sparse array, shape (q q, m k (k + 1) / 2), or None
        The linear map from symmetric k x k matrices Y_l, one a level, to the lower triangle of
        the sum of C_l' Y_l C_l; its transpose gives the C_l A C_l'.
    """

    rows: Array | sparse.csr_array
    fixed: Array
    k: int
    pairs: sparse.csc_array | None = None

    @staticmethod
    def split(C: Array, q: int) -> CrossedRows:
        """Return the rows of a dense array, shape (m, k, w), whose first q columns are effects."""
        flat = C.reshape(-1, C.shape[2])
        return CrossedRows(flat[:, :q], flat[:, q:], C.shape[1])

    @property
    def q(self) -> int:
        """The number of random effects in the rest."""
        return int(self.rows.shape[1])

    @property
    def is_dense(self) -> bool:
        """Whether the rows are an array, and not sparse."""
        return isinstance(self.rows, np.ndarray)

    def dense(self) -> Array:
        """Return C as an array, shape (m, k, w)."""
        rows = self.rows if isinstance(self.rows, np.ndarray) else self.rows.toarray()
        return np.hstack([rows, self.fixed]).reshape(-1, self.k, self.q + self.fixed.shape[1])

    def times(self, x: Array) -> Array:
        """Return C x for x of shape (w, ...): shape (m, k, ...)."""
        product = self.fixed @ x[self.q :]
        if self.q:
            product = product + self.rows @ x[: self.q]
        return np.asarray(product).reshape(-1, self.k, *x.shape[1:])

    def sums(self, x: Array) -> Array:
        """Return the sum over levels of C_l' x_l for x of shape (m, k, ...): shape (w, ...)."""
        flat = x.reshape(-1, *x.shape[2:])
        return np.concatenate([self.rows.T @ flat, self.fixed.T @ flat])

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """Yield parts of the levels, and their rows as a dense array, shape (levels, k, q)."""
        k, m = self.k, self.rows.shape[0] // self.k
        step = max(1, CHUNK // max(1, k * self.q))
        for levels in chunks(m, step):
            rows = self.rows[levels.start * k : levels.stop * k]
            flat = rows if isinstance(rows, np.ndarray) else rows.toarray()
            yield levels, flat.reshape(levels.stop - levels.start, k, self.q)

    def less_sandwich(self, S: Array | None, Y: Array, V: Array) -> Array:
        """Return S less the sum over levels of C_l' Y_l C_l, in the place of S, shape (q, q).

        Parameters
        ----------
        S : ndarray, shape (q, q), or None
            A lower triangle; None for zero.
        Y : ndarray, shape (m, k, k)
            V'V.
        V : ndarray, shape (m, k, k)
        """
        if self.pairs is not None:
            flat = self.pairs @ -Y[:, *np.tril_indices(self.k)].ravel()
            of_pairs = flat.reshape(self.q, self.q, order="F")
            return of_pairs if S is None else np.add(S, of_pairs, out=S)
        if S is None:
            S = np.zeros((self.q, self.q), order="F")
        if self.q:
            for levels, rows in self.chunks():
                VC = (V[levels] @ rows if self.k > 1 else V[levels] * rows).reshape(-1, self.q)
                S = blas.dsyrk(-1.0, VC.T, beta=1.0, c=S, lower=1, overwrite_c=1)
        return S

    def fixed_sandwich(self, V: Array) -> Array:
        """Return the columns of X and y of the sum of (V_l C_l)' V_l C_l, shape (w, p + 1)."""
        c = self.fixed.shape[1]
        VF = V @ self.fixed.reshape(-1, self.k, c)
        own = VF.reshape(-1, c).T @ VF.reshape(-1, c)
        return np.vstack([self.rows.T @ (V.mT @ VF).reshape(-1, c), own]) if self.q else own

    def quadratic(self, A: Array) -> Array:
        """Return C_l A C_l' of the random effects for every level, shape (m, k, k).

        Parameters
        ----------
        A : ndarray, shape (q, q)
            A lower triangle.
        """
        products = np.zeros((self.rows.shape[0] // self.k, self.k, self.k))
        if self.pairs is not None:
            a, b = np.tril_indices(self.k)
            place = np.diag_indices(self.q)
            diagonal = A[place]
            A[place] /= 2.0
            elements = (self.pairs.T @ A.ravel(order="F")).reshape(-1, len(a))
            A[place] = diagonal
            products[:, a, b] = products[:, b, a] = elements * np.where(a == b, 2.0, 1.0)
        elif self.q:
            for levels, rows, CA in self.products(A):
                products[levels] = np.einsum("laq,lbq->lab", rows, CA)
        return products

    def products(self, A: Array) -> Iterator[tuple[slice, Array, Array]]:
        """Yield parts of the levels, their rows and C_l A for a lower triangle A: (m, k, q)."""
        for levels, rows in self.chunks():
            flat = rows.reshape(len(rows) * self.k, self.q)
            CA = blas.dsymm(1.0, A, flat.T, lower=1).T if self.q else flat
            yield levels, rows, CA.reshape(rows.shape)

    def beside(self, x: Array, which: Codes) -> Array:
        """Return C_l x' with an x of shape (f, w) for every level: shape (m, k, f).

        Parameters
        ----------
        x : ndarray, shape (m', f, w)
        which : ndarray of int, shape (m,)
            The matrix of each level.
        """
        m, f = len(which), x.shape[1]
        product = self.fixed.reshape(m, self.k, -1) @ x[which, :, self.q :].mT
        if isinstance(self.rows, np.ndarray):
            for levels, rows in self.chunks():
                product[levels] += rows @ x[which[levels], :, : self.q].mT
            return np.asarray(product)
        elements = self.rows.tocoo()
        of_rows, step = product.reshape(-1, f), max(1, CHUNK // f)
        for part in chunks(elements.nnz, step):
            row = elements.row[part]
            terms = elements.data[part, None] * x[which[row // self.k], :, elements.col[part]]
            for j in range(f):
                of_rows[:, j] += np.bincount(row, terms[:, j], minlength=len(of_rows))
        return of_rows.reshape(m, self.k, f)

    def summed(self, parent: Codes, YB: Array) -> Array:
        """Return the sum of (Y B)_l' C_l over the children of each level, shape (m', f, w).

        Parameters
        ----------
        parent : ndarray of int, shape (m,)
        YB : ndarray, shape (m, k, f)
        """
        m, k, f = YB.shape
        rows = np.broadcast_to((parent[:, None] * f + np.arange(f))[:, None], YB.shape)
        columns = np.broadcast_to(np.arange(m * k).reshape(m, k, 1), YB.shape)
        shape = ((int(parent.max()) + 1) * f, m * k)
        weights = sparse.csr_array((YB.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
        product = weights @ self.rows
        inner = product if isinstance(product, np.ndarray) else product.toarray()
        return np.hstack([inner, weights @ self.fixed]).reshape(-1, f, self.q + self.fixed.shape[1])


def crossed_rows(crossed: sparse.csr_array, fixed: Array, k: int) -> CrossedRows:
    """Return sparse rows, with the products of their elements where these pay.

    Parameters
    ----------
    crossed : sparse array, shape (m k, q)
    fixed : ndarray, shape (m k, p + 1)
    k : int
    """
    n_pairs, square = count_pairs(crossed, k), float(crossed.shape[1]) ** 2
    pays = COST_OF_A_PAIR * n_pairs < DENSE_PASSES * crossed.shape[0] * square
    pays = pays and BYTES * (PAIR_SIZE * n_pairs + CROSSED_COPIES * square) < available()
    return CrossedRows(crossed, fixed, k, pair_products(crossed, k) if pays else None)


def count_pairs(C: sparse.csr_array, k: int) -> int:
    """Return the number of products that `pair_products` keeps."""
    lengths = np.diff(C.tobsr((k, 1)).indptr).astype(np.int64)
    return int((lengths * (lengths + 1) // 2).sum()) * (k * (k + 1) // 2)


def pair_products(C: sparse.csr_array, k: int) -> sparse.csc_array:
    """Return `CrossedRows.pairs`: products of any two elements of a level's rows."""
    blocks, q = C.tobsr((k, 1)), C.shape[1]
    blocks.sort_indices()
    lengths = np.diff(blocks.indptr).astype(np.int64)
    counts, kinds = lengths * (lengths + 1) // 2, list(zip(*np.tril_indices(k), strict=True))
    starts = np.cumsum([0, *np.repeat(counts, len(kinds))])
    small = max(q * q, int(starts[-1])) <= np.iinfo(np.int32).max
    places = np.empty(starts[-1], dtype=np.int32 if small else np.int64)
    products = np.empty(starts[-1])
    for length in np.unique(lengths[lengths > 0]):
        later, earlier = np.tril_indices(length)
        levels = np.flatnonzero(lengths == length)
        for part in np.array_split(levels, -(-len(levels) * len(later) // CHUNK)):
            elements = blocks.indptr[part][:, None] + np.arange(length)
            columns, values = blocks.indices[elements].astype(places.dtype), blocks.data[elements]
            place = columns[:, earlier] * q + columns[:, later]
            for t, (a, b) in enumerate(kinds):
                product = values[:, later, a, 0] * values[:, earlier, b, 0]
                if a != b:
                    product += values[:, later, b, 0] * values[:, earlier, a, 0]
                targets = starts[part * len(kinds) + t][:, None] + np.arange(len(later))
                places[targets], products[targets] = place, product
    shape = (q * q, len(starts) - 1)
    return sparse.csc_array((products, places, starts.astype(places.dtype)), shape=shape)
