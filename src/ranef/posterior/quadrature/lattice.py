"""The posterior of a few variance parameters by deterministic integration.

The trapezoid rule on a lattice, in coordinates that the Laplace approximation has whitened,
converges geometrically for a smooth density. The lattice is grown from the mode until the density
has fallen by a fixed factor all around, so that a long tail, as where an sd may be zero, is
followed as far as it goes.

At every other node, as on a chessboard, the values of log sigma are shifted by half their distance,
which may then be longer: no wave that such a lattice takes for a constant is longer than those of
a cubic one. With three other coordinates it is twice as long, and half of all values are left.

Equation `lattice` in docs/mathematics.
Sources: Trefethen & Weideman (2014), *SIAM Review* 56(3) (the trapezoid rule); Conway & Sloane
(1999), *Sphere Packings, Lattices and Groups*, chapter 4 (the checkerboard lattice).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeGuard, cast

import numpy as np

from ranef._typing import Array, Flags, Integers, Places
from ranef.errors import FitError, listed
from ranef.likelihood.linear import many_thetas
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.importance_sampling import smoothed, systematic
from ranef.numerics.matrices import leading_choleskies, symmetric_eigen
from ranef.numerics.memory import WithoutCaches
from ranef.posterior.laplace import FEWEST
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.quadrature.whitening import Frame, log_prior, values_at
from ranef.posterior.transforms import LOGIT
from ranef.progress import Advance, running

MAX_COORDINATES = 4
STEP = 0.6  # between the nodes, in standard deviations
MAX_ERROR = 1e-6  # relative, of p(y)
MAX_BEYOND_EDGE = 10.0  # ratio of the density beyond an edge to that at it
CUT = 20.0  # fall of the log density at which the lattice ends
MIN_RADIUS = 5.0  # standard deviations around the mode that are always taken
MAX_REFINEMENTS = 4
MAX_VALUES = 1_000_000  # of the density, beyond which nothing grows and there is no refinement
FINER = 0.75  # ratio of steps to those before
OUTSIDE = 2.0  # ratio of the density outside to that of the outermost nodes
MAX_AXIS = 400  # values of sigma
MORE = 2.0  # conditional sds beyond an end of the axis where it is not enough
LOG_SIGMA_RANGE = (-7.5, 8.0)  # in conditional standard deviations; extended where not enough


def check_feasible(target: LinearPosterior) -> None:
    """Refuse a posterior that a lattice cannot take.

    Raises
    ------
    FitError
        With more than four free parameters, a uniform prior of an sd, or an sd that is known
        where sigma is not.
    """
    space = target.space
    for covariance in space.covariances:
        covariance.check_free("quadrature")
    if space.d > MAX_COORDINATES:
        raise FitError(
            f"the posterior has {space.d} parameters that are not integrated out "
            f"({listed(space.free_names, limit=10)}); quadrature takes up to {MAX_COORDINATES}: "
            'use method="mcmc" or "laplace".'
        )
    edges = [
        space.names[place]
        for place, c in zip(space.free, space.coordinates, strict=True)
        if c.transform == LOGIT and place >= space.n_given
    ]
    if edges:
        raise FitError(
            f"the prior of {listed(edges)} is uniform and ends abruptly, which quadrature cannot "
            'integrate over: use method="mcmc" or "laplace", or a prior such as HalfNormal.'
        )
    sds = [place for sd, _ in space.places for place in range(sd.start, sd.stop)]
    fixed = [space.names[place] for place in sds if np.isfinite(space.known[place])]
    absolute = [name for name in fixed if not space.relative[space.names.index(name)]]
    if absolute and space.n_given in space.free:
        raise FitError(
            f"{listed(absolute)} known without sigma leaves no ratio to it to integrate over: know "
            'sigma too, or the ratio, Relative(Constant(...)); or use method="mcmc" or "laplace".'
        )


def is_feasible(target: LogPosterior) -> TypeGuard[LinearPosterior]:
    """Whether a lattice can take a posterior."""
    if not target.can_be_integrated:
        return False
    try:
        check_feasible(cast("LinearPosterior", target))
    except FitError:
        return False
    return True


@dataclass(frozen=True, eq=False)
class Nodes:
    """The posterior at points xi, up to what depends on sigma.

    Attributes
    ----------
    values : ndarray, shape (N, n_values)
        Sds are relative to sigma, on the scale that the priors hold for.
    log_density : ndarray, shape (N,)
        The terms that do not depend on sigma.
    rss : ndarray, shape (N,)
        y' V^-1 y with the given effects taken off.
    basis : ndarray, shape (N, r, r)
        B with K = B^-1 (I + sigma^2 diag(spectrum)) B^-T for the precision K / sigma^2 of gamma.
    spectrum : ndarray, shape (N, r)
        The prior's precision in units of the data's.
    data, prior : ndarray, shape (N, r)
        The information on gamma in data and prior, in the basis B.
    logdet : ndarray, shape (N,)
    products : ndarray, shape (N, (p + 1) (p + 2) / 2)
        What the random effects leave of the data: log|M|, and the lower triangle of the
        cross-products of [X y] in the metric of V^-1. All else but the values follows from these.
    """

    values: Array
    log_density: Array
    rss: Array
    basis: Array
    spectrum: Array
    data: Array
    prior: Array
    logdet: Array
    products: Array

    def __getitem__(self, chosen: Any) -> Nodes:
        return Nodes(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @staticmethod
    def joined(parts: Sequence[Nodes]) -> Nodes:
        """Join the nodes of several calls."""
        names = [f.name for f in fields(Nodes)]
        return Nodes(**{n: np.concatenate([getattr(part, n) for part in parts]) for n in names})


@np.errstate(all="ignore")
def nodes_at(frame: Frame, xi: Array) -> Nodes:
    """Return the nodes at points, shape (N, heavy)."""
    values, logp = values_at(frame, xi)
    target = frame.target
    logdet, reduced = many_thetas.reduced(target.condensed, target.basis_factors(values))
    products = reduced[:, *np.tril_indices(reduced.shape[-1])]
    # without random effects they are the same at all points
    logdet = np.broadcast_to(logdet, len(values))
    products = np.broadcast_to(products, (len(values), products.shape[1]))
    return _nodes(frame, values, logp, logdet, products)


def nodes_again(frame: Frame, xi: Array, logdet: Array, products: Array) -> Nodes:
    """Return the nodes at points, shape (N, heavy), from what the random effects leave."""
    with np.errstate(all="ignore"):
        return _nodes(frame, *values_at(frame, xi), logdet, products)


def _nodes(frame: Frame, values: Array, logp: Array, logdet: Array, products: Array) -> Nodes:
    target, fixed = frame.target, frame.target.fixed
    reduced = _symmetric(products, target.cross.p + 1)
    given = values[:, : target.space.n_given]
    turn = fixed.turn(given if given.size else given[:1])  # without any, one is that of all
    total = turn.swapaxes(1, 2) @ reduced @ turn
    root, usable = leading_choleskies(total)
    inverse = np.linalg.inv(root)
    precision = fixed.rows[:, :-1].T @ fixed.rows[:, :-1]
    spectrum, vectors = symmetric_eigen(inverse @ precision @ inverse.swapaxes(1, 2))
    basis = vectors.swapaxes(1, 2) @ inverse
    logp = logp + fixed.constant + (target.cross.log_weights - logdet) / 2
    logp -= np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    return Nodes(
        values=values,
        log_density=np.where(usable & np.isfinite(logp), logp, -np.inf),
        rss=total[:, -1, -1],
        basis=basis,
        spectrum=np.maximum(spectrum, 0.0),
        data=(basis @ total[:, :-1, -1:])[:, :, 0],
        prior=basis @ (fixed.rows[:, :-1].T @ fixed.rows[:, -1]),
        logdet=logdet,
        products=products,
    )


def _symmetric(lower: Array, size: int) -> Array:
    """Return symmetric matrices from their lower triangles, shape (N, size (size + 1) / 2)."""
    place = np.zeros((size, size), dtype=np.intp)
    place[np.tril_indices(size)] = np.arange(lower.shape[1])
    return lower[:, np.maximum(place, place.T)]


def log_joint(frame: Frame, nodes: Nodes, center: Array, axis: Array) -> Array:
    """Return the log density of (xi, log sigma), up to p(y), shape (N, T).

    Parameters
    ----------
    frame : Frame
    nodes : Nodes
    center : ndarray, shape (N,)
        A value of log sigma at each node.
    axis : ndarray, shape (T,)
        By how much log sigma differs from that.
    """
    space, cross, fixed = frame.target.space, frame.target.cross, frame.target.fixed
    log_sigma = center[:, None] + axis
    variance = np.exp(2 * center)[:, None] * np.exp(2 * axis)
    r2 = nodes.rss[:, None] + variance * (fixed.rows[:, -1] @ fixed.rows[:, -1])
    nu = cross.n - fixed.J.shape[1]
    logp = nodes.log_density[:, None] - nu * (LOG_2PI / 2 + log_sigma)
    for data, prior, spectrum in zip(nodes.data.T, nodes.prior.T, nodes.spectrum.T, strict=True):
        shrink = 1 + variance * spectrum[:, None]
        estimate = data[:, None] + variance * prior[:, None]
        r2 -= estimate * estimate / shrink
        logp -= np.log(shrink) / 2
    logp -= r2 / variance / 2
    for c, place in zip(space.coordinates, space.free, strict=True):
        if place == space.n_given:
            logp += log_prior(c, log_sigma)
        elif frame.is_sd[place] and not space.relative[place]:
            logp += log_prior(c, np.log(nodes.values[:, place, None]) + log_sigma)
    return np.where(np.isfinite(logp), logp, -np.inf)


# ------------------------------------------------------------------------------- the lattice


@dataclass(frozen=True, eq=False)
class Lattice(WithoutCaches):
    """Nodes around the mode, and the density on an axis of sigma at each.

    Attributes
    ----------
    frame : Frame
    steps : ndarray, shape (d,)
        Between nodes along each whitened axis, and last between values of log sigma.
    z : ndarray of int, shape (N, heavy)
    nodes : Nodes
    axis : ndarray, shape (T,)
        Whitened places along the axis of log sigma; of known sigma, one.
    slope : ndarray, shape (heavy,)
        How the values of log sigma at a node depend on its place.
    spread : float
        A unit of the axis, in log sigma.
    is_edge : ndarray of bool, shape (N,)
        Nodes whose neighbours were left out, although they may count, as there were too many.
    """

    frame: Frame
    steps: Array
    z: Integers
    nodes: Nodes
    axis: Array
    slope: Array
    spread: float
    is_edge: Flags

    @property
    def center(self) -> Array:
        """The value of log sigma at each node where the axis is zero, shape (N,)."""
        at_node = (self.z * self.steps[: self.frame.heavy]) @ self.slope
        if self.frame.has_sigma:
            at_node += self.spread * self.steps[-1] / 2 * (self.z.sum(axis=1) % 2)
        return np.asarray(self.frame.log_sigma + at_node)

    @cached_property
    def log_sigma(self) -> Array:
        """The values of log sigma at each node, shape (N, T)."""
        return self.center[:, None] + self.spread * self.axis

    @cached_property
    def log_density(self) -> Array:
        """The log density there, shape (N, T)."""
        return log_joint(self.frame, self.nodes, self.center, self.spread * self.axis)

    @cached_property
    def weights(self) -> Array:
        """The density over its maximum, shape (N, T)."""
        return np.exp(self.log_density - self.log_density.max())

    @cached_property
    def signs(self) -> Integers:
        """Signs that alternate along each axis, of the nodes or of all values of a single one.

        Those along sigma's alternate as its shift does.
        """
        places = self.z if self.z.shape[1] else np.arange(len(self.axis))[:, None]
        return 1 - 2 * (np.column_stack([places, places.sum(axis=1)]) % 2)

    @property
    def log_volume(self) -> float:
        """The logarithm of the volume of a cell."""
        frame, steps = self.frame, self.steps
        volume = np.log(np.diag(frame.root)[: frame.heavy] * steps[: frame.heavy]).sum()
        return float(volume + (np.log(self.spread * steps[-1]) if frame.has_sigma else 0.0))

    @property
    def log_evidence(self) -> float:
        """The integral, log p(y)."""
        return float(np.log(self.weights.sum()) + self.log_density.max() + self.log_volume)

    @property
    def error(self) -> float:
        """An estimate of the error of log p(y)."""
        return self.error_of(self.weights)

    def error_of(self, weights: Array) -> float:
        """Return an estimate of the relative error of the integral of a density.

        Every other node along an axis makes a rule with steps twice as long. As the error falls
        geometrically with the number of nodes, that of all nodes is below the square of how much
        the two such rules differ; those of the axes add up. What lies outside is less than twice
        what the outermost nodes hold, of which the density is within e of where the lattice ends.

        Parameters
        ----------
        weights : ndarray, shape (N, T)
            In proportion to the density at the nodes.
        """
        if not self.z.shape[1] and weights.shape[1] == 1:
            return 0.0
        rows = weights.sum(axis=1)
        differences = (rows if self.z.shape[1] else weights[0]) @ self.signs
        outside = OUTSIDE * rows[rows < np.exp(1 - CUT) * rows.max()].sum()
        outside += MAX_BEYOND_EDGE * rows[self.is_edge].sum()
        total = rows.sum()
        return float(np.sum((differences / total) ** 2) + outside / total)

    def outermost(self) -> tuple[Flags, Places]:
        """Return the nodes with a neighbour outside the lattice, and the ends of the axis."""
        known, outer = np.sort(_keys(self.z)), np.zeros(len(self.z), dtype=bool)
        for move in np.eye(self.z.shape[1], dtype=np.int64):
            for neighbours in (self.z + move, self.z - move):
                outer |= ~_are_among(_keys(neighbours), known)
        ends = np.array([0, len(self.axis) - 1] if len(self.axis) > 1 else [], dtype=np.intp)
        return outer, ends

    def down_to(self, cut: float) -> Lattice:
        """Return the lattice where the density has fallen by no more than `cut`."""
        least = self.log_density.max() - cut
        rows, columns = self.log_density.max(axis=1) > least, self.log_density.max(axis=0) > least
        of_nodes = {name: getattr(self, name)[rows] for name in ("z", "nodes", "is_edge")}
        inner = replace(self, axis=self.axis[columns], **of_nodes)
        inner.__dict__.update(log_density=self.log_density[np.ix_(rows, columns)])
        return inner


def integrate(frame: Frame, max_error: float | None = None) -> Lattice:
    """Integrate over all coordinates, with finer steps until the error is small enough."""
    max_error = MAX_ERROR if max_error is None else max_error
    steps = even_steps(frame, STEP)
    integrated = lattice(frame.aligned(steps), steps)
    for _ in range(MAX_REFINEMENTS):
        if integrated.error < max_error or integrated.log_density.size > MAX_VALUES:
            break
        steps = steps * FINER
        finer = lattice(frame.aligned(steps), steps)
        if finer.error > integrated.error:  # there are too many nodes to reach the tails
            break
        integrated = finer
    return integrated


def even_steps(frame: Frame, step: float) -> Array:
    """Return steps of a lattice that is as fine as a cubic one with a given step, shape (d,)."""
    steps = np.full(len(frame.order), step)
    if frame.has_sigma:
        steps[-1] /= np.sqrt(1 - frame.heavy / MAX_COORDINATES)
    return steps


def lattice(frame: Frame, steps: Array, *, cut: float = CUT) -> Lattice:
    """Grow a lattice from the mode until the density is negligible all around.

    Parameters
    ----------
    frame : Frame
    steps : ndarray, shape (d,)
        As `Lattice` has them.
    cut : float
        The fall of the log density at which the lattice ends.
    """
    heavy = frame.heavy
    axis, spread, slope = np.zeros(1), 1.0, np.zeros(heavy)
    if frame.has_sigma:
        slope, spread = frame.root[-1, :heavy], float(frame.root[-1, -1])
        axis = np.arange(*LOG_SIGMA_RANGE, steps[-1])

    waves: list[Lattice] = []

    def density_of(z: Integers) -> Array:
        nodes, inside = nodes_at(frame, places(frame, steps, z)), np.zeros(len(z), dtype=bool)
        waves.append(Lattice(frame, steps, z, nodes, axis, slope, spread, inside))
        return log_sums(waves[-1].log_density)

    z, kept, is_edge = _grown(steps[:heavy], density_of, cut, MAX_VALUES // len(axis))
    nodes = Nodes.joined([wave.nodes for wave in waves])[kept]
    density = np.concatenate([wave.log_density for wave in waves])[kept]
    grown = Lattice(frame, steps, z[kept], nodes, axis, slope, spread, is_edge[kept])
    if frame.has_sigma:

        def density_on(more: Array) -> Array:
            return replace(grown, axis=more).log_density

        axis, density = lengthened(axis, density, density_on, cut)
        grown = replace(grown, axis=axis)
    grown.__dict__.update(log_density=density)
    return grown


def lengthened(
    axis: Array, density: Array, density_on: Callable[[Array], Array], cut: float
) -> tuple[Array, Array]:
    """Return an axis of sigma that ends where a log density is negligible, and the density.

    Parameters
    ----------
    axis : ndarray, shape (T,)
        Evenly spaced.
    density : ndarray, shape (N, T)
    density_on : callable
        Gives it on another axis.
    cut : float
    """
    step = axis[1] - axis[0]
    more = step * np.arange(1, int(MORE / step) + 2)
    while len(axis) < MAX_AXIS and (ends := _open_ends(density, cut)).any():
        below, above = (more[: len(more) * end] for end in ends)
        below, above = axis[0] - below[::-1], axis[-1] + above
        density = np.hstack([density_on(below), density, density_on(above)])
        axis = np.hstack([below, axis, above])
    return axis, density


def places(frame: Frame, steps: Array, z: Integers) -> Array:
    """Return the points xi of nodes of a lattice, shape (N, heavy)."""
    heavy = frame.heavy
    white = z * steps[:heavy]
    return np.asarray(frame.center[:heavy] + white @ frame.root[:heavy, :heavy].T)


def log_sums(x: Array) -> Array:
    """Return the logarithms of the sums of exp(x) along rows; SciPy's takes three times as long."""
    top = x.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(top + np.log(np.exp(x - top[:, None]).sum(axis=1)))


def _grown(
    steps: Array, density: Callable[[Integers], Array], cut: float, limit: int
) -> tuple[Integers, Flags, Flags]:
    """Evaluate a density outwards from a ball around the origin, until it is negligible.

    Returns all places in the order in which they were evaluated, those that count, and those
    at the edge, whose neighbours were not evaluated as there are more than the limit.
    """
    if not len(steps):
        place = np.zeros((1, 0), dtype=np.int64)
        return place, density(place) > -np.inf, np.zeros(1, dtype=bool)
    with running("Integrating, nodes") as advance:
        return _grown_outwards(steps, density, cut, limit, advance)


def _grown_outwards(
    steps: Array, density: Callable[[Integers], Array], cut: float, limit: int, advance: Advance
) -> tuple[Integers, Flags, Flags]:
    dimension = len(steps)
    moves = _keys(_moves(steps)) - _keys(np.zeros((1, dimension), dtype=np.int64))
    reach = [np.arange(-int(MIN_RADIUS / step), int(MIN_RADIUS / step) + 1) for step in steps]
    box = np.stack(np.meshgrid(*reach, indexing="ij"), axis=-1).reshape(-1, dimension)
    new = np.sort(_keys(box[((box * steps) ** 2).sum(axis=1) <= MIN_RADIUS**2]))
    keys, logp, seen = new[:0], np.empty(0), new
    while len(new) and len(keys) <= limit:
        new_logp = density(_of_keys(new, dimension))
        advance(len(new))
        keys, logp = np.concatenate([keys, new]), np.append(logp, new_logp)
        growing = new[new_logp > logp.max() - cut]
        around = np.sort((moves[:, None] + growing).ravel(), kind="stable")  # merges sorted runs
        around = around[np.diff(around, prepend=-1) > 0]
        new = around[~_are_among(around, seen)]
        seen = np.sort(np.concatenate([seen, new]), kind="stable")
    is_edge = np.arange(len(keys)) >= len(keys) - (len(new_logp) if len(new) else 0)
    return _of_keys(keys, dimension), logp > logp.max() - cut, is_edge


def _keys(places: Integers) -> Integers:
    """Return one number for each place, shape (N, dimension); no coordinate reaches 10,000."""
    return np.asarray((places + 10_000) @ 20_000 ** np.arange(places.shape[1], dtype=np.int64))


def _are_among(keys: Integers, known: Integers) -> Flags:
    """Return which keys are among others, which are sorted."""
    return np.asarray(known[np.searchsorted(known[:-1], keys)] == keys)


def _of_keys(keys: Integers, dimension: int) -> Integers:
    """Return the places that keys stand for."""
    powers = 20_000 ** np.arange(dimension, dtype=np.int64)
    return np.asarray(keys[:, None] // powers % 20_000 - 10_000)


def _moves(steps: Array) -> Integers:
    """Return steps to neighbours, up to about the same distance along every axis."""
    unit = np.eye(len(steps), dtype=np.int64)
    lengths = [range(1, max(1, int(STEP / step)) + 1) for step in steps]
    return np.array(
        [s * n * unit[i] for i, of_axis in enumerate(lengths) for n in of_axis for s in (1, -1)]
    )


def _open_ends(density: Array, cut: float) -> Flags:
    """Return whether the axis of sigma ends too early, below and above."""
    return np.array([density[:, 0].max(), density[:, -1].max()]) > density.max() - cut


def draw_values(lattice: Lattice, n: int, rng: np.random.Generator) -> Array:
    """Draw from the posterior of the values, shape (n, n_values).

    Twice as many points are spread evenly over cells, which are chosen by the weights of their
    nodes; resampling by the ratio of the density there to that at the node makes them exact.
    """
    frame, size = lattice.frame, max(2 * n, FEWEST)
    heavy = frame.heavy
    weights = lattice.weights.ravel()
    chosen = systematic(weights / weights.sum(), size, rng)
    rows, columns = np.divmod(chosen, lattice.log_density.shape[1])
    jitter = rng.uniform(-0.5, 0.5, (size, len(frame.order))) * lattice.steps
    white = lattice.z[rows] * lattice.steps[:heavy] + jitter[:, :heavy]
    log_sigma = np.full(size, frame.log_sigma)
    if frame.has_sigma:
        white = np.column_stack([white, lattice.axis[columns] + jitter[:, -1]])
        log_sigma = frame.log_sigma + white @ frame.root[-1]
    nodes = nodes_at(frame, frame.center[:heavy] + white[:, :heavy] @ frame.root[:heavy, :heavy].T)
    density = log_joint(frame, nodes, log_sigma, np.zeros(1))[:, 0]
    ratios = density - lattice.log_density[rows, columns]
    kept = rng.permutation(systematic(smoothed(ratios)[0], n, rng))
    values = nodes.values[kept].copy()
    values[:, frame.target.space.n_given] = np.exp(log_sigma[kept])
    values[:, frame.is_sd] *= np.exp(log_sigma[kept, None])
    return np.asarray(values)
