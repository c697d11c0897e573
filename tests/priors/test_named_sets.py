"""The named sets of priors."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.errors import DataError, FitError
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import Link
from ranef.families.names import find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Exponential,
    Flat,
    Gamma,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    StudentT,
)

AT_MEAN = "at the mean of the predictors"


def design(text, data, **options):
    return build_design(read_formula(text), data, **options)


@pytest.fixture(scope="module")
def sleep():
    return design("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def mixed():
    rng = np.random.default_rng(5)
    data = pd.DataFrame(
        {
            "y": rng.normal(10, 2, 60),
            "x": rng.normal(50, 5, 60),
            "f": rng.choice(["a", "b"], 60),
            "g": rng.choice(list("pqrst"), 60),
        }
    )
    return design("y ~ x * f + (x || g)", data)


def as_dict(priors):
    return {(row.parameter, row.coef): row.prior for row in priors.rows()}


def notes(priors):
    return {(row.parameter, row.coef) for row in priors.rows() if row.note == AT_MEAN}


def test_flat(sleep):
    priors = resolve(sleep, "flat")
    found = as_dict(priors)
    assert found.pop(("corr_Subject", "")) == LKJ(1)
    assert set(found.values()) == {Flat()}
    assert len(found) == 5
    assert notes(priors) == set()


def test_boundary_of_a_scalar_and_of_a_diagonal_term(mixed):
    default, found = (as_dict(resolve(mixed, name)) for name in ("default", "boundary"))
    for coef in ("Intercept", "x"):
        assert found["sd_g", coef] == Gamma(2, 1e-4 / default["sd_g", coef].sigma)
    assert {found["beta", "x"], found["sigma", ""]} == {Flat()}


def test_boundary_of_a_correlated_term_is_a_power_of_the_determinant(sleep):
    """Differences of log density are those of 3/4 log det Sigma, so slight is the rate."""
    priors = resolve(sleep, "boundary")
    term = priors.terms[0]
    assert notes(priors) == set()
    assert (term.corr, {sd.alpha for sd in term.sd}) == (LKJ(1.75), {2.5})

    def logp(sd, rho):
        gammas = [stats.gamma(p.alpha, scale=1 / p.beta) for p in term.sd]
        of_sd = sum(gamma.logpdf(s) for gamma, s in zip(gammas, sd, strict=True))
        return of_sd + (term.corr.eta - 1) * np.log(1 - rho**2)

    def log_det(sd, rho):
        return np.linalg.slogdet(np.outer(sd, sd) * [[1, rho], [rho, 1]]).logabsdet

    one, two = ([24.0, 6.0], 0.1), ([3.0, 9.0], -0.7)
    assert logp(*one) - logp(*two) == pytest.approx(
        0.75 * (log_det(*one) - log_det(*two)), abs=2e-4
    )


def test_brms_defaults_of_sleepstudy(sleep):
    """As brms prints them: student_t(3, 288.7, 59.3), student_t(3, 0, 59.3), lkj(1)."""
    priors = resolve(sleep, "brms")
    scale = HalfStudentT(3, 59.3)
    assert as_dict(priors) == {
        ("beta", "Intercept"): StudentT(3, 288.7, 59.3),
        ("beta", "Days"): Flat(),
        ("sigma", ""): scale,
        ("sd_Subject", "Intercept"): scale,
        ("sd_Subject", "Days"): scale,
        ("corr_Subject", ""): LKJ(1),
    }
    assert notes(priors) == {("beta", "Intercept")}


def test_brms_has_a_smallest_scale_and_takes_the_mean_offset_off():
    data = load_dataset("sleepstudy").assign(Reaction=lambda d: d["Reaction"] / 100, known=5.0)
    made = design("Reaction ~ Days + (1 | Subject)", data, offset="known")
    assert vars(resolve(made, "brms").intercept) == pytest.approx(vars(StudentT(3, -2.1, 2.5)))
    assert resolve(made, "rstanarm").intercept.mu == pytest.approx(data["Reaction"].mean())


@pytest.mark.parametrize("name", ["brms", "rstanarm"])
def test_the_intercept_is_at_the_means_of_the_columns_as_they_are(mixed, name):
    priors = resolve(mixed, name)
    wanted = np.eye(4)
    wanted[0, 1:] = -mixed.rows.X[:, 1:].mean(axis=0)
    np.testing.assert_allclose(priors.change, wanted, atol=1e-9)
    assert notes(priors) == {("beta", "Intercept")}


def test_rstanarm_divides_by_the_sd_of_every_column(mixed):
    found = as_dict(resolve(mixed, "rstanarm"))
    sy = mixed.rows.y.std(ddof=1)
    assert vars(found["beta", "Intercept"]) == pytest.approx(
        vars(Normal(mixed.rows.y.mean(), 2.5 * sy)), rel=1e-12
    )
    for name, column in zip(mixed.fixed[1:], mixed.rows.X.T[1:], strict=True):
        assert found["beta", name].mu == 0
        assert found["beta", name].sigma == pytest.approx(2.5 * sy / column.std(ddof=1))
    assert found["sigma", ""].scale == pytest.approx(sy)
    assert [found["sd_g", coef] for coef in ("Intercept", "x")] == [Relative(Exponential(1))] * 2


def test_rstanarm_has_no_independent_sds_in_a_correlated_term(sleep):
    message = (
        'priors: "rstanarm" has no prior for (1 + Days | Subject): its decov prior divides one '
        "trace among the variances of correlated coefficients, which makes them dependent. "
        "Write (1 + Days || Subject), or give `sd_Subject` a prior."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        resolve(sleep, "rstanarm")
    given = resolve(sleep, {"base": "rstanarm", "sd_Subject": HalfNormal(9)})
    assert given.terms[0].sd == (HalfNormal(9), HalfNormal(9))
    assert given.terms[0].corr == LKJ(1)


@pytest.mark.parametrize("name", ["brms", "rstanarm"])
def test_without_an_intercept_nothing_is_centred(name):
    data = load_dataset("sleepstudy")
    priors = resolve(design("Reaction ~ 0 + Days + (1 | Subject)", data), name)
    assert priors.change is None
    wanted = {"brms": Flat(), "rstanarm": Normal(0, 2.5 * data["Reaction"].std() / 2.88045)}
    assert str(priors.beta[0]) == str(wanted[name])


def test_a_dict_may_start_from_a_set(sleep):
    given = resolve(sleep, {"base": "brms", "Days": Normal(0, 20), "sigma": HalfNormal(9)})
    brms = resolve(sleep, "brms")
    assert given.intercept == brms.intercept
    assert given.terms == brms.terms
    assert (given.slopes, given.sigma) == ({"Days": Normal(0, 20)}, HalfNormal(9))
    assert resolve(sleep, {"base": "brms"}) == brms
    at_zero = resolve(sleep, {"base": "brms", "Intercept": Normal(250, 100)})
    assert at_zero.change is None


def test_a_coefficient_may_be_named_base():
    data = load_dataset("sleepstudy").rename(columns={"Days": "base"})
    made = design("Reaction ~ base + (1 | Subject)", data)
    assert resolve(made, {"base": Normal(0, 3)}).slopes == {"base": Normal(0, 3)}
    given = resolve(made, {"base": "flat", "beta": {"base": Normal(0, 3)}})
    assert given.slopes == {"base": Normal(0, 3)}
    assert given.intercept == Flat()


def test_an_unknown_set_is_refused(sleep):
    message = "There are no priors named `brm`. Did you mean `brms`?"
    for priors in ("brm", {"base": "brm"}):
        with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
            resolve(sleep, priors)
    with pytest.raises(FitError, match=r"^priors: `base` is no parameter of this model"):
        resolve(sleep, {"base": HalfNormal(1)})
    with pytest.raises(FitError, match=r"^priors: `Days` needs a prior such as Normal"):
        resolve(sleep, {"Days": "flat"})


def test_a_constant_response_gives_rstanarm_no_scale_and_brms_its_smallest():
    data = load_dataset("sleepstudy").assign(Reaction=1.0)
    made = design("Reaction ~ 1 + (1 | Subject)", data)
    with pytest.raises(DataError, match="does not vary"):
        resolve(made, "rstanarm")
    assert resolve(made, "brms").sigma == HalfStudentT(3, 2.5)


# Generalised models


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"x": rng.normal(50, 5, 80), "f": rng.choice(["a", "b"], 80)})
    data["y"] = rng.negative_binomial(2, 0.02, 80).astype(float)
    data.loc[:3, "y"] = 0.0
    data["g"], data["w"] = np.arange(80) % 8, rng.uniform(0.5, 3, 80)
    return design("y ~ x + f + (1 | g)", data, weights="w")


FAMILIES = ("binomial", "poisson", "negative_binomial", "gamma", "inverse_gaussian", "beta", "t")


@pytest.mark.parametrize("name", FAMILIES)
def test_flat_is_flat_everywhere(counts, name):
    family = find_family(name)
    found = as_dict(resolve(counts, "flat", family))
    assert set(found.values()) == {Flat()}
    assert len(found) == 4 + len(family.parameters)


@pytest.mark.parametrize("name", ["binomial", "poisson", "t"])
def test_boundary_is_relative_to_the_scale_of_the_default(counts, name):
    family = find_family(name)
    default, found = (as_dict(resolve(counts, s, family)) for s in ("default", "boundary"))
    sd = default.pop(("sd_g", "Intercept"))
    scale = vars(sd)["scale" if name == "poisson" else "sigma"]
    assert found.pop(("sd_g", "Intercept")) == Gamma(2, 1e-4 / scale)
    assert set(found.values()) == {Flat()}


def test_brms_defaults_of_counts(counts):
    """R: y <- ifelse(y == 0, y + .1, y); round(median(log(y)), 1); round(mad(log(y)), 1)."""
    logs = np.log(np.where(counts.rows.y == 0, 0.1, counts.rows.y))
    mad = stats.median_abs_deviation(logs, scale=1 / 1.4826)
    assert mad < 2.45
    found = as_dict(resolve(counts, "brms", find_family("negative_binomial")))
    assert found == {
        ("beta", "Intercept"): StudentT(3, round(np.median(logs), 1), 2.5),
        ("beta", "x"): Flat(),
        ("beta", "f[T.b]"): Flat(),
        ("shape", ""): InverseGamma(0.4, 0.3),
        ("sd_g", "Intercept"): HalfStudentT(3, 2.5),
    }
    moved = resolve(counts.with_rows(offset=np.full(80, 2.0)), "brms", POISSON)
    assert moved.intercept.mu == pytest.approx(round(np.median(logs), 1) - 2)
    roots = np.sqrt(counts.rows.y)
    scale = round(stats.median_abs_deviation(roots, scale=1 / 1.4826), 1)
    assert scale > 2.5
    found = resolve(counts, "brms", find_family("poisson", "sqrt"))
    assert found.intercept == StudentT(3, round(np.median(roots), 1), scale)
    assert found.terms[0].sd == (HalfStudentT(3, scale),)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_brms_defaults_of_a_probability_do_not_look_at_the_data(counts, link):
    made = counts.with_rows(y=counts.rows.y / counts.rows.y.max(), offset=np.ones(80))
    found = resolve(made, "brms", find_family("binomial", link))
    assert (found.intercept, found.terms[0].sd) == (StudentT(3, 0, 2.5), (HalfStudentT(3, 2.5),))
    phi = resolve(made, "brms", find_family("beta", link)).parameters
    assert phi == (("phi", Gamma(0.01, 0.01)),)


def test_brms_defaults_where_the_link_of_the_response_is_not_finite(counts):
    family = replace(GAUSSIAN, link=Link("log", np.log, np.exp))
    found = resolve(counts.with_rows(y=counts.rows.y - 3), "brms", family)
    assert (found.intercept, found.sigma) == (StudentT(3, 0, 2.5), HalfStudentT(3, 2.5))


def test_brms_takes_successes_on_a_log_link(counts):
    made = counts.with_rows(y=np.repeat([0.25, 1.0], 40), weights=np.full(80, 400.0))
    family = replace(BINOMIAL, link=Link("log", np.log, np.exp))
    expected = round((np.log(100) + np.log(400)) / 2, 1)
    assert resolve(made, "brms", family).intercept.mu == expected


def test_brms_defaults_of_a_t_response(counts):
    found = as_dict(resolve(counts, "brms", find_family("t")))
    mad = round(stats.median_abs_deviation(counts.rows.y, scale=1 / 1.4826), 1)
    assert found["sigma", ""] == found["sd_g", "Intercept"] == HalfStudentT(3, mad)
    assert found["nu", ""] == Gamma(2, 0.1)


def test_rstanarm_defaults_of_a_generalised_model(counts):
    x = counts.rows.X[:, 1]
    for name, own in (("poisson", {}), ("negative_binomial", {("shape", ""): Exponential(1)})):
        found = as_dict(resolve(counts, "rstanarm", find_family(name)))
        assert vars(found.pop(("beta", "x"))) == pytest.approx(
            {"mu": 0, "sigma": 2.5 / x.std(ddof=1)}
        )
        indicator = found.pop(("beta", "f[T.b]"))
        assert indicator.sigma == pytest.approx(2.5 / counts.rows.X[:, 2].std(ddof=1))
        assert found == {
            ("beta", "Intercept"): Normal(0, 2.5),
            ("sd_g", "Intercept"): Exponential(1),
            **own,
        }
    assert resolve(counts, "rstanarm", find_family("beta")).parameters == (("phi", Exponential(1)),)


@pytest.mark.parametrize(
    ("name", "family", "parameter", "why"),
    [
        ("brms", "gamma", "sigma", "that package has one of 1 / sigma^2 instead"),
        ("rstanarm", "inverse_gaussian", "sigma", "that package has one of 1 / sigma^2 instead"),
        ("rstanarm", "t", "sigma", "it knows no t family with that parameter"),
        ("brms", "mine", "zeta", "it knows no mine family with that parameter"),
        ("rstanarm", "mine", "zeta", "it knows no mine family with that parameter"),
    ],
)
def test_a_set_without_a_prior_says_so(counts, name, family, parameter, why):
    made = replace(POISSON, name="mine", parameters=("zeta",))
    own = made if family == "mine" else find_family(family)
    message = (
        f'priors: "{name}" has no prior for `{parameter}`: {why}. Give it one, as in '
        f'{{"base": "{name}", "{parameter}": Exponential(1)}}.'
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        resolve(counts, name, own)
    given = {"base": name, "sigma": Exponential(1)} | (
        {other: Exponential(1) for other in own.parameters}
    )
    assert resolve(
        counts, {k: v for k, v in given.items() if k == "base" or k in own.parameters}, own
    )


def test_default_scale_parameters(counts):
    w, y = (
        counts.rows.weights.mean(),
        counts.rows.weights @ counts.rows.y / counts.rows.weights.sum(),
    )
    sigma = {name: resolve(counts, family=find_family(name)).sigma for name in FAMILIES}
    assert vars(sigma["gamma"]) == pytest.approx({"scale": np.sqrt(w)})
    assert isinstance(sigma["gamma"], Exponential)
    assert vars(sigma["inverse_gaussian"]) == pytest.approx({"nu": 3, "sigma": np.sqrt(w / y)})
    mad = stats.median_abs_deviation(counts.rows.y, scale=1 / 1.4826)
    assert vars(sigma["t"]) == pytest.approx({"nu": 3, "sigma": mad * np.sqrt(w)})
    log = replace(GAUSSIAN, link=Link("log", np.log, np.exp))
    expected = counts.rows.y.std(ddof=1) * np.sqrt(w)
    moved = counts.with_rows(offset=np.arange(80) / 9)  # which is not one of the response's units
    assert resolve(moved, family=log).sigma.sigma == pytest.approx(expected)


def test_a_family_of_the_users_has_the_scale_of_its_variance_function(counts):
    mine = replace(GAUSSIAN, name="mine", variance=lambda mu, _: 4 * mu**2)
    w, y = (
        counts.rows.weights.mean(),
        counts.rows.weights @ counts.rows.y / counts.rows.weights.sum(),
    )
    found = resolve(counts, family=mine).sigma
    expected = counts.rows.y.std(ddof=1) * np.sqrt(w) / (2 * y)
    assert vars(found) == pytest.approx({"nu": 3, "sigma": expected})


def test_default_parameters_are_proper_and_say_little():
    """phi: with a mean of 1/2 the sd of the response is 0.5 / sqrt(1 + phi)."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.uniform(size=30), "g": np.arange(30) % 5})
    made = design("y ~ 1 + (1 | g)", data)
    found = dict(resolve(made, family=find_family("beta")).parameters)
    assert found == {"phi": LogNormal(np.log(10), 2)}
    bounds = stats.lognorm(2, scale=10).ppf([0.025, 0.975])
    assert 0.5 / np.sqrt(1 + bounds) == pytest.approx([0.457, 0.0223], abs=1e-3)
    assert dict(resolve(made, family=find_family("t")).parameters) == {"nu": Gamma(2, 0.1)}
    mine = replace(POISSON, name="mine", parameters=("zeta",))
    assert dict(resolve(made, family=mine).parameters) == {"zeta": LogNormal(0, 2.5)}
