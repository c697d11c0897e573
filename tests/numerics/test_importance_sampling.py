"""Proposals and weights of importance sampling: known tails, widths and sizes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from ranef.numerics.importance_sampling import (
    WIDENING,
    cumulant_terms,
    effective_size,
    fitted_split_t,
    good_khat,
    log_mean,
    smoothed,
    smoothed_columns,
    smoothed_log_mean,
    systematic,
)


def generator(seed=1):
    return np.random.default_rng(seed)


def autoregression(rho):
    noise = generator().standard_normal((4, 20_000)) * np.sqrt(1 - rho**2)
    return signal.lfilter([1.0], [1.0, -rho], noise, axis=1)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_khat_is_the_shape_of_a_known_tail(k):
    """u^-k, u uniform, has a Pareto tail of shape k."""
    u = generator(2).uniform(size=20_000)
    weights, khat = smoothed(-k * np.log(u))
    assert khat == pytest.approx(k, abs=0.15)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() == u.argmin()


def test_bounded_ratios_have_no_tail():
    _, khat = smoothed(generator(2).uniform(size=20_000))
    assert khat < 0


def test_equal_ratios_have_equal_weights():
    weights, _ = smoothed(np.full(1000, -700.0))
    np.testing.assert_allclose(weights, 1e-3)


def of_arviz(log_ratios, reff):
    """Return weights and k-hat of one column as ArviZ has them."""
    from arviz_stats.base.array import array_stats

    try:
        logs, khat = array_stats.psislw(-log_ratios, r_eff=reff)
    except ValueError:
        logs, khat = log_ratios, np.inf
    weights = np.exp(logs - logs.max())
    return weights / weights.sum(), np.inf if np.isnan(khat) else khat


@pytest.mark.parametrize("draws", [20, 60, 225, 1000, 4001])
def test_many_columns_are_smoothed_as_arviz_smooths_one(draws):
    rng = generator(4)
    shapes = [rng.standard_t(df, draws) for df in (1, 3, 30)]
    ties = np.round(rng.normal(size=draws))
    equal = np.where(np.arange(draws) < draws / 2, 0.0, 1.0)  # the largest are all the same
    far = np.where(np.arange(draws) < 3, 900.0, rng.normal(size=draws))
    columns = np.column_stack([*shapes, ties, equal, far, rng.normal(size=draws) - 700])
    reff = np.array([1.0, 0.5, 1.0, 1.0, 1.0, 0.9, 0.3])
    weights, khat = smoothed_columns(columns, reff)
    for place, column in enumerate(columns.T):
        expected, k = of_arviz(column, reff[place])
        assert khat[place] == pytest.approx(k, rel=1e-9)
        np.testing.assert_allclose(weights[:, place].sum(), 1.0)
        np.testing.assert_allclose(
            np.sort(weights[:, place]), np.sort(expected), rtol=1e-9, atol=1e-300
        )
    np.testing.assert_allclose(weights[:, 0], of_arviz(columns[:, 0], 1.0)[0], rtol=1e-9)


def test_systematic_choice_is_in_proportion_to_the_weights():
    rng = generator(3)
    weights = rng.dirichlet(np.full(50, 0.3))
    expected = 400 * weights
    for _ in range(20):
        counts = np.bincount(systematic(weights, 400, rng), minlength=50)
        assert counts.sum() == 400
        assert (np.abs(counts - expected) < 1 + 1e-9).all()
    many = sum(np.bincount(systematic(weights, 10, rng), minlength=50) for _ in range(3000))
    np.testing.assert_allclose(many / 3000, 10 * weights, atol=4 * 0.5 / np.sqrt(3000))


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.6, 0.9])
def test_effective_size_of_autoregressions(rho):
    z = autoregression(rho)
    assert effective_size(z) == pytest.approx(z.size * (1 - rho) / (1 + rho), rel=0.1)


def test_effective_size_of_what_does_not_vary():
    assert effective_size(np.ones((2, 50))) == 100


@pytest.mark.parametrize(
    ("draws", "limit"), [(100, 0.5), (1000, 2 / 3), (4000, 0.7), (10, 0), (1, -2.3219280948873626)]
)
def test_limit_of_khat(draws, limit):
    assert good_khat(draws) == pytest.approx(limit)


def fitted(x):
    return fitted_split_t(x, np.atleast_2d(np.cov(x.T)), 8.0)


def test_fitted_proposals_have_their_density():
    """Averages of 1 / q over an interval, weighted by draws from q, are its length."""
    z = generator(3).standard_gamma(2.0, (4000, 2)) @ np.array([[1.0, 0.4], [0, 0.5]])
    proposals = fitted(z)
    points, logq = proposals.draw(200_000, generator(4))
    low, high = np.quantile(points, 0.3, axis=0), np.quantile(points, 0.7, axis=0)
    inside = ((points > low) & (points < high)).all(axis=1)
    volume = np.mean(inside * np.exp(-logq))
    assert volume == pytest.approx(np.prod(high - low), rel=0.02)
    assert proposals.right[0] > 1.5 * proposals.left[0]


def test_fitted_widths_are_those_of_a_split_normal():
    rng = generator(5)
    right = rng.uniform(size=400_000) < 0.75
    z = np.where(right, 3.0, -1.0) * np.abs(rng.standard_normal(400_000))
    found = fitted(z[:, None])
    widths = np.array([found.right[0], found.left[0]]) * found.root[0, 0] / WIDENING
    np.testing.assert_allclose(widths, [3, 1], rtol=0.05)
    assert found.mean[0] + found.root[0, 0] * found.center[0] == pytest.approx(0, abs=0.06)


@pytest.mark.parametrize("different", [1, 2, 50])
def test_proposals_where_few_draws_are_left(different):
    """Of those that the weights have left, some hundreds of times each."""
    x = np.repeat(generator(6).standard_normal((different, 4)), 500, axis=0)
    points, logq = fitted_split_t(x, 4 * np.eye(4), 8.0).draw(2000, generator(7))
    assert np.isfinite(logq).all()
    assert (np.linalg.eigvalsh(np.cov((points - x.mean(axis=0)).T)) > 0.02).all()


def test_a_tail_that_cannot_be_fitted_is_said():
    for few in (generator().normal(size=10), np.where(np.arange(1000) % 2, -1.0, -2.0)):
        weights, khat = smoothed(few)
        assert khat == np.inf
        np.testing.assert_allclose(weights, np.exp(few) / np.exp(few).sum())


def test_means_of_ratios_with_and_without_smoothing():
    logs = generator(8).normal(-700, 0.3, (4000, 1))
    weights, _ = smoothed(logs[:, 0])
    plain = log_mean(logs[:, 0], weights)
    (value, mcse), khat = smoothed_log_mean(logs)
    assert khat < 0.5
    assert plain.value == pytest.approx(-700 + 0.045, abs=4 * plain.mcse)
    assert (value, mcse) == (
        pytest.approx(plain.value, abs=1e-3),
        pytest.approx(plain.mcse, rel=0.1),
    )
    assert smoothed_log_mean(np.full((10, 1), -np.inf)) == ((-np.inf, np.inf), np.inf)


def test_two_cumulants_of_nearly_normal_ratios():
    """log E exp(r) of a gamma distribution with many degrees of freedom, some left out."""
    rng = np.random.default_rng(3)
    ratios = 0.05 * rng.gamma(100, size=(40_000, 2))
    ratios[::7] = np.nan
    second, third = cumulant_terms(ratios)
    exact = -100 * np.log1p(-0.05)
    np.testing.assert_allclose(second.mean(0) + third.mean(0), exact, atol=0.01)
    np.testing.assert_allclose(third.mean(0), 0.05**3 * 200 / 6, rtol=0.2)
