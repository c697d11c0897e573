"""Moments, densities and draws of a posterior by quadrature, computed when they are asked for.

Given the variance parameters, fixed and random effects are normal. So the posterior of each is a
mixture of normals over the nodes of a lattice; moments are sums over its nodes, and the density
of a variance parameter is an integral over the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import scipy

from ranef._typing import Array, Places
from ranef.covariances.partial_correlations import correlations
from ranef.design.design import Design, RandomTerm
from ranef.design.labels import parameter_names
from ranef.design.new_data.new_rows import NewRows
from ranef.errors import probability
from ranef.families.gaussian import GAUSSIAN
from ranef.likelihood.linear import many_thetas
from ranef.likelihood.predictions import Draws, NormalRows, variance_of_new
from ranef.numerics.memory import WithoutCaches
from ranef.posterior.draws import DrawnMarginals, check_room, tree
from ranef.posterior.laplace import Mode, find_mode
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.quadrature.few_nodes import FewNodes, few_nodes
from ranef.posterior.quadrature.lattice import Lattice, draw_values, even_steps, integrate, lattice
from ranef.posterior.quadrature.marginal_densities import (
    MAX_FALL,
    Curve,
    along,
    marginal_density,
    mixture,
    shows,
)
from ranef.posterior.quadrature.node_mixtures import Mixture, heaviest, mixture_of
from ranef.posterior.quadrature.whitening import Frame, frame
from ranef.priors.assignment import Priors

COARSE_STEP, MEDIUM_STEP = 0.8, 0.65  # between the nodes, in standard deviations
MIN_RELATIVE_VARIANCE = 1e-14  # of a random effect at a node
NEGLIGIBLE = 1e-7  # share of the posterior in nodes that are left out
MAX_RANGE_OVER_WIDTH = 4000  # of the range of an effect to a component of its density
NEGLIGIBLE_IN_DENSITIES = 1e-6  # ... where the density of an effect is a mixture of all nodes


type Parts = tuple[Array, Array, Array]
"""Of numbers at nodes: means where gamma is zero, slopes by gamma, variances over sigma^2."""


@dataclass(frozen=True, eq=False)
class Exact(WithoutCaches):
    """The posterior of a Gaussian model with few variance parameters.

    Attributes
    ----------
    target : LinearPosterior
    mode : Mode
    frame : Frame
    lattice : Lattice
    """

    target: LinearPosterior
    mode: Mode
    frame: Frame
    lattice: Lattice

    @staticmethod
    def of(target: LinearPosterior, *, max_error: float | None = None) -> Exact:
        """Integrate a posterior until the relative error of p(y) is small enough."""
        mode = find_mode(target)
        integrated = integrate(frame(target, mode), max_error)
        return Exact(target, mode, integrated.frame, integrated)

    @property
    def log_evidence(self) -> float:
        """The logarithm of p(y)."""
        return self.lattice.log_evidence

    @property
    def error(self) -> float:
        """Bound of the error of log p(y)."""
        return self.lattice.error

    @cached_property
    def mixture(self) -> Mixture:
        """All nodes of the lattice that count."""
        return heaviest(self.lattice, NEGLIGIBLE)

    @cached_property
    def coarse(self) -> Lattice:
        """A coarse lattice, for smooth densities and ratios of integrals: relative error 1e-5."""
        return lattice(self.frame, even_steps(self.frame, COARSE_STEP))

    @cached_property
    def medium(self) -> Lattice:
        """A lattice for ratios of integrals that need more nodes than the coarse one has."""
        return lattice(self.frame, even_steps(self.frame, MEDIUM_STEP))

    @cached_property
    def few(self) -> FewNodes:
        """Few nodes that stand for all where the mean of a smooth quantity is wanted."""
        return few_nodes(self.coarse)

    @cached_property
    def _coarse(self) -> Mixture:
        """Nodes for the densities of effects."""
        return heaviest(self.coarse, NEGLIGIBLE_IN_DENSITIES)

    # -------------------------------------------------------------------- variance parameters

    def expected(self, values: Array) -> Array:
        """Return the posterior mean of a quantity from its values at the nodes, shape (C, ...)."""
        return np.asarray(np.tensordot(self.mixture.weights, values, axes=1))

    def curve(self, place: int, *, relative: bool = False) -> Curve:
        """Return the density of one free value of the space, or of an sd relative to sigma."""
        nodes = self._inner
        if relative or not shows(nodes, self.mode, place):  # near zero a ratio needs finer steps
            nodes = along(self.target, self.mode, place)
        return marginal_density(nodes, place, relative=relative)

    @cached_property
    def _inner(self) -> Lattice:
        """The lattice as far as densities of variance parameters are followed."""
        return self.lattice.down_to(MAX_FALL)

    # ----------------------------------------------------------------------------- the effects

    def _given(self, mixture: Mixture) -> Array:
        """Return the fixed effects that are given at the nodes."""
        return mixture.nodes.values[:, : self.target.space.n_given]

    def beta(self, mixture: Mixture) -> tuple[Array, Array]:
        """Return mean and covariance of the user's fixed effects, (C, p) and (C, p, p)."""
        fixed, (gamma, cov) = self.target.fixed, mixture.gamma()
        return fixed.effects(gamma, self._given(mixture)[mixture.rows]), fixed.covariance(cov)

    @cached_property
    def beta_moments(self) -> tuple[Array, Array]:
        """Posterior mean and covariance of the fixed effects."""
        means, weights = self._every_beta[0], self.mixture.weights
        mean = weights @ means
        deviations = np.sqrt(weights)[:, None] * (means - mean)
        within = self.target.fixed.covariance(self.mixture.covariance_within())
        return mean, within + deviations.T @ deviations

    def _linear(
        self, mixture: Mixture, X: Array, terms: Sequence[Parts] = ()
    ) -> tuple[Array, Array]:
        """Return mean and variance of X beta and what terms add to it, shapes (C, n)."""
        fixed, given = self.target.fixed, self._given(mixture)
        at_zero = np.zeros((len(given), fixed.J.shape[1]))
        integrated = X @ fixed.change[:, fixed.order[0]]
        mean, slope = fixed.effects(at_zero, given) @ X.T, (integrated @ fixed.back)[None]
        within = np.zeros_like(mean)
        for of_mean, of_slope, of_variance in terms:
            mean, slope, within = mean + of_mean, slope + of_slope, within + of_variance
        mean, variance = mixture.linear(mean, slope, within)
        return mean, variance + ((integrated @ fixed.noise) ** 2).sum(axis=1)

    @cached_property
    def _every_beta(self) -> tuple[Array, Array]:
        """Mean and variance of the fixed effects at all nodes, shape (C, p)."""
        return self._linear(self.mixture, np.eye(len(self.target.fixed.change)))

    def beta_curve(self, j: int) -> Curve | float:
        """Return the density of the j-th fixed effect, or its value where it is known."""
        fixed, space = self.target.fixed, self.target.space
        given = np.flatnonzero(fixed.change[j, fixed.order[1]])
        involved = np.intersect1d(given, space.free)
        if len(given) == np.count_nonzero(fixed.change[j]) and not len(involved):
            return float(fixed.change[j, fixed.order[1]] @ space.known[: space.n_given])
        if not len(involved):
            means, variances = self._every_beta
            return mixture(self.mixture.weights, means[:, j], np.sqrt(variances[:, j]))
        first = int(involved[0])
        if np.count_nonzero(fixed.change[j]) == 1:
            return self.curve(first)
        return self._curve_with_given(j, first)

    def _curve_with_given(self, j: int, first: int) -> Curve:
        """Return the density of an effect that is a sum of a given one and others.

        Along the given one, weight, mean and variance of the sum are interpolated.
        """
        line = along(self.target, self.mode, first)
        mixed = mixture_of(line, line.weights > 0)
        nodes = line.z[mixed.rows, 0] * line.steps[0]
        unit = np.eye(len(self.target.fixed.change))[[j]]
        weights, (means, variances) = mixed.weights, self._linear(mixed, unit)
        slices, place = np.unique(nodes, return_inverse=True)
        share = np.bincount(place, weights)
        mean = np.bincount(place, weights * means[:, 0]) / share
        spread = variances[:, 0] + (means[:, 0] - mean[place]) ** 2
        variance = np.bincount(place, weights * spread) / share
        # components much narrower than the whole need not be, but they have to overlap
        variance = np.maximum(variance, (np.ptp(mean) / MAX_RANGE_OVER_WIDTH) ** 2)
        table = np.column_stack([np.log(share), mean, np.log(variance)])
        size = max(8 * (len(slices) - 1), int(2 * np.ptp(mean) / np.sqrt(variance.min())))
        fine = np.linspace(slices[0], slices[-1], size + 1)
        log_share, mean, log_variance = scipy.interpolate.make_interp_spline(slices, table, k=5)(
            fine
        ).T
        share = np.exp(log_share)
        return mixture(share / share.sum(), mean, np.exp(log_variance / 2))

    @cached_property
    def _given_gamma(self) -> list[many_thetas.Moments]:
        """The random effects given gamma at the coarse nodes."""
        cross, turned = self.target.cross, []
        Lambdas = self.target.basis_factors(self._coarse.nodes.values)
        for of_term, T in zip(many_thetas.moments(cross, Lambdas), cross.bases, strict=True):
            turn = np.linalg.inv(T)
            cov = turn @ of_term.cov @ turn.T
            turned.append(many_thetas.Moments(of_term.mean @ turn.T, turn @ of_term.slope, cov))
        return turned

    def _of_levels(self, term: int, z: Array, codes: Places) -> Parts:
        """Return what z'b of levels adds at the coarse nodes to mean, slopes and variance."""
        of_term, fixed = self._given_gamma[term], self.target.fixed
        slope = np.einsum("nk,dnkp->dnp", z, of_term.slope[:, codes])
        mean = np.einsum("nk,dnk->dn", z, of_term.mean[:, codes])
        mean += np.einsum("dnp,dp->dn", slope, fixed.offset(self._given(self._coarse)))
        within = np.einsum("nk,dnkl,nl->dn", z, of_term.cov[:, codes], z)
        return mean, slope @ fixed.J, within

    @cached_property
    def _effects(self) -> list[tuple[Array, Array]]:
        """Mean and variance of the random effects of each term at the coarse nodes, (C, m, k)."""
        moments = []
        for t, (m, c) in enumerate(
            zip(self.target.cross.n_levels, self.target.cross.covariances, strict=True)
        ):
            parts = self._of_levels(t, np.tile(np.eye(c.k), (m, 1)), np.repeat(np.arange(m), c.k))
            mean, variance = self._coarse.linear(*parts)
            moments.append((mean.reshape(-1, m, c.k), variance.reshape(-1, m, c.k)))
        return moments

    @cached_property
    def effect_moments(self) -> list[tuple[Array, Array]]:
        """Posterior mean, (m, k), and sd of the random effects, term by term."""
        pooled, weights = [], self._coarse.weights
        for means, variances in self._effects:
            mean = np.tensordot(weights, means, axes=1)
            variance = np.tensordot(weights, variances + (means - mean) ** 2, axes=1)
            pooled.append((mean, np.sqrt(np.maximum(variance, 0.0))))
        return pooled

    def effect_curve(self, term: int, level: int, coef: int) -> Curve:
        """Return the density of one random effect."""
        mean, variance = (moment[:, level, coef] for moment in self._effects[term])
        floor = (variance.max() * MIN_RELATIVE_VARIANCE) ** 0.5  # below is rounding
        sds = np.maximum(np.sqrt(np.maximum(variance, 0.0)), floor)
        return mixture(self._coarse.weights, mean, sds)

    def normal_rows(self, rows: NewRows, labels: Sequence[str]) -> NormalRows:
        """Return the linear predictor of rows with known levels of one term at most.

        Parameters
        ----------
        rows : NewRows
        labels : sequence of str
            Of all terms of the model.
        """
        coarse, known = self._coarse, [term for term in rows.terms if not term.is_new.all()]
        terms = [
            self._of_levels(labels.index(t.label), t.columns * ~t.is_new[:, None], t.codes)
            for t in known
        ]
        mean, variance = self._linear(coarse, rows.X, terms)
        scaled = dict(zip(labels, self._coarse_factors, strict=True))
        return NormalRows(
            weights=coarse.weights,
            mean=mean + rows.offset,
            variance=variance,
            between=variance_of_new(rows.terms, scaled),
            psi=coarse.sigma[None],
        )

    @cached_property
    def _coarse_factors(self) -> list[Array]:
        """A square root of each term's covariance at the coarse nodes, on the user's scale."""
        coarse = self._coarse
        sigma, factors = coarse.sigma[:, None, None], self.target.users_factors(coarse.nodes.values)
        return [sigma * F[coarse.rows] for F in factors]

    # ------------------------------------------------------------------------------- the draws

    def draw(self, n: int, rng: np.random.Generator) -> Draws:
        """Draw from the posterior."""
        values = draw_values(self.lattice, n, rng)
        return self.target.draw(values, rng)


@dataclass(frozen=True, eq=False, repr=False)
class LatticeMarginals(WithoutCaches):
    """What a lattice says of each parameter, without Monte Carlo noise.

    Attributes
    ----------
    design : Design
    priors : Priors
    exact : Exact
    n_draws : int
        How many draws are made where draws are asked for.
    seed : int or None
    """

    design: Design
    priors: Priors
    exact: Exact
    n_draws: int
    seed: int | None

    @cached_property
    def drawn(self) -> DrawnMarginals:
        """Draws, made when they are first asked for."""
        check_room(self.design, self.n_draws)
        draws = self.exact.draw(self.n_draws, np.random.default_rng(self.seed))
        return DrawnMarginals(
            self.design,
            GAUSSIAN,
            tree(self.design, draws, chains=1, priors=self.priors),
            independent=True,
        )

    @property
    def chains(self) -> None:
        """None: draws are independent."""
        return None

    @property
    def size(self) -> list[str]:
        """Empty, as no number rests on draws."""
        return []

    def parameter(self, name: str) -> Array:  # noqa: ARG002 -- the normal family has no other
        """Return sigma at the nodes."""
        return self.exact.mixture.sigma

    def sds(self, term: RandomTerm) -> Array:
        """Return the standard deviations of a term at the nodes, shape (nodes, k)."""
        mixture = self.exact.mixture
        ratios = np.linalg.norm(self._relative_factor(term), axis=2)
        return np.asarray(mixture.sigma[:, None] * ratios[mixture.rows])

    def correlations(self, term: RandomTerm) -> Array:
        """Return the correlations of a term at the nodes, shape (nodes, k, k)."""
        factor = self._relative_factor(term)
        corr = correlations(factor / np.linalg.norm(factor, axis=2)[:, :, None])
        return np.asarray(corr[self.exact.mixture.rows])

    def expected(self, values: Array) -> Array:
        """Return the posterior mean of something known at the nodes."""
        return self.exact.expected(values)

    @property
    def fixed_moments(self) -> tuple[Array, Array]:
        """The posterior mean and covariance of the fixed effects."""
        return self.exact.beta_moments

    @property
    def effect_moments(self) -> list[tuple[Array, Array]]:
        """The posterior mean and sd of the random effects, shape (m, k), term by term."""
        return self.exact.effect_moments

    def effect_hdi(self, prob: float) -> list[tuple[Array, Array]]:
        """Return the bounds of highest density intervals of the random effects, shape (m, k)."""
        prob, bounds = probability(prob), []
        for t, (mean, _) in enumerate(self.effect_moments):
            curves = (self.exact.effect_curve(t, *place) for place in np.ndindex(mean.shape))
            ends = np.array([curve.hdi(prob) for curve in curves]).reshape(*mean.shape, 2)
            bounds.append((ends[..., 0], ends[..., 1]))
        return bounds

    @property
    def n_points(self) -> int:
        """The number of nodes by fixed effects, or of draws."""
        nodes = self.exact.coarse.log_density.size * (1 + len(self.design.fixed))
        return max(nodes, self.n_draws)

    def normal_rows(self, rows: NewRows) -> NormalRows:
        """Return the linear predictor of rows: exactly, or of known levels of two terms by draws.

        Their effects depend on each other, which draws know.
        """
        if sum(not term.is_new.all() for term in rows.terms) > 1:
            return self.drawn.normal_rows(rows)
        return self.exact.normal_rows(rows, [term.label for term in self.design.terms])

    def table(self, prob: float) -> pd.DataFrame:
        """Return mean, sd and highest density interval of every parameter."""
        beta, cov = self.fixed_moments
        variances = self._variances()
        means = [*beta, *self.expected(variances)]
        squares = self.expected((variances - means[len(beta) :]) ** 2)
        sds = np.sqrt(np.maximum([*np.diag(cov), *squares], 0.0))
        rows = {}
        for name, mean, sd in zip(parameter_names(self.design), means, sds, strict=True):
            curve = self.curve(name)
            if isinstance(curve, float):
                rows[name] = (curve, 0.0, curve, curve)
            else:
                rows[name] = (mean, sd, *curve.hdi(prob))
        columns = ["mean", "sd", "lower", "upper"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns)

    def curve(self, name: str) -> Curve | float:
        """Return the density of a parameter, or the value of one that is known.

        Parameters
        ----------
        name : str
            As `design.labels.parameter_names` has it.
        """
        space, place = self.exact.target.space, parameter_names(self.design).index(name)
        if place < len(self.design.fixed):
            return self.exact.beta_curve(place)
        return self._curve_of_variance(space.names.index(name, space.n_given))

    def _curve_of_variance(self, place: int) -> Curve | float:
        space = self.exact.target.space
        if place in space.free:
            return self.exact.curve(place)
        value = float(space.known[place])
        sigma = self._curve_of_variance(space.n_given) if space.relative[place] else 1.0
        if isinstance(sigma, float):
            return value * sigma
        return Curve(value * sigma.values, sigma.density / value, sigma.t, value * sigma.slope)

    def _relative_factor(self, term: RandomTerm) -> Array:
        """Return a square root of a term's covariance over sigma^2, where the nodes differ."""
        labels, values = [t.label for t in self.design.terms], self.exact.mixture.nodes.values
        return self.exact.target.users_factors(values)[labels.index(term.label)]

    def _variances(self) -> Array:
        """Return sigma, sds and correlations at the nodes, in the order of their names."""
        columns = [self.exact.mixture.sigma[:, None]]
        for term in self.design.terms:
            columns.append(self.sds(term))
            corr = self.correlations(term)
            columns += [corr[:, i, j, None] for i, j in term.covariance.pairs]
        return np.concatenate(columns, axis=1)
