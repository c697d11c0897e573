"""Fits of every kind of model, by every method, and posteriors of draws that are made by hand."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import xarray as xr

import ranef as rf
from ranef.covariances.covariance import sd_and_corr
from ranef.posterior.draws import DrawnMarginals

FORMULAS = {
    "one factor": "y ~ x + (1 | g)",
    "correlated slopes": "y ~ x + (x | g)",
    "independent slopes": "y ~ x + (x || g)",
    "two terms of one factor": "y ~ x + (1 | g) + (0 + x | g)",
    "slopes without a mean": "y ~ 1 + (x | g)",
    "four coefficients": "y ~ x + z + (x + z + u | g)",
    "levels as coefficients": "y ~ f + (0 + f | g)",
    "nested": "y ~ x + (1 | s/c)",
    "crossed": "y ~ x + (1 | g) + (x | h)",
    "no random terms": "y ~ x * f",
    "no intercept": "y ~ 0 + x + (0 + x | g)",
    "no fixed effects": "y ~ 0 + (1 | g)",
    "weights and offset": "y ~ x + offset(log(e)) + (x | g)",
}
METHODS = ("reml", "ml", "posterior")
OPTIONS = {
    "laplace": {"draws": 400, "seed": 1},
    "quadrature": {"draws": 400, "seed": 1},
    "mcmc": {"draws": 150, "tune": 200, "chains": 2, "seed": 1, "progressbar": False},
}
TOO_MANY = ("four coefficients", "levels as coefficients", "crossed")  # for quadrature


@cache
def frame():
    """Return data with nested, crossed and oddly named groups; 240 rows."""
    rng = np.random.default_rng(4)
    n = 240
    data = pd.DataFrame(rng.normal(size=(n, 3)), columns=["x", "z", "u"])
    data["g"] = rng.choice(["sigma", "Intercept", "a b", "a:b", "", "1", "ü", "x", "y", "z"], n)
    data["h"] = rng.integers(0, 6, n)
    data["c"] = rng.integers(0, 4, n)
    data["s"] = rng.choice(list("pqrstv"), n)
    data["f"] = rng.choice(["lo", "mid", "hi"], n)
    data["w"] = rng.uniform(0.2, 4, n)
    data["e"] = rng.uniform(1, 20, n)
    effects = {
        name: rng.normal(size=data[name].nunique())[data[name].factorize(sort=True)[0]]
        for name in ("g", "h", "s", "f")
    }
    slopes = rng.normal(size=(10, 3))[data["g"].factorize(sort=True)[0]]
    data["y"] = 50 + 3 * data["x"] + 2 * sum(effects.values()) + rng.normal(size=n)
    data["y"] += (data[["x", "z", "u"]] * slopes).sum(axis=1)
    return data


@cache
def model_of(kind):
    options = {"weights": "w", "offset": "z"} if kind == "weights and offset" else {}
    return rf.Model(FORMULAS[kind], frame(), **options)


@cache
def fit_of(kind, method):
    """Return a fit; "posterior" is one that is made by hand, few draws of others do not warn."""
    model = model_of(kind)
    if method == "posterior":
        return known_posterior(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.ConvergenceWarning)
        return model.fit(method, **OPTIONS.get(method, {}))


def known_posterior(model, *, chains=4, draws=150, seed=1, method="mcmc", **changed):
    """Return a posterior of independent draws, without a sampler; `changed` replaces variables."""
    design, rng = model.design, np.random.default_rng(seed)
    values = {"sigma": ((), rng.gamma(50, 0.02, (chains, draws)))}
    if design.fixed:
        beta = rng.normal(3, 0.5, (chains, draws, len(design.fixed)))
        values = {"beta": (("fixed",), beta)} | values
    coords = {"fixed": list(design.fixed)}
    for term in design.terms:
        label, k = term.label, term.n_coefs
        level, coef, bis = label, f"{label}_coef", f"{label}_coef_bis"
        coords |= {level: term.levels, coef: list(term.coefs), bis: list(term.coefs)}
        b = rng.normal(size=(chains, draws, term.n_levels, k))
        values[f"b_{label}"] = (level, coef), b
        values[f"sd_{label}"] = (coef,), rng.gamma(20, 0.1, (chains, draws, k))
        if term.covariance.has_correlations and k > 1:
            values[f"corr_{label}"] = (coef, bis), _correlations(rng, (chains, draws), k)
    values |= {name: (values[name][0], value) for name, value in changed.items()}
    variables = {name: (("chain", "draw", *dims), v) for name, (dims, v) in values.items()}
    groups = {
        "posterior": xr.Dataset(variables, coords),
        "sample_stats": _stats(rng, (chains, draws)),
    }
    tree = xr.DataTree.from_dict(groups)
    marginals = DrawnMarginals(design, model.family, tree, independent=method != "mcmc")
    return rf.PosteriorFit(design, model.family, method, marginals)


def _correlations(rng, shape, k):
    roots = rng.normal(size=(*shape, k, k + 3))
    covariances = (roots @ np.swapaxes(roots, -1, -2)).reshape(-1, k, k)
    return np.stack([sd_and_corr(c)[1] for c in covariances]).reshape(*shape, k, k)


def _stats(rng, shape):
    dims = ("chain", "draw")
    return xr.Dataset(
        {
            "diverging": (dims, np.zeros(shape, dtype=bool)),
            "maxdepth_reached": (dims, np.zeros(shape, dtype=bool)),
            "energy": (dims, rng.normal(size=shape)),
        }
    )


def population(fit, term):
    """Return the mean of each coefficient of a term, by its name in a treatment coding."""
    fixef = fit.fixef()
    if term.coefs[0].startswith("f["):
        levels = [name.replace("[", "[T.") for name in term.coefs]
        return np.array([fixef["Intercept"] + fixef.get(name, 0.0) for name in levels])
    return np.array([fixef.get(name, 0.0) for name in term.coefs])


def dense_Z(term):
    """Return the random-effects matrix of a term by looking up every row, dense."""
    Z = np.zeros((len(term.codes), term.n_levels * term.n_coefs))
    for i, level in enumerate(term.codes):
        Z[i, level * term.n_coefs : (level + 1) * term.n_coefs] = term.columns[i]
    return Z
