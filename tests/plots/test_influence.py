"""Pictures of influence: what is drawn where, and which panels are chosen."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ranef.errors import RanefError
from ranef.plots.influence import influence


def table(m=6):
    rng = np.random.default_rng(1)
    columns = {
        "level": [f"g{i}" for i in range(m)],
        "n": 5,
        "cook": rng.exponential(size=m) / m,
        "x": rng.normal(size=m),
        "sd_g[Intercept]": 20 * rng.normal(size=m),
    }
    found = pd.DataFrame(columns)
    found.attrs["unit"] = "g"
    return found


def test_rows_are_ordered_by_distance_and_marks_at_the_numbers():
    one = table()
    grid = influence(one)
    ordered = one.sort_values("cook")
    assert [label.get_text() for label in grid[0].get_yticklabels()] == list(ordered["level"])
    for axes, name in zip(grid, ["cook", "x", "sd_g[Intercept]"], strict=True):
        found = axes.collections[-1].get_offsets()
        np.testing.assert_allclose(found, np.column_stack([ordered[name], np.arange(6)]))
    assert grid[0].get_title(loc="left") == "g, 6 left out one at a time"
    assert 4 / 6 in [line.get_xdata()[0] for line in grid[0].lines] or one["cook"].max() < 4 / 6


def test_panels_are_those_that_change_most_for_their_scale():
    one = table().assign(a=1.0, b=2.0, c=3.0)
    scale = pd.Series({"x": 1e9, "sd_g[Intercept]": 1e9, "a": 1.0, "b": 1.0, "c": 1.0})
    heads = [axes.get_xlabel() for axes in influence(one, scale=scale)]
    assert heads == ["Cook's distance", "change of\na", "change of\nb", "change of\nc"]
    (axes,) = influence(one, what="x")
    assert axes.get_xlabel() == "change of\nx"


@pytest.mark.parametrize("m", [1, 6, 60, 600])
def test_of_many_groups_the_extremes_are_named(m):
    one = table(m)
    grid = influence(one, what=["cook", "x"])
    names = [text.get_text() for text in grid[1].texts]
    expected = one.loc[(one["x"] - one["x"].median()).abs().nlargest(3).index, "level"]
    assert set(names) == (set(expected) if m > 60 else set())
    grid[0].figure.canvas.draw()
    if m > 60:  # no name lies on another
        boxes = [text.get_window_extent() for text in grid[1].texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_axes_and_sizes_are_the_users():
    _, axes = plt.subplots(1, 2)
    assert list(influence(table(), what=["cook", "x"], ax=axes)) == list(axes)
    grid = influence(table(), what="cook", figsize=(3, 2))
    assert tuple(grid[0].figure.get_size_inches()) == (3, 2)
    with pytest.raises(RanefError, match=r"one axes for each panel, 2 in all \(Cook's distance, x"):
        influence(table(), what=["cook", "x"], ax=axes[0])


def test_only_what_is_there_is_drawn():
    with pytest.raises(RanefError, match="there is nothing called 'y' to draw"):
        influence(table(), what="y")


def test_levels_without_a_fit_are_said():
    one = table()
    one.attrs["failed"] = {"g2": "why"}
    one.loc[2, ["cook", "x", "sd_g[Intercept]"]] = np.nan
    texts = [text.get_text() for text in influence(one)[0].texts]
    assert texts == ["1 without which no model could be fitted"]
