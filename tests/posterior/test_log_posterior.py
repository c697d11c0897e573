"""Draws on the user's scale lead back to the values that they were made of."""

import numpy as np
import pytest
from designs import STRUCTURES, random_frame

import ranef as rf


def drawn_values(space, rng, n=7):
    """Return values at random coordinates."""
    x = rng.normal(size=(n, space.d))
    return x, space.values(x)[0]


@pytest.mark.parametrize("priors", ["default", "brms", "given"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_linear_models(name, priors):
    rng = np.random.default_rng(3)
    formula = STRUCTURES[name]
    setting = priors
    if priors == "given":  # effects that do not integrate out, and sds relative to sigma
        setting = {"sigma": rf.priors.Exponential(2)}
        if "(" in formula:
            setting["sd"] = rf.priors.Relative(rf.priors.HalfNormal(1))
        if "x" in formula.split("(")[0]:
            setting["x"] = rf.priors.StudentT(4, 0, 2)
    target = rf.Model(formula, random_frame(rng), priors=setting).engine.density
    x, values = drawn_values(target.space, rng)
    found = target.values_of(target.draw(values, rng))
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(target.space.point(found, edge=0.0), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial", "gamma"])
@pytest.mark.parametrize("formula", ["y ~ x + (x | c)", "y ~ x + (1 + x + z | c) + (1 | i)"])
def test_generalised_models(formula, family):
    rng = np.random.default_rng(5)
    frame = random_frame(rng)
    frame["y"] = rng.poisson(3, len(frame)) + 1
    joint = rf.Model(formula, frame, family=family).engine.density
    x = np.stack([joint.start() + 0.1 * rng.normal(size=joint.space.d) for _ in range(4)])
    values = joint.space.values(x)[0]
    found = joint.values_of(joint.draw(values, rng))
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(joint.space.point(found, edge=0.0), x, rtol=1e-5, atol=1e-6)


def test_known_values_stay_known():
    model = rf.Model(
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff"),
        priors={"sigma": rf.priors.Constant(50)},
    )
    fit = model.fit("quadrature", draws=20, seed=1)
    values = fit.engine.density.values_of(fit.draws_at())
    assert (values[:, 0] == 50).all()
    assert fit.engine.density.space.point(values, edge=0.0).shape == (20, 1)


def test_correlations_of_one_have_coordinates():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    target = model.engine.density
    values = target.space.values(np.zeros((2, 4)))[0]
    values[:, -1] = [1.0, -1.0]
    assert np.isfinite(target.space.point(values, edge=0.0)).all()


def test_a_draw_at_the_end_of_a_uniform_prior_stays_there():
    model = rf.Model(
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff"),
        priors={"sd": rf.priors.Uniform(0, 200)},
    )
    space = model.engine.density.space
    values = space.values(np.array([[4.0, 7.0]]))[0]  # 199.8 of 200
    np.testing.assert_allclose(space.point(values, edge=0.0), [[4.0, 7.0]], atol=1e-9)
    assert space.point(values)[0, 1] < 3  # where a search starts, it does not
