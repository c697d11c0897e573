"""The named sets of priors."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ranef.datasets import load_dataset
from ranef.design import build_design
from ranef.errors import DataError, FitError
from ranef.formula import read_formula
from ranef.priors import (
    LKJ,
    Exponential,
    Flat,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
    resolve,
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


def test_brms_has_a_smallest_scale_and_no_regard_for_an_offset():
    data = load_dataset("sleepstudy").assign(Reaction=lambda d: d["Reaction"] / 100, known=5.0)
    made = design("Reaction ~ Days + (1 | Subject)", data, offset="known")
    assert resolve(made, "brms").intercept == StudentT(3, 2.9, 2.5)
    assert resolve(made, "rstanarm").intercept.mu == pytest.approx(data["Reaction"].mean())


@pytest.mark.parametrize("name", ["brms", "rstanarm"])
def test_the_intercept_is_at_the_means_of_the_columns_as_they_are(mixed, name):
    priors = resolve(mixed, name)
    wanted = np.eye(4)
    wanted[0, 1:] = -mixed.X[:, 1:].mean(axis=0)
    np.testing.assert_allclose(priors.change, wanted, atol=1e-9)
    assert notes(priors) == {("beta", "Intercept")}


def test_rstanarm_divides_by_the_sd_of_every_column(mixed):
    found = as_dict(resolve(mixed, "rstanarm"))
    sy = mixed.y.std(ddof=1)
    assert vars(found["beta", "Intercept"]) == pytest.approx(
        vars(Normal(mixed.y.mean(), 2.5 * sy)), rel=1e-12
    )
    for name, column in zip(mixed.fixed[1:], mixed.X.T[1:], strict=True):
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
