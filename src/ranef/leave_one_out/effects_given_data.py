"""The covariance of random effects given the data, component by component, at many points.

With Z the rows of one component in the basis, times the square root of the weights, and Lambda the
relative factors, Y = Lambda (Lambda'Z'Z Lambda + I)^-1 Lambda' is the covariance over sigma^2. In
Z'Z the effects of one factor are a diagonal of small blocks, its levels. These are eliminated first
and what remains is a matrix of the size of the other effects alone:

    Y = blockdiag(Y_1, Y_2, ..., 0) + F F',

with Y_l the covariance of the effects of level l if the others were known.

Arrays run over components first, and over points last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array, Places
from ranef.design.groups import Components, by_factor
from ranef.design.rows.rows import TermRows
from ranef.numerics.matrices import (
    from_left,
    from_right,
    gram,
    pointwise_cholesky,
    pointwise_forward,
    spans,
)


@dataclass(frozen=True, eq=False)
class GivenData:
    """The covariance of random effects given the data at points, over sigma^2.

    Attributes
    ----------
    front : ndarray of int, shape (B, k)
        The effects of each block.
    blocks : ndarray, shape (components, B, k, k, points)
        Y_l.
    half : ndarray, shape (components, K, r, points)
        F.
    """

    front: Places
    blocks: Array
    half: Array

    def among(self, component: Places, columns: Places) -> Array:
        """Return the covariances among some effects of components, (N, c, c, points).

        Parameters
        ----------
        component : ndarray of int, shape (N,)
        columns : ndarray of int, shape (N, c)
        """
        half = self.half[component[:, None], columns].swapaxes(1, 2)
        found = gram(half, half)
        size = self.half.shape[1]
        block, place = np.full(size, -1), np.zeros(size, dtype=np.intp)
        block[self.front], place[self.front] = np.indices(self.front.shape)
        of, at = block[columns], place[columns]
        n, i, j = np.nonzero((of[:, :, None] == of[:, None]) & (of >= 0)[:, None])
        found[n, i, j] += self.blocks[component[n], of[n, i], at[n, i], at[n, j]]
        return found

    def times(self, C: Array) -> Array:
        """Return Y C for columns C, shape (components, K, f), the same at all points."""
        products = gram(
            self.half.swapaxes(1, 2), from_left(C.swapaxes(1, 2), self.half).swapaxes(1, 2)
        )
        products[:, self.front] += np.matmul(
            C[:, self.front].swapaxes(-1, -2)[:, :, None], self.blocks
        )
        return products


@dataclass(frozen=True, eq=False)
class RandomEffects:
    """The random effects of every component, and Z'Z.

    Attributes
    ----------
    slots : tuple of (slice, ...)
        For each term, the columns of its levels in any component.
    first : tuple of int
        The terms whose levels are the blocks.
    D : ndarray, shape (components, K, K)
        Z'Z.
    """

    slots: tuple[tuple[slice, ...], ...]
    first: tuple[int, ...]
    D: Array

    @staticmethod
    def of(components: Components, terms: Sequence[TermRows], D: Array) -> RandomEffects:
        """Make the levels of the factor with most effects the blocks."""
        most = by_factor(terms)[0] if terms else []
        first = tuple(t for t, term in enumerate(terms) if any(term is one for one in most))
        return RandomEffects(components.slots, first, D)

    @cached_property
    def front(self) -> Places:
        """The effects of each block, shape (B, k)."""
        by_term = [np.array([np.r_[slot] for slot in self.slots[t]]) for t in self.first]
        return np.hstack(by_term) if by_term else np.empty((0, 0), dtype=np.intp)

    @property
    def others(self) -> list[int]:
        """The terms that have no blocks."""
        return [t for t in range(len(self.slots)) if t not in self.first]

    @cached_property
    def rest(self) -> Places:
        """The effects in no block, shape (r,)."""
        places = [np.r_[slot] for t in self.others for slot in self.slots[t]]
        return np.concatenate([np.empty(0, dtype=np.intp), *places])

    @cached_property
    def _parts(self) -> tuple[Array, Array, Array]:
        """The blocks of Z'Z, what lies right of them, and what is left, components first."""
        (m, _, _), front, rest = self.D.shape, self.front, self.rest
        B, k = front.shape
        diagonal = self.D[:, front[:, :, None], front[:, None]].reshape(m * B, k, k)
        across = self.D[:, front[:, :, None], rest].reshape(m * B, k, len(rest))
        return diagonal, across, self.D[:, rest[:, None], rest]

    @property
    def size(self) -> int:
        """The number of elements that the arrays of one point have."""
        m, K, k, r = self._sizes
        return m * (K * (k + r) + 3 * r**2)

    @property
    def operations(self) -> int:
        """About the number of operations that one point takes."""
        m, K, k, r = self._sizes
        return m * (K * (k + r) ** 2 + r**3)

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        """The numbers of components, of their effects, and of those in a block and in none."""
        (m, K, _), front = self.D.shape, self.front
        return m, K, front.shape[1], K - front.size

    def given_data(self, Lambdas: Sequence[Array], points: int) -> GivenData:
        """Return the covariance of the effects at points.

        Parameters
        ----------
        Lambdas : sequence of ndarray, shape (points, k, k)
            Relative factors of each term in the basis of Z.
        points : int
        """
        (m, K, _), front, rest = self.D.shape, self.front, self.rest
        (B, k), r = front.shape, len(rest)
        diagonal, across, D = self._parts
        Lambda = _block_diagonal([Lambdas[t] for t in self.first], points)
        half = _half_covariance(from_left(diagonal, Lambda), Lambda)
        blocks = gram(half, half)
        E = from_right(blocks, across.swapaxes(1, 2)).reshape(m, B * k, r, points)
        D = D[..., None] - from_left(across.reshape(m, B * k, r).swapaxes(1, 2), E)
        Lambda = _block_diagonal([Lambdas[t] for t in self.others for _ in self.slots[t]], points)
        half = _half_covariance(gram(D, Lambda), Lambda).swapaxes(1, 2)
        F = np.empty((m, K, r, points))
        F[:, rest], F[:, front.ravel()] = half, -gram(E.swapaxes(1, 2), half)
        return GivenData(front, blocks.reshape(m, B, k, k, points), F)


def _block_diagonal(factors: Sequence[Array], points: int) -> Array:
    """Return the matrix of factors, shape (points, k, k), along the diagonal, (1, K, K, points)."""
    sizes = [factor.shape[-1] for factor in factors]
    matrix = np.zeros((1, sum(sizes), sum(sizes), points))
    for factor, place in zip(factors, spans(sizes), strict=True):
        matrix[0, place, place] = np.moveaxis(factor, 0, -1)
    return matrix


def _half_covariance(D_Lambda: Array, Lambda: Array) -> Array:
    """Return V with V'V = Lambda (Lambda' D Lambda + I)^-1 Lambda'."""
    M = gram(Lambda, D_Lambda) + np.eye(Lambda.shape[1])[:, :, None]
    return pointwise_forward(pointwise_cholesky(M), Lambda.swapaxes(1, 2))
