"""Draws of all effects and variance parameters of a model, whatever drew them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

type Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of all effects, one at every point, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (points, p)
    sigma : ndarray, shape (points,), or None
        None for a family without a sigma.
    factors : list of ndarray, shape (points, k, k)
        A square root of each term's covariance.
    b : list of ndarray, shape (points, m, k)
    parameters : mapping of str to ndarray, shape (points,)
        The family's own parameters besides sigma.
    """

    beta: Array
    sigma: Array | None
    factors: list[Array]
    b: list[Array]
    parameters: Mapping[str, Array] = field(default_factory=dict)
