"""Means of lazy rows against those of the same rows in memory, on several engines."""

from typing import Any

import dask.dataframe as dask
import duckdb
import ibis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ranef as rf
from ranef.errors import DataError, FitError, FormulaError


def _frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    site, arm, x = rng.integers(6, size=n), rng.integers(3, size=n), rng.normal(size=n)
    return pd.DataFrame(
        {
            "row": range(n),
            "y": 50 + 2 * x + arm + rng.normal(size=6)[site] * (1 + x) + rng.normal(size=n),
            "x": x,
            "z": rng.normal(100, 3, size=n),
            "year": rng.integers(1990, 1994, size=n),
            "b": rng.integers(2, size=n) > 0,
            "arm": np.array(["a", "b", "c"])[arm],
            "site": np.array([f"s{i}" for i in range(6)])[site],
            "unit": rng.integers(4, size=n),
            "o": rng.normal(size=n),
            "count": rng.poisson(3, size=n),
        }
    )


FRAME = _frame()


def _duckdb(frame: pd.DataFrame) -> Any:
    """A relation of a connection of its own."""
    own = duckdb.connect()
    own.register("frame", frame)
    own.execute("create table rows as select * from frame")
    return own.sql("select * from rows")


ENGINES = {
    "polars": lambda frame: pl.from_pandas(frame).lazy(),
    "duckdb": _duckdb,
    "ibis": lambda frame: ibis.memtable(pa.Table.from_pandas(frame)),
    "dask": lambda frame: dask.from_pandas(frame, npartitions=3),
}
CASES = {
    "slopes": ("y ~ arm * x + (x | site)", {}),
    "nested": ("y ~ x + I(x^2) + log(z) + b + (1 | site/unit)", {}),
    "coded": ("y ~ factor(year) + C(arm, contr.sum) + offset(z) + (arm || site)", {"offset": "o"}),
    "crossed": ("y ~ x + (1 | unit) + (0 + x | site)", {}),
    "labels in I()": ("y ~ 0 + I(arm):x + (1 | site)", {}),
    "no fixed effects": ("y ~ 0 + (1 | site)", {}),
    "comparisons": ("y ~ I(x > 0) * z + I(arm == 'a'):x + arm:b + (I(x > 0) | site)", {}),
}


def _rows(found: Any, name: str = "mean") -> pd.Series:
    """The predictions in the order of the rows."""
    if isinstance(found, pl.LazyFrame):
        found = found.collect().to_pandas()
    elif hasattr(found, "df"):
        found = found.df()
    elif hasattr(found, "to_pyarrow"):
        found = found.to_pyarrow().to_pandas()
    else:
        found = found.compute()
    return found.set_index("row")[name].sort_index()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_means_of_lazy_rows_are_those_of_the_rows(name: str, engine: str) -> None:
    formula, options = CASES[name]
    fit = rf.Model(formula, FRAME, **options).fit()
    lazy = ENGINES[engine](FRAME)
    for groups in ("known", "population"):
        found = fit.predict(lazy, groups=groups)
        assert type(found) is type(lazy)
        np.testing.assert_allclose(_rows(found), fit.predict(FRAME, groups=groups), rtol=1e-10)


def test_a_fit_of_lazy_data_has_lazy_fitted_values() -> None:
    frame = FRAME.assign(y=FRAME["y"].where(FRAME["row"] > 4))
    fit = rf.Model(CASES["slopes"][0], FRAME[5:]).fit()
    with pytest.warns(rf.DataWarning, match="5 of 300 rows"):
        lazy = rf.Model(CASES["slopes"][0], pl.from_pandas(frame).lazy()).fit()
    assert isinstance(lazy.fitted(), pl.LazyFrame)
    np.testing.assert_allclose(_rows(lazy.fitted()), fit.fitted(), rtol=1e-8)


def test_new_groups_have_effects_of_zero_and_incomplete_rows_no_mean() -> None:
    fit = rf.Model("y ~ x + (x | site)", FRAME).fit()
    new = FRAME.head(6).assign(site=["s0", "new", None, "s1", "s2", "s3"])
    new.loc[3, "x"] = np.nan
    found = _rows(fit.predict(pl.from_pandas(new).lazy(), groups="new"))
    with pytest.warns(rf.DataWarning, match="missing"):
        expected = fit.predict(new, groups="new")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with pytest.raises(DataError, match="a level of `site` that the model has not seen, `new`: pr"):
        fit.predict(pl.from_pandas(new).lazy())
    assert np.isfinite(_rows(fit.predict(pl.from_pandas(new[:2]).lazy(), terms=[]))).all()
    numbered = FRAME.assign(site=FRAME["site"].str[1:].astype(int))
    fit = rf.Model("y ~ x + (x | site)", numbered).fit()
    with pytest.raises(DataError, match="`site` has the text `'0'` where the model has the number"):
        fit.predict(pl.from_pandas(numbered.astype({"site": str})).lazy())


def test_posteriors_and_other_links() -> None:
    lazy = pl.from_pandas(FRAME).lazy()
    posterior = rf.Model("y ~ x + (1 | site)", FRAME).fit("quadrature", seed=1)
    np.testing.assert_allclose(_rows(posterior.predict(lazy)), posterior.predict(FRAME), rtol=1e-8)
    counts = rf.Model("count ~ x + (1 | site)", FRAME, family="poisson").fit()
    np.testing.assert_allclose(_rows(counts.predict(lazy)), counts.predict(FRAME), rtol=1e-8)
    eta = _rows(counts.predict(lazy, kind="link"), "link")
    np.testing.assert_allclose(eta, counts.predict(FRAME, kind="link"), atol=1e-10)
    counted = rf.Model("count ~ b * arm + (1 | site)", lazy, family="poisson").fit()
    np.testing.assert_allclose(_rows(counted.fitted()), counted.predict(FRAME), rtol=1e-10)
    yes = rf.Model("b ~ x + (1 | site)", FRAME, family="bernoulli").fit()
    np.testing.assert_allclose(_rows(yes.predict(lazy)), yes.predict(FRAME), rtol=1e-8)
    with pytest.raises(FitError, match="'new' groups of a poisson model with log link are no expr"):
        counts.predict(lazy, groups="new")


def test_what_is_found_row_by_row_is_refused() -> None:
    lazy, fit = pl.from_pandas(FRAME).lazy(), rf.Model("y ~ arm + x + (1 | site)", FRAME).fit()
    with pytest.raises(
        FitError, match="prob= is found row by row, and lazy rows are not here: coll"
    ):
        fit.predict(lazy, prob=0.9)
    with pytest.raises(FitError, match="draws=True is found row by row"):
        fit.predict(lazy, draws=True)
    with pytest.raises(FormulaError, match=r"the column `x` is not in the data(.|\n)*\n {14}\^$"):
        fit.predict(lazy.drop("x"))
    with pytest.raises(DataError, match="have a column `mean`, which is what predictions are call"):
        fit.predict(lazy.with_columns(mean=1))
    with pytest.raises(DataError, match="a level of `arm` that the model has not seen, `d`: leave"):
        fit.predict(lazy.with_columns(arm=pl.lit("d")))
    scaled = rf.Model("y ~ scale(x) + (1 | site)", FRAME).fit()
    with pytest.raises(DataError, match=r"`scale\(x\)` needs the rows"):
        scaled.predict(lazy)
    by_array = rf.Model("y ~ x + (1 | site)", FRAME, offset=FRAME["o"].to_numpy()).fit()
    with pytest.raises(DataError, match="the offset= of the model is an array"):
        by_array.predict(lazy)
    coloned = rf.Model("y ~ x + (1 | site:unit)", FRAME.assign(site=FRAME["site"] + ":")).fit()
    with pytest.raises(DataError, match="labels of `site:unit` have a colon within"):
        coloned.predict(lazy)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x + I(2 * x) + double + (1 | site)",
        "y ~ arm + capital + x:capital + (1 | site)",
        "y ~ b * factor(year) + (1 | site)",
    ],
)
def test_rows_whose_mean_the_data_do_not_determine(engine: str, formula: str) -> None:
    frame = FRAME[~(FRAME["b"] & (FRAME["year"] == 1991))]  # a cell without rows
    frame = frame.assign(double=3 + 2 * frame["x"], capital=frame["arm"].str.upper())
    new = frame.assign(double=frame["double"] + (frame["row"] % 5 == 0), b=True)
    new["capital"] = np.where(new["row"] % 7 == 0, "A", new["capital"])
    new.loc[new.index[3], "x"] = np.nan
    with pytest.warns(rf.DataWarning, match="linearly dependent|left out"):
        fit = rf.Model(formula, frame).fit()
    with pytest.warns(rf.DataWarning, match="nan is predicted"):
        expected = fit.predict(new)
    with pytest.warns(rf.DataWarning, match=r"null is predicted for [\d,]+ rows") as caught:
        found = _rows(fit.predict(ENGINES[engine](new))).to_numpy(dtype=float)
    is_nan = np.isnan(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    is_used = is_nan & ~(new["x"].isna() & ("x" in formula)).to_numpy()
    assert f"for {is_used.sum()} rows" in str(caught[0].message)
    assert 0 < is_nan.sum() < len(new)
