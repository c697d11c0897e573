"""The reference grid: combinations of predictors at which a fit's fixed effects are averaged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.arguments import check_known
from ranef.design.data_frame import Categorical, coded, plain
from ranef.design.design import Design
from ranef.design.evaluate import Interpreter
from ranef.design.new_data.new_rows import NewRows, new_rows, rows_of
from ranef.design.rows.rows import TermRows
from ranef.errors import FitError, in_short
from ranef.formula.terms import columns_of
from ranef.numerics.memory import check_memory


@dataclass(frozen=True, eq=False)
class Cells:
    """Means of the rows of a reference grid, one for each combination of some variables.

    Attributes
    ----------
    labels : pandas.DataFrame
        The values of the variables, one row a combination, the last variable the fastest.
    X : ndarray, shape (cells, p)
        The fixed columns; nan where the data do not determine a mean.
    offset : ndarray, shape (cells,)
    terms : tuple of TermRows
        The random terms that take part, none for a typical group.
    """

    labels: pd.DataFrame
    X: Array
    offset: Array
    terms: tuple[TermRows, ...] = ()

    @property
    def rows(self) -> NewRows:
        """The means as rows to predict, without those that the data do not determine."""
        return rows_of(self.X, self.offset, self.terms)


def reference_values(design: Design, labels: Collection[str] = ()) -> dict[str, pd.Index[Any]]:
    """Return the values of each predictor in the reference grid.

    A factor, a truth value and what the formula makes a factor, as `factor(x)`, have all their
    levels; a number has its mean.

    Parameters
    ----------
    design : Design
    labels : collection of str
        Of the random terms that take part, whose predictors are there too.
    """
    rows, formula, recipe = design.sufficient, design.formula, design.recipe
    frame = rows.data.columns
    memory = replace(recipe.memory, levels=dict(recipe.memory.levels))
    interpreter = Interpreter(frame, formula.text, memory, recipe.functions)
    nodes = formula.factors(random=False)
    for term, (part, _) in zip(design.terms, recipe.random, strict=True):
        if term.label in labels:
            nodes += [factor for of_term in part.terms for factor in of_term.factors]
    in_factors = [node for node in nodes if isinstance(interpreter.value(node), Categorical)]
    with_levels = set(columns_of(in_factors))
    values: dict[str, pd.Index[Any]] = {}
    for name in columns_of([*nodes, *formula.offsets]):
        column = plain(frame[name])
        is_number = column.dtype.kind in "iuf" and name not in with_levels
        values[name] = (
            pd.Index(np.array([_mean(design, name, column)]))
            if is_number
            else coded(name, frame[name]).levels
        )
    if recipe.offset and rows.data.offset is not None:
        values.setdefault(recipe.offset, pd.Index([float(rows.data.offset.mean())]))
    return values


def _mean(design: Design, name: str, column: pd.Series[Any]) -> float:
    """Return the mean of a predictor; without rows that of its column, nan if it has none."""
    if design.has_rows:
        return float(column.mean())
    rows = design.unweighted
    return rows.mean(rows.X[:, design.fixed.index(name)]) if name in design.fixed else np.nan


def cells(
    design: Design,
    variables: Sequence[str],
    at: Mapping[str, Any] | None = None,
    groups: str = "population",
) -> Cells:
    """Average the reference grid of a design over all but some of its variables.

    Parameters
    ----------
    design : Design
    variables : sequence of str
        Columns of the data that the fixed effects use; of known groups grouping factors too.
    at : mapping of str to value or values, optional
        Other values than those of `reference_values`.
    groups : {"population", "average", "new", "known"}
        Whose means, as of `Fit.predict`. Known groups are the levels of the grouping factors among
        the variables; of other factors they are typical.

    Raises
    ------
    FitError
        If a variable is not among the predictors of the fixed effects.

    Warns
    -----
    DataWarning
        Of combinations whose mean the data do not determine.
    """
    labels = _labels_of_terms(design, variables, groups)
    values, given = reference_values(design, labels), given_values(at)
    if groups == "known":
        values |= _levels_of_groups(design, labels)
    check_predictors([*variables, *given], values)
    for name, several in given.items():
        values[name] = pd.Index(several).unique()
    unknown = [name for name, several in values.items() if several.isna().any()]
    if unknown:
        raise FitError(
            f"without rows the mean of `{unknown[0]}` is not known: "
            f"at={{{unknown[0]!r}: ...}} says for which value."
        )
    named = dict.fromkeys(variables)
    order = [*named, *(name for name in values if name not in named)]
    sizes = [len(values[name]) for name in order]
    n, p = prod(sizes), len(design.fixed)
    what = f"a reference grid of {n:,} combinations of {len(order)} predictors"
    check_memory(2.0 * n * (p + len(order)), what, "Fix some of them by `at=`.")
    places = np.indices(sizes).reshape(len(sizes), n) if sizes else np.empty((0, 1), dtype=int)
    columns = {name: values[name].take(i) for name, i in zip(order, places, strict=True)}
    grid = pd.DataFrame(columns, index=pd.RangeIndex(n))
    grouping = "needed" if groups == "known" else "ignored"
    rows = new_rows(design, grid, terms=labels, grouping=grouping)
    n_cells = prod(sizes[: len(named)])
    return Cells(
        labels=grid[list(named)].iloc[:: n // n_cells].reset_index(drop=True),
        X=_averaged(rows, rows.X, n_cells),
        offset=_averaged(rows, rows.offset, n_cells),
        terms=tuple(_of_cells(rows, term, n_cells) for term in rows.terms),
    )


def names_of(argument: str, variables: object) -> list[str]:
    """Return one name or several as a list, each once; refuse what are none.

    Raises
    ------
    FitError
    """
    names = [variables] if isinstance(variables, str) else variables
    if not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise FitError(
            f"{argument} takes the name of a column, or several, got {in_short(variables)}."
        )
    return list(dict.fromkeys(names))


def given_values(at: object) -> dict[str, list[Any]]:
    """Return the values that `at=` gives to predictors, one or several each.

    Raises
    ------
    FitError
    """
    if at is not None and not isinstance(at, Mapping):
        raise FitError(
            f"at= is a dict from predictors to values, {{'x': [0, 1]}}, got {in_short(at)}."
        )
    found = {}
    for name, given in (at or {}).items():
        is_one = isinstance(given, str) or np.ndim(given) == 0
        found[str(name)] = [given] if is_one else list(given)
        if not found[str(name)]:
            raise FitError(f"at={{{name!r}: ...}} has no value: give one or several.")
    return found


def check_predictors(names: Iterable[object], known: Iterable[str]) -> None:
    """Refuse names that are not those of predictors.

    Raises
    ------
    FitError
    """
    check_known(names, known, lambda name: f"`{name}` is not a predictor of the fixed effects.")


def _labels_of_terms(design: Design, variables: Sequence[str], groups: str) -> list[str]:
    """Return the labels of the random terms that take part."""
    if groups == "population":
        return []
    labels = [term.label for term in design.terms]
    if groups != "known":
        return labels
    columns = [columns_of(part.group) for part, _ in design.recipe.random]
    named = zip(labels, columns, strict=True)
    found = [label for label, names in named if all(name in variables for name in names)]
    if not found:
        known = dict.fromkeys(" and ".join(map(repr, names)) for names in columns)
        raise FitError(
            "groups='known' needs a grouping factor among the variables, whose levels are the "
            f"groups: {' or '.join(known) or 'the model has none'}."
        )
    return found


def _levels_of_groups(design: Design, labels: Sequence[str]) -> dict[str, pd.Index[Any]]:
    """Return the levels of the columns of grouping factors."""
    frame = design.rows.data.columns
    found: dict[str, pd.Index[Any]] = {}
    for term, (part, _) in zip(design.terms, design.recipe.random, strict=True):
        for name in columns_of(part.group) if term.label in labels else ():
            found[name] = coded(name, frame[name]).levels
    return found


def _averaged(rows: NewRows, values: Array, n_cells: int) -> Array:
    """Return the means of values of rows over the combinations of each cell."""
    spread = rows.spread(values)
    return np.asarray(spread.reshape(n_cells, -1, *values.shape[1:]).mean(axis=1))


def _of_cells(rows: NewRows, term: TermRows, n_cells: int) -> TermRows:
    """Return a random term of cells, all combinations of which are of one level."""
    codes, numbers = (
        np.nan_to_num(_averaged(rows, each.astype(np.float64), n_cells)).astype(np.int64)
        for each in (term.codes, term.grouping.numbers)
    )
    grouping = replace(term.grouping, codes=codes, numbers=numbers, parts=())
    return replace(term, grouping=grouping, columns=_averaged(rows, term.columns, n_cells))
