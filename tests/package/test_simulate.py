"""New responses from a fit: their means, their variances and their covariance within a group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf

M, EACH = 30, 4


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(7)
    g, x = np.repeat(np.arange(M), EACH), rng.normal(size=M * EACH)
    eta = 0.5 + 0.4 * x + 0.7 * rng.normal(size=M)[g]
    return pd.DataFrame(
        {
            "g": [f"g{i:02d}" for i in g],
            "x": x,
            "y": eta + rng.normal(size=len(x)),
            "count": rng.poisson(np.exp(eta)),
            "trials": rng.integers(1, 9, len(x)),
        }
    ).assign(yes=lambda d: rng.binomial(d["trials"], 1 / (1 + np.exp(-eta))))


def test_a_linear_model_has_its_mean_and_covariance(data):
    fit = rf.fit("y ~ x + (1 | g)", data)
    y = fit.simulate(20_000, seed=1)
    assert y.shape == (M * EACH, 20_000)
    mean = fit.predict(groups="population")
    tau2, sigma2 = float(fit.varcorr().cov["g"].iloc[0, 0]), fit.sigma**2
    error = np.sqrt((tau2 + sigma2) / 20_000)
    assert np.abs(y.mean(1) - mean).max() < 4.5 * error
    cov = np.cov(y[:EACH])
    wanted = tau2 + sigma2 * np.eye(EACH)
    np.testing.assert_allclose(cov, wanted, atol=0.06 * (tau2 + sigma2))


def test_correlated_slopes_have_their_covariance(data):
    fit = rf.fit("y ~ x + (x | g)", data, method="ml")
    y = fit.simulate(20_000, seed=2)[:EACH]
    Z = np.column_stack([np.ones(EACH), data["x"][:EACH]])
    wanted = Z @ fit.varcorr().cov["g"].to_numpy() @ Z.T + fit.sigma**2 * np.eye(EACH)
    np.testing.assert_allclose(np.cov(y), wanted, atol=0.06 * np.diag(wanted).max())


def test_known_groups_keep_their_effects(data):
    fit = rf.fit("count ~ x + (1 | g)", data, family="poisson")
    y = fit.simulate(4000, seed=1, groups="known")
    mu = fit.fitted()
    assert np.abs((y.mean(1) - mu) / np.sqrt(mu / 4000)).max() < 4.5
    assert (y == np.round(y)).all()


def test_new_groups_of_counts_vary_more(data):
    """The mean of a Poisson variable with a log-normal rate, and its variance."""
    fit = rf.fit("count ~ x + (1 | g)", data, family="poisson")
    tau2 = float(fit.varcorr().cov["g"].iloc[0, 0])
    y = fit.simulate(40_000, seed=3)
    mean = np.exp(fit.predict(groups="population", kind="link") + tau2 / 2)
    variance = mean + mean**2 * np.expm1(tau2)
    assert np.abs((y.mean(1) - mean) / np.sqrt(variance / 40_000)).max() < 5
    np.testing.assert_allclose(y.var(1), variance, rtol=0.2)


def test_a_binomial_model_gives_proportions_of_its_trials(data):
    fit = rf.fit("cbind(yes, trials - yes) ~ x + (1 | g)", data, family="binomial")
    successes = fit.simulate(50, seed=1) * data["trials"].to_numpy()[:, None]
    np.testing.assert_allclose(successes, np.round(successes), atol=1e-9)
    assert successes.min() >= 0
    assert (successes <= data["trials"].to_numpy()[:, None]).all()


def test_own_parameters_take_part(data):
    fit = rf.fit("count ~ 1", data, family="negative_binomial")
    y = fit.simulate(20_000, seed=1)
    mu, shape = fit.fitted()[0], fit.parameters["shape"]
    assert y.mean() == pytest.approx(mu, rel=0.01)
    assert y.var() == pytest.approx(mu + mu**2 / shape, rel=0.02)


def test_a_posterior_takes_a_draw_for_each_data_set(data):
    fit = rf.Model("y ~ x + (x | g)", data).fit("laplace", draws=500, seed=1)
    y = fit.simulate(4000, seed=2)
    assert y.shape == (M * EACH, 4000)
    beta = fit.vcov().to_numpy()
    X = np.column_stack([np.ones(M * EACH), data["x"]])
    cov = fit.varcorr().cov["g"].to_numpy()
    wanted = np.einsum("ij,jk,ik->i", X, cov + beta, X) + fit.varcorr().sigma2
    np.testing.assert_allclose(y.var(1), wanted, rtol=0.2)


def test_without_random_or_fixed_effects(data):
    assert rf.fit("y ~ x", data).simulate(3, seed=1).shape == (M * EACH, 3)
    model = rf.Model("y ~ 0 + (1 | g)", data)
    assert model.fit("laplace", draws=500, seed=1).simulate(2, seed=1).shape == (M * EACH, 2)


def test_the_seed_decides(data):
    fit = rf.fit("count ~ x + (1 | g)", data, family="poisson")
    first, again, other = (fit.simulate(5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "`n` must be a positive whole number, got 0."),
        (
            {"seed": -1},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1.",
        ),
        (
            {"groups": "average"},
            "groups='average' is not an option. Known names: `new`, `known`, `population`.",
        ),
    ],
)
def test_options_that_do_not_exist(data, options, message):
    with pytest.raises(rf.FitError) as caught:
        rf.fit("y ~ x", data).simulate(**options)
    assert str(caught.value) == message
