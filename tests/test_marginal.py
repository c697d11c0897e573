"""The marginal density against the dense multivariate normal, and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from designs import STRUCTURES, random_frame
from ranef import crossproducts
from ranef.crossproducts import cross_products
from ranef.design import build_design, full_rank
from ranef.formula import read_formula
from ranef import marginal
from ranef.priors import HalfNormal, Normal, Relative, StudentT, resolve
from ranef.space import correlations, space_of, unit_factor

PRIORS = {
    "default": "default",
    "some flat": {"beta": Normal(0, 3), "Intercept": Normal(900, 50), "sigma": HalfNormal(4)},
    "flat": "flat",
    "given": {"Intercept": StudentT(3, 1000, 5)},
    "relative": {"sd": Relative(HalfNormal(1.5))},
}


def everything(formula, seed, priors="default", n=150):
    frame = random_frame(np.random.default_rng(seed), n)
    design = build_design(read_formula(formula), frame, weights="w")
    if isinstance(priors, dict):
        priors = {k: v for k, v in priors.items() if k in ("sd", "sigma") or k in design.fixed}
        priors = {k: v for k, v in priors.items() if k != "sd" or design.terms}
    resolved = resolve(design, priors)
    return design, resolved, target_of(design, resolved)


def target_of(design, priors, _=None):
    kept = full_rank(design)
    places = [design.fixed.index(name) for name in kept.fixed]
    return marginal.target_of(design, cross_products(kept), places, priors)


def dense_log_density(design, priors, target, values):
    """Return log p(y) from the n x n covariance matrix, on the user's scale throughout."""
    space = target.space
    g, y = space.n_given, design.y - design.offset
    V = np.diag(values[g] ** 2 / design.weights)
    for t, term in enumerate(design.terms):
        sd, partial = space.places[t]
        change = np.eye(term.n_coefs) if priors.terms[t].change is None else priors.terms[t].change
        U = unit_factor(values[partial], term.n_coefs)
        F = change @ (values[sd, None] * U)
        rows = term.columns @ F @ F.T @ term.columns.T
        V += np.where(term.codes[:, None] == term.codes, rows, 0.0)
    X = design.X if priors.change is None else design.X @ priors.change
    own, others = target.fixed.order
    mean = X[:, others] @ values[:g]
    flat = [j for j in own if not isinstance(priors.beta[j], Normal)]
    for j in set(own) - set(flat):
        mean = mean + X[:, j] * priors.beta[j].mu
        V += np.outer(X[:, j], X[:, j]) * priors.beta[j].sigma ** 2
    if not flat:
        return stats.multivariate_normal(mean, V, allow_singular=False).logpdf(y)
    inverse, left, X = np.linalg.inv(V), y - mean, X[:, flat]
    information = X.T @ inverse @ X
    beta = np.linalg.solve(information, X.T @ inverse @ left)
    left = left - X @ beta
    deviance = (len(y) - len(flat)) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1]
    return -0.5 * (deviance + np.linalg.slogdet(information)[1] + left @ inverse @ left)


def random_point(space, rng):
    x = rng.normal(size=space.d)
    return x + np.array([{0: 1000.0, 1: 0.0}.get(i, 0.0) for i in range(space.d)]) * (space.n_given > 0)


@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_density_equals_the_dense_normal_density(formula, priors):
    design, resolved, target = everything(formula, 1, priors)
    values, _ = target.space.values(random_point(target.space, np.random.default_rng(1)))
    found, _ = target.likelihood(values)
    assert found == pytest.approx(dense_log_density(design, resolved, target, values), rel=1e-10)


@pytest.mark.parametrize("natural", [True, False])
@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_gradient_equals_central_differences(formula, priors, natural):
    _, _, target = everything(formula, 2, priors)
    x = random_point(target.space, np.random.default_rng(2))
    _, found = target(x, natural=natural)

    def difference(h):
        near, far = (
            target(x + s * h, natural=natural)[0] - target(x - s * h, natural=natural)[0]
            for s in (1, 2)
        )
        return (8 * near - far) / (12 * h.sum())

    expected = np.array([difference(2e-3 * h) for h in np.eye(len(x))])
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-7)
