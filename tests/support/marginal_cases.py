"""Linear models with priors, and their densities by dense matrices."""

from __future__ import annotations

import numpy as np
from designs import random_frame

from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior import linear_posterior
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    HalfNormal,
    Normal,
    Relative,
    StudentT,
)

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


def target_of(design, priors):
    kept = full_rank(design)
    places = [design.fixed.index(name) for name in kept.fixed]
    return linear_posterior.target_of(design, cross_products(kept), places, priors)


def dense_covariance(design, priors, target, values):
    """Return the n x n covariance matrix of y given the fixed effects."""
    space = target.space
    V = np.diag(values[space.n_given] ** 2 / design.rows.weights)
    for t, term in enumerate(design.terms):
        sd, partial = space.places[t]
        change = np.eye(term.n_coefs) if priors.terms[t].change is None else priors.terms[t].change
        F = change @ term.covariance.factor_of(values[sd], values[partial])
        rows = (
            design.rows.term(term.label).columns @ F @ F.T @ design.rows.term(term.label).columns.T
        )
        V += np.where(
            design.rows.term(term.label).codes[:, None] == design.rows.term(term.label).codes,
            rows,
            0.0,
        )
    return V


def random_point(space, rng):
    x = rng.normal(size=space.d)
    x[: min(1, space.n_given)] += 1000.0  # an intercept that is given
    return x


def odd_frame():
    frame = random_frame(np.random.default_rng(3), 60)
    frame["y"] -= 1e3
    return frame.assign(x2=2 * frame["x"] + 3, row=np.arange(60), one="a", k=1.0)


ODD = {
    "dependent fixed effects": "y ~ x + x2 + f + (x | c)",
    "dependent fixed effects, nested and crossed": "y ~ x + x2 + (x | s/c) + (1 | i)",
    "dependent columns of a term": "y ~ x + (x + x2 | c)",
    "a term with two intercepts": "y ~ x + (1 + k | c)",
    "as many levels as rows": "y ~ x + (1 | row)",
    "as many levels as rows, slopes": "y ~ (x | row)",
    "as many levels as rows, and others": "y ~ x + (x || row) + (1 | c)",
    "one level": "y ~ x + (1 | one)",
    "one level, slopes": "y ~ x + (x | one)",
}
