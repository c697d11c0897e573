"""Bayesian models in PyMC: the hierarchical model of a design, its table of priors, and NUTS.

PyTensor compiles every kind of operation separately, and on a model of this size compiling takes
longer than sampling. Hence the elementwise products and sums in place of matrix products, and
correlations built from independent Beta variables in place of PyMC's LKJ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from ranef._typing import Array, Dataset, DataTree
from ranef.arguments import Sampling, check_known
from ranef.design.design import Design, full_rank
from ranef.design.labels import KINDS, Dims, coordinates, labels
from ranef.design.rows.rows import Rows
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.posterior import mode
from ranef.posterior.linear_posterior import target_of
from ranef.posterior.sampling import pymc_starts
from ranef.posterior.sampling.nuts import numeric_statistics
from ranef.posterior.sampling.pymc_effects import random_effects
from ranef.posterior.sampling.pymc_text import model_class
from ranef.priors.assignment import Priors, TermPriors, resolve
from ranef.priors.distributions import Constant, Flat, Prior
from ranef.priors.random_variables import PriorPart, is_helper, parts

if TYPE_CHECKING:
    import pymc as pm

type PyMCModel = pm.Model  # for annotations where PyMC is not imported
type Variable = Any  # a PyTensor variable; PyMC's functions carry no types

FAMILY_PARAMETERS = "family_parameters"  # the coordinate that names the variables of a family
VALUES = "values"  # the variable from which a marginal model computes its likelihood
MIN_CENTRED_INFORMATION = 2.5  # times the prior: even at 2, at 1.3 tails of sd suffer, at 3 win
MIN_RELATIVE_WEIGHT = 1e-10  # of a row, relative to the largest
MIN_RELATIVE_VARIANCE = 1e-15  # of a coefficient after the rows, relative to the one before


def hierarchical(
    design: Design,
    priors: Priors,
    family: Family = GAUSSIAN,
    *,
    centered: bool | Mapping[str, bool] = False,
    rows: Rows | None = None,
) -> pm.Model:
    """Build the textbook model with explicit random effects.

    Parameters
    ----------
    design : Design
        Response, matrices and names.
    priors : Priors
        A prior for every parameter, from `ranef.priors.resolve`.
    family : Family
    centered : bool or mapping of str to bool
        Whether the random effects are sampled as they are; by the label of a term, or for all
        terms. By default the sampler moves in standard normal numbers that are scaled, which suits
        groups with few rows; with many rows in every group `centered=True` can be faster.
        `ranef.posterior.sampling.pymc_hierarchical.choose` says which.
    rows : Rows, optional
        Those that the likelihood reads, by default the design's.

    Returns
    -------
    pymc.Model
        Variables, all in the user's units, on the scale of the linear predictor: `beta` (fixed),
        `sigma` where the family has it, its other parameters under their names, and for each term
        `sd_<term>` (<term>_coef), `corr_<term>` (<term>_coef, <term>_coef_bis) if it is
        correlated, `b_<term>` (<term>, <term>_coef); and the observed `y` (obs). Where priors
        hold at centred predictors, the random variable is `at_mean_beta`; where those of a term
        hold at the observed predictors nearest to zero, `nearest_sd_<term>` and so on; where one
        is of sd / sigma, `relative_sd_<term>`. Dimensions whose name is taken get underscores
        appended.

    Raises
    ------
    FitError
        If the family has no `pymc`, or `centered` names a term that there is not.
    """
    import pymc as pm

    if family.pymc is None:
        raise FitError(
            f"the family {family.name!r} cannot be sampled with PyMC: give it `pymc`, a function "
            "of (pm, name, link, eta, w, *parameters, observed=, dims=) that adds the likelihood."
        )
    is_centered = _centered(design, centered)
    dims, coords = coordinates(design, family)
    psi_priors = {"sigma": priors.sigma, **dict(priors.parameters)}
    rows = design.distinct if rows is None else rows
    coords |= {"obs": labels(rows.index), FAMILY_PARAMETERS: family.parameters}
    with model_class()(priors.rows(), coords=coords) as model:
        offset, X = rows.offset, rows.X
        summands = [pm.Data("offset", offset, dims="obs")] if design.has_offset else []
        if design.fixed:
            X = pm.Data("X", X, dims=("obs", "fixed"))
            summands.append((X * _fixed_effects(priors)).sum(-1))
        psi = {
            own.name: random_variable(own.name, [psi_priors[own.name]], is_real=own.is_real)
            for own in family.records
        }
        for term, term_priors in zip(rows.terms, priors.terms, strict=True):
            label, sigma = term.label, psi.get("sigma", 1.0)
            b = _random_effects(term_priors, sigma, dims[label], centered=is_centered[label])
            Z = pm.Data(f"Z_{label}", term.columns, dims=("obs", dims[label][1]))
            index = pm.Data(f"index_{label}", term.codes, dims="obs")
            summands.append((Z * b[index]).sum(-1))
        eta = reduce(add, summands) if summands else np.zeros(len(rows.y))
        likelihood = {"observed": rows.y, "dims": "obs"}
        family.pymc(pm, "y", family.link, eta, rows.weights, *psi.values(), **likelihood)
    return model


def _centered(design: Design, centered: bool | Mapping[str, bool]) -> dict[str, bool]:
    """Return for each term whether its random effects are sampled as they are."""
    labels = [term.label for term in design.terms]
    by_label = centered if isinstance(centered, Mapping) else dict.fromkeys(labels, centered)
    check_known(
        by_label, labels, lambda label: f"centered: there is no random-effects term {label!r}."
    )
    values: list[object] = list(by_label.values())
    if wrong := [value for value in values if not isinstance(value, bool)]:
        raise FitError(
            "`centered` is True or False, or a dict of these from the label of a term, "
            f"got {wrong[0]!r}."
        )
    return {label: by_label.get(label, False) for label in labels}


def check_users_model(pymc_model: object, *, log_likelihood: bool) -> None:
    """Refuse a user's model that is none of PyMC's, or whose likelihood is not known here.

    Raises
    ------
    FitError
    """
    if pymc_model is None:
        return
    if not hasattr(pymc_model, "named_vars"):
        raise FitError(f"`pymc_model` must be a model from to_pymc(), got {pymc_model!r}.")
    if log_likelihood:
        raise FitError(
            "log_likelihood=True is for the model as it is; for a PyMC model of your own use "
            "pymc.compute_log_likelihood."
        )


def sample_pymc(model: pm.Model, settings: Sampling, starts: Dataset | None = None) -> DataTree:
    """Draw from the posterior with the no-U-turn sampler of nutpie.

    Parameters
    ----------
    model : pymc.Model
        A model from `hierarchical`.
    settings : Sampling
    starts : Dataset, optional
        Draws by the names of variables, for chains to start at; by default where PyMC has them.

    Returns
    -------
    xarray.DataTree
        Groups `posterior` (chain, draw, ...), `sample_stats` and `observed_data`.

    Raises
    ------
    FitError
        If the chains cannot start.
    """
    import nutpie
    from pytensor.configdefaults import config

    kept = _kept(model)
    # With fast maths the last bits depend on whether a kernel was compiled or came from the cache,
    # and after some steps so do the draws.
    with config.change_flags(numba__fastmath=False):
        compiled = nutpie.compile_pymc_model(model, var_names=kept)
    # The intercept and the mean of many effects go together, which a diagonal metric cannot follow
    metric = "diag" if VALUES in model.named_vars else "low_rank"
    options = settings.of_nutpie() | {"adaptation": metric}
    return _tree(model, pymc_starts.sample(model, compiled, starts, **options), kept)


def _kept(model: pm.Model) -> list[str]:
    """Return the variables that are stored: the posterior's, all others that are free, a user's."""
    psi = model.coords.get(FAMILY_PARAMETERS, ())
    kinds = dict.fromkeys((*KINDS[:2], *psi, *KINDS[2:]))  # beta and sigma come first
    kind_of = {n: n if n in psi else n.split("_", 1)[0] for n in model.named_vars}
    parameters = [name for kind in kinds for name in kind_of if kind_of[name] == kind]
    computed = (v.name for v in model.deterministics if not is_helper(v.name))
    variables = (*(v.name for v in model.free_RVs), *computed)
    return parameters + [v for v in variables if v not in parameters]


def _tree(model: pm.Model, tree: DataTree, kept: Sequence[str]) -> DataTree:
    import xarray as xr

    groups = {
        "posterior": tree["posterior"].to_dataset()[list(kept)],
        "sample_stats": numeric_statistics(tree),
    }
    if any(v.name == "y" for v in model.observed_RVs):  # not so in a marginal model
        y = {"y": ("obs", model.rvs_to_values[model["y"]].data)}
        groups["observed_data"] = xr.Dataset(y, coords={"obs": list(model.coords["obs"])})
    return xr.DataTree.from_dict(groups)


# Fixed and random effects


def _fixed_effects(priors: Priors) -> Variable:
    import pymc as pm

    if priors.change is None:
        return random_vector("beta", priors.beta, "fixed")
    at_mean = random_vector("at_mean_beta", priors.beta, "fixed")
    return pm.Deterministic("beta", (priors.change * at_mean).sum(-1), dims="fixed")


def _random_effects(priors: TermPriors, sigma: Variable, dims: Dims, *, centered: bool) -> Variable:
    """Return b (m, k), in the user's units."""
    import pymc as pm

    label, prefix = priors.label, priors.prefix
    sd, unit = standard_deviations(priors, sigma, dims[1]), correlation_factor(priors)
    if unit is None:
        return random_effects(f"b_{label}", sd, dims[:2], centered=centered)
    factor = sd[:, None] * unit
    b = random_effects(f"{prefix}b_{label}", factor, dims[:2], centered=centered)
    add_covariance(priors, sd, unit, dims)
    if priors.change is None:
        return b
    return pm.Deterministic(f"b_{label}", (b[:, None, :] * priors.change).sum(-1), dims=dims[:2])


def add_covariance(priors: TermPriors, sd: Variable, unit: Variable, dims: Dims) -> None:
    """Add the correlations of a term to the model, and its sds where others have the priors."""
    import pymc as pm

    label = priors.label
    if (change := priors.change) is not None:
        factor = (change[:, :, None] * (sd[:, None] * unit)).sum(1)
        sd = pm.Deterministic(f"sd_{label}", (factor**2).sum(-1) ** 0.5, dims=dims[1])
        unit = factor / sd[:, None]
    pm.Deterministic(f"corr_{label}", (unit[:, None, :] * unit).sum(-1), dims=dims[1:])


def standard_deviations(priors: TermPriors, sigma: Variable, dim: str) -> Variable:
    """Return the sd of each coefficient of a term, some of which may be one."""
    import pymc as pm

    covariance, name = priors.covariance, f"{priors.prefix}sd_{priors.label}"
    if priors.free_sds == name:
        return random_vector(name, priors.sd, dim, sigma)
    own = f"{priors.free_sds}_dim"
    pm.modelcontext(None).add_coord(own, covariance.sd_coefs(priors.coefs))
    free = random_vector(priors.free_sds, priors.sd, own, sigma)
    group_of = {j: i for i, group in enumerate(covariance.sd_groups) for j in group}
    return pm.Deterministic(name, free[[group_of[j] for j in sorted(group_of)]], dims=dim)


def correlation_factor(priors: TermPriors) -> Variable | None:
    """Return the Cholesky factor (k, k) of a term's correlations; None if they are zero."""
    import pymc as pm
    import pytensor.tensor as pt

    covariance, prior = priors.covariance, priors.corr
    if prior is None:
        return None
    shapes = covariance.correlation_shapes(prior.eta)
    free = 2.0 * pm.Beta(f"partial_corr_{priors.label}", shapes, shapes) - 1.0
    partial = iter(covariance.partials([free[i] for i in range(len(shapes))]))
    entries: list[Any] = []
    k = covariance.k
    for row in range(k):
        rest = pt.constant(1.0)
        for correlation in (next(partial) for _ in range(row)):
            entries.append(correlation * rest**0.5)
            rest = rest * (1.0 - correlation**2)
        entries += [rest**0.5, *[pt.constant(0.0)] * (k - row - 1)]
    return pt.stack(entries).reshape((k, k))


def random_vector(
    name: str, priors: Sequence[Prior], dim: str, sigma: Variable | None = None
) -> Variable:
    """Return one variable if the priors are of a kind; if not, one for each kind, reassembled."""
    import pymc as pm
    import pytensor.tensor as pt

    found = parts(name, dim, priors)
    variables = [random_part(part) for part in found]
    if found[0].name == name:
        return variables[0]
    elements: dict[int, Variable] = {}
    for part, variable in zip(found, variables, strict=True):
        scaled = sigma * variable if part.relative else variable
        elements |= {i: scaled[j] for j, i in enumerate(part.places)}
    return pm.Deterministic(name, pt.stack([elements[i] for i in range(len(priors))]), dims=dim)


def random_part(part: PriorPart) -> Variable:
    """Add the variable of the elements of a vector that have priors of one kind."""
    import pymc as pm

    model = pm.modelcontext(None)
    if part.dim not in model.coords:
        labels_of_whole = model.coords[part.whole]
        model.add_coord(part.dim, [labels_of_whole[i] for i in part.places])
    return random_variable(part.name, part.priors, part.dim)


def random_variable(
    name: str, priors: Sequence[Prior], dim: str | None = None, *, is_real: bool = False
) -> Variable:
    """Return one variable for priors of one kind: a number, or with `dim` a vector."""
    import pymc as pm
    import pytensor.tensor as pt

    kind = type(priors[0])
    # as float64: PyTensor makes single precision of Python's numbers
    numbers: dict[str, Any] = {
        f.name: np.array([getattr(prior, f.name) for prior in priors], np.float64)
        for f in fields(kind)
    }
    if dim is None:
        numbers = {field: values[0] for field, values in numbers.items()}
    if kind is Constant:
        return pm.Deterministic(name, pt.constant(numbers["value"]), dims=dim)
    if kind is Flat:
        is_real = is_real or name.removeprefix("flat_").removeprefix("at_mean_") == "beta"
        return (pm.Flat if is_real else pm.HalfFlat)(name, dims=dim)
    return getattr(pm, kind.__name__)(name, **numbers, dims=dim)


# The form of the random effects


@dataclass(frozen=True)
class Choice:
    """How the random effects of a term are sampled.

    Attributes
    ----------
    label : str
        The label of the term.
    centered : bool
        Whether the random effects are sampled as they are.
    reason : str
        The information that decided it, in a sentence.
    """

    label: str
    centered: bool
    reason: str


def choose(design: Design, family: Family) -> tuple[Choice, ...]:
    """Choose for each term between the centred and the non-centred form.

    Parameters
    ----------
    design : Design
    family : Family

    Returns
    -------
    tuple of Choice
        In the order of the terms. A term is centred where the rows of half of the levels have
        `MIN_CENTRED_INFORMATION` times the information of the prior, for each coefficient.

    Raises
    ------
    DataError
        If no starting values are found.

    Notes
    -----
    The information in rows, in units of the prior, is the variance of a coefficient before them
    over its variance after them, less one: I tau^2 in the simplest case. Both are variances in a
    linear mixed model for the working response, which has the slope and the expected curvature of
    the log-likelihood at the fit without random effects.

    Examples
    --------
    >>> import ranef as rf
    >>> formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    >>> model = rf.Model(formula, rf.load_dataset("cbpp"), family="binomial")
    >>> print(choose(model.design, model.family)[0].reason)
    herd: centred (a level has information worth 3 times its prior; non-centred below 2.5)
    """
    estimate = _estimate(design, family)
    return tuple(
        _choice(term.label, _information(estimate.sigma**2 * Lambda @ Lambda.T, after))
        for term, Lambda, after in zip(design.terms, estimate.Lambdas, estimate.b_cov, strict=True)
    )


def _choice(label: str, information: float) -> Choice:
    limit = MIN_CENTRED_INFORMATION
    centered = information >= limit
    form, other = ("centred", "non-centred below") if centered else ("non-centred", "centred from")
    reason = f"a level has information worth {information:.2g} times its prior; {other} {limit:g}"
    return Choice(label, centered, f"{label}: {form} ({reason})")


def _information(before: Array, after: Array) -> float:
    """Return the information of the rows of a level from covariances (k, k) and (m, k, k)."""
    before, after = np.diag(before), np.diagonal(after, axis1=1, axis2=2)
    least = MIN_RELATIVE_VARIANCE * before + np.finfo(float).tiny
    gains = before / np.maximum(after, least) - 1
    return float(np.median(np.maximum(gains, 0.0), axis=0).min())


def _estimate(design: Design, family: Family) -> Estimate:
    """Return the estimate of a linear model for the working response.

    Its scale is one, as the weights have it, but for families with parameters of their own: these
    were estimated without random effects, and are wrong where there are large ones.
    """
    design = full_rank(design)
    model = prepare(design, family)
    eta, psi = model.cells.spread(model.offset + model.X @ model.gamma), model.psi
    rows = design.distinct
    score = family.expansion(rows.y, eta, rows.weights, psi).score
    W = family.information(eta, rows.weights, psi)
    W = np.clip(W, MIN_RELATIVE_WEIGHT * W.max(), None)
    working = design.with_rows(y=eta + score / W, weights=W)
    priors = resolve(working, "flat")
    if not family.parameters:
        priors = replace(priors, sigma=Constant(1.0))
    columns = range(len(working.fixed))
    return mode.posterior_mode(target_of(working, cross_products(working), columns, priors))
