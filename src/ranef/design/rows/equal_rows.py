"""Rows whose predictors are equal: the same fixed columns, offset, levels and coefficient columns.

Given the random effects such rows have one linear predictor, so that a likelihood may take them
together. Columns are numbered one after the other by hashing, and no further once there are too
many different rows for that to be of use. Rows whose response and weight are equal too may have
been counted before they came here (`repeated`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes, Places
from ranef.design.rows.rows import Condensed, Rows


def equal_rows(rows: Rows, most: int) -> Codes | None:
    """Return the same number for rows with equal predictors, from 0 on as they first occur.

    Parameters
    ----------
    rows : Rows
    most : int
        The number of different rows beyond which the answer is None.
    """
    numbers, size = np.zeros(len(rows.y), dtype=np.int64), 1
    for column in _columns(rows):
        of_column, values = pd.factorize(column)
        if len(values) == 1:
            continue
        numbers, both = pd.factorize(numbers * len(values) + of_column)
        size = len(both)
        if size > most:
            return None
    return numbers if size <= most else None


def _columns(rows: Rows) -> Iterator[Array | Codes]:
    """Yield all that the linear predictor of a row depends on."""
    yield from np.asfortranarray(rows.X).T
    yield rows.offset
    for term in rows.terms:
        yield term.codes
        yield from np.asfortranarray(term.columns).T


def first_rows(numbers: Codes) -> Places:
    """Return the place of the first row of each number, of numbers from 0 on.

    Examples
    --------
    >>> first_rows(np.array([0, 1, 0, 2, 1]))
    array([0, 1, 3])
    """
    first = np.empty(int(numbers.max()) + 1, dtype=np.intp)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first


def repeated(rows: Rows, counts: Codes) -> Condensed:
    """Return what rows stand for each of which is several equal rows of the data.

    Parameters
    ----------
    rows : Rows
        With the sums of the weights of these.
    counts : ndarray of int, shape (n,)
    """
    root = np.sqrt(counts)
    logs = np.asarray(counts * np.log(rows.weights / counts), dtype=np.float64)
    ones, zeros = np.ones(len(root)), np.zeros(len(root))
    terms = tuple(replace(t, columns=t.columns * root[:, None]) for t in rows.terms)
    unweighted = replace(
        rows,
        X=rows.X * root[:, None],
        y=rows.y * root,
        weights=ones,
        offset=rows.offset * root,
        terms=terms,
        condensed=Condensed(root, counts, zeros, unweighted=None),
    )
    return Condensed(ones, counts, logs, unweighted, are_equal=True)
