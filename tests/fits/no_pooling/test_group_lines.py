"""What is seen of groups, and the lines through it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import fit_of, frame
from ranef.fits.no_pooling.group_lines import points_table, predictor_of, typical_rows
from ranef.fits.no_pooling.own_columns import factor_of


def design_of(formula, data, **options):
    model = rf.Model(formula, data, **options)
    return model.design, model.family


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ z + (x | g)", "x"),
        ("y ~ z + (1 | g)", "z"),
        ("y ~ f + z + (1 | g)", "z"),
        ("y ~ f + (1 | g)", "f"),
        ("y ~ poly(z, 2) + (1 | g)", "z"),
        ("y ~ 1 + (1 | g)", None),
    ],
)
def test_the_predictor_is_the_first_that_varies_within_groups(formula, expected):
    design, _ = design_of(formula, frame())
    assert predictor_of(design, factor_of(design, "g"), None) == expected


def test_a_predictor_of_groups_is_none():
    data = frame().assign(of_g=lambda d: d["g"].str.len())
    design, _ = design_of("y ~ of_g + (1 | g)", data)
    assert predictor_of(design, factor_of(design, "g"), None) is None


def test_a_column_that_is_not_there_is_named():
    design, _ = design_of("y ~ x + (1 | g)", frame())
    with pytest.raises(rf.FitError) as caught:
        predictor_of(design, factor_of(design, "g"), "X")
    assert str(caught.value) == "the model uses no column 'X'. Did you mean `x`?"


def test_points_are_the_data():
    data = rf.load_dataset("sleepstudy")
    design, family = design_of("Reaction ~ Days + (Days | Subject)", data)
    table = points_table(design, factor_of(design, "Subject"), family, "Days")
    assert table["level"].tolist() == data["Subject"].tolist()
    np.testing.assert_array_equal(table[["x", "y"]], data[["Days", "Reaction"]])
    assert set(table["n"]) == {1.0}


def test_successes_and_failures_are_seen_as_shares():
    data = rf.load_dataset("Contraception")
    formula = "use ~ age + (1 | district)"
    design, family = design_of(formula, data, family="binomial")
    factor = factor_of(design, "district")
    table = points_table(design, factor, family, None)
    shares = (data["use"] == "Y").groupby(data["district"], observed=True).mean()
    np.testing.assert_allclose(table["y"], shares)
    assert table["n"].sum() == len(data)
    binned = points_table(design, factor, family, "age")
    assert binned.groupby("level", observed=True).size().max() == 5
    both = (binned["y"] * binned["n"]).groupby(binned["level"], sort=False).sum()
    np.testing.assert_allclose(both, (data["use"] == "Y").groupby(data["district"]).sum())


def test_trials_are_the_sizes_of_points():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    design, family = design_of(formula, data, family="binomial")
    table = points_table(design, factor_of(design, "herd"), family, "period")
    np.testing.assert_allclose(table["y"], data["incidence"] / data["size"])
    np.testing.assert_array_equal(table["n"], data["size"])


def test_rows_along_a_predictor_are_typical_of_the_group_in_all_else():
    data = frame()
    design, _ = design_of("y ~ x + z + f + (x | g)", data)
    factor = factor_of(design, "g")
    rows = typical_rows(design, factor, "x", [2, 0])
    names = [factor.levels[i] for i in (2, 0)]
    assert rows["g"].drop_duplicates().tolist() == names
    for name in names:
        own, line = data[data["g"] == name], rows[rows["g"] == name]
        assert line["z"].to_numpy() == pytest.approx(own["z"].mean())
        assert set(line["f"]) == {own["f"].mode()[0]}
        assert (line["x"].min(), line["x"].max()) == (data["x"].min(), data["x"].max())


def test_levels_of_a_factor_are_each_a_place_along_it():
    data = rf.load_dataset("Machines")
    design, _ = design_of("score ~ Machine + (Machine | Worker)", data)
    rows = typical_rows(design, factor_of(design, "Worker"), "Machine", [0])
    assert rows["Machine"].tolist() == ["A", "B", "C"]
    assert rows["Machine"].dtype == data["Machine"].dtype


@pytest.mark.parametrize("kind", ["correlated slopes", "crossed", "slopes without a mean"])
def test_lines_at_the_rows_of_a_group_go_through_its_own_fitted_values(kind):
    fit = fit_of(kind, "reml")
    level = str(fit.design.terms[0].levels[3])
    table = fit.groups_table("g", "x", groups=[level])
    rows = fit.design.rows.term("g").codes == 3
    columns = np.column_stack([np.ones(rows.sum()), frame()["x"][rows]])
    best = np.linalg.lstsq(columns, frame()["y"][rows], rcond=None)[0]
    x = table["x"].to_numpy(dtype=float)
    np.testing.assert_allclose(table["own"], best[0] + best[1] * x, rtol=1e-8)


def test_where_rows_cannot_be_made_anew_lines_go_along_those_there_are():
    data = frame()
    fit = rf.fit("y ~ x + (x | g)", data, offset=data["z"].to_numpy())
    level = fit.design.terms[0].levels[1]
    table = fit.groups_table(groups=[level])
    rows = data[data["g"] == level].sort_values("x", kind="stable")
    np.testing.assert_array_equal(table["x"], rows["x"])
    fitted = pd.Series(fit.fitted(), data.index)[rows.index]
    np.testing.assert_allclose(table["model"], fitted)
    own = np.polyfit(rows["x"], rows["y"] - rows["z"], 1)
    np.testing.assert_allclose(table["own"], np.polyval(own, rows["x"]) + rows["z"])
