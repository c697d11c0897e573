"""Rows left out of independent components of the data, given the parameters of a generalised model.

The log predictive density of a set of rows is the log density of the components around it less the
log density of their other rows. For single rows there are shortcuts, which need the component as a
whole alone: the nodes of a quadrature, or the cavity of the normal approximation.

Source: Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35; Vehtari, Mononen, Tolvanen,
Sivula & Winther (2016), *JMLR* 17(103), 1-38.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import sparse

from ranef._typing import Array, Places
from ranef.likelihood.generalized.gauss_hermite import Rule
from ranef.likelihood.generalized.many_modes import ROUGHLY, Elementwise, ManyModes, Parts, modes_of
from ranef.likelihood.generalized.pieces import HELD, Piece, Points, components_of_rows
from ranef.likelihood.generalized.pirls import Problem

MAX_EXPONENT = 600.0


def signed_pieces(
    problem: Problem, sets: Sequence[Places]
) -> tuple[list[Places], list[Places], sparse.csr_array]:
    """Return the pieces in which sets of rows lie, and the pieces of their other rows.

    Returns
    -------
    pieces : list of ndarray of int
    around : list of ndarray of int
        The piece of all data that each is, or is part of.
    signs : sparse array, shape (U, pieces)
        1 for a piece around a set, -1 for a piece of its other rows.
    """
    all_pieces = components_of_rows(problem, np.arange(len(problem.y)))
    number = np.empty(len(problem.y), dtype=np.intp)
    for place, piece in enumerate(all_pieces):
        number[piece] = place
    places: dict[bytes, int] = {}
    pieces: list[Places] = []
    entries: list[tuple[int, int, int]] = []
    for unit, rows in enumerate(sets):
        around = [all_pieces[place] for place in np.unique(number[rows])]
        others = np.setdiff1d(np.concatenate([rows[:0], *around]), rows)
        for sign, signed in ((1, around), (-1, components_of_rows(problem, others))):
            for piece in signed:
                place = places.setdefault(piece.tobytes(), len(places))
                if place == len(pieces):
                    pieces.append(piece)
                entries.append((unit, place, sign))
    units, columns, signs = np.array(entries, dtype=np.intp).reshape(-1, 3).T
    matrix = sparse.coo_array((signs, (units, columns)), shape=(len(sets), len(pieces)))
    return pieces, [all_pieces[number[piece[0]]] for piece in pieces], matrix.tocsr()


def single_rows(
    piece: Piece, points_at: Callable[[slice], Points], count: int, *, start: Array, nodes: Rule
) -> Array:
    """Return log p(y_i | the other rows of its component, phi), shape (S, N), from the nodes.

    Parameters
    ----------
    piece : Piece
        Of small components.
    points_at : callable
        From a slice to these points.
    count : int
        The number of all points.
    start : ndarray, shape (1, P, q)
        Where every search starts.
    nodes : Rule
    """
    log_p = np.empty((count, len(piece.rows)))
    for chosen, search, modes in modes_of(piece, points_at, count, start):
        assert isinstance(search, Elementwise)
        at_mode = modes.expansion.value
        total, without = np.zeros_like(modes.h), np.zeros_like(at_mode)
        for share, rows in search.at_nodes(modes, nodes):
            total += share
            exponent = np.log(share)[:, piece.codes] - (rows - at_mode)
            without += np.exp(np.minimum(exponent, MAX_EXPONENT))
        log_p[chosen] = at_mode + np.log(total)[:, piece.codes] - np.log(without)
    return log_p


def cavities(piece: Piece, points: Points, start: Array, nodes: Rule) -> tuple[Array, Array]:
    """Return log p(y_i | the other rows, phi) of every row, and how far it pulls its eta.

    With v the variance of eta_i in the normal approximation, s the score and W the weight at
    the mode, the distribution of eta_i without row i, the cavity, has variance v / (1 - v W), and
    its mean is s times this variance away from the mode. The product of the cavity and f(y_i | eta)
    has the mode of eta_i and the variance v: there are the nodes.

    Parameters
    ----------
    piece : Piece
        Of one component.
    points : Points
    start : ndarray, shape (1, 1, q)
        Where every search starts.
    nodes : Rule

    Returns
    -------
    log_p, pull : ndarray, shape (S, N)
    """
    search = Parts(piece, points, np.ones((1, len(piece.rows)), dtype=np.bool_))
    modes = search.run(start, near=ROUGHLY)
    at_mode = modes.expansion.value[:, 0]
    eta, score, weight = modes.eta[:, 0], modes.expansion.score[:, 0], modes.expansion.weight[:, 0]
    half = _half_covariances(search, modes)
    v = (half**2).sum(axis=1)
    share, root, total = 1 - v * weight, np.sqrt(v), np.zeros_like(v)
    for z, log_weight in zip(nodes.nodes[:, 0], nodes.log_weights, strict=True):
        change = search.log_densities_at((eta + root * z)[:, None])[:, 0] - at_mode
        total += np.exp(change + z * z * v * weight / 2 - root * z * score + log_weight)
    log_p = at_mode + np.log(total) + np.log(share) / 2 - v * score**2 / (2 * share)
    log_p -= _skewness(half, score / share, weight / share, search.bends(modes.eta)[:, 0])
    return np.where(np.isfinite(log_p), log_p, -np.inf), np.abs(v * score / share)


def _half_covariances(search: Parts, modes: ManyModes) -> Array:
    """Return a matrix, shape (S, q, N): its square is the covariance of all eta at the mode."""
    right = search.scaled_columns()[:, None].swapaxes(2, 3)
    return modes.roots.forward(right)[:, 0]


def _skewness(half: Array, pull: Array, weight: Array, bends: Array) -> Array:
    """Return the share of the other rows' third derivatives in log p(y_-i | phi), shape (S, N).

    Where row i is left out the modes move, and other rows' weights with them: to first order in
    the third derivatives l_j, this adds the sum over j of l_j (d_j^3 / 6 + v_j d_j / 2), with d_j
    how far eta_j moves and v_j its variance without row i.

    Parameters
    ----------
    half : ndarray, shape (S, q, N)
    pull, weight : ndarray, shape (S, N)
        Of each row, over the share 1 - v W.
    bends : ndarray, shape (S, N)
        The third derivatives of log f.
    """
    count, _, n = half.shape
    v, skewness = (half**2).sum(axis=1)[:, :, None], np.empty((count, n))
    step = max(1, HELD // (count * n))
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        C = half.swapaxes(1, 2) @ half[:, :, rows]
        moved = -C * pull[:, None, rows]
        terms = bends[:, :, None] * moved * (moved**2 / 6 + (v + C**2 * weight[:, None, rows]) / 2)
        terms[:, rows, np.arange(len(rows))] = 0.0
        skewness[:, rows] = terms.sum(axis=1)
    return skewness
