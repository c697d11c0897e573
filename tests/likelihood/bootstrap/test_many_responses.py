"""The criterion of many responses at once against the engine for one."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES, random_design

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.likelihood.bootstrap import many_responses
from ranef.likelihood.bootstrap.many_responses import (
    profiles,
    response_columns,
    shared_by,
)
from ranef.likelihood.bootstrap.simulated_responses import responses, span, sums_of, with_response
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products


def several(design, seed, B=3):
    """Return cross-products of a design, and arbitrary responses to it."""
    y = np.random.default_rng(seed).normal(size=(B, design.n_obs))
    columns, cross = span(design), cross_products(design)
    return cross, responses(columns, sums_of(columns, y), cross)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("restricted", [True, False])
def test_value_and_gradient_are_those_of_one_response(name, restricted):
    design = random_design(STRUCTURES[name], 3)
    cross, drawn = several(design, 1)
    shared = shared_by(design, cross)
    size = sum(shape.n_theta for shape in cross.covariances)
    x = np.random.default_rng(2).normal(size=(len(drawn), size))
    if size:
        x[1, 0] = 0.0  # a boundary
        x[2] = 0.0
    found = profiles(shared, response_columns(shared, drawn), x, reml=restricted)
    for i in range(len(drawn)):
        own = with_response(cross, drawn, i)
        value, gradient = reml.criterion(own, x[i], reml=restricted)
        assert found.value[i] == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(found.gradient[i], gradient, rtol=1e-9, atol=1e-9)
        one = reml.blocked_cholesky.factorize(own, factors(x[i], cross.covariances))
        profile = reml.profiled(one, reml=restricted)
        np.testing.assert_allclose(found.gamma[i], profile.gamma, rtol=1e-9, atol=1e-10)
        assert found.r2[i] == pytest.approx(profile.r2, rel=1e-10)


@pytest.mark.parametrize(
    ("data", "formula", "levels"),
    [  # the mean, and one level for each coefficient of y
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)", 3),
        ("sleepstudy", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", 3),
        ("Pastes", "strength ~ 1 + (1 | batch/cask)", 20),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", 2),
    ],
)
def test_equal_levels_are_eliminated_once(data, formula, levels):
    design = rf.Model(formula, rf.load_dataset(data)).design
    cross, drawn = several(design, 4)
    shared = shared_by(design, cross)
    assert shared.C.shape[1] == levels
    size = sum(shape.n_theta for shape in cross.covariances)
    x = np.random.default_rng(5).normal(size=(len(drawn), size))
    found = profiles(shared, response_columns(shared, drawn), x, reml=True)
    for i in range(len(drawn)):
        own = with_response(cross, drawn, i)
        value, gradient = reml.criterion(own, x[i], reml=True)
        assert found.value[i] == pytest.approx(value, rel=1e-12)
        np.testing.assert_allclose(found.gradient[i], gradient, rtol=1e-9, atol=1e-9)


def test_one_point_that_overflows_spoils_no_other():
    design = random_design(STRUCTURES["crossed slopes"], 3)
    cross, drawn = several(design, 1)
    shared = shared_by(design, cross)
    x = np.ones((3, sum(shape.n_theta for shape in cross.covariances)))
    expected = profiles(shared, response_columns(shared, drawn), x, reml=True)
    for place, bad in ((0, 1e200), (-1, 1e200), (0, np.nan), (-1, 1e9)):
        moved = x.copy()
        moved[1, place] = bad
        found = profiles(shared, response_columns(shared, drawn), moved, reml=True)
        assert np.isfinite(found.gradient).all()
        assert found.value[1] > expected.value[1]
        np.testing.assert_allclose(found.value[[0, 2]], expected.value[[0, 2]], rtol=1e-13)
        np.testing.assert_allclose(found.gradient[[0, 2]], expected.gradient[[0, 2]], rtol=1e-8)


def test_wide_structures_are_not_stacked(monkeypatch):
    design = random_design(STRUCTURES["crossed"], 3)
    cross = cross_products(design)
    width = len(shared_by(design, cross).S)
    monkeypatch.setattr(many_responses, "MAX_DENSE", width - 1)
    assert shared_by(design, cross) is None
    monkeypatch.setattr(many_responses, "MAX_DENSE", width)
    assert shared_by(design, cross) is not None
    monkeypatch.setattr(many_responses, "MAX_ELEMENTS", 10)
    assert shared_by(design, cross) is None


def test_terms_without_a_common_order_of_levels():
    """Two factors that group the rows alike under other labels are still both right."""
    data = rf.load_dataset("sleepstudy")
    data["turned"] = data["Subject"].map({s: -i for i, s in enumerate(data["Subject"].unique())})
    design = rf.Model("Reaction ~ Days + (1 | Subject) + (0 + Days | turned)", data).design
    cross, drawn = several(design, 4)
    shared = shared_by(design, cross)
    x = np.array([[1.0, 0.3]] * 3)
    found = profiles(shared, response_columns(shared, drawn), x, reml=True)
    same = rf.Model("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data).design
    other = cross_products(same.with_rows(y=design.rows.y))
    _, again = several(same, 4)
    expected = profiles(
        shared_by(same, other), response_columns(shared_by(same, other), again), x, reml=True
    )
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-12)
