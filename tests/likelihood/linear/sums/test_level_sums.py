"""Sums by level and by pairs of levels, against dense matrices."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef._typing import Array
from ranef.design.rows.rows import Rows
from ranef.likelihood.linear.sums.level_sums import level_sums


def _rows() -> Rows:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"g": rng.integers(6, size=40), "h": rng.integers(4, size=40)})
    frame = frame.assign(k=frame["g"] // 2, x=rng.normal(size=40), y=rng.normal(size=40))
    frame["w"] = rng.uniform(1, 2, size=40)
    model = rf.Model("y ~ x + (x | g) + (1 | h) + (1 | k)", frame, weights="w")
    return model.design.rows


def _dense(rows: Rows, i: int, T: Array) -> Array:
    term = rows.terms[i]
    Z = np.zeros((len(rows.y), term.n_levels, term.n_coefs))
    columns = term.columns @ np.linalg.inv(T) * np.sqrt(rows.weights)[:, None]
    Z[np.arange(len(rows.y)), term.codes] = columns
    return Z.reshape(len(rows.y), -1)


def test_sums_of_rows_are_products_of_dense_matrices() -> None:
    rows = _rows()
    bases = [np.triu(np.full((term.n_coefs,) * 2, 2.0)) for term in rows.terms]
    fixed = np.random.default_rng(3).normal(size=(40, 3))
    sums, Z = level_sums(rows, bases, fixed), [_dense(rows, i, T) for i, T in enumerate(bases)]
    for i, one in enumerate(Z):
        np.testing.assert_allclose(sums.fixed(i), one.T @ fixed, atol=1e-12)
        for j, other in enumerate(Z):
            expected = one.T @ other
            np.testing.assert_allclose(
                sums.among([i, j]).toarray()[: len(expected), -other.shape[1] :],
                expected,
                atol=1e-12,
            )
    parent, products = sums.nested(0, 2)
    labels = {g: g // 2 for g in range(6)}
    np.testing.assert_array_equal(parent, [labels[g] for g in rows.terms[0].grouping.levels])
    within = (Z[0].T @ Z[2]).reshape(6, 2, 3)
    np.testing.assert_allclose(products[:, :, 0], within[np.arange(6), :, parent], atol=1e-12)


def test_data_without_pairs_have_the_levels_of_their_rows() -> None:
    rows = _rows()
    assert not rows.is_paired
    assert rows.levels_with(0, 1).tolist() == pytest.approx(range(6))
