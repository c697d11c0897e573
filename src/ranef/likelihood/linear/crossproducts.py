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
from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Bases, Covariance
from ranef.design.design import Design, RandomTerm, TermRows
from ranef.design.groups import chain_of, check_effects, transposed
from ranef.numerics.memory import check_memory

SPARSE_SIZE = 500_000  # elements of a block of the rest from which on sparsity pays
SPARSE_SHARE = 0.25  # ... if at most this share of them is not zero
MIN_INDEPENDENT_LENGTH = 1e-7  # of a column of unit size without its projection on earlier ones
MAX_UNEXPLAINED_SHARE = 1e-9  # of a term's columns, if these are combinations of the fixed ones
MAX_PAIRS = 20_000_000  # products of two elements that are kept; 12 bytes each


@dataclass(frozen=True, eq=False)
class SparseRows:
    """A block of the rest with few elements that are not zero.

    Attributes
    ----------
    rows : sparse array, shape (m k, w)
        The block itself, C.
    pairs : sparse array, shape (w w, m k (k + 1) / 2)
        The linear map from symmetric k x k matrices Y_l, one a level, to the lower triangle of
        the sum of C_l' Y_l C_l; its transpose gives the C_l A C_l'.
    k : int
    """

    rows: sparse.csr_array
    pairs: sparse.csr_array
    k: int

    def sandwich(self, Y: Array) -> Array:
        """Return the sum over levels of C_l' Y_l C_l, shape (w, w), for Y of shape (m, k, k)."""
        w = self.rows.shape[1]
        lower = (self.pairs @ Y[:, *np.tril_indices(self.k)].ravel()).reshape(w, w)
        return np.asarray(lower + np.tril(lower, -1).T)

    def quadratic(self, A: Array) -> Array:
        """Return C_l A C_l' for every level, shape (m, k, k), for a symmetric A."""
        lower = np.tril(A)
        lower *= 2.0
        lower[np.diag_indices_from(lower)] /= 2.0
        rows, columns = np.tril_indices(self.k)
        halves = np.where(rows == columns, 1.0, 0.5)
        elements = (self.pairs.T @ lower.ravel()).reshape(-1, len(rows)) * halves
        products = np.empty((len(elements), self.k, self.k))
        products[:, rows, columns] = products[:, columns, rows] = elements
        return products

    def dense(self) -> Array:
        """Return C as an array, shape (m, k, w)."""
        return self.rows.toarray().reshape(-1, self.k, self.rows.shape[1])


@dataclass(frozen=True, eq=False)
class ChainFactor:
    """One grouping factor of the chain, with its cross-products.

    Attributes
    ----------
    term : int
        The number of the term in the design.
    k : int
        Its number of coefficients.
    front : ndarray, shape (m, f, f)
        Per level, the cross-products among the term's k coefficients and those of the later
        terms of the chain; the part among the later terms is zero.
    rest : ndarray, shape (m, k, w), or SparseRows
        Cross-products with the rest.
    parent : ndarray of int, shape (m,), or None
        The level of the next factor of the chain in which a level is nested.
    """

    term: int
    k: int
    front: Array
    rest: Array | SparseRows
    parent: Codes | None


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
    rest : ndarray, shape (w, w)
        Cross-products of the rest: the random terms that are not in the chain, X, y.
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
    rest: Array
    rest_terms: tuple[tuple[int, slice], ...]
    bases: tuple[Array, ...]
    R: Array
    beta_ols: Array

    @property
    def q_rest(self) -> int:
        """The number of random effects in the rest."""
        return len(self.rest) - self.p - 1


def cross_products(design: Design) -> CrossProducts:
    """Compute the cross-products of a design whose X has full column rank.

    Source: Bates et al. (2015), *Journal of Statistical Software* 67(1), section 3.4.
    """
    check_effects(design.rows.terms, design.rows.X.shape[1])
    root = np.sqrt(design.rows.weights)
    Q, R = np.linalg.qr(design.rows.X * root[:, None])
    y = design.rows.y - design.rows.offset
    level = _level(design.rows.X, Q.T @ root, R, y)
    y = (y - design.rows.X @ level) * root
    coefficients = Q.T @ y
    residual = y - Q @ coefficients
    residual -= Q @ (Q.T @ residual)  # once more, for a y far from zero
    weighted = [term.columns * root[:, None] for term in design.rows.terms]
    bases = tuple(basis(Z, term) for Z, term in zip(weighted, design.terms, strict=True))
    columns = [
        linalg.solve_triangular(T, Z.T, trans="T").T for Z, T in zip(weighted, bases, strict=True)
    ]
    chain, others = chain_of(design.rows.terms)
    rest_columns, rest_terms = _rest_layout(design.rows.terms, others)
    fixed = np.column_stack([Q, residual])
    return CrossProducts(
        n=design.n_obs,
        p=design.rows.X.shape[1],
        log_weights=float(np.log(design.rows.weights).sum()),
        covariances=tuple(t.covariance for t in design.terms),
        n_levels=tuple(t.n_levels for t in design.terms),
        chain=tuple(
            _link(design.rows.terms, columns, chain[i:], others, fixed) for i in range(len(chain))
        ),
        rest=_rest(design.rows.terms, columns, others, fixed, rest_columns),
        rest_terms=rest_terms,
        bases=bases,
        R=R,
        beta_ols=level + (linalg.solve_triangular(R, coefficients) if len(R) else coefficients),
    )


def _level(X: Array, ones: Array, R: Array, y: Array) -> Array:
    """Return coefficients whose fitted values are the mean of y in every row, or are all zero.

    To take them off is exact, however far y is from zero.
    """
    shares = np.rint(linalg.solve_triangular(R, ones)) if len(R) else ones
    is_constant = np.isfinite(shares).all() and bool((X @ shares == 1).all())
    return np.asarray(y.mean() * shares if is_constant else np.zeros(len(R)))


def residual_sums(cross: CrossProducts) -> Iterator[tuple[int, Array, Array]]:
    """Yield for every term its number, diag(Z_l'Z_l) and Z_l'y, both of shape (m, k)."""
    for term, D, sums in fixed_shares(cross, slice(len(cross.rest) - 1, len(cross.rest))):
        yield term, D, sums[:, :, 0]


def fixed_shares(cross: CrossProducts, columns: slice) -> Iterator[tuple[int, Array, Array]]:
    """Yield for every term diag(Z_l'Z_l), (m, k), and Z_l' of some columns of the rest."""
    for link in cross.chain:
        k, rest = link.k, link.rest
        products = (
            rest[:, :, columns] if isinstance(rest, np.ndarray) else rest.rows[:, columns].toarray()
        )
        squares = np.diagonal(link.front, axis1=1, axis2=2)[:, :k]
        yield link.term, squares, np.asarray(products).reshape(len(squares), k, -1)
    for term, place in cross.rest_terms:
        squares = np.diag(cross.rest)[place].reshape(cross.n_levels[term], -1)
        yield term, squares, cross.rest[place, columns].reshape(*squares.shape, -1)


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
    fixed = slice(cross.q_rest, cross.q_rest + cross.p)
    return [
        term
        for term, D, Q in fixed_shares(cross, fixed)
        if D.sum() - (Q**2).sum() < MAX_UNEXPLAINED_SHARE * D.sum()
    ]


def _rest_layout(
    terms: Sequence[TermRows], others: list[int]
) -> tuple[int, tuple[tuple[int, slice], ...]]:
    """Return the number of random effects in the rest, and the places of each term there."""
    stops = np.cumsum([0, *(terms[i].n_levels * terms[i].n_coefs for i in others)]).tolist()
    return stops[-1], tuple(zip(others, map(slice, stops, stops[1:]), strict=True))


def _link(
    terms: Sequence[TermRows],
    columns: list[Array],
    chain: list[int],
    others: list[int],
    fixed: Array,
) -> ChainFactor:
    i, *later = chain
    term, m, k = terms[i], terms[i].n_levels, terms[i].n_coefs
    Zt = transposed(term.codes, columns[i], m)
    wide = np.column_stack([columns[j] for j in chain])
    f = wide.shape[1]
    front = np.zeros((m, f, f))
    front[:, :k] = (Zt @ wide).reshape(m, k, f)
    front[:, k:, :k] = front[:, :k, k:].transpose(0, 2, 1)
    parent = None
    if later:
        parent = np.empty(m, dtype=np.int64)
        parent[term.codes] = terms[later[0]].codes
    crossed = [Zt @ transposed(terms[j].codes, columns[j], terms[j].n_levels).T for j in others]
    return ChainFactor(i, k, front, _joined(crossed, Zt @ fixed, k, may_be_sparse=i == 0), parent)


def _joined(
    crossed: list[sparse.csr_array], fixed: Array, k: int, *, may_be_sparse: bool
) -> Array | SparseRows:
    """Join the blocks of the rest.

    Sparse where that saves time and memory, and only at the head of the chain: the
    elimination of a term fills the rows of its parents.
    """
    size = len(fixed) * sum(c.shape[1] for c in crossed)
    is_sparse = sum(c.nnz for c in crossed) < SPARSE_SHARE * size
    if may_be_sparse and size > SPARSE_SIZE and is_sparse:
        joined = sparse.csr_array(sparse.hstack([*crossed, sparse.csr_array(fixed)]))
        if _count_pairs(joined, k) <= MAX_PAIRS:
            return SparseRows(joined, pair_products(joined, k), k)
    remedy = "Fit a sample of the levels, or leave one of the crossed factors out."
    check_memory(
        2.0 * size, "the cross-products of the random effects, most of them not zero,", remedy
    )
    full = np.column_stack([*(c.toarray() for c in crossed), fixed])
    return full.reshape(len(fixed) // k, k, -1)


def _count_pairs(C: sparse.csr_array, k: int) -> int:
    """Return the number of products that `pair_products` keeps."""
    lengths = np.diff(C.tobsr((k, 1)).indptr)
    return int((lengths * (lengths + 1) // 2).sum() * k * (k + 1) // 2)


def pair_products(C: sparse.csr_array, k: int) -> sparse.csr_array:
    """Return `SparseRows.pairs`: products of any two elements of a level's rows."""
    blocks = C.tobsr((k, 1))
    blocks.sort_indices()
    values, columns, w = blocks.data[:, :, 0], blocks.indices, C.shape[1]
    lengths = np.diff(blocks.indptr)
    level = np.repeat(np.arange(len(lengths)), lengths)
    start = blocks.indptr[level]
    earlier = np.arange(len(columns)) - start + 1  # elements of the level up to this one
    first = np.repeat(np.arange(len(columns)), earlier)
    second = np.arange(len(first)) - np.repeat(np.cumsum(earlier) - earlier, earlier)
    second += np.repeat(start, earlier)
    pairs = list(zip(*np.tril_indices(k), strict=True))
    products = [
        values[first, a] * values[second, b] + (a != b) * values[first, b] * values[second, a]
        for a, b in pairs
    ]
    places = columns[first].astype(np.int64) * w + columns[second]
    targets = [level[first] * len(pairs) + t for t in range(len(pairs))]
    return sparse.coo_array(
        (np.concatenate(products), (np.tile(places, len(pairs)), np.concatenate(targets))),
        shape=(w * w, len(lengths) * len(pairs)),
    ).tocsr()


def _rest(
    terms: Sequence[TermRows], columns: list[Array], others: list[int], fixed: Array, q: int
) -> Array:
    w = q + fixed.shape[1]
    S = np.zeros((w, w))
    S[q:, q:] = fixed.T @ fixed
    if others:
        Zt = sparse.vstack(
            [transposed(terms[j].codes, columns[j], terms[j].n_levels) for j in others],
            format="csr",
        )
        S[:q, :q] = (Zt @ Zt.T).toarray()
        S[:q, q:] = Zt @ fixed
        S[q:, :q] = S[:q, q:].T
    return S
