"""Small tables that stand beside lazy rows in their own engine, and are joined to them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from operator import methodcaller
from typing import Any, cast

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.lazy.expressions import CodedCells, number
from ranef.design.lazy.lazy_table import OWN, Expr, LazyFrame, arrays
from ranef.errors import DataError


def with_shares(
    rows: LazyFrame, name: str, cells: CodedCells, mix: Array
) -> tuple[LazyFrame, list[Expr | None]]:
    """Return rows with combinations of the shares of coded columns, and these as expressions.

    Parameters
    ----------
    rows : LazyFrame
    name : str
        Begins the names of what is joined to them.
    cells : CodedCells
    mix : ndarray, shape (columns, wanted)

    Returns
    -------
    rows : LazyFrame
    combinations : list of Expr or None
        None for those that have no part.
    """
    import narwhals.stable.v2 as nw

    found: list[Expr | None] = [None for _ in mix.T]
    kinds = {tuple(keys): keys for keys in cells.keys}
    for place, (kind, keys) in enumerate(kinds.items()):
        are = np.array([tuple(one) == kind for one in cells.keys])
        (used,) = np.nonzero(mix[are].any(axis=0))
        if not len(used):
            continue
        own = {key: f"{OWN}{name}{place}_{i}" for i, key in enumerate(keys)}
        there: dict[str, Any] = {}
        if keys:
            rows = rows.with_columns(**{own[key]: value for key, value in keys.items()})
            has_level = [~nw.col(column).is_null() for column in own.values()]
            there = arrays(rows.filter(*has_level).select(*own.values()).unique())
        size = len(next(iter(there.values()))) if there else 1
        shares = cells.shares({key: there.get(column) for key, column in own.items()}, size)
        values = shares[:, are] @ mix[np.ix_(are, used)]
        parts = [number(value) for value in values[0]] if not keys else []
        if there:
            rows, parts = with_table(rows, f"{name}{place}", there, values)
        for t, part in zip(used, parts, strict=True):
            found[t] = part if found[t] is None else found[t] + part
    return rows, found


def with_table(
    rows: LazyFrame, name: str, keys: Mapping[str, Any], values: Array
) -> tuple[LazyFrame, list[Expr]]:
    """Return rows with values by their keys, and these as expressions: zero for other keys.

    Parameters
    ----------
    rows : LazyFrame
    name : str
        Begins the names of the values' columns.
    keys : mapping of str to array, shape (m,)
        By the columns of the rows.
    values : ndarray, shape (m, k)
    """
    import narwhals.stable.v2 as nw

    schema, names = rows.collect_schema(), [f"{OWN}{name}b{j}" for j in range(values.shape[1])]
    kinds: dict[str, Any] = {key: schema[key] for key in keys}
    kinds = {k: nw.String if t in (nw.Enum, nw.Categorical) else t for k, t in kinds.items()}
    table = pd.DataFrame(dict(keys)).assign(**dict(zip(names, values.T, strict=True)))
    casts = [nw.col(key).cast(kind) for key, kind in kinds.items()]
    small = beside(rows, table).with_columns(casts)
    joined = rows.with_columns(casts).join(small, on=[*keys], how="left")
    return joined, [nw.col(column).fill_null(0.0) for column in names]


# A constant text, run on the connection that the data are of: a relation of another does not join.
_on_connection = methodcaller("query", "ranef_data", "select * from table_of_levels")


def beside(data: LazyFrame, table_of_levels: pd.DataFrame) -> LazyFrame:
    """Return a small table as a lazy frame of the engine of some data.

    Raises
    ------
    DataError
        If it is not known how a table comes to that engine.
    """
    import narwhals.stable.v2 as nw

    native: Any = data.to_native()
    engine = data.implementation
    if engine.is_duckdb():
        made = _on_connection(native)  # which finds the table by its name
    elif engine.is_polars():
        made = import_module("polars").from_pandas(table_of_levels).lazy()
    elif engine.is_ibis():
        made = import_module("ibis").memtable(_arrow(table_of_levels))
    elif engine.is_dask():
        made = import_module("dask.dataframe").from_pandas(table_of_levels, npartitions=1)
    elif engine.is_pyspark():
        made = native.sparkSession.createDataFrame(_arrow(table_of_levels))
    else:
        message = f"it is not known how a table of levels comes to {engine}: "
        raise DataError(f"{message}collect the rows to be predicted.")
    return cast("LazyFrame", nw.from_native(made).lazy())


def _arrow(table: pd.DataFrame) -> Any:
    return import_module("pyarrow").Table.from_pandas(table, preserve_index=False)
