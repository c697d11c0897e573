"""Which random effects depend on each other through the data: the components of a design.

Two levels belong together if some row has both. So every level of a single grouping factor is a
component, nested factors have those of the outermost, and crossed ones, as a rule, have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ranef._typing import Codes, Places
from ranef.design.design import Design


@dataclass(frozen=True, eq=False)
class Components:
    """The components of a design, with places for the random effects of any of them.

    Attributes
    ----------
    row : ndarray of int, shape (n,)
        The component of each row.
    slots : tuple of (slice, ...)
        For each term the places of the effects of a level, one slice for each level that a
        component can have.
    columns : ndarray of int, shape (n, sum of k)
        The places of the effects that a row has, term by term.
    """

    row: Places
    slots: tuple[tuple[slice, ...], ...]
    columns: Places

    @property
    def count(self) -> int:
        """The number of components."""
        return int(self.row.max()) + 1

    @property
    def size(self) -> int:
        """The number of random effects that a component can have, K."""
        return self.slots[-1][-1].stop if self.slots else 0


def components_of(design: Design) -> Components:
    """Return the components of a design; without random terms all rows are one."""
    n, terms = design.n_obs, design.terms
    if not terms:
        return Components(np.zeros(n, dtype=np.intp), (), np.empty((n, 0), dtype=np.intp))
    row = row_components([term.codes for term in terms])
    slots, columns, start = [], [], 0
    for term in terms:
        rank, k = _rank_within(term.codes, row), term.n_coefs
        slots.append(tuple(slice(start + i * k, start + i * k + k) for i in range(rank.max() + 1)))
        columns.append(start + rank[:, None] * k + np.arange(k))
        start = slots[-1][-1].stop
    return Components(row, tuple(slots), np.column_stack(columns))


def row_components(codes: Sequence[Codes]) -> Places:
    """Return the component of each row, shape (n,), numbered from 0.

    Parameters
    ----------
    codes : sequence of ndarray of int, shape (n,)
        The levels of one grouping factor or more.
    """
    starts = np.cumsum([0, *(int(own.max(initial=-1)) + 1 for own in codes)])
    first = np.tile(codes[0], len(codes))
    second = np.concatenate([own + start for own, start in zip(codes, starts[:-1], strict=True)])
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(starts[-1],) * 2)
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    return np.unique(labels[codes[0]], return_inverse=True)[1]


def _rank_within(codes: Codes, component: Places) -> Places:
    """Return for each row the place of its level among those of its component."""
    levels, first, row = np.unique(codes, return_index=True, return_inverse=True)
    owner = component[first]
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owner[order])
    rank = np.empty(len(levels), dtype=np.intp)
    rank[order] = np.arange(len(levels)) - starts
    return rank[row]
