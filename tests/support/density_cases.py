"""Posterior densities of sleepstudy and of the eight schools."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import ranef as rf
from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    HalfCauchy,
    HalfStudentT,
    Normal,
)

SLEEP_PRIORS = {
    "Intercept": Normal(250, 100),
    "Days": Normal(0, 20),
    "sigma": HalfStudentT(3, 59.3),
    "sd": HalfStudentT(3, 59.3),
    "corr": LKJ(2),
}


# random part -> log p(y) and Laplace's approximation of it; the evidences of the independent and
# the correlated slopes are computed in test_quadrature by another rule
SLEEP = {
    "": (-959.34556067, -959.34647),
    " + (1 | Subject)": (-907.69622008, -907.70660),
    " + (Days || Subject)": (-889.6568369235, -889.69734),
    " + (Days | Subject)": (-890.2440625427, -890.32724),
}


SCHOOLS = pd.DataFrame(
    {
        "y": [28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0],
        "school": list("ABCDEFGH"),
        "w": 1 / np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]) ** 2,
    }
)


def density(formula, data, priors, weights=None):
    """Return the posterior density of a model with independent columns."""
    design = build_design(read_formula(formula), data, weights=weights)
    kept = range(len(design.fixed))
    return target_of(design, cross_products(design), kept, resolve(design, priors))


@cache
def sleep(random):
    priors = dict(SLEEP_PRIORS)
    if not random:
        del priors["sd"]
    if "(Days | " not in random:
        del priors["corr"]
    return density("Reaction ~ Days" + random, rf.load_dataset("sleepstudy"), priors)


CAUCHY = HalfCauchy(5)


def schools(sd=CAUCHY, formula="y ~ 1 + (1 | school)"):
    priors = {"Intercept": Normal(0, 5), "sigma": Constant(1)}
    if sd is not None:
        priors["sd"] = sd
    return density(formula, SCHOOLS, priors, weights="w")
