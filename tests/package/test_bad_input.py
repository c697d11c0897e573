"""What a user may do wrong, through the public calls, and the full text of what is said to it."""

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import polars as pl
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


def refusal(kind, formula="y ~ x + (1 | g)", frame=FRAME, *, method="reml", **options):
    with pytest.raises(kind) as error:
        rf.Model(formula, frame, **options).fit(method)
    assert isinstance(error.value, rf.RanefError)
    return str(error.value)


def marked(message, formula, carets):
    return f"{message}\n    {formula}\n    {carets}"


# ------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    ("formula", "carets", "message"),
    [
        ("y ~ X", "    ^", "the column `X` is not in the data. Did you mean `x`?"),
        (
            "y ~ nope + (1 | g)",
            "    ^^^^",
            "the column `nope` is not in the data. Known names: `y`, `x`, `z`, `g`, `f`.",
        ),
        (
            "y ~ x + (1 | G)",
            "             ^",
            "the column `G` is not in the data. Did you mean `g`?",
        ),
        (
            "y ~ x z",
            "      ^",
            (
                "`z` is left over: an operator such as `+` is missing before it. A column `x z` is "
                "written in backticks."
            ),
        ),
        ("y ~ x + (1 | g", "        ^", "this parenthesis is never closed."),
        ("y ~ x + 1 | g)", "             ^", "this parenthesis closes nothing."),
        ("y ~ x + y", "        ^", "the response `y` is also on the right-hand side."),
        (
            "y ~ x + (0 | g)",
            "        ^^^^^^^",
            "`(0 | g)` has no coefficients: name what varies between the groups, as in `(1 | g)`.",
        ),
    ],
)
def test_formulas(formula, carets, message):
    assert refusal(rf.FormulaError, formula) == marked(message, formula, carets)
    with pytest.raises(rf.FormulaError) as one_call:
        rf.fit(formula, FRAME)
    assert str(one_call.value) == marked(message, formula, carets)


def test_the_same_term_twice():
    formula = "y ~ (x | g) + (1 | g)"
    message = (
        "the intercept varies by `g` in two random-effects terms, and the data cannot tell their "
        "variances apart: keep it in one of them."
    )
    found = refusal(rf.FormulaError, formula)
    assert found == marked(message, formula, " " * 14 + "^" * 7)


def test_a_name_outside_of_a_wide_frame_lists_no_more_than_forty():
    wide = pd.DataFrame(np.ones((3, 100)), columns=[f"c{i:02}" for i in range(100)])
    found = refusal(rf.FormulaError, "response ~ c01", wide)
    assert found.split("\n")[0].endswith("`c38`, `c39` and 60 more.")


# ------------------------------------------------------------------------------ values and types


@pytest.mark.parametrize(
    ("column", "label"), [("y", "y"), ("x", "x"), ("z", "log(z)"), ("h", "h"), ("o", "o")]
)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_named_with_their_rows(column, label, value):
    frame = FRAME.assign(h=1.5, o=0.0).set_axis([f"r{i}" for i in range(N)])
    frame.loc[["r3", "r7"], column] = value
    formula = "y ~ x + log(z) + offset(o) + (1 | h)"
    with np.errstate(all="raise"):
        assert refusal(rf.DataError, formula, frame) == (
            f"`{label}` is infinite or not a number in 2 of 60 rows: `r3` and `r7`. Correct these "
            "values or leave the rows out."
        )


@pytest.mark.parametrize("power", [200, -200])
def test_numbers_beyond_what_squares_can_hold(power):
    frame = FRAME.assign(x=FRAME["x"].round(2) * 10.0**power)
    size = f"{frame['x'].abs().max():.0e}"
    assert refusal(rf.DataError, frame=frame) == (
        f"`x` has values of the order of {size}: rescale it."
    )


def test_a_response_of_labels():
    assert refusal(rf.DataError, "f ~ x") == (
        "`f` is not numeric: it has the levels `u`, `v` and `w`. The gaussian family takes "
        "numbers; two classes, such as `(f == 'w')`, are for family=\"binomial\"."
    )


@pytest.mark.parametrize("day", [dt.date(2020, 1, 1), pd.Timestamp("2020-01-01", tz="UTC")])
def test_dates(day):
    frame = FRAME.assign(day=[day + dt.timedelta(i % 3) for i in range(N)])
    kind = "date" if isinstance(day, dt.date) and type(day) is dt.date else frame["day"].dtype
    for formula in ("y ~ day", "y ~ x + (day | g)"):
        assert refusal(rf.DataError, formula, frame) == (
            f"`day` has type {kind}, which may be meant as numbers or as labels: turn it into "
            "numbers (say, days since the start), or write `factor(day)`."
        )
    categories = frame.assign(day=frame["day"].astype("category"))
    labels = rf.fit("y ~ x + factor(day) + (1 | day)", categories, "map").loglik
    assert rf.fit("y ~ x + factor(day) + (1 | day)", frame, "map").loglik == labels


def test_a_constant_response():
    message = "the response `y` is constant (3 in every row)."
    assert refusal(rf.DataError, frame=FRAME.assign(y=3)) == message
    found = refusal(rf.DataError, frame=FRAME.assign(y=FRAME["x"]), offset="x")
    assert found == "the response `y` minus its offset is constant."


def test_a_response_that_the_fixed_effects_fit_exactly():
    assert refusal(rf.DataError, "y ~ x", FRAME.assign(y=2 * FRAME["x"] + 1)) == (
        "the fixed effects fit the response `y` exactly: there is no residual variation to model."
    )


def test_columns_of_one_name():
    frame = pd.concat([FRAME, FRAME[["x"]]], axis=1)
    assert (
        refusal(rf.DataError, frame=frame) == "2 columns of the data are called `x`: rename them."
    )
    assert rf.fit("y ~ z + (1 | g)", frame).n_obs == N


# --------------------------------------------------------------------------- rows and weights


def test_no_rows():
    assert refusal(rf.DataError, frame=FRAME.iloc[:0]) == "the data has no rows."
    assert refusal(rf.DataError, frame=FRAME.assign(x=np.nan)) == (
        "no row is complete: missing values in `x` (60)."
    )


@pytest.mark.parametrize("convert", [lambda d: d, pl.from_pandas])
def test_missing_values_are_counted(convert):
    frame = FRAME.copy()
    frame.loc[[3, 7], "x"] = np.nan
    frame.loc[7, "g"] = None
    message = "2 of 60 rows left out for missing values in `x` (2), `g` (1)."
    with pytest.warns(rf.DataWarning) as caught:
        fit = rf.fit("y ~ x + (1 | g)", convert(frame))
    assert [str(w.message) for w in caught] == [message]
    assert [w.filename for w in caught] == [__file__]
    complete = rf.fit("y ~ x + (1 | g)", frame.dropna())
    assert (fit.n_obs, fit.loglik) == (58, complete.loglik)
    assert refusal(rf.DataError, frame=convert(frame), missing="raise") == (
        "2 of 60 rows have missing values, in `x` (2), `g` (1): rows `3` and `7`."
    )


FIRST = "`0` and `1`."
LEAVE_OUT = "Leave out the rows that should not count."


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("w", "weights='w' is not a column of the data. Known names: `y`, `x`, `z`, `g`, `f`."),
        ("f", "weights= is not numeric."),
        ([1.0] * 59, "weights= has shape (59,), expected (60,)."),
        ([np.inf] + [1.0] * 59, "weights= is infinite in 1 of 60 rows: `0`."),
        (
            [0.0, -1.0] + [1.0] * 58,
            f"weights= must be positive; zero or negative in 2 of 60 rows: {FIRST} {LEAVE_OUT}",
        ),
    ],
    ids=["name", "labels", "length", "infinite", "not positive"],
)
def test_weights(weights, message):
    assert refusal(rf.DataError, weights=weights) == message


def test_a_missing_weight_is_a_missing_row():
    with pytest.warns(rf.DataWarning) as caught:
        fit = rf.Model("y ~ x", FRAME, weights=[np.nan] + [2.0] * 59).fit("ml")
    assert [w.filename for w in caught] == [__file__]
    assert str(caught[0].message) == "1 of 60 rows left out for missing values in `weights=` (1)."
    assert fit.n_obs == 59


# ------------------------------------------------------------------- what cannot be identified

REMEDY = 'a Bayesian fit, model.fit("mcmc"), can go on with proper priors.'


def sampled(formula, frame, monkeypatch):
    """Return the warnings of a Bayesian fit, up to its sampling."""
    monkeypatch.setattr(
        "ranef.model.linear_engine.pymc_hierarchical.hierarchical", lambda *_, **__: None
    )
    monkeypatch.setattr(
        "ranef.model.linear_engine.pymc_hierarchical.sample_pymc", lambda *_, **__: 1 / 0
    )
    model = rf.Model(formula, frame)
    with (
        warnings.catch_warnings(record=True, action="always") as caught,
        pytest.raises(ZeroDivisionError),
    ):
        model.fit("mcmc", form="hierarchical")
    assert {w.category for w in caught} <= {rf.DataWarning}
    return [str(w.message) for w in caught]


def test_a_grouping_factor_of_one_level(monkeypatch):
    frame = FRAME.assign(g="a")
    assert refusal(rf.DataError, frame=frame) == (
        "the grouping factor `g` has one level only, `a`: no variance between levels can be "
        f"estimated; {REMEDY}"
    )
    assert sampled("y ~ x + (1 | g)", frame, monkeypatch) == [
        "`g` has one level only: its sd is informed by the prior alone."
    ]


@pytest.mark.parametrize(
    ("formula", "groups", "words"),
    [
        ("y ~ (1 | g)", 60, "(1 | g) has 60 random effects (60 levels of `g` x 1)"),
        ("y ~ x + (x | g)", 30, "(1 + x | g) has 60 random effects (30 levels of `g` x 2)"),
        ("y ~ x + (x | g)", 45, "(1 + x | g) has 90 random effects (45 levels of `g` x 2)"),
    ],
)
def test_as_many_random_effects_as_rows(formula, groups, words, monkeypatch):
    frame = FRAME.assign(g=np.arange(N) % groups)
    for method in ("reml", "ml"):
        assert refusal(rf.DataError, formula, frame, method=method) == (
            f"{words} for 60 rows, so that their variance and the residual variance cannot be told "
            f"apart; {REMEDY}"
        )
    message = (
        "the data cannot tell apart `sigma` and `sd_g[Intercept]`; the priors decide. Without "
        "them, leave out (1 | g)."
    )
    is_flat = groups == 60  # the others have rows of a group with another x
    assert sampled(formula, frame, monkeypatch) == [message] * is_flat


def test_a_factor_of_one_level_among_the_fixed_effects():
    assert refusal(rf.DataError, "y ~ f", FRAME.assign(f="u")) == (
        "the factor `f` has one level only, `u`: leave it out."
    )


def test_a_single_row():
    message = "the response `y` is constant (2.5 in every row)."
    assert refusal(rf.DataError, "y ~ 1", FRAME.iloc[:1].assign(y=2.5)) == message


def test_as_many_fixed_effects_as_rows():
    assert refusal(rf.DataError, "y ~ x + z", FRAME.iloc[:3]) == (
        "3 fixed effects for 3 rows leave nothing to estimate sigma from."
    )


def test_more_fixed_effects_than_rows():
    names = [f"x{i}" for i in range(80)]
    frame = FRAME.assign(**dict(zip(names, RNG.normal(size=(80, N)), strict=True)))
    with pytest.warns(rf.DataWarning, match="`x59`, `x60`, `x61`, `x62`, `x63` and 16 more left"):
        found = refusal(rf.DataError, f"y ~ {' + '.join(names)}", frame)
    assert found == "60 fixed effects for 60 rows leave nothing to estimate sigma from."


@pytest.mark.parametrize(
    ("columns", "formula", "dropped"),
    [
        ({"x2": 2 * FRAME["x"]}, "y ~ x + x2 + z + (1 | g)", "`x2`"),
        ({"s": FRAME["x"] + FRAME["z"]}, "y ~ x + z + s + (1 | g)", "`s`"),
        ({"one": 1.0, "zero": 0.0}, "y ~ x + one + z + zero + (1 | g)", "`one` and `zero`"),
        ({"f2": FRAME["f"]}, "y ~ f + x + z + f2 + (1 | g)", "`f2[T.v]` and `f2[T.w]`"),
    ],
)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_dependent_columns_are_left_out_and_the_fit_is_right(columns, formula, dropped, method):
    frame = FRAME.assign(**columns)
    with pytest.warns(rf.DataWarning) as caught:
        fit = rf.Model(formula, frame).fit(method)
    (warning,) = caught
    assert warning.filename == __file__
    assert str(warning.message) == (
        f"the fixed effects are linearly dependent: {dropped} left out as a combination of the "
        "columns before it."
    )
    base = "y ~ f + x + z + (1 | g)" if "f2" in columns else "y ~ x + z + (1 | g)"
    right = rf.fit(base, frame, method)
    assert list(fit.fixef().index) == list(right.fixef().index)
    np.testing.assert_allclose(fit.fixef(), right.fixef(), rtol=1e-6)
    np.testing.assert_allclose(fit.loglik, right.loglik, rtol=1e-10)
    np.testing.assert_allclose(fit.predict(frame), right.predict(frame), rtol=1e-6)


def test_the_name_of_the_intercept_is_taken():
    assert refusal(rf.DataError, "y ~ Intercept", FRAME.assign(Intercept=FRAME["x"])) == (
        "a predictor cannot be called `Intercept`, which is the intercept's name: rename the "
        "column."
    )
    grouped = rf.fit("y ~ x + (1 | Intercept)", FRAME.rename(columns={"g": "Intercept"}))
    assert grouped.n_groups == {"Intercept": 6}


# ---------------------------------------------------------------------------- names of options


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: rf.Model("y ~ x", FRAME, "quasi"),
            (
                "family='quasi' is not available. Known names: `gaussian`, `binomial`, "
                "`bernoulli`, `poisson`, `negative_binomial`, `gamma`, `inverse_gaussian`, `beta`, "
                "`t`."
            ),
        ),
        (lambda: rf.Model("y ~ x", FRAME, 3), "family= takes a name or a Family, got int."),
        (
            lambda: rf.Model("y ~ x", FRAME, link="logit"),
            (
                "link='logit' is not available for the gaussian family, which has `identity`, "
                "`log` and `inverse`."
            ),
        ),
        (
            lambda: rf.Model("y ~ x", FRAME).fit("remm"),
            "method='remm' does not exist. Did you mean `reml`?",
        ),
        (
            lambda: rf.Model("y ~ x", FRAME).fit(3),
            (
                "method=3 does not exist. Known names: `reml`, `ml`, `map`, `laplace`, "
                "`quadrature`, `mcmc`."
            ),
        ),
    ],
)
def test_names_that_do_not_exist(act, message):
    with pytest.raises(rf.FitError) as error:
        act()
    assert str(error.value) == message


@pytest.mark.parametrize("option", ["draws", "wieghts"])
def test_options_that_do_not_exist(option):
    with pytest.raises(rf.FitError, match=f"has no option `{option}`"):
        rf.fit("y ~ x", FRAME, "ml", **{option: 3})


def test_other_values_of_missing():
    assert refusal(rf.DataError, missing="keep") == (
        "missing='keep' is not an option: use 'drop' or 'raise'."
    )


# ------------------------------------------------------------------------------------ new data


def test_new_data():
    fit = rf.fit("y ~ x + f + (1 | g)", FRAME)
    new = FRAME.iloc[:4].assign(g=["a", "new", "b", "newer"])
    with pytest.raises(rf.DataError) as error:
        fit.predict(new)
    assert str(error.value).startswith("2 rows have levels of `g` that the model has not seen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        population = fit.predict(new, groups="population")
    np.testing.assert_allclose(population[[1, 3]], fit.predict(new, groups="new")[[1, 3]])
    assert fit.predict(FRAME.iloc[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"f": "new"}, "`f` has new levels `new`; the model knows `u`, `v` and `w`."),
        ({"x": "text"}, "`x` holds categories, but held numbers when the model was built."),
        ({"x": np.inf}, "`x` is infinite or not a number in 2 of 2 rows: `0` and `1`."),
    ],
)
def test_new_data_that_do_not_fit(new, message):
    fit = rf.fit("y ~ x + f + (1 | g)", FRAME)
    with pytest.raises(rf.DataError) as error:
        fit.predict(FRAME.iloc[:2].assign(**new))
    assert str(error.value).startswith(message)


# ------------------------------------------------------------------- arguments of any other type


@pytest.mark.parametrize("name", [None, 5, b"cake", ["cake"], "", "cake "])
def test_data_sets_that_do_not_exist(name):
    with pytest.raises(rf.DataError, match="there is no data set"):
        rf.load_dataset(name)


@pytest.mark.parametrize(
    "functions", [5, "log", ["f"], [("f", abs)], {"f": 5}, {5: abs}, {"f": None}, abs, {abs}]
)
def test_functions_that_are_no_dict_of_functions(functions):
    found = refusal(rf.FormulaError, "y ~ f(x)", functions=functions)
    assert found == "functions= takes a dict from a name to a function."


@pytest.mark.parametrize(
    "result",
    [
        [[1], [1, 2]],
        [1] * N + [[2]],
        None,
        "a",
        {"a": 1},
        {1, 2},
        1.0,
        [1.0],
        np.ones((N, 1, 1)),
        np.ones((N, 0)),
        np.ones(N) * 1j,
        np.array(["a"] * N),
        np.array([None] * N),
        np.array([pd.NA] * N),
        pd.date_range("2020", periods=N),
        pd.Categorical(["a"] * N),
        lambda: 1,
        pd.DataFrame({"a": ["u"] * N}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_functions_that_do_not_give_an_array_of_numbers(result):
    message = refusal(rf.FormulaError, "y ~ f(x)", functions={"f": lambda _: result})
    assert message.startswith("`f(x)` ")


# --------------------------------------------------------------------- the response as predictor


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ I(y)",
        "y ~ (y)",
        "y ~ x + I(I(y))",
        "y ~ x:I(y^2)",
        "y ~ poly(y, 2)",
        "y ~ log(abs(y))",
        "y ~ x + offset(y)",
        "y ~ x + (y | g)",
        "y ~ x + (1 | y)",
        "I(y) ~ y",
        "exp(y) ~ y",
        "I(y + x) ~ I(y + x)",
        "I(y + x) ~ x + (y + x | g) + I(I(y + x))",
    ],
)
def test_the_response_among_the_predictors(formula):
    assert "is also on the right-hand side" in refusal(rf.FormulaError, formula)


def test_a_difference_may_be_regressed_on_the_value_it_starts_from():
    fit = rf.fit("I(y - x) ~ x + (1 | g)", FRAME)
    np.testing.assert_allclose(fit.fixef()["x"] + 1, rf.fit("y ~ x + (1 | g)", FRAME).fixef()["x"])


# ------------------------------------------------------- what others write, and what is not there


B = "contr.treatment('b')"
SPELLINGS = {
    "C(h, Treatment('b'))": B,
    "C(h, Treatment(reference='b'))": B,
    "C(h, Treatment(ref='b'))": B,
    "C(h, contr.treatment(base='b'))": B,
    "C(h, contrasts=Treatment('b'))": B,
    "C(h, reference='b')": B,
    "C(h, ref='b')": B,
    "C(h, base='b')": B,
    "relevel(h, 'b')": B,
    "relevel(h, ref='b')": B,
    "C(h, Treatment)": "contr.treatment",
    "C(h, Sum)": "contr.sum",
    "C(h, Helmert)": "contr.helmert",
    "C(h, Diff)": "contr.diff",
    "C(h, Poly)": "contr.poly",
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_codings_as_patsy_and_r_write_them(text):
    frame = FRAME.assign(h=FRAME["f"].map({"u": "a", "v": "b", "w": "c"}))
    frame["Sum"] = frame["Treatment"] = 1.0  # columns are no codings
    for formula in ("y ~ {} + (1 | g)", "y ~ x:{} + (0 + {} || g)"):
        found = rf.Model(formula.replace("{}", text), frame).design
        ours = rf.Model(formula.replace("{}", f"C(h, {SPELLINGS[text]})"), frame).design
        assert found.fixed == ours.fixed
        np.testing.assert_array_equal(found.rows.X, ours.rows.X)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("y ~ x + 1 | g", "`(x + 1 | g)` for what varies by `g`"),
        ("y ~ 1 | g/f", "`(1 | g/f)` for what varies by `g/f`"),
        ("y ~ x || g", "`(x || g)` for what varies by `g`"),
        ("y ~ .", "name them, say by `' + '.join(names)`"),
        ("y ~ x + . + (1 | g)", "name them"),
        ("y ~ ns(x, 3)", "`cr(x, df=4, constraints='center')`"),
        ("y ~ (0 + dummy(f, 'u') | g)", "`I(1 * (f == 'a'))`"),
        ("y ~ s(x)", "no penalised smooths"),
        ("y ~ relevel(f)", "`C(f, contr.treatment('b'))`"),
        ("y ~ Treatment(f, 'u')", "`C(f, contr.treatment('b'))`"),
        ("y ~ C(f, Treatment('z'))", "`z` is not a level: there are `u`, `v` and `w`."),
        ("y ~ x + us(1 | g)", "`(x | g)`"),
        ("y ~ x + diag(x | g)", "`(x || g)`"),
        ("y ~ x + homdiag(x | g)", "`(x || g)`"),
        ("y ~ x + cs(x | g)", "Random effects are `(x | g)`, or `(x || g)` without"),
        ("y ~ x + ar1(0 + f | g)", "this covariance structure is not available"),
        ("y ~ Q('x')", "backticks"),
        ("y ~ interaction(f, g)", "`a:b`"),
        ("y | trials(5) ~ x", "`cbind(successes, failures)`"),
        ("y ~ mo(x)", "`C(f, contr.poly)`"),
        ("y ~ x + (1 | gr(g))", "joined with"),
        ("y ~ pow(x, 2)", "`I(x^2)`"),
    ],
)
def test_what_others_write_is_answered_with_our_spelling(formula, words):
    assert words in refusal(rf.FormulaError, formula)


def test_what_is_named_in_place_of_others_works():
    rf.Model("y ~ I(1 * (f == 'u')) + (0 + I(1 * (f == 'u')) | g)", FRAME)
    assert len(rf.Model("y ~ cr(x, df=4, constraints='center')", FRAME).fit().fixef()) == 5


@pytest.mark.parametrize(("draws", "chains"), [(1, 1), (1, 2), (1, 4), (2, 2), (3, 2), (24, 4)])
def test_few_draws_are_not_weighted(draws, chains):
    from fits import known_posterior

    model = rf.Model("y ~ x + (1 | g)", FRAME)
    made = known_posterior(model, draws=draws, chains=chains)
    fit = rf.PosteriorFit(
        made.design, made.family, "mcmc", made.marginals, evidence=None, engine=model.engine
    )
    for unit in ("observation", "group"):
        with pytest.raises(rf.FitError, match=f"^{draws * chains} draws are too few .* 100 are"):
            fit.loo(unit, seed=1)


# ------------------------------------------------------------------ names and numbers of any type

ANYTHING = [5, 1.5, b"a", [], [1], {}, {"a": 1}, (), set(), abs, object(), np.array([1, 2])]
ANYTHING += [
    np.array(1.0),
    pd.Series([1.0]),
    pd.DataFrame(),
    pd.NA,
    pd.NaT,
    slice(3),
    [[1], [1, 2]],
]


@pytest.mark.parametrize("value", ANYTHING, ids=lambda v: type(v).__name__)
def test_names_of_another_type_are_refused(value):
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    fit, exact = model.fit(), model.fit("quadrature", draws=100, seed=1)
    for call in (
        lambda: exact.draws(value),
        lambda: exact.curve(value),
        lambda: exact.savage_dickey(value),
        lambda: fit.shrinkage_table(value),
        lambda: fit.profile([value]),
        lambda: model.fit("mcmc", form=value),
        lambda: model.fit("mcmc", centered=value),
        lambda: rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff"), missing=value),
    ):
        with pytest.raises(rf.RanefError):
            call()
    if not isinstance(value, int | float):
        with pytest.raises(rf.RanefError):
            rf.fit("y ~ x + (1 | g)", FRAME.assign(y=1.0 + FRAME["y"] ** 2), family="gamma").icc(
                mean=value, approximation="delta"
            )
