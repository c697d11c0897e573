"""Log predictive densities of rows and groups left out of a generalised model.

The random effects are integrated out at every draw of the parameters phi, which are the fixed
effects, the family's own parameters, sds and correlations. Rows that share no level, not even
through other rows, are independent given phi. So a group A needs only the piece or pieces P of the
data in which it lies:

    log p(y_A | y_-A, phi) = log p(y_P | phi) - log p(y_P without A | phi).

For single rows these ratios would be as many as there are rows. With one factor

    p(y_i | y_-i, phi) = 1 / E[1 / f(y_i | u)],   u given y and phi,

comes from the nodes of its level; otherwise from the *cavity* of the normal approximation: the
distribution of eta_i without row i. Where these are not accurate enough, ratios are taken.

Source: Vehtari, Mononen, Tolvanen, Sivula & Winther (2016), *JMLR* 17(103), 1-38; Merkle, Furr &
Rabe-Hesketh (2019), *Psychometrika* 84, 802-829.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np

from ranef._typing import Array, Executor, Flags, Places
from ranef.design.design import Design, leaving_out
from ranef.design.model_matrix import independent_columns
from ranef.errors import DataError
from ranef.families.family import Family
from ranef.leave_one_out.components import cavities, signed_pieces, single_rows
from ranef.leave_one_out.elpd import Scores, Units, efficiency, smoothed_scores
from ranef.likelihood.generalized.gauss_hermite import Rule, rule
from ranef.likelihood.generalized.many_modes import ROUGHLY, Parts
from ranef.likelihood.generalized.pieces import (
    components_of_rows,
    number_of_effects,
    numbers_of_levels,
    piece_of,
)
from ranef.likelihood.generalized.pirls import Problem
from ranef.numerics.importance_sampling import cumulant_terms, good_khat
from ranef.numerics.matrices import threads_for
from ranef.posterior.generalized_posterior import SEED, GeneralizedPosterior, evenly, joint_of
from ranef.posterior.marginal_likelihood import MarginalLikelihood, log_evidence
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Flat
from ranef.progress import mapped, tracked

POINTS = {1: (7, 13, 25, 49), 2: (5, 7, 13, 25), 3: (5, 9)}  # by the number of effects
MAX_LOG_ERROR = 1e-4  # of a log density, between one number of points and the next
MAX_SHARE_OFF = 0.1  # of the log densities of rows, that may have a larger error
LAPLACE = "Laplace's approximation"
MAX_ERROR_OF_LEVEL, MAX_ERROR_OF_CAVITY = 1e-3, 1e-2  # of rows; above, they are computed anew
MAX_ROWS_ONE_BY_ONE = 3  # of a level, of which each is left out in turn
DRAWS_FOR_ERRORS = 6
TILTS = 16  # pairs of draws of the random effects at each of these
MIN_DRAWS, MAX_COST = 200, 2e7  # draws, and the cost of all of them, with many effects
BATCH = 50  # rows that are compared at a time
REPAIR = {1: 9, 2: 7, 3: 5}  # points of the quadrature of a marginal likelihood


def joint_scores(
    joint: GeneralizedPosterior,
    design: Design,
    units: Units,
    *,
    values: Array,
    family: Family,
    priors: Priors,
    rng: np.random.Generator,
    chains: int | None = None,
    executor: Executor | None = None,
) -> Scores:
    """Return the log predictive densities of units left out of a generalised model.

    Parameters
    ----------
    joint : GeneralizedPosterior
        Whose likelihood reads no rows of different units as one.
    design : Design
        The one that `joint` was made of.
    units : Units
        Of the rows of the design.
    values : ndarray, shape (S, n_values)
        Draws from the posterior, as `Space.values` gives them.
    family : Family
    priors : Priors
        Resolved on all rows.
    rng : Generator
        For the units whose importance weights cannot be trusted.
    chains : int, optional
        Of Markov chain draws, which lie one chain after the other; others are independent.
    executor : concurrent.futures.Executor, optional
        Where these are computed; the result is the same.

    Raises
    ------
    DataError
        If without some unit the posterior would be improper.
    """
    read = units
    if units.codes is not None:
        read = replace(units, codes=joint.model.cells.first(units.codes))
    _check_determined(joint, read, priors)
    with threads_for(joint.width), np.errstate(all="ignore"):
        predictive = log_predictive(joint, read, values)
        log_p, draws = predictive.log_p, len(predictive.log_p)
        elpd, lpd, khat, mcse = smoothed_scores(log_p, efficiency(log_p, chains))
        repaired = khat > good_khat(draws)
        mcse = np.hypot(mcse, predictive.error)
        if repaired.any():
            points = REPAIR.get(_effects(joint), 1) if joint.model.has_one_factor else 1
            evidence = partial(_evidence_without, design, family, priors, points=points)
            first, *others = rng.spawn(1 + int(repaired.sum()))
            all_rows = evidence(np.empty(0, dtype=np.intp), first)
            bad = np.flatnonzero(repaired)
            found = mapped(executor, evidence, map(units.rows, bad.tolist()), others)
            for unit, without in zip(bad, tracked("Leaving out", found, len(bad)), strict=True):
                elpd[unit] = all_rows.value - without.value
                mcse[unit] = np.hypot(all_rows.error, without.error)
    khat[repaired] = np.nan
    method = _method(predictive, repaired)
    bias = np.where(repaired, 0.0, predictive.bias)  # log p(y) has errors of its own
    return Scores.of(units, (elpd, lpd, khat, mcse), repaired, draws, method, bias=bias)


@dataclass(frozen=True, eq=False)
class LogPredictive:
    """Log predictive densities, shape (S, U), their errors, shape (U,), and how, in words.

    The bias, shape (U,), is what of the error is one of Laplace's approximation, with its sign.
    """

    log_p: Array
    error: Array
    how: str
    bias: Array


def log_predictive(joint: GeneralizedPosterior, units: Units, values: Array) -> LogPredictive:
    """Return log p(y_A | y_-A, phi) of every unit at every draw of phi.

    Parameters
    ----------
    joint : GeneralizedPosterior
    units : Units
    values : ndarray, shape (S, n_values)
        Where a piece has too many effects for all draws together, some of them are taken.
    """
    by_row = units.codes is None
    if by_row and joint.model.covariances:
        if joint.model.has_one_factor and _effects(joint) in POINTS:
            return _rows_of_levels(joint, values)
        return _rows_by_cavities(joint, values)
    return _by_pieces(joint, [units.rows(place) for place in range(units.size)], values)


def _effects(joint: GeneralizedPosterior) -> int:
    """Return the number of random effects of a row."""
    return sum(shape.k for shape in joint.model.covariances)


def _affordable(values: Array, cost: float) -> Array:
    """Return as many draws as can be afforded, each having a cost."""
    return evenly(values, max(MIN_DRAWS, int(MAX_COST / max(cost, 1.0))))


def _method(predictive: LogPredictive, repaired: Flags) -> str:
    """Say how scores were computed."""
    text = f"Pareto-smoothed importance sampling over {len(predictive.log_p):,} draws"
    text += f", random effects by {predictive.how}" if predictive.how else ""
    if not repaired.any():
        return text
    anew = f"{int(repaired.sum()):,} of {len(repaired):,} by ratios of marginal likelihoods"
    return f"{text}; {anew}"


def _enough(log_p: Callable[[Rule], Array], k: int, share: float = 0.0) -> tuple[int, Array]:
    """Return a number of points that is enough, and the error of each log density.

    The error is the largest difference, over draws, from the next number of points.

    Parameters
    ----------
    log_p : callable (Rule)
        Log densities at a few draws, shape (S, U).
    k : int
        Effects, 1 to 3.
    share : float
        Of the log densities, that may have a larger error.
    """
    coarse, error = log_p(rule(POINTS[k][0], k)), np.zeros(0)
    for points, more in pairwise(POINTS[k]):
        fine = log_p(rule(more, k))
        error = np.nan_to_num(np.abs(fine - coarse), nan=np.inf).max(axis=0, initial=0.0)
        if np.mean(error > MAX_LOG_ERROR) <= share:
            return points, error
        coarse = fine
    return POINTS[k][-1], error


def _in_words(hows: set[str | int]) -> str:
    """Say how random effects were integrated out: in words, or by how many points."""
    points = sorted(how for how in hows if isinstance(how, int) and how)
    words = [f"quadrature with {'up to ' * (len(points) > 1)}{points[-1]} points"] if points else []
    return " and ".join(words + sorted(how for how in hows if isinstance(how, str)))


# ---------------------------------------------------------------------------- from pieces


def _by_pieces(joint: GeneralizedPosterior, sets: Sequence[Places], values: Array) -> LogPredictive:
    """Return log predictive densities of sets of rows from those of pieces."""
    problem = joint.model.problem
    pieces, around, signs = signed_pieces(problem, sets)
    kinds = [_kind(problem, piece, outer) for piece, outer in zip(pieces, around, strict=True)]
    cost = {kind: _cost(problem, around[kinds.index(kind)]) for kind in set(kinds)}
    values = _affordable(values, sum(cost[kind] for kind in kinds if isinstance(kind, int)))
    log_p, error = np.empty((len(values), len(pieces))), np.zeros(len(pieces))
    off = np.zeros((DRAWS_FOR_ERRORS * TILTS, len(pieces)))
    hows: set[str | int] = set()
    for kind in dict.fromkeys(kinds):
        of_kind = [place for place, other in enumerate(kinds) if other == kind]
        alike = [pieces[place] for place in of_kind]
        if isinstance(kind, int):
            rows = around[of_kind[0]]
            log_p[:, of_kind] = _by_laplace(joint, alike, rows, values)
            off[:, of_kind] = _tilts(joint, alike, rows, evenly(values, DRAWS_FOR_ERRORS))
            hows.add(LAPLACE)
        else:
            log_p[:, of_kind], error[of_kind], points = _by_quadrature(joint, alike, values)
            hows.add(points)
    total = np.asarray((signs @ log_p.T).T)
    second, third = (np.asarray((signs @ terms.T).T) for terms in cumulant_terms(off))
    bias = second.mean(axis=0)
    error = abs(signs) @ error + np.hypot(bias, second.std(axis=0) / np.sqrt(len(off)))
    error = np.asarray(error + abs(third.mean(axis=0)))
    return LogPredictive(total, error, _in_words(hows), bias)


def _kind(problem: Problem, piece: Places, around: Places) -> int | tuple[int, ...]:
    """Return the numbers of levels of a piece with few effects, or which piece it is part of."""
    few = number_of_effects(problem, piece) <= max(POINTS)
    return numbers_of_levels(problem, piece) if few else int(around[0])


def _cost(problem: Problem, rows: Places) -> float:
    """Return what a step of Newton's method costs for some rows."""
    return float(len(rows) + number_of_effects(problem, rows) ** 2)


def _by_quadrature(
    joint: GeneralizedPosterior, components: list[Places], values: Array
) -> tuple[Array, Array, int]:
    """Return log p(y_R | phi), shape (S, P), its error, and the number of points."""
    piece = piece_of(joint.model.problem, components)
    if not piece.q:
        return joint.log_densities(piece, values), np.zeros(piece.P), 0
    few = evenly(values, DRAWS_FOR_ERRORS)
    points, error = _enough(lambda nodes: joint.log_densities(piece, few, nodes), piece.q)
    return joint.log_densities(piece, values, rule(points, piece.q)), error, points


def _by_laplace(
    joint: GeneralizedPosterior, pieces: list[Places], around: Places, values: Array
) -> Array:
    """Return log p(y_R | phi) of parts of a component, shape (S, U)."""
    component = piece_of(joint.model.problem, [around])
    keep = np.array([np.isin(around, piece) for piece in pieces])
    every = np.ones((1, len(around)), dtype=np.bool_)
    log_p = np.empty((len(values), len(pieces)))
    for chosen in component.chunks(len(values), len(pieces)):
        points = joint.points(values[chosen], around)
        start = joint.modes_at_start(component)
        modes = Parts(component, points, every).run(start, near=ROUGHLY)
        if len(pieces) > 1 or not keep.all():
            modes = Parts(component, points, keep).run(
                np.repeat(modes.u, len(pieces), axis=1), near=ROUGHLY
            )
        log_p[chosen] = modes.laplace
    return log_p


def _tilts(
    joint: GeneralizedPosterior, pieces: list[Places], around: Places, values: Array
) -> Array:
    """Return log ratios that tell the error of `_by_laplace`, shape (S times TILTS, U).

    The same numbers draw the effects of all parts, so that what these share cancels in differences.
    """
    rng = np.random.default_rng(SEED)
    component = piece_of(joint.model.problem, [around])
    keep = np.array([np.isin(around, piece) for piece in pieces])
    off = np.empty((DRAWS_FOR_ERRORS, TILTS, len(pieces)))
    for place in range(DRAWS_FOR_ERRORS):
        points = joint.points(values[[place % len(values)]], around)
        search = Parts(component, points, keep)
        modes = search.run(np.repeat(joint.modes_at_start(component), len(pieces), axis=1))
        for turn in range(TILTS):
            z = np.broadcast_to(rng.standard_normal(component.q), modes.u.shape)
            off[place, turn] = modes.tilts(search, z)[0]
    return off.reshape(-1, len(pieces))


# ------------------------------------------------------------------------------- single rows


def _rows_of_levels(joint: GeneralizedPosterior, values: Array) -> LogPredictive:
    """Return the densities of rows of a single factor's levels, from the nodes of each level."""
    n = len(joint.X)
    log_p, error, points = np.empty((len(values), n)), np.full(n, np.inf), 0
    levels = components_of_rows(joint.model.problem, np.arange(n))
    large = [rows for rows in levels if len(rows) > MAX_ROWS_ONE_BY_ONE]
    if large:
        piece, few = piece_of(joint.model.problem, large), evenly(values, DRAWS_FOR_ERRORS)
        start = joint.modes_at_start(piece)

        def rows_of(some: Array, nodes: Rule) -> Array:
            points_at = joint.points_at(some, piece.rows)
            return single_rows(piece, points_at, len(some), start=start, nodes=nodes)

        points, error[piece.rows] = _enough(
            lambda nodes: rows_of(few, nodes), piece.q, MAX_SHARE_OFF
        )
        log_p[:, piece.rows] = rows_of(values, rule(points, piece.q))
    predictive = LogPredictive(log_p, error, _in_words({points}), np.zeros(n))
    return _anew(joint, predictive, values, MAX_ERROR_OF_LEVEL)


def _rows_by_cavities(joint: GeneralizedPosterior, values: Array) -> LogPredictive:
    """Return the densities of rows in any structure, from the normal approximation at each draw.

    Rows that pull most are compared with ratios of densities of pieces, until these agree.
    """
    values = _affordable(values, len(joint.X) ** 2 / 5)
    few = evenly(values, DRAWS_FOR_ERRORS)
    points, _ = _enough(lambda nodes: _cavities(joint, few, nodes)[0], 1, MAX_SHARE_OFF)
    log_p, pull = _cavities(joint, values, rule(points, 1))
    checked, (error, own, bias) = evenly(log_p, DRAWS_FOR_ERRORS), np.zeros((3, len(joint.X)))
    order = np.argsort(-np.nan_to_num(pull, nan=np.inf).mean(axis=0))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        exact = _by_pieces(joint, list(rows[:, None]), few)
        differ = np.nan_to_num(np.abs(checked[:, rows] - exact.log_p), nan=np.inf)
        error[rows] = differ.max(axis=0)
        own[rows], bias[rows] = exact.error, exact.bias
        if error[rows].max() < MAX_ERROR_OF_CAVITY:
            rest = order[start + BATCH :]
            error[rest], own[rest] = error[rows].max(), np.median(own[rows])
            bias[rest] = np.median(bias[rows])
            break
    predictive = LogPredictive(log_p, error, LAPLACE, bias)
    found = _anew(joint, predictive, values, MAX_ERROR_OF_CAVITY)
    kept = np.where(error > MAX_ERROR_OF_CAVITY, 0.0, own)  # the others are computed anew
    return replace(found, error=found.error + kept)


def _anew(
    joint: GeneralizedPosterior, predictive: LogPredictive, values: Array, max_error: float
) -> LogPredictive:
    """Replace the densities of rows with a large error by ratios of densities of pieces."""
    rough = np.flatnonzero(predictive.error > max_error)
    if not len(rough):
        return predictive
    again = _by_pieces(joint, list(rough[:, None]), values)
    log_p, error = evenly(predictive.log_p, len(again.log_p)).copy(), predictive.error.copy()
    bias = predictive.bias.copy()
    log_p[:, rough], error[rough], bias[rough] = again.log_p, again.error, again.bias
    return LogPredictive(log_p, error, predictive.how or again.how, bias)


def _cavities(joint: GeneralizedPosterior, values: Array, nodes: Rule) -> tuple[Array, Array]:
    """Return log p(y_i | y_-i, phi) of every row by its cavity, and its pull, shape (S, n)."""
    log_p, pull = np.empty((2, len(values), len(joint.X)))
    for rows in components_of_rows(joint.model.problem, np.arange(len(joint.X))):
        piece = piece_of(joint.model.problem, [rows])
        for chosen in piece.chunks(len(values)):
            points = joint.points(values[chosen], rows)
            log_p[chosen, rows], pull[chosen, rows] = cavities(
                piece, points, joint.modes_at_start(piece), nodes
            )
    return log_p, pull


# ---------------------------------------------------------------------- without some of the rows


def _evidence_without(
    design: Design,
    family: Family,
    priors: Priors,
    rows: Places,
    rng: np.random.Generator,
    *,
    points: int,
) -> MarginalLikelihood:
    """Return the marginal likelihood without some rows."""
    left = joint_of(leaving_out(design, rows), family, priors, points)
    return log_evidence(replace(left, component_points=REPAIR), rng=rng)


def _check_determined(joint: GeneralizedPosterior, units: Units, priors: Priors) -> None:
    """Refuse to leave out a unit without which a fixed effect with a flat prior is unknown."""
    flat = [j for j, prior in enumerate(priors.beta) if isinstance(prior, Flat)]
    if not flat:
        return
    X = joint.X[:, flat]
    for unit in units.determining(np.linalg.qr(X)[0]):
        others = np.delete(X, units.rows(unit), axis=0)
        dependent = np.setdiff1d(np.arange(len(flat)), independent_columns(others))
        name = priors.fixed[flat[dependent[0] if len(dependent) else 0]]
        message = f"without {units.name(unit)} the fixed effect `{name}` is not determined, "
        raise DataError(f"{message}as its prior is flat: give it a proper prior.")
