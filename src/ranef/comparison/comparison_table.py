"""`Comparison`: the table of several models, its verdict in words, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Unpack

import numpy as np
import pandas as pd

from ranef._typing import Axes, Style
from ranef.arguments import check_known
from ranef.comparison.words import legend
from ranef.comparison.words.legend import NO_RANDOM_EFFECTS
from ranef.comparison.words.verdict import (
    FAMILY,
    FIXED,
    Feature,
    Findings,
    Score,
    is_known,
    verdict,
)
from ranef.errors import FitError, listed
from ranef.plots import comparisons
from ranef.printing.digits import probability, spelled
from ranef.printing.pages import TextTable
from ranef.printing.plain_text import table_as_text
from ranef.printing.summary import Printed, Summary

MAX_FRACTION = 1000.0  # of a Bayes factor that is written as one over it
MOST_DECIMALS = 3  # of a difference in elpd
FAILED = "failed"
BEST = "best"


type Columns = dict[str, pd.Series[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Printed):
    """Several models side by side: predictions, marginal likelihoods, and a verdict.

    Attributes
    ----------
    table : DataFrame
        One row a model; see `to_frame`.
    new_group, known_group : Score or None
        elpd by unit and model: of whole groups, and of single rows, that were left out.
    sensitivity : DataFrame or None
        Columns `model, scale, log_bf, mcse, priors`: the logarithm of the Bayes factor against the
        best model as the priors of all random-effect sds are scaled, and in turn those of the fixed
        effects that not all models have.
    caveats : tuple of str
    effects : tuple of str
        The fixed effects that not all models have.
    title : str
        What is compared.
    parts : mapping of str to frozenset of Feature
        What each model consists of.
    failures : mapping of str to str
        Why there are no numbers of a model.
    """

    table: pd.DataFrame
    new_group: Score | None
    known_group: Score | None
    sensitivity: pd.DataFrame | None
    caveats: tuple[str, ...]
    effects: tuple[str, ...] = ()
    title: str = "Comparison of models"
    parts: Mapping[str, frozenset[Feature]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a model, unrounded; of columns only those that apply.

        Returns
        -------
        DataFrame
            `formula, random, method, n_variances` (what it is; the number of variances and
            covariances),
            `df, loglik, aic, bic` (point estimates); for a new group and for a new row of a known
            group, with suffixes `_group` and `_row`: `elpd, se, elpd_diff, se_diff, p_worse,
            diag_diff, diag_elpd, error, how`; `weight_group, weight_lower_group,
            weight_upper_group` (stacking, with 95 % intervals of the Bayesian bootstrap over
            groups); `log_ml, log_ml_error, probability, log_bayes_factor,
            log_bayes_factor_error` (against the best model),
            `log_bayes_factor_lower, log_bayes_factor_upper` (over prior scales), `how_ml`.
        """
        return self.table.copy()

    @cached_property
    def verdict(self) -> str:
        """What the models differ by, and whether the data are for it, in words."""
        return " ".join(self._sentences)

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        tables, names = self._printed()
        scores = [score for score in (self.new_group, self.known_group) if score is not None]
        return Summary(
            title=self.title,
            facts=self._sentences,
            sections=tuple(("", table) for table in tables),
            notes=(
                *names,
                *legend.failures(self.table, self.failures),
                *legend.legend(self.table, scores),
                *self.caveats,
                self._more(),
            ),
            frame=self.table,
        )

    def weights(self) -> pd.DataFrame:
        """Return the stacking weights of the models: the mixture of them that predicts best.

        Returns
        -------
        DataFrame
            One row a model, `weight, lower, upper`: weights that sum to one, of the mixture of
            predictive distributions with the largest elpd of new groups, and 95 % intervals by the
            Bayesian bootstrap over groups. Models that predict alike share their weight, so that
            it is no probability of a model.

        Raises
        ------
        FitError
            If no groups were left out.
        """
        if self.new_group is None:
            raise FitError("no groups were left out: there are no stacking weights of new groups.")
        columns = ["weight_group", "weight_lower_group", "weight_upper_group"]
        weights = self._ranked("elpd_group")[columns]
        return weights.set_axis(["weight", "lower", "upper"], axis=1)

    # ---------------------------------------------------------------------------- the words

    @cached_property
    def _sentences(self) -> tuple[str, ...]:
        has_bf = "log_ml" in self.table
        findings = Findings(
            parts=self.parts,
            score=self.new_group or self.known_group,
            marginal=self.table[["log_ml", "log_ml_error"]] if has_bf else None,
            sensitivity=self.sensitivity,
            moved=self._moved,
        )
        return (*verdict(findings), *self._most_probable(), *self._criteria())

    def _most_probable(self) -> list[str]:
        """Name the most probable model where prior probabilities decide that."""
        if "log_ml" not in self.table:
            return []
        probable = str(self.table["probability"].idxmax())
        if probable == str(self.table["log_ml"].idxmax()):
            return []
        return [f"With the prior probabilities given `{probable}` is the most probable model."]

    def _criteria(self) -> list[str]:
        """Say for which point estimates AIC and BIC are lowest, if they are by one method."""
        points = self._points()
        if len(points) < len(self.table) or len(set(points["method"])) > 1:
            return []
        if points["method"].iloc[0] == "reml" and self._fixed_effects_differ:
            message = "AIC and BIC of REML fits do not compare models whose fixed effects differ: "
            return [f'{message}fit them by "ml".']
        aic, bic = (points[name].sort_values(kind="stable") for name in ("aic", "bic"))
        first = f"AIC is lowest for `{aic.index[0]}`, by {np.ptp(aic.iloc[:2]):.1f}"
        return [f"{first}, and BIC for `{bic.index[0]}`, by {np.ptp(bic.iloc[:2]):.1f}."]

    @property
    def _fixed_effects_differ(self) -> bool:
        parts = self.parts.values()
        return len({frozenset(p for p in of_one if p.kind == FIXED) for of_one in parts}) > 1

    @property
    def _moved(self) -> str:
        """The parameters whose priors are scaled, in words; empty where there are none."""
        sds = "the sds" if (self.table["random"] != NO_RANDOM_EFFECTS).any() else ""
        return " and of ".join(filter(None, [listed(self.effects), sds]))

    def _more(self) -> str:
        """Name what else can be asked for."""
        calls = [".to_frame()"]
        if self.new_group is not None:
            calls += [".weights()", ".plot_groups()"]
        if self.new_group is not None or self.known_group is not None:
            calls.append(".plot_scores()")
        if self.sensitivity is not None:
            calls.append(".plot_prior_sensitivity()")
        return f"More: {', '.join(calls)}."

    # ---------------------------------------------------------------------------- the table

    def _printed(self) -> tuple[list[pd.DataFrame], list[str]]:
        """Return the tables for people, the best model first, and what their rows are."""
        scored: Columns = {}
        for score in (self.new_group, self.known_group):
            if score is not None:
                scored[score.heading] = self._scores(score.suffix)
        scored |= self._marginal() if "log_ml" in self.table else {}
        points = self._likelihood() if "loglik" in self.table else {}
        order = [c for c in ("log_ml", "elpd_group", "elpd_row", "loglik") if c in self.table]
        by = order or "n_variances"
        ranked = list(self.table.sort_values(by, ascending=False, kind="stable").index)
        tables = [_aligned(columns, ranked) for columns in (scored, points) if columns]
        if self.failures:
            tables[0] = pd.concat(
                [tables[0], pd.DataFrame(FAILED, list(self.failures), tables[0].columns)]
            )
        is_said = (self.table["random"] == self.table.index).all()
        family = self._families()
        lines = [f"{name}: {self.table.loc[name, 'formula']}{family[name]}" for name in ranked]
        if all(map(_finds_room, tables)):
            return tables, [] if is_said else lines
        numbers = {name: str(i) for i, name in enumerate(ranked, start=1)}
        lines = [
            f"{numbers[name]}: {name if is_said else line}"
            for name, line in zip(ranked, lines, strict=True)
        ]
        return [table.rename(index=numbers) for table in tables], lines

    def _families(self) -> dict[str, str]:
        """Return the family of each model, if they have several."""
        words = {
            str(name): "".join(f", {p.words[0]}" for p in parts if p.kind == FAMILY)
            for name, parts in self.parts.items()
        }
        several = len(set(words.values())) > 1
        return {name: words.get(name, "") * several for name in self.table.index}

    def _scores(self, suffix: str) -> pd.Series[Any]:
        """Return the best elpd in full, and differences from it with their standard errors."""
        ranked = self._ranked(f"elpd_{suffix}")
        diff, se = ranked[f"elpd_diff_{suffix}"], ranked[f"se_diff_{suffix}"]
        smallest = se[se > 0].min() if (se > 0).any() else 1.0
        decimals = int(np.clip(np.ceil(-np.log10(smallest)), 1, MOST_DECIMALS))
        errors = [f"{x:.{decimals}f}" for x in se.iloc[1:]]
        width = max([len(BEST) - 2, *map(len, errors)])
        texts = [f"{ranked[f'elpd_{suffix}'].iloc[0]:.{decimals}f} {BEST:<{width + 2}}"]
        texts += [
            f"{d:.{decimals}f} ± {error:>{width}}".removeprefix("-" * (round(d, decimals) == 0))
            for d, error in zip(diff.iloc[1:], errors, strict=True)
        ]
        return pd.Series(texts, ranked.index)

    def _marginal(self) -> Columns:
        ranked = self._ranked("log_ml")
        factors = [
            _bayes_factor(log, error)
            for log, error in zip(
                ranked["log_bayes_factor"], ranked["log_bayes_factor_error"], strict=True
            )
        ]
        probabilities = [probability(p) for p in ranked["probability"]]
        return {
            "log p(y)": ranked["log_ml"].map("{:.2f}".format),
            "Bayes\nfactor": pd.Series(factors, ranked.index),
            "posterior\nprobability": pd.Series(probabilities, ranked.index),
        }

    def _likelihood(self) -> Columns:
        points = self._points()
        numbers = points[["df", "loglik", "aic", "bic"]].map("{:.2f}".format)
        texts = numbers.assign(df=points["df"].map("{:.0f}".format), method=points["method"])
        heads = ("df", "log-\nlikelihood", "AIC", "BIC", "method")
        return {head: texts[name] for head, name in zip(heads, texts, strict=True)}

    def _points(self) -> pd.DataFrame:
        """Return the point estimates."""
        if "loglik" not in self.table:
            return self.table.iloc[:0]
        return self.table[self.table["loglik"].notna()]

    def _ranked(self, column: str) -> pd.DataFrame:
        """Return the models that have a number in a column, the best first."""
        models = self.table[self.table[column].notna()]
        return models.sort_values(column, ascending=False, kind="stable")

    # ---------------------------------------------------------------------------- pictures

    def plot_prior_sensitivity(self, **style: Unpack[Style]) -> Axes:
        """Draw the Bayes factors by the scale of the priors of what differs.

        These are the fixed effects that not all models have, or else the random-effect sds. A line
        a model, the best at 1 by definition: where a line stays on one side of the grey band, from
        1/3 to 3, the data decide whatever the scale; one that crosses it, or 1, says that the prior
        decides. The scale of the priors as they were given is 1.
        """
        if self.sensitivity is None:
            raise FitError(f"there are no Bayes factors to draw. {' '.join(self.caveats)}")
        lines = self.sensitivity
        drawn = lines[lines["priors"] == lines["priors"].iloc[-1]]
        of = f"all {drawn['priors'].iloc[0]}"
        return comparisons.sensitivity(drawn, of=of, **style)

    def plot_scores(self, **style: Unpack[Style]) -> Axes:
        """Draw the models by how well they predict what was left out, with standard errors.

        Of new groups, or where none were left out of new rows. The best model is at 0; the others
        lie left of it by their difference in elpd, with bars of one and of two standard errors of
        the difference over the units. A bar that reaches 0 says that other units might have
        ranked the models otherwise; below a difference of 4 the bars are often too short.
        """
        score = self.new_group or self.known_group
        if score is None:
            raise FitError("no groups were left out, and no rows: there are no scores to draw.")
        names = ["elpd", "se", "elpd_diff", "se_diff"]
        suffix = score.suffix
        table = self._ranked(f"elpd_{suffix}")[[f"{name}_{suffix}" for name in names]]
        table.columns = pd.Index(names)
        table = table.rename_axis("model").reset_index()
        return comparisons.elpd(table, **style)

    plot_elpd, plot_sensitivity = plot_scores, plot_prior_sensitivity

    def plot_groups(
        self, first: str | None = None, second: str | None = None, **style: Unpack[Style]
    ) -> Axes:
        """Draw by how much one model predicts each new group better than another.

        Parameters
        ----------
        first, second : str, optional
            Names of the models; by default the two that predict new groups best.
        ax : matplotlib Axes, optional
        figsize : tuple of float, optional
            Of a new figure, in inches.

        Notes
        -----
        A point a group, ordered: right of 0 the first model predicts it better. The sum of all
        is the difference in elpd. That sum may be owed to one group: the note above the axes says
        what is left without the largest.
        """
        table = self.group_differences(first, second)
        names = self._two(first, second)
        return comparisons.group_differences(table, names=names, **style)

    def group_differences(
        self, first: str | None = None, second: str | None = None
    ) -> pd.DataFrame:
        """Return the differences in elpd of two models group by group.

        Parameters
        ----------
        first, second : str, optional
            Names of the models; by default the two that predict new groups best.

        Returns
        -------
        DataFrame
            Columns `level, difference`, ordered.
        """
        if self.new_group is None:
            raise FitError("no groups were left out: there are no differences between groups.")
        elpd, names = self.new_group.elpd, self._two(first, second)
        check_known(names, elpd, lambda name: f"there is no model {name!r}.")
        difference = elpd[names[0]] - elpd[names[1]]
        table = pd.DataFrame({"level": elpd.index, "difference": difference})
        return table.sort_values("difference", ignore_index=True)

    def _two(self, first: str | None, second: str | None) -> tuple[str, str]:
        """Return two names, those of the best models where none are given."""
        best = [str(name) for name in self._ranked("elpd_group").index]
        first = best[0] if first is None else first
        second = next(name for name in best if name != first) if second is None else second
        return first, second


def _aligned(columns: Columns, names: list[str]) -> pd.DataFrame:
    """Return columns of text side by side: one row for each model that has any of them."""
    table = pd.DataFrame(columns)
    return table.reindex([name for name in names if name in table.index]).fillna("")


def _finds_room(table: pd.DataFrame) -> bool:
    """Whether a table is printed with all columns side by side."""
    return "\n\n" not in table_as_text(TextTable.of(table))


def _bayes_factor(log: float, error: float) -> str:
    """Return a Bayes factor of at most one."""
    if not is_known(log, error):
        return FAILED
    if log < -np.log(MAX_FRACTION):
        return spelled(log)
    return "1" if log == 0 else f"1/{spelled(-log)}"
