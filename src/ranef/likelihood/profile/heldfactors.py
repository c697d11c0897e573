"""Relative factors with one standard deviation or correlation held: it is a coordinate.

For an sd the coefficients of its term are ordered so that its own comes first, b = T^-1 F u, F
lower triangular: its sd is then the first element of F, and zero is an ordinary value. For a
correlation its two coefficients come first, and the second row of F is tau^2 (sin phi, cos phi):
the correlation is sin phi, and -1 and 1 are ordinary values of phi. The two sds are squares, as a
correlation has no sign without them. T makes the other columns of the term orthogonal, so that
their scale and origin do not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ranef.covariances.covariance import Shape, factors, lower_factor, pack

type Array = NDArray[np.float64]

NO_SD = 1e-7  # a standard deviation, relative to the error of a row, that counts as zero


@dataclass(frozen=True, eq=False)
class Held:
    """All factors as functions of w and theta, w being of one term and not in theta.

    Attributes
    ----------
    shapes : tuple of Shape
    term : int
        Whose sd or correlation w stands for; -1 for none.
    pair : bool
        Whether it is the correlation of the first two coefficients, or the sd of the first.
    turn : ndarray, shape (k, k)
        Lambda = turn F for this term.
    """

    shapes: tuple[Shape, ...]
    term: int = -1
    pair: bool = False
    turn: Array = field(default_factory=lambda: np.empty((0, 0)))

    @cached_property
    def before(self) -> int:
        """Where the term begins in theta."""
        return sum(shape.n_theta for shape in self.shapes[: self.term])

    def factors(self, w: float, theta: Array) -> list[Array]:
        """Return the factor Lambda of each term, w being the first element of F, or phi."""
        if self.term < 0:
            return factors(theta, self.shapes)
        found = factors(self._whole(w, theta), self.shapes)
        found[self.term] = self.turn @ found[self.term]
        return found

    def back(self, w: float, theta: Array, slopes: Sequence[Array]) -> tuple[float, Array]:
        """Return derivatives by w and theta from those by the factors."""
        if self.term < 0:
            return 0.0, pack(slopes, self.shapes)
        own = list(slopes)
        own[self.term] = self.turn.T @ own[self.term]
        whole, at = pack(own, self.shapes), self.before
        if not self.pair:
            return float(whole[at]), np.delete(whole, at)
        k = self.shapes[self.term].k
        alpha, tau, (sin, cos) = theta[at], theta[at + 1], (np.sin(w), np.cos(w))
        by_w = tau**2 * (cos * whole[at + 1] - sin * whole[at + k])
        along = sin * whole[at + 1] + cos * whole[at + k]
        whole[at], whole[at + 1] = 2 * alpha * whole[at], 2 * tau * along
        return float(by_w), np.delete(whole, at + k)

    def _whole(self, w: float, theta: Array) -> Array:
        at = self.before
        if not self.pair:
            return np.insert(theta, at, w)
        k = self.shapes[self.term].k
        square = theta[at + 1] ** 2
        whole = np.insert(theta, at + k, square * np.cos(w))
        whole[at], whole[at + 1] = theta[at] ** 2, square * np.sin(w)
        return whole

    def start(self, F: Array, thetas: Sequence[Array]) -> tuple[float, Array]:
        """Return w and theta of a factor F of the term, and the factors of all others."""
        parts = list(thetas)
        whole = pack([F], self.shapes[self.term : self.term + 1])
        if not self.pair:
            parts[self.term] = whole[1:]
            return float(whole[0]), np.concatenate(parts)
        k = len(F)
        sds = np.sqrt([abs(F[0, 0]), np.hypot(F[1, 0], F[1, 1])])
        parts[self.term] = np.concatenate([sds, np.delete(whole, [0, 1, k])])
        return float(np.arctan2(F[1, 0], F[1, 1])), np.concatenate(parts)


def held(
    bases: Sequence[Array], shapes: tuple[Shape, ...], term: int, coefs: tuple[int, ...]
) -> tuple[Held, Array]:
    """Return the factors with the sd of a coefficient held, or the correlation of two.

    Returns
    -------
    Held
    ndarray, shape (k, k)
        Which turns the user's effects of the term into those that F belongs to; its first
        row, or two, have the length of a row of the term on the diagonal and nothing else.
    """
    k = shapes[term].k
    order = [*coefs, *(i for i in range(k) if i not in coefs)]
    moved = bases[term][:, order]
    T = np.linalg.qr(moved[:, ::-1], mode="r")[::-1, ::-1]
    T = np.sign(np.diag(T))[:, None] * T  # lower triangular, as moved'moved = T'T
    T[: len(coefs), : len(coefs)] = np.diag(np.diag(T)[: len(coefs)])
    turn = moved @ np.linalg.inv(T)
    to_own = T @ np.eye(k)[order]
    return Held(shapes, term, len(coefs) == 2, turn), to_own


def canonical(root: Array) -> Array:
    """Return the triangular factor on which the nodes of a quadrature depend; never singular."""
    L = lower_factor(root)
    floor = NO_SD * max(1.0, float(np.abs(L).max(initial=0.0)))
    return np.asarray(L + np.diag(np.where(np.diag(L) < floor, floor, 0.0)))


def by_root(root: Array, L: Array, slope: Array) -> Array:
    """Return the derivative by a root from that by its triangular factor L = root Q.

    Source: Murray (2016), *Differentiation of the Cholesky decomposition*, arXiv:1602.07527,
    section 3.
    """
    P = np.tril(L.T @ np.tril(slope))
    P[np.diag_indices_from(P)] /= 2
    half = linalg.solve_triangular(L, (P + P.T), lower=True, trans="T")
    return np.asarray(half @ linalg.solve_triangular(L, root, lower=True))
