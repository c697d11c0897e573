"""Centred columns: orthogonal to what they are made of, and unmoved by the origin."""

from __future__ import annotations

import numpy as np

from ranef.design.model_matrix import Origin
from ranef.priors.centring import centring, lower_columns, moved_coefs

NAMES = ("Intercept", "a", "b", "a:b")
ORIGINS = [Origin(i, frozenset(v)) for i, v in enumerate(["", "a", "b", "ab"])]


def columns(shift=0.0):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=30) + shift, rng.normal(size=30)
    return np.column_stack([np.ones(30), a, b, a * b])


def test_a_product_is_above_its_factors():
    assert lower_columns(ORIGINS) == [(), (0,), (0,), (0, 1, 2)]


def test_columns_of_one_term_are_not_below_each_other():
    origins = [Origin(0, frozenset()), *[Origin(1, frozenset("f"))] * 2, Origin(2, frozenset("f"))]
    assert lower_columns(origins) == [(), (0,), (0,), (0, 1, 2)]


def test_centred_columns_are_residuals_and_do_not_move_with_the_origin():
    lower = lower_columns(ORIGINS)
    centred = columns() @ centring(columns(), lower)
    for j, below in enumerate(map(list, lower)):
        np.testing.assert_allclose(columns()[:, below].T @ centred[:, j], 0, atol=1e-12)
    moved = columns(1e3) @ centring(columns(1e3), lower)
    np.testing.assert_allclose(moved, centred, atol=1e-8)


def test_an_empty_column_is_no_trouble():
    empty = columns()
    empty[:, 1] = empty[:, 3] = 0.0
    np.testing.assert_allclose(centring(empty, lower_columns(ORIGINS))[:2, :2], np.eye(2))


def test_which_coefficients_are_moved():
    change = centring(columns(), lower_columns(ORIGINS))
    assert moved_coefs(NAMES, change) == ("Intercept", "a", "b")
    assert moved_coefs(NAMES, None) == ()
