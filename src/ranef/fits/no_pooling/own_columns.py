"""The columns of a regression in each group of a factor, and which of them its rows determine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, Flags, Integers, Places
from ranef.design.design import Design, RandomTerm
from ranef.design.model_matrix import combinations_of
from ranef.numerics.matrices import ReadOnly

RANK = 1e-9  # of a singular value, relative to the largest of the group
ALIASED = 1e-7  # of the length of a column, that is not a combination of others: as in R
ESTIMABLE = 1e-6  # of a coefficient that its rows leave open


@dataclass(frozen=True, eq=False)
class GroupingColumns:
    """A grouping factor with the columns of all its terms, each once.

    Attributes
    ----------
    terms : tuple of RandomTerm
        Those of the factor, in the order of the design.
    coefs : tuple of str
        Names of the k columns.
    columns : ndarray, shape (n, k)
    shares : mapping of str to ndarray, shape (k, k_t)
        By label of a term: its columns as combinations of these, and so what its random effects
        add to the k coefficients.
    places : mapping of str to list of int
        By label of a term: which of its columns these are.
    codes : ndarray of int, shape (n,)
    fixed_shares : ndarray, shape (k, p)
        The fixed columns as combinations of the k; zero for those that are none.
    others : ndarray of int
        Which fixed columns are none.
    """

    terms: tuple[RandomTerm, ...]
    coefs: tuple[str, ...]
    columns: Array
    shares: Mapping[str, Array]
    places: Mapping[str, list[int]]
    codes: Codes
    fixed_shares: Array
    others: Places

    @property
    def name(self) -> str:
        """The name of the grouping factor."""
        return self.terms[0].factor

    @property
    def levels(self) -> pd.Index:
        """The labels of the m levels."""
        return self.terms[0].levels

    def effects(self, b: Mapping[str, Array]) -> Array:
        """Return what the random effects of all terms add to the coefficients, shape (m, k)."""
        return np.asarray(sum(b[label] @ T.T for label, T in self.shares.items()))

    def covariance(self, covs: Mapping[str, Array]) -> Array:
        """Return the covariance of those, shape (k, k)."""
        return np.asarray(sum(T @ covs[label] @ T.T for label, T in self.shares.items()))


def factor_of(design: Design, name: str) -> GroupingColumns:
    """Return a grouping factor with the columns of its terms.

    The term with most columns has all of its own; another adds those that are no combinations of
    the ones before, as `x` of `(1 | g) + (0 + x | g)`.
    """
    terms = tuple(t for t in design.terms if t.factor == name)
    coded = {
        t.label: part[1].values for t, part in zip(design.terms, design.recipe.random, strict=True)
    }
    names, kept, rows = _independent(terms, coded), [], []
    chosen = {label: [j for one, j in names if one == label] for label in coded}
    for term in terms:
        kept.append(coded[term.label][:, chosen[term.label]])
        rows.append(design.rows.term(term.label).columns[:, chosen[term.label]])
    basis, X = np.hstack(kept), design.recipe.X
    fixed = X.values[:, [X.names.index(one) for one in design.fixed]]
    found = combinations_of(fixed, basis)
    return GroupingColumns(
        terms=terms,
        coefs=tuple(t.coefs[j] for t in terms for j in chosen[t.label]),
        columns=np.hstack(rows),
        shares={t.label: combinations_of(coded[t.label], basis).coefs for t in terms},
        places={t.label: chosen[t.label] for t in terms},
        codes=design.rows.term(terms[0].label).codes,
        fixed_shares=found.coefs * found.exact,
        others=np.flatnonzero(~found.exact),
    )


def _independent(
    terms: tuple[RandomTerm, ...], coded: Mapping[str, Array]
) -> list[tuple[str, int]]:
    """Return label and place of the columns that stand for all terms of a factor."""
    first, *rest = sorted(terms, key=lambda t: -t.n_coefs)
    names, basis = [(first.label, j) for j in range(first.n_coefs)], coded[first.label]
    for term in rest:
        new = np.flatnonzero(~combinations_of(coded[term.label], basis).exact)
        names += [(term.label, int(j)) for j in new]
        basis = np.hstack([basis, coded[term.label][:, new]])
    return names


@dataclass(frozen=True, eq=False)
class OwnRegressions(ReadOnly):
    """The least squares of each group, as maps from its rows to its coefficients.

    Attributes
    ----------
    columns : ndarray, shape (n, k + q)
        Those of the factor, then the other fixed columns; zero where these are combinations of
        others among the rows of their group.
    map : ndarray, shape (n, k + q)
        The coefficients of a group are the sums of its rows over these, times what is regressed.
    variances : ndarray, shape (m, k + q)
        Of the coefficients, where those of the rows are the inverse weights.
    determined : ndarray of bool, shape (m, k + q)
    aliased : ndarray of bool, shape (m, q)
        Which of the other fixed columns are combinations among the rows of a group.
    ranks, counts : ndarray of int, shape (m,)
        Columns that are independent, and rows.
    codes : ndarray of int, shape (n,)
    """

    columns: Array
    map: Array
    variances: Array
    determined: Flags
    aliased: Flags
    ranks: Integers
    counts: Integers
    codes: Codes

    def sums(self, values: Array) -> Array:
        """Return the sums over the rows of each group, shape (m, ...)."""
        flat = values.reshape(len(values), -1)
        m = len(self.counts)
        sums = [np.bincount(self.codes, column, m) for column in flat.T]
        return np.array(sums).T.reshape(m, *values.shape[1:])

    def coefficients(self, response: Array) -> Array:
        """Return the least-squares coefficients of each group, shape (m, k + q)."""
        return self.sums(self.map * response[:, None])


def own_regressions(
    columns: Array, others: Array, weights: Array, codes: Codes, m: int
) -> OwnRegressions:
    """Find what the rows of each group determine.

    Parameters
    ----------
    columns : ndarray, shape (n, k)
    others : ndarray, shape (n, q)
        Columns that give way to those and to each other, the first first.
    weights : ndarray, shape (n,)
    codes : ndarray of int, shape (n,)
        The group of each row.
    m : int
        The number of groups.
    """
    k, q = columns.shape[1], others.shape[1]
    both = np.hstack([columns, others])
    scale = np.sqrt(np.mean(both**2, axis=0))
    scale[scale == 0] = 1.0
    scaled, root = both / scale, np.sqrt(weights)
    lines = np.zeros_like(both)
    determined, aliased = np.zeros((m, k + q), dtype=bool), np.ones((m, q), dtype=bool)
    ranks, kept = np.zeros(m, dtype=np.int64), both.copy()
    for groups, rows in _by_size(codes, m):
        M = scaled[rows] * root[rows][..., None]
        aliased[groups] = _aliased(M, k)
        M[..., k:] *= ~aliased[groups][:, None]
        inverse = np.linalg.pinv(M, rcond=RANK)
        resolution = inverse @ M
        found = np.diagonal(resolution, axis1=1, axis2=2)
        determined[groups] = np.abs(found - 1) < ESTIMABLE
        ranks[groups] = np.rint(found.sum(axis=1))
        lines[rows] = np.swapaxes(inverse, 1, 2) * root[rows][..., None] / scale
    kept[:, k:] *= ~aliased[codes]
    variances = np.array([np.bincount(codes, line**2 / weights, m) for line in lines.T]).T
    return OwnRegressions(
        columns=kept,
        map=lines,
        variances=variances,
        determined=determined,
        aliased=aliased,
        ranks=ranks,
        counts=np.bincount(codes, minlength=m),
        codes=codes,
    )


def _by_size(codes: Codes, m: int) -> Iterator[tuple[Places, Places]]:
    """Yield the groups of one size, and their rows, shape (groups, size)."""
    order, counts = np.argsort(codes, kind="stable"), np.bincount(codes, minlength=m)
    starts = np.cumsum(counts) - counts
    for size in np.unique(counts[counts > 0]):
        groups = np.flatnonzero(counts == size)
        yield groups, order[starts[groups][:, None] + np.arange(size)]


def _aliased(M: Array, k: int) -> Flags:
    """Return which columns after the first k are combinations of earlier ones, (groups, q)."""
    U, sizes, _ = np.linalg.svd(M[..., :k], full_matrices=False)
    basis = U * (sizes > RANK * sizes[:, :1])[:, None]
    aliased = np.ones((len(M), M.shape[2] - k), dtype=bool)
    for j in range(M.shape[2] - k):
        column = M[..., k + j]
        rest = column
        for _ in range(2):  # the second time takes off the rounding of the first
            rest = rest - np.einsum("gnr,gsr,gs->gn", basis, basis, rest, optimize=True)
        length = np.linalg.norm(rest, axis=1)
        aliased[:, j] = length <= ALIASED * np.linalg.norm(column, axis=1)
        unit = np.where(aliased[:, j], 0.0, 1.0) / np.where(length > 0, length, 1.0)
        basis = np.concatenate([basis, (rest * unit[:, None])[..., None]], axis=2)
    return aliased
