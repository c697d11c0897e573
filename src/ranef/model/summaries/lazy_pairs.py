"""Sums of lazy data by level and by pairs of levels of grouping factors.

One query for each set of columns that rows are grouped by: for every term its own, for every two
terms those of both. What comes here are products of the measured columns; those of the columns that
are coded from levels are worked out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Places
from ranef.design.design import grouping_of
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.groups import Factor
from ranef.design.lazy.lazy_table import OWN, ROWS, labels_of
from ranef.design.rows.pair_sums import PairSums, PairTable
from ranef.formula.terms import columns_of
from ranef.model.summaries import lazy_basis
from ranef.model.summaries.data_summary import Grouping
from ranef.model.summaries.lazy_basis import (
    DEPENDENT,
    LOGS,
    WEIGHT,
    LazyBasis,
    cross_products,
    root_of,
    sums_of,
)
from ranef.model.summaries.triangular_rows import distinct_columns
from ranef.numerics.memory import BYTES, available, check_memory

PAIR_NUMBERS = 4  # for each pair beside its products: its labels, and the levels that they are
MUCH = 0.1  # of the response's length: what is left has digits enough
LEAST = 1e-10  # likewise: less than that is rounding
SPAN = 1e-12  # of an eigenvalue of all cross-products, of columns of one length: no direction


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
    unweighted : ndarray, shape (u, c), or None
        Rows with the cross-products of the columns without weights, where there are any.
    pairs : PairSums, optional
        Cross-products of the random terms by pairs of levels, where the rows have no level.
    """

    columns: Array
    counts: Codes
    log_weights: Array
    groupings: list[Grouping]
    unweighted: Array | None
    pairs: PairSums | None = None


def less_fixed(basis: LazyBasis) -> LazyBasis:
    """Return the basis in which the response is less what the fixed columns explain of it.

    What measured columns explain is not in the basis; what levels do may be much more than what is
    left, and leave it with few digits.
    """
    f, every = len(basis.beta), np.arange(len(basis.parts[0]))
    whole = float(np.linalg.norm(basis.back[~basis.back[:, :-1].any(axis=1), -1]))
    if not basis.keys or not whole:
        return basis
    _, products = _Sums(basis, is_weighted=basis.is_weighted).of([], every, every, _nowhere)
    rows = root_of(products[0]) @ basis.parts[2]
    X, y = rows[:, :f], rows[:, -1]
    length = np.linalg.norm(X, axis=0)
    length[length == 0] = 1.0
    beta = np.linalg.lstsq(X / length, y, rcond=DEPENDENT)[0] / length
    left = float(np.linalg.norm(y - X @ beta))
    return basis if left > MUCH * whole else basis.less(beta, max(left, LEAST * whole))


def unweighted(basis: LazyBasis) -> Array | None:
    """Return rows with the cross-products of the columns without weights, where there are any."""
    if not basis.is_weighted:
        return None
    every = np.arange(len(basis.parts[0]))
    _, products = _Sums(basis, is_weighted=False).of([], every, every, _nowhere)
    return basis.whole(_times(root_of(products[0]), basis.parts[2]))


def _times(rows: Array, coefs: Array) -> Array:
    """Return combinations of columns, in which equal ones are equal to the last digit."""
    distinct, copies = distinct_columns(coefs)
    return np.asarray((rows @ distinct)[:, copies])


def by_pairs(basis: LazyBasis, memory: Memory, places: Sequence[range]) -> Summed:
    """Return the sums of the random terms of a formula by levels and by pairs of levels.

    Parameters
    ----------
    basis : LazyBasis
    memory : Memory
        Takes the levels of the grouping factors.
    places : sequence of range
        The columns of each term, in the formula's order.
    """
    sums, coefs = _Sums(basis, is_weighted=basis.is_weighted), basis.parts[2]
    every = np.arange(len(coefs))
    _, products = sums.of([], every, every, _nowhere)
    size = np.sqrt(np.diag(products[0]))
    size[size == 0] = 1.0
    values, vectors = np.linalg.eigh(products[0] / np.outer(size, size))
    is_kept = values > SPAN * values[-1]
    C = (vectors * size[:, None])[:, is_kept].T * np.sqrt(values[is_kept])[:, None]
    inverse = (vectors / size[:, None])[:, is_kept] / np.sqrt(values[is_kept])
    counts, logs = np.zeros(len(C), dtype=np.int64), np.zeros(len(C))
    totals = sums.totals()
    counts[0], logs[0] = int(totals[ROWS][0]), float(totals.get(LOGS, [0.0])[0])
    terms = [_Term.of(coefs[:, list(one)]) for one in places]
    factors, own, fixed = [], [], []
    for i, term in enumerate(terms):
        factor, D, F = sums.by_level(i, term, memory)
        factors.append(factor)
        own.append(D)
        fixed.append(F @ inverse)
    pairs = {
        (i, j): sums.by_pair((i, j), (terms[i], terms[j]), (factors[i], factors[j]), memory)
        for i, j in combinations(range(len(factors)), 2)
    }
    found = PairSums(tuple(own), tuple(fixed), tuple(term.change for term in terms), pairs)
    nowhere = np.full(len(C), -1, dtype=np.int64)
    groupings = [Grouping(factor.levels, nowhere) for factor in factors]
    return Summed(basis.whole(_times(C, coefs)), counts, logs, groupings, unweighted(basis), found)


def _nowhere(found: Mapping[Any, Any]) -> Codes:
    """Return one and the same level for all cells."""
    return np.zeros(len(found[ROWS]), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class _Term:
    """The columns of a random term, as combinations of the parts of a basis.

    Attributes
    ----------
    parts : ndarray of int, shape (u,)
    unit : ndarray, shape (u, k)
        The term's own basis is the parts times it.
    change : ndarray, shape (k, k)
        The columns of the term are those of its own basis times it.
    """

    parts: Places
    unit: Array
    change: Array

    @staticmethod
    def of(coefs: Array) -> _Term:
        """Return the term whose columns have these coefficients, shape (all parts, k)."""
        parts = np.flatnonzero(coefs.any(axis=1))
        own = coefs[parts]
        if own.shape[0] < own.shape[1]:
            return _Term(parts, np.eye(len(own)), own)
        return _Term(parts, *np.linalg.qr(own))


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums of products of the parts of a basis.

    Attributes
    ----------
    basis : LazyBasis
    is_weighted : bool
    """

    basis: LazyBasis
    is_weighted: bool

    def by_level(self, i: int, term: _Term, memory: Memory) -> tuple[Factor, Array, Array]:
        """Return the grouping factor of a term, and its sums by level with itself and all parts."""
        keys = [*columns_of(self.basis.formula.random[i].group)]
        every = np.arange(len(self.basis.parts[0]))
        factors: list[Factor] = []

        def level(found: Mapping[Any, Any]) -> Codes:
            factors.append(self._factor(i, found, keys, memory))
            return factors[-1].codes

        _, F = self.of(keys, term.parts, every, level)
        F = term.unit.T @ F
        return factors[-1], F[..., term.parts] @ term.unit, F

    def by_pair(
        self,
        ij: tuple[int, int],
        terms: tuple[_Term, _Term],
        factors: tuple[Factor, Factor],
        memory: Memory,
    ) -> PairTable:
        """Return the sums of two terms by pairs of levels."""
        parts = [self.basis.formula.random[t] for t in ij]
        keys = list(dict.fromkeys(columns_of(node for part in parts for node in part.group)))
        one, other = terms
        self._check_pairs(keys, factors, one.unit.shape[1] * other.unit.shape[1])
        m = len(factors[1].levels)

        def level(found: Mapping[Any, Any]) -> Codes:
            first, second = (self._factor(t, found, keys, memory).codes for t in ij)
            return first * m + second

        pairs, products = self.of(keys, one.parts, other.parts, level)
        return PairTable(pairs // m, pairs % m, one.unit.T @ products @ other.unit)

    def _check_pairs(self, keys: Sequence[str], factors: tuple[Factor, Factor], size: int) -> None:
        """Refuse a table of pairs that would not fit into memory; count them if it might not."""
        one, other = factors
        most = min(int(self.totals()[ROWS][0]), len(one.levels) * len(other.levels))
        if BYTES * most * (size + PAIR_NUMBERS) < available():
            return
        pairs = self.basis.n_cells(keys)
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
        labels = labels_of(self.basis.rows, keys, found)
        rows = Interpreter(labels, self.basis.formula.text, memory, {})
        return grouping_of(rows, self.basis.formula.random[i], None)

    def totals(self) -> dict[str, Any]:
        """Return the number of rows, and the sum of the logarithms of their weights."""
        some = self.basis.names[:1]
        return cross_products(self.basis.rows, some, weights=self.is_weighted)[0]

    def of(
        self,
        keys: Sequence[str],
        left: Places,
        right: Places,
        level: Callable[[Mapping[Any, Any]], Codes],
    ) -> tuple[Codes, Array]:
        """Return sums of products of parts, level by level.

        Parameters
        ----------
        keys : sequence of str
            The columns that levels are combinations of.
        left, right : ndarray of int, shape (a,) and (b,)
            The parts.
        level : callable
            Numbers the levels of some cells.

        Returns
        -------
        levels : ndarray of int, shape (m,)
            Their numbers, in order.
        products : ndarray, shape (m, a, b)
        """
        columns, of_basis, _ = self.basis.parts
        levels, products = np.empty(0, dtype=np.int64), np.empty((0, len(left), len(right)))
        for wanted, one, other in self._blocks(keys, left, right):
            found = self._sums(
                keys, wanted, {*product(of_basis[left[one]], of_basis[right[other]])}
            )
            levels, place = np.unique(level(found), return_inverse=True)
            if not len(products):
                products = np.zeros((len(levels), len(left), len(right)))
            left_shares = self.basis.shares(found, columns[left[one]])
            right_shares = self.basis.shares(found, columns[right[other]])
            for k, h in {*product(of_basis[left[one]], of_basis[right[other]])}:
                (a,), (b,) = (
                    np.nonzero(of_basis[parts] == number)
                    for parts, number in ((left[one], k), (right[other], h))
                )
                S = sparse.coo_array(left_shares[:, a])
                values, at = S.data * found[k, h][S.row], place[S.row] * len(a) + S.col
                turned = sparse.csr_array(
                    (values, (at, S.row)), shape=(len(levels) * len(a), len(place))
                )
                made = (turned @ right_shares[:, b]).toarray()
                products[:, one[a][:, None], other[b]] = made.reshape(len(levels), len(a), len(b))
        return levels, products

    def _blocks(
        self, keys: Sequence[str], left: Places, right: Places
    ) -> Iterator[tuple[list[str], Places, Places]]:
        """Yield which parts are multiplied by which in one query, and what decides their shares.

        All of them, unless their cells are many and those of each two kinds of parts are fewer.
        """
        kinds = [self.basis.depends_on[j] for j in self.basis.parts[0]]
        of_left, of_right = [kinds[part] for part in left], [kinds[part] for part in right]
        pairs = [*product(dict.fromkeys(of_left), dict.fromkeys(of_right))]
        every = sorted({key for kind in (*of_left, *of_right) for key in kind})
        if {*every} in ({*a, *b} for a, b in pairs) or self._are_few(keys, every):
            yield every, np.arange(len(left)), np.arange(len(right))
            return
        for a, b in pairs:
            first = np.flatnonzero([kind == a for kind in of_left])
            yield sorted({*a, *b}), first, np.flatnonzero([kind == b for kind in of_right])

    def _are_few(self, keys: Sequence[str], wanted: Sequence[str]) -> bool:
        r, names = len(self.basis.names), [*keys, *(self.basis.keys[key] for key in wanted)]
        return (
            self.basis.n_cells(list(dict.fromkeys(names))) * r * (r + 1) / 2 <= lazy_basis.MAX_SUMS
        )

    def _sums(
        self, keys: Sequence[str], wanted: Sequence[str], pairs: Iterable[tuple[int, int]]
    ) -> dict[Any, Any]:
        """Return sums of products of columns of the basis, by their numbers, and cells."""
        import narwhals.stable.v2 as nw

        names = {tuple(sorted(pair)): "" for pair in pairs}
        names = {pair: f"{OWN}{i}" for i, pair in enumerate(names)}
        basis = self.basis.names
        columns = {name: nw.col(basis[k]) * nw.col(basis[h]) for (k, h), name in names.items()}
        if self.is_weighted:
            columns = {name: column * nw.col(WEIGHT) for name, column in columns.items()}
        cells = list(dict.fromkeys([*keys, *(self.basis.keys[key] for key in wanted)]))
        found = sums_of(self.basis.rows, columns, cells)
        products = {(k, h): found[name] for (k, h), name in names.items()}
        products |= {(h, k): values for (k, h), values in products.items()}
        return products | {key: found[key] for key in [*cells, ROWS]}
