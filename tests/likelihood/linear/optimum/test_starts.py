"""Starts by moments against analysis of variance and what was simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designs import random_frame

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.expected_information import inner_products
from ranef.likelihood.linear.optimum.starts import (
    GREAT_SIZE,
    all_starts,
    far_starts,
    moment_start,
    multiple_of_identity,
    no_pooling_starts,
    starts_beside,
    starts_from,
    with_one_more,
    without_one,
)


def users_factor(cross, theta, term=0):
    """Return the factor of a term on the user's scale."""
    Lambda = factors(theta, cross.covariances)[term]
    return np.linalg.solve(cross.bases[term], Lambda)


def test_of_a_balanced_layout_it_is_the_estimate():
    """Moments are those of the analysis of variance, and so is REML."""
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    cross = cross_products(model.design)
    theta = users_factor(cross, moment_start(cross))
    assert theta.item() == pytest.approx(model.fit().theta[0], rel=1e-9)


def test_a_model_of_many_levels_starts_near_its_end():
    rng = np.random.default_rng(1)
    g, h = rng.integers(0, 1000, 10_000), rng.integers(0, 200, 10_000)
    x = rng.normal(size=10_000)
    root = np.array([[0.8, 0.0], [-0.4, 0.5]])
    b = rng.normal(size=(1000, 2)) @ root.T
    y = 3 + b[g, 0] + b[g, 1] * x + 0.6 * rng.normal(size=200)[h] + rng.normal(size=10_000)
    frame = pd.DataFrame({"y": y, "x": 5 + x, "g": g, "h": h})
    cross = cross_products(rf.Model("y ~ x + (x | g) + (1 | h)", frame).design)
    theta = moment_start(cross, inner_products(cross))
    np.testing.assert_array_equal(theta, moment_start(cross))
    origin = np.array([[1.0, -5.0], [0.0, 1.0]])
    found = users_factor(cross, theta)
    np.testing.assert_allclose(found @ found.T, origin @ root @ root.T @ origin.T, rtol=0.15)
    assert users_factor(cross, theta, 1).item() == pytest.approx(0.6, rel=0.15)


def test_a_variance_below_zero_starts_small_and_a_great_one_does_not_end_the_world():
    frame = rf.load_dataset("Dyestuff2")
    cross = cross_products(rf.Model("Yield ~ 1 + (1 | Batch)", frame).design)
    assert moment_start(cross) == pytest.approx([0.1])
    between = frame["Batch"].astype("category").cat.codes
    frame = frame.assign(Yield=1e9 * between + 1e-9 * frame["Yield"])
    cross = cross_products(rf.Model("Yield ~ 1 + (1 | Batch)", frame).design)
    assert 10 < moment_start(cross).item() <= 100


def test_starts_of_small_samples():
    frame = random_frame(np.random.default_rng(2), 60)
    cross = cross_products(rf.Model("y ~ x + (x | c) + (1 | i)", frame).design)
    start = np.ones(4)
    one, *others = starts_from(start, cross.covariances, several=True)
    assert one is start
    assert [other.tolist() for other in others] == [[1, 0, 1, 1], [3, 0, 3, 3]]
    assert starts_from(start, cross.covariances, several=False) == [start]
    great, up, down = far_starts(cross.covariances)
    np.testing.assert_array_equal(great, multiple_of_identity(GREAT_SIZE, cross.covariances))
    for theta, sign in ((up, 1), (down, -1)):
        Lambda = factors(theta, cross.covariances)[0]
        cov = Lambda @ Lambda.T
        assert cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1]) == pytest.approx(sign, abs=0.02)
    assert len(all_starts(start, cross.covariances, several=True)) == 6
    assert all_starts(start, cross.covariances, several=False) == [start]
    assert far_starts(()) == []


def test_starts_beside_an_optimum_leave_one_coefficient_out():
    frame = random_frame(np.random.default_rng(2), 60)
    covariances = cross_products(rf.Model("y ~ x + (x | c) + (1 | i)", frame).design).covariances
    found = without_one(np.array([2.0, 0.5, 3.0, 7.0]), covariances)
    assert [theta.tolist() for theta in found] == [
        pytest.approx([0, 0, np.hypot(0.5, 3), 7]),  # of the slope, whose sd stays
        [2, 0, 0, 7],
        [2, 0.5, 3, 0],
    ]
    assert len(without_one(np.array([2.0, 0.5, 3.0, 0.0]), covariances)) == 2
    assert without_one(np.array([2.0]), covariances[1:]) == []


def test_starts_beside_a_singular_optimum_have_what_it_lacks():
    frame = random_frame(np.random.default_rng(2))
    covariances = cross_products(rf.Model("y ~ x + (x | c) + (1 | i)", frame).design).covariances
    one, other = with_one_more(np.array([2.0, 2.0, 0.0, 0.0]), covariances)
    before, after = (factors(np.array(x), covariances)[0] for x in ([2.0, 2.0, 0.0, 0.0], one))
    change = after @ after.T - before @ before.T  # of a combination that had no variance
    np.testing.assert_allclose(change, GREAT_SIZE**2 * np.array([[1, -1], [-1, 1]]) / 2)
    assert one[3] == 0
    np.testing.assert_allclose(other, [2, 2, 0, GREAT_SIZE])
    assert with_one_more(np.array([2.0, 2.0, 1.0, 1.0]), covariances) == []
    assert with_one_more(np.empty(0), ()) == []
    few, many = (starts_beside(one, covariances, few=few) for few in (True, False))
    assert len(few) == len(many) + 2


def test_the_start_without_pooling_is_least_squares_of_all_levels():
    frame = random_frame(np.random.default_rng(1), 60)
    cross = cross_products(rf.Model("y ~ x + (1 | i)", frame).design)
    [(theta, sigma)] = no_pooling_starts(cross, cross.covariances)
    dummies = (frame["i"].to_numpy()[:, None] == np.arange(7)).astype(float)
    columns = np.column_stack([dummies, frame["x"]])
    estimates, rss, _, _ = np.linalg.lstsq(columns, frame["y"].to_numpy())
    assert sigma**2 == pytest.approx(rss.item() / (60 - 2 - 7), rel=1e-6)
    spread = np.mean((estimates[:7] - estimates[:7].mean()) ** 2)
    assert users_factor(cross, theta).item() ** 2 == pytest.approx(spread / sigma**2, rel=1e-6)


def test_without_rows_to_spare_there_is_no_start_without_pooling():
    frame = pd.DataFrame({"y": np.arange(6.0) ** 2, "g": np.arange(6)})
    cross = cross_products(rf.Model("y ~ 1 + (1 | g)", frame.iloc[[0, 1, 2, 3, 4, 5, 5]]).design)
    assert no_pooling_starts(cross, cross.covariances) == []
