"""A summary in a file: its formula, levels and ranges in words, its cross-products as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef._typing import FilePath
from ranef.design.rows.pair_sums import PairSums, PairTable
from ranef.formula.terms import read_formula
from ranef.model.archive import Archive, damage, write
from ranef.model.stored_columns import column_of, index_of, stored_column, stored_index

if TYPE_CHECKING:
    from ranef.model.summaries.data_summary import DataSummary

SUMMARY = "summary"  # the name of its record in a file
_ARRAYS = ("columns", "counts", "log_weights", "unweighted")
_TEXTS = ("response", "names", "offset")
_SUMS = ("own", "fixed", "changes")


def save(path: FilePath, summary: DataSummary) -> None:
    """Write a summary into a file.

    Parameters
    ----------
    path : path
    summary : DataSummary
    """
    about = {"inference_library": "ranef", "formula": summary.formula.text}
    write(path, Archive({SUMMARY: record_of(summary)}, {}), {}, about)


def record_of(summary: DataSummary) -> dict[str, Any]:
    """Return what a file holds of a summary."""
    pairs = None if summary.pairs is None else _of_pairs(summary.pairs)
    return {name: getattr(summary, name) for name in (*_ARRAYS, *_TEXTS)} | {
        "formula": summary.formula.text,
        "levels": {label: stored_index(levels) for label, levels in summary.levels.items()},
        "ranges": {str(name): stored_column(ends) for name, ends in summary.ranges.items()},
        "groupings": [[stored_index(one.levels), one.codes] for one in summary.groupings],
        "pairs": pairs,
        "left_out": summary.left_out,
    }


def moments_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return numbers that tell the data of a summary from others, whatever rows stand for them."""
    columns = record["columns"]
    products = columns.T @ columns
    shape = [len(levels) for _, levels in sorted(record["levels"].items())]
    return record["counts"].sum(), tuple(shape), np.diag(products), products[-1]


def _of_pairs(sums: PairSums) -> dict[str, Any]:
    tables = [[i, j, t.first, t.second, t.products] for (i, j), t in sums.pairs.items()]
    return {name: getattr(sums, name) for name in _SUMS} | {"tables": tables}


def _pairs_of(record: Mapping[str, Any]) -> PairSums:
    tables = {(i, j): PairTable(*arrays) for i, j, *arrays in record["tables"]}
    return PairSums(**{name: record[name] for name in _SUMS}, pairs=tables)


def fields(path: FilePath, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the summary in a file; levels and codes of its groupings as pairs."""
    with damage(path):
        columns = {name: column_of(ends) for name, ends in record["ranges"].items()}
        return {name: record[name] for name in (*_ARRAYS, *_TEXTS)} | {
            "formula": read_formula(record["formula"]),
            "levels": {label: index_of(one) for label, one in record["levels"].items()},
            "ranges": pd.DataFrame(columns),
            "groupings": [(index_of(levels), codes) for levels, codes in record["groupings"]],
            "pairs": None if record.get("pairs") is None else _pairs_of(record["pairs"]),
            "left_out": record.get("left_out", 0),
        }
