"""Any data frame to the pandas columns that a formula uses.

Only the used columns are read. pandas frames are taken as they are; others (polars, pyarrow) go
through narwhals, which keeps the order of their categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

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
        """Return the used columns of a formula; refuse those that are missing or ambiguous."""
        for name, span in used.items():
            if self.names.count(name) == 0:
                message = f"the column `{name}` is not in the data. {suggestion(name, self.names)}"
                raise FormulaError(message, text, span)
            self._refuse_repeated(name)
        return pd.DataFrame({name: self.read(name) for name in used}, index=self.rows)

    def values(self, given: str | ArrayLike | None, what: str) -> NDArray[np.float64] | None:
        """Return `weights=` or `offset=` as numbers: a column's name, or an array."""
        if given is None:
            return None
        if isinstance(given, str):
            if given not in self.names:
                known = suggestion(given, self.names)
                raise DataError(f"{what}={given!r} is not a column of the data. {known}")
            self._refuse_repeated(given)
            given = self.read(given)
        elif isinstance(given, pd.Series) and not given.index.equals(self.rows):
            message = f"the index of {what}= differs from that of the data: pass a plain array."
            raise DataError(message)
        values = _as_numbers(given, what)
        if values.shape != (len(self.rows),):
            message = f"{what}= has shape {values.shape}, expected ({len(self.rows)},)."
            raise DataError(message)
        return values

    def _refuse_repeated(self, name: str) -> None:
        if (count := self.names.count(name)) > 1:
            raise DataError(f"{count} columns of the data are called `{name}`: rename them.")


@dataclass(frozen=True, eq=False)
class Rows:
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
        """Return the columns, with weights and offset added under names that are given."""
        found = self.columns.copy()
        given = {"weights": self.weights, "offset": self.offset}
        for what, name in names.items():
            if name and name not in found:
                found[name] = given[what]
        return found


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
        names = [str(c) for c in data.columns]
        frame = data
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
) -> Rows:
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
    absent = columns.isna()
    for name, values in (("weights=", weights), ("offset=", offset)):
        if values is not None:
            absent[name] = np.isnan(values)
    gone = absent.any(axis=1).to_numpy()
    if gone.any():
        _report(absent, gone, missing)
    kept = Rows(
        columns.loc[~gone],
        None if weights is None else weights[~gone],
        None if offset is None else offset[~gone],
    )
    _check_extras(kept)
    return kept


def _report(absent: pd.DataFrame, gone: NDArray[np.bool_], missing: str) -> None:
    counts = ", ".join(f"`{name}` ({n})" for name, n in absent.sum().items() if n)
    if gone.all():
        raise DataError(f"no row is complete: missing values in {counts}.")
    share = f"{gone.sum()} of {len(gone)} rows"
    if missing == "raise":
        rows = listed(absent.index[gone])
        raise DataError(f"{share} have missing values, in {counts}: rows {rows}.")
    message = f"{share} left out for missing values in {counts}."
    warn(message, DataWarning)


def _check_extras(rows: Rows) -> None:
    for name, values in (("weights=", rows.weights), ("offset=", rows.offset)):
        if values is not None and not np.isfinite(values).all():
            bad = listed(rows.columns.index[~np.isfinite(values)])
            raise DataError(f"{name} is infinite in the rows {bad}.")
    if rows.weights is not None and (rows.weights <= 0).any():
        bad = listed(rows.columns.index[rows.weights <= 0])
        message = f"weights= must be positive; zero or negative in the rows {bad}. "
        raise DataError(message + "Leave out the rows that should not count.")


def _as_numbers(given: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        raw = np.asarray(given)
        kind = pd.api.types.infer_dtype(raw, skipna=True) if raw.dtype == object else raw.dtype.kind
        if kind in _NUMERIC:
            return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    raise DataError(f"{what}= is not numeric.")


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
