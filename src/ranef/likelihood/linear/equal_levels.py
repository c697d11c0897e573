"""Levels of one kind brought together: the same density of the data from fewer levels.

Levels are of one *kind* if they have the same cross-products with all random effects: their own
D, their B with the factors in which they are nested, their rows of crossed factors, and levels of
the same kinds nested in them. An orthogonal transformation of n such levels leaves the model as it
is. Its first row, 1/sqrt(n), makes a level of their mean, with sqrt(n) B. In the others, the
contrasts between the levels, nothing is left of the factors around them (B = 0), so that contrasts
of one kind are rotated once more, wherever they come from, until few have cross-products with X
and y that are not zero. The rest count in log|Lambda'Z'WZ Lambda + I| only: `counts` says for how
many levels one stands there. With nested factors whole trees are transformed, each level together
with those at its place in other trees. In balanced data these are the strata of an analysis of
variance.

Source: Searle, Casella & McCulloch (1992), *Variance Components*, section 4.5 (balanced data).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from ranef._typing import Array, Codes, Flags
from ranef.design.groups import joint, ranks_within
from ranef.likelihood.linear.crossed_rows import CrossedRows
from ranef.likelihood.linear.crossproducts import ChainFactor, CrossProducts
from ranef.numerics.matrices import summed_by

ROUNDING = 1e-12  # of the cross-products of equal levels, relative to their size
NEGLIGIBLE = 1e-14  # differences of products with a fixed column, relative to its size
MIN_WORK = 10_000  # levels times evaluations, from where on they take longer than the way there
MAX_SHARE = 0.8  # of the levels that are left, up to which it is worth while


@dataclass(frozen=True, eq=False)
class _Levels:
    """Levels of one factor of the chain, in trees whose roots are the levels of a later one.

    Attributes
    ----------
    front, rest, counts, parent
        As `ChainFactor` has them; all parents of the last factor are zero.
    tree : ndarray of int, shape (m,)
    place : ndarray of int, shape (m,)
        In the tree; the same for levels that correspond to each other in trees of one kind.
    """

    front: Array
    rest: Array
    counts: Array
    parent: Codes
    tree: Codes
    place: Codes

    @staticmethod
    def of(link: ChainFactor) -> _Levels:
        """Return all levels of a factor, each the root of a tree."""
        m = len(link.front)
        zeros = np.zeros(m, dtype=np.int64)
        parent = zeros if link.parent is None else link.parent
        return _Levels(link.front, link.rest.dense(), np.ones(m), parent, np.arange(m), zeros)

    @property
    def k(self) -> int:
        """The number of coefficients."""
        return int(self.rest.shape[1])

    def in_trees(self, trees: Codes, width: int) -> Codes:
        """Return the levels of some trees, each of which has `width`, shape (trees, width)."""
        order = np.lexsort((self.place, self.tree))
        first = np.searchsorted(self.tree[order], trees)
        return np.asarray(order[first[:, None] + np.arange(width)])


def condensed(
    cross: CrossProducts, *, evaluations: float = np.inf, depth: float = np.inf
) -> CrossProducts:
    """Return cross-products with fewer levels and the same density of the data at every theta.

    They are those of the model itself where too few levels are of one kind. Only the levels of
    the chain differ, and their random effects are not those of the model.

    Parameters
    ----------
    cross : CrossProducts
    evaluations : float
        How often the density is going to be needed: few are not worth the way there.
    depth : float
        The number of factors of the chain, from the first, whose levels are brought together.

    Examples
    --------
    All 18 subjects have the same days, so that only y differs between them:

    >>> import ranef as rf
    >>> from ranef.likelihood.linear.crossproducts import cross_products
    >>> model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> condensed(cross_products(model.design)).n_levels
    (3,)
    """
    levels = sum(len(link.front) for link in cross.chain)
    if levels * evaluations < MIN_WORK or not all(link.rest.is_dense for link in cross.chain):
        return cross
    tables: list[_Levels] = []
    blocks: list[list[_Levels]] = []
    children = sparse.csr_array((0, 0))
    for i, link in enumerate(cross.chain):
        tables.append(_Levels.of(link))
        every = np.arange(len(link.front))
        kind = _kinds(cross, tables[-1], children) if i < depth else every
        if not blocks and kind.max() + 1 == len(kind):
            return cross
        kinds = _Kinds.of(cross, tables, kind)
        blocks += [_contrasts(kinds, tables, batch) for batch in kinds.batches()]
        tables, children = _means(kinds, tables)
    chain = tuple(_joined(cross, tables, blocks))
    n_levels = list(cross.n_levels)
    for link in chain:
        n_levels[link.term] = len(link.front)
    if sum(n_levels) > MAX_SHARE * sum(cross.n_levels):
        return cross
    return replace(cross, chain=chain, n_levels=tuple(n_levels))


# ------------------------------------------------------------------------------ what is equal


def _kinds(cross: CrossProducts, levels: _Levels, children: sparse.csr_array) -> Codes:
    """Return a number for each level, the same for those of one kind.

    Parameters
    ----------
    cross : CrossProducts
    levels : _Levels
    children : sparse array, shape (m, kinds)
        How many levels of each kind are nested in each level.
    """
    m = len(levels.front)
    front, crossed = levels.front[:, : levels.k], levels.rest[:, :, : cross.q_rest]
    return alike(np.column_stack([front.reshape(m, -1), crossed.reshape(m, -1)]), children)


def alike(products: Array, children: sparse.csr_array | None = None) -> Codes:
    """Return a number for each row of a matrix, the same where they differ by rounding only.

    Parameters
    ----------
    products : ndarray, shape (m, c)
    children : sparse array, shape (m, kinds), optional
        Whole numbers that have to be the same, too.

    Examples
    --------
    >>> alike(np.array([[0.1 + 0.2, 1.0], [0.3, 2.0], [0.3, 1.0]]))
    array([0, 1, 0])
    """
    size, rng = np.linalg.norm(products, axis=1), np.random.default_rng(0)
    code = _near(size, size)
    if code.max(initial=-1) + 1 == len(code):
        return code
    code = joint([code, _near(products @ rng.standard_normal(products.shape[1]), size)])
    if children is not None and children.nnz:
        total = children.sum(axis=1)
        code = joint([code, _near(children @ rng.random(children.shape[1]), total)])
    first = np.unique(code, return_index=True)[1][code]  # that two sums agree may be chance
    alone = (np.abs(products - products[first]) > ROUNDING * size[:, None]).any(axis=1)
    if children is not None and children.nnz:
        alone |= abs(children - children[first]).sum(axis=1) > 0
    return joint([code, np.where(alone, np.arange(1, len(code) + 1), 0)])


def _near(x: Array, size: Array) -> Codes:
    """Return a number for each element of x, the same where they differ by rounding."""
    order = np.argsort(x)
    code = np.empty(len(x), dtype=np.int64)
    code[order] = np.cumsum(np.diff(x[order], prepend=x[order[:1]]) > ROUNDING * size[order])
    return code


@dataclass(frozen=True, eq=False)
class _Kinds:
    """The trees of a factor by kind and parent, and the contrasts between trees.

    Attributes
    ----------
    kind : ndarray of int, shape (m,)
    group : ndarray of int, shape (m,)
        Trees of one kind and one parent, if it is worth while to bring these together.
    contrasts : list of ndarray, shape (m_j, k, p + 1)
        For every factor up to this one, the deviations of the products with the fixed columns
        from their mean over corresponding levels of a group.
    varies : list of ndarray of bool, shape (k, p + 1)
        Where these are not all zero.
    widths : ndarray of int, shape (factors, kinds)
        The number of levels of each factor in the trees of a kind.
    dof : ndarray of int, shape (kinds,)
        The number of contrasts; zero where it is not worth while.
    """

    kind: Codes
    group: Codes
    contrasts: list[Array]
    varies: list[Flags]
    widths: Codes
    dof: Codes

    @staticmethod
    def of(cross: CrossProducts, tables: Sequence[_Levels], kind: Codes) -> _Kinds:
        """Group the trees whose roots are the levels of the last factor so far."""
        group, n_trees = joint([tables[-1].parent, kind]), np.bincount(kind)
        first = np.unique(group, return_index=True)[1]
        dof = n_trees - np.bincount(kind[first], minlength=len(n_trees))
        sizes = np.sqrt(np.diag(cross.fixed[cross.q_rest :]))
        contrasts, varies, widths = [], [], []
        for levels in tables:
            key, x = joint([group[levels.tree], levels.place]), levels.rest[:, :, cross.q_rest :]
            x = x - (summed_by(key, x) / np.bincount(key)[:, None, None])[key]
            lengths = np.sqrt(np.diagonal(levels.front, axis1=1, axis2=2)[:, : levels.k])
            contrasts.append(x)
            varies.append((np.abs(x) > NEGLIGIBLE * lengths[:, :, None] * sizes).any(axis=0))
            widths.append(np.bincount(kind[levels.tree]) // n_trees)
        needed = sum(width * flags.sum() for width, flags in zip(widths, varies, strict=True))
        dof = np.where(dof > np.maximum(needed, 1), dof, 0)
        group = joint([group, np.where(dof[kind] > 0, 0, np.arange(len(kind)))])
        return _Kinds(kind, group, contrasts, varies, np.array(widths), dof)

    def batches(self) -> Iterator[Codes]:
        """Yield kinds whose trees have equal widths and that are of about the same number."""
        chosen = np.flatnonzero(self.dof)
        if not len(chosen):
            return
        magnitude = np.log2(np.bincount(self.kind)[chosen]).astype(np.int64)
        batch = joint([*self.widths[:, chosen], magnitude])
        for i in range(batch.max() + 1):
            yield chosen[batch == i]


# ------------------------------------------------------------------------- means and contrasts


def _contrasts(kinds: _Kinds, tables: Sequence[_Levels], batch: Codes) -> list[_Levels]:
    """Rotate the contrasts between trees of some kinds into as few new trees as can be."""
    trees, widths = np.flatnonzero(np.isin(kinds.kind, batch)), kinds.widths[:, batch[0]]
    of_kind = kinds.kind[trees]
    parts = [
        contrasts[levels.in_trees(trees, width)][..., varies].reshape(len(trees), -1)
        for levels, contrasts, varies, width in zip(
            tables, kinds.contrasts, kinds.varies, widths, strict=True
        )
    ]
    number = ranks_within(of_kind)
    stacked = np.zeros((len(batch), number.max() + 1, sum(part.shape[1] for part in parts)))
    stacked[np.searchsorted(batch, of_kind), number] = np.concatenate(parts, axis=1)
    R = _rows_that_count(np.linalg.qr(stacked, mode="r")) if stacked.size else stacked[:, :1]
    counts = np.ones(R.shape[:2])
    counts[:, 0] += kinds.dof[batch] - R.shape[1]
    first = trees[np.unique(of_kind, return_index=True)[1]]
    at = [levels.in_trees(first, width) for levels, width in zip(tables, widths, strict=True)]
    new, stop = [], 0
    for j, (levels, part) in enumerate(zip(tables, parts, strict=True)):
        start, stop = stop, stop + part.shape[1]
        shape = (*R.shape[:2], widths[j])
        rest = np.zeros((*shape, *levels.rest.shape[1:]))
        fixed = rest[..., rest.shape[-1] - kinds.varies[j].shape[1] :]
        fixed[..., kinds.varies[j]] = R[:, :, start:stop].reshape(*shape, -1)
        parent = np.zeros(shape, dtype=np.int64)
        if j + 1 < len(tables):
            place = (levels.parent[at[j]][:, :, None] == at[j + 1][:, None]).argmax(axis=2)
            parent += np.arange(counts.size).reshape(*counts.shape, 1) * widths[j + 1]
            parent += place[:, None]
        front = np.broadcast_to(
            _scaled(tables, j, levels.front[at[j]], 0.0)[:, None], (*shape, *levels.front.shape[1:])
        )
        weights = np.broadcast_to(counts[:, :, None], shape)
        no_tree = np.zeros(parent.size, dtype=np.int64)
        arrays = (_flat(front, 3), _flat(rest, 3), _flat(weights, 3), parent.ravel())
        new.append(_Levels(*arrays, tree=no_tree, place=no_tree))
    return new


def _rows_that_count(R: Array) -> Array:
    """Return triangular factors without the rows that dependent columns leave, but one at least."""
    sizes = np.linalg.norm(R, axis=1, keepdims=True)
    count = (np.abs(R) > ROUNDING * sizes).any(axis=(0, 2))
    count[0] = True
    return np.asarray(R[:, count])


def _flat(x: Array, axes: int) -> Array:
    """Return an array with its first axes joined."""
    return x.reshape(-1, *x.shape[axes:])


def _scaled(tables: Sequence[_Levels], j: int, front: Array, scale: Array | float) -> Array:
    """Return products of which those with factors that the trees do not have are rescaled."""
    k, inside = tables[j].k, sum(levels.k for levels in tables[j:])
    front = front.copy()
    front[..., :k, inside:] *= scale
    front[..., inside:, :k] *= scale
    return front


def _means(kinds: _Kinds, tables: Sequence[_Levels]) -> tuple[list[_Levels], sparse.csr_array]:
    """Return the trees of means, now as parts of their parents' trees, and which these have."""
    group, roots = kinds.group, tables[-1]
    first, sizes = np.unique(group, return_index=True, return_counts=True)[1:]
    kind, parent = joint([kinds.kind[first], sizes]), roots.parent[first]
    siblings = joint([parent, kind])
    place_of_tree = joint([kind, ranks_within(siblings)])
    keys = [joint([group[levels.tree], levels.place]) for levels in tables]
    merged = []
    for j, (levels, key) in enumerate(zip(tables, keys, strict=True)):
        at = np.unique(key, return_index=True)[1]
        tree = group[levels.tree[at]]
        root = np.sqrt(sizes[tree])[:, None, None]
        above = levels.parent[at]
        merged.append(
            _Levels(
                front=_scaled(tables, j, levels.front[at], root),
                rest=summed_by(key, levels.rest) / root,
                counts=levels.counts[at],
                parent=keys[j + 1][above] if j + 1 < len(tables) else above,
                tree=parent[tree],
                place=joint([place_of_tree[tree], levels.place[at]]),
            )
        )
    ones, shape = np.ones(len(parent)), (int(parent.max()) + 1, int(kind.max()) + 1)
    return merged, sparse.csr_array(sparse.coo_array((ones, (parent, kind)), shape=shape))


def _joined(
    cross: CrossProducts, tables: Sequence[_Levels], blocks: Sequence[list[_Levels]]
) -> Iterator[ChainFactor]:
    """Yield the factors of the chain with all new levels, those of contrasts last."""
    for j, link in enumerate(cross.chain):
        parts, above = [tables[j]], len(tables[j + 1].front) if j + 1 < len(tables) else 0
        parents = [tables[j].parent]
        for block in blocks:
            if len(block) > j:
                is_inside = len(block) > j + 1
                parts.append(block[j])
                parents.append(block[j].parent + (above if is_inside else 0))
                above += len(block[j + 1].front) if is_inside else 0
        yield replace(
            link,
            front=np.concatenate([part.front for part in parts]),
            rest=CrossedRows.split(np.concatenate([part.rest for part in parts]), cross.q_rest),
            counts=np.concatenate([part.counts for part in parts]),
            parent=None if link.parent is None else np.concatenate(parents),
        )
