"""What is said of point estimates that sit on a boundary, or rest on a poor approximation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ranef.covariances.covariance import sd_and_corr
from ranef.design.design import Design, RandomTerm
from ranef.families.family import Family

type Array = NDArray[np.float64]

SMALL = 1e-4  # a relative sd that counts as zero
LITTLE = 2.0  # information of a level, below which Laplace's approximation is poor
NODES = {1: 25, 2: 11, 3: 7}  # points of a quadrature, by its dimensions
_DISCRETE = ("proportions", "binary", "counts")


def singular_note(term: RandomTerm, Lambda: Array) -> str:
    """Say which coefficients of a singular term are on the boundary."""
    lengths = np.sqrt(np.mean(term.columns**2, axis=0))  # so that units do not matter
    rows = Lambda * lengths[:, None]
    zero = [c for c, row in zip(term.coefs, rows, strict=True) if np.linalg.norm(row) < SMALL]
    if zero:
        return f"{term.text}: the estimated sd of {', '.join(zero)} is zero."
    _, corr = sd_and_corr(rows @ rows.T)
    pairs = [
        f"{term.coefs[j]} and {term.coefs[i]} {corr[i, j]:+.3f}"
        for i, j in zip(*np.tril_indices(term.n_coefs, -1), strict=True)
        if abs(corr[i, j]) > 0.999
    ]
    if pairs:
        return f"{term.text}: estimated correlation of {', '.join(pairs)}."
    rank = min(np.linalg.matrix_rank(rows, tol=SMALL), term.n_coefs - 1)
    return (
        f"{term.text}: the estimated covariance of the {term.n_coefs} coefficients has rank {rank}."
    )


def laplace_notes(
    design: Design, family: Family, mu: Array, parameters: Mapping[str, float]
) -> list[str]:
    """Say where the Laplace approximation cannot be relied on, in at most one note.

    Parameters
    ----------
    design : Design
    family : Family
    mu : ndarray, shape (n,)
        Fitted means.
    parameters : mapping of str to float
        The family's own.

    Notes
    -----
    Classes and counts that say little about a level make the conditional distribution of its
    effects skewed. With one random intercept and many levels the estimated sd tends to 0.70 times
    the true one for 2 coin tosses a level, 0.93 for 7, 0.96 for 10; to 1.42 times for 10 trials
    of probability 0.05, 1.17 times for one expected event of a Poisson count, if the true sd is
    0.3. It is within 6 % where a level has `LITTLE` information or more about its log odds or
    log mean, over sds of 0.3 to 3, as computed from the exact distribution of its total.
    """
    if family.support not in _DISCRETE:
        return []
    spread = mu if family.support == "counts" else mu * (1 - mu)  # of mu with its log (odds)
    variance = family.variance(mu, *parameters.values())
    information = design.weights * np.divide(spread**2, variance, where=variance > 0, out=0 * mu)
    poor = [
        f"{term.text} {np.median(per_level):.2g}"
        for term in design.terms
        if np.median(per_level := np.bincount(term.codes, information) / term.n_coefs) < LITTLE
    ]
    if not poor:
        return []
    what = "log mean" if family.support == "counts" else "log odds"
    note = (
        f"The Laplace approximation is poor here: at the median, the data of a level have little "
        f"information about its {what}, {', '.join(poor)}, where {LITTLE:g} for each coefficient "
        "is enough. The standard deviation may be well off, mostly too small; compare "
        f"{_better(design)}."
    )
    return [note]


def nodes_of(design: Design) -> int | None:
    """Return the points of a good quadrature over the random effects, where there is one."""
    if len({term.factor for term in design.terms}) != 1:
        return None
    return NODES.get(sum(term.n_coefs for term in design.terms))


def _better(design: Design) -> str:
    """Return the methods that do not need the Laplace approximation."""
    nodes = nodes_of(design)
    if nodes is None:
        return 'model.fit("mcmc")'
    return f'model.fit(n_agq={nodes}) or model.fit("mcmc")'
