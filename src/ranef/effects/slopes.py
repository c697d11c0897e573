"""Slopes: how means change with a number among the predictors, as of R's emtrends."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.new_data.new_rows import rows_of
from ranef.effects.linear_functions import interval_words, of_slopes, wanted_of
from ranef.effects.reference_grid import (
    cells,
    check_predictors,
    given_values,
    names_of,
    reference_values,
)
from ranef.errors import DataError, DataWarning, FitError, warn
from ranef.families.derivatives import STENCIL_REACH, differenced
from ranef.fits.fit import Fit
from ranef.printing.frames import captioned

RELATIVE_STEP = 1e-3  # of differences, relative to the range of a predictor
INSIDE = 1e-3  # of a step, where the range ends


def slopes(
    fit: Fit,
    variable: str,
    *,
    by: str | Sequence[str] = (),
    at: Mapping[str, Any] | None = None,
    kind: str = "link",
    prob: float = 0.95,
    df: str | None = None,
) -> pd.DataFrame:
    """Return the slopes of a number, by how much marginal means rise as it rises by one.

    Parameters
    ----------
    fit : PointFit or PosteriorFit
    variable : str
        A column of numbers, in whatever functions the formula has it: `poly(x, 2)`, `x * f`.
    by : str or sequence of str
        Columns whose combinations have a slope each.
    at : mapping of str to value or values, optional
        Values of predictors, also of the variable itself, whose slopes may differ from place to
        place; by default it is at its mean.
    kind : {"link", "response"}
        Slopes of the means of `means`, on the same scale.
    prob, df
        As of `means`.

    Returns
    -------
    DataFrame
        The variables of `by`, the `variable` with the values where the slopes are, `estimate`,
        `se`, `lower`, `upper`, `z` (or `df` and `t`) and `p_value`; of a posterior `sd` and the
        `probability` that the slope is above zero.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("angle ~ recipe * temp + (1 | recipe:replicate)", rf.load_dataset("cake"))
    >>> rf.slopes(fit, "temp", by="recipe").round(3)[["recipe", "temp", "estimate", "se"]]
      recipe   temp  estimate     se
    0      A  200.0     0.154  0.028
    1      B  200.0     0.165  0.028
    2      C  200.0     0.156  0.028
    """
    wanted = wanted_of(fit, kind, prob, df)
    groups, given = names_of("by=", by), given_values(at)
    places = _places(fit.design, variable, groups, given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # it is of rows beside the places
        found = [_at(fit.design, variable, groups, given, place) for place in places]
        labels = cells(fit.design, groups, given | {variable: places[:1]}).labels
    columns, offsets = ([[part[j] for part in pair] for pair in found] for j in (0, 1))
    here, slope = (
        rows_of(np.concatenate([X[i] for X in columns]), np.concatenate([o[i] for o in offsets]))
        for i in (0, 1)
    )
    if unknown := len(slope.asked) - len(slope.X):
        why = "a cell is empty, or its values do not vary or follow from those of other columns"
        share = f"{unknown} of {len(slope.asked)} slopes of `{variable}`"
        warn(f"nan stands for {share}, which the data do not determine: {why}.", DataWarning)
    keys = pd.concat([labels.assign(**{variable: place}) for place in places], ignore_index=True)
    table = pd.concat([keys, of_slopes(fit, here, slope, wanted)], axis=1)
    return captioned(table, interval=interval_words(fit, wanted))


def _places(
    design: Design, variable: str, groups: Sequence[str], at: Mapping[str, Any]
) -> list[float]:
    """Return where slopes are wanted, or refuse a variable that has none."""
    values = reference_values(design)
    check_predictors([variable], values)
    if variable in groups:
        raise FitError(f"`{variable}` has slopes at several places by at=, not by by=.")
    if len(values[variable]) > 1:
        raise FitError(
            f"`{variable}` is a factor and has no slope: its levels are compared by `contrasts`."
        )
    return [float(place) for place in np.atleast_1d(at.get(variable, values[variable]))]


def _at(
    design: Design, variable: str, groups: Sequence[str], at: Mapping[str, Any], place: float
) -> list[tuple[Array, Array]]:
    """Return columns and offset of the means at a place, and their derivatives there."""

    def columns(values: Array) -> Array:
        found = cells(design, [*groups, variable], {**at, variable: values[:, 0]})
        both = np.column_stack([found.X, found.offset])
        return both.reshape(-1, len(values), both.shape[1]).swapaxes(0, 1)

    own = design.sufficient.data.columns[variable].to_numpy(dtype=np.float64)
    reach = np.ptp(own) or max(1.0, np.abs(own).max())  # a constant has a unit, if no slope
    where, step = np.array([place]), np.array(RELATIVE_STEP * reach)
    try:
        values = differenced(columns, where, step)[:2]
    except DataError:
        if not own.min() <= place <= own.max():
            raise
        step, reach = INSIDE * step, INSIDE * STENCIL_REACH * step  # from where a spline ends
        near = np.clip(where, own.min() + reach, own.max() - reach)
        values = differenced(columns, near, step)[:2]
    return [(both[:, :-1], both[:, -1]) for both in values]
