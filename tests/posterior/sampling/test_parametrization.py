"""Which random effects are sampled centred: what the rows of a level are worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.families.family import find_family
from ranef.formula.terms import read_formula
from ranef.posterior.sampling.parametrization import ENOUGH, _choice, _worth, choose


def design_of(text, data, family, **options):
    return build_design(read_formula(text), data, family=family, **options)


def counts(levels, rows, sd, mean, *, slope=0.0):
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    eta = np.log(mean) + sd * rng.normal(size=levels)[g] + slope * rng.normal(size=levels)[g] * x
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)).astype(float), "g": g, "x": x})


def worths(text, data, family):
    family = find_family(family)
    reasons = [choice.reason for choice in choose(design_of(text, data, family), family)]
    return [float(reason.split("worth ")[1].split(" times")[0]) for reason in reasons]


def test_worth_of_one_coefficient_is_information_times_variance():
    information, variance = np.array([0.5, 4.0, 30.0]), 0.7
    after = 1 / (information + 1 / variance)
    got = _worth(np.array([[variance]]), after[:, None, None])
    assert got == pytest.approx(4.0 * variance)


def test_the_worst_coefficient_counts():
    before = np.diag([2.0, 1.0])
    after = np.tile(np.diag([0.1, 0.5]), (5, 1, 1))
    assert _worth(before, after) == pytest.approx(1.0)


def test_effects_that_do_not_vary_are_worth_nothing():
    assert _worth(np.zeros((1, 1)), np.zeros((4, 1, 1))) == 0.0


@pytest.mark.parametrize(("rows", "sd", "mean"), [(20, 0.3, 10), (3, 0.4, 2), (8, 0.2, 5)])
def test_worth_of_counts_is_that_of_their_information(rows, sd, mean):
    found = worths("y ~ 1 + (1 | g)", counts(400, rows, sd, mean), "poisson")
    assert found == pytest.approx([rows * mean * np.exp(sd**2 / 2) * sd**2], rel=0.4)


def test_worth_of_binary_rows_is_that_of_their_information():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(400), 20)
    y = rng.uniform(size=len(g)) < 1 / (1 + np.exp(-0.5 * rng.normal(size=400)[g]))
    found = worths("y ~ 1 + (1 | g)", pd.DataFrame({"y": y * 1.0, "g": g}), "binomial")
    assert found == pytest.approx([20 * 0.25 * 0.25], rel=0.3)


def test_rich_levels_are_centred_and_poor_ones_not():
    for data, centered in ((counts(40, 10, 0.6, 8), True), (counts(50, 3, 0.5, 1), False)):
        family = find_family("poisson")
        (found,) = choose(design_of("y ~ x + (1 | g)", data, family), family)
        assert found.centered is centered
        assert found.label == "g"


def test_a_slope_that_does_not_vary_keeps_a_term_non_centred():
    data = counts(40, 10, 0.6, 8)
    (rich,) = worths("y ~ x + (1 | g)", data, "poisson")
    (poor,) = worths("y ~ x + (x || g)", data, "poisson")
    assert rich > 10 > ENOUGH > poor


def test_a_nested_factor_does_not_pass_for_the_outer_one():
    """Scores of classes vary with their schools; the classes themselves do not here."""
    data = counts(10, 100, 1.0, 20).rename(columns={"g": "school"})
    data["class"] = data["school"] * 5 + np.arange(len(data)) % 5
    alone = worths("y ~ 1 + (1 | class)", data, "poisson")
    classes, schools = worths("y ~ 1 + (1 | school / class)", data, "poisson")
    assert alone[0] > 10
    assert classes < 2
    assert schools > 10


def test_units_do_not_matter():
    data = counts(40, 10, 0.6, 8, slope=0.2)
    moved = data.assign(x=1e6 * data["x"])
    text = "y ~ x + (x | g)"
    np.testing.assert_allclose(
        worths(text, moved, "poisson"), worths(text, data, "poisson"), rtol=0.02
    )


@pytest.mark.parametrize(
    ("worth", "centered", "reason"),
    [
        (
            1.84,
            False,
            "g: non-centred (a level has information worth 1.8 times its prior; centred from 2.5)",
        ),
        (
            40.0,
            True,
            "g: centred (a level has information worth 40 times its prior; non-centred below 2.5)",
        ),
    ],
)
def test_reasons(worth, centered, reason):
    found = _choice("g", worth)
    assert (found.label, found.centered, found.reason) == ("g", centered, reason)


def test_extreme_responses_have_a_choice():
    data = counts(10, 4, 0.5, 3)
    for family in ("poisson", "binomial"):
        extreme = data.assign(y=np.r_[1.0, np.zeros(len(data) - 1)])
        design = design_of("y ~ x + (1 | g)", extreme, find_family(family))
        for y in (np.zeros(len(data)), extreme["y"].to_numpy()):
            (found,) = choose(replace(design, y=y), find_family(family))
            assert not found.centered


def test_families_with_parameters_of_their_own():
    rng = np.random.default_rng(3)
    data = counts(40, 10, 0.6, 8)
    data["y"] = rng.gamma(4, np.exp(0.8 * rng.normal(size=40))[data["g"]] / 4)
    (found,) = choose(
        design_of("y ~ x + (1 | g)", data, find_family("gamma")), find_family("gamma")
    )
    assert found.centered  # 10 rows / 0.25, times 0.64: 26


def test_columns_that_are_combinations_of_others_do_not_matter():
    data = counts(40, 10, 0.6, 8)
    data["x2"] = 2 * data["x"]
    assert worths("y ~ x + x2 + (1 | g)", data, "poisson") == pytest.approx(
        worths("y ~ x + (1 | g)", data, "poisson")
    )


def test_a_model_without_random_effects_has_no_choices():
    data = load_dataset("cbpp").assign(y=lambda d: d["incidence"] * 1.0)
    family = find_family("poisson")
    assert choose(design_of("y ~ period", data, family), family) == ()
