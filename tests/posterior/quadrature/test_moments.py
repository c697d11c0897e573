"""Marginal densities and moments by quadrature, against direct integration and other routes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from density_cases import density, sleep
from lattice_cases import log_axis, panels, sleep_exact, slopes_frame
from scipy import integrate, special, stats

import ranef as rf
from fits import fit_of, frame
from ranef.covariances.partial_correlations import correlations
from ranef.posterior.laplace import approximate
from ranef.posterior.quadrature.moments import Exact
from ranef.priors.distributions import (
    Constant,
    Flat,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
)

SCALAR = "Reaction ~ Days + (1 | Subject)"


@cache
def slopes(shift=0.0, n=80):
    """Return a posterior whose priors hold at zero predictors, or near a shift."""
    data = slopes_frame(n=n)
    return Exact.of(density("y ~ x + (x | g)", data.assign(x=shift + data["x"]), "default"))


# ------------------------------------------------------------------- one sd, by two dimensions


def expected(exact, of):
    """Return the posterior mean of a function of sigma and the factors."""
    mixed, sigma = exact.mixture, exact.mixture.sigma
    factors = exact.target.users_factors(mixed.nodes.values)
    return exact.expected(of(sigma, [sigma[:, None, None] * F[mixed.rows] for F in factors]))


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
    exact = Exact.of(target)
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
    curve = Exact.of(target).curve(1)
    assert curve.values[0] < 1e-4 * scale
    sigma, weight = panels(np.linspace(0.8, 16, 20) * scale, 12)
    at_zero = target.log_density(
        np.column_stack([np.log(sigma), np.full(len(sigma), np.log(1e-7 * scale))])
    )
    joint = special.logsumexp(at_zero - np.log(sigma) - np.log(1e-7 * scale), b=weight)
    expected = np.exp(joint - Exact.of(target).log_evidence)
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
    exact = slopes(shift, n=400)
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


@pytest.mark.parametrize("shift", [0.0, 4.0, 1000.0])
def test_means_over_the_nodes_are_those_of_the_curves(shift):
    exact = slopes(shift)

    def sds(_, factors):
        return np.linalg.norm(factors[0], axis=2)

    def corr(_, factors):
        unit = factors[0] / np.linalg.norm(factors[0], axis=2)[:, :, None]
        return correlations(unit)[:, 1, 0]

    mean = expected(exact, sds)
    assert exact.curve(0).mean == pytest.approx(expected(exact, lambda s, _: s), rel=1e-5)
    assert exact.curve(1).mean == pytest.approx(mean[0], rel=1e-4)
    assert exact.curve(2).mean == pytest.approx(mean[1], rel=1e-4)
    assert exact.curve(3).mean == pytest.approx(expected(exact, corr), abs=1e-2 if shift else 2e-4)


# ------------------------------------------------------------------------------- the effects


@pytest.mark.parametrize("priors", [{}, {"Days": StudentT(3, 0, 20)}], ids=["normal", "given"])
def test_moments_of_fixed_effects_are_those_of_the_mixture_of_all_nodes(priors):
    fit = rf.fit(SCALAR, rf.load_dataset("sleepstudy"), "quadrature", priors=priors)
    exact = fit.marginals.exact
    means, covs = exact.beta(exact.mixture)
    weights = exact.mixture.weights
    average = weights @ means
    spread = covs + (means - average)[:, :, None] * (means - average)[:, None, :]
    mean, cov = exact.beta_moments
    np.testing.assert_allclose(mean, average, rtol=1e-12)
    np.testing.assert_allclose(cov, np.tensordot(weights, spread, axes=1), rtol=1e-10)


def test_moments_of_effects_are_those_of_their_curves():
    exact = slopes()
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
    exact = slopes(shift)
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
    exact = Exact.of(density("y ~ x + (1 | g)", slopes_frame(), priors))
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
    exact = Exact.of(density("y ~ x + (1 | g)", data.assign(x=x), "brms"))
    mean, cov = exact.beta_moments
    curve = exact.beta_curve(0)
    assert curve.mean == pytest.approx(mean[0], abs=1e-4 * curve.sd)
    assert curve.sd == pytest.approx(np.sqrt(cov[0, 0]), rel=1e-4)
    q = curve.quantile(np.linspace(0.01, 0.99, 50))
    np.testing.assert_allclose(curve.cdf(q), np.linspace(0.01, 0.99, 50), atol=1e-3)
    drawn = exact.draw(3000, np.random.default_rng(6)).beta[:, 0]
    assert stats.kstest(drawn, curve.cdf).pvalue > 1e-3


def test_the_density_of_a_fixed_effect_is_the_mixture_over_the_nodes():
    exact = Exact.of(density("y ~ 1 + (1 | g)", groups(4, 2, 1.0), OWN))
    means, covs = exact.beta(exact.mixture)
    x = np.linspace(3, 7, 9)
    parts = stats.norm(means[:, 0], np.sqrt(covs[:, 0, 0]))
    expected = parts.pdf(x[:, None]) @ exact.mixture.weights
    np.testing.assert_allclose(exact.beta_curve(0).pdf(x), expected, atol=1e-4)


SLEEPERS = rf.load_dataset("sleepstudy")
FORMULA = "Reaction ~ Days + (1 | Subject)"
PARAMETERS = "`Intercept`, `Days`, `sigma`, `sd_Subject[Intercept]`"
KINDS = ("one factor", "independent slopes", "nested", "no random terms", "no intercept")


@pytest.fixture(scope="module")
def sleep_fit():
    return rf.fit(FORMULA, SLEEPERS, "quadrature", seed=1)


@pytest.fixture(params=KINDS)
def fit(request):
    return fit_of(request.param, "quadrature")


# --------------------------------------------------------------- against what is known otherwise


def test_a_linear_model_under_flat_priors_is_the_textbooks():
    """With flat priors on beta and sigma: t distributions, and an inverse gamma of sigma^2."""
    fit = rf.fit("y ~ x + f", frame(), "quadrature", priors="flat")
    X, y = fit.design.rows.X, fit.design.rows.y
    n, p = X.shape
    beta = np.linalg.lstsq(X, y, rcond=None)[0]
    rss = np.sum((y - X @ beta) ** 2)
    nu = n - p - 1
    root = np.sqrt(rss / nu * np.diag(np.linalg.inv(X.T @ X)))
    for j, name in enumerate(fit.design.fixed):
        exact, curve = stats.t(nu, beta[j], root[j]), fit.curve(name)
        x = exact.ppf(np.linspace(0.001, 0.999, 9))
        np.testing.assert_allclose(curve.cdf(x), exact.cdf(x), atol=5e-6)
        np.testing.assert_allclose(curve.pdf(x), exact.pdf(x), rtol=1e-4)
        assert fit.fixef()[name] == pytest.approx(beta[j], rel=1e-6)
        assert fit.se()[name] == pytest.approx(exact.std(), rel=1e-6)
        np.testing.assert_allclose(fit.hdi(0.9).loc[name], exact.interval(0.9), rtol=1e-4)
    variance, curve = stats.invgamma(nu / 2, scale=rss / 2), fit.curve("sigma")
    x = np.sqrt(variance.ppf(np.linspace(0.001, 0.999, 9)))
    np.testing.assert_allclose(curve.cdf(x), variance.cdf(x**2), atol=5e-6)
    np.testing.assert_allclose(curve.pdf(x), 2 * x * variance.pdf(x**2), rtol=1e-5)
    assert fit.varcorr().sigma2 == pytest.approx(variance.mean(), rel=1e-6)


def test_known_variances_leave_a_normal_distribution():
    priors = {"sd": Constant(30), "sigma": Constant(25), "Intercept": Normal(250, 50)}
    priors["Days"] = Normal(8, 2)
    fit = rf.fit(FORMULA, SLEEPERS, "quadrature", priors=priors, seed=1)
    X, y = fit.design.rows.X, fit.design.rows.y
    Z = pd.get_dummies(SLEEPERS["Subject"]).to_numpy(dtype=float)
    W = np.hstack([X, Z])
    mean, sd = np.append([250, 8], np.zeros(18)), np.append([50, 2], np.full(18, 30))
    cov = np.linalg.inv(W.T @ W / 25**2 + np.diag(1 / sd**2))
    expected = cov @ (W.T @ y / 25**2 + mean / sd**2)
    np.testing.assert_allclose(fit.fixef(), expected[:2], rtol=1e-9)
    np.testing.assert_allclose(fit.vcov(), cov[:2, :2], rtol=1e-8)
    table = fit.ranef_table(0.9)
    np.testing.assert_allclose(table["estimate"], expected[2:], rtol=1e-6)
    np.testing.assert_allclose(table["sd"], np.sqrt(np.diag(cov)[2:]), rtol=1e-6)
    z = stats.norm.ppf(0.95) * table["sd"]
    np.testing.assert_allclose(table["upper"] - table["estimate"], z, rtol=1e-4)
    marginal = stats.multivariate_normal(W @ mean, W @ np.diag(sd**2) @ W.T + 25**2 * np.eye(180))
    found = fit.log_marginal_likelihood()
    assert found.value == pytest.approx(marginal.logpdf(y), rel=1e-10)
    assert found.mcse == 0
    assert fit.estimates()[["sigma", "sd_Subject[Intercept]"]].tolist() == pytest.approx([25, 30])
    assert str(fit).endswith("Every variance parameter is known, so that nothing is approximated.")
    np.testing.assert_allclose(fit.draws("sigma"), np.full(4000, 25))
    off = (fit.draws("beta").mean(axis=0) - expected[:2]) / np.sqrt(np.diag(cov)[:2] / 4000)
    assert np.abs(off).max() < 4


@pytest.fixture(scope="module")
def dyestuff():
    """Return the fit of balanced one-way data, and the same posterior by a sum over a grid.

    The eigenvalues of the covariance are known in closed form: one for the mean, one for the
    differences of the batches, one for those inside of them.
    """
    data = rf.load_dataset("Dyestuff")
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", data, "quadrature", seed=1)
    y = data["Yield"].to_numpy(dtype=float)
    means = data.groupby("Batch", observed=True)["Yield"].mean().to_numpy()
    between, s = 5 * np.sum((means - y.mean()) ** 2), y.std(ddof=1)
    within = np.sum((y - y.mean()) ** 2) - between
    log_sigma = np.linspace(np.log(15), np.log(200), 401)
    tau = 2000 * np.linspace(0, 1, 4001) ** 2
    sigma = np.exp(log_sigma)[:, None]
    a, b = sigma**2 + 5 * tau**2, sigma**2
    logp = -0.5 * (5 * np.log(a) + between / a + 24 * np.log(b) + within / b)
    # in the direction of the mean, where the prior's mean is the data's
    logp -= 0.5 * np.log(a + 30 * (2.5 * s) ** 2) + 15 * np.log(2 * np.pi)
    logp += stats.t(3, 0, s).logpdf(tau) + stats.t(3, 0, s).logpdf(sigma) + 2 * np.log(2)
    logp += log_sigma[:, None]
    return fit, log_sigma, tau, logp


def test_the_marginal_likelihood_is_that_of_a_fine_grid(dyestuff):
    fit, log_sigma, tau, logp = dyestuff
    top = logp.max()
    inner = integrate.simpson(np.exp(logp - top), x=tau, axis=1)
    whole = top + np.log(integrate.simpson(inner, x=log_sigma))
    found = fit.log_marginal_likelihood()
    assert isinstance(found, rf.MarginalLikelihood)
    assert found.value == pytest.approx(whole, abs=1e-6)
    assert found.mcse < 1e-6
    assert found.method == "quadrature"
    assert str(found).startswith(f"log marginal likelihood {whole:.4f}, error ")


def test_densities_of_standard_deviations_are_those_of_a_fine_grid(dyestuff):
    fit, log_sigma, tau, logp = dyestuff
    density = np.exp(logp - logp.max())
    for name, x, along, other in (
        ("sd_Batch[Intercept]", tau, 0, log_sigma),
        ("sigma", np.exp(log_sigma), 1, tau),
    ):
        own = integrate.simpson(density, x=other, axis=along)
        own = own / np.exp(log_sigma) if name == "sigma" else own
        own /= integrate.simpson(own, x=x)
        curve = fit.curve(name)
        assert isinstance(curve, rf.Curve)
        cdf = integrate.cumulative_simpson(own, x=x, initial=0)
        chosen = (cdf > 1e-4) & (cdf < 0.999)
        np.testing.assert_allclose(curve.cdf(x)[chosen], cdf[chosen], atol=2e-5)
        np.testing.assert_allclose(curve.pdf(x)[chosen], own[chosen], rtol=1e-3)
        mean = integrate.simpson(own * x, x=x)
        assert fit.estimates()[name] == pytest.approx(mean, rel=1e-4)
        sd = np.sqrt(integrate.simpson(own * (x - mean) ** 2, x=x))
        assert fit.summary().to_frame().loc[name, "sd"] == pytest.approx(sd, rel=1e-3)


def test_a_known_ratio_makes_an_sd_a_multiple_of_sigma():
    priors = {"sd": Relative(Constant(1.5))}
    fit = rf.fit(FORMULA, SLEEPERS, "quadrature", priors=priors)
    table = fit.summary().to_frame()
    np.testing.assert_allclose(table.loc["sd_Subject[Intercept]"], 1.5 * table.loc["sigma"])
    sd, sigma = fit.curve("sd_Subject[Intercept]"), fit.curve("sigma")
    assert sd.mean == pytest.approx(1.5 * sigma.mean)
    assert sd.pdf(45) == pytest.approx(sigma.pdf(30) / 1.5)
    assert float(sd.quantile(0.3)) == pytest.approx(1.5 * float(sigma.quantile(0.3)))


# ------------------------------------------------------------------------ units and origins


def test_the_posterior_follows_the_units_of_the_response_and_of_a_predictor(sleep_fit):
    """y -> a + c y, x -> d + e x: the default priors move along, so that nothing else changes."""
    a, c, d, e = -700.0, 0.013, 30.0, 1000.0
    moved = SLEEPERS.assign(Reaction=a + c * SLEEPERS["Reaction"], Days=d + e * SLEEPERS["Days"])
    fit = rf.fit(FORMULA, moved, "quadrature", seed=1)
    old, new = sleep_fit.hdi(0.9), fit.hdi(0.9)
    for name in ("sigma", "sd_Subject[Intercept]"):
        np.testing.assert_allclose(new.loc[name], c * old.loc[name], rtol=1e-5)
    np.testing.assert_allclose(new.loc["Days"], c / e * old.loc["Days"], rtol=1e-5)
    origin = a + c * sleep_fit.fixef()["Intercept"] - c * d / e * sleep_fit.fixef()["Days"]
    assert fit.fixef()["Intercept"] == pytest.approx(origin, rel=1e-8)
    np.testing.assert_allclose(
        fit.ranef_table()["upper"], c * sleep_fit.ranef_table()["upper"], 1e-4
    )
    np.testing.assert_allclose(fit.fitted(), a + c * sleep_fit.fitted(), rtol=1e-8)
    jacobian = -180 * np.log(c)
    both = (f.log_marginal_likelihood().value for f in (fit, sleep_fit))
    assert next(both) - next(both) == pytest.approx(jacobian, abs=1e-6)


def test_the_order_of_rows_and_the_names_of_levels_do_not_matter(sleep_fit):
    other = SLEEPERS.sample(frac=1, random_state=1)
    other["Subject"] = "s" + other["Subject"].astype(str)
    fit = rf.fit(FORMULA, other, "quadrature")
    np.testing.assert_allclose(fit.summary().to_frame(), sleep_fit.summary().to_frame(), rtol=1e-6)


# --------------------------------------------------------------------- the answers fit together


def test_curves_and_estimates_are_of_one_posterior(fit):
    table = fit.summary(0.8).to_frame()
    for name in table.index:
        curve, row = fit.curve(name), table.loc[name]
        assert curve.mean == pytest.approx(row["mean"], abs=2e-4 * row["sd"])
        assert curve.sd == pytest.approx(row["sd"], rel=1e-3)
        assert curve.hdi(0.8) == pytest.approx((row["lower"], row["upper"]))
        inside = np.diff(curve.cdf(np.array(curve.hdi(0.8))))[0]
        assert inside == pytest.approx(0.8, abs=1e-5)
        x = np.linspace(*curve.quantile([0.01, 0.99]), 2001)
        assert integrate.simpson(curve.pdf(x), x=x) == pytest.approx(0.98, abs=1e-4)


def test_the_ends_of_an_interval_are_equally_likely(sleep_fit):
    for name in sleep_fit.estimates().index:
        curve = sleep_fit.curve(name)
        lower, upper = curve.pdf(np.array(curve.hdi(0.9)))
        assert lower == pytest.approx(upper, rel=1e-2)


def test_effects_have_densities_of_their_own(fit):
    table = fit.ranef_table(0.7)
    for row in table.iloc[::9].itertuples():
        curve = fit.effect_curve(row.term, row.level, row.coef)
        assert curve.mean == pytest.approx(row.estimate, abs=1e-3 * row.sd)
        assert curve.sd == pytest.approx(row.sd, rel=2e-3)
        assert curve.hdi(0.7) == pytest.approx((row.lower, row.upper))


def test_draws_are_made_when_they_are_asked_for(sleep_fit):
    made = rf.fit(FORMULA, SLEEPERS, "quadrature", draws=50, seed=2)
    str(made), made.ranef(), made.curve("Days"), made.fitted()
    assert "posterior" not in vars(made)
    assert dict(made.posterior["posterior"].sizes)["draw"] == 50
    assert made.posterior is made.posterior
    assert dict(sleep_fit.posterior["posterior"].sizes)["draw"] == 4000


def test_draws_of_a_fit_follow_its_curves(sleep_fit):
    """Kolmogorov's distance; also of each effect to its own curve."""
    pairs = [(sleep_fit.curve("sigma"), sleep_fit.draws("sigma"))]
    pairs.append((sleep_fit.curve("sd_Subject[Intercept]"), sleep_fit.draws("sd_Subject")[:, 0]))
    pairs += [
        (sleep_fit.curve(n), sleep_fit.draws("beta")[:, j])
        for j, n in enumerate(sleep_fit.fixef().index)
    ]
    for j, level in enumerate(sleep_fit.design.terms[0].levels):
        own = sleep_fit.draws("b_Subject")[:, j, 0]
        pairs.append((sleep_fit.effect_curve("Subject", level, "Intercept"), own))
    p = [stats.kstest(draws, curve.cdf).pvalue for curve, draws in pairs]
    assert min(p) > 1e-3 / len(p)


def test_many_groups_have_narrow_densities():
    """Where thousands of groups pin an sd down, its density is resolved all the same."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(20_000), 2)
    data = pd.DataFrame({"g": codes, "y": rng.normal(size=20_000)[codes] + rng.normal(size=40_000)})
    fit = rf.fit("y ~ 1 + (1 | g)", data, "quadrature")
    row, curve = fit.summary().to_frame().loc["sd_g[Intercept]"], fit.curve("sd_g[Intercept]")
    assert curve.mean == pytest.approx(row["mean"], abs=1e-2 * row["sd"])
    assert curve.sd == pytest.approx(row["sd"], rel=1e-2)
    half = special.ndtri(0.975) * row["sd"]  # with so many groups it is normal
    np.testing.assert_allclose(row[["lower", "upper"]], row["mean"] + [-half, half], rtol=1e-4)


# ---------------------------------------------------------------------------- names and errors


def test_a_coefficient_may_be_called_sigma():
    data = frame().rename(columns={"x": "sigma"})
    priors = {"beta": rf.priors.StudentT(4, 3, 1)}
    fit = rf.fit("y ~ sigma + (1 | g)", data, "quadrature", priors=priors)
    assert list(fit.estimates().index[:3]) == ["Intercept", "beta[sigma]", "sigma"]
    for name in ("beta[sigma]", "sigma"):
        assert fit.curve(name).mean == pytest.approx(fit.estimates()[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Day", "the posterior has no parameter 'Day'. Did you mean `Days`?"),
        (
            "sd_Subject",
            "the posterior has no parameter 'sd_Subject'. Did you mean `sd_Subject[Intercept]`?",
        ),
        (None, f"the posterior has no parameter None. Known names: {PARAMETERS}."),
    ],
)
def test_curves_that_there_are_not(sleep_fit, name, message):
    with pytest.raises(rf.FitError) as caught:
        sleep_fit.curve(name)
    assert str(caught.value) == message


def test_what_is_known_has_no_curve():
    fit = rf.fit(FORMULA, SLEEPERS, "quadrature", priors={"sigma": Constant(30)})
    with pytest.raises(rf.FitError) as caught:
        fit.curve("sigma")
    assert str(caught.value) == "`sigma` is known to be 30 and has no density."


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            ("Subjects", "308", "Intercept"),
            "there is no random-effects term 'Subjects'. Did you mean `Subject`?",
        ),
        (
            ("Subject", "3080", "Intercept"),
            "`Subject` has no level '3080'. Did you mean `308`?",
        ),
        (
            ("Subject", "308", "Days"),
            "(1 | Subject) has no coefficient 'Days'. Known names: `Intercept`.",
        ),
    ],
)
def test_effects_that_there_are_not(sleep_fit, place, message):
    with pytest.raises(rf.FitError) as caught:
        sleep_fit.effect_curve(*place)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["ranef_table", "hdi", "summary", "confint", "plot_caterpillar"])
def test_probabilities_lie_between_0_and_1(sleep_fit, name):
    with pytest.raises(rf.FitError) as caught:
        getattr(sleep_fit, name)(prob=95)
    assert str(caught.value) == "`prob` must lie between 0 and 1, got 95."


def test_the_page(sleep_fit):
    lines = str(sleep_fit).splitlines()
    assert lines[0] == "Linear mixed model, posterior by quadrature"
    assert lines[3] == f"  {sleep_fit.log_marginal_likelihood()}"
    assert lines[5] == "Posterior, with 95 % HPD intervals"
    assert lines[6].split() == ["mean", "sd", "lower", "upper"]
    error = f"{sleep_fit.diagnostics.error:.0e}"
    nodes = sleep_fit.diagnostics.nodes
    assert lines[-1] == f"{nodes} nodes; relative error of the integral about {error}."


def test_a_flat_prior_of_beta_and_a_narrow_one_of_an_sd():
    fit = rf.fit(FORMULA, SLEEPERS, "quadrature", priors={"beta": Flat(), "sd": HalfNormal(0.5)})
    assert fit.curve("sd_Subject[Intercept]").cdf(2.0) > 0.99
    assert fit.fixef()["Days"] == pytest.approx(rf.fit("Reaction ~ Days", SLEEPERS).fixef()["Days"])
