"""Location and scale of a linear predictor, in units of which the default priors are.

On the identity link these are the units of the response. On the link of a probability they are
those of log odds. On any other link the unit is what eta changes by, to first order, as the mean is
multiplied by e: |d eta / d log mu| at the mean response. It is 1 for the log link, and where y
becomes c y it changes with eta for every power of mu, so that the priors follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ranef._typing import Array, Codes
from ranef.design.design import Design
from ranef.design.model_matrix import Origin
from ranef.design.rows.rows import Rows
from ranef.errors import DataError
from ranef.families.family import Family
from ranef.priors.distributions import Exponential, HalfNormal, HalfStudentT, Prior

MAD_TO_SD = 1.4826  # standard deviation over median absolute deviation, if normal
MIN_EVENTS = 0.5  # events in all where there are none, so that a mean has a logarithm
LOG_MEAN_STEP = 1e-4  # of the logarithm of a mean, or of its log odds
MIN_RESIDUAL = 1e-7  # share of a column below which nothing is left of it by the lower columns

type Change = Array | None


@dataclass(frozen=True)
class LinkScale:
    """The scales of the default priors of one linear predictor.

    Attributes
    ----------
    location, intercept : float
        Mean and standard deviation of the intercept at centred predictors.
    slope : float
        Standard deviation of the slope of a column with standard deviation 1.
    sd : float
        Scale of the standard deviation of random effects of such a column.
    sd_prior : callable
        The prior of such a standard deviation, from its scale.
    """

    location: float
    intercept: float
    slope: float
    sd: float
    sd_prior: Callable[[float], Prior]


def link_scale(design: Design, family: Family) -> LinkScale:
    """Return the scales of a design's linear predictor.

    Raises
    ------
    DataError
        If the response does not vary and so gives no scale, or its mean is none that the link
        can take.
    """
    has_log_odds = family.is_bounded and family.link.is_sigmoid
    if has_log_odds or family.latent_variance is not None:
        offset = design.unweighted.mean(design.unweighted.offset)
        return LinkScale(0.0 - offset, 1.5, 1.0, 1.0, HalfNormal)
    if family.link.is_identity:
        y, scale = _response(design, family), response_scale(design, family)
        location = float(np.median(y)) if family.heavy_tailed else design.unweighted.mean(y)
        return LinkScale(location, 2.5 * scale, 2.5 * scale, scale, lambda s: HalfStudentT(3, s))
    location, unit = _location(design, family), _unit(design, family)
    if not (math.isfinite(location) and math.isfinite(unit) and unit > 0):
        raise DataError(
            f"The mean of the response `{design.response}` is {observed_mean(design, family):.4g}, "
            f"which is none for the {family.link.name} link, so the default priors have no scale; "
            "give priors for all parameters, or choose another link."
        )
    if family.is_bounded and not family.link.is_log:
        return LinkScale(location, 1.5 * unit, unit, unit, HalfNormal)
    return LinkScale(location, 2.5 * unit, unit, unit, Exponential)


def observed_mean(design: Design, family: Family) -> float:
    """Return the weighted mean of the response, moved off the ends of what a mean can be.

    With no event in all rows it is the mean of half an event; likewise with only successes.
    """
    rows = design.sufficient
    total, size = float((rows.weights * rows.ones) @ rows.y), design.total_weight
    if family.is_bounded and not 0 < total < size:
        return (total + MIN_EVENTS) / (size + 2 * MIN_EVENTS)
    if family.is_discrete:
        return (total or MIN_EVENTS) / size
    return total / size


def response_scale(design: Design, family: Family) -> float:
    """Return the standard deviation of the response, less the offset where this has its units.

    For a t response it comes from the median absolute deviation. Counts and proportions that do
    not vary have the scale of their mean.

    Raises
    ------
    DataError
        If the response does not vary otherwise.
    """
    y = _response(design, family)
    scale = (median_deviation(y) if family.heavy_tailed else 0.0) or design.unweighted.spread(y)
    if scale == 0.0 and (family.is_discrete or family.is_bounded):
        mean = observed_mean(design, family)
        scale = mean * (1 - mean) if family.is_bounded else mean
    if scale == 0.0:
        raise DataError(
            f"The response `{design.response}` does not vary, so the default priors have no scale; "
            "give priors for all parameters."
        )
    return scale


def with_known_errors(design: Design, family: Family, sigma: float) -> Design:
    """Return a design whose response varies as its known errors do, where it does not vary at all.

    Studies that all found the same are fitted with their standard errors, in units of which the
    default priors then are.
    """
    y = _response(design, family)
    if not (design.has_rows and family.link.is_identity) or design.unweighted.spread(y) > 0:
        return design
    errors = sigma / np.sqrt(design.rows.weights) * np.resize([1.0, -1.0], len(y))
    return design.with_rows(y=design.rows.y + errors - errors.mean())


def column_scale(rows: Rows, column: Array) -> float:
    """Return the standard deviation of a numeric column; the size of its values if constant."""
    return rows.spread(column) or abs(rows.mean(column)) or 1.0


def median(values: Array, counts: Codes | None = None) -> float:
    """Return the median of values, each of which may be there several times.

    Examples
    --------
    >>> median(np.array([1.0, 5.0, 2.0]), np.array([2, 1, 1]))
    1.5
    """
    if counts is None:
        return float(np.median(values))
    ends = (
        sign * np.quantile(sign * values, 0.5, weights=counts, method="inverted_cdf")
        for sign in (1, -1)
    )
    return float(sum(ends)) / 2


def median_deviation(values: Array, counts: Codes | None = None) -> float:
    """Return the median absolute deviation, scaled to the standard deviation if normal."""
    return MAD_TO_SD * median(np.abs(values - median(values, counts)), counts)


def _response(design: Design, family: Family) -> Array:
    rows = design.unweighted
    return rows.y - rows.offset if family.link.is_identity else rows.y


def _location(design: Design, family: Family) -> float:
    """Return the intercept that gives the mean response at the mean offset, or exposure."""
    w, offset = design.distinct.weights, design.distinct.offset
    mean = observed_mean(design, family)
    with np.errstate(all="ignore"):
        if family.link.is_log:
            return float(np.log(mean) + np.log(w.sum()) - special.logsumexp(offset, b=w))
        return float(family.link.link(np.array(mean)) - np.average(offset, weights=w))


def _unit(design: Design, family: Family) -> float:
    """Return |d eta / d log mu| at the mean; for a probability |d eta / d log odds|."""
    if family.link.is_log:
        return 1.0
    mean, steps = observed_mean(design, family), np.array([-LOG_MEAN_STEP, LOG_MEAN_STEP])
    means = mean * np.exp(steps)
    if family.is_bounded:
        means = special.expit(special.logit(mean) + steps)
    with np.errstate(all="ignore"):
        return float(np.abs(np.diff(family.link.link(means)))[0]) / (2 * LOG_MEAN_STEP)


# Centred columns


def lower_columns(origins: Sequence[Origin]) -> list[tuple[int, ...]]:
    """Return for each column the earlier ones of other terms that use no other variables.

    For `x` this is the intercept; for `a:b` also `a` and `b`, for `I(x^2)` also `x`. The columns
    of a term stand together and have the same ones.
    """
    columns: dict[int, list[int]] = {}
    for j, origin in enumerate(origins):
        columns.setdefault(origin.term, []).append(j)
    lower: dict[int, tuple[int, ...]] = {}
    for term, (first, *_) in columns.items():
        variables = origins[first].variables
        earlier = [t for t in lower if origins[columns[t][0]].variables <= variables]
        lower[term] = tuple(j for t in earlier for j in columns[t])
    return [lower[origin.term] for origin in origins]


def centring(columns: Array, centres: Sequence[tuple[int, ...]]) -> Array:
    """Return the matrix (k, k) that leaves of each column its residual from its centres.

    The columns `columns @ change` are the centred ones, and `change` turns their coefficients
    into the coefficients of `columns`. Neither the origin of a variable nor its unit changes the
    residuals by more than a factor. Where nothing would be left of a column, only the first of
    its centres, the intercept, is taken off, or nothing.
    """
    change = np.eye(columns.shape[1])
    size = np.linalg.norm(columns, axis=0)
    size[size == 0] = 1.0
    together: dict[tuple[int, ...], list[int]] = {}
    for j, centre in enumerate(centres):
        if centre:
            together.setdefault(centre, []).append(j)
    for centre, members in together.items():
        left = np.array(members)
        for chosen in (list(centre), list(centre[:1])):
            basis, residuals = columns[:, chosen] / size[chosen], columns[:, left]
            residuals /= size[left]
            shares = np.linalg.lstsq(basis, residuals, rcond=None)[0]
            residuals -= basis @ shares
            is_done = np.linalg.norm(residuals, axis=0) > MIN_RESIDUAL
            done = left[is_done]
            change[np.ix_(chosen, done)] = -shares[:, is_done] * size[done] / size[chosen, None]
            left = left[~is_done]
            if not len(left):
                break
    return change


def moved_coefs(names: Sequence[str], change: Change) -> tuple[str, ...]:
    """Return the coefficients that are not the same at centred columns."""
    if change is None:
        return ()
    moved = np.abs(change - np.eye(len(names))).sum(axis=1) > 0
    return tuple(name for name, is_moved in zip(names, moved, strict=True) if is_moved)
