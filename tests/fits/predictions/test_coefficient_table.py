"""The coefficients of each group: those of `coef()`, with errors by a second route."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import FORMULAS, fit_of, frame
from ranef.fits.predictions.coefficient_table import coefficient_rows

MANY = ("four coefficients", "levels as coefficients", "crossed")
COLUMNS = ["term", "level", "coef", "estimate", "sd", "lower", "upper"]


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("method", ["reml", "quadrature", "laplace"])
def test_estimates_are_those_of_coef(kind, method):
    if (kind, method) in {(kind, "quadrature") for kind in MANY}:
        pytest.skip("more variance parameters than quadrature takes")
    fit = fit_of(kind, method)
    table = fit.coef_table()
    assert list(table.columns) == COLUMNS
    coef = fit.coef()
    for row in table.itertuples():
        assert row.estimate == pytest.approx(coef[row.term].loc[row.level, row.coef], rel=1e-9)
    assert (table["sd"] >= 0).all()
    assert (table["lower"] <= table["upper"]).all()
    for term in fit.design.terms:
        constant = (coef[term.label] == coef[term.label].iloc[0]).all()
        shown = set(table.loc[table["term"] == term.label, "coef"])
        assert shown >= {name for name, same in constant.items() if not same}


def test_errors_are_those_of_predictions_at_unit_rows():
    """The intercept is the mean at x = 0, and the slope a difference of two means."""
    data = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (Days | Subject)", data)
    at_zero = pd.DataFrame({"Days": 0.0, "Subject": data["Subject"].unique()})
    for method in ("reml", "quadrature"):
        fit = model.fit(method)
        table = fit.coef_table(0.9)
        intercepts = table[table["coef"] == "Intercept"].reset_index(drop=True)
        found = fit.predict(at_zero, kind="link", prob=0.9)
        for one, other in (("sd", "sd"), ("lower", "lower"), ("upper", "upper")):
            np.testing.assert_allclose(intercepts[one], found[other], rtol=1e-9)
        draws = fit.coef_table(draws=True, n=4000, seed=1)
        np.testing.assert_allclose(draws.std(axis=1), table["sd"], rtol=0.07)
        assert draws.index.names == ["term", "level", "coef"]


def test_effects_of_levels_are_added_in_the_coding_of_the_fixed_effects():
    fit = rf.fit("y ~ f + (0 + f | s)", frame())
    rows, names = coefficient_rows(fit.design, "s")
    assert names == fit.design.fixed
    assert len(rows.X) == 3 * fit.n_groups["s"]


def test_no_random_effects_no_rows():
    fit = rf.fit("y ~ x", frame())
    assert fit.coef_table().empty
    assert list(fit.coef_table().columns) == COLUMNS
    assert fit.coef_table(draws=True).empty


def test_a_caterpillar_of_totals_is_around_the_fixed_effects():
    fit = fit_of("one factor", "reml")
    panels = fit.plot_caterpillar(total=True)
    deviations = fit.plot_caterpillar()
    for panel, other in zip(panels, deviations, strict=True):
        line = panel.lines[0].get_xdata()[0]
        assert line == pytest.approx(fit.fixef()[panel.get_xlabel().removeprefix("total of ")])
        assert other.lines[0].get_xdata()[0] == 0
        shift = panel.lines[1].get_xdata() - other.lines[1].get_xdata()
        np.testing.assert_allclose(shift, line)
