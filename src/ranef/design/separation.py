"""Separation: fixed effects along which the likelihood of discrete data rises without end.

A row whose response is at the end of its range (a failure, a success, a count of zero) is the
better explained the further its linear predictor goes to that end; any other row only up to a
point. A direction d of the coefficients that moves some rows of the first kind their way, x'd > 0,
none of them the other way, and no other row at all, x'd = 0, raises the likelihood for ever: there
is no maximum likelihood estimate. Without such a direction there is one (Albert & Anderson 1984 for
logistic, Haberman 1974 for log-linear models). To look for it is a linear programme (Konis 2007).

The same direction leaves a model with random effects without an estimate: given any values of them
the likelihood rises along it, strictly, and so does its mean over them, which is the likelihood of
the model (though not always an approximation to it). The converse does not hold: without separation
the variance of random effects can still be without an estimate.
"""

from __future__ import annotations

from itertools import compress

import numpy as np
import scipy
from scipy import special
from scipy.linalg import null_space

from ranef._typing import Array, Flags
from ranef.design.design import Design
from ranef.families.family import Family
from ranef.formula.terms import INTERCEPT
from ranef.numerics.matrices import threads_for

MAX_ZERO_MOVE = 1e-6  # of a row or a coefficient, relative to a mean or a largest one of 1
BALANCE_TOLERANCE = 1e-9  # of a sum of rows that is to vanish
MAX_NEWTON_STEPS = 25


def separated_columns(design: Design, family: Family) -> tuple[str, ...]:
    """Return the fixed columns along which the likelihood rises without end.

    Parameters
    ----------
    design : Design
        Its columns of X linearly independent.
    family : Family

    Returns
    -------
    tuple of str
        Empty where there is no separation, or where the family and its link allow of none. The
        intercept is named only where nothing else is: a column that separates at a threshold, or
        in the reference level, moves the intercept along.

    Notes
    -----
    Data without separation mostly show it at once: positive multiples of their rows cancel. In
    other data a direction of few columns is looked for, by the least sum of absolute coefficients
    of scaled columns; then another among the rows that it does not move, and so on. There are at
    most as many directions as columns.

    Examples
    --------
    >>> import pandas as pd
    >>> from ranef.design.design import build_design
    >>> from ranef.families.binomial import BINOMIAL
    >>> from ranef.formula.terms import read_formula
    >>> frame = pd.DataFrame({"y": [0, 0, 0, 1, 1], "x": [1, 2, 3, 4, 5], "z": [1, 0, 1, 0, 1]})
    >>> design = build_design(read_formula("y ~ x + z"), frame, family=BINOMIAL)
    >>> separated_columns(design, BINOMIAL)
    ('x',)
    """
    if not family.reachable_ends:
        return ()
    sign = _wanted_moves(design.distinct.y, family)
    priced = np.array([name != INTERCEPT for name in design.fixed], dtype=bool)
    X = _scaled(design.distinct.X, priced)
    moved = X[sign != 0] * sign[sign != 0, None]
    still = np.linalg.qr(X[sign == 0], mode="r")  # has the row space of these rows
    with threads_for(len(priced)):
        if _is_balanced(moved, still):
            return ()
    involved = np.zeros(len(priced), dtype=bool)
    while (d := _direction(moved, still, priced)) is not None:
        involved |= np.abs(d) > MAX_ZERO_MOVE * np.abs(d).max()
        moved = moved[moved @ d <= MAX_ZERO_MOVE]
    if (involved & priced).any():
        involved &= priced
    return tuple(compress(design.fixed, involved))


def _wanted_moves(y: Array, family: Family) -> Array:
    """Return the sign of eta's way to the end that a row's response is at, or 0."""
    sign = np.zeros(len(y))
    if family.link.positive:
        return sign
    with np.errstate(all="ignore"):  # a link may not be made for the ends
        limits = family.link.inverse(np.array([-np.inf, np.inf]))
    for end, limit, direction in zip(family.reachable_ends, limits, (-1.0, 1.0), strict=False):
        if np.abs(limit - end) < MAX_ZERO_MOVE:
            sign[y == end] = direction
    return sign


def _scaled(X: Array, priced: Flags) -> Array:
    """Centre the columns if there is an intercept, and bring them to one scale.

    Centring changes the coefficient of the intercept alone, and helps with a predictor such as a
    year, which varies little next to its size.
    """
    if not priced.all():
        X = np.where(priced, X - X.mean(axis=0), X)
    size = np.sqrt(np.mean(X * X, axis=0))
    return np.asarray(X / np.where(size > 0, size, 1.0))


def _is_balanced(moved: Array, still: Array) -> bool:
    """Whether positive multiples of the moved rows cancel, within the space of the still ones.

    There is no direction exactly if they do (Stiemke 1915). The residuals of a logistic model of
    these rows are such multiples, where it has an estimate, which a few steps of Newton's show.
    """
    M = moved @ null_space(still)
    d = np.zeros(M.shape[1])
    for _ in range(MAX_NEWTON_STEPS):
        multiples = special.expit(-M @ d)
        total = M.T @ multiples
        smallest = multiples.min(initial=1.0)
        if np.linalg.norm(total) <= BALANCE_TOLERANCE * smallest * len(M):
            return True
        if smallest < BALANCE_TOLERANCE:  # on the way to infinity
            break
        try:
            d += np.linalg.solve((M.T * (multiples * (1 - multiples))) @ M, total)
        except np.linalg.LinAlgError:
            break
    return False


def _direction(moved: Array, still: Array, priced: Flags) -> Array | None:
    """Return the shortest d with moved d >= 0 and 1 on average, and still d = 0, or None."""
    if 0 in moved.shape:
        return None
    equal = np.vstack([moved.mean(axis=0), still])
    solution = scipy.optimize.linprog(
        np.tile(np.where(priced, 1.0, 0.0), 2),  # of the positive and of the negative parts
        A_ub=np.hstack([-moved, moved]),
        b_ub=np.zeros(len(moved)),
        A_eq=np.hstack([equal, -equal]),
        b_eq=np.arange(len(equal)) == 0,
    ).x
    if solution is None:  # no direction meets all constraints
        return None
    positive, negative = np.split(solution, 2)
    return np.asarray(positive - negative)
