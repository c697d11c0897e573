"""Adaptive quadrature against brute-force integration, and its gradient against differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from nonlinear import (
    KNOWN,
    OWN,
    brute_force,
    central,
    direction,
    packed,
    random_model,
    random_point,
)
from scipy import integrate, stats

from ranef.likelihood.generalized.gauss_hermite import quadrature, rule
from ranef.likelihood.generalized.laplace_likelihood import laplace
from ranef.likelihood.generalized.pirls import find_modes

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


def agree(slope, expected):
    found = slope @ direction(slope)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6 * np.abs(slope).sum())


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
    assert [one.shape for one in found.Lambdas] == [(s.k, s.k) for s in model.shapes]
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
    agree(found.psi, by("log_psi"))


def test_the_gradient_holds_where_a_variance_is_zero():
    model = model_of(TWO, KNOWN["poisson"])
    point = random_point(model, 9)
    point.theta[1:] = 0.0
    check_gradient(model, point, 5)


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
