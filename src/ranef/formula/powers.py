"""The predictors that a numeric expression is a product of, and their powers.

`I(x^2 / 100)` is the second power of `x` up to a constant, `I(a * b)` the product of `a` and `b`.
A predictor is what is left when products, powers and constant factors are taken apart: a column, a
function of one, or a sum such as `x - 1990`. Of a function with several columns each is one, but
those of `poly(x, 3, raw=TRUE)` are powers of `x`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ranef.formula.functions import value
from ranef.formula.syntax import Binary, Call, Literal, Node, Paren, Unary

type Predictor = tuple[Node, int]
"""An expression, and which of its columns."""

MAX_EXPONENT = 20  # of a predictor; a higher power is a predictor itself


def powers_of(node: Node, column: int = 0) -> Mapping[Predictor, int]:
    """Return the powers of the predictors in one column of an expression.

    Parameters
    ----------
    node : Node
    column : int
        Its place, where the expression has several.

    Examples
    --------
    >>> from ranef.formula.syntax import parse
    >>> powers = powers_of(parse("I((a * b)^2 * log(a) / 10)"))
    >>> {str(predictor): power for (predictor, _), power in powers.items()}
    {'a': 2, 'b': 2, 'log(a)': 1}
    """
    parts = _parts(node, column)
    if parts is None:
        return {(node, column): 1}
    powers: Counter[Predictor] = Counter()
    for part, column_of_part, exponent in parts:
        for predictor, power in powers_of(part, column_of_part).items():
            powers[predictor] += power * exponent
    return powers


def _parts(node: Node, column: int) -> list[tuple[Node, int, int]] | None:
    """Return the expressions that one is a product of, with column and power; None if of none."""
    parts: list[tuple[Node, int, int]] | None = None
    match node:
        case Literal() | Unary(operand=Literal()):
            parts = []
        case Paren(inner=inner) | Call(function="I", args=(inner,)) | Unary(operand=inner):
            parts = [(inner, column, 1)]
        case Binary(op="*", left=left, right=right):
            parts = [(left, column, 1), (right, column, 1)]
        case Binary(op="/", left=left, right=right) if not powers_of(right):
            parts = [(left, column, 1)]
        case Binary(op="^" | "**", left=left, right=right) if exponent := _exponent(right):
            parts = [(left, column, exponent)]
        case Call(function="poly", args=(inner, *_), kwargs=settings):
            if any(name == "raw" and value(setting) is True for name, setting in settings):
                parts = [(inner, 0, column + 1)]
    return parts


def _exponent(node: Node) -> int:
    """Return an exponent that is a small whole number; 0 for any other."""
    n = value(node.inner if isinstance(node, Paren) else node)
    return next((k for k in range(1, MAX_EXPONENT + 1) if k == n), 0)
