"""The linear predictor of rows at point estimates, with its error, and draws around estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from ranef._typing import Array
from ranef.design.new_data.new_rows import NewRows, own_rows
from ranef.design.rows.rows import TermRows
from ranef.families.derivatives import differenced
from ranef.fits import bootstrap_table
from ranef.fits.engine import Engine
from ranef.fits.predictions import prediction_table
from ranef.likelihood import mixed_model_equations
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.predictions import (
    Draws,
    NormalRows,
    fixed_with_modes,
    linear_predictor,
    mean_over_groups,
    variance_of_new,
)
from ranef.posterior.draws import check_room

DRAWS = 1000  # around estimates, where no number is asked for
OBSERVATIONS = 4000  # that are drawn for the interval of one

type Solved = Callable[[], mixed_model_equations.MixedModelEquations]
type Replicate = tuple[Array, Array, list[Array], tuple[list[Array], list[Array]]]
"""Fixed effects, own parameters, a root of each covariance; modes and their covariances."""


def estimated_rows(
    model: FittedModel, rows: NewRows, solved: Solved | None, *, fixed: bool = True
) -> NormalRows:
    """Return the linear predictor of rows as one normal distribution, variances as if known.

    Parameters
    ----------
    model : FittedModel
    rows : NewRows
    solved : callable, optional
        Gives the mixed-model equations, which the errors of fixed effects that modes share need,
        and rows with known levels of several terms.
    fixed : bool
        Whether the errors of the fixed effects are there.

    Notes
    -----
    The variance is that of x'(beta-hat - beta) + z'(b-hat - b) by Henderson's mixed-model
    equations, which have the covariance of the two.
    """
    found = model.estimate
    known = [term for term in rows.terms if not term.is_new.all()]
    equations = solved() if solved is not None and known else None
    if len(known) > 1 and equations is not None:
        variance = equations.conditional_variances(known)
    else:
        variance = _own_variances(known, _by_label(model, found.b_cov), len(rows.X))
    if fixed:
        falls = {} if equations is None else _by_label(model, equations.modes_by_fixed)
        slopes = fixed_with_modes(rows, known if falls else (), falls)
        variance = variance + np.einsum("np,pq,nq->n", slopes, found.vcov, slopes)
    eta = linear_predictor(rows, rows.terms, found.beta, _by_label(model, found.b))
    return NormalRows(
        weights=np.ones(1),
        mean=eta[None],
        variance=np.maximum(variance, 0.0)[None],
        between=_between(model, rows, found.roots)[None],
        psi=np.array([[value] for value in model.parameters.values()]).reshape(-1, 1),
    )


def with_errors_of_variances(
    model: FittedModel,
    rows: NewRows,
    normal: NormalRows,
    replicates: Sequence[Replicate],
    *,
    average: bool,
) -> NormalRows:
    """Return the linear predictor with the errors of variance parameters among its own.

    Parameters
    ----------
    model : FittedModel
    rows : NewRows
    normal : NormalRows
        With fixed effects and variances as if known.
    replicates : sequence of Replicate
        Parameters that were estimated from simulated responses, and the effects at these.
    average : bool
        Whether the mean over groups is asked for. Its change is taken for one of the linear
        predictor of a typical group.

    Notes
    -----
    See `errors_of_effects`. Covariances of different terms given the parameters are those at the
    estimates.
    """
    family, n = model.family, len(rows.X)
    eta, between, psi = normal.mean[0], normal.between[0], normal.psi[:, 0]
    own = _own_variances(rows.terms, _by_label(model, model.estimate.b_cov), n)
    shared = normal.variance[0] - own
    mean, slope = mean_over_groups(family, eta, between, psi), np.ones(n)
    if average:
        over, between = between, np.zeros(n)
        slope = differenced(
            lambda at: mean_over_groups(family, at, over, psi), eta, family.link.step(eta)
        )[1]
    moved = []
    for beta, own_psi, roots, (modes, covs) in replicates:
        at = linear_predictor(rows, rows.terms, beta, _by_label(model, modes))
        of_groups = _between(model, rows, roots)
        spread = _own_variances(rows.terms, _by_label(model, covs), n)
        if average:
            at = eta + (mean_over_groups(family, at, of_groups, own_psi) - mean) / slope
        else:
            spread = spread + of_groups
        moved.append(([at[:, None]], [spread[:, None, None]]))
    total = bootstrap_table.errors_of_effects(
        [eta[:, None]], [(own + between)[:, None, None]], moved
    )[0][:, 0]
    return replace(normal, variance=(np.maximum(total - between, 0.0) + shared)[None])


def estimated_means(model: FittedModel, rows: NewRows) -> Array:
    """Return the means of rows at the estimates, over groups that are not known, shape (n,)."""
    normal = estimated_rows(model, rows, None, fixed=False)
    return mean_over_groups(model.family, normal.mean[0], normal.between[0], normal.psi[:, 0])


def means_of_likelihood(model: FittedModel) -> Array:
    """Return the means of the rows that the likelihood has, which may stand for more rows."""
    return estimated_means(model, own_rows(model.design, rows=model.design.distinct))


def intervals_around_estimates[F](
    model: FittedModel,
    engine: Engine[F] | None,
    asked: prediction_table.Question,
    draws_of: Callable[[NewRows], Array],
    *,
    fixed: bool,
    replicates: Sequence[Replicate] | None,
    said: str,
) -> prediction_table.Intervals:
    """Return the way to errors and intervals of rows.

    Parameters
    ----------
    model : FittedModel
    engine : Engine, optional
    asked : Question
    draws_of : callable
        Draws of what is asked of rows.
    fixed : bool
        Whether the errors of the fixed effects are there.
    replicates : sequence of Replicate, optional
        For the errors of the variances, and of the fixed effects with these.
    said : str
        Whose errors these are, in words.
    """
    average = asked.is_average and not model.family.mean_is_eta
    solved = None if engine is None else cache(lambda: engine.equations(model))

    def spread_of(rows: NewRows) -> prediction_table.Spread:
        normal = estimated_rows(model, rows, solved, fixed=fixed)
        if replicates is not None:
            normal = with_errors_of_variances(model, rows, normal, replicates, average=average)
        return prediction_table.spread_of_estimate(model.family, rows, normal, asked, draws_of)

    return prediction_table.Intervals(
        spread_of, OBSERVATIONS, f"{100 * (asked.prob or 0):g} % interval", said
    )


def estimated_draws[F](
    model: FittedModel, rows: NewRows, engine: Engine[F] | None, n: int, rng: np.random.Generator
) -> Draws:
    """Return n draws of fixed and random effects around their estimates, variances as if known.

    Parameters
    ----------
    model : FittedModel
    rows : NewRows
        Whose known groups alone have effects that are drawn.
    engine : Engine, optional
    n : int
    rng : Generator
    """
    found, design = model.estimate, model.design
    check_room(design, n)
    lengths, axes = np.linalg.eigh(found.vcov) if found.vcov.size else (np.empty(0), found.vcov)
    errors = rng.standard_normal((n, len(lengths))) @ (axes * np.sqrt(np.maximum(lengths, 0.0))).T
    draws = Draws.of_point(n, found.beta, model.parameters, found.roots, found.b)
    draws = replace(draws, beta=draws.beta + errors)
    if engine is not None and any(not term.is_new.all() for term in rows.terms):
        equations = engine.equations(model)
        apart, falls = equations.conditional_draws(n, rng), equations.modes_by_fixed
        b = [
            mode + e - np.einsum("np,mkp->nmk", errors, A)
            for mode, e, A in zip(draws.b, apart, falls, strict=True)
        ]
        return replace(draws, b=b)
    return draws


def _by_label(model: FittedModel, arrays: Sequence[Array]) -> dict[str, Array]:
    labels = (term.label for term in model.design.terms)
    return dict(zip(labels, arrays, strict=True))


def _between(model: FittedModel, rows: NewRows, roots: Sequence[Array]) -> Array:
    """Return the variance of the effects of new levels, shape (n,)."""
    factors = {label: root[None] for label, root in _by_label(model, roots).items()}
    return np.broadcast_to(variance_of_new(rows.terms, factors)[0], (len(rows.X),))


def _own_variances(terms: Sequence[TermRows], covs: Mapping[str, Array], n: int) -> Array:
    """Return the sum over terms of the variances of known effects given beta, shape (n,)."""
    variance = np.zeros(n)
    for term in terms:
        z = term.columns * ~term.is_new[:, None]
        variance += np.einsum("nk,nkl,nl->n", z, covs[term.label][term.codes], z)
    return variance
