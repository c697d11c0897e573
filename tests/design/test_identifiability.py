"""What each family can and cannot estimate, and the full text of what is said."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design import identifiability
from ranef.design.design import build_design
from ranef.errors import DataError, DataWarning
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import IDENTITY, LOG
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula

BERNOULLI = replace(BINOMIAL, name="bernoulli", support="binary")
NEGATIVE_BINOMIAL = replace(POISSON, name="negative_binomial", parameters=("shape",))
GAMMA = replace(GAUSSIAN, name="gamma", link=LOG, support="positive")
BETA = replace(BINOMIAL, name="beta", support="unit", parameters=("phi",))
DISCRETE = [BINOMIAL, BERNOULLI, POISSON, NEGATIVE_BINOMIAL]
ALL = [*DISCRETE, GAUSSIAN, GAMMA, BETA]

N = 24
RNG = np.random.default_rng(3)
FRAME = pd.DataFrame(
    {
        "y": RNG.integers(0, 2, N).astype(float),
        "k": RNG.poisson(2, N),
        "n": 5,
        "x": RNG.normal(size=N),
        "z": RNG.normal(size=N),
        "g": np.repeat(list("abcd"), 6),
        "row": np.arange(N),
        "late": (np.arange(N) > 11) * 1.0,
    }
)
BAYESIAN = 'a Bayesian fit, model.fit("mcmc"), can go on with proper priors.'
PENALISED = 'with proper priors model.fit("map") and model.fit("mcmc") can go on.'


def named(family):
    return family.name


def design(text, family, frame=FRAME, **options):
    return build_design(read_formula(text), frame, family=family, **options)


def refusal(check, *args):
    with pytest.raises(DataError) as error:
        check(*args)
    return str(error.value)


def warned(built, family, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        identifiability.warn_posterior(built, family, **options)
    assert all(w.category is DataWarning for w in caught)
    return [str(w.message) for w in caught]


# ----------------------------------------------------------------------------- the response


@pytest.mark.parametrize("family", DISCRETE, ids=named)
def test_a_constant_response_of_counts_or_classes_is_a_response(family):
    identifiability.check_response(design("y ~ x", family, FRAME.assign(y=1)), family)


@pytest.mark.parametrize("family", [GAUSSIAN, GAMMA, BETA], ids=named)
def test_a_constant_response_of_measurements(family):
    built = design("y ~ x", family, FRAME.assign(y=0.25))
    message = "the response `y` is constant (0.25 in every row)."
    assert refusal(identifiability.check_response, built, family) == message


@pytest.mark.parametrize("family", [GAUSSIAN, GAMMA, BETA], ids=named)
def test_a_constant_response_with_an_offset_that_varies_is_a_response(family):
    built = design("y ~ x + offset(z)", family, FRAME.assign(y=0.25))
    identifiability.check_response(built, family)


def test_an_offset_is_taken_from_the_response_on_its_own_scale_only():
    frame = FRAME.assign(y=FRAME["x"].abs() + 1, o=FRAME["x"].abs() + 1)
    built = design("y ~ z + offset(o)", GAMMA, frame)
    identifiability.check_response(built, GAMMA)
    message = "the response `y` minus its offset is constant."
    for family in (GAUSSIAN, replace(GAMMA, link=IDENTITY)):
        assert refusal(identifiability.check_response, built, family) == message


LEVELS = FRAME.assign(y=0.1 + 0.2 * FRAME["g"].map({"a": 0, "b": 1, "c": 2, "d": 3}))


@pytest.mark.parametrize("family", [GAMMA, BETA], ids=named)
@pytest.mark.parametrize("random", ["(1 | g)", "(1 + x | g)", "(1 | row) + (1 | g)"])
def test_a_response_constant_within_groups_leaves_no_scale(family, random):
    scale = replace(family, parameters=family.parameters or ("sigma",))
    found = refusal(identifiability.check_scale, design(f"y ~ 1 + {random}", family, LEVELS), scale)
    assert found == (
        "the model fits the response `y` exactly: it is constant within the levels of `g`, and "
        f"there is no residual variation to estimate {scale.parameters[0]} from. Take one row of "
        "each level, without random effects of `g`."
    )


@pytest.mark.parametrize(
    "formula", ["y ~ x + (0 + x | g)", "y ~ (1 | row)", "y ~ offset(z) + (1 | g)", "z ~ (1 | g)"]
)
def test_a_response_that_random_intercepts_do_not_fit_has_a_scale(formula):
    identifiability.check_scale(design(formula, GAUSSIAN, LEVELS), GAUSSIAN)


def test_counts_constant_within_groups_have_no_scale_to_lose():
    identifiability.check_scale(
        design("y ~ (1 | g)", POISSON, LEVELS.assign(y=1)), NEGATIVE_BINOMIAL
    )


# ----------------------------------------------------------------- what cannot be identified


@pytest.mark.parametrize("family", ALL, ids=named)
def test_one_level_and_dependent_coefficients_are_refused_for_all_families(family):
    frame = FRAME.assign(one="a", twice=2 * FRAME["x"])
    frame["y"] = frame["y"] * 0.5 + 0.25 if family is BETA else frame["y"] * (family is not GAMMA)
    frame["y"] += family is GAMMA
    built = design("y ~ x + (1 | one)", family, frame)
    assert refusal(identifiability.check_identified, built, family) == (
        "the grouping factor `one` has one level only, `a`: no variance between levels can be "
        f"estimated; {BAYESIAN}"
    )
    assert "`one` has one level only: its sd is informed by the prior alone." in warned(
        built, family
    )
    built = design("y ~ x + (x + twice | g)", family, frame)
    assert refusal(identifiability.check_identified, built, family) == (
        "(1 + x + twice | g): `twice` is zero or a combination of the coefficients before it, so "
        "that their variances cannot be told apart: leave it out."
    )
    built = design("y ~ x + (0 + zero | g)", family, frame.assign(zero=0.0))
    message = "(0 + zero | g): `zero` is zero in every row: leave it out."
    assert refusal(identifiability.check_varies, built) == message


@pytest.mark.parametrize("family", [POISSON, NEGATIVE_BINOMIAL], ids=named)
def test_a_random_effect_of_every_row_is_fine_for_counts(family):
    for text in ("k ~ x + (1 | row)", "k ~ x + (x | row)", "k ~ x + (1 | g) + (1 | row)"):
        built = design(text, family)
        identifiability.check_identified(built, family)
        assert warned(built, family) == []


def test_a_random_effect_of_every_row_is_fine_for_numbers_of_trials():
    built = design("cbind(k, 20 - k) ~ x + (1 | row)", BINOMIAL)
    identifiability.check_identified(built, BINOMIAL)
    assert warned(built, BINOMIAL) == []


def test_rows_of_several_trials_that_all_end_alike_have_a_variance():
    built = design("y ~ x + (1 | row)", BINOMIAL, weights="n")
    identifiability.check_identified(built, BINOMIAL)
    assert warned(built, BINOMIAL) == []


@pytest.mark.parametrize("family", [BINOMIAL, BERNOULLI], ids=named)
def test_a_random_effect_of_every_trial_says_nothing(family):
    for text, term in (("(1 | row)", "(1 | row)"), ("(x | row)", "(1 + x | row)")):
        built = design(f"y ~ x + {text}", family)
        said = f"{term} has one trial a level, which says nothing of how much levels vary"
        assert refusal(identifiability.check_identified, built, family) == f"{said}; {BAYESIAN}"
        assert warned(built, family) == [f"{said}: the prior of their sd does."]
    pairs = FRAME.assign(row=FRAME["row"] // 2)
    for text, frame in (("(x | row)", pairs), ("(0 + x | row)", FRAME)):
        built = design(f"y ~ x + {text}", family, frame)
        identifiability.check_identified(built, family)
        assert warned(built, family) == []


@pytest.mark.parametrize(
    ("columns", "weights", "can"),
    [
        ([[1, 0], [0, 1]], (1, 1), True),  # cells
        ([[1, 0], [0, 1]], (1, 3), True),  # each with its own variance
        ([[1, -1], [1, 1]], (1, 1), True),  # equal variances of sum and difference
        ([[1, -1], [1, 1]], (1, 3), False),
        ([[1, 0], [1, 1]], (1, 1), False),  # the second row varies more
        ([[1, 0], [1, 1], [1, 2]], (1, 1, 1), False),  # more rows than coefficients
        ([[2.0]], (1,), True),
    ],
)
def test_independent_effects_that_are_as_many_as_the_rows(columns, weights, can):
    """They are told from residuals unless a diagonal C has Z C Z' = W^-1 in every level."""
    m, size = 12, len(columns)
    names = [f"c{j}" for j in range(len(columns[0]))]
    frame = pd.DataFrame(np.tile(np.array(columns, float), (m, 1)), columns=names)
    frame["g"], frame["w"] = np.repeat(np.arange(m), size), np.tile(np.array(weights, float), m)
    frame["y"] = np.random.default_rng(1).normal(size=len(frame))
    frame = frame.sample(frac=1, random_state=1)
    text = f"y ~ 1 + (0 + {' + '.join(names)} || g)"
    built = rf.Model(text, frame, weights="w").engine.data.estimable
    if can:
        said = refusal(identifiability.check_identified, built, GAUSSIAN)
        assert "their variance and the residual variance cannot be told apart" in said
    else:
        identifiability.check_identified(built, GAUSSIAN)


def test_slopes_of_pairs_are_the_moments_of_the_pairs():
    """V has a + s, a and a + b + s as elements: three for three variances."""
    rng, m = np.random.default_rng(1), 200
    frame = pd.DataFrame({"p": np.repeat(np.arange(m), 2), "x": np.tile([0.0, 1.0], m)})
    b = rng.normal(size=(m, 2)) * [2.0, 1.5]
    frame["y"] = b[frame["p"], 0] + b[frame["p"], 1] * frame["x"] + rng.normal(size=2 * m)
    fit = rf.fit("y ~ x + (x || p)", frame)
    V = np.cov(frame["y"].to_numpy().reshape(m, 2).T)
    expected = [V[0, 1], V[1, 1] - V[0, 0], V[0, 0] - V[0, 1]]
    found = [*fit.varcorr().sd["p"] ** 2, fit.sigma**2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("family", [GAUSSIAN, GAMMA], ids=named)
def test_a_random_effect_of_every_row_is_a_residual_for_families_with_sigma(family):
    built = design("x ~ z + (1 | row)", family, FRAME.assign(x=FRAME["x"].abs()))
    assert refusal(identifiability.check_identified, built, family) == (
        "(1 | row) has 24 random effects (24 levels of `row` x 1) for 24 rows, so that their "
        f"variance and the residual variance cannot be told apart; {BAYESIAN}"
    )


@pytest.mark.parametrize(
    ("family", "random", "message"),
    [
        (GAUSSIAN, "", "3 fixed effects for 3 rows leave nothing to estimate sigma from."),
        (GAMMA, " + (1 | g)", "3 fixed effects for 3 rows leave nothing to estimate sigma from."),
        (
            POISSON,
            " + (1 | g)",
            (
                "3 fixed effects for 3 rows fit every row by themselves and leave nothing to "
                "estimate the variance of (1 | g) from."
            ),
        ),
        (
            NEGATIVE_BINOMIAL,
            "",
            (
                "3 fixed effects for 3 rows fit every row by themselves and leave nothing to "
                "estimate shape from."
            ),
        ),
        (
            BETA,
            " + (1 | g)",
            (
                "3 fixed effects for 3 rows fit every row by themselves and leave nothing to "
                "estimate phi and the variance of (1 | g) from."
            ),
        ),
    ],
)
def test_as_many_fixed_effects_as_rows(family, random, message):
    frame = FRAME.iloc[[0, 6, 7]].assign(y=[0.5, 0.25, 0.3] if family is BETA else [1, 2, 3])
    built = design(f"y ~ x + z{random}", family, frame)
    assert refusal(identifiability.check_identified, built, family) == message


def test_a_saturated_model_without_more_to_estimate_is_a_model():
    frame = FRAME.iloc[:3].assign(y=[1, 2, 3])
    identifiability.check_identified(design("y ~ x + z", POISSON, frame), POISSON)
    trials = design("I(y / 4) ~ x + z", BINOMIAL, frame, weights=[4, 4, 4])
    identifiability.check_identified(trials, BINOMIAL)


# ---------------------------------------------------------------------------------- separation


@pytest.mark.parametrize("text", ["y ~ x", "y ~ x + (1 | g)", "y ~ 0 + (1 | g)"])
@pytest.mark.parametrize(("family", "y"), [(f, y) for f in DISCRETE for y in (0, 1)])
def test_a_response_at_one_end(text, family, y):
    built = design(text, family, FRAME.assign(y=y))
    if y == 1 and family.support == "counts":
        identifiability.check_separation(built, family)
        assert warned(built, family) == []
        return
    assert refusal(identifiability.check_separation, built, family) == (
        f"the response `y` is {y} in every row, and the likelihood has no maximum: it rises "
        f"without end as the mean approaches that value; {PENALISED}"
    )
    assert warned(built, family) == [
        f"all 24 rows of the response `y` are {y}: how near to that its mean is, the priors say."
    ]


def test_trials_that_all_failed():
    built = design("cbind(0*k, n) ~ x + (1 | g)", BINOMIAL)
    found = refusal(identifiability.check_separation, built, BINOMIAL)
    assert found.startswith("the response `cbind(0 * k, n)` is 0 in every row, and the")


def test_successes_alone_without_an_intercept_are_a_model():
    """As conditional logistic regression of pairs has it: the columns are differences."""
    built = design("y ~ 0 + x", BINOMIAL, FRAME.assign(y=1))
    identifiability.check_separation(built, BINOMIAL)
    assert warned(built, BINOMIAL) == []


@pytest.mark.parametrize("family", [BINOMIAL, BERNOULLI], ids=named)
def test_columns_that_separate(family):
    built = design("late ~ x + row + (1 | g)", family)
    assert refusal(identifiability.check_separation, built, family) == (
        "the fixed effects separate the values of the response `late`: the likelihood has no "
        "maximum, but rises without end with the coefficients of `row`; leave out what separates, "
        f"or {PENALISED}"
    )
    assert warned(built, family) == [
        (
            "the fixed effects separate the values of the response `late`: how large the "
            "coefficients of `row` are, the priors say."
        )
    ]


def test_zeros_that_separate_counts():
    frame = FRAME.assign(k=FRAME["k"].where(FRAME["g"] != "b", 0) + (FRAME["g"] != "b"))
    built = design("k ~ x + g", POISSON, frame)
    found = refusal(identifiability.check_separation, built, POISSON)
    assert "rises without end with the coefficients of `g[T.b]`; leave out" in found
    identifiability.check_separation(design("k ~ x + (1 | g)", POISSON, frame), POISSON)
    identifiability.check_separation(design("k ~ x + g", GAUSSIAN, frame), GAUSSIAN)


def test_columns_that_depend_on_others_do_not_hide_what_separates():
    frame = FRAME.assign(twice=2 * FRAME["x"])
    assert warned(design("late ~ x + twice + row", BINOMIAL, frame), BINOMIAL) == [
        (
            "the fixed effects are linearly dependent (`twice` is a combination of the columns "
            "before it): the data say something about their sums only, the priors tell them apart."
        ),
        (
            "the fixed effects separate the values of the response `late`: how large the "
            "coefficients of `row` are, the priors say."
        ),
    ]


def test_levels_of_one_value_each_are_warned_of():
    data = {"y": [0, 0, 1, 1, 0, 0, 1, 1, 1, 1], "g": list("aabbccddee")}
    model = rf.Model("y ~ (1 | g)", data, family="binomial")
    message = (
        "every level of `g` has failures only, or successes only: the data set no limit to how "
        "much the levels vary, and the estimated sd may be endless; with proper priors "
        'model.fit("map") and model.fit("mcmc") can go on.'
    )
    with pytest.warns(DataWarning) as caught:
        model.fit()
    assert [str(w.message) for w in caught if w.category is DataWarning] == [message]
    mixed = rf.Model("y ~ (1 | g)", data | {"y": [0, 1, 1, 1, 0, 0, 1, 1, 1, 0]}, family="binomial")
    mixed.fit()
