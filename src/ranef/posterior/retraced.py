"""From draws on the user's scale back to the values and coordinates of a density."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranef._typing import Array
from ranef.likelihood.predictions import Draws
from ranef.posterior.generalized_posterior import Joint
from ranef.posterior.linear_posterior import Target
from ranef.posterior.transforms import Space


def values_of(target: Target | Joint, draws: Draws) -> Array:
    """Return the values of every draw, shape (draws, n_values), as `Space.values` has them.

    Parameters
    ----------
    target : Target or Joint
        The density whose values are wanted.
    draws : Draws
        Of the same model, on the user's scale.
    """
    space = target.space
    own = [draws.parameters[name] for name in _own_names(target)]
    sigma = np.ones(len(draws.beta)) if draws.sigma is None else draws.sigma
    columns = [_effects(target, draws.beta), *(column[:, None] for column in own), sigma[:, None]]
    for (k, correlated), F, change in zip(
        space.sizes, draws.factors, _changes(target), strict=True
    ):
        columns += _term(np.linalg.solve(change, F), k, correlated=correlated)
    found = np.concatenate(columns, axis=1)
    known = np.isfinite(space.known) & ~space.relative
    found[:, known] = space.known[known]
    return found


def points_of(space: Space, values: Array) -> Array:
    """Return the coordinates of values, shape (draws, d)."""
    return space.point(values, edge=0.0)


def _effects(target: Target | Joint, beta: Array) -> Array:
    """Return the effects that are coordinates, at centred predictors where priors hold there."""
    if isinstance(target, Joint):
        return np.linalg.solve(target.change, beta.T).T
    return np.linalg.solve(target.fixed.change, beta.T).T[:, target.fixed.order[1]]


def _own_names(target: Target | Joint) -> Sequence[str]:
    if isinstance(target, Target):
        return ()
    return target.space.names[target.p : target.space.n_given]


def _changes(target: Target | Joint) -> list[Array]:
    """Return what turns coefficients where the priors hold into the user's, term by term."""
    bases = target.cross.bases if isinstance(target, Target) else target.model.bases
    return [np.linalg.solve(T, A) for T, A in zip(bases, target.bases, strict=True)]


def _term(F: Array, k: int, *, correlated: bool) -> list[Array]:
    """Return sds, (draws, k), and partial correlations, (draws, k (k - 1) / 2), of factors."""
    sd = np.linalg.norm(F, axis=2)
    if not correlated or k == 1:
        return [sd]
    unit = F / sd[:, :, None]
    U = np.linalg.cholesky(unit @ unit.swapaxes(1, 2) + ROUNDING * np.eye(k))
    partial, rest = [], np.ones((len(F), k))
    for c in range(k - 1):
        ratio = np.clip(U[:, :, c] / rest, -1.0, 1.0)
        partial.append(ratio)
        rest = rest * np.sqrt(np.maximum(1.0 - ratio**2, np.finfo(np.float64).tiny))
    pairs = [partial[c][:, r] for r in range(1, k) for c in range(r)]
    return [sd, np.stack(pairs, axis=1)]


ROUNDING = 1e-14  # of a covariance matrix whose Cholesky factor is taken
