"""Pieces that are independent given the parameters, and their densities by quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from component_cases import FAMILIES, by_integration, data_of, joint_case, some_values

from ranef.leave_one_out import components
from ranef.leave_one_out.components import cavities, signed_pieces, single_rows
from ranef.likelihood.generalized import pieces
from ranef.likelihood.generalized.gauss_hermite import rule
from ranef.likelihood.generalized.many_modes import Parts
from ranef.likelihood.generalized.pieces import components_of_rows, piece_of


def rows_of(joint, piece, values, nodes):
    """Return the log predictive densities of single rows."""
    points_at, start = joint.points_at(values, piece.rows), joint.modes_at_start(piece)
    return single_rows(piece, points_at, len(values), start=start, nodes=nodes)


def test_rows_that_share_no_level_are_pieces():
    frame = data_of("poisson").assign(
        g=[0, 0, 1, 1, 2, 2, 3, 3] * 6, h=[0, 1, 1, 2, 3, 3, 4, 4] * 6
    )
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson", frame)
    problem = joint.model.problem
    pieces = components_of_rows(problem, np.arange(48))
    assert [sorted(set(piece % 8)) for piece in pieces] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert all((np.diff(piece) > 0).all() for piece in pieces)
    # without the rows of g 0 and h 1, and g 1 and h 1, there is nothing that joins the others
    left = components_of_rows(problem, np.array([0, 3, 8, 11]))
    assert [list(piece) for piece in left] == [[0, 8], [3, 11]]


def test_without_terms_every_row_is_a_piece():
    _, joint, _ = joint_case("x", "poisson")
    assert [list(piece) for piece in components_of_rows(joint.model.problem, np.array([4, 7]))] == [
        [4],
        [7],
    ]


def test_what_a_set_of_rows_adds_is_what_is_around_it_less_what_is_left():
    _, joint, _ = joint_case("x + (1 | s/g)", "poisson")
    problem = joint.model.problem
    g = np.arange(48) % 8
    sets = [np.flatnonzero(g == 0), np.flatnonzero(g // 2 == 1), np.flatnonzero(g <= 2)]
    pieces, around, signs = signed_pieces(problem, sets)
    contents = [tuple(sorted(set(g[piece]))) for piece in pieces]
    assert contents == [(0, 1), (1,), (2, 3), (3,)]
    np.testing.assert_array_equal(signs.toarray(), [[1, -1, 0, 0], [0, 0, 1, 0], [1, 0, 1, -1]])
    assert [tuple(sorted(set(g[one]))) for one in around] == [(0, 1), (0, 1), (2, 3), (2, 3)]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("family", FAMILIES)
def test_levels_and_rows_equal_numerical_integration(family):
    _, joint, _ = joint_case("x + (1 | g)", family)
    values = some_values(joint, 2)
    levels = components_of_rows(joint.model.problem, np.arange(48))
    alike = piece_of(joint.model.problem, levels)
    found = joint.log_densities(alike, values, rule(25, 1))
    singles = rows_of(joint, alike, values, rule(49, 1))
    for s, value in enumerate(values):
        log_p = by_integration(joint, value)
        exact = [log_p(rows) for rows in levels]
        np.testing.assert_allclose(found[s], exact, atol=1e-5)
        rows = [log_p(own) - log_p(own[own != i]) for own in levels for i in own]
        np.testing.assert_allclose(singles[s], rows, atol=1e-3)


def test_vectors_of_effects_equal_numerical_integration():
    _, joint, _ = joint_case("x + (x | g)", "poisson")
    (value,) = some_values(joint, 1)
    alike = piece_of(joint.model.problem, components_of_rows(joint.model.problem, np.arange(48)))
    log_p = by_integration(joint, value)
    found = joint.log_densities(alike, value[None], rule(13, 2))[0]
    singles = dict(zip(alike.rows, rows_of(joint, alike, value[None], rule(25, 2))[0], strict=True))
    for level, rows in enumerate(components_of_rows(joint.model.problem, np.arange(48))):
        assert found[level] == pytest.approx(log_p(rows), abs=1e-5)
        assert singles[rows[1]] == pytest.approx(
            log_p(rows) - log_p(rows[rows != rows[1]]), abs=1e-4
        )


@pytest.mark.parametrize("right", ["x + (x || g)", "(1 | g) + (0 + x | g)", "x + (1 | g)"])
def test_levels_add_up_to_the_likelihood_of_all(right):
    _, joint, _ = joint_case(right, "negative_binomial")
    values = some_values(joint)
    pieces = components_of_rows(joint.model.problem, np.arange(48))
    found = joint.log_densities(
        piece_of(joint.model.problem, pieces),
        values,
        rule(9, sum(s.k for s in joint.model.covariances)),
    )
    zeros = joint.model.zeros()
    expected = [joint.model.log_likelihood(joint.setting(v), zeros, 9) for v in values]
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    _, joint, _ = joint_case("x + (1 | g)", "poisson")
    values = some_values(joint, 7)
    alike = piece_of(joint.model.problem, components_of_rows(joint.model.problem, np.arange(48)))
    together = joint.log_densities(alike, values, rule(9, 1))
    monkeypatch.setattr(pieces, "CHUNK", 3 * 48)
    np.testing.assert_allclose(joint.log_densities(alike, values, rule(9, 1)), together, rtol=1e-10)


@pytest.mark.parametrize(
    ("family", "off"), [("bernoulli", 1e-4), ("poisson", 5e-4), ("gamma", 3e-3)]
)
def test_single_rows_are_near_laplace_without_each(family, off):
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", family)
    values = some_values(joint)
    piece, rows = piece_of(joint.model.problem, [np.arange(48)]), ~np.eye(48, dtype=bool)
    at = joint.points(values, piece.rows)
    start = np.zeros((1, 1, piece.q))
    every = Parts(piece, at, np.ones((1, 48), dtype=bool)).run(start)
    expected = every.laplace - Parts(piece, at, rows).run(np.repeat(every.u, 48, axis=1)).laplace
    found, pull = cavities(piece, at, start, rule(13, 1))
    assert pull.shape == found.shape == (3, 48)
    np.testing.assert_allclose(found, expected, atol=off)


def test_blocks_of_single_rows_do_not_matter(monkeypatch):
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson")
    piece = piece_of(joint.model.problem, [np.arange(48)])
    at = joint.points(some_values(joint, 2), piece.rows)
    together = cavities(piece, at, np.zeros((1, 1, piece.q)), rule(7, 1))[0]
    monkeypatch.setattr(components, "HELD", 2 * 48 * 5)
    np.testing.assert_allclose(
        cavities(piece, at, np.zeros((1, 1, piece.q)), rule(7, 1))[0], together, rtol=1e-12
    )
