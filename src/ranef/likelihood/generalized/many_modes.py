"""Conditional modes at many points: Newton's method for all points and pieces of data at once.

Of small components the random effects are found elementwise, each component with a step length of
its own. A large one is taken as a whole, its most numerous effects eliminated first, and so are
parts of its rows, all together. Then the Laplace approximation or adaptive Gauss-Hermite
quadrature, as in `gauss_hermite`.

Source: Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 3.4;
Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from ranef._typing import Array, Flags
from ranef.families.derivatives import Expansion, Further
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.pieces import Piece, Points
from ranef.likelihood.generalized.pirls import (
    ARMIJO,
    MAX_DECREMENT,
    MAX_HALVINGS,
    MAX_HIDDEN_GAIN,
    MAX_STEPS,
    ROUNDING_OF_DENSITY,
)
from ranef.numerics.matrices import ArrowCholesky, stack_cholesky_or_nan, stack_inverse
from ranef.progress import running

ROUGHLY = 1e-5  # a Newton decrement, from where a last step leaves the square of that


def search_of(piece: Piece, points: Points) -> Elementwise | Parts:
    """Return the search for the modes of all components of a piece."""
    if piece.is_elementwise:
        return Elementwise(piece, points)
    return Parts(piece, points, np.ones((1, len(piece.rows)), dtype=np.bool_))


def modes_of(
    piece: Piece, points_at: Callable[[slice], Points], count: int, start: Array
) -> Iterator[tuple[slice, Elementwise | Parts, ManyModes]]:
    """Yield the modes of some of the points at a time, the search, and which points they are.

    Parameters
    ----------
    piece : Piece
    points_at : callable
        From a slice to these points.
    count : int
        The number of all points.
    start : ndarray, shape (1, P, q)
        Where every search starts.
    """
    with running("Finding conditional modes", count) as advance:
        for chosen in piece.chunks(count):
            search = search_of(piece, points_at(chosen))
            yield chosen, search, search.run(start)
            advance(len(range(count)[chosen]))


def log_densities(
    piece: Piece,
    points_at: Callable[[slice], Points],
    count: int,
    start: Array,
    nodes: Rule | None = None,
) -> Array:
    """Return log p(y_R | phi) of each component, shape (S, P); minus infinity if there is none.

    Parameters
    ----------
    piece : Piece
    points_at : callable
        From a slice to these points.
    count : int
        The number of all points.
    start : ndarray, shape (1, P, q)
        Where every search starts.
    nodes : Rule, optional
        Of a quadrature, for small components; without one the Laplace approximation is taken.
    """
    log_p = np.empty((count, piece.P))
    for chosen, search, modes in modes_of(piece, points_at, count, start):
        log_p[chosen] = search.log_densities(modes, nodes)
    return log_p


# ----------------------------------------------------------------------------------- the search


@dataclass(frozen=True, eq=False)
class ManyModes:
    """Conditional modes at S points, of U components or parts.

    Attributes
    ----------
    u : ndarray, shape (S, U, q)
    eta : ndarray, shape (S, N), or (S, U, N) for parts
    expansion : Expansion
        Of all rows there.
    h : ndarray, shape (S, U)
        log f(y | u) - |u|^2 / 2: minus infinity where there are no modes.
    roots : ArrowCholesky
        Of the negative Hessians.
    """

    u: Array
    eta: Array
    expansion: Expansion
    h: Array
    roots: ArrowCholesky

    @cached_property
    def laplace(self) -> Array:
        """Laplace's approximation of log p(y | phi), shape (S, U)."""
        log_p = self.h - self.roots.half_log_det
        return np.where(np.isfinite(log_p), log_p, -np.inf)

    def tilts(self, search: Elementwise | Parts, z: Array) -> Array:
        """Return log ratios of the integrand to the normal approximation, shape (S, U).

        The mean of their exponentials is p(y | phi) over Laplace's approximation of it. Each is of
        two opposite draws, of which what is odd in z is gone.

        Parameters
        ----------
        search : Elementwise or Parts
            The one that found these modes.
        z : ndarray, shape (S, U, q)
            Standard normal numbers.
        """
        ends = [search.at(self.drawn(side))[3] for side in (z, -z)]
        ratios = np.logaddexp(*ends) - np.log(2) - self.h + 0.5 * (z**2).sum(axis=-1)
        return np.where(np.isfinite(ratios), ratios, np.nan)

    def drawn(self, z: Array) -> Array:
        """Return draws of u from the normal approximations, for standard normal z, (S, U, q)."""
        return np.asarray(self.u + self.roots.back(z[..., None])[..., 0])


type Place = tuple[Array, Array, Expansion, Array]  # u, eta, the expansion and h there


class _Search(ABC):
    """Newton's method for all points, and all components or parts, together.

    Arrays of rows have the shape (S, N), or (S, U, N) for parts.
    """

    piece: Piece
    points: Points
    y: Array
    known: Array
    psi: Array

    @abstractmethod
    def total(self, rows: Array) -> Array:
        """Return sums over the rows, shape (S, U)."""

    @abstractmethod
    def sums(self, rows: Array) -> Array:
        """Return Z' times vectors, shape (S, U, q)."""

    @abstractmethod
    def turned(self, sums: Array) -> Array:
        """Return Lambda' times vectors, shape (S, U, q)."""

    @abstractmethod
    def fitted(self, u: Array) -> Array:
        """Return Z Lambda u of all rows."""

    @abstractmethod
    def roots(self, weights: Array) -> ArrowCholesky:
        """Return Cholesky factors of the negative Hessians."""

    @abstractmethod
    def through_roots(self, modes: ManyModes) -> tuple[Array, list[Array]]:
        """Return how half the log determinant of the Hessian at the modes changes.

        By half the weights, of all rows: z'Gz, G being Lambda H^-1 Lambda'; and by the factor of
        each term in the piece's order, the weights as they are, shape (S, k, k).
        """

    def log_densities(self, modes: ManyModes, nodes: Rule | None) -> Array:  # noqa: ARG002
        """Return log p(y_R | phi) of every component or part, shape (S, U)."""
        return modes.laplace

    def rows(self, eta: Array) -> Expansion:
        """Return the expansion of all rows."""
        family, weights = self.piece.family, self.piece.weights
        return family.expansion(self.y, eta, weights, self.psi, self.constant)

    def log_densities_at(self, eta: Array) -> Array:
        """Return the log densities of all rows."""
        family, weights = self.piece.family, self.piece.weights
        return family.log_density_at(self.y, eta, weights, self.psi, self.constant)

    @cached_property
    def constant(self) -> Array:
        """The part of the rows' log density that is of the responses alone."""
        if self.points.y is None:
            return self.piece.constant
        if self.points.of_responses is None:
            return self.piece.family.constant(self.y, self.piece.weights)
        return self.points.of_responses.reshape(self.y.shape)

    def further(self, eta: Array) -> Further:
        """Return the higher derivatives of all rows."""
        return self.piece.family.further_expansion(self.y, eta, self.piece.weights, self.psi)

    def at(self, u: Array) -> Place:
        """Return where effects lead."""
        eta = self.known + self.fitted(u)
        expansion = self.rows(eta)
        h = self.total(expansion.value) - 0.5 * (u**2).sum(-1)
        return u, eta, expansion, np.where(np.isfinite(h), h, -np.inf)

    def run(self, start: Array, near: float = MAX_DECREMENT) -> ManyModes:
        """Return the modes, from a start, or zero where that is nowhere.

        Parameters
        ----------
        start : ndarray, shape (S or 1, U, q)
        near : float
            The Newton decrement below which one more step is the last.
        """
        start = np.broadcast_to(start, (len(self.points.known), *start.shape[1:]))
        place = self.at(start)
        if not np.isfinite(place[3]).all():
            place = self.at(np.where(np.isfinite(place[3])[..., None], start, 0.0))
        good = np.isfinite(place[3])
        going = good & bool(self.piece.q)
        for _ in range(MAX_STEPS):
            if not going.any():
                break
            step, gain, observed = self.newton(place)
            good &= np.isfinite(gain) | ~going
            going &= np.isfinite(gain)
            is_last = observed & (gain < near)
            step = np.where(going[..., None], step, 0.0)
            place, moved = self.walked(place, step, np.where(is_last, 0.0, gain))
            good &= moved | (gain < MAX_HIDDEN_GAIN) | ~going
            going &= moved & ~is_last
        u, eta, expansion, h = place
        h = np.where(good & ~going, h, -np.inf)
        return ManyModes(u, eta, expansion, h, self.roots(expansion.weight))

    def newton(self, place: Place) -> tuple[Array, Array, Flags]:
        """Return full steps, their Newton decrements, and whether the weights were observed."""
        u, eta, expansion, _ = place
        roots = self.roots(expansion.weight)
        observed = roots.exist
        if not observed.all():
            expected = self.piece.family.information(eta, self.piece.weights, self.psi)
            roots = roots.where(observed, self.roots(expected))
        slopes = self.turned(self.sums(expansion.score)) - u
        step = roots.back(roots.forward(slopes[..., None]))[..., 0]
        return step, (step * slopes).sum(-1), observed

    def walked(self, place: Place, step: Array, gain: Array) -> tuple[Place, Flags]:
        """Return where steps that are short enough lead, and for which there were such."""
        u, _, _, h = place
        share = np.ones(h.shape)
        rounding = np.maximum(MAX_DECREMENT, ROUNDING_OF_DENSITY * np.abs(h))
        for _ in range(MAX_HALVINGS):
            new = self.at(u + share[..., None] * step)
            bad = ~(new[3] >= h + ARMIJO * share * gain - rounding) & (step != 0).any(-1)
            if not bad.any():
                return new, ~bad
            share[bad] /= 2
        share[bad] = 0.0
        return self.at(u + share[..., None] * step), ~bad


class Elementwise(_Search):
    """The search for all effects of small components, each with a step length of its own."""

    def __init__(self, piece: Piece, points: Points) -> None:
        self.piece, self.points, self.psi = piece, points, points.psi.T[:, :, None]
        self.known, self.y = points.known, piece.y if points.y is None else points.y
        self.Lambda = _block_diagonal(piece, points)  # (S, q, q)
        self.turned_Lambda = self.Lambda.swapaxes(1, 2)

    def total(self, rows: Array) -> Array:
        return np.asarray(np.add.reduceat(rows, self.piece.starts, axis=1))

    def fitted(self, u: Array) -> Array:
        return self._of_rows(u @ self.turned_Lambda)

    def sums(self, rows: Array) -> Array:
        columns = [self.total(rows * column) for column in self.piece.wide.T]
        return np.stack(columns, axis=-1) if columns else np.empty((*rows.shape[:-1], 1, 0))

    def turned(self, sums: Array) -> Array:
        return np.asarray(sums @ self.Lambda)

    def roots(self, weights: Array) -> ArrowCholesky:
        half = _times(self.products(weights), self.Lambda).swapaxes(2, 3)
        front = stack_cholesky_or_nan(_times(half, self.Lambda) + np.eye(self.piece.q))
        nothing = np.empty((*front.shape[:2], 0, 0))
        return ArrowCholesky(
            front[:, :, None], np.empty((*nothing.shape[:2], 1, self.piece.q, 0)), nothing
        )

    def products(self, weights: Array) -> Array:
        """Return Z'WZ of each component, shape (S, P, q, q)."""
        D = np.zeros((len(weights), self.piece.P, self.piece.q, self.piece.q))
        for a, b, product in self.piece.column_products:
            D[:, :, a, b] = D[:, :, b, a] = self.total(weights * product)
        return D

    def log_densities(self, modes: ManyModes, nodes: Rule | None) -> Array:
        if nodes is None or not self.piece.q:
            return modes.laplace
        total = np.zeros_like(modes.h)
        for share, _ in self.at_nodes(modes, nodes):
            total += share
        log_p = modes.h + np.log(total) - modes.roots.half_log_det
        return np.where(np.isfinite(log_p), log_p, -np.inf)

    def at_nodes(self, modes: ManyModes, nodes: Rule) -> Iterator[tuple[Array, Array]]:
        """Yield the share of each node, relative to the mode, and log f of the rows there."""
        C = np.linalg.inv(modes.roots.front[:, :, 0]).swapaxes(2, 3)
        steps = [
            self._of_rows(column)
            for column in np.moveaxis(_times(C.swapaxes(2, 3), self.turned_Lambda), 2, 0)
        ]
        for z, log_weight in zip(nodes.nodes, nodes.log_weights, strict=True):
            eta = modes.eta + sum(step * size for step, size in zip(steps, z, strict=True))
            rows = self.log_densities_at(eta)
            h = self.total(rows) - 0.5 * ((modes.u + C @ z) ** 2).sum(-1)
            yield np.exp(h - modes.h + log_weight + z @ z / 2), rows

    def through_roots(self, modes: ManyModes) -> tuple[Array, list[Array]]:
        piece, roots = self.piece, modes.roots.front[:, :, 0]
        half = stack_inverse(roots)
        scaled = _times(_product(half.swapaxes(2, 3), half), self.turned_Lambda)  # H^-1 Lambda'
        G = _times(scaled.swapaxes(2, 3), self.turned_Lambda).reshape(len(roots), -1)
        d = np.zeros_like(modes.eta)
        for a, b, product in piece.column_products:
            places = piece.codes * piece.q**2 + a * piece.q + b
            d += G.take(places, axis=1) * ((1 + (a != b)) * product)
        D = self.products(modes.expansion.weight)
        slopes = np.einsum("spab,spcb->sac", D, scaled, optimize=True)
        return d, piece.diagonal_sums(slopes)

    def _of_rows(self, effects: Array) -> Array:
        """Return Z b, shape (S, N), for effects b, shape (S, P, q)."""
        flat, total = effects.reshape(len(effects), -1), np.zeros(self.points.known.shape)
        for places, column in zip(self.piece.own_places, self.piece.columns.T, strict=True):
            total += flat.take(places, axis=1) * column
        return total


class Parts(_Search):
    """The search for all effects of parts of the rows of one large component."""

    def __init__(self, piece: Piece, points: Points, keep: Flags) -> None:
        self.piece, self.points, self.keep = piece, points, keep
        self.y = piece.y if points.y is None else points.y[:, None]
        self.known = points.known[:, None]
        self.psi, self.Lambdas = points.psi.T[:, :, None, None], piece.factors(points)

    def total(self, rows: Array) -> Array:
        return np.asarray(np.where(self.keep, rows, 0.0).sum(-1))

    def fitted(self, u: Array) -> Array:
        b = [effects.reshape(*u.shape[:2], -1) for effects in self.piece.effects(u, self.points)]
        every, eta = np.concatenate(b, axis=-1), np.zeros((*u.shape[:2], len(self.piece.rows)))
        for place, column in zip(self.piece.places.T, self.piece.columns.T, strict=True):
            eta += every.take(place, axis=-1) * column
        return eta

    def sums(self, rows: Array) -> Array:
        return _applied(self.piece.sums, np.where(self.keep, rows, 0.0))

    def turned(self, sums: Array) -> Array:
        return self._scaled(sums[..., None, :], range(len(self.Lambdas)))[..., 0, :]

    def roots(self, weights: Array) -> ArrowCholesky:
        A, B, D = self._products(weights)
        later, Lambda = range(1, len(self.Lambdas)), self.Lambdas[0][:, None, None]
        turned, across = Lambda.swapaxes(3, 4), self._scaled(B, later)
        rest = self._scaled(self._scaled(D, later).swapaxes(2, 3), later)
        return ArrowCholesky.of(
            _product(turned, _product(A, Lambda)) + np.eye(A.shape[-1]),
            _product(turned, across.reshape(*A.shape[:-1], -1)),
            rest + np.eye(D.shape[-1]),
        )

    def _products(self, weights: Array) -> tuple[Array, Array, Array]:
        """Return the blocks of Z'WZ, shapes (S, U, m, k, k), (S, U, m k, r) and (S, U, r, r)."""
        rows = np.where(self.keep, weights, 0.0)
        lead, k, r = rows.shape[:2], self.piece.sizes[0], self.piece.q - self.piece.slots[0].stop
        A, B, D = (_applied(product, rows) for product in self.piece.products)
        return A.reshape(*lead, -1, k, k), B.reshape(*lead, -1, r), D.reshape(*lead, r, r)

    def through_roots(self, modes: ManyModes) -> tuple[Array, list[Array]]:
        front, across, rest = modes.roots.selected_inverse
        A, B, D = self._products(modes.expansion.weight)
        later, Lambda = range(1, len(self.Lambdas)), self.Lambdas[0][:, None, None]
        front, flat = _product(Lambda, front), _product(Lambda, across).reshape(B.shape)
        right = self._scaled(B, later).reshape(across.shape)
        first = (_product(A, front) + right @ across.swapaxes(3, 4)).sum((1, 2))
        last = B.swapaxes(2, 3) @ flat + self._scaled(D, later) @ rest
        half = self._scaled(rest, later, turned=True).swapaxes(2, 3)
        blocks = (
            _product(front, Lambda.swapaxes(3, 4)),
            self._scaled(flat, later, turned=True),
            self._scaled(half, later, turned=True),
        )
        G = np.concatenate([block.reshape(*modes.h.shape, -1) for block in blocks], axis=-1)
        d = np.zeros_like(modes.eta)
        for places, product in self.piece.pattern:
            d += G.take(places, axis=-1) * product
        return d, [first, *self.piece.diagonal_sums(last.sum(1), 1)]

    def _scaled(self, matrices: Array, terms: range, *, turned: bool = False) -> Array:
        """Return matrices, shape (S, U, ., effects of some terms), times the terms' factors."""
        product, stop = np.empty_like(matrices), 0
        for term in terms:
            slot, k, Lambda = self.piece.slots[term], self.piece.sizes[term], self.Lambdas[term]
            Lambda = Lambda.swapaxes(1, 2) if turned else Lambda
            start, stop = stop, stop + slot.stop - slot.start
            columns = matrices[..., start:stop]
            if k == 1:
                product[..., start:stop] = columns * Lambda[:, None]
            else:
                shape = (*columns.shape[:-1], -1, k)
                times = columns.reshape(shape) @ Lambda[:, None, None]
                product[..., start:stop] = times.reshape(columns.shape)
        return product

    def scaled_columns(self) -> Array:
        """Return Z Lambda, shape (S, N, q)."""
        wide = np.broadcast_to(self.piece.wide, (len(self.points.known), 1, *self.piece.wide.shape))
        return self._scaled(wide, range(len(self.Lambdas)))[:, 0]

    def bends(self, eta: Array) -> Array:
        """Return the third derivatives of log f, shape (S, U, N)."""
        return -self.further(eta).third


def _product(A: Array, B: Array) -> Array:
    """Return the products of stacked matrices."""
    return np.asarray(A * B if A.shape[-1] == 1 else A @ B)


def _times(matrices: Array, factor: Array) -> Array:
    """Return matrices, shape (S, P, a, q), times the factor of each point, shape (S, q, q)."""
    S, P, a, q = matrices.shape
    flat = matrices.reshape(S, P * a, q)
    return np.asarray((flat @ factor).reshape(matrices.shape))


def _block_diagonal(piece: Piece, points: Points) -> Array:
    """Return the factor of all effects of a component, shape (S, q, q)."""
    Lambda, at = np.zeros((len(points.known), piece.q, piece.q)), 0
    for factor, k, levels in zip(piece.factors(points), piece.sizes, piece.levels, strict=True):
        for start in range(at, at + levels.shape[1] * k, k):
            at = start + k
            Lambda[:, start:at, start:at] = factor
    return Lambda


def _applied(matrix: sparse.csr_array, rows: Array) -> Array:
    """Return a matrix, shape (r, N), times vectors, shape (S, U, N): shape (S, U, r)."""
    sums = (matrix @ rows.reshape(-1, rows.shape[-1]).T).T
    return np.ascontiguousarray(sums).reshape(*rows.shape[:-1], -1)
