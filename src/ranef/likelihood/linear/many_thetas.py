"""Random effects of a Gaussian model eliminated at many points: a grid or draws of variances.

With one grouping factor all levels of all points are eliminated together, elementwise; so are, for
the density alone, those of the larger of crossed factors, and then the others of all points. Any
other structure goes through `blocked_cholesky.factorize` point by point. Small matrices are stored
with their two dimensions first, so that every operation runs along points and levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import ChainFactor, CrossProducts
from ranef.numerics.matrices import (
    chunks,
    elementwise_backward,
    elementwise_factor,
    elementwise_forward,
    stack_cholesky_or_nan,
    threads_for,
)

type Gammas = Callable[[slice, Array, Array], tuple[Array, Array]]

CHUNK = 2_000_000  # elements of a temporary array


def reduced(cross: CrossProducts, Lambdas: Sequence[Array]) -> tuple[Array, Array]:
    """Return log|M| and the cross-products of [X y] in the metric of V^-1 at every point.

    Parameters
    ----------
    cross : CrossProducts
    Lambdas : sequence of ndarray, shape (points, k, k)
        Relative factors of each term in the basis of the cross-products.

    Returns
    -------
    logdet : ndarray, shape (points,)
    reduced : ndarray, shape (points, p + 1, p + 1)
        Both nan where they cannot be computed.
    """
    points = len(Lambdas[0]) if Lambdas else 1
    logdet, products = np.full(points, np.nan), np.full((points, cross.p + 1, cross.p + 1), np.nan)
    with threads_for(len(cross.fixed)), np.errstate(all="ignore"):
        if _has_one_link(cross):
            for chunk in _chunks(points, cross):
                at = _reduced(cross, [Lambda[chunk] for Lambda in Lambdas])
                logdet[chunk], products[chunk] = at
            return logdet, products
        for i in range(points):
            try:
                factorized = blocked_cholesky.factorize(cross, [Lambda[i] for Lambda in Lambdas])
            except np.linalg.LinAlgError:
                continue
            logdet[i], products[i] = factorized.logdet, factorized.reduced
    return logdet, products


def effects(
    cross: CrossProducts,
    Lambdas: Sequence[Array],
    gammas: Gammas,
    *,
    r: int,
    sigma: Array,
    rng: np.random.Generator,
) -> tuple[Array, list[Array]]:
    """Draw the random effects from their exact conditional distribution, one at every point.

    Parameters
    ----------
    cross : CrossProducts
    Lambdas : sequence of ndarray, shape (points, k, k)
    gammas : callable
        From a slice of the points with their log|M| and reduced cross-products to integrated
        coefficients, shape (points, r), and those of all columns of the basis, (points, p).
    r : int
    sigma : ndarray, shape (points,)
    rng : Generator

    Returns
    -------
    gamma : ndarray, shape (points, r)
    b : list of ndarray, shape (points, m, k)
        In the basis, term by term.
    """
    points, gamma = len(sigma), np.empty((len(sigma), r))
    b = [
        sigma[:, None, None] * rng.standard_normal((points, m, shape.k))
        for m, shape in zip(cross.n_levels, cross.covariances, strict=True)
    ]
    with threads_for(len(cross.fixed)), np.errstate(all="ignore"):
        if _is_one_factor(cross):
            for chunk in _chunks(points, cross):
                gamma[chunk], full = gammas(chunk, *_reduced(cross, [Lambdas[0][chunk]]))
                b[0][chunk] = _effects(cross.chain[0], Lambdas[0][chunk], full, b[0][chunk])
            return gamma, b
        for i in range(points):
            factorized = blocked_cholesky.factorize(cross, [Lambda[i] for Lambda in Lambdas])
            logdet, products = np.array([factorized.logdet]), factorized.reduced[None]
            gamma[i : i + 1], full = gammas(slice(i, i + 1), logdet, products)
            drawn = blocked_cholesky.modes(factorized, full[0], [noise[i] for noise in b])
            for effects_of_term, draw in zip(b, drawn, strict=True):
                effects_of_term[i] = draw
    return gamma, b


@dataclass(frozen=True, eq=False)
class Moments:
    """The random effects of one term given gamma, in the basis, at every point.

    Attributes
    ----------
    mean : ndarray, shape (points, m, k)
        The conditional mean where gamma is zero.
    slope : ndarray, shape (points, m, k, p)
        The derivative of the mean with respect to gamma.
    cov : ndarray, shape (points, m, k, k)
        Covariance over sigma^2.
    """

    mean: Array
    slope: Array
    cov: Array


def moments(cross: CrossProducts, Lambdas: Sequence[Array]) -> list[Moments]:
    """Return the conditional moments of the random effects, term by term.

    Parameters
    ----------
    cross : CrossProducts
    Lambdas : sequence of ndarray, shape (points, k, k)
    """
    points, p = len(Lambdas[0]) if Lambdas else 1, cross.p
    by_term = [
        Moments(*(np.empty((points, m, c.k, *shape)) for shape in ((), (p,), (c.k,))))
        for m, c in zip(cross.n_levels, cross.covariances, strict=True)
    ]
    contrasts = np.vstack([np.zeros((1, p)), np.eye(p)])
    with threads_for(len(cross.fixed)), np.errstate(all="ignore"):
        if _is_one_factor(cross):
            for chunk in _chunks(points, cross):
                _moments(cross.chain[0], Lambdas[0][chunk], by_term[0], chunk)
            return by_term
        for i in range(points):
            factorized = blocked_cholesky.factorize(cross, [Lambda[i] for Lambda in Lambdas])
            covariances = blocked_cholesky.conditional_covariances(factorized)
            modes = [blocked_cholesky.modes(factorized, gamma) for gamma in contrasts]
            for t, of_term in enumerate(by_term):
                of_term.mean[i], of_term.cov[i] = modes[0][t], covariances[t]
                for j in range(p):
                    of_term.slope[i, :, :, j] = modes[j + 1][t] - modes[0][t]
    return by_term


def _moments(link: ChainFactor, Lambda: Array, of_term: Moments, chunk: slice) -> None:
    """Fill in the moments of one factor at some points: Y C and Y, as Y = V'V."""
    R, L = elementwise_factor(link.front, Lambda)
    V = np.stack(
        [np.stack(np.broadcast_arrays(*elementwise_forward(R, row)), -1) for row in L], axis=-2
    )
    Y = V @ V.swapaxes(-1, -2)
    YC = Y @ link.rest.dense()
    of_term.mean[chunk], of_term.slope[chunk], of_term.cov[chunk] = YC[..., -1], -YC[..., :-1], Y


def _is_one_factor(cross: CrossProducts) -> bool:
    return len(cross.chain) == 1 == len(cross.covariances) and cross.chain[0].rest.is_dense


def _has_one_link(cross: CrossProducts) -> bool:
    """Whether all but one factor are in the rest, and all products of two of its columns fit."""
    is_dense = len(cross.chain) == 1 and cross.chain[0].rest.is_dense
    size = len(cross.fixed) ** 2 * len(cross.chain[0].front) if is_dense and cross.q_rest else 0
    return is_dense and size <= CHUNK


def _chunks(points: int, cross: CrossProducts) -> Iterator[slice]:
    link, w = cross.chain[0], len(cross.fixed)
    return chunks(points, max(1, CHUNK // max(len(link.front) * link.k**2, w * w)))


def _reduced(cross: CrossProducts, Lambdas: Sequence[Array]) -> tuple[Array, Array]:
    link = cross.chain[0]
    C, Lambda = link.rest.dense(), Lambdas[link.term]
    R, L = elementwise_factor(link.front, Lambda)
    k, w = link.k, C.shape[2]
    logdet = 2 * (link.counts * np.log(np.prod([R[i][i] for i in range(k)], axis=0))).sum(axis=1)
    V = [elementwise_forward(R, L[a]) for a in range(k)]  # columns of R^-1 Lambda'
    products = np.broadcast_to(cross.rest, (len(Lambda), w, w)).reshape(-1, w * w).copy()
    for a in range(k):
        for b in range(a + 1):  # Y_ab = V_.a' V_.b
            Y = sum(V[a][i] * V[b][i] for i in range(k))
            pairs = np.einsum("lu,lv->luv", C[:, a], C[:, b])
            pairs = pairs if a == b else pairs + pairs.swapaxes(1, 2)
            products -= Y @ pairs.reshape(-1, w * w)
    return _without_rest(cross, Lambdas, logdet, products.reshape(-1, w, w))


def _without_rest(
    cross: CrossProducts, Lambdas: Sequence[Array], logdet: Array, S: Array
) -> tuple[Array, Array]:
    """Eliminate the random effects of the rest, whose cross-products are S, (points, w, w)."""
    q = cross.q_rest
    if not q:
        return logdet, S
    for term, place in cross.rest_terms:
        turn = Lambdas[term].mT[:, None]
        for side in (S, S.mT):
            blocks = side[:, place].reshape(len(S), -1, turn.shape[-1], S.shape[2])
            side[:, place] = (turn @ blocks).reshape(len(S), -1, S.shape[2])
    S[:, np.arange(q), np.arange(q)] += 1.0
    L = stack_cholesky_or_nan(S[:, :q, :q])
    half = np.linalg.solve(L, S[:, :q, q:])
    logdet = logdet + 2 * np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    return logdet, S[:, q:, q:] - half.mT @ half


def _effects(link: ChainFactor, Lambda: Array, gamma: Array, noise: Array) -> Array:
    k, C = link.k, link.rest.dense()
    contrast = np.column_stack([-gamma, np.ones(len(gamma))])
    sums = [contrast @ C[:, a].T for a in range(k)]
    R, L = elementwise_factor(link.front, Lambda)
    right = [np.asarray(sum(L[a][i] * sums[a] for a in range(k))) for i in range(k)]
    half = [h + noise[:, :, i] for i, h in enumerate(elementwise_forward(R, right))]
    u = elementwise_backward(R, half)
    return np.stack([sum(L[a][i] * u[i] for i in range(k)) for a in range(k)], axis=-1)
