"""The user's dict of priors in models of every family; see also `test_priors`."""

import re

import numpy as np
import pandas as pd
import pytest

from ranef.design.design import build_design
from ranef.errors import FitError
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Gamma,
    HalfNormal,
    Normal,
    Relative,
    Uniform,
)
from ranef.priors.named_sets import SETS
from ranef.priors.user_priors import Target, read_user_priors, with_known


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"y": rng.integers(0, 2, 40) * 1.0, "x": rng.normal(size=40)})
    data["shape"], data["g"] = rng.normal(size=40), np.arange(40) % 5
    return build_design(read_formula("y ~ x + shape + (x | g)"), data)


def refused(made, priors, family, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        read_user_priors(made, priors, family)


def test_keys_are_the_parameters_of_the_family(made):
    sd, corr = Target("standard deviation", ("Intercept", "x")), Target("correlation matrix")
    terms = {"sd": sd, "corr": corr, "sd_g": sd, "corr_g": corr}
    effect, sigma = Target("coefficient"), Target("standard deviation")
    own = Target("positive number")
    effects = {"Intercept": effect, "x": effect, "beta": Target("coefficient", ("x", "shape"))}
    targets = {
        family.name: dict(read_user_priors(made, "default", family).targets)
        for family in (GAUSSIAN, BINOMIAL, find_family("negative_binomial"), find_family("t"))
    }
    assert targets == {
        "gaussian": effects | {"shape": effect, "sigma": sigma} | terms,
        "binomial": effects | {"shape": effect} | terms,
        "negative_binomial": effects | {"shape": own} | terms,
        "t": effects | {"shape": effect, "sigma": sigma, "nu": own} | terms,
    }


def test_a_coefficient_that_is_called_like_a_parameter_goes_by_beta(made):
    family = find_family("negative_binomial")
    found = resolve(made, {"shape": Gamma(2, 1), "beta": {"shape": Normal(0, 9)}}, family)
    assert found.parameters == (("shape", Gamma(2, 1)),)
    assert found.slopes["shape"] == Normal(0, 9)
    assert resolve(made, {"shape": Normal(0, 9)}, BINOMIAL).slopes["shape"] == Normal(0, 9)


def test_a_family_without_a_sigma_has_no_prior_of_one(made):
    message = (
        "priors: `sigma` is no parameter of this model. Known names: `Intercept`, `x`, `shape`, "
        "`beta`, `sd`, `corr`, `sd_g`, `corr_g`."
    )
    refused(made, {"sigma": HalfNormal(1)}, BINOMIAL, message)


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("sd", Relative(HalfNormal(1)), "sd"),
        ("sd_g", {"x": Relative(HalfNormal(1))}, "sd_g[x]"),
        ("sd_g[x]", Relative(HalfNormal(1)), "sd_g[x]"),
    ],
)
def test_nothing_is_relative_to_a_sigma_that_there_is_not(made, key, value, place):
    message = (
        f"priors: sigma * HalfNormal(1) does not fit `{place}`, as this model has no sigma for it "
        "to be relative to; give HalfNormal(1)."
    )
    refused(made, {key: value}, BINOMIAL, message)
    assert read_user_priors(made, {key: value}, find_family("gamma")).records


@pytest.mark.parametrize("prior", [Normal(0, 1), LKJ(2), Relative(HalfNormal(1)), Uniform(-1, 1)])
def test_a_parameter_is_positive_and_not_relative(made, prior):
    message = (
        f"priors: {prior} does not fit `nu`, which is a positive number; "
        "give a prior such as Gamma, LogNormal, HalfNormal or Exponential."
    )
    refused(made, {"nu": prior}, find_family("t"), message)


def test_a_parameter_needs_a_record(made):
    message = (
        "priors: `nu` needs a prior such as Gamma, LogNormal, HalfNormal or Exponential, not 4."
    )
    refused(made, {"nu": 4}, find_family("t"), message)
    assert resolve(made, {"nu": Constant(4)}, find_family("t")).parameters == (("nu", Constant(4)),)


def test_the_nearest_place_wins(made):
    given = read_user_priors(
        made, {"base": "brms", "sd": Exponential(1), "sd_g": {"x": HalfNormal(3)}}, BINOMIAL
    )
    assert given.base is SETS["brms"]
    assert given.first(("sd_g", "x"), "sd_g", ("sd", "x"), "sd") == HalfNormal(3)
    assert given.first(("sd_g", "Intercept"), "sd_g", ("sd", "Intercept"), "sd") == Exponential(1)
    assert given.first("corr_g", "corr") is None


def test_what_a_model_knows_stands_beside_priors():
    known = {"sigma": Constant(1.0)}
    assert with_known("brms", known) == {"base": "brms"} | known
    assert with_known({"x": Normal(0, 1)}, known) == {"x": Normal(0, 1)} | known
    assert with_known(known, known) == known
    assert with_known("brms", {}) == "brms"
    with pytest.raises(FitError) as caught:
        with_known({"sigma": HalfNormal(2)}, known)
    assert str(caught.value) == (
        "priors: `sigma` is known here, as se= has the standard errors of the rows; leave out "
        "HalfNormal(2)."
    )
