"""Two digits of the error: held against decimal arithmetic, at any scale."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from ranef.printing.digits import as_strings, shown, significant, spelled


def printed(**columns):
    table = as_strings(pd.DataFrame(columns, dtype=float))
    return {name: list(table[name]) for name in table.columns}


def last_digit(error):
    """Return the unit of the second digit of an error."""
    return Decimal(10) ** (Decimal(float(error)).adjusted() - 1)


@pytest.mark.parametrize(
    ("estimate", "se", "expected"),
    [
        (251.4051, 6.8246, ("251.4", "6.8")),
        (0.0038, 0.0093, ("0.0038", "0.0093")),
        (-0.004561, 0.000744, ("-0.00456", "0.00074")),
        (5.023e-9, 1.04e-9, ("5.0e-09", "1.0e-09")),
        (5.023e-9, 0.996e-9, ("5.02e-09", "1.0e-09")),
        (1234567.8, 3456.7, ("1234600", "3500")),
        (1.2e9, 3.44e7, ("1.200e+09", "3.4e+07")),
        (9.99, 0.0996, ("9.990", "0.10")),
        (1.0, 1e-9, ("1.0000000000", "0.0000000010")),
        (4.5e-5, 1.2e-5, ("4.5e-05", "1.2e-05")),
        (1.2e-4, 3.1e-4, ("0.00012", "0.00031")),
        (0.0, 6.8, ("0", "6.8")),
        (-1e-16, 0.5, ("0.00", "0.50")),
        (-1e-12, 1e-9, ("0e-10", "1.0e-09")),
        (1e9, 1e-9, ("1000000000.000", "0.0000000010")),
        (251.4051, 0.0, ("251.4", "0")),
        (251.4051, np.nan, ("251.4", "")),
        (251.4051, np.inf, ("251.4", "inf")),
        (np.nan, 2.5, ("", "2.5")),
        (-np.inf, 2.5, ("-inf", "2.5")),
    ],
)
@pytest.mark.parametrize("columns", [("estimate", "se"), ("mean", "sd")])
def test_two_digits_of_the_error(columns, estimate, se, expected):
    found = printed(**dict(zip(columns, ([estimate], [se]), strict=True)))
    assert tuple(found[name][0] for name in columns) == expected


@pytest.mark.parametrize("unit", 10.0 ** np.arange(-12, 13, 2))
@pytest.mark.parametrize("columns", [("estimate", "se"), ("mean", "sd", "mcse_mean")])
def test_each_row_is_rounded_to_its_own_error_in_any_unit(columns, unit):
    """Within half a unit of the second digit, and no more digits than that."""
    rng = np.random.default_rng(8)
    value, error = unit * rng.normal(size=60), unit * 10 ** rng.uniform(-4, 1, 60)
    bounds = {"lower": value - 2 * error, "upper": value + 2 * error}
    frame = pd.DataFrame(dict(zip(columns, (value, error, error / 50), strict=False)) | bounds)
    ones = pd.DataFrame({name: [1.25] for name in frame})
    table = as_strings(pd.concat([ones, frame, 1e9 * ones, 1e-9 * ones])).iloc[1:-2]
    for name in (columns[0], columns[1], "lower", "upper"):
        for text, number, e in zip(table[name], frame[name], error, strict=True):
            unit_of_e = last_digit(e)
            assert abs(Decimal(text) - Decimal(float(number))) <= unit_of_e * Decimal("0.500001")
            assert Decimal(text) % unit_of_e == 0
    assert not any(Decimal(text) == 0 for text in table[columns[1]])
    assert {len(text) for text in table[columns[0]]} != {1}


def test_bounds_alone_say_how_large_the_error_is():
    assert printed(lower=[237.68], upper=[265.13]) == {"lower": ["237.7"], "upper": ["265.1"]}
    heterogeneity = printed(estimate=[0.0, 1.0], lower=[0.0, 1.0], upper=[13.02, 2.25])
    assert heterogeneity["estimate"] == ["0", "1.00"]
    assert heterogeneity["upper"] == ["13.0", "2.25"]
    assert printed(lower=[2.0], upper=[np.inf]) == {"lower": ["2.000"], "upper": ["inf"]}


def test_without_an_error_a_number_has_four_digits():
    assert printed(variance=[612.1002, 0.041], sd=[24.74066, 0.2024]) == {
        "variance": ["612.1", "0.04100"],
        "sd": ["24.74", "0.2024"],
    }
    assert printed(estimate=[0.4185]) == {"estimate": ["0.4185"]}
    assert printed(REML=[1527.5, 2e-7], ML=[np.nan, -123456.7]) == {
        "REML": ["1528", "2.000e-07"],
        "ML": ["", "-123457"],
    }


@pytest.mark.parametrize("x", [s * 1.23456789 * 10.0**k for k in range(-14, 15) for s in (1, -1)])
def test_four_digits_at_any_scale(x):
    assert float(significant(x)) == pytest.approx(x, rel=5e-4)
    assert len(significant(x).lstrip("-")) <= 9


def test_columns_that_are_no_estimates():
    found = printed(
        n=[3.0, 1e6],
        ess_bulk=[812.7, np.nan],
        r_hat=[1.00149, np.nan],
        t=[36.8399, 0.00041],
        df=[17.0, 1e9],
        p_value=[0.0004321, 1e-300],
        aic=[1755.6283, -3.0],
        mcse_mean=[0.1234, 1e-9],
    )
    assert found == {
        "n": ["3", "1000000"],
        "ess_bulk": ["813", ""],
        "r_hat": ["1.001", ""],
        "t": ["36.84", "0.00041"],
        "df": ["17.00", "1.0e+09"],
        "p_value": ["0.000432", "1e-300"],
        "aic": ["1755.63", "-3.00"],
        "mcse_mean": ["0.12", "1e-09"],
    }


def test_words_and_counts_are_left_as_they_are():
    table = pd.DataFrame(
        {"n": [3, 4], "corr": ["0.1", ""], "what": ["a", None], "is": [True, False]}
    )
    assert as_strings(table).to_numpy().tolist() == [
        ["3", "0.1", "a", "True"],
        ["4", "", "", "False"],
    ]
    mixed = pd.DataFrame({"value": [1.23456, "x", np.nan]}, dtype=object)
    assert as_strings(mixed)["value"].tolist() == ["1.235", "x", ""]
    assert as_strings(pd.DataFrame(index=["a", "b"])).shape == (2, 0)
    assert as_strings(pd.DataFrame({"estimate": [], "se": []})).shape == (0, 2)


def test_some_decimals_or_two_digits():
    assert [shown(x, 3) for x in (0.0656, -1.0, 0.00021, 1e9, np.nan, 0.0)] == [
        "0.066",
        "-1.000",
        "0.00021",
        "1.0e+09",
        "",
        "0",
    ]


def test_ratios_beyond_floating_point_are_spelled():
    assert spelled(np.log(9.96) + 1000 * np.log(10)) == "1e1001"
    assert spelled(-2000.0) == "3e-869"
