"""What a fit can ask of the model that it comes from: an `Engine`, which fits carry.

Fits hold numbers. Whatever needs the data once more, leaving rows out, refitting, profiling, goes
through these methods; which way a model answers is settled where the fit is made.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ranef._typing import Array, Executor, FilePath, Flags, Places
from ranef.leave_one_out import elpd
from ranef.likelihood import mixed_model_equations
from ranef.likelihood.estimate import FittedModel, Replicates
from ranef.likelihood.profile import likelihood_profile
from ranef.posterior import draws, marginal_likelihood, prior_sensitivity, savage_dickey
from ranef.priors.assignment import Priors

if TYPE_CHECKING:
    import pandas as pd

OF_MODEL = ("design", "family", "engine")  # fields of a fit that a model makes again


def records_of(fit: Any) -> dict[str, object]:
    """Return the numbers of a fit by field, and what they are of: what a file holds of it."""
    names = [field.name for field in fields(fit)]
    numbers = {name: getattr(fit, name) for name in names if name not in OF_MODEL}
    return {"fixed": fit.design.fixed} | numbers


class Engine[F](Protocol):
    """The answers that need more than the numbers of a fit, to questions about records.

    F is the type of the fits that `refit` returns.

    Attributes
    ----------
    priors : Priors
        Of the model.
    """

    priors: Priors

    # ----------------------------------------------------------------------- any fit

    @property
    def lazy_data(self) -> object:
        """The complete rows of the lazy data that the model was made of; None for others."""
        return None

    @abstractmethod
    def refit(self, method: str, **options: Any) -> F:
        """Fit the same model by another method."""

    @property
    @abstractmethod
    def posterior_method(self) -> str:
        """The most exact way to the posterior that takes seconds at most."""

    @abstractmethod
    def without(self, rows: Places, method: str, **options: Any) -> F:
        """Fit the same model by a method without some rows: same codings, same priors.

        Levels that lose all their rows are gone, and no warning is given.
        """

    @abstractmethod
    def with_response(self, y: Array) -> Engine[F]:
        """Return the engine of the same model of another response, shape (n,)."""

    @abstractmethod
    def update(
        self,
        method: str | None,
        options: Mapping[str, Any],
        formula: str | None,
        data: object,
        changes: Mapping[str, Any],
    ) -> F:
        """Fit a model with another formula, other data or other options.

        Parameters
        ----------
        method : str, optional
            The default of the model for None.
        options : mapping of str to object
            Those of the old fit, which are kept where the method has them.
        formula : str, optional
            In which `.` stands for that side of the model's own.
        data : DataFrame, optional
        changes : mapping of str to object
            Options of the model, and of the fit.
        """

    @abstractmethod
    def save(self, path: FilePath, fit: Mapping[str, object]) -> None:
        """Write a fit into a file.

        Parameters
        ----------
        path : path
        fit : mapping of str to object
            Its records, as `records_of` has them.
        """

    @abstractmethod
    def undetermined(self, method: str) -> list[str]:
        """Return what is to be said of covariance parameters that the data cannot tell apart.

        Parameters
        ----------
        method : str
            How the model was fitted.
        """

    # ----------------------------------------------------------------------- posteriors

    @abstractmethod
    def scores(
        self,
        posterior: draws.Marginals,
        units: elpd.Units,
        rng: np.random.Generator,
        executor: Executor | None,
    ) -> elpd.Scores:
        """Return the log predictive densities of units that are left out."""

    @abstractmethod
    def evidence(
        self,
        posterior: draws.Marginals,
        rng: np.random.Generator,
        known: marginal_likelihood.MarginalLikelihood | None,
    ) -> marginal_likelihood.MarginalLikelihood:
        """Return log p(y); improper priors leave a constant open.

        Parameters
        ----------
        posterior : Marginals
        rng : Generator
        known : MarginalLikelihood or None
            What the way to the posterior gave already.
        """

    @abstractmethod
    def sensitivity(
        self, posterior: draws.Marginals, scales: Array, effects: Collection[str] = ()
    ) -> prior_sensitivity.Sensitivity:
        """Return how log p(y) changes with the scale of the priors of all sds, or of some effects.

        Improper priors of what is not scaled do not matter.
        """

    @abstractmethod
    def savage_dickey(self, posterior: draws.Marginals, name: str) -> savage_dickey.DensityRatio:
        """Return the Bayes factor of the model without a parameter."""

    # ----------------------------------------------------------------------- point estimates

    @abstractmethod
    def profile(
        self,
        model: FittedModel,
        names: Sequence[str] | None,
        *,
        prob: float,
        executor: Executor | None,
    ) -> likelihood_profile.Profile:
        """Return the profile likelihood of parameters."""

    @abstractmethod
    def replicate(
        self,
        model: FittedModel,
        n: int,
        statistic: Callable[[FittedModel], Array],
        *,
        all_parameters: bool,
        seed: int | None,
        executor: Executor | None,
    ) -> Replicates:
        """Return a statistic of refits of responses that are simulated from a fit.

        Parameters
        ----------
        model : FittedModel
        n : int
        statistic : callable
            From a refit, the model with another response and estimate, to numbers.
        all_parameters : bool
            Whether these are all parameters, in the order of `design.labels.parameter_names`.
        seed : int, optional
        executor : Executor, optional
        """

    @abstractmethod
    def equations(self, model: FittedModel) -> mixed_model_equations.MixedModelEquations:
        """Return Henderson's mixed-model equations at the estimates: the errors of all effects."""

    @abstractmethod
    def effects_of(self, model: FittedModel, Y: Array) -> Iterator[tuple[Array, list[Array]]]:
        """Yield the fixed effects and conditional modes of responses, shape (n, S), one by one.

        The variances and the family's own parameters are those of the model.
        """

    @abstractmethod
    def effects_at(
        self, beta: Array, psi: Array, roots: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        """Return conditional modes, shape (m, k), and their covariances at other parameters.

        Parameters
        ----------
        beta : ndarray, shape (p,)
            Without combinations of others.
        psi : ndarray, shape (r,)
            The family's own parameters, sigma among them, in its order.
        roots : sequence of ndarray, shape (k, k)
            A square root of the covariance of each term.
        """

    @abstractmethod
    def null_statistics(
        self, null: FittedModel, n: int, *, seed: int | None, first: int, executor: Executor | None
    ) -> tuple[Array, Flags]:
        """Return likelihood-ratio statistics under a smaller model, and which refits failed.

        Parameters
        ----------
        null : FittedModel
            The smaller model, by the method of both fits.
        n : int
        seed : int, optional
        first : int
            The number of the first replicate, so that a sequence can be continued.
        executor : Executor, optional
            Takes the work in parts.
        """

    @abstractmethod
    def degrees_of_freedom(
        self, model: FittedModel, kind: str, L: Array | None = None
    ) -> pd.DataFrame:
        """Return tests of the fixed effects, or of L beta, with denominator degrees of freedom."""

    @abstractmethod
    def joint_test(self, model: FittedModel, kind: str, L: Array) -> dict[str, float]:
        """Return the F test of L beta = 0, with denominator degrees of freedom."""
