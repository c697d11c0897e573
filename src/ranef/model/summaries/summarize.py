"""Making summaries: of data, or from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import FilePath
from ranef.arguments import check_known
from ranef.design.design import build_design
from ranef.design.lazy.lazy_cells import CountedRows, counted_rows
from ranef.design.lazy.lazy_table import open_lazy
from ranef.errors import DataError, FitError, listed
from ranef.families.family import Family
from ranef.formula import updates
from ranef.formula.terms import Formula, columns_of, read_formula
from ranef.model.summaries import lazy_sums, stand_ins, stored_summary, triangular_rows
from ranef.model.summaries.data_summary import DataSummary, Grouping, names_of


def summarize(
    formula: str,
    data: object,
    *,
    levels: Mapping[str, Iterable[object]] | None = None,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    missing: str = "drop",
    min_rows: int | None = None,
) -> DataSummary:
    """Return the summary of a linear model's data: its cross-products, without rows.

    Parameters
    ----------
    formula : str
        As of `Model`. Transforms that learn from the data, as `scale(x)`, `poly(x, 2)` and splines
        do, would mean something else in every part of the data: make columns of them before.
    data : DataFrame
    levels : mapping of str to sequence, optional
        The levels of factors that are coded as columns, by name, in their order: what the parts of
        the data that are to be added agree on. By default those that occur.
    weights, offset : str or array, optional
        As of `Model`.
    missing : {"drop", "raise"}
        As of `Model`.
    min_rows : int, optional
        The fewest rows that a cell, a combination of levels of the grouping factors, may have. By
        default one more than the summary has columns, so that no cell's rows can be had from it;
        0 where nothing is to be kept private.

    Returns
    -------
    DataSummary

    Raises
    ------
    FormulaError, DataError
        As of `Model`; if a factor has levels that are not among `levels`, or a cell too few rows.

    Notes
    -----
    A summary reveals of each cell the number of its rows and the sums, sums of squares and of
    products of its columns: means, standard deviations and correlations of response and predictors.
    With more rows than columns no row follows from them. The ranges of measured predictors and the
    labels of all levels are in it too.

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.load_dataset("sleepstudy")
    >>> formula, half = "Reaction ~ Days + (Days | Subject)", sleep["Days"] < 5
    >>> one, other = rf.summarize(formula, sleep[half]), rf.summarize(formula, sleep[~half])
    >>> one + other
    Reaction ~ Days + (Days | Subject)
      summary of 180 rows of 18 cells (18 Subject): 54 rows have the same cross-products
    >>> rf.Model(one + other).fit().fixef().round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    read = read_formula(formula, {})
    given = {label: pd.Index(list(known)) for label, known in (levels or {}).items()}
    _check_levels(given, read)
    if (lazy := open_lazy(data)) is not None:
        options: dict[str, Any] = {"weights": weights, "offset": offset, "missing": missing}
        summary = lazy_sums.lazy_summary(read, lazy, levels=given, **options)
        _check_counts(summary, min_rows)
        return summary
    design = build_design(read, data, weights=weights, offset=offset, missing=missing, levels=given)
    rows, recipe = design.rows, design.recipe
    if recipe.memory.states:
        message = f"{listed(recipe.memory.states)} would mean something else in other data, and a "
        raise DataError(f"{message}summary is to be added to others: make columns of it before.")
    by_part = {
        id(part): (Z, term.grouping)
        for (part, Z), term in zip(recipe.random, rows.terms, strict=True)
    }
    parts = [by_part[id(part)] for part in read.random]
    columns = np.column_stack(
        [np.ones(len(rows.y)), rows.X, *(Z.values for Z, _ in parts), rows.offset, rows.y]
    )
    frame = rows.data.columns
    summary = DataSummary(
        formula=read,
        response=design.response,
        names=names_of(recipe.X, [Z for Z, _ in parts]),
        levels=dict(recipe.memory.levels),
        ranges=stand_ins.ranges_of(frame[[str(name) for name in read.predictors()]]),
        groupings=tuple(Grouping(factor.levels, factor.codes) for _, factor in parts),
        columns=columns * np.sqrt(rows.weights)[:, None],
        counts=np.ones(len(columns), dtype=np.int64),
        log_weights=np.log(rows.weights),
        unweighted=columns if design.has_weights else None,
        pairs=None,
        offset=recipe.offset,
        left_out=rows.data.left_out,
    ).condensed()
    _check_counts(summary, min_rows)
    return summary


def from_file(path: FilePath, record: Mapping[str, Any]) -> DataSummary:
    """Return the summary in a file, whose record is given."""
    fields = stored_summary.fields(path, record)
    groupings = tuple(Grouping(levels, codes) for levels, codes in fields.pop("groupings"))
    return DataSummary(**fields, groupings=groupings)


def brought_here(
    formula: str | DataSummary, data: object, family: Family, arguments: Mapping[str, Any]
) -> DataSummary | CountedRows | None:
    """Return what a model is made of in place of rows; None for data whose rows are here.

    Of lazy data it is a summary, or their different rows with counts where the model is no linear
    one.

    Parameters
    ----------
    formula : str or DataSummary
    data : object
    family : Family
    arguments : mapping of str to object
        The others of `Model`.

    Raises
    ------
    FitError, DataError
        For arguments beside a summary, which has its own, or beside lazy data, if they need rows.
    """
    if isinstance(formula, DataSummary):
        if not family.is_linear:
            message = "a summary has what a Gaussian model needs, and no rows: a "
            raise FitError(f"{message}{family.name} model needs the data themselves.")
        of_rows = ("weights", "offset", "se", "functions")
        given = ["data"] * (data is not None)
        given += [name for name in of_rows if arguments[name] is not None]
        if given:
            message = f"a model of a summary takes no {listed(given)}: it has what `summarize` was "
            raise FitError(f"{message}told.")
        return formula
    if (lazy := open_lazy(data)) is None:
        return None
    for name in ("functions", "se"):
        if arguments[name] is not None:
            message = f"{name}= needs the rows, which lazy data do not bring here: make columns "
            raise DataError(f"{message}of what it gives, or collect the data.")
    options = {name: arguments[name] for name in ("weights", "offset", "missing")}
    read = read_formula(formula, {})
    if not family.is_linear:
        return counted_rows(read, lazy, family, **options)
    return lazy_sums.lazy_summary(read, lazy, levels={}, may_pair=True, **options)


def updated_summary(
    summary: DataSummary,
    formula: object,
    data: object,
    *,
    weights: str | ArrayLike | None = None,
    offset: str | ArrayLike | None = None,
    **others: object,
) -> DataSummary:
    """Return a summary for another formula of its columns, or with more rows.

    Parameters
    ----------
    summary : DataSummary
    formula : str or DataFrame
        A formula in which `.` stands for that side of the summary's own; or the rows.
    data : DataFrame
    weights, offset : str or array
        Of the new rows.
    **others
        There are none.

    Raises
    ------
    FitError
        If there are others, as they need the data of the summary.
    """
    if others:
        message = f"a model of a summary cannot change {listed(others)}: it takes another formula "
        raise FitError(f"{message}of the same columns, and more rows with weights and offset.")
    if data is None and not isinstance(formula, str):
        formula, data = None, formula
    if data is not None:
        if summary.unweighted is not None and weights is None:
            raise DataError("the rows of the summary have weights: give those of the new ones too.")
        new = summarize(
            summary.formula.text,
            data,
            levels={label: summary.levels[label] for label in summary.shared_levels},
            weights=weights,
            offset=(summary.offset or None) if offset is None else offset,
            min_rows=0,
        )
        summary = summary + new
    if isinstance(formula, str):
        text = updates.updated(summary.formula, formula, {})
        summary = summary.with_formula(read_formula(text))
    return summary


def _check_levels(given: Mapping[str, pd.Index[Any]], formula: Formula) -> None:
    """Refuse levels of what is no factor of the formula, and levels that are named twice."""

    def fault(label: str) -> str:
        return f"levels= names `{label}`, which is no column of the terms of the formula."

    check_known(given, columns_of(stand_ins.coded_factors(formula)), fault, error=DataError)
    for label, levels in given.items():
        if not levels.is_unique:
            raise DataError(
                f"levels= names {listed(levels[levels.duplicated()])} of `{label}` twice."
            )


def _check_counts(summary: DataSummary, min_rows: int | None) -> None:
    """Refuse cells of so few rows that the summary gives them away."""
    width = len(np.unique(triangular_rows.distinct_columns(summary.columns)[1]))
    needed = width + 1 if min_rows is None else min_rows
    counts = summary.counts[summary.counts > 0]
    few = np.flatnonzero(counts < needed)
    if not len(few):
        return
    first = np.flatnonzero(summary.counts > 0)[few]
    names = [":".join(str(g.levels[g.codes[place]]) for g in summary.groupings) for place in first]
    cells = " x ".join(part.factor for part in summary.formula.random) or "the data"
    raise DataError(
        f"{len(few)} of {len(counts)} cells of {cells} have fewer than {needed} rows "
        f"({listed(names)}), so that a summary gives their rows away: leave them out, or allow it "
        "with min_rows=0 where that is no secret."
    )
