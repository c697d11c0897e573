"""Bayes factors: by hand, and the reasons why there are none."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from comparison_cases import dyestuff, fitted

import ranef as rf
from ranef.comparison.bayes_factors import bayes_factors, no_bayes_factors, prior_probabilities
from ranef.errors import FitError
from ranef.posterior.prior_sensitivity import SCALES

P = rf.priors


def marginal(value, error, steepness):
    ratio = steepness * np.log(SCALES)
    moved = SimpleNamespace(log_ratio=ratio, mcse=np.full(len(SCALES), 0.01))
    return SimpleNamespace(value=value, error=error, method="by hand"), moved


def test_marginal_likelihoods_of_two_models():
    marginals = {"a": marginal(-10.0, 0.03, 0.0), "b": marginal(-8.0, 0.04, 0.5)}
    table, moved = bayes_factors(marginals, np.array([0.75, 0.25]))
    odds = 3 * np.exp(-2)
    assert table["probability"].tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])
    assert table["log_bayes_factor"].tolist() == [-2.0, 0.0]
    assert table["log_bayes_factor_error"].tolist() == pytest.approx([0.05, 0.0])
    reach = 0.5 * np.log(4)
    assert table.loc["a", "log_bayes_factor_lower"] == pytest.approx(-2 - reach)
    assert table.loc["a", "log_bayes_factor_upper"] == pytest.approx(-2 + reach)
    of_a = moved[moved["model"] == "a"]
    np.testing.assert_allclose(of_a["log_bf"], -2 - 0.5 * np.log(SCALES))
    np.testing.assert_allclose(of_a["mcse"], np.sqrt(2 * 0.01**2 + 0.05**2))
    assert (moved.loc[moved["model"] == "b", ["log_bf", "mcse"]] == 0).all(axis=None)


def test_prior_probabilities():
    assert prior_probabilities(None, ["a", "b"]).tolist() == [0.5, 0.5]
    assert prior_probabilities({"b": 3, "a": 1}, ["a", "b"]).tolist() == [0.25, 0.75]
    with pytest.raises(FitError, match=r"`prior` is for the models `a` and `b`; got none\."):
        prior_probabilities({}, ["a", "b"])
    with pytest.raises(FitError, match="must be probabilities"):
        prior_probabilities({"a": -1, "b": 2}, ["a", "b"])


def test_proper_priors_have_bayes_factors():
    assert no_bayes_factors({"a": fitted(), "b": fitted("Yield ~ 1")}) == ""


def test_flat_priors_of_what_all_models_share_cancel():
    flat = {"Intercept": P.Flat(), "sigma": P.Flat()}
    assert no_bayes_factors({"a": fitted(**flat), "b": fitted("Yield ~ 1", **flat)}) == ""


def test_a_flat_prior_of_a_variance():
    other = fitted(sd=P.Flat())
    assert no_bayes_factors({"a": fitted("Yield ~ 1"), "b": other}) == (
        "`b` has a flat prior on `sd_Batch[Intercept]`, whose arbitrary height would be a factor "
        "of its marginal likelihood: give it a proper prior."
    )


def test_flat_priors_of_different_parameters():
    assert no_bayes_factors({"a": fitted(), "b": fitted(Intercept=P.Flat())}) == (
        "`a` and `b` do not have flat priors on the same parameters (none; `Intercept`), so that "
        "their arbitrary heights do not cancel: give all of them proper priors."
    )


def test_a_flat_prior_of_sigma_with_other_weights():
    """Sigma is not the same parameter: twice the weights, and it is larger by sqrt(2)."""
    flat = rf.priors.Flat()
    a = fitted(sigma=flat)
    b = replace(a, design=a.design.with_rows(weights=a.design.rows.weights * 2))
    assert no_bayes_factors({"a": a, "b": a}) == ""
    assert no_bayes_factors({"a": a, "b": b}) == (
        "`a` and `b` have different weights, so that the arbitrary heights of their flat priors "
        "on `sigma` do not cancel: give it a proper prior."
    )


def test_flat_priors_of_different_columns():
    def fit(x):
        model = rf.Model("Yield ~ x + (1 | Batch)", dyestuff().assign(x=x), priors={"x": P.Flat()})
        return model.fit("laplace", draws=400, seed=1)

    fits = {"a": fit(np.arange(30.0)), "b": fit(np.arange(30.0) ** 2)}
    assert no_bayes_factors(fits) == (
        "`a` and `b` have different fixed effects with flat priors, whose arbitrary heights do not "
        "cancel: give the fixed effects proper priors."
    )
