"""What stands at axes: what is drawn, of which coefficient, in which units."""

from __future__ import annotations

import pytest

import ranef as rf
from ranef.fits.no_pooling.axis_labels import AxisLabels

UNITS = {"Reaction": "ms", "Days": "day"}


def labels(formula, units=UNITS, **options):
    data = rf.load_dataset("sleepstudy")
    data.attrs["units"] = units
    model = rf.Model(formula, data, **options)
    return AxisLabels(model.design, model.family)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("deviation", "deviation of Days, ms per day"),
        ("total", "total of Days, ms per day"),
        ("own", "own Days, ms per day"),
        ("", "Days, ms per day"),
    ],
)
def test_a_slope_is_in_units_of_the_response_per_that_of_the_predictor(what, expected):
    assert labels("Reaction ~ Days + (Days | Subject)").of("Days", what) == expected


def test_an_intercept_is_in_units_of_the_response():
    found = labels("Reaction ~ Days + (Days | Subject)")
    assert found.of("Intercept", "deviation") == "deviation of Intercept, ms"


@pytest.mark.parametrize(
    ("formula", "units", "coef"),
    [
        ("Reaction ~ Days + (Days | Subject)", {}, "Days"),
        ("Reaction ~ Days + (Days | Subject)", {"Reaction": "ms"}, "Days"),
        ("Reaction ~ Days + (Days | Subject)", {"Days": "day"}, "Days"),
        ("Reaction ~ Days + (Days | Subject)", "ms", "Days"),
        ("log(Reaction) ~ Days + (Days | Subject)", UNITS, "Days"),
        ("Reaction ~ I(Days^2) + (I(Days^2) | Subject)", UNITS, "I(Days^2)"),
    ],
)
def test_units_that_are_not_known_are_not_made_up(formula, units, coef):
    assert labels(formula, units).of(coef, "deviation") == f"deviation of {coef}"


@pytest.mark.parametrize(
    ("unit", "one"),
    [
        ("days", "day"),
        ("degrees F", "degree F"),
        ("ms", "ms"),
        ("celsius", "celsius"),
        ("cwt/acre", "cwt/acre"),
    ],
)
def test_a_slope_is_per_one_of_the_predictor(unit, one):
    found = labels("Reaction ~ Days + (Days | Subject)", {"Reaction": "ms", "Days": unit})
    assert found.unit("Days") == f"ms per {one}"


def test_the_data_sets_of_the_package_have_their_units():
    fit = rf.fit("distance ~ age + (age | Subject)", rf.load_dataset("Orthodont"))
    assert AxisLabels(fit.design, fit.family).of("age", "own") == "own age, mm per year"


def test_the_scale_of_a_link_is_named():
    found = labels("Reaction ~ Days + (Days | Subject)", family="gamma", link="log")
    assert found.of("Days", "deviation") == "deviation of Days, log scale"


def test_rows_that_are_left_out_leave_the_units():
    data = rf.load_dataset("sleepstudy")
    data.attrs["units"] = UNITS
    data.loc[3, "Reaction"] = float("nan")
    with pytest.warns(rf.DataWarning):
        model = rf.Model("Reaction ~ Days + (Days | Subject)", data)
    assert AxisLabels(model.design, model.family).unit("Days") == "ms per day"


def test_two_terms_of_one_factor_are_told_apart_by_what_they_hold():
    found = labels("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)").titles()
    assert found == {"Subject": "Subject (Intercept)", "Subject_1": "Subject (Days)"}
    assert labels("Reaction ~ Days + (Days | Subject)").titles() == {"Subject": "Subject"}
