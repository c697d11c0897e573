"""The predictors that an expression is a product of."""

import pytest

from ranef.formula.powers import powers_of
from ranef.formula.syntax import parse


def powers(text, column=0):
    found = powers_of(parse(text), column)
    return {str(node) + f"[{j}]" * (j > 0): power for (node, j), power in found.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", {"x": 1}),
        ("I(x)", {"x": 1}),
        ("I(-x)", {"x": 1}),
        ("I(x^2)", {"x": 2}),
        ("I(x**3 / 1000)", {"x": 3}),
        ("I(2 * x * (x))", {"x": 2}),
        ("I((a * b)^2 * a)", {"a": 3, "b": 2}),
        ("I((x - 1990)^2)", {"x - 1990": 2}),
        ("I(x + z)", {"x + z": 1}),
        ("I(1 / x)", {"1/x": 1}),
        ("I(x^-1)", {"x^-1": 1}),
        ("I(x^0.5)", {"x^0.5": 1}),
        ("I(x^2.0)", {"x": 2}),
        ("I(x^z)", {"x^z": 1}),
        ("log(x)", {"log(x)": 1}),
        ("I(log(x)^2 * z)", {"log(x)": 2, "z": 1}),
        ("scale(x)", {"scale(x)": 1}),
    ],
)
def test_powers_of_expressions(text, expected):
    assert powers(text) == expected


def test_columns_of_one_expression():
    assert powers("poly(x, 3)", 1) == {"poly(x, 3)[1]": 1}
    assert powers("poly(x, 3, raw=TRUE)", 1) == {"x": 2}
    assert powers("poly(x, 3, raw=FALSE)", 2) == {"poly(x, 3, raw=FALSE)[2]": 1}
    assert powers("poly(I(x - 5), raw=TRUE, degree=2)", 1) == {"x - 5": 2}
    assert powers("bs(x, df=4)", 3) == {"bs(x, df=4)[3]": 1}
