"""Fewer levels with the same density: against the n x n covariance matrix, and what is alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designs import REPEATED, dense, random_factors, repeated_frame

from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.equal_levels import condensed
from ranef.likelihood.linear.reml import criterion, profiled


def both(formula, frame):
    design = build_design(read_formula(formula), frame, weights="w")
    cross = cross_products(design)
    return design, cross, condensed(cross)


def levels(cross):
    return sum(cross.n_levels)


@pytest.fixture(params=REPEATED, scope="module")
def case(request):
    formula = REPEATED[request.param]
    return both(formula, repeated_frame(schools=40 if "/" in formula else 20))


def test_criteria_are_those_of_the_dense_covariance_matrix(case):
    design, cross, fewer = case
    assert levels(fewer) < 0.8 * levels(cross)
    Lambdas = random_factors(cross, 1)
    expected = dense(design, cross, Lambdas)
    factorized = blocked_cholesky.factorize(fewer, Lambdas)
    deviance, reml = (profiled(factorized, reml=reml) for reml in (False, True))
    assert deviance.value == pytest.approx(expected.deviance, rel=1e-12)
    assert reml.value == pytest.approx(expected.reml, rel=1e-12)
    assert reml.r2 == pytest.approx(expected.r2, rel=1e-10)


@pytest.mark.parametrize("zero", [False, True])
def test_gradients_are_those_of_all_levels(case, zero):
    _, cross, fewer = case
    theta = np.random.default_rng(3).normal(size=sum(c.n_theta for c in cross.covariances))
    theta[0] *= not zero
    for reml in (True, False):
        _, expected = criterion(cross, theta, reml=reml)
        _, gradient = criterion(fewer, theta, reml=reml)
        np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9)


def test_every_level_is_counted(case):
    _, cross, fewer = case
    for all_levels, link in zip(cross.chain, fewer.chain, strict=True):
        assert link.counts.sum() == len(all_levels.front)


def test_levels_of_two_designs_become_their_means_and_what_varies_between_them():
    frame = repeated_frame()
    frame = frame[frame["c"] % 3 != 0]
    _, cross, fewer = both("y ~ x + (x | c)", frame)
    kinds = {tuple(sorted(xs)) for _, xs in frame.groupby("c")["x"]}
    assert cross.n_levels == (40,)
    # X lies in the span of Z, so that of each kind a mean and the two sums with y are left
    assert fewer.n_levels == (3 * len(kinds),)


def test_balanced_nesting_leaves_the_strata():
    rng = np.random.default_rng(2)
    school, pupil, _ = (a.ravel() for a in np.meshgrid(*map(range, (12, 5, 3)), indexing="ij"))
    frame = pd.DataFrame({"s": school, "c": school * 5 + pupil, "y": rng.normal(size=180), "w": 1})
    _, cross, fewer = both("y ~ 1 + (1 | s/c)", frame)
    assert cross.n_levels == (60, 12)
    assert fewer.n_levels == (3, 2)  # the mean, and one contrast of each stratum


def test_trees_are_alike_whatever_the_order_of_their_branches():
    rng, rows = np.random.default_rng(3), []
    for s in range(12):
        rows += [
            (s, f"{s}-{i}") for i, n in enumerate(rng.permutation([1, 2, 4])) for _ in range(n)
        ]
    frame = pd.DataFrame(rows, columns=["s", "c"])
    frame["y"], frame["w"] = rng.normal(size=len(frame)), 1.0
    _, _, fewer = both("y ~ 1 + (1 | s/c)", frame)
    assert fewer.n_levels == (3 * 4, 4)  # a mean, and contrasts of three classes with y


def test_few_levels_of_one_kind_are_left_alone():
    frame = repeated_frame()
    frame["x"] += np.random.default_rng(1).normal(size=len(frame))
    for formula in ("y ~ x + (x | c)", "y ~ x + (x | s/c)", "y ~ x + (x | c) + (1 | i)"):
        _, cross, fewer = both(formula, frame)
        assert fewer is cross


def test_designs_that_differ_by_more_than_rounding_are_not_the_same():
    frame = repeated_frame()
    _, _, fewer = both("y ~ x + (x | c)", frame)
    frame["x"] *= 1 + 1e-15 * np.random.default_rng(1).normal(size=len(frame))
    assert levels(both("y ~ x + (x | c)", frame)[2]) == levels(fewer)
    frame["x"] *= 1 + 1e-9 * np.random.default_rng(1).normal(size=len(frame))
    assert levels(both("y ~ x + (x | c)", frame)[2]) == 60


def test_few_evaluations_of_a_small_model_are_not_worth_it():
    _, cross, fewer = both("y ~ x + (x | c)", repeated_frame())
    assert condensed(cross, evaluations=10) is cross
    assert levels(condensed(cross, evaluations=1e4)) == levels(fewer)
