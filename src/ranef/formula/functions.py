"""The allow-list of functions that a formula may call, their settings, and the codings of factors.

Every setting has a name and a kind of value: the arguments of a call are held against this list
before anything is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np
from scipy import special

from ranef.errors import FormulaError
from ranef.formula.syntax import Call, Column, Literal, Node, Unary

MAX_DEGREE = 25

Kind = tuple[str, Callable[[Any], bool]]  # of a setting: in words, and whether a value is one
_FLAG: Kind = ("TRUE or FALSE", lambda v: isinstance(v, bool))
_COUNT: Kind = (
    f"a whole number from 1 to {MAX_DEGREE}",
    lambda v: not isinstance(v, bool) and v in range(1, MAX_DEGREE + 1),
)
_NUMBER: Kind = ("a number", lambda v: isinstance(v, float | int) and np.isfinite(v))
_LABEL: Kind = ("a level", lambda _: True)
_SCALE: dict[str, Kind] = {
    "center": _FLAG,
    "scale": _FLAG,
    "ddof": ("0 or 1", lambda v: not isinstance(v, bool) and v in (0, 1)),
}
_SPLINE: dict[str, Kind] = {
    "df": _COUNT,
    "lower_bound": _NUMBER,
    "upper_bound": _NUMBER,
    "extrapolation": (
        '"raise", "clip", "zero" or "extend"',
        ("raise", "clip", "zero", "extend").__contains__,
    ),
}
_CUBIC = _SPLINE | {"constraints": ('"center"', ("center",).__contains__)}
SETTINGS: dict[str, dict[str, Kind]] = {
    "scale": _SCALE,
    "standardize": _SCALE,
    "center": {},
    "poly": {"degree": _COUNT, "raw": _FLAG},
    "bs": _SPLINE | {"degree": _COUNT, "include_intercept": _FLAG},
    "cr": _CUBIC,
    "cs": _CUBIC,
    "cc": _CUBIC,
}
CODINGS: dict[str, dict[str, Kind]] = {
    "treatment": {"base": _LABEL},
    "SAS": {"base": _LABEL},
    "sum": {},
    "helmert": {"reverse": _FLAG, "scale": _FLAG},
    "diff": {"backward": _FLAG},
    "poly": {},
}
_PATSY = {
    "Treatment": "contr.treatment",
    "Sum": "contr.sum",
    "Helmert": "contr.helmert",
    "Diff": "contr.diff",
    "Poly": "contr.poly",
}
_BASE = ("base", "ref", "reference")  # how a reference level is called
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
FUNCTIONS: dict[str, str] = {
    **dict.fromkeys(ELEMENTWISE, "elementwise"),
    **dict.fromkeys(SETTINGS, "stateful"),
    **dict.fromkeys(("C", "factor", "as.factor"), "categorical"),
    "I": "identity",
    "offset": "offset",
    "cbind": "response",
}


_UNSTRUCTURED = "an unstructured covariance is `(x | g)`"
_DIAGONAL = "independent effects are `(x || g)`"
_SMOOTH = "there are no penalised smooths, but the bases `bs(x, df=5)` and `cr(x, df=4)`"
_NOT_HERE = "this covariance structure is not available: there are `(x | g)` and `(x || g)`"
_MAKE_COLUMN = "make a column of the data of it"
ELSEWHERE: dict[str, str] = {
    "ns": "a natural cubic spline is `cr(x, df=4, constraints='center')`",
    "rcs": "a natural cubic spline is `cr(x, df=4, constraints='center')`",
    "dummy": "the indicator of a level is `I(1 * (f == 'a'))`",
    **dict.fromkeys(
        ("Treatment", "relevel"), "a reference level is set by `C(f, contr.treatment('b'))`"
    ),
    **dict.fromkeys(("Sum", "Helmert", "Diff", "Poly"), "codings stand in `C(f, contr.sum)`"),
    **dict.fromkeys(("s", "te", "ti", "t2", "pspline", "gp"), _SMOOTH),
    "us": _UNSTRUCTURED,
    **dict.fromkeys(("diag", "homdiag"), _DIAGONAL),
    **dict.fromkeys(
        ("ar1", "hetar1", "ou", "toep", "hetcs", "homcs", "rr", "exp", "mat", "gau"), _NOT_HERE
    ),
    "pow": "a power is `I(x^2)`",
    "np.power": "a power is `I(x^2)`",
    "Q": "a name that is no word stands in backticks",
    "interaction": "combinations of levels are `a:b`, as terms and as groups",
    "gr": "a grouping factor is a column, or columns joined with `:` or `/`",
    "mm": "there are no groups with several memberships",
    **dict.fromkeys(("weights", "se"), "they are given to the model, as `weights=` or `se=`"),
    "mvbind": "a model has one response",
    "trials": "counts of successes and failures are `cbind(successes, failures)`",
    "p": "proportions of trials are `y` with `weights=` the numbers of trials",
    "prop": "proportions of trials are `y` with `weights=` the numbers of trials",
    "as.numeric": "`pd.to_numeric` makes numbers of a column of the data",
    "as.integer": "`pd.to_numeric` makes numbers of a column of the data",
    "as.character": "labels are made a factor by `factor(f)`",
    "ordered": "an ordered factor is a pandas categorical, or `C(f, contr.poly)`",
    "mo": "an ordered factor is a pandas categorical, or `C(f, contr.poly)`",
    "hashed": _MAKE_COLUMN,
    **dict.fromkeys(
        ("ifelse", "np.where", "cut", "lag", "lead", "max", "min", "pmin"), _MAKE_COLUMN
    ),
}
"""What is written otherwise than in R's packages, brms, bambi and formulaic."""


def bind(
    call: Call, allowed: Mapping[str, Kind], unnamed: Sequence[Node], text: str
) -> dict[str, Any]:
    """Bind the arguments of a call to the names of its settings.

    Parameters
    ----------
    call : Call
    allowed : mapping of str to Kind
        The settings of the function; `scale` takes two of them without a name, others take one.
    unnamed : sequence of Node
        The arguments without a name that are settings.
    text : str
        The formula, for the errors.

    Raises
    ------
    FormulaError
        If there is no such setting, it is given twice, or its value is of another kind.
    """
    positional = list(allowed)[: 2 if allowed is _SCALE else 1]
    if len(unnamed) > len(positional):
        message = f"`{call}` has too many arguments without a name."
        raise FormulaError(message, text, call.span)
    bound: dict[str, Any] = {}
    for name, node in [*zip(positional, unnamed, strict=False), *call.kwargs]:
        if name not in allowed or name in bound:
            count = "two settings" if name in bound else "no setting"
            raise FormulaError(f"`{call.function}` has {count} `{name}`.", text, node.span)
        description, accepts = allowed[name]
        bound[name] = value(node)
        if bound[name] is None or not accepts(bound[name]):
            raise FormulaError(f"`{name}` is {description}, not `{node}`.", text, node.span)
    return bound


def value(node: Node) -> float | str | bool | None:
    """Return the value of a literal, whole numbers as integers; None of any other node."""
    sign, unsigned = (node.op, node.operand) if isinstance(node, Unary) else ("", node)
    literal = unsigned.value if isinstance(unsigned, Literal) else None
    if not isinstance(literal, float):
        return None if sign else literal
    number = -literal if sign == "-" else literal
    return int(number) if number.is_integer() else number


def with_our_coding(call: Call) -> Call:
    """Return a call that makes a factor with its coding as second argument, in our words.

    Examples
    --------
    >>> from ranef.formula.syntax import parse
    >>> print(parse("relevel(f, ref='b') + C(f, Treatment('b')) + C(f, Sum)", with_our_coding))
    C(f, contr.treatment('b')) + C(f, contr.treatment('b')) + C(f, contr.sum)
    """
    is_relevel = call.function == "relevel"
    if not (is_relevel or makes_factor(call)):
        return call
    match call.args, call.kwargs:
        case (column, Column() | Call() as coding), () if not is_relevel:
            coding = _named_coding(coding)
        case (column,), (("contrasts", Column() | Call() as coding),):
            coding = _named_coding(coding)
        case (column, level), () if is_relevel:
            coding = Call("contr.treatment", (level,), (), level.span)
        case (column,), ((word, level),) if word in _BASE:
            coding = Call("contr.treatment", (level,), (), level.span)
        case _:
            return call
    function = "C" if is_relevel else call.function
    return replace(call, function=function, args=(column, coding), kwargs=())


def _named_coding(coding: Column | Call) -> Column | Call:
    """Return `contr.sum` for patsy's `Sum`, `contr.treatment('b')` for `Treatment('b')`."""
    if isinstance(coding, Column):
        return replace(coding, name=_PATSY.get(coding.name, coding.name))
    function = _PATSY.get(coding.function, coding.function)
    match coding.args, coding.kwargs:
        case (), ((word, level),) if word in _BASE:
            return replace(coding, function=function, args=(level,), kwargs=())
    return replace(coding, function=function)


def makes_factor(node: Node) -> TypeGuard[Call]:
    """Whether an expression is a call of `factor()` or `C()`."""
    return isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"


def is_contrast(name: str) -> bool:
    """Whether a name stands for a coding, as in `C(f, contr.sum)`, and not for a column."""
    return name.startswith("contr.")
