"""Leave-one-out of linear models: by row, or by level of a grouping factor.

All random effects, and the fixed ones, are integrated out in closed form, so that only the few
variance parameters phi are left. Importance weights turn draws of them into draws from the
posterior without a unit. A unit whose weights cannot be trusted is computed anew: by quadrature,
or, with many variance parameters, by bridge sampling between the posteriors with and without it.

Source: Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27, 1413-1432; Merkle, Furr &
Rabe-Hesketh (2019), *Psychometrika* 84, 802-829 (units to leave out); Meng & Wong (1996),
*Statistica Sinica* 6, 831-860 (bridge sampling).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import special

from ranef._typing import Array, Executor, Flags, Places
from ranef.arguments import Sampling
from ranef.design.design import Design, full_rank, leaving_out
from ranef.errors import FitError
from ranef.leave_one_out.elpd import Scores, Units, efficiency, smoothed_scores
from ranef.leave_one_out.gaussian_densities import HeldOut, held_out
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.numerics.bridge_sampling import bridge
from ranef.numerics.importance_sampling import good_khat
from ranef.numerics.matrices import threads_for
from ranef.posterior import laplace
from ranef.posterior.linear_posterior import LinearPosterior, target_of
from ranef.posterior.quadrature import lattice as lattices
from ranef.posterior.quadrature.few_nodes import FewNodes
from ranef.posterior.quadrature.lattice import Lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.sampling import nuts
from ranef.priors.assignment import Priors
from ranef.priors.propriety import check_proper, is_proper_prior
from ranef.progress import mapped, tracked

MAX_OPERATIONS = 10**12  # beyond which not all draws are used
MIN_DRAWS = 500  # that are used in any case
DRAWS_WITHOUT_UNIT = 2_000  # from the posterior without a unit
FIRST_FALL = 17.0  # of the log density, down to which nodes are taken at first
MAX_FALL_OF_SIGMA = 32.0  # of the log density along the axis of sigma
MAX_ELEMENTS_OF_NODE = 6_000  # beyond which few nodes are found and tried first
MAX_ERROR = 5e-5  # relative, of p(y_-A)
MAX_ERROR_OF_ALL = 2e-5  # ... of p(y), of a lattice that may do for p(y_-A)


def linear_scores(
    target: LinearPosterior,
    design: Design,
    units: Units,
    *,
    values: Array,
    priors: Priors,
    rng: np.random.Generator,
    chains: int | None = None,
    executor: Executor | None = None,
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
        For units that have to be computed anew.
    chains : int, optional
        Of Markov chain draws, which lie one chain after the other; others are independent.
    executor : concurrent.futures.Executor, optional
        Where units are computed anew; the result is the same.

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
    repaired = khat > limit
    method = f"Pareto-smoothed importance sampling over {len(values):,} draws"
    if repaired.any():
        bad = np.flatnonzero(repaired)
        if lattices.is_feasible(target):
            elpd[bad], lpd[bad], mcse[bad], _ = integrated(
                held, bad, Exact.of(target), design, priors, executor=executor
            )
            how = "quadrature"
        else:
            bridge_of = partial(_by_bridge, held, design, priors)
            of_units = zip(bad, log_p.T[bad], strict=True)
            repairs = mapped(executor, bridge_of, of_units, rng.spawn(len(bad)))
            elpd[bad], mcse[bad] = np.array([*tracked("Leaving out", repairs, len(bad))]).T
            how = "bridge sampling"
        khat[bad] = np.nan
        method += f"; {len(bad)} of {units.size}, whose k-hat was above {limit:.2f}, by {how}"
    return Scores.of(units, (elpd, lpd, khat, mcse), repaired, len(values), method)


def _affordable(held: HeldOut, values: Array) -> Array:
    """Return every second, third, ... draw where many random effects depend on each other."""
    most = max(MIN_DRAWS, MAX_OPERATIONS // (held.effects.operations + 1))
    return values[:: -(-len(values) // most)]


def exact_scores(
    exact: Exact, design: Design, units: Units, *, priors: Priors, executor: Executor | None = None
) -> Scores:
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
    executor : concurrent.futures.Executor, optional
        As of `linear_scores`.

    Raises
    ------
    FitError, DataError
        As `linear_scores`.
    """
    held = held_out(exact.target, design, units)
    check_left_proper(design, units, priors)
    with threads_for(held.C.shape[1]):
        elpd, lpd, error, anew = integrated(
            held, np.arange(units.size), exact, design, priors, executor=executor
        )
    estimates = (elpd, lpd, np.full(units.size, np.nan), error)
    return Scores.of(units, estimates, anew, exact.lattice.log_density.size, "quadrature")


def check_left_proper(design: Design, units: Units, priors: Priors) -> None:
    """Refuse flat priors with which the posterior without some unit is improper.

    Raises
    ------
    FitError
        Which names the unit.
    """
    if is_proper_prior(priors):
        return
    for unit in range(units.size):
        try:
            check_proper(leaving_out(design, units.rows(unit)), priors)
        except FitError as error:
            raise FitError(f"without {units.name(unit)} of the data: {error}") from error


# ---------------------------------------------------------------------------------- the repairs


def _by_bridge(
    held: HeldOut,
    design: Design,
    priors: Priors,
    of_unit: tuple[int, Array],
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return elpd of a unit and its error, from its log densities at draws given all rows."""
    unit, log_p = of_unit
    values, effective = _draws(target_without(design, held.units.rows(unit), priors), rng)
    return bridged(held.only(np.array([unit])).log_p(values)[:, 0], log_p, effective)


def _draws(target: LinearPosterior, rng: np.random.Generator) -> tuple[Array, float]:
    """Return draws of the values, shape (S, n_values), and their effective number.

    By importance sampling, or, where that cannot be trusted, by NUTS.
    """
    size = DRAWS_WITHOUT_UNIT
    approximation = laplace.approximate(target, draws=size, rng=rng)
    if not approximation.khat > good_khat(size):
        return target.space.values(approximation.x)[0], min(approximation.ess, size)
    seed, mode = int(rng.integers(2**31)), approximation.mode
    settings = Sampling(draws=size // 8, tune=500, seed=seed, progressbar=False)
    scale = np.linalg.norm(mode.root, axis=1)
    x, _ = nuts.sample(target, settings, start=mode.x, scale=scale)
    return target.space.values(x.reshape(-1, x.shape[-1]))[0], size / 4  # they are correlated


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
    variance = at_without.var() / effective + at_with.var() / len(with_it)
    return log_r, float(np.sqrt(np.log1p(variance)))


# -------------------------------------------------------------------- the data without a unit


def target_without(design: Design, rows: Places, priors: Priors) -> LinearPosterior:
    """Return the posterior density without some rows, under the same priors."""
    left = leaving_out(design, rows)
    estimable = full_rank(left)
    kept = [left.fixed.index(name) for name in estimable.fixed]
    return target_of(left, cross_products(estimable), kept, priors)


# ------------------------------------------------------------------------------ by quadrature


def integrated(
    held: HeldOut,
    chosen: Places,
    exact: Exact,
    design: Design,
    priors: Priors,
    *,
    executor: Executor | None = None,
) -> tuple[Array, Array, Array, Flags]:
    """Leave out some units.

    Parameters
    ----------
    held : HeldOut
        With all units.
    chosen : ndarray of int, shape (U,)
        The units that are left out.
    exact : Exact
        The posterior of all data.
    design : Design
        These data.
    priors : Priors
    executor : concurrent.futures.Executor, optional

    Returns
    -------
    elpd, lpd, error : ndarray, shape (U,)
        As in `ranef.leave_one_out.elpd.Scores`.
    anew : ndarray of bool, shape (U,)
        The units that needed nodes of their own.
    """
    left = held.only(chosen)
    elpd, lpd, error = np.empty(len(chosen)), np.empty(len(chosen)), np.full(len(chosen), np.inf)
    if left.size + len(chosen) * exact.coarse.log_density.shape[1] > MAX_ELEMENTS_OF_NODE:
        elpd, lpd, error = _by_few_nodes(left, exact.few)
    lattices = _lattices(exact)
    while len(poor := np.flatnonzero(~(error < MAX_ERROR))) and (lattice := next(lattices, None)):
        log_without, lpd[poor], error[poor] = _integrals(held.only(chosen[poor]), lattice)
        elpd[poor] = exact.log_evidence - log_without
    anew = ~(error < MAX_ERROR)
    rows = [held.units.rows(unit) for unit in chosen[anew]]
    found = mapped(executor, partial(_evidence_without, design, priors), rows)
    evidence = np.array([*tracked("Leaving out", found, len(rows))]).reshape(-1, 2)
    elpd[anew], error[anew] = exact.log_evidence - evidence[:, 0], evidence[:, 1]
    return elpd, lpd, error + exact.error, anew


def _evidence_without(design: Design, priors: Priors, rows: Places) -> tuple[float, float]:
    """Return log p(y) without some rows, by a lattice of its own, and its error."""
    without = Exact.of(target_without(design, rows, priors), max_error=MAX_ERROR)
    return without.log_evidence, without.error


def _by_few_nodes(held: HeldOut, few: FewNodes) -> tuple[Array, Array, Array]:
    """Return elpd, lpd and the relative error of p(y_-A) from few nodes, shape (U,)."""
    factors, given = held.target.basis_factors(few.nodes.values), held.target.space.n_given
    log_p = np.empty((len(held.n_rows), len(few.sigma)))
    for chunk in held.chunks(len(few.sigma)):
        shares = held.shares([F[chunk] for F in factors], few.nodes.values[chunk, :given])
        log_p[:, chunk] = held.log_ratio(shares, np.arange(shares.total.shape[2]), few.sigma[chunk])
    top = -log_p.min(axis=1)
    without = np.exp(-log_p - top[:, None])
    lpd = special.logsumexp(log_p, axis=1, b=few.weights)
    return -top - np.log(without @ few.weights), lpd, few.error(without)


def _lattices(exact: Exact) -> Iterator[Lattice]:
    """Yield lattices over the posterior, from few nodes of the coarsest to all of its fit."""
    if exact.coarse.error < MAX_ERROR_OF_ALL:
        yield exact.coarse.down_to(FIRST_FALL)
        yield exact.coarse
    yield exact.medium
    yield exact.lattice


def _integrals(held: HeldOut, lattice: Lattice) -> tuple[Array, Array, Array]:
    """Integrate over the nodes of a lattice.

    Returns
    -------
    log_without, lpd, error : ndarray, shape (U,)
        log p(y_-A), the log posterior mean of p(y_A | y_-A, phi), and the relative error of
        p(y_-A), which is large or nan where it cannot be computed on these nodes.
    """
    sums, (outer, _) = _Sums.empty(len(held.n_rows), lattice), lattice.outermost()
    for chunk in held.chunks(*lattice.log_density.shape):
        sums.add(*_at_nodes(held, lattice, np.arange(len(outer))[chunk], outer[chunk]))
    lpd = sums.within + lattice.log_volume - lattice.log_evidence
    return sums.log_total + lattice.log_volume, lpd, sums.error


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over nodes for each unit, which grow node by node.

    Attributes
    ----------
    top : ndarray, shape (U,)
        The log density that sums are relative to.
    signed : ndarray, shape (U, s)
        Sums of p(y_-A, phi): over all nodes, over those with a neighbour outside, at the ends of
        sigma's axis, next to them, and with alternating signs along every axis.
    within : ndarray, shape (U,)
        The logarithms of the sums of p(y, phi) p(y_A | y_-A, phi).
    """

    top: Array
    signed: Array
    within: Array

    @staticmethod
    def empty(U: int, lattice: Lattice) -> _Sums:
        """Return sums over no nodes."""
        log_zero, size = np.full(U, -np.inf), 4 + lattice.signs.shape[1]
        return _Sums(log_zero, np.zeros((U, size)), log_zero.copy())

    def add(self, log_without: Array, log_within: Array, signs: Array) -> None:
        """Add nodes, shapes (U, P) and (P, s)."""
        top = np.maximum(self.top, log_without.max(axis=1))
        self.signed[:] *= np.exp(self.top - top)[:, None]
        self.signed[:] += np.exp(log_without - top[:, None]) @ signs
        self.top[:] = top
        top_within = log_within.max(axis=1)  # SciPy's logsumexp takes several times as long
        more = top_within + np.log(np.exp(log_within - top_within[:, None]).sum(axis=1))
        self.within[:] = np.logaddexp(self.within, more)

    @property
    def log_total(self) -> Array:
        """The logarithm of the sum of p(y_-A, phi)."""
        return np.asarray(self.top + np.log(self.signed[:, 0]))

    @property
    def error(self) -> Array:
        """The relative error of the sum.

        Beyond nodes that have neighbours outside there is less than at them, and beyond the ends
        of sigma's axis the fall goes on. Sums with alternating signs are differences of two rules
        with steps twice as long: their square bounds the error of all nodes (`Lattice.error`).
        """
        outside, end, inner, *alternating = (self.signed[:, 1:] / self.signed[:, :1]).T
        fall = np.minimum(end / np.maximum(inner, np.finfo(np.float64).tiny), 0.99)
        return np.asarray(outside + end * fall / (1 - fall) + sum(sum_**2 for sum_ in alternating))


def _at_nodes(
    held: HeldOut, lattice: Lattice, nodes: Places, outer: Flags
) -> tuple[Array, Array, Array]:
    """Return log p(y_-A, phi), log p(y, phi) p(y_A | y_-A, phi), and the signs in every sum."""
    values, density = lattice.nodes.values[nodes], lattice.log_density[nodes]
    shares = held.shares(held.target.basis_factors(values), values[:, : held.target.space.n_given])
    counts = density > lattice.log_density.max() - MAX_FALL_OF_SIGMA
    index, columns = np.nonzero(counts)
    ratio = held.log_ratio(shares, index, np.exp(lattice.log_sigma[nodes][index, columns]))
    signs = lattice.signs[nodes[index] if lattice.z.shape[1] else columns]
    ends = np.zeros((len(index), 2), dtype=bool)
    if counts.shape[1] > 1:
        padded = np.pad(counts, ((0, 0), (2, 2)))
        inner, innermost = (
            padded[index, columns + 2 - s] & padded[index, columns + 2 + s] for s in (1, 2)
        )
        ends = np.column_stack([~inner, inner & ~innermost])
    density = density[index, columns]
    sums = np.column_stack([np.ones(len(index)), outer[index], ends, signs])
    return density - ratio, density + ratio, sums
