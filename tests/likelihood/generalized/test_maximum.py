"""Maximum likelihood estimates: stationary, with the curvature they claim, and equivariant."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import large_counts
import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES
from maximum_cases import design_of, frame
from nonlinear import ALL, KNOWN, OWN, dense_modes, random_model
from scipy import optimize, stats
from scipy.special import comb

import ranef as rf
from ranef.covariances.covariance import theta_of
from ranef.errors import Convergence
from ranef.families.names import find_family
from ranef.likelihood.generalized import maximum, pirls
from ranef.likelihood.generalized.glmm import prepare, users_likelihood
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products

BINOMIAL, POISSON = KNOWN["binomial"], KNOWN["poisson"]


def fitted(design, family=POISSON, n_agq=1):
    return maximum.maximum_likelihood(prepare(design, family), n_agq=n_agq)


def parameters(found):
    return np.concatenate([found.beta, found.parameters, found.theta, [found.sigma]])


def same(one, other, tolerance=1e-5):
    assert one.loglik == pytest.approx(other.loglik, abs=1e-8)
    np.testing.assert_allclose(parameters(one), parameters(other), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.vcov, other.vcov, rtol=1e-4, atol=1e-9)
    for first, second in zip(one.b, other.b, strict=True):
        np.testing.assert_allclose(first, second, atol=10 * tolerance)


CASES = {
    "intercepts": ("count ~ x + (1 | g)", POISSON, 1),
    "slopes": ("count ~ x + (x | g)", POISSON, 1),
    "crossed": ("count ~ x + (1 | g) + (1 | h)", POISSON, 1),
    "nested": ("count ~ x + (1 | s/g)", POISSON, 1),
    "binary": ("one ~ x + (1 | g)", KNOWN["bernoulli"], 1),
    "quadrature": ("one ~ x + (1 | g)", KNOWN["bernoulli"], 9),
    "quadrature in two dimensions": ("count ~ x + (x | g)", POISSON, 5),
    "a parameter": ("count ~ x + (1 | g)", KNOWN["negative_binomial"], 1),
    "a scale": ("time ~ x + (1 | g)", KNOWN["gamma"], 1),
    "a parameter and quadrature": ("count ~ x + (1 | g)", KNOWN["negative_binomial"], 7),
    "by the log density alone": ("count ~ x + (1 | g)", OWN["a count"], 1),
    "no fixed effects": ("count ~ 0 + (1 | g)", POISSON, 1),
    "no random effects": ("count ~ x", POISSON, 1),
}


@cache
def case(name):
    formula, family, n_agq = CASES[name]
    design = design_of(formula)
    return design, family, fitted(design, family, n_agq)


def users_slope(design, family, found, n_agq):
    """Return the gradient at estimates, as a function of all parameters."""
    model = prepare(design, family)
    p, r = len(found.beta), len(family.parameters)

    def slope(x):
        at = users_likelihood(model, x[p + r :], x[:p], np.exp(x[p : p + r]), max(n_agq, 1))
        own = [at.parameters[name] * np.exp(x[p + i]) for i, name in enumerate(family.parameters)]
        return np.concatenate([at.beta, own, at.theta])

    own = dict(zip([n for n in family.parameters if n != "sigma"], found.parameters, strict=True))
    psi = [own.get(name, found.sigma) for name in family.parameters]
    return slope, np.concatenate([found.beta, np.log(psi), found.theta])


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_vanishes_at_the_estimates(name):
    design, family, found = case(name)
    slope, x = users_slope(design, family, found, CASES[name][2])
    assert found.convergence.ok
    size = np.sqrt(len(design.rows.y)) * max(1.0, np.abs(design.rows.X).max(initial=0.0))
    np.testing.assert_allclose(slope(x) / size, 0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_covariance_is_the_inverse_of_the_curvature(name):
    design, family, found = case(name)
    slope, x = users_slope(design, family, found, CASES[name][2])
    p, h = len(found.beta), 1e-4
    information = -np.array([(slope(x + e) - slope(x - e)) / (2 * h) for e in h * np.eye(len(x))])
    expected = np.linalg.inv((information + information.T) / 2)[:p, :p]
    np.testing.assert_allclose(found.vcov, expected, rtol=2e-4, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_what_is_reported_belongs_to_the_estimates(name):
    design, family, found = case(name)
    model = prepare(design, family, together=False)
    _, x = users_slope(design, family, found, CASES[name][2])
    p, r = len(found.beta), len(family.parameters)
    at = users_likelihood(model, found.theta, found.beta, np.exp(x[p : p + r]), CASES[name][2])
    assert found.loglik == pytest.approx(at.value, rel=1e-11)
    assert found.objective == pytest.approx(-2 * found.loglik, rel=1e-13)
    np.testing.assert_array_equal(found.theta, theta_of(found.Lambdas, model.covariances))
    assert found.trace[-1][0] == found.objective
    np.testing.assert_allclose(found.trace[-1][1], found.theta, rtol=1e-12)
    assert found.n_agq == CASES[name][2]
    sigma, T = found.sigma, model.bases
    setting = model.at(
        np.linalg.solve(model.to_users, found.beta),
        [sigma * A @ f for A, f in zip(T, found.Lambdas, strict=True)],
        np.exp(x[p : p + r]),
    )
    dense = dense_modes(setting)
    np.testing.assert_allclose(found.working_weights, dense.W, rtol=1e-5, atol=1e-6)
    inverse = np.linalg.inv(dense.H[: len(dense.u), : len(dense.u)])
    start = 0
    for b, cov, f in zip(found.b, found.b_cov, found.Lambdas, strict=True):
        for level in range(len(b)):
            own = slice(start, start + len(f))
            np.testing.assert_allclose(b[level], sigma * f @ dense.u[own], atol=1e-6)
            expected = sigma**2 * f @ inverse[own, own] @ f.T
            np.testing.assert_allclose(cov[level], expected, rtol=1e-5, atol=1e-8)
            start += len(f)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_the_normal_distribution_gives_the_estimates_of_the_linear_engine(formula):
    design, model = random_model(formula, KNOWN["gaussian"], 3, n=150)
    found, expected = (
        maximum.maximum_likelihood(model),
        reml.estimate(cross_products(design), reml=False),
    )
    assert found.loglik == pytest.approx(expected.loglik, abs=1e-7)
    assert found.sigma == pytest.approx(expected.sigma, rel=1e-4)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-3, atol=1e-3)
    for one, other in zip(found.Lambdas, expected.Lambdas, strict=True):
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=2e-3)
    assert found.singular == expected.singular


# -------------------------------------------------------------------------- the first stage


def test_without_quadrature_fixed_effects_are_those_of_the_modes():
    design = design_of("one ~ x + (1 | g)")
    model = prepare(design, KNOWN["bernoulli"])
    found = maximum.maximum_likelihood(model, n_agq=0)
    setting = model.profile([T @ f for T, f in zip(model.bases, found.Lambdas, strict=True)], [])
    dense = dense_modes(setting)
    np.testing.assert_allclose(model.to_users @ dense.gamma, found.beta, atol=1e-6)

    def profiled(x):
        return -dense_modes(model.profile([np.array([[x]])], [])).laplace

    best = optimize.minimize_scalar(profiled, bounds=(0.05, 8), method="bounded")
    assert found.loglik == pytest.approx(-best.fun, abs=1e-7)
    assert found.n_agq == 0
    assert maximum.maximum_likelihood(model).loglik > found.loglik


# ---------------------------------------------------------------------------- singular fits


def test_a_variance_of_zero_is_exactly_zero_and_leaves_the_plain_model():
    rng = np.random.default_rng(4)
    data = frame().assign(count=np.tile([1, 2, 3, 2, 1], 60), g=np.arange(300) % 12)
    data["x"] = rng.permutation(data["x"])
    found, plain = (fitted(design_of(f, data)) for f in ("count ~ x + (1 | g)", "count ~ x"))
    assert found.theta.tolist() == [0.0]
    assert (found.singular, found.convergence) == ((True,), Convergence.SINGULAR)
    assert found.loglik == pytest.approx(plain.loglik, rel=1e-12)
    np.testing.assert_allclose(found.beta, plain.beta, atol=1e-7)
    np.testing.assert_allclose(found.vcov, plain.vcov, rtol=1e-4)
    assert not found.b[0].any()
    assert not found.b_cov[0].any()


def test_a_perfect_correlation_is_a_singular_fit():
    rng = np.random.default_rng(5)
    x, g = rng.normal(size=300), rng.integers(0, 12, 300)
    b = 0.7 * rng.normal(size=12)
    data = pd.DataFrame({"x": x, "g": g, "count": rng.poisson(np.exp(0.5 + b[g] * (1 + x / 2)))})
    found = fitted(design_of("count ~ x + (x | g)", data))
    assert found.singular == (True,)
    assert found.Lambdas[0][1, 1] == 0
    assert found.Lambdas[0][1, 0] > 0.1
    assert np.isfinite(found.vcov).all()


# ------------------------------------------------------------------------------ equivariance


@pytest.mark.parametrize(("n_agq", "tolerance"), [(0, 1e-7), (1, 1e-7), (15, 1e-5)])
def test_rescaled_and_shifted_predictors_give_the_same_model(n_agq, tolerance):
    one = fitted(design_of("count ~ x + (x | g)"), n_agq=n_agq)
    data = frame().assign(x=1e3 * frame()["x"] + 2e3)
    other = fitted(design_of("count ~ x + (x | g)", data), n_agq=n_agq)
    assert other.loglik == pytest.approx(one.loglik, abs=tolerance)
    back = np.array([[1.0, 2e3], [0, 1e3]])
    np.testing.assert_allclose(back @ other.beta, one.beta, atol=1e-5)
    np.testing.assert_allclose(back @ other.vcov @ back.T, one.vcov, rtol=1e-3, atol=1e-7)
    first, second = one.Lambdas[0], back @ other.Lambdas[0]
    np.testing.assert_allclose(second @ second.T, first @ first.T, atol=1e-5)
    np.testing.assert_allclose(other.b[0] @ back.T, one.b[0], atol=1e-4)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_huge_and_tiny_predictors_give_the_same_model(scale):
    one = fitted(design_of("count ~ x + (x | g)"))
    other = fitted(design_of("count ~ x + (x | g)", frame().assign(x=scale * frame()["x"])))
    assert other.loglik == pytest.approx(one.loglik, abs=1e-7)
    np.testing.assert_allclose(other.beta * [1, scale], one.beta, atol=1e-5)
    np.testing.assert_allclose(other.theta * [1, scale, scale], one.theta, atol=1e-4)


def test_the_order_of_rows_and_the_names_of_levels_do_not_matter():
    one = fitted(design_of("count ~ x + (x | g) + (1 | h)"))
    rng = np.random.default_rng(1)
    names = rng.permutation(15)
    shuffled = frame().sample(frac=1, random_state=3)
    shuffled["g"] = names[shuffled["g"]]
    other = fitted(design_of("count ~ x + (x | g) + (1 | h)", shuffled))
    same(replace(other, b=(other.b[0][names], other.b[1])), one)


def test_the_order_of_terms_does_not_matter():
    one = fitted(design_of("count ~ x + (1 | g) + (1 | h)"))
    design = design_of("count ~ x + (1 | g) + (1 | h)")
    rows = replace(design.rows, terms=design.rows.terms[::-1])
    other = fitted(replace(design, terms=design.terms[::-1], _rows=rows))
    same(replace(other, b=other.b[::-1], theta=other.theta[::-1]), one)


@pytest.mark.parametrize("n_agq", [1, 5])
def test_independent_coefficients_are_two_terms(n_agq):
    one = fitted(design_of("count ~ x + (x || g)"), n_agq=n_agq)
    other = fitted(design_of("count ~ x + (1 | g) + (0 + x | g)"), n_agq=n_agq)
    np.testing.assert_allclose(other.theta, one.theta, atol=1e-5)
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    np.testing.assert_allclose(np.hstack(other.b), np.hstack(one.b), atol=1e-5)


def test_a_constant_offset_moves_the_intercept():
    one, other = (
        fitted(design_of("count ~ x + (1 | g)", offset=np.full(300, o))) for o in (0.0, 1.5)
    )
    same(replace(other, beta=other.beta + np.array([1.5, 0])), one)


@pytest.mark.parametrize("n_agq", [1, 9])
def test_trials_are_as_many_rows_of_one_trial(n_agq):
    data = frame()
    one = fitted(design_of("share ~ x + (1 | g)", weights=data["size"]), BINOMIAL, n_agq)
    rows = np.repeat(np.arange(300), data["size"])
    won = np.concatenate([np.arange(n) < k for n, k in zip(data["size"], data["won"], strict=True)])
    expanded = data.iloc[rows].assign(one=won.astype(float))
    other = fitted(design_of("one ~ x + (1 | g)", expanded), KNOWN["bernoulli"], n_agq)
    choices = np.log(comb(data["size"], data["won"])).sum()
    same(replace(other, loglik=other.loglik + choices), one)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_a_weight_is_a_number_of_equal_rows(name):
    weights = np.random.default_rng(3).integers(1, 4, 300)
    one = fitted(design_of("count ~ x + (1 | g)", weights=weights), KNOWN[name])
    expanded = frame().iloc[np.repeat(np.arange(300), weights)]
    same(fitted(design_of("count ~ x + (1 | g)", expanded), KNOWN[name]), one)


def test_successes_and_failures_are_symmetric():
    one = fitted(design_of("one ~ x + (x | g)"), BINOMIAL)
    other = fitted(design_of("one ~ x + (x | g)", frame().assign(one=1 - frame()["one"])), BINOMIAL)
    same(replace(other, beta=-other.beta, b=tuple(-b for b in other.b)), one)


def test_a_scale_follows_the_response():
    one = fitted(design_of("time ~ x + (1 | g)"), KNOWN["gamma"])
    other = fitted(
        design_of("time ~ x + (1 | g)", frame().assign(time=frame()["time"] * 1e4)), KNOWN["gamma"]
    )
    moved = replace(
        other, beta=other.beta - [np.log(1e4), 0], loglik=other.loglik + 300 * np.log(1e4)
    )
    same(moved, one)


# --------------------------------------------------------------------------- plain models


def test_without_random_effects_they_are_those_of_a_plain_model():
    design = design_of("count ~ x + z")

    def deviance(beta):
        return -stats.poisson.logpmf(design.rows.y, np.exp(design.rows.X @ beta)).sum()

    best = optimize.minimize(deviance, np.zeros(3), method="BFGS", options={"gtol": 1e-7})
    for n_agq in (0, 1, 9):
        found = fitted(design, n_agq=n_agq)
        assert found.loglik == pytest.approx(-best.fun, abs=1e-8)
        np.testing.assert_allclose(found.beta, best.x, atol=1e-5)
        mu = np.exp(design.rows.X @ found.beta)
        expected = np.linalg.inv((design.rows.X.T * mu) @ design.rows.X)
        np.testing.assert_allclose(found.vcov, expected, rtol=1e-5)


# ------------------------------------------------------------------------------- odd cases


def test_one_row_a_level():
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"g": np.arange(80), "x": rng.normal(size=80)})
    data["count"] = rng.poisson(np.exp(1 + data["x"] + rng.normal(size=80)))
    found = fitted(design_of("count ~ x + (1 | g)", data))
    assert found.convergence is Convergence.CONVERGED
    assert 0.5 < found.theta[0] < 1.6


def test_counts_of_thousands():
    rng = np.random.default_rng(7)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 20), "x": rng.normal(size=200)})
    b = rng.normal(size=10)
    data["count"] = rng.poisson(np.exp(7.5 + 0.1 * data["x"] + b[data["g"]]))
    found = fitted(design_of("count ~ x + (1 | g)", data))
    assert found.convergence is Convergence.CONVERGED
    assert found.beta[1] == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(found.b[0][:, 0] - found.b[0].mean(), b - b.mean(), atol=0.05)
    assert found.theta[0] == pytest.approx(np.std(found.b[0][:, 0]), rel=1e-2)


def test_levels_of_nothing_but_zeros():
    data = frame().assign(count=np.where(frame()["g"] < 9, frame()["count"], 0))
    found = fitted(design_of("count ~ x + (1 | g)", data))
    assert found.convergence is Convergence.CONVERGED
    assert found.theta[0] > 1
    assert np.isfinite(found.b[0]).all()
    assert found.b[0][9:].max() < found.b[0][:9].min() + 1


def test_five_rows():
    data = pd.DataFrame({"g": [0, 0, 1, 1, 1], "count": [3, 1, 9, 14, 11]})
    found = fitted(design_of("count ~ 1 + (1 | g)", data))
    assert found.convergence.ok
    x = np.linspace(0.01, 3, 300)
    model = prepare(design_of("count ~ 1 + (1 | g)", data), POISSON)
    values = [
        users_likelihood(model, np.array([t]), np.array([m]), np.empty(0), 1).value
        for t in x[::30]
        for m in np.linspace(0, 4, 21)
    ]
    assert found.loglik >= max(values)


@pytest.mark.parametrize("name", ALL)
def test_every_family_has_estimates(name):
    design, model = random_model("y ~ x + (1 | c)", ALL[name], 2)
    found = maximum.maximum_likelihood(model)
    assert found.convergence.ok
    slope, x = users_slope(design, ALL[name], found, 1)
    values = slope(x)[: len(found.beta)]
    np.testing.assert_allclose(model.to_users.T @ values, 0, atol=1e-3)


# ------------------------------------------------------------- large counts and many trials

TMB = {  # glmmTMB 1.1.5: log-likelihood, sds of the terms, standard errors
    ("poisson", "y ~ x + (1 | g)", 1e4): (-184245.691675, [0.4814108], [0.0878939, 4.8133e-4]),
    ("poisson", "y ~ x + (1 | g) + (1 | row)", 1e4): (
        -3069.91365304,
        [0.21393494, 0.47567685],
        [0.087721111, 0.017667386],
    ),
    ("negative_binomial", "y ~ x + (1 | g)", 1e4): (
        -3068.98306541,
        [0.47710763],
        [0.087961239, 0.01747659],
    ),
    ("binomial", "k ~ x + (1 | g)", 1e4): (-13555.2280852, [0.4767059], [0.08704444, 1.87597e-3]),
    ("gamma", "y ~ x + (1 | g)", 1e4): (-3068.97774302, [0.47710572], [0.087960855, 0.017476159]),
    ("poisson", "y ~ x + (1 | g) + (1 | row)", 1e6): (
        -4451.458601,
        [0.21403237, 0.47565999],
        [0.087718007, 0.017666742],
    ),
    ("binomial", "k ~ x + (1 | g) + (1 | row)", 1e6): (
        -3666.72547129,
        [0.21402019, 0.47566873],
        [0.087719582, 0.017666716],
    ),
}


@cache
def large(name, formula, size, n_agq=1):
    data, family = large_counts.frame(size), find_family(name)
    if name == "binomial":
        design = design_of(formula, data.assign(k=data["k"] / size), weights=data["n"])
    else:
        design = design_of(formula, data)
    return design, fitted(design, family, n_agq)


@pytest.mark.parametrize("case", TMB, ids=str)
def test_estimates_of_large_counts_are_those_of_glmmtmb(case):
    loglik, sds, errors = TMB[case]
    _, found = large(*case)
    assert found.convergence is Convergence.CONVERGED
    assert found.loglik == pytest.approx(loglik, abs=1e-4)
    np.testing.assert_allclose(found.theta * found.sigma ** (case[0] == "gamma"), sds, rtol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(found.vcov)), errors, rtol=5e-5)


@pytest.mark.parametrize(("size", "n_agq"), [(1e5, 1), (1e7, 1), (1e9, 1), (1e5, 5), (1e7, 5)])
def test_with_large_counts_the_intercepts_of_groups_are_as_good_as_known(size, n_agq):
    design, found = large("poisson", "y ~ x + (1 | g)", size, n_agq)
    mu = np.exp(
        found.beta[0]
        + found.beta[1] * design.rows.X[:, 1]
        + found.b[0][design.rows.terms[0].codes, 0]
    )
    table = pd.DataFrame({"g": design.rows.terms[0].codes, "w": mu, "x": mu * design.rows.X[:, 1]})
    table["xx"] = table["x"] * design.rows.X[:, 1]
    of_groups = table.groupby("g").sum()
    information = (of_groups["xx"] - of_groups["x"] ** 2 / of_groups["w"]).sum()
    errors = [found.theta[0] / np.sqrt(30), 1 / np.sqrt(information)]
    assert found.convergence is Convergence.CONVERGED
    np.testing.assert_allclose(np.sqrt(np.diag(found.vcov)), errors, rtol=2e-3)


@pytest.mark.parametrize("name", ["poisson", "binomial"])
@pytest.mark.parametrize("size", [1e5, 1e7, 1e9])
def test_an_effect_of_every_row_makes_large_counts_a_linear_model(name, size):
    """Their logarithms, or log odds, are then as good as normal."""
    response = {"poisson": "y", "binomial": "k"}[name]
    _, found = large(name, f"{response} ~ x + (1 | g) + (1 | row)", size)
    data = large_counts.frame(size)
    of = {"poisson": np.log(data["y"]), "binomial": np.log(data["k"] / data["failures"])}[name]
    design = design_of("of ~ x + (1 | g)", data.assign(of=of))
    linear = reml.estimate(cross_products(design), reml=False)
    assert found.convergence is Convergence.CONVERGED
    expected = [linear.sigma, linear.sigma * linear.theta[0]]
    np.testing.assert_allclose(found.theta, expected, rtol=1e-3)
    errors = np.sqrt(np.diag(linear.vcov))
    np.testing.assert_allclose(found.vcov / np.outer(errors, errors), np.eye(2), atol=5e-3)


@pytest.mark.parametrize(
    ("seed", "theta", "beta"),
    [(0, [2.96, 22.03], -12.224), (8, [6.213, 5.743], -12.007)],
)
def test_a_second_optimum_that_the_first_stage_does_not_see_is_found(seed, theta, beta):
    """Few successes: with the coefficients of the modes the likelihood is greatest at zero."""
    rng, n = np.random.default_rng(seed), 40
    data = pd.DataFrame({"g": rng.integers(0, 5, n), "h": rng.integers(0, 8, n)})
    data = data.assign(x=rng.normal(size=n), size=rng.integers(1, 4, n))
    data["k"] = rng.binomial(data["size"], 0.02)
    formula = "cbind(k, size - k) ~ 1 + (0 + x | g) + (1 | h)"
    model = rf.Model(formula, data, family="binomial")
    assert model.fit().loglik >= model.log_likelihood(theta, [beta]) - 1e-9
    assert model.fit().loglik > model.fit(n_agq=0).loglik + 0.2


def test_conditional_modes_are_searched_from_those_of_the_lowest_value(monkeypatch):
    """The same values and slopes, in a few steps instead of many where effects are great."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": np.arange(20) % 7, "x": rng.normal(size=20)})
    data["y"] = np.clip(rng.beta(0.5, 0.5, 20), 1e-6, 1 - 1e-6)
    model = prepare(design_of("y ~ x + (x | g)", data), find_family("beta"))
    x = np.array([0.2, -0.1, np.log(40.0), 10.0, -2.5, 10.0])
    objective, steps = maximum.JointObjective(model, model.zeros(), 1), []
    objective(x * 1.01), objective(x)
    step = pirls._newton_step
    monkeypatch.setattr(pirls, "_newton_step", lambda *given: steps.append(1) or step(*given))
    anew = maximum.JointObjective(model, model.zeros(), 1)(x * 1.001)
    n_anew = len(steps)
    warm = objective(x * 1.001)
    assert warm[0] == pytest.approx(anew[0], abs=1e-9)
    np.testing.assert_allclose(warm[1], anew[1], rtol=1e-6, atol=1e-6)
    assert len(steps) - n_anew <= n_anew / 2


# ------------------------------------------------- slopes that differ within and between levels


def opposed(family, ratio):
    """Return rows whose predictor has means by level `ratio` times its spread within levels.

    The slope is 0.5 within levels; between them it is negative.
    """
    rng, g = np.random.default_rng(1), np.repeat(np.arange(20), 15)
    mean = rng.normal(size=20)
    x = mean[g] * ratio + rng.normal(size=300)
    within = x - mean[g] * ratio
    eta = 1.0 + 0.5 * within + 1.5 * (0.2 * rng.normal(size=20) - mean)[g]
    y = {
        "poisson": rng.poisson,
        "gamma": lambda mu: rng.gamma(5, mu / 5),
        "negative_binomial": lambda mu: rng.negative_binomial(3, 3 / (3 + mu)),
    }[family](np.exp(eta))
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str)})


@pytest.mark.parametrize("effects", ["(1 | g)", "(x | g)"])
@pytest.mark.parametrize(
    ("family", "ratio"), [("poisson", 100), ("gamma", 100), ("negative_binomial", 12)]
)
def test_the_lower_of_two_optima_is_that_of_slopes_within_levels(family, ratio, effects):
    fit = rf.fit(f"y ~ x + {effects}", opposed(family, ratio), family=family)
    dummies = rf.fit("y ~ x + g", opposed(family, ratio), family=family)
    assert fit.fixef()["x"] == pytest.approx(dummies.fixef()["x"], abs=2.5 * dummies.se()["x"])
    model = fit.engine.data.generalized
    theta = maximum.multiple_of_identity(30.0, model.covariances)
    great = maximum._start(model, theta, model.psi)
    assert fit.estimate.objective < maximum._jointly(model, great, 1, None).value + 1e-4
