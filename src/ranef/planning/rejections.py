"""In how many simulated studies the likelihood ratio of two models finds what is there.

The responses of a linear model are cross-products, and all studies of a size are fitted together,
as in the parametric bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from ranef._typing import Array, Flags
from ranef.comparison.nesting import extra, obstacle
from ranef.comparison.null_distributions import chi_bar_squared
from ranef.covariances.covariance import factors, theta_of
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.likelihood.bootstrap.bootstrap import ratios_of
from ranef.likelihood.bootstrap.refits import Refits, Refitter, Rivals, likelihood_ratios, refitter
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    responses,
    seeds_of_replicates,
    simulated,
    span,
)
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.planning.stated_parameters import Truth, planned_responses

SOME = 9  # studies of a generalised model whose estimates of the smaller one are averaged
TYPICAL = 200  # the same of a linear model
MAX_STATISTIC = 1e6  # of a likelihood ratio, below which every critical value lies


@dataclass(frozen=True)
class Replications:
    """Which studies are simulated.

    Attributes
    ----------
    n : int
        Their number.
    entropy : int
        The seed.
    first : int
        The number of the first one.
    """

    n: int
    entropy: int
    first: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """Which studies found an effect, and which could not be fitted."""

    found: Flags
    failed: Flags


# ------------------------------------------------------------------- likelihood ratios of two


def ratio_tests(
    designs: tuple[Design, Design],
    family: Family,
    truth: Truth,
    studies: Replications,
    *,
    alpha: float,
    test: str,
) -> Found:
    """Test a model against a smaller one in every study, which are simulated from the larger.

    Parameters
    ----------
    designs : tuple of Design
        The smaller one and the larger one.
    family : Family
    truth : Truth
        Of the larger model.
    studies : Replications
    alpha : float
    test : {"chi2", "mixture", "bootstrap"}
        What the ratio is held against: chi-squared; its mixture where variances are zero; or
        ratios simulated from the smaller model, at its mean estimates (of models that are not
        linear, the medians over some studies).
    """
    reason = obstacle(*designs)
    if reason or extra(*designs).total == 0:
        small, large = (design.formula.text for design in designs)
        fault = reason or "they are the same model"
        raise FitError(f"`{small}` is not a smaller model than `{large}`: {fault}.")
    if family.is_linear:
        rivals, null = _rivals(designs, truth, studies)
        statistics, failed = likelihood_ratios(
            rivals, studies.n, studies.entropy, first=studies.first
        )
    else:
        statistics, failed = _generalized_ratios(designs, family, truth, studies)
    if test == "bootstrap":
        others = replace(studies, first=studies.first + studies.n)
        if family.is_linear:
            drawn, lost = likelihood_ratios(
                replace(rivals, null=null), others.n, others.entropy, first=others.first
            )
        else:
            typical = _typical(designs, family, truth, studies)
            drawn, lost = _generalized_ratios(designs, family, typical, others, model=0)
        reached = np.sort(drawn[~lost])
        hits = len(reached) - np.searchsorted(reached, statistics - 1e-9)
        return Found(~failed & ((1 + hits) / (1 + len(reached)) <= alpha), failed)
    return Found(~failed & (statistics >= critical_value(*designs, alpha, test)), failed)


def critical_value(small: Design, large: Design, alpha: float, test: str) -> float:
    """Return what a likelihood ratio exceeds with probability alpha, in large samples."""
    more = extra(small, large)
    bounded = 0 if test == "chi2" else more.bounded
    if bounded is None:
        raise FitError(
            'test="mixture" has no simple weights where two or more correlated effects are new: '
            'test="bootstrap" and test="chi2" do.'
        )
    free = more.total - bounded
    if chi_bar_squared(1e-9, free, bounded) <= alpha:
        return 1e-9
    return float(
        optimize.brentq(
            lambda x: chi_bar_squared(x, free, bounded) - alpha, 1e-9, MAX_STATISTIC, xtol=1e-10
        )
    )


def _rivals(
    designs: tuple[Design, Design], truth: Truth, studies: Replications
) -> tuple[Rivals, Null]:
    """Return both models to be fitted to studies of the larger one, and the smaller one's mean."""
    seeds = seeds_of_replicates(studies.entropy, TYPICAL, studies.first)
    y = drawn_response(designs[1], GAUSSIAN, truth, seeds[0])
    examples = [design.with_rows(y=y) for design in designs]
    same_fixed = designs[0].rows.X.shape[1] == designs[1].rows.X.shape[1]
    crosses = [cross_products(example) for example in examples]
    columns = span(*examples)
    start = reml.estimate(crosses[0], reml=same_fixed).theta
    small = refitter(examples[0], crosses[0], start, reml=same_fixed)
    large = refitter(examples[1], crosses[1], true_theta(designs[1], truth), reml=same_fixed)
    drawn_from = Null(truth.roots, truth.sigma, model=1, beta=truth.beta)
    sums = simulated(columns, drawn_from, seeds)
    typical = _mean_of(small, small.refit(responses(columns, sums, crosses[0])))
    return Rivals(columns, drawn_from, small, large), typical


def _mean_of(model: Refitter, refits: Refits) -> Null:
    """Return the mean variances of refits."""
    ok = ~refits.failed
    sigma2, roots = refits.sigma[ok] ** 2, []
    for T, Lambda in zip(
        model.cross.bases, factors(refits.x[ok], model.cross.covariances), strict=True
    ):
        root = np.linalg.inv(T) @ Lambda
        cov = np.mean(sigma2[:, None, None] * (root @ root.swapaxes(1, 2)), axis=0)
        lengths, axes = np.linalg.eigh(cov)
        roots.append(axes * np.sqrt(np.maximum(lengths, 0.0)))
    return Null(tuple(roots), float(np.sqrt(sigma2.mean())))


def _generalized_ratios(
    designs: tuple[Design, Design],
    family: Family,
    truth: Truth,
    studies: Replications,
    *,
    model: int = 1,
) -> tuple[Array, Flags]:
    """Return the likelihood ratios of studies of the larger model, or of the smaller one, 0."""
    seeds = seeds_of_replicates(studies.entropy, studies.n, studies.first)
    y = np.array([drawn_response(designs[model], family, truth, seed) for seed in seeds])
    small, large = (fitted_to(design, family, y[0]) for design in designs)
    statistics = ratios_of(small, large, y)
    return statistics, np.isnan(statistics)


def _typical(
    designs: tuple[Design, Design], family: Family, truth: Truth, studies: Replications
) -> Truth:
    """Return what the smaller model estimates in some studies of the larger one, in the middle."""
    small, large = designs
    seeds = seeds_of_replicates(studies.entropy, min(SOME, studies.n), studies.first)
    made = [
        fitted_to(small, family, drawn_response(large, family, truth, seed)).estimate
        for seed in seeds
    ]
    names = [name for name in family.parameters if name != "sigma"]
    parameters = dict(zip(names, np.median([one.parameters for one in made], axis=0), strict=True))
    if "sigma" in truth.parameters:
        parameters["sigma"] = np.median([one.sigma for one in made])
    roots = []
    for several in zip(*(one.roots for one in made), strict=True):
        lengths, axes = np.linalg.eigh(np.mean([root @ root.T for root in several], axis=0))
        roots.append(axes * np.sqrt(np.maximum(lengths, 0.0)))
    beta = np.median([one.beta for one in made], axis=0)
    return Truth(beta, {name: float(value) for name, value in parameters.items()}, tuple(roots))


def fitted_to(design: Design, family: Family, y: Array) -> FittedModel:
    """Return a generalised model, fitted to a response."""
    design = design.with_rows(y=y)
    estimate = maximum.maximum_likelihood(prepare(design, family))
    return FittedModel(design, family, "ml", estimate)


def drawn_response(
    design: Design, family: Family, truth: Truth, seed: np.random.SeedSequence
) -> Array:
    """Return the response of a study, shape (n,)."""
    return np.asarray(planned_responses(design, family, truth, 1, np.random.default_rng(seed))[0])


def true_theta(design: Design, truth: Truth) -> Array:
    """Return the relative covariance parameters of the truth, of a linear model."""
    roots = [root / truth.sigma for root in truth.roots]
    return theta_of(roots, [term.covariance for term in design.terms])
