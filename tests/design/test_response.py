"""The shapes of a response, what each kind of family takes, and what is said to all else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from ranef.design.design import build_design
from ranef.design.new_data.new_rows import new_rows
from ranef.design.response import precisions_of
from ranef.errors import DataError, DataWarning, FormulaError
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula

BERNOULLI = replace(BINOMIAL, name="bernoulli", support="binary")
GAMMA = replace(GAUSSIAN, name="gamma", support="positive")
BETA = replace(BINOMIAL, name="beta", support="unit", parameters=("phi",))

N = 12
FRAME = pd.DataFrame(
    {
        "dead": [0, 1, 2, 3, 0, 4, 1, 0, 2, 5, 1, 0],
        "size": [2, 3, 4, 3, 1, 8, 4, 5, 2, 6, 7, 1],
        "use": list("NYNYNNYYNYNY"),
        "x": np.linspace(-1, 1, N),
        "g": np.repeat(list("abcd"), 3),
    },
    index=[f"r{i}" for i in range(N)],
)
FRAME["alive"] = FRAME["size"] - FRAME["dead"]
FRAME["p"] = FRAME["dead"] / FRAME["size"]
USED = (FRAME["use"] == "Y").to_numpy(float)


def design(response, family=BINOMIAL, frame=FRAME, **options):
    formula = read_formula(f"{response} ~ x + (1 | g)")
    return build_design(formula, frame, family=family, **options)


def refusal(response, family=BINOMIAL, frame=FRAME, **options):
    with pytest.raises(DataError) as error:
        design(response, family, frame, **options)
    return str(error.value)


# ---------------------------------------------------------------------------- binomial responses


@pytest.mark.parametrize(
    ("response", "options", "label"),
    [
        ("cbind(dead, alive)", {}, "cbind(dead, alive)"),
        ("cbind(dead, size - dead)", {}, "cbind(dead, size - dead)"),
        ("p", {"weights": "size"}, "p"),
        ("dead / size", {"weights": "size"}, "dead/size"),
        ("I(dead / size)", {"weights": FRAME["size"].to_numpy()}, "I(dead/size)"),
    ],
)
@pytest.mark.parametrize("convert", [lambda d: d, pl.from_pandas], ids=["pandas", "polars"])
def test_successes_among_trials_in_all_ways_of_writing_them(response, options, label, convert):
    found = design(response, frame=convert(FRAME), **options)
    np.testing.assert_array_equal(found.rows.y, FRAME["dead"] / FRAME["size"])
    np.testing.assert_array_equal(found.rows.weights, FRAME["size"])
    assert found.rows.y.dtype == found.rows.weights.dtype == np.float64
    assert (found.response, found.success) == (label, "")


def test_proportions_of_single_precision_and_rounded_ones_become_exact():
    for p in (FRAME["p"].astype(np.float32), FRAME["p"].round(8)):
        found = design("p", frame=FRAME.assign(p=p), weights="size")
        np.testing.assert_array_equal(found.rows.y, FRAME["dead"] / FRAME["size"])


LABELS = [
    ("use", "use == 'Y'", {}),
    ("factor(use)", "use == 'Y'", {}),
    ("use", "use == 'N'", {"use": pd.Categorical(FRAME["use"], categories=["Y", "N"])}),
    ("use", "use == 'Y'", {"use": pd.Categorical(FRAME["use"], categories=["A", "N", "Y", "Z"])}),
    ("use", "use == 'aye'", {"use": FRAME["use"].map({"N": "aa", "Y": "aye"})}),
    ("factor(use)", "use == 2", {"use": USED.astype(int) + 1}),
    ("factor(use)", "use == True", {"use": USED == 1}),
]


@pytest.mark.parametrize("family", [BINOMIAL, BERNOULLI], ids=lambda f: f.name)
@pytest.mark.parametrize(("response", "success", "columns"), LABELS)
def test_the_second_of_two_levels_is_the_success(family, response, success, columns):
    found = design(response, family, FRAME.assign(**columns))
    np.testing.assert_array_equal(found.rows.y, 1 - USED if success.endswith("'N'") else USED)
    np.testing.assert_array_equal(found.rows.weights, np.ones(N))
    assert (found.response, found.success) == (response, success)


@pytest.mark.parametrize("family", [BINOMIAL, BERNOULLI, POISSON, GAUSSIAN], ids=lambda f: f.name)
@pytest.mark.parametrize(
    ("response", "columns"),
    [
        ("use", {"use": USED}),
        ("use", {"use": USED.astype(np.uint8)}),
        ("use", {"use": USED == 1}),
        ("use", {"use": pd.array(USED == 1, dtype="boolean")}),
        ("use", {"use": pd.array(USED.astype(int), dtype="Int64")}),
        ("use", {"use": pd.Series(list(USED == 1), dtype=object, index=FRAME.index)}),
        ("use == 'Y'", {}),
        ("(use == 'Y')", {}),
        ("I(use == 'Y')", {}),
        ("use != 'N'", {}),
        ("(dead > 0)", {"dead": USED * 3}),
    ],
)
def test_truth_values_and_0_and_1_are_numbers_to_every_family_that_has_them(
    family, response, columns
):
    found = design(response, family, FRAME.assign(**columns))
    np.testing.assert_array_equal(found.rows.y, USED)
    np.testing.assert_array_equal(found.rows.weights, np.ones(N))
    assert found.success == ""


def test_rows_with_missing_parts_of_the_response_are_left_out():
    frame = FRAME.assign(size=FRAME["size"].mask(FRAME.index == "r3"))
    with pytest.warns(DataWarning, match=r"1 of 12 rows left out for missing values in `size` \(1"):
        found = design("cbind(dead, size - dead)", frame=frame)
    np.testing.assert_array_equal(found.rows.y, FRAME["p"].drop("r3"))
    frame = FRAME.assign(use=pd.array(USED == 1, dtype="boolean"))
    frame.loc["r2", "use"] = pd.NA
    with pytest.warns(DataWarning, match=r"1 of 12 rows left out for missing values in `use` \(1"):
        assert design("use", frame=frame).n_obs == N - 1


@pytest.mark.parametrize("response", ["cbind(dead, size - dead)", "use", "I(dead / size)"])
def test_new_rows_need_no_response(response):
    built = design(response, weights="size" if "/" in response else None)
    found = new_rows(built, FRAME[["x", "g"]].iloc[:3])
    np.testing.assert_array_equal(found.X, built.rows.X[:3])


def test_the_prior_weights_of_other_families_stay_what_they_are():
    weights = np.linspace(0.1, 2.3, N)
    for response, family in (
        ("dead", POISSON),
        ("size", GAMMA),
        ("use", BERNOULLI),
        ("x", GAUSSIAN),
    ):
        found = build_design(read_formula(f"{response} ~ 1"), FRAME, family=family, weights=weights)
        np.testing.assert_array_equal(found.rows.weights, weights)


def test_the_data_sets_as_their_users_write_them():
    cbpp = rf.load_dataset("cbpp")
    formula = read_formula("cbind(incidence, size - incidence) ~ period + (1 | herd)")
    found = build_design(formula, cbpp, family=BINOMIAL)
    assert (found.rows.y * found.rows.weights).sum() == cbpp["incidence"].sum() == 99
    women = rf.load_dataset("Contraception")
    found = build_design(read_formula("use ~ age + (1 | district)"), women, family=BINOMIAL)
    assert (found.success, found.rows.y.sum()) == ("use == 'Y'", 759.0)


# ------------------------------------------------------------------------- what cannot be taken

TWO_COUNTS = "takes counts: of successes, and of failures (not of trials)."
SHAPES = "response is 0 or 1, a column of two levels (of two numbers: `factor(y)`)"
BINOMIAL_SHAPES = (
    f"A binomial {SHAPES}, `cbind(successes, failures)`, or a proportion with its trials as "
    "`weights=`."
)
NEEDS_TRIALS = (
    "A proportion needs its number of trials: give them as `weights=`, or write "
    '`cbind(successes, failures)`. A proportion that is not one of trials is for family="beta".'
)
ARE_TRIALS = (
    "For the binomial family they are numbers of trials. Weights of another kind, on 0 and 1, are "
    'for family="bernoulli".'
)
COUNTS = "The poisson family takes counts: 0, 1, 2 and so on."
RATES = " A rate is a count with an `offset(log(exposure))`."


def with_values(column, values):
    frame = FRAME.assign(y=1.0, n=4.0)
    frame[column] = frame[column].astype(float)
    frame.iloc[1 : 1 + len(values), frame.columns.get_loc(column)] = values
    return frame


@pytest.mark.parametrize(
    ("response", "column", "values", "message"),
    [
        (
            "cbind(dead, alive)",
            "dead",
            [-1.0],
            f"`dead` is negative in 1 of 12 rows: `r1`. `cbind(dead, alive)` {TWO_COUNTS}",
        ),
        (
            "cbind(dead, size - dead)",
            "dead",
            [7, 8, 9],
            (
                "`size - dead` is negative in 3 of 12 rows: `r1`, `r2` and `r3`. "
                f"`cbind(dead, size - dead)` {TWO_COUNTS}"
            ),
        ),
        (
            "cbind(dead, alive)",
            "alive",
            [1.5] * 7,
            (
                "`alive` is not a whole number in 7 of 12 rows: `r1`, `r2`, `r3`, `r4`, `r5` and 2 "
                f"more. `cbind(dead, alive)` {TWO_COUNTS}"
            ),
        ),
        (
            "cbind(y, n - y)",
            "n",
            [1, 1, 1],
            None,
        ),
        (
            "cbind(0 * y, n)",
            "n",
            [3, 0, 0],
            (
                "`cbind(0 * y, n)` is zero in both counts in 2 of 12 rows: `r2` and `r3`. Leave "
                "out the rows without trials."
            ),
        ),
        (
            "y",
            "y",
            [0.5, 0.0, 0.1],
            "`y` is neither 0 nor 1 in 2 of 12 rows: `r1` and `r3`. " + NEEDS_TRIALS,
        ),
        (
            "y",
            "y",
            [2, -0.1],
            "`y` is not between 0 and 1 in 2 of 12 rows: `r1` and `r2`. " + BINOMIAL_SHAPES,
        ),
        ("y", "y", [0, 2], f"`y` is not between 0 and 1 in 1 of 12 rows: `r2`. {BINOMIAL_SHAPES}"),
        (
            "log(y)",
            "y",
            [0.0],
            (
                "`log(y)` is infinite or not a number in 1 of 12 rows: `r1`. Correct these values "
                "or leave the rows out."
            ),
        ),
    ],
)
def test_values_that_are_no_binomial_response(response, column, values, message):
    frame = with_values(column, values)
    if message is None:
        assert design(response, frame=frame).rows.weights[:4].tolist() == [4, 1, 1, 1]
    else:
        assert refusal(response, frame=frame) == message


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "n",
            [2.5, 3, 1.5],
            "weights= is not a whole number in 2 of 12 rows: `r1` and `r3`. " + ARE_TRIALS,
        ),
        (
            "y",
            [0.5, 0.3, 0.25, 0.7],
            (
                "`y` times its weights= is not a whole number in 2 of 12 rows: `r2` and "
                "`r4`. weights= are the numbers of trials, and successes come in whole numbers."
            ),
        ),
        ("y", [1.25], f"`y` is not between 0 and 1 in 1 of 12 rows: `r1`. {BINOMIAL_SHAPES}"),
        (
            "n",
            [0, -2],
            (
                "weights= must be positive; zero or negative in 2 of 12 rows: `r1` and `r2`. "
                "Leave out the rows that should not count."
            ),
        ),
    ],
)
def test_trials_that_do_not_fit_the_proportions(column, values, message):
    assert refusal("y", frame=with_values(column, values), weights="n") == message


def test_trials_given_twice():
    assert refusal("cbind(dead, alive)", weights="size") == (
        "`cbind(dead, alive)` and weights= both give the numbers of trials: leave out weights=."
    )


@pytest.mark.parametrize(
    "family", [GAUSSIAN, POISSON, BERNOULLI, GAMMA, BETA], ids=lambda f: f.name
)
def test_two_counts_are_for_the_binomial_family(family):
    with pytest.raises(FormulaError) as error:
        design("cbind(dead, alive)", family)
    assert str(error.value) == (
        f'`cbind` makes a response for family="binomial"; the {family.name} family takes one '
        "column.\n"
        "    cbind(dead, alive) ~ x + (1 | g)\n"
        "    ^^^^^^^^^^^^^^^^^^"
    )


@pytest.mark.parametrize("call", ["cbind(dead)", "cbind(dead, alive, size)", "cbind(dead, n=size)"])
def test_two_counts_are_two(call):
    with pytest.raises(FormulaError) as error:
        design(call)
    assert str(error.value) == (
        "`cbind` takes two counts: of successes and of failures.\n"
        f"    {call} ~ x + (1 | g)\n    {'^' * len(call)}"
    )


def test_a_count_of_labels_and_of_many_columns():
    assert refusal("cbind(use, dead)") == ("`use` is not numeric: it has the levels `N` and `Y`.")
    assert refusal("cbind(poly(size, 2), dead)") == "`poly(size, 2)` has 2 columns, expected one."
    assert refusal("poly(size, 2)", GAUSSIAN) == (
        "the response `poly(size, 2)` has 2 columns, expected one."
    )


@pytest.mark.parametrize("family", [BINOMIAL, BERNOULLI], ids=lambda f: f.name)
def test_labels_that_are_not_two(family):
    assert refusal("f", family, FRAME.assign(f=["u", "v", "w"] * 4)) == (
        f"`f` has 3 levels, `u`, `v` and `w`; the {family.name} family takes two: `(f == 'w')` "
        "sets one of them against the others."
    )
    assert refusal("factor(f)", family, FRAME.assign(f=[1, 2, 3] * 4)) == (
        f"`factor(f)` has 3 levels, `1`, `2` and `3`; the {family.name} family takes two: "
        "`(f == 3)` sets one of them against the others."
    )
    assert refusal("use", family, FRAME.assign(use="Y")) == (
        "`use` has one level only, `Y`, which may be success or failure: write `(use == 'Y')` or "
        "`(use != 'Y')`."
    )
    assert design("use == 'Y'", family, FRAME.assign(use="Y")).rows.y.tolist() == [1.0] * N


@pytest.mark.parametrize("family", [GAUSSIAN, POISSON, GAMMA, BETA], ids=lambda f: f.name)
def test_labels_for_a_family_of_numbers(family):
    assert refusal("use", family) == (
        f"`use` is not numeric: it has the levels `N` and `Y`. The {family.name} family takes "
        "numbers; two classes, such as `(use == 'Y')`, are for family=\"binomial\"."
    )


@pytest.mark.parametrize(
    ("family", "values", "message"),
    [
        (POISSON, [-1, 2, -3], f"`y` is negative in 2 of 12 rows: `r1` and `r3`. {COUNTS}"),
        (POISSON, [0.5, 2], "`y` is not a whole number in 1 of 12 rows: `r1`. " + COUNTS + RATES),
        (
            GAMMA,
            [0, 2, -1],
            (
                "`y` is zero or negative in 2 of 12 rows: `r1` and `r3`. The gamma family takes "
                "positive numbers. Whether there is anything at all can be modelled apart: "
                '`(y > 0)` with family="binomial".'
            ),
        ),
        (
            BETA,
            [0.5] * 11,
            (
                "`y` is not strictly between 0 and 1 in 1 of 12 rows: `r0`. The beta family takes "
                "numbers above 0 and below 1. A proportion of a number of trials is for "
                'family="binomial".'
            ),
        ),
        (
            BERNOULLI,
            [0.5, 2],
            "`y` is neither 0 nor 1 in 2 of 12 rows: `r1` and `r2`. A bernoulli " + SHAPES + ".",
        ),
    ],
)
def test_numbers_outside_of_a_support(family, values, message):
    assert refusal("y", family, with_values("y", values)) == message


@pytest.mark.parametrize(
    ("family", "values"),
    [
        (POISSON, [0, 1, 7, 1e9]),
        (POISSON, [3 - 1e-12, 3 + 1e-12]),
        (GAMMA, [1e-9, 2.5]),
        (BETA, [0.5, 1e-9, *[0.3] * 9]),
        (GAUSSIAN, [-2.5, 0.0]),
    ],
)
def test_numbers_within_a_support(family, values):
    frame = with_values("y", values)
    frame.iloc[0, frame.columns.get_loc("y")] = 0.5 if family is BETA else 1
    found = design("y", family, frame)
    np.testing.assert_allclose(found.rows.y, frame["y"], rtol=1e-9)
    if family is POISSON:
        assert (found.rows.y == np.round(found.rows.y)).all()


def test_an_offset_of_no_exposure():
    frame = FRAME.assign(exposure=[0.0, *[2.0] * 11])
    formula = read_formula("dead ~ x + offset(log(exposure))")
    with pytest.raises(DataError) as error:
        build_design(formula, frame, family=POISSON)
    assert str(error.value) == (
        "`log(exposure)` is infinite or not a number in 1 of 12 rows: `r0`. Correct these values "
        "or leave the rows out."
    )


# --------------------------------------------------------------------- known standard errors

ERRORS = pd.DataFrame({"y": [1.0, 2, 4, 3], "s": [0.5, 1, 2, 0.25], "t": list("abcd")})


def test_precisions_are_those_of_the_errors():
    for se in ("s", ERRORS["s"], ERRORS["s"].tolist()):
        np.testing.assert_allclose(precisions_of(ERRORS, se, None, GAUSSIAN), [4, 1, 0.25, 16])
    assert np.isnan(precisions_of(ERRORS, [1, np.nan, 1, 1], None, GAUSSIAN)[1])


REMEDY = "A standard error is a positive number; of a variance, it is the root."
BAD = "se= is zero, negative or infinite in"


@pytest.mark.parametrize(
    ("se", "weights", "message"),
    [
        ([1, 0, -1, 1], None, f"{BAD} 2 of 4 rows: `1` and `2`. {REMEDY}"),
        ([1, np.inf, 1, 1], None, f"{BAD} 1 of 4 rows: `1`. {REMEDY}"),
        ("x", None, "se='x' is not a column of the data. Known names: `y`, `s`, `t`."),
        ("t", None, "se= is not numeric."),
        ([1, 2], None, "se= has shape (2,), expected (4,)."),
        ([1e-40] * 4, None, "se= has values of the order of 1e-40: rescale it."),
        ("s", "s", "se= and weights= are both given: known standard errors are weights."),
    ],
)
def test_what_are_no_standard_errors(se, weights, message):
    with pytest.raises(DataError) as caught:
        precisions_of(ERRORS, se, weights, GAUSSIAN)
    assert str(caught.value) == message


def test_standard_errors_are_of_a_normal_response():
    with pytest.raises(DataError) as caught:
        precisions_of(ERRORS, "s", None, POISSON)
    assert str(caught.value) == (
        "se= are standard errors of the response of a Gaussian model with identity link, not of "
        "the poisson family with log link."
    )


def test_a_column_with_spaces_is_written_in_backticks():
    data = pd.DataFrame({"a b": ["no", "yes", "?"] * 4, "x": range(12)})
    with pytest.raises(DataError) as caught:
        rf.Model("`a b` ~ x", data)
    assert "such as `(`a b` == 'yes')`" in str(caught.value)
