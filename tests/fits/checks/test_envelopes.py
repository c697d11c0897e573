"""Envelopes of curves hold what they say, and p-values are uniform."""

from __future__ import annotations

import numpy as np

from ranef.fits.checks.envelopes import envelope, p_value


def test_the_envelope_holds_a_curve_of_the_model_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside, small = 0, 0
    for _ in range(1000):
        curves = np.sort(rng.standard_normal((100, 20)), axis=1)
        found = envelope(curves[0], curves[1:], 0.9)
        is_inside = ((curves[0] >= found.lower) & (curves[0] <= found.upper)).all()
        assert is_inside == (found.p_value > 0.1 + 1e-9)
        inside, small = inside + is_inside, small + (found.p_value <= 0.05)
    assert abs(inside / 1000 - 0.9) < 3.3 * np.sqrt(0.09 / 1000)
    assert abs(small / 1000 - 0.05) < 3.3 * np.sqrt(0.0475 / 1000)


def test_one_strange_place_is_enough():
    rng = np.random.default_rng(2)
    curves = rng.standard_normal((199, 50))
    observed = np.zeros(50)
    assert envelope(observed, curves, 0.95).p_value > 0.5
    observed[17] = 5.0
    assert envelope(observed, curves, 0.95).p_value == 0.005


def test_a_p_value_is_the_share_of_what_is_as_extreme():
    assert p_value(10.0, np.arange(9.0)) == 0.2
    assert p_value(4.0, np.arange(9.0)) == 1.0
    assert p_value(-1.0, np.arange(99.0)) == 0.02
