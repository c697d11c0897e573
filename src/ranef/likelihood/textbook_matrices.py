"""The textbook's matrices Z, Lambda, L and V of a fit, to look at and to teach with.

The engine never forms them. Rows and columns are in the order of the terms, level by level,
coefficient by coefficient; no permutation is applied, so L is as dense as it happens to be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ranef._typing import Array, Places
from ranef.design.design import Design
from ranef.design.groups import transposed
from ranef.numerics.memory import check_memory

V_COPIES = 5.0  # of the numbers of V, with their places


def random_effects_matrix(design: Design) -> sparse.csc_array:
    """Return Z, shape (n, q), sparse."""
    blocks = [transposed(term.codes, term.columns, term.n_levels).T for term in design.rows.terms]
    if not blocks:
        return sparse.csc_array((design.n_obs, 0))
    return sparse.csc_array(sparse.hstack(blocks))


def relative_factor(design: Design, Lambdas: Sequence[Array]) -> sparse.csc_array:
    """Return Lambda, shape (q, q), block diagonal and sparse."""
    blocks = [
        sparse.kron(sparse.eye_array(term.n_levels), Lambda)
        for term, Lambda in zip(design.terms, Lambdas, strict=True)
    ]
    return sparse.csc_array(sparse.block_diag(blocks)) if blocks else sparse.csc_array((0, 0))


def cholesky_factor(
    design: Design, Lambdas: Sequence[Array], weights: Array, *, fixed: bool = False
) -> Array:
    """Return L with L L' = Lambda' Z' W Z Lambda + I, shape (q, q), dense lower triangular.

    Bates et al. (2015), eq. 18, without the permutation.

    Parameters
    ----------
    design : Design
    Lambdas : sequence of ndarray, shape (k, k)
    weights : ndarray, shape (n,)
        The diagonal of W: prior weights, or those of a generalised model at its modes.
    fixed : bool
        Whether the rows R_ZX' and R_X' of the fixed effects follow (eqs. 49 and 50): shape
        (q + p, q + p).
    """
    ZL = random_effects_matrix(design) @ relative_factor(design, Lambdas)
    T = sparse.hstack([ZL, sparse.csc_array(design.rows.X)]) if fixed else ZL
    weighted = sparse.diags_array(weights) @ T  # no root of them: an observed one can be negative
    penalty = np.arange(T.shape[1]) < ZL.shape[1]
    return np.linalg.cholesky((T.T @ weighted).toarray() + np.diag(penalty))


def marginal_covariance(
    design: Design, Lambdas: Sequence[Array], sigma: float, places: Places | None = None
) -> sparse.csc_array:
    """Return V = sigma^2 (Z Lambda Lambda' Z' + W^-1), shape (n, n), sparse.

    Parameters
    ----------
    design : Design
    Lambdas : sequence of ndarray, shape (k, k)
    sigma : float
    places : ndarray of int, optional
        The rows that are wanted; all by default.
    """
    chosen = np.arange(design.n_obs) if places is None else places
    counts = [np.bincount(term.codes[chosen]).astype(np.float64) for term in design.rows.terms]
    check_memory(
        V_COPIES * sum(float(of_term @ of_term) for of_term in counts),
        f"the covariance of {len(chosen):,} rows",
        "Ask for some of the rows, V(rows).",
    )
    Z = sparse.csr_array(random_effects_matrix(design))[chosen]
    ZL = Z @ relative_factor(design, Lambdas)
    noise = sparse.diags_array(1 / design.rows.weights[chosen])
    return sparse.csc_array(sigma**2 * (ZL @ ZL.T + noise))
