"""The arrays of a design that have one entry for each row: of the data, or of what stands for it.

All that a Gaussian model needs of its data are cross-products. Rows that have the same ones are as
good as the data's own, and may be fewer; then they say what they stand for (`Condensed`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, Flags, Integers, Places
from ranef.design.data_frame import CompleteRows
from ranef.design.groups import Factor
from ranef.design.rows.pair_sums import PairSums
from ranef.numerics.matrices import ReadOnly

ROUNDING = 1e-14  # of the variation of a condensed column, relative to its length


@dataclass(frozen=True, eq=False)
class TermRows(ReadOnly):
    """The rows of one random-effects term: the level and the coefficient columns of each.

    Attributes
    ----------
    label : str
        The label of the term.
    grouping : Factor
    columns : ndarray, shape (n, k)
        The coefficient columns.
    """

    label: str
    grouping: Factor
    columns: Array

    @property
    def factor(self) -> str:
        """The name of the grouping factor."""
        return self.grouping.name

    @property
    def codes(self) -> Codes:
        """The level of each row, shape (n,); -1 for a level that is not known."""
        return self.grouping.codes

    def at(self, places: slice | Places | Flags) -> TermRows:
        """Return some of these rows, with all levels."""
        codes, numbers = self.codes[places], self.grouping.numbers[places]
        grouping = replace(self.grouping, codes=codes, numbers=numbers, parts=())
        return replace(self, grouping=grouping, columns=self.columns[places])

    def meets(self, other: TermRows) -> tuple[Codes, Codes]:
        """Return the levels of this term and of another that meet in some row of the data."""
        return self.grouping.meets(other.grouping)

    @property
    def n_levels(self) -> int:
        """The number of levels, m."""
        return len(self.grouping.levels)

    @property
    def is_new(self) -> Flags:
        """Whether a row is of a level that is not known, shape (n,)."""
        return self.codes < 0

    @property
    def n_coefs(self) -> int:
        """The number of coefficients of a level, k."""
        return int(self.columns.shape[1])


@dataclass(frozen=True, eq=False)
class Condensed(ReadOnly):
    """What rows stand for that have the cross-products of more rows than they are.

    Attributes
    ----------
    ones : ndarray, shape (r,)
        The column that is one in every row that they stand for.
    counts : ndarray of int, shape (r,)
        How many rows: those of a cell of the grouping factors stand at its first.
    log_weights : ndarray, shape (r,)
        The sum of the logarithms of their weights, likewise.
    unweighted : Rows or None
        Rows with the cross-products that the data have without their weights; None for these
        rows themselves.
    pairs : PairSums or None
        Cross-products by level and by pairs of levels, where the rows have those of all data only:
        then the level of a row is not known.
    are_equal : bool
        Whether each row stands for rows that are equal to it, the sum of whose weights it has.
    """

    ones: Array
    counts: Integers
    log_weights: Array
    unweighted: Rows | None
    pairs: PairSums | None = None
    are_equal: bool = False


@dataclass(frozen=True, eq=False)
class Rows(ReadOnly):
    """The arrays of a design, with one entry for each row of the data.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    y : ndarray, shape (n,)
        The proportion of successes for a binomial family.
    weights : ndarray, shape (n,)
        Prior weights: Var(y_i) = sigma^2 / w_i. Numbers of trials for a binomial family.
    offset : ndarray, shape (n,)
        The known part of the linear predictor.
    terms : tuple of TermRows
        In the order of the design's terms.
    index : pandas.Index
        Labels of the rows used.
    data : CompleteRows
        The columns of the data that were used, as the design was first built.
    condensed : Condensed, optional
        What the rows stand for, where they are not those of the data.
    """

    X: Array
    y: Array
    weights: Array
    offset: Array
    terms: tuple[TermRows, ...]
    index: pd.Index[Any]
    data: CompleteRows
    condensed: Condensed | None = None

    @property
    def n(self) -> int:
        """The number of rows of the data."""
        return len(self.y) if self.condensed is None else int(self.condensed.counts.sum())

    @property
    def repeats(self) -> Integers | None:
        """How many equal rows of the data each row stands for, shape (n,); None for one each."""
        found = self.condensed
        return None if found is None or not found.are_equal else found.counts

    @property
    def made_from(self) -> str:
        """What rows that are not those of the data were made from."""
        return "cross-products" if self.repeats is None else "counts of equal rows"

    @property
    def ones(self) -> Array:
        """The column that is one in every row of the data, shape (n,)."""
        return np.ones(len(self.y)) if self.condensed is None else self.condensed.ones

    @property
    def is_paired(self) -> bool:
        """Whether the data are known by pairs of levels, so that no row has a level."""
        return self.condensed is not None and self.condensed.pairs is not None

    @property
    def log_weights(self) -> Array:
        """The logarithms of the weights, shape (n,), where several rows' their sum."""
        return np.log(self.weights) if self.condensed is None else self.condensed.log_weights

    def counts(self, codes: Codes, size: int) -> Codes:
        """Return the number of rows of the data with each code."""
        if self.condensed is None:
            return np.bincount(codes, minlength=size)
        counts = np.zeros(size, dtype=np.int64)
        np.add.at(counts, codes, self.condensed.counts)
        return counts

    def mean(self, column: Array) -> float:
        """Return the mean of a column over the rows of the data."""
        if self.condensed is None:
            return float(np.mean(column))
        return float(self.ones @ column / self.n)

    def spread(self, column: Array) -> float:
        """Return the standard deviation of a column, exactly 0 for a constant."""
        if self.condensed is None:
            return float(np.std(column, ddof=1)) if np.ptp(column) > 0 else 0.0
        squares = float(np.sum((column - self.mean(column) * self.ones) ** 2))
        is_constant = squares <= ROUNDING**2 * float(column @ column)
        return 0.0 if is_constant else float(np.sqrt(squares / (self.n - 1)))

    def levels_with(self, t: int, j: int) -> Codes:
        """Return the levels of a term that have a row in which its column j is not zero."""
        pairs = None if self.condensed is None else self.condensed.pairs
        if pairs is None:
            return np.unique(self.terms[t].codes[self.terms[t].columns[:, j] != 0])
        change = pairs.changes[t][:, j]
        squares = change @ pairs.own[t] @ change
        return np.flatnonzero(squares > ROUNDING * squares.max(initial=0.0))

    def at(self, places: slice | Places | Flags) -> Rows:
        """Return some of these rows, with all levels."""
        names = "X", "y", "weights", "offset", "index"
        kept: dict[str, Any] = {name: getattr(self, name)[places] for name in names}
        return replace(self, **kept, terms=tuple(term.at(places) for term in self.terms))

    def term(self, label: str) -> TermRows:
        """Return the rows of the term of a label."""
        return next(t for t in self.terms if t.label == label)
