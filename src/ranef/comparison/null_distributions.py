"""Null distributions of likelihood ratios: mixtures, simulated ones, exact ones.

- Mixtures of chi-squared distributions (Self & Liang 1987, *JASA* 82; Stram & Lee 1994,
  *Biometrics* 50).
- p-values of simulated statistics, also of a sequence that stops (Besag & Clifford 1991,
  *Biometrika* 78).
- The finite-sample distribution of the (restricted) likelihood ratio for one variance component,
  by its spectral form (Crainiceanu & Ruppert 2004, *J. Royal Statistical Society B* 66).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import comb

import numpy as np
from scipy import special

from ranef._typing import Array, Flags, Integers, Places
from ranef.comparison.f_test import WaldTest
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.progress import running

type Simulate = Callable[[int, int], tuple[Array, Flags]]

STATISTIC_ERROR = 1e-6  # of a likelihood ratio: what an optimiser may have left
MAX_HITS = 50  # simulated statistics that reach the observed one, after which a sequence stops
MIN_BATCH, MAX_BATCH = 100, 2000  # replicates at a time
MAX_ZERO_EIGENVALUE = 1e-10  # relative to the largest level
EIGENVALUE_TOLERANCE = 1e-8  # relative difference of eigenvalues that are pooled
GRID_STEP = 0.25  # in t, which is linear in l below `GRID_GRAIN` and logarithmic beyond
GRID_GRAIN = 0.1
MAX_ELEMENTS = 500_000  # of a temporary array
MAX_NEWTON_STEPS = 60
NEWTON_TOLERANCE = 1e-4  # of a step in t, after which the parabola is exact enough


# ------------------------------------------------------------------- chi-squared distributions


def chi_bar_squared(statistic: float, free: int, bounded: int) -> float:
    """Return P(T >= statistic) for a mixture of chi-squared distributions with binomial weights.

    Parameters
    ----------
    statistic : float
    free : int
        Parameters that can go either way from their value in the smaller model.
    bounded : int
        Variances that are zero there. With one the weights are 1/2 and 1/2; with more they are
        binomial if their estimates are independent.

    Examples
    --------
    >>> round(chi_bar_squared(0.407233941893935, 0, 1), 12)
    0.261688398231
    """
    weights = [comb(bounded, j) / 2**bounded for j in range(bounded + 1)]
    return float(sum(w * _chi2_tail(statistic, free + j) for j, w in enumerate(weights)))


def _chi2_tail(statistic: float, df: int) -> float:
    return float(special.chdtrc(df, statistic)) if df else float(statistic <= 0)


# ------------------------------------------------------------------------ simulated p-values


@dataclass(frozen=True)
class MonteCarlo:
    """A p-value from simulated statistics.

    Attributes
    ----------
    p_value : float
        (1 + hits) / (1 + n), or hits / n where the sequence stopped at its last hit.
    lower, upper : float
        95 % interval of the p-value after endless simulation: of a binomial, or of a negative
        binomial probability (Clopper & Pearson 1934, *Biometrika* 26).
    n : int
        Statistics used.
    hits : int
        How many statistics reach the observed one; statistics of zero count like any other.
    n_zero : int
        How many statistics are zero.
    n_failed : int
        Replicates without a statistic, which are left out.
    stopped : bool
        Whether the sequence stopped early.
    statistics : ndarray, shape (n,)
        The statistics used, in the order in which they were simulated.
    """

    p_value: float
    lower: float
    upper: float
    n: int
    hits: int
    n_zero: int
    n_failed: int = 0
    stopped: bool = False
    statistics: Array = field(default_factory=lambda: np.empty(0), repr=False, compare=False)


def monte_carlo(observed: float, statistics: Array) -> MonteCarlo:
    """Return the p-value of an observed statistic from simulated ones.

    Examples
    --------
    >>> monte_carlo(2.0, np.array([0.0, 0.0, 1.0, 2.0])).p_value
    0.4
    """
    n, hits = len(statistics), int((statistics >= observed - STATISTIC_ERROR).sum())
    n_zero = int((statistics < STATISTIC_ERROR).sum())
    interval = binomial_interval(hits, n)
    return MonteCarlo((1 + hits) / (1 + n), *interval, n, hits, n_zero, statistics=statistics)


def sequential(observed: float, simulate: Simulate, n: int, *, stop: bool = True) -> MonteCarlo:
    """Simulate until 50 statistics reach the observed one, or n have been simulated.

    Besag & Clifford (1991): p = 50 / l if the l-th statistic is the 50th to do so. Statistics
    simulated after it are not used, so that the result does not depend on how many are simulated at
    a time.

    Parameters
    ----------
    observed : float
    simulate : callable (size, first)
        Returns statistics and which of them failed, for replicates `first`, `first + 1`, ...
    n : int
        Replicates at most.
    stop : bool
        Whether to stop early; otherwise all n are simulated.

    Raises
    ------
    FitError
        If all replicates failed.
    """
    statistics, failed = np.empty(0), np.empty(0, dtype=np.bool_)
    with running("Simulating likelihood ratios", n) as advance:
        while (done := len(statistics)) < n:
            size = min(max(MIN_BATCH, done), MAX_BATCH, n - done)
            new_statistics, new_failed = simulate(size, done)
            advance(size)
            statistics = np.concatenate([statistics, new_statistics])
            failed = np.concatenate([failed, new_failed | ~np.isfinite(new_statistics)])
            hits = np.flatnonzero(~failed & (statistics >= observed - STATISTIC_ERROR))
            if stop and len(hits) >= MAX_HITS:
                stopped_after = hits[MAX_HITS - 1] + 1
                return _stopped(observed, statistics[:stopped_after], failed[:stopped_after])
    if failed.all():
        message = f"the models could not be fitted to any of {n} simulated responses, so that "
        raise FitError(message + "there is no bootstrap.")
    return replace(monte_carlo(observed, statistics[~failed]), n_failed=int(failed.sum()))


def _stopped(observed: float, statistics: Array, failed: Flags) -> MonteCarlo:
    """Return the p-value of a sequence that stopped at its last statistic."""
    fixed_n = monte_carlo(observed, statistics[~failed])
    hits, n = fixed_n.hits, fixed_n.n
    return replace(
        fixed_n,
        p_value=hits / n,
        upper=binomial_interval(hits - 1, n - 1)[1],
        n_failed=int(failed.sum()),
        stopped=True,
    )


def binomial_interval(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a probability from the successes among n trials."""
    lower = special.betaincinv(hits, n - hits + 1, 0.025) if hits else 0.0
    upper = special.betaincinv(hits + 1, n - hits, 0.975) if hits < n else 1.0
    return float(lower), float(upper)


# ------------------------------------------------------------- one variance component, exactly


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The eigenvalues that give the null distribution of one variance component's ratio.

    Attributes
    ----------
    mu, counts : ndarray, shape (r,)
        The positive eigenvalues of Z'P0Z, P0 = I - X(X'X)^-1 X', in units of the largest one:
        different ones, and how often each occurs.
    xi, xi_counts : ndarray
        The eigenvalues in the log-determinant of the criterion: the same ones by REML, the
        eigenvalues of Z'Z by ML.
    df_residual : int
        Degrees of freedom that X and Z leave, n - rank [X Z].
    nu : int
        What multiplies the logarithm of the residual sum of squares: n - p by REML, n by ML.
    fixed : int
        How many fixed effects are tested besides, by ML.
    """

    mu: Array
    counts: Integers
    xi: Array
    xi_counts: Integers
    df_residual: int
    nu: int
    fixed: int = 0


def spectrum(small: Design, large: Design, *, reml: bool) -> Spectrum:
    """Return the spectral form of a test of one variance component.

    Parameters
    ----------
    small, large : Design
        Without random effects, and with one term of one coefficient. With prior weights W, X and
        Z stand for W^1/2 X and W^1/2 Z.
    reml : bool
        For equal column spaces of X only.
    """
    (term,) = large.sufficient.terms
    n, p = large.n_obs, large.sufficient.X.shape[1]
    root = np.sqrt(large.sufficient.weights)
    z = term.columns[:, 0] * root
    Q, _ = np.linalg.qr(large.sufficient.X * root[:, None])
    sizes = np.bincount(term.codes, z**2)
    U = np.column_stack([sizes, *(np.bincount(term.codes, z * q) for q in Q.T)])[:, 1:]
    mu = _eigenvalues(sizes, U)
    mu = mu[mu > MAX_ZERO_EIGENVALUE * sizes.max()]
    unit = mu.max(initial=0.0) or 1.0
    values, counts = _pooled(mu / unit)
    xi = (values, counts) if reml else _pooled(sizes / unit)
    return Spectrum(
        values, counts, *xi, n - p - len(mu), n - p if reml else n, p - small.sufficient.X.shape[1]
    )


def closed_form(spectrum: Spectrum, f: WaldTest, statistic: float) -> float | None:
    """Return the p-value of a likelihood ratio that is a function of F; None where it is not.

    It is one where all eigenvalues are equal, as with levels of one size. The function does not
    fall, and is zero for F up to some value.
    """
    if len(spectrum.mu) > 1 or spectrum.fixed or f.d2 != spectrum.df_residual:
        return None
    return 1.0 if statistic < STATISTIC_ERROR else f.p_value


def exact_null_statistics(spectrum: Spectrum, n: int, seed: int | None) -> Array:
    """Draw from the null distribution of the (restricted) likelihood ratio.

    Crainiceanu & Ruppert (2004), theorems 1 and 2: with independent w_s^2 ~ chi2_1, c ~ chi2_left,

        RLRT = sup_l (n - p) log[(sum w_s^2 + c) / D(l)] - sum log(1 + l mu_s)
        LRT  = n log[1 + chi2_q / (sum w_s^2 + c)]
               + sup_l n log[(sum w_s^2 + c) / D(l)] - sum log(1 + l xi_s)
        D(l) = sum w_s^2 / (1 + l mu_s) + c

    Parameters
    ----------
    spectrum : Spectrum
    n : int
    seed : int, optional

    Returns
    -------
    ndarray, shape (n,)
    """
    rng = np.random.default_rng(seed)
    grid = _grid(spectrum)
    size = max(1, MAX_ELEMENTS // max(len(grid.t), len(spectrum.mu)))
    sizes = [min(size, n - start) for start in range(0, n, size)]
    return np.concatenate([_drawn(spectrum, grid, rng, size) for size in sizes])


def _drawn(spectrum: Spectrum, grid: _Grid, rng: np.random.Generator, n: int) -> Array:
    """Return n draws at a time."""
    repeated = spectrum.counts > 1
    w2 = rng.standard_normal((n, len(spectrum.mu))) ** 2
    w2[:, repeated] += rng.chisquare(spectrum.counts[repeated] - 1, (n, int(repeated.sum())))
    c = rng.chisquare(spectrum.df_residual, n) if spectrum.df_residual else np.zeros(n)
    statistics = supremum(spectrum, grid, w2, c)
    if spectrum.fixed:
        q = rng.chisquare(spectrum.fixed, n)
        statistics += spectrum.nu * np.log1p(q / (w2.sum(axis=1) + c))
    return statistics


@dataclass(frozen=True, eq=False)
class _Grid:
    """A grid of values of l, whose minima Newton's method starts from.

    Attributes
    ----------
    grain : float
        l = grain (exp(t) - 1).
    t : ndarray, shape (G,)
        Equally spaced from 0.
    factors : ndarray, shape (r + 1, G)
        Factors of w_s^2 and c in D(l) exp(sum log(1 + l xi_s) / nu), which is smallest at the
        supremum.
    """

    grain: float
    t: Array
    factors: Array


def _grid(spectrum: Spectrum) -> _Grid:
    decades = min(
        12.0, max(3.0, 16 / max(spectrum.df_residual, 1))
    )  # few degrees of freedom: heavy tails
    grain = GRID_GRAIN / np.sqrt(spectrum.counts.sum())
    t = np.arange(0.0, np.log1p(10**decades / spectrum.mu.min() / grain) + GRID_STEP, GRID_STEP)
    l = grain * np.expm1(t)
    factors = np.vstack([1 / (1 + np.outer(spectrum.mu, l)), np.ones_like(l)])
    logdet = spectrum.xi_counts @ np.log1p(np.outer(spectrum.xi, l))
    return _Grid(grain, t, factors * np.exp(logdet / spectrum.nu))


def supremum(spectrum: Spectrum, grid: _Grid, w2: Array, c: Array) -> Array:
    """Return the likelihood ratios of draws, w2 of shape (n, r) and c of shape (n,)."""
    null_rss = w2.sum(axis=1) + c
    values = w2 @ grid.factors[:-1] + c[:, None] * grid.factors[-1]
    lowest = np.log(values.min(axis=1))
    slope = spectrum.xi_counts @ spectrum.xi / spectrum.nu - w2 @ spectrum.mu / null_rss
    rows, points = np.nonzero(_minima(values, slope))
    minima = _refined(spectrum, grid, (w2[rows], c[rows]), points, values[rows])
    np.minimum.at(lowest, rows, minima)
    return np.asarray(np.maximum(spectrum.nu * (np.log(null_rss) - lowest), 0.0))


def _minima(values: Array, slope: Array) -> Flags:
    """Return which points of the grid have a minimum beside them, shape (n, G - 1)."""
    falls_after = values[:, 1:] < values[:, :-1]
    falls_before = np.column_stack([slope < 0, falls_after[:, :-1]])
    return falls_before & ~falls_after


def _refined(
    spectrum: Spectrum, grid: _Grid, draws: tuple[Array, Array], points: Places, values: Array
) -> Array:
    """Return the minima of log D + sum log(1 + l xi) / nu next to some points of the grid.

    Newton's method in t, kept between the neighbouring points.
    """
    w2, c = draws
    lo, hi = grid.t[np.maximum(points - 1, 0)], grid.t[points + 1]
    t, minima = _vertex(grid, points, values), np.empty(len(points))
    active = np.arange(len(points))
    for _ in range(MAX_NEWTON_STEPS):
        value, slope, curvature = _criterion(spectrum, grid.grain, w2[active], c[active], t[active])
        rises = slope > 0
        hi[active] = np.where(rises, t[active], hi[active])
        lo[active] = np.where(rises, lo[active], t[active])
        step = -slope / np.where(curvature > 0, curvature, np.inf)
        new = t[active] + step
        outside = ~((new > lo[active]) & (new < hi[active])) | (curvature <= 0)
        new[outside] = (lo[active] + hi[active])[outside] / 2
        converged = np.abs(new - t[active]) < NEWTON_TOLERANCE
        minima[active] = value + np.where(outside, 0.0, slope * step / 2)
        t[active] = new
        active = active[~converged]
        if not len(active):
            break
    return minima


def _vertex(grid: _Grid, points: Places, values: Array) -> Array:
    """Return t at the minimum of the parabola through a point of the grid and its neighbours."""
    rows, inner = np.arange(len(points)), np.maximum(points, 1)
    a, b, c = (values[rows, inner + i] for i in (-1, 0, 1))
    bend = a - 2 * b + c
    shift = np.clip(0.5 * (a - c) / np.where(bend > 0, bend, np.inf), -0.9, 0.9)
    return np.asarray(np.where(points == 0, GRID_STEP / 4, grid.t[inner] + GRID_STEP * shift))


def _criterion(
    spectrum: Spectrum, grain: float, w2: Array, c: Array, t: Array
) -> tuple[Array, Array, Array]:
    """Return log D + sum log(1 + l xi) / nu and its derivatives in t."""
    l = grain * np.expm1(t)
    ratio = spectrum.mu / (1 + l[:, None] * spectrum.mu)  # of mu_s to 1 + l mu_s
    share = w2 * (ratio / spectrum.mu)
    D = share.sum(axis=1) + c
    share *= ratio
    D1 = -share.sum(axis=1)
    share *= ratio
    D2 = 2 * share.sum(axis=1)
    if spectrum.xi is not spectrum.mu:
        ratio = spectrum.xi / (1 + l[:, None] * spectrum.xi)
    logdet = np.log1p(l[:, None] * spectrum.xi) @ spectrum.xi_counts
    value = np.log(D) + logdet / spectrum.nu
    slope = D1 / D + ratio @ spectrum.xi_counts / spectrum.nu
    curvature = D2 / D - (D1 / D) ** 2 - ratio**2 @ spectrum.xi_counts / spectrum.nu
    scale = l + grain
    return value, slope * scale, (curvature * scale + slope) * scale


def _eigenvalues(d: Array, U: Array) -> Array:
    """Return the eigenvalues of diag(d) - U U'.

    Where c elements of d are equal, and U has p < c columns, c - p eigenvalues are that element:
    rotated, all but p of its rows of U are zero.
    """
    values, counts = _pooled(d)
    indices = np.split(np.argsort(d, kind="stable"), np.cumsum(counts)[:-1])
    rotated = [np.linalg.qr(U[i], mode="r") if len(i) > U.shape[1] else U[i] for i in indices]
    lengths = [len(rows) for rows in rotated]
    R = np.vstack(rotated)
    reduced = np.linalg.eigvalsh(np.diag(np.repeat(values, lengths)) - R @ R.T)
    return np.concatenate([reduced, np.repeat(values, counts - lengths)])


def _pooled(values: Array) -> tuple[Array, Integers]:
    """Return different values, and how often each occurs."""
    ordered = np.sort(values)
    pool = np.cumsum(np.diff(ordered, prepend=-np.inf) > EIGENVALUE_TOLERANCE * ordered) - 1
    counts = np.bincount(pool)
    return np.bincount(pool, ordered) / counts, counts
