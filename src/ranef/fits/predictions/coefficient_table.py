"""The coefficients of each group, fixed effects plus random ones, as rows of a predictor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import Factor
from ranef.design.new_data.new_rows import NewRows, rows_of
from ranef.design.rows.rows import TermRows
from ranef.fits.tables import effect_labels


def coefficient_rows(design: Design, label: str) -> tuple[NewRows, tuple[str, ...]]:
    """Return the coefficients of the levels of a term as rows, and their names.

    A coefficient is a linear predictor of its own: x'beta + z'b, x having a one for the fixed
    effect, and z what the random effects add to it.

    Parameters
    ----------
    design : Design
    label : str
        Of the term.

    Returns
    -------
    rows : NewRows
        Level by level, the coefficients of each.
    names : tuple of str
        The coefficients that vary between levels: fixed ones in their order, then random ones that
        no fixed columns make up, which are around zero.
    """
    term, found = design.term(label), design.term_among_fixed(label)
    added = found.coefs * found.exact
    varying = added.any(axis=1)
    p, k, m = len(design.fixed), term.n_coefs, term.n_levels
    alone = np.eye(k)[~found.exact]
    X = np.vstack([np.eye(p)[varying], np.zeros((len(alone), p))])
    z = np.vstack([added[varying], alone])
    n = m * len(z)
    codes = np.repeat(np.arange(m), len(z))
    factor = Factor(term.factor, term.levels, codes, codes)
    rows = rows_of(np.tile(X, (m, 1)), np.zeros(n), [TermRows(label, factor, np.tile(z, (m, 1)))])
    names = [name for name, varies in zip(design.fixed, varying, strict=True) if varies]
    names += [name for name, exact in zip(term.coefs, found.exact, strict=True) if not exact]
    return rows, tuple(names)


def drawn_coefficients(
    terms: Sequence[RandomTerm], names: Sequence[tuple[str, ...]], draws: Sequence[Array]
) -> pd.DataFrame:
    """Return draws of the coefficients of each group, by term, level and coefficient.

    Parameters
    ----------
    terms : sequence of RandomTerm
    names : sequence of tuple of str
        Of each term's coefficients, as `coefficient_rows` has them.
    draws : sequence of ndarray, shape (draws, m times coefficients)

    Returns
    -------
    DataFrame
        One column a draw.
    """
    if not terms:
        return pd.DataFrame().rename_axis(columns="draw")
    of_terms = zip(terms, names, strict=True)
    labels = pd.concat([effect_labels(term.label, term.levels, coefs) for term, coefs in of_terms])
    values = np.vstack([of_term.T for of_term in draws])
    return pd.DataFrame(values, pd.MultiIndex.from_frame(labels)).rename_axis(columns="draw")
