"""Which of two models is nested in the other, and the parameters that the larger one has more.

Fixed effects: the column space of X lies in that of the larger model. Random effects: every
covariance of the response that the smaller model can have is one of the larger model's.

A term (W | g) gives rows i, j of the same level of g the covariance w_i' M w_j, where M is any
covariance matrix, or any diagonal one for `||`. The covariances that a term can give form a cone,
spanned by the covariances of single columns d with unit variance: d_i d_j in the levels of some
factor h. So one term contains another if for each such column there is an M in its own cone that
gives the same covariance. The factor h mostly is g itself; h can also be nested in g, as (1 | g:f)
is in (0 + f | g), where M is a multiple of the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, compress, product

import numpy as np

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Bases, n_theta
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import is_nested
from ranef.design.model_matrix import RANK_TOLERANCE
from ranef.design.rows.rows import TermRows
from ranef.errors import listed
from ranef.numerics.matrices import summed_by

MAX_UNEXPLAINED = 1e-12  # share of a squared covariance that a larger term may leave unexplained
MAX_ZERO_VARIANCE = 1e-9  # where every column of the smaller model has a variance of 1
MAX_NEGATIVE_VARIANCE = 1e-7  # by rounding, relative to the largest element of M


@dataclass(frozen=True)
class Extra:
    """The numbers of parameters that a model has more than one that is nested in it.

    Attributes
    ----------
    fixed : int
        Fixed effects.
    variances, covariances : int
        Of random effects. One of them can be negative where a covariance matrix has others in it.
    bounded : int or None
        How many of the parameters of the random effects are at an end of their range in the
        smaller model, variances of zero, while the others can go either way. None where the
        larger model's parameters cannot be told apart like this: two or more correlated effects
        are new at the same time.
    """

    fixed: int
    variances: int
    covariances: int
    bounded: int | None

    @property
    def random(self) -> int:
        """The number of parameters of the random effects."""
        return self.variances + self.covariances

    @property
    def total(self) -> int:
        """The number of all parameters."""
        return self.fixed + self.random


def obstacle(small: Design, large: Design) -> str:
    """Say why a design is not nested in another of the same data; empty if it is."""
    outside = _outside(small, large)
    if outside:
        return (
            f"the fixed effects {listed(outside)} of the first are no combination of those of the "
            "second"
        )
    covariances = _covariances(small, large)
    if isinstance(covariances, RandomTerm):
        text = covariances.text
        return f"the random effects {text} of the first are not among those of the second"
    return ""


def same_fixed(first: Design, second: Design) -> bool:
    """Whether two designs of the same data have the same column space of X."""
    return first.sufficient.X.shape[1] == second.sufficient.X.shape[1] and not _outside(
        first, second
    )


def extra(small: Design, large: Design) -> Extra:
    """Count the parameters that a design has more than one that is nested in it."""
    covariances = _covariances(small, large)
    assert not isinstance(covariances, RandomTerm)
    zeros = [
        n
        for term, M in zip(large.terms, covariances, strict=True)
        for n in _zero_variances(term, M)
    ]
    small_counts, large_counts = _counts(small.terms), _counts(large.terms)
    return Extra(
        fixed=large.sufficient.X.shape[1] - small.sufficient.X.shape[1],
        variances=large_counts[0] - small_counts[0],
        covariances=large_counts[1] - small_counts[1],
        bounded=sum(zeros) if max(zeros, default=0) <= 1 else None,
    )


# ------------------------------------------------------------------------------ fixed effects


def _outside(inner: Design, outer: Design) -> list[str]:
    """Return the fixed columns of a design that are no combinations of another's."""
    root = np.sqrt(inner.sufficient.weights)[:, None]
    Q, _ = np.linalg.qr(outer.sufficient.X * root)
    X = inner.sufficient.X * root
    residuals = X - Q @ (Q.T @ X)
    residuals -= Q @ (Q.T @ residuals)
    outside = np.linalg.norm(residuals, axis=0) > RANK_TOLERANCE * np.linalg.norm(X, axis=0)
    return list(compress(inner.fixed, outside))


# ----------------------------------------------------------------------------- random effects


def _covariances(small: Design, large: Design) -> list[Array] | RandomTerm:
    """Return M of each larger term where all columns of the smaller terms have unit variance.

    Where no larger term contains one of the smaller terms, the first such term is returned instead.
    """
    outer = [*zip(large.terms, large.sufficient.terms, strict=True)]
    totals = [np.zeros((term.n_coefs, term.n_coefs)) for term in large.terms]
    by_size = sorted(range(len(outer)), key=lambda i: large.terms[i].n_coefs)
    for term, rows in zip(small.terms, small.sufficient.terms, strict=True):
        for columns in _generators(term, rows):
            for i in by_size:
                M = _covariance_of_columns(*outer[i], rows.codes, columns)
                if M is not None:
                    totals[i] += M
                    break
            else:
                return term
    return totals


def _generators(term: RandomTerm, rows: TermRows) -> list[list[Array]]:
    """Return columns that span the covariances of a term, one list a block of correlated ones.

    A union of linear spaces contains a linear space only if one of them does: coefficients that
    are correlated have to be in one term.
    """
    d = _basis(term, rows).T
    return [
        [*(d[i] for i in block), *(d[i] + d[j] for i, j in combinations(block, 2))]
        for block in term.covariance.free_blocks
    ]


def _covariance_of_columns(
    outer: RandomTerm, rows: TermRows, codes: Codes, columns: Sequence[Array]
) -> Array | None:
    """Return the sum of M over columns, or None if the term does not contain one of them."""
    total = np.zeros((outer.n_coefs, outer.n_coefs))
    for d in columns:
        M = _covariance_of_column(outer, rows, codes, d)
        if M is None:
            return None
        total += M
    return total


def _covariance_of_column(
    outer: RandomTerm, rows: TermRows, codes: Codes, d: Array
) -> Array | None:
    """Return M of a term that gives the covariance of a column, or None if there is none.

    With W_g the term's rows in a level g, c_h = W_g'd_h the column's share of a level h of its own
    factor, and N_g the column's covariance: M minimises the sum of |W_g M W_g' - N_g|^2, which is
    sum |N_g|^2 - 2 <M, sum c_h c_h'> + <M, sum G_g M G_g>, G_g = W_g'W_g.
    """
    if not is_nested(codes, rows.codes):  # a level of h in two of g
        return None
    W, k = _basis(outer, rows), outer.n_coefs
    G = summed_by(rows.codes, W[:, :, None] * W[:, None, :])
    C = summed_by(codes, W * d[:, None])
    blocks = outer.covariance.free_blocks
    free = [a * k + b for block in blocks for a, b in product(block, repeat=2)]
    right_side = (C.T @ C).ravel()[free]
    system = np.einsum("gac,gbd->abcd", G, G).reshape(k * k, k * k)[np.ix_(free, free)]
    elements = np.linalg.lstsq(system, right_side, rcond=None)[0]
    M = np.zeros((k, k))
    M.flat[free] = elements
    size = float((summed_by(codes, d**2) ** 2).sum())
    unexplained = size - 2 * elements @ right_side + elements @ system @ elements
    if unexplained > MAX_UNEXPLAINED * size:
        return None
    lowest = np.linalg.eigvalsh((M + M.T) / 2)[0]
    return M if lowest >= -MAX_NEGATIVE_VARIANCE * np.abs(M).max() else None


def _basis(term: RandomTerm, rows: TermRows) -> Array:
    """Return the columns of a term with unit mean square; orthogonal where only the span counts."""
    size = np.sqrt(np.mean(rows.columns**2, axis=0))
    columns = rows.columns / np.where(size > 0, size, 1.0)
    if term.covariance.kept_by is not Bases.TRIANGULAR:
        return np.asarray(columns)
    return np.asarray(np.linalg.qr(columns)[0] * np.sqrt(len(columns)))


def _counts(terms: Sequence[RandomTerm]) -> tuple[int, int]:
    """Return the numbers of variances and of covariances of random terms."""
    variances = sum(t.n_coefs for t in terms)
    return variances, n_theta([t.covariance for t in terms]) - variances


def _zero_variances(term: RandomTerm, M: Array) -> list[int]:
    """Return how many directions of each block have a variance of zero in the smaller model."""
    blocks = [M[np.ix_(block, block)] for block in term.covariance.free_blocks]
    ranks = [np.linalg.matrix_rank(B, tol=MAX_ZERO_VARIANCE, hermitian=True) for B in blocks]
    return [len(B) - int(rank) for B, rank in zip(blocks, ranks, strict=True)]
