"""The likelihood at many points at once against the one at a single point."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from component_cases import FAMILIES, data_of, joint_case, some_values

import ranef as rf
from ranef.design.design import leaving_out
from ranef.likelihood.generalized import many_modes, pieces
from ranef.posterior.generalized_posterior import joint_of

N, M = 120, 12


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    g, x = np.repeat(np.arange(M), N // M), rng.normal(size=N)
    eta = 0.3 + 0.5 * x + 0.8 * rng.normal(size=M)[g]
    return pd.DataFrame(
        {
            "g": [f"g{i:02d}" for i in g],
            "x": x,
            "yes": rng.binomial(1, 1 / (1 + np.exp(-eta))),
            "count": rng.poisson(np.exp(eta)),
            "time": rng.gamma(3.0, np.exp(eta) / 3.0),
            "heavy": eta + rng.standard_t(1.5, N),  # whose observed weights can be negative
        }
    )


CASES = {
    "binary": ("yes ~ x + (1 | g)", "bernoulli"),
    "correlated slopes": ("yes ~ x + (x | g)", "bernoulli"),
    "independent slopes": ("count ~ x + (x || g)", "poisson"),
    "two terms of one factor": ("count ~ x + (1 | g) + (0 + x | g)", "poisson"),
    "negative binomial": ("count ~ x + (1 | g)", "negative_binomial"),
    "gamma": ("time ~ x + (1 | g)", "gamma"),
    "heavy tails": ("heavy ~ x + (x | g)", "t"),
    "no fixed effects": ("yes ~ 0 + (1 | g)", "bernoulli"),
}


def joint(case: str, n_agq: int = 1):
    formula, family = CASES[case]
    model = rf.Model(formula, frame(), family=family)
    return joint_of(model.design, model.family, model.priors, n_agq)


def points(target, count: int = 12, spread: float = 0.5) -> np.ndarray:
    steps = np.random.default_rng(3).normal(size=(count, target.space.d))
    return target.start() + spread * steps @ target.units().T


@pytest.mark.parametrize("n_agq", [1, 4])
@pytest.mark.parametrize("case", CASES)
def test_many_points_are_as_one_after_the_other(case, n_agq):
    target = joint(case, n_agq)
    x = points(target)
    expected = [target(point)[0] for point in x]
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10)


def test_chunks_do_not_matter(monkeypatch):
    target = joint("correlated slopes")
    x = points(target)
    together = target.log_density(x)
    monkeypatch.setattr(pieces, "CHUNK", 5 * 2 * N)
    (piece,) = target._pieces
    assert [part.stop for part in piece.chunks(12)] == [5, 10, 12]
    np.testing.assert_allclose(target.log_density(x), together, rtol=1e-13)


def test_far_points_have_no_density_and_leave_the_others_alone():
    target = joint("independent slopes")
    x = points(target, 4)
    expected = target.log_density(x)
    x[1, 0] += 1e4  # a mean that overflows
    found = target.log_density(x)
    assert found[1] == -np.inf
    np.testing.assert_allclose(np.delete(found, 1), np.delete(expected, 1), rtol=1e-12)


def test_points_far_from_the_start_are_reached():
    target = joint("independent slopes")
    x = points(target, 30, spread=4.0)
    expected = np.array([target(point)[0] for point in x])
    finite = np.isfinite(expected)
    assert finite.sum() > 20
    np.testing.assert_allclose(target.log_density(x)[finite], expected[finite], rtol=1e-9)


COMPONENTS = {
    "crossed": "count ~ x + (1 | g) + (1 | h)",
    "crossed slopes": "count ~ x + (x | g) + (x || h)",
    "small components": "count ~ x + (1 | g/h)",
    "large components": "count ~ x + (x | g/row)",
    "no effects": "count ~ x",
    "a level alone": "count ~ x + (1 | g) + (1 | far)",
}


def crossed(case):
    data = frame().assign(h=np.tile(list("abcd"), N // 4), row=np.arange(N), far=np.arange(N) // 30)
    model = rf.Model(COMPONENTS[case], data, family="poisson")
    return joint_of(model.design, model.family, model.priors)


@pytest.mark.parametrize("case", COMPONENTS)
def test_several_factors_are_as_one_point_after_the_other(case):
    target = crossed(case)
    x = points(target, 9)
    expected = [target(point)[0] for point in x]
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10, atol=1e-7)


@pytest.mark.parametrize("case", COMPONENTS)
def test_draws_are_those_of_one_point_after_the_other(case):
    """The effects are eliminated in the same order, so that the same noise is the same draw."""
    target = crossed(case)
    values = target.space.values(points(target, 5))[0]
    together = target.draw(values, np.random.default_rng(4)).b
    target.__dict__["_pieces"] = None
    alone = target.draw(values, np.random.default_rng(4)).b
    assert len(together) == len(alone) == len(target.model.covariances)
    for b, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(b, expected, atol=1e-5)


def test_a_large_sparse_model_goes_one_point_after_the_other(monkeypatch):
    monkeypatch.setattr(pieces, "MAX_ELEMENTS_TOGETHER", 50)
    target = crossed("crossed")
    assert target._pieces is None
    x = points(target, 3)
    np.testing.assert_allclose(target.log_density(x), [target(p)[0] for p in x], rtol=1e-12)


@pytest.mark.parametrize("case", ["correlated slopes", "two terms of one factor"])
def test_effects_are_drawn_around_their_modes(case):
    target = joint(case)
    values = np.repeat(target.space.values(target.start())[0][None], 4000, axis=0)
    drawn = target.draw(values, np.random.default_rng(1))
    alone = [
        target._drawn(values[0], [rng.standard_normal((M, s.k)) for s in target.model.covariances])
        for rng in map(np.random.default_rng, range(400))
    ]
    assert len(alone[0]) == len(drawn.b)
    for term, (b, T) in enumerate(zip(drawn.b, target.model.bases, strict=True)):
        other = np.stack([draw[term] for draw in alone]) @ np.linalg.inv(T).T
        error = np.sqrt(b.var(0) / len(b) + other.var(0) / len(other))
        assert np.abs((b.mean(0) - other.mean(0)) / error).max() < 4.5
        np.testing.assert_allclose(b.std(0), other.std(0), rtol=0.2)


# ------------------------------------------------------------------- parts of a large component

RIGHT = {
    "crossed": "x + (1 | g) + (1 | h)",
    "crossed slopes": "(x | g) + (x || h)",
    "nested": "x + (1 | s/g)",
    "no fixed effects": "0 + (1 | g) + (1 | h)",
}


def parts(design, count=4):
    """Return which rows stay without some levels of the first term."""
    return np.array([design.rows.terms[0].codes != level for level in range(count)])


def fitted(joint, values, keep, start=None):
    """Return the modes of parts of all rows at all points together."""
    piece = pieces.piece_of(joint.model.problem, [np.arange(48)])
    search = many_modes.Parts(piece, joint.points(values, piece.rows), keep)
    with np.errstate(all="ignore"):
        return search.run(
            np.repeat(np.zeros((1, 1, piece.q)) if start is None else start, len(keep), 1)
        )


def one_by_one(design, family, priors, values, keep):
    """Return Laplace's approximation of the rows that stay, by the search for one point."""
    left = joint_of(leaving_out(design, np.flatnonzero(~keep)), family, priors)
    zeros = left.model.zeros()
    return [left.model.log_likelihood(left.setting(value), zeros) for value in values]


@pytest.mark.parametrize("kind", RIGHT)
def test_parts_equal_designs_of_their_own(kind):
    design, joint, priors = joint_case(RIGHT[kind], "poisson")
    values, keep = some_values(joint), parts(design)
    found = fitted(joint, values, keep)
    for part, own in enumerate(keep):
        expected = one_by_one(design, joint.model.family, priors, values, own)
        np.testing.assert_allclose(found.laplace[:, part], expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_families(family):
    design, joint, priors = joint_case("x + (1 | g) + (1 | h)", family)
    values, keep = some_values(joint, 2), parts(design, 1)
    found = fitted(joint, values, keep)
    expected = one_by_one(design, joint.model.family, priors, values, keep[0])
    np.testing.assert_allclose(found.laplace[:, 0], expected, atol=1e-4)


def test_the_start_of_parts_does_not_matter():
    design, joint, _ = joint_case("x + (x | g) + (1 | h)", "bernoulli")
    values, keep = some_values(joint), parts(design)
    first = fitted(joint, values, np.ones((1, 48), dtype=bool))
    found = fitted(joint, values, keep, first.u)
    np.testing.assert_allclose(found.laplace, fitted(joint, values, keep).laplace, atol=1e-4)


def test_weights_that_are_negative_are_stepped_over():
    """Rows of a t distribution far from their mean have a negative observed weight."""
    data = data_of("t")
    data.loc[::5, "y"] += 9.0
    design, joint, priors = joint_case("x + (1 | g) + (1 | h)", "t", data)
    values, keep = some_values(joint, 8), parts(design, 2)
    values[:, joint.space.names.index("sigma")] *= 0.2
    values[:, -2:] = 3.0
    found = fitted(joint, values, keep)
    assert (found.expansion.weight < 0).any()
    for part, own in enumerate(keep):
        expected = one_by_one(design, joint.model.family, priors, values, own)
        np.testing.assert_allclose(found.laplace[:, part], expected, atol=1e-3)


def test_a_mean_that_overflows_has_no_density_and_leaves_the_others_alone():
    design, joint, _ = joint_case("x + (1 | g) + (1 | h)", "poisson")
    values, keep = some_values(joint), parts(design, 2)
    expected = fitted(joint, values, keep).laplace
    values[1, 0] += 1e4
    with np.errstate(all="ignore"):
        found = fitted(joint, values, keep).laplace
    assert (found[1] == -np.inf).all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=1e-9)
