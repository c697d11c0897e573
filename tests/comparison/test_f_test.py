"""Wald's F test, against least squares on dense matrices, and its size under the null."""

import numpy as np
import pandas as pd
import pytest
from designs import random_frame
from scipy import stats

import ranef as rf
from ranef.comparison.f_test import WaldTest, f_test
from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula

FRAME = random_frame(np.random.default_rng(8), 150)
FRAME["x"] -= 7
FRAME["r"], FRAME["e"] = 0.1 * np.round(FRAME["x"] / 4) + 0.3, np.arange(150) // 3


def design(text, frame=FRAME, **options):
    return full_rank(build_design(read_formula(text), frame, **options))


def f_of(small, large, data, **options):
    return f_test(design(small, data, **options), design(large, data, **options))


def dense_columns(built):
    """Return W^1/2 [X Z], Z with a column for each level and coefficient."""
    columns = [built.rows.X]
    for term in built.rows.terms:
        indicators = np.eye(term.n_levels)[term.codes]
        columns += [indicators * column[:, None] for column in term.columns.T]
    return np.column_stack(columns) * np.sqrt(built.rows.weights)[:, None]


def least_squares(small, large):
    """Return F, d1, d2 from the ranks and residuals of dense matrices."""
    y = (large.rows.y - large.rows.offset) * np.sqrt(large.rows.weights)
    found = []
    for columns in (dense_columns(small), dense_columns(large)):
        scaled = columns / np.maximum(np.linalg.norm(columns, axis=0), 1e-300)
        U, s, _ = np.linalg.svd(scaled, full_matrices=False)
        U = U[:, s > 1e-7]
        found.append((U.shape[1], float(((y - U @ (U.T @ y)) ** 2).sum())))
    (r0, rss0), (r1, rss1) = found
    d1, d2 = r1 - r0, len(y) - r1
    return (rss0 - rss1) / d1 / (rss1 / d2), d1, d2


PAIRS = [
    ("y ~ x", "y ~ x + (1 | c)"),
    ("y ~ 0", "y ~ 0 + (1 | c)"),
    ("y ~ x", "y ~ x + (x | c)"),
    ("y ~ x + (1 | c)", "y ~ x + (x | c)"),
    ("y ~ x + (1 | c)", "y ~ x + (x || c)"),
    ("y ~ x + (1 | e)", "y ~ x + (r | e)"),  # r is constant within many levels of e
    ("y ~ x + (0 + x | c)", "y ~ x + (1 | c) + (0 + x | c)"),
    ("y ~ f + x + (1 | s)", "y ~ f + x + (1 | s) + (1 | c)"),
    ("y ~ x + (1 | i) + (1 | j)", "y ~ x + (1 | c) + (1 | i) + (1 | j)"),
    ("y ~ x + (x | c)", "y ~ x + (x | c) + (z | i)"),
    ("y ~ x + (x | c) + (1 | i)", "y ~ x + (x + z | c) + (1 | i) + (1 | j)"),
    ("y ~ f + (1 | i)", "y ~ f + (f | i)"),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_it_is_the_ratio_of_mean_squares_of_dense_least_squares(pair, weighted):
    options = {"weights": "w", "offset": "z"} if weighted else {}
    frame = FRAME if weighted else FRAME.assign(x=FRAME["x"] * 0.01 + 300)
    small, large = (design(text, frame, **options) for text in pair)
    F, d1, d2 = least_squares(small, large)
    assert f_test(small, large) == WaldTest(pytest.approx(F, rel=1e-8), d1, d2)


def test_one_way_analysis_of_variance():
    data = rf.load_dataset("Dyestuff")
    found = f_of("Yield ~ 1", "Yield ~ 1 + (1 | Batch)", data)
    one_way = stats.f_oneway(*(group["Yield"] for _, group in data.groupby("Batch")))
    assert (found.statistic, found.p_value) == pytest.approx(tuple(one_way), rel=1e-10)
    assert found.p_value == pytest.approx(0.00439753126830609, rel=1e-10)  # R: anova(lm)
    assert (found.d1, found.d2, found.stratum) == (5, 24, "")


@pytest.mark.parametrize(
    ("small", "statistic", "p"),
    [("(1 | Subject)", 5.4178, 3.3e-9), ("(0 + Days | Subject)", 3.7053, 7.2e-6)],
)
def test_slopes_and_intercepts_of_sleepstudy(small, statistic, p):
    sleep = rf.load_dataset("sleepstudy")
    found = f_of(f"Reaction ~ Days + {small}", "Reaction ~ Days + (Days | Subject)", sleep)
    assert found.statistic == pytest.approx(statistic, abs=5e-5)
    assert found.p_value == pytest.approx(p, rel=0.02)
    assert (found.d1, found.d2) == (17, 144)


def test_totals_of_the_levels_of_the_term_below():
    data = rf.load_dataset("Pastes")
    found = f_of("strength ~ (1 | sample)", "strength ~ (1 | batch) + (1 | sample)", data)
    means = data.groupby(["batch", "cask"])["strength"].mean().unstack()  # one sample, one mean
    one_way = stats.f_oneway(*means.to_numpy())
    assert (found.statistic, found.p_value) == pytest.approx(tuple(one_way), rel=1e-9)
    assert (found.d1, found.d2, found.stratum) == (9, 20, "sample")
    assert found.p_value == pytest.approx(0.193, abs=5e-4)


def balanced(rng, *, m=24, k=3, weights=None):
    """Return rows in samples of one size within groups of several."""
    sample = np.repeat(np.arange(m), k)
    group = np.repeat(rng.integers(0, 5, m), k)
    data = pd.DataFrame({"s": sample, "g": group, "u": np.repeat(rng.normal(size=m), k)})
    data["x"] = rng.normal(size=len(data))
    data["c"] = rng.integers(0, 3, len(data))
    data["w"] = 1.0 if weights is None else np.tile(weights, m)
    return data


def test_totals_with_covariates_weights_and_a_crossed_factor():
    rng = np.random.default_rng(4)
    data = balanced(rng, weights=[0.5, 1.0, 2.5])
    data["y"] = rng.normal(size=24)[data["s"]] + rng.normal(size=len(data)) / np.sqrt(data["w"])
    small = "y ~ u + x + (1 | s) + (1 | c)"
    found = f_of(small, small + " + (1 | g)", data, weights="w")
    H = np.eye(24)[data["s"]] * np.sqrt(data["w"].to_numpy())[:, None] / 2.0
    rows = np.column_stack([np.ones(72), data["u"], data["x"], np.eye(3)[data["c"]], data["y"]])
    totals = H.T @ (rows * np.sqrt(data["w"].to_numpy())[:, None])
    groups = np.eye(5)[data.groupby("s")["g"].first()]
    fixed, y = totals[:, :-1], totals[:, -1]
    both = fixed, np.column_stack([fixed, groups])
    r0, r1 = (np.linalg.matrix_rank(A) for A in both)
    s0, s1 = (((y - A @ np.linalg.lstsq(A, y)[0]) ** 2).sum() for A in both)
    F = (s0 - s1) / (r1 - r0) / (s1 / (24 - r1))
    assert found == WaldTest(pytest.approx(F, rel=1e-9), r1 - r0, 24 - r1, "s")


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ("y ~ x + (x || c)", "y ~ x + (x | c)"),  # a correlation is no column
        ("y ~ x + (1 | c)", "y ~ x + (1 | s) + (1 | c)"),  # levels of c of several sizes
        ("y ~ x + (x | c)", "y ~ x + (1 | s) + (x | c)"),  # two coefficients
        ("y ~ f", "y ~ f + (1 | f)"),  # fixed already
    ],
)
def test_there_is_not_always_one(small, large):
    assert f_of(small, large, FRAME.assign(y=FRAME["y"] + 1.0)) is None


def test_there_is_none_without_residuals():
    frame = FRAME.groupby("c").head(2)
    assert f_of("y ~ (1 | c)", "y ~ (x | c)", frame) is None


@pytest.mark.parametrize("small", ["y ~ x + (1 | i)", "y ~ x + (1 | i) + (1 | s)"])
def test_p_values_are_uniform_whatever_the_other_variances(small):
    rng = np.random.default_rng(2)
    frame = balanced(rng).assign(i=rng.integers(0, 4, 72))
    new = "g" if "(1 | s)" in small else "s"
    frame["y"] = rng.normal(size=72)
    designs = [design(text, frame) for text in (small, f"{small} + (1 | {new})")]
    p = []
    for _ in range(200):
        y = 5 * rng.normal(size=4)[frame["i"]] + rng.normal(size=72)
        y += 3 * rng.normal(size=24)[frame["s"]] * (new == "g")
        p.append(f_test(*(built.with_rows(y=y) for built in designs)).p_value)
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_rank_is_found_where_slopes_are_far_from_their_origin():
    frame = FRAME.assign(t=FRAME["x"] * 1e-2 + 2000)
    near, far = (f_of(f"y ~ {x} + (1 | c)", f"y ~ {x} + ({x} | c)", frame) for x in ("x", "t"))
    assert far == WaldTest(pytest.approx(near.statistic, rel=1e-6), near.d1, near.d2)
