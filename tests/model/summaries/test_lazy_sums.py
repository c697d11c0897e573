"""Models of lazy data against those of the same rows in memory, on two engines."""

from collections.abc import Mapping
from itertools import count

import dask.dataframe as dask
import duckdb
import ibis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from spark_frames import spark_frame

import ranef as rf
from ranef.errors import DataError, FitError, FormulaError
from ranef.model.summaries import lazy_basis

ENGINES = {
    "polars": lambda frame: pl.from_pandas(frame).lazy(),
    "duckdb": duckdb.from_df,
    "ibis": lambda frame: ibis.memtable(pa.Table.from_pandas(frame)),
    "dask": lambda frame: dask.from_pandas(frame, npartitions=3),
}
CASES: dict[str, tuple[str, Mapping[str, object]]] = {
    "slopes": ("y ~ arm * x + z + (x | site)", {}),
    "nested, weighted": ("y ~ x + (1 | site/unit)", {"weights": "w"}),
    "crossed": ("y ~ C(arm, contr.sum) + (1 | rater) + (1 | site)", {}),
    "cells of a factor": ("y ~ 0 + arm + (0 + arm | site)", {}),
    "transforms": ("log(y) ~ x + I(x^2) + sqrt(z) + (0 + x | site)", {}),
    "factor of numbers": ("y ~ factor(year) + b + (year || site)", {"offset": "o"}),
    "no random effects": ("y ~ x + arm:b + offset(o)", {}),
    "comparisons": (
        "y ~ I(x > 0) * z + I((x > 0) * x) + I(arm == 'a') + factor(x > o) + (I(x > 0) | site)",
        {"weights": "w"},
    ),
    "many levels": ("y ~ label * x + year:x + factor(year) + (1 | site)", {"offset": "o"}),
}


def _frame(n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    site, arm = rng.integers(6, size=n), rng.integers(3, size=n)
    unit, x = site * 4 + rng.integers(4, size=n), rng.normal(size=n)
    effects = rng.normal(0, 2, 6)[site] + rng.normal(0, 1, 24)[unit]
    return pd.DataFrame(
        {
            "y": 5000 + 2 * x + arm + effects + rng.normal(size=6)[site] * x + rng.normal(size=n),
            "x": x,
            "z": rng.normal(100, 3, size=n),
            "year": rng.integers(1990, 1994, size=n),
            "b": rng.integers(2, size=n) > 0,
            "arm": np.array(["a", "b", "c"])[arm],
            "site": np.array([f"s{i}" for i in range(6)])[site],
            "unit": unit,
            "rater": np.array(list("vwxyz"))[rng.integers(5, size=n)],
            "w": rng.uniform(0.5, 2, size=n),
            "o": rng.normal(size=n),
            "label": rng.choice([f"l{i}" for i in range(40)], size=n),
        }
    )


FRAME = _frame()


SPARK = pytest.param("pyspark", marks=[pytest.mark.spark, pytest.mark.filterwarnings("ignore")])


@pytest.mark.parametrize("engine", [*ENGINES, SPARK])
@pytest.mark.parametrize("name", CASES)
def test_a_lazy_model_is_that_of_the_rows(name: str, engine: str) -> None:
    formula, options = CASES[name]
    model = rf.Model(formula, FRAME, **options)
    lazy = rf.Model(formula, (ENGINES | {"pyspark": spark_frame})[engine](FRAME), **options)
    one, other = model.fit(), lazy.fit()
    assert other.loglik == pytest.approx(one.loglik, abs=1e-7)
    np.testing.assert_allclose(one.fixef(), other.fixef(), rtol=1e-8)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-6, atol=1e-8)
    for label, effects in one.ranef().items():
        again = other.ranef()[label].loc[effects.index]
        np.testing.assert_allclose(effects, again, rtol=1e-6, atol=1e-7)
    assert str(lazy) == str(model)


def test_levels_stand_in_the_order_of_their_type() -> None:
    frame = FRAME.assign(arm=pd.Categorical(FRAME["arm"], categories=["c", "a", "b"]))
    kind = pl.Enum(["c", "a", "b"])
    lazy = pl.from_pandas(frame).with_columns(pl.col("arm").cast(kind)).lazy()
    found = rf.Model("y ~ arm + (1 | site)", lazy)
    assert found.design.fixed == ("Intercept", "arm[T.a]", "arm[T.b]")
    assert found.design.fixed == rf.Model("y ~ arm + (1 | site)", frame).design.fixed


@pytest.mark.parametrize("most", [0, 10**9])
def test_levels_of_groups_stand_in_the_order_of_their_type(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_SUMS", most)
    order = ["s5", "s0", "s3", "s1", "s4", "s2"]
    frame = FRAME.assign(site=pd.Categorical(FRAME["site"], categories=order))
    enum = pl.from_pandas(FRAME).with_columns(pl.col("site").cast(pl.Enum(order)))
    for data in (duckdb.from_df(frame), enum.lazy()):
        found = rf.Model("y ~ x + (1 | site) + (1 | rater)", data).fit()
        assert found.ranef()["site"].index.tolist() == order


def test_a_lazy_model_takes_another_formula_of_the_same_data() -> None:
    model = rf.Model("y ~ x + (1 | site)", ENGINES["duckdb"](FRAME)).update(". ~ . + z")
    expected = rf.Model("y ~ x + z + (1 | site)", FRAME).fit()
    assert model.fit().loglik == pytest.approx(expected.loglik, abs=1e-8)


def test_other_sums_of_the_same_data_are_no_rows_to_compare() -> None:
    model = rf.Model("y ~ x + (1 | site)", ENGINES["polars"](FRAME))
    fits = [one.fit() for one in (model.update(". ~ . - (1 | site)"), model)]
    with pytest.raises(DataError) as error:
        rf.anova(*fits)
    assert str(error.value) == (
        "fit 1 and fit 2 are fits of sums that each model took of its data, which cannot be laid "
        "side by side. Take the largest model, whose sums serve all simpler random effects: "
        "rf.compare_structures(model), or fits of model.structures() for rf.anova and rf.compare. "
        "Models with fewer fixed effects share a summary: "
        "large = rf.Model(rf.summarize(formula, data)), small = large.update(...)."
    )
    assert rf.anova(*[one.fit() for one in model.structures().values()]).to_frame().shape[0] == 2


def test_summaries_of_lazy_and_of_other_data_add_up() -> None:
    formula = "y ~ arm + b + x + (x | site)"
    half = FRAME.iloc[:250], FRAME.iloc[250:]
    one = rf.summarize(formula, ENGINES["polars"](half[0]), min_rows=0)
    both = one + rf.summarize(formula, half[1], min_rows=0)
    expected = rf.Model(formula, FRAME).fit()
    assert rf.Model(both).fit().loglik == pytest.approx(expected.loglik, abs=1e-8)


@pytest.mark.parametrize("engine", ENGINES)
def test_incomplete_rows_are_counted(engine: str) -> None:
    frame = FRAME.assign(x=FRAME["x"].where(FRAME.index > 9))
    lazy = ENGINES[engine](frame)
    with pytest.warns(rf.DataWarning) as warned:
        model = rf.Model("y ~ x + (1 | site)", lazy)
    assert str(warned[0].message) == "10 of 500 rows left out for missing values in `x` (10)."
    assert model.fit().n_obs == 490
    with pytest.raises(DataError, match=r"10 of 500 rows have missing values, in `x` \(10\)\."):
        rf.Model("y ~ x + (1 | site)", lazy, missing="raise")
    with pytest.raises(DataError, match=r"no row is complete: missing values in `x` \(500\)\."):
        rf.Model("y ~ x + (1 | site)", ENGINES[engine](frame.assign(x=np.nan)))
    with pytest.raises(DataError, match=r"the data has no rows\."):
        rf.Model("y ~ x + (1 | site)", ENGINES[engine](frame[:0]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_constant_response_is_refused_as_that_of_the_rows_is(engine: str) -> None:
    for frame in (FRAME.assign(y=-2.5), FRAME[:1].assign(y=-2.5)):
        with pytest.raises(DataError, match=r"`y` is constant \(-2\.5 in every row\)"):
            rf.Model("y ~ x + (1 | site)", ENGINES[engine](frame))


def test_columns_called_like_those_in_between_are_no_trouble() -> None:
    frame = FRAME.rename(columns={"x": "v0", "site": "w", "w": "q1"})
    lazy = rf.Model("y ~ v0 + (1 | w)", ENGINES["polars"](frame), weights="q1").fit()
    expected = rf.Model("y ~ v0 + (1 | w)", frame, weights="q1").fit()
    assert lazy.loglik == pytest.approx(expected.loglik, abs=1e-8)


def test_what_needs_the_rows_is_refused() -> None:
    lazy = ENGINES["polars"](FRAME)
    for transform in ("scale(x)", "poly(x, 2)", "bs(x)"):
        with pytest.raises(DataError, match="needs the rows, which lazy data do not bring here"):
            rf.Model(f"y ~ {transform} + (1 | site)", lazy)
    with pytest.raises(DataError, match="functions= needs the rows"):
        rf.Model("y ~ f(x) + (1 | site)", lazy, functions={"f": np.log})
    with pytest.raises(DataError, match="weights= of lazy data is the name of a column"):
        rf.Model("y ~ x + (1 | site)", lazy, weights=np.ones(500))
    with pytest.raises(DataError, match=r"weights='v' is not a column of the data\. Known names"):
        rf.Model("y ~ x + (1 | site)", lazy, weights="v")
    with pytest.raises(DataError, match="se= needs the rows, which lazy data do not bring here"):
        rf.Model("y ~ x + (1 | site)", lazy, se="w")
    with pytest.raises(FitError, match="a binomial model needs the rows, or how often each occur"):
        rf.Model("b ~ x + (1 | site)", lazy, family="binomial")
    with pytest.raises(FormulaError, match="the column `xx` is not in the data"):
        rf.Model("y ~ xx + (1 | site)", lazy)
    with pytest.raises(DataError, match=r"`log\(x\)` is infinite or not a number in some rows"):
        rf.Model("y ~ log(x) + (1 | site)", lazy)
    for option in ("weights", "offset"):
        with pytest.raises(DataError, match=rf"{option}= is not numeric\."):
            rf.Model("y ~ x + (1 | site)", lazy, **{option: "arm"})
        infinite = ENGINES["polars"](FRAME.assign(w=np.inf))
        with pytest.raises(DataError, match=rf"{option}= is infinite or not a number in some row"):
            rf.Model("y ~ x + (1 | site)", infinite, **{option: "w"})
    for formula in ("arm ~ x", "y ~ x + offset(arm)", "y ~ I(arm * 2)"):
        with pytest.raises(DataError, match=r"`arm` is not numeric: it has the type String\."):
            rf.Model(f"{formula} + (1 | site)", lazy)
    for size in (1e150, 1e-150):
        with pytest.raises(DataError, match=r"`y` has values of the order of .*: rescale it\."):
            rf.Model("y ~ x + (1 | site)", ENGINES["duckdb"](FRAME.assign(y=FRAME["y"] * size)))
    with pytest.raises(DataError, match="weights= must be positive"):
        rf.Model("y ~ 1 + (1 | site)", lazy, weights="x")
    fit = rf.Model("y ~ x + (1 | site)", lazy).fit()
    with pytest.raises(FitError, match="has no rows"):
        fit.residuals()


def test_many_measured_columns_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_COLUMNS", 4)
    lazy = ENGINES["polars"](FRAME)
    assert rf.Model("y ~ x * label + z + (x | site)", lazy).design.fixed
    said = "the model has 5 different measured columns, whose products lazy data would have to sum"
    with pytest.raises(DataError, match=said):
        rf.Model("y ~ x * z + (1 | site)", lazy)


@pytest.mark.parametrize("most", [0, 10**9])
def test_one_factor_of_many_levels_is_summed_by_level(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_UNCROSSED", most)
    formula, options = "y ~ label + arm * x + (x | site)", {"weights": "w", "offset": "o"}
    model = rf.Model(formula, ENGINES["duckdb"](FRAME), **options)
    one, other = rf.Model(formula, FRAME, **options).fit(), model.fit()
    assert model.design.sufficient.is_paired == (most == 0)
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    np.testing.assert_allclose(one.fixef(), other.fixef(), rtol=1e-8)
    np.testing.assert_allclose(one.ranef()["site"], other.ranef()["site"], rtol=1e-6)
    if most == 0:
        said = "has the cross-products of its data by levels of `site`; what leaves out, draws or"
        with pytest.raises(FitError, match=said):
            other.bootstrap(10, seed=1)


@pytest.mark.parametrize("most", [0, 10**9])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_levels_that_differ_much_more_than_rows_leave_digits(
    engine: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_UNCROSSED", most)
    frame = FRAME.assign(y=FRAME["y"] + 1e4 * (FRAME["arm"] == "b") * (1 + FRAME["x"]))
    formula, options = "y ~ arm * x + (1 | site)", {"weights": "w", "offset": "o"}
    one, other = (
        rf.Model(formula, data, **options).fit() for data in (frame, ENGINES[engine](frame))
    )
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-9)


@pytest.mark.parametrize("options", [{}, {"family": "bernoulli"}])
def test_data_that_change_while_they_are_read_are_refused(options: Mapping[str, str]) -> None:
    lengths = count(500, -1)
    rows = pl.from_pandas(FRAME.assign(y=FRAME["b"].astype(float))).lazy()
    drawn = rows.map_batches(lambda frame: frame.head(next(lengths)), slice_pushdown=False)
    with pytest.raises(
        DataError, match=r"the lazy data changed while they were read, from \d+ to "
    ):
        rf.Model("y ~ 1 + (1 | site)", drawn, **options)


def test_many_sums_are_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    formula, lazy = "y ~ arm * x + z + (x | site)", ENGINES["polars"](FRAME)
    whole = rf.Model(formula, lazy).fit()
    monkeypatch.setattr(lazy_basis, "QUERIED_SUMS", 4)
    parts = rf.Model(formula, lazy).fit()
    assert parts.loglik == pytest.approx(whole.loglik, rel=1e-12)
    np.testing.assert_allclose(parts.fixef(), whole.fixef(), rtol=1e-9)
