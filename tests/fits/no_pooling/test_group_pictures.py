"""The lattice of groups of a fit, and pairs of their random effects."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import special

mpl.use("Agg")

import matplotlib.pyplot as plt

import ranef as rf
from fits import METHODS, fit_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))


def many_groups(m):
    rng = np.random.default_rng(6)
    data = pd.DataFrame({"g": np.repeat(np.arange(m), 4), "x": np.tile(np.arange(4.0), m)})
    data["y"] = data["x"] + rng.normal(size=m)[data["g"]] + rng.normal(size=4 * m)
    return rf.fit("y ~ x + (1 | g)", data)


def test_panels_stand_in_the_order_of_own_intercepts(sleep):
    axes = sleep.plot_groups()
    own = sleep.shrinkage_table().query("coef == 'Intercept'").sort_values("own")
    assert [one.get_title() for one in axes] == own["level"].tolist()
    slopes = sleep.shrinkage_table().query("coef == 'Days'").sort_values("own")
    axes = sleep.plot_groups(order="Days")
    assert [one.get_title() for one in axes] == slopes["level"].tolist()
    assert [one.get_title() for one in sleep.plot_groups(order="level")] == list(
        sleep.design.terms[0].levels
    )


def test_each_panel_has_its_data_and_three_lines(sleep):
    data = rf.load_dataset("sleepstudy")
    (axes,) = sleep.plot_groups(groups=["335"])
    (points,) = axes.collections
    mine = data[data["Subject"] == "335"]
    np.testing.assert_allclose(points.get_offsets(), mine[["Days", "Reaction"]])
    own, model, population = (line.get_ydata() for line in axes.lines)
    x = axes.lines[0].get_xdata()
    np.testing.assert_allclose(own, np.polyval(np.polyfit(mine["Days"], mine["Reaction"], 1), x))
    coef = sleep.coef()["Subject"].loc["335"]
    np.testing.assert_allclose(model, coef["Intercept"] + coef["Days"] * x)
    beta = sleep.fixef()
    np.testing.assert_allclose(population, beta["Intercept"] + beta["Days"] * x)


def test_the_figure_says_what_is_drawn(sleep):
    figure = sleep.plot_groups()[0].figure
    assert figure.get_suptitle() == "Subject, 18 levels, ordered by Intercept\n "
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("Days", "Reaction, ms")
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["by its rows alone", "the model", "population"]
    figure.draw_without_rendering()
    boxes = [figure._supxlabel.get_window_extent(), legend.get_window_extent()]
    panels = [one.get_tightbbox() for one in figure.axes]
    assert not any(box.overlaps(panel) for box in boxes for panel in panels)


def test_a_posterior_has_a_band():
    fit = fit_of("correlated slopes", "posterior")
    axes = fit.plot_groups(groups=["x", "y"])
    table = fit.groups_table(groups=["x", "y"])
    for one in axes:
        mine = table[table["level"] == one.get_title()]
        (band,) = (
            c for c in one.collections if hasattr(c, "get_paths") and not len(c.get_offsets()) > 1
        )
        vertices = band.get_paths()[0].vertices
        assert vertices[:, 1].max() == pytest.approx(mine["upper"].max())
        assert vertices[:, 1].min() == pytest.approx(mine["lower"].min())
    assert "lower" not in fit_of("correlated slopes", "reml").groups_table(groups=["x"])
    assert "lower" in fit_of("correlated slopes", "reml").groups_table(groups=["x"], prob=0.5)


def test_many_groups_are_those_at_the_ends_and_pages_have_all():
    fit = many_groups(80)
    table = fit.groups_table()
    levels = list(dict.fromkeys(table["level"]))
    own = fit.shrinkage_table().sort_values("own")["level"].tolist()
    assert levels == own[:18] + own[-18:]
    said = "g, 80 levels, ordered by Intercept: the first 18 and the last 18; page=1 to 3 has all"
    assert table.attrs["said"] == said
    pages = [list(dict.fromkeys(fit.groups_table(page=i)["level"])) for i in (1, 2, 3)]
    assert [level for page in pages for level in page] == own
    with pytest.raises(rf.FitError) as caught:
        fit.groups_table(page=4)
    assert str(caught.value) == "page=4 is not there: 80 groups have 3 pages."


def test_ten_thousand_groups_have_a_page():
    fit = many_groups(10_000)
    assert len(fit.plot_groups()) == 36
    assert fit.plot_shrinkage().get_ylabel() == "10000 levels"


def test_groups_and_orders_that_are_not_there_are_named(sleep):
    with pytest.raises(rf.FitError) as caught:
        sleep.groups_table(groups=["308", "x"])
    known = ", ".join(f"`{level}`" for level in sleep.design.terms[0].levels)
    assert str(caught.value) == "`Subject` has no level 'x'. Known names: " + known + "."
    with pytest.raises(rf.FitError) as caught:
        sleep.groups_table(order="days")
    assert str(caught.value) == "order='days' is unknown. Did you mean `Days`?"


def test_given_axes_are_one_a_panel(sleep):
    _, grid = plt.subplots(1, 2)
    drawn = sleep.plot_groups(groups=["308", "309"], ax=grid)
    assert list(drawn) == list(grid)
    assert grid[0].get_xlabel() == "Days"
    with pytest.raises(rf.RanefError) as caught:
        sleep.plot_groups(groups=["308", "309"], ax=grid[0])
    assert str(caught.value) == (
        "`ax` must hold one axes for each panel, 2 in all (309, 308), but it holds 1."
    )


def test_a_generalised_model_is_drawn_as_shares_with_curves():
    data = rf.load_dataset("Contraception")
    fit = rf.fit("use ~ age + (1 | district)", data, family="binomial")
    axes = fit.plot_groups(groups=["1"])
    assert axes[0].figure.get_supylabel() == "share of use == 'Y'"
    own, model, population = (line.get_ydata() for line in axes[0].lines)
    x, beta = axes[0].lines[0].get_xdata(), fit.fixef()
    np.testing.assert_allclose(population, special.expit(beta["Intercept"] + beta["age"] * x))
    b = fit.ranef()["district"].loc["1", "Intercept"]
    np.testing.assert_allclose(model, special.expit(beta["Intercept"] + beta["age"] * x + b))
    table = fit.own_table().query("level == '1'").set_index("coef")["estimate"]
    np.testing.assert_allclose(own, special.expit(table["Intercept"] + table["age"] * x))


def test_without_a_predictor_all_groups_are_in_one_dot_plot():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    axes = fit.plot_groups()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["F", "D", "A", "B", "C", "E"]
    marks = {line.get_marker(): line for line in axes.lines if len(line.get_xdata()) == 6}
    table = fit.shrinkage_table().sort_values("own")
    ours = fit.shrinkage_table()
    np.testing.assert_allclose(np.sort(marks["D"].get_xdata()), table["own"])
    np.testing.assert_allclose(np.sort(marks["o"].get_xdata()), np.sort(ours["model"]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["nested", "levels as coefficients", "weights and offset"])
def test_every_kind_of_fit_draws(kind, method):
    fit = fit_of(kind, method)
    first = np.ravel(np.array(fit.plot_groups(), dtype=object))[0]
    first.figure.draw_without_rendering()
    assert any(np.isfinite(line.get_xydata()).all() for line in first.lines)


def test_pairs_are_the_random_effects_with_the_models_ellipse(sleep):
    (axes,) = sleep.plot_pairs()
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xydata(), sleep.ranef()["Subject"], atol=1e-8)
    outer = [line for line in axes.lines if len(line.get_xdata()) == 181][-1]
    sds = sleep.varcorr().sd["Subject"].to_numpy()
    np.testing.assert_allclose(outer.get_xydata().max(axis=0), 2.4477 * sds, rtol=1e-3)
    (total,) = sleep.plot_pairs(total=True)
    (points,) = (line for line in total.lines if line.get_marker() == "o")
    np.testing.assert_allclose(points.get_xydata(), sleep.coef()["Subject"], rtol=1e-9)
    assert total.get_xlabel() == "total of Intercept, ms"


def test_terms_of_one_factor_have_their_pairs():
    data = rf.load_dataset("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data)
    (axes,) = fit.plot_pairs("Subject_1")
    assert axes.get_xlabel() == "deviation of Intercept, ms"
    assert axes.get_ylabel() == "deviation of Days, ms per day"


def test_no_ellipse_around_groups_whose_populations_differ():
    data = rf.load_dataset("sleepstudy")
    data["old"] = data["Subject"].astype(str).isin(["308", "309", "310", "330"]).astype(float)
    fit = rf.fit("Reaction ~ Days + old + (Days | Subject)", data)
    ellipses = []
    for total in (False, True):
        (axes,) = fit.plot_pairs(total=total)
        ellipses.append(sum(len(line.get_xdata()) == 181 for line in axes.lines))
    assert ellipses == [2, 0]
