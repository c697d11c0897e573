"""What is seen of each group, and the lines through it: its own, the model's, the population's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from ranef._typing import Array, Codes
from ranef.arguments import check_known
from ranef.design.design import Design
from ranef.design.groups import is_nested
from ranef.design.new_data.new_rows import NewRows
from ranef.errors import DataWarning
from ranef.families.family import Family
from ranef.fits.no_pooling.own_columns import GroupingColumns
from ranef.fits.no_pooling.own_estimates import OwnEstimates

POINTS = 41  # along a line
BINS = 5  # of the values of a predictor, for the shares of a response of successes and failures


def predictor_of(design: Design, factor: GroupingColumns, asked: str | None) -> str | None:
    """Return the column of the data along which groups are drawn; None where there is none.

    By default the first that varies within groups: measured ones before factors, those with random
    effects before others.

    Raises
    ------
    FitError
        If the model uses no such column.
    """
    data = design.rows.data.columns
    if asked is not None:
        check_known([asked], data.columns, lambda name: f"the model uses no column {name!r}.")
        return asked
    recipe = design.recipe
    coded = zip(design.terms, recipe.random, strict=True)
    own = [columns for term, (_, columns) in coded if term.factor == factor.name]
    origins = [origin for columns in (*own, recipe.X) for origin in columns.origins]
    used = [name for origin in origins for name in sorted(origin.variables)]
    grouping = {name for one in design.terms for name in one.factor.split(":")}
    varying = [
        name
        for name in dict.fromkeys(used)
        if name not in grouping and data[name].groupby(factor.codes).nunique().max() > 1
    ]
    measured = [name for name in varying if _is_measured(data[name])]
    return next(iter([*measured, *varying]), None)


def _is_measured(column: pd.Series[Any]) -> bool:
    return is_numeric_dtype(column) and column.dtype != bool


def points_table(
    design: Design, factor: GroupingColumns, family: Family, x: str | None
) -> pd.DataFrame:
    """Return what is seen of each group: columns `level, x, y, n`.

    A response of successes and failures is shown as shares: of each group, or of up to five
    intervals of the predictor in each group, with `n` the number of rows. Otherwise `n` is the
    number of trials of a binomial row, and 1.
    """
    rows = design.rows
    table = pd.DataFrame({"level": factor.levels.to_numpy()[factor.codes], "y": rows.y})
    table.insert(1, "x", 0.0 if x is None else rows.data.columns[x].array)
    table["n"] = rows.weights if family.has_trials else 1.0
    if not (family.is_discrete and set(np.unique(rows.y)) <= {0.0, 1.0}):
        return table
    keys: list[Any] = [factor.codes]
    if x is not None:
        keys.append(table["x"] if not _is_measured(table["x"]) else _bins(table, factor.codes))
    sums = table.assign(y=table["y"] * table["n"]).groupby(keys, observed=True, sort=True)
    kinds = {"level": "first", "x": "mean" if _is_measured(table["x"]) else "first"}
    shares = sums.agg(kinds | {"y": "sum", "n": "sum"})
    return shares.assign(y=shares["y"] / shares["n"]).reset_index(drop=True)


def _bins(table: pd.DataFrame, codes: Codes) -> Array:
    """Return the interval of each row among as many of its group, by ranks."""
    ranks = table["x"].groupby(codes).rank(pct=True, method="average")
    return np.ceil(ranks.to_numpy() * BINS)


def typical_rows(
    design: Design, factor: GroupingColumns, x: str | None, chosen: Sequence[int]
) -> pd.DataFrame:
    """Return rows along the predictor, all else as it is typical of the group.

    Parameters
    ----------
    design : Design
    factor : GroupingColumns
    x : str or None
    chosen : sequence of int
        The groups, as positions among the levels.

    Returns
    -------
    DataFrame
        The columns of the data; a level's rows together. Measured predictors are at their mean in
        the group, others at their most frequent value.
    """
    data = design.rows.data.frame(offset=design.recipe.offset)
    grid = pd.Series([0.0] if x is None else _grid(data[x]))
    grouping = {name for t in design.terms for name in t.factor.split(":")}
    among = np.isin(factor.codes, chosen)
    table: dict[Any, Any] = {}
    for name, column in data[among].items():
        groups = column.groupby(factor.codes[among])
        if name in grouping:  # codes of groups are no measurements, and categories stay
            typical = groups.first()
        elif name == x:
            table[name] = grid.take(np.tile(np.arange(len(grid)), len(chosen))).array
            continue
        elif _is_measured(column):
            typical = groups.mean().astype(float)
        else:
            typical = groups.agg(lambda own: own.mode().iloc[0]).astype(column.dtype)
        table[name] = typical.loc[list(chosen)].repeat(len(grid)).array
    return pd.DataFrame(table)


def _grid(column: pd.Series[Any]) -> Any:
    if not _is_measured(column):
        return pd.Series(column.sort_values().unique(), dtype=column.dtype).array
    return np.linspace(column.min(), column.max(), POINTS)


def own_means(
    design: Design, one: OwnEstimates, family: Family, beta: Array, rows: NewRows
) -> Array:
    """Return the mean of new rows by the own estimates of their group; nan where it has none.

    Parameters
    ----------
    design : Design
    one : OwnEstimates
    family : Family
    beta : ndarray, shape (p,)
        Of the fit: what the own estimates do not have is as there.
    rows : NewRows
        With the terms of the factor.
    """
    factor, k = one.factor, len(one.factor.coefs)
    by_label = {term.label: term for term in rows.terms}
    Z = np.hstack([by_label[label].columns[:, places] for label, places in factor.places.items()])
    codes = by_label[factor.terms[0].label].codes
    other = [design.fixed[j] for j in factor.others]
    X = rows.X[:, factor.others]
    values = np.tile(np.where(one.of_groups, 0.0, beta[factor.others]), (len(one.own), 1))
    for j, name in enumerate(one.names[k:]):
        aliased = one.regressions.aliased[:, j]
        place = other.index(name)
        values[:, place] = np.where(aliased, beta[factor.others[place]], one.own[:, k + j])
    coefs = np.hstack([one.own[:, :k], values])[codes]
    columns = np.hstack([Z, X])
    with np.errstate(invalid="ignore"):
        parts = np.where(columns == 0, 0.0, columns * coefs)
    return np.asarray(family.link.inverse(rows.offset + parts.sum(axis=1)))


def enclosing_terms(design: Design, factor: GroupingColumns) -> list[str]:
    """Return the labels of the terms of a factor, and of those that it is nested in."""
    return [term.label for term in design.rows.terms if is_nested(factor.codes, term.codes)]


def quietly_asked(rows: Any) -> Any:
    """Return what a function gives without warnings of what is predicted as nan."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return rows()
