"""Refits of many responses against fits of their own, and against exact distributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from designs import STRUCTURES, random_design
from scipy import stats

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.design.design import full_rank
from ranef.likelihood.bootstrap import many_responses, refits
from ranef.likelihood.bootstrap.refits import likelihood_ratios, refitter, rivals, start_near
from ranef.likelihood.bootstrap.simulated_responses import (
    Responses,
    null_of,
    responses,
    seeds_of_replicates,
    simulated,
    span,
    sums_of,
    with_response,
)
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.numerics.minimize_many import Minima

LOWER = 1e-9  # by rounding of a criterion


def simulated_from(design, n, seed, *, restricted):
    """Return a refitter of a design and responses that its own fit draws."""
    cross = cross_products(design)
    own = reml.estimate(cross, reml=restricted)
    columns = span(design)
    sums = simulated(columns, null_of(own), seeds_of_replicates(seed, n))
    drawn = responses(columns, sums, cross, beta=own.beta)
    return refitter(design, cross, own.theta, reml=restricted), drawn


def check(model, drawn, *, restricted):
    """Compare every replicate with a fit of its own; return how many are lower than that."""
    found, lower = model.refit(drawn), 0
    assert not found.failed.any()
    for i in range(len(drawn)):
        own = reml.estimate(with_response(model.cross, drawn, i), reml=restricted)
        assert found.objective[i] < own.objective + 1e-6
        if found.objective[i] < own.objective - 1e-6:
            lower += 1
            continue
        assert found.objective[i] > own.objective - LOWER * abs(own.objective)
        np.testing.assert_allclose(
            found.beta[i], own.beta, atol=1e-3 * np.sqrt(np.diag(own.vcov)).max(initial=1e-9)
        )
        assert found.sigma[i] == pytest.approx(own.sigma, rel=1e-4)
        Lambdas = factors(found.x[i], model.cross.covariances)
        for T, Lambda, other in zip(model.cross.bases, Lambdas, own.Lambdas, strict=True):
            one = np.linalg.solve(T, Lambda)
            np.testing.assert_allclose(one @ one.T, other @ other.T, rtol=0.02, atol=1e-3)
    return lower


FAST = [name for name in STRUCTURES if name not in ("all of it", "nested and crossed")]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("restricted", [True, False])
def test_refits_are_fits(name, restricted):
    model, drawn = simulated_from(
        random_design(STRUCTURES[name], 3), 3, seed=1, restricted=restricted
    )
    assert model.shared is not None
    assert check(model, drawn, restricted=restricted) <= 1


@pytest.mark.parametrize(
    ("data", "formula"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)"),
        ("sleepstudy", "Reaction ~ Days + (Days || Subject)"),
        ("Dyestuff2", "Yield ~ 1 + (1 | Batch)"),
        ("Pastes", "strength ~ 1 + (1 | batch) + (1 | sample)"),
        ("cake", "angle ~ recipe * temperature + (1 | recipe:replicate)"),
    ],
)
def test_refits_of_known_data(data, formula):
    design = full_rank(rf.Model(formula, rf.load_dataset(data)).design)
    model, drawn = simulated_from(design, 8, seed=2, restricted=True)
    assert check(model, drawn, restricted=True) == 0


def test_the_data_themselves():
    design = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy")).design
    cross = cross_products(design)
    own = responses(span(design), sums_of(span(design), design.rows.y[None]), cross)
    found = refitter(design, cross, np.array([0.1, 0.0, 0.0]), reml=True).refit(own)
    assert found.objective[0] == pytest.approx(1743.6282719, abs=1e-6)
    np.testing.assert_allclose(found.beta[0], [251.40510485, 10.46728596], rtol=1e-8)
    assert found.sigma[0] == pytest.approx(25.591796, abs=1e-4)


@pytest.mark.parametrize("name", ["crossed slopes", "nested", "no random effects"])
def test_one_by_one_is_the_same(name, monkeypatch):
    monkeypatch.setattr(many_responses, "MAX_DENSE", -1)
    model, drawn = simulated_from(random_design(STRUCTURES[name], 3), 4, seed=1, restricted=True)
    assert model.shared is None
    assert check(model, drawn, restricted=True) == 0


def test_what_does_not_settle_is_fitted_on_its_own(monkeypatch):
    design = random_design(STRUCTURES["correlated slope"], 3)
    model, drawn = simulated_from(design, 5, seed=1, restricted=True)
    minimized = refits.minimized

    def lost(objective, start):
        found = minimized(objective, start)
        settled = found.settled.copy()
        settled[1:3] = False
        return Minima(np.where(settled[:, None], found.x, 9.0), found.value, settled)

    monkeypatch.setattr(refits, "minimized", lost)
    assert check(model, drawn, restricted=True) == 0


def test_a_response_without_variation_fails_alone():
    design = random_design(STRUCTURES["one factor"], 3)
    model, drawn = simulated_from(design, 3, seed=1, restricted=True)
    gone = np.array([1.0, 0.0, 1.0])
    sums = tuple(one * gone[:, None, None] for one in drawn.sums)
    found = model.refit(Responses(sums, drawn.squares * gone, drawn.beta_ols))
    assert found.failed.tolist() == [False, True, False]
    assert np.isnan(found.objective[1])
    assert np.isnan(found.beta[1]).all()
    assert np.isnan(found.sigma[1])
    assert np.isnan(found.x[1]).all()
    np.testing.assert_allclose(found.objective[[0, 2]], model.refit(drawn).objective[[0, 2]])


def test_a_start_is_away_from_zero():
    cross = cross_products(
        rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy")).design
    )
    assert np.abs(start_near(cross, np.zeros(3))[[0, 2]]).min() == refits.MIN_SD_OF_START
    theta = np.array([0.9, 0.1, 0.2])
    np.testing.assert_allclose(start_near(cross, theta), reml.basis_theta(cross, theta))


def test_zeros_are_exact():
    data = rf.load_dataset("Dyestuff2")
    design = rf.Model("Yield ~ 1 + (1 | Batch)", data).design
    model, drawn = simulated_from(design, 400, seed=1, restricted=True)
    found = model.refit(drawn)
    assert 0.45 < (found.x == 0).mean() < 0.75
    assert not ((found.x != 0) & (np.abs(found.x) < 1e-3)).any()


def test_chunks_do_not_matter(monkeypatch):
    design = random_design(STRUCTURES["nested"], 3)
    model, drawn = simulated_from(design, 40, seed=1, restricted=True)
    whole = model.refit(drawn)
    monkeypatch.setattr(many_responses, "CHUNK", 1)
    assert model.shared.step == 16
    parts = model.refit(drawn)
    np.testing.assert_allclose(parts.objective, whole.objective, rtol=1e-10)
    np.testing.assert_allclose(parts.beta, whole.beta, rtol=1e-5)


# ----------------------------------------------------------------- likelihood-ratio statistics


def pair(data, small, large, method):
    """Return the rivals of two formulas, and the observed statistic."""
    frame = rf.load_dataset(data)
    fits = [rf.fit(formula, frame, method) for formula in (small, large)]
    statistic = fits[0].objective - fits[1].objective
    models = rivals(fits[0].design, fits[1].design, fits[0].estimate, reml=method == "reml")
    return models, statistic


PASTES = "strength ~ 1 + (1 | sample)", "strength ~ 1 + (1 | batch) + (1 | sample)"
SLEEP = (
    "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)",
    "Reaction ~ Days + (Days | Subject)",
)


@pytest.mark.parametrize(
    ("data", "formulas", "method"),
    [
        ("Pastes", PASTES, "reml"),
        ("sleepstudy", SLEEP, "ml"),
        ("sleepstudy", ("Reaction ~ 1 + (Days | Subject)", SLEEP[1]), "ml"),
        ("sleepstudy", ("Reaction ~ Days", SLEEP[1]), "reml"),
        ("Penicillin", ("diameter ~ (1 | plate)", "diameter ~ (1 | plate) + (1 | sample)"), "ml"),
    ],
)
def test_statistics_are_those_of_separate_fits(data, formulas, method):
    models, _ = pair(data, *formulas, method)
    found, failed = likelihood_ratios(models, 5, seed=3)
    assert not failed.any()
    sums = simulated(models.columns, models.null, seeds_of_replicates(3, 5))
    for i in range(5):
        small, large = (
            reml.estimate(
                with_response(one.cross, responses(models.columns, sums, one.cross, m), i),
                reml=method == "reml",
            ).objective
            for m, one in enumerate((models.small, models.large))
        )
        assert found[i] == pytest.approx(max(small - large, 0.0), abs=1e-6)


@pytest.mark.parametrize(
    ("method", "zero"),
    [("ml", stats.f.cdf(10 / 9, 9, 20)), ("reml", stats.f.cdf(1, 9, 20))],
)
def test_share_of_zeros_of_a_balanced_design(method, zero):
    """Of 10 batches with 3 casks each the variance of batches is zero as F is small."""
    models, statistic = pair("Pastes", *PASTES, method)
    n = 1500
    found, failed = likelihood_ratios(models, n, seed=1)
    assert not failed.any()
    assert abs((found == 0).mean() - zero) < 4 * np.sqrt(zero * (1 - zero) / n)
    p = {"ml": 0.1935, "reml": 0.1963}[method]  # of 100,000 and 20,000 simulations
    assert abs((found >= statistic).mean() - p) < 4 * np.sqrt(p * (1 - p) / n)


def test_exact_distribution_of_a_one_way_layout():
    """RLRT is a function of F: Crainiceanu and Ruppert (2004), section 5."""
    models, statistic = pair("Dyestuff", "Yield ~ 1", "Yield ~ 1 + (1 | Batch)", "reml")
    assert statistic == pytest.approx(6.368955, abs=1e-6)
    found, _ = likelihood_ratios(models, 4000, seed=4)
    m, rest = 6, 24

    def statistic_of(F):
        """Return RLRT at an F above 1, by its closed form in a balanced one-way layout."""
        nu = m - 1 + rest
        left = (rest + (m - 1) * F) / nu
        return nu * np.log(left) - (m - 1) * np.log(F)

    levels = np.array([1.5, 2.0, 3.0, 4.598266190719])
    assert statistic_of(levels[-1]) == pytest.approx(statistic, abs=1e-6)
    for F in levels:
        p = stats.f.sf(F, m - 1, rest)
        share = (found >= statistic_of(F) - 1e-9).mean()
        assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / 4000)
    zero = stats.f.cdf(1, m - 1, rest)
    assert abs((found == 0).mean() - zero) < 4 * np.sqrt(zero * (1 - zero) / 4000)


def test_a_correlation_against_lme4():
    """2,000 simulations with lme4: p 0.8166, quantiles .5, .75, .9."""
    models, statistic = pair("sleepstudy", *SLEEP, "ml")
    assert statistic == pytest.approx(0.0639106556, abs=1e-6)
    found, _ = likelihood_ratios(models, 2000, seed=1)
    p = (1 + (found >= statistic).sum()) / 2001
    assert abs(p - 0.8165917) < 4 * np.sqrt(2) * 0.00866
    for share, quantile in ((0.5, 0.543784), (0.25, 1.498123), (0.1, 2.995726)):
        z = ((found > quantile).mean() - share) / np.sqrt(share * (1 - share) / 1000)
        assert abs(z) < 4


def test_a_sequence_goes_on_where_it_ended():
    models, _ = pair("sleepstudy", *SLEEP, "ml")
    whole, _ = likelihood_ratios(models, 12, seed=5)
    start, _ = likelihood_ratios(models, 5, seed=5)
    rest, _ = likelihood_ratios(models, 7, seed=5, first=5)
    np.testing.assert_allclose(np.concatenate([start, rest]), whole, atol=1e-8)
    other, _ = likelihood_ratios(models, 12, seed=6)
    assert np.abs(other - whole).min() > 0


def test_statistics_do_not_depend_on_units():
    frame = rf.load_dataset("sleepstudy")
    frame["Hours"], frame["y"] = 24 * frame["Days"] + 100, frame["Reaction"] / 7 - 3
    found = []
    for x, y in (("Days", "Reaction"), ("Hours", "y")):
        null = rf.fit(f"{y} ~ {x} + (1 | Subject)", frame)
        large = rf.Model(f"{y} ~ {x} + ({x} | Subject)", frame).design
        models = rivals(null.design, large, null.estimate, reml=True)
        found.append(likelihood_ratios(models, 300, seed=1)[0])
    assert stats.ks_2samp(*found).pvalue > 1e-3
    assert abs((found[0] == 0).mean() - (found[1] == 0).mean()) < 0.15


def test_restricted_likelihoods_of_one_space_in_two_codings():
    frame = rf.load_dataset("sleepstudy")
    frame["Hours"] = 24 * frame["Days"] + 100
    null = rf.fit("Reaction ~ Days + (1 | Subject)", frame)
    found = [
        likelihood_ratios(
            rivals(null.design, rf.Model(formula, frame).design, null.estimate, reml=True), 20, 1
        )[0]
        for formula in ("Reaction ~ Days + (Days | Subject)", "Reaction ~ Hours + (Days | Subject)")
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_a_negative_statistic_is_fitted_again(monkeypatch):
    models, _ = pair("sleepstudy", *SLEEP, "ml")
    expected, _ = likelihood_ratios(models, 4, seed=1)
    once, asked = refits.Refitter.refit, []

    def poor(self, drawn):
        found = once(self, drawn)
        return replace(found, objective=found.objective + 1e3 * (self is models.large))

    again = refits.Refitter.again

    def counted(self, drawn, which):
        asked.append(len(which))
        return again(self, drawn, which)

    monkeypatch.setattr(refits.Refitter, "refit", poor)
    monkeypatch.setattr(refits.Refitter, "again", counted)
    found, _ = likelihood_ratios(models, 4, seed=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert asked == [4, 4]


def test_failures_are_missing(monkeypatch):
    models, _ = pair("sleepstudy", *SLEEP, "ml")
    once = refits.Refitter.refit

    def without_second(self, drawn):
        found = once(self, drawn)
        value = found.objective.copy()
        value[1] = np.nan
        return replace(found, objective=value)

    monkeypatch.setattr(refits.Refitter, "refit", without_second)
    statistics, failed = likelihood_ratios(models, 3, seed=1)
    assert failed.tolist() == [False, True, False]
    assert np.isnan(statistics).tolist() == [False, True, False]
