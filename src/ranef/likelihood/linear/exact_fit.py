"""Responses that a linear model fits exactly, so that its likelihood rises without end.

Let y be a combination of the columns of X and of the Z_S of some coefficients. As sigma goes to
zero while the variances of these stay, the restricted likelihood grows like
sigma^-(n - rank [X Z_S]), and so does the density of y under proper priors of the fixed effects;
the likelihood of maximum likelihood grows like sigma^-(n - rank Z_S). Where these ranks are n it
stays finite. So sigma has no estimate, and no posterior unless its prior vanishes at zero. A
response that is constant within groups is of this kind, and so is any response if the effects are
as many as the rows.

Exact is what the rounding of y leaves open. A penalised fit with large relative sds says at the
cost of one factorisation that a response is not fitted; only where it nearly is, the residuals are
found row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.identifiability import constant_within, no_residual
from ranef.errors import DataError
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.blocked_cholesky import Factorized
from ranef.likelihood.linear.crossproducts import (
    CrossProducts,
    cross_products,
    fixed_shares,
    residual_sums,
)
from ranef.likelihood.linear.optimum.average_information import times
from ranef.numerics.matrices import threads_for

ABSORBED = 1e-12  # of a fixed column: what random effects leave of it is rounding
LARGE_SDS = (1e3, 1e4)  # relative to sigma; what is fitted leaves r^2 like their inverse square
MAX_PENALISED_SHARE = 1e-6  # of the variation of y, in the penalised fit of what is fitted exactly
RELATIVE_ROUNDING = 1e-13  # of the variation of y, in fitted values
MAX_COEFFICIENTS = 6  # of which all subsets are tried
MAX_DIRECT = 500  # crossed effects from which on a bound is cheaper than a factorisation
MAX_STEPS = 40  # of conjugate gradients
MAX_LEFT = 1e-28  # of the square of the right side, where these have come to an end
SHRUNK = 0.1  # of what is left with the smaller of the large sds; 0.01 in theory
REFINEMENTS = 3  # of fitted values, each of which leaves 1e-8 of the error

NO_RESIDUAL = "there is no residual variation to estimate sigma from"
KNOWN_SIGMA = "Where the standard errors of the rows are known, give them as se=."


def check_residual_variation(design: Design, cross: CrossProducts, *, reml: bool) -> None:
    """Refuse a response that leaves nothing to estimate sigma from.

    Parameters
    ----------
    design : Design
        Of full rank.
    cross : CrossProducts
        Of the design.
    reml : bool
        False for maximum likelihood.

    Raises
    ------
    DataError
    """
    if cross.p >= cross.n:
        return
    with threads_for(len(cross.fixed)):
        if np.sqrt(cross.fixed[-1, -1]) <= _rounding(design):
            message = f"the fixed effects fit the response `{design.response}` exactly: there is "
            raise DataError(message + "no residual variation to model.")
        for chosen in _subsets(cross):
            fit = _Fit(design, cross, chosen)
            if fit.is_unbounded(reml=reml):
                raise DataError(_message(design, cross, fits_any=fit.fits_any))


def _message(design: Design, cross: CrossProducts, *, fits_any: bool) -> str:
    if fits_any:
        q = sum(term.n_levels * term.n_coefs for term in design.terms)
        return (
            f"{cross.p} fixed and {q} random effects fit any response of {cross.n} rows exactly, "
            "and the likelihood has no maximum: it rises without end as sigma goes to zero. Use "
            'method="reml", or "map" and Bayesian fits with proper priors, or a simpler model.'
        )
    if (factor := constant_within(design)) is not None:
        return f"{no_residual(design, factor, 'sigma')} {KNOWN_SIGMA}"
    return f"the model fits the response `{design.response}` exactly: {NO_RESIDUAL}. {KNOWN_SIGMA}"


def _rounding(design: Design) -> float:
    """Return how far rounding may take a response from values that are fitted exactly."""
    rows, root = design.sufficient, np.sqrt(design.sufficient.weights)
    rounding = np.spacing(np.abs(rows.y)) * (rows.y != 0) + np.spacing(np.abs(rows.offset))
    y = rows.y - rows.offset
    variation = (y - np.average(y, weights=rows.weights)) * root
    return float(np.linalg.norm(rounding * root) + RELATIVE_ROUNDING * np.linalg.norm(variation))


def _subsets(cross: CrossProducts) -> Iterator[tuple[Array, ...]]:
    """Yield sets of coefficients, as zeros and ones for each term.

    All of them are enough, unless together they can fit any response.
    """
    sizes = [covariance.k for covariance in cross.covariances]
    every = range(sum(sizes))
    some = cross.p + sum(cross.sizes) >= cross.n and len(every) <= MAX_COEFFICIENTS
    if not sizes:
        return
    for size in range(len(every), 0 if some else len(every) - 1, -1):
        for members in combinations(every, size):
            mask = np.zeros(len(every))
            mask[list(members)] = 1.0
            yield tuple(np.split(mask, np.cumsum(sizes)[:-1]))


def _dot(first: list[Array], second: list[Array]) -> float:
    return sum(float(np.vdot(a, b)) for a, b in zip(first, second, strict=True))


def _times(first: list[Array], second: list[Array]) -> list[Array]:
    return [a * b for a, b in zip(first, second, strict=True)]


def _inverse_or_zero(x: Array) -> Array:
    return np.divide(1.0, x, out=np.zeros_like(x), where=x > 0)


@dataclass(frozen=True, eq=False)
class _Fit:
    """The fit of a response by the fixed effects and some random coefficients.

    Attributes
    ----------
    design : Design
    cross : CrossProducts
    chosen : tuple of ndarray, shape (k,)
        Zeros and ones: which coefficients of each term.
    """

    design: Design
    cross: CrossProducts
    chosen: tuple[Array, ...]

    def factorized(self, sd: float, cross: CrossProducts | None = None) -> Factorized:
        """Return the factor at the same large relative sd of all coefficients."""
        return blocked_cholesky.factorize(cross or self.cross, [sd * unit for unit in self.units])

    @property
    def units(self) -> list[Array]:
        """The factors where all chosen coefficients have a relative sd of one."""
        return [
            (T * mask) / np.linalg.norm(T, axis=0)
            for T, mask in zip(self.cross.bases, self.chosen, strict=True)
        ]

    def surely_leaves(self, least: float, sd: float) -> bool:
        """Whether a penalised fit leaves a sum of squares greater than `least`, if that is easy.

        With V the covariance of y relative to sigma^2, it is at least (r'y)^2 / r'Vr for any r that
        is orthogonal to the fixed columns, such as the residuals that a few steps of conjugate
        gradients towards the fit without a penalty leave, each coefficient in units of its own.
        """
        cross, units = self.cross, self.units
        sums = {term: (of_term, D) for term, D, of_term in residual_sums(cross)}
        right = [sums[t][0] @ unit for t, unit in enumerate(units)]
        scales = [_inverse_or_zero(sums[t][1] @ unit**2) for t, unit in enumerate(units)]
        effects, left = [np.zeros_like(g) for g in right], [g.copy() for g in right]
        direction = scaled = _times(scales, left)
        square, y2 = _dot(left, scaled), float(cross.fixed[-1, -1])
        for _ in range(MAX_STEPS):
            moved = self._seen(direction)
            size = square / max(_dot(direction, moved), np.finfo(np.float64).tiny)
            effects = [u + size * d for u, d in zip(effects, direction, strict=True)]
            left = [r - size * Ad for r, Ad in zip(left, moved, strict=True)]
            scaled = _times(scales, left)
            before, square = square, _dot(left, scaled)
            explained = _dot(effects, right)
            squared = y2 - explained - _dot(effects, left) + sd**2 * _dot(left, left)
            if (y2 - explained) ** 2 > least * squared:
                return True
            if _dot(left, left) <= MAX_LEFT * _dot(right, right):
                return False
            turn = square / before
            direction = [r + turn * d for r, d in zip(scaled, direction, strict=True)]
        return False

    def _seen(self, effects: list[Array]) -> list[Array]:
        """Return U'Z'MZU u, M the projection that takes the fixed columns out, U the units."""
        columns = [(u @ unit.T)[:, :, None] for u, unit in zip(effects, self.units, strict=True)]
        sums, fixed = times(self.cross, columns)
        for term, _, ZX in fixed_shares(self.cross, slice(0, self.cross.p)):
            sums[term] = sums[term] - ZX @ fixed[:-1]
        return [of_term[:, :, 0] @ unit for of_term, unit in zip(sums, self.units, strict=True)]

    @cached_property
    def ranks(self) -> tuple[int, int]:
        """The ranks of Z_S and of [X Z_S], from how the determinants grow with the sds."""
        logs = [
            (f.logdet, f.logdet + float(np.linalg.slogdet(f.reduced[:-1, :-1])[1]))
            for f in map(self.factorized, LARGE_SDS)
        ]
        growth = (np.array(logs[1]) - logs[0]) / (2 * np.log(LARGE_SDS[1] / LARGE_SDS[0]))
        of_Z, beyond_X = np.rint(growth).astype(int)
        return int(of_Z), int(beyond_X) + self.cross.p

    @property
    def fits_any(self) -> bool:
        """Whether any response is fitted exactly."""
        q = sum(
            m * np.count_nonzero(mask)
            for m, mask in zip(self.cross.n_levels, self.chosen, strict=True)
        )
        return bool(self.cross.p + q >= self.cross.n and self.ranks[1] >= self.cross.n)

    def is_unbounded(self, *, reml: bool) -> bool:
        """Whether the likelihood rises without end as sigma goes to zero."""
        least = MAX_PENALISED_SHARE * self.cross.fixed[-1, -1]
        if self.cross.q_rest > MAX_DIRECT and self.surely_leaves(least, LARGE_SDS[1]):
            return False
        if penalised(self.factorized(LARGE_SDS[1]))[0] > least:
            return False
        if self.fits_any:
            return not reml and self.ranks[0] < self.cross.n
        return self.is_exact

    @property
    def is_exact(self) -> bool:
        """Whether this response is fitted, up to the rounding of its values.

        Where rows are not known, whether what is left goes to zero as the sds rise.
        """
        design = self.design
        if design.sufficient.is_paired:
            some, less = (penalised(self.factorized(sd))[0] for sd in LARGE_SDS)
            return less < SHRUNK * some
        for _ in range(REFINEMENTS):
            design = design.with_rows(y=self._residuals(design), offset=np.zeros(design.n_obs))
        left = np.linalg.norm(design.sufficient.y * np.sqrt(design.sufficient.weights))
        return bool(left <= _rounding(self.design))

    def _residuals(self, design: Design) -> Array:
        """Return what a penalised fit leaves of every row."""
        cross = cross_products(design)
        factorized = self.factorized(LARGE_SDS[1], cross)
        gamma = penalised(factorized)[1]
        beta = cross.beta_ols + np.linalg.solve(cross.R, gamma)
        y = design.sufficient.y - design.sufficient.offset - design.sufficient.X @ beta
        effects = blocked_cholesky.modes(factorized, gamma)
        for term, T, b in zip(design.sufficient.terms, cross.bases, effects, strict=True):
            y -= (term.columns * np.linalg.solve(T, b.T).T[term.codes]).sum(axis=1)
        return y


def penalised(factorized: Factorized) -> tuple[float, Array]:
    """Return the penalised residual sum of squares, and the fixed effects in the basis.

    Directions that random effects take over as a whole, as the mean of a few levels with very many
    rows, need no fixed effect.
    """
    lengths, axes = np.linalg.eigh(factorized.reduced[:-1, :-1])
    kept = lengths > ABSORBED
    along = axes[:, kept].T @ factorized.reduced[:-1, -1]
    gamma = axes[:, kept] @ (along / lengths[kept])
    return float(factorized.reduced[-1, -1] - along @ (along / lengths[kept])), gamma
