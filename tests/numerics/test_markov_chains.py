"""R-hat, sample sizes and shortest intervals against ArviZ's, and where they are known."""

import numpy as np
import pytest
from arviz_stats.base.array import array_stats

from ranef.numerics import markov_chains

TAILS = (0.05, 0.95)
AXES = {"chain_axis": 0, "draw_axis": 1}
SHAPES = [(4, 1000), (2, 37), (1, 50), (3, 8), (4, 5), (4, 4), (2, 1001)]


def chains_of(chains, draws):
    """Autocorrelated draws of several numbers; those of the first are rounded, so that some tie."""
    rng = np.random.default_rng(chains * draws)
    values = rng.normal(size=(chains, draws, 6))
    for t in range(1, draws):
        values[:, t] += np.array([0.9, 0.5, 0.0, -0.5, 0.98, -0.9]) * values[:, t - 1]
    values[..., 0] = values[..., 0].round(1)
    return values


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_and_errors_are_those_of_arviz(shape):
    values = chains_of(*shape)
    tail = array_stats.ess(values, method="tail", prob=TAILS, **AXES)
    np.testing.assert_allclose(markov_chains.ess_bulk(values), array_stats.ess(values, **AXES))
    np.testing.assert_allclose(markov_chains.ess_tail(values, TAILS), tail)
    np.testing.assert_allclose(
        markov_chains.mcse_mean(values), array_stats.mcse(values, method="mean", **AXES)
    )


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] > 1], ids=str)
def test_r_hat_is_that_of_arviz(shape):
    values = chains_of(*shape) + np.linspace(0, 1, shape[0])[:, None, None]
    np.testing.assert_allclose(markov_chains.rhat(values), array_stats.rhat(values, **AXES))


def test_a_single_chain_has_no_r_hat():
    assert np.isnan(markov_chains.rhat(chains_of(1, 50))).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("prob", [0.5, 0.9, 0.999])
def test_shortest_intervals_are_those_of_arviz(shape, prob):
    values = chains_of(*shape)
    theirs = array_stats.hdi(values, prob=prob, axis=(0, 1))
    found = markov_chains.shortest_interval(values, prob)
    np.testing.assert_array_equal(np.stack(found, axis=-1), theirs)


def test_the_size_of_an_autoregression_is_known():
    """The autocorrelations 0.5^t add up: one draw of three counts."""
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4, 50_000, 1)) * np.sqrt(0.75)
    for t in range(1, values.shape[1]):
        values[:, t] += 0.5 * values[:, t - 1]
    assert markov_chains.ess_bulk(values).item() == pytest.approx(200_000 / 3, rel=0.05)
    assert markov_chains.mcse_mean(values).item() == pytest.approx((3 / 200_000) ** 0.5, rel=0.05)


def test_a_few_numbers_at_a_time_give_the_same(monkeypatch):
    values = chains_of(4, 100)
    whole = markov_chains.ess_bulk(values)
    monkeypatch.setattr(markov_chains, "ELEMENTS", 900)
    np.testing.assert_array_equal(markov_chains.ess_bulk(values), whole)
