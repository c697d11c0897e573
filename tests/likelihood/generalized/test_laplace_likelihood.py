"""Laplace's approximation against dense matrices, and its gradient against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import STRUCTURES
from nonlinear import (
    ALL,
    KNOWN,
    OWN,
    central,
    dense_modes,
    direction,
    packed,
    random_model,
    random_point,
)
from scipy import stats

from ranef.likelihood.generalized.laplace_likelihood import laplace
from ranef.likelihood.generalized.pirls import find_modes
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import profiled

FAST = {name: KNOWN[name] for name in ("binomial", "poisson")} | {"a count": OWN["a count"]}


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


def likelihood(model, point):
    setting = point.setting(model)
    return laplace(setting, find_modes(setting, model.zeros(), np.empty(0)))


def profile(model, point):
    setting = point.profile(model)
    return laplace(setting, find_modes(setting, model.zeros(), model.gamma))


def agree(slope, expected, tolerance=1e-6):
    """Compare a gradient with the derivative in one direction."""
    found = slope @ direction(slope)
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance * np.abs(slope).sum())


@pytest.mark.parametrize("name", FAST)
def test_the_value_equals_that_of_dense_matrices(formula, name):
    _, model = random_model(formula, FAST[name], 1)
    point = random_point(model, 2)
    expected = dense_modes(point.setting(model)).laplace
    assert likelihood(model, point).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_value_equals_that_of_dense_matrices_for_every_family(name):
    _, model = random_model("y ~ x + (x | s/c) + (1 | i)", ALL[name], 3)
    point = random_point(model, 4)
    expected = dense_modes(point.setting(model)).laplace
    assert likelihood(model, point).value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", ["binomial", "poisson"])
@pytest.mark.parametrize("where", ["inside", "at zero"])
def test_the_gradient_equals_central_differences(formula, name, where):
    _, model = random_model(formula, KNOWN[name], 5)
    point = random_point(model, 6)
    if where == "at zero":
        point.theta[:1] = 0.0
    found = likelihood(model, point)
    gamma = central(lambda x: likelihood(model, replace(point, gamma=x)).value, point.gamma)
    theta = central(lambda x: likelihood(model, replace(point, theta=x)).value, point.theta)
    agree(model.X.T @ found.rows, gamma)
    agree(packed(model, found.Lambdas), theta)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_equals_central_differences_for_every_family(name):
    _, model = random_model("y ~ x + (x | s/c) + (1 | i)", ALL[name], 7)
    point = random_point(model, 8)
    found = likelihood(model, point)

    def by(field):
        return central(
            lambda x: likelihood(model, replace(point, **{field: x})).value, getattr(point, field)
        )

    agree(model.X.T @ found.rows, by("gamma"))
    agree(packed(model, found.Lambdas), by("theta"))
    agree(found.psi, by("log_psi"))


@pytest.mark.parametrize("name", FAST)
def test_the_profile_is_the_value_at_its_own_coefficients(formula, name):
    _, model = random_model(formula, FAST[name], 9)
    point = random_point(model, 10)
    found = profile(model, point)
    expected = likelihood(model, replace(point, gamma=found.modes.gamma))
    assert found.value == pytest.approx(expected.value, rel=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_the_gradient_of_the_profile_follows_the_fixed_effects(formula, name):
    _, model = random_model(formula, FAST[name], 11)
    point = random_point(model, 12)
    found = profile(model, point)
    theta = central(lambda x: profile(model, replace(point, theta=x)).value, point.theta)
    psi = central(lambda x: profile(model, replace(point, log_psi=x)).value, point.log_psi)
    agree(packed(model, found.Lambdas), theta)
    agree(found.psi, psi)


def test_it_is_exact_for_the_normal_distribution(formula):
    design, model = random_model(formula, KNOWN["gaussian"], 13)
    point = random_point(model, 14)
    sigma, V = (
        float(np.exp(point.log_psi[0])),
        np.diag(np.exp(2 * point.log_psi[0]) / design.weights),
    )
    Lambdas = point.setting(model).Lambdas
    for term, T, Lambda in zip(design.terms, model.bases, Lambdas, strict=True):
        root = np.linalg.solve(T, Lambda)
        rows = term.columns @ root
        V += (rows @ rows.T) * (term.codes[:, None] == term.codes)
    mean = design.offset + model.X @ point.gamma
    expected = stats.multivariate_normal.logpdf(design.y, mean, V)
    found = likelihood(model, point)
    assert found.value == pytest.approx(expected, rel=1e-11)
    np.testing.assert_allclose(
        found.rows, np.linalg.solve(V, design.y - mean), atol=1e-8 * max(1, 1 / sigma**2)
    )


def test_its_profile_is_that_of_the_linear_engine(formula):
    design, model = random_model(formula, KNOWN["gaussian"], 15)
    point = random_point(model, 16)
    sigma = float(np.exp(point.log_psi[0]))
    found = profile(model, point)
    # the same model in the metric of the weights
    columns = [block.columns for block in model.problem.Z.blocks]
    assert len(columns) == len(design.terms)
    cross = cross_products(design)
    relative = [
        T @ np.linalg.solve(own, Lambda) / sigma
        for T, own, Lambda in zip(
            cross.bases, model.bases, point.profile(model).Lambdas, strict=True
        )
    ]
    of_linear = profiled(blocked_cholesky.factorize(cross, relative), reml=False)
    n, r2 = design.n_obs, of_linear.r2
    # from the deviance with sigma at its best to that at a given one
    deviance = of_linear.value - n * (1 + np.log(2 * np.pi * r2 / n))
    deviance += n * np.log(2 * np.pi * sigma**2) + r2 / sigma**2
    assert found.value == pytest.approx(-deviance / 2, rel=1e-10)
    beta = cross.beta_ols + np.linalg.solve(cross.R, of_linear.gamma)
    np.testing.assert_allclose(model.to_users @ found.modes.gamma, beta, rtol=1e-7, atol=1e-9)


def test_at_zero_variance_it_is_the_likelihood_without_random_effects():
    design, model = random_model("y ~ x + (x | c) + (1 | i)", KNOWN["poisson"], 17)
    point = random_point(model, 18)
    found = likelihood(model, replace(point, theta=0 * point.theta))
    mu = np.exp(design.offset + model.X @ point.gamma)
    expected = (design.weights * stats.poisson.logpmf(design.y, mu)).sum()
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert not packed(model, found.Lambdas).any()
