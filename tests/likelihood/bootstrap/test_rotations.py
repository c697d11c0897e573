"""Rotated levels have the same sums of squares and products in the metric of any Y."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.likelihood.bootstrap.rotations import rotation

RNG = np.random.default_rng(1)
K, W, Q, B = 2, 5, 2, 3


def levels(sizes, *, constant):
    """Return D, C and responses of kinds of so many levels; X is constant in a kind or not."""
    kinds = RNG.permutation(np.repeat(np.arange(len(sizes)), sizes))
    root = RNG.normal(size=(len(sizes), 4, K))
    D, C = (root.mT @ root)[kinds], RNG.normal(size=(len(sizes), K, W))[kinds]
    if not constant:
        C[:, 1, Q + 1 :] += RNG.normal(size=(len(C), W - Q - 1))
    return D, C, RNG.normal(size=(B, len(C), K))


def products(D, C, counts, c, Lambda):
    """Return the log determinants, and the products of [C c] in the metric of Y, summed."""
    M = np.eye(K) + Lambda.T @ D @ Lambda
    Y = Lambda @ np.linalg.solve(M, Lambda.T)
    both = [np.concatenate([C, one[:, :, None]], axis=2) for one in c]
    sums = np.array([(x.mT @ Y @ x).sum(axis=0) for x in both])
    return counts @ np.log(np.linalg.det(M)), sums


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("sizes", [[40, 1, 17, 2, 8], [12], [1, 1, 1, 2]])
def test_sums_over_levels_are_the_same(sizes, constant):
    D, C, c = levels(sizes, constant=constant)
    rotated = rotation(D, C, Q)
    fewer = 1 + (0 if constant else W - Q - 1) + K
    assert len(rotated.D) == sum(min(n, fewer) if n > fewer else n for n in sizes)
    assert rotated.counts.sum() == len(D)
    Lambda = np.array([[1.3, 0.0], [-0.4, 0.7]])
    expected = products(D, C, np.ones(len(D)), c, Lambda)
    found = products(rotated.D, rotated.C, rotated.counts, rotated.sums(c), Lambda)
    assert found[0] == pytest.approx(expected[0], rel=1e-13)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-12)


def test_levels_with_other_crossed_effects_are_not_equal():
    D, C, _ = levels([12], constant=True)
    C[:6, 0, 0] += 1
    assert len(rotation(D, C, Q).D) == 2 * (1 + K)
    C[:, 0, 0] += np.arange(12)
    assert len(rotation(D, C, Q).D) == 12


def test_no_other_columns():
    D, C, c = levels([12], constant=True)
    rotated = rotation(D, C[:, :, :0], 0)
    assert rotated.C.shape == (1 + K, K, 0)
    assert rotated.sums(c).shape == (B, 1 + K, K)


def test_no_levels():
    empty = rotation(np.zeros((0, 0, 0)), np.zeros((0, 0, 3)), 0)
    assert len(empty.D) == len(empty.batches) == 0
