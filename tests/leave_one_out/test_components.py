"""Pieces that are independent given the parameters, and their densities by quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from component_cases import FAMILIES, by_integration, data_of, joint_case, some_values

from ranef.leave_one_out.components import connected, signed_pieces, stack
from ranef.likelihood.generalized.gauss_hermite import rule


def test_rows_that_share_no_level_are_pieces():
    frame = data_of("poisson").assign(
        g=[0, 0, 1, 1, 2, 2, 3, 3] * 6, h=[0, 1, 1, 2, 3, 3, 4, 4] * 6
    )
    _, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson", frame)
    blocks = joint.model.problem.Z.blocks
    pieces = connected(blocks, np.arange(48))
    assert [sorted(set(piece % 8)) for piece in pieces] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert all((np.diff(piece) > 0).all() for piece in pieces)
    # without the rows of g 0 and h 1, and g 1 and h 1, there is nothing that joins the others
    left = connected(blocks, np.array([0, 3, 8, 11]))
    assert [list(piece) for piece in left] == [[0, 8], [3, 11]]


def test_without_terms_every_row_is_a_piece():
    _, joint, _ = joint_case("x", "poisson")
    assert [list(piece) for piece in connected(joint.model.problem.Z.blocks, np.array([4, 7]))] == [
        [4],
        [7],
    ]


def test_what_a_set_of_rows_adds_is_what_is_around_it_less_what_is_left():
    _, joint, _ = joint_case("x + (1 | s/g)", "poisson")
    blocks = joint.model.problem.Z.blocks
    g = np.arange(48) % 8
    sets = [np.flatnonzero(g == 0), np.flatnonzero(g // 2 == 1), np.flatnonzero(g <= 2)]
    pieces, around, signs = signed_pieces(blocks, 48, sets)
    contents = [tuple(sorted(set(g[piece]))) for piece in pieces]
    assert contents == [(0, 1), (1,), (2, 3), (3,)]
    np.testing.assert_array_equal(signs.toarray(), [[1, -1, 0, 0], [0, 0, 1, 0], [1, 0, 1, -1]])
    assert [tuple(sorted(set(g[one]))) for one in around] == [(0, 1), (0, 1), (2, 3), (2, 3)]


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("family", FAMILIES)
def test_levels_and_rows_equal_numerical_integration(family):
    _, joint, _ = joint_case("x + (1 | g)", family)
    values = some_values(joint, 2)
    levels = connected(joint.model.problem.Z.blocks, np.arange(48))
    alike = stack(joint, levels)
    found = alike.log_densities(values, rule(25, 1))
    singles = alike.single_rows(values, rule(49, 1))
    for s, value in enumerate(values):
        log_p = by_integration(joint, value)
        exact = [log_p(rows) for rows in levels]
        np.testing.assert_allclose(found[s], exact, atol=1e-5)
        rows = [log_p(own) - log_p(own[own != i]) for own in levels for i in own]
        np.testing.assert_allclose(singles[s], rows, atol=1e-3)


def test_vectors_of_effects_equal_numerical_integration():
    _, joint, _ = joint_case("x + (x | g)", "poisson")
    (value,) = some_values(joint, 1)
    alike = stack(joint, connected(joint.model.problem.Z.blocks, np.arange(48)))
    log_p = by_integration(joint, value)
    found = alike.log_densities(value[None], rule(13, 2))[0]
    singles = dict(zip(alike.rows, alike.single_rows(value[None], rule(25, 2))[0], strict=True))
    for level, rows in enumerate(connected(joint.model.problem.Z.blocks, np.arange(48))):
        assert found[level] == pytest.approx(log_p(rows), abs=1e-5)
        assert singles[rows[1]] == pytest.approx(
            log_p(rows) - log_p(rows[rows != rows[1]]), abs=1e-4
        )


@pytest.mark.parametrize("right", ["x + (x || g)", "(1 | g) + (0 + x | g)", "x + (1 | g)"])
def test_levels_add_up_to_the_likelihood_of_all(right):
    _, joint, _ = joint_case(right, "negative_binomial")
    values = some_values(joint)
    pieces = connected(joint.model.problem.Z.blocks, np.arange(48))
    found = stack(joint, pieces).log_densities(
        values, rule(9, sum(s.k for s in joint.model.covariances))
    )
    zeros = joint.model.zeros()
    expected = [joint.model.log_likelihood(joint.setting(v), zeros, 9) for v in values]
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    _, joint, _ = joint_case("x + (1 | g)", "poisson")
    values = some_values(joint, 7)
    alike = stack(joint, connected(joint.model.problem.Z.blocks, np.arange(48)))
    together = alike.log_densities(values, rule(9, 1))
    monkeypatch.setattr("ranef.leave_one_out.components.CACHED", 3 * 48)
    np.testing.assert_allclose(alike.log_densities(values, rule(9, 1)), together, rtol=1e-10)
