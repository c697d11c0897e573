"""Fits whose density ratios are known."""

from __future__ import annotations

from functools import cache

from density_cases import SLEEP_PRIORS

import ranef as rf
from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.quadrature.moments import Exact
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    HalfNormal,
    Normal,
)


def fitted(formula, data, priors="default", weights=None):
    """Return the posterior by quadrature, and the priors."""
    design = build_design(read_formula(formula), data, weights=weights)
    resolved, kept = resolve(design, priors), full_rank(design)
    places = [design.fixed.index(name) for name in kept.fixed]
    return Exact.of(target_of(design, cross_products(kept), places, resolved)), resolved


@cache
def sleep_fit(random):
    unused = {"sd"} if not random else set()
    unused |= set() if "(Days | " in random else {"corr"}
    priors = {name: prior for name, prior in SLEEP_PRIORS.items() if name not in unused}
    return fitted("Reaction ~ Days" + random, rf.load_dataset("sleepstudy"), priors)


DYESTUFF = {"Intercept": Normal(1500, 100), "sigma": HalfNormal(60)}


BATCH = "Yield ~ 1 + (1 | Batch)"
