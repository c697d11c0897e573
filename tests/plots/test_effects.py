"""Curves and points of predicted means stand where their tables say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from ranef.errors import RanefError
from ranef.plots.comparisons import COLOURS
from ranef.plots.effects import effects

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


def table(n_levels, more=()):
    parts = []
    for level in range(n_levels):
        for other in more or [""]:
            x = np.arange(3.0)
            parts.append(
                pd.DataFrame({"f": f"l{level}", "g": other, "x": x, "estimate": x + level})
            )
    found = pd.concat(parts, ignore_index=True)
    found["lower"], found["upper"] = found["estimate"] - 1, found["estimate"] + 2
    found.attrs["interval"] = "95 % interval"
    return found


def curves(axes):
    return [line.get_ydata().tolist() for line in axes.get_lines()]


def test_a_curve_with_its_band():
    (axes,) = effects(table(1), "x", label="mean of y")
    assert curves(axes) == [[0.0, 1.0, 2.0]]
    band = axes.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (-1.0, 4.0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "mean of y")
    assert [text.get_text() for text in axes.texts] == ["95 % interval"]
    assert axes.get_legend() is None


def test_few_levels_have_colours():
    (axes,) = effects(table(6), "x", by=["f"])
    assert [line.get_color() for line in axes.get_lines()] == list(COLOURS)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"l{i}" for i in range(6)
    ]
    assert axes.get_legend().get_title().get_text() == "f"


def test_more_levels_have_panels():
    grid = effects(table(10), "x", by=["f"], label="y")
    assert [axes.get_title(loc="left") for axes in grid] == [f"f = l{i}" for i in range(10)]
    assert [curves(axes) for axes in grid] == [[[i, i + 1.0, i + 2.0]] for i in range(10)]
    assert grid[0].figure.get_supylabel() == "y"
    assert [axes.get_xlabel() for axes in grid] == [""] * 5 + ["x"] * 5
    assert effects(table(7), "x", by=["f"])[4].get_xlabel() == "x"


def test_very_many_levels_share_a_panel():
    (axes,) = effects(table(600), "x", by=["f"])
    assert len(axes.get_lines()) == 600
    assert not axes.collections
    assert axes.get_legend() is None
    assert not axes.texts


def test_a_second_variable_has_panels():
    grid = effects(table(2, more="uvw"), "x", by=["f", "g"])
    assert [axes.get_title(loc="left") for axes in grid] == ["g = u", "g = v", "g = w"]
    assert all(len(axes.get_lines()) == 2 for axes in grid)
    assert grid[-1].get_legend() is not None


def test_levels_have_points_side_by_side():
    found = table(2).astype({"x": str})
    (axes,) = effects(found, "x", by=["f"])
    places = np.array([line.get_xdata() for line in axes.get_lines()])
    np.testing.assert_allclose(places.mean(axis=0), [0, 1, 2])
    assert (places[0] < places[1]).all()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.0", "1.0", "2.0"]
    ends = axes.collections[0].get_segments()[0]
    assert ends[:, 1].tolist() == [-1.0, 2.0]


def test_the_data_behind():
    rows = pd.DataFrame({"x": [0.5, 1.5, 0.1], "f": ["l0", "l1", "l1"], "y": [3.0, 4.0, 5.0]})
    (axes,) = effects(table(2), "x", by=["f"], rows=rows)
    assert curves(axes)[:2] == [[3.0], [4.0, 5.0]]
    (axes,) = effects(table(1), "x", rows=rows.assign(y=[0, 1, 1]))
    moved = np.array(curves(axes)[0])
    assert ((moved >= 0) & (moved <= 1)).all()
    np.testing.assert_allclose(moved, [0, 1, 1], atol=0.07)
    (axes,) = effects(table(1).astype({"x": str}), "x", rows=rows.assign(x="1.0"))
    assert np.abs(axes.get_lines()[0].get_xdata() - 1.0).max() < 0.2


def test_axes_of_ones_own():
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(1, 3)
    found = effects(table(2, more="uvw"), "x", by=["f", "g"], label="y", ax=grid)
    assert list(found) == list(grid)
    assert [axes.get_ylabel() for axes in grid] == ["y"] * 3
    assert found[0].figure is figure
    with pytest.raises(RanefError, match=r"one axes for each panel, 3 in all .g = u, g = v, g = w"):
        effects(table(2, more="uvw"), "x", by=["f", "g"], ax=grid[0])
    assert effects(table(1), "x", figsize=(3, 2))[0].figure.get_size_inches().tolist() == [3, 2]


def test_gaps_are_left_open():
    found = table(1)
    found.loc[1, ["estimate", "lower", "upper"]] = np.nan
    (axes,) = effects(found, "x")
    assert np.isnan(axes.get_lines()[0].get_ydata()[1])
    axes.figure.canvas.draw()
