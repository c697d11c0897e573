"""The posterior density of a generalised model: fixed effects, own parameters and variances.

The random effects alone are integrated out, by the Laplace approximation or by quadrature. The
values of the space are the fixed effects (at centred predictors, where the priors hold there), the
family's own parameters, sigma, and the sds and partial correlations of each term.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg

from ranef._typing import Array, Places
from ranef.design.design import Design, full_rank
from ranef.families.family import Family
from ranef.likelihood.generalized.gauss_hermite import Likelihood, Rule, if_any, rule
from ranef.likelihood.generalized.glmm import Generalized, prepare
from ranef.likelihood.generalized.many_modes import log_densities, modes_of
from ranef.likelihood.generalized.pieces import Piece, Points, go_together, pieces_of
from ranef.likelihood.generalized.pirls import Modes, NoModesError, Setting, find_modes
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.predictions import Draws
from ranef.numerics.finite_differences import units_of
from ranef.numerics.importance_sampling import cumulant_terms
from ranef.numerics.matrices import spans, threads_for
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.transforms import Space, space_of
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Normal
from ranef.progress import tracked

REFERENCE_POINTS = {1: 25, 2: 13, 3: 7}  # of each dimension, that hardly err, by the effects
MIN_DRAWS, MAX_DRAWS, MAX_COST = 24, 400, 3e7  # draws that tell a bias, and the cost of all
SEED = 20  # of the draws that tell an error


@dataclass(frozen=True, eq=False)
class GeneralizedPosterior(LogPosterior):
    """The posterior density of a generalised model.

    Attributes
    ----------
    model : Generalized
    X : ndarray, shape (n, p)
        The fixed columns, centred where the priors hold for centred predictors.
    change : ndarray, shape (p, p)
        Turns coefficients of these columns into the user's.
    precision : ndarray, shape (p,)
        The precisions of normal priors of the fixed effects; zero for others.
    space : Space
    bases : tuple of ndarray, shape (k, k)
    n_agq : int
        Points of the quadrature in each dimension; 1 for the Laplace approximation.
    component_points : mapping of int to int
        Points of `log_density` for independent components of the data, by the number of their
        effects; `n_agq` where there is no entry.
    """

    model: Generalized
    X: Array
    change: Array
    precision: Array
    space: Space
    bases: tuple[Array, ...]
    n_agq: int = 1
    component_points: Mapping[int, int] = field(default_factory=dict)

    @property
    def approximation(self) -> str:
        return f"{self.n_agq}-point quadrature" if self.n_agq > 1 else "Laplace's approximation"

    @property
    def p(self) -> int:
        """The number of fixed effects."""
        return int(self.X.shape[1])

    @property
    def width(self) -> int:
        return self.model.problem.Z.q_rest

    def setting(self, values: Array) -> Setting:
        """Return the setting of the likelihood at values."""
        return self.at(values, self.basis_factors(values))

    def at(self, values: Array, Lambdas: Sequence[Array]) -> Setting:
        """Return the setting at values of the effects and own parameters, and factors."""
        known = self.model.offset + self.X @ values[: self.p]
        return Setting(
            self.model.problem, known, self.X[:, :0], list(Lambdas), values[self._own_places]
        )

    def likelihood(self, values: Array) -> tuple[float, Array]:
        likelihood = self.evaluate(self.setting(values))
        if likelihood is None:
            return -np.inf, np.zeros(len(values))
        derivatives = self.by_effects(likelihood, values)
        self.by_values(likelihood.Lambdas, values, derivatives)
        return likelihood.value, derivatives

    def log_density(self, x: Array) -> Array:
        values, logp = self.space.values(x)
        with threads_for(self.width), np.errstate(all="ignore"):
            if self._pieces is None:
                points = tracked("Evaluating the posterior", values)
                logp += [self._value(self.setting(point)) for point in points]
            for piece in self._pieces or ():
                logp += self.log_densities(piece, values, self._nodes(piece.q)).sum(axis=1)
        return np.where(np.isfinite(logp), logp, -np.inf)

    def correction(self, x: Array) -> tuple[float, float]:
        """Return what log p(y) lacks, by more nodes or by draws of the random effects.

        The true log p(y) is the approximate one and log E exp(off), over its posterior: `off` says
        at a draw how far log p(y | values) is off.
        """
        with threads_for(self.width), np.errstate(all="ignore"):
            x = evenly(x, min(map(self._affordable, self._every_piece), default=MAX_DRAWS))
            off = sum(self._deviations(piece, x) for piece in self._every_piece)
        second, third = cumulant_terms(np.asarray(off))
        chance = second.std() / np.sqrt(len(second))
        return float(second.mean()), float(chance + abs(third.mean()))

    def _deviations(self, piece: Piece, x: Array) -> Array:
        """Return log ratios, shape (points,), whose exponentials have the right mean.

        Where components have few effects, those of a quadrature with more nodes; otherwise each
        from two opposite draws of the effects.
        """
        values, nodes, more = self.space.values(x)[0], self._nodes(piece.q), self._reference(piece)
        own = self.log_densities(piece, values, nodes)
        if more is not None:
            return np.asarray((self.log_densities(piece, values, more) - own).sum(axis=1))
        if not piece.q:
            return np.zeros(len(x))
        off, points_at = np.empty(len(x)), self.points_at(values, piece.rows)
        rng = np.random.default_rng(SEED)
        for chosen, search, modes in modes_of(
            piece, points_at, len(values), self.modes_at_start(piece)
        ):
            tilts = modes.tilts(search, rng.standard_normal(modes.u.shape))
            off[chosen] = (modes.laplace + tilts - own[chosen]).sum(axis=1)
        return off

    def _reference(self, piece: Piece) -> Rule | None:
        """Return nodes that hardly err for the components of a piece, if they have few effects."""
        points = REFERENCE_POINTS.get(piece.q) if piece.is_elementwise else None
        return None if points is None else rule(points, piece.q)

    def _affordable(self, piece: Piece) -> int:
        """Return the number of points at which `_deviations` are to be had."""
        more = self._reference(piece)
        nodes = 1 if more is None else len(more.log_weights)
        return int(np.clip(MAX_COST / max(nodes * piece.weight(), 1), MIN_DRAWS, MAX_DRAWS))

    def log_densities(self, piece: Piece, values: Array, nodes: Rule | None = None) -> Array:
        """Return log p(y_R | values) of each component of a piece, shape (points, P)."""
        points_at, start = self.points_at(values, piece.rows), self.modes_at_start(piece)
        return log_densities(piece, points_at, len(values), start, nodes)

    def modes_at_start(self, piece: Piece) -> Array:
        """Return the modes where every search starts, shape (1, P, q)."""
        return piece.gathered([u[None] for u in self._u])

    def points_at(self, values: Array, rows: Places) -> Callable[[slice], Points]:
        """Return a function from a slice to the `points` of these values."""
        return lambda chosen: self.points(values[chosen], rows)

    def points(self, values: Array, rows: Places) -> Points:
        """Return the settings of the likelihood of some rows, for values of many points."""
        return Points(
            known=self.model.offset[rows] + values[:, : self.p] @ self.X[rows].T,
            Lambdas=self.basis_factors(values),
            psi=values[:, self._own_places],
        )

    @cached_property
    def _every_piece(self) -> list[Piece]:
        """The independent components of the data, alike ones together."""
        return pieces_of(self.model.problem, by_level=self.model.has_one_factor)

    @cached_property
    def _pieces(self) -> list[Piece] | None:
        """All of them; None where there are so many effects that points go one by one."""
        return self._every_piece if go_together(self._every_piece) else None

    def _nodes(self, q: int) -> Rule | None:
        """Return the nodes for components with q effects; None for the Laplace approximation."""
        points = self.component_points.get(q, self.n_agq if self.model.has_one_factor else 1)
        return rule(points, q) if points > 1 and q else None

    def _value(self, setting: Setting) -> float:
        try:
            return self.model.log_likelihood(setting, self._u, self.n_agq)
        except (NoModesError, np.linalg.LinAlgError):
            return -np.inf

    def by_effects(self, likelihood: Likelihood, values: Array) -> Array:
        """Return the derivatives by effects and own parameters, shape (n_values,), else zero."""
        derivatives = np.zeros(len(values))
        derivatives[: self.p] = self.X.T @ likelihood.rows
        slopes = self.model.family.link_slopes(self.own(values))
        derivatives[self._own_places] = likelihood.psi / slopes
        return derivatives

    def own(self, values: Array) -> Array:
        """Return the family's own parameters, in its order."""
        return np.asarray(values[self._own_places])

    def evaluate(self, setting: Setting) -> Likelihood | None:
        """Return the likelihood of a setting, or None where it cannot be computed."""
        return if_any(lambda: self.model.likelihood(setting, self._u, self.n_agq))

    @cached_property
    def term_changes(self) -> list[Array]:
        return [linalg.solve(T, A) for T, A in zip(self.model.bases, self.bases, strict=True)]

    def given_values(self, draws: Draws) -> Array:
        names = self.space.names[self.p : self.space.n_given]
        beta = np.linalg.solve(self.change, draws.beta.T).T
        return np.column_stack([beta, *(draws.parameters[name] for name in names)])

    def draw(self, values: Array, rng: np.random.Generator) -> Draws:
        """Draw random effects from the normal approximation at their modes, all else given."""
        names = self.model.family.parameters
        parameters = dict(zip(names, values[:, self._own_places].T, strict=True))
        return Draws(
            beta=values[:, : self.p] @ self.change.T,
            sigma=parameters.pop("sigma", None),
            factors=self.users_factors(values),
            b=self._effects(values, rng),
            parameters=parameters,
        )

    def _effects(self, values: Array, rng: np.random.Generator) -> list[Array]:
        """Return drawn effects of each term, shape (points, m, k), on the user's scale."""
        blocks, bases = self.model.problem.Z.blocks, self.model.bases
        sizes = [block.n_levels * block.k for block in blocks]
        noise = rng.standard_normal((len(values), sum(sizes)))
        z = [
            noise[:, span].reshape(len(values), block.n_levels, block.k)
            for span, block in zip(spans(sizes), blocks, strict=True)
        ]
        with threads_for(self.width), np.errstate(all="ignore"):
            b = self._effects_of(values, z)
        return [of_term @ np.linalg.inv(T).T for of_term, T in zip(b, bases, strict=True)]

    def _effects_of(self, values: Array, z: Sequence[Array]) -> list[Array]:
        """Return drawn effects of each term, in the basis, from standard normal numbers."""
        Lambdas = self.basis_factors(values)
        b = [noise @ Lambda.swapaxes(1, 2) for noise, Lambda in zip(z, Lambdas, strict=True)]
        if not b:
            return b
        if self._pieces is None:
            for i, point in enumerate(tracked("Drawing random effects", values)):
                drawn_at_point = self._drawn(point, [noise[i] for noise in z])
                for of_term, drawn in zip(b, drawn_at_point, strict=True):
                    of_term[i] = drawn
            return b
        for piece in self._pieces:
            points_at = self.points_at(values, piece.rows)
            for chosen, search, modes in modes_of(
                piece, points_at, len(values), self.modes_at_start(piece)
            ):
                u = modes.drawn(piece.gathered([noise[chosen] for noise in z]))
                for term, levels, drawn in zip(
                    piece.terms, piece.levels, piece.effects(u, search.points), strict=True
                ):
                    b[term][chosen, levels] = drawn
        return b

    def _drawn(self, values: Array, noise: Sequence[Array]) -> list[Array]:
        """Return drawn effects of each term at one point, shape (m, k), in the basis."""
        setting = self.setting(values)
        modes = find_modes(setting, self._u, np.empty(0))
        around = blocked_cholesky.modes(modes.factorized, np.empty(0), noise)
        return [
            u @ Lambda.T + drawn
            for u, Lambda, drawn in zip(modes.u, setting.Lambdas, around, strict=True)
        ]

    def first_values(self) -> tuple[Array, list[Array]]:
        values = np.zeros(self.space.n_given + 1)
        values[: self.p] = np.linalg.lstsq(self.X, self.model.X @ self.model.gamma, rcond=None)[0]
        values[self._own_places] = self.model.psi
        return values, list(self.model.Lambdas)

    def units(self) -> Array:
        """Return about the standard errors of the fixed effects, as a matrix."""
        setting, modes = self._at_start
        W = self.model.family.information(modes.eta, self.model.problem.weights, setting.psi)
        information = setting.information(self.X, W) + np.diag(self.precision)
        units = np.eye(self.space.d)
        free = self.space.free[self.space.free < self.p]
        units[: len(free), : len(free)] = units_of(information[np.ix_(free, free)])
        return units

    @cached_property
    def _own_places(self) -> list[int]:
        """The positions of the family's own parameters among the values, in its order."""
        names = list(self.space.names)
        return [names.index(name, self.p) for name in self.model.family.parameters]

    @cached_property
    def _u(self) -> list[Array]:
        """The conditional modes at the start, from which every other search begins."""
        return self._at_start[1].u

    @cached_property
    def _at_start(self) -> tuple[Setting, Modes]:
        """The setting at the start, and its conditional modes."""
        setting = self.setting(self.space.values(self.start())[0])
        return setting, find_modes(setting, self.model.zeros(), np.empty(0))


def evenly(x: Array, most: int) -> Array:
    """Return at most so many draws, evenly spaced."""
    if len(x) <= most:
        return x
    return x[np.linspace(0, len(x) - 1, most).round().astype(np.intp)]


def joint_of(
    design: Design, family: Family, priors: Priors, n_agq: int = 1, *, together: bool = True
) -> GeneralizedPosterior:
    """Return the posterior density of a generalised model.

    Parameters
    ----------
    design : Design
        With all columns of X, also those that are combinations of others.
    family : Family
    priors : Priors
        Of all parameters.
    n_agq : int
    together : bool
        Whether the likelihood may read rows with equal predictors as one.
    """
    model = prepare(full_rank(design), family, together=together)
    p = len(design.fixed)
    change = np.eye(p) if priors.change is None else priors.change
    changes = [np.eye(len(t.coefs)) if t.change is None else t.change for t in priors.terms]
    sds = [prior.sigma if isinstance(prior, Normal) else np.inf for prior in priors.beta]
    return GeneralizedPosterior(
        model=model,
        X=model.cells.first(design.distinct.X) @ change,
        change=change,
        precision=1 / np.array(sds).reshape(p) ** 2,
        space=space_of(priors, all_effects=True),
        bases=tuple(T @ change for T, change in zip(model.bases, changes, strict=True)),
        n_agq=n_agq,
    )
