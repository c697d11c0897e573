"""A summary in a file: the same after a round trip, small, and refused where it is damaged."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from ranef.errors import DataError, FitError
from ranef.model.summaries import lazy_basis
from ranef.model.summaries.data_summary import DataSummary

LEVELS = {"arm": ["a", "b", "c"]}


def _frame(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    labels = {"arm": rng.choice(list("abc"), n), "site": rng.choice(["s1", "s2", "s3"], n)}
    numbers = {"y": rng.normal(size=n), "x": rng.normal(size=n), "w": rng.uniform(1, 2, n)}
    return pd.DataFrame(labels | numbers | {"day": pd.Timestamp("2020-01-01")})


FRAME = _frame()


@pytest.mark.parametrize("options", [{}, {"weights": "w"}, {"offset": "w"}])
def test_a_file_keeps_a_summary(tmp_path: Path, options: dict[str, str]) -> None:
    formula, path = "y ~ arm * x + (x | site)", tmp_path / "sites.zip"
    summary = rf.summarize(formula, FRAME, levels=LEVELS, **options)
    summary.save(path)
    again = rf.load(path)
    assert isinstance(again, DataSummary)
    assert repr(again) == repr(summary)
    assert rf.Model(again).fit().loglik == rf.Model(summary).fit().loglik
    assert str(rf.Model(again)) == str(rf.Model(summary))
    more = rf.summarize(formula, FRAME.head(150), levels=LEVELS, **options)
    assert (again + more).n_obs == 450


def test_a_site_with_twenty_predictors_fits_into_twenty_kilobytes(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(rng.normal(size=(5000, 20)), columns=[f"x{j}" for j in range(20)])
    frame["y"], frame["site"] = rng.normal(size=5000), "s1"
    formula = f"y ~ {' + '.join(frame.columns[:20])} + (1 | site)"
    rf.summarize(formula, frame).save(tmp_path / "site.zip")
    assert (tmp_path / "site.zip").stat().st_size < 20_000


def test_labels_of_any_kind_come_back(tmp_path: Path) -> None:
    frame = FRAME.assign(day=pd.date_range("2020-01-01", periods=6).repeat(50))
    rf.summarize("y ~ x + (1 | day)", frame).save(tmp_path / "days.zip")
    summary = rf.load(tmp_path / "days.zip")
    assert isinstance(summary, DataSummary)
    assert list(summary.groupings[0].levels) == list(pd.date_range("2020-01-01", periods=6))


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sites.zip"
    rf.summarize("y ~ x + (1 | site)", FRAME).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FitError, match="is damaged"):
        rf.load(path)
    path.write_bytes(b"no summary")
    with pytest.raises(FitError, match="is not a file"):
        rf.load(path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        rf.summarize("y ~ x + (1 | site)", FRAME).save(tmp_path / "nowhere" / "s.zip")


@pytest.mark.parametrize("method", ["reml", "quadrature"])
def test_a_file_keeps_a_fit_of_a_summary_without_rows(tmp_path: Path, method: str) -> None:
    fit = rf.Model(rf.summarize("y ~ arm * x + (1 | site)", FRAME)).fit(method)
    fit.save(tmp_path / "fit.zip")
    again = rf.load(tmp_path / "fit.zip")
    assert str(again) == str(fit)
    new = FRAME[:4]
    expected = fit.predict(new, prob=0.9)
    np.testing.assert_allclose(again.predict(new, prob=0.9), expected, rtol=1e-6, atol=1e-9)
    more = again.update(data=FRAME, method="reml")
    assert more.n_obs == 600
    with pytest.raises(FitError, match="has no rows"):
        again.residuals()


@pytest.mark.parametrize("most", [0, 10**9])
def test_a_file_keeps_a_fit_of_lazy_data(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_SUMS", most)
    lazy, path = pl.from_pandas(FRAME.drop(columns="day")).lazy(), tmp_path / "fit.zip"
    model = rf.Model("y ~ x + (x | site) + (1 | arm)", lazy, weights="w")
    assert model.design.sufficient.is_paired == (most == 0)
    fit = model.fit(file=path)
    again, kept = rf.load(path), model.fit(file=path)
    assert str(again) == str(kept) == str(fit)
    np.testing.assert_array_equal(again.ranef()["site"], fit.ranef()["site"])
    other = rf.Model("y ~ x + (x | site) + (1 | arm)", lazy.head(200), weights="w").fit(file=path)
    assert other.n_obs == 200
    if most == 0:
        with pytest.raises(DataError, match="by pairs of levels, and takes no more rows"):
            again.update(data=FRAME, weights="w")
