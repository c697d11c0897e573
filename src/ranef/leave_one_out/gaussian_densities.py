"""Predictive densities of rows that are left out of a linear model, at many points at once.

Of what was said in `marginal`, leaving the rows A out changes three numbers. The random effects
fall into *components*, which share no rows: with one grouping factor its levels, with nested ones
those of the outermost, with crossed ones as a rule all of them. With [Z X y] the rows of one
component, in the basis and times the square root of the weights, and Y = Lambda (Lambda'Z'Z Lambda
+ I)^-1 Lambda', what the rows A of that component have to do with the others goes through the few
columns that they touch:

    B = I - Z_A Y Z_A',   a = [X y]_A - Z_A Y Z'[X y],

    log|M| falls by -log|B|, the cross-products of [X y] in the metric of V^-1 by a' B^-1 a,

and what is left gives p(y without A) as all data give p(y). The rows A enter by their triangular
factor, so that a large group costs no more than a small one.

Arrays run over components or pieces of units first, and over points last.

Source: Bürkner, Gabry & Vehtari (2021), *Computational Statistics* 36, 1243-1261 (leave-one-out of
non-factorised models); Bates & DebRoy (2004), *Journal of Multivariate Analysis* 91.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array, Codes, Places
from ranef.design.design import RANK_TOLERANCE, Design, full_rank, independent_columns
from ranef.design.groups import Components, components_of
from ranef.errors import DataError, FitError
from ranef.leave_one_out.elpd import Units
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.matrices import (
    eliminated,
    from_left,
    from_right,
    gram,
    pointwise_cholesky,
    pointwise_forward,
    threads_for,
)
from ranef.posterior.linear_posterior import FixedPart, LinearPosterior

LARGEST = 1_000  # random effects that depend on each other: each point inverts such a matrix
CHUNK = 1_000_000  # elements of a temporary array
DEPENDENT = 1e-9  # share of a combination of columns that is left, so that it may be undetermined


@dataclass(frozen=True, eq=False)
class Pieces:
    """The rows that a unit has in one component, as their triangular factor.

    Attributes
    ----------
    unit, component : ndarray of int, shape (N,)
        Sorted by unit.
    columns : ndarray of int, shape (N, c)
        Which columns of the component are touched; filled up with any others.
    Z : ndarray, shape (N, a, c)
    fixed : ndarray, shape (N, a, f)
        The columns `_fixed_columns` of the same rows.
    rest : ndarray, shape (N, f, f) or (N, 0, f)
        What these columns have left that Z has not.
    """

    unit: Places
    component: Places
    columns: Places
    Z: Array
    fixed: Array
    rest: Array


@dataclass(frozen=True, eq=False)
class Shares:
    """What does not depend on sigma, at points.

    Attributes
    ----------
    total : ndarray, shape (r + 1, r + 1, points)
        Cross-products of the integrated fixed columns and y in the metric of V^-1.
    own : ndarray, shape (U, r + 1, r + 1, points)
        What of it the rows of a unit make up.
    log_det : ndarray, shape (U, points)
        log|B|.
    prior : ndarray, shape (r + 1, r + 1, points) or (r + 1, r + 1, 1)
        What the prior adds to `total`, over sigma^2.
    """

    total: Array
    own: Array
    log_det: Array
    prior: Array


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A linear model, ready to leave out units.

    Attributes
    ----------
    target : LinearPosterior
    units : Units
    n_rows : ndarray of int, shape (U,)
    log_weights : ndarray, shape (U,)
        Of each unit's rows, the sum.
    slots : tuple of (slice, ...)
        For each term, the columns of its levels in any component.
    D : ndarray, shape (components, K, K)
        Z'Z of every component.
    C : ndarray, shape (components, K, f)
        Z' times the fixed columns.
    whole : ndarray, shape (f, f)
        A triangular factor of the fixed columns' cross-products.
    prior : ndarray, shape (l, f)
        The prior of the fixed effects as rows of the same columns.
    pieces : Pieces
    """

    target: LinearPosterior
    units: Units
    n_rows: NDArray[np.int64]
    log_weights: Array
    slots: tuple[tuple[slice, ...], ...]
    D: Array
    C: Array
    whole: Array
    prior: Array
    pieces: Pieces

    @cached_property
    def size(self) -> int:
        """How many elements the arrays of one point have."""
        m, K, f = self.C.shape
        N, a, c = self.pieces.Z.shape
        return int(m * K * (3 * K + f) + N * (c * (c + f) + a * (c + a + f) + f * f))

    def log_p(self, values: Array) -> Array:
        """Return log p(y_A | y_-A, values) for draws of the parameters.

        Parameters
        ----------
        values : ndarray, shape (S, n_values)
            As `Space.values` returns them: sds as such, not over sigma.

        Returns
        -------
        ndarray, shape (S, U)
            Where it cannot be computed, nan.
        """
        g = self.target.space.n_given
        found = np.empty((len(values), len(self.n_rows)))
        for part in self.parts(len(values)):
            sigma = values[part, g]
            Lambdas = [L / sigma[:, None, None] for L in self.relative(values[part])]
            shares = self.shares(Lambdas, values[part, :g])
            found[part] = self.log_ratio(shares, np.arange(len(sigma)), sigma).T
        return found

    def only(self, places: Places) -> HeldOut:
        """Return the same for some of the units, numbered afresh."""
        p, place = self.pieces, np.full(len(self.n_rows), -1)
        place[places] = np.arange(len(places))
        own = place[p.unit]
        i = np.flatnonzero(own >= 0)[np.argsort(own[own >= 0], kind="stable")]
        pieces = Pieces(own[i], p.component[i], p.columns[i], p.Z[i], p.fixed[i], p.rest[i])
        n_rows, log_weights = self.n_rows[places], self.log_weights[places]
        return replace(self, n_rows=n_rows, log_weights=log_weights, pieces=pieces)

    def parts(self, points: int, copies: int = 1) -> Iterator[slice]:
        """Yield the points in parts, so that arrays stay small, also with copies of a point."""
        f = self.C.shape[2]
        step = max(1, CHUNK // max(self.size, copies * len(self.n_rows) * f * f))
        return (slice(start, start + step) for start in range(0, points, step))

    def relative(self, values: Array) -> list[Array]:
        """Return the relative factors in the basis for values with sds over sigma."""
        factors = self.target.space.factors(values)
        return [A @ F for A, F in zip(self.target.bases, factors, strict=True)]

    def shares(self, Lambdas: Sequence[Array], given: Array) -> Shares:
        """Return what leaving out each unit takes away, at points.

        Parameters
        ----------
        Lambdas : sequence of ndarray, shape (points, k, k)
            Relative factors of each term in the basis of the cross-products.
        given : ndarray, shape (points, n_given)
            Values of the fixed effects that are not integrated out.
        """
        with threads_for(self.D.shape[1]), np.errstate(all="ignore"):
            return self._shares(Lambdas, given)

    def _shares(self, Lambdas: Sequence[Array], given: Array) -> Shares:
        pieces, Z = self.pieces, self.pieces.Z
        Y = self._covariances(Lambdas, len(given))
        C = _contracted(self.C, given)
        W = gram(Y, C)
        whole = _contracted(self.whole, given)
        component, columns = pieces.component, pieces.columns
        rows = _contracted(pieces.fixed, given) - from_left(Z, W[component[:, None], columns])
        ZY = from_left(Z, Y[component[:, None, None], columns[:, :, None], columns[:, None]])
        B = np.eye(Z.shape[1])[:, :, None] - from_right(ZY, Z)
        root = pointwise_cholesky(B)
        rest, prior = _contracted(pieces.rest, given), _contracted(self.prior, given)
        half = pointwise_forward(root, rows)
        own = gram(half, half) + gram(rest, rest)
        log_det = 2 * np.log(np.einsum("naaq->anq", root)).sum(axis=0)
        starts = np.flatnonzero(np.diff(pieces.unit, prepend=-1))
        return Shares(
            gram(whole, whole) - gram(C, W).sum(axis=0),
            np.add.reduceat(own, starts, axis=0),
            np.add.reduceat(log_det, starts, axis=0),
            gram(prior, prior),
        )

    def _covariances(self, Lambdas: Sequence[Array], points: int) -> Array:
        """Return Y of every component, shape (components, K, K, points)."""
        K = self.D.shape[1]
        Lambda = np.zeros((1, K, K, points))
        for slots, own in zip(self.slots, Lambdas, strict=True):
            for slot in slots:
                Lambda[0, slot, slot] = np.moveaxis(own, 0, -1)
        M = gram(Lambda, from_left(self.D, Lambda)) + np.eye(K)[:, :, None]
        V = pointwise_forward(pointwise_cholesky(M), Lambda.swapaxes(1, 2))
        return gram(V, V)

    def log_ratio(self, shares: Shares, index: Places, sigma: Array) -> Array:
        """Return log p(y_A | y_-A) at some of the points with values of sigma.

        Parameters
        ----------
        shares : Shares
        index : ndarray of int, shape (P,)
            Which points.
        sigma : ndarray, shape (P,)

        Returns
        -------
        ndarray, shape (U, P)
        """
        prior = shares.prior[:, :, index] if shares.prior.shape[2] > 1 else shares.prior
        prior = prior * sigma**2
        with np.errstate(all="ignore"):
            total = shares.total[:, :, index] + prior
            log_all, rss_all = eliminated(total[None])
            log_left, rss_left = eliminated(total - shares.own[..., index])
            change = shares.log_det[:, index] + log_left - log_all + (rss_left - rss_all) / sigma**2
            own = self.n_rows[:, None] * (LOG_2PI + 2 * np.log(sigma)) - self.log_weights[:, None]
            found = (change - own) / 2
        return np.where(np.isfinite(found), found, np.nan)


# ------------------------------------------------------------------------------- preparation


def held_out(target: LinearPosterior, design: Design, units: Units) -> HeldOut:
    """Prepare a linear model for leaving out units.

    Parameters
    ----------
    target : LinearPosterior
        The posterior density of the model.
    design : Design
        All of its data, also with columns that are combinations of others.
    units : Units

    Raises
    ------
    FitError
        If one unit has all rows, or too many random effects depend on each other.
    DataError
        If a fixed effect with a flat prior is not determined without some unit.
    """
    codes = np.arange(design.n_obs) if units.codes is None else units.codes
    counts = np.bincount(codes, minlength=units.size)
    _check_left(units, counts, design.n_obs)
    Q = _fixed_columns(design, target)
    check_determined(target.fixed, design, units, Q[:, : target.fixed.J.shape[1]])
    parts = components_of(design)
    if parts.size > LARGEST:
        raise FitError(
            f"{parts.size:,} random effects depend on each other through the data, and "
            f"leave-one-out takes up to {LARGEST:,} that do: the work grows with their cube."
        )
    Z = _random_columns(target, design)
    D, C = _cross_products(parts, Z, Q)
    return HeldOut(
        target=target,
        units=units,
        n_rows=counts,
        log_weights=np.bincount(codes, np.log(design.weights), minlength=units.size),
        slots=parts.slots,
        D=D,
        C=C,
        whole=np.linalg.qr(Q, mode="r"),
        prior=_prior_rows(target.fixed),
        pieces=_single_rows(parts, Z, Q) if units.codes is None else _pieces(codes, parts, Z, Q),
    )


def _check_left(units: Units, counts: Codes, n: int) -> None:
    """Refuse units of no rows, or of all."""
    if (counts == 0).any():
        raise DataError(f"{units.name(int(np.argmin(counts)))} has no rows to be left out.")
    if (counts == n).any():
        whole = units.name(int(np.argmax(counts)))
        raise FitError(
            f"{whole} is all the data there are: without it nothing is left to predict it from."
        )


def _fixed_columns(design: Design, target: LinearPosterior) -> Array:
    """Return the integrated columns, the given ones and y, (n, r + n_given + 1), weighted.

    Their combination with (-given, 1) is what is left of y without the given effects, but for
    what the integrated columns can make up: `_prior_rows` takes that into account.
    """
    fixed, estimable = target.fixed, full_rank(design)
    root = np.sqrt(design.weights)
    Q, _ = np.linalg.qr(estimable.X * root[:, None])
    y = (design.y - design.offset) * root
    y = y - Q @ (Q.T @ y)
    y -= Q @ (Q.T @ y)
    given = fixed.given - fixed.J @ (fixed.J.T @ fixed.given)
    return np.column_stack([Q @ fixed.J, Q @ given, y - Q @ fixed.shift])


def _prior_rows(fixed: FixedPart) -> Array:
    """Return the prior as rows of `_fixed_columns`.

    Given effects are taken off the coefficients gamma, so that gamma and y stay small.
    """
    own = fixed.rows[:, :-1]
    return np.column_stack([own, -own @ (fixed.J.T @ fixed.given), fixed.rows[:, -1]])


def check_determined(fixed: FixedPart, design: Design, units: Units, Q: Array) -> None:
    """Refuse to leave out a unit without which the data say nothing of a flat fixed effect.

    Parameters
    ----------
    fixed : FixedPart
    design : Design
    units : Units
    Q : ndarray, shape (n, r)
        The integrated columns, orthonormal.

    Raises DataError, naming both.
    """
    own = fixed.order[0]
    if len(fixed.rows) >= Q.shape[1]:  # each prior that is not flat makes a row
        return
    X = np.vstack([Q, fixed.rows[:, :-1]]) @ np.linalg.inv(fixed.back)
    X /= np.linalg.norm(X, axis=0)
    for place in _suspects(units, Q):
        left = np.ones(len(X), dtype=bool)
        left[units.rows(place)] = False
        there = np.linalg.norm(X[left], axis=0) > RANK_TOLERANCE
        kept = independent_columns(X[left] * there)
        if len(kept) < len(own):
            lost = design.fixed[own[next(j for j in range(len(own)) if j not in kept)]]
            raise DataError(
                f"without {units.name(place)} of the data the fixed effect `{lost}` is not "
                "determined, and its flat prior does not help: give beta a proper prior, such as "
                "Normal, to leave out every unit."
            )


def _suspects(units: Units, Q: Array) -> Iterator[int]:
    """Yield the units whose rows alone may determine a combination of the columns."""
    for place in range(units.size):
        if np.linalg.norm(Q[units.rows(place)], 2) ** 2 > 1 - DEPENDENT:
            yield place


def _random_columns(target: LinearPosterior, design: Design) -> Array:
    """Return the columns of all terms in the basis, (n, sum of k), weighted."""
    root = np.sqrt(design.weights)[:, None]
    found = [
        np.linalg.solve(T.T, (term.columns * root).T).T
        for T, term in zip(target.cross.bases, design.terms, strict=True)
    ]
    return np.column_stack([*found, np.empty((design.n_obs, 0))])


def _cross_products(parts: Components, Z: Array, Q: Array) -> tuple[Array, Array]:
    m, K = parts.count, parts.size
    D, C = np.zeros((m, K, K)), np.zeros((m, K, Q.shape[1]))
    for z, a in zip(Z.T, parts.columns.T, strict=True):
        np.add.at(C, (parts.row, a), z[:, None] * Q)
        for other, b in zip(Z.T, parts.columns.T, strict=True):
            np.add.at(D, (parts.row, a, b), z * other)
    return D, C


def _single_rows(parts: Components, Z: Array, Q: Array) -> Pieces:
    rest = np.empty((len(Z), 0, Q.shape[1]))
    return Pieces(np.arange(len(Z)), parts.row, parts.columns, Z[:, None], Q[:, None], rest)


def _pieces(codes: Codes, parts: Components, Z: Array, Q: Array) -> Pieces:
    """Return the pieces of units with several rows, filled up with zeros to the same size."""
    order = np.lexsort((parts.row, codes))
    is_new = np.diff(codes[order], prepend=-1) | np.diff(parts.row[order], prepend=-1)
    first = np.flatnonzero(is_new)
    found = [_piece(parts.columns[i], Z[i], Q[i]) for i in np.split(order, first[1:])]
    touched, own, fixed, rest = zip(*found, strict=True)
    return Pieces(
        unit=codes[order[first]].astype(np.intp),
        component=parts.row[order[first]],
        columns=_filled(touched),
        Z=_filled(own),
        fixed=_filled(fixed),
        rest=_filled(rest),
    )


def _filled[D: np.generic](arrays: Sequence[NDArray[D]]) -> NDArray[D]:
    """Stack arrays, those that are shorter than others filled up with zeros."""
    shape = np.max([a.shape for a in arrays], axis=0)
    found = np.zeros((len(arrays), *shape), dtype=arrays[0].dtype)
    for place, a in zip(found, arrays, strict=True):
        place[tuple(slice(size) for size in a.shape)] = a
    return found


def _piece(columns: Places, Z: Array, Q: Array) -> tuple[Places, Array, Array, Array]:
    touched, places = np.unique(columns, return_inverse=True)
    c = len(touched)
    wide = np.zeros((len(Z), c + Q.shape[1]))
    np.put_along_axis(wide, places.reshape(columns.shape), Z, axis=1)
    wide[:, c:] = Q
    if len(wide) > c:
        wide = np.linalg.qr(wide, mode="r")
    return touched, wide[:c, :c], wide[:c, c:], wide[c:, c:]


def _contracted(columns: Array, given: Array) -> Array:
    """Take the given effects off y: from columns (..., f) to (..., r + 1, points or 1)."""
    g = given.shape[1]
    if not g:
        return columns[..., None]
    r = columns.shape[-1] - g - 1
    found = np.repeat(columns[..., np.r_[:r, -1], None], len(given), axis=-1)
    found[..., -1, :] -= columns[..., r:-1] @ given.T
    return found
