"""Savage-Dickey ratios against models without the parameter, known values and densities."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from density_cases import SCHOOLS
from designs import random_frame
from savage_dickey_cases import BATCH, DYESTUFF, fitted, sleep_fit
from scipy import stats

import ranef as rf
from ranef.errors import FitError
from ranef.posterior import savage_dickey as module
from ranef.priors.distributions import (
    LKJ,
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
    StudentT,
    Uniform,
)


def savage_dickey(exact, name, priors):
    """Return the ratio of a variance parameter: no density under other priors is asked for."""
    return module.savage_dickey(exact, name, priors, None)


@cache
def sleep_default(random, first=0):
    """Return the posterior under the default priors, with days counted from a first one."""
    data = rf.load_dataset("sleepstudy")
    return fitted("Reaction ~ Days" + random, data.assign(Days=first + data["Days"]))


def dyestuff(sd):
    return fitted(BATCH, rf.load_dataset("Dyestuff"), DYESTUFF | {"sd": sd})


def test_correlation_of_the_sleep_study():
    """The density at zero and the Bayes factor, as printed by an independent program."""
    exact, priors = sleep_fit(" + (Days | Subject)")
    found = savage_dickey(exact, "corr_Subject[Intercept, Days]", priors)
    assert found.posterior == pytest.approx(1.349244, abs=1e-5)
    assert found.prior == pytest.approx(0.75, rel=1e-12)
    assert found.bf01 == pytest.approx(1.79899, abs=1e-5)
    without, _ = sleep_fit(" + (Days || Subject)")
    ratio = without.log_evidence - exact.log_evidence
    assert found.log_bf01 == pytest.approx(ratio, abs=1e-6)
    place = exact.target.space.names.index("corr_Subject[Intercept, Days]")
    assert exact.curve(place).pdf(0.0) == pytest.approx(found.posterior, rel=1e-5)
    short = savage_dickey(exact, "corr_Subject", priors)
    assert short == replace(found, name="corr_Subject")


@pytest.mark.parametrize(
    ("name", "full", "simple"),
    [
        ("sd_Subject[Days]", " + (Days | Subject)", " + (1 | Subject)"),
        ("sd_Subject[Intercept]", " + (Days | Subject)", " + (0 + Days | Subject)"),
        ("sd_Subject[Days]", " + (Days || Subject)", " + (1 | Subject)"),
        ("sd_Subject[Intercept]", " + (Days || Subject)", " + (0 + Days | Subject)"),
        ("sd_Subject", " + (1 | Subject)", ""),
    ],
)
def test_an_sd_of_zero_is_the_model_without_it(name, full, simple):
    (exact, priors), (without, _) = sleep_fit(full), sleep_fit(simple)
    found = savage_dickey(exact, name, priors)
    ratio = without.log_evidence - exact.log_evidence
    assert found.log_bf01 == pytest.approx(ratio, abs=1e-6)
    assert found.posterior == pytest.approx(found.bf01 * found.prior, rel=1e-12)
    assert found.error < 2e-6


@pytest.mark.parametrize(
    ("name", "simple", "first"),
    [
        ("corr_Subject", "(Days || Subject)", 0),
        ("corr_Subject", "(Days || Subject)", -4),
        ("sd_Subject[Intercept]", "(0 + Days | Subject)", 0),
        ("sd_Subject[Days]", "(1 | Subject)", 0),
        ("sd_Subject[Days]", "(1 | Subject)", 1990),
    ],
)
def test_default_priors_are_those_of_the_simpler_model(name, simple, first):
    """Where zero was observed; elsewhere for the slope, which is the same there."""
    exact, priors = sleep_default(" + (Days | Subject)", first)
    without, _ = sleep_default(f" + {simple}", first)
    found = savage_dickey(exact, name, priors)
    assert found.log_bf01 == pytest.approx(without.log_evidence - exact.log_evidence, abs=1e-6)
    if (name, first) == ("corr_Subject", 0):
        assert found.bf01 == pytest.approx(1.8023, abs=1e-4)
        place = exact.target.space.names.index("corr_Subject[Intercept, Days]")
        assert exact.curve(place).pdf(0.0) == pytest.approx(found.posterior, rel=1e-5)


ORDINATES = {
    HalfNormal(50): stats.halfnorm(scale=50).pdf(0),
    HalfStudentT(3, 50): 2 * stats.t(3, scale=50).pdf(0),
    HalfCauchy(30): stats.halfcauchy(scale=30).pdf(0),
    Exponential(40): stats.expon(scale=40).pdf(0),
    Gamma(1, 0.02): 0.02,
}


@pytest.mark.parametrize("prior", ORDINATES, ids=str)
def test_sd_of_batches(prior):
    """Against the model without batches, and the density of the sd next to zero."""
    (exact, priors), (without, _) = (
        dyestuff(prior),
        fitted("Yield ~ 1", rf.load_dataset("Dyestuff"), DYESTUFF),
    )
    found = savage_dickey(exact, "sd_Batch", priors)
    assert found.prior == pytest.approx(ORDINATES[prior], rel=1e-12)
    assert found.log_bf01 == pytest.approx(without.log_evidence - exact.log_evidence, abs=1e-6)
    assert exact.curve(1).pdf(0.0) == pytest.approx(found.posterior, rel=1e-5)


@pytest.mark.parametrize("prior", [HalfNormal(1), HalfCauchy(1)], ids=str)
def test_an_sd_relative_to_sigma(prior):
    """Densities of sd / sigma: that of the posterior is an average over sigma and the ratio."""
    (exact, priors), (without, _) = (
        dyestuff(Relative(prior)),
        fitted("Yield ~ 1", rf.load_dataset("Dyestuff"), DYESTUFF),
    )
    found = savage_dickey(exact, "sd_Batch[Intercept]", priors)
    assert found.log_bf01 == pytest.approx(without.log_evidence - exact.log_evidence, abs=1e-6)
    ratio, small = exact.mixture.nodes.values[exact.mixture.rows, 1], 0.12
    share = exact.mixture.weights[ratio < small].sum() / small
    assert share == pytest.approx(found.posterior, rel=0.4)
    curve = module.relative_curve(exact, priors, "sd_Batch")
    assert curve is not None
    assert float(curve.pdf(0.0)) == pytest.approx(found.posterior, rel=1e-5)
    assert curve.mean == pytest.approx(exact.mixture.weights @ ratio, rel=1e-4)
    table = module.density_table(priors, exact.target.space, found, curve, relative=True)
    assert table.iloc[-1].tolist() == [0.0, found.posterior, found.prior]
    where = priors, exact.target.space, "sd_Batch", np.array([0.5])
    inside = module.prior_density(*where, relative=True)
    with pytest.raises(FitError, match="the prior of `sd_Batch` is one of its ratio to sigma"):
        module.prior_density(*where)
    density = {HalfNormal: 2 * stats.norm.pdf(0.5), HalfCauchy: 2 * stats.cauchy.pdf(0.5)}
    assert inside[0] == pytest.approx(density[type(prior)], rel=1e-10)
    assert module.relative_curve(exact, priors, "Intercept") is None


def test_nested_factors():
    priors = {"Intercept": Normal(60, 10), "sigma": HalfNormal(3), "sd": HalfNormal(3)}
    pastes = rf.load_dataset("Pastes")
    exact, resolved = fitted("strength ~ 1 + (1 | batch / cask)", pastes, priors)
    for name, rest in (("sd_batch", "(1 | batch:cask)"), ("sd_cask:batch", "(1 | batch)")):
        without, _ = fitted("strength ~ 1 + " + rest, pastes, priors)
        found = savage_dickey(exact, name, resolved)
        assert found.log_bf01 == pytest.approx(without.log_evidence - exact.log_evidence, abs=1e-6)


def test_eight_schools():
    priors = {"Intercept": Normal(0, 5), "sigma": Constant(1), "sd": HalfCauchy(5)}
    exact, resolved = fitted("y ~ 1 + (1 | school)", SCHOOLS, priors, "w")
    found = savage_dickey(exact, "sd_school", resolved)
    assert exact.log_evidence == pytest.approx(-31.311347352293, abs=1e-8)
    assert found.bf01 == pytest.approx(1.5953756509, abs=2e-8)
    for sd, expected in (
        (HalfNormal(10), 1.6836527265),
        (HalfNormal(5), 1.2116720680),
        (HalfStudentT(3, 10), 1.8740388515),
    ):
        own = fitted("y ~ 1 + (1 | school)", SCHOOLS, priors | {"sd": sd}, "w")
        assert savage_dickey(own[0], "sd_school", own[1]).bf01 == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["z", "x"])
def test_three_coefficients(gone):
    """Without one, the correlation of the others has the prior LKJ(eta + 1/2)."""
    frame = random_frame(np.random.default_rng(3), 90).assign(x=lambda d: d["x"] - 7)
    known = {"Intercept": Relative(Constant(0.9)), "x": Relative(Constant(0.5)), "z": HalfNormal(1)}
    if gone == "x":
        known |= {"x": HalfNormal(1), "z": Relative(Constant(0.5))}
    base = {"Intercept": Normal(1000, 10), "x": Normal(0, 3), "sigma": Constant(2)}
    full = base | {"sd_c": known, "corr": LKJ(2)}
    del known[gone]
    simple = base | {"sd_c": dict(known), "corr": LKJ(2.5)}
    known[gone] = HalfNormal(1)
    exact, priors = fitted("y ~ x + (1 + x + z | c)", frame, full)
    rest = "x" if gone == "z" else "z"
    without, _ = fitted(f"y ~ x + (1 + {rest} | c)", frame, simple)
    found = savage_dickey(exact, f"sd_c[{gone}]", priors)
    assert found.log_bf01 == pytest.approx(without.log_evidence - exact.log_evidence, abs=1e-5)


# ----------------------------------------------------------------------------- what is refused

ELSEWHERE = (
    "the default prior of `{}` holds at Days = 1990, the value nearest to 0 that was observed, "
    "where zero is another model than at 0: count predictors from there, as in I(Days - 1990), or "
    "give the term's standard deviations priors of your own, as "
    'priors={{"sd_Subject": HalfNormal(...)}}.'
)
OTHERS = (
    "`{}` is not compared with zero here: that is done for fixed effects, for standard deviations "
    "of random effects, and for the correlation of a term with two coefficients."
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sd_Subject[Intercept]", ELSEWHERE.format("sd_Subject[Intercept]")),
        ("corr_Subject", ELSEWHERE.format("corr_Subject")),
        ("sigma", OTHERS.format("sigma")),
        ("sd_subject[days]", "the posterior has no parameter 'sd_subject[days]'. Did you mean"),
    ],
)
def test_names_and_scales_that_are_refused(name, message):
    exact, priors = sleep_default(" + (Days | Subject)", 1990)
    with pytest.raises(FitError, match=f"^{re.escape(message)}"):
        savage_dickey(exact, name, priors)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (Gamma(2, 0.1), "the prior of `sd_Batch`, Gamma(2, 0.1), has zero density at zero, so"),
        (Gamma(0.5, 0.1), "the prior of `sd_Batch`, Gamma(0.5, 0.1), has infinite density at"),
        (InverseGamma(2, 50), "the prior of `sd_Batch`, InverseGamma(2, 50), has zero density"),
        (Relative(LogNormal(0, 1)), "the prior of `sd_Batch`, sigma * LogNormal(0, 1), has zero"),
        (Flat(), "`sd_Batch` has a flat prior, which is no density: its Bayes factor is not"),
        (Constant(40), "`sd_Batch` is known to be 40, so that it is not tested."),
    ],
    ids=str,
)
def test_priors_that_are_refused(prior, message):
    sigma = {"sigma": Constant(50)} if isinstance(prior, Constant) else {}
    exact, priors = fitted(BATCH, rf.load_dataset("Dyestuff"), {"sd": prior} | sigma)
    with pytest.raises(FitError, match=f"^{re.escape(message)}"):
        savage_dickey(exact, "sd_Batch", priors)


def test_what_to_do_instead_of_a_prior_without_density_at_zero():
    exact, priors = dyestuff(InverseGamma(2, 50))
    with pytest.raises(FitError) as caught:
        savage_dickey(exact, "sd_Batch", priors)
    assert str(caught.value).endswith(
        "so that posterior and prior cannot be compared there: use one with a density that is "
        "neither, such as HalfNormal, HalfStudentT or Exponential."
    )


# Fixed effects

EFFECTS = {
    "normal": {"x": Normal(0, 1)},
    "shifted": {"x": Normal(0.5, 1)},
    "t": {"x": StudentT(3, 0, 1)},
    "uniform": {"x": Uniform(-1, 2)},
    "half-normal": {"x": HalfNormal(1)},
    "default": {},
}


def grouped():
    rng = np.random.default_rng(1)
    x, g = rng.normal(2, 1, 40), np.arange(40) % 8
    y = 1 + 0.3 * x + rng.normal(0, 1, 8)[g] + rng.normal(size=40)
    return pd.DataFrame({"y": y, "x": x, "z": rng.normal(size=40), "g": g})


@pytest.mark.parametrize("given", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize(
    ("text", "without"), [("x + (1 | g)", "1 + (1 | g)"), ("z + x", "z"), ("0 + x", "0")]
)
def test_of_a_fixed_effect_it_is_the_ratio_of_the_marginal_likelihoods(given, text, without):
    data = grouped()
    others = {"sigma": HalfNormal(2)} if given else {}
    others |= {"sd": HalfNormal(2)} if given and "g" in text else {}
    fit = rf.fit(f"y ~ {text}", data, "quadrature", priors=others | given)
    null = rf.fit(f"y ~ {without}", data, "quadrature", priors=others)
    found = fit.savage_dickey("x")
    ratio = null.log_marginal_likelihood().value - fit.log_marginal_likelihood().value
    assert found.log_bf01 == pytest.approx(ratio, abs=1e-6)
    if not isinstance(given.get("x"), HalfNormal):
        assert found.posterior == pytest.approx(fit.curve("x").pdf(0.0), rel=1e-4, abs=1e-6)
    values = np.array([-0.3, 0.4])
    prior = fit.asked.priors
    density = module.prior_density(prior, fit.marginals.exact.target.space, "x", values)
    record = prior.beta[prior.fixed.index("x")]
    frozen = {
        Normal: lambda p: stats.norm(p.mu, p.sigma),
        StudentT: lambda p: stats.t(p.nu, p.mu, p.sigma),
        Uniform: lambda p: stats.uniform(p.lower, p.upper - p.lower),
        HalfNormal: lambda p: stats.halfnorm(scale=p.sigma),
    }[type(record)](record)
    np.testing.assert_allclose(density, frozen.pdf(values), rtol=1e-10)
    assert found.prior == pytest.approx(frozen.pdf(0.0))


@pytest.mark.parametrize(
    ("given", "name", "message"),
    [
        (
            {},
            "Intercept",
            (
                "the default prior of `Intercept` holds at the mean of the predictors, where a "
                "value of zero is not the simpler model"
            ),
        ),
        ({"x": Constant(2)}, "x", "`x` is known to be 2, so that it is not tested."),
        ({"x": Uniform(1, 2)}, "x", "the prior of `x`, Uniform(1, 2), has zero density at zero"),
        ({"x": LogNormal(0, 1)}, "x", "the prior of `x`, LogNormal(0, 1), has zero density"),
        ({"x": Flat()}, "x", "`x` has a flat prior, which is no density"),
        ({}, "w", "the posterior has no parameter 'w'. Known names: `Intercept`, `x`"),
    ],
)
def test_fixed_effects_that_are_refused(given, name, message):
    fit = rf.fit("y ~ x + (1 | g)", grouped(), "quadrature", priors=given)
    with pytest.raises(FitError, match=f"^{re.escape(message)}"):
        fit.savage_dickey(name)
