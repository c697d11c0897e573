from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from statistics import NormalDist

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

from ranef.errors import DataError, RanefError
from ranef.plots.by_group.arrows import NO_SD
from ranef.plots.random_effects import caterpillar, shrinkage

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


# Five of R's conditional modes of lmer(Reaction ~ Days + (Days | Subject), sleepstudy).
INTERCEPT = [2.2585655, -40.3985802, -38.960249, 23.6905005, 22.2602046]
DAYS = [9.198972, -8.6197027, -5.4488794, -4.814332, -3.0698949]
SUBJECTS = ["308", "309", "310", "330", "331"]


def effects(
    levels: list[str], values: dict[str, list[float]], term: str = "Subject", sd: float = 1.0
) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"term": term, "level": levels, "coef": coef, "estimate": v, "sd": sd})
        for coef, v in values.items()
    ]
    table = pd.concat(frames, ignore_index=True)
    return table.assign(
        lower=table["estimate"] - 1.5 * table["sd"], upper=table["estimate"] + 2 * table["sd"]
    )


@pytest.fixture
def sleep() -> pd.DataFrame:
    return effects(SUBJECTS, {"Intercept": INTERCEPT, "Days": DAYS}, sd=2.0)


def many(m: int, coefs: tuple[str, ...] = ("Intercept",), term: str = "g") -> pd.DataFrame:
    rng = np.random.default_rng(m)
    levels = [f"{term}{i}" for i in range(m)]
    return effects(levels, {coef: rng.normal(size=m).tolist() for coef in coefs}, term)


def groups(m: int = 12, coefs: tuple[str, ...] = ("Intercept", "Days")) -> pd.DataFrame:
    rng = np.random.default_rng(7)
    levels = [f"s{i}" for i in range(m)]
    frames = []
    for j, coef in enumerate(coefs):
        own = 10.0 * j + rng.normal(size=m)
        frame = pd.DataFrame({"term": "Subject", "level": levels, "coef": coef, "own": own})
        frames.append(frame.assign(model=10.0 * j + 0.6 * (own - 10.0 * j), population=10.0 * j))
    return pd.concat(frames, ignore_index=True).assign(n=8)


def dots(axes: Axes) -> np.ndarray:
    (line,) = (line for line in axes.lines if line.get_marker() == "o")
    return np.column_stack(line.get_data())


def intervals(axes: Axes) -> np.ndarray:
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    return np.array(lines.get_segments())


def rings(axes: Axes) -> np.ndarray:
    (points,) = (c for c in axes.collections if isinstance(c, PathCollection))
    return np.asarray(points.get_offsets())


def arrows(axes: Axes) -> Quiver:
    (quiver,) = (c for c in axes.collections if isinstance(c, Quiver))
    return quiver


def row_names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def assert_nothing_clipped(figure: Figure) -> None:
    figure.draw_without_rendering()
    whole = figure.bbox
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box is not None
        assert box.x0 >= whole.x0 - 1
        assert box.y0 >= whole.y0 - 1
        assert box.x1 <= whole.x1 + 1
        assert box.y1 <= whole.y1 + 1


# caterpillar: what is drawn, and where


def test_one_panel_a_coefficient_with_points_at_the_estimates(sleep: pd.DataFrame) -> None:
    axes = caterpillar(sleep)
    assert [a.get_xlabel() for a in axes] == ["Intercept", "Days"]
    order = [1, 2, 0, 4, 3]  # by the intercepts, ascending
    np.testing.assert_allclose(
        dots(axes[0]), np.column_stack([np.array(INTERCEPT)[order], range(5)])
    )
    np.testing.assert_allclose(dots(axes[1]), np.column_stack([np.array(DAYS)[order], range(5)]))
    assert row_names(axes[0]) == ["309", "310", "308", "331", "330"]
    assert row_names(axes[1]) == []


def test_intervals_end_at_lower_and_upper(sleep: pd.DataFrame) -> None:
    for axes, values in zip(caterpillar(sleep), (INTERCEPT, DAYS), strict=True):
        estimate = np.array(values)[[1, 2, 0, 4, 3]]
        ends = intervals(axes)
        np.testing.assert_allclose(ends[:, 0, 0], estimate - 3.0)
        np.testing.assert_allclose(ends[:, 1, 0], estimate + 4.0)
        np.testing.assert_allclose(ends[:, :, 1], np.arange(5)[:, None].repeat(2, axis=1))


def test_a_line_marks_zero(sleep: pd.DataFrame) -> None:
    for axes in caterpillar(sleep):
        vertical = [line for line in axes.lines if line.get_marker() == "None"]
        assert [list(line.get_xdata()) for line in vertical] == [[0.0, 0.0]]


def test_order_each_ranks_every_panel_by_its_own_estimates(sleep: pd.DataFrame) -> None:
    axes = caterpillar(sleep, order="each")
    np.testing.assert_allclose(dots(axes[1])[:, 0], np.sort(DAYS))
    assert row_names(axes[0]) == ["309", "310", "308", "331", "330"]
    assert row_names(axes[1]) == ["309", "310", "330", "331", "308"]


def test_order_level_reads_from_the_top_in_the_order_of_the_table(sleep: pd.DataFrame) -> None:
    axes = caterpillar(sleep, order="level")
    assert row_names(axes[0])[::-1] == SUBJECTS
    np.testing.assert_allclose(dots(axes[1])[::-1, 0], DAYS)


def test_the_order_of_the_rows_of_the_table_does_not_mix_levels(sleep: pd.DataFrame) -> None:
    mixed = pd.concat([sleep.iloc[:5], sleep.iloc[5:].iloc[::-1]])
    for straight, shuffled in zip(caterpillar(sleep), caterpillar(mixed), strict=True):
        np.testing.assert_array_equal(dots(straight), dots(shuffled))


def test_quantile_plot_stands_at_normal_quantiles_of_the_ranks(sleep: pd.DataFrame) -> None:
    axes = caterpillar(sleep, kind="qq")
    quantiles = [NormalDist().inv_cdf(p) for p in (0.1, 0.3, 0.5, 0.7, 0.9)]
    for panel, values in zip(axes, (INTERCEPT, DAYS), strict=True):
        np.testing.assert_allclose(
            dots(panel), np.column_stack([np.sort(values), quantiles]), atol=1e-12
        )
        np.testing.assert_allclose(intervals(panel)[:, 0, 1], quantiles, atol=1e-12)
        np.testing.assert_allclose(intervals(panel)[:, 0, 0], np.sort(values) - 3.0)
    assert axes[0].get_ylabel() == "standard normal quantile"


def test_all_terms_are_drawn_unless_one_is_named() -> None:
    table = pd.concat([many(24, term="plate"), many(6, ("Intercept", "x"), term="sample")])
    axes = caterpillar(table)
    titles = [a.get_title(loc="left") for a in axes]
    assert titles == ["plate, 24 levels", "sample, 6 levels", ""]
    assert [len(dots(a)) for a in axes] == [24, 6, 6]
    assert len(caterpillar(table, term="sample")) == 2


def test_the_interval_is_named_once_a_term(sleep: pd.DataFrame) -> None:
    axes = caterpillar(sleep, interval_label="95 % HPD")
    assert [texts(a) for a in axes] == [["95 % HPD"], []]
    assert [texts(a) for a in caterpillar(sleep)] == [[], []]


@pytest.mark.parametrize(("m", "named"), [(60, True), (61, False)])
def test_levels_are_named_up_to_sixty_and_counted_beyond(m: int, named: bool) -> None:
    (axes,) = caterpillar(many(m))
    assert len(row_names(axes)) == (m if named else 0)
    assert axes.get_ylabel() == ("" if named else f"{m} levels")


def test_level_names_do_not_overlap() -> None:
    (axes,) = caterpillar(many(60))
    axes.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert all(low.y1 <= high.y0 for low, high in itertools.pairwise(boxes))


def test_a_new_figure_grows_with_the_levels() -> None:
    heights = [caterpillar(many(m))[0].figure.get_figheight() for m in (6, 30, 60)]
    assert heights[0] < heights[1] < heights[2]


@pytest.mark.parametrize("kind", ["interval", "qq"])
def test_nothing_is_clipped(kind: str) -> None:
    long = [f"Department of Veterinary Epidemiology, clinic no. {i}" for i in range(9)]
    names = [*long, "Ærøskøbing Žižkov Αθήνα", "from $5 to $10_x^2"]
    values = np.linspace(-1.0, 1.0, len(names)).tolist()
    coefs = {"Intercept": values, "poly(temperature, 2)1": values, "C(town)[T.Åre]": values}
    axes = caterpillar(
        effects(names, coefs), kind=kind, interval_label="mode ± 1.96 conditional sd"
    )
    assert_nothing_clipped(axes[0].figure)


def test_names_are_written_as_they_are_and_cut_in_the_middle() -> None:
    names = ["from $5 to $10_x^2", "Department of Veterinary Epidemiology, clinic no. 12"]
    (axes,) = caterpillar(effects(names, {"Intercept": [0.0, 1.0]}))
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == [names[0], "Department of V…y, clinic no. 12"]
    assert not any(label.get_parse_math() for label in labels)


@pytest.mark.parametrize("kind", ["interval", "qq"])
def test_effects_that_are_all_zero_can_be_drawn(kind: str) -> None:
    table = effects(list("ABC"), {"Intercept": [0.0, 0.0, 0.0]}, sd=0.0)
    (axes,) = caterpillar(table, kind=kind)
    axes.figure.draw_without_rendering()
    np.testing.assert_array_equal(dots(axes)[:, 0], 0.0)


# shrinkage: what is drawn, and where


def test_one_coefficient_gives_rows_sorted_by_the_own_estimate() -> None:
    table = groups(coefs=("Intercept",))
    axes = shrinkage(table)
    order = np.argsort(table["own"].to_numpy())
    own, model = table["own"].to_numpy()[order], table["model"].to_numpy()[order]
    np.testing.assert_allclose(rings(axes), np.column_stack([own, range(12)]))
    np.testing.assert_allclose(dots(axes), np.column_stack([model, range(12)]))
    np.testing.assert_allclose(intervals(axes)[:, :, 0], np.column_stack([own, model]))
    assert row_names(axes) == [f"s{i}" for i in order]
    assert axes.get_title(loc="left") == "Subject, 12 levels"


def test_one_coefficient_has_bands_that_hold_half_and_95_percent() -> None:
    axes = shrinkage(groups(), coefs="Days", covariance=np.array([[4.0]]))
    ends = [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
    normal = NormalDist(10.0, 2.0)
    expected = [(normal.inv_cdf(p), normal.inv_cdf(1 - p)) for p in (0.25, 0.025)]
    np.testing.assert_allclose(ends, expected)
    assert texts(axes) == ["50 %", "95 %"]


def test_two_coefficients_give_arrows_from_own_to_model() -> None:
    table = groups()
    axes = shrinkage(table)
    wide = {name: table.pivot(index="level", columns="coef", values=name) for name in table}
    names = list(dict.fromkeys(table["level"]))
    own, model = (
        wide[name].loc[names, ["Intercept", "Days"]].to_numpy() for name in ("own", "model")
    )
    quiver = arrows(axes)
    np.testing.assert_allclose(quiver.XY, own)
    np.testing.assert_allclose(quiver.XY + np.column_stack([quiver.U, quiver.V]), model)
    np.testing.assert_allclose(rings(axes), own)
    np.testing.assert_allclose(dots(axes), model)
    (centre,) = (line for line in axes.lines if line.get_marker() == "D")
    assert (list(centre.get_xdata()), list(centre.get_ydata())) == ([0.0], [10.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Intercept", "Days")
    assert sorted(filter(None, texts(axes))) == sorted(names)


def test_a_table_that_goes_level_by_level_draws_the_same() -> None:
    table = groups()
    by_level = table.iloc[np.arange(24).reshape(2, 12).T.ravel()]
    straight, mixed = arrows(shrinkage(table)), arrows(shrinkage(by_level))
    np.testing.assert_array_equal(straight.XY, mixed.XY)
    np.testing.assert_array_equal(straight.U, mixed.U)


def test_arrows_are_drawn_in_the_units_of_the_axes() -> None:
    quiver = arrows(shrinkage(groups()))
    assert (quiver.angles, quiver.scale_units, quiver.scale) == ("xy", "xy", 1)


@pytest.mark.parametrize(
    "covariance",
    [
        np.array([[4.0, -1.2], [-1.2, 0.9]]),
        np.array([[4.0, 1.2], [1.2, 0.9]]),
        np.array([[0.9, 1.2], [1.2, 4.0]]),
        np.array([[0.9, -1.2], [-1.2, 4.0]]),
    ],
)
def test_ellipses_lie_at_the_mahalanobis_distance_of_their_share(covariance: np.ndarray) -> None:
    axes = shrinkage(groups(), covariance=covariance)
    contours = [line for line in axes.lines if line.get_marker() == "None"]
    # Quantiles 0.5 and 0.95 of the chi-squared distribution with 2 degrees of freedom.
    for line, quantile in zip(contours, (1.386294, 5.991465), strict=True):
        away = np.column_stack(line.get_data()) - [0.0, 10.0]
        distance = np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away)
        np.testing.assert_allclose(distance, quantile, rtol=1e-6)
    assert {"50 %", "95 %"} <= set(texts(axes))


def test_a_covariance_frame_is_read_by_name() -> None:
    names = ["x", "Days", "Intercept"]
    frame = pd.DataFrame(np.diag([9.0, 1.0, 4.0]), index=names, columns=names)
    axes = shrinkage(groups(), covariance=frame)
    contour = [line for line in axes.lines if line.get_marker() == "None"][1]
    reach = np.sqrt(5.991465)
    np.testing.assert_allclose(np.max(contour.get_xdata()), 2.0 * reach, rtol=1e-4)
    np.testing.assert_allclose(np.max(contour.get_ydata()) - 10.0, 1.0 * reach, rtol=1e-4)


@pytest.mark.parametrize(
    "covariance",
    [np.zeros((2, 2)), np.array([[4.0, 2.0], [2.0, 1.0]]), np.array([[1.0, -1.0], [-1.0, 1.0]])],
)
def test_a_singular_covariance_draws(covariance: np.ndarray) -> None:
    axes = shrinkage(groups(), covariance=covariance)
    assert_nothing_clipped(axes.figure)
    assert ("50 %" in texts(axes)) == bool(covariance.any())
    said = [" ".join(text.split()) for text in texts(axes)]
    assert (NO_SD in said) == (not covariance.any())
    if not covariance.any():
        return
    contour = [line for line in axes.lines if line.get_marker() == "None"][1]
    spread = np.ptp(np.column_stack(contour.get_data()), axis=0)
    np.testing.assert_allclose(spread, 2 * np.sqrt(5.991465 * np.diag(covariance)), rtol=1e-4)


def test_a_zero_variance_draws_rows_without_bands() -> None:
    table = groups(coefs=("Intercept",)).assign(model=0.0)
    axes = shrinkage(table, covariance=np.zeros((1, 1)))
    assert_nothing_clipped(axes.figure)
    assert list(axes.patches) == []
    np.testing.assert_array_equal(dots(axes)[:, 0], 0.0)


@pytest.mark.parametrize("coefs", ["Intercept", ("Intercept", "Days")])
@pytest.mark.parametrize(
    ("lost", "note"),
    [
        (1, "without an estimate of its own: s0"),
        (3, "without an estimate of its own: s0, s1, s2"),
        (7, "without an estimate of its own: s0, s1, s2, s3 and 3 more"),
    ],
)
def test_groups_without_an_own_estimate_are_named_not_drawn(
    coefs: str | tuple[str, ...], lost: int, note: str
) -> None:
    table = groups()
    gone = [f"s{i}" for i in range(lost)]
    table.loc[table["level"].isin(gone), "own"] = np.nan
    axes = shrinkage(table, coefs=coefs)
    assert note in texts(axes)
    assert len(rings(axes)) == len(dots(axes)) == 12 - lost
    assert not set(gone) & {*texts(axes), *row_names(axes)}
    assert axes.get_title(loc="left") == "Subject, 12 levels"


def test_a_group_with_one_own_coefficient_of_two_has_a_stroke_for_a_ring() -> None:
    table = groups()
    table.loc[(table["level"] == "s4") & (table["coef"] == "Days"), "own"] = np.nan
    mine = table[table["level"] == "s4"].set_index("coef")
    assert len(dots(shrinkage(table, coefs="Intercept"))) == 12
    axes = shrinkage(table)
    assert (len(dots(axes)), len(rings(axes))) == (12, 11)
    (stroke,) = (line for line in axes.lines if line.get_marker() == "|")
    expected = [[mine.loc["Intercept", "own"]], [mine.loc["Days", "model"]]]
    np.testing.assert_allclose(np.array(stroke.get_data()), expected)
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys[-1] == "own estimate of one of the two alone"


@pytest.mark.parametrize("coefs", ["Intercept", ("Intercept", "Days")])
def test_no_group_with_an_own_estimate_is_said_and_not_an_error(
    coefs: str | tuple[str, ...],
) -> None:
    axes = shrinkage(groups().assign(own=np.nan), coefs=coefs, covariance=None)
    axes.figure.draw_without_rendering()
    assert texts(axes) == ["no group has an estimate of its own"]


def test_a_far_out_own_estimate_does_not_stretch_the_axes() -> None:
    table = groups()
    usual = shrinkage(table)
    table.loc[(table["level"] == "s4") & (table["coef"] == "Days"), "own"] = 1000.0
    axes = shrinkage(table)
    assert axes.get_ylim()[1] < usual.get_ylim()[1] + 1.0
    assert "own estimate beyond the axes: s4" in texts(axes)
    rows = shrinkage(table, coefs="Days")
    assert "own estimate beyond the axes: s4 (1000)" in texts(rows)
    assert [y for y in rings(axes)[:, 1] if y > axes.get_ylim()[1]] == [1000.0]


def test_the_area_of_a_ring_grows_with_the_observations() -> None:
    table = groups(coefs=("Intercept",))
    table["n"] = table["own"].rank().astype(int)  # rows are sorted by `own`
    axes = shrinkage(table)
    (points,) = (c for c in axes.collections if isinstance(c, PathCollection))
    assert np.all(np.diff(points.get_sizes()) > 0)
    keys = [text.get_text() for text in axes.get_legend().get_texts()]
    assert keys == ["group's own estimate (area: rows)", "model's estimate", "population"]


def test_labels_can_be_asked_for_and_left_out() -> None:
    assert texts(shrinkage(groups(), labels=False)) == []
    some = set(filter(None, texts(shrinkage(groups(40)))))
    own = groups(40).pivot(index="level", columns="coef", values="own")
    assert {own[coef].idxmin() for coef in own} | {own[coef].idxmax() for coef in own} <= some
    assert len(some) <= 8
    assert set(filter(None, texts(shrinkage(groups(40), labels=True)))) == set(own.index)
    assert row_names(shrinkage(groups(), coefs="Days", labels=False)) == []
    assert len(row_names(shrinkage(groups(90), coefs="Days", labels=True))) == 90


def test_the_first_two_coefficients_of_the_first_term_are_the_default() -> None:
    table = pd.concat([groups(coefs=("a", "b", "c")), groups().assign(term="other")])
    axes = shrinkage(table)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    assert axes.get_title(loc="left") == "Subject, 12 levels"
    other = shrinkage(table, term="other", coefs=("Days", "Intercept"))
    assert (other.get_xlabel(), other.get_ylabel()) == ("Days", "Intercept")
    assert other.get_title(loc="left") == "other, 12 levels"


def test_nothing_of_a_shrinkage_plot_is_clipped() -> None:
    table = groups()
    table.loc[table["level"] == "s3", "own"] = np.nan
    table["n"] = [*range(1, 13)] * 2
    table["level"] += " of Ærøskøbing Žižkov"
    for coefs in ("Days", ("Intercept", "Days")):
        covariance = np.eye(1 if isinstance(coefs, str) else 2)
        axes = shrinkage(table, coefs=coefs, covariance=covariance)
        assert_nothing_clipped(axes.figure)


# axes, figures and settings of the user


def test_given_axes_are_drawn_on_and_nothing_else_is_touched(sleep: pd.DataFrame) -> None:
    figure, grid = plt.subplots(2, 2)
    drawn = caterpillar(sleep, ax=grid[0])
    lone = shrinkage(groups(), ax=grid[1, 0])
    assert list(drawn) == list(grid[0])
    assert lone is grid[1, 0]
    assert plt.get_fignums() == [figure.number]
    assert figure.axes == list(grid.ravel())
    assert not grid[1, 1].has_data()
    assert figure.get_layout_engine() is None


def test_several_terms_fill_given_axes_row_by_row() -> None:
    table = pd.concat([many(5, ("a", "b"), "g"), many(3, ("a", "b"), "h")])
    _, grid = plt.subplots(2, 2)
    drawn = caterpillar(table, ax=grid)
    assert [a.get_xlabel() for a in drawn] == ["a", "b", "a", "b"]
    assert [len(dots(a)) for a in grid.ravel()] == [5, 5, 3, 3]


def test_one_axes_is_enough_for_one_panel() -> None:
    _, ax = plt.subplots()
    (drawn,) = caterpillar(many(4), ax=ax)
    assert drawn is ax


def test_a_small_given_axes_counts_the_levels_instead_of_crowding_them() -> None:
    _, ax = plt.subplots(figsize=(4.0, 2.0))
    caterpillar(many(40), ax=ax)
    assert ax.get_ylabel() == "40 levels"


def test_each_call_makes_one_figure_and_keeps_the_settings(sleep: pd.DataFrame) -> None:
    settings = mpl.rcParams.copy()
    caterpillar(sleep)
    shrinkage(groups())
    assert len(plt.get_fignums()) == 2
    assert mpl.rcParams == settings


def test_the_table_is_left_as_it_was(sleep: pd.DataFrame) -> None:
    before, table = sleep.copy(), groups()
    caterpillar(sleep)
    pd.testing.assert_frame_equal(sleep, before)
    shrinkage(table)
    pd.testing.assert_frame_equal(table, groups())


def test_categorical_columns_and_other_level_types_work() -> None:
    table = many(4, ("a", "b")).assign(level=[1, 2, 3, 4] * 2)
    for name in ("term", "coef", "level"):
        table[name] = table[name].astype("category")
    axes = caterpillar(table, order="level")
    assert [a.get_xlabel() for a in axes] == ["a", "b"]
    assert row_names(axes[0]) == ["4", "3", "2", "1"]


def test_matplotlib_loads_with_the_first_plot() -> None:
    code = "import sys, ranef.plots.random_effects; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# errors, with their full texts


def message(error: pytest.ExceptionInfo[RanefError]) -> str:
    return str(error.value)


def test_unknown_kind_and_order(sleep: pd.DataFrame) -> None:
    with pytest.raises(RanefError) as error:
        caterpillar(sleep, kind="intervals")
    assert message(error) == "kind='intervals' is not known. Did you mean `interval`?"
    with pytest.raises(RanefError) as error:
        caterpillar(sleep, order="zzz")
    assert message(error) == ("order='zzz' is not known. Known names: `estimate`, `each`, `level`.")


def test_unknown_and_too_many_coefs() -> None:
    table = groups(coefs=("Intercept", "Days", "sex"))
    with pytest.raises(DataError) as error:
        shrinkage(table, coefs=("Intercept", "days"))
    assert message(error) == ("The term `Subject` has no coefficient `days`. Did you mean `Days`?")
    with pytest.raises(RanefError) as error:
        shrinkage(table, coefs=("Intercept", "Days", "sex"))
    assert message(error) == "`coefs` must name one or two coefficients to draw, not 3."


def test_wrong_number_of_axes(sleep: pd.DataFrame) -> None:
    _, (left, right) = plt.subplots(1, 2)
    with pytest.raises(RanefError) as error:
        caterpillar(sleep, ax=left)
    assert message(error) == (
        "`ax` must hold one axes for each panel, 2 in all (Subject: Intercept, Subject: Days), "
        "but it holds 1."
    )
    with pytest.raises(RanefError) as error:
        shrinkage(groups(), ax=[left, right])
    assert message(error) == (
        "`ax` must hold one axes for each panel, 1 in all (Subject), but it holds 2."
    )
    assert not left.has_data()
