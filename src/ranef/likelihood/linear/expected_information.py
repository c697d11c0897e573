"""The products of derivatives of V that make the expected information of a linear model.

With V the relative covariance of y, tr(V^-1 V_i V^-1 V_j) and X'V^-1 V_i V^-1 V_j V^-1 X for all
pairs of variance parameters. All follow from Z'V^-1 Z and Z'V^-1 X, with random effects that no
data connect apart from each other: there Z'V^-1 Z is block diagonal, dense within a block. Sets
of connected effects are a level of a single factor, everything in a level of the outermost of
nested factors, and everything where factors are crossed. Sets with the same numbers of levels are
done together. At V = W^-1, without random effects, nothing is inverted, and all is sparse.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Integers
from ranef.covariances.covariance import Covariance
from ranef.errors import FitError
from ranef.likelihood.linear.crossproducts import CrossProducts, assembled
from ranef.numerics.matrices import chunks, read_only, spans, threads_for

MAX_CONNECTED_EFFECTS = 5000  # random effects that data connect: three matrices of 200 MB
MAX_DENSE_EFFECTS = 200  # random effects up to which sparse matrices take more time than dense ones
NUMBERS_OF_A_BATCH = 2**21  # of small matrices: 16 MB


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Products of the derivatives V_i of V in its d + 1 parameters, in which V is linear.

    These are the free elements of the terms' relative covariances, one term after the other, and
    last the scale of V itself. They span the elements of the covariances and the residual variance.

    Attributes
    ----------
    K : ndarray, shape (p, p)
        X'V^-1 X.
    T : ndarray, shape (d + 1, d + 1)
        tr(V^-1 V_i V^-1 V_j).
    P : ndarray, shape (d + 1, p, p)
        X'V^-1 V_i V^-1 X.
    Q : ndarray, shape (d + 1, d + 1, p, p)
        X'V^-1 V_i V^-1 V_j V^-1 X.
    """

    K: Array
    T: Array
    P: Array
    Q: Array


def derivatives(cross: CrossProducts, covs: Sequence[Array]) -> Derivatives:
    """Return the products of the derivatives of V that make the expected information.

    Parameters
    ----------
    cross : CrossProducts
    covs : sequence of ndarray, shape (k, k)
        The relative covariance of each term, in the basis of the cross-products.

    Raises
    ------
    FitError
        If data connect more than `MAX_CONNECTED_EFFECTS` random effects.
    """
    for covariance in cross.covariances:
        covariance.check_free()
    units = [tangents(covariance) for covariance in cross.covariances]
    d, p = sum(map(len, units)), cross.p
    T, P, Q = np.zeros((d + 1, d + 1)), np.zeros((d + 1, p, p)), np.zeros((d + 1, d + 1, p, p))
    K = cross.fixed[cross.q_rest : -1, :-1].copy()
    with threads_for(MAX_CONNECTED_EFFECTS):
        for batch in _connected(cross, d * p):
            explained, traces, single, of_P, of_Q = _share(units, covs, batch)
            K -= explained
            T[:d, :d] += traces
            T[:d, d] += single
            P[:d] += of_P
            Q[:d, :d] += of_Q
    T[d, :d], T[d, d] = T[:d, d], cross.n
    P[d] = Q[d, d] = K
    Q[:d, d] = Q[d, :d] = P[:d]
    return Derivatives(K, T, P, Q)


@dataclass(frozen=True, eq=False)
class InnerProducts:
    """Inner products of the derivatives of V, tr(W V_i W V_j).

    The parameters are those of the terms, in the directions `units`, and last the residual
    variance, whose derivative is W^-1.

    Attributes
    ----------
    all : ndarray, shape (d + 1, d + 1)
    unexplained : ndarray, shape (d + 1, d + 1)
        Of what the fixed effects leave of the derivatives, which is all that REML sees.
    units : tuple of ndarray, shape (d_t, k, k)
        For each term the derivatives of its covariance, in the basis of the cross-products.
    """

    all: Array
    unexplained: Array
    units: tuple[Array, ...]


def inner_products(cross: CrossProducts) -> InnerProducts:
    """Return the inner products of the derivatives of V at independent random effects."""
    units = tuple(map(tangents, cross.covariances))
    d, p = sum(map(len, units)), cross.p
    elements, F = assembled(cross)
    F = F[:, :-1]
    D = elements.toarray()[None] if len(F) <= MAX_DENSE_EFFECTS else elements.tocsr()
    one_set = _Sets(cross.n_levels, tuple(c.k for c in cross.covariances))
    T, S, P = np.zeros((d + 1, d + 1)), np.zeros((d + 1, d + 1)), np.zeros((d + 1, p, p))
    rows = max(1, NUMBERS_OF_A_BATCH // max(1, d * len(F)))
    with threads_for(len(cross.fixed)):
        T[:d, :d], T[:d, d] = _traces(units, one_set, D)
        for columns in chunks(p, rows):
            EF = _applied(units, one_set, F[None, :, columns])[:, 0]
            P[:d, :, columns] = F.T @ EF
            S[:d, :d] += [[np.vdot(left, D @ right) for right in EF] for left in EF]
    S[:d, d], P[d] = np.einsum("iaa->i", P[:d]), np.eye(p)
    T[d, :d], S[d, :d], T[d, d], S[d, d] = T[:d, d], S[:d, d], cross.n, p
    return InnerProducts(T, T - 2 * S + np.einsum("iab,jba->ij", P, P), units)


@cache
def tangents(covariance: Covariance) -> Array:
    """Return the derivatives of a covariance by its theta at the identity, shape (d, k, k).

    Where its elements are free these are unit matrices.

    Examples
    --------
    >>> from ranef.covariances.covariance import Unstructured
    >>> tangents(Unstructured(2))[1]
    array([[0., 1.],
           [1., 0.]])
    """
    k, theta = covariance.k, covariance.theta_of(np.eye(covariance.k))
    elements = np.eye(k * k).reshape(-1, k, k)
    slopes = (elements + elements.mT) @ covariance.factor(theta)
    by_theta = np.array([covariance.pull_back(slope, theta) for slope in slopes])
    units = by_theta.T.reshape(-1, k, k)
    read_only(units)
    return units


def _of_planes(left: Array, right: Array, planes: Array) -> Array:
    """Return sum of tr(E_i B E_j B') over blocks B, whose elements are the rows of `planes`."""
    k, j = left.shape[1], right.shape[1]
    products = (planes.T @ planes).reshape(k, j, k, j).transpose(2, 0, 1, 3).reshape(k * k, j * j)
    return np.asarray(left.reshape(-1, k * k) @ products @ right.reshape(-1, j * j).T)


@dataclass(frozen=True, eq=False)
class _Sets:
    """Sets of random effects, alike in the number of levels of each term: one after the other.

    Attributes
    ----------
    counts, ks : tuple of int
        For each term, the levels in a set and the coefficients.
    """

    counts: tuple[int, ...]
    ks: tuple[int, ...]

    @property
    def spans(self) -> list[slice]:
        """The places of each term."""
        return spans(m * k for m, k in zip(self.counts, self.ks, strict=True))

    def times(self, term: int, A: Array, x: Array) -> Array:
        """Return A x for the effects of every level of a term, x of shape (sets, m k, ...)."""
        rows = x.reshape(len(x), self.counts[term], self.ks[term], -1)
        return np.asarray((A @ rows).reshape(x.shape))


@dataclass(frozen=True, eq=False)
class _Batch(_Sets):
    """Sets of random effects that data connect.

    Attributes
    ----------
    D : ndarray, shape (sets, size, size)
        Z'WZ.
    F : ndarray, shape (sets, size, p)
        Z'WX.
    """

    D: Array
    F: Array


def _share(units: Sequence[Array], covs: Sequence[Array], batch: _Batch) -> tuple[Array, ...]:
    """Return the shares of a batch in X'WX - K, in T, in tr(V^-1 V_i), in P and in Q."""
    C, F, explained = _inverted(covs, batch)
    EF = _applied(units, batch, F)
    d, sets, size, p = EF.shape
    left, right = (x.transpose(1, 2, 0, 3).reshape(sets * size, d * p) for x in (EF, C @ EF))
    P = (F.reshape(sets * size, p).T @ left).reshape(p, d, p).swapaxes(0, 1)
    Q = (left.T @ right).reshape(d, p, d, p).swapaxes(1, 2)
    return explained, *_traces(units, batch, C), P, Q


def _inverted(covs: Sequence[Array], batch: _Batch) -> tuple[Array, Array, Array]:
    """Return Z'V^-1 Z and Z'V^-1 X, and the share of the random effects in X'WX.

    (I + D G)^-1 [D F] with G the relative covariance, which may be singular.
    """
    system, GF = np.empty_like(batch.D), np.empty_like(batch.F)
    for term, (span, cov) in enumerate(zip(batch.spans, covs, strict=True)):
        GD = batch.times(term, cov, batch.D[:, span])
        system[:, :, span] = GD.swapaxes(1, 2)  # D G, as both are symmetric
        GF[:, span] = batch.times(term, cov, batch.F[:, span])
    places = np.arange(system.shape[1])
    system[:, places, places] += 1.0
    solved = np.linalg.solve(system, np.concatenate([batch.D, batch.F], axis=2))
    C, F = solved[:, :, : len(places)], solved[:, :, len(places) :]
    return C, F, np.tensordot(GF, F, axes=([0, 1], [0, 1]))


def _applied(units: Sequence[Array], sets: _Sets, F: Array) -> Array:
    """Return E_i F for the units of all terms, shape (d, sets, size, p)."""
    products = np.zeros((sum(map(len, units)), *F.shape))
    rows = iter(products)
    for term, span in enumerate(sets.spans):
        for unit in units[term]:
            next(rows)[:, span] = sets.times(term, unit, F[:, span])
    return products


def _traces(
    units: Sequence[Array], sets: _Sets, C: Array | sparse.csr_array
) -> tuple[Array, Array]:
    """Return tr(E_i C E_j C) and tr(E_i C), shapes (d, d) and (d,), summed over sets."""
    terms = list(zip(units, sets.spans, sets.ks, strict=True))
    rows = [
        [_of_planes(left, right, _planes(C, (a, b), (k, j))) for right, b, j in terms]
        for left, a, k in terms
    ]
    if not rows:
        return np.empty((0, 0)), np.empty(0)
    single = [np.einsum("iab,ab->i", left, _diagonal_sum(C, a, k)) for left, a, k in terms]
    return np.block(rows), np.concatenate(single)


def _planes(
    C: Array | sparse.csr_array, places: tuple[slice, slice], size: tuple[int, int]
) -> Array:
    """Return the blocks of some size, those that are zero perhaps left out, (blocks, k j)."""
    k, j = size
    if not isinstance(C, np.ndarray):
        return np.asarray(C[places].tobsr(size).data.reshape(-1, k * j))
    part = C[:, *places]
    blocks = part.reshape(-1, k, part.shape[2] // j, j)
    return np.asarray(blocks.swapaxes(1, 2).reshape(-1, k * j))


def _diagonal_sum(C: Array | sparse.csr_array, place: slice, k: int) -> Array:
    """Return the sum of the k x k blocks on the diagonal of a part."""
    if isinstance(C, np.ndarray):
        m = (place.stop - place.start) // k
        return np.asarray(np.einsum("smamb->ab", C[:, place, place].reshape(-1, m, k, m, k)))
    elements = C[place, place].tocoo()
    total, own = np.zeros((k, k)), elements.row // k == elements.col // k
    np.add.at(total, (elements.row[own] % k, elements.col[own] % k), elements.data[own])
    return total


def _connected(cross: CrossProducts, width: int) -> Iterator[_Batch]:
    """Yield all random effects in sets that data connect, in batches of sets that are alike.

    Parameters
    ----------
    cross : CrossProducts
    width : int
        Numbers that are needed for each random effect besides its row of Z'WZ.
    """
    if not cross.covariances:
        return
    D, F = assembled(cross)
    ks = tuple(shape.k for shape in cross.covariances)
    of_effect, kinds, repeats = _sets(cross, D)
    first, place, effects = _grouped(of_effect)
    of_element = of_effect[D.row]
    first_element, _, elements = _grouped(of_element)
    stop = 0
    for counts, repeated in zip(kinds, repeats, strict=True):
        start, stop, size = stop, stop + int(repeated), int(counts @ ks)
        _refuse_large(size)
        step = max(1, NUMBERS_OF_A_BATCH // (size * (size + width)))
        for low in range(start, stop, step):
            high = min(low + step, stop)
            chosen = elements[first_element[low] : first_element[high]]
            sets, rows, columns = of_element[chosen] - low, D.row[chosen], D.col[chosen]
            dense = np.zeros((high - low, size, size))
            dense[sets, place[rows], place[columns]] = D.data[chosen]
            F_of_sets = F[effects[first[low] : first[high]], :-1].reshape(high - low, size, -1)
            yield _Batch(tuple(counts.tolist()), ks, dense, F_of_sets)


def _sets(cross: CrossProducts, D: sparse.coo_array) -> tuple[Codes, Integers, Integers]:
    """Return the set of every random effect, sets that are alike one after the other.

    Returns
    -------
    of_effect : ndarray of int, shape (q,)
    kinds : ndarray of int, shape (kinds, terms)
        The number of levels of each term in a set of each kind.
    repeats : ndarray of int, shape (kinds,)
        How many sets there are of each.
    """
    term_of = np.repeat(np.arange(len(cross.covariances)), cross.n_levels)  # of every level
    level_of = np.repeat(np.arange(len(term_of)), [cross.covariances[t].k for t in term_of])
    joined = (np.ones(D.nnz), (level_of[D.row], level_of[D.col]))
    links = sparse.coo_array(joined, shape=(len(term_of), len(term_of)))
    n_sets, label = sparse.csgraph.connected_components(links, directed=False)
    counts = np.zeros((n_sets, len(cross.covariances)), dtype=np.int64)
    np.add.at(counts, (label, term_of), 1)
    kinds, kind, repeats = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    order = np.empty(n_sets, dtype=np.int64)
    order[np.argsort(kind, kind="stable")] = np.arange(n_sets)
    return order[label][level_of], kinds, repeats


def _grouped(labels: Codes) -> tuple[Codes, Codes, Codes]:
    """Return where each label starts in sorted order, each element's place there, and the order."""
    order = np.argsort(labels, kind="stable")
    first = np.concatenate([[0], np.cumsum(np.bincount(labels))])
    place = np.empty_like(order)
    place[order] = np.arange(len(order)) - first[labels[order]]
    return first, place, order


def _refuse_large(size: int) -> None:
    if size > MAX_CONNECTED_EFFECTS:
        raise FitError(
            "Kenward-Roger degrees of freedom need a dense matrix of the random effects that the "
            f"data connect, here {size}, where {MAX_CONNECTED_EFFECTS} are feasible. With so many "
            'levels df="satterthwaite" says nearly the same.'
        )
