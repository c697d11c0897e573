"""The parametric bootstrap against loops over rows, closed forms and R's formulas."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import FitError
from ranef.fits.point import _numbers_of_refit
from ranef.likelihood.bootstrap import bootstrap
from ranef.likelihood.bootstrap.bootstrap import (
    null_statistics,
    parameters,
    refitted,
    simulated_response,
)
from ranef.likelihood.bootstrap.refits import likelihood_ratios, refitter, rivals
from ranef.likelihood.bootstrap.simulated_responses import (
    responses,
    seeds_of_replicates,
    span,
    sums_of,
)
from ranef.likelihood.linear.crossproducts import cross_products

SLEEP = "Reaction ~ Days + (Days | Subject)"
HOSTILE = rf.load_dataset("sleepstudy").assign(
    w=lambda d: 1 + d["Days"] % 3, o=lambda d: d["Days"] ** 2, half=lambda d: d["Days"] > 4
)


@pytest.fixture(scope="module")
def sleep():
    return rf.fit(SLEEP, rf.load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def many(sleep):
    return sleep.bootstrap(2000, seed=1)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (SLEEP, {}),
        (SLEEP, {"weights": "w", "offset": "o"}),
        ("Reaction ~ Days + (Days || Subject)", {}),
        ("Reaction ~ 0 + Days + (1 + Days + I(Days^2) | Subject)", {}),
        ("Reaction ~ 0 + (half | Subject) + (0 + Days | Subject)", {}),
        ("Reaction ~ Days + I(2 * Days) + (1 | Subject)", {}),
        ("Reaction ~ Days", {}),
    ],
)
@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.filterwarnings("ignore::ranef.errors.DataWarning")
def test_the_response_of_the_data_gives_the_fit_back(formula, options, method):
    fit = rf.fit(formula, HOSTILE, method, **options)
    design, cross = fit.design, cross_products(fit.design)
    y = (design.rows.y - design.rows.offset) * np.sqrt(design.rows.weights)
    own = responses(span(design), sums_of(span(design), y[None]), cross)
    model = refitter(design, cross, fit.theta, reml=method == "reml")
    found = pd.Series(parameters(model, model.refit(own))[0], index=fit.estimates().index)
    np.testing.assert_allclose(found, fit.estimates(), rtol=2e-4, atol=1e-5)


def test_names_and_original(sleep, many):
    assert list(many.estimates.columns) == list(sleep.estimates().index)
    assert list(many.estimates.columns) == [
        "Intercept",
        "Days",
        "sigma",
        "sd_Subject[Intercept]",
        "sd_Subject[Days]",
        "corr_Subject[Intercept, Days]",
    ]
    pd.testing.assert_series_equal(many.original, sleep.estimates())
    assert many.estimates.index.tolist() == list(range(2000))
    assert many.estimates.index.name == "replicate"
    assert many.failures == 0
    assert many.seed == 1


def test_variances_of_zero_are_exact():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    sds = fit.bootstrap(300, seed=1).estimates["sd_Batch[Intercept]"]
    share = stats.f.cdf(1, 5, 24)  # the estimate is zero where F is at most 1, and sigma is all
    assert abs((sds == 0).mean() - share) < 4 * np.sqrt(share * (1 - share) / 300)
    assert not ((sds > 0) & (sds < 1e-6)).any()


def test_fixed_effects_have_their_normal_distribution(sleep, many):
    """Balanced: the estimator of beta is least squares, whatever the variances."""
    z = (many.estimates[["Intercept", "Days"]] - sleep.fixef()) / sleep.se()
    assert stats.kstest(z["Intercept"], "norm").pvalue > 1e-3
    assert stats.kstest(z["Days"], "norm").pvalue > 1e-3
    expected = sleep.vcov().iloc[0, 1] / sleep.se().prod()
    assert np.corrcoef(z.T)[0, 1] == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize(
    ("data", "formula", "method"),
    [
        ("sleepstudy", SLEEP, "reml"),
        ("Dyestuff", "Yield ~ 1 + (1 | Batch)", "ml"),
        ("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)", "reml"),
    ],
)
def test_the_same_distribution_as_rows_that_are_fitted_one_by_one(data, formula, method):
    fit = rf.fit(formula, rf.load_dataset(data), method)
    found = fit.bootstrap(1000, seed=3).estimates
    loop = pd.DataFrame([again(fit, s).estimates() for s in seeds_of_replicates(4, 90)])
    assert list(found.columns) == list(loop.columns)
    for name in found.columns:
        one, other = found[name].dropna().round(6), loop[name].dropna().round(6)
        assert stats.ks_2samp(one, other).pvalue > 1e-3
        assert one.std() == pytest.approx(other.std(), rel=0.3)


def again(fit, seed):
    """Return the fit of a response that is simulated from a fit."""
    y = simulated_response(fit.fitted_model, seed)
    model = refitted(fit.fitted_model, fit.design.with_rows(y=y))
    return replace(fit, design=model.design, estimate=model.estimate)


def test_rows_are_drawn_from_the_fit(sleep):
    """The mean and the covariance of simulated rows are X beta and sigma^2 (I + Z LL'Z')."""
    y = np.array([simulated_response(sleep.fitted_model, s) for s in seeds_of_replicates(1, 3000)])
    design, n = sleep.design, len(sleep.design.rows.y)
    root = sleep.sigma * (sleep.Z() @ sleep.Lambda()).toarray()
    V = root @ root.T + sleep.sigma**2 * np.eye(n)
    left = y - design.rows.X @ sleep.fixef().to_numpy()
    variance = np.diag(V)
    assert np.abs(left.mean(axis=0) / np.sqrt(variance / 3000)).max() < 5
    spread = np.sqrt((np.outer(variance, variance) + V**2) / 3000)
    assert np.abs((left.T @ left / 3000 - V) / spread).max() < 6


def test_the_same_seed_whatever_n_and_workers(sleep, monkeypatch):
    monkeypatch.setattr(bootstrap, "BATCH_TOGETHER", 7)
    alone = sleep.bootstrap(20, seed=5)
    with ThreadPoolExecutor(2) as executor:
        together = sleep.bootstrap(20, seed=5, executor=executor)
    pd.testing.assert_frame_equal(alone.estimates, together.estimates, check_exact=True)
    pd.testing.assert_frame_equal(sleep.bootstrap(9, seed=5).estimates, alone.estimates[:9])
    assert (sleep.bootstrap(9, seed=6).estimates != alone.estimates[:9]).all(axis=None)
    free = sleep.bootstrap(5)
    pd.testing.assert_frame_equal(sleep.bootstrap(5, seed=free.seed).estimates, free.estimates)


def sd_ratio(fit):
    """Return a statistic that another process can find."""
    return fit.varcorr().sd["Subject"].iloc[0] / fit.sigma


def test_the_work_can_be_sent_to_other_processes(sleep):
    of_refit = partial(_numbers_of_refit, sd_ratio, ("statistic",))
    for task in (
        bootstrap._task(sleep.fitted_model, of_refit, all_parameters=True)[0],
        bootstrap._RowByRow(replace(sleep, engine=None), of_refit),
    ):
        sent = pickle.loads(pickle.dumps(task))
        seeds = seeds_of_replicates(1, 2)
        np.testing.assert_array_equal(sent(seeds)[0], task(seeds)[0])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"n": 0}, "`n` must be a positive whole number, got 0."),
        (
            {"n": 5, "seed": -1},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1.",
        ),
    ],
)
def test_counts_are_checked(sleep, options, text):
    with pytest.raises(FitError) as caught:
        sleep.bootstrap(**options)
    assert str(caught.value) == text


def test_a_mode_has_no_bootstrap():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "map")
    with pytest.raises(FitError) as caught:
        fit.bootstrap(5)
    assert str(caught.value) == (
        "a fit by method='map' has no parametric bootstrap, which is about the sampling "
        'distribution of estimates: use a fit by "reml" or "ml", or the posterior.'
    )


# ------------------------------------------------------------------- failures, other families


def test_failures_are_counted(sleep, monkeypatch):
    once, calls = bootstrap.refitted, []

    def sometimes(model, design):
        calls.append(1)
        return None if len(calls) in {2, 5} else once(model, design)

    monkeypatch.setattr(bootstrap, "refitted", sometimes)
    found = sleep.bootstrap(6, statistic=sd_ratio, seed=1)
    assert found.failures == 2
    assert found.estimates.index.tolist() == [0, 2, 3, 5]
    monkeypatch.setattr(bootstrap, "refitted", lambda *_: None)
    with pytest.raises(FitError) as caught:
        sleep.bootstrap(6, statistic=sd_ratio, seed=1)
    assert str(caught.value) == (
        "the model could not be fitted to any of 6 simulated responses, so that there is no "
        "bootstrap."
    )


@pytest.fixture(scope="module")
def herds():
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    return rf.fit(formula, rf.load_dataset("cbpp"), family="binomial")


def test_a_generalised_model(herds):
    found = herds.bootstrap(16, seed=1)
    assert list(found.estimates.columns) == list(herds.estimates().index)
    assert len(found.estimates) + found.failures == 16
    z = found.bias()[:4] / (found.se()[:4] / 4)
    assert np.abs(z).max() < 5
    np.testing.assert_allclose(found.se()[:4], herds.se(), rtol=0.6)
    with ThreadPoolExecutor(2) as executor:
        again = herds.bootstrap(2, seed=1, executor=executor)
    pd.testing.assert_frame_equal(again.estimates, found.estimates[found.estimates.index < 2])


def test_a_separated_replicate_is_a_failure():
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(range(8), 3), "x": rng.normal(size=24)})
    data["y"] = (data["x"] + rng.normal(size=24) > 0).astype(int)
    fit = rf.fit("y ~ x + (1 | g)", data, family="binomial")
    separated = fit.design.with_rows(y=(fit.design.rows.X[:, 1] > 0).astype(float))
    assert refitted(fit.fitted_model, separated) is None
    assert refitted(fit.fitted_model, fit.design.with_rows(y=np.zeros(24))) is None
    assert refitted(fit.fitted_model, fit.design).estimate.loglik == pytest.approx(
        fit.loglik, abs=1e-8
    )


def test_statistics_of_generalised_models(herds):
    formula = "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    null = rf.fit(formula, rf.load_dataset("cbpp"), family="binomial")
    found, failed = null_statistics(null.fitted_model, herds.design, 4, seed=1)
    assert (found[~failed] >= 0).all()
    assert 0.2 < np.nanmean(found) < 8  # about a chi-square of 3
    rest, _ = null_statistics(null.fitted_model, herds.design, 1, seed=1, first=3)
    np.testing.assert_allclose(rest, found[3:])
    i = int(np.flatnonzero(~failed)[0])
    y = simulated_response(null.fitted_model, seeds_of_replicates(1, 1, first=i)[0])
    both = [refitted(f.fitted_model, f.design.with_rows(y=y)) for f in (null, herds)]
    assert found[i] == pytest.approx(2 * (both[1].estimate.loglik - both[0].estimate.loglik))


def test_statistics_of_linear_models():
    frame = rf.load_dataset("sleepstudy")
    null = rf.fit("Reaction ~ Days + (1 | Subject)", frame)
    large = rf.Model(SLEEP, frame).design
    found, failed = null_statistics(null.fitted_model, large, 6, seed=2)
    assert not failed.any()
    models = rivals(null.design, large, null.estimate, reml=True)
    np.testing.assert_array_equal(found, likelihood_ratios(models, 6, seed=2)[0])
    with pytest.raises(FitError, match="`n` must be a positive whole number"):
        null_statistics(null.fitted_model, large, 0)
