"""Responses at stated parameters: their moments, and the frames that are fitted at once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import DataError, FitError, FormulaError

SLEEP = "Reaction ~ Days + (Days | Subject)"
STATED = {
    "beta": {"Days": 10, "Intercept": 250},
    "theta": {"Subject": {"Intercept": 25, "Days": 6}, "corr_Subject": 0.5},
    "sigma": 20,
}


@pytest.fixture(scope="module")
def design():
    return rf.load_dataset("sleepstudy")[["Days", "Subject"]]


def test_responses_have_the_stated_moments(design):
    y = rf.simulate(SLEEP, design, n=40_000, seed=1, **STATED)
    assert y.shape == (180, 40_000)
    Z = np.column_stack([np.ones(3), [0, 5, 9]])
    V = Z @ np.array([[625, 75], [75, 36]]) @ Z.T + 400 * np.eye(3)
    sd = np.sqrt(np.diag(V))
    drawn = y[[0, 5, 9]]
    assert np.abs((drawn.mean(axis=1) - Z @ [250, 10]) / sd).max() < 4.5 / 200
    np.testing.assert_allclose(np.cov(drawn) / np.outer(sd, sd), V / np.outer(sd, sd), atol=0.025)
    assert abs(np.corrcoef(y[[0, 10]])[0, 1]) < 0.02  # another subject


def test_the_same_seed_gives_the_same_frame(design):
    first = rf.simulate(SLEEP, design, seed=3, frame=True, **STATED)
    again = rf.simulate(SLEEP, design, seed=3, **STATED)
    assert list(first) == ["Days", "Subject", "Reaction"]
    np.testing.assert_array_equal(first["Reaction"], again[:, 0])
    assert "Reaction" not in design
    several = rf.simulate(SLEEP, design, seed=3, n=3, frame=True, **STATED)
    assert several.groupby("replicate").size().tolist() == [180, 180, 180]


def test_fits_find_the_parameters(design):
    many = pd.concat([design.assign(Subject=design["Subject"].astype(str) + c) for c in "abcdefgh"])
    fit = rf.fit(SLEEP, rf.simulate(SLEEP, many, seed=1, frame=True, **STATED))
    assert np.abs((fit.fixef() - [250, 10]) / fit.se()).max() < 3.5
    wanted = [250, 10, 20, 25, 6, 0.5]
    np.testing.assert_allclose(fit.estimates(), wanted, rtol=0.25)


def test_trials_come_from_the_formula_or_from_weights():
    rows = rf.load_dataset("cbpp")[["herd", "period", "size"]]
    stated = {"beta": [-1, -0.5, -0.5, -1], "theta": {"herd": 0.6}, "family": "binomial"}
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    data = rf.simulate(formula, rows, seed=1, frame=True, **stated)
    assert data["incidence"].dtype == np.int64
    assert (data["incidence"] <= data["size"]).all()
    assert rf.fit(formula, data, family="binomial").converged
    y = rf.simulate("p ~ period + (1 | herd)", rows, seed=1, weights="size", **stated)
    np.testing.assert_allclose(y[:, 0] * rows["size"], data["incidence"])


def test_other_families_have_their_own_parameters(design):
    stated = {"beta": [1, 0.1], "theta": {"Subject": 0.3}, "link": "log", "family": "gamma"}
    y = rf.simulate("y ~ Days + (1 | Subject)", design, n=2000, seed=1, sigma=0.2, **stated)
    assert (y > 0).all()
    assert np.log(y[0]).mean() == pytest.approx(1, abs=0.05)
    with pytest.raises(FitError, match="`sigma` is missing: the gamma family needs it: sigma="):
        rf.simulate("y ~ Days + (1 | Subject)", design, **stated)
    counts = rf.simulate("y ~ Days", design, beta=[1, 0.1], family="poisson", seed=1)
    assert (counts == np.round(counts)).all()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"n": 0}, FitError, "`n` must be a positive whole number, got 0."),
        ({"seed": -1}, FitError, "`seed` must be None, a whole number"),
        ({"design": 3}, DataError, "expected a data frame"),
        ({"design": {"Days": [1, np.nan], "Subject": [1, 2]}}, DataError, "have missing values"),
        ({"design": {"Days": [1, 2]}}, FormulaError, "the column `Subject` is not in the data"),
        ({"design": {"Days": [2, 2], "Subject": [1, 2]}}, FitError, "beta: `Days` cannot be told"),
        ({"parameters": [1]}, FitError, "parameters= is a mapping from names to numbers, got list"),
        ({"theta": [1.0]}, FitError, "theta has shape (1,), expected 3"),
        ({"sigma": None}, FitError, "`sigma` is missing: the gaussian family needs it: sigma=."),
        ({"n": 10**10}, FitError, "10,000,000,000 responses of 180 rows needs"),
        ({"formula": "log(y) ~ Days + (Days | Subject)"}, FitError, "`log(y)` is not a column"),
    ],
)
def test_what_cannot_be_simulated_is_said(design, change, error, said):
    arguments = {"formula": SLEEP, "design": design, "frame": True} | STATED | change
    with pytest.raises(error) as caught:
        rf.simulate(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("poisson", {}),
        ("negative_binomial", {"parameters": {"shape": 2.0}}),
        ("gamma", {"sigma": 1.0}),
        ("inverse_gaussian", {"sigma": 2.0}),
    ],
)
def test_responses_that_are_out_of_reach(family, options):
    rows = {"x": [1.0, 2.0, 800.0, 3.0], "g": list("abab")}
    stated = {"beta": [1, 1], "theta": [0.1], "seed": 1, "family": family, **options}
    with pytest.raises(FitError, match=r"^row 2 has a response of .*: `beta` and `theta` hold on"):
        rf.simulate("y ~ x + (1 | g)", rows, **stated)
    rows["x"][2] = 4.0
    assert np.isfinite(rf.simulate("y ~ x + (1 | g)", rows, **stated)).all()
