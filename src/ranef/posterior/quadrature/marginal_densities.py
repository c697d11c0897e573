"""Posterior densities of one number without Monte Carlo noise: a `Curve`, and ways to it.

A curve answers for quantiles, intervals and moments. The density of an effect is a mixture of
normals; the density of a variance parameter is integrated over the others on a lattice with an axis
along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy
from numpy.typing import ArrayLike
from scipy import special

from ranef._typing import Array, Axes, Places
from ranef.errors import FitError, probability
from ranef.plots.curves.densities import single_density
from ranef.posterior.laplace import Mode
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.quadrature.lattice import (
    LOG_SIGMA_RANGE,
    Lattice,
    lattice,
    lengthened,
    log_joint,
    log_sums,
)
from ranef.posterior.quadrature.whitening import Frame, frame, half_line
from ranef.printing.digits import as_strings
from ranef.printing.summary import InNotebook

INTERVAL = 0.95  # probability of the interval that is printed
LEAST_PROBABILITY = 1e-80  # between values that are interpolated: its cube is a number
TAIL = 1e-12  # probability that may lie outside the grid of a mixture
POINTS = 401  # that are drawn
STEPS_OF_MIXTURE = (0.02, 0.03)  # between points, at the narrowest component in its sds
OF_A_CELL = np.array([11, -93, 802, 802, -93, 11]) / 1440  # an integral, from 3 points either side
ENDS = 65  # of intervals, of which the shortest is sought between neighbours of the shortest
DRAWN_TAIL = 0.0005  # probability beyond each end of what is drawn
MEAN_CELL, SD_CELL = 0.1, 0.01  # merged: means this close in sds, and logs of sds this close
LEVEL_SHARE = 1e-6  # of the mean: nearer to zero, the density of an sd does not change
MIN_RELATIVE_WIDTH = 1e-4  # of the finest details that are resolved, to the whole range
MAX_COMPONENTS = 64  # at a time, whose densities stay in the processor's cache
STEP_ACROSS = 0.8  # in standard deviations, along the axes that are summed over
INTERPOLATED_STEP = 0.45  # along the axes of a marginal density, which is interpolated
MAX_SHARE_OF_SIGMA = 0.5  # of a lattice of all coordinates, from which densities are read
MAX_ROUNDING = 1e-6  # of the number of steps to a node
MAX_FALL = 17.0  # of the log density, down to which such a density is followed


@dataclass(frozen=True, eq=False, repr=False)
class Curve(InNotebook):
    """The posterior density of one number.

    Attributes
    ----------
    values : ndarray, shape (G,)
        Increasing values of the parameter.
    density : ndarray, shape (G,)
        The density there.
    t, slope : ndarray, shape (G,)
        Evenly spaced positions of the values, on a scale on which the density is smooth, and the
        derivative of the values by it.
    from_zero : bool
        Whether the parameter takes all positive values, and zero as a limit.

    Examples
    --------
    >>> t = np.linspace(-8, 8, 401)
    >>> normal = Curve(t, np.exp(-t**2 / 2) / np.sqrt(2 * np.pi), t, np.ones_like(t))
    >>> lower, upper = normal.hdi(0.95)
    >>> round(lower, 3), round(upper, 3), round(float(normal.cdf(1.0)), 6)
    (-1.96, 1.96, 0.841345)
    >>> normal
    posterior density: mean 0.00, sd 1.0, 95 % HPD interval -1.96 to 1.96
    """

    values: Array
    density: Array
    t: Array
    slope: Array
    from_zero: bool = False

    def __str__(self) -> str:
        lower, upper = self.hdi(INTERVAL)
        row = pd.DataFrame([{"mean": self.mean, "sd": self.sd, "lower": lower, "upper": upper}])
        mean, sd, lower, upper = as_strings(row).iloc[0]
        interval = f"{100 * INTERVAL:g} % HPD interval {lower} to {upper}"
        return f"posterior density: mean {mean}, sd {sd}, {interval}"

    @cached_property
    def _cumulative(self) -> Array:
        mass = np.pad(self.density * self.slope, 2, mode="edge")
        cumulative = np.append(0.0, np.cumsum(np.convolve(mass, OF_A_CELL, mode="valid")))
        return np.asarray(np.maximum.accumulate(cumulative / cumulative[-1]))

    @cached_property
    def _at_probability(self) -> scipy.interpolate.PchipInterpolator:
        """The values and the logarithms of the density, by the probability below."""
        inner = np.concatenate([[True], np.diff(self._cumulative) > LEAST_PROBABILITY])
        logs = np.log(np.maximum(self.density, np.finfo(np.float64).tiny))
        table = np.column_stack([self.values, logs])[inner]
        return _monotone(self._cumulative[inner], table)

    @cached_property
    def _near_zero(self) -> float:
        near = self.values[self.values > LEVEL_SHARE * self.mean]
        return float(near[0]) if self.values[0] < LEVEL_SHARE * self.mean else 0.0

    @cached_property
    def mean(self) -> float:
        """The posterior mean."""
        return self._expected(self.values)

    @cached_property
    def sd(self) -> float:
        """The posterior standard deviation."""
        return float(np.sqrt(self._expected((self.values - self.mean) ** 2)))

    def pdf(self, x: ArrayLike) -> Array:
        """Return the density at x; zero outside the range."""
        x = np.asarray(x, dtype=np.float64)
        if self.from_zero:  # next to zero the density is level
            x = np.where(x >= 0, np.maximum(x, self._near_zero), x)
        t = _monotone(self.values, self.t, extrapolate=False)(x)
        density = scipy.interpolate.make_interp_spline(self.t, self.density, k=5)(t)
        return np.maximum(np.nan_to_num(density), 0.0)

    def cdf(self, x: ArrayLike) -> Array:
        """Return the probability of values up to x."""
        x = np.asarray(x, dtype=np.float64)
        t = np.interp(x, self.values, self.t)
        inner = _monotone(self.values, self.t, extrapolate=False)(x)
        t = np.where(np.isfinite(inner), inner, t)
        return np.clip(_monotone(self.t, self._cumulative)(t), 0.0, 1.0)

    def quantile(self, q: ArrayLike) -> Array:
        """Return the value with probability q, from 0 to 1, below it."""
        q = np.asarray(q, dtype=np.float64)
        if not ((q >= 0) & (q <= 1)).all():
            raise FitError(f"a quantile is asked for with probabilities from 0 to 1, got {q}.")
        values = self._at_probability(q)[..., 0]
        if self.from_zero and self._near_zero:  # the table begins next to zero
            return np.where(q == 0, 0.0, values)
        return np.asarray(values)

    def hdi(self, prob: float = 0.95) -> tuple[float, float]:
        """Return the shortest interval with the given probability.

        At its ends the density is the same, or one of them is an end of the range.
        """
        prob = probability(prob)
        lower = np.minimum(self._cumulative, 1.0 - prob)
        width = self._at_probability(lower + prob)[:, 0] - self._at_probability(lower)[:, 0]
        place = int(width.argmin())
        first, last = lower[max(place - 1, 0)], lower[min(place + 1, len(lower) - 1)]
        for _ in range(3):
            below = np.linspace(first, last, ENDS)
            rise = self._at_probability(below)[:, 1] - self._at_probability(below + prob)[:, 1]
            after = int((rise >= 0).argmax()) if rise[-1] >= 0 else ENDS - 1
            first, last = below[max(after - 1, 0)], below[after]
        start = last if after in (0, ENDS - 1) else (first + last) / 2
        return float(self.quantile(start)), float(self.quantile(start + prob))

    def plot(
        self,
        prob: float = INTERVAL,
        *,
        name: str = "",
        ax: Axes | None = None,
        figsize: tuple[float, float] | None = None,
    ) -> Axes:
        """Draw the density, with the highest posterior density interval and the mean.

        Parameters
        ----------
        prob : float
            Probability of the interval.
        name : str
            The label of the axis.
        ax : matplotlib Axes, optional
            A new figure is made by default.
        figsize : tuple of float, optional
            Of a new figure, in inches.
        """
        lower, upper = self.hdi(prob)
        low, high = (float(self.quantile(p)) for p in (DRAWN_TAIL, 1 - DRAWN_TAIL))
        value = np.union1d(np.linspace(low, high, POINTS), [lower, upper])
        table = pd.DataFrame({"value": value, "density": self.pdf(value)})
        return single_density(
            table, interval=(lower, upper), mean=self.mean, prob=prob, name=name, ax=ax,
            figsize=figsize,
        )  # fmt: skip

    def _expected(self, of: Array) -> float:
        weights = self.density * self.slope
        return float((weights * of).sum() / weights.sum())


def _monotone(x: Array, y: Array, **options: bool) -> scipy.interpolate.PchipInterpolator:
    """Return the interpolant that rises and falls with its points."""
    with np.errstate(over="ignore"):  # the reciprocal of a slope that is hardly a number
        return scipy.interpolate.PchipInterpolator(x, y, **options)


def tabulated(
    t: Array, log_density: Array, values: Array, slope: Array, *, from_zero: bool = False
) -> Curve:
    """Return the curve of a log density of t, up to a constant, with values(t) and their slope."""
    density = np.exp(log_density - log_density.max())
    density /= density.sum() * (t[1] - t[0])
    return Curve(values, density / slope, t, slope, from_zero)


def mixture(weights: Array, means: Array, sds: Array) -> Curve:
    """Return the curve of a mixture of normal distributions, all arrays of shape (N,).

    Components that are nearly the same are merged first. Points are denser around the narrowest
    component: where a variance may be zero, the density of an effect has a sharp peak.
    """
    weights, means, sds = _merged(weights, means, sds)
    reach = -special.ndtri(TAIL)
    lower, upper = (means - reach * sds).min(), (means + reach * sds).max()
    center = float(means[sds.argmin()])
    scale = max(float(sds.min()), (upper - lower) * MIN_RELATIVE_WIDTH)
    first, last = np.arcsinh((np.array([lower, upper]) - center) / scale)
    step = np.clip((sds / np.hypot(scale, means - center)).min() / 2, *STEPS_OF_MIXTURE)
    t = np.linspace(first, last, int((last - first) / step) + 2)
    values, slope = center + scale * np.sinh(t), scale * np.cosh(t)
    density = np.zeros(len(t))
    for i in range(0, len(weights), MAX_COMPONENTS):
        block = slice(i, i + MAX_COMPONENTS)
        z = (values[:, None] - means[block]) / sds[block]
        z *= z
        z *= -0.5
        density += np.exp(z, out=z) @ (weights[block] / sds[block])
    return Curve(values, density / np.sqrt(2 * np.pi) / weights.sum(), t, slope)


def _merged(weights: Array, means: Array, sds: Array) -> tuple[Array, Array, Array]:
    """Merge components whose sds are nearly the same and whose means differ by much less.

    Weight, mean and variance of the merged components stay the same.
    """
    log_sd = np.round(np.log(sds) / SD_CELL)
    width = MEAN_CELL * np.exp(log_sd * SD_CELL)
    cell = np.round((means - means.mean()) / width)
    place, _ = pd.factorize((log_sd * 2.0**32 + cell).astype(np.int64))
    weight = np.bincount(place, weights)
    mean = np.bincount(place, weights * means) / weight
    variance = np.bincount(place, weights * (sds**2 + (means - mean[place]) ** 2)) / weight
    return weight, mean, np.sqrt(variance)


# ------------------------------------------------------- densities of variance parameters


def along(target: LinearPosterior, mode: Mode, place: int) -> Lattice:
    """Return a lattice whose first coordinate follows one value on the user's scale."""
    whitened = frame(target, mode, first=place)
    steps = np.full(len(whitened.order), STEP_ACROSS * np.sqrt(1 - whitened.share_of_sigma))
    steps[[0, -1]] = INTERPOLATED_STEP
    return lattice(whitened, steps, cut=MAX_FALL)


def shows(nodes: Lattice, mode: Mode, place: int) -> bool:
    """Whether the density of a value on the user's scale can be read from a lattice.

    Its coordinate has to be one of the lattice, along which there are rows of nodes; and given
    sigma the others must not be much narrower than the steps.
    """
    whitened = nodes.frame
    own, counts = frame(whitened.target, mode, first=place), whitened.counts(nodes.steps)
    return (
        whitened.share_of_sigma < MAX_SHARE_OF_SIGMA
        and all(map(np.array_equal, own.bases, whitened.bases))
        and np.allclose(counts, np.rint(counts), rtol=0.0, atol=MAX_ROUNDING)
    )


def marginal_density(nodes: Lattice, place: int, *, relative: bool = False) -> Curve:
    """Return the posterior density of one free value, all else integrated out.

    Parameters
    ----------
    nodes : Lattice
    place : int
        Which of the values of the space, which has to be a coordinate of the lattice.
    relative : bool
        Whether the density is that of the ratio of an sd to sigma.
    """
    whitened = nodes.frame
    space = whitened.target.space
    if place == space.n_given:
        _, axis, table = _joint(nodes, np.zeros(len(nodes.z)), 0.0, _spread(whitened))
        t = _finer(whitened.log_sigma + _spread(whitened) * axis)
        value = np.exp(t)
        log_density = _smooth(whitened.log_sigma + _spread(whitened) * axis, table[0])(t)
        return tabulated(t, log_density, value, value)
    row = int(np.flatnonzero(whitened.order == place)[0])
    step = whitened.root[row, row] * nodes.steps[row]
    at = whitened.center[row] + step * np.rint(nodes.z @ whitened.counts(nodes.steps)[row])
    if whitened.is_sd[place] and whitened.has_sigma and not relative:
        return _curve_of_sd(nodes, place, row, at)
    first, order, starts = _rows(at)
    table = np.logaddexp.reduceat(log_sums(nodes.log_density)[order], starts)
    t = _finer(first)
    log_density = _smooth(first, table)(t)
    if whitened.is_sd[place]:
        log_ratio, log_slope = half_line(t)
        log_sigma = 0.0 if relative else whitened.log_sigma
        value = whitened.scales[place] * np.exp(log_ratio + log_sigma)
        return tabulated(t, log_density, value, value * np.exp(log_slope), from_zero=True)
    c = space.coordinates[int(np.flatnonzero(space.free == place)[0])]
    value, slope, _, _ = c.at(t)
    return tabulated(t, log_density, value, slope)


def _rows(at: Array) -> tuple[Array, Places, Places]:
    """Return the different places, an order of the nodes by these, and where each begins in it."""
    order = np.argsort(at, kind="stable")
    first, starts = np.unique(at[order], return_index=True)
    return first, order, starts


def _spread(whitened: Frame, slope: float = 0.0, row: int = 0) -> float:
    """Return the sd of log sigma, or what one of the coordinates leaves of it."""
    rest = whitened.root[-1] - slope * whitened.root[row]
    return float(np.linalg.norm(rest))


def _joint(nodes: Lattice, at: Array, slope: float, spread: float) -> tuple[Array, Array, Array]:
    """Return the log density by place and log sigma: places, axis of log sigma, and table.

    Parameters
    ----------
    nodes : Lattice
    at : ndarray, shape (N,)
        The place of each node.
    slope, spread : float
        The axis is of (log sigma - slope at) / spread, from the centre.
    """
    first, order, starts = _rows(at)
    center, in_order = nodes.frame.log_sigma + slope * at[order], nodes.nodes[order]

    def density_on(axis: Array) -> Array:
        density = log_joint(nodes.frame, in_order, center, spread * axis)
        top = np.maximum.reduceat(density, starts, axis=0)
        density -= np.repeat(top, np.diff(starts, append=len(order)), axis=0)
        sums = np.add.reduceat(np.exp(density, out=density), starts, axis=0)
        return np.asarray(top + np.log(sums))

    axis = np.arange(*LOG_SIGMA_RANGE, INTERPOLATED_STEP)
    return first, *lengthened(axis, density_on(axis), density_on, MAX_FALL)


def _curve_of_sd(nodes: Lattice, place: int, row: int, at: Array) -> Curve:
    """Return the density of an sd from the joint density of sd / sigma and log sigma.

    For every value of the sd the joint density is integrated along sd / sigma.
    """
    whitened = nodes.frame
    center, of_row = whitened.center[row], whitened.root[row]
    slope = float(whitened.root[-1] @ of_row / (of_row @ of_row))
    spread = _spread(whitened, slope, row)
    first, axis, table = _joint(nodes, at - center, slope, spread)
    log_density = scipy.interpolate.RectBivariateSpline(first, axis, table, kx=5, ky=5)
    t = center + _finer(first)
    log_value, log_slope = half_line(t)
    steepest = float(np.abs(np.exp(log_slope) + slope).max())
    step = max(min(first[1] - first[0], spread / steepest) / 2, np.ptp(first) / 8000)
    white = np.arange(first[0], first[-1], step)
    log_ratio, _ = half_line(center + white)
    log_sigma = whitened.log_sigma + slope * white
    # log sigma moves the sd by no more than this beyond the range of sd / sigma
    beyond = min(2.0, spread * np.ptp(axis) / 2 + abs(slope) * np.ptp(first) / 2)
    t = np.arange(t[0] - beyond, t[-1] + beyond, t[1] - t[0])
    log_value, log_slope = half_line(t)
    places = (log_value[:, None] + whitened.log_sigma - log_ratio - log_sigma) / spread
    inside = (places >= axis[0]) & (places <= axis[-1])
    rows, columns = np.nonzero(inside)
    integrand = np.zeros(inside.shape)
    integrand[rows, columns] = np.exp(
        log_density.ev(white[columns], places[rows, columns]) - table.max()
    )
    density = integrand.sum(axis=1) * np.exp(log_slope)
    kept = np.flatnonzero(density > density.max() * np.exp(-MAX_FALL))
    range_kept = slice(kept[0], kept[-1] + 1)
    value = whitened.scales[place] * np.exp(log_value + whitened.log_sigma)
    with np.errstate(divide="ignore"):
        logs = np.log(density[range_kept])
    slopes = value * np.exp(log_slope)
    return tabulated(t[range_kept], logs, value[range_kept], slopes[range_kept], from_zero=True)


def _finer(t: Array) -> Array:
    return np.linspace(t[0], t[-1], 8 * (len(t) - 1) + 1)


def _smooth(t: Array, log_density: Array) -> scipy.interpolate.BSpline:
    return scipy.interpolate.make_interp_spline(t, log_density, k=5)
