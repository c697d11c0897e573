"""Fewer rows with the same cross-products: the triangular factors of each cell's rows.

With Q'Q = I and M = Q R the rows of R have the cross-products of those of M, and if the errors of
the rows are independent and of one variance, so are those of Q' times them (Golub & Van Loan 2013,
*Matrix Computations*, section 5.3). So a Gaussian model cannot tell the rows of R from those of M,
as long as it knows how many they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ranef._typing import Array, Codes, Places

CHUNK = 4_000_000  # elements of the rows that are factorised at one time


def triangular_rows(columns: Array, cells: Codes) -> tuple[Array, Codes]:
    """Return rows that have the cross-products of all rows, cell by cell.

    Parameters
    ----------
    columns : ndarray, shape (n, c)
    cells : ndarray of int, shape (n,)
        The cell of each row, numbered from 0.

    Returns
    -------
    rows : ndarray, shape (r, c)
        At most c of each cell, and no more than it has, cell by cell; none of them is zero unless
        it is the only one of its cell.
    cells : ndarray of int, shape (r,)

    Examples
    --------
    >>> rows, cells = triangular_rows(np.array([[3.0], [4.0], [2.0]]), np.array([0, 0, 1]))
    >>> abs(rows).ravel(), cells
    (array([5., 2.]), array([0, 1]))
    """
    c = columns.shape[1]
    blocks = [np.empty((0, c))]
    numbers = [np.empty(0, dtype=np.int64)]
    for chosen, places in _of_like_sizes(cells, c):
        padded = np.where(places[..., None] >= 0, columns[places], 0.0)
        R = np.linalg.qr(padded, mode="r")
        is_kept = R.any(axis=2)
        is_kept[:, 0] = True
        blocks.append(R[is_kept])
        numbers.append(np.broadcast_to(chosen[:, None], is_kept.shape)[is_kept])
    numbered = np.concatenate(numbers)
    order = np.argsort(numbered, kind="stable")
    return np.concatenate(blocks)[order], numbered[order]


def _of_like_sizes(cells: Codes, c: int) -> Iterator[tuple[Codes, Places]]:
    """Yield cells, and the places of their rows filled up with -1 to a common length."""
    order = np.argsort(cells, kind="stable")
    present, first, sizes = np.unique(cells[order], return_index=True, return_counts=True)
    lengths = 2 ** np.ceil(np.log2(sizes)).astype(np.int64)
    for length in np.unique(lengths):
        alike = np.flatnonzero(lengths == length)
        step = max(1, CHUNK // int(length * c))
        for some in np.split(alike, range(step, len(alike), step)):
            steps = np.arange(sizes[some].max())
            places = order[np.minimum(first[some, None] + steps, len(order) - 1)]
            yield present[some], np.where(steps < sizes[some, None], places, -1)


def condensed_rows(columns: Array, cells: Codes) -> tuple[Array, Codes]:
    """Return `triangular_rows` in which equal columns stay equal, and columns of zeros zero."""
    distinct, copies = distinct_columns(columns)
    is_used = distinct.any(axis=0)
    found, cell = triangular_rows(distinct[:, is_used], cells)
    rows = np.zeros((len(found), distinct.shape[1]))
    rows[:, is_used] = found
    return rows[:, copies], cell


def distinct_columns(columns: Array) -> tuple[Array, Codes]:
    """Return the different columns, and which of them each column is."""
    first: dict[bytes, int] = {}
    copies = np.array([first.setdefault(column.tobytes(), len(first)) for column in columns.T])
    return columns[:, np.unique(copies, return_index=True)[1]], copies
