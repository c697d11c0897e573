"""Summaries of lazy data: an engine sums products of columns by cell, and no row comes here.

Columns are first summed as they are, less their means; these sums give a basis in which they are
orthonormal over all rows. Then products of basis columns, which the engine computes row by row, are
summed by cell: the rounding of the first sums is in the basis and not in what is measured with it
(CholeskyQR2: Yamamoto, Nakatsukasa, Yanagisawa & Fukaya 2015, *Electronic Transactions on Numerical
Analysis* 44, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import linalg

from ranef._typing import Array, Codes
from ranef.design.data_frame import check_magnitude
from ranef.design.design import grouping_of
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.expressions import CodedExpressions, combination, number, numeric
from ranef.design.lazy.lazy_table import (
    OWN,
    ROWS,
    Expr,
    LazyFrame,
    LazyTable,
    arrays,
    check_unchanged,
    complete_table,
    labels_of,
)
from ranef.design.model_matrix import Columns, code
from ranef.errors import DataError, listed
from ranef.formula.functions import FUNCTIONS
from ranef.formula.syntax import Call, Column, Node
from ranef.formula.terms import Formula, columns_of
from ranef.model.summaries.data_summary import DataSummary, Grouping, names_of
from ranef.model.summaries.lazy_pairs import (
    LOGS,
    WEIGHT,
    LazyBasis,
    Summed,
    by_pairs,
    cross_products,
    has_many_cells,
)
from ranef.model.summaries.stand_ins import coded_factors, interpreter_of
from ranef.model.summaries.triangular_rows import distinct_columns
from ranef.numerics.memory import check_memory

MAX_COLUMNS = 200  # of a lazy model: 20,100 sums
CELL_COPIES = 4  # of the sums of a cell while they arrive
CONSTANT = 1e-11  # of the length of a column: what its mean leaves of it, if it does not vary
DEPENDENT = 1e-6  # of a column's length, whose square the sums have with errors of 1e-13
NOTHING = 1e-15  # of an eigenvalue of a cell's cross-products, relative to that of all rows


def lazy_summary(
    formula: Formula,
    data: LazyFrame,
    *,
    levels: Mapping[str, pd.Index[Any]],
    weights: object = None,
    offset: object = None,
    missing: str = "drop",
    may_pair: bool = False,
) -> DataSummary:
    """Return the summary of lazy data; parameters and errors are those of `summarize`.

    Where it `may_pair` and combinations of levels are many, it is one by pairs of levels.
    """
    table = complete_table(formula, data, weights, offset, missing)
    factors = _factors(formula, table)
    known = {name: levels[name] if name in levels else table.levels(name) for name in factors}
    measured = [node for node in coded_factors(formula) if _is_measured(node, table)]
    _check_values(table, [formula.response, *formula.offsets, *measured])
    ranges = table.ranges(formula.predictors())
    rows = interpreter_of(formula, ranges, known, len(formula.predictors()) ** 2 + len(factors))
    X, Zs = code(rows, formula.fixed), [code(rows, part.terms) for part in formula.random]
    keys = [tuple(columns_of(part.group)) for part in formula.random]
    columns = _columns(formula, table, rows, X, Zs)
    basis = _basis(table, columns, list(dict.fromkeys(name for one in keys for name in one)))
    memory, are_crossed = Memory({}, dict(known)), len({frozenset(one) for one in keys}) > 1
    if may_pair and are_crossed and has_many_cells(basis, table.n):
        ends = np.cumsum([1 + len(X.names), *(len(Z.names) for Z in Zs)])
        places = [range(a, b) for a, b in pairwise(ends.tolist())]
        found = by_pairs(basis, formula, memory, places)
    else:
        found = _by_cell(basis, formula, memory)
    check_unchanged(table.n, int(found.counts.sum()))
    return DataSummary(
        formula=formula,
        response=str(formula.response),
        names=names_of(X, Zs),
        levels=memory.levels,
        ranges=ranges,
        groupings=tuple(Grouping(one.levels, one.codes) for one in found.groupings),
        columns=found.columns,
        counts=found.counts,
        log_weights=found.log_weights,
        unweighted=None if table.weights is None else basis.unweighted,
        offset=offset if isinstance(offset, str) else None,
        pairs=found.pairs,
        left_out=table.left_out,
    )


def _is_measured(node: Node, table: LazyTable) -> bool:
    is_call = isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"
    is_column = isinstance(node, Column) and node.name in table.labels | table.truths
    return not (is_call or is_column)


def _check_values(table: LazyTable, nodes: Sequence[Node]) -> None:
    """Refuse expressions that have no lazy form, or values that are no numbers or extreme."""
    import narwhals.stable.v2 as nw

    for name in columns_of(nodes):
        if name in table.labels:
            raise DataError(f"`{name}` is not numeric: it has the type {table.schema[name]}.")
    values = {f"`{node}`": numeric(node) for node in nodes}
    values |= {} if table.weights is None else {"weights=": table.weights}
    values |= {} if table.offset is None else {"offset=": table.offset}
    if not values:
        return
    named = {f"{OWN}{i}": value for i, value in enumerate(values.values())}
    rows = table.rows.select(**named)
    sizes = [nw.col(name).abs().max().alias(f"{name}size") for name in named]
    found = arrays(rows.select(*(nw.col(name).mean() for name in named), *sizes))
    for subject, name in zip(values, named, strict=True):
        if not np.isfinite(float(found[name][0])):
            raise DataError(f"{subject} is infinite or not a number in some rows.")
        check_magnitude(subject, found[f"{name}size"])


def _factors(formula: Formula, table: LazyTable) -> list[str]:
    """Return the columns that are coded as factors: labels, and what `factor()` makes ones of."""
    found = []
    for node in coded_factors(formula):
        is_call = isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"
        inner = node.args[0] if isinstance(node, Call) and is_call else node
        if isinstance(inner, Column) and (is_call or inner.name in table.labels):
            found.append(inner.name)
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------- the sums


@dataclass(frozen=True, eq=False)
class _Columns:
    """The columns of a model as expressions: ones, fixed, random, offset, response.

    Attributes
    ----------
    names : list of str
    expressions : list of Expr
    stood : ndarray, shape (rows, c - 2)
        All but offset and response, of rows that stand in for the data.
    n_fixed : int
        The number of ones and fixed columns, which are the first.
    has_offset : bool
    """

    names: list[str]
    expressions: list[Expr]
    stood: Array
    n_fixed: int
    has_offset: bool

    def distinct(self) -> tuple[list[int], int, Codes]:
        """Return the columns that differ, how many are fixed or the response, and the copies.

        Those of the fixed effects, the offset and the response are the first. A column is a copy of
        the one at its place among them; -1 for a column of zeros.
        """
        c = len(self.names)
        _, copies = distinct_columns(self.stood)
        first = np.unique(copies, return_index=True)[1]
        of_fixed = [j for j in first.tolist() if j < self.n_fixed]
        known = [*of_fixed, *([c - 2] if self.has_offset else []), c - 1]
        order = [*known, *(j for j in first.tolist() if j >= self.n_fixed)]
        found = {j: place for place, j in enumerate(order)}
        places = [found[int(first[copy])] for copy in copies]
        return order, len(known), np.array([*places, found.get(c - 2, -1), found[c - 1]])


def _columns(
    formula: Formula, table: LazyTable, rows: Interpreter, X: Columns, Zs: Sequence[Columns]
) -> _Columns:
    """Return the columns of a formula's terms, coded on rows that stand in for the data."""
    levels = dict(rows.memory.levels) | {name: pd.Index([False, True]) for name in table.truths}
    coded_terms = [(formula.fixed, X)]
    coded_terms += [(part.terms, Z) for part, Z in zip(formula.random, Zs, strict=True)]
    made = [
        expression
        for terms, columns in coded_terms
        for expression in CodedExpressions(terms, columns, rows, levels).expressions()
    ]
    offsets = [*map(numeric, formula.offsets), *([] if table.offset is None else [table.offset])]
    stood = [np.ones((len(rows.frame), 1)), X.values, *(Z.values for Z in Zs)]
    return _Columns(
        names=["1", *names_of(X, Zs), "the offset", str(formula.response)],
        expressions=[number(1), *made, sum(offsets, number(0)), numeric(formula.response)],
        stood=np.column_stack(stood),
        n_fixed=1 + len(X.names),
        has_offset=bool(offsets),
    )


def _basis(table: LazyTable, columns: _Columns, keys: Sequence[str]) -> LazyBasis:
    """Return the basis of columns, whose first are ones."""
    import narwhals.stable.v2 as nw

    order, n_known, copies = columns.distinct()
    if len(order) > MAX_COLUMNS:
        raise DataError(
            f"the model has {len(order):,} different columns, whose products lazy data would have "
            f"to sum up; {MAX_COLUMNS} are taken. A factor of many levels can be a grouping "
            "factor, as in `(1 | f)`; else collect the data."
        )
    raw = {f"{OWN}{j}": columns.expressions[place] for j, place in enumerate(order)}
    weights = {} if table.weights is None else {WEIGHT: table.weights}
    rows = table.rows.select(*keys, **weights, **raw)
    least = [nw.col(WEIGHT).min()] if weights else []
    means = arrays(rows.select(*least, *(nw.col(name).mean() for name in raw)))
    at = np.array([float(means[name][0]) for name in raw])
    if bad := [
        columns.names[j] for j, at_j in zip(order, at, strict=True) if not np.isfinite(at_j)
    ]:
        raise DataError(f"{listed(bad)} is infinite or not a number in some rows.")
    at[0] = 0.0
    rows = rows.with_columns(*(nw.col(n) - number(at[j]) for j, n in enumerate(raw) if at[j]))
    if weights and not means[WEIGHT][0] > 0:
        raise DataError("weights= must be positive: they are zero or negative in some rows.")
    unweighted = _root(cross_products(rows, [*raw], weights=False)[1][0])
    root = unweighted
    if weights:
        root = _root(cross_products(rows, [*raw], weights=True)[1][0])
    kept, back = _triangle(root, CONSTANT * np.abs(at) * np.linalg.norm(root[:, 0]))
    shares = linalg.solve_triangular(back[:, kept], np.eye(len(kept)))
    basis = {
        f"{OWN}q{k}": combination([f"{OWN}{j}" for j in kept], shares[:, k])
        for k in range(len(kept))
    }
    back += np.outer(back[:, 0], at)
    unweighted = unweighted + np.outer(unweighted[:, 0], at)
    rows = rows.select(*keys, *weights, **basis)
    back, unweighted = (
        np.hstack([A, np.zeros((len(A), 1))])[:, copies] for A in (back, unweighted)
    )
    n_known = sum(place < n_known for place in kept)
    return LazyBasis(rows, [*basis], [*keys], back, unweighted, n_known)


def _by_cell(basis: LazyBasis, formula: Formula, memory: Memory) -> Summed:
    """Return rows with the cross-products that the data have in each cell of the keys."""
    r, keys = len(basis.names), basis.keys
    if keys:
        what = f"the cross-products of {basis.n_cells:,} cells of {listed(keys)}"
        check_memory(float(basis.n_cells) * CELL_COPIES * r**2, what, "Cross fewer factors.")
    found, products = cross_products(basis.rows, basis.names, weights=basis.is_weighted, keys=keys)
    values, vectors = np.linalg.eigh(products)
    size = values[:, -1].max()
    is_kept = values > NOTHING * size
    is_kept[:, -1] = True  # a row for each cell
    roots = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).mT
    cell = np.nonzero(is_kept)[0].astype(np.int64)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    counts, log_weights = np.zeros(len(cell), dtype=np.int64), np.zeros(len(cell))
    counts[first] = found[ROWS]
    log_weights[first] = found[LOGS] if basis.is_weighted else 0.0
    labels = labels_of(basis.rows, keys, found).reindex(range(len(products)))
    of_cells = Interpreter(labels, formula.text, memory, {})
    factors = [grouping_of(of_cells, part, None) for part in formula.random]
    groupings = [Grouping(one.levels, one.codes[cell]) for one in factors]
    return Summed(roots[is_kept] @ basis.back, counts, log_weights, groupings)


def _root(products: Array) -> Array:
    """Return rows that have these cross-products."""
    size = np.sqrt(np.diag(products))
    unit = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(products / np.outer(unit, unit))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T * size)


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
