"""The covariance of random effects given the data against dense inverses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ranef.design.design import build_design
from ranef.design.groups import components_of
from ranef.formula.terms import read_formula
from ranef.leave_one_out.effects_given_data import RandomEffects
from ranef.numerics import matrices


def frame(n=90, seed=1):
    rng = np.random.default_rng(seed)
    inner = rng.integers(0, 14, n)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
            "i": inner.astype(str),
            "o": (inner // 4).astype(str),
            "c": rng.integers(0, 11, n).astype(str),
        }
    )


STRUCTURES = [
    "y ~ 1",
    "y ~ 1 + (1 | i)",
    "y ~ 1 + (x | i) + (0 + z | i)",
    "y ~ 1 + (x | c) + (1 | i)",
    "y ~ 1 + (1 | c) + (x + z | o)",
    "y ~ 1 + (1 | o) + (x | i)",
    "y ~ 1 + (1 | o/i) + (0 + x || c)",
]


def dense(formula, points=3, seed=2):
    """Return effects with Z'Z, columns, factors, and Y as dense matrices."""
    rng = np.random.default_rng(seed)
    design = build_design(read_formula(formula), frame())
    components = components_of(design)
    m, K = components.count, components.size
    columns = [term.columns for term in design.rows.terms]
    Z = np.zeros((m, design.n_obs, K))
    wide = np.column_stack([*columns, np.empty((design.n_obs, 0))])
    for i, (row, places) in enumerate(zip(components.row, components.columns, strict=True)):
        Z[row, i, places] = wide[i]
    D = Z.swapaxes(1, 2) @ Z
    sizes = [c.shape[1] for c in columns]
    Lambdas = [np.tril(rng.normal(size=(points, k, k))) for k in sizes]
    Y = np.zeros((m, K, K, points))
    for q in range(points):
        Lambda = np.zeros((K, K))
        for slots, factor in zip(components.slots, Lambdas, strict=True):
            for slot in slots:
                Lambda[slot, slot] = factor[q]
        for row in range(m):
            M = Lambda.T @ D[row] @ Lambda + np.eye(K)
            Y[row, :, :, q] = Lambda @ np.linalg.solve(M, Lambda.T)
    return RandomEffects.of(components, design.rows.terms, D), components, Lambdas, Y


@pytest.mark.parametrize("largest", [8, 0], ids=["elementwise", "LAPACK"])
@pytest.mark.parametrize("formula", STRUCTURES)
def test_equals_the_dense_inverse(formula, largest, monkeypatch):
    monkeypatch.setattr(matrices, "MAX_ELEMENTWISE_SIZE", largest)
    effects, components, Lambdas, expected = dense(formula)
    m, K = components.count, components.size
    found = effects.given_data(Lambdas, 3)
    every = np.tile(np.arange(K), (m, 1))
    np.testing.assert_allclose(found.among(np.arange(m), every), expected, atol=1e-10)
    some = np.random.default_rng(3).integers(0, max(K, 1), (7, min(K, 4)))
    component = np.arange(7) % m
    among = expected[component[:, None, None], some[:, :, None], some[:, None]]
    np.testing.assert_allclose(found.among(component, some), among, atol=1e-10)
    C = np.random.default_rng(4).normal(size=(m, K, 2))
    np.testing.assert_allclose(found.times(C), np.einsum("mijq,mjf->mifq", expected, C), atol=1e-10)


def test_the_factor_with_most_effects_is_eliminated_first():
    effects, *_ = dense("y ~ 1 + (1 | o) + (x | i) + (0 + z | i)")
    assert effects.first == (0, 1)  # the design has terms with many levels first
    assert effects.front.shape[1] == 3
    assert effects.size < effects.D.size * 3
    wide, *_ = dense("y ~ 1 + (1 | c) + (x | i)")
    assert wide.front.shape == (14, 2)
    assert wide.operations < wide.D.shape[1] ** 3
