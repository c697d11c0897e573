"""The compiled density against the one in NumPy, which has its own tests against dense algebra."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from designs import REPEATED, STRUCTURES, repeated_frame
from marginal_cases import PRIORS, everything, random_point

import ranef as rf
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior import transforms
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling.density_arrays import pack
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    Constant,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    LogNormal,
    StudentT,
    Uniform,
)


def evaluated(model, x):
    """Return what the compiled posterior says of a point: its value and its gradient."""
    from ranef.posterior.sampling import density_for_nutpie

    return density_for_nutpie.density(model)(x)


def likelihood(model, values):
    """Return what the compiled likelihood says of values."""
    from ranef.posterior.sampling import compiled_density

    gradient = np.empty(len(values))
    return compiled_density.likelihood(values, model.counts, model.numbers, gradient), gradient


def assert_same(found, expected, digits=11):
    """The values to some digits, the derivatives to two less of the largest."""
    assert found[0] == pytest.approx(expected[0], rel=10.0**-digits)
    scale = np.abs(expected[1]).max(initial=1.0)
    np.testing.assert_allclose(found[1] / scale, expected[1] / scale, atol=10.0 ** (2 - digits))


@pytest.mark.parametrize("priors", PRIORS.keys())
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_density_equals_that_in_numpy(formula, priors):
    _, _, target = everything(formula, 1, PRIORS[priors])
    model, rng = pack(target), np.random.default_rng(1)
    digits = 10 if priors == "given" else 11  # an intercept of 1000 costs both of them digits
    for _ in range(3):
        x = random_point(target.space, rng)
        assert_same(evaluated(model, x), target(x), digits)
        values, _ = target.space.values(x)
        assert_same(likelihood(model, values), target.likelihood(values), digits)


@pytest.mark.parametrize("formula", REPEATED.values(), ids=REPEATED.keys())
def test_levels_of_one_kind_are_counted(formula):
    design = rf.Model(formula, repeated_frame(), weights="w").design
    target = target_of(design, cross_products(design), range(len(design.fixed)), resolve(design))
    every = replace(target, cross=target.cross)
    every.__dict__["condensed"] = target.cross
    model, rng = pack(target), np.random.default_rng(1)
    for _ in range(2):
        x = random_point(target.space, rng)
        assert_same(evaluated(model, x), every(x))


@pytest.mark.parametrize(
    "priors",
    [
        {"sigma": HalfCauchy(2), "sd": Exponential(3)},
        {"sigma": Gamma(2, 0.5), "sd": InverseGamma(2, 3)},
        {"sigma": LogNormal(0, 1), "sd": Uniform(0, 9)},
        {"sigma": Constant(1.5), "sd": {"Intercept": Constant(0.5), "x": HalfNormal(2)}},
        {"sigma": Uniform(0.5, 4), "x": Uniform(-2, 3), "Intercept": StudentT(4, 990, 9)},
    ],
    ids=lambda priors: " ".join(str(prior) for prior in priors.values()),
)
def test_every_prior(priors):
    design, _, _ = everything("y ~ x + (x | c) + (1 | i)", 3)
    target = target_of(design, cross_products(design), [0, 1], resolve(design, priors))
    x = 0.3 * np.random.default_rng(1).normal(size=target.space.d)
    x[:1] += 1000.0 * (target.space.n_given > 0)
    assert_same(evaluated(pack(target), x), target(x), 10)


@pytest.mark.parametrize("family", range(7))
@pytest.mark.parametrize("transform", range(4))
@pytest.mark.parametrize("natural", [True, False])
def test_densities_compile_to_what_they_are(family, transform, natural):
    from ranef.posterior.sampling import compiled_density

    args = (family, transform, 0.7, 1.3, 2.5, 0.4, natural)
    assert compiled_density.evaluate(*args) == pytest.approx(transforms.evaluate(*args), rel=1e-14)


def test_one_compilation_serves_every_model():
    from ranef.posterior.sampling import compiled_density

    for formula in STRUCTURES.values():
        _, _, target = everything(formula, 1)
        likelihood(pack(target), target.space.values(np.zeros(target.space.d))[0])
    assert len(compiled_density.likelihood.signatures) == 1


def test_where_the_density_cannot_be_computed_it_is_zero():
    _, _, target = everything("y ~ x + (x | c)", 1)
    x = np.array([0.0, 400.0, 400.0, 0.0])
    with np.errstate(all="ignore"):
        value, gradient = likelihood(pack(target), target.space.values(x)[0])
    assert value == -np.inf
    np.testing.assert_array_equal(gradient, 0.0)
    assert evaluated(pack(target), x)[0] == -np.inf


def test_numba_is_loaded_with_the_kernel_only():
    modules = ", ".join(
        f"ranef.posterior.sampling.{m}" for m in ("density_arrays", "nuts", "pymc_marginal")
    )
    heavy = "'numba', 'nutpie', 'pymc', 'pytensor', 'arviz', 'xarray'"
    code = f"import sys, {modules}; print(sorted({{{heavy}}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
