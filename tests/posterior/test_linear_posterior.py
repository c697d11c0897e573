"""The marginal density against the dense multivariate normal, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES, random_design, random_factors, random_frame
from marginal_cases import (
    ODD,
    PRIORS,
    dense_covariance,
    everything,
    odd_frame,
    random_point,
    target_of,
)
from scipy import stats

import ranef as rf
from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.reml import profiled
from ranef.posterior import linear_posterior
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    StudentT,
    Uniform,
)


def dense_log_density(design, priors, target, values):
    """Return log p(y) from the n x n covariance matrix, on the user's scale throughout."""
    g, y = target.space.n_given, design.rows.y - design.rows.offset
    V = dense_covariance(design, priors, target, values)
    X = design.rows.X if priors.change is None else design.rows.X @ priors.change
    own, others = target.fixed.order
    mean = X[:, others] @ values[:g]
    flat = [j for j in own if not isinstance(priors.beta[j], Normal)]
    for j in set(own) - set(flat):
        mean = mean + X[:, j] * priors.beta[j].mu
        V += np.outer(X[:, j], X[:, j]) * priors.beta[j].sigma ** 2
    if not flat:
        return stats.multivariate_normal(mean, V, allow_singular=False).logpdf(y)
    inverse, left, X = np.linalg.inv(V), y - mean, X[:, flat]
    information = X.T @ inverse @ X
    beta = np.linalg.solve(information, X.T @ inverse @ left)
    left = left - X @ beta
    deviance = (len(y) - len(flat)) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1]
    return -0.5 * (deviance + np.linalg.slogdet(information)[1] + left @ inverse @ left)


@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_density_equals_the_dense_normal_density(formula, priors):
    design, resolved, target = everything(formula, 1, priors)
    values, _ = target.space.values(random_point(target.space, np.random.default_rng(1)))
    found, _ = target.likelihood(values)
    assert found == pytest.approx(dense_log_density(design, resolved, target, values), rel=1e-10)


@pytest.mark.parametrize(
    ("priors", "natural"), [(name, False) for name in PRIORS] + [("default", True)]
)
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_gradient_equals_central_differences(formula, priors, natural):
    _, _, target = everything(formula, 2, PRIORS[priors])
    x = random_point(target.space, np.random.default_rng(2))
    _, found = target(x, natural=natural)

    def difference(h):
        near, far = (
            target(x + s * h, natural=natural)[0] - target(x - s * h, natural=natural)[0]
            for s in (1, 2)
        )
        return (8 * near - far) / (12 * h.sum())

    expected = np.array([difference(2e-3 * h) for h in np.eye(len(x))])
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-7)


# ------------------------------------------------------------------------------ random designs

POSITIVE = (
    HalfNormal(2),
    HalfStudentT(3, 4),
    HalfCauchy(2),
    Exponential(3),
    Gamma(2, 0.5),
    InverseGamma(2, 3),
    LogNormal(0.5, 1),
    Uniform(0, 9),
    Flat(),
)


def pick(rng, choices):
    return choices[rng.integers(len(choices))]


def random_priors(design, rng):
    """Return a prior of any kind for every parameter, or a named set."""
    if rng.uniform() < 0.2:
        return pick(rng, ("default", "flat", "brms", "boundary"))
    normals = (Normal(1, 3), Normal(-2, 0.5))
    kinds = (*normals, Flat(), StudentT(3, 0, 2), Uniform(-5, 5), Constant(0.7))
    priors = {name: pick(rng, kinds) for name in design.fixed if rng.uniform() < 0.7}
    priors["sigma"] = pick(rng, (*POSITIVE, Constant(1.3)))
    for term in design.terms:
        sds = (*POSITIVE, Constant(0.8), Relative(pick(rng, POSITIVE)), Relative(Constant(0.6)))
        priors[f"sd_{term.label}"] = {coef: pick(rng, sds) for coef in term.coefs}
        if term.covariance.has_correlations and term.n_coefs > 1:
            priors[f"corr_{term.label}"] = LKJ(rng.uniform(0.5, 4))
    return priors


def check_random_design(seed):
    rng = np.random.default_rng(seed)
    formula = pick(rng, list(STRUCTURES.values()))
    frame = random_frame(rng, int(rng.integers(25, 90)))
    frame["y"] = frame["y"] - 1e3
    design = build_design(
        read_formula(formula), frame, weights="w" if rng.uniform() < 0.5 else None
    )
    resolved = resolve(design, random_priors(design, rng))
    target = target_of(design, resolved)
    values, _ = target.space.values(rng.normal(size=target.space.d))
    found, _ = target.likelihood(values)
    expected = dense_log_density(design, resolved, target, values)
    assert found == pytest.approx(expected, rel=1e-10), formula


@pytest.mark.parametrize("seed", range(100))
def test_density_of_a_random_design_equals_the_dense_one(seed):
    check_random_design(seed)


@pytest.mark.slow
def test_density_of_1000_random_designs_equals_the_dense_one():
    for seed in range(1000, 2000):
        check_random_design(seed)


ODD_PRIORS = {
    "default": "default",
    "known sigma": {"sigma": Constant(2), "sd": Exponential(1), "Intercept": StudentT(3, 2, 5)},
}


@pytest.mark.parametrize("priors", ODD_PRIORS.values(), ids=ODD_PRIORS)
@pytest.mark.parametrize("formula", ODD.values(), ids=ODD)
def test_density_of_an_odd_design_equals_the_dense_one(formula, priors):
    design = build_design(read_formula(formula), odd_frame(), weights="w")
    resolved = resolve(design, priors)
    target = target_of(design, resolved)
    for x in np.random.default_rng(5).normal(size=(3, target.space.d)):
        values, _ = target.space.values(x)
        expected = dense_log_density(design, resolved, target, values)
        assert target.likelihood(values)[0] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(
    "formula", ["y ~ x * z + (x | c)", "y ~ x + z + f + x:z + (1 | c)", "y ~ x * z * f + (1 | c)"]
)
def test_density_with_no_fewer_effects_than_rows(formula):
    priors = {"beta": Normal(0, 3), "Intercept": Normal(8, 5)}
    design = build_design(read_formula(formula), odd_frame().iloc[:4])
    resolved = resolve(design, priors)
    target = target_of(design, resolved)
    assert target.cross.p == len(design.rows.y) <= len(design.fixed)
    x = np.random.default_rng(6).normal(size=target.space.d)
    values, _ = target.space.values(x)
    expected = dense_log_density(design, resolved, target, values)
    assert target.likelihood(values)[0] == pytest.approx(expected, rel=1e-10)


def test_density_of_one_row():
    priors = {"Intercept": Normal(0, 3), "x": Normal(0, 1), "sigma": HalfNormal(2)}
    frame = odd_frame().iloc[:1]
    design = build_design(read_formula("y ~ x + (1 | c)"), frame)
    target = target_of(design, resolve(design, priors | {"sd": HalfNormal(1)}))
    y, x = frame["y"].iloc[0], frame["x"].iloc[0]
    expected = stats.norm(0, np.sqrt(9 + x**2 + 1.5**2 + 0.5**2)).logpdf(y)
    assert target.likelihood(np.array([1.5, 0.5]))[0] == pytest.approx(expected, rel=1e-12)


def test_density_with_all_fixed_effects_given():
    priors = {"Intercept": StudentT(3, 0, 5), "beta": StudentT(4, 0, 2), "sigma": Exponential(2)}
    design = build_design(read_formula("y ~ x + f + (x | c)"), odd_frame(), weights="w")
    resolved = resolve(design, priors)
    target = target_of(design, resolved)
    assert target.fixed.J.shape == (4, 0)
    values, _ = target.space.values(np.random.default_rng(7).normal(size=target.space.d))
    expected = dense_log_density(design, resolved, target, values)
    assert target.likelihood(values)[0] == pytest.approx(expected, rel=1e-10)


# ------------------------------------------------------------------------ the fixed effects

PROPER = {"Intercept": Normal(4, 6), "beta": Normal(0.5, 2)}


@pytest.mark.parametrize("formula", ["y ~ x + f + (1 | c)", "y ~ x + x2 + f + (x | c)"])
@pytest.mark.parametrize("priors", [PROPER, "default"], ids=["own", "default"])
def test_fixed_effects_given_the_variances_are_normal_as_they_must_be(formula, priors):
    """Of precision X'V^-1 X + S^-1, also where only sums of effects are determined by data."""
    design = build_design(read_formula(formula), odd_frame(), weights="w")
    resolved = resolve(design, priors)
    target = target_of(design, resolved)
    cross, fixed = target.cross, target.fixed
    values, _ = target.space.values(np.random.default_rng(8).normal(size=target.space.d))
    sigma = values[0]
    pairs = zip(target.bases, target.space.factors(values), strict=True)
    Lambdas = [A @ F / sigma for A, F in pairs]
    found = linear_posterior.marginal(
        blocked_cholesky.factorize(cross, Lambdas), fixed, sigma, np.empty(0)
    )

    change = np.eye(len(design.fixed)) if resolved.change is None else resolved.change
    m = np.array([p.mu for p in resolved.beta])
    S = np.diag([p.sigma**2 for p in resolved.beta])
    V, X = dense_covariance(design, resolved, target, values), design.rows.X @ change
    gain = S @ X.T @ np.linalg.inv(V + X @ S @ X.T)
    mean = change @ (m + gain @ (design.rows.y - design.rows.offset - X @ m))
    cov = change @ (S - gain @ X @ S) @ change.T
    np.testing.assert_allclose(fixed.effects(found.gamma, np.empty(0)), mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        fixed.covariance(sigma**2 * found.gamma_cov), cov, rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("name", STRUCTURES)
def test_flat_effects_make_the_reml_criterion(name):
    """At sigma-hat the log density is minus half the criterion: no constant is left out."""
    design = random_design(STRUCTURES[name], 4)
    target = target_of(design, resolve(design, "flat"))
    Lambdas = random_factors(target.cross, 4)
    factorized = blocked_cholesky.factorize(target.cross, Lambdas)
    profile = profiled(factorized, reml=True)
    sigma = np.sqrt(profile.r2 / (target.cross.n - target.cross.p))
    found = linear_posterior.marginal(factorized, target.fixed, sigma, np.empty(0))
    assert found.value == pytest.approx(-profile.value / 2, rel=1e-12)
    assert found.d_sigma == pytest.approx(0.0, abs=1e-8)


def test_nothing_is_nan_far_out():
    design = build_design(read_formula("y ~ x + (1 + x + z | c)"), odd_frame())
    target = target_of(design, resolve(design, "default"))
    for i in range(target.space.d):
        for end in (-30.0, 30.0, -300.0, 300.0):
            logp, gradient = target(end * np.eye(target.space.d)[i])
            assert logp < np.inf
            assert not np.isfinite(logp) or np.isfinite(gradient).all()


def test_likelihood_is_minus_infinity_where_it_cannot_be_computed():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    target = target_of(model.design, model.priors)
    with np.errstate(all="ignore"):
        value, slopes = target.likelihood(np.array([1e-200, 1e200, 1.0, 0.5]))
    assert value == -np.inf
    assert (slopes == 0).all()
