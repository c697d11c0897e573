"""Questions about the columns of lazy data, on several engines."""

import dask.dataframe as dask
import duckdb
import narwhals.stable.v2 as nw
import numpy as np
import pandas as pd
import polars as pl
import pytest

from ranef.design.lazy import lazy_table
from ranef.design.lazy.lazy_table import complete_table, open_lazy
from ranef.errors import DataError
from ranef.formula.terms import read_formula

FRAME = pd.DataFrame(
    {"y": [1.0, np.nan, 3.0, 4.0], "g": ["b", "a", None, "a"], "t": [True, False, True, False]}
)
ENGINES = {
    "polars": lambda frame: pl.from_pandas(frame).lazy(),
    "duckdb": duckdb.from_df,
    "dask": lambda frame: dask.from_pandas(frame, npartitions=2),
}


@pytest.mark.filterwarnings("ignore:2 of 4 rows left out for missing values in `y` .1., `g` .1.")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_complete_rows_are_asked(engine: str) -> None:
    data = open_lazy(ENGINES[engine](FRAME))
    assert data is not None
    table = complete_table(read_formula("y ~ t + (1 | g)"), data, None, None, "drop")
    assert table.n == 2
    assert table.levels("g").tolist() == ["a", "b"]
    ranges = table.ranges(["y", "g", "t"])
    assert ranges["y"].tolist() == [1.0, 4.0]
    assert ranges["t"].tolist() == [False, True]


@pytest.mark.parametrize("known", [True, False])
def test_categories_keep_the_order_of_their_type_where_it_is_known(*, known: bool) -> None:
    kind = pd.CategoricalDtype(["b", "c", "a"])
    rows = dask.from_pandas(FRAME.dropna().astype({"g": kind}), npartitions=2)
    data = open_lazy(rows if known else rows.assign(g=rows["g"].cat.as_unknown()))
    assert data is not None
    table = complete_table(read_formula("y ~ t + (1 | g)"), data, None, None, "drop")
    assert table.levels("g").tolist() == (["b", "a"] if known else ["a", "b"])


def test_data_that_are_here_are_not_lazy() -> None:
    assert open_lazy(FRAME) is None
    assert open_lazy(pl.from_pandas(FRAME)) is None
    assert open_lazy({"y": [1.0]}) is None


def test_packages_that_are_not_there_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_lazy(duckdb.from_df(FRAME))
    assert data is not None
    monkeypatch.setattr(lazy_table, "find_spec", lambda _: None)
    said = r'answers of duckdb come here by pyarrow, .*: pip install "ranef\[duckdb\]"'
    with pytest.raises(DataError, match=said):
        complete_table(read_formula("y ~ t + (1 | g)"), data, None, None, "drop")
    monkeypatch.setattr(nw, "from_native", lambda data, **_: data)
    with pytest.raises(DataError, match=r'pip install "ranef\[dask\]" narwhals-dask'):
        open_lazy(ENGINES["dask"](FRAME))
