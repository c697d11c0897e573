"""The maximum likelihood of each group's coefficients, all groups at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ranef._typing import Array
from ranef.families.family import Family
from ranef.fits.no_pooling.own_columns import ESTIMABLE, OwnRegressions

STEPS, HALVINGS = 100, 40
SETTLED = 1e-10  # what a last step may promise
ENDLESS = 3e-3  # of the way so far: a last step that is no last one
SMALL = 1e-4  # a last step of the linear predictor, whatever the way
ENOUGH = 1e-4  # of the gain that a step promises
ROUNDING = 1e-12  # of an eigenvalue that is zero, relative to the largest
OPEN = 3e3  # a standard error, on the scale of the link, of what has no maximum


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


def maximised(found: OwnRegressions, rows: GroupRows, start: Array) -> tuple[Array, OwnRegressions]:
    """Maximise each group's likelihood over its coefficients.

    Parameters
    ----------
    found : OwnRegressions
        What the rows of each group determine, were it by least squares.
    rows : GroupRows
    start : ndarray, shape (m, k)
        Where the search begins; likelihoods have to be finite there.

    Returns
    -------
    ndarray, shape (m, k)
    OwnRegressions
        With the weights at the maximum; a coefficient without a finite maximum is not determined.

    Notes
    -----
    By damped Newton steps. They get shorter and shorter near a maximum. Where the likelihood rises
    without end they stay as long as they are, although there is less and less to gain, and what is
    known of the coefficient gets less and less too.
    """
    scale = np.sqrt(np.mean(found.columns**2, axis=0))
    scale[scale == 0] = 1.0
    likelihoods = _Likelihoods(rows, found, found.columns / scale)
    first = now = likelihoods.at(start * scale)
    moving, last = found.ranks > 0, np.zeros_like(start)
    for _ in range(STEPS):
        step = np.squeeze(np.linalg.pinv(now.information, hermitian=True) @ now.score[..., None], 2)
        step, gain = step * moving[:, None], np.sum(step * now.score, axis=1) * moving
        now = _uphill(likelihoods, now, step, gain)
        last = np.where(moving[:, None], step, last)
        moving = moving & (gain > SETTLED)
        if not moving.any():
            break
    inverse = np.linalg.pinv(now.information, hermitian=True)
    products = inverse, inverse @ now.information
    variances, resolved = (np.diagonal(one, axis1=1, axis2=2) for one in products)
    way = np.maximum(np.abs(now.coefs - first.coefs), np.abs(now.coefs))
    exists = (np.abs(last) <= np.maximum(ENDLESS * way, SMALL)) & ~moving[:, None]
    exists &= (variances < OPEN**2) & (np.abs(resolved - 1) < ESTIMABLE)
    weighted = now.weights[:, None] * likelihoods.Z
    lines = np.einsum("nk,nkj->nj", weighted, inverse[found.codes]) / scale
    variances = np.maximum(variances, 0.0) / scale**2
    known = found.determined & exists
    return now.coefs / scale, replace(found, map=lines, variances=variances, determined=known)


@dataclass(frozen=True, eq=False)
class _Point:
    """The log-likelihood of each group and its derivatives at coefficients, shape (m, k)."""

    coefs: Array
    value: Array
    score: Array
    information: Array
    weights: Array


@dataclass(frozen=True, eq=False)
class _Likelihoods:
    """The log-likelihoods of all groups as functions of their coefficients."""

    rows: GroupRows
    found: OwnRegressions
    Z: Array

    def at(self, coefs: Array) -> _Point:
        rows, sums = self.rows, self.found.sums
        eta = rows.rest + np.sum(self.Z * coefs[self.found.codes], axis=1)
        with np.errstate(all="ignore"):
            expansion = rows.family.expansion(rows.y, eta, rows.weights, rows.psi)
        return _Point(
            coefs,
            sums(expansion.value),
            sums(expansion.score[:, None] * self.Z),
            self._information(expansion.weight),
            expansion.weight,
        )

    def _information(self, weight: Array) -> Array:
        """Return the observed information, or a positive semi-definite stand-in."""
        observed, absolute = self._squares(weight), self._squares(np.abs(weight))
        lowest, highest = np.linalg.eigvalsh(observed)[:, [0, -1]].T
        is_convex = lowest >= -ROUNDING * highest
        return np.where(is_convex[:, None, None], observed, absolute)

    def _squares(self, weight: Array) -> Array:
        return self.found.sums((weight[:, None] * self.Z)[:, :, None] * self.Z[:, None, :])


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


def _rounding(value: Array) -> Array:
    return 1e-14 * np.abs(value)
