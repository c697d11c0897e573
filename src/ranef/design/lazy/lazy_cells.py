"""The different rows of lazy data, counted: a likelihood that is a product over rows needs no more.

The engine groups the complete rows by all columns that a model reads, the response among them, and
what comes here is one of each with its count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranef._typing import Codes
from ranef.design.lazy.lazy_table import (
    ROWS,
    LazyFrame,
    LazyTable,
    arrays,
    check_unchanged,
    collected,
    complete_table,
)
from ranef.errors import FitError, listed
from ranef.families.family import Family
from ranef.formula.terms import Formula

MAX_CELLS = 1_000_000  # different rows that are brought here


@dataclass(frozen=True, eq=False)
class CountedRows:
    """Complete rows, and how often each of them occurs.

    Attributes
    ----------
    frame : DataFrame
        Of any kind that is in memory.
    counts : ndarray of int, shape (n,), or None
        None for once.
    left_out : int
        How many more rows there were, which miss a value.
    """

    frame: Any
    counts: Codes | None
    left_out: int


def counted_rows(
    formula: Formula,
    data: LazyFrame,
    family: Family,
    *,
    weights: object = None,
    offset: object = None,
    missing: str = "drop",
) -> CountedRows:
    """Return the different complete rows of lazy data, in the order of their values.

    Columns stand in the order of their names: formulas of the same columns have the same rows.

    Parameters
    ----------
    formula : Formula
    data : LazyFrame
    family : Family
    weights, offset : str, optional
        Names of columns.
    missing : {"drop", "raise"}

    Raises
    ------
    FitError
        If equal rows do not add up in the likelihood of the family, or no rows are equal, or too
        many are different.
    """
    import narwhals.stable.v2 as nw

    if not family.rows_add_up:
        message = f"a {family.name} model needs the rows, which lazy data do not bring here: "
        raise FitError(f"{message}collect them.")
    table = complete_table(formula, data, weights, offset, missing)
    names = sorted(table.rows.collect_schema().names())
    different = table.rows.unique().select(nw.len().alias(ROWS))
    _check_number(int(arrays(different)[ROWS][0]), table, names, family)
    found = collected(table.rows.group_by(*names).agg(nw.len().alias(ROWS)).sort(*names))
    counts = found.get_column(ROWS).to_numpy().astype(np.int64)
    check_unchanged(table.n, int(counts.sum()))
    return CountedRows(found.select(*names).to_native(), counts, table.left_out)


def _check_number(number: int, table: LazyTable, names: Sequence[str], family: Family) -> None:
    """Refuse rows none of which are equal, and more different ones than are brought here."""
    if number < table.n and number <= MAX_CELLS:
        return
    kinds = {name: table.schema[name] for name in names}
    measured = [n for n, kind in kinds.items() if kind.is_numeric() and not kind.is_integer()]
    rounding = f", or round {listed(measured)}" if measured else ""
    message = f"a {family.name} model needs the rows, or how often each occurs, and "
    if number >= table.n:
        message += f"no two of the {table.n:,} rows of the lazy data are equal in {listed(names)}: "
        raise FitError(f"{message}collect them{rounding}.")
    message += f"{number:,} of the {table.n:,} rows of the lazy data are different, more than the "
    raise FitError(f"{message}{MAX_CELLS:,} that are brought here: draw a sample{rounding}.")
