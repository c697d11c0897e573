"""The pictures of a fit: random effects ordered, and how they are shrunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ranef.design.design import Design, RandomTerm
from ranef.errors import FitError, suggestion
from ranef.families.family import Family
from ranef.fits.shrinkage import shrinkage_table
from ranef.fits.tables import VarCorr
from ranef.plots import random_effects

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


class Pictures(ABC):
    """What is drawn of any fit.

    Attributes
    ----------
    design : Design
    family : Family
    """

    design: Design
    family: Family

    @abstractmethod
    def fixef(self) -> pd.Series[float]:
        """Return the fixed effects by name: estimates, or posterior means."""

    @abstractmethod
    def varcorr(self) -> VarCorr:
        """Return standard deviations and correlations of the random effects."""

    @abstractmethod
    def ranef_table(self, prob: float = 0.95) -> pd.DataFrame:
        """Return the random effects as a tidy table.

        Columns `term, level, coef, estimate, sd, lower, upper`.
        """

    @property
    @abstractmethod
    def parameters(self) -> dict[str, float]:
        """The family's own parameters by name, `sigma` among them where it has one."""

    @abstractmethod
    def _b(self) -> dict[str, Array]:
        """Return the random effects by term label, shape (m, k)."""

    @property
    @abstractmethod
    def _interval_label(self) -> str:
        """What the intervals of the random effects are, for a plot."""

    def shrinkage_table(self, term: str | None = None) -> pd.DataFrame:
        """Return, for each group, its own estimate beside the model's.

        Parameters
        ----------
        term : str, optional
            Label of the term; the first by default.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, own, model, population, n`: no pooling (nan where the
            rows of the group do not determine it), partial pooling, complete pooling, rows. All
            on the link scale; see `ranef.fits.shrinkage.shrinkage_table`.
        """
        chosen, psi = self._term(term), np.array(list(self.parameters.values()))
        return shrinkage_table(
            self.design, chosen, beta=self.fixef(), b=self._b(), family=self.family, psi=psi
        )

    def plot_caterpillar(
        self, term: str | None = None, *, prob: float = 0.95, kind: str = "interval", **style: Any
    ) -> NDArray[np.object_]:
        """Draw the random effects with their intervals, ordered: see `plots.random_effects`.

        Parameters
        ----------
        term : str, optional
            Label of the term; all by default.
        prob : float
            Probability of the intervals.
        kind : {"interval", "qq"}
            Levels in order, or against normal quantiles.
        **style
            `ax=`, `order=` and whatever else `ranef.plots.random_effects.caterpillar` takes.
        """
        self._term(term)
        table = self.ranef_table(prob)
        label = self._interval_label.format(percent=f"{100 * prob:g} %")
        return random_effects.caterpillar(
            table, term=term, kind=kind, interval_label=label, **style
        )

    def plot_shrinkage(self, term: str | None = None, *, coefs: Any = None, **style: Any) -> Axes:
        """Draw how the model shrinks each group's own estimate: see `plots.random_effects`.

        Parameters
        ----------
        term : str, optional
            Label of the term; the first by default.
        coefs : str or sequence of str, optional
            One coefficient (rows) or two (arrows with the covariance ellipse); the first two by
            default.
        **style
            `ax=` and whatever else `ranef.plots.random_effects.shrinkage` takes.
        """
        chosen = self._term(term)
        return random_effects.shrinkage(
            self.shrinkage_table(chosen.label),
            coefs=coefs,
            covariance=self.varcorr().cov[chosen.label],
            scale="" if self.family.link.name == "identity" else f"{self.family.link.name} scale",
            **style,
        )

    def _term(self, label: str | None) -> RandomTerm:
        labels = [t.label for t in self.design.terms]
        if not labels:
            raise FitError("the model has no random effects.")
        if label is None:
            return self.design.terms[0]
        if label not in labels:
            raise FitError(
                f"there is no random-effects term {label!r}. {suggestion(str(label), labels)}"
            )
        return self.design.term(label)
