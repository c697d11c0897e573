"""`Model` and `fit`: the pipeline from a formula and data to a fit, readable on one screen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ranef import bayes, checks, collapsed, penalized, propriety, reml
from ranef.covariance import factors, pack
from ranef.crossproducts import CrossProducts, cross_products
from ranef.describe import describe
from ranef.design import Design, build_design, full_rank
from ranef.distributions import Constant
from ranef.errors import ConvergenceWarning, FitError, suggestion, warn
from ranef.estimates import Estimate
from ranef.families import Family, find_family
from ranef.formula import read_formula
from ranef.marginal import Derived, Target, log_marginal, target_of
from ranef.pointfit import PointFit
from ranef.posteriors import FORMS, Posterior
from ranef.priorpredictive import prior_predictive
from ranef.priors import PriorSetting, resolve
from ranef.results import Fit

if TYPE_CHECKING:
    import pymc as pm
    import xarray as xr


class Model:
    """A hierarchical model: a formula with its data, read and checked, nothing fitted.

    Parameters
    ----------
    formula : str
        As in lme4: `Reaction ~ Days + (Days | Subject)`.
    data : DataFrame
        pandas, polars, pyarrow or a mapping of columns.
    family : str or Family
        The distribution of the response.
    link : str, optional
        The link function; the family's own by default.
    weights, offset : str or array, optional
        Prior weights and a known part of the mean: a column's name or values, one a row of data.
    priors : str or dict
        "default", "flat", "boundary", "brms", "rstanarm", or a dict from parameter or coefficient
        to a prior of `ranef.priors`; what is not named keeps its default, or that of the set
        named under "base". The keys are "Intercept", "sigma", "beta" (all other fixed
        effects), "sd", "corr"; the name of a fixed effect; "sd_<term>", "corr_<term>"; or
        what `print(model)` shows, "sd_Subject[Days]". For instance
        `{"Days": rf.priors.Normal(0, 20), "sd_Subject": {"Days": rf.priors.HalfNormal(10)}}`.
    missing : {"drop", "raise"}
        What happens to rows with missing values in the used columns.
    functions : mapping of str to callable, optional
        Functions that the formula may use besides the built-in ones.

    Raises
    ------
    FormulaError
        If the formula cannot be read, or names what is not in the data.
    DataError
        If the data cannot carry the model.
    FitError
        If a family, a link or a prior does not exist or does not fit.

    Examples
    --------
    >>> import ranef as rf
    >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    >>> model.fit("ml").varcorr()
              variance       sd
    Batch    Intercept  1388.33  37.2603
    Residual            2451.25  49.5101
    """

    def __init__(
        self,
        formula: str,
        data: object,
        family: str | Family = "gaussian",
        *,
        link: str | None = None,
        weights: str | ArrayLike | None = None,
        offset: str | ArrayLike | None = None,
        priors: PriorSetting = "default",
        missing: str = "drop",
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.family = find_family(family, link)
        self.formula = read_formula(formula, functions or ())
        self.design: Design = build_design(
            self.formula, data, weights=weights, offset=offset, missing=missing, functions=functions
        )
        checks.check_response(self.design)
        self.priors = resolve(self.design, priors)
        self._setting = priors

    def __repr__(self) -> str:
        return describe(self.design, self.family, self.priors.rows())

    def fit(self, method: str = "reml", **options: Any) -> Fit:
        """Fit the model.

        Parameters
        ----------
        method : {"reml", "ml", "map", "laplace", "quadrature", "mcmc"}
            Restricted or plain maximum likelihood; the mode of the variance parameters under the
            priors; or the posterior: approximated at that mode and corrected by importance
            weights, integrated on a grid (up to 4 variance parameters), or sampled by NUTS.
        **options
            For all but "reml" and "ml": `priors=`, in place of the model's.
            For "reml", "ml" and "map": `verbose=True` prints the objective and theta at every
            step.
            For "laplace" and "quadrature": `draws=4000, seed=None`.
            For "mcmc": `draws=1000, tune=1000, chains=4, seed=None, cores=None,
            progressbar=True, target_accept=0.9`; `form="marginal"` samples the variance
            parameters alone and draws all effects exactly, `form="hierarchical"` samples
            everything (`centered=False`); `pymc_model=` is a model from `to_pymc` that was changed.

        Returns
        -------
        PointFit or PosteriorFit

        Raises
        ------
        FitError
            If the method or an option does not exist, or the posterior is improper.
        DataError
            If the data do not identify the estimates.

        Warns
        -----
        ConvergenceWarning
            If there is no answer to rely on.
        """
        points: dict[str, Callable[..., Fit]] = {
            "reml": self._fit_reml,
            "ml": self._fit_ml,
            "map": self._fit_map,
        }
        posteriors: dict[str, Callable[..., Fit]] = {
            "laplace": Posterior.laplace,
            "quadrature": Posterior.quadrature,
            "mcmc": Posterior.mcmc,
        }
        methods = points | posteriors
        if str(method) not in methods:
            raise FitError(f"method={method!r} does not exist. {suggestion(str(method), methods)}")
        if "priors" in options and method not in ("reml", "ml"):
            return self.with_priors(options.pop("priors")).fit(method, **options)
        known = [name for name in inspect.signature(methods[method]).parameters if name != "self"]
        _check_options(method, options, known)
        if method in posteriors:
            return posteriors[method](self._posterior(), **options)
        return points[method](**options)

    def with_priors(self, priors: PriorSetting) -> Model:
        """Return the same model with other priors.

        Parameters
        ----------
        priors : str or dict
            As of `Model`.
        """
        other = copy(self)
        other.priors, other._setting = resolve(self.design, priors), priors  # noqa: SLF001 -- its own
        return other

    def criterion(self, theta: ArrayLike, method: str = "reml") -> float:
        """Return the REML criterion or the profiled deviance at any theta.

        Parameters
        ----------
        theta : array
            Relative covariance parameters in lme4's order.
        method : {"reml", "ml"}

        Returns
        -------
        float
            -2 times the (restricted) log-likelihood, all else at its optimum given theta.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(model.criterion([1.0]), 6)
        319.792389
        """
        if method not in ("reml", "ml"):
            hint = suggestion(str(method), ["reml", "ml"])
            raise FitError(f"method={method!r} has no criterion. {hint}")
        cross = self._identified
        theta = self._checked_theta(theta)
        return reml.criterion(cross, reml.basis_factors(cross, theta), reml=method == "reml")[0]

    def log_marginal(self, theta: ArrayLike, sigma: float) -> float:
        """Return log p(y | theta, sigma): all random effects and the fixed ones integrated out.

        Parameters
        ----------
        theta : array
            Relative covariance parameters in lme4's order.
        sigma : float
            The residual standard deviation.

        Returns
        -------
        float
            With the priors of the fixed effects, which must be normal or flat.

        Raises
        ------
        FitError
            If theta or sigma is out of its range, or a fixed effect has another prior.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(model.log_marginal([0.8], 50), 4)
        -165.8216
        """
        return self._marginal(theta, sigma)[0]

    def log_marginal_gradient(
        self, theta: ArrayLike, sigma: float
    ) -> tuple[NDArray[np.float64], float]:
        """Return the derivatives of `log_marginal` with respect to theta and sigma.

        Parameters
        ----------
        theta : array
        sigma : float

        Returns
        -------
        d_theta : ndarray, in the order of theta
        d_sigma : float
        """
        _, slopes, d_sigma, _ = self._marginal(theta, sigma)
        cross = self._cross_products
        users = [T.T @ slope for T, slope in zip(cross.bases, slopes, strict=True)]
        return pack(users, cross.shapes), d_sigma

    def to_pymc(self, form: str = "hierarchical", *, centered: bool = False) -> pm.Model:
        """Build the model in PyMC, to read, to extend or to sample by hand.

        Parameters
        ----------
        form : {"hierarchical", "marginal"}
            With explicit fixed and random effects, or of the variance parameters alone, all
            effects integrated out. `model.fit("mcmc", pymc_model=changed)` samples either, and
            draws the effects.
        centered : bool
            Whether the random effects of the hierarchical form are sampled as they are, or (the
            default) as standard normal variables that are scaled.

        Returns
        -------
        pymc.Model
            With the variables `beta`, `sigma`, `sd_<term>`, `corr_<term>`, `b_<term>` and the
            user's labels as coordinates; without `beta` and `b_<term>` in the marginal form.
        """
        if form not in FORMS:
            raise FitError(f"form={form!r} does not exist. {suggestion(str(form), FORMS)}")
        if form == "hierarchical":
            return bayes.hierarchical(self.design, self.priors, centered=centered)
        if centered:
            raise FitError("the marginal form has no random effects that could be centered.")
        propriety.check_proper(self.design, self.priors)
        return collapsed.marginal_model(self.design, self.priors, self._target)

    def prior_table(self) -> pd.DataFrame:
        """Return the priors as they stand in the compiled PyMC model, in the response's units."""
        return bayes.prior_table(self.to_pymc())

    def prior_predictive(self, n: int = 1000, seed: int | None = None) -> xr.DataTree:
        """Draw parameters from their priors, and a response for each draw.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, optional
            The same seed gives the same draws.

        Returns
        -------
        xarray.DataTree
            Groups `prior`, `prior_predictive` and `observed_data`, as ArviZ has them.
        """
        return prior_predictive(self.design, self.priors, n, seed)

    # -------------------------------------------------------------------------- the methods

    @cached_property
    def _estimable(self) -> Design:
        """The design without fixed columns that are combinations of others."""
        return full_rank(self.design)

    @cached_property
    def _cross_products(self) -> CrossProducts:
        return cross_products(self._estimable)

    @cached_property
    def _identified(self) -> CrossProducts:
        checks.check_identified(self._estimable)
        return self._cross_products

    @property
    def _target(self) -> Target:
        """The posterior density of the variance parameters."""
        kept = [self.design.fixed.index(name) for name in self._estimable.fixed]
        return target_of(self.design, self._cross_products, kept, self.priors)

    def _checked_theta(self, theta: ArrayLike) -> NDArray[np.float64]:
        size = sum(s.n_theta for s in self._cross_products.shapes)
        try:
            theta = np.asarray(theta, dtype=np.float64)
        except (TypeError, ValueError):
            raise FitError(f"theta must be numbers, got {theta!r}.") from None
        if theta.shape != (size,):
            raise FitError(f"theta has shape {theta.shape}, expected ({size},).")
        if not np.isfinite(theta).all():
            raise FitError(f"theta must be finite, got {theta.tolist()}.")
        return theta

    def _marginal(self, theta: ArrayLike, sigma: float) -> Derived:
        target = self._target
        if target.space.n_given:
            name = target.space.names[0]
            message = f"the prior of `{name}` is not normal, so that it is not integrated out; "
            raise FitError(f"{message}log_marginal needs normal or flat priors of fixed effects.")
        given: object = sigma  # whatever it may really be
        if not (isinstance(given, int | float | np.number) and 1e-100 < given < 1e100):
            raise FitError(f"`sigma` must be a positive number, got {sigma!r}.")
        users = factors(self._checked_theta(theta), target.cross.shapes)
        Lambdas = [T @ f for T, f in zip(target.cross.bases, users, strict=True)]
        return log_marginal(target.cross, target.fixed, Lambdas, float(sigma), np.empty(0))

    def _fit_reml(self, *, verbose: bool = False) -> PointFit:
        checks.warn_dropped(self._estimable)
        checks.check_identified(self._estimable)
        checks.check_not_spanned(self._estimable, self._cross_products)
        return self._point("reml", reml.estimate(self._cross_products, reml=True), verbose=verbose)

    def _fit_ml(self, *, verbose: bool = False) -> PointFit:
        checks.warn_dropped(self._estimable)
        return self._point("ml", reml.estimate(self._identified, reml=False), verbose=verbose)

    def _fit_map(self, *, verbose: bool = False) -> PointFit:
        knows_sigma = isinstance(self.priors.sigma, Constant)
        checks.check_varies(self._estimable, knows_sigma=knows_sigma)
        if all(prior.proper for prior in self.priors.beta):
            return self._point("map", penalized.estimate(self._target), verbose=verbose)
        checks.warn_dropped(self._estimable)
        checks.check_identified(self._estimable)
        priors = resolve(self._estimable, self._setting)
        target = target_of(
            self._estimable, self._cross_products, range(len(self._estimable.fixed)), priors
        )
        return self._point("map", penalized.estimate(target), verbose=verbose, reduced=True)

    def _point(
        self, method: str, estimate: Estimate, *, verbose: bool, reduced: bool | None = None
    ) -> PointFit:
        design = self.design if method == "map" and not reduced else self._estimable
        if verbose:
            _print_trace(estimate)
        if not estimate.convergence.ok:
            checks.check_residual(design, estimate.sigma)
            warn(estimate.convergence.value, ConvergenceWarning)
        return PointFit(design, self.family, method, estimate)

    def _posterior(self) -> Posterior:
        knows_sigma = isinstance(self.priors.sigma, Constant)
        checks.check_varies(self._estimable, knows_sigma=knows_sigma)
        propriety.check_proper(self.design, self.priors)
        checks.warn_posterior(self.design, knows_sigma=knows_sigma)
        return Posterior(self.design, self.family, self.priors, self._target)


def fit(formula: str, data: object, method: str = "reml", **options: Any) -> Fit:
    """Build a `Model` and fit it in one call.

    Parameters
    ----------
    formula : str
    data : DataFrame
    method : str
        As `Model.fit`.
    **options
        Options of `Model` (`weights=`, `priors=`, ...) and of `Model.fit` (`seed=`, ...).

    Examples
    --------
    >>> import ranef as rf
    >>> sleep = rf.load_dataset("sleepstudy")
    >>> rf.fit("Reaction ~ Days + (Days | Subject)", sleep).fixef().round(3).to_dict()
    {'Intercept': 251.405, 'Days': 10.467}
    """
    of_model = inspect.signature(Model).parameters
    model = Model(formula, data, **{k: v for k, v in options.items() if k in of_model})
    return model.fit(method, **{k: v for k, v in options.items() if k not in of_model})


def _check_options(method: str, options: Mapping[str, object], known: list[str]) -> None:
    of_model = list(inspect.signature(Model).parameters)[2:]
    for option in options:
        if option not in known:
            hint = suggestion(option, [*known, *of_model])
            hint = "It is an option of Model." if option in of_model else hint
            raise FitError(f"fit({method!r}) has no option `{option}`. {hint}")


def _print_trace(estimate: Estimate) -> None:
    for value, theta in estimate.trace:
        print(f"{value:14.6f}  {'  '.join(f'{t:.6f}' for t in theta)}")  # noqa: T201 -- verbose=True
