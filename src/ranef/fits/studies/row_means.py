"""The mean of each row given variances: what its own response and the others say together.

With V the covariance of the response and G the share of the random effects, the mean of the rows
theta = X beta + Z b is normal given beta and the variances,

    theta | y, beta ~ N(X beta + A (y - X beta), G - A G),    A = G V^-1.

A fit is a mixture of such settings: one, the nodes of a lattice, or draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ranef._typing import Array
from ranef.design.design import Design
from ranef.posterior.quadrature.marginal_densities import mixture

MIN_RELATIVE_SD = 1e-6  # of a component of a mixture, over the largest: below is rounding


@dataclass(frozen=True, eq=False)
class Settings:
    """Covariances with the distribution of beta given them; there may be several.

    Attributes
    ----------
    weights : ndarray, shape (C,)
        They sum to one.
    covs : tuple of ndarray, shape (C, k, k)
        The covariance of each term.
    beta : ndarray, shape (C, p)
    beta_cov : ndarray, shape (C, p, p)
        Zero where beta is a draw.
    sigma : ndarray, shape (C,)
    """

    weights: Array
    covs: tuple[Array, ...]
    beta: Array
    beta_cov: Array
    sigma: Array


def row_means(design: Design, settings: Settings) -> tuple[Array, Array]:
    """Return mean and sd of the mean of each row in every setting, shape (C, n)."""
    rows = design.rows
    means, sds = (np.empty((len(settings.weights), design.n_obs)) for _ in range(2))
    y, pairs = rows.y - rows.offset, [t.codes[:, None] == t.codes for t in rows.terms]
    for c, (beta, beta_cov) in enumerate(zip(settings.beta, settings.beta_cov, strict=True)):
        G = np.zeros((design.n_obs, design.n_obs))
        for term, same, covs in zip(rows.terms, pairs, settings.covs, strict=True):
            G += same * (term.columns @ covs[c] @ term.columns.T)
        V = G + np.diag(settings.sigma[c] ** 2 / rows.weights)
        A = np.linalg.solve(V, G).T
        B = rows.X - A @ rows.X
        means[c] = rows.offset + rows.X @ beta + A @ (y - rows.X @ beta)
        variance = np.diag(G) - (A * G).sum(axis=1) + ((B @ beta_cov) * B).sum(axis=1)
        sds[c] = np.sqrt(np.maximum(variance, 0.0))
    return means, sds


def new_means(settings: Settings) -> tuple[Array, Array]:
    """Return mean and sd of the mean of a new level of every term, intercepts all of them, (C,)."""
    variance = settings.beta_cov[:, 0, 0] + sum(cov[:, 0, 0] for cov in settings.covs)
    return settings.beta[:, 0], np.sqrt(variance)


def interval(weights: Array, means: Array, sds: Array, prob: float) -> tuple[float, float, float]:
    """Return the mean of a mixture of normals, and its highest density interval."""
    mean = float(weights @ means)
    if len(weights) == 1:
        half = float(special.ndtri(0.5 + prob / 2) * sds[0])
        return mean, mean - half, mean + half
    return mean, *mixture(weights, means, np.maximum(sds, MIN_RELATIVE_SD * sds.max())).hdi(prob)


def intervals(
    weights: Array, moments: tuple[Array, Array], prob: float
) -> list[tuple[float, float, float]]:
    """Return the mean and the interval of each column of means and sds, shape (C, n)."""
    columns: Sequence[tuple[Array, Array]] = list(zip(moments[0].T, moments[1].T, strict=True))
    return [interval(weights, mean, sd, prob) for mean, sd in columns]
