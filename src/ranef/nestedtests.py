"""Tests of nested models: `anova`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ranef.design import Design
from ranef.engines import Engine
from ranef.errors import DataError, DataWarning, FitError, listed, suggestion
from ranef.exacttests import (
    MonteCarlo,
    chi_bar_squared,
    closed_form,
    monte_carlo,
    null_statistics,
    sequential,
    spectrum,
)
from ranef.ftests import f_test
from ranef.nestedtable import Anova, Comparison, method_of
from ranef.nesting import Extra, extra, obstacle, same_fixed, unlike
from ranef.options import check_counts, check_seed
from ranef.pointfit import PointFit
from ranef.results import Fit

type Array = NDArray[np.float64]

DRAWS, REPLICATES = 100_000, 9_999  # of the exact distribution, and of a bootstrap at most
LOST = 1e-4  # log-likelihood that a larger model may lack: more is another local maximum
_ANY = "AIC and BIC, or rf.compare() of posteriors, compare models that are not nested."
_CRITERIA = {"LRT": "likelihood ratio", "RLRT": "restricted likelihood ratio"}


def anova(
    *fits: Fit, test: str | None = None, n: int | None = None, seed: int | None = None
) -> Anova:
    """Test nested models against each other.

    Parameters
    ----------
    *fits : PointFit
        Two or more fits by REML or maximum likelihood to the same rows, each nested in the next
        one; in another order they are put in that of their numbers of parameters.
    test : {"chi2", "mixture", "f", "exact", "bootstrap"}, optional
        Where the p-value comes from.

        - "chi2": the chi-squared distribution of large samples. It does not hold for variances,
          which are zero in the smaller model, at an end of their range: p is too large.
        - "mixture": the mixture of chi-squared distributions that does, in large samples.
        - "f": Wald's F test of random effects, taken as fixed: exact. Linear models.
        - "exact": the distribution of the statistic in finite samples, for one variance against a
          linear model without random effects.
        - "bootstrap": simulated from the smaller model and refitted, for all models.

        By default "chi2" if only fixed effects differ, "exact" where it exists, or "bootstrap".
    n : int, optional
        Draws of the exact distribution (100,000); replicates of a bootstrap at most (9,999), which
        stops when 50 statistics have reached the observed one.
    seed : int, optional
        The same seed gives the same p-values.

    Returns
    -------
    Anova
        Prints as a table; `.to_frame()`.

    Raises
    ------
    DataError
        If the fits are not to the same rows and response.
    FitError
        If the models are not nested, a fit did not converge, or the test does not exist for them.

    Notes
    -----
    Fits by REML are compared by their restricted likelihoods if their fixed effects are the same,
    which is more powerful for variances than maximum likelihood (Scheipl, Greven & Kuechenhoff
    2008); otherwise all are refitted by maximum likelihood.

    Examples
    --------
    >>> import ranef as rf
    >>> data = rf.load_dataset("Dyestuff")
    >>> table = rf.anova(rf.fit("Yield ~ 1", data), rf.fit("Yield ~ 1 + (1 | Batch)", data))
    >>> round(table.to_frame().loc[2, "p_value"], 6)
    np.float64(0.004398)
    """
    checked = _checked(fits)
    _check_options(test, n, seed)
    ordered, order_note = _ordered(checked)
    common, method_note = _by_one_method(ordered)
    _check_converged(common)
    pairs = [_pair(a, b, i) for i, (a, b) in enumerate(pairwise(common), start=1)]
    entropy = int(np.random.default_rng().integers(2**62)) if seed is None else int(seed)
    comparisons = [_TESTS[test or _default(pair)](pair, n, entropy) for pair in pairs]
    notes = [order_note, method_note, *_notes(pairs, comparisons)]
    return Anova(tuple(common), tuple(comparisons), tuple(note for note in notes if note))


# ------------------------------------------------------------------------------- what is asked


def _checked(fits: Sequence[object]) -> list[PointFit]:
    """Return the fits if they can be compared at all."""
    found: list[PointFit] = []
    for i, fit in enumerate(fits, start=1):
        if not isinstance(fit, Fit):
            message = f"anova takes fits, got {type(fit).__name__!r} in place {i}: fit every model "
            raise FitError(message + 'first, model.fit("ml"), and give the fits one by one.')
        if not isinstance(fit, PointFit) or fit.method not in ("reml", "ml"):
            message = (
                f'fit {i} is by method="{fit.method}", which has no maximised likelihood: fit '
            )
            message += 'the model with model.fit("ml"), or compare posteriors with rf.compare().'
            raise FitError(message)
        found.append(fit)
    if len(found) < 2:
        raise FitError(f"anova compares two fits or more, got {len(found)}.")
    for i, fit in enumerate(found[1:], start=2):
        reason = unlike(found[0], fit)
        if reason:
            message = f"fits 1 and {i} are not of the same data: {reason}. Likelihoods can be "
            raise DataError(message + "compared for the same rows of the same response only.")
    return found


def _check_options(test: object, n: object, seed: object) -> None:
    if test is not None and (not isinstance(test, str) or test not in _TESTS):
        raise FitError(f"test={test!r} does not exist. {suggestion(str(test), _TESTS)}")
    if n is not None:
        check_counts(n=n)
        if test in ("chi2", "mixture", "f"):
            raise FitError(f'test="{test}" simulates nothing, so that it has no `n`.')
    check_seed(seed)


def _ordered(fits: list[PointFit]) -> tuple[list[PointFit], str]:
    """Return the fits so that each is nested in the next one, and what to say about it."""
    if _first_obstacle(fits) is None:
        return fits, ""
    in_order = sorted(fits, key=lambda fit: fit.df)
    found = _first_obstacle(in_order)
    if found is None:
        note = "The models are in the order of their numbers of parameters, not in the one given."
        return in_order, note
    small, large, reason = found
    raise FitError(f"`{_text(small)}` is not nested in `{_text(large)}`: {reason}. {_ANY}")


def _first_obstacle(fits: list[PointFit]) -> tuple[PointFit, PointFit, str] | None:
    for small, large in pairwise(fits):
        reason = obstacle(small.design, large.design)
        if reason:
            return small, large, reason
    return None


def _text(fit: PointFit) -> str:
    return fit.design.formula.text


def _by_one_method(fits: list[PointFit]) -> tuple[list[PointFit], str]:
    """Return the fits, all by REML with the same X or all by ML, and what to say about it."""
    if not any(fit.method == "reml" for fit in fits):
        return fits, ""
    same = all(same_fixed(a.design, b.design) for a, b in pairwise(fits))
    if same and all(fit.method == "reml" for fit in fits):
        return fits, ""
    reason = "both methods were used" if same else "their fixed effects differ"
    note = f"Fits by REML were refitted by maximum likelihood, as {reason}."
    return [_refitted(fit) for fit in fits], note


def _refitted(fit: PointFit) -> PointFit:
    if fit.method == "ml":
        return fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the fit gave them already
        found = _engine(fit).refit("ml")
    assert isinstance(found, PointFit)
    return found


def _engine(fit: PointFit) -> Engine:
    if fit.engine is None:
        message = f"the fit of `{_text(fit)}` comes without its model, so that nothing can be "
        raise FitError(message + "refitted: fit the model again.")
    return fit.engine


def _check_converged(fits: Sequence[PointFit]) -> None:
    for fit in fits:
        if not fit.converged:
            message = f"the fit of `{_text(fit)}` by {method_of(fit)} is not at a maximum of its "
            raise FitError(f"{message}likelihood: {fit.convergence.value}")
    points = {fit.estimate.n_agq for fit in fits if fit.design.terms}
    if len(points) > 1:
        message = f"the fits have n_agq={listed(sorted(points))}: likelihoods can be compared if "
        raise FitError(message + "they are approximated in the same way.")


# --------------------------------------------------------------------------------- the tests


@dataclass(frozen=True, eq=False)
class _Pair:
    """A model and one that it is nested in.

    Attributes
    ----------
    small, large : PointFit
    place : int
        The number of the small one.
    extra : Extra
    statistic : float
        The (restricted) likelihood ratio.
    """

    small: PointFit
    large: PointFit
    place: int
    extra: Extra
    statistic: float

    @property
    def kind(self) -> str:
        return "RLRT" if self.small.method == "reml" else "LRT"

    @property
    def is_linear(self) -> bool:
        return self.small.family.is_normal

    @property
    def has_exact(self) -> bool:
        """Whether one variance is tested against a linear model without random effects."""
        coefs = [term.n_coefs for term in self.large.design.terms]
        return self.is_linear and not self.small.design.terms and coefs == [1]

    def comparison(
        self, test: str, p_value: float, words: str, simulated: MonteCarlo | None = None
    ) -> Comparison:
        return Comparison(
            test=test,
            kind=self.kind,
            statistic=self.statistic,
            df=self.extra.total,
            p_value=p_value,
            note=f"{self.places}: {words}",
            simulated=simulated,
        )

    @property
    def places(self) -> str:
        return f"Model {self.place + 1} against {self.place}"

    def refusal(self, test: str, reason: str) -> FitError:
        head = f'test="{test}" does not exist for `{_text(self.large)}` against `'
        others = '"chi2", "mixture" and' if self.extra.bounded is not None else '"chi2" and'
        return FitError(f'{head}{_text(self.small)}`: {reason}. {others} "bootstrap" do.')


def _pair(small: PointFit, large: PointFit, place: int) -> _Pair:
    found = extra(small.design, large.design)
    if found.total == 0:
        message = f"`{_text(small)}` and `{_text(large)}` are the same model: there is nothing to "
        raise FitError(message + "test.")
    gain = large.loglik - small.loglik
    if small.method == "reml":
        gain += _log_volume(large.design) - _log_volume(small.design)
    if gain < -LOST:
        message = (
            f"the log-likelihood of `{_text(large)}` is {-gain:.2g} below that of "
            f"`{_text(small)}`, which is nested in it: its optimiser ended in a lower maximum. "
            "Rescale the predictors, or simplify the model."
        )
        raise FitError(message)
    return _Pair(small, large, place, found, max(2 * gain, 0.0))


def _log_volume(design: Design) -> float:
    """Return log|X'WX| / 2: the restricted likelihood is one of contrasts up to this constant."""
    R = np.linalg.qr(design.X * np.sqrt(design.weights)[:, None], mode="r")
    return float(np.log(np.abs(np.diag(R))).sum())


def _default(pair: _Pair) -> str:
    if not pair.extra.random:
        return "chi2"
    return "exact" if pair.has_exact else "bootstrap"


def _chi2(pair: _Pair, n: int | None, entropy: int) -> Comparison:  # noqa: ARG001
    p = chi_bar_squared(pair.statistic, pair.extra.total, 0)
    words = f"the {_CRITERIA[pair.kind]} against chi-squared with {_degrees(pair.extra.total)}"
    if not pair.extra.random:
        words += ", its distribution in large samples. In small ones p is mostly too small: "
        if pair.is_linear:
            words += "Wald tests with Kenward-Roger degrees of freedom are better, and "
        words += 'test="bootstrap" simulates the distribution.'
    elif pair.extra.bounded == 0:
        words += (
            f", its distribution in large samples if no variance of model {pair.place} is zero."
        )
    else:
        words += (
            f". Not valid at the boundary, but conservative: with variances of zero in model "
            f'{pair.place} p is too large. test="bootstrap" simulates the distribution.'
        )
    return pair.comparison("chi2", p, words)


def _mixture(pair: _Pair, n: int | None, entropy: int) -> Comparison:  # noqa: ARG001
    bounded = pair.extra.bounded
    if bounded is None:
        reason = "two or more correlated effects are new, whose mixture has no simple weights"
        raise pair.refusal("mixture", reason)
    free = pair.extra.total - bounded
    p = chi_bar_squared(pair.statistic, free, bounded)
    words = f"the {_CRITERIA[pair.kind]} against "
    if bounded == 0:
        words += f"chi-squared with {_degrees(free)}: no variance of model {pair.place} is zero."
    elif bounded == 1:
        words += (
            f"half chi-squared with {free} and half with {_degrees(free + 1)}, as one variance of "
            f"model {pair.place} is zero (Stram & Lee 1994): its distribution with many levels."
        )
    else:
        words += (
            f"chi-squared with {free} to {_degrees(free + bounded)}, mixed with binomial weights, "
            f"as {bounded} variances of model {pair.place} are zero: approximate, as if their "
            "estimates were independent, and for many levels."
        )
    return pair.comparison("mixture", p, words)


def _f(pair: _Pair, n: int | None, entropy: int) -> Comparison:  # noqa: ARG001
    if not pair.is_linear:
        raise pair.refusal("f", "it is for linear models")
    if pair.extra.fixed or not pair.extra.random:
        raise pair.refusal("f", "it tests random effects, with the same fixed effects in both")
    found = f_test(pair.small.design, pair.large.design)
    if found is None:
        reason = "with random effects as fixed ones there are no new columns, or no residuals"
        raise pair.refusal("f", reason)
    words = (
        f"{pair.places}: F test of the new random effects as fixed "
        "ones. Exact for normal data, whatever the other variances."
    )
    if found.stratum:
        words += f" The error are the levels of `{found.stratum}`, by their totals."
    return Comparison("f", "F", found.statistic, found.d1, found.p_value, words, found.d2)


def _exact(pair: _Pair, n: int | None, entropy: int) -> Comparison:
    if not pair.has_exact:
        reason = "it is for one variance against a linear model without random effects"
        raise pair.refusal("exact", reason)
    small, large = pair.small.design, pair.large.design
    form = spectrum(small, large, reml=pair.kind == "RLRT")
    if not len(form.mu):
        raise pair.refusal("exact", "the fixed effects contain all levels of the factor")
    f = f_test(small, large)
    p = None if f is None else closed_form(form, f, pair.statistic)
    if f is not None and p is not None:
        words = f"the levels having one size, the {_CRITERIA[pair.kind]} is a function of F = "
        words += (
            f"{f.statistic:.6g} with {f.d1} and {f.d2} degrees of freedom. Exact for normal data."
        )
        return pair.comparison("exact", p, words)
    drawn = monte_carlo(pair.statistic, null_statistics(form, n or DRAWS, entropy))
    words = (
        f"the {_CRITERIA[pair.kind]} against {drawn.n} draws of its distribution in samples of "
        f"this size (Crainiceanu & Ruppert 2004). Exact for normal data but for simulation: "
        f"{_interval(drawn)}."
    )
    return pair.comparison("exact", drawn.p_value, words, simulated=drawn)


def _bootstrap(pair: _Pair, n: int | None, entropy: int) -> Comparison:
    engine = _engine(pair.large)

    def simulate(size: int, first: int) -> tuple[Array, NDArray[np.bool_]]:
        return engine.null_statistics(pair.small, size, seed=entropy, first=first)

    drawn = sequential(pair.statistic, simulate, n or REPLICATES)
    words = (
        f"the {_CRITERIA[pair.kind]} against those of {drawn.n} responses simulated from model "
        f"{pair.place}, both models fitted to each: {_interval(drawn)}, {drawn.n_zero} statistics "
        "of zero."
    )
    if drawn.stopped:
        words += f" Stopped when {drawn.hits} had reached the observed one."
    if drawn.n_failed:
        words += f" {drawn.n_failed} more could not be fitted and are left out."
    return pair.comparison("bootstrap", drawn.p_value, words, simulated=drawn)


_TESTS: dict[str, Callable[[_Pair, int | None, int], Comparison]] = {
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


def _notes(pairs: Sequence[_Pair], comparisons: Sequence[Comparison]) -> list[str]:
    """Return what concerns the table as a whole."""
    notes, last = [], pairs[-1].large
    if any(c.kind == "RLRT" for c in comparisons):
        notes.append(
            "The fixed effects being the same, restricted likelihoods are compared (RLRT), where "
            "lme4's anova() would refit by maximum likelihood."
        )
    if last.method == "reml" and not all(_coded_alike(pair) for pair in pairs):
        notes.append(
            "The fixed effects are coded in different ways, which changes restricted likelihoods, "
            "AIC and BIC, but not the test."
        )
    singular = [str(pair.place) for pair in pairs if pair.small.is_singular]
    if singular:
        notes.append(
            f"Model {' and '.join(singular)} is singular itself: chi-squared distributions and "
            "mixtures of them are not to be relied on."
        )
    if any(pair.extra.random for pair in pairs):
        notes.append(
            "AIC and BIC count a variance like any other parameter, although it cannot be "
            "negative: they are too favourable to models without it."
        )
    if not last.family.is_normal and last.design.terms:
        points = last.estimate.n_agq
        what = f"quadratures with {points} points" if points > 1 else "Laplace approximations"
        notes.append(f"The likelihoods are {what}.")
    return notes


def _coded_alike(pair: _Pair) -> bool:
    return np.array_equal(pair.small.design.X, pair.large.design.X)
