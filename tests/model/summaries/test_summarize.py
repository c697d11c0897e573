"""What cannot be summarised is refused, and what would give rows away."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import DataError, FitError, FormulaError
from ranef.model.summaries.data_summary import DataSummary


def _frame(n: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    labels = {"arm": rng.choice(list("abc"), n), "site": rng.choice(["s1", "s2", "s3", "s4"], n)}
    numbers = {"y": rng.normal(size=n), "x": rng.normal(size=n), "unit": np.arange(n) % 40}
    return pd.DataFrame(labels | numbers)


FRAME = _frame()


def _made(text: str, frame: pd.DataFrame = FRAME, **options: object) -> DataSummary:
    return rf.summarize(text, frame, min_rows=0, **options)  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    for transform in ("scale(x)", "poly(x, 2)", "bs(x)"):
        with pytest.raises(DataError, match="would mean something else in other data"):
            _made(f"y ~ {transform} + (1 | site)")
    with pytest.raises(DataError, match="levels= names `site`, which is no column of the terms"):
        _made("y ~ x + (1 | site)", levels={"site": ["s1"]})
    with pytest.raises(DataError, match="levels= names `a` of `arm` twice"):
        _made("y ~ arm + (1 | site)", levels={"arm": ["a", "a", "b", "c"]})
    with pytest.raises(DataError, match="`arm` has new levels `c`"):
        _made("y ~ arm + (1 | site)", levels={"arm": ["a", "b"]})
    with pytest.raises(DataError, match=r"cells of unit have fewer than \d+ rows"):
        rf.summarize("y ~ x + (1 | unit)", FRAME.head(60))
    summary = _made("y ~ x + (1 | site)")
    with pytest.raises(FitError, match="a binomial model needs the data themselves"):
        rf.Model(summary, family="binomial")
    with pytest.raises(FitError, match="a model of a summary takes no `data`: it has what"):
        rf.Model(summary, FRAME)
    with pytest.raises(TypeError):
        summary + 1  # type: ignore[operator]


def test_cells_of_few_rows_are_allowed_where_they_are_no_secret() -> None:
    with pytest.raises(DataError, match="gives their rows away: leave them out, or allow it"):
        rf.summarize("y ~ x + (1 | unit)", FRAME, min_rows=6)
    assert rf.summarize("y ~ x + (1 | unit)", FRAME, min_rows=5).n_obs == len(FRAME)


def test_incomplete_rows_are_counted() -> None:
    frame = FRAME.assign(x=FRAME["x"].where(FRAME.index > 9))
    with pytest.warns(rf.DataWarning, match="10 of 200 rows"):
        assert _made("y ~ x + (1 | site)", frame).n_obs == len(FRAME) - 10
    with pytest.raises(DataError, match="missing"):
        _made("y ~ x + (1 | site)", frame, missing="raise")


def test_functions_of_ones_own_are_not_known() -> None:
    with pytest.raises(FormulaError):
        _made("y ~ mine(x) + (1 | site)")


def test_new_rows_are_added_to_a_model_of_a_summary() -> None:
    formula = "y ~ arm + x + (x | site)"
    model = rf.Model(_made(formula, FRAME.iloc[:150])).update(FRAME.iloc[150:])
    assert model.fit().loglik == pytest.approx(rf.Model(formula, FRAME).fit().loglik, rel=1e-10)
    simpler = model.update(". ~ . - (x | site) + (1 | site)")
    expected = rf.Model("y ~ arm + x + (1 | site)", FRAME).fit()
    assert simpler.fit().loglik == pytest.approx(expected.loglik, rel=1e-10)
    fit = model.fit("ml").update(". ~ . - (x | site) + (1 | site)")
    assert fit.loglik == pytest.approx(expected.update(method="ml").loglik, rel=1e-10)
    assert model.fit().update(FRAME.iloc[150:]).n_obs == len(FRAME) + 50
    with pytest.raises(FitError, match="a model of a summary cannot change `family`"):
        model.update(family="poisson")
    weighted = rf.Model(_made(formula, FRAME.assign(w=2.0), weights="w"))
    with pytest.raises(DataError, match="give those of the new ones too"):
        weighted.update(FRAME)
