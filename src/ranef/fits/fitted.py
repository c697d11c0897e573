"""What all answers of a fit start from: its numbers, and what answers for its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ranef._typing import Array
from ranef.arguments import check_known
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import parameter_names
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.fits import tables
from ranef.fits.engine import Engine


@dataclass(frozen=True, eq=False)
class Numbers:
    """The parameters of a fit, as estimates or as draws of shape (draws, ...).

    Attributes
    ----------
    beta : ndarray, shape (..., p)
    covs : tuple of ndarray, shape (..., k, k)
        The covariance of each term.
    parameters : mapping of str to float or ndarray, shape (...)
        The family's own.
    b : mapping of str to ndarray, shape (draws, m, k), optional
        Draws of the random effects by the label of the term; None for estimates.
    """

    beta: Array
    covs: tuple[Array, ...]
    parameters: Mapping[str, Array]
    b: Mapping[str, Array] | None = None


class Fitted(ABC):
    """What all answers of a fit start from, whatever the method.

    Attributes
    ----------
    design : Design
        Data and matrices of the fit.
    family : Family
    method : str
        How the fit was made: "reml", "ml", "map", "laplace", "quadrature", "mcmc".
    engine : Engine, optional
        What answers for the model that the fit comes from.
    """

    design: Design
    family: Family
    method: str
    engine: Engine[Any] | None

    @abstractmethod
    def fixef(self) -> pd.Series[float]:
        """Return the fixed effects by name: estimates, or posterior means."""

    @abstractmethod
    def varcorr(self) -> tables.VarCorr:
        """Return standard deviations and correlations of the random effects."""

    @property
    @abstractmethod
    def parameters(self) -> dict[str, float]:
        """The family's own parameters by name, `sigma` among them where it has one."""

    @abstractmethod
    def _b(self) -> dict[str, Array]:
        """Return the random effects by term label, shape (m, k)."""

    @abstractmethod
    def vcov(self) -> pd.DataFrame:
        """Return the covariance of the fixed effects."""

    @property
    @abstractmethod
    def sigma(self) -> float:
        """The residual standard deviation, or the family's scale; 1 where it has none."""

    @property
    @abstractmethod
    def theta(self) -> Array:
        """The relative covariance parameters, in lme4's order; their names: `theta_names`."""

    @property
    def asked(self) -> Engine[Any]:
        """What answers for the model that the fit comes from."""
        if self.engine is None:
            raise FitError(
                "this fit has no model to ask, as it was put together by hand or sampled from a "
                "PyMC model of your own: fit a `ranef.Model` as it is."
            )
        return self.engine

    @abstractmethod
    def confint(self, method: str | None = None, prob: float = 0.95) -> pd.DataFrame:
        """Return intervals, a DataFrame with columns `lower` and `upper`."""

    @abstractmethod
    def _numbers(self) -> Numbers:
        """Return the parameters as estimates, or as draws, to compute functions of them."""

    def estimates(self) -> pd.Series[float]:
        """Return all parameters in one Series: fixed effects, sigma, sds, correlations.

        The names are those of the posterior's variables: `Days`, `sigma`, `sd_Subject[Days]`,
        `corr_Subject[Intercept, Days]`, and `shape` or whatever else the family has in place of
        `sigma` or besides. A coefficient that is called as a variable is written `beta[sigma]`.
        """
        varcorr = self.varcorr()
        values = [*self.fixef(), *self.parameters.values()]
        for term in self.design.terms:
            values += [*varcorr.sd[term.label]]
            corr = varcorr.corr[term.label].to_numpy()
            values += [corr[i, j] for i, j in term.covariance.pairs]
        names = parameter_names(self.design, self.family)
        return pd.Series(values, names, dtype=np.float64, name="estimate")

    def _term(self, label: str | None) -> RandomTerm:
        labels = [t.label for t in self.design.terms]
        if not labels:
            raise FitError("the model has no random effects.")
        if label is None:
            return self.design.terms[0]
        check_known([label], labels, lambda name: f"there is no random-effects term {name!r}.")
        return self.design.term(label)

    def _undetermined(self) -> list[str]:
        """Say which covariance parameters the data cannot tell apart."""
        said = [] if self.engine is None else self.engine.undetermined(self.method)
        return [f"{text[0].upper()}{text[1:]}" for text in said]
