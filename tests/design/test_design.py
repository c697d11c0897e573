"""Grouping factors and their order, new rows, rank, speed."""

import time
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from ranef.design.design import build_design, full_rank
from ranef.design.model_matrix import independent_columns
from ranef.design.new_data.new_rows import OF_NO_KNOWN_GROUP, new_rows
from ranef.errors import DataError, FormulaError
from ranef.formula.terms import read_formula


def design(text, frame, **options):
    return build_design(read_formula(text, options.get("functions") or ()), frame, **options)


def random_frame(seed=1, n=60):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.uniform(1, 2, size=n),
            "f": rng.choice(["u", "v", "w"], size=n),
            "g": rng.choice(list("abcdefgh"), size=n),
            "h": rng.integers(1, 4, size=n),
            "k": rng.choice(["s1", "s2"], size=n),
        }
    )


FRAME = random_frame()


# ------------------------------------------------------------------------------- random terms


def test_codes_and_columns_of_a_random_term():
    found = design("y ~ x + (x + f | g)", FRAME)
    (term,), (rows,) = found.terms, found.rows.terms
    assert term.levels[rows.codes].tolist() == FRAME["g"].tolist()
    assert term.coefs == ("Intercept", "x", "f[T.v]", "f[T.w]")
    assert term.numeric == (False, True, False, False)
    expected = [np.ones(60), FRAME["x"], FRAME["f"] == "v", FRAME["f"] == "w"]
    np.testing.assert_array_equal(rows.columns, np.column_stack(expected))
    assert (term.n_levels, term.n_coefs, term.label, term.factor) == (8, 4, "g", "g")
    assert term.text == "(1 + x + f | g)"


@pytest.mark.parametrize(
    ("text", "coefs"),
    [
        ("(1 | g)", ("Intercept",)),
        ("(0 + x | g)", ("x",)),
        ("(0 + f | g)", ("f[u]", "f[v]", "f[w]")),
        ("(f || g)", ("Intercept", "f[T.v]", "f[T.w]")),
        ("(f:x | g)", ("Intercept", "f[u]:x", "f[v]:x", "f[w]:x")),
        ("(poly(z, 2) | g)", ("Intercept", "poly(z, 2)[1]", "poly(z, 2)[2]")),
    ],
)
def test_the_columns_of_a_random_term_do_not_depend_on_the_fixed_ones(text, coefs):
    for fixed in ("1", "0 + f", "x*f"):
        assert design(f"y ~ {fixed} + {text}", FRAME).terms[0].coefs == coefs


def test_levels_of_combined_factors_are_what_occurs_with_the_first_part_slowest():
    built = design("y ~ (1 | g:h:k)", FRAME)
    found, rows = built.terms[0], built.rows.terms[0]
    labels = FRAME["g"] + ":" + FRAME["h"].astype(str) + ":" + FRAME["k"]
    assert found.levels.tolist() == sorted(set(labels))
    assert found.levels[rows.codes].tolist() == labels.tolist()
    assert [part.name for part in rows.grouping.parts] == ["g", "h", "k"]
    nested = design("y ~ (1 | k/h/g)", FRAME).rows.terms
    assert [term.factor for term in nested] == ["g:h:k", "h:k", "k"]
    np.testing.assert_array_equal(nested[0].codes, rows.codes)


def test_terms_come_in_the_order_of_lme4():
    """By decreasing number of levels; where sorting is needed, it turns the equal ones round."""
    found = design("y ~ (1 | k) + (1 | f) + (0 + x | k) + (1 | h) + (1 | g) + (0 + z | k)", FRAME)
    texts = ["(1 | g)", "(1 | h)", "(1 | f)", "(0 + z | k)", "(0 + x | k)", "(1 | k)"]
    assert [t.text for t in found.terms] == texts
    assert [t.label for t in found.terms] == ["g", "h", "f", "k", "k_1", "k_2"]
    assert found.term("k_1").coefs == ("x",)
    ordered = design("y ~ (1 | g) + (1 | f) + (0 + x | f) + (1 | h) + (1 | k)", FRAME)
    assert [t.label for t in ordered.terms] == ["g", "f", "f_1", "h", "k"]


def test_two_combinations_cannot_share_a_label():
    frame = FRAME.assign(a=["p:q", "p"] * 30, b=["r", "q:r"] * 30)
    with pytest.raises(DataError) as error:
        design("y ~ (1 | a:b)", frame)
    assert str(error.value) == (
        "two combinations of `a:b` would both be called `p:q:r`: rename the labels."
    )


def test_many_combined_factors_do_not_overflow():
    n = 5000
    names = [f"g{i}" for i in range(8)]  # 5000^8 possible combinations
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=n), **{g: rng.permutation(n) for g in names}})
    (term,) = design(f"y ~ (1 | {':'.join(names)})", frame).rows.terms
    assert term.grouping.levels[term.codes].tolist() == [
        ":".join(map(str, row)) for row in frame[names].itertuples(index=False)
    ]


# -------------------------------------------------------------------- response, weights, offset


def test_the_parts_of_a_design():
    frame = FRAME.assign(w=2.0)
    text = "log(z) ~ x + offset(2*x) + offset(I(x > 0))"
    found = design(text, frame, weights="w", offset=np.arange(60.0))
    np.testing.assert_allclose(found.rows.y, np.log(FRAME["z"]))
    np.testing.assert_allclose(found.rows.offset, np.arange(60) + 2 * FRAME["x"] + (FRAME["x"] > 0))
    assert (found.rows.weights == 2).all()
    assert (found.response, found.n_obs, found.dropped) == ("log(z)", 60, ())
    assert found.rows.index.equals(FRAME.index)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("(f == 'u')", FRAME["f"] == "u"),
        ("I(y^2)", FRAME["y"] ** 2),
        ("y + x", FRAME["y"] + FRAME["x"]),
        ("`h`", FRAME["h"]),
        ("I(h > 1)", FRAME["h"] > 1),
    ],
)
def test_the_response_is_any_expression(response, expected):
    np.testing.assert_allclose(design(f"{response} ~ z", FRAME).rows.y, expected)


@pytest.mark.parametrize(
    ("formula", "what"),
    [
        ("poly(y, 2) ~ x", "the response `poly(y, 2)`"),
        ("y ~ x + offset(poly(z, 2))", "the offset `poly(z, 2)`"),
    ],
)
def test_a_response_and_an_offset_are_one_column(formula, what):
    with pytest.raises(DataError) as error:
        design(formula, FRAME)
    assert str(error.value) == f"{what} has 2 columns, expected one."


@pytest.mark.parametrize("functions", [[3], {"f": 3}, "f", {3}])
def test_functions_are_given_by_name(functions):
    with pytest.raises(FormulaError) as error:
        build_design(read_formula("y ~ x"), FRAME, functions=functions)
    assert str(error.value) == "functions= takes a dict from a name to a function."


# ----------------------------------------------------------------------------------- new rows

TEXT = (
    "log(z) ~ poly(x, 2)*f + C(k, contr.sum) + scale(y):k + I(x > 0) + bs(y, df=4) + offset(x)"
    " + (poly(x, 2) | g) + (f || h) + (1 | k:g)"
)


@pytest.mark.parametrize("convert", [lambda d: d, pl.from_pandas, lambda d: dict(d.items())])
def test_the_rows_of_the_data_are_made_again(convert):
    first = design(TEXT, FRAME)
    rows = [5, 2, 2, 50]
    again = new_rows(first, convert(FRAME.drop(columns="z").iloc[rows].reset_index(drop=True)))
    np.testing.assert_allclose(again.X, first.rows.X[rows], atol=1e-12)
    np.testing.assert_allclose(again.offset, first.rows.offset[rows])
    for one, other in zip(again.terms, first.rows.terms, strict=True):
        assert one.label == other.label
        assert one.grouping.levels.equals(other.grouping.levels)
        np.testing.assert_array_equal(one.codes, other.codes[rows])
        np.testing.assert_allclose(one.columns, other.columns[rows], atol=1e-12)


def test_no_rows_are_no_rows():
    first = design(TEXT, FRAME)
    none = new_rows(first, FRAME.iloc[:0])
    assert none.X.shape == (0, first.rows.X.shape[1])
    assert [t.columns.shape for t in none.terms] == [(0, t.n_coefs) for t in first.terms]


def test_columns_that_were_left_out_stay_out():
    frame = FRAME.assign(x2=2 * FRAME["x"])
    first = full_rank(design("y ~ x + x2 + z", frame))
    assert first.fixed == ("Intercept", "x", "z")
    assert first.dropped == ("x2",)
    np.testing.assert_array_equal(new_rows(first, frame.iloc[:3]).X, first.rows.X[:3])


def caught(call):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        return call(), [str(one.message) for one in found]


CODINGS = [
    "y ~ a * b",
    "y ~ a:b",
    "y ~ 0 + a:b",
    "y ~ a / b",
    "y ~ C(a, contr.sum) * C(b, contr.helmert)",
    "y ~ a * b * x",
]


@pytest.mark.parametrize("text", CODINGS)
def test_a_combination_that_was_never_observed_is_left_out_in_every_coding(text):
    cells = [(a, b) for a in "pqr" for b in "uvw" if (a, b) != ("r", "w")]
    seen = pd.DataFrame(cells * 4, columns=["a", "b"])
    seen["y"], seen["x"] = np.arange(32.0) ** 2, np.cos(np.arange(32.0))
    every = pd.DataFrame([(a, b, 1.0) for a in "pqr" for b in "uvw"], columns=["a", "b", "x"])
    first = design(text, seen)
    rows, said = caught(lambda: new_rows(first, every.iloc[::-1]))
    assert rows.places.tolist() == list(range(1, 9))
    (message,) = said
    assert message.startswith(
        "nan is predicted for 1 of 9 rows, as the data do not determine the mean: `8`. The "
        "first has a = r, b = w"
    )
    assert caught(lambda: new_rows(first, seen))[1] == []
    assert len(caught(lambda: new_rows(full_rank(first), every))[0].X) == 8


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e9])
@pytest.mark.parametrize(
    ("text", "new", "determined"),
    [
        ("y ~ x + x2", {"x": [1, 1], "x2": [2, 5]}, [True, False]),
        ("y ~ x2 + x", {"x": [1, 1], "x2": [2, 2 + 1e-5]}, [True, False]),
        ("y ~ x + year", {"x": [1, 1], "year": [2010, 2011]}, [True, False]),
        ("y ~ 0 + year", {"year": [2010, 2011]}, [True, True]),
        ("y ~ x + zero", {"x": [1, 1], "zero": [0, 1e-9]}, [True, False]),
        ("y ~ b + I(b^2)", {"b": [1, 3]}, [True, False]),
        ("y ~ x + z + x3", {"x": [1, 1], "z": [2, 2], "x3": [6, 5]}, [True, False]),
        ("y ~ x", {"x": [-1e9, 1e9]}, [True, True]),
    ],
)
def test_a_mean_that_the_data_do_not_determine_is_left_out(text, new, determined, scale):
    rng = np.random.default_rng(5)
    seen = pd.DataFrame({"x": rng.normal(size=30), "z": rng.normal(size=30)})
    seen = seen.assign(x2=2 * seen.x, year=2010, zero=0.0, b=np.arange(30) % 2, y=seen.z + 1)
    seen["x3"] = 3 + seen.x + seen.z
    scaled = [name for name in ("x", "x2", "year") if "x3" not in text]
    seen[scaled] = seen[scaled] * scale
    asked = pd.DataFrame(new).assign(**{n: np.multiply(new[n], scale) for n in scaled if n in new})
    first = design(text, seen)
    found = np.isin([0, 1], caught(lambda: new_rows(first, asked))[0].places)
    assert found.tolist() == determined


def test_rows_with_missing_values_are_left_out_of_new_rows_and_counted():
    first = design("y ~ x + f + (x | g)", FRAME, offset="z")
    new = FRAME.iloc[:6].assign(x=[1, None, 3, 4, 5, 6], z=[1, 2, np.nan, 4, 5, 6])
    new["g"], new["f"] = [*"abcd", None, "a"], pd.Categorical([*"uvwuv", None])
    rows, said = caught(lambda: new_rows(first, new))
    (message,) = said
    assert message == (
        "nan is predicted for 4 of 6 rows, for missing values in `x` (1), `f` (1), `g` (1), "
        "`offset=` (1): `1`, `2`, `4` and `5`."
    )
    assert rows.places.tolist() == [0, 3]
    np.testing.assert_array_equal(rows.spread(np.array([7.0, 8.0]))[[0, 3]], [7, 8])
    assert np.isnan(rows.spread(np.array([7.0, 8.0]))[[1, 2, 4, 5]]).all()
    without = caught(lambda: new_rows(first, new, terms=()))[0]
    assert without.places.tolist() == [0, 3, 4]
    for column in ("x", "f", "g", "z"):
        for nothing in (None, np.nan, *[pd.NA] * (column != "z")):
            none = caught(lambda c=column, v=nothing: new_rows(first, new.assign(**{c: v})))[0]
            assert (none.X.shape[0], len(none.asked)) == (0, 6)


def test_new_levels_of_a_grouping_factor_are_marked():
    first = design("y ~ (1 | g) + (1 | g:k)", FRAME)
    new = FRAME.iloc[:4].assign(g=["a", "new", "b", "a"], k=["s1", "s1", "s9", "s2"])
    combined, plain = new_rows(first, new).terms
    assert plain.codes.tolist() == [0, -1, 1, 0]
    assert (combined.codes >= 0).tolist() == [True, False, False, True]
    assert combined.grouping.levels[combined.codes[[0, 3]]].tolist() == ["a:s1", "a:s2"]


def test_predictions_teach_nothing():
    first = design("y ~ x + (1 | g)", FRAME)
    for new in ({"g": "new"}, {"x": "text"}):
        try:
            new_rows(first, FRAME.assign(**new))
        except DataError:
            assert new == {"x": "text"}
    assert set(first.recipe.memory.levels) == {"g"}
    assert first.recipe.memory.levels["g"].tolist() == list("abcdefgh")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"f": "new"}, "`f` has new levels `new`; the model knows `u`, `v` and `w`."),
        ({"f": 1}, "`f` holds numbers, but held categories when the model was built."),
        ({"x": "a"}, "`x` holds categories, but held numbers when the model was built."),
    ],
)
def test_new_rows_that_do_not_fit(new, message):
    first = design("y ~ x + f + (1 | g)", FRAME)
    with pytest.raises(DataError) as error:
        new_rows(first, FRAME.assign(**new))
    assert str(error.value) == message


def test_a_missing_column_is_named_in_the_formula():
    text = "y ~ x + (1 | g)"
    first = design(text, FRAME)
    new = FRAME[["x", "f"]]
    assert new_rows(first, new, terms=()).terms == ()
    with pytest.raises(FormulaError) as error:
        new_rows(first, new)
    message = "the column `g` is not in the data. Known names: `x`, `f`. Without it "
    message += OF_NO_KNOWN_GROUP
    assert str(error.value) == f"{message}\n    {text}\n                 ^"


def test_an_offset_of_new_rows_has_to_come_with_them():
    new = FRAME.iloc[:2]
    np.testing.assert_array_equal(
        new_rows(design("y ~ x", FRAME, offset="z"), new).offset, new["z"]
    )
    with pytest.raises(DataError) as error:
        new_rows(design("y ~ x", FRAME, offset=FRAME["z"]), new)
    assert str(error.value) == (
        "the model has an array as offset=, which is unknown for new data: give it as a column of "
        "the data, or as offset() in the formula."
    )


def test_own_functions_serve_new_rows_too():
    first = design("y ~ double(x)", FRAME, functions={"double": lambda x: 2 * x})
    np.testing.assert_array_equal(new_rows(first, FRAME.iloc[:3]).X[:, 1], 2 * FRAME["x"][:3])


# ---------------------------------------------------------------------------------------- rank


@pytest.mark.parametrize("scale", [1.0, 1e9, 1e-9])
def test_dependent_columns_are_found_whatever_their_scale(scale):
    rng = np.random.default_rng(1)
    A = rng.normal(size=(30, 4)) * np.array([1, scale, 1, 1 / scale])
    X = np.column_stack(
        [A[:, :2], A[:, 0] - A[:, 1] / scale, A[:, 2:], A.sum(axis=1), np.zeros(30)]
    )
    kept = independent_columns(X)
    assert len(kept) == np.linalg.matrix_rank(X / np.maximum(np.linalg.norm(X, axis=0), 1e-300))
    if scale == 1:
        assert kept == [0, 1, 3, 4]


def test_more_columns_than_rows():
    assert independent_columns(np.random.default_rng(1).normal(size=(3, 5))) == [0, 1, 2]
    assert independent_columns(np.empty((3, 0))) == []


# --------------------------------------------------------------------------------------- speed


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame])
def test_a_million_rows(library):
    rng = np.random.default_rng(1)
    n = 1_000_000
    frame = library(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "g": rng.integers(0, 100_000, size=n),
            "s": rng.choice(np.array([f"level {i}" for i in range(1000)]), size=n),
            "id": np.arange(n),
        }
    )
    start = time.perf_counter()
    found = design("y ~ x + (x | g) + (1 | s) + (1 | id)", frame)
    seconds = time.perf_counter() - start
    assert [t.n_levels for t in found.terms] == [n, len(np.unique(frame["g"])), 1000]
    assert seconds < 15  # a second, on an idle machine


def test_a_description_needs_no_table_of_all_cells():
    rng = np.random.default_rng(1)
    n = 60_000
    frame = pd.DataFrame(
        {"y": rng.normal(size=n), "user": rng.permutation(n) // 2, "item": rng.permutation(n) // 3}
    )
    model = rf.Model("y ~ (1 | user) + (1 | item)", frame)
    assert "of 600000000 combinations occur" in repr(model)
