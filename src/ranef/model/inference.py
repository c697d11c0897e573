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
from ranef.fits.quadraturefit import QuadratureFit
from ranef.fits.scored import Scored
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
from ranef.posterior.generalized_posterior import GeneralizedPosterior, joint_of
from ranef.posterior.linear_posterior import LinearPosterior, target_of
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.marginal_likelihood import MarginalLikelihood, log_evidence
from ranef.posterior.prior_sensitivity import Sensitivity, from_draws, from_lattice
from ranef.posterior.quadrature.lattice import is_feasible
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

    @staticmethod
    def _chains(fit: Scored) -> int | None:
        """Return the number of chains of draws that are autocorrelated."""
        return int(fit.posterior["posterior"].sizes["chain"]) if fit.method == "mcmc" else None

    def _values(self, fit: Scored) -> Array:
        """Return the draws of a fit as values of the posterior density."""
        return self.target.values_of(fit.draws_at())

    def evidence(
        self, fit: Scored, rng: np.random.Generator, *, relative: bool = False
    ) -> MarginalLikelihood:
        if not relative:
            self._check_proper()
        if isinstance(fit, QuadratureFit) and fit.exact is not None:
            return MarginalLikelihood(fit.exact.log_evidence, fit.exact.error, "quadrature")
        if fit.method == "laplace" and fit.evidence is not None and not is_feasible(self.target):
            return fit.evidence  # of weighted proposals, which its draws are resampled from
        return log_evidence(self.sampled(fit), draws=self._points(fit), rng=rng)

    def sampled(self, fit: Scored) -> LogPosterior:  # noqa: ARG002
        """Return the density that the draws of a fit are from."""
        return self.target

    def _points(self, fit: Scored) -> Array | None:
        """Return the independent or Markov chain draws of a fit, shape (chains, draws, d)."""
        if fit.method == "laplace" or is_feasible(self.target):
            return None
        return self.target.space.point(self._by_chain(fit), edge=0.0)

    def _by_chain(self, fit: Scored) -> Array:
        """Return the values of all draws, shape (chains, draws, n_values)."""
        values = self._values(fit)
        chains = fit.posterior["posterior"].sizes["chain"]
        return values.reshape(chains, -1, values.shape[-1])

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

    def scores(self, fit: Scored, units: Units, rng: np.random.Generator) -> Scores:
        if isinstance(fit, QuadratureFit) and fit.exact is not None:
            return exact_scores(fit.exact, self.data.design, units, priors=self.priors)
        return linear_scores(
            self.target,
            self.data.design,
            units,
            values=self._values(fit),
            priors=self.priors,
            rng=rng,
            chains=self._chains(fit),
        )

    def sensitivity(self, fit: Scored, scales: Array) -> Sensitivity:
        if isinstance(fit, QuadratureFit) and fit.exact is not None:
            return from_lattice(fit.exact, scales)
        return from_draws(self.target, self._by_chain(fit), scales)

    def savage_dickey(self, fit: Scored, name: str) -> DensityRatio:
        found = fit if isinstance(fit, QuadratureFit) else self.refit("quadrature")
        assert isinstance(found, QuadratureFit)
        assert found.exact is not None
        return savage_dickey(found.exact, name, self.priors)

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

    def sampled(self, fit: Scored) -> GeneralizedPosterior:
        """Return the density that draws are from: by MCMC without Laplace's approximation."""
        nodes = nodes_of(self.data.design) if fit.method == "mcmc" else None
        return self.target if nodes is None else self._joint(nodes)

    def scores(self, fit: Scored, units: Units, rng: np.random.Generator) -> Scores:
        return joint_scores(
            self.target,
            self.data.design,
            units,
            values=self._values(fit),
            family=self.data.family,
            priors=self.priors,
            rng=rng,
            chains=self._chains(fit),
        )

    def sensitivity(self, fit: Scored, scales: Array) -> Sensitivity:
        return from_draws(self.target, self._by_chain(fit), scales)

    def savage_dickey(self, fit: Scored, name: str) -> DensityRatio:  # noqa: ARG002
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
