"""Columns against formulaic's own matrices and against R's `model.matrix`."""

import numpy as np
import pandas as pd
import pytest
from formulaic import Formula
from hypothesis import given, settings
from hypothesis import strategies as st

from ranef.design.evaluate import Interpreter, Memory
from ranef.design.model_matrix import (
    MAX_COLUMNS,
    RANK_TOLERANCE,
    Columns,
    code,
    combinations_of,
    independent_columns,
    nearest_place,
)
from ranef.errors import DataError
from ranef.formula.terms import read_formula


def coded(text, frame, memory=None, old=None, functions=None):
    formula = read_formula(f"y ~ {text}", functions or ())
    interpreter = Interpreter(frame, formula.text, memory or Memory(), functions or {})
    return code(interpreter, formula.fixed, old)


def refusal(text, frame, memory=None, old=None):
    with pytest.raises(DataError) as error:
        coded(text, frame, memory, old)
    return str(error.value)


def random_frame(seed, n=40):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.uniform(0.5, 2.0, size=n),
            "a": rng.choice(["p", "q", "r"], size=n),
            "b": pd.Categorical(rng.choice(["lo", "hi"], size=n), categories=["lo", "hi"]),
            "c": rng.choice(["k1", "k2", "k3", "k4"], size=n),
            "n": rng.integers(1, 4, size=n),
            "t": rng.choice([True, False], size=n),
        }
    )


# ------------------------------------------------------------------------- formulaic by itself

SAME_TEXT = [
    "x",
    "a",
    "0 + a",
    "0 + x",
    "1",
    "a + b + x",
    "0 + a + b",
    "a*b",
    "a*b*c",
    "a*x",
    "a:b",
    "0 + a:b",
    "a + a:b",
    "a:x",
    "a + a:x",
    "x:a + x:b",
    "(a + b + x)**2",
    "a/b",
    "a/x",
    "0 + a*x - a",
    "log(z)",
    "np.log(z):a",
    "C(n)",
    "C(n)*x",
    "C(a, contr.sum)",
    "C(a, contr.sum)*b",
    "0 + C(a, contr.helmert)",
    "C(c, contr.poly)",
    "C(c, contr.diff)",
    "C(c, contr.SAS)",
    "C(c, contr.treatment('k3'))",
    "C(c, contr.helmert(reverse=False, scale=True))",
    "poly(x, 3)",
    "poly(x, 2):a",
    "scale(x)",
    "center(x)*a",
    "bs(x, df=5)",
    "bs(x, df=5):b",
    "cr(x, df=4)",
    "cc(x, df=3)",
]


@pytest.mark.parametrize("text", SAME_TEXT)
@pytest.mark.parametrize("seed", [1, 2])
def test_columns_are_those_of_formulaic(text, seed):
    frame = random_frame(seed)
    found, theirs = coded(text, frame), Formula(text).get_model_matrix(frame)
    assert list(found.names) == list(theirs.columns)
    np.testing.assert_allclose(found.values, theirs, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x*z + a:x:z", ("Intercept", "x", "z", "x:z", "x:z:a[T.q]", "x:z:a[T.r]")),
        ("I(x**2)", ("Intercept", "I(x**2)")),
        (
            "poly(x, degree=2, raw=True)",
            ("Intercept", *(f"poly(x, degree=2, raw=True)[{i}]" for i in (1, 2))),
        ),
    ],
)
def test_only_the_names_differ_from_those_of_formulaic(text, names):
    frame = random_frame(3)
    found = coded(text, frame)
    assert found.names == names
    np.testing.assert_allclose(found.values, Formula(text).get_model_matrix(frame), atol=1e-12)


FACTORS = st.sampled_from(["x", "z", "a", "b", "c", "C(n)", "poly(x, 2)"])
TERMS = st.lists(FACTORS, min_size=1, max_size=3, unique=True).map(":".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(TERMS, min_size=1, max_size=4, unique=True), st.booleans(), st.integers(0, 99))
def test_any_terms_span_what_those_of_formulaic_span(terms, intercept, seed):
    text = " + ".join(["1" if intercept else "0", *terms])
    frame = random_frame(seed, n=300)
    found, theirs = coded(text, frame), Formula(text).get_model_matrix(frame)
    both = np.column_stack([found.values, theirs])
    assert found.values.shape == theirs.shape
    assert np.linalg.matrix_rank(both) == np.linalg.matrix_rank(found.values)


# ------------------------------------------------------------------------------------ R itself

R_FRAME = pd.DataFrame(
    {
        "x": [1.0, 4, 2, 8, 5, 7, 3, 9, 6, 0, 2, 5],
        "f": ["u", "v", "w"] * 4,
        "g": np.repeat(["a", "b"], 6),
    }
)

# R 4.2: model.matrix(~ <text>, R_FRAME)[c(2, 8, 12), ]
R_ROWS = {
    "f*g": [[1, 1, 0, 0, 0, 0], [1, 1, 0, 1, 1, 0], [1, 0, 1, 1, 0, 1]],
    "f/g": [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1]],
    "0 + f:g": [[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1]],
    "g + f:g": [[1, 0, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1]],
    "f/x": [[1, 1, 0, 0, 4, 0], [1, 1, 0, 0, 9, 0], [1, 0, 1, 0, 0, 5]],
    "0 + x:f": [[0, 4, 0], [0, 9, 0], [0, 0, 5]],
    "0 + f*g": [[0, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 1, 1, 0, 1]],
    "f:x + g:x": [[1, 0, 4, 0, 0], [1, 0, 9, 0, 9], [1, 0, 0, 5, 5]],
    "g/f/x": [
        [1, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0],
        [1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 5],
    ],
    "(f + g + x)^2": [
        [1, 1, 0, 0, 4, 0, 0, 4, 0, 0],
        [1, 1, 0, 1, 9, 1, 0, 9, 0, 9],
        [1, 0, 1, 1, 5, 0, 1, 0, 5, 5],
    ],
    "C(f, contr.helmert)": [[1, 1, -1], [1, 1, -1], [1, 0, 2]],
    "C(f, contr.poly)": [
        [1, 0, -0.816496580928],
        [1, 0, -0.816496580928],
        [1, 0.707106781187, 0.408248290464],
    ],
    "C(f, contr.sum)*g": [[1, 0, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1], [1, -1, -1, 1, -1, -1]],
    "C(f, contr.SAS)": [[1, 0, 1], [1, 0, 1], [1, 0, 0]],
    "0 + f:x + g": [[1, 0, 0, 4, 0], [0, 1, 0, 9, 0], [0, 1, 0, 0, 5]],
    "poly(x, 2)*g": [
        [1, -0.0353996162702, -0.295736807144, 0, 0, 0],
        [1, 0.495594627783, 0.530837488649, 1, 0.495594627783, 0.530837488649],
        [1, 0.0707992325405, -0.295426647934, 1, 0.0707992325405, -0.295426647934],
    ],
}


@pytest.mark.parametrize("text", R_ROWS)
def test_columns_are_those_of_r(text):
    np.testing.assert_allclose(coded(text, R_FRAME).values[[1, 7, 11]], R_ROWS[text], atol=1e-11)


# ----------------------------------------------------------------------- names, kinds, new rows


def test_names_carry_the_labels_of_the_user():
    labels = ["__a", "b:c", "{0}", "1", "f0", "x]", ".L", "T.1"]
    frame = pd.DataFrame({"my col": labels * 2, "x": np.arange(16.0), "poly": np.arange(16) ** 2.0})
    found = coded("`my col`*x + poly", frame)
    levels = sorted(labels)[1:]
    assert found.names == (
        "Intercept",
        *(f"my col[T.{level}]" for level in levels),
        "x",
        "poly",
        *(f"my col[T.{level}]:x" for level in levels),
    )
    for level in levels:
        column = found.values[:, found.names.index(f"my col[T.{level}]:x")]
        np.testing.assert_array_equal(column, (frame["my col"] == level) * frame["x"])


@pytest.mark.parametrize(
    "name", ["1", "C", "np", "poly", "log", "I", "f0", "__x__", "{0.real}", "T"]
)
def test_a_column_may_have_any_name(name):
    frame = pd.DataFrame({name: [1.0, 5, 2], "x": [1.0, 2, 4]})
    found = coded(f"x + `{name}`", frame)
    assert found.names == ("Intercept", "x", name)
    np.testing.assert_array_equal(
        found.values, np.column_stack([np.ones(3), frame["x"], frame[name]])
    )


def test_measured_columns_are_told_from_indicators():
    found = coded("a*x + t + poly(x, 2) + I(z > 1) + C(n):z", random_frame(1))
    assert dict(zip(found.names, found.numeric, strict=True)) == {
        "Intercept": False,
        **dict.fromkeys(["a[T.q]", "a[T.r]", "t[T.True]", "I(z > 1)[T.True]"], False),
        **dict.fromkeys(["x", "poly(x, 2)[1]", "poly(x, 2)[2]", "a[T.q]:x", "a[T.r]:x"], True),
        **dict.fromkeys([f"C(n)[{i}]:z" for i in (1, 2, 3)], True),
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a", "treatment coding, reference p"),
        ("b", "treatment coding, reference lo"),
        ("t", "treatment coding, reference False"),
        ("C(a, contr.treatment('q'))", "treatment coding, reference q"),
        ("C(a, contr.SAS)", "treatment coding, reference r"),
        ("C(a, contr.SAS('q'))", "treatment coding, reference q"),
        ("C(a, contr.sum)", "sum coding"),
        ("C(a, contr.poly)", "poly coding"),
        ("C(a, contr.helmert)", "helmert coding"),
        ("C(a, contr.diff)", "diff coding"),
    ],
)
def test_codings_in_words(text, words):
    assert coded(f"{text} + x", random_frame(1)).codings == {text: words}


def test_no_terms_are_no_columns():
    found = coded("0", random_frame(1))
    assert (found.names, found.values.shape, found.numeric) == ((), (40, 0), ())


TEXT = "C(a, contr.helmert)*x + b + t + poly(z, 2) + C(n, contr.treatment(2))"


@pytest.mark.parametrize("rows", [[], [3], [3, 3, 17], list(range(39, -1, -1))], ids=len)
def test_new_rows_are_coded_as_the_old_ones(rows):
    frame, memory = random_frame(1), Memory()
    first = coded(TEXT, frame, memory)
    again = coded(TEXT, frame.iloc[rows], memory, first)
    assert again.names == first.names
    np.testing.assert_allclose(again.values, first.values[rows], atol=1e-12)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "a",
            "new",
            "`C(a, contr.helmert)` has new levels `new`; the model knows `p`, `q` and `r`.",
        ),
        ("b", "mid", "`b` has new levels `mid`; the model knows `lo` and `hi`."),
        ("t", "yes", "`t` has new levels `yes`; the model knows `False` and `True`."),
        (
            "n",
            "1",
            (
                "`n` has the text `'1'` where the model has the number `1`: give it the type that "
                "it had when the model was built. Its values would then be the known level `1`."
            ),
        ),
        (
            "x",
            "1.5",
            (
                "`x` holds categories, but held numbers when the model was built. `x` is text, "
                "although all of it reads as numbers: pd.to_numeric(x, errors='coerce') makes "
                "numbers of it."
            ),
        ),
        ("b", 1.0, "`b` holds numbers, but held categories when the model was built."),
        ("t", 1, "`t` holds numbers, but held categories when the model was built."),
    ],
)
def test_new_rows_that_are_of_another_kind(column, value, message):
    frame, memory = random_frame(1), Memory()
    first = coded(TEXT, frame, memory)
    assert refusal(TEXT, frame.assign(**{column: value}), memory, first) == message


# -------------------------------------------------------------------------------------- errors


def test_a_factor_needs_two_levels():
    frame = random_frame(1).assign(a="p")
    assert refusal("x*a", frame) == "the factor `a` has one level only, `p`: leave it out."


@pytest.mark.parametrize(
    ("text", "columns", "name"),
    [
        ("x:z + `x:z`", {"x:z": 2.0}, "x:z"),
        ("a + `a[T.q]`", {"a[T.q]": 2.0}, "a[T.q]"),
    ],
)
def test_no_two_columns_have_one_name(text, columns, name):
    frame = random_frame(1).assign(**columns)
    assert refusal(text, frame) == (
        f"two columns of the model matrix would be called `{name}`: rename the column or the level "
        "that brings it in."
    )


@pytest.mark.parametrize("text", ["Intercept", "0 + Intercept", "x:Intercept"])
def test_the_name_of_the_intercept_is_taken(text):
    assert refusal(text, random_frame(1).assign(Intercept=2.0)) == (
        "a predictor cannot be called `Intercept`, which is the intercept's name: "
        "rename the column."
    )


def test_the_number_of_columns_is_limited():
    n = MAX_COLUMNS + 1
    frame = pd.DataFrame({"i": np.arange(n).astype(str), "g": ["a", "b"] * (n // 2) + ["a"]})
    assert refusal("i", frame) == (
        "`i` stands for 10001 columns, more than 10000: is it a grouping factor, as in `(1 | i)`?"
    )
    assert refusal("i:g", frame.iloc[:5001]) == (
        "`i:g` stands for 10002 columns, more than 10000: is it a grouping factor, as in "
        "`(1 | i:g)`?"
    )


# ------------------------------------------------------------------------- combinations of columns


def columns_of(values):
    return Columns((), values, (), (), {}, None)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("seed", range(6))
def test_a_row_is_broken_where_it_is_outside_of_the_row_space(seed, scale):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, 3)) @ rng.integers(-2, 3, size=(3, 7))
    inside, outside = rng.normal(size=(5, 30)) @ X, rng.normal(size=(5, 7))
    units = scale ** rng.integers(0, 2, size=7)
    projection = np.linalg.pinv(X, rcond=1e-12) @ X
    assert (np.abs(outside @ projection - outside).max(axis=1) > 1e-3).all()
    old = columns_of(X * units)
    assert not old.broken(inside * units).any()
    assert old.broken(outside * units).any(axis=1).all()
    assert not old.broken(X * units).any()


@pytest.mark.parametrize("noise", [1e-13, 1e-9])
def test_a_dependence_with_rounding_is_one_for_new_rows_too(noise):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 1))
    both = np.hstack([x, 3 * x + noise * rng.normal(size=(60, 1))])
    old = columns_of(both[:40])
    assert old.independent == [0]
    assert not old.broken(both[40:]).any()
    assert old.broken(both[40:] + np.array([0, 1e-3])).any(axis=1).all()


def test_columns_are_found_among_others_by_what_they_are():
    rng = np.random.default_rng(2)
    X = np.hstack([np.ones((20, 1)), rng.normal(size=(20, 2)) * [1, 1e6]])
    X = np.column_stack([X, X[:, 1] + X[:, 2], X[:, 1]])
    A = np.array([[0, 1, 0, 2, 0], [0, 0, 0, -3, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0] * 5])
    Z = X @ A
    Z[:, 4] = rng.normal(size=20)
    found = combinations_of(Z, X)
    assert found.exact.tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(found.coefs[:, :4], A[:, :4], atol=1e-8)
    np.testing.assert_array_equal(found.coefs[:, :3], A[:, :3])
    none = combinations_of(Z, X[:, :0])
    assert (none.coefs.shape, none.exact.any()) == ((0, 5), False)


# ------------------------------------------------------- the observed place nearest to the origin


def away_from_zero(n=60):
    rng = np.random.default_rng(8)
    return pd.DataFrame(
        {
            "x": rng.uniform(3, 7, n),
            "w": rng.uniform(-9, -8, n),
            "z": rng.uniform(-1, 1, n),
            "f": rng.choice(list("abc"), n),
            "t": rng.random(n) < 0.4,
        }
    )


def place_of(text, frame, memory=None):
    formula = read_formula(f"y ~ {text}")
    interpreter = Interpreter(frame, formula.text, memory or Memory(), {})
    columns = code(interpreter, formula.fixed)
    return columns, nearest_place(interpreter, columns)


CLOSED = [
    "x",
    "x*w",
    "x*w*z",
    "x + I(x^2)",
    "I(x^2 / 100) + x",
    "poly(x, 3, raw=TRUE)",
    "I(x * w) + x + w",
    "f*x",
    "f/x",
    "0 + f + f:x",
    "t*x + w",
    "C(f, contr.sum)*x",
    "C(f, contr.helmert) + f:x",
    "z*I(-x)",
    "x*I(x^2) + w",
]


@pytest.mark.parametrize("text", CLOSED)
def test_at_another_place_columns_are_those_of_shifted_predictors(text):
    """Where the columns can make up what they are at predictors counted from elsewhere."""
    frame = away_from_zero()
    columns, place = place_of(text, frame)
    shifted = frame.assign(x=frame["x"] - frame["x"].min(), w=frame["w"] - frame["w"].max())
    expected = coded(text, shifted).values
    np.testing.assert_allclose(columns.values @ place.change, expected, atol=1e-9)
    nearest = {"x": frame["x"].min()} | (
        {"w": frame["w"].max()} if "w" in read_formula(f"y ~ {text}").columns() else {}
    )
    assert place.predictors == nearest


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "0 + x",
        "0 + x + w",
        "z + I(z^2)",
        "f",
        "x - 1 + f:w - 1",
        "scale(x) + I(scale(x)^2)",
        "center(x)*center(w)",
        "poly(x, 2)",
        "bs(x, df=4)",
        "cr(x, df=3)",
        "I(x - 5) + I((x - 5)^2)",
        "I(x - x.least)",
    ],
)
def test_where_zero_was_observed_or_nothing_depends_on_it(text):
    frame = away_from_zero()
    frame["x.least"] = frame["x"].min()
    assert place_of(text, frame)[1] is None


def test_of_what_has_no_column_nothing_is_taken_off():
    frame = away_from_zero()
    x, w = frame["x"].min(), frame["w"].max()
    np.testing.assert_allclose(place_of("I(x^2)", frame)[1].change, [[1, -(x**2)], [0, 1]])
    np.testing.assert_allclose(place_of("x:w", frame)[1].change, [[1, -x * w], [0, 1]])
    # the slope of x at w, which has no slope of its own
    expected = [[1, -x, 0], [0, 1, -w], [0, 0, 1]]
    np.testing.assert_allclose(place_of("x + x:w", frame)[1].change, expected, atol=1e-12)
    # at z = 0 the product is zero
    expected = [[1, -x, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(place_of("x + x:z", frame)[1].change, expected, atol=1e-12)
    # lines that cross at x = 0: at the place, their mean over the rows
    shares = [(frame["f"] == level).mean() for level in "abc"]
    change = place_of("f:x", frame)[1].change
    np.testing.assert_allclose(change[0], [1, *(-x * np.array(shares))])
    np.testing.assert_array_equal(change[1:], np.eye(4)[1:])


def test_functions_of_predictors_are_predictors():
    frame = away_from_zero()
    place = place_of("log(x) + I(log(x)^2) + I(x - 1)", frame)[1]
    nearest = np.log(frame["x"].min())
    assert place.predictors == {"log(x)": nearest, "x - 1": frame["x"].min() - 1}
    np.testing.assert_allclose(place.change[0, 1:3], [-nearest, nearest**2])


def test_a_predictor_that_does_not_vary_or_is_missing_from_cells():
    frame = away_from_zero().assign(one=3.0)
    assert place_of("one", frame)[1] is None
    frame.loc[frame["f"] == "b", "x"] = 0.0
    assert place_of("f*x", frame)[1] is None  # zero was observed, and the product there alone


def test_a_place_in_words():
    years = away_from_zero().assign(year=lambda d: 1990 + (d["x"] - d["x"].min()).round())
    place = place_of("year*w", years.assign(w=years["w"].round()))[1]
    assert str(place) == "year = 1990, w = -8"
    assert place.counted == "I(year - 1990) and I(w + 8)"
    dates = place_of("year", years.assign(year=years["year"] * 1e4 + 101))[1]
    assert str(dates) == "year = 19900101"


@pytest.mark.parametrize("n", [4, 40])
@pytest.mark.parametrize("distance", [0.0, 1e-9, 1e-6, 1e-2])
def test_a_column_is_kept_if_its_residual_on_those_kept_before_is_long_enough(n, distance):
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 9))
    X[:, 3] = 0.0
    X[:, 4] = X[:, 0] - 2 * X[:, 1]
    X[:, 6] = X[:, 4] + X[:, 2]
    X[:, 5] = X[:, 0] + distance * X[:, 5]
    X[:, 7] *= 1e9
    kept = []
    for j, x in enumerate(X.T):
        before = X[:, kept] / np.linalg.norm(X[:, kept], axis=0)
        residual = x - before @ np.linalg.lstsq(before, x, rcond=None)[0]
        if np.linalg.norm(residual) > RANK_TOLERANCE * max(np.linalg.norm(x), 1e-300):
            kept.append(j)
    assert independent_columns(X) == kept
    assert independent_columns(X[:, kept]) == list(range(len(kept)))
    assert independent_columns(X[:, :0]) == []
