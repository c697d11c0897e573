"""Any data frame to the pandas columns that a formula uses.

Only the used columns are read. pandas frames are taken as they are; others (polars, pyarrow) go
through narwhals, which keeps the order of their categories.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef._typing import Array, Codes, Flags, Places
from ranef.arguments import is_one_of
from ranef.design.columns.written_labels import kinds_of, readings, typed
from ranef.errors import DataError, DataWarning, FormulaError, listed, suggestion, warn
from ranef.formula.codings import Coding
from ranef.formula.syntax import Span

MAX_MAGNITUDE = 1e35  # of a column: the squared variance of a slope of two such is 1e280


@dataclass(frozen=True, eq=False)
class Source:
    """A data frame of any kind: its column names, its row labels, and a reader of columns."""

    names: list[str]
    rows: pd.Index[Any]
    read: Callable[[list[str]], pd.DataFrame]

    def columns(self, used: Mapping[str, Span], text: str, /, **remedies: str) -> pd.DataFrame:
        """Return the used columns of a formula; refuse missing and ambiguous names."""
        for name, span in used.items():
            if self.names.count(name) == 0:
                hint = f"{suggestion(name, self.names)} {remedies.get(name, '')}".rstrip()
                if len(self.names) == 1 and (found := set(self.names[0]) & set(";\t|,")):
                    hint += f" It is one column: read the file with sep={min(found)!r}."
                raise FormulaError(f"the column `{name}` is not in the data. {hint}", text, span)
            self._refuse_repeated(name)
        return self.read(list(used))

    def values(self, argument: str | ArrayLike | None, name: str) -> Array | None:
        """Return the numbers of `weights=` or `offset=`, a column's name or an array."""
        if argument is None:
            return None
        if isinstance(argument, str):
            if argument not in self.names:
                hint = suggestion(argument, self.names)
                raise DataError(f"{name}={argument!r} is not a column of the data. {hint}")
            self._refuse_repeated(argument)
            argument = self.read([argument]).iloc[:, 0]
        elif isinstance(argument, pd.Series) and not argument.index.equals(self.rows):
            message = f"the index of {name}= differs from that of the data: pass a plain array."
            raise DataError(message)
        return _as_numbers(argument, name, len(self.rows))

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
    left_out : int
        How many more rows there were, which miss a value.
    """

    columns: pd.DataFrame
    weights: Array | None
    offset: Array | None
    left_out: int = 0

    def frame(self, **names: str | None) -> pd.DataFrame:
        """Return the columns, with weights and offset added under new names."""
        arrays = {"weights": self.weights, "offset": self.offset}
        missing = {k: v for k, v in names.items() if v and v not in self.columns}
        return self.columns.assign(**{name: arrays[array] for array, name in missing.items()})


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
        return Source(names, frame.index, lambda used: _taken(frame, names, used))
    import narwhals.stable.v1 as nw

    try:
        eager: Any = nw.from_native(data, eager_only=True)
    except TypeError:
        message = f"expected a data frame (pandas, polars, pyarrow), got {type(data).__name__}."
        raise DataError(message + " Read it first." * isinstance(data, str)) from None
    rows = pd.RangeIndex(len(eager))
    return Source(
        eager.columns,
        rows,
        lambda used: pd.DataFrame({u: _series(eager.get_column(u)) for u in used}, index=rows),
    )


def _taken(frame: pd.DataFrame, names: list[str], used: list[str]) -> pd.DataFrame:
    """Return a copy of some columns of a pandas frame, by their names as text."""
    taken = frame.take([names.index(name) for name in used], axis=1)
    taken.columns = pd.Index(used)
    return taken


def complete_rows(
    columns: pd.DataFrame,
    weights: Array | None,
    offset: Array | None,
    missing: str,
    weights_as: str = "weights",
    *,
    counts: Codes | None = None,
) -> CompleteRows:
    """Leave out the rows with missing values, with a warning that counts them.

    Raises
    ------
    DataError
        If no row is left, if `missing="raise"` and a value is missing, or if weights are not
        positive or not finite.
    """
    absent, incomplete = _absent(columns, {f"{weights_as}=": weights, "offset=": offset})
    rows = columns.index[incomplete]
    report_missing(absent, len(rows), len(columns), missing, rows)
    if len(rows):
        columns = columns.loc[~incomplete]
        weights, offset = (v if v is None else v[~incomplete] for v in (weights, offset))
    kept = CompleteRows(columns, weights, offset, len(rows))
    _check_extras(kept, columns.index if counts is None else counts)
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
    absent, incomplete = _absent(columns, {"offset=": offset})
    if incomplete.any():
        rows, counts = columns.index[incomplete], _counts(absent)
        message = f"nan is predicted for {len(rows)} of {len(columns)} rows, for missing values in "
        warn(f"{message}{counts}: {listed(rows)}.", DataWarning)
    known = np.zeros(len(columns)) if offset is None else offset
    return columns.loc[~incomplete], known[~incomplete], np.flatnonzero(~incomplete)


def _absent(
    columns: pd.DataFrame, others: Mapping[str, Array | None]
) -> tuple[dict[str, int], Flags]:
    """Return how many values columns and other numbers miss, and which rows miss any."""
    numbers = {name: np.isnan(values) for name, values in others.items() if values is not None}
    are_absent = np.column_stack([columns.isna().to_numpy(dtype=bool), *numbers.values()])
    counts = are_absent.sum(axis=0).tolist()
    return dict(zip([*columns, *numbers], counts, strict=True)), are_absent.any(axis=1)


def _counts(absent: Mapping[Any, int]) -> str:
    return ", ".join(f"`{name}` ({n:,})" for name, n in absent.items() if n)


def report_missing(
    absent: Mapping[Any, int], incomplete: int, n: int, missing: str, rows: Collection[object] = ()
) -> None:
    """Warn that some of n rows are left out, or refuse them.

    Parameters
    ----------
    absent : mapping of str to int
        The number of missing values of each column.
    incomplete : int
        The number of rows that have any.
    n : int
    missing : {"drop", "raise"}
    rows : collection
        Which they are, where that is known.

    Raises
    ------
    DataError
        If no row is left, or if `missing="raise"` and a value is missing.
    """
    if not is_one_of(missing, ("drop", "raise")):
        raise DataError(f"missing={missing!r} is not an option: use 'drop' or 'raise'.")
    if n == 0:
        raise DataError("the data has no rows.")
    counts, share = _counts(absent), f"{incomplete:,} of {n:,} rows"
    if incomplete == n:
        raise DataError(f"no row is complete: missing values in {counts}.")
    if incomplete and missing == "raise":
        which = f": rows {listed(rows)}" if len(rows) else ""
        raise DataError(f"{share} have missing values, in {counts}{which}.")
    if incomplete:
        warn(f"{share} left out for missing values in {counts}.", DataWarning)


def in_rows(bad: Flags, rows: pd.Index[Any] | Codes) -> str:
    """Return how many rows something is true of, and which: by their labels, or by their counts.

    Examples
    --------
    >>> bad = np.array([True, False, True])
    >>> in_rows(bad, pd.Index(["a", "b", "c"]))
    '2 of 3 rows: `a` and `c`'
    >>> in_rows(bad, np.array([10, 1, 2]))
    '12 of 13 rows'
    """
    if isinstance(rows, np.ndarray):
        return f"{rows[bad].sum():,} of {rows.sum():,} rows"
    return f"{bad.sum():,} of {len(bad):,} rows: {listed(rows[bad])}"


def _check_extras(rows: CompleteRows, labels: pd.Index[Any] | Codes) -> None:
    for name, values in (("weights=", rows.weights), ("offset=", rows.offset)):
        if values is not None and not np.isfinite(values).all():
            raise DataError(f"{name} is infinite in {in_rows(~np.isfinite(values), labels)}.")
        if values is not None:
            check_magnitude(name, values)
    if rows.weights is not None and (rows.weights <= 0).any():
        message = (
            f"weights= must be positive; zero or negative in {in_rows(rows.weights <= 0, labels)}"
        )
        raise DataError(f"{message}. Leave out the rows that should not count.")


def check_magnitude(subject: str, values: Array) -> None:
    """Refuse numbers so large that powers of them overflow, or so small that these vanish.

    Raises
    ------
    DataError
    """
    size = np.abs(values).max(initial=0.0)
    if size > MAX_MAGNITUDE or 0 < size < 1 / MAX_MAGNITUDE:
        raise DataError(f"{subject} has values of the order of {size:.0e}: rescale it.")


def _as_numbers(values: ArrayLike, name: str, n: int) -> Array:
    """Return numbers, one a row, nan where one is missing or masked."""
    try:
        shape = np.shape(values)
    except ValueError:
        raise DataError(f"{name}= is not numeric.") from None
    if shape != (n,):
        raise DataError(f"{name}= has shape {shape}, expected ({n},).")
    is_array = isinstance(values, pd.Series | np.ndarray | pd.api.extensions.ExtensionArray)
    column = pd.Series(values if is_array else np.asarray(values), name=f"{name}=")
    is_there = column.notna().to_numpy()
    there = plain(column[is_there])
    if len(there) and there.dtype.kind not in "biuf":
        raise DataError(f"{name}= is not numeric.")
    numbers = np.full(n, np.nan)
    numbers[is_there] = there
    return numbers


def _from_mapping(data: Mapping[Any, Any]) -> pd.DataFrame:
    try:
        return pd.DataFrame(dict(data))
    except (TypeError, ValueError):
        message = "the columns of the data do not make a table: expected arrays of one length, "
        raise DataError(f"{message}in brackets also if it is 1.") from None


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


_MAX_EXACT_INTEGER = 2**53  # as a float
_TIMES = {"date", "datetime", "datetime64", "timedelta", "time", "period"}


@dataclass(frozen=True, eq=False)
class Categorical:
    """Values of a factor.

    Attributes
    ----------
    codes : ndarray of int, shape (n,)
        -1 for a level that was not seen.
    levels : pandas.Index
    coding : Coding
    numbers : ndarray of int, shape (n,)
        The codes, but for levels that were not seen: these are numbered too, from m on.
    unseen : tuple
        The labels that were not seen.
    doubt : str
        What speaks for some of these being known levels in another type, in words.
    """

    codes: Codes
    levels: pd.Index[Any]
    numbers: Codes
    coding: Coding = field(default_factory=Coding)
    unseen: tuple[object, ...] = ()
    doubt: str = ""


_PLAIN = {np.dtype(kind) for kind in (*"?bBhHiIlLqQ", np.float32, np.float64)}


def plain(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column of numbers or truth values in a type of NumPy's, other columns unchanged.

    Examples
    --------
    >>> plain(pd.Series([1, 2.5], dtype=object)).dtype
    dtype('float64')
    """
    kinds = kinds_of(series) if series.dtype == object else set()
    if kinds in ({"number"}, {"truth value"}):
        values = np.array(series.to_list())  # fractions and decimals stay objects
        return pd.Series(values.astype(np.float64) if values.dtype == object else values)
    dtype = series.dtype
    if dtype in _PLAIN:
        return series
    if dtype.kind in "biuf" or (dtype.kind != "c" and pd.api.types.is_numeric_dtype(dtype)):
        values = series.to_numpy(dtype=getattr(dtype, "numpy_dtype", None))
        has_no_index = values.dtype in (object, np.float16, np.longdouble)  # decimals too
        return pd.Series(values.astype(np.float64) if has_no_index else values)
    return series


def refuse_complex(series: pd.Series[Any]) -> None:
    """Refuse complex numbers, which are neither measured nor labels.

    Raises
    ------
    DataError
    """
    is_object = series.dtype == object
    if series.dtype.kind == "c" or (is_object and "complex number" in kinds_of(series)):
        raise DataError(f"column `{series.name}` holds complex numbers: take a real part of them.")


def refuse_times(label: str, series: pd.Series[Any]) -> None:
    """Refuse dates, times, periods and durations where they may mean numbers or labels.

    Raises
    ------
    DataError
    """
    kind = pd.api.types.infer_dtype(series, skipna=False) if series.dtype == object else ""
    dtype = series.dtype
    if kind in _TIMES or dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype):
        raise DataError(
            f"`{label}` has type {kind or dtype}, which may be meant as numbers or as labels: turn "
            f"it into numbers (say, days since the start), or write `factor({label})`."
        )


def coded(label: str, series: pd.Series[Any], levels: pd.Index[Any] | None = None) -> Categorical:
    """Code labels by given levels, or by their own.

    Raises
    ------
    DataError
        If the values cannot be labels, as lists cannot, or if labels of two types, such as 1 and
        "1", read the same and are to be levels.
    """
    try:
        codes, own = _distinct(series)
        places = np.arange(len(own)) if levels is None else _places_in(levels, own)
    except (TypeError, ValueError, NotImplementedError):
        message = f"`{label}` has values that cannot be levels, such as {series.iloc[0]!r}."
        raise DataError(message) from None
    if levels is None:
        labels = series if series.dtype == object else own
        _refuse_two_types(label, own, kinds_of(labels) if labels.dtype == object else set())
    known, found = own if levels is None else levels, np.append(places, -1)[codes]
    found = found.astype(np.int64)
    if (is_new := found < 0).any():
        new, strangers = pd.factorize(codes[is_new])
        numbers, unseen = found.copy(), tuple(own[strangers])
        numbers[is_new] = len(known) + new
        doubt = _doubt(label, known, unseen)
        return Categorical(found, known, numbers, unseen=unseen, doubt=doubt)
    return Categorical(found, known, found)


def _places_in(levels: pd.Index[Any], own: pd.Index[Any]) -> Places:
    """Return where labels stand among levels, -1 for others: text is no date, whatever it reads."""
    is_other = own.dtype != levels.dtype and own.dtype.kind == "O"
    return (levels.astype(object) if is_other else levels).get_indexer(own)


def _refuse_two_types(label: str, levels: pd.Index[Any], kinds: set[str]) -> None:
    """Refuse levels of two types that read the same, as ids of two files may."""
    if len(kinds) < 2:
        return
    seen: dict[Hashable, object] = {}
    for level in levels:
        for reading in readings(level):
            if (other := seen.setdefault(reading, level)) is not level:
                message = (
                    f"`{label}` has the levels {typed(other)} and {typed(level)}, which read the "
                    "same but differ in type: give all its values one type, as with "
                )
                raise DataError(f"{message}`.astype(str)`.")
    if {"number", "truth value"} <= kinds:
        message = f"`{label}` mixes numbers with truth values, where True and 1 are the same: "
        raise DataError(f"{message}give all its values one type.")


def _doubt(label: str, levels: pd.Index[Any], unseen: tuple[object, ...]) -> str:
    """Return a sentence on new levels that are known ones in another type, if there are any."""
    if not unseen or len(kinds_of(levels) | kinds_of(unseen)) < 2:
        return ""
    known = {reading: level for level in levels for reading in readings(level)}
    pairs = [(new, known[r]) for new in unseen for r in readings(new) if r in known]
    if not pairs:
        return ""
    new, level = pairs[0]
    return (
        f"`{label}` has {typed(new)} where the model has {typed(level)}: give it the type that "
        f"it had when the model was built. Its values would then be the known level"
        f"{'s' * (len(pairs) > 1)} {listed(level for _, level in pairs)}."
    )


def _distinct(series: pd.Series[Any]) -> tuple[Codes, pd.Index[Any]]:
    """Return the level of each row, and the levels that occur, in category order or sorted."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        codes, categories = series.array.codes.astype(np.int64), series.array.categories
        used = np.flatnonzero(np.bincount(codes + 1)[1:])
        places = np.full(len(categories) + 1, -1)  # the last is of missing values
        places[used] = np.arange(len(used))
        return places[codes], categories[used]
    codes, labels = pd.factorize(series)
    values = np.asarray(labels)
    if values.dtype.kind == "f" and _are_whole(values):
        values = values.astype(np.int64)
    try:
        order = np.argsort(values, kind="stable")
        levels: pd.Index[Any] = pd.Index(values[order])
    except TypeError:  # labels of mixed types have no order of their own
        keys = [(type(v).__name__, str(v)) for v in values]
        order = np.array(sorted(range(len(values)), key=keys.__getitem__), dtype=np.intp)
        levels = pd.Index(values[order], dtype=object)
    return np.append(np.argsort(order), -1)[codes], levels


def _are_whole(values: NDArray[Any]) -> bool:
    are_exact = float(np.abs(values).max(initial=0)) < _MAX_EXACT_INTEGER
    return bool(are_exact and (values == np.round(values)).all())


def level_texts(levels: pd.Index[Any]) -> NDArray[np.object_]:
    """Return levels as text, dates without the time of day where it is always midnight.

    Examples
    --------
    >>> level_texts(pd.date_range("2020-01-31", periods=2)).tolist()
    ['2020-01-31', '2020-02-01']
    """
    are_dates = isinstance(levels, pd.DatetimeIndex)
    return np.array(levels.astype(str) if are_dates else [str(v) for v in levels], dtype=object)
