"""A posterior density as a function of unconstrained coordinates, whatever the likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ranef._typing import Array
from ranef.posterior.transforms import Space, evaluate, partial_slopes, unit_factor


class LogPosterior(ABC):
    """The posterior density of the values of a space, up to p(y).

    Attributes
    ----------
    space : Space
    bases : tuple of ndarray, shape (k, k)
        Of each term: turns coefficients at centred columns into those of the basis.
    """

    space: Space
    bases: tuple[Array, ...]

    @abstractmethod
    def likelihood(self, values: Array) -> tuple[float, Array]:
        """Return log p(y | values) and its derivatives, shape (n_values,).

        Minus infinity, without derivatives, where it cannot be computed.
        """

    @abstractmethod
    def start(self) -> Array:
        """Return coordinates to start from, shape (d,)."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The size of the dense matrices of one evaluation."""

    def units(self) -> Array:
        """Return a matrix, shape (d, d), of steps in which the density is about as wide as long."""
        return np.eye(self.space.d)

    def __call__(self, x: Array, *, natural: bool = False) -> tuple[float, Array]:
        """Return the log posterior density at x, shape (d,), and its gradient.

        Parameters
        ----------
        x : ndarray, shape (d,)
        natural : bool
            Whether the density is that of the parameters, or that of x.
        """
        space, g = self.space, self.space.n_given
        values, slopes, gradient = space.known.copy(), np.empty(space.d), np.empty(space.d)
        logp = space.constant
        with np.errstate(all="ignore"):
            for i, c in enumerate(space.coordinates):
                values[space.free[i]], slopes[i], part, gradient[i] = evaluate(
                    c.family, c.transform, c.a, c.b, c.c, x[i], is_natural=natural
                )
                logp += part
            ratios = values[space.relative]
            values[space.relative] *= values[g]
            likelihood, found = self.likelihood(values)
            found[g] += found[space.relative] @ ratios
            found[space.relative] *= values[g]
            return float(logp + likelihood), gradient + found[space.free] * slopes

    def log_density(self, x: Array) -> Array:
        """Return the log posterior density at points x, shape (points, d), one after the other."""
        return np.array([self(point)[0] for point in x])

    def by_values(self, slopes: Sequence[Array], values: Array, found: Array) -> None:
        """Fill in the derivatives by sds and partial correlations.

        Parameters
        ----------
        slopes : sequence of ndarray, shape (k, k)
            The derivatives by the factors diag(sd) U of each term, in the basis.
        values : ndarray, shape (n_values,)
        found : ndarray, shape (n_values,)
            Is changed.
        """
        for t, (sd, partial) in enumerate(self.space.places):
            slope = self.bases[t].T @ slopes[t]
            U = unit_factor(values[partial], self.space.sizes[t][0])
            found[sd] = (slope * U).sum(axis=1)
            found[partial] = partial_slopes(values[sd, None] * slope, U, values[partial])
