"""The ways from a model to its fits: one for linear models, one for all others.

A route knows which methods there are, checks what each needs of the data, and calls its engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, wraps
from typing import Any, Concatenate

import numpy as np
from numpy.typing import ArrayLike

from ranef._typing import Array
from ranef.arguments import by_name, check_numbers, check_positive
from ranef.covariances.covariance import factors, n_theta
from ranef.design import identifiability
from ranef.design.design import Design
from ranef.errors import ConvergenceWarning, FitError, listed, suggestion, warn
from ranef.families.family import Family
from ranef.fits.engine import Engine
from ranef.fits.fit import Fit
from ranef.fits.point import PointFit
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized import maximum
from ranef.likelihood.generalized.glmm import UsersLikelihood, check_n_agq, users_likelihood
from ranef.likelihood.generalized.pirls import NoModesError
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import CrossProducts, spanned_terms
from ranef.model.inference import JointEngine, LinearEngine
from ranef.model.posteriors import JointPosterior, Posterior
from ranef.model.shared_engine import Data
from ranef.posterior import mode
from ranef.posterior.generalized_posterior import joint_of
from ranef.posterior.linear_posterior import Derived, LinearPosterior, log_marginal
from ranef.posterior.quadrature.lattice import is_feasible
from ranef.priors import propriety
from ranef.priors.assignment import Priors, resolve
from ranef.priors.distributions import Constant
from ranef.priors.user_priors import PriorSetting


@dataclass(frozen=True, eq=False)
class Route(ABC):
    """The ways to fit one model.

    Attributes
    ----------
    data : Data
    priors : Priors
    setting : str or dict
        What the priors were resolved from.
    """

    data: Data
    priors: Priors
    setting: PriorSetting

    @property
    def design(self) -> Design:
        """The design."""
        return self.data.design

    @property
    def family(self) -> Family:
        """The family."""
        return self.data.family

    @property
    @abstractmethod
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        """What `Model.fit` can do; the first is the default."""

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why some methods do not exist here."""
        return {}

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
        if str(name) not in self.methods:
            raise FitError(f"method={name!r} does not exist. {suggestion(str(name), self.methods)}")
        return str(name)

    @property
    @abstractmethod
    def engine(self) -> Engine:
        """What the fits of this model ask for whatever needs the data once more."""

    @property
    @abstractmethod
    def posterior_method(self) -> str:
        """The most exact way to the posterior that takes seconds at most."""

    def run(self, name: str, **options: Any) -> Fit:
        """Fit by a method."""
        return self.methods[name](**options)

    def checked_theta(self, theta: ArrayLike) -> Array:
        """Return relative covariance parameters, or refuse what are none of this model."""
        return check_numbers("theta", theta, n_theta([t.covariance for t in self.design.terms]))

    def likelihood(
        self,
        theta: ArrayLike,
        beta: ArrayLike,
        parameters: Mapping[str, float] | None,
        n_agq: int,
    ) -> UsersLikelihood:
        """Return the likelihood at a user's parameters; see `Model.log_likelihood`."""
        own: object = {} if parameters is None else parameters
        if not isinstance(own, Mapping):
            raise FitError(f"`parameters` is a dict from name to number, got {parameters!r}.")
        if set(own) != set(self.family.parameters):
            wanted = listed(self.family.parameters) or "none"
            message = f"`parameters` are those of the {self.family.name} family: {wanted}; "
            raise FitError(f"{message}got {listed(own) or 'none'}.")
        check_positive(**own)
        points = check_n_agq(self.design, n_agq, least=1)
        names = self.data.estimable.fixed
        return users_likelihood(
            self.data.generalized,
            self.checked_theta(theta),
            check_numbers("beta", by_name("beta", beta, names), len(names)),
            np.array([float(own[name]) for name in self.family.parameters]),
            points,
        )

    @property
    def _scale(self) -> float | None:
        """What sigma is without random effects, where that is not the sd of the response."""
        return None

    def _point(self, design: Design, method: str, estimate: Estimate, *, verbose: bool) -> PointFit:
        if verbose:
            for value, theta in estimate.trace:
                words = "  ".join(f"{t:.6f}" for t in theta)
                print(f"{value:14.6f}  {words}")  # noqa: T201 -- verbose=True
        if not estimate.convergence.ok:
            if self.family.has_sigma:
                identifiability.check_residual(design, estimate.sigma, self._scale)
            warn(estimate.convergence.value, ConvergenceWarning)
        return PointFit(design, self.family, method, estimate, self.engine)


class Linear(Route):
    """Linear mixed models, whose random effects integrate out in closed form."""

    @property
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        return {
            "reml": self._reml,
            "ml": self._ml,
            "map": self._map,
            "laplace": _after(self._posterior, Posterior.laplace),
            "quadrature": _after(self._posterior, Posterior.quadrature),
            "mcmc": _after(self._posterior, Posterior.mcmc),
        }

    @cached_property
    def engine(self) -> LinearEngine:
        return LinearEngine(self.data, self.priors, self.run)

    @property
    def posterior_method(self) -> str:
        return "quadrature" if is_feasible(self.target) else "laplace"

    @property
    def cross(self) -> CrossProducts:
        """The cross-products of the estimable design."""
        return self.data.cross

    @cached_property
    def identified(self) -> CrossProducts:
        """The cross-products, after the data have been found to carry estimates."""
        identifiability.check_identified(self.data.estimable)
        return self.cross

    @property
    def target(self) -> LinearPosterior:
        """The posterior density of the variance parameters."""
        return self.engine.target

    def marginal(self, theta: ArrayLike, sigma: float) -> Derived:
        """Return log p(y | theta, sigma) with its derivatives; see `Model.log_marginal`."""
        target = self.target
        if target.space.n_given:
            name = target.space.names[0]
            message = f"the prior of `{name}` is not normal, so that it is not integrated out; "
            raise FitError(f"{message}log_marginal needs normal or flat priors of fixed effects.")
        check_positive(sigma=sigma)
        users = factors(self.checked_theta(theta), target.cross.covariances)
        Lambdas = [T @ f for T, f in zip(target.cross.bases, users, strict=True)]
        return log_marginal(target.cross, target.fixed, Lambdas, float(sigma), np.empty(0))

    @property
    def _knows_sigma(self) -> bool:
        return isinstance(self.priors.sigma, Constant)

    def _reml(self, *, verbose: bool = False) -> PointFit:
        identifiability.warn_dropped(self.data.estimable)
        identifiability.check_identified(self.data.estimable)
        identifiability.check_not_spanned(self.data.estimable, spanned_terms(self.cross))
        estimate = reml.estimate(self.cross, reml=True)
        return self._point(self.data.estimable, "reml", estimate, verbose=verbose)

    def _ml(self, *, verbose: bool = False) -> PointFit:
        identifiability.warn_dropped(self.data.estimable)
        estimate = reml.estimate(self.identified, reml=False)
        return self._point(self.data.estimable, "ml", estimate, verbose=verbose)

    def _map(self, *, verbose: bool = False) -> PointFit:
        identifiability.check_varies(self.data.estimable, knows_sigma=self._knows_sigma)
        if all(prior.proper for prior in self.priors.beta):
            estimate = mode.estimate(self.target)
            return self._point(self.design, "map", estimate, verbose=verbose)
        identifiability.warn_dropped(self.data.estimable)
        identifiability.check_identified(self.data.estimable)
        priors = resolve(self.data.estimable, self.setting)
        reduced = replace(self, data=Data(self.data.estimable, self.family), priors=priors)
        estimate = mode.estimate(reduced.target)
        return self._point(self.data.estimable, "map", estimate, verbose=verbose)

    def _posterior(self) -> Posterior:
        identifiability.check_varies(self.data.estimable, knows_sigma=self._knows_sigma)
        propriety.check_proper(self.design, self.priors)
        identifiability.warn_posterior(self.design, knows_sigma=self._knows_sigma)
        engine = self.engine
        return Posterior(self.design, self.family, self.priors, engine.target, engine)


class Nonlinear(Route):
    """Generalised linear mixed models, whose random effects are integrated out numerically."""

    @property
    def methods(self) -> Mapping[str, Callable[..., Fit]]:
        return {
            "ml": self._ml,
            "map": self._map,
            "laplace": _after(self._posterior, JointPosterior.laplace),
            "mcmc": _after(self._posterior, JointPosterior.mcmc),
        }

    @property
    def reasons(self) -> Mapping[str, str]:
        name = f"the {self.family.name} family with {self.family.link.name} link"
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
    def engine(self) -> JointEngine:
        return JointEngine(self.data, self.priors, self.run)

    @property
    def _scale(self) -> float | None:
        model = self.data.generalized
        own = dict(zip(self.family.parameters, np.exp(model.log_psi).tolist(), strict=True))
        return own.get("sigma")

    def _ml(self, *, n_agq: int = 1, verbose: bool = False) -> PointFit:
        points = check_n_agq(self.design, n_agq)
        identifiability.warn_dropped(self.data.estimable)
        self._check_estimable()
        identifiability.warn_pure(self.data.estimable, self.family)
        with _explained():
            estimate = maximum.estimate(self.data.generalized, n_agq=points)
        return self._point(self.data.estimable, "ml", estimate, verbose=verbose)

    def _map(self, *, n_agq: int = 1, verbose: bool = False) -> PointFit:
        points = check_n_agq(self.design, n_agq, least=1)
        identifiability.check_varies(self.data.estimable, self.family)
        identifiability.warn_posterior(self.design, self.family)
        design, priors = self.design, self.priors
        if not all(prior.proper for prior in priors.beta):
            identifiability.warn_dropped(self.data.estimable)
            self._check_estimable()
            design = self.data.estimable
            priors = resolve(design, self.setting, self.family)
        with _explained():
            estimate = mode.estimate_jointly(joint_of(design, self.family, priors, points))
        return self._point(design, "map", estimate, verbose=verbose)

    def _check_estimable(self) -> None:
        """Refuse data that leave a parameter without a maximum likelihood estimate."""
        identifiability.check_identified(self.data.estimable, self.family)
        identifiability.check_separation(self.data.estimable, self.family)

    def _posterior(self) -> JointPosterior:
        identifiability.check_varies(self.data.estimable, self.family)
        propriety.check_proper(self.design, self.priors, self.family)
        identifiability.warn_posterior(self.design, self.family)
        return JointPosterior(self.design, self.family, self.priors, self.engine)


def _after[P](
    posterior: Callable[[], P], fit: Callable[Concatenate[P, ...], Fit]
) -> Callable[..., Fit]:
    """Return a method of a posterior as a function of its options alone."""

    @wraps(fit)
    def fitted(**options: Any) -> Fit:
        with _explained():
            return fit(posterior(), **options)

    return fitted


@contextmanager
def _explained() -> Iterator[None]:
    """Say what it means, and what to do, where random effects have no conditional modes."""
    try:
        yield
    except NoModesError as error:
        message = f"the random effects cannot be integrated out, as {error}: the linear predictor "
        message += "or the response is out of reach for this family and link. Rescale the "
        raise FitError(message + "predictors, or use another link or family.") from error


def route(design: Design, family: Family, priors: Priors, setting: PriorSetting) -> Route:
    """Return the way to fit a model."""
    kind = Linear if family.is_normal else Nonlinear
    return kind(Data(design, family), priors, setting)
