"""Profiles of a likelihood as a record: the nodes, and the intervals between them.

For every parameter the deviance is kept at some values of it, the *nodes*, with all other
parameters at their optimum given this one. Its rise over the minimum, zeta^2, is compared with
the chi-squared distribution of one degree of freedom; the *signed root* zeta is a straight line
where the likelihood is that of a normal estimator, so that its curvature shows how far a Wald
interval can be trusted.

Between two nodes the rise is a cubic: the deviance and its derivative are known at both, as the
derivative of a profile is the partial derivative at the optimum of the others.

Sources: Bates & Watts (1988), *Nonlinear Regression Analysis and Its Applications*, chapter 6;
Venzon & Moolgavkar (1988), *Applied Statistics* 37, 87-94; Bates et al. (2015), *Journal of
Statistical Software* 67(1), section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy
from scipy import special

from ranef._typing import Array, Axes, Panels
from ranef.arguments import check_known
from ranef.errors import FitError, probability
from ranef.numerics.matrices import ReadOnly
from ranef.plots.zeta import ZetaPanel, zeta_plots
from ranef.printing.frames import captioned
from ranef.printing.summary import Printed, Summary

POINTS_BETWEEN_NODES = 40  # that are drawn


@dataclass(frozen=True, eq=False)
class Scale:
    """The scale of a parameter: value = function(origin + unit * coordinate).

    Attributes
    ----------
    function : callable
        Elementwise and increasing: the identity, `np.exp`, or `np.sin`.
    origin, unit : float
    """

    function: Callable[[Array], Array] = np.positive
    origin: float = 0.0
    unit: float = 1.0

    def value(self, x: float | Array) -> Array:
        """Return the values of a parameter at coordinates x."""
        return np.asarray(self.function(np.asarray(self.origin + self.unit * x)))


@dataclass(frozen=True, eq=False)
class ProfileCurve(ReadOnly):
    """The profile of one parameter.

    Attributes
    ----------
    name : str
    scale : Scale
        From the coordinate, in which the nodes are, to the parameter.
    center : float
        The coordinate of the estimate.
    bounds : (float, float)
        The ends of the coordinate; infinite where there is none.
    x : ndarray, shape (nodes,)
        Coordinates of the nodes, increasing. Empty where the parameter is not defined at the
        estimate, such as a correlation with a coefficient that does not vary.
    rise : ndarray, shape (nodes,)
        The deviance over its minimum.
    slope : ndarray, shape (nodes,)
        The derivative of the rise by the coordinate.
    curvature : float
        The second derivative of the rise at the estimate.
    complete : (bool, bool)
        For each side, whether the nodes show the rise as far as the end of the range, which may
        be approached only.
    notes : tuple of str
        Limits that are missing or lie at the end of the range.
    """

    name: str
    scale: Scale
    center: float
    bounds: tuple[float, float]
    x: Array
    rise: Array
    slope: Array
    curvature: float
    complete: tuple[bool, bool] = (False, False)
    notes: tuple[str, ...] = ()

    @property
    def estimate(self) -> float:
        """The maximum likelihood estimate; nan where it is not defined."""
        return float(self.scale.value(self.center)) if len(self.x) else math.nan

    @property
    def values(self) -> Array:
        """The parameter at the nodes."""
        return self.scale.value(self.x)

    @property
    def zeta(self) -> Array:
        """The signed root of the rise at the nodes."""
        return np.sign(self.x - self.center) * np.sqrt(self.rise)

    @property
    def ranges(self) -> tuple[float, float]:
        """The smallest and the largest value that the parameter can have."""
        low, high = (float(self.scale.value(np.asarray(end))) for end in self.bounds)
        return low, high

    def limits(self, cutoff: float) -> tuple[float, float]:
        """Return the values at which |zeta| is the cutoff.

        The end of the parameter's range where the rise stays below the cutoff up to there; nan
        where neither was reached.
        """
        if not len(self.x):
            return self.ranges
        low, high = self.crossing(cutoff, -1), self.crossing(cutoff, +1)
        return float(self.scale.value(low)), float(self.scale.value(high))

    def crossing(self, cutoff: float, side: int) -> float:
        """Return the coordinate of a limit, on one side (-1 or +1) of the estimate."""
        nodes = np.flatnonzero(side * (self.x - self.center) >= 0)[::side]
        target = cutoff**2
        for i, j in pairwise(nodes):
            if self.rise[j] >= target:
                return self._solved(i, j, target)
        return self.bounds[side > 0] if self.complete[side > 0] else math.nan

    def _solved(self, i: int, j: int, target: float) -> float:
        """Return where the cubic between two nodes meets a rise that is between theirs."""
        share = scipy.optimize.brentq(
            lambda t: float(self._between(i, j, np.asarray(t))) - target, 0.0, 1.0, xtol=1e-14
        )
        return float(self.x[i] + share * (self.x[j] - self.x[i]))

    def _between(self, i: int, j: int, t: Array) -> Array:
        """Return the rise at the share t of the way from one node to another."""
        width = self.x[j] - self.x[i]
        s = 1 - t
        from_i = s**2 * ((1 + 2 * t) * self.rise[i] + t * width * self.slope[i])
        from_j = t**2 * ((1 + 2 * s) * self.rise[j] - s * width * self.slope[j])
        return np.asarray(from_i + from_j)

    def panel(self, cutoff: float) -> ZetaPanel:
        """Return the lines and points of a plot of the profile, with the limits at a cutoff."""
        values, zeta = self._dense()
        limits = self.limits(cutoff)
        return ZetaPanel(
            self.name, values, zeta, self.values, self.zeta, self.estimate, self.tangent(), limits
        )

    def _dense(self) -> tuple[Array, Array]:
        """Return many values and their zeta, to draw."""
        t = np.linspace(0.0, 1.0, POINTS_BETWEEN_NODES)
        between = [self.x[i] + t * (self.x[i + 1] - self.x[i]) for i in range(len(self.x) - 1)]
        rises = [self._between(i, i + 1, t) for i in range(len(self.x) - 1)]
        x, rise = np.concatenate([self.x, *between]), np.concatenate([self.rise, *rises])
        order = np.argsort(x, kind="stable")
        zeta = np.sign(x - self.center) * np.sqrt(np.maximum(rise, 0.0))
        return self.scale.value(x[order]), zeta[order]

    def tangent(self) -> float:
        """Return the derivative of zeta by the parameter at the estimate: one over its Wald se.

        nan where the parameter has none there, at an end of its range perhaps.
        """
        h = 1e-6
        rate = float(self.scale.value(self.center + h) - self.scale.value(self.center - h)) / 2 / h
        inside = self.bounds[0] < self.center < self.bounds[1]
        curved = self.curvature > 0 and rate > 1e-3 * self.scale.unit
        return math.sqrt(self.curvature / 2) / rate if inside and curved else math.nan


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Printed):
    """The profile likelihood of a fit's parameters.

    Attributes
    ----------
    curves : dict of str to ProfileCurve
        By the name of the parameter, as in `fit.estimates()`.
    deviance : float
        The minimum: -2 times the maximised log-likelihood.
    prob : float
        The intervals that the nodes reach out to.
    title : str
        The heading, with the approximation of the likelihood that was profiled.
    general_notes : tuple of str
        Notes that belong to no parameter.
    """

    curves: dict[str, ProfileCurve]
    deviance: float
    prob: float
    title: str
    general_notes: tuple[str, ...] = ()

    @cached_property
    def table(self) -> pd.DataFrame:
        """The nodes: `parameter`, its fixed `value`, `zeta`, and the `deviance` of all others."""
        nodes = [
            pd.DataFrame(
                {
                    "parameter": name,
                    "value": curve.values,
                    "zeta": curve.zeta,
                    "deviance": self.deviance + curve.rise,
                }
            )
            for name, curve in self.curves.items()
            if len(curve.x)
        ]
        columns = ["parameter", "value", "zeta", "deviance"]
        return pd.concat(nodes, ignore_index=True) if nodes else pd.DataFrame(columns=columns)

    def confint(self, prob: float = 0.95) -> pd.DataFrame:
        """Return profile likelihood intervals.

        Parameters
        ----------
        prob : float
            Their probability, not more than that of the profile.

        Returns
        -------
        DataFrame
            `lower` and `upper` by parameter. A limit is the end of the parameter's range (0 for
            a standard deviation, -1 or 1 for a correlation, infinity) where the likelihood does
            not exclude it, and nan where the deviance could not be followed; `notes` says so.

        Raises
        ------
        FitError
            If the profile does not reach that far.
        """
        cutoff = cutoff_of(prob)
        if cutoff > cutoff_of(self.prob) * (1 + 1e-12):
            raise FitError(
                f"the profile reaches out to intervals of prob={self.prob:g}, got prob={prob:g}: "
                f"make it with prob={prob:g}."
            )
        limits = [curve.limits(cutoff) for curve in self.curves.values()]
        names = pd.Index(list(self.curves))
        table = pd.DataFrame(limits, index=names, columns=pd.Index(["lower", "upper"]))
        return captioned(table, interval=f"{100 * prob:g} % profile likelihood intervals")

    @property
    def estimates(self) -> pd.Series[float]:
        """The maximum likelihood estimates, from which the profiles start."""
        estimates = {name: curve.estimate for name, curve in self.curves.items()}
        return pd.Series(estimates, name="estimate", dtype=np.float64)

    @property
    def notes(self) -> list[str]:
        """Notes on the likelihood as a whole, and on the limits of each parameter."""
        of_curves = [f"{name}: {note}" for name, c in self.curves.items() for note in c.notes]
        return [*self.general_notes, *of_curves]

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        prob = min(0.95, self.prob)
        numbers = pd.DataFrame({"estimate": self.estimates}).join(self.confint(prob))
        fact = f"deviance {self.deviance:.2f}; {100 * prob:g} % profile likelihood intervals"
        return Summary(self.title, (fact,), (("", numbers),), tuple(self.notes), numbers)

    def plot(
        self,
        names: str | Sequence[str] | None = None,
        *,
        prob: float = 0.95,
        ax: Axes | Iterable[Axes] | None = None,
        figsize: tuple[float, float] | None = None,
    ) -> Panels:
        """Draw zeta against the parameter, one panel each.

        Zeta is the signed root of what the deviance rises by when the parameter is held at a value
        and all others are estimated anew: it is zero at the estimate, and as large as a standard
        normal number would be if that value were true. A straight line, the dashed one, is the
        profile of a parameter whose Wald interval is exact: the more the line bends away from it,
        the less that interval is to be trusted. The dropped lines are the limits of the profile
        likelihood interval, where zeta is -1.96 and 1.96 for 95 %: unequal arms, as of most
        standard deviations, are what symmetric intervals miss. A line that ends at zero before it
        comes to -1.96 says that the data do not exclude a standard deviation of zero; one that
        levels off, that they do not bound the parameter on that side.

        Parameters
        ----------
        names : str or sequence of str, optional
            Which parameters; by default all that have a profile.
        prob : float
            Probability of the interval that is marked.
        ax : Axes or several Axes, optional
            Axes to draw on, one for each parameter. By default a new figure is made.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        ndarray of Axes, shape (parameters,)

        Raises
        ------
        FitError
            A name is not known or has no profile.
        RanefError
            The number of axes is wrong.
        """
        self.confint(prob)  # refuses intervals that the profile does not reach
        chosen = self._chosen(names)
        cutoff = cutoff_of(prob)
        panels = [self.curves[name].panel(cutoff) for name in chosen]
        return zeta_plots(panels, ax=ax, figsize=figsize)

    def _chosen(self, names: str | Sequence[str] | None) -> list[str]:
        drawable = [name for name, curve in self.curves.items() if len(curve.x) > 1]
        wanted = drawable if names is None else [names] if isinstance(names, str) else list(names)
        check_known(wanted, self.curves, lambda name: f"the profile has no parameter {name!r}.")
        for name in wanted:
            if name not in drawable:
                raise FitError(f"`{name}` has no profile to draw: {self.curves[name].notes[0]}")
        if not wanted:
            raise FitError("there is no profile to draw.")
        return wanted


def cutoff_of(prob: float) -> float:
    """Return the |zeta| at the limits of an interval: the root of a chi-squared(1) quantile."""
    return float(special.ndtri((1 + probability(prob)) / 2))
