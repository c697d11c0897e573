"""Prior records: what they accept, and how they are written."""

import math
import re
from dataclasses import FrozenInstanceError

import pytest

from ranef import priors
from ranef.errors import FitError


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
    ],
    ids=str,
)
def test_a_prior_is_written_with_four_digits_and_knows_its_sign(prior, text, positive):
    assert str(prior) == text
    assert prior.positive is positive


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
    ],
)
def test_an_impossible_prior_cannot_be_made(make, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        make()
