"""Generalised models on random small data: an answer that holds, or a typed refusal."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.covariances.covariance import theta_of
from ranef.design.design import full_rank
from ranef.errors import RanefError
from ranef.families.names import find_family
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.generalized.maximum import JointObjective
from ranef.numerics.minimize import minimize

STRUCTURES = (
    "{y} ~ x",
    "{y} ~ x + (1 | g)",
    "{y} ~ x + f + (1 | g)",
    "{y} ~ x + (x | g)",
    "{y} ~ x + (x || g)",
    "{y} ~ 0 + (1 | g)",
    "{y} ~ x + (1 | g) + (1 | h)",
    "{y} ~ f + (1 | h/g)",
    "{y} ~ x + (1 | g) + (x | h)",
    "{y} ~ x + (f | g)",
)
FAMILIES = (
    ("binomial", "logit", ()),
    ("binomial", "probit", ()),
    ("binomial", "cloglog", ()),
    ("bernoulli", "logit", ()),
    ("poisson", "log", ()),
    ("poisson", "sqrt", ()),
    ("negative_binomial", "log", (1.5,)),
    ("gamma", "log", (0.6,)),
    ("gamma", "inverse", (0.3,)),
    ("inverse_gaussian", "log", (0.4,)),
    ("beta", "logit", (6.0,)),
    ("gaussian", "log", (0.5,)),
    ("t", "identity", (0.8, 4.0)),
)
SEEDS = range(200)


def random_model(seed):
    """Return the arguments of a model: few rows, any structure, any size of effects."""
    rng = np.random.default_rng(seed)
    name, link, psi = FAMILIES[seed % len(FAMILIES)]
    formula = STRUCTURES[rng.integers(len(STRUCTURES))]
    family, n = find_family(name, link), int(rng.integers(8, 90))
    d = pd.DataFrame({"x": rng.normal(size=n) * 10.0 ** rng.integers(-2, 3)})
    d["g"], d["h"] = rng.integers(0, rng.integers(2, 12), n), rng.integers(0, 4, n)
    d["f"], d["trials"] = rng.choice(list("abc"), n), rng.integers(1, 9, n)
    eta = rng.normal(0, 0.5) + rng.normal(0, 0.5) * d["x"] / d["x"].std()
    eta += rng.normal(0, rng.choice([0.0, 0.5, 1.5]), 12)[d["g"]]
    eta += rng.normal(0, rng.choice([0.0, 0.5]), 4)[d["h"]]
    if link in ("inverse", "sqrt"):
        eta = 1.5 + 0.5 * np.tanh(eta)
    weights = d["trials"].to_numpy(float) if name == "binomial" else np.ones(n)
    y = family.draw(rng, family.link.inverse(eta.to_numpy(float)), weights, *psi)
    if name == "beta":
        y = np.clip(y, 1e-6, 1 - 1e-6)
    d["y"], d["k"] = y, np.round(y * d["trials"])
    response = "cbind(k, trials - k)" if name == "binomial" else "y"
    return formula.format(y=response), d, family


def at_estimates(fit):
    """Return the fit's likelihood as it is maximised, and where its estimates are."""
    model = prepare(full_rank(fit.design), fit.family)
    gamma = np.linalg.solve(model.to_users, fit.fixef().to_numpy())
    factors = zip(model.bases, fit.estimate.Lambdas, strict=True)
    Lambdas = [fit.sigma * T @ Lambda for T, Lambda in factors]
    Lambdas = [np.tril(np.linalg.qr(L.T, mode="r").T) for L in Lambdas]
    own = np.log(list(fit.parameters.values()))
    x = np.concatenate([gamma, own, theta_of(Lambdas, model.covariances)])
    return JointObjective(model, model.zeros(), max(fit.estimate.n_agq, 1)), x


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_an_answer_or_a_typed_refusal(seed):
    formula, data, family = random_model(seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            fit = rf.Model(formula, data, family=family).fit()
        except RanefError:
            return
    assert {w.category for w in caught} <= {rf.ConvergenceWarning, rf.DataWarning}
    assert np.isfinite(fit.loglik)
    warned = any(w.category is rf.ConvergenceWarning for w in caught)
    assert fit.converged != warned
    if warned:
        return
    assert np.isfinite(fit.se()).all()
    objective, x = at_estimates(fit)
    assert objective(x)[0] == pytest.approx(fit.objective, rel=1e-9, abs=1e-9)
    rng = np.random.default_rng(seed)
    for size in (0.1, 0.5, 2.0):
        again = minimize(objective, x + rng.normal(0, size, len(x)))
        assert again.value > fit.objective - 1e-5


@pytest.mark.slow
def test_the_refusals_are_few():
    """Most of the random data carry a fit."""
    outcomes = []
    for seed in SEEDS[:26]:
        formula, data, family = random_model(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                outcomes.append(rf.Model(formula, data, family=family).fit().converged)
            except RanefError:
                outcomes.append(False)
    assert sum(outcomes) >= 20
