"""The columns of a data frame as arrays and labels that a file can hold, and back.

Numbers are kept as they are. Other values are numbered in the order of their first occurrence; the
labels behind these numbers are text, numbers, dates and times, intervals of numbers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from ranef.errors import DataError

_LABELS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "time": (pd.Timestamp, pd.Timestamp.isoformat, pd.Timestamp),
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "duration": (pd.Timedelta, pd.Timedelta.isoformat, pd.Timedelta),
    "decimal": (Decimal, str, Decimal),
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "period": (pd.Period, lambda p: [str(p), p.freqstr], lambda p: pd.Period(p[0], freq=p[1])),
    "interval": (
        pd.Interval,
        lambda i: [stored_label(i.left), stored_label(i.right), i.closed],
        lambda i: pd.Interval(label_of(i[0]), label_of(i[1]), closed=i[2]),
    ),
}


def stored_label(label: Any) -> Any:
    """Return a label as text, a number, or a tuple of its kind and what says it.

    Raises
    ------
    DataError
        If it is of another kind.
    """
    if isinstance(label, np.generic):
        label = label.item()
    if isinstance(label, str | bool | int | float):
        return label
    for kind, (type_, said, _) in _LABELS.items():
        if isinstance(label, type_):
            return kind, said(label)
    message = f"a file cannot hold the value {label!r} of the data, which is of the type "
    raise DataError(f"{message}{type(label).__name__}: turn such values into text or numbers.")


def label_of(stored: Any) -> Any:
    """Return a label from what `stored_label` made of it."""
    if not isinstance(stored, tuple):
        return stored
    kind, said = stored
    return _LABELS[kind][2](said)


def stored_column(column: pd.Series[Any]) -> dict[str, Any]:
    """Return a column without missing values as arrays, numbers and text.

    Examples
    --------
    >>> stored_column(pd.Series(["b", "a", "b"], dtype=object))
    {'labels': ['b', 'a'], 'codes': array([0, 1, 0], dtype=int32), 'dtype': 'object'}
    """
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return {
            "categories": stored_column(pd.Series(dtype.categories)),
            "ordered": bool(dtype.ordered),
            "codes": column.cat.codes.to_numpy().astype(np.int32),
        }
    if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.itemsize <= 8:
        return {"values": column.to_numpy()}
    places: dict[tuple[type, Any], int] = {}
    codes = [places.setdefault((type(value), value), len(places)) for value in column]
    labels = [stored_label(value) for _, value in places]
    return {"labels": labels, "codes": np.array(codes, dtype=np.int32), "dtype": str(dtype)}


def column_of(stored: dict[str, Any]) -> pd.Series[Any]:
    """Return a column from what `stored_column` made of it."""
    if "values" in stored:
        return pd.Series(stored["values"])
    if "categories" in stored:
        categories = pd.Index(column_of(stored["categories"]))
        kind = pd.CategoricalDtype(categories, stored["ordered"])
        return pd.Series(pd.Categorical.from_codes(stored["codes"], dtype=kind))
    labels = np.empty(len(stored["labels"]), dtype=object)
    labels[:] = [label_of(label) for label in stored["labels"]]
    column = pd.Series(labels[stored["codes"]], dtype=object)
    try:
        return column.astype(stored["dtype"])
    except TypeError:  # a type of another version of pandas, or of a package that is not here
        return column


def stored_index(index: pd.Index[Any]) -> dict[str, Any]:
    """Return the labels of rows as arrays, numbers and text."""
    names = [None if name is None else stored_label(name) for name in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"names": names, "range": [index.start, index.stop, index.step]}
    levels = [index.get_level_values(i) for i in range(index.nlevels)]
    return {"names": names, "levels": [stored_column(pd.Series(level)) for level in levels]}


def index_of(stored: dict[str, Any]) -> pd.Index[Any]:
    """Return the labels of rows from what `stored_index` made of them."""
    names = [None if name is None else label_of(name) for name in stored["names"]]
    if "range" in stored:
        return pd.RangeIndex(range(*stored["range"]), name=names[0])
    levels: list[pd.Index[Any]] = [pd.Index(column_of(level)) for level in stored["levels"]]
    if len(levels) == 1:
        return levels[0].rename(names[0])
    return pd.MultiIndex.from_arrays(levels, names=names)
