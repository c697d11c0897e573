from __future__ import annotations

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
    name_columns,
    name_rows,
    new_figure,
    rows_height,
    short,
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
