"""Lattices of posteriors, and brute-force integrals beside them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from density_cases import sleep
from scipy import special

from ranef.posterior.quadrature.moments import Exact


@cache
def sleep_exact(random):
    return Exact.of(sleep(random))


def panels(edges, size):
    """Return nodes and weights of Gauss-Legendre rules between edges."""
    nodes, weights = np.polynomial.legendre.leggauss(size)
    middle, half = np.add(edges[1:], edges[:-1]) / 2, np.diff(edges) / 2
    x = middle[:, None] + half[:, None] * nodes
    return x.ravel(), (half[:, None] * weights).ravel()


def integral(target, axes):
    """Return log p(y) by a product rule: axes are pairs of nodes and log weights in x."""
    grid = np.stack(np.meshgrid(*(x for x, _ in axes), indexing="ij"), axis=-1)
    logs = sum(np.meshgrid(*(w for _, w in axes), indexing="ij"))
    parts = np.array_split(grid.reshape(-1, len(axes)), max(1, grid.size // 200_000))
    found = np.concatenate([target.log_density(part) for part in parts])
    return special.logsumexp(found + logs.ravel())


def log_axis(edges, size):
    """Return a rule for a positive parameter, in the parameter itself, as one for its logarithm."""
    value, weight = panels(np.asarray(edges, dtype=float), size)
    return np.log(value), np.log(weight / value)


def slopes_frame(seed=2, n=80):
    rng = np.random.default_rng(seed)
    g = np.arange(n) % 8
    x = rng.normal(2, 1.5, n)
    b = rng.normal(size=(8, 2)) * [1.0, 0.4]
    y = 5 + 0.7 * x + b[g, 0] + b[g, 1] * x + rng.normal(size=n)
    return pd.DataFrame({"g": g, "x": x, "y": y})
