"""A posterior of draws: the container that ArviZ takes, and the marginals of each parameter.

A posterior is a weighted mixture of normal distributions: a node of a lattice is one of them, the
effects given the variances, and a draw is one without width. Both answer to `Marginals`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import pandas as pd
import scipy

from ranef._typing import Array, Dataset, DataTree, Places
from ranef.arguments import check_known
from ranef.covariances.partial_correlations import cholesky_of_correlations, correlations
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import by_row, coordinates, named, observed
from ranef.design.new_data.new_rows import NewRows
from ranef.errors import FitError, probability
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.likelihood.predictions import (
    Draws,
    NormalRows,
    drawn_responses,
    linear_predictors,
    variance_of_new,
)
from ranef.numerics import markov_chains
from ranef.numerics.matrices import read_only
from ranef.numerics.memory import check_memory
from ranef.posterior.transforms import log_pdf
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Constant, Prior
from ranef.priors.random_variables import is_helper, parts

TAILS = (0.05, 0.95)
MIN_DRAWS = 4  # of a chain, of which a sample size can be estimated
DRAW_COPIES = 2  # of the draws of all effects, while they are made
MIN_WEIGHTED = 100  # draws of all chains together: fewer have no tail that importance weights need


class Marginals(Protocol):
    """The marginal posteriors of all parameters, from nodes of a lattice or from draws."""

    @property
    def drawn(self) -> DrawnMarginals:
        """The posterior as draws."""

    @property
    def chains(self) -> int | None:
        """The number of Markov chains; None where draws are independent."""

    @property
    def size(self) -> list[str]:
        """How many draws the numbers rest on, in words; empty where they rest on none."""

    def parameter(self, name: str) -> Array:
        """Return a parameter of the family, such as sigma, at every point, shape (points,)."""

    def sds(self, term: RandomTerm) -> Array:
        """Return the standard deviations of a term at every point, shape (points, k)."""

    def correlations(self, term: RandomTerm) -> Array:
        """Return the correlations of a term, shape (points, k, k), or (1, k, k) where known."""

    def expected(self, values: Array) -> Array:
        """Return the posterior mean of something known at every point, shape (points, ...)."""

    @property
    def fixed_moments(self) -> tuple[Array, Array]:
        """The posterior mean and covariance of the fixed effects."""

    @property
    def effect_moments(self) -> list[tuple[Array, Array]]:
        """The posterior mean and sd of the random effects, shape (m, k), term by term."""

    def effect_hdi(self, prob: float) -> list[tuple[Array, Array]]:
        """Return the bounds of highest density intervals of the random effects, shape (m, k)."""

    def table(self, prob: float) -> pd.DataFrame:
        """Return mean, sd and highest density interval of every parameter, and what draws add."""

    @property
    def n_points(self) -> int:
        """How many numbers the posterior of a row is made of."""

    def normal_rows(self, rows: NewRows) -> NormalRows:
        """Return the posterior of the linear predictor of rows, a mixture of normals."""


def covariances_of(marginals: Marginals, term: RandomTerm) -> Array:
    """Return the covariance of a term's effects at each point, shape (points, k, k)."""
    sds = marginals.sds(term)
    return marginals.correlations(term) * sds[:, :, None] * sds[:, None, :]


@dataclass(frozen=True, eq=False, repr=False)
class DrawnMarginals:
    """The marginal posteriors of all parameters from draws.

    Attributes
    ----------
    design : Design
    family : Family
    tree : xarray.DataTree
        Groups `posterior`, `observed_data` and, by MCMC, `sample_stats`.
    independent : bool
        Whether the draws are independent, as draws of Markov chains are not.
    """

    design: Design
    family: Family
    tree: DataTree
    independent: bool = False

    def __post_init__(self) -> None:
        for node in self.tree.subtree:
            for name in node.data_vars:
                read_only(node[str(name)].to_numpy())

    @property
    def drawn(self) -> DrawnMarginals:
        """The draws themselves."""
        return self

    @property
    def chains(self) -> int | None:
        """The number of Markov chains; None where draws are independent."""
        return None if self.independent else int(self.tree["posterior"].sizes["chain"])

    @property
    def size(self) -> list[str]:
        """How many draws there are, in words."""
        chains, draws = (self.tree["posterior"].sizes[dim] for dim in ("chain", "draw"))
        if self.independent:
            return [f"{chains * draws} draws"]
        return [f"{chains} chains of {draws} draws"]

    @property
    def n_draws(self) -> int:
        """The number of draws of all chains together."""
        sizes = self.tree["posterior"].sizes
        return int(sizes["chain"] * sizes["draw"])

    def variable(self, name: str) -> Array:
        """Return the draws of one variable, all chains together, shape (draws, ...).

        Raises
        ------
        FitError
            If there is no such variable.
        """
        group = self.tree["posterior"]
        check_known([name], group.data_vars, lambda _: f"the posterior has no variable {name!r}.")
        values = group[name].to_numpy()
        return np.asarray(values.reshape(-1, *values.shape[2:]))

    def parameter(self, name: str) -> Array:
        """Return the draws of a parameter of the family, shape (draws,)."""
        return self.variable(name)

    @property
    def beta(self) -> Array:
        """The draws of the fixed effects, shape (draws, p)."""
        return self.variable("beta") if self.design.fixed else np.empty((self.n_draws, 0))

    def sds(self, term: RandomTerm) -> Array:
        """Return the standard deviations of a term, shape (draws, k)."""
        return self.variable(f"sd_{term.label}")

    def correlations(self, term: RandomTerm) -> Array:
        """Return the correlations of a term, shape (draws, k, k); (1, k, k) where it has none."""
        if not term.covariance.has_correlations:
            return np.eye(term.n_coefs)[None]
        return self.variable(f"corr_{term.label}")

    def effects(self, term: RandomTerm) -> Array:
        """Return the draws of a term's random effects, shape (draws, m, k)."""
        return self.variable(f"b_{term.label}")

    def expected(self, values: Array) -> Array:
        """Return the mean over draws."""
        return np.asarray(values.mean(axis=0))

    @property
    def fixed_moments(self) -> tuple[Array, Array]:
        """Mean and covariance of the fixed effects."""
        p = len(self.design.fixed)
        if not p:
            return np.empty(0), np.empty((0, 0))
        return self.beta.mean(axis=0), np.cov(self.beta, rowvar=False).reshape(p, p)

    @property
    def effect_moments(self) -> list[tuple[Array, Array]]:
        """Mean and sd of the random effects, shape (m, k), term by term."""
        draws = map(self.effects, self.design.terms)
        return [(b.mean(axis=0), b.std(axis=0, ddof=1)) for b in draws]

    def effect_hdi(self, prob: float) -> list[tuple[Array, Array]]:
        """Return the bounds of highest density intervals of the random effects, shape (m, k)."""
        return [hdi(self.effects(term)[None], prob) for term in self.design.terms]

    def table(self, prob: float) -> pd.DataFrame:
        """Return the table of `summarise`; of independent draws without what chains have."""
        table = summarise(self.tree, prob)
        return table[["mean", "sd", "lower", "upper"]] if self.independent else table

    @property
    def n_points(self) -> int:
        """The number of draws."""
        return self.n_draws

    def normal_rows(self, rows: NewRows) -> NormalRows:
        """Return the linear predictor of rows at the draws, without width but for new groups."""
        draws = self.draws_at()
        labels_of_terms = [term.label for term in self.design.terms]
        b = dict(zip(labels_of_terms, draws.b, strict=True))
        factors = dict(zip(labels_of_terms, draws.factors, strict=True))
        blocks = linear_predictors(rows, rows.terms, draws.beta, b)
        mean, between = np.vstack([eta for _, eta in blocks]), variance_of_new(rows.terms, factors)
        draws_of_psi = [self.parameter(name) for name in self.family.parameters]
        return NormalRows(
            weights=np.full(len(mean), 1 / len(mean)),
            mean=mean,
            variance=np.zeros((1, 1)),
            between=between,
            psi=np.array([*draws_of_psi]).reshape(len(draws_of_psi), len(mean)),
        )

    def draws_at(self, chosen: Places | slice = slice(None)) -> Draws:
        """Return some draws of all parameters, by default all of them, chain after chain."""
        parameters = {name: self.variable(name)[chosen] for name in self.family.parameters}
        terms = self.design.terms
        return Draws(
            beta=self.beta[chosen],
            sigma=parameters.pop("sigma", None),
            factors=[
                (self.sds(t)[:, :, None] * cholesky_of_correlations(self.correlations(t)))[chosen]
                for t in terms
            ],
            b=[self.effects(t)[chosen] for t in terms],
            parameters=parameters,
        )


def check_room(design: Design, n: int) -> None:
    """Refuse more draws of all effects than there is memory for.

    Raises
    ------
    FitError
    """
    effects = len(design.fixed) + sum(term.n_levels * term.n_coefs for term in design.terms)
    check_memory(
        DRAW_COPIES * float(n) * effects,
        f"{n:,} draws of {effects:,} fixed and random effects",
        "Take fewer draws (`draws=`, `chains=`), or a point estimate.",
    )


def enough(posterior: Marginals) -> DrawnMarginals:
    """Return the draws of a posterior, or refuse too few of them to be weighted anew.

    Raises
    ------
    FitError
    """
    drawn = posterior.drawn
    if drawn.n_draws < MIN_WEIGHTED:
        raise FitError(
            f"{drawn.n_draws} draws are too few for importance sampling, which leave-one-out "
            f"scores and marginal likelihoods use here: {MIN_WEIGHTED} are needed, better 4000 "
            "(`draws=` and `chains=`)."
        )
    return drawn


def tree(
    design: Design,
    draws: Draws,
    chains: int,
    stats: Dataset | None = None,
    extra: Dataset | None = None,
    *,
    family: Family = GAUSSIAN,
    priors: Priors | None = None,
) -> DataTree:
    """Return draws with the user's names and labels.

    Parameters
    ----------
    design : Design
    draws : Draws
        Of all chains together, one chain after the other.
    chains : int
    stats : xarray.Dataset, optional
        What the sampler says of the draws.
    extra : xarray.Dataset, optional
        Draws of further variables.
    family : Family
        Which has a sigma or not, and parameters of its own.
    priors : Priors, optional
        With these the variables of the PyMC model that have them are there too.

    Returns
    -------
    xarray.DataTree
        Groups `posterior`, `observed_data` and, with `stats`, `sample_stats`.
    """
    import xarray as xr

    variables: dict[str, Array] = {"beta": draws.beta, **draws.parameters}
    if draws.sigma is not None:
        variables["sigma"] = draws.sigma
    for term, F, b in zip(design.terms, draws.factors, draws.b, strict=True):
        sd = np.linalg.norm(F, axis=2)
        variables |= {f"b_{term.label}": b, f"sd_{term.label}": sd}
        if term.covariance.has_correlations:
            variables[f"corr_{term.label}"] = correlations(F / sd[:, :, None])
    by_chain = {name: _by_chain(values, chains) for name, values in variables.items()}
    posterior = named(design, by_chain, family)
    if priors is not None:
        free = free_variables(design, draws, chains, family, priors)
        posterior = posterior.assign({n: v for n, v in free.items() if n not in posterior})
    if extra is not None:
        posterior = posterior.assign(extra.data_vars)
    groups = {"posterior": posterior}
    if design.has_rows:
        groups["observed_data"] = observed(design.rows)
    return xr.DataTree.from_dict(groups if stats is None else groups | {"sample_stats": stats})


def free_variables(
    design: Design, draws: Draws, chains: int, family: Family, priors: Priors
) -> Dataset:
    """Return the random variables of the PyMC model behind draws, by chain and draw.

    A variable of the posterior is among them where it has a prior itself, as `sd_Subject` has; for
    others it is what they are computed from, as `at_mean_beta` for `beta`.
    """
    import xarray as xr

    dims, coords = coordinates(design, family)
    found: dict[str, tuple[tuple[str, ...], Array]] = {}
    used: dict[str, list[Any]] = {}

    def add(name: str, dim: str, of: Sequence[Prior], values: Array) -> None:
        for part in parts(name, dim, of):
            if not isinstance(part.priors[0], Constant):
                scale = draws.sigma[:, None] if part.relative and draws.sigma is not None else 1.0
                found[part.name] = (part.dim,), values[:, list(part.places)] / scale
                used[part.dim] = [coords[dim][i] for i in part.places]

    name = "at_mean_beta" if priors.centred else "beta"
    add(
        name, "fixed", priors.beta, _where_priors_hold(priors.change, draws.beta[..., None])[..., 0]
    )
    for term, F, b in zip(priors.terms, draws.factors, draws.b, strict=True):
        label, prefix = term.label, term.prefix
        sd, partial = term.covariance.sds_and_correlations(_where_priors_hold(term.change, F))
        dim = dims[label][1]
        if term.covariance.n_sds < term.covariance.k:
            dim = f"{term.free_sds}_dim"
            coords[dim] = list(term.covariance.sd_coefs(term.coefs))
        add(term.free_sds, dim, term.sd, sd)
        if term.covariance.has_correlations:
            share = f"partial_corr_{label}"  # of the way from -1 to 1
            found[share] = (f"{share}_dim_0",), (1 + partial) / 2
        moved = _where_priors_hold(term.change, b.swapaxes(1, 2)).swapaxes(1, 2)
        found[f"{prefix}b_{label}"] = dims[label][:2], moved
    by_chain = {
        name: (("chain", "draw", *dims), _by_chain(values, chains))
        for name, (dims, values) in found.items()
    }
    return xr.Dataset(by_chain, used)


def log_prior(posterior: Dataset, priors: Priors) -> Dataset:
    """Return the log prior density of every random variable but the random effects.

    The distribution of random effects is a part of the model: whoever scales the priors, as
    ArviZ's `psense` does, leaves it as it is.

    Parameters
    ----------
    posterior : xarray.Dataset
        Draws of the variables of `free_variables` and of the family's own parameters.
    priors : Priors

    Returns
    -------
    xarray.Dataset
        Variables and dimensions as in the posterior: what `pymc.compute_log_prior` returns.
    """
    import xarray as xr

    densities: dict[str, xr.DataArray] = {}

    def add(name: str, of: Sequence[Prior], *, positive: bool) -> None:
        for part in parts(name, name, of):
            if isinstance(part.priors[0], Constant):
                continue
            values = posterior[part.name]
            columns = values.to_numpy().reshape(*values.shape[:2], -1)
            log_density = np.empty(columns.shape)
            for i, prior in enumerate(part.priors):
                log_density[..., i] = log_pdf(prior, columns[..., i], positive=positive)
            densities[part.name] = values.copy(data=log_density.reshape(values.shape))

    add("at_mean_beta" if priors.centred else "beta", priors.beta, positive=False)
    for name, prior in priors.parameters:
        add(name, [prior], positive=name not in priors.real_parameters)
    add("sigma", [priors.sigma], positive=True)
    for term in priors.terms:
        add(term.free_sds, term.sd, positive=True)
        if term.corr is not None:
            shares = posterior[name := f"partial_corr_{term.label}"]
            shape = term.covariance.correlation_shapes(term.corr.eta)
            log_density = scipy.stats.beta.logpdf(shares.to_numpy(), shape, shape)
            densities[name] = shares.copy(data=log_density)
    return xr.Dataset(densities)


def posterior_predictive(
    posterior: DrawnMarginals, n: int | None, rng: np.random.Generator
) -> Dataset:
    """Draw responses of the rows of the data, given draws of all parameters and effects.

    Parameters
    ----------
    posterior : DrawnMarginals
    n : int, optional
        How many draws are used, at equal distances; by default all, which keep their chains.
    rng : numpy.random.Generator

    Returns
    -------
    xarray.Dataset
        Variable `y` (chain, draw, obs).
    """
    draws = posterior.tree["posterior"]
    chains, size = draws.sizes["chain"], draws.sizes["draw"]
    chosen: Any = slice(None)
    if n is not None:
        chains, size = 1, n
        chosen = np.linspace(0, posterior.n_draws - 1, n).round().astype(np.intp)
    y = drawn_responses(
        posterior.design, posterior.family, posterior.draws_at(chosen), rng, new=False
    )
    return by_row(posterior.design.rows, y.T.reshape(chains, size, -1))


def _by_chain(values: Array, chains: int) -> Array:
    """Return draws of all chains, one after the other, as an array (chains, draws, ...)."""
    return values.reshape(chains, len(values) // chains, *values.shape[1:])


def _where_priors_hold(change: Array | None, values: Array) -> Array:
    """Return coefficients where the priors hold, from the user's, shape (draws, k, columns)."""
    return values if change is None else np.linalg.solve(change, values)


def summarise(tree: DataTree, prob: float = 0.95, *, include_b: bool = False) -> pd.DataFrame:
    """Tabulate the posterior.

    Parameters
    ----------
    tree : xarray.DataTree
        With a group `posterior`, dimensions (chain, draw, ...).
    prob : float
        Probability of the highest posterior density intervals.
    include_b : bool
        Whether to list the random effects too.

    Returns
    -------
    DataFrame
        Index `Days`, `sigma`, `sd_Subject[Days]`, `corr_Subject[Intercept, Days]` and so on;
        columns `mean`, `sd`, `lower`, `upper`, `ess_bulk`, `ess_tail`, `r_hat`, `mcse_mean`; the
        last four nan of what is known, and of fewer than four draws.

    Raises
    ------
    FitError
        If `prob` does not lie between 0 and 1.
    """
    draws = quantities(tree, include_b=include_b)
    values = np.stack(list(draws.values()), axis=-1)
    lower, upper = hdi(values, prob)
    columns = {
        "mean": values.mean((0, 1)),
        "sd": values.std((0, 1), ddof=min(1, values[..., 0].size - 1)),
        "lower": lower,
        "upper": upper,
        "ess_bulk": statistic(markov_chains.ess_bulk, values),
        "ess_tail": statistic(partial(markov_chains.ess_tail, tails=TAILS), values),
        "r_hat": statistic(markov_chains.rhat, values),
        "mcse_mean": statistic(markov_chains.mcse_mean, values),
    }
    return pd.DataFrame(columns, index=list(draws))


def hdi(draws: Array, prob: float = 0.95) -> tuple[Array, Array]:
    """Return the bounds of highest posterior density intervals.

    Parameters
    ----------
    draws : ndarray, shape (chain, draw, ...)
    prob : float
        Probability inside the interval.

    Returns
    -------
    lower, upper : ndarray, shape (...)
        The shortest interval with that share of the draws.

    Raises
    ------
    FitError
        If `prob` does not lie between 0 and 1.

    Examples
    --------
    >>> draws = np.random.default_rng(1).exponential(size=(4, 25_000))
    >>> lower, upper = hdi(draws, 0.5)
    >>> bool(lower < 0.01 and abs(upper - np.log(2)) < 0.02)
    True
    """
    return markov_chains.shortest_interval(draws, probability(prob))


def quantities(tree: DataTree, *, include_b: bool) -> dict[str, Array]:
    """Return the draws (chain, draw) of every number, each correlation once."""
    posterior = tree["posterior"].to_dataset()
    kept = (v for v in map(str, posterior.data_vars) if not is_helper(v))
    kept = (v for v in kept if include_b or not v.startswith("b_"))
    return {label: draws for name in kept for label, draws in _elements(posterior, name)}


def _elements(posterior: Dataset, name: str) -> Iterator[tuple[str, Array]]:
    values: Any = posterior[name].to_numpy()
    labels = [posterior[dim].to_numpy().tolist() for dim in posterior[name].dims[2:]]
    indices: Any = np.ndindex(values.shape[2:])
    if name.startswith("corr_"):
        indices = combinations(range(len(labels[0])), 2)
    for index in indices:
        names = [str(names_of_dim[i]) for names_of_dim, i in zip(labels, index, strict=True)]
        inside = f"[{', '.join(names)}]" if names else ""
        plain = name == "beta" and names[0] not in posterior.data_vars
        yield (names[0] if plain else f"{name}{inside}"), values[:, :, *index]


def statistic(of: Callable[[Array], Array], values: Array) -> Array:
    """Return a statistic of each number (chain, draw, number), where it has a meaning."""
    statistics = np.full(values.shape[-1], np.nan)
    varies = np.ptp(values, axis=(0, 1)) > 0
    if values.shape[1] >= MIN_DRAWS and varies.any():
        statistics[varies] = of(values[..., varies])
    return statistics
