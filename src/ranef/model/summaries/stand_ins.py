"""Rows that stand in for data whose rows are not known: their columns are coded as the data's are.

How terms are coded, and where the priors of a term hold, depends on the levels of factors and the
ranges of predictors alone. So rows that have all of these are as good as the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ranef.design.data_frame import plain
from ranef.design.evaluate import Interpreter, Memory
from ranef.formula.syntax import Node
from ranef.formula.terms import Formula, columns_of

ROWS = 4  # for each level and column

type Levels = Mapping[str, pd.Index[Any]]


def ranges_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the smallest and the largest value of each column of numbers or truth values."""
    measured = {str(name): plain(column) for name, column in frame.items()}
    return pd.DataFrame(
        {
            name: [values.min(), values.max()]
            for name, values in measured.items()
            if values.dtype.kind in "biuf"
        }
    )


def coded_factors(formula: Formula) -> Sequence[Node]:
    """Return the factors of the terms of a formula, fixed and random."""
    terms = [*formula.fixed, *(term for part in formula.random for term in part.terms)]
    return [factor for term in terms for factor in term.factors]


def interpreter_of(
    formula: Formula, ranges: pd.DataFrame, levels: Levels, width: int
) -> Interpreter:
    """Return an interpreter of rows with all levels of the factors and the ends of the ranges.

    Between these they are scattered, so that columns that depend on each other here do so in any
    data.

    Parameters
    ----------
    formula : Formula
    ranges : DataFrame
        The smallest and largest value of each measured column, in two rows.
    levels : mapping of str to Index
        Of all factors by label.
    width : int
        The number of columns that are to be coded.
    """
    used = [name for name in columns_of(coded_factors(formula)) if name in levels]
    rng, size = (
        np.random.default_rng(0),
        2 + ROWS * (width + sum(len(levels[name]) for name in used)),
    )
    frame: dict[str, Any] = {}
    for name, ends in ranges.items():
        low, high = map(float, ends)
        values = low + np.concatenate([[0.0, 1.0], rng.random(size - 2)]) * (high - low)
        kind = ends.to_numpy().dtype
        frame[str(name)] = values if kind.kind == "f" else np.rint(values).astype(kind)
    for name in used:
        places = rng.permutation(np.resize(np.arange(len(levels[name])), size))
        frame[name] = levels[name].to_numpy()[places]
    rows = pd.DataFrame(frame, index=pd.RangeIndex(size))
    return Interpreter(rows, formula.text, Memory({}, dict(levels)), {})
