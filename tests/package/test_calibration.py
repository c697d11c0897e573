"""Posteriors against the parameters that the data were simulated from, and the test itself."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from calibration import (
    STRUCTURES,
    calibrate,
    holm,
    judge,
    levels_mixed_up,
    p_value,
    quantities,
    simulate,
)
from scipy import stats

from ranef.priors.distributions import Gamma

LEVEL = 0.01  # of all quantities of all structures together
UNRELIABLE = 0.4  # most fits that may say of themselves that they are not to be relied on
SMALL = {"one factor": 50, "three coefficients": 40, "poisson": 40}
SIMULATIONS = 1000
SLOW = ("three coefficients by NUTS", "poisson, defaults", "negative binomial")
FEWER = dict.fromkeys((*SLOW, "inverse Gaussian, defaults"), 300)


# ---------------------------------------------------------------------- is it uniform: the test


def exact_inside(n, level):
    """Return by enumeration how often no pointwise p-value of n uniform numbers is low."""
    found = 0.0
    for counts in product(range(n + 1), repeat=n):
        if sum(counts) != n:
            continue
        below = np.cumsum(counts)[:-1]
        law = stats.binom(n, np.arange(1, n) / n)
        tails = np.minimum(law.cdf(below), law.sf(below - 1))
        if np.all(np.minimum(1, 2 * tails) > level):
            found += stats.multinomial.pmf(counts, n, np.full(n, 1 / n))
    return found


@pytest.mark.parametrize(
    "u", [(0.1, 0.15, 0.5, 0.7, 0.95), (0.9, 0.91, 0.93, 0.97, 0.99), (0.01, 0.02, 0.5, 0.51, 0.52)]
)
def test_p_value_is_that_of_enumeration(u):
    law = stats.binom(5, np.arange(1, 5) / 5)
    below = np.array([np.sum(np.array(u) <= k / 5) for k in range(1, 5)])
    level = min(1, 2 * np.minimum(law.cdf(below), law.sf(below - 1)).min())
    assert p_value(u) == pytest.approx(1 - exact_inside(5, level), abs=1e-12)


def test_p_value_has_its_size():
    rng = np.random.default_rng(1)
    p = np.array([p_value(rng.uniform(size=100)) for _ in range(800)])
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.02)
    assert np.mean(p < 0.5) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("shift", "scale", "power"), [(0.2, 1, 0.95), (0, 0.85, 0.95)])
def test_power_against_posteriors_that_are_a_little_wrong(shift, scale, power):
    rng = np.random.default_rng(2)
    wrong = stats.norm.cdf(scale * rng.normal(size=(20, 1000)) + shift)
    assert np.mean([p_value(u) < 0.01 for u in wrong]) >= power


def test_holm_corrects_for_the_number_of_tests():
    found = holm(pd.Series({"a": 0.04, "b": 0.01, "c": 0.03}))
    assert found.round(10).to_dict() == {"b": 0.03, "c": 0.06, "a": 0.06}


# ------------------------------------------------------------------------- what is simulated


def test_log_likelihoods_are_normal_densities():
    structure = STRUCTURES["relative and weighted"]
    design = structure.truth.design
    found = simulate(structure, np.random.default_rng(3))
    own, term = found.parameters, design.rows.terms[0]
    mean = design.rows.X @ own["beta"][0] + design.rows.offset
    noise = own["sigma"][0] ** 2 / design.rows.weights
    Z = np.zeros((design.n_obs, 2 * term.n_levels))
    for i, level in enumerate(term.codes):
        Z[i, 2 * level : 2 * level + 2] = term.columns[i]
    G = np.kron(np.eye(term.n_levels), np.diag(own[f"sd_{term.label}"][0] ** 2))
    got = quantities(structure.truth, own, found.y)
    law = stats.multivariate_normal(mean, Z @ G @ Z.T + np.diag(noise))
    assert got["log p(y | variances)"][0] == pytest.approx(law.logpdf(found.y), rel=1e-10)
    law = stats.multivariate_normal(mean + Z @ own[f"b_{term.label}"][0].ravel(), np.diag(noise))
    assert got["log p(y | b)"][0] == pytest.approx(law.logpdf(found.y), rel=1e-10)


def test_the_log_likelihood_of_a_generalised_model_is_that_of_scipy():
    structure = STRUCTURES["poisson"]
    design = structure.truth.design
    found = simulate(structure, np.random.default_rng(3))
    own = found.parameters
    eta = design.rows.X @ own["beta"][0] + own["b_g"][0, design.rows.terms[0].codes, 0]
    got = quantities(structure.truth, own, found.y)
    wanted = stats.poisson.logpmf(found.y, np.exp(eta)).sum()
    assert got["log p(y | b)"][0] == pytest.approx(wanted, rel=1e-10)
    assert "sigma" not in got


def test_effects_are_those_of_the_smallest_and_of_the_largest_group():
    structure = STRUCTURES["one factor"]
    design = structure.truth.design
    found = simulate(structure, np.random.default_rng(4))
    got = quantities(structure.truth, found.parameters, found.y)
    b = dict(zip(design.terms[0].levels, found.parameters["b_g"][0, :, 0], strict=True))
    assert got["b_g[small, Intercept]"][0] == b[0]
    assert got["b_g[large, Intercept]"][0] == b[1]


def test_values_do_not_depend_on_the_number_of_processes():
    structure = replace(STRUCTURES["one factor"], curves=1)
    alone = calibrate(structure, 4, seed=5)
    pd.testing.assert_frame_equal(alone, calibrate(structure, 4, seed=5, workers=2))
    assert not alone.equals(calibrate(structure, 4, seed=6))


# ----------------------------------------------------------------------- the posteriors, a little


def check(found):
    unreliable = {name: table.iloc[:, 0].isna().mean() for name, table in found.items()}
    assert max(unreliable.values()) <= UNRELIABLE, unreliable
    assert min(judge(found)) > LEVEL, judge(found).head(10)


def test_posteriors_are_calibrated():
    check({name: calibrate(STRUCTURES[name], n, seed=7) for name, n in SMALL.items()})


def test_effects_of_other_levels_are_found():
    structure = replace(STRUCTURES["one factor"], curves=0)
    found = judge({"": calibrate(structure, 40, seed=8, flaw=levels_mixed_up)})
    assert found["", "b_g[large, Intercept]"] < LEVEL
    assert found["", "log p(y | b)"] < LEVEL
    assert found["", "sigma"] > LEVEL


# --------------------------------------------------------------------- the posteriors, thoroughly


@pytest.mark.slow
def test_every_structure_is_calibrated():
    workers = os.cpu_count()
    check(
        {
            name: calibrate(own, FEWER.get(name, SIMULATIONS), seed, workers=workers)
            for seed, (name, own) in enumerate(STRUCTURES.items(), start=100)
        }
    )


MISTAKES = {
    "no Jacobian of log sd": {"sd": Gamma(1, 2)},  # x p(x) without its x
    "scale of a prior 20 % too wide": {"sd": Gamma(2, 2 / 1.2)},
}


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(mistake):
    structure = replace(STRUCTURES["few groups"], assumed=MISTAKES[mistake], curves=0)
    found = judge({"": calibrate(structure, SIMULATIONS, seed=9, workers=os.cpu_count())})
    assert found["", "sd_g[Intercept]"] < LEVEL
