"""The columns of one or more models on the same rows, and a root of their cross-products.

Columns of the same grouping factor are taken together, whatever terms and models they belong to,
and what depends on others is left out. With F'F = [Z X]'W[Z X] the factor with most effects has a
block diagonal part of F; what its levels leave of the other columns is one dense matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ranef.design.design import Design, RandomTerm, independent_columns
from ranef.design.factors import Codes
from ranef.errors import FitError

type Array = NDArray[np.float64]

MAX_DENSE = 300  # columns besides those of the largest factor from which on rows are cheaper
MAX_ELEMENTS = 20_000_000  # of their cross-products with the largest factor
SPANNED = 1e-9  # an eigenvalue of cross-products, over the largest one, that counts as zero


@dataclass(frozen=True, eq=False)
class Block:
    """The columns of one grouping factor, of all terms and models together.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
    m : int
        Number of levels.
    columns : ndarray, shape (n, K)
        Independent columns of unit mean squares, times the roots of the weights.
    """

    codes: Codes
    m: int
    columns: Array

    @property
    def K(self) -> int:
        """The number of columns."""
        return int(self.columns.shape[1])

    @property
    def transposed(self) -> sparse.csr_array:
        """The columns level by level as a matrix, transposed: shape (m K, n)."""
        n, K = self.columns.shape
        rows = (self.codes[:, None] * K + np.arange(K)).ravel()
        indptr = np.arange(0, n * K + 1, K)
        shape = (self.m * K, n)
        return sparse.csc_array((self.columns.ravel(), rows, indptr), shape=shape).tocsr()


@dataclass(frozen=True, eq=False)
class Root:
    """F, a factor of the cross-products of all columns.

    Attributes
    ----------
    own : ndarray, shape (m, K, K)
        The block of each level of the first factor; rows of zeros where its columns depend on
        each other.
    used : ndarray of bool, shape (m, K)
        Which rows are not zero.
    other : ndarray, shape (m K, w)
        The same rows in the columns of everything else.
    rest : ndarray, shape (r', w)
        The rows that are zero in the first factor's columns.
    """

    own: Array
    used: NDArray[np.bool_]
    other: Array
    rest: Array

    @property
    def rank(self) -> int:
        """The rank of all columns, r."""
        return int(self.used.sum()) + len(self.rest)


@dataclass(frozen=True, eq=False)
class Part:
    """How the columns of one model are combinations of the columns of all.

    Attributes
    ----------
    terms : tuple of (int, ndarray)
        For each random term its block, and A, shape (K, k): the term's columns are the block's
        times A.
    fixed : ndarray, shape (P, p)
        X is the orthonormal fixed columns of all times this.
    """

    terms: tuple[tuple[int, Array], ...]
    fixed: Array


@dataclass(frozen=True, eq=False)
class Span:
    """The columns of one or more models on the same rows.

    Attributes
    ----------
    blocks : tuple of Block
        One for each grouping factor, that with most effects first.
    fixed : ndarray, shape (n, P)
        Orthonormal columns that span every X, times the roots of the weights.
    parts : tuple of Part
        One for each model.
    root : Root or None
        None where responses are drawn row by row.
    """

    blocks: tuple[Block, ...]
    fixed: Array
    parts: tuple[Part, ...]
    root: Root | None

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.fixed)

    def split(self, flat: Array) -> list[Array]:
        """Split effects, or sums, of all blocks, shape (B, q), into (B, m, K) each."""
        ends = np.cumsum([block.m * block.K for block in self.blocks])
        return [
            part.reshape(len(flat), block.m, block.K)
            for part, block in zip(np.split(flat, ends[:-1], axis=1), self.blocks, strict=True)
        ]


def span(*designs: Design, by_rows: bool | None = None) -> Span:
    """Join the columns of designs on the same rows, with the same weights.

    Parameters
    ----------
    *designs : Design
        X of full column rank.
    by_rows : bool, optional
        Whether to draw responses row by row; by default where it is the cheaper way.

    Raises
    ------
    FitError
        If the rows, weights or offsets differ.
    """
    _check_same_rows(designs)
    root = np.sqrt(designs[0].weights)
    X = np.column_stack([design.X * root[:, None] for design in designs])
    X = X / np.maximum(np.linalg.norm(X, axis=0), np.finfo(np.float64).tiny)
    fixed = np.linalg.qr(X[:, independent_columns(X)])[0]
    groups = by_factor([term for design in designs for term in design.terms])
    blocks: list[Block] = []
    places: dict[int, tuple[int, Array]] = {}
    for number, group in enumerate(groups):
        block, combinations = _block(group, root)
        blocks.append(block)
        places |= {id(t): (number, A) for t, A in zip(group, combinations, strict=True)}
    parts = tuple(
        Part(tuple(places[id(t)] for t in design.terms), fixed.T @ (design.X * root[:, None]))
        for design in designs
    )
    width = sum(block.m * block.K for block in blocks[1:]) + fixed.shape[1]
    size = width * (blocks[0].m * blocks[0].K if blocks else 0)
    if by_rows is None:
        by_rows = width > MAX_DENSE or size > MAX_ELEMENTS
    return Span(tuple(blocks), fixed, parts, None if by_rows else _root(blocks, fixed))


def _check_same_rows(designs: Sequence[Design]) -> None:
    for other in designs[1:]:
        one = designs[0]
        pairs = {
            "rows": one.rows.equals(other.rows),
            "weights": np.array_equal(one.weights, other.weights),
            "offset": np.array_equal(one.offset, other.offset),
        }
        for name, same in pairs.items():
            if not same:
                raise FitError(
                    f"`{one.formula.text}` and `{other.formula.text}` differ in their {name}: fit "
                    "both models to the same rows, with the same weights and offset."
                )


def by_factor(terms: Sequence[RandomTerm]) -> list[list[RandomTerm]]:
    """Return the terms by their grouping of the rows, that with most effects first."""
    groups: list[list[RandomTerm]] = []
    for term in terms:
        known = (g for g in groups if np.array_equal(g[0].codes, term.codes))
        group = next(known, None)
        if group is None:
            groups.append([term])
        else:
            group.append(term)
    return sorted(groups, key=lambda group: -sum(t.n_levels * t.n_coefs for t in group))


def _block(group: Sequence[RandomTerm], root: Array) -> tuple[Block, list[Array]]:
    """Return independent columns of the terms of one factor, and each term as their combination."""
    columns = np.column_stack([term.columns * root[:, None] for term in group])
    length = np.maximum(np.linalg.norm(columns, axis=0), np.finfo(np.float64).tiny)
    kept = independent_columns(columns / length)
    Q = np.linalg.qr(columns[:, kept] / length[kept])[0] * np.sqrt(len(root))
    A = Q.T @ columns / len(root)
    ends = np.cumsum([term.n_coefs for term in group])[:-1]
    m = max(term.n_levels for term in group)
    return Block(group[0].codes, m, Q), np.split(A, ends, axis=1)


def gram(blocks: Sequence[Block], fixed: Array) -> tuple[Array, Array, Array]:
    """Return the cross-products of the first block, of it with all else, and among all else.

    Returns
    -------
    tuple of ndarray, shapes (m, K, K), (m, K, w) and (w, w)
        The first block level by level; then the other blocks and the fixed columns.
    """
    columns = sparse.csr_array(
        sparse.vstack([block.transposed for block in blocks[1:]] + [sparse.csr_array(fixed.T)])
    )
    S = (columns @ columns.T).toarray()
    if not blocks:
        return np.zeros((0, 0, 0)), np.zeros((0, 0, len(S))), S
    first = blocks[0]
    D, C = np.zeros((first.m, first.K, first.K)), first.transposed @ columns.T
    np.add.at(D, first.codes, first.columns[:, :, None] * first.columns[:, None, :])
    return D, C.toarray().reshape(first.m, first.K, len(S)), S


def _root(blocks: Sequence[Block], fixed: Array) -> Root:
    """Return F: first the levels of the first factor, then what they leave of the rest."""
    D, C, S = gram(blocks, fixed)
    own, used, inverse = _roots(D)
    other = (inverse @ C).reshape(used.size, len(S))
    size = np.sqrt(np.maximum(np.diag(S), np.finfo(np.float64).tiny))
    values, vectors = np.linalg.eigh((S - other.T @ other) / np.outer(size, size))
    kept = values > SPANNED
    rest = np.sqrt(values[kept])[:, None] * (vectors[:, kept] * size[:, None]).T
    return Root(own, used, other, rest)


def _roots(D: Array) -> tuple[Array, NDArray[np.bool_], Array]:
    """Return H with H'H = D of every level, which of its rows are used, and H^-1 transposed."""
    values, vectors = np.linalg.eigh(D)
    used = values > SPANNED * values.max(initial=0.0)
    lengths = np.where(used, np.sqrt(np.maximum(values, 0.0)), 0.0)
    over = np.divide(1.0, lengths, where=used, out=np.zeros_like(lengths))
    turned = vectors.swapaxes(1, 2)
    return lengths[:, :, None] * turned, used, over[:, :, None] * turned
