"""A summary in a file: its formula, levels and ranges in words, its cross-products as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from ranef.formula.terms import read_formula
from ranef.model.archive import Archive, Path_, damage, write
from ranef.model.stored_columns import column_of, index_of, stored_column, stored_index

if TYPE_CHECKING:
    from ranef.model.summaries.data_summary import DataSummary

SUMMARY = "summary"  # the name of its record in a file
_ARRAYS = ("columns", "counts", "log_weights", "unweighted")
_TEXTS = ("response", "names", "offset")


def save(path: Path_, summary: DataSummary) -> None:
    """Write a summary into a file.

    Parameters
    ----------
    path : path
    summary : DataSummary
    """
    record = {name: getattr(summary, name) for name in (*_ARRAYS, *_TEXTS)} | {
        "formula": summary.formula.text,
        "levels": {label: stored_index(levels) for label, levels in summary.levels.items()},
        "ranges": {str(name): stored_column(ends) for name, ends in summary.ranges.items()},
        "groupings": [[stored_index(one.levels), one.codes] for one in summary.groupings],
    }
    about = {"inference_library": "ranef", "formula": summary.formula.text}
    write(path, Archive({SUMMARY: record}, {}), {}, about)


def fields(path: Path_, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the summary in a file; levels and codes of its groupings as pairs."""
    with damage(path):
        columns = {name: column_of(ends) for name, ends in record["ranges"].items()}
        return {name: record[name] for name in (*_ARRAYS, *_TEXTS)} | {
            "formula": read_formula(record["formula"]),
            "levels": {label: index_of(one) for label, one in record["levels"].items()},
            "ranges": pd.DataFrame(columns),
            "groupings": [(index_of(levels), codes) for levels, codes in record["groupings"]],
        }
