"""The record of a profile: closed-form rises, whose limits are known, and what is printed."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ranef.errors import FitError, RanefError
from ranef.likelihood.profile.likelihood_profile import Profile, ProfileCurve, Scale

MEAN, SE = 3.0, 0.5


@pytest.fixture(autouse=True)
def _no_windows():
    import matplotlib as mpl

    mpl.use("Agg")
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def curve(rise, slope, x, *, name="a", center=0.0, curvature=2.0, **other):
    x = np.asarray(x, dtype=float)
    fields = {"scale": Scale(), "bounds": (-np.inf, np.inf), "complete": (False, False)} | other
    return ProfileCurve(
        name=name, center=center, x=x, rise=rise(x), slope=slope(x), curvature=curvature, **fields
    )


def parabola(**other):
    """A normal likelihood: the rise is the square of the coordinate, in units of the se."""
    scale = Scale(origin=MEAN, unit=SE)
    nodes = [-3, -1.7, -0.4, 0, 0.2, 2, 2.9]
    return curve(lambda x: x**2, lambda x: 2 * x, nodes, **({"scale": scale} | other))


def profile(*curves, prob=0.99, **other):
    return Profile({one.name: one for one in curves}, 100.0, prob, "Profile likelihood", **other)


def test_a_normal_likelihood_has_wald_intervals_and_straight_zetas():
    found = profile(parabola())
    for prob in (0.5, 0.8, 0.95, 0.99):
        expected = stats.norm.interval(prob, MEAN, SE)
        np.testing.assert_allclose(found.confint(prob).loc["a"], expected, rtol=1e-12)
    np.testing.assert_allclose(found.table["zeta"], (found.table["value"] - MEAN) / SE)
    assert found.curves["a"].tangent() == pytest.approx(1 / SE)
    assert found.estimates["a"] == MEAN


def test_a_cubic_rise_is_met_exactly_between_distant_nodes():
    def rise(x):
        return x**2 + 0.1 * x**3

    one = curve(rise, lambda x: 2 * x + 0.3 * x**2, [-2.5, 0, 4])
    low, high = one.limits(1.5)
    np.testing.assert_allclose(rise(np.array([low, high])), 1.5**2, rtol=1e-12)
    assert low < 0 < high


def test_a_limit_is_on_the_scale_of_the_parameter():
    one = parabola(scale=Scale(np.exp, math.log(7.0), 0.2))
    low, high = one.limits(2.0)
    assert (low, high) == pytest.approx((7 * math.exp(-0.4), 7 * math.exp(0.4)))
    assert one.estimate == pytest.approx(7.0)
    assert one.tangent() == pytest.approx(1 / (7 * 0.2))


def test_the_end_of_the_range_is_a_limit_where_the_nodes_show_that_it_is_not_excluded():
    one = parabola(scale=Scale(), bounds=(-3.0, np.inf), complete=(True, False))
    assert one.limits(3.2)[0] == -3.0
    assert one.limits(2.99)[0] == pytest.approx(-2.99)
    assert math.isnan(one.limits(3.2)[1])


def test_a_rise_that_levels_off_has_an_infinite_limit():
    one = parabola(scale=Scale(np.exp), complete=(True, True))
    assert one.limits(3.2) == (0.0, math.inf)


def test_an_estimate_at_the_end_of_the_range_is_its_own_limit():
    one = curve(lambda x: x**2, lambda x: 2 * x, [0, 1, 3], bounds=(0.0, np.inf), complete=(1, 0))
    assert one.limits(2.0) == pytest.approx((0.0, 2.0))
    assert math.isnan(one.tangent())


def test_the_first_crossing_counts():
    one = curve(np.abs, np.sign, [-1, 0, 1, 2, 3])
    rise = np.array([1.0, 0.0, 4.0, 1.0, 9.0])
    slope = np.zeros(5)
    bumpy = ProfileCurve("b", Scale(), 0.0, (-9.0, 9.0), one.x, rise, slope, 1.0)
    assert 0 < bumpy.limits(1.5)[1] < 1


def test_the_table_is_tidy():
    found = profile(parabola(), parabola(name="b")).table
    assert list(found) == ["parameter", "value", "zeta", "deviance"]
    assert len(found) == 14
    assert (np.diff(found["value"][:7]) > 0).all()
    np.testing.assert_allclose(found["deviance"], 100 + found["zeta"] ** 2)


UNDEFINED = ProfileCurve(
    "corr",
    Scale(np.sin),
    0.0,
    (-np.pi / 2, np.pi / 2),
    *([np.empty(0)] * 3),
    0.0,
    notes=("it has no estimate.",),
)


def test_a_parameter_without_an_estimate_has_its_range_and_no_rows():
    found = profile(UNDEFINED)
    assert list(found.confint().loc["corr"]) == [-1.0, 1.0]
    assert math.isnan(found.estimates["corr"])
    assert found.table.empty
    assert list(found.table) == ["parameter", "value", "zeta", "deviance"]


def test_intervals_beyond_the_profile_are_refused():
    with pytest.raises(FitError) as error:
        profile(parabola(), prob=0.9).confint(0.95)
    assert str(error.value) == (
        "the profile reaches out to intervals of prob=0.9, got prob=0.95: make it with prob=0.95."
    )
    with pytest.raises(FitError, match="`prob` must lie between 0 and 1, got 95"):
        profile(parabola()).confint(95)


def test_it_prints_what_was_done_then_the_numbers_then_how_far_to_trust_them():
    found = profile(parabola(), UNDEFINED, general_notes=("By ML.",))
    assert str(found).splitlines() == [
        "Profile likelihood",
        "  deviance 100.00; 95 % profile likelihood intervals",
        "",
        "      estimate  lower  upper",
        "a         3.00   2.02   3.98",
        "corr            -1.00   1.00",
        "",
        "By ML.",
        "corr: it has no estimate.",
    ]
    assert repr(found) == str(found)
    assert "80 % profile likelihood intervals" in str(profile(parabola(), prob=0.8))
    assert found.to_frame().loc["a", "upper"] == pytest.approx(3 + stats.norm.ppf(0.975) / 2)


def test_a_plot_has_a_panel_for_each_parameter_that_has_a_profile():
    found = profile(parabola(), UNDEFINED, parabola(name="b"))
    axes = found.plot()
    assert [one.get_title(loc="left") for one in axes] == ["a", "b"]
    (only,) = found.plot("b")
    lines = [
        line for line in only.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 9
    ]
    x, zeta = lines[0].get_data()
    np.testing.assert_allclose(zeta, (np.asarray(x) - MEAN) / SE, atol=1e-12)
    assert (np.diff(x) >= 0).all()
    (tangent,) = [line for line in only.lines if line.get_linestyle() == "--"]
    x, zeta = map(np.asarray, tangent.get_data())
    np.testing.assert_allclose(zeta, (x - MEAN) / SE)


def test_it_draws_on_given_axes():
    import matplotlib.pyplot as plt

    figure, given = plt.subplots(1, 2)
    found = profile(parabola(), parabola(name="b"))
    assert list(found.plot(ax=given)) == list(given)
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(RanefError) as error:
        found.plot(["a"], ax=given)
    assert str(error.value) == (
        "`ax` must hold one axes for each panel, 1 in all (a), but it holds 2."
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("c", "the profile has no parameter 'c'. Known names: `a`, `corr`."),
        (["corr"], "`corr` has no profile to draw: it has no estimate."),
        ([], "there is no profile to draw."),
    ],
)
def test_what_cannot_be_drawn_is_said(names, message):
    with pytest.raises(FitError) as error:
        profile(parabola(), UNDEFINED).plot(names)
    assert str(error.value) == message


def test_a_plot_of_intervals_that_are_too_wide_is_refused():
    with pytest.raises(FitError, match="reaches out"):
        profile(parabola(), prob=0.9).plot(prob=0.95)


def test_confint_is_a_frame_by_parameter():
    found = profile(parabola()).confint()
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["lower", "upper"]
    assert list(found.index) == ["a"]
