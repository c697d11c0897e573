"""The tables behind pictures of residuals, and how often their envelopes hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtri

import ranef as rf
from ranef.errors import DataError, FitError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=300), np.repeat(np.arange(20), 15)
    mu = np.exp(0.5 + 0.5 * x + 0.5 * rng.normal(size=20)[g])
    data = {"y": rng.poisson(mu), "x": x, "g": g}
    return rf.fit("y ~ x + (1 | g)", data, family="poisson")


def test_residuals_stand_against_what_is_asked(sleep):
    data = rf.load_dataset("sleepstudy")
    table = sleep.residual_table()
    np.testing.assert_array_equal(table["x"], sleep.fitted())
    np.testing.assert_array_equal(table["residual"], sleep.residuals())
    table = sleep.residual_table("predictor", groups="population")
    np.testing.assert_array_equal(table["x"], data["Days"])
    np.testing.assert_array_equal(table["residual"], sleep.residuals(groups="population"))
    assert table.attrs["residual"] == "marginal residual"
    table = sleep.residual_table("scale")
    np.testing.assert_allclose(table["residual"] ** 2, np.abs(sleep.residuals("standardized")))
    table = sleep.residual_table("predictor", by=np.arange(180))
    np.testing.assert_array_equal(table["x"], np.arange(180))
    table = sleep.residual_table("group")
    assert list(table["level"].astype(str)) == list(data["Subject"].astype(str))


def test_of_counts_quantile_residuals_are_drawn(counts):
    table = counts.residual_table("fitted", seed=2)
    np.testing.assert_allclose(table["residual"], ndtri(counts.residuals("quantile", seed=2)))


def test_random_effects_are_over_the_sd_of_their_estimates(sleep):
    table = sleep.residual_table("effects", seed=1)
    own = sleep.ranef_table()
    own = own[own["coef"] == "Days"].set_index("level")
    variance = sleep.varcorr().cov["Subject"].loc["Days", "Days"] - own["sd"] ** 2
    part = table[table["coef"] == "Days"].set_index("level")
    np.testing.assert_allclose(
        part["residual"], (own["estimate"] / np.sqrt(variance)).loc[part.index]
    )
    np.testing.assert_allclose(part["theoretical"], ndtri((np.arange(18) + 0.5) / 18))


@pytest.mark.parametrize("kind", ["standardized", "whitened", "pearson"])
def test_the_envelope_of_any_residual_holds_a_normal_one(kind):
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(12), 8)
    y = rng.normal(size=96) + rng.normal(size=12)[g]
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    table = fit.residual_table("qq", residuals=kind, seed=1)
    assert table.attrs["p_value"] > 0.05
    assert table["residual"].between(table["lower"], table["upper"]).all()
    heavy = rf.fit("y ~ 1 + (1 | g)", {"y": y + 9.0 * (np.arange(96) == 5), "g": g})
    table = heavy.residual_table("qq", residuals=kind, seed=1)
    assert table.attrs["p_value"] < 0.02


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_envelopes_hold_fits_of_simulated_data_as_often_as_they_say(n):
    rng = np.random.default_rng(5)
    g, inside = np.repeat(np.arange(15), 6), []
    while len(inside) < n:
        y = rng.normal(size=90) + rng.normal(size=15)[g]
        fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
        if not fit.is_singular:
            tables = [
                fit.residual_table(kind, prob=0.9, n=49, seed=len(inside))
                for kind in ("qq", "effects")
            ]
            within = [t["residual"].between(t["lower"], t["upper"]).all() for t in tables]
            inside.append(within)
    off = np.mean(inside, axis=0) - 0.9
    assert (np.abs(off) < 3.3 * np.sqrt(0.09 / n)).all()


def test_heavy_tails_and_mixtures_of_groups_leave_the_envelopes(sleep):
    assert sleep.residual_table("qq", seed=1).attrs["p_value"] < 0.01
    rng = np.random.default_rng(6)
    g = np.repeat(np.arange(60), 10)
    b = np.where(np.arange(60) % 6 == 0, 4.0, 0.0)[g]
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": b + rng.normal(size=600), "g": g})
    assert fit.residual_table("effects", seed=1).attrs["p_value"]["Intercept"] < 0.02


def test_bad_questions_are_answered(sleep):
    with pytest.raises(FitError, match="kind='bar' is not a picture of residuals"):
        sleep.plot_residuals("bar")
    with pytest.raises(FitError, match="residuals='raw' is not a kind of residual"):
        sleep.plot_residuals(residuals="raw")
    with pytest.raises(FitError, match=r"the model uses no column 'Day'\. Did you mean `Days`"):
        sleep.plot_residuals("predictor", by="Day")
    with pytest.raises(DataError, match="`by` has 3 values, expected one for each of 180 rows"):
        sleep.plot_residuals("predictor", by=[1, 2, 3])
    plain = rf.fit("Yield ~ 1", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match="the model has no predictor to draw residuals against"):
        plain.plot_residuals("predictor")
    with pytest.raises(FitError, match="the model has no groups: name a column of the data, `by="):
        plain.plot_residuals("group")
    with pytest.raises(FitError, match="the model has no random effects"):
        plain.plot_residuals("effects")
    zero = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    with pytest.raises(FitError, match="the estimated sd of Intercept is zero"):
        zero.plot_residuals("effects")


def test_an_envelope_of_residuals_that_cannot_be_simulated_is_refused(counts):
    with pytest.raises(FitError, match="an envelope of pearson residuals is of linear models"):
        counts.plot_residuals("qq", residuals="pearson")
    assert isinstance(counts.residual_table("qq", seed=1), pd.DataFrame)
