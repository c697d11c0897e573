"""The textbook's matrices Z, Lambda and L of a fit, to look at and to teach with.

The engine never forms them. Rows and columns are in the order of the terms, level by level,
coefficient by coefficient; no permutation is applied, so L is as dense as it happens to be.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.groups import transposed


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


def cholesky_factor(design: Design, Lambdas: Sequence[Array], weights: Array) -> Array:
    """Return L with L L' = Lambda' Z' W Z Lambda + I, shape (q, q), dense lower triangular.

    Bates et al. (2015), eq. 18, without the permutation.

    Parameters
    ----------
    design : Design
    Lambdas : sequence of ndarray, shape (k, k)
    weights : ndarray, shape (n,)
        The diagonal of W: prior weights, or those of a generalised model at its modes.
    """
    ZL = random_effects_matrix(design) @ relative_factor(design, Lambdas)
    weighted = sparse.diags_array(weights) @ ZL  # no root of them: an observed one can be negative
    system = (ZL.T @ weighted).toarray() + np.eye(ZL.shape[1])
    return np.linalg.cholesky(system)
