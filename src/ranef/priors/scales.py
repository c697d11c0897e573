"""Where a linear predictor is and how far it may vary: what default priors are in units of.

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
from numpy.typing import NDArray
from scipy import special

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.model_matrix import Origin
from ranef.errors import DataError
from ranef.families.family import Family
from ranef.priors.distributions import Exponential, HalfNormal, HalfStudentT, Prior

MAD = 1.4826  # turns R's mad into the sd of a normal distribution

_SIGMOID = ("logit", "probit", "cloglog", "cauchit")
_HALF = 0.5  # events in all where there are none, so that a mean has a logarithm
_STEP = 1e-4  # of the logarithm of a mean, or of its log odds


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
    half : callable
        The prior of such a standard deviation, from its scale.
    """

    location: float
    intercept: float
    slope: float
    sd: float
    half: Callable[[float], Prior]


def link_scale(design: Design, family: Family) -> LinkScale:
    """Return the scales of a design's linear predictor.

    Raises
    ------
    DataError
        If the response does not vary and so gives no scale, or its mean is none that the link
        can take.
    """
    has_log_odds = family.is_bounded and family.link.name in _SIGMOID
    if has_log_odds or family.latent_variance is not None:
        return LinkScale(0.0 - float(np.mean(design.offset)), 1.5, 1.0, 1.0, HalfNormal)
    if family.link.name == "identity":
        location, scale = _centre(_response(design, family), family), response_scale(design, family)
        return LinkScale(location, 2.5 * scale, 2.5 * scale, scale, lambda s: HalfStudentT(3, s))
    location, unit = _location(design, family), _unit(design, family)
    if not (math.isfinite(location) and math.isfinite(unit) and unit > 0):
        raise DataError(
            f"The mean of the response `{design.response}` is {mean_response(design, family):.4g}, "
            f"which is none for the {family.link.name} link, so the default priors have no scale; "
            "give priors for all parameters, or choose another link."
        )
    if family.is_bounded and family.link.name != "log":
        return LinkScale(location, 1.5 * unit, unit, unit, HalfNormal)
    return LinkScale(location, 2.5 * unit, unit, unit, Exponential)


def mean_response(design: Design, family: Family) -> float:
    """Return the weighted mean of the response, moved off the ends of what a mean can be.

    With no event in all rows it is that of half an event; likewise with nothing but successes.
    """
    total, size = float(design.weights @ design.y), float(design.weights.sum())
    if family.is_bounded and not 0 < total < size:
        return (total + _HALF) / (size + 2 * _HALF)
    if family.is_discrete:
        return (total or _HALF) / size
    return total / size


def response_scale(design: Design, family: Family) -> float:
    """Return the standard deviation of the response, less its offset where that is of its units.

    That of a normal distribution with its median absolute deviation for a t distribution. Counts
    and proportions that do not vary have the scale of their mean.

    Raises
    ------
    DataError
        If the response does not vary otherwise.
    """
    y = _response(design, family)
    scale = (MAD * _mad(y) if family.heavy_tailed else 0.0) or spread(y)
    if scale == 0.0 and (family.is_discrete or family.is_bounded):
        mean = mean_response(design, family)
        scale = mean * (1 - mean) if family.is_bounded else mean
    if scale == 0.0:
        raise DataError(
            f"The response `{design.response}` does not vary, so the default priors have no scale; "
            "give priors for all parameters."
        )
    return scale


def spread(values: Array) -> float:
    """Return the standard deviation, exactly 0 for a constant."""
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0


def _response(design: Design, family: Family) -> Array:
    return design.y - design.offset if family.link.name == "identity" else design.y


def _centre(y: Array, family: Family) -> float:
    return float(np.median(y) if family.heavy_tailed else np.mean(y))


def _mad(y: Array) -> float:
    return float(np.median(np.abs(y - np.median(y))))


def _location(design: Design, family: Family) -> float:
    """Return the intercept that gives the mean response at the mean offset, or exposure."""
    w, offset = design.weights, design.offset
    mean = mean_response(design, family)
    with np.errstate(all="ignore"):
        if family.link.name == "log":
            return float(np.log(mean) + np.log(w.sum()) - special.logsumexp(offset, b=w))
        return float(family.link.link(np.array(mean)) - np.average(offset, weights=w))


def _unit(design: Design, family: Family) -> float:
    """Return |d eta / d log mu| at the mean; for a probability |d eta / d log odds|."""
    mean, steps = mean_response(design, family), np.array([-_STEP, _STEP])
    if family.link.name == "log":
        return 1.0
    near = mean * np.exp(steps)
    if family.is_bounded:
        near = special.expit(special.logit(mean) + steps)
    with np.errstate(all="ignore"):
        return float(np.abs(np.diff(family.link.link(near)))[0]) / (2 * _STEP)


DEPENDENT = 1e-7  # share of a column that may be left of one that depends on others

type Change = NDArray[np.float64] | None


def lower_columns(origins: Sequence[Origin]) -> list[tuple[int, ...]]:
    """Return for each column the earlier ones of other terms that use no other variables.

    For `x` that is the intercept; for `a:b` also `a` and `b`, for `I(x^2)` also `x`.
    """
    return [
        tuple(
            i
            for i, other in enumerate(origins[:j])
            if other.term != own.term and other.variables <= own.variables
        )
        for j, own in enumerate(origins)
    ]


def centring(columns: NDArray[np.float64], below: Sequence[tuple[int, ...]]) -> NDArray[np.float64]:
    """Return the matrix (k, k) that leaves of each column its residual from the lower ones.

    With it `columns @ change` are the centred columns, and `change` turns their coefficients
    into those of the columns. Neither the origin of a variable nor its unit changes the
    residuals by more than a factor. Of a column of which nothing would be left only the first
    of the lower ones, the intercept, is taken off, or nothing.
    """
    change = np.eye(columns.shape[1])
    size = np.linalg.norm(columns, axis=0)
    size[size == 0] = 1.0
    scaled = columns / size
    for j, lower in enumerate(map(list, below)):
        for chosen in (lower, lower[:1]):
            share = np.linalg.lstsq(scaled[:, chosen], scaled[:, j], rcond=None)[0]
            if np.linalg.norm(scaled[:, j] - scaled[:, chosen] @ share) > DEPENDENT:
                change[chosen, j] = -share * size[j] / size[chosen]
                break
    return change


def moved_coefs(names: Sequence[str], change: Change) -> tuple[str, ...]:
    """Return the coefficients that are not the same at centred columns."""
    if change is None:
        return ()
    moved = np.abs(change - np.eye(len(names))).sum(axis=1) > 0
    return tuple(name for name, is_moved in zip(names, moved, strict=True) if is_moved)
