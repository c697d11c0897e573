"""The rows that responses are drawn for."""

from __future__ import annotations

import numpy as np
import pytest

import ranef as rf
from ranef.errors import DataError
from ranef.fits.anew.simulated_rows import simulated_rows


@pytest.fixture(scope="module")
def design():
    return rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).design


def test_levels_are_told_apart_whether_or_not_they_are_known(design):
    rows = simulated_rows(design, {"Batch": ["B", "X", "A", "X", "Y"]}, "new")
    (term,) = rows.terms
    assert term.is_new.all()
    numbers = term.grouping.numbers
    assert len(set(numbers)) == 4
    assert numbers[1] == numbers[3]
    assert numbers.min() >= term.n_levels


def test_typical_groups_need_no_column(design):
    assert simulated_rows(design, {"other": [1, 2]}, "population").terms == ()
    assert len(simulated_rows(design, None, "known").terms) == 1


@pytest.mark.parametrize(
    ("new_data", "groups", "weights", "said"),
    [
        ({"Batch": ["Z"]}, "known", None, "1 row has a level of `Batch` that the model has not"),
        (None, "new", [1.0], "weights= are those of new rows"),
        ({"Batch": ["A", "B"]}, "new", [1.0, 0.0], "positive and finite; they are not in rows `1`"),
        ({"Batch": ["A", "B"]}, "new", [1.0], r"weights= has shape \(1,\), expected \(2,\)"),
        ({"Batch": ["A", "B"]}, "new", "w", "weights='w' is not a column of the data"),
    ],
)
def test_what_cannot_be_drawn_for_is_said(design, new_data, groups, weights, said):
    with pytest.raises(DataError, match=said):
        simulated_rows(design, new_data, groups, weights)


def test_weights_follow_complete_rows():
    model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"))
    with pytest.warns(rf.RanefWarning):
        rows = simulated_rows(model.design, {"Days": [np.nan, 1.0]}, "population", [3.0, 4.0])
    assert rows.weights.tolist() == [4.0]
