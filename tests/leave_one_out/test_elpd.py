"""Importance-weighted scores against a conjugate model, and what ArviZ makes of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.leave_one_out.elpd import Scores, Units, smoothed_scores, to_arviz, units_of

Y = np.array([0.3, -1.1, 2.4, 0.7, -0.2, 1.9, 0.1, -0.8])
TAU = 2.0  # y_i ~ N(mu, 1), mu ~ N(0, TAU^2)


def posterior(y):
    """Return mean and variance of mu."""
    precision = len(y) + TAU**-2
    return y.sum() / precision, 1 / precision


def predictive(y, y_new):
    mean, variance = posterior(y)
    return stats.norm(mean, np.sqrt(1 + variance)).logpdf(y_new)


EXACT = np.array([predictive(np.delete(Y, i), y) for i, y in enumerate(Y)])


def conjugate(draws, seed):
    """Return log p(y_i | mu) at draws of mu, for every i."""
    mean, variance = posterior(Y)
    mu = np.random.default_rng(seed).normal(mean, np.sqrt(variance), draws)
    return stats.norm(mu[:, None], 1).logpdf(Y)


def scores(labels, *, khat=None, factor="Subject", seed=0):
    U, rng = len(labels), np.random.default_rng(seed)
    elpd = 5 * rng.normal(size=U) - 20
    khat = np.full(U, np.nan) if khat is None else khat
    unit = "observation" if factor is None else "group"
    mcse, repaired = np.full(U, 0.01), np.zeros(U, dtype=bool)
    return Scores(unit, factor, labels, elpd, elpd + 0.1, khat, mcse, repaired, 4000, "in words")


# ------------------------------------------------------------------------ importance sampling


def test_scores_of_a_conjugate_model():
    log_p = conjugate(20_000, 1)
    elpd, lpd, khat, mcse = smoothed_scores(log_p)
    assert (np.abs(elpd - EXACT) < 4 * mcse).all()
    assert elpd.sum() == pytest.approx(EXACT.sum(), abs=0.03)
    mean, variance = posterior(Y)
    within = stats.norm(mean, np.sqrt(1 + variance)).logpdf(Y)
    p = np.exp(log_p)
    assert (np.abs(lpd - within) < 4 * p.std(axis=0) / p.mean(axis=0) / np.sqrt(20_000)).all()
    assert (khat < 0.5).all()
    assert (mcse < 0.01).all()


def test_the_error_is_that_of_replicates():
    found = [smoothed_scores(conjugate(400, seed)) for seed in range(100)]
    spread = np.std([elpd for elpd, *_ in found], axis=0)
    claimed = np.sqrt(np.mean([mcse**2 for *_, mcse in found], axis=0))
    np.testing.assert_allclose(claimed, spread, rtol=0.3)


def test_fewer_effective_draws_make_the_error_larger():
    log_p = conjugate(2000, 3)
    whole, half = smoothed_scores(log_p), smoothed_scores(log_p, np.full(8, 0.25))
    np.testing.assert_allclose(half[3], 2 * whole[3], rtol=0.1)


def test_heavy_weights_have_a_large_khat():
    """Pareto distributed ratios 1 / p of a known shape."""
    u = np.random.default_rng(4).uniform(size=(20_000, 2))
    _, _, khat, _ = smoothed_scores(np.log(u) * np.array([0.3, 0.9]))
    np.testing.assert_allclose(khat, [0.3, 0.9], atol=0.1)


def test_nothing_to_be_weighted():
    elpd, lpd, khat, mcse = smoothed_scores(np.full((50, 2), -3.0))
    assert np.isnan(khat).all()
    assert elpd.tolist() == lpd.tolist() == [-3, -3]
    assert mcse.tolist() == [0, 0]


def test_what_cannot_be_trusted_has_an_infinite_khat():
    log_p = conjugate(100, 5)[:, :2]
    log_p[7, 0] = np.nan
    elpd, _, khat, _ = smoothed_scores(log_p)
    assert np.isnan(elpd[0])
    assert khat[0] == np.inf
    assert np.isfinite(elpd[1])
    few = smoothed_scores(conjugate(20, 6))
    assert (few[2] == np.inf).all()
    assert (np.abs(few[0] - EXACT) < 1).all()
    tied = np.where(np.arange(1000) % 2, -1.0, -2.0)[:, None]
    elpd, _, khat, _ = smoothed_scores(tied)
    assert khat[0] == np.inf
    assert elpd[0] == pytest.approx(-np.log(np.exp([1.0, 2.0]).mean()))


def test_no_units():
    assert [part.shape for part in smoothed_scores(np.empty((100, 0)))] == [(0,)] * 4


# ---------------------------------------------------------------------------------- the records


def test_sums():
    found = scores(pd.Index(range(30)))
    assert found.total == pytest.approx(found.elpd.sum())
    assert found.se == pytest.approx(stats.tstd(found.elpd) * np.sqrt(30))
    assert found.p_loo == pytest.approx(3.0)
    assert found.error == pytest.approx(0.01 * np.sqrt(30))


def test_units():
    rows = Units("observation", None, None, pd.Index(["a", "b", "c"]))
    assert (rows.size, rows.name(1), rows.rows(2).tolist()) == (3, "row `b`", [2])
    groups = Units("group", "g", np.array([1, 0, 1]), pd.Index([10, 20]))
    assert (groups.size, groups.name(1)) == (2, "level `20` of `g`")
    assert groups.rows(1).tolist() == [0, 2]


# ----------------------------------------------------------------------------------------- ArviZ

LABELS = {
    "numbers": pd.Index(range(18)),
    "text": pd.Index(list("abcdefghijklmnopqr"), name="other"),
    "several parts": pd.MultiIndex.from_product([[1, 2, 3], list("abcdef")]),
    "twice the same": pd.Index([1, 2] * 9),
    "mixed": pd.Index([1, "a"] * 9, dtype=object),
    "intervals": pd.interval_range(0, 18),
    "times": pd.date_range("2020-01-01", periods=18),
    "categories": pd.CategoricalIndex(list("abcdefghijklmnopqr")),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_arviz_compares_and_draws(labels):
    import arviz as az

    khat = np.linspace(0.1, 0.65, 18)
    khat[3:5] = np.nan
    first, second = to_arviz(scores(labels)), to_arviz(scores(labels, khat=khat, seed=1))
    table = az.compare({"first": first, "second": second}, round_to="none")
    expected = scores(labels).elpd - scores(labels, seed=1).elpd
    assert abs(table["elpd_diff"].min()) == pytest.approx(abs(expected.sum()))
    assert table.loc["first", "elpd"] == pytest.approx(scores(labels).total)
    assert (table["diag_elpd"] == "").all()
    assert [first.elpd_i.dims, second.pareto_k.dims] == [("Subject",)] * 2
    assert list(first.elpd_i.coords["Subject"].to_index()) == list(labels)
    np.testing.assert_array_equal(second.pareto_k, khat)
    assert first.pareto_k is None
    az.plot_khat(second)
    az.plot_compare(table)


def test_what_arviz_prints():
    found = to_arviz(scores(pd.Index(range(18)), factor=None))
    assert found.elpd_i.dims == ("obs",)
    text = str(found)
    assert "4000 posterior samples and 18 observations" in text
    assert f"{scores(range(18)).total:.2f}" in text
    assert "1.80" in text
    assert not found.warning
    assert to_arviz(scores(pd.Index([1, 2]), khat=np.array([0.1, 0.9]))).warning


P = rf.priors


@cache
def dyestuff(method="quadrature", **priors):
    """Return a fit of six batches of five."""
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), priors=dict(priors))
    return model.fit(method, seed=1)


@cache
def pastes():
    """Return the design of casks in batches."""
    return rf.Model("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes")).design


@cache
def mean():
    """Return the design of a model without groups."""
    return rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff")).design


def test_rows():
    units = units_of(pastes(), "observation", None)
    assert (units.unit, units.factor, units.codes, units.size) == ("observation", None, None, 60)


def test_the_only_factor():
    units = units_of(dyestuff().design, "group", None)
    assert units.factor == "Batch"
    assert list(units.labels) == list("ABCDEF")


@pytest.mark.parametrize(("name", "size"), [("batch", 10), ("cask:batch", 30)])
def test_a_named_factor(name, size):
    assert units_of(pastes(), "group", name).size == size


def test_a_column_that_is_a_predictor():
    cake = rf.load_dataset("cake")
    design = rf.Model("angle ~ recipe + (1 | replicate)", cake).design
    units = units_of(design, "group", "recipe")
    assert (units.factor, list(units.labels)) == ("recipe", ["A", "B", "C"])
    np.testing.assert_array_equal(units.codes, cake["recipe"].cat.codes)


def test_labels():
    data = rf.load_dataset("Dyestuff")
    for labels in (data["Batch"], data["Batch"].to_numpy(), data["Batch"].tolist()):
        units = units_of(mean(), "group", labels)
        np.testing.assert_array_equal(units.codes, np.repeat(np.arange(6), 5))
    assert units_of(mean(), "group", data["Batch"]).factor == "Batch"
    longer = pd.concat([data["Batch"], pd.Series(["Z"], index=[99])])[::-1]  # found by its index
    assert units_of(mean(), "group", longer).size == 6


@pytest.mark.parametrize(
    ("design", "unit", "group", "error", "text"),
    [
        (
            pastes,
            "groups",
            None,
            rf.FitError,
            "unit='groups' does not exist. Did you mean `group`?",
        ),
        (
            pastes,
            "observation",
            "batch",
            rf.FitError,
            '`group` is for unit="group"; unit="observation" leaves out single rows.',
        ),
        (
            pastes,
            "group",
            None,
            rf.FitError,
            (
                "the model has the grouping factors `cask:batch` and `batch`: name the one whose "
                "levels are to be left out, `group=`."
            ),
        ),
        (
            pastes,
            "group",
            "btch",
            rf.FitError,
            (
                "the model has no grouping factor 'btch'. Did you mean `batch`? Of what the model "
                "does not use, give the labels of the rows: group=data['btch']."
            ),
        ),
        (
            mean,
            "group",
            None,
            rf.FitError,
            (
                "the model has no grouping factor: give the labels of the rows' groups as an "
                "array, `group=`."
            ),
        ),
        (
            mean,
            "group",
            "Batch",
            rf.FitError,
            (
                "the model has no grouping factor 'Batch'. It has none. Of what the model does not "
                "use, give the labels of the rows: group=data['Batch']."
            ),
        ),
        (
            mean,
            "group",
            [1, 2],
            rf.DataError,
            "`group` has shape (2,), expected (30,), one label a row of the fit.",
        ),
        (
            mean,
            "group",
            np.ones((30, 2)),
            rf.DataError,
            "`group` has shape (30, 2), expected (30,), one label a row of the fit.",
        ),
        (
            mean,
            "group",
            [None, *range(29)],
            rf.DataError,
            "`group` has 1 missing labels.",
        ),
        (
            mean,
            "group",
            ["A"] * 30,
            rf.DataError,
            "`group` has one group only, `A`: without it no row is left to predict it from.",
        ),
        (
            mean,
            "group",
            pd.Series(["A", "B"], index=["x", "y"]),
            rf.DataError,
            (
                "the index of `group` is not that of the data: pass a plain array of 30 "
                "labels, one a row of the fit."
            ),
        ),
    ],
)
def test_what_cannot_be_left_out(design, unit, group, error, text):
    with pytest.raises(error) as caught:
        units_of(design(), unit, group)
    assert str(caught.value) == text


def test_errors_of_an_approximation_add_up():
    plain = scores(pd.Index(list("abcde")))
    both = replace(plain, bias=np.full(5, -0.2))
    assert both.error == pytest.approx(np.hypot(plain.error, 1.0))
