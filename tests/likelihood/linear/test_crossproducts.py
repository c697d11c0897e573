"""Cross-products: the basis, the chain of nested factors, the products of sparse rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, random_design, random_frame

import ranef as rf
from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import crossproducts
from ranef.likelihood.linear.crossproducts import (
    cross_products,
    residual_sums,
    spanned_terms,
)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_the_basis_is_well_conditioned(formula):
    design = random_design(formula, 1)
    cross = cross_products(design)
    p = cross.p
    np.testing.assert_allclose(cross.rest[-1 - p : -1, -1 - p : -1], np.eye(p), atol=1e-12)
    np.testing.assert_allclose(cross.rest[-1, -1 - p : -1], 0, atol=1e-9)
    for term, T in zip(design.terms, cross.bases, strict=True):
        columns = (
            np.linalg.solve(T.T, design.rows.term(term.label).columns.T).T
            * np.sqrt(design.rows.weights)[:, None]
        )
        np.testing.assert_allclose(np.mean(columns**2, axis=0), 1.0)
        if term.covariance.has_correlations:
            np.testing.assert_allclose(
                columns.T @ columns / len(columns), np.eye(term.n_coefs), atol=1e-10
            )


def test_terms_that_the_fixed_columns_contain():
    frame = random_frame(np.random.default_rng(0))
    frame["c"] = frame["c"].astype(str)
    for formula, expected in {
        "y ~ c + (1 | c)": ["c"],
        "y ~ c + (x | c)": [],
        "y ~ x + (1 | c)": [],
        "y ~ c + (1 | i) + (1 | s)": ["s"],
    }.items():
        design = full_rank(build_design(read_formula(formula), frame, weights="w"))
        found = spanned_terms(cross_products(design))
        assert [design.terms[i].factor for i in found] == expected, formula


def test_residual_sums_are_those_of_the_rows():
    design = random_design(STRUCTURES["nested and crossed"], 2)
    cross = cross_products(design)
    y = cross.rest[-1, -1]
    for term, D, sums in residual_sums(cross):
        assert D.shape == sums.shape == (design.terms[term].n_levels, design.terms[term].n_coefs)
        assert (sums**2 <= D * y * (1 + 1e-9)).all()  # Cauchy and Schwarz


@pytest.mark.parametrize("share", [0.0, 2.0])
def test_the_rest_is_whole_however_it_is_stored(monkeypatch, share):
    design = random_design(STRUCTURES["crossed slopes"], 3)
    expected = cross_products(design).rest
    monkeypatch.setattr(crossproducts, "SPARSE_SIZE", 0)
    monkeypatch.setattr(crossproducts, "SPARSE_SHARE", share)
    cross = cross_products(design)
    assert isinstance(cross.inner, np.ndarray) == (share == 0)
    np.testing.assert_array_equal(cross.rest, expected)
    S = np.zeros((cross.q_rest, cross.q_rest), order="F")
    cross.add_inner(S)
    np.testing.assert_array_equal(S, expected[: cross.q_rest, : cross.q_rest])


def test_only_the_head_of_a_chain_has_sparse_rows(monkeypatch):
    monkeypatch.setattr(crossproducts, "SPARSE_SIZE", 0)
    monkeypatch.setattr(crossproducts, "SPARSE_SHARE", 2.0)
    cross = cross_products(random_design(STRUCTURES["nested and crossed"], 0))
    assert [link.rest.is_dense for link in cross.chain] == [False, True]


@pytest.mark.parametrize("fixed", ["x", "0 + f + x", "f"])
def test_whole_numbers_far_from_zero_lose_nothing(fixed):
    """At 1e15 the distance of neighbouring numbers is 1/8: the level of y is taken off exactly."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame({"x": rng.normal(size=60), "f": rng.choice(list("uvw"), 60)})
    frame["g"] = np.arange(60) % 8
    frame["y"] = np.rint(3 * rng.normal(size=8)[frame["g"]] + 2 * rng.normal(size=60))
    here, there = (
        rf.fit(f"y ~ {fixed} + (1 | g)", frame.assign(y=frame["y"] + level)) for level in (0, 1e15)
    )
    np.testing.assert_allclose([*there.theta, there.sigma], [*here.theta, here.sigma], rtol=1e-7)
    for name in set(here.fixef().index) - {"Intercept", "f[u]", "f[v]", "f[w]"}:
        assert there.fixef()[name] == pytest.approx(here.fixef()[name], rel=1e-7)
