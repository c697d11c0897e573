"""What of the pictures does not move: ranges of axes without outliers, groups in order, sizes."""

import numpy as np
import pytest
from explorer_pages import held, in_node, page

import ranef as rf

LAYOUT = """
const {prepared, fitAt} = await use("model"), {layoutOf, outside} = await use("layout");
const {remlSetting} = await use("sliders"), q = prepared(given.data), f = fitAt(q, remlSetting(given.data));
const l = layoutOf(given.data, q, f);
return {...l, panels: l.panels(3), intervals: l.intervals(3), outside: outside(l, f), start: l.start};
"""


def test_an_outlier_does_not_stretch_the_axes(tmp_path):
    rng = np.random.default_rng(4)
    own = np.r_[rng.normal(size=20), 60.0]
    data = {"g": np.repeat(np.arange(21), 4), "y": np.repeat(own, 4) + 0.1 * rng.normal(size=84)}
    fit = rf.fit("y ~ 1 + (1 | g)", data)
    found = in_node(LAYOUT, data=held(fit.explore_shrinkage(tmp_path / "p.html")))
    assert found["outside"] == 1
    reach = 2.3 * fit.varcorr().sd["g"].iloc[0]
    low, high = found["domain"][0]
    assert high - low == pytest.approx(2 * reach * 1.12)  # the population, and a margin
    assert high < 40


def test_groups_stand_in_order_and_are_thinned_evenly():
    found = in_node(LAYOUT, data=held(page("schools")))
    own = np.array([o[0] for o in found["own"]])
    assert (np.diff(own[found["order"]]) >= 0).all()
    assert len(found["intervals"]) <= 31
    assert 3 in found["intervals"]
    assert found["order"][-1] in found["intervals"]
    assert found["start"][-1] == 3435
    assert found["uneven"]


def test_the_size_of_a_group_is_what_its_own_estimate_rests_on(tmp_path):
    rng = np.random.default_rng(1)
    data = {"g": np.repeat(list("abcdef"), 6), "y": rng.normal(size=36), "w": rng.uniform(1, 9, 36)}
    fit = rf.fit("y ~ 1 + (1 | g)", data, weights="w")
    found = in_node(LAYOUT, data=held(fit.explore_shrinkage(tmp_path / "p.html")))
    sizes = np.bincount(np.repeat(np.arange(6), 6), data["w"])
    np.testing.assert_allclose(found["sizes"], sizes, rtol=1e-9)


@pytest.mark.parametrize("name", ["zero", "equal"])
def test_with_equal_sizes_the_band_of_chance_is_seen(name):
    data = held(page(name))
    low, high = in_node(LAYOUT, data=data)["domain"][0]
    half = 1.96 * data["reml"]["sigma"] / np.sqrt(5)
    mean = data["reml"]["beta"][0]
    assert low < mean - half
    assert mean + half < high
