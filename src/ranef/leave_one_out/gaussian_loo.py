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

import numpy as np
from numpy.typing import NDArray

from ranef.design.design import Design, without_rows
from ranef.errors import FitError
from ranef.leave_one_out.elpd import Scores, Units, efficiency, good_khat, smoothed_scores
from ranef.leave_one_out.exactloo import exact_of, integrated, target_without
from ranef.leave_one_out.gaussian_densities import HeldOut, held_out
from ranef.posterior import laplace
from ranef.posterior.linear_posterior import Target
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.sampling import nuts
from ranef.priors.propriety import check_proper, is_proper_prior
from ranef.priors.resolve import Priors

type Array = NDArray[np.float64]
type Places = NDArray[np.intp]

WORK = 10**12  # operations, beyond which not all draws are used
FEWEST = 500  # draws that are used in any case
DRAWS = 2_000  # from the posterior without a unit
ITERATIONS = 200  # of the bridge


def linear_scores(
    target: Target,
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
    target : Target
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
        lattice.check_feasible(held.target)
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


def _draws(target: Target, rng: np.random.Generator) -> tuple[Array, float]:
    """Return draws of the values, shape (S, n_values), and their effective number.

    By importance sampling, or, where that cannot be trusted, by NUTS.
    """
    found = laplace.approximate(target, draws=DRAWS, rng=rng)
    if not found.khat > good_khat(DRAWS):
        return target.space.values(found.x)[0], min(found.ess, DRAWS)
    x, _ = nuts.sample(
        target,
        start=found.mode.x,
        scale=np.linalg.norm(found.mode.root, axis=1),
        draws=DRAWS // 8,
        tune=500,
        seed=int(rng.integers(2**31)),
        progressbar=False,
    )
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

    Notes
    -----
    With l the density and r = p(y) / p(y_-A), the iteration of Meng & Wong (1996) is
    r = mean of l / (s r + s' l) without A over the mean of 1 / (s r + s' l) with it, s and s' the
    shares of the draws; it converges from anywhere.
    """
    if not (np.isfinite(without_it).all() and np.isfinite(with_it).all()):
        raise FitError(
            "the predictive density cannot be computed at some draws, at which the random effects "
            "are far too large: give their standard deviations priors that exclude this."
        )
    share = len(without_it) / (len(without_it) + len(with_it))
    log_r = 0.0
    for _ in range(ITERATIONS):
        both = np.log(share) + log_r, np.log(1 - share)
        above = without_it - np.logaddexp(both[0], both[1] + without_it)
        below = -np.logaddexp(both[0], both[1] + with_it)
        before, log_r = log_r, _log_mean(above) - _log_mean(below)
        if abs(log_r - before) < 1e-10:
            break
    variance = np.var(np.exp(above - _log_mean(above))) / effective
    variance += np.var(np.exp(below - _log_mean(below))) / len(below)
    return log_r, float(np.sqrt(np.log1p(variance)))


def _log_mean(logs: Array) -> float:
    """Return the logarithm of the mean of exponentials."""
    return float(np.logaddexp.reduce(logs) - np.log(len(logs)))
