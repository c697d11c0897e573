"""Which methods a model has, and why it has no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from maximum_cases import frame

import ranef as rf
from ranef.errors import FitError


def model(family, formula="count ~ x + (1 | g)"):
    return rf.Model(formula, frame(), family=family)


def test_the_default_is_reml_for_linear_models_and_ml_for_all_others():
    assert model("gaussian").fit().method == "reml"
    assert model("poisson").fit().method == "ml"


def test_methods_of_linear_models_say_why_others_have_none():
    for method, reason in {
        "reml": "is for linear models: the poisson family with log link has no restricted "
        'likelihood. Use method="ml", or method="map" with priors="boundary" against variances '
        "of zero.",
        "quadrature": "is for linear models: with the poisson family with log link the fixed "
        "effects do not integrate out in closed form. Use "
        'method="laplace" or "mcmc"; for a quadrature over the random effects use n_agq=.',
    }.items():
        with pytest.raises(rf.FitError) as caught:
            model("poisson").fit(method)
        assert str(caught.value) == f"method={method!r} {reason}"


@pytest.mark.parametrize("method", ["ml", "map"])
def test_points_of_a_quadrature_reach_the_engine(method):
    found = [model("poisson").fit(method, n_agq=n).loglik for n in (1, 7)]
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=0.1)


@pytest.mark.parametrize("n_agq", [1, 5])
@pytest.mark.parametrize("formula", ["count ~ x + (1 | g)", "count ~ x + (x | g)"])
def test_the_likelihood_of_the_model_is_that_of_its_fit(formula, n_agq):
    one = model("poisson", formula)
    fit = one.fit(n_agq=n_agq)
    found = one.log_likelihood(fit.theta, fit.fixef(), n_agq=n_agq)
    assert found == pytest.approx(fit.loglik, rel=1e-10)


def test_separation_has_no_maximum_but_a_mode():
    data = pd.DataFrame({"x": np.linspace(-2, 2, 60), "g": np.arange(60) % 6})
    data["y"] = (data["x"] > 0).astype(int)
    separated = rf.Model("y ~ x + (1 | g)", data, family="binomial")
    with pytest.raises(rf.DataError, match=r"^the fixed effects separate the values of the "):
        separated.fit()
    with pytest.warns(rf.DataWarning, match=r"^the fixed effects separate the values of the "):
        assert np.isfinite(separated.fit("map").fixef()).all()


@pytest.mark.parametrize("method", ["ml", "map", "laplace"])
@pytest.mark.parametrize("family", ["t", "gamma", "beta"])
def test_a_response_constant_within_groups_is_refused_by_every_method(family, method):
    data = pd.DataFrame({"g": np.arange(60) % 6})
    data["y"] = (1 + data["g"]) / 10
    with pytest.raises(rf.DataError, match="it is constant within the levels of `g`, and there is"):
        rf.fit("y ~ 1 + (1 | g)", data, method, family=family)


# --------------------------------------------------------------------- errors of random effects

KINDS = [
    ("poisson", "k ~ x + f + (x | g)", "ml", {}),
    ("bernoulli", "b ~ x + (1 | g) + (1 | h)", "ml", {}),
    ("negative_binomial", "k ~ x + (1 | g) + (0 + x | g)", "ml", {}),
    ("gamma", "t ~ x + (1 | h/g)", "ml", {}),
    ("bernoulli", "b ~ x + f + (1 | g)", "ml", {"n_agq": 5}),
    ("poisson", "k ~ x + (1 | g)", "map", {}),
]


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(12)
    n, g = 150, rng.integers(0, 10, 150)
    frame = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(list("uv"), n), "g": g})
    frame["h"] = rng.integers(0, 5, n)
    mean = np.exp(
        0.5 + 0.3 * frame["x"] + rng.normal(0, 0.8, 10)[g] + rng.normal(0, 0.8, 5)[frame.h]
    )
    frame["k"], frame["t"] = rng.negative_binomial(4, 4 / (4 + mean)), mean * rng.gamma(3, 1 / 3, n)
    return frame.assign(b=(rng.random(n) < mean / (1 + mean)).astype(int))


@pytest.mark.parametrize(("family", "formula", "method", "options"), KINDS)
def test_errors_of_effects_contain_those_of_fixed_ones(counts, family, formula, method, options):
    """By the delta method: the derivative of the modes is that of modes found anew."""
    fit = rf.fit(formula, counts, method, family=family, **options)
    beta, psi = fit.fixef().to_numpy(), np.array([*fit.parameters.values()])
    roots = [fit.sigma * f for f in fit.estimate.Lambdas]
    modes, covariances = fit.engine.effects_at(beta, psi, roots)
    step, terms, p = 1e-5, range(len(modes)), len(beta)
    ahead = [fit.engine.effects_at(beta + h, psi, roots)[0] for h in step * np.eye(p)]
    behind = [fit.engine.effects_at(beta - h, psi, roots)[0] for h in step * np.eye(p)]
    plain, usual = fit.ranef_table(uncertainty="none"), fit.ranef_table()
    sds = []
    for t in terms:
        np.testing.assert_allclose(modes[t], fit.estimate.b[t], atol=1e-6)
        np.testing.assert_allclose(covariances[t], fit.estimate.b_cov[t], atol=1e-6)
        slopes = [(a[t] - b[t]) / (2 * step) for a, b in zip(ahead, behind, strict=True)]
        A = np.reshape(slopes, (p, -1)).T
        own = np.diagonal(covariances[t], axis1=1, axis2=2).ravel()
        sds.append(np.sqrt(own + np.diag(A @ fit.vcov().to_numpy() @ A.T)))
    np.testing.assert_allclose(usual["sd"], np.concatenate(sds), rtol=1e-5)
    assert (usual["sd"] >= plain["sd"]).all()
    assert usual["sd"].sum() > 1.01 * plain["sd"].sum()


def test_errors_of_effects_contain_those_of_all_parameters(counts):
    fit = rf.fit("k ~ x + (1 | g)", counts, family="poisson")
    found = fit.ranef_table(uncertainty="all", n=8, seed=2)
    replicates = fit.bootstrap(8, seed=2).estimates.to_numpy()
    moved, own = np.zeros(10), np.zeros(10)
    for b0, b1, sd in replicates:
        (mode,), (cov,) = fit.engine.effects_at(np.array([b0, b1]), np.empty(0), [np.array([[sd]])])
        moved += (mode[:, 0] - fit.estimate.b[0][:, 0]) ** 2 / len(replicates)
        own += cov[:, 0, 0] / len(replicates)
    known = fit.ranef_table(uncertainty="none")["sd"] ** 2
    expected = moved + np.maximum(own, 2 * known - own)
    np.testing.assert_allclose(found["sd"], np.sqrt(expected), rtol=1e-6)
    with pytest.raises(FitError, match=r"has no parametric bootstrap"):
        rf.fit("k ~ x + (1 | g)", counts, "map", family="poisson").ranef_table(uncertainty="all")


def test_a_known_scale_needs_no_variation_within_groups():
    """Equal rows of a group are one row that counts so often."""
    own = {"Intercept": rf.priors.Normal(0, 2), "sd": rf.priors.HalfNormal(1)}
    priors = own | {"phi": rf.priors.Constant(20.0)}
    p = np.random.default_rng(1).beta(3, 3, 8)
    one = pd.DataFrame({"p": p, "g": list("abcdefgh"), "w": 4.0})
    rows = one.loc[np.repeat(one.index, 4)].reset_index(drop=True)
    found = rf.Model("p ~ 1 + (1 | g)", rows, "beta", priors=priors).fit("map")
    same = rf.Model("p ~ 1 + (1 | g)", one, "beta", priors=priors, weights="w").fit("map")
    np.testing.assert_allclose(found.theta, same.theta, rtol=1e-5)
    np.testing.assert_allclose(found.fixef(), same.fixef(), rtol=1e-5)
    with pytest.raises(rf.DataError, match="no residual variation to estimate phi"):
        rf.Model("p ~ 1 + (1 | g)", rows, "beta", priors=own).fit("map")
