"""Random effects of a Gaussian model eliminated at many points: a grid or draws of variances.

With one grouping factor all levels of all points are eliminated together, elementwise; so are those
of the larger of crossed factors, and then the others of all points. Any other structure, and one
with too many effects, goes through `blocked_cholesky.factorize` point by point. Small matrices are
stored with their two dimensions first, so that every operation runs along points and levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.numerics.matrices import (
    Elements,
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
                at = _Eliminated.of(cross, [Lambda[chunk] for Lambda in Lambdas])
                logdet[chunk], products[chunk] = at.logdet, at.reduced
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
        if _has_one_link(cross):
            for chunk in _chunks(points, cross):
                at = _Eliminated.of(cross, [Lambda[chunk] for Lambda in Lambdas])
                gamma[chunk], full = gammas(chunk, at.logdet, at.reduced)
                drawn = at.effects(full, [noise[chunk] for noise in b])
                for effects_of_term, draws in zip(b, drawn, strict=True):
                    effects_of_term[chunk] = draws
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
        if _has_one_link(cross):
            for chunk in _chunks(
                points, cross, len(cross.fixed) * cross.sizes[cross.chain[0].term]
            ):
                at = _Eliminated.of(cross, [Lambda[chunk] for Lambda in Lambdas])
                for of_term, found in zip(by_term, at.moments(), strict=True):
                    of_term.mean[chunk], of_term.slope[chunk] = found.mean, found.slope
                    of_term.cov[chunk] = found.cov
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


@dataclass(frozen=True, eq=False)
class _Eliminated:
    """Random effects eliminated at points: the levels of one factor, then the rest.

    Attributes
    ----------
    cross : CrossProducts
    Lambdas : list of ndarray, shape (points, k, k)
    R, Lambda : list of list of ndarray
        The elements of the levels' Cholesky factors, and of their relative factor.
    root : ndarray, shape (points, q, q)
        The Cholesky factor of what is left of the q effects of the rest.
    half : ndarray, shape (points, q, p + 1)
        `root`^-1 times what is right of them.
    logdet : ndarray, shape (points,)
    reduced : ndarray, shape (points, p + 1, p + 1)
    """

    cross: CrossProducts
    Lambdas: list[Array]
    R: Elements
    Lambda: Elements
    root: Array
    half: Array
    logdet: Array
    reduced: Array

    @staticmethod
    def of(cross: CrossProducts, Lambdas: list[Array]) -> _Eliminated:
        """Eliminate all effects."""
        link, q, k = cross.chain[0], cross.q_rest, cross.chain[0].k
        C, Lambda = link.rest.dense(), Lambdas[link.term]
        R, L = elementwise_factor(link.front, Lambda)
        logdet = 2 * (link.counts * np.log(np.prod([R[i][i] for i in range(k)], axis=0))).sum(1)
        V = [elementwise_forward(R, L[a]) for a in range(k)]  # columns of R^-1 Lambda'
        w = C.shape[2]
        products = np.broadcast_to(cross.rest, (len(Lambda), w, w)).reshape(-1, w * w).copy()
        for a in range(k):
            for b in range(a + 1):  # Y_ab = V_.a' V_.b
                Y = sum(V[a][i] * V[b][i] for i in range(k))
                pairs = np.einsum("lu,lv->luv", C[:, a], C[:, b])
                pairs = pairs if a == b else pairs + pairs.swapaxes(1, 2)
                products -= Y @ pairs.reshape(-1, w * w)
        S = products.reshape(-1, w, w)
        for side in (S, S.mT):
            _scale(cross, [Lambda.mT for Lambda in Lambdas], side)
        S[:, np.arange(q), np.arange(q)] += 1.0
        root = stack_cholesky_or_nan(S[:, :q, :q])
        half = np.linalg.solve(root, S[:, :q, q:])
        logdet += 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        reduced = S[:, q:, q:] - half.mT @ half
        return _Eliminated(cross, Lambdas, R, L, root, half, logdet, reduced)

    def _of_rest(self, right: Array) -> Array:
        """Return Lambda `root`'^-1 times columns, shape (points, q, c)."""
        found = np.linalg.solve(self.root.mT, right)
        _scale(self.cross, self.Lambdas, found)
        return found

    def effects(self, gamma: Array, noise: Sequence[Array]) -> list[Array]:
        """Return draws of the effects of each term, shape (points, m, k), from N(0, sigma^2)."""
        link, points, b = self.cross.chain[0], len(gamma), list(noise)
        k, C = link.k, link.rest.dense()
        contrast = np.column_stack([-gamma, np.ones(points)])
        z = np.empty((points, self.cross.q_rest))
        for term, place in self.cross.rest_terms:
            z[:, place] = noise[term].reshape(points, -1)
        rest = self._of_rest(self.half @ contrast[:, :, None] + z[:, :, None])[:, :, 0]
        for term, place in self.cross.rest_terms:
            b[term] = rest[:, place].reshape(b[term].shape)
        contrast = np.column_stack([-rest, contrast])
        sums = [contrast @ C[:, a].T for a in range(k)]
        right = [np.asarray(sum(self.Lambda[a][i] * sums[a] for a in range(k))) for i in range(k)]
        forward = elementwise_forward(self.R, right)
        half = [h + noise[link.term][:, :, i] for i, h in enumerate(forward)]
        u = elementwise_backward(self.R, half)
        elements = [sum(self.Lambda[a][i] * u[i] for i in range(k)) for a in range(k)]
        b[link.term] = np.stack(elements, axis=-1)
        return b

    def moments(self) -> list[Moments]:
        """Return the moments of each term given gamma, with Y = V V' those of the levels alone."""
        cross, q = self.cross, self.cross.q_rest
        rows = [elementwise_forward(self.R, row) for row in self.Lambda]
        V = np.stack([np.stack(np.broadcast_arrays(*row), -1) for row in rows], axis=-2)
        Y = V @ V.mT
        YC = Y @ cross.chain[0].rest.dense()
        rest, root = map(self._of_rest, (self.half, np.broadcast_to(np.eye(q), self.root.shape)))
        across = YC[..., :q] @ root[:, None]
        of_link = _moments(YC[..., q:] - YC[..., :q] @ rest[:, None], Y + across @ across.mT)
        by_term = [of_link] * len(cross.sizes)
        for term, place in cross.rest_terms:
            shape = (len(rest), cross.n_levels[term], cross.covariances[term].k, -1)
            half = root[:, place].reshape(shape)
            by_term[term] = _moments(rest[:, place].reshape(shape), half @ half.mT)
        return by_term


def _moments(of_fixed: Array, cov: Array) -> Moments:
    """Return moments from the effects that go with each of [X y], shape (points, m, k, p + 1)."""
    return Moments(of_fixed[..., -1], -of_fixed[..., :-1], cov)


def _scale(cross: CrossProducts, factors: Sequence[Array], rows: Array) -> None:
    """Multiply the rows of the effects of the rest by the factors of their terms, in place."""
    for term, place in cross.rest_terms:
        factor = factors[term][:, None]
        blocks = rows[:, place].reshape(len(rows), -1, factor.shape[-1], rows.shape[2])
        rows[:, place] = (factor @ blocks).reshape(len(rows), -1, rows.shape[2])


def _has_one_link(cross: CrossProducts) -> bool:
    """Whether all but one factor are in the rest, and all products of two of its columns fit."""
    is_dense = len(cross.chain) == 1 and cross.chain[0].rest.is_dense
    size = len(cross.fixed) ** 2 * len(cross.chain[0].front) if is_dense and cross.q_rest else 0
    return is_dense and size <= CHUNK


def _chunks(points: int, cross: CrossProducts, size: int = 0) -> Iterator[slice]:
    """Yield points in chunks, each point having arrays of a size."""
    link, w = cross.chain[0], len(cross.fixed)
    return chunks(points, max(1, CHUNK // max(len(link.front) * link.k**2, w * w, size)))
