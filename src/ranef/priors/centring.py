"""Centring: what of each column is left by those that it is made of.

A default prior holds for coefficients at centred columns, so that it means the same wherever a
variable has its origin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ranef.design.model_matrix import Origin

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
