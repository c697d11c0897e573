"""What the engines of linear and of generalised models share: checks, fits, answers to fits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial

import numpy as np
from numpy.typing import ArrayLike

from ranef._typing import Array, Dataset, DataTree, Executor, FilePath, Flags
from ranef.arguments import by_name, check_choice, check_counts, check_numbers
from ranef.covariances.covariance import n_theta
from ranef.design import identifiability
from ranef.design.design import Design, full_rank
from ranef.design.labels import parameter_names
from ranef.errors import ConvergenceWarning, DataWarning, FitError, listed, warn
from ranef.families.family import Family
from ranef.fits import diagnostics
from ranef.fits import posterior as posterior_fits
from ranef.fits.engine import Engine
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.likelihood.bootstrap import bootstrap
from ranef.likelihood.estimate import Estimate, FittedModel, Replicates
from ranef.likelihood.generalized import glmm
from ranef.likelihood.linear.crossproducts import CrossProducts, cross_products
from ranef.likelihood.linear.exact_fit import check_residual_variation
from ranef.likelihood.linear.expected_information import InnerProducts, inner_products
from ranef.likelihood.linear.flat_directions import FlatDirections, flat_directions
from ranef.likelihood.profile import constrained, likelihood_profile, search
from ranef.model import storage
from ranef.model.ingredients import Ingredients, Updates
from ranef.numerics.memory import WithoutCaches
from ranef.posterior import laplace, log_posterior, marginal_likelihood, prior_sensitivity
from ranef.posterior.draws import DrawnMarginals, Marginals, check_room, enough, tree
from ranef.posterior.quadrature import lattice
from ranef.priors import propriety
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Constant
from ranef.priors.user_priors import PriorSetting

N_STARTS = 40  # for chains to choose from


@dataclass(frozen=True, eq=False)
class Data(WithoutCaches):
    """A design, and what is computed of it once, whatever the priors.

    Attributes
    ----------
    design : Design
    family : Family
    """

    design: Design
    family: Family

    @cached_property
    def estimable(self) -> Design:
        """The design without fixed columns that are combinations of others."""
        return full_rank(self.design)

    @cached_property
    def cross(self) -> CrossProducts:
        """The cross-products of the estimable design."""
        return cross_products(self.estimable)

    @cached_property
    def check_residual_variation(self) -> Callable[..., None]:
        """Refuses a response that leaves nothing to estimate sigma from; looks at it once."""
        return cache(partial(check_residual_variation, self.estimable, self.cross))

    @cached_property
    def inner_products(self) -> InnerProducts:
        """The inner products of the derivatives of the covariance of the response."""
        return inner_products(self.cross)

    @cached_property
    def flat_directions(self) -> Callable[..., Sequence[FlatDirections]]:
        """What the data leave open of the covariance parameters; an answer is computed once."""
        return cache(partial(flat_directions, self.inner_products, self.cross, self.estimable))

    @cached_property
    def generalized(self) -> glmm.Generalized:
        """The estimable design in the basis of a generalised model."""
        return glmm.prepare(self.estimable, self.family)


@dataclass(frozen=True, eq=False, repr=False)
class SharedEngine(WithoutCaches, Updates, Engine[Fit]):
    """The ways to fit one model, and the answers to what its fits ask.

    Attributes
    ----------
    data : Data
    priors : Priors
    setting : str or dict
        What the priors were resolved from.
    ingredients : Ingredients, optional
        What the model was made of.
    """

    data: Data
    priors: Priors
    setting: PriorSetting
    ingredients: Ingredients | None = None

    @property
    def design(self) -> Design:
        """The design."""
        return self.data.design

    @property
    def family(self) -> Family:
        """The family."""
        return self.data.family

    # ------------------------------------------------------------------ what the kinds differ in

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why some methods do not exist here."""
        return {}

    @property
    @abstractmethod
    def density(self) -> log_posterior.LogPosterior:
        """The posterior density."""

    @abstractmethod
    def surface(self, model: FittedModel) -> constrained.Surface:
        """Return the deviance around its maximum."""

    def design_of(self, model: FittedModel) -> Design:
        """Return the design that a fit is of, with its rows."""
        return self.design if model.design.fixed == self.design.fixed else self.data.estimable

    def sampled_density(self, posterior: Marginals) -> log_posterior.LogPosterior:  # noqa: ARG002
        """Return the density that the draws of a posterior are from."""
        return self.density

    @property
    def residual_scale(self) -> float | None:
        """What sigma is without random effects, where that is not the sd of the response."""
        return None

    # ----------------------------------------------------------------------------------- fitting

    def method(self, name: str | None) -> str:
        """Return the name of a method, the default for None.

        Raises
        ------
        FitError
            If it does not exist.
        """
        if name is None:
            return next(iter(self.methods))
        if str(name) in self.reasons:
            raise FitError(f"method={name!r} {self.reasons[name]}")
        return check_choice("method", name, self.methods)

    def save(self, path: FilePath, fit: Mapping[str, object]) -> None:
        storage.save(path, self, fit)

    def point_fit(self, design: Design, method: str, estimate: Estimate) -> PointFit:
        """Return the fit of an estimate, and warn if there is nothing to rely on."""
        if not estimate.convergence.ok:
            if self.family.has_sigma:
                identifiability.check_residual(
                    design, estimate.convergence, estimate.sigma, self.residual_scale
                )
            warn(estimate.convergence.value, ConvergenceWarning)
        return PointFit(design, self.family, method, estimate, self)

    def weighted_fit(
        self, density: log_posterior.LogPosterior, draws: int, seed: int | None, *, linear: bool
    ) -> posterior_fits.PosteriorFit:
        """Approximate a posterior at its mode, and correct the draws by importance weights."""
        check_counts(draws=draws)
        check_room(self.design, draws)
        rng = np.random.default_rng(seed)
        approximation = laplace.approximate(density, draws=draws, rng=rng)
        effects = density.draw(density.space.values(approximation.x)[0], rng)
        table = tree(self.design, effects, chains=1, family=self.family, priors=self.priors)
        converged = approximation.mode.convergence.ok
        evidence = self.evidence_of(
            approximation.log_evidence, approximation.mcse, "importance sampling"
        )
        if evidence is not None:
            evidence = marginal_likelihood.approximated(density, evidence, approximation.x)
        return checked(
            posterior_fits.PosteriorFit(
                self.design,
                self.family,
                "laplace",
                DrawnMarginals(self.design, self.family, table, independent=True),
                diagnostics.ImportanceDiagnostics(
                    draws, approximation.khat, approximation.ess, converged, linear=linear
                ),
                evidence,
                self,
                seed,
            )
        )

    def starts(self, seed: int | None) -> Dataset | None:
        """Return draws near the mode of the posterior, for chains to start at; None without one."""
        rng = np.random.default_rng(None if seed is None else [seed, 2])
        try:
            mode = laplace.find_mode(self.density)
            x = mode.x + rng.standard_normal((N_STARTS, len(mode.x))) @ mode.root.T
            draws = self.density.draw(self.density.space.values(x)[0], rng)
        except (FitError, np.linalg.LinAlgError):
            return None
        made = tree(self.design, draws, chains=1, family=self.family, priors=self.priors)
        return made["posterior"].to_dataset()

    def sampled_fit(
        self, draws: DataTree, *, is_own: bool, log_likelihood: bool, seed: int | None
    ) -> posterior_fits.PosteriorFit:
        """Return the fit of a sampled posterior, with the log-likelihood of every row if wanted.

        A PyMC model that the user has changed has no engine: it is not known of what it is a model.
        """
        marginals = DrawnMarginals(self.design, self.family, draws)
        engine = self if is_own else None
        fit = posterior_fits.PosteriorFit(
            self.design, self.family, "mcmc", marginals, engine=engine, seed=seed
        )
        if log_likelihood:
            fit.add_groups("log_likelihood")
        return checked(fit)

    def evidence_of(
        self, value: float, mcse: float, method: str
    ) -> marginal_likelihood.MarginalLikelihood | None:
        """Return log p(y), which improper priors leave undefined."""
        return (
            marginal_likelihood.MarginalLikelihood(value, mcse, method)
            if propriety.is_proper_prior(self.priors)
            else None
        )

    # --------------------------------------------------------------------------- identification

    def check_told_apart(self, method: str) -> None:
        """Refuse two terms that are one, unless priors decide; warn of what the data leave open."""
        flats, by_priors = self._flat_directions(method), self._priors_decide(method)
        for flat in () if by_priors else flats:
            flat.check()
        for flat in flats:
            warn(flat.said(by_priors=by_priors), DataWarning)

    def undetermined(self, method: str) -> list[str]:
        decide = self._priors_decide(method)
        return [flat.said(by_priors=decide) for flat in self._flat_directions(method)]

    def _priors_decide(self, method: str) -> bool:
        """Whether a fit finds proper priors where the data say nothing, as a posterior does."""
        are_proper = (prior.proper for term in self.priors.terms for prior in term.sd)
        return all(are_proper) if method == "map" else method not in ("reml", "ml")

    def _flat_directions(self, method: str) -> Sequence[FlatDirections]:
        is_linear, by_priors = self.family.is_linear, method not in ("reml", "ml")
        known = frozenset(
            t
            for t, term in enumerate(self.priors.terms)
            if by_priors and all(isinstance(prior, Constant) for prior in term.sd)
        )
        return self.data.flat_directions(
            reml=is_linear and method != "ml" and not self._priors_decide(method),
            has_sigma=self.family.has_sigma and self.priors.known_sigma is None,
            known=known,
        )

    # ------------------------------------------------------------------------------- likelihoods

    def checked_theta(self, theta: ArrayLike) -> Array:
        """Return relative covariance parameters, or refuse what are none of this model."""
        return check_numbers("theta", theta, n_theta([t.covariance for t in self.design.terms]))

    def likelihood(
        self, theta: ArrayLike, beta: ArrayLike, parameters: Mapping[str, float] | None, n_agq: int
    ) -> glmm.UsersLikelihood:
        """Return the likelihood at a user's parameters; see `Model.log_likelihood`."""
        by_parameter: object = {} if parameters is None else parameters
        if not isinstance(by_parameter, Mapping):
            raise FitError(f"`parameters` is a dict from name to number, got {parameters!r}.")
        if set(by_parameter) != set(self.family.parameters):
            wanted = listed(self.family.parameters) or "none"
            message = f"`parameters` are those of the {self.family.name} family: {wanted}; "
            raise FitError(f"{message}got {listed(by_parameter) or 'none'}.")
        for own in self.family.records:
            if not own.takes(by_parameter[own.name]):
                given = by_parameter[own.name]
                raise FitError(f"`{own.name}` must be a {own.kind}, got {given!r}.")
        points = glmm.check_n_agq(self.design, n_agq, least=1)
        names = self.data.estimable.fixed
        return glmm.users_likelihood(
            self.data.generalized,
            self.checked_theta(theta),
            check_numbers("beta", by_name("beta", beta, names), len(names)),
            np.array([float(by_parameter[name]) for name in self.family.parameters]),
            points,
        )

    def profile(
        self,
        model: FittedModel,
        names: Sequence[str] | None,
        *,
        prob: float,
        executor: Executor | None,
    ) -> likelihood_profile.Profile:
        if names is None and self.priors.known_sigma is not None:
            names = [n for n in parameter_names(model.design, model.family) if n != "sigma"]
        surface = self.surface(model)
        return search.profile(model, surface, names, prob=prob, executor=executor)

    def replicate(
        self,
        model: FittedModel,
        n: int,
        statistic: bootstrap.Statistic,
        *,
        all_parameters: bool,
        seed: int | None,
        executor: Executor | None,
    ) -> Replicates:
        self.priors.check_free_sigma("a parametric bootstrap", "fit.profile()")
        return bootstrap.replicate(
            model, n, statistic, all_parameters=all_parameters, seed=seed, executor=executor
        )

    def null_statistics(
        self, null: FittedModel, n: int, *, seed: int | None, first: int, executor: Executor | None
    ) -> tuple[Array, Flags]:
        self.priors.check_free_sigma("a simulated null distribution", 'test="mixture"')
        data = self.data.estimable
        return bootstrap.null_statistics(null, data, n, seed=seed, first=first, executor=executor)

    # -------------------------------------------------------------------------------- posteriors

    def evidence(
        self,
        posterior: Marginals,
        rng: np.random.Generator,
        known: marginal_likelihood.MarginalLikelihood | None,
    ) -> marginal_likelihood.MarginalLikelihood:
        is_exact = lattice.is_feasible(self.density)
        if posterior.chains is None and known is not None and not is_exact:
            return known  # of weighted proposals, which the draws are resampled from
        points = None
        if posterior.chains is not None and not is_exact:
            points = self.density.space.point(self.by_chain(posterior), edge=0.0)
        return marginal_likelihood.log_evidence(
            self.sampled_density(posterior), draws=points, rng=rng
        )

    def sensitivity(
        self, posterior: Marginals, scales: Array, effects: Collection[str] = ()
    ) -> prior_sensitivity.Sensitivity:
        if effects:
            change, beta = self.priors.change, posterior.drawn.beta
            beta = beta if change is None else np.linalg.solve(change, beta.T).T
            by_chain = beta.reshape(posterior.chains or len(beta), -1, beta.shape[-1])
            return self._beyond_draws(
                prior_sensitivity.from_effects(self.priors, effects, by_chain, scales), effects
            )
        return prior_sensitivity.from_draws(self.density, self.by_chain(posterior), scales)

    def _beyond_draws(
        self, found: prior_sensitivity.Sensitivity, effects: Collection[str]
    ) -> prior_sensitivity.Sensitivity:
        """Return a sensitivity with p(y) computed anew where draws do not reach."""
        log_ratio, mcse = found.log_ratio.copy(), found.mcse.copy()
        lost = np.flatnonzero(~np.isfinite(mcse))
        rng = np.random.default_rng(0)
        own = marginal_likelihood.log_evidence(self.density, rng=rng) if lost.size else None
        for i in lost:
            priors = prior_sensitivity.with_scaled_effects(
                self.priors, effects, float(found.scales[i])
            )
            other = marginal_likelihood.log_evidence(replace(self, priors=priors).density, rng=rng)
            assert own is not None
            log_ratio[i] = other.value - own.value
            mcse[i] = np.hypot(other.mcse, own.mcse)
        return prior_sensitivity.Sensitivity(found.scales, log_ratio, mcse)

    def by_chain(self, posterior: Marginals) -> Array:
        """Return the values of all draws, shape (chains, draws, n_values)."""
        values = self.density.values_of(enough(posterior).draws_at())
        return values.reshape(posterior.chains or 1, -1, values.shape[-1])


def checked[F: posterior_fits.PosteriorFit](fit: F) -> F:
    """Warn if a posterior is not to be relied on."""
    if not fit.converged:
        warn(" ".join(fit.diagnostics.messages()), ConvergenceWarning)
    return fit
