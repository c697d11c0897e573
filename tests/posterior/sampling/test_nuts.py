"""NUTS on the marginal posterior against sums over a grid."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import nutpie
import pytest
from marginal_cases import everything

import ranef as rf
from ranef.arguments import Sampling
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import density_arrays, density_for_nutpie, nuts
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant

QUIET = {"progressbar": False, "seed": 1}


def sample(target, *, start, scale, **settings):
    return nuts.sample(target, Sampling(**settings), start=start, scale=scale)


@pytest.fixture(scope="module")
def dyestuff():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    return target_of(model.design, cross_products(model.design), [0], model.priors)


def near(target):
    return {"start": np.array([4.0, 3.5]), "scale": np.full(target.space.d, 0.3)}


def test_draws_and_statistics_are_those_that_nutpie_converts(dyestuff, monkeypatch):
    trees = []

    def sample_twice(model, **options):
        trees.append(whole(model, **options | {"return_raw_trace": False, "blocking": True}))
        return whole(model, **options)

    whole = nutpie.sample
    monkeypatch.setattr(nutpie, "sample", sample_twice)
    x, stats = sample(dyestuff, **near(dyestuff), draws=60, chains=3, tune=300, **QUIET)
    (tree,) = trees
    np.testing.assert_array_equal(x, tree["posterior"]["x"])
    theirs = nuts.numeric_statistics(tree)
    assert set(stats) == set(theirs) - {"tuning"}
    for name in stats:
        np.testing.assert_array_equal(stats[name], theirs[name])
        assert stats[name].dims == ("chain", "draw")


def test_arviz_is_loaded_when_it_is_asked_for():
    code = """
import sys
import ranef as rf
model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
model.fit("mcmc", draws=50, tune=50, chains=2, seed=1, progressbar=False)
assert not {"arviz", "arviz_stats", "matplotlib", "pymc"} & set(sys.modules)
import nutpie
assert callable(sys.modules["nutpie.sample"].arviz.from_dict)
assert "arviz" in sys.modules
"""
    run = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_moments_are_those_of_a_grid(dyestuff):
    x, stats = sample(dyestuff, **near(dyestuff), **QUIET)
    axes = [np.linspace(3, 5.2, 120), np.linspace(-6, 7, 400)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    density = density_for_nutpie.density(density_arrays.pack(dyestuff))
    logp = np.array([density(point)[0] for point in points])
    share = np.exp(logp - logp.max())
    share /= share.sum()
    values, _ = dyestuff.space.values(points)
    drawn, _ = dyestuff.space.values(x)
    mean = share @ values
    sd = np.sqrt(share @ (values - mean) ** 2)
    assert x.shape == (4, 1000, 2)
    assert not stats["diverging"].any()
    np.testing.assert_allclose(drawn.mean((0, 1)), mean, atol=0.1 * sd.min())
    np.testing.assert_allclose(drawn.std((0, 1)), sd, rtol=0.1)


def test_same_seed_same_draws_whatever_the_cores(dyestuff):
    settings = near(dyestuff) | QUIET | {"draws": 50, "tune": 100}
    first, _ = sample(dyestuff, **settings, cores=1)
    second, _ = sample(dyestuff, **settings, cores=2)
    other, _ = sample(dyestuff, **settings | {"seed": 2})
    np.testing.assert_array_equal(first, second)
    assert (first != other).all()
    assert (first[0] != first[1]).all()


def test_large_models_are_sampled_in_numpy(dyestuff, monkeypatch):
    settings = near(dyestuff) | QUIET | {"draws": 20, "tune": 50, "chains": 2}
    compiled, _ = sample(dyestuff, **settings)
    monkeypatch.setattr(density_arrays, "MAX_ELEMENTS", 0)
    monkeypatch.setattr(density_for_nutpie, "nutpie_model", None)
    plain, _ = sample(dyestuff, **settings)
    assert plain.shape == (2, 20, 2)
    np.testing.assert_allclose(plain[:, 0], compiled[:, 0], atol=1.0)


def test_chains_start_where_the_density_is_positive():
    def density(x):
        return (0.0 if abs(x[0]) < 0.01 else -np.inf), -x

    starts = [nuts._near(density, np.zeros(1), np.full(1, 50.0), seed) for seed in range(20)]
    assert np.abs(starts).max() < 0.01
    assert len(np.unique(starts)) == 20


def test_where_the_density_is_zero_a_draw_diverges_and_sampling_goes_on(dyestuff, monkeypatch):
    whole = type(dyestuff).__call__

    def cut(target, x):
        value, gradient = whole(target, x)
        return (value if x[1] < 4.0 else -np.inf), gradient

    monkeypatch.setattr(density_arrays, "MAX_ELEMENTS", 0)
    monkeypatch.setattr(type(dyestuff), "__call__", cut)
    x, stats = sample(dyestuff, **near(dyestuff), **QUIET, draws=200, tune=200, chains=2)
    assert stats["diverging"].any()
    assert x[:, :, 1].max() < 4.0


def test_an_interrupt_ends_sampling_without_a_fit(dyestuff, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["nutpie.sample"]._BackgroundSampler, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample(dyestuff, **near(dyestuff), **QUIET, draws=200, chains=2)


def test_statistics_are_numbers(dyestuff):
    _, stats = sample(dyestuff, **near(dyestuff), **QUIET, draws=10, tune=20, chains=2)
    assert {"diverging", "energy", "maxdepth_reached", "n_steps"} <= set(stats)
    assert all(value.dtype != object for value in stats.values())
    assert dict(stats.sizes) == {"chain": 2, "draw": 10}


def test_nothing_to_sample():
    design, _, _ = everything("y ~ x * f", 1)
    target = target_of(
        design, cross_products(design), range(6), resolve(design, {"sigma": Constant(2.0)})
    )
    x, stats = sample(target, start=np.empty(0), scale=np.empty(0), draws=5, chains=3, **QUIET)
    assert x.shape == (3, 5, 0)
    assert not stats["diverging"].any()
