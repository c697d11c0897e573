"""Whether a model is nested in another one, and what the larger one has more.

Fixed effects: the column space of X lies in that of the larger model. Random effects: every
covariance of the response that the smaller model can have is one of the larger model's.

A term (W | g) gives rows i, j of the same level of g the covariance w_i' M w_j, where M is any
covariance matrix, or any diagonal one for `||`. The covariances that a term can give form a cone,
spanned by those of single columns d with unit variance: d_i d_j in the levels of some factor h. So
one term contains another if for each such column there is an M in its own cone that gives the same.
That h is the factor g itself is the usual case; h can also be nested in g, as (1 | g:f) is in
(0 + f | g), where M is a multiple of the identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Bases, n_theta
from ranef.design.design import RANK_TOLERANCE, Design, RandomTerm
from ranef.design.groups import is_nested
from ranef.errors import listed
from ranef.numerics.matrices import summed_by

SAME = 1e-12  # share of a squared covariance that may be left unexplained
ZERO = 1e-9  # a variance, where that of every column of the smaller model is 1
NEGATIVE = -1e-7  # a variance that is not rounding


@dataclass(frozen=True)
class Extra:
    """How many parameters a model has more than one that is nested in it.

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
    found = _covariances(small.terms, large.terms)
    if isinstance(found, RandomTerm):
        return f"the random effects {found.text} of the first are not among those of the second"
    return ""


def same_fixed(first: Design, second: Design) -> bool:
    """Whether two designs of the same data have the same column space of X."""
    return first.X.shape[1] == second.X.shape[1] and not _outside(first, second)


def extra(small: Design, large: Design) -> Extra:
    """Count what a design has more than one that is nested in it."""
    totals = _covariances(small.terms, large.terms)
    assert not isinstance(totals, RandomTerm)
    new = [_new(term, total) for term, total in zip(large.terms, totals, strict=True)]
    few = all(n <= 1 for term in new for n in term)
    before, after = (_counts(design.terms) for design in (small, large))
    return Extra(
        fixed=large.X.shape[1] - small.X.shape[1],
        variances=after[0] - before[0],
        covariances=after[1] - before[1],
        bounded=sum(map(sum, new)) if few else None,
    )


# ------------------------------------------------------------------------------ fixed effects


def _outside(inner: Design, outer: Design) -> list[str]:
    """Return the fixed columns of a design that are no combinations of another's."""
    root = np.sqrt(inner.weights)[:, None]
    Q, _ = np.linalg.qr(outer.X * root)
    X = inner.X * root
    left = X - Q @ (Q.T @ X)
    left -= Q @ (Q.T @ left)
    far = np.linalg.norm(left, axis=0) > RANK_TOLERANCE * np.linalg.norm(X, axis=0)
    return [name for name, is_far in zip(inner.fixed, far, strict=True) if is_far]


# ----------------------------------------------------------------------------- random effects


def _covariances(
    small: Sequence[RandomTerm], large: Sequence[RandomTerm]
) -> list[Array] | RandomTerm:
    """Return M of each larger term when all columns of the smaller terms have unit variance.

    Or the first smaller term that no larger one contains.
    """
    totals = [np.zeros((t.n_coefs, t.n_coefs)) for t in large]
    order = sorted(range(len(large)), key=lambda i: large[i].n_coefs)
    for term in small:
        for group in _generators(term):
            shares = ((i, _shares(large[i], term.codes, group)) for i in order)
            i, share = next(((i, s) for i, s in shares if s is not None), (-1, None))
            if share is None:
                return term
            totals[i] += share
    return totals


def _generators(term: RandomTerm) -> list[list[Array]]:
    """Return columns that span the covariances of a term, those that stay together in one list.

    A union of linear spaces contains a linear space only if one of them does: coefficients that
    are correlated have to be in one term.
    """
    d = _basis(term).T
    return [
        [*(d[i] for i in block), *(d[i] + d[j] for i, j in combinations(block, 2))]
        for block in term.covariance.free_blocks
    ]


def _shares(outer: RandomTerm, codes: Codes, columns: Sequence[Array]) -> Array | None:
    found = [_share(outer, codes, d) for d in columns]
    kept = [M for M in found if M is not None]
    return np.sum(kept, axis=0) if len(kept) == len(found) else None


def _share(outer: RandomTerm, codes: Codes, d: Array) -> Array | None:
    """Return M of a term that gives the covariance of a column, or None if there is none.

    With W_g the term's rows in a level g, c_h = W_g'd_h the column's share of a level h of its own
    factor, and N_g the covariance wanted: M minimises the sum of |W_g M W_g' - N_g|^2, which is
    sum |N_g|^2 - 2 <M, sum c_h c_h'> + <M, sum G_g M G_g>, G_g = W_g'W_g.
    """
    if not is_nested(codes, outer.codes):  # a level of h in two of g
        return None
    W, k = _basis(outer), outer.n_coefs
    G = summed_by(outer.codes, W[:, :, None] * W[:, None, :])
    C = summed_by(codes, W * d[:, None])
    wanted = (C.T @ C).ravel()
    free = np.ravel_multi_index(_places(outer), (k, k))
    system = np.einsum("gac,gbd->abcd", G, G).reshape(k * k, k * k)[np.ix_(free, free)]
    M = np.zeros(k * k)
    M[free] = np.linalg.lstsq(system, wanted[free], rcond=None)[0]
    size = float((summed_by(codes, d**2) ** 2).sum())
    left = size - 2 * M[free] @ wanted[free] + M[free] @ system @ M[free]
    found = M.reshape(k, k)
    lowest = np.linalg.eigvalsh((found + found.T) / 2)[0]
    return found if left <= SAME * size and lowest >= NEGATIVE * np.abs(found).max() else None


def _places(term: RandomTerm) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the elements of M that may differ from zero."""
    pairs = [pair for block in term.covariance.free_blocks for pair in product(block, repeat=2)]
    rows, columns = np.array(pairs).T
    return rows, columns


def _basis(term: RandomTerm) -> Array:
    """Return the columns of a term scaled; orthonormal where only their span matters."""
    columns = _scaled(term.columns)
    if term.covariance.kept_by is not Bases.TRIANGULAR:
        return columns
    return np.asarray(np.linalg.qr(columns)[0] * np.sqrt(len(columns)))


def _scaled(columns: Array) -> Array:
    """Return columns of unit mean square."""
    size = np.sqrt(np.mean(columns**2, axis=0))
    return np.asarray(columns / np.where(size > 0, size, 1.0))


def _new(term: RandomTerm, total: Array) -> list[int]:
    """Return how many directions of each block have a variance of zero in the smaller model."""
    blocks = [total[np.ix_(block, block)] for block in term.covariance.free_blocks]
    return [len(M) - int(np.linalg.matrix_rank(M, tol=ZERO, hermitian=True)) for M in blocks]


def _counts(terms: Sequence[RandomTerm]) -> tuple[int, int]:
    """Return the numbers of variances and of covariances."""
    variances = sum(t.n_coefs for t in terms)
    return variances, n_theta([t.covariance for t in terms]) - variances
