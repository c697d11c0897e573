"""Posterior fits: draws known by hand, a sampled page, and what posteriors are compared by."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special, stats

import ranef as rf
from fits import FORMULAS, fit_of, known_posterior, model_of
from ranef.design.design import build_design
from ranef.design.labels import coordinates, named, variables
from ranef.errors import FitError
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.posterior.draws import DrawnMarginals, hdi


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
        known = term.covariance.has_correlations and k > 1
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
            known = term.covariance.has_correlations and k > 1
            corr = fit.draws(f"corr_{term.label}")[draw] if known else np.eye(k)
            Lambda = np.linalg.cholesky(np.outer(sd, sd) * corr)
            theta += [
                Lambda[i, j]
                for j in range(k)
                for i in range(j, k)
                if i == j or term.covariance.has_correlations
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
    numbers = r" +".join([r"-?\d+\.\d+"] * 4 + [r"\d+", r"\d+", r"\d\.\d{3}", r"\d+\.\d+"])
    assert re.fullmatch(PAGE.replace("NUMBERS", numbers), str(sleep_post))
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


# ------------------------------------------------------------------------ generalised models


FAMILY_OF = {"y": "binomial", "count": "negative_binomial"}


def generalised(response="y", text="x + (x | g) + (1 | h)", scale=0.5):
    """Return a posterior of arbitrary draws, made by hand."""
    rng = np.random.default_rng(7)
    n = 60
    data = pd.DataFrame({"x": rng.normal(size=n), "g": np.arange(n) % 6, "h": np.arange(n) % 4})
    data["w"] = rng.integers(1, 9, n).astype(float)
    data["y"] = rng.binomial(data["w"].astype(int), 0.4) / data["w"]
    data["count"] = rng.poisson(4, n).astype(float)
    family = find_family(FAMILY_OF[response])
    weights = "w" if response == "y" else None
    formula = read_formula(f"{response} ~ {text}")
    design = build_design(formula, data, weights=weights, family=family)
    coords = {name: list(labels) for name, labels in coordinates(design, family)[1].items()}
    values = {}
    for name, dims in variables(design, family).items():
        shape = (4, 100, *(len(coords[dim]) for dim in dims))
        positive = name in family.parameters or name.startswith("sd_")
        values[name] = rng.gamma(9, 0.1, shape) if positive else rng.normal(0.3, scale, shape)
        if name.startswith("corr_"):
            values[name] = np.tile([[1, 0.3], [0.3, 1]], (4, 100, 1, 1))
    stats = {"diverging": np.zeros((4, 100)), "maxdepth_reached": np.zeros((4, 100))}
    stats["energy"] = rng.normal(size=(4, 100))
    dims = ("chain", "draw")
    groups = {
        "posterior": named(design, values, family),
        "sample_stats": xr.Dataset({name: (dims, value) for name, value in stats.items()}),
    }
    marginals = DrawnMarginals(design, family, xr.DataTree.from_dict(groups))
    return rf.PosteriorFit(design, family, "mcmc", marginals), data


def test_a_family_without_sigma():
    fit, _ = generalised()
    assert fit.sigma == 1.0
    assert fit.parameters == {}
    assert "sigma" not in fit.estimates().index
    assert "sigma" not in fit.hdi().index
    sds = fit.draws("sd_h").mean()
    assert fit.theta[-1] == pytest.approx(sds)
    assert fit.varcorr().sd["h"].tolist() == pytest.approx([sds])
    assert "Residual" not in str(fit)


def test_own_parameters_are_posterior_means():
    fit, _ = generalised("count")
    shape = fit.draws("shape").mean()
    assert fit.parameters == {"shape": pytest.approx(shape)}
    assert fit.estimates()["shape"] == pytest.approx(shape)
    assert "shape" in fit.hdi().index


@pytest.mark.parametrize("text", ["x + (x | g) + (1 | h)", "0 + (1 | g)", "x"])
def test_fitted_values_are_means_of_mu_and_not_mu_at_the_mean(text):
    fit, _ = generalised(text=text, scale=2.0)
    beta = fit.draws("beta") if fit.design.fixed else np.empty((400, 0))
    eta = beta @ fit.design.rows.X.T
    for term in fit.design.rows.terms:
        eta = eta + (fit.draws(f"b_{term.label}")[:, term.codes] * term.columns).sum(axis=-1)
    mu = special.expit(eta).mean(axis=0)
    np.testing.assert_allclose(fit.fitted(), mu, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(kind="link"), eta.mean(axis=0), rtol=1e-9, atol=1e-12)
    assert np.abs(fit.fitted() - special.expit(eta.mean(axis=0))).max() > 0.01
    left = fit.design.rows.y - mu
    pearson = left * np.sqrt(fit.design.rows.weights / (mu * (1 - mu)))
    np.testing.assert_allclose(fit.residuals(), left, rtol=1e-9)
    np.testing.assert_allclose(fit.residuals("pearson"), pearson, rtol=1e-9)
    unit = 2 * (
        special.rel_entr(fit.design.rows.y, mu) + special.rel_entr(1 - fit.design.rows.y, 1 - mu)
    )
    deviance = np.sign(left) * np.sqrt(fit.design.rows.weights * unit)
    np.testing.assert_allclose(fit.residuals("deviance"), deviance, rtol=1e-9)


def test_predictions_for_new_data_of_new_groups_and_of_the_population():
    fit, data = generalised(scale=2.0)
    rows = data.head(3).assign(g=[0, 1, 99])
    beta = fit.draws("beta")
    fixed = beta[:, :1] + beta[:, 1:] * rows["x"].to_numpy()
    population = special.expit(fixed).mean(axis=0)
    np.testing.assert_allclose(fit.predict(rows, groups="population"), population, rtol=1e-12)
    with_h = fixed + fit.draws("b_h")[:, [0, 1, 2], 0]
    new = fit.predict(rows, groups="new")
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    F = fit.draws_at().factors[[t.label for t in fit.design.terms].index("g")]
    sd = np.sqrt(np.einsum("sij,i->sj", F, [1.0, rows["x"].iloc[2]]) ** 2 @ np.ones(2))
    at = with_h[:, 2, None] + sd[:, None] * nodes
    expected = (special.expit(at) @ weights / weights.sum()).mean()
    assert new[2] == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(new[:2], fit.fitted()[:2])


def test_the_page_of_a_generalised_model():
    fit, _ = generalised()
    lines = str(fit).splitlines()
    assert lines[0] == (
        "Generalised linear mixed model (binomial, logit link), posterior by MCMC (NUTS)"
    )
    plain, _ = generalised("count", "x")
    assert str(plain).splitlines()[0] == (
        "Generalised linear model (negative_binomial, log link), posterior by MCMC (NUTS)"
    )


def let_one_diverge(fit):
    diverging = fit.posterior["sample_stats"]["diverging"].to_numpy()
    diverging.flags.writeable = True
    diverging[0, 0] = 1


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "x + (1 | g)",
            (
                "Raise `target_accept` (to 0.99, say), sample the random effects in the other form "
                "(`centered=`), or give stronger priors."
            ),
        ),
        ("x", "Raise `target_accept` (to 0.99, say), or give stronger priors."),
    ],
)
def test_divergences_of_generalised_models(text, advice):
    fit, _ = generalised(text=text)
    let_one_diverge(fit)
    assert fit.diagnostics.messages()[0].endswith(f"may be missing. {advice}")


def test_a_marginal_form_is_advised_for_linear_models_only():
    linear = known_posterior(model_of("one factor"))
    let_one_diverge(linear)
    assert linear.diagnostics.messages()[0].endswith(
        "Raise `target_accept` (to 0.99, say), sample the marginal form (the default) if this is "
        "the hierarchical one, or give stronger priors."
    )


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


@pytest.mark.parametrize("unit", ["group", "observation"])
def test_draws_agree_with_quadrature(unit):
    exact, drawn = dyestuff(), dyestuff("laplace")
    np.testing.assert_allclose(drawn.scores(unit).elpd, exact.scores(unit).elpd, atol=0.05)


def test_arviz_takes_it():
    import arviz as az

    found = dyestuff().loo("group")
    assert found.elpd == pytest.approx(float(found.elpd_i.sum()))
    assert list(found.elpd_i["Batch"].to_numpy()) == list("ABCDEF")
    labels = rf.load_dataset("Dyestuff")["Batch"]
    none = rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff")).fit("quadrature", seed=1)
    table = az.compare({"batches": found, "none": none.loo("group", labels)})
    assert table.index[0] == "batches"


def test_the_marginal_likelihood_whatever_the_method():
    exact = dyestuff().log_marginal_likelihood()
    assert exact.method == "quadrature"
    assert dyestuff("laplace").log_marginal_likelihood().value == pytest.approx(exact.value)


def test_more_variance_parameters_than_quadrature_takes():
    data = rf.load_dataset("Machines")
    model = rf.Model("score ~ Machine + (Machine | Worker)", data)
    fit = model.fit("laplace", draws=4000, seed=1)
    evidence = fit.log_marginal_likelihood()
    assert "importance sampling" in evidence.method
    assert 0 < evidence.mcse < 0.1


def test_sensitivity_as_a_table():
    found = dyestuff().prior_sensitivity([0.5, 1, 2])
    assert list(found.columns) == ["scale", "log_ratio", "mcse"]
    prior = dyestuff().asked.priors.terms[0].sd[0]
    for s, value in zip(found["scale"], found["log_ratio"], strict=True):
        other = dyestuff(sd=P.HalfStudentT(prior.nu, prior.sigma * s))
        change = other.log_marginal_likelihood().value - dyestuff().log_marginal_likelihood().value
        assert value == pytest.approx(change, abs=1e-5)
    with pytest.raises(rf.FitError, match="scales must be positive"):
        dyestuff().prior_sensitivity([1, -1])


def test_savage_dickey_is_the_ratio_of_marginal_likelihoods():
    fit = dyestuff(Intercept=P.Normal(1500, 100), sd=P.HalfNormal(50), sigma=P.HalfNormal(80))
    none = rf.Model(
        "Yield ~ 1",
        rf.load_dataset("Dyestuff"),
        priors={"Intercept": P.Normal(1500, 100), "sigma": P.HalfNormal(80)},
    ).fit("quadrature", seed=1)
    ratio = none.log_marginal_likelihood().value - fit.log_marginal_likelihood().value
    assert fit.savage_dickey("sd_Batch[Intercept]").log_bf01 == pytest.approx(ratio, abs=1e-6)
    drawn = rf.Model(
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff"),
        priors={
            "Intercept": P.Normal(1500, 100),
            "sd": P.HalfNormal(50),
            "sigma": P.HalfNormal(80),
        },
    ).fit("laplace", seed=1)
    assert drawn.savage_dickey("sd_Batch[Intercept]").log_bf01 == pytest.approx(ratio, abs=1e-6)


def test_a_posterior_without_a_model():
    fit = replace(dyestuff("laplace"), engine=None)
    with pytest.raises(rf.FitError) as caught:
        fit.loo()
    assert str(caught.value) == (
        "this fit has no model to ask, as it was put together by hand or sampled from a PyMC model "
        "of your own: fit a `ranef.Model` as it is."
    )


def test_flat_priors_leave_the_marginal_likelihood_undefined():
    with pytest.raises(rf.FitError, match="not defined under flat priors"):
        dyestuff(Intercept=P.Flat()).log_marginal_likelihood()


@pytest.mark.parametrize("name", ["sd_Subject[Days]", "corr_Subject[Intercept, Days]"])
def test_posterior_over_prior(name):
    priors = {"sd_Subject": rf.priors.HalfNormal(30)}
    data = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (Days | Subject)", data, priors=priors)
    fit = model.fit("quadrature", seed=1)
    axes = fit.plot_savage_dickey(name)
    posterior, prior, *marks = axes.lines
    for line in (posterior, prior):
        value, density = (np.asarray(one) for one in line.get_data())
        assert (np.diff(value) > 0).all()
        area = np.trapezoid(density, value)
        assert area == pytest.approx(1.0, abs=2e-3) or (line is prior and area < 1)
    value, density = (np.asarray(one) for one in prior.get_data())
    if name.startswith("sd"):
        np.testing.assert_allclose(density, stats.halfnorm(scale=30).pdf(value), rtol=1e-9)
    else:
        np.testing.assert_allclose(density, stats.beta(2, 2, -1, 2).pdf(value), rtol=1e-9)
    ratio = fit.savage_dickey(name)
    heights = [float(np.asarray(mark.get_ydata()).item()) for mark in marks]
    assert heights == pytest.approx([ratio.posterior, ratio.prior])


def test_a_posterior_has_the_uncertainty_of_all_parameters(sleep_post):
    table = sleep_post.ranef_table(0.9, uncertainty="all")
    assert table.attrs["interval"] == "posterior mean with 90 % HPD interval"
    with pytest.raises(FitError, match=r"^uncertainty='fixed' is not available for a posterior"):
        sleep_post.ranef_table(uncertainty="fixed")


# ------------------------------------------------------------------- what has no posterior mean


@pytest.mark.parametrize(
    ("family", "name", "priors", "has_mean"),
    [
        ("negative_binomial", "shape", "default", False),
        ("negative_binomial", "shape", {"shape": rf.priors.HalfStudentT(1, 5)}, False),
        ("negative_binomial", "shape", {"shape": rf.priors.HalfStudentT(2, 5)}, True),
        ("negative_binomial", "shape", "rstanarm", True),
        ("t", "nu", "default", True),
        ("t", "nu", {"nu": rf.priors.HalfCauchy(10)}, False),
        ("beta", "phi", {"phi": rf.priors.HalfCauchy(10)}, True),  # a large phi is ruled out
    ],
)
def test_what_has_no_mean_is_not_printed_as_one(family, name, priors, has_mean):
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"x": rng.normal(size=60)})
    mean = np.exp(1 + 0.3 * data["x"])
    by_family = {
        "negative_binomial": rng.poisson(mean),
        "t": rng.normal(mean),
        "beta": rng.beta(2, 3, 60),
    }
    model = rf.Model("y ~ x", data.assign(y=by_family[family]), family=family, priors=priors)
    fit = model.fit("laplace", draws=600, seed=1)
    draws, table, text = fit.draws(name), fit.summary().to_frame(), " ".join(str(fit).split())
    assert fit.parameters[name] == pytest.approx(draws.mean() if has_mean else np.median(draws))
    assert fit.estimates()[name] == fit.parameters[name]
    assert np.isfinite(table.loc[name, ["mean", "sd"]].to_numpy(dtype=float)).all() == has_mean
    assert np.isfinite(table.loc[name, ["lower", "upper"]].to_numpy(dtype=float)).all()
    reason = f"`{name}` has no mean: its prior, {dict(model.priors.parameters)[name]}, has none"
    assert (reason in text) != has_mean
    assert (f"Its median is {fit.parameters[name]:.3g}." in text) != has_mean


# What ArviZ asks for


@pytest.fixture(scope="module")
def grouped():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature", seed=3)
    return fit, fit.add_groups(seed=1)


ARVIZ: dict[str, dict[str, object]] = {
    "loo": {},
    "loo_pit": {},
    "loo_r2": {"var_name": "y"},
    "loo_influence": {},
    "loo_expectations": {},
    "loo_metrics": {},
    "loo_score": {},
    "metrics": {},
    "psense_summary": {},
    "plot_dist": {"group": "parameters"},
    "plot_trace": {"group": "parameters"},
    "plot_loo_pit": {},
    "plot_ppc_dist": {"num_samples": 20},
    "plot_ppc_pit": {},
    "plot_ppc_tstat": {},
    "plot_prior_posterior": {"var_names": ["sigma"]},
    "plot_psense_dist": {"var_names": ["sigma"]},
}


@pytest.mark.parametrize(("name", "options"), ARVIZ.items())
def test_arviz_goes_on_from_a_posterior(grouped, name, options):
    assert getattr(az, name)(grouped[1], **options) is not None


def test_the_group_of_parameters_has_the_names_of_the_print(grouped):
    fit, tree = grouped
    assert list(tree["parameters"].data_vars) == list(fit.estimates().index)
    assert len(az.plot_dist(tree, group="parameters").viz["plot"].data_vars) == 3


def test_groups_say_where_they_come_from(grouped):
    fit, tree = grouped
    assert tree is fit.posterior
    for group in tree.children.values():
        origin = group.attrs
        assert origin["inference_library"] == "ranef"
        assert origin["inference_library_version"] == rf.__version__
        assert origin["formula"] == "Yield ~ 1 + (1 | Batch)"
        assert origin["family"] == "gaussian (identity)"
        assert (origin["method"], origin["seed"]) == ("quadrature", 3)


def test_what_is_known_of_rows_goes_along():
    data = rf.load_dataset("cbpp")
    fit = rf.fit("incidence/size ~ period + (1 | herd)", data, family="binomial", weights="size")
    fit = fit.engine.refit("laplace", seed=1)
    known = fit.add_groups("constant_data")["constant_data"]
    assert known["period"].to_numpy().tolist() == data["period"].astype(str).tolist()
    np.testing.assert_array_equal(known["weights"], data["size"])
    assert "posterior_predictive" not in fit.posterior.children, "only what was asked for"


def test_the_same_seed_draws_the_same_responses(grouped):
    fit, _ = grouped
    first, again, other = (
        fit.posterior_predictive(n=50, seed=s)["posterior_predictive"]["y"].copy()
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_groups_that_there_are_not(grouped):
    fit, _ = grouped
    with pytest.raises(rf.FitError) as error:
        fit.add_groups("log_lik")
    near = "Did you mean `log_likelihood` or `log_prior`?"
    assert str(error.value) == f"group='log_lik' is not available. {near}"
    with pytest.raises(rf.FitError, match="`n` must be a positive whole number, got 0"):
        fit.posterior_predictive(n=0)
