"""Tests of terms against R's lmerTest and car, and what does not change them."""

import json
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from effect_cases import data

import ranef as rf
from ranef.effects.joint_tests import term_contrasts
from ranef.effects.reference_grid import cells
from ranef.errors import DataWarning, FitError

PATH = Path(__file__).parents[1] / "reference" / "joint_tests.json"
TABLES = json.loads(PATH.read_text(encoding="utf-8"))
CASES = {case["id"]: case for case in TABLES["linear"]}
# lmerTest takes eigenvectors of a covariance with equal eigenvalues as R has them for a matrix that
# is not quite symmetric, far from orthogonal: its F is not (L b)'(L V L')^-1 (L b) / q there
WRONG = [("without intercept", "Satterthwaite 1")]
ALL = [(name, result) for name, case in CASES.items() for result in case["results"]]
ALL = [one for one in ALL if one not in WRONG]
RTOL = {"Satterthwaite": 2e-4, "Kenward-Roger": 2e-6}  # lmerTest has derivatives by differences


def rows_of(case):
    """Return the rows that R's script keeps."""
    frame = data(case["data"])
    if case["modulus"]:
        frame = frame[~np.isin(np.arange(len(frame)) % case["modulus"], case["left"])]
    for cell in filter(None, case["empty"].split(";")):
        recipe, temp = cell.split()
        frame = frame[(frame["recipe"] != recipe) | (frame["temp"] != int(temp))]
    return frame.assign(t=frame["temp"].astype(str)) if "temp" in frame else frame


@cache
def fit_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return rf.fit(CASES[name]["formula"], rows_of(CASES[name]))


@pytest.mark.parametrize(("name", "result"), ALL)
def test_they_are_those_of_lmertest(name, result):
    ddf, kind = result.split()
    expected = CASES[name]["results"][result]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        table = rf.joint_tests(fit_of(name), type=int(kind), df=ddf.lower())
    assert table.index.tolist() == expected["term"]
    assert table["df_num"].tolist() == expected["df_num"]
    np.testing.assert_allclose(table["F"], expected["F"], rtol=2e-6)
    for column in ("df_den", "p_value"):
        np.testing.assert_allclose(table[column], expected[column], rtol=RTOL[ddf], err_msg=column)


@pytest.mark.parametrize("case", TABLES["generalized"], ids=lambda case: case["id"])
def test_generalised_models_have_those_of_car(case):
    fit = rf.fit(case["formula"], data(case["data"]), family="binomial")
    table = rf.joint_tests(fit, type=case["type"])
    assert table.index.tolist() == case["term"]
    assert table["df"].tolist() == case["df"]
    np.testing.assert_allclose(table["chi2"], case["chi2"], rtol=2e-6)
    assert table.attrs["test"] == f"Type {'I' * case['type']} chi-squared tests"


def test_a_term_of_one_coefficient_has_its_own_test():
    fit = fit_of("sleepstudy")
    table, days = rf.joint_tests(fit), fit.summary(df="satterthwaite").to_frame().loc["Days"]
    assert table.loc["Days", "F"] == pytest.approx(days["t"] ** 2, rel=1e-9)
    assert table.loc["Days", "p_value"] == pytest.approx(days["p_value"], rel=1e-6)
    wald = rf.joint_tests(fit, df="asymptotic")
    assert wald.loc["Days", "chi2"] == pytest.approx(days["t"] ** 2, rel=1e-9)
    assert table.attrs["test"] == "Type III F tests with Satterthwaite's degrees of freedom"


@pytest.mark.parametrize("coding", ["contr.sum", "contr.helmert", "contr.treatment(base='C')"])
@pytest.mark.parametrize("kind", [1, 2, 3])
def test_codings_do_not_matter(coding, kind):
    frame = rows_of(CASES["unbalanced"])
    other = CASES["unbalanced"]["formula"].replace("recipe * t", f"C(recipe, {coding}) * t")
    one, two = (rf.joint_tests(f, type=kind) for f in (fit_of("unbalanced"), rf.fit(other, frame)))
    np.testing.assert_allclose(one.to_numpy(), two.to_numpy(), rtol=1e-6)


def test_type_3_compares_marginal_means():
    design = fit_of("unbalanced").design
    X = cells(design, ["recipe"]).X
    both = np.vstack([term_contrasts(design, 3)["recipe"], X[1] - X[0], X[2] - X[0]])
    assert np.linalg.matrix_rank(both, tol=1e-8) == 2


def test_a_term_that_others_explain_has_no_test():
    frame = data("cake").assign(sort=lambda d: d["recipe"].map({"A": "x", "B": "y", "C": "y"}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = rf.fit("angle ~ recipe + sort + temp + (1 | recipe:replicate)", frame)
    for kind in (2, 3):
        table = rf.joint_tests(fit, type=kind)
        assert table["df_num"].tolist() == [1, 0, 1]
        assert table["F"].isna().tolist() == [False, True, False]
        wald = rf.joint_tests(fit, type=kind, df="asymptotic")
        assert wald["df"].tolist() == [1, 0, 1]


def test_empty_cells_are_said():
    fit = fit_of("missing cells")
    with pytest.warns(DataWarning, match="combinations of levels without rows in `recipe:t`"):
        rf.joint_tests(fit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rf.joint_tests(fit, type=2)


def test_fits_without_an_estimated_sigma_have_chi_squared_tests():
    frame = data("Dyestuff").assign(x=range(30), s=40.0)
    for fit in (
        rf.fit("Yield ~ x + (1 | Batch)", frame, "map"),
        rf.fit("Yield ~ x + (1 | Batch)", frame, se="s"),
    ):
        table = rf.joint_tests(fit)
        z = fit.fixef()["x"] / fit.se()["x"]
        assert table.loc["x", "chi2"] == pytest.approx(z**2, rel=1e-9)
        assert table.attrs["test"] == "Type III chi-squared tests"


def test_units_do_not_matter():
    frame = rows_of(CASES["covariate"])
    far = rf.fit(CASES["covariate"]["formula"], frame.assign(temp=frame["temp"] * 1e-6 + 3))
    for kind in (1, 2, 3):
        one = rf.joint_tests(fit_of("covariate"), type=kind).loc["recipe:temp", "F"]
        assert rf.joint_tests(far, type=kind).loc["recipe:temp", "F"] == pytest.approx(
            one, rel=1e-5
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rf.joint_tests(f, type=4), "type=4 is not a type of test: 1, 2 or 3."),
        (lambda f: rf.joint_tests(f, type=True), "type=True is not a type of test"),
        (lambda f: rf.joint_tests(f, type="III"), "type='III' is not a type of test"),
        (lambda f: rf.joint_tests(f, df="exact"), "is not a kind of degrees of freedom"),
        (lambda _: rf.joint_tests("fit"), "expected a fit, got str"),
    ],
)
def test_what_has_no_answer(call, message):
    with pytest.raises(FitError) as caught:
        call(fit_of("sleepstudy"))
    assert message in str(caught.value)


def test_what_has_no_joint_tests():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", data("Dyestuff"))
    with pytest.raises(FitError, match="no fixed effect but its intercept, and nothing to test"):
        rf.joint_tests(model.fit())
    with pytest.raises(FitError, match="joint_tests are of point fits: a posterior has no tests"):
        rf.joint_tests(model.fit("quadrature"))
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    cbpp = rf.fit(formula, data("cbpp"), family="binomial")
    with pytest.raises(FitError, match="df='satterthwaite' is for linear models"):
        rf.joint_tests(cbpp, df="satterthwaite")
    with pytest.raises(FitError, match="of a REML fit"):
        rf.joint_tests(
            rf.fit("angle ~ temp + (1 | recipe)", data("cake"), "ml"), df="kenward-roger"
        )
