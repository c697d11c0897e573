"""The ways to a posterior: from the density of the variance parameters to a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ranef.arguments import Sampling, check_counts, check_seed
from ranef.design.design import Design
from ranef.errors import ConvergenceWarning, FitError, suggestion, warn
from ranef.families.family import Family
from ranef.fits.diagnostics import ImportanceDiagnostics, QuadratureDiagnostics
from ranef.fits.engine import Engine
from ranef.fits.posterior import PosteriorFit, QuadratureFit
from ranef.likelihood import predictions
from ranef.likelihood.generalized.glmm import check_n_agq
from ranef.posterior import laplace
from ranef.posterior.draws import DrawnMarginals, tree
from ranef.posterior.generalized_posterior import joint_of
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.marginal_likelihood import MarginalLikelihood
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.moments import Exact, LatticeMarginals
from ranef.posterior.quadrature.whitening import frame
from ranef.posterior.sampling import nuts, pymc_hierarchical, pymc_marginal
from ranef.posterior.sampling.pymc_hierarchical import PyMCModel, choose
from ranef.priors import propriety
from ranef.priors.assignment import Priors

if TYPE_CHECKING:
    import xarray as xr

FORMS = ("marginal", "hierarchical")


@dataclass(frozen=True, eq=False)
class Posterior:
    """A model whose posterior is proper.

    Attributes
    ----------
    design : Design
    family : Family
    priors : Priors
    target : LinearPosterior
        The density of the variance parameters.
    engine : Engine, optional
        For the fits.
    """

    design: Design
    family: Family
    priors: Priors
    target: LinearPosterior
    engine: Engine | None = None

    def laplace(self, *, draws: int = 4000, seed: int | None = None) -> PosteriorFit:
        """Approximate the posterior at its mode, and correct the draws by importance weights."""
        check_counts(draws=draws)
        check_seed(seed)
        rng = np.random.default_rng(seed)
        found = laplace.approximate(self.target, draws=draws, rng=rng)
        effects = self.target.draw(self.target.space.values(found.x)[0], rng)
        return _checked(
            PosteriorFit(
                self.design,
                self.family,
                "laplace",
                DrawnMarginals(
                    self.design,
                    self.family,
                    tree(self.design, effects, chains=1),
                    independent=True,
                ),
                ImportanceDiagnostics(draws, found.khat, found.ess, found.mode.convergence.ok),
                self._evidence(found.log_evidence, found.mcse, "importance sampling"),
                self.engine,
            )
        )

    def quadrature(self, *, draws: int = 4000, seed: int | None = None) -> QuadratureFit:
        """Integrate over the variance parameters; draws are made when they are asked for."""
        check_counts(draws=draws)
        check_seed(seed)
        lattice.check_feasible(self.target)
        mode = laplace.find_mode(self.target)
        own = frame(self.target, mode)
        exact = Exact(self.target, mode, own, lattice.integrate(own))
        return _checked(
            QuadratureFit(
                self.design,
                self.family,
                "quadrature",
                LatticeMarginals(self.design, exact, draws, seed),
                QuadratureDiagnostics(exact.lattice.log_density.size, exact.error),
                self._evidence(exact.log_evidence, exact.error, "quadrature"),
                self.engine,
            )
        )

    def mcmc(
        self,
        *,
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        seed: int | None = None,
        cores: int | None = None,
        progressbar: bool = True,
        target_accept: float = 0.9,
        form: str | None = None,
        centered: bool = False,
        log_likelihood: bool = False,
        pymc_model: PyMCModel | None = None,
    ) -> PosteriorFit:
        """Sample the posterior by NUTS: its marginal form without PyMC, all else with it."""
        settings = Sampling(draws, tune, chains, seed, cores, progressbar, target_accept)
        _check_own(pymc_model, log_likelihood=log_likelihood)
        form = form or ("hierarchical" if centered else "marginal")
        if form not in FORMS:
            raise FitError(f"form={form!r} does not exist. {suggestion(str(form), FORMS)}")
        if pymc_model is None and form == "marginal":
            if centered:
                raise FitError("the marginal form has no random effects that could be centered.")
            found = self._marginal(settings)
            return _checked(_sampled(self, found, self.engine, log_likelihood=log_likelihood))
        engine = self.engine if pymc_model is None else None
        if pymc_model is None:
            pymc_model = pymc_hierarchical.hierarchical(self.design, self.priors, centered=centered)
        found = pymc_hierarchical.sample(pymc_model, **asdict(settings))
        if pymc_marginal.is_marginal(pymc_model):
            found = self._completed(*pymc_marginal.taken_apart(found, self.design), seed=seed)
        return _checked(_sampled(self, found, engine, log_likelihood=log_likelihood))

    def _marginal(self, settings: Sampling) -> xr.DataTree:
        """Sample the variance parameters without PyMC: nothing has to be compiled for a model."""
        if not self.target.space.d:
            raise FitError(
                "every variance parameter is known, so that there is nothing to sample: "
                'method="quadrature" gives the exact posterior.'
            )
        mode = laplace.find_mode(self.target)
        scale = np.linalg.norm(mode.root, axis=1)
        x, stats = nuts.sample(self.target, start=mode.x, scale=scale, **asdict(settings))
        return self._completed(self.target.space.values(x)[0], stats, seed=settings.seed)

    def _completed(
        self,
        values: NDArray[np.float64],
        stats: xr.Dataset,
        extra: xr.Dataset | None = None,
        *,
        seed: int | None,
    ) -> xr.DataTree:
        """Draw beta and b exactly for draws of the variance parameters, (chains, draws, ...)."""
        rng = np.random.default_rng(None if seed is None else [seed, 1])
        effects = self.target.draw(values.reshape(-1, values.shape[-1]), rng)
        return tree(self.design, effects, len(values), stats, extra)

    def _evidence(self, value: float, mcse: float, method: str) -> MarginalLikelihood | None:
        """Return log p(y), which improper priors leave undefined."""
        proper = propriety.is_proper_prior(self.priors)
        return MarginalLikelihood(value, mcse, method) if proper else None


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """A generalised model whose posterior is proper.

    Attributes
    ----------
    design : Design
    family : Family
    priors : Priors
    engine : Engine, optional
        For the fits.
    """

    design: Design
    family: Family
    priors: Priors
    engine: Engine | None = None

    def laplace(
        self, *, draws: int = 1000, seed: int | None = None, n_agq: int = 1
    ) -> PosteriorFit:
        """Approximate the posterior of all but the random effects, and draw these given them."""
        check_counts(draws=draws)
        check_seed(seed)
        points = check_n_agq(self.design, n_agq, least=1)
        rng = np.random.default_rng(seed)
        joint = joint_of(self.design, self.family, self.priors, points)
        found = laplace.approximate(joint, draws=draws, rng=rng)
        drawn = joint.draw(joint.space.values(found.x)[0], rng)
        proper = propriety.is_proper_prior(self.priors)
        how = f"importance sampling, random effects by {joint.approximation}"
        evidence = MarginalLikelihood(found.log_evidence, found.mcse, how)
        return _checked(
            PosteriorFit(
                self.design,
                self.family,
                "laplace",
                DrawnMarginals(
                    self.design,
                    self.family,
                    tree(self.design, drawn, chains=1, family=self.family),
                    independent=True,
                ),
                ImportanceDiagnostics(
                    draws, found.khat, found.ess, found.mode.convergence.ok, linear=False
                ),
                evidence if proper else None,
                self.engine,
            )
        )

    def mcmc(
        self,
        *,
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        seed: int | None = None,
        cores: int | None = None,
        progressbar: bool = True,
        target_accept: float = 0.9,
        centered: bool | Mapping[str, bool] | None = None,
        log_likelihood: bool = False,
        pymc_model: PyMCModel | None = None,
    ) -> PosteriorFit:
        """Sample the hierarchical PyMC model by NUTS, each term centred or not as suits it."""
        settings = Sampling(draws, tune, chains, seed, cores, progressbar, target_accept)
        _check_own(pymc_model, log_likelihood=log_likelihood)
        engine = self.engine if pymc_model is None else None
        if pymc_model is None:
            if centered is None:
                centered = {c.label: c.centered for c in choose(self.design, self.family)}
            pymc_model = pymc_hierarchical.hierarchical(
                self.design, self.priors, self.family, centered=centered
            )
        found = pymc_hierarchical.sample(pymc_model, **asdict(settings))
        groups = {"observed_data": predictions.observed(self.design)}
        found = _with_groups(found, groups)
        return _checked(_sampled(self, found, engine, log_likelihood=log_likelihood))


def _check_own(pymc_model: object, *, log_likelihood: bool) -> None:
    """Refuse what is no model of the user's, or has a likelihood that is not known here."""
    if pymc_model is None:
        return
    if not hasattr(pymc_model, "named_vars"):
        raise FitError(f"`pymc_model` must be a model from to_pymc(), got {pymc_model!r}.")
    if log_likelihood:
        raise FitError(
            "log_likelihood=True is for the model as it is; for a PyMC model of your own use "
            "pymc.compute_log_likelihood."
        )


def _sampled(
    model: Posterior | JointPosterior,
    found: xr.DataTree,
    engine: Engine | None,
    *,
    log_likelihood: bool,
) -> PosteriorFit:
    """Return the fit of a sampled posterior, with the log-likelihood of every row if wanted.

    A PyMC model that the user has changed has no engine: what it is a model of is not known.
    """
    if log_likelihood:
        rows = found["posterior"].to_dataset()
        rows = predictions.log_likelihood(model.design, model.family, rows)
        found = _with_groups(found, {"log_likelihood": rows})
    marginals = DrawnMarginals(model.design, model.family, found)
    return PosteriorFit(model.design, model.family, "mcmc", marginals, engine=engine)


def _with_groups(found: xr.DataTree, groups: Mapping[str, xr.Dataset]) -> xr.DataTree:
    """Return a tree with some groups added, or in place of others of these names."""
    import xarray as xr

    kept = {name: child.to_dataset() for name, child in found.children.items()}
    return xr.DataTree.from_dict(kept | dict(groups))


def _checked[F: PosteriorFit](fit: F) -> F:
    """Warn if a posterior is not to be relied on."""
    if not fit.converged:
        warn(" ".join(fit.diagnostics.messages()), ConvergenceWarning)
    return fit
