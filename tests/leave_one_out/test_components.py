"""Pieces that are independent given the parameters, and their densities by quadrature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special

from ranef.agq import rule
from ranef.design import build_design
from ranef.families import find_family
from ranef.formula import read_formula
from ranef.joint import joint_of
from ranef.pieces import connected, signed_pieces, stack
from ranef.priors import resolve

FAMILIES = {
    "binomial": ("logit", ()),
    "bernoulli": ("probit", ()),
    "poisson": ("log", ()),
    "negative_binomial": ("log", (2.0,)),
    "gamma": ("inverse", (0.5,)),
    "inverse_gaussian": ("log", (0.5,)),
    "beta": ("logit", (5.0,)),
    "t": ("identity", (1.0, 4.0)),
    "gaussian": ("log", (0.5,)),
}


def data_of(family, n=48, levels=8) -> pd.DataFrame:
    """Return responses of a family: g and h are crossed, g is nested in s."""
    fam, rng = find_family(family, FAMILIES[family][0]), np.random.default_rng(5)
    g, x = np.arange(n) % levels, rng.normal(size=n)
    eta = 0.6 + 0.3 * x + 0.5 * rng.normal(size=levels)[g]
    if fam.link.name == "inverse":
        eta = 2 + eta / 10
    trials = rng.integers(1, 9, n) * 1.0 if family == "binomial" else np.ones(n)
    y = fam.draw(rng, fam.link.inverse(eta), trials, *FAMILIES[family][1])
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "s": g // 2, "h": rng.integers(0, 4, n)})
    return frame.assign(row=np.arange(n), won=np.round(y * trials), lost=trials - y * trials)


def joint_case(right, family, data=None, priors="default"):
    """Return a design, its posterior and priors."""
    left = "cbind(won, lost)" if family == "binomial" else "y"
    fam = find_family(family, FAMILIES[family][0])
    frame = data_of(family) if data is None else data
    design = build_design(read_formula(f"{left} ~ {right}"), frame, family=fam)
    found = resolve(design, priors, fam)
    return design, joint_of(design, fam, found), found


def some_values(joint, count=3):
    """Return values near where a search for the mode starts."""
    steps = np.random.default_rng(1).normal(size=(count, joint.space.d))
    return joint.space.values(joint.start() + 0.3 * steps @ joint.units().T)[0]


def by_integration(joint, values, nodes=1501):
    """Return log p of all subsets of the rows of a level: a function, by the trapezoidal rule."""
    problem, setting = joint.model.problem, joint.setting(values)
    (block,), (Lambda,) = problem.Z.blocks, setting.Lambdas
    axis = np.linspace(-13, 13, nodes if block.k == 1 else 161)
    u = np.stack(np.meshgrid(*[axis] * block.k, indexing="ij"), -1).reshape(-1, block.k)
    logs = -0.5 * (u**2).sum(1) + block.k * np.log((axis[1] - axis[0]) / np.sqrt(2 * np.pi))
    eta = setting.base[:, None] + block.columns @ Lambda @ u.T
    y, w = problem.y[:, None], problem.weights[:, None]
    rows = problem.family.expansion(y, eta, w, setting.psi).value
    return lambda own: float(special.logsumexp(rows[own].sum(0) + logs))


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
        values, rule(9, sum(s.k for s in joint.model.shapes))
    )
    zeros = joint.model.zeros()
    expected = [joint.model.log_likelihood(joint.setting(v), zeros, 9) for v in values]
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-9)


def test_chunks_do_not_matter(monkeypatch):
    _, joint, _ = joint_case("x + (1 | g)", "poisson")
    values = some_values(joint, 7)
    alike = stack(joint, connected(joint.model.problem.Z.blocks, np.arange(48)))
    together = alike.log_densities(values, rule(9, 1))
    monkeypatch.setattr("ranef.pieces.CACHED", 3 * 48)
    np.testing.assert_allclose(alike.log_densities(values, rule(9, 1)), together, rtol=1e-10)
