"""Posterior fits: what draws that are known by hand must give, and a sampled one's page."""

from __future__ import annotations

import re

import arviz as az
import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import FORMULAS, fit_of, known_posterior, model_of
from ranef.diagnostics import hdi


@pytest.fixture(params=FORMULAS)
def fit(request):
    return fit_of(request.param, "posterior")


def variable(fit, name):
    return fit.posterior["posterior"][name].to_numpy()


def shortest(draws, prob):
    """Return the shortest of the intervals between sorted draws that hold the share `prob`."""
    ordered = np.sort(draws.ravel())
    inside = int(np.floor(prob * len(ordered)))
    widths = ordered[inside:] - ordered[: len(ordered) - inside]
    return ordered[widths.argmin()], ordered[widths.argmin() + inside]


# ----------------------------------------------------------------------------- the numbers


def test_draws_join_the_chains_in_order(fit):
    for name in fit.posterior["posterior"].data_vars:
        draws, chains = fit.draws(name), variable(fit, name)
        assert draws.shape == (4 * 150, *chains.shape[2:])
        np.testing.assert_array_equal(draws[150:300], chains[1])


def test_estimates_are_posterior_means(fit):
    if fit.design.fixed:
        beta = variable(fit, "beta").reshape(600, -1)
        np.testing.assert_allclose(fit.fixef(), beta.mean(axis=0))
        np.testing.assert_allclose(fit.vcov(), np.atleast_2d(np.cov(beta.T)))
        np.testing.assert_allclose(fit.se(), beta.std(axis=0, ddof=1))
    assert fit.sigma == pytest.approx(variable(fit, "sigma").mean())
    for term in fit.design.terms:
        b = variable(fit, f"b_{term.label}")
        np.testing.assert_allclose(fit.ranef()[term.label], b.mean(axis=(0, 1)))


def test_variance_components_are_posterior_means(fit):
    found = fit.varcorr()
    for term in fit.design.terms:
        k, label = term.n_coefs, term.label
        sds = variable(fit, f"sd_{label}").reshape(600, k)
        name = f"corr_{label}"
        known = term.correlated and k > 1
        corrs = variable(fit, name).reshape(600, k, k) if known else np.tile(np.eye(k), (600, 1, 1))
        covs = [np.diag(s) @ c @ np.diag(s) for s, c in zip(sds, corrs, strict=True)]
        np.testing.assert_allclose(found.sd[label], sds.mean(axis=0))
        np.testing.assert_allclose(found.corr[label], corrs.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.cov[label], np.mean(covs, axis=0), atol=1e-12)


def test_theta_is_the_mean_of_the_relative_factors(fit):
    thetas = []
    for draw in range(600):
        theta = []
        for term in fit.design.terms:
            sd = fit.draws(f"sd_{term.label}")[draw] / fit.draws("sigma")[draw]
            k = term.n_coefs
            known = term.correlated and k > 1
            corr = fit.draws(f"corr_{term.label}")[draw] if known else np.eye(k)
            Lambda = np.linalg.cholesky(np.outer(sd, sd) * corr)
            theta += [
                Lambda[i, j] for j in range(k) for i in range(j, k) if i == j or term.correlated
            ]
        thetas.append(theta)
    np.testing.assert_allclose(fit.theta, np.mean(thetas, axis=0))


def test_random_effects_have_the_shortest_intervals(fit):
    table = fit.ranef_table(0.8)
    for term in fit.design.terms:
        rows = table[table["term"] == term.label]
        b = variable(fit, f"b_{term.label}").reshape(600, -1)
        np.testing.assert_allclose(rows["sd"], b.std(axis=0, ddof=1))
        expected = np.array([shortest(draws, 0.8) for draws in b.T])
        np.testing.assert_allclose(rows[["lower", "upper"]], expected)


def test_intervals_of_all_parameters(fit):
    table = fit.hdi(0.6)
    pd.testing.assert_frame_equal(table, fit.confint(prob=0.6))
    pd.testing.assert_frame_equal(table, fit.confint("hpd", 0.6))
    assert list(table.index) == list(fit.estimates().index)
    np.testing.assert_allclose(table.loc["sigma"], shortest(variable(fit, "sigma"), 0.6))
    for term in fit.design.terms:
        sds = variable(fit, f"sd_{term.label}")
        for i, coef in enumerate(term.coefs):
            row = table.loc[f"sd_{term.label}[{coef}]"]
            np.testing.assert_allclose(row, shortest(sds[..., i], 0.6))


def test_a_posterior_is_never_singular():
    fit = known_posterior(model_of("one factor"), sd_g=np.full((4, 150, 1), 1e-12))
    assert fit.is_singular is False


# ------------------------------------------------------------------------- how far to trust


def test_draws_that_agree_are_relied_on():
    fit = known_posterior(model_of("one factor"), draws=1000)
    assert fit.convergence is rf.Convergence.MIXED
    assert fit.converged is True
    assert fit.diagnostics is fit.diagnostics
    assert fit.diagnostics.ok


def test_chains_that_disagree_are_not():
    sigma = np.full((4, 1000), 1.0) + np.random.default_rng(1).normal(size=(4, 1000)) / 100
    sigma[0] += 1
    fit = known_posterior(model_of("one factor"), draws=1000, sigma=sigma)
    assert fit.convergence is rf.Convergence.NOT_MIXED
    assert fit.converged is False
    assert "R-hat of `sigma` is" in str(fit)


# ----------------------------------------------------------------------------- the printed page

PAGE = r"""Linear mixed model, posterior by MCMC \(NUTS\)
  Reaction ~ Days \+ \(Days \| Subject\)
  180 rows; 18 levels of Subject
  4 chains of 1000 draws

Posterior, with 95 % HPD intervals
 +mean +sd +lower +upper +ess_bulk +ess_tail +r_hat +mcse_mean
  Intercept +NUMBERS
  Days +NUMBERS
  sigma +NUMBERS
  sd_Subject\[Intercept\] +NUMBERS
  sd_Subject\[Days\] +NUMBERS
  corr_Subject\[Intercept, Days\] +NUMBERS

No divergences in 4000 draws; R-hat at most 1\.0\d\d, effective sample size at least \d+, E-BFMI at
least \d\.\d\d\."""


def test_the_page_of_a_sampled_posterior(sleep_post):
    numbers = r" +".join([r"-?\d+\.\d\d"] * 4 + [r"\d+", r"\d+", r"\d\.\d{3}", r"\d+\.\d+"])
    assert re.fullmatch(PAGE.replace("NUMBERS", numbers), str(sleep_post))
    lengths = {len(line) for line in str(sleep_post).split("\n")[6:13]}
    assert len(lengths) == 1, "aligned"
    assert max(map(len, str(sleep_post).split("\n"))) <= 100
    assert sleep_post._repr_html_().count("<tr") == 7


def test_the_table_of_the_page_is_arvizs(sleep_post):
    table = sleep_post.summary(0.89).to_frame()
    assert "89 % HPD" in str(sleep_post.summary(0.89))
    theirs = az.summary(
        sleep_post.posterior,
        var_names=["beta", "sigma"],
        kind="all",
        round_to="none",
        ci_kind="hdi",
    )
    ours = table.loc[["Intercept", "Days", "sigma"]]
    for name in ("mean", "sd", "ess_bulk", "r_hat"):
        np.testing.assert_allclose(ours[name], theirs[name].astype(float), rtol=1e-6)
    np.testing.assert_allclose(table[["lower", "upper"]], sleep_post.hdi(0.89))


def test_a_sampled_posterior_is_near_reml_and_its_draws_are_a_posterior(sleep_post):
    reml = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    assert sleep_post.method == "mcmc"
    assert sleep_post.converged
    # default priors are vague: a standard error says more than they do
    assert (abs(sleep_post.fixef() - reml.fixef()) < 0.2 * reml.se()).all()
    assert sleep_post.sigma == pytest.approx(reml.sigma, rel=0.03)
    close = np.corrcoef(sleep_post.ranef_table()["estimate"], reml.ranef_table()["estimate"])
    assert close[0, 1] > 0.99
    # of the posterior the sds are larger than the conditional sds, which take theta as known
    assert sleep_post.ranef_table()["sd"].mean() > reml.ranef_table()["sd"].mean()


def test_a_linear_model_is_called_one():
    text = str(fit_of("no random terms", "posterior"))
    assert text.startswith(
        "Linear model, posterior by MCMC (NUTS)\n  y ~ x * f\n  240 rows\n  4 ch"
    )


# --------------------------------------------------------------------------------- errors


def test_a_variable_that_is_not_there():
    with pytest.raises(rf.FitError) as caught:
        fit_of("one factor", "posterior").draws("sd_G")
    assert str(caught.value) == "the posterior has no variable 'sd_G'. Did you mean `sd_g`?"


@pytest.mark.parametrize(
    ("method", "hint"), [("hdp", "Did you mean `hpd`?"), ("wald", "Known names: `hpd`.")]
)
def test_intervals_that_a_posterior_has_not(method, hint):
    with pytest.raises(rf.FitError) as caught:
        fit_of("one factor", "posterior").confint(method)
    assert str(caught.value) == f"method={method!r} is not available for a posterior. {hint}"


@pytest.mark.parametrize("name", ["ranef_table", "hdi", "summary", "confint", "plot_caterpillar"])
def test_probabilities_lie_between_0_and_1(name):
    with pytest.raises(rf.FitError) as caught:
        getattr(fit_of("one factor", "posterior"), name)(prob=95)
    assert str(caught.value) == "`prob` must lie between 0 and 1, got 95."


def test_the_intervals_are_the_diagnostics_own(sleep_post):
    lower, upper = hdi(variable(sleep_post, "b_Subject"), 0.5)
    table = sleep_post.ranef_table(0.5)
    np.testing.assert_array_equal(table["lower"], lower.ravel())
    np.testing.assert_array_equal(table["upper"], upper.ravel())
