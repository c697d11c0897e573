"""Every linear case that R's lme4 was asked for: likelihood, estimates, random effects, fit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from reference_cases import music_cases, python_formula, read_cases, read_frame

import ranef as rf

CASES = [*read_cases("lme4.json"), *read_cases("lme4_more.json"), *music_cases()]

# x about 2015: lme4's own numbers lose digits here that centred columns keep
ILL_CONDITIONED = {"year_reml": 1e-3, "year_ml": 1e-3, "response_far_ml": 1e-4}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case["id"])
def case_and_fit(request):
    case = request.param
    frame = read_frame(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.DataWarning)
        model = rf.Model(
            python_formula(case), frame, weights=case.get("weights"), offset=case.get("offset")
        )
        return case, model.fit("reml" if case["REML"] else "ml")


def tolerance(case, rtol=1e-5):
    return ILL_CONDITIONED.get(case["id"], rtol)


def by_coefficient(case, field):
    """Map (factor, coefficient) to a number or row of the case's variance components."""
    found = {}
    for component in case["varcomp"]:
        factor = lme4_factor(component["group"])
        names = component.get("names_python") or [plain(name) for name in component["names"]]
        for i, name in enumerate(names):
            found[factor, name] = np.atleast_1d(component[field][i])
    return found


def lme4_factor(group):
    return group.replace("(", "").replace(")", "")  # c:(b:a) in lme4 1.1


def plain(name):
    return "Intercept" if name == "(Intercept)" else name


def test_likelihood_is_lme4s_or_better(case_and_fit):
    case, fit = case_and_fit
    expected = -2 * case["logLik"]
    assert fit.objective <= expected + 1e-8 * abs(expected)
    assert fit.objective >= expected - 1e-6 * abs(expected)
    assert fit.loglik == pytest.approx(-fit.objective / 2)
    assert fit.converged


def test_information_criteria(case_and_fit):
    case, fit = case_and_fit
    assert fit.df == case["df"]
    assert fit.n_obs == case["nobs"]
    assert fit.aic == pytest.approx(case["AIC"], rel=1e-7)
    assert fit.bic == pytest.approx(case["BIC"], rel=1e-7)


def test_groups_and_singularity(case_and_fit):
    case, fit = case_and_fit
    groups = {lme4_factor(name): count for name, count in dict(case["ngrps"]).items()}
    assert fit.n_groups == groups
    assert fit.is_singular == case["isSingular"]


def test_fixed_effects(case_and_fit):
    case, fit = case_and_fit
    if case["id"] == "cake_colon_only_ml":
        pytest.skip("R codes an interaction without main effects in another way")
    names = case.get("fixef_names_python") or [plain(name) for name in case["fixef_names"]]
    estimates = np.array([*case["fixef"].values()], dtype=float)
    errors = np.array([*case["se"].values()], dtype=float)
    assert list(fit.fixef().index) == names
    # relative to the standard error where an estimate happens to be near zero
    np.testing.assert_allclose(fit.fixef(), estimates, rtol=tolerance(case), atol=1e-7)
    np.testing.assert_allclose(fit.se(), errors, rtol=tolerance(case))
    scale = np.sqrt(np.outer(errors**2, errors**2))
    np.testing.assert_allclose(fit.vcov() / scale, case["vcov"] / scale, atol=tolerance(case))


def test_variance_components(case_and_fit):
    case, fit = case_and_fit
    assert fit.sigma == pytest.approx(case["sigma"], rel=tolerance(case))
    found = fit.varcorr()
    sds = {
        (term.factor, name): sd
        for term in fit.design.terms
        for name, sd in found.sd[term.label].items()
    }
    expected = by_coefficient(case, "sd")
    assert sds.keys() == expected.keys()
    for key, sd in expected.items():  # R leaves 1e-13 for some zeros
        assert sds[key] == pytest.approx(sd[0], rel=tolerance(case), abs=1e-8 * fit.sigma), key


def test_correlations(case_and_fit):
    case, fit = case_and_fit
    found = fit.varcorr()
    for component in case["varcomp"]:
        names = component.get("names_python") or [plain(n) for n in component["names"]]
        factor = lme4_factor(component["group"])
        if len(names) == 1 or min(component["sd"]) < 1e-6 * max(component["sd"]):
            continue  # nothing to compare where a variance is zero
        label = next(
            t.label for t in fit.design.terms if t.factor == factor and list(t.coefs) == names
        )
        np.testing.assert_allclose(found.corr[label], component["corr"], atol=1e-4)


def test_conditional_modes_and_sds(case_and_fit):
    case, fit = case_and_fit
    table = fit.ranef_table(uncertainty="none")
    for variances, component in zip(case["varcomp"], case["ranef"], strict=True):
        factor = lme4_factor(component["group"])
        names = variances.get("names_python") or [plain(n) for n in component["names"]]
        modes = np.asarray(component["modes"], dtype=float)
        sds = np.sqrt([np.diag(np.atleast_2d(v)) for v in component["condVar"]])
        labels = [t.label for t in fit.design.terms if t.factor == factor and names[0] in t.coefs]
        part = table[table["term"] == labels[0]]
        part = part.assign(level=part["level"].astype(str))
        wide = part.pivot_table(index="level", columns="coef", values=["estimate", "sd"])
        levels = [str(level) for level in np.atleast_1d(component["levels"])]
        scale = max(np.abs(modes).max(), sds.max(), 1e-6 * fit.sigma)
        limit = tolerance(case) * scale
        got = wide["estimate"].loc[levels, names]
        np.testing.assert_allclose(got, modes, rtol=tolerance(case), atol=limit)
        got = wide["sd"].loc[levels, names]
        np.testing.assert_allclose(got, sds, rtol=tolerance(case), atol=limit)


def test_fitted_values_and_residuals(case_and_fit):
    case, fit = case_and_fit
    np.testing.assert_allclose(fit.fitted()[:5], case["fitted5"], rtol=tolerance(case))
    limit = tolerance(case) * case["sigma"]
    np.testing.assert_allclose(fit.residuals()[:5], case["resid5"], atol=10 * limit)


def test_there_are_cases():
    structures = pd.Series([case["id"].rsplit("_", 1)[0] for case in CASES])
    assert structures.nunique() >= 100
