"""The named sets of priors: who gets which prior where the user gives none.

A set is a record of functions of the design and the family. Its priors of the fixed effects may
hold at centred predictors, those of a correlated term at the nearest predictors to zero that were
observed; see `ranef.priors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm
from ranef.errors import FitError
from ranef.families.family import Family, PriorForm
from ranef.families.links import LOGIT
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
    Uniform,
    prior_of,
)
from ranef.priors.scales import (
    column_scale,
    link_scale,
    lower_columns,
    median,
    median_deviation,
    observed_mean,
    response_scale,
)

_BOUNDARY_RATE = 1e-4  # of a Gamma prior in units of the sd's scale: its pull inwards is not felt
_SHIFTED_LINKS = ("log", "inverse", "inverse_squared")  # for which brms moves a zero to 0.1
_BRMS_LINKS = ("identity", "sqrt", *_SHIFTED_LINKS)  # on whose scale brms takes the response

type Columns = Callable[[int], Array]


@dataclass(frozen=True)
class PriorSet:
    """A prior for every kind of parameter.

    Attributes
    ----------
    intercept : function of (design, family)
    slope : function of (design, family, centred, j)
        Of a fixed effect other than the intercept; `centred(j)` is its column, centred if it is.
    sigma : function of (design, family)
        Asked for only where the family has a sigma.
    parameter : function of (family, name)
        Of a parameter of the family's own, besides sigma.
    sd : function of (design, family, term, unit)
        Of a coefficient of a random term; `unit` is its size where the linear predictor has
        size 1: 1 / s for a column with standard deviation s.
    corr : LKJ
        Of the correlation matrix of a random term.
    centres : function of (design), or None
        Which columns each fixed column is centred at, as for `ranef.priors.scales.centring`;
        None if the priors hold at zero predictors.
    follows_data : bool
        Whether the priors of a correlated term follow the data where these are far from zero
        predictors.
    """

    intercept: Callable[[Design, Family], Prior]
    slope: Callable[[Design, Family, Columns, int], Prior]
    sigma: Callable[[Design, Family], Prior]
    parameter: Callable[[Family, str], Prior]
    sd: Callable[[Design, Family, RandomTerm, float], Prior]
    corr: LKJ
    centres: Callable[[Design], Sequence[tuple[int, ...]]] | None = None
    follows_data: bool = False


# Defaults


def _default_intercept(design: Design, family: Family) -> Normal:
    scale = link_scale(design, family)
    return Normal(scale.location, scale.intercept)


def _default_slope(design: Design, family: Family, centred: Columns, j: int) -> Normal:
    scale = link_scale(design, family).slope
    return Normal(
        0, scale / column_scale(design.unweighted, centred(j)) if design.numeric[j] else scale
    )


def _default_sigma(design: Design, family: Family) -> Prior:
    """Return a prior under which responses may be as spread as the response is, or as its mean.

    A gamma response with sigma = 1 is exponential; an inverse Gaussian one has the standard
    deviation sigma mu^(3/2), which is as large as a mean mu at sigma = mu^(-1/2).
    """
    sigma, mean = family.parameter("sigma"), observed_mean(design, family)
    spread = mean if sigma.spread == "mean" else response_scale(design, family)
    ones = [1.0] * len(family.parameters)
    variance = float(family.variance(np.array(mean), *ones))
    unit = math.sqrt(variance) if math.isfinite(variance) else 1.0
    return prior_of(sigma.default, spread * math.sqrt(design.total_weight / design.n_obs) / unit)


def _default_parameter(family: Family, name: str) -> Prior:
    return prior_of(family.parameter(name).default)


def _default_sd(design: Design, family: Family, _: RandomTerm, unit: float) -> Prior:
    scale = link_scale(design, family)
    return scale.sd_prior(scale.sd * unit)


def _lower_columns(design: Design) -> list[tuple[int, ...]]:
    return lower_columns(design.origins)


# Avoiding the boundary: zero variances and perfect correlations


def _boundary_sd(design: Design, family: Family, term: RandomTerm, unit: float) -> Gamma:
    scale = link_scale(design, family).sd * unit
    return Gamma(2.5 if term.covariance.has_correlations else 2, _BOUNDARY_RATE / scale)


# The priors of brms, as its `default_prior` gives them


def _brms_response(design: Design, family: Family) -> Array:
    """Return the response on the scale of the link, of which brms takes location and scale."""
    counts = design.sufficient.repeats
    if family.link.name not in _BRMS_LINKS:
        return np.zeros(len(design.sufficient.y))
    rows = design.distinct
    each = rows.weights if counts is None else rows.weights / counts
    y = rows.y * each if family.has_trials else rows.y
    if family.link.name in _SHIFTED_LINKS:
        y = np.where(y == 0, 0.1, y)
    with np.errstate(all="ignore"):
        eta = family.link.link(y)
    return eta if np.isfinite(eta).all() else np.zeros(len(eta))


def _brms_scale(design: Design, family: Family) -> float:
    eta = _brms_response(design, family)
    return max(2.5, round(median_deviation(eta, design.sufficient.repeats), 1))


def _brms_intercept(design: Design, family: Family) -> StudentT:
    offset = (
        design.unweighted.mean(design.unweighted.offset) if family.link.name in _BRMS_LINKS else 0.0
    )
    eta = median(_brms_response(design, family), design.sufficient.repeats)
    location = 0.0 + round(eta, 1)  # no minus zero
    return StudentT(3, location - offset, _brms_scale(design, family))


def _brms_sigma(design: Design, family: Family) -> Prior:
    return _package_prior("brms", family, "sigma", _brms_scale(design, family))


def _brms_sd(design: Design, family: Family, *_: object) -> HalfStudentT:
    return HalfStudentT(3, _brms_scale(design, family))


def _at_means(design: Design) -> list[tuple[int, ...]]:
    """Return the intercept as the centre of every other column: its mean is taken off."""
    intercept = design.fixed.index("Intercept")
    return [() if j == intercept else (intercept,) for j in range(len(design.fixed))]


# The priors of rstanarm's stan_lmer and stan_glmer with the default `autoscale`


def _rstanarm_intercept(design: Design, family: Family) -> Normal:
    if not family.is_linear:
        return Normal(0, 2.5)
    return Normal(
        design.unweighted.mean(design.unweighted.y), 2.5 * _rstanarm_scale(design, family)
    )


def _rstanarm_slope(design: Design, family: Family, centred: Columns, j: int) -> Normal:
    scale = _rstanarm_scale(design, family) if family.is_linear else 1.0
    return Normal(0, 2.5 * scale / (design.unweighted.spread(centred(j)) or 1.0))


def _rstanarm_sigma(design: Design, family: Family) -> Prior:
    return _package_prior("rstanarm", family, "sigma", _rstanarm_scale(design, family))


def _rstanarm_scale(design: Design, family: Family) -> float:
    return design.unweighted.spread(design.unweighted.y) or response_scale(
        design, family
    )  # which raises the error


def _rstanarm_sd(_: Design, family: Family, term: RandomTerm, *_rest: object) -> Prior:
    if term.covariance.has_correlations:
        raise FitError(
            f'priors: "rstanarm" has no prior for {term.text}: its decov prior divides one trace '
            "among the variances of correlated coefficients, which makes them dependent. "
            f"Write {' || '.join(term.text.rsplit(' | ', 1))}, or give `sd_{term.label}` a prior."
        )
    has_sigma = family.parameter("sigma").rstanarm is not None
    return Relative(Exponential(1)) if has_sigma else Exponential(1)


def _package_prior(package: str, family: Family, name: str, *scale: float) -> Prior:
    """Return the prior that a package gives a parameter; refuse where it has none."""
    parameter = family.parameter(name)
    form: PriorForm | None = getattr(parameter, package)
    if form is None:
        why = parameter.elsewhere or f"it knows no {family.name} family with that parameter"
        raise FitError(
            f'priors: "{package}" has no prior for `{name}`: {why}. Give it one, as in '
            f'{{"base": "{package}", "{name}": Exponential(1)}}.'
        )
    return prior_of(form, *scale)


def _flat(*_: object) -> Flat:
    return Flat()


def _flat_parameter(family: Family, name: str) -> Prior:
    return Uniform(0, 1) if family.parameter(name).link == LOGIT else Flat()


_FLAT = PriorSet(_flat, _flat, _flat, _flat_parameter, _flat, LKJ(1))
SETS = {
    "default": PriorSet(
        intercept=_default_intercept,
        slope=_default_slope,
        sigma=_default_sigma,
        parameter=_default_parameter,
        sd=_default_sd,
        corr=LKJ(2),
        centres=_lower_columns,
        follows_data=True,
    ),
    "flat": _FLAT,
    "boundary": replace(_FLAT, sd=_boundary_sd, corr=LKJ(1.75)),
    "brms": PriorSet(
        intercept=_brms_intercept,
        slope=_flat,
        sigma=_brms_sigma,
        parameter=partial(_package_prior, "brms"),
        sd=_brms_sd,
        corr=LKJ(1),
        centres=_at_means,
    ),
    "rstanarm": PriorSet(
        intercept=_rstanarm_intercept,
        slope=_rstanarm_slope,
        sigma=_rstanarm_sigma,
        parameter=partial(_package_prior, "rstanarm"),
        sd=_rstanarm_sd,
        corr=LKJ(1),
        centres=_at_means,
    ),
}
