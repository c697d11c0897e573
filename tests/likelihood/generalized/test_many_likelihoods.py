"""Laplace's approximation with its derivatives at many points against the one at a single point."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from component_cases import FAMILIES, joint_case, some_values

from ranef.likelihood.generalized.many_likelihoods import laplace
from ranef.likelihood.generalized.many_modes import modes_of
from ranef.likelihood.generalized.pieces import Points, pieces_of

RIGHT = (
    "x",
    "x + (1 | g)",
    "(x | g)",
    "x + (1 | s/g)",
    "x + (x | s/g)",
    "x + (1 | g) + (1 | h)",
    "(x || g) + (1 | h)",
    "(x | g) + (x | h)",
    "x + (x | row) + (1 | h) + (1 | s)",
)


def together(joint, values, y=None):
    """Return value, rows, slopes by the factors and by own parameters, summed over pieces."""
    model, count = joint.model, len(values)
    value, rows, psi = np.zeros(count), np.zeros((count, len(joint.X))), 0.0
    slopes = [np.zeros((count, c.k, c.k)) for c in model.covariances]

    for piece in pieces_of(model.problem, by_level=model.has_one_factor):

        def points_at(chosen, piece=piece):
            points = joint.points(values[chosen], piece.rows)
            own = None if y is None else y[chosen][:, piece.rows]
            return Points(points.known, points.Lambdas, points.psi, own)

        start = joint.modes_at_start(piece)
        for chosen, search, modes in modes_of(piece, points_at, count, start):
            found = laplace(search, modes)
            value[chosen] += found.value
            rows[chosen, piece.rows] = found.rows
            psi += found.psi
            for total, slope in zip(slopes, found.Lambdas, strict=True):
                total[chosen] += slope
    return value, rows, slopes, psi


def close(found, place, expected):
    value, rows, slopes, psi = found
    assert value[place] == pytest.approx(expected.value, rel=1e-12, abs=1e-9)
    np.testing.assert_allclose(rows[place], expected.rows, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(psi[place], expected.psi, rtol=1e-8, atol=1e-8)
    for slope, single in zip(slopes, expected.Lambdas, strict=True):
        np.testing.assert_allclose(slope[place], single, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("family", ["poisson", "binomial", "negative_binomial"])
@pytest.mark.parametrize("right", RIGHT)
def test_many_points_are_as_one(right, family):
    _, joint, _ = joint_case(right, family)
    values = some_values(joint, 3)
    found = together(joint, values)
    for place, point in enumerate(values):
        close(found, place, joint.evaluate(joint.setting(point)))


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family):
    _, joint, _ = joint_case("x + (x | g) + (1 | h)", family)
    values = some_values(joint, 2)
    found = together(joint, values)
    for place, point in enumerate(values):
        close(found, place, joint.evaluate(joint.setting(point)))


@pytest.mark.parametrize("right", ["x + (x | g)", "x + (1 | g) + (1 | h)"])
def test_every_point_may_have_a_response_of_its_own(right):
    design, joint, _ = joint_case(right, "poisson")
    values, rng = some_values(joint, 3), np.random.default_rng(4)
    y = rng.permuted(np.tile(design.rows.y, (3, 1)), axis=1)
    found = together(joint, values, y)
    for place, point in enumerate(values):
        setting = joint.setting(point)
        own = replace(setting, problem=replace(setting.problem, y=y[place]))
        close(found, place, joint.evaluate(own))


def test_where_there_are_no_modes_there_is_no_likelihood():
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson")
    values = some_values(joint, 3)
    values[1, 0] += 1e4  # a mean that overflows
    with np.errstate(all="ignore"):
        value = together(joint, values)[0]
    assert value[1] == -np.inf
    assert np.isfinite(value[[0, 2]]).all()
