"""The interpreter that evaluates checked expressions on the columns of a data frame.

Expressions are trees of `formula.syntax`; they are interpreted, never compiled, so that a formula
can reach the columns of its data and the functions of `formula.functions`, and nothing else. States
that a function learns from the data (a mean, knots, the levels of a factor) are kept in a `Memory`,
so that the same expression on new data means the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, Flags
from ranef.design.columns.written_labels import numbers_hint
from ranef.design.data_frame import (
    Categorical,
    check_magnitude,
    coded,
    in_rows,
    plain,
    refuse_complex,
    refuse_times,
)
from ranef.errors import DataError, FormulaError, listed
from ranef.formula.codings import Coding
from ranef.formula.functions import CODINGS, ELEMENTWISE, FUNCTIONS, SETTINGS, bind
from ranef.formula.syntax import Binary, Call, Column, Literal, Node, Paren, Unary

_CODINGS = {name.lower(): name for name in CODINGS}
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "**": np.power,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}

Functions = Mapping[str, Callable[..., Any]]

Value = Array | Flags | Categorical


@dataclass(frozen=True)
class Memory:
    """States and levels that expressions have learnt from the data, by label, on first use."""

    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    levels: dict[str, pd.Index[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Interpreter:
    """Evaluates expressions on the columns of one data frame.

    Attributes
    ----------
    frame : pandas.DataFrame
        The used columns, without missing values.
    text : str
        The formula, for the errors.
    memory : Memory
        The states learnt from the data of a model; reused with new data.
    functions : mapping of str to callable
        The user's own functions: arrays in, an array of the same length out.
    counts : ndarray of int, shape (n,), optional
        How often each row occurs in the data, if these are its different rows.
    """

    frame: pd.DataFrame
    text: str
    memory: Memory
    functions: Functions
    counts: Codes | None = None
    # what is known of this frame alone: not of another one that takes its place
    _factors: dict[str, Categorical] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )
    _values: dict[Node, Value] = field(init=False, default_factory=dict, repr=False, compare=False)

    @property
    def rows(self) -> pd.Index[Any] | Codes:
        """What errors say of rows: their labels, or how often each occurs."""
        return self.frame.index if self.counts is None else self.counts

    def error(self, message: str, node: Node) -> FormulaError:
        return FormulaError(message, self.text, node.span)

    def value(self, node: Node) -> Value:
        """Return the values of a factor of a term: numbers, truth values or a categorical.

        They are computed once, as a predictor of the fixed effects may have random ones too.

        Returns
        -------
        ndarray of shape (n,) or (n, k), or Categorical
        """
        if node not in self._values:
            self._values[node] = self._value_of(node)
        return self._values[node]

    def _value_of(self, node: Node) -> Value:
        values = self.evaluate(node)
        if isinstance(values, Categorical):
            return values
        if isinstance(values, pd.Series):
            refuse_times(str(node), values)
            return self.categorical(node)
        if isinstance(values, (str, type(None))):
            raise self.error(f"`{node}` is neither a column nor a number.", node)
        if np.ndim(values) == 0:
            values = np.broadcast_to(values, (len(self.frame),))
        if values.dtype == bool:
            return np.asarray(values)
        return self.finite(np.asarray(values, dtype=np.float64), node)

    def numeric(self, node: Node) -> Array:
        """Return values as numbers, truth values as 0 and 1; refuse a categorical."""
        values = self.value(node)
        if isinstance(values, Categorical):
            message = f"`{node}` is not numeric: it has the levels {listed(values.levels)}."
            raise DataError(message + numbers_hint(str(node), values.levels))
        return np.asarray(values, dtype=np.float64)

    def categorical(self, node: Node) -> Categorical:
        """Return values as a factor of the levels that occur, in category order or sorted.

        It is coded once, as a factor of the fixed effects may have random ones too.
        """
        label = str(node)
        if label not in self._factors:
            self._factors[label] = self._factor_of(node, label)
        return self._factors[label]

    def _factor_of(self, node: Node, label: str) -> Categorical:
        values = self.series(node) if isinstance(node, Column) else self.evaluate(node)
        if isinstance(values, Categorical):
            return values
        if np.ndim(values) != 1:
            raise self.error(f"`{node}` is not one column, so it cannot be a factor.", node)
        series = pd.Series(values)
        if series.dtype.kind == "f":
            self.finite(series.to_numpy(), node)
        factor = coded(label, series, self.memory.levels.get(label))
        self.memory.levels.setdefault(label, factor.levels)
        return factor

    def finite(self, values: Array, node: Node) -> Array:
        """Refuse values that are not finite, naming the rows, or of an extreme magnitude."""
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
        if bad.any():
            raise DataError(
                f"`{node}` is infinite or not a number in {in_rows(bad, self.rows)}. Correct these "
                "values or leave the rows out."
            )
        check_magnitude(f"`{node}`", values)
        return values

    # -------------------------------------------------------------- the tree

    def evaluate(self, node: Node) -> Any:
        """Return a number, an array, a Series of labels, or a Categorical."""
        match node:
            case Column():
                return self.column(node)
            case Literal():
                return (
                    np.float64(node.value) if isinstance(node.value, float | bool) else node.value
                )
            case Paren():
                return self.evaluate(node.inner)
            case Unary() | Binary(op="+" | "-" | "*" | "/" | "^" | "**"):
                return self.arithmetic(node)
            case Binary(op=op) if op in _COMPARISONS:
                return self.comparison(node)
            case Call():
                return self.call(node)
        raise self.error(f"`{node}` cannot be evaluated.", node)

    def series(self, node: Column) -> pd.Series[Any]:
        """Return a column as numbers, truth values, categories or other labels."""
        if node.name not in self.frame:
            message = f"`{node}` cannot be used here: it names a coding, as in `C(f, contr.sum)`."
            raise self.error(message, node)
        series = self.frame[node.name]
        refuse_complex(series)
        return plain(series)

    def column(self, node: Column) -> Any:
        series = self.series(node)
        if series.dtype == bool:
            return series.to_numpy()
        if series.dtype.kind in "iuf":
            return series.to_numpy(dtype=np.float64)
        return series

    def number(self, node: Node) -> Any:
        """Return the value of an operand of arithmetic."""
        return self.calculable(self.evaluate(node), node)

    def calculable(self, operand: Any, node: Node) -> Any:
        if isinstance(operand, (pd.Series, Categorical, str, type(None))):
            hint = ""
            if isinstance(operand, pd.Series):
                hint = numbers_hint(str(node), coded(str(node), operand).levels)
            message = f"`{node}` is not numeric, so it cannot be calculated with.{hint}"
            raise self.error(message, node)
        if np.ndim(operand) > 1:
            message = f"`{node}` has {operand.shape[1]} columns, so it cannot be calculated with."
            raise self.error(message, node)
        return np.asarray(operand, dtype=np.float64)

    def arithmetic(self, node: Unary | Binary) -> Any:
        with np.errstate(all="ignore"):  # the value of the whole expression is checked
            if isinstance(node, Binary):
                return _OPERATORS[node.op](self.number(node.left), self.number(node.right))
            operand = self.number(node.operand)
            return -operand if node.op == "-" else operand

    def comparison(self, node: Binary) -> Any:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        if any(isinstance(side, Categorical) for side in (left, right)):
            raise self.error("compare the column itself, without `factor` or `C`.", node)
        labels = [isinstance(side, (pd.Series, str)) for side in (left, right)]
        if any(labels) and (not all(labels) or node.op not in ("==", "!=")):
            message = f"`{node}` compares labels with numbers, or orders labels; "
            raise self.error(message + "labels can be compared by `==` and `!=`.", node)
        if any(labels):
            sides = [np.asarray(s, dtype=object) if np.ndim(s) else s for s in (left, right)]
        else:
            sides = [self.calculable(left, node.left), self.calculable(right, node.right)]
        try:
            return np.asarray(_COMPARISONS[node.op](*sides), dtype=bool)
        except (TypeError, ValueError):
            raise self.error(f"`{node}` compares what cannot be compared.", node) from None

    # --------------------------------------------------------------- functions

    def call(self, node: Call) -> Any:
        kind = None if node.function in self.functions else FUNCTIONS.get(node.function)
        match kind:
            case "elementwise":
                with np.errstate(all="ignore"):
                    return ELEMENTWISE[node.function](self.number(self.only(node)))
            case "identity":
                return self.evaluate(self.only(node))
            case "stateful":
                return self.stateful(node)
            case "categorical":
                return self.factor(node)
            case None if node.function in self.functions:
                return self.user(node)
        raise self.error(f"`{node.function}` cannot be used here.", node)

    def only(self, node: Call) -> Node:
        if len(node.args) != 1 or node.kwargs:
            raise self.error(f"`{node.function}` takes one argument.", node)
        return node.args[0]

    def user(self, node: Call) -> Array:
        arguments = [self.evaluate(a) for a in node.args]
        named = {k: self.evaluate(v) for k, v in node.kwargs}
        result = self.functions[node.function](*arguments, **named)
        try:
            values = np.asarray(result)
        except (TypeError, ValueError):
            raise self.error(f"`{node}` did not give an array of numbers.", node) from None
        if values.dtype.kind not in "biuf":
            raise self.error(f"`{node}` did not give numbers.", node)
        if values.ndim not in (1, 2) or len(values) != len(self.frame) or 0 in values.shape[1:]:
            message = f"`{node}` gave an array of shape {values.shape} for {len(self.frame)} rows."
            raise self.error(message, node)
        return values.astype(np.float64)

    def stateful(self, node: Call) -> Any:
        """Apply one of formulaic's transforms that learn a state from the data."""
        from formulaic.transforms import TRANSFORMS

        if not node.args or np.ndim(data := self.number(node.args[0])) == 0:
            raise self.error(f"`{node.function}` needs a column.", node)
        self.finite(data, node.args[0])
        settings = bind(node, SETTINGS[node.function], node.args[1:], self.text)
        if node.function in ("bs", "cr", "cs", "cc"):
            self._check_spline(node, settings)
        if str(node) not in self.memory.states:
            self._check_enough(node, settings, data)
        state = self.memory.states.setdefault(str(node), {})
        if node.function == "bs":
            self._check_range(node, settings | state, data)
        try:
            with np.errstate(all="ignore"):  # the value of the whole expression is checked
                name = "scale" if node.function == "standardize" else node.function
                values = TRANSFORMS[name](data, _state=state, **settings)
        except ValueError as error:
            message = f"`{node}` cannot be calculated: {str(error).rstrip('.')}."
            raise self.error(message, node) from None
        if isinstance(values, dict):  # splines come as one array a basis function
            values = np.column_stack(list(values.values()))
        return np.asarray(values, dtype=np.float64)

    def _check_enough(self, node: Call, settings: Mapping[str, Any], data: Array) -> None:
        """Refuse more curvature than the different values of a column can carry."""
        is_orthogonal = node.function == "poly" and not settings.get("raw", False)
        needed = settings.get("degree", 1) + 1 if is_orthogonal else 2
        if (n_values := len(np.unique(data))) < needed:
            message = f"`{node}` needs {needed} different values or more; "
            raise DataError(message + f"`{node.args[0]}` has {n_values}.")

    def _check_spline(self, node: Call, settings: Mapping[str, Any]) -> None:
        if node.function == "bs":
            min_df = settings.get("degree", 3) + settings.get("include_intercept", False)
        else:
            min_df = 2 - (node.function == "cc" or "constraints" in settings)
        if settings.get("df", min_df if node.function == "bs" else 0) < min_df:
            raise self.error(f"`{node.function}` needs `df` of {min_df} or more here.", node)
        if settings.get("lower_bound", -np.inf) >= settings.get("upper_bound", np.inf):
            raise self.error("`lower_bound` has to lie below `upper_bound`.", node)

    def _check_range(self, node: Call, settings: Mapping[str, Any], data: Array) -> None:
        low, high = settings.get("lower_bound", -np.inf), settings.get("upper_bound", np.inf)
        outside = (data < low) | (data > high)
        if outside.any() and settings.get("extrapolation", "raise") == "raise":
            raise DataError(
                f"`{node.args[0]}` leaves the range of `{node}`, {low:g} to {high:g}, in the rows "
                f"{listed(self.frame.index[outside])}. The setting `extrapolation` (clip, zero or "
                "extend) can say how to go on there."
            )

    def factor(self, node: Call) -> Categorical:
        if not node.args or len(node.args) + len(node.kwargs) > 2:
            raise self.error(f"`{node.function}` takes a column and a coding.", node)
        coding = [*node.args[1:], *(v for k, v in node.kwargs if k == "contrasts")]
        if len(coding) + 1 != len(node.args) + len(node.kwargs):
            raise self.error(f"`{node.function}` takes a column and `contrasts=`.", node)
        factor = self.categorical(node.args[0])
        return replace(factor, coding=self.coding(coding[0], factor.levels)) if coding else factor

    def coding(self, node: Node, levels: pd.Index[Any]) -> Coding:
        """Read `contr.sum`, `contr.treatment("b")` and their like."""
        name = node.function if isinstance(node, Call) else str(node)
        name = _CODINGS.get(name.removeprefix("contr.").lower(), "")
        if not name:
            names = listed((f"contr.{c}" for c in CODINGS), limit=9)
            raise self.error(f"`{node}` is not a coding: there are {names}.", node)
        if not isinstance(node, Call):
            return Coding(name)
        settings = bind(node, CODINGS[name], node.args, self.text)
        if "base" in settings:
            labels = [str(level) for level in levels]
            if (base := str(settings["base"])) not in labels:
                message = f"`{base}` is not a level: there are {listed(labels, limit=9)}."
                raise self.error(message, node)
            settings["base"] = labels.index(base)
        return Coding(name, settings)


def one_column(values: Array, subject: str) -> Array:
    """Return values that are one number a row, or refuse them.

    Raises
    ------
    DataError
    """
    if values.ndim != 1:
        raise DataError(f"{subject} has {values.shape[1]} columns, expected one.")
    return values


def callables(functions: object) -> Functions:
    """Return a user's functions by name, or refuse what is no such dict.

    Raises
    ------
    FormulaError
    """
    functions = {} if functions is None else functions
    if not isinstance(functions, Mapping) or not all(
        isinstance(name, str) and callable(function) for name, function in functions.items()
    ):
        raise FormulaError("functions= takes a dict from a name to a function.")
    return dict(functions)
