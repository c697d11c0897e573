"""Leave-one-out of linear models against refits, printed values and identities."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from density_cases import SLEEP_PRIORS
from designs import random_frame
from marginal_cases import target_of

import ranef as rf
from ranef.design.design import build_design, leaving_out
from ranef.errors import FitError
from ranef.formula.terms import read_formula
from ranef.leave_one_out import gaussian_loo
from ranef.leave_one_out.elpd import Units, efficiency
from ranef.leave_one_out.gaussian_loo import (
    bridged,
    exact_scores,
    linear_scores,
    target_without,
)
from ranef.posterior.laplace import approximate
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    Constant,
    Flat,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
)

SLEEP = rf.load_dataset("sleepstudy")
# random part -> the sum of elpd over subjects and its standard error, by an independent program
PRINTED = {
    "": (-958.85483, 24.0),
    " + (1 | Subject)": (-904.54370, 20.0),
    " + (Days || Subject)": (-885.04722, 25.7),
    " + (Days | Subject)": (-885.87635, 25.6),
}


def rng(seed=1):
    return np.random.default_rng(seed)


class Case:
    """A model, its posterior by quadrature, and refits without some rows."""

    def __init__(self, formula, data, priors, weights=None):
        self.formula, self.data, self.setting, self.weights = formula, data, priors, weights
        self.design, self.priors, self.target = self.parts(data)
        self.exact = Exact.of(self.target)

    def parts(self, data):
        design = build_design(read_formula(self.formula), data, weights=self.weights)
        priors = resolve(design, self.setting)
        return design, priors, target_of(design, priors)

    def units(self, factor):
        if factor is None:
            return Units("observation", None, None, self.design.rows.index)
        codes, levels = pd.factorize(self.data[factor], sort=True)
        return Units("group", factor, codes.astype(np.int64), pd.Index(levels))

    def refit(self, units, place):
        """Return log p(y) - log p(y_-A), the model being built anew from the data frame."""
        left = self.data.drop(self.data.index[units.rows(place)])
        return self.exact.log_evidence - Exact.of(self.parts(left)[2]).log_evidence

    def exactly(self, factor):
        return exact_scores(self.exact, self.design, self.units(factor), priors=self.priors)

    def by_draws(self, factor, draws=2000, seed=1):
        x = approximate(self.target, draws=draws, rng=rng(seed)).x
        values = self.target.space.values(x)[0]
        return linear_scores(
            self.target,
            self.design,
            self.units(factor),
            values=values,
            priors=self.priors,
            rng=rng(seed + 1),
        )


@cache
def sleep(random):
    priors = dict(SLEEP_PRIORS)
    if not random:
        del priors["sd"]
    if "(Days | " not in random:
        del priors["corr"]
    return Case("Reaction ~ Days" + random, SLEEP, priors)


def frame(n=60, seed=3):
    found = random_frame(rng(seed), n)
    found["o"] = rng(seed).normal(size=n)
    return found


HALF = {"sigma": HalfStudentT(3, 3), "sd": HalfNormal(2)}
SOME = {"Intercept": Normal(1000, 20), "x": Normal(0, 3), **HALF}
CASES = {
    "Dyestuff": (
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff"),
        {"Intercept": Normal(1500, 100), "sigma": HalfNormal(60), "sd": HalfStudentT(3, 50)},
    ),
    "Penicillin": (
        "diameter ~ 1 + (1 | plate) + (1 | sample)",
        rf.load_dataset("Penicillin"),
        {"Intercept": Normal(23, 3), "sigma": HalfNormal(1), "sd": HalfNormal(2)},
    ),
    "Pastes": (
        "strength ~ 1 + (1 | batch/cask)",
        rf.load_dataset("Pastes"),
        {"Intercept": Normal(60, 5), "sigma": HalfNormal(2), "sd": HalfStudentT(3, 3)},
    ),
    "a vector": ("y ~ x + (x || c)", frame(), SOME, "w"),
    "two terms of one factor": ("y ~ x + (1 | c) + (0 + z | c)", frame(seed=4), SOME, "w"),
    "offset, flat beta": (
        "y ~ x + offset(o) + (1 | c)",
        frame(),
        {"Intercept": Flat(), "beta": Flat(), **HALF},
        "w",
    ),
    "given": (
        "y ~ x + (1 | c)",
        frame(),
        {"Intercept": StudentT(3, 1000, 5), "x": Normal(1, 1), **HALF},
    ),
    "known sigma": (
        "y ~ x + (1 | c)",
        frame(),
        {**SOME, "sigma": Constant(2.0)},
    ),
    "relative": ("y ~ x + (1 | c)", frame(), {**SOME, "sd": Relative(Gamma(2, 2))}),
    "all known": (
        "y ~ x + (1 | c)",
        frame(),
        {**SOME, "sigma": Constant(2.0), "sd": Constant(1.0)},
    ),
}


@cache
def case(name):
    return Case(*CASES[name])


# ------------------------------------------------------------------------------ without draws


@pytest.mark.parametrize("random", PRINTED)
def test_printed_values_of_the_sleep_study(random):
    """Also for the model without random effects, whose groups are a column of the data."""
    found = sleep(random).exactly("Subject")
    assert found.total == pytest.approx(PRINTED[random][0], abs=1e-3)
    assert found.se == pytest.approx(PRINTED[random][1], abs=0.06)
    assert found.error < 1e-3
    assert np.isnan(found.khat).all()
    assert found.method.startswith("quadrature")


@pytest.mark.parametrize(
    ("name", "factor", "places"),
    [
        ("Dyestuff", "Batch", range(6)),
        ("Dyestuff", None, range(0, 30, 5)),
        ("Penicillin", "sample", range(6)),
        ("Penicillin", None, (0, 77)),
        ("Pastes", "batch", (4,)),
        ("Pastes", "sample", (17,)),
        ("a vector", "c", range(0, 12, 3)),
        ("a vector", None, (0, 31)),
        ("two terms of one factor", "c", (5,)),
        ("two terms of one factor", "i", (0,)),
        ("offset, flat beta", "c", range(12)),
        ("offset, flat beta", None, range(0, 60, 7)),
        ("given", "c", range(0, 12, 3)),
        ("given", None, (0, 31)),
        ("known sigma", "c", range(12)),
        ("known sigma", "f", range(3)),
        ("relative", "c", range(0, 12, 3)),
        ("all known", "c", range(12)),
    ],
)
def test_every_unit_equals_a_refit(name, factor, places):
    own = case(name)
    found = own.exactly(factor)
    for place in places:
        expected = own.refit(own.units(factor), place)
        assert found.elpd[place] == pytest.approx(expected, abs=1e-4)
    assert (found.mcse < 1e-4).all()


@pytest.mark.parametrize("place", [0, 5])
def test_units_of_the_sleep_study_equal_refits(place):
    own = sleep(" + (Days | Subject)")
    expected = own.refit(own.units("Subject"), place)
    assert own.exactly("Subject").elpd[place] == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("Dyestuff", None),
        ("Penicillin", None),
        ("Pastes", None),
        ("a vector", None),
        ("given", None),
        ("all known", "c"),
    ],
)
def test_few_nodes_say_what_the_lattice_says(name, factor, monkeypatch):
    own = case(name)
    monkeypatch.setattr(gaussian_loo, "MAX_ELEMENTS_OF_NODE", np.inf)
    of_lattice = own.exactly(factor)
    monkeypatch.setattr(gaussian_loo, "MAX_ELEMENTS_OF_NODE", 0)
    of_few = own.exactly(factor)
    assert (of_few.elpd != of_lattice.elpd).any() or name == "all known"
    np.testing.assert_allclose(of_few.elpd, of_lattice.elpd, atol=1e-4)
    np.testing.assert_allclose(of_few.lpd, of_lattice.lpd, atol=1e-4)
    monkeypatch.setattr(gaussian_loo, "MAX_ERROR", 1e-1)  # all units by few nodes
    rough = own.exactly(factor)
    assert (np.abs(rough.elpd - of_lattice.elpd) < rough.mcse + of_lattice.mcse + 1e-6).mean() > 0.9


@pytest.mark.parametrize("most", [0.0, np.inf], ids=["medium", "coarse"])
def test_lattices_agree(most, monkeypatch):
    """A lattice that errs as much as a unit may is not tried: the next one has shorter steps."""
    own = case("Penicillin")
    of_all = own.exactly("sample")
    monkeypatch.setattr(gaussian_loo, "MAX_ERROR_OF_ALL", most)
    sizes = [len(lattice.z) for lattice in gaussian_loo._lattices(own.exact)]
    assert sizes == sorted(sizes)
    assert len(sizes) == (4 if most else 2)
    np.testing.assert_allclose(own.exactly("sample").elpd, of_all.elpd, atol=1e-4)


def test_what_is_known_from_within():
    """With all variances known lpd and elpd are the same; else lpd is a mean over nodes."""
    own = case("all known")
    found = own.exactly("c")
    np.testing.assert_allclose(found.lpd, found.elpd, rtol=1e-12)
    found, draws = case("Dyestuff").exactly("Batch"), case("Dyestuff").by_draws("Batch")
    np.testing.assert_allclose(found.lpd, draws.lpd, atol=0.03)
    assert found.p_loo > 0.5


def outliers():
    """Return data with a group so far off that the posterior without it is elsewhere."""
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 6)})
    data["y"] = rng(5).normal(size=48) + np.where(data["g"] == 3, 60.0, 0.0)
    return data


def test_a_unit_that_needs_nodes_of_its_own():
    priors = {"Intercept": Normal(0, 10), "sigma": HalfNormal(5), "sd": HalfStudentT(3, 5)}
    own = Case("y ~ 1 + (1 | g)", outliers(), priors)
    found = own.exactly("g")
    assert found.repaired.tolist() == [place == 3 for place in range(8)]
    for place in (2, 3):
        assert found.elpd[place] == pytest.approx(own.refit(own.units("g"), place), abs=1e-4)
    draws = own.by_draws("g")
    assert draws.repaired[3]
    assert np.isnan(draws.khat[3])
    assert draws.elpd[3] == pytest.approx(found.elpd[3], abs=1e-4)


# ---------------------------------------------------------------------------------- from draws


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("Dyestuff", "Batch"),
        ("Dyestuff", None),
        ("a vector", "c"),
        ("given", "c"),
        ("offset, flat beta", None),
        ("all known", "c"),
    ],
)
def test_draws_agree_with_quadrature(name, factor):
    exact, found = case(name).exactly(factor), case(name).by_draws(factor)
    assert (np.abs(found.elpd - exact.elpd) < 5 * found.mcse + 2e-3).all()
    assert found.total == pytest.approx(exact.total, abs=0.2)
    assert not (found.khat > 0.7).any()
    assert found.draws == 2000
    assert found.labels.equals(exact.labels)


def test_what_cannot_be_trusted_is_repaired():
    own = sleep(" + (Days || Subject)")
    exact, found = own.exactly("Subject"), own.by_draws("Subject", draws=4000)
    bad = found.repaired
    assert 0 < bad.sum() < 6
    np.testing.assert_allclose(found.elpd[bad], exact.elpd[bad], atol=1e-4)
    np.testing.assert_allclose(found.lpd[bad], exact.lpd[bad], atol=1e-3)
    assert (found.mcse[bad] < 1e-3).all()
    assert np.isnan(found.khat[bad]).all()
    assert (found.khat[~bad] <= 0.7).all()
    assert found.method == (
        f"Pareto-smoothed importance sampling over 4,000 draws; {bad.sum()} of 18, whose k-hat was "
        "above 0.70, by quadrature"
    )
    assert found.total == pytest.approx(exact.total, abs=0.3)


def not_feasible(target):
    raise FitError(str(target.space.d))


def test_repairs_by_a_bridge(monkeypatch):
    """As for a model with too many variance parameters for a quadrature."""
    own = case("Dyestuff")
    exact = own.exactly("Batch")
    limits = iter([-9.0] + 6 * [9.0])
    monkeypatch.setattr(lattice, "check_feasible", not_feasible)
    monkeypatch.setattr(gaussian_loo, "good_khat", lambda _: next(limits))
    found = own.by_draws("Batch", draws=1500)
    assert found.repaired.all()
    assert np.isnan(found.khat).all()
    assert (np.abs(found.elpd - exact.elpd) < 4 * found.mcse).all()
    assert (found.mcse < 0.06).all()
    assert found.method.endswith("6 of 6, whose k-hat was above -9.00, by bridge sampling")


def test_draws_by_nuts_where_importance_sampling_is_not_to_be_trusted(monkeypatch):
    target = case("Dyestuff").target
    weighted, effective = gaussian_loo._draws(target, rng(1))
    assert (weighted.shape, 1000 < effective <= 2000) == ((2000, 2), True)
    monkeypatch.setattr(gaussian_loo, "good_khat", lambda _: -9.0)
    found, effective = gaussian_loo._draws(target, rng(1))
    assert (found.shape, effective) == ((1000, 2), 500)
    spread = np.log(weighted).std(axis=0) / np.sqrt(500)
    np.testing.assert_array_less(
        np.abs(np.log(found).mean(axis=0) - np.log(weighted).mean(axis=0)), 4 * spread
    )
    again, _ = gaussian_loo._draws(target, rng(1))
    np.testing.assert_array_equal(found, again)


def test_the_bridge_between_two_normal_distributions():
    """From N(0, 1) to N(1, 1) the log ratio of the densities is phi - 1/2, that of constants 0.

    A constant factor of the density comes out as such, and the error is that of replicates.
    """
    found = np.array(
        [
            bridged(
                rng(s).normal(0, 1, 400) - 0.5 + 7, rng(s + 999).normal(1, 1, 300) - 0.5 + 7, 400
            )
            for s in range(200)
        ]
    )
    assert found[:, 0].mean() == pytest.approx(7.0, abs=0.02)
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.12)


def test_a_bridge_far_apart_and_one_that_cannot_be_built():
    own, other = rng(1).normal(0, 1, 500) * 30 - 200, rng(2).normal(900, 1, 500)
    value, error = bridged(own, other, 500)
    assert np.isfinite([value, error]).all()
    with pytest.raises(FitError) as caught:
        bridged(own, np.append(other, np.nan), 500)
    assert str(caught.value) == (
        "the predictive density cannot be computed at some draws, at which the random effects are "
        "far too large: give their standard deviations priors that exclude this."
    )


def test_draws_of_markov_chains_count_for_less():
    """An autoregression of order one with coefficient r has (1 - r) / (1 + r) draws for each."""
    own, r = case("Dyestuff"), 0.8
    x = approximate(own.target, draws=4000, rng=rng()).x
    values = own.target.space.values(np.repeat(x, 4, axis=0))[0]
    arguments = (own.target, own.design, own.units("Batch"))
    settings = {"values": values, "priors": own.priors}
    found = linear_scores(*arguments, **settings, rng=rng(), chains=4)
    one_by_one = linear_scores(*arguments, **settings, rng=rng())
    np.testing.assert_allclose(found.elpd, one_by_one.elpd, atol=0.1)
    kept = ~one_by_one.repaired & ~found.repaired
    assert kept.sum() > 3
    np.testing.assert_allclose(found.mcse[kept], 2 * one_by_one.mcse[kept], rtol=0.4)

    noise = np.random.default_rng(1).normal(size=(4, 5000, 2))
    for i in range(1, 5000):
        noise[:, i] = r * noise[:, i - 1] + np.sqrt(1 - r**2) * noise[:, i]
    share = efficiency(0.1 * noise.reshape(-1, 2), 4)
    np.testing.assert_allclose(share, (1 - r) / (1 + r), rtol=0.2)


def test_fewer_draws_of_a_large_model(monkeypatch):
    own = case("Penicillin")
    monkeypatch.setattr(gaussian_loo, "MAX_OPERATIONS", (30 * 7**2 + 6**3) * 700)
    assert own.by_draws("sample", draws=2000).draws == 667
    monkeypatch.setattr(gaussian_loo, "MAX_OPERATIONS", 1)
    assert own.by_draws("sample", draws=2000).draws == 500


# ------------------------------------------------------------------------- the data without it


def test_the_data_without_a_unit():
    """The density without rows is that of a model built from the other rows."""
    for name, factor in (("Pastes", "batch"), ("a vector", "c"), ("Penicillin", "plate")):
        own = case(name)
        for place in (0, 3):
            rows = own.units(factor).rows(place)
            found = target_without(own.design, rows, own.priors)
            _, _, expected = own.parts(own.data.drop(own.data.index[rows]))
            x = found.start() + 0.1
            assert found(x)[0] == pytest.approx(expected(x)[0], rel=1e-10)
    left = leaving_out(own.design, own.units("plate").rows(3))
    assert own.design.terms[0].levels[3] not in left.terms[0].levels
    assert left.rows.index.equals(own.design.rows.index.drop(own.design.rows.index[rows]))


def test_priors_stay_where_they_are():
    """Priors at the means of all rows hold without some of them, too."""
    data = frame()
    design = build_design(read_formula("y ~ x + (x | c)"), data)
    priors = resolve(design, "default")
    found = target_without(design, np.arange(25), priors)
    _, _, expected = Case("y ~ x + (x | c)", data, "default").parts(data.iloc[25:])
    x = found.start()
    assert found(x)[0] != pytest.approx(expected(x)[0], abs=1e-3)
    kept = target_of(build_design(read_formula("y ~ x + (x | c)"), data.iloc[25:]), priors)
    assert found(x)[0] == pytest.approx(kept(x)[0], rel=1e-10)


def test_flat_priors_that_are_too_flat_without_a_unit():
    priors = {"Intercept": Flat(), "sigma": Flat(), "sd": Flat()}
    own = Case("y ~ 1 + (1 | g)", outliers().query("g < 3"), priors)
    with pytest.raises(FitError) as caught:
        own.exactly("g")
    assert str(caught.value).startswith("without level `0` of `g` of the data: ")
    with pytest.raises(FitError, match="without level `0` of `g` of the data: "):
        own.by_draws("g")
    assert np.isfinite(own.exactly(None).elpd).all()
