"""Tables of a fit: the variance components, and the random effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.design.design import Design, RandomTerm
from ranef.families.family import Family
from ranef.printing.digits import shown
from ranef.printing.frames import captioned
from ranef.printing.summary import Printed, Summary

_NO_VARIANCES = "no variance components"


@dataclass(frozen=True, eq=False, repr=False)
class VarCorr(Printed):
    """Standard deviations and correlations of the random effects.

    Attributes
    ----------
    sd : dict of str to Series
        By term label: the standard deviation of each coefficient.
    corr, cov : dict of str to DataFrame
        By term label: correlations (nan where a variance is zero) and covariances.
    sigma : float
        The residual standard deviation, or the family's scale; 1 where it has none.
    sigma2 : float
        The residual variance.
    correlated : frozenset of str
        Labels of the terms whose coefficients may be correlated.
    has_sigma : bool
        Whether there is a sigma, and with it a row `Residual` in the tables.

    Notes
    -----
    Of a posterior all of these are means, and the mean of a variance is larger than the square of
    the mean standard deviation.
    """

    sd: dict[str, pd.Series[float]]
    corr: dict[str, pd.DataFrame]
    cov: dict[str, pd.DataFrame]
    sigma: float
    sigma2: float
    correlated: frozenset[str]
    has_sigma: bool = True

    @classmethod
    def of(
        cls,
        terms: Sequence[RandomTerm],
        moments: Sequence[tuple[Array, Array, Array]],
        sigmas: tuple[float, float],
        *,
        has_sigma: bool,
    ) -> VarCorr:
        """Return a table of sds, correlations and covariances of each term, sigma and sigma^2."""
        sd, corr, cov = {}, {}, {}
        for term, (sds, corrs, covs) in zip(terms, moments, strict=True):
            names = pd.Index(term.coefs)
            sd[term.label] = pd.Series(sds, index=names, name="sd")
            corr[term.label] = pd.DataFrame(corrs, index=names, columns=names)
            cov[term.label] = pd.DataFrame(covs, index=names, columns=names)
        correlated = frozenset(t.label for t in terms if t.covariance.has_correlations)
        return cls(sd, corr, cov, *sigmas, correlated, has_sigma)

    @property
    def table(self) -> pd.DataFrame:
        """Tidy table with columns `grp, var1, var2, vcov, sdcor`, as lme4's `as.data.frame`."""
        rows: list[tuple[str, str | None, str | None, float, float]] = []
        for label, sd in self.sd.items():
            cov, corr = self.cov[label].to_numpy(), self.corr[label].to_numpy()
            pairs = combinations(range(len(sd)), 2)
            rows += [(label, name, None, cov[i, i], sd.iloc[i]) for i, name in enumerate(sd.index)]
            if label in self.correlated:
                rows += [(label, sd.index[i], sd.index[j], cov[i, j], corr[i, j]) for i, j in pairs]
        if self.has_sigma:
            rows.append(("Residual", None, None, self.sigma2, self.sigma))
        return pd.DataFrame(rows, columns=["grp", "var1", "var2", "vcov", "sdcor"])

    def printed(self) -> pd.DataFrame:
        """Return the table for people: one row a coefficient, correlations with those above."""
        rows, index = [], []
        width = max((len(self.sd[t]) - 1 for t in self.correlated), default=0)
        for label, sd in self.sd.items():
            cov, corr = self.cov[label].to_numpy(), self.corr[label].to_numpy()
            for i, name in enumerate(sd.index):
                above = range(i) if label in self.correlated else ()
                words = [shown(corr[i, j], 3) for j in above]
                rows.append([cov[i, i], sd.iloc[i], *words, *[""] * (width - len(words))])
                index.append((label if i == 0 else "", name))
        if self.has_sigma:
            rows.append([self.sigma2, self.sigma, *[""] * width])
            index.append(("Residual", ""))
        blank = [" " * i for i in range(1, width)]  # heads that differ, but not to the eye
        heads = ["variance", "sd", *(["corr", *blank] if width else [])]
        labels = pd.MultiIndex.from_arrays([[pair[i] for pair in index] for i in (0, 1)])
        return pd.DataFrame(rows, labels, heads)

    def summary(self) -> Summary:
        """Return the table as an object: text, HTML, `.to_frame()`."""
        if not (self.has_sigma or self.sd):
            return Summary("", (), (), (_NO_VARIANCES,), self.table)
        return Summary("", (), (("", self.printed()),), (), self.table)


def tidy_effects(
    terms: Sequence[RandomTerm],
    values: Sequence[tuple[Array, Array, Array, Array]],
    interval: str,
    coefs: Sequence[tuple[str, ...]] | None = None,
) -> pd.DataFrame:
    """Tabulate random effects: one row a level and coefficient, one term after the other.

    Parameters
    ----------
    terms : sequence of RandomTerm
    values : sequence of (estimate, sd, lower, upper)
        Per term, arrays of shape (m, k), or of m k elements.
    interval : str
        What the intervals are.
    coefs : sequence of tuple of str, optional
        The coefficients of each term, if not those of its random effects.

    Returns
    -------
    DataFrame
        Columns `term, level, coef, estimate, sd, lower, upper`; `interval` among its `attrs`.
    """
    names = [term.coefs for term in terms] if coefs is None else coefs
    tables = [_effects(*each) for each in zip(terms, names, values, strict=True)]
    if tables:
        table = pd.concat(tables, ignore_index=True)
    else:
        words = pd.DataFrame(columns=["term", "level", "coef"], dtype=object)
        numbers = dict.fromkeys(("estimate", "sd", "lower", "upper"), np.empty(0))
        table = words.assign(**numbers)
    return captioned(table, interval=interval)


def _effects(
    term: RandomTerm, coefs: tuple[str, ...], values: tuple[Array, Array, Array, Array]
) -> pd.DataFrame:
    names = ("estimate", "sd", "lower", "upper")
    numbers = {name: column.ravel() for name, column in zip(names, values, strict=True)}
    return effect_labels(term.label, term.levels, coefs).assign(**numbers)


def effect_labels(term: str, levels: pd.Index, coefs: tuple[str, ...]) -> pd.DataFrame:
    """Return the columns `term, level, coef` of a table with a row a level and coefficient."""
    return pd.DataFrame(
        {
            "term": term,
            "level": np.repeat(levels.to_numpy(), len(coefs)),
            "coef": np.tile(np.array(coefs, dtype=object), len(levels)),
        }
    )


def rows_in_words(design: Design, family: Family, *, knows_sigma: bool = False) -> str:
    """Return how many rows a fit uses, what of them besides their columns, and what it left out."""
    used = []
    if knows_sigma:
        used.append("known standard errors")
    elif design.has_weights:
        used.append(f"{design.total_weight:.0f} trials" if family.has_trials else "prior weights")
    used += ["an offset"] * design.has_offset
    said = f"{design.n_obs} rows{' with ' * bool(used)}{' and '.join(used)}"
    return (
        f"{said} ({design.left_out} more left out for missing values)" if design.left_out else said
    )
