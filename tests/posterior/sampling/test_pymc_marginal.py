"""The marginal model in PyMC: its density, its derivatives, what it samples and what it tells."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor
import pytest
from designs import STRUCTURES
from marginal_cases import PRIORS, everything
from pymc_prior_cases import priors_in

import ranef as rf
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import density_arrays, density_for_nutpie, pymc_hierarchical
from ranef.posterior.sampling.pymc_marginal import marginal_model
from ranef.priors.distributions import HalfNormal, Relative, StudentT, Uniform

CASES = [("correlated slope", priors) for priors in PRIORS] + [
    (name, "default") for name in ("no random effects", "three coefficients", "nested and crossed")
]


def sleep(priors="default", formula="Reaction ~ Days + (Days | Subject)"):
    model = rf.Model(formula, rf.load_dataset("sleepstudy"), priors=priors)
    target = target_of(model.design, cross_products(model.design), [0, 1], model.priors)
    return model, target, marginal_model(model.design, model.priors, target)


def log_density(model):
    """Return a function of the unconstrained values of all variables; PyMC's graph in Python."""
    graph = model.logp()
    outputs = [graph, *pytensor.grad(graph, model.value_vars)]
    function = pytensor.function(model.value_vars, outputs, mode="FAST_COMPILE")

    shapes = [np.shape(model.initial_point()[v.name]) for v in model.value_vars]
    stops = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])

    def found(x):
        parts = zip(np.split(x, stops[:-1]), shapes, strict=True)
        value, *slopes = function(*(part.reshape(shape) for part, shape in parts))
        return float(value), np.concatenate([np.ravel(slope) for slope in slopes])

    return found


@pytest.mark.parametrize(("structure", "priors"), CASES)
def test_log_density_is_that_of_the_target_with_all_constants(structure, priors):
    design, resolved, target = everything(STRUCTURES[structure], 1, PRIORS[priors])
    x = 0.4 * np.random.default_rng(1).normal(size=target.space.d)
    x[: target.space.n_given] += 1000.0
    value, gradient = log_density(marginal_model(design, resolved, target))(x)
    expected, slopes = target(x)
    assert value == pytest.approx(expected, rel=1e-10)
    np.testing.assert_allclose(gradient, slopes, atol=1e-8 * np.abs(slopes).max())


def test_a_mix_of_given_and_integrated_effects_keeps_its_order():
    priors = {"Intercept": StudentT(3, 990, 9), "x": Uniform(-3, 3), "f[T.b]": StudentT(4, 0, 2)}
    design, _, _ = everything("y ~ x + f + (1 | c)", 1)
    resolved = rf.priors.resolve(design, priors)
    target = target_of(design, cross_products(design), range(4), resolved)
    model = marginal_model(design, resolved, target)
    assert [v.name for v in model.free_RVs][:2] == ["studentt_beta", "uniform_beta"]
    assert model.coords["studentt_beta_dim"] == ("Intercept", "f[T.b]")
    by_kind = np.array([995.0, 0.3, 0.2, 0.5, -0.2])  # Student's two effects first
    value, gradient = log_density(model)(by_kind)
    order = [0, 2, 1, 3, 4]
    expected, slopes = target(by_kind[order])
    assert value == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(gradient[order], slopes, rtol=1e-6)


def test_names_and_dimensions_are_those_of_the_hierarchical_model():
    model, _, marginal = sleep()
    textbook = pymc_hierarchical.hierarchical(model.design, model.priors)
    for name in (
        "sigma",
        "sd_Subject",
        "partial_corr_Subject",
        "corr_Subject",
    ):
        assert marginal.named_vars_to_dims.get(name) == textbook.named_vars_to_dims.get(name)
        assert name in marginal.named_vars
    assert marginal.coords == {k: v for k, v in textbook.coords.items() if k in marginal.coords}
    assert [p.name for p in marginal.potentials] == ["log_marginal"]


def test_a_model_has_the_priors_of_what_is_not_integrated_out():
    model, _, marginal = sleep({"Days": StudentT(3, 0, 10), "sd": Relative(HalfNormal(2))})
    whole = priors_in(pymc_hierarchical.hierarchical(model.design, model.priors))
    assert priors_in(marginal) == [row for row in whole if row[:2] != ("beta", "Intercept")]
    first, *others = [line.strip() for line in str(marginal).split("\n")]
    assert first == "Days ~ StudentT(3, 0, 10)"
    assert not [line for line in others if line.startswith("Intercept")]


@pytest.fixture(scope="module")
def sampled():
    """Draws from a model that says more about sigma: normal around 28 with sd 1."""
    import nutpie

    _, target, marginal = sleep(formula="Reaction ~ Days + (1 | Subject)")
    with marginal:
        pm.Potential("measured", -0.5 * (marginal["sigma"] - 28.0) ** 2)
    with pytensor.config.change_flags(numba__fastmath=False):
        compiled = nutpie.compile_pymc_model(marginal)
    tree = nutpie.sample(
        compiled, draws=1000, tune=500, chains=4, cores=2, seed=1, progress_bar=False
    )
    return target, marginal, tree["posterior"].to_dataset()


def test_an_extended_model_samples_its_own_posterior(sampled):
    target, _, posterior = sampled
    axes = [np.linspace(3.1, 3.6, 150), np.linspace(2.5, 4.8, 150)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    density = density_for_nutpie.density(density_arrays.pack(target))
    logp = np.array([density(point)[0] for point in points])
    logp -= 0.5 * (np.exp(points[:, 0]) - 28.0) ** 2
    share = np.exp(logp - logp.max()) / np.exp(logp - logp.max()).sum()
    mean = share @ np.exp(points)
    sd = np.sqrt(share @ (np.exp(points) - mean) ** 2)
    drawn = [posterior["sigma"].to_numpy(), posterior["sd_Subject"].to_numpy()]
    for found, m, s in zip(drawn, mean, sd, strict=True):
        assert found.mean() == pytest.approx(m, abs=0.1 * s)
        assert found.std() == pytest.approx(s, rel=0.1)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of what it will return one day
def test_find_map_finds_the_mode_of_the_density_of_the_parameters(sampled):
    target, marginal, _ = sampled
    found = pm.find_MAP(model=marginal, progressbar=False)
    x = np.log([found["sigma"], found["sd_Subject"][0]])
    _, slope = target(x, natural=True)
    slope[0] -= (found["sigma"] - 28.0) * found["sigma"]
    np.testing.assert_allclose(slope, 0.0, atol=2e-3)
