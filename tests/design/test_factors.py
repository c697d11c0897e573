"""Column types to numbers or labels, the order of levels, and codes."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ranef.design.factors import coded, plain, sorted_levels
from ranef.errors import DataError


def arrow(values, kind):
    return pd.Series(pd.array(values, dtype=pd.ArrowDtype(kind)))


NUMBERS = {
    "int8": (pd.Series([1, 2], dtype="int8"), "int8"),
    "uint64": (pd.Series([1, 2**63 + 1], dtype="uint64"), "uint64"),
    "float16": (pd.Series([1.0, 2.0], dtype="float16"), "float64"),
    "float32": (pd.Series([1.5, 2.5], dtype="float32"), "float32"),
    "Int64": (pd.Series([1, 2**60 + 1], dtype="Int64"), "int64"),
    "Float64": (pd.Series([1.5, 2], dtype="Float64"), "float64"),
    "boolean": (pd.Series([True, False], dtype="boolean"), "bool"),
    "sparse": (pd.Series(pd.arrays.SparseArray([0, 1])), "int64"),
    "arrow int": (arrow([1, 2], pa.int32()), "int32"),
    "arrow bool": (arrow([True, False], pa.bool_()), "bool"),
    "arrow decimal": (arrow([Decimal(1), Decimal(2)], pa.decimal128(5)), "float64"),
    "object int": (pd.Series([1, 2], dtype=object), "int64"),
    "object float": (pd.Series([1, 2.5], dtype=object), "float64"),
    "object bool": (pd.Series([True, False], dtype=object), "bool"),
    "object decimal": (pd.Series([Decimal("1.5"), Decimal(2)]), "float64"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_every_type_become_those_of_numpy(name):
    series, dtype = NUMBERS[name]
    found = plain(series)
    assert found.dtype == np.dtype(dtype)
    assert found.tolist() == [float(v) if dtype == "float64" else v for v in series]


LABELS = {
    "str": pd.Series(["b", "a"]),
    "object": pd.Series(["b", "a"], dtype=object),
    "string": pd.Series(["b", "a"], dtype="string"),
    "arrow string": arrow(["b", "a"], pa.string()),
    "arrow large string": arrow(["b", "a"], pa.large_string()),
    "arrow dictionary": arrow(["b", "a"], pa.dictionary(pa.int8(), pa.string())),
    "category": pd.Series(["b", "a"], dtype="category"),
    "mixed": pd.Series([1, "a"], dtype=object),
    "true and 1": pd.Series([True, 1, "a"], dtype=object),
    "bytes": pd.Series([b"b", b"a"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_other_values_stay_labels(name):
    assert plain(LABELS[name]) is LABELS[name]


DAY = dt.date(2020, 1, 1)
TIMES = {
    "datetime64[us]": pd.Series(pd.DatetimeIndex(["2020-01-01"]).as_unit("us")),
    "datetime64[ns, UTC]": pd.Series(pd.DatetimeIndex(["2020-01-01"], tz="UTC").as_unit("ns")),
    "timedelta64[s]": pd.Series(pd.TimedeltaIndex(["1s"]).as_unit("s")),
    "period[M]": pd.Series(pd.PeriodIndex(["2020-01"], freq="M")),
    "complex128": pd.Series([1j]),
    "date": pd.Series([DAY], dtype=object),
    "datetime": pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object),
    "time": pd.Series([dt.time(1)], dtype=object),
    "timedelta": pd.Series([dt.timedelta(1)], dtype=object),
    "timestamp[us][pyarrow]": arrow([pd.Timestamp("2020")], pa.timestamp("us")),
    "date32[day][pyarrow]": arrow([DAY], pa.date32()),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_are_neither_numbers_nor_labels(name):
    with pytest.raises(DataError) as error:
        plain(TIMES[name].rename("when"))
    assert str(error.value) == (
        f"column `when` has type {name}: turn it into numbers (say, days since the start) or into "
        "a categorical first."
    )


def test_times_may_be_categories():
    found = coded("day", pd.Series(pd.Categorical([DAY, dt.date(2019, 1, 1), DAY])))
    assert found.codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", "a", "c", "a"], ["a", "b", "c"]),
        (["10", "9", "B", "b"], ["10", "9", "B", "b"]),  # by code point, not by locale
        (["é", "z", "日本", ""], ["", "z", "é", "日本"]),
        ([10, 9, 1], [1, 9, 10]),
        ([10.0, 9.0, 1.0], [1, 9, 10]),
        ([1.5, 1.0], [1.0, 1.5]),
        ([2**53, 2**53 + 1], [2**53, 2**53 + 1]),
        ([2.0**60, 3.0], [3.0, 2.0**60]),
        ([1e300, 1.0], [1.0, 1e300]),
        ([True, False], [False, True]),
        (["b", 2, "a", 1.5, True], [True, 1.5, 2, "a", "b"]),  # by type, then as text
        (pd.Categorical(["b", "a"], categories=["zz", "b", "c", "a"]), ["b", "a"]),
        (pd.Categorical([3, 1], categories=[3, 2, 1], ordered=True), [3, 1]),
        (pd.Categorical(["x", None]), ["x"]),
        ([b"b", b"a"], [b"a", b"b"]),
        ([(2, "x"), (1, "y")], [(1, "y"), (2, "x")]),
    ],
    ids=str,
)
def test_levels_are_sorted_or_in_category_order(values, expected):
    found = sorted_levels(plain(pd.Series(values)))
    assert found.tolist() == expected


def test_whole_numbers_are_integers_as_labels():
    assert sorted_levels(pd.Series([2.0, 1.0])).dtype == np.int64
    assert sorted_levels(pd.Series([2.0, 1.5])).dtype == np.float64
    assert sorted_levels(pd.Series([2.0**53, 1.0])).dtype == np.float64


def test_codes_point_at_levels():
    series = pd.Series(["w", "u", "w"], index=[5, 5, 5])
    found = coded("f", series)
    assert found.levels[found.codes].tolist() == series.tolist()
    assert found.unseen == ()


@pytest.mark.parametrize("dtype", ["str", "object", "string", "category"])
def test_known_levels_are_found_whatever_the_type_of_the_new_column(dtype):
    levels = coded("f", pd.Series(["u", "v", "w"])).levels
    found = coded("f", pd.Series(["w", "new", "u", "new"], dtype=dtype), levels)
    assert found.codes.tolist() == [2, -1, 0, -1]
    assert found.unseen == ("new",)


def test_numbers_are_found_as_floats_too():
    levels = coded("n", pd.Series([3, 1])).levels
    assert coded("n", pd.Series([1.0, 3.0, 2.0]), levels).codes.tolist() == [0, 1, -1]
    assert coded("n", pd.Series(["1", "3"]), levels).codes.tolist() == [-1, -1]


def test_intervals_are_labels():
    series = pd.Series(pd.cut([0.1, 0.5, 0.9], [0, 0.4, 0.8, 1.2]))
    found = coded("x", series.iloc[[2, 0]])
    assert found.codes.tolist() == [1, 0]
    assert [str(level) for level in found.levels] == ["(0.0, 0.4]", "(0.8, 1.2]"]
    assert coded("x", series, found.levels).codes.tolist() == [0, -1, 1]


@pytest.mark.parametrize("value", [[1], {"a": 1}, {1}])
def test_what_has_no_hash_cannot_be_a_label(value):
    with pytest.raises(DataError) as error:
        coded("v", pd.Series([value, value]))
    assert str(error.value) == f"`v` has values that cannot be levels, such as {value!r}."
