"""Columns of a data frame as numbers or as factors: types, levels and their order, codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.errors import DataError

_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}
_EXACT = 2**53  # whole numbers up to here are themselves as floats
_TIMES = {"date", "datetime", "datetime64", "timedelta", "time", "period", "complex"}


@dataclass(frozen=True)
class Coding:
    """How a factor becomes columns: the name of a coding and its settings.

    The setting `base` is the place of a level, not its label.
    """

    name: str = "treatment"
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Categorical:
    """Values of a factor: integer codes (-1 for a level that was not seen), levels, coding."""

    codes: NDArray[np.int64]
    levels: pd.Index[Any]
    coding: Coding = Coding()
    unseen: tuple[object, ...] = ()


def plain(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of numbers or truth values in a type of NumPy's, others as they are.

    Raises
    ------
    DataError
        If the column holds dates, durations or complex numbers.

    Examples
    --------
    >>> plain(pd.Series([1, 2.5], dtype=object)).dtype
    dtype('float64')
    """
    kind = pd.api.types.infer_dtype(series, skipna=False) if series.dtype == object else ""
    if kind in _NUMBERS:
        series = pd.to_numeric(series)
    dtype = series.dtype
    if kind in _TIMES or dtype.kind in "mMc" or isinstance(dtype, pd.PeriodDtype):
        message = (
            f"column `{series.name}` has type {kind or dtype}: turn it into numbers (say, days "
            "since the start) or into a categorical first."
        )
        raise DataError(message)
    if dtype.kind in "biuf" or pd.api.types.is_numeric_dtype(dtype):
        values = series.to_numpy(dtype=getattr(dtype, "numpy_dtype", None))
        unlike = values.dtype in (object, np.float16)  # decimals, and what pandas has no index of
        return pd.Series(values.astype(np.float64) if unlike else values)
    return series


def coded(label: str, series: pd.Series[Any], levels: pd.Index[Any] | None = None) -> Categorical:
    """Code labels by given levels, or by their own.

    Raises
    ------
    DataError
        If the values cannot be labels, as lists cannot.
    """
    labels = series.astype(object) if isinstance(series.dtype, pd.CategoricalDtype) else series
    try:
        levels = sorted_levels(series) if levels is None else levels
        codes = levels.get_indexer(pd.Index(labels))
        unseen = tuple(pd.unique(labels[codes < 0]))
    except TypeError:
        message = f"`{label}` has values that cannot be levels, such as {series.iloc[0]!r}."
        raise DataError(message) from None
    return Categorical(codes.astype(np.int64), levels, unseen=unseen)


def sorted_levels(series: pd.Series[Any]) -> pd.Index[Any]:
    """Return the levels that occur, in category order or sorted.

    Examples
    --------
    >>> list(sorted_levels(pd.Series(["b", "a", "b"])))
    ['a', 'b']
    """
    if isinstance(series.dtype, pd.CategoricalDtype):
        used = set(series.cat.codes.unique())
        return series.cat.categories[[code in used for code in range(len(series.cat.categories))]]
    values = np.asarray(pd.unique(series))
    if values.dtype.kind == "f" and _whole(values):
        values = values.astype(np.int64)
    levels: pd.Index[Any]
    try:
        levels = pd.Index(np.sort(values))
    except TypeError:  # labels of mixed types have no order of their own
        in_order = sorted(values, key=lambda v: (type(v).__name__, str(v)))
        levels = pd.Index(in_order, dtype=object)
    return levels


def _whole(values: NDArray[Any]) -> bool:
    exact = float(np.abs(values).max(initial=0)) < _EXACT
    return bool(exact and (values == np.round(values)).all())
