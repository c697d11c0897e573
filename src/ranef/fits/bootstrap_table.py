"""`Bootstrap`: the table of estimates of simulated responses, with its intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array, Panels, Style
from ranef.arguments import check_choice
from ranef.design.design import Design
from ranef.errors import DataWarning, FitError, probability, warn
from ranef.families.family import Family
from ranef.fits.pictures.parameter_densities import of_draws
from ranef.likelihood.estimate import Replicates
from ranef.plots.curves.densities import densities
from ranef.printing.frames import captioned
from ranef.printing.summary import Printed, Summary

KINDS = ("percentile", "basic")

type Parameters = tuple[Array, Array, list[Array]]
"""Fixed effects, the family's own parameters, and a root of the covariance of each term."""


@dataclass(frozen=True, eq=False, repr=False)
class Bootstrap(Printed):
    """Estimates of simulated responses.

    Attributes
    ----------
    estimates : DataFrame
        One row for each replicate that could be fitted, by its number; one column for each
        parameter, or number of the statistic.
    failures : int
        How many replicates are missing.
    seed : int
        What makes the same replicates again.
    original : Series
        The same numbers of the fit that was simulated from.
    criterion : str
        By what the model was fitted.
    """

    estimates: pd.DataFrame
    failures: int
    seed: int
    original: pd.Series[float]
    criterion: str

    @classmethod
    def of(cls, replicates: Replicates, original: pd.Series[float], criterion: str) -> Bootstrap:
        """Return the table of replicates under the names of the original numbers."""
        table = pd.DataFrame(replicates.values, columns=original.index).rename_axis("replicate")
        failed = replicates.failed
        return cls(table[~failed], int(failed.sum()), replicates.seed, original, criterion)

    def se(self) -> pd.Series[float]:
        """Return the standard deviations over replicates."""
        return self.estimates.std().rename("se")

    def bias(self) -> pd.Series[float]:
        """Return the means over replicates minus the original."""
        return (self.estimates.mean() - self.original).rename("bias")

    def confint(self, prob: float = 0.95, kind: str = "percentile") -> pd.DataFrame:
        """Return bootstrap intervals.

        Parameters
        ----------
        prob : float
        kind : {"percentile", "basic"}
            Quantiles of the replicates; or the original plus what it lacks in these, mirrored.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`, one row for each column of `estimates`. A correlation
            that is not defined, beside a variance of zero, is left out of its quantiles.

        Notes
        -----
        Quantiles are interpolated between order statistics on the normal scale: Davison and
        Hinkley (1997), eq. 5.8, as in R's boot and in lme4.
        """
        tail = (1 - probability(prob)) / 2
        check_choice("kind", kind, KINDS, "is not a bootstrap interval")
        if tail * (len(self.estimates) + 1) < 1:
            warn(
                f"{len(self.estimates)} replicates are too few for {100 * prob:g} % intervals: "
                "their ends are the smallest and the largest replicates.",
                DataWarning,
            )
        columns = (values.dropna().to_numpy() for _, values in self.estimates.items())
        bounds = np.array([_quantiles(values, (tail, 1 - tail)) for values in columns])
        bounds = bounds.reshape(-1, 2)
        if kind == "basic":
            bounds = 2 * self.original.to_numpy()[:, None] - bounds[:, ::-1]
        table = pd.DataFrame(bounds, index=self.estimates.columns, columns=["lower", "upper"])
        return captioned(table, interval=f"{100 * prob:g} % bootstrap {kind} intervals")

    def plot(self, parameters: str | Sequence[str] | None = None, **style: Unpack[Style]) -> Panels:
        """Draw the distribution of estimates over replicates, one a panel, with the original.

        Parameters
        ----------
        parameters : str or sequence of str, optional
            Columns of `estimates`; by default all that vary.
        ax : Axes or sequence of Axes, optional
            One for each.
        figsize : tuple of float, optional
            Of a new figure, in inches.
        """
        known = [str(name) for name in self.estimates]
        wanted = [parameters] if isinstance(parameters, str) else list(parameters or known)
        for name in wanted:
            check_choice("parameters", name, known, "is no column of the estimates")
        tables, marks = [], {}
        for name in wanted:
            curve = of_draws(name, self.estimates[name].dropna().to_numpy())
            if curve is not None:
                value, density = curve
                columns = {"parameter": name, "value": value, "posterior": density}
                tables.append(pd.DataFrame(columns | {"prior": np.nan}))
                marks[name] = {"original": float(self.original[name])}
        if not tables:
            raise FitError("none of these numbers varies between replicates: nothing to draw.")
        table = pd.concat(tables, ignore_index=True)
        table.attrs["estimates"] = marks
        return densities(table, of="replicates", **style)

    def summary(self, prob: float = 0.95) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`."""
        table = pd.DataFrame({"estimate": self.original, "bias": self.bias(), "se": self.se()})
        table = table.join(self.confint(prob))
        return Summary(
            title=f"Parametric bootstrap: {len(self.estimates)} fits of simulated responses",
            facts=(f"by {self.criterion}; seed={self.seed}",),
            sections=((f"Estimates, with {100 * prob:g} % percentile intervals", table),),
            notes=tuple(self._notes()),
            frame=table,
        )

    def _notes(self) -> list[str]:
        notes = []
        if self.failures:
            count = f"{self.failures} replicate{'s' * (self.failures > 1)}"
            notes.append(f"{count} could not be fitted and are missing.")
        zero = (self.estimates == 0).mean()
        notes += [
            f"{name} is zero in {share:.1%} of the replicates."
            for name, share in zero.items()
            if str(name).startswith("sd_") and share > 0
        ]
        absent = self.estimates.isna().sum()
        notes += [
            f"{name} is not defined in {count} replicates, which are left out of its numbers."
            for name, count in absent.items()
            if count
        ]
        return notes


def _quantiles(values: Array, probs: Sequence[float]) -> Array:
    """Return quantiles, interpolated between order statistics on the normal scale."""
    R = len(values)
    if not R:
        return np.full(len(probs), np.nan)
    scale = special.ndtri(np.arange(1, R + 1) / (R + 1))
    return np.interp(special.ndtri(probs), scale, np.sort(values))


def numbers_of(value: object) -> pd.Series[float]:
    """Return what a user's statistic answers as a Series of numbers.

    Raises
    ------
    FitError
        If it is no numbers.
    """
    if isinstance(value, Mapping):
        value = pd.Series(dict(value), dtype=object)
    if not isinstance(value, pd.Series):
        value = pd.Series([value], index=["statistic"], dtype=object)
    try:
        return value.astype(np.float64).rename("estimate")
    except (TypeError, ValueError):
        raise FitError(
            "the statistic must answer with a number, or a Series or dict of numbers, got "
            f"{value.tolist()!r}."
        ) from None


def parameters_of(values: Array, design: Design, family: Family) -> Parameters:
    """Return the parts of all parameters, in the order of `design.labels.parameter_names`.

    Parameters
    ----------
    values : ndarray, shape (d,)
        A correlation that is not defined, beside a variance of zero, is nan.
    design : Design
    family : Family
    """
    sizes = [len(design.fixed), len(family.parameters)]
    for term in design.terms:
        sizes += [term.n_coefs, len(term.covariance.pairs)]
    beta, psi, *of_terms = np.split(values, np.cumsum(sizes)[:-1])
    roots = []
    for term, sd, pairs in zip(design.terms, of_terms[::2], of_terms[1::2], strict=True):
        corr = np.eye(term.n_coefs)
        for (i, j), r in zip(term.covariance.pairs, np.nan_to_num(pairs), strict=True):
            corr[i, j] = corr[j, i] = r
        axes, lengths, _ = np.linalg.svd(corr * np.outer(sd, sd), hermitian=True)
        roots.append(axes * np.sqrt(lengths))
    return beta, psi, roots


def errors_of_effects(
    modes: Sequence[Array],
    covariances: Sequence[Array],
    replicates: Sequence[tuple[list[Array], list[Array]]],
) -> list[Array]:
    """Return the variance of random effects around modes over parameters, shape (m, k).

    Parameters
    ----------
    modes, covariances : sequence of ndarray, shapes (m, k) and (m, k, k)
        Of each term, at the estimates; the covariances are conditional.
    replicates : sequence of (modes, covariances)
        At each replicate of the parameters, with the same data.

    Notes
    -----
    The variance of the modes over the sampling distribution of the parameters, and the conditional
    variance, which is as much too small at estimates as it is smaller at replicates than at the
    estimates. It is not taken for smaller than the mean over replicates.

    Source: Butar & Lahiri (2003), *Journal of Statistical Planning and Inference* 112, 63-76;
    without the correction Laird & Louis (1987), *J. American Statistical Association* 82, 739-750.
    """
    variances = []
    for t, (b, cov) in enumerate(zip(modes, covariances, strict=True)):
        moved = np.mean([(at[t] - b) ** 2 for at, _ in replicates], axis=0)
        mean = np.mean([np.diagonal(own[t], 0, 1, 2) for _, own in replicates], axis=0)
        corrected = 2 * np.diagonal(cov, axis1=1, axis2=2) - mean
        variances.append(moved + np.maximum(mean, corrected))
    return variances
