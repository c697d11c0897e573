"""Tests of simulated studies, against the same tests of fits of the same responses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planned_studies import SLEEP, STATED

import ranef as rf
from ranef.comparison.null_distributions import chi_bar_squared
from ranef.errors import FitError
from ranef.likelihood.bootstrap.bootstrap import ratios_of
from ranef.likelihood.bootstrap.refits import _contrast
from ranef.likelihood.bootstrap.simulated_responses import responses, sums_of
from ranef.planning import rejections
from ranef.planning.planned_rows import Plan
from ranef.planning.rejections import Replications, critical_value, ratio_tests
from ranef.planning.stated_parameters import stated


@pytest.fixture(scope="module")
def y(plan):
    return rf.simulate(SLEEP, plan.frame, n=24, seed=16, **STATED)


@pytest.mark.parametrize("change", [". ~ . - Days", ". ~ . - (Days | Subject) + (1 | Subject)"])
def test_ratios_are_those_of_two_fits(plan, truth, y, change):
    method = "ml" if "- Days" in change else "reml"
    large = rf.fit(SLEEP, plan.frame.assign(Reaction=y[:, 0]), method)
    small = large.update(change)
    designs = plan.design(small.design.formula.text), plan.design()
    rivals, _ = rejections._rivals(designs, truth, Replications(10, 1))
    sums = sums_of(rivals.columns, y.T)
    models = rivals.small, rivals.large
    refits = [m.refit(responses(rivals.columns, sums, m.cross, i)) for i, m in enumerate(models)]
    found = _contrast(rivals, refits)[:5]
    wanted = [small.refit(y[:, i]).objective - large.refit(y[:, i]).objective for i in range(5)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_cross_products_and_rows_have_one_power(plan, truth):
    """The same test of studies that are drawn either way: 1,000 each."""
    designs = plan.design("Reaction ~ 1 + (Days | Subject)"), plan.design()
    studies = Replications(1000, 3)
    one = ratio_tests(designs, plan.family, truth, studies, alpha=0.05, test="chi2").found.mean()
    rivals, _ = rejections._rivals(designs, truth, studies)
    drawn = rf.simulate(SLEEP, plan.frame, n=1000, seed=4, **STATED)
    sums, models = sums_of(rivals.columns, drawn.T), (rivals.small, rivals.large)
    refits = [m.refit(responses(rivals.columns, sums, m.cross, i)) for i, m in enumerate(models)]
    other = (_contrast(rivals, refits) >= critical_value(*designs, 0.05, "chi2")).mean()
    assert one == pytest.approx(other, abs=4 * np.sqrt(2 * 0.25 / 1000))


def test_tests_keep_their_level(plan):
    error, beta = 4 * np.sqrt(0.05 * 0.95 / 800), {"Intercept": 250, "Days": 0}
    plain = stated(
        plan.design(), plan.family, beta, {"Subject": {"Intercept": 25, "Days": 0}}, {"sigma": 25}
    )
    designs = plan.design("Reaction ~ Days + (1 | Subject)"), plan.design()
    found = ratio_tests(
        designs, plan.family, plain, Replications(800, 1), alpha=0.05, test="bootstrap"
    )
    assert found.found.mean() == pytest.approx(0.05, abs=1.5 * error)


def test_critical_values_are_those_of_mixtures(plan):
    designs = plan.design("Reaction ~ Days + (1 | Subject)"), plan.design()
    assert critical_value(*designs, 0.05, "chi2") == pytest.approx(5.991465, abs=1e-5)
    mixed = critical_value(*designs, 0.05, "mixture")
    assert chi_bar_squared(mixed, 1, 1) == pytest.approx(0.05, abs=1e-9)
    alone = plan.design("Reaction ~ Days"), plan.design("Reaction ~ Days + (1 | Subject)")
    assert critical_value(*alone, 0.05, "mixture") == pytest.approx(2.705543, abs=1e-5)
    with pytest.raises(FitError, match="has no simple weights"):
        critical_value(plan.design("Reaction ~ Days"), plan.design(), 0.05, "mixture")


def test_ratios_of_a_generalised_model_are_those_of_two_fits():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    large = rf.fit(formula, data, family="binomial")
    small = large.update(". ~ . - period")
    y = large.simulate(3, seed=3)
    found = ratios_of(small.fitted_model, large.fitted_model, y.T)
    wanted = [small.refit(one).objective - large.refit(one).objective for one in y.T]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("smaller", [SLEEP, "Reaction ~ Days + (1 | Days)", "Reaction ~ I(Days^2)"])
def test_a_model_that_is_not_smaller_is_refused(plan, truth, smaller):
    designs = plan.design(smaller), plan.design()
    with pytest.raises(FitError, match="is not a smaller model than"):
        ratio_tests(designs, plan.family, truth, Replications(10, 1), alpha=0.05, test="chi2")


def test_the_smaller_generalised_model_is_simulated_near_the_truth():
    frame = pd.DataFrame({"g": np.repeat(np.arange(40), 10), "x": np.tile(np.arange(10) / 9, 40)})
    plan = Plan.of("y ~ x + (1 | g)", frame, "negative_binomial")
    own = {"shape": 3.0}
    none = stated(plan.design(), plan.family, [1.0, 0.0], {"g": {"Intercept": 0.5}}, own)
    designs, studies = (plan.design("y ~ 1 + (1 | g)"), plan.design()), Replications(9, 1)
    typical = rejections._typical(designs, plan.family, none, studies)
    np.testing.assert_allclose(typical.beta, [1.0], atol=0.1)
    np.testing.assert_allclose(np.abs(typical.roots[0]), [[0.5]], atol=0.1)
    assert typical.parameters == {"shape": pytest.approx(3.0, rel=0.25)}
    drawn, lost = rejections._generalized_ratios(
        designs, plan.family, typical, Replications(30, 1, first=9), model=0
    )
    assert not lost.any()
    # chi-squared with one degree of freedom, whose median is 0.455
    assert 0.2 < (drawn > 0.455).mean() < 0.8
