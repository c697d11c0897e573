"""Maximum likelihood in each group, against searches without derivatives and closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from generalized_fits import FAMILIES, design_of, made_up, point_fit, simulated
from scipy import optimize, special

import ranef as rf
from ranef.design.separation import separated_columns
from ranef.families.names import find_family


def own(table):
    return table.pivot_table(index="level", columns="coef", values="own", sort=False, dropna=False)


@pytest.fixture(params=FAMILIES)
def generalised(request):
    return made_up(request.param, "two terms of one factor")


def test_own_estimates_maximise_the_likelihood_of_the_group(generalised):
    """By a search that knows no derivatives; of both terms of the factor together."""
    fit, rows = generalised, generalised.design.rows
    psi = np.array(list(fit.parameters.values()))
    table = fit.shrinkage_table("g")
    codes, columns = rows.terms[0].codes, rows.X
    assert list(table["n"][::2]) == np.bincount(codes).tolist()
    for level, found in enumerate(own(table).to_numpy()[:3]):
        mine = codes == level

        def deviance(c, mine=mine):
            with np.errstate(all="ignore"):
                eta = columns[mine] @ c
                parts = fit.family.expansion(rows.y[mine], eta, rows.weights[mine], psi)
            return -parts.value.sum()

        best = optimize.minimize(
            deviance, found + 0.05, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13}
        )
        np.testing.assert_allclose(found, best.x, atol=2e-6)


def test_errors_are_those_of_the_curvature():
    """By second differences of the likelihood."""
    fit = made_up("poisson", "correlated slopes")
    rows, table = fit.design.rows, fit.shrinkage_table()
    found, h = own(table).to_numpy()[0], 1e-4
    mine = rows.terms[0].codes == 0

    def value(c):
        eta = rows.X[mine] @ c
        return np.sum(rows.y[mine] * eta - np.exp(eta))

    steps = h * np.eye(2)
    information = [
        [
            -sum(s * t * value(found + s * a + t * b) for s in (1, -1) for t in (1, -1))
            / (4 * h**2)
            for a in steps
        ]
        for b in steps
    ]
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(table["se"][:2], expected, rtol=1e-5)


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
    assert list(slopes.index[slopes["Intercept"].notna()]) == ["c"]
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


def test_a_group_keeps_the_coefficients_that_have_a_maximum():
    """Where x = 0 has both outcomes and x = 1 successes alone, the intercept is that of x = 0."""
    data = pd.DataFrame({"g": list("aaaaaaaabbbbbbbb"), "x": [0, 0, 0, 1, 1, 1, 1, 0] * 2})
    data["y"] = [1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 1]
    found = own(point_fit("y ~ x + (x | g)", data, find_family("binomial")).shrinkage_table())
    assert found.loc["a", "Intercept"] == pytest.approx(special.logit(0.75), abs=1e-6)
    assert np.isnan(found.loc["a", "x"])
    assert found.loc["b"].notna().all()


def test_no_district_with_an_intercept_of_its_own_is_missing():
    """Districts of rural women alone have an intercept, if both outcomes were seen."""
    data = rf.load_dataset("Contraception")
    fit = rf.fit("use ~ age + urban + (urban | district)", data, family="binomial")
    found = own(fit.shrinkage_table())
    rural = data[data["urban"] == "N"].groupby("district", observed=False)["use"].nunique()
    both = rural[rural == 2].index
    assert found.loc[both, "Intercept"].notna().all()
    assert found["Intercept"].notna().sum() == len(both) == 54


def test_where_all_of_a_likelihood_has_no_maximum_other_effects_are_held():
    """In b the two predictors together separate the outcomes."""
    data = pd.DataFrame({"g": list("aaaaaaaabbbb"), "x": [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]})
    data["y"] = [0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 1, 1]
    fit = point_fit("y ~ x + (1 | g)", data, find_family("binomial"))
    table = fit.shrinkage_table().set_index("level")
    assert table["held"].to_dict() == {"a": False, "b": True}
    mine = data["g"] == "b"
    rest, y = fit.fixef()["x"] * data["x"][mine], data["y"][mine]

    def score(c):
        return np.sum(y - special.expit(c + rest))

    assert table.loc["b", "own"] == pytest.approx(optimize.brentq(score, -9, 9), abs=1e-7)
