"""Residuals of every kind: given the groups or not, standardised, whitened, by simulation.

Source: Houseman, Ryan & Coull (2004), *J. American Statistical Association* 99, 383-394 (whitened);
Dunn & Smyth (1996), *J. Computational and Graphical Statistics* 5, 236-244, and Hartig (2024),
*DHARMa* (randomised quantiles, by simulation).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy
from scipy import linalg

from ranef._typing import Array, Places
from ranef.arguments import check_choice
from ranef.design.groups import row_components
from ranef.errors import FitError, listed
from ranef.fits.checks.point_values import values_at

# by kind, the groups that it can be taken given, its own first
GIVEN = ("known", "population", "average")
KINDS = {
    "response": GIVEN,
    "pearson": GIVEN,
    "deviance": GIVEN,
    "standardized": ("known",),
    "whitened": ("population",),
    "quantile": ("new", "known"),
}
SIMULATIONS = 250  # of the responses, for quantiles
MAX_COMPONENT = 5_000  # rows that depend on each other, whose covariance is factorised
NUMBERS_AT_ONCE = 10_000_000  # responses of rows that are ranked together
MIN_REMAINDER = 1e-8  # of 1 - leverage, below which a row determines its own fitted value


def residuals(fit: Any, kind: str, groups: str | None, n: int, seed: int | None) -> Array:
    """Return the residuals of one kind, shape (n,); see `Checks.residuals`."""
    check_choice("kind", kind, KINDS, "is not a kind of residual")
    if groups is None:
        groups = KINDS[kind][0]
    check_choice("groups", groups, KINDS[kind], f"is not what {kind} residuals are given")
    if kind == "quantile":
        simulated = fit.simulate(n, seed, groups=groups)
        return ranked(np.column_stack([fit.design.rows.y, simulated]), seed)[:, 0]
    if kind == "whitened":
        return whitened(fit, fit.design.rows.y - fit.predict(groups="population"))
    rows, mu = fit.design.rows, fit.fitted() if groups == "known" else fit.predict(groups=groups)
    left, psi = rows.y - mu, fit.parameters.values()
    if kind == "response":
        return np.asarray(left)
    if kind == "deviance":
        deviance = rows.weights * fit.family.deviance(rows.y, mu, *psi)
        return np.asarray(np.sign(left) * np.sqrt(np.maximum(deviance, 0.0)))  # but for rounding
    pearson = left * np.sqrt(rows.weights / fit.family.variance(mu, *psi))
    if kind == "pearson":
        return np.asarray(pearson)
    return np.asarray(pearson / fit.sigma * freed(fit.leverage()))


def freed(leverages: Array) -> Array:
    """Return 1 / sqrt(1 - h), nan for a row that determines its own fitted value."""
    left = np.where(leverages < 1 - MIN_REMAINDER, 1 - leverages, np.nan)
    return np.asarray(1 / np.sqrt(left))


def ranked(responses: Array, seed: int | None) -> Array:
    """Return where each response lies among those of its row, in (0, 1), shape (n, S + 1).

    Ties are broken at random. If the columns are exchangeable, so are the results, and each is
    uniform.

    Parameters
    ----------
    responses : ndarray, shape (n, S + 1)
        The observed ones, and those of a model.
    seed : int, optional
    """
    rng = np.random.default_rng(None if seed is None else [seed, 1])
    found, width = np.empty(responses.shape), responses.shape[1]
    step = max(1, NUMBERS_AT_ONCE // width)
    for start in range(0, len(responses), step):
        some = responses[start : start + step]
        below = scipy.stats.rankdata(some, method="min", axis=1) - 1
        equal = scipy.stats.rankdata(some, method="max", axis=1) - below
        found[start : start + step] = (below + rng.random(some.shape) * equal) / width
    return np.clip(found, 1e-12, 1 - 1e-12)  # of a draw of zero


def whitened(fit: Any, left: Array) -> Array:
    """Return marginal residuals times the inverse Cholesky factor of their covariance.

    Independent with variance one if the model holds and its parameters are known.

    Parameters
    ----------
    fit : Fit
    left : ndarray, shape (n,) or (n, S)
        Responses less the fixed effects' share of them.

    Raises
    ------
    FitError
        If the model is not linear, or too many rows depend on each other.
    """
    if not fit.family.is_linear:
        raise FitError(
            f"whitened residuals are of linear models; of a {fit.family.name} model see "
            'fit.residuals("quantile").'
        )
    found = np.empty(left.shape)
    for rows, covariance in _covariances(fit):
        root = linalg.cholesky(covariance, lower=True)
        found[rows] = linalg.solve_triangular(root, left[rows], lower=True)
    return found


def _covariances(fit: Any) -> Iterator[tuple[Places, Array]]:
    """Yield sets of rows that depend on each other, and the covariance of their responses."""
    design, model = fit.design, values_at(fit)
    codes = row_components([term.codes for term in design.rows.terms] or [np.arange(design.n_obs)])
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(codes))[:-1]):
        if len(rows) > MAX_COMPONENT:
            names = listed({term.factor: None for term in design.terms})
            raise FitError(
                f"{len(rows):,} rows depend on each other through {names}, more than the "
                f"{MAX_COMPONENT:,} whose covariance is factorised; see "
                'fit.residuals("standardized") or fit.residuals("quantile").'
            )
        covariance = np.diag(model.estimate.sigma**2 / design.rows.weights[rows])
        for term, factor in zip(design.rows.terms, model.estimate.Lambdas, strict=True):
            half = model.estimate.sigma * term.columns[rows] @ factor
            same = term.codes[rows][:, None] == term.codes[rows]
            covariance += same * (half @ half.T)
        yield rows, covariance
