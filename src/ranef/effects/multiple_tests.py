"""Several tests at once: p values and intervals by Tukey, and by Holm and Bonferroni."""

from __future__ import annotations

import numpy as np
from scipy import special

from ranef._typing import Array

ADJUSTMENTS = ("tukey", "holm", "none")


def p_values(t: Array, df: Array, adjust: str, n_means: int) -> Array:
    """Return two-sided p values of one family of tests.

    Parameters
    ----------
    t : ndarray, shape (m,)
        Estimates over their standard errors; nan is no test.
    df : ndarray, shape (m,)
        Degrees of freedom, which may be infinite.
    adjust : {"tukey", "holm", "none"}
        By the distribution of the range of `n_means` means; by Holm's sequence of levels; or each
        by itself.
    n_means : int

    References
    ----------
    Tukey (1953), *The Problem of Multiple Comparisons*; Holm (1979), *Scandinavian Journal of
    Statistics* 6.

    Examples
    --------
    >>> p_values(np.array([2.0, 3.0]), np.array([np.inf, np.inf]), "holm", 3).round(4)
    array([0.0455, 0.0054])
    """
    if adjust == "tukey":
        from scipy.stats import studentized_range

        return np.asarray(studentized_range.sf(np.sqrt(2) * np.abs(t), n_means, df))
    p = 2 * special.stdtr(df, -np.abs(t))
    if adjust == "holm":
        there = np.flatnonzero(np.isfinite(p))
        order = there[np.argsort(p[there])]
        steps = p[order] * np.arange(len(order), 0, -1)
        p[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return np.asarray(p)


def quantiles(prob: float, df: Array, adjust: str, n_means: int) -> Array:
    """Return how many standard errors intervals reach from their estimates, shape (m,).

    By "tukey" all intervals of a family hold together with probability `prob`; by "holm", whose
    tests have no intervals, Bonferroni's do.
    """
    if adjust == "tukey":
        from scipy.stats import studentized_range

        distinct, place = np.unique(df, return_inverse=True)
        ranges = np.asarray(studentized_range.ppf(prob, n_means, distinct))
        return np.asarray(ranges[place] / np.sqrt(2))
    tail = (1 - prob) / 2 / (max(len(df), 1) if adjust == "holm" else 1)
    # of an infinite df the quantile of a normal distribution, which stdtrit has not
    t = special.stdtrit(np.where(np.isfinite(df), df, 1.0), 1 - tail)
    return np.where(np.isfinite(df), t, -special.ndtri(tail))
