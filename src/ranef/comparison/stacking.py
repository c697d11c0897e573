"""Stacking weights of models from the log predictive densities of units, and their differences.

A unit is a row or a group that was left out; elpd_uk is the log predictive density of
unit u under model k. Stacking maximises the mean over units of log sum_k w_k exp(elpd_uk) over the
simplex (Yao, Vehtari, Simpson & Gelman 2018, eq. 5). The problem is that of the proportions of a
mixture with known components: the constraint sum_k w_k = 1 can be left out, as it holds at the
maximum of the objective minus sum_k w_k (Kim, Carbonetto, Stephens & Anitescu 2020).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.special import ndtr

from ranef._typing import Array
from ranef.errors import FitError, listed

KKT_TOLERANCE = 1e-13  # of the Karush-Kuhn-Tucker conditions
MAX_ITERATIONS = 100
CENTRING = 0.01  # the share of the duality gap w'z that each step aims to leave
MAX_SHARE_TO_BOUNDARY = 0.995  # of the way to a weight or multiplier of zero, in one step
MAX_ZERO_WEIGHT = 1e-6  # relative to its multiplier
MIN_RELATIVE_DENSITY = 1e-100  # to the best model's; below it is zero
MAX_ELEMENTS = 4_000_000  # of replicates x models x units at a time
MAX_GOOD_K_HAT = 0.7  # of Pareto's
MIN_UNITS, MIN_ELPD_DIFFERENCE = 100, 4.0  # for a normal approximation of a difference


def stack(elpd: Array) -> Array:
    """Return the stacking weights of models.

    Parameters
    ----------
    elpd : ndarray, shape (U, K)
        Log predictive densities, a row a unit, a column a model. A model that excludes what was
        seen has -inf.

    Returns
    -------
    ndarray, shape (K,)
        Weights, which sum to 1: with them the mixture of the models' predictive distributions
        predicts best. Models that predict the same share their weight equally.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), "Using stacking to average Bayesian predictive
    distributions", Bayesian Analysis 13: 917-1007.
    Kim, Carbonetto, Stephens and Anitescu (2020), "A fast algorithm for maximum likelihood
    estimation of mixture proportions using sequential quadratic programming", Journal of
    Computational and Graphical Statistics 29: 261-273.

    Examples
    --------
    Of two units, each is predicted well by one model only:

    >>> stack(np.array([[-1.0, -5.0], [-5.0, -1.0]]))
    array([0.5, 0.5])
    """
    units = len(elpd)
    return np.asarray(_maximised(_likelihoods(elpd), np.full((1, units), 1.0 / units))[0])


def bayesian_bootstrap(elpd: Array, n: int, seed: int | None) -> Array:
    """Return stacking weights for reweighted units, by the Bayesian bootstrap.

    Parameters
    ----------
    elpd : ndarray, shape (U, K)
    n : int
        The number of replicates. In each the units have weights from a Dirichlet(1, ..., 1)
        distribution (Rubin 1981).
    seed : int or None

    Returns
    -------
    ndarray, shape (n, K)

    References
    ----------
    Rubin (1981), "The Bayesian bootstrap", Annals of Statistics 9: 130-134.
    """
    unit_weights = np.random.default_rng(seed).dirichlet(np.ones(len(elpd)), size=n)
    return _maximised(_likelihoods(elpd), unit_weights)


def differences(elpd: pd.DataFrame, *, k_hat: pd.DataFrame | None = None) -> pd.DataFrame:
    """Tabulate the elpd of models, each against the best.

    Parameters
    ----------
    elpd : DataFrame, shape (U, K)
        A column a model.
    k_hat : DataFrame, shape (U, K), optional
        Pareto k-hat of each unit and model, where elpd is by importance sampling; nan where it is
        exact.

    Returns
    -------
    DataFrame
        Rows are models, the best first. `elpd`, its sum over units, and `se`; `elpd_diff` to the
        best, not positive, and `se_diff` from the paired differences; `p_worse`, the probability
        that the model is worse than the best, by a normal approximation; and what speaks against
        `se_diff` and `p_worse` (`diag_diff`) and against `elpd` (`diag_elpd`), empty where nothing
        does.

    Raises
    ------
    FitError
        If a density is not a number below infinity, or every model excludes a unit.

    Notes
    -----
    Standard errors are those of the R package loo: the square root of U times the sample variance,
    which divides by U - 1. With fewer than 100 units, or where models predict nearly the same
    (a difference below 4), `se_diff` is often too small and the normal approximation poor.

    References
    ----------
    Vehtari, Gelman and Gabry (2017), "Practical Bayesian model evaluation using leave-one-out
    cross-validation and WAIC", Statistics and Computing 27: 1413-1432.
    Sivula, Magnusson, Matamoros and Vehtari (2025), "Uncertainty in Bayesian leave-one-out
    cross-validation based model comparison", arXiv 2008.10296.

    Examples
    --------
    >>> elpd = pd.DataFrame({"a": [-1.0, -5.0, -2.0], "b": [-5.0, -1.0, -3.0]})
    >>> differences(elpd).round(2)
       elpd    se  elpd_diff  se_diff  p_worse diag_diff diag_elpd
    a  -8.0  3.61        0.0      0.0      NaN
    b  -9.0  3.46       -1.0      7.0     0.56   N < 100
    """
    values = _checked(elpd)
    units, total = len(values), values.sum(axis=0)
    order = np.argsort(-total, kind="stable")
    best = values[:, order[:1]]
    if np.isneginf(best).any():
        raise FitError("every model excludes a unit (elpd of -inf): none can be the best.")
    difference, se = (values - best).sum(axis=0), _se(values - best)
    different = np.abs(difference) > 0
    p_worse = np.full(len(total), np.nan)
    with np.errstate(divide="ignore"):  # the same difference in every unit is certain
        p_worse[different] = ndtr(-difference[different] / se[different])
    p_worse[np.isneginf(difference)] = 1.0
    flag = "N < 100" if units < MIN_UNITS else "|elpd_diff| < 4"
    flagged = different & ((units < MIN_UNITS) | (np.abs(difference) < MIN_ELPD_DIFFERENCE))
    table = pd.DataFrame(
        {
            "elpd": total,
            "se": _se(values),
            "elpd_diff": difference,
            "se_diff": se,
            "p_worse": p_worse,
            "diag_diff": np.where(flagged, flag, ""),
            "diag_elpd": _k_hat_flags(elpd, k_hat),
        },
        index=elpd.columns,
    )
    return table.iloc[order]


# ----------------------------------------------------------------------------------- the tables


def _checked(elpd: pd.DataFrame) -> Array:
    """Return elpd as an array (U, K), or refuse it."""
    values = elpd.to_numpy(dtype=np.float64)
    bad = np.isnan(values) | np.isposinf(values)
    if bad.any():
        models = listed(elpd.columns[bad.any(axis=0)])
        raise FitError(f"elpd is not a number below infinity in {bad.sum()} places, of {models}.")
    excluded = np.isneginf(values).all(axis=1)
    if excluded.any():
        raise FitError(
            f"every model excludes {listed(elpd.index[excluded])} (elpd of -inf): no mixture of "
            "them can predict what was seen."
        )
    return values


def _se(values: Array) -> Array:
    """Return the standard error of the sum of each column; nan where it is not defined."""
    units = len(values)
    with np.errstate(invalid="ignore"):  # of -inf
        squares = ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt(units * squares / (units - 1)) if units > 1 else np.full(len(squares), np.nan)


def _k_hat_flags(elpd: pd.DataFrame, k_hat: pd.DataFrame | None) -> list[str]:
    """Return how many units of each model have a k-hat that is not good; empty for none."""
    if k_hat is None:
        return [""] * elpd.shape[1]
    counts = (k_hat.to_numpy(dtype=np.float64) > MAX_GOOD_K_HAT).sum(axis=0)
    return [f"{count} k̂ > {MAX_GOOD_K_HAT:.2f}" if count else "" for count in counts]


# --------------------------------------------------------------------------------- the maximum


def _likelihoods(elpd: Array) -> Array:
    """Return exp(elpd), shape (U, K), relative to the best model of each unit.

    At the maximum the mixture has a relative density of v or more in a unit of weight v, so that
    densities far below any v add nothing.
    """
    L: Array = np.exp(elpd - elpd.max(axis=1, keepdims=True))
    return np.where(L > MIN_RELATIVE_DENSITY, L, 0.0)


def _maximised(L: Array, V: Array) -> Array:
    """Return the weights that maximise sum_u v_u log (L w)_u, for every v.

    Parameters
    ----------
    L : ndarray, shape (U, K)
        Each row with a maximum of 1.
    V : ndarray, shape (n, U)
        Weights of the units, which sum to 1.

    Returns
    -------
    ndarray, shape (n, K)
    """
    size = max(1, MAX_ELEMENTS // L.size)
    w = np.concatenate([_solved(L, V[i : i + size]) for i in range(0, len(V), size)])
    return np.asarray(w / w.sum(axis=1, keepdims=True))


def _solved(L: Array, V: Array) -> Array:
    """Minimise sum_k w_k - sum_u v_u log (L w)_u over w >= 0, by a primal-dual interior point.

    The multipliers z of w >= 0 are the gradient, and w_k z_k = 0, at the minimum (Boyd &
    Vandenberghe 2004, "Convex optimization", section 11.7). Problems that have converged are left
    alone.
    """
    w = np.full((len(V), L.shape[1]), 1.0 / L.shape[1])
    z, active = np.ones_like(w), np.arange(len(V))
    for _ in range(MAX_ITERATIONS):
        p = w[active] @ L.T
        gradient = 1.0 - (V[active] / p) @ L
        violation = np.maximum(-gradient, np.abs(w[active] * gradient)).max(axis=1)
        is_open = violation > KKT_TOLERANCE
        active, p, gradient = active[is_open], p[is_open], gradient[is_open]
        if not len(active):
            break
        root = L.T * (np.sqrt(V[active]) / p)[:, None, :]
        H = root @ root.transpose(0, 2, 1)
        w[active], z[active] = _stepped(w[active], z[active], gradient, H)
    return np.where(w < MAX_ZERO_WEIGHT * z, 0.0, w)


def _stepped(w: Array, z: Array, gradient: Array, H: Array) -> tuple[Array, Array]:
    """Return weights and multipliers after a Newton step towards w_k z_k = mu, all still positive.

    Parameters
    ----------
    w, z, gradient : ndarray, shape (n, K)
    H : ndarray, shape (n, K, K)
        Second derivatives.
    """
    mu = CENTRING * (w * z).mean(axis=1, keepdims=True)
    scale = np.sqrt(w / z)  # with it, the matrix is no worse than the identity
    matrix = np.eye(w.shape[1]) + scale[:, :, None] * H * scale[:, None, :]
    right_side = scale * (mu / w - gradient)
    dw = scale * np.linalg.solve(matrix, right_side[:, :, None])[:, :, 0]
    dz = mu / w - z - z / w * dw
    return w + _length(w, dw) * dw, z + _length(z, dz) * dz


def _length(x: Array, dx: Array) -> Array:
    """Return the share of a step that keeps x positive, at most 1, shape (n, 1)."""
    steepest = np.maximum(-dx / x, 0.0).max(axis=1, keepdims=True)
    return np.asarray(MAX_SHARE_TO_BOUNDARY / np.maximum(steepest, MAX_SHARE_TO_BOUNDARY))
