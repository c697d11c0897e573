"""The response of a model: numbers in the support of its family, with weights or trials.

A binomial response comes in five shapes: numbers 0 and 1, truth values, a column of two levels (the
second is the success), `cbind(successes, failures)`, a proportion with its trials as `weights=`.
All of them end as the proportion of successes, with the number of trials as weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Codes, Flags
from ranef.design.columns.written_labels import numbers_hint
from ranef.design.data_frame import Categorical, check_magnitude, in_rows, open_frame
from ranef.design.evaluate import Interpreter, one_column
from ranef.errors import DataError, listed
from ranef.families.family import Family
from ranef.formula.functions import makes_factor
from ranef.formula.syntax import Call, Column, Node

COUNT_TOLERANCE = 1e-9  # relative distance of a count from a whole number
SUCCESSES_TOLERANCE = 1e-6  # of a proportion times its trials, which may be of single precision

_SHAPES = (
    "A {family} response is 0 or 1, a column of two levels (of two numbers: `factor({label})`), "
)
_TRIALS = "`cbind(successes, failures)`, or a proportion with its trials as `weights=`."


@dataclass(frozen=True, eq=False)
class Response:
    """The response of a model.

    Attributes
    ----------
    label : str
        Its text in the formula.
    y : ndarray, shape (n,)
        Proportions of successes for a binomial family.
    weights : ndarray, shape (n,)
        Prior weights; numbers of trials for a binomial family.
    success : str
        The condition of a success, where the response holds labels: `use == 'Y'`. Else empty.
    """

    label: str
    y: Array
    weights: Array
    success: str = ""


def read_response(
    interpreter: Interpreter, node: Node, family: Family, weights: Array | None = None
) -> Response:
    """Evaluate the left side of a formula and hold it against the support of a family.

    Parameters
    ----------
    interpreter : Interpreter
        Of complete rows.
    node : Node
        The left side.
    family : Family
    weights : ndarray, shape (n,), optional
        As given: positive and finite.

    Raises
    ------
    FormulaError
        If `cbind` is used with another family than the binomial, or with other than two counts.
    DataError
        If a value is none that the family can take; the message names rows and remedies.

    Examples
    --------
    >>> from ranef.families.binomial import BINOMIAL
    >>> from ranef.formula.syntax import parse
    >>> from ranef.design.evaluate import Memory
    >>> frame = pd.DataFrame({"dead": [1, 0], "alive": [3, 2]})
    >>> interpreter = Interpreter(frame, "cbind(dead, alive)", Memory(), {})
    >>> response = read_response(interpreter, parse("cbind(dead, alive)"), BINOMIAL)
    >>> response.y, response.weights
    (array([0.25, 0.  ]), array([4., 2.]))
    """
    if isinstance(node, Call) and node.function == "cbind":
        return _of_two_counts(interpreter, node, family, weights)
    values, label, rows = interpreter.value(node), str(node), interpreter.rows
    success = ""
    if isinstance(values, Categorical):
        y, success = _of_levels(values, node, family)
    else:
        y = one_column(np.array(values, dtype=np.float64), f"the response `{label}`")
    if family.has_trials:
        y, weights = _of_trials(y, label, family, weights, rows)
    else:
        y = _supported(y, label, family, rows)
    return Response(label, y, np.ones(len(y)) if weights is None else weights, success)


def given_response(
    values: ArrayLike, label: str, family: Family, rows: pd.Index, trials: Array
) -> Array:
    """Return numbers that are given as the response of rows, or refuse them.

    Parameters
    ----------
    values : array, shape (n,) or (n, 1), or Series
        As a response is held: proportions of a binomial family. A Series is taken by the labels of
        its rows, and may have more of them; anything else goes by position.
    label : str
    family : Family
    rows : pandas.Index
        Labels of the n rows.
    trials : ndarray, shape (n,)
        Their numbers of trials, where the family has any.

    Raises
    ------
    DataError
        If there are too few or too many, or a value is none that the family can take.

    Examples
    --------
    >>> from ranef.families.poisson import POISSON
    >>> rows, given = pd.Index(["a", "b"]), pd.Series([3, 1, 9], ["b", "a", "c"])
    >>> given_response(given, "y", POISSON, rows, np.ones(2))
    array([1., 3.])
    """
    if isinstance(values, pd.DataFrame) and values.shape[1] == 1:
        values = values.iloc[:, 0]
    if isinstance(values, pd.Series):
        values = _by_label(values, rows)
    try:
        y = np.ma.filled(np.ma.asarray(values, dtype=np.float64), np.nan)
    except (TypeError, ValueError):
        message = "the new response is not numeric: give it as the model holds it and "
        raise DataError(f"{message}`fit.simulate()` returns it.") from None
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (len(rows),):
        raise DataError(f"the new response has shape {y.shape}, expected ({len(rows)},).")
    remedy = "With other rows it is another data set: fit.update(data=...)."
    _refuse(~np.isfinite(y), "the new response", "missing or infinite", rows, remedy)
    if family.has_order:
        return y
    if family.has_trials:
        return _of_trials(y, label, family, trials, rows)[0]
    return _supported(y, label, family, rows)


def _by_label(values: pd.Series[Any], rows: pd.Index) -> pd.Series[Any]:
    if values.index.equals(rows):
        return values
    if not (rows.is_unique and values.index.is_unique and rows.isin(values.index).all()):
        absent = listed(rows[~rows.isin(values.index)]) or "repeated ones"
        message = "the labels of the new response are not those of the rows of the fit: without "
        raise DataError(f"{message}{absent}. A plain array goes by position.")
    return values.loc[rows]


def precisions_of(data: object, se: str | ArrayLike, weights: object, family: Family) -> Array:
    """Return the weights 1 / se^2 of rows whose standard errors are known, shape (n,).

    Parameters
    ----------
    data : DataFrame
    se : str or array of shape (n,)
        The name of a column, or values; nan where one is missing.
    weights : object
        What was given as weights=, beside which there are no standard errors.
    family : Family

    Raises
    ------
    DataError
        If an error is not positive or not finite, or the model is none of known variances.

    Examples
    --------
    >>> from ranef.families.gaussian import GAUSSIAN
    >>> precisions_of({"y": [1, 2], "s": [0.5, 2]}, "s", None, GAUSSIAN)
    array([4.  , 0.25])
    """
    if not family.is_linear:
        raise DataError(
            "se= are standard errors of the response of a Gaussian model with identity link, not "
            f"of the {family}."
        )
    if weights is not None:
        raise DataError("se= and weights= are both given: known standard errors are weights.")
    source = open_frame(data)
    errors = source.values(se, "se")
    assert errors is not None
    bad = (errors <= 0) | np.isinf(errors)
    remedy = "A standard error is a positive number; of a variance, it is the root."
    _refuse(bad, "se=", "zero, negative or infinite", source.rows, remedy)
    check_magnitude("se=", errors[np.isfinite(errors)])
    return 1 / errors**2


def _of_two_counts(
    interpreter: Interpreter, node: Call, family: Family, weights: Array | None
) -> Response:
    """Read `cbind(successes, failures)`."""
    label, rows = str(node), interpreter.rows
    if not family.has_trials:
        message = (
            f'`cbind` makes a response for family="binomial"; the {family.name} family takes one '
            "column."
        )
        raise interpreter.error(message, node)
    if len(node.args) != 2 or node.kwargs:
        message = "`cbind` takes two counts: of successes and of failures."
        raise interpreter.error(message, node)
    if weights is not None:
        message = f"`{label}` and weights= both give the numbers of trials: leave out weights=."
        raise DataError(message)
    successes, failures = (_count(interpreter, argument, label) for argument in node.args)
    trials = successes + failures
    refuse = partial(_refuse, rows=rows, remedy="Leave out the rows without trials.")
    refuse(trials == 0, f"`{label}`", "zero in both counts")
    return Response(label, successes / trials, trials)


def _count(interpreter: Interpreter, node: Node, response: str) -> Array:
    subject, rows = f"`{node}`", interpreter.rows
    counts = one_column(interpreter.numeric(node), subject)
    remedy = f"`{response}` takes counts: of successes, and of failures (not of trials)."
    _refuse(counts < 0, subject, "negative", rows, remedy)
    _refuse(_is_fractional(counts, COUNT_TOLERANCE), subject, "not a whole number", rows, remedy)
    return np.round(counts)


def _of_levels(factor: Categorical, node: Node, family: Family) -> tuple[Array, str]:
    """Return the numbers of the levels from 0 on, and the condition of a success, if it is one."""
    if family.has_order:
        return factor.codes.astype(np.float64), ""
    levels, label, last = factor.levels, str(node), _quoted(factor.levels[-1])
    column = _column(node)
    if not family.has_classes:
        message = (
            f"`{label}` is not numeric: it has the levels {listed(levels)}. The {family.name} "
            f"family takes numbers; two classes, such as `({column} == {last})`, are for "
            'family="binomial".'
        )
        raise DataError(message + numbers_hint(label, levels))
    if len(levels) == 1:
        raise DataError(
            f"`{label}` has one level only, {listed(levels)}, which may be success or failure: "
            f"write `({column} == {last})` or `({column} != {last})`."
        )
    if len(levels) > 2:
        message = (
            f"`{label}` has {len(levels)} levels, {listed(levels)}; the {family.name} family takes "
            f"two: `({column} == {last})` sets one of them against the others."
        )
        raise DataError(message + numbers_hint(label, levels))
    return factor.codes.astype(np.float64), f"{column} == {last}"


def _of_trials(
    y: Array, label: str, family: Family, trials: Array | None, rows: pd.Index[Any] | Codes
) -> tuple[Array, Array]:
    """Check proportions and their numbers of trials."""
    subject = f"`{label}`"
    shapes = _SHAPES.format(family=family.name, label=label) + _TRIALS
    _refuse((y < 0) | (y > 1), subject, "not between 0 and 1", rows, shapes)
    if trials is None:
        remedy = (
            "A proportion needs its number of trials: give them as `weights=`, or write "
            "`cbind(successes, failures)`. A proportion that is not one of trials is for "
            'family="beta".'
        )
        _refuse((y > 0) & (y < 1), subject, "neither 0 nor 1", rows, remedy)
        return y, np.ones(len(y))
    remedy = (
        f"For the {family.name} family they are numbers of trials. Weights of another kind, on 0 "
        'and 1, are for family="bernoulli".'
    )
    _refuse(_is_fractional(trials, COUNT_TOLERANCE), "weights=", "not a whole number", rows, remedy)
    trials = np.round(trials)
    remedy = "weights= are the numbers of trials, and successes come in whole numbers."
    fractional = _is_fractional(y * trials, SUCCESSES_TOLERANCE)
    _refuse(fractional, f"{subject} times its weights=", "not a whole number", rows, remedy)
    return np.round(y * trials) / trials, trials


def _supported(y: Array, label: str, family: Family, rows: pd.Index[Any] | Codes) -> Array:
    """Check a response of any other family."""
    name = family.name
    refuse = partial(_refuse, subject=f"`{label}`", rows=rows)
    match family.support:
        case "counts":
            remedy = f"The {name} family takes counts: 0, 1, 2 and so on."
            refuse(y < 0, fault="negative", remedy=remedy)
            remedy += " A rate is a count with an `offset(log(exposure))`."
            refuse(_is_fractional(y, COUNT_TOLERANCE), fault="not a whole number", remedy=remedy)
            return np.round(y)
        case "positive":
            remedy = (
                f"The {name} family takes positive numbers. Whether there is anything at all can "
                f'be modelled apart: `({label} > 0)` with family="binomial".'
            )
            refuse(y <= 0, fault="zero or negative", remedy=remedy)
        case "unit":
            remedy = (
                f"The {name} family takes numbers above 0 and below 1. A proportion of a number of "
                'trials is for family="binomial".'
            )
            refuse((y <= 0) | (y >= 1), fault="not strictly between 0 and 1", remedy=remedy)
        case "ordered":
            remedy = f"The {name} family takes whole numbers, or a column of labels in their order."
            refuse(_is_fractional(y, COUNT_TOLERANCE), fault="not a whole number", remedy=remedy)
            return np.unique(np.round(y), return_inverse=True)[1].astype(np.float64)
        case "binary":
            remedy = _SHAPES.format(family=name, label=label).rstrip(", ") + "."
            refuse((y != 0) & (y != 1), fault="neither 0 nor 1", remedy=remedy)
    return y


def _refuse(bad: Flags, subject: str, fault: str, rows: pd.Index[Any] | Codes, remedy: str) -> None:
    if bad.any():
        raise DataError(f"{subject} is {fault} in {in_rows(bad, rows)}. {remedy}")


def _is_fractional(values: Array, tolerance: float) -> Flags:
    distance = np.abs(values - np.round(values))
    return np.asarray(distance > tolerance * np.maximum(1.0, np.abs(values)))


def _column(node: Node) -> str:
    """Return the column in `factor(...)`, as it is written to be compared with a level."""
    while makes_factor(node):
        node = node.args[0]
    is_other = isinstance(node, Column) and not node.name.isidentifier()
    return f"`{node}`" if is_other else str(node)


def _quoted(level: object) -> str:
    return repr(str(level)) if isinstance(level, str) else str(level)
