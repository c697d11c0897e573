"""A basis of the measured columns of a model of lazy data, and what an engine sums of it.

Within a cell, where the levels of all factors are the same, the columns of a model are multiples of
a few measured columns, so that these are all that is multiplied and summed. They are first summed
as they are, less their means; these sums give a basis in which they are orthonormal over all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import batched, combinations_with_replacement
from math import prod
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ranef._typing import Array, Codes, Places
from ranef.design.evaluate import Interpreter
from ranef.design.lazy.expressions import (
    CodedCells,
    combination,
    combinations_of,
    number,
    numeric,
)
from ranef.design.lazy.lazy_table import (
    OWN,
    ROWS,
    Expr,
    LazyFrame,
    LazyTable,
    arrays,
    check_unchanged,
)
from ranef.design.lazy.tables_beside import with_shares
from ranef.design.model_matrix import Columns
from ranef.errors import DataError
from ranef.formula.terms import Formula, columns_of

MAX_COLUMNS = 200  # that are measured: 20,100 sums
MAX_SUMS = 2_000_000  # of cells; beyond these crossed factors are summed by pairs of levels
MAX_UNCROSSED = 5 * MAX_SUMS  # of the levels of one factor
QUERIED_SUMS = 500  # in one query
CONSTANT = 1e-11  # of the length of a column: what its mean leaves of it, if it does not vary
DEPENDENT = 1e-6  # of a column's length, whose square the sums have with errors of 1e-13
LOGS, WEIGHT = f"{OWN}logs", f"{OWN}weight"


@dataclass(frozen=True, eq=False)
class LazyBasis:
    """A basis of the measured columns of a model, nearly orthonormal over all rows.

    The c columns of the model are ones, the fixed columns, the random ones, offset and response.

    Attributes
    ----------
    formula : Formula
    rows : LazyFrame
        The r columns of the basis, those that rows are grouped by, and weights if there are any.
    names : list of str
        Of the r columns.
    groups : list of str
        The columns of the grouping factors.
    keys : mapping of str to str
        The columns of what decides the coded columns, by its name.
    back : ndarray, shape (r, c)
        What each column of the model is a share of is the basis times it.
    coded : sequence of CodedCells
        The columns of the fixed and of each random part.
    beta : ndarray, shape (1 + p,)
        The response is more than its share by the ones and the fixed columns times it.
    """

    formula: Formula
    rows: LazyFrame
    names: list[str]
    groups: list[str]
    keys: Mapping[str, str]
    back: Array
    coded: Sequence[CodedCells]
    beta: Array

    @cached_property
    def is_weighted(self) -> bool:
        """Whether the rows have weights."""
        return WEIGHT in self.rows.collect_schema()

    @cached_property
    def depends_on(self) -> list[tuple[str, ...]]:
        """What decides the share of each column of the model."""
        return [(), *(tuple(sorted(keys)) for one in self.coded for keys in one.keys), (), ()]

    @cached_property
    def parts(self) -> tuple[Places, Places, Array]:
        """The different products of a share and a column of the basis.

        Returns
        -------
        columns : ndarray of int, shape (u,)
            A column of the model that has the share.
        of_basis : ndarray of int, shape (u,)
        coefs : ndarray, shape (u, c)
            The columns of the model are the products times it.
        """
        origins = [origin.coded for one in self.coded for origin in one.columns.origins]
        first: dict[tuple[str, ...], int] = {}
        of = [first.setdefault(one, j) for j, one in enumerate([(), *origins, (), ()])]
        found: dict[tuple[int, int], int] = {}
        used = [(k, j) for j in range(len(of)) for k in np.flatnonzero(self.back[:, j]).tolist()]
        places = [found.setdefault((of[j], k), len(found)) for k, j in used]
        coefs = np.zeros((len(found), len(of)))
        for place, (k, j) in zip(places, used, strict=True):
            coefs[place, j] = self.back[k, j]
        columns, of_basis = np.array([*found]).T
        return columns, of_basis, coefs

    def shares(self, found: Mapping[Any, Any], columns: Codes) -> sparse.csc_array:
        """Return the shares of some columns of the model, cell by cell."""
        kinds = [self.depends_on[j] for j in columns]
        blocks, order = [], []
        for kind in dict.fromkeys(kinds):
            places = [place for place, one in enumerate(kinds) if one == kind]
            cells: dict[str, Any] = {}
            numbers, size = np.zeros(len(found[ROWS]), dtype=np.int64), 1
            if kind:
                cells, numbers = combinations_of({key: found[self.keys[key]] for key in kind})
                size = int(numbers.max()) + 1
            ones = np.ones((size, 1))
            shares = np.hstack([ones, *(one.shares(cells, size) for one in self.coded), ones, ones])
            blocks.append(sparse.csr_array(shares[:, columns[places]])[numbers])
            order += places
        return sparse.csc_array(sparse.hstack(blocks))[:, np.argsort(order)]

    def whole(self, columns: Array) -> Array:
        """Return the columns of the model with the whole response, of rows of them."""
        columns[:, -1] += columns[:, : len(self.beta)] @ self.beta
        return columns

    def less(self, beta: Array, size: float) -> LazyBasis:
        """Return the basis in which the response is less what fixed columns are times coefficients.

        Parameters
        ----------
        beta : ndarray, shape (1 + p,)
        size : float
            What the response is divided by there.
        """
        import narwhals.stable.v2 as nw

        f, r = len(beta), len(self.names)
        shares = beta[1:, None] * self.back[:, 1:f].T
        cells = self.coded[0]
        cells = replace(cells, named={name: nw.col(alias) for name, alias in self.keys.items()})
        rows, parts = with_shares(self.rows, "y", cells, shares)
        kept = [k for k in range(r) if self.back[k, :-1].any()]
        left = combination(self.names, (self.back[:, -1] - beta[0] * self.back[:, 0]) / size)
        for name, part in zip(self.names, parts, strict=True):
            left = left if part is None else left - nw.col(name) * part * number(1 / size)
        names, own = [self.names[k] for k in kept], f"{OWN}left"
        others = [name for name in self.rows.collect_schema() if name not in self.names]
        back = np.zeros((len(kept) + 1, self.back.shape[1]))
        back[:-1, :-1], back[-1, -1] = self.back[kept, :-1], size
        rows = rows.with_columns(left.alias(own)).select(*others, *names, own)
        return replace(self, rows=rows, names=[*names, own], back=back, beta=beta)

    def n_cells(self, names: Sequence[str]) -> int:
        """Return the number of combinations that occur of some columns."""
        import narwhals.stable.v2 as nw

        if not names:
            return 1
        cells = self.rows.select(*names).unique()
        return int(arrays(cells.select(nw.len().alias(ROWS)))[ROWS][0])

    def has_many_cells(self, n: int) -> bool:
        """Whether the cross-products of the groups of n rows are too many to be all kept."""
        u = len(self.parts[0])
        are_crossed = len({frozenset(columns_of(part.group)) for part in self.formula.random}) > 1
        most = (MAX_SUMS if are_crossed else MAX_UNCROSSED) / (u * (u + 1) / 2)
        return n > most and self.n_cells(self.groups) > most


def basis_of(
    formula: Formula, table: LazyTable, rows: Interpreter, X: Columns, Zs: Sequence[Columns]
) -> LazyBasis:
    """Return the basis of the measured columns of a formula's terms, whose first are ones.

    Parameters
    ----------
    formula : Formula
    table : LazyTable
    rows : Interpreter
        Of rows that stand in for the data.
    X, Zs : Columns
        Of the terms, coded on these.
    """
    terms = [formula.fixed, *(part.terms for part in formula.random)]
    coded = [
        CodedCells(of, columns, rows, table.labels, table.truths)
        for of, columns in zip(terms, [X, *Zs], strict=True)
    ]
    products = [(), *(nodes for one in coded for nodes in one.measured)]
    names = [":".join(map(str, nodes)) for nodes in products]
    raw = {
        name: prod((numeric(node, table.labels) for node in nodes), start=number(1))
        for name, nodes in zip(names, products, strict=True)
    }
    places = [[*raw].index(name) for name in names]
    offsets = [numeric(node, table.labels) for node in formula.offsets]
    offsets += [] if table.offset is None else [table.offset]
    columns = [*raw.values(), *([sum(offsets, number(0))] if offsets else [])]
    columns.append(numeric(formula.response, table.labels))
    keys = {name: key for one in coded for of in one.keys for name, key in of.items()}
    aliases = {name: name if name in table.schema else f"{OWN}is{i}" for i, name in enumerate(keys)}
    groups = [*columns_of(node for part in formula.random for node in part.group)]
    kept = {alias: keys[name] for name, alias in aliases.items() if alias not in groups}
    kept |= {} if table.weights is None else {WEIGHT: table.weights}
    lazy, basis, back = _orthonormal(table, columns, [*groups], kept)
    of_offset, of_response = len(raw) if offsets else len(columns), len(columns) - 1
    back = np.hstack([back, np.zeros((len(back), 1))])[:, [*places, of_offset, of_response]]
    return LazyBasis(formula, lazy, basis, groups, aliases, back, coded, np.zeros(1 + len(X.names)))


def _orthonormal(
    table: LazyTable, columns: Sequence[Expr], groups: list[str], kept: Mapping[str, Expr]
) -> tuple[LazyFrame, list[str], Array]:
    """Return rows with nearly orthonormal columns, their names, and what columns are of these.

    Parameters
    ----------
    table : LazyTable
    columns : sequence of Expr
        The first are ones.
    groups : list of str
        Columns of the data that the rows keep.
    kept : mapping of str to Expr
        What else they keep.
    """
    import narwhals.stable.v2 as nw

    if len(columns) > MAX_COLUMNS:
        raise DataError(
            f"the model has {len(columns):,} different measured columns, whose products lazy data "
            f"would have to sum up; {MAX_COLUMNS} are taken: collect the data."
        )
    raw = {f"{OWN}{j}": column for j, column in enumerate(columns)}
    lazy = table.rows.select(*groups, **kept, **raw)
    least = [nw.col(WEIGHT).min()] if WEIGHT in kept else []
    means = arrays(lazy.select(*least, *(nw.col(name).mean() for name in raw)))
    at = np.array([float(means[name][0]) for name in raw])
    at[0] = 0.0
    lazy = lazy.with_columns(*(nw.col(n) - number(at[j]) for j, n in enumerate(raw) if at[j]))
    if least and not means[WEIGHT][0] > 0:
        raise DataError("weights= must be positive: they are zero or negative in some rows.")
    root = root_of(cross_products(lazy, [*raw], weights=bool(least))[1][0])
    of_basis, back = _triangle(root, CONSTANT * np.abs(at) * np.linalg.norm(root[:, 0]))
    shares = linalg.solve_triangular(back[:, of_basis], np.eye(len(of_basis)))
    basis = {
        f"{OWN}q{k}": combination([f"{OWN}{j}" for j in of_basis], shares[:, k])
        for k in range(len(of_basis))
    }
    rows = lazy.select(*groups, *kept, **basis)
    return rows, [*basis], back + np.outer(back[:, 0], at)


def _triangle(root: Array, rounding: Array) -> tuple[list[int], Array]:
    """Return the columns that are no combinations of earlier ones, and a triangular root.

    Parameters
    ----------
    root : ndarray, shape (r, c)
    rounding : ndarray, shape (c,)
        What may be left of each column if it is a combination.
    """
    kept: list[int] = []
    shares = np.zeros((root.shape[1], root.shape[1]))
    for j, column in enumerate(root.T):
        shares[kept, j] = np.linalg.lstsq(root[:, kept], column, rcond=None)[0]
        left = np.linalg.norm(column - root @ shares[:, j])
        if left > max(DEPENDENT * np.linalg.norm(column), rounding[j]):
            kept.append(j)
            shares[:, j] = np.eye(len(shares))[j]
    shares[:, ~root.any(axis=0)] = 0.0
    return kept, np.linalg.qr(root[:, kept], mode="r") @ shares[kept]


def root_of(products: Array) -> Array:
    """Return rows that have these cross-products."""
    size = np.sqrt(np.diag(products))
    unit = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(products / np.outer(unit, unit))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T * size)


def cross_products(
    rows: LazyFrame, names: Sequence[str], *, weights: bool, keys: Sequence[str] = ()
) -> tuple[dict[str, Any], Array]:
    """Return sums by cell: how many rows and the like, and products of columns, (cells, r, r)."""
    import narwhals.stable.v2 as nw

    pairs = [*combinations_with_replacement(range(len(names)), 2)]
    columns = {f"{OWN}{i}_{j}": nw.col(names[i]) * nw.col(names[j]) for i, j in pairs}
    if weights:
        columns = {name: column * nw.col(WEIGHT) for name, column in columns.items()}
        columns[LOGS] = nw.col(WEIGHT).log()
    found = sums_of(rows, columns, keys)
    square = np.zeros((len(found[ROWS]), len(names), len(names)))
    for i, j in pairs:
        square[:, i, j] = square[:, j, i] = found[f"{OWN}{i}_{j}"]
    return found, square


def sums_of(rows: LazyFrame, columns: Mapping[str, Expr], keys: Sequence[str]) -> dict[str, Any]:
    """Return the number of rows and the sums of columns by cell, in the order of its keys.

    One query has a part of the sums, as the time to plan it goes with their number squared.

    Raises
    ------
    DataError
        If the number of rows changes from one query to the next.
    """
    import narwhals.stable.v2 as nw

    found: dict[str, Any] = {}
    for names in batched(columns, QUERIED_SUMS):
        some = rows.select(*keys, **{name: columns[name] for name in names})
        sums = [nw.len().alias(ROWS), *(nw.col(name).sum() for name in names)]
        part = arrays(some.group_by(*keys).agg(*sums).sort(*keys) if keys else some.select(*sums))
        if found:
            check_unchanged(int(found[ROWS].sum()), int(part[ROWS].sum()))
        found |= part
    return found
