"""Many minimisations at once, on functions whose minima are known."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.numerics.minimize_many import Minima, _updated, minimized

RNG = np.random.default_rng(5)


def bowls(B, d):
    """Return quadratic functions, a different one for each replicate, and their minima."""
    roots, at = RNG.normal(size=(B, d, d)), RNG.normal(size=(B, d))
    H = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(d)

    def objective(x, who):
        slope = np.einsum("bij,bj->bi", H[who], x - at[who])
        return np.einsum("bi,bi->b", x - at[who], slope) / 2, slope

    return objective, at


def test_every_replicate_has_its_own_function():
    objective, at = bowls(50, 3)
    found = minimized(objective, np.zeros((50, 3)))
    assert found.settled.all()
    np.testing.assert_allclose(found.x, at, atol=1e-7)
    np.testing.assert_allclose(found.value, 0, atol=1e-12)


def test_a_curvature_nearby_takes_no_differences():
    """Of functions that are not quadratic: each is evaluated a few times, never at differences."""
    objective, at = bowls(30, 3)
    calls = []

    def bent(x, who):
        calls.append(len(x))
        value, slope = objective(x, who)
        left = x - at[who]
        return value + 0.05 * (left**4).sum(1), slope + 0.2 * left**3

    curvature = 3.0 * np.eye(3)
    start = at + 0.5 * RNG.normal(size=at.shape)
    found = minimized(bent, start, curvature)
    assert found.settled.all()
    np.testing.assert_allclose(found.x, at, atol=1e-5)
    assert sum(calls) < 30 * 30
    calls.clear()
    minimized(bent, start)
    assert calls[1] == calls[2] == calls[3] == 30  # the differences of three coordinates


def test_a_curvature_follows_gradients_and_stays_positive():
    H, step = np.array([np.diag([1.0, 4.0])] * 3), np.array([[1.0, 2.0]] * 3)
    seen = np.array([[3.0, 5.0], [-1.0, -1.0], [np.nan, 1.0]])
    found = _updated(H, step, seen)
    np.testing.assert_allclose(found[0] @ step[0], seen[0])  # the secant equation
    pull = H[1] @ step[1]  # Powell's damping: a fifth of the expected curvature is left
    assert step[1] @ found[1] @ step[1] == pytest.approx(0.2 * step[1] @ pull)
    assert np.linalg.eigvalsh(found[:2]).min() > 0
    np.testing.assert_array_equal(found[2], H[2])


def test_a_curvature_that_is_wrong_is_differenced_anew():
    found = minimized(double_well, np.array([[0.4, -0.3]]), 1e-7 * np.eye(2))
    assert found.settled.all()
    np.testing.assert_allclose(found.x, [[1.0, -1.0]], atol=1e-6)


def test_a_curved_valley():
    a = RNG.uniform(0.5, 1.5, 20)

    def rosenbrock(x, who):
        left = x[:, 1] - x[:, 0] ** 2
        value = (a[who] - x[:, 0]) ** 2 + 20 * left**2
        first = -2 * (a[who] - x[:, 0]) - 80 * x[:, 0] * left
        return value, np.column_stack([first, 40 * left])

    found = minimized(rosenbrock, np.tile([-1.2, 1.0], (20, 1)))
    assert found.settled.all()
    np.testing.assert_allclose(found.x, np.column_stack([a, a**2]), atol=1e-6)


def double_well(x, who):
    """Even in each of two coordinates: at zero the gradient vanishes, and it is a maximum."""
    del who
    return ((x**2 - 1) ** 2).sum(axis=1), 4 * x * (x**2 - 1)


@pytest.mark.parametrize("start", [(0.0, 0.0), (0.0, 1.0), (0.0, 0.7), (1.0, -1.0)])
def test_a_saddle_is_left(start):
    found = minimized(double_well, np.array([start]))
    assert found.settled.all()
    np.testing.assert_allclose(np.abs(found.x), 1, atol=1e-6)


def test_a_minimum_at_exactly_zero_is_kept():
    def objective(x, who):
        del who
        return (x[:, 0] - 2) ** 2 + x[:, 1] ** 2 * (1 + x[:, 0] ** 2), np.column_stack(
            [2 * (x[:, 0] - 2) + 2 * x[:, 0] * x[:, 1] ** 2, 2 * x[:, 1] * (1 + x[:, 0] ** 2)]
        )

    found = minimized(objective, np.array([[1.0, 0.0]]))
    assert found.x[0, 1] == 0.0
    assert found.x[0, 0] == pytest.approx(2)
    assert found.settled.all()


def test_a_flat_direction_is_no_obstacle():
    def ring(x, who):
        """Depend on the length alone."""
        del who
        square = (x**2).sum(axis=1)
        return (square - 4) ** 2, 4 * x * (square - 4)[:, None]

    found = minimized(ring, np.array([[1.0, 0.5], [3.0, -1.0]]))
    assert found.settled.all()
    np.testing.assert_allclose((found.x**2).sum(axis=1), 4, atol=1e-6)


def test_nothing_computable_and_nothing_below_are_not_settled():
    def objective(x, who):
        value = np.where(who == 0, np.inf, np.where(who == 1, x[:, 0], x[:, 0] ** 2))
        slope = np.where(who == 0, 0.0, np.where(who == 1, 1.0, 2 * x[:, 0]))
        return value, slope[:, None]

    found = minimized(objective, np.ones((3, 1)))
    assert found.settled.tolist() == [False, False, True]
    assert found.x[2, 0] == pytest.approx(0, abs=1e-8)


def test_no_replicates_and_no_coordinates():
    assert len(minimized(double_well, np.empty((0, 2))).x) == 0
    constant = minimized(lambda x, who: (who.astype(float), x), np.empty((3, 0)))
    assert constant.settled.all()
    assert constant.value.tolist() == [0.0, 1.0, 2.0]


def test_the_lower_of_two_minima_is_taken():
    first = Minima(np.zeros((4, 1)), np.array([1.0, 1.0, 1.0, 1.0]), np.array([True] * 3 + [False]))
    which = np.array([0, 1, 2, 3])
    other = Minima(
        np.ones((4, 1)), np.array([0.5, 1.5, 0.5, 1.5]), np.array([True, True, False, True])
    )
    found = first.improved(other, which, -1e-10)
    assert found.x[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    assert found.value.tolist() == [0.5, 1.0, 1.0, 1.5]
    assert found.settled.all()
    some = first.improved(
        Minima(np.ones((1, 1)), np.array([1.0]), np.array([True])), which[2:3], 0.0
    )
    assert some.x[:, 0].tolist() == [0.0, 0.0, 1.0, 0.0]
