"""Stand-ins have the levels and the ranges of the data, and their columns the same dependences."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.model_matrix import code, nearest_place
from ranef.formula.terms import read_formula
from ranef.model.summaries.stand_ins import interpreter_of, ranges_of


def _frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "y": rng.normal(size=300),
            "x": rng.uniform(2, 5, 300),
            "year": rng.integers(1990, 2000, 300),
            "f": rng.choice(list("abc"), 300),
            "g": rng.choice(list("pqrs"), 300),
            "b": rng.integers(2, size=300) > 0,
        }
    )


@pytest.mark.parametrize(
    "terms", ["x", "f", "f * x", "x + I(x^2)", "x * year", "0 + f + f:x", "log(x)", "b"]
)
def test_columns_and_the_place_of_priors_are_those_of_the_data(terms: str) -> None:
    frame, text = _frame(), f"y ~ x + ({terms} | g)"
    design = rf.Model(text, frame).design
    formula = read_formula(text)
    used = frame[["x", "year", "f", "b"]]
    rows = interpreter_of(formula, ranges_of(used), design.recipe.memory.levels, 9)
    columns = code(rows, formula.random[0].terms)
    (term,) = design.terms
    assert columns.names == term.coefs
    assert columns.numeric == term.numeric
    nearest = nearest_place(rows, columns)
    assert (nearest is None) == (term.nearest is None)
    if nearest is not None and term.nearest is not None:
        np.testing.assert_allclose(nearest.change, term.nearest.change, rtol=1e-6, atol=1e-9)


def test_ranges_are_of_numbers_and_truth_values() -> None:
    ranges = ranges_of(_frame())
    assert list(ranges) == ["y", "x", "year", "b"]
    assert ranges["year"].tolist() == [1990, 1999]
