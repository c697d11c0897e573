"""Adjusted p values and intervals against R's `p.adjust`, `ptukey` and `qtukey`."""

import numpy as np
import pytest
from scipy import stats

from ranef.effects.multiple_tests import p_values, quantiles

FREE = np.full(3, np.inf)
PTUKEY, QTUKEY = 0.0949584505485567, 3.31449315755301


def test_holm_by_hand():
    t = np.array([2.0, np.nan, 3.0, 0.1])
    p = 2 * stats.norm.sf(t)
    found = p_values(t, np.full(4, np.inf), "holm", 3)
    np.testing.assert_allclose(found, [2 * p[0], np.nan, 3 * p[2], p[3]], rtol=1e-12)
    assert p_values(np.array([0.1, 0.2]), FREE[:2], "holm", 3).tolist() == [1.0, 1.0]


def test_two_means_are_not_adjusted():
    t, df = np.array([2.2]), np.array([17.3])
    alone = p_values(t, df, "none", 2)
    assert alone == pytest.approx(2 * stats.t.sf(2.2, 17.3), rel=1e-12)
    assert p_values(t, df, "tukey", 2) == pytest.approx(alone, rel=1e-7)
    assert quantiles(0.9, df, "tukey", 2) == pytest.approx(stats.t.ppf(0.95, 17.3), rel=1e-6)


def test_the_range_of_several_means():
    """Against R: ptukey(3.5, 4, 20, lower = FALSE) and qtukey(0.95, 3, Inf)."""
    p = p_values(np.array([3.5 / np.sqrt(2)]), np.array([20.0]), "tukey", 4)
    assert p == pytest.approx(PTUKEY, rel=1e-7)
    found = quantiles(0.95, FREE, "tukey", 3)
    np.testing.assert_allclose(found * np.sqrt(2), QTUKEY, rtol=1e-6)


def test_bonferroni_divides_the_tail():
    found = quantiles(0.9, np.array([5.0, np.inf]), "holm", 3)
    np.testing.assert_allclose(found, [stats.t.ppf(0.975, 5), stats.norm.ppf(0.975)], rtol=1e-12)
