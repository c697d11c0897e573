"""Stated parameters: the ways to say them, and what is said of those that are none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import FitError
from ranef.planning.stated_parameters import stated

BETA, SIGMA = {"Intercept": 250, "Days": 10}, {"sigma": 25}


@pytest.fixture(scope="module")
def fit():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))


def covariance(fit, theta, parameters=SIGMA):
    (root,) = stated(fit.design, fit.family, BETA, theta, parameters).roots
    return root @ root.T


def test_all_ways_to_say_a_covariance_are_one(fit):
    wanted = np.array([[625.0, 30.0], [30.0, 36.0]])  # sds 25 and 6, correlation 0.2
    ways = [
        {"sd_Subject[Intercept]": 25, "sd_Subject[Days]": 6, "corr_Subject[Intercept, Days]": 0.2},
        {"sd_Subject": {"Intercept": 25, "Days": 6}, "corr_Subject": 0.2},
        {"Subject": {"Days": 6, "Intercept": 25}, "corr_Subject": 0.2},
        np.linalg.cholesky(wanted / 625)[[0, 1, 1], [0, 0, 1]],
        pd.Series(
            np.linalg.cholesky(wanted / 625)[[0, 1, 1], [0, 0, 1]],
            ["Subject.Intercept", "Subject.Days.Intercept", "Subject.Days"],
        ),
    ]
    for theta in ways:
        np.testing.assert_allclose(covariance(fit, theta), wanted, atol=1e-10)


def test_the_numbers_of_a_fit_are_its_own(fit):
    numbers = stated(fit.design, fit.family, fit.fixef(), fit.theta, {"sigma": fit.sigma})
    np.testing.assert_allclose(
        numbers.roots[0] @ numbers.roots[0].T, fit.varcorr().cov["Subject"], rtol=1e-10
    )
    assert numbers.words(fit.design)[-1] == "corr_Subject[Intercept, Days] 0.06555"


def test_a_zero_and_a_perfect_correlation(fit):
    cov = covariance(fit, {"Subject": {"Intercept": 25, "Days": 0}})
    np.testing.assert_allclose(cov, [[625, 0], [0, 0]], atol=1e-10)
    cov = covariance(fit, {"Subject": {"Intercept": 2, "Days": 3}, "corr_Subject": -1})
    np.testing.assert_allclose(cov, [[4, -6], [-6, 9]], atol=1e-10)


GOOD = {"Subject": {"Intercept": 25, "Days": 6}}


@pytest.mark.parametrize(
    ("beta", "theta", "own", "said"),
    [
        (None, GOOD, SIGMA, "beta is missing: give the fixed effects `Intercept` and `Days`."),
        ([1], GOOD, SIGMA, "beta has shape (1,), expected 2 fixed effects: `Intercept` and `Days`"),
        ({"Days": 1}, GOOD, SIGMA, "beta is for `Intercept` and `Days`; got `Days`."),
        ([1, np.nan], GOOD, SIGMA, "beta must be finite"),
        (BETA, None, SIGMA, "theta is missing: give the standard deviations of the random effects"),
        (BETA, [1, 2], SIGMA, "theta has shape (2,), expected 3: `Subject.Intercept`, `Subject.D"),
        (
            BETA,
            {"Subject": 3},
            SIGMA,
            "(1 + Days | Subject) has 2 standard deviations: {'Subject':",
        ),
        (BETA, {"Subject": {"Dys": 3}}, SIGMA, "has no coefficient `Dys`. Did you mean `Days`?"),
        (BETA, {"sd_Subject[Days]": 3}, SIGMA, "theta: `sd_Subject[Intercept]` is missing."),
        (BETA, {"sd_Subjct": 3}, SIGMA, "theta: `sd_Subjct` is no parameter of the model."),
        (BETA, GOOD | {"corr_Subject": 2}, SIGMA, "must be a correlation, from -1 to 1, got 2."),
        (BETA, {"Subject": {"Days": -1}}, SIGMA, "must be a standard deviation, zero or more, got"),
        (BETA, GOOD | {"sd_Subject[Days]": 1}, SIGMA, "theta: `sd_Subject[Days]` is given twice."),
        (
            BETA,
            {"Subject": {"Days": [1]}},
            SIGMA,
            "must be a standard deviation, zero or more, got",
        ),
        (BETA, GOOD, {}, "`sigma` is missing: the gaussian family needs it: sigma=."),
        (BETA, GOOD, {"sigma": 0}, "`sigma` must be a positive number, got 0."),
        (BETA, GOOD, SIGMA | {"shape": 1}, "the gaussian family has no `shape`; it has `sigma`."),
    ],
)
def test_what_is_no_parameter_is_said(fit, beta, theta, own, said):
    with pytest.raises(FitError) as caught:
        stated(fit.design, fit.family, beta, theta, own)
    assert said in str(caught.value)


def test_correlations_are_those_of_one_distribution():
    data = rf.load_dataset("sleepstudy").assign(z=lambda d: d["Days"] ** 2.0, w=1.5)
    model = rf.Model("Reaction ~ 1 + (Days + z | Subject)", data)
    theta = {"Subject": {"Intercept": 1, "Days": 1, "z": 1}}
    theta |= {
        "corr_Subject[Intercept, Days]": 0.9,
        "corr_Subject[Intercept, z]": 0.9,
        "corr_Subject[Days, z]": -0.9,
    }
    with pytest.raises(FitError, match="are none of one distribution: their matrix has the eig"):
        stated(model.design, model.family, [1.0], theta, SIGMA)
