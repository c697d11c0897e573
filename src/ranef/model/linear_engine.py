"""The engine of linear models, whose random effects integrate out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Dataset, DataTree, Executor
from ranef.arguments import Sampling, check_choice, check_counts, check_positive
from ranef.covariances.covariance import factors
from ranef.design import identifiability
from ranef.design.design import Design
from ranef.errors import FitError
from ranef.fits import diagnostics
from ranef.fits import posterior as posterior_fits
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.leave_one_out import elpd, gaussian_loo
from ranef.likelihood import mixed_model_equations
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.linear import blocked_cholesky, reml
from ranef.likelihood.linear.crossproducts import CrossProducts, spanned_terms
from ranef.likelihood.linear.degrees_of_freedom import contrast, table
from ranef.likelihood.profile import constrained, search
from ranef.model.shared_engine import Data, SharedEngine, checked
from ranef.posterior import (
    laplace,
    linear_posterior,
    marginal_likelihood,
    mode,
    prior_sensitivity,
    savage_dickey,
)
from ranef.posterior.draws import Marginals, check_room, enough, tree
from ranef.posterior.quadrature import lattice, moments
from ranef.posterior.sampling import nuts, pymc_hierarchical, pymc_marginal
from ranef.priors import propriety
from ranef.priors.assignment import Priors, resolve
from ranef.progress import reporting

FORMS = ("marginal", "hierarchical")
MAX_ERROR_OF_SCALE = 1e-4  # of log p(y) under priors of another scale


@dataclass(frozen=True, eq=False, repr=False)
class LinearEngine(SharedEngine):
    """The ways to fit a linear mixed model, and the answers to what its fits ask."""

    @property
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        return {
            "reml": self.reml,
            "ml": self.ml,
            "map": self.map,
            "laplace": self.laplace,
            "quadrature": self.quadrature,
            "mcmc": self.mcmc,
        }

    @property
    def posterior_method(self) -> str:
        return "quadrature" if lattice.is_feasible(self.density) else "laplace"

    @cached_property
    def density(self) -> linear_posterior.LinearPosterior:
        kept = [self.design.fixed.index(name) for name in self.data.estimable.fixed]
        return linear_posterior.target_of(self.design, self.data.cross, kept, self.priors)

    def density_under(self, priors: Priors) -> linear_posterior.LinearPosterior:
        """Return the posterior density under other priors."""
        return replace(self, priors=priors).density

    def surface(self, model: FittedModel) -> constrained.Surface:
        return search.linear_surface(model, self.data.cross, self.priors.known_sigma)

    @cached_property
    def identified(self) -> CrossProducts:
        """The cross-products, after the data have been found to carry estimates."""
        identifiability.check_identified(self.data.estimable, sigma=self.priors.known_sigma)
        return self.data.cross

    # --------------------------------------------------------------------------- point estimates

    def reml(self, *, verbose: bool = False) -> PointFit:
        """Fit by restricted maximum likelihood."""
        design = self.data.estimable
        identifiability.warn_dropped(design)
        cross = self.identified
        identifiability.check_not_spanned(design, spanned_terms(cross))
        return self._likeliest("reml", verbose=verbose)

    def ml(self, *, verbose: bool = False) -> PointFit:
        """Fit by maximum likelihood."""
        identifiability.warn_dropped(self.data.estimable)
        return self._likeliest("ml", verbose=verbose)

    def _likeliest(self, method: str, *, verbose: bool) -> PointFit:
        """Fit by one of the two likelihoods."""
        design, cross, is_reml = self.data.estimable, self.identified, method == "reml"
        sigma = self.priors.known_sigma
        if sigma is None:
            self.data.check_residual_variation(reml=is_reml)
        self.check_told_apart(method)
        report, products = reporting(verbose=verbose), self.data.inner_products
        found = reml.estimate(cross, reml=is_reml, sigma=sigma, products=products, report=report)
        return self.point_fit(design, method, found)

    def map(self, *, verbose: bool = False) -> PointFit:
        """Find the mode of the posterior of the variance parameters."""
        self._check_varies()
        self.check_told_apart("map")
        if all(prior.proper for prior in self.priors.beta):
            return self._mode(self.density, self.design, self.priors, verbose=verbose)
        design = self.data.estimable
        identifiability.warn_dropped(design)
        identifiability.check_identified(design, sigma=self.priors.known_sigma)
        priors = resolve(design, self.setting)
        reduced = replace(self, data=Data(design, self.family), priors=priors)
        return self._mode(reduced.density, design, priors, verbose=verbose)

    def _mode(
        self,
        density: linear_posterior.LinearPosterior,
        design: Design,
        priors: Priors,
        *,
        verbose: bool,
    ) -> PointFit:
        found = mode.posterior_mode(density, reporting(verbose=verbose))
        estimate = replace(found, n_known=priors.n_known)
        return self.point_fit(design, "map", estimate)

    # -------------------------------------------------------------------------------- posteriors

    def laplace(self, *, draws: int = 4000, seed: int | None = None) -> posterior_fits.PosteriorFit:
        """Approximate the posterior at its mode, and correct the draws by importance weights."""
        self._check_posterior()
        return self.weighted_fit(self.density, draws, seed, linear=True)

    def quadrature(
        self, *, draws: int = 4000, seed: int | None = None
    ) -> posterior_fits.QuadratureFit:
        """Integrate over the variance parameters; draws are made when they are asked for."""
        self._check_posterior()
        check_counts(draws=draws)
        lattice.check_feasible(self.density)
        exact = moments.Exact.of(self.density)
        if seed is None:  # draws that are made later, or from a file, are the same
            seed = int(np.random.default_rng().integers(2**63))
        return checked(
            posterior_fits.QuadratureFit(
                self.design,
                self.family,
                "quadrature",
                moments.LatticeMarginals(self.design, self.priors, exact, draws, seed),
                diagnostics.QuadratureDiagnostics(exact.lattice.log_density.size, exact.error),
                self.evidence_of(exact.log_evidence, exact.error, "quadrature"),
                self,
                seed,
            )
        )

    def mcmc(
        self,
        *,
        form: str | None = None,
        centered: bool = False,
        log_likelihood: bool = False,
        pymc_model: pymc_hierarchical.PyMCModel | None = None,
        **sampling: Any,
    ) -> posterior_fits.PosteriorFit:
        """Sample the posterior by NUTS: its marginal form without PyMC, all else with it."""
        self._check_posterior()
        settings = Sampling(**sampling)
        check_room(self.design, settings.draws * settings.chains)
        pymc_hierarchical.check_users_model(pymc_model, log_likelihood=log_likelihood)
        if not isinstance(centered, bool):
            raise FitError(f"`centered` of a linear model is True or False, got {centered!r}.")
        if form is None:
            form = "hierarchical" if centered else "marginal"
        check_choice("form", form, FORMS)
        is_own = pymc_model is None
        if is_own and form == "marginal":
            if centered:
                raise FitError("the marginal form has no random effects that could be centered.")
            draws = self._sample(settings)
        else:
            if pymc_model is None:
                made = pymc_hierarchical.hierarchical(self.design, self.priors, centered=centered)
                pymc_model = made
            draws = pymc_hierarchical.sample_pymc(pymc_model, settings, self.starts(settings.seed))
            if pymc_marginal.is_marginal(pymc_model):
                apart = pymc_marginal.taken_apart(draws, self.design)
                draws = self._completed(*apart, seed=settings.seed)
        return self.sampled_fit(
            draws, is_own=is_own, log_likelihood=log_likelihood, seed=settings.seed
        )

    def _sample(self, settings: Sampling) -> DataTree:
        """Sample the variance parameters without PyMC: nothing has to be compiled for a model."""
        if not self.density.space.d:
            raise FitError(
                "every variance parameter is known, so that there is nothing to sample: "
                'method="quadrature" gives the exact posterior.'
            )
        mode = laplace.find_mode(self.density)
        scale = np.linalg.norm(mode.root, axis=1)
        x, stats = nuts.sample(self.density, settings, start=mode.x, scale=scale)
        return self._completed(self.density.space.values(x)[0], stats, seed=settings.seed)

    def _completed(
        self, values: Array, stats: Dataset, extra: Dataset | None = None, *, seed: int | None
    ) -> DataTree:
        """Draw beta and b exactly for draws of the variance parameters, (chains, draws, ...)."""
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        effects = self.density.draw(values.reshape(-1, values.shape[-1]), rng)
        return tree(self.design, effects, len(values), stats, extra, priors=self.priors)

    def _check_posterior(self) -> None:
        """Refuse data and priors that have no posterior, and warn where it says little."""
        self._check_varies()
        propriety.check_proper(self.design, self.priors)
        identifiability.warn_posterior(self.design)
        self.check_told_apart("posterior")

    def _check_varies(self) -> None:
        """Refuse data that say nothing of an sd, or that let sigma go to zero if its prior does."""
        identifiability.check_varies(self.data.estimable)
        if not propriety.keeps_from_zero(self.priors.sigma):
            self.data.check_residual_variation(reml=True)

    # ----------------------------------------------------------------------------------- answers

    def scores(
        self,
        posterior: Marginals,
        units: elpd.Units,
        rng: np.random.Generator,
        executor: Executor | None,
    ) -> elpd.Scores:
        if isinstance(posterior, moments.LatticeMarginals):
            exact, priors = posterior.exact, self.priors
            return gaussian_loo.exact_scores(
                exact, self.design, units, priors=priors, executor=executor
            )
        return gaussian_loo.linear_scores(
            self.density,
            self.design,
            units,
            values=self.density.values_of(enough(posterior).draws_at()),
            priors=self.priors,
            rng=rng,
            chains=posterior.chains,
            executor=executor,
        )

    def evidence(
        self,
        posterior: Marginals,
        rng: np.random.Generator,
        known: marginal_likelihood.MarginalLikelihood | None,
    ) -> marginal_likelihood.MarginalLikelihood:
        if not isinstance(posterior, moments.LatticeMarginals):
            return super().evidence(posterior, rng, known)
        exact = posterior.exact
        return marginal_likelihood.MarginalLikelihood(exact.log_evidence, exact.error, "quadrature")

    def sensitivity(
        self, posterior: Marginals, scales: Array, effects: Collection[str] = ()
    ) -> prior_sensitivity.Sensitivity:
        if not isinstance(posterior, moments.LatticeMarginals):
            return super().sensitivity(posterior, scales, effects)
        exact = posterior.exact
        if not effects:
            return prior_sensitivity.from_lattice(exact, scales)
        others = [
            prior_sensitivity.with_scaled_effects(self.priors, effects, float(s)) for s in scales
        ]
        found = [
            exact
            if s == 1
            else moments.Exact.of(self.density_under(priors), max_error=MAX_ERROR_OF_SCALE)
            for s, priors in zip(scales, others, strict=True)
        ]
        log_ratio = np.array([one.log_evidence - exact.log_evidence for one in found])
        return prior_sensitivity.Sensitivity(
            scales, log_ratio, np.array([one.error + exact.error for one in found])
        )

    def savage_dickey(self, posterior: Marginals, name: str) -> savage_dickey.DensityRatio:
        if not isinstance(posterior, moments.LatticeMarginals):
            posterior = self.quadrature().marginals
        return savage_dickey.savage_dickey(posterior.exact, name, self.priors, self.density_under)

    def equations(self, model: FittedModel) -> mixed_model_equations.MixedModelEquations:
        bases, design = self.data.cross.bases, self.design_of(model)
        Lambdas = [T @ f for T, f in zip(bases, model.estimate.Lambdas, strict=True)]
        factorized = blocked_cholesky.factorize(self.data.cross, Lambdas)
        sigma, weights = model.estimate.sigma, design.sufficient.weights
        return mixed_model_equations.MixedModelEquations(design, factorized, bases, sigma, weights)

    def effects_of(self, model: FittedModel, Y: Array) -> Iterator[tuple[Array, list[Array]]]:
        equations = self.equations(model)
        return map(equations.effects_of, Y.T)

    def effects_at(
        self, beta: Array, psi: Array, roots: Sequence[Array]
    ) -> tuple[list[Array], list[Array]]:
        cross, (sigma,) = self.data.cross, psi
        Lambdas = [T @ root / sigma for T, root in zip(cross.bases, roots, strict=True)]
        factorized = blocked_cholesky.factorize(cross, Lambdas)
        modes = blocked_cholesky.modes(factorized, cross.R @ (beta - cross.beta_ols))
        covariances = blocked_cholesky.conditional_covariances(factorized)
        backs = [np.linalg.inv(T) for T in cross.bases]
        return (
            [b @ T.T for b, T in zip(modes, backs, strict=True)],
            [sigma**2 * (T @ c @ T.T) for c, T in zip(covariances, backs, strict=True)],
        )

    def degrees_of_freedom(
        self, model: FittedModel, kind: str, L: Array | None = None
    ) -> pd.DataFrame:
        is_reml = self._is_reml(model, kind)
        return table(self.data.cross, model.estimate, model.design.fixed, kind, L, reml=is_reml)

    def joint_test(self, model: FittedModel, kind: str, L: Array) -> dict[str, float]:
        test = contrast(self.data.cross, model.estimate, L, kind, reml=self._is_reml(model, kind))
        return {"F": test.f, "df_num": test.df_num, "df_den": test.df_den, "p_value": test.p_value}

    def _is_reml(self, model: FittedModel, kind: str) -> bool:
        """Return whether a fit is by REML, and refuse one that has no degrees of freedom."""
        self.priors.check_free_sigma(f"df={kind!r}", "the z values, or fit.profile()")
        if model.method not in ("reml", "ml"):
            raise FitError(
                f"degrees of freedom are those of a REML or ML fit, not of a {model.method} fit."
            )
        return model.method == "reml"

    def marginal(self, theta: ArrayLike, sigma: float) -> linear_posterior.Derived:
        """Return log p(y | theta, sigma) with its derivatives; see `Model.log_marginal`."""
        density = self.density
        if density.space.n_given:
            name = density.space.names[0]
            message = f"the prior of `{name}` is not normal, so that it is not integrated out; "
            raise FitError(f"{message}log_marginal needs normal or flat priors of fixed effects.")
        check_positive(sigma=sigma)
        users = factors(self.checked_theta(theta), density.cross.covariances)
        Lambdas = [T @ f for T, f in zip(density.cross.bases, users, strict=True)]
        return linear_posterior.log_marginal(
            density.cross, density.fixed, Lambdas, float(sigma), np.empty(0)
        )
