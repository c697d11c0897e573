"""Unusual input that is no mistake: any scale, any labels, any names, any index."""

import datetime as dt
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ranef as rf

N = 60
RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "y": RNG.normal(size=N),
        "x": RNG.normal(size=N),
        "z": RNG.uniform(1, 5, size=N),
        "g": np.repeat(list("abcdef"), 10),
        "f": np.tile(["u", "v", "w"], 20),
    }
)
FRAME["y"] += FRAME["g"].map(dict(zip("abcdef", RNG.normal(size=6), strict=True)))


@pytest.mark.parametrize("scale", [1e9, 1e-9, 1e12])
def test_huge_scales_of_a_predictor_change_nothing_else(scale):
    fit = rf.fit("y ~ x + (x | g)", FRAME.assign(x=FRAME["x"] * scale), "ml")
    plain = rf.fit("y ~ x + (x | g)", FRAME, "ml")
    np.testing.assert_allclose(fit.loglik, plain.loglik, rtol=1e-8)
    np.testing.assert_allclose(fit.fixef()["x"] * scale, plain.fixef()["x"], rtol=1e-4)
    np.testing.assert_allclose(fit.fitted(), plain.fitted(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("factor", "shift"), [(1e12, 0), (1e-9, 0), (1, 1e10)])
def test_huge_scales_of_the_response_change_nothing_else(factor, shift):
    fit = rf.fit("y ~ x + (1 | g)", FRAME.assign(y=FRAME["y"] * factor + shift), "ml")
    plain = rf.fit("y ~ x + (1 | g)", FRAME, "ml")
    np.testing.assert_allclose(fit.loglik, plain.loglik - N * np.log(factor), rtol=1e-4)
    np.testing.assert_allclose(fit.fixef()["x"] / factor, plain.fixef()["x"], rtol=1e-4)
    np.testing.assert_allclose(fit.sigma / factor, plain.sigma, rtol=1e-4)


def test_unused_categories_are_left_out():
    frame = FRAME.assign(
        f=pd.Categorical(FRAME["f"], categories=["zz", "w", "u", "v"]),
        g=pd.Categorical(FRAME["g"], categories=list("zfedcba")),
    )
    fit = rf.fit("y ~ f + (1 | g)", frame)
    assert list(fit.fixef().index) == ["Intercept", "f[T.u]", "f[T.v]"]
    assert list(fit.ranef()["g"].index) == list("fedcba")


def test_a_slope_without_its_mean_is_noted():
    text = str(rf.Model("y ~ 1 + (x | g)", FRAME))
    assert text.endswith(
        "\n\nNote: x varies by g around a mean of zero, as it is not among the fixed effects."
    )


def test_no_fixed_effects():
    fit = rf.fit("y ~ 0 + (1 | g)", FRAME)
    assert fit.fixef().empty
    variance = fit.varcorr().cov["g"].loc["Intercept", "Intercept"]
    n, mean = 10, FRAME.groupby("g")["y"].mean()
    shrunk = mean * variance / (variance + fit.sigma**2 / n)
    np.testing.assert_allclose(fit.ranef()["g"]["Intercept"], shrunk, rtol=1e-8)
    assert rf.fit("y ~ 0", FRAME, "ml").sigma == pytest.approx(np.sqrt((FRAME["y"] ** 2).mean()))


LEVELS = {
    "bool": [True, False, True],
    "int": [3, 1, 2],
    "float": [0.5, 1.0, 2.5],
    "mixed": [1, "a", 2.5],
    "text and number": [1, "2", "b"],
    "long": [2**60 + 1, 2**60 + 2, 5],
    "odd": ["", " ", "a\nb"],
    "words": ["nan", "None", "日本"],
    "brackets": ["[x]", "<b>", "{y}"],
    "bytes": [b"a", b"b", b"c"],
    "plain dates": [dt.date(2020, 1, i) for i in (2, 1, 3)],
    "plain times": pd.date_range("2020", periods=3),
    "times of a zone": pd.date_range("2020", periods=3, tz="UTC"),
    "periods": pd.period_range("2020", periods=3, freq="M"),
    "durations": pd.to_timedelta([1, 2, 3], "h"),
    "dates": pd.Categorical([dt.date(2020, 1, i) for i in (1, 2, 3)]),
    "times": pd.Categorical(pd.date_range("2020", periods=3, tz="UTC")),
    "intervals": pd.cut([0.5, 1.5, 2.5], [0, 1, 2, 3]),
}


@pytest.mark.parametrize("name", LEVELS)
def test_levels_of_any_type(name):
    values = pd.Series(LEVELS[name])
    frame = FRAME.assign(v=values.iloc[np.arange(N) % 3].array)
    fit = rf.Model("y ~ x + (1 | v) + (1 | g)", frame).fit()
    plain = rf.Model(
        "y ~ x + (1 | v) + (1 | g)", FRAME.assign(v=(np.arange(N) % 3).astype(str))
    ).fit()
    if name != "bool":
        assert fit.loglik == pytest.approx(plain.loglik, rel=1e-10)
    assert set(fit.ranef()["v"].index) == set(values)
    np.testing.assert_allclose(fit.predict(frame), fit.fitted())
    assert "levels of v" in str(fit)
    coded = rf.Model("y ~ factor(v)", frame).design
    assert len(coded.fixed) == len(set(values))


@pytest.mark.parametrize(
    "values",
    [
        ["a", None, "b", "c"],
        pd.Categorical(["a", None, "b", "c"]),
        pd.array(["a", None, "b", "c"], dtype="string"),
        pd.array([1, None, 3, 4], dtype="Int64"),
        pd.array([1, None, 3, 4], dtype="float64[pyarrow]"),
    ],
    ids=lambda v: str(getattr(v, "dtype", "list")),
)
def test_missing_levels_are_missing_rows(values):
    frame = FRAME.assign(v=pd.Series(values).iloc[np.arange(N) % 4].array)
    with pytest.warns(rf.DataWarning) as caught:
        model = rf.Model("y ~ x + (1 | v)", frame)
    assert str(caught[0].message) == "15 of 60 rows left out for missing values in `v` (15)."
    assert model.design.terms[0].n_levels == 3


NAMES = [
    "sigma",
    "1",
    "weights",
    "offset",
    "my col",
    "größe",
    "日本",
    "a:b",
    "x y|z",
    "TRUE",
    "beta",
]


@pytest.mark.parametrize("name", NAMES)
def test_columns_of_any_name(name):
    frame = FRAME.rename(columns={"x": name})
    fit = rf.fit(f"y ~ `{name}` + (`{name}` || g)", frame)
    plain = rf.fit("y ~ x + (x || g)", FRAME)
    assert list(fit.fixef().index) == ["Intercept", name]
    np.testing.assert_allclose(fit.fixef(), plain.fixef(), rtol=1e-12)
    assert list(fit.ranef()["g"].columns) == ["Intercept", name]
    grouped = rf.fit(f"y ~ x + (1 | `{name}`)", FRAME.rename(columns={"g": name}))
    assert list(grouped.ranef()) == [name]
    response = rf.fit(f"`{name}` ~ x + (1 | g)", FRAME.rename(columns={"y": name}))
    assert response.loglik == rf.fit("y ~ x + (1 | g)", FRAME).loglik


@pytest.mark.parametrize(
    "index", [[1] * N, pd.MultiIndex.from_product([range(6), range(10)]), pd.Index(["a", "b"] * 30)]
)
def test_any_index(index):
    frame = FRAME.set_axis(index)
    fit = rf.fit("y ~ x + (1 | g)", frame)
    plain = rf.fit("y ~ x + (1 | g)", FRAME)
    np.testing.assert_array_equal(fit.fitted(), plain.fitted())
    np.testing.assert_array_equal(fit.predict(frame), fit.fitted())


# ------------------------------------------------------------------- numbers in any container


W = np.r_[np.full(3, 5.0), np.ones(N - 3)]
CONTAINERS = {
    "list": list,
    "masked": lambda w: np.ma.array(w, mask=False),
    "object": lambda w: w.astype(object),
    "fractions": lambda w: [Fraction(v) for v in w],
    "decimals": lambda w: [Decimal(str(v)) for v in w],
    "Float64": lambda w: pd.array(w, dtype="Float64"),
    "arrow": lambda w: pd.array(w, dtype="float64[pyarrow]"),
    "sparse": pd.arrays.SparseArray,
    "polars": pl.Series,
    "index": pd.Index,
    "longdouble": lambda w: w.astype(np.longdouble),
    "float32": lambda w: w.astype(np.float32),
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("what", ["weights", "offset", "x"])
def test_numbers_in_any_container(name, what):
    formula = "y ~ x + (1 | g)"
    given, plain = ({} if what == "x" else {what: w} for w in (CONTAINERS[name](W), W))
    frame = FRAME.assign(x=CONTAINERS[name](W)) if what == "x" and name != "polars" else FRAME
    expected = rf.fit(formula, FRAME.assign(x=W) if frame is not FRAME else FRAME, **plain)
    assert rf.fit(formula, frame, **given).loglik == expected.loglik


HOLES = {
    "masked": np.ma.array(np.r_[1e6, W[1:]], mask=[True] + [False] * (N - 1)),
    "masked counts": np.ma.array(np.arange(N) % 7 + 1, mask=[True] + [False] * (N - 1)),
    "pd.NA": pd.array([None, *W[1:]], dtype="Float64"),
    "pd.NA among objects": np.array([pd.NA, *W[1:]], dtype=object),
    "None": [None, *W[1:]],
    "nan": np.r_[np.nan, W[1:]],
    "NaT": np.array([pd.NaT, *W[1:]], dtype=object),
    "arrow null": pd.array([None, *W[1:]], dtype="float64[pyarrow]"),
    "decimal nan": [Decimal("nan"), *map(Decimal, W[1:])],
}


@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize("what", ["weights", "offset", "x"])
def test_what_is_missing_or_masked_leaves_its_row_out(name, what):
    values = HOLES[name]
    options, frame = ({what: values}, FRAME)
    if what == "x":
        options, frame = {}, pd.DataFrame({**FRAME, "x": values})
    with pytest.warns(rf.DataWarning, match="1 of 60 rows left out"):
        fit = rf.fit("y ~ x + (1 | g)", frame, **options)
    rest = {k: pd.Series(v).iloc[1:].astype(float) for k, v in options.items()}
    kept = frame.iloc[1:].assign(x=lambda d: d["x"].astype(float))
    assert fit.n_obs == N - 1
    assert fit.loglik == rf.fit("y ~ x + (1 | g)", kept, **rest).loglik


@pytest.mark.parametrize("kind", ["time", "period", "date", "polars date", "zoned"])
def test_dates_group_as_their_text_does(kind):
    days = pd.Series(pd.date_range("2015-01-05", periods=6, freq="MS").repeat(10).array)
    frame = FRAME.assign(day=days)
    frame["day"] = {
        "time": days,
        "period": days.dt.to_period("M"),
        "date": days.dt.date,
        "polars date": days,
        "zoned": days.dt.tz_localize("Europe/Berlin"),
    }[kind]
    data = pl.DataFrame({k: frame[k].to_list() for k in frame}) if "polars" in kind else frame
    fit = rf.fit("y ~ x + (x | day) + (1 | day:f)", data)
    text = rf.fit("y ~ x + (x | day) + (1 | day:f)", frame.assign(day=days.dt.date.astype(str)))
    assert fit.loglik == pytest.approx(text.loglik, abs=1e-8)
    np.testing.assert_allclose(fit.predict(data), text.fitted(), rtol=1e-6)
    if kind == "time":
        assert fit.ranef()["day:f"].index[0] == "2015-02-01:u"
        names = rf.Model("y ~ factor(day)", frame).design.fixed
        assert names[1] == "factor(day)[T.2015-03-01]"
        post = rf.fit("y ~ x + (1 | day)", frame, "quadrature", draws=50, seed=1)
        assert post.posterior["posterior"]["b_day"].sizes["day"] == 6


# ------------------------------------------------------------- ids of two types, text of numbers


IDS = {
    "text": lambda g: g.astype(str),
    "padded": lambda g: g.map("{:03}".format),
    "category": lambda g: g.astype(str).astype("category"),
    "bytes": lambda g: g.map(lambda v: str(v).encode()),
}


@pytest.mark.parametrize("kind", IDS)
def test_ids_of_another_type_are_not_silently_new_groups(kind):
    frame = FRAME.assign(g=np.repeat(np.arange(1, 7), 10))
    for model, new in ((frame, IDS[kind]), (frame.assign(g=IDS[kind](frame["g"])), None)):
        fit = rf.fit("y ~ x + (1 | g)", model)
        rows = frame.assign(g=new(frame["g"])) if new else frame
        with pytest.raises(rf.DataError, match="would then be the known levels"):
            fit.predict(rows)
        with pytest.warns(rf.DataWarning, match="would then be the known levels"):
            found = fit.predict(rows, groups="new")
        np.testing.assert_array_equal(found, fit.predict(rows, groups="population"))
    nested = rf.fit("y ~ x + (1 | f/g)", frame)
    with pytest.raises(rf.DataError, match="would then be the known levels"):
        nested.predict(frame.assign(g=IDS[kind](frame["g"])))
    assert np.isfinite(fit.predict(frame.assign(g="another"), groups="new")).all()


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "y ~ g", "y ~ x + (1 | f:g)"])
def test_ids_of_two_types_in_one_column(formula):
    ids = np.repeat(np.array([1, "1", 2, "2", 3, 4], dtype=object), 10)
    with pytest.raises(rf.DataError, match="the number `1` and the text `'1'`, which read the"):
        rf.Model(formula, FRAME.assign(g=ids))


def test_a_stray_entry_that_turned_numbers_to_text_is_named():
    frame = FRAME.assign(x=FRAME["x"].round(4).astype(str))
    frame.loc[3, "x"] = "n/a"
    stray = "`x` is text, as `n/a` is no number"
    for formula in (
        "y ~ x + (1 | g)",
        "y ~ log(x)",
        "x ~ z",
        "y ~ z + offset(x)",
        "y ~ poly(x, 2)",
    ):
        with pytest.raises(rf.RanefError, match=stray):
            rf.fit(formula, frame)
    frame["x"] = np.where(np.arange(N) % 20, (np.arange(N) % 7).astype(str), "NA")
    assert "`x` is text, as `NA` is no number" in " ".join(str(rf.Model("y ~ x", frame)).split())
    frame["x"] = np.array(["0", "1", "2", "3+"])[np.arange(N) % 4]
    assert "is text" not in str(rf.Model("y ~ x", frame))


# ----------------------------------------------------------------------------- extreme scales


@pytest.mark.parametrize(("power", "of_x"), [(34, -34), (34, 34), (-34, 34), (-34, -34)])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_a_model_takes_every_fit_takes(power, of_x):
    frame = FRAME.assign(y=FRAME["y"] * 10.0**power, x=FRAME["x"] * 10.0**of_x)
    plain, model = (rf.Model("y ~ x + (1 | g)", data) for data in (FRAME, frame))
    for method in ("reml", "ml", "map", "quadrature", "laplace"):
        options = {"seed": 1, "draws": 1000} if method in ("quadrature", "laplace") else {}
        one, other = plain.fit(method, **options), model.fit(method, **options)
        np.testing.assert_allclose(
            other.fixef()["x"] * 10.0 ** (of_x - power), one.fixef()["x"], rtol=1e-3
        )
        str(other), other.confint(), other.ranef_table(), other.icc(), other.r2()
        if method in ("quadrature", "laplace"):
            assert np.isfinite(other.loo("group", seed=1).elpd)
    assert np.isfinite(model.fit().summary(df="kenward-roger").to_frame()["df"]).all()


@pytest.mark.parametrize("size", [1e140, 1e37, 1e-140])
@pytest.mark.parametrize("what", ["y", "x", "offset", "weights", "x:z"])
def test_extreme_scales_are_refused_by_name(size, what):
    options, frame = {}, FRAME
    if what in ("offset", "weights"):
        options = {what: np.full(N, size)}
    elif what == "x:z":
        frame = frame.assign(x=frame["x"] * np.sqrt(size), z=frame["z"] * np.sqrt(size))
    else:
        frame = frame.assign(**{what: frame[what] * size})
    with pytest.raises(rf.DataError, match="has values of the order of"):
        rf.Model("y ~ x:z + x + (1 | g)", frame, **options)


# -------------------------------------------------------------- what is neither number nor label

NEITHER = {
    "lists": [[1], [2, 3]],
    "dicts": [{}, {"a": 1}],
    "sets": [{1}, {2}],
    "arrays": [np.array([1, 2]), np.array([3.0, 4.0])],
    "frames": [pd.DataFrame(), pd.Series([1])],
    "arrow lists": pd.array([[1], [2]], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
    "arrow structs": pd.array(
        [{"a": 1}, {"a": 2}], dtype=pd.ArrowDtype(pa.struct({"a": pa.int8()}))
    ),
    "complex": [1j, 2j],
}
USES = ["y ~ v", "y ~ x + (1 | v)", "y ~ (v | g)", "v ~ x", "y ~ factor(v)", "y ~ log(v)"]
USES += ["y ~ poly(v, 2)", "y ~ scale(v)", "y ~ x + offset(v)", "y ~ I(v > 1)"]
USES += ["y ~ x + (1 | f:v)", "y ~ C(v, contr.sum)", "y ~ x:v"]


@pytest.mark.parametrize("name", NEITHER)
@pytest.mark.parametrize("formula", USES)
def test_what_is_neither_number_nor_label_is_refused(name, formula):
    values = pd.Series(NEITHER[name]).iloc[np.arange(N) % 2].array
    with pytest.raises(rf.RanefError):
        rf.Model(formula, FRAME.assign(v=values))


def test_long_doubles_are_numbers_and_labels():
    frame = FRAME.assign(v=FRAME["x"].round(1).to_numpy(np.longdouble))
    plain = FRAME.assign(v=FRAME["x"].round(1))
    for formula in ("y ~ v + (1 | g)", "y ~ x + (1 | v)"):
        assert rf.fit(formula, frame).loglik == rf.fit(formula, plain).loglik
