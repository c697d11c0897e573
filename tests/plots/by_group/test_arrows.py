"""Shrinkage plots: populations that differ, limits, and names, shares and notes over no point."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.collections import PathCollection

import ranef as rf
from ranef.plots.by_group.arrows import REGIONS, _limits
from ranef.plots.random_effects import shrinkage

pytestmark = pytest.mark.filterwarnings("error")

# The twelve data sets of the package, each with a model that is usual for it.
CLASSICS = {
    "Dyestuff": "Yield ~ 1 + (1 | Batch)",
    "Dyestuff2": "Yield ~ 1 + (1 | Batch)",
    "Penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "Pastes": "strength ~ 1 + (1 | batch/cask)",
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "cbpp": "cbind(incidence, size - incidence) ~ period + (1 | herd)",
    "cake": "angle ~ recipe + temp + (temp | replicate)",
    "ScotsSec": "attain ~ verbal + sex + (1 | primary) + (1 | second)",
    "Contraception": "use ~ age + urban + (urban | district)",
    "Orthodont": "distance ~ age * Sex + (age | Subject)",
    "Machines": "score ~ Machine + (Machine | Worker)",
    "Oats": "yield ~ nitro + (nitro | Block)",
}
FAMILIES = {"cbpp": "binomial", "Contraception": "binomial"}


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def boxes(axes):
    return [text.get_window_extent() for text in axes.texts if text.get_text()]


@pytest.mark.parametrize("name", CLASSICS)
def test_no_text_covers_a_point(name):
    fit = rf.fit(CLASSICS[name], rf.load_dataset(name), family=FAMILIES.get(name, "gaussian"))
    for factor in fit.n_groups:
        axes = fit.plot_shrinkage(factor)
        axes.figure.draw_without_rendering()
        (rings,) = (c for c in axes.collections if isinstance(c, PathCollection))
        dots = [line.get_xydata() for line in axes.lines if line.get_marker() in "oD|_"]
        points = axes.transData.transform(np.vstack([rings.get_offsets(), *dots]))
        low, high = axes.bbox.min, axes.bbox.max
        points = points[((points >= low) & (points <= high)).all(axis=1)]
        for text in (t for t in axes.texts if t.get_text()):
            box = text.get_window_extent()
            assert not any(box.contains(*point) for point in points), (factor, text)


def test_limits_hold_the_core_and_what_is_not_far_out():
    own = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 50.0, np.nan])  # quartiles 1.25 and 3.75
    low, high = _limits(own, np.array([-6.0]))
    assert low == pytest.approx(-6.0 - 0.06 * 10.0)
    assert high == pytest.approx(4.0 + 0.06 * 10.0)
    assert _limits(np.array([]), np.array([5.0])) == (4.0, 6.0)


def groups(population, coefs=("Intercept", "x")):
    m, rng = len(population), np.random.default_rng(4)
    frames = []
    for j, coef in enumerate(coefs):
        own = np.asarray(population) * (1 + j) + rng.normal(size=m)
        middle = np.asarray(population) * (1 + j)
        frame = pd.DataFrame({"term": "g", "level": [f"s{i}" for i in range(m)], "coef": coef})
        frames.append(frame.assign(own=own, model=(own + middle) / 2, population=middle, n=5))
    return pd.concat(frames, ignore_index=True)


def diamonds(axes):
    (line,) = (one for one in axes.lines if one.get_marker() == "D")
    return line.get_xydata()


def contours(axes):
    return [one for one in axes.lines if one.get_marker() == "None"]


def keys(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_few_populations_have_regions_of_their_own():
    table = groups([0.0] * 6 + [10.0] * 6)
    axes = shrinkage(table, covariance=np.eye(2))
    np.testing.assert_array_equal(diamonds(axes), [[0, 0], [10, 20]])
    assert len(contours(axes)) == 4
    assert keys(axes) == [
        "group's own estimate",
        "model's estimate",
        "population, by its predictors",
        REGIONS,
    ]


def test_a_region_in_a_cloud_of_points_has_no_name():
    rng = np.random.default_rng(1)
    table = groups(np.zeros(600)).assign(model=rng.normal(size=1200), own=rng.normal(size=1200))
    axes = shrinkage(table, covariance=np.eye(2))
    assert len(contours(axes)) == 2
    assert "50 %" not in [text.get_text() for text in axes.texts]
    few = shrinkage(groups(np.zeros(6)), covariance=np.eye(2))
    assert {"50 %", "95 %"} <= {text.get_text() for text in few.texts}


def test_many_populations_have_marks_and_no_regions():
    axes = shrinkage(groups(np.arange(12.0)), covariance=np.eye(2))
    assert len(diamonds(axes)) == 12
    assert contours(axes) == []
    assert REGIONS not in keys(axes)


def test_in_rows_each_population_stands_in_its_row():
    table = groups([0.0] * 6 + [10.0] * 6, ("Intercept",))
    axes = shrinkage(table, covariance=np.eye(1))
    (strokes,) = (one for one in axes.lines if one.get_marker() == "|")
    order = np.argsort(table["own"].to_numpy())
    expected = np.column_stack([table["population"].to_numpy()[order], np.arange(12)])
    np.testing.assert_array_equal(strokes.get_xydata(), expected)
    assert list(axes.patches) == []


def test_populations_that_differ_by_rounding_are_one():
    axes = shrinkage(groups(7.0 + 1e-14 * np.arange(12)), covariance=np.eye(2))
    assert len(diamonds(axes)) == 1


def test_bands_are_explained_and_own_estimates_may_be_called_otherwise():
    axes = shrinkage(groups([0.0] * 9, ("x",)), covariance=np.eye(1), own="school's own mean")
    assert keys(axes) == ["school's own mean", "model's estimate", "population", REGIONS]


def test_notes_stand_below_the_axes():
    table = groups([0.0] * 12)
    table.loc[3, "own"] = 500.0
    axes = shrinkage(table)
    axes.figure.draw_without_rendering()
    (note,) = (t for t in axes.texts if t.get_text().startswith("own estimate beyond"))
    assert note.get_text() == "own estimate beyond the axes: s3"
    assert note.get_window_extent().y1 < axes.xaxis.label.get_window_extent().y0 + 1
    assert "s3" not in {text.get_text() for text in axes.texts}


def test_the_shares_of_narrow_bands_stand_beside_each_other():
    table = groups([0.0] * 8, ("Intercept",)).assign(own=np.linspace(-9.0, 9.0, 8))
    axes = shrinkage(table, covariance=np.array([[0.04]]))
    axes.figure.draw_without_rendering()
    inner, outer = (one for one in axes.texts if one.get_text().endswith("%"))
    assert not inner.get_window_extent().overlaps(outer.get_window_extent())
