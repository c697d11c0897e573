"""How linear and generalised models answer what their fits ask: the engines that fits carry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef._typing import Array, Flags
from ranef.errors import FitError
from ranef.fits.engine import Engine
from ranef.fits.fit import Fit
from ranef.fits.point import nodes_of
from ranef.fits.posterior import QuadratureFit
from ranef.leave_one_out.elpd import Scores, Units
from ranef.leave_one_out.gaussian_loo import exact_scores, linear_scores
from ranef.leave_one_out.glmm_loo import joint_scores
from ranef.likelihood.bootstrap.bootstrap import Statistic, null_statistics, replicate
from ranef.likelihood.estimate import FittedModel, Replicates
from ranef.likelihood.linear.degrees_of_freedom import table
from ranef.likelihood.profile import search
from ranef.likelihood.profile.constrained import Surface
from ranef.likelihood.profile.likelihood_profile import Profile
from ranef.model.shared_engine import Data
from ranef.posterior.draws import Marginals
from ranef.posterior.generalized_posterior import GeneralizedPosterior, joint_of
from ranef.posterior.linear_posterior import LinearPosterior, target_of
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.marginal_likelihood import MarginalLikelihood, log_evidence
from ranef.posterior.prior_sensitivity import Sensitivity, from_draws, from_lattice
from ranef.posterior.quadrature.lattice import is_feasible
from ranef.posterior.quadrature.moments import LatticeMarginals
from ranef.posterior.savage_dickey import DensityRatio, savage_dickey
from ranef.priors.assignment import Priors
from ranef.priors.propriety import is_proper_prior

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import pandas as pd


@dataclass(frozen=True, eq=False)
class Answers(Engine):
    """What both kinds of models answer in the same way.

    Attributes
    ----------
    data : Data
    priors : Priors
    run : callable
        From a method's name to a fit of the same model.
    """

    data: Data
    priors: Priors
    run: Callable[..., Fit]

    @property
    @abstractmethod
    def target(self) -> LogPosterior:
        """The posterior density."""

    def refit(self, method: str, **options: Any) -> Fit:
        return self.run(method, **options)

    def profile(self, model: FittedModel, names: Sequence[str] | None, prob: float) -> Profile:
        return search.profile(model, self._surface(model), names, prob=prob)

    @abstractmethod
    def _surface(self, model: FittedModel) -> Surface:
        """Return the deviance around its maximum."""

    def replicate(
        self,
        model: FittedModel,
        n: int,
        statistic: Statistic,
        *,
        all_parameters: bool,
        seed: int | None,
        executor: Executor | None,
    ) -> Replicates:
        return replicate(
            model, n, statistic, all_parameters=all_parameters, seed=seed, executor=executor
        )

    def null_statistics(
        self, null: FittedModel, n: int, *, seed: int | None, first: int
    ) -> tuple[Array, Flags]:
        return null_statistics(null, self.data.estimable, n, seed=seed, first=first)

    def _values(self, posterior: Marginals) -> Array:
        """Return draws as values of the posterior density."""
        return self.target.values_of(posterior.drawn.draws_at())

    def evidence(
        self,
        posterior: Marginals,
        rng: np.random.Generator,
        *,
        known: MarginalLikelihood | None = None,
        relative: bool = False,
    ) -> MarginalLikelihood:
        if not relative:
            self._check_proper()
        if isinstance(posterior, LatticeMarginals):
            exact = posterior.exact
            return MarginalLikelihood(exact.log_evidence, exact.error, "quadrature")
        if posterior.chains is None and known is not None and not is_feasible(self.target):
            return known  # of weighted proposals, which the draws are resampled from
        return log_evidence(self.sampled(posterior), draws=self._points(posterior), rng=rng)

    def sampled(self, posterior: Marginals) -> LogPosterior:  # noqa: ARG002
        """Return the density that the draws of a fit are from."""
        return self.target

    def _points(self, posterior: Marginals) -> Array | None:
        """Return the coordinates of Markov chains where they are needed, (chains, draws, d)."""
        if posterior.chains is None or is_feasible(self.target):
            return None
        return self.target.space.point(self._by_chain(posterior), edge=0.0)

    def _by_chain(self, posterior: Marginals) -> Array:
        """Return the values of all draws, shape (chains, draws, n_values)."""
        values = self._values(posterior)
        return values.reshape(posterior.chains or 1, -1, values.shape[-1])

    def _check_proper(self) -> None:
        if not is_proper_prior(self.priors):
            raise FitError(
                "the marginal likelihood is not defined under flat priors, as it has their "
                "arbitrary height as a factor: give every parameter a proper prior with priors=, "
                "as the default ones are."
            )


class LinearEngine(Answers):
    """The answers of linear models."""

    @cached_property
    def target(self) -> LinearPosterior:
        kept = [self.data.design.fixed.index(name) for name in self.data.estimable.fixed]
        return target_of(self.data.design, self.data.cross, kept, self.priors)

    def scores(self, posterior: Marginals, units: Units, rng: np.random.Generator) -> Scores:
        if isinstance(posterior, LatticeMarginals):
            return exact_scores(posterior.exact, self.data.design, units, priors=self.priors)
        return linear_scores(
            self.target,
            self.data.design,
            units,
            values=self._values(posterior),
            priors=self.priors,
            rng=rng,
            chains=posterior.chains,
        )

    def sensitivity(self, posterior: Marginals, scales: Array) -> Sensitivity:
        if isinstance(posterior, LatticeMarginals):
            return from_lattice(posterior.exact, scales)
        return from_draws(self.target, self._by_chain(posterior), scales)

    def savage_dickey(self, posterior: Marginals, name: str) -> DensityRatio:
        if not isinstance(posterior, LatticeMarginals):
            fit = self.refit("quadrature")
            assert isinstance(fit, QuadratureFit)
            posterior = fit.marginals
        return savage_dickey(posterior.exact, name, self.priors)

    def _surface(self, model: FittedModel) -> Surface:
        return search.linear_surface(model, self.data.cross)

    def degrees_of_freedom(self, model: FittedModel, kind: str) -> pd.DataFrame:
        if model.method not in ("reml", "ml"):
            raise FitError(
                f"degrees of freedom are those of a REML or ML fit, not of a {model.method} fit."
            )
        is_reml = model.method == "reml"
        return table(self.data.cross, model.estimate, model.design.fixed, kind, reml=is_reml)


class JointEngine(Answers):
    """The answers of generalised models."""

    @cached_property
    def target(self) -> GeneralizedPosterior:
        return self._joint(1)

    def _joint(self, n_agq: int) -> GeneralizedPosterior:
        return joint_of(self.data.design, self.data.family, self.priors, n_agq)

    def sampled(self, posterior: Marginals) -> GeneralizedPosterior:
        """Return the density that draws are from: by MCMC without Laplace's approximation."""
        nodes = None if posterior.chains is None else nodes_of(self.data.design)
        return self.target if nodes is None else self._joint(nodes)

    def scores(self, posterior: Marginals, units: Units, rng: np.random.Generator) -> Scores:
        return joint_scores(
            self.target,
            self.data.design,
            units,
            values=self._values(posterior),
            family=self.data.family,
            priors=self.priors,
            rng=rng,
            chains=posterior.chains,
        )

    def sensitivity(self, posterior: Marginals, scales: Array) -> Sensitivity:
        return from_draws(self.target, self._by_chain(posterior), scales)

    def savage_dickey(self, posterior: Marginals, name: str) -> DensityRatio:  # noqa: ARG002
        raise FitError(
            "savage_dickey is for linear models with up to four variance parameters; compare the "
            "marginal likelihoods of both models: rf.compare."
        )

    def _surface(self, model: FittedModel) -> Surface:
        return search.generalized_surface(model, self.data.generalized)

    def degrees_of_freedom(self, model: FittedModel, kind: str) -> pd.DataFrame:  # noqa: ARG002
        raise FitError(
            f"df={kind!r} is for linear models: with the {self.data.family.name} family a test of "
            "a coefficient has no residual variance to be estimated. The z values hold for large "
            'samples; fit.confint("profile") and fit.bootstrap() hold for smaller ones.'
        )
