"""Refits of many responses together against fits of one response at a time."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.separation import separated_columns
from ranef.likelihood.bootstrap.bootstrap import refitted, simulated_response
from ranef.likelihood.bootstrap.generalized_refits import (
    Deviances,
    _upwards,
    generalized_refitter,
)
from ranef.likelihood.bootstrap.simulated_responses import seeds_of_replicates
from ranef.likelihood.generalized import pieces

N = 200


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    x, g, h = rng.normal(size=N), np.arange(N) % 20, rng.integers(0, 8, N)
    eta = 0.6 + 0.3 * x + 0.6 * rng.normal(size=20)[g] + 0.4 * rng.normal(size=8)[h]
    mean = np.exp(eta)
    return pd.DataFrame(
        {
            "x": x,
            "g": g,
            "h": h,
            "s": g // 2,
            "count": rng.poisson(mean),
            "wide": rng.negative_binomial(3, 3 / (3 + mean)),
            "time": rng.gamma(4.0, mean / 4.0),
            "yes": rng.binomial(1, mean / (1 + mean)),
            "zero": rng.poisson(1.0, N),  # without effects of g
        }
    )


CASES = {
    "one factor": ("count ~ x + (1 | g)", "poisson"),
    "slopes": ("yes ~ x + (x | g)", "bernoulli"),
    "nested": ("count ~ x + (1 | s/g)", "poisson"),
    "crossed": ("yes ~ x + (1 | g) + (1 | h)", "bernoulli"),
    "own parameter": ("wide ~ x + (1 | g)", "negative_binomial"),
    "sigma": ("time ~ x + (1 | g) + (1 | h)", "gamma"),
    "no random effects": ("wide ~ x", "negative_binomial"),
    "variances of zero": ("zero ~ x + (x || g)", "poisson"),
}


def drawn(fit, count, seed=3):
    seeds = seeds_of_replicates(seed, count)
    return np.array([simulated_response(fit.fitted_model, s) for s in seeds])


def one(fit, y):
    model = refitted(fit.fitted_model, fit.design.with_rows(y=y))
    return None if model is None else replace(fit, design=model.design, estimate=model.estimate)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_replicates_are_as_fits_of_their_own(case):
    formula, family = CASES[case]
    fit = rf.fit(formula, frame(), family=family)
    y = drawn(fit, 3)
    found = generalized_refitter(fit.fitted_model).refit(y)
    assert found.settled.sum() >= 2
    for i in np.flatnonzero(found.settled):
        alone = one(fit, y[i])
        assert found.objective[i] == pytest.approx(alone.objective, abs=1e-8)
        np.testing.assert_allclose(found.beta[i], alone.fixef(), atol=1e-4 * alone.se().min())
        for root, label in zip(found.Lambdas, alone.varcorr().sd, strict=True):
            sds = np.linalg.norm(root[i], axis=1)
            np.testing.assert_allclose(sds, alone.varcorr().sd[label], atol=1e-5)
        own = list(alone.fitted_model.parameters.values())
        np.testing.assert_allclose(found.psi[i], own, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_zero_is_exact():
    formula, family = CASES["variances of zero"]
    fit = rf.fit(formula, frame(), family=family)
    found = generalized_refitter(fit.fitted_model).refit(drawn(fit, 12))
    sds = np.array([np.linalg.norm(root, axis=2) for root in found.Lambdas])
    assert (sds == 0).sum() > 10


def test_the_gradient_is_that_of_the_deviance():
    fit = rf.fit("time ~ x + (x | g) + (1 | h)", frame(), family="gamma")
    model = generalized_refitter(fit.fitted_model)
    deviances = Deviances(model.model, model.pieces, drawn(fit, 2), model.units, model.u)
    z, who = np.array([model.start, model.start + 0.3]), np.array([1, 0])
    gradient = deviances(z, who)[1]
    for j in range(len(model.start)):
        step = 1e-4 * np.eye(len(model.start))[j]
        slope = (deviances(z + step, who)[0] - deviances(z - step, who)[0]) / 2e-4
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-5, atol=1e-5)


def test_what_is_not_refitted_together(monkeypatch):
    data = frame()
    quadrature = rf.fit("yes ~ x + (1 | g)", data, family="bernoulli", n_agq=5)
    assert generalized_refitter(quadrature.fitted_model) is None
    crossed = rf.fit("yes ~ x + (1 | g) + (1 | h)", data, family="bernoulli")
    monkeypatch.setattr(pieces, "MAX_ELEMENTS_TOGETHER", 10)
    assert generalized_refitter(crossed.fitted_model) is None


def test_a_separated_response_is_left_to_a_fit_of_its_own():
    fit = rf.fit("yes ~ x + (1 | g)", frame(), family="bernoulli")
    y = np.vstack([drawn(fit, 1), fit.design.rows.X[:, 1] > 0.3])
    assert separated_columns(fit.design.with_rows(y=y[1]), fit.fitted_model.family)
    assert generalized_refitter(fit.fitted_model).refit(y).settled.tolist() == [True, False]


def test_a_refitter_travels_to_other_processes():
    fit = rf.fit("yes ~ x + (1 | g)", frame(), family="bernoulli")
    model, y = generalized_refitter(fit.fitted_model), drawn(fit, 3)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.refit(y).beta, model.refit(y).beta)


def test_a_curvature_that_goes_down_is_turned_up():
    H = _upwards(np.array([[2.0, 0.0], [0.0, -3.0]]))
    np.testing.assert_allclose(H, np.diag([2.0, 3.0]))
    assert np.linalg.eigvalsh(_upwards(np.diag([1.0, 0.0]))).min() > 0
