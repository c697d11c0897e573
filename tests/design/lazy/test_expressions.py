"""Expressions of an engine against the interpreter's values of the same nodes."""

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.expressions import CodedCells, combinations_of, key_of, numeric
from ranef.design.model_matrix import code
from ranef.errors import DataError
from ranef.formula.syntax import parse
from ranef.formula.terms import read_formula

FRAME = pd.DataFrame(
    {
        "x": [0.5, 2.0, 3.0, 1.0, 4.0, 2.5],
        "n": [1, 2, 3, 1, 2, 3],
        "f": list("abcabc"),
        "g": list("uuuvvv"),
        "b": [True, False, True, True, False, False],
    }
)
LABELS, TRUTHS = {"f": "String", "g": "String"}, {"b"}
LAZY = nw.from_native(pl.from_pandas(FRAME).lazy())


def _rows(text: str) -> Interpreter:
    return Interpreter(FRAME, text, Memory(), {})


@pytest.mark.parametrize(
    "text",
    [
        *["x", "x + n * 2", "-x / (n - 4)", "I(x^2)", "log(x)", "np.sqrt(x)", "log10(x) - exp(n)"],
        *["(x > 2) * x", "f == 'a'", "(f != g) + (x <= n)", "b * x", "(b == 1) - (2 < x)"],
    ],
)
def test_numbers_are_those_of_the_interpreter(text: str) -> None:
    node = parse(f"I({text})")
    found = LAZY.with_columns(found=numeric(node, LABELS)).collect().get_column("found").to_numpy()
    np.testing.assert_allclose(found, _rows(text).numeric(node), rtol=1e-14)


@pytest.mark.parametrize(
    "terms",
    [
        *["f", "0 + f", "f * g", "C(f, contr.sum) * x", "x:f", "f:g", "I(x^2) * g", "n * x"],
        *["factor(n) * n", "I(x > 2) * x", "b:f", "0 + I(f == 'a'):x", "I(b):factor(x > n)", "1"],
    ],
)
def test_coded_columns_are_shares_of_measured_ones(terms: str) -> None:
    formula = read_formula(f"y ~ {terms}")
    rows = _rows(formula.text)
    columns = code(rows, formula.fixed)
    cells = CodedCells(formula.fixed, columns, rows, LABELS, TRUTHS)
    keys = {name: key for of_column in cells.keys for name, key in of_column.items()}
    found = LAZY.select(**keys).collect() if keys else None
    there = {name: found.get_column(name).to_numpy() for name in keys}
    shares = cells.shares(there, len(FRAME))
    measured = [
        np.prod([rows.numeric(node) for node in nodes], axis=0, initial=1.0)
        for nodes in cells.measured
    ]
    np.testing.assert_allclose(
        shares * np.column_stack([m * np.ones(len(FRAME)) for m in measured]), columns.values
    )


def test_cells_are_numbered_as_they_occur() -> None:
    cells, numbers = combinations_of({"a": np.array([2, 1, 2, 2]), "b": np.array(list("xxxy"))})
    assert {name: list(values) for name, values in cells.items()} == {
        "a": [2, 1, 2],
        "b": list("xxy"),
    }
    assert numbers.tolist() == [0, 1, 0, 2]


def test_what_has_no_lazy_form_is_named() -> None:
    with pytest.raises(DataError, match=r"`poly\(x, 2\)` needs the rows"):
        numeric(parse("poly(x, 2)"), LABELS)
    with pytest.raises(DataError, match=r"`factor\(x \+ 1\)` needs the rows"):
        key_of(parse("factor(x + 1)"), LABELS, TRUTHS)
    with pytest.raises(DataError, match=r"`f` is not numeric: it has the type String\."):
        numeric(parse("f + 1"), LABELS)
    for text in ("f == 1", "f < 'a'"):
        with pytest.raises(DataError, match=f"`{text}` compares labels with numbers, or orders"):
            numeric(parse(text), LABELS)
