"""Meta-analyses: against metafor, and against posteriors by integrals over tau alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from meta_cases import CASES, SCHOOLS, Grid, frame_of, model_of
from scipy import optimize, stats

import ranef as rf
from fits import dense_Z, frame
from fits import model_of as model_of_kind
from ranef.errors import FitError
from ranef.fits.reports.studies import Settings, row_means

P = rf.priors
METHODS = ("reml", "ml")


def tau2_of(fit):
    return fit.varcorr().cov["study"].iloc[0, 0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_point_estimates_are_metafors(name, method):
    fit, case = model_of(name).fit(method), CASES[name][method]
    assert tau2_of(fit) == pytest.approx(case["tau2"], rel=1e-10, abs=1e-12)
    assert fit.fixef()["Intercept"] == pytest.approx(case["beta"], rel=1e-9)
    assert fit.se()["Intercept"] == pytest.approx(case["se"], rel=1e-9)
    of_coding = np.log(fit.n_obs) / 2 if method == "reml" else 0  # of X, as metafor has it
    assert fit.loglik + of_coding == pytest.approx(case["loglik"], abs=1e-9)
    assert (fit.sigma, fit.df) == (1.0, 2)
    assert fit.is_singular == (case["tau2"] == 0)
    table = fit.forest_table().set_index("label")
    np.testing.assert_allclose(table["estimate"][:-2], case["blup"], rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(table.loc["new", ["lower", "upper"]].tolist(), case["pi"], rtol=1e-8)
    frame = fit.heterogeneity().to_frame()
    assert 100 * frame.loc["I2", "estimate"] == pytest.approx(case["I2"], rel=1e-8, abs=1e-10)
    assert frame.loc["H2", "estimate"] == pytest.approx(case["H2"], rel=1e-8)
    assert f"Q = {case['Q']:.4g} on {fit.n_obs - 1} df, p = {case['Qp']:.3g}" in str(
        fit.heterogeneity()
    )


@pytest.mark.parametrize("name", CASES)
def test_common_effects_are_metafors(name):
    case, model = CASES[name]["common"], model_of(name, "y ~ 1")
    for fit in map(model.fit, METHODS):
        assert fit.fixef()["Intercept"] == pytest.approx(case["beta"], rel=1e-12)
        assert fit.se()["Intercept"] == pytest.approx(case["se"], rel=1e-12)
        assert fit.forest_table()["kind"].tolist() == ["study"] * fit.n_obs + ["mean"]


def test_effects_of_their_own_are_the_estimates():
    for method in METHODS:
        fit = model_of("bcg", "y ~ 0 + study").fit(method)
        by_study = fit.fixef().rename(lambda name: name.removeprefix("study[").removesuffix("]"))
        data = frame_of("bcg").set_index("study")
        np.testing.assert_allclose(by_study[data.index], data["y"], rtol=1e-12)
        np.testing.assert_allclose(np.sort(fit.se()), np.sort(data["s"]), rtol=1e-12)
        assert fit.df == 13


def test_a_predictor_is_as_in_metafor():
    case = CASES["bcg"]["moderated"]
    data = frame_of("bcg").assign(x=case["x"])
    fit = rf.fit("y ~ x + (1 | study)", data, se=data["s"].to_numpy())
    assert tau2_of(fit) == pytest.approx(case["tau2"], rel=1e-9)
    np.testing.assert_allclose(fit.fixef(), case["beta"], rtol=1e-9)
    np.testing.assert_allclose(fit.se(), case["se"], rtol=1e-9)
    shown = fit.heterogeneity()
    assert 100 * shown.to_frame().loc["I2", "estimate"] == pytest.approx(case["I2"], rel=1e-9)
    assert f"Q = {case['Q']:.4g} on 11 df" in str(shown)
    assert "the test that effects differ by the fixed effects only" in str(shown)
    assert set(fit.forest_table()["kind"]) == {"study"}


@pytest.mark.parametrize("name", ["bcg", "hine1989", "molloy2014"])
@pytest.mark.parametrize("method", METHODS)
def test_the_interval_of_tau_is_that_of_its_profile(name, method):
    y, s = (frame_of(name)[column].to_numpy() for column in "ys")

    def deviance(tau):
        w = 1 / (s**2 + tau**2)
        return -2 * stats.norm.logpdf(y, (w @ y) / w.sum(), w**-0.5).sum()

    best = optimize.minimize_scalar(deviance, (0, 0.3), options={"xtol": 1e-12})
    tau = abs(best.x)
    rise = stats.chi2.ppf(0.95, 1)

    def excess(t):
        return deviance(t) - min(best.fun, deviance(0.0)) - rise

    upper = optimize.brentq(excess, tau, 100 * (tau + s.mean()))
    lower = optimize.brentq(excess, 0, tau) if excess(0.0) > 0 else 0.0
    fit = model_of(name).fit(method)
    frame = fit.heterogeneity().to_frame()
    np.testing.assert_allclose(frame.loc["tau", ["lower", "upper"]], [lower, upper], rtol=1e-5)
    np.testing.assert_allclose(
        frame.loc["tau2", ["lower", "upper"]], np.square([lower, upper]), rtol=2e-5
    )
    assert list(fit.profile().confint().index) == ["Intercept", "sd_study[Intercept]"]
    assert "it is known to be 1" in str(fit.profile("sigma"))


POSTERIORS = {
    name: (model_of(name).design.rows.y.mean(), 2.5 * frame_of(name)["y"].std(ddof=0))
    for name in CASES
}


@pytest.mark.parametrize("name", CASES)
def test_posteriors_are_those_of_a_grid(name):
    (mean, sd), data = POSTERIORS[name], frame_of(name)
    scale = data["y"].std()
    priors = {"Intercept": P.Normal(mean, sd), "sd": P.HalfNormal(scale)}
    fit = model_of(name, priors=priors).fit("quadrature")
    grid = Grid(data["y"], data["s"], mean, sd, scale)
    unit = fit.se()["Intercept"]
    assert fit.log_marginal_likelihood().value == pytest.approx(grid.log_evidence, abs=1e-5)
    assert fit.fixef()["Intercept"] == pytest.approx(grid.expected(grid.mu), abs=1e-6 * unit)
    tau, mu = fit.curve("sd_study[Intercept]"), fit.curve("Intercept")
    frame = fit.heterogeneity().to_frame()
    assert frame.loc["tau2", "estimate"] == pytest.approx(grid.expected(grid.tau**2), rel=1e-5)
    for p in (0.025, 0.25, 0.5, 0.75, 0.975):
        assert float(tau.quantile(p)) == pytest.approx(grid.tau_quantile(p), abs=1e-4 * scale)
        of_grid = grid.quantile(p, grid.mu, grid.mu_sd)
        assert float(mu.quantile(p)) == pytest.approx(of_grid, abs=1e-4 * unit)
    table = fit.forest_table(0.9).set_index("label")
    new_sd = np.sqrt(grid.mu_sd**2 + grid.tau**2)
    for label, moments in {"new": (grid.mu, new_sd), "study 2": grid.study(1)}.items():
        lower, upper = table.loc[label, ["lower", "upper"]]
        inside = [grid.expected(stats.norm.cdf(x, *moments)) for x in (lower, upper)]
        assert inside[1] - inside[0] == pytest.approx(0.9, abs=1e-4)
        heights = [grid.expected(stats.norm.pdf(x, *moments)) for x in (lower, upper)]
        assert heights[0] == pytest.approx(heights[1], rel=1e-3)  # of highest density
        mean = grid.expected(moments[0])
        assert table.loc[label, "estimate"] == pytest.approx(mean, abs=1e-5 * unit)


def test_draws_give_about_the_same():
    model = rf.Model("y ~ 1 + (1 | study)", SCHOOLS, se="s")
    exact, drawn = model.fit("quadrature"), model.fit("laplace", seed=1)
    columns = ["estimate", "lower", "upper"]
    one, other = exact.forest_table()[columns], drawn.forest_table()[columns]
    assert (one - other).abs().to_numpy().max() < 0.8
    assert drawn.forest_table().attrs["interval"] == "95 % HPD interval"
    np.testing.assert_allclose(
        drawn.heterogeneity().to_frame().loc["tau"],
        exact.heterogeneity().to_frame().loc["tau"],
        atol=0.4,
    )


def test_the_common_effect_has_the_interval_of_its_draws():
    fit = rf.Model("y ~ 1", SCHOOLS, se="s").fit("laplace", seed=1)
    table, bounds = fit.forest_table(0.8), fit.hdi(0.8).loc["Intercept"]
    assert len(table) == len(SCHOOLS) + 1  # all studies have the one effect
    np.testing.assert_allclose(table["estimate"], fit.fixef()["Intercept"])
    np.testing.assert_allclose(table["lower"], bounds["lower"])
    np.testing.assert_allclose(table["upper"], bounds["upper"])


def test_studies_that_all_found_the_same_have_their_errors():
    model = rf.Model("y ~ 1 + (1 | study)", SCHOOLS.assign(y=3.0), se="s")
    reml, exact = model.fit(), model.fit("quadrature")
    assert reml.estimates()["Intercept"] == pytest.approx(3.0)
    assert reml.varcorr().sd["study"]["Intercept"] == 0.0
    assert reml.vcov().iloc[0, 0] == pytest.approx(1 / (SCHOOLS["s"] ** -2.0).sum())
    assert exact.estimates()["Intercept"] == pytest.approx(3.0)
    prior = model.prior_table().set_index("parameter").loc["sd_study", "prior"]
    assert prior == f"HalfStudentT(3, {np.sqrt((SCHOOLS['s'] ** 2).sum() / 7):.4g})"


def test_own_estimates_are_those_of_the_data():
    table = rf.fit("y ~ 1 + (1 | study)", SCHOOLS, se="s").forest_table(0.5)
    rows, half = table[table["kind"] == "study"], stats.norm.ppf(0.75) * SCHOOLS["s"]
    assert rows["label"].tolist() == list("ABCDEFGH")
    np.testing.assert_array_equal(rows["own"], SCHOOLS["y"])
    np.testing.assert_allclose(rows["own_lower"], SCHOOLS["y"] - half)
    assert table.attrs["interval"] == "50 % interval, tau as if known"


def test_several_estimates_of_a_study_have_a_line_each():
    data = pd.concat([SCHOOLS, SCHOOLS.assign(y=SCHOOLS["y"] + 1)], ignore_index=True)
    fit = rf.fit("y ~ 1 + (1 | study)", data, se="s")
    table = fit.forest_table()
    assert table["label"].tolist() == [*map(str, range(16)), "mean", "new"]
    np.testing.assert_allclose(table["estimate"][:8], table["estimate"][8:16])
    three = rf.fit("y ~ 1 + (1 | study) + (1 | row)", data.assign(row=data.index), se="s")
    assert three.forest_table()["kind"].tolist() == ["study"] * 16 + ["mean", "new"]
    with pytest.raises(FitError) as caught:
        three.heterogeneity()
    assert str(caught.value) == (
        "heterogeneity is that of a model with one intercept for each study, such as "
        "`y ~ 1 + (1 | study)`; of others see fit.varcorr()."
    )


@pytest.mark.parametrize("answer", ["forest_table", "heterogeneity", "plot_forest"])
def test_errors_have_to_be_known(answer):
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError) as caught:
        getattr(fit, answer)()
    what = "heterogeneity" if answer == "heterogeneity" else "a forest"
    assert str(caught.value) == (
        f"{what} is of estimates whose standard errors are known: give them to the model, as in "
        'rf.Model("y ~ 1 + (1 | study)", data, se="s").'
    )


def test_a_mode_has_no_interval_of_tau():
    frame = model_of("bcg", priors="boundary").fit("map").heterogeneity().to_frame()
    assert frame.loc["tau", ["lower", "upper"]].isna().all()
    assert frame.loc["tau", "estimate"] > 0


# ---------------------------------------------------------------------------- the mean of each row


RNG = np.random.default_rng(5)


def spd(k):
    root = RNG.normal(size=(k, k + 2))
    return root @ root.T


@pytest.mark.parametrize("kind", ["correlated slopes", "crossed", "weights and offset"])
def test_means_are_those_of_a_joint_normal(kind):
    design = model_of_kind(kind).design
    rows, n, p = design.rows, design.n_obs, len(design.fixed)
    covs = tuple(np.stack([spd(t.n_coefs), spd(t.n_coefs)]) for t in design.terms)
    beta, beta_cov = RNG.normal(size=(2, p)), np.stack([spd(p), np.zeros((p, p))])
    settings = Settings(np.array([0.4, 0.6]), covs, beta, beta_cov, np.array([0.7, 1.3]))
    normal = row_means(design, settings)
    for c in range(2):
        Zs = [dense_Z(t) for t in rows.terms]
        G = sum(
            Z @ np.kron(np.eye(t.n_levels), cov[c]) @ Z.T
            for Z, t, cov in zip(Zs, rows.terms, covs, strict=True)
        )
        V = G + settings.sigma[c] ** 2 * np.diag(1 / rows.weights)
        A = G @ np.linalg.inv(V)
        mean = rows.X @ beta[c] + rows.offset
        B = rows.X - A @ rows.X
        np.testing.assert_allclose(normal.mean[c], mean + A @ (rows.y - mean), rtol=1e-8, atol=1e-8)
        expected = np.diag(G - A @ G + B @ beta_cov[c] @ B.T)
        np.testing.assert_allclose(normal.variance[c], expected, rtol=1e-6, atol=1e-8)
    assert n == len(frame())
