"""What parameters say of rows: linear predictors, means, log densities, drawn responses.

The linear predictor of a row is known as a weighted mixture of normal distributions, whatever the
fit: a point estimate with its standard error is one of them, a node of a lattice is one, and a draw
is one without width. A group that is not known adds the variance of its random effects, z'Sigma z.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ranef._typing import Array, Dataset
from ranef.design.design import Design
from ranef.design.labels import by_row
from ranef.design.new_data.new_rows import NewRows, own_rows, with_strangers
from ranef.design.rows.rows import Rows, TermRows
from ranef.errors import FitError
from ranef.families.family import Family
from ranef.numerics.memory import check_memory

NUMBERS_OF_A_BLOCK = 2**20  # of linear predictors: 8 MB
REACH = 8.5  # standard deviations of a normal distribution that are integrated over
WIDEST_STEP = 0.6  # between nodes, in standard deviations; the error is below 1e-20
FINEST_DETAIL = 0.25  # of the step on the scale of eta: the curves of links bend over about 1


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

    @staticmethod
    def of_point(
        n: int,
        beta: Array,
        parameters: Mapping[str, float],
        factors: Sequence[Array],
        b: Sequence[Array],
    ) -> Draws:
        """Return n draws of what is known, `sigma` being one of the parameters or none."""

        def repeated(value: Array | float) -> Array:
            array = np.asarray(value, dtype=np.float64)
            return np.broadcast_to(array, (n, *array.shape))

        own = {name: repeated(value) for name, value in parameters.items()}
        sigma, roots = own.pop("sigma", None), list(map(repeated, factors))
        return Draws(repeated(beta), sigma, roots, list(map(repeated, b)), own)


@dataclass(frozen=True, eq=False)
class NormalRows:
    """The linear predictor of rows as a weighted mixture of normal distributions.

    Attributes
    ----------
    weights : ndarray, shape (C,)
        They sum to one.
    mean : ndarray, shape (C, n)
    variance : ndarray, shape (C, n)
        Of what is estimated, fixed effects and effects of known groups: 0 for draws.
    between : ndarray, shape (C, n)
        The variance of the random effects of groups that are not known.
    psi : ndarray, shape (r, C)
        The family's own parameters, in its order.
    """

    weights: Array
    mean: Array
    variance: Array
    between: Array
    psi: Array

    @property
    def expected(self) -> Array:
        """The mean of the mixture, shape (n,)."""
        return self.weights @ self.mean


def mean_over_groups(
    family: Family, eta: Array, between: Array, psi: Sequence[Array] | Array = (), power: int = 1
) -> Array:
    """Return the mean response over groups with normal random effects, of the shape of eta.

    Parameters
    ----------
    family : Family
    eta : ndarray
        The linear predictor of a typical group.
    between : ndarray
        The variance of the linear predictor between groups.
    psi : sequence of ndarray
        The family's own parameters.
    power : int
        Of the mean response of a group, whose mean is returned.

    Notes
    -----
    In closed form with the identity, the logarithm and the probit as link; by the trapezoid rule
    otherwise, whose error falls geometrically for a smooth curve.

    Examples
    --------
    >>> from ranef.families.binomial import BINOMIAL
    >>> mean_over_groups(BINOMIAL, np.array([-1.398]), np.array([0.4125])).round(3)
    array([0.216])
    """
    if power == 1 and family.response_mean is None and family.link.normal_mean is not None:
        return family.link.normal_mean(eta, between)
    sd = np.sqrt(between)
    widest = float(np.max(sd, initial=0.0))
    if not widest:
        return family.mean(eta, psi) ** power
    if family.link.positive:
        raise FitError(
            f"with the {family.link.name} link, which needs a positive linear predictor, the mean "
            "over groups with normal random effects does not exist: predict with "
            "groups='population', a typical group."
        )
    half = int(np.ceil(REACH / min(WIDEST_STEP, FINEST_DETAIL / widest)))
    nodes = np.linspace(-REACH, REACH, 2 * half + 1)
    weights = np.exp(-0.5 * nodes**2)
    total = np.zeros(np.broadcast_shapes(np.shape(eta), np.shape(sd)))
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        total += weight * family.mean(eta + node * sd, psi) ** power
    return total


def variance_of_new(terms: Sequence[TermRows], factors: Mapping[str, Array]) -> Array:
    """Return the variance of random effects of groups that are not known, shape (points, n).

    Parameters
    ----------
    terms : sequence of TermRows
    factors : mapping of str to ndarray, shape (points, k, k)
        By the label of a term, a square root of its covariance at every point.
    """
    total: Array = np.zeros((1, 1))
    for term in (term for term in terms if term.is_new.any()):
        z, columns = term.columns * term.is_new[:, None], np.moveaxis(factors[term.label], 2, 0)
        total = total + sum((column @ z.T) ** 2 for column in columns)
    return total


def fixed_with_modes(rows: NewRows, terms: Sequence[TermRows], falls: Mapping[str, Array]) -> Array:
    """Return by how much the predictors of rows rise with fixed effects and modes, shape (n, p).

    Parameters
    ----------
    rows : NewRows
    terms : sequence of TermRows
    falls : mapping of str to ndarray, shape (m, k, p)
        By the label of a term, by how much its modes fall as fixed effects rise.
    """
    slopes = rows.X.copy()
    for term in terms:
        known = term.columns * ~term.is_new[:, None]
        slopes -= np.einsum("nk,nkp->np", known, falls[term.label][term.codes])
    return slopes


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

    A block takes a few megabytes, whatever the number of rows and draws.

    Parameters
    ----------
    rows : Rows or NewRows
        The fixed columns, shape (n, p), and the offset.
    terms : sequence of TermRows
        The terms that take part; a level that is not known, code -1, has random effects of zero.
    beta : ndarray, shape (draws, p)
    b : mapping of str to ndarray, shape (draws, m, k)
        By the label of a term.
    """
    known_levels = [term.columns * ~term.is_new[:, None] for term in terms]
    step = max(1, NUMBERS_OF_A_BLOCK // max(1, len(rows.X)))
    for start in range(0, len(beta), step):
        block = slice(start, start + step)
        eta = beta[block] @ rows.X.T + rows.offset
        for term, columns in zip(terms, known_levels, strict=True):
            eta += np.einsum("srk,rk->sr", b[term.label][block][:, term.codes], columns)
        yield block, eta


def log_likelihood(design: Design, family: Family, posterior: Dataset) -> Dataset:
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
        log_density[block] = family.log_density_at(rows.y, eta, rows.weights, psi_of_block)
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
    what = f"{len(draws.beta):,} responses of {design.n_obs:,} rows"
    check_memory(float(len(draws.beta)) * design.n_obs, what, "Take fewer at a time (`n=`).")
    rows = own_rows(design)
    rows = with_strangers(rows) if new else rows
    return drawn_rows(design, family, rows, draws, rng, kind="observation").T


def drawn_rows(
    design: Design,
    family: Family,
    rows: NewRows,
    draws: Draws,
    rng: np.random.Generator,
    *,
    kind: str,
    average: bool = False,
) -> Array:
    """Return draws of what is predicted of rows, shape (draws, n); rows of a draw go together.

    Parameters
    ----------
    design : Design
        Of the model that the draws are of.
    family : Family
    rows : NewRows
    draws : Draws
    rng : Generator
        For the effects of groups that are not known, one draw a group, and for observations.
    kind : {"link", "response", "observation"}
    average : bool
        Whether means are those over all groups, and linear predictors those of a typical one.
    """
    labels_of_terms = [term.label for term in design.terms]
    between: Array = np.zeros((1, 1))
    if average and kind != "observation":
        factors = dict(zip(labels_of_terms, draws.factors, strict=True))
        between = variance_of_new(rows.terms, factors)
    else:
        rows, draws = with_drawn_levels(design, rows, draws, rng)
    b = dict(zip(labels_of_terms, draws.b, strict=True))
    parameters = dict(draws.parameters) | ({} if draws.sigma is None else {"sigma": draws.sigma})
    psi = [parameters[name] for name in family.parameters]
    values = np.empty((len(draws.beta), len(rows.X)))
    for block, eta in linear_predictors(rows, rows.terms, draws.beta, b):
        at = [one[block, None] for one in psi]
        if kind == "link":
            values[block] = eta
        elif kind == "observation":
            mu = family.link.inverse(eta)
            values[block] = family.draw(rng, mu, np.broadcast_to(rows.weights, mu.shape), *at)
        else:
            spread = between if len(between) == 1 else between[block]
            values[block] = mean_over_groups(family, eta, spread, at)
    return values


def with_drawn_levels(
    design: Design, rows: NewRows, draws: Draws, rng: np.random.Generator
) -> tuple[NewRows, Draws]:
    """Return rows whose levels all have effects among the draws, those of new levels drawn anew.

    Parameters
    ----------
    design : Design
    rows : NewRows
    draws : Draws
    rng : Generator
    """
    b, terms = list(draws.b), []
    places = {term.label: t for t, term in enumerate(design.terms)}
    for term in rows.terms:
        if not term.is_new.any():
            terms.append(term)
            continue
        t, numbers = places[term.label], term.grouping.numbers
        n_new = int(numbers.max()) + 1 - term.n_levels
        z = rng.standard_normal((len(draws.beta), n_new, term.n_coefs))
        new, old = z @ draws.factors[t].swapaxes(1, 2), b[t]
        if term.is_new.all():
            numbers, old = numbers - term.n_levels, old[:, :0]
        b[t] = np.concatenate([old, new], axis=1)
        terms.append(replace(term, grouping=replace(term.grouping, codes=numbers)))
    return replace(rows, terms=tuple(terms)), replace(draws, b=b)
