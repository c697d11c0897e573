"""The reference grid: combinations of predictors at which a fit's fixed effects are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.data_frame import Categorical, coded, plain
from ranef.design.design import Design
from ranef.design.evaluate import Interpreter
from ranef.design.new_data.new_rows import NewRows, new_rows
from ranef.errors import FitError, suggestion
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
    """

    labels: pd.DataFrame
    X: Array
    offset: Array


def reference_values(design: Design) -> dict[str, pd.Index[Any]]:
    """Return the values of each predictor in the reference grid.

    A factor, a truth value and what the formula makes a factor, as `factor(x)`, have all their
    levels; a number has its mean.
    """
    frame, formula, recipe = design.rows.data.columns, design.formula, design.recipe
    memory = replace(recipe.memory, levels=dict(recipe.memory.levels))
    interpreter = Interpreter(frame, formula.text, memory, recipe.functions)
    nodes = formula.factors(random=False)
    in_factors = [node for node in nodes if isinstance(interpreter.value(node), Categorical)]
    with_levels = set(columns_of(in_factors))
    values: dict[str, pd.Index[Any]] = {}
    for name in columns_of([*nodes, *formula.offsets]):
        column = plain(frame[name])
        is_number = column.dtype.kind in "iuf" and name not in with_levels
        values[name] = (
            pd.Index([float(column.mean())]) if is_number else coded(name, frame[name]).levels
        )
    if recipe.offset and design.rows.data.offset is not None:
        values.setdefault(recipe.offset, pd.Index([float(design.rows.data.offset.mean())]))
    return values


def cells(design: Design, variables: Sequence[str], at: Mapping[str, Any] | None = None) -> Cells:
    """Average the reference grid of a design over all but some of its variables.

    Parameters
    ----------
    design : Design
    variables : sequence of str
        Columns of the data that the fixed effects use.
    at : mapping of str to value or values, optional
        Other values than those of `reference_values`.

    Raises
    ------
    FitError
        If a variable is not among the predictors of the fixed effects.

    Warns
    -----
    DataWarning
        Of combinations whose mean the data do not determine.
    """
    values = reference_values(design)
    for name in (*variables, *(at or {})):
        if name not in values:
            raise FitError(
                f"`{name}` is not a predictor of the fixed effects. {suggestion(name, values)}"
            )
    for name, given in (at or {}).items():
        is_one = isinstance(given, str) or np.ndim(given) == 0
        values[name] = pd.Index([given] if is_one else list(given)).unique()
        if not len(values[name]):
            raise FitError(f"at={{{name!r}: ...}} has no value: give one or several.")
    named = dict.fromkeys(variables)
    order = [*named, *(name for name in values if name not in named)]
    sizes = [len(values[name]) for name in order]
    n, p = prod(sizes), len(design.fixed)
    what = f"a reference grid of {n:,} combinations of {len(order)} predictors"
    check_memory(2.0 * n * (p + len(order)), what, "Fix some of them by `at=`.")
    places = np.indices(sizes).reshape(len(sizes), n) if sizes else np.empty((0, 1), dtype=int)
    columns = {name: values[name].take(i) for name, i in zip(order, places, strict=True)}
    grid = pd.DataFrame(columns, index=pd.RangeIndex(n))
    rows = new_rows(design, grid, terms=(), grouping="ignored")
    n_cells = prod(sizes[: len(named)])
    return Cells(
        labels=grid[list(named)].iloc[:: n // n_cells].reset_index(drop=True),
        X=rows.spread(rows.X).reshape(n_cells, n // n_cells, p).mean(axis=1),
        offset=rows.spread(rows.offset).reshape(n_cells, -1).mean(axis=1),
    )


def rows_of(X: Array, offset: Array) -> NewRows:
    """Return linear functions of the fixed effects, X beta + offset, as rows of a typical group.

    Functions that are nan are left out, and `spread` puts nan into their places.
    """
    there = np.flatnonzero(np.isfinite(X).all(axis=1) & np.isfinite(offset))
    asked = pd.RangeIndex(len(X))
    return NewRows(
        X=X[there],
        terms=(),
        offset=offset[there],
        weights=np.ones(len(there)),
        index=asked[there],
        places=there,
        asked=asked,
    )
