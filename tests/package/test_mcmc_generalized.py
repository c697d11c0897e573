"""Generalised models by NUTS: posteriors against the parameters behind simulated data."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration import calibrate, judge, levels_mixed_up, quantities, simulate
from mcmc_calibration import STRUCTURES

from ranef.priors.distributions import HalfNormal

LEVEL = 0.01  # of all quantities of all structures together
UNRELIABLE = 0.1  # most fits with few effective draws
FEW = {"bernoulli": 25, "poisson, crossed": 25}
MANY = 400


def check(found):
    unreliable = {name: table.iloc[:, 0].isna().mean() for name, table in found.items()}
    assert max(unreliable.values()) <= UNRELIABLE, unreliable
    assert min(judge(found)) > LEVEL, judge(found).head(10)


def test_posteriors_are_calibrated():
    check({name: calibrate(STRUCTURES[name], n, seed=1) for name, n in FEW.items()})


def test_effects_of_other_levels_are_found():
    """The compiled model of another test, with the effects of the simulation mixed up."""
    structure = STRUCTURES["poisson, crossed"]
    found = judge({"": calibrate(structure, 25, seed=2, flaw=levels_mixed_up)})
    assert found["", "log p(y | b)"] < LEVEL
    assert found["", "x"] > LEVEL


@pytest.mark.slow
def test_every_structure_is_calibrated():
    check(
        {
            name: calibrate(own, MANY, seed)
            for seed, (name, own) in enumerate(STRUCTURES.items(), start=100)
        }
    )


@pytest.mark.slow
def test_a_prior_that_is_too_wide_is_found():
    structure = replace(STRUCTURES["poisson"], assumed={"sd": HalfNormal(1.4)})
    found = judge({"": calibrate(structure, MANY, seed=3)})
    assert found["", "sd_g[Intercept]"] < LEVEL


def test_quantities_of_a_bernoulli_response_are_those_at_the_drawn_effects():
    structure = STRUCTURES["bernoulli"]
    simulation, design = simulate(structure, np.random.default_rng(4)), structure.truth.design
    own, y = simulation.parameters, simulation.y
    got = quantities(structure.truth, own, y)
    eta = design.rows.X @ own["beta"][0] + own["b_g"][0, design.rows.terms[0].codes, 0]
    wanted = np.log(np.where(y == 1, 1 / (1 + np.exp(-eta)), 1 / (1 + np.exp(eta)))).sum()
    assert got["log p(y | b)"].item() == pytest.approx(wanted)
