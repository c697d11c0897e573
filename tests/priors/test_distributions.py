"""Prior records: what they accept, and how they are written."""

import math
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy import stats

from ranef import priors
from ranef.errors import FitError

RELATIVE = "Relative: prior must be one of a positive number, such as HalfNormal(1)"


@pytest.mark.parametrize(
    ("prior", "text", "positive"),
    [
        (priors.Normal(250, 100), "Normal(250, 100)", False),
        (priors.StudentT(3, -1.5, 2), "StudentT(3, -1.5, 2)", False),
        (priors.HalfNormal(2), "HalfNormal(2)", True),
        (priors.HalfStudentT(3, 59.3), "HalfStudentT(3, 59.3)", True),
        (priors.HalfCauchy(0.5), "HalfCauchy(0.5)", True),
        (priors.Exponential(1 / 3), "Exponential(0.3333)", True),
        (priors.Gamma(2, 0.1), "Gamma(2, 0.1)", True),
        (priors.InverseGamma(2, 1), "InverseGamma(2, 1)", True),
        (priors.LogNormal(0, 1), "LogNormal(0, 1)", True),
        (priors.Uniform(0, 1e6), "Uniform(0, 1e+06)", True),
        (priors.Uniform(-1, 1), "Uniform(-1, 1)", False),
        (priors.LKJ(2), "LKJ(2)", False),
        (priors.Flat(), "Flat()", True),
        (priors.Constant(2.5), "Constant(2.5)", True),
        (priors.Constant(-1), "Constant(-1)", False),
        (priors.Constant(0), "Constant(0)", False),
        (priors.Relative(priors.HalfNormal(1)), "sigma * HalfNormal(1)", True),
        (priors.Relative(priors.Constant(0.2)), "sigma * Constant(0.2)", True),
    ],
    ids=str,
)
def test_a_prior_is_written_with_four_digits_and_knows_its_sign(prior, text, positive):
    assert str(prior) == text
    assert prior.positive is positive


def test_flat_priors_alone_are_improper():
    flat = [priors.Flat(), priors.Relative(priors.Flat())]
    rest = [priors.Relative(priors.HalfNormal(1)), priors.Constant(1), priors.Uniform(0, 1e9)]
    assert [prior.proper for prior in [*flat, *rest]] == [False, False, True, True, True]


def test_a_prior_is_a_value():
    assert priors.Normal(0, 1) == priors.Normal(mu=0.0, sigma=1.0)
    assert hash(priors.LKJ(2)) == hash(priors.LKJ(2.0))
    with pytest.raises(FrozenInstanceError):
        priors.Normal(0, 1).mu = 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: priors.Normal(0, -1), "Normal: sigma must be positive, got -1"),
        (lambda: priors.Normal(0, 0.0), "Normal: sigma must be positive, got 0.0"),
        (lambda: priors.Normal(math.inf, 1), "Normal: mu must be a finite number, got inf"),
        (lambda: priors.StudentT(0, 0, 1), "StudentT: nu must be positive, got 0"),
        (lambda: priors.Gamma("2", 1), "Gamma: alpha must be a finite number, got '2'"),
        (lambda: priors.LKJ(eta=True), "LKJ: eta must be a finite number, got True"),
        (
            lambda: priors.Exponential(math.nan),
            "Exponential: scale must be a finite number, got nan",
        ),
        (
            lambda: priors.Uniform(1, 1),
            "Uniform: lower must be below upper, got lower=1, upper=1",
        ),
        (lambda: priors.HalfNormal(-1), "HalfNormal: sigma must be positive, got -1"),
        (lambda: priors.HalfCauchy(0), "HalfCauchy: beta must be positive, got 0"),
        (lambda: priors.HalfStudentT(3, -2), "HalfStudentT: sigma must be positive, got -2"),
        (lambda: priors.InverseGamma(1, -2), "InverseGamma: beta must be positive, got -2"),
        (lambda: priors.LogNormal(0, 0), "LogNormal: sigma must be positive, got 0"),
        (lambda: priors.Constant(math.inf), "Constant: value must be a finite number, got inf"),
        (lambda: priors.Constant("1"), "Constant: value must be a finite number, got '1'"),
        (lambda: priors.Relative(1), f"{RELATIVE}, got 1"),
        (lambda: priors.Relative(priors.Normal(0, 1)), f"{RELATIVE}, got Normal(0, 1)"),
        (lambda: priors.Relative(priors.Constant(0)), f"{RELATIVE}, got Constant(0)"),
        (
            lambda: priors.Relative(priors.Relative(priors.HalfNormal(1))),
            f"{RELATIVE}, got sigma * HalfNormal(1)",
        ),
    ],
)
def test_an_impossible_prior_cannot_be_made(make, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        make()


def test_heavy_tails_have_no_mean():
    """The mean of an inverse gamma distribution needs alpha > 1, that of a t one nu > 1."""
    for nu in (0.5, 1, 1.5, 3):
        expected = bool(np.isfinite(stats.invgamma(nu).mean()))
        assert priors.InverseGamma(nu, 1).has_mean is expected
        assert priors.HalfStudentT(nu, 1).has_mean is expected
        assert priors.StudentT(nu, 0, 1).has_mean is expected
    assert not priors.HalfCauchy(1).has_mean
    assert not priors.Flat().has_mean
    assert priors.LogNormal(0, 2).has_mean
