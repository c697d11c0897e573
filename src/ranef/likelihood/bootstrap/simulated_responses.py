"""Simulated responses of a Gaussian model as cross-products: rows are read once, not once each.

Let F'F = [Z X]'W[Z X], F of rank r. For normal errors e of variance sigma^2 W^-1 the vector
[Z X]'We is distributed as sigma F'z, z ~ N(0, I_r), and e'We as sigma^2 (z'z + chi^2_{n-r}). So
what a refit needs of a response costs nothing in n. The columns of several models may be joined:
then each of them is given the same response, as a likelihood-ratio statistic wants it.

Where F would be large the rows themselves are the cheaper way.

Every replicate has a seed of its own, so that it is the same whatever else is drawn.

Equation `bootstrap` in docs/mathematics.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Flags, Places
from ranef.design.design import Design
from ranef.design.groups import by_factor, transposed
from ranef.design.model_matrix import independent_columns
from ranef.design.rows.rows import TermRows
from ranef.design.same_data import check_same_data
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear.crossproducts import ChainFactor, CrossProducts, fixed_shares


@dataclass(frozen=True, eq=False)
class Sums:
    """Cross-products of B responses with the columns of a `Span`.

    Attributes
    ----------
    blocks : list of ndarray, shape (B, m, K)
    fixed : ndarray, shape (B, P)
    squares : ndarray, shape (B,)
        y'Wy.
    """

    blocks: list[Array]
    fixed: Array
    squares: Array


@dataclass(frozen=True, eq=False)
class Responses:
    """The cross-products of B responses with the columns of one model, in its basis.

    Attributes
    ----------
    sums : tuple of ndarray, shape (B, m, k)
        Z'y of every term, in the basis, y being a least-squares residual.
    squares : ndarray, shape (B,)
        y'y of that residual.
    beta_ols : ndarray, shape (B, p)
        The least-squares estimates on the user's scale.
    """

    sums: tuple[Array, ...]
    squares: Array
    beta_ols: Array

    def __len__(self) -> int:
        return len(self.squares)

    def at(self, which: Places) -> Responses:
        """Return some of the responses."""
        sums = tuple(term_sums[which] for term_sums in self.sums)
        return Responses(sums, self.squares[which], self.beta_ols[which])


@dataclass(frozen=True, eq=False)
class Null:
    """The model of a span that responses are drawn from.

    Attributes
    ----------
    factors : tuple of ndarray, shape (k, k)
        sigma Lambda of each term on the user's scale: a root of the covariance.
    sigma : float
    model : int
        Its number.
    beta : ndarray, shape (p,), optional
        Its fixed effects; zero where they are added later, or make no difference.
    """

    factors: tuple[Array, ...]
    sigma: float
    model: int = 0
    beta: Array | None = None


def null_of(estimate: Estimate) -> Null:
    """Return the fitted model to draw from."""
    scaled = tuple(estimate.sigma * Lambda for Lambda in estimate.Lambdas)
    return Null(scaled, estimate.sigma)


def entropy_of(seed: int | None) -> int:
    """Return the entropy of the seeds of replicates: the seed, or random bits for None."""
    return int(seed) if seed is not None else secrets.randbits(64)


def seeds_of_replicates(entropy: int, n: int, first: int = 0) -> list[np.random.SeedSequence]:
    """Return the seeds of replicates `first` to `first + n`: children that `spawn` would give."""
    return [np.random.SeedSequence(entropy, spawn_key=(i,)) for i in range(first, first + n)]


def simulated(columns: Span, null: Null, seeds: Sequence[np.random.SeedSequence]) -> Sums:
    """Draw responses of a model, one for each seed.

    Parameters
    ----------
    columns : Span
    null : Null
    seeds : sequence of SeedSequence
    """
    part, root = columns.parts[null.model], columns.root
    counts = [columns.blocks[block].m * A.shape[1] for block, A in part.terms]
    q, n_rest = sum(counts), 0 if root is None else len(root.rest)
    errors = len(columns.fixed) if root is None else root.used.size + n_rest
    drawn, chi2 = np.empty((len(seeds), q + errors)), np.zeros(len(seeds))
    df = columns.n - (len(columns.fixed) if root is None else root.rank)
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        rng.standard_normal(out=drawn[i])
        chi2[i] = rng.chisquare(df) if df > 0 else 0.0
    a = _effects_of(columns, null, np.split(drawn[:, :q], np.cumsum(counts)[:-1], axis=1))
    noise = null.sigma * drawn[:, q:]
    sums = _by_rows(columns, a, noise) if root is None else _from_root(columns, root, a, noise)
    return _with_mean(columns, null, replace(sums, squares=sums.squares + null.sigma**2 * chi2))


def _with_mean(columns: Span, null: Null, sums: Sums) -> Sums:
    """Return the cross-products of responses to which X beta is added."""
    if null.beta is None:
        return sums
    mean = columns.parts[null.model].fixed @ null.beta  # in the orthonormal columns
    added = sums_of(columns, (columns.fixed @ mean)[None])
    return Sums(
        [block + one for block, one in zip(sums.blocks, added.blocks, strict=True)],
        sums.fixed + mean,
        sums.squares + 2 * sums.fixed @ mean + mean @ mean,
    )


def _effects_of(columns: Span, null: Null, u: Sequence[Array]) -> list[Array]:
    """Return the random effects as coefficients of the blocks, shape (B, m, K)."""
    effects = [np.zeros((len(u[0]), block.m, block.K)) for block in columns.blocks]
    terms = columns.parts[null.model].terms
    for (block, A), factor, z in zip(terms, null.factors, u, strict=False):
        effects[block] += z.reshape(len(z), -1, A.shape[1]) @ (A @ factor).T
    return effects


def _from_root(columns: Span, root: Root, a: list[Array], noise: Array) -> Sums:
    """Return F's, s = F a + noise, and s's."""
    B, (m, K) = len(noise), root.used.shape
    no_fixed = np.zeros((B, columns.fixed.shape[1]))
    rest = np.concatenate([*(effects.reshape(B, -1) for effects in a[1:]), no_fixed], axis=1)
    s_first = noise[:, : m * K] * root.used.ravel() + rest @ root.other.T
    if m:
        s_first = s_first + np.einsum("mij,bmj->bmi", root.own, a[0]).reshape(B, -1)
    s_rest = rest @ root.rest.T + noise[:, m * K :]
    first = np.einsum("mij,bmi->bmj", root.own, s_first.reshape(B, m, K)).reshape(B, -1)
    other = s_first @ root.other + s_rest @ root.rest
    q = other.shape[1] - columns.fixed.shape[1]
    blocks = columns.split(np.concatenate([first, other[:, :q]], axis=1)) if a else []
    return Sums(blocks, other[:, q:], (s_first**2).sum(axis=1) + (s_rest**2).sum(axis=1))


def _by_rows(columns: Span, a: list[Array], noise: Array) -> Sums:
    y = noise
    for block, effects in zip(columns.blocks, a, strict=True):
        y = y + np.einsum("nk,bnk->bn", block.columns, effects[:, block.codes])
    return sums_of(columns, y)


def sums_of(columns: Span, y: Array) -> Sums:
    """Return the cross-products of given responses.

    Parameters
    ----------
    columns : Span
    y : ndarray, shape (B, n)
        Without the offset, times the roots of the weights.
    """
    blocks = [
        (block.transposed @ y.T).T.reshape(len(y), block.m, block.K) for block in columns.blocks
    ]
    return Sums(blocks, y @ columns.fixed, (y**2).sum(axis=1))


def responses(
    columns: Span, sums: Sums, cross: CrossProducts, model: int = 0, beta: Array | None = None
) -> Responses:
    """Return the cross-products of responses with the columns of one of the models.

    Parameters
    ----------
    columns : Span
    sums : Sums
    cross : CrossProducts
        Of that model.
    model : int
    beta : ndarray, shape (p,), optional
        Fixed effects to add, where responses were drawn without them.
    """
    part, p = columns.parts[model], cross.p
    to_basis = np.linalg.inv(cross.R)
    q = sums.fixed @ (part.fixed @ to_basis)
    term_sums: list[Array] = [np.empty(0)] * len(part.terms)
    for term, _, ZQ in fixed_shares(cross, slice(0, p)):
        block, A = part.terms[term]
        raw = sums.blocks[block][:, : len(ZQ)] @ (A @ np.linalg.inv(cross.bases[term]))
        m, k, _ = ZQ.shape
        term_sums[term] = raw - (q @ ZQ.reshape(m * k, p).T).reshape(-1, m, k)
    ols = q @ to_basis.T
    return Responses(
        sums=tuple(term_sums),
        squares=sums.squares - (q**2).sum(axis=1),
        beta_ols=ols if beta is None else ols + beta,
    )


def with_response(cross: CrossProducts, drawn: Responses, i: int) -> CrossProducts:
    """Return the cross-products of a model for one of its responses."""
    fixed = cross.fixed.copy()
    fixed[:, -1] = fixed[-1] = 0.0
    fixed[-1, -1] = drawn.squares[i]
    for term, place in cross.rest_terms:
        fixed[place, -1] = drawn.sums[term][i].ravel()
    chain = tuple(_with_sums(link, drawn.sums[link.term][i]) for link in cross.chain)
    return replace(cross, chain=chain, fixed=fixed, beta_ols=drawn.beta_ols[i])


def _with_sums(link: ChainFactor, sums: Array) -> ChainFactor:
    fixed = np.column_stack([link.rest.fixed[:, :-1], sums.ravel()])
    return replace(link, rest=replace(link.rest, fixed=fixed))


MAX_DENSE = 300  # columns besides those of the largest factor from which on rows are cheaper
MAX_ELEMENTS = 20_000_000  # of their cross-products with the largest factor
MIN_RELATIVE_EIGENVALUE = 1e-9  # of cross-products: below it columns depend on each other


@dataclass(frozen=True, eq=False)
class FactorColumns:
    """The columns of one grouping factor, of all terms and models together.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
    m : int
        Number of levels.
    columns : ndarray, shape (n, K)
        Independent columns of unit mean squares, times the roots of the weights.
    """

    codes: Codes
    m: int
    columns: Array

    @property
    def K(self) -> int:
        """The number of columns."""
        return int(self.columns.shape[1])

    @property
    def transposed(self) -> sparse.csr_array:
        """The columns level by level as a matrix, transposed: shape (m K, n)."""
        return transposed(self.codes, self.columns, self.m)


@dataclass(frozen=True, eq=False)
class Root:
    """F, a factor of the cross-products of all columns.

    Attributes
    ----------
    own : ndarray, shape (m, K, K)
        The block of each level of the first factor; rows of zeros where its columns depend on
        each other.
    used : ndarray of bool, shape (m, K)
        The rows that are not zero.
    other : ndarray, shape (m K, w)
        The same rows in the columns of everything else.
    rest : ndarray, shape (r', w)
        The rows that are zero in the first factor's columns.
    """

    own: Array
    used: Flags
    other: Array
    rest: Array

    @property
    def rank(self) -> int:
        """The rank of all columns, r."""
        return int(self.used.sum()) + len(self.rest)


@dataclass(frozen=True, eq=False)
class Part:
    """The columns of one model as combinations of the columns of all.

    Attributes
    ----------
    terms : tuple of (int, ndarray)
        For each random term its block, and A, shape (K, k): the term's columns are the block's
        times A.
    fixed : ndarray, shape (P, p)
        X is the orthonormal fixed columns of all times this.
    """

    terms: tuple[tuple[int, Array], ...]
    fixed: Array


@dataclass(frozen=True, eq=False)
class Span:
    """The columns of one or more models on the same rows.

    Attributes
    ----------
    blocks : tuple of Block
        One for each grouping factor, that with most effects first.
    fixed : ndarray, shape (n, P)
        Orthonormal columns that span every X, times the roots of the weights.
    parts : tuple of Part
        One for each model.
    root : Root or None
        None where responses are drawn row by row.
    n : int
        The number of rows of the data.
    """

    blocks: tuple[FactorColumns, ...]
    fixed: Array
    parts: tuple[Part, ...]
    root: Root | None
    n: int

    def split(self, flat: Array) -> list[Array]:
        """Split effects, or sums, of all blocks, shape (B, q), into (B, m, K) each."""
        ends = np.cumsum([block.m * block.K for block in self.blocks])
        return [
            effects.reshape(len(flat), block.m, block.K)
            for effects, block in zip(np.split(flat, ends[:-1], axis=1), self.blocks, strict=True)
        ]


def span(*designs: Design) -> Span:
    """Join the columns of designs of the same data.

    Parameters
    ----------
    *designs : Design
        X of full column rank.

    Raises
    ------
    DataError
        If the rows, responses, weights or offsets differ.
    """
    for design in designs[1:]:
        names = f"`{designs[0].formula.text}`", f"`{design.formula.text}`"
        check_same_data(designs[0], design, names)
    root = np.sqrt(designs[0].sufficient.weights)
    X = np.column_stack([design.sufficient.X * root[:, None] for design in designs])
    X = X / np.maximum(np.linalg.norm(X, axis=0), np.finfo(np.float64).tiny)
    fixed = np.linalg.qr(X[:, independent_columns(X)])[0]
    groups = by_factor([term for design in designs for term in design.sufficient.terms])
    blocks: list[FactorColumns] = []
    places: dict[int, tuple[int, Array]] = {}
    for number, group in enumerate(groups):
        block, combinations = _block(group, root)
        blocks.append(block)
        places |= {id(t): (number, A) for t, A in zip(group, combinations, strict=True)}
    parts = tuple(
        Part(
            tuple(places[id(t)] for t in design.sufficient.terms),
            fixed.T @ (design.sufficient.X * root[:, None]),
        )
        for design in designs
    )
    width = sum(block.m * block.K for block in blocks[1:]) + fixed.shape[1]
    size = width * (blocks[0].m * blocks[0].K if blocks else 0)
    by_rows = width > MAX_DENSE or size > MAX_ELEMENTS
    joint = None if by_rows else _root(blocks, fixed)
    return Span(tuple(blocks), fixed, parts, joint, designs[0].n_obs)


def _block(group: Sequence[TermRows], root: Array) -> tuple[FactorColumns, list[Array]]:
    """Return independent columns of the terms of one factor, and each term as their combination."""
    columns = np.column_stack([term.columns * root[:, None] for term in group])
    length = np.maximum(np.linalg.norm(columns, axis=0), np.finfo(np.float64).tiny)
    kept = independent_columns(columns / length)
    Q = np.linalg.qr(columns[:, kept] / length[kept])[0] * np.sqrt(len(root))
    A = Q.T @ columns / len(root)
    ends = np.cumsum([term.n_coefs for term in group])[:-1]
    m = max(term.n_levels for term in group)
    return FactorColumns(group[0].codes, m, Q), np.split(A, ends, axis=1)


def block_cross_products(
    blocks: Sequence[FactorColumns], fixed: Array
) -> tuple[Array, Array, Array]:
    """Return the cross-products of the first block, of it with all else, and among all else.

    Returns
    -------
    tuple of ndarray, shapes (m, K, K), (m, K, w) and (w, w)
        The first block level by level; then the other blocks and the fixed columns.
    """
    columns = sparse.csr_array(
        sparse.vstack([block.transposed for block in blocks[1:]] + [sparse.csr_array(fixed.T)])
    )
    S = (columns @ columns.T).toarray()
    if not blocks:
        return np.zeros((0, 0, 0)), np.zeros((0, 0, len(S))), S
    first = blocks[0]
    D, C = np.zeros((first.m, first.K, first.K)), first.transposed @ columns.T
    np.add.at(D, first.codes, first.columns[:, :, None] * first.columns[:, None, :])
    return D, C.toarray().reshape(first.m, first.K, len(S)), S


def _root(blocks: Sequence[FactorColumns], fixed: Array) -> Root:
    """Return F: first the levels of the first factor, then the remaining rows."""
    D, C, S = block_cross_products(blocks, fixed)
    own, used, inverse = _roots(D)
    other = (inverse @ C).reshape(used.size, len(S))
    size = np.sqrt(np.maximum(np.diag(S), np.finfo(np.float64).tiny))
    values, vectors = np.linalg.eigh((S - other.T @ other) / np.outer(size, size))
    kept = values > MIN_RELATIVE_EIGENVALUE
    rest = np.sqrt(values[kept])[:, None] * (vectors[:, kept] * size[:, None]).T
    return Root(own, used, other, rest)


def _roots(D: Array) -> tuple[Array, Flags, Array]:
    """Return H with H'H = D of every level, which of its rows are used, and H^-1 transposed."""
    values, vectors = np.linalg.eigh(D)
    used = values > MIN_RELATIVE_EIGENVALUE * values.max(initial=0.0)
    lengths = np.where(used, np.sqrt(np.maximum(values, 0.0)), 0.0)
    over = np.divide(1.0, lengths, where=used, out=np.zeros_like(lengths))
    turned = vectors.swapaxes(1, 2)
    return lengths[:, :, None] * turned, used, over[:, :, None] * turned
