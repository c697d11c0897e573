"""The shrinkage table: each group's own least squares beside what the model makes of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from generalized_fits import FAMILIES, design_of, made_up, point_fit, simulated
from scipy import optimize, special

import ranef as rf
from fits import FORMULAS, METHODS, fit_of, frame, population
from ranef.design.separation import separated_columns
from ranef.families.names import find_family
from ranef.fits.shrinkage import group_least_squares


@pytest.fixture(params=FORMULAS)
def fit(request):
    return fit_of(request.param, "reml")


def own(table):
    return table.pivot_table(index="level", columns="coef", values="own", sort=False, dropna=False)


def least_squares(columns, response, weights):
    W = np.diag(weights)
    return np.linalg.solve(columns.T @ W @ columns, columns.T @ W @ response)


def test_own_estimates_are_least_squares_on_the_groups_rows():
    data = rf.load_dataset("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", data)
    table = fit.shrinkage_table()
    for subject, rows in data.groupby("Subject", observed=True):
        slope, intercept = np.polyfit(rows["Days"], rows["Reaction"], 1)
        mine = table[table["level"] == subject].set_index("coef")["own"]
        assert (mine["Intercept"], mine["Days"]) == pytest.approx((intercept, slope))
    # D. Bates, IMPS 2008 (slides): the model's slopes vary less than the groups' own
    slopes = table[table["coef"] == "Days"]
    assert slopes["model"].std() < slopes["own"].std()
    assert set(table["n"]) == {10}


def test_own_estimates_on_what_the_rest_of_the_model_leaves(fit):
    """By the residual: what is left after everything, with the term's own part put back."""
    fitted = fit.fitted()
    for term in fit.design.terms:
        b = fit.ranef()[term.label].to_numpy()
        own = fit.design.rows.term(term.label)
        part = b[own.codes] + population(fit, term)
        partial = fit.design.rows.y - fitted + np.sum(own.columns * part, axis=1)
        table = fit.shrinkage_table(term.label)
        found = table["own"].to_numpy().reshape(b.shape)
        for level in range(term.n_levels):
            rows = own.codes == level
            expected = least_squares(
                own.columns[rows], partial[rows], fit.design.rows.weights[rows]
            )
            np.testing.assert_allclose(found[level], expected, rtol=1e-8, atol=1e-10)
        assert list(table["n"][:: term.n_coefs]) == np.bincount(own.codes).tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_models_coefficients_are_those_of_coef(method):
    fit = fit_of("crossed", method)
    for label in ("g", "h"):
        table = fit.shrinkage_table(label)
        model = table.pivot_table(index="level", columns="coef", values="model", sort=False)
        expected = fit.coef()[label][list(model.columns)].loc[model.index]
        np.testing.assert_allclose(model, expected)


def few_rows():
    """Return groups of 1, 2 and many rows, one without variation of x, one at x = 0 only."""
    data = frame().iloc[:60].assign(g="many")
    data.loc[:0, "g"] = "one"
    data.loc[1:2, "g"] = "two"
    data.loc[3:7, "g"] = "constant"
    data.loc[3:7, "x"] = 2 + 1e-14 * np.arange(5)  # but for rounding
    data.loc[8:12, "g"] = "zero"
    data.loc[8:12, "x"] = 0.0
    data.loc[13:30, "g"] = "more"
    return data


def test_what_the_rows_of_a_group_do_not_determine_is_nan():
    fit = rf.fit("y ~ x + (x | g)", few_rows())
    table = fit.shrinkage_table()
    undetermined = own(table).isna()
    assert undetermined["Intercept"].equals(undetermined["x"])
    assert undetermined["x"].to_dict() == {
        "constant": True,
        "many": False,
        "more": False,
        "one": True,
        "two": False,
        "zero": True,
    }
    counts = table.drop_duplicates("level").set_index("level")["n"].to_dict()
    assert counts == {"constant": 5, "many": 29, "more": 18, "one": 1, "two": 2, "zero": 5}
    assert table[["model", "population"]].notna().all(axis=None)


def test_a_slope_alone_needs_a_row_off_zero():
    fit = rf.fit("y ~ x + (0 + x | g)", few_rows())
    found = own(fit.shrinkage_table())["x"]
    assert list(found.index[found.isna()]) == ["zero"]


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_decide_what_is_determined(unit):
    plain = rf.fit("y ~ x + (x | g)", few_rows()).shrinkage_table()
    data = few_rows().assign(x=lambda d: d["x"] * unit)
    scaled = rf.fit("y ~ x + (x | g)", data).shrinkage_table()
    factor = plain["coef"].map({"Intercept": 1.0, "x": unit})
    np.testing.assert_allclose(scaled["own"] * factor, plain["own"], rtol=1e-6)


def test_a_column_of_zeros_is_not_determined_anywhere():
    fit = fit_of("one factor", "ml")
    term = fit.design.rows.terms[0]
    silent = type(term)(**{**vars(term), "columns": np.zeros((240, 1))})
    found, counts = group_least_squares(silent, fit.design.rows.y, fit.design.rows.weights)
    assert np.isnan(found).all()
    assert counts.sum() == 240


def test_weights_weigh():
    data = pd.DataFrame({"y": [1.0, 5.0, 2.0, 3.0, 4.0, 9.0, 7.0], "g": list("aabbccc")})
    fit = rf.fit("y ~ 1 + (1 | g)", data, weights=[3.0, 1, 1, 1, 1, 1, 2])
    assert own(fit.shrinkage_table())["Intercept"].to_dict() == pytest.approx(
        {"a": 2.0, "b": 2.5, "c": 6.75}
    )


def test_an_offset_is_taken_off():
    data = frame()
    fit = rf.fit("y ~ 1 + (1 | g)", data, offset="e")
    expected = (data["y"] - data["e"]).groupby(data["g"]).mean()
    np.testing.assert_allclose(fit.shrinkage_table()["own"], expected)


# ------------------------------------------------------------------------ generalised models


@pytest.fixture(params=FAMILIES)
def generalised(request):
    return made_up(request.param, "two terms of one factor")


def test_own_estimates_maximise_the_likelihood_of_the_group(generalised):
    """By a search that knows no derivatives, with the rest of the linear predictor given."""
    fit, (intercepts, slopes) = generalised, generalised.design.rows.terms
    family, psi = fit.family, np.array(list(fit.parameters.values()))
    eta, b = fit.predict(kind="link"), fit.ranef()["g"].to_numpy()[:, 0]
    rest = eta - b[intercepts.codes] - fit.fixef()["Intercept"]
    table = fit.shrinkage_table("g")
    assert list(table["n"]) == np.bincount(intercepts.codes).tolist()
    np.testing.assert_allclose(table["model"], fit.fixef()["Intercept"] + b)
    for level, found in enumerate(table["own"]):
        rows = intercepts.codes == level
        y, w = fit.design.rows.y[rows], fit.design.rows.weights[rows]

        def deviance(c, y=y, w=w, rest=rest[rows]):
            with np.errstate(all="ignore"):
                return -family.expansion(y, rest + c, w, psi).value.sum()

        best = optimize.minimize_scalar(deviance, (found - 0.1, found + 0.1), tol=1e-12)
        assert found == pytest.approx(best.x, abs=1e-6)
    assert fit.shrinkage_table(slopes.label)["own"].notna().all()


def test_several_coefficients_have_no_score_left():
    for name in ("binomial", "negative_binomial", "gamma", "t"):
        fit = made_up(name, "correlated slopes")
        (term,), psi = fit.design.rows.terms, np.array(list(fit.parameters.values()))
        own = fit.shrinkage_table()["own"].to_numpy().reshape(-1, 2)
        assert np.isfinite(own).all()
        eta = np.sum(term.columns * own[term.codes], axis=1)
        score = fit.family.expansion(fit.design.rows.y, eta, fit.design.rows.weights, psi).score
        for column in term.columns.T:
            left = np.bincount(term.codes, score * column)
            assert np.abs(left).max() < 1e-4


def test_own_estimates_of_intercepts_in_closed_form():
    """Of every group its mean, as the link sees it: the number of rows or trials weighs."""
    for name, link in (("binomial", special.logit), ("poisson", np.log), ("gamma", np.log)):
        made = made_up(name, "no fixed effects")
        totals = np.bincount(
            made.design.rows.terms[0].codes, made.design.rows.weights * made.design.rows.y
        )
        sizes = np.bincount(made.design.rows.terms[0].codes, made.design.rows.weights)
        found = made.shrinkage_table()["own"]
        np.testing.assert_allclose(found, link(totals / sizes), rtol=1e-6)


GROUPS = pd.DataFrame(
    {
        "g": list("aaaabbbbccccddddee"),
        "x": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 1, 1, 1, 1, 0, 1],
        # all successes; separated by x; overlapping; x does not vary; two rows, one of each
        "y": [1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1],
    }
)


def test_what_has_no_maximum_is_nan():
    binomial, poisson = find_family("binomial"), find_family("poisson")
    intercepts = own(point_fit("y ~ 1 + (1 | g)", GROUPS, binomial).shrinkage_table())["Intercept"]
    assert list(intercepts.index[intercepts.isna()]) == ["a"]
    slopes = own(point_fit("y ~ x + (x | g)", GROUPS, binomial).shrinkage_table())
    assert list(slopes.index[slopes["x"].notna()]) == ["c"]
    assert slopes["Intercept"].isna().equals(slopes["x"].isna())
    counts = GROUPS.assign(y=lambda d: d["y"] * (d["g"] != "c"))  # nothing but zeros in c
    found = own(point_fit("y ~ 1 + (1 | g)", counts, poisson).shrinkage_table())["Intercept"]
    assert list(found.index[found.isna()]) == ["c"]
    assert found["a"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_separation_is_told_with_every_link(link):
    family = find_family("binomial", link)
    for data in (GROUPS, GROUPS.assign(y=1 - GROUPS["y"])):
        found = own(point_fit("y ~ 1 + (1 | g)", data, family).shrinkage_table())["Intercept"]
        assert list(found.index[found.isna()]) == ["a"]
        np.testing.assert_allclose(found.dropna(), family.link.link(np.array(0.5)), atol=1e-6)
        slopes = own(point_fit("y ~ x + (x | g)", data, family).shrinkage_table())["x"]
        assert list(slopes.index[slopes.notna()]) == ["c"]


def test_separation_is_what_the_linear_programme_finds():
    rng, n, family = np.random.default_rng(1), 400, find_family("binomial")
    data = pd.DataFrame({"x": rng.normal(size=n), "g": rng.integers(0, 60, n)})
    data["y"] = (rng.random(n) < special.expit(data["x"])).astype(int)
    found = own(point_fit("y ~ x + (x | g)", data, family).shrinkage_table())["x"]
    assert 5 < found.isna().sum() < 55
    for group, rows in data.groupby("g"):
        separated = separated_columns(design_of("y ~ x", rows, family), family)
        assert np.isnan(found[group]) == bool(separated), group


def test_rare_is_not_never():
    data = pd.DataFrame({"k": [1, 0, 999_999], "n": 1_000_000, "g": list("abc")})
    fit = point_fit("cbind(k, n - k) ~ 1 + (1 | g)", data, find_family("binomial"))
    found = fit.shrinkage_table()["own"]
    expected = [special.logit(1e-6), np.nan, -special.logit(1e-6)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_start_does_not_matter():
    made = made_up("poisson", "correlated slopes")
    far = [b + shift for b, shift in zip(made.estimate.b, ((8.0, -3.0),), strict=True)]
    moved = point_fit(
        made.design.formula.text, simulated("poisson"), made.family, beta=made.fixef(), b=far
    )
    expected = made.shrinkage_table()["own"]
    np.testing.assert_allclose(moved.shrinkage_table()["own"], expected, atol=1e-6)
