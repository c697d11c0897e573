"""Who gets which prior."""

import re

import numpy as np
import pandas as pd
import pytest

from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.errors import DataError, FitError
from ranef.families.binomial import BINOMIAL
from ranef.families.names import find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
    Uniform,
)

AT_MEAN = "at the mean of the predictors"
BERNOULLI, NEGATIVE_BINOMIAL = find_family("bernoulli"), find_family("negative_binomial")


def design(text, data, **options):
    return build_design(read_formula(text), data, **options)


@pytest.fixture(scope="module")
def sleep():
    return design("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


def late_sleep():
    return load_dataset("sleepstudy").assign(Days=lambda d: d["Days"] + 1990)


@pytest.fixture(scope="module")
def late():
    return design("Reaction ~ Days + (Days | Subject)", late_sleep())


@pytest.fixture(scope="module")
def crossed():
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {
            "y": rng.normal(10, 2, 60),
            "x": rng.normal(50, 5, 60),
            "f": rng.choice(["a", "b", "c"], 60),
            "g": rng.choice(list("pqrst"), 60),
            "h": rng.choice(list("uvw"), 60),
        }
    )
    return design("y ~ x + f + (x + f | g) + (x || h)", data)


def as_dict(priors):
    return {(row.parameter, row.coef): row.prior for row in priors.rows()}


# Defaults


def test_defaults_of_sleepstudy(sleep):
    y, days = load_dataset("sleepstudy")["Reaction"], load_dataset("sleepstudy")["Days"]
    sy, sx = y.std(), days.std()
    rows = [(r.parameter, r.coef, r.prior, r.note) for r in resolve(sleep).rows()]
    assert [row[:2] + row[3:] for row in rows] == [
        ("beta", "Intercept", AT_MEAN),
        ("beta", "Days", ""),
        ("sigma", "", ""),
        ("sd_Subject", "Intercept", ""),
        ("sd_Subject", "Days", ""),
        ("corr_Subject", "", ""),
    ]
    expected = [
        Normal(y.mean(), 2.5 * sy),
        Normal(0, 2.5 * sy / sx),
        HalfStudentT(3, sy),
        HalfStudentT(3, sy),
        HalfStudentT(3, sy / sx),
        LKJ(2),
    ]
    for (*_, prior, _), wanted in zip(rows, expected, strict=True):
        assert type(prior) is type(wanted)
        assert vars(prior) == pytest.approx(vars(wanted), rel=1e-12)


def test_the_defaults_by_name(sleep):
    priors = resolve(sleep, "default")
    assert priors == resolve(sleep)
    assert priors.intercept == priors.beta[0]
    assert priors.slopes == {"Days": priors.beta[1]}
    assert priors.centred
    np.testing.assert_allclose(priors.change, [[1, -4.5], [0, 1]])
    assert (priors.terms[0].place, priors.terms[0].change) == (None, None)


def test_indicators_have_scale_one_and_are_centred_in_the_fixed_part_only(crossed):
    priors = resolve(crossed)
    sy = crossed.rows.y.std(ddof=1)
    assert priors.slopes["f[T.b]"] == Normal(0, 2.5 * sy)
    np.testing.assert_allclose(priors.change[0], [1, *-crossed.rows.X[:, 1:].mean(axis=0)])
    np.testing.assert_allclose(priors.change[1:], np.eye(len(crossed.fixed))[1:])
    g, h = priors.terms
    assert (g.label, h.label) == ("g", "h")
    assert g.sd[2] == HalfStudentT(3, sy)
    np.testing.assert_allclose(g.change[0], [1, -crossed.rows.X[:, 1].min(), 0, 0])
    assert (h.corr, h.place, h.change) == (None, None, None)


def test_nothing_is_centred_without_an_intercept():
    data = load_dataset("sleepstudy")
    priors = resolve(design("Reaction ~ 0 + Days + (0 + Days | Subject)", data))
    assert priors.intercept is None
    assert (priors.centred, priors.change) == (False, None)
    assert (priors.terms[0].place, priors.terms[0].change) == (None, None)
    assert {row.note for row in priors.rows()} == {""}


def test_an_intercept_alone_is_not_at_the_mean_of_anything():
    priors = resolve(design("Reaction ~ 1 + (1 | Subject)", load_dataset("sleepstudy")))
    assert not priors.centred
    assert priors.intercept.mu == pytest.approx(298.5079, abs=1e-4)


def test_an_offset_is_taken_off_the_response_first():
    data = load_dataset("sleepstudy").assign(known=lambda d: 1000.0 * d["Days"])
    moved = data.assign(Reaction=data["Reaction"] + data["known"])
    with_offset = resolve(design("Reaction ~ Days + (Days | Subject)", moved, offset="known"))
    plain = resolve(design("Reaction ~ Days + (Days | Subject)", data))
    for (key, prior), wanted in zip(as_dict(with_offset).items(), plain.rows(), strict=True):
        assert key == (wanted.parameter, wanted.coef)
        assert vars(prior) == pytest.approx(vars(wanted.prior), rel=1e-9, abs=1e-9)


def test_the_scale_of_the_weights_is_the_scale_of_sigma():
    data = load_dataset("sleepstudy")
    text = "Reaction ~ Days + (1 | Subject)"
    heavy = resolve(design(text, data, weights=np.full(len(data), 100.0)))
    assert heavy.sigma.sigma == pytest.approx(10 * resolve(design(text, data)).sigma.sigma)


def test_a_constant_column_is_measured_by_its_size():
    data = load_dataset("sleepstudy").assign(one=5.0)
    priors = resolve(design("Reaction ~ 0 + one + (1 | Subject)", data))
    sy = data["Reaction"].std()
    assert priors.slopes["one"].sigma == pytest.approx(2.5 * sy / 5)


def test_a_constant_response_gives_no_scale():
    data = load_dataset("sleepstudy").assign(Reaction=1.0)
    flat = design("Reaction ~ 1 + (1 | Subject)", data)
    message = (
        "The response `Reaction` does not vary, so the default priors have no scale; "
        "give priors for all parameters."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        resolve(flat)
    half = HalfNormal(1)
    given = {"Intercept": Normal(0, 1), "sigma": half, "sd": half}
    assert resolve(flat, given).terms[0].sd == (half,)


def moved_and_scaled(text, a, c, d, e):
    """Return a design of y and x, and one of a + c y and d + e x."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(7, 2, 40), "g": np.arange(40) % 8})
    data["y"] = 3 + 2 * data["x"] + rng.normal(size=40)
    other = data.assign(x=d + e * data["x"], y=a + c * data["y"])
    return design(text, data), design(text, other)


def implied_normal(priors):
    """Return mean and covariance of (b0, b1) at zero predictors."""
    change = priors.change
    mean, sd = (np.array([getattr(p, name) for p in priors.beta]) for name in ("mu", "sigma"))
    return change @ mean, change @ np.diag(sd**2) @ change.T


def test_default_priors_of_the_fixed_effects_follow_the_data():
    a, c, d, e = -20.0, 3.0, 100.0, -0.25
    before, after = map(resolve, moved_and_scaled("y ~ x + (x | g)", a, c, d, e))
    # y = b0 + b1 x is a + c y = (a + c b0 - c b1 d / e) + (c / e) b1 (d + e x)
    map_ = np.array([[c, -c * d / e], [0.0, c / e]])
    mean, cov = implied_normal(before)
    mean_after, cov_after = implied_normal(after)
    np.testing.assert_allclose(mean_after, map_ @ mean + [a, 0.0], rtol=1e-9)
    np.testing.assert_allclose(cov_after, map_ @ cov @ map_.T, rtol=1e-9)


def test_default_priors_of_the_variances_follow_the_data():
    c, e = 3.0, 0.25
    before, after = map(resolve, moved_and_scaled("y ~ x + (x | g)", -20.0, c, 100.0, e))
    assert after.sigma.sigma == pytest.approx(c * before.sigma.sigma)
    sds = [np.array([sd.sigma for sd in priors.terms[0].sd]) for priors in (before, after)]
    np.testing.assert_allclose(sds[1], sds[0] * [c, c / e], rtol=1e-9)
    places = [priors.terms[0].place.predictors["x"] for priors in (before, after)]
    assert places[1] == pytest.approx(100 + e * places[0])


# What the user gives


def test_what_is_not_named_keeps_its_default(sleep):
    given = resolve(sleep, {"Days": Normal(0, 20)})
    assert given.slopes == {"Days": Normal(0, 20)}
    assert given.intercept == resolve(sleep).intercept
    assert given.centred
    assert (given.sigma, given.terms) == (resolve(sleep).sigma, resolve(sleep).terms)


def test_a_prior_of_the_intercept_holds_at_zero_predictors(sleep):
    given = resolve(sleep, {"Intercept": Normal(250, 100)})
    assert given.intercept == Normal(250, 100)
    assert (given.centred, given.change) == (False, None)
    assert given.terms == resolve(sleep).terms


@pytest.mark.parametrize(
    "priors",
    [
        {"sd": HalfNormal(10)},
        {"sd": {"Days": HalfNormal(10)}},
        {"sd_Subject": {"Intercept": HalfNormal(10)}},
        {"corr": LKJ(1)},
        {"corr_Subject": LKJ(1)},
    ],
    ids=str,
)
def test_any_prior_of_a_term_holds_at_zero_predictors(late, priors):
    given = resolve(late, priors)
    assert str(resolve(late).terms[0].place) == "Days = 1990"
    assert (given.terms[0].place, given.terms[0].change) == (None, None)
    assert given.centred


def test_a_prior_of_one_term_leaves_the_others_where_they_are():
    data = late_sleep().assign(half=lambda d: d["Days"] % 2)
    two = design("Reaction ~ Days + (Days | Subject) + (Days | half)", data)
    given = resolve(two, {"sd_half": HalfNormal(10)})
    assert [term.note for term in given.terms] == ["at Days = 1990", ""]


def test_the_more_specific_key_wins(crossed):
    e1, e2, e3, e4 = (Exponential(scale) for scale in (1, 2, 3, 4))
    given = resolve(
        crossed,
        {
            "f[T.b]": Normal(0, 1),
            "beta": {"f[T.b]": Normal(0, 2), "f[T.c]": Normal(0, 3)},
            "sd_g": {"x": e1},
            "sd": {"x": e2, "Intercept": e3},
            "sd_h": e4,
            "corr": LKJ(3),
            "corr_g": LKJ(4),
        },
    )
    found = as_dict(given)
    default = as_dict(resolve(crossed))
    assert found["beta", "f[T.b]"] == Normal(0, 1)
    assert found["beta", "f[T.c]"] == Normal(0, 3)
    assert found["beta", "x"] == default["beta", "x"]
    assert [found["sd_g", coef] for coef in ("Intercept", "x")] == [e3, e1]
    assert found["sd_g", "f[T.b]"] == default["sd_g", "f[T.b]"]
    assert [found["sd_h", coef] for coef in ("Intercept", "x")] == [e4, e4]
    assert found["corr_g", ""] == LKJ(4)


def test_classes_reach_all_their_members(crossed):
    given = resolve(crossed, {"beta": StudentT(3, 0, 1), "sd": Gamma(2, 1), "sigma": Uniform(0, 9)})
    assert set(given.slopes.values()) == {StudentT(3, 0, 1)}
    assert {sd for term in given.terms for sd in term.sd} == {Gamma(2, 1)}
    assert given.sigma == Uniform(0, 9)
    assert isinstance(given.intercept, Normal)


def test_a_column_named_like_a_class_is_reached_through_beta():
    data = load_dataset("sleepstudy").rename(columns={"Days": "sigma"})
    clash = design("Reaction ~ sigma + (1 | Subject)", data)
    given = resolve(clash, {"sigma": HalfNormal(5), "beta": {"sigma": Normal(0, 7)}})
    assert given.sigma == HalfNormal(5)
    assert given.slopes == {"sigma": Normal(0, 7)}


SDS = "HalfNormal, HalfStudentT, Exponential or Gamma"
FOR_COEF = "give a prior such as Normal or StudentT."
FOR_CORR = "give a prior such as LKJ."
GIVE_SD = f"give a prior such as {SDS}."
FOR_SD = f"which is a standard deviation; {GIVE_SD}"
RATIO = "sigma * HalfNormal(1)"
SETS = "Known names: `default`, `flat`, `boundary`, `brms`, `rstanarm`."
MODEL = "`Intercept`, `Days`, `beta`, `sigma`, `sd`, `corr`, `sd_Subject`, `corr_Subject`"


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ("weak", f"There are no priors named `weak`. {SETS}"),
        (3, "`priors` is a name or a dict from parameter to prior, got 3."),
        (
            {"days": Normal(0, 1)},
            "priors: `days` is no parameter of this model. Did you mean `Days`?",
        ),
        (
            {"rho": LKJ(1)},
            f"priors: `rho` is no parameter of this model. Known names: {MODEL}.",
        ),
        (
            {"sd_Subject": {"days": HalfNormal(1)}},
            "priors: `sd_Subject` has no coefficient `days`. Did you mean `Days`?",
        ),
        (
            {"beta": {"Intercept": Normal(0, 1)}},
            "priors: `beta` has no coefficient `Intercept`. Known names: `Days`.",
        ),
        (
            {"Days": 3},
            "priors: `Days` needs a prior such as Normal or StudentT, not 3.",
        ),
        (
            {"sigma": {"Days": 1}},
            f"priors: `sigma` needs a prior such as {SDS}, not {{'Days': 1}}.",
        ),
        (
            {"sd": {"Days": Normal(0, 10)}},
            f"priors: Normal(0, 10) does not fit `sd[Days]`, {FOR_SD}",
        ),
        (
            {"sd": Uniform(-1, 1)},
            f"priors: Uniform(-1, 1) does not fit `sd`, {FOR_SD}",
        ),
        (
            {"sigma": LKJ(2)},
            f"priors: LKJ(2) does not fit `sigma`, {FOR_SD}",
        ),
        (
            {"Days": Relative(HalfNormal(1))},
            f"priors: {RATIO} does not fit `Days`, which is a coefficient; {FOR_COEF}",
        ),
        (
            {"sigma": Relative(HalfNormal(1))},
            f"priors: {RATIO} does not fit `sigma`, which is not relative to itself; {GIVE_SD}",
        ),
        (
            {"sigma": Constant(-1)},
            f"priors: Constant(-1) does not fit `sigma`, {FOR_SD}",
        ),
        (
            {"sd_Subject": Constant(0)},
            f"priors: Constant(0) does not fit `sd_Subject`, {FOR_SD}",
        ),
        (
            {"corr": Flat()},
            f"priors: Flat() does not fit `corr`, which is a correlation matrix; {FOR_CORR}",
        ),
        (
            {"Days": LKJ(2)},
            f"priors: LKJ(2) does not fit `Days`, which is a coefficient; {FOR_COEF}",
        ),
        (
            {"corr": Uniform(0, 1)},
            f"priors: Uniform(0, 1) does not fit `corr`, which is a correlation matrix; {FOR_CORR}",
        ),
    ],
    ids=str,
)
def test_what_is_refused(sleep, priors, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        resolve(sleep, priors)


SOME_PRIORS = {
    "Intercept": Normal(250, 100),
    "beta": Normal(0, 20),
    "sigma": HalfNormal(50),
    "sd": HalfNormal(40),
    "corr": LKJ(3),
}


@pytest.mark.parametrize(
    "right",
    ["1", "Days", "1 + (1 | Subject)", "Days + (0 + Days | Subject)", "Days + (Days || Subject)"],
)
def test_the_same_priors_for_classes_suit_a_set_of_models(right):
    made = design(f"Reaction ~ {right}", load_dataset("sleepstudy"))
    given = resolve(made, SOME_PRIORS)
    wanted = {"beta": "beta", "sd_Subject": "sd", "sigma": "sigma"}
    for row in given.rows():
        key = "Intercept" if row.name == "beta[Intercept]" else wanted[row.parameter]
        assert row.prior == SOME_PRIORS[key]


@pytest.mark.parametrize("key", ["sd_Subject_1", "corr_subject", "Days", "nu"])
def test_a_key_that_reaches_nothing_is_refused(key):
    scalar = design("Reaction ~ 1 + (1 | Subject)", load_dataset("sleepstudy"))
    with pytest.raises(FitError, match=f"`{key}` is no parameter of this model"):
        resolve(scalar, {key: HalfNormal(1)})
    assert resolve(scalar, {"corr_Subject": LKJ(1)}) == resolve(scalar)


@pytest.mark.parametrize(("key", "prior"), [("corr", HalfNormal(1)), ("sd", LKJ(1)), ("beta", 3)])
def test_a_prior_that_reaches_nothing_is_checked_all_the_same(key, prior):
    with pytest.raises(FitError, match=f"`{key}`"):
        resolve(design("Reaction ~ 1", load_dataset("sleepstudy")), {key: prior})


def test_a_column_can_be_called_like_a_class_that_has_nothing():
    data = load_dataset("sleepstudy").rename(columns={"Days": "sd"})
    given = resolve(design("Reaction ~ sd", data), {"sd": Normal(0, 7)})
    assert given.slopes == {"sd": Normal(0, 7)}


def test_known_relative_and_flat_parameters(sleep):
    given = resolve(
        sleep,
        {
            "Days": Constant(-3),
            "sigma": Constant(1),
            "sd": {"Intercept": Relative(Flat()), "Days": Constant(0.5)},
        },
    )
    assert given.slopes == {"Days": Constant(-3)}
    assert given.sigma == Constant(1)
    assert given.terms[0].sd == (Relative(Flat()), Constant(0.5))
    assert str(as_dict(given)["sd_Subject", "Intercept"]) == "sigma * Flat()"


def test_a_prior_of_the_users_is_not_moved_by_products():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({name: rng.normal(5, 1, 30) for name in ("y", "a", "b")})
    made = design("y ~ a * b", data)
    given = resolve(made, {"a": Constant(2)})
    notes = {row.coef: row.note for row in given.rows() if row.parameter == "beta"}
    assert notes == {"Intercept": AT_MEAN, "a": "", "b": AT_MEAN, "a:b": ""}
    centred = made.rows.X @ given.change
    # the product is orthogonal to the intercept and b; a is not taken out of it
    inner = (
        centred[:, 3]
        @ made.rows.X
        / np.linalg.norm(made.rows.X, axis=0)
        / np.linalg.norm(centred[:, 3])
    )
    np.testing.assert_allclose(inner[[0, 2]], 0, atol=1e-9)
    assert abs(inner[1]) > 1e-3


def test_keys_can_be_as_the_model_prints_them(sleep):
    printed = {"sd_Subject[Days]": HalfNormal(10), "beta[Days]": Normal(0, 20)}
    nested = {"sd_Subject": {"Days": HalfNormal(10)}, "beta": {"Days": Normal(0, 20)}}
    assert resolve(sleep, printed) == resolve(sleep, nested)
    with pytest.raises(FitError) as caught:
        resolve(sleep, {"sd_Subject[days]": HalfNormal(10)})
    message = "priors: `sd_Subject` has no coefficient `days`. Did you mean `Days`?"
    assert str(caught.value) == message


def test_an_untouched_intercept_sd_is_as_wide_as_the_slopes_make_it_at_zero(sleep, late):
    default = resolve(late).terms[0].sd
    touched = resolve(late, {"corr": LKJ(1)}).terms[0].sd
    days = late.rows.X[:, 1]
    factor = np.sqrt(1 + (1990 / days.std(ddof=1)) ** 2)
    assert touched[0].sigma == pytest.approx(default[0].sigma * factor)
    assert touched[1] == default[1]
    assert resolve(sleep, {"corr": LKJ(1)}).terms[0].sd == resolve(sleep).terms[0].sd == default


TEXTS = ["y ~ x*f + I(x^2) + (x | g)", "y ~ x*z*f + (x*z | g)", "y ~ x + (f/x + I(x^2) | g)"]


@pytest.mark.parametrize("text", TEXTS)
def test_default_priors_of_products_and_powers_follow_the_data(text):
    """The implied prior of the predictor is the same wherever x has its origin, but in its range.

    And whichever side of zero x is on.
    """
    rng = np.random.default_rng(4)
    n = 60
    data = pd.DataFrame({"x": rng.normal(7, 2, n), "z": rng.normal(size=n), "g": np.arange(n) % 8})
    data["f"] = rng.choice(list("ab"), n)
    data["y"] = rng.normal(size=n)
    covariances = []
    for shift, scale in ((0, 1), (2015, 1), (0, -1e3)):
        made = design(text, data.assign(x=shift + scale * data["x"]))
        priors = resolve(made)
        sds = np.array([prior.sigma for prior in priors.beta])
        root = made.rows.X @ priors.change * sds
        parts = [root @ root.T]
        for term, given in zip(made.rows.terms, priors.terms, strict=True):
            effects = term.columns @ given.change * [prior.sigma for prior in given.sd]
            parts.append(effects @ effects.T)
        covariances.append(np.array(parts))
    np.testing.assert_allclose(covariances[1], covariances[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(covariances[2], covariances[0], rtol=1e-7, atol=1e-9)


def test_an_origin_within_the_data_is_where_priors_hold():
    """Independent effects are nested in correlated ones there: their sds have the same priors."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.uniform(3, 9, 60), "y": rng.normal(size=60)})
    data["g"] = np.arange(60) % 8
    for origin, within in ((0, False), (3.5, True), (8, True), (10, False)):
        frame = data.assign(x=data["x"] - origin)
        both, apart = (
            resolve(design(f"y ~ x + (x {bar} g)", frame)).terms[0] for bar in ("|", "||")
        )
        assert both.sd == apart.sd
        assert (both.change is None) == within
        assert apart.change is None


# Generalised models


def table(priors):
    return [f"{row.parameter}[{row.coef}] {row.prior} {row.note}".rstrip() for row in priors.rows()]


def test_printed_rows_of_cbpp():
    made = design(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        load_dataset("cbpp"),
        family=BINOMIAL,
    )
    assert table(resolve(made, family=BINOMIAL)) == [
        "beta[Intercept] Normal(0, 1.5) at the mean of the predictors",
        "beta[period[T.2]] Normal(0, 1)",
        "beta[period[T.3]] Normal(0, 1)",
        "beta[period[T.4]] Normal(0, 1)",
        "sd_herd[Intercept] HalfNormal(1)",
    ]


def test_printed_rows_of_contraception():
    """R: 1 / sd(age) is 0.11095, and 1 / sd(resid(lm(I(age^2) ~ age))) 0.012290."""
    made = design(
        "use ~ age + I(age^2) + urban + (1 + age | district)",
        load_dataset("Contraception"),
        family=BERNOULLI,
    )
    assert table(resolve(made, family=BERNOULLI)) == [
        "beta[Intercept] Normal(0, 1.5) at the mean of the predictors",
        "beta[age] Normal(0, 0.1109) at the mean of the predictors",
        "beta[I(age^2)] Normal(0, 0.01229)",
        "beta[urban[T.Y]] Normal(0, 1)",
        "sd_district[Intercept] HalfNormal(1)",
        "sd_district[age] HalfNormal(0.1109)",
        "corr_district[] LKJ(2)",
    ]


def test_printed_rows_of_counts_with_an_exposure():
    """In all 99 of 842 animals fell ill: log(99 / 842) = -2.141."""
    made = design(
        "incidence ~ period + offset(log(size)) + (1 | herd)",
        load_dataset("cbpp"),
        family=NEGATIVE_BINOMIAL,
    )
    assert table(resolve(made, family=NEGATIVE_BINOMIAL)) == [
        "beta[Intercept] Normal(-2.141, 2.5) at the mean of the predictors",
        "beta[period[T.2]] Normal(0, 1)",
        "beta[period[T.3]] Normal(0, 1)",
        "beta[period[T.4]] Normal(0, 1)",
        "shape[] InverseGamma(0.4, 0.3)",
        "sd_herd[Intercept] Exponential(1)",
    ]
    assert table(resolve(made, "flat", NEGATIVE_BINOMIAL))[-2:] == [
        "shape[] Flat()",
        "sd_herd[Intercept] Flat()",
    ]


def counted(**columns):
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"x": rng.normal(20, 3, 60), "g": np.arange(60) % 6})
    data["exposure"] = rng.uniform(1, 9, 60)
    data["y"] = rng.poisson(2 * data["exposure"]).astype(float)
    return data.assign(**columns)


def test_own_parameters_have_rows_keys_and_no_sigma_beside_them():
    made = design("y ~ x + (1 | g)", counted())
    found = resolve(made, {"shape": Gamma(2, 1), "sd": HalfNormal(2)}, NEGATIVE_BINOMIAL)
    assert found.parameters == (("shape", Gamma(2, 1)),)
    assert (found.sigma, found.has_sigma) == (Constant(1.0), False)
    assert [row.parameter for row in found.rows()] == ["beta", "beta", "shape", "sd_g"]
    both = resolve(made, {"nu": Exponential(30)}, find_family("t"))
    assert [row.parameter for row in both.rows()] == ["beta", "beta", "sigma", "nu", "sd_g"]
    assert both.parameters == (("nu", Exponential(30)),)
    plain = resolve(made)
    assert (plain.parameters, plain.has_sigma) == ((), True)
    known = resolve(made, {"sigma": Constant(1.0)})
    assert "sigma" in {row.parameter for row in known.rows()}


def test_all_zero_counts_have_finite_priors():
    made = design("y ~ x + (x | g)", counted(y=0.0))
    for family in (POISSON, NEGATIVE_BINOMIAL, BINOMIAL, find_family("poisson", "sqrt")):
        for name in ("default", "boundary", "brms"):
            for row in resolve(made, name, family).rows():
                assert np.isfinite(list(vars(row.prior).values())).all()
    assert resolve(made, family=POISSON).intercept.mu == pytest.approx(np.log(0.5 / 60))


def test_on_a_log_link_neither_units_of_x_nor_those_of_the_exposure_matter():
    """A shift d and scale e of x, and exposures times f: one model in other words."""
    d, e, f = 100.0, -0.25, 1e3
    text = "y ~ x + offset(log(exposure)) + (x | g)"
    moved = counted().assign(x=lambda t: d + e * t["x"], exposure=lambda t: f * t["exposure"])
    before, after = (resolve(design(text, data), family=POISSON) for data in (counted(), moved))
    map_ = np.array([[1.0, -d / e], [0.0, 1 / e]])
    mean, cov = implied_normal(before)
    mean_after, cov_after = implied_normal(after)
    np.testing.assert_allclose(mean_after, map_ @ mean - [np.log(f), 0.0], rtol=1e-9)
    np.testing.assert_allclose(cov_after, map_ @ cov @ map_.T, rtol=1e-9)
    sds = [np.array([sd.scale for sd in priors.terms[0].sd]) for priors in (before, after)]
    np.testing.assert_allclose(sds[1], sds[0] / [1, abs(e)], rtol=1e-9)


def test_nothing_of_a_positive_response_depends_on_its_units():
    c, text = 1e-3, "y ~ x + (1 | g)"
    data = counted(y=lambda t: t["y"] + 0.5)
    for family in (find_family("gamma", "inverse"), find_family("inverse_gaussian", "inverse")):
        before, after = (
            resolve(design(text, own), family=family)
            for own in (data, data.assign(y=c * data["y"]))
        )
        (mean, cov), (mean_after, cov_after) = implied_normal(before), implied_normal(after)
        np.testing.assert_allclose(mean_after, mean / c, rtol=1e-7)
        np.testing.assert_allclose(cov_after, cov / c**2, rtol=1e-7)
        sd, sd_after = (priors.terms[0].sd[0].scale for priors in (before, after))
        assert sd_after == pytest.approx(sd / c)
    assert after.sigma.sigma == pytest.approx(before.sigma.sigma / np.sqrt(c))


def test_a_far_intercept_is_as_wide_as_its_slopes_make_it_there():
    made = design("y ~ x + (x | g)", counted())
    x = made.rows.X[:, 1]
    found = resolve(made, {"corr": LKJ(2)}, POISSON).terms[0]
    assert found.place is None
    ratio = x.min() / x.std(ddof=1)
    assert found.sd[0].scale == pytest.approx(np.sqrt(1 + ratio**2))
    assert found.sd[1].scale == pytest.approx(1 / x.std(ddof=1))
