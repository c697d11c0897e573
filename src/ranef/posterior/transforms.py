"""The space of the variance parameters: unconstrained coordinates x and what they stand for.

A point has a *value* for every parameter that is not integrated out: the fixed effects without a
normal or flat prior, or all of them, where none can be integrated out; the family's own parameters;
sigma; and of each term its k sds and, if it is correlated, its k (k - 1) / 2 partial correlations,
row by row. Values that are known, such as the sigma of a family without one, are left out of x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ranef.posterior.densities import (
    EDGE,
    Coordinate,
    coordinate,
    coordinate_of,
    evaluate,
    partial_correlation,
)
from ranef.priors.distributions import Constant, Flat, Normal, Prior, Relative
from ranef.priors.resolve import Priors, TermPriors

type Array = NDArray[np.float64]

TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class Space:
    """The coordinates of one model.

    Attributes
    ----------
    names : tuple of str
        One for each value: `Days`, `sigma`, `sd_Subject[Days]`, `corr_Subject[Intercept, Days]`.
    coordinates : tuple of Coordinate
        One for each free value.
    free : ndarray of int, shape (d,)
        Which values are free.
    known : ndarray, shape (n_values,)
        The values that are not free; nan elsewhere.
    relative : ndarray of bool, shape (n_values,)
        Sds whose coordinate stands for sd / sigma.
    n_given : int
        How many fixed effects and own parameters of the family come first, before sigma.
    sizes : tuple of (int, bool)
        k of each term, and whether it is correlated.
    """

    names: tuple[str, ...]
    coordinates: tuple[Coordinate, ...]
    free: NDArray[np.intp]
    known: Array
    relative: NDArray[np.bool_]
    n_given: int
    sizes: tuple[tuple[int, bool], ...]

    @property
    def d(self) -> int:
        """The number of coordinates."""
        return len(self.free)

    @property
    def free_names(self) -> tuple[str, ...]:
        """Names of the coordinates."""
        return tuple(self.names[i] for i in self.free)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Family and transform of each coordinate, shape (d, 2)."""
        codes = [(c.family, c.transform) for c in self.coordinates]
        return np.array(codes, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def numbers(self) -> Array:
        """Numbers of the family of each coordinate, shape (d, 3)."""
        return np.array([(c.a, c.b, c.c) for c in self.coordinates]).reshape(-1, 3)

    @cached_property
    def constant(self) -> float:
        """Logarithm of the normalising constant of the prior."""
        return float(sum(c.constant for c in self.coordinates))

    @cached_property
    def places(self) -> tuple[tuple[slice, slice], ...]:
        """Where the values of each term are: its sds, its partial correlations."""
        found, start = [], self.n_given + 1
        for k, correlated in self.sizes:
            stop = start + k + (k * (k - 1) // 2 if correlated else 0)
            found.append((slice(start, start + k), slice(start + k, stop)))
            start = stop
        return tuple(found)

    def values(self, x: Array, *, natural: bool = False) -> tuple[Array, Array]:
        """Return the values, shape (..., n_values), and the log prior density, shape (...).

        Parameters
        ----------
        x : ndarray, shape (..., d)
        natural : bool
            Whether the density is that of the parameters, or that of x.
        """
        values = np.broadcast_to(self.known, (*x.shape[:-1], len(self.known))).copy()
        logp = np.full(x.shape[:-1], self.constant)
        for i, place in enumerate(self.free):
            c = self.coordinates[i]
            value, _, part, _ = evaluate(
                c.family, c.transform, c.a, c.b, c.c, x[..., i], is_natural=natural
            )
            values[..., place] = value
            logp += part
        values[..., self.relative] *= values[..., self.n_given, None]
        return values, logp

    def point(self, values: Array, *, edge: float = EDGE) -> Array:
        """Return the coordinates x, shape (..., d), of values inside their ranges.

        Parameters
        ----------
        values : ndarray, shape (..., n_values)
        edge : float
            How near to the ends of a uniform prior a coordinate is looked up.
        """
        own = np.where(self.relative, values / values[..., self.n_given, None], values)
        found = np.empty((*values.shape[:-1], self.d))
        for i, (c, place) in enumerate(zip(self.coordinates, self.free, strict=True)):
            found[..., i] = coordinate_of(c, own[..., place], edge)
        return found

    def factors(self, values: Array) -> list[Array]:
        """Return the covariance factor diag(sd) U of each term, shape (..., k, k)."""
        return [
            values[..., sd, None] * unit_factor(values[..., partial], k)
            for (sd, partial), (k, _) in zip(self.places, self.sizes, strict=True)
        ]


def space_of(priors: Priors, *, all_effects: bool = False) -> Space:
    """Return the space of a model with these priors.

    Parameters
    ----------
    priors : Priors
    all_effects : bool
        Whether every fixed effect is a coordinate, whatever its prior.

    Notes
    -----
    Fixed effects and random-effects terms are those that the priors hold for, at centred
    predictors where `Priors.change` and `TermPriors.change` say so: these matrices turn them into
    the user's.
    """
    names: list[str] = []
    found: list[Coordinate | float] = []
    relative: list[bool] = []

    def add(name: str, prior: Prior, *, positive: bool) -> None:
        is_relative = isinstance(prior, Relative)
        inner = prior.prior if isinstance(prior, Relative) else prior
        names.append(name)
        relative.append(is_relative)
        known = inner.value if isinstance(inner, Constant) else None
        found.append(coordinate(inner, positive=positive) if known is None else known)

    given = range(len(priors.beta)) if all_effects else given_effects(priors)
    for j in given:
        add(priors.fixed[j], priors.beta[j], positive=False)
    for name, prior in priors.parameters:
        add(name, prior, positive=True)
    add("sigma", priors.sigma, positive=True)
    for term in priors.terms:
        for coef, prior in zip(term.coefs, term.sd, strict=True):
            add(f"sd_{term.label}[{coef}]", prior, positive=True)
        partials = _partial_correlations(term)
        names += [name for name, _ in partials]
        found += [place for _, place in partials]
        relative += [False] * len(partials)
    is_known = [isinstance(f, float | int) for f in found]
    return Space(
        names=tuple(names),
        coordinates=tuple(f for f in found if isinstance(f, Coordinate)),
        free=np.flatnonzero(~np.array(is_known, dtype=bool)),
        known=np.array([np.nan if isinstance(f, Coordinate) else float(f) for f in found]),
        relative=np.array(relative, dtype=bool),
        n_given=len(given) + len(priors.parameters),
        sizes=tuple((len(t.coefs), t.corr is not None) for t in priors.terms),
    )


def given_effects(priors: Priors) -> list[int]:
    """Return the fixed effects that are not integrated out: those whose prior is not normal."""
    return [j for j, prior in enumerate(priors.beta) if not isinstance(prior, Normal | Flat)]


def unit_factor(partial: Array, k: int) -> Array:
    """Return the Cholesky factor of a correlation matrix from its partial correlations.

    Parameters
    ----------
    partial : ndarray, shape (..., k (k - 1) / 2)
        Of coefficient r and c < r, given those before c; row by row. Empty for independence.

    Returns
    -------
    ndarray, shape (..., k, k)
        Source: Lewandowski, Kurowicka & Joe (2009), section 2.4.
    """
    U = np.zeros((*partial.shape[:-1], k, k))
    place = 0
    for r in range(k):
        rest = np.ones(partial.shape[:-1])
        for c in range(r if partial.shape[-1] else 0):
            U[..., r, c] = partial[..., place] * rest
            rest = rest * np.sqrt(np.maximum(1.0 - partial[..., place] ** 2, 0.0))
            place += 1
        U[..., r, r] = rest
    return U


def partial_slopes(slope: Array, U: Array, partial: Array) -> Array:
    """Return the derivative by the partial correlations from that by the unit factor, k x k.

    A row is (p_1, p_2 s_1, p_3 s_1 s_2, ..., s_1 s_2 ...), s_i = sqrt(1 - p_i^2).
    """
    found = np.zeros(len(partial))
    place = 0
    for r in range(1, len(U) if len(partial) else 0):
        ahead = slope[r, r] * U[r, r]
        for c in range(r - 1, -1, -1):
            p = partial[place + c]
            rest = max(1.0 - p * p, TINY)  # where it is zero, so is `ahead`
            before = np.sqrt(max(0.0, 1.0 - float(U[r, :c] @ U[r, :c])))
            found[place + c] = slope[r, c] * before - ahead * p / rest
            ahead += slope[r, c] * U[r, c]
        place += r
    return found


def correlations(U: Array) -> Array:
    """Return U U' with a diagonal of exactly one, shape (..., k, k)."""
    corr = U @ U.swapaxes(-1, -2)
    corr[..., np.arange(U.shape[-1]), np.arange(U.shape[-1])] = 1.0
    return np.clip(corr, -1.0, 1.0)


def _partial_correlations(term: TermPriors) -> list[tuple[str, Coordinate]]:
    if term.corr is None:
        return []
    k, pairs = len(term.coefs), list(zip(*np.tril_indices(len(term.coefs), -1), strict=True))
    return [
        (
            f"corr_{term.label}[{term.coefs[c]}, {term.coefs[r]}]",
            partial_correlation(term.corr.eta, k, int(c)),
        )
        for r, c in pairs
    ]
