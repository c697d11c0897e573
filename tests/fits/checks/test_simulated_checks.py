"""P-values by simulation are what they say where the model holds."""

from __future__ import annotations

import numpy as np

import ranef as rf
from ranef.fits.checks.simulated_checks import residual_patterns


def test_p_values_of_models_that_hold_are_not_too_small():
    """Estimated from the same data, they are if anything too large."""
    rng = np.random.default_rng(1)
    g, found = np.repeat(np.arange(12), 8), []
    for _ in range(8):
        mu = np.exp(1 + 0.5 * rng.normal(size=12)[g])
        fit = rf.fit("y ~ 1 + (1 | g)", {"y": rng.poisson(mu), "g": g}, family="poisson")
        found.append([finding.figure for finding in residual_patterns(fit, [])])
    values = np.array(found)
    assert values.shape == (8, 3)
    assert ((values < 0.05).sum(axis=0) <= 3).all()  # more in one of 2,500 experiments


def test_dispersion_is_per_degree_of_freedom_left():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(15), 2)
    y = rng.poisson(np.exp(2 + 0.8 * rng.normal(size=15)[g]))
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson")
    (found,) = (one for one in residual_patterns(fit, []) if one.topic == "dispersion")
    left = 30 - fit.leverage().sum()
    ratio = float(found.text.split()[1])
    assert left < 20
    assert abs(ratio / ((fit.residuals("pearson") ** 2).sum() / left) - 1) < 0.08


def test_classes_have_no_dispersion():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 8)
    data = {"y": rng.integers(0, 2, 96), "g": g}
    fit = rf.fit("y ~ 1 + (1 | g)", data, family="binomial")
    topics = [finding.topic for finding in residual_patterns(fit, [])]
    assert topics == ["distribution"]


def test_many_rows_are_left_alone():
    class Large:
        n_obs = 1_000_000

    skipped: list[str] = []
    assert list(residual_patterns(Large(), skipped)) == []
    assert skipped == ["residuals and simulations of many rows: .plot_residuals('qq')"]
