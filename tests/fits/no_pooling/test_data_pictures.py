"""The data of a model, drawn before anything is fitted."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import ranef as rf
from ranef.errors import RanefError

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_without_predictors_it_is_a_dot_plot_by_means():
    data = rf.load_dataset("Dyestuff")
    axes = rf.Model("Yield ~ 1 + (1 | Batch)", data).plot_data()
    means = data.groupby("Batch", observed=True)["Yield"].mean().sort_values()
    assert names(axes) == means.index.tolist()
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xdata(), means)
    assert axes.get_xlabel() == "Yield, g"
    ordered = rf.Model("Yield ~ 1 + (1 | Batch)", data).plot_data(order="level")
    assert names(ordered)[::-1] == list("ABCDEF")


def test_with_a_predictor_it_is_a_lattice_with_own_lines():
    data = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (Days | Subject)", data)
    axes = model.plot_data()
    lines = {
        subject: np.polyfit(rows["Days"], rows["Reaction"], 1)
        for subject, rows in data.groupby("Subject", observed=True)
    }
    assert [one.get_title() for one in axes] == sorted(lines, key=lambda s: lines[s][1])
    for one in axes:
        (line,) = one.lines
        np.testing.assert_allclose(
            line.get_ydata(), np.polyval(lines[one.get_title()], line.get_xdata())
        )
    by_slope = model.plot_data(order="Days")
    assert [one.get_title() for one in by_slope] == sorted(lines, key=lambda s: lines[s][0])


def test_an_argument_changes_the_kind():
    data = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (Days | Subject)", data)
    assert len(names(model.plot_data(kind="dots"))) == 18
    with pytest.raises(rf.FitError) as caught:
        model.plot_data(kind="dot")
    assert str(caught.value) == "kind='dot' is no kind of plot. Did you mean `dots`?"
    dyestuff = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.raises(rf.FitError) as caught:
        dyestuff.plot_data(kind="lattice")
    assert str(caught.value) == (
        'no predictor of the model varies within Batch, so there are no lines: use kind="dots".'
    )


def test_groups_within_groups_have_a_panel_each_of_the_outer_ones():
    data = rf.load_dataset("Pastes")
    model = rf.Model("strength ~ 1 + (1 | batch/cask)", data)
    panels = model.plot_data()
    by_mean = data.groupby("batch", observed=True)["strength"].mean().sort_values(ascending=False)
    assert [axes.get_ylabel() for axes in panels] == [str(level) for level in by_mean.index]
    own = data[data["batch"] == "A"].groupby("cask", observed=True)["strength"].mean()
    panel = panels[list(by_mean.index).index("A")]
    assert names(panel) == [str(level) for level in own.sort_values().index]
    drawn = panel.collections[0].get_offsets()
    assert sorted(drawn[:, 0]) == sorted(data.loc[data["batch"] == "A", "strength"])
    np.testing.assert_allclose(panel.lines[0].get_xdata(), own.sort_values())
    # crossed by their names, nested by their rows
    other = rf.Model("strength ~ 1 + (1 | sample) + (1 | batch)", data).plot_data(order="level")
    assert [axes.get_ylabel() for axes in other] == list("ABCDEFGHIJ")
    assert names(other[0]) == ["c", "b", "a"]


def test_one_axes_takes_all_nested_groups_and_too_many_for_names_have_one():
    data = rf.load_dataset("Pastes")
    model = rf.Model("strength ~ 1 + (1 | batch/cask)", data)
    axes = model.plot_data(ax=plt.subplots()[1])
    assert len(names(axes)) == 30
    schools = rf.load_dataset("ScotsSec").assign(half=lambda d: d["primary"].astype(int) % 2)
    many = rf.Model("attain ~ 1 + (1 | half) + (1 | primary)", schools)
    assert many.plot_data("primary").get_ylabel() == "148 levels"
    # 60 rows have names, but not with 20 panels of them
    twenty = pd.DataFrame({"a": np.repeat(range(20), 9), "b": np.repeat(range(60), 3), "y": 1.0})
    varied = twenty.assign(y=np.random.default_rng(1).normal(size=180))
    assert len(names(rf.Model("y ~ 1 + (1 | a/b)", varied).plot_data())) == 60
    with pytest.raises(RanefError, match=r"one axes for each panel, 10 in all \(H, A, C"):
        model.plot_data(ax=plt.subplots(2)[1])


def test_a_crossed_factor_of_few_levels_has_colours():
    data = rf.load_dataset("Penicillin")
    axes = rf.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", data).plot_data()
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys == [f"sample {one}" for one in "ABCDEF"]
    means = data.groupby("plate", observed=True)["diameter"].mean()
    assert list(means[names(axes)]) == sorted(means)
    for line in axes.lines:
        sample = data[data["sample"] == line.get_label()[-1]].set_index("plate")["diameter"]
        np.testing.assert_allclose(line.get_xdata(), sample[names(axes)])


@pytest.mark.parametrize("family", ["gamma", "inverse_gaussian"])
def test_a_generalised_model_has_its_curves(family):
    data = rf.load_dataset("sleepstudy")
    model = rf.Model("Reaction ~ Days + (1 | Subject)", data, family=family, link="log")
    (axes,) = model.plot_data(groups=["308"])
    (line,) = axes.lines
    assert np.ptp(np.diff(np.log(line.get_ydata()))) < 1e-9  # straight on the scale of the link


def test_shares_of_a_binary_response():
    data = rf.load_dataset("Contraception")
    model = rf.Model("use ~ 1 + (1 | district)", data, family="binomial")
    axes = model.plot_data()
    (points,) = axes.collections
    shares = (data["use"] == "Y").groupby(data["district"], observed=True).mean()
    np.testing.assert_allclose(np.sort(points.get_offsets()[:, 0]), np.sort(shares))
    assert axes.get_xlabel() == "share of use == 'Y'"


def test_what_is_not_there_is_named():
    data = rf.load_dataset("Dyestuff")
    with pytest.raises(rf.FitError) as caught:
        rf.Model("Yield ~ 1 + (1 | Batch)", data).plot_data("batch")
    assert str(caught.value) == "there is no grouping factor 'batch'. Did you mean `Batch`?"
    with pytest.raises(rf.FitError) as caught:
        rf.Model("Yield ~ 1", data).plot_data()
    said = "the model has no grouping factor, so there are no groups to draw."
    assert str(caught.value) == said
    with pytest.raises(rf.FitError) as caught:
        rf.Model("Yield ~ 1 + (1 | Batch)", data).plot_data(groups=["A", "G"])
    known = "Known names: `A`, `B`, `C`, `D`, `E`, `F`."
    assert str(caught.value) == f"`Batch` has no level 'G'. {known}"
    with pytest.raises(rf.FitError) as caught:
        rf.Model("Yield ~ 1 + (1 | Batch)", data).plot_data(groups=[])
    said = "`groups` names no level of `Batch`, so there is nothing to draw."
    assert str(caught.value) == said
