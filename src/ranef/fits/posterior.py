"""`PosteriorFit`: a posterior, with the answers and names of every other fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ranef._typing import Array, Axes, Dataset, DataTree, Executor, Places, Seed
from ranef.arguments import (
    check_choice,
    check_counts,
    check_known,
    check_positive_numbers,
    check_seed,
)
from ranef.covariances.partial_correlations import cholesky_of_correlations
from ranef.design.design import Design
from ranef.design.labels import parameter_names, predictors
from ranef.design.new_data.new_rows import NewRows
from ranef.errors import Convergence, FitError
from ranef.families.family import Family
from ranef.fits.diagnostics import MARGINAL, OTHER_FORM, Reliability, diagnose
from ranef.fits.engine import Engine
from ranef.fits.fit import Fit
from ranef.fits.fitted import Numbers
from ranef.fits.predictions.prediction_table import (
    Intervals,
    Question,
    posterior_intervals,
    posterior_means,
)
from ranef.fits.reports.tidy_tables import correlation_of_fixed
from ranef.fits.tables import VarCorr, tidy_effects
from ranef.leave_one_out.elpd import Scores, to_arviz, units_of
from ranef.likelihood.predictions import Draws, log_likelihood
from ranef.plots import comparisons
from ranef.posterior.draws import (
    Marginals,
    covariances_of,
    log_prior,
    posterior_predictive,
    quantities,
)
from ranef.posterior.marginal_likelihood import MarginalLikelihood
from ranef.posterior.prior_sensitivity import SCALES
from ranef.posterior.quadrature.marginal_densities import Curve
from ranef.posterior.quadrature.moments import LatticeMarginals
from ranef.posterior.savage_dickey import DensityRatio, density_table, relative_curve
from ranef.printing.frames import captioned
from ranef.printing.summary import Summary
from ranef.priors.prior_predictive import prior_predictive
from ranef.priors.propriety import check_evidence

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData


_NAMES = {
    "mcmc": "MCMC (NUTS)",
    "laplace": "Laplace approximation, corrected by importance weights",
    "quadrature": "quadrature",
}


@dataclass(frozen=True, eq=False, repr=False)
class PosteriorFit(Fit):
    """A posterior of all parameters.

    Attributes
    ----------
    design : Design
        Data and matrices.
    family : Family
    method : {"mcmc", "laplace", "quadrature"}
    marginals : Marginals
        The posterior of each parameter: from draws, or from the nodes of a lattice.
    checks : Reliability, optional
        How far to trust the draws; by default what the draws of a sampler say themselves.
    evidence : MarginalLikelihood, optional
        log p(y), where the method gives it.
    engine : Engine, optional
        What answers for the model that the fit comes from.
    seed : int, optional
        Of the draws.
    options : mapping of str to object
        Those that `Model.fit` was given.
    """

    design: Design
    family: Family
    method: str
    marginals: Marginals
    checks: Reliability | None = None
    evidence: MarginalLikelihood | None = None
    engine: Engine[Fit] | None = None
    seed: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    made_by: ClassVar[str] = '"quadrature" (linear models), "laplace" or "mcmc"'

    @cached_property
    def posterior(self) -> DataTree:
        """Groups `posterior`, `observed_data` and, by MCMC, `sample_stats`.

        Variables `beta`, `sigma`, other parameters of the family, `b_<term>`, `sd_<term>`,
        `corr_<term>`; ArviZ takes it as it is. After these come the variables of
        `model.to_pymc()` that have the priors where these have none themselves, such as
        `at_mean_beta`, so that PyMC can go on from it: `pymc.sample_posterior_predictive`,
        `pymc.compute_log_likelihood`. By quadrature the draws are made when first asked for.
        `posterior_predictive` and `add_groups` add further groups. The attributes say from which
        formula, by which method and with which seed the draws were made.
        """
        tree = self.marginals.drawn.tree
        for group in tree.children.values():
            group.attrs |= self._origin
        return tree

    @property
    def _origin(self) -> dict[str, str | int]:
        """What the attributes of the groups of the posterior say."""
        return {
            "inference_library": "ranef",
            "inference_library_version": version("ranef"),
            "formula": self.design.formula.text,
            "family": f"{self.family.name} ({self.family.link.name})",
            "method": self.method,
        } | ({} if self.seed is None else {"seed": self.seed})

    def posterior_predictive(self, n: int | None = None, seed: Seed = None) -> DataTree:
        """Draw responses of the rows of the data, and add them to the posterior.

        Parameters
        ----------
        n : int, optional
            How many draws of the posterior are used, at equal distances; by default all of them.
        seed : int, numpy Generator or SeedSequence, optional

        Returns
        -------
        xarray.DataTree
            `fit.posterior`, with the group `posterior_predictive`: `y` (chain, draw, obs), for a
            binomial family the proportion of successes.

        Notes
        -----
        A response is drawn given the effects of its own group. The draws take 8 bytes each, n
        times the number of rows, and are made by blocks of a few megabytes.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
        >>> tree = fit.posterior_predictive(n=500, seed=1)
        >>> dict(tree["posterior_predictive"].sizes)
        {'chain': 1, 'draw': 500, 'obs': 30}
        """
        seed = check_seed(seed)
        if n is not None:
            check_counts(n=n)
        drawn = posterior_predictive(self.marginals.drawn, n, np.random.default_rng(seed))
        return self._with(posterior_predictive=drawn)

    def add_groups(self, *names: str, seed: Seed = None) -> DataTree:
        """Add groups to the posterior that functions of ArviZ ask for.

        Parameters
        ----------
        *names : str
            Of the groups; by default all of these are added:
            `posterior_predictive` as the method of this name adds it; `log_likelihood`, of every
            row given the effects of its group; `log_prior`, of every parameter; `prior` and
            `prior_predictive`, 1000 draws; `constant_data`, the columns of the data; and
            `parameters`, which has the draws of every number in `estimates()` under its name, for
            plots and tables without random effects: `az.plot_dist(fit.posterior,
            group="parameters")`.
        seed : int, numpy Generator or SeedSequence, optional
            For what is drawn.

        Returns
        -------
        xarray.DataTree
            `fit.posterior`.

        Raises
        ------
        FitError
            If there is no group of a name, or no prior to draw from, since one is improper.

        Examples
        --------
        >>> import arviz as az
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
        >>> tree = fit.add_groups("log_likelihood", "log_prior")
        >>> az.psense_summary(tree, var_names=["sigma"])["diagnosis"].tolist()
        ['✓']
        """
        seed = check_seed(seed)
        for name in names:
            check_choice("group", name, _GROUPS, "is not available")
        added: dict[str, Dataset] = {}
        for name in names or _GROUPS:
            if name not in added:
                added |= _GROUPS[name](self, seed)
        return self._with(**{name: added[name] for name in names or _GROUPS})

    def _with(self, **groups: Dataset) -> DataTree:
        """Return the posterior with further groups, in place of others of their names."""
        import xarray as xr

        for name, group in groups.items():
            self.posterior[name] = xr.DataTree(group.assign_attrs(self._origin))
        return self.posterior

    # -------------------------------------------------------------------------- estimates

    def fixef(self) -> pd.Series[float]:
        mean, _ = self.marginals.fixed_moments
        return pd.Series(mean, index=pd.Index(self.design.fixed), name="estimate")

    def vcov(self) -> pd.DataFrame:
        names, (_, cov) = pd.Index(self.design.fixed), self.marginals.fixed_moments
        return pd.DataFrame(cov, index=names, columns=names)

    def varcorr(self) -> VarCorr:
        """Return posterior means of the standard deviations, correlations and covariances."""
        marginals, expected = self.marginals, self.marginals.expected
        moments = [
            (
                expected(marginals.sds(term)),
                expected(marginals.correlations(term)),
                expected(covariances_of(marginals, term)),
            )
            for term in self.design.terms
        ]
        sigmas = self.sigma, float(expected(self._sigmas() ** 2))
        has_sigma = self.family.has_sigma and not self.knows_sigma
        return VarCorr.of(self.design.terms, moments, sigmas, has_sigma=has_sigma)

    def _numbers(self) -> Numbers:
        drawn = self.marginals.drawn
        return Numbers(
            drawn.beta,
            tuple(covariances_of(drawn, term) for term in self.design.terms),
            {name: drawn.parameter(name) for name in self.family.parameters},
            {term.label: drawn.effects(term) for term in self.design.terms},
        )

    def ranef_table(self, prob: float = 0.95, *, uncertainty: str | None = None) -> pd.DataFrame:
        """Return posterior means, sds and HPD intervals of the random effects.

        Parameters
        ----------
        prob : float
            Probability of the intervals.
        uncertainty : {"all"}, optional
            A posterior has that of all parameters.

        Returns
        -------
        DataFrame
            Columns `term, level, coef, estimate, sd, lower, upper`.
        """
        _check_uncertainty(uncertainty)
        moments, bounds = self.marginals.effect_moments, self.marginals.effect_hdi(prob)
        values = [(*mean_and_sd, *ends) for mean_and_sd, ends in zip(moments, bounds, strict=True)]
        interval = f"posterior mean with {100 * prob:g} % HPD interval"
        return tidy_effects(self.design.terms, values, interval)

    def hdi(self, prob: float = 0.95) -> pd.DataFrame:
        """Return highest posterior density intervals of all parameters.

        Parameters
        ----------
        prob : float
            Their probability.

        Returns
        -------
        DataFrame
            Columns `lower` and `upper`; rows named as in `estimates()`.
        """
        table = self.marginals.table(prob)[["lower", "upper"]]
        return captioned(table, interval=f"{100 * prob:g} % HPD intervals")

    def confint(self, method: str | None = None, prob: float = 0.95) -> pd.DataFrame:
        """Return highest posterior density intervals, as `hdi`.

        Parameters
        ----------
        method : {"hpd"}, optional
        prob : float
        """
        if method is not None:
            check_choice("method", method, ("hpd",), "is not available for a posterior")
        return self.hdi(prob)

    @property
    def sigma(self) -> float:
        return float(self.marginals.expected(self._sigmas()))

    @property
    def parameters(self) -> dict[str, float]:
        """Posterior means of the family's own parameters; medians of those without a mean."""
        values = {name: self.marginals.parameter(name) for name in self.family.parameters}
        means = {name: float(self.marginals.expected(draws)) for name, draws in values.items()}
        return means | {name: float(np.median(values[name])) for name in self._without_mean}

    @property
    def _without_mean(self) -> dict[str, str]:
        """Which own parameters have no posterior mean, and why."""
        priors = {} if self.engine is None else dict(self.engine.priors.parameters)
        return {
            name: f"its prior, {prior}, has none, and the {limit} distribution, which ever larger "
            "values lead to, is not ruled out"
            for name, prior in priors.items()
            if (limit := self.family.parameter(name).limit) and not prior.has_mean
        }

    @property
    def theta(self) -> Array:
        """Posterior means of the relative covariance parameters, in lme4's order."""
        means = [np.empty(0)]
        sigma = self._sigmas()[:, None]
        for term in self.design.terms:
            units = cholesky_of_correlations(self.marginals.correlations(term))
            roots = (self.marginals.sds(term) / sigma)[:, :, None] * units
            means.append(self.marginals.expected(term.covariance.theta_of(roots)))
        return np.concatenate(means)

    def draws(self, name: str) -> Array:
        """Return the draws of one variable, all chains together, shape (draws, ...).

        Parameters
        ----------
        name : str
            `beta`, `sigma` or another parameter of the family, `sd_<term>`, `corr_<term>` or
            `b_<term>`.
        """
        return self.marginals.drawn.variable(name)

    def draws_at(self, chosen: Places | slice = slice(None)) -> Draws:
        """Return some draws of all parameters, by default all of them, chain after chain."""
        return self.marginals.drawn.draws_at(chosen)

    # ------------------------------------------------------------------------- diagnostics

    @cached_property
    def diagnostics(self) -> Reliability:
        """What speaks for and against the numbers; `.ok` and `.messages()` in short."""
        if self.checks is not None:
            return self.checks
        remedy = MARGINAL if self.family.is_linear else OTHER_FORM if self.design.terms else ""
        return diagnose(self.posterior, remedy)

    @property
    def convergence(self) -> Convergence:
        if not self.diagnostics.ok:
            return Convergence.NOT_MIXED
        return Convergence.MIXED if self.checks is None else Convergence.CHECKED

    @property
    def is_singular(self) -> bool:
        """False: a posterior does not sit on the boundary."""
        return False

    # ---------------------------------------------------------------------------- printing

    def summary(self, prob: float = 0.95, *, correlation: bool = False) -> Summary:
        """Return the printed table as an object: text, HTML, `.to_frame()`.

        Parameters
        ----------
        prob : float
            Probability of the highest posterior density intervals.
        correlation : bool
            Whether the posterior correlations of the fixed effects are a table too.
        """
        table, medians = self.marginals.table(prob), []
        for name, reason in self._without_mean.items():
            table.loc[name, [c for c in ("mean", "sd", "mcse_mean") if c in table]] = np.nan
            medians.append(
                f"`{name}` has no mean: {reason}. Its median is {self.parameters[name]:.3g}."
            )
        evidence = [] if self.evidence is None else [str(self.evidence)]
        return Summary(
            title=f"{self._kind}, posterior by {_NAMES[self.method]}",
            facts=(*self._facts(), *self.marginals.size, *evidence),
            sections=(
                (f"Posterior, with {100 * prob:g} % HPD intervals", table),
                *([correlation_of_fixed(self.vcov())] if correlation else []),
            ),
            notes=(*self.diagnostics.messages(), *self._undetermined(), *medians),
            frame=table,
        )

    # ------------------------------------------------------- what posteriors are compared by

    def loo(
        self,
        unit: str = "observation",
        group: str | ArrayLike | None = None,
        *,
        seed: Seed = None,
        executor: Executor | None = None,
    ) -> ELPDData:
        """Return how well the model predicts what is left out: rows, or whole groups.

        Parameters
        ----------
        unit : {"observation", "group"}
            The question. "observation": a new row of a *known* group, whose other rows are there;
            it asks whether a term helps to predict these groups. "group": all rows of a *new*
            group together, of which nothing is known (leave one group out); it asks which
            random-effects structure describes groups, and its number of units is that of the
            groups. The random effects are integrated out in either.
        group : str or array of shape (n_obs,), optional
            The grouping factor whose levels are left out, by name; or the labels of the rows'
            groups. Needed where there are several factors, or none.
        seed : int, numpy Generator or SeedSequence, optional
            For the few units whose importance weights cannot be trusted and that are computed
            anew, where that takes random numbers.
        executor : concurrent.futures.Executor, optional
            Where these are to be computed, side by side; the numbers are the same.

        Returns
        -------
        ELPDData
            ArviZ's: `elpd`, `se` (over units), `p`, `elpd_i` (one value a unit, with its label),
            `pareto_k` (None where no importance weights are involved, nan for units that were
            computed anew).

        Notes
        -----
        For a linear model log p(y_A | y without A) is a closed form given the variance
        parameters; by "quadrature" it is then integrated without Monte Carlo error, and from draws
        it is a Pareto-smoothed importance sampling estimate, replaced by a ratio of two marginal
        likelihoods, or by bridge sampling, where k-hat is too large.
        Of other models the random effects are integrated out by quadrature or by Laplace's
        approximation.

        Source: Vehtari, Gelman & Gabry (2017), *Statistics and Computing* 27; Merkle, Furr &
        Rabe-Hesketh (2019), *Psychometrika* 84; Bürkner, Gabry & Vehtari (2021), *Computational
        Statistics* 36.

        Examples
        --------
        >>> import ranef as rf
        >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
        >>> new_group = fit.loo("group")
        >>> round(float(new_group.elpd), 1), new_group.n_data_points
        (-166.8, 6)
        """
        return to_arviz(self.scores(unit, group, seed=seed, executor=executor))

    def scores(
        self,
        unit: str = "observation",
        group: str | ArrayLike | None = None,
        *,
        seed: Seed = None,
        executor: Executor | None = None,
    ) -> Scores:
        """Return what `loo` returns as a record, with the error of every unit's number.

        Parameters
        ----------
        unit, group, seed, executor
            As of `loo`.
        """
        rng = np.random.default_rng(check_seed(seed))
        return self.asked.scores(self.marginals, units_of(self.design, unit, group), rng, executor)

    def log_marginal_likelihood(self, *, seed: Seed = None) -> MarginalLikelihood:
        """Return log p(y), all parameters integrated out, with its error.

        Parameters
        ----------
        seed : int, numpy Generator or SeedSequence, optional
            For the bridge sampling of draws.

        Returns
        -------
        MarginalLikelihood
            A record with `value`, `mcse`, `bias`, `error` (both) and `method`: quadrature for a
            linear model with up to four variance parameters, bridge sampling (warp-III) or
            importance sampling otherwise.

        Raises
        ------
        FitError
            For improper priors, which leave it undefined, and for draws that are not to be
            relied on.

        Examples
        --------
        >>> import ranef as rf
        >>> model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
        >>> round(model.fit("quadrature").log_marginal_likelihood().value, 4)
        -168.6996
        """
        rng = np.random.default_rng(check_seed(seed))
        check_evidence(self.asked.priors)
        return self.asked.evidence(self.marginals, rng, self.evidence)

    def prior_sensitivity(self, scales: ArrayLike | None = None) -> pd.DataFrame:
        """Return how log p(y) changes with the scale of the priors of all random-effect sds.

        Parameters
        ----------
        scales : array, optional
            What the scales of these priors are multiplied by; by default from 1/4 to 4.

        Returns
        -------
        DataFrame
            Columns `scale`, `log_ratio` (log p(y) less its value at scale 1) and `mcse`. It is
            computed by reweighting the fit: nothing is fitted again.
        """
        wanted = SCALES if scales is None else check_positive_numbers("scales", scales)
        change = self.asked.sensitivity(self.marginals, wanted)
        return pd.DataFrame({"scale": wanted, "log_ratio": change.log_ratio, "mcse": change.mcse})

    def savage_dickey(self, name: str) -> DensityRatio:
        """Return the Bayes factor of the model without a parameter, from its posterior at zero.

        Parameters
        ----------
        name : str
            A fixed effect, correlation or standard deviation, as in `estimates()`.

        Returns
        -------
        DensityRatio
            A record with `log_bf01`, and the posterior and prior densities at zero whose ratio
            it is: a second route to the ratio of two marginal likelihoods.

        Raises
        ------
        FitError
            If the prior has no finite density at zero there, or is not that of the simpler model.
        """
        return self.asked.savage_dickey(self.marginals, name)

    # ------------------------------------------------------------------------------ inside

    def _sigmas(self) -> Array:
        """Return sigma at every point: 1 where the family has none."""
        return self.marginals.parameter("sigma") if self.family.has_sigma else np.ones(1)

    def _drawn(self, n: int, rng: np.random.Generator) -> Draws:
        n_draws = self.marginals.drawn.n_draws
        return self.draws_at(rng.choice(n_draws, n, replace=n > n_draws))

    def _mean(self, rows: NewRows) -> Array:
        return posterior_means(self.family, self.marginals, rows)

    def _draws_for(
        self,
        rows: NewRows,  # noqa: ARG002 -- draws are of all effects
        n: int | None,
        rng: np.random.Generator,
    ) -> Draws:
        return self.draws_at() if n is None else self._drawn(n, rng)

    def _intervals(
        self,
        asked: Question,
        uncertainty: str | None,
        n: int | None,  # noqa: ARG002 -- all draws are used
        seed: int | None,
    ) -> Intervals:
        _check_uncertainty(uncertainty)
        rng = np.random.default_rng(seed)
        return posterior_intervals(
            self.family, self.marginals, asked, lambda rows: self._draws_of(rows, asked, None, rng)
        )

    def _b(self) -> dict[str, Array]:
        moments = zip(self.design.terms, self.marginals.effect_moments, strict=True)
        return {term.label: mean for term, (mean, _) in moments}


def _check_uncertainty(uncertainty: str | None) -> None:
    """Refuse an uncertainty that leaves some out, as a posterior cannot."""
    if uncertainty is not None:
        fault = "is not available for a posterior, which has that of all parameters"
        check_choice("uncertainty", uncertainty, ("all",), fault)


@dataclass(frozen=True, eq=False, repr=False)
class QuadratureFit(PosteriorFit):
    """A posterior by deterministic integration over the variance parameters.

    Means, standard deviations, densities and intervals have no Monte Carlo noise; draws are made
    when they are asked for.

    Attributes
    ----------
    marginals : LatticeMarginals
        Of the nodes of a lattice.

    Examples
    --------
    >>> import ranef as rf
    >>> fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    >>> batch = fit.curve("sd_Batch[Intercept]")
    >>> round(batch.mean, 1), [round(x, 1) for x in batch.hdi(0.9)]
    (47.3, [14.9, 80.6])
    """

    marginals: LatticeMarginals

    made_by: ClassVar[str] = '"quadrature" (linear models)'

    def curve(self, name: str) -> Curve:
        """Return the posterior density of one parameter.

        Parameters
        ----------
        name : str
            As in `estimates()`: `Days`, `sigma`, `sd_Subject[Days]`,
            `corr_Subject[Intercept, Days]`.

        Returns
        -------
        Curve
            With `pdf`, `cdf`, `quantile`, `hdi(prob)`, `mean` and `sd`.
        """
        names = parameter_names(self.design, self.family)
        check_known([name], names, lambda name: f"the posterior has no parameter {name!r}.")
        curve = self.marginals.curve(name)
        if isinstance(curve, float):
            raise FitError(f"`{name}` is known to be {curve:g} and has no density.")
        return curve

    def plot_savage_dickey(self, name: str, **style: Any) -> Axes:
        """Draw the posterior density of a parameter over its prior density.

        Their ratio at zero, which is marked, is the Bayes factor of the model without it: where
        the posterior (filled) is lower there than the prior (dashed), the data have made zero less
        credible, and speak for the parameter; where it is higher, against it. How wide the prior
        is decides its height at zero, and with it the ratio: a prior twice as wide is half as
        high, and favours zero about twice as much, whatever the data. `prior_sensitivity()` says by
        how much. Away from zero the picture shows what was learnt: a posterior as wide as the
        prior says that the data have told nothing of the parameter.

        Parameters
        ----------
        name : str
            A fixed effect, a standard deviation, or the correlation of two coefficients, as in
            `estimates()`.
        **style
            `ax=` and `figsize=`.

        Raises
        ------
        FitError
            As `savage_dickey`.
        """
        ratio, exact, priors = self.savage_dickey(name), self.marginals.exact, self.asked.priors
        of_ratio = relative_curve(exact, priors, name)
        curve = of_ratio or self.curve(name)
        table = density_table(priors, exact.target.space, ratio, curve, relative=bool(of_ratio))
        words = name + " / sigma" * bool(of_ratio)
        return comparisons.posterior_and_prior(table, name=words, **style)

    def effect_curve(self, term: str, level: object, coef: str) -> Curve:
        """Return the posterior density of one random effect.

        Parameters
        ----------
        term : str
            Label of the term.
        level : label
            Of the group.
        coef : str
        """
        wanted = self._term(term)
        levels = wanted.levels.tolist()
        check_known([level], levels, lambda name: f"`{wanted.factor}` has no level {name!r}.")
        check_known(
            [coef], wanted.coefs, lambda name: f"{wanted.text} has no coefficient {name!r}."
        )
        place = [t.label for t in self.design.terms].index(wanted.label)
        indices = levels.index(level), wanted.coefs.index(coef)
        return self.marginals.exact.effect_curve(place, *indices)


def _of_priors(fit: PosteriorFit, seed: int | None) -> dict[str, Dataset]:
    tree = prior_predictive(fit.design, fit.asked.priors, seed=seed, family=fit.family)
    return {name: tree[name].to_dataset() for name in ("prior", "prior_predictive")}


def _log_likelihood(fit: PosteriorFit, _: int | None) -> dict[str, Dataset]:
    posterior = fit.posterior["posterior"].to_dataset()
    return {"log_likelihood": log_likelihood(fit.design, fit.family, posterior)}


def _log_prior(fit: PosteriorFit, _: int | None) -> dict[str, Dataset]:
    posterior = fit.posterior["posterior"].to_dataset()
    return {"log_prior": log_prior(posterior, fit.asked.priors)}


def _predictive(fit: PosteriorFit, seed: int | None) -> dict[str, Dataset]:
    rng = np.random.default_rng(seed)
    return {"posterior_predictive": posterior_predictive(fit.marginals.drawn, None, rng)}


def _parameters(fit: PosteriorFit, _: int | None) -> dict[str, Dataset]:
    draws = quantities(fit.posterior, include_b=False)
    index = fit.posterior["posterior"].to_dataset()[["chain", "draw"]]
    return {"parameters": index.assign({k: (("chain", "draw"), v) for k, v in draws.items()})}


_GROUPS: dict[str, Callable[[PosteriorFit, int | None], dict[str, Dataset]]] = {
    "posterior_predictive": _predictive,
    "log_likelihood": _log_likelihood,
    "log_prior": _log_prior,
    "prior": _of_priors,
    "prior_predictive": _of_priors,
    "constant_data": lambda fit, _: {"constant_data": predictors(fit.design)},
    "parameters": _parameters,
}
