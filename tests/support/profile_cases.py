"""Fits that are profiled, linear and generalised."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
from designs import STRUCTURES, random_frame
from reference_cases import REFERENCE

import ranef as rf
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.profile.search import generalized_surface, linear_surface
from ranef.likelihood.profile.search import profile as profile_of


def profile(fit, names=None, **options):
    """Return the profiles of a fit, with an engine or without."""
    model, names = fit.fitted_model, [names] if isinstance(names, str) else names
    if fit.family.is_linear:
        surface = linear_surface(model, cross_products(fit.design))
    else:
        surface = generalized_surface(model, prepare(fit.design, fit.family))
    return profile_of(model, surface, names, **options)


@cache
def small(kind, n=60):
    """Return a model with clear random effects, fitted by ML."""
    rng = np.random.default_rng(11)
    frame = random_frame(rng, n)
    frame["x"] -= 7
    frame["y"] += 2 * rng.normal(size=12)[frame["c"]] + rng.normal(size=7)[frame["i"]]
    frame["y"] += (1.5 * rng.normal(size=12)[frame["c"]] + 1) * frame["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        return rf.Model(STRUCTURES[kind], frame, weights="w").fit("ml")


@cache
def generalised(formula, family, n_agq=1):
    data = pd.read_csv(REFERENCE / "data" / "glmm_groups.csv")
    return rf.Model(formula, data, family=family).fit("ml", n_agq=n_agq)
