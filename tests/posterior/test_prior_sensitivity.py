"""Marginal likelihoods under other scales of the priors, against fits with these priors."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from lattice_cases import log_axis
from savage_dickey_cases import BATCH, DYESTUFF, sleep_fit
from scipy import special, stats

import ranef as rf
from ranef.design.design import build_design, full_rank
from ranef.errors import FitError
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.numerics.importance_sampling import smoothed
from ranef.posterior import prior_sensitivity
from ranef.posterior.generalized_posterior import joint_of
from ranef.posterior.laplace import approximate
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.prior_sensitivity import SCALES, from_draws, from_lattice, scaled
from ranef.posterior.quadrature.lattice import draw_values
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.transforms import coordinate
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    Uniform,
)

FEW = (0.25, 0.7, 2.0, 4.0)


def moved(priors, s):
    """Return priors whose sds have s times the scale."""
    terms = [replace(t, sd=tuple(scaled(prior, s) for prior in t.sd)) for t in priors.terms]
    return replace(priors, terms=tuple(terms))


@cache
def target_at(formula, data, setting, s=1.0):
    """Return the posterior density with s times the scales."""
    design = build_design(read_formula(formula), rf.load_dataset(data))
    kept = full_rank(design)
    places = [design.fixed.index(name) for name in kept.fixed]
    resolved = resolve(design, setting if isinstance(setting, str) else dict(setting))
    return target_of(
        design, cross_products(kept), places, resolved if s == 1 else moved(resolved, s)
    )


@cache
def exact_at(formula, data, setting, s=1.0):
    return Exact.of(target_at(formula, data, setting, s))


def dyestuff(prior, **others):
    return (BATCH, "Dyestuff", tuple((DYESTUFF | others | {"sd": prior}).items()))


SLOPES = ("Reaction ~ Days + (Days || Subject)", "sleepstudy", "default")
PASTES = ("strength ~ 1 + (1 | batch / cask)", "Pastes", "default")


# --------------------------------------------------------------------------------- the priors

PRIORS = {
    HalfNormal(20): lambda s: stats.halfnorm(scale=20 * s),
    HalfCauchy(20): lambda s: stats.halfcauchy(scale=20 * s),
    Exponential(20): lambda s: stats.expon(scale=20 * s),
    Gamma(2, 0.1): lambda s: stats.gamma(2, scale=10 * s),
    InverseGamma(2, 30): lambda s: stats.invgamma(2, scale=30 * s),
    LogNormal(3, 0.5): lambda s: stats.lognorm(0.5, scale=np.exp(3) * s),
    Uniform(0, 40): lambda s: stats.uniform(0, 40 * s),
    Uniform(10, 40): lambda s: stats.uniform(10 * s, 30 * s),
    HalfStudentT(3, 20): lambda s: stats.t(3, scale=20 * s),  # but for a factor of 2
}


@pytest.mark.parametrize("prior", PRIORS, ids=str)
@pytest.mark.parametrize("s", [0.3, 1.0, 4.0])
def test_scaled_priors_and_their_densities(prior, s):
    """The ratio of densities is the one of s times the number to the number itself."""
    law, before, c = PRIORS[prior](s), PRIORS[prior](1.0), coordinate(prior, positive=True)
    v = np.array([11.0, 13.5, 37.0])
    with np.errstate(divide="ignore"):
        expected = law.logpdf(v) - before.logpdf(v)
    np.testing.assert_allclose(prior_sensitivity._log_ratio(c, s, np.log(v)), expected, atol=1e-12)


def test_priors_that_scaling_leaves_or_enters():
    assert scaled(Constant(3), 2) == Constant(3)
    assert scaled(Relative(HalfNormal(1.5)), 2) == Relative(HalfNormal(3))
    assert scaled(Relative(Constant(1)), 2) == Relative(Constant(1))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (
            Flat(),
            (
                "Flat() has no scale, so that it cannot be multiplied: give the standard deviation "
                "a prior such as HalfNormal or HalfStudentT."
            ),
        ),
        (Relative(Flat()), "Flat() has no scale, so that it cannot be multiplied: give"),
        (Normal(0, 1), "Normal(0, 1) is not one of a positive number, so that it cannot be"),
    ],
    ids=str,
)
def test_priors_without_a_scale(prior, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}"):
        scaled(prior, 2)


@pytest.mark.parametrize("scales", [0, [1, -2], [np.nan], [[1.0]]])
def test_scales_that_are_none(scales):
    message = f"scales must be positive numbers, such as 0.5 and 2, got {scales!r}."
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        from_lattice(exact_at(*dyestuff(HalfNormal(50))), scales)


def test_flat_sds_are_refused():
    exact = exact_at(*dyestuff(Flat()))
    message = (
        "a flat prior on `sd_Batch[Intercept]` has no scale, and leaves p(y) undefined: use a "
        "proper prior such as HalfNormal or HalfStudentT."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        from_lattice(exact)


# --------------------------------------------------------------------------------- the lattice

CASES = {
    "regular": dyestuff(HalfStudentT(3, 60)),
    "prior that holds it back": dyestuff(HalfNormal(20)),
    "relative": dyestuff(Relative(HalfCauchy(1))),
    "away from zero": dyestuff(InverseGamma(2, 50)),
    "gamma": dyestuff(Gamma(2, 0.05)),
    "log-normal": dyestuff(LogNormal(4, 1)),
    "sd near zero": (BATCH, "Dyestuff2", "default"),
    "nested": PASTES,
    "two sds": SLOPES,
}


@pytest.mark.parametrize("name", CASES)
def test_a_lattice_says_what_fits_with_these_priors_say(name):
    scales = FEW[::3] if name == "nested" else FEW
    found = from_lattice(exact_at(*CASES[name]), scales)
    one = exact_at(*CASES[name]).log_evidence
    expected = [exact_at(*CASES[name], s).log_evidence - one for s in scales]
    np.testing.assert_allclose(found.log_ratio, expected, atol=1e-5)
    assert (found.mcse < 3e-5).all()


@pytest.mark.parametrize("name", ["prior that holds it back", "sd near zero", "gamma"])
def test_where_a_lattice_does_not_reach_it_is_not_used(name, monkeypatch):
    """The share of its outermost nodes bounds what it misses."""
    exact, missed = exact_at(*CASES[name]), []
    monkeypatch.setattr(prior_sensitivity, "MAX_LOG_ERROR", np.inf)
    found = from_lattice(exact, SCALES)
    for s, value, error in zip(SCALES, found.log_ratio, found.mcse, strict=True):
        truth = from_refit(name, s)
        assert abs(value - truth) < error + 1e-5
        missed.append(abs(value - truth))
    assert name != "prior that holds it back" or max(missed) > 1e-4


def from_refit(name, s):
    return exact_at(*CASES[name], s).log_evidence - exact_at(*CASES[name]).log_evidence


def test_nothing_changes_at_one_and_without_random_effects():
    found = from_lattice(exact_at(*dyestuff(HalfNormal(50))), 1.0)
    assert (found.log_ratio, found.mcse) == (0.0, 0.0)
    plain = sleep_fit("")[0]
    values = plain.target.space.values(np.array([[3.0], [3.1]]))[0]
    for none in (from_lattice(plain), from_draws(plain.target, values)):
        assert none.scales == pytest.approx(SCALES)
        assert not np.any([none.log_ratio, none.mcse])


# ---------------------------------------------------------------------------------- the draws


@cache
def drawn(case, n=4000, seed=2):
    exact = exact_at(*case)
    return draw_values(exact.lattice, n, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CASES)
def test_draws_agree_with_the_lattice(name):
    exact = exact_at(*CASES[name])
    whole = from_lattice(exact, FEW)
    n = 800 if name == "nested" else 4000
    found = from_draws(exact.target, drawn(CASES[name], n), FEW)
    sure = np.isfinite(found.mcse)
    assert sure[1]
    difference = np.abs(found.log_ratio - whole.log_ratio)[sure]
    assert (difference < 4 * found.mcse[sure] + 1e-5).all()


def test_the_error_of_draws_is_as_large_as_it_says():
    exact = exact_at(*CASES["regular"])
    truth, z = from_lattice(exact, [0.5, 2.0]).log_ratio, []
    values = drawn(CASES["regular"], 60_000, 1)
    for part in np.split(np.random.default_rng(1).permutation(values), 60):
        found = from_draws(exact.target, part, [0.5, 2.0])
        z.append((found.log_ratio - truth) / found.mcse)
    assert ((np.var(z, axis=0) > 0.6) & (np.var(z, axis=0) < 1.5)).all()


def test_correlated_draws_have_a_larger_error():
    exact, few = exact_at(*CASES["regular"]), [0.5, 2.0]
    values = drawn(CASES["regular"])
    repeated = np.repeat(values[:1000], 4, axis=0)
    plain = from_draws(exact.target, values.reshape(4, 1000, -1), few)
    chains = from_draws(exact.target, repeated.reshape(4, 1000, -1), few)
    independent = from_draws(exact.target, values, few)
    assert (1.6 * plain.mcse < chains.mcse).all()
    assert chains.mcse == pytest.approx(2 * plain.mcse, rel=0.3)
    assert plain.mcse == pytest.approx(independent.mcse, rel=0.3)
    assert plain.log_ratio == pytest.approx(independent.log_ratio, abs=1e-12)


def test_draws_that_do_not_reach_say_so():
    """Ratios of two half-normal densities grow like exp(x^2): there is no mean to estimate."""
    case = dyestuff(HalfNormal(5))
    exact = exact_at(*case)
    found = from_draws(exact.target, drawn(case, 2000, 3), [0.9, 4.0])
    assert np.isfinite(found.mcse[0])
    assert np.isinf(found.mcse[1])


def test_only_the_largest_ratios_are_smoothed():
    """So the mean is that of the raw ratios with other values for the largest of them."""
    exact = exact_at(*CASES["prior that holds it back"])
    values, c = drawn(CASES["prior that holds it back"]), exact.target.space.coordinates[1]
    ratios = prior_sensitivity._log_ratio(c, 1.6, np.log(values[:, 1]))
    weights, khat = smoothed(ratios)
    assert 0 < khat < 0.7
    order = np.argsort(ratios)
    change = np.log(weights / weights[order[0]]) - (ratios - ratios[order[0]])
    assert np.abs(change[order[:3000]]).max() < 1e-9 < np.abs(change).max()
    expected = np.log(np.mean(weights / weights[order[0]])) + ratios[order[0]]
    assert from_draws(exact.target, values, 1.6).log_ratio[0] == pytest.approx(expected, abs=1e-9)


def test_a_uniform_prior():
    """A shorter one keeps the share of draws below its end; a longer one is out of reach."""
    target = target_at(*dyestuff(Uniform(0, 150)))
    values = target.space.values(approximate(target, draws=4000, rng=np.random.default_rng(1)).x)[0]
    found = from_draws(target, values, [1e-9, 0.5, 2.0])
    expected = np.log(np.mean(values[:, 1] < 75) / 0.5)
    assert found.log_ratio[1] == pytest.approx(expected, rel=1e-9)
    assert 0 < found.mcse[1] < 0.1
    assert np.isinf(found.mcse[[0, 2]]).all()
    assert found.log_ratio[0] == -np.inf


def test_draws_of_a_generalised_model():
    """Against sums over a fine grid of intercept and sd."""
    model = rf.Model(
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )
    priors = resolve(model.design, {"sd": HalfNormal(1)}, model.family)
    targets = [joint_of(model.design, model.family, moved(priors, s)) for s in (1.0, 0.5, 3.0)]
    effect, sd = np.linspace(-4, 1, 36), log_axis([0, 0.3, 0.7, 1.2, 2.5, 6], 6)
    grid = np.stack(np.meshgrid(effect, sd[0], indexing="ij"), axis=-1).reshape(-1, 2)
    one, half, three = (
        special.logsumexp(t.log_density(grid) + np.tile(sd[1], len(effect))) for t in targets
    )
    x = approximate(targets[0], draws=1000, rng=np.random.default_rng(4)).x
    found = from_draws(targets[0], targets[0].space.values(x)[0], [0.5, 3.0])
    assert (np.abs(found.log_ratio - [half - one, three - one]) < 4 * found.mcse).all()
    assert (found.mcse < 0.05).all()
