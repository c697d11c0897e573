"""Means and log densities of the response over draws, against loops over draws and rows."""

from __future__ import annotations

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special, stats

from ranef.design.design import build_design
from ranef.design.labels import coordinates, observed, variables
from ranef.design.new_data.new_rows import new_rows
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.likelihood import predictions

CHAINS, DRAWS = 2, 30


def frame():
    rng = np.random.default_rng(1)
    n = 24
    data = pd.DataFrame({"x": rng.normal(size=n), "o": rng.normal(size=n)})
    data["z"] = rng.normal(size=n)
    data["g"], data["h"] = rng.choice(list("abcd"), n), rng.integers(0, 3, n)
    data["w"] = rng.integers(1, 9, n).astype(float)
    data["y"] = rng.binomial(data["w"].astype(int), 0.4) / data["w"]
    return data.set_index(pd.Index([f"row {i}" for i in range(n)]))


def design_of(response="y", text="x + offset(o) + (x | g) + (1 | h)", weights="w"):
    data = frame().assign(count=lambda d: np.round(3 * d["w"]))
    return build_design(read_formula(f"{response} ~ {text}"), data, weights=weights)


def draws_of(design, family, scale=0.5, draws=DRAWS):
    """Return a posterior of arbitrary draws."""
    rng = np.random.default_rng(2)
    coords = {name: list(labels) for name, labels in coordinates(design, family)[1].items()}
    data = {}
    for name, dims in variables(design, family).items():
        shape = (CHAINS, draws, *(len(coords[dim]) for dim in dims))
        positive = name in family.parameters or name.startswith("sd_")
        values = rng.gamma(5, 0.3, shape) if positive else rng.normal(0, scale, shape)
        data[name] = (("chain", "draw", *dims), values)
    indices = {"chain": range(CHAINS), "draw": range(draws)}
    return xr.Dataset(data, coords=indices | coords)


def eta_by_row(design, posterior, chain, draw):
    """Return the linear predictor, row by row."""
    at = posterior.isel(chain=chain, draw=draw)
    found = []
    for i in range(design.n_obs):
        eta = design.rows.offset[i]
        eta += sum(
            design.rows.X[i, j] * float(at["beta"][j]) for j in range(design.rows.X.shape[1])
        )
        for term in design.rows.terms:
            b = at[f"b_{term.label}"].to_numpy()[term.codes[i]]
            eta += sum(term.columns[i, k] * b[k] for k in range(term.n_coefs))
        found.append(eta)
    return np.array(found)


def flat(posterior, name):
    values = posterior[name].to_numpy()
    return values.reshape(CHAINS * DRAWS, *values.shape[2:])


def effects_of(design, posterior):
    return {term.label: flat(posterior, f"b_{term.label}") for term in design.terms}


@pytest.mark.parametrize("block", [1, 100, predictions.NUMBERS_OF_A_BLOCK])
def test_linear_predictors_are_those_of_every_draw(monkeypatch, block):
    monkeypatch.setattr(predictions, "NUMBERS_OF_A_BLOCK", block)
    family, design = find_family("binomial"), design_of()
    posterior = draws_of(design, family)
    beta, b = flat(posterior, "beta"), effects_of(design, posterior)
    blocks = predictions.linear_predictors(design.rows, design.rows.terms, beta, b)
    expected = [
        eta_by_row(design, posterior, chain, draw)
        for chain in range(CHAINS)
        for draw in range(DRAWS)
    ]
    np.testing.assert_allclose(np.vstack([eta for _, eta in blocks]), expected, rtol=1e-12)


def test_a_level_that_is_not_known_has_no_effects():
    family, design = find_family("poisson"), design_of()
    posterior = draws_of(design, family)
    beta, b = flat(posterior, "beta"), effects_of(design, posterior)

    def eta_of(rows, terms):
        return np.vstack([eta for _, eta in predictions.linear_predictors(rows, terms, beta, b)])

    rows = new_rows(design, frame().head(4).assign(g=["a", "new", "b", "newer"]))
    got = eta_of(rows, rows.terms)
    known = eta_of(design.rows, design.rows.terms)
    old = new_rows(design, frame().head(4))
    without = eta_of(old, [term for term in old.terms if term.label == "h"])
    assert frame()["g"].iloc[0] != "a" or got[:, 0] == pytest.approx(known[:, 0])
    np.testing.assert_allclose(got[:, [1, 3]], without[:, [1, 3]], rtol=1e-12)


def test_blocks_are_of_bounded_size():
    design = design_of(text="x", weights=None)
    beta = np.zeros((200_000, 2))
    sizes = [eta.size for _, eta in predictions.linear_predictors(design.rows, (), beta, {})]
    assert max(sizes) <= predictions.NUMBERS_OF_A_BLOCK
    assert sum(sizes) == 200_000 * design.n_obs


DENSITIES = {
    "gaussian": lambda y, mu, w, sigma: stats.norm(mu, sigma / np.sqrt(w)).logpdf(y),
    "binomial": lambda y, mu, w: stats.binom(w, mu).logpmf(np.round(w * y)),
    "poisson": lambda y, mu, w: w * stats.poisson(mu).logpmf(y),
    "negative_binomial": lambda y, mu, w, shape: (
        w * stats.nbinom(shape, shape / (shape + mu)).logpmf(y)
    ),
    "gamma": lambda y, mu, w, sigma: stats.gamma(w / sigma**2, scale=mu * sigma**2 / w).logpdf(y),
    "t": lambda y, mu, w, sigma, nu: stats.t(nu, mu, sigma / np.sqrt(w)).logpdf(y),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_log_likelihood_of_every_row_and_draw(name):
    family = find_family(name)
    response = {"gaussian": "z", "t": "z", "binomial": "y"}.get(name, "count")
    design = design_of(response, "1 + (x | g) + (1 | h)")
    posterior = draws_of(design, family)
    found = predictions.log_likelihood(design, family, posterior)["y"]
    assert found.dims == ("chain", "draw", "obs")
    assert found["obs"].to_numpy().tolist() == frame().index.tolist()
    for chain, draw in ((0, 0), (1, 17)):
        mu = family.link.inverse(eta_by_row(design, posterior, chain, draw))
        psi = [float(posterior[p][chain, draw]) for p in family.parameters]
        wanted = DENSITIES[name](design.rows.y, mu, design.rows.weights, *psi)
        np.testing.assert_allclose(found[chain, draw], wanted, rtol=1e-9)


def test_log_likelihood_far_out_is_finite():
    design = design_of(text="1", weights="w")
    family = find_family("binomial")
    posterior = draws_of(design, family)
    posterior["beta"][:] = 800.0
    found = predictions.log_likelihood(design, family, posterior)["y"].to_numpy()
    failures = design.rows.weights * (1 - design.rows.y)
    np.testing.assert_allclose(found[0, 0][failures > 0] / failures[failures > 0], -800, rtol=0.05)


def test_log_likelihood_without_fixed_effects():
    design, family = design_of(text="0 + (1 | g)"), find_family("binomial")
    posterior = draws_of(design, family)
    found = predictions.log_likelihood(design, family, posterior)["y"].to_numpy()
    mu = special.expit(flat(posterior, "b_g")[:, design.rows.terms[0].codes, 0])
    wanted = DENSITIES["binomial"](design.rows.y, mu, design.rows.weights)
    np.testing.assert_allclose(found.reshape(CHAINS * DRAWS, -1), wanted, rtol=1e-9)


def test_arviz_takes_log_likelihoods():
    design, family = design_of(), find_family("binomial")
    posterior = draws_of(design, family, scale=0.05, draws=1000)
    groups = {
        "posterior": posterior,
        "log_likelihood": predictions.log_likelihood(design, family, posterior),
        "observed_data": observed(design.rows),
    }
    loo = az.loo(xr.DataTree.from_dict(groups))
    assert loo.n_data_points == design.n_obs
    in_sample = groups["log_likelihood"]["y"].mean(("chain", "draw")).sum()
    assert loo.elpd == pytest.approx(float(in_sample), abs=3)


def test_observed_data_are_those_of_the_design():
    design = design_of()
    found = observed(design.rows)["y"]
    np.testing.assert_array_equal(found, design.rows.y)
    assert found["obs"].to_numpy().tolist() == frame().index.tolist()
