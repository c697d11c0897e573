"""The marginal likelihood from draws of a posterior: warp-III bridge sampling.

Draws are moved and scaled to mean zero and unit covariance, and reflected at their mean, so that
the rest has the same three moments as the standard normal distribution. A bridge between the
two estimates the ratio of their normalising constants, of which one is known. One half of the draws
says how to move and scale, the other makes the estimate. (To let them change places and average
would be more accurate for most densities, but the two estimates are correlated where the density is
nearly normal, and the error could not be told.)

Source: Meng & Wong (1996), *Statistica Sinica* 6, 831-860 (the bridge and its optimum); Meng &
Schilling (2002), *J. Computational and Graphical Statistics* 11, 552-586 (warp-III); Gronau et al.
(2020), *J. Statistical Software* 92(10) (halves, effective size); Fruehwirth-Schnatter (2004),
*Econometrics Journal* 7, 143-167, and Micaletto & Vehtari (2025), arXiv 2508.14487 (its error).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy
from scipy import linalg, special

from ranef._typing import Array
from ranef.errors import FitError
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.importance_sampling import LogIntegral, effective_size

type LogDensity = Callable[[Array], Array]

PROPOSALS = 2  # for each draw that makes the estimate
MIN_DRAWS_A_COORDINATE = 20  # below which there is no covariance to speak of


def warp3(log_density: LogDensity, draws: Array, rng: np.random.Generator) -> LogIntegral:
    """Estimate the logarithm of the integral of a density from draws of it.

    Parameters
    ----------
    log_density : callable
        From points, shape (S, d), to the logarithm of the density there, up to the constant
        that is asked for: minus infinity where there is none.
    draws : ndarray, shape (chains, n, d)
        Of unconstrained coordinates; independent or correlated along a chain.
    rng : Generator

    Returns
    -------
    LogIntegral

    Raises
    ------
    FitError
        If there are too few draws, or some of them cannot be draws of this density.
    """
    _check(draws)
    logp = log_density(draws.reshape(-1, draws.shape[2])).reshape(draws.shape[:2])
    if not np.isfinite(logp).all():
        raise FitError(
            f"{np.count_nonzero(~np.isfinite(logp))} of {logp.size} draws have density zero: they "
            "are not draws of this posterior. Use those of a fit of the same model and data."
        )
    half = draws.shape[1] // 2
    value, variance = _estimate(log_density, draws[:, :half], draws[:, half:], logp[:, half:], rng)
    return LogIntegral(value, float(np.sqrt(variance)))


def _check(draws: Array) -> None:
    if draws.ndim != 3:
        raise FitError(f"draws must have shape (chains, draws, coordinates), got {draws.shape}.")
    chains, n, d = draws.shape
    fewest = 2 * MIN_DRAWS_A_COORDINATE * max(d, 1)
    if chains * n < fewest or n < 8:
        raise FitError(
            f"bridge sampling of {d} parameters needs at least {fewest} draws, 8 in each chain, "
            f"and there are {chains} chains of {n}: sample more."
        )


@dataclass(frozen=True, eq=False)
class _Warp:
    """x = mean + root z, of which z and -z are taken together."""

    mean: Array
    root: Array

    def points(self, z: Array) -> Array:
        return np.asarray(self.mean + z @ self.root.T)

    def whitened(self, x: Array) -> Array:
        centered = (x - self.mean).reshape(-1, len(self.mean))
        return np.asarray(linalg.solve_triangular(self.root, centered.T, lower=True).T)

    def log_ratio(self, z: Array, here: Array, there: Array) -> Array:
        """Return the logarithm of the reflected density of z over a normal one."""
        d = len(self.mean)
        volume = np.log(np.diag(self.root)).sum() + d * LOG_2PI / 2 - np.log(2)
        return np.asarray(np.logaddexp(here, there) + volume + (z**2).sum(axis=1) / 2)


def _fitted(draws: Array) -> _Warp:
    flat = draws.reshape(-1, draws.shape[2])
    cov = np.atleast_2d(np.cov(flat.T))
    try:
        return _Warp(flat.mean(axis=0), np.linalg.cholesky(cov))
    except np.linalg.LinAlgError:
        raise FitError(
            "the draws have no covariance of full rank: bridge sampling needs draws that vary in "
            "every parameter."
        ) from None


def _estimate(
    log_density: LogDensity, fit: Array, draws: Array, logp: Array, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the logarithm of the integral and its variance."""
    warp = _fitted(fit)
    z = warp.whitened(draws)
    ours = warp.log_ratio(z, logp.ravel(), log_density(warp.points(-z))).reshape(logp.shape)
    z = rng.standard_normal((PROPOSALS * len(z), z.shape[1]))
    theirs = warp.log_ratio(z, log_density(warp.points(z)), log_density(warp.points(-z)))
    size = float(ours.size)
    for _ in range(2):  # the effective size is that of what is averaged, which depends on it
        log_odds = np.log(size / theirs.size)
        log_r, at_ours, at_theirs = bridge(ours, theirs, log_odds)
        size = effective_size(at_ours)
    relative = at_ours.var(ddof=1) / size + at_theirs.var(ddof=1) / at_theirs.size
    return log_r, float(np.log1p(relative))


def bridge(ours: Array, theirs: Array, log_odds: float) -> tuple[float, Array, Array]:
    """Return the logarithm of the ratio r of two normalising constants by the optimal bridge.

    With f = s1 l / (s1 l + s2 r) the fixed point of Meng & Wong is s2 mean f, over their draws,
    = s1 mean (1 - f), over ours, and f falls with r: it is in balance only once. Means are taken of
    logarithms, so that the two may be far apart.

    Parameters
    ----------
    ours, theirs : ndarray
        The logarithm of l, our density over theirs, at draws of either.
    log_odds : float
        Logarithm of s1 / s2, the share of our draws over that of theirs.

    Returns
    -------
    log_r : float
    at_ours, at_theirs : ndarray
        1 - f and f at the draws, over their means, of which the estimate is made.
    """
    ours, theirs = ours + log_odds, theirs + log_odds

    def balance(log_r: float) -> float:
        f, complement = special.log_expit(theirs - log_r), special.log_expit(log_r - ours)
        return _log_mean(f) - _log_mean(complement) - log_odds

    both = np.concatenate([ours.ravel(), theirs[np.isfinite(theirs)]])
    reach = 40.0 + abs(log_odds)
    log_r = float(
        scipy.optimize.brentq(balance, both.min() - reach, both.max() + reach, xtol=1e-12)
    )
    at_ours, at_theirs = special.log_expit(log_r - ours), special.log_expit(theirs - log_r)
    return log_r, np.exp(at_ours - _log_mean(at_ours)), np.exp(at_theirs - _log_mean(at_theirs))


def _log_mean(logs: Array) -> float:
    """Return the logarithm of the mean of exponentials."""
    return float(special.logsumexp(logs) - np.log(logs.size))
