"""What the rows of each group say of its own coefficients, and what they leave to the others.

For one term in a basis of orthogonal columns, with Z_j the columns of group j: G = Z_j'Z_j, the
least-squares coefficients of the fixed columns and of the response on Z_j, and the cross-products
of what they leave. They are sufficient for a Gaussian model with that term.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from ranef._typing import Array, Codes
from ranef.covariances.covariance import Unstructured
from ranef.design.design import Design
from ranef.likelihood.linear.crossproducts import basis

RANK = 1e-9  # of a singular value, relative to the largest


@dataclass(frozen=True, eq=False)
class OwnRows:
    """The rows of each group by themselves; weighted, and less the offset.

    Attributes
    ----------
    basis : ndarray, shape (k, k)
        T: columns = (columns in the basis) @ T.
    n, rank : ndarray of int, shape (m,)
        Rows, and how many coefficients they determine.
    products : ndarray, shape (m, k, k)
        G.
    fixed : ndarray, shape (m, k, p)
        Least-squares coefficients of the fixed columns, those of least length.
    own : ndarray, shape (m, k)
        ... and of the response.
    within : ndarray, shape (p + 1, p + 1)
        Cross-products of what these leave of [X y], summed over groups.
    order : ndarray of int, shape (n,)
        The rows by group.
    """

    basis: Array
    n: Codes
    rank: Codes
    products: Array
    fixed: Array
    own: Array
    within: Array
    order: Codes


def own_rows(design: Design) -> OwnRows:
    """Return what the rows of each group of the only term say by themselves."""
    rows, (term,), (grouped,) = design.rows, design.terms, design.rows.terms
    root = np.sqrt(rows.weights)[:, None]
    T = basis(grouped.columns * root, replace(term, covariance=Unstructured(term.n_coefs)))
    Z = linalg.solve_triangular(T, (grouped.columns * root).T, trans="T").T
    both = np.column_stack([rows.X, rows.y - rows.offset]) * root
    order = np.argsort(grouped.codes, kind="stable")
    n = np.bincount(grouped.codes, minlength=grouped.n_levels)
    ranks, products, coefs = [], [], []
    within = np.zeros((both.shape[1], both.shape[1]))
    for these in np.split(order, np.cumsum(n)[:-1]):
        z, f = Z[these], both[these]
        on_z, _, rank, _ = np.linalg.lstsq(z, f, rcond=RANK)
        left = f - z @ on_z
        within += left.T @ left
        ranks.append(int(rank))
        products.append(z.T @ z)
        coefs.append(on_z)
    found = np.array(coefs)
    own = (np.array(products), found[:, :, :-1], found[:, :, -1])
    return OwnRows(T, n, np.array(ranks), *own, within, order)
