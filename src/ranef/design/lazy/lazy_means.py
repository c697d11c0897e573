"""Predicted means of lazy rows: an expression of their columns, and small tables to join.

The fixed part is an expression. The effects of the levels of a term are a table with one row for
each level, which stands beside the data in their own engine and is joined to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from operator import methodcaller
from typing import Any, cast

import pandas as pd

from ranef._typing import Array
from ranef.design.data_frame import coded, level_texts
from ranef.design.design import Design, RandomTerm
from ranef.design.evaluate import Interpreter
from ranef.design.lazy.expressions import CodedExpressions, number, numeric
from ranef.design.lazy.lazy_table import OWN, Expr, LazyFrame, arrays, has_values
from ranef.design.model_matrix import Columns
from ranef.errors import DataError, FormulaError, listed, suggestion
from ranef.formula.terms import RandomPart, Term, columns_of


@dataclass(frozen=True, eq=False)
class LazyMeans:
    """What means are predicted from, for rows that an engine has.

    Attributes
    ----------
    design : Design
        Of the fit.
    beta : ndarray, shape (p,)
        The coefficients of its fixed columns.
    effects : mapping of str to ndarray, shape (m, k)
        The random effects of the levels of the terms that take part, by label.
    are_known : bool
        Whether every level must be known; the effects of others are zero.
    """

    design: Design
    beta: Array
    effects: Mapping[str, Array]
    are_known: bool

    def of(self, data: LazyFrame, name: str, change: Callable[[Expr], Expr]) -> Any:
        """Return the data as their engine has them, with a column of means.

        Parameters
        ----------
        data : LazyFrame
        name : str
            Of the column.
        change : callable
            From the linear predictor to what is wanted of it.

        Raises
        ------
        FormulaError
            If a column is not there.
        DataError
            If there is a column of that name, a level is not known, or something needs the rows.
        """
        columns = data.collect_schema()
        if name in columns:
            message = f"the data have a column `{name}`, which is what predictions are called: "
            raise DataError(f"{message}rename it.")
        self._check_columns(columns)
        self._check_levels(data)
        rows = data
        total = self._fixed()
        for place, (term, part, Z) in enumerate(self._terms()):
            rows, effects = self._joined(rows, place, term, part)
            for z, effect in zip(self._expressions(part.terms, Z), effects, strict=True):
                total = total + z * effect
        return rows.with_columns(change(total).alias(name)).select(*columns, name).to_native()

    def _terms(self) -> list[tuple[RandomTerm, RandomPart, Columns]]:
        both = zip(self.design.terms, self.design.recipe.random, strict=True)
        return [(term, *coded) for term, coded in both if term.label in self.effects]

    def _fixed(self) -> Expr:
        """Return the fixed part of the linear predictor, with the offset."""
        import narwhals.stable.v2 as nw

        formula, recipe = self.design.formula, self.design.recipe
        if self.design.dropped:
            message = f"{listed(self.design.dropped)} was left out as a combination of others: of "
            message += "which rows the data determine the mean is found row by row; "
            raise DataError(f"{message}collect the rows, or leave the column out of the formula.")
        parts = [numeric(node) for node in formula.offsets]
        if recipe.offset is not None:
            if not recipe.offset:
                message = "the offset= of the model is an array, which has no values for other "
                raise DataError(f"{message}rows: make it a column.")
            parts.append(nw.col(recipe.offset).cast(nw.Float64))
        coded = self._expressions(formula.fixed, recipe.X)
        parts += [x * number(b) for x, b in zip(coded, self.beta, strict=True)]
        return sum(parts, number(0))

    def _expressions(self, terms: Sequence[Term], columns: Columns) -> list[Expr]:
        """Return coded columns as expressions."""
        memory, frame = self.design.recipe.memory, self.design.sufficient.data.columns
        truths = [name for name in frame if frame[name].dtype.kind == "b"]
        levels = dict(memory.levels) | {str(n): pd.Index([False, True]) for n in truths}
        rows = Interpreter(frame, self.design.formula.text, memory, self.design.recipe.functions)
        return CodedExpressions(tuple(terms), columns, rows, levels).expressions()

    # -------------------------------------------------------------------------- random effects

    def _joined(
        self, rows: LazyFrame, place: int, term: RandomTerm, part: RandomPart
    ) -> tuple[LazyFrame, list[Expr]]:
        """Return rows with the effects of their levels of a term, and these as expressions."""
        import narwhals.stable.v2 as nw

        keys, values = [*columns_of(part.group)], self.effects[term.label]
        labels = self._labels(term, part)
        own = {key: f"{OWN}{place}_{i}" for i, key in enumerate(keys)}
        names = [f"{OWN}{place}b{j}" for j in range(values.shape[1])]
        schema = rows.collect_schema()
        are_text = {key: schema[key] in (nw.Enum, nw.Categorical) for key in keys}
        table = pd.DataFrame({own[key]: labels[key] for key in keys}).assign(
            **dict(zip(names, values.T, strict=True))
        )
        small = beside(rows, table)
        small = small.with_columns(
            nw.col(name).cast(nw.String if are_text[key] else schema[key])
            for key, name in own.items()
        )
        copies = {
            name: nw.col(key).cast(nw.String) if are_text[key] else nw.col(key)
            for key, name in own.items()
        }
        joined = rows.with_columns(**copies).join(small, on=[*own.values()], how="left")
        is_known = [~nw.col(key).is_null() for key in keys]
        effects = [
            nw.when(nw.all_horizontal(*is_known, ignore_nulls=False))
            .then(nw.col(name).fill_null(0.0))
            .otherwise(nw.lit(None, nw.Float64))
            for name in names
        ]
        return joined, effects

    def _labels(self, term: RandomTerm, part: RandomPart) -> dict[str, Any]:
        """Return the values of the grouping columns of each level."""
        keys, known = [*columns_of(part.group)], self.design.recipe.memory.levels
        if len(part.group) == 1:
            return {keys[0]: term.levels.to_numpy()}
        words = [str(label).split(":") for label in term.levels]
        if any(len(one) != len(part.group) for one in words):
            raise DataError(
                f"labels of `{term.factor}` have a colon within, so that a level is not to be "
                f"told from its label: collect the rows, or rename the labels."
            )
        found = {}
        for place, (key, node) in enumerate(zip(keys, part.group, strict=True)):
            levels = known[str(node)]
            by_text = dict(zip(level_texts(levels), range(len(levels)), strict=True))
            found[key] = levels.to_numpy()[[by_text[one[place]] for one in words]]
        return found

    # -------------------------------------------------------------------------------- refusals

    def _check_columns(self, schema: Mapping[str, Any]) -> None:
        formula = self.design.formula
        nodes = [factor for term in formula.fixed for factor in term.factors]
        nodes += [*formula.offsets]
        for _, part, _ in self._terms():
            nodes += [*part.group, *(f for term in part.terms for f in term.factors)]
        for name, span in columns_of(nodes).items():
            if name not in schema:
                hint = suggestion(name, [*schema])
                message = f"the column `{name}` is not in the data. {hint}"
                raise FormulaError(message, formula.text, span)

    def _check_levels(self, data: LazyFrame) -> None:
        """Refuse levels of coded factors, and of groups that must be known, that are not known."""
        formula, known = self.design.formula, self.design.recipe.memory.levels
        terms = [*formula.fixed, *(t for _, part, _ in self._terms() for t in part.terms)]
        factors = {str(node): node for term in terms for node in term.factors}
        for label, node in factors.items():
            (name,) = columns_of([node]) if label in known else ("",)
            if name:
                self._check_known(data, [name], {name: known[label].to_numpy()}, label)
        for term, part, _ in self._terms() if self.are_known else ():
            labels = self._labels(term, part)
            self._check_known(data, [*labels], labels, term.factor)

    def _check_known(
        self, data: LazyFrame, keys: Sequence[str], labels: Mapping[str, Any], factor: str
    ) -> None:
        """Refuse combinations of values that are not among some."""
        there = arrays(data.select(*keys).filter(has_values(data, keys)).unique())
        found = pd.MultiIndex.from_arrays([there[key] for key in keys])
        known = pd.MultiIndex.from_arrays([labels[key] for key in keys])
        new = found[~found.isin(known)]
        if not len(new):
            return
        for key in keys:
            levels = pd.Index(labels[key]).unique()
            if doubt := coded(key, pd.Series(there[key]).sort_values(), levels).doubt:
                raise DataError(doubt)
        words = sorted(":".join(map(str, one)) for one in new)
        levels = "a level" if len(words) == 1 else f"{len(words):,} levels"
        message = f"the data have {levels} of `{factor}` that the model has not seen, "
        groups = [term.factor for term in self.design.terms]
        remedy = "leave these rows out."
        if factor in groups:
            remedy = (
                "predict with groups='new' (a new group) or groups='population' (a typical one)."
            )
        raise DataError(f"{message}{listed(words)}: {remedy}")


# A constant text, run on the connection that the data are of: a relation of another does not join.
_on_connection = methodcaller("query", "ranef_data", "select * from table_of_levels")


def beside(data: LazyFrame, table_of_levels: pd.DataFrame) -> LazyFrame:
    """Return a small table as a lazy frame of the engine of some data.

    Raises
    ------
    DataError
        If it is not known how a table comes to that engine.
    """
    import narwhals.stable.v2 as nw

    native: Any = data.to_native()
    engine = data.implementation
    if engine.is_duckdb():
        made = _on_connection(native)  # which finds the table by its name
    elif engine.is_polars():
        made = import_module("polars").from_pandas(table_of_levels).lazy()
    elif engine.is_ibis():
        made = import_module("ibis").memtable(_arrow(table_of_levels))
    elif engine.is_dask():
        made = import_module("dask.dataframe").from_pandas(table_of_levels, npartitions=1)
    elif engine.is_pyspark():
        made = native.sparkSession.createDataFrame(_arrow(table_of_levels))
    else:
        message = f"it is not known how a table of levels comes to {engine}: "
        raise DataError(f"{message}collect the rows to be predicted.")
    return cast("LazyFrame", nw.from_native(made).lazy())


def _arrow(table: pd.DataFrame) -> Any:
    return import_module("pyarrow").Table.from_pandas(table, preserve_index=False)
