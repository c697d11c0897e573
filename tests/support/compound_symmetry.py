"""A third covariance of random effects, to see that nothing else has to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import override

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import Covariance


class CompoundSymmetry(Covariance):
    """One sd for all coefficients, and one correlation for all pairs.

    With J the k x k matrix of ones over k the factor is a (I - J) + b J: theta = (a, b), whose
    squares are the eigenvalues of the relative covariance.
    """

    @property
    def n_theta(self) -> int:
        return 2

    @property
    def has_correlations(self) -> bool:
        return True

    @override
    def theta_names(self, label: str, coefs: Sequence[str]) -> list[str]:
        return [f"{label}.within", f"{label}.between"]

    def factor(self, theta: Array) -> Array:
        J = np.full((self.k, self.k), 1 / self.k)
        a, b = (theta[..., i, None, None] for i in (0, 1))
        return a * (np.eye(self.k) - J) + b * J

    @override
    def pull_back(self, slope: Array, theta: Array) -> Array:
        by_b = slope.mean(axis=(-1, -2)) * self.k
        return np.stack([np.trace(slope, axis1=-2, axis2=-1) - by_b, by_b], axis=-1)

    def theta_of(self, root: Array) -> Array:
        total = (root**2).sum(axis=(-1, -2))
        between = (root.sum(axis=-2) ** 2).sum(axis=-1) / self.k
        within = np.maximum(total - between, 0.0) / (self.k - 1)
        return np.sqrt(np.stack([within, between], axis=-1))

    @property
    def n_sds(self) -> int:
        return 1

    @property
    def n_correlations(self) -> int:
        return 1

    def _theta(self, sds: Array, correlations: Array) -> Array:
        shares = np.concatenate([1 - correlations, 1 + (self.k - 1) * correlations], axis=-1)
        return sds * np.sqrt(shares)

    def factor_of(self, sds: Array, correlations: Array) -> Array:
        return self.factor(self._theta(sds, correlations))

    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        theta = self._theta(sds, correlations)
        by_theta = self.pull_back(slope, theta)
        by_square = by_theta / (2 * theta) * sds**2
        by_corr = by_square @ np.array([-1.0, self.k - 1.0])
        return (by_theta * theta / sds).sum(-1, keepdims=True), by_corr[..., None]

    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        within, between = (self.theta_of(root)[..., [i]] ** 2 for i in (0, 1))
        variance = ((self.k - 1) * within + between) / self.k
        return np.sqrt(variance), (between - within) / self.k / variance
