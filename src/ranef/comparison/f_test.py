"""Wald's F test of random effects, which are taken as fixed ones: exact in finite samples.

Source: Seely & El-Bassiouni (1983), *Annals of Statistics* 11; Hui, Mueller & Welsh (2019),
*International Statistical Review* 87.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse, special

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.groups import by_factor, transposed
from ranef.design.rows.rows import TermRows

MAX_DEPENDENT_LENGTH = 1e-7  # of what earlier columns leave of a column that depends on them
MAX_ZERO_EIGENVALUE = 1e-10  # of cross-products of unit columns
SIZE_TOLERANCE = 1e-8  # relative difference of levels that have one size


@dataclass(frozen=True)
class WaldTest:
    """An F statistic with its degrees of freedom.

    Attributes
    ----------
    statistic : float
    d1, d2 : int
        Degrees of freedom.
    stratum : str
        The factor whose levels it compares; empty where it compares rows.
    """

    statistic: float
    d1: int
    d2: int
    stratum: str = ""

    @property
    def p_value(self) -> float:
        """The probability of a larger statistic."""
        return float(special.fdtrc(self.d1, self.d2, self.statistic))


@dataclass(frozen=True, eq=False)
class _Table:
    """Observations with independent errors of one variance.

    Attributes
    ----------
    y : ndarray, shape (n,)
    Q : sparse array, shape (n, r)
        The columns of the largest random term, orthonormal.
    C : sparse array, shape (n, c)
        The columns of the other random terms, and X.
    n : int
        The number of observations that the rows stand for.
    """

    y: Array
    Q: sparse.csc_array
    C: sparse.csc_array
    n: int


def f_test(small: Design, large: Design) -> WaldTest | None:
    """Test the random effects that only the larger of two designs with the same X has.

    All random effects are taken as fixed: F is the drop of the residual sum of squares by the new
    columns over the residual mean square. Where the columns of another random term span the new
    ones, that term is the error: with one coefficient, and levels of one size, the totals of its
    levels are independent, of one variance, and take the place of the rows.

    Parameters
    ----------
    small, large : Design

    Returns
    -------
    FTest or None
        None where there is no such test.

    References
    ----------
    The test with totals: Scheffe (1959), *The Analysis of Variance*, chapter 5.
    """
    test = _wald(_table(small, small.sufficient.terms), _table(large, large.sufficient.terms))
    for term in small.sufficient.terms:
        if test is None and (size := _size_of_levels(small, term)):
            test = _wald_of_totals(small, large, term, size)
    return test


def _wald(small: _Table, large: _Table) -> WaldTest | None:
    (small_rank, small_rss), (large_rank, large_rss) = _rank_and_rss(small), _rank_and_rss(large)
    d1, d2 = large_rank - small_rank, large.n - large_rank
    if d1 < 1 or d2 < 1 or not large_rss > 0:
        return None
    return WaldTest((small_rss - large_rss) / d1 / (large_rss / d2), d1, d2)


def _wald_of_totals(small: Design, large: Design, term: TermRows, size: float) -> WaldTest | None:
    """Return the test with the totals of the levels of a term in place of rows.

    The term has to be the same in both designs: it makes the errors.
    """
    small_terms, large_terms = (
        [t for t in design.sufficient.terms if not _same_factor(t, term)]
        for design in (small, large)
    )
    if len(small_terms) + 1 < len(small.terms) or len(large_terms) + 1 < len(large.terms):
        return None
    z = term.columns[:, 0] * np.sqrt(small.sufficient.weights / size)
    H = transposed(term.codes, z[:, None], term.n_levels).T
    test = _wald(_totals(_table(small, small_terms), H), _totals(_table(large, large_terms), H))
    return test and replace(test, stratum=term.factor)


def _table(design: Design, terms: Sequence[TermRows]) -> _Table:
    """Return the rows of a design, by the square roots of their weights, with some of its terms."""
    root = np.sqrt(design.sufficient.weights)
    X = sparse.csc_array(np.linalg.qr(design.sufficient.X * root[:, None])[0])
    none = sparse.csc_array((len(root), 0))
    Z = [
        _within_levels(group[0], np.column_stack([t.columns for t in group]) * root[:, None])
        for group in by_factor(terms)
    ]
    first, *others = sorted(Z, key=lambda block: -block.shape[1]) or [none]
    C = sparse.csc_array(sparse.hstack([*others, X]))
    y = (design.sufficient.y - design.sufficient.offset) * root
    return _Table(y, first, C, design.n_obs)


def _totals(table: _Table, H: sparse.csc_array) -> _Table:
    """Return the totals of levels in place of rows, H having a column a level."""
    C = sparse.csc_array(H.T @ sparse.hstack([table.Q, table.C]))
    return _Table(H.T @ table.y, C[:, :0], C, H.shape[1])


def _size_of_levels(design: Design, term: TermRows) -> float:
    """Return the sum of squares that all levels of a term have in common, or 0."""
    sizes = np.bincount(term.codes, design.sufficient.weights * term.columns[:, 0] ** 2)
    are_equal = term.n_coefs == 1 and np.ptp(sizes) <= SIZE_TOLERANCE * sizes.max()
    return float(sizes.mean()) if are_equal else 0.0


def _same_factor(first: TermRows, second: TermRows) -> bool:
    pairs = np.unique(np.column_stack([first.codes, second.codes]), axis=0)
    return len(pairs) == first.n_levels == second.n_levels


def _within_levels(term: TermRows, columns: Array) -> sparse.csc_array:
    """Return orthonormal columns that span those of a term, by Gram and Schmidt in each level."""
    codes, orthonormal = term.codes, list[Array]()
    for column in columns.T:
        residual = column.copy()
        for q in orthonormal * 2:
            residual -= q * np.bincount(codes, q * residual)[codes]
        before, length = (np.sqrt(np.bincount(codes, v**2)) for v in (column, residual))
        kept = length > MAX_DEPENDENT_LENGTH * before
        orthonormal.append(np.where(kept, 1 / np.where(kept, length, 1.0), 0.0)[codes] * residual)
    Q = transposed(codes, np.column_stack(orthonormal), term.n_levels).T
    return Q[:, np.flatnonzero(abs(Q).sum(axis=0))]


def _rank_and_rss(table: _Table) -> tuple[int, float]:
    """Return the rank of [Q C], and the residual sum of squares of y.

    Q is eliminated, which leaves a small dense matrix; the residuals are taken twice.
    """
    length = np.sqrt((table.C**2).sum(axis=0))
    used = np.flatnonzero(length > MAX_DEPENDENT_LENGTH)
    Q, C = table.Q, table.C[:, used] / length[used]
    across = Q.T @ C
    values, vectors = np.linalg.eigh((C.T @ C - across.T @ across).toarray())
    kept = values > MAX_ZERO_EIGENVALUE
    V = vectors[:, kept] / np.sqrt(values[kept])
    residual = table.y
    for _ in range(2):
        residual = residual - Q @ (Q.T @ residual)
        gamma = V @ (V.T @ (C.T @ residual))
        residual = residual - C @ gamma + Q @ (across @ gamma)
    return Q.shape[1] + int(kept.sum()), float(residual @ residual)
