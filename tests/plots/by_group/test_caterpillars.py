"""What a caterpillar plot says besides its points: the line of a quantile plot, the ends of it."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.text import Text

import ranef as rf
from ranef.plots.random_effects import caterpillar

CLASSICS = {
    "sleepstudy": "Reaction ~ Days + (Days | Subject)",
    "Penicillin": "diameter ~ 1 + (1 | plate) + (1 | sample)",
    "ScotsSec": "attain ~ verbal + sex + (1 | primary) + (1 | second)",
}


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def table(estimate, width=1.0):
    estimate = np.asarray(estimate, dtype=float)
    return pd.DataFrame(
        {
            "term": "g",
            "level": [f"s{i}" for i in range(len(estimate))],
            "coef": "Intercept",
            "estimate": estimate,
            "lower": estimate - width,
            "upper": estimate + width,
        }
    )


def test_the_line_of_a_quantile_plot_goes_through_the_quartiles():
    values = np.random.default_rng(2).normal(3.0, 2.0, 41)
    (axes,) = caterpillar(table(values), kind="qq")
    (line,) = (one for one in axes.lines if one.get_linestyle() == "--")
    x, y = line.get_data()
    low, high = np.percentile(values, [25, 75])
    quartile = 0.6744897501960817
    found = np.interp([-quartile, quartile], y, x)
    np.testing.assert_allclose(found, [low, high])


def test_the_ends_of_a_quantile_plot_are_named():
    values = np.arange(20.0) ** 2
    (axes,) = caterpillar(table(values), kind="qq")
    names = {text.get_text() for text in axes.texts} - {""}
    assert names == {"s0", "s1", "s2", "s17", "s18", "s19"}


def test_the_ends_of_a_long_list_are_named_in_their_order():
    values = np.random.default_rng(1).permutation(148).astype(float)
    (axes,) = caterpillar(table(values))
    order = np.argsort(values)
    names = {text.get_text(): text for text in axes.texts}
    assert set(names) == {f"s{i}" for i in (*order[:3], *order[-3:])}
    axes.figure.draw_without_rendering()
    heights = [names[f"s{i}"].get_window_extent().y0 for i in (*order[:3], *order[-3:])]
    assert heights == sorted(heights)
    spread = axes.yaxis.label.get_window_extent()
    assert not any(one.get_window_extent().overlaps(spread) for one in names.values())


def test_effects_without_spread_are_hollow_and_said():
    (axes,) = caterpillar(table(np.zeros(4), width=0.0))
    assert not axes.collections
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    assert points.get_markerfacecolor() == axes.get_facecolor()
    said = " ".join(axes.get_xlabel().split())
    assert said.endswith("that no differences are seen is not certainty")


def test_labels_and_titles_may_be_given():
    (axes,) = caterpillar(
        table([1.0, 2.0]), xlabels={"Intercept": "yield, g"}, titles={"g": "batch"}, figsize=(7, 3)
    )
    assert axes.get_xlabel() == "yield, g"
    assert axes.get_title(loc="left") == "batch, 2 levels"
    assert axes.figure.get_size_inches().tolist() == [7, 3]


@pytest.mark.parametrize("name", CLASSICS)
def test_no_name_covers_a_point(name):
    fit = rf.fit(CLASSICS[name], rf.load_dataset(name))
    for axes in fit.plot_caterpillar(kind="qq"):
        axes.figure.draw_without_rendering()
        (points,) = (line for line in axes.lines if line.get_marker() == "o")
        pixels = axes.transData.transform(points.get_xydata())
        for text in axes.texts:
            if text.get_text() and text.get_zorder() == 6 and text.get_fontsize() == 8.0:
                box = text.get_window_extent()
                assert not any(box.contains(*pixel) for pixel in pixels), text


def terms(*sizes):
    rng = np.random.default_rng(3)
    parts = [table(rng.normal(size=m)).assign(term=f"factor {i}") for i, m in enumerate(sizes)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("m", [6, 18, 60, 148, 600])
@pytest.mark.parametrize("font", [10.0, 16.0])
def test_any_number_of_groups_fits_a_screen(m, font):
    with plt.rc_context({"font.size": font}):
        (axes,) = caterpillar(table(np.random.default_rng(1).normal(size=m)))
        axes.figure.draw_without_rendering()
        assert axes.figure.get_figheight() < 8.2 * font / 10
        names = axes.get_yticklabels()
        assert len(names) == (m if m <= 60 else 0)
        texts = [one for one in [*names, *axes.texts] if one.get_text()]
        boxes = [Text.get_window_extent(one) for one in texts]  # without the lines to the rows
        assert len(boxes) >= min(m, 6)
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_terms_that_would_be_too_tall_stand_beside_each_other():
    for sizes, beside in [((6, 18), False), ((60, 18), True), ((148, 600), True)]:
        panels = caterpillar(terms(*sizes), interval_label="95 % interval")
        figure = panels[0].figure
        figure.draw_without_rendering()
        assert (panels[0].get_position().y0 == panels[1].get_position().y0) == beside
        assert figure.get_figheight() < 9.0
        said = [[t for t in axes.texts if t.get_text() == "95 % interval"] for axes in panels]
        assert [len(one) for one in said] == [1, 0 if beside else 1]
        plt.close("all")


def test_long_lists_name_the_extremes_of_every_panel():
    one = table(np.arange(100.0))
    other = one.assign(coef="x", estimate=-(one["estimate"] ** 2))
    _, right = caterpillar(pd.concat([one, other], ignore_index=True))
    assert {text.get_text() for text in right.texts} == {"s97", "s98", "s99"}


def test_points_of_a_quantile_plot_can_be_seen():
    (axes,) = caterpillar(table(np.random.default_rng(1).normal(size=600)), kind="qq")
    (points,) = (line for line in axes.lines if line.get_marker() == "o")
    assert points.get_markersize() >= 2.2
