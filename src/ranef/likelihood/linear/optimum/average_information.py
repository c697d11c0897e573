"""The curvature of a linear model's criterion by its average information.

The second derivative of a (restricted) deviance by covariance parameters has a part in the
response, which needs one solve for each parameter, and a trace, tr(P V_i P V_j), which needs the
whole of Z'PZ. The average of observed and expected information has no trace: in its place stands
the part in the response, whose expectation it is. What an element of a factor adds, as V is
quadratic in it, is exact. So the curvature is exact where all columns of a factor are zero, and a
saddle there shows.

P projects the fixed effects out in the metric of V, V_i = Z Sigma_i Z' with Sigma_i the derivative
of the relative covariance, and w_i = V_i P y are treated as further columns beside X and y.

Source: Gilmour, Thompson & Cullis (1995), *Biometrics* 51, 1440-1450.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import Covariance, by_term, factors, pull_back
from ranef.likelihood.linear.blocked_cholesky import Factorized, times_factors
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.numerics.matrices import single_triangular_solve, spans, summed_by


@dataclass(frozen=True, eq=False)
class AverageInformation:
    """The response's part in the second derivatives of a criterion by theta.

    Attributes
    ----------
    twice : ndarray, shape (d, d)
        y'P V_i P V_j P y.
    once : ndarray, shape (d,)
        y'P V_i P y.
    fixed : ndarray, shape (p + 1, d)
        [X y]' V^-1 V_i P y.
    """

    twice: Array
    once: Array
    fixed: Array


def average_information(
    factorized: Factorized, contrast: Array, gamma_cov: Array, directions: Sequence[Array]
) -> AverageInformation:
    """Return the response's part in the second derivatives along some directions.

    Parameters
    ----------
    factorized : Factorized
    contrast : ndarray, shape (p + 1,)
        The combination of [X y] that is left of the response, (-gamma, 1).
    gamma_cov : ndarray, shape (p, p)
        The covariance of gamma over sigma^2; zero in the directions of known coefficients.
    directions : sequence of ndarray, shape (d_t, k, k)
        The derivatives of each term's relative covariance by its parameters, in the basis of the
        cross-products.
    """
    cross = factorized.cross
    effects = _moved(factorized, contrast, directions)
    sums, fixed = times(cross, effects)
    d = sum(map(len, directions))
    squares = np.zeros((d, d))
    for c, of_term in zip(effects, sums, strict=True):
        squares += c.reshape(-1, d).T @ of_term.reshape(-1, d)
    fixed, explained = projected(factorized, sums, fixed)
    twice = squares - explained - fixed[:-1].T @ gamma_cov @ fixed[:-1]
    return AverageInformation(twice, fixed.T @ contrast, fixed)


def by_theta(
    theta: Array, Lambdas: Sequence[Array], covariances: Sequence[Covariance]
) -> list[Array]:
    """Return the derivatives of each relative covariance by its theta, shape (d_t, k, k)."""
    halves = (
        covariance.jacobian(of_term) @ Lambda.T
        for covariance, of_term, Lambda in zip(
            covariances, by_term(theta, covariances), Lambdas, strict=True
        )
    )
    return [half + half.mT for half in halves]


def _moved(factorized: Factorized, contrast: Array, directions: Sequence[Array]) -> list[Array]:
    """Return Sigma_i Z'Py of each term, shape (m, k, d): V_i P y is Z times that."""
    effects, d, places = [], sum(map(len, directions)), spans(map(len, directions))
    residuals = residual_sums(factorized, contrast)
    for of_term, place, z in zip(directions, places, residuals, strict=True):
        moved, k = np.zeros((*z.shape, d)), z.shape[1]
        flat = z @ of_term.transpose(1, 2, 0).reshape(k, -1)
        moved[:, :, place] = flat.reshape(*z.shape, len(of_term))
        effects.append(moved)
    return effects


def of_factors(
    slopes: Sequence[Array],
    scores: Sequence[Array],
    theta: Array,
    covariances: Sequence[Covariance],
) -> Array:
    """Return what second derivatives owe to V being no linear function of theta, exactly.

    Parameters
    ----------
    slopes : sequence of ndarray, shape (k, k)
        The derivative of the criterion by each Lambda.
    scores : sequence of ndarray, shape (k, k)
        The derivative by Lambda Lambda'.
    theta : ndarray, shape (d,)
    covariances : sequence of Covariance
    """
    curvature, start = np.zeros((len(theta), len(theta))), 0
    for covariance, of_term, slope, score in zip(
        covariances, by_term(theta, covariances), slopes, scores, strict=True
    ):
        jacobian = covariance.jacobian(of_term)
        flat = jacobian.reshape(len(jacobian), -1)
        quadratic = 2 * flat @ (score @ jacobian).reshape(flat.shape).T
        own = slice(start, start := start + len(jacobian))
        curvature[own, own] = quadratic + covariance.curvature(slope, of_term)
    return curvature


@dataclass(frozen=True, eq=False)
class QuadraticInCovariances:
    """A criterion near a point, as a quadratic function of the covariances, not of theta.

    V is linear in the covariances, so that the criterion is nearer to such a function: as one of
    theta, Newton steps towards a standard deviation of zero take off a third of it each.

    Attributes
    ----------
    theta : ndarray, shape (d,)
        The point.
    covariances : sequence of Covariance
    scores : sequence of ndarray, shape (k, k)
        The derivative by each Lambda Lambda' there.
    directions : sequence of ndarray, shape (d_t, k, k)
        Orthogonal matrices that span the covariances of each term.
    curvature : ndarray, shape (d, d)
        The second derivatives along these.
    """

    theta: Array
    covariances: Sequence[Covariance]
    scores: Sequence[Array]
    directions: Sequence[Array]
    curvature: Array

    def __call__(self, theta: Array) -> tuple[float, Array, Array]:
        """Return the change of the criterion, its gradient and its Hessian."""
        Lambdas, before = (factors(x, self.covariances) for x in (theta, self.theta))
        changes = [F @ F.T - B @ B.T for F, B in zip(Lambdas, before, strict=True)]
        moved = np.concatenate(self._coordinates([change[None] for change in changes]), axis=1)[0]
        pull = self.curvature @ moved
        value = sum(float((G * c).sum()) for G, c in zip(self.scores, changes, strict=True))
        scores, places = [], spans(map(len, self.directions))
        for G, of_term, place in zip(self.scores, self.directions, places, strict=True):
            sizes = (of_term**2).sum(axis=(1, 2))
            scores.append(G + np.tensordot(pull[place] / sizes, of_term, axes=1))
        slopes = [2 * G @ Lambda for G, Lambda in zip(scores, Lambdas, strict=True)]
        jacobian = linalg.block_diag(*self._coordinates(by_theta(theta, Lambdas, self.covariances)))
        hessian = jacobian @ self.curvature @ jacobian.T
        hessian += of_factors(slopes, scores, theta, self.covariances)
        gradient = pull_back(slopes, theta, self.covariances)
        return value + float(moved @ pull) / 2, gradient, hessian

    def _coordinates(self, matrices: Sequence[Array]) -> list[Array]:
        """Return matrices of each term, shape (n, k, k), along its directions, (n, d_t)."""
        return [
            np.tensordot(x, of_term, axes=([1, 2], [1, 2])) / (of_term**2).sum(axis=(1, 2))
            for x, of_term in zip(matrices, self.directions, strict=True)
        ]


# ----------------------------------------------------------------- products with further columns


def residual_sums(factorized: Factorized, contrast: Array) -> list[Array]:
    """Return the sums Z'V^-1 e of each term, shape (m, k), e the columns of [X y] combined.

    Parameters
    ----------
    factorized : Factorized
    contrast : ndarray, shape (p + 1,)
        The combination, such as (-gamma, 1) for the residuals of the fixed effects.
    """
    cross, q = factorized.cross, factorized.cross.q_rest
    b = times_factors(cross, factorized.Lambdas, factorized.H @ contrast)
    v, later = np.append(-b, contrast), np.empty((0, 0))
    sums: list[Array] = [np.empty(0)] * len(cross.covariances)
    rest = cross.fixed[:q] @ contrast - cross.inner @ b
    for stage, link in zip(reversed(factorized.chain), reversed(cross.chain), strict=True):
        r = stage.C.times(v)
        if stage.parent is not None:
            r = r - (stage.B @ later[stage.parent][:, :, None])[:, :, 0]
        own = (stage.Y @ r[:, :, None])[:, :, 0]
        sums[stage.term] = (stage.small_N @ r[:, :, None])[:, :, 0]
        later = own if stage.parent is None else np.hstack([own, later[stage.parent]])
        if q:
            rest = rest - link.rest.sums(own)[:q]
    for term, place in cross.rest_terms:
        sums[term] = rest[place].reshape(cross.n_levels[term], -1)
    return sums


def times(cross: CrossProducts, effects: Sequence[Array]) -> tuple[list[Array], Array]:
    """Return the cross-products of [Z X y] with columns Z c, term by term and of [X y].

    Parameters
    ----------
    cross : CrossProducts
    effects : sequence of ndarray, shape (m, k, d)
        c of each term in the basis, d columns.

    Returns
    -------
    list of ndarray, shape (m, k, d)
    ndarray, shape (p + 1, d)
    """
    q, d = cross.q_rest, effects[0].shape[2] if effects else 0
    rest = np.zeros((len(cross.fixed), d))
    for term, place in cross.rest_terms:
        rest[place] = effects[term].reshape(-1, d)
    later: list[Array] = []  # of each factor of the chain, with all later ones
    for link in reversed(cross.chain):
        own = effects[link.term]
        later.append(own if not later else np.concatenate([own, later[-1][link.parent]], axis=1))
    sums: list[Array] = [np.empty(0)] * len(effects)
    of_rest, passed = np.concatenate([cross.inner @ rest[:q], cross.fixed[:q].T @ rest[:q]]), None
    for link, c in zip(cross.chain, reversed(later), strict=True):
        k, own, C = link.k, c[:, : link.k], link.rest
        total = link.front[:, :k] @ c
        if q:
            total += C.times(rest)
        of_rest += C.sums(own)
        if passed is not None:
            total += passed[:, :k]
        sums[link.term] = total
        if link.parent is not None:
            up = link.front[:, k:, :k] @ own
            passed = summed_by(link.parent, up if passed is None else up + passed[:, k:])
    for term, place in cross.rest_terms:
        sums[term] = of_rest[place].reshape(effects[term].shape)
    return sums, of_rest[q:]


def projected(factorized: Factorized, sums: Sequence[Array], fixed: Array) -> tuple[Array, Array]:
    """Carry further columns w through the elimination of all random effects.

    Parameters
    ----------
    factorized : Factorized
    sums : sequence of ndarray, shape (m, k, d)
        Z'W w of each term, d columns.
    fixed : ndarray, shape (p + 1, d)
        [X y]'W w.

    Returns
    -------
    ndarray, shape (p + 1, d)
        [X y]'V^-1 w.
    ndarray, shape (d, d)
        By how much w'V^-1 w is less than w'W w.
    """
    cross, q, d = factorized.cross, factorized.cross.q_rest, fixed.shape[1]
    rest = np.concatenate([*(sums[term].reshape(-1, d) for term, _ in cross.rest_terms), fixed])
    explained, passed = np.zeros((d, d)), None
    for stage in factorized.chain:
        r = sums[stage.term]
        if passed is not None:
            r = r + passed[:, : stage.k]
        half = stage.V @ r
        effects = stage.V.mT @ half
        half = half.reshape(-1, d)
        explained += half.T @ half
        rest = rest - stage.C.sums(effects)
        if stage.parent is not None:
            up = -stage.B.mT @ effects
            passed = summed_by(stage.parent, up if passed is None else up + passed[:, stage.k :])
    if not q:
        return rest, explained
    scaled = times_factors(cross, [Lambda.T for Lambda in factorized.Lambdas], rest[:q])
    half = single_triangular_solve(factorized.L, scaled)
    return rest[q:] - factorized.H.T @ scaled, explained + half.T @ half
