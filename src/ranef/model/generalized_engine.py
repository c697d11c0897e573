"""The engine of generalised models, whose random effects are integrated out numerically."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from ranef._typing import Array, Executor
from ranef.arguments import Sampling
from ranef.design import identifiability
from ranef.design.labels import observed
from ranef.errors import FitError
from ranef.fits.diagnostics import nodes_of
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.fits.posterior import PosteriorFit
from ranef.leave_one_out.elpd import Scores, Units
from ranef.leave_one_out.glmm_loo import joint_scores
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.cells import cells_of
from ranef.likelihood.generalized.glmm import check_n_agq
from ranef.likelihood.generalized.pirls import NoModesError, Setting, find_modes
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.mixed_model_equations import MixedModelEquations
from ranef.likelihood.profile import search
from ranef.likelihood.profile.constrained import Surface
from ranef.model.shared_engine import SharedEngine
from ranef.posterior import mode
from ranef.posterior.draws import Marginals, check_room, enough
from ranef.posterior.generalized_posterior import GeneralizedPosterior, joint_of
from ranef.posterior.sampling import pymc_hierarchical
from ranef.posterior.sampling.pymc_hierarchical import PyMCModel, choose
from ranef.posterior.savage_dickey import DensityRatio
from ranef.priors import propriety
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant
from ranef.progress import reporting


def explained[**P, F](method: Callable[P, F]) -> Callable[P, F]:
    """Return a method that says what to do where random effects have no conditional modes."""

    @wraps(method)
    def fit(*args: P.args, **options: P.kwargs) -> F:
        try:
            return method(*args, **options)
        except NoModesError as error:
            message = f"the random effects cannot be integrated out, as {error}: the linear "
            message += "predictor or the response is out of reach for this family and link. "
            message += "Rescale the predictors, or use another link or family."
            raise FitError(message) from error

    return fit


@dataclass(frozen=True, eq=False, repr=False)
class GeneralizedEngine(SharedEngine):
    """The ways to fit a generalised linear mixed model, and the answers to what its fits ask."""

    @property
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        return {"ml": self.ml, "map": self.map, "laplace": self.laplace, "mcmc": self.mcmc}

    @property
    def reasons(self) -> Mapping[str, str]:
        name = f"the {self.family}"
        return {
            "reml": f"is for linear models: {name} has no restricted likelihood. Use "
            'method="ml", or method="map" with priors="boundary" against variances of zero.',
            "quadrature": f"is for linear models: with {name} the fixed effects do not integrate "
            'out in closed form. Use method="laplace" or "mcmc"; for a quadrature over the random '
            "effects use n_agq=.",
        }

    @property
    def posterior_method(self) -> str:
        return "laplace"

    @cached_property
    def density(self) -> GeneralizedPosterior:
        return self._density(1)

    def _density(self, n_agq: int) -> GeneralizedPosterior:
        return joint_of(self.design, self.family, self.priors, n_agq)

    def sampled_density(self, posterior: Marginals) -> GeneralizedPosterior:
        """Return the density that draws are from: by MCMC without Laplace's approximation."""
        nodes = None if posterior.chains is None else nodes_of(self.design)
        return self.density if nodes is None else self._density(nodes)

    def surface(self, model: FittedModel) -> Surface:
        return search.generalized_surface(model, self.data.generalized)

    @property
    def residual_scale(self) -> float | None:
        psi = self.data.generalized.psi.tolist()
        return dict(zip(self.family.parameters, psi, strict=True)).get("sigma")

    # ----------------------------------------------------------------------------------- methods

    @explained
    def ml(self, *, n_agq: int = 1, verbose: bool = False) -> PointFit:
        """Fit by maximum likelihood."""
        points = check_n_agq(self.design, n_agq)
        self._check_estimable()
        identifiability.check_scale(self.data.estimable, self.family)
        identifiability.warn_pure(self.data.estimable, self.family)
        self.check_told_apart("ml")
        estimate = maximum.maximum_likelihood(
            self.data.generalized, n_agq=points, report=reporting(verbose=verbose)
        )
        return self.point_fit(self.data.estimable, "ml", estimate)

    @explained
    def map(self, *, n_agq: int = 1, verbose: bool = False) -> PointFit:
        """Find the mode of the posterior of all parameters but the random effects."""
        points = check_n_agq(self.design, n_agq, least=1)
        self._check_varies()
        identifiability.warn_posterior(self.design, self.family)
        self.check_told_apart("map")
        design, priors = self.design, self.priors
        if not all(prior.proper for prior in priors.beta):
            self._check_estimable()
            design = self.data.estimable
            priors = resolve(design, self.setting, self.family)
        joint = joint_of(design, self.family, priors, points)
        estimate = mode.estimate_jointly(joint, reporting(verbose=verbose))
        estimate = replace(estimate, n_known=priors.n_known)
        return self.point_fit(design, "map", estimate)

    @explained
    def laplace(
        self, *, draws: int = 1000, seed: int | None = None, n_agq: int = 1
    ) -> PosteriorFit:
        """Approximate the posterior of all but the random effects, and draw these given them."""
        self._check_posterior()
        density = self._density(check_n_agq(self.design, n_agq, least=1))
        return self.weighted_fit(density, draws, seed, linear=False)

    @explained
    def mcmc(
        self,
        *,
        centered: bool | Mapping[str, bool] | None = None,
        log_likelihood: bool = False,
        pymc_model: PyMCModel | None = None,
        **sampling: Any,
    ) -> PosteriorFit:
        """Sample the hierarchical PyMC model by NUTS, each term centred or not as suits it."""
        import xarray as xr

        self._check_posterior()
        settings = Sampling(**sampling)
        check_room(self.design, settings.draws * settings.chains)
        pymc_hierarchical.check_users_model(pymc_model, log_likelihood=log_likelihood)
        is_own = pymc_model is None
        if pymc_model is None:
            if centered is None:
                centered = {c.label: c.centered for c in choose(self.design, self.family)}
            pymc_model = pymc_hierarchical.hierarchical(
                self.design,
                self.priors,
                self.family,
                centered=centered,
                rows=cells_of(self.design.distinct, self.family).rows,
            )
        draws = pymc_hierarchical.sample_pymc(pymc_model, settings, self.starts(settings.seed))
        if self.design.has_rows:
            draws["observed_data"] = xr.DataTree(observed(self.design.rows))
        return self.sampled_fit(
            draws, is_own=is_own, log_likelihood=log_likelihood, seed=settings.seed
        )

    def _check_estimable(self) -> None:
        """Refuse data that leave a parameter without a maximum likelihood estimate."""
        identifiability.warn_dropped(self.data.estimable)
        identifiability.check_identified(self.data.estimable, self.family)
        identifiability.check_separation(self.data.estimable, self.family)

    def _check_posterior(self) -> None:
        """Refuse data and priors that have no posterior, and warn where it says little."""
        self._check_varies()
        propriety.check_proper(self.design, self.priors, self.family)
        identifiability.warn_posterior(self.design, self.family)
        self.check_told_apart("posterior")

    def _check_varies(self) -> None:
        """Refuse data that say nothing of an sd, or of a scale that is not known from its prior."""
        identifiability.check_varies(self.data.estimable)
        own = {"sigma": self.priors.sigma, **dict(self.priors.parameters)}
        scales = [own[name] for name in self.family.parameters[:1]]
        is_kept = self.family.has_sigma and propriety.keeps_from_zero(self.priors.sigma)
        if not is_kept and not any(isinstance(scale, Constant) for scale in scales):
            identifiability.check_scale(self.data.estimable, self.family)

    # ----------------------------------------------------------------------------------- answers

    def scores(
        self,
        posterior: Marginals,
        units: Units,
        rng: np.random.Generator,
        executor: Executor | None,
    ) -> Scores:
        density = self.density
        if not density.model.cells.are_within(units.codes):
            density = joint_of(self.design, self.family, self.priors, together=False)
        return joint_scores(
            density,
            self.design,
            units,
            values=density.values_of(enough(posterior).draws_at()),
            family=self.family,
            priors=self.priors,
            rng=rng,
            chains=posterior.chains,
            executor=executor,
        )

    def savage_dickey(self, posterior: Marginals, name: str) -> DensityRatio:  # noqa: ARG002
        raise FitError(
            "savage_dickey is for linear models with up to four variance parameters; compare the "
            "marginal likelihoods of both models: rf.compare."
        )

    def equations(self, model: FittedModel) -> MixedModelEquations:
        found, weights = model.estimate, model.estimate.working_weights
        assert weights is not None
        psi = np.array([*model.parameters.values()])
        of_cells = self.data.generalized.cells.summed(weights)
        factorized = self._setting(np.zeros(0), psi, found.roots).factorized(of_cells)
        design, bases = self.design_of(model), self.data.generalized.bases
        return MixedModelEquations(design, factorized, bases, 1.0, weights)

    def effects_of(self, model: FittedModel, Y: Array) -> Iterator[tuple[Array, list[Array]]]:
        prepared, found = self.data.generalized, model.estimate
        psi = np.array([*model.parameters.values()])
        Lambdas = [T @ root for T, root in zip(prepared.bases, found.roots, strict=True)]
        gamma = np.linalg.solve(prepared.to_users, found.beta)
        setting = prepared.profile(Lambdas, psi)
        for response in Y.T:
            y, of_responses = prepared.cells.responses(response)
            problem = replace(setting.problem, y=y, of_responses=of_responses)
            modes = find_modes(replace(setting, problem=problem), prepared.zeros(), gamma)
            beta = prepared.to_users @ modes.gamma
            yield beta, [u @ root.T for u, root in zip(modes.u, found.roots, strict=True)]

    def effects_at(
        self, beta: Array, psi: Array, roots: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        model = self.data.generalized
        modes = find_modes(self._setting(beta, psi, roots), model.zeros(), np.empty(0))
        covariances = blocked_cholesky.conditional_covariances(modes.factorized)
        backs = [np.linalg.inv(T) for T in model.bases]
        return (
            [u @ root.T for u, root in zip(modes.u, roots, strict=True)],
            [T @ c @ T.T for c, T in zip(covariances, backs, strict=True)],
        )

    def _setting(self, beta: Array, psi: Array, roots: Sequence[Array]) -> Setting:
        """Return the setting of the likelihood at parameters; without beta for its system only."""
        model = self.data.generalized
        gamma = np.linalg.solve(model.to_users, beta) if len(beta) else np.zeros(model.X.shape[1])
        Lambdas = [T @ root for T, root in zip(model.bases, roots, strict=True)]
        return model.at(gamma, Lambdas, psi)

    def degrees_of_freedom(
        self,
        model: FittedModel,  # noqa: ARG002
        kind: str,
        L: Array | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        raise self._without_df(kind)

    def joint_test(self, model: FittedModel, kind: str, L: Array) -> NoReturn:  # noqa: ARG002
        raise self._without_df(kind)

    def _without_df(self, kind: str) -> FitError:
        return FitError(
            f"df={kind!r} is for linear models: with the {self.family.name} family a test of a "
            "coefficient has no residual variance to be estimated. The z values hold for large "
            'samples; fit.confint("profile") and fit.bootstrap() hold for smaller ones.'
        )
