"""Parts of a formula as expressions that an engine of lazy frames evaluates row by row.

Numbers, arithmetic and comparisons have expressions. A coded column is a product of measured
predictors, whatever the row, with a share that the levels of factors and the truth of comparisons
decide. Rows of one cell, with the same of these, have one share, which is read off a row that
stands for the cell, so that any coding of any factor goes the same way.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, Flags
from ranef.design.evaluate import Interpreter, Value
from ranef.design.lazy.lazy_table import Expr, needs_rows
from ranef.design.model_matrix import Columns, code
from ranef.errors import DataError
from ranef.formula.functions import FUNCTIONS
from ranef.formula.syntax import Binary, Call, Column, Literal, Node, Paren, Unary
from ranef.formula.terms import Term

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
_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

type Types = Mapping[str, Any]
"""The types of the columns of labels, by name."""


def number(value: float) -> Expr:
    """Return a constant of double precision, where an engine would take it for a decimal."""
    import narwhals.stable.v2 as nw

    return nw.lit(1).cast(nw.Float64) * float(value)


def combination(names: Sequence[str], shares: Array) -> Expr:
    """Return the sum of columns times numbers; those times zero have no part in it."""
    import narwhals.stable.v2 as nw

    parts = [nw.col(n) * number(s) for n, s in zip(names, shares, strict=True) if s]
    return sum(parts[1:], start=parts[0]) if parts else number(0)


def numeric(node: Node, labels: Types) -> Expr:  # noqa: PLR0911 -- one for each kind of node
    """Return an arithmetic expression of columns, in which truth values are 0 and 1.

    Raises
    ------
    DataError
        If it has no lazy form, or calculates with labels.
    """
    import narwhals.stable.v2 as nw

    match node:
        case Column(name=name) if name in labels:
            raise DataError(f"`{name}` is not numeric: it has the type {labels[name]}.")
        case Column():
            return nw.col(node.name).cast(nw.Float64)
        case Literal(value=bool() | int() | float() as value):
            return number(value)
        case Paren(inner=inner) | Call(function="I", args=(inner,)):
            return numeric(inner, labels)
        case Unary(op=op, operand=inner):
            operand = numeric(inner, labels)
            return number(0) - operand if op == "-" else operand
        case Binary(op="+" | "-" | "*" | "/" as op, left=left, right=right):
            a, b = numeric(left, labels), numeric(right, labels)
            return {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[op](b)
        case Binary(op="^" | "**", left=left, right=Literal(value=int() | float() as power)):
            return numeric(left, labels) ** power
        case Binary(op=op) if op in _COMPARISONS:
            return _comparison(node, labels).cast(nw.Float64)
        case Call(function=function, args=(inner,)) if function.removeprefix("np.") in _FUNCTIONS:
            found: Expr = _FUNCTIONS[function.removeprefix("np.")](numeric(inner, labels))
            return found
    raise DataError(needs_rows(f"`{node}`"))


def _comparison(node: Binary, labels: Types) -> Expr:
    """Return whether a comparison holds: of numbers, or of labels with each other."""
    import narwhals.stable.v2 as nw

    sides: list[Any] = []
    for side in (node.left, node.right):
        match side:
            case Column(name=name) if name in labels:
                sides.append(nw.col(name).cast(nw.String))
            case Literal(value=str() as text):
                sides.append(nw.lit(text))
    if not sides:
        sides = [numeric(side, labels) for side in (node.left, node.right)]
    elif len(sides) == 1 or node.op not in ("==", "!="):
        message = f"`{node}` compares labels with numbers, or orders labels; "
        raise DataError(f"{message}labels can be compared by `==` and `!=`.")
    found: Expr = _COMPARISONS[node.op](*sides)
    return found


def key_of(node: Node, labels: Types, truths: Iterable[str]) -> tuple[str, Expr] | None:
    """Return what decides the level of a factor of a term, with its name; None if it is measured.

    Raises
    ------
    DataError
        If it is a factor of what is calculated.
    """
    import narwhals.stable.v2 as nw

    is_call = isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"
    inner = node.args[0] if isinstance(node, Call) and is_call else node
    while isinstance(inner, Paren) or (isinstance(inner, Call) and inner.function == "I"):
        inner = inner.inner if isinstance(inner, Paren) else inner.args[0]
    if isinstance(inner, Binary) and inner.op in _COMPARISONS:
        return str(inner), _comparison(inner, labels)
    if isinstance(inner, Column) and (is_call or inner.name in labels or inner.name in truths):
        return inner.name, nw.col(inner.name)
    if is_call:
        raise DataError(needs_rows(f"`{node}`"))
    return None


@dataclass(frozen=True)
class CellRows(Interpreter):
    """Rows that stand for cells: all that is measured is one, and comparisons are columns.

    Attributes
    ----------
    measured : frozenset of str
        The labels of the factors of terms that are measured.
    """

    measured: frozenset[str] = field(default_factory=frozenset)

    def value(self, node: Node) -> Value:
        """Return the values of a factor of a term."""
        return np.ones(len(self.frame)) if str(node) in self.measured else super().value(node)

    def comparison(self, node: Binary) -> Flags:
        """Return a column."""
        return self.frame[str(node)].to_numpy(dtype=bool)


@dataclass(frozen=True, eq=False)
class CodedCells:
    """What the columns of some terms are, cell by cell.

    Attributes
    ----------
    terms : sequence of Term
    columns : Columns
        Of rows that stand in for the data.
    rows : Interpreter
        Of such rows.
    labels : mapping of str to type
        The columns of labels.
    truths : iterable of str
        Those of truth values.
    named : mapping of str to Expr, optional
        What decides the shares, by its name, where rows have it as columns.
    """

    terms: Sequence[Term]
    columns: Columns
    rows: Interpreter
    labels: Types
    truths: Iterable[str]
    named: Mapping[str, Expr] = field(default_factory=dict)

    @cached_property
    def measured(self) -> list[tuple[Node, ...]]:
        """The measured predictors that each column is a share of the product of."""
        return [
            tuple(factor for factor in term.factors if self._key(factor) is None)
            for term in self._of_columns()
        ]

    @cached_property
    def keys(self) -> list[dict[str, Expr]]:
        """What the share of each column depends on."""
        found = [[self._key(factor) for factor in term.factors] for term in self._of_columns()]
        there = [dict(key for key in of_column if key is not None) for of_column in found]
        return [{k: self.named.get(k, key) for k, key in one.items()} for one in there]

    def shares(self, cells: Mapping[str, Any], size: int) -> Array:
        """Return what the product of its predictors is multiplied by in each column.

        Parameters
        ----------
        cells : mapping of str to array
            Levels and truth values of each cell, by what decides them. Columns that depend on
            others than these have no meaning.
        size : int
            The number of cells.

        Returns
        -------
        ndarray, shape (size, columns)
        """
        frame = self.rows.frame.iloc[[0] * size].reset_index(drop=True)
        names = [name for of_column in self.keys for name in of_column]
        for name in dict.fromkeys(names):
            if name in cells and name in frame:
                values = pd.Series(np.asarray(cells[name], dtype=object), dtype=object)
                frame[name] = values.astype(frame[name].dtype)
            elif name not in frame:
                frame[name] = np.asarray(cells.get(name, np.zeros(size)), dtype=bool)
        measured = frozenset(str(node) for nodes in self.measured for node in nodes)
        of, memory = self.rows, self.rows.memory
        standing = CellRows(frame, of.text, memory, of.functions, measured=measured)
        return code(standing, self.terms, self.columns).values

    def _key(self, factor: Node) -> tuple[str, Expr] | None:
        return key_of(factor, self.labels, self.truths)

    def _of_columns(self) -> list[Term]:
        return [self.terms[origin.term] for origin in self.columns.origins]


def combinations_of(cells: Mapping[str, Any]) -> tuple[dict[str, Any], Codes]:
    """Return the different rows of some columns, and which of them each row is."""
    frame = pd.DataFrame({name: np.asarray(values) for name, values in cells.items()})
    numbers = frame.groupby([*frame], sort=False).ngroup().to_numpy()
    different = frame.drop_duplicates()
    return {name: different[name] for name in cells}, numbers.astype(np.int64)
