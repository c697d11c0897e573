"""Any data frame to the pandas columns that a formula uses.

Only the used columns are read. pandas frames are taken as they are; others (polars, pyarrow) go
through narwhals, which keeps the order of their categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef._typing import Array, Codes, Flags, Places
from ranef.errors import DataError, DataWarning, FormulaError, listed, suggestion, warn
from ranef.formula.syntax import Span

_NUMERIC = {*"biuf", "boolean", "integer", "floating", "mixed-integer-float", "decimal", "empty"}


@dataclass(frozen=True, eq=False)
class Source:
    """A data frame of any kind: its column names, its row labels, and a reader of one column."""

    names: list[str]
    rows: pd.Index[Any]
    read: Callable[[str], pd.Series[Any]]

    def columns(self, used: Mapping[str, Span], text: str) -> pd.DataFrame:
        """Return the used columns of a formula; refuse missing and ambiguous names."""
        for name, span in used.items():
            if self.names.count(name) == 0:
                message = f"the column `{name}` is not in the data. {suggestion(name, self.names)}"
                raise FormulaError(message, text, span)
            self._refuse_repeated(name)
        return pd.DataFrame({name: self.read(name) for name in used}, index=self.rows)

    def values(self, argument: str | ArrayLike | None, name: str) -> NDArray[np.float64] | None:
        """Return the numbers of `weights=` or `offset=`, a column's name or an array."""
        if argument is None:
            return None
        if isinstance(argument, str):
            if argument not in self.names:
                hint = suggestion(argument, self.names)
                raise DataError(f"{name}={argument!r} is not a column of the data. {hint}")
            self._refuse_repeated(argument)
            argument = self.read(argument)
        elif isinstance(argument, pd.Series) and not argument.index.equals(self.rows):
            message = f"the index of {name}= differs from that of the data: pass a plain array."
            raise DataError(message)
        numbers = _as_numbers(argument, name)
        if numbers.shape != (len(self.rows),):
            message = f"{name}= has shape {numbers.shape}, expected ({len(self.rows)},)."
            raise DataError(message)
        return numbers

    def _refuse_repeated(self, name: str) -> None:
        if (count := self.names.count(name)) > 1:
            raise DataError(f"{count} columns of the data are called `{name}`: rename them.")


@dataclass(frozen=True, eq=False)
class CompleteRows:
    """The complete rows that a model is built on.

    Attributes
    ----------
    columns : pandas.DataFrame
        The used columns.
    weights, offset : ndarray, shape (n,), or None
    """

    columns: pd.DataFrame
    weights: NDArray[np.float64] | None
    offset: NDArray[np.float64] | None

    def frame(self, **names: str | None) -> pd.DataFrame:
        """Return the columns, with weights and offset added under new names."""
        frame = self.columns.copy()
        arrays = {"weights": self.weights, "offset": self.offset}
        for array, name in names.items():
            if name and name not in frame:
                frame[name] = arrays[array]
        return frame


def open_frame(data: object) -> Source:
    """Return a `Source` for a frame of any supported kind.

    Raises
    ------
    DataError
        If `data` is not a data frame.
    """
    if isinstance(data, Mapping):
        data = _from_mapping(data)
    if isinstance(data, pd.DataFrame):
        frame, names = data, [str(c) for c in data.columns]
        return Source(names, frame.index, lambda name: frame.iloc[:, names.index(name)])
    import narwhals.stable.v1 as nw

    try:
        eager = nw.from_native(data, eager_only=True)
    except TypeError:
        message = f"expected a data frame (pandas, polars, pyarrow), got {type(data).__name__}."
        raise DataError(message) from None
    return Source(
        eager.columns, pd.RangeIndex(len(eager)), lambda name: _series(eager.get_column(name))
    )


def complete_rows(
    columns: pd.DataFrame,
    weights: NDArray[np.float64] | None,
    offset: NDArray[np.float64] | None,
    missing: str,
) -> CompleteRows:
    """Leave out the rows with missing values, with a warning that counts them.

    Raises
    ------
    DataError
        If no row is left, if `missing="raise"` and a value is missing, or if weights are not
        positive or not finite.
    """
    if missing not in ("drop", "raise"):
        raise DataError(f"missing={missing!r} is not an option: use 'drop' or 'raise'.")
    if len(columns) == 0:
        raise DataError("the data has no rows.")
    absent = _absent(columns, {"weights=": weights, "offset=": offset})
    incomplete = absent.any(axis=1).to_numpy()
    if incomplete.any():
        _report(absent, incomplete, missing)
    kept = CompleteRows(
        columns.loc[~incomplete],
        None if weights is None else weights[~incomplete],
        None if offset is None else offset[~incomplete],
    )
    _check_extras(kept)
    return kept


def complete_new_rows(
    columns: pd.DataFrame, offset: Array | None
) -> tuple[pd.DataFrame, Array, Places]:
    """Return the complete rows of new data, the known part of their mean, and their places.

    Warns
    -----
    DataWarning
        When a row is incomplete, and so has no prediction.
    """
    absent = _absent(columns, {"offset=": offset})
    incomplete = absent.any(axis=1).to_numpy()
    if incomplete.any():
        share = f"{incomplete.sum()} of {len(incomplete)} rows"
        rows = listed(absent.index[incomplete])
        message = f"{share} are predicted as nan for missing values in {_counts(absent)}: rows "
        warn(f"{message}{rows}.", DataWarning)
    known = np.zeros(len(columns)) if offset is None else offset
    return columns.loc[~incomplete], known[~incomplete], np.flatnonzero(~incomplete)


def _absent(columns: pd.DataFrame, others: Mapping[str, Array | None]) -> pd.DataFrame:
    """Return where values are missing, in columns and in other numbers."""
    numbers = {name: np.isnan(values) for name, values in others.items() if values is not None}
    return columns.isna().assign(**numbers)


def _counts(absent: pd.DataFrame) -> str:
    return ", ".join(f"`{name}` ({n})" for name, n in absent.sum().items() if n)


def _report(absent: pd.DataFrame, incomplete: Flags, missing: str) -> None:
    """Warn of rows with missing values, or refuse them."""
    counts = _counts(absent)
    if incomplete.all():
        raise DataError(f"no row is complete: missing values in {counts}.")
    share = f"{incomplete.sum()} of {len(incomplete)} rows"
    if missing == "raise":
        rows = listed(absent.index[incomplete])
        raise DataError(f"{share} have missing values, in {counts}: rows {rows}.")
    message = f"{share} left out for missing values in {counts}."
    warn(message, DataWarning)


def _check_extras(rows: CompleteRows) -> None:
    for name, values in (("weights=", rows.weights), ("offset=", rows.offset)):
        if values is not None and not np.isfinite(values).all():
            bad = listed(rows.columns.index[~np.isfinite(values)])
            raise DataError(f"{name} is infinite in the rows {bad}.")
    if rows.weights is not None and (rows.weights <= 0).any():
        bad = listed(rows.columns.index[rows.weights <= 0])
        message = f"weights= must be positive; zero or negative in the rows {bad}. "
        raise DataError(message + "Leave out the rows that should not count.")


def _as_numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        raw = np.asarray(values)
        kind = pd.api.types.infer_dtype(raw, skipna=True) if raw.dtype == object else raw.dtype.kind
        if kind in _NUMERIC:
            return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    raise DataError(f"{name}= is not numeric.")


def _from_mapping(data: Mapping[Any, Any]) -> pd.DataFrame:
    try:
        return pd.DataFrame(dict(data))
    except (TypeError, ValueError):
        message = "the columns of the data do not make a table: expected arrays of one length."
        raise DataError(message) from None


def _series(column: Any) -> pd.Series[Any]:
    """Turn a narwhals column into a pandas one, without needing pyarrow."""
    import narwhals.stable.v1 as nw

    dtype = column.dtype
    # the categories of a polars Categorical have no order but that of their names
    if dtype == nw.Enum or (dtype == nw.Categorical and not column.implementation.is_polars()):
        levels = column.cat.get_categories().to_list()
        return pd.Series(pd.Categorical(column.to_list(), [v for v in levels if v is not None]))
    if dtype.is_float():
        return pd.Series(column.cast(nw.Float64).to_numpy())
    if dtype.is_integer() and dtype not in (nw.Int128, nw.UInt128) and not column.is_null().any():
        return pd.Series(column.to_numpy())
    return pd.Series(column.to_list(), dtype=object)


_NUMBERS = {"integer", "floating", "mixed-integer-float", "decimal", "boolean"}
_MAX_EXACT_INTEGER = 2**53  # as a float
_TIMES = {"date", "datetime", "datetime64", "timedelta", "time", "period", "complex"}


@dataclass(frozen=True)
class Coding:
    """The coding of a factor by columns: its name and settings.

    The setting `base` is the number of a level, not its label.
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
    """Return a column of numbers or truth values in a type of NumPy's, other columns unchanged.

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
        has_no_index = values.dtype in (object, np.float16)  # decimals too
        return pd.Series(values.astype(np.float64) if has_no_index else values)
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
    if values.dtype.kind == "f" and _are_whole(values):
        values = values.astype(np.int64)
    levels: pd.Index[Any]
    try:
        levels = pd.Index(np.sort(values))
    except TypeError:  # labels of mixed types have no order of their own
        in_order = sorted(values, key=lambda v: (type(v).__name__, str(v)))
        levels = pd.Index(in_order, dtype=object)
    return levels


def _are_whole(values: NDArray[Any]) -> bool:
    are_exact = float(np.abs(values).max(initial=0)) < _MAX_EXACT_INTEGER
    return bool(are_exact and (values == np.round(values)).all())


@dataclass(frozen=True, eq=False)
class Factor:
    """A grouping factor: the level of each row.

    Attributes
    ----------
    name : str
        The name that lme4 gives it: `Subject`, `cask:batch` for `batch/cask`.
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
    """Combine factors: the levels are the combinations that occur, the first factor slowest."""
    codes = _joint([p.codes for p in parts])
    _, first = np.unique(codes, return_index=True)
    texts = [np.array([str(v) for v in p.levels], dtype=object)[p.codes[first]] for p in parts]
    labels = pd.Index([":".join(words) for words in zip(*texts, strict=True)], dtype=object)
    if levels is None:
        if not labels.is_unique:
            repeated = labels[labels.duplicated()][0]
            message = f"two combinations of `{name}` would both be called `{repeated}`: "
            raise DataError(message + "rename the labels.")
        return Factor(name, labels, codes, parts)
    unseen = np.any([p.codes < 0 for p in parts], axis=0)
    old_codes = levels.get_indexer(labels)[codes]
    return Factor(name, levels, np.where(unseen, -1, old_codes).astype(np.int64), parts)


def _joint(parts: Sequence[Codes]) -> Codes:
    """Return a number for every combination of codes that occurs, the first code slowest."""
    joint = np.zeros_like(parts[0])
    for codes in parts:  # numbered anew each time, so that no product overflows
        joint = joint * (codes.max(initial=0) + 2) + codes + 1
        joint = np.unique(joint, return_inverse=True)[1].astype(np.int64)
    return joint
