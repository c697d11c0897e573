"""`Comparison`: the table of several models, its verdict in words, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef.comparison.bayes_factors import EFFECTS
from ranef.errors import FitError, listed, suggestion
from ranef.leave_one_out.elpd import Scores
from ranef.plots import comparisons
from ranef.printing.digits import shown
from ranef.printing.summary import Printed, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LOG_BF_ERROR = 0.1  # of a log Bayes factor that is printed as a number
MIN_BAYES_FACTOR = 3.0  # below which nothing is decided
MIN_ELPD_DIFFERENCE = 4.0  # below which its standard error is not to be trusted
MAX_EQUAL_ELPD = 0.005  # a difference in elpd that is none
MIN_STANDARD_ERRORS = 2.0  # of a difference in elpd that is decided
NO_RANDOM_EFFECTS = "no random effects"
LEGEND = (
    "diff, se diff: from the best model, over the units left out; p worse: the probability that a "
    "model predicts worse, by a normal approximation that flags speak against; error: of the "
    "numbers themselves."
)


def two_digits(number: float) -> str:
    """Return a positive number with two digits that count.

    Examples
    --------
    >>> [two_digits(x) for x in (0.000728, 1.5e-08, 3.14, 1430.0, 2.5e7)]
    ['0.00073', '1.5e-08', '3.1', '1,400', '2.5e+07']
    """
    if not 1e-5 < number < 1e6:
        return f"{number:.1e}"
    rounded = float(f"{number:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.10f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, eq=False)
class Score:
    """Log predictive densities by unit and model.

    Attributes
    ----------
    factor : str or None
        The grouping factor whose levels were left out.
    elpd : DataFrame, shape (units, models)
    repaired : int
        The number of elpds that were computed anew, as importance weights could not be trusted.
    """

    factor: str | None
    elpd: pd.DataFrame
    repaired: int

    @staticmethod
    def of(scores: Mapping[str, Scores]) -> Score | None:
        """Gather the scores of several models."""
        if not scores:
            return None
        first = next(iter(scores.values()))
        elpd = pd.DataFrame({name: s.elpd for name, s in scores.items()}, index=first.labels)
        return Score(first.factor, elpd, sum(int(s.repaired.sum()) for s in scores.values()))


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
    """

    table: pd.DataFrame
    new_group: Score | None
    known_group: Score | None
    sensitivity: pd.DataFrame | None
    caveats: tuple[str, ...]
    effects: tuple[str, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """Return one row a model, unrounded; of columns only those that apply.

        Returns
        -------
        DataFrame
            `random, method, n_variances` (what it is; the number of variances and covariances),
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
        """The model that predicts best and the most probable model, in words."""
        return " ".join(filter(None, (self._prediction(), self._probability())))

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        table = self.table
        sections = [self._new_group(), self._known_group(), self._marginal(), self._likelihood()]
        return Summary(
            title=f"Comparison of {len(table)} models",
            facts=self._random_parts(),
            sections=tuple(section for section in sections if section is not None),
            notes=(*([self.verdict] if self.verdict else []), *self._methods(), *self.caveats),
            frame=table,
        )

    # ---------------------------------------------------------------------------- sections

    def _section(self, columns: Mapping[str, pd.Series[Any]], rows: pd.Index[Any]) -> pd.DataFrame:
        """Return columns of text for the models of a section, the best first."""
        section = pd.DataFrame(columns, index=rows)
        section.insert(0, "theta", self.table.loc[rows, "n_variances"])
        return section.loc[:, (section != "").any()]

    def _random_parts(self) -> tuple[str, ...]:
        """Return the random effects of each model, unless the models have them as names."""
        if (self.table["random"] == self.table.index).all():
            return ()
        return tuple(f"{name}: {random}" for name, random in self.table["random"].items())

    def _new_group(self) -> tuple[str, pd.DataFrame] | None:
        if self.new_group is None:
            return None
        ranked = self._ranked("elpd_group")
        weights = ranked[["weight_group", "weight_lower_group", "weight_upper_group"]]
        texts = [f"{w:.2f} [{low:.2f}, {high:.2f}]" for w, low, high in weights.to_numpy()]
        columns = self._elpd(ranked, "group") | {"weight": pd.Series(texts, ranked.index)}
        units = f"{len(self.new_group.elpd)} groups left out one at a time"
        heading = f"A new `{self.new_group.factor}`, all its rows together ({units})"
        return heading, self._section(columns, ranked.index)

    def _known_group(self) -> tuple[str, pd.DataFrame] | None:
        if self.known_group is None:
            return None
        ranked = self._ranked("elpd_row")
        units = f"{len(self.known_group.elpd)} rows left out one at a time"
        heading = f"A new row of a known group ({units})"
        return heading, self._section(self._elpd(ranked, "row"), ranked.index)

    @staticmethod
    def _elpd(table: pd.DataFrame, unit: str) -> dict[str, pd.Series[Any]]:
        diff, se = table[f"elpd_diff_{unit}"], table[f"se_diff_{unit}"]
        return {
            "elpd": table[f"elpd_{unit}"].map("{:.2f}".format),
            "diff": diff.map(lambda x: shown(x, 2)),
            "se diff": se.map(lambda x: shown(x, 2) if x else ""),
            "p worse": table[f"p_worse_{unit}"].map(lambda x: shown(x, 2)),
            "flags": table[f"diag_diff_{unit}"],
            "error": table[f"error_{unit}"].map("{:.1g}".format),
        }

    def _marginal(self) -> tuple[str, pd.DataFrame] | None:
        if "log_ml" not in self.table:
            return None
        ranked = self._ranked("log_ml")
        names = ranked.index
        columns = {
            "log p(y)": ranked["log_ml"].map("{:.3f}".format),
            "error": ranked["log_ml_error"].map("{:.1g}".format),
            "probability": ranked["probability"].map("{:.3g}".format),
            "Bayes factor": pd.Series([self._bayes_factor(name) for name in names], names),
            "priors x 1/4 to x 4": pd.Series([self._range(name) for name in names], names),
        }
        heading = "Marginal likelihood, and Bayes factor against the best"
        return heading, self._section(columns, names)

    def _likelihood(self) -> tuple[str, pd.DataFrame] | None:
        if "loglik" not in self.table:
            return None
        points = self.table[self.table["loglik"].notna()]
        columns = {
            "df": points["df"].map("{:.0f}".format),
            **{name: points[name].map("{:.2f}".format) for name in ("loglik", "aic", "bic")},
            "method": points["method"],
        }
        return "Log-likelihood of point estimates", self._section(columns, points.index)

    def _bayes_factor(self, name: str) -> str:
        row = self.table.loc[name]
        if row["log_bayes_factor"] == 0:
            return "1"
        return two_digits(np.exp(row["log_bayes_factor"])) if self._decided(name) else "not decided"

    def _range(self, name: str) -> str:
        row = self.table.loc[name]
        if row["log_bayes_factor"] == 0 or not self._moved:
            return ""
        low, high = np.exp(row[["log_bayes_factor_lower", "log_bayes_factor_upper"]].astype(float))
        return f"{two_digits(low)} to {two_digits(high)}"

    def _decided(self, name: str) -> bool:
        """Whether the Bayes factor of a model against the best is more than noise and priors."""
        row = self.table.loc[name]
        is_exact = row["log_bayes_factor_error"] <= MAX_LOG_BF_ERROR
        low, high = row["log_bayes_factor_lower"], row["log_bayes_factor_upper"]
        return bool(is_exact and (high < 0 or low == high))

    def _ranked(self, column: str) -> pd.DataFrame:
        """Return the models that have a number in a column, the best first."""
        models = self.table[self.table[column].notna()]
        return models.sort_values(column, ascending=False, kind="stable")

    # -------------------------------------------------------------------------- in words

    def _prediction(self) -> str:
        """Name the model that predicts a new group best, and say whether that is decided."""
        if self.new_group is None:
            return ""
        best, second = self._ranked("elpd_group").index[:2]
        row = self.table.loc[second]
        diff, se = -float(row["elpd_diff_group"]), float(row["se_diff_group"])
        if diff < MAX_EQUAL_ELPD and se < MAX_EQUAL_ELPD:
            return f"A new `{self.new_group.factor}` is predicted alike by `{best}` and `{second}`."
        decided = diff >= MIN_ELPD_DIFFERENCE and diff > MIN_STANDARD_ERRORS * se
        ending = "." if decided else f": not decided by {len(self.new_group.elpd)} groups."
        return (
            f"A new `{self.new_group.factor}` is predicted best by `{best}`, by {diff:.2f} "
            f"(se {se:.2f}) more than by `{second}`{ending}"
        )

    def _probability(self) -> str:
        """Name the most probable model, and say whether that is decided."""
        if "log_ml" not in self.table:
            return ""
        best, second = self._ranked("log_ml").index[:2]
        row = self.table.loc[second]
        log_bf = -float(row["log_bayes_factor"])
        low, high = -row["log_bayes_factor_upper"], -row["log_bayes_factor_lower"]
        probability = float(self.table.loc[best, "probability"])
        has_value = self._decided(second)
        decided = has_value and log_bf >= np.log(MIN_BAYES_FACTOR)
        value = f"is {two_digits(np.exp(log_bf))}" if has_value else "depends on the priors"
        ends = two_digits(np.exp(low)), two_digits(np.exp(high))
        reach = "the same" if set(ends) == {two_digits(np.exp(log_bf))} else " to ".join(ends)
        reach = f" ({reach} over scales of the priors of {self._moved})" if self._moved else ""
        sentences = (
            f"The data are the most probable under `{best}` (posterior probability "
            f"{probability:.3g}). Against `{second}` its Bayes factor {value}{reach}"
            f"{'.' if decided else ': not decided.'}{self._lindley(second)}"
        )
        probable = str(self.table["probability"].idxmax())
        if probable != best:
            sentences += (
                f" With the prior probabilities given `{probable}` is the most probable model."
            )
        return sentences

    @property
    def _moved(self) -> str:
        """The parameters whose priors are scaled, in words; empty where there are none."""
        sds = "the sds" if (self.table["random"] != NO_RANDOM_EFFECTS).any() else ""
        return " and of ".join(filter(None, [listed(self.effects), sds]))

    def _lindley(self, name: str) -> str:
        """Say what decides where the sign hangs on the priors of fixed effects."""
        if self.sensitivity is None or not self.effects:
            return ""
        lines = self.sensitivity
        log_bf = lines[(lines["model"] == name) & (lines["priors"] == EFFECTS)]["log_bf"]
        if not log_bf.min() < 0 < log_bf.max():
            return ""
        names = listed(self.effects)
        return (
            f" Which of the two they favour depends on how wide the prior of {names} is: the "
            "wider, the more the model without (Lindley's paradox)."
        )

    def _methods(self) -> list[str]:
        """Say how every number was obtained."""
        sentences = []
        headings = {"how_group": "New group", "how_row": "New row", "how_ml": "log p(y)"}
        for column, heading in headings.items():
            if column in self.table:
                by_method = self.table.groupby(column, sort=False)
                methods = [
                    str(method)
                    if len(by_method) == 1
                    else f"{method} (`{'`, `'.join(rows.index)}`)"
                    for method, rows in by_method
                ]
                sentences.append(f"{heading}: {'; '.join(methods)}.")
        legend = [] if self.new_group is None and self.known_group is None else [LEGEND]
        return [" ".join(sentences), *legend] if sentences else []

    # ---------------------------------------------------------------------------- pictures

    def plot_sensitivity(self, *, ax: Axes | None = None) -> Axes:
        """Draw the Bayes factors by the scale of the priors of what differs.

        These are the fixed effects that not all models have, or else the random-effect sds.
        """
        if self.sensitivity is None:
            raise FitError(f"there are no Bayes factors to draw. {' '.join(self.caveats)}")
        lines = self.sensitivity
        drawn = lines[lines["priors"] == lines["priors"].iloc[-1]]
        return comparisons.sensitivity(drawn, ax=ax)

    def plot_groups(self, first: str, second: str, *, ax: Axes | None = None) -> Axes:
        """Draw by how much one model predicts each new group better than another.

        Parameters
        ----------
        first, second : str
            Names of the models.
        ax : matplotlib Axes, optional
        """
        table = self.group_differences(first, second)
        return comparisons.group_differences(table, names=(first, second), ax=ax)

    def group_differences(self, first: str, second: str) -> pd.DataFrame:
        """Return the differences in elpd of two models group by group.

        Parameters
        ----------
        first, second : str
            Names of the models.

        Returns
        -------
        DataFrame
            Columns `level, difference`, ordered.
        """
        if self.new_group is None:
            raise FitError("no groups were left out: there are no differences between groups.")
        elpd = self.new_group.elpd
        for name in (first, second):
            if name not in elpd:
                raise FitError(
                    f"there is no model {name!r}. {suggestion(str(name), map(str, elpd))}"
                )
        table = pd.DataFrame({"level": elpd.index, "difference": elpd[first] - elpd[second]})
        return table.sort_values("difference", ignore_index=True)

    def plot_elpd(self, *, ax: Axes | None = None) -> Axes:
        """Draw the models by how well they predict a new group, with standard errors."""
        if self.new_group is None:
            raise FitError("no groups were left out: there is no elpd of new groups to draw.")
        names = ["elpd", "se", "elpd_diff", "se_diff"]
        table = self._ranked("elpd_group")[[f"{name}_group" for name in names]]
        table.columns = pd.Index(names)
        return comparisons.elpd(table.rename_axis("model").reset_index(), ax=ax)
