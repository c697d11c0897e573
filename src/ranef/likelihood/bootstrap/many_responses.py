"""The REML criterion and the deviance of many responses to one design, with their gradients.

Replicates share everything but the column of y. The effects of the grouping factor with most of
them are eliminated level by level, elementwise over replicates and levels; the other random
effects and X, the *dense* columns, are one small matrix a replicate. The formulas and the notation
are those of `ranef.likelihood.linear.blocked_cholesky` and `ranef.likelihood.linear.reml`.

Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), eqs. 34 and 41.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Places
from ranef.covariances.covariance import factors, pull_back
from ranef.design.design import Design
from ranef.design.groups import by_factor
from ranef.likelihood.bootstrap.rotations import Rotation, rotation
from ranef.likelihood.bootstrap.simulated_responses import (
    FactorColumns,
    Responses,
    block_cross_products,
)
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.numerics.matrices import (
    Elements,
    elementwise_factor,
    elementwise_forward,
    spans,
    stack_cholesky_or_nan,
)

MAX_DENSE = 80  # columns besides those of the first factor for which replicates go together
MAX_ELEMENTS = 5_000_000  # of their products
CHUNK = 100_000  # elements of a temporary array
FEWER = 20  # ... than of those that are made only once


@dataclass(frozen=True, eq=False)
class Shared:
    """The cross-products that all replicates share: the first factor, and everything else.

    Attributes
    ----------
    cross : CrossProducts
    first : tuple of int
        The terms of the first factor, eliminated level by level, K coefficients in all.
    others : tuple of (int, slice)
        The other terms, and their places among the w dense columns; X comes last.
    rotation : Rotation
        The levels of the first factor, m after those with equal designs have been rotated.
    C : ndarray, shape (K, m, w)
        Their products with the dense columns.
    pairs : ndarray, shape (m K (K + 1) / 2, w w)
        Products of the rows of C, for each pair of coefficients.
    S : ndarray, shape (w, w)
        Among the dense columns.
    """

    cross: CrossProducts
    first: tuple[int, ...]
    others: tuple[tuple[int, slice], ...]
    rotation: Rotation
    C: Array
    pairs: Array
    S: Array

    @property
    def q(self) -> int:
        """The number of dense random effects."""
        return len(self.S) - self.cross.p

    @property
    def step(self) -> int:
        """The number of replicates that are taken at a time."""
        sizes = [self.C.shape[1], len(self.pairs), len(self.S) ** 2, 1]
        if self.first:
            sizes.append(self.cross.n_levels[self.first[0]] // FEWER)
        return int(max(16, CHUNK // max(sizes)))


@dataclass(frozen=True, eq=False)
class ResponseColumns:
    """The column of y of every replicate, in the order of a `Shared`.

    Attributes
    ----------
    c : ndarray, shape (K, B, m)
    s : ndarray, shape (B, w)
    yy : ndarray, shape (B,)
    """

    c: Array
    s: Array
    yy: Array

    def at(self, which: Places) -> ResponseColumns:
        """Return the columns of some replicates."""
        return ResponseColumns(self.c[:, which], self.s[which], self.yy[which])


def shared_by(design: Design, cross: CrossProducts) -> Shared | None:
    """Return what replicates share, or None where they are better fitted one by one.

    Parameters
    ----------
    design : Design
    cross : CrossProducts
        Of this design.
    """
    root = np.sqrt(design.sufficient.weights)[:, None]
    terms = design.sufficient.terms
    groups = by_factor(terms)
    order = [[terms.index(term) for term in group] for group in groups]
    first = tuple(order[0]) if order else ()
    others = [t for group in order[1:] for t in group]
    sizes = [cross.n_levels[t] * cross.covariances[t].k for t in others]
    width, K = sum(sizes) + cross.p, sum(cross.covariances[t].k for t in first)
    m = cross.n_levels[first[0]] if first else 0
    if width > MAX_DENSE or m * K * width > MAX_ELEMENTS:
        return None
    weighted = [
        term.columns * root @ np.linalg.inv(T) for term, T in zip(terms, cross.bases, strict=True)
    ]
    blocks = [FactorColumns(terms[t].codes, cross.n_levels[t], weighted[t]) for t in others]
    if first:
        columns = np.column_stack([weighted[t] for t in first])
        blocks = [FactorColumns(terms[first[0]].codes, m, columns), *blocks]
    D, C, S = block_cross_products(blocks, design.sufficient.X * root @ np.linalg.inv(cross.R))
    places = spans(sizes)
    rotated = rotation(D, C, sum(sizes))
    if rotated.C.size * (K + 1) // 2 * width > MAX_ELEMENTS:
        return None
    pairs, C = _pairs(rotated.C), np.ascontiguousarray(rotated.C.swapaxes(0, 1))
    return Shared(cross, first, tuple(zip(others, places, strict=True)), rotated, C, pairs, S)


def _pairs(C: Array) -> Array:
    m, K, w = C.shape
    products = [np.empty((0, w * w))]
    for a, b in zip(*np.tril_indices(K), strict=True):
        outer = C[:, a, :, None] * C[:, b, None, :]
        products.append((outer + outer.swapaxes(1, 2) if a != b else outer).reshape(m, w * w))
    return np.concatenate(products)


def response_columns(shared: Shared, drawn: Responses) -> ResponseColumns:
    """Return the columns of y in the order of the shared cross-products."""
    B, c = len(drawn), np.empty((len(drawn), 0, 0))
    if shared.first:
        c = shared.rotation.sums(np.concatenate([drawn.sums[t] for t in shared.first], axis=2))
    s = np.zeros((B, len(shared.S)))
    for term, place in shared.others:
        s[:, place] = drawn.sums[term].reshape(B, -1)
    return ResponseColumns(np.ascontiguousarray(np.moveaxis(c, 2, 0)), s, drawn.squares)


# ----------------------------------------------------------------------------- the criterion


@dataclass(frozen=True, eq=False)
class Profiles:
    """The criterion of B replicates, with what is estimated along with it.

    Attributes
    ----------
    value : ndarray, shape (B,)
        Infinite where it cannot be computed.
    gradient : ndarray, shape (B, d)
    gamma : ndarray, shape (B, p)
        Coefficients in the basis.
    r2 : ndarray, shape (B,)
        The penalised residual sum of squares.
    """

    value: Array
    gradient: Array
    gamma: Array
    r2: Array


def profiles(shared: Shared, y: ResponseColumns, x: Array, *, reml: bool) -> Profiles:
    """Return the deviance or the REML criterion at one point for each replicate.

    Parameters
    ----------
    shared : Shared
    y : Columns
    x : ndarray, shape (B, d)
        Free elements of the relative factors, in the basis.
    reml : bool
    """
    with np.errstate(all="ignore"):
        cross, B = shared.cross, len(x)
        Lambdas = factors(x, cross.covariances)
        G = np.zeros((B, len(shared.C), len(shared.C)))
        for term, block in zip(shared.first, _split(G, shared), strict=True):
            block[:] = Lambdas[term]
        logdet, Y = _eliminated(shared, G)
        b = _product(Y, y.c)
        dense = _solved(
            shared,
            Lambdas,
            S=shared.S - _reduction(shared, Y),
            s=y.s - sum((effects @ C for effects, C in zip(b, shared.C, strict=True)), np.zeros(1)),
            yy=y.yy - sum((c * effects).sum(axis=1) for c, effects in zip(y.c, b, strict=True)),
            reml=reml,
        )
        nu = cross.n - cross.p if reml else cross.n
        value = logdet + dense.logdet + nu * (1 + np.log(2 * np.pi * dense.r2 / nu))
        value -= cross.log_weights
        if reml:
            value += 2 * np.log(np.abs(np.diag(cross.R))).sum()
        slopes = dense.slopes(shared, Lambdas, nu)
        score = _score(shared, Y, y.c, dense, nu)
        for term, block in zip(shared.first, _split(2 * score @ G, shared), strict=True):
            slopes[term] = block
        gradient = pull_back(slopes, x, cross.covariances)
    bad = ~(np.isfinite(value) & np.isfinite(gradient).all(axis=1) & (dense.r2 > 0))
    value[bad], gradient[bad] = np.inf, 0.0
    return Profiles(value, gradient, dense.v[:, shared.q :], dense.r2)


def _split(slope: Array, shared: Shared) -> list[Array]:
    """Return the diagonal blocks of the terms of the first factor, as views."""
    places = spans(shared.cross.covariances[t].k for t in shared.first)
    return [slope[:, place, place] for place in places]


def _product(A: Sequence[Sequence[Array]], x: Sequence[Array] | Array) -> list[Array]:
    return [sum((a * b for a, b in zip(row, x, strict=True)), np.zeros(1)) for row in A]


def _eliminated(shared: Shared, G: Array) -> tuple[Array, Elements]:
    """Return log|I + L'DL| and Y = L (I + L'DL)^-1 L' of the first factor."""
    K, D = G.shape[1], shared.rotation.D
    R, L = elementwise_factor(D, G)
    logs = (np.log(R[j][j]) @ shared.rotation.counts for j in range(K))
    logdet = 2 * sum(logs, np.zeros(len(G)))
    V = [elementwise_forward(R, row) for row in L]
    Y: Elements = [[np.empty(0)] * K for _ in range(K)]
    for a, b in zip(*np.tril_indices(K), strict=True):
        Y[a][b] = Y[b][a] = sum((v * w for v, w in zip(V[a], V[b], strict=True)), np.zeros(1))
    return logdet, Y


def _reduction(shared: Shared, Y: Elements) -> Array:
    """Return the sum of C_l' Y_l C_l, shape (B, w, w)."""
    K, w = len(Y), len(shared.S)
    if not K:
        return np.zeros((1, w, w))
    flat = np.concatenate([Y[a][b] for a, b in zip(*np.tril_indices(K), strict=True)], axis=1)
    return np.asarray((flat @ shared.pairs).reshape(len(flat), w, w))


def _score(shared: Shared, Y: Elements, c: Array, dense: _Solved, nu: int) -> Array:
    """Return the derivative with respect to Lambda Lambda' of the first factor, (B, K, K)."""
    K, D, B = len(Y), shared.rotation.D, len(dense.r2)
    pairs, places = list(zip(*np.tril_indices(K), strict=True)), range(K)
    e = [sums - dense.v @ C.T for sums, C in zip(c, shared.C, strict=True)]
    fitted = _product(Y, e)
    remaining = [e[a] - sum(D[:, a, b] * fitted[b] for b in places) for a in places]
    N = [[(a == b) - sum(D[:, a, i] * Y[i][b] for i in places) for b in places] for a in places]
    Q: Elements = [[np.zeros(1)] * K for _ in places]
    if dense.bar is not None:
        through = (dense.bar.reshape(B, -1) @ shared.pairs.T).reshape(B, len(pairs), len(D))
        for i, (a, b) in enumerate(pairs):
            Q[a][b] = Q[b][a] = through[:, i] / (1 if a == b else 2)
    score = np.zeros((B, K, K))
    for a, b in pairs:
        NQ = [sum(N[a][i] * Q[i][j] for i in places) for j in places]
        of_levels = shared.rotation.counts * sum(N[a][i] * D[:, i, b] for i in places)
        of_levels = of_levels - sum(NQ[j] * N[b][j] for j in places)
        residual = nu / dense.r2 * np.einsum("bm,bm->b", remaining[a], remaining[b])
        score[:, a, b] = score[:, b, a] = of_levels.sum(axis=1) - residual
    return score


@dataclass(frozen=True, eq=False)
class _Solved:
    """The dense part: v, effects and gamma fitted to y; bar, the derivative of its log|.|."""

    S: Array
    s: Array
    u: Array
    v: Array
    inverse: Array | None
    bar: Array | None
    logdet: Array
    r2: Array

    def slopes(self, shared: Shared, Lambdas: Sequence[Array], nu: int) -> list[Array]:
        """Return the derivative with respect to the factor of every dense term, by term."""
        slopes: list[Array] = [np.empty(0)] * len(shared.cross.covariances)
        if not shared.others:
            return slopes
        B, w = self.s.shape
        right = _times(shared, Lambdas, self.inverse if self.inverse is not None else self.S)
        remaining = self.s - (self.S @ self.v[:, :, None])[:, :, 0]
        for term, place in shared.others:
            k = shared.cross.covariances[term].k
            rows = self.S[:, place].reshape(B, -1, k, w).swapaxes(1, 2).reshape(B, k, -1)
            cols = right[:, :, place].reshape(B, w, -1, k).swapaxes(1, 2).reshape(B, -1, k)
            g, u = remaining[:, place].reshape(B, -1, k), self.u[:, place].reshape(B, -1, k)
            fit = (nu / self.r2)[:, None, None] * (g.swapaxes(1, 2) @ u)
            slopes[term] = 2 * (rows @ cols - fit)
        return slopes


def _solved(
    shared: Shared, Lambdas: Sequence[Array], *, S: Array, s: Array, yy: Array, reml: bool
) -> _Solved:
    """Solve the dense part of every replicate."""
    B, (q, w) = len(s), (shared.q, len(shared.S))
    S = np.broadcast_to(S, (B, w, w))
    turned = [Lambda.swapaxes(1, 2) for Lambda in Lambdas]
    M = _times(shared, turned, _times(shared, turned, S).swapaxes(1, 2))
    if q:
        M[:, np.arange(q), np.arange(q)] += 1.0
    right = _times(shared, turned, s[:, :, None])[:, :, 0]
    L = stack_cholesky_or_nan(M)
    half = np.linalg.inv(L)
    u = (half.swapaxes(1, 2) @ (half @ right[:, :, None]))[:, :, 0]
    r2 = yy - (u * right).sum(axis=1)
    kept = w if reml else q
    inverse = bar = None
    if kept:
        inverse = np.zeros((B, w, w))
        block = half[:, :kept, :kept]
        inverse[:, :kept, :kept] = block.swapaxes(1, 2) @ block
        bar = _times(shared, Lambdas, _times(shared, Lambdas, inverse).swapaxes(1, 2))
    logdet = 2 * np.log(np.diagonal(L, axis1=1, axis2=2)[:, :kept]).sum(axis=1)
    v = _times(shared, Lambdas, u[:, :, None])[:, :, 0]
    return _Solved(S, s, u, v, inverse, bar, logdet, r2)


def _times(shared: Shared, Lambdas: Sequence[Array], x: Array) -> Array:
    """Return T x, T the block diagonal of the dense terms' factors and ones for X."""
    if not shared.others:
        return x
    product, B = x.copy(), len(x)
    for term, place in shared.others:
        k, Lambda = shared.cross.covariances[term].k, Lambdas[term]
        blocks = x[:, place].reshape(B, -1, k, x.shape[2])
        total = sum(
            (Lambda[:, None, :, j, None] * blocks[:, :, j, None] for j in range(k)), np.zeros(1)
        )
        product[:, place] = total.reshape(B, -1, x.shape[2])
    return product
