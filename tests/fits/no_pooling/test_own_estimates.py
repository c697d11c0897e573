"""Own estimates of each group, against R's lmList and searches that know no derivatives."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from reference_cases import REFERENCE

import ranef as rf
from fits import FORMULAS, fit_of

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
