"""A lattice: panels, points, lines, limits."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from ranef.plots.by_group.trellis import trellis

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def tables(m=4):
    rng = np.random.default_rng(1)
    points = pd.DataFrame({"level": np.repeat([f"s{i}" for i in range(m)], 5)})
    points["x"], points["y"] = np.tile(np.arange(5.0), m), rng.normal(size=5 * m)
    lines = points.rename(columns={"y": "own"}).assign(model=0.5, population=0.0)
    return points, lines


def test_each_group_has_a_panel_in_the_order_that_is_asked_for():
    points, lines = tables()
    axes = trellis(points, lines, levels=["s3", "s0"])
    assert [one.get_title() for one in axes] == ["s3", "s0"]
    for one in axes:
        mine = points[points["level"] == one.get_title()]
        np.testing.assert_array_equal(one.collections[0].get_offsets(), mine[["x", "y"]])
        own, model, population = one.lines
        np.testing.assert_array_equal(own.get_ydata(), mine["y"])
        assert set(model.get_ydata()) == {0.5}
        assert population.get_linestyle() == "--"


def test_all_panels_have_the_same_axes():
    axes = trellis(*tables())
    assert len({one.get_ylim() for one in axes}) == len({one.get_xlim() for one in axes}) == 1


def test_an_own_line_that_runs_away_does_not_stretch_the_axes():
    points, lines = tables()
    usual = trellis(points, lines)[0].get_ylim()
    lines.loc[0, "own"] = 1e6
    assert trellis(points, lines)[0].get_ylim() == usual


def test_levels_along_the_axis_are_named():
    points, lines = tables()
    kinds = pd.CategoricalDtype(["lo", "mid", "hi", "top", "max"])
    for table in (points, lines):
        table["x"] = table["x"].map(dict(enumerate(kinds.categories))).astype(kinds)
    axes = trellis(points, lines)
    assert [t.get_text() for t in axes[-1].get_xticklabels()] == list(kinds.categories)
    np.testing.assert_array_equal(axes[1].lines[0].get_xdata(), range(5))


def test_long_levels_stand_upright_and_take_no_room_between_the_rows_of_panels():
    points, lines = tables(5)
    names = {i: f"a long name of level {i}" for i in range(5)}
    axes = trellis(points.assign(x=points["x"].map(names)), lines.assign(x=lines["x"].map(names)))
    axes[0].figure.canvas.draw()
    labels = [label for one in axes for label in one.get_xticklabels() if label.get_visible()]
    assert {label.get_rotation() for label in labels} == {90.0}
    tops = sorted({round(one.get_position().y1, 3) for one in axes})
    height = axes[0].get_position().height
    assert len(tops) == 2
    assert tops[1] - tops[0] < 1.5 * height


@pytest.mark.parametrize("m", [1, 6, 18, 36])
def test_title_labels_and_legend_have_room(m):
    axes = trellis(*tables(m), title="g, ordered by Intercept", xlabel="Days", ylabel="Reaction")
    figure = axes[0].figure
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    panels = [one.get_tightbbox() for one in figure.axes]
    title = figure._suptitle.get_window_extent()
    for box in (figure._supxlabel.get_window_extent(), figure._supylabel.get_window_extent()):
        assert not any(box.overlaps(one) for one in [*panels, legend])
    assert legend.y0 >= max(one.y1 for one in panels) - 1
    assert title.y1 > legend.y1


def test_the_area_of_points_goes_by_the_number():
    points, lines = tables(1)
    (axes,) = trellis(points.assign(n=[1, 2, 3, 4, 5]), lines)
    assert np.all(np.diff(axes.collections[0].get_sizes()) > 0)


@pytest.mark.parametrize(
    ("count", "columns"), [(1, 1), (2, 2), (6, 3), (7, 4), (15, 5), (16, 4), (18, 6), (36, 9)]
)
def test_few_places_of_a_lattice_stay_free(count, columns):
    levels = [f"g{i:02d}" for i in range(count)]
    points = pd.DataFrame({"level": levels, "x": 0.0, "y": np.arange(count)})
    panels = trellis(points, points.rename(columns={"y": "own"}), levels=levels)
    assert panels[0].get_subplotspec().get_gridspec().ncols == columns
