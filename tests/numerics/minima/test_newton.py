"""The minimiser with a given curvature, on functions whose minima are known."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.errors import Convergence
from ranef.numerics.minima import newton as module
from ranef.numerics.minima.newton import newton
from ranef.numerics.minimize import minimize


def rosenbrock(x):
    value = 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2
    slope = -400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0])
    bend = 1200 * x[0] ** 2 - 400 * x[1] + 2
    hessian = np.array([[bend, -400 * x[0]], [-400 * x[0], 200.0]])
    return value, np.array([slope, 200 * (x[1] - x[0] ** 2)]), hessian


def double_well(x):
    """Even in x: a saddle at zero, minima at -1 and 1, as a variance away from its boundary."""
    return float(np.sum((x**2 - 1) ** 2)), 4 * x * (x**2 - 1), np.diag(12 * x**2 - 4)


def even_bowl(x):
    """Even in x with its minimum at zero, as a variance on its boundary."""
    return float(np.sum(x**2 + x**4)), 2 * x + 4 * x**3, np.diag(2 + 12 * x**2)


def with_error(objective, size, seed=0):
    """Return an objective whose curvature is wrong by a symmetric matrix of some size."""

    def wrong(x):
        value, gradient, curvature = objective(x)
        error = np.random.default_rng(seed).uniform(-1, 1, curvature.shape)
        return value, gradient, curvature + size * (error + error.T)

    return wrong


def test_rosenbrock_to_rounding_error():
    found = newton(rosenbrock, [np.array([-1.2, 1.0])])
    np.testing.assert_allclose(found.x, 1, atol=1e-12)
    assert found.convergence is Convergence.CONVERGED
    assert found.decrement < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_what_the_curvature_lacks_is_learnt(seed, monkeypatch):
    """Twenty per cent wrong: the error would shrink by a fifth a step; it shrinks ever faster."""
    scales = np.array([1.0, 3.0, 10.0])

    def bowl(x):
        z = scales * (x - 1)
        return float(np.cosh(z).sum()), scales * np.sinh(z), np.diag(scales**2 * np.cosh(z))

    wrong = with_error(bowl, 0.2, seed)
    found = newton(wrong, [np.full(3, 0.9)])
    np.testing.assert_allclose(found.x, 1, rtol=1e-9)
    assert found.convergence is Convergence.CONVERGED
    monkeypatch.setattr(module, "_updates", lambda *_: iter(()))
    assert newton(wrong, [np.full(3, 0.9)]).evaluations > found.evaluations


def test_a_saddle_is_left():
    found = newton(double_well, [np.zeros(2)])
    np.testing.assert_allclose(np.abs(found.x), 1, atol=1e-10)
    assert found.convergence is Convergence.CONVERGED


def zeros_below(limit):
    return lambda x: np.where(np.abs(x) < limit, 0.0, x)


def test_a_minimum_at_zero_becomes_exactly_zero():
    found = newton(even_bowl, [np.array([1.0, 0.5])], simplify=zeros_below(0.1))
    np.testing.assert_array_equal(found.x, 0)
    assert found.decrement == 0


def test_a_simpler_point_is_taken_as_soon_as_it_is_lower():
    """With a fourth power above a faint square, steps alone would take two thirds each time."""

    def faint(x):
        value = float(np.sum(1e-4 * x**2 + x**4))
        return value, 2e-4 * x + 4 * x**3, np.diag(2e-4 + 12 * x**2)

    found = newton(faint, [np.array([0.5])], simplify=zeros_below(0.3))
    assert found.x == 0
    assert found.evaluations <= 6


def test_a_simpler_point_is_not_taken_where_it_is_a_saddle():
    small = 0.05

    def shallow(x):
        value, gradient, hessian = double_well(x / small)
        return value * small**4, gradient * small**3, hessian * small**2

    found = newton(shallow, [np.array([0.2])], simplify=zeros_below(0.1))
    assert abs(found.x[0]) == pytest.approx(small, rel=1e-6)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("second", [0.0, 1e-6, 0.02, 0.7])
@pytest.mark.parametrize("curvature", [-1.0, 1e-3, 0.03, 1.0])
def test_rounding_at_a_boundary_does_not_decide_how_a_search_ends(curvature, second, seed):
    """Values and gradients are rounded as those of a deviance whose variance is nearly zero."""

    def rounded(x):
        a, t = x
        noise = np.random.default_rng([seed, *x.view(np.uint64).tolist()]).uniform(-1, 1, 3)
        noise *= [1e-13 * 900, 1e-11, 1e-13]
        value = 900 + 150 * (a - 1) ** 2 + curvature * t**2 / 2 + t**4 / 4
        slope = np.array([300 * (a - 1), curvature * t + t**3])
        return value + noise[0], slope + noise[1:], np.diag([300, curvature + 3 * t**2])

    found = newton(rounded, [np.array([2.0, second])], simplify=zeros_below(0.03))
    assert found.convergence is Convergence.CONVERGED
    assert np.abs(found.x) == pytest.approx([1, float(curvature < 0)], abs=1e-9)


def test_nothing_to_optimise():
    found = newton(lambda x: (3.0, x, np.zeros((0, 0))), [np.empty(0)])
    assert found.value == 3.0
    assert found.convergence is Convergence.CONVERGED
    assert len(found.trace) == found.evaluations == 1


def test_where_steps_do_not_end_a_search_without_the_curvature_goes_on(monkeypatch):
    monkeypatch.setattr(module, "MAX_STEPS", 2)
    found = newton(rosenbrock, [np.array([-1.2, 1.0])])
    np.testing.assert_allclose(found.x, 1, atol=1e-9)
    assert found.convergence is Convergence.CONVERGED
    assert np.isfinite([step.decrease for step in found.trace]).sum() == 3
    monkeypatch.setattr(module, "minimize", lambda f, x, **_: minimize(f, x, max_iterations=1))
    monkeypatch.setattr("ranef.numerics.minimize.MAX_NEWTON", 0)
    found = newton(rosenbrock, [np.array([-1.2, 1.0])])
    assert found.convergence is Convergence.MAX_ITERATIONS


def test_a_wrong_gradient_is_reported_as_stalled():
    wrong = lambda x: (float(x @ x), -2 * x + 1, 2 * np.eye(2))  # noqa: E731
    assert newton(wrong, [np.array([3.0, 1.0])]).convergence is Convergence.STALLED


def test_infinite_values_are_stepped_back_from():
    def walled(x):
        if x[0] <= 0:
            return np.inf, np.zeros(1), np.zeros((1, 1))
        return float(x[0] - np.log(x[0])), 1 - 1 / x, np.diag(1 / x**2)

    assert newton(walled, [np.array([5.0])]).x[0] == pytest.approx(1)


def test_no_point_is_evaluated_twice_and_steps_are_told_as_they_are_taken():
    seen, told = [], []

    def recorded(x):
        seen.append(x.tobytes())
        return rosenbrock(x)

    found = newton(
        recorded, [np.array([-1.2, 1.0])], report=lambda step: told.append((step, len(seen)))
    )
    assert len(seen) == len(set(seen)) == found.evaluations
    assert [step for step, _ in told] == list(found.trace)
    *counts, last = [count for _, count in told]  # the end of the last step is not evaluated
    assert counts == sorted(set(counts))
    assert last == counts[-1] == len(seen)
    np.testing.assert_array_equal(found.trace[0].x, [-1.2, 1.0])
    np.testing.assert_array_equal(found.trace[-1].x, found.x)
    values = [step.value for step in found.trace]
    assert values == sorted(values, reverse=True)


def test_the_predicted_decrease_is_that_of_a_parabola():
    def bowl(x):
        return float(x @ x), 2 * x, 2 * np.eye(2)

    first, last = newton(bowl, [np.array([0.3, -0.4])]).trace
    assert first.decrease == pytest.approx(first.value - last.value)
    assert last.decrease == pytest.approx(0.0, abs=1e-20)


def two_wells(x):
    """Minima near -1.04 and 0.96, the first the lower."""
    value = float((x[0] ** 2 - 1) ** 2 + 0.3 * x[0])
    return value, 4 * x * (x**2 - 1) + 0.3, np.diag(12 * x**2 - 4)


def test_of_several_starts_the_lowest_optimum_is_kept():
    starts = [np.array([x]) for x in (1.1, -0.5, -2.0)]
    found = newton(two_wells, starts)
    assert found.x[0] == pytest.approx(-1.0356, abs=1e-4)
    assert found.trace[0].x == [-0.5]
    assert newton(two_wells, starts[:1]).value > found.value


def test_a_search_ends_where_an_earlier_one_ended():
    seen = []

    def counted(x):
        seen.append(float(x[0]))
        return two_wells(x)

    newton(counted, [np.array([-2.0])])
    alone, seen[:] = len(seen), []
    found = newton(counted, [np.array([-1.1]), np.array([-2.0])])
    first = newton(two_wells, [np.array([-1.1])])
    assert len(seen) - first.evaluations < alone
    assert found.value == first.value
    assert found.evaluations == first.evaluations


def test_a_costly_search_ends_where_it_has_been():
    evaluated = []

    def counted(x):
        evaluated.append(x)
        return rosenbrock(x)

    found = newton(counted, [np.array([-1.2, 1.0])], propose=lambda x: x)
    np.testing.assert_array_equal(found.x, evaluated[-1])
    assert found.value == rosenbrock(found.x)[0] < 1e-6
    assert 1e-14 < found.decrement < 1e-6
    assert found.convergence is Convergence.CONVERGED
    assert len(evaluated) < newton(rosenbrock, [np.array([-1.2, 1.0])]).evaluations


def test_a_costly_search_leaves_a_saddle():
    assert abs(newton(double_well, [np.zeros(1)], propose=lambda x: x).x[0]) == pytest.approx(
        1, abs=1e-3
    )


def test_a_far_step_that_ends_well_teaches_nothing():
    """Of cosh the curvature at the end of a Newton step is not the change of the slope."""

    def at(x, decrement_left):
        value, slope, bend = float(np.cosh(x).sum()), np.sinh(x), np.diag(np.cosh(x))
        return module._Point(x, value, slope * decrement_left, bend, np.zeros((1, 1)))

    far = at(np.array([3.0]), 1.0)
    assert far.decrement > module.INFORMATIVE
    assert not module._taught(far, at(np.array([2.0]), 0.01)).learnt.any()
    assert module._taught(far, at(np.array([2.0]), 1.0)).learnt.any()


@pytest.mark.parametrize(("proposed", "few"), [(1.0, True), (-40.0, False)])
def test_a_proposal_is_taken_where_it_is_better(proposed, few):
    """On x^4 a Newton step takes a third of the way."""

    def quartic(x):
        z = x - 1
        return float((z**4).sum()), 4 * z**3, np.diag(12 * z**2)

    found = newton(quartic, [np.array([9.0])], propose=lambda _: np.array([proposed]))
    assert found.x[0] == pytest.approx(1, abs=0.05)
    assert (found.evaluations <= 3) == few


def tilted_wells(x):
    """Minima near -1 and 1, the first of which is the lower."""
    value, gradient, hessian = double_well(x)
    return value + 0.1 * float(x.sum()), gradient + 0.1, hessian


def test_a_lower_minimum_beside_the_one_found():
    asked = []

    def beside(best):
        asked.append(best.x)
        return [-best.x]

    right = newton(tilted_wells, [np.array([1.5])])
    left = newton(tilted_wells, [np.array([1.5])], beside=beside)
    np.testing.assert_array_equal(asked, [right.x])
    assert left.x == pytest.approx([-1.0123], abs=1e-4)
    assert left.value < right.value - 0.19
    assert newton(tilted_wells, [-right.x], beside=beside).x == pytest.approx(left.x)


def test_what_rests_at_zero_stays_there_however_rounding_tilts_the_gradient():
    def tilted(x):
        value, gradient, hessian = even_bowl(x - np.array([0.0, 1.0]))
        return value, gradient + np.array([1e-17, 0.0]), hessian

    assert newton(tilted, [np.array([0.0, 3.0])]).x[0] == 0
