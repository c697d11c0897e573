"""Leave-one-out of linear models by quadrature, without any draws.

    log p(y_A | y_-A) = log p(y) - log p(y_-A),
    p(y_-A) = integral of p(y, phi) / p(y_A | y_-A, phi) d phi,

on nodes over the posterior of all data, as many and as far out as it takes; where they do not
reach, on nodes of their own for the data without the unit.

Source: Merkle, Furr & Rabe-Hesketh (2019), *Psychometrika* 84, 802-829; Trefethen & Weideman
(2014), *SIAM Review* 56(3) (the trapezoid rule).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef.design.design import Design, full_rank, without_rows
from ranef.leave_one_out.gaussian_densities import HeldOut
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior import laplace
from ranef.posterior.linear_posterior import Target, target_of
from ranef.posterior.quadrature import lattice as lattices
from ranef.posterior.quadrature.lattice import Lattice, lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.quadrature.whitening import frame
from ranef.priors.resolve import Priors

type Array = NDArray[np.float64]
type Places = NDArray[np.intp]

LAYERS = (9.0, 13.0, 17.0, 20.0, 1e9)  # how far the density of the nodes taken has fallen; all
DEEPEST = 32.0  # ... along the axis of sigma
TOLERANCE = 5e-5  # relative error of p(y_-A) that is good enough


# -------------------------------------------------------------------- the data without a unit


def target_without(design: Design, rows: Places, priors: Priors) -> Target:
    """Return the posterior density without some rows, under the same priors."""
    left = without_rows(design, rows)
    estimable = full_rank(left)
    kept = [left.fixed.index(name) for name in estimable.fixed]
    return target_of(left, cross_products(estimable), kept, priors)


def exact_of(target: Target) -> Exact:
    """Return the posterior by quadrature."""
    mode = laplace.find_mode(target)
    own = frame(target, mode)
    return Exact(target, mode, own, lattices.integrate(own))


# ------------------------------------------------------------------------------ by quadrature


def integrated(
    held: HeldOut, places: Places, exact: Exact, design: Design, priors: Priors
) -> tuple[Array, Array, Array, NDArray[np.bool_]]:
    """Leave out some units.

    Parameters
    ----------
    held : HeldOut
        With all units.
    places : ndarray of int, shape (U,)
        Which are left out.
    exact : Exact
        The posterior of all data.
    design : Design
        These data.
    priors : Priors

    Returns
    -------
    elpd, lpd, error : ndarray, shape (U,)
        As in `ranef.leave_one_out.elpd.Scores`.
    anew : ndarray of bool, shape (U,)
        Which needed nodes of their own.
    """
    U = len(places)
    log_left, lpd, error = np.empty(U), np.empty(U), np.full(U, np.inf)
    for nodes in _lattices(exact):
        poor = np.flatnonzero(~(error < TOLERANCE))
        if not len(poor):
            break
        log_left[poor], lpd[poor], error[poor] = _integrals(held.only(places[poor]), nodes)
    anew = ~(error < TOLERANCE)
    for i in np.flatnonzero(anew):
        rows = held.units.rows(int(places[i]))
        log_left[i], error[i] = _evidence(target_without(design, rows, priors))
    return exact.log_evidence - log_left, lpd, error + exact.error, anew


def _lattices(exact: Exact) -> Iterator[Lattice]:
    """Yield lattices over the posterior, from the coarsest to the one that its fit has."""
    steps = exact.coarse.steps
    if (steps > 1.01 * exact.lattice.steps).any():
        yield exact.coarse
    while ((steps := steps * lattices.FINER) > 1.01 * exact.lattice.steps).any():
        yield lattice(exact.frame, steps)
    yield exact.lattice


def _evidence(target: Target) -> tuple[float, float]:
    """Return log p(y) and its error, which need be no smaller than that of other units."""
    own = frame(target, laplace.find_mode(target))
    found = lattice(own, np.full(len(own.order), lattices.STEP))
    for _ in range(lattices.REFINEMENTS):
        if found.error < TOLERANCE or found.log_density.size > lattices.MAX_VALUES:
            break
        found = lattice(own, found.steps * lattices.FINER)
    return found.log_evidence, found.error


def _integrals(held: HeldOut, found: Lattice) -> tuple[Array, Array, Array]:
    """Integrate, layer by layer of nodes, until a unit has no more to expect.

    Returns
    -------
    log_left, lpd, error : ndarray, shape (U,)
        log p(y_-A), the log posterior mean of p(y_A | y_-A, phi), and the relative error of
        p(y_-A), which is large or nan where it cannot be computed on these nodes.
    """
    rows = special.logsumexp(found.log_density, axis=1)
    depth = rows.max() - rows
    kinds = np.searchsorted(LAYERS, _reach(found, depth))
    sums = _Sums.empty(len(held.n_rows), found)
    error, is_open = np.full(len(held.n_rows), np.inf), np.arange(len(held.n_rows))
    for layer, (upper, lower) in enumerate(pairwise((-np.inf, *LAYERS))):
        nodes = np.flatnonzero((depth > upper) & (depth <= lower))
        own = held.only(is_open)
        for part in own.parts(len(nodes), found.log_density.shape[1]):
            sums.add(is_open, *_at_nodes(own, found, nodes[part], kinds))
        error[is_open] = sums.error(is_open, layer)
        is_open = is_open[~(error[is_open] < TOLERANCE)]
        if not len(is_open):
            break
    lpd = sums.within + found.log_volume - found.log_evidence
    return sums.log_total + found.log_volume, lpd, error


def _reach(found: Lattice, depth: Array) -> Array:
    """Return how deep the neighbours of each node are, infinite if one is not in the lattice."""
    base = 4 * int(np.abs(found.z).max(initial=1)) + 1
    powers = base ** np.arange(found.z.shape[1])
    keys = found.z @ powers
    order = np.argsort(keys)
    reach = np.full(len(keys), -np.inf)
    for step in (*powers, *-powers):
        place = order[np.minimum(np.searchsorted(keys, keys + step, sorter=order), len(keys) - 1)]
        reach = np.maximum(reach, np.where(keys[place] == keys + step, depth[place], np.inf))
    return reach


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over nodes of each unit, which are added to.

    Attributes
    ----------
    top : ndarray, shape (U,)
        The log density that sums are relative to.
    parts : ndarray, shape (U, s)
        Of p(y_-A, phi): by how deep the neighbours of a node are (in which of the layers, or
        nowhere), at the ends of sigma's axis, next to them, and with alternating signs along every
        axis.
    within : ndarray, shape (U,)
        The logarithm of that of p(y, phi) p(y_A | y_-A, phi).
    """

    top: Array
    parts: Array
    within: Array

    @staticmethod
    def empty(U: int, found: Lattice) -> _Sums:
        axes = found.z.shape[1] + (found.log_density.shape[1] > 1)
        nothing = np.full(U, -np.inf)
        return _Sums(nothing, np.zeros((U, len(LAYERS) + 3 + axes)), nothing.copy())

    def add(self, units: Places, log_left: Array, log_within: Array, parts: Array) -> None:
        """Add nodes, shapes (units, P) and (P, s)."""
        highest = np.maximum(self.top[units], log_left.max(axis=1))
        scale = np.exp(self.top[units] - highest)[:, None]
        self.top[units] = highest
        self.parts[units] = self.parts[units] * scale + np.exp(log_left - highest[:, None]) @ parts
        top = log_within.max(axis=1)
        more = top + np.log(np.exp(log_within - top[:, None]).sum(axis=1))
        self.within[units] = np.logaddexp(self.within[units], more)

    @property
    def log_total(self) -> Array:
        """The logarithm of the sum of p(y_-A, phi)."""
        return np.asarray(self.top + np.log(self.parts[:, : len(LAYERS) + 1].sum(axis=1)))

    def error(self, units: Places, layer: int) -> Array:
        """Return the relative error of the sum after a layer.

        Beyond nodes that have neighbours outside there is less than at them, and beyond the ends
        of sigma's axis the fall goes on. Sums with alternating signs are differences of two rules
        with steps twice as long: their square bounds the error of all nodes (`Lattice.error`).
        """
        kinds = len(LAYERS) + 1
        total = self.parts[units, :kinds].sum(axis=1)
        share = self.parts[units] / total[:, None]
        outside = share[:, layer + 1 : kinds].sum(axis=1)
        end, inner, *alternating = share[:, kinds:].T
        fall = np.minimum(end / np.maximum(inner, np.finfo(np.float64).tiny), 0.99)
        found = outside + end * fall / (1 - fall) + sum(part**2 for part in alternating)
        return np.asarray(found)


def _at_nodes(
    held: HeldOut, found: Lattice, nodes: Places, kinds: Places
) -> tuple[Array, Array, Array]:
    """Return log p(y_-A, phi), log p(y, phi) p(y_A | y_-A, phi), and the parts to be summed."""
    values, density = found.nodes.values[nodes], found.log_density[nodes]
    shares = held.shares(held.relative(values), values[:, : held.target.space.n_given])
    counts = density > found.log_density.max() - DEEPEST
    index, columns = np.nonzero(counts)
    ratio = held.log_ratio(shares, index, np.exp(found.log_sigma[nodes][index, columns]))
    signs = 1 - 2 * (found.z[nodes][index] % 2)
    ends = np.zeros((len(index), 2), dtype=bool)
    if counts.shape[1] > 1:
        padded = np.pad(counts, ((0, 0), (2, 2)))
        one, two = (padded[index, columns + 2 - s] & padded[index, columns + 2 + s] for s in (1, 2))
        ends = np.column_stack([~one, one & ~two])
        signs = np.column_stack([signs, 1 - 2 * (columns % 2)])
    kind = kinds[nodes][index, None] == np.arange(len(LAYERS) + 1)
    density = density[index, columns]
    return density - ratio, density + ratio, np.column_stack([kind, ends, signs]).astype(float)
