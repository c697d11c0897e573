"""The complete rows of lazy data, as an engine has them: what is asked of their columns.

Every question is one query, and only its answer comes here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef.design.data_frame import coded, report_missing
from ranef.errors import DataError, FormulaError, suggestion
from ranef.formula.terms import Formula

if TYPE_CHECKING:
    from narwhals.stable import v2

type LazyFrame = v2.LazyFrame[Any]
type Expr = v2.Expr

BY_ARROW = ("duckdb", "ibis", "pyspark")  # engines that hand over their answers so
OWN = "ranef_"  # the names of columns that are not the data's begin with it
ROWS, INCOMPLETE = f"{OWN}rows", f"{OWN}incomplete"


def open_lazy(data: object) -> LazyFrame | None:
    """Return data as a lazy frame; None where they are not lazy.

    Raises
    ------
    DataError
        If they are a Dask frame and nothing that is installed reads these.
    """
    if data is None or isinstance(data, pd.DataFrame | Mapping | str):
        return None
    import narwhals.stable.v2 as nw

    frame = nw.from_native(data, pass_through=True)
    if frame is data and type(data).__module__.partition(".")[0] in ("dask", "dask_expr"):
        message = "this version of narwhals reads Dask frames by a plugin that is not installed: "
        raise DataError(f'{message}pip install "ranef[dask]" narwhals-dask.')
    return frame if isinstance(frame, nw.LazyFrame) else None


def needs_rows(what: str) -> str:
    """Return why a part of a formula has no lazy form, and what to do."""
    message = f"{what} needs the rows, which lazy data do not bring here: make a column of it "
    return f"{message}before, or collect the data."


@dataclass(frozen=True, eq=False)
class LazyTable:
    """The complete rows of lazy data, with the columns that a model uses.

    Attributes
    ----------
    rows : LazyFrame
    schema : mapping of str to type
        Of the columns of the data.
    labels : mapping of str to type
        The columns that are neither numbers nor truth values.
    truths : set of str
        Those of truth values.
    weights, offset : Expr or None
    n, left_out : int
        The number of rows, and of those that miss a value.
    """

    rows: LazyFrame
    schema: Mapping[str, Any]
    labels: Mapping[str, Any]
    truths: set[str]
    weights: Expr | None
    offset: Expr | None
    n: int
    left_out: int

    def select(self, **sums: Expr) -> dict[str, Any]:
        """Return some numbers about all rows."""
        return {name: column[0] for name, column in arrays(self.rows.select(**sums)).items()}

    def levels(self, name: str) -> pd.Index[Any]:
        """Return the levels of a column that occur, in the order of its type, or sorted."""
        found = arrays(self.rows.select(name).unique())
        return coded(name, labels_of(self.rows, [name], found)[name]).levels

    def ranges(self, names: Iterable[str]) -> pd.DataFrame:
        """Return the smallest and largest value of each column of numbers or truth values."""
        import narwhals.stable.v2 as nw

        measured = [name for name in names if name not in self.labels]
        ends: dict[str, Expr] = {}
        for i, name in enumerate(measured):
            column = nw.col(name)
            column = column.cast(nw.Int8) if name in self.truths else column
            ends |= {f"low{i}": column.min(), f"high{i}": column.max()}
        found = self.select(**ends) if ends else {}
        return pd.DataFrame(
            {
                name: np.array([found[f"low{i}"], found[f"high{i}"]]).astype(
                    bool if name in self.truths else None
                )
                for i, name in enumerate(measured)
            }
        )


def check_unchanged(before: int, after: int) -> None:
    """Refuse data that have another number of rows than in an earlier query.

    Raises
    ------
    DataError
    """
    if after != before:
        message = f"the lazy data changed while they were read, from {before:,} to {after:,} rows: "
        raise DataError(f"{message}write them to a table that stays as it is.")


def arrays(rows: LazyFrame) -> dict[str, Any]:
    """Let the engine compute a table, and return its columns."""
    found = collected(rows)
    return {name: found.get_column(name).to_numpy() for name in found.columns}


def collected(rows: LazyFrame) -> Any:
    """Let the engine compute a table, and return it.

    Raises
    ------
    DataError
        If the package that the engine hands over its answers with is not installed.
    """
    engine = rows.implementation.name.lower()
    if engine in BY_ARROW and find_spec("pyarrow") is None:
        message = f"answers of {engine} come here by pyarrow, which is not installed: "
        raise DataError(f'{message}pip install "ranef[{engine}]".')
    return rows.collect()


def labels_of(rows: LazyFrame, names: Iterable[str], found: Mapping[Any, Any]) -> pd.DataFrame:
    """Return columns of labels that were found in rows, in the order that their types have."""
    columns = {}
    for name in names:
        known = _categories(rows, name)
        values = found[name] if known is None else pd.Categorical(found[name], categories=known)
        columns[name] = pd.Series(values)
    return pd.DataFrame(columns)


def _categories(rows: LazyFrame, name: str) -> pd.Index[Any] | None:
    """Return the labels that the type of a column has, in its order, or None if it has none."""
    import narwhals.stable.v2 as nw

    kind = rows.collect_schema()[name]
    if isinstance(kind, nw.Enum):
        return pd.Index(kind.categories)
    if isinstance(kind, nw.Categorical) and rows.implementation.is_dask():
        of_type: Any = rows.to_native()[name].cat
        return pd.Index(of_type.categories) if of_type.known else None
    return None


def labels_in(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that are neither numbers nor truth values, with their types."""
    import narwhals.stable.v2 as nw

    return {n: kind for n, kind in schema.items() if not kind.is_numeric() and kind != nw.Boolean}


def has_values(data: LazyFrame, names: Iterable[str]) -> Expr:
    """Return whether a row has a value in each of some columns, which nulls and NaN are not."""
    import narwhals.stable.v2 as nw

    return ~nw.any_horizontal(*_absent(data, names).values(), ignore_nulls=True)


def _absent(data: LazyFrame, names: Iterable[str]) -> dict[str, Expr]:
    """Return whether a row has no value in a column, by the column's name."""
    import narwhals.stable.v2 as nw

    schema, absent = data.collect_schema(), {name: nw.col(name).is_null() for name in names}
    isnan = {name: nw.col(name).is_nan() for name in absent if schema[name].is_float()}
    return absent | {name: absent[name] | isnan[name] for name in isnan}


def complete_table(
    formula: Formula, data: LazyFrame, weights: object, offset: object, missing: str
) -> LazyTable:
    """Return the complete rows of lazy data, and count the others."""
    import narwhals.stable.v2 as nw

    names, schema = dict(formula.columns()), data.collect_schema()
    for option, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{option}= of lazy data is the name of a column, got an array.")
        if isinstance(value, str) and value not in schema:
            hint = suggestion(value, [*schema])
            raise DataError(f"{option}={value!r} is not a column of the data. {hint}")
        if isinstance(value, str) and not schema[value].is_numeric():
            raise DataError(f"{option}= is not numeric.")
        if isinstance(value, str):
            names.setdefault(value, (0, 0))
    for name, span in names.items():
        if name not in schema:
            message = f"the column `{name}` is not in the data. {suggestion(name, [*schema])}"
            raise FormulaError(message, formula.text, span)
    kept = data.select(*names).filter(has_values(data, names))
    flags = {f"{OWN}{i}": absent for i, absent in enumerate(_absent(data, names).values())}
    anywhere = nw.any_horizontal(*flags, ignore_nulls=True)
    flagged = data.with_columns(**flags).select(*flags, anywhere.alias(INCOMPLETE))
    sums = (nw.col(name).cast(nw.Int64).sum() for name in (*flags, INCOMPLETE))
    n, *absent, incomplete = (
        int(column[0] or 0)
        for column in arrays(flagged.select(nw.len().alias(ROWS), *sums)).values()
    )
    report_missing(dict(zip(names, absent, strict=True)), incomplete, n, missing)
    weighting, shift = (
        None if v is None else nw.col(str(v)).cast(nw.Float64) for v in (weights, offset)
    )
    truths = {name for name in names if schema[name] == nw.Boolean}
    labels = labels_in({name: schema[name] for name in names})
    return LazyTable(kept, schema, labels, truths, weighting, shift, n - incomplete, incomplete)
