"""Marginal densities and moments by quadrature, against direct integration and other routes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from density_cases import density, sleep
from lattice_cases import exact_of, log_axis, panels, sleep_exact, slopes_frame
from scipy import special, stats

import ranef as rf
from ranef.posterior.laplace import approximate
from ranef.posterior.transforms import correlations
from ranef.priors.distributions import HalfNormal, HalfStudentT, Normal, StudentT

CENTRED = "y ~ x + (x | g)"


@cache
def centred(shift=0.0):
    data = slopes_frame()
    return exact_of(density(CENTRED, data.assign(x=shift + data["x"]), "default"))


# ------------------------------------------------------------------- one sd, by two dimensions


def expected(exact, of):
    """Return the posterior mean of a function of sigma and the factors."""
    return exact.expected(of(exact.mixture.sigma, exact.factors))


def groups(rows, levels, sd, seed=3):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(levels), rows)
    y = 5 + sd * rng.normal(size=levels)[g] + rng.normal(size=rows * levels)
    return pd.DataFrame({"y": y, "g": g})


OWN = {"Intercept": Normal(5, 3), "sigma": HalfNormal(2), "sd": HalfNormal(2)}
ONE_SD = {
    "regular": (groups(5, 8, 1.0), OWN, (0.45, 5.0)),
    "sd near zero": (groups(5, 8, 0.0), OWN, (0.45, 5.0)),
    "tiny": (groups(2, 2, 1.0), OWN, (1e-3, 16.0)),
    "many rows a group": (groups(2000, 6, 1.0), OWN, (0.97, 1.04)),
    "many rows a group, sd near zero": (groups(2000, 6, 0.0), OWN, (0.96, 1.04)),
    "heavy tail": (groups(4, 3, 1.0), OWN | {"sd": HalfStudentT(3, 2)}, (0.2, 12.0)),
}
SDS = [0, 0.004, 0.02, 0.06, 0.15, 0.3, 0.5, 0.75, 1.1, 1.6, 2.5, 4, 7, 12, 25, 60, 200, 1000, 9000]


@pytest.mark.parametrize("name", ONE_SD)
def test_densities_of_sd_and_sigma_equal_direct_integration(name):
    data, priors, (low, high) = ONE_SD[name]
    target = density("y ~ 1 + (1 | g)", data, priors)
    exact = exact_of(target)
    sigma = log_axis(np.geomspace(low, high, 21), 10)
    sd = log_axis(SDS, 10)
    grid = np.stack(np.meshgrid(sigma[0], sd[0], indexing="ij"), axis=-1)
    logs = target.log_density(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    mass = logs + sigma[1][:, None] + sd[1]
    total = special.logsumexp(mass)
    assert exact.log_evidence == pytest.approx(total, abs=1e-6)
    share = np.exp(mass - total)
    for place, axis, (x, weight) in ((0, 1, sigma), (1, 0, sd)):
        curve, probability, value = exact.curve(place), share.sum(axis=axis), np.exp(x)
        expected = probability / np.exp(weight) / value  # a density of the value
        np.testing.assert_allclose(curve.pdf(value), expected, atol=5e-4 * expected.max())
        mean = probability @ value
        assert curve.mean == pytest.approx(mean, rel=1e-5)
        assert curve.sd == pytest.approx(np.sqrt(probability @ (value - mean) ** 2), rel=3e-4)


@pytest.mark.parametrize("data", ["Dyestuff", "Dyestuff2"])
def test_an_sd_that_may_be_zero(data):
    """The density at zero is finite and not zero; the curve and its interval reach down to it."""
    scale = 25.0 if data == "Dyestuff" else 1.0
    center = 1500 if data == "Dyestuff" else 5
    priors = {"Intercept": Normal(center, 4 * scale), "sigma": HalfNormal(4 * scale)}
    target = density(
        "Yield ~ 1 + (1 | Batch)", rf.load_dataset(data), priors | {"sd": HalfNormal(4 * scale)}
    )
    curve = exact_of(target).curve(1)
    assert curve.values[0] < 1e-4 * scale
    sigma, weight = panels(np.linspace(0.8, 16, 20) * scale, 12)
    at_zero = target.log_density(
        np.column_stack([np.log(sigma), np.full(len(sigma), np.log(1e-7 * scale))])
    )
    joint = special.logsumexp(at_zero - np.log(sigma) - np.log(1e-7 * scale), b=weight)
    expected = np.exp(joint - exact_of(target).log_evidence)
    assert curve.pdf(1e-5 * scale) == pytest.approx(expected, rel=1e-4)
    if data == "Dyestuff2":
        assert curve.hdi(0.9)[0] == pytest.approx(0.0, abs=1e-3)


# ------------------------------------------------------------------------------ the correlation


def test_density_of_the_correlation_at_zero():
    """And the ratio of Savage and Dickey, which is that of the evidences."""
    exact = sleep_exact(" + (Days | Subject)")
    assert exact.target.space.names[3] == "corr_Subject[Intercept, Days]"
    at_zero = float(exact.curve(3).pdf(0.0))
    assert at_zero == pytest.approx(1.349244, abs=1e-5)
    independent = sleep_exact(" + (Days || Subject)").log_evidence
    ratio = np.exp(independent - exact.log_evidence)
    assert ratio == pytest.approx(1.79899, abs=1e-4)
    assert at_zero / stats.beta(2, 2, -1, 2).pdf(0) == pytest.approx(ratio, abs=1e-5)


# ------------------------------------------------------------- against large importance samples


def users_values(target, x):
    """Return sigma, sds and correlation of the one term on the user's scale."""
    values, _ = target.space.values(x)
    F = np.linalg.solve(target.cross.bases[0], target.bases[0]) @ target.space.factors(values)[0]
    sd = np.linalg.norm(F, axis=-1)
    corr = correlations(F / sd[..., None])[..., 1, 0]
    return np.column_stack([values[:, 0], sd, corr])


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_curves_on_the_users_scale_are_those_of_an_importance_sample(shift):
    """Where the predictor is far from zero, sd and correlation there are those of a long lever."""
    exact = centred(shift)
    sample = approximate(exact.target, draws=40_000, rng=np.random.default_rng(1))
    found = users_values(exact.target, sample.x)
    for place in range(4):
        distance = stats.kstest(found[:, place], exact.curve(place).cdf).statistic
        assert distance < 2.0 / np.sqrt(sample.ess)


def test_curves_of_the_sleep_study_are_those_of_an_importance_sample():
    exact = sleep_exact(" + (Days | Subject)")
    sample = approximate(sleep(" + (Days | Subject)"), draws=30_000, rng=np.random.default_rng(2))
    assert sample.khat < 0.5
    values, _ = exact.target.space.values(sample.x)
    for place in range(4):
        distance = stats.kstest(values[:, place], exact.curve(place).cdf).statistic
        assert distance < 2.0 / np.sqrt(sample.ess)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_means_over_the_nodes_are_those_of_the_curves(shift):
    exact = centred(shift)

    def sds(_, factors):
        return np.linalg.norm(factors[0], axis=2)

    def corr(_, factors):
        unit = factors[0] / np.linalg.norm(factors[0], axis=2)[:, :, None]
        return correlations(unit)[:, 1, 0]

    mean = expected(exact, sds)
    assert exact.curve(0).mean == pytest.approx(expected(exact, lambda s, _: s), rel=1e-5)
    assert exact.curve(1).mean == pytest.approx(mean[0], rel=1e-2 if shift else 1e-4)
    assert exact.curve(2).mean == pytest.approx(mean[1], rel=1e-4)
    assert exact.curve(3).mean == pytest.approx(expected(exact, corr), abs=1e-2 if shift else 2e-4)


# ------------------------------------------------------------------------------- the effects


def test_moments_of_effects_are_those_of_their_curves():
    exact = centred()
    mean, cov = exact.beta_moments
    for j in range(2):
        curve = exact.beta_curve(j)
        assert curve.mean == pytest.approx(mean[j], abs=1e-4 * curve.sd)
        assert curve.sd == pytest.approx(np.sqrt(cov[j, j]), rel=1e-4)
    effects, sds = exact.effect_moments[0]
    for level, coef in ((0, 0), (3, 1)):
        curve = exact.effect_curve(0, level, coef)
        assert curve.mean == pytest.approx(effects[level, coef], abs=1e-4 * curve.sd)
        assert curve.sd == pytest.approx(sds[level, coef], rel=1e-4)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_draws_follow_the_curves(shift):
    exact = centred(shift)
    drawn = exact.draw(3000, np.random.default_rng(4))
    F = drawn.factors[0]
    sd = np.linalg.norm(F, axis=2)
    parts = [drawn.sigma, sd[:, 0], sd[:, 1], correlations(F / sd[:, :, None])[:, 1, 0]]
    for place, own in enumerate(parts):
        assert stats.kstest(own, exact.curve(place).cdf).pvalue > 1e-3
    for j in range(2):
        assert stats.kstest(drawn.beta[:, j], exact.beta_curve(j).cdf).pvalue > 1e-3
    for level, coef in ((0, 0), (3, 1)):
        own = drawn.b[0][:, level, coef]
        assert stats.kstest(own, exact.effect_curve(0, level, coef).cdf).pvalue > 1e-3


GIVEN = {
    "a given slope": {"x": StudentT(3, 0, 2)},
    "a given intercept": {"Intercept": StudentT(3, 5, 2)},
    "both centred": "brms",
}


@pytest.mark.parametrize("priors", GIVEN.values(), ids=GIVEN)
def test_curves_of_effects_that_are_not_integrated_out(priors):
    exact = exact_of(density("y ~ x + (1 | g)", slopes_frame(), priors))
    drawn = exact.draw(4000, np.random.default_rng(5))
    mean, cov = exact.beta_moments
    for j in range(2):
        curve = exact.beta_curve(j)
        assert stats.kstest(drawn.beta[:, j], curve.cdf).pvalue > 1e-3
        assert curve.mean == pytest.approx(mean[j], abs=1e-4 * curve.sd)
        assert curve.sd == pytest.approx(np.sqrt(cov[j, j]), rel=1e-4)


@pytest.mark.parametrize("shift", [0.0, 1e-12, 1e-3, 0.3])
def test_an_intercept_at_a_predictor_of_mean_zero(shift):
    """Its density along the centred one has parts as narrow as the shift: they must overlap."""
    data = slopes_frame()
    x = (data["x"] - data["x"].mean()) / data["x"].std() + shift
    exact = exact_of(density("y ~ x + (1 | g)", data.assign(x=x), "brms"))
    mean, cov = exact.beta_moments
    curve = exact.beta_curve(0)
    assert curve.mean == pytest.approx(mean[0], abs=1e-4 * curve.sd)
    assert curve.sd == pytest.approx(np.sqrt(cov[0, 0]), rel=1e-4)
    q = curve.quantile(np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(curve.cdf(q), np.linspace(0.01, 0.99, 50), atol=1e-3)
    drawn = exact.draw(3000, np.random.default_rng(6)).beta[:, 0]
    assert stats.kstest(drawn, curve.cdf).pvalue > 1e-3


def test_the_density_of_a_fixed_effect_is_the_mixture_over_the_nodes():
    exact = exact_of(density("y ~ 1 + (1 | g)", groups(4, 2, 1.0), OWN))
    means, covs = exact.beta(exact.mixture)
    x = np.linspace(3, 7, 9)
    parts = stats.norm(means[:, 0], np.sqrt(covs[:, 0, 0]))
    expected = parts.pdf(x[:, None]) @ exact.mixture.weights
    np.testing.assert_allclose(exact.beta_curve(0).pdf(x), expected, atol=1e-4)
