"""ML refits of many responses to one design by generalised models, all together.

Every search starts from the estimates of the data that the responses are simulated from, in units
of their standard errors and with the curvature there; the conditional modes of a replicate start
from its last ones. The Laplace approximation is maximised over all parameters jointly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ranef._typing import Array, Flags, Places
from ranef.covariances.covariance import pull_back, theta_of
from ranef.likelihood.bootstrap.refits import best_minima, without_zeros
from ranef.likelihood.estimate import FittedModel
from ranef.likelihood.generalized.glmm import Generalized, prepare
from ranef.likelihood.generalized.many_likelihoods import laplace
from ranef.likelihood.generalized.many_modes import search_of
from ranef.likelihood.generalized.maximum import Vector, covariance_of, joint_units
from ranef.likelihood.generalized.pieces import Piece, Points, go_together, pieces_of
from ranef.likelihood.generalized.pirls import NoModesError, find_modes
from ranef.likelihood.linear.optimum.starts import FEW_ROWS
from ranef.numerics.finite_differences import MIN_STANDARDISED, forward_hessians
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import CURVATURE_TOLERANCE
from ranef.numerics.minimize_many import Minima, minimized

MAX_DISTANCE = 8.0  # of a linear predictor from the fit's, beyond which rows may be separated


@dataclass(frozen=True, eq=False)
class GeneralizedRefits:
    """Estimates of B replicates, on the user's scale.

    Attributes
    ----------
    beta : ndarray, shape (B, p)
    psi : ndarray, shape (B, r)
    Lambdas : list of ndarray, shape (B, k, k)
        Roots of the covariance of each term, not relative to sigma.
    objective : ndarray, shape (B,)
        The deviance.
    settled : ndarray of bool, shape (B,)
        The replicates whose estimates are a maximum, not far from the fit; the others are to be
        fitted one by one.
    vcov : ndarray, shape (B, p, p), or None
        Of beta, where it was asked for.
    """

    beta: Array
    psi: Array
    Lambdas: list[Array]
    objective: Array
    settled: Flags
    vcov: Array | None = None


@dataclass(frozen=True, eq=False)
class GeneralizedRefitter:
    """A design whose response is replaced again and again.

    Attributes
    ----------
    model : Generalized
        Of the data, in their basis.
    pieces : list of Piece
    u : list of ndarray, shape (1, P, q)
        The conditional modes of each piece where the searches start.
    start : ndarray, shape (d,)
        Coefficients, links of own parameters, and theta, in the basis, over the units.
    units : ndarray, shape (d, d)
        About their standard errors, as a matrix.
    curvature : ndarray, shape (d, d)
        The Hessian of the data's deviance there.
    """

    model: Generalized
    pieces: list[Piece]
    u: list[Array]
    start: Array
    units: Array
    curvature: Array

    def refit(self, y: Array, *, errors: bool = False) -> GeneralizedRefits:
        """Return the estimates of responses, shape (B, n), and with `errors` their covariances."""
        model, vector = self.model, Vector(self.model, joint=True)
        means, constant = model.cells.responses(y)
        deviances = Deviances(model, self.pieces, means, self.units, self.u, constant)

        def search(start: Array, which: Places) -> Minima:
            def objective(z: Array, who: Places) -> tuple[Array, Array]:
                return deviances(z, which[who])

            z = np.linalg.solve(self.units, start.T).T
            found = minimized(objective, z, self.curvature, least=MIN_STANDARDISED)
            return replace(found, x=found.x @ self.units.T)

        with threads_for(model.problem.Z.q_rest), np.errstate(all="ignore"):
            minima = best_minima(
                search,
                np.tile(self.units @ self.start, (len(y), 1)),
                model.covariances,
                several=model.n_obs <= FEW_ROWS,
            )
            vcov = self._covariances(deviances, minima.x) if errors else None
        gamma, psi, Lambdas = vector.parts(minima.x)
        moved = (gamma - vector.parts(self.units @ self.start)[0]) @ model.X.T
        is_near = np.abs(moved).max(axis=1, initial=0.0) < MAX_DISTANCE
        if not model.family.reachable_ends:
            is_near[:] = True
        return GeneralizedRefits(
            beta=gamma @ model.to_users.T,
            psi=psi,
            Lambdas=[np.linalg.solve(T, f) for T, f in zip(model.bases, Lambdas, strict=True)],
            objective=minima.value,
            settled=minima.settled & is_near,
            vcov=vcov,
        )

    def _covariances(self, deviances: Deviances, x: Array) -> Array:
        """Return the covariances of the fixed effects, from the Hessians of the deviances."""
        z, who, p = np.linalg.solve(self.units, x.T).T, np.arange(len(x)), self.model.X.shape[1]
        slopes = deviances(z, who)[1]
        hessians = forward_hessians(deviances, z, slopes, who, MIN_STANDARDISED)
        to_users = self.model.to_users @ self.units[:p, :p]
        found = np.array([covariance_of(H / 2, p) for H in hessians])
        return np.asarray(to_users @ found @ to_users.T)


@dataclass(frozen=True, eq=False)
class Deviances:
    """The deviance of many responses as a function of all parameters, with its gradient.

    Attributes
    ----------
    model : Generalized
    pieces : list of Piece
    y : ndarray, shape (B, n)
        As the likelihood reads them.
    units : ndarray, shape (d, d)
    u : list of ndarray, shape (1, P, q)
        Where the first search for modes starts; later ones do where that of the same replicate
        ended.
    of_responses : ndarray, shape (B, n), optional
        The part of the log density that is of these alone, where they are means of others.
    """

    model: Generalized
    pieces: list[Piece]
    y: Array
    units: Array
    u: Sequence[Array]
    of_responses: Array | None = None

    def __post_init__(self) -> None:
        ends = [np.repeat(u, len(self.y), axis=0) for u in self.u]
        object.__setattr__(self, "u", ends)

    def __call__(self, z: Array, who: Places) -> tuple[Array, Array]:
        """Return values, shape (b,), and gradients, shape (b, d).

        Parameters
        ----------
        z : ndarray, shape (b, d)
            Parameters over the units.
        who : ndarray of int, shape (b,)
            Of which replicates.
        """
        vector = Vector(self.model, joint=True)
        x = z @ self.units.T
        value, by_gamma = np.zeros(len(x)), np.zeros((len(x), vector.p))
        by_psi = np.zeros((len(x), len(self.model.psi)))
        slopes = [np.zeros((len(x), c.k, c.k)) for c in self.model.covariances]
        for piece, ends in zip(self.pieces, self.u, strict=True):
            for chosen in piece.chunks(len(x)):
                one = who[chosen]
                search = search_of(piece, self._points(x[chosen], one, piece.rows))
                modes = search.run(ends[one])
                found = np.isfinite(modes.h).all(axis=1)
                ends[one[found]] = modes.u[found]
                likelihood = laplace(search, modes)
                value[chosen] += likelihood.value
                by_gamma[chosen] += likelihood.rows @ self.model.X[piece.rows]
                by_psi[chosen] += likelihood.psi
                for total, slope in zip(slopes, likelihood.Lambdas, strict=True):
                    total[chosen] += slope
        by_theta = pull_back(slopes, vector.theta(x), self.model.covariances)
        gradient = -2 * np.concatenate([by_gamma, by_psi, by_theta], axis=1) @ self.units
        finite = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return np.where(finite, -2 * value, np.inf), np.where(finite[:, None], gradient, 0.0)

    def _points(self, x: Array, who: Places, rows: Places) -> Points:
        gamma, psi, Lambdas = Vector(self.model, joint=True).parts(x)
        known = self.model.offset[rows] + gamma @ self.model.X[rows].T
        constant = None if self.of_responses is None else self.of_responses[who][:, rows]
        return Points(known, Lambdas, psi, self.y[who][:, rows], constant)


def generalized_refitter(model: FittedModel) -> GeneralizedRefitter | None:
    """Prepare the refits of a model, or return None where they are better made one by one.

    Parameters
    ----------
    model : FittedModel
        By ML, of a family other than the linear one.
    """
    if model.estimate.n_agq != 1:
        return None
    prepared = prepare(model.design, model.family)
    pieces = pieces_of(prepared.problem, by_level=prepared.has_one_factor)
    if not go_together(pieces):
        return None
    estimate, psi = model.estimate, np.array(list(model.parameters.values()))
    gamma = np.linalg.solve(prepared.to_users, estimate.beta)
    Lambdas = [
        without_zeros(estimate.sigma * T @ f)
        for T, f in zip(prepared.bases, estimate.Lambdas, strict=True)
    ]
    theta = theta_of(Lambdas, prepared.covariances)
    with threads_for(prepared.problem.Z.q_rest), np.errstate(all="ignore"):
        try:
            modes = find_modes(prepared.at(gamma, Lambdas, psi), prepared.zeros(), np.empty(0))
            units = joint_units(prepared, modes, psi, Lambdas)
        except (NoModesError, np.linalg.LinAlgError):
            return None
        start = np.linalg.solve(units, Vector(prepared, joint=True).packed(gamma, psi, theta))
        u = [piece.gathered([of_term[None] for of_term in modes.u]) for piece in pieces]
        y, constant = prepared.cells.responses(model.design.rows.y[None])
        own = Deviances(prepared, pieces, y, units, u, constant)
        at, here = start[None], np.zeros(1, dtype=np.intp)
        hessians = forward_hessians(own, at, own(at, here)[1], here, MIN_STANDARDISED)
    return GeneralizedRefitter(prepared, pieces, u, start, units, _upwards(hessians[0]))


def _upwards(hessian: Array) -> Array:
    """Return a Hessian with directions that curve downwards, or hardly, curving upwards."""
    values, vectors = np.linalg.eigh(np.nan_to_num(hessian))
    least = CURVATURE_TOLERANCE * np.abs(values).max(initial=1.0)
    return np.asarray(vectors * np.maximum(np.abs(values), least) @ vectors.T)
