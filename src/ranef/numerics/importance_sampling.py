"""Importance sampling: split-t proposals, Pareto-smoothed weights and what they are worth.

Source: Geweke (1989), *Econometrica* 57, 1317-1339 (split-t proposals); Oh & Berger (1992),
*J. Statistical Computation and Simulation* 41, 143-168 (proposals that are fitted to weighted
draws); Vehtari, Simpson, Gelman, Yao & Gabry (2024), *JMLR* 25(72) (Pareto smoothing, k-hat).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg, special

from ranef._typing import Array, Places
from ranef.numerics.constants import LOG_PI
from ranef.numerics.markov_chains import ess_mean

WIDENING = 1.05  # of proposals, over the widths fitted to draws
MIN_WIDTH = 0.2  # on either side, in standard deviations of the draws
FEW_DRAWS = 225  # that are effective, up to which a fifth of them is the tail
MIN_TAIL = 5  # draws that a tail can be fitted to
PRIOR_SHAPE, PRIOR_DRAWS = 0.5, 10  # of a tail: its prior mean, and the draws that this is worth
CENTRES = np.linspace(-1.0, 1.0, 41)  # tried along each axis, in standard deviations


class LogIntegral(NamedTuple):
    """The logarithm of an integral, and its Monte Carlo standard error."""

    value: float
    mcse: float


# ------------------------------------------------------------------------------------ proposals


@dataclass(frozen=True, eq=False)
class SplitT:
    """A multivariate t distribution with two widths along every axis.

    Attributes
    ----------
    nu : float
        Degrees of freedom.
    center, right, left : ndarray, shape (d,)
        In units of `root`.
    mean : ndarray, shape (d,)
    root : ndarray, shape (d, d)
        Lower triangular.
    """

    nu: float
    center: Array
    right: Array
    left: Array
    mean: Array
    root: Array

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return points, shape (size, d), and the log density there."""
        nu, d = self.nu, len(self.mean)
        mixing = np.sqrt(nu / rng.chisquare(nu, size))
        t = rng.standard_normal((size, d)) * mixing[:, None]
        # either side is taken as often as it is wide, so that the density has no jump
        is_right = rng.uniform(size=(size, d)) < self.right / (self.right + self.left)
        z = self.center + np.where(is_right, np.abs(t) * self.right, -np.abs(t) * self.left)
        constant = special.gammaln((nu + d) / 2) - special.gammaln(nu / 2)
        constant -= d / 2 * (np.log(nu) + LOG_PI) + np.log(np.diag(self.root)).sum()
        constant -= np.log((self.right + self.left) / 2).sum()
        logq = constant - (nu + d) / 2 * np.log1p((t**2).sum(axis=1) / nu)
        return self.mean + z @ self.root.T, logq


def fitted_split_t(x: Array, prior_cov: Array, nu: float) -> SplitT:
    """Return the split-t distribution that follows draws, shape (S, d).

    Where importance weights have left few different draws, their covariance counts for less than
    another that is known before, shape (d, d), and no width becomes nothing.

    Along each axis of what whitens them it is the split normal distribution of largest
    likelihood: with a and b the sums of squares right and left of its centre, the widths are
    proportional to the cube roots of a and b, and the sum of these is least.
    """
    mean, d = x.mean(axis=0), x.shape[1]
    share = (d + 1) / (d + 1 + len(np.unique(x[:, 0])))
    root = np.linalg.cholesky((1 - share) * np.atleast_2d(np.cov(x.T)) + share * prior_cov)
    z = linalg.solve_triangular(root, (x - mean).T, lower=True).T
    distance = z[None] - CENTRES[:, None, None]
    a = np.cbrt((np.maximum(distance, 0.0) ** 2).mean(axis=1))
    b = np.cbrt((np.minimum(distance, 0.0) ** 2).mean(axis=1))
    best, axes = (a + b).argmin(axis=0), np.arange(d)
    a, b = a[best, axes], b[best, axes]
    right, left = np.maximum(WIDENING * np.sqrt(a + b) * np.stack([a, b]), MIN_WIDTH)
    return SplitT(nu, CENTRES[best], right, left, mean, root)


# -------------------------------------------------------------------------------------- weights


def good_khat(draws: int) -> float:
    """Return the k-hat up to which an importance-weighted mean of so many draws can be trusted.

    Examples
    --------
    >>> good_khat(1000), good_khat(100)
    (0.6666666666666667, 0.5)
    """
    return float(min(1 - 1 / np.log10(max(draws, 2)), 0.7))


def smoothed(log_ratios: Array) -> tuple[Array, float]:
    """Return Pareto-smoothed weights of independent draws, which sum to one, and k-hat.

    Parameters
    ----------
    log_ratios : ndarray, shape (S,)
    """
    weights, khat = smoothed_columns(log_ratios[:, None], np.ones(1))
    return weights[:, 0], float(khat[0])


def smoothed_columns(log_ratios: Array, reff: Array) -> tuple[Array, Array]:
    """Return Pareto-smoothed weights, each column of which sums to one, and k-hats.

    A k-hat is nan where all ratios are the same, and infinite where no tail can be fitted: with
    fewer than 25 draws, or where the largest weights are all the same.

    Parameters
    ----------
    log_ratios : ndarray, shape (S, U)
    reff : ndarray, shape (U,)
        Effective number of draws over S: one for independent draws.

    Returns
    -------
    weights : ndarray, shape (S, U)
    khat : ndarray, shape (U,)
    """
    S, U = log_ratios.shape
    logs, khat = np.ascontiguousarray(log_ratios.T), np.full(U, np.inf)
    logs = logs - logs.max(axis=1, keepdims=True)
    weights = np.exp(logs)
    sizes = np.where(S * reff > FEW_DRAWS, 3 * np.sqrt(S / reff), S / 5)
    sizes = np.minimum(sizes, S - 1).astype(np.intp)
    for size in np.unique(sizes[sizes >= MIN_TAIL]).tolist():
        units = np.flatnonzero(sizes == size)
        weights[units], khat[units] = _with_smoothed_tails(weights[units], size)
    khat[np.ptp(logs, axis=1) == 0] = np.nan
    return (weights / weights.sum(axis=1, keepdims=True)).T, khat


def _with_smoothed_tails(weights: Array, size: int) -> tuple[Array, Array]:
    """Return weights, shape (U, S), the largest of them smoothed, and k-hats.

    The quantiles of a generalised Pareto distribution take the place of so many weights.
    """
    places = np.argpartition(weights, -size - 1, axis=1)[:, -size - 1 :]
    order = np.argsort(np.take_along_axis(weights, places, axis=1), axis=1)
    places = np.take_along_axis(places, order, axis=1)
    values = np.take_along_axis(weights, places, axis=1)
    cutoff, tail = values[:, :1], values[:, 1:]
    with np.errstate(all="ignore"):
        k, sigma = _pareto_fit(tail - cutoff)
        at = np.log1p(-np.arange(0.5, size) / size)
        of_zero = -sigma[:, None] * at
        quantiles = np.where(
            k[:, None] == 0, of_zero, sigma[:, None] * np.expm1(-k[:, None] * at) / k[:, None]
        )
        quantiles = np.minimum(cutoff + quantiles, tail[:, -1:])
    usable = np.isfinite(quantiles).all(axis=1) & (sigma > 0)
    tail = np.where(usable[:, None], quantiles, tail)
    new = weights.copy()
    np.put_along_axis(new, places[:, 1:], tail, axis=1)
    return new, np.where(usable, k, np.inf)


def _pareto_fit(x: Array) -> tuple[Array, Array]:
    """Return shapes k and scales of generalised Pareto distributions; nan where there is no fit.

    Parameters
    ----------
    x : ndarray, shape (U, n)
        Above 0, in order.

    Source: Zhang & Stephens (2009), *Technometrics* 51, 316-325, with the prior of the shape of
    Vehtari et al. (2024), appendix C.
    """
    n, m = x.shape[1], 30 + int(x.shape[1] ** 0.5)
    quartile = x[:, int(n / 4 + 0.5) - 1]
    b = (1 - np.sqrt(m / (np.arange(1, m + 1) - 0.5))) / (3 * quartile[:, None]) + 1 / x[:, -1:]
    k = np.log1p(-b[:, :, None] * x[:, None]).mean(axis=2)
    profile = n * (np.log(-b / k) - k - 1)
    share = np.exp(profile - profile.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share[share < 10 * np.finfo(np.float64).eps] = 0.0
    best = (b * share).sum(axis=1) / share.sum(axis=1)
    k_of_best = np.log1p(-best[:, None] * x).mean(axis=1)
    shape = (n * k_of_best + PRIOR_DRAWS * PRIOR_SHAPE) / (n + PRIOR_DRAWS)
    is_pareto = quartile > x[:, 0]
    return np.where(is_pareto, shape, np.nan), np.where(is_pareto, -k_of_best / best, np.nan)


def log_mean(log_ratios: Array, weights: Array) -> LogIntegral:
    """Return the logarithm of the mean of ratios, and its error as their weights tell it."""
    value = special.logsumexp(log_ratios) - np.log(len(log_ratios))
    variance = (weights**2).sum() - 1 / len(weights)
    return LogIntegral(float(value), float(np.sqrt(max(0.0, variance))))


def smoothed_log_mean(log_ratios: Array) -> tuple[LogIntegral, float]:
    """Return the logarithm of the mean of smoothed ratios, its error, and k-hat.

    Smoothing leaves all but the largest ratios as they are, the median among them, which says
    what the weights were divided by to sum to one.

    Parameters
    ----------
    log_ratios : ndarray, shape (chains, n)
        At draws that may be correlated along a chain, or independent in chains of one. Minus
        infinity where a ratio is zero.
    """
    finite = np.isfinite(log_ratios)
    if not finite.any():
        return LogIntegral(-np.inf, np.inf), np.inf
    logs = log_ratios[finite]
    weights, khat = smoothed(logs)
    middle = np.argsort(logs)[(len(logs) - 1) // 2]
    value = logs[middle] - np.log(weights[middle]) - np.log(log_ratios.size)
    whole = np.zeros(log_ratios.shape)
    whole[finite] = weights * log_ratios.size
    size = effective_size(whole) if whole.shape[1] > 1 else whole.size
    return LogIntegral(float(value), float(whole.std(ddof=1) / np.sqrt(size))), khat


def systematic(weights: Array, draws: int, rng: np.random.Generator) -> Places:
    """Return places chosen in proportion to weights, by systematic resampling."""
    steps = (np.arange(draws) + rng.uniform()) / draws
    places = np.searchsorted(np.cumsum(weights), steps)
    return np.minimum(places, len(weights) - 1)


def effective_size(values: Array) -> float:
    """Return how many independent draws the mean of values, shape (chains, n), is worth."""
    size = float(ess_mean(values[..., None])[0])
    return size if np.isfinite(size) else float(values.size)


def cumulant_terms(ratios: Array) -> tuple[Array, Array]:
    """Return terms whose mean is log E exp(ratio) to second order, and those of the next order.

    The ratios of many dimensions are sums of many small parts, nearly normal: there two cumulants
    are far more certain than the mean of exponentials, which hangs on the largest.

    Parameters
    ----------
    ratios : ndarray, shape (S, ...)
        Log importance ratios; nan for those that are left out.

    Examples
    --------
    >>> z = np.random.default_rng(1).normal(size=100_000)
    >>> second, third = cumulant_terms(0.1 * z)
    >>> second.mean().round(3), third.mean().round(3) + 0.0
    (np.float64(0.005), np.float64(0.0))
    """
    mean = np.nanmean(ratios, axis=0)
    of_orders = ratios + (ratios - mean) ** 2 / 2, (ratios - mean) ** 3 / 6
    second, third = (
        np.where(np.isnan(terms), np.nanmean(terms, axis=0), terms) for terms in of_orders
    )
    return second, third
