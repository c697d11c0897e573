"""Designs without a response, and of other sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import FitError
from ranef.planning.planned_rows import Plan, extended, sized, with_rows


@pytest.fixture(scope="module")
def trial():
    """Return 4 clinics of 3 patients, arms A, A, B, B, each patient seen twice."""
    frame = pd.DataFrame({"clinic": np.repeat(list("wxyz"), 6), "visit": np.tile([0, 1], 12)})
    frame["patient"] = [f"{c}{i}" for c in "wxyz" for i in range(3) for _ in range(2)]
    return frame.assign(arm=np.where(frame["clinic"] < "y", "A", "B"))


@pytest.mark.parametrize("treated", ["wx", "wy", "yz"])
@pytest.mark.parametrize("n", range(2, 13))
def test_arms_stay_balanced_whatever_the_number_of_groups(trial, n, treated):
    arms = np.where(trial["clinic"].isin(list(treated)), "A", "B")
    frame = extended(trial.assign(arm=arms), "clinic", n)
    arms = frame.groupby("clinic")["arm"].first().value_counts()
    assert len(set(frame["clinic"])) == n
    assert abs(arms["A"] - arms["B"]) <= n % 2
    assert len(set(frame["patient"])) == 3 * n
    assert len(frame[["patient", "clinic"]].drop_duplicates()) == 3 * n
    assert len(frame) == 6 * n


def test_crossed_factors_stay_crossed():
    frame = rf.load_dataset("Penicillin")[["plate", "sample"]]
    frame = extended(extended(frame, "plate", 30), "sample", 9)
    assert (pd.crosstab(frame["plate"], frame["sample"]) == 1).all(axis=None)
    assert (frame["plate"].nunique(), frame["sample"].nunique()) == (30, 9)


def test_rows_of_groups_are_repeated_or_left_out(trial):
    assert with_rows(trial, "patient", 1)["visit"].tolist() == [0] * 12
    assert with_rows(trial, "patient", 3)["visit"].tolist() == [0, 1, 0] * 12


def test_sizes_are_all_combinations(trial):
    design = Plan.of("y ~ arm + (1 | clinic/patient)", trial, "gaussian").design()
    points = sized(design, trial, {"clinic": [4, 8]}, [3, 6])
    assert [size for size, _ in points] == [
        {"clinic": n, "rows": r} for n in (4, 8) for r in (3, 6)
    ]
    assert [len(frame) for _, frame in points] == [
        size["clinic"] * size["rows"] for size, _ in points
    ]


@pytest.mark.parametrize("family", ["gaussian", "poisson", "gamma", "beta", "bernoulli"])
def test_a_response_needs_no_column(trial, family):
    plan = Plan.of("log(y) ~ arm + (1 | clinic)", trial, family)
    design = plan.design()
    assert (design.response, design.fixed) == ("log(y)", ("Intercept", "arm[T.B]"))
    assert plan.design("log(y) ~ 1", trial.iloc[:6]).n_obs == 6


def test_columns_that_say_nothing_are_left_out(trial):
    plan = Plan.of("y ~ arm + I(arm == 'B') + (1 | clinic)", trial, "gaussian")
    assert plan.design().fixed == ("Intercept", "arm[T.B]")


@pytest.mark.parametrize(
    ("groups", "rows", "said"),
    [
        ([], None, "groups= is empty"),
        ([0], None, "`groups` must be a positive whole number, got 0."),
        ({"cinic": [3]}, None, "`cinic` is not a column of the design; the grouping factors of"),
        (None, [0], "`rows` must be a positive whole number, got 0."),
        ([4, 10**12], None, "a study of 6,000,000,000,000 rows needs"),
        (None, 10**11, "a study of 400,000,000,000 rows needs"),
        (3, "a", "`rows` must be a positive whole number, got 'a'."),
    ],
)
def test_sizes_that_are_none_are_said(trial, groups, rows, said):
    design = Plan.of("y ~ arm + (1 | clinic)", trial, "gaussian").design()
    with pytest.raises(FitError) as caught:
        sized(design, trial, groups, rows)
    assert said in str(caught.value)


def test_several_factors_are_named(trial):
    design = Plan.of("y ~ arm + (1 | clinic) + (1 | visit)", trial, "gaussian").design()
    with pytest.raises(FitError, match="groups= needs the name of a grouping factor, as in groups"):
        sized(design, trial, [3], None)
    with pytest.raises(FitError, match="rows= are those of a group: name its factor by groups="):
        sized(design, trial, None, [3])
