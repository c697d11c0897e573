"""Draws from the priors, and of the response that they imply: independent, and in NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ranef._typing import Array, DataTree, Seed
from ranef.arguments import check_counts, check_seed
from ranef.covariances.partial_correlations import correlations
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import by_row, named, observed
from ranef.errors import FitError, RanefWarning, listed, warn
from ranef.families.family import MAX_DRAWN_MEAN, Family
from ranef.families.gaussian import GAUSSIAN
from ranef.priors.assignment import Priors, TermPriors
from ranef.priors.distributions import Prior, Relative

type Draw = Callable[[Any, np.random.Generator, int], Array]

LARGEST_NUMBER = np.finfo(np.float64).max


def prior_draws(
    design: Design, priors: Priors, n: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Draw the parameters of a design, and its random effects, from their priors.

    Parameters
    ----------
    design : Design
    priors : Priors
        From `ranef.priors.resolve`.
    n : int
        Number of draws.
    rng : numpy.random.Generator

    Returns
    -------
    dict of str to ndarray, shape (n, ...)
        In the user's units, under the names of a posterior's variables; sigma is 1 for a family
        without one, and there are correlations of every term, of independent coefficients too.

    Raises
    ------
    FitError
        If a prior is improper; the message names its parameter.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    >>> draws = prior_draws(model.design, model.priors, 100, np.random.default_rng(1))
    >>> draws["beta"].shape, draws["corr_Subject"].shape
    ((100, 2), (100, 2, 2))
    """
    _check_proper(priors)
    beta = _columns(priors.beta, rng, n)
    draws = {
        "beta": beta if priors.change is None else beta @ priors.change.T,
        "sigma": draw(priors.sigma, rng, n),
    }
    draws |= {name: draw(prior, rng, n) for name, prior in priors.parameters}
    covariances = [_covariance(term, draws["sigma"], rng) for term in priors.terms]
    for term, (sd, corr, factor) in zip(design.terms, covariances, strict=True):
        b = _effects(term, factor, rng)
        draws |= {f"b_{term.label}": b, f"sd_{term.label}": sd, f"corr_{term.label}": corr}
    return draws


def prior_predictive(
    design: Design, priors: Priors, n: int = 1000, seed: Seed = None, family: Family = GAUSSIAN
) -> DataTree:
    """Draw parameters from their priors, and a response for each draw.

    Parameters
    ----------
    design : Design
    priors : Priors
        From `ranef.priors.resolve`.
    n : int
        Number of draws.
    seed : int, numpy Generator or SeedSequence, optional
        The same seed gives the same draws.
    family : Family
        Of the response, which for a binomial family is the proportion of successes.

    Returns
    -------
    xarray.DataTree
        Groups `prior`, with the variables, dimensions and labels of a posterior and one chain;
        `prior_predictive` with `y` (chain, draw, obs); and `observed_data`, as ArviZ has it.

    Raises
    ------
    FitError
        If a prior is improper, or `n` or `seed` out of its range.

    Warns
    -----
    RanefWarning
        Where a linear predictor has no mean: a negative one on the inverse link. The response
        is nan there.

    Notes
    -----
    A count with a mean beyond 1e12 is drawn with that mean and scaled up to its own: its relative
    spread is the same to six digits. It is infinite where a double overflows.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"))
    >>> tree = prior_predictive(model.design, model.priors, n=200, seed=1)
    >>> dict(tree["prior_predictive"].sizes)
    {'chain': 1, 'draw': 200, 'obs': 180}
    """
    import xarray as xr

    check_counts(n=n)
    seed = check_seed(seed)
    rng = np.random.default_rng(seed)
    draws = prior_draws(design, priors, n, rng)
    eta = _predictor(design, draws)
    psi = tuple(draws[name][:, None] for name in family.parameters)
    y = response(family, eta, design.rows.weights, psi, rng)
    _warn_of_nan(y, family)
    return xr.DataTree.from_dict(
        {
            "prior": named(design, {name: one[None] for name, one in draws.items()}, family),
            "prior_predictive": by_row(design.rows, y[None]),
            "observed_data": observed(design.rows),
        }
    )


def response(
    family: Family, eta: Array, w: Array, psi: tuple[Array, ...], rng: np.random.Generator
) -> Array:
    """Draw responses, given linear predictors of any size.

    Parameters
    ----------
    family : Family
    eta : ndarray, shape (n, rows)
    w : ndarray, shape (rows,)
    psi : tuple of ndarray, shape (n, 1)
        The family's parameters, in its order.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, rows)
        nan where eta has no mean that the family can have.

    Examples
    --------
    >>> from ranef.families.poisson import POISSON
    >>> eta, w = np.log([[1e30, 3e300]]), np.ones(2)
    >>> y = response(POISSON, eta, w, (), np.random.default_rng(1))
    >>> (y / np.exp(eta)).round(4)
    array([[1., 1.]])
    """
    with np.errstate(all="ignore"):
        mu = family.link.inverse(eta)
        mus = family.range_of_mu
        is_within = (mu >= mus.lowest) & (mu <= mus.highest)  # and not nan
        is_possible = is_within & ((eta > 0) | (not family.link.positive))
        means = np.clip(np.where(is_possible, mu, 0.5), mus.least, mus.most)
        y = family.draw(rng, means, np.broadcast_to(w, eta.shape), *psi)
        if mus.most == MAX_DRAWN_MEAN:
            y = y * (np.clip(mu, MAX_DRAWN_MEAN, LARGEST_NUMBER) / MAX_DRAWN_MEAN)
    return np.where(is_possible, y, np.nan)


def _warn_of_nan(y: Array, family: Family) -> None:
    is_nan = np.isnan(y)
    if is_nan.any():
        warn(
            f"{is_nan.any(axis=1).sum()} of {len(y)} prior draws have linear predictors outside of "
            f"the range of the {family.link.name} link of a {family.name} mean, which makes "
            f"{is_nan.mean():.1%} of the responses nan; narrower priors or another link avoid "
            "that.",
            RanefWarning,
        )


def draw(prior: Prior, rng: np.random.Generator, size: int) -> Array:
    """Draw from the prior of one number.

    Parameters
    ----------
    prior : Prior
        Any record but `Flat`, `Relative` and `LKJ`.
    rng : numpy.random.Generator
    size : int

    Returns
    -------
    ndarray, shape (size,)

    Raises
    ------
    FitError
        If the prior is not a distribution of one number.

    Examples
    --------
    >>> from ranef.priors.distributions import Constant
    >>> draw(Constant(2), np.random.default_rng(1), 3)
    array([2., 2., 2.])
    """
    name = type(prior).__name__
    if name not in _DRAWS:
        raise FitError(
            f"nothing can be drawn from {prior} alone: it is no distribution of one number."
        )
    return _DRAWS[name](prior, rng, size)


def draw_correlations(shapes: Array, rng: np.random.Generator, size: int) -> Array:
    """Draw free parameters of correlations, Beta variables on (-1, 1), shape (size, n)."""
    draws = [2 * rng.beta(shape, shape, size) - 1 for shape in shapes]
    return np.array(draws).reshape(len(shapes), size).T


_DRAWS: Mapping[str, Draw] = {
    "Normal": lambda p, rng, n: rng.normal(p.mu, p.sigma, n),
    "StudentT": lambda p, rng, n: p.mu + p.sigma * rng.standard_t(p.nu, n),
    "HalfNormal": lambda p, rng, n: np.abs(rng.normal(0, p.sigma, n)),
    "HalfStudentT": lambda p, rng, n: p.sigma * np.abs(rng.standard_t(p.nu, n)),
    "HalfCauchy": lambda p, rng, n: p.beta * np.abs(rng.standard_cauchy(n)),
    "Exponential": lambda p, rng, n: rng.exponential(p.scale, n),
    "Gamma": lambda p, rng, n: rng.gamma(p.alpha, 1 / p.beta, n),
    "InverseGamma": lambda p, rng, n: p.beta / rng.standard_gamma(p.alpha, n),
    "LogNormal": lambda p, rng, n: rng.lognormal(p.mu, p.sigma, n),
    "Uniform": lambda p, rng, n: rng.uniform(p.lower, p.upper, n),
    "Constant": lambda p, _, n: np.full(n, float(p.value)),
}


# The parameters and the linear predictor


def _check_proper(priors: Priors) -> None:
    flat = [row.name for row in priors.rows() if not row.prior.proper]
    if flat:
        raise FitError(
            f"nothing can be drawn from the prior of {listed(flat)}, which is flat; "
            "give a proper one with priors=, such as Normal or HalfNormal."
        )


def _columns(priors: Sequence[Prior], rng: np.random.Generator, n: int) -> Array:
    return np.array([draw(prior, rng, n) for prior in priors]).reshape(len(priors), n).T


def _covariance(
    priors: TermPriors, sigma: Array, rng: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Return sds (n, k), correlations (n, k, k) and factors (n, k, k) in the user's units."""
    n, covariance = len(sigma), priors.covariance
    is_relative = [isinstance(prior, Relative) for prior in priors.sd]
    sd = _columns(
        [prior.prior if isinstance(prior, Relative) else prior for prior in priors.sd], rng, n
    )
    sd *= np.where(is_relative, sigma[:, None], 1.0)
    eta = 1.0 if priors.corr is None else priors.corr.eta
    free = draw_correlations(covariance.correlation_shapes(eta), rng, n)
    factor = covariance.factor_of(sd, free)
    if priors.change is not None:
        factor = priors.change @ factor
    if priors.change is not None or covariance.n_sds < covariance.k:
        sd = np.linalg.norm(factor, axis=2)
    return sd, correlations(factor / sd[:, :, None]), factor


def _effects(term: RandomTerm, factor: Array, rng: np.random.Generator) -> Array:
    """Return random effects (n, m, k)."""
    z = rng.standard_normal((len(factor), term.n_levels, term.n_coefs))
    return z @ factor.transpose(0, 2, 1)


def _predictor(design: Design, draws: Mapping[str, Array]) -> Array:
    """Return linear predictors (n, rows)."""
    eta = draws["beta"] @ design.rows.X.T + design.rows.offset
    for term in design.rows.terms:
        for b, column in zip(
            np.moveaxis(draws[f"b_{term.label}"], 2, 0), term.columns.T, strict=True
        ):
            eta += b[:, term.codes] * column
    return np.asarray(eta)
