"""Flat priors, refused where they leave the posterior improper.

A flat prior has no mass to share out, so that the data must pin its parameter down. With X_F the
columns of the fixed effects with flat priors, p_F their number, and Z_j the columns that belong to
the standard deviation j, the marginal likelihood given the variances is that of K'y, K spanning
what is orthogonal to X_F. As the standard deviations of a set T go to infinity together like s it
falls off like s^-r, where

    r(T) = rank [X_F, Z_T] - p_F,

so its integral over them converges if r(T) > |T| for every set T of standard deviations with
flat priors: by power counting, since the determinant of K'VK is a polynomial in the variances
without negative coefficients and r is submodular, other paths to infinity ask for no more.
Correlations change nothing: where a correlation matrix loses j of its ranks, the LKJ density with
any eta > 0 gives back more than the likelihood's slower fall takes.

A flat prior on sigma adds one condition, as all rows have a part in sigma: n - p_F must exceed 1
plus the number of standard deviations with flat priors. One that is flat relative to sigma
does not add to this count, as it goes to infinity with sigma by itself; but where the random
effects can fit every row exactly, sigma can also go to zero while the ratio goes to infinity, and
the prior of sigma must vanish at zero to prevent it.

A response that the model fits exactly is left out of account: with it no prior that is positive
at sigma = 0 helps, a proper one included. Conditions of this kind are those of Hobert & Casella
(1996), J. American Statistical Association 91, 1461-1473.

All this is for a normal response with identity link. Of other responses it is known what flat
priors on fixed effects ask for: along every direction of their coefficients the likelihood of some
row must fall to zero exponentially, or integrably as that of a t response. A count above zero and
a row with failures and successes fall both ways; a zero, and a row of nothing but failures or
successes, one way only, so that there must be no separation. A positive response falls both ways on
some links and not on others: an inverse Gaussian density tends to a constant as its mean goes to
infinity. Fixed effects with proper priors hold those with flat ones back, if these priors have a
moment of order p_F. This is for given random effects. The integral grows with them like a power p_F
at most, so that it is finite on average if their standard deviations have priors with a moment of
that order, too; heavier tails are not refused there, as less will do where a level has different
outcomes. Flat priors on anything else are refused: where no level has different outcomes the
likelihood does not fall as a standard deviation grows, nor does it as a negative binomial
distribution tends to the Poisson, or t to the normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ranef._typing import Array, Codes, Integers
from ranef.design.design import Design, RandomTerm
from ranef.design.model_matrix import RANK_TOLERANCE, independent_columns
from ranef.design.rows.rows import TermRows
from ranef.design.separation import separated_columns
from ranef.errors import FitError, listed
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.priors.assignment import Priors
from ranef.priors.distributions import (
    Constant,
    Gamma,
    InverseGamma,
    LogNormal,
    Prior,
    Relative,
    Uniform,
)

MAX_ROWS = 20_000  # of the columns of Z at a time
MIN_SHARE = 1e-6  # of a linear dependency, below which a vector has no part in it


def is_proper_prior(priors: Priors) -> bool:
    """Whether every prior of a model is proper, as a Bayes factor needs it.

    Examples
    --------
    >>> import ranef as rf
    >>> design = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).design
    >>> [is_proper_prior(rf.priors.resolve(design, name)) for name in ("default", "flat")]
    [True, False]
    """
    return all(row.prior.proper for row in priors.rows())


def check_evidence(priors: Priors) -> None:
    """Refuse improper priors, under which a marginal likelihood is not defined.

    Raises
    ------
    FitError
    """
    if not is_proper_prior(priors):
        raise FitError(
            "the marginal likelihood is not defined under flat priors, as it has their arbitrary "
            "height as a factor: give every parameter a proper prior with priors=, as the default "
            "ones are."
        )


def check_proper(design: Design, priors: Priors, family: Family = GAUSSIAN) -> None:
    """Refuse flat priors that leave the posterior improper.

    Parameters
    ----------
    design : Design
        Response, matrices and names.
    priors : Priors
        A prior for every parameter of the design.
    family : Family
        Of the response.

    Raises
    ------
    FitError
        If there are flat priors on linearly dependent fixed effects, on sigma with too few
        rows, or on the standard deviations of factors with too few levels. For any but a normal
        response with identity link: if there are flat priors on fixed effects that the data do
        not pin down, or on anything else.
    """
    if is_proper_prior(priors):
        return
    flat = [not prior.proper for prior in priors.beta]
    X = np.asarray(_columns_of_priors(design, priors)[:, flat])
    names = [name for name, is_flat in zip(priors.fixed, flat, strict=True) if is_flat]
    _check_fixed(X, names)
    if not family.is_linear:
        _check_others(priors, family)
        _check_pinned(design, priors, names, family)
        return
    flats = [sd for sd in _standard_deviations(design, priors) if not sd.prior.proper]
    _check_sigma(design, priors, flats, X.shape[1])
    _check_sds(flats, X)
    _check_saturated(design, priors, flats)


@dataclass(frozen=True, eq=False)
class _StandardDeviation:
    """The standard deviation of coefficient j of a term, with its prior.

    Its levels are those with a row that the coefficient matters in: as many as its columns' rank.
    """

    term: RandomTerm
    rows: TermRows
    j: int
    prior: Prior
    levels: Codes

    @property
    def name(self) -> str:
        label, coef = self.term.label, self.term.coefs[self.j]
        return f"sd_{label}" if self.term.n_coefs == 1 else f"sd_{label}[{coef}]"

    @property
    def is_relative(self) -> bool:
        """Whether the prior is one of the standard deviation over sigma."""
        return isinstance(self.prior, Relative)


def _columns_of_priors(design: Design, priors: Priors) -> Array:
    """Return the columns (n, p) of the coefficients that the priors hold for."""
    return design.sufficient.X if priors.change is None else design.sufficient.X @ priors.change


def _standard_deviations(design: Design, priors: Priors) -> list[_StandardDeviation]:
    return [
        _StandardDeviation(term, rows, j, prior, design.sufficient.levels_with(t, j))
        for t, (term, rows, term_priors) in enumerate(
            zip(design.terms, design.sufficient.terms, priors.terms, strict=True)
        )
        for j, prior in enumerate(term_priors.sd)
    ]


# The conditions


def _check_fixed(X: Array, names: Sequence[str]) -> None:
    kept = independent_columns(X)
    dependent = [name for j, name in enumerate(names) if j not in kept]
    if dependent:
        are = "is a combination" if len(dependent) == 1 else "are combinations"
        raise FitError(
            "flat priors on linearly dependent fixed effects leave the posterior improper: "
            f"{listed(dependent)} {are} of the columns before. Leave out what is not needed, or "
            "give it a proper prior with priors=, such as Normal."
        )


def _check_others(priors: Priors, family: Family) -> None:
    """Refuse flat priors on anything but fixed effects."""
    rows = priors.rows()
    names = [row.name for row in rows if not row.prior.proper and row.parameter != "beta"]
    if names:
        raise FitError(
            f"{_flat_on(names)} cannot be used in a {family.name} model: whether the posterior is "
            f"proper is known for normal responses only. Give {_proper_ones(names)} with priors=, "
            "such as HalfNormal or Gamma."
        )


def _check_pinned(design: Design, priors: Priors, names: Sequence[str], family: Family) -> None:
    """Refuse flat priors on fixed effects along which the likelihood does not fall to zero.

    A proper prior without a moment of order p_F does not keep flat ones from infinity.
    """
    if not names:
        return
    if family.link.name not in family.pins:
        raise FitError(
            f"{_flat_on(names)} cannot be used in a {family.name} model with {family.link.name} "
            "link, whose likelihood is not known to fall to zero fast enough as the linear "
            f"predictor goes to infinity. Give {_proper_ones(names)} with priors=, such as Normal."
        )
    free = [prior.moments <= len(names) for prior in priors.beta]
    fixed = tuple(name for name, is_free in zip(priors.fixed, free, strict=True) if is_free)
    X = _columns_of_priors(design, priors)[:, free]
    free_design = replace(design.with_rows(X=X), fixed=fixed)
    separated = [name for name in separated_columns(free_design, family) if name in names]
    if separated:
        raise FitError(
            f"{_flat_on(separated)} {'leaves' if len(separated) == 1 else 'leave'} the posterior "
            "improper: the data are separated, so that the likelihood does not fall to zero along "
            f"{'it' if len(separated) == 1 else 'them'}. Give {_proper_ones(separated)} with "
            "priors=, such as Normal."
        )


def _flat_on(names: Sequence[str]) -> str:
    return f"{'a flat prior' if len(names) == 1 else 'flat priors'} on {listed(names)}"


def _proper_ones(names: Sequence[str]) -> str:
    return "it a proper prior" if len(names) == 1 else "them proper priors"


def _check_sigma(
    design: Design, priors: Priors, flats: Sequence[_StandardDeviation], p: int
) -> None:
    absolute = [flat.name for flat in flats if not flat.is_relative]
    if not priors.sigma.proper and design.n_obs - p <= 1 + len(absolute):
        raise FitError(
            f"{'flat priors' if absolute else 'a flat prior'} on {listed(['sigma', *absolute])} "
            f"{'leave' if absolute else 'leaves'} the posterior improper: with {p} flat priors on "
            f"fixed effects at least {p + 2 + len(absolute)} rows are needed, and there "
            f"{'is' if design.n_obs == 1 else 'are'} {design.n_obs}. Give `sigma` a proper prior "
            "with priors=, such as HalfStudentT."
        )


def _check_sds(flats: Sequence[_StandardDeviation], X: Array) -> None:
    """Refuse a set T of standard deviations with r(T) <= |T|.

    Where an sd has more than p_F + |all flat sds| levels, r(T) > |T| for every T it is in. For
    the others take a random vector from the span of each one's columns, orthogonal to X_F: they
    are independent if and only if r(T) >= |T| for all T (Rado 1942, Quarterly J. Mathematics 13,
    83-89), exceptions having probability zero. With two vectors of one of them that is
    r(T) > |T| where T contains it.
    """
    few = [flat for flat in flats if len(flat.levels) <= X.shape[1] + len(flats)]
    bases = _orthogonal_bases(X, few)
    rng = np.random.default_rng(0)
    vectors = [(i, _random_vector(basis, rng)) for i, basis in enumerate(bases)]
    for i, basis in enumerate(bases):
        ordered = [vectors[i], (i, _random_vector(basis, rng)), *vectors[:i], *vectors[i + 1 :]]
        dependent = _dependent([vector for _, vector in ordered])
        if dependent:
            T = [few[j] for j in dict.fromkeys(ordered[h][0] for h in dependent)]
            raise FitError(_improper(T, len(dependent) - 1))


def _improper(T: Sequence[_StandardDeviation], rank: int) -> str:
    """Say what a set of standard deviations with flat priors lacks; `rank` is its r(T)."""
    flat, levels = T[0], len(T[0].levels)
    coef, factor = flat.term.coefs[flat.j], flat.term.factor
    if len(T) == 1 and levels - rank <= 1:
        where = "" if coef == "Intercept" else f" with `{coef}` other than 0"
        there = f"there is {levels}" if levels == 1 else f"there are {levels}"
        lacks = f"it needs at least {levels - rank + 2} levels of `{factor}`{where}, and {there}"
    else:
        they = "it needs" if len(T) == 1 else "together they need"
        lacks = (
            f"{they} random effects of rank {len(T) + 1} beside the fixed effects that have flat "
            f"priors, and the rank is {rank}"
        )
    leaves, which = ("leaves", "it") if len(T) == 1 else ("leave", "one of them")
    return (
        f"{_flat_on([flat.name for flat in T])} {leaves} the posterior improper: {lacks}. "
        f"Give {which} a proper prior with priors=, such as HalfNormal or HalfStudentT."
    )


def _check_saturated(design: Design, priors: Priors, flats: Sequence[_StandardDeviation]) -> None:
    relative = [flat.name for flat in flats if flat.is_relative]
    if len(relative) >= 1 + _order_at_zero(priors.sigma) and _fits_all_rows(design, priors):
        raise FitError(
            f"a flat prior on {listed(relative)} relative to sigma leaves the posterior improper: "
            "the model has as many effects as rows, so that sigma can go to zero. Give the ratio "
            "a proper prior with priors=, such as Relative(HalfNormal(1))."
        )


def _order_at_zero(prior: Prior) -> float:
    """Return the power with which the density of sigma vanishes at zero."""
    if isinstance(prior, Gamma):
        return prior.alpha - 1
    if isinstance(prior, Constant | InverseGamma | LogNormal):
        return math.inf
    return math.inf if isinstance(prior, Uniform) and prior.lower > 0 else 0.0


def keeps_from_zero(prior: Prior) -> bool:
    """Whether a density vanishes at zero faster than any power: sigma stays away from it."""
    return _order_at_zero(prior) == math.inf


def _fits_all_rows(design: Design, priors: Priors) -> bool:
    """Whether the effects that do not vanish with sigma can fit every response exactly."""
    sds = [
        sd
        for sd in _standard_deviations(design, priors)
        if not (sd.is_relative and sd.prior.proper)
    ]
    counts = [len(sd.levels) for sd in sds]
    if max(counts) == design.n_obs or design.sufficient.X.shape[1] + sum(counts) < design.n_obs:
        return max(counts) == design.n_obs
    rows = np.arange(len(design.sufficient.X))
    columns = np.column_stack([design.sufficient.X, *(_columns(sd, rows) for sd in sds)])
    return len(independent_columns(columns)) == design.n_obs


# Linear algebra


def _columns(sd: _StandardDeviation, rows: Integers) -> Array:
    """Return rows of the columns of Z that belong to a standard deviation, scaled to length 1."""
    column, codes = sd.rows.columns[:, sd.j], sd.rows.codes
    size = np.sqrt(np.bincount(codes, column**2))[sd.levels]
    indicators = codes[rows, None] == sd.levels
    return np.asarray(indicators * column[rows, None] / size)


def _orthogonal_bases(X: Array, sds: Sequence[_StandardDeviation]) -> list[Array]:
    """Return for each standard deviation its columns' residuals from X, in a common basis.

    The residuals come from the triangular factor of all columns, updated by chunks of rows.
    """
    n, p = X.shape
    X = X / np.linalg.norm(X, axis=0)
    stops = np.cumsum([p, *(len(sd.levels) for sd in sds)])
    R = np.zeros((0, stops[-1]))
    for start in range(0, n if sds else 0, MAX_ROWS):
        rows = np.arange(start, min(start + MAX_ROWS, n))
        chunk = np.column_stack([X[rows], *(_columns(sd, rows) for sd in sds)])
        R = np.linalg.qr(np.vstack([R, chunk]), mode="r")
    return [R[p:, a:b] for a, b in pairwise(stops)]


def _random_vector(basis: Array, rng: np.random.Generator) -> Array:
    weights = rng.normal(size=basis.shape[1])
    return np.asarray(basis @ (weights / np.linalg.norm(weights)))


def _dependent(vectors: Sequence[Array]) -> list[int]:
    """Return the first set of dependent vectors; empty if there is none."""
    A = np.column_stack(vectors)
    for i in range(A.shape[1]):
        shares = np.linalg.lstsq(A[:, :i], A[:, i], rcond=None)[0]
        if np.linalg.norm(A[:, i] - A[:, :i] @ shares) < RANK_TOLERANCE:
            return [*np.flatnonzero(np.abs(shares) > MIN_SHARE).tolist(), i]
    return []
