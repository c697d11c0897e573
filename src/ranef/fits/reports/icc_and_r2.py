"""How much a model explains: intraclass correlations and R^2.

The variance of the linear predictor over the rows is split into that of the fixed effects, of the
random effects (with slopes the mean over rows of z'cov(b) z) and of the observations. That of a
generalised model's observations is on the link scale: of a latent variable for proportions, by an
approximation at the mean response otherwise. Numbers can have a leading dimension of draws, so
that a posterior has a distribution of each share.

Sources: Nakagawa & Schielzeth (2013), *Methods in Ecology and Evolution* 4, 133-142; Johnson
(2014), *ibid.* 5, 944-946; Nakagawa, Johnson & Schielzeth (2017), *Journal of the Royal Society
Interface* 14:20170213; Gelman, Goodrich, Gabry & Vehtari (2019), *The American Statistician* 73,
307-309.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array
from ranef.arguments import check_choice
from ranef.design.design import Design, RandomTerm
from ranef.errors import FitError, listed, probability
from ranef.families.family import Family
from ranef.fits.fitted import Fitted, Numbers
from ranef.likelihood.predictions import linear_predictors
from ranef.posterior.draws import hdi
from ranef.printing.summary import Summary

LATENT_WORDS = {np.pi**2 / 3: "pi^2 / 3", np.pi**2 / 6: "pi^2 / 6"}
APPROXIMATIONS = ("lognormal", "delta", "trigamma")
KINDS = ("nakagawa", "bayes")


@dataclass(frozen=True, eq=False)
class Variances:
    """The variance of the linear predictor in parts, each a number or an array of draws.

    Attributes
    ----------
    fixed : ndarray
        Of the fixed effects over the rows.
    random : dict of str to ndarray
        Of the random effects, by grouping factor, the mean over the rows.
    residual : ndarray
        Of the observations on the link scale, with that of a term of one level a row.
    """

    fixed: Array
    random: dict[str, Array]
    residual: Array

    @property
    def all_random(self) -> Array:
        """The variance of all random effects."""
        return np.asarray(sum(self.random.values(), np.zeros(np.shape(self.fixed))))

    @property
    def total(self) -> Array:
        """The sum of all parts."""
        return np.asarray(self.fixed + self.all_random + self.residual)


# --------------------------------------------------------------------- functions of numbers


def variances(
    design: Design,
    family: Family,
    numbers: Numbers,
    *,
    approximation: str = "lognormal",
    mean: float | None = None,
) -> Variances:
    """Split the variance of the linear predictor.

    Parameters
    ----------
    design : Design
    family : Family
    numbers : Numbers
    approximation : {"lognormal", "delta", "trigamma"}
        Of the variance of observations with a log link: ln(1 + v), v or trigamma(1 / v), with v
        the squared coefficient of variation. "delta" also replaces the latent variable of
        proportions by Var(y) (d eta / d mu)^2 for one trial, which is used for all other links.
    mean : float, optional
        The mean response at which; that of the model by default, see `average_response`.

    Returns
    -------
    Variances

    Raises
    ------
    FitError
        For proportions with a link whose latent variable has no variance.

    Notes
    -----
    The offset is known, and no part of what is explained. With prior weights w the variance of
    observations is sigma^2 times the mean of 1 / w, which does not depend on the unit of w.
    """
    rows, X = design.unweighted, design.unweighted.X
    centred = X - rows.ones[:, None] * np.array([rows.mean(column) for column in X.T])
    S = centred.T @ centred / (design.n_obs - 1)
    random: dict[str, Array] = {}
    observed = np.zeros(np.shape(numbers.beta)[:-1])
    for term, cov in zip(design.terms, numbers.covs, strict=True):
        variance = np.einsum("...ab,ab->...", cov, term.mean_products)
        if is_observational(term, design, family):
            observed = observed + variance
        else:
            random[term.factor] = random.get(term.factor, 0.0) + variance
    residual = observation_variance(design, family, numbers, approximation=approximation, mean=mean)
    fixed = np.einsum("...a,ab,...b->...", numbers.beta, S, numbers.beta)
    return Variances(fixed, random, residual + observed)


def is_observational(term: RandomTerm, design: Design, family: Family) -> bool:
    """Whether a term of a generalised model is overdispersion: each row is a level."""
    return term.n_levels == design.n_obs and not family.is_linear


def observation_variance(
    design: Design,
    family: Family,
    numbers: Numbers,
    *,
    approximation: str = "lognormal",
    mean: float | None = None,
) -> Array:
    """Return the variance of observations on the link scale, shape (...).

    Parameters and errors are those of `variances`.
    """
    check_choice("approximation", approximation, APPROXIMATIONS)
    shape, link = np.shape(numbers.beta)[:-1], family.link
    if _is_latent(family, approximation):
        return np.full(shape, _latent_variance(family))
    if family.response_mean is not None:
        raise FitError(
            f"the variance of observations on the link scale is not known for the {family.name} "
            "family, whose mean is not that of its link: make it with a `latent_variance`."
        )
    given: object = mean  # whatever it may really be
    if not isinstance(given, Real | None):
        raise FitError(f"`mean` must be a number, got {mean!r}.")
    mu = np.asarray(0.0 if mean is None else mean)
    if mean is None and not family.is_linear:  # whose variance is the same at every mean
        mu = average_response(design, family, numbers)
    psi = [np.asarray(numbers.parameters[name]) for name in family.parameters]
    variance = family.unit_variance(mu, psi)
    if family.has_sigma:
        variance = variance * (np.mean(1 / design.rows.weights) if design.has_weights else 1.0)
    if link.is_log:
        return np.broadcast_to(_on_log_scale(variance / mu**2, approximation), shape)
    slope = link.at(link.link(mu))[1]
    return np.broadcast_to(variance / slope**2, shape)


def _is_latent(family: Family, approximation: str) -> bool:
    """Whether the variance of observations is the one of a latent variable."""
    is_threshold_model = family.has_classes or family.latent_variance is not None
    return is_threshold_model and approximation != "delta"


def _latent_variance(family: Family) -> float:
    variance = family.latent_variance or family.link.latent_variance
    if variance is None:
        raise FitError(
            f"the latent variable of the {family.link.name} link has no variance that is known "
            'here: use approximation="delta", the variance of one trial on the link scale.'
        )
    return variance


def average_response(design: Design, family: Family, numbers: Numbers) -> Array:
    """Return the mean over rows of the response that the model expects, shape (...).

    With a log link the mean over new groups, exp(eta + z'cov(b) z / 2), so that for a model
    without predictors it is Nakagawa's exp(beta + variance / 2); otherwise that of a group
    without random effects.
    """
    beta = np.atleast_2d(numbers.beta)
    means = np.empty(len(beta))
    terms = design.rows.terms if family.link.is_log else ()
    covs = [np.broadcast_to(cov, (len(beta), *cov.shape[-2:])) for cov in numbers.covs]
    for block, eta in linear_predictors(design.rows, (), beta, {}):
        half = [
            np.einsum("ra,sab,rb->sr", t.columns, cov[block], t.columns, optimize=True) / 2
            for t, cov in zip(terms, covs, strict=False)
        ]
        psi = [np.reshape(numbers.parameters[name], (-1, 1)) for name in family.parameters]
        psi = [np.broadcast_to(one, (len(beta), 1))[block] for one in psi]
        means[block] = family.mean(sum(half, eta), psi).mean(axis=1)
    return means.reshape(np.shape(numbers.beta)[:-1])


def icc(parts: Variances) -> dict[str, Array]:
    """Return intraclass correlations: `adjusted`, `unadjusted` and one for each factor.

    The share of the random effects in the variance that is left by the fixed effects (adjusted),
    and in all of it (unadjusted). That of a grouping factor is a part of the adjusted one, and
    called `factor[adjusted]` where the factor has the name of another row.
    """
    unexplained = parts.all_random + parts.residual
    shares = {
        "adjusted": parts.all_random / unexplained,
        "unadjusted": parts.all_random / parts.total,
    }
    for factor, variance in parts.random.items():
        shares[f"factor[{factor}]" if factor in shares else factor] = variance / unexplained
    return shares


def r2(parts: Variances) -> dict[str, Array]:
    """Return R^2: the share of the fixed effects, and of fixed and random effects together."""
    explained = parts.fixed + parts.all_random
    return {"marginal": parts.fixed / parts.total, "conditional": explained / parts.total}


def bayes_r2(mu: Array, unexplained: Array) -> Array:
    """Return the Bayesian R^2 of every draw, shape (draws,).

    The variance of the expected responses over that plus the variance of what they do not
    explain. Source: Gelman et al. (2019), eq. 3.

    Parameters
    ----------
    mu : ndarray, shape (draws, n)
    unexplained : ndarray, shape (draws,)

    Examples
    --------
    >>> bayes_r2(np.array([[1.0, 2.0, 3.0]]), np.array([3.0]))
    array([0.25])
    """
    explained = np.var(mu, axis=1, ddof=1)
    return np.asarray(explained / (explained + unexplained))


def ordinary_r2(design: Design, beta: Array) -> float:
    """Return 1 - RSS / TSS of a linear model, weighted; about zero where there is no intercept."""
    y, w, X = design.rows.y - design.rows.offset, design.rows.weights, design.rows.X
    ones = np.ones(len(y))
    has_constant = X.shape[1] and np.allclose(X @ np.linalg.lstsq(X, ones)[0], ones)
    centre = np.average(y, weights=w) if has_constant else 0.0
    return float(1 - w @ (y - X @ beta) ** 2 / (w @ (y - centre) ** 2))


# ------------------------------------------------------------------------- tables of a fit


class Explained(Fitted):
    """What a fit explains: tables of shares of variance."""

    def icc(
        self, prob: float = 0.95, *, approximation: str = "lognormal", mean: float | None = None
    ) -> Summary:
        """Return intraclass correlations: the share of the variance that lies between groups.

        Parameters
        ----------
        prob : float
            Probability of the highest posterior density intervals of a posterior.
        approximation : {"lognormal", "delta", "trigamma"}
            How the variance of the observations of a generalised model is found on the link
            scale, where it is not that of a latent variable.
        mean : float, optional
            The mean response at which it is found; by default the model's own.

        Returns
        -------
        Summary
            `.to_frame()` has rows `adjusted` (random over random and residual variance),
            `unadjusted` (with the variance of the fixed effects in the denominator) and one for
            each grouping factor; the column `estimate`, or of a posterior `mean, sd, lower,
            upper`.

        Source: Nakagawa, Johnson & Schielzeth (2017), *J. Royal Society Interface* 14:20170213.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(fit.icc().to_frame().loc["adjusted", "estimate"], 4)
        np.float64(0.4185)
        """
        probability(prob)
        if not self.design.terms:
            raise FitError("the model has no random effects: there is no intraclass correlation.")
        parts, note = self._parts(approximation, mean)
        return _summary("Intraclass correlation", icc(parts), parts, prob, note)

    def r2(
        self,
        prob: float = 0.95,
        *,
        kind: str = "nakagawa",
        approximation: str = "lognormal",
        mean: float | None = None,
    ) -> Summary:
        """Return the share of the variance that is explained: R2.

        Parameters
        ----------
        prob, approximation, mean
            As of `icc`.
        kind : {"nakagawa", "bayes"}
            Shares of variance on the link scale, or, of a posterior, of the variance of the
            response itself.

        Returns
        -------
        Summary
            `.to_frame()` has rows `marginal` (by the fixed effects) and `conditional` (by fixed
            and random effects), and columns as of `icc`.

        Source: Nakagawa & Schielzeth (2013), *Methods in Ecology and Evolution* 4; Johnson (2014),
        *ibid.* 5; Gelman, Goodrich, Gabry & Vehtari (2019), *The American Statistician* 73.
        """
        probability(prob)
        check_choice("kind", kind, KINDS)
        numbers = self._numbers()
        if kind == "bayes":
            shares = _bayes_shares(self.design, self.family, numbers)
            return _summary("Bayesian R2", shares, None, prob, _BAYES)
        if self.family.is_linear and not self.design.terms and numbers.beta.ndim == 1:
            share = np.array(ordinary_r2(self.design, numbers.beta))
            shares = dict.fromkeys(("marginal", "conditional"), share)
            return _summary("R2", shares, None, prob, "The ordinary R2 of a linear model.")
        parts, note = self._parts(approximation, mean)
        return _summary("R2 (Nakagawa)", r2(parts), parts, prob, note)

    def _parts(self, approximation: str, mean: float | None) -> tuple[Variances, str]:
        """Return the variance of the linear predictor in parts, and what the residual one is."""
        design, family = self.design, self.family
        parts = variances(design, family, self._numbers(), approximation=approximation, mean=mean)
        return parts, _residual_note(design, family, approximation, mean)


def _bayes_shares(design: Design, family: Family, numbers: Numbers) -> dict[str, Array]:
    """Return the Bayesian R^2 of population and group means; without, random effects are noise."""
    if numbers.b is None:
        raise FitError('kind="bayes" is for a posterior, such as model.fit("mcmc").')
    psi = [np.asarray(numbers.parameters[name]) for name in family.parameters]
    shares: dict[str, list[Array]] = {"marginal": [], "conditional": []}
    for block, eta in linear_predictors(design.rows, design.rows.terms, numbers.beta, numbers.b):
        psi_of_block = [one[block, None] for one in psi]
        mu = family.mean(eta, psi_of_block)
        population = family.mean(
            numbers.beta[block] @ design.rows.X.T + design.rows.offset, psi_of_block
        )
        variance = family.response_variance(
            family.link.inverse(eta), design.rows.weights, psi_of_block
        )
        noise = np.broadcast_to(variance, eta.shape).mean(axis=1)
        between = np.mean((mu - population) ** 2, axis=1)
        shares["marginal"].append(bayes_r2(population, noise + between))
        shares["conditional"].append(bayes_r2(mu, noise))
    return {name: np.concatenate(values) for name, values in shares.items()}


def _on_log_scale(v: Array, approximation: str) -> Array:
    if approximation == "lognormal":
        return np.asarray(np.log1p(v))
    return np.asarray(v if approximation == "delta" else special.polygamma(1, 1 / v))


_BAYES = (
    "Of the variance of the response, draw by draw (Gelman et al. 2019); to population means, "
    "differences between groups are unexplained."
)


def _residual_note(design: Design, family: Family, approximation: str, mean: float | None) -> str:
    """Say what the residual variance is."""
    link = family.link.name
    weighted = " times the mean of 1 / weight" if design.has_weights else ""
    if family.is_linear:
        return f"Residual variance: sigma^2{weighted}."
    if _is_latent(family, approximation):
        variance = _latent_variance(family)
        words = f"{LATENT_WORDS.get(variance, f'{variance:.4g}')}, that of a latent variable"
    else:
        how = approximation if family.link.is_log else "delta"
        where = "the model's mean response" if mean is None else f"a mean response of {mean:.6g}"
        words = f"by the {how} method at {where}{weighted if family.has_sigma else ''}"
    text = f"Residual variance on the {link} scale: {words}"
    extra = [t.factor for t in design.terms if is_observational(t, design, family)]
    return text + (f"; plus that of {listed(extra)}, one level a row." if extra else ".")


def _summary(
    title: str, shares: Mapping[str, Array], variances: Variances | None, prob: float, note: str
) -> Summary:
    frame = _tabulated(list(shares), list(shares.values()), prob)
    sections = [("Shares of variance", frame)]
    if variances is not None:
        names = ["fixed effects", *variances.random, "residual"]
        values = [variances.fixed, *variances.random.values(), variances.residual]
        sections.append(("Variances", _tabulated(names, values, prob)))
    percent = f", with {100 * prob:g} % HPD intervals" if "lower" in frame else ""
    return Summary(f"{title}{percent}", (), tuple(sections), (note,), frame)


def _tabulated(names: list[str], values: Sequence[Array], prob: float) -> pd.DataFrame:
    """Return one row a quantity: its estimate, or what its draws say."""
    index, array = pd.Index(names), np.array(values, dtype=np.float64)
    if array.ndim == 1:
        return pd.DataFrame({"estimate": array}, index)
    lower, upper = hdi(array.T[None], prob)
    moments = {"mean": array.mean(axis=1), "sd": array.std(axis=1, ddof=1)}
    return pd.DataFrame({**moments, "lower": lower, "upper": upper}, index)
