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

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), sections 3.4 and 5.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes
from ranef.design.design import Design
from ranef.design.groups import transposed
from ranef.likelihood.linear.crossproducts import CrossProducts, SparseRows
from ranef.numerics.matrices import (
    diagonal_blocks,
    single_cholesky,
    single_inverse,
    single_triangular_solve,
    stack_cholesky,
    stack_solve,
    summed_by,
)


@dataclass(frozen=True, eq=False)
class Absorbed:
    """A term of the chain after its elimination, shapes as in `Link`."""

    term: int
    D: Array
    B: Array
    C: Array | SparseRows
    V: Array
    parent: Codes | None

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


@dataclass(frozen=True, eq=False)
class Factorized:
    """The blocked Cholesky factor at given relative factors.

    Attributes
    ----------
    cross : CrossProducts
    Lambdas : list of ndarray, shape (k, k)
        In the design's order, in the basis of the cross-products; any square root will do.
    chain : tuple of Absorbed
    S : ndarray, shape (w, w)
        Cross-products of the rest with the chain absorbed.
    L : ndarray, shape (q, q)
        Cholesky factor of M = T'ST + I, the scaled random effects of the rest.
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
    S: Array
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
    chain, S, logdet = _absorb(cross, Lambdas)
    q = cross.q_rest
    M = _scaled(cross, S, Lambdas)
    L = single_cholesky(M[:q, :q])
    half = single_triangular_solve(L, M[:q, q:])
    return Factorized(
        cross=cross,
        Lambdas=list(Lambdas),
        chain=chain,
        S=S,
        L=L,
        H=single_triangular_solve(L, half, transposed=True),
        reduced=M[q:, q:] - half.T @ half,
        logdet=logdet + 2 * float(np.log(np.diag(L)).sum()),
    )


def gradient(factorized: Factorized, slope: Array) -> list[Array]:
    """Return the derivative of logdet + g(reduced) with respect to each Lambda.

    Parameters
    ----------
    factorized : Factorized
    slope : ndarray, shape (p + 1, p + 1)
        The derivative of g, symmetric.

    Returns
    -------
    list of ndarray, shape (k, k)
        In the design's order.
    """
    by_term, bar = _rest_gradient(factorized, slope)
    above: tuple[Array, Array] | None = None
    for stage in reversed(factorized.chain):
        by_term[stage.term] = 2 * _chain_score(stage, bar, above) @ factorized.Lambdas[stage.term]
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


def conditional_covariances(factorized: Factorized) -> list[Array]:
    """Return the covariance of b over sigma^2 of every level, shape (m, k, k), term by term.

    It is the covariance given gamma, as lme4 reports it.
    """
    cross = factorized.cross
    bar = _bar(factorized, np.zeros_like(factorized.reduced))[1]
    covariances: list[Array] = [np.empty(0)] * len(cross.covariances)
    for term, place in cross.rest_terms:
        covariances[term] = diagonal_blocks(bar[place, place], cross.covariances[term].k)
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
        rest = rest - np.tensordot(effects, dense(stage.C)[:, :, :q], axes=2)
        if stage.parent is not None:
            passed = -(stage.B.mT @ effects[:, :, None])[:, :, 0]
            if later.size:
                passed = passed + later[:, stage.k :]
            later = summed_by(stage.parent, passed)
        right.append(r)
    scaled = _times(cross, [Lambda.T for Lambda in factorized.Lambdas], rest)
    u = single_triangular_solve(
        factorized.L, single_triangular_solve(factorized.L, scaled), transposed=True
    )
    v = np.append(-_times(cross, factorized.Lambdas, u), np.zeros(cross.p + 1))
    return _back(factorized, v, right=right)


def modes_by_fixed(
    factorized: Factorized, bases: Sequence[Array], design: Design, weights: Array
) -> list[Array]:
    """Return by how much conditional modes fall as fixed effects rise, shape (m, k, p).

    That is G Z'V^-1 X, on the user's scale, in terms of Henderson's mixed-model equations: the
    error of estimated fixed effects, carried into the modes.

    Parameters
    ----------
    factorized : Factorized
    bases : sequence of ndarray, shape (k, k)
    design : Design
    weights : ndarray, shape (n,)
        Of the rows in the factorised system.
    """
    WX = weights[:, None] * design.rows.X
    inverses = [np.linalg.inv(T) for T in bases]
    sums = [
        (transposed(term.codes, term.columns @ back, term.n_levels) @ WX).reshape(
            term.n_levels, term.n_coefs, -1
        )
        for term, back in zip(design.rows.terms, inverses, strict=True)
    ]
    falls = [solve(factorized, [of_term[:, :, j] for of_term in sums]) for j in range(WX.shape[1])]
    empty = [of_term[:, :, :0] for of_term in sums]
    return [
        np.stack([fall[t] @ back.T for fall in falls], axis=2) if falls else empty[t]
        for t, back in enumerate(inverses)
    ]


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
    by_term, bar = _rest_gradient(factorized, np.zeros_like(factorized.reduced))
    above: tuple[Array, Array] | None = None
    blocks = []
    for stage in reversed(factorized.chain):
        by_term[stage.term] = 2 * _chain_score(stage, bar, above) @ factorized.Lambdas[stage.term]
        above = _carry_back(stage, bar, above)
        blocks.append((above[0][:, : stage.k], above[1][:, : stage.k, :q]))
    terms = range(len(factorized.cross.covariances))
    return Selected(tuple(reversed(blocks)), bar[:q, :q], [by_term[term] for term in terms])


# ------------------------------------------------------------------------ the chain, forward


def _absorb(
    cross: CrossProducts, Lambdas: Sequence[Array]
) -> tuple[tuple[Absorbed, ...], Array, float]:
    """Return the stages of the chain, the cross-products of the rest, and log|R|^2 over all."""
    stages, S, logdet = [], cross.rest, 0.0
    carried: tuple[Array, Array] | None = None
    for link in cross.chain:
        k = link.k
        front = link.front if carried is None else link.front + carried[0]
        C = link.rest if carried is None else dense(link.rest) + carried[1][:, :k]
        D, Lambda = front[:, :k, :k], Lambdas[link.term]
        R = stack_cholesky(np.eye(k) + Lambda.T @ D @ Lambda)
        V = stack_solve(R, Lambda.T)
        logdet += 2 * float(np.log(np.diagonal(R, axis1=1, axis2=2)).sum())
        stage = Absorbed(link.term, D, front[:, :k, k:], C, V, link.parent)
        S = S - _sandwich(C, stage)
        if link.parent is not None:
            carried = _carry_up(stage, front, carried)
        stages.append(stage)
    return tuple(stages), S, logdet


def _carry_up(
    stage: Absorbed, front: Array, carried: tuple[Array, Array] | None
) -> tuple[Array, Array]:
    """Return the sums over children that the parents' cross-products get from an elimination."""
    assert stage.parent is not None
    k, parent = stage.k, stage.parent
    YB = stage.Y @ stage.B
    up_front = summed_by(parent, front[:, k:, k:] - stage.B.mT @ YB)
    explained = summed_rows(parent, YB, stage.C)
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
        C = stage.C
        r = C @ v if isinstance(C, np.ndarray) else np.reshape(C.rows @ v, (-1, stage.k))
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


def _chain_score(stage: Absorbed, bar: Array, above: tuple[Array, Array] | None) -> Array:
    """Return the score: N D - N Q N' summed over levels, Q the bar seen through [B C]."""
    N = stage.N
    total = (N @ stage.D - N @ _through(stage, bar, above) @ N.mT).sum(axis=0)
    return np.asarray((total + total.T) / 2)


def _through(stage: Absorbed, bar: Array, above: tuple[Array, Array] | None) -> Array:
    """Return Q = [B C] bar [B C]' of every level, shape (m, k, k)."""
    B, C = stage.B, stage.C
    Q = (C @ bar) @ C.mT if isinstance(C, np.ndarray) else C.quadratic(bar)
    if above is None:
        return np.asarray(Q)
    front, cross = above[0][stage.parent], above[1][stage.parent]
    mixed = (B @ cross) @ dense(C).mT
    return np.asarray(Q + B @ front @ B.mT + mixed + mixed.mT)


def _carry_back(
    stage: Absorbed, bar: Array, above: tuple[Array, Array] | None
) -> tuple[Array, Array]:
    """Return the derivatives for a term's own cross-products and all later ones' in its rows.

    Returns
    -------
    tuple of ndarray, shapes (m, f, f) and (m, f, w)
    """
    Y, B, C = stage.Y, stage.B, dense(stage.C)
    Dbar = Y + Y @ _through(stage, bar, above) @ Y
    if above is None:
        return Dbar, -Y @ (C @ bar)
    front, cross = above[0][stage.parent], above[1][stage.parent]
    Bbar = -Y @ (B @ front + C @ cross.mT)
    whole = np.concatenate(
        [np.concatenate([Dbar, Bbar], axis=2), np.concatenate([Bbar.mT, front], axis=2)],
        axis=1,
    )
    return whole, np.concatenate([-Y @ (C @ bar + B @ cross), cross], axis=1)


# --------------------------------------------------------------------------------- the rest


def _scaled(cross: CrossProducts, S: Array, Lambdas: Sequence[Array]) -> Array:
    """Return T'ST + I on the random effects, T the block diagonal of the Lambdas."""
    M, q, turned = S.copy(), cross.q_rest, [Lambda.T for Lambda in Lambdas]
    _scale_rows(cross, turned, M)
    _scale_rows(cross, turned, M.T)
    M[np.arange(q), np.arange(q)] += 1.0
    return M


def _scale_rows(cross: CrossProducts, Lambdas: Sequence[Array], x: Array) -> None:
    """Replace x, shape (w, ...), by T x, T the block diagonal of the Lambdas."""
    for term, place in cross.rest_terms:
        blocks = x[place].reshape(cross.n_levels[term], cross.covariances[term].k, -1)
        x[place] = (Lambdas[term] @ blocks).reshape(x[place].shape)


def _times(cross: CrossProducts, Lambdas: Sequence[Array], x: Array) -> Array:
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
    return np.append(-_times(cross, factorized.Lambdas, u), contrast)


def _bar(factorized: Factorized, slope: Array) -> tuple[Array, Array]:
    """Return M-bar T' and T M-bar T', shape (w, w).

    M-bar is the derivative of log|M_ZZ| + g(reduced) with respect to M = T'ST + I: the inverse of
    M_ZZ, and `slope` seen through the elimination, (-H, I)' slope (-H, I).
    """
    cross, H, w, q = factorized.cross, factorized.H, len(factorized.S), len(factorized.L)
    M_bar = np.empty((w, w))
    M_bar[q:, q:] = slope
    M_bar[:q, q:] = -H @ slope
    M_bar[q:, :q] = M_bar[:q, q:].T
    M_bar[:q, :q] = single_inverse(factorized.L) - M_bar[:q, q:] @ H.T
    _scale_rows(cross, factorized.Lambdas, M_bar.T)
    return M_bar, _times(cross, factorized.Lambdas, M_bar)


def _rest_gradient(factorized: Factorized, slope: Array) -> tuple[dict[int, Array], Array]:
    """Return 2 sum_l [S T M-bar]_ll for the terms of the rest, and T M-bar T'.

    As M-bar is multiplied by S T, and not divided by T, a variance of zero is no exception.
    """
    cross, S = factorized.cross, factorized.S
    right, bar = _bar(factorized, slope)
    by_term = {}
    for term, place in cross.rest_terms:
        blocks = (-1, cross.covariances[term].k, len(S))
        S_rows, right_rows = S[place].reshape(blocks), right[place].reshape(blocks)
        by_term[term] = 2 * np.tensordot(S_rows, right_rows, axes=([0, 2], [0, 2]))
    return by_term, bar


def _sandwich(C: Array | SparseRows, stage: Absorbed) -> Array:
    """Return the sum over levels of C_l' Y_l C_l, shape (w, w)."""
    if not isinstance(C, np.ndarray):
        return C.sandwich(stage.Y)
    VC = (stage.V @ C).reshape(-1, C.shape[2])
    return np.asarray(VC.T @ VC)


def dense(C: Array | SparseRows) -> Array:
    """Return the rows of a block as an array, shape (m, k, w)."""
    return C if isinstance(C, np.ndarray) else C.dense()


def summed_rows(parent: Codes, YB: Array, C: Array | SparseRows) -> Array:
    """Return the sum of (Y B)_l' C_l over the children of each level, shape (m', f - k, w)."""
    if isinstance(C, np.ndarray):
        return summed_by(parent, YB.mT @ C)
    m, k, f = YB.shape
    rows = np.broadcast_to((parent[:, None] * f + np.arange(f))[:, None], YB.shape)
    columns = np.broadcast_to(np.arange(m * k).reshape(m, k, 1), YB.shape)
    shape = ((int(parent.max()) + 1) * f, m * k)
    weights = sparse.csr_array((YB.ravel(), (rows.ravel(), columns.ravel())), shape=shape)
    return np.asarray((weights @ C.rows).toarray()).reshape(-1, f, C.rows.shape[1])
