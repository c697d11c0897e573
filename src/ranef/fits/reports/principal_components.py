"""Principal components of the random effects of a grouping factor, as lme4's `rePCA`.

Of k coefficients that vary by a factor, fewer than k dimensions may carry all of the variance. Then
the covariance is singular: the model has more random effects than the data support.

Source: Bates, Kliegl, Vasishth & Baayen (2015), *Parsimonious mixed models*, arXiv:1506.04967.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import linalg

from ranef._typing import Array
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.fits.tables import VarCorr
from ranef.printing.summary import Printed, Summary

ZERO = 1e-4  # a relative sd that counts as zero, as lme4's isSingular


@dataclass(frozen=True, eq=False)
class FactorComponents:
    """The principal components of a covariance, largest first.

    Attributes
    ----------
    sd : ndarray, shape (k,)
    loadings : DataFrame, shape (k, k)
        Coefficients x components, columns of length 1 whose largest element is positive.
    supported : int
        How many have an sd that is not zero, in units in which no column is larger than others.
    """

    sd: Array
    loadings: pd.DataFrame
    supported: int

    @property
    def table(self) -> pd.DataFrame:
        """One row a component: `sd`, `proportion` of the variance, and that `cumulative`."""
        variance = self.sd**2
        proportion = variance / variance.sum() if variance.any() else np.full(len(variance), np.nan)
        columns = {"sd": self.sd, "proportion": proportion, "cumulative": np.cumsum(proportion)}
        return pd.DataFrame(columns, index=self.loadings.columns)


@dataclass(frozen=True, eq=False, repr=False)
class PrincipalComponents(Printed):
    """The principal components of all grouping factors.

    Attributes
    ----------
    factors : dict of str to FactorComponents
    """

    factors: dict[str, FactorComponents]

    def to_frame(self) -> pd.DataFrame:
        """Return `sd, proportion, cumulative`, with an index of factor and component."""
        tables = {factor: components.table for factor, components in self.factors.items()}
        return pd.concat(tables, names=["factor", "component"])

    def summary(self) -> Summary:
        """Return the printed table as an object."""
        sections = [
            (f"{factor}, with loadings", components.table.join(components.loadings.T))
            for factor, components in self.factors.items()
        ]
        return Summary(
            "Principal components of the random effects, relative to sigma",
            (),
            tuple(sections),
            tuple(_sentence(factor, components) for factor, components in self.factors.items()),
            self.to_frame(),
        )


def re_pca(cov: pd.DataFrame, lengths: Array | None = None) -> FactorComponents:
    """Return the principal components of a covariance, shape (k, k).

    Parameters
    ----------
    cov : DataFrame, shape (k, k)
        Relative to sigma^2.
    lengths : ndarray, shape (k,), optional
        The root mean square of each coefficient's column, in whose units the supported
        components are counted.

    Examples
    --------
    >>> cov = pd.DataFrame([[1.0, 2.0], [2.0, 4.0]], ["a", "b"], ["a", "b"])
    >>> found = re_pca(cov)
    >>> found.sd.round(3), found.supported
    (array([2.236, 0.   ]), 1)
    """
    matrix = cov.to_numpy()
    sd, axes = _axes(matrix)
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(len(sd))])
    scale = np.ones(len(sd)) if lengths is None else lengths
    supported = int((_axes(matrix * np.outer(scale, scale))[0] > ZERO).sum())
    names = pd.Index([f"PC{i + 1}" for i in range(len(sd))])
    return FactorComponents(sd, pd.DataFrame(axes, cov.index, names), supported)


def pca_table(design: Design, varcorr: VarCorr) -> PrincipalComponents:
    """Return the principal components of a fit, all terms of a grouping factor together.

    Of a posterior those of the mean covariance.

    Raises
    ------
    FitError
        If the model has no random effects.
    """
    if not design.terms:
        raise FitError("the model has no random effects: there are no principal components.")
    factors: dict[str, list[str]] = {}
    for term in design.terms:
        factors.setdefault(term.factor, []).append(term.label)
    lengths = {t.label: t.lengths for t in design.terms}
    return PrincipalComponents(
        {
            factor: re_pca(
                _joined(labels, varcorr.cov) / varcorr.sigma2,
                np.concatenate([lengths[label] for label in labels]),
            )
            for factor, labels in factors.items()
        }
    )


def _joined(labels: list[str], cov: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the covariance of independent terms together."""
    names = [name for label in labels for name in cov[label].index]
    blocks = linalg.block_diag(*(cov[label].to_numpy() for label in labels))
    return pd.DataFrame(blocks, pd.Index(names), pd.Index(names))


def _axes(cov: Array) -> tuple[Array, Array]:
    """Return standard deviations and axes, largest first."""
    values, vectors = np.linalg.eigh(cov)
    return np.sqrt(np.maximum(values[::-1], 0.0)), vectors[:, ::-1]


def _sentence(factor: str, components: FactorComponents) -> str:
    k, verb = len(components.sd), "has" if components.supported == 1 else "have"
    count = f"{components.supported} of {k} dimension{'s' * (k > 1)}"
    text = f"{factor}: {count} of the random effects {verb}"
    if components.supported == k:
        return f"{text} variance."
    return (
        f"{text} variance. The model has more random effects than the data support: leave out "
        "correlations or coefficients."
    )
