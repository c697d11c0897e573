"""The matrices of new data, by the recipe that made a model's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Flags, Places
from ranef.design.data_frame import Source, complete_new_rows, open_frame
from ranef.design.design import Design, RandomTerm, grouping_of, offset_of
from ranef.design.evaluate import Interpreter
from ranef.design.groups import one_new_level
from ranef.design.model_matrix import Columns, code
from ranef.design.rows.rows import Rows, TermRows
from ranef.errors import DataError, DataWarning, listed, warn
from ranef.formula.syntax import Node
from ranef.formula.terms import RandomPart, columns_of
from ranef.numerics.matrices import ReadOnly

OF_NO_KNOWN_GROUP = (
    "predict with groups='new' (a new group, its effects drawn from their distribution), "
    "groups='population' (a typical group, effects of zero) or groups='average' (the mean over "
    "groups)."
)

type Wanted = tuple[RandomTerm, RandomPart, Columns]


@dataclass(frozen=True, eq=False)
class NewRows(ReadOnly):
    """The matrices of rows to predict: as `Rows`, without a response.

    Attributes
    ----------
    X : ndarray, shape (n, p)
    terms : tuple of TermRows
        The random terms that take part.
    offset : ndarray, shape (n,)
    weights : ndarray, shape (n,)
        Prior weights: those of the model's own rows, and one for new rows.
    index : pandas.Index
        Labels of these rows.
    places : ndarray of int, shape (n,)
        Where these rows stand in the data: those that are complete and have an estimable mean.
    asked : pandas.Index
        Labels of all rows of the data.
    """

    X: Array
    terms: tuple[TermRows, ...]
    offset: Array
    weights: Array
    index: pd.Index[Any]
    places: Places
    asked: pd.Index[Any]

    def spread(self, values: Array) -> Array:
        """Return values of these rows, shape (n, ...), with nan for those that are not here."""
        spread = np.full((len(self.asked), *values.shape[1:]), np.nan)
        spread[self.places] = values
        return spread

    def part(self, chosen: slice | Places) -> NewRows:
        """Return some of these rows."""
        names = "X", "offset", "weights", "index", "places"
        kept: dict[str, Any] = {name: getattr(self, name)[chosen] for name in names}
        return replace(self, **kept, terms=tuple(term.at(chosen) for term in self.terms))


def own_rows(
    design: Design, terms: Collection[str] | None = None, rows: Rows | None = None
) -> NewRows:
    """Return a design's own rows as rows to predict, with some of the random terms, or all."""
    rows = design.rows if rows is None else rows
    return NewRows(
        X=rows.X,
        terms=tuple(term for term in rows.terms if terms is None or term.label in terms),
        offset=rows.offset,
        weights=rows.weights,
        index=rows.index,
        places=np.arange(len(rows.X)),
        asked=rows.index,
    )


def one_after_the_other(first: NewRows, second: NewRows, moved: Collection[str] = ()) -> NewRows:
    """Return two lots of rows as one.

    Parameters
    ----------
    first, second : NewRows
        With the same random terms.
    moved : collection of str
        Labels of the terms whose new groups in the second lot are others than those in the first.
    """
    terms = []
    for one, other in zip(first.terms, second.terms, strict=True):
        ahead = max(0, int(one.grouping.numbers.max(initial=-1)) + 1 - one.n_levels)
        shift = np.where(other.is_new, ahead * (one.label in moved), 0)
        grouping = replace(
            one.grouping,
            codes=np.concatenate([one.codes, other.codes]),
            numbers=np.concatenate([one.grouping.numbers, other.grouping.numbers + shift]),
            parts=(),
        )
        columns = np.concatenate([one.columns, other.columns])
        terms.append(replace(one, grouping=grouping, columns=columns))
    return NewRows(
        X=np.concatenate([first.X, second.X]),
        terms=tuple(terms),
        offset=np.concatenate([first.offset, second.offset]),
        weights=np.concatenate([first.weights, second.weights]),
        index=first.index.append(second.index),
        places=np.concatenate([first.places, len(first.asked) + second.places]),
        asked=first.asked.append(second.asked),
    )


def in_one_new_group(rows: NewRows) -> NewRows:
    """Return rows as rows of one level that is not known, of each grouping factor."""
    terms = [
        replace(term, grouping=one_new_level(term.factor, term.grouping.levels, len(rows.X)))
        for term in rows.terms
    ]
    return replace(rows, terms=tuple(terms))


def with_strangers(rows: NewRows) -> NewRows:
    """Return rows of the same groups, none of which is known."""
    terms = []
    for term in rows.terms:
        numbers = term.n_levels + term.grouping.numbers
        strangers = replace(term.grouping, codes=np.full_like(numbers, -1), numbers=numbers)
        terms.append(replace(term, grouping=strangers))
    return replace(rows, terms=tuple(terms))


def rows_of(X: Array, offset: Array, terms: Sequence[TermRows] = ()) -> NewRows:
    """Return linear functions of the effects, X beta + offset, as rows to predict.

    Functions that are nan are left out, and `spread` puts nan into their places. Without random
    terms they are those of a typical group.
    """
    asked = pd.RangeIndex(len(X))
    rows = NewRows(
        X=X,
        terms=tuple(terms),
        offset=offset,
        weights=np.ones(len(X)),
        index=asked,
        places=np.arange(len(X)),
        asked=asked,
    )
    there = np.isfinite(X).all(axis=1) & np.isfinite(offset)
    return rows if there.all() else rows.part(np.flatnonzero(there))


def new_rows(
    design: Design, data: object, *, terms: Collection[str] | None = None, grouping: str = "needed"
) -> NewRows:
    """Build the matrices of a design's formula for new data.

    Parameters
    ----------
    design : Design
    data : DataFrame
    terms : collection of str, optional
        Labels of the random terms that are wanted; all by default. Columns that only others use
        need not be there.
    grouping : {"needed", "optional", "ignored"}
        Whether the columns of grouping factors must be there. Where they are not, or are ignored,
        all rows are of one level that is not known.

    Raises
    ------
    FormulaError
        If a column is missing.
    DataError
        If a level of a fixed factor is new. A new level of a grouping factor has the code -1
        instead.

    Warns
    -----
    DataWarning
        When rows are left out: for missing values, or since the data do not determine their mean.
    """
    formula, recipe = design.formula, design.recipe
    if recipe.offset == "":
        message = "the model has an array as offset=, which is unknown for new data: "
        raise DataError(message + "give it as a column of the data, or as offset() in the formula.")
    source = open_frame(data)
    wanted: list[Wanted] = [
        (term, *coded)
        for term, coded in zip(design.terms, recipe.random, strict=True)
        if terms is None or term.label in terms
    ]
    grouped = [is_grouped(part, source, grouping) for _, part, _ in wanted]
    nodes = [*formula.factors(random=False), *_nodes(wanted, grouped), *formula.offsets]
    groups = {name for _, part, _ in wanted for name in columns_of(part.group)}
    remedies = dict.fromkeys(groups, f"Without it {OF_NO_KNOWN_GROUP}")
    used = source.columns(columns_of(nodes), formula.text, **remedies)
    frame, offset, places = complete_new_rows(used, source.values(recipe.offset, "offset"))
    if not len(frame):
        typed = recipe.no_rows.columns.intersection(frame.columns)
        frame = frame.astype(recipe.no_rows.dtypes[typed].to_dict())
    memory = replace(recipe.memory, levels=dict(recipe.memory.levels))  # nothing new is learnt
    interpreter = Interpreter(frame, formula.text, memory, recipe.functions)
    X = code(interpreter, formula.fixed, recipe.X).values
    broken = recipe.X.broken(X)
    estimable = ~broken.any(axis=1)
    if not estimable.all():
        warn(_not_estimable(recipe.X, broken, frame), DataWarning)
    interpreter = replace(interpreter, frame=frame[estimable])
    return NewRows(
        X=X[np.ix_(estimable, [recipe.X.names.index(name) for name in design.fixed])],
        terms=tuple(
            _term_rows(interpreter, *each, is_grouped=is_grouped)
            for each, is_grouped in zip(wanted, grouped, strict=True)
        ),
        offset=offset_of(interpreter, formula, offset[estimable]),
        weights=np.ones(int(estimable.sum())),
        index=interpreter.frame.index,
        places=places[estimable],
        asked=used.index,
    )


def is_grouped(part: RandomPart, source: Source, grouping: str) -> bool:
    """Return whether the levels of a term are those that the data name.

    Parameters
    ----------
    part : RandomPart
    source : Source
    grouping : {"needed", "optional", "ignored"}
        As of `new_rows`.
    """
    is_there = all(name in source.names for name in columns_of(part.group))
    return grouping == "needed" or (grouping == "optional" and is_there)


def _nodes(wanted: Sequence[Wanted], grouped: Sequence[bool]) -> list[Node]:
    """Return the factors of random terms, and of the groups that the data name."""
    nodes: list[Node] = []
    for (_, part, _), is_grouped in zip(wanted, grouped, strict=True):
        nodes += [factor for term in part.terms for factor in term.factors]
        nodes += part.group if is_grouped else ()
    return nodes


def _term_rows(
    interpreter: Interpreter,
    term: RandomTerm,
    part: RandomPart,
    columns: Columns,
    *,
    is_grouped: bool,
) -> TermRows:
    levels = (
        grouping_of(interpreter, part, term)
        if is_grouped
        else one_new_level(term.factor, term.levels, len(interpreter.frame))
    )
    return TermRows(term.label, levels, code(interpreter, part.terms, columns).values)


def _not_estimable(columns: Columns, broken: Flags, frame: pd.DataFrame) -> str:
    """Say which new rows the data say nothing of, and why the first of them is one."""
    rows = np.flatnonzero(broken.any(axis=1))
    first = np.flatnonzero(broken[rows[0]])
    involved = np.flatnonzero(columns.dependences.coefs[:, first].any(axis=1))
    together = [*first, *(columns.independent[i] for i in involved)]
    variables = frozenset[str]().union(*(columns.origins[j].variables for j in together))
    values = frame.iloc[rows[0]]
    at = ", ".join(f"{name} = {values[name]}" for name in frame.columns if name in variables)
    return (
        f"nan is predicted for {len(rows)} of {len(frame)} rows, as the data do not determine the "
        f"mean: {listed(frame.index[rows])}. The first has {at}; in the data the values of "
        f"{listed(columns.names[j] for j in first)} follow from other columns, here they do not."
    )
