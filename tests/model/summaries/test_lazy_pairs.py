"""Models of lazy data by pairs of levels against those of the same rows in memory."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import polars as pl
import pytest

import ranef as rf
from ranef.errors import DataError, FitError
from ranef.model.summaries import lazy_basis, lazy_pairs
from ranef.numerics.memory import check_memory

CASES: dict[str, tuple[str, Mapping[str, object]]] = {
    "crossed": ("y ~ C(arm, contr.sum) + (1 | rater) + (1 | site)", {}),
    "slopes": (
        "y ~ arm * x + z + (x | rater) + (z || site) + (1 | site:rater)",
        {"weights": "w", "offset": "o"},
    ),
    "nested, not said": ("y ~ x + (1 | unit) + (x | site) + (1 | rater)", {"weights": "w"}),
    "nested": ("y ~ x + (1 | site/unit) + (0 + arm | rater)", {}),
    "two terms of a factor": ("y ~ x + (1 | site) + (0 + x | site) + (1 | rater)", {}),
    "dependent": ("y ~ x + I(2 * x) + (1 | site) + (1 | rater)", {}),
    "two fixed factors": ("y ~ arm * x + label + (1 | site) + (arm | rater)", {"weights": "w"}),
    "comparisons": ("y ~ I(x > 0) + I(arm == 'a'):x + (I(x > 0) | site) + (1 | rater)", {}),
}


def _frame(n: int = 500) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    site, arm, rater = (rng.integers(m, size=n) for m in (6, 3, 5))
    unit, x = site * 4 + rng.integers(4, size=n), rng.normal(size=n)
    effects = rng.normal(0, 2, 6)[site] + rng.normal(0, 1, 24)[unit] + rng.normal(0, 1, 5)[rater]
    rows = ~((site == 2) & (rater == 1))
    return pd.DataFrame(
        {
            "y": 5000 + 2 * x + arm + effects + rng.normal(size=6)[site] * x + rng.normal(size=n),
            "x": x,
            "z": rng.normal(100, 3, size=n),
            "arm": np.array(["a", "b", "c"])[arm],
            "site": np.array([f"s{i}" for i in range(6)])[site],
            "unit": unit,
            "rater": np.array(list("vwxyz"))[rater],
            "w": rng.uniform(0.5, 2, size=n),
            "o": rng.normal(size=n),
            "label": rng.choice([f"l{i}" for i in range(30)], size=n),
        }
    )[rows]


FRAME = _frame()
LAZY = pl.from_pandas(FRAME).lazy()


@pytest.fixture(autouse=True)
def _by_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_basis, "MAX_SUMS", 0)


@pytest.mark.filterwarnings("ignore:the fixed effects are linearly dependent")
@pytest.mark.parametrize("name", CASES)
def test_a_model_by_pairs_is_that_of_the_rows(name: str) -> None:
    formula, options = CASES[name]
    model, lazy = (rf.Model(formula, data, **options) for data in (FRAME, LAZY))
    one, other = model.fit(), lazy.fit()
    assert lazy.design.sufficient.is_paired
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(one.fixef(), other.fixef(), rtol=1e-8)
    for label, effects in one.ranef().items():
        again = other.ranef()[label].loc[effects.index]
        np.testing.assert_allclose(effects, again, rtol=1e-6, atol=1e-7)
    assert str(lazy).split("\nNote")[0] == str(model).split("\nNote")[0]
    new = {"groups": "known", "prob": 0.9}
    np.testing.assert_allclose(other.predict(FRAME[:5], **new), one.predict(FRAME[:5], **new), 1e-7)


def test_what_takes_no_single_group_is_there() -> None:
    formula = "y ~ x + (1 | rater) + (x || site)"
    model, lazy = rf.Model(formula, FRAME), rf.Model(formula, LAZY)
    one, other = model.fit(), lazy.fit()
    np.testing.assert_allclose(other.confint("profile"), one.confint("profile"), rtol=1e-4)
    frames = [fit.summary(df="kenward-roger").to_frame() for fit in (one, other)]
    np.testing.assert_allclose(*frames, rtol=1e-5)
    evidences = [m.fit("quadrature", seed=1).log_marginal_likelihood().value for m in (model, lazy)]
    assert evidences[1] == pytest.approx(evidences[0], abs=1e-5)
    flat = [m.fit("map", priors="flat").theta for m in (model, lazy)]
    np.testing.assert_allclose(*flat, rtol=1e-5)


def test_what_needs_single_groups_says_so() -> None:
    fit = rf.Model("y ~ x + (1 | rater) + (1 | site)", LAZY).fit()
    said = "by pairs of levels, of `site` and `rater`; what leaves out, draws or shows whole groups"
    for ask in (lambda: fit.influence(group="site"), lambda: fit.bootstrap(10, seed=1)):
        with pytest.raises(FitError, match=said):
            ask()


def test_a_response_that_is_fitted_exactly_is_refused() -> None:
    codes = FRAME["site"].astype("category").cat.codes + FRAME["rater"].map(ord)
    lazy = pl.from_pandas(FRAME.assign(y=1.5 * codes)).lazy()
    with pytest.raises(DataError, match="the model fits the response `y` exactly"):
        rf.Model("y ~ x + (1 | rater) + (1 | site)", lazy).fit()


def test_pairs_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy_pairs, "available", lambda: 0.0)
    monkeypatch.setattr(
        lazy_pairs, "check_memory", lambda size, *words: check_memory(1e12 * size, *words)
    )
    said = (
        "`rater` and `site` meet in 29 pairs of levels, whose table needs .* Leave one of the two"
    )
    with pytest.raises(FitError, match=said):
        rf.Model("y ~ x + (1 | rater) + (1 | site)", LAZY)
