"""The posterior as a mixture over the points of a lattice: a node with one value of sigma each.

Given a node the fixed effects have independent parts, whose means and variances depend on sigma
alone. So what is linear in them is worked out node by node, and only then point by point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array, Flags, Places
from ranef.posterior.quadrature.lattice import Lattice, Nodes

NEVER_CHOSEN = 0.01  # of a negligible share, in all points that are not even looked at


@dataclass(frozen=True, eq=False)
class Mixture:
    """The nodes that count, each with some values of sigma.

    Attributes
    ----------
    weights : ndarray, shape (C,)
        They sum to one.
    nodes : Nodes
        The D nodes that differ in more than sigma.
    rows : ndarray of int, shape (C,)
        Which of them each component belongs to.
    sigma : ndarray, shape (C,)
    """

    weights: Array
    nodes: Nodes
    rows: Places
    sigma: Array

    @cached_property
    def parts(self) -> tuple[Array, Array]:
        """Mean and variance of the independent parts of gamma in the bases, shape (C, r)."""
        variance, nodes, rows = self.sigma[:, None] ** 2, self.nodes, self.rows
        shrink = 1 + variance * nodes.spectrum[rows]
        return (nodes.data[rows] + variance * nodes.prior[rows]) / shrink, variance / shrink

    def gamma(self) -> tuple[Array, Array]:
        """Return mean and covariance of gamma, shapes (C, r) and (C, r, r)."""
        means, variances = self.parts
        basis = self.nodes.basis[self.rows]
        mean = np.einsum("nab,na->nb", basis, means)
        return mean, (basis.swapaxes(1, 2) * variances[:, None]) @ basis

    def covariance_within(self) -> Array:
        """Return the weighted sum of the covariances of gamma, shape (r, r)."""
        shares = [np.bincount(self.rows, self.weights * part) for part in self.parts[1].T]
        basis = self.nodes.basis
        half = basis * np.sqrt(np.reshape(shares, (-1, len(basis))).T)[..., None]
        return np.tensordot(half, half, axes=([0, 1], [0, 1]))

    def linear(self, mean: Array, slope: Array, within: Array) -> tuple[Array, Array]:
        """Return mean and variance of numbers that are linear in gamma, shapes (C, n).

        Parameters
        ----------
        mean : ndarray, shape (D, n)
            At the nodes, where gamma is zero.
        slope : ndarray, shape (D, n, r)
        within : ndarray, shape (D, n)
            The variance given gamma, over sigma^2.
        """
        turned = slope @ self.nodes.basis.swapaxes(1, 2)
        mean, variance = mean[self.rows], self.sigma[:, None] ** 2 * within[self.rows]
        for j, (part, spread) in enumerate(zip(*(p.T for p in self.parts), strict=True)):
            along = turned[:, :, j][self.rows]
            mean += along * part[:, None]
            along *= along
            variance += along * spread[:, None]
        return mean, variance


def heaviest(lattice: Lattice, negligible: float) -> Mixture:
    """Return the nodes with all but a negligible share of the posterior."""
    weights = lattice.weights.ravel() / lattice.weights.sum()
    falling = np.sort(weights[weights > NEVER_CHOSEN * negligible / weights.size])[::-1]
    last = int(np.searchsorted(np.cumsum(falling), 1 - negligible))
    least = falling[min(last, len(falling) - 1)]
    return mixture_of(lattice, (weights >= least).reshape(lattice.weights.shape))


def mixture_of(lattice: Lattice, counts: Flags) -> Mixture:
    """Return the mixture of some of the points of a lattice, shape (N, T)."""
    weights, values = lattice.weights[counts], counts.sum(axis=1)
    return Mixture(
        weights / weights.sum(),
        lattice.nodes[values > 0],
        np.repeat(np.arange(np.count_nonzero(values)), values[values > 0]),
        np.exp(lattice.log_sigma[counts]),
    )
