"""A generalised model in its basis, and its likelihood at the parameters of the user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES
from nonlinear import ALL, KNOWN, OWN, central, direction, made, packed, random_model, random_point

import ranef as rf
from ranef.covariances.covariance import Unstructured, factors
from ranef.errors import DataError, FitError
from ranef.likelihood.generalized.glmm import check_n_agq, diagonal_parts, prepare, users_likelihood


@pytest.fixture(params=STRUCTURES.values(), ids=STRUCTURES.keys())
def formula(request):
    return request.param


def users_point(model, seed):
    """Return theta, beta and own parameters as the user has them."""
    point = random_point(model, seed)
    psi = model.family.unlinked(point.linked)
    own = dict(zip(model.family.parameters, psi, strict=True))
    Lambdas = factors(point.theta, model.covariances)
    roots = [np.linalg.solve(T, f) for T, f in zip(model.bases, Lambdas, strict=True)]
    theta = packed(model, roots) / own.get("sigma", 1.0)
    return theta, model.to_users @ point.gamma, psi


def test_the_basis_is_orthonormal_where_the_search_starts(formula):
    design, model = random_model(formula, KNOWN["poisson"], 1)
    eta = design.rows.offset + model.X @ model.gamma
    W = model.family.information(eta, design.rows.weights, model.psi)
    np.testing.assert_allclose((model.X.T * W) @ model.X, np.eye(len(model.gamma)), atol=1e-9)
    np.testing.assert_allclose(model.X, design.rows.X @ model.to_users, atol=1e-12)
    for block, term, T in zip(model.problem.Z.blocks, design.terms, model.bases, strict=True):
        np.testing.assert_allclose(
            block.columns @ T, design.rows.term(term.label).columns, atol=1e-10
        )
        squares = (block.columns.T * W) @ block.columns / len(W)
        np.testing.assert_allclose(np.diag(squares), 1, atol=1e-9)
        if term.covariance.has_correlations:
            np.testing.assert_allclose(squares, np.eye(block.k), atol=1e-9)


@pytest.mark.parametrize("name", ["binomial", "poisson"])
def test_it_starts_at_the_model_without_random_effects(name):
    design, model = random_model("y ~ x + f + (1 | c)", KNOWN[name], 2)
    eta = design.rows.offset + design.rows.X @ (model.to_users @ model.gamma)
    score = model.problem.expansion(eta, np.empty(0)).score
    np.testing.assert_allclose(design.rows.X.T @ score, 0, atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_it_starts_near_the_best_own_parameters(name):
    design, model = random_model("y ~ x + (1 | c)", OWN[name], 3, n=400)
    eta = design.rows.offset + model.X @ model.gamma
    further = model.family.further_expansion(design.rows.y, eta, design.rows.weights, model.psi)
    assert np.abs(further.value.sum(-1)).max() < 0.1 * np.sqrt(400)


@pytest.mark.parametrize("name", ALL)
def test_the_users_gradient_equals_differences(name):
    _, model = random_model("y ~ x + (x | s/c) + (0 + z || i)", ALL[name], 4)
    theta, beta, psi = users_point(model, 5)
    found = users_likelihood(model, theta, beta, psi, 1)

    def value(theta=theta, beta=beta, psi=psi):
        return users_likelihood(model, theta, beta, psi, 1).value

    unit = np.abs(theta).max()
    slope = central(lambda x: value(theta=unit * x), theta / unit)
    assert unit * found.theta @ direction(theta) == pytest.approx(slope, rel=1e-6, abs=1e-5)
    slope = central(lambda x: value(beta=model.to_users @ x), np.linalg.solve(model.to_users, beta))
    by_gamma = model.to_users.T @ found.beta
    assert by_gamma @ direction(beta) == pytest.approx(slope, rel=1e-6, abs=1e-5)
    slope = central(lambda x: value(psi=np.exp(x)), np.log(psi)) if len(psi) else 0.0
    by_log = np.array([found.parameters[one] for one in model.family.parameters]) * psi
    assert by_log @ direction(psi) == pytest.approx(slope, rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("n_agq", [1, 5])
def test_the_likelihood_does_not_depend_on_the_basis(n_agq):
    design, model = random_model("y ~ x + (x | c)", KNOWN["poisson"], 6)
    theta, beta, psi = users_point(model, 7)
    other = prepare(
        design.with_rows(weights=design.rows.weights * 1.0, X=design.rows.X), model.family
    )
    moved = replace(other, gamma=other.gamma + 1, Lambdas=tuple(9 * f for f in other.Lambdas))
    first, second = (users_likelihood(one, theta, beta, psi, n_agq) for one in (model, moved))
    assert first.value == pytest.approx(second.value, rel=1e-13)


def test_where_there_is_no_likelihood_it_is_minus_infinity():
    _, model = random_model("y ~ x + (1 | c)", OWN["a count"], 6)
    theta, beta, psi = users_point(model, 7)
    found = users_likelihood(model, theta, beta * np.nan, psi, 1)
    assert found.value == -np.inf
    assert np.isnan(found.theta).all()
    assert np.isnan(found.beta).all()
    assert np.isnan(found.parameters["shape"])


@pytest.mark.parametrize("n_agq", [-1, 1.5, True, "3", None])
def test_a_number_of_points_that_is_none_is_refused(n_agq):
    design, _ = random_model("y ~ x + (1 | c)", KNOWN["poisson"], 1)
    with pytest.raises(FitError) as caught:
        check_n_agq(design, n_agq)
    assert str(caught.value) == f"`n_agq` must be a whole number from 0 on, got {n_agq!r}."


def test_several_factors_have_no_quadrature():
    design, _ = random_model("y ~ x + (1 | c) + (1 | i)", KNOWN["poisson"], 1)
    with pytest.raises(FitError) as caught:
        check_n_agq(design, 5)
    assert str(caught.value) == (
        "n_agq=5 needs one grouping factor; this model has `c` and `i`. Use n_agq=1, the Laplace "
        'approximation, or fit("mcmc").'
    )
    assert [check_n_agq(design, n) for n in (0, 1)] == [0, 1]


def test_too_many_nodes_are_refused():
    design, _ = random_model("y ~ x + (1 + x + z | c)", KNOWN["poisson"], 1)
    with pytest.raises(FitError) as caught:
        check_n_agq(design, 100)
    assert str(caught.value) == (
        "n_agq=100 in 3 dimensions are 1000000 nodes for each of 90 rows: use n_agq=60 or less."
    )
    assert check_n_agq(design, np.int64(60)) == 60


def test_any_number_of_points_goes_without_random_effects():
    design, _ = random_model("y ~ x", KNOWN["poisson"], 1)
    assert check_n_agq(design, 10**9) == 10**9


def test_a_mean_without_a_linear_predictor_is_refused():
    design, _ = random_model("y ~ x + (1 | c)", KNOWN["poisson"], 1)
    family = made("odd", "poisson", log_density=lambda y, mu, w: -w * (y - mu) ** 2)
    with pytest.raises(DataError) as caught:
        prepare(design.with_rows(y=-design.rows.y - 1.0, weights=np.ones(90)), family)
    mean = f"{-design.rows.y.mean() - 1:g}"
    assert str(caught.value) == (
        f"the mean of the response `y`, {mean}, has no log: choose another link."
    )


def test_perfect_separation_leaves_a_start_that_is_finite():
    design, _ = random_model("y ~ x + (1 | c)", KNOWN["binomial"], 1)
    separated = design.with_rows(y=(design.rows.X[:, 1] > 7).astype(float), weights=np.ones(90))
    model = prepare(separated, KNOWN["binomial"])
    for part in (model.X, model.gamma, model.to_users, *model.Lambdas):
        assert np.isfinite(part).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", ["binomial", "poisson"])
def test_a_constant_response_at_the_edge_has_a_start(name, value):
    design, _ = random_model("y ~ x + (1 | c)", KNOWN[name], 1)
    model = prepare(design.with_rows(y=np.full(90, value), weights=np.ones(90)), KNOWN[name])
    assert np.isfinite(model.gamma).all()


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_a_predictor_does_not_matter_to_the_basis(scale):
    design, model = random_model("y ~ x + (x | c)", KNOWN["poisson"], 8)
    (term,) = design.rows.terms
    wider = replace(term, columns=term.columns * [1, scale])
    larger = design.with_rows(X=design.rows.X * [1, scale], terms=(wider,))
    other = prepare(larger, KNOWN["poisson"])
    np.testing.assert_allclose(np.abs(other.X), np.abs(model.X), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.gamma, model.gamma, rtol=1e-6, atol=1e-8)
    for one, two in zip(other.problem.Z.blocks, model.problem.Z.blocks, strict=True):
        np.testing.assert_allclose(one.columns, two.columns, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other.Lambdas[0], model.Lambdas[0], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e12])
def test_the_scale_of_a_response_does_not_matter_to_the_t_distribution(scale):
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"x": rng.normal(size=60), "g": np.arange(60) % 6})
    data["y"] = 3 * data["x"] + rng.standard_t(4, size=60) + data["g"] / 2
    small = rf.fit("y ~ x + (1 | g)", data, family="t")
    large = rf.fit("y ~ x + (1 | g)", data.assign(y=scale * data["y"]), family="t")
    assert large.loglik == pytest.approx(small.loglik - 60 * np.log(scale), abs=1e-6)
    np.testing.assert_allclose(large.fixef() / scale, small.fixef(), rtol=1e-5)
    assert large.sigma / scale == pytest.approx(small.sigma, rel=1e-4)


def test_parts_of_a_matrix_of_all_terms():
    matrix = np.arange(9.0).reshape(3, 3)
    one, two = diagonal_parts(matrix, [Unstructured(1), Unstructured(2)])
    np.testing.assert_array_equal(one, [[0.0]])
    np.testing.assert_array_equal(two, [[4.0, 5.0], [7.0, 8.0]])
