"""Responses drawn for new rows, and refits of other responses, against fits from the beginning."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import DataError
from ranef.fits.anew import simulated_rows

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep):
    return rf.fit(SLEEP, sleep)


@pytest.fixture(scope="module")
def new_data():
    return pd.DataFrame({"Days": [0, 9, 9, 4], "Subject": ["308", "308", "309", "new"]})


def test_new_groups_have_the_covariance_of_the_model(fit, new_data):
    y = fit.simulate(40_000, seed=1, new_data=new_data)
    Z = np.column_stack([np.ones(4), new_data["Days"]])
    V = Z @ fit.varcorr().cov["Subject"].to_numpy() @ Z.T
    levels = new_data["Subject"].to_numpy()
    V = V * (levels[:, None] == levels) + fit.sigma**2 * np.eye(4)
    sd = np.sqrt(np.diag(V))
    assert np.abs((y.mean(axis=1) - Z @ fit.fixef()) / sd).max() < 4.5 / 200
    np.testing.assert_allclose(np.cov(y) / np.outer(sd, sd), V / np.outer(sd, sd), atol=0.025)


def test_known_and_typical_groups_have_their_means(fit, new_data):
    known = new_data.iloc[:3]
    for groups in ("known", "population"):
        y = fit.simulate(4000, seed=2, groups=groups, new_data=known)
        z = (y.mean(axis=1) - fit.predict(known, groups)) / (fit.sigma / np.sqrt(4000))
        assert np.abs(z).max() < 4
        np.testing.assert_allclose(np.corrcoef(y) - np.eye(3), 0, atol=0.07)
    typical = fit.simulate(4000, seed=2, groups="population")
    assert abs(np.corrcoef(typical[:2])[0, 1]) < 0.07


def test_a_missing_value_and_weights_of_new_rows(fit):
    with pytest.warns(rf.RanefWarning, match="nan is predicted for 1 of 3 rows"):
        y = fit.simulate(
            4000,
            seed=1,
            groups="population",
            new_data={"Days": [1, np.nan, 1]},
            weights=[1.0, 1.0, 16.0],
        )
    assert np.isnan(y[1]).all()
    np.testing.assert_allclose(y[[0, 2]].std(axis=1), [fit.sigma, fit.sigma / 4], rtol=0.05)


def test_trials_of_new_rows():
    data = rf.load_dataset("cbpp")
    fit = rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", data, family="binomial"
    )
    y = fit.simulate(4000, seed=1, new_data=data, weights="size")
    counts = y * data["size"].to_numpy()[:, None]
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-9)
    mean = fit.predict(data, "average")
    assert np.abs(y.mean(axis=1) - mean).max() < 0.03
    assert set(np.unique(fit.simulate(50, seed=1, new_data=data))) == {0.0, 1.0}


def test_a_posterior_draws_its_parameters(sleep, new_data):
    post = rf.fit(SLEEP, sleep, "quadrature", draws=2000, seed=1)
    y = post.simulate(2000, seed=3, new_data=new_data)
    interval = post.predict(new_data.iloc[[3]], "new", prob=0.95, interval="prediction")
    assert y[3].std() == pytest.approx(interval["sd"].item(), rel=0.1)
    np.testing.assert_array_equal(y, post.simulate(2000, seed=3, new_data=new_data))


@pytest.mark.parametrize("method", ["reml", "ml", "map", "quadrature"])
def test_a_refit_is_the_fit_of_that_response(fit, sleep, method):
    y = fit.simulate(seed=5)
    options = {"draws": 200, "seed": 2} if method == "quadrature" else {}
    first = rf.fit(SLEEP, sleep, method, **options)
    again = first.refit(y)
    written = rf.fit(SLEEP, sleep.assign(Reaction=y[:, 0]), method, **options)
    pd.testing.assert_series_equal(again.estimates(), written.estimates(), rtol=1e-6)
    assert again.options == first.options == options
    np.testing.assert_array_equal(first.design.rows.y, sleep["Reaction"])


def test_a_refit_is_that_of_the_bootstrap(fit):
    y = fit.simulate(seed=8)
    rows = rf.anova(
        fit.update(". ~ . - Days", method="ml").refit(y),
        fit.update(method="ml").refit(y),
        test="chi2",
    )
    assert rows.to_frame()["statistic"].iloc[-1] >= 0


def test_a_computed_response_keeps_its_scale(sleep):
    fit = rf.fit("log(Reaction) ~ Days + (1 | Subject)", sleep)
    y = fit.simulate(seed=1)[:, 0]
    written = rf.fit("y ~ Days + (1 | Subject)", sleep.assign(y=y))
    again = fit.refit(y)
    assert again.objective == pytest.approx(written.objective, abs=1e-8)
    assert again.design.response == "log(Reaction)"


def test_labels_become_zeros_and_ones():
    data = rf.load_dataset("Contraception").iloc[:400]
    fit = rf.fit("use ~ age + (1 | district)", data, family="binomial", n_agq=3)
    again = fit.refit(fit.simulate(seed=1))
    assert again.estimate.n_agq == 3
    assert (again.design.success, set(again.design.rows.y)) == ("", {0.0, 1.0})


def test_a_series_goes_by_its_labels(fit, sleep):
    y = pd.Series(fit.simulate(seed=5)[:, 0], sleep.index)
    shuffled = pd.concat([y, pd.Series([1.0], [999])]).sample(frac=1, random_state=1)
    assert fit.refit(shuffled).objective == fit.refit(y).objective


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.ones(3), r"the new response has shape \(3,\), expected \(180,\)"),
        (["a"] * 180, "the new response is not numeric"),
        (np.r_[np.nan, np.ones(179)], "missing or infinite in 1 of 180 rows: `0`"),
        (np.ma.array(range(180), mask=[True] + [False] * 179), "missing or infinite in 1 of 180"),
        (pd.Series(np.ones(180), range(5, 185)), "without `0`, `1`, `2`, `3` and `4`"),
        (np.ones(180), "the response `Reaction` is constant"),
    ],
)
def test_what_is_no_response_is_said(fit, y, said):
    with pytest.raises(DataError, match=said):
        fit.refit(y)


def test_counts_are_counts():
    data = rf.load_dataset("cbpp")
    fit = rf.fit("incidence ~ period + (1 | herd)", data, family="poisson")
    with pytest.raises(DataError, match="`incidence` is not a whole number"):
        fit.refit(np.full(56, 0.5))


# ---------------------------------------------------------------------------------------- the rows


@pytest.fixture(scope="module")
def design():
    return rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).design


def test_levels_are_told_apart_whether_or_not_they_are_known(design):
    rows = simulated_rows(design, {"Batch": ["B", "X", "A", "X", "Y"]}, "new")
    (term,) = rows.terms
    assert term.is_new.all()
    numbers = term.grouping.numbers
    assert len(set(numbers)) == 4
    assert numbers[1] == numbers[3]
    assert numbers.min() >= term.n_levels


def test_typical_groups_need_no_column(design):
    assert simulated_rows(design, {"other": [1, 2]}, "population").terms == ()
    assert len(simulated_rows(design, None, "known").terms) == 1


@pytest.mark.parametrize(
    ("new_data", "groups", "weights", "said"),
    [
        ({"Batch": ["Z"]}, "known", None, "1 row has a level of `Batch` that the model has not"),
        (None, "new", [1.0], "weights= are those of new rows"),
        ({"Batch": ["A", "B"]}, "new", [1.0, 0.0], "positive and finite; they are not in rows `1`"),
        ({"Batch": ["A", "B"]}, "new", [1.0], r"weights= has shape \(1,\), expected \(2,\)"),
        ({"Batch": ["A", "B"]}, "new", "w", "weights='w' is not a column of the data"),
    ],
)
def test_what_cannot_be_drawn_for_is_said(design, new_data, groups, weights, said):
    with pytest.raises(DataError, match=said):
        simulated_rows(design, new_data, groups, weights)


def test_weights_follow_complete_rows():
    model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"))
    with pytest.warns(rf.RanefWarning):
        rows = simulated_rows(model.design, {"Days": [np.nan, 1.0]}, "population", [3.0, 4.0])
    assert rows.weights.tolist() == [4.0]
