"""The named sets of priors: who gets which prior where the user gives none.

A set is a record of functions of the design and the family. Its priors of the fixed effects may
hold at centred predictors, those of a correlated term at centred columns; see `ranef.priors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.priors.distributions import (
    LKJ,
    Exponential,
    Flat,
    Gamma,
    HalfStudentT,
    Normal,
    Prior,
    Relative,
    StudentT,
    prior_of,
)
from ranef.priors.scales import (
    MAD,
    link_scale,
    lower_columns,
    mean_response,
    response_scale,
    spread,
)

_BOUNDARY_RATE = 1e-4  # of a Gamma prior in units of the sd's scale: its pull inwards is not felt


@dataclass(frozen=True)
class PriorSet:
    """A prior for every kind of parameter.

    Attributes
    ----------
    intercept : function of (design, family)
    slope : function of (design, family, columns, j)
        Of a fixed effect other than the intercept; `columns` is X, centred if it is.
    sigma : function of (design, family)
        Asked for only where the family has a sigma.
    parameter : function of (family, name)
        Of a parameter of the family's own, besides sigma.
    sd : function of (design, family, term, columns, j, far)
        Of a coefficient of a random term; `far` says that there are numeric slopes besides
        its intercept, which are not centred.
    corr : LKJ
    below : function of (design), or None
        Which columns each fixed column is centred at, as for `ranef.priors.scales.centring`;
        None if the priors hold at zero predictors.
    centres_terms : bool
        Whether the numeric columns of correlated terms are centred.
    """

    intercept: Callable[[Design, Family], Prior]
    slope: Callable[[Design, Family, Array, int], Prior]
    sigma: Callable[[Design, Family], Prior]
    parameter: Callable[[Family, str], Prior]
    sd: Callable[[Design, Family, RandomTerm, Array, int, bool], Prior]
    corr: LKJ
    below: Callable[[Design], Sequence[tuple[int, ...]]] | None = None
    centres_terms: bool = False


# Defaults


def _default_intercept(design: Design, family: Family) -> Normal:
    scale = link_scale(design, family)
    return Normal(scale.location, scale.intercept)


def _default_slope(design: Design, family: Family, columns: Array, j: int) -> Normal:
    scale = link_scale(design, family).slope
    return Normal(0, scale / _column_scale(columns[:, j], numeric=design.numeric[j]))


def _default_sigma(design: Design, family: Family) -> Prior:
    """Return a prior under which responses may be as spread as the response is, or as its mean.

    A gamma response with sigma = 1 is exponential; an inverse Gaussian one has the standard
    deviation sigma mu^(3/2), which is as large as a mean mu at sigma = mu^(-1/2).
    """
    sigma, mean = family.parameter("sigma"), mean_response(design, family)
    spread = mean if sigma.spread == "mean" else response_scale(design, family)
    ones = [1.0] * len(family.parameters)
    variance = float(family.variance(np.array(mean), *ones))
    unit = math.sqrt(variance) if math.isfinite(variance) else 1.0
    return prior_of(sigma.default, spread * math.sqrt(design.weights.mean()) / unit)


def _default_parameter(family: Family, name: str) -> Prior:
    return prior_of(family.parameter(name).default)


def _default_sd(  # noqa: PLR0917 -- as all sets
    design: Design, family: Family, term: RandomTerm, columns: Array, j: int, far: bool
) -> Prior:
    half = link_scale(design, family).half
    return half(_sd_scale(design, family, term, columns, j, far))


def _sd_scale(  # noqa: PLR0917 -- as all sets
    design: Design, family: Family, term: RandomTerm, columns: Array, j: int, far: bool
) -> float:
    """Return the default's, for an intercept at zero predictors as wide as slopes make it there."""
    column_scale = _column_scale(columns[:, j], numeric=term.numeric[j])
    scale = link_scale(design, family).sd / column_scale
    if far and term.coefs[j] == "Intercept":
        measured = term.columns[:, list(term.numeric)]
        scale *= math.sqrt(1 + float(np.sum((measured.mean(0) / measured.std(0, ddof=1)) ** 2)))
    return scale


def _lower_columns(design: Design) -> list[tuple[int, ...]]:
    return lower_columns(design.origins)


# Avoiding the boundary: zero variances and perfect correlations


def _boundary_sd(  # noqa: PLR0917 -- as all sets
    design: Design, family: Family, term: RandomTerm, columns: Array, j: int, far: bool
) -> Gamma:
    scale = _sd_scale(design, family, term, columns, j, far)
    return Gamma(2.5 if term.covariance.has_correlations else 2, _BOUNDARY_RATE / scale)


# Those of brms, as its `default_prior` gives them


_MOVED_FROM_ZERO = ("log", "inverse", "inverse_squared")  # links of which brms shifts a zero
_BRMS_LINKS = ("identity", "sqrt", *_MOVED_FROM_ZERO)  # on which it looks at the response


def _brms_response(design: Design, family: Family) -> Array:
    """Return what brms takes location and scale from: the response on the scale of the link."""
    if family.link.name not in _BRMS_LINKS:
        return np.zeros(1)
    y = design.y * design.weights if family.has_trials else design.y
    if family.link.name in _MOVED_FROM_ZERO:
        y = np.where(y == 0, 0.1, y)
    with np.errstate(all="ignore"):
        eta = family.link.link(y)
    return eta if np.isfinite(eta).all() else np.zeros(1)


def _brms_scale(design: Design, family: Family) -> float:
    eta = _brms_response(design, family)
    mad = MAD * float(np.median(np.abs(eta - np.median(eta))))
    return max(2.5, round(mad, 1))


def _brms_intercept(design: Design, family: Family) -> StudentT:
    known = float(np.mean(design.offset)) if family.link.name in _BRMS_LINKS else 0.0
    location = 0.0 + round(float(np.median(_brms_response(design, family))), 1)  # no minus zero
    return StudentT(3, location - known, _brms_scale(design, family))


def _brms_sigma(design: Design, family: Family) -> Prior:
    return _brms_parameter(family, "sigma", _brms_scale(design, family))


def _brms_parameter(family: Family, name: str, *scale: float) -> Prior:
    form = family.parameter(name).brms
    if form is None:
        raise _none("brms", name, family)
    return prior_of(form, *scale)


def _brms_sd(design: Design, family: Family, *_: object) -> HalfStudentT:
    return HalfStudentT(3, _brms_scale(design, family))


def _at_means(design: Design) -> list[tuple[int, ...]]:
    """Return what centres each column at its mean, whatever it is made of."""
    intercept = design.fixed.index("Intercept")
    return [() if j == intercept else (intercept,) for j in range(len(design.fixed))]


# Those of rstanarm's stan_lmer and stan_glmer with its default `autoscale`


def _rstanarm_intercept(design: Design, family: Family) -> Normal:
    if not family.is_normal:
        return Normal(0, 2.5)
    return Normal(float(np.mean(design.y)), 2.5 * _rstanarm_scale(design, family))


def _rstanarm_slope(design: Design, family: Family, columns: Array, j: int) -> Normal:
    scale = _rstanarm_scale(design, family) if family.is_normal else 1.0
    return Normal(0, 2.5 * scale / (spread(columns[:, j]) or 1.0))


def _rstanarm_sigma(design: Design, family: Family) -> Prior:
    return _rstanarm_parameter(family, "sigma", _rstanarm_scale(design, family))


def _rstanarm_parameter(family: Family, name: str, *scale: float) -> Prior:
    form = family.parameter(name).rstanarm
    if form is None:
        raise _none("rstanarm", name, family)
    return prior_of(form, *scale)


def _rstanarm_scale(design: Design, family: Family) -> float:
    return spread(design.y) or response_scale(design, family)  # which says what is wrong


def _rstanarm_sd(_: Design, family: Family, term: RandomTerm, *_rest: object) -> Prior:
    if term.covariance.has_correlations:
        raise FitError(
            f'priors: "rstanarm" has no prior for {term.text}: its decov prior divides one trace '
            "among the variances of correlated coefficients, which makes them dependent. "
            f"Write {' || '.join(term.text.rsplit(' | ', 1))}, or give `sd_{term.label}` a prior."
        )
    has_sigma = family.parameter("sigma").rstanarm is not None
    return Relative(Exponential(1)) if has_sigma else Exponential(1)


def _none(name: str, parameter: str, family: Family) -> FitError:
    why = family.parameter(parameter).elsewhere
    why = why or f"it knows no {family.name} family with that parameter"
    return FitError(
        f'priors: "{name}" has no prior for `{parameter}`: {why}. Give it one, as in '
        f'{{"base": "{name}", "{parameter}": Exponential(1)}}.'
    )


SETS = {
    "default": PriorSet(
        intercept=_default_intercept,
        slope=_default_slope,
        sigma=_default_sigma,
        parameter=_default_parameter,
        sd=_default_sd,
        corr=LKJ(2),
        below=_lower_columns,
        centres_terms=True,
    ),
    "flat": PriorSet(
        intercept=lambda *_: Flat(),
        slope=lambda *_: Flat(),
        sigma=lambda *_: Flat(),
        parameter=lambda *_: Flat(),
        sd=lambda *_: Flat(),
        corr=LKJ(1),
    ),
    "boundary": PriorSet(
        intercept=lambda *_: Flat(),
        slope=lambda *_: Flat(),
        sigma=lambda *_: Flat(),
        parameter=lambda *_: Flat(),
        sd=_boundary_sd,
        corr=LKJ(1.75),
    ),
    "brms": PriorSet(
        intercept=_brms_intercept,
        slope=lambda *_: Flat(),
        sigma=_brms_sigma,
        parameter=_brms_parameter,
        sd=_brms_sd,
        corr=LKJ(1),
        below=_at_means,
    ),
    "rstanarm": PriorSet(
        intercept=_rstanarm_intercept,
        slope=_rstanarm_slope,
        sigma=_rstanarm_sigma,
        parameter=_rstanarm_parameter,
        sd=_rstanarm_sd,
        corr=LKJ(1),
        below=_at_means,
    ),
}


def _column_scale(column: Array, *, numeric: bool) -> float:
    """Return the standard deviation; of a constant column the size of its values."""
    return (spread(column) or abs(float(column[0])) or 1.0) if numeric else 1.0
