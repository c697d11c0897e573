"""Grouping factors: combined, nested and equal ones, Z of a factor, and components of a design.

The random effects of a component depend on each other through the data, and on no others. Two
levels belong together if some row has both. So every level of a single grouping factor is a
component, the levels of the outermost of nested factors are, and crossed factors mostly have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from scipy import sparse

from ranef._typing import Array, Codes, Places
from ranef.design.data_frame import level_texts
from ranef.errors import DataError, FitError, listed
from ranef.numerics.matrices import ReadOnly, scattered
from ranef.numerics.memory import check_memory

if TYPE_CHECKING:
    from ranef.design.design import Design
    from ranef.design.rows.rows import TermRows


@dataclass(frozen=True, eq=False)
class Factor(ReadOnly):
    """A grouping factor: the level of each row.

    Attributes
    ----------
    name : str
        The name that lme4 gives it: `Subject`, `cask:batch` for `batch/cask`.
    levels : pandas.Index
        Labels of the m levels that occur.
    codes : ndarray of int, shape (n,)
        The level of each row; -1 for a level that was not there when the design was built.
    numbers : ndarray of int, shape (n,)
        The codes, but for levels that were not there: these are numbered too, from m on.
    parts : tuple of Factor
        The factors that are combined; empty for a plain one.
    unseen : tuple
        The labels that were not there when the design was built.
    doubt : str
        What speaks for some of these being known levels in another type, in words.
    """

    name: str
    levels: pd.Index[Any]
    codes: Codes
    numbers: Codes
    parts: tuple[Factor, ...] = ()
    unseen: tuple[object, ...] = ()
    doubt: str = ""

    def meets(self, other: Factor) -> tuple[Codes, Codes]:
        """Return the levels of this factor and of another that meet in a row, row by row."""
        return self.codes, other.codes


class PairedFactor(Factor):
    """A grouping factor of data that are known by pairs of levels alone, and not by rows.

    Parameters
    ----------
    name : str
    levels : pandas.Index
    pairs : mapping of str to (ndarray of int, ndarray of int)
        By the name of another factor the levels of both that meet in some row, each pair once.
    """

    def __init__(
        self, name: str, levels: pd.Index[Any], pairs: Mapping[str, tuple[Codes, Codes]]
    ) -> None:
        for field, value in {"name": name, "levels": levels, "pairs": pairs}.items():
            object.__setattr__(self, field, value)

    pairs: Mapping[str, tuple[Codes, Codes]]

    @property
    def codes(self) -> Codes:
        """There are none.

        Raises
        ------
        FitError
        """
        of = f"levels of `{self.name}`"
        if self.pairs:
            of = f"pairs of levels, of `{self.name}` and {listed(self.pairs)}"
        raise FitError(
            f"this model has the cross-products of its data by {of}; what leaves out, draws or "
            "shows whole groups needs those of all combinations of levels: take "
            "rf.Model(rf.summarize(formula, data, min_rows=0)), which has as many rows as there "
            "are combinations, or collect a part of the groups."
        )

    @property
    def numbers(self) -> Codes:
        """There are none."""
        return self.codes

    def meets(self, other: Factor) -> tuple[Codes, Codes]:
        """Return the levels of this factor and of another that meet in a row, each pair once."""
        return self.pairs[other.name]


def combined(name: str, parts: tuple[Factor, ...], levels: pd.Index[Any] | None) -> Factor:
    """Combine factors: the levels are the combinations that occur, the first factor slowest."""
    codes = joint([p.numbers for p in parts])
    _, first = np.unique(codes, return_index=True)
    texts = [level_texts(p.levels)[p.codes[first]] for p in parts]
    labels = pd.Index([":".join(words) for words in zip(*texts, strict=True)], dtype=object)
    if levels is None:
        if not labels.is_unique:
            repeated = labels[labels.duplicated()][0]
            message = f"two combinations of `{name}` would both be called `{repeated}`: "
            raise DataError(message + "rename the labels.")
        return Factor(name, labels, codes, codes, parts)
    unseen = np.any([p.codes < 0 for p in parts], axis=0)
    old_codes = np.where(unseen, -1, levels.get_indexer(labels)[codes]).astype(np.int64)
    strangers, places = np.unique(codes[old_codes < 0], return_inverse=True)
    numbers = old_codes.copy()
    numbers[old_codes < 0] = len(levels) + places.ravel()
    new = tuple(label for part in parts for label in part.unseen) or tuple(labels[strangers])
    doubt = " ".join(p.doubt for p in parts).strip()
    return Factor(name, levels, old_codes, numbers, parts, new, doubt)


def one_new_level(name: str, levels: pd.Index[Any], n: int) -> Factor:
    """Return the grouping factor of n rows that all are of one level that is not known."""
    codes = np.full(n, -1, dtype=np.int64)
    return Factor(name, levels, codes, np.full(n, len(levels), dtype=np.int64))


def joint(parts: Sequence[Codes]) -> Codes:
    """Return a number for every combination of codes that occurs, the first code slowest.

    Examples
    --------
    >>> joint([np.array([0, 1, 0, 1]), np.array([5, 0, 5, 2])])
    array([0, 1, 0, 2])
    """
    joint = np.zeros_like(parts[0])
    for codes in parts:  # numbered anew each time, so that no product overflows
        joint = joint * (codes.max(initial=0) + 2) + codes + 1
        joint = np.unique(joint, return_inverse=True)[1].astype(np.int64)
    return joint


@dataclass(frozen=True, eq=False)
class Components(ReadOnly):
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
    n, terms = len(design.sufficient.y), design.sufficient.terms
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
    starts = np.cumsum([0, *(int(levels.max(initial=-1)) + 1 for levels in codes)])
    first = np.tile(codes[0], len(codes))
    second = np.concatenate([c + start for c, start in zip(codes, starts[:-1], strict=True)])
    graph = sparse.coo_array((np.ones(len(first)), (first, second)), shape=(starts[-1],) * 2)
    _, labels = sparse.csgraph.connected_components(graph, directed=False)
    return np.unique(labels[codes[0]], return_inverse=True)[1]


def ranks_within(codes: Codes) -> Codes:
    """Return for each element how many before it have the same code.

    Examples
    --------
    >>> ranks_within(np.array([3, 1, 3, 3]))
    array([0, 0, 1, 2])
    """
    order = np.argsort(codes, kind="stable")
    ranks = np.empty(len(codes), dtype=np.int64)
    ranks[order] = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])
    return ranks


def _rank_within(codes: Codes, component: Places) -> Places:
    """Return for each row the number of its level within the component, from 0."""
    _, first, row = np.unique(codes, return_index=True, return_inverse=True)
    return ranks_within(component[first])[row]


# ------------------------------------------------------------------------------ grouping factors


class Grouped(Protocol):
    """Columns of coefficients that vary between the levels of a factor, as a random term has."""

    @property
    def codes(self) -> Codes:
        """The level of each row, shape (n,)."""

    @property
    def columns(self) -> Array:
        """The coefficient columns, shape (n, k)."""

    @property
    def n_levels(self) -> int:
        """The number of levels, m."""


def row_by_row(one: Grouped, other: Grouped) -> tuple[Codes, Codes]:
    """Return the levels of two terms that meet in a row."""
    return one.codes, other.codes


def chain_of[T: Grouped](
    terms: Sequence[T], meets: Callable[[T, T], tuple[Codes, Codes]] = row_by_row
) -> tuple[list[int], list[int]]:
    """Return the numbers of the terms that form a chain of nested factors, and of the others.

    The chain starts with the first term and goes on with each later one in which the last of
    the chain is nested.

    Parameters
    ----------
    terms : sequence
    meets : callable
        Returns the levels of two terms that meet in some row.
    """
    chain: list[int] = []
    for i, term in enumerate(terms):
        if not chain or is_nested(*meets(terms[chain[-1]], term)):
            chain.append(i)
    return chain, [i for i in range(len(terms)) if i not in chain]


CROSSED_COPIES = 3  # of the square matrix of crossed effects that a fit has at one time
DENSE_COPIES = 6  # ... where the products of the chain with its columns are dense too


def check_effects(terms: Sequence[TermRows], n_fixed: int, *, dense: bool = False) -> None:
    """Refuse random effects whose cross-products fill more memory than is free.

    All effects but those of the chain are, with the fixed ones, one dense matrix of a fit.

    Parameters
    ----------
    terms : sequence of TermRows
    n_fixed : int
        The number of fixed effects.
    dense : bool
        Whether the products of the chain with that matrix's columns are dense too.

    Raises
    ------
    FitError
    """
    chain, others = chain_of(terms, lambda one, other: one.meets(other))
    for i, place in enumerate(chain):
        k, m = sum(terms[j].n_coefs for j in chain[i:]), terms[place].n_levels
        what = f"the random effects of `{terms[place].factor}`, {m:,} levels x {k:,} coefficients,"
        check_memory(float(m) * k**2, what, "Let fewer coefficients vary between its levels.")
    if not others:
        return
    size = sum(terms[i].n_levels * terms[i].n_coefs for i in others) + n_fixed + 1
    first, second = terms[chain[0]], max((terms[i] for i in others), key=lambda t: t.n_levels)
    copies = DENSE_COPIES if dense else CROSSED_COPIES
    elements = copies * float(size) ** 2
    if dense:
        elements += float(size) * sum(terms[i].n_levels * terms[i].n_coefs for i in chain)
    what = (
        f"`{first.factor}` ({first.n_levels:,} levels) and `{second.factor}` "
        f"({second.n_levels:,} levels) are crossed: a fit has {copies} matrices of "
        f"{size:,} x {size:,} at a time, which"
    )
    remedy = (
        "Fit a sample of the levels, or leave one of the factors out; if one is nested in the "
        "other, give its levels labels of their own, as with `(1 | a/b)`."
    )
    check_memory(elements, what, remedy)


def is_nested(inner: Codes, outer: Codes) -> bool:
    """Whether every level of `inner` occurs within one level of `outer`."""
    outer_level = np.full(inner.max() + 1, -1, dtype=outer.dtype)
    outer_level[inner] = outer
    return bool((outer_level[inner] == outer).all())


def by_factor[T: Grouped](terms: Sequence[T]) -> list[list[T]]:
    """Return lists of terms that group the rows alike, the one with most effects first."""
    groups: list[list[T]] = []
    for term in terms:
        for group in groups:
            if np.array_equal(group[0].codes, term.codes):
                group.append(term)
                break
        else:
            groups.append([term])
    return sorted(groups, key=lambda group: -sum(t.n_levels * t.columns.shape[1] for t in group))


def transposed(codes: Codes, columns: Array, n_levels: int) -> sparse.csr_array:
    """Return Z' of one term, shape (m k, n): level by level, coefficient by coefficient.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
    columns : ndarray, shape (n, k)
    n_levels : int
        The number of levels, m.
    """
    k = columns.shape[1]
    return scattered(codes[:, None] * k + np.arange(k), columns, n_levels * k)
