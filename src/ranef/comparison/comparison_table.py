"""`Comparison`: the table of several models, what it says in words, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ranef.errors import FitError, suggestion
from ranef.fits.tables import Summary
from ranef.leave_one_out.elpd import Scores
from ranef.plots import comparisons

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_ERROR = 0.1  # of a log Bayes factor that is printed as a number
SUBSTANTIAL = 3.0  # a Bayes factor below which nothing is decided
CLEAR = 4.0  # difference in elpd below which its standard error is not to be trusted
LEGEND = (
    "diff, se diff: from the best model, over the units left out; p worse: the probability that a "
    "model predicts worse, by a normal approximation that flags speak against; error: of the "
    "numbers themselves."
)
ALIKE = 0.005  # a difference in elpd that is none
ERRORS = 2.0  # how many standard errors a difference must have


def short(number: float) -> str:
    """Return a positive number with two digits that count.

    Examples
    --------
    >>> [short(x) for x in (0.000728, 1.5e-08, 3.14, 1430.0, 2.5e7)]
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
        How many of its numbers were computed anew, as importance weights could not be trusted.
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
        elpd = pd.DataFrame({n: own.elpd for n, own in scores.items()}, index=first.labels)
        return Score(first.factor, elpd, sum(int(own.repaired.sum()) for own in scores.values()))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Several models side by side: predictions, marginal likelihoods, and what they decide.

    Attributes
    ----------
    table : DataFrame
        One row a model; see `to_frame`.
    new_group, known_group : Score or None
        elpd by unit and model: of whole groups, and of single rows, that were left out.
    sensitivity : DataFrame or None
        Columns `model, scale, log_bf, mcse`: the logarithm of the Bayes factor against the best
        model as the priors of all random-effect sds are scaled.
    caveats : tuple of str
    """

    table: pd.DataFrame
    new_group: Score | None
    known_group: Score | None
    sensitivity: pd.DataFrame | None
    caveats: tuple[str, ...]

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
        """What the table says, in words."""
        return " ".join(filter(None, (self._prediction(), self._probability())))

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        table = self.table
        sections = [self._new_group(), self._known_group(), self._marginal(), self._likelihood()]
        return Summary(
            title=f"Comparison of {len(table)} models",
            facts=self._models(),
            sections=tuple(section for section in sections if section is not None),
            notes=(*([self.verdict] if self.verdict else []), *self._how(), *self.caveats),
            frame=table,
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    # ---------------------------------------------------------------------------- sections

    def _section(self, columns: Mapping[str, pd.Series[Any]], rows: pd.Index[Any]) -> pd.DataFrame:
        """Return columns of text for the models of a section, the best first."""
        found = pd.DataFrame(columns, index=rows)
        found.insert(0, "theta", self.table.loc[rows, "n_variances"])
        return found.loc[:, (found != "").any()]

    def _models(self) -> tuple[str, ...]:
        """Say what the models are, where their names do not."""
        if (self.table["random"] == self.table.index).all():
            return ()
        return tuple(f"{name}: {random}" for name, random in self.table["random"].items())

    def _new_group(self) -> tuple[str, pd.DataFrame] | None:
        if self.new_group is None:
            return None
        rows = self._ranked("elpd_group")
        own = self.table.loc[rows]
        low, high = own["weight_lower_group"], own["weight_upper_group"]
        weights = [
            f"{w:.2f} [{a:.2f}, {b:.2f}]"
            for w, a, b in zip(own["weight_group"], low, high, strict=True)
        ]
        columns = self._elpd(own, "group") | {"weight": pd.Series(weights, rows)}
        units = f"{len(self.new_group.elpd)} groups left out one at a time"
        return (
            f"A new `{self.new_group.factor}`, all its rows together ({units})",
            self._section(columns, rows),
        )

    def _known_group(self) -> tuple[str, pd.DataFrame] | None:
        if self.known_group is None:
            return None
        rows = self._ranked("elpd_row")
        units = f"{len(self.known_group.elpd)} rows left out one at a time"
        head = f"A new row of a known group ({units})"
        return head, self._section(self._elpd(self.table.loc[rows], "row"), rows)

    @staticmethod
    def _elpd(own: pd.DataFrame, what: str) -> dict[str, pd.Series[Any]]:
        diff, se = own[f"elpd_diff_{what}"], own[f"se_diff_{what}"]
        return {
            "elpd": own[f"elpd_{what}"].map("{:.2f}".format),
            "diff": diff.map(lambda x: f"{x:.2f}" if x else "0"),
            "se diff": se.map(lambda x: f"{x:.2f}" if x else ""),
            "p worse": own[f"p_worse_{what}"].map(lambda x: "" if np.isnan(x) else f"{x:.2f}"),
            "flags": own[f"diag_diff_{what}"],
            "error": own[f"error_{what}"].map("{:.1g}".format),
        }

    def _marginal(self) -> tuple[str, pd.DataFrame] | None:
        if "log_ml" not in self.table:
            return None
        rows = self._ranked("log_ml")
        own = self.table.loc[rows]
        columns = {
            "log p(y)": own["log_ml"].map("{:.3f}".format),
            "error": own["log_ml_error"].map("{:.1g}".format),
            "probability": own["probability"].map("{:.3g}".format),
            "Bayes factor": pd.Series([self._bayes_factor(name) for name in rows], rows),
            "priors x 1/4 to x 4": pd.Series([self._range(name) for name in rows], rows),
        }
        return "Marginal likelihood, and Bayes factor against the best", self._section(
            columns, rows
        )

    def _likelihood(self) -> tuple[str, pd.DataFrame] | None:
        if "loglik" not in self.table:
            return None
        own = self.table[self.table["loglik"].notna()]
        columns = {
            "df": own["df"].map("{:.0f}".format),
            **{name: own[name].map("{:.2f}".format) for name in ("loglik", "aic", "bic")},
            "method": own["method"],
        }
        return "Log-likelihood of point estimates", self._section(columns, own.index)

    def _bayes_factor(self, name: str) -> str:
        row = self.table.loc[name]
        if row["log_bayes_factor"] == 0:
            return "1"
        return short(np.exp(row["log_bayes_factor"])) if self._decided(name) else "not decided"

    def _range(self, name: str) -> str:
        row = self.table.loc[name]
        if row["log_bayes_factor"] == 0:
            return ""
        low, high = np.exp(row[["log_bayes_factor_lower", "log_bayes_factor_upper"]].astype(float))
        return f"{short(low)} to {short(high)}"

    def _decided(self, name: str) -> bool:
        """Whether the Bayes factor of a model against the best is more than noise and priors."""
        row = self.table.loc[name]
        sure = row["log_bayes_factor_error"] <= MAX_ERROR
        low, high = row["log_bayes_factor_lower"], row["log_bayes_factor_upper"]
        return bool(sure and (high < 0 or low == high))

    def _ranked(self, column: str) -> pd.Index[Any]:
        return self.table[column].dropna().sort_values(ascending=False, kind="stable").index

    # -------------------------------------------------------------------------- in words

    def _prediction(self) -> str:
        """Say which model predicts a new group best, and whether that is decided."""
        if self.new_group is None:
            return ""
        best, second = self._ranked("elpd_group")[:2]
        row = self.table.loc[second]
        diff, se = -float(row["elpd_diff_group"]), float(row["se_diff_group"])
        few = len(self.new_group.elpd)
        if diff < ALIKE and se < ALIKE:
            return f"A new `{self.new_group.factor}` is predicted alike by `{best}` and `{second}`."
        decided = diff >= CLEAR and diff > ERRORS * se
        ending = "." if decided else f": not decided by {few} groups."
        return (
            f"A new `{self.new_group.factor}` is predicted best by `{best}`, by {diff:.2f} "
            f"(se {se:.2f}) more than by `{second}`{ending}"
        )

    def _probability(self) -> str:
        """Say which model is the most probable, and whether that is decided."""
        if "log_ml" not in self.table:
            return ""
        best, second = self._ranked("log_ml")[:2]
        row = self.table.loc[second]
        log_bf = -float(row["log_bayes_factor"])
        low, high = -row["log_bayes_factor_upper"], -row["log_bayes_factor_lower"]
        probability = float(self.table.loc[best, "probability"])
        decided = self._decided(second) and log_bf >= np.log(SUBSTANTIAL)
        value = (
            f" is {short(np.exp(log_bf))}" if self._decided(second) else " depends on the priors"
        )
        found = (
            f"The data are the most probable under `{best}` (posterior probability "
            f"{probability:.3g}). Against `{second}` its Bayes factor{value} "
            f"({short(np.exp(low))} to {short(np.exp(high))} over prior scales)"
            f"{'.' if decided else ': not decided.'}"
        )
        likely = str(self.table["probability"].idxmax())
        if likely != best:
            found += f" With the prior probabilities given `{likely}` is the most probable model."
        return found

    def _how(self) -> list[str]:
        """Say how every number was obtained."""
        said = []
        parts = (("how_group", "New group"), ("how_row", "New row"), ("how_ml", "log p(y)"))
        for column, name in parts:
            if column in self.table:
                by_model = self.table[column].dropna()
                ways = dict.fromkeys(by_model)
                whose = {way: by_model.index[by_model == way].tolist() for way in ways}
                words = [
                    way if len(ways) == 1 else f"{way} (`{'`, `'.join(names)}`)"
                    for way, names in whose.items()
                ]
                said.append(f"{name}: {'; '.join(words)}.")
        if not said:
            return []
        return [" ".join(said), LEGEND]

    # ---------------------------------------------------------------------------- pictures

    def plot_sensitivity(self, *, ax: Axes | None = None) -> Axes:
        """Draw the Bayes factors by the scale of the priors of random-effect sds."""
        if self.sensitivity is None:
            raise FitError(f"there are no Bayes factors to draw. {' '.join(self.caveats)}")
        return comparisons.sensitivity(self.sensitivity, ax=ax)

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
        found = pd.DataFrame({"level": elpd.index, "difference": (elpd[first] - elpd[second])})
        return found.sort_values("difference", ignore_index=True)

    def plot_elpd(self, *, ax: Axes | None = None) -> Axes:
        """Draw the models by how well they predict a new group, with standard errors."""
        if self.new_group is None:
            raise FitError("no groups were left out: there is no elpd of new groups to draw.")
        names = ["elpd", "se", "elpd_diff", "se_diff"]
        table = self.table.loc[self._ranked("elpd_group"), [f"{name}_group" for name in names]]
        table.columns = pd.Index(names)
        return comparisons.elpd(table.rename_axis("model").reset_index(), ax=ax)
