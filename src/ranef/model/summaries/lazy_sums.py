"""Summaries of lazy data: an engine sums products of columns by cell, and no row comes here.

Products of the columns of a basis, which the engine computes row by row, are summed by cell: the
rounding of the sums that gave the basis is in the basis and not in what is measured with it
(CholeskyQR2: Yamamoto, Nakatsukasa, Yanagisawa & Fukaya 2015, *Electronic Transactions on Numerical
Analysis* 44, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array, Codes
from ranef.design.data_frame import check_magnitude
from ranef.design.design import grouping_of
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.lazy.expressions import combinations_of, key_of, numeric
from ranef.design.lazy.lazy_table import (
    OWN,
    ROWS,
    LazyFrame,
    LazyTable,
    arrays,
    check_unchanged,
    complete_table,
    labels_of,
)
from ranef.design.model_matrix import code
from ranef.errors import DataError, listed
from ranef.formula.syntax import Call, Node
from ranef.formula.terms import Formula, columns_of
from ranef.model.summaries.data_summary import DataSummary, Grouping, names_of
from ranef.model.summaries.lazy_basis import LOGS, MAX_SUMS, LazyBasis, basis_of, cross_products
from ranef.model.summaries.lazy_pairs import Summed, by_pairs, less_fixed, unweighted
from ranef.model.summaries.stand_ins import coded_factors, interpreter_of
from ranef.model.summaries.triangular_rows import condensed_rows
from ranef.numerics.memory import check_memory

CELL_COPIES = 4  # of the sums of a cell while they arrive
AT_ONE_TIME = 4_000_000  # numbers of rows that are coded before they become fewer
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
    factors = coded_factors(formula)
    keys = {node: key_of(node, table.labels, table.truths) for node in factors}
    measured = [node for node, key in keys.items() if key is None]
    _check_values(table, [formula.response, *formula.offsets, *measured])
    coded = {key[0] for node, key in keys.items() if key is not None and isinstance(node, Call)}
    names = [n for n in columns_of(factors) if n in table.labels or n in coded]
    known = {name: levels[name] if name in levels else table.levels(name) for name in names}
    ranges = table.ranges(formula.predictors())
    rows = interpreter_of(formula, ranges, known, len(formula.predictors()) ** 2 + len(names))
    X, Zs = code(rows, formula.fixed), [code(rows, part.terms) for part in formula.random]
    basis = less_fixed(basis_of(formula, table, rows, X, Zs))
    memory = Memory({}, dict(known))
    if may_pair and basis.has_many_cells(table.n):
        ends = np.cumsum([1 + len(X.names), *(len(Z.names) for Z in Zs)])
        places = [range(a, b) for a, b in pairwise(ends.tolist())]
        found = by_pairs(basis, memory, places)
    else:
        found = _by_cell(basis, memory)
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
        unweighted=found.unweighted,
        offset=offset if isinstance(offset, str) else None,
        pairs=found.pairs,
        left_out=table.left_out,
    )


def _check_values(table: LazyTable, nodes: Sequence[Node]) -> None:
    """Refuse expressions that have no lazy form, or values that are no numbers or extreme."""
    import narwhals.stable.v2 as nw

    values = {f"`{node}`": numeric(node, table.labels) for node in nodes}
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


def _by_cell(basis: LazyBasis, memory: Memory) -> Summed:
    """Return rows with the cross-products that the data have for each combination of levels."""
    r, groups = len(basis.names), basis.groups
    keys = list(dict.fromkeys([*groups, *basis.keys.values()]))
    if keys:
        cells = basis.n_cells(keys)
        size, c = float(cells) * r, basis.back.shape[1]
        if size * c > MAX_SUMS:
            size = min(size, float(basis.n_cells(groups)) * len(basis.parts[0]))
        what = f"the cross-products of {cells:,} cells of {listed(keys)}"
        check_memory(float(cells) * CELL_COPIES * r**2 + size * c, what, "Cross fewer factors.")
    found, products = cross_products(basis.rows, basis.names, weights=basis.is_weighted, keys=keys)
    of_groups = Interpreter(labels_of(basis.rows, groups, found), basis.formula.text, memory, {})
    factors = [grouping_of(of_groups, part, None) for part in basis.formula.random]
    shares = basis.shares(found, np.arange(basis.back.shape[1])).tocsr()
    group = combinations_of({name: found[name] for name in groups})[1] if groups else None
    group = np.zeros(len(products), dtype=np.int64) if group is None else group
    step = max(1, AT_ONE_TIME // (r * shares.shape[1]))
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    breaks = starts[np.flatnonzero(np.diff(starts // step, prepend=0))]
    size, made = np.linalg.eigvalsh(products)[:, -1].max(), []
    for some in np.split(order, breaks):
        if len(some):
            rows, cell = _roots(products[some], size)
            columns = (rows @ basis.back) * shares[some[cell]].toarray()
            made.append(condensed_rows(columns, group[some[cell]]))
    columns = np.concatenate([rows for rows, _ in made])
    of_row = np.concatenate([numbers for _, numbers in made])
    first, places = np.flatnonzero(np.diff(of_row, prepend=-1)), order[starts]
    counts, log_weights = np.zeros(len(columns), dtype=np.int64), np.zeros(len(columns))
    counts[first] = np.bincount(group, found[ROWS]).astype(np.int64)
    log_weights[first] = np.bincount(group, found[LOGS]) if basis.is_weighted else 0.0
    groupings = [Grouping(one.levels, one.codes[places[of_row]]) for one in factors]
    of_rows = basis.whole(columns)
    return Summed(of_rows, counts, log_weights, groupings, unweighted(basis))


def _roots(products: Array, size: float) -> tuple[Array, Codes]:
    """Return rows with the cross-products of each cell, and the cells of these rows."""
    values, vectors = np.linalg.eigh(products)
    is_kept = values > NOTHING * size
    is_kept[:, -1] = True  # a row for each cell
    roots = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).mT
    return roots[is_kept], np.nonzero(is_kept)[0]
