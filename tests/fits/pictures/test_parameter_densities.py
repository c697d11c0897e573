"""Densities of parameters: that they are densities, of the posterior and of the priors."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import FitError
from ranef.fits.pictures.parameter_densities import of_draws

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep():
    return rf.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep):
    return rf.fit(SLEEP, sleep, "quadrature")


def test_posteriors_are_densities_and_priors_those_of_the_model(fit, sleep):
    table = fit.parameter_table()
    for _, panel in table.groupby("parameter"):
        area = np.trapezoid(panel["posterior"], panel["value"])
        assert area == pytest.approx(0.999, abs=2e-3)
    panels = dict(iter(table.groupby("parameter")))
    assert list(dict.fromkeys(table["parameter"])) == list(fit.estimates().index)
    s_y = sleep["Reaction"].std()
    for name, scale in (("sigma", s_y), ("sd_Subject[Intercept]", s_y)):
        panel = panels[name]
        wanted = 2 * stats.t.pdf(panel["value"] / scale, 3) / scale
        np.testing.assert_allclose(panel["prior"], wanted, rtol=1e-6)
    days, s_x = panels["Days"], sleep["Days"].std()
    wanted = stats.norm.pdf(days["value"], 0, 2.5 * s_y / s_x)
    np.testing.assert_allclose(days["prior"], wanted, rtol=1e-6)
    at_zero = panels["Intercept"]  # the prior holds at mean Days: both coefficients move it
    sd = np.hypot(2.5 * s_y, sleep["Days"].mean() * 2.5 * s_y / s_x)
    wanted = stats.norm.pdf(at_zero["value"], sleep["Reaction"].mean(), sd)
    np.testing.assert_allclose(at_zero["prior"], wanted, rtol=1e-6)
    corr = panels["corr_Subject[Intercept, Days]"]
    np.testing.assert_allclose(corr["prior"], 0.75 * (1 - corr["value"] ** 2), rtol=1e-6)


def test_other_estimates_are_those_of_fits(fit, sleep):
    marks = fit.parameter_table().attrs["estimates"]
    for method, label in (("reml", "REML"), ("ml", "ML")):
        for name, value in rf.fit(SLEEP, sleep, method).estimates().items():
            assert marks[name][label] == pytest.approx(value, rel=1e-6)


def test_draws_have_the_density_of_the_lattice(fit, sleep):
    drawn = rf.fit(SLEEP, sleep, "laplace", draws=4000, seed=1)
    table = drawn.parameter_table("sd_Subject[Days]")
    exact = fit.curve("sd_Subject[Days]").pdf(table["value"])
    assert np.abs(table["posterior"] - exact).max() < 0.12 * exact.max()


def test_kernels_keep_within_the_range():
    draws = np.random.default_rng(1).exponential(size=5000)
    value, density = of_draws("sd_g[x]", draws)
    assert value[0] == 0
    assert density[0] == pytest.approx(1, abs=0.15)
    value, _ = of_draws("corr_g[a, b]", np.tanh(2 * np.random.default_rng(1).normal(size=2000)))
    assert (value[0], value[-1]) == (-1, 1)
    assert of_draws("sigma", np.ones(10)) is None


def test_what_has_no_density_is_said(fit, sleep):
    with pytest.raises(FitError, match="a fit by 'reml' has no posterior density: fit by method="):
        rf.fit(SLEEP, sleep).plot_parameters()
    with pytest.raises(FitError, match=r"no parameter 'Dys'\. Did you mean `Days`"):
        fit.plot_parameters("Dys")


def test_one_without_a_density_of_its_own_has_no_prior():
    data = {"g": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12.0]}
    data["s"] = [15, 10, 16, 11, 9, 11, 10, 18.0]
    fit = rf.fit("y ~ 1 + (1 | g)", data, "quadrature", se="s")
    assert "sigma" not in set(fit.parameter_table()["parameter"])  # it is known
    with pytest.raises(FitError, match="the value of every one of these parameters is known"):
        fit.parameter_table("sigma")
