"""Tests of one model against another that is nested in it, with their notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ranef._typing import Array, Executor, Flags
from ranef.comparison.f_test import f_test
from ranef.comparison.nesting import Extra, extra
from ranef.comparison.null_distributions import (
    MonteCarlo,
    chi_bar_squared,
    closed_form,
    exact_null_statistics,
    monte_carlo,
    sequential,
    spectrum,
)
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.fits.engine import Engine
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.likelihood.bootstrap.refits import RATIO_ROUNDING

EXACT_DRAWS, MAX_REPLICATES = 100_000, 9_999  # of the exact distribution, and of a bootstrap
MAX_LOSS = 1e-4  # of log-likelihood by a larger model: more is another local maximum
CRITERIA = {"LRT": "likelihood ratio", "RLRT": "restricted likelihood ratio"}


def text_of(fit: PointFit) -> str:
    """Return the formula of a fit."""
    return fit.design.formula.text


def engine_of(fit: PointFit) -> Engine[Fit]:
    """Return the engine that refits the model of a fit, or refuse a fit that came without it."""
    if fit.engine is None:
        message = f"the fit of `{text_of(fit)}` comes without its model, so that nothing can be "
        raise FitError(message + "refitted: fit the model again.")
    return fit.engine


@dataclass(frozen=True)
class Simulation:
    """How much is simulated for a p-value.

    Attributes
    ----------
    n : int or None
        Draws of an exact distribution, or replicates of a bootstrap at most; the test's own number
        if it is None.
    entropy : int
        The seed.
    stop : bool
        Whether a bootstrap stops when enough statistics have reached the observed one.
    executor : concurrent.futures.Executor, optional
        Where a bootstrap refits.
    """

    n: int | None
    entropy: int
    stop: bool = True
    executor: Executor | None = None


@dataclass(frozen=True, eq=False)
class Pair:
    """A model and one that it is nested in.

    Attributes
    ----------
    small, large : PointFit
    number : int
        The number of the small one.
    extra : Extra
        The parameters that only the large one has.
    statistic : float
        The (restricted) likelihood ratio.
    """

    small: PointFit
    large: PointFit
    number: int
    extra: Extra
    statistic: float

    @property
    def kind(self) -> str:
        """The likelihood whose ratio the statistic is: LRT, or RLRT of the restricted one."""
        return "RLRT" if self.small.method == "reml" else "LRT"

    @property
    def is_linear(self) -> bool:
        """Whether the models are linear."""
        return self.small.family.is_linear

    @property
    def has_exact(self) -> bool:
        """Whether one variance is tested against a linear model without random effects."""
        coefs = [term.n_coefs for term in self.large.design.terms]
        alone = not self.small.design.terms and coefs == [1]
        return self.is_linear and alone and not self.knows_sigma

    @property
    def knows_sigma(self) -> bool:
        """Whether sigma is known, as standard errors of the rows are, and not estimated."""
        return self.small.knows_sigma or self.large.knows_sigma

    def comparison(
        self, test: str, p_value: float, words: str, simulated: MonteCarlo | None = None
    ) -> NestedTest:
        """Return the result of a test of the likelihood ratio."""
        return NestedTest(
            test=test,
            kind=self.kind,
            statistic=self.statistic,
            df=self.extra.total,
            p_value=p_value,
            note=f"{self.heading}: {words}",
            simulated=simulated,
        )

    @property
    def heading(self) -> str:
        """The numbers of the two models, as the note of a test begins."""
        return f"Model {self.number + 1} against {self.number}"

    def refusal(self, test: str, reason: str) -> FitError:
        """Return the error that says why a test does not exist, and which ones do."""
        head = f'test="{test}" does not exist for `{text_of(self.large)}` against `'
        others = '"chi2", "mixture" and' if self.extra.bounded is not None else '"chi2" and'
        return FitError(f'{head}{text_of(self.small)}`: {reason}. {others} "bootstrap" do.')


def pair_of(small: PointFit, large: PointFit, number: int) -> Pair:
    """Return a fit with the fit of a model that is nested in it, and their likelihood ratio.

    Raises
    ------
    FitError
        If the models are the same, the larger one is not at its maximum, or one sigma is known.
    """
    if (small.knows_sigma or large.knows_sigma) and small.sigma != large.sigma:
        known = [f"known, {f.sigma:.4g}," if f.knows_sigma else "estimated" for f in (small, large)]
        raise FitError(
            f"sigma is {known[0]} in `{text_of(small)}` and {known[1]} in `{text_of(large)}`: "
            "likelihood ratios here test fixed and random effects, with the same known sigma in "
            "both, or with none. AIC compares the two: fit.aic."
        )
    new_parameters = extra(small.design, large.design)
    if new_parameters.total == 0:
        message = (
            f"`{text_of(small)}` and `{text_of(large)}` are the same model: there is nothing to "
        )
        raise FitError(message + "test.")
    gain = large.loglik - small.loglik
    if small.method == "reml":
        gain += _log_volume(large.design) - _log_volume(small.design)
    if gain < -MAX_LOSS:
        raise FitError(
            f"the log-likelihood of `{text_of(large)}` is {-gain:.2g} below that of "
            f"`{text_of(small)}`, which is nested in it: its optimiser ended in a lower maximum. "
            "Rescale the predictors, or simplify the model."
        )
    statistic = 2 * gain if 2 * gain > RATIO_ROUNDING else 0.0
    return Pair(small, large, number, new_parameters, statistic)


def _log_volume(design: Design) -> float:
    """Return log|X'WX| / 2, by which the restricted likelihood depends on the coding of X."""
    R = np.linalg.qr(design.sufficient.X * np.sqrt(design.sufficient.weights)[:, None], mode="r")
    return float(np.log(np.abs(np.diag(R))).sum())


def default_test(pair: Pair) -> str:
    """Return the default test; refits of generalised models take too long to be one."""
    if not pair.extra.random:
        return "chi2"
    if pair.is_linear and not pair.knows_sigma:
        return "exact" if pair.has_exact else "bootstrap"
    return "mixture" if pair.extra.bounded else "chi2"


def _chi2(pair: Pair, _: Simulation) -> NestedTest:
    p = chi_bar_squared(pair.statistic, pair.extra.total, 0)
    words = f"the {CRITERIA[pair.kind]} against chi-squared with {_degrees(pair.extra.total)}"
    if not pair.extra.random:
        words += ", its distribution in large samples. In small ones p is mostly too small: "
        if pair.is_linear:
            words += "Wald tests with Kenward-Roger degrees of freedom are better, and "
        words += 'test="bootstrap" simulates the distribution.'
    elif pair.extra.bounded == 0:
        words += (
            f", its distribution in large samples if no variance of model {pair.number} is zero."
        )
    else:
        words += (
            f". Not valid at the boundary, but conservative: with variances of zero in model "
            f'{pair.number} p is too large. test="bootstrap" simulates the distribution.'
        )
    return pair.comparison("chi2", p, words)


def _mixture(pair: Pair, _: Simulation) -> NestedTest:
    bounded = pair.extra.bounded
    if bounded is None:
        reason = "two or more correlated effects are new, whose mixture has no simple weights"
        raise pair.refusal("mixture", reason)
    free = pair.extra.total - bounded
    p = chi_bar_squared(pair.statistic, free, bounded)
    words = f"the {CRITERIA[pair.kind]} against "
    if bounded == 0:
        words += f"chi-squared with {_degrees(free)}: no variance of model {pair.number} is zero."
    elif bounded == 1:
        words += (
            f"half chi-squared with {free} and half with {_degrees(free + 1)}, as one variance of "
            f"model {pair.number} is zero (Stram & Lee 1994): its distribution with many levels, "
            'which test="bootstrap" simulates for those at hand.'
        )
    else:
        words += (
            f"chi-squared with {free} to {_degrees(free + bounded)}, mixed with binomial weights, "
            f"as {bounded} variances of model {pair.number} are zero: approximate, as if their "
            'estimates were independent, and for many levels; test="bootstrap" simulates the '
            "distribution."
        )
    return pair.comparison("mixture", p, words)


def _f(pair: Pair, _: Simulation) -> NestedTest:
    if not pair.is_linear:
        raise pair.refusal("f", "it is for linear models")
    if pair.knows_sigma:
        raise pair.refusal("f", "it is for a sigma that is estimated")
    if pair.extra.fixed or not pair.extra.random:
        raise pair.refusal("f", "it tests random effects, with the same fixed effects in both")
    f = f_test(pair.small.design, pair.large.design)
    if f is None:
        reason = "with random effects as fixed ones there are no new columns, or no residuals"
        raise pair.refusal("f", reason)
    words = (
        f"{pair.heading}: F test of the new random effects as fixed "
        "ones. Exact for normal data, whatever the other variances."
    )
    if f.stratum:
        words += f" The error are the levels of `{f.stratum}`, by their totals."
    return NestedTest("f", "F", f.statistic, f.d1, f.p_value, words, f.d2)


def _exact(pair: Pair, simulation: Simulation) -> NestedTest:
    if not pair.has_exact:
        reason = "it is for one variance against a linear model without random effects, where "
        reason += "sigma is estimated"
        raise pair.refusal("exact", reason)
    small, large = pair.small.design, pair.large.design
    form = spectrum(small, large, reml=pair.kind == "RLRT")
    if not len(form.mu):
        raise pair.refusal("exact", "the fixed effects contain all levels of the factor")
    f = f_test(small, large)
    p = None if f is None else closed_form(form, f, pair.statistic)
    if f is not None and p is not None:
        words = f"the levels having one size, the {CRITERIA[pair.kind]} is a function of F = "
        words += (
            f"{f.statistic:.6g} with {f.d1} and {f.d2} degrees of freedom. Exact for normal data."
        )
        return pair.comparison("exact", p, words)
    statistics = exact_null_statistics(form, simulation.n or EXACT_DRAWS, simulation.entropy)
    drawn = monte_carlo(pair.statistic, statistics)
    words = (
        f"the {CRITERIA[pair.kind]} against {drawn.n} draws of its distribution in samples of "
        f"this size (Crainiceanu & Ruppert 2004). Exact for normal data but for simulation: "
        f"{_interval(drawn)}."
    )
    return pair.comparison("exact", drawn.p_value, words, simulated=drawn)


def _bootstrap(pair: Pair, simulation: Simulation) -> NestedTest:
    engine = engine_of(pair.large)

    def simulate(size: int, first: int) -> tuple[Array, Flags]:
        return engine.null_statistics(
            pair.small.fitted_model,
            size,
            seed=simulation.entropy,
            first=first,
            executor=simulation.executor,
        )

    n = simulation.n or MAX_REPLICATES
    drawn = sequential(pair.statistic, simulate, n, stop=simulation.stop)
    words = (
        f"the {CRITERIA[pair.kind]} against those of {drawn.n} responses simulated from model "
        f"{pair.number}, both models fitted to each: {_interval(drawn)}, {drawn.n_zero} statistics "
        "of zero."
    )
    if drawn.stopped:
        words += f" Stopped when {drawn.hits} had reached the observed one."
    if drawn.n_failed:
        words += f" {drawn.n_failed} more could not be fitted and are left out."
    return pair.comparison("bootstrap", drawn.p_value, words, simulated=drawn)


TESTS: dict[str, Callable[[Pair, Simulation], NestedTest]] = {
    "chi2": _chi2,
    "mixture": _mixture,
    "f": _f,
    "exact": _exact,
    "bootstrap": _bootstrap,
}


def _degrees(df: int) -> str:
    return f"{df} degree{'s' * (df != 1)} of freedom"


def _interval(drawn: MonteCarlo) -> str:
    return f"p lies in ({drawn.lower:.3g}, {drawn.upper:.3g}) with 95 % confidence"


@dataclass(frozen=True)
class NestedTest:
    """The test of a model against the one above it.

    Attributes
    ----------
    test : {"chi2", "mixture", "f", "exact", "bootstrap"}
    kind : {"LRT", "RLRT", "F"}
        What the statistic is: twice the log of a (restricted) likelihood ratio, or an F.
    statistic : float
    df : int
        Parameters that the larger model has more; of F its first degrees of freedom.
    p_value : float
    note : str
        What was done, and how far to trust it.
    df_residual : int, optional
        The second degrees of freedom of F.
    simulated : MonteCarlo, optional
        Where the p-value is from simulation; `simulated.statistics` are all that was drawn.
    """

    test: str
    kind: str
    statistic: float
    df: int
    p_value: float
    note: str
    df_residual: int | None = None
    simulated: MonteCarlo | None = None

    @property
    def label(self) -> str:
        """The test in a word or two."""
        if self.kind == "F":
            return f"F({self.df}, {self.df_residual})"
        return f"{self.kind}, {self.test}"
