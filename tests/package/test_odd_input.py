"""Unusual input that is no mistake: any scale, any labels, any names, any index."""

import datetime as dt

import numpy as np
import pandas as pd
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
    "text and number": [1, "1", "b"],
    "long": [2**60 + 1, 2**60 + 2, 5],
    "odd": ["", " ", "a\nb"],
    "words": ["nan", "None", "日本"],
    "brackets": ["[x]", "<b>", "{y}"],
    "bytes": [b"a", b"b", b"c"],
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
