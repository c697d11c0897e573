"""The minimiser on functions whose minima are known."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.errors import Convergence
from ranef.numerics import minimize as module
from ranef.numerics.minimize import best_of, largest_element, lowest, minimize, rounding_of


def rosenbrock(x):
    value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    slope = -400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0])
    return value, np.array([slope, 200 * (x[1] - x[0] ** 2)])


def double_well(x):
    """Even in x: a saddle at zero, minima at -1 and 1, as a variance away from its boundary."""
    return float(np.sum((x**2 - 1) ** 2)), 4 * x * (x**2 - 1)


def even_bowl(x):
    """Even in x with its minimum at zero, as a variance on its boundary."""
    return float(np.sum(x**2 + x**4)), 2 * x + 4 * x**3


def test_rosenbrock_to_rounding_error():
    found = minimize(rosenbrock, np.array([-1.2, 1.0]))
    np.testing.assert_allclose(found.x, 1, atol=1e-12)
    assert found.convergence is Convergence.CONVERGED
    assert found.decrement < 1e-12


def test_a_vanishing_gradient_is_not_enough():
    found = minimize(double_well, np.zeros(2))
    np.testing.assert_allclose(np.abs(found.x), 1, atol=1e-10)


def test_a_minimum_at_zero_becomes_exactly_zero():
    found = minimize(
        even_bowl, np.array([1.0, 0.5]), simplify=lambda x: np.where(abs(x) < 0.1, 0, x)
    )
    np.testing.assert_array_equal(found.x, 0)


def test_a_simpler_point_is_not_taken_where_it_is_a_saddle():
    small = 0.05

    def shallow(x):
        value, gradient = double_well(x / small)
        return value * small**4, gradient * small**3

    found = minimize(shallow, np.array([0.2]), simplify=lambda x: np.where(abs(x) < 0.1, 0, x))
    assert abs(found.x[0]) == pytest.approx(small, rel=1e-6)


def near_a_boundary(curvature, seed):
    """Even in its second coordinate, and rounded as a deviance whose variance is nearly zero.

    The nearer that coordinate is to zero the less is known of the gradient, so that a curvature
    differenced from it can have any sign.
    """

    def rounded(x):
        a, t = x
        noise = np.random.default_rng([seed, *x.view(np.uint64).tolist()]).uniform(-1, 1, 3)
        noise *= [1e-13 * 900, 1e-11, 1e-13 / max(abs(t), 1e-6) if t else 1e-13]
        value = 900 + 150 * (a - 1) ** 2 + curvature * t**2 / 2 + t**4 / 4
        slope = np.array([300 * (a - 1), curvature * t + t**3])
        return value + noise[0], slope + noise[1:]

    return rounded


def simpler(x):
    return np.where(np.abs(x) < 0.03, 0.0, x)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("second", [0.0, 1e-6, 0.02, 0.7])
@pytest.mark.parametrize("curvature", [1e-3, 0.03, 1.0])
def test_rounding_at_a_boundary_does_not_decide_how_a_search_ends(curvature, second, seed):
    objective = near_a_boundary(curvature, seed)
    found = minimize(objective, np.array([2.0, second]), simplify=simpler)
    assert found.convergence is Convergence.CONVERGED
    assert found.x == pytest.approx([1, 0], abs=1e-9)
    assert found.x[1] == 0


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("second", [0.0, 1e-6, 0.02, 0.7])
def test_rounding_at_a_boundary_does_not_hide_a_saddle(second, seed):
    found = minimize(near_a_boundary(-1.0, seed), np.array([2.0, second]), simplify=simpler)
    assert found.convergence is Convergence.CONVERGED
    assert np.abs(found.x) == pytest.approx([1, 1], rel=1e-9)


def test_nothing_to_optimise():
    found = minimize(lambda x: (3.0, x), np.empty(0))
    assert found.value == 3.0
    assert found.convergence is Convergence.CONVERGED


def test_a_limit_of_iterations_is_reported(monkeypatch):
    monkeypatch.setattr(module, "MAX_NEWTON", 0)
    found = minimize(rosenbrock, np.array([-1.2, 1.0]), max_iterations=2)
    assert found.convergence is Convergence.MAX_ITERATIONS


def test_a_wrong_gradient_is_reported_as_stalled():
    found = minimize(lambda x: (float(x @ x), -2 * x + 1), np.array([3.0, 1.0]))
    assert found.convergence is Convergence.STALLED


def test_infinite_values_are_stepped_back_from():
    def walled(x):
        return (np.inf, np.zeros(1)) if x[0] <= 0 else (float(x[0] - np.log(x[0])), 1 - 1 / x)

    assert minimize(walled, np.array([5.0])).x[0] == pytest.approx(1)


def test_no_point_is_evaluated_twice():
    seen = []

    def recorded(x):
        seen.append(x.tobytes())
        return rosenbrock(x)

    found = minimize(recorded, np.array([-1.2, 1.0]))
    assert len(seen) == len(set(seen)) == found.evaluations


def test_the_trace_starts_at_the_start_and_ends_at_the_end():
    found = minimize(rosenbrock, np.array([-1.2, 1.0]))
    steps = found.trace
    np.testing.assert_array_equal(steps[0].x, [-1.2, 1.0])
    np.testing.assert_array_equal(steps[-1].x, found.x)
    assert [s.value for s in steps] == sorted((s.value for s in steps), reverse=True)


def test_the_best_of_several_starts_is_the_first_of_equals():
    def two_wells(x):
        return float((x[0] ** 2 - 1) ** 2 + 0.3 * x[0]), 4 * x * (x**2 - 1) + 0.3

    found = best_of(two_wells, [np.array([1.0]), np.array([-0.5]), np.array([-2.0])])
    assert found.x[0] == pytest.approx(-1.0356, abs=1e-4)
    assert found.trace[0].x == [-0.5]
    right = minimize(two_wells, np.array([1.0]))
    assert right.value > found.value
    assert lowest([right, found]) is found
    assert best_of(two_wells, [np.array([0.9])], simplify=np.round).x[0] != 1.0


def test_sizes_of_one_and_of_many():
    np.testing.assert_array_equal(rounding_of(np.array([0.5, -1e3, np.inf])), [1e-12, 1e-9, np.inf])
    assert rounding_of(-20.0) == pytest.approx(2e-11)
    np.testing.assert_array_equal(largest_element(np.array([[1.0, -2.0], [0.5, 0.0]])), [2.0, 0.5])
    assert largest_element(np.empty(0)) == 0


def test_a_search_in_standard_errors_does_not_hang_on_the_scales():
    units = np.array([[1e5, 2e4, 0], [0, 1.0, 0], [0, 0, 1e-4]])

    def scaled(x):
        z = np.linalg.solve(units, x)
        value, slope = rosenbrock(z[:2])
        return value + z[2] ** 2, np.linalg.solve(units.T, np.append(slope, 2 * z[2]))

    start = units @ np.array([-1.2, 1.0, 0.4])
    plain = minimize(rosenbrock, np.array([-1.2, 1.0]))
    found = minimize(scaled, start, units=units, simplify=lambda x: np.where(abs(x) < 1e-9, 0.0, x))
    assert found.convergence is Convergence.CONVERGED
    np.testing.assert_allclose(found.x[:2], units[:2, :2] @ plain.x, rtol=1e-8)
    assert found.x[2] == 0.0
    np.testing.assert_allclose(found.trace[0].x, start)
    np.testing.assert_allclose(found.trace[-1].x, found.x)
