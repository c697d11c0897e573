"""Tidy tables: the numbers of other answers, under one set of names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from generalized_fits import made_up
from scipy import stats

import ranef as rf
from fits import fit_of, known_posterior, model_of
from ranef.fits.reports.tidy_tables import correlation_of_fixed

SLOPES = "correlated slopes"


@pytest.fixture(scope="module")
def reml():
    return fit_of(SLOPES, "reml")


@pytest.fixture(scope="module")
def posterior():
    return known_posterior(model_of(SLOPES))


def test_all_parameters_of_a_point_fit(reml):
    table, p = reml.tidy(), len(reml.fixef())
    assert list(table["term"]) == list(reml.estimates().index)
    np.testing.assert_array_equal(table["estimate"], reml.estimates())
    assert list(table["effect"]) == ["fixed"] * p + ["random"] * (len(table) - p)
    np.testing.assert_array_equal(table["se"].iloc[:p], reml.se())
    np.testing.assert_allclose(table["statistic"].iloc[:p], reml.fixef() / reml.se())
    np.testing.assert_array_equal(table[["lower", "upper"]].iloc[:p], reml.confint())
    assert table[["se", "lower", "upper", "statistic"]].iloc[p:].isna().all(axis=None)
    groups = dict(zip(table["term"], table["group"], strict=True))
    assert groups["sigma"] == ""
    assert {groups[name] for name in groups if name.startswith(("sd_", "corr_"))} == {"g"}
    assert table.attrs["interval"] == "95 % Wald intervals"


def test_parts_of_it_in_the_order_asked_for(reml):
    whole, p = reml.tidy(), len(reml.fixef())
    pd.testing.assert_frame_equal(reml.tidy("fixed").to_frame(), whole.iloc[:p])
    random = reml.tidy("random").to_frame()
    pd.testing.assert_frame_equal(random, whole.iloc[p:].reset_index(drop=True))
    pd.testing.assert_frame_equal(reml.tidy(["all"]).to_frame(), whole.to_frame())
    every = reml.tidy(["all", "levels"])
    assert list(dict.fromkeys(every["effect"])) == ["fixed", "random", "levels"]
    both = reml.tidy(["fixed", "levels"])
    assert list(dict.fromkeys(both["effect"])) == ["fixed", "levels"]
    assert both.attrs["interval"].startswith("95 % Wald intervals; conditional mode with 95 %")
    assert list(reml.tidy("levels").columns) == [
        *("effect", "group", "level", "term", "estimate", "se", "lower", "upper")
    ]


@pytest.mark.parametrize("kind", ["levels", "coefs"])
def test_levels_are_those_of_other_tables(reml, posterior, kind):
    for fit in (reml, posterior):
        own = fit.ranef_table(0.8) if kind == "levels" else fit.coef_table(0.8)
        table = fit.tidy(kind, prob=0.8)
        for name, column in {"group": "term", "level": "level", "term": "coef", "se": "sd"}.items():
            assert table[name].tolist() == own[column].tolist()
        for name in ("estimate", "lower", "upper"):
            np.testing.assert_array_equal(table[name], own[name])


def test_profile_intervals_of_all(reml):
    table = reml.tidy(method="profile", prob=0.9)
    own = reml.confint("profile", prob=0.9)
    np.testing.assert_allclose(table[["lower", "upper"]], own.loc[table["term"]])
    assert table.attrs["interval"] == "90 % profile likelihood intervals"


def test_degrees_of_freedom_give_tests_and_their_intervals(reml):
    """p is that of t, and below 0.05 where zero lies outside the interval."""
    table = reml.tidy("fixed", df="satterthwaite", prob=0.95)
    own = reml.summary("satterthwaite").to_frame()
    np.testing.assert_array_equal(table["p_value"], own["p_value"])
    half = stats.t.ppf(0.975, own["df"]) * own["se"]
    np.testing.assert_allclose(table["upper"], own["estimate"] + half)
    assert str(table).startswith("95 % t intervals\n")
    is_outside = table["lower"] * table["upper"] > 0
    assert (is_outside == (table["p_value"] < 0.05)).all()


def test_a_generalised_fit_has_normal_tests():
    table = made_up("poisson", SLOPES).tidy("fixed")
    np.testing.assert_allclose(table["p_value"], 2 * stats.norm.sf(abs(table["statistic"])))


def test_a_posterior_has_the_same_names(reml, posterior):
    table, own = posterior.tidy(prob=0.9), posterior.summary(0.9).to_frame()
    assert list(table["term"]) == list(reml.tidy()["term"])
    assert list(table.columns) == ["effect", "group", "term", "estimate", "se", "lower", "upper"]
    np.testing.assert_allclose(table["estimate"], own["mean"])
    np.testing.assert_array_equal(table["se"], own["sd"])
    np.testing.assert_array_equal(table[["lower", "upper"]], own[["lower", "upper"]])
    assert table.attrs["interval"] == "90 % HPD intervals"


def test_ratios_are_exponentiated_estimates():
    fit = made_up("poisson", SLOPES)
    ratios, plain = fit.tidy(exponentiate=True), fit.tidy()
    is_fixed = plain["effect"] == "fixed"
    numbers = ["estimate", "lower", "upper"]
    np.testing.assert_allclose(ratios[numbers][is_fixed], np.exp(plain[numbers][is_fixed]))
    np.testing.assert_allclose(ratios["se"] / ratios["estimate"], plain["se"])
    pd.testing.assert_frame_equal(ratios[~is_fixed], plain[~is_fixed])
    pd.testing.assert_series_equal(ratios["p_value"], plain["p_value"])
    assert ratios.attrs["interval"] == "95 % Wald intervals, fixed effects as ratios of means"


def test_of_a_posterior_ratios_have_moments_and_intervals_of_their_own():
    cbpp = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = rf.fit(formula, cbpp, "laplace", family="binomial", seed=1)
    table = fit.tidy("fixed", prob=0.8, exponentiate=True)
    ratios = np.exp(fit.posterior["posterior"]["beta"].to_numpy())
    np.testing.assert_allclose(table["estimate"], ratios.mean((0, 1)))
    np.testing.assert_allclose(table["se"], ratios.std((0, 1), ddof=1))
    lower, upper = table["lower"].to_numpy(), table["upper"].to_numpy()
    inside = ((ratios >= lower) & (ratios <= upper)).mean((0, 1))
    np.testing.assert_allclose(inside, 0.8, atol=1e-3)
    bounds = np.exp(fit.hdi(0.8).iloc[:4].to_numpy())  # not of highest density for ratios
    assert (upper - lower < bounds[:, 1] - bounds[:, 0]).all()
    assert table.attrs["interval"].endswith("ratios of odds")


def test_ratios_are_of_fixed_effects_and_of_links_that_multiply(reml):
    with pytest.raises(rf.FitError, match="as logit, cloglog and log; this model has the identity"):
        reml.tidy(exponentiate=True)
    with pytest.raises(rf.FitError, match="is of fixed effects, which `effects` does not name"):
        made_up("poisson", SLOPES).tidy("levels", exponentiate=True)


def test_a_coefficient_called_as_a_parameter():
    data = rf.load_dataset("sleepstudy").rename(columns={"Days": "sigma"})
    table = rf.fit("Reaction ~ sigma + (1 | Subject)", data).tidy(df="satterthwaite")
    assert list(table["term"][:3]) == ["Intercept", "beta[sigma]", "sigma"]
    assert table[["se", "lower", "p_value"]].iloc[:2].notna().all(axis=None)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"effects": "ranef"}, "effects='ranef' are not what a fit has"),
        ({"effects": ()}, "`effects` names nothing"),
        ({"method": "hpd"}, "method='hpd' is not available for a reml fit"),
    ],
)
def test_what_there_is_not(reml, asked, message):
    with pytest.raises(rf.FitError, match=message):
        reml.tidy(**asked)


def test_a_posterior_has_no_degrees_of_freedom(posterior):
    with pytest.raises(rf.FitError, match="a posterior has none"):
        posterior.tidy(df="satterthwaite")


# ------------------------------------------------------------------------------ one row


def test_a_point_fit_as_one_row(reml):
    row = reml.glance()
    assert row.shape[0] == 1
    for name in ("method", "n_obs", "n_groups", "sigma", "df", "loglik", "aic", "bic", "converged"):
        assert row.loc[0, name] == getattr(reml, name), name
    with pytest.raises(rf.FitError, match="loo=True is of a posterior"):
        reml.glance(loo=True)


def test_a_posterior_as_one_row():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    row = fit.glance(loo=True)
    assert row.loc[0, "log_marginal_likelihood"] == fit.log_marginal_likelihood().value
    assert row.loc[0, "elpd"] == float(fit.loo().elpd)
    assert row.loc[0, "elpd_se"] == float(fit.loo().se)
    assert "elpd" not in fit.glance()


def test_rows_of_several_fits_go_together(reml, posterior):
    table = pd.concat([reml.glance(), posterior.glance()], ignore_index=True)
    assert len(table) == 2
    assert table.loc[1, ["loglik", "aic"]].isna().all()
    assert np.isnan(table.loc[1, "log_marginal_likelihood"])


# ------------------------------------------------------------- correlation of fixed effects


def test_the_correlation_that_lme4_prints():
    """lme4: `Days -0.138` below `(Intr)`."""
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    text = str(fit.summary(correlation=True))
    assert "Correlation of fixed effects\n        Intercept\n  Days     -0.138\n" in text
    assert "Correlation" not in str(fit)


def test_long_names_are_numbered():
    names = [f"{'x' * 20}{i}" for i in range(4)]
    corr = np.eye(4)
    corr[np.tril_indices(4, -1)] = [0.1, 0.2, 0.4, 0.3, 0.5, -0.6]
    scale = np.array([1e-9, 1.0, 2.0, 1e9])
    vcov = pd.DataFrame(corr * np.outer(scale, scale), names, names)
    _, table = correlation_of_fixed(vcov)
    assert list(table.columns) == [1, 2, 3]
    assert list(table.index) == [f"{i + 1} {name}" for i, name in enumerate(names)]
    assert table.to_numpy().tolist() == [
        ["", "", ""],
        ["0.100", "", ""],
        ["0.200", "0.400", ""],
        ["0.300", "0.500", "-0.600"],
    ]


def test_a_known_coefficient_has_no_correlation():
    vcov = pd.DataFrame([[1.0, 0.0], [0.0, 0.0]], ["a", "b"], ["a", "b"])
    assert correlation_of_fixed(vcov)[1].to_numpy().tolist() == [[""]]


FITS = {
    "reml": lambda: fit_of("correlated slopes", "reml"),
    "no random terms": lambda: made_up("poisson", "no random terms"),
    "generalised": lambda: made_up("gamma", "crossed"),
    "posterior": lambda: known_posterior(model_of("correlated slopes")),
}


@pytest.mark.parametrize("kind", FITS)
def test_all_reports_of_all_fits(kind):
    fit = FITS[kind]()
    table = fit.tidy()
    np.testing.assert_array_equal(table["estimate"], fit.estimates())
    assert len(fit.glance()) == 1
    assert fit.to_markdown().startswith(f"**{fit.summary().title}")
    assert fit.to_latex().count(r"\begin{tabular}") == len(fit.summary().sections)
    assert fit.to_frame().equals(fit.summary().to_frame())
    assert fit.varcorr().to_frame().equals(fit.varcorr().table)
    assert all(len(line) <= 100 for line in str(table).split("\n"))
