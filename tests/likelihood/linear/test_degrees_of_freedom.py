"""Degrees of freedom against lmerTest and pbkrtest, closed forms and dense finite differences."""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, dense, random_frame
from reference_cases import REFERENCE, python_formula, read_frame
from scipy import stats

import ranef as rf
from ranef.likelihood.linear import degrees_of_freedom as module
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.degrees_of_freedom import (
    KINDS,
    ContrastTest,
    contrast,
    degrees_of_freedom,
    table,
)

CASES = {
    case["id"]: case | {"folder": REFERENCE / case["data_dir"]}
    for case in json.loads((REFERENCE / "denominators.json").read_text())["cases"]
}
COLUMNS = ["estimate", "se", "df", "t", "p_value"]


def known(suffix=""):
    """Return the cases and kinds for which R has a result."""
    names = {kind: kind.replace("-", "_") + suffix for kind in KINDS}
    return [(case, kind) for case in CASES for kind in KINDS if CASES[case].get(names[kind])]


@cache
def fitted(name):
    case = CASES[name]
    options = {"weights": case.get("weights"), "offset": case.get("offset")}
    with pytest.warns(rf.RanefWarning) if is_warned(name) else nullcontext():
        model = rf.Model(python_formula(case), read_frame(case), **options)
        fit = model.fit("reml" if case["REML"] else "ml")
    return fit, cross_products(fit.design)


def is_warned(name):
    return name in ("cake_empty_cells", "no_intercept") or name.startswith("sleepstudy_missing")


def of_model(formula, frame, method="reml", **options):
    fit = rf.Model(formula, frame, **options).fit(method)
    return cross_products(fit.design), fit.estimate, fit.design.fixed


@cache
def sleep():
    return of_model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))


# -------------------------------------------------------------------------------- against R


@pytest.mark.parametrize(("name", "kind"), known())
def test_coefficients_as_r(name, kind):
    """numDeriv's differences, which lmerTest uses, are good to about 1e-7."""
    expected = CASES[name][kind.replace("-", "_")]
    fit, cross = fitted(name)
    found = table(cross, fit.estimate, fit.design.fixed, kind, reml=CASES[name]["REML"])
    assert list(found.index) == list(fit.design.fixed)
    assert list(found.columns) == COLUMNS
    tolerance = 3e-7 if kind == "satterthwaite" else 1e-9
    for column in COLUMNS:
        loose = 30 if column == "p_value" else 1  # they multiply the error of df
        np.testing.assert_allclose(
            found[column], expected[column], rtol=loose * tolerance, atol=1e-12, err_msg=column
        )


@pytest.mark.parametrize(("name", "kind"), known("_tests"))
def test_f_tests_as_r(name, kind):
    expected = CASES[name][kind.replace("-", "_") + "_tests"]
    fit, cross = fitted(name)
    for L, numbers in zip(CASES[name]["contrasts"], expected, strict=True):
        found = contrast(cross, fit.estimate, np.array(L), kind, reml=CASES[name]["REML"])
        tolerance = 3e-7 if kind == "satterthwaite" else 1e-9
        assert found.df_num == numbers["df_num"]
        assert found.f == pytest.approx(numbers["f"], rel=1e-8)
        assert found.df_den == pytest.approx(numbers["df_den"], rel=tolerance)
        assert found.scaling == pytest.approx(numbers["scaling"], rel=1e-9)
        assert found.p_value == pytest.approx(numbers["p_value"], rel=1e-4, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_several_effects_are_tested_as_contrasts(kind):
    frame = random_frame(np.random.default_rng(5)).iloc[:97]
    cross, estimate, names = of_model("y ~ x * f + (x | r)", frame)
    L = np.random.default_rng(6).normal(size=(3, 6))
    found = table(cross, estimate, names, kind, L, reml=True)
    for row, (_, own) in zip(L, found.iterrows(), strict=True):
        test = contrast(cross, estimate, row, kind, reml=True)
        assert own["df"] == pytest.approx(test.df_den, rel=1e-8)
        assert own["t"] ** 2 == pytest.approx(test.f, rel=1e-8)
        assert own["estimate"] == pytest.approx(row @ estimate.beta, rel=1e-12)


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n].get("kenward_roger_vcov")])
def test_adjusted_covariance_as_r(name):
    fit, cross = fitted(name)
    found = degrees_of_freedom(cross, fit.estimate, "kenward-roger", reml=True)
    expected = np.array(CASES[name]["kenward_roger_vcov"])
    np.testing.assert_allclose(found.vcov, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max())


def test_printed_p_values_of_cake():
    """lmerTest's type III test of recipe, which additive models share with this contrast."""
    frame = rf.load_dataset("cake")
    cross, estimate, _ = of_model("angle ~ recipe + temp + (1 | recipe:replicate)", frame)
    for kind in KINDS:
        found = contrast(cross, estimate, np.eye(4)[1:3], kind, reml=True)
        assert found.f == pytest.approx(0.248788787072, rel=1e-9)
        assert found.df_den == pytest.approx(42, rel=1e-7)
        assert found.p_value == pytest.approx(0.78088560, abs=1e-8)


# ------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_one_way_layout(kind):
    """The variance of the mean is the mean square between groups over n: J - 1 df."""
    found = table(
        *of_model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")), kind, reml=True
    )
    assert found["df"].item() == pytest.approx(5, rel=1e-8)
    assert found["se"].item() == pytest.approx(np.sqrt(56357.5 / 5 / 30), rel=1e-8)


@pytest.mark.parametrize("size", [1e-2, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_groups_that_differ_much_or_little(kind, size):
    """Between groups J - 1 df, within n - J - 1, whatever the ratio of the variances."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(np.arange(6), 2000), "x": np.tile([-1.0, 1.0], 6000)})
    frame["y"] = size * np.array([1, -2, 3, 0, -3, 2])[frame["g"]] + rng.normal(size=12_000)
    found = table(*of_model("y ~ x + (1 | g)", frame), kind, reml=True)["df"]
    np.testing.assert_allclose(found, [5, 12_000 - 7], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_two_stage_regression(kind):
    """Days has the paired t test of the 18 slopes."""
    found = table(*sleep(), kind, reml=True).loc["Days"]
    frame = rf.load_dataset("sleepstudy")
    slopes = [np.polyfit(d["Days"], d["Reaction"], 1)[0] for _, d in frame.groupby("Subject")]
    t = stats.ttest_1samp(slopes, 0)
    assert found["df"] == pytest.approx(t.df, rel=1e-8)
    assert found["t"] == pytest.approx(t.statistic, rel=1e-7)
    assert found["p_value"] == pytest.approx(t.pvalue, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "method"),
    [("satterthwaite", "reml"), ("satterthwaite", "ml"), ("kenward-roger", "reml")],
)
def test_linear_model(kind, method):
    """Without random effects n - p, and the usual F."""
    frame = random_frame(np.random.default_rng(1))
    cross, estimate, names = of_model("y ~ x * f", frame, method, weights="w")
    reml = method == "reml"
    found = table(cross, estimate, names, kind, reml=reml)
    np.testing.assert_allclose(found["df"], 150 - 6, rtol=1e-12)
    np.testing.assert_allclose(found["se"], np.sqrt(np.diag(estimate.vcov)), rtol=1e-10)
    test = contrast(cross, estimate, np.eye(6)[4:], kind, reml=reml)
    smaller = rf.Model("y ~ x + f", frame, weights="w").fit().estimate
    larger = rf.Model("y ~ x * f", frame, weights="w").fit().estimate
    drop = smaller.sigma**2 * 146 - larger.sigma**2 * 144
    assert test.f == pytest.approx(drop / 2 / estimate.sigma**2, rel=1e-7)
    assert test.df_num == 2
    assert test.scaling == pytest.approx(1, rel=1e-14)  # a quotient of sums in BLAS' order
    assert test.df_den == pytest.approx(144, rel=1e-9)
    assert test.p_value == pytest.approx(stats.f.sf(test.f, 2, 144), rel=1e-8)


# ------------------------------------------------------------------------------ brute force


@pytest.mark.parametrize(
    ("structure", "reml"),
    [
        ("correlated slope", True),
        ("correlated slope", False),
        ("factor slope", True),
        ("factor slope", False),
        ("crossed slopes", True),
        ("nested three deep", True),
        ("nested", False),
    ],
)
def test_satterthwaite_by_dense_differences(structure, reml):
    """The Hessian and f by differences of the n x n deviance in (Lambda, log sigma)."""
    frame = random_frame(np.random.default_rng(3), n=140)
    rng = np.random.default_rng(4)
    for term in rf.Model(STRUCTURES[structure], frame).design.rows.terms:
        columns = term.columns / np.sqrt(np.mean(term.columns**2, axis=0))
        effects = rng.normal(0, 4, size=(term.n_levels, term.n_coefs))
        frame["y"] += (effects[term.codes] * columns).sum(axis=1)
    model = rf.Model(STRUCTURES[structure], frame, weights="w")
    fit = model.fit("reml" if reml else "ml")
    design, cross = fit.design, cross_products(fit.design)
    assert not fit.is_singular
    roots = [T @ f for T, f in zip(cross.bases, fit.estimate.Lambdas, strict=True)]
    shapes = [root.shape for root in roots]
    places = [(t, i, j) for t, (k, _) in enumerate(shapes) for j in range(k) for i in range(j, k)]
    n, p = design.rows.X.shape
    nu = n - p if reml else n

    def at(x):
        moved = [np.linalg.solve(T, r) for T, r in zip(cross.bases, roots, strict=True)]
        for (t, i, j), delta in zip(places, x[:-1], strict=True):
            moved[t][i, j] += delta
        basis = [T @ f for T, f in zip(cross.bases, moved, strict=True)]
        found, sigma = dense(design, cross, basis), fit.sigma * np.exp(x[-1])
        profiled = found.reml if reml else found.deviance
        full = profiled - nu * (1 + np.log(2 * np.pi * found.r2 / nu))
        full += nu * np.log(sigma**2) + found.r2 / sigma**2
        return full, sigma**2 * found.beta_cov

    d = len(places) + 1
    theta = fit.theta
    h = np.append(np.maximum(np.abs(theta), 0.02) * 3e-3, 3e-3)
    E = np.diag(h)
    H = np.array(
        [
            [
                (at(a + b)[0] - at(a - b)[0] - at(b - a)[0] + at(-a - b)[0]) / (4 * h[i] * h[j])
                for j, b in enumerate(E)
            ]
            for i, a in enumerate(E)
        ]
    )
    slopes = [(at(a)[1] - at(-a)[1]) / (2 * h[i]) for i, a in enumerate(E)]
    C, vcov = 2 * np.linalg.inv(H), at(np.zeros(d))[1]
    g = np.array([np.diag(slope) for slope in slopes])
    expected = 2 * np.diag(vcov) ** 2 / np.einsum("ic,ij,jc->c", g, C, g)
    found = table(cross, fit.estimate, design.fixed, "satterthwaite", reml=reml)
    np.testing.assert_allclose(found["df"], expected, rtol=2e-3)
    np.testing.assert_allclose(found["se"], np.sqrt(np.diag(vcov)), rtol=1e-7)


# ------------------------------------------------------------------------------- invariance


@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter(kind):
    """Neither those of the response, the predictors, the weights, nor the rows of L."""
    frame = random_frame(np.random.default_rng(5))
    scaled = frame.assign(y=1e6 * frame["y"], x=1e-7 * frame["x"] + 3e-7, w=1e4 * frame["w"])
    formula = "y ~ x + f + (x | c) + (1 | i)"
    one, other = (of_model(formula, data, weights="w") for data in (frame, scaled))
    a, b = (table(*model, kind, reml=True) for model in (one, other))
    rows = ["x", "f[T.b]", "f[T.c]"]
    np.testing.assert_allclose(a.loc[rows, ["df", "t"]], b.loc[rows, ["df", "t"]], rtol=1e-5)
    tests = [contrast(*model[:2], np.eye(4)[1:], kind, reml=True) for model in (one, other)]
    assert tests[0].df_num == tests[1].df_num == 3
    assert tests[0].f == pytest.approx(tests[1].f, rel=1e-6)
    if kind == "kenward-roger":
        assert tests[0].df_den == pytest.approx(tests[1].df_den, rel=1e-6)
        L = np.diag([1e9, 1.0, 1e-9]) @ np.eye(4)[1:]
        again = contrast(*one[:2], L, kind, reml=True)
        assert again.df_den == pytest.approx(tests[0].df_den, rel=1e-9)
        assert again.f == pytest.approx(tests[0].f, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_dependent_rows_do_not_count(kind):
    cross, estimate, _ = sleep()
    L = np.array([[0, 1.0], [0, -3.0], [0, 0]])
    found = contrast(cross, estimate, L, kind, reml=True)
    alone = contrast(cross, estimate, [0, 1], kind, reml=True)
    assert found.df_num == alone.df_num == 1
    assert found.f == pytest.approx(alone.f, rel=1e-12)
    assert found.df_den == pytest.approx(alone.df_den, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_one_contrast_is_a_t_test(kind):
    """Also of a combination: the F is the square of its t, with the same df."""
    cross, estimate, names = (
        fitted("groups_slope")[1],
        fitted("groups_slope")[0].estimate,
        [*"abcd"],
    )
    rows = table(cross, estimate, names, kind, reml=True)
    for j in range(4):
        found = contrast(cross, estimate, np.eye(4)[j], kind, reml=True)
        assert found.f == pytest.approx(rows["t"].iloc[j] ** 2, rel=1e-10)
        assert found.df_den == pytest.approx(rows["df"].iloc[j], rel=1e-8)
        assert found.p_value == pytest.approx(rows["p_value"].iloc[j], rel=1e-6)
        assert found.scaling == pytest.approx(1, abs=1e-10)


def test_two_equal_terms_are_one():
    """A variance that two terms share: the curvature is flat in one direction."""
    frame = rf.load_dataset("sleepstudy")
    cross, estimate, names = of_model("Reaction ~ Days + (1 | Subject)", frame)
    half = tuple(f / np.sqrt(2) for f in estimate.Lambdas)
    frame["Twin"] = frame["Subject"]
    twice = cross_products(rf.Model("Reaction ~ Days + (1 | Subject) + (1 | Twin)", frame).design)
    doubled = replace(estimate, Lambdas=(*half, *half))
    for kind in KINDS:
        one = table(cross, estimate, names, kind, reml=True)
        two = table(twice, doubled, names, kind, reml=True)
        np.testing.assert_allclose(two, one, rtol=1e-5)


def test_differences_have_converged(monkeypatch):
    fit, cross = fitted("pupils_crossed")
    found = table(cross, fit.estimate, fit.design.fixed, "satterthwaite", reml=True)["df"]
    monkeypatch.setattr(module, "RELATIVE_STEP", 3e-3)
    again = table(cross, fit.estimate, fit.design.fixed, "satterthwaite", reml=True)["df"]
    np.testing.assert_allclose(again, found, rtol=1e-8)


# ------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize("kind", KINDS)
def test_no_fixed_effects(kind):
    cross, estimate, names = of_model("Yield ~ 0 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    found = table(cross, estimate, names, kind, reml=True)
    assert list(found.columns) == COLUMNS
    assert found.empty


def test_pooled_df_of_few():
    """The mean of an F with 2 df or fewer does not exist."""
    assert module._pooled(np.array([1.5, 30.0])) == 2
    assert module._pooled(np.array([7.0, 7.0])) == pytest.approx(7)


def test_printed():
    assert str(ContrastTest(1.23456, 2, 12.345, 0.01234567, 1.0)) == (
        "F = 1.2346 on 2 and 12.35 df: p = 0.01235"
    )
    assert str(ContrastTest(1.0, 2, 12.0, 0.5, 0.9876543)) == (
        "F = 1.0000 on 2 and 12.00 df, scaled by 0.987654: p = 0.5"
    )


@pytest.mark.parametrize(
    ("L", "message"),
    [
        (
            np.eye(3),
            "`L` has the shape (3, 3), expected rows of 2 numbers, one for each fixed effect.",
        ),
        (
            np.eye(2)[None],
            "`L` has the shape (1, 2, 2), expected rows of 2 numbers, one for each fixed effect.",
        ),
        ([[0, np.nan]], "`L` has an entry that is not a finite number."),
        ([0, 0], "`L` is zero: it tests nothing."),
        ([["Days", 1]], "`L` is not a matrix of numbers."),
    ],
)
def test_bad_contrasts(L, message):
    cross, estimate, _ = sleep()
    with pytest.raises(rf.FitError) as caught:
        contrast(cross, estimate, L, "satterthwaite", reml=True)
    assert str(caught.value) == message


def test_bad_kind():
    cross, estimate, names = sleep()
    with pytest.raises(rf.FitError) as caught:
        table(cross, estimate, names, "kenward-rogers", reml=True)
    assert str(caught.value) == (
        "df='kenward-rogers' is not a kind of degrees of freedom. Did you mean `kenward-roger`?"
    )


def test_kenward_roger_of_ml():
    cross, estimate, names = sleep()
    with pytest.raises(rf.FitError) as caught:
        table(cross, estimate, names, "kenward-roger", reml=False)
    assert str(caught.value) == (
        "Kenward-Roger degrees of freedom are those of a REML fit: fit the model with "
        'method="reml", or ask for df="satterthwaite".'
    )


def test_not_at_a_minimum():
    cross, estimate, names = sleep()
    moved = replace(estimate, Lambdas=tuple(f / 5 for f in estimate.Lambdas))
    with pytest.raises(rf.FitError, match="the estimates are not at a minimum of the deviance"):
        table(cross, moved, names, "satterthwaite", reml=True)


def test_kenward_roger_breaks_down():
    """Three groups carry three coefficients: nothing is left for their variance."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"g": np.repeat(list("abc"), 8), "x": np.tile(np.arange(8.0), 3)})
    frame["h"] = frame["g"].map({"a": 0, "b": 1, "c": 1})
    frame["y"] = rng.normal(size=3)[frame["g"].factorize()[0]] + rng.normal(size=24)
    cross, estimate, _ = of_model("y ~ x + h + (x | g)", frame)
    with pytest.raises(rf.FitError) as caught:
        contrast(cross, estimate, np.eye(3), "kenward-roger", reml=True)
    assert str(caught.value) == (
        "Kenward and Roger's approximation has no denominator degrees of freedom for these 3 "
        "contrasts: the variances they depend on are hardly known. Test fewer at once, or ask for "
        'df="satterthwaite".'
    )
