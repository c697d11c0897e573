"""The summary of a linear model's data: cross-products by cell of the grouping factors, which add.

A Gaussian likelihood needs of its data cross-products alone. A summary holds them as fewer rows
that have the same ones (`triangular_rows`), with what the design and the default priors ask besides:
the levels of factors, the ranges of predictors, the numbers of rows. Summaries of parts of the data
add up to that of all, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Codes
from ranef.design.data_frame import CompleteRows, plain
from ranef.design.design import CodedPart, Condensed, Design, Rows, assembled, build_design
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.groups import Factor, joint
from ranef.design.model_matrix import Columns, code, nearest_place
from ranef.errors import DataError, FitError, listed, suggestion
from ranef.families.family import Family
from ranef.formula.syntax import Node
from ranef.formula.terms import Formula, columns_of, read_formula
from ranef.model.summaries import stored_summary
from ranef.model.summaries.triangular_rows import triangular_rows
from ranef.numerics.memory import WithoutCaches

SPANNING_ROWS = 4  # for each level and column, of a frame that stands in for the data


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
class Summary(WithoutCaches):
    """What data tell a linear mixed model: their cross-products, without their rows.

    `rf.summarize` makes it. Summaries of one formula, with the same levels of the factors that are
    coded as columns, add up: `s1 + s2` is the summary of all their rows. `rf.Model(s)` is the model.

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
        of = f" of {len(np.unique(self._cells)):,} cells ({groups})" if groups else ""
        return (
            f"{self.formula.text}\n  summary of {self.n_obs:,} rows{of}: {len(self.columns):,} rows "
            "have the same cross-products"
        )

    def __add__(self, other: Summary) -> Summary:
        """Return the summary of the rows of both.

        Raises
        ------
        DataError
            If they are of other formulas, columns or levels.
        """
        if not isinstance(other, Summary):
            return NotImplemented
        _check_alike(self, other)
        levels = dict(self.levels)
        for label in levels.keys() - self._shared_levels:
            levels[label] = _united(self.levels[label], other.levels[label])
        groupings = [
            _joined(*pair) for pair in zip(self.groupings, other.groupings, strict=True)
        ]
        has_weights = self.unweighted is not None or other.unweighted is not None
        both = pd.concat([self.ranges, other.ranges])
        return condensed(
            replace(
                self,
                levels=levels,
                ranges=_ranges(both),
                groupings=tuple(groupings),
                columns=np.concatenate([self.columns, other.columns]),
                counts=np.concatenate([self.counts, other.counts]),
                log_weights=np.concatenate([self.log_weights, other.log_weights]),
                unweighted=np.concatenate([self._unweighted, other._unweighted])
                if has_weights
                else None,
            )
        )

    def __radd__(self, other: object) -> Summary:
        """Return the summary itself where it is added to 0, so that `sum` of several works."""
        if other == 0 and not isinstance(other, Summary):
            return self
        return NotImplemented

    def save(self, path: str | PathLike[str]) -> None:
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

    def with_random_effects(self, formula: Formula) -> Summary:
        """Return the summary for a formula with other random effects, of columns that are here.

        Raises
        ------
        FitError
            If it needs columns that the summary does not have.
        """
        X, Zs = _coded(self, self.formula)
        places: dict[tuple[str, str], tuple[int, int]] = {}
        place = 1 + len(X.names)
        for number, (part, Z) in enumerate(zip(self.formula.random, Zs, strict=True)):
            for name in Z.names:
                places[part.factor, name] = number, place
                place += 1
        same_X, new = _coded(self, formula)
        wanted = [
            (part, [(part.factor, name) for name in Z.names])
            for part, Z in zip(formula.random, new, strict=True)
        ]
        unknown = [key for _, keys in wanted for key in keys if key not in places]
        if unknown or same_X.names != X.names:
            missing = listed(" of ".join(reversed(key)) for key in unknown) or listed(same_X.names)
            message = f"the summary of `{self.formula.text}` does not have the columns of "
            raise FitError(f"{message}`{formula.text}`: {missing}. Summarise the data for it.")
        chosen = [places[key][1] for _, keys in wanted for key in keys]
        kept = [*range(1 + len(X.names)), *chosen, -2, -1]
        return replace(
            self,
            formula=formula,
            names=_names(X, new),
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
        formula, interpreter = self.formula, _interpreter(self)
        X, Zs = _coded(self, formula)
        if (names := _names(X, Zs)) != self.names:
            message = f"the summary has the columns {listed(self.names)}, and its formula makes "
            raise FitError(f"{message}{listed(names)}: it is of another version of ranef.")
        ends = np.cumsum([1, *(len(one.names) for one in (X, *Zs)), 1])
        ones, of_X, *of_Zs, offset, y = np.split(columns, ends, axis=1)
        random = [
            CodedPart(
                part,
                replace(Z, values=values),
                Factor(part.factor, grouping.levels, grouping.codes, grouping.codes),
                nearest_place(interpreter, Z),
            )
            for part, Z, values, grouping in zip(
                formula.random, Zs, of_Zs, self.groupings, strict=True
            )
        ]
        rows = Rows(
            X=of_X,
            y=y[:, 0],
            weights=np.ones(len(y)),
            offset=offset[:, 0],
            terms=(),
            index=pd.RangeIndex(len(y)),
            data=CompleteRows(interpreter.frame, None, None),
            condensed=Condensed(ones[:, 0], counts, log_weights, unweighted=None),
        )
        X, labels = replace(X, values=of_X), (self.response, "")
        return assembled(interpreter, formula, X, random, rows, labels=labels, offset=self.offset)

    @property
    def _unweighted(self) -> Array:
        return self.columns if self.unweighted is None else self.unweighted

    @property
    def _shared_levels(self) -> set[str]:
        """The labels of the factors that are coded as columns."""
        return {str(factor) for factor in _coded_factors(self.formula)} & set(self.levels)

    @property
    def _cells(self) -> Codes:
        return _cells([grouping.codes for grouping in self.groupings], len(self.columns))


def summarize(
    formula: str,
    data: object,
    *,
    levels: Mapping[str, Sequence[object]] | None = None,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    missing: str = "drop",
    min_rows: int | None = None,
) -> Summary:
    """Return the summary of a linear model's data: its cross-products, without rows.

    Parameters
    ----------
    formula : str
        As of `Model`. Transforms that learn from the data, as `scale(x)`, `poly(x, 2)` and splines
        do, would mean something else in every part of the data: make columns of them before.
    data : DataFrame
    levels : mapping of str to sequence, optional
        The levels of factors that are coded as columns, by name, in their order: what the parts of
        the data that are to be added agree on. By default those that occur.
    weights, offset : str or array, optional
        As of `Model`.
    missing : {"drop", "raise"}
        As of `Model`.
    min_rows : int, optional
        The fewest rows that a cell, a combination of levels of the grouping factors, may have. By
        default one more than the summary has columns, so that no cell's rows can be had from it;
        0 where nothing is to be kept private.

    Returns
    -------
    Summary

    Raises
    ------
    FormulaError, DataError
        As of `Model`; if a factor has levels that are not among `levels`, or a cell too few rows.

    Notes
    -----
    A summary reveals of each cell the number of its rows and the sums, sums of squares and of
    products of its columns: means, standard deviations and correlations of response and predictors.
    With more rows than columns no row follows from them. The ranges of measured predictors and the
    labels of all levels are in it too.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.load_dataset("sleepstudy")
    >>> formula, half = "Reaction ~ Days + (Days | Subject)", sleep["Subject"] < "340"
    >>> one, other = rf.summarize(formula, sleep[half]), rf.summarize(formula, sleep[~half])
    >>> one + other
    Reaction ~ Days + (Days | Subject)
      summary of 180 rows of 18 cells (18 Subject): 54 rows have the same cross-products
    >>> rf.Model(one + other).fit().fixef().round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    read = read_formula(formula, {})
    given = {label: pd.Index(list(known)) for label, known in (levels or {}).items()}
    _check_levels(given, read)
    design = build_design(
        read, data, weights=weights, offset=offset, missing=missing, levels=given
    )
    rows, recipe = design.rows, design.recipe
    if recipe.memory.states:
        message = f"{listed(recipe.memory.states)} would mean something else in other data, and a "
        raise DataError(f"{message}summary is to be added to others: make columns of it before.")
    by_part = {id(part): (Z, term.grouping) for (part, Z), term in zip(recipe.random, rows.terms, strict=True)}
    parts = [by_part[id(part)] for part in read.random]
    columns = np.column_stack(
        [np.ones(len(rows.y)), rows.X, *(Z.values for Z, _ in parts), rows.offset, rows.y]
    )
    frame = rows.data.columns
    summary = condensed(
        Summary(
            formula=read,
            response=design.response,
            names=_names(recipe.X, [Z for Z, _ in parts]),
            levels=dict(recipe.memory.levels),
            ranges=_ranges(frame[[str(name) for name in read.predictors()]]),
            groupings=tuple(Grouping(factor.levels, factor.codes) for _, factor in parts),
            columns=columns * np.sqrt(rows.weights)[:, None],
            counts=np.ones(len(columns), dtype=np.int64),
            log_weights=np.log(rows.weights),
            unweighted=columns if design.has_weights else None,
            offset=recipe.offset,
        )
    )
    _check_counts(summary, min_rows)
    return summary


def from_file(path: str | PathLike[str], record: Mapping[str, Any]) -> Summary:
    """Return the summary in a file, whose record is given."""
    fields = stored_summary.fields(path, record)
    groupings = tuple(Grouping(levels, codes) for levels, codes in fields.pop("groupings"))
    return Summary(**fields, groupings=groupings)


def condensed(summary: Summary) -> Summary:
    """Return the summary with the fewest rows that have its cross-products in every cell."""
    cells = summary._cells  # noqa: SLF001 -- its own
    found, cell = _triangular(summary.columns, cells)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    counts, log_weights = np.zeros(len(found), dtype=np.int64), np.zeros(len(found))
    np.add.at(counts, first[cells], summary.counts)
    np.add.at(log_weights, first[cells], summary.log_weights)
    places = np.unique(cells, return_index=True)[1][cell]
    unweighted = summary.unweighted
    if unweighted is not None:
        unweighted, _ = _triangular(unweighted, np.zeros(len(unweighted), dtype=np.int64))
    return replace(
        summary,
        groupings=tuple(replace(g, codes=g.codes[places]) for g in summary.groupings),
        columns=found,
        counts=counts,
        log_weights=log_weights,
        unweighted=unweighted,
    )


def _triangular(columns: Array, cells: Codes) -> tuple[Array, Codes]:
    """Return `triangular_rows` in which equal columns stay equal, and columns of zeros zero."""
    distinct, copies = _distinct(columns)
    is_used = distinct.any(axis=0)
    found, cell = triangular_rows(distinct[:, is_used], cells)
    rows = np.zeros((len(found), distinct.shape[1]))
    rows[:, is_used] = found
    return rows[:, copies], cell


def _distinct(columns: Array) -> tuple[Array, Codes]:
    """Return the different columns, and which of them each column is."""
    first: dict[bytes, int] = {}
    copies = np.array([first.setdefault(column.tobytes(), len(first)) for column in columns.T])
    return columns[:, np.unique(copies, return_index=True)[1]], copies


def _cells(self) -> Codes:
        return _cells([grouping.codes for grouping in self.groupings], len(self.columns))


def summarize(
    formula: str,
    data: object,
    *,
    levels: Mapping[str, Sequence[object]] | None = None,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    missing: str = "drop",
    min_rows: int | None = None,
) -> Summary:
    """Return the summary of a linear model's data: its cross-products, without rows.

    Parameters
    ----------
    formula : str
        As of `Model`. Transforms that learn from the data, as `scale(x)`, `poly(x, 2)` and splines
        do, would mean something else in every part of the data: make columns of them before.
    data : DataFrame
    levels : mapping of str to sequence, optional
        The levels of factors that are coded as columns, by name, in their order: what the parts of
        the data that are to be added agree on. By default those that occur.
    weights, offset : str or array, optional
        As of `Model`.
    missing : {"drop", "raise"}
        As of `Model`.
    min_rows : int, optional
        The fewest rows that a cell, a combination of levels of the grouping factors, may have. By
        default one more than the summary has columns, so that no cell's rows can be had from it;
        0 where nothing is to be kept private.

    Returns
    -------
    Summary

    Raises
    ------
    FormulaError, DataError
        As of `Model`; if a factor has levels that are not among `levels`, or a cell too few rows.

    Notes
    -----
    A summary reveals of each cell the number of its rows and the sums, sums of squares and of
    products of its columns: means, standard deviations and correlations of response and predictors.
    With more rows than columns no row follows from them. The ranges of measured predictors and the
    labels of all levels are in it too.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.load_dataset("sleepstudy")
    >>> formula, half = "Reaction ~ Days + (Days | Subject)", sleep["Subject"] < "340"
    >>> one, other = rf.summarize(formula, sleep[half]), rf.summarize(formula, sleep[~half])
    >>> one + other
    Reaction ~ Days + (Days | Subject)
      summary of 180 rows of 18 cells (18 Subject): 54 rows have the same cross-products
    >>> rf.Model(one + other).fit().fixef().round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    read = read_formula(formula, {})
    given = {label: pd.Index(list(known)) for label, known in (levels or {}).items()}
    _check_levels(given, read)
    design = build_design(
        read, data, weights=weights, offset=offset, missing=missing, levels=given
    )
    rows, recipe = design.rows, design.recipe
    if recipe.memory.states:
        message = f"{listed(recipe.memory.states)} would mean something else in other data, and a "
        raise DataError(f"{message}summary is to be added to others: make columns of it before.")
    by_part = {id(part): (Z, term.grouping) for (part, Z), term in zip(recipe.random, rows.terms, strict=True)}
    parts = [by_part[id(part)] for part in read.random]
    columns = np.column_stack(
        [np.ones(len(rows.y)), rows.X, *(Z.values for Z, _ in parts), rows.offset, rows.y]
    )
    frame = rows.data.columns
    summary = condensed(
        Summary(
            formula=read,
            response=design.response,
            names=_names(recipe.X, [Z for Z, _ in parts]),
            levels=dict(recipe.memory.levels),
            ranges=_ranges(frame[[str(name) for name in read.predictors()]]),
            groupings=tuple(Grouping(factor.levels, factor.codes) for _, factor in parts),
            columns=columns * np.sqrt(rows.weights)[:, None],
            counts=np.ones(len(columns), dtype=np.int64),
            log_weights=np.log(rows.weights),
            unweighted=columns if design.has_weights else None,
            offset=recipe.offset,
        )
    )
    _check_counts(summary, min_rows)
    return summary


def from_file(path: str | PathLike[str], record: Mapping[str, Any]) -> Summary:
    """Return the summary in a file, whose record is given."""
    fields = stored_summary.fields(path, record)
    groupings = tuple(Grouping(levels, codes) for levels, codes in fields.pop("groupings"))
    return Summary(**fields, groupings=groupings)


def condensed(summary: Summary) -> Summary:
    """Return the summary with the fewest rows that have its cross-products in every cell."""
    cells = summary._cells  # noqa: SLF001 -- its own
    found, cell = _triangular(summary.columns, cells)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    counts, log_weights = np.zeros(len(found), dtype=np.int64), np.zeros(len(found))
    np.add.at(counts, first[cells], summary.counts)
    np.add.at(log_weights, first[cells], summary.log_weights)
    places = np.unique(cells, return_index=True)[1][cell]
    unweighted = summary.unweighted
    if unweighted is not None:
        unweighted, _ = _triangular(unweighted, np.zeros(len(unweighted), dtype=np.int64))
    return replace(
        summary,
        groupings=tuple(replace(g, codes=g.codes[places]) for g in summary.groupings),
        columns=found,
        counts=counts,
        log_weights=log_weights,
        unweighted=unweighted,
    )


def _distinct(columns: Array) -> tuple[Array, Codes]:
    """Return the different columns, and which of them each column is: equal ones stay equal."""
    first: dict[bytes, int] = {}
    copies = np.array([first.setdefault(column.tobytes(), len(first)) for column in columns.T])
    return columns[:, np.unique(copies, return_index=True)[1]], copies


def _cells(codes: Sequence[Codes], n: int) -> Codes:
    """Return the combination of levels of each row, numbered from 0."""
    return joint(codes) if codes else np.zeros(n, dtype=np.int64)


def _names(X: Columns, Zs: Sequence[Columns]) -> tuple[str, ...]:
    return (*X.names, *(name for Z in Zs for name in Z.names))


def _coded_factors(formula: Formula) -> list[Node]:
    terms = [*formula.fixed, *(term for part in formula.random for term in part.terms)]
    return [factor for term in terms for factor in term.factors]


# --------------------------------------------------------------- a frame that stands in for the data


def _ranges(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest and the largest value of each column of numbers or truth values."""
    measured = {name: plain(column) for name, column in frame.items()}
    return pd.DataFrame(
        {
            name: [values.min(), values.max()]
            for name, values in measured.items()
            if values.dtype.kind in "biuf"
        }
    )


def _spanning_frame(summary: Summary) -> pd.DataFrame:
    """Return rows with all levels of the factors and the ends of the ranges of other columns.

    Between these they are scattered, so that columns that depend on each other here do so in any
    data.
    """
    coded, rng = summary._shared_levels, np.random.default_rng(0)  # noqa: SLF001 -- its own
    known = {label: summary.levels[label] for label in sorted(coded)}
    size = 2 + SPANNING_ROWS * (len(summary.names) + sum(map(len, known.values())))
    frame: dict[str, Any] = {}
    for name, ends in summary.ranges.items():
        low, high = ends
        share = np.concatenate([[0.0, 1.0], rng.random(size - 2)])
        values = low + share * (float(high) - float(low))
        frame[str(name)] = values if ends.dtype.kind == "f" else np.rint(values).astype(ends.dtype)
    for node in _coded_factors(summary.formula):
        for name in columns_of([node]):
            label = next((one for one in (name, str(node)) if one in known), None)
            if label is not None:
                frame[name] = rng.permutation(np.resize(np.arange(len(known[label])), size))
                frame[name] = known[label].to_numpy()[frame[name]]
    return pd.DataFrame(frame, index=pd.RangeIndex(size))


def _interpreter(summary: Summary) -> Interpreter:
    memory = Memory({}, dict(summary.levels))
    return Interpreter(_spanning_frame(summary), summary.formula.text, memory, {})


def _coded(summary: Summary, formula: Formula) -> tuple[Columns, list[Columns]]:
    """Return the columns of a formula's fixed and random terms, of rows that stand in for the data."""
    interpreter = _interpreter(summary)
    return code(interpreter, formula.fixed), [code(interpreter, p.terms) for p in formula.random]


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


# --------------------------------------------------------------------------------------- checks


def check_alone(family: Family, *others: object) -> None:
    """Refuse a family, data or options beside a summary, which has its own."""
    if not family.is_linear:
        message = f"a summary has what a Gaussian model needs, and no rows: a {family.name} model "
        raise FitError(f"{message}needs the data themselves.")
    if any(one is not None for one in others):
        message = "a model of a summary takes no data, weights, offset or functions: these were "
        raise FitError(f"{message}told to `summarize`.")


def _check_levels(given: Mapping[str, pd.Index[Any]], formula: Formula) -> None:
    """Refuse levels of what is no factor of the formula, and levels that are named twice."""
    labels = columns_of(_coded_factors(formula))
    for label, levels in given.items():
        if label not in labels:
            message = f"levels= names `{label}`, which is no column of the terms of the formula. "
            raise DataError(f"{message}{suggestion(label, labels)}")
        if not levels.is_unique:
            raise DataError(f"levels= names {listed(levels[levels.duplicated()])} of `{label}` twice.")


def _check_alike(one: Summary, other: Summary) -> None:
    """Refuse summaries that do not add up."""
    if one.formula.text != other.formula.text:
        message = f"summaries of two formulas do not add up: `{one.formula.text}` and "
        raise DataError(f"{message}`{other.formula.text}`.")
    for label in sorted(one._shared_levels):  # noqa: SLF001 -- its own
        first, second = one.levels[label], other.levels.get(label, pd.Index([]))
        if not first.equals(second):
            raise DataError(
                f"the summaries have different levels of `{label}`, {listed(first)} and "
                f"{listed(second)}: give both the same, `levels={{{label!r}: [...]}}`."
            )
    if one.names != other.names or list(one.ranges) != list(other.ranges):
        message = "the summaries have different columns: "
        only = listed({*one.names, *one.ranges} ^ {*other.names, *other.ranges})
        raise DataError(f"{message}{only} in one of them only.")
    if one.offset != other.offset:
        message = f"one summary has offset={one.offset!r} and the other offset={other.offset!r}: "
        raise DataError(f"{message}give both the same.")


def _check_counts(summary: Summary, min_rows: int | None) -> None:
    """Refuse cells of so few rows that the summary gives them away."""
    width = len(np.unique(_distinct(summary.columns)[1]))
    needed = width + 1 if min_rows is None else min_rows
    counts = summary.counts[summary.counts > 0]
    few = np.flatnonzero(counts < needed)
    if not len(few):
        return
    first = np.flatnonzero(summary.counts > 0)[few]
    names = [
        ":".join(str(g.levels[g.codes[place]]) for g in summary.groupings) for place in first
    ]
    cells = " x ".join(part.factor for part in summary.formula.random) or "the data"
    raise DataError(
        f"{len(few)} of {len(counts)} cells of {cells} have fewer than {needed} rows "
        f"({listed(names)}), so that a summary gives their rows away: leave them out, or allow it "
        "with min_rows=0 where that is no secret."
    )
