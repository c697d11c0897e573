"""Sums of lazy data by level and by pairs of levels of grouping factors.

One query for each set of grouping columns: for every term its own, for every two terms those of
both. What comes here is a row for each level, and for each pair of levels that meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import batched, combinations, combinations_with_replacement, product
from typing import Any

import numpy as np
from scipy import linalg

from ranef._typing import Array, Codes
from ranef.design.design import grouping_of
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.groups import Factor
from ranef.design.lazy.expressions import combination
from ranef.design.lazy.lazy_table import (
    OWN,
    ROWS,
    Expr,
    LazyFrame,
    arrays,
    check_unchanged,
    labels_of,
)
from ranef.design.rows.pair_sums import PairSums, PairTable
from ranef.formula.terms import Formula, columns_of
from ranef.model.summaries.data_summary import Grouping
from ranef.numerics.memory import BYTES, available, check_memory

MAX_SUMS = 2_000_000  # of cells; beyond these crossed factors are summed by pairs of levels
QUERIED_SUMS = 500  # in one query
PAIR_NUMBERS = 4  # for each pair beside its products: its labels, and the levels that they are
LOGS, WEIGHT = f"{OWN}logs", f"{OWN}weight"


@dataclass(frozen=True, eq=False)
class LazyBasis:
    """A basis of the columns of a model, nearly orthonormal over all rows.

    Attributes
    ----------
    rows : LazyFrame
        Its r columns, those of the keys, and the weights if there are any.
    names : list of str
        Of the r columns.
    keys : list of str
        The columns of the grouping factors.
    back : ndarray, shape (r, c)
        The columns are those of the basis times it.
    unweighted : ndarray, shape (c, c)
        Rows with the cross-products of the columns, without weights.
    n_known : int
        How many of the basis, the first, the fixed columns, offset and response depend on.
    """

    rows: LazyFrame
    names: list[str]
    keys: list[str]
    back: Array
    unweighted: Array
    n_known: int

    @cached_property
    def is_weighted(self) -> bool:
        """Whether the rows have weights."""
        return WEIGHT in self.rows.collect_schema()

    @cached_property
    def n_cells(self) -> int:
        """The number of combinations of the keys that occur."""
        import narwhals.stable.v2 as nw

        cells = self.rows.select(*self.keys).unique()
        return int(arrays(cells.select(nw.len().alias(ROWS)))[ROWS][0])


def has_many_cells(basis: LazyBasis, n: int) -> bool:
    """Whether the cross-products of the cells of n rows are too many to be all kept."""
    r = len(basis.names)
    sums = r * (r + 1) // 2
    return n * sums > MAX_SUMS and basis.n_cells * sums > MAX_SUMS


@dataclass(frozen=True, eq=False)
class Summed:
    """What an engine has summed, as rows with the cross-products of the data.

    Attributes
    ----------
    columns : ndarray, shape (r, c)
    counts : ndarray of int, shape (r,)
        How many rows of the data they stand for.
    log_weights : ndarray, shape (r,)
    groupings : list of Grouping
        Of the random terms, in the formula's order.
    pairs : PairSums, optional
        Cross-products of the random terms by pairs of levels, where the rows have no level.
    """

    columns: Array
    counts: Codes
    log_weights: Array
    groupings: list[Grouping]
    pairs: PairSums | None = None


def by_pairs(basis: LazyBasis, formula: Formula, memory: Memory, places: Sequence[range]) -> Summed:
    """Return the sums of the random terms of a formula by levels and by pairs of levels.

    Parameters
    ----------
    basis : LazyBasis
    formula : Formula
    memory : Memory
        Takes the levels of the grouping factors.
    places : sequence of range
        The columns of each term, in the formula's order.
    """
    found, products = cross_products(basis.rows, basis.names, weights=basis.is_weighted)
    C = np.linalg.cholesky(products[0]).T
    counts, logs = np.zeros(len(C), dtype=np.int64), np.zeros(len(C))
    counts[0] = int(found[ROWS][0])
    logs[0] = float(found[LOGS][0]) if basis.is_weighted else 0.0
    wanted = _Wanted.of(basis, formula, [basis.back[:, list(one)] for one in places])
    f = basis.n_known
    inverse = linalg.solve_triangular(C[:f, :f], np.eye(f))
    factors, own, fixed = [], [], []
    for i in range(len(formula.random)):
        factor, D, F = wanted.by_level(i, memory)
        factors.append(factor)
        own.append(D)
        fixed.append(F @ inverse)
    pairs = {
        (i, j): wanted.by_pair(i, j, memory, (factors[i], factors[j]), int(counts[0]))
        for i, j in combinations(range(len(factors)), 2)
    }
    sums = PairSums(tuple(own), tuple(fixed), tuple(wanted.changes), pairs)
    nowhere = np.full(len(C), -1, dtype=np.int64)
    groupings = [Grouping(factor.levels, nowhere) for factor in factors]
    return Summed(C @ basis.back, counts, logs, groupings, sums)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """The basis columns of each random term, as columns of lazy rows.

    Attributes
    ----------
    rows : LazyFrame
    known : list of str
        The columns that fixed effects, offset and response depend on.
    terms : list of list of str
        The basis columns of each term.
    changes : list of ndarray, shape (k, k)
        The columns of the term are those of its basis times it.
    formula : Formula
    is_weighted : bool
    """

    rows: LazyFrame
    known: list[str]
    terms: list[list[str]]
    changes: list[Array]
    formula: Formula
    is_weighted: bool

    @staticmethod
    def of(basis: LazyBasis, formula: Formula, backs: Sequence[Array]) -> _Wanted:
        """Return the columns of terms whose coefficients in a basis are given."""
        made: dict[str, Any] = {}
        terms, changes = [], []
        for t, back in enumerate(backs):
            U, T = (
                np.linalg.qr(back) if back.shape[0] >= back.shape[1] else (np.eye(len(back)), back)
            )
            names = []
            for j, shares in enumerate(U.T):
                (used,) = np.nonzero(shares)
                if len(used) == 1:
                    T[j] *= shares[used[0]]
                    names.append(basis.names[used[0]])
                else:
                    names.append(f"{OWN}z{t}_{j}")
                    made[names[-1]] = combination(basis.names, shares)
            terms.append(names)
            changes.append(T)
        rows = basis.rows.with_columns(**made) if made else basis.rows
        known = basis.names[: basis.n_known]
        return _Wanted(rows, known, terms, changes, formula, basis.is_weighted)

    def by_level(self, i: int, memory: Memory) -> tuple[Factor, Array, Array]:
        """Return the grouping factor of a term and its sums by level."""
        names, known = self.terms[i], self.known
        inner, across = [*combinations_with_replacement(names, 2)], [*product(names, known)]
        keys = columns_of(self.formula.random[i].group)
        found = self._sums([*inner, *across], keys)
        factor = self._factor(i, found, keys, memory)
        m, k = len(factor.levels), len(names)
        D, F = np.empty((m, k, k)), np.empty((m, k, len(known)))
        for a, one in enumerate(names):
            for b, other in enumerate(names[a:], a):
                D[factor.codes, a, b] = D[factor.codes, b, a] = found[one, other]
            for b, other in enumerate(known):
                F[factor.codes, a, b] = found[one, other]
        return factor, D, F

    def by_pair(
        self, i: int, j: int, memory: Memory, factors: tuple[Factor, Factor], n: int
    ) -> PairTable:
        """Return the sums of two terms by pairs of levels."""
        first, second = self.terms[i], self.terms[j]
        parts = self.formula.random[i], self.formula.random[j]
        keys = list(dict.fromkeys(columns_of(node for part in parts for node in part.group)))
        self._check_pairs(keys, factors, n, len(first) * len(second))
        found = self._sums([*product(first, second)], keys)
        levels, others = (self._factor(t, found, keys, memory).codes for t in (i, j))
        products = np.empty((len(levels), len(first), len(second)))
        for a, one in enumerate(first):
            for b, other in enumerate(second):
                products[:, a, b] = found[one, other]
        return PairTable(levels, others, products)

    def _check_pairs(
        self, keys: Sequence[str], factors: tuple[Factor, Factor], n: int, size: int
    ) -> None:
        """Refuse a table of pairs that would not fit into memory; count them if it might not."""
        one, other = factors
        most = min(n, len(one.levels) * len(other.levels))
        bytes_free = available()
        if BYTES * most * (size + PAIR_NUMBERS) < bytes_free:
            return
        import narwhals.stable.v2 as nw

        met = self.rows.select(*keys).unique().select(nw.len().alias(ROWS))
        pairs = int(arrays(met)[ROWS][0])
        what = f"`{one.name}` and `{other.name}` meet in {pairs:,} pairs of levels, whose table"
        remedy = (
            f"Leave one of the two out, or take a part of the levels of `{one.name}`, as a filter "
            "of the data; if one is nested in the other, say so: `(1 | a/b)`."
        )
        check_memory(float(pairs) * (size + PAIR_NUMBERS), what, remedy)

    def _factor(
        self, i: int, found: Mapping[Any, Any], keys: Iterable[str], memory: Memory
    ) -> Factor:
        """Return the grouping factor of a term on the rows of a result."""
        labels = labels_of(self.rows, keys, found)
        rows = Interpreter(labels, self.formula.text, memory, {})
        return grouping_of(rows, self.formula.random[i], None)

    def _sums(self, pairs: Sequence[tuple[str, str]], keys: Iterable[str]) -> dict[Any, Any]:
        """Return sums of products of columns, by their names, and the keys they are of."""
        import narwhals.stable.v2 as nw

        names = {pair: f"{OWN}{i}" for i, pair in enumerate(dict.fromkeys(pairs))}
        columns = {name: nw.col(a) * nw.col(b) for (a, b), name in names.items()}
        if self.is_weighted:
            columns = {name: column * nw.col(WEIGHT) for name, column in columns.items()}
        found = _sums_of(self.rows, columns, list(keys))
        return {pair: found[name] for pair, name in names.items()} | {k: found[k] for k in keys}


def cross_products(
    rows: LazyFrame, names: Sequence[str], *, weights: bool, keys: Sequence[str] = ()
) -> tuple[dict[str, Any], Array]:
    """Return sums by cell: how many rows and the like, and products of columns, (cells, r, r)."""
    import narwhals.stable.v2 as nw

    pairs = [*combinations_with_replacement(range(len(names)), 2)]
    columns = {f"{OWN}{i}_{j}": nw.col(names[i]) * nw.col(names[j]) for i, j in pairs}
    if weights:
        columns = {name: column * nw.col(WEIGHT) for name, column in columns.items()}
        columns[LOGS] = nw.col(WEIGHT).log()
    found = _sums_of(rows, columns, keys)
    square = np.zeros((len(found[ROWS]), len(names), len(names)))
    for i, j in pairs:
        square[:, i, j] = square[:, j, i] = found[f"{OWN}{i}_{j}"]
    return found, square


def _sums_of(rows: LazyFrame, columns: Mapping[str, Expr], keys: Sequence[str]) -> dict[str, Any]:
    """Return the number of rows and the sums of columns by cell, in the order of its keys.

    One query has a part of the sums, as the time to plan it goes with their number squared.

    Raises
    ------
    DataError
        If the number of rows changes from one query to the next.
    """
    import narwhals.stable.v2 as nw

    found: dict[str, Any] = {}
    for names in batched(columns, QUERIED_SUMS, strict=False):
        some = rows.select(*keys, **{name: columns[name] for name in names})
        sums = [nw.len().alias(ROWS), *(nw.col(name).sum() for name in names)]
        part = arrays(some.group_by(*keys).agg(*sums).sort(*keys) if keys else some.select(*sums))
        if found:
            check_unchanged(int(found[ROWS].sum()), int(part[ROWS].sum()))
        found |= part
    return found
