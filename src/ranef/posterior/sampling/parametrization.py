"""Centred or not: how the random effects of a generalised model are sampled.

The effects b of a term are sampled as they are (centred), or as standard normal z with b = sd z
(non-centred). The first mixes well where the data say what the effects of a level are, the second
where their prior does. What counts is how much: for one coefficient I tau^2, the information of a
level about its effect times the variance of the effects.

Source: Papaspiliopoulos, Roberts & Skold (2007), *Statistical Science* 22, 59-73; Betancourt &
Girolami (2013), arXiv 1312.0906.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranef.design.design import Design, full_rank
from ranef.families.family import Family
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior import mode
from ranef.posterior.linear_posterior import target_of
from ranef.priors.distributions import Constant
from ranef.priors.resolve import resolve

type Array = NDArray[np.float64]

ENOUGH = 2.5  # times its prior: as measured, even at 2; at 1.3 the tails of sd suffer, at 3 win
SMALLEST = 1e-10  # of a weight, relative to the largest
TINY = 1e-15  # of a variance


@dataclass(frozen=True)
class Choice:
    """How the random effects of a term are sampled.

    Attributes
    ----------
    label : str
        The label of the term.
    centered : bool
        Whether they are sampled as they are.
    reason : str
        A sentence that says why.
    """

    label: str
    centered: bool
    reason: str


def choose(design: Design, family: Family) -> tuple[Choice, ...]:
    """Choose for each term between the centred and the non-centred form.

    Parameters
    ----------
    design : Design
    family : Family

    Returns
    -------
    tuple of Choice
        In the order of the terms. Centred is a term where the rows of half of the levels are
        worth `ENOUGH` times the prior, for each coefficient.

    Raises
    ------
    DataError
        If no starting values are found.

    Notes
    -----
    What rows are worth is the variance of a coefficient before them over that after them, less
    one: I tau^2 in the simplest case. They are those of a linear mixed model for the working
    response, which has the slope and the expected curvature of the log-likelihood at the fit
    without random effects.

    Examples
    --------
    >>> import ranef as rf
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> model = rf.Model(formula, rf.load_dataset("cbpp"), family="binomial")
    >>> print(choose(model.design, model.family)[0].reason)
    herd: centred (a level has information worth 3 times its prior; non-centred below 2.5)
    """
    estimate = _estimate(design, family)
    parts = zip(design.terms, estimate.Lambdas, estimate.b_cov, strict=True)
    return tuple(
        _choice(term.label, _worth(estimate.sigma**2 * Lambda @ Lambda.T, after))
        for term, Lambda, after in parts
    )


def _choice(label: str, worth: float) -> Choice:
    centered = worth >= ENOUGH
    form, other = ("centred", "non-centred below") if centered else ("non-centred", "centred from")
    reason = f"a level has information worth {worth:.2g} times its prior; {other} {ENOUGH:g}"
    return Choice(label, centered, f"{label}: {form} ({reason})")


def _worth(before: Array, after: Array) -> float:
    """Return what the rows of a level are worth, from covariances (k, k) and (m, k, k)."""
    before, after = np.diag(before), np.diagonal(after, axis1=1, axis2=2)
    gains = before / np.maximum(after, TINY * before + np.finfo(float).tiny) - 1
    return float(np.median(np.maximum(gains, 0.0), axis=0).min())


def _estimate(design: Design, family: Family) -> Estimate:
    """Return the estimate of a linear model for the working response.

    Its scale is one, as the weights have it, but for families with parameters of their own: these
    were found without random effects, and are wrong where there are large ones.
    """
    design = full_rank(design)
    model = prepare(design, family)
    eta, psi = model.offset + model.X @ model.gamma, np.exp(model.log_psi)
    score = family.expansion(design.y, eta, design.weights, psi).score
    W = family.information(eta, design.weights, psi)
    W = np.clip(W, SMALLEST * W.max(), None)
    working = replace(design, y=eta + score / W, weights=W)
    priors = resolve(working, "flat")
    if not family.parameters:
        priors = replace(priors, sigma=Constant(1.0))
    every = range(len(working.fixed))
    return mode.estimate(target_of(working, cross_products(working), every, priors))
