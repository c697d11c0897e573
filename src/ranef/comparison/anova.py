"""Tests of nested models: `anova`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Executor, Panels, Seed, Style
from ranef.arguments import check_choice, check_counts, check_seed
from ranef.comparison.nested_tests import (
    CRITERIA,
    TESTS,
    NestedTest,
    Pair,
    Simulation,
    default_test,
    engine_of,
    pair_of,
    text_of,
)
from ranef.comparison.nesting import obstacle, same_fixed
from ranef.comparison.words.verdict import said_by_test
from ranef.design.same_data import check_same_data
from ranef.errors import DataWarning, FitError, listed
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.likelihood.bootstrap.simulated_responses import entropy_of
from ranef.plots.curves.null_statistics import null_statistics
from ranef.printing.summary import Printed, Summary

_IF_NOT_NESTED = "AIC and BIC, or rf.compare() of posteriors, compare models that are not nested."


def anova(
    *fits: Fit,
    test: str | None = None,
    n: int | None = None,
    seed: Seed = None,
    stop: bool = True,
    executor: Executor | None = None,
) -> Anova:
    """Test nested models against each other.

    The terms of one fit are tested by `rf.joint_tests(fit)`, as by `anova(model)` of lmerTest.
    What lme4 users do by `drop1` and lmerTest's `ranova`, terms left out one at a time, is this
    test on fits without the term; `model.structures()` has those without random effects.

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

        By default "chi2" if only fixed effects differ, "exact" where it exists, or "bootstrap";
        for generalised models, whose refits take long, "mixture" (or "chi2" where there is none).
    n : int, optional
        Draws of the exact distribution (100,000); replicates of a bootstrap at most (9,999), which
        stops when 50 statistics have reached the observed one.
    seed : int, numpy Generator or SeedSequence, optional
        The same seed gives the same p-values.
    stop : bool
        Whether a bootstrap stops early; with `stop=False` all n statistics are simulated. They are
        `table.comparisons[0].simulated.statistics`.
    executor : concurrent.futures.Executor, optional
        Where a bootstrap is to refit; the same seed gives the same p-values there.

    Returns
    -------
    Anova
        Prints as a table; `.to_frame()`.

    Raises
    ------
    DataError
        If the fits are not to the same rows and response, with the same weights and offset.
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
    point_fits = _checked(fits)
    _check_options(test, n)
    seed = check_seed(seed)
    ordered, order_note = _ordered(point_fits)
    refitted, method_note = _by_one_method(ordered)
    _check_converged(refitted)
    pairs = [pair_of(a, b, i) for i, (a, b) in enumerate(pairwise(refitted), start=1)]
    simulation = Simulation(n, entropy_of(seed), stop, executor)
    comparisons = [TESTS[test or default_test(pair)](pair, simulation) for pair in pairs]
    notes = [order_note, method_note, *_notes(pairs, comparisons)]
    return Anova(tuple(refitted), tuple(comparisons), tuple(note for note in notes if note))


# ------------------------------------------------------------------------- the fits to compare


def _checked(fits: Sequence[object]) -> list[PointFit]:
    """Return the fits if they can be compared at all."""
    point_fits: list[PointFit] = []
    for i, fit in enumerate(fits, start=1):
        if not isinstance(fit, Fit):
            message = f"anova takes fits, got {type(fit).__name__!r} in place {i}: fit every model "
            raise FitError(message + 'first, model.fit("ml"), and give the fits one by one.')
        if not isinstance(fit, PointFit) or fit.method not in ("reml", "ml"):
            raise FitError(
                f'fit {i} is by method="{fit.method}", which has no maximised likelihood: fit '
                'the model with model.fit("ml"), or compare posteriors with rf.compare().'
            )
        point_fits.append(fit)
    if len(point_fits) < 2:
        message = (
            f"anova compares two fits or more, got {len(point_fits)}. The fixed effects of one "
        )
        raise FitError(f"{message}are tested by rf.joint_tests(fit).")
    first, *others = point_fits
    for i, fit in enumerate(others, start=2):
        check_same_data(first.design, fit.design, ("fit 1", f"fit {i}"))
        if fit.family != first.family:
            message = f"fits 1 and {i} are not nested: one has the {first.family}, the other "
            is_alike = fit.family.is_discrete == first.family.is_discrete  # probability or density
            raise FitError(f"{message}the {fit.family}.{f' {_IF_NOT_NESTED}' * is_alike}")
    return point_fits


def _check_options(test: object, n: object) -> None:
    if test is not None:
        check_choice("test", test, TESTS)
    if n is not None:
        check_counts(n=n)
        if test in ("chi2", "mixture", "f"):
            raise FitError(f'test="{test}" simulates nothing, so that it has no `n`.')


def _ordered(fits: list[PointFit]) -> tuple[list[PointFit], str]:
    """Return the fits, each nested in the next one, and a note if their order was changed."""
    if _first_obstacle(fits) is None:
        return fits, ""
    by_size = sorted(fits, key=lambda fit: fit.df)
    first_obstacle = _first_obstacle(by_size)
    if first_obstacle is None:
        note = "The models are in the order of their numbers of parameters, not in the one given."
        return by_size, note
    small, large, reason = first_obstacle
    raise FitError(
        f"`{text_of(small)}` is not nested in `{text_of(large)}`: {reason}. {_IF_NOT_NESTED}"
    )


def _first_obstacle(fits: list[PointFit]) -> tuple[PointFit, PointFit, str] | None:
    """Return the first two neighbours that are not nested, and the reason."""
    for small, large in pairwise(fits):
        reason = obstacle(small.design, large.design)
        if reason:
            return small, large, reason
    return None


def _by_one_method(fits: list[PointFit]) -> tuple[list[PointFit], str]:
    """Return the fits, all by REML with the same X or all by ML, and a note on refits."""
    if not any(fit.method == "reml" for fit in fits):
        return fits, ""
    have_same_fixed = all(same_fixed(a.design, b.design) for a, b in pairwise(fits))
    if have_same_fixed and all(fit.method == "reml" for fit in fits):
        return fits, ""
    reason = "both methods were used" if have_same_fixed else "their fixed effects differ"
    note = f"Fits by REML were refitted by maximum likelihood, as {reason}."
    return [_refitted(fit) for fit in fits], note


def _refitted(fit: PointFit) -> PointFit:
    if fit.method == "ml":
        return fit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # the fit gave them already
        refitted = engine_of(fit).refit("ml")
    assert isinstance(refitted, PointFit)
    return refitted


def _check_converged(fits: Sequence[PointFit]) -> None:
    for fit in fits:
        if not fit.converged:
            message = f"the fit of `{text_of(fit)}` by {method_of(fit)} is not at a maximum of its "
            raise FitError(f"{message}likelihood: {fit.convergence.value}")
    points = {fit.estimate.n_agq for fit in fits if fit.design.terms}
    if len(points) > 1:
        message = f"the fits have n_agq={listed(sorted(points))}: likelihoods can be compared if "
        raise FitError(message + "they are approximated in the same way.")


def _notes(pairs: Sequence[Pair], comparisons: Sequence[NestedTest]) -> list[str]:
    """Return the notes that concern the table as a whole."""
    notes, largest = [], pairs[-1].large
    if any(c.kind == "RLRT" for c in comparisons):
        notes.append(
            "The fixed effects being the same, restricted likelihoods are compared (RLRT), where "
            "lme4's anova() would refit by maximum likelihood."
        )
    coded_alike = all(
        np.array_equal(pair.small.design.sufficient.X, pair.large.design.sufficient.X)
        for pair in pairs
    )
    if largest.method == "reml" and not coded_alike:
        notes.append(
            "The fixed effects are coded in different ways, which changes restricted likelihoods, "
            "AIC and BIC, but not the test."
        )
    singular = [str(pair.number) for pair in pairs if pair.small.is_singular]
    if singular:
        notes.append(
            f"Model {' and '.join(singular)} is singular itself: chi-squared distributions and "
            "mixtures of them are not to be relied on."
        )
    if any(pair.extra.bounded != 0 for pair in pairs):
        notes.append(
            "AIC and BIC count a variance like any other parameter, although it cannot be "
            "negative: they are too favourable to models without it."
        )
    if not largest.family.is_linear and largest.design.terms:
        points = largest.estimate.n_agq
        methods = f"quadratures with {points} points" if points > 1 else "Laplace approximations"
        notes.append(f"The likelihoods are {methods}.")
    return notes


@dataclass(frozen=True, eq=False, repr=False)
class Anova(Printed):
    """Nested models in a table, each tested against the one above it.

    Attributes
    ----------
    fits : tuple of PointFit
        As compared: ordered, and fitted by one method.
    comparisons : tuple of NestedTest
        Of the second fit with the first, and so on.
    notes : tuple of str
    """

    fits: tuple[PointFit, ...]
    comparisons: tuple[NestedTest, ...]
    notes: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return the table, unrounded, one row a model.

        Columns `formula, method, npar, loglik, deviance, aic, bic, statistic, df, p_value, test,
        kind`; of an F test also `df_residual`; of simulations also `n, n_zero, n_failed, p_lower,
        p_upper`: statistics used, those that are zero, failed refits, and the 95 % interval of the
        p-value that is due to simulation.
        """
        models = pd.DataFrame(
            [
                {
                    "formula": text_of(fit),
                    "method": fit.method,
                    "npar": fit.df,
                    "loglik": fit.loglik,
                    "deviance": -2 * fit.loglik,
                    "aic": fit.aic,
                    "bic": fit.bic,
                }
                for fit in self.fits
            ],
            index=pd.RangeIndex(1, len(self.fits) + 1, name="model"),
        )
        rows = [_columns_of_test(comparison) for comparison in self.comparisons]
        tests = pd.DataFrame(rows, index=models.index[1:]).reindex(models.index)
        tests[["test", "kind"]] = tests[["test", "kind"]].fillna("").astype(object)
        return models.join(tests)

    def null_table(self) -> pd.DataFrame:
        """Return the statistics that were simulated from the smaller models, as `plot` draws them.

        Returns
        -------
        DataFrame
            Columns `test` (the numbers of the models) and `statistic`; `.attrs["observed"]` has the
            observed statistic and its p-value.

        Raises
        ------
        FitError
            If none of the tests was by simulation.
        """
        drawn, observed, kinds = [], {}, []
        for i, test in enumerate(self.comparisons, 1):
            if test.simulated is None or not len(test.simulated.statistics):
                continue
            name = f"Model {i + 1} against {i}"
            drawn.append(pd.DataFrame({"test": name, "statistic": test.simulated.statistics}))
            observed[name] = (test.statistic, test.p_value)
            kinds.append(CRITERIA[test.kind])
        if not drawn:
            message = "no statistics were simulated for these tests: ask for "
            raise FitError(f'{message}test="bootstrap".')
        table = pd.concat(drawn, ignore_index=True)
        table.attrs |= {"observed": observed, "kind": kinds[0]}
        return table

    def plot(self, **style: Unpack[Style]) -> Panels:
        """Draw the simulated null distribution of each test, with the observed statistic.

        Parameters
        ----------
        ax : Axes or sequence of Axes, optional
            One for each test that was by simulation.
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Returns
        -------
        ndarray of Axes
            Statistics of zero are a line of their own; those that reach the observed one are dark.

        Raises
        ------
        FitError
            As `null_table`.
        """
        return null_statistics(self.null_table(), **style)

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        frame = self.to_frame()
        columns = ["npar", "loglik", "deviance", "aic", "bic", "statistic", "df", "p_value"]
        shown = frame[columns].rename(columns={"aic": "AIC", "bic": "BIC"})
        shown["df"] = ["", *(str(c.df) for c in self.comparisons)]
        shown["test"] = ["", *(c.label for c in self.comparisons)]
        formulas = [f"{i}: {text}" for i, text in enumerate(frame["formula"], start=1)]
        first = self.fits[0]
        pairs = zip(pairwise(self.fits), self.comparisons, strict=True)
        said = [said_by_test(a.design, b.design, test.p_value) for (a, b), test in pairs]
        return Summary(
            title="Tests of nested models",
            facts=(
                *filter(None, said),
                *formulas,
                f"{first.n_obs} rows; fits by {method_of(first)}",
            ),
            sections=(("Each model against the one above it", shown),),
            notes=(*(c.note for c in self.comparisons), *self.notes),
            frame=frame,
        )


def _columns_of_test(comparison: NestedTest) -> dict[str, object]:
    """Return one row of the table of tests; other columns are there where the test has them."""
    columns: dict[str, object] = {
        "statistic": comparison.statistic,
        "df": comparison.df,
        "p_value": comparison.p_value,
        "test": comparison.test,
        "kind": comparison.kind,
    }
    if comparison.df_residual is not None:
        columns["df_residual"] = comparison.df_residual
    if comparison.simulated is not None:
        simulated = comparison.simulated
        columns |= {"n": simulated.n, "n_zero": simulated.n_zero, "n_failed": simulated.n_failed}
        columns |= {"p_lower": simulated.lower, "p_upper": simulated.upper}
    return columns


def method_of(fit: PointFit) -> str:
    """Return the name of the method of a fit, as a sentence has it."""
    return "REML" if fit.method == "reml" else "maximum likelihood"
