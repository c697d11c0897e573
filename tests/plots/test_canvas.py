from __future__ import annotations

import itertools

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import ranef as rf
from ranef.errors import RanefError
from ranef.plots.canvas import (
    checked_axes,
    ellipse,
    head_panel,
    label_x,
    label_y,
    name_columns,
    name_rows,
    new_figure,
    note,
    rows_height,
    short,
    strip,
)

pytestmark = pytest.mark.filterwarnings("error")


@pytest.mark.parametrize("prob", [0.5, 0.95])
def test_the_ellipse_holds_its_share_of_normal_draws(prob: float) -> None:
    covariance = np.array([[4.0, 1.5], [1.5, 1.0]])
    rng = np.random.default_rng(1)
    draws = rng.multivariate_normal([2.0, -1.0], covariance, size=20_000)
    contour = ellipse(np.array([2.0, -1.0]), covariance, prob)
    # Share of draws inside the polygon by the winding of its corners around each draw.
    corners = (contour[None, :, :] - draws[:, None, :]) @ np.array([1.0, 1.0j])
    turns = np.angle(corners[:, 1:] / corners[:, :-1]).sum(axis=1) / (2.0 * np.pi)
    share = np.mean(np.abs(turns) > 0.5)
    assert abs(share - prob) < 4.0 * np.sqrt(prob * (1.0 - prob) / 20_000)


def test_the_ellipse_closes_and_is_centred() -> None:
    contour = ellipse(np.array([3.0, 5.0]), np.diag([2.0, 7.0]), 0.9)
    assert contour.shape == (181, 2)
    np.testing.assert_allclose(contour[0], contour[-1])
    np.testing.assert_allclose(contour[:-1].mean(axis=0), [3.0, 5.0])


def test_a_covariance_that_rounding_made_indefinite_gives_a_line() -> None:
    contour = ellipse(np.zeros(2), np.array([[1.0, 1.0], [1.0, 1.0 - 1e-15]]), 0.5)
    np.testing.assert_allclose(contour[:, 0], contour[:, 1], atol=1e-7)


@pytest.mark.parametrize("ax", [3, "a", [None], {"a": 1}, object()])
def test_what_is_no_axes_is_refused(ax: object) -> None:
    with pytest.raises(RanefError, match=r"`ax` takes axes of matplotlib, as plt.subplots\(\) mak"):
        checked_axes(ax, ["a"])  # type: ignore[arg-type]


def test_many_rows_are_lower_and_still_named() -> None:
    assert rows_height(18) == pytest.approx(0.9 + 18 * 0.18)
    assert rows_height(60) < 8.2
    axes = new_figure((5.0, rows_height(60))).add_subplot()
    name_rows(axes, [f"level {i}" for i in range(60)], 60)
    assert len(axes.get_yticklabels()) == 60


def test_names_keep_their_two_ends() -> None:
    assert short("x" * 32) == "x" * 32
    assert short("a\nb") == "a b"
    cut = short("a" * 20 + "b" * 20)
    assert cut == "a" * 15 + "…" + "b" * 16


def _names_below(width: float, names: list[str]) -> tuple[list[str], float]:
    axes = new_figure((width, 3.0)).add_subplot()
    name_columns(axes, names)
    labels = axes.get_xticklabels()
    (angle,) = {label.get_rotation() for label in labels}
    return [label.get_text() for label in labels], angle


def test_names_below_an_axis_stand_upright_where_their_lines_have_no_room() -> None:
    names = ["Large Ensemble", "Small Ensemble", "Solo"]
    assert _names_below(8.0, names) == (names, 0.0)
    assert _names_below(5.0, names) == (["Large\nEnsemble", "Small\nEnsemble", "Solo"], 0.0)
    assert _names_below(2.5, names) == (names, 90.0)
    assert _names_below(2.5, ["N", "Y", "?"]) == (["N", "Y", "?"], 0.0)


def test_figures_grow_with_the_fonts_unless_their_size_is_given() -> None:
    sizes = {}
    for font in (8.0, 10.0, 16.0):
        with plt.rc_context({"font.size": font}):
            sizes[font] = tuple(new_figure((5.0, 3.0)).get_size_inches().tolist())
            assert new_figure((5.0, 3.0), (7.0, 2.0)).get_size_inches().tolist() == [7.0, 2.0]
        plt.close("all")
    assert sizes == {8.0: (5.0, 3.0), 10.0: (5.0, 3.0), 16.0: (8.0, pytest.approx(4.8))}


def test_panels_know_their_figure(tmp_path) -> None:
    sleep = rf.load_dataset("sleepstudy")
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
    for panels in (fit.plot_caterpillar(), fit.plot_groups(), rf.plot_effects(fit, "Days")):
        assert repr(panels).endswith("of a figure>")
        assert panels.figure is panels[0].figure
    figure, axes = plt.subplots(1, 2)
    assert fit.plot_caterpillar(ax=axes).figure is figure
    figure.savefig(tmp_path / "caterpillar.png")
    plt.close("all")


@pytest.mark.parametrize("size", [3, "ab", (1, 2, 3), (-1, 2), (0, 3), (np.nan, 2), (3, "cm")])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(RanefError, match="`figsize` must be two positive numbers, width and heigh"):
        new_figure((5.0, 3.0), size)  # type: ignore[arg-type]


def test_a_long_note_makes_no_axes_narrower() -> None:
    widths = []
    for text in ("", "a note that is longer than the axes are wide, by a lot of words of no use"):
        figure = new_figure((6.0, 2.0))
        axes = figure.subplots(1, 2)
        note(axes[0], text, (0.0, 1.0), xytext=(0.0, 5.0), ha="left", va="bottom")
        figure.draw_without_rendering()
        widths.append(axes[0].get_position().width)
    assert widths[1] == pytest.approx(widths[0], abs=1e-3)


LONG = "deviation of a_very_long_name_of_a_predictor_with_$_signs, ms per week and $\\alpha$"


def test_labels_and_titles_stay_within_their_panels() -> None:
    figure = new_figure((7.0, 3.0))
    panels = figure.subplots(1, 3)
    for axes in panels:
        label_x(axes, LONG)
        head_panel(axes, LONG, loc="left", fontsize="medium")
    figure.draw_without_rendering()
    for what in ("title", "label"):
        texts = [axes._left_title if what == "title" else axes.xaxis.label for axes in panels]
        boxes = [text.get_window_extent() for text in texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i]), what
        assert all(
            figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1 for box in boxes
        ), what
        assert all("…" in text.get_text() for text in texts), what
    assert not any(text.get_parse_math() for text in texts)


def test_a_note_below_axes_has_lines() -> None:
    axes = new_figure((4.0, 3.0)).add_subplot()
    text = (
        "without an estimate of its own: clinic 12, clinic 128, clinic 131, clinic 150 and 35 more"
    )
    note(axes, text, (0.0, 0.0), xytext=(0.0, -36.0), ha="left", va="top")
    axes.figure.draw_without_rendering()
    box, figure = axes.texts[0].get_window_extent(), axes.figure.bbox
    assert " ".join(axes.texts[0].get_text().split()) == text
    assert figure.x0 <= box.x0 < box.x1 <= figure.x1
    assert figure.y0 <= box.y0


def test_a_label_beside_axes_is_no_longer_than_they_are_high() -> None:
    axes = new_figure((5.0, 3.0)).add_subplot()
    label_y(axes, LONG)
    axes.figure.draw_without_rendering()
    assert "…" in axes.get_ylabel()
    box = axes.yaxis.label.get_window_extent()
    assert axes.figure.bbox.y0 <= box.y0 < box.y1 <= axes.figure.bbox.y1


def test_the_power_of_ten_of_an_axis_leaves_room_for_what_stands_above() -> None:
    axes = new_figure((5.0, 3.0)).add_subplot()
    axes.plot([0.0, 1.0], [0.0, 4e12])
    label_y(axes, "y")
    axes.figure.draw_without_rendering()
    assert axes.yaxis.get_offset_text().get_window_extent().x1 <= axes.bbox.x0 + 1


def test_numbers_below_a_narrow_panel_have_room() -> None:
    figure = new_figure((5.0, 2.0))
    for axes in figure.subplots(1, 3):
        axes.plot([1.0025e-6, 1.0105e-6], [0.0, 1.0])
        strip(axes, "x")
    figure.draw_without_rendering()
    for axes in figure.axes:
        shown = [t for t in axes.get_xticklabels() if t.get_text()]
        boxes = [text.get_window_extent() for text in shown]
        inside = [b for b in boxes if axes.bbox.x0 - 1 <= (b.x0 + b.x1) / 2 <= axes.bbox.x1 + 1]
        assert len(inside) >= 2
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(inside))
