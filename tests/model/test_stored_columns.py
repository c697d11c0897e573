"""Columns of every type through JSON and back."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from ranef.errors import DataError
from ranef.model.archive import pack, unpack
from ranef.model.stored_columns import (
    column_of,
    index_of,
    label_of,
    stored_column,
    stored_index,
    stored_label,
)

DAYS = pd.date_range("2024-02-28", periods=4, name="day")
COLUMNS = {
    "floats": pd.Series([0.1, -1e300, 5e-324, 3.0]),
    "narrow floats": pd.Series([0.1, 2.5], dtype=np.float32),
    "integers": pd.Series([3, 1, 2**62]),
    "small integers": pd.Series([3, 1, 255], dtype=np.uint8),
    "truth values": pd.Series([True, False, True]),
    "text": pd.Series(["b", "a", "b", "ü {0} \u2028", ""]),
    "text as objects": pd.Series(["b", "a", "b"], dtype=object),
    "mixed": pd.Series([1, "1", 2.5, True, 1.0, "x"], dtype=object),
    "numbers as objects": pd.Series([1.5, 2, np.float64(3)], dtype=object),
    "categories": pd.Categorical(["lo", "hi", "lo"], ["lo", "mid", "hi"]),
    "ordered": pd.Categorical(["lo", "hi"], ["lo", "hi"], ordered=True),
    "categories of integers": pd.Categorical([3, 1, 3], [3, 1]),
    "intervals": pd.cut(pd.Series([1.0, 2.0, 9.0]), 2),
    "intervals of times": pd.cut(pd.Series(DAYS), 2),
    "days": pd.Series(DAYS),
    "seconds": pd.Series(DAYS).astype("datetime64[s]"),
    "times in a zone": pd.Series(DAYS.tz_localize("Europe/Berlin")),
    "dates": pd.Series([dt.date(2024, 2, 29), dt.date(2023, 1, 1)], dtype=object),
    "datetimes": pd.Series([dt.datetime(2024, 2, 29, 1, 2, 3, tzinfo=dt.UTC)], dtype=object),
    "durations": pd.Series(pd.to_timedelta([1, 2], unit="h")),
    "periods": pd.Series(pd.period_range("2024-01", periods=3, freq="M")),
    "decimals": pd.Series([Decimal("0.10"), Decimal(2)], dtype=object),
    "bytes": pd.Series([b"a", b"\x00\xff"], dtype=object),
    "nullable integers": pd.Series([1, 2], dtype="Int64"),
    "nullable floats": pd.Series([1.5, 2], dtype="Float64"),
    "nullable truth values": pd.Series([True, False], dtype="boolean"),
    "nullable text": pd.Series(["a", "b"], dtype="string"),
    "arrow": pd.Series([1, 2], dtype="int64[pyarrow]"),
    "half floats": pd.Series([0.5, 2], dtype=np.float16),
}


def through_json(stored):
    arrays = {}
    return unpack(json.loads(json.dumps(pack(stored, arrays, {}))), arrays, {})


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("times", [1, 40])
def test_a_column_comes_back_as_it_was(name, times):
    column = pd.Series(COLUMNS[name])
    column = pd.concat([column] * times, ignore_index=True)
    again = column_of(through_json(stored_column(column)))
    pd.testing.assert_series_equal(again, column, check_exact=True, check_names=False)
    assert list(map(type, again)) == list(map(type, column)) or name == "numbers as objects"


@pytest.mark.parametrize(
    "index",
    [
        pd.RangeIndex(5),
        pd.Index([4, 2, 2], name="row"),
        pd.Index(list("abc")),
        DAYS,
        pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["s", None]),
        pd.CategoricalIndex(["u", "v"]),
    ],
    ids=lambda index: type(index).__name__,
)
def test_labels_of_rows_come_back(index):
    again = index_of(through_json(stored_index(index)))
    assert again.equals(index)
    assert (list(again.names), again.dtype) == (list(index.names), index.dtype)
    assert type(again) is type(index)


def test_a_label_is_said_with_its_kind():
    assert stored_label(np.int64(3)) == 3
    assert stored_label(pd.Interval(0, 1.5)) == ("interval", [0, 1.5, "right"])
    assert label_of(("date", "2024-02-29")) == dt.date(2024, 2, 29)


def test_other_values_are_refused():
    with pytest.raises(DataError) as caught:
        stored_column(pd.Series([1 + 2j, 3]))
    assert str(caught.value) == (
        "a file cannot hold the value (1+2j) of the data, which is of the type complex: turn such "
        "values into text or numbers."
    )
