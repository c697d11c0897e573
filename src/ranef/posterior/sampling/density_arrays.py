"""A model as two flat arrays: what the compiled density of `kernel` reads.

The levels of one factor are eliminated one by one; whatever else there is, the random effects of
all other terms with the fixed columns, is one dense matrix, the rest. The fixed columns are those
of gamma, of the given effects, and y less what the fixed effects add to it at their *origin*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array
from ranef.likelihood.linear.crossproducts import CrossProducts, Link
from ranef.posterior.linear_posterior import LinearPosterior

MAX_REST = 300  # random effects besides the first factor's up to which this is the faster way
MAX_NESTED = 100  # ... with nested factors, of which `lmm` eliminates all without a dense matrix
MAX_ELEMENTS = 1_000_000  # of the cross-products of all levels with the rest


@dataclass(frozen=True, eq=False)
class Packed:
    """A model for the compiled density.

    Attributes
    ----------
    counts : ndarray of int
        Sizes and places, in the order in which `pack` writes them and `kernel` reads them.
    numbers : ndarray of float
        Cross-products, bases, priors, likewise.
    d, n_values : int
        Numbers of coordinates and of values.
    """

    counts: NDArray[np.int64]
    numbers: Array
    d: int
    n_values: int


def suits(target: LinearPosterior) -> bool:
    """Whether the rest is small enough for the compiled density."""
    cross = target.cross
    sizes = [m * shape.k for m, shape in zip(cross.n_levels, cross.covariances, strict=True)]
    first = sizes[cross.chain[0].term] if cross.chain else 0
    rest, limit = sum(sizes) - first, MAX_NESTED if len(cross.chain) > 1 else MAX_REST
    return rest <= limit and first * (rest + cross.p + 1) <= MAX_ELEMENTS


def pack(target: LinearPosterior) -> Packed:
    """Write a model, its priors and its cross-products into two arrays.

    Parameters
    ----------
    target : LinearPosterior
        One that `suits`; any other works as well, but slowly.
    """
    cross, fixed, space = target.cross, target.fixed, target.space
    order, places = _layout(cross)
    q, r, g = (
        sum(places[t].stop - places[t].start for t in order[1:]),
        fixed.J.shape[1],
        space.n_given,
    )
    turn, origin, rows = _turn(target)
    D, C, rest = _flat(cross, places, q, turn)
    m, k = C.shape[:2]
    counts = [
        np.array([m, k, q, r, g, len(order), max([1, *(c.k for c in space.covariances)])]),
        np.array([space.d, len(space.known)]),
        *(_term(target, t, places) for t in order),
        np.column_stack([space.codes, space.free]).ravel(),
        space.relative,
    ]
    numbers = [
        np.array([cross.n, cross.log_weights, fixed.constant, space.constant]),
        D,
        C,
        rest,
        rows.T @ rows,
        origin,
        *(target.bases[t] for t in order),
        space.numbers,
        space.known,
    ]
    return Packed(
        counts=np.concatenate([np.ravel(part) for part in counts]).astype(np.int64),
        numbers=np.concatenate([np.ravel(part) for part in numbers]).astype(np.float64),
        d=space.d,
        n_values=len(space.known),
    )


def _layout(cross: CrossProducts) -> tuple[list[int], dict[int, slice]]:
    """Return the terms, the eliminated one first, and the columns of the others in the rest."""
    order = [link.term for link in cross.chain] + [term for term, _ in cross.rest_terms]
    places, start = {}, 0
    for term in order[1:]:
        stop = start + cross.n_levels[term] * cross.covariances[term].k
        places[term] = slice(start, stop)
        start = stop
    return order, places


def _turn(target: LinearPosterior) -> tuple[Array, Array, Array]:
    """Return what turns [X y] into the columns of gamma, of the given effects, and y.

    Further the origin, an estimate of the given effects, and the prior as rows of data. Gamma is
    counted from its estimate at the origin: y and all sums of squares are small there.
    """
    fixed = target.fixed
    J, given, (p, r) = fixed.J, fixed.given, fixed.J.shape
    origin = np.linalg.lstsq(given - J @ (J.T @ given), -fixed.shift)[0]
    left = -fixed.offset(origin)
    gamma = J.T @ left
    turn = np.zeros((p + 1, r + len(origin) + 1))
    turn[:p] = np.column_stack([J, given, left - J @ gamma])
    turn[-1, -1] = 1.0
    rows = fixed.rows.copy()
    rows[:, -1] -= rows[:, :-1] @ gamma
    return turn, origin, rows


def _term(target: LinearPosterior, term: int, places: dict[int, slice]) -> NDArray[np.int64]:
    """Return k, levels, place in the rest, places of the sds and partial correlations of a term."""
    place = places[term].start if term in places else 0
    sd, partial = target.space.places[term]
    k, levels = target.cross.covariances[term].k, target.cross.n_levels[term]
    return np.array([k, levels, place, sd.start, partial.start, partial.stop - partial.start])


def _flat(
    cross: CrossProducts, places: dict[int, slice], q: int, turn: Array
) -> tuple[Array, Array, Array]:
    """Return D (m, k, k), C (m, k, w) and the rest (w, w) with only one factor in the chain."""
    old, w = cross.q_rest, q + turn.shape[1]
    rest = np.zeros((w, w))
    rest[q - old : q, q - old : q] = cross.rest[:old, :old]
    rest[q - old : q, q:] = cross.rest[:old, old:] @ turn
    rest[q:, q:] = turn.T @ cross.rest[old:, old:] @ turn
    D, C = np.zeros((0, 1, 1)), np.zeros((0, 1, w))
    for i, link in enumerate(cross.chain):
        rows = _rows(cross, i, places, w, turn)
        if i == 0:
            D, C = link.front[:, : link.k, : link.k], rows
        else:
            place = places[link.term]
            own = place.start + np.arange(place.stop - place.start).reshape(-1, link.k)
            rest[place] += rows.reshape(-1, w)
            rest[own[:, :, None], own[:, None, :]] = link.front[:, : link.k, : link.k]
    upper = np.triu(rest)
    return D, C, upper + np.triu(upper, 1).T


def _rows(cross: CrossProducts, i: int, places: dict[int, slice], w: int, turn: Array) -> Array:
    """Return the cross-products of a factor of the chain with the rest's later columns."""
    link, old = cross.chain[i], cross.q_rest
    q = w - turn.shape[1]
    dense = link.rest if isinstance(link.rest, np.ndarray) else link.rest.dense()
    m, k = dense.shape[:2]
    rows = np.zeros((m, k, w))
    rows[:, :, q - old : q] = dense[:, :, :old]
    rows[:, :, q:] = dense[:, :, old:] @ turn
    start = k
    for later, level in _ancestors(cross.chain[i:]):
        columns = places[later.term].start + level[:, None] * later.k + np.arange(later.k)
        block = link.front[:, :k, start : start + later.k]
        rows[np.arange(m)[:, None, None], np.arange(k)[:, None], columns[:, None, :]] = block
        start += later.k
    return rows


def _ancestors(chain: tuple[Link, ...]) -> Iterator[tuple[Link, NDArray[np.int64]]]:
    """Yield the later factors of a chain, and in which of their levels those of the first are."""
    level = np.arange(len(chain[0].front)) if chain else np.empty(0, dtype=np.int64)
    for inner, outer in pairwise(chain):
        assert inner.parent is not None
        level = inner.parent[level]
        yield outer, level
