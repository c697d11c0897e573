from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import FillBetweenPolyCollection, LineCollection, PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy import stats

from ranef.errors import DataError, RanefError
from ranef.plots.canvas import ACCENT, TINT
from ranef.plots.comparisons import (
    _ladder,
    _spread,
    elpd,
    group_differences,
    posterior_and_prior,
    sensitivity,
)

pytestmark = pytest.mark.filterwarnings("error")

MINUS = "\N{MINUS SIGN}"
SCALES = np.geomspace(0.25, 4.0, 17)


@pytest.fixture(autouse=True)
def _no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


def factors(models: dict[str, object], mcse: float = 0.0) -> pd.DataFrame:
    parts = [
        pd.DataFrame({"model": name, "scale": SCALES, "log_bf": log_bf, "mcse": mcse})
        for name, log_bf in models.items()
    ]
    return pd.concat(parts, ignore_index=True)


SLEEP = {"intercepts": -4.0 + np.log(SCALES), "slopes": 0.0 * SCALES, "full": -0.6 * SCALES}

# elpd of sleepstudy's subjects, each left out (Reaction ~ Days + ...)
MODELS = pd.DataFrame(
    {
        "model": ["(Days | Subject)", "no random effects", "(Days || Subject)", "(1 | Subject)"],
        "elpd": [-885.88, -958.85, -885.05, -904.54],
        "se": [25.6, 24.0, 25.7, 20.0],
        "elpd_diff": [-0.83, -73.8, 0.0, -19.49],
        "se_diff": [0.6, 20.0, 0.0, 9.0],
    }
)


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def curves(axes: Axes) -> list[np.ndarray]:
    return [line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 2]


def segments(axes: Axes) -> list[np.ndarray]:
    return [np.array(c.get_segments()) for c in axes.collections if isinstance(c, LineCollection)]


def bands(axes: Axes) -> list[FillBetweenPolyCollection]:
    return [c for c in axes.collections if isinstance(c, FillBetweenPolyCollection)]


def assert_nothing_clipped(figure: Figure) -> None:
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert figure.bbox.x0 - 1 <= box.x0
        assert figure.bbox.y0 - 1 <= box.y0
        assert box.x1 <= figure.bbox.x1 + 1
        assert box.y1 <= figure.bbox.y1 + 1


def assert_texts_apart(axes: Axes) -> None:
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    for a, b in itertools.combinations(boxes, 2):
        assert not a.shrunk(0.98, 0.7).overlaps(b.shrunk(0.98, 0.7))


# --------------------------------------------------------------------------------- sensitivity


def test_one_line_a_model_named_at_its_end() -> None:
    axes = sensitivity(factors(SLEEP))
    assert texts(axes) == ["intercepts", "full", "slopes"]  # from the bottom
    order = ["intercepts", "full", "slopes"]
    for line, name in zip(curves(axes), order, strict=True):
        np.testing.assert_allclose(line, np.column_stack([SCALES, SLEEP[name]]))
    colours = [line.get_color() for line in axes.lines if len(line.get_xdata()) > 2]
    assert [text.get_color() for text in axes.texts] == colours
    assert len(set(colours)) == 3
    assert axes.get_ylabel() == "Bayes factor\nagainst slopes"
    assert axes.get_xlabel() == "scale of the priors of all random-effect sds"
    assert_nothing_clipped(axes.figure)


def test_the_order_of_the_rows_does_not_matter() -> None:
    table = factors(SLEEP)
    shuffled = table.sample(frac=1.0, random_state=1)
    for a, b in zip(curves(sensitivity(table)), curves(sensitivity(shuffled)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_axes_are_marked_in_fractions() -> None:
    axes = sensitivity(factors(SLEEP))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert dict(zip(names, axes.get_xticks(), strict=True)) == {
        "1/4": 0.25,
        "1/2": 0.5,
        "1": 1.0,
        "2": 2.0,
        "4": 4.0,
    }
    assert axes.get_xscale() == "log"
    for label, place in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True):
        top, _, bottom = label.get_text().partition("/")
        assert np.exp(place) == pytest.approx(float(top) / float(bottom or 1))
    low, high = axes.get_ylim()
    assert low < -5.4
    assert np.log(3) < high < 2 * np.log(3)


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (-0.6, 0.6, ["1/3", "1", "3"]),
        (-2.1, 1.2, ["1/100", "1/30", "1/10", "1/3", "1", "3", "10"]),
        (-5.5, 0.5, ["$10^{-5}$", "1/10000", "1/1000", "1/100", "1/10", "1"]),
        (-41.0, 3.0, ["$10^{-40}$", "$10^{-30}$", "$10^{-20}$", "$10^{-10}$", "1"]),
        (-5000.0, 3.0, None),
    ],
)
def test_marks_are_at_their_values(low: float, high: float, names: list[str] | None) -> None:
    found = _ladder(low, high)
    assert len(found) <= 10
    if names is not None:
        assert list(found.values()) == names
    for place, name in found.items():
        number = name.removeprefix("$10^{").removesuffix("}$")
        top, _, bottom = number.partition("/")
        power = float(number) if "$" in name else np.log10(float(top) / float(bottom or 1))
        assert place / np.log(10) == pytest.approx(power)


def test_undecided_factors_are_shaded() -> None:
    axes = sensitivity(factors(SLEEP))
    (shade,) = axes.patches
    box = shade.get_extents().transformed(axes.transData.inverted())
    assert (box.y0, box.y1) == pytest.approx((-np.log(3), np.log(3)))


def test_bands_are_two_errors_wide_where_a_line_does_not_hide_them() -> None:
    table = factors(SLEEP)
    table.loc[table["model"] == "full", "mcse"] = 0.1
    table.loc[table["model"] == "intercepts", "mcse"] = 0.01
    (band,) = bands(sensitivity(table))
    (path,) = band.get_paths()
    for scale, y in zip(SCALES, SLEEP["full"], strict=True):
        ends = path.vertices[np.isclose(path.vertices[:, 0], scale), 1]
        assert (ends.min(), ends.max()) == pytest.approx((y - 0.2, y + 0.2))


def test_models_out_of_reach_are_named_and_not_drawn() -> None:
    far = {f"m{i}": -20.0 - i for i in range(5)}
    axes = sensitivity(factors(SLEEP | far))
    assert len(curves(axes)) == 3
    assert texts(axes)[-1] == "below 1/1000 throughout: m0, m1, m2 and 2 more"
    assert axes.get_ylim()[0] > np.log(1 / 3000)
    axes = sensitivity(factors(SLEEP | {"far": -20.0}))
    assert texts(axes)[-1] == "below 1/1000 throughout: far"


def test_all_models_are_drawn_where_one_only_is_within_reach() -> None:
    axes = sensitivity(factors({"best": 0.0, "far": -50.0, "further": -90.0}))
    assert texts(axes) == ["further", "far", "best"]
    low, _ = axes.get_ylim()
    assert low < -90


def test_a_line_that_leaves_the_axes_is_named_at_their_edge() -> None:
    axes = sensitivity(factors({"best": 0.0, "steep": -3.0 * SCALES**2, "b": -1.0}))
    low, high = axes.get_ylim()
    assert np.log(1 / 3000) < low < -6
    for name in axes.texts:
        assert low <= name.xy[1] <= high


def test_names_are_apart_where_lines_are_not() -> None:
    close = {f"(x{i} || g) + (1 | h)": -0.01 * i for i in range(12)}
    axes = sensitivity(factors(close))
    assert_texts_apart(axes)
    assert_nothing_clipped(axes.figure)


def test_places_are_spread_no_further_than_needed() -> None:
    np.testing.assert_allclose(_spread(np.array([0.0, 40.0, 90.0]), 10.0), [0.0, 40.0, 90.0])
    rng = np.random.default_rng(5)
    places = np.sort(rng.uniform(0, 60, size=6))
    spread = _spread(places, 12.0)
    assert np.diff(spread).min() > 12.0 - 1e-9
    for other in rng.uniform(-20, 80, size=(20_000, 6)):
        other.sort()
        if np.diff(other).min() >= 12.0:
            assert np.sum((other - places) ** 2) >= np.sum((spread - places) ** 2)


def test_the_best_is_anonymous_where_no_line_is_level() -> None:
    axes = sensitivity(factors({"a": -1.0, "b": -2.0}))
    assert axes.get_ylabel() == "Bayes factor\nagainst the best"


# --------------------------------------------------------------------------- group differences

GROUPS = pd.DataFrame({"level": [308, 309, 310, 330], "difference": [1.0, -0.5, 6.0, 0.25]})


def test_groups_stand_in_the_order_of_their_differences() -> None:
    axes = group_differences(GROUPS, names=("slopes", "intercepts"))
    (dots,) = (c for c in axes.collections if isinstance(c, PathCollection))
    ordered = [-0.5, 0.25, 1.0, 6.0]
    np.testing.assert_allclose(dots.get_offsets(), np.column_stack([ordered, range(4)]))
    assert [label.get_text() for label in axes.get_yticklabels()] == ["309", "330", "308", "310"]
    (lines,) = segments(axes)
    np.testing.assert_allclose(lines[:, 0], np.column_stack([np.zeros(4), range(4)]))
    np.testing.assert_allclose(lines[:, 1], np.column_stack([ordered, range(4)]))
    colours = [to_hex(colour) for colour in dots.get_facecolor()]
    assert colours == [TINT.lower(), *[ACCENT.lower()] * 3]
    assert axes.get_title(loc="left") == "slopes against intercepts, 4 groups"
    assert axes.get_xlabel() == "difference in elpd\n(positive: slopes predicts better)"
    assert_nothing_clipped(axes.figure)


def test_the_sum_and_what_it_owes_to_one_group() -> None:
    # 6.75, with a sample sd of 2.9536 over 4 groups
    assert texts(group_differences(GROUPS)) == ["sum 6.8 (se 5.9); without 310: 0.8"]
    turned = GROUPS.assign(difference=[1.0, -5.0, 0.5, -0.25])
    assert texts(group_differences(turned)) == [f"sum {MINUS}3.8 (se 5.5); without 309: 1.2"]
    assert texts(group_differences(GROUPS[:1])) == ["sum 1.0"]


def test_models_without_names_are_the_first_and_the_second() -> None:
    axes = group_differences(GROUPS[:1])
    assert axes.get_title(loc="left") == "first model against second model, 1 group"


def test_many_groups_and_long_names_keep_within_the_figure() -> None:
    rng = np.random.default_rng(2)
    many = pd.DataFrame({"level": range(300), "difference": rng.normal(size=300)})
    names = ("(Days + Experience || Subject) + (1 | School)", "(Days | Subject:School) + (1 | A)")
    axes = group_differences(many, names=names)
    assert axes.get_ylabel() == "300 levels"
    assert_nothing_clipped(axes.figure)
    few = pd.DataFrame({"level": [f"a long name of a group {i}" for i in range(3)]})
    assert_nothing_clipped(group_differences(few.assign(difference=1.0), names=names).figure)


# ---------------------------------------------------------------------------------------- elpd


def test_models_stand_in_the_order_of_elpd() -> None:
    axes = elpd(MODELS)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [MODELS["model"][i] for i in (1, 3, 0, 2)]
    (dots,) = (line for line in axes.lines if line.get_marker() == "o")
    difference, se = np.array([-73.8, -19.49, -0.83, 0.0]), np.array([20.0, 9.0, 0.6, 0.0])
    np.testing.assert_allclose(dots.get_xydata(), np.column_stack([difference, range(4)]))
    for found, reach in zip(segments(axes), (2.0, 1.0), strict=True):
        np.testing.assert_allclose(found[:, 0, 0], difference - reach * se)
        np.testing.assert_allclose(found[:, 1, 0], difference + reach * se)
    assert texts(axes) == [
        f"{MINUS}73.8 (se 20.0)",
        f"{MINUS}19.5 (se 9.0)",
        f"{MINUS}0.8 (se 0.6)",
    ]
    expected = f"difference in elpd to (Days || Subject),\nwhose elpd is {MINUS}885.0 (se 25.7)"
    assert axes.get_xlabel() == expected
    assert_nothing_clipped(axes.figure)
    assert_texts_apart(axes)


def test_one_model_is_the_best() -> None:
    axes = elpd(MODELS[2:3])
    assert texts(axes) == []


# ----------------------------------------------------------------------- posterior and prior


def densities(value: np.ndarray, posterior: object, prior: object) -> pd.DataFrame:
    return pd.DataFrame(
        {"value": value, "posterior": posterior.pdf(value), "prior": prior.pdf(value)}
    )


@pytest.fixture
def correlation() -> pd.DataFrame:
    value = np.linspace(-1, 1, 402)  # 0 is between two of them
    return densities(value, stats.beta(9, 7, -1, 2), stats.beta(2, 2, -1, 2))


def test_both_densities_are_drawn(correlation: pd.DataFrame) -> None:
    axes = posterior_and_prior(correlation, name="correlation")
    posterior, prior = curves(axes)
    np.testing.assert_allclose(posterior, correlation[["value", "posterior"]])
    np.testing.assert_allclose(prior, correlation[["value", "prior"]])
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["posterior", "prior"]
    assert axes.get_xlabel() == "correlation"
    assert axes.get_ylim()[0] == 0.0
    assert_nothing_clipped(axes.figure)


def test_the_densities_at_the_null_value_are_marked(correlation: pd.DataFrame) -> None:
    axes = posterior_and_prior(correlation)
    points = [line.get_xydata()[0] for line in axes.lines if line.get_marker() == "o"]
    posterior, prior = stats.beta(9, 7, -1, 2).pdf(0), stats.beta(2, 2, -1, 2).pdf(0)
    np.testing.assert_allclose(points, [[0.0, posterior], [0.0, prior]], rtol=1e-4)
    assert texts(axes) == [f"at 0, posterior / prior = {posterior / prior:.2g}"]
    assert texts(posterior_and_prior(correlation, null=None)) == []
    assert texts(posterior_and_prior(correlation, null=2.0)) == []
    assert texts(posterior_and_prior(correlation, null=0.5))[0].startswith("at 0.5, posterior /")


def test_an_sd_starts_at_zero_though_its_first_value_does_not() -> None:
    value = np.linspace(0, 10, 201)[1:]
    axes = posterior_and_prior(densities(value, stats.gamma(2), stats.expon(scale=3)))
    assert axes.get_xlim() == (0.0, 10.0)
    assert texts(axes)[0].startswith("at 0, posterior / prior = ")
    value = np.linspace(4, 10, 201)
    axes = posterior_and_prior(densities(value, stats.gamma(2), stats.expon(scale=3)))
    assert axes.get_xlim() == (4.0, 10.0)
    assert texts(axes) == []


def test_a_prior_with_a_sharp_peak_does_not_flatten_the_posterior() -> None:
    value = np.linspace(0, 10, 501)
    axes = posterior_and_prior(densities(value, stats.norm(4, 1), stats.expon(scale=0.01)))
    assert axes.get_ylim()[1] == pytest.approx(1.08 * 2.0 * stats.norm.pdf(0))
    axes = posterior_and_prior(densities(value, stats.norm(4, 1), stats.norm(4, 0.7)))
    assert axes.get_ylim()[1] == pytest.approx(1.08 * stats.norm.pdf(0) / 0.7)


# ------------------------------------------------------------------------------- what all share

DRAWN: dict[Callable[..., Axes], pd.DataFrame] = {
    sensitivity: factors(SLEEP),
    group_differences: GROUPS,
    elpd: MODELS,
    posterior_and_prior: densities(SCALES, stats.gamma(2), stats.expon()),
}


@pytest.mark.parametrize(("draw", "table"), DRAWN.items())
def test_given_axes_are_drawn_on(draw: Callable[..., Axes], table: pd.DataFrame) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    assert draw(table, ax=right) is right
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]
    assert_nothing_clipped(figure)
    with pytest.raises(RanefError, match=r"^`ax` must hold one axes for each panel, 1 in all"):
        draw(table, ax=[left, right])


@pytest.mark.parametrize(("draw", "table"), DRAWN.items())
def test_tables_that_cannot_be_drawn(draw: Callable[..., Axes], table: pd.DataFrame) -> None:
    columns = list(table.columns)
    last = table.astype({columns[-1]: float})
    last.iloc[-1, -1] = np.nan
    with pytest.raises(DataError) as error:
        draw(last)
    where = table.iloc[-1, 0]
    assert str(error.value) == (
        f"The column `{columns[-1]}` must be finite numbers; it is not for `{where}`."
    )


def test_matplotlib_reads_no_name_as_mathematics() -> None:
    table = factors({"$a^$": 0.0, "b$_$": -1.0})
    assert_nothing_clipped(sensitivity(table).figure)
    groups = GROUPS.assign(level=["$^$", "$_$", "a", "b"])
    assert_nothing_clipped(group_differences(groups, names=("$a^$", "b$_$")).figure)
    assert_nothing_clipped(elpd(MODELS.assign(model=["$^$", "$_$", "$x_$", "b"])).figure)
