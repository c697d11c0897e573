"""A model as two flat arrays, as the density of `compiled_density` reads them.

The levels of one factor are eliminated one by one; the random effects of all other terms and the
fixed columns are one dense matrix, the rest. The fixed columns are the ones of gamma and of the
given effects, and y less the linear predictor of the fixed effects at their *origin*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array, Integers
from ranef.likelihood.linear.crossproducts import CrossProducts, assembled
from ranef.likelihood.linear.equal_levels import condensed
from ranef.numerics.matrices import spans
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.transforms import Space

MAX_REST = 300  # random effects besides the first factor's, up to which this is the faster way
MAX_NESTED = 100  # ... with nested factors, which `blocked_cholesky` all eliminates level by level
MAX_ELEMENTS = 1_000_000  # of the cross-products of all levels with the rest


@dataclass(frozen=True, eq=False)
class Packed:
    """A model, its data and its priors, as arguments of the compiled density.

    Attributes
    ----------
    counts : ndarray of int
        Sizes and positions, in the order in which `pack` writes and `compiled_density` reads them.
    numbers : ndarray of float
        Cross-products, bases and priors, likewise.
    d : int
        The number of coordinates.
    """

    counts: Integers
    numbers: Array
    d: int

    @cached_property
    def in_one(self) -> Integers:
        """The sizes of both arrays, and their bits, as C is given them."""
        sizes = np.array([len(self.counts), len(self.numbers)])
        return np.concatenate([sizes, self.counts, self.numbers.view(np.int64)])


def suits(target: LinearPosterior) -> bool:
    """Whether the compiled density is the faster one for a model: its rest is small enough."""
    cross = _levels(target)
    if not all(covariance.is_free for covariance in cross.covariances):
        return False
    sizes = cross.sizes
    q_first = sizes[cross.chain[0].term] if cross.chain else 0
    q, max_q = sum(sizes) - q_first, MAX_NESTED if len(cross.chain) > 1 else MAX_REST
    return q <= max_q and q_first * (q + cross.p + 1) <= MAX_ELEMENTS


def pack(target: LinearPosterior) -> Packed:
    """Write a model, its priors and its cross-products into two arrays.

    Parameters
    ----------
    target : LinearPosterior
        One that `suits`; any other works as well, but slowly.
    """
    cross, fixed, space = _levels(target), target.fixed, target.space
    order, columns = _layout(cross)
    q = sum(columns[t].stop - columns[t].start for t in order[1:])
    change, origin, rows = _fixed_columns(target)
    D, C, rest = _one_factor(cross, columns, change)
    m, k = C.shape[:2]
    k_max = max([1, *(c.k for c in space.covariances)])
    counts = [
        np.array([m, k, q, fixed.J.shape[1], space.n_given, len(order), k_max]),
        np.array([space.d, len(space.known)]),
        *(_term(target.space, cross, t, columns) for t in order),
        np.column_stack([space.codes, space.free]).ravel(),
        space.relative,
    ]
    numbers = [
        np.array([cross.n, cross.log_weights, fixed.constant, space.constant]),
        D,
        C,
        _counts(cross, columns, q),
        rest,
        rows.T @ rows,
        origin,
        *(target.bases[t] for t in order),
        space.numbers,
        space.known,
    ]
    return Packed(
        counts=np.concatenate([np.ravel(array) for array in counts]).astype(np.int64),
        numbers=np.concatenate([np.ravel(array) for array in numbers]).astype(np.float64),
        d=space.d,
    )


def _levels(target: LinearPosterior) -> CrossProducts:
    """Return cross-products with few levels; those of the third factor on stand for one each."""
    return target.condensed if len(target.cross.chain) <= 2 else condensed(target.cross, depth=2)


def _counts(cross: CrossProducts, columns: dict[int, slice], q: int) -> Array:
    """Return how many levels each level of the first factor, and each effect of the rest, is."""
    counts = [np.broadcast_to(link.counts, len(link.front)) for link in cross.chain]
    of_rest = np.ones(q)
    for link, of_levels in zip(cross.chain[1:], counts[1:], strict=True):
        of_rest[columns[link.term]] = np.repeat(of_levels, link.k)
    return np.concatenate([*counts[:1], of_rest])


def _layout(cross: CrossProducts) -> tuple[list[int], dict[int, slice]]:
    """Return the terms, the eliminated one first, and the columns of the others in the rest."""
    order = [link.term for link in cross.chain] + [term for term, _ in cross.rest_terms]
    sizes = cross.sizes
    return order, dict(zip(order[1:], spans(sizes[term] for term in order[1:]), strict=True))


def _fixed_columns(target: LinearPosterior) -> tuple[Array, Array, Array]:
    """Return the matrix that turns [X y] into the columns of gamma, of the given effects, and y.

    Further the origin, an estimate of the given effects, and the prior as rows of data. Gamma is
    counted from its estimate at the origin: y and all sums of squares are small there.
    """
    fixed = target.fixed
    J, J_given, (p, r) = fixed.J, fixed.given, fixed.J.shape
    origin = np.linalg.lstsq(J_given - J @ (J.T @ J_given), -fixed.shift)[0]
    offset = fixed.offset(origin)
    gamma = -J.T @ offset
    change = np.zeros((p + 1, r + len(origin) + 1))
    change[:p] = np.column_stack([J, J_given, -offset - J @ gamma])
    change[-1, -1] = 1.0
    rows = fixed.rows.copy()
    rows[:, -1] -= rows[:, :-1] @ gamma
    return change, origin, rows


def _term(space: Space, cross: CrossProducts, term: int, columns: dict[int, slice]) -> Integers:
    """Return k, levels and first column in the rest of a term; where its sds and partials are."""
    start = columns[term].start if term in columns else 0
    sd, partial = space.places[term]
    k, levels = cross.covariances[term].k, cross.n_levels[term]
    return np.array([k, levels, start, sd.start, partial.start, partial.stop - partial.start])


def _one_factor(
    cross: CrossProducts, columns: dict[int, slice], change: Array
) -> tuple[Array, Array, Array]:
    """Return D (m, k, k), C (m, k, w) and the rest (w, w) with only one factor in the chain."""
    elements, fixed = assembled(cross)
    Z, fixed, places = elements.tocsr(), fixed @ change, spans(cross.sizes)
    effects = np.arange(len(fixed))
    others = np.concatenate([effects[:0], *(effects[places[term]] for term in columns)])
    inner, across = Z[others][:, others].toarray(), fixed[others]
    rest = np.block([[inner, across], [across.T, change.T @ cross.fixed[cross.q_rest :] @ change]])
    upper = np.triu(rest)
    rest = upper + np.triu(upper, 1).T
    if not cross.chain:
        return np.zeros((0, 1, 1)), np.zeros((0, 1, len(rest))), rest
    first = cross.chain[0]
    own, k = places[first.term], first.k
    C = np.column_stack([Z[own][:, others].toarray(), fixed[own]])
    return first.front[:, :k, :k], C.reshape(-1, k, len(rest)), rest
