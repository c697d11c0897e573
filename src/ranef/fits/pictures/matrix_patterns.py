"""Where the matrices of a fit have entries: Z', Lambda, A = Lambda'Z', A W A' + I, and L.

Bates et al. (2015), sections 3.1 and 3.2: P is a permutation of the random effects for which the
Cholesky factor L of P (A W A' + I) P' has few entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg

from ranef._typing import Array, Places
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.likelihood.textbook_matrices import random_effects_matrix, relative_factor

MAX_EFFECTS = 4000  # of which L, which is dense while it is computed, is shown
NAMES = ("Z'", "Lambda", "A = Lambda'Z'", "A W A' + I", "L")


def patterns(design: Design, Lambdas: Sequence[Array], weights: Array) -> pd.DataFrame:
    """Return the entries of the matrices of a model that are not zero.

    Parameters
    ----------
    design : Design
    Lambdas : sequence of ndarray, shape (k, k)
        The relative factor of each term.
    weights : ndarray, shape (n,)
        The diagonal of W.

    Returns
    -------
    DataFrame
        Columns `matrix, row, column, value`; `.attrs["shapes"]` has the shape of each matrix and
        `.attrs["permutation"]` the order of the random effects in L: random effect
        `permutation[i]` of the others is in its row i. L is missing of more than 4,000 of them.

    Raises
    ------
    FitError
        If the model has no random effects.
    """
    if not design.terms:
        raise FitError("the model has no random effects, and so none of these matrices.")
    Z, Lambda = random_effects_matrix(design), relative_factor(design, Lambdas)
    A = Lambda.T @ Z.T
    system = sparse.csc_array(A @ sparse.diags_array(weights) @ A.T)
    system = system + sparse.eye_array(system.shape[0], format="csc")
    matrices = dict(zip(NAMES, (Z.T, Lambda, A, system), strict=False))
    permutation = np.arange(system.shape[0])
    if len(permutation) <= MAX_EFFECTS:
        permutation, matrices["L"] = fill_reduced(system)
    tables = [_entries(name, matrix) for name, matrix in matrices.items()]
    table = pd.concat(tables, ignore_index=True)
    table.attrs["shapes"] = {name: matrix.shape for name, matrix in matrices.items()}
    table.attrs["permutation"] = permutation
    return table


def fill_reduced(system: sparse.csc_array) -> tuple[Places, Array]:
    """Return a permutation, and the Cholesky factor of the matrix in that order.

    Of the given order, that of minimum degree and that of reverse Cuthill and McKee the one with
    the fewest entries, the given one if it is among these.
    """
    orders = [np.arange(system.shape[0]), _minimum_degree(system)]
    orders.append(
        np.asarray(csgraph.reverse_cuthill_mckee(sparse.csr_matrix(system), symmetric_mode=True))
    )
    dense, best = system.toarray(), None
    for order in orders:
        factor = np.linalg.cholesky(dense[np.ix_(order, order)])
        factor[np.abs(factor) <= np.finfo(np.float64).eps * np.abs(factor).max()] = 0.0
        count = np.count_nonzero(factor)
        if best is None or count < best[0]:
            best = count, order, factor
    assert best is not None
    return best[1], best[2]


def _minimum_degree(system: sparse.csc_array) -> Places:
    factorized = sparse_linalg.splu(
        sparse.csc_matrix(system),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    return np.argsort(factorized.perm_c)


def _entries(name: str, matrix: Any) -> pd.DataFrame:
    entries = sparse.coo_array(matrix)
    kept = entries.data != 0
    row, column = (places[kept] for places in entries.coords)
    return pd.DataFrame({"matrix": name, "row": row, "column": column, "value": entries.data[kept]})
