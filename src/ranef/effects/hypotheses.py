"""Linear hypotheses of the fixed effects, as text or as weights: `hypothesis`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd

from ranef.arguments import check_known
from ranef.design.new_data.new_rows import rows_of
from ranef.effects.linear_functions import interval_words, of_tests, wanted_of
from ranef.errors import FitError, FormulaError, suggestion
from ranef.fits.fit import Fit
from ranef.formula.syntax import Binary, Literal, Node, Paren, Unary, parse, summands, tokens
from ranef.printing.frames import captioned

type Weights = Mapping[str, float]
type Hypothesis = str | Weights


@dataclass(frozen=True)
class Affine:
    """A weighted sum of coefficients and a number.

    Attributes
    ----------
    weights : mapping of str to float
    constant : float
    """

    weights: Mapping[str, float]
    constant: float = 0.0

    def plus(self, other: Affine, factor: float = 1.0) -> Affine:
        """Return the sum with a multiple of another."""
        total = dict(self.weights)
        for name, weight in other.weights.items():
            total[name] = total.get(name, 0.0) + factor * weight
        return Affine(total, self.constant + factor * other.constant)


def hypothesis(
    fit: Fit,
    hypotheses: Hypothesis | Sequence[Hypothesis],
    *,
    prob: float = 0.95,
    df: str | None = None,
) -> pd.DataFrame:
    """Test linear hypotheses of the fixed effects.

    Parameters
    ----------
    fit : PointFit or PosteriorFit
    hypotheses : str, mapping of str to float, or a sequence of these
        An equation of coefficients, `"Days = 10"`, `"2 * a - b = c / 2"`, where what has no right
        side is compared with zero; or weights of coefficients by name, whose sum is. Names are
        those of `fit.fixef()`; backticks around them are needed for blanks and the like only.
    prob : float
        Probability of the intervals.
    df : {"satterthwaite", "kenward-roger"}, optional
        Degrees of freedom of a linear point fit; normal tests by default.

    Returns
    -------
    DataFrame
        The `hypothesis`, the `estimate` of its left side less its right side, `se`, `lower`,
        `upper`, `z` (or `df` and `t`) and `p_value`; of a posterior `sd` and the `probability` that
        the left side is the larger one.

    Raises
    ------
    FormulaError
        If the text is no linear equation of coefficients.
    FitError
        If there is no such coefficient.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> rf.hypothesis(fit, "Days = 10").round(3)
      hypothesis  estimate     se  lower  upper      z  p_value
    0  Days = 10     0.467  1.546 -2.562  3.497  0.302    0.762
    """
    wanted = wanted_of(fit, "link", prob, df)
    alone = isinstance(hypotheses, str | Mapping)
    asked: list[Hypothesis] = [hypotheses] if alone else list(hypotheses)  # type: ignore[list-item]
    if not asked:
        raise FitError("there is no hypothesis: give an equation, 'Days = 10', or weights by name.")
    names = list(fit.design.fixed)
    functions = [_affine(one, names, fit.design.dropped) for one in asked]
    X = np.array([[function.weights.get(name, 0.0) for name in names] for function in functions])
    offset = np.array([function.constant for function in functions])
    numbers = of_tests(fit, rows_of(X, offset), wanted)
    table = pd.concat([pd.DataFrame({"hypothesis": list(map(_text, asked))}), numbers], axis=1)
    return captioned(table, interval=interval_words(fit, wanted))


def _affine(asked: object, names: Sequence[str], dropped: Sequence[str]) -> Affine:
    """Return a hypothesis as a weighted sum of coefficients, and refuse unknown ones."""
    if isinstance(asked, str):
        found = _equation(_in_backticks(asked, [*names, *dropped]), names)
    elif isinstance(asked, Mapping):
        bad = [name for name, weight in asked.items() if not _is_weight(weight)]
        if bad:
            raise FitError(f"the weight of `{bad[0]}` is not a number: {asked[bad[0]]!r}.")
        found = Affine({str(name): float(weight) for name, weight in asked.items()})
    else:
        raise FitError(
            "a hypothesis is an equation, 'Days = 10', or a dict from coefficients to weights, "
            f"got {type(asked).__name__}."
        )
    check_known(found.weights, names, lambda name: f"there is no fixed effect `{name}`.")
    if not any(found.weights.values()):
        raise FitError(f"the hypothesis {_text(asked)!r} has no coefficient with a weight.")
    return found


def _is_weight(weight: object) -> bool:
    return isinstance(weight, Real) and np.isfinite(float(weight))


def _equation(text: str, names: Sequence[str]) -> Affine:
    """Read an equation of coefficients as left side less right side."""
    signs = [token.span for token in tokens(text) if token.text in ("=", "==")]
    if len(signs) > 1:
        raise FormulaError("a hypothesis has one `=`.", text, signs[1])
    start, stop = signs[0] if signs else (len(text), len(text))
    left = _sum(parse(text[:start]), text[:start], names)
    if not signs:
        return left
    right = text[stop:]
    return left.plus(_sum(parse(right), right, names), -1.0)


def _in_backticks(text: str, names: Iterable[str]) -> str:
    """Return a text with backticks around names that no formula can have, `recipe[T.B]`."""
    special = sorted((name for name in names if "[" in name), key=len, reverse=True)
    pattern = "|".join(["`[^`]*`", *map(re.escape, special)])
    return re.sub(pattern, lambda found: f"`{found[0].strip('`')}`", text)


def _sum(node: Node, text: str, names: Sequence[str]) -> Affine:
    """Return a sum of multiples of coefficients."""
    total = Affine({})
    for sign, summand in summands(node):
        total = total.plus(_multiple(summand, text, names), 1.0 if sign == "+" else -1.0)
    return total


def _multiple(node: Node, text: str, names: Sequence[str]) -> Affine:
    """Return a summand: a number, a coefficient, or the product of such a one and a number."""
    if str(node) in names:
        return Affine({str(node): 1.0})
    match node:
        case Literal(value=float(number)):
            return Affine({}, number)
        case Paren(inner=inner):
            return _sum(inner, text, names)
        case Unary():
            return _sum(node, text, names)
        case Binary(op="*" | "/", left=left, right=right):
            one, other = _multiple(left, text, names), _multiple(right, text, names)
            if node.op == "*" and not one.weights:
                one, other = other, one
            if not other.weights and (node.op == "*" or other.constant):
                by = other.constant if node.op == "*" else 1 / other.constant
                return Affine({}).plus(one, by)
    if isinstance(node, Binary | Literal):
        message = "a hypothesis is linear: sums of numbers times coefficients."
        raise FormulaError(message, text, node.span)
    name = str(node)
    raise FormulaError(
        f"there is no fixed effect `{name}`. {suggestion(name, names)}", text, node.span
    )


def _text(asked: object) -> str:
    """Return a hypothesis in words, weights as a sum."""
    if not isinstance(asked, Mapping):
        return str(asked)
    terms = (
        f"{'-' if weight < 0 else '+'} {'' if abs(weight) == 1 else f'{abs(weight):g} * '}{name}"
        for name, weight in asked.items()
    )
    return re.sub(r"^\+ |(?<=^-) ", "", " ".join(terms) or "0") + " = 0"
