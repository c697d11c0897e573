"""The allow-list of functions, and the interpreter that evaluates checked expressions.

Expressions are trees of `ranef.syntax`; they are interpreted, never compiled, so that a formula
can reach the columns of its data and the functions listed here, and nothing else. What a function
learns from the data (a mean, knots, the levels of a factor) is kept in a `Memory`, so that the
same expression on new data means the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from ranef.errors import DataError, FormulaError, listed
from ranef.syntax import Binary, Call, Column, Literal, Node, Paren, Unary

Array = NDArray[np.float64]

ELEMENTWISE: dict[str, Callable[[Any], Any]] = {
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
}
_NUMPY = {f"np.{name}": function for name, function in ELEMENTWISE.items()}
ELEMENTWISE |= _NUMPY | {
    "ceiling": np.ceil,
    "logit": special.logit,
    "plogis": special.expit,
    "qlogis": special.logit,
}
_STATEFUL = ("scale", "center", "standardize", "poly", "bs", "cr", "cs", "cc")
_CATEGORICAL = ("C", "factor", "as.factor")
FUNCTIONS: dict[str, str] = {
    **dict.fromkeys(ELEMENTWISE, "elementwise"),
    **dict.fromkeys(_STATEFUL, "stateful"),
    **dict.fromkeys(_CATEGORICAL, "categorical"),
    "I": "identity",
    "offset": "offset",
    "cbind": "response",
}
MAX_DEGREE = 25

_CODINGS = {
    "treatment": "treatment",
    "sas": "SAS",
    "sum": "sum",
    "helmert": "helmert",
    "diff": "diff",
    "poly": "poly",
}
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


@dataclass(frozen=True, eq=False)
class Categorical:
    """Values of a factor: integer codes (-1 for a level that was not seen), levels, coding."""

    codes: NDArray[np.int64]
    levels: pd.Index[Any]
    contrasts: object | None = None
    unseen: tuple[object, ...] = ()


Value = Array | NDArray[np.bool_] | Categorical


@dataclass(frozen=True)
class Memory:
    """What expressions have learnt from the data, by their label. Filled on first use."""

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
        What was learnt; reuse it with new data.
    functions : mapping of str to callable
        The user's own functions: arrays in, an array of the same length out.
    """

    frame: pd.DataFrame
    text: str
    memory: Memory
    functions: Mapping[str, Callable[..., Any]]

    def error(self, message: str, node: Node) -> FormulaError:
        return FormulaError(message, self.text, node.span)

    def value(self, node: Node) -> Value:
        """Return the values of a factor of a term: numbers, truth values or a categorical.

        Returns
        -------
        ndarray of shape (n,) or (n, k), or Categorical
        """
        found = self.evaluate(node)
        if isinstance(found, (pd.Series, Categorical)):
            return self.categorical(node) if isinstance(found, pd.Series) else found
        values = np.broadcast_to(found, (len(self.frame),)) if np.ndim(found) == 0 else found
        if values.dtype == bool:
            return np.asarray(values)
        return self.finite(np.asarray(values, dtype=np.float64), node)

    def numeric(self, node: Node) -> Array:
        """Return values as numbers, truth values as 0 and 1; refuse a categorical."""
        found = self.value(node)
        if isinstance(found, Categorical):
            message = f"`{node}` is not numeric: it has the levels {listed(found.levels)}."
            raise DataError(message)
        return np.asarray(found, dtype=np.float64)

    def categorical(self, node: Node) -> Categorical:
        """Return values as a factor: category order, else the sorted values, unused left out."""
        found = self.evaluate(node)
        if isinstance(found, Categorical):
            return found
        if np.ndim(found) != 1:
            raise self.error(f"`{node}` is not one column, so it cannot be a factor.", node)
        return self._coded(str(node), pd.Series(found))

    def finite(self, values: Array, node: Node) -> Array:
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            rows = listed(self.frame.index[bad])
            message = (
                f"`{node}` is infinite or not a number in {bad.sum()} rows: {rows}. "
                "Correct these values or leave the rows out."
            )
            raise DataError(message)
        return values

    # -------------------------------------------------------------- the tree

    def evaluate(self, node: Node) -> Any:
        """Return a number, an array, a Series of labels, or a Categorical."""
        match node:
            case Column():
                return self.column(node)
            case Literal(value=float() | bool() as number):
                return np.float64(number)
            case Literal():
                return node.value
            case Paren():
                return self.evaluate(node.inner)
            case Unary():
                operand = self.number(node.operand)
                return -operand if node.op == "-" else operand
            case Binary(op=op) if op in _OPERATORS:
                with np.errstate(all="ignore"):
                    return _OPERATORS[op](self.number(node.left), self.number(node.right))
            case Binary(op=op) if op in _COMPARISONS:
                return self.comparison(node)
            case Call():
                return self.call(node)
        raise self.error(f"`{node}` cannot be evaluated.", node)

    def column(self, node: Column) -> Any:
        if node.name not in self.frame:
            raise self.error(f"`{node}` cannot be used here.", node)
        series = self.frame[node.name]
        if series.dtype == bool or isinstance(series.dtype, pd.BooleanDtype):
            return series.to_numpy(dtype=bool)
        if pd.api.types.is_numeric_dtype(series.dtype) and series.dtype.kind != "c":
            return series.to_numpy(dtype=np.float64)
        if series.dtype.kind in "mMc" or isinstance(series.dtype, pd.PeriodDtype):
            message = (
                f"column `{node}` has type {series.dtype}: turn it into numbers (say, days since "
                "the start) or into a categorical first."
            )
            raise DataError(message)
        return series

    def number(self, node: Node) -> Any:
        """Return the value of an operand of arithmetic."""
        found = self.evaluate(node)
        if isinstance(found, (pd.Series, Categorical, str, type(None))):
            raise self.error(f"`{node}` is not numeric, so it cannot be calculated with.", node)
        return np.asarray(found, dtype=np.float64)

    def comparison(self, node: Binary) -> Any:
        left, right = self.evaluate(node.left), self.evaluate(node.right)
        labels = [isinstance(side, (pd.Series, str)) for side in (left, right)]
        if any(isinstance(side, Categorical) for side in (left, right)):
            raise self.error("compare the column itself, without `factor` or `C`.", node)
        if any(labels) and (not all(labels) or node.op not in ("==", "!=")):
            message = f"`{node}` compares labels with numbers, or orders labels; "
            raise self.error(message + "labels can be compared by `==` and `!=`.", node)
        if any(labels):
            left, right = (
                np.asarray(s, dtype=object) if isinstance(s, pd.Series) else s for s in (left, right)
            )
        return np.asarray(_COMPARISONS[node.op](left, right), dtype=bool)

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
            case "response":
                raise self.error("a response of two columns is for a binomial model.", node)
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
        found = np.asarray(self.functions[node.function](*arguments, **named), dtype=np.float64)
        if found.ndim not in (1, 2) or len(found) != len(self.frame):
            message = f"`{node}` gave an array of shape {found.shape} for {len(self.frame)} rows."
            raise self.error(message, node)
        return found

    def stateful(self, node: Call) -> Any:
        """Apply one of formulaic's transforms that remember what they learnt."""
        from formulaic.transforms import TRANSFORMS

        if not node.args:
            raise self.error(f"`{node.function}` needs a column.", node)
        settings = [self.setting(a) for a in node.args[1:]]
        named = {k: self.setting(v) for k, v in node.kwargs}
        state = self.memory.states.setdefault(str(node), {})
        data = self.number(node.args[0])
        if np.ndim(data) == 0 or not np.isfinite(data).all():
            self.finite(np.atleast_1d(data), node.args[0])
            raise self.error(f"`{node.function}` needs a column.", node)
        name = "scale" if node.function == "standardize" else node.function
        try:
            found = TRANSFORMS[name](data, *settings, _state=state, **named)
        except (TypeError, ValueError) as error:
            raise self.error(f"`{node}` cannot be evaluated: {error}.", node) from error
        if isinstance(found, dict):  # splines come as one array a basis function
            columns = [v for k, v in found.items() if not str(k).startswith("__")]
            return np.column_stack([np.asarray(c, dtype=np.float64) for c in columns])
        return np.asarray(found, dtype=np.float64)

    def setting(self, node: Node) -> Any:
        """Return an argument that sets how a transform works: a number, a word, TRUE, FALSE."""
        sign, inner = (-1, node.operand) if isinstance(node, Unary) else (1, node)
        if not isinstance(inner, Literal):
            raise self.error(f"expected a number, TRUE or FALSE, got `{node}`.", node)
        if not isinstance(inner.value, float):
            return inner.value
        value = sign * inner.value
        if value.is_integer() and abs(value) > MAX_DEGREE:
            raise self.error(f"`{node}` is too large: at most {MAX_DEGREE}.", node)
        return int(value) if value.is_integer() else value

    def factor(self, node: Call) -> Categorical:
        if not node.args or len(node.args) + len(node.kwargs) > 2:
            raise self.error(f"`{node.function}` takes a column and a coding.", node)
        coding = [*node.args[1:], *(v for k, v in node.kwargs if k == "contrasts")]
        if len(coding) + 1 != len(node.args) + len(node.kwargs):
            raise self.error(f"`{node.function}` takes a column and `contrasts=`.", node)
        found = self.evaluate(node.args[0])
        if isinstance(found, Categorical) or np.ndim(found) != 1:
            raise self.error(f"`{node.args[0]}` is not one column.", node)
        coded = self._coded(str(node), pd.Series(found))
        contrasts = self.coding(coding[0]) if coding else None
        return Categorical(coded.codes, coded.levels, contrasts, coded.unseen)

    def coding(self, node: Node) -> object:
        """Return formulaic's contrasts for `contr.sum`, `contr.treatment("b")` and their like."""
        from formulaic.transforms.contrasts import ContrastsRegistry

        name = node.function if isinstance(node, Call) else str(node)
        known = _CODINGS.get(name.removeprefix("contr.").lower())
        if known is None:
            names = listed((f"contr.{c}" for c in _CODINGS), limit=9)
            raise self.error(f"`{node}` is not a coding: there are {names}.", node)
        arguments, named = [], {}
        if isinstance(node, Call):
            arguments = [self.setting(a) for a in node.args]
            named = {k: self.setting(v) for k, v in node.kwargs}
        try:
            return getattr(ContrastsRegistry, known)(*arguments, **named)
        except TypeError as error:
            raise self.error(f"`{node}` cannot be used: {error}.", node) from error

    def _coded(self, label: str, series: pd.Series[Any]) -> Categorical:
        """Code labels by the levels learnt, or learn them."""
        levels = self.memory.levels.get(label)
        if levels is None:
            levels = self.memory.levels[label] = sorted_levels(series)
        plain = series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series
        codes = levels.get_indexer(pd.Index(plain))
        unseen = tuple(pd.unique(plain[codes < 0])) if (codes < 0).any() else ()
        return Categorical(codes.astype(np.int64), levels, None, unseen)


def sorted_levels(series: pd.Series[Any]) -> pd.Index[Any]:
    """Return the levels that occur, in category order or sorted.

    Examples
    --------
    >>> list(sorted_levels(pd.Series(["b", "a", "b"])))
    ['a', 'b']
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        used = set(series.cat.codes.unique())
        kept = [level for code, level in enumerate(series.cat.categories) if code in used]
        return pd.Index(kept, dtype=series.cat.categories.dtype)
    values = pd.unique(series)
    if values.dtype.kind == "f" and (values == np.floor(values)).all():
        values = values.astype(np.int64)
    try:
        return pd.Index(np.sort(np.asarray(values)))
    except TypeError:  # labels of mixed types have no order of their own
        return pd.Index(sorted(values, key=lambda v: (type(v).__name__, str(v))), dtype=object)
