"""A term with a third covariance: fits are right without anything else knowing of it."""

from __future__ import annotations

import copy
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from other_covariances import Autoregressive, CompoundSymmetry
from scipy import optimize, stats

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.errors import FitError
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import prepare, users_likelihood
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.expected_information import derivatives
from ranef.posterior.transforms import space_of
from ranef.priors.assignment import resolve

STRUCTURED, NESTED = "{} ~ x + (0 + f | g)", "{} ~ x + (1 | g) + (1 | g:f)"
NOT_FREE = "random effects have the covariance CompoundSymmetry(k=3): this can be done where"


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    codes, f = np.repeat(np.arange(30), 12), np.tile(np.repeat(np.arange(3), 4), 30)
    b = rng.normal(size=(30, 1)) + 0.7 * rng.normal(size=(30, 3))
    x = rng.normal(size=360)
    y = 1 + x + b[codes, f] + rng.normal(size=360)
    yes = (rng.uniform(size=360) < 1 / (1 + np.exp(-y))).astype(int)
    return pd.DataFrame({"y": 2 * y, "yes": yes, "x": x, "f": np.array(list("abc"))[f], "g": codes})


def structured(data, response="y", **options):
    """Return a model whose term has the third covariance; such a term has no priors."""
    model = copy.copy(rf.Model(STRUCTURED.format(response), data, **options))
    terms = [replace(t, covariance=CompoundSymmetry(t.n_coefs)) for t in model.design.terms]
    model.design = replace(model.design, terms=tuple(terms))
    return model


def dense_criterion(design, theta):
    """Return the REML criterion from the covariance matrix of the response."""
    V = np.eye(design.n_obs)
    for term, F in zip(
        design.terms, factors(theta, [t.covariance for t in design.terms]), strict=True
    ):
        same = design.rows.term(term.label).codes[:, None] == design.rows.term(term.label).codes
        V += same * (
            design.rows.term(term.label).columns @ F @ F.T @ design.rows.term(term.label).columns.T
        )
    X, y = design.rows.X, design.rows.y
    W = np.linalg.inv(V)
    precision = X.T @ W @ X
    beta = np.linalg.solve(precision, X.T @ W @ y)
    residual, nu = y - X @ beta, len(y) - X.shape[1]
    logdets = np.linalg.slogdet(V)[1] + np.linalg.slogdet(precision)[1]
    return logdets + nu * (1 + np.log(2 * np.pi * (residual @ W @ residual) / nu))


def test_the_criterion_equals_the_dense_one(data):
    model = structured(data)
    for theta in ([0.5, 1.5], [1.0, 1.0], [0.0, 2.0], [0.7, 0.1]):
        dense = dense_criterion(model.design, np.array(theta))
        assert model.criterion(theta) == pytest.approx(dense, rel=1e-12)


def test_its_gradient_equals_central_differences(data):
    cross, theta = cross_products(structured(data).design), np.array([0.6, 1.4])
    _, gradient = reml.criterion(cross, theta, reml=True)
    steps = 1e-5 * np.eye(2)
    ends = [[reml.criterion(cross, theta + s * h, reml=True)[0] for s in (1, -1)] for h in steps]
    np.testing.assert_allclose(gradient, [(up - down) / 2e-5 for up, down in ends], rtol=1e-6)


def test_the_basis_is_a_multiple_of_the_users():
    frame = pd.DataFrame({"y": np.arange(12.0) ** 2, "x": np.arange(12.0), "g": [0, 1, 2] * 4})
    (term,) = rf.Model("y ~ x + (x | g)", frame).design.terms
    design = rf.Model("y ~ x + (x | g)", frame).design
    design = replace(design, terms=(replace(term, covariance=CompoundSymmetry(2)),))
    (T,) = cross_products(design).bases
    np.testing.assert_allclose(
        T, np.sqrt(np.mean(design.rows.term(term.label).columns ** 2)) * np.eye(2)
    )


def test_reml_is_the_dense_optimum(data):
    model = structured(data)
    fit = model.fit()
    best = optimize.minimize(
        lambda theta: dense_criterion(model.design, theta), fit.theta * 1.2, method="BFGS"
    )
    assert fit.converged
    assert fit.objective == pytest.approx(best.fun, abs=1e-8)
    np.testing.assert_allclose(fit.theta, np.abs(best.x), rtol=1e-4)
    assert fit.theta_names == ["g.within", "g.between"]


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_it_is_the_model_with_nested_effects(data, method):
    """(1 | g) + (1 | g:f) gives rows of one g the same covariance, in another way."""
    fit, nested = structured(data).fit(method), rf.fit(NESTED.format("y"), data, method=method)
    assert fit.objective == pytest.approx(nested.objective, abs=1e-8)
    assert (fit.df, fit.sigma) == (nested.df, pytest.approx(nested.sigma, rel=1e-5))
    np.testing.assert_allclose(fit.vcov(), nested.vcov(), rtol=1e-4)
    np.testing.assert_allclose(fit.fitted(), nested.fitted(), atol=1e-3)
    sds = nested.varcorr().sd
    between, within = (float(sds[label].iloc[0]) ** 2 for label in ("g", "g:f"))
    np.testing.assert_allclose(fit.varcorr().sd["g"] ** 2, between + within, rtol=1e-4)
    corr = fit.varcorr().corr["g"].to_numpy()[np.triu_indices(3, 1)]
    np.testing.assert_allclose(corr, between / (between + within), rtol=1e-4)
    assert len(fit.estimates()) == 2 + 1 + 3 + 3
    assert fit.varcorr().table["var2"].dropna().tolist() == ["f[b]", "f[c]", "f[c]"]


def test_a_generalised_model_too(data):
    model = structured(data, "yes", family="binomial")
    fit, nested = model.fit(), rf.fit(NESTED.format("yes"), data, family="binomial")
    assert fit.objective == pytest.approx(nested.objective, abs=1e-6)
    np.testing.assert_allclose(fit.fixef(), nested.fixef(), rtol=1e-3)
    own = prepare(model.design, model.family)
    beta, psi = fit.fixef().to_numpy(), np.empty(0)
    assert maximum.maximum_likelihood(own).loglik == pytest.approx(fit.loglik)
    theta = np.array([0.4, 0.9])
    found = users_likelihood(own, theta, beta, psi, 1)
    steps = 1e-5 * np.eye(2)
    ends = [[users_likelihood(own, theta + s * h, beta, psi, 1) for s in (1, -1)] for h in steps]
    slopes = [(up.value - down.value) / 2e-5 for up, down in ends]
    np.testing.assert_allclose(found.theta, slopes, rtol=1e-5)


def test_profiles_of_fixed_effects_and_the_bootstrap_follow(data):
    fit, nested = structured(data).fit("ml"), rf.fit(NESTED.format("y"), data, method="ml")
    bounds = [f.profile(["x"]).confint().to_numpy() for f in (fit, nested)]
    np.testing.assert_allclose(*bounds, rtol=1e-5)
    table = fit.bootstrap(20, seed=1).estimates
    np.testing.assert_allclose(table["sd_g[f[a]]"], table["sd_g[f[c]]"], rtol=1e-9)


def test_what_needs_a_free_covariance_says_so(data):
    model = structured(data)
    fit = model.fit()
    ml, larger = model.fit("ml"), rf.fit(STRUCTURED.format("y"), data, method="ml")
    refused = [
        lambda: fit.summary(df="satterthwaite"),
        lambda: fit.summary(df="kenward-roger"),
        lambda: derivatives(cross_products(model.design), [np.eye(3)]),
        lambda: ml.confint("profile"),
        lambda: rf.anova(ml, larger),
    ]
    for ask in refused:
        with pytest.raises(FitError, match=re.escape(NOT_FREE)):
            ask()


# ------------------------------------------------------------------------------- the posterior


KINDS = pytest.mark.parametrize("kind", [CompoundSymmetry, Autoregressive])


def with_priors(data, kind, response="y", priors="default", **options):
    """Return a model whose term has the covariance, and priors that know it."""
    model = copy.copy(rf.Model(STRUCTURED.format(response), data, **options))
    terms = [replace(t, covariance=kind(t.n_coefs)) for t in model.design.terms]
    model.design = replace(model.design, terms=tuple(terms))
    model.priors = resolve(model.design, priors, model.family)
    return model


@KINDS
def test_its_priors_are_of_one_sd_and_one_correlation(data, kind):
    model = with_priors(
        data, kind, priors={"sd_g": rf.priors.HalfNormal(3), "corr": rf.priors.LKJ(4)}
    )
    rows = {row.name: str(row.prior) for row in model.priors.rows()}
    assert rows["sd_g"] == "HalfNormal(3)"
    assert rows["corr_g"] == "LKJ(4)"
    assert space_of(model.priors).names[-3:] == ("sigma", "sd_g", "corr_g")
    with pytest.raises(FitError, match=r"`sd_g` needs a prior|has no coefficient"):
        with_priors(data, kind, priors={"sd_g": {"f[a]": rf.priors.HalfNormal(3)}})
    assert "1 standard deviation and 1 correlation" in repr(model)


@KINDS
def test_the_density_is_the_dense_one(data, kind):
    priors = {"Intercept": rf.priors.Normal(1, 3), "x": rf.priors.Normal(0, 2)}
    model = with_priors(data.iloc[:96], kind, priors=priors)
    density = model.engine.density
    sigma, sd, free = 1.3, 2.1, 0.4
    values = np.array([sigma, sd, free])
    F = kind(3).factor_of(values[1:2], values[2:])
    (term,) = model.design.rows.terms
    rows = term.columns @ F
    X = model.design.rows.X
    V = sigma**2 * np.eye(96) + (rows @ rows.T) * (term.codes[:, None] == term.codes)
    V += X * [9.0, 4.0] @ X.T
    expected = stats.multivariate_normal(X @ [1.0, 0.0], V).logpdf(model.design.rows.y)
    value, slopes = density.likelihood(values)
    assert value == pytest.approx(expected, rel=1e-10)
    steps = 1e-5 * np.eye(3)
    ends = [[density.likelihood(values + s * h)[0] for s in (1, -1)] for h in steps]
    np.testing.assert_allclose(slopes, [(up - down) / 2e-5 for up, down in ends], rtol=1e-6)


@KINDS
@pytest.mark.filterwarnings("ignore:R-hat", "ignore:The effective sample size")
def test_a_posterior_is_sampled_and_approximated(data, kind):
    model = with_priors(data, kind)
    weighted = model.fit("laplace", draws=1000, seed=1)
    sampled = model.fit("mcmc", draws=200, tune=200, chains=2, cores=1, seed=1, progressbar=False)
    for table in (weighted.hdi(), sampled.hdi()):
        np.testing.assert_allclose(table.loc["sd_g[f[a]]"], table.loc["sd_g[f[c]]"], rtol=1e-12)
    means = [fit.varcorr().sd["g"].iloc[0] for fit in (weighted, sampled)]
    corrs = [fit.varcorr().corr["g"].to_numpy()[0] for fit in (weighted, sampled)]
    assert means[0] == pytest.approx(means[1], rel=0.06)
    np.testing.assert_allclose(*corrs, atol=0.06)
    assert np.isfinite(weighted.log_marginal_likelihood().value)


@KINDS
def test_a_generalised_posterior_too(data, kind):
    model = with_priors(data, kind, "yes", family="binomial")
    joint = model.engine.density
    x, steps = joint.start() + 0.1, 1e-5 * np.eye(joint.space.d)
    ends = [[joint(x + s * h)[0] for s in (1, -1)] for h in steps]
    slopes = [(up - down) / 2e-5 for up, down in ends]
    np.testing.assert_allclose(joint(x)[1], slopes, rtol=1e-4, atol=1e-5)


@KINDS
def test_draws_from_the_prior_have_the_structure(data, kind):
    prior = with_priors(data, kind).prior_predictive(50, seed=1)["prior"]
    corr = prior["corr_g"].to_numpy()[0]
    np.testing.assert_allclose(corr[:, 0, 1], corr[:, 1, 2], atol=1e-12)
    power = 1 if kind is CompoundSymmetry else 2
    np.testing.assert_allclose(corr[:, 0, 2], corr[:, 0, 1] ** power, atol=1e-12)
    assert np.ptp(prior["sd_g"].to_numpy(), axis=-1).max() < 1e-12


@KINDS
def test_its_form_in_pymc(data, kind):
    model = with_priors(data, kind)
    made = model.to_pymc()
    assert {"sd_g", "corr_g"} <= set(made.named_vars)
    names = ["free_sd_g", "partial_corr_g"]
    build = made.compile_fn(
        [made["sd_g"], made["corr_g"]],
        inputs=[made[n] for n in names],
        point_fn=False,
        mode="FAST_COMPILE",
    )
    sd, corr = build(np.array([1.7]), np.array([0.8]))
    F = kind(3).factor_of(np.array([1.7]), np.array([2 * 0.8 - 1]))
    np.testing.assert_allclose(sd[:, None] * corr * sd, F @ F.T, atol=1e-12)
    table = model.prior_table().set_index("parameter")["prior"]
    assert table["corr_g"] == "LKJ(2)"
    assert "sd_g" in table.index


def test_what_needs_free_elements_of_the_matrix_says_so(data):
    model = with_priors(data, CompoundSymmetry)
    asked = {
        "a posterior mode": lambda: model.fit("map"),
        "quadrature": lambda: model.fit("quadrature"),
        "the marginal form in PyMC": lambda: model.to_pymc("marginal"),
    }
    for what, ask in asked.items():
        message = f"random effects have the covariance CompoundSymmetry(k=3): {what} can be done"
        with pytest.raises(FitError, match=f"^{re.escape(message)}"):
            ask()
