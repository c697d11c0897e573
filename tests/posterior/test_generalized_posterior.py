"""The posterior density of generalised models: its gradient, its mode, and its integral."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from maximum_cases import design_of, frame
from nonlinear import KNOWN, OWN, central, direction
from scipy import integrate, optimize, special, stats

from ranef.design.design import build_design
from ranef.errors import FitError
from ranef.formula.terms import read_formula
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import prepare, users_likelihood
from ranef.likelihood.linear.optimum.starts import starts_from
from ranef.posterior import laplace, mode
from ranef.posterior.generalized_posterior import joint_of
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant, HalfNormal, Normal

POISSON, BERNOULLI = KNOWN["poisson"], KNOWN["bernoulli"]

CASES = {
    "intercepts": ("count ~ x + (1 | g)", POISSON),
    "slopes": ("count ~ x + z + (x | g)", POISSON),
    "independent": ("count ~ x + (x || g)", POISSON),
    "nested": ("count ~ x + (1 | s/g)", BERNOULLI),
    "crossed": ("count ~ z + (z | g) + (1 | h)", POISSON),
    "a parameter": ("count ~ x + (1 | g)", KNOWN["negative_binomial"]),
    "a scale": ("time ~ x + (x | g)", KNOWN["gamma"]),
    "two parameters": ("level ~ x + (1 | g)", KNOWN["t"]),
    "by the log density alone": ("count ~ x + (1 | g)", OWN["a count"]),
    "no fixed effects": ("count ~ 0 + (1 | g)", POISSON),
    "no random effects": ("count ~ x", POISSON),
}


def joint_case(name, priors="default", n_agq=1, rows=120):
    formula, family = CASES[name]
    data = frame().iloc[:rows]
    design = design_of(formula.replace("count", "one") if family is BERNOULLI else formula, data)
    return design, joint_of(design, family, resolve(design, priors, family), n_agq)


def off_the_start(joint, seed=1):
    return joint.start() + joint.units() @ np.random.default_rng(seed).normal(size=joint.space.d)


@pytest.mark.parametrize("natural", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_equals_differences(name, natural):
    _, joint = joint_case(name)
    x, units = off_the_start(joint), joint.units()
    value, gradient = joint(x, natural=natural)
    assert np.isfinite(value)
    z = np.linalg.solve(units, x)
    slope = central(lambda z: joint(units @ z, natural=natural)[0], z)
    assert units.T @ gradient @ direction(z) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", ["intercepts", "slopes", "a parameter"])
def test_the_gradient_by_quadrature_equals_differences(name):
    _, joint = joint_case(name, n_agq=5)
    x, units = off_the_start(joint), joint.units()
    z = np.linalg.solve(units, x)
    slope = central(lambda z: joint(units @ z)[0], z)
    assert units.T @ joint(x)[1] @ direction(z) == pytest.approx(slope, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_many_points_at_once_have_the_same_density(name):
    _, joint = joint_case(name)
    x = np.array([off_the_start(joint, seed) for seed in range(3)])
    np.testing.assert_allclose(joint.log_density(x), [joint(one)[0] for one in x], rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_density_is_prior_times_likelihood(name):
    design, joint = joint_case(name)
    x = off_the_start(joint)
    values, logp = joint.space.values(x)
    model = prepare(design, joint.model.family)
    own = joint.own(values)
    sigma = dict(zip(joint.model.family.parameters, own, strict=True)).get("sigma", 1.0)
    theta = []
    for T, A, F, shape in zip(
        model.bases, joint.bases, joint.space.factors(values), model.covariances, strict=True
    ):
        root = np.linalg.solve(T, A) @ F
        lower = np.linalg.cholesky(root @ root.T) / sigma
        theta.append(lower[shape.free_elements])
    expected = users_likelihood(
        model, np.concatenate([*theta, []]), joint.change @ values[: joint.p], own, 1
    )
    assert joint(x)[0] == pytest.approx(logp + expected.value, rel=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_its_mode_is_found(name):
    _, joint = joint_case(name)
    found = laplace.find_mode(joint)
    assert found.convergence.ok
    assert joint(found.x)[0] == pytest.approx(found.logp)
    np.testing.assert_allclose(joint(found.x)[1] @ found.root, 0, atol=1e-3)
    assert joint(joint.start())[0] < found.logp


def test_where_there_is_no_likelihood_the_density_is_zero():
    _, joint = joint_case("intercepts")
    x = joint.start()
    x[0] = 1e6
    value, gradient = joint(x)
    assert value == -np.inf
    assert np.isfinite(gradient).all() or np.isnan(gradient).any()
    assert joint.log_density(x[None])[0] == -np.inf


# ---------------------------------------------------------------------------- the integrals


@cache
def small():
    """Return a design with one fixed effect, one sd and five groups."""
    rng = np.random.default_rng(11)
    data = pd.DataFrame({"g": np.repeat(np.arange(6), 8)})
    data["count"] = rng.poisson(np.exp(0.4 + 0.6 * rng.normal(size=6))[data["g"]])
    return design_of("count ~ 1 + (1 | g)", data)


PRIORS = {"Intercept": Normal(0, 2), "sd": HalfNormal(1)}


def density(beta, sd):
    """Return the log posterior density up to p(y), by a trapezoid of many points."""
    design, u = small(), np.linspace(-8, 8, 1201)
    sums = np.bincount(design.rows.terms[0].codes, design.rows.y)
    eta = beta + sd * u
    logs = sums[:, None] * eta - 8 * np.exp(eta) + stats.norm.logpdf(u) + np.log(u[1] - u[0])
    prior = stats.norm.logpdf(beta, 0, 2) + stats.halfnorm.logpdf(sd)
    return special.logsumexp(logs, axis=1).sum() - special.gammaln(design.rows.y + 1).sum() + prior


@cache
def exact():
    """Return the log evidence, and mean and sd of intercept and sd, by brute force."""
    betas, sds = np.linspace(-2, 2.5, 61), np.linspace(1e-6, 4, 81)
    logs = np.array([[density(b, s) for s in sds] for b in betas])
    top = logs.max()

    def mean(f):
        grid = np.exp(logs - top) * f
        return integrate.simpson(integrate.simpson(grid, x=sds, axis=1), x=betas)

    total = mean(np.ones_like(logs))
    b, s = np.meshgrid(betas, sds, indexing="ij")
    found = []
    for value in (b, s):
        first = mean(value) / total
        found += [first, np.sqrt(mean((value - first) ** 2) / total)]
    return np.log(total) + top, np.array(found)


@cache
def drawn(n_agq):
    design = small()
    joint = joint_of(design, POISSON, resolve(design, PRIORS, POISSON), n_agq)
    found = laplace.approximate(joint, draws=2000, rng=np.random.default_rng(2))
    values = joint.space.values(found.x)[0]
    beta, sd = values[:, 0], values[:, joint.space.places[0][0]][:, 0]
    return found, np.array([beta.mean(), beta.std(), sd.mean(), sd.std()])


def test_quadrature_gives_the_exact_posterior_and_evidence():
    evidence, moments = exact()
    found, got = drawn(15)
    assert found.khat < 0.5
    assert found.log_evidence == pytest.approx(evidence, abs=max(0.01, 5 * found.mcse))
    np.testing.assert_allclose(got, moments, atol=0.04)


def test_the_laplace_approximation_is_near():
    evidence, moments = exact()
    found, got = drawn(1)
    assert found.khat < 0.5
    assert found.log_evidence == pytest.approx(evidence, abs=0.06)
    np.testing.assert_allclose(got, moments, atol=0.06)


@pytest.mark.parametrize(("beta", "sd"), [(0.4, 0.3), (0.0, 0.8), (1.2, 1.5)])
def test_more_points_come_nearer_to_the_exact_density(beta, sd):
    design, errors = small(), []
    for n_agq in (1, 7, 25):
        joint = joint_of(design, POISSON, resolve(design, PRIORS, POISSON), n_agq)
        x = joint.space.point(np.array([beta, 1.0, sd]))
        errors.append(abs(joint(x, natural=True)[0] - density(beta, sd)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-7


def test_effects_are_drawn_from_their_conditional_distribution():
    design = small()
    joint = joint_of(design, POISSON, resolve(design, PRIORS, POISSON))
    point = joint.space.values(joint.start())[0]
    draws = joint.draw(np.tile(point, (4000, 1)), np.random.default_rng(3))
    sums, sd = np.bincount(design.rows.terms[0].codes, design.rows.y), point[-1]
    for level, total in enumerate(sums):
        mode = optimize.brentq(lambda b, y=total: y - 8 * np.exp(point[0] + b) - b / sd**2, -20, 20)
        around = 1 / np.sqrt(8 * np.exp(point[0] + mode) + 1 / sd**2)
        b = draws.b[0][:, level, 0]
        assert b.mean() == pytest.approx(mode, abs=5 * around / np.sqrt(4000))
        assert b.std() == pytest.approx(around, rel=0.06)
    np.testing.assert_allclose(draws.beta[:, 0], point[0])
    assert draws.sigma is None


def test_factors_and_parameters_are_drawn_on_the_users_scale():
    formula, family = CASES["a scale"]
    data = frame().iloc[:120].assign(x=lambda t: t["x"] - t["x"].min() + 0.5)
    design = design_of(formula, data)
    priors = resolve(design, "default", family)
    joint = joint_of(design, family, priors)
    values = joint.space.values(off_the_start(joint))[0]
    draws = joint.draw(values[None], np.random.default_rng(1))
    assert draws.sigma[0] == values[joint.space.n_given]
    np.testing.assert_allclose(draws.beta[0], joint.change @ values[: joint.p])
    np.testing.assert_allclose(priors.terms[0].change, [[1, -0.5], [0, 1]])
    expected = priors.terms[0].change @ joint.space.factors(values)[0]
    np.testing.assert_allclose(draws.factors[0][0], expected, rtol=1e-9)


# ------------------------------------------------------------------------------ invariance


def test_the_origin_and_unit_of_a_predictor_without_zero_do_not_matter():
    data = frame().iloc[:120].assign(x=lambda t: t["x"] - t["x"].min() + 0.5)
    densities = []
    for moved in (data, data.assign(x=100 * data["x"] + 700)):
        design = design_of("count ~ x + (x | g)", moved)
        joint = joint_of(design, POISSON, resolve(design, "default", POISSON))
        densities.append((joint, laplace.find_mode(joint)))
    (one, first), (other, second) = densities
    assert second.log_evidence == pytest.approx(first.log_evidence, abs=1e-4)
    x = first.x + 0.3
    shifted = x.copy()
    scale = np.array([1, 1 / 100])
    shifted[:2] *= scale
    place = np.flatnonzero(np.array(one.space.free_names) == "sd_g[x]")
    shifted[place] -= np.log(100)
    values = one.space.values(x)[0]
    assert np.isfinite(values).all()
    assert other(shifted, natural=True)[0] == pytest.approx(
        one(x, natural=True)[0] - 2 * np.log(1 / 100), abs=1e-6
    )


def test_dependent_columns_have_a_posterior_with_proper_priors():
    data = frame().iloc[:120].assign(twice=lambda d: 2 * d["x"])
    design = build_design(read_formula("count ~ x + twice + (1 | g)"), data)
    joint = joint_of(design, POISSON, resolve(design, "default", POISSON))
    found = laplace.find_mode(joint)
    assert found.convergence.ok
    values = joint.space.values(found.x)[0]
    # the priors of the two have the same unit and share the sum
    assert values[2] * 2 == pytest.approx(values[1], rel=1e-3)
    z = np.linalg.solve(joint.units(), found.x + 0.1)
    slope = central(lambda z: joint(joint.units() @ z)[0], z)
    gradient = joint.units().T @ joint(joint.units() @ z)[1]
    assert gradient @ direction(z) == pytest.approx(slope, rel=1e-6, abs=1e-6)


# --------------------------------------------------------------------------- posterior modes


@pytest.mark.parametrize("n_agq", [1, 5])
@pytest.mark.parametrize("name", CASES)
def test_with_flat_priors_the_mode_is_the_maximum_of_the_likelihood(name, n_agq):
    if n_agq > 1 and name in ("nested", "crossed"):
        pytest.skip("several factors")
    design, joint = joint_case(name, "flat", n_agq, rows=300)
    found = mode.estimate_jointly(joint)
    expected = maximum.maximum_likelihood(prepare(design, joint.model.family), n_agq=n_agq)
    assert found.loglik == pytest.approx(expected.loglik, abs=1e-7)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.parameters, expected.parameters, rtol=1e-4)
    np.testing.assert_allclose(found.vcov, expected.vcov, rtol=1e-3, atol=1e-7)
    assert found.sigma == pytest.approx(expected.sigma, rel=1e-5)


@pytest.mark.parametrize("priors", ["default", "boundary"])
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_the_penalised_objective_equals_differences(name, priors):
    _, joint = joint_case(name, priors)
    penalty = mode._Joint(joint)
    rng = np.random.default_rng(4)
    size = sum(shape.n_theta for shape in joint.model.covariances)
    x = np.append(penalty.start(), rng.normal(size=size))
    x += 0.3 * rng.normal(size=len(x))
    value, gradient = penalty(x)
    assert np.isfinite(value)
    slope = central(lambda x: penalty(x)[0], x, h=1e-4)
    assert gradient @ direction(x) == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_a_normal_prior_of_the_fixed_effects_is_a_ridge():
    design = design_of("one ~ x + z")
    priors = {"beta": Normal(0, 0.3), "Intercept": Normal(1, 0.5)}
    joint = joint_of(design, BERNOULLI, resolve(design, priors, BERNOULLI))
    found = mode.estimate_jointly(joint)

    def objective(beta):
        chance = special.log_expit((2 * design.rows.y - 1) * (design.rows.X @ beta)).sum()
        return -chance - stats.norm.logpdf(beta, [1, 0, 0], [0.5, 0.3, 0.3]).sum()

    best = optimize.minimize(objective, np.zeros(3), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(found.beta, best.x, atol=1e-5)
    assert found.objective == pytest.approx(2 * best.fun, rel=1e-10)
    chance = special.expit(design.rows.X @ found.beta)
    information = (design.rows.X.T * (chance * (1 - chance))) @ design.rows.X
    information += np.diag(1 / np.array([0.5, 0.3, 0.3]) ** 2)
    np.testing.assert_allclose(found.vcov, np.linalg.inv(information), rtol=1e-4)


def test_separation_leaves_a_finite_mode():
    data = frame().assign(one=(frame()["x"] > 0.2).astype(float))
    design = design_of("one ~ x + (1 | g)", data)
    joint = joint_of(design, BERNOULLI, resolve(design, "default", BERNOULLI))
    found = mode.estimate_jointly(joint)
    assert found.convergence.ok
    assert 1 < found.beta[1] < 50
    assert np.isfinite(found.vcov).all()


def test_boundary_priors_keep_a_variance_off_zero():
    data = frame().assign(count=np.tile([1, 2, 3, 2, 1], 60), g=np.arange(300) % 12)
    design = design_of("count ~ x + (x | g)", data)
    zero = maximum.maximum_likelihood(prepare(design, POISSON))
    assert any(zero.singular)
    joint = joint_of(design, POISSON, resolve(design, "boundary", POISSON))
    found = mode.estimate_jointly(joint)
    assert found.convergence.ok
    assert not any(found.singular)
    assert np.linalg.svd(found.Lambdas[0], compute_uv=False)[-1] > 0.005


def test_the_mode_is_where_its_gradient_vanishes():
    _, joint = joint_case("slopes", rows=300)
    found = mode.estimate_jointly(joint)
    assert found.convergence.ok
    penalty = mode._Joint(joint)
    again = mode._best(penalty, np.array([0.3, 0.1, 0.2]), starts_from, few=False)
    assert again.value == pytest.approx(found.objective, abs=1e-7)
    assert found.objective > -2 * found.loglik - 100


def test_dependent_columns_have_a_mode_with_proper_priors():
    data = frame().assign(twice=2 * frame()["x"])
    design = build_design(read_formula("count ~ x + twice + (1 | g)"), data)
    found = mode.estimate_jointly(joint_of(design, POISSON, resolve(design, "default", POISSON)))
    plain = design_of("count ~ x + (1 | g)")
    alone = maximum.maximum_likelihood(prepare(plain, POISSON))
    assert found.convergence.ok
    assert found.beta[1] + 2 * found.beta[2] == pytest.approx(alone.beta[1], abs=0.1)
    assert np.isfinite(found.vcov).all()


def test_a_known_sd_has_no_mode():
    design = design_of("count ~ x + (1 | g)")
    joint = joint_of(design, POISSON, resolve(design, {"sd": Constant(1.0)}, POISSON))
    with pytest.raises(FitError) as caught:
        mode.estimate_jointly(joint)
    assert str(caught.value) == (
        "the prior of `sd_g[Intercept]` is a constant: a posterior mode keeps no standard "
        'deviation of random effects fixed; use method="mcmc" or "laplace".'
    )


def test_known_values_are_no_coordinates():
    _, joint = joint_case("intercepts")
    assert "sigma" not in joint.space.free_names
    assert joint.space.values(joint.start())[0][joint.space.n_given] == 1.0
    assert replace(joint, n_agq=7).approximation == "7-point quadrature"
    assert joint.approximation == "Laplace's approximation"
