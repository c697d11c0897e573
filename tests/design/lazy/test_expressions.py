"""Expressions of an engine against the interpreter's values of the same nodes."""

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.expressions import CodedExpressions, numeric
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
    }
)


def _rows(text: str) -> Interpreter:
    return Interpreter(FRAME, text, Memory(), {})


@pytest.mark.parametrize(
    "text",
    ["x", "x + n * 2", "-x / (n - 4)", "I(x^2)", "log(x)", "np.sqrt(x)", "log10(x) - exp(n)"],
)
def test_numbers_are_those_of_the_interpreter(text: str) -> None:
    node = parse(text)
    lazy = nw.from_native(pl.from_pandas(FRAME).lazy()).with_columns(found=numeric(node))
    found = lazy.collect().get_column("found").to_numpy()
    np.testing.assert_allclose(found, _rows(text).numeric(node), rtol=1e-14)


@pytest.mark.parametrize(
    "terms", ["f", "0 + f", "f * g", "C(f, contr.sum) * x", "x:f", "f:g", "I(x^2) * g", "n * x"]
)
def test_coded_columns_are_those_of_the_design(terms: str) -> None:
    formula = read_formula(f"y ~ {terms}")
    rows = _rows(formula.text)
    columns = code(rows, formula.fixed)
    levels = {name: pd.Index(sorted(set(FRAME[name]))) for name in ("f", "g")}
    made = CodedExpressions(formula.fixed, columns, rows, levels).expressions()
    lazy = nw.from_native(pl.from_pandas(FRAME).lazy())
    names = [f"c{j}" for j in range(len(made))]
    found = lazy.with_columns(**dict(zip(names, made, strict=True))).select(*names).collect()
    np.testing.assert_allclose(found.to_numpy(), columns.values, atol=1e-12)


def test_what_has_no_lazy_form_is_named() -> None:
    with pytest.raises(DataError, match=r"`poly\(x, 2\)` needs the rows"):
        numeric(parse("poly(x, 2)"))
