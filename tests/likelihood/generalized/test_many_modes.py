"""The likelihood at many points at once against the one at a single point."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.likelihood.generalized import many_modes
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
    monkeypatch.setattr(many_modes, "CHUNK", 5 * N)
    assert [part.stop for part in many_modes.chunks(12, N)] == [5, 10, 12]
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


def test_crossed_factors_go_one_point_after_the_other():
    data = frame().assign(h=np.tile(list("abcd"), N // 4))
    model = rf.Model("count ~ x + (1 | g) + (1 | h)", data, family="poisson")
    target = joint_of(model.design, model.family, model.priors)
    assert not target.model.has_one_factor
    x = points(target, 3)
    np.testing.assert_allclose(target.log_density(x), [target(p)[0] for p in x], rtol=1e-12)


@pytest.mark.parametrize("case", ["correlated slopes", "two terms of one factor"])
def test_effects_are_drawn_around_their_modes(case):
    target = joint(case)
    values = np.repeat(target.space.values(target.start())[0][None], 4000, axis=0)
    drawn = target.draw(values, np.random.default_rng(1))
    setting = target.setting(values[0])
    modes = many_modes.find_level_modes(
        target.model.merged, next(target._points(values[:1]))[1], np.hstack(target._u)
    )
    one = target._drawn(values[0], np.random.default_rng(2))
    many = [target._drawn(values[0], np.random.default_rng(seed)) for seed in range(400)]
    assert modes.u.shape == (1, M, 2)
    assert len(setting.Lambdas) == len(one) == len(drawn.b)
    for term, (b, T) in enumerate(zip(drawn.b, target.model.bases, strict=True)):
        other = np.stack([draw[term] for draw in many]) @ np.linalg.inv(T).T
        error = np.sqrt(b.var(0) / len(b) + other.var(0) / len(other))
        assert np.abs((b.mean(0) - other.mean(0)) / error).max() < 4.5
        np.testing.assert_allclose(b.std(0), other.std(0), rtol=0.2)
