"""A posterior density as a function of unconstrained coordinates, for any likelihood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ranef._typing import Array
from ranef.likelihood.predictions import Draws
from ranef.posterior.transforms import Space


class LogPosterior(ABC):
    """The posterior density of the values of a space, up to p(y): all that a model can be asked.

    Attributes
    ----------
    space : Space
    bases : tuple of ndarray, shape (k, k)
        Of each term: turns coefficients where its priors hold into those of the basis.
    """

    space: Space
    bases: tuple[Array, ...]

    @abstractmethod
    def likelihood(self, values: Array) -> tuple[float, Array]:
        """Return log p(y | values) and its derivatives, shape (n_values,).

        Minus infinity, without derivatives, where it cannot be computed.
        """

    @abstractmethod
    def log_density(self, x: Array) -> Array:
        """Return the log posterior density at points x, shape (points, d), all together.

        Minus infinity where it cannot be computed.
        """

    @abstractmethod
    def draw(self, values: Array, rng: np.random.Generator) -> Draws:
        """Draw the integrated effects from their distribution given values and data.

        Parameters
        ----------
        values : ndarray, shape (points, n_values)
            As `Space.values` returns them.
        rng : Generator
        """

    @abstractmethod
    def given_values(self, draws: Draws) -> Array:
        """Return the fixed effects and own parameters among the values, shape (draws, n_given)."""

    @property
    @abstractmethod
    def term_changes(self) -> list[Array]:
        """Of each term: turns coefficients where its priors hold into the user's."""

    @property
    def can_be_integrated(self) -> bool:
        """Whether only variances are left, of which sigma has a closed form given the others."""
        return False

    @property
    def approximation(self) -> str:
        """How the random effects are integrated out, in words; empty where that is exact."""
        return ""

    def correction(self, x: Array) -> tuple[float, float]:  # noqa: ARG002 -- there is none
        """Return what `approximation` lacks of log p(y), and about how far that may be off.

        Parameters
        ----------
        x : ndarray, shape (draws, d)
            From the posterior.
        """
        return 0.0, 0.0

    @abstractmethod
    def first_values(self) -> tuple[Array, list[Array]]:
        """Return given effects, own parameters and sigma to start with, and factors in the basis.

        The given values come first, as in `Space`; the factors are not relative to sigma.
        """

    def start(self) -> Array:
        """Return coordinates to start from, shape (d,): by moments of the data, or as known."""
        space, (leading, roots) = self.space, self.first_values()
        values = np.zeros_like(space.known)
        values[: len(leading)] = leading
        for covariance, (sd, _), A, root in zip(
            space.covariances, space.places, self.bases, roots, strict=True
        ):
            values[sd] = covariance.sds_and_correlations(np.linalg.solve(A, root))[0]
        return space.point(np.where(np.isfinite(space.known), space.known, values))

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
        logp = 0.0
        with np.errstate(all="ignore"):
            for i, c in enumerate(space.coordinates):
                values[space.free[i]], slopes[i], log_prior, gradient[i] = c.at(
                    x[i], natural=natural
                )
                logp += log_prior
            ratios = values[space.relative]
            values[space.relative] *= values[g]
            likelihood, derivatives = self.likelihood(values)
            derivatives[g] += derivatives[space.relative] @ ratios
            derivatives[space.relative] *= values[g]
            return float(logp + likelihood), gradient + derivatives[space.free] * slopes

    def values_of(self, draws: Draws) -> Array:
        """Return the values of every draw, shape (draws, n_values), as `Space.values` has them.

        Parameters
        ----------
        draws : Draws
            Of the same model, on the user's scale.
        """
        space = self.space
        sigma = np.ones(len(draws.beta)) if draws.sigma is None else draws.sigma
        columns = [self.given_values(draws), sigma[:, None]]
        for covariance, F, change in zip(
            space.covariances, draws.factors, self.term_changes, strict=True
        ):
            columns += covariance.sds_and_correlations(np.linalg.solve(change, F))
        values = np.concatenate(columns, axis=1)
        known = np.isfinite(space.known) & ~space.relative
        values[:, known] = space.known[known]
        return values

    def basis_factors(self, values: Array) -> list[Array]:
        """Return the covariance factor of each term in the basis, shape (..., k, k)."""
        return [A @ F for A, F in zip(self.bases, self.space.factors(values), strict=True)]

    def users_factors(self, values: Array) -> list[Array]:
        """Return the covariance factor of each term on the user's scale, shape (..., k, k)."""
        return [A @ F for A, F in zip(self.term_changes, self.space.factors(values), strict=True)]

    def by_values(self, slopes: Sequence[Array], values: Array, derivatives: Array) -> None:
        """Fill in the derivatives by sds and correlations.

        Parameters
        ----------
        slopes : sequence of ndarray, shape (k, k)
            The derivatives by the factors of each term, in the basis.
        values : ndarray, shape (n_values,)
        derivatives : ndarray, shape (n_values,)
            Is changed.
        """
        space = self.space
        for t, (sd, corr) in enumerate(space.places):
            slope = self.bases[t].T @ slopes[t]
            covariance = space.covariances[t]
            derivatives[sd], derivatives[corr] = covariance.slopes_of(
                slope, values[sd], values[corr]
            )
