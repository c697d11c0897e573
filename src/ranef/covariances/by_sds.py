"""A covariance by its standard deviations and partial correlations, in which a prior is smooth.

The density of a correlation depends on the ratios of a factor's elements, however small these are:
where a standard deviation vanishes it is a cone, and no search comes to an end. By the angle it is
smooth, and independent of the standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import NEARLY_ZERO_SD, Covariance, Unstructured
from ranef.covariances.partial_correlations import correlations, partial_correlations

GREATEST = 0.99  # partial correlation of a start


@dataclass(frozen=True, eq=False)
class BySds(Unstructured):
    """Any covariance of T b: theta are the sds of b, then atanh of its partial correlations.

    The sds are in units in which they do about the same to T b; their signs do not matter.

    Attributes
    ----------
    k : int
    basis : ndarray, shape (k, k)
        T.

    Examples
    --------
    >>> BySds(2, np.eye(2)).factor(np.array([1.0, 2.0, np.arctanh(0.6)]))
    array([[1. , 0. ],
           [1.2, 1.6]])
    """

    basis: Array

    @cached_property
    def units(self) -> Array:
        """A standard deviation of b over its element of theta, shape (k,)."""
        return np.asarray(1 / np.linalg.norm(self.basis, axis=0))

    def sds(self, theta: Array) -> Array:
        """Return the standard deviations of b, with signs, shape (..., k)."""
        return np.asarray(theta[..., : self.k] * self.units)

    def factor(self, theta: Array) -> Array:
        return self.basis @ self.factor_of(self.sds(theta), np.tanh(theta[..., self.k :]))

    def pull_back(self, slope: Array, theta: Array) -> Array:
        theta = np.broadcast_to(theta, (*slope.shape[:-2], theta.shape[-1]))
        partial = np.tanh(theta[..., self.k :])
        by_sds, by_partial = self.slopes_of(self.basis.T @ slope, self.sds(theta), partial)
        return np.concatenate([by_sds * self.units, by_partial * (1 - partial**2)], axis=-1)

    jacobian = Covariance.jacobian
    curvature = Covariance.curvature

    def theta_of(self, root: Array) -> Array:
        of_b = np.linalg.solve(self.basis, root)
        sds = np.linalg.norm(of_b, axis=-1)
        rows = of_b / np.where(sds > 0, sds, 1.0)[..., None]
        partial = np.clip(partial_correlations(correlations(rows)), -GREATEST, GREATEST)
        return np.concatenate([sds / self.units, np.arctanh(partial)], axis=-1)

    def simplest(self, theta: Array) -> Array:
        sds = np.abs(theta[: self.k])
        small = sds < NEARLY_ZERO_SD * max(1.0, sds.max())
        rows, columns = np.tril_indices(self.k, -1)
        return np.where(np.append(small, small[rows] | small[columns]), 0.0, theta)

    def log_density(self, theta: Array, power: float) -> tuple[float, Array]:
        """Return power times the log determinant of the correlations, and its gradient.

        That is the logarithm of the product of all 1 - r^2 over the partial correlations r.
        """
        angles, slope = theta[self.k :], np.zeros_like(theta)
        slope[self.k :] = -2 * power * np.tanh(angles)
        return -2 * power * float((np.logaddexp(angles, -angles) - np.log(2)).sum()), slope


def with_smooth_correlations(
    covariances: Sequence[Covariance], bases: Sequence[Array], powers: Sequence[float]
) -> tuple[Covariance, ...]:
    """Return each covariance, by its sds where its correlations have a density, of some power."""
    return tuple(
        BySds(covariance.k, basis) if power else covariance
        for covariance, basis, power in zip(covariances, bases, powers, strict=True)
    )
