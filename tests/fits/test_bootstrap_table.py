"""The table of a bootstrap: R's quantiles, notes, and statistics of a user's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import DataWarning, FitError
from ranef.fits.bootstrap_table import Bootstrap
from ranef.likelihood.bootstrap.bootstrap import refitted, simulated_response
from ranef.likelihood.bootstrap.simulated_responses import seeds_of_replicates

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def many(sleep):
    return sleep.bootstrap(2000, seed=1)


def again(fit, seed):
    """Return the fit of a response that is simulated from a fit."""
    response = simulated_response(fit.fitted_model, seed)
    model = refitted(fit.fitted_model, fit.design.with_rows(y=response))
    return replace(fit, design=model.design, estimate=model.estimate)


def sd_ratio(fit):
    """Return a statistic that another process can find."""
    return fit.varcorr().sd["Subject"].iloc[0] / fit.sigma


def test_a_statistic_is_a_function_of_a_fit(sleep):
    found = sleep.bootstrap(12, statistic=sd_ratio, seed=1)
    assert found.estimates.columns.tolist() == ["statistic"]
    assert found.original["statistic"] == pytest.approx(sd_ratio(sleep))
    loop = [sd_ratio(again(sleep, s)) for s in seeds_of_replicates(1, 12)]
    np.testing.assert_array_equal(found.estimates["statistic"], loop)
    series = sleep.bootstrap(4, statistic=lambda fit: fit.fixef(), seed=1)
    assert series.estimates.columns.tolist() == ["Intercept", "Days"]
    table = sleep.bootstrap(4, statistic=lambda fit: {"mean": fit.fitted().mean()}, seed=1)
    responses_mean = [
        simulated_response(sleep.fitted_model, s).mean() for s in seeds_of_replicates(1, 4)
    ]
    np.testing.assert_allclose(table.estimates["mean"], responses_mean, rtol=1e-9)


def test_a_statistic_of_another_kind_is_refused(sleep):
    with pytest.raises(FitError) as caught:
        sleep.bootstrap(3, statistic=lambda _: "much", seed=1)
    assert str(caught.value) == (
        "the statistic must answer with a number, or a Series or dict of numbers, got ['much']."
    )

    def fickle(fit):
        return {"a": 1.0} if fit.engine is not None else {"b": 1.0}

    with pytest.raises(FitError) as caught:
        sleep.bootstrap(3, statistic=fickle, seed=1)
    assert str(caught.value) == (
        "the statistic must have the same names for every fit; it has ['b'] for a replicate, "
        "['a'] for the data."
    )


def record(**columns):
    """Return a record of given replicates; all originals are 10."""
    frame = pd.DataFrame(columns)
    return Bootstrap(frame, 0, 1, pd.Series(10.0, index=frame.columns), "REML")


def test_quantiles_are_those_of_boot():
    """R: boot:::norm.inter(1:99, c(.025, .975)); (R + 1) alpha = 2.5, between 2 and 3."""
    shuffled = np.random.default_rng(1).permutation(np.arange(1.0, 100.0))
    found = record(a=shuffled).confint(0.95)
    z = stats.norm.ppf
    share = (z(0.025) - z(0.02)) / (z(0.03) - z(0.02))
    assert found.loc["a", "lower"] == pytest.approx(2 + share)
    assert found.loc["a", "upper"] == pytest.approx(98 - share)
    assert record(a=shuffled).confint(0.9).loc["a"].tolist() == pytest.approx([5, 95])
    basic = record(a=shuffled).confint(0.9, kind="basic").loc["a"].tolist()
    assert basic == pytest.approx([2 * 10 - 95, 2 * 10 - 5])


def test_too_few_replicates_for_an_interval():
    with pytest.warns(DataWarning) as caught:
        found = record(a=np.arange(20.0)).confint(0.95)
    assert str(caught[0].message) == (
        "20 replicates are too few for 95 % intervals: their ends are the smallest and the "
        "largest replicates."
    )
    assert found.loc["a"].tolist() == [0, 19]
    record(a=np.arange(39.0)).confint(0.95)


def test_bias_and_standard_errors(many):
    np.testing.assert_allclose(many.se(), np.std(many.estimates, axis=0, ddof=1))
    np.testing.assert_allclose(many.bias(), many.estimates.mean() - many.original)
    found = record(a=[9.0, 10, 14])
    assert found.bias()["a"] == pytest.approx(1)
    assert found.se()["a"] == pytest.approx(np.sqrt(7))


def test_what_is_not_defined_is_said_and_left_out():
    found = record(
        **{"sd_g[x]": np.r_[0.0, np.arange(1.0, 50)], "corr": np.r_[np.nan, np.arange(49)]}
    )
    expected = record(corr=np.arange(49.0)).confint().loc["corr"]
    pd.testing.assert_series_equal(found.confint().loc["corr"], expected)
    text = str(replace(found, failures=3))
    assert "3 replicates could not be fitted and are missing." in text
    assert "sd_g[x] is zero in 2.0% of the replicates." in text
    assert "corr is not defined in 1 replicates, which are left out of its numbers." in text


def test_an_interval_of_another_kind():
    with pytest.raises(FitError) as caught:
        record(a=np.arange(50.0)).confint(kind="basics")
    assert str(caught.value) == ("kind='basics' is not a bootstrap interval. Did you mean `basic`?")
    with pytest.raises(FitError, match="`prob` must lie between 0 and 1"):
        record(a=np.arange(50.0)).confint(2)


def test_the_printed_table(many):
    lines = str(many).split("\n")
    assert lines[0] == "Parametric bootstrap: 2000 fits of simulated responses"
    assert lines[1] == "  by REML; seed=1"
    assert lines[3] == "Estimates, with 95 % percentile intervals"
    assert lines[4].split() == ["estimate", "bias", "se", "lower", "upper"]
    assert lines[6].split()[:2] == ["Days", "10.5"]
    assert "Parametric bootstrap" in many._repr_html_()


def test_the_distribution_of_replicates_is_drawn():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    boot = fit.bootstrap(200, seed=1)
    axes = boot.plot()
    assert [ax.get_title(loc="left") for ax in axes] == list(boot.estimates)
    line, mark = axes[1].lines
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1, abs=0.02)
    assert (line.get_label(), mark.get_label()) == ("replicates", "original")
    assert mark.get_xdata()[0] == fit.sigma
    assert boot.plot("sigma", ax=axes[0])[0] is axes[0]
    with pytest.raises(rf.FitError, match="parameters='sgma' is no column of the estimates"):
        boot.plot("sgma")
