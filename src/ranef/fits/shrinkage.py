"""From no pooling to partial pooling: what a model does to each group's own estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm, TermRows
from ranef.families.family import Family

RANK = 1e-9  # of a singular value, relative to the largest
STEPS, HALVINGS = 100, 40
SETTLED = 1e-10  # what a last step may promise
ENDLESS = 3e-3  # of the way so far: a last step that is no last one
ENOUGH = 1e-4  # of the gain that a step promises


def shrinkage_table(
    design: Design,
    term: RandomTerm,
    *,
    beta: pd.Series[float],
    b: Mapping[str, Array],
    family: Family,
    psi: Array,
) -> pd.DataFrame:
    """Compare each group's own estimate with the model's.

    A group's own estimate is the maximum likelihood estimate of the term's coefficients from the
    rows of that group alone: with a normal response and identity link (weighted) least squares.
    What other fixed effects and other random terms explain is held at the model's estimates.

    Parameters
    ----------
    design : Design
    term : RandomTerm
    beta : Series
        Fixed effects by name.
    b : mapping of str to ndarray, shape (m, k)
        Random effects of every term, by label.
    family : Family
    psi : ndarray, shape (r,)
        The family's own parameters.

    Returns
    -------
    DataFrame
        `term, level, coef, own, model, population, n`: no pooling (nan where the group's rows do
        not determine it, and where the likelihood rises without end, as with successes alone),
        partial pooling, complete pooling, and the number of rows. All on the link scale.
    """
    found = design.fixed_among_term(term.label)
    population = found.coefs[:, found.exact] @ beta.to_numpy()[found.exact]
    model = population + b[term.label]
    rest = _rest(design, term, np.where(found.exact, 0.0, beta), b)
    grouped = design.rows.term(term.label)
    if family.is_linear:
        own, counts = group_least_squares(grouped, design.rows.y - rest, design.rows.weights)
    else:
        rows = GroupRows(family, design.rows.y, design.rows.weights, psi, rest)
        own, counts = group_maximum_likelihood(grouped, rows, model)
    return effect_labels(term).assign(
        own=own.ravel(),
        model=model.ravel(),
        population=np.tile(population, term.n_levels),
        n=np.repeat(counts, term.n_coefs),
    )


def effect_labels(term: RandomTerm) -> pd.DataFrame:
    """Return the columns `term, level, coef` of a table with a row a level and coefficient."""
    m, k = term.n_levels, term.n_coefs
    return pd.DataFrame(
        {
            "term": term.label,
            "level": np.repeat(term.levels.to_numpy(), k),
            "coef": np.tile(np.array(term.coefs, dtype=object), m),
        }
    )


def group_least_squares(
    term: TermRows, response: Array, weights: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Fit the columns of a term to each group's rows.

    Returns
    -------
    ndarray, shape (m, k)
        nan for the groups whose columns are linearly dependent.
    ndarray of int, shape (m,)
        Rows of each group.
    """
    scale, groups = _scale(term), _groups(term)
    Z = term.columns / scale
    own = np.full((term.n_levels, term.n_coefs), np.nan)
    for level, rows in enumerate(groups):
        root = np.sqrt(weights[rows])[:, None]
        coefs, _, rank, _ = np.linalg.lstsq(Z[rows] * root, response[rows] * root[:, 0], rcond=RANK)
        if rank == term.n_coefs:
            own[level] = coefs
    return own / scale, np.array([len(rows) for rows in groups])


@dataclass(frozen=True, eq=False)
class GroupRows:
    """What the likelihood of each row needs besides the coefficients of its group.

    Attributes
    ----------
    family : Family
    y, weights : ndarray, shape (n,)
    psi : ndarray, shape (r,)
        The family's own parameters.
    rest : ndarray, shape (n,)
        The linear predictor without those coefficients.
    """

    family: Family
    y: Array
    weights: Array
    psi: Array
    rest: Array


def group_maximum_likelihood(
    term: TermRows, rows: GroupRows, start: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Maximise each group's likelihood over the coefficients of a term, all groups at a time.

    Parameters
    ----------
    term : TermRows
    rows : GroupRows
    start : ndarray, shape (m, k)
        Where the search begins; likelihoods have to be finite there.

    Returns
    -------
    ndarray, shape (m, k)
        nan for the groups whose columns are linearly dependent, or whose likelihood has no maximum.
    ndarray of int, shape (m,)
        Rows of each group.

    Notes
    -----
    By damped Newton steps. They get shorter and shorter near a maximum. Where the likelihood rises
    without end they stay as long as they are, although there is less and less to gain.
    """
    scale, groups = _scale(term), _groups(term)
    Z = term.columns / scale
    ranks = [np.linalg.matrix_rank(Z[g], rtol=RANK) if len(g) else 0 for g in groups]
    determined = np.array(ranks) == term.n_coefs
    likelihoods = _Likelihoods(rows, term, Z)
    first = now = likelihoods.at(start * scale)
    moving, last = determined, np.zeros_like(start)
    for _ in range(STEPS):
        step = np.squeeze(np.linalg.pinv(now.information, hermitian=True) @ now.score[..., None], 2)
        step, gain = step * moving[:, None], np.sum(step * now.score, axis=1) * moving
        now = _uphill(likelihoods, now, step, gain)
        last = np.where(moving[:, None], step, last)
        moving = moving & (gain > SETTLED)
        if not moving.any():
            break
    way = np.maximum(_length(now.coefs - first.coefs), _length(now.coefs))
    exists = determined & ~moving & (_length(last) <= ENDLESS * way)
    own = np.where(exists[:, None], now.coefs / scale, np.nan)
    return own, np.array([len(g) for g in groups])


@dataclass(frozen=True, eq=False)
class _Point:
    """The log-likelihood of each group and its derivatives at coefficients, shape (m, k)."""

    coefs: Array
    value: Array
    score: Array
    information: Array


@dataclass(frozen=True, eq=False)
class _Likelihoods:
    """The log-likelihoods of all groups as functions of their coefficients."""

    rows: GroupRows
    term: TermRows
    Z: Array

    def at(self, coefs: Array) -> _Point:
        rows = self.rows
        eta = rows.rest + np.sum(self.Z * coefs[self.term.codes], axis=1)
        with np.errstate(all="ignore"):
            expansion = rows.family.expansion(rows.y, eta, rows.weights, rows.psi)
        return _Point(
            coefs,
            self._sums(expansion.value),
            np.stack([self._sums(expansion.score * z) for z in self.Z.T], axis=1),
            self._information(expansion.weight),
        )

    def _information(self, weight: Array) -> Array:
        """Return the observed information, or a positive semi-definite stand-in."""
        observed, absolute = self._squares(weight), self._squares(np.abs(weight))
        is_convex = np.linalg.eigvalsh(observed)[:, 0] > 0
        return np.where(is_convex[:, None, None], observed, absolute)

    def _squares(self, weight: Array) -> Array:
        sums = [[self._sums(weight * a * b) for a in self.Z.T] for b in self.Z.T]
        return np.array(sums).transpose(2, 0, 1)

    def _sums(self, values: Array) -> Array:
        return np.bincount(self.term.codes, values, self.term.n_levels)


def _uphill(likelihoods: _Likelihoods, now: _Point, step: Array, gain: Array) -> _Point:
    """Take steps, halved for each group until its likelihood rises enough."""
    size = np.ones(len(step))
    for _ in range(HALVINGS):
        ahead = likelihoods.at(now.coefs + size[:, None] * step)
        short = ~(ahead.value >= now.value + ENOUGH * size * gain - _rounding(now.value))
        if not short.any():
            break
        size = np.where(short, size / 2, size)
    return ahead


def _length(coefs: Array) -> Array:
    return np.asarray(np.linalg.norm(coefs, axis=1))


def _rounding(value: Array) -> Array:
    return 1e-14 * np.abs(value)


def _scale(term: TermRows) -> Array:
    """Return the root mean square of each column, shape (k,)."""
    scale = np.sqrt(np.mean(term.columns**2, axis=0))
    return np.where(scale > 0, scale, 1.0)


def _groups(term: TermRows) -> list[NDArray[np.intp]]:
    """Return the rows of each group."""
    order = np.argsort(term.codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(term.codes, minlength=term.n_levels))[:-1])


def _rest(design: Design, term: RandomTerm, beta: Array, b: Mapping[str, Array]) -> Array:
    """Return the linear predictor of other fixed effects, and of the other terms."""
    rest = design.rows.offset + design.rows.X @ beta
    for other in design.rows.terms:
        if other.label != term.label:
            rest = rest + np.sum(other.columns * b[other.label][other.codes], axis=1)
    return np.asarray(rest)
