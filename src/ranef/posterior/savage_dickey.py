"""The Savage-Dickey density ratio of a fixed effect, standard deviation or correlation at zero.

A model in which a parameter is zero is compared with one in which it is free by the two densities
of the full model at zero: posterior over prior. That holds where the other parameters have the
same prior in both, as they have where priors are independent. The posterior density at zero is
an integral over all other parameters, which is done on a lattice of its own: at the end of the
range of an sd no density is estimated from draws, or smoothed.

Equation `savage-dickey` in docs/mathematics.
Source: Dickey (1971), *Annals of Mathematical Statistics* 42, 204-223; Verdinelli & Wasserman
(1995), *J. American Statistical Association* 90, 614-618 (its conditions).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array
from ranef.errors import FitError, suggestion
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.quadrature.marginal_densities import Curve
from ranef.posterior.quadrature.moments import Exact
from ranef.posterior.transforms import LOG, Coordinate, Space, coordinate, log_pdf
from ranef.printing.summary import InNotebook
from ranef.priors.assignment import AT_MEAN, Priors, TermPriors
from ranef.priors.distributions import (
    Constant,
    Gamma,
    InverseGamma,
    LogNormal,
    Prior,
    Relative,
    Uniform,
)
from ranef.priors.scales import moved_coefs

FLAT = (
    "`{}` has a flat prior, which is no density: its Bayes factor is not defined. Give it a proper "
    "prior with priors=, such as {}."
)
DRAWN_POINTS = 400  # of a density
ZERO_SD = 1e-100  # an sd over sigma that makes no difference from zero, but has a logarithm


@dataclass(frozen=True, repr=False)
class DensityRatio(InNotebook):
    """The Bayes factor of the model in which a parameter is zero, against the one with it.

    Attributes
    ----------
    name : str
        Of the parameter.
    log_bf01 : float
        log p(y | it is zero) - log p(y).
    posterior, prior : float
        Densities of the parameter at zero; of sd / sigma, where that ratio has the prior.
    error : float
        An estimate of the numerical error of `log_bf01`.
    """

    name: str
    log_bf01: float
    posterior: float
    prior: float
    error: float

    @property
    def bf01(self) -> float:
        """The Bayes factor; above 1 the data speak for zero."""
        return float(np.exp(self.log_bf01))

    def __str__(self) -> str:
        return (
            f"Bayes factor {self.bf01:.3g} of `{self.name}` = 0: density there "
            f"{self.posterior:.3g} after the data, {self.prior:.3g} before"
        )


def savage_dickey(
    exact: Exact, name: str, priors: Priors, density: Callable[[Priors], LinearPosterior]
) -> DensityRatio:
    """Compare the model in which a parameter is zero with the one that was fitted.

    Parameters
    ----------
    exact : Exact
        The posterior by quadrature.
    name : str
        `Days`; `sd_Subject[Days]`, `corr_Subject[Intercept, Days]`; `sd_Batch` of a term with one
        coefficient.
    priors : Priors
        Of the model.
    density : callable
        The posterior density of the same data under other priors.

    Raises
    ------
    FitError
        If there is no such parameter, it is known, its prior holds at other predictors than zero,
        where an sd or correlation of zero is another model, or its prior has no density at zero,
        or one of zero or infinity.

    Notes
    -----
    Without an sd its correlations are no part of the model. The correlations of the other
    coefficients have their marginal prior, LKJ(eta + 1/2) instead of LKJ(eta) (Lewandowski,
    Kurowicka & Joe 2009).
    """
    effects = _effects(priors)
    given: object = name  # whatever it may really be
    if not isinstance(given, str):
        raise FitError(f"the posterior has no parameter {given!r}: expected a name.")
    if name in effects:
        j = effects[name]
        log_prior = _log_density_of_effect(name, priors, j)
        known = (*priors.beta[:j], Constant(0.0), *priors.beta[j + 1 :])
        return _ratio(exact, density(replace(priors, beta=known)), name, log_prior)
    t, i = _place(priors, exact.target.space, name)
    term = priors.terms[t]
    _check_scale(term, None if i is None else term.coefs[i], name)
    log_prior = _log_density_of_sd(name, term.sd[i]) if i is not None else _of_correlation(term)
    target = replace(exact.target, space=_without(exact.target.space, t, i))
    return _ratio(exact, target, name, log_prior)


def _ratio(exact: Exact, target: LinearPosterior, name: str, log_prior: float) -> DensityRatio:
    """Return the ratio from the posterior of the model without the parameter."""
    without = Exact.of(target)
    log_bf = without.log_evidence - exact.log_evidence
    return DensityRatio(
        name=name,
        log_bf01=log_bf,
        posterior=float(np.exp(log_bf + log_prior)),
        prior=float(np.exp(log_prior)),
        error=without.error + exact.error,
    )


def prior_density(
    priors: Priors, space: Space, name: str, values: Array, *, relative: bool = False
) -> Array:
    """Return the prior density of a parameter that `savage_dickey` knows.

    Parameters
    ----------
    priors : Priors
    space : Space
    name : str
        As of `savage_dickey`, or sigma.
    values : ndarray
        Above zero for a standard deviation, between -1 and 1 for a correlation.
    relative : bool
        Whether the values are those of the ratio of an sd to sigma, which has the prior.

    Raises
    ------
    FitError
        If the prior is one of the ratio of sd and sigma, and the values are not.
    """
    effects = _effects(priors)
    if name in effects:
        return np.exp(log_pdf(priors.beta[effects[name]], values, positive=False))
    if name == "sigma":
        return np.exp(log_pdf(priors.sigma, values, positive=True))
    t, j = _place(priors, space, name)
    term = priors.terms[t]
    if j is None:
        assert term.corr is not None
        density = np.exp(_of_correlation(term)) * (1 - values**2) ** (term.corr.eta - 1)
        return np.asarray(density)
    prior = term.sd[j]
    if isinstance(prior, Relative) and not relative:
        raise FitError(f"the prior of `{name}` is one of its ratio to sigma.")
    inner = prior.prior if isinstance(prior, Relative) else prior
    return np.exp(log_pdf(inner, values, positive=True))


def density_table(
    priors: Priors, space: Space, ratio: DensityRatio, curve: Curve, *, relative: bool
) -> pd.DataFrame:
    """Return posterior and prior densities, columns `value, posterior, prior`, that at zero last.

    Parameters
    ----------
    priors : Priors
    space : Space
    ratio : DensityRatio
        That at zero.
    curve : Curve
        The posterior density.
    relative : bool
        Whether that is the density of the ratio of an sd to sigma.
    """
    ends = sorted([0.0, *map(float, curve.quantile([0.0005, 0.9995]))])
    values = np.setdiff1d(np.linspace(ends[0], ends[-1], DRAWN_POINTS), 0.0)
    prior = prior_density(priors, space, ratio.name, values, relative=relative)
    table = pd.DataFrame({"value": values, "posterior": curve.pdf(values), "prior": prior})
    table.loc[len(table)] = [0.0, ratio.posterior, ratio.prior]
    return table


def relative_curve(exact: Exact, priors: Priors, name: str) -> Curve | None:
    """Return the density of sd / sigma where the prior of an sd is one of that; else None."""
    t, j = _places(priors).get(name, (0, None))
    if j is None or not isinstance(priors.terms[t].sd[j], Relative):
        return None
    return exact.curve(exact.target.space.places[t][0].start + j, relative=True)


# ------------------------------------------------------------------------------ which parameter


def _effects(priors: Priors) -> dict[str, int]:
    """Return the places of the fixed effects by name."""
    plain = {name: j for j, name in enumerate(priors.fixed)}
    return {f"beta[{name}]": j for name, j in plain.items()} | plain


def _places(priors: Priors) -> dict[str, tuple[int, int | None]]:
    """Return term and coefficient of each sd, and the term of each correlation of two."""
    places: dict[str, tuple[int, int | None]] = {}
    for t, term in enumerate(priors.terms):
        if len(term.coefs) == 1:
            places[f"sd_{term.label}"] = t, 0
        places |= {f"sd_{term.label}[{coef}]": (t, j) for j, coef in enumerate(term.coefs)}
        if term.covariance.n_correlations == 1:
            for name in (f"corr_{term.label}", f"corr_{term.label}[{', '.join(term.coefs)}]"):
                places[name] = t, None
    return places


def _place(priors: Priors, space: Space, name: str) -> tuple[int, int | None]:
    """Return the term, and the coefficient of an sd."""
    places = _places(priors)
    if name not in places:
        if name in space.names:
            raise FitError(
                f"`{name}` is not compared with zero here: that is done for fixed effects, for "
                "standard deviations of random effects, and for the correlation of a term with two "
                "coefficients."
            )
        known = suggestion(name, [*priors.fixed, *places])
        raise FitError(f"the posterior has no parameter {name!r}. {known}")
    t, j = places[name]
    sd, partial = space.places[t]
    place = partial.start if j is None else sd.start + j
    if place not in space.free:
        raise FitError(f"`{name}` is known to be {space.known[place]:g}, so that it is not tested.")
    return t, j


def _check_scale(term: TermPriors, coef: str | None, name: str) -> None:
    """Refuse where zero for the user is not zero where the prior holds."""
    moved = moved_coefs(term.coefs, term.change)
    if term.place is not None and (coef in moved or (coef is None and moved)):
        raise FitError(
            f"the default prior of `{name}` holds {term.note}, the value nearest to 0 that was "
            "observed, where zero is another model than at 0: count predictors from there, as in "
            f"{term.place.counted}, or give the term's standard deviations priors of your own, as "
            f'priors={{"sd_{term.label}": HalfNormal(...)}}.'
        )


def _without(space: Space, t: int, j: int | None) -> Space:
    """Return the space with the j-th sd of a term, or its correlation, known to be zero."""
    sd, partial = space.places[t]
    k = space.covariances[t].k
    known, relative = space.known.copy(), space.relative.copy()
    correlations = np.arange(partial.start, partial.stop)
    if j is not None:
        known[sd.start + j], relative[sd.start + j] = ZERO_SD, True
        rows = np.repeat(np.arange(k), np.arange(k))[: len(correlations)]
        correlations = correlations[(rows == j) | (k == 2)]
    known[correlations] = 0.0
    is_free = np.isnan(known[space.free])
    coordinates = tuple(itertools.compress(space.coordinates, is_free))
    return replace(
        space, coordinates=coordinates, free=space.free[is_free], known=known, relative=relative
    )


# ------------------------------------------------------------------------------ the prior at zero


def _log_density_of_effect(name: str, priors: Priors, j: int) -> float:
    """Return the log prior density of a fixed effect at zero.

    Raises
    ------
    FitError
        If it is known, its prior holds where zero is another model, or has no density at zero.
    """
    prior = priors.beta[j]
    if isinstance(prior, Constant):
        raise FitError(f"`{name}` is known to be {prior.value:g}, so that it is not tested.")
    if priors.fixed[j] in moved_coefs(priors.fixed, priors.change):
        raise FitError(
            f"the default prior of `{name}` holds {AT_MEAN}, where a value of zero is not the "
            f'simpler model: give it a prior of your own, as priors={{"{priors.fixed[j]}": '
            "Normal(...)}, or compare both models by their marginal likelihoods."
        )
    if isinstance(prior, Uniform) and not prior.lower < 0 < prior.upper:
        raise FitError(
            f"the prior of `{name}`, {prior}, has zero density at zero, so that posterior and "
            "prior cannot be compared there: use one that allows zero, such as Normal."
        )
    c = coordinate(prior, positive=False)
    if not prior.proper:
        raise FitError(FLAT.format(name, "Normal"))
    return _log_density_of_sd(name, prior) if c.transform == LOG else _at(c, 0.0)


def _log_density_of_sd(name: str, prior: Prior) -> float:
    """Return the log prior density of an sd, or its ratio to sigma, at zero.

    Raises
    ------
    FitError
        If the prior has no density at zero, or one of zero or infinity.
    """
    inner = prior.prior if isinstance(prior, Relative) else prior
    assert not isinstance(inner, Constant)
    if not inner.proper:
        raise FitError(FLAT.format(name, "HalfNormal"))
    shape = inner.alpha if isinstance(inner, Gamma) else 1.0
    above = isinstance(inner, Uniform) and inner.lower > 0
    if isinstance(inner, InverseGamma | LogNormal) or above or shape != 1:
        size = "infinite" if shape < 1 else "zero"
        raise FitError(
            f"the prior of `{name}`, {prior}, has {size} density at zero, so that posterior and "
            "prior cannot be compared there: use one with a density that is neither, such as "
            "HalfNormal, HalfStudentT or Exponential."
        )
    return _at(coordinate(inner, positive=True), -200.0)


def _of_correlation(term: TermPriors) -> float:
    """Return the log density of a correlation under LKJ(eta) for two coefficients, at zero."""
    assert term.corr is not None
    eta = term.corr.eta
    return float(special.gammaln(eta + 0.5) - special.gammaln(eta) - np.log(np.pi) / 2)


def _at(c: Coordinate, x: float) -> float:
    """Return the log density of a parameter, not of its coordinate, where that is x."""
    return float(c.at(np.float64(x), natural=True)[2])
