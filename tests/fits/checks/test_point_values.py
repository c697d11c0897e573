"""A posterior as single numbers: close to the estimates of the same model."""

from __future__ import annotations

import numpy as np

import ranef as rf
from ranef.fits.checks.point_values import refitted, values_at


def test_an_estimate_is_itself():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    assert values_at(fit).estimate is fit.estimate
    assert refitted(fit).fit is fit


def test_a_posterior_has_its_means():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    found = values_at(fit)
    np.testing.assert_allclose(found.estimate.beta, fit.fixef())
    assert found.parameters == {"sigma": fit.sigma}
    np.testing.assert_allclose(found.estimate.Lambdas[0], fit.theta.reshape(1, 1))


def test_of_a_generalised_model_there_are_weights():
    data, formula = rf.load_dataset("cbpp"), "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    fit = rf.fit(formula, data, "laplace", family="binomial", seed=1)
    expected = data["size"] * fit.fitted() * (1 - fit.fitted())
    found = values_at(fit).estimate.working_weights
    np.testing.assert_allclose(found, expected, rtol=0.1)
    assert 10 < fit.leverage().sum() < 16
    n_agq = rf.fit(formula, data, family="binomial", n_agq=5)
    assert refitted(n_agq).options == {"n_agq": 5}
