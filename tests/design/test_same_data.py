"""Designs of the same data, and of data that differ: the full text of what is refused."""

import numpy as np
import pandas as pd
import pytest
from designs import random_frame

import ranef as rf
from ranef.design.design import build_design
from ranef.design.same_data import check_same_data
from ranef.errors import DataError
from ranef.formula.terms import read_formula

FRAME = random_frame(np.random.default_rng(8), 120)
LABELLED = FRAME.set_index(pd.Index([f"r{i}" for i in range(119)] + [None]))
NOT_THE_SAME = "`a` and `b` are not fits of the same data: the "
OTHER_ROWS = "`a` and `b` are fits of different rows "
ALL_ROWS = "`0`, `1`, `2`, `3`, `4` and 115 more)."
UNITS = (
    "`a` is a model of `y` and `b` one of `log(y)`: densities of a response and of its transform "
    "are in different units and cannot be compared. Fit both to the same response; a link function "
    "transforms its mean instead."
)
COMPLETE = "fit both to the rows that are complete in all columns that either uses."


def design(text, frame=FRAME, **options):
    return build_design(read_formula(text), frame, **options)


def check(first, second, **options):
    check_same_data(first, second, ("`a`", "`b`"), **options)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (design("y ~ x"), design("y ~ z + (1 | c)", FRAME.copy())),
        (design("y ~ x", weights="w"), design("y ~ z", weights="w")),
        (design("y ~ x + offset(z)"), design("y ~ z", offset="z")),
        (design("y ~ x", LABELLED), design("y ~ z", LABELLED.copy())),
    ],
)
def test_the_same_data(first, second):
    check(first, second)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            design("y ~ x"),
            design("log(y) ~ x"),
            UNITS,
        ),
        (
            design("y ~ x"),
            design("y ~ x", FRAME.assign(y=FRAME["y"] + (FRAME.index < 2))),
            NOT_THE_SAME + "response `y` differs in 2 rows (`0` and `1`).",
        ),
        (
            design("y ~ x"),
            design("y ~ x", FRAME.assign(y=FRAME["y"] + (FRAME.index == 7))),
            NOT_THE_SAME + "response `y` differs in 1 row (`7`).",
        ),
        (
            design("y ~ x"),
            design("y ~ x", weights="w"),
            NOT_THE_SAME + "weights or numbers of trials differ in 120 rows (" + ALL_ROWS,
        ),
        (
            design("y ~ x"),
            design("y ~ x + offset(z)"),
            NOT_THE_SAME + "offset differs in 120 rows (" + ALL_ROWS,
        ),
        (
            design("y ~ x"),
            design("y ~ x", FRAME[2:]),
            OTHER_ROWS + "(120 and 118: 2 only in `a` (`0` and `1`)): " + COMPLETE,
        ),
        (
            design("y ~ x", FRAME[:-1]),
            design("y ~ x", FRAME[2:]),
            OTHER_ROWS
            + "(119 and 118: 2 only in `a` (`0` and `1`); 1 only in `b` (`119`)): "
            + COMPLETE,
        ),
        (
            design("y ~ x"),
            design("y ~ x", FRAME[::-1]),
            OTHER_ROWS + "(120 and 120: in another order): " + COMPLETE,
        ),
        (
            design("y ~ x", FRAME.set_index(np.arange(120) // 2)),
            design("y ~ x", FRAME.set_index(np.arange(120) // 2)[:-1]),
            OTHER_ROWS + "(120 and 119: labels that occur several times): " + COMPLETE,
        ),
    ],
)
def test_other_data(first, second, message):
    with pytest.raises(DataError) as error:
        check(first, second)
    assert str(error.value) == message


def test_weights_and_offsets_can_be_parts_of_the_models():
    check(design("y ~ x"), design("y ~ x", weights="w"), weights=False)
    check(design("y ~ x"), design("y ~ x", offset="z"), offset=False)
    with pytest.raises(DataError, match="the offset differs"):
        check(design("y ~ x"), design("y ~ x", offset="z"), weights=False)


def test_sums_that_differ_in_rounding_are_said_to_be_sums_and_not_other_responses():
    one = rf.summarize("y ~ x + (1 | c)", FRAME, min_rows=0).design
    check(one, one)
    with pytest.raises(DataError, match="fits of sums that each model took of its data"):
        check(one, one.with_rows(y=one.sufficient.y * (1 + 1e-15)))
