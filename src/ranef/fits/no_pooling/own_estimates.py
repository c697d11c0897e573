"""Each group's own estimates, from its own rows alone: by least squares or maximum likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array, Codes, Flags, Integers
from ranef.design.design import Design
from ranef.design.groups import is_nested
from ranef.design.rows.rows import TermRows
from ranef.families.family import Family
from ranef.fits.no_pooling.own_columns import GroupingColumns, OwnRegressions, own_regressions
from ranef.fits.no_pooling.own_likelihoods import GroupRows, maximised
from ranef.fits.tables import effect_labels
from ranef.printing.frames import captioned


@dataclass(frozen=True, eq=False)
class Estimates:
    """What a fit says of its parameters.

    Attributes
    ----------
    beta : ndarray, shape (p,)
    b : mapping of str to ndarray, shape (m, k)
        Random effects by label of the term.
    covs : mapping of str to ndarray, shape (k, k)
        Their covariances.
    family : Family
    psi : ndarray, shape (r,)
        The family's own parameters.
    sigma : float
        The residual standard deviation of a linear model; 1 otherwise.
    """

    beta: Array
    b: Mapping[str, Array]
    covs: Mapping[str, Array]
    family: Family
    psi: Array
    sigma: float


@dataclass(frozen=True, eq=False)
class OwnEstimates:
    """The coefficients of each group by its rows alone, and what the model says of the same.

    Attributes
    ----------
    factor : GroupingColumns
    regressions : OwnRegressions
        Of a generalised model at the maximum.
    names : tuple of str
        Of the k coefficients of the factor, and of the q other fixed effects that are estimated.
    own : ndarray, shape (m, k + q)
        nan where the rows of a group do not determine a coefficient, and where the likelihood
        rises without end, as with successes alone.
    population, model : ndarray, shape (m, k)
        Of the same coefficients, the fixed part, and with the random effects of the group.
    of_groups : ndarray of bool
        Which of the factor's other fixed columns vary within no group.
    held : ndarray of bool, shape (m,)
        Whether fixed effects that a group's rows leave open are held at the fit's.
    squares : ndarray, shape (m,)
        The residual sum of squares of each group; nan in a generalised model.
    """

    factor: GroupingColumns
    regressions: OwnRegressions
    names: tuple[str, ...]
    own: Array
    population: Array
    model: Array
    of_groups: Flags
    held: Flags
    squares: Array

    @property
    def unscaled(self) -> Array:
        """The standard errors at a residual standard deviation of 1, shape (m, k + q)."""
        found = self.regressions
        return np.where(found.determined, np.sqrt(found.variances), np.nan)

    @property
    def df(self) -> Integers:
        """The degrees of freedom of the residuals of each group, shape (m,)."""
        return self.regressions.counts - self.regressions.ranks

    def spread(self, *, pooled: bool) -> tuple[Array, Array]:
        """Return the residual standard deviation of each group, and its degrees of freedom.

        Where it is pooled it is that of the residuals of all groups.
        """
        squares, df = self.squares, self.df.astype(np.float64)
        if pooled:
            squares, df = (np.full(len(df), one.sum()) for one in (squares, df))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(df > 0, np.sqrt(squares / df), np.nan), df


def own_estimates(
    design: Design, factor: GroupingColumns, fit: Estimates, *, hold: bool = False
) -> OwnEstimates:
    """Estimate the coefficients of each group from its own rows.

    Parameters
    ----------
    design : Design
    factor : GroupingColumns
    fit : Estimates
    hold : bool
        Whether the other fixed effects that vary within groups are held at the fit's, in place of
        being estimated in each group. Where the likelihood of a group has no maximum over all of
        them, they are held in any case.
    """
    one = _own_estimates(design, factor, fit, hold=hold)
    if fit.family.is_linear or len(one.names) == len(factor.coefs):
        return one
    return _with_more(one, _own_estimates(design, factor, fit, hold=True))


def _own_estimates(
    design: Design, factor: GroupingColumns, fit: Estimates, *, hold: bool
) -> OwnEstimates:
    rows, m, k = design.rows, len(factor.levels), len(factor.coefs)
    X, beta, linear = rows.X[:, factor.others], fit.beta[factor.others], fit.family.is_linear
    weights = rows.weights if linear else np.ones(len(rows.y))
    found = own_regressions(factor.columns, X, weights, factor.codes, m)
    of_groups = found.aliased.all(axis=0)  # columns that vary within no group
    kept = np.flatnonzero(~of_groups & (not hold))
    if len(kept) < len(factor.others):
        found = own_regressions(factor.columns, X[:, kept], weights, factor.codes, m)
    at_fit = X * np.where(of_groups, 0.0, beta)
    at_fit[:, kept] *= found.aliased[factor.codes]
    rest = rows.offset + at_fit.sum(axis=1)
    fixed = found.coefficients(X[:, of_groups] @ beta[of_groups])[:, :k]
    population = factor.fixed_shares @ fit.beta + fixed
    around = found.coefficients(_enclosing(design, factor, fit.b))[:, :k]
    model = population + factor.effects(fit.b) + around
    if linear:
        own = found.coefficients(rows.y - rest)
        residuals = rows.y - rest - np.sum(found.columns * own[factor.codes], axis=1)
        squares = found.sums(rows.weights * residuals**2)
    else:
        start = np.hstack([model, np.tile(beta[kept], (m, 1)) * ~found.aliased])
        likelihoods = GroupRows(fit.family, rows.y, rows.weights, fit.psi, rest)
        own, found = maximised(found, likelihoods, start)
        squares = np.full(m, np.nan)
    return OwnEstimates(
        factor=factor,
        regressions=found,
        names=(*factor.coefs, *(design.fixed[factor.others[j]] for j in kept)),
        own=np.where(found.determined, own, np.nan),
        population=population,
        model=model,
        of_groups=of_groups,
        held=found.sums(at_fit != 0).any(axis=1),
        squares=squares,
    )


def _with_more(one: OwnEstimates, other: OwnEstimates) -> OwnEstimates:
    """Return one record, with the groups of another that says more of the factor's coefficients."""
    k, codes = len(one.factor.coefs), one.factor.codes
    known, more = one.regressions.determined[:, :k], other.regressions.determined
    better = more.sum(axis=1) > known.sum(axis=1)

    def mixed[T: Any](first: T, second: T, chosen: Flags) -> T:
        rest = np.zeros((len(first), first.shape[1] - k), dtype=first.dtype)
        return np.where(chosen[:, None], np.hstack([second, rest]), first)  # type: ignore[return-value]

    old, new = one.regressions, other.regressions
    regressions = replace(
        old,
        columns=mixed(old.columns, new.columns, better[codes]),
        map=mixed(old.map, new.map, better[codes]),
        variances=mixed(old.variances, new.variances, better),
        determined=mixed(old.determined, new.determined, better),
        ranks=np.where(better, new.ranks, old.ranks),
    )
    own = np.where(regressions.determined, mixed(one.own, other.own, better), np.nan)
    held = np.where(better, other.held, one.held)
    return replace(one, regressions=regressions, own=own, held=held)


def _enclosing(design: Design, factor: GroupingColumns, b: Mapping[str, Array]) -> Array:
    """Return the random effects of the factors that this one is nested in, shape (n,).

    They belong to the coefficients of its groups.
    """
    total = np.zeros(len(factor.codes))
    for term in design.rows.terms:
        if term.factor != factor.name and is_nested(factor.codes, term.codes):
            total += np.sum(term.columns * b[term.label][term.codes], axis=1)
    return total


def reliability(design: Design, one: OwnEstimates, fit: Estimates) -> Array:
    """Return the share of the variance of own estimates that is of the groups, shape (m, k).

    The variance of the groups' coefficients over that of their own estimates around the
    population, which has the errors of the rows in addition, and the random effects of other
    factors that a group's rows average over.
    """
    k, codes = len(one.factor.coefs), one.factor.codes
    signal = np.tile(np.diag(one.factor.covariance(fit.covs)), (len(one.own), 1))
    noise = (fit.sigma * one.unscaled[:, :k]) ** 2
    lines = one.regressions.map[:, :k]
    for term in design.rows.terms:
        if term.factor == one.factor.name:
            continue
        added = _variance(lines, codes, term, fit.covs[term.label], len(signal))
        if is_nested(codes, term.codes):
            signal += added
        else:
            noise += added
    with np.errstate(invalid="ignore"):
        return np.where(signal > 0, signal / (signal + noise), np.where(np.isnan(noise), noise, 0))


def _variance(lines: Array, codes: Codes, term: TermRows, cov: Array, m: int) -> Array:
    """Return the variance that random effects of another term bring into coefficients, (m, k)."""
    pairs, place = np.unique(np.stack([codes, term.codes]), axis=1, return_inverse=True)
    total = np.zeros((m, lines.shape[1]))
    for j, line in enumerate(lines.T):
        sums = np.array([np.bincount(place.ravel(), line * z) for z in term.columns.T]).T
        total[:, j] = np.bincount(pairs[0], np.einsum("ij,jk,ik->i", sums, cov, sums), m)
    return total


def own_table(one: OwnEstimates, prob: float, *, pooled: bool, family: Family) -> pd.DataFrame:
    """Return the own estimates with their errors and intervals, one row a group and coefficient.

    Parameters
    ----------
    one : OwnEstimates
    prob : float
        Probability of the intervals.
    pooled : bool
        Whether groups have one residual standard deviation, or each its own.
    family : Family
    """
    m, names = len(one.own), one.names
    if family.is_linear:
        sigma, df = one.spread(pooled=pooled)
        quantile = np.where(df > 0, special.stdtrit(np.maximum(df, 1), 0.5 + prob / 2), np.nan)
        how = "one residual sd of all groups" if pooled else "each group's own residual sd"
    else:
        sigma, df = np.ones(m), np.full(m, np.inf)
        quantile = np.full(m, special.ndtri(0.5 + prob / 2))
        how = "from the curvature of its likelihood"
    sd = one.unscaled * sigma[:, None]
    half = sd * quantile[:, None]
    table = effect_labels(one.factor.name, one.factor.levels, names).assign(
        estimate=one.own.ravel(),
        sd=sd.ravel(),
        lower=(one.own - half).ravel(),
        upper=(one.own + half).ravel(),
        df=np.repeat(df, len(names)),
        n=np.repeat(one.regressions.counts, len(names)),
    )
    table.attrs["interval"] = f"each group by itself, {100 * prob:g} % interval, {how}"
    return table


def shrinkage_table(design: Design, one: OwnEstimates, fit: Estimates) -> pd.DataFrame:
    """Compare each group's own estimate with the model's.

    Parameters
    ----------
    design : Design
    one : OwnEstimates
        Of a factor.
    fit : Estimates

    Returns
    -------
    DataFrame
        One row a level and coefficient, columns as of `Fit.shrinkage_table`.
    """
    factor, k = one.factor, len(one.factor.coefs)
    own = one.own[:, :k]
    scale = one.spread(pooled=True)[0][:, None] if fit.family.is_linear else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        way = (own - one.model) / (own - one.population)
    columns = {
        "own": own,
        "model": one.model,
        "population": one.population,
        "n": np.repeat(one.regressions.counts, k),
        "se": one.unscaled[:, :k] * scale,
        "reliability": reliability(design, one, fit),
        "shrinkage": np.where(np.isfinite(way), way, np.nan),
        "held": np.repeat(one.held, k),
    }
    table = effect_labels(factor.name, factor.levels, factor.coefs).assign(
        **{name: np.asarray(values).ravel() for name, values in columns.items()}
    )
    return captioned(table, shown="no pooling (own), partial pooling (model) and complete pooling")
