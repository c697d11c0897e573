"""A generalised model made ready for its likelihood: columns in a basis, and where to start.

The basis is that of a model without random effects: with W0 its weights, X becomes orthonormal in
the metric of W0, and the columns of a random term get unit mean squares there (and orthogonal, for
a full covariance). A factor Lambda in this basis has no unit: it is the spread of the effects over
the error of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import linalg

from ranef._typing import Array
from ranef.covariances.covariance import Covariance, Unstructured, factors, pull_back, theta_of
from ranef.design.design import Design, RandomTerm
from ranef.design.groups import by_factor, check_effects
from ranef.design.rows.rows import Rows
from ranef.errors import DataError, FitError, listed
from ranef.families.family import Family
from ranef.likelihood.generalized import gauss_hermite
from ranef.likelihood.generalized.cells import RowCells, cells_of
from ranef.likelihood.generalized.pirls import Modes, NoModesError, Problem, Setting, find_modes
from ranef.likelihood.generalized.weighted_crossproducts import TermColumns, weighted
from ranef.likelihood.linear.crossproducts import basis
from ranef.numerics.matrices import spans, threads_for
from ranef.numerics.minimize import minimize

TINY = np.finfo(np.float64).tiny
ROUNDS_OF_START = 3  # of a model without random effects and the family's own parameters, in turn
MAX_LINKED_CHANGE = 10.0  # of the link of an own parameter, by the search for its start
MAX_START_DISTANCE = 6.0  # of a linear predictor from a constant one
MAX_START_VARIANCE = 9.0  # of effects over the error of a row, that is not doubted
GROWTH_OF_START = 16.0  # of the variances that are tried beyond
MAX_NODES = 20_000_000  # rows times nodes of a quadrature


@dataclass(frozen=True, eq=False)
class Generalized:
    """A generalised model in its basis.

    Attributes
    ----------
    family : Family
    cells : RowCells
        The n rows that the likelihood reads, which may be fewer than those of the data.
    problem : Problem
    X : ndarray, shape (n, p)
        The fixed columns in the basis; the user's coefficients are `to_users @ gamma`.
    to_users : ndarray, shape (p, p)
    bases : tuple of ndarray, shape (k, k)
        T of each term: b in the basis is T b.
    offset : ndarray, shape (n,)
    gamma : ndarray, shape (p,)
        Coefficients without random effects: where to start.
    psi : ndarray, shape (r,)
        The family's own parameters there.
    Lambdas : tuple of ndarray, shape (k, k)
        Factors to start with, from moments.
    """

    family: Family
    cells: RowCells
    problem: Problem
    X: Array
    to_users: Array
    bases: tuple[Array, ...]
    offset: Array
    gamma: Array
    psi: Array
    Lambdas: tuple[Array, ...]

    @property
    def covariances(self) -> tuple[Covariance, ...]:
        """The covariance of each term."""
        return tuple(block.covariance for block in self.problem.Z.blocks)

    @property
    def n_obs(self) -> int:
        """The number of rows of the data."""
        return self.cells.data.n

    @cached_property
    def has_one_factor(self) -> bool:
        """Whether all random effects belong to the levels of a single factor."""
        return len(by_factor(self.problem.Z.blocks)) == 1

    @cached_property
    def merged(self) -> Problem:
        """The problem with all terms in one, for a single grouping factor."""
        blocks, n = self.problem.Z.blocks, len(self.offset)
        if len(blocks) == 1:
            return self.problem
        columns = np.column_stack([block.columns for block in blocks])
        covariance = Unstructured(columns.shape[1])
        block = TermColumns(blocks[0].codes, columns, blocks[0].n_levels, covariance)
        return replace(self.problem, Z=weighted([block], n))

    def zeros(self) -> list[Array]:
        """Return random effects u of zero."""
        return [np.zeros((block.n_levels, block.k)) for block in self.problem.Z.blocks]

    def theta_units(self, Lambdas: Sequence[Array]) -> Array:
        """Return about the standard errors of theta, as many levels with much information have.

        Of a variance of zero the effects of a level are as large as their own errors.
        """
        sizes = []
        for block, Lambda in zip(self.problem.Z.blocks, Lambdas, strict=True):
            errors = np.sqrt(block.n_levels / self.n_obs)
            sds = np.maximum(np.linalg.norm(Lambda, axis=1), errors) / np.sqrt(2 * block.n_levels)
            sizes.append(np.repeat(sds[:, None], block.k, axis=1))
        units = np.abs(pull_back(sizes, theta_of(Lambdas, self.covariances), self.covariances))
        least = min((float(of_term.min()) for of_term in sizes), default=1.0)
        return np.maximum(units, least)  # where elements of a factor depend on each other

    def at(self, gamma: Array, Lambdas: Sequence[Array], psi: Array) -> Setting:
        """Return the setting of known fixed effects."""
        base = self.offset + self.X @ gamma
        return Setting(self.problem, base, self.X[:, :0], list(Lambdas), psi)

    def profile(self, Lambdas: Sequence[Array], psi: Array) -> Setting:
        """Return the setting in which fixed effects are found together with the random ones."""
        return Setting(self.problem, self.offset, self.X, list(Lambdas), psi)

    def likelihood(
        self, setting: Setting, u: Sequence[Array], n_agq: int = 1
    ) -> gauss_hermite.Likelihood:
        """Return the likelihood with the random effects integrated out, and its derivatives.

        Parameters
        ----------
        setting : Setting
            From `at`.
        u : sequence of ndarray, shape (m, k)
            Where the search for the modes starts.
        n_agq : int
            Points of the quadrature in each dimension; 1 for the Laplace approximation.

        Raises
        ------
        NoModesError
            If there is no such likelihood, or it cannot be computed.
        """
        if n_agq == 1 or not u:
            return gauss_hermite.laplace(setting, find_modes(setting, u, np.empty(0)))
        result = gauss_hermite.quadrature(*self._merged_modes(setting, u), n_agq)
        own = spans(c.k for c in self.covariances)
        return replace(
            result,
            Lambdas=diagonal_parts(result.Lambdas[0], self.covariances),
            modes=replace(result.modes, u=[result.modes.u[0][:, span] for span in own]),
        )

    def log_likelihood(self, setting: Setting, u: Sequence[Array], n_agq: int = 1) -> float:
        """Return the value of `likelihood` alone."""
        if n_agq == 1 or not u:
            return gauss_hermite.laplace_value(find_modes(setting, u, np.empty(0)))
        return gauss_hermite.quadrature_value(*self._merged_modes(setting, u), n_agq)

    def _merged_modes(self, setting: Setting, u: Sequence[Array]) -> tuple[Setting, Modes]:
        """Return the setting with all terms in one, and its modes."""
        Lambda = linalg.block_diag(*setting.Lambdas)
        merged = replace(setting, problem=self.merged, Lambdas=[Lambda])
        return merged, find_modes(merged, [np.hstack(u)], np.empty(0))


def prepare(design: Design, family: Family, *, together: bool = True) -> Generalized:
    """Bring a design whose X has full column rank to its basis.

    Parameters
    ----------
    design : Design
    family : Family
    together : bool
        Whether the likelihood may read rows with equal predictors as one.

    Raises
    ------
    DataError
        If no starting values are found.
    """
    with threads_for(0):
        return _prepared(design, cells_of(design.distinct, family, together=together))


def _prepared(design: Design, cells: RowCells) -> Generalized:
    family, rows = cells.family, cells.rows
    check_effects(rows.terms, rows.X.shape[1], dense=True)
    n = len(rows.y)
    bare = Problem(family, rows.y, rows.weights, weighted([], n), cells.constant)
    gamma, psi = _first_guess(design, rows, bare)
    eta = rows.offset + rows.X @ gamma
    W = family.information(eta, rows.weights, psi)
    W = np.clip(W, 1e-10 * W.max(), None)
    root = np.sqrt(W)[:, None]
    R = np.linalg.qr(rows.X * root, mode="r")
    to_users = linalg.solve_triangular(R, np.eye(len(R)))
    pairs = [*zip(design.terms, rows.terms, strict=True)]
    of_a_row = np.sqrt(n / design.n_obs)  # a mean square is one over the rows of the data
    bases = tuple(_basis(term, of_term.columns * root) * of_a_row for term, of_term in pairs)
    blocks = [
        TermColumns(
            np.asarray(of_term.codes, dtype=np.int64),
            of_term.columns @ np.linalg.inv(T),
            of_term.n_levels,
            term.covariance,
        )
        for (term, of_term), T in zip(pairs, bases, strict=True)
    ]
    problem = replace(bare, Z=weighted(blocks, n))
    score = problem.expansion(eta, psi).score
    excess = [_excess(block, W, score) for block in blocks]
    model = Generalized(
        family=family,
        cells=cells,
        problem=problem,
        X=rows.X @ to_users,
        to_users=to_users,
        bases=bases,
        offset=rows.offset,
        gamma=R @ gamma,
        psi=psi,
        Lambdas=(),
    )
    return replace(model, Lambdas=_start(model, excess))


def _first_guess(design: Design, rows: Rows, bare: Problem) -> tuple[Array, Array]:
    """Return fixed effects and own parameters to start from, of a model without random effects."""
    family, unweighted = bare.family, design.unweighted
    gamma, psi = _without_random_effects(design, rows, bare)
    constant = _constant(family, design, rows) - unweighted.mean(unweighted.offset)
    if not family.link.is_identity:
        gamma = _within_reach(rows.X, gamma, constant)
    if family.link.positive and not (rows.offset + rows.X @ gamma > 0).all():
        message = f"with the {family.link.name} link the linear predictor has to be positive, and "
        message += f"no fixed effects make it so in every row of `{design.response}`: add an "
        raise DataError(message + 'intercept, or use another link, such as link="log".')
    return gamma, psi


def _basis(term: RandomTerm, Z: Array) -> Array:
    """Return T of a term, as `crossproducts.basis`, but lower triangular.

    So a factor that is lower triangular for the user is so in the basis: the nodes of a quadrature,
    which depend on it, are the same in both.
    """
    return basis(Z[:, ::-1], term)[::-1, ::-1]


@dataclass(frozen=True, eq=False)
class UsersLikelihood:
    """A log-likelihood and its derivatives by the parameters as the user has them.

    Attributes
    ----------
    value : float
    theta : ndarray
    beta : ndarray, shape (p,)
    parameters : dict of str to float
    """

    value: float
    theta: Array
    beta: Array
    parameters: dict[str, float]


def users_likelihood(
    model: Generalized, theta: Array, beta: Array, psi: Array, n_agq: int
) -> UsersLikelihood:
    """Return the likelihood at the user's parameters, theta being relative to sigma.

    Parameters
    ----------
    model : Generalized
    theta : ndarray
    beta : ndarray, shape (p,)
    psi : ndarray, shape (r,)
    n_agq : int
    """
    own_parameters = dict(zip(model.family.parameters, psi.tolist(), strict=True))
    sigma = own_parameters.get("sigma", 1.0)
    users = factors(theta, model.covariances)
    Lambdas = [sigma * T @ f for T, f in zip(model.bases, users, strict=True)]
    gamma = np.linalg.solve(model.to_users, beta)
    setting = model.at(gamma, Lambdas, psi)
    likelihood = gauss_hermite.if_any(lambda: model.likelihood(setting, model.zeros(), n_agq))
    if likelihood is None:
        nowhere = dict.fromkeys(own_parameters, np.nan)
        return UsersLikelihood(-np.inf, theta * np.nan, beta * np.nan, nowhere)
    slopes = [sigma * T.T @ slope for T, slope in zip(model.bases, likelihood.Lambdas, strict=True)]
    by_psi = likelihood.psi / model.family.link_slopes(psi)
    by_own_parameters = dict(zip(own_parameters, by_psi.tolist(), strict=True))
    if "sigma" in own_parameters:
        by_factors = sum(float(np.vdot(slope, f)) for slope, f in zip(slopes, users, strict=True))
        by_own_parameters["sigma"] += by_factors / sigma
    return UsersLikelihood(
        value=likelihood.value,
        theta=pull_back(slopes, theta, model.covariances),
        beta=np.linalg.solve(model.to_users.T, model.X.T @ likelihood.rows),
        parameters=by_own_parameters,
    )


def check_n_agq(design: Design, n_agq: object, least: int = 0) -> int:
    """Return the number of points of a quadrature, or refuse it.

    Raises
    ------
    FitError
        If it is not a whole number from `least` on, or the model has several grouping factors, or
        there were too many nodes.
    """
    if not isinstance(n_agq, int | np.integer) or isinstance(n_agq, bool) or n_agq < least:
        raise FitError(f"`n_agq` must be a whole number from {least} on, got {n_agq!r}.")
    factors = list(dict.fromkeys(term.factor for term in design.terms))
    if n_agq <= 1 or not factors:
        return int(n_agq)
    if len(factors) > 1:
        message = f"n_agq={n_agq} needs one grouping factor; this model has {listed(factors)}. "
        raise FitError(message + 'Use n_agq=1, the Laplace approximation, or fit("mcmc").')
    k = sum(term.n_coefs for term in design.terms)
    if int(n_agq) ** k * (n := len(design.distinct.y)) > MAX_NODES:
        most = int((MAX_NODES / n) ** (1 / k))
        message = f"n_agq={n_agq} in {k} dimensions are {n_agq**k} nodes for each of "
        raise FitError(f"{message}{n} rows: use n_agq={most} or less.")
    return int(n_agq)


def _without_random_effects(design: Design, rows: Rows, bare: Problem) -> tuple[Array, Array]:
    """Return fixed effects and own parameters of a model without random effects."""
    psi = _guess(bare.family, rows)
    eta = _constant(bare.family, design, rows)
    gamma = np.linalg.lstsq(rows.X, eta - rows.offset, rcond=None)[0]
    for _ in range(ROUNDS_OF_START):
        try:
            modes = find_modes(Setting(bare, rows.offset, rows.X, [], psi), [], gamma)
        except NoModesError:
            break
        gamma = modes.gamma
        if not len(psi):
            break
        psi = own_parameters(bare, modes.eta, psi)
    return gamma, psi


def _within_reach(X: Array, gamma: Array, constant: Array) -> Array:
    """Draw fixed effects that run off, as under separation, towards a constant predictor."""
    deviations = X @ gamma - constant
    distance = float(np.abs(deviations).max(initial=0.0))
    if distance <= MAX_START_DISTANCE:
        return gamma
    nearer = constant + deviations * MAX_START_DISTANCE / distance
    return np.asarray(np.linalg.lstsq(X, nearer, rcond=None)[0])


def own_parameters(problem: Problem, eta: Array, psi: Array) -> Array:
    """Maximise the likelihood of the family's own parameters at a linear predictor."""
    family = problem.family

    def objective(linked: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            psi = family.unlinked(linked)
            value = problem.expansion(eta, psi).value.sum()
            slope = family.further_expansion(problem.y, eta, problem.weights, psi).value.sum(-1)
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return np.inf, np.zeros_like(linked)
        return -float(value), -slope

    start = family.linked(psi)
    change = minimize(objective, start, max_iterations=50).x - start
    return family.unlinked(start + np.clip(change, -MAX_LINKED_CHANGE, MAX_LINKED_CHANGE))


def _constant(family: Family, design: Design, rows: Rows) -> Array:
    """Return the linear predictor of a mean that is the same in all rows."""
    mean = float(np.average(rows.y, weights=rows.weights))
    if family.is_real and family.link.is_identity:
        mean = float(np.median(rows.y))
    if family.is_bounded:
        mean = (mean * design.n_obs + 0.5) / (design.n_obs + 1)
    elif family.is_discrete:
        mean = max(mean, 0.5 / design.n_obs)
    with np.errstate(all="ignore"):
        eta = float(family.link.link(np.array([mean]))[0])
    if not np.isfinite(eta):
        message = f"the mean of the response `{design.response}`, {mean:g}, has no "
        raise DataError(f"{message}{family.link.name}: choose another link.")
    return np.full(len(rows.y), eta)


def _guess(family: Family, rows: Rows) -> Array:
    """Return own parameters to start with: a scale by moments, the others as the family says."""
    mean = np.full(len(rows.y), np.average(rows.y, weights=rows.weights))
    psi = np.array([record.start for record in family.records])
    with np.errstate(all="ignore"):  # at an end of its range a mean has no variance
        variance = np.asarray(family.variance(mean, *psi))
        sigma = np.sqrt(np.mean(rows.weights * (rows.y - mean) ** 2 / variance))
    if family.is_real:  # outliers may be what the family is for
        sigma = 1.5 * np.median(np.abs(rows.y - np.median(rows.y)))
    if np.isfinite(sigma) and sigma > 0:
        psi[[name == "sigma" for name in family.parameters]] = sigma
    return psi


def _excess(block: TermColumns, W: Array, score: Array) -> Array:
    """Return squares of relative sds from the moments of the scores, one by one."""
    D = np.stack([np.bincount(block.codes, W * z**2) for z in block.columns.T], axis=1)
    S = np.stack([np.bincount(block.codes, score * z) for z in block.columns.T], axis=1)
    return np.asarray((S**2 - D).sum(axis=0) / np.maximum((D**2).sum(axis=0), TINY))


def _start(model: Generalized, excess: Sequence[Array]) -> tuple[Array, ...]:
    """Return diagonal factors from moments, at most three times the error of a row.

    Where moments say more, as with large counts, the likelihood says how much more.
    """
    largest = max((float(of_term.max()) for of_term in excess), default=0.0)
    most, best, tried = MAX_START_VARIANCE, -np.inf, None
    while True:
        Lambdas = tuple(np.diag(np.sqrt(np.clip(of_term, 0.01, most))) for of_term in excess)
        if tried is None and largest <= most:
            return Lambdas
        value = _profile_value(model, Lambdas)
        if tried is None or value > best:
            best, tried = value, Lambdas
        if largest <= most:
            return tried
        most *= GROWTH_OF_START


def _profile_value(model: Generalized, Lambdas: Sequence[Array]) -> float:
    """Return the Laplace approximation where fixed effects are found with the random ones."""
    try:
        setting = model.profile(Lambdas, model.psi)
        return gauss_hermite.laplace_value(find_modes(setting, model.zeros(), model.gamma))
    except (NoModesError, np.linalg.LinAlgError):
        return -np.inf


def diagonal_parts(matrix: Array, covariances: Sequence[Covariance]) -> list[Array]:
    """Return the blocks of terms that were taken as one, shape (..., k, k) each."""
    return [matrix[..., span, span] for span in spans(c.k for c in covariances)]
