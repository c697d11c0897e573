"""Residuals of every kind: against dense algebra, and uniform where the model holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, stats

import ranef as rf
from fits import fit_of
from ranef.errors import FitError
from ranef.fits.checks.residual_kinds import ranked

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.load_dataset("sleepstudy"))


def test_marginal_residuals_are_what_the_fixed_effects_leave(sleep):
    data = rf.load_dataset("sleepstudy")
    beta = sleep.fixef()
    expected = data["Reaction"] - beta["Intercept"] - beta["Days"] * data["Days"]
    np.testing.assert_allclose(sleep.residuals(groups="population"), expected, atol=1e-9)
    np.testing.assert_allclose(sleep.residuals("pearson", "average"), expected, atol=1e-9)


@pytest.mark.parametrize("name", ["nested", "crossed", "weights and offset", "no random terms"])
def test_whitened_residuals_have_the_norm_that_v_gives_them(name):
    fit = fit_of(name, "ml")
    rows, V = fit.design.rows, np.diag(fit.sigma**2 / fit.design.rows.weights)
    for term, factor in zip(rows.terms, fit.estimate.Lambdas, strict=True):
        half = fit.sigma * term.columns @ factor
        V += (term.codes[:, None] == term.codes) * (half @ half.T)
    left = rows.y - rows.offset - rows.X @ fit.fixef().to_numpy()
    found = fit.residuals("whitened")
    assert found @ found == pytest.approx(left @ np.linalg.solve(V, left), rel=1e-8)
    if name == "crossed":  # one component: the factor of all rows in their order
        root = np.linalg.cholesky(V)
        expected = linalg.solve_triangular(root, left, lower=True)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def simulated(family, seed):
    """Return data of a well-specified model, and the misfit that is planted in others."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(30), 15)
    x, b = rng.normal(size=len(g)), 0.6 * rng.normal(size=30)[g]
    eta = 1.0 + 0.4 * x + b
    mu, p = np.exp(eta), 1 / (1 + np.exp(-eta + 1.0))
    y = {
        "poisson": lambda: rng.poisson(mu),
        "binomial": lambda: rng.binomial(12, p),
        "gamma": lambda: rng.gamma(4.0, mu / 4.0),
        "lognormal counts": lambda: rng.poisson(mu * np.exp(0.6 * rng.normal(size=len(g)))),
        "overdispersed": lambda: rng.poisson(mu * rng.gamma(1.0, 1.0, size=len(g))),
        "inflated": lambda: np.where(rng.random(len(g)) < 0.3, 0, rng.poisson(mu)),
        "negative binomial": lambda: rng.negative_binomial(2.0, 2.0 / (2.0 + mu)),
        "absent": lambda: np.where(
            rng.random(len(g)) < 0.4, 0, rng.negative_binomial(8.0, 0.4, len(g))
        ),
        "clumped": lambda: rng.binomial(12, rng.beta(2 * p, 2 * (1 - p))),
    }[family]()
    return pd.DataFrame({"y": y, "x": x, "g": g, "row": np.arange(len(g)), "n": 12})


MODELS = {
    "poisson": ("y ~ x + (1 | g)", "poisson"),
    "gamma": ("y ~ x + (1 | g)", "gamma"),
    "lognormal counts": ("y ~ x + (1 | g) + (1 | row)", "poisson"),
    "binomial": ("cbind(y, n - y) ~ x + (1 | g)", "binomial"),
    "overdispersed": ("y ~ x + (1 | g)", "poisson"),
    "inflated": ("y ~ x + (1 | g)", "poisson"),
    "negative binomial": ("y ~ x + (1 | g)", "negative_binomial"),
    "absent": ("y ~ x + (1 | g)", "negative_binomial"),
    "clumped": ("cbind(y, n - y) ~ x + (1 | g)", "binomial"),
}


def quantiles(name, seed):
    formula, family = MODELS[name]
    link = {"link": "log"} if family == "gamma" else {}
    return rf.fit(formula, simulated(name, seed), family=family, **link).residuals(
        "quantile", "known" if name != "lognormal counts" else None, seed=seed
    )


@pytest.mark.parametrize(
    "name", ["poisson", "binomial", "gamma", "lognormal counts", "negative binomial"]
)
def test_quantile_residuals_of_a_model_that_holds_are_uniform(name):
    found = quantiles(name, 1)
    assert stats.kstest(found, "uniform").pvalue > 0.05
    assert abs(found.std() - 12**-0.5) < 0.02


@pytest.mark.parametrize("name", ["overdispersed", "inflated", "clumped", "absent"])
def test_quantile_residuals_of_a_planted_misfit_are_not(name):
    assert stats.kstest(quantiles(name, 1), "uniform").pvalue < 1e-3


def test_ties_are_broken_at_random():
    """Of responses that are 0 or 1 all columns are uniform, and stand in their order."""
    rng = np.random.default_rng(1)
    responses = (rng.random((400, 11)) < 0.3).astype(float)
    found = ranked(responses, 1)
    assert stats.kstest(found.ravel(), "uniform").pvalue > 0.01
    for row, places in zip(responses, found, strict=True):
        assert places[row == 0].max(initial=0.0) <= places[row == 1].min(initial=1.0)
    single = ranked(np.array([[3.0, 1.0, 2.0]]), 1)
    np.testing.assert_array_equal(np.ceil(3 * single), [[3.0, 1.0, 2.0]])


def test_quantile_residuals_are_as_the_seed_says():
    fit = rf.fit("y ~ x + (1 | g)", simulated("poisson", 2), family="poisson")
    first, again = (fit.residuals("quantile", seed=4, n=50) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != fit.residuals("quantile", seed=5, n=50)).any()


def test_of_a_posterior_residuals_are_around_its_means(sleep_post, sleep):
    for kind in ("standardized", "whitened"):
        found, close = sleep_post.residuals(kind), sleep.residuals(kind)
        assert np.corrcoef(found, close)[0, 1] > 0.99
    found = sleep_post.residuals("quantile", seed=1)
    assert ((found > 0) & (found < 1)).all()


def test_bad_questions_are_answered(sleep):
    with pytest.raises(
        FitError, match=r"kind='raw' is not a kind of residual\. Known names: `response`"
    ):
        sleep.residuals("raw")
    with pytest.raises(FitError, match="groups='new' is not what response residuals are given"):
        sleep.residuals("response", "new")
    cbpp = rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )
    with pytest.raises(FitError, match=r'of a binomial model see fit\.residuals\("quantile"\)'):
        cbpp.residuals("whitened")
    rng = np.random.default_rng(1)
    large = {"y": rng.normal(size=6000), "g": rng.integers(0, 2, 6000)}
    large["h"] = rng.integers(0, 50, 6000)
    fit = rf.fit("y ~ 1 + (1 | g) + (1 | h)", large)
    with pytest.raises(FitError, match="6,000 rows depend on each other through `h` and `g`"):
        fit.residuals("whitened")
