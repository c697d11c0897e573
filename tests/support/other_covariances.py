"""A third and a fourth covariance of random effects, to see that nothing else has to know of them.

Either is one record, with nothing beside it: likelihood, priors, posterior and PyMC ask it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, override

import numpy as np

from ranef._typing import Array
from ranef.covariances.covariance import Covariance


class _OneCorrelation(Covariance):
    """One sd for all coefficients, and one parameter that all correlations depend on."""

    @property
    def n_theta(self) -> int:
        return 2

    @property
    def sd_groups(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.k)),)

    @property
    def n_correlations(self) -> int:
        return 1

    def correlation_names(self, coefs: Sequence[str]) -> list[str]:  # noqa: ARG002 -- of all
        return [""]

    def correlation_shapes(self, eta: float) -> Array:
        return np.array([eta])

    @override
    def partials(self, free: Sequence[Any]) -> list[Any]:
        rho = self.rho(free[0])
        return [self.partial(rho, r, c) for r in range(self.k) for c in range(r)]

    @abstractmethod
    def rho(self, free: Any) -> Any:
        """Return the correlation from its free parameter."""

    @abstractmethod
    def partial(self, rho: Any, r: int, c: int) -> Any:
        """Return the partial correlation of r and c < r, given all before c."""


class CompoundSymmetry(_OneCorrelation):
    """One sd for all coefficients, and one correlation for all pairs.

    With J the k x k matrix of ones over k the factor is a (I - J) + b J: theta = (a, b), whose
    squares are the eigenvalues of the relative covariance. The free parameter goes from -1 to 1 as
    the correlation goes from -1 / (k - 1) to 1.
    """

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

    def rho(self, free: Any) -> Any:
        lowest = -1 / (self.k - 1)
        return lowest + (1 - lowest) * (1 + free) / 2

    def partial(self, rho: Any, r: int, c: int) -> Any:  # noqa: ARG002 -- the same for all rows
        return rho / (1 + c * rho)

    def _theta(self, sds: Array, correlations: Array) -> Array:
        half = self.k / 2
        shares = [half / (self.k - 1) * (1 - correlations), half * (1 + correlations)]
        return sds * np.sqrt(np.concatenate(shares, axis=-1))

    def factor_of(self, sds: Array, correlations: Array) -> Array:
        return self.factor(self._theta(sds, correlations))

    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        theta = self._theta(sds, correlations)
        by_theta = self.pull_back(slope, theta)
        by_square = by_theta / (2 * theta) * sds**2
        by_corr = by_square @ (self.k / 2 * np.array([-1 / (self.k - 1), 1.0]))
        return (by_theta * theta / sds).sum(-1, keepdims=True), by_corr[..., None]

    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        within, between = (self.theta_of(root)[..., [i]] ** 2 for i in (0, 1))
        variance = ((self.k - 1) * within + between) / self.k
        return np.sqrt(variance), 2 * between / self.k / variance - 1


class Autoregressive(_OneCorrelation):
    """One sd, and the correlation rho^|i - j|: theta = (sd, t) with rho = t / sqrt(1 + t^2)."""

    @override
    def theta_names(self, label: str, coefs: Sequence[str]) -> list[str]:
        return [f"{label}.sd", f"{label}.rho"]

    def rho(self, free: Any) -> Any:
        return free

    def partial(self, rho: Any, r: int, c: int) -> Any:
        lag = r - c
        if not c:
            return rho**lag
        return rho**lag * ((1 - rho**2) / (1 - rho ** (2 * lag + 2))) ** 0.5

    def factor_of(self, sds: Array, correlations: Array) -> Array:
        return np.asarray(sds[..., None] * self._unit(correlations[..., 0])[0])

    def _unit(self, rho: Array) -> tuple[Array, Array]:
        """Return the factor of the correlations and its derivative, shape (..., k, k) each."""
        lags = np.subtract.outer(np.arange(self.k), np.arange(self.k))
        lower, lags, rho = lags >= 0, np.maximum(lags, 0), np.asarray(rho)[..., None, None]
        first = np.arange(self.k) == 0
        q = np.where(first, 1.0, np.sqrt(1 - rho**2))
        slope = np.where(first, 0.0, -rho / np.sqrt(1 - rho**2))
        powers = lags * rho ** np.maximum(lags - 1, 0)
        return lower * rho**lags * q, lower * (powers * q + rho**lags * slope)

    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        unit, by_rho = self._unit(correlations[..., 0])
        by_sd = (slope * unit).sum(axis=(-1, -2))[..., None]
        return by_sd, sds * (slope * by_rho).sum(axis=(-1, -2))[..., None]

    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        cov = root @ root.swapaxes(-1, -2)
        variances = np.diagonal(cov, axis1=-2, axis2=-1)
        variance = variances.mean(axis=-1, keepdims=True)
        next_to = np.diagonal(cov, 1, axis1=-2, axis2=-1).mean(axis=-1, keepdims=True)
        return np.sqrt(variance), np.clip(next_to / np.maximum(variance, 1e-300), -1.0, 1.0)

    def factor(self, theta: Array) -> Array:
        t = theta[..., 1:]
        return self.factor_of(theta[..., :1], t / np.sqrt(1 + t**2))

    def pull_back(self, slope: Array, theta: Array) -> Array:
        t = theta[..., 1:]
        by_sd, by_rho = self.slopes_of(slope, theta[..., :1], t / np.sqrt(1 + t**2))
        return np.concatenate([by_sd, by_rho * (1 + t**2) ** -1.5], axis=-1)

    def theta_of(self, root: Array) -> Array:
        sds, rho = self.sds_and_correlations(root)
        rho = np.clip(rho, -1 + 1e-10, 1 - 1e-10)
        return np.concatenate([sds, rho / np.sqrt(1 - rho**2)], axis=-1)
