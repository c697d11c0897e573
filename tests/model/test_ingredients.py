"""Models and fits with another formula, other data or options, against those written out."""

from __future__ import annotations

import pickle

import duckdb
import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import DataError, FitError, FormulaError
from ranef.priors.distributions import HalfNormal, Normal

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    rng = np.random.default_rng(3)
    frame = rf.load_dataset("sleepstudy")
    return frame.assign(z=rng.normal(size=len(frame)), w=rng.uniform(0.5, 2, len(frame)))


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (". ~ . - Days", "Reaction ~ 1 + (Days | Subject)"),
        (". ~ . - (Days | Subject) + (1 | Subject)", "Reaction ~ Days + (1 | Subject)"),
        (". ~ . + z + (0 + z | Subject)", "Reaction ~ Days + z + (Days|Subject) + (0 + z|Subject)"),
        ("log(.) ~ .", "log(Reaction) ~ Days + (Days | Subject)"),
    ],
)
def test_an_updated_fit_is_the_fit_of_that_formula(sleep, change, new):
    fit = rf.fit(SLEEP, sleep, "ml", weights="w")
    changed, written = fit.update(change), rf.fit(new, sleep, "ml", weights="w")
    assert changed.method == "ml"
    assert changed.objective == pytest.approx(written.objective, abs=1e-6)
    assert fit.engine is not None
    again = rf.Model(SLEEP, sleep, weights="w").update(change).fit("ml")
    assert again.objective == pytest.approx(written.objective, abs=1e-6)


def test_data_method_and_options_of_both_kinds_can_change(sleep):
    fit = rf.fit(SLEEP, sleep, weights="w")
    part = sleep[sleep["Days"] < 6]
    changed = fit.update(data=part, method="ml", weights=None)
    assert changed.objective == pytest.approx(rf.fit(SLEEP, part, "ml").objective, abs=1e-8)


def test_a_posterior_keeps_its_priors_and_options(sleep):
    priors = {"Days": Normal(0, 20), "sd_Subject": {"Days": HalfNormal(5)}}
    fit = rf.Model(SLEEP, sleep, priors=priors).fit("quadrature", draws=210, seed=4)
    changed = fit.update(". ~ . - (Days | Subject) + (1 | Subject)")
    assert changed.options == {"draws": 210, "seed": 4}
    written = rf.fit(
        "Reaction ~ Days + (1 | Subject)",
        sleep,
        "quadrature",
        priors={"Days": Normal(0, 20)},
        draws=210,
        seed=4,
    )
    pd.testing.assert_series_equal(changed.estimates(), written.estimates())
    assert changed.update(method="ml").method == "ml"  # which has no draws
    other = fit.update(priors="default", seed=5)
    assert other.options == {"draws": 210, "seed": 5}
    assert other.engine.setting == "default"


def test_rows_that_were_incomplete_come_back(sleep):
    holes = sleep.assign(z=sleep["z"].where(sleep.index % 3 > 0))
    with pytest.warns(rf.RanefWarning, match="60 of 180 rows left out"):
        fit = rf.fit("Reaction ~ z + (1 | Subject)", holes)
    assert (fit.n_obs, fit.update(". ~ . - z").n_obs) == (120, 180)


def test_known_standard_errors_come_and_go():
    data = pd.DataFrame(
        {"g": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12.0], "x": np.arange(8) % 3}
    ).assign(s=[15, 10, 16, 11, 9, 11, 10, 18.0])
    fit = rf.fit("y ~ 1 + (1 | g)", data, "ml", se="s")
    with_x = fit.update(". ~ . + x")
    written = rf.fit("y ~ x + (1 | g)", data, "ml", se="s")
    assert with_x.objective == pytest.approx(written.objective, abs=1e-8)
    assert with_x.knows_sigma
    without = rf.Model("y ~ x + (1 | g)", data, se="s").update(". ~ . - (1 | g)", se=None)
    assert without.priors.known_sigma is None
    again = fit.refit(fit.simulate(seed=1)).update(". ~ . + 1")
    assert again.knows_sigma


def test_another_family_has_its_own_link():
    data = rf.load_dataset("cbpp").assign(some=lambda d: (d["incidence"] > 1).astype(float))
    fit = rf.fit("some ~ period + (1 | herd)", data, family="bernoulli", link="probit")
    changed = fit.update("incidence ~ .", family="poisson")
    assert (changed.family.name, changed.family.link.name) == ("poisson", "log")


def test_a_refit_can_be_updated_saved_and_sent(sleep, tmp_path):
    data = rf.load_dataset("cbpp")
    fit = rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial"
    )
    again = fit.refit(fit.simulate(seed=2))
    again.save(tmp_path / "fit.zip")
    for same in (rf.load(tmp_path / "fit.zip"), pickle.loads(pickle.dumps(again))):
        assert same.objective == again.objective
        changed = same.update(". ~ . - period")
        y = again.design.rows.y * data["size"]
        frame = data.assign(incidence=y)
        written = rf.fit(
            "cbind(incidence, size - incidence) ~ (1 | herd)", frame, family="binomial"
        )
        assert changed.objective == pytest.approx(written.objective, abs=1e-6)
    weighted = rf.fit(SLEEP, sleep, weights=sleep["w"].to_numpy())
    y = weighted.simulate(seed=1)[:, 0]
    written = rf.fit("Reaction ~ Days", sleep.assign(Reaction=y), weights="w")
    changed = weighted.refit(y).update(". ~ . - (Days | Subject)")
    assert changed.objective == pytest.approx(written.objective, abs=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"famly": "poisson"}, FitError, r"fit\('reml'\) has no option `famly`"),
        ({"formula": ". ~ . + zz"}, FormulaError, "the column `zz` is not in the data"),
        ({"formula": ". ~ . - z"}, FormulaError, "`z` is not in the formula, which has `Days`"),
        ({"method": "remel"}, FitError, "method='remel' does not exist"),
        ({"data": 3}, DataError, "expected a data frame"),
    ],
)
def test_what_cannot_be_changed_is_said(sleep, change, error, said):
    with pytest.raises(error, match=said):
        rf.fit(SLEEP, sleep).update(**change)


def test_arrays_of_old_rows_are_not_those_of_new_data(sleep):
    model = rf.Model(SLEEP, sleep, weights=sleep["w"].to_numpy())
    with pytest.raises(FitError, match="weights= of this model is an array with a value for each"):
        model.update(data=sleep.iloc[:50])
    assert model.update(data=sleep.iloc[:50], weights=None).design.n_obs == 50
    with pytest.raises(FitError, match=r"a model has no option `weigths`\. Did you mean `weights`"):
        model.update(weigths="w")


def test_fits_of_lazy_data_travel_without_them(sleep):
    twice = pd.concat([sleep, sleep])
    for options in ({}, {"family": "poisson"}):
        model = rf.Model("Days ~ z + (1 | Subject)", duckdb.from_df(twice), **options)
        fit = model.fit("ml")
        sent = pickle.loads(pickle.dumps(fit))
        assert sent.loglik == fit.loglik
        with pytest.raises(FitError, match="the lazy data of this model were left behind: give th"):
            sent.update(". ~ . - z")
        assert sent.update(data=twice).loglik == pytest.approx(fit.loglik, rel=1e-10)
