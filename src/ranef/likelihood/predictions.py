"""The response given draws of a posterior: means, log densities and simulated rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ranef._typing import Array
from ranef.design.design import Design, NewRows, Rows, TermRows
from ranef.design.labels import by_row
from ranef.families.family import Family
from ranef.numerics.memory import check_memory

if TYPE_CHECKING:
    import xarray as xr


NUMBERS_OF_A_BLOCK = 2**20  # of linear predictors: 8 MB


def mean_response(
    family: Family,
    rows: Rows | NewRows,
    terms: Sequence[TermRows],
    beta: Array,
    b: Mapping[str, Array],
    *,
    psi: Sequence[Array] = (),
) -> Array:
    """Return the mean response over draws, shape (n,): not that at the mean of the draws.

    Parameters
    ----------
    family : Family
    rows : Rows or NewRows
        The fixed columns, shape (n, p), and the offset.
    terms : sequence of TermRows
        The terms that take part; a level that is not known, code -1, has random effects of zero.
    beta : ndarray, shape (draws, p)
    b : mapping of str to ndarray, shape (draws, m, k)
        By the label of a term.
    psi : sequence of ndarray, shape (draws,)
        The family's parameters, in its order.

    Examples
    --------
    >>> import ranef as rf
    >>> from ranef.families.poisson import POISSON
    >>> rows = rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff")).design.rows
    >>> mean_response(POISSON, rows, (), np.log([[2.0], [4.0]]), {})[:2].round(6).tolist()
    [3.0, 3.0]
    """
    total = np.zeros(len(rows.X))
    for block, eta in linear_predictors(rows, terms, beta, b):
        total += family.mean(eta, [draws[block, None] for draws in psi]).sum(axis=0)
    return total / len(beta)


def linear_predictor(
    rows: Rows | NewRows, terms: Sequence[TermRows], beta: Array, b: Mapping[str, Array]
) -> Array:
    """Return eta of rows, shape (n,), with the random effects of some terms.

    Parameters
    ----------
    rows : Rows or NewRows
    terms : sequence of TermRows
        The terms of `rows` that take part; the code -1 is a level with random effects of zero.
    beta : ndarray, shape (p,)
    b : mapping of str to ndarray, shape (m, k)
        By the label of a term.
    """
    eta = rows.offset + rows.X @ beta
    for term in terms:
        effects = np.vstack([b[term.label], np.zeros(term.n_coefs)])  # row -1: a new level
        eta = eta + np.sum(term.columns * effects[term.codes], axis=1)
    return np.asarray(eta)


def linear_predictors(
    rows: Rows | NewRows, terms: Sequence[TermRows], beta: Array, b: Mapping[str, Array]
) -> Iterator[tuple[slice, Array]]:
    """Yield the linear predictors of blocks of draws, shape (draws of the block, n).

    Parameters are those of `mean_response`. A block takes a few megabytes, whatever the number of
    rows and draws.
    """
    known_levels = [term.columns * (term.codes >= 0)[:, None] for term in terms]
    step = max(1, NUMBERS_OF_A_BLOCK // max(1, len(rows.X)))
    for start in range(0, len(beta), step):
        block = slice(start, start + step)
        eta = beta[block] @ rows.X.T + rows.offset
        for term, columns in zip(terms, known_levels, strict=True):
            eta += np.einsum("srk,rk->sr", b[term.label][block][:, term.codes], columns)
        yield block, eta


def log_likelihood(design: Design, family: Family, posterior: xr.Dataset) -> xr.Dataset:
    """Return log f(y_i | parameters, random effects) of every row and draw.

    Parameters
    ----------
    design : Design
    family : Family
    posterior : xarray.Dataset
        Variables `beta`, those of the family and `b_<term>`; dimensions (chain, draw, ...).

    Returns
    -------
    xarray.Dataset
        Variable `y` (chain, draw, obs): the group `log_likelihood` as ArviZ's `loo` takes it.

    Notes
    -----
    The density is conditional on the random effects, so that `loo` scores a new observation of a
    group that is known.
    """
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    what = f"the log-likelihood of {design.n_obs:,} rows at {shape[0] * shape[1]:,} draws"
    check_memory(
        float(shape[0]) * shape[1] * design.n_obs, what, "Leave out `log_likelihood=True`."
    )

    def flat(name: str) -> Array:
        values = posterior[name].to_numpy()
        return np.asarray(values.reshape(-1, *values.shape[2:]))

    rows = design.rows
    beta = flat("beta") if design.fixed else np.empty((shape[0] * shape[1], 0))
    b = {term.label: flat(f"b_{term.label}") for term in design.terms}
    psi = np.array([flat(name) for name in family.parameters])
    log_density = np.empty((len(beta), design.n_obs))
    for block, eta in linear_predictors(rows, rows.terms, beta, b):
        psi_of_block = psi[:, block, None] if len(psi) else psi
        expansion = family.expansion(rows.y, eta, rows.weights, psi_of_block)
        log_density[block] = expansion.value
    return by_row(rows, log_density.reshape(*shape, -1))


def drawn_responses(
    design: Design, family: Family, draws: Draws, rng: np.random.Generator, *, new: bool
) -> Array:
    """Return drawn responses, shape (n, points): one data set for each draw.

    Parameters
    ----------
    design : Design
    family : Family
    draws : Draws
    rng : Generator
    new : bool
        Whether random effects are drawn anew from their distribution.
    """
    rows, b = design.rows, {}
    what = f"{len(draws.beta):,} responses of {design.n_obs:,} rows"
    check_memory(float(len(draws.beta)) * design.n_obs, what, "Take fewer at a time (`n=`).")
    for term, factor, effects in zip(design.terms, draws.factors, draws.b, strict=True):
        z = rng.standard_normal(effects.shape) if new else effects
        b[term.label] = z @ factor.swapaxes(1, 2) if new else z
    parameters = dict(draws.parameters) | ({} if draws.sigma is None else {"sigma": draws.sigma})
    psi = [parameters[name] for name in family.parameters]
    responses = np.empty((len(draws.beta), design.n_obs))
    for block, eta in linear_predictors(rows, rows.terms, draws.beta, b):
        values = [draws_of_parameter[block, None] for draws_of_parameter in psi]
        mu = family.link.inverse(eta)
        responses[block] = family.draw(
            rng, mu, np.broadcast_to(design.rows.weights, mu.shape), *values
        )
    return np.asarray(responses.T)


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of all effects, one at every point, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (points, p)
    sigma : ndarray, shape (points,), or None
        None for a family without a sigma.
    factors : list of ndarray, shape (points, k, k)
        A square root of each term's covariance.
    b : list of ndarray, shape (points, m, k)
    parameters : mapping of str to ndarray, shape (points,)
        The family's own parameters besides sigma.
    """

    beta: Array
    sigma: Array | None
    factors: list[Array]
    b: list[Array]
    parameters: Mapping[str, Array] = field(default_factory=dict)
