"""Adaptive quadrature against brute-force integration, and its gradient against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import STRUCTURES
from nonlinear import (
    ALL,
    KNOWN,
    OWN,
    brute_force,
    central,
    dense_modes,
    direction,
    packed,
    random_model,
    random_point,
)
from scipy import integrate, stats

from ranef.likelihood.generalized.gauss_hermite import if_any, laplace, quadrature, rule
from ranef.likelihood.generalized.pirls import NoModesError, find_modes
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import profiled

FAMILIES = {name: KNOWN[name] for name in ("binomial", "poisson")} | {
    name: OWN[name] for name in ("a count", "a scale")
}
ONE = "y ~ x + (1 | c)"
TWO = "y ~ x + (x | c)"
MERGED = "y ~ x + (1 | c) + (0 + x | c)"


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request):
    return request.param


def model_of(formula, family, n=60):
    return random_model(formula, family, 1, n)[1]


def likelihood(model, point, points):
    return model.likelihood(point.setting(model), model.zeros(), points)


@pytest.mark.parametrize("formula", [ONE, TWO])
def test_one_point_is_the_laplace_approximation(formula, family):
    model = model_of(formula, family)
    setting = random_point(model, 2).setting(model)
    modes = find_modes(setting, model.zeros(), np.empty(0))
    one, other = quadrature(setting, modes, 1), laplace(setting, modes)
    assert one.value == pytest.approx(other.value, rel=1e-12)
    np.testing.assert_allclose(one.rows, other.rows, atol=1e-9)
    np.testing.assert_allclose(one.Lambdas[0], other.Lambdas[0], atol=1e-9)
    np.testing.assert_allclose(one.psi, other.psi, atol=1e-9)


@pytest.mark.parametrize("formula", [TWO, MERGED, "y ~ x + (x || c)"])
def test_terms_of_one_factor_are_one_term(formula):
    family = KNOWN["poisson"]
    model = model_of(formula, family)
    point = random_point(model, 3)
    point.theta[:] = 0.4
    found = likelihood(model, point, 7)
    assert [one.shape for one in found.Lambdas] == [(s.k, s.k) for s in model.covariances]
    assert [one.shape for one in found.modes.u] == [one.shape for one in model.zeros()]
    exact = likelihood(model, point, 1)
    for one, other in zip(found.modes.u, exact.modes.u, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_many_points_equal_brute_force_for_one_effect(family):
    model = model_of(ONE, family)
    point = random_point(model, 4)
    expected = brute_force(point.setting(model), 4001)
    assert likelihood(model, point, 25).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("formula", [TWO, MERGED])
def test_many_points_equal_brute_force_for_two_effects(formula, family):
    model = model_of(formula, family)
    point = random_point(model, 5)
    setting = point.setting(model)
    merged = model.merged
    together = replace(setting, problem=merged)
    if len(setting.Lambdas) > 1:
        together = replace(together, Lambdas=[np.diag([L[0, 0] for L in setting.Lambdas])])
    expected = brute_force(together, 301)
    assert likelihood(model, point, 25).value == pytest.approx(expected, rel=1e-8)


def test_many_points_equal_adaptive_integration_by_scipy():
    model = model_of(ONE, KNOWN["binomial"], 30)
    point = random_point(model, 6)
    setting, (block,) = point.setting(model), model.problem.Z.blocks
    total = 0.0
    for level in range(block.n_levels):
        rows = block.codes == level

        def integrand(u, rows=rows):
            eta = setting.base[rows] + block.columns[rows, 0] * setting.Lambdas[0][0, 0] * u
            w = model.problem.weights[rows]
            k = np.rint(w * model.problem.y[rows])
            return np.exp(stats.binom.logpmf(k, w, 1 / (1 + np.exp(-eta))).sum()) * stats.norm.pdf(
                u
            )

        total += np.log(integrate.quad(integrand, -12, 12, epsabs=0, epsrel=1e-11, points=[0])[0])
    assert likelihood(model, point, 51).value == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("points", [1, 2, 3, 5, 25])
@pytest.mark.parametrize("formula", [ONE, TWO, MERGED])
def test_the_gradient_is_that_of_the_sum(formula, points):
    model = model_of(formula, KNOWN["poisson"])
    check_gradient(model, random_point(model, 7), points)


@pytest.mark.parametrize("points", [3, 25])
def test_the_gradient_is_that_of_the_sum_for_families_with_parameters(family, points):
    model = model_of(TWO, family)
    check_gradient(model, random_point(model, 8), points)


def check_gradient(model, point, points):
    found = likelihood(model, point, points)

    def by(field):
        return central(
            lambda x: likelihood(model, replace(point, **{field: x}), points).value,
            getattr(point, field),
        )

    agree(model.X.T @ found.rows, by("gamma"))
    agree(packed(model, found.Lambdas), by("theta"))
    agree(found.psi, by("linked"))


def test_the_gradient_holds_where_a_variance_is_zero():
    model = model_of(TWO, KNOWN["poisson"])
    point = random_point(model, 9)
    point.theta[1:] = 0.0
    check_gradient(model, point, 5)


def test_there_is_a_likelihood_only_where_it_and_its_derivatives_are_finite():
    model = model_of(ONE, KNOWN["poisson"])
    found = likelihood(model, random_point(model, 2), 1)

    def fails():
        raise NoModesError("there are none")

    assert if_any(lambda: found) is found
    assert if_any(lambda: replace(found, value=np.inf)) is None
    assert if_any(lambda: replace(found, Lambdas=[np.nan * L for L in found.Lambdas])) is None
    assert if_any(fails) is None


def test_any_number_of_points_is_exact_for_the_normal_distribution():
    model = model_of(TWO, KNOWN["gaussian"])
    point = random_point(model, 10)
    values = [likelihood(model, point, points).value for points in (1, 2, 5, 12)]
    np.testing.assert_allclose(values, values[0], rtol=1e-11)


def test_without_random_effects_there_is_nothing_to_integrate():
    model = model_of("y ~ x", KNOWN["poisson"])
    point = random_point(model, 11)
    assert likelihood(model, point, 9).value == likelihood(model, point, 1).value


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_rule_has_the_moments_of_the_normal_distribution(k):
    found = rule(6, k)
    weights = np.exp(found.log_weights)
    assert found.nodes.shape == (6**k, k)
    assert weights.sum() == pytest.approx(1, rel=1e-13)
    np.testing.assert_allclose(weights @ found.nodes, 0, atol=1e-14)
    second = np.einsum("i,ia,ib->ab", weights, found.nodes, found.nodes)
    np.testing.assert_allclose(second, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(weights @ found.nodes**10, 945, rtol=1e-11)


def test_the_rule_of_many_points_is_exact_and_symmetric():
    found = rule(101, 1)
    np.testing.assert_array_equal(found.nodes, -found.nodes[::-1])
    assert np.exp(found.log_weights) @ np.cos(found.nodes[:, 0]) == pytest.approx(np.exp(-0.5))


FAST = {name: KNOWN[name] for name in ("binomial", "poisson")} | {"a count": OWN["a count"]}


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


def laplace_at(model, point):
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
    assert laplace_at(model, point).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_the_value_equals_that_of_dense_matrices_for_every_family(name):
    _, model = random_model("y ~ x + (x | s/c) + (1 | i)", ALL[name], 3)
    point = random_point(model, 4)
    expected = dense_modes(point.setting(model)).laplace
    assert laplace_at(model, point).value == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("name", ["binomial", "poisson"])
@pytest.mark.parametrize("where", ["inside", "at zero"])
def test_the_gradient_equals_central_differences(formula, name, where):
    _, model = random_model(formula, KNOWN[name], 5)
    point = random_point(model, 6)
    if where == "at zero":
        point.theta[:1] = 0.0
    found = laplace_at(model, point)
    gamma = central(lambda x: laplace_at(model, replace(point, gamma=x)).value, point.gamma)
    theta = central(lambda x: laplace_at(model, replace(point, theta=x)).value, point.theta)
    agree(model.X.T @ found.rows, gamma)
    agree(packed(model, found.Lambdas), theta)


@pytest.mark.parametrize("name", ALL)
def test_the_gradient_equals_central_differences_for_every_family(name):
    _, model = random_model("y ~ x + (x | s/c) + (1 | i)", ALL[name], 7)
    point = random_point(model, 8)
    found = laplace_at(model, point)

    def by(field):
        return central(
            lambda x: laplace_at(model, replace(point, **{field: x})).value, getattr(point, field)
        )

    agree(model.X.T @ found.rows, by("gamma"))
    agree(packed(model, found.Lambdas), by("theta"))
    agree(found.psi, by("linked"))


@pytest.mark.parametrize("name", FAST)
def test_the_profile_is_the_value_at_its_own_coefficients(formula, name):
    _, model = random_model(formula, FAST[name], 9)
    point = random_point(model, 10)
    found = profile(model, point)
    expected = laplace_at(model, replace(point, gamma=found.modes.gamma))
    assert found.value == pytest.approx(expected.value, rel=1e-10)


@pytest.mark.parametrize("name", FAST)
def test_the_gradient_of_the_profile_follows_the_fixed_effects(formula, name):
    _, model = random_model(formula, FAST[name], 11)
    point = random_point(model, 12)
    found = profile(model, point)
    theta = central(lambda x: profile(model, replace(point, theta=x)).value, point.theta)
    psi = central(lambda x: profile(model, replace(point, linked=x)).value, point.linked)
    agree(packed(model, found.Lambdas), theta)
    agree(found.psi, psi)


def test_it_is_exact_for_the_normal_distribution(formula):
    design, model = random_model(formula, KNOWN["gaussian"], 13)
    point = random_point(model, 14)
    sigma, V = (
        float(np.exp(point.linked[0])),
        np.diag(np.exp(2 * point.linked[0]) / design.rows.weights),
    )
    Lambdas = point.setting(model).Lambdas
    for term, T, Lambda in zip(design.rows.terms, model.bases, Lambdas, strict=True):
        root = np.linalg.solve(T, Lambda)
        rows = term.columns @ root
        V += (rows @ rows.T) * (term.codes[:, None] == term.codes)
    mean = design.rows.offset + model.X @ point.gamma
    expected = stats.multivariate_normal.logpdf(design.rows.y, mean, V)
    found = laplace_at(model, point)
    assert found.value == pytest.approx(expected, rel=1e-11)
    np.testing.assert_allclose(
        found.rows, np.linalg.solve(V, design.rows.y - mean), atol=1e-8 * max(1, 1 / sigma**2)
    )


def test_its_profile_is_that_of_the_linear_engine(formula):
    design, model = random_model(formula, KNOWN["gaussian"], 15)
    point = random_point(model, 16)
    sigma = float(np.exp(point.linked[0]))
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
    found = laplace_at(model, replace(point, theta=0 * point.theta))
    mu = np.exp(design.rows.offset + model.X @ point.gamma)
    expected = (design.rows.weights * stats.poisson.logpmf(design.rows.y, mu)).sum()
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert not packed(model, found.Lambdas).any()


@pytest.mark.parametrize("name", ["binomial", "poisson", "gamma"])
def test_near_a_variance_of_zero_the_gradient_is_as_exact_as_elsewhere(name):
    """It is odd in a column of the factor, and so proportional to one that is small."""
    _, model = random_model("y ~ x + (x | c) + (1 | i)", KNOWN[name], 19)
    point = random_point(model, 20)

    def slope(sd):
        theta = np.array([0.5, 0.3, sd, 0.4])
        return packed(model, laplace_at(model, replace(point, theta=theta)).Lambdas)[2] / sd

    expected = slope(1e-4)
    for sd in (1e-5, 1e-6, 1e-7, 1e-8, 1e-10):
        assert slope(sd) == pytest.approx(expected, rel=1e-5)
