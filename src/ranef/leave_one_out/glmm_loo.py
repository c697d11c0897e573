"""Log predictive densities of rows and groups left out of a generalised model.

The random effects are integrated out at every draw of the parameters phi, which are the fixed
effects, the family's own parameters, sds and correlations. Rows that share no level, not even
through other rows, are independent given phi. So of a group A only the piece or pieces P of the
data are needed that it lies in:

    log p(y_A | y_-A, phi) = log p(y_P | phi) - log p(y_P without A | phi).

For a single row that would be done as often as there are rows. With one factor

    p(y_i | y_-i, phi) = 1 / E[1 / f(y_i | u)],   u given y and phi,

comes from the nodes of its level; otherwise from the *cavity* of the normal approximation: what it
says of eta_i without row i. Where these are not accurate enough, it is done.

Source: Vehtari, Mononen, Tolvanen, Sivula & Winther (2016), *JMLR* 17(103), 1-38; Merkle, Furr &
Rabe-Hesketh (2019), *Psychometrika* 84, 802-829.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ranef._typing import Array
from ranef.design.design import Design, independent_columns, without_rows
from ranef.errors import DataError
from ranef.families.family import Family
from ranef.leave_one_out.components import Rows, connected, signed_pieces, stack
from ranef.leave_one_out.elpd import Scores, Units, efficiency, good_khat, smoothed_scores
from ranef.likelihood.generalized.gauss_hermite import Rule, rule
from ranef.likelihood.generalized.weighted_crossproducts import Block
from ranef.likelihood.generalized.wholes import whole
from ranef.numerics.matrices import threads_for
from ranef.posterior.generalized_posterior import GeneralizedPosterior, joint_of
from ranef.posterior.marginal_likelihood import MarginalLikelihood, log_evidence
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Flat

POINTS = {1: (7, 13, 25, 49), 2: (7, 13, 25), 3: (5, 9)}  # by the number of effects
TOLERANCE = 1e-4  # of a log density, between one number of points and the next
SHARE = 0.1  # of the log densities of rows, that may be off by more
LAPLACE = "Laplace's approximation"
ROUGH = {"level": 1e-3, "cavity": 1e-2}  # error of a row from which on it is found anew
SMALL = 3  # rows of a level, of which each is left out in turn
CHECKED = 6  # draws at which errors are found
LEAST, WORK = 200, 2e7  # draws at least, and what all of them may cost, with many effects
BATCH = 50  # rows that are compared at a time
REPAIR = {1: 9, 2: 7, 3: 5}  # points of the quadrature of a marginal likelihood
ALONE = 1e-9  # of a column's squared length: what other rows have of it, when they have nothing


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
) -> Scores:
    """Return the log predictive densities of units left out of a generalised model.

    Parameters
    ----------
    joint : GeneralizedPosterior
    design : Design
        The one that `joint` was made of.
    units : Units
    values : ndarray, shape (S, n_values)
        Draws from the posterior, as `Space.values` gives them.
    family : Family
    priors : Priors
        Resolved on all rows.
    rng : Generator
        For the units whose importance weights cannot be trusted.
    chains : int, optional
        Of Markov chain draws, which lie one chain after the other; others are independent.

    Raises
    ------
    DataError
        If without some unit the posterior would be improper.
    """
    _check_determined(joint, units, priors)
    with threads_for(joint.width), np.errstate(all="ignore"):
        found = _found(joint, units, values)
        elpd, lpd, khat, mcse = smoothed_scores(found.log_p, efficiency(found.log_p, chains))
        draws = len(found.log_p)
        repaired = khat > good_khat(draws)
        mcse = np.hypot(mcse, found.error)
        if repaired.any():
            again = _Repair(joint, design, units, family, priors, rng)
            for place in np.flatnonzero(repaired):
                elpd[place], mcse[place] = again.elpd(int(place))
    khat[repaired] = np.nan
    return Scores.of(units, (elpd, lpd, khat, mcse), repaired, draws, _method(found, repaired))


def log_predictive(joint: GeneralizedPosterior, units: Units, values: Array) -> Array:
    """Return log p(y_A | y_-A, phi) of every unit at every draw of phi, shape (S, U).

    Parameters
    ----------
    joint : GeneralizedPosterior
    units : Units
    values : ndarray, shape (S, n_values)
        Where a piece has too many effects for all draws together, some of them are taken.
    """
    with threads_for(joint.width), np.errstate(all="ignore"):
        return _found(joint, units, values).log_p


@dataclass(frozen=True, eq=False)
class _Found:
    """Log predictive densities, shape (S, U), their errors, shape (U,), and how, in words."""

    log_p: Array
    error: Array
    how: str


def _found(joint: GeneralizedPosterior, units: Units, values: Array) -> _Found:
    by_row = units.codes is None
    if by_row and joint.model.covariances:
        if joint.model.has_one_factor and _effects(joint) in POINTS:
            return _rows_of_levels(joint, values)
        return _rows_by_cavities(joint, values)
    return _by_pieces(joint, [units.rows(place) for place in range(units.size)], values)


def _effects(joint: GeneralizedPosterior) -> int:
    """Return the number of random effects of a row."""
    return sum(shape.k for shape in joint.model.covariances)


def _evenly(values: Array, most: int) -> Array:
    """Return at most so many draws, evenly spaced."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(np.intp)]


def _affordable(values: Array, cost: float) -> Array:
    """Return as many draws as can be afforded, each having a cost."""
    return _evenly(values, max(LEAST, int(WORK / max(cost, 1.0))))


def _method(found: _Found, repaired: NDArray[np.bool_]) -> str:
    count = f"{len(found.log_p):,} draws"
    text = f"Pareto-smoothed importance sampling over {count}"
    text += f", random effects by {found.how}" if found.how else ""
    if not repaired.any():
        return text
    anew = f"{int(repaired.sum()):,} of {len(repaired):,} by ratios of marginal likelihoods"
    return f"{text}; {anew}"


def _enough(found: Callable[[Rule], Array], k: int, share: float = 0.0) -> tuple[int, Array]:
    """Return a number of points that is enough, and the error of each log density.

    The error is the largest difference to what the next number of points says, over draws.

    Parameters
    ----------
    found : callable (Rule)
        Log densities at a few draws, shape (S, U).
    k : int
        Effects, 1 to 3.
    share : float
        Of the log densities, that may be off by more than is tolerated.
    """
    last, error = found(rule(POINTS[k][0], k)), np.zeros(0)
    for points, more in pairwise(POINTS[k]):
        better = found(rule(more, k))
        error = np.nan_to_num(np.abs(better - last), nan=np.inf).max(axis=0, initial=0.0)
        if np.mean(error > TOLERANCE) <= share:
            return points, error
        last = better
    return POINTS[k][-1], error


def _in_words(hows: set[str | int]) -> str:
    """Say how random effects were integrated out: in words, or by how many points."""
    points = sorted(how for how in hows if isinstance(how, int) and how)
    words = [f"quadrature with {'up to ' * (len(points) > 1)}{points[-1]} points"] if points else []
    return " and ".join(words + sorted(how for how in hows if isinstance(how, str)))


# ---------------------------------------------------------------------------- from pieces


def _by_pieces(joint: GeneralizedPosterior, sets: Sequence[Rows], values: Array) -> _Found:
    """Return log predictive densities of sets of rows from those of pieces."""
    blocks = joint.model.problem.Z.blocks
    pieces, around, signs = signed_pieces(blocks, len(joint.X), sets)
    kinds = [_kind(blocks, piece, outer) for piece, outer in zip(pieces, around, strict=True)]
    cost = {kind: _cost(blocks, around[kinds.index(kind)]) for kind in set(kinds)}
    values = _affordable(values, sum(cost[kind] for kind in kinds if isinstance(kind, int)))
    log_p, error = np.empty((len(values), len(pieces))), np.zeros(len(pieces))
    hows: set[str | int] = set()
    for kind in dict.fromkeys(kinds):
        own = [place for place, other in enumerate(kinds) if other == kind]
        alike = [pieces[place] for place in own]
        if isinstance(kind, int):
            log_p[:, own] = _by_laplace(joint, alike, around[own[0]], values)
            hows.add(LAPLACE)
        else:
            log_p[:, own], error[own], points = _by_quadrature(joint, alike, values)
            hows.add(points)
    total = np.asarray((signs @ log_p.T).T)
    return _Found(total, np.asarray(abs(signs) @ error), _in_words(hows))


def _kind(blocks: Sequence[Block], piece: Rows, around: Rows) -> int | tuple[int, ...]:
    """Return the numbers of levels of a piece with few effects, or which piece it is part of."""
    counts = tuple(len(np.unique(block.codes[piece])) for block in blocks)
    k = sum(count * block.k for count, block in zip(counts, blocks, strict=True))
    return counts if k <= max(POINTS) else int(around[0])


def _cost(blocks: Sequence[Block], rows: Rows) -> float:
    """Return what a step of Newton's method costs for some rows."""
    q = sum(len(np.unique(block.codes[rows])) * block.k for block in blocks)
    return float(len(rows) + q**2)


def _by_quadrature(
    joint: GeneralizedPosterior, pieces: list[Rows], values: Array
) -> tuple[Array, Array, int]:
    """Return log p(y_R | phi), shape (S, P), its error, and the number of points."""
    alike = stack(joint, pieces)
    k = alike.block.k
    if not k:
        return alike.log_densities(values, rule(1, 1)), np.zeros(len(pieces)), 0
    few = _evenly(values, CHECKED)
    points, error = _enough(lambda nodes: alike.log_densities(few, nodes), k)
    return alike.log_densities(values, rule(points, k)), error, points


def _by_laplace(
    joint: GeneralizedPosterior, pieces: list[Rows], around: Rows, values: Array
) -> Array:
    """Return log p(y_R | phi) of parts of a piece, shape (S, P)."""
    all_rows = whole(joint, around)
    keep = np.array([np.isin(around, piece) for piece in pieces])
    found = np.empty((len(values), len(pieces)))
    for part in all_rows.chunks(len(values), len(pieces)):
        first = all_rows.fitted(values[part], np.ones((1, len(around)), dtype=np.bool_))
        more = len(pieces) > 1 or not keep.all()
        found[part] = (all_rows.fitted(values[part], keep, first.u) if more else first).value
    return found


# ------------------------------------------------------------------------------- single rows


def _rows_of_levels(joint: GeneralizedPosterior, values: Array) -> _Found:
    """Return those of rows of a single factor's levels, from the nodes of each level."""
    n = len(joint.X)
    log_p, error, points = np.empty((len(values), n)), np.full(n, np.inf), 0
    levels = connected(joint.model.problem.Z.blocks, np.arange(n))
    large = [rows for rows in levels if len(rows) > SMALL]
    if large:
        alike, few = stack(joint, large), _evenly(values, CHECKED)
        k, own = alike.block.k, alike.rows
        points, error[own] = _enough(lambda nodes: alike.single_rows(few, nodes), k, SHARE)
        log_p[:, own] = alike.single_rows(values, rule(points, k))
    found = _Found(log_p, error, _in_words({points}))
    return _anew(joint, found, values, ROUGH["level"])


def _rows_by_cavities(joint: GeneralizedPosterior, values: Array) -> _Found:
    """Return those of rows in any structure, from the normal approximation at each draw.

    Those that pull most are compared with ratios of densities of pieces, until these agree.
    """
    values = _affordable(values, len(joint.X) ** 2 / 5)
    few = _evenly(values, CHECKED)
    points, _ = _enough(lambda nodes: _cavities(joint, few, nodes)[0], 1, SHARE)
    log_p, pull = _cavities(joint, values, rule(points, 1))
    ours, error = _evenly(log_p, CHECKED), np.zeros(len(joint.X))
    order = np.argsort(-np.nan_to_num(pull, nan=np.inf).mean(axis=0))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        exact = _by_pieces(joint, list(rows[:, None]), few)
        differ = np.nan_to_num(np.abs(ours[:, rows] - exact.log_p), nan=np.inf)
        error[rows] = differ.max(axis=0)
        if error[rows].max() < ROUGH["cavity"]:
            error[order[start + BATCH :]] = error[rows].max()
            break
    return _anew(joint, _Found(log_p, error, LAPLACE), values, ROUGH["cavity"])


def _anew(joint: GeneralizedPosterior, found: _Found, values: Array, limit: float) -> _Found:
    """Replace those of rows with a large error by ratios of densities of pieces."""
    rough = np.flatnonzero(found.error > limit)
    if not len(rough):
        return found
    again = _by_pieces(joint, list(rough[:, None]), values)
    log_p, error = _evenly(found.log_p, len(again.log_p)).copy(), found.error.copy()
    log_p[:, rough], error[rough] = again.log_p, again.error
    return _Found(log_p, error, found.how or again.how)


def _cavities(joint: GeneralizedPosterior, values: Array, nodes: Rule) -> tuple[Array, Array]:
    """Return log p(y_i | y_-i, phi) of every row by its cavity, and its pull, shape (S, n)."""
    found, pull = np.empty((2, len(values), len(joint.X)))
    for rows in connected(joint.model.problem.Z.blocks, np.arange(len(joint.X))):
        piece = whole(joint, rows)
        for part in piece.chunks(len(values), 1):
            found[part, rows], pull[part, rows] = piece.single_rows(values[part], nodes)
    return found, pull


# ---------------------------------------------------------------------- without some of the rows


@dataclass(frozen=True, eq=False)
class _Repair:
    """Log predictive densities of units as ratios of marginal likelihoods."""

    joint: GeneralizedPosterior
    design: Design
    units: Units
    family: Family
    priors: Priors
    rng: np.random.Generator

    def elpd(self, place: int) -> tuple[float, float]:
        """Return log p(y) - log p(y without a unit), and its error."""
        whole, left = self.whole, self._evidence(self.units.rows(place))
        return whole.value - left.value, float(np.hypot(whole.mcse, left.mcse))

    @cached_property
    def whole(self) -> MarginalLikelihood:
        """Of all rows."""
        return self._evidence(np.empty(0, dtype=np.intp))

    def _evidence(self, rows: Rows) -> MarginalLikelihood:
        one = self.joint.model.has_one_factor
        points = REPAIR.get(_effects(self.joint), 1) if one else 1
        left = joint_of(without_rows(self.design, rows), self.family, self.priors, points)
        together = _Together(
            left.model, left.X, left.change, left.precision, left.space, left.bases, points
        )
        return log_evidence(together, rng=self.rng)


class _Together(GeneralizedPosterior):
    """The posterior density of a generalised model, at many points together."""

    def log_density(self, x: Array) -> Array:
        values, logp = self.space.values(x)
        blocks, found = self.model.problem.Z.blocks, logp
        kinds: dict[int | tuple[int, ...], list[Rows]] = {}
        for rows in connected(blocks, np.arange(len(self.X))):
            kinds.setdefault(_kind(blocks, rows, rows), []).append(rows)
        for kind, pieces in kinds.items():
            if isinstance(kind, int):
                found = found + _by_laplace(self, pieces, pieces[0], values)[:, 0]
            else:
                alike = stack(self, pieces)
                nodes = rule(REPAIR.get(alike.block.k, 1), max(alike.block.k, 1))
                found = found + alike.log_densities(values, nodes).sum(axis=1)
        return np.where(np.isfinite(found), found, -np.inf)


def _check_determined(joint: GeneralizedPosterior, units: Units, priors: Priors) -> None:
    """Refuse to leave out a unit without which a fixed effect with a flat prior is unknown."""
    flat = [j for j, prior in enumerate(priors.beta) if isinstance(prior, Flat)]
    if not flat:
        return
    X = joint.X[:, flat]
    Q = np.linalg.qr(X)[0]
    codes = np.arange(len(X)) if units.codes is None else units.codes
    shares = np.zeros((units.size, len(flat), len(flat)))
    np.add.at(shares, codes, Q[:, :, None] * Q[:, None, :])
    alone = np.linalg.eigvalsh(shares)[:, -1] > 1 - ALONE  # some combination is in these rows only
    for place in np.flatnonzero(alone):
        left = np.delete(X, units.rows(int(place)), axis=0)
        lost = np.setdiff1d(np.arange(len(flat)), independent_columns(left))
        name = priors.fixed[flat[lost[0] if len(lost) else 0]]
        message = f"without {units.name(int(place))} the fixed effect `{name}` is not determined, "
        raise DataError(f"{message}as its prior is flat: give it a proper prior.")
