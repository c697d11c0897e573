"""Laplace's approximation at many points, with derivatives, as `gauss_hermite` has it at one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ranef._typing import Array
from ranef.likelihood.generalized.many_modes import Elementwise, ManyModes, Parts


@dataclass(frozen=True, eq=False)
class ManyLikelihoods:
    """Log-likelihoods of a piece at S points, and their derivatives.

    Attributes
    ----------
    value : ndarray, shape (S,)
        Minus infinity where there is none.
    rows : ndarray, shape (S, N)
        The derivatives with respect to the known part of eta.
    Lambdas : sequence of ndarray, shape (S, k, k)
        With respect to the factors, in the design's order.
    psi : ndarray, shape (S, r)
        With respect to the links of the family's own parameters.
    """

    value: Array
    rows: Array
    Lambdas: Sequence[Array]
    psi: Array


def laplace(search: Elementwise | Parts, modes: ManyModes) -> ManyLikelihoods:
    """Return Laplace's approximation and its derivatives, given the conditional modes.

    Parameters
    ----------
    search : Elementwise or Parts
        The one that found the modes; of all rows of its piece.
    modes : ManyModes
    """
    piece, expansion = search.piece, modes.expansion
    further = search.further(modes.eta)
    d, by_factors = search.through_roots(modes)
    pull = -0.5 * d * further.third
    turned = search.turned(search.sums(pull))[..., None]
    lambdas = modes.roots.back(modes.roots.forward(turned))[..., 0]
    fitted = search.fitted(lambdas)
    rows = expansion.score + pull - expansion.weight * fitted
    direct = piece.outer(search.sums(rows), modes.u)
    by_score = piece.outer(search.sums(expansion.score), lambdas)
    slopes = [a + b - c for a, b, c in zip(direct, by_score, by_factors, strict=True)]
    psi = further.value - 0.5 * further.weight * d + further.score * fitted
    return ManyLikelihoods(
        value=modes.laplace.sum(axis=1),
        rows=rows.reshape(len(rows), -1),
        Lambdas=[slopes[piece.terms.index(term)] for term in range(len(slopes))],
        psi=psi.sum(axis=tuple(range(2, psi.ndim))).T,
    )
