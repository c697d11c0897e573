"""The covariance of one random-effects term: theta, the relative factor Lambda, sds, correlations.

The k coefficients of a level have the covariance sigma^2 Lambda Lambda' (Bates et al. 2015, eq. 4).
A term's `Covariance` says which matrices these can be, how Lambda depends on theta, and which
standard deviations and correlations they have. No other room knows one structure from another; a
further structure is one more record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from ranef._typing import Array, Places
from ranef.covariances.partial_correlations import (
    correlations,
    partial_correlations,
    partial_slopes,
    unit_factor,
)
from ranef.covariances.triangular_factors import lower_factor
from ranef.errors import FitError
from ranef.numerics.matrices import spans

STEP_OF_CURVATURE = 1e-5  # of theta, for differences; relative if it is above one
NEARLY_ZERO_SD = 0.03  # relative to sigma; below, zero is tried in its place

type Elements = tuple[Places, Places]
"""Rows and columns of the elements of a matrix."""


class Bases(Enum):
    """The changes of basis b -> T b of the coefficients that keep the structure of a covariance."""

    TRIANGULAR = "any triangular T"
    DIAGONAL = "any diagonal T"
    MULTIPLES = "multiples of the identity"


@dataclass(frozen=True)
class Covariance(ABC):
    """The structure of the covariance matrix of the k coefficients of a level.

    With a matrix all its multiples have the same structure: every term has a scale. Methods take
    one point or many, along leading axes, where they do not say "one".

    Attributes
    ----------
    k : int
        The number of coefficients.
    """

    k: int
    kept_by: ClassVar[Bases] = Bases.MULTIPLES

    @property
    @abstractmethod
    def n_theta(self) -> int:
        """The number of elements of theta."""

    @property
    def has_correlations(self) -> bool:
        """Whether coefficients can be correlated."""
        return self.n_correlations > 0

    @abstractmethod
    def theta_names(self, label: str, coefs: Sequence[str]) -> list[str]:
        """Return names of the elements of theta, for a term and its coefficients."""

    @abstractmethod
    def factor(self, theta: Array) -> Array:
        """Return Lambda, shape (..., k, k): any square root of the covariance over sigma^2.

        Parameters
        ----------
        theta : ndarray, shape (..., n_theta)
            Without bounds: whatever its signs, there is a Lambda, smooth in theta.
        """

    @abstractmethod
    def pull_back(self, slope: Array, theta: Array) -> Array:
        """Return the derivative by theta, shape (..., n_theta), from the one by Lambda."""

    def jacobian(self, theta: Array) -> Array:
        """Return the derivatives of Lambda by one theta, shape (n_theta, k, k)."""
        elements = np.eye(self.k**2).reshape(-1, self.k, self.k)
        return np.asarray(self.pull_back(elements, theta).T.reshape(-1, self.k, self.k))

    def curvature(self, slope: Array, theta: Array) -> Array:
        """Return the second derivatives by one theta of the sum of slope * Lambda, (d, d).

        They are differences of `pull_back`, where a structure does not say them itself.
        """
        steps = np.diag(STEP_OF_CURVATURE * np.maximum(1.0, np.abs(theta)))
        rows = [
            (self.pull_back(slope, theta + step) - self.pull_back(slope, theta - step))
            / (2 * step.sum())
            for step in steps
        ]
        return np.asarray((np.array(rows) + np.transpose(rows)) / 2)

    @abstractmethod
    def theta_of(self, root: Array) -> Array:
        """Return theta of the covariance root root', also at the boundary, in its usual signs.

        Where the covariance has another structure, theta of one near it.

        Parameters
        ----------
        root : ndarray, shape (..., k, r)
        """

    def simplest(self, theta: Array) -> Array:
        """Return one theta of nearly the same covariance whose smallest sds are exactly zero."""
        return theta

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of coefficients that have a correlation."""
        return list(combinations(range(self.k), 2)) if self.has_correlations else []

    # ------------------------------------------------- standard deviations and correlations

    @property
    def sd_groups(self) -> tuple[tuple[int, ...], ...]:
        """The coefficients of each free standard deviation, which they share."""
        return tuple((i,) for i in range(self.k))

    @property
    def n_sds(self) -> int:
        """The number of free standard deviations."""
        return len(self.sd_groups)

    def sd_coefs(self, coefs: Sequence[str]) -> tuple[str, ...]:
        """Return the coefficient of each free standard deviation; empty where several share it."""
        return tuple(coefs[group[0]] if len(group) == 1 else "" for group in self.sd_groups)

    @property
    @abstractmethod
    def n_correlations(self) -> int:
        """The number of free parameters of the correlations."""

    @abstractmethod
    def correlation_names(self, coefs: Sequence[str]) -> list[str]:
        """Return what each free parameter of the correlations is between; empty if it is all."""

    @abstractmethod
    def correlation_shapes(self, eta: float) -> Array:
        """Return b of each free parameter of the correlations, shape (n_correlations,).

        Under the prior LKJ(eta), or what stands for it, they are independent, and Beta(b, b)
        variables on (-1, 1).
        """

    def partials(self, free: Sequence[Any]) -> Sequence[Any]:
        """Return the partial correlations, row by row, from the free parameters: by default these.

        By arithmetic alone, so that these can be the variables of any package.
        """
        return free

    @abstractmethod
    def factor_of(self, sds: Array, correlations: Array) -> Array:
        """Return a factor, shape (..., k, k), from standard deviations and correlations.

        Parameters
        ----------
        sds : ndarray, shape (..., n_sds)
        correlations : ndarray, shape (..., n_correlations)
            Free parameters between -1 and 1: of an unstructured matrix its partial correlations.
        """

    @abstractmethod
    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        """Return the derivatives by sds and correlations from the one by `factor_of`."""

    @abstractmethod
    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        """Return the arguments of `factor_of` for the covariance root root'."""

    # ------------------------------------------------------------------------- free blocks

    @property
    def is_free(self) -> bool:
        """Whether each element of the covariance matrix is free, or zero."""
        return False

    def check_free(self, what: str = "this") -> None:
        """Refuse what needs free elements where the elements of the matrix depend on each other.

        Raises
        ------
        FitError
        """
        if not self.is_free:
            raise FitError(
                f"random effects have the covariance {self}: {what} can be done where it is "
                "unstructured or diagonal."
            )

    @property
    def free_blocks(self) -> tuple[tuple[int, ...], ...]:
        """The sets of coefficients whose covariance matrix can be any; all others are zero.

        Raises
        ------
        FitError
            If there are none.
        """
        self.check_free()
        return ()


class _FreeElements(Covariance):
    """A covariance whose theta are elements of Lambda, lower triangular, column by column."""

    @property
    @abstractmethod
    def free_elements(self) -> Elements:
        """Rows and columns of the free elements, in the order of theta."""

    @property
    def is_free(self) -> bool:
        return True

    @property
    def n_theta(self) -> int:
        return len(self.free_elements[0])

    def theta_names(self, label: str, coefs: Sequence[str]) -> list[str]:
        return [
            f"{label}.{coefs[i]}" + (f".{coefs[j]}" if i != j else "")
            for i, j in zip(*self.free_elements, strict=True)
        ]

    def factor(self, theta: Array) -> Array:
        Lambda = np.zeros((*theta.shape[:-1], self.k, self.k))
        Lambda[..., *self.free_elements] = theta
        return Lambda

    def pull_back(self, slope: Array, theta: Array) -> Array:  # noqa: ARG002 -- linear in theta
        return np.asarray(slope[..., *self.free_elements])

    def jacobian(self, theta: Array) -> Array:  # noqa: ARG002 -- linear in theta
        return _unit_matrices(type(self), self.k)

    def curvature(self, slope: Array, theta: Array) -> Array:  # noqa: ARG002 -- linear in theta
        return np.zeros((len(theta), len(theta)))


class Unstructured(_FreeElements):
    """Any covariance matrix, as `(x | g)` has it: theta is the lower triangle of Lambda, as lme4's.

    Examples
    --------
    >>> Unstructured(2).factor(np.array([1.0, 0.5, 2.0]))
    array([[1. , 0. ],
           [0.5, 2. ]])
    >>> Unstructured(2).theta_names("g", ["Intercept", "x"])
    ['g.Intercept', 'g.x.Intercept', 'g.x']
    """

    kept_by = Bases.TRIANGULAR

    @property
    def free_elements(self) -> Elements:
        return _triangle(self.k)

    def theta_of(self, root: Array) -> Array:
        return np.asarray(lower_factor(root)[..., *self.free_elements])

    def simplest(self, theta: Array) -> Array:
        Lambda = self.factor(theta)
        if not np.tril(Lambda, -1).any():  # each sd by itself
            return np.where(np.abs(theta) < NEARLY_ZERO_SD, 0.0, theta)
        vectors, sds, _ = np.linalg.svd(Lambda)
        small = sds < NEARLY_ZERO_SD * max(1.0, sds[0])
        return self.theta_of(vectors * np.where(small, 0.0, sds)) if small.any() else theta

    @property
    def n_correlations(self) -> int:
        return self.k * (self.k - 1) // 2

    def correlation_names(self, coefs: Sequence[str]) -> list[str]:
        return [f"{coefs[c]}, {coefs[r]}" for r in range(self.k) for c in range(r)]

    def correlation_shapes(self, eta: float) -> Array:
        """Return b as Lewandowski, Kurowicka & Joe (2009) have it, section 2.4."""
        return np.asarray(eta + (self.k - 2 - np.tril_indices(self.k, -1)[1]) / 2)

    def factor_of(self, sds: Array, correlations: Array) -> Array:
        return np.asarray(sds[..., None] * unit_factor(correlations, self.k))

    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        U = unit_factor(correlations, self.k)
        return (slope * U).sum(axis=-1), partial_slopes(sds[..., None] * slope, U, correlations)

    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        sds = np.linalg.norm(root, axis=-1)
        return sds, partial_correlations(correlations(root / sds[..., None]))

    @property
    def free_blocks(self) -> tuple[tuple[int, ...], ...]:
        return (tuple(range(self.k)),)


class Diagonal(_FreeElements):
    """Independent coefficients, as `(x || g)` has them: theta is the diagonal of Lambda.

    Examples
    --------
    >>> Diagonal(2).theta_of(np.array([[3.0, 0.0], [0.0, -2.0]]))
    array([3., 2.])
    """

    kept_by = Bases.DIAGONAL

    @property
    def free_elements(self) -> Elements:
        return _diagonal(self.k)

    def theta_of(self, root: Array) -> Array:
        return np.linalg.norm(root, axis=-1)

    def simplest(self, theta: Array) -> Array:
        return np.where(np.abs(theta) < NEARLY_ZERO_SD, 0.0, theta)

    @property
    def n_correlations(self) -> int:
        return 0

    def correlation_names(self, coefs: Sequence[str]) -> list[str]:  # noqa: ARG002 -- none
        return []

    def correlation_shapes(self, eta: float) -> Array:  # noqa: ARG002 -- none
        return np.empty(0)

    def factor_of(self, sds: Array, correlations: Array) -> Array:  # noqa: ARG002 -- there are none
        return self.factor(sds)

    def slopes_of(self, slope: Array, sds: Array, correlations: Array) -> tuple[Array, Array]:
        return self.pull_back(slope, sds), correlations

    def sds_and_correlations(self, root: Array) -> tuple[Array, Array]:
        sds = self.theta_of(root)
        return sds, sds[..., :0]

    @property
    def free_blocks(self) -> tuple[tuple[int, ...], ...]:
        return tuple((i,) for i in range(self.k))


@cache
def _unit_matrices(structure: type[_FreeElements], k: int) -> Array:
    """Return a matrix for each free element, which is one there and else zero."""
    covariance = structure(k)
    return covariance.factor(np.eye(covariance.n_theta))


@cache
def _triangle(k: int) -> Elements:
    columns, rows = np.triu_indices(k)
    return rows, columns


@cache
def _diagonal(k: int) -> Elements:
    return np.arange(k), np.arange(k)


# ------------------------------------------------------------------------- of several terms


def factors(theta: Array, covariances: Sequence[Covariance]) -> list[Array]:
    """Return the relative factor of each term, shape (..., k, k).

    Parameters
    ----------
    theta : ndarray, shape (..., sum of n_theta)
        Of one term after the other.
    covariances : sequence of Covariance

    Examples
    --------
    >>> factors(np.array([1.0, 2.0, 3.0]), [Diagonal(2), Unstructured(1)])[1]
    array([[3.]])
    """
    thetas = by_term(theta, covariances)
    return [c.factor(of_term) for c, of_term in zip(covariances, thetas, strict=True)]


def pull_back(slopes: Sequence[Array], theta: Array, covariances: Sequence[Covariance]) -> Array:
    """Return the derivative by theta of all terms from the derivatives by their factors."""
    terms = zip(covariances, slopes, by_term(theta, covariances), strict=True)
    return _joined(theta, [c.pull_back(slope, of_term) for c, slope, of_term in terms])


def theta_of(roots: Sequence[Array], covariances: Sequence[Covariance]) -> Array:
    """Return theta of all terms from square roots of their covariances."""
    thetas = [c.theta_of(root) for c, root in zip(covariances, roots, strict=True)]
    return np.concatenate(thetas, axis=-1) if thetas else np.empty(0)


def simplest(theta: Array, covariances: Sequence[Covariance]) -> Array:
    """Return one theta near another whose smallest sds are exactly zero."""
    terms = zip(covariances, by_term(theta, covariances), strict=True)
    return _joined(theta, [c.simplest(of_term) for c, of_term in terms])


def n_theta(covariances: Sequence[Covariance]) -> int:
    """Return the number of elements of theta of all terms."""
    return sum(c.n_theta for c in covariances)


def by_term(theta: Array, covariances: Sequence[Covariance]) -> list[Array]:
    """Return theta of each term, shape (..., n_theta)."""
    return [theta[..., span] for span in spans(c.n_theta for c in covariances)]


def _joined(theta: Array, by_term: Sequence[Array]) -> Array:
    return np.concatenate([theta[..., :0], *by_term], axis=-1)


# ------------------------------------------------------------------------- of any structure


def sd_and_corr(cov: Array) -> tuple[Array, Array]:
    """Return standard deviations, shape (k,), and correlations, shape (k, k), of a covariance.

    A correlation with a coefficient of zero variance is not defined: nan.
    """
    sd = np.sqrt(np.diag(cov))
    with np.errstate(invalid="ignore", divide="ignore"):
        corr = cov / np.outer(sd, sd)
    corr[np.diag_indices_from(corr)] = 1.0
    return sd, np.clip(corr, -1.0, 1.0)
