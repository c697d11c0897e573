"""Which columns the rows of each group determine."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.fits.no_pooling.own_columns import factor_of, own_regressions

CODES = np.repeat([0, 1, 2], 4)


def test_the_map_gives_least_squares_in_each_group():
    rng = np.random.default_rng(1)
    Z, X, y = np.c_[np.ones(12), rng.normal(size=12)], rng.normal(size=(12, 1)), rng.normal(size=12)
    weights = rng.uniform(0.5, 2, 12)
    found = own_regressions(Z, X, weights, CODES, 3)
    for group, coefs in enumerate(found.coefficients(y)):
        rows = group == CODES
        M, root = np.c_[Z, X][rows], np.sqrt(weights[rows])[:, None]
        inverse = np.linalg.inv((M * root).T @ (M * root))
        expected = inverse @ (M * root).T @ (y[rows] * root[:, 0])
        np.testing.assert_allclose(coefs, expected, rtol=1e-9)
        np.testing.assert_allclose(found.variances[group], np.diag(inverse), rtol=1e-9)
    assert found.determined.all()
    assert not found.aliased.any()
    assert found.ranks.tolist() == [3, 3, 3]


def test_what_is_determined_is_told_coefficient_by_coefficient():
    x = np.array([0.0, 0, 0, 0, 2, 2, 2, 2, 0, 1, 2, 3])
    found = own_regressions(np.c_[np.ones(12), x], np.empty((12, 0)), np.ones(12), CODES, 3)
    assert found.determined.tolist() == [[True, False], [False, False], [True, True]]
    assert found.ranks.tolist() == [1, 1, 2]


def test_other_columns_give_way_to_those_of_the_factor():
    x = np.array([5.0, 5, 5, 5, 0, 0, 0, 0, 0, 1, 2, 3])
    X = np.c_[x, 2 * x]
    found = own_regressions(np.ones((12, 1)), X, np.ones(12), CODES, 3)
    assert found.aliased.tolist() == [[True, True], [True, True], [False, True]]
    assert found.determined[:, 0].all()
    np.testing.assert_array_equal(found.columns[:4, 1:], 0.0)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_units_do_not_decide(unit):
    x = np.random.default_rng(2).normal(size=12)
    plain, scaled = (
        own_regressions(np.c_[np.ones(12), x * u], np.empty((12, 0)), np.ones(12), CODES, 3)
        for u in (1.0, unit)
    )
    np.testing.assert_allclose(scaled.map * [1.0, unit], plain.map, rtol=1e-6, atol=1e-12)


def test_a_column_of_zeros_is_not_determined_anywhere():
    found = own_regressions(np.zeros((12, 1)), np.empty((12, 0)), np.ones(12), CODES, 3)
    assert not found.determined.any()
    assert found.counts.tolist() == [4, 4, 4]


def test_groups_of_any_size_stay_apart():
    codes = np.array([2, 0, 2, 1, 2, 0])
    y = np.array([1.0, 2, 4, 8, 16, 32])
    found = own_regressions(np.ones((6, 1)), np.empty((6, 0)), np.ones(6), codes, 3)
    np.testing.assert_allclose(found.coefficients(y)[:, 0], [17.0, 8.0, 7.0])


def test_the_terms_of_a_factor_are_one():
    data = rf.load_dataset("sleepstudy")
    for random in ("(Days || Subject)", "(1 | Subject) + (0 + Days | Subject)"):
        design = rf.Model(f"Reaction ~ Days + {random}", data).design
        factor = factor_of(design, "Subject")
        assert factor.coefs == ("Intercept", "Days")
        np.testing.assert_array_equal(factor.columns, design.rows.X)
        np.testing.assert_allclose(factor.fixed_shares, np.eye(2), atol=1e-12)
        assert len(factor.others) == 0


def test_the_covariance_of_a_factor_has_all_its_terms():
    data = rf.load_dataset("sleepstudy")
    one = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data)
    factor = factor_of(one.design, "Subject")
    covs = {label: cov.to_numpy() for label, cov in one.varcorr().cov.items()}
    sds = [one.varcorr().sd[label].iloc[0] for label in ("Subject", "Subject_1")]
    np.testing.assert_allclose(factor.covariance(covs), np.diag(np.square(sds)))


def test_levels_may_be_anything():
    data = pd.DataFrame({"y": [1.0, 2, 4, 8], "g": [3, 3, -1, -1]})
    factor = factor_of(rf.Model("y ~ 1 + (1 | g)", data).design, "g")
    assert factor.levels.tolist() == [-1, 3]
    assert factor.name == "g"
