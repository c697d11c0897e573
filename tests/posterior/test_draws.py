"""The container of a posterior: names, labels, chains, and what is computed on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from designs import random_design

from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.names import find_family
from ranef.likelihood.predictions import Draws
from ranef.posterior.draws import DrawnMarginals, posterior_predictive, tree


def draws_of(design, size, seed=1):
    rng = np.random.default_rng(seed)
    return Draws(
        beta=rng.normal(size=(size, len(design.fixed))),
        sigma=rng.gamma(3, size=size),
        factors=[rng.normal(size=(size, t.n_coefs, t.n_coefs)) for t in design.terms],
        b=[rng.normal(size=(size, t.n_levels, t.n_coefs)) for t in design.terms],
    )


def test_draws_are_cut_into_chains_one_after_the_other():
    design = random_design("y ~ x + (x | c) + (1 | i)", 1)
    draws = draws_of(design, 12)
    found = tree(design, draws, chains=3)["posterior"]
    assert dict(found.sizes)["chain"] == 3
    assert dict(found.sizes)["draw"] == 4
    np.testing.assert_array_equal(found["sigma"].values.ravel(), draws.sigma)
    np.testing.assert_array_equal(found["beta"].values[1, 0], draws.beta[4])
    np.testing.assert_array_equal(found["b_c"].values[2, 3], draws.b[0][11])
    np.testing.assert_array_equal(found["b_i"].values[0, 1], draws.b[1][1])


def test_sds_and_correlations_are_those_of_the_factors():
    design = random_design("y ~ x + (1 + x + z | c)", 1)
    draws = draws_of(design, 6)
    found = tree(design, draws, chains=1)["posterior"]
    cov = draws.factors[0] @ draws.factors[0].swapaxes(1, 2)
    sd = np.sqrt(np.diagonal(cov, axis1=1, axis2=2))
    np.testing.assert_allclose(found["sd_c"].values[0], sd, rtol=1e-12)
    corr = cov / sd[:, :, None] / sd[:, None, :]
    np.testing.assert_allclose(found["corr_c"].values[0], corr, atol=1e-12)
    diagonal = np.diagonal(found["corr_c"].values, axis1=-2, axis2=-1)
    assert (diagonal == 1.0).all()


def test_labels_are_the_users():
    design = random_design("y ~ x + (x || c)", 1)
    found = tree(design, draws_of(design, 2), chains=1)["posterior"]
    assert found["beta"].dims == ("chain", "draw", "fixed")
    assert found["fixed"].values.tolist() == ["Intercept", "x"]
    assert found["b_c"].dims == ("chain", "draw", "c", "c_coef")
    assert found["c_coef"].values.tolist() == ["Intercept", "x"]
    assert found["c"].values.tolist() == list(design.terms[0].levels)
    assert "corr_c" not in found


def test_what_was_observed_and_what_the_sampler_says_go_along():
    design = random_design("y ~ x", 1)
    alone = tree(design, draws_of(design, 4), chains=2)
    assert set(alone.children) == {"posterior", "observed_data"}
    np.testing.assert_array_equal(alone["observed_data"]["y"].values, design.rows.y)
    stats = xr.Dataset({"diverging": (("chain", "draw"), np.zeros((2, 2), dtype=bool))})
    found = tree(design, draws_of(design, 4), chains=2, stats=stats)
    assert set(found.children) == {"posterior", "observed_data", "sample_stats"}
    assert found["sample_stats"]["diverging"].shape == (2, 2)


def test_own_parameters_stand_under_their_names_and_sigma_only_where_there_is_one():
    design = random_design("y ~ x + (1 | c)", 1)
    draws = replace(draws_of(design, 6), sigma=None)
    names = set(tree(design, draws, chains=2, family=BINOMIAL)["posterior"].data_vars)
    assert names == {"beta", "b_c", "sd_c"}
    shape = np.arange(6.0)
    own = replace(draws, parameters={"shape": shape})
    found = tree(design, own, chains=2, family=find_family("negative_binomial"))["posterior"]
    assert list(found.data_vars) == ["beta", "shape", "b_c", "sd_c"]
    np.testing.assert_array_equal(found["shape"].values, [shape[:3], shape[3:]])
    both = replace(draws_of(design, 6), parameters={"nu": shape})
    found = tree(design, both, chains=2, family=find_family("t"))["posterior"]
    assert list(found.data_vars) == ["beta", "sigma", "nu", "b_c", "sd_c"]


def test_predicted_responses_are_drawn_given_the_effects_of_the_draw():
    design = random_design("y ~ x + (1 + x | c)", 1)
    draws = replace(draws_of(design, 40), sigma=np.full(40, 1e-9))
    posterior = DrawnMarginals(design, GAUSSIAN, tree(design, draws, chains=2))
    y = posterior_predictive(posterior, None, np.random.default_rng(1))["y"]
    rows, term = design.rows, design.rows.terms[0]
    eta = draws.beta @ rows.X.T + np.einsum("srk,rk->sr", draws.b[0][:, term.codes], term.columns)
    np.testing.assert_allclose(y.to_numpy().reshape(40, -1), eta, atol=1e-7)
    assert y.sizes["chain"] == 2
    some = posterior_predictive(posterior, 3, np.random.default_rng(1))["y"]
    np.testing.assert_allclose(some[0], eta[[0, 20, 39]], atol=1e-7)
