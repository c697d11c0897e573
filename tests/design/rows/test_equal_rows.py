"""Rows with equal predictors have one number."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.rows.equal_rows import equal_rows, first_rows, repeated

FORMULA = "y ~ a * b + offset(e) + (a | g) + (1 | h)"


def frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    columns = {name: rng.integers(0, 3, n) for name in ("a", "b", "g", "h", "e", "y")}
    return pd.DataFrame(columns).astype({"b": str, "g": str})


def test_numbers_are_those_of_a_group_by_of_the_columns_of_the_formula() -> None:
    data = frame()
    rows = rf.Model(FORMULA, data, family="poisson").design.rows
    found = equal_rows(rows, len(data))
    expected = data.groupby(["a", "b", "g", "h", "e"], sort=False).ngroup()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("column", ["a", "b", "g", "h", "e"])
def test_a_difference_in_any_predictor_tells_rows_apart(column: str) -> None:
    first = {"a": 1, "b": "x", "g": "p", "h": 1, "e": 1, "y": 1}
    other = {**first, column: {"b": "z", "g": "q"}.get(column, 2)}
    third = {"a": 3, "b": "w", "g": "r", "h": 3, "e": 3, "y": 2}
    data = pd.DataFrame([third, third, first, other] * 3)
    rows = rf.Model(FORMULA, data, family="poisson").design.rows
    np.testing.assert_array_equal(equal_rows(rows, 6), [0, 0, 1, 2] * 3)


def test_too_many_different_rows_have_no_numbers() -> None:
    data = frame()
    rows = rf.Model(FORMULA, data, family="poisson").design.rows
    size = len(data[["a", "b", "g", "h", "e"]].drop_duplicates())
    assert equal_rows(rows, size) is not None
    assert equal_rows(rows, size - 1) is None


def test_the_first_row_of_each_number_stands_for_it() -> None:
    data = frame()
    rows = rf.Model(FORMULA, data, family="poisson").design.rows
    numbers = equal_rows(rows, len(data))
    assert numbers is not None
    few = rows.at(first_rows(numbers))
    np.testing.assert_array_equal(few.X[numbers], rows.X)
    np.testing.assert_array_equal(few.offset[numbers], rows.offset)
    for own, term in zip(few.terms, rows.terms, strict=True):
        np.testing.assert_array_equal(own.codes[numbers], term.codes)
        np.testing.assert_array_equal(own.columns[numbers], term.columns)
        assert own.n_levels == term.n_levels


def test_rows_that_stand_for_equal_ones_have_their_sums() -> None:
    rows = rf.Model("y ~ a + offset(e) + (a | g)", frame(), family="poisson").design.rows
    counts = np.arange(len(rows.y)) % 4 + 1
    weights = np.random.default_rng(1).choice([0.5, 2.0], len(rows.y))
    found = repeated(replace(rows, weights=counts * weights), counts)
    assert found.unweighted is not None
    unweighted, all_rows = found.unweighted, rows.at(np.repeat(np.arange(300), counts))
    assert unweighted.n == len(all_rows.y)
    columns = [(unweighted.X[:, 1], all_rows.X[:, 1]), (unweighted.y, all_rows.y)]
    for few, many in columns:
        assert unweighted.mean(few) == pytest.approx(all_rows.mean(many), rel=1e-13)
        assert unweighted.spread(few) == pytest.approx(all_rows.spread(many), rel=1e-13)
    np.testing.assert_allclose(unweighted.X.T @ unweighted.X, all_rows.X.T @ all_rows.X)
    np.testing.assert_allclose(found.log_weights, counts * np.log(weights))
