"""Laplace's approximation for many parts and draws together, against one part after the other."""

from __future__ import annotations

import numpy as np
import pytest
from component_cases import FAMILIES, data_of, joint_case, some_values

from ranef.design.design import without_rows
from ranef.likelihood.generalized.gauss_hermite import rule
from ranef.likelihood.generalized.wholes import whole
from ranef.posterior.generalized_posterior import joint_of

RIGHT = {
    "crossed": "x + (1 | g) + (1 | h)",
    "crossed slopes": "(x | g) + (x || h)",
    "nested": "x + (1 | s/g)",
    "no fixed effects": "0 + (1 | g) + (1 | h)",
}


def parts(design, count=4):
    """Return which rows stay without some levels of the first term."""
    return np.array([design.terms[0].codes != level for level in range(count)])


def one_by_one(design, family, priors, values, keep):
    """Return Laplace's approximation of the rows that stay, by the search for one point."""
    left = joint_of(without_rows(design, np.flatnonzero(~keep)), family, priors)
    zeros = left.model.zeros()
    return [left.model.log_likelihood(left.setting(value), zeros) for value in values]


@pytest.mark.parametrize("kind", RIGHT)
def test_parts_equal_designs_of_their_own(kind):
    design, joint, priors = joint_case(RIGHT[kind], "poisson")
    values, keep = some_values(joint), parts(design)
    found = whole(joint, np.arange(48)).fitted(values, keep)
    for part, own in enumerate(keep):
        expected = one_by_one(design, joint.model.family, priors, values, own)
        np.testing.assert_allclose(found.value[:, part], expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family):
    design, joint, priors = joint_case("x + (1 | g) + (1 | h)", family)
    values, keep = some_values(joint, 2), parts(design, 1)
    found = whole(joint, np.arange(48)).fitted(values, keep)
    expected = one_by_one(design, joint.model.family, priors, values, keep[0])
    np.testing.assert_allclose(found.value[:, 0], expected, atol=1e-4)


def test_the_start_does_not_matter():
    design, joint, _ = joint_case("x + (x | g) + (1 | h)", "bernoulli")
    values, keep = some_values(joint), parts(design)
    piece = whole(joint, np.arange(48))
    first = piece.fitted(values, np.ones((1, 48), dtype=bool))
    found = piece.fitted(values, keep, first.u)
    np.testing.assert_allclose(found.value, piece.fitted(values, keep).value, atol=1e-4)


def test_weights_that_are_negative_are_stepped_over():
    """Rows of a t distribution far from their mean have a negative observed weight."""
    data = data_of("t")
    data.loc[::5, "y"] += 9.0
    design, joint, priors = joint_case("x + (1 | g) + (1 | h)", "t", data)
    values, keep = some_values(joint, 8), parts(design, 2)
    values[:, joint.space.names.index("sigma")] *= 0.2
    values[:, -2:] = 3.0
    found = whole(joint, np.arange(48)).fitted(values, keep)
    assert (found.expansion.weight < 0).any()
    for part, own in enumerate(keep):
        expected = one_by_one(design, joint.model.family, priors, values, own)
        np.testing.assert_allclose(found.value[:, part], expected, atol=1e-3)


def test_a_mean_that_overflows_has_no_density_and_leaves_the_others_alone():
    design, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson")
    values, keep = some_values(joint), parts(design, 2)
    piece = whole(joint, np.arange(48))
    expected = piece.fitted(values, keep).value
    values[1, 0] += 1e4
    with np.errstate(all="ignore"):
        found = piece.fitted(values, keep).value
    assert (found[1] == -np.inf).all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-9)


@pytest.mark.parametrize(
    ("family", "off"), [("bernoulli", 1e-4), ("poisson", 5e-4), ("gamma", 3e-3)]
)
def test_single_rows_are_near_laplace_without_each(family, off):
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", family)
    values = some_values(joint)
    piece, rows = whole(joint, np.arange(48)), ~np.eye(48, dtype=bool)
    every = piece.fitted(values, np.ones((1, 48), dtype=bool))
    expected = every.value - piece.fitted(values, rows, every.u).value
    found, pull = piece.single_rows(values, rule(13, 1))
    assert pull.shape == found.shape == (3, 48)
    np.testing.assert_allclose(found, expected, atol=off)


def test_blocks_of_single_rows_do_not_matter(monkeypatch):
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson")
    values, piece = some_values(joint, 2), whole(joint, np.arange(48))
    together = piece.single_rows(values, rule(7, 1))[0]
    monkeypatch.setattr("ranef.likelihood.generalized.wholes.HELD", 2 * 48 * 5)
    np.testing.assert_allclose(piece.single_rows(values, rule(7, 1))[0], together, rtol=1e-12)
