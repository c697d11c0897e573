"""`Model` and `fit`: the pipeline from a formula and data to a fit, readable on one screen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef import bayes, checks, reml
from ranef.crossproducts import CrossProducts, cross_products
from ranef.describe import describe
from ranef.design import Design, build_design, full_rank
from ranef.errors import ConvergenceWarning, FitError, suggestion, warn
from ranef.estimates import Estimate
from ranef.families import Family, find_family
from ranef.formula import read_formula
from ranef.pointfit import PointFit
from ranef.posteriorfit import PosteriorFit
from ranef.priors import PriorSetting, resolve
from ranef.results import Fit

if TYPE_CHECKING:
    import pymc as pm


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
        "default", or a dict from parameter or coefficient to a prior of `ranef.priors`; what is
        not named keeps its default. The keys are "Intercept", "sigma", "beta" (all other fixed
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

    def __repr__(self) -> str:
        return describe(self.design, self.family, self.priors.rows())

    def fit(self, method: str = "reml", **options: Any) -> Fit:
        """Fit the model.

        Parameters
        ----------
        method : {"reml", "ml", "mcmc"}
            Restricted or plain maximum likelihood, or draws from the posterior by NUTS.
        **options
            For "reml" and "ml": `verbose=True` prints the objective and theta at every step.
            For "mcmc": `draws=1000, tune=1000, chains=4, seed=None, cores=None,
            progressbar=True, target_accept=0.9, centered=False`.

        Returns
        -------
        PointFit or PosteriorFit

        Raises
        ------
        FitError
            If the method or an option does not exist.
        DataError
            If the data do not identify the estimates.

        Warns
        -----
        ConvergenceWarning
            If the optimiser or the sampler did not reach an answer to rely on.
        """
        methods: dict[str, Callable[..., Fit]] = {
            "reml": self._fit_reml,
            "ml": self._fit_ml,
            "mcmc": self._fit_mcmc,
        }
        if str(method) not in methods:
            raise FitError(f"method={method!r} does not exist. {suggestion(str(method), methods)}")
        _check_options(method, options, list(inspect.signature(methods[method]).parameters))
        return methods[method](**options)

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
        cross = self._cross_products
        size = sum(s.n_theta for s in cross.shapes)
        try:
            theta = np.asarray(theta, dtype=np.float64)
        except (TypeError, ValueError):
            raise FitError(f"theta must be numbers, got {theta!r}.") from None
        if theta.shape != (size,):
            raise FitError(f"theta has shape {theta.shape}, expected ({size},).")
        if not np.isfinite(theta).all():
            raise FitError(f"theta must be finite, got {theta.tolist()}.")
        return reml.criterion(cross, reml.basis_factors(cross, theta), reml=method == "reml")[0]

    def to_pymc(self, *, centered: bool = False) -> pm.Model:
        """Build the hierarchical model in PyMC, to read, to extend or to sample by hand.

        Parameters
        ----------
        centered : bool
            Whether random effects are sampled as they are, or (the default) as standard normal
            variables that are scaled.

        Returns
        -------
        pymc.Model
            With the variables `beta`, `sigma`, `sd_<term>`, `corr_<term>`, `b_<term>` and the
            user's labels as coordinates.
        """
        return bayes.hierarchical(self.design, self.priors, centered=centered)

    def prior_table(self) -> pd.DataFrame:
        """Return the priors as they stand in the compiled PyMC model, in the response's units."""
        return bayes.prior_table(self.to_pymc())

    # -------------------------------------------------------------------------- the methods

    @cached_property
    def _estimable(self) -> Design:
        """The design without fixed columns that are combinations of others."""
        return full_rank(self.design)

    @cached_property
    def _cross_products(self) -> CrossProducts:
        checks.check_identified(self._estimable)
        return cross_products(self._estimable)

    def _fit_reml(self, *, verbose: bool = False) -> PointFit:
        return self._point("reml", verbose=verbose)

    def _fit_ml(self, *, verbose: bool = False) -> PointFit:
        return self._point("ml", verbose=verbose)

    def _point(self, method: str, *, verbose: bool) -> PointFit:
        checks.warn_dropped(self._estimable)
        cross = self._cross_products
        if method == "reml":
            checks.check_not_spanned(self._estimable, cross)
        estimate = reml.estimate(cross, reml=method == "reml")
        if verbose:
            _print_trace(estimate)
        if not estimate.convergence.ok:
            checks.check_residual(self._estimable, estimate.sigma)
            warn(estimate.convergence.value, ConvergenceWarning)
        return PointFit(self._estimable, self.family, method, estimate)

    def _fit_mcmc(
        self,
        *,
        draws: int = 1000,
        tune: int = 1000,
        chains: int = 4,
        seed: int | None = None,
        cores: int | None = None,
        progressbar: bool = True,
        target_accept: float = 0.9,
        centered: bool = False,
    ) -> PosteriorFit:
        checks.warn_posterior(self.design)
        tree = bayes.sample(
            self.to_pymc(centered=centered),
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            cores=cores,
            progressbar=progressbar,
            target_accept=target_accept,
        )
        fit = PosteriorFit(self.design, self.family, "mcmc", tree)
        if not fit.converged:
            warn(" ".join(fit.diagnostics.messages()), ConvergenceWarning)
        return fit


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
