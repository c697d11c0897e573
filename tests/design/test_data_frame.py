"""Any data frame gives the same columns; weights, missing rows, and the line that is warned."""

import datetime as dt
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ranef as rf
from ranef.design.data_frame import (
    coded,
    complete_rows,
    open_frame,
    plain,
    refuse_complex,
    refuse_times,
)
from ranef.design.design import build_design
from ranef.errors import DataError, DataWarning, FormulaError
from ranef.formula.terms import read_formula

N = 24
COLUMNS = {
    "y": np.linspace(0, 1, N).tolist(),
    "x": [0.5, None, 2.0, 3.0] * 6,
    "i": [3, 1, None, 2] * 6,
    "big": [2**60 + 1, 2**60 + 2, 5, 7] * 6,
    "t": [True, None, False, True] * 6,
    "s": ["b", None, "a", "ü"] * 6,
    "g": ["k", "l", "m"] * 8,
    "d": [Decimal("1.5"), Decimal(2), None] * 8,
}
ENUM = ["lo", "hi", None, "lo"] * 6
LEVELS = ["lo", "mid", "hi"]


def with_pandas():
    return pd.DataFrame(COLUMNS).assign(e=pd.Categorical(ENUM, categories=LEVELS))


def with_nullable():
    kinds = {"x": "Float64", "i": "Int64", "big": "Int64", "t": "boolean", "s": "string"}
    return with_pandas().assign(**{k: pd.array(COLUMNS[k], dtype=d) for k, d in kinds.items()})


def with_arrow_dtypes():
    kinds = {"x": pa.float64(), "i": pa.int16(), "t": pa.bool_(), "s": pa.string()}
    kinds |= {"d": pa.decimal128(9, 3), "g": pa.large_string()}
    return with_pandas().assign(
        **{k: pd.array(COLUMNS[k], dtype=pd.ArrowDtype(d)) for k, d in kinds.items()}
    )


def with_objects():
    frame = pd.DataFrame({k: pd.Series(v, dtype=object) for k, v in COLUMNS.items()})
    return frame.assign(e=pd.Categorical(ENUM, categories=LEVELS))


def with_polars():
    return pl.DataFrame(COLUMNS).with_columns(e=pl.Series(ENUM, dtype=pl.Enum(LEVELS)))


def with_pyarrow(text=None):
    indices = pa.array([None if v is None else LEVELS.index(v) for v in ENUM], pa.int8())
    arrays = {k: pa.array(v, text) if k in "sg" else pa.array(v) for k, v in COLUMNS.items()}
    return pa.table(arrays | {"e": pa.DictionaryArray.from_arrays(indices, LEVELS)})


FRAMES = {
    "mapping": lambda: {k: with_pandas()[k] for k in [*COLUMNS, "e"]},
    "nullable": with_nullable,
    "arrow dtypes": with_arrow_dtypes,
    "objects": with_objects,
    "polars": with_polars,
    "pyarrow": with_pyarrow,
    "pyarrow large": lambda: with_pyarrow(pa.large_string()),
    "pyarrow view": lambda: with_pyarrow(pa.string_view()),
    "pyarrow chunks": lambda: pa.concat_tables([with_pyarrow()[:7], with_pyarrow()[7:]]),
}


def designed(text, frame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return build_design(read_formula(text), frame, **options)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(
    "text", ["x", "i", "big", "t", "s", "g", "d", "e", "s*x + (1 | i) + (x | e:g)"]
)
def test_every_kind_of_frame_gives_the_design_of_pandas(name, text):
    ours = designed(f"y ~ {text}", FRAMES[name]())
    theirs = designed(f"y ~ {text}", with_pandas())
    assert ours.fixed == theirs.fixed
    assert ours.numeric == theirs.numeric
    np.testing.assert_array_equal(ours.rows.X, theirs.rows.X)
    np.testing.assert_array_equal(ours.rows.y, theirs.rows.y)
    assert ours.rows.index.tolist() == theirs.rows.index.tolist()
    for one, other in zip(ours.rows.terms, theirs.rows.terms, strict=True):
        assert one.grouping.levels.tolist() == other.grouping.levels.tolist()
        np.testing.assert_array_equal(one.codes, other.codes)
        np.testing.assert_array_equal(one.columns, other.columns)


@pytest.mark.parametrize("name", FRAMES)
def test_large_whole_numbers_are_not_merged_as_labels(name):
    (term,) = designed("y ~ (1 | big)", FRAMES[name]()).rows.terms
    assert term.grouping.levels.tolist() == [5, 7, 2**60 + 1, 2**60 + 2]
    assert term.codes.tolist() == [2, 3, 0, 1] * 6


@pytest.mark.parametrize("library", [pl.DataFrame, pa.table])
def test_large_whole_numbers_beside_missing_ones_are_not_merged_either(library):
    data = {"y": [1.0, 2, 3, 4], "g": [2**60 + 1, None, 2**60 + 2, 5]}
    (term,) = designed("y ~ (1 | g)", library(data)).terms
    assert term.levels.tolist() == [5, 2**60 + 1, 2**60 + 2]


def test_a_polars_categorical_is_ordered_by_its_names_whatever_was_seen_before():
    pl.Series(["zz", "v"], dtype=pl.Categorical)
    frame = pl.DataFrame(
        {"y": [1.0, 2, 3, 4], "c": pl.Series(["w", "u", "v", None], dtype=pl.Categorical)}
    )
    assert designed("y ~ c", frame).fixed == ("Intercept", "c[T.v]", "c[T.w]")


def test_a_dictionary_of_numbers_keeps_its_order():
    table = pa.table({"y": [1.0, 2, 3], "c": pa.array([30, 10, 20]).dictionary_encode()})
    assert designed("y ~ c", table).fixed == ("Intercept", "c[T.10]", "c[T.20]")


def test_nan_of_polars_is_missing_too():
    frame = pl.DataFrame({"y": [1.0, 2.0, 3.0], "x": [1.0, float("nan"), 3.0]})
    assert designed("y ~ x", frame).rows.index.tolist() == [0, 2]


@pytest.mark.parametrize("kind", [pl.Int128, pl.UInt8, pl.Float32])
def test_polars_numbers_of_every_size(kind):
    frame = pl.DataFrame({"y": [1.0, 2.0, 3.0], "x": pl.Series([1, 5, 2], dtype=kind)})
    assert designed("y ~ x", frame).rows.X[:, 1].tolist() == [1.0, 5.0, 2.0]


@pytest.mark.parametrize(
    ("values", "kind"), [([[1], [2]], "[1]"), ([{"a": 1}, {"a": 2}], "{'a': 1}")]
)
@pytest.mark.parametrize("library", [pl.DataFrame, pa.table, pd.DataFrame])
def test_nested_values_are_no_labels(library, values, kind):
    with pytest.raises(DataError) as error:
        designed("y ~ v", library({"y": [1.0, 2.0], "v": values}))
    assert str(error.value) == f"`v` has values that cannot be levels, such as {kind}."


# ------------------------------------------------------------------------------- what is no frame

LAZY = pl.DataFrame({"y": [1.0]}).lazy()


@pytest.mark.parametrize(
    "data",
    [None, 3, "x.csv", [{"y": 1}], np.zeros((3, 2)), pd.Series([1.0]), pl.Series([1.0]), LAZY],
)
def test_what_is_no_data_frame(data):
    with pytest.raises(DataError) as error:
        open_frame(data)
    kind, remedy = type(data).__name__, ""
    if isinstance(data, str):
        remedy = " Read it first."
    expected = f"expected a data frame (pandas, polars, pyarrow), got {kind}.{remedy}"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    "data", [{"y": [1, 2], "x": [1]}, {"y": 1, "x": 2}, {"y": np.zeros((3, 2)), "x": [1, 2, 3]}]
)
def test_a_mapping_that_makes_no_table(data):
    with pytest.raises(DataError) as error:
        open_frame(data)
    assert str(error.value) == (
        "the columns of the data do not make a table: expected arrays of one length, in brackets "
        "also if it is 1."
    )


@pytest.mark.parametrize("data", [{}, pd.DataFrame(), pl.DataFrame(), pa.table({})])
def test_a_frame_without_columns(data):
    with pytest.raises(FormulaError) as error:
        designed("y ~ x", data)
    assert str(error.value) == (
        "the column `y` is not in the data. There are none.\n    y ~ x\n    ^"
    )


@pytest.mark.parametrize("data", [with_pandas()[:0], with_polars()[:0], with_pyarrow()[:0]])
def test_a_frame_without_rows(data):
    with pytest.raises(DataError) as error:
        designed("y ~ x", data)
    assert str(error.value) == "the data has no rows."


def test_a_column_name_is_read_as_text_and_must_be_unique():
    frame = pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 1.0, 5.0], [4.0, 1.0, 6.0]], columns=["y", 1, "1"])
    with pytest.raises(DataError) as error:
        designed("y ~ `1`", frame)
    assert str(error.value) == "2 columns of the data are called `1`: rename them."
    assert designed("y ~ `1`", frame.iloc[:, :2]).rows.X[:, 1].tolist() == [2.0, 1.0, 1.0]
    assert designed("y ~ 1", frame).fixed == ("Intercept",)  # what is not used does no harm
    with pytest.raises(DataError, match="2 columns of the data are called `1`"):
        designed("y ~ 1", frame, weights="1")


def test_only_the_columns_in_use_are_read():
    class Frame(pd.DataFrame):
        def take(self, places, axis):
            read.append((places, axis))
            return frame.take(places, axis)

    read, frame = [], with_pandas()
    designed("y ~ g", Frame(frame))
    assert read == [([frame.columns.get_loc(name) for name in ("y", "g")], 1)]


# ------------------------------------------------------------------------------ weights and offset


@pytest.mark.parametrize("what", ["weights", "offset"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("w", "{what}='w' is not a column of the data. Known names: {known}."),
        ("Y", "{what}='Y' is not a column of the data. Did you mean `y`?"),
        ("g", "{what}= is not numeric."),
        (["1"] * N, "{what}= is not numeric."),
        (pd.date_range("2020", periods=N), "{what}= is not numeric."),
        (np.ones(N) * 1j, "{what}= is not numeric."),
        ([[1], [1, 2]] * (N // 2), "{what}= is not numeric."),
        ({"a": 1}, "{what}= has shape (), expected (24,)."),
        (2.0, "{what}= has shape (), expected (24,)."),
        ([1.0], "{what}= has shape (1,), expected (24,)."),
        (np.ones((N, 1)), "{what}= has shape (24, 1), expected (24,)."),
        (
            pd.Series(1.0, index=range(1, N + 1)),
            "the index of {what}= differs from that of the data: pass a plain array.",
        ),
        ([np.inf] + [1.0] * (N - 1), "{what}= is infinite in 1 of 24 rows: `0`."),
    ],
    ids=lambda v: type(v).__name__,
)
def test_weights_and_offset_that_do_not_fit(what, given, message):
    with pytest.raises(DataError) as error:
        designed("y ~ 1", with_pandas(), **{what: given})
    known = ", ".join(f"`{c}`" for c in with_pandas())
    assert str(error.value) == message.format(what=what, known=known)


@pytest.mark.parametrize("values", [[0.0, -1.0], [-1.0, 0.0], [False, 0]])
def test_weights_are_positive(values):
    with pytest.raises(DataError) as error:
        designed("y ~ 1", with_pandas(), weights=[1] * (N - 2) + values)
    assert str(error.value) == (
        "weights= must be positive; zero or negative in 2 of 24 rows: `22` and `23`. Leave out the "
        "rows "
        "that should not count."
    )
    assert (
        designed("y ~ 1", with_pandas(), offset=[1] * (N - 2) + values).rows.offset[-2:].tolist()
        == values
    )


@pytest.mark.parametrize(
    "given",
    [
        "big",
        COLUMNS["big"],
        tuple(COLUMNS["big"]),
        np.array(COLUMNS["big"]),
        pd.Series(COLUMNS["big"]),
        pl.Series(COLUMNS["big"]),
        pa.array(COLUMNS["big"]),
        pd.array(COLUMNS["big"], dtype="Int64"),
        [Decimal(v) for v in COLUMNS["big"]],
    ],
    ids=lambda v: type(v).__name__,
)
def test_weights_and_offset_are_a_column_or_any_array(given):
    for frame in (with_pandas(), with_polars()):
        found = designed("y ~ 1", frame, weights=given, offset=given)
        assert found.rows.weights.tolist() == [float(v) for v in COLUMNS["big"]]
        assert found.rows.offset.tolist() == [float(v) for v in COLUMNS["big"]]


# ------------------------------------------------------------------------------------ missing rows


def test_rows_with_missing_values_are_counted_and_left_out():
    frame = with_pandas().set_axis(range(100, 100 + N))
    weights = [None] + [2.0] * (N - 1)
    with pytest.warns(DataWarning) as caught:
        found = build_design(read_formula("y ~ x + s"), frame, weights=weights)
    (warning,) = caught
    assert str(warning.message) == (
        "7 of 24 rows left out for missing values in `x` (6), `s` (6), `weights=` (1)."
    )
    assert warning.filename == __file__
    assert found.rows.index.tolist() == [i for i in range(101, 124) if i % 4 != 1]
    assert set(found.rows.weights) == {2.0}


def test_missing_values_may_be_refused():
    with pytest.raises(DataError) as error:
        build_design(read_formula("y ~ x"), with_pandas(), missing="raise")
    assert str(error.value) == (
        "6 of 24 rows have missing values, in `x` (6): rows `1`, `5`, `9`, `13`, `17` and 1 more."
    )
    assert build_design(read_formula("y ~ g"), with_pandas(), missing="raise").n_obs == N


def test_something_has_to_be_left():
    frame = with_pandas().assign(x=None)
    with pytest.raises(DataError) as error:
        build_design(read_formula("y ~ x + i"), frame)
    assert str(error.value) == "no row is complete: missing values in `x` (24), `i` (6)."


@pytest.mark.parametrize("given", ["ignore", None, ["drop"]])
def test_other_ways_with_missing_values_do_not_exist(given):
    with pytest.raises(DataError) as error:
        complete_rows(with_pandas(), None, None, given)
    assert str(error.value) == f"missing={given!r} is not an option: use 'drop' or 'raise'."


@pytest.mark.parametrize(
    "index",
    [
        [7] * N,
        pd.MultiIndex.from_product([range(4), list("abcdef")]),
        pd.date_range("2020", periods=N),
        [None] * N,
    ],
    ids=lambda v: type(v).__name__,
)
def test_any_index_will_do(index):
    frame = with_pandas().set_axis(index)
    found = designed("y ~ x + (1 | g)", frame, weights=pd.Series(2.0, index=frame.index))
    plain = designed("y ~ x + (1 | g)", with_pandas())
    np.testing.assert_array_equal(found.rows.X, plain.rows.X)
    np.testing.assert_array_equal(found.rows.terms[0].codes, plain.rows.terms[0].codes)
    assert found.rows.index.equals(frame.index[[i % 4 != 1 for i in range(N)]])


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
    "date": pd.Series([DAY], dtype=object),
    "datetime": pd.Series([dt.datetime(2020, 1, 1, tzinfo=dt.UTC)], dtype=object),
    "time": pd.Series([dt.time(1)], dtype=object),
    "timedelta": pd.Series([dt.timedelta(1)], dtype=object),
    "timestamp[us][pyarrow]": arrow([pd.Timestamp("2020")], pa.timestamp("us")),
    "date32[day][pyarrow]": arrow([DAY], pa.date32()),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_are_labels_and_may_be_meant_as_numbers(name):
    times = TIMES[name].rename("when")
    assert plain(times) is times
    assert coded("when", times).codes.tolist() == [0]
    with pytest.raises(DataError) as error:
        refuse_times("when", times)
    assert str(error.value) == (
        f"`when` has type {name}, which may be meant as numbers or as labels: turn it into numbers "
        "(say, days since the start), or write `factor(when)`."
    )


@pytest.mark.parametrize("values", [[1j], np.array([1j], object), [np.complex64(1)], [1.0, 2j]])
def test_complex_numbers(values):
    with pytest.raises(DataError) as error:
        refuse_complex(pd.Series(values, name="c"))
    assert str(error.value) == "column `c` holds complex numbers: take a real part of them."


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
        (["b", 2, "a", 1.5], [1.5, 2, "a", "b"]),  # by type, then as text
        (pd.Categorical(["b", "a"], categories=["zz", "b", "c", "a"]), ["b", "a"]),
        (pd.Categorical([3, 1], categories=[3, 2, 1], ordered=True), [3, 1]),
        (pd.Categorical(["x", None]), ["x"]),
        ([b"b", b"a"], [b"a", b"b"]),
        ([(2, "x"), (1, "y")], [(1, "y"), (2, "x")]),
    ],
    ids=str,
)
def test_levels_are_sorted_or_in_category_order(values, expected):
    found = coded("g", plain(pd.Series(values)))
    assert found.levels.tolist() == expected
    told = [found.levels.tolist()[code] if code >= 0 else None for code in found.codes]
    assert told == plain(pd.Series(values)).astype(object).where(found.codes >= 0, None).tolist()


def test_whole_numbers_are_integers_as_labels():
    assert coded("g", pd.Series([2.0, 1.0])).levels.dtype == np.int64
    assert coded("g", pd.Series([2.0, 1.5])).levels.dtype == np.float64
    assert coded("g", pd.Series([2.0**53, 1.0])).levels.dtype == np.float64


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


ALIKE = {
    "number and text": (1, "1"),
    "float and text": (1.5, "1.50"),
    "padded": (7, "007"),
    "blank": (7, " 7"),
    "long": (2**60 + 1, str(2**60 + 1)),
    "truth value and text": (True, "TRUE"),
    "truth value and number": (True, 1),
    "bytes and text": (b"a", "a"),
    "date and text": (DAY, "2020-01-01"),
    "time and text": (pd.Timestamp("2020-01-01"), "2020-01-01"),
    "date and time": (DAY, pd.Timestamp("2020-01-01")),
    "fraction and text": (Fraction(1, 1), "1"),
    "period and text": (pd.Period("2020-01"), "2020-01"),
}


@pytest.mark.parametrize("pair", ALIKE.values(), ids=ALIKE)
@pytest.mark.parametrize("as_category", [True, False])
def test_labels_of_two_types_that_read_the_same(pair, as_category):
    values = pd.Series([*pair, "zzz"], dtype=object)
    if as_category and pair != (True, 1):  # which pandas takes as one category
        values = values.astype("category")
    with pytest.raises(DataError, match="give all its values one type"):
        coded("g", values)
    for one, other in (pair, pair[::-1]) if pair != (True, 1) else ():
        levels = coded("g", pd.Series([one], dtype=object)).levels
        new = pd.Series([other, "zzz"], dtype=object)
        doubt = coded("g", new.astype("category") if as_category else new, levels).doubt
        assert "would then be the known level `" in doubt


def test_truth_values_are_not_the_numbers_that_they_equal():
    levels = coded("t", pd.Series([True, False])).levels
    doubt = coded("t", pd.Series([1, 0]), levels).doubt
    assert doubt.startswith("`t` has the number `1` where the model has the truth value `True`")
    doubt = coded("t", pd.Series([True, False]), pd.Index([0, 1])).doubt
    assert doubt.startswith("`t` has the truth value `True` where the model has the number `1`")


def test_labels_of_another_type_are_named_with_the_levels_that_they_match():
    levels = coded("id", pd.Series([1, 2, 3])).levels
    assert coded("id", pd.Series(["2", "3", "4", "2"]), levels).doubt == (
        "`id` has the text `'2'` where the model has the number `2`: give it the type that it had "
        "when the model was built. Its values would then be the known levels `2` and `3`."
    )


@pytest.mark.parametrize(
    "values", [["01", "1"], [1, "a", 2.5], [1, 1.0, Decimal(1), np.int8(1)], [1, "1a"], ["a", "A"]]
)
def test_labels_that_differ_or_are_one(values):
    assert len(coded("g", pd.Series(values, dtype=object)).levels) == len(set(values))
    levels = coded("g", pd.Series([1, 2])).levels
    assert coded("g", pd.Series(["new", "3"]), levels).unseen == ("new", "3")
    assert not coded("g", pd.Series(["new", "3"]), levels).doubt


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


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_a_file_read_with_another_separator_is_recognised(separator):
    frame = pd.DataFrame({separator.join(["y", "x", "g"]): ["1"]})
    with pytest.raises(FormulaError) as caught:
        rf.Model("y ~ x", frame)
    assert f"It is one column: read the file with sep={separator!r}." in str(caught.value)


def test_columns_are_copies_that_keep_labels_and_attributes():
    frame = pd.DataFrame({"y": [1.0, 2.0], "x": [0, 1]}, index=["a", "b"])
    frame.attrs["units"] = {"y": "ms"}
    taken = open_frame(frame).columns({"y": (0, 1)}, "y ~ 1")
    assert taken.attrs == {"units": {"y": "ms"}}
    assert taken.index.tolist() == ["a", "b"]
    taken.loc["a", "y"] = 5.0
    assert frame.loc["a", "y"] == 1.0


@pytest.mark.parametrize(
    ("levels", "new"),
    [
        (pd.to_datetime(["2020-03-04", "2020-04-03"]), ["04/03/2020", "03/04/2020"]),
        (pd.to_datetime(["2020-03-04", "2020-04-03"]), ["2020-03-04", "March 4, 2020"]),
        (pd.to_timedelta([1, 2], unit="h"), ["1 hours", "2h"]),
        (pd.period_range("2020-01", periods=2, freq="M"), ["2020-01", "Jan 2020"]),
    ],
)
@pytest.mark.parametrize("dtype", ["str", object, "category"])
def test_text_is_no_time_however_it_may_be_read(levels, new, dtype):
    assert coded("g", pd.Series(new, dtype=dtype), levels).codes.tolist() == [-1, -1]


def test_times_are_the_same_in_other_types():
    levels = pd.date_range("2020-03-04", periods=3, tz="Europe/Berlin")
    utc = pd.Series(levels.tz_convert("UTC"))
    for same in (utc, utc.astype(object), pd.Series(list(levels.to_pydatetime()), dtype=object)):
        assert coded("day", same, levels).codes.tolist() == [0, 1, 2]
