"""How far draws of Markov chains can be relied on: R-hat, effective sample sizes, their errors.

All are computed for many numbers at a time, from arrays of the shape (chains, draws, numbers), and
as ArviZ computes them.

Source: Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), *Bayesian Analysis* 16(2), 667-718;
Geyer (1992), *Statistical Science* 7(4) (the initial monotone sequence).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from ranef._typing import Array

BLOM = 3 / 8  # offset of ranks, so that they are the expected ones of normal draws
MIN_RANGE = 1e-15  # of values that are not all the same
ELEMENTS = 2_000_000  # of the arrays of several numbers at a time


def rhat(draws: Array) -> Array:
    """Return R-hat of split chains, the larger of those of location and of spread.

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, numbers)

    Returns
    -------
    ndarray, shape (numbers,)
        nan of a single chain.

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 1000, 1))
    >>> rhat(draws).round(2), rhat(draws + np.arange(4)[:, None, None]).round(1)
    (array([1.]), array([1.5]))
    """
    if len(draws) < 2:
        return np.full(draws.shape[-1], np.nan)
    halves = _split(draws)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.maximum(_rhat(_normal_scores(halves)), _rhat(_normal_scores(folded)))


def ess_bulk(draws: Array) -> Array:
    """Return the effective sample size of ranks, (numbers,), for draws (chains, draws, numbers).

    Examples
    --------
    >>> draws = np.random.default_rng(1).normal(size=(4, 1000, 1))
    >>> 3000 < ess_bulk(draws).item() < 5000
    True
    """
    return _ess(_normal_scores(_split(draws)))


def ess_tail(draws: Array, tails: tuple[float, float]) -> Array:
    """Return the smaller of the effective sample sizes of two quantiles, shape (numbers,)."""
    low, high = np.quantile(draws, tails, axis=(0, 1))
    sizes = [_ess(_split((draws <= bound).astype(np.float64))) for bound in (low, high)]
    return np.minimum(*sizes)


def ess_mean(draws: Array) -> Array:
    """Return how many independent draws the means of draws are worth, shape (numbers,)."""
    return _ess(_split(draws))


def mcse_mean(draws: Array) -> Array:
    """Return the Monte Carlo standard error of means, shape (numbers,)."""
    return np.asarray(draws.std((0, 1), ddof=1) / np.sqrt(ess_mean(draws)))


def shortest_interval(draws: Array, prob: float) -> tuple[Array, Array]:
    """Return the bounds of the shortest interval with a share of all draws, shape (...).

    Parameters
    ----------
    draws : ndarray, shape (chains, draws, ...)
    prob : float

    Examples
    --------
    >>> lower, upper = shortest_interval(np.arange(100.0).reshape(1, 100) ** 2, 0.5)
    >>> lower.item(), upper.item()
    (0.0, 2500.0)
    """
    values = np.sort(np.concatenate(list(draws)), axis=0)
    inside = min(int(np.floor(prob * len(values))), len(values) - 1)
    first = np.argmin(values[inside:] - values[: len(values) - inside], axis=0)[None]
    bounds = [np.take_along_axis(values, first + shift, axis=0)[0] for shift in (0, inside)]
    return bounds[0], bounds[1]


def _split(draws: Array) -> Array:
    """Return both halves of every chain as chains."""
    half = draws.shape[1] // 2
    return np.concatenate([draws[:, :half], draws[:, -half:]])


def _normal_scores(draws: Array) -> Array:
    """Return the normal quantiles of ranks, those of ties averaged."""
    flat = draws.reshape(-1, draws.shape[-1])
    ranks = np.empty(flat.shape)
    for j, values in enumerate(flat.T):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks[:, j] = (np.cumsum(count) - (count - 1) / 2)[place]
    scores: Array = ndtri((ranks - BLOM) / (len(flat) - 2 * BLOM + 1))
    return scores.reshape(draws.shape)


def _rhat(draws: Array) -> Array:
    n, within = draws.shape[1], draws.var(axis=1, ddof=1).mean(axis=0)
    between = n * draws.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sqrt((between / within + n - 1) / n))


def _ess(draws: Array) -> Array:
    """Return effective sample sizes, a few numbers at a time."""
    some = max(1, ELEMENTS // draws[..., 0].size)
    parts = [draws[..., i : i + some] for i in range(0, draws.shape[-1], some)]
    return np.concatenate([_ess_of_few(part) for part in parts])


def _ess_of_few(draws: Array) -> Array:
    """Return effective sample sizes by the initial monotone sequence of autocorrelations."""
    chains, n, numbers = draws.shape
    size, within = chains * n, _autocovariances(draws).mean(axis=1)
    variance = within[0] * n / (n - 1)
    total = within[0] + (draws.mean(axis=1).var(axis=0, ddof=1) if chains > 1 else 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = 1 - (variance - within) / total
    rho[0] = 1.0
    n_pairs = max(0, (n - 3) // 2) + 1  # the last one is never summed as a whole
    even, odd = rho[0 : 2 * n_pairs : 2], rho[1 : 2 * n_pairs : 2]
    pairs = even + odd
    ends = pairs <= 0
    ends[-1] = True
    last = ends.argmax(axis=0)
    counts = np.arange(n_pairs)[:, None] < last
    time = 2 * np.where(counts, np.minimum.accumulate(pairs), 0.0).sum(axis=0) - 1
    time += np.maximum(even[last, np.arange(numbers)], 0.0)
    sizes = size / np.maximum(time, 1 / np.log10(size))
    is_constant = np.ptp(draws, axis=(0, 1)) < MIN_RANGE
    return np.asarray(np.where(is_constant, size, sizes))


def _autocovariances(draws: Array) -> Array:
    """Return those of each chain at all lags, shape (draws, chains, numbers)."""
    n = draws.shape[1]
    spectrum = np.fft.rfft(draws - draws.mean(axis=1, keepdims=True), n=2 * n, axis=1)
    products = np.fft.irfft(np.abs(spectrum) ** 2, n=2 * n, axis=1)[:, :n] / n
    return np.asarray(products.swapaxes(0, 1))
