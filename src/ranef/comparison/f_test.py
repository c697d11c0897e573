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
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import by_factor, transposed

DEPENDENT = 1e-7  # what earlier columns leave of a column that depends on them
RANK = 1e-10  # an eigenvalue of cross-products of unit columns that counts as zero
EQUAL = 1e-8  # relative difference of levels that have one size


@dataclass(frozen=True)
class FTest:
    """An F test.

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
        Those of the others, and X.
    """

    y: Array
    Q: sparse.csc_array
    C: sparse.csc_array


def f_test(small: Design, large: Design) -> FTest | None:
    """Test the random effects that a design has more than another one with the same X.

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
    found = _wald(_table(small, small.terms), _table(large, large.terms))
    for term in small.terms:
        if found is None and (size := _size_of_levels(small, term)):
            found = _wald_of_totals(small, large, term, size)
    return found


def _wald(small: _Table, large: _Table) -> FTest | None:
    (fewer, before), (more, after) = _projected(small), _projected(large)
    d1, d2 = more - fewer, len(large.y) - more
    if d1 < 1 or d2 < 1 or not after > 0:
        return None
    return FTest((before - after) / d1 / (after / d2), d1, d2)


def _wald_of_totals(small: Design, large: Design, term: RandomTerm, size: float) -> FTest | None:
    """Return the test with the totals of the levels of a term in place of rows.

    The term has to be the same in both designs: it makes the errors.
    """
    mine, others = ([t for t in d.terms if not _same_factor(t, term)] for d in (small, large))
    if len(mine) + 1 < len(small.terms) or len(others) + 1 < len(large.terms):
        return None
    z = term.columns[:, 0] * np.sqrt(small.weights / size)
    H = transposed(term.codes, z[:, None], term.n_levels).T
    found = _wald(_totals(_table(small, mine), H), _totals(_table(large, others), H))
    return found and replace(found, stratum=term.factor)


def _table(design: Design, terms: Sequence[RandomTerm]) -> _Table:
    root = np.sqrt(design.weights)
    X = sparse.csc_array(np.linalg.qr(design.X * root[:, None])[0])
    none = sparse.csc_array((design.n_obs, 0))
    Z = [
        _within_levels(group[0], np.column_stack([t.columns for t in group]) * root[:, None])
        for group in by_factor(terms)
    ]
    first, *others = sorted(Z, key=lambda block: -block.shape[1]) or [none]
    C = sparse.csc_array(sparse.hstack([*others, X]))
    return _Table((design.y - design.offset) * root, first, C)


def _totals(table: _Table, H: sparse.csc_array) -> _Table:
    C = sparse.csc_array(H.T @ sparse.hstack([table.Q, table.C]))
    return _Table(H.T @ table.y, C[:, :0], C)


def _size_of_levels(design: Design, term: RandomTerm) -> float:
    """Return the sum of squares that all levels of a term have in common, or 0."""
    sizes = np.bincount(term.codes, design.weights * term.columns[:, 0] ** 2)
    same = term.n_coefs == 1 and np.ptp(sizes) <= EQUAL * sizes.max()
    return float(sizes.mean()) if same else 0.0


def _same_factor(one: RandomTerm, other: RandomTerm) -> bool:
    pairs = np.unique(np.column_stack([one.codes, other.codes]), axis=0)
    return len(pairs) == one.n_levels == other.n_levels


def _within_levels(term: RandomTerm, columns: Array) -> sparse.csc_array:
    """Return orthonormal columns that span those of a term, by Gram and Schmidt in each level."""
    codes, found = term.codes, list[Array]()
    for column in columns.T:
        left = column.copy()
        for q in found * 2:
            left -= q * np.bincount(codes, q * left)[codes]
        before, length = (np.sqrt(np.bincount(codes, v**2)) for v in (column, left))
        kept = length > DEPENDENT * before
        found.append(np.where(kept, 1 / np.where(kept, length, 1.0), 0.0)[codes] * left)
    joined = transposed(codes, np.column_stack(found), term.n_levels).T
    return joined[:, np.flatnonzero(abs(joined).sum(axis=0))]


def _projected(table: _Table) -> tuple[int, float]:
    """Return the rank of [Q C], and the residual sum of squares of y.

    Q is eliminated, which leaves a small dense matrix; the residuals are taken twice.
    """
    length = np.sqrt((table.C**2).sum(axis=0))
    used = np.flatnonzero(length > DEPENDENT)
    Q, C = table.Q, table.C[:, used] / length[used]
    across = Q.T @ C
    values, vectors = np.linalg.eigh((C.T @ C - across.T @ across).toarray())
    kept = values > RANK
    V = vectors[:, kept] / np.sqrt(values[kept])
    left = table.y
    for _ in range(2):
        left = left - Q @ (Q.T @ left)
        gamma = V @ (V.T @ (C.T @ left))
        left = left - C @ gamma + Q @ (across @ gamma)
    return Q.shape[1] + int(kept.sum()), float(left @ left)
