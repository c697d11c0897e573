"""Every generalised case that R was asked for: lme4, glmmTMB, or a likelihood written there."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from reference_cases import generalized_model, read_generalized

from ranef.families.names import FAMILIES

CASES = [*read_generalized("lme4.json"), *read_generalized("glmm_more.json")]
QUADRATURE = 25  # points where R took 40
BY_ID = {case["id"]: case for case in CASES}
# -2 log-likelihood of cbpp by the number of points, each at its own maximum
CBPP = {
    1: 184.0525637295,
    3: 184.0353241783,
    5: 183.9680757052,
    9: 183.9667435927,
    15: 183.9667380727,
    25: 183.9667380746,
}

# D. Bates, Fitting Mixed-Effects Models Using the lme4 Package in R, IMPS 2008, as printed
LECTURES = {
    "contraception_cm1": {
        "criteria": [2389, 2433, -1186],
        "variances": [0.22586],
        "fixef": [-1.0350725, 0.0035329, -0.0045623, 0.6972694, 0.8150449, 0.9165105, 0.9150209],
        "se": [0.1743606, 0.0092311, 0.0007252, 0.1198788, 0.1621898, 0.1850995, 0.1857689],
    },
    "contraception_cm2": {
        "criteria": [2385, 2419, -1187],
        "variances": [0.2247],
        "fixef": [-1.0064262, 0.0062563, -0.0046354, 0.6929504, 0.8603757],
        "se": [0.1678949, 0.0078404, 0.0007163, 0.1196687, 0.1473539],
    },
    "contraception_cm3": {
        "criteria": [2379, 2418, -1183],
        "variances": [0.22306],
        "fixef": [-1.3233174, -0.0472956, 1.2107856, -0.0057572, 0.7140326, 0.0683522],
        "se": [0.214447, 0.0218394, 0.2069938, 0.0008358, 0.1202579, 0.0254347],
    },
    "contraception_cm4_urban_slope": {
        "criteria": [2372, 2422, -1177],
        "variances": [0.3783, 0.52613],
        "fixef": [-1.3442631, -0.0461836, 1.2116527, -0.0056514, 0.7902095, 0.0664682],
        "se": [0.2227667, 0.0219446, 0.2082372, 0.0008431, 0.1600484, 0.0255674],
    },
}


@cache
def fit_of(case_id):
    case = BY_ID[case_id]
    return generalized_model(case).fit(n_agq=min(case["nAGQ"], QUADRATURE))


def each_case(*fields, one_term=False):
    """Run a test for every case that has some fields, with its fit."""
    ids = [
        name
        for name, case in BY_ID.items()
        if all(field in case for field in fields)
        and not (one_term and len(case.get("varcomp", [])) > 1)
    ]
    return pytest.mark.parametrize("case_id", ids)


def term_of(fit, component):
    factor = component["group"].replace("(", "").replace(")", "")  # c:(b:a) in lme4
    names = component["names_python"]
    return next(t for t in fit.design.terms if t.factor == factor and names[0] in t.coefs)


def expected_loglik(case):
    return case.get("logLik_absolute", case["logLik"])


def errors(case):
    return np.array(list(case["se_hessian"].values()))


@each_case()
def test_likelihood_is_that_of_r_or_better(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    expected = expected_loglik(case)
    assert fit.loglik >= expected - 1e-7
    assert fit.loglik == pytest.approx(expected, rel=1e-8, abs=1e-6)
    assert fit.objective == -2 * fit.loglik
    assert fit.converged


@each_case()
def test_information_criteria(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    missing = 2 * (expected_loglik(case) - case["logLik"])  # lme4 leaves out a constant
    assert fit.df == case["df"]
    assert fit.n_obs == case["nobs"]
    assert fit.n_groups == case.get("ngrps", {})
    assert fit.aic == pytest.approx(case["AIC"] - missing, rel=1e-8, abs=1e-6)
    assert fit.bic == pytest.approx(case["BIC"] - missing, rel=1e-8, abs=1e-6)
    assert fit.is_singular == case["isSingular"]


@each_case()
def test_fixed_effects(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    assert list(fit.fixef().index) == case["fixef_names_python"]
    expected = np.array(list(case["fixef"].values()))
    scale = errors(case) if "se_hessian" in case else fit.se()
    assert np.abs((fit.fixef() - expected) / scale).max() < 1e-5


@each_case("vcov_hessian")
def test_covariance_of_fixed_effects(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    scale = np.outer(errors(case), errors(case))
    found = fit.vcov().to_numpy() / scale
    np.testing.assert_allclose(found, np.array(case["vcov_hessian"]) / scale, atol=1e-4)


@each_case()
def test_own_parameters(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    expected = case.get("parameters") or {}
    assert fit.parameters.keys() == expected.keys()
    assert list(fit.parameters.values()) == pytest.approx(list(expected.values()), rel=1e-5)


@each_case("varcomp")
def test_variance_components(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    found = fit.varcorr()
    limit = 1e-3 if case["isSingular"] else 1e-5
    n_coefs = sum(len(found.sd[term.label]) for term in fit.design.terms)
    assert n_coefs == sum(len(component["names"]) for component in case["varcomp"])
    for component in case["varcomp"]:
        term, names = term_of(fit, component), component["names_python"]
        expected = np.atleast_1d(component["sd"])
        np.testing.assert_allclose(found.sd[term.label][names], expected, rtol=1e-5, atol=limit)
        if not case["isSingular"]:
            corr = found.corr[term.label].loc[names, names]
            np.testing.assert_allclose(corr, np.atleast_2d(component["corr"]), atol=1e-4)


@each_case("theta", one_term=True)
def test_theta(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    np.testing.assert_allclose(fit.theta, np.atleast_1d(case["theta"]), rtol=1e-5, atol=1e-6)


@each_case("ranef")
def test_conditional_modes_and_sds(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    table = fit.ranef_table(uncertainty="none")
    for variances, component in zip(case["varcomp"], case["ranef"], strict=True):
        names = variances["names_python"]
        part = table[table["term"] == term_of(fit, variances).label]
        wide = part.assign(level=part["level"].astype(str)).pivot_table(
            index="level", columns="coef", values=["estimate", "sd"]
        )
        levels = [str(level) for level in np.atleast_1d(component["levels"])]
        modes = np.asarray(component["modes"], dtype=float)
        sds = np.sqrt([np.diag(np.atleast_2d(v)) for v in component["condVar"]])
        limit = 1e-5 * max(np.abs(modes).max(), sds.max(), 0.1)
        np.testing.assert_allclose(wide["estimate"].loc[levels, names], modes, atol=limit)
        np.testing.assert_allclose(wide["sd"].loc[levels, names], sds, atol=limit)


@each_case("fitted5")
def test_fitted_values_and_residuals(case_id):
    case, fit = BY_ID[case_id], fit_of(case_id)
    np.testing.assert_allclose(fit.fitted()[:5], case["fitted5"], rtol=1e-6)
    for kind, field in (
        ("response", "resid5"),
        ("deviance", "resid5_deviance"),
        ("pearson", "resid5_pearson"),
    ):
        np.testing.assert_allclose(fit.residuals(kind)[:5], case[field], atol=1e-6)


@pytest.mark.parametrize("n_agq", CBPP)
def test_cbpp(n_agq):
    fit = generalized_model(BY_ID["cbpp"]).fit(n_agq=n_agq)
    assert fit.objective == pytest.approx(CBPP[n_agq], abs=2e-10)


def test_fixed_effects_at_the_joint_mode():
    """lme4 with nAGQ = 0."""
    fit = generalized_model(BY_ID["cbpp"]).fit(n_agq=0)
    expected = [-1.360471755, -0.976177471, -1.111076893, -1.559680516]
    assert fit.loglik == pytest.approx(-92.0542954728, abs=1e-9)
    assert fit.theta == pytest.approx([0.6418150699], abs=1e-6)
    np.testing.assert_allclose(fit.fixef(), expected, atol=1e-6)


@pytest.mark.parametrize("case_id", LECTURES)
def test_lecture_notes(case_id):
    printed = LECTURES[case_id]
    fit = fit_of(case_id)
    assert [round(fit.aic), round(fit.bic), round(fit.loglik)] == printed["criteria"]
    variances = np.diag(fit.varcorr().cov["district"])
    np.testing.assert_allclose(variances, printed["variances"], atol=2e-5)
    # the slides' optimiser stopped 4e-4 standard errors from the optimum
    distance = np.abs(fit.fixef() - printed["fixef"]) / fit.se()
    assert distance.max() < 5e-4
    # they print errors for known variances
    np.testing.assert_allclose(fit.se(), printed["se"], rtol=0.025)


def test_there_are_cases():
    families = {(case["family"], case["link"]) for case in CASES}
    assert len(CASES) >= 100
    assert {family for family, _ in families} >= set(FAMILIES) - {"bernoulli"}
