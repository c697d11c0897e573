"""Where the search for the covariance parameters of a linear model starts.

Moments: with e the least-squares residuals, E (Z'e)(Z'e)' is linear in the elements of the terms'
covariances and in sigma^2. Matched to what the data show, these are Haseman and Elston's estimates
(MINQUE at V = I), from sums of squares of the cross-products alone. They are consistent, so that
with many levels a search starts near its end.

Source: Haseman & Elston (1972), *Behavior Genetics* 2, 3-19; Rao (1971), *Journal of Multivariate
Analysis* 1, 257-275.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import NEARLY_ZERO_SD, Covariance, factors, theta_of
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import CrossProducts, residual_sums
from ranef.likelihood.linear.exact_fit import penalised
from ranef.likelihood.linear.expected_information import InnerProducts, inner_products
from ranef.numerics.matrices import spans

FEW_ROWS = 100  # up to which several starts are tried
SIZES_OF_OTHER_STARTS = (1.0, 3.0)  # relative sds
GREAT_SIZE = 30.0  # a relative sd of a start
ENDLESS_SIZE = 1e5  # a relative sd with which next to nothing is pooled
SHARE_OF_ITS_OWN = 0.1  # of the sd of a coefficient of a start that varies with the others
VARIANCES = (0.01, 1e4)  # relative: the least and the greatest of a start by moments
MIN_UNEXPLAINED = 1e-2  # of the residual variance, that is left to sigma
TINY = np.finfo(np.float64).tiny


def moment_start(cross: CrossProducts, products: InnerProducts | None = None) -> Array:
    """Return theta in the basis from the moments of the least-squares residuals.

    Parameters
    ----------
    cross : CrossProducts
    products : InnerProducts, optional
        Of the cross-products, if they are at hand: they do not depend on the response.
    """
    products = products or inner_products(cross)
    sums = {term: s for term, _, s in residual_sums(cross)}
    seen = [
        (units * (sums[term].T @ sums[term])).sum(axis=(1, 2))
        for term, units in enumerate(products.units)
    ]
    moments = np.concatenate([*seen, cross.fixed[-1:, -1]])
    size = np.sqrt(np.maximum(np.diag(products.unexplained), TINY))
    scaled = products.unexplained / np.outer(size, size)
    *elements, variance = np.linalg.lstsq(scaled, moments / size)[0] / size
    variance = max(
        variance, MIN_UNEXPLAINED * cross.fixed[-1, -1] / max(cross.n - cross.p, 1), TINY
    )
    pairs = zip(products.units, spans(map(len, products.units)), strict=True)
    relative = [np.tensordot(elements[span], units, axes=1) / variance for units, span in pairs]
    return theta_of([_root(C, *VARIANCES) for C in relative], cross.covariances)


def theta_of_effects(
    effects: Sequence[Array], covariances: Sequence[Covariance], variance: float = 1.0
) -> Array:
    """Return theta in the basis of covariances that are those of effects, shape (m, k) each."""
    moments = [b.T @ b / (len(b) * variance) for b in effects]
    return theta_of([_root(C, VARIANCES[0], np.inf) for C in moments], covariances)


def _root(covariance: Array, least: float, greatest: float) -> Array:
    """Return a root of a covariance, its variances being kept between bounds."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.clip(values, least, greatest)))


def no_pooling_starts(
    cross: CrossProducts, covariances: Sequence[Covariance]
) -> list[tuple[Array, float]]:
    """Return theta in the basis, and sigma, by effects without pooling, if rows are enough.

    The fixed effects are then those within levels. Where they differ from those between levels, as
    in Simpson's paradox, there can be an optimum for each: one takes what differs between levels
    for random effects, the other what differs within levels for residuals.
    """
    left = cross.n - cross.p - sum(cross.sizes)
    if left <= 0 or not covariances:
        return []
    try:
        factorized = blocked_cholesky.factorize(
            cross, [ENDLESS_SIZE * np.eye(c.k) for c in covariances]
        )
    except np.linalg.LinAlgError:
        return []
    r2, gamma = penalised(factorized)
    effects, variance = blocked_cholesky.modes(factorized, gamma), max(r2 / left, TINY)
    return [(theta_of_effects(effects, covariances, variance), np.sqrt(variance))]


def starts_from(start: Array, covariances: Sequence[Covariance], *, several: bool) -> list[Array]:
    """Return a start, theta in the basis, and if several are wanted two larger ones."""
    sizes = SIZES_OF_OTHER_STARTS if several and covariances else ()
    return [start, *(multiple_of_identity(size, covariances) for size in sizes)]


def far_starts(covariances: Sequence[Covariance]) -> list[Array]:
    """Return starts far from the others: great or correlated effects."""
    if not covariances:
        return []
    starts = [multiple_of_identity(GREAT_SIZE, covariances)]
    for sign in (1.0, -1.0) if any(c.has_correlations for c in covariances) else ():
        roots = []
        for c in covariances:
            together = np.where(np.arange(c.k) > 0, sign, 1.0)
            root = np.column_stack([together, SHARE_OF_ITS_OWN * np.eye(c.k)])
            roots.append(SIZES_OF_OTHER_STARTS[-1] * root)
        starts.append(theta_of(roots, covariances))
    return starts


def all_starts(start: Array, covariances: Sequence[Covariance], *, several: bool) -> list[Array]:
    """Return a start, theta in the basis, and if several are wanted near and far ones."""
    starts = starts_from(start, covariances, several=several)
    return starts + far_starts(covariances) if several else starts


def starts_beside(theta: Array, covariances: Sequence[Covariance], *, few: bool) -> list[Array]:
    """Return starts beside an optimum, with few rows without one of its coefficients too."""
    starts = with_one_more(theta, covariances)
    return starts + without_one(theta, covariances) if few else starts


def without_one(theta: Array, covariances: Sequence[Covariance]) -> list[Array]:
    """Return starts beside an optimum: its theta where one of several coefficients is zero.

    Another optimum is often one where the others take over what this coefficient explains.
    """
    found = factors(theta, covariances)
    places = [(term, row) for term, c in enumerate(covariances) for row in range(c.k)]
    starts = []
    for term, row in places if len(places) > 1 else ():
        if found[term][row].any():
            changed = [root.copy() for root in found]
            changed[term][row] = 0.0
            starts.append(theta_of(changed, covariances))
    return starts


def with_one_more(theta: Array, covariances: Sequence[Covariance]) -> list[Array]:
    """Return starts beside a singular optimum: its theta with a great sd where it has none.

    Where the effects of one coefficient hide the residuals or stand in for those of another, the
    other is easily lost.
    """
    found = factors(theta, covariances)
    starts = []
    for term, root in enumerate(found):
        axes, sds, _ = np.linalg.svd(root)
        for axis in axes.T[sds < NEARLY_ZERO_SD]:
            wider = np.column_stack([root, GREAT_SIZE * axis])
            starts.append(theta_of([*found[:term], wider, *found[term + 1 :]], covariances))
    return starts


def multiple_of_identity(size: float, covariances: Sequence[Covariance]) -> Array:
    """Return theta in the basis for independent coefficients with the same relative sd."""
    return theta_of([size * np.eye(c.k) for c in covariances], covariances)
