"""From a formula and a data frame to names, the `Design`, and to arrays, its `Rows`.

Random terms are held as the level of each row and the coefficient columns, never as an indicator
matrix. The recipe that made a design (levels, means, knots, codings) makes it again on new data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Places
from ranef.covariances.covariance import Covariance, Diagonal, Unstructured
from ranef.design.data_frame import complete_rows, open_frame
from ranef.design.evaluate import Functions, Interpreter, Memory, callables, one_column
from ranef.design.groups import Factor, combined
from ranef.design.lazy.lazy_cells import CountedRows
from ranef.design.lazy.lazy_table import needs_rows
from ranef.design.model_matrix import (
    Columns,
    Combinations,
    NearestPlace,
    Origin,
    code,
    combinations_of,
    independent_columns,
    nearest_place,
)
from ranef.design.response import read_response
from ranef.design.rows.equal_rows import repeated
from ranef.design.rows.rows import Condensed, Rows, TermRows
from ranef.errors import DataError, FitError, listed
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.formula.terms import Formula, RandomPart
from ranef.numerics.matrices import ReadOnly, threads_for


@dataclass(frozen=True, eq=False)
class RandomTerm(ReadOnly):
    """One random-effects term: its names, without rows.

    Attributes
    ----------
    label : str
        The grouping factor's name, made unique: `Subject`, then `Subject_1`.
    text : str
        The term as a formula.
    factor : str
        The name of the grouping factor.
    levels : pandas.Index
        Labels of the m levels.
    coefs : tuple of str
        Names of the k coefficients.
    numeric : tuple of bool
        Whether a coefficient's column is measured (True) or an intercept or indicator (False).
    nearest : NearestPlace or None
        The observed place nearest to the origin of the predictors, where that is another one.
    covariance : Covariance
        Of the coefficients of a level: unstructured (`|`) or diagonal (`||`).
    mean_products : ndarray, shape (k, k)
        The mean over rows of the products of two coefficient columns.
    """

    label: str
    text: str
    factor: str
    levels: pd.Index[Any]
    coefs: tuple[str, ...]
    numeric: tuple[bool, ...]
    nearest: NearestPlace | None
    covariance: Covariance
    mean_products: Array

    @property
    def lengths(self) -> Array:
        """The root mean square of each coefficient column, shape (k,)."""
        return np.sqrt(np.diag(self.mean_products))

    @property
    def n_levels(self) -> int:
        """The number of levels, m."""
        return len(self.levels)

    @property
    def n_coefs(self) -> int:
        """The number of coefficients of a level, k."""
        return len(self.coefs)


@dataclass(frozen=True, eq=False)
class Recipe:
    """Levels, codings and transforms of a design, enough to build the matrices of new rows.

    Attributes
    ----------
    memory : Memory
        Levels of the factors and states of the transforms.
    X : Columns
        The fixed columns as first coded; a design may have dropped some of them.
    random : tuple of (RandomPart, Columns)
        In the order of the design's terms.
    functions : mapping of str to callable
        The user's functions.
    offset : str or None
        The name of the column given as `offset=`; "" where it was an array.
    no_rows : pandas.DataFrame
        The used columns without rows: their types.
    """

    memory: Memory
    X: Columns
    random: tuple[tuple[RandomPart, Columns], ...]
    functions: Functions
    offset: str | None
    no_rows: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Design:
    """The names, levels and covariances of a model, with a few numbers about its rows.

    Attributes
    ----------
    formula : Formula
    response : str
        Label of the response.
    success : str
        The condition of a success, where the response holds labels: `use == 'Y'`. Else empty.
    fixed : tuple of str
        Names of the columns of X.
    numeric : tuple of bool
        Per column of X, whether it is measured.
    origins : tuple of Origin
        Per column of X, which columns of the data it uses.
    terms : tuple of RandomTerm
        By decreasing number of levels, as lme4 orders them.
    recipe : Recipe
        Makes the matrices again on new data.
    n_obs, left_out : int
        The number of rows used, n, and of those that miss a value.
    total_weight : float
        The sum of the prior weights; the number of trials for a binomial family.
    has_weights : bool
        Whether a prior weight is not one.
    has_offset : bool
        Whether the offset of a row is not zero.
    """

    formula: Formula
    response: str
    success: str
    fixed: tuple[str, ...]
    numeric: tuple[bool, ...]
    origins: tuple[Origin, ...]
    terms: tuple[RandomTerm, ...]
    recipe: Recipe
    n_obs: int
    left_out: int
    total_weight: float
    has_weights: bool
    has_offset: bool
    _rows: Rows | None

    def __repr__(self) -> str:
        return f"<design of {self.formula.text}: {self.n_obs} rows>"

    @property
    def has_rows(self) -> bool:
        """Whether the rows of the data are known."""
        return self._rows is not None and self._rows.condensed is None

    @property
    def sufficient(self) -> Rows:
        """Rows with the cross-products of the data: all that a Gaussian model needs of it.

        They are the data's own, or those of a summary.
        """
        return self.rows if self._rows is None else self._rows

    @property
    def unweighted(self) -> Rows:
        """Rows with the cross-products of the data, whatever their weights."""
        rows = self.sufficient
        return rows if rows.condensed is None else rows.condensed.unweighted or rows

    @property
    def rows(self) -> Rows:
        """The arrays of the data.

        Raises
        ------
        FitError
            If the design has none, as where a fit was made from cross-products alone.
        """
        if self._rows is None or not self.has_rows:
            sums = "cross-products" if self._rows is None else self._rows.made_from
            raise FitError(
                f"this model has no rows: it was made from {sums} alone. What is said of single "
                "rows (such as fitted values, residuals, checks, rf.comparisons over the rows) "
                "needs a model of the data themselves, or of some groups of them; estimates, "
                "intervals, random effects, predict(new_data), rf.means, rf.anova and rf.compare "
                "need no rows."
            )
        return self._rows

    @property
    def distinct(self) -> Rows:
        """The rows of the data, or the different ones among them, where these were counted."""
        return self.rows if self.sufficient.repeats is None else self.sufficient

    def with_rows(self, rows: Rows | None = None, **arrays: Any) -> Design:
        """Return the design with other rows, or arrays in them, and with the levels these have."""
        design = replace(self, _rows=replace(rows or self.sufficient, **arrays))
        design = replace(design, **_facts(design.sufficient))
        pairs = zip(design.terms, design.sufficient.terms, design.unweighted.terms, strict=True)
        terms = tuple(_renewed(*each, n=design.n_obs) for each in pairs)
        return replace(design, terms=terms)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The fixed columns that were left out as combinations of others."""
        return tuple(name for name in self.recipe.X.names if name not in self.fixed)

    def term(self, label: str) -> RandomTerm:
        """Return the term of a label."""
        return next(t for t in self.terms if t.label == label)

    def term_among_fixed(self, label: str) -> Combinations:
        """Return the columns of a term as combinations of the fixed ones, whatever their names."""
        return combinations_of(*self._coded(label))

    def fixed_among_term(self, label: str) -> Combinations:
        """Return the fixed columns as combinations of those of a term, whatever their names."""
        return combinations_of(*reversed(self._coded(label)))

    def _coded(self, label: str) -> tuple[Array, Array]:
        """Return the columns of a term and the fixed ones, as the design was first built."""
        place, X = [t.label for t in self.terms].index(label), self.recipe.X
        kept = [X.names.index(name) for name in self.fixed]
        return self.recipe.random[place][1].values, X.values[:, kept]


def build_design(
    formula: Formula,
    data: object,
    *,
    family: Family = GAUSSIAN,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    missing: str = "drop",
    functions: Functions | None = None,
    weights_as: str = "weights",
    levels: Mapping[str, pd.Index[Any]] | None = None,
) -> Design:
    """Build the design of a formula on a data frame.

    Parameters
    ----------
    formula : Formula
    data : DataFrame
        pandas, any eager frame that narwhals reads (polars, pyarrow), or a mapping of columns; or
        the different rows of lazy data with their counts.
    family : Family
        The family of the response; it also settles the meaning of `weights`.
    weights, offset : str or array of shape (rows of data,), optional
        The name of a column, or values. The weights of a binomial family are numbers of trials.
    missing : {"drop", "raise"}
        Whether rows with missing values in the used columns are left out or refused.
    functions : mapping of str to callable, optional
        Functions that the formula may use besides the built-in ones.
    weights_as : str
        The argument that the weights are from, for messages.
    levels : mapping of str to Index, optional
        The levels of some factors, by label; of others they are those that occur.

    Raises
    ------
    FormulaError
        If the formula names a column that is not in the data.
    DataError
        If the data cannot carry the model; the message names columns and rows.

    Warns
    -----
    DataWarning
        When rows with missing values are left out.
    """
    functions, counts, left_out = callables(functions), None, 0
    if isinstance(data, CountedRows):
        counts, left_out, data = data.counts, data.left_out, data.frame
    source = open_frame(data)
    used = source.columns(formula.columns(), formula.text)
    numbers = source.values(weights, "weights"), source.values(offset, "offset")
    complete = complete_rows(used, *numbers, missing, weights_as, counts=counts)
    complete = replace(complete, left_out=complete.left_out + left_out)
    memory = Memory(levels={} if levels is None else dict(levels))
    interpreter = Interpreter(complete.columns, formula.text, memory, functions, counts)
    X = code(interpreter, formula.fixed)
    random = [_coded(interpreter, part) for part in formula.random]
    response = read_response(interpreter, formula.response, family, complete.weights)
    rows = Rows(
        X=X.values,
        y=response.y,
        weights=response.weights,
        offset=offset_of(interpreter, formula, complete.offset),
        terms=(),
        index=complete.columns.index,
        data=complete,
    )
    name = offset if isinstance(offset, str) or offset is None else ""
    labels = response.label, response.success
    design = assembled(interpreter, formula, X, random, rows, labels=labels, offset=name)
    if counts is None:
        return design
    if memory.states:
        raise DataError(needs_rows(listed(memory.states)))
    rows = design.with_rows(weights=rows.weights * counts).rows
    return design.with_rows(weights=rows.weights, condensed=repeated(rows, counts))


@dataclass(frozen=True, eq=False)
class CodedPart:
    """A random part of a formula with its coded columns and its grouping factor.

    Attributes
    ----------
    part : RandomPart
    columns : Columns
    grouping : Factor
    nearest : NearestPlace or None
        As of `RandomTerm`.
    """

    part: RandomPart
    columns: Columns
    grouping: Factor
    nearest: NearestPlace | None


def assembled(
    interpreter: Interpreter,
    formula: Formula,
    X: Columns,
    random: Sequence[CodedPart],
    rows: Rows,
    *,
    labels: tuple[str, str],
    offset: str | None,
) -> Design:
    """Put a design together from its coded columns.

    Parameters
    ----------
    interpreter : Interpreter
    formula : Formula
    X : Columns
    random : sequence of CodedPart
        In the formula's order.
    rows : Rows
        Without their terms.
    labels : tuple of (str, str)
        Of the response and of its success.
    offset : str or None
        The name of the column given as `offset=`; "" where it was an array.
    """
    random = _in_lme4_order(random)
    names = _labels(random)
    terms = tuple(
        TermRows(name, one.grouping, one.columns.values)
        for name, one in zip(names, random, strict=True)
    )
    rows, facts = replace(rows, terms=terms), _facts(rows)
    response, success = labels
    return Design(
        formula=formula,
        response=response,
        success=success,
        fixed=X.names,
        numeric=X.numeric,
        origins=X.origins,
        terms=tuple(
            _term(name, one, facts["n_obs"]) for name, one in zip(names, random, strict=True)
        ),
        recipe=Recipe(
            memory=interpreter.memory,
            X=X,
            random=tuple((one.part, one.columns) for one in random),
            functions=interpreter.functions,
            offset=offset,
            no_rows=rows.data.columns.iloc[:0],
        ),
        _rows=rows,
        **facts,
    )


def full_rank(design: Design) -> Design:
    """Leave out the fixed columns that are linear combinations of earlier ones.

    The tolerance is R's: a column counts as dependent when its residual on the earlier ones is
    shorter than 1e-7 of its length.
    """
    rows = design.sufficient
    weighted = rows.X * np.sqrt(rows.weights)[:, None] if design.has_weights else rows.X
    kept = independent_columns(weighted)
    return design if len(kept) == len(design.fixed) else with_columns(design, kept)


def with_columns(design: Design, kept: Sequence[int] | Places) -> Design:
    """Return a design with some of its fixed columns."""
    rows, places = design.sufficient, np.asarray(kept, dtype=np.intp)
    condensed = rows.condensed
    if condensed is not None and condensed.unweighted is not None:
        others = replace(condensed.unweighted, X=condensed.unweighted.X[:, places])
        condensed = replace(condensed, unweighted=others)
    return replace(
        design.with_rows(X=rows.X[:, places], condensed=condensed),
        fixed=tuple(design.fixed[j] for j in places),
        numeric=tuple(design.numeric[j] for j in places),
        origins=tuple(design.origins[j] for j in places),
    )


def leaving_out(design: Design, places: Places) -> Design:
    """Return a design without the rows in some places, and without levels that lose all rows."""
    rows, condensed = design.sufficient, design.sufficient.condensed
    is_kept = np.ones(len(rows.y), dtype=bool)
    is_kept[places] = False
    if condensed is not None:
        own = condensed.ones[is_kept], condensed.counts[is_kept], condensed.log_weights[is_kept]
        condensed = Condensed(*own, unweighted=None)
    left = rows.at(is_kept)
    left = replace(left, terms=tuple(map(_with_present_levels, left.terms)))
    if rows.repeats is not None:
        condensed = repeated(left, rows.repeats[is_kept])
    return design.with_rows(left, condensed=condensed)


def _with_present_levels(term: TermRows) -> TermRows:
    present, found = np.unique(term.codes, return_inverse=True)
    codes, levels = found.astype(np.int64), term.grouping.levels[present]
    return replace(term, grouping=replace(term.grouping, levels=levels, codes=codes, numbers=codes))


# ------------------------------------------------------------------- offset, terms and grouping


def _facts(rows: Rows) -> dict[str, Any]:
    """Return the numbers about rows that a design keeps without them."""
    condensed = rows.condensed
    weights = rows.weights != 1 if condensed is None else condensed.log_weights != 0
    return {
        "n_obs": rows.n,
        "left_out": rows.data.left_out,
        "total_weight": float(np.sum(rows.weights * rows.ones**2)),
        "has_weights": bool(weights.any()),
        "has_offset": bool(rows.offset.any()),
    }


def offset_of(interpreter: Interpreter, formula: Formula, argument: Array | None) -> Array:
    """Return the sum of the offset given as an argument and of those in the formula."""
    total = np.zeros(len(interpreter.frame)) if argument is None else argument.copy()
    for node in formula.offsets:
        total += one_column(interpreter.numeric(node), f"the offset `{node}`")
    return total


def _coded(interpreter: Interpreter, part: RandomPart) -> CodedPart:
    columns = code(interpreter, part.terms)
    grouping, nearest = grouping_of(interpreter, part, None), nearest_place(interpreter, columns)
    return CodedPart(part, columns, grouping, nearest)


def _in_lme4_order(random: Sequence[CodedPart]) -> Sequence[CodedPart]:
    """Sort by decreasing number of levels, as lme4's mkReTrms does.

    Terms in that order already stay as they are; otherwise terms of equal numbers are reversed.
    """
    counts = [len(one.grouping.levels) for one in random]
    if all(a >= b for a, b in pairwise(counts)):
        return random
    ascending = sorted(range(len(random)), key=lambda i: counts[i])
    return [random[i] for i in reversed(ascending)]


def _labels(random: Sequence[CodedPart]) -> list[str]:
    """Name each term by its factor: `Subject`, then `Subject_1`, or the next unused name."""
    names = [one.grouping.name for one in random]
    labels: list[str] = []
    for i, name in enumerate(names):
        unused = (f"{name}_{n}" for n in count(1) if f"{name}_{n}" not in (*names, *labels))
        labels.append(next(unused) if name in names[:i] else name)
    return labels


def _term(label: str, one: CodedPart, n: int) -> RandomTerm:
    covariance = Unstructured if one.part.correlated else Diagonal
    return RandomTerm(
        label=label,
        text=str(one.part),
        factor=one.grouping.name,
        levels=one.grouping.levels,
        coefs=one.columns.names,
        numeric=one.columns.numeric,
        nearest=one.nearest,
        covariance=covariance(len(one.columns.names)),
        mean_products=_mean_products(one.columns.values, n),
    )


def _renewed(term: RandomTerm, rows: TermRows, unweighted: TermRows, *, n: int) -> RandomTerm:
    products = _mean_products(unweighted.columns, n)
    return replace(term, levels=rows.grouping.levels, mean_products=products)


def _mean_products(columns: Array, n: int) -> Array:
    with threads_for(columns.shape[1]):
        return np.asarray(columns.T @ columns / n)


def grouping_of(interpreter: Interpreter, part: RandomPart, old: RandomTerm | None) -> Factor:
    """Return the grouping factor of a term, with the levels of an earlier design's, if any."""
    coded = [(str(node), interpreter.categorical(node)) for node in part.group]
    factors = tuple(
        Factor(name, c.levels, c.codes, c.numbers, unseen=c.unseen, doubt=c.doubt)
        for name, c in coded
    )
    if len(factors) == 1:
        return factors[0]
    return combined(part.factor, factors, None if old is None else old.levels)
