from __future__ import annotations

import warnings
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranef.comparison import stacking
from ranef.comparison.stacking import (
    bayesian_bootstrap,
    differences,
    stack,
)
from ranef.errors import FitError

# elpd_loo of 50 observations under three models, from the tests of the R package loo (Vehtari et
# al., tests/testthat/test_model_weighting.R, run with R 4.2 and loo 2.5.1, set.seed(123)), to
# three decimals. What is expected below is loo's answer for these numbers.
LOO = np.fromstring(
    """
-1.370 -1.662 -2.144 -1.458 -1.406 -1.679 -2.800 -1.361 -1.077 -1.582 -1.241 -1.353 -1.611
-1.216 -1.300 -2.988 -1.464 -1.176 -1.803 -1.122 -1.066 -1.342 -2.480 -3.516 -1.348 -1.781
-2.352 -1.395 -1.564 -1.970 -2.436 -1.198 -0.946 -1.739 -1.143 -1.125 -1.764 -1.134 -1.100
-1.601 -1.224 -1.316 -1.371 -1.658 -2.137 -3.078 -1.517 -1.230 -1.827 -1.117 -1.047 -1.535
-3.691 -5.416 -1.973 -1.102 -0.965 -1.388 -1.586 -2.010 -1.328 -2.213 -3.079 -1.463 -1.398
-1.664 -1.327 -2.160 -2.992 -1.343 -1.823 -2.425 -1.358 -1.721 -2.248 -1.432 -3.158 -4.593
-2.082 -1.109 -0.934 -1.623 -1.207 -1.279 -1.331 -2.305 -3.230 -2.466 -1.210 -0.953 -1.780
-1.128 -1.085 -1.437 -1.450 -1.762 -2.130 -1.116 -0.926 -2.116 -1.113 -0.928 -2.068 -1.107
-0.936 -1.964 -1.102 -0.969 -1.866 -1.110 -1.020 -1.522 -1.306 -1.485 -1.434 -1.458 -1.776
-1.412 -1.512 -1.877 -1.347 -1.789 -2.365 -1.466 -1.391 -1.652 -1.342 -2.481 -3.517 -3.602
-1.865 -1.605 -2.420 -1.193 -0.942 -1.330 -2.285 -3.198 -1.406 -1.530 -1.908 -1.390 -1.581
-2.001 -2.035 -1.105 -0.945 -1.514 -1.317 -1.509
""",
    sep=" ",
).reshape(50, 3)
LOO_STACKING = [2.03627399809e-01, 7.96372600053e-01, 1.38e-10]

# 18 units under four models; loo::stacking_weights(..., optim_control = list(reltol = 1e-16))
FOUR = np.fromstring(
    """
-37.51 -33.00 -34.60 -35.26 -58.91 -58.47 -56.94 -57.11 -57.44 -52.93 -55.02 -57.10 -55.13
-52.00 -51.56 -50.44 -57.60 -54.13 -54.53 -57.01 -56.80 -56.83 -54.46 -54.06 -45.64 -43.28
-47.29 -43.78 -45.86 -53.78 -47.61 -49.97 -48.40 -49.96 -51.57 -46.81 -36.85 -37.16 -34.65
-38.37 -47.80 -46.82 -45.89 -46.97 -34.49 -32.52 -33.09 -31.87 -37.90 -36.47 -39.42 -35.77
-48.68 -50.40 -44.92 -46.04 -39.32 -38.01 -37.25 -41.55 -47.80 -50.40 -47.55 -48.94 -58.93
-53.38 -53.90 -55.03 -50.67 -49.80 -48.78 -51.43
""",
    sep=" ",
).reshape(18, 4)
FOUR_STACKING = [1.57e-10, 2.13347618345e-01, 5.57718087802e-01, 2.28934293696e-01]


def table(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=list("abcdefgh")[: values.shape[1]])


def gradient(elpd: np.ndarray, w: np.ndarray, v: np.ndarray | None = None) -> np.ndarray:
    """The derivative of the mean log score by each weight: 1 where it is positive, else below."""
    v = np.full(len(elpd), 1 / len(elpd)) if v is None else v
    likelihood = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    return (v / (likelihood @ w)) @ likelihood


def assert_optimal(elpd: np.ndarray, w: np.ndarray, v: np.ndarray | None = None) -> None:
    slope = gradient(elpd, w, v)
    assert abs(w.sum() - 1) < 1e-12
    assert w.min() >= 0
    assert slope.max() < 1 + 1e-9
    np.testing.assert_allclose(w * (slope - 1), 0, atol=1e-9)


# ------------------------------------------------------------------------------------ stacking


@pytest.mark.parametrize(("elpd", "expected"), [(LOO, LOO_STACKING), (FOUR, FOUR_STACKING)])
def test_stacking_weights_are_those_of_loo(elpd: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(stack(elpd), expected, atol=2e-7)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_arviz_comes_to_the_same_table() -> None:
    from arviz_stats import compare
    from arviz_stats.utils import ELPDDataLOO
    from xarray import DataArray

    def result(column: np.ndarray) -> ELPDDataLOO:
        return ELPDDataLOO(
            elpd=column.sum(),
            se=float(np.sqrt(50 * column.var())),
            p=1.0,
            n_samples=1000,
            n_data_points=50,
            scale="log",
            warning=False,
            good_k=0.7,
            elpd_i=DataArray(column),
            pareto_k=DataArray(np.repeat([0.1, 0.8], [48, 2])),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = compare(
            {name: result(LOO[:, i]) for i, name in enumerate("abc")},
            method="stacking",
            round_to="none",
        )
    k_hat = table(np.tile([[0.1]] * 48 + [[0.8]] * 2, 3))
    ours = differences(table(LOO), k_hat=k_hat)
    assert list(ours.index) == list(theirs.index)
    np.testing.assert_allclose(ours["elpd"], theirs["elpd"].astype(float))
    np.testing.assert_allclose(ours["elpd_diff"], theirs["elpd_diff"].astype(float))
    sample_sd = np.sqrt(50 / 49)  # arviz divides by N, loo by N - 1
    np.testing.assert_allclose(ours["se_diff"], theirs["dse"].astype(float) * sample_sd)
    assert list(ours["diag_diff"]) == list(theirs["diag_diff"])
    assert list(ours["diag_elpd"]) == list(theirs["diag_elpd"])
    by_name = pd.Series(stack(LOO), index=list("abc"))
    np.testing.assert_allclose(by_name[theirs.index], theirs["weight"].astype(float), atol=1e-3)


def test_two_models_by_hand() -> None:
    # log score w / 4 + (1 - w) in three units, and w + (1 - w) / 4 in the fourth
    elpd = np.log([[0.25, 1.0]] * 3 + [[1.0, 0.25]])
    # 3 * (-3/4) / (1 - 3w/4) + (3/4) / (1/4 + 3w/4) = 0 at w = 0: (1/4 + 3w/4) * 3 = 1 - 3w/4
    np.testing.assert_allclose(stack(elpd), [1 / 12, 11 / 12], atol=1e-12)


@pytest.mark.parametrize("elpd", [LOO, FOUR])
def test_many_steps_of_em_come_to_the_same(elpd: np.ndarray) -> None:
    likelihood = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    w = np.full(elpd.shape[1], 1 / elpd.shape[1])
    for _ in range(20_000):
        w = w * ((1 / (likelihood @ w)) @ likelihood) / len(elpd)
    np.testing.assert_allclose(stack(elpd), w, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    units=st.integers(1, 60),
    models=st.integers(1, 30),
    spread=st.floats(-4, 3),
    quality=st.floats(-3, 2),
)
def test_the_weights_are_optimal(
    seed: int, units: int, models: int, spread: float, quality: float
) -> None:
    rng = np.random.default_rng(seed)
    elpd = rng.normal(size=(units, models)) * 10**spread
    elpd += rng.normal(size=models) * 10**quality
    elpd[rng.integers(units), rng.integers(models)] -= 1000
    elpd[:, rng.integers(models)] = elpd[:, rng.integers(models)]
    assert_optimal(elpd, stack(elpd))


def test_models_that_predict_the_same_share_their_weight() -> None:
    doubled = np.column_stack([LOO, LOO[:, 1]])
    w = stack(doubled)
    assert_optimal(doubled, w)
    np.testing.assert_allclose(w[[1, 3]], LOO_STACKING[1] / 2, atol=1e-6)
    np.testing.assert_allclose(stack(np.full((9, 4), -3.0)), 0.25, atol=1e-12)


def test_one_model_has_all_the_weight() -> None:
    assert stack(LOO[:, :1]).tolist() == [1.0]


def test_what_every_model_predicts_badly_changes_nothing() -> None:
    far = LOO.copy()
    far[::2] -= 1000
    np.testing.assert_allclose(stack(far), stack(LOO), atol=1e-9)


def test_a_model_that_excludes_a_unit_keeps_the_rest() -> None:
    # each of two models excludes half of the units: the mixture needs both
    elpd = np.where(np.arange(10)[:, None] % 2 == [0, 1], -1.0, -np.inf)
    np.testing.assert_allclose(stack(elpd), 0.5, atol=1e-12)
    elpd = np.where(np.arange(10)[:, None] < [7, 10], -1.0, -np.inf)
    np.testing.assert_allclose(stack(elpd), [0.0, 1.0], atol=1e-9)
    np.testing.assert_allclose(stack(np.array([[0.0, -1000.0]] * 9 + [[-1000.0, 0.0]])), [0.9, 0.1])


# --------------------------------------------------------------------------- Bayesian bootstrap


def test_counts_as_weights_of_the_units_are_units_counted() -> None:
    counts = np.random.default_rng(1).integers(0, 4, size=50)
    V = (counts / counts.sum())[None]
    (w,) = stacking._maximised(stacking._likelihoods(LOO), V)
    np.testing.assert_allclose(w, stack(np.repeat(LOO, counts, axis=0)), atol=1e-10)


def test_every_replicate_is_optimal_for_its_weights() -> None:
    draws = bayesian_bootstrap(FOUR, n=200, seed=4)
    V = np.random.default_rng(4).dirichlet(np.ones(18), size=200)
    assert draws.shape == (200, 4)
    for w, v in zip(draws, V, strict=True):
        assert_optimal(FOUR, w, v)
    assert len(np.unique(draws.round(6), axis=0)) > 150


def test_replicates_do_not_depend_on_how_many_are_solved_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = bayesian_bootstrap(FOUR, n=50, seed=2)
    monkeypatch.setattr(stacking, "MAX_ELEMENTS", 7 * FOUR.size)
    np.testing.assert_allclose(bayesian_bootstrap(FOUR, n=50, seed=2), whole, atol=1e-12)
    assert np.abs(bayesian_bootstrap(FOUR, n=50, seed=3) - whole).max() > 0.1


# ---------------------------------------------------------------------------------- differences


def test_differences_are_those_of_loo() -> None:
    found = differences(table(LOO))
    # loo_compare(): elpd_diff, se_diff, elpd_loo, se_elpd_loo
    expected = {
        "b": [0.0, 0.0, -77.910, 3.86715974454],
        "a": [-9.833, 6.12813178743, -87.743, 3.68795668497],
        "c": [-12.818, 3.32208035387, -90.728, 7.02455941824],
    }
    assert list(found.index) == list(expected)
    columns = found[["elpd_diff", "se_diff", "elpd", "se"]]
    np.testing.assert_allclose(columns, list(expected.values()), atol=1e-9)


def test_the_probability_to_be_worse_is_normal() -> None:
    found = differences(table(LOO))["p_worse"]
    assert np.isnan(found["b"])
    assert found["a"] == pytest.approx(NormalDist(-9.833, 6.12813178743).cdf(0.0))
    assert found["c"] == pytest.approx(NormalDist(-12.818, 3.32208035387).cdf(0.0))


def test_few_units_and_small_differences_are_flagged() -> None:
    assert list(differences(table(LOO))["diag_diff"]) == ["", "N < 100", "N < 100"]
    many = np.repeat(LOO, 2, axis=0)
    many = np.column_stack([many[:, 1], many[:, 1] - 0.039, many[:, 1] - 0.041, many[:, 1]])
    found = differences(table(many))
    assert list(found.index) == ["a", "d", "b", "c"]
    assert found["elpd_diff"].tolist() == pytest.approx([0.0, 0.0, -3.9, -4.1])
    assert list(found["diag_diff"]) == ["", "", "|elpd_diff| < 4", ""]
    assert list(differences(table(many[1:]))["diag_diff"]) == ["", "", "N < 100", "N < 100"]


def test_what_k_hat_says_of_an_elpd() -> None:
    k_hat = table(np.zeros((50, 3)))
    k_hat.loc[[1, 4], "a"] = [0.71, 2.0]
    k_hat.loc[3, "c"] = np.nan  # exact
    found = differences(table(LOO), k_hat=k_hat)["diag_elpd"]
    assert found.to_dict() == {"a": "2 k̂ > 0.70", "b": "", "c": ""}


def test_a_model_that_excludes_a_unit_is_worse() -> None:
    elpd = LOO.copy()
    elpd[7, 0] = -np.inf
    found = differences(table(elpd))
    assert found.loc["a", "elpd_diff"] == -np.inf
    assert found.loc["a", "p_worse"] == 1.0
    assert np.isnan(found.loc["a", "se_diff"])
    elpd[8, 1:] = -np.inf
    with pytest.raises(FitError) as error:
        differences(table(elpd))
    assert str(error.value) == ("every model excludes a unit (elpd of -inf): none can be the best.")


def test_one_unit_has_no_standard_error() -> None:
    found = differences(table(LOO[:1]))
    assert found["se"].isna().all()
    assert found["se_diff"].isna().all()
    assert found["p_worse"].isna().all()


# ------------------------------------------------------------------------------------ bad tables


NO_MIXTURE = (
    "every model excludes `309` (elpd of -inf): no mixture of them can predict what was seen."
)


@pytest.mark.parametrize(
    ("elpd", "message"),
    [
        (
            pd.DataFrame({"m1": [1.0, np.nan], "m2": [1.0, 2.0], "m3": [np.inf, np.nan]}),
            "elpd is not a number below infinity in 3 places, of `m1` and `m3`.",
        ),
        (
            pd.DataFrame({"m1": [1.0, -np.inf], "m2": [1.0, -np.inf]}, index=["308", "309"]),
            NO_MIXTURE,
        ),
    ],
)
def test_tables_that_cannot_be_used(elpd: pd.DataFrame, message: str) -> None:
    with pytest.raises(FitError) as error:
        differences(elpd)
    assert str(error.value) == message
