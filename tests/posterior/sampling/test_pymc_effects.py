"""Random effects in PyMC: their density, its form for the sampler, and draws."""

import numpy as np
import pymc as pm
import pytest
from scipy import stats

from ranef.posterior.sampling.pymc_effects import random_effects

FACTOR = np.array([[0.7, 0, 0], [-0.4, 1.2, 0], [0.3, 0.1, 0.5]])
SCALES = {"independent": np.array([0.7, 1.9]), "correlated": FACTOR}
PYTHON = "FAST_COMPILE"


def model_of(scale, *, centered):
    k = scale.shape[-1]
    with pm.Model(coords={"g": range(4), "coef": range(k)}) as model:
        random_effects("b", pm.math.constant(scale), ("g", "coef"), centered=centered)
    return model


def covariance(scale):
    return np.diag(scale**2) if scale.ndim == 1 else scale @ scale.T


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_variable_is_the_effects_and_its_coordinates_are_standard_normal(scale):
    z = np.random.default_rng(1).normal(size=(4, scale.shape[-1]))
    b = z * scale if scale.ndim == 1 else z @ scale.T
    plain, scaled = model_of(scale, centered=True), model_of(scale, centered=False)
    density = float(plain.compile_fn(plain.logp(), mode=PYTHON)({"b": b}))
    wanted = stats.multivariate_normal(cov=covariance(scale)).logpdf(b).sum()
    assert density == pytest.approx(wanted, rel=1e-12)
    (value,) = scaled.value_vars
    density = float(scaled.compile_fn(scaled.logp(), mode=PYTHON)({value.name: z}))
    assert density == pytest.approx(stats.norm.logpdf(z).sum(), rel=1e-12)
    transform, inputs = scaled.rvs_to_transforms[scaled["b"]], scaled["b"].owner.inputs
    back, there = transform.backward(value, *inputs), transform.forward(value, *inputs)
    np.testing.assert_allclose(back.eval({value: z}, mode=PYTHON), b, rtol=1e-12)
    np.testing.assert_allclose(there.eval({value: b}, mode=PYTHON), z, rtol=1e-10)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_draws_have_the_covariance(scale):
    draws = pm.draw(model_of(scale, centered=False)["b"], 5000, random_seed=1, mode=PYTHON)
    assert draws.shape == (5000, 4, scale.shape[-1])
    cov = np.cov(draws.reshape(-1, scale.shape[-1]), rowvar=False)
    np.testing.assert_allclose(cov, covariance(scale), atol=0.08)
    assert abs(np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]) < 0.05  # levels are independent
