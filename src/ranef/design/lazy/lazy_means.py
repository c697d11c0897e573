"""Predicted means of lazy rows: an expression of their columns, and small tables to join.

The fixed part is an expression. The effects of the levels of a term are a table with one row for
each level, which stands beside the data in their own engine and is joined to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.data_frame import coded, level_texts
from ranef.design.design import Design, RandomTerm
from ranef.design.evaluate import Interpreter
from ranef.design.lazy.expressions import CodedCells, key_of, number, numeric
from ranef.design.lazy.lazy_table import OWN, Expr, LazyFrame, arrays, has_values, labels_in
from ranef.design.lazy.tables_beside import with_shares, with_table
from ranef.design.model_matrix import MULTIPLE_OF_ERRORS, ROUNDING, Columns
from ranef.errors import DataError, DataWarning, FormulaError, listed, suggestion, warn
from ranef.formula.terms import RandomPart, Term, columns_of

COMPLETE, ESTIMABLE = f"{OWN}complete", f"{OWN}estimable"


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
        import narwhals.stable.v2 as nw

        columns = data.collect_schema()
        if name in columns:
            message = f"the data have a column `{name}`, which is what predictions are called: "
            raise DataError(f"{message}rename it.")
        used = self._check_columns(columns)
        self._check_levels(data)
        is_complete = has_values(data, used) if used else nw.lit(value=True)
        rows = data.with_columns(is_complete.alias(COMPLETE))
        rows, total = self._fixed(self._estimable(rows))
        for place, (term, part, Z) in enumerate(self._terms()):
            rows, effects = self._joined(rows, f"g{place}", term, part)
            rows, columns_of_Z = self._coded(rows, f"z{place}", part.terms, Z, np.eye(len(Z.names)))
            for z, effect in zip(columns_of_Z, effects, strict=True):
                total = total + z * effect
        mean = nw.when(nw.col(COMPLETE)).then(change(total)).otherwise(nw.lit(None, nw.Float64))
        return rows.with_columns(mean.alias(name)).select(*columns, name).to_native()

    def _terms(self) -> list[tuple[RandomTerm, RandomPart, Columns]]:
        both = zip(self.design.terms, self.design.recipe.random, strict=True)
        return [(term, *coded) for term, coded in both if term.label in self.effects]

    def _fixed(self, rows: LazyFrame) -> tuple[LazyFrame, Expr]:
        """Return the fixed part of the linear predictor, with the offset, and rows that have it."""
        import narwhals.stable.v2 as nw

        formula, recipe = self.design.formula, self.design.recipe
        parts = [numeric(node, labels_in(rows.collect_schema())) for node in formula.offsets]
        if recipe.offset is not None:
            if not recipe.offset:
                message = "the offset= of the model is an array, which has no values for other "
                raise DataError(f"{message}rows: make it a column.")
            parts.append(nw.col(recipe.offset).cast(nw.Float64))
        beta = np.zeros((len(recipe.X.names), 1))
        beta[[recipe.X.names.index(name) for name in self.design.fixed], 0] = self.beta
        rows, coded_parts = self._coded(rows, "x", formula.fixed, recipe.X, beta)
        return rows, sum([*parts, *coded_parts], number(0))

    def _estimable(self, rows: LazyFrame) -> LazyFrame:
        """Return rows of which only those are complete whose mean the data determine.

        Warns
        -----
        DataWarning
            When there are others.
        """
        import narwhals.stable.v2 as nw

        if not self.design.dropped:
            return rows
        X, formula = self.design.recipe.X, self.design.formula
        places, A = np.array(X.independent, dtype=np.intp), X.dependences.coefs
        parts = {
            j: {int(places[i]): float(A[i, j]) for i in np.flatnonzero(A[:, j])}
            for j in set(range(len(X.names))) - {*X.independent}
        }
        involved = sorted({j for dropped, basis in parts.items() for j in (dropped, *basis)})
        mix = np.eye(len(X.names))[:, involved]
        rows, columns = self._coded(rows, "d", formula.fixed, X, mix)
        values, are_as_there = dict(zip(involved, columns, strict=True)), nw.lit(value=True)
        for dropped, basis in parts.items():
            terms = [values[dropped], *(values[j] * -share for j, share in basis.items())]
            size = sum([term.abs() for term in terms], number(0))
            tolerance = size * ROUNDING + float(X.dependences.errors[dropped] * MULTIPLE_OF_ERRORS)
            are_as_there &= sum(terms, number(0)).abs() <= tolerance
        rows = rows.with_columns((nw.col(COMPLETE) & are_as_there).alias(ESTIMABLE))
        others = rows.filter(nw.col(COMPLETE) & ~nw.col(ESTIMABLE))
        if count := int(arrays(others.select(nw.len().alias("n")))["n"][0]):
            names = listed(X.names[j] for j in parts)
            message = f"null is predicted for {count:,} rows, as the data do not determine the mean"
            message += f": in the data the values of {names} follow from other columns, there they "
            warn(f"{message}do not.", DataWarning)
        return rows.with_columns(nw.col(ESTIMABLE).alias(COMPLETE))

    def _coded(
        self, rows: LazyFrame, name: str, terms: Sequence[Term], columns: Columns, mix: Array
    ) -> tuple[LazyFrame, list[Expr]]:
        """Return combinations of coded columns as expressions, and rows that have their parts.

        Parameters
        ----------
        rows : LazyFrame
        name : str
            Begins the names of these parts.
        terms, columns
            As coded.
        mix : ndarray, shape (columns, wanted)
        """
        import narwhals.stable.v2 as nw

        memory, frame = self.design.recipe.memory, self.design.sufficient.data.columns
        schema = rows.collect_schema()
        labels, truths = labels_in(schema), [n for n, kind in schema.items() if kind == nw.Boolean]
        of = Interpreter(frame, self.design.formula.text, memory, self.design.recipe.functions)
        cells = CodedCells(terms, columns, of, labels, truths)
        wanted = {(nodes, t): None for nodes in cells.measured for t in range(mix.shape[1])}
        parts = np.zeros((len(mix), len(wanted)))
        for part, (nodes, t) in zip(parts.T, wanted, strict=True):
            part[:] = mix[:, t] * np.array([one == nodes for one in cells.measured])
        rows, shares = with_shares(rows, name, cells, parts)
        totals = [number(0) for _ in mix.T]
        for (nodes, t), share in zip(wanted, shares, strict=True):
            if share is not None:
                totals[t] = totals[t] + prod((numeric(one, labels) for one in nodes), start=share)
        return rows, totals

    # -------------------------------------------------------------------------- random effects

    def _joined(
        self, rows: LazyFrame, name: str, term: RandomTerm, part: RandomPart
    ) -> tuple[LazyFrame, list[Expr]]:
        """Return rows with the effects of their levels of a term, and these as expressions."""
        import narwhals.stable.v2 as nw

        labels, values = self._labels(term, part), self.effects[term.label]
        own = {f"{OWN}{name}_{i}": key for i, key in enumerate(columns_of(part.group))}
        rows = rows.with_columns(**{copy: nw.col(key) for copy, key in own.items()})
        return with_table(rows, name, {copy: labels[key] for copy, key in own.items()}, values)

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

    def _check_columns(self, schema: Mapping[str, Any]) -> list[str]:
        """Return the columns that are used; refuse data that lack one."""
        formula, offset = self.design.formula, self.design.recipe.offset
        nodes = [factor for term in formula.fixed for factor in term.factors]
        nodes += [*formula.offsets]
        for _, part, _ in self._terms():
            nodes += [*part.group, *(f for term in part.terms for f in term.factors)]
        used = columns_of(nodes)
        for name, span in used.items():
            if name not in schema:
                hint = suggestion(name, [*schema])
                message = f"the column `{name}` is not in the data. {hint}"
                raise FormulaError(message, formula.text, span)
        return list(dict.fromkeys([*used, *([offset] if offset else [])]))

    def _check_levels(self, data: LazyFrame) -> None:
        """Refuse levels of coded factors, and of groups that must be known, that are not known."""
        formula, known = self.design.formula, self.design.recipe.memory.levels
        terms = [*formula.fixed, *(t for _, part, _ in self._terms() for t in part.terms)]
        labels = labels_in(data.collect_schema())
        factors = {str(factor): factor for term in terms for factor in term.factors}
        for label, node in factors.items():
            name = (key_of(node, labels, ()) or ("",))[0]
            if name in known:
                self._check_known(data, [name], {name: known[name].to_numpy()}, label)
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
