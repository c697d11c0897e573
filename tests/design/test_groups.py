"""Grouping factors by hand; the components of a design against a search through its rows."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES, random_design

from ranef.design.groups import by_factor, chain_of, components_of, is_nested, transposed


def component_by_search(design):
    """Return a number for each row: rows that share a level of any term are joined."""
    found = np.arange(design.n_obs)
    for _ in range(design.n_obs):
        before = found.copy()
        for term in design.rows.terms:
            for level in range(term.n_levels):
                rows = term.codes == level
                found[rows] = found[rows].min()
        if (found == before).all():
            break
    return found


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
def test_components(formula):
    design = random_design(formula, 1, n=30)
    found = components_of(design)
    expected = component_by_search(design) if design.terms else np.zeros(30)
    same = expected[:, None] == expected
    np.testing.assert_array_equal(found.row[:, None] == found.row, same)
    assert found.count == len(np.unique(expected))
    assert found.size == sum(
        len(own) * t.n_coefs for own, t in zip(found.slots, design.terms, strict=True)
    )
    most = [
        max(len(np.unique(t.codes[expected == c])) for c in np.unique(expected))
        for t in design.rows.terms
    ]
    assert [len(own) for own in found.slots] == most


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
def test_places(formula):
    """Two rows of a component have the same place in a term if and only if they share its level."""
    design = random_design(formula, 2, n=40)
    found, start = components_of(design), 0
    same = found.row[:, None] == found.row
    for own, term in zip(found.slots, design.rows.terms, strict=True):
        places = found.columns[:, start : start + term.n_coefs]
        starts = np.array([slot.start for slot in own])
        assert set(places[:, 0]) <= set(starts)
        np.testing.assert_array_equal(places, places[:, :1] + np.arange(term.n_coefs))
        assert all(slot.stop - slot.start == term.n_coefs for slot in own)
        equal = places[:, :1] == places[:, 0]
        np.testing.assert_array_equal(equal[same], (term.codes[:, None] == term.codes)[same])
        start += term.n_coefs
    assert found.columns.shape == (40, start)


@pytest.mark.parametrize(
    ("formula", "count", "size"),
    [
        ("y ~ x", 1, 0),
        ("y ~ x + (x | c)", 12, 2),
        ("y ~ x + (1 | s/c)", 4, 4),
        ("y ~ x + (1 | i) + (1 | j)", 1, 12),
    ],
)
def test_counts(formula, count, size):
    found = components_of(random_design(formula, 3, n=150))
    assert (found.count, found.size) == (count, size)


@pytest.mark.parametrize(
    ("formula", "chain"),
    [
        ("y ~ (1 | c)", ["c"]),
        ("y ~ (1 | r/s/c)", ["c:s:r", "s:r", "r"]),
        ("y ~ (1 | c) + (1 | i)", ["c"]),
        ("y ~ (1 | i) + (1 | c) + (1 | s)", ["c", "s"]),
        ("y ~ (1 | c) + (0 + x | c) + (1 | r)", ["c", "c", "r"]),
        ("y ~ x", []),
    ],
)
def test_the_chain_goes_on_with_every_factor_that_the_last_is_nested_in(formula, chain):
    terms = random_design(formula, 0).rows.terms
    inside, outside = chain_of(terms)
    assert [terms[i].factor for i in inside] == chain
    assert sorted(inside + outside) == list(range(len(terms)))


def test_nesting():
    assert is_nested(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 1]))
    assert not is_nested(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 0]))


def test_terms_by_factor():
    terms = random_design("y ~ (1 | s) + (1 | c) + (0 + x | c) + (z | i)", 0).rows.terms
    found = by_factor(terms)
    assert sorted(map(len, found)) == [1, 1, 2]
    sizes = [sum(t.n_levels * t.n_coefs for t in group) for group in found]
    assert sizes == sorted(sizes, reverse=True)
    assert all(len({t.factor for t in group}) == 1 for group in found)


def test_z_transposed():
    (term,) = random_design("y ~ (x | c)", 0, n=20).rows.terms
    found = transposed(term.codes, term.columns, term.n_levels).toarray()
    rows = found.reshape(term.n_levels, term.n_coefs, 20)
    for i, code in enumerate(term.codes):
        np.testing.assert_array_equal(rows[code, :, i], term.columns[i])
    assert np.count_nonzero(found) == np.count_nonzero(term.columns)
