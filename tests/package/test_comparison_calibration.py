"""Probabilities of models against how often they are true, and tests against their size."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from calibration import holm, simulate
from comparison_calibration import (
    HYPOTHESES,
    RIVALS,
    bootstrapped,
    calibration_tests,
    covered,
    forecasts,
    hosmer_lemeshow,
    in_parts,
    intervals,
    log_evidence,
    miscalibration,
    p_values,
    rejections,
    uniform,
)
from scipy import optimize, stats

import ranef as rf
from ranef.likelihood.bootstrap import refits
from ranef.likelihood.bootstrap.simulated_responses import null_of

LEVEL = 0.01  # of all tests of a study together
RESPONSES = 2000
COARSE = 1e-3  # an error of log p(y) that no number of responses would show
EXACT = ["f", "exact", "bootstrap"]


# ------------------------------------------------------------------ the tests of probabilities


def events(seed, n, *, twisted=lambda logit: logit):
    """Return probabilities that are said, and events that happen with others."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(size=n) * 1.5
    return 1 / (1 + np.exp(-twisted(logit))), rng.uniform(size=n) < 1 / (1 + np.exp(-logit))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_miscalibration_is_that_of_the_best_increasing_function(seed):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.uniform(size=9)), rng.integers(2, size=9).astype(float)
    means = np.array([[y[a : b + 1].mean() if a <= b else 0 for b in range(9)] for a in range(9)])
    best = [max(min(means[a, b] for b in range(i, 9)) for a in range(i + 1)) for i in range(9)]
    assert miscalibration(x, y) == pytest.approx(np.mean((y - x) ** 2) - np.mean((y - best) ** 2))


def test_groups_are_compared_by_chi_squared():
    x, y = np.linspace(0.1, 0.9, 20), np.tile([0.0, 1.0, 1.0, 0.0], 5)
    terms = [
        (y[i : i + 2].sum() - x[i : i + 2].sum()) ** 2 / sum(x[i : i + 2] * (1 - x[i : i + 2]))
        for i in range(0, 20, 2)
    ]
    assert hosmer_lemeshow(x, y) == pytest.approx(sum(terms))


def test_tests_of_probabilities_have_their_size():
    rng = np.random.default_rng(3)
    found = pd.DataFrame([calibration_tests(*events(seed, 200), rng, n=99) for seed in range(200)])
    assert found.columns.tolist() == ["prior", "mean", "spiegelhalter", "isotonic", "groups"]
    for name in found:
        assert np.mean(found[name] <= 0.1) == pytest.approx(0.1, abs=0.06), name


TWISTS = {
    "a Bayes factor twice as large": (lambda logit: logit + np.log(2), "mean"),
    "too sure": (lambda logit: 1.5 * logit, "spiegelhalter"),
    "the other model": (lambda logit: -logit, "isotonic"),
    "too sure, by the shape": (lambda logit: 1.5 * logit, "isotonic"),
    "too sure, in groups": (lambda logit: 1.5 * logit, "groups"),
}


@pytest.mark.parametrize("twist", TWISTS)
def test_tests_of_probabilities_find_mistakes(twist):
    twisted, test = TWISTS[twist]
    p, happened = events(4, 2000, twisted=twisted)
    assert calibration_tests(p, happened, np.random.default_rng(4))[test] < LEVEL / 5


def test_the_other_model_is_not_found_by_the_mean_alone():
    p, happened = events(4, 2000, twisted=lambda logit: -logit)
    assert calibration_tests(p, happened, np.random.default_rng(4), n=9)["prior"] > LEVEL


# --------------------------------------------------------------------- probabilities of models


def judged(found, factor=1.0):
    """Return p-values of all tests of all pairs of models, corrected for their number.

    Bayes factors are multiplied by a factor: a mistake.
    """
    rng, p_of = np.random.default_rng(0), {}
    for name, table in found.items():
        p = table["p"] * factor / (1 - table["p"] + table["p"] * factor)
        tests = calibration_tests(p.to_numpy(), table["second"].to_numpy(), rng, n=4999)
        p_of |= {(name, test): value for test, value in tests.items()}
    return holm(pd.Series(p_of))


@pytest.mark.parametrize("name", RIVALS)
def test_evidence_is_that_of_a_fit_to_the_rows(name):
    for structure in (RIVALS[name].first, RIVALS[name].second):
        y = simulate(structure, np.random.default_rng(5)).y
        fit = structure.model(y).fit("quadrature")
        value, error = log_evidence(structure, y)
        assert value == pytest.approx(fit.log_marginal_likelihood().value, abs=1e-6)
        assert error < 1e-5


def test_models_share_the_priors_of_what_they_share():
    for rivals in RIVALS.values():
        one, other = (m.truth.prior_table() for m in (rivals.first, rivals.second))
        assert one["prior"].equals(other["prior"].loc[one.index])


def test_probabilities_of_models_come_true():
    found = {"": forecasts(RIVALS["no groups or intercepts"], 150, seed=6, tolerance=COARSE)}
    assert found[""]["error"].max() < 0.01
    assert judged(found).min() > LEVEL
    assert judged(found, factor=3).min() < LEVEL
    assert judged(found, factor=1 / 3).min() < LEVEL


@pytest.mark.slow
def test_probabilities_of_all_models_come_true():
    workers = os.cpu_count()
    found = {
        name: in_parts(partial(forecasts, own, tolerance=COARSE), RESPONSES, seed, workers=workers)
        for seed, (name, own) in enumerate(RIVALS.items(), start=70)
    }
    assert max(table["error"].max() for table in found.values()) < 0.01
    assert judged(found).min() > LEVEL, judged(found)
    for name, table in found.items():
        mistaken = judged({name: table}, factor=2)
        assert mistaken[name, "mean"] < LEVEL, mistaken


# ------------------------------------------------------------------------ the size of tests


def sizes(found):
    """Return p-values of all rejection rates and distributions, corrected for their number.

    A bootstrap is uniform only where its null distribution depends on no variance.
    """
    p_of, rng = {}, np.random.default_rng(0)
    for (name, replicates), table in found.items():
        rates = rejections(table)["p_value"]
        p_of |= {(name, test, "rate"): rates[test] for test in EXACT if test in rates}
        own = uniform(table, rng, replicates)
        for test, u in (own if "exact" in own else own[["f"]]).items():
            p_of[name, test, "uniform"] = stats.kstest(u, "uniform").pvalue
    return holm(pd.Series(p_of))


@pytest.mark.parametrize("name", HYPOTHESES)
def test_p_values_are_those_of_the_table_of_nested_models(name):
    hypothesis = HYPOTHESES[name]
    found = p_values(hypothesis, 4, 12, replicates=5)
    of_data, _, _ = np.random.SeedSequence(12).spawn(3)
    frame = hypothesis.data()
    for y, row in zip(
        hypothesis.simulate(4, np.random.default_rng(of_data)), found.itertuples(), strict=True
    ):
        fits = [rf.fit(text, frame.assign(y=y)) for text in (hypothesis.small, hypothesis.large)]
        for test in ("f", "mixture", "chi2", "exact")[: 4 if name == "intercepts" else 3]:
            seed = {"seed": 1} if test == "exact" else {}
            table = rf.anova(*fits, test=test, **seed).to_frame().loc[2]
            assert getattr(row, test) == pytest.approx(table["p_value"], abs=0.01), test
            near = pytest.approx(table["p_value"], rel=2e-3, abs=1e-5)
            assert test == "exact" or getattr(row, test) == near, test


def test_replicates_of_many_responses_are_those_of_each():
    hypothesis = HYPOTHESES["slopes"]
    models = hypothesis.rivals()
    frame, large = hypothesis.data(), hypothesis.designs[1]
    y = hypothesis.simulate(2, np.random.default_rng(13))
    fits = [rf.fit(hypothesis.small, frame.assign(y=own)) for own in y]
    found = bootstrapped(models, [null_of(fit.estimate) for fit in fits], 20, seed=14)
    for i, fit in enumerate(fits):
        other = large.with_rows(y=fit.design.rows.y)
        own = refits.rivals(fit.design, other, fit.estimate, reml=True)
        one, failed = refits.likelihood_ratios(own, 20, seed=14, first=20 * i)
        assert not failed.any()
        np.testing.assert_allclose(found[i], one, atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.1


@pytest.fixture(scope="module")
def few():
    """Return p-values of a few responses, by design and number of replicates."""
    return {
        ("intercepts", 39): p_values(HYPOTHESES["intercepts"], 300, 15, replicates=39),
        ("batches", 19): p_values(HYPOTHESES["batches"], 100, 16, replicates=19),
    }


def test_tests_have_their_size(few):
    assert not sum(table["failed"].sum() for table in few.values())
    assert sizes(few).min() > LEVEL, sizes(few)


WRONG = {
    "a tail too few": ("exact", lambda p: p / 2, "rate"),
    "too many degrees of freedom": ("f", lambda p: p**0.7, "uniform"),
    "half of the replicates": ("above", lambda count: count // 2, "uniform"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_sizes_are_found(mistake, few):
    column, wrong, what = WRONG[mistake]
    table, test = few["intercepts", 39], "bootstrap" if column == "above" else column
    found = sizes({("", 39): table.assign(**{column: wrong(table[column])})})
    assert found["", test, what] < LEVEL, found
    assert {place[1] for place in found.index[found < LEVEL]} == {test}, found


@pytest.mark.slow
def test_all_tests_have_their_size():
    workers = os.cpu_count()
    found = {
        (name, 199): in_parts(partial(p_values, own), RESPONSES, 17, workers=workers)
        for name, own in HYPOTHESES.items()
    }
    by_ml = partial(p_values, HYPOTHESES["intercepts"], replicates=19, reml=False)
    found["intercepts", 19] = in_parts(by_ml, RESPONSES, 18, workers=workers)
    assert not sum(table["failed"].sum() for table in found.values())
    assert sizes(found).min() > LEVEL, sizes(found)


# --------------------------------------------------------------------------------- intervals


def test_intervals_are_counted_where_they_lie():
    columns = pd.MultiIndex.from_product([["profile", "bootstrap"], ["lower", "upper"]])
    found = pd.DataFrame([[0, 1, 0, 2], [2, 3, 0, 2], [0, 3, 0, 2], [1, 2, 0, 2]], columns=columns)
    got = covered(found, 1.5)
    assert got.loc["profile"].tolist() == [0.25, 0.5, 0.25]
    assert got.loc["bootstrap"].tolist() == [0, 1, 0]


def smallest_deviance(frame, y, sds):
    """Return the deviance of `y ~ x + (1 | g)` by dense matrices, least over all but the sd."""
    X = np.column_stack([np.ones(len(frame)), frame["x"]])
    same = (frame["g"].to_numpy()[:, None] == frame["g"].to_numpy()).astype(float)

    def deviance(log_sigma, sd):
        V = np.exp(2 * log_sigma) * np.eye(len(y)) + sd**2 * same
        beta = np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.solve(V, y))
        left = y - X @ beta
        return np.linalg.slogdet(V)[1] + left @ np.linalg.solve(V, left)

    return [
        optimize.minimize_scalar(deviance, (-0.5, 0.5), args=(sd,)).fun for sd in np.atleast_1d(sds)
    ]


def test_profiles_cover_what_the_likelihood_ratio_does_not_reject():
    hypothesis, sd = replace(HYPOTHESES["intercepts"], sds={"g": 0.7}), 0.7
    found = intervals(HYPOTHESES["intercepts"], sd, 14, seed=3, replicates=49)["profile"]
    of_data, _ = np.random.SeedSequence(3).spawn(2)
    inside = (found["lower"] <= sd) & (sd <= found["upper"])
    y, frame = hypothesis.simulate(14, np.random.default_rng(of_data)), hypothesis.data()
    ratios = [
        smallest_deviance(frame, own, sd)[0]
        - min(smallest_deviance(frame, own, np.linspace(0, 3, 41)))
        for own in y
    ]
    assert inside.tolist() == [ratio <= stats.chi2.ppf(0.95, 1) for ratio in ratios]
    assert 0 < inside.sum() < 14


def test_parts_do_not_depend_on_the_number_of_processes():
    study = partial(p_values, HYPOTHESES["intercepts"], replicates=19)
    alone = in_parts(study, 6, 20, size=3)
    pd.testing.assert_frame_equal(alone, in_parts(study, 6, 20, size=3, workers=2))
    assert len(alone["f"].unique()) == 6
