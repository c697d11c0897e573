"""`Model` and `fit`: the pipeline from a formula and data to a fit, readable on one screen."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, DataTree, FilePath, Seed
from ranef.arguments import check_choice, check_options, check_seed, option_names
from ranef.covariances.covariance import pull_back
from ranef.design import identifiability
from ranef.design.design import build_design
from ranef.design.evaluate import callables
from ranef.design.lazy.lazy_cells import CountedRows
from ranef.design.response import precisions_of
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.families.links import Link
from ranef.families.names import find_family
from ranef.fits.fit import Fit, kinds_of_fits
from ranef.fits.no_pooling.data_pictures import DataPictures
from ranef.fits.other_names import missing as no_such_name
from ranef.formula.structures import LIMIT, structures
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import reml
from ranef.model import archive, describe, generalized_engine, storage
from ranef.model.criterion_grid import CriterionPictures
from ranef.model.ingredients import Ingredients, updated_model
from ranef.model.linear_engine import FORMS, LinearEngine
from ranef.model.shared_engine import Data
from ranef.model.summaries import stored_summary
from ranef.model.summaries.data_summary import DataSummary
from ranef.model.summaries.summarize import brought_here, from_file
from ranef.numerics.memory import within_memory
from ranef.posterior.sampling import pymc_hierarchical, pymc_marginal
from ranef.printing.summary import Printed, Summary
from ranef.priors import prior_predictive, prior_table, propriety
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant, Prior
from ranef.priors.user_priors import PriorSetting, restricted, with_known


class Model(DataPictures, CriterionPictures, Printed):
    """A hierarchical model: a formula with its data, read and checked, nothing fitted.

    Parameters
    ----------
    formula : str or DataSummary
        As in lme4: `Reaction ~ Days + (Days | Subject)`; or what `ranef.summarize` has made of a
        formula and data, which is all that a linear model needs of them.
    data : DataFrame
        pandas, polars, pyarrow or a mapping of columns. Of lazy data (a DuckDB relation, a Polars
        LazyFrame, an Ibis table, a Dask frame) a linear model takes the summary that their engine
        computes, and no row; one of counts, or of yes and no, takes the different rows and how
        often each occurs.
    family : str or Family
        The distribution of the response.
    link : str, optional
        The link function; the family's own by default.
    weights, offset : str or array, optional
        Prior weights and a known part of the mean: a column's name or values, one a row of data.
    se : str or array, optional
        The known standard error of the response of each row, as in a meta-analysis, where a row is
        the estimate of a study: `rf.Model("y ~ 1 + (1 | study)", data, se="s")`. It is the same as
        the weights 1 / se^2 and the prior `Constant(1)` of sigma. By every method sigma is then
        known to be 1 and not estimated, and the sd of the random effects is what the estimates of
        studies vary by beyond their errors. For Gaussian models.
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
                         variance     sd
    Batch     Intercept      1388  37.26
    Residual                 2451  49.51
    """

    def __init__(
        self,
        formula: str | DataSummary,
        data: object = None,
        family: str | Family = "gaussian",
        *,
        link: str | Link | None = None,
        weights: str | ArrayLike | None = None,
        offset: str | ArrayLike | None = None,
        se: str | ArrayLike | None = None,
        priors: PriorSetting = "default",
        missing: str = "drop",
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.family = find_family(family, link)
        arguments: dict[str, Any] = {"family": family, "link": link, "functions": functions}
        arguments |= {"weights": weights, "offset": offset, "se": se, "missing": missing}
        given = formula if isinstance(formula, DataSummary) else data
        found = brought_here(formula, data, self.family, arguments)
        self._summary = found if isinstance(found, DataSummary) else None
        self._ingredients = Ingredients(type(self), given, arguments, self._summary)
        self._known: dict[str, Prior] = {}
        if se is not None:
            weights = precisions_of(data, se, weights, self.family)
            self._known = {"sigma": Constant(1.0)}
            priors = with_known(priors, self._known)
        if self._summary is not None:
            self.formula, self.design = self._summary.formula, self._summary.design
        else:
            self.formula = read_formula(cast("str", formula), callables(functions))
            self.design = build_design(
                self.formula,
                data if found is None else found,
                family=self.family,
                weights=weights,
                offset=offset,
                missing=missing,
                functions=functions,
                weights_as="weights" if se is None else "se",
            )
            self.family = self.family.fitted_to(self.design.distinct.y)
        sigma = priors.get("sigma") if isinstance(priors, Mapping) else None
        if not (isinstance(sigma, Prior) and propriety.keeps_from_zero(sigma)):
            identifiability.check_response(self.design, self.family)
        self.priors = resolve(self.design, priors, self.family)
        self._setting = priors
        optional = {"weights": weights, "offset": offset}
        self._columns = {k: v if isinstance(v, str) else None for k, v in optional.items()}

    if not TYPE_CHECKING:  # a type checker knows what there is

        def __getattr__(self, name: str) -> NoReturn:
            raise no_such_name(self, name, kinds_of_fits())

    def summary(self) -> Summary:
        """Return what `print(model)` says as an object: text, HTML, `.to_frame()` (the priors)."""
        choices = (
            () if self.family.is_linear else pymc_hierarchical.choose(self.design, self.family)
        )
        reasons = [choice.reason for choice in choices]
        return describe.describe(self.design, self.family, self.priors.rows(), reasons)

    def fit(
        self, method: str | None = None, *, file: FilePath | None = None, **options: Any
    ) -> Fit:
        """Fit the model.

        Parameters
        ----------
        method : {"reml", "ml", "map", "laplace", "quadrature", "mcmc"}, optional
            Restricted or plain maximum likelihood; the mode under the priors, of the variance
            parameters (linear models) or of all parameters but the random effects; or the
            posterior: approximated at that mode and corrected by importance weights, integrated
            on a grid (up to 4 variance parameters), or sampled by NUTS. "reml" and "quadrature"
            are for linear models. By default "reml" for those, "ml" for all others.
        file : path, optional
            Where the fit is kept. If the file is there and holds what this call asks for (the same
            formula, data, family, priors, method and options), it is read and nothing is fitted;
            otherwise the fit is made, and saved there. Of own functions it is seen whether they
            give the same columns, of own families their name alone.
        **options
            For all but "reml" and "ml": `priors=`, in place of the model's.
            For "reml", "ml" and "map": `verbose=True` prints the objective and theta at every
            step.
            For "ml", "map" and "laplace" of a generalised model: `n_agq=1`, the Laplace
            approximation, or more points of an adaptive Gauss-Hermite quadrature in each
            dimension, for one grouping factor; `n_agq=0`, with "ml", leaves the fixed effects at
            the joint mode with the random ones, as lme4's nAGQ = 0.
            For "laplace", "quadrature" and "mcmc": `seed=None`, a number, numpy Generator or
            SeedSequence; the fit keeps the number that is drawn of these.
            For "laplace" and "quadrature": `draws=4000` (generalised models 1000).
            For "mcmc": `draws=1000, tune=1000, chains=4, cores=None, progressbar=True,
            target_accept=0.9`, `log_likelihood=True` to store that of every
            row; `pymc_model=` is a model from `to_pymc` that was changed. Linear models:
            `form="marginal"` samples the variance parameters alone and draws all effects exactly,
            `form="hierarchical"` samples everything (`centered=False`). Generalised models:
            `centered=` says how random effects are sampled, by term; the default is what
            `print(model)` says.

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
        name = self.engine.method(method)
        if "priors" in options and name not in ("reml", "ml"):
            return self.with_priors(options.pop("priors")).fit(name, file=file, **options)
        run = self.engine.methods[name]
        if options:
            of_model = list(inspect.signature(Model).parameters)[2:]
            check_options(f"fit({name!r})", options, option_names(run), of_model)
        if "seed" in options:
            options["seed"] = check_seed(options["seed"])
        rows, effects = self.design.n_obs, sum(t.n_levels * t.n_coefs for t in self.design.terms)
        what = f"fit({name!r}) of {rows:,} rows, {len(self.design.fixed):,} fixed and {effects:,} "
        remedy = "Fit a sample of the rows, or a smaller model."

        def made() -> Fit:
            with within_memory(f"{what}random effects", remedy):
                fit = run(**options)
            if options:
                object.__setattr__(fit, "options", options)
            return fit

        return made() if file is None else storage.kept(file, self.engine, name, options, made)

    def with_priors(self, priors: PriorSetting) -> Model:
        """Return the same model with other priors.

        Parameters
        ----------
        priors : str or dict
            As of `Model`.
        """
        priors = with_known(priors, self._known)
        other, resolved = copy(self), resolve(self.design, priors, self.family)
        other.priors, other._setting = resolved, priors  # noqa: SLF001 -- its own
        other.engine = replace(self.engine, priors=resolved, setting=priors)
        return other

    def update(self, formula: str | object = None, data: object = None, **changes: Any) -> Model:
        """Return the model with another formula, other data or other options.

        Parameters
        ----------
        formula : str, optional
            In which `.` stands for that side of the model's own formula: `. ~ . - x + (1 | g)`.
            Random-effects terms are taken away as they are written; `(1 | a/b)` is two of them.
        data : DataFrame, optional
            By default the data that the model was made with, as they are now: columns that the
            old formula does not use are there too, and rows that were left out for missing values
            come back where the new formula does not use these. A model of a summary gets these
            rows besides those that it has: `model.update(new_rows)`.
        **changes
            Other arguments of `Model`. What is not named stays as it is; of the priors those of
            parameters that there are no more are left out.

        Raises
        ------
        FormulaError
            If the formula cannot be read, or takes away what is not there.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> model.update(". ~ . - (Days | Subject) + (1 | Subject)").formula.text
        'Reaction ~ Days + (1 | Subject)'
        """
        return updated_model(
            self._ingredients,
            self.design,
            self._setting,
            formula=formula,
            data=data,
            changes=changes,
        )

    def criterion(
        self, theta: ArrayLike, method: str = "reml", *, sigma: float | None = None
    ) -> float:
        """Return the REML criterion or the profiled deviance at any theta.

        Parameters
        ----------
        theta : array
            Relative covariance parameters in lme4's order.
        method : {"reml", "ml"}
        sigma : float, optional
            The residual standard deviation; by default the best given theta.

        Returns
        -------
        float
            -2 times the (restricted) log-likelihood, all else at its optimum given these.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(model.criterion([1.0]), 6)
        319.792389
        """
        check_choice("method", method, ("reml", "ml"), "has no criterion")
        cross = self._linear("criterion", "log_likelihood").identified
        theta = reml.basis_theta(cross, self.engine.checked_theta(theta))
        is_reml, known = method == "reml", self.priors.known_sigma
        if sigma is not None and not 0 < sigma < np.inf:
            raise FitError(f"sigma must be positive and finite, got {sigma}.")
        return reml.criterion(cross, theta, known if sigma is None else sigma, reml=is_reml)[0]

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
        return self._linear("log_marginal", "log_likelihood").marginal(theta, sigma)[0]

    def log_marginal_gradient(self, theta: ArrayLike, sigma: float) -> tuple[Array, float]:
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
        engine = self._linear("log_marginal_gradient", "log_likelihood_gradient")
        _, slopes, d_sigma, _ = engine.marginal(theta, sigma)
        cross = engine.data.cross
        users = [T.T @ slope for T, slope in zip(cross.bases, slopes, strict=True)]
        return pull_back(users, np.asarray(theta), cross.covariances), d_sigma

    def to_pymc(
        self, form: str = "hierarchical", *, centered: bool | Mapping[str, bool] = False
    ) -> pymc_hierarchical.PyMCModel:
        """Build the model in PyMC, to read, to extend or to sample by hand.

        Parameters
        ----------
        form : {"hierarchical", "marginal"}
            With explicit fixed and random effects, or of the variance parameters alone, all
            effects integrated out. `model.fit("mcmc", pymc_model=changed)` samples either, and
            draws the effects.
        centered : bool or dict from term to bool
            Whether the random effects of the hierarchical form are sampled as they are, or (the
            default) as standard normal variables that are scaled.

        Returns
        -------
        pymc.Model
            With the variables `beta`, `sigma`, `sd_<term>`, `corr_<term>`, `b_<term>` and the
            user's labels as coordinates; without `beta` and `b_<term>` in the marginal form. The
            hierarchical form holds its rows as data, `X` (obs, fixed), and of each term
            `Z_<term>` (obs, <term>_coef) and the position of each row's level, `index_<term>`:
            `pymc.set_data` puts others in their place. `print` shows every prior with the
            coefficient that has it. The marginal form has a likelihood compiled by Numba, which
            samplers that need JAX (numpyro, blackjax) cannot take.
            PyMC's functions go on from the posterior of any fit with it. For ArviZ's sensitivity
            to priors leave the distribution of the random effects out:
            `pymc.compute_log_prior(fit.posterior, model=..., var_names=...)`.
        """
        check_choice("form", form, FORMS)
        if form == "hierarchical":
            return pymc_hierarchical.hierarchical(
                self.design, self.priors, self.family, centered=centered
            )
        if centered:
            raise FitError("the marginal form has no random effects that could be centered.")
        density = self._linear('to_pymc("marginal")', 'to_pymc("hierarchical")').density
        propriety.check_proper(self.design, self.priors)
        return pymc_marginal.marginal_model(self.design, self.priors, density)

    def structures(self, *, marginality: bool = True, limit: int = LIMIT) -> dict[str, Model]:
        """Return the models with simpler random effects, from none up to this one.

        Parameters
        ----------
        marginality : bool
            Whether a slope is kept only with its intercept, and an interaction only with the
            terms within it. Otherwise each can go by itself, as in `(0 + x | g)`, where the rest
            is not the same model in another coding.
        limit : int
            The largest number of models that are made.

        Returns
        -------
        dict of str to Model
            By random effects: those of the formula, with `||` in place of `|`, with slopes left
            out, intercepts only, none; of several terms in all combinations. Data, fixed effects
            and priors are the same.

        Raises
        ------
        FitError
            If there are more models than the limit.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        >>> list(model.structures())[:3]
        ['no random effects', '(1 | Subject)', '(Days || Subject)']
        """
        random = self.design.recipe.random
        simpler = structures(self.formula, random, marginality=marginality, limit=limit)
        return {one.label: self._with_formula(one.formula) for one in simpler}

    def _with_formula(self, text: str) -> Model:
        """Return a model of the same rows with other random effects."""
        if self._summary is not None:
            model = Model(self._summary.with_formula(read_formula(text)))
            return model.with_priors(restricted(self._setting, model.design, self.family))
        repeats = self.design.sufficient.repeats
        rows, columns = self.design.sufficient.data, self._columns
        frame = rows.frame(**columns)
        model = Model(
            text,
            CountedRows(frame, repeats, rows.left_out),
            self.family,
            weights=rows.weights if columns["weights"] is None else columns["weights"],
            offset=rows.offset if columns["offset"] is None else columns["offset"],
            functions=self.design.recipe.functions,
        )
        return model.with_priors(restricted(self._setting, model.design, self.family))

    def prior_table(self) -> pd.DataFrame:
        """Return the priors of all parameters, in the response's units."""
        return prior_table.prior_table(self.priors)

    def prior_predictive(self, n: int = 1000, seed: Seed = None) -> DataTree:
        """Draw parameters from their priors, and a response for each draw.

        Parameters
        ----------
        n : int
            Number of draws.
        seed : int, numpy Generator or SeedSequence, optional
            The same seed gives the same draws.

        Returns
        -------
        xarray.DataTree
            Groups `prior`, `prior_predictive` and `observed_data`, as ArviZ has them.
        """
        return prior_predictive.prior_predictive(self.design, self.priors, n, seed, self.family)

    def log_likelihood(
        self,
        theta: ArrayLike,
        beta: ArrayLike,
        parameters: Mapping[str, float] | None = None,
        *,
        n_agq: int = 1,
    ) -> float:
        """Return log p(y | beta, theta, own parameters): the random effects integrated out.

        Parameters
        ----------
        theta : array
            Relative covariance parameters in lme4's order.
        beta : array, shape (p,), Series or dict
            Fixed effects, without combinations of others; by name where they have names.
        parameters : mapping of str to float, optional
            The family's own parameters, such as `{"shape": 2.0}`, sigma included.
        n_agq : int
            Points of an adaptive Gauss-Hermite quadrature in each dimension; 1 for the Laplace
            approximation.

        Returns
        -------
        float
            With all constants; minus infinity where there is none.

        Raises
        ------
        FitError
            If a parameter is missing, or out of its range.

        Examples
        --------
        >>> import ranef as rf
        >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        >>> model = rf.Model(formula, rf.load_dataset("cbpp"), family="binomial")
        >>> fit = model.fit()
        >>> round(-2 * model.log_likelihood(fit.theta, fit.fixef()), 6)
        184.052564
        """
        return self.engine.likelihood(theta, beta, parameters, n_agq).value

    def log_likelihood_gradient(
        self,
        theta: ArrayLike,
        beta: ArrayLike,
        parameters: Mapping[str, float] | None = None,
        *,
        n_agq: int = 1,
    ) -> tuple[Array, Array, dict[str, float]]:
        """Return the derivatives of `log_likelihood`.

        Parameters
        ----------
        theta, beta, parameters, n_agq
            As of `log_likelihood`.

        Returns
        -------
        d_theta, d_beta : ndarray
        d_parameters : dict
        """
        likelihood = self.engine.likelihood(theta, beta, parameters, n_agq)
        return likelihood.theta, likelihood.beta, likelihood.parameters

    # ------------------------------------------------------------------------------ inside

    @cached_property
    def engine(self) -> LinearEngine | generalized_engine.GeneralizedEngine:
        """The ways to fit a model of this kind, and the answers to what its fits ask."""
        kind = LinearEngine if self.family.is_linear else generalized_engine.GeneralizedEngine
        return kind(Data(self.design, self.family), self.priors, self._setting, self._ingredients)

    def _linear(self, name: str, other: str) -> LinearEngine:
        """Return the engine of a linear model, or say what there is instead."""
        if not isinstance(self.engine, LinearEngine):
            raise FitError(f"{name} is for linear models; see {other}.")
        return self.engine


def fit(formula: str, data: object, method: str | None = None, **options: Any) -> Fit:
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
    of_model = inspect.signature(Model).parameters if options else {}
    model = Model(formula, data, **{k: v for k, v in options.items() if k in of_model})
    return model.fit(method, **{k: v for k, v in options.items() if k not in of_model})


def load(
    path: FilePath,
    *,
    functions: Mapping[str, Callable[..., Any]] | None = None,
    family: str | Family | None = None,
) -> Fit | DataSummary:
    """Read a fit or a summary from the file that its `save` or `model.fit(..., file=)` has made.

    Parameters
    ----------
    path : path
    functions : mapping of str to callable, optional
        The functions of your own that the formula uses: a file has their names only.
    family : Family, optional
        The family, if it is one of your own.

    Returns
    -------
    PointFit, PosteriorFit or DataSummary
        A fit with its model: what it answered before, it answers again.

    Raises
    ------
    FileNotFoundError
    FitError
        If the file is no such file, is damaged, or was made by a later version of the package.
    FormulaError
        If the formula in the file is not allowed, or uses functions that are not given.

    Notes
    -----
    A file is data. Its formula is read as any other is; nothing in it is evaluated or unpickled.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "dyestuff.zip")
    ...     fit.save(path)
    ...     again = rf.load(path)
    >>> round(again.curve("sd_Batch[Intercept]").mean, 1)
    47.3
    """
    kept = archive.read(path, storage.KINDS)
    if stored_summary.SUMMARY in kept.record:
        return from_file(path, kept.record[stored_summary.SUMMARY])
    stored = storage.of_archive(path, kept)
    with archive.damage(path):
        if stored_summary.SUMMARY in stored.model:
            summary = from_file(path, stored.model[stored_summary.SUMMARY])
            model = Model(summary, priors=stored.model["priors"])
        else:
            model = Model(
                **storage.arguments_of(stored),
                family=storage.family_of(stored, family),
                functions=functions,
            )
        return storage.restored(stored, model.engine)
