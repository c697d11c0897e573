"""The rows that a likelihood reads: those of the data, or one for all that have equal predictors.

Where log f(y | eta) = w {y a(eta) - c(eta)} + d(y, w), as for counts and for successes, rows with
one linear predictor add up to one row: with the sum of their weights, the mean of their responses,
and a constant that is known. The likelihood is the same number, and there are fewer rows of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array, Codes
from ranef.design.rows.equal_rows import equal_rows, first_rows
from ranef.design.rows.rows import Rows
from ranef.families.family import Family
from ranef.numerics.matrices import summed_by

FEWEST = 200  # rows that are worth being taken together
MOST_OF_ROWS = 0.5  # different rows, of all, up to which that saves work


@dataclass(frozen=True, eq=False)
class RowCells:
    """The rows that a likelihood reads, and which rows of the data each stands for.

    Attributes
    ----------
    family : Family
    data : Rows
        Those of the data.
    rows : Rows
        One for each cell of rows with equal predictors; its response is the mean.
    codes : ndarray of int, shape (n,), or None
        The cell of each row of the data; None where each row is its own.
    constant : ndarray, shape (cells,), or None
        What a cell's log density has that its mean and its weight do not tell.
    """

    family: Family
    data: Rows
    rows: Rows
    codes: Codes | None
    constant: Array | None

    def responses(self, y: Array) -> tuple[Array, Array | None]:
        """Return the means and the constants of the cells for other responses, shape (..., n)."""
        return (y, None) if self.codes is None else _means(self.family, self.data, self.codes, y)

    def are_within(self, groups: Codes | None) -> bool:
        """Whether all rows of a cell are of one group, of rows that are their own if None."""
        if self.codes is None or groups is None:
            return self.codes is None
        return bool((self.first(groups)[self.codes] == groups).all())

    def first[T: np.generic](self, values: NDArray[T]) -> NDArray[T]:
        """Return what rows of the data have, shape (n, ...), of the first row of each cell."""
        return values if self.codes is None else values[first_rows(self.codes)]

    def spread(self, values: Array) -> Array:
        """Return what cells have, shape (cells, ...), as their rows have it, shape (n, ...)."""
        return values if self.codes is None else values[self.codes]

    def summed(self, values: Array) -> Array:
        """Return the sums over the rows of each cell, of values of shape (n, ...)."""
        return values if self.codes is None else summed_by(self.codes, values)

    def weights_at(self, eta: Array, weights: Array, psi: Array) -> Array:
        """Return the observed weight of each row of the data, shape (n,).

        Parameters
        ----------
        eta, weights : ndarray, shape (cells,)
            Linear predictors, and the observed weights there.
        psi : ndarray, shape (r,)
        """
        if self.codes is None:
            return weights
        eta, constant = eta[self.codes], np.zeros(())
        return self.family.expansion(self.data.y, eta, self.data.weights, psi, constant).weight


def cells_of(rows: Rows, family: Family, *, together: bool = True) -> RowCells:
    """Return the rows of a likelihood: fewer than those of the data, where that saves work.

    Parameters
    ----------
    rows : Rows
        Of the data.
    family : Family
    together : bool
        Whether rows may be taken together at all.
    """
    n, codes = len(rows.y), None
    share, fewest = (MOST_OF_ROWS, FEWEST) if rows.repeats is None else (1.0, 0)
    if together and family.mean_suffices and n >= fewest:
        codes = equal_rows(rows, int(share * n))
    if codes is None and family.mean_suffices and rows.repeats is not None:
        codes = np.arange(n)
    if codes is None:
        return RowCells(family, rows, rows, None, None)
    means, constant = _means(family, rows, codes, rows.y)
    of_cells = replace(rows.at(first_rows(codes)), y=means)
    of_cells = replace(of_cells, weights=summed_by(codes, rows.weights))
    return RowCells(family, rows, of_cells, codes, constant)


def _means(family: Family, rows: Rows, codes: Codes, y: Array) -> tuple[Array, Array]:
    """Return the mean response of each cell, and its constant, for responses (..., n)."""
    w, none, counts = rows.weights, np.empty(0), 1.0 if rows.repeats is None else rows.repeats

    def sums(values: Array) -> Array:
        return np.ascontiguousarray(
            np.moveaxis(summed_by(codes, np.moveaxis(values, -1, 0)), 0, -1)
        )

    W = sums(w)
    means = sums(w * y) / W
    near = (W * means + 0.5) / (W + family.is_bounded)  # inside, where a mean may be at an end
    eta = family.link.link(near)
    of_rows = counts * family.log_density_at(y, eta[..., codes], w / counts, none)
    kernel = family.log_density_at(means, eta, W, none, np.zeros(()))
    return means, sums(of_rows) - kernel
