"""The independent pieces of data: which rows, and where their effects are."""

from __future__ import annotations

import numpy as np
import pytest
from component_cases import joint_case

from ranef.likelihood.generalized import pieces
from ranef.likelihood.generalized.pieces import go_together, piece_of, pieces_of


def problem_of(right):
    _, joint, _ = joint_case(right, "poisson")
    return joint.model.problem


@pytest.mark.parametrize(
    ("right", "components"),
    [("x", [1]), ("x + (x | g)", [8]), ("x + (1 | s/g)", [4]), ("x + (1 | g) + (1 | h)", [1])],
)
def test_components(right, components):
    found = pieces_of(problem_of(right), by_level=False)
    assert [piece.P for piece in found] == components
    rows = np.concatenate([piece.rows for piece in found])
    np.testing.assert_array_equal(np.sort(rows), np.arange(48))


def test_every_row_has_its_effects_and_its_response():
    problem = problem_of("x + (x | s/g)")
    (piece,) = pieces_of(problem, by_level=False)
    np.testing.assert_array_equal(piece.y, problem.y[piece.rows])
    b = [
        np.random.default_rng(1).normal(size=(block.n_levels, block.k))
        for block in problem.Z.blocks
    ]
    flat = piece.gathered([effects[None] for effects in b])[0].ravel()
    eta = (flat[piece.own_places] * piece.columns.T).sum(axis=0)
    np.testing.assert_allclose(eta, problem.Z.fitted(b)[piece.rows], rtol=1e-13)


def test_products_of_columns_add_up_to_the_cross_product():
    (piece,) = pieces_of(problem_of("x + (x | s/g)"), by_level=False)
    W = np.random.default_rng(2).normal(size=48)
    of_first = piece.codes == 0
    D = np.zeros((piece.q, piece.q))
    for a, b, product in piece.column_products:
        D[a, b] = D[b, a] = product[of_first] @ W[of_first]
    wide = piece.wide[of_first]
    np.testing.assert_allclose(D, wide.T @ (W[of_first, None] * wide), atol=1e-12)
    assert len(piece.column_products) < piece.q * (piece.q + 1) / 2  # levels share no row


def test_the_pattern_of_a_large_component_gives_quadratic_forms_of_its_rows():
    problem = problem_of("x + (x | g) + (1 | h)")
    piece = piece_of(problem, [np.arange(48)])
    rng = np.random.default_rng(3)
    G = rng.normal(size=(piece.q, piece.q))
    G += G.T
    k, m = piece.sizes[0], piece.slots[0].stop
    front = np.stack([G[a : a + k, a : a + k] for a in range(0, m, k)])
    flat = np.concatenate([front.ravel(), G[:m, m:].ravel(), G[m:, m:].ravel()])
    d = sum(flat[places] * product for places, product in piece.pattern)
    np.testing.assert_allclose(d, np.einsum("na,ab,nb->n", piece.wide, G, piece.wide), rtol=1e-12)


def test_sums_over_levels():
    piece = piece_of(problem_of("x + (x | g) + (1 | h)"), [np.arange(48)])
    rng = np.random.default_rng(3)
    s, u = rng.normal(size=(2, 2, 1, piece.q))
    outer = piece.outer(s, u)
    whole = piece.diagonal_sums(s[:, 0, :, None] * u[:, 0, None, :])
    for product, total in zip(outer, whole, strict=True):
        np.testing.assert_allclose(product, total, rtol=1e-12)
    last = piece.diagonal_sums(s[:, 0, 16:, None] * u[:, 0, None, 16:], 1)
    np.testing.assert_allclose(last[0], outer[1], rtol=1e-12)


def test_large_pieces_go_alone(monkeypatch):
    found = pieces_of(problem_of("x + (1 | g) + (1 | h)"), by_level=False)
    assert go_together(found)
    monkeypatch.setattr(pieces, "MAX_ELEMENTS_TOGETHER", 10)
    assert not go_together(found)
    assert go_together(pieces_of(problem_of("x + (1 | g)"), by_level=False))
