"""Two designs of the same data, whose models can be compared.

The data are the rows, by their labels and in one order, and the response: its expression, and its
values bit by bit. Weights and offset count in some comparisons:

- Weights. Where they divide a variance (families with a sigma) the density of a response is one in
  the same units whatever they are: two models that differ in them can be compared by their
  predictions. Where they are numbers of trials they are half of the response, and where they
  multiply a log density they say how often a row counts: then they are data.
- The offset is a part of the mean. Models that differ in it are different models of the same data;
  they can be compared by their predictions, but their means are not nested.

So a likelihood-ratio test of nested models, and the bootstrap that simulates it, need the same
weights and offset; a comparison of predictions and of marginal likelihoods needs the same weights
where they are data. The family is no part of the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ranef.design.design import Design
from ranef.design.rows.rows import Rows
from ranef.errors import DataError, listed


def check_same_data(
    first: Design,
    second: Design,
    names: tuple[str, str],
    *,
    weights: bool = True,
    offset: bool = True,
) -> None:
    """Refuse designs of different data.

    Parameters
    ----------
    first, second : Design
    names : tuple of (str, str)
        The names of the two models in the errors.
    weights, offset : bool
        Whether these have to be the same, besides rows and response.

    Raises
    ------
    DataError
        The message says what differs, and in which rows.
    """
    a, b = names
    first_rows, second_rows = first.sufficient, second.sufficient
    same_rows = first_rows.index.equals(second_rows.index) and _are_alike(first_rows, second_rows)
    have_rows = first.has_rows and second.has_rows
    if not have_rows and not (same_rows and np.array_equal(first_rows.y, second_rows.y)):
        sums = "sums" if first_rows.repeats is None else "counts"
        message = (
            f"{a} and {b} are fits of {sums} that each model took of its data, which cannot be "
            f"laid side by side. Take the largest model, whose {sums} serve all simpler random "
            "effects: rf.compare_structures(model), or fits of model.structures() for rf.anova and "
            "rf.compare."
        )
        if first_rows.repeats is None:
            message += " Models with fewer fixed effects share a summary: "
            message += "large = rf.Model(rf.summarize(formula, data)), small = large.update(...)."
        raise DataError(message)
    if not same_rows:
        raise DataError(
            f"{a} and {b} are fits of different rows ({first.n_obs} and {second.n_obs}: "
            f"{_unshared_rows(first_rows.index, second_rows.index, names)}): "
            "fit both to the rows that are complete in all columns that either uses."
        )
    if first.response != second.response:
        raise DataError(
            f"{a} is a model of `{first.response}` and {b} one of `{second.response}`: densities "
            "of a response and of its transform are in different units and cannot be compared. "
            "Fit both to the same response; a link function transforms its mean instead."
        )
    is_equal = {f"response `{first.response}` differs": first_rows.y == second_rows.y}
    if weights:
        is_equal["weights or numbers of trials differ"] = first_rows.weights == second_rows.weights
    if offset:
        is_equal["offset differs"] = first_rows.offset == second_rows.offset
    for difference, equal in is_equal.items():
        if not equal.all():
            different = first_rows.index[~equal]
            count = f"{len(different)} row{'s' * (len(different) != 1)}"
            message = f"{a} and {b} are not fits of the same data: the {difference} in {count} "
            raise DataError(f"{message}({listed(different)}).")


def _are_alike(first: Rows, second: Rows) -> bool:
    """Whether rows that were counted are the same in all columns; others say it by their labels."""
    if first.repeats is None or second.repeats is None:
        return first.repeats is second.repeats
    few, many = sorted((rows.data.columns for rows in (first, second)), key=lambda f: f.shape[1])
    is_part = few.columns.isin(many.columns).all() and many[few.columns].equals(few)
    return bool(is_part and np.array_equal(first.repeats, second.repeats))


def _unshared_rows(first: pd.Index[Any], second: pd.Index[Any], names: tuple[str, str]) -> str:
    a, b = names
    unshared = {a: first[~first.isin(second)], b: second[~second.isin(first)]}
    counts = [f"{len(r)} only in {name} ({listed(r)})" for name, r in unshared.items() if len(r)]
    if not counts and len(first) == len(second):
        return "in another order"
    return "; ".join(counts) or "labels that occur several times"
