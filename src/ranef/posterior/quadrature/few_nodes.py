"""Few nodes that stand for all nodes of a lattice where a smooth quantity is averaged.

What each of thousands of rows needs is the posterior mean of a quantity that is a smooth function
of the elements of the relative factors and of log sigma. Of the inverse hyperbolic sines of these
elements, over their size, it is nearly a polynomial of low degree, both where an element may be
zero and in a long tail. So some two hundred nodes will do: with their weights all polynomials up to
a degree have the mean that the lattice gives them, and rules of a lower degree on the same nodes
tell the error.

Source: Tchakaloff (1957), *Bulletin des Sciences Mathématiques* 81, 123-134; Litterer & Lyons
(2012), *Annals of Applied Probability* 22, 1301-1327.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np

from ranef._typing import Array, Places
from ranef.numerics.cubature import orthonormal, products, recombined
from ranef.posterior.quadrature.lattice import Lattice, Nodes

NEGLIGIBLE = 1e-9  # share of the posterior in nodes that polynomials do not see
MAX_POLYNOMIALS = 210  # and so nodes
MAX_DEGREE = 12
LOWER = 2  # degrees less of the rules that tell the error


@dataclass(frozen=True, eq=False)
class FewNodes:
    """Nodes, each with one value of sigma, and what is summed over them.

    Attributes
    ----------
    nodes : Nodes
    sigma : ndarray, shape (C,)
    weights : ndarray, shape (C,)
        They are positive and sum to one.
    lower : ndarray, shape (2, C)
        Weights of two rules of a lower degree.
    alternating : ndarray, shape (axes, C)
        Weights of the sums with alternating signs along each axis of the lattice.
    """

    nodes: Nodes
    sigma: Array
    weights: Array
    lower: Array
    alternating: Array

    def error(self, values: Array) -> Array:
        """Return the relative error of the mean of positive values, shape (..., C).

        It is by how much two rules of a lower degree differ, and the error of the lattice. Of this,
        sums with alternating signs, over the mean, have squares that bound the relative error, as
        in `Lattice.error_of`; the lattice's own integral has such an error too, and what counts is
        the difference of the two.
        """
        mean = values @ self.weights
        differences = np.abs(values @ self.lower.T / mean[..., None] - 1).sum(axis=-1)
        shares, own = values @ self.alternating.T / mean[..., None], self.alternating.sum(axis=1)
        return np.asarray(
            differences + (np.abs(shares - own) * (np.abs(shares) + np.abs(own))).sum(axis=-1)
        )


def few_nodes(lattice: Lattice) -> FewNodes:
    """Return few of the nodes of a lattice that integrate polynomials as all of them do.

    First the nodes are chosen, each with all values of sigma, then some values of sigma at each.
    """
    rows = _heaviest(lattice.log_density)
    density, log_sigma = lattice.log_density[rows], lattice.log_sigma[rows]
    weights = np.exp(density - density.max())
    weights /= weights.sum()
    of_nodes = weights.sum(axis=1)
    x = _coordinates(lattice, rows, of_nodes)
    d = x.shape[1] + (weights.shape[1] > 1)
    degree = _degree(d, weights.size)
    along = [orthonormal(c, of_nodes, degree) for c in x.T]
    floor = np.finfo(np.float64).tiny
    of_sigma = np.ones((1, weights.size))
    if weights.shape[1] > 1:
        of_sigma = orthonormal(log_sigma.ravel(), np.maximum(weights.ravel(), floor), degree)
    of_sigma = of_sigma.reshape(-1, *weights.shape)
    means = products([*along, (of_sigma * weights).sum(axis=2) / of_nodes], degree)[0]
    if lattice.z.shape[1]:
        moments = means.T @ (of_nodes[:, None] * lattice.signs[rows])
    else:
        moments = (of_sigma * weights)[:, 0] @ lattice.signs
    nodes, share = recombined(means, of_nodes)
    node, column = np.nonzero(weights[nodes] > 0)
    at, weight = nodes[node], (share / of_nodes[nodes])[node] * weights[nodes[node], column]
    functions, degrees = products([*(a[:, at] for a in along), of_sigma[:, at, column]], degree)
    places, rule = recombined(functions, weight)
    is_lower = degrees <= max(degree - LOWER, 0)
    functions = functions[places][:, is_lower]
    return FewNodes(
        nodes=lattice.nodes[rows[at[places]]],
        sigma=np.exp(log_sigma[at, column][places]),
        weights=rule,
        lower=_lower_rules(functions, rule),
        alternating=_signed_rules(functions, rule, moments[is_lower]),
    )


def _heaviest(log_density: Array) -> Places:
    """Return the nodes that hold all but a negligible share of the posterior."""
    weights = np.exp(log_density - log_density.max()).sum(axis=1)
    order = np.argsort(weights)[::-1]
    count = np.searchsorted(np.cumsum(weights[order]) / weights.sum(), 1 - NEGLIGIBLE) + 1
    return np.sort(order[:count])


def _coordinates(lattice: Lattice, rows: Places, weights: Array) -> Array:
    """Return uncorrelated coordinates of nodes that vary, shape (N, d).

    They are combinations of the given effects and the elements of relative factors.
    """
    space, values = lattice.frame.target.space, lattice.nodes.values[rows]
    columns = [values[:, : space.n_given]]
    for factor in space.factors(values):
        elements = factor[(slice(None), *np.tril_indices(factor.shape[-1]))]
        size = np.maximum(np.sqrt(weights @ elements**2), np.finfo(np.float64).tiny)
        columns.append(np.arcsinh(elements / size))
    x = np.column_stack(columns)
    x = x[:, np.ptp(x, axis=0) > 0]
    x = (x - weights @ x) / np.ptp(x, axis=0)
    _, vectors = np.linalg.eigh((x * weights[:, None]).T @ x)
    return np.asarray(x @ vectors)


def _degree(d: int, points: int) -> int:
    """Return the highest degree of which there are few enough polynomials in d coordinates."""
    most = min(MAX_POLYNOMIALS, points // 2)
    return max((k for k in range(MAX_DEGREE + 1) if comb(k + d, d) <= most), default=0)


def _lower_rules(functions: Array, weights: Array) -> Array:
    """Return two rules that are exact for some of the functions, shape (2, C)."""
    rules = np.zeros((2, len(weights)))
    for rule, order in zip(rules, (slice(None), slice(None, None, -1)), strict=True):
        places, of_rule = recombined(functions[order], weights[order])
        rule[order][places] = of_rule
    return rules


def _signed_rules(functions: Array, weights: Array, moments: Array) -> Array:
    """Return weights with which functions have certain integrals, (axes, C), the least ones."""
    root = np.sqrt(weights)
    solution = np.linalg.lstsq((functions * root[:, None]).T, moments, rcond=None)[0]
    return np.asarray((root[:, None] * solution).T)
