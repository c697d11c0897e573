"""Envelopes of curves under a model, by simulation: as wide as a whole curve needs.

Curves are compared by the largest of their distances from the mean curve, at any place, in units of
the distance of a quantile there on the same side. The envelope is as many such units wide as hold
the wanted share of the curves as wholes. If the observed curve is one of those that the model
gives, it lies in the envelope of probability 0.95 with probability 0.95, and not place by place.

Source: Myllymäki, Mrkvička, Grabarnik, Seijo & Hahn (2017), *J. Royal Statistical Society B* 79,
381-404 (directional quantiles).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranef._typing import Array

ROUNDING = 1e-9  # relative, so that a curve at the edge is within
TAILS = (0.025, 0.975)  # the quantiles whose distance is the unit


@dataclass(frozen=True, eq=False)
class Envelope:
    """Where the observed curve would lie under the model.

    Attributes
    ----------
    lower, upper : ndarray, shape (K,)
    p_value : float
        The share of curves that are as extreme as the observed one.
    """

    lower: Array
    upper: Array
    p_value: float


def envelope(observed: Array, simulated: Array, prob: float) -> Envelope:
    """Return the envelope of a curve under a model.

    Parameters
    ----------
    observed : ndarray, shape (K,)
    simulated : ndarray, shape (S, K)
        Curves that the model gives.
    prob : float
        Of the whole curve.

    Examples
    --------
    >>> curves = np.random.default_rng(1).standard_normal((199, 5)).cumsum(axis=1)
    >>> envelope(np.full(5, 9.0), curves, 0.95).p_value
    0.005
    """
    curves = np.vstack([observed, simulated])
    mean, (low, high) = curves.mean(axis=0), np.quantile(curves, TAILS, axis=0)
    above, below = high - mean, mean - low
    away = curves - mean
    with np.errstate(invalid="ignore", divide="ignore"):
        units = np.where(away > 0, away / above, -away / below)
    largest = np.nan_to_num(units, nan=0.0).max(axis=1)  # nan where all curves are one
    width = np.sort(largest)[int(np.ceil(round(prob * len(curves), 6))) - 1] * (1 + ROUNDING)
    extreme = int((largest >= largest[0]).sum())
    return Envelope(mean - width * below, mean + width * above, extreme / len(curves))


def p_value(observed: float, simulated: Array) -> float:
    """Return the two-sided Monte Carlo p-value of a statistic among simulated ones.

    Source: Davison & Hinkley (1997), *Bootstrap Methods and their Application*, section 4.2.
    """
    above = (1 + int((simulated >= observed).sum())) / (1 + len(simulated))
    below = (1 + int((simulated <= observed).sum())) / (1 + len(simulated))
    return min(1.0, 2 * min(above, below))
