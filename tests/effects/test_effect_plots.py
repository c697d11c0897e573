"""What is drawn is the table of means."""

import matplotlib as mpl
import numpy as np
import pytest
from effect_cases import data, fit_of

import ranef as rf
from ranef.errors import FitError, RanefError

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    from matplotlib import pyplot as plt

    plt.close("all")


@pytest.fixture(scope="module")
def cbpp():
    frame = data("cbpp").assign(time=lambda d: d["period"].astype(float))
    formula = "cbind(incidence, size - incidence) ~ time + I(time^2) + (1 | herd)"
    return rf.fit(formula, frame, family="binomial")


@pytest.mark.parametrize("groups", ["population", "average", "new"])
def test_a_curve_is_the_table_of_means(cbpp, groups):
    (axes,) = rf.plot_effects(cbpp, "time", groups=groups, n=11, prob=0.8)
    grid = np.linspace(1, 4, 11)
    table = rf.means(cbpp, "time", at={"time": grid}, kind="response", groups=groups, prob=0.8)
    (line,) = axes.get_lines()
    np.testing.assert_allclose(line.get_xdata(), grid)
    np.testing.assert_allclose(line.get_ydata(), table["estimate"])
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(table["lower"].min())
    assert band.max() == pytest.approx(table["upper"].max())
    words = {"population": "typical group", "average": "mean over groups", "new": "new group"}
    assert words[groups] in axes.get_ylabel()


def test_levels_and_colours():
    fit = fit_of("cake")
    (axes,) = rf.plot_effects(fit, "temp", by="recipe", data=True)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list("ABC")
    (axes,) = rf.plot_effects(fit, "recipe", by="temp", kind="link")
    temp = data("cake")["temp"]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [f"{temp.mean() + s * temp.std():.3g}" for s in (-1, 0, 1)]
    assert axes.get_ylabel() == "mean of angle,\nof a typical group"
    (axes,) = rf.plot_effects(fit, "recipe", at={"temp": 175}, df="kenward-roger")
    table = rf.means(fit, "recipe", at={"temp": 175})
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), table["estimate"])
    assert "kenward-roger" in axes.texts[0].get_text()


def test_numbers_that_the_formula_makes_factors_are_levels():
    fit = rf.fit("angle ~ factor(temp) + (1 | recipe:replicate)", data("cake"))
    (axes,) = rf.plot_effects(fit, "temp", data=True)
    assert [text.get_text() for text in axes.get_xticklabels()] == [
        "175", "185", "195", "205", "215", "225",
    ]  # fmt: skip


def test_known_groups_and_posteriors():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", data("sleepstudy"))
    grid = rf.plot_effects(model.fit(), "Days", by="Subject", groups="known", data=True, n=2)
    assert len(grid) == 18
    assert len(grid[0].get_lines()[0].get_xdata()) == 10
    (axes,) = rf.plot_effects(model.fit("quadrature"), "Days", n=3)
    assert axes.texts[0].get_text() == "95 % HPD interval"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rf.plot_effects(f, "tim"), "`tim` is not a predictor of the fixed effects."),
        (lambda f: rf.plot_effects(f, "time", by="time"), "`time` stands along the axis"),
        (lambda f: rf.plot_effects(f, "time", by="x"), "`x` is not a predictor"),
        (lambda f: rf.plot_effects(f, "time", n=0), "`n` must be a positive whole number, got 0."),
        (lambda f: rf.plot_effects(f, "time", kind="odds"), "is not a scale"),
        (lambda f: rf.plot_effects(f, "time", groups="all"), "is not an option"),
        (lambda f: rf.plot_effects(f, "time", groups="known"), "needs a grouping factor"),
        (
            lambda f: rf.plot_effects(f, "time", kind="link", data=True),
            "data=True draws responses, which are on the scale of kind='response'",
        ),
        (lambda _: rf.plot_effects(1, "time"), "expected a fit, got int"),
    ],
)
def test_what_has_no_picture(cbpp, call, message):
    with pytest.raises(FitError) as caught:
        call(cbpp)
    assert message in str(caught.value)


def test_axes_are_counted(cbpp):
    from matplotlib import pyplot as plt

    with pytest.raises(RanefError, match="one axes for each panel, 1 in all"):
        rf.plot_effects(cbpp, "time", ax=plt.subplots(1, 2)[1])
