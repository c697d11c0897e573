"""Parts of a formula as expressions that an engine of lazy frames evaluates row by row.

Numbers and arithmetic have expressions. A coded column is a product of powers of numeric predictors
with a function of the levels of its factors; that function is read off rows that have every
combination of these levels, so that any coding of any factor goes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.evaluate import Interpreter
from ranef.design.lazy.lazy_table import Expr, needs_rows
from ranef.design.model_matrix import Columns, Origin, code
from ranef.errors import DataError
from ranef.formula.syntax import Binary, Call, Column, Literal, Node, Paren, Unary
from ranef.formula.terms import Term

INNER = 0.6180339887  # of the way through a range, where few expressions are zero
MAX_CELLS = 10_000  # combinations of the levels of the factors of one column

_FUNCTIONS: Mapping[str, Callable[[Any], Any]] = {
    "log": lambda x: x.log(),
    "log2": lambda x: x.log(2),
    "log10": lambda x: x.log(10),
    "log1p": lambda x: (x + 1).log(),
    "exp": lambda x: x.exp(),
    "expm1": lambda x: x.exp() - 1,
    "sqrt": lambda x: x.sqrt(),
    "abs": lambda x: x.abs(),
    "sin": lambda x: x.sin(),
    "cos": lambda x: x.cos(),
}


def number(value: float) -> Expr:
    """Return a constant of double precision, where an engine would take it for a decimal."""
    import narwhals.stable.v2 as nw

    return nw.lit(1).cast(nw.Float64) * float(value)


def combination(names: Sequence[str], shares: Array) -> Expr:
    """Return the sum of columns times numbers; those times zero have no part in it."""
    import narwhals.stable.v2 as nw

    parts = [nw.col(n) * number(s) for n, s in zip(names, shares, strict=True) if s]
    return sum(parts[1:], start=parts[0]) if parts else number(0)


def numeric(node: Node) -> Expr:  # noqa: PLR0911 -- one for each kind of node
    """Return an arithmetic expression of columns.

    Raises
    ------
    DataError
        If it has no lazy form.
    """
    import narwhals.stable.v2 as nw

    match node:
        case Column():
            return nw.col(node.name).cast(nw.Float64)
        case Literal(value=bool() | int() | float() as value):
            return number(value)
        case Paren(inner=inner) | Call(function="I", args=(inner,)):
            return numeric(inner)
        case Unary(op=op, operand=inner):
            return number(0) - numeric(inner) if op == "-" else numeric(inner)
        case Binary(op="+" | "-" | "*" | "/" as op, left=left, right=right):
            a, b = numeric(left), numeric(right)
            return {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[op](b)
        case Binary(op="^" | "**", left=left, right=Literal(value=int() | float() as power)):
            return numeric(left) ** power
        case Call(function=function, args=(inner,)) if function.removeprefix("np.") in _FUNCTIONS:
            found: Expr = _FUNCTIONS[function.removeprefix("np.")](numeric(inner))
            return found
    raise DataError(needs_rows(f"`{node}`"))


@dataclass(frozen=True, eq=False)
class CodedExpressions:
    """What the columns of some terms are, level by level and predictor by predictor.

    Attributes
    ----------
    terms : sequence of Term
    columns : Columns
        Of rows that stand in for the data.
    rows : Interpreter
        Of such rows.
    levels : mapping of str to Index
        The levels of the factors that are columns of the data, by name.
    """

    terms: tuple[Term, ...]
    columns: Columns
    rows: Interpreter
    levels: Mapping[str, pd.Index[Any]]

    def expressions(self) -> list[Expr]:
        """Return each column as an expression."""
        return [self._expression(j) for j in range(len(self.columns.names))]

    def _expression(self, j: int) -> Expr:
        import narwhals.stable.v2 as nw

        origin = self.columns.origins[j]
        measured = [numeric(_whole(p)) ** power for p, power in origin.powers.items()]
        by_level = number(0)
        cells, shares = self._shares(j, origin)
        for cell, share in zip(cells, shares, strict=True):
            if share:
                is_cell = [(nw.col(n) == level).cast(nw.Float64) for n, level in cell.items()]
                by_level = by_level + prod(is_cell, start=number(share))
        return prod(measured, start=by_level)

    def _shares(self, j: int, origin: Origin) -> tuple[list[dict[str, Any]], Array]:
        """Return combinations of levels, and what the predictors are multiplied by in each."""
        names = sorted(origin.variables & set(self.levels))
        if (size := prod(len(self.levels[name]) for name in names)) > MAX_CELLS:
            raise DataError(
                f"`{self.columns.names[j]}` depends on {size:,} combinations of levels, more than "
                f"the {MAX_CELLS:,} that are looked at."
            )
        cells = [
            dict(zip(names, levels, strict=True))
            for levels in product(*(self.levels[name] for name in names))
        ]
        first = self.rows.frame.iloc[[0] * len(cells)].reset_index(drop=True)
        for name in first.columns:
            column = self.rows.frame[name]
            if name in names:
                first[name] = np.array([cell[name] for cell in cells], dtype=object)
                first[name] = first[name].astype(column.dtype)
            elif column.dtype.kind in "iuf" and name not in self.levels:
                low, high = float(column.min()), float(column.max())
                first[name] = (low + INNER * (high - low)) or 1.0
        rows = Interpreter(first, self.rows.text, self.rows.memory, {})
        values = code(rows, self.terms, self.columns).values[:, j]
        size_of = np.ones(len(cells))
        for (node, column_of), power in origin.powers.items():
            size_of *= rows.numeric(_whole((node, column_of))) ** power
        return cells, np.where(values == 0, 0.0, values / size_of)


def _whole(predictor: tuple[Node, int]) -> Node:
    """Return the expression of a predictor that is one column."""
    node, column = predictor
    if column:
        raise DataError(f"`{node}` needs the rows: make columns of it before.")
    return node
