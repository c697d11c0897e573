"""From no pooling to partial pooling: what a model does to each group's own estimate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.design import Design, RandomTerm

Array = NDArray[np.float64]


def shrinkage_table(
    design: Design, term: RandomTerm, *, beta: pd.Series[float], b: Mapping[str, Array]
) -> pd.DataFrame:
    """Compare each group's own least-squares estimate with the model's.

    A group's own estimate is the (weighted) least-squares fit of the term's columns to the rows
    of that group alone. What other fixed effects and other random terms explain is taken off the
    response first, at the model's estimates.

    Parameters
    ----------
    design : Design
    term : RandomTerm
    beta : Series
        Fixed effects by name.
    b : mapping of str to ndarray, shape (m, k)
        Random effects of every term, by label.

    Returns
    -------
    DataFrame
        `term, level, coef, own, model, population, n`: no pooling (nan where the group's rows do
        not determine it), partial pooling, complete pooling, and the number of rows.
    """
    population = np.array([beta.get(c, 0.0) for c in term.coefs])
    own, counts = group_least_squares(
        term, _partial_residual(design, term, beta, b), design.weights
    )
    return effect_labels(term).assign(
        own=own.ravel(),
        model=(population + b[term.label]).ravel(),
        population=np.tile(population, term.n_levels),
        n=np.repeat(counts, term.n_coefs),
    )


def effect_labels(term: RandomTerm) -> pd.DataFrame:
    """Return the columns `term, level, coef` of a table with a row a level and coefficient."""
    m, k = term.n_levels, term.n_coefs
    return pd.DataFrame(
        {
            "term": term.label,
            "level": np.repeat(term.levels.to_numpy(), k),
            "coef": np.tile(np.array(term.coefs, dtype=object), m),
        }
    )


def group_least_squares(
    term: RandomTerm, response: Array, weights: Array
) -> tuple[Array, NDArray[np.int64]]:
    """Fit the columns of a term to each group's rows.

    Returns
    -------
    ndarray, shape (m, k)
        nan for the groups whose columns are linearly dependent.
    ndarray of int, shape (m,)
        Rows of each group.
    """
    m, k = term.n_levels, term.n_coefs
    scale = np.sqrt(np.mean(term.columns**2, axis=0))
    Z = term.columns / np.where(scale > 0, scale, 1.0)
    order = np.argsort(term.codes, kind="stable")
    counts = np.bincount(term.codes, minlength=m)
    own = np.full((m, k), np.nan)
    for level, rows in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        root = np.sqrt(weights[rows])[:, None]
        found, _, rank, _ = np.linalg.lstsq(Z[rows] * root, response[rows] * root[:, 0], rcond=1e-9)
        if rank == k:
            own[level] = found
    return own / np.where(scale > 0, scale, 1.0), counts


def _partial_residual(
    design: Design, term: RandomTerm, beta: pd.Series[float], b: Mapping[str, Array]
) -> Array:
    others = [j for j, name in enumerate(design.fixed) if name not in term.coefs]
    left = design.y - design.offset - design.X[:, others] @ beta.to_numpy()[others]
    for other in design.terms:
        if other.label != term.label:
            left = left - np.sum(other.columns * b[other.label][other.codes], axis=1)
    return np.asarray(left)
