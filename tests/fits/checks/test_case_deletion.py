"""Influence of groups and rows against R, and against models of the data without them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_cases import REFERENCE

import ranef as rf
from ranef.errors import DataError, FitError

CASES = {
    case["id"]: case for case in json.loads((REFERENCE / "influence.json").read_text())["cases"]
}
LINEAR = [name for name, case in CASES.items() if case["family"] == "gaussian"]


def formula(case):
    return case["formula"].replace("incidence/size", "I(incidence/size)")


def data_of(case):
    data = rf.load_dataset(case["data"].removesuffix(".csv"))
    return data if case["weights"] is None else data.assign(w=data.eval(case["weights"]))


def fitted(case, data=None):
    weights = None if case["weights"] is None else "w"
    data = data_of(case) if data is None else data
    return rf.fit(formula(case), data, family=case["family"], weights=weights)


@pytest.mark.parametrize("name", LINEAR)
def test_leverages_and_distances_of_rows_are_those_of_lme4(name):
    case, fit = CASES[name], fitted(CASES[name])
    np.testing.assert_allclose(fit.leverage(), case["hat"], atol=1e-6)
    np.testing.assert_allclose(fit.cooks_distance(), case["cook"], atol=1e-6)
    np.testing.assert_allclose(fit.residuals("standardized"), case["standardized"], atol=1e-5)


@pytest.mark.parametrize(
    ("formula", "data", "total"),
    [
        ("Yield ~ 1 + (1 | Batch)", "Dyestuff", 4.695160317792145),
        ("Reaction ~ 1 + Days + (1 + Days | Subject)", "sleepstudy", 28.611525700136877),
    ],
)
def test_leverages_add_up_to_those_of_mixedmodels_jl(formula, data, total):
    fit = rf.fit(formula, rf.load_dataset(data), "ml")
    assert fit.leverage().sum() == pytest.approx(total, rel=1e-5)  # as near as its tests ask


@pytest.mark.parametrize("name", CASES)
def test_changes_are_those_of_refits_in_r(name):
    case, fit = CASES[name], fitted(CASES[name])
    table = fit.influence(group=case["group"])
    table.index = table["level"].astype(str)
    p = len(fit.fixef())
    places = [*range(p), *range(p if fit.family.has_sigma else p + 1, len(case["all"]))]
    expected = (np.array(case["refits"]) - np.array(case["all"]))[:, places]
    found = table.loc[case["levels"]].iloc[:, 3:].to_numpy()[:, : len(places)]
    scale = np.abs(np.array(case["all"]))[places]
    assert np.abs((found - expected) / scale).max() < 1e-5  # as near as bobyqa comes
    if "cook_groups" in case:
        cook = table.loc[case["levels"], "cook"]
        np.testing.assert_allclose(cook, np.array(case["cook_groups"]), rtol=1e-5)


@pytest.mark.parametrize("name", ["sleepstudy", "penicillin_plate", "pastes", "machines", "cbpp"])
def test_changes_are_those_of_a_model_of_the_data_without_a_group(name):
    case = CASES[name]
    data, group = data_of(case), case["group"]
    fit = fitted(case)
    level = case["levels"][3]
    found = fit.influence(group=group, levels=[level]).iloc[0, 3:].astype(float)
    left = fitted(case, data[data[group].astype(str) != level]).estimates()
    off = (found - (left - fit.estimates())) / fit.estimates().abs()
    assert off.abs().max() < 1e-6


def test_of_a_posterior_the_change_is_that_of_its_means():
    data = rf.load_dataset("Dyestuff")
    priors = {"Intercept": rf.priors.Normal(1500, 100), "sd": rf.priors.HalfNormal(50)}
    priors["sigma"] = rf.priors.HalfNormal(100)
    formula = "Yield ~ 1 + (1 | Batch)"
    fit = rf.fit(formula, data, "quadrature", priors=priors)
    table = fit.influence().set_index("level")
    left = rf.fit(formula, data[data["Batch"] != "E"], "quadrature", priors=priors)
    np.testing.assert_allclose(
        table.loc["E", left.estimates().index].astype(float),
        left.estimates() - fit.estimates(),
        rtol=1e-6,
    )
    np.testing.assert_allclose(table["elpd"], fit.loo("group").elpd_i)
    assert (table["p"] > -1e-9).all()


def test_of_draws_the_change_is_without_their_noise():
    data = rf.load_dataset("Dyestuff")
    model = rf.Model("Yield ~ 1 + (1 | Batch)", data)
    by_draws = model.fit("laplace", seed=1).influence(levels=["E"])
    exact = model.fit("quadrature").influence(levels=["E"])
    changed = by_draws.columns[5:]
    np.testing.assert_allclose(
        by_draws[changed].astype(float), exact[changed].astype(float), rtol=1e-12
    )
    post = rf.fit("y ~ x + (1 | g)", counts(), "laplace", family="poisson", seed=1)
    mode = rf.fit("y ~ x + (1 | g)", counts(), "map", family="poisson")
    names = post.estimates().index
    np.testing.assert_allclose(
        post.influence(levels=["a"])[names], mode.influence(levels=["a"])[names]
    )


def test_of_no_groups_the_table_has_no_rows():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    none, one = fit.influence(levels=[]), fit.influence(levels=["E"])
    assert len(none) == 0
    assert none.columns.tolist() == one.columns.tolist()


def counts():
    rng = np.random.default_rng(3)
    x, g = rng.normal(size=60), np.repeat(list("abcdef"), 10)
    b = dict(zip("abcdef", rng.normal(size=6) * 0.5, strict=True))
    mu = np.exp(1 + 0.3 * x + np.array([b[one] for one in g]))
    return {"y": rng.poisson(mu), "x": x, "g": g}


def test_a_row_is_left_out():
    data = rf.load_dataset("Dyestuff")
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", data)
    table = fit.influence("observation", levels=[data.index[7]])
    left = rf.fit("Yield ~ 1 + (1 | Batch)", data.drop(index=data.index[7]))
    assert table["n"].tolist() == [1]
    np.testing.assert_allclose(
        table[left.estimates().index].iloc[0].astype(float), left.estimates() - fit.estimates(),
        atol=1e-6,
    )  # fmt: skip


def test_what_is_not_determined_without_a_group_is_nan():
    rng = np.random.default_rng(1)
    g = np.repeat(list("abcdef"), 6)
    data = {"y": rng.normal(size=36), "x": np.where(g == "a", rng.normal(size=36), 0.0), "g": g}
    fit = rf.fit("y ~ x + (1 | g)", data)
    table = fit.influence().set_index("level")
    assert np.isnan(table.loc["a", "x"])
    assert np.isnan(table.loc["a", "cook"])
    assert np.isfinite(table.loc["b"].astype(float)).all()


def test_a_model_that_cannot_be_fitted_without_a_group_is_named():
    g = np.repeat(["a", "b"], 6)
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": np.random.default_rng(2).normal(size=12), "g": g})
    with pytest.raises(FitError, match="cannot be fitted without level `a` of `g`: "):
        fit.influence()


def test_bad_questions_are_answered():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match=r"there is no level of `Batch` 'Z'\. Known names: `A`"):
        fit.influence(levels=["Z"])
    with pytest.raises(FitError, match=r"there is no row 99\."):
        fit.influence("observation", levels=99)
    with pytest.raises(FitError, match="unit='rows' does not exist"):
        fit.influence("rows")
    plain = rf.fit("Yield ~ 1", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match="the model has no grouping factor: give the labels"):
        plain.influence()
    batches = rf.load_dataset("Dyestuff")["Batch"]
    assert len(plain.influence(group=batches)) == 6
    with pytest.raises(DataError, match="`group` has one group only"):
        plain.influence(group=["a"] * 30)


def test_too_many_groups_are_refused_with_what_there_is_instead():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(10_000), 2)
    y = rng.normal(size=20_000) + rng.normal(size=10_000)[g]
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})
    with pytest.raises(FitError, match=r"leave each of 10,000 levels of `g` out .*levels="):
        fit.influence()
    assert len(fit.influence(levels=[7, 9])) == 2
    assert abs(fit.leverage().sum() / 20_000 - 0.5) < 0.2
