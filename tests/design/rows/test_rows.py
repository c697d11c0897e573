"""Rows say of columns the same as the rows that they stand for."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.design.rows.rows import Rows


def _both(weights: str | None) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(1)
    n, site = 400, rng.integers(5, size=400)
    frame = pd.DataFrame({"site": site, "x": 1000 + rng.normal(size=n), "c": np.full(n, 3.3)})
    frame = frame.assign(y=rng.normal(size=n), w=rng.uniform(0.5, 3, n))
    formula = "y ~ x + c + (1 | site)"
    design = rf.Model(formula, frame, weights=weights).design
    few = rf.Model(rf.summarize(formula, frame, weights=weights)).design
    assert len(few.sufficient.y) < 50
    return design.unweighted, few.unweighted


@pytest.mark.parametrize("weights", [None, "w"])
def test_means_and_spreads_are_those_of_all_rows(weights: str | None) -> None:
    rows, few = _both(weights)
    for j in range(rows.X.shape[1]):
        assert few.mean(few.X[:, j]) == pytest.approx(rows.mean(rows.X[:, j]), rel=1e-12)
        spread = few.spread(few.X[:, j])
        assert spread == pytest.approx(rows.spread(rows.X[:, j]), rel=1e-9, abs=0)
    assert few.mean(few.y) == pytest.approx(rows.mean(rows.y), rel=1e-10)


def test_counts_are_of_the_rows_of_the_data() -> None:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"site": rng.integers(5, size=300), "y": rng.normal(size=300)})
    summary = rf.summarize("y ~ 1 + (1 | site)", frame)
    (term,) = rf.Model(summary).design.sufficient.terms
    counts = rf.Model(summary).design.sufficient.counts(term.codes, 5)
    assert counts.tolist() == frame["site"].value_counts().sort_index().tolist()


def test_a_constant_has_no_spread_not_even_by_rounding() -> None:
    rows, _ = _both(None)
    assert rows.spread(np.full(7, 0.1)) == 0.0
    assert rows.spread(np.array([1.0, 3.0])) == pytest.approx(np.sqrt(2))
