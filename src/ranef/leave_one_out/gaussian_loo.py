"""Leave-one-out of linear models: by row, or by level of a grouping factor.

All random effects, and the fixed ones, are integrated out in closed form, so that only the few
variance parameters phi are left. From draws of them the posterior without a unit is had by
importance weights. A unit whose weights cannot be trusted is computed anew: by quadrature, or,
with many variance parameters, by bridge sampling between the posteriors with and without it.

Source: Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27, 1413-1432; Merkle, Furr &
Rabe-Hesketh (2019), *Psychometrika* 84, 802-829 (units to leave out); Meng & Wong (1996),
*Statistica Sinica* 6, 831-860 (bridge sampling).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef._typing import Array, Places
from ranef.arguments import Sampling
from ranef.design.design import Design, full_rank, without_rows
from ranef.errors import FitError
from ranef.leave_one_out.elpd import Scores, Units, efficiency, smoothed_scores
from ranef.leave_one_out.gaussian_densities import HeldOut, held_out
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.numerics.bridge_sampling import bridge
from ranef.numerics.importance_sampling import good_khat
from ranef.posterior import laplace
from ranef.posterior.linear_posterior import LinearPosterior, target_of
from ranef.posterior.quadrature import lattice as lattices
from ranef.posterior.quadrature.lattice import Lattice, lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.quadrature.whitening import frame
from ranef.posterior.sampling import nuts
from ranef.priors.assignment import Priors
from ranef.priors.propriety import check_proper, is_proper_prior

WORK = 10**12  # operations, beyond which not all draws are used
FEWEST = 500  # draws that are used in any case
DRAWS = 2_000  # from the posterior without a unit


def linear_scores(
    target: LinearPosterior,
    design: Design,
    units: Units,
    *,
    values: Array,
    priors: Priors,
    rng: np.random.Generator,
    chains: int | None = None,
) -> Scores:
    """Return leave-one-out scores from draws of the variance parameters.

    Parameters
    ----------
    target : LinearPosterior
        The posterior density of the model.
    design : Design
        All of its data.
    units : Units
    values : ndarray, shape (S, n_values)
        Draws as `Space.values` returns them.
    priors : Priors
        Of the model with all data.
    rng : Generator
        For what has to be computed anew.
    chains : int, optional
        Of Markov chain draws, which lie one chain after the other; others are independent.

    Raises
    ------
    FitError
        If a unit has all rows, or leaves priors that are too flat for what remains.
    DataError
        If a fixed effect with a flat prior is not determined without some unit.
    """
    held = held_out(target, design, units)
    check_left_proper(design, units, priors)
    values = _affordable(held, values)
    log_p = held.log_p(values)
    elpd, lpd, khat, mcse = smoothed_scores(log_p, efficiency(log_p, chains))
    limit = good_khat(len(values))
    bad = np.flatnonzero(khat > limit)
    method = f"Pareto-smoothed importance sampling over {len(values):,} draws"
    if len(bad):
        anew, how = _repaired(held, bad, design, priors, log_p=log_p, rng=rng)
        elpd[bad], mcse[bad], lpd[bad] = anew
        khat[bad] = np.nan
        method += f"; {len(bad)} of {units.size}, whose k-hat was above {limit:.2f}, by {how}"
    repaired = np.zeros(units.size, dtype=bool)
    repaired[bad] = True
    return Scores.of(units, (elpd, lpd, khat, mcse), repaired, len(values), method)


def _affordable(held: HeldOut, values: Array) -> Array:
    """Return every second, third, ... draw where many random effects depend on each other."""
    m, K, _ = held.D.shape
    most = max(FEWEST, WORK // (m * K**3 + 1))
    return values[:: -(-len(values) // most)]


def exact_scores(exact: Exact, design: Design, units: Units, *, priors: Priors) -> Scores:
    """Return leave-one-out scores from a quadrature, without any draws.

    Parameters
    ----------
    exact : Exact
        The posterior of the model.
    design : Design
        All of its data.
    units : Units
    priors : Priors
        Of the model with all data.

    Raises
    ------
    FitError, DataError
        As `linear_scores`.
    """
    held = held_out(exact.target, design, units)
    check_left_proper(design, units, priors)
    elpd, lpd, error, anew = integrated(held, np.arange(units.size), exact, design, priors)
    method = "quadrature"
    if anew.any():
        method += f", {anew.sum()} of {units.size} on nodes of their own"
    found = (elpd, lpd, np.full(units.size, np.nan), error)
    return Scores.of(units, found, anew, exact.lattice.log_density.size, method)


def check_left_proper(design: Design, units: Units, priors: Priors) -> None:
    """Refuse flat priors with which the posterior without some unit is improper.

    Raises
    ------
    FitError
        Which names the unit.
    """
    if is_proper_prior(priors):
        return
    for place in range(units.size):
        try:
            check_proper(without_rows(design, units.rows(place)), priors)
        except FitError as error:
            raise FitError(f"without {units.name(place)} of the data: {error}") from error


# ---------------------------------------------------------------------------------- the repairs


def _repaired(
    held: HeldOut,
    bad: Places,
    design: Design,
    priors: Priors,
    *,
    log_p: Array,
    rng: np.random.Generator,
) -> tuple[Array, str]:
    """Return elpd of some units, its error and lpd, (3, units), and how they were computed."""
    try:
        lattices.check_feasible(held.target)
    except FitError:
        found = np.empty((3, len(bad)))
        for i, place in enumerate(bad):
            without_it = target_without(design, held.units.rows(int(place)), priors)
            values, effective = _draws(without_it, rng)
            own = held.only(np.array([place])).log_p(values)[:, 0]
            elpd, error = bridged(own, log_p[:, place], effective)
            found[:, i] = elpd, error, _log_mean(log_p[:, place])
        return found, "bridge sampling"
    elpds, lpds, errors, _ = integrated(held, bad, exact_of(held.target), design, priors)
    return np.array([elpds, errors, lpds]), "quadrature"


def _draws(target: LinearPosterior, rng: np.random.Generator) -> tuple[Array, float]:
    """Return draws of the values, shape (S, n_values), and their effective number.

    By importance sampling, or, where that cannot be trusted, by NUTS.
    """
    found = laplace.approximate(target, draws=DRAWS, rng=rng)
    if not found.khat > good_khat(DRAWS):
        return target.space.values(found.x)[0], min(found.ess, DRAWS)
    seed = int(rng.integers(2**31))
    settings = Sampling(draws=DRAWS // 8, tune=500, seed=seed, progressbar=False)
    scale = np.linalg.norm(found.mode.root, axis=1)
    x, _ = nuts.sample(target, settings, start=found.mode.x, scale=scale)
    return target.space.values(x.reshape(-1, x.shape[-1]))[0], DRAWS / 4  # they are correlated


def bridged(without_it: Array, with_it: Array, effective: float) -> tuple[float, float]:
    """Return log p(y_A | y_-A) and its error by the optimal bridge between two posteriors.

    Parameters
    ----------
    without_it, with_it : ndarray, shapes (S,) and (S',)
        log p(y_A | y_-A, phi) at draws from the posteriors without and with unit A.
    effective : float
        The effective number of draws without it.

    Raises
    ------
    FitError
        If a density could not be computed.
    """
    if not (np.isfinite(without_it).all() and np.isfinite(with_it).all()):
        raise FitError(
            "the predictive density cannot be computed at some draws, at which the random effects "
            "are far too large: give their standard deviations priors that exclude this."
        )
    log_odds = np.log(len(with_it) / len(without_it))
    log_r, at_with, at_without = bridge(with_it, without_it, log_odds)
    variance = at_without.var() / at_without.mean() ** 2 / effective
    variance += at_with.var() / at_with.mean() ** 2 / len(with_it)
    return log_r, float(np.sqrt(np.log1p(variance)))


def _log_mean(logs: Array) -> float:
    """Return the logarithm of the mean of exponentials."""
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))


LAYERS = (9.0, 13.0, 17.0, 20.0, 1e9)  # how far the density of the nodes taken has fallen; all
DEEPEST = 32.0  # ... along the axis of sigma
TOLERANCE = 5e-5  # relative error of p(y_-A) that is good enough


# -------------------------------------------------------------------- the data without a unit


def target_without(design: Design, rows: Places, priors: Priors) -> LinearPosterior:
    """Return the posterior density without some rows, under the same priors."""
    left = without_rows(design, rows)
    estimable = full_rank(left)
    kept = [left.fixed.index(name) for name in estimable.fixed]
    return target_of(left, cross_products(estimable), kept, priors)


def exact_of(target: LinearPosterior) -> Exact:
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


def _evidence(target: LinearPosterior) -> tuple[float, float]:
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
