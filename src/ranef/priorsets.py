"""The named sets of priors: who gets which prior where the user gives none.

A set is a record of functions of the design. Its priors of the fixed effects may hold at centred
predictors, those of a correlated term at centred columns; see `ranef.priors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranef.centring import lower_columns
from ranef.design import Design, RandomTerm
from ranef.distributions import (
    LKJ,
    Exponential,
    Flat,
    Gamma,
    HalfStudentT,
    Normal,
    Prior,
    Relative,
    StudentT,
)
from ranef.errors import DataError, FitError
from ranef.naming import has_corr

type Array = NDArray[np.float64]

_BOUNDARY_RATE = 1e-4  # of a Gamma prior in units of the sd's scale: its pull inwards is not felt
_MAD = 1.4826  # turns R's mad into the sd of a normal distribution


@dataclass(frozen=True)
class PriorSet:
    """A prior for every kind of parameter.

    Attributes
    ----------
    intercept : function of (design)
    slope : function of (design, columns, j)
        Of a fixed effect other than the intercept; `columns` is X, centred if it is.
    sigma : function of (design)
    sd : function of (design, term, columns, j, far)
        Of a coefficient of a random term; `far` says that there are numeric slopes besides
        its intercept, which are not centred.
    corr : LKJ
    below : function of (design), or None
        Which columns each fixed column is centred at, as for `ranef.centring.centring`;
        None if the priors hold at zero predictors.
    centres_terms : bool
        Whether the numeric columns of correlated terms are centred.
    """

    intercept: Callable[[Design], Prior]
    slope: Callable[[Design, Array, int], Prior]
    sigma: Callable[[Design], Prior]
    sd: Callable[[Design, RandomTerm, Array, int, bool], Prior]
    corr: LKJ
    below: Callable[[Design], Sequence[tuple[int, ...]]] | None = None
    centres_terms: bool = False


# Defaults


def _default_intercept(design: Design) -> Normal:
    z = design.y - design.offset
    return Normal(float(np.mean(z)), 2.5 * _response_scale(design, z))


def _default_slope(design: Design, columns: Array, j: int) -> Normal:
    scale = 2.5 * _response_scale(design, design.y - design.offset)
    return Normal(0, scale / _column_scale(columns[:, j], numeric=design.numeric[j]))


def _default_sigma(design: Design) -> HalfStudentT:
    scale = _response_scale(design, design.y - design.offset)
    return HalfStudentT(3, scale * math.sqrt(design.weights.mean()))


def _default_sd(
    design: Design, term: RandomTerm, columns: Array, j: int, far: bool
) -> HalfStudentT:
    """Return the default, for an intercept at zero predictors as wide as slopes make it there."""
    column_scale = _column_scale(columns[:, j], numeric=term.numeric[j])
    scale = _response_scale(design, design.y - design.offset) / column_scale
    if far and term.coefs[j] == "Intercept":
        measured = term.columns[:, list(term.numeric)]
        scale *= math.sqrt(1 + float(np.sum((measured.mean(0) / measured.std(0, ddof=1)) ** 2)))
    return HalfStudentT(3, scale)


def _lower_columns(design: Design) -> list[tuple[int, ...]]:
    return lower_columns(design.origins)


# Avoiding the boundary: zero variances and perfect correlations


def _boundary_sd(design: Design, term: RandomTerm, columns: Array, j: int, far: bool) -> Gamma:
    scale = _default_sd(design, term, columns, j, far).sigma
    return Gamma(2.5 if has_corr(term) else 2, _BOUNDARY_RATE / scale)


# Those of brms, as its `default_prior` gives them for a Gaussian response


def _brms_scale(design: Design) -> float:
    mad = _MAD * float(np.median(np.abs(design.y - np.median(design.y))))
    return max(2.5, round(mad, 1))


def _brms_intercept(design: Design) -> StudentT:
    return StudentT(3, round(float(np.median(design.y)), 1), _brms_scale(design))


def _brms_sd(design: Design) -> HalfStudentT:
    return HalfStudentT(3, _brms_scale(design))


def _at_means(design: Design) -> list[tuple[int, ...]]:
    """Return what centres each column at its mean, whatever it is made of."""
    intercept = design.fixed.index("Intercept")
    return [() if j == intercept else (intercept,) for j in range(len(design.fixed))]


# Those of rstanarm's stan_lmer with its default `autoscale`


def _rstanarm_intercept(design: Design) -> Normal:
    return Normal(float(np.mean(design.y)), 2.5 * _response_scale(design, design.y))


def _rstanarm_slope(design: Design, columns: Array, j: int) -> Normal:
    return Normal(0, 2.5 * _response_scale(design, design.y) / (_sd(columns[:, j]) or 1.0))


def _rstanarm_sd(design: Design, term: RandomTerm, _: Array, _j: int, _far: bool) -> Relative:  # noqa: ARG001 -- as all sets
    if has_corr(term):
        raise FitError(
            f'priors: "rstanarm" has no prior for {term.text}: its decov prior divides one trace '
            "among the variances of correlated coefficients, which makes them dependent. "
            f"Write {' || '.join(term.text.rsplit(' | ', 1))}, or give `sd_{term.label}` a prior."
        )
    return Relative(Exponential(1))


SETS = {
    "default": PriorSet(
        intercept=_default_intercept,
        slope=_default_slope,
        sigma=_default_sigma,
        sd=_default_sd,
        corr=LKJ(2),
        below=_lower_columns,
        centres_terms=True,
    ),
    "flat": PriorSet(
        intercept=lambda _: Flat(),
        slope=lambda *_: Flat(),
        sigma=lambda _: Flat(),
        sd=lambda *_: Flat(),
        corr=LKJ(1),
    ),
    "boundary": PriorSet(
        intercept=lambda _: Flat(),
        slope=lambda *_: Flat(),
        sigma=lambda _: Flat(),
        sd=_boundary_sd,
        corr=LKJ(1.75),
    ),
    "brms": PriorSet(
        intercept=_brms_intercept,
        slope=lambda *_: Flat(),
        sigma=_brms_sd,
        sd=lambda design, *_: _brms_sd(design),
        corr=LKJ(1),
        below=_at_means,
    ),
    "rstanarm": PriorSet(
        intercept=_rstanarm_intercept,
        slope=_rstanarm_slope,
        sigma=lambda design: Exponential(_response_scale(design, design.y)),
        sd=_rstanarm_sd,
        corr=LKJ(1),
        below=_at_means,
    ),
}


# Scales


def _response_scale(design: Design, y: Array) -> float:
    scale = _sd(y)
    if scale == 0.0:
        raise DataError(
            f"The response `{design.response}` does not vary, so the default priors have no scale; "
            "give priors for all parameters."
        )
    return scale


def _column_scale(column: Array, *, numeric: bool) -> float:
    """Return the standard deviation; of a constant column the size of its values."""
    return (_sd(column) or abs(float(column[0])) or 1.0) if numeric else 1.0


def _sd(values: Array) -> float:
    return float(np.std(values, ddof=1)) if np.ptp(values) > 0 else 0.0
