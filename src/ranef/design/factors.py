"""Columns of a data frame as numbers or as factors: types, levels and their order, codes.

A `Categorical` is a factor as a predictor, to be coded; a `Factor` groups random effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.errors import DataError

Codes = NDArray[np.int64]

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


@dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor: the level of each row.

    Attributes
    ----------
    name : str
        As lme4 names it: `Subject`, `cask:batch` for `batch/cask`.
    levels : pandas.Index
        Labels of the m levels that occur.
    codes : ndarray of int, shape (n,)
        The level of each row; -1 for a level that was not there when the design was built.
    parts : tuple of Factor
        The factors that are combined; empty for a plain one.
    """

    name: str
    levels: pd.Index[Any]
    codes: Codes
    parts: tuple[Factor, ...] = ()


def combined(name: str, parts: tuple[Factor, ...], levels: pd.Index[Any] | None) -> Factor:
    """Combine factors: the levels are the combinations that occur, the first part slowest."""
    codes = _joint([p.codes for p in parts])
    _, first = np.unique(codes, return_index=True)
    texts = [np.array([str(v) for v in p.levels], dtype=object)[p.codes[first]] for p in parts]
    labels = [":".join(words) for words in zip(*texts, strict=True)]
    found = pd.Index(labels, dtype=object)
    unseen = np.any([p.codes < 0 for p in parts], axis=0)
    if levels is None:
        if not found.is_unique:
            twice = found[found.duplicated()][0]
            message = f"two combinations of `{name}` would both be called `{twice}`: "
            raise DataError(message + "rename the labels.")
        return Factor(name, found, codes, parts)
    known = levels.get_indexer(found)[codes]
    return Factor(name, levels, np.where(unseen, -1, known).astype(np.int64), parts)


def _joint(parts: Sequence[Codes]) -> Codes:
    """Return a number for every combination of codes that occurs, the first code slowest."""
    joint = np.zeros_like(parts[0])
    for codes in parts:  # numbered afresh each time, so that no product overflows
        joint = joint * (codes.max(initial=0) + 2) + codes + 1
        joint = np.unique(joint, return_inverse=True)[1].astype(np.int64)
    return joint
