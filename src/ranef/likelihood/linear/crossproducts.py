"""The sufficient statistics of a Gaussian mixed model: cross-products of [Z X y].

Rows are read once; afterwards nothing costs anything in n. The columns are first brought to a
well-conditioned basis: X becomes orthonormal, y its least-squares residual, and the columns of a
random term orthonormal (full covariance) or of unit size (diagonal), so that neither the scale
nor the origin of a variable matters to the optimiser.

Terms are split in two. Along the *chain* each factor is nested in the next one (or the chain is a
single factor), so that its block of Lambda'Z'Z Lambda + I stays block diagonal when the earlier
ones are eliminated. The *rest*, crossed factors together with X and y, is one dense matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg, sparse

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Bases, Covariance
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import chain_of, check_effects
from ranef.design.rows.rows import Rows, TermRows
from ranef.errors import listed
from ranef.likelihood.linear.crossed_rows import CrossedRows, crossed_rows
from ranef.likelihood.linear.sums.level_sums import LevelSums, level_sums
from ranef.numerics.matrices import orthonormal, spans, threads_for
from ranef.numerics.memory import check_memory

SPARSE_SIZE = 500_000  # elements of a block of the rest from which on sparsity pays
SPARSE_SHARE = 0.25  # ... if at most this share of them is not zero
MIN_INDEPENDENT_LENGTH = 1e-7  # of a column of unit size without its projection on earlier ones
MAX_UNEXPLAINED_SHARE = 1e-9  # of a term's columns, if these are combinations of the fixed ones


@dataclass(frozen=True, eq=False)
class ChainFactor:
    """One grouping factor of the chain, with its cross-products.

    Attributes
    ----------
    term : int
        The number of the term in the design.
    front : ndarray, shape (m, f, f)
        Per level, the cross-products among the term's k coefficients and those of the later
        terms of the chain; the part among the later terms is zero.
    rest : CrossedRows
        Cross-products with the rest.
    parent : ndarray of int, shape (m,), or None
        The level of the next factor of the chain in which a level is nested.
    counts : ndarray, shape (m,) or (1,)
        For how many levels one stands in log|Lambda'Z'WZ Lambda + I|; see `equal_levels`.
    """

    term: int
    front: Array
    rest: CrossedRows
    parent: Codes | None
    counts: Array = field(default_factory=lambda: np.ones(1))

    @property
    def k(self) -> int:
        """The number of coefficients of the term."""
        return self.rest.k

    @staticmethod
    def of(term: int, wide: Array, rest: CrossedRows, parent: Codes | None) -> ChainFactor:
        """Return a factor from the cross-products of its coefficients, shape (m, k, f)."""
        m, k, f = wide.shape
        front = np.zeros((m, f, f))
        front[:, :k], front[:, k:, :k] = wide, wide[:, :, k:].mT
        return ChainFactor(term, front, rest, parent)


@dataclass(frozen=True, eq=False)
class CrossProducts:
    """The cross-products of [Z X y], which are sufficient for a Gaussian model.

    Attributes
    ----------
    n, p : int
        Numbers of rows and of fixed columns.
    log_weights : float
        Sum of the logarithms of the prior weights.
    covariances : tuple of Covariance
        Of the terms, in the design's order.
    n_levels : tuple of int
    chain : tuple of Link
    inner : ndarray or sparse array, shape (q, q)
        Cross-products of the random effects of the rest, the terms that are not in the chain.
    fixed : ndarray, shape (w, p + 1)
        Cross-products of the rest, with X and y its last columns, with X and y.
    rest_terms : tuple of (int, slice)
        The terms in the rest, and the places of their effects there.
    bases : tuple of ndarray, shape (k, k)
        T of each term: columns = (columns in the basis) @ T, so b in the basis is T b.
    R : ndarray, shape (p, p)
        X = Q R, upper triangular, in the metric of the weights.
    beta_ols : ndarray, shape (p,)
        The (weighted) least-squares estimate that y is a residual of.
    """

    n: int
    p: int
    log_weights: float
    covariances: tuple[Covariance, ...]
    n_levels: tuple[int, ...]
    chain: tuple[ChainFactor, ...]
    inner: Array | sparse.csr_array
    fixed: Array
    rest_terms: tuple[tuple[int, slice], ...]
    bases: tuple[Array, ...]
    R: Array
    beta_ols: Array

    @property
    def q_rest(self) -> int:
        """The number of random effects in the rest."""
        return len(self.fixed) - self.p - 1

    @property
    def sizes(self) -> list[int]:
        """The number of random effects of each term."""
        return [m * c.k for m, c in zip(self.n_levels, self.covariances, strict=True)]

    @cached_property
    def rest(self) -> Array:
        """All cross-products of the rest, shape (w, w)."""
        inner = self.inner if isinstance(self.inner, np.ndarray) else self.inner.toarray()
        across = self.fixed[: self.q_rest]
        return np.block([[inner, across], [across.T, self.fixed[self.q_rest :]]])

    def add_inner(self, S: Array) -> None:
        """Add the inner cross-products to a matrix, at least to its lower triangle."""
        if isinstance(self.inner, np.ndarray):
            S += self.inner
        else:
            elements = self.inner.tocoo()
            S[elements.row, elements.col] += elements.data


def cross_products(design: Design) -> CrossProducts:
    """Compute the cross-products of a design whose X has full column rank.

    Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 3.4.
    """
    check_effects(design.sufficient.terms, design.sufficient.X.shape[1])
    with threads_for(design.sufficient.X.shape[1]):
        return _cross_products(design)


def _cross_products(design: Design) -> CrossProducts:
    root = np.sqrt(design.sufficient.weights)
    Q, R = orthonormal(design.sufficient.X * root[:, None])
    y = design.sufficient.y - design.sufficient.offset
    level = _level(design.sufficient, Q.T @ (root * design.sufficient.ones), R, y)
    y = (y - design.sufficient.X @ level) * root
    coefficients = Q.T @ y
    residual = y - Q @ coefficients
    residual -= Q @ (Q.T @ residual)  # once more, for a y far from zero
    terms = design.sufficient.terms
    weighted = [term.columns * root[:, None] for term in terms]
    bases = tuple(basis(Z, term) for Z, term in zip(weighted, design.terms, strict=True))
    chain, others = chain_of(terms, TermRows.meets)
    fixed = np.empty((len(residual), len(R) + 1))  # row by row, as sparse matrices multiply it
    fixed[:, :-1], fixed[:, -1] = Q, residual
    sums = level_sums(design.sufficient, bases, fixed)
    inner, across = _rest(sums, others, fixed.shape[1])
    return CrossProducts(
        n=design.n_obs,
        p=design.sufficient.X.shape[1],
        log_weights=float(design.sufficient.log_weights.sum()),
        covariances=tuple(t.covariance for t in design.terms),
        n_levels=tuple(t.n_levels for t in design.terms),
        chain=tuple(_link(terms, sums, chain[i:], others) for i in range(len(chain))),
        inner=inner,
        fixed=np.vstack([across, fixed.T @ fixed]),
        rest_terms=_rest_layout(terms, others),
        bases=bases,
        R=R,
        beta_ols=level + (linalg.solve_triangular(R, coefficients) if len(R) else coefficients),
    )


def _level(rows: Rows, ones: Array, R: Array, y: Array) -> Array:
    """Return coefficients whose fitted values are the mean of y in every row, or are all zero.

    To take them off is exact, however far y is from zero.
    """
    shares = np.rint(linalg.solve_triangular(R, ones)) if len(R) else ones
    is_constant = np.isfinite(shares).all() and bool((rows.X @ shares == rows.ones).all())
    return np.asarray(rows.mean(y) * shares if is_constant else np.zeros(len(R)))


def residual_sums(cross: CrossProducts) -> Iterator[tuple[int, Array, Array]]:
    """Yield for every term its number, diag(Z_l'Z_l) and Z_l'y, both of shape (m, k)."""
    for term, D, sums in fixed_shares(cross, slice(cross.p, cross.p + 1)):
        yield term, D, sums[:, :, 0]


def fixed_shares(cross: CrossProducts, columns: slice) -> Iterator[tuple[int, Array, Array]]:
    """Yield for every term diag(Z_l'Z_l), (m, k), and Z_l' of some columns of [X y]."""
    for link in cross.chain:
        squares = np.diagonal(link.front, axis1=1, axis2=2)[:, : link.k]
        yield link.term, squares, link.rest.fixed.reshape(*squares.shape, -1)[:, :, columns]
    diagonal = cross.inner.diagonal()
    for term, place in cross.rest_terms:
        squares = diagonal[place].reshape(cross.n_levels[term], -1)
        yield term, squares, cross.fixed[place, columns].reshape(*squares.shape, -1)


def assembled(cross: CrossProducts) -> tuple[sparse.coo_array, Array]:
    """Return Z'WZ and Z'W[X y] of all random effects, term after term, level after level."""
    starts, q = np.cumsum([0, *cross.sizes]), cross.q_rest
    places = [np.arange(starts[t], starts[t + 1]) for t, _ in cross.rest_terms]
    rest = np.concatenate([*places, np.empty(0, dtype=np.int64)])
    F = np.zeros((starts[-1], cross.p + 1))
    F[rest] = cross.fixed[:q]
    elements = [(rest, rest, np.zeros(q))]
    if q:
        inner = sparse.coo_array(cross.inner)
        elements.append((rest[inner.row], rest[inner.col], inner.data))
    for i, link in enumerate(cross.chain):
        effects = starts[link.term] + np.arange(len(link.rest.fixed))
        F[effects] = link.rest.fixed
        if q:
            across = sparse.coo_array(link.rest.rows)
            elements += _both(effects[across.row], rest[across.col], across.data)
        levels, column = np.arange(len(link.front)), 0
        for later in cross.chain[i:]:
            block = link.front[:, : link.k, column : column + later.k]
            rows = np.broadcast_to(effects.reshape(-1, link.k, 1), block.shape).ravel()
            columns = starts[later.term] + levels[:, None, None] * later.k + np.arange(later.k)
            columns = np.broadcast_to(columns, block.shape).ravel()
            of_block = (rows, columns, block.ravel())
            elements += [of_block] if later is link else _both(*of_block)
            column += later.k
            if later.parent is not None:
                levels = later.parent[levels]
    rows, columns, values = (np.concatenate(parts) for parts in zip(*elements, strict=True))
    return sparse.coo_array((values, (rows, columns)), shape=(starts[-1], starts[-1])), F


def _both(rows: Codes, columns: Codes, values: Array) -> list[tuple[Codes, Codes, Array]]:
    """Return elements with those on the other side of the diagonal."""
    return [(rows, columns, values), (columns, rows, values)]


def basis(Z: Array, term: RandomTerm) -> Array:
    """Return T of a term, k x k: triangular or diagonal, as far as that keeps its covariance.

    The columns Z T^-1 have unit mean squares, and are orthogonal if T is triangular. A multiple
    of the identity makes the mean square of all columns one.
    """
    size = np.sqrt(np.mean(Z**2, axis=0))
    if term.covariance.kept_by is Bases.MULTIPLES:
        size[:] = np.sqrt(np.mean(size**2))
    size[size == 0] = 1.0
    if term.covariance.kept_by is not Bases.TRIANGULAR or term.n_coefs == 1:
        return np.diag(size)
    R = np.linalg.qr(Z / size, mode="r") / np.sqrt(len(Z))
    if len(R) < term.n_coefs or np.abs(np.diag(R)).min() < MIN_INDEPENDENT_LENGTH:
        return np.diag(size)
    return np.asarray(np.sign(np.diag(R))[:, None] * R * size)


def spanned_terms(cross: CrossProducts) -> list[int]:
    """Return the terms all of whose columns are combinations of the fixed columns.

    REML knows nothing of their covariance: it uses what the fixed effects leave of the data.
    """
    return [
        term
        for term, D, Q in fixed_shares(cross, slice(0, cross.p))
        if D.sum() - (Q**2).sum() < MAX_UNEXPLAINED_SHARE * D.sum()
    ]


def _rest_layout(terms: Sequence[TermRows], others: list[int]) -> tuple[tuple[int, slice], ...]:
    """Return the terms in the rest, and the places of their effects there."""
    places = spans(terms[i].n_levels * terms[i].n_coefs for i in others)
    return tuple(zip(others, places, strict=True))


def _link(
    terms: Sequence[TermRows], sums: LevelSums, chain: list[int], others: list[int]
) -> ChainFactor:
    """Return a factor of the chain with its cross-products.

    Those with the rest are sparse where that saves time and memory, and only at the head of the
    chain: the elimination of a term fills the rows of its parents.
    """
    i, *later = chain
    term, m, k = terms[i], terms[i].n_levels, terms[i].n_coefs
    outer = [sums.nested(i, j) for j in later]
    wide = np.concatenate([sums.own(i), *(products for _, products in outer)], axis=2)
    parent = outer[0][0] if outer else None
    crossed, fixed = [sums.crossed(i, j) for j in others], sums.fixed(i)
    size = m * k * sum(c.shape[1] for c in crossed)
    is_sparse = sum(c.nnz for c in crossed) < SPARSE_SHARE * size
    if i == 0 and size > SPARSE_SIZE and is_sparse:
        rows = crossed_rows(sparse.csr_array(sparse.hstack(crossed)), fixed, k)
        return ChainFactor.of(i, wide, rows, parent)
    names = listed(terms[j].factor for j in others)
    what = f"the cross-products of `{term.factor}` with {names}, {size:,} and most not zero,"
    remedy = "Fit a sample of the levels, or leave one of the crossed factors out."
    check_memory(2.0 * size, what, remedy)
    whole = np.column_stack([fixed[:, :0], *(c.toarray() for c in crossed)])
    return ChainFactor.of(i, wide, CrossedRows(whole, fixed, k), parent)


def _rest(sums: LevelSums, others: list[int], width: int) -> tuple[Array | sparse.csr_array, Array]:
    """Return the cross-products of the rest's random effects, and those with X and y."""
    if not others:
        return np.empty((0, 0)), np.empty((0, width))
    inner = sums.among(others)
    q = inner.shape[0]
    is_sparse = q * q > SPARSE_SIZE and inner.nnz < SPARSE_SHARE * q * q
    across = np.vstack([sums.fixed(i) for i in others])
    return inner if is_sparse else inner.toarray(), across
