"""Own estimates of each group, against R's lmList and searches that know no derivatives."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from generalized_fits import made_up
from reference_cases import REFERENCE

import ranef as rf
from fits import FORMULAS, METHODS, fit_of, frame, known_posterior

LMLIST = json.loads((REFERENCE / "lmlist.json").read_text())
# of each case of R: formula, data set, and the grouping factor
CASES = {
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", "Subject"),
    "pastes_batch": ("strength ~ 1 + (1 | batch) + (1 | sample)", "Pastes", "batch"),
    "pastes_sample": ("strength ~ 1 + (1 | batch) + (1 | sample)", "Pastes", "sample"),
    "penicillin_plate": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", "plate"),
    "penicillin_sample": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", "sample"),
    "orthodont": ("distance ~ age * Sex + (age | Subject)", "Orthodont", "Subject"),
    "machines_worker": ("score ~ Machine + (1 | Worker/Machine)", "Machines", "Worker"),
    "machines_place": ("score ~ Machine + (1 | Worker/Machine)", "Machines", "Machine:Worker"),
}
NAMES = {"(Intercept)": "Intercept", "MachineB": "Machine[T.B]", "MachineC": "Machine[T.C]"}


def wide(table, column):
    frame = table.pivot(index="level", columns="coef", values=column)
    return frame.set_axis([in_order(str(one)) for one in frame.index])


def in_order(level):
    """Return the label of a combination, whichever factor R or we write first."""
    return ":".join(sorted(level.split(":"), key=str.lower))


@pytest.mark.parametrize("name", CASES)
def test_estimates_errors_and_intervals_are_those_of_lmlist(name):
    formula, dataset, factor = CASES[name]
    r, fit = LMLIST[name], rf.fit(formula, rf.load_dataset(dataset))
    levels = [in_order(level) for level in r["levels"]]
    coefs = [NAMES.get(c, c) for c in np.atleast_1d(r["coefs"])]
    tables = {pooled: fit.own_table(factor, pooled=pooled) for pooled in (True, False)}
    for pooled, column, key in (
        (True, "estimate", "estimate"),
        (True, "sd", "se"),
        (True, "lower", "lower_pooled"),
        (False, "estimate", "estimate"),
        (False, "lower", "lower_apart"),
    ):
        mine = wide(tables[pooled], column)
        rows = [list(mine.index).index(level) for level in levels]
        found = mine[coefs].to_numpy()[rows]
        expected = np.array(r[key], dtype=float)
        known = np.isfinite(expected)  # R has no error for two equal rows, though sd is pooled
        np.testing.assert_allclose(found[known], expected[known], rtol=1e-8, atol=1e-10)
    assert len(set(tables[True]["df"])) == 1
    table = fit.shrinkage_table(factor)
    mine = wide(table, "own")
    rows = [list(mine.index).index(level) for level in levels]
    kept = [c for c in coefs if c in mine]
    expected = np.array(r["estimate"])[:, [coefs.index(c) for c in kept]]
    np.testing.assert_allclose(mine[kept].to_numpy()[rows], expected, rtol=1e-8)
    errors = wide(table, "se")[kept].to_numpy()[rows]
    in_table = wide(tables[True], "sd")[kept].to_numpy()[rows]
    np.testing.assert_allclose(errors, in_table, rtol=1e-12)


def test_the_interval_is_said():
    fit = fit_of("one factor", "reml")
    said = "each group by itself, 90 % interval, one residual sd of all groups"
    assert fit.own_table(prob=0.9).attrs["interval"] == said
    apart = "each group by itself, 95 % interval, each group's own residual sd"
    assert fit.own_table(pooled=False).attrs["interval"] == apart


@pytest.mark.parametrize("kind", [k for k in FORMULAS if k != "no random terms"])
def test_own_regressions_are_least_squares_in_each_group(kind):
    """Of all fixed columns and all those of the factor's terms, by one solution a group."""
    fit = fit_of(kind, "reml")
    rows = fit.design.rows
    for factor in dict.fromkeys(t.factor for t in fit.design.terms):
        terms = [t for t in rows.terms if t.factor == factor]
        table = fit.own_table(factor)
        found = table.pivot_table(index="level", columns="coef", values="estimate", sort=False)
        for level, name in enumerate(terms[0].grouping.levels):
            mine = terms[0].codes == level
            columns = np.hstack([t.columns for t in terms] + [rows.X])[mine]
            root = np.sqrt(rows.weights[mine])
            y = (rows.y - rows.offset)[mine]
            best = np.linalg.lstsq(columns * root[:, None], y * root, rcond=1e-9)[0]
            own = found.loc[name]
            known = dict(zip(fit.design.fixed, rows.X.T, strict=True))
            known |= {c: z for t in terms for c, z in zip(_coefs(fit, t), t.columns.T, strict=True)}
            by_own = sum(own[c] * known[c][mine] for c in own.index)
            np.testing.assert_allclose(by_own, columns @ best, rtol=1e-7, atol=1e-7)


def _coefs(fit, rows):
    return fit.design.term(rows.label).coefs


def test_a_group_without_residuals_has_no_sd_of_its_own():
    data = pd.DataFrame({"y": [1.0, 5.0, 2.0, 3.0, 4.5, 9.0, 7.0], "g": list("abbcccc")})
    fit = rf.fit("y ~ 1 + (1 | g)", data)
    apart = fit.own_table(pooled=False).set_index("level")
    assert np.isnan(apart.loc["a", ["sd", "lower", "upper"]].to_numpy(dtype=float)).all()
    assert apart.loc["a", "estimate"] == 1.0
    assert fit.own_table().set_index("level").loc["a", "sd"] > 0


def test_ten_thousand_groups_are_quick_and_the_same():
    rng, m = np.random.default_rng(5), 10_000
    data = pd.DataFrame({"g": np.repeat(np.arange(m), rng.integers(1, 6, m))})
    data["x"] = rng.normal(size=len(data))
    data["y"] = data["x"] + rng.normal(size=m)[data["g"]] + rng.normal(size=len(data))
    table = rf.fit("y ~ 1 + (1 | g)", data).shrinkage_table()
    np.testing.assert_allclose(table["own"], data.groupby("g")["y"].mean())


def own(table):
    return table.pivot_table(index="level", columns="coef", values="own", sort=False, dropna=False)


def test_the_model_pulls_and_the_slopes_vary_less():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    # D. Bates, IMPS 2008 (slides): the model's slopes vary less than the groups' own
    slopes = fit.shrinkage_table().query("coef == 'Days'")
    assert slopes["model"].std() < slopes["own"].std()
    assert set(slopes["n"]) == {10}


@pytest.mark.parametrize(
    "random",
    ["(1 | Subject) + (0 + Days | Subject)", "(0 + Days | Subject) + (1 | Subject)"],
)
def test_two_ways_to_write_a_model_give_one_table(random):
    data = rf.load_dataset("sleepstudy")
    one = rf.fit("Reaction ~ Days + (Days || Subject)", data).shrinkage_table()
    two = rf.fit(f"Reaction ~ Days + {random}", data)
    for term in (None, "Subject", "Subject_1"):
        other = two.shrinkage_table(term).set_index(["term", "level", "coef"])
        other = other.loc[pd.MultiIndex.from_frame(one[["term", "level", "coef"]])].reset_index()
        pd.testing.assert_frame_equal(one, other, rtol=1e-5)


def test_effects_of_terms_that_overlap_are_added_up():
    """An intercept beside the levels of a factor adds to each of them."""
    data = frame()
    fit = known_posterior(rf.Model("y ~ f + (1 | g) + (0 + f | g)", data))
    table, b = fit.shrinkage_table(), fit.ranef()
    assert list(dict.fromkeys(table["coef"])) == ["f[hi]", "f[lo]", "f[mid]"]
    both = b["g_1"].add(b["g"]["Intercept"], axis=0).to_numpy()
    np.testing.assert_allclose((table["model"] - table["population"]), both.ravel(), rtol=1e-9)
    means = data.groupby(["g", "f"])["y"].mean()
    expected = [
        means[level, coef[2:-1]] for level, coef in zip(table["level"], table["coef"], strict=True)
    ]
    np.testing.assert_allclose(table["own"], expected)


def test_pastes_batch_is_its_mean_and_two_thirds_are_shrunk_away():
    fit = rf.fit("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes"))
    batch = fit.shrinkage_table("batch").iloc[0]
    # (62.27 - 60.85) / (62.27 - 60.05), and in closed form of a balanced nested design
    sds = fit.varcorr().sd
    between = sds["batch"].iloc[0] ** 2
    expected = between / (between + sds["cask:batch"].iloc[0] ** 2 / 3 + fit.sigma**2 / 6)
    assert batch["own"] == pytest.approx(62.2666667)
    assert batch["reliability"] == pytest.approx(expected)
    assert batch["shrinkage"] == pytest.approx(1 - expected)
    assert batch["shrinkage"] == pytest.approx(0.638, abs=5e-4)


def test_a_cask_has_the_effect_of_its_batch_on_both_sides():
    fit = rf.fit("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes"))
    table = fit.shrinkage_table("cask:batch")
    places = fit.design.rows.term("cask:batch").codes
    fitted = pd.Series(fit.fitted()).groupby(places).first()
    np.testing.assert_allclose(table["model"], fitted)
    assert len(set(table["population"])) == 1


@pytest.mark.parametrize("method", METHODS)
def test_the_models_coefficients_are_those_of_coef(method):
    fit = fit_of("crossed", method)
    for label in ("g", "h"):
        table = fit.shrinkage_table(label)
        model = table.pivot_table(index="level", columns="coef", values="model", sort=False)
        expected = fit.coef()[label][list(model.columns)].loc[model.index]
        np.testing.assert_allclose(model, expected)


def test_reliability_in_closed_form_of_crossed_groups():
    """Of a balanced two-way layout: each plate averages over all samples."""
    fit = rf.fit("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.load_dataset("Penicillin"))
    plate, sample = (fit.varcorr().sd[name].iloc[0] ** 2 for name in ("plate", "sample"))
    table = fit.shrinkage_table("plate")
    expected = plate / (plate + (sample + fit.sigma**2) / 6)
    np.testing.assert_allclose(table["reliability"], expected)


def test_without_variance_between_groups_nothing_is_reliable():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    table = fit.shrinkage_table()
    assert (table["reliability"] == 0).all()
    np.testing.assert_allclose(table["shrinkage"], 1.0)


def test_predictors_of_groups_belong_to_the_population_of_each():
    data = rf.load_dataset("Orthodont")
    fit = rf.fit("distance ~ age * Sex + (age | Subject)", data)
    table = fit.shrinkage_table()
    beta, girls = fit.fixef(), table["level"].str.startswith("F")
    (sex,) = (name for name in beta.index if name.startswith("Sex"))
    of_sex = girls if "Female" in sex else ~girls
    for coef, more in (("Intercept", sex), ("age", f"age:{sex}")):
        rows = table[table["coef"] == coef]
        expected = beta[coef] + beta[more] * of_sex[rows.index]
        np.testing.assert_allclose(rows["population"], expected)
        b = fit.ranef()["Subject"][coef].to_numpy()
        np.testing.assert_allclose(rows["model"], expected + b)


# ---------------------------------------------------------------- what is not determined


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
    assert undetermined["x"].to_dict() == {
        "constant": True,
        "many": False,
        "more": False,
        "one": True,
        "two": False,
        "zero": True,
    }
    # the rows at x = 0 have an intercept, whatever the slope is
    assert list(undetermined.index[undetermined["Intercept"]]) == ["constant", "one"]
    data = few_rows()
    at_zero = data.loc[data["g"] == "zero", "y"].mean()
    assert own(table).loc["zero", "Intercept"] == pytest.approx(at_zero)
    counts = table.drop_duplicates("level").set_index("level")["n"].to_dict()
    assert counts == {"constant": 5, "many": 29, "more": 18, "one": 1, "two": 2, "zero": 5}
    assert table[["model", "population"]].notna().all(axis=None)


def test_a_slope_alone_needs_a_row_off_zero():
    fit = rf.fit("y ~ x + (0 + x | g)", few_rows())
    found = own(fit.shrinkage_table())["x"]
    assert list(found.index[found.isna()]) == ["zero"]


def test_fixed_effects_that_rows_leave_open_are_held_at_the_fits():
    data = few_rows()
    fit = rf.fit("y ~ x + (1 | g)", data)
    table, beta = fit.shrinkage_table().set_index("level"), fit.fixef()
    assert list(table.index[table["held"]]) == ["constant", "one"]  # at zero there is no need
    rest = data["y"] - beta["x"] * data["x"]
    for level in ("constant", "one"):
        assert table.loc[level, "own"] == pytest.approx(rest[data["g"] == level].mean())
    many = data[data["g"] == "many"]
    assert table.loc["many", "own"] == pytest.approx(np.polyfit(many["x"], many["y"], 1)[1])
    held = fit.shrinkage_table(hold=True).set_index("level")
    np.testing.assert_allclose(held["own"], rest.groupby(data["g"]).mean())
    expected = held["reliability"] * (held["own"] - beta["Intercept"]) + beta["Intercept"]
    np.testing.assert_allclose(held["model"], expected, rtol=1e-6)  # as the model has one slope


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_decide_what_is_determined(unit):
    plain = rf.fit("y ~ x + (x | g)", few_rows()).shrinkage_table()
    data = few_rows().assign(x=lambda d: d["x"] * unit)
    scaled = rf.fit("y ~ x + (x | g)", data).shrinkage_table()
    factor = plain["coef"].map({"Intercept": 1.0, "x": unit})
    np.testing.assert_allclose(scaled["own"] * factor, plain["own"], rtol=1e-6)


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


@pytest.mark.parametrize("kind", ["binomial", "poisson", "gamma"])
def test_a_generalised_model_has_the_same_columns(kind):
    fit = made_up(kind, "crossed")
    table = fit.shrinkage_table("g")
    assert list(table.columns) == list(fit_of("crossed", "reml").shrinkage_table("g").columns)
    assert ((table["reliability"] > 0) & (table["reliability"] < 1)).all()
    assert (table["se"] > 0).all()
