"""Summaries of lazy data: an engine sums products of columns by cell, and no row comes here.

Columns are first summed as they are, less their means; these sums give a basis in which they are
orthonormal over all rows. Then products of basis columns, which the engine computes row by row, are
summed by cell: the rounding of the first sums is in the basis and not in what is measured with it
(CholeskyQR2: Yamamoto, Nakatsukasa, Yanagisawa & Fukaya 2015, *Electronic Transactions on Numerical
Analysis* 44, section 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import linalg

from ranef._typing import Array, Codes
from ranef.arguments import check_choice
from ranef.design.data_frame import coded
from ranef.design.design import grouping_of
from ranef.design.evaluate import Interpreter, Memory
from ranef.design.model_matrix import code
from ranef.errors import DataError, DataWarning, FormulaError, listed, suggestion, warn
from ranef.formula.functions import FUNCTIONS
from ranef.formula.syntax import Call, Column, Node
from ranef.formula.terms import Formula, columns_of
from ranef.model.summaries.data_summary import DataSummary, Grouping, names_of
from ranef.model.summaries.expressions import CodedExpressions, number, numeric
from ranef.model.summaries.stand_ins import coded_factors, interpreter_of
from ranef.numerics.memory import check_memory

if TYPE_CHECKING:
    from narwhals.stable.v2 import Expr
    from narwhals.stable.v2 import LazyFrame as AnyLazyFrame

    type LazyFrame = AnyLazyFrame[Any]

CELL_COPIES = 4  # of the sums of a cell while they arrive
CONSTANT = 1e-11  # of the length of a column: what its mean leaves of it, if it does not vary
DEPENDENT = 1e-6  # of a column's length, whose square the sums have with errors of 1e-13
NOTHING = 1e-15  # of an eigenvalue of a cell's cross-products, relative to that of all rows
OWN = "ranef_"  # the names of columns that are not the data's begin with it
ROWS, LOGS, WEIGHT = f"{OWN}rows", f"{OWN}logs", f"{OWN}weight"


def open_lazy(data: object) -> LazyFrame | None:
    """Return data as a lazy frame; None where they are not lazy."""
    if data is None or isinstance(data, pd.DataFrame | Mapping | str):
        return None
    import narwhals.stable.v2 as nw

    frame = nw.from_native(data, pass_through=True)
    return frame if isinstance(frame, nw.LazyFrame) else None


def lazy_summary(
    formula: Formula,
    data: LazyFrame,
    *,
    levels: Mapping[str, pd.Index[Any]],
    weights: object = None,
    offset: object = None,
    missing: str = "drop",
) -> DataSummary:
    """Return the summary of lazy data; parameters and errors are those of `summarize`."""
    table = _table(formula, data, weights, offset, missing)
    factors = _factors(formula, table)
    known = {name: levels[name] if name in levels else table.levels(name) for name in factors}
    _check_finite(table, [node for node in coded_factors(formula) if _is_measured(node, table)])
    ranges = table.ranges(formula.predictors())
    rows = interpreter_of(formula, ranges, known, len(formula.predictors()) ** 2 + len(factors))
    X, Zs = code(rows, formula.fixed), [code(rows, part.terms) for part in formula.random]
    truths = {name: pd.Index([False, True]) for name in table.truths}
    coded_terms = [(formula.fixed, X)]
    coded_terms += [(part.terms, Z) for part, Z in zip(formula.random, Zs, strict=True)]
    made = [
        expression
        for terms, columns in coded_terms
        for expression in CodedExpressions(terms, columns, rows, known | truths).expressions()
    ]
    offsets = [*map(numeric, formula.offsets), *([] if table.offset is None else [table.offset])]
    made = [number(1), *made, sum(offsets, number(0)), numeric(formula.response)]
    names = ["1", *names_of(X, Zs), "the offset", str(formula.response)]
    keys = list(dict.fromkeys(columns_of(node for part in formula.random for node in part.group)))
    basis = _basis(table, names, made, keys)
    cells = _by_cell(basis, keys)
    memory = Memory({}, dict(known))
    of_cells = Interpreter(cells.keys, formula.text, memory, {})
    groupings = [grouping_of(of_cells, part, None) for part in formula.random]
    return DataSummary(
        formula=formula,
        response=str(formula.response),
        names=names_of(X, Zs),
        levels=dict(memory.levels),
        ranges=ranges,
        groupings=tuple(Grouping(one.levels, one.codes[cells.cell]) for one in groupings),
        columns=cells.columns,
        counts=cells.counts,
        log_weights=cells.log_weights,
        unweighted=None if table.weights is None else basis.unweighted,
        offset=offset if isinstance(offset, str) else None,
    )


def _is_measured(node: Node, table: _Table) -> bool:
    is_call = isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"
    is_column = isinstance(node, Column) and node.name in table.labels | table.truths
    return not (is_call or is_column)


def _check_finite(table: _Table, nodes: Sequence[Node]) -> None:
    """Refuse expressions that have no lazy form, or no value in some rows."""
    import narwhals.stable.v2 as nw

    values = {f"{OWN}{i}": numeric(node) for i, node in enumerate(nodes)}
    if not values:
        return
    rows = table.rows.with_columns(**values).select(*values)
    means = _arrays(rows.select(*(nw.col(name).mean() for name in values)))
    for node, name in zip(nodes, values, strict=True):
        if not np.isfinite(float(means[name][0])):
            raise DataError(f"`{node}` is infinite or not a number in some rows.")


def _factors(formula: Formula, table: _Table) -> list[str]:
    """Return the columns that are coded as factors: labels, and what `factor()` makes ones of."""
    found = []
    for node in coded_factors(formula):
        is_call = isinstance(node, Call) and FUNCTIONS.get(node.function) == "categorical"
        inner = node.args[0] if isinstance(node, Call) and is_call else node
        if isinstance(inner, Column) and (is_call or inner.name in table.labels):
            found.append(inner.name)
    return list(dict.fromkeys(found))


# -------------------------------------------------------------------------------- the lazy table


@dataclass(frozen=True, eq=False)
class _Table:
    """The complete rows of lazy data, with the columns that a model uses.

    Attributes
    ----------
    rows : LazyFrame
    schema : mapping of str to type
        Of the columns of the data.
    labels, truths : set of str
        The columns that are neither numbers nor truth values, and those of truth values.
    weights, offset : Expr or None
    """

    rows: LazyFrame
    schema: Mapping[str, Any]
    labels: set[str]
    truths: set[str]
    weights: Expr | None
    offset: Expr | None

    def select(self, **sums: Expr) -> dict[str, Any]:
        """Return some numbers about all rows."""
        return {name: column[0] for name, column in _arrays(self.rows.select(**sums)).items()}

    def levels(self, name: str) -> pd.Index[Any]:
        """Return the levels of a column that occur, in the order of its type, or sorted."""
        import narwhals.stable.v2 as nw

        column, kind = _arrays(self.rows.select(name).unique())[name], self.schema[name]
        if isinstance(kind, nw.Enum):
            column = pd.Categorical(column, categories=kind.categories)
        return coded(name, pd.Series(column)).levels

    def ranges(self, names: Iterable[str]) -> pd.DataFrame:
        """Return the smallest and largest value of each column of numbers or truth values."""
        import narwhals.stable.v2 as nw

        measured = [name for name in names if name not in self.labels]
        ends: dict[str, Expr] = {}
        for i, name in enumerate(measured):
            column = nw.col(name)
            column = column.cast(nw.Int8) if name in self.truths else column
            ends |= {f"low{i}": column.min(), f"high{i}": column.max()}
        found = self.select(**ends) if ends else {}
        return pd.DataFrame(
            {
                name: np.array([found[f"low{i}"], found[f"high{i}"]]).astype(
                    bool if name in self.truths else None
                )
                for i, name in enumerate(measured)
            }
        )


def _arrays(rows: LazyFrame) -> dict[str, Any]:
    """Let the engine compute a table, and return its columns."""
    found = rows.collect()
    return {name: found.get_column(name).to_numpy() for name in found.columns}


def _table(
    formula: Formula, data: LazyFrame, weights: object, offset: object, missing: str
) -> _Table:
    """Return the complete rows of lazy data, and count the others."""
    import narwhals.stable.v2 as nw

    check_choice("missing", missing, ("drop", "raise"))
    names, schema = dict(formula.columns()), data.collect_schema()
    for option, value in (("weights", weights), ("offset", offset)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{option}= of lazy data is the name of a column, got an array.")
        if isinstance(value, str):
            names.setdefault(value, (0, 0))
    for name, span in names.items():
        if name not in schema:
            message = f"the column `{name}` is not in the data. {suggestion(name, [*schema])}"
            raise FormulaError(message, formula.text, span)
    absent = [nw.col(name).is_null() for name in names]
    absent += [nw.col(name).is_nan() for name in names if schema[name].is_float()]
    kept = data.select(*names).filter(~nw.any_horizontal(*absent, ignore_nulls=True))
    n = int(_arrays(data.select(nw.len().alias(ROWS)))[ROWS][0])
    n_kept = int(_arrays(kept.select(nw.len().alias(ROWS)))[ROWS][0])
    if n_kept == 0:
        raise DataError("no row of the data is complete.")
    if n_kept < n:
        message = f"{n - n_kept:,} of {n:,} rows have missing values"
        if missing == "raise":
            raise DataError(f"{message}.")
        warn(f"{message} and are left out.", DataWarning)
    return _Table(
        kept,
        schema,
        {name for name in names if not (schema[name].is_numeric() or schema[name] == nw.Boolean)},
        {name for name in names if schema[name] == nw.Boolean},
        *(None if v is None else nw.col(str(v)).cast(nw.Float64) for v in (weights, offset)),
    )


# ------------------------------------------------------------------------------------- the sums


@dataclass(frozen=True, eq=False)
class _Basis:
    """A basis of the columns of a model, nearly orthonormal over all rows.

    Attributes
    ----------
    rows : LazyFrame
        Its r columns, those of the keys, and the weights if there are any.
    names : list of str
        Of the r columns.
    back : ndarray, shape (r, c)
        The columns are those of the basis times it.
    unweighted : ndarray, shape (c, c)
        Rows with the cross-products of the columns, without weights.
    """

    rows: LazyFrame
    names: list[str]
    back: Array
    unweighted: Array


def _basis(
    table: _Table, names: Sequence[str], columns: Sequence[Expr], keys: Sequence[str]
) -> _Basis:
    """Return the basis of columns, whose first are ones."""
    import narwhals.stable.v2 as nw

    raw = {f"{OWN}{j}": column for j, column in enumerate(columns)}
    weights = {} if table.weights is None else {WEIGHT: table.weights}
    rows = table.rows.with_columns(**weights, **raw).select(*keys, *weights, *raw)
    means = _arrays(rows.select(*(nw.col(name).mean() for name in raw)))
    at = np.array([float(means[name][0]) for name in raw])
    if bad := [name for name, mean in zip(names, at, strict=True) if not np.isfinite(mean)]:
        raise DataError(f"{listed(bad)} is infinite or not a number in some rows.")
    at[0] = 0.0
    rows = rows.with_columns(*(nw.col(n) - number(at[j]) for j, n in enumerate(raw) if at[j]))
    if weights and not _arrays(rows.select(nw.col(WEIGHT).min()))[WEIGHT][0] > 0:
        raise DataError("weights= must be positive: they are zero or negative in some rows.")
    unweighted = _root(_cross_products(rows, [*raw], weights=False)[1][0])
    root = unweighted
    if weights:
        root = _root(_cross_products(rows, [*raw], weights=True)[1][0])
    kept = _independent(root, CONSTANT * np.abs(at) * np.linalg.norm(root[:, 0]))
    R = np.linalg.qr(root[:, kept], mode="r")
    shares = linalg.solve_triangular(R, np.eye(len(kept)))
    basis = {
        f"{OWN}q{k}": sum(
            (
                nw.col(f"{OWN}{kept[i]}") * number(shares[i, k])
                for i in range(k + 1)
                if shares[i, k]
            ),
            number(0),
        )
        for k in range(len(kept))
    }
    back = R @ np.linalg.lstsq(root[:, kept], root, rcond=None)[0] * root.any(axis=0)
    back[:, kept] = R
    back += np.outer(back[:, 0], at)
    unweighted = unweighted + np.outer(unweighted[:, 0], at)
    rows = rows.with_columns(**basis).select(*keys, *weights, *basis)
    return _Basis(rows, [*basis], back, unweighted)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Rows with the cross-products of each cell.

    Attributes
    ----------
    keys : DataFrame
        The values of the keys in each cell.
    cell : ndarray of int, shape (r,)
        The cell of each row.
    columns : ndarray, shape (r, c)
    counts : ndarray of int, shape (r,)
    log_weights : ndarray, shape (r,)
    """

    keys: pd.DataFrame
    cell: Codes
    columns: Array
    counts: Codes
    log_weights: Array


def _by_cell(basis: _Basis, keys: Sequence[str]) -> _Cells:
    """Return rows with the cross-products that the data have in each cell of the keys."""
    import narwhals.stable.v2 as nw

    r = len(basis.names)
    if keys:
        n_cells = int(
            _arrays(basis.rows.select(*keys).unique().select(nw.len().alias(ROWS)))[ROWS][0]
        )
        what = f"the cross-products of {n_cells:,} cells of {listed(keys)}"
        check_memory(float(n_cells) * CELL_COPIES * r**2, what, "Cross fewer factors.")
    is_weighted = WEIGHT in basis.rows.collect_schema()
    found, products = _cross_products(basis.rows, basis.names, weights=is_weighted, keys=keys)
    values, vectors = np.linalg.eigh(products)
    size = values[:, -1].max()
    is_kept = values > NOTHING * size
    is_kept[:, -1] = True  # a row for each cell
    roots = (vectors * np.sqrt(np.maximum(values, 0.0))[:, None]).mT
    cell = np.nonzero(is_kept)[0].astype(np.int64)
    first = np.flatnonzero(np.diff(cell, prepend=-1))
    counts, log_weights = np.zeros(len(cell), dtype=np.int64), np.zeros(len(cell))
    counts[first] = found[ROWS]
    log_weights[first] = found[LOGS] if is_weighted else 0.0
    labels = pd.DataFrame({key: pd.Series(found[key]) for key in keys}, index=range(len(products)))
    return _Cells(labels, cell, roots[is_kept] @ basis.back, counts, log_weights)


def _cross_products(
    rows: LazyFrame, names: Sequence[str], *, weights: bool, keys: Sequence[str] = ()
) -> tuple[dict[str, Any], Array]:
    """Return sums by cell: how many rows and the like, and products of columns, (cells, r, r)."""
    import narwhals.stable.v2 as nw

    pairs = [*combinations_with_replacement(range(len(names)), 2)]
    columns = {f"{OWN}{i}_{j}": nw.col(names[i]) * nw.col(names[j]) for i, j in pairs}
    if weights:
        columns = {name: column * nw.col(WEIGHT) for name, column in columns.items()}
        columns[LOGS] = nw.col(WEIGHT).log()
    products = rows.with_columns(**columns).select(*keys, *columns)
    sums = [nw.len().alias(ROWS), *(nw.col(name).sum() for name in columns)]
    summed = products.group_by(*keys).agg(*sums).sort(*keys) if keys else products.select(*sums)
    found = _arrays(summed)
    square = np.zeros((len(found[ROWS]), len(names), len(names)))
    for i, j in pairs:
        square[:, i, j] = square[:, j, i] = found[f"{OWN}{i}_{j}"]
    return found, square


def _root(products: Array) -> Array:
    """Return rows that have these cross-products."""
    size = np.sqrt(np.diag(products))
    unit = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(products / np.outer(unit, unit))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T * size)


def _independent(root: Array, rounding: Array) -> list[int]:
    """Return the numbers of the columns that are no combinations of earlier ones."""
    kept: list[int] = []
    for j, column in enumerate(root.T):
        left = column - root[:, kept] @ np.linalg.lstsq(root[:, kept], column, rcond=None)[0]
        if np.linalg.norm(left) > max(DEPENDENT * np.linalg.norm(column), rounding[j]):
            kept.append(j)
    return kept
