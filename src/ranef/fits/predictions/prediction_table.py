"""Predictions with their errors and intervals, from what a fit says of the linear predictor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array
from ranef.arguments import check_choice
from ranef.design.new_data.new_rows import NewRows
from ranef.errors import FitError, listed, probability
from ranef.families.derivatives import differenced
from ranef.families.family import Family
from ranef.fits.predictions.asked_rows import GROUPS
from ranef.likelihood.predictions import NormalRows, mean_over_groups
from ranef.posterior.draws import Marginals, hdi
from ranef.posterior.quadrature.marginal_densities import mixture
from ranef.printing.frames import captioned

KINDS = {"response": "mean", "link": "link", "observation": "mean"}
"""What can be predicted, and the column that it stands in."""
INTERVALS = ("confidence", "prediction")
NUMBERS_OF_A_PART = 2**22  # of a mixture or of draws: 32 MB
MIN_RELATIVE_VARIANCE = 1e-14  # of a component; below is rounding

type Spread = tuple[Array, Array, Array]
"""Of each row: standard deviation, lower and upper end of an interval."""


@dataclass(frozen=True)
class Question:
    """What is asked of rows.

    Attributes
    ----------
    groups : {"known", "population", "new", "average"}
    kind : {"response", "link", "observation"}
    prob : float or None
        Probability of the intervals, if there are any.
    interval : {"confidence", "prediction"}
        Of the mean or the linear predictor; or of a single observation.
    """

    groups: str = "known"
    kind: str = "response"
    prob: float | None = None
    interval: str = "confidence"

    @property
    def drawn(self) -> str:
        """The kind of draws that have the interval: observations, means or linear predictors."""
        return "observation" if self.interval == "prediction" else self.kind

    @property
    def is_average(self) -> bool:
        """Whether the mean over groups is asked for, and no group has effects of its own."""
        return self.groups == "average" and self.interval == "confidence"


def question(groups: str, kind: str, prob: float | None, interval: str | None) -> Question:
    """Return what is asked, or refuse what makes no sense.

    Raises
    ------
    FitError
    """
    check_choice("groups", groups, GROUPS, "is not an option")
    check_choice("kind", kind, KINDS, "is not a kind of prediction")
    usual = "prediction" if kind == "observation" else "confidence"
    wanted = check_choice("interval", interval or usual, INTERVALS, "is not an option")
    if prob is None and interval is not None:
        raise FitError(f"interval={interval!r} needs the probability of the interval: prob=0.95.")
    if (kind, wanted) == ("link", "prediction"):
        raise FitError(
            "kind='link' has no interval='prediction': a single observation is on the scale of "
            "the response (kind='response')."
        )
    if (kind, wanted) == ("observation", "confidence"):
        raise FitError(
            "kind='observation' has no interval='confidence': its interval is that of a single "
            "observation. The mean has one: kind='response'."
        )
    return Question(groups, kind, None if prob is None else probability(prob), wanted)


@dataclass(frozen=True)
class Intervals:
    """The way to standard deviations and intervals of rows.

    Attributes
    ----------
    spread_of : callable
        From rows to their standard deviations and intervals.
    n_points : int
        The number of numbers that those of a row are made of.
    name : str
        What the intervals are: "95 % HPD interval".
    given : str
        What is taken for known: "variances as if known".
    """

    spread_of: Callable[[NewRows], Spread]
    n_points: int
    name: str
    given: str = ""

    def words(self, of: str = "") -> str:
        """Return what the intervals are, and what they are of."""
        return f"{self.name}{' of ' * bool(of)}{of}{', ' * bool(self.given)}{self.given}"

    def of(self, rows: NewRows) -> Spread:
        """Return standard deviations and intervals of rows, which are taken part by part."""
        spreads = [self.spread_of(part) for part in parts(rows, self.n_points)]
        sd, lower, upper = (np.concatenate(of_parts) for of_parts in zip(*spreads, strict=True))
        return sd, lower, upper


def parts(rows: NewRows, n_points: int) -> Iterator[NewRows]:
    """Yield rows in parts whose numbers take a few megabytes; one part where there are none."""
    step = max(1, NUMBERS_OF_A_PART // n_points)
    return (rows.part(slice(i, i + step)) for i in range(0, max(len(rows.X), 1), step))


def prediction_table(
    rows: NewRows, expected: Array, asked: Question, intervals: Intervals, response: str
) -> pd.DataFrame:
    """Return predictions with standard deviations and intervals, on the index of the data.

    Parameters
    ----------
    rows : NewRows
    expected : ndarray, shape (n,)
    asked : Question
    intervals : Intervals
    response : str
        Label of the response.
    """
    numbers = zip(("sd", "lower", "upper"), intervals.of(rows), strict=True)
    columns = {KINDS[asked.kind]: expected, **dict(numbers)}
    spread = {name: rows.spread(values) for name, values in columns.items()}
    mean = "linear predictor" if asked.kind == "link" else "mean"
    of = "a single observation" if asked.interval == "prediction" else f"the {mean}"
    what = f"{response}: {_what(rows, asked, mean)}"
    table = pd.DataFrame(spread, index=rows.asked)
    return captioned(table, predicted=what, interval=intervals.words(of))


def _what(rows: NewRows, asked: Question, kind: str) -> str:
    """Return what is predicted, in words."""
    factors = listed(dict.fromkeys(term.factor for term in rows.terms))
    if asked.groups == "average" and kind == "mean":
        return f"mean over groups of {factors}" if factors else kind
    if asked.groups in ("population", "average") or not factors:
        return f"{kind} of a typical group, random effects of zero"
    if asked.groups == "known":
        return f"{kind} of known groups of {factors}"
    all_new = all(term.is_new.all() for term in rows.terms)
    return f"{kind} of new groups of {factors}{' and of known ones' * (not all_new)}"


# --------------------------------------------------------------------------- of point estimates


def spread_of_estimate(
    family: Family,
    rows: NewRows,
    normal: NormalRows,
    asked: Question,
    draws_of: Callable[[NewRows], Array],
) -> Spread:
    """Return errors by the delta method, and intervals that are normal on the link scale.

    Parameters
    ----------
    family : Family
    rows : NewRows
    normal : NormalRows
        Of one component: the linear predictor with its error.
    asked : Question
    draws_of : callable
        Draws of observations of rows, shape (draws, n).
    """
    prob = asked.prob or 0.0
    z, tail = normal_quantile(prob), (1 - prob) / 2
    eta, between, psi = normal.mean[0], normal.between[0], normal.psi[:, 0]
    closed = variance_of_normal(family, rows, normal, asked)
    if closed is not None:
        sd = np.sqrt(closed[0] + np.zeros_like(eta))
        return sd, eta - z * sd, eta + z * sd
    if asked.interval == "prediction":
        draws = draws_of(rows)
        lower, upper = np.quantile(draws, [tail, 1 - tail], axis=0, method="inverted_cdf")
        return draws.std(axis=0), lower, upper
    se = np.sqrt(normal.variance[0])
    step = family.link.step(eta)

    def mean(at: Array) -> Array:
        return mean_over_groups(family, at, between, psi)

    slope = differenced(mean, eta, step)[1]
    variance = (slope * se) ** 2
    reach, ends = se, mean
    if not asked.is_average:
        second = mean_over_groups(family, eta, between, psi, power=2)
        variance = variance + np.maximum(second - mean(eta) ** 2, 0.0)
        reach = np.sqrt(normal.variance[0] + between)

        def ends(at: Array) -> Array:
            return family.mean(at, psi)

    one, other = ends(eta - z * reach), ends(eta + z * reach)
    return np.sqrt(variance), np.minimum(one, other), np.maximum(one, other)


def variance_of_normal(
    family: Family, rows: NewRows, normal: NormalRows, asked: Question
) -> Array | None:
    """Return the variance of what is asked where it is normal at each point, shape (C, n).

    That is a linear predictor, a mean that is one, or an observation of a linear model; None for
    all else.
    """
    of_mean = family.mean_is_eta and asked.interval == "confidence"
    if not (asked.kind == "link" or of_mean or family.is_linear):
        return None
    variance = normal.variance + (0.0 if asked.is_average else normal.between)
    if asked.interval == "prediction":
        variance = variance + normal.psi[0][:, None] ** 2 / rows.weights
    return np.asarray(variance)


def normal_quantile(prob: float) -> float:
    """Return z such that a standard normal is within z of zero with probability `prob`."""
    return float(special.ndtri((1 + probability(prob)) / 2))


# ------------------------------------------------------------------------------- of posteriors


def spread_of_posterior(
    family: Family,
    rows: NewRows,
    normal: NormalRows,
    asked: Question,
    draws_of: Callable[[NewRows], Array],
) -> Spread:
    """Return posterior standard deviations and highest density intervals.

    Parameters
    ----------
    family : Family
    rows : NewRows
    normal : NormalRows
        The posterior of the linear predictor.
    asked : Question
    draws_of : callable
        Draws of what is asked of rows, shape (draws, n), for what is no mixture of normals.
    """
    prob, closed = asked.prob or 0.0, variance_of_normal(family, rows, normal, asked)
    draws = draws_of(rows) if closed is None else normal.mean
    if closed is None or not closed.any():
        return draws.std(axis=0, ddof=1), *hdi(draws[None], prob)
    mean, closed = np.broadcast_arrays(normal.mean, closed)
    variance = normal.weights @ (closed + (mean - normal.expected) ** 2)
    sds = np.sqrt(np.maximum(closed, MIN_RELATIVE_VARIANCE * closed.max(axis=0)))
    ends = np.array(
        [
            mixture(normal.weights, at, sd).hdi(prob) if sd.any() else np.ravel(hdi(at[None], prob))
            for at, sd in zip(mean.T, sds.T, strict=True)  # draws of a known group have no width
        ]
    ).reshape(-1, 2)
    return np.sqrt(variance), ends[:, 0], ends[:, 1]


def posterior_means(family: Family, marginals: Marginals, rows: NewRows) -> Array:
    """Return posterior means of mu, which are not mu at the posterior mean, shape (n,)."""
    means = []
    for part in parts(rows, marginals.n_points):
        normal = marginals.normal_rows(part)
        psi = normal.psi[:, :, None]
        means.append(normal.weights @ mean_over_groups(family, normal.mean, normal.between, psi))
    return np.concatenate(means)


def posterior_intervals(
    family: Family, marginals: Marginals, asked: Question, draws_of: Callable[[NewRows], Array]
) -> Intervals:
    """Return the way to posterior standard deviations and highest density intervals of rows."""
    name = f"{100 * (asked.prob or 0):g} % HPD interval"

    def spread_of(rows: NewRows) -> Spread:
        return spread_of_posterior(family, rows, marginals.normal_rows(rows), asked, draws_of)

    return Intervals(spread_of, marginals.n_points, name)
