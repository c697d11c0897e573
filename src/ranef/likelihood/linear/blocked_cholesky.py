"""The Gaussian engine: random effects eliminated, their derivatives, modes and variances.

Everything is a pure function of the cross-products and the relative factors Lambda (one k x k
matrix a term, in the basis of the cross-products). A term of the chain is *absorbed*: with
V = R^-1 Lambda', R R' = I + Lambda' D Lambda, what remains is the cross-products of a model
without it, A - (V C)'(V C). At the end a small dense problem is left, whose random effects go by
a Cholesky factor. So a model is *reduced* to log|Lambda'Z'WZ Lambda + I| and the cross-products of
[X y] in the metric of V^-1; deviance, REML criterion and marginal density are functions of these
two, and the derivatives of any such function are carried back in the same way.

Notation: D, B, C are a level's cross-products with itself, with the later terms of the chain and
with the rest; Y = Lambda (I + Lambda' D Lambda)^-1 Lambda'; N = I - D Y; a bar marks a
derivative. The *score* of a term is the derivative with respect to Lambda Lambda'. Nowhere is
anything divided by Lambda, which may be singular.

Equations `system`, `gradient` and `blup` in docs/mathematics.
Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), sections 3.4 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas

from ranef._typing import Array, Codes
from ranef.likelihood.linear.crossed_rows import CHUNK, CrossedRows
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.numerics.matrices import (
    chunks,
    lower_blocks,
    lower_cholesky,
    lower_columns,
    lower_inverse,
    single_triangular_solve,
    stack_cholesky,
    stack_solve,
    stack_times,
    summed_by,
)

MIN_SIZE = 1e-2  # of every relative sd, for a division by Lambda: it costs 1e-16 over its square


@dataclass(frozen=True, eq=False)
class Absorbed:
    """A term of the chain after its elimination, shapes as in `Link`."""

    term: int
    D: Array
    B: Array
    C: CrossedRows
    Lambda: Array
    V: Array
    parent: Codes | None
    counts: Array

    @property
    def k(self) -> int:
        """The number of coefficients."""
        return int(self.D.shape[1])

    @property
    def Y(self) -> Array:
        """Lambda (I + Lambda' D Lambda)^-1 Lambda', shape (m, k, k)."""
        return np.asarray(self.V.mT @ self.V)

    @property
    def N(self) -> Array:
        """I - D Y, shape (m, k, k)."""
        return np.asarray(np.eye(self.k) - self.D @ self.Y)

    @property
    def small_N(self) -> Array:
        """I - D Y, of small relative error where it vanishes, if k = 1."""
        return np.asarray(1 / (1 + self.D * self.Lambda**2)) if self.k == 1 else self.N


@dataclass(frozen=True, eq=False)
class Factorized:
    """The blocked Cholesky factor at given relative factors.

    Attributes
    ----------
    cross : CrossProducts
    Lambdas : list of ndarray, shape (k, k)
        In the design's order, in the basis of the cross-products; any square root will do.
    chain : tuple of Absorbed
    L : ndarray, shape (q, q)
        Cholesky factor of M = T'ST + I, the scaled random effects of the rest, T the block
        diagonal of the Lambdas and S the cross-products of the rest with the chain absorbed.
        Its lower triangle; what stands above the diagonal is arbitrary.
    H : ndarray, shape (q, p + 1)
        M^-1 T'S, the scaled random effects fitted to each column of [X y].
    reduced : ndarray, shape (p + 1, p + 1)
        [X y]' V^-1 [X y] with V = W^-1 + Z Lambda Lambda' Z'.
    logdet : float
        log|Lambda'Z'WZ Lambda + I| over all random effects.
    """

    cross: CrossProducts
    Lambdas: list[Array]
    chain: tuple[Absorbed, ...]
    L: Array
    H: Array
    reduced: Array
    logdet: float


def factorize(cross: CrossProducts, Lambdas: Sequence[Array]) -> Factorized:
    """Eliminate all random effects: first the chain, then those of the rest.

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not positive definite in floating point (Lambda is far too large).
    """
    chain, logdet = _absorb(cross, Lambdas)
    S, fixed = _complement(cross, chain)
    q, turned = cross.q_rest, [Lambda.T for Lambda in Lambdas]
    _scale_lower(cross, turned, S)
    S[np.arange(q), np.arange(q)] += 1.0
    L = lower_cholesky(S)
    half = single_triangular_solve(L, times_factors(cross, turned, fixed[:q]))
    return Factorized(
        cross=cross,
        Lambdas=list(Lambdas),
        chain=chain,
        L=L,
        H=single_triangular_solve(L, half, transposed=True),
        reduced=fixed[q:] - half.T @ half,
        logdet=logdet + 2 * float(np.log(np.diag(L)).sum()),
    )


def gradient(factorized: Factorized, slope: Array, *, overwrite: bool = False) -> list[Array]:
    """Return the derivative of logdet + g(reduced) with respect to each Lambda.

    Parameters
    ----------
    factorized : Factorized
    slope : ndarray, shape (p + 1, p + 1)
        The derivative of g, symmetric.
    overwrite : bool
        Whether the inverse T M^-1 T' may take the place of the factor L, with which nothing can
        be solved afterwards. It saves the largest array of a fit.

    Returns
    -------
    list of ndarray, shape (k, k)
        In the design's order.
    """
    by_term = scores(factorized, slope, overwrite=overwrite)
    return [2 * G @ Lambda for G, Lambda in zip(by_term, factorized.Lambdas, strict=True)]


def scores(factorized: Factorized, slope: Array, *, overwrite: bool = False) -> list[Array]:
    """Return the derivative with respect to each Lambda Lambda'; see `gradient`."""
    by_term, bar = _rest_scores(factorized, slope, overwrite=overwrite)
    above: tuple[Array, Array] | None = None
    for stage in reversed(factorized.chain):
        by_term[stage.term] = _chain_score(stage, stage.small_N, bar, above)
        if stage is not factorized.chain[0]:
            above = _carry_back(stage, bar, above)
    return [by_term[term] for term in range(len(factorized.cross.covariances))]


def modes(
    factorized: Factorized, gamma: Array, noise: Sequence[Array] | None = None
) -> list[Array]:
    """Return the conditional means b of each term in the basis, shape (m, k), or a draw.

    Parameters
    ----------
    factorized : Factorized
    gamma : ndarray, shape (p,)
        Coefficients of the columns of X in the basis; y is a least-squares residual there.
    noise : sequence of ndarray, shape (m, k), optional
        Independent N(0, sigma^2) numbers: they make the result a draw of b given y and gamma.
    """
    return _back(factorized, _contrast(factorized, gamma, noise), noise=noise)


def conditional_covariances(factorized: Factorized, *, inverted: bool = False) -> list[Array]:
    """Return the covariance of b over sigma^2 of every level, shape (m, k, k), term by term.

    It is the covariance given gamma, as lme4 reports it.

    Parameters
    ----------
    factorized : Factorized
    inverted : bool
        Whether the inverse has taken the place of L, as `scores` and `inner_inverse` do it.
    """
    cross = factorized.cross
    bar = Bar.of(factorized, factorized.L if inverted else inner_inverse(factorized))
    covariances: list[Array] = [np.empty(0)] * len(cross.covariances)
    for term, place in cross.rest_terms:
        covariances[term] = lower_blocks(bar.inner, place, cross.covariances[term].k)
    above: tuple[Array, Array] | None = None
    for stage in reversed(factorized.chain):
        Y = stage.Y
        covariances[stage.term] = Y + Y @ _through(stage, bar, above) @ Y
        if stage is not factorized.chain[0]:
            above = _carry_back(stage, bar, above)
    return covariances


def solve(factorized: Factorized, sums: Sequence[Array]) -> list[Array]:
    """Return Lambda (Lambda'Z'WZ Lambda + I)^-1 Lambda' r term by term, shape (m, k).

    Parameters
    ----------
    factorized : Factorized
    sums : sequence of ndarray, shape (m, k)
        r, such as the sums Z'e of some residuals, in the design's order.
    """
    cross, q = factorized.cross, factorized.cross.q_rest
    rest = np.concatenate([*(sums[term].ravel() for term, _ in cross.rest_terms), []])
    right, later = [], np.empty((0, 0))
    for stage in factorized.chain:
        r = sums[stage.term]
        if later.size:
            r = r + later[:, : stage.k]
        effects = (stage.Y @ r[:, :, None])[:, :, 0]
        rest = rest - stage.C.sums(effects)[:q]
        if stage.parent is not None:
            passed = -(stage.B.mT @ effects[:, :, None])[:, :, 0]
            if later.size:
                passed = passed + later[:, stage.k :]
            later = summed_by(stage.parent, passed)
        right.append(r)
    scaled = times_factors(cross, [Lambda.T for Lambda in factorized.Lambdas], rest)
    u = single_triangular_solve(
        factorized.L, single_triangular_solve(factorized.L, scaled), transposed=True
    )
    v = np.append(-times_factors(cross, factorized.Lambdas, u), np.zeros(cross.p + 1))
    return _back(factorized, v, right=right)


@dataclass(frozen=True, eq=False)
class Selected:
    """The elements of G = Lambda (Lambda'Z'WZ Lambda + I)^-1 Lambda' that rows of Z meet.

    Attributes
    ----------
    chain : tuple of (ndarray, ndarray)
        For each term of the chain its rows of G, level by level: the columns of its own and the
        later terms of the chain, shape (m, k, f), and of the rest, shape (m, k, q).
    rest : ndarray, shape (q, q)
    gradient : list of ndarray, shape (k, k)
        The derivative of log|Lambda'Z'WZ Lambda + I| with respect to each Lambda.
    """

    chain: tuple[tuple[Array, Array], ...]
    rest: Array
    gradient: list[Array]


def selected_inverse(factorized: Factorized) -> Selected:
    """Return the derivative of logdet with respect to Z'WZ, where it is needed, and to Lambda."""
    q = factorized.cross.q_rest
    by_term, bar = _rest_scores(factorized)
    above: tuple[Array, Array] | None = None
    blocks = []
    for stage in reversed(factorized.chain):
        by_term[stage.term] = _chain_score(stage, stage.N, bar, above)
        above = _carry_back(stage, bar, above)
        blocks.append((above[0][:, : stage.k], above[1][:, : stage.k, :q]))
    slopes = [2 * by_term[term] @ Lambda for term, Lambda in enumerate(factorized.Lambdas)]
    return Selected(tuple(reversed(blocks)), bar.whole, slopes)


# ------------------------------------------------------------------------ the chain, forward


def _absorb(cross: CrossProducts, Lambdas: Sequence[Array]) -> tuple[tuple[Absorbed, ...], float]:
    """Return the stages of the chain, and log|R|^2 over all."""
    stages, logdet = [], 0.0
    carried: tuple[Array, Array] | None = None
    for link in cross.chain:
        k = link.k
        front = link.front if carried is None else link.front + carried[0]
        C = link.rest
        if carried is not None:
            C = CrossedRows.split(C.dense() + carried[1][:, :k], cross.q_rest)
        D, Lambda = front[:, :k, :k], Lambdas[link.term]
        R = stack_cholesky(np.eye(k) + Lambda.T @ D @ Lambda)
        V = stack_solve(R, Lambda.T)
        logs = np.log(np.diagonal(R, axis1=1, axis2=2)).sum(axis=1)
        logdet += 2 * float((link.counts * logs).sum())
        stage = Absorbed(link.term, D, front[:, :k, k:], C, Lambda, V, link.parent, link.counts)
        if link.parent is not None:
            carried = _carry_up(stage, front, carried)
        stages.append(stage)
    return tuple(stages), logdet


def _carry_up(
    stage: Absorbed, front: Array, carried: tuple[Array, Array] | None
) -> tuple[Array, Array]:
    """Return the sums over children that the parents' cross-products get from an elimination."""
    assert stage.parent is not None
    k, parent = stage.k, stage.parent
    VB = stage.V @ stage.B  # and not Y, which is far greater than YB where D is singular
    up_front = summed_by(parent, front[:, k:, k:] - VB.mT @ VB)
    explained = stage.C.summed(parent, stage.V.mT @ VB)
    if carried is None:
        return up_front, -explained
    return up_front, summed_by(parent, carried[1][:, k:]) - explained


# ----------------------------------------------------------------------- the chain, backward


def _back(
    factorized: Factorized,
    v: Array,
    right: Sequence[Array] | None = None,
    noise: Sequence[Array] | None = None,
) -> list[Array]:
    """Return b term by term from v = (-b, -gamma, 1) of the rest, and right sides of the chain."""
    cross = factorized.cross
    effects: list[Array] = [np.empty(0)] * len(cross.covariances)
    for term, place in cross.rest_terms:
        effects[term] = -v[place].reshape(cross.n_levels[term], -1)
    later = np.empty((0, 0))
    for i, stage in reversed(list(enumerate(factorized.chain))):
        r = stage.C.times(v)
        if right is not None:
            r = r + right[i]
        if stage.parent is not None:
            r = r - (stage.B @ later[stage.parent][:, :, None])[:, :, 0]
        b = (stage.Y @ r[:, :, None])[:, :, 0]
        if noise is not None:
            b = b + (stage.V.mT @ noise[stage.term][:, :, None])[:, :, 0]
        effects[stage.term] = b
        later = b if stage.parent is None else np.hstack([b, later[stage.parent]])
    return effects


def _chain_score(stage: Absorbed, N: Array, bar: Bar, above: tuple[Array, Array] | None) -> Array:
    """Return the score: N D - N Q N' summed over levels, Q the bar seen through [B C]."""
    D = stage.counts[:, None, None] * stage.D
    total = (N @ D - N @ _through(stage, bar, above) @ N.mT).sum(axis=0)
    return np.asarray((total + total.T) / 2)


def _through(stage: Absorbed, bar: Bar, above: tuple[Array, Array] | None) -> Array:
    """Return Q = [B C] bar [B C]' of every level, shape (m, k, k)."""
    B, C = stage.B, stage.C
    Q = C.quadratic(bar.inner)
    if bar.slope is not None:
        Cv = C.times(bar.v) if C.q else C.fixed.reshape(-1, C.k, C.fixed.shape[1])
        Q += np.einsum("lap,lbp->lab", stack_times(Cv, bar.slope), Cv)
    if above is None:
        return Q
    assert stage.parent is not None
    front, crossed = above
    mixed = B @ C.beside(crossed, stage.parent).mT
    return np.asarray(Q + B @ front[stage.parent] @ B.mT + mixed + mixed.mT)


def _carry_back(
    stage: Absorbed, bar: Bar, above: tuple[Array, Array] | None
) -> tuple[Array, Array]:
    """Return the derivatives for a term's own cross-products and all later ones' in its rows.

    Returns
    -------
    tuple of ndarray, shapes (m, f, f) and (m, f, w)
    """
    Y, B, C = stage.Y, stage.B, stage.C
    Dbar = stage.counts[:, None, None] * Y + Y @ _through(stage, bar, above) @ Y
    seen = bar.seen_from(C)
    if above is None:
        return Dbar, -Y @ seen
    assert stage.parent is not None
    front, crossed = above[0][stage.parent], above[1][stage.parent]
    Bbar = -Y @ (B @ front + C.beside(above[1], stage.parent))
    whole = np.concatenate(
        [np.concatenate([Dbar, Bbar], axis=2), np.concatenate([Bbar.mT, front], axis=2)], axis=1
    )
    return whole, np.concatenate([-Y @ (seen + B @ crossed), crossed], axis=1)


# --------------------------------------------------------------------------------- the rest


def _complement(cross: CrossProducts, chain: Sequence[Absorbed]) -> tuple[Array, Array]:
    """Return the cross-products of the rest with the chain absorbed.

    Returns
    -------
    S : ndarray, shape (q, q)
        Of the random effects, their lower triangle.
    fixed : ndarray, shape (w, p + 1)
        Of all with X and y.
    """
    S, fixed = None, cross.fixed
    for stage in chain:
        S = stage.C.less_sandwich(S, stage.Y, stage.V)
        fixed = fixed - stage.C.fixed_sandwich(stage.V)
    if S is None:
        S = np.zeros((cross.q_rest, cross.q_rest), order="F")
    cross.add_inner(S)
    return S, fixed


def _scale_lower(cross: CrossProducts, factors: Sequence[Array], S: Array) -> None:
    """Replace S, a lower triangle, by F S F', F the block diagonal of the factors.

    In its place, some columns at a time; S' has them as rows.
    """
    for term, place in cross.rest_terms:
        k, F = cross.covariances[term].k, factors[term]
        lower_blocks(S, place, k, mirror=True)
        step = k * max(1, CHUNK // (k * len(S)))
        for start in range(place.start, place.stop, step):
            columns = S.T[start : min(start + step, place.stop)]
            for other, rows in cross.rest_terms:
                first = max(rows.start, start)
                part = columns[:, first : rows.stop]
                if first < rows.stop:
                    part[:] = _by_blocks(part.T, factors[other]).T
            part = columns[:, start:]
            part[:] = _by_blocks(part, F)


def _by_blocks(x: Array, F: Array) -> Array:
    """Return F times each k rows of x, shape (m k, c)."""
    if len(F) == 1:
        return np.asarray(x * F[0, 0])
    return np.asarray(F @ x.reshape(-1, len(F), x.shape[1])).reshape(x.shape)


def _scale_rows(cross: CrossProducts, Lambdas: Sequence[Array], x: Array) -> None:
    """Replace x, shape (w, ...), by T x, T the block diagonal of the Lambdas."""
    for term, place in cross.rest_terms:
        blocks = x[place].reshape(cross.n_levels[term], cross.covariances[term].k, -1)
        x[place] = (Lambdas[term] @ blocks).reshape(x[place].shape)


def times_factors(cross: CrossProducts, Lambdas: Sequence[Array], x: Array) -> Array:
    """Return T x, T the block diagonal of the Lambdas, for rows of the rest, shape (w, ...)."""
    product = x.copy()
    _scale_rows(cross, Lambdas, product)
    return product


def _contrast(factorized: Factorized, gamma: Array, noise: Sequence[Array] | None) -> Array:
    """Return v = (-b, -gamma, 1) of the rest: S v is its columns times the residuals."""
    cross, contrast = factorized.cross, np.append(-gamma, 1.0)
    u = factorized.H @ contrast
    if noise is not None:
        z = np.concatenate([*(noise[term].ravel() for term, _ in cross.rest_terms), []])
        u = u + single_triangular_solve(factorized.L, z, transposed=True)
    return np.append(-times_factors(cross, factorized.Lambdas, u), contrast)


@dataclass(frozen=True, eq=False)
class Bar:
    """T M-bar T', (w, w), the derivative with respect to S: an inverse and what a slope adds.

    M-bar is the derivative of log|M_ZZ| + g(reduced) with respect to M = T'ST + I: the inverse of
    M_ZZ, and the slope of g seen through the elimination, (-H, I)' slope (-H, I).

    Attributes
    ----------
    inner : ndarray, shape (q, q)
        The lower triangle of T M_ZZ^-1 T'.
    v : ndarray, shape (w, p + 1)
        (-T H, I).
    slope : ndarray, shape (p + 1, p + 1), or None
        None for zero.
    """

    inner: Array
    v: Array
    slope: Array | None

    @staticmethod
    def of(factorized: Factorized, inner: Array, slope: Array | None = None) -> Bar:
        """Return the bar of a factor whose inner part is known."""
        TH = times_factors(factorized.cross, factorized.Lambdas, factorized.H)
        return Bar(inner, np.vstack([-TH, np.eye(TH.shape[1])]), slope)

    @property
    def whole(self) -> Array:
        """Both triangles of the inner part."""
        return lower_columns(self.inner, slice(0, len(self.inner)))

    def seen_from(self, C: CrossedRows) -> Array:
        """Return C bar, shape (m, k, w)."""
        inner = np.concatenate([AC for _, _, AC in C.products(self.inner)])
        product = np.concatenate([inner, np.zeros((len(inner), C.k, self.v.shape[1]))], axis=2)
        if self.slope is not None:
            product += stack_times(C.times(self.v), self.slope @ self.v.T)
        return product


def inner_inverse(factorized: Factorized, *, overwrite: bool = False) -> Array:
    """Return the lower triangle of T M_ZZ^-1 T', in the place of L if that may be.

    Then modes and conditional covariances can be had of the factor, but nothing can be solved.
    """
    inverse = lower_inverse(factorized.L, overwrite=overwrite)
    _scale_lower(factorized.cross, factorized.Lambdas, inverse)
    return inverse


def _rest_scores(
    factorized: Factorized, slope: Array | None = None, *, overwrite: bool = False
) -> tuple[dict[int, Array], Bar]:
    """Return sum_l [S - S bar S]_ll for the terms of the rest, and the bar.

    As T'(S - S bar S)T = I - M_ZZ^-1 - H slope H', it is found without S, unless Lambda is nearly
    singular.
    """
    cross, H = factorized.cross, factorized.H
    inverse = lower_inverse(factorized.L, overwrite=overwrite)
    HW = np.zeros_like(H) if slope is None else H @ slope
    by_term, near_zero = {}, []
    for term, place in cross.rest_terms:
        Lambda, k = factorized.Lambdas[term], cross.covariances[term].k
        if np.linalg.norm(Lambda, -2) > MIN_SIZE:
            left = cross.n_levels[term] * np.eye(k) - lower_blocks(inverse, place, k).sum(axis=0)
            left -= _over_levels(HW[place], H[place], k)
            back = np.linalg.inv(Lambda)
            by_term[term] = back.T @ left @ back
        else:
            near_zero.append((term, place))
    _scale_lower(cross, factorized.Lambdas, inverse)
    bar = Bar.of(factorized, inverse, slope)
    return by_term | _scores_near_zero(factorized, bar, near_zero), bar


def _scores_near_zero(
    factorized: Factorized, bar: Bar, terms: Sequence[tuple[int, slice]]
) -> dict[int, Array]:
    """Return sum_l [S - S bar S]_ll of some terms, from S itself."""
    by_term: dict[int, Array] = {}
    if not terms:
        return by_term
    cross, q = factorized.cross, len(bar.inner)
    S, fixed = _complement(cross, factorized.chain)
    for term, place in terms:
        k = cross.covariances[term].k
        total = lower_blocks(S, place, k, mirror=True).sum(axis=0)
        step = k * max(1, CHUNK // max(1, k * q))
        for own in chunks(place.stop, step, place.start):
            rows = lower_columns(S, own)
            total -= _over_levels(blas.dsymm(1.0, bar.inner, rows, lower=1).T, rows.T, k)
            if bar.slope is not None:
                seen = rows.T @ bar.v[:q] + fixed[own]
                total -= _over_levels(seen @ bar.slope, seen, k)
        by_term[term] = total
    return by_term


def _over_levels(x: Array, y: Array, k: int) -> Array:
    """Return the sum over levels of x_l y_l', with k rows of each, shape (m k, c), a level."""
    rows = (len(x) // k, k, x.shape[1])
    return np.tensordot(x.reshape(rows), y.reshape(rows), axes=([0, 2], [0, 2]))
