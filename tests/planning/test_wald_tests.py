"""Tests of estimates over their errors in simulated studies, against fits of the same responses."""

from __future__ import annotations

import numpy as np
import pytest
from planned_studies import SLEEP, STATED
from scipy import special

import ranef as rf
from ranef.likelihood.bootstrap.refits import refitter
from ranef.likelihood.bootstrap.simulated_responses import responses, span, sums_of
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.degrees_of_freedom import contrast
from ranef.planning import wald_tests
from ranef.planning.rejections import Replications, true_theta
from ranef.planning.stated_parameters import stated

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def disease():
    return rf.fit(CBPP, rf.load_dataset("cbpp"), family="binomial")


def test_each_study_is_decided_as_its_fit_is(plan, truth):
    """Half of the slopes have variances near zero: degrees of freedom from 6 to 33."""
    y = rf.simulate(SLEEP, plan.frame, n=24, seed=16, **STATED)
    design = plan.design().with_rows(y=y[:, 0])
    cross, columns = cross_products(design), span(design)
    model = refitter(design, cross, true_theta(design, truth), reml=True)
    drawn = responses(columns, sums_of(columns, y.T), cross)
    refits, which = model.refit(drawn), ((0,), (1,), (0, 1))
    size = wald_tests._statistics(refits.beta, wald_tests._covariances(cross, refits), which)
    df = wald_tests._DegreesOfFreedom(cross, drawn, refits, which)
    mine = size >= wald_tests._limits(df, size, 0.05)
    fit = rf.fit(SLEEP, plan.frame.assign(Reaction=y[:, 0]))
    for i, column in enumerate(y.T):
        refit = fit.refit(column)
        table = refit.summary(df="satterthwaite").to_frame()
        one = cross_products(refit.design), refit.fitted_model.estimate
        both = contrast(*one, np.eye(2), "satterthwaite", reml=True)
        np.testing.assert_allclose(size[i], [*table["t"] ** 2, both.f], rtol=3e-4)
        assert mine[i].tolist() == [*(table["p_value"] < 0.05), both.p_value < 0.05]


def test_a_t_test_keeps_its_level(plan):
    beta = {"Intercept": 250, "Days": 0}
    none = stated(plan.design(), plan.family, beta, STATED["theta"], {"sigma": 25})
    (t,) = wald_tests.wald_tests(
        plan.design(), plan.family, none, Replications(800, 1), [(1,)], alpha=0.05, t=True
    )
    assert t.found.mean() < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 800)


def test_errors_of_generalised_models_are_those_of_their_fits(disease):
    y = disease.simulate(12, seed=3)
    beta, vcov = wald_tests._estimates(disease.fitted_model, y.T)
    for i in range(12):
        refit = disease.refit(y[:, i])
        np.testing.assert_allclose(beta[i], refit.fixef(), atol=1e-3)
        np.testing.assert_allclose(vcov[i], refit.vcov(), rtol=5e-3, atol=1e-4)


def test_a_study_that_cannot_be_fitted_finds_nothing(disease):
    y = np.array([disease.design.rows.y, np.zeros(disease.design.n_obs)])
    beta, vcov = wald_tests._estimates(disease.fitted_model, y)
    assert np.isfinite(beta).all(axis=1).tolist() == [True, False]
    statistics = wald_tests._statistics(beta, vcov, [(1,), (1, 2, 3)])
    assert (statistics[1] == 0).all()
    b, V = disease.fixef().to_numpy()[1:], disease.vcov().to_numpy()[1:, 1:]
    np.testing.assert_allclose(statistics[0, 1], b @ np.linalg.solve(V, b) / 3, rtol=1e-3)


def test_limits_are_those_of_the_distributions():
    which = [(0,), (1, 2)]
    normal = wald_tests._quantiles(np.inf, which, 0.05)
    np.testing.assert_allclose(normal, [special.ndtri(0.975) ** 2, special.chdtri(2, 0.05) / 2])
    some = wald_tests._quantiles(np.array([5.0, np.inf]), which, 0.05)
    np.testing.assert_allclose(some, [special.stdtrit(5, 0.975) ** 2, normal[1]])
