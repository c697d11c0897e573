"""The pictures of groups as fits draw them: axes, titles, what stands where."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from generalized_fits import made_up
from matplotlib.quiver import Quiver

import ranef as rf
from fits import METHODS, fit_of

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def sleep(random="(Days | Subject)"):
    data = rf.load_dataset("sleepstudy")
    data.attrs["units"] = {"Reaction": "ms", "Days": "day"}
    return rf.fit(f"Reaction ~ Days + {random}", data)


def titles(axes):
    return [one.get_title(loc="left") for one in axes]


def test_the_axis_says_deviation_or_total_and_the_units():
    fit = sleep()
    said = [one.get_xlabel() for one in fit.plot_caterpillar()]
    assert said == ["deviation of Intercept, ms", "deviation of Days, ms per day"]
    said = [one.get_xlabel() for one in fit.plot_caterpillar(total=True)]
    assert said == ["total of Intercept, ms", "total of Days, ms per day"]
    said = [one.get_xlabel() for one in fit.plot_own()]
    assert said == ["own Intercept, ms", "own Days, ms per day"]
    fit = made_up("poisson", "one factor")
    assert fit.plot_caterpillar()[0].get_xlabel() == "deviation of Intercept, log scale"


def test_terms_of_one_factor_are_told_apart():
    axes = sleep("(1 | Subject) + (0 + Days | Subject)").plot_caterpillar()
    assert titles(axes) == ["Subject (Intercept), 18 levels", "Subject (Days), 18 levels"]


def test_two_ways_to_write_a_model_draw_one_picture():
    drawn = []
    for random in ("(Days || Subject)", "(1 | Subject) + (0 + Days | Subject)"):
        axes = sleep(random).plot_shrinkage()
        (arrows,) = (c for c in axes.collections if isinstance(c, Quiver))
        contours = [line.get_xydata() for line in axes.lines if line.get_marker() == "None"]
        drawn.append((arrows.XY, np.c_[arrows.U, arrows.V], *contours[:2]))
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("Intercept, ms", "Days, ms per day")
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_own_intervals_are_those_of_the_table():
    fit = sleep()
    left, _ = fit.plot_own(prob=0.8)
    table = fit.own_table(prob=0.8).query("coef == 'Intercept'").sort_values("estimate")
    (lines,) = (c for c in left.collections if hasattr(c, "get_segments"))
    ends = np.array(lines.get_segments())[:, :, 0]
    np.testing.assert_allclose(ends, table[["lower", "upper"]])
    (line,) = (one for one in left.lines if one.get_marker() == "None")
    assert line.get_xdata()[0] == pytest.approx(fit.fixef()["Intercept"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", ["nested", "crossed", "levels as coefficients", "no fixed effects"]
)
def test_every_kind_of_fit_draws(kind, method):
    fit = fit_of(kind, method)
    for factor in fit.n_groups:
        table = fit.shrinkage_table(factor)
        drawn = table[table["coef"].isin(table["coef"].unique()[:2])].dropna(subset="own")
        pictures = fit.plot_shrinkage(factor), fit.plot_own(factor)[0]
        for axes, count in zip(
            pictures, (drawn["level"].nunique(), fit.n_groups[factor]), strict=True
        ):
            axes.figure.draw_without_rendering()
            (points,) = (line for line in axes.lines if line.get_marker() == "o")
            assert len(points.get_xdata()) == count
        plt.close("all")


def test_terms_may_share_their_limits():
    fit = rf.fit("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes"))
    casks, batches = fit.plot_caterpillar(sharex=True)
    assert casks.get_xlim() == batches.get_xlim()
    apart = fit.plot_caterpillar()
    assert apart[0].get_xlim() != apart[1].get_xlim()


def test_an_sd_of_zero_is_said_and_has_no_intervals():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    (axes,) = fit.plot_caterpillar()
    said = "sd estimated as 0: that no differences are seen is not certainty"
    assert " ".join(axes.get_xlabel().split()) == f"deviation of Intercept, g {said}"
    assert not axes.collections
    note = "sd estimated as 0: the model sees no differences between groups, which is not certainty"
    drawn = [" ".join(text.get_text().split()) for text in fit.plot_shrinkage().texts]
    assert note in drawn


def test_a_figure_has_the_size_that_is_asked_for():
    fit = sleep()
    for axes in (fit.plot_caterpillar(figsize=(9, 4)), [fit.plot_shrinkage(figsize=(9, 4))]):
        assert axes[0].figure.get_size_inches().tolist() == [9, 4]


def test_groups_without_own_estimates_are_counted_and_have_no_row():
    data = rf.load_dataset("Contraception")
    fit = rf.fit("use ~ age + urban + (urban | district)", data, family="binomial")
    table = fit.own_table()
    known = table.groupby("level")["estimate"].count()
    axes = fit.plot_own()
    lost = int((known == 0).sum())
    assert 0 < lost < 60
    assert len(axes[0].lines[1].get_ydata()) == 60 - lost
    assert any(
        text.get_text().endswith(f"{lost} groups have no own estimate") for text in axes[0].texts
    )
    assert axes[0].figure.get_size_inches()[0] <= 12.0
