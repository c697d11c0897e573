"""The table of nested models that `anova` returns."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from ranef.comparison.null_distributions import MonteCarlo
from ranef.fits.point import PointFit
from ranef.fits.tables import Summary


@dataclass(frozen=True)
class NestedTest:
    """One model against the one above it.

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
        Where the p-value is from simulation.
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


@dataclass(frozen=True, eq=False, repr=False)
class Anova:
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
            {
                "formula": [fit.design.formula.text for fit in self.fits],
                "method": [fit.method for fit in self.fits],
                "npar": [fit.df for fit in self.fits],
                "loglik": [fit.loglik for fit in self.fits],
                "deviance": [-2 * fit.loglik for fit in self.fits],
                "aic": [fit.aic for fit in self.fits],
                "bic": [fit.bic for fit in self.fits],
            },
            index=pd.RangeIndex(1, len(self.fits) + 1, name="model"),
        )
        rows = [_row(comparison) for comparison in self.comparisons]
        tests = pd.DataFrame(rows, index=models.index[1:]).reindex(models.index)
        tests[["test", "kind"]] = tests[["test", "kind"]].fillna("").astype(object)
        return models.join(tests)

    def summary(self) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        frame = self.to_frame()
        shown = frame[["npar", "loglik", "deviance", "aic", "bic", "statistic"]].rename(
            columns={"aic": "AIC", "bic": "BIC"}
        )
        shown["df"] = ["", *(str(c.df) for c in self.comparisons)]
        shown["p_value"] = ["", *(f"{c.p_value:.3g}" for c in self.comparisons)]
        shown["test"] = ["", *(c.label for c in self.comparisons)]
        formulas = [f"{i}: {text}" for i, text in enumerate(frame["formula"], start=1)]
        first = self.fits[0]
        return Summary(
            title="Tests of nested models",
            facts=(*formulas, f"{first.n_obs} rows; fits by {method_of(first)}"),
            sections=(("Each model against the one above it", shown),),
            notes=(*(c.note for c in self.comparisons), *self.notes),
            frame=frame,
        )

    def __str__(self) -> str:
        return str(self.summary())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()


def _row(comparison: NestedTest) -> dict[str, object]:
    found: dict[str, object] = {
        "statistic": comparison.statistic,
        "df": comparison.df,
        "p_value": comparison.p_value,
        "test": comparison.test,
        "kind": comparison.kind,
    }
    if comparison.df_residual is not None:
        found["df_residual"] = comparison.df_residual
    if comparison.simulated is not None:
        simulated = comparison.simulated
        found |= {"n": simulated.n, "n_zero": simulated.n_zero, "n_failed": simulated.n_failed}
        found |= {"p_lower": simulated.lower, "p_upper": simulated.upper}
    return found


def method_of(fit: PointFit) -> str:
    """Return the name of the method of a fit, as a sentence has it."""
    return "REML" if fit.method == "reml" else "maximum likelihood"
