"""Conditional modes against Newton's method with dense matrices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import STRUCTURES
from nonlinear import (
    ALL,
    KNOWN,
    OWN,
    dense_modes,
    indicator,
    made,
    random_model,
    random_point,
    spread,
)
from scipy import optimize, stats

from ranef.covariances.covariance import Unstructured
from ranef.families.derivatives import Expansion
from ranef.likelihood.generalized.pirls import NoModesError, Problem, Setting, find_modes
from ranef.likelihood.generalized.weighted_crossproducts import TermColumns, weighted


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


@pytest.fixture(params=["binomial", "poisson"])
def family(request):
    return KNOWN[request.param]


def flat(effects):
    return np.concatenate([*(one.ravel() for one in effects), []])


def test_modes_equal_those_of_dense_matrices(formula, family):
    _, model = random_model(formula, family, 1)
    setting = random_point(model, 2).setting(model)
    expected, found = dense_modes(setting), find_modes(setting, model.zeros(), np.empty(0))
    np.testing.assert_allclose(flat(found.u), expected.u, atol=1e-8)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    np.testing.assert_allclose(found.expansion.weight, expected.W, atol=1e-7)
    assert found.gamma.shape == (0,)


def test_fixed_effects_are_found_together_with_the_modes(formula, family):
    _, model = random_model(formula, family, 3)
    setting = random_point(model, 4).profile(model)
    expected, found = dense_modes(setting), find_modes(setting, model.zeros(), model.gamma)
    np.testing.assert_allclose(flat(found.u), expected.u, atol=1e-7)
    np.testing.assert_allclose(found.gamma, expected.gamma, atol=1e-7)
    assert found.value == pytest.approx(expected.value, rel=1e-12)
    np.testing.assert_allclose(model.X.T @ found.expansion.score, 0, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_modes_are_stationary_and_a_maximum_for_every_family(name):
    _, model = random_model("y ~ x + (x | s/c)", ALL[name], 5)
    setting = random_point(model, 6).setting(model)
    found = find_modes(setting, model.zeros(), np.empty(0))
    slopes = setting.scores(found.expansion.score)
    np.testing.assert_allclose(flat(slopes), flat(found.u), atol=1e-6)
    assert np.isfinite(found.factorized.logdet)


def test_modes_do_not_depend_on_the_start(family):
    _, model = random_model("y ~ x + (x | c) + (z | i)", family, 7)
    setting, rng = random_point(model, 8).setting(model), np.random.default_rng(1)
    first = find_modes(setting, model.zeros(), np.empty(0))
    for size in (1.0, 5.0):
        start = [size * rng.normal(size=one.shape) for one in first.u]
        other = find_modes(setting, start, np.empty(0))
        np.testing.assert_allclose(flat(other.u), flat(first.u), atol=1e-8)
    again = find_modes(setting, first.u, np.empty(0))
    assert (again.steps, again.value) == (0, pytest.approx(first.value, rel=1e-14))


def test_an_impossible_start_is_left_for_zero():
    _, model = random_model("y ~ x + (1 | c)", KNOWN["poisson"], 7)
    setting = random_point(model, 8).setting(model)
    first = find_modes(setting, model.zeros(), np.empty(0))
    other = find_modes(setting, [np.full_like(one, np.nan) for one in first.u], np.empty(0))
    np.testing.assert_allclose(flat(other.u), flat(first.u), atol=1e-8)


def test_a_variance_of_zero_leaves_modes_of_zero(formula, family):
    _, model = random_model(formula, family, 9)
    setting = replace(
        random_point(model, 1).setting(model),
        Lambdas=[np.zeros((shape.k, shape.k)) for shape in model.covariances],
    )
    found = find_modes(setting, model.zeros(), np.empty(0))
    assert not flat(found.u).any()
    assert found.factorized.logdet == 0


def small(family, y, *, base=0.0, scale=1.0, psi=(), m=None):
    """Return a setting of a random intercept, one row a level."""
    n = len(y)
    m = m or n
    block = TermColumns(np.arange(n) % m, np.ones((n, 1)), m, Unstructured(1))
    problem = Problem(family, np.asarray(y, dtype=float), np.ones(n), weighted([block], n))
    known = np.broadcast_to(np.asarray(base, dtype=float), n).copy()
    return Setting(problem, known, np.empty((n, 0)), [np.eye(1) * scale], np.array(psi))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_counts_of_a_million_and_of_zero(scale):
    setting = small(KNOWN["poisson"], [0, 1, 1e3, 1e6], scale=scale)
    found = find_modes(setting, [np.zeros((4, 1))], np.empty(0))
    for y, u in zip(setting.problem.y, found.u[0][:, 0], strict=True):

        def slope(v, y=y):
            return scale * (y - np.exp(scale * v)) - v

        assert u == pytest.approx(optimize.brentq(slope, -9, 1 + 15 / scale), abs=1e-6)


@pytest.mark.parametrize("base", [-40.0, 40.0])
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_linear_predictors_far_out(base, scale):
    setting = small(KNOWN["binomial"], [0, 1, 0, 1], base=base, scale=scale)
    found = find_modes(setting, [np.zeros((4, 1))], np.empty(0))
    np.testing.assert_allclose(
        setting.scores(found.expansion.score)[0], found.u[0], rtol=1e-6, atol=1e-9
    )


def test_a_density_with_two_peaks_ends_at_one_of_them():
    setting = small(OWN["no peak"], [9.0, -9.0, 9.5], scale=3, psi=(0.3, 1.5), m=1)
    found = find_modes(setting, [np.array([[0.2]])], np.empty(0))
    grid = np.linspace(-8, 8, 40001)

    def value(u):
        return stats.t.logpdf(setting.problem.y, 1.5, 3 * u, 0.3).sum() - u**2 / 2

    values = np.array([value(u) for u in grid])
    peaks = grid[1:-1][(values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])]
    assert len(peaks) > 1
    assert np.abs(peaks - found.u[0][0, 0]).min() < 1e-3
    assert np.isfinite(found.factorized.logdet)


def test_no_finite_density_anywhere_is_an_error():
    setting = small(KNOWN["poisson"], [1.0, 2.0], base=np.nan)
    with pytest.raises(NoModesError, match=r"^the log density is not finite at the start$"):
        find_modes(setting, [np.zeros((2, 1))], np.empty(0))


def test_dependent_fixed_columns_are_an_error():
    problem = small(KNOWN["poisson"], [1.0, 2.0, 3.0]).problem
    fixed = np.ones((3, 2))
    setting = Setting(problem, np.zeros(3), fixed, [np.eye(1)], np.empty(0))
    with pytest.raises(NoModesError, match=r"^the expected information is not positive definite$"):
        find_modes(setting, [np.zeros((3, 1))], np.zeros(2))


def test_fixed_effects_that_separate_have_no_modes_or_go_far_out():
    problem = small(KNOWN["binomial"], [0.0, 0.0, 1.0, 1.0]).problem
    fixed = np.array([[1.0, -2], [1, -1], [1, 1], [1, 2]])
    setting = Setting(problem, np.zeros(4), fixed, [np.zeros((1, 1))], np.empty(0))
    try:
        found = find_modes(setting, [np.zeros((4, 1))], np.zeros(2))
    except NoModesError:
        return
    assert np.abs(found.eta).min() > 10


def test_an_expected_information_that_is_not_finite_is_an_error():
    family = made(
        "never",
        "gaussian",
        log_density=lambda y, mu, w: w * (mu - y) ** 2,
        variance=lambda mu: mu * np.nan,
    )
    with pytest.raises(NoModesError, match=r"^the expected information is not positive definite$"):
        find_modes(small(family, [1.0, 2.0]), [np.zeros((2, 1))], np.empty(0))


def test_a_density_without_a_maximum_is_an_error():
    family = made(
        "up",
        "gaussian",
        log_density=lambda y, mu, w: w * (mu - y) ** 2,
        expand=lambda _, y, eta, w, __: Expansion(w * (eta - y) ** 2, 2 * w * (eta - y), -2 * w),
    )
    with pytest.raises(NoModesError, match=r"^the modes were not reached$"):
        find_modes(small(family, [1.0, 2.0]), [np.zeros((2, 1))], np.empty(0))


def test_the_system_is_the_one_that_is_solved():
    _, model = random_model("y ~ x + (x | c) + (1 | i)", KNOWN["poisson"], 2)
    setting, rng = random_point(model, 3).profile(model), np.random.default_rng(5)
    weights, rows = rng.uniform(0.2, 2, 90), rng.normal(size=90)
    u, gamma, fitted = setting.solve(setting.factorized(weights), weights, rows)
    Z = indicator(model.problem)
    A = np.hstack([Z @ spread(model.problem, setting.Lambdas), model.X])
    penalty = np.diag(np.r_[np.ones(Z.shape[1]), np.zeros(model.X.shape[1])])
    expected = np.linalg.solve((A.T * weights) @ A + penalty, A.T @ rows)
    np.testing.assert_allclose(np.r_[flat(u), gamma], expected, atol=1e-10)
    np.testing.assert_allclose(fitted, A @ expected, atol=1e-10)
