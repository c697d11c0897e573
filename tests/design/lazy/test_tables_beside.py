"""Tables beside lazy rows against a merge of the same rows in memory."""

import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.expressions import CodedCells
from ranef.design.lazy.tables_beside import beside, with_shares, with_table
from ranef.design.model_matrix import code
from ranef.errors import DataError
from ranef.formula.terms import read_formula

FRAME = pd.DataFrame({"f": list("abcab"), "g": list("uuvvu"), "x": [1.0, 2.0, 3.0, 4.0, 5.0]})


def test_values_by_keys_are_joined_and_zero_for_other_keys() -> None:
    rows = nw.from_native(pl.from_pandas(FRAME).lazy())
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    found, parts = with_table(rows, "t", {"f": np.array(["a", "b"])}, values)
    made = found.with_columns(one=parts[0], other=parts[1]).collect()
    made = made.sort("x").select("one", "other").to_numpy()
    by_level = {"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [0.0, 0.0]}
    np.testing.assert_array_equal(made, [by_level[f] for f in FRAME["f"]])


def test_combinations_of_coded_columns_are_those_of_the_rows() -> None:
    formula = read_formula("y ~ f * g + x")
    rows = Interpreter(FRAME, formula.text, Memory(), {})
    columns = code(rows, formula.fixed)
    cells = CodedCells(formula.fixed, columns, rows, {"f": "String", "g": "String"}, ())
    is_coded = np.array([not nodes for nodes in cells.measured])
    mix = np.random.default_rng(0).normal(size=(len(is_coded), 2)) * is_coded[:, None]
    lazy = nw.from_native(pl.from_pandas(FRAME).lazy())
    mix = np.column_stack([mix, np.zeros(len(mix))])
    found, parts = with_shares(lazy, "s", cells, mix)
    assert parts[2] is None
    made = found.with_columns(one=parts[0], other=parts[1]).collect().sort("x")
    np.testing.assert_allclose(
        made.select("one", "other").to_numpy(), columns.values @ mix[:, :2], rtol=1e-12
    )


def test_an_engine_that_takes_no_tables_is_refused() -> None:
    class Other:
        def to_native(self) -> None:
            return None

        @property
        def implementation(self) -> nw.Implementation:
            return nw.Implementation.UNKNOWN

    with pytest.raises(DataError, match="it is not known how a table of levels comes to"):
        beside(Other(), FRAME)  # type: ignore[arg-type]
