"""Predictive densities of rows that are left out of a linear model, at many points at once.

Leaving the rows A out changes three numbers of the density in `posterior.linear_posterior`. The
random effects fall into *components*, which share no rows: with one grouping factor its levels,
with nested factors the levels of the outermost, with crossed factors as a rule all levels. With
[Z X y] the rows of one component, in the basis and times the square root of the weights, and
Y = Lambda (Lambda'Z'Z Lambda + I)^-1 Lambda', the rows A of that component depend on its other rows
through the few columns that they touch:

    B = I - Z_A Y Z_A',   a = [X y]_A - Z_A Y Z'[X y],

    log|M| falls by -log|B|, the cross-products of [X y] in the metric of V^-1 by a' B^-1 a,

and the remainder gives p(y without A) as all data give p(y). The rows A enter by their triangular
factor, so that a large group costs no more than a small one. A single row takes h h' off the
cross-products T = [S s; s' t], with h = a / sqrt(B) = (h_x, h_y): log|S| falls by
-log(1 - h_x' S^-1 h_x), and the remainder by (h_y - h_x' S^-1 s)^2 / (1 - h_x' S^-1 h_x).

Arrays run over components or pieces of units first, and over points last.

Equation `held-out` in docs/mathematics.
Source: Bürkner, Gabry & Vehtari (2021), *Computational Statistics* 36, 1243-1261 (leave-one-out of
non-factorised models); Bates & DebRoy (2004), *Journal of Multivariate Analysis* 91.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array, Codes, Integers, Places
from ranef.design.design import Design, full_rank
from ranef.design.groups import Components, components_of
from ranef.design.model_matrix import RANK_TOLERANCE, independent_columns
from ranef.errors import DataError, FitError
from ranef.leave_one_out.effects_given_data import GivenData, RandomEffects
from ranef.leave_one_out.elpd import Units
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.matrices import (
    chunks,
    eliminated,
    from_left,
    from_right,
    gram,
    pointwise_cholesky,
    pointwise_forward,
    stack_cholesky_or_nan,
    stack_inverse,
    threads_for,
)
from ranef.posterior.linear_posterior import FixedPart, LinearPosterior
from ranef.progress import tracked

MAX_DEPENDENT_EFFECTS = 1_000  # random effects that depend on each other: the size of a matrix
MAX_ELEMENTS = 1_000_000  # of a temporary array
SIZES = np.array([2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512])  # of alike pieces


@dataclass(frozen=True, eq=False)
class Pieces:
    """The rows that units have in one component each, as triangular factors of about one size.

    Attributes
    ----------
    unit, component : ndarray of int, shape (N,)
        Sorted by unit.
    columns : ndarray of int, shape (N, c)
        The columns of the component that the rows touch; filled up with any others.
    Z : ndarray, shape (N, a, c)
    fixed : ndarray, shape (N, a, f)
        The columns `_fixed_columns` of the same rows.
    residual : ndarray, shape (N, f, f) or (N, 0, f)
        The triangular factor of these columns orthogonal to Z.
    """

    unit: Places
    component: Places
    columns: Places
    Z: Array
    fixed: Array
    residual: Array

    def renumbered(self, numbers: Places) -> Pieces:
        """Return the pieces of units with new numbers, but those of numbers below zero."""
        unit = numbers[self.unit]
        i = np.flatnonzero(unit >= 0)[np.argsort(unit[unit >= 0], kind="stable")]
        return Pieces(
            *(unit[i], self.component[i], self.columns[i]),
            *(self.Z[i], self.fixed[i], self.residual[i]),
        )

    @cached_property
    def distinct(self) -> tuple[Places, Places]:
        """The pieces that touch different effects, and which of these each piece is like."""
        touched = np.column_stack([self.component, self.columns])
        _, first, inverse = np.unique(touched, axis=0, return_index=True, return_inverse=True)
        return first, inverse.ravel()


@dataclass(frozen=True, eq=False)
class Shares:
    """Cross-products of all rows and the shares of each unit in them, at points without sigma.

    Attributes
    ----------
    total : ndarray, shape (r + 1, r + 1, points)
        Cross-products of the integrated fixed columns and y in the metric of V^-1.
    of_units : ndarray, shape (U, r + 1, r + 1, points) or (points, U, r + 1)
        The share of each unit's rows in `total`; of single rows the column whose square it is.
    log_det : ndarray, shape (U, points)
        log|B|.
    prior : ndarray, shape (r + 1, r + 1, points) or (r + 1, r + 1, 1)
        The prior's addition to `total`, over sigma^2.
    """

    total: Array
    of_units: Array
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
        The sum over each unit's rows.
    effects : RandomEffects
        Of every component.
    C : ndarray, shape (components, K, f)
        Z' times the fixed columns.
    root : ndarray, shape (f, f)
        A triangular factor of the fixed columns' cross-products.
    prior : ndarray, shape (l, f)
        The prior of the fixed effects as rows of the same columns.
    pieces : tuple of Pieces
        By their size.
    """

    target: LinearPosterior
    units: Units
    n_rows: Integers
    log_weights: Array
    effects: RandomEffects
    C: Array
    root: Array
    prior: Array
    pieces: tuple[Pieces, ...]

    @cached_property
    def order(self) -> tuple[Places, Places]:
        """The order of all pieces by unit, and the first of each unit there."""
        units = np.concatenate([pieces.unit for pieces in self.pieces])
        order = np.argsort(units, kind="stable")
        return order, np.flatnonzero(np.diff(units[order], prepend=-1))

    @property
    def are_rows(self) -> bool:
        """Whether the units are single rows."""
        return self.units.codes is None

    @cached_property
    def size(self) -> int:
        """The number of elements that the arrays of one point have."""
        (m, K, f), of_pieces = self.C.shape, 0
        for N, a, c in (pieces.Z.shape for pieces in self.pieces):
            of_piece = c * (c + f) + a * (c + a + f) + f * f
            of_pieces += N * (c * c + 3 * f if self.are_rows else of_piece)
        return int(self.effects.size + m * K * f + of_pieces)

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
        log_p = np.empty((len(values), len(self.n_rows)))
        for chunk in self.chunks(len(values)):
            sigma = values[chunk, g]
            shares = self.shares(self.target.relative_factors(values[chunk]), values[chunk, :g])
            log_p[chunk] = self.log_ratio(shares, np.arange(len(sigma)), sigma).T
        return log_p

    def only(self, chosen: Places) -> HeldOut:
        """Return the model, ready to leave out some of the units, which are numbered afresh."""
        new_number = np.full(len(self.n_rows), -1)
        new_number[chosen] = np.arange(len(chosen))
        pieces = tuple(pieces.renumbered(new_number) for pieces in self.pieces)
        n_rows, log_weights = self.n_rows[chosen], self.log_weights[chosen]
        return replace(self, n_rows=n_rows, log_weights=log_weights, pieces=pieces)

    def chunks(self, points: int, copies: int = 1) -> Iterator[slice]:
        """Yield the points in chunks, so that arrays stay small, also with copies of a point."""
        f = self.C.shape[2]
        of_copy = len(self.n_rows) * (2 * f if self.are_rows else f * f)
        step = max(1, MAX_ELEMENTS // max(self.size, copies * of_copy))
        return tracked("Leaving out, parts", list(chunks(points, step)))

    def shares(self, Lambdas: Sequence[Array], given: Array) -> Shares:
        """Return the share of each unit in the cross-products of all rows, at points.

        Parameters
        ----------
        Lambdas : sequence of ndarray, shape (points, k, k)
            Relative factors of each term in the basis of the cross-products.
        given : ndarray, shape (points, n_given)
            Values of the fixed effects that are not integrated out.
        """
        root, prior = (_contracted(x[..., None], given) for x in (self.root, self.prior))
        with threads_for(self.C.shape[1]), np.errstate(all="ignore"):
            Y = self.effects.given_data(Lambdas, len(given))
            W = Y.times(self.C)
            explained = from_left(self.C.swapaxes(1, 2), W).sum(axis=0)
            found = [
                self._of_pieces(pieces, Y, W, given) for pieces in self.pieces if len(pieces.unit)
            ]
            of_units, log_det = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
            if self.are_rows:
                of_units = np.ascontiguousarray(np.moveaxis(of_units, -1, 0))
            else:
                of_units, log_det = (_of_units(x, *self.order) for x in (of_units, log_det))
            return Shares(
                gram(root, root) - _contracted(_contracted(explained, given).swapaxes(0, 1), given),
                of_units,
                log_det,
                gram(prior, prior),
            )

    def _of_pieces(
        self, pieces: Pieces, Y: GivenData, W: Array, given: Array
    ) -> tuple[Array, Array]:
        """Return the share of each piece, of single rows the column whose square it is; log|B|."""
        Z, component, columns = pieces.Z, pieces.component, pieces.columns
        first, inverse = pieces.distinct
        ZY = from_left(Z, Y.among(component[first], columns[first])[inverse])
        L = pointwise_cholesky(np.eye(Z.shape[1])[:, :, None] - from_right(ZY, Z))
        a = pieces.fixed[..., None] - _of_rows(Z, W, component, columns)
        half = pointwise_forward(L, _contracted(a, given))
        log_det = 2 * np.log(np.einsum("naaq->anq", L)).sum(axis=0)
        if self.are_rows:
            return half[:, 0], log_det
        residual = _contracted(pieces.residual[..., None], given)
        return gram(half, half) + gram(residual, residual), log_det

    def log_ratio(self, shares: Shares, index: Places, sigma: Array) -> Array:
        """Return log p(y_A | y_-A) at some of the points with values of sigma.

        Parameters
        ----------
        shares : Shares
        index : ndarray of int, shape (P,)
            The points.
        sigma : ndarray, shape (P,)

        Returns
        -------
        ndarray, shape (U, P)
        """
        # One for all points where it is the same, as indexing a broadcast array scatters the points
        prior = shares.prior[:, :, index] if shares.prior.shape[2] > 1 else shares.prior
        constant = self.n_rows[:, None] * LOG_2PI - self.log_weights[:, None]
        with np.errstate(all="ignore"):
            total = shares.total[:, :, index] + prior * sigma**2
            if self.are_rows:
                log_ratio = _without_rows(total, shares.of_units, index, sigma)
            else:
                log_det, rss = eliminated(total[None])
                log_ratio, rss_without = eliminated(total - shares.of_units[..., index])
                log_ratio -= log_det
                log_ratio += (rss_without - rss) / sigma**2
            log_ratio += shares.log_det[:, index]
            log_ratio -= constant + 2 * self.n_rows[:, None] * np.log(sigma)
            log_ratio /= 2
        log_ratio[~np.isfinite(log_ratio)] = np.nan
        return log_ratio


def _without_rows(total: Array, rows: Array, index: Places, sigma: Array) -> Array:
    """Return how log|S| and the remainder over sigma^2 change, in all, without single rows.

    Parameters
    ----------
    total : ndarray, shape (r + 1, r + 1, P)
        [S s; s' t].
    rows : ndarray, shape (points, U, r + 1)
        h of each row.
    index : ndarray of int, shape (P,)
        The point of each, in increasing order.
    sigma : ndarray, shape (P,)

    Returns
    -------
    ndarray, shape (U, P)
    """
    r, changes = len(total) - 1, np.empty((rows.shape[1], len(index)))
    matrices = np.moveaxis(total, -1, 0)
    root = stack_inverse(stack_cholesky_or_nan(matrices[:, :r, :r]))
    maps = np.zeros_like(matrices)  # from h to L^-1 h_x and to h_y - h_x' S^-1 s
    maps[:, :r, :r] = root.swapaxes(1, 2)
    maps[:, :r, r] = -(root.swapaxes(1, 2) @ (root @ matrices[:, :r, r:]))[..., 0]
    maps[:, r, r] = 1.0
    stops = np.flatnonzero(np.diff(index, append=-1)) + 1
    for start, stop in pairwise((0, *stops.tolist())):
        map_ = maps[start:stop].transpose(1, 2, 0).reshape(r + 1, -1)
        squares = ((rows[index[start]] @ map_) ** 2).reshape(-1, r + 1, stop - start)
        left = 1 - sum(squares[:, j] for j in range(r))
        changes[:, start:stop] = np.log(left) - squares[:, r] / (left * sigma[start:stop] ** 2)
    return changes


def _of_rows(Z: Array, W: Array, component: Places, columns: Places) -> Array:
    """Return Z W for the rows of pieces, W being (components, K, f, points)."""
    if Z.shape[1] != 1:
        return from_left(Z, W[component[:, None], columns])
    product = np.zeros((len(Z), *W.shape[2:]))
    for z, column in zip(Z[:, 0].T, columns.T, strict=True):
        product += z[:, None, None] * W[component, column]
    return product[:, None]


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
    counts = design.sufficient.counts(codes, units.size)
    _check_left(units, counts, design.n_obs)
    Q = _fixed_columns(design, target)
    check_determined(target.fixed, design, units, Q[:, : target.fixed.J.shape[1]])
    components = components_of(design)
    if components.size > MAX_DEPENDENT_EFFECTS:
        raise FitError(
            f"{components.size:,} random effects depend on each other through the data, and leave-"
            f"one-out takes up to {MAX_DEPENDENT_EFFECTS:,} that do: the work grows with their "
            "cube."
        )
    Z = _random_columns(target, design)
    D, C = _cross_products(components, Z, Q)
    by_row = units.codes is None
    return HeldOut(
        target=target,
        units=units,
        n_rows=counts,
        log_weights=np.bincount(codes, design.sufficient.log_weights, minlength=units.size),
        effects=RandomEffects.of(components, design.sufficient.terms, D),
        C=C,
        root=np.linalg.qr(Q, mode="r"),
        prior=_prior_rows(target.fixed),
        pieces=(_single_rows(components, Z, Q),) if by_row else _pieces(codes, components, Z, Q),
    )


def _check_left(units: Units, counts: Codes, n: int) -> None:
    """Refuse units of no rows, or of all."""
    if (counts == 0).any():
        raise DataError(f"{units.name(int(np.argmin(counts)))} has no rows to be left out.")
    if (counts == n).any():
        name = units.name(int(np.argmax(counts)))
        raise FitError(
            f"{name} is all the data there are: without it nothing is left to predict it from."
        )


def _fixed_columns(design: Design, target: LinearPosterior) -> Array:
    """Return the integrated columns, the given ones and y, (n, r + n_given + 1), weighted.

    The last columns times (-given, 1) are y less the given effects, up to a combination of the
    integrated columns: `_prior_rows` takes that into account.
    """
    fixed, estimable = target.fixed, full_rank(design)
    root = np.sqrt(design.sufficient.weights)
    Q, _ = np.linalg.qr(estimable.sufficient.X * root[:, None])
    y = (design.sufficient.y - design.sufficient.offset) * root
    y = y - Q @ (Q.T @ y)
    y -= Q @ (Q.T @ y)
    given = fixed.given - fixed.J @ (fixed.J.T @ fixed.given)
    return np.column_stack([Q @ fixed.J, Q @ given, y - Q @ fixed.shift])


def _prior_rows(fixed: FixedPart) -> Array:
    """Return the prior as rows of `_fixed_columns`.

    Given effects are taken off the coefficients gamma, so that gamma and y stay small.
    """
    gamma = fixed.rows[:, :-1]
    return np.column_stack([gamma, -gamma @ (fixed.J.T @ fixed.given), fixed.rows[:, -1]])


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
    if len(fixed.rows) >= Q.shape[1]:  # each prior that is not flat makes a row
        return
    X = np.vstack([Q, fixed.rows[:, :-1]]) @ np.linalg.inv(fixed.back)
    X /= np.linalg.norm(X, axis=0)
    for unit in units.determining(Q):
        others = np.delete(X, units.rows(unit), axis=0)
        varies = np.linalg.norm(others, axis=0) > RANK_TOLERANCE
        dependent = np.setdiff1d(np.arange(X.shape[1]), independent_columns(others * varies))
        if len(dependent):
            raise DataError(
                f"without {units.name(unit)} of the data the fixed effect "
                f"`{design.fixed[fixed.order[0][dependent[0]]]}` is not determined, and its flat "
                "prior does not help: give beta a proper prior, such as Normal, to leave out every "
                "unit."
            )


def _random_columns(target: LinearPosterior, design: Design) -> Array:
    """Return the columns of all terms in the basis, (n, sum of k), weighted."""
    root = np.sqrt(design.sufficient.weights)[:, None]
    columns = [
        np.linalg.solve(T.T, (term.columns * root).T).T
        for T, term in zip(target.cross.bases, design.sufficient.terms, strict=True)
    ]
    return np.column_stack([*columns, np.empty((len(root), 0))])


def _cross_products(components: Components, Z: Array, Q: Array) -> tuple[Array, Array]:
    """Return Z'Z and Z'Q of every component."""
    m, K = components.count, components.size
    row, columns = components.row[:, None], components.columns
    D, C = np.zeros((m, K, K)), np.zeros((m, K, Q.shape[1]))
    np.add.at(D, (row[:, None], columns[:, :, None], columns[:, None]), Z[:, :, None] * Z[:, None])
    np.add.at(C, (row, columns), Z[:, :, None] * Q[:, None])
    return D, C


def _single_rows(components: Components, Z: Array, Q: Array) -> Pieces:
    """Return the pieces of units that are single rows."""
    unit, residual = np.arange(len(Z)), np.empty((len(Z), 0, Q.shape[1]))
    return Pieces(unit, components.row, components.columns, Z[:, None], Q[:, None], residual)


def _pieces(codes: Codes, components: Components, Z: Array, Q: Array) -> tuple[Pieces, ...]:
    """Return the pieces of units with several rows, those of about one size together.

    They are filled up with zeros to the same size.
    """
    order = np.lexsort((components.row, codes))
    is_new = np.diff(codes[order], prepend=-1) | np.diff(components.row[order], prepend=-1)
    first = np.flatnonzero(is_new)
    pieces = [_piece(components.columns[i], Z[i], Q[i]) for i in np.split(order, first[1:])]
    unit, component = codes[order[first]].astype(np.intp), components.row[order[first]]
    sizes = np.array([len(touched) for touched, *_ in pieces])
    kinds = np.searchsorted(SIZES, sizes)
    alike = [np.flatnonzero(kinds == kind) for kind in np.unique(kinds)]
    return tuple(
        Pieces(
            *(unit[i], component[i]),
            *(_filled(arrays) for arrays in zip(*(pieces[j] for j in i), strict=True)),
        )
        for i in alike
    )


def _filled[D: np.generic](arrays: Sequence[NDArray[D]]) -> NDArray[D]:
    """Stack arrays, those that are shorter than others filled up with zeros."""
    shape = np.max([a.shape for a in arrays], axis=0)
    stacked = np.zeros((len(arrays), *shape), dtype=arrays[0].dtype)
    for target, a in zip(stacked, arrays, strict=True):
        target[tuple(slice(size) for size in a.shape)] = a
    return stacked


def _piece(columns: Places, Z: Array, Q: Array) -> tuple[Places, Array, Array, Array]:
    """Return `columns`, `Z`, `fixed` and `residual` of a unit's rows in one component."""
    touched, places = np.unique(columns, return_inverse=True)
    c = len(touched)
    wide = np.zeros((len(Z), c + Q.shape[1]))
    np.put_along_axis(wide, places.reshape(columns.shape), Z, axis=1)
    wide[:, c:] = Q
    if len(wide) > c:
        wide = np.linalg.qr(wide, mode="r")
    return touched, wide[:c, :c], wide[:c, c:], wide[c:, c:]


def _of_units(x: Array, order: Places, starts: Places) -> Array:
    """Sum over the pieces of each unit; most units have one."""
    return x[order] if len(starts) == len(x) else np.add.reduceat(x[order], starts, axis=0)


def _contracted(columns: Array, given: Array) -> Array:
    """Take the given effects off y: from (..., f, points or 1) to (..., r + 1, points or 1)."""
    g = given.shape[1]
    if not g:
        return columns
    r, shape = columns.shape[-2] - g - 1, (*columns.shape[:-2], columns.shape[-2], len(given))
    columns = np.broadcast_to(columns, shape)
    contracted = columns[..., np.r_[:r, -1], :]
    contracted[..., -1, :] -= (columns[..., r:-1, :] * given.T).sum(axis=-2)
    return contracted
