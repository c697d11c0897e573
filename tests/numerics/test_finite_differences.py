"""Hessians by differences against those of a function that is known."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.numerics.finite_differences import (
    central_hessian,
    forward_hessian,
    forward_hessians,
    standardised_hessian,
)

X = np.array([0.3, -0.7])


def rosenbrock(x):
    value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    first = -400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0])
    return float(value), np.array([first, 200 * (x[1] - x[0] ** 2)])


def curvature(x):
    return [[1200 * x[0] ** 2 - 400 * x[1] + 2, -400 * x[0]], [-400 * x[0], 200]]


@pytest.mark.parametrize(("hessian", "rtol"), [(forward_hessian, 1e-4), (central_hessian, 1e-7)])
def test_hessians(hessian, rtol):
    np.testing.assert_allclose(hessian(rosenbrock, X), curvature(X), rtol=rtol)
    assert hessian(lambda x: (0.0, x), np.empty(0)).size == 0


def test_many_data_sets_have_the_hessians_of_each():
    points, scale = np.array([X, [1.0, 2.0], [-4.0, 0.0]]), np.array([1.0, 2.0, 5.0, 7.0])

    def objective(x, who):
        each = [rosenbrock(one) for one in x]
        values, gradients = (np.array(part) for part in zip(*each, strict=True))
        return scale[who] * values, scale[who, None] * gradients

    who = np.array([3, 0, 2])
    found = forward_hessians(objective, points, objective(points, who)[1], who)
    for one, at, size in zip(found, points, scale[who], strict=True):
        expected = size * forward_hessian(rosenbrock, at)
        np.testing.assert_allclose(one, expected, rtol=1e-6, atol=1e-4)


def test_central_differences_are_one_sided_at_an_edge():
    def edged(x):
        return (np.inf, np.zeros(2)) if x[0] > X[0] else rosenbrock(x)

    np.testing.assert_allclose(central_hessian(edged, X), curvature(X), rtol=1e-3)

    def nowhere(x):
        return (0.0, x) if x[0] == X[0] else (np.inf, np.zeros(2))

    found = central_hessian(nowhere, X)
    assert np.isnan(found[0]).all()
    assert found[1, 1] == pytest.approx(1)


def test_steps_in_standard_errors_are_above_rounding():
    """Two coordinates with standard errors of 1e4 and 1e-3; the gradient has noise."""
    units, rng = np.diag([1e4, 1e-3]), np.random.default_rng(1)

    def noisy(x):
        z = x / np.diag(units)
        slope = np.array([z[0] + 0.3 * z[1], 0.3 * z[0] + z[1]]) + 1e-8 * rng.normal(size=2)
        return 0.0, slope / np.diag(units)

    found = standardised_hessian(noisy, np.array([5e6, 0.02]), units)
    np.testing.assert_allclose(found, [[1, 0.3], [0.3, 1]], rtol=1e-4)
