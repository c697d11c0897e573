"""The rows that responses are drawn for: own or new ones, of known, new or typical groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from ranef._typing import Array
from ranef.design.data_frame import open_frame
from ranef.design.design import Design
from ranef.design.new_data.new_rows import NewRows, with_strangers
from ranef.errors import DataError, listed
from ranef.fits.predictions.asked_rows import asked_rows

GROUPS = ("new", "known", "population")


def simulated_rows(
    design: Design, new_data: object, groups: str, weights: str | ArrayLike | None = None
) -> NewRows:
    """Return the rows that responses are drawn for.

    Parameters
    ----------
    design : Design
    new_data : DataFrame, optional
        The design's own rows by default.
    groups : {"new", "known", "population"}
        Whether no level is known, every level is, or no random effects take part.
    weights : str or array, optional
        Prior weights of new rows, a column's name or values; one by default.

    Raises
    ------
    DataError
        If a level is not known that should be, or weights are not positive.
    """
    rows = asked_rows(design, new_data, groups)
    if weights is not None:
        rows = replace(rows, weights=_weights_of(new_data, weights)[rows.places])
        bad = ~(rows.weights > 0) | np.isinf(rows.weights)
        if bad.any():
            where = listed(rows.index[bad])
            raise DataError(f"weights= must be positive and finite; they are not in rows {where}.")
    return with_strangers(rows) if groups == "new" else rows


def _weights_of(new_data: object, weights: str | ArrayLike) -> Array:
    if new_data is None:
        message = "weights= are those of new rows: the rows of the fit have their own. "
        raise DataError(f"{message}Give new_data= too.")
    values = open_frame(new_data).values(weights, "weights")
    assert values is not None
    return values
