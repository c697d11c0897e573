"""The summary of a linear model's data: cross-products by cell of the grouping factors, which add.

A Gaussian likelihood needs of its data cross-products alone. A summary holds them as fewer rows
that have the same ones (`triangular_rows`), with what the design and the default priors ask
besides: levels of factors, ranges of predictors, numbers of rows. Summaries of parts of the data
add up to that of all, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, FilePath
from ranef.design.data_frame import CompleteRows
from ranef.design.design import CodedPart, Design, assembled
from ranef.design.evaluate import Interpreter
from ranef.design.groups import Factor, PairedFactor, joint
from ranef.design.model_matrix import Columns, code, nearest_place
from ranef.design.rows.pair_sums import PairSums
from ranef.design.rows.rows import Condensed, Rows
from ranef.errors import DataError, FitError, listed
from ranef.formula.terms import Formula, columns_of
from ranef.model.summaries import stored_summary
from ranef.model.summaries.stand_ins import coded_factors, interpreter_of, ranges_of
from ranef.model.summaries.triangular_rows import condensed_rows
from ranef.numerics.memory import WithoutCaches


@dataclass(frozen=True, eq=False)
class Grouping:
    """The levels of a grouping factor, and the one of each row of a summary.

    Attributes
    ----------
    levels : pandas.Index
    codes : ndarray of int, shape (r,)
    """

    levels: pd.Index[Any]
    codes: Codes


@dataclass(frozen=True, eq=False)
class DataSummary(WithoutCaches):
    """What data tell a linear mixed model: their cross-products, without their rows.

    `rf.summarize` makes it. Summaries of one formula, with the same levels of the factors that are
    coded as columns, add up: `s1 + s2` is the summary of all their rows, and `rf.Model(s)` the
    model of them.

    Attributes
    ----------
    formula : Formula
    response : str
    names : tuple of str
        The names of the fixed columns and, term by term, of the random ones.
    levels : mapping of str to Index
        Of all factors by label.
    ranges : DataFrame
        The smallest and largest value of each measured column, in two rows.
    groupings : tuple of Grouping
        Of the random terms, in the formula's order.
    columns : ndarray, shape (r, c)
        Ones, the named columns, offset and response of rows that have the cross-products of the
        data, times the roots of the weights.
    counts : ndarray of int, shape (r,)
        How many rows of the data they stand for; those of a cell at its first.
    log_weights : ndarray, shape (r,)
        The sum of the logarithms of their weights, likewise.
    unweighted : ndarray, shape (u, c), or None
        Rows with the cross-products that the data have without weights, where these are not one.
    offset : str or None
        The name of the column given as `offset=`.
    pairs : PairSums or None
        Of a model of lazy data with many combinations of levels: cross-products by pairs of levels,
        the rows being those of all data together.
    left_out : int
        How many more rows there were, which miss a value.
    """

    formula: Formula
    response: str
    names: tuple[str, ...]
    levels: Mapping[str, pd.Index[Any]]
    ranges: pd.DataFrame
    groupings: tuple[Grouping, ...]
    columns: Array
    counts: Codes
    log_weights: Array
    unweighted: Array | None
    offset: str | None
    pairs: PairSums | None
    left_out: int = 0

    @property
    def n_obs(self) -> int:
        """The number of rows of the data."""
        return int(self.counts.sum())

    @property
    def n_groups(self) -> dict[str, int]:
        """The number of levels of each grouping factor."""
        parts = zip(self.formula.random, self.groupings, strict=True)
        return {part.factor: len(grouping.levels) for part, grouping in parts}

    def __repr__(self) -> str:
        groups = ", ".join(f"{count:,} {name}" for name, count in self.n_groups.items())
        many = "all" if self.pairs is not None else f"{len(np.unique(self._cells)):,}"
        of = f" of {many} cells ({groups})" if groups else ""
        few = f"{len(self.columns):,} rows have the same cross-products"
        return f"{self.formula.text}\n  summary of {self.n_obs:,} rows{of}: {few}"

    def __add__(self, other: DataSummary) -> DataSummary:
        """Return the summary of the rows of both.

        Raises
        ------
        DataError
            If they are of other formulas, columns or levels.
        """
        if not isinstance(other, DataSummary):
            return NotImplemented
        self._check_alike(other)
        levels = dict(self.levels)
        for label in levels.keys() - self.shared_levels:
            levels[label] = _united(self.levels[label], other.levels[label])
        groupings = [_joined(*pair) for pair in zip(self.groupings, other.groupings, strict=True)]
        has_weights = self.unweighted is not None or other.unweighted is not None
        both = self._unweighted, other._unweighted
        return replace(
            self,
            levels=levels,
            ranges=ranges_of(pd.concat([self.ranges, other.ranges])),
            groupings=tuple(groupings),
            columns=np.concatenate([self.columns, other.columns]),
            counts=np.concatenate([self.counts, other.counts]),
            log_weights=np.concatenate([self.log_weights, other.log_weights]),
            unweighted=np.concatenate(both) if has_weights else None,
            left_out=self.left_out + other.left_out,
        ).condensed()

    def __radd__(self, other: object) -> DataSummary:
        """Return the summary itself where it is added to 0, so that `sum` of several works."""
        return self if type(other) is int and other == 0 else NotImplemented

    def save(self, path: FilePath) -> None:
        """Write the summary into one file, which `ranef.load` reads.

        Parameters
        ----------
        path : path
            A file that is there already is replaced.

        Raises
        ------
        FileNotFoundError
            If there is no folder for the file.
        """
        stored_summary.save(path, self)

    def with_formula(self, formula: Formula) -> DataSummary:
        """Return the summary for another formula of the same response, of columns that are here.

        Raises
        ------
        FitError
            If it needs columns that the summary does not have.
        """
        self._check_cells("takes no other formula")
        of, needed = (
            [str(node) for node in (one.response, *one.offsets)] for one in (self.formula, formula)
        )
        if needed != of:
            message = f"the summary of `{self.formula.text}` has the sums of {listed(of)}, and "
            message += (
                f"`{formula.text}` needs those of {listed(needed)}. Summarise the data for it."
            )
            raise FitError(message)
        X, Zs = _coded(self.formula, self._interpreter(self.formula))
        places: dict[tuple[str, str], tuple[int, int]] = {}
        place = 1 + len(X.names)
        for number, (part, Z) in enumerate(zip(self.formula.random, Zs, strict=True)):
            for name in Z.names:
                places[part.factor, name] = number, place
                place += 1
        other_X, new = _coded(formula, self._interpreter(formula))
        wanted = [
            (part, [(part.factor, name) for name in Z.names])
            for part, Z in zip(formula.random, new, strict=True)
        ]
        unknown = [name for name in other_X.names if name not in X.names]
        unknown += [
            " of ".join(reversed(key)) for _, keys in wanted for key in keys if key not in places
        ]
        if unknown:
            message = f"the summary of `{self.formula.text}` does not have the columns of "
            message += f"`{formula.text}`: {listed(unknown)}. Summarise the data for it."
            raise FitError(message)
        fixed = [1 + X.names.index(name) for name in other_X.names]
        kept = [0, *fixed, *(places[key][1] for _, keys in wanted for key in keys), -2, -1]
        return replace(
            self,
            formula=formula,
            names=names_of(other_X, new),
            groupings=tuple(self.groupings[places[keys[0]][0]] for _, keys in wanted),
            columns=self.columns[:, kept],
            unweighted=None if self.unweighted is None else self.unweighted[:, kept],
        )

    @cached_property
    def design(self) -> Design:
        """The design of the model, whose rows are those of the summary."""
        design = self._design(self.columns, self.counts, self.log_weights)
        if self.unweighted is None:
            return design
        counts = np.zeros(len(self.unweighted), dtype=np.int64)
        counts[0] = self.n_obs
        unweighted = self._design(self.unweighted, counts, np.zeros(len(counts))).sufficient
        condensed = design.sufficient.condensed
        assert condensed is not None
        return design.with_rows(condensed=replace(condensed, unweighted=unweighted))

    def _design(self, columns: Array, counts: Codes, log_weights: Array) -> Design:
        """Return the design of rows that stand for those of the data."""
        formula, interpreter = self.formula, self._interpreter(self.formula)
        X, Zs = _coded(formula, interpreter)
        if (names := names_of(X, Zs)) != self.names:
            message = f"the summary has the columns {listed(self.names)}, and its formula makes "
            raise FitError(f"{message}{listed(names)}: it is of another version of ranef.")
        ends = np.cumsum([1, *(len(one.names) for one in (X, *Zs)), 1])
        ones, of_X, *of_Zs, offset, y = np.split(columns, ends, axis=1)
        random = [
            CodedPart(part, replace(Z, values=values), factor, nearest_place(interpreter, Z))
            for part, Z, values, factor in zip(
                formula.random, Zs, of_Zs, self._factors(), strict=True
            )
        ]
        rows = Rows(
            X=of_X,
            y=y[:, 0],
            weights=np.ones(len(y)),
            offset=offset[:, 0],
            terms=(),
            index=pd.RangeIndex(len(y)),
            data=CompleteRows(interpreter.frame, None, None, self.left_out),
            condensed=Condensed(ones[:, 0], counts, log_weights, unweighted=None),
        )
        X, labels = replace(X, values=of_X), (self.response, "")
        made = assembled(interpreter, formula, X, random, rows, labels=labels, offset=self.offset)
        if self.pairs is None:
            return made
        numbers = {id(part): number for number, part in enumerate(formula.random)}
        order = [numbers[id(part)] for part, _ in made.recipe.random]
        condensed = Condensed(ones[:, 0], counts, log_weights, None, self.pairs.reordered(order))
        return made.with_rows(condensed=condensed)

    def _factors(self) -> list[Factor]:
        """Return the grouping factors of the random terms, in the formula's order."""
        names = [part.factor for part in self.formula.random]
        named = [*zip(names, self.groupings, strict=True)]
        if self.pairs is None:
            return [Factor(name, one.levels, one.codes, one.codes) for name, one in named]
        met: list[dict[str, tuple[Codes, Codes]]] = [{} for _ in names]
        for i, j in combinations(range(len(names)), 2):
            table = self.pairs.table(i, j)
            met[i][names[j]] = table.first, table.second
            met[j][names[i]] = table.second, table.first
        pairs = zip(named, met, strict=True)
        return [PairedFactor(name, one.levels, with_) for (name, one), with_ in pairs]

    @property
    def _unweighted(self) -> Array:
        return self.columns if self.unweighted is None else self.unweighted

    @property
    def shared_levels(self) -> set[str]:
        """The labels of the factors that are coded as columns."""
        factors = coded_factors(self.formula)
        return {*map(str, factors), *columns_of(factors)} & set(self.levels)

    @property
    def _cells(self) -> Codes:
        return _cells([grouping.codes for grouping in self.groupings], len(self.columns))

    def _interpreter(self, formula: Formula) -> Interpreter:
        """Return an interpreter of rows that stand in for those of the data."""
        return interpreter_of(formula, self.ranges, self.levels, len(self.names))

    def condensed(self) -> DataSummary:
        """Return the summary with the fewest rows that have its cross-products in every cell."""
        cells = self._cells
        found, cell = condensed_rows(self.columns, cells)
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        counts, log_weights = np.zeros(len(found), dtype=np.int64), np.zeros(len(found))
        np.add.at(counts, first[cells], self.counts)
        np.add.at(log_weights, first[cells], self.log_weights)
        places = np.unique(cells, return_index=True)[1][cell]
        unweighted = self.unweighted
        if unweighted is not None:
            unweighted, _ = condensed_rows(unweighted, np.zeros(len(unweighted), dtype=np.int64))
        return replace(
            self,
            groupings=tuple(replace(g, codes=g.codes[places]) for g in self.groupings),
            columns=found,
            counts=counts,
            log_weights=log_weights,
            unweighted=unweighted,
        )

    def _check_cells(self, does: str) -> None:
        """Refuse a summary that has no cells."""
        if self.pairs is not None:
            message = (
                f"the model of lazy data `{self.formula.text}` has cross-products by pairs of "
            )
            message += f"levels, and {does}: summarise the data with rf.summarize, which has those "
            raise DataError(f"{message}of all combinations of levels.")

    def _check_alike(self, other: DataSummary) -> None:
        """Refuse summaries that do not add up."""
        self._check_cells("takes no more rows")
        other._check_cells("adds to no other")
        if self.formula.text != other.formula.text:
            message = f"summaries of two formulas do not add up: `{self.formula.text}` and "
            raise DataError(f"{message}`{other.formula.text}`.")
        for label in sorted(self.shared_levels):
            first, second = self.levels[label], other.levels.get(label, pd.Index([]))
            if not first.equals(second):
                raise DataError(
                    f"the summaries have different levels of `{label}`, {listed(first)} and "
                    f"{listed(second)}: give both the same, `levels={{{label!r}: [...]}}`."
                )
        if self.names != other.names or list(self.ranges) != list(other.ranges):
            message = "the summaries have different columns: "
            only = listed({*self.names, *self.ranges} ^ {*other.names, *other.ranges})
            raise DataError(f"{message}{only} in one of them only.")
        if self.offset != other.offset:
            message = (
                f"one summary has offset={self.offset!r} and the other offset={other.offset!r}: "
            )
            raise DataError(f"{message}give both the same.")


def _coded(formula: Formula, rows: Interpreter) -> tuple[Columns, list[Columns]]:
    """Return the columns of a formula's fixed and random terms, of rows that stand in."""
    return code(rows, formula.fixed), [code(rows, part.terms) for part in formula.random]


def _cells(codes: Sequence[Codes], n: int) -> Codes:
    """Return the combination of levels of each row, numbered from 0."""
    return joint(codes) if codes else np.zeros(n, dtype=np.int64)


def names_of(X: Columns, Zs: Sequence[Columns]) -> tuple[str, ...]:
    """Return the names of the fixed columns and of the random ones, term by term."""
    return (*X.names, *(name for Z in Zs for name in Z.names))


# ------------------------------------------------------------------------------ adding summaries


def _joined(one: Grouping, other: Grouping) -> Grouping:
    levels = _united(one.levels, other.levels)
    codes = [levels.get_indexer(each.levels)[each.codes] for each in (one, other)]
    return Grouping(levels, np.concatenate(codes).astype(np.int64))


def _united(one: pd.Index[Any], other: pd.Index[Any]) -> pd.Index[Any]:
    """Return the levels of both, sorted where both are."""
    new = other[~other.isin(one)]
    both = one.append(new) if len(new) else one
    are_sorted = one.is_monotonic_increasing and other.is_monotonic_increasing
    return both.sort_values() if len(new) and are_sorted else both
