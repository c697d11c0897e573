"""Few nodes in place of a lattice: means of smooth quantities, and their errors."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from marginal_cases import target_of

import ranef as rf
from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.posterior.quadrature.few_nodes import few_nodes
from ranef.posterior.quadrature.lattice import lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant, HalfNormal, Relative, StudentT

SETTINGS = {
    "one factor": ("Yield ~ 1 + (1 | Batch)", "Dyestuff", {}),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", {}),
    "correlated": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", {}),
    "given": ("Reaction ~ Days + (1 | Subject)", "sleepstudy", {"Days": StudentT(3, 10, 5)}),
    "no random effects": ("Yield ~ 1", "Dyestuff", {}),
    "known": (
        "Yield ~ 1 + (1 | Batch)",
        "Dyestuff",
        {"sigma": Constant(50), "sd": Relative(Constant(1))},
    ),
    "sigma known": (
        "Yield ~ 1 + (1 | Batch)",
        "Dyestuff",
        {"sigma": Constant(50), "sd": HalfNormal(50)},
    ),
}


@cache
def exact(name):
    formula, data, priors = SETTINGS[name]
    design = build_design(read_formula(formula), rf.load_dataset(data))
    return Exact.of(target_of(design, resolve(design, priors)))


def of_all(nodes):
    """Return weights, values and sigma of all nodes."""
    weights = np.exp(nodes.log_density - nodes.log_density.max())
    rows, columns = np.nonzero(weights > 0)
    weights = weights[rows, columns]
    sigma = np.exp(nodes.log_sigma[rows, columns])
    return weights / weights.sum(), nodes.nodes.values[rows], sigma


def smooth(target, values, sigma):
    """Return positive quantities that depend on variances, shape (3, N)."""
    total = np.zeros(len(sigma))
    for factor in target.space.factors(values):
        total += np.square(factor).sum(axis=(1, 2))
    given = values[:, : target.space.n_given].sum(axis=1)
    return np.stack([sigma * np.exp(0.02 * given), 1 / (1 + total), np.log(2 + total) / sigma])


@pytest.mark.parametrize("name", SETTINGS)
def test_means_are_those_of_all_nodes_and_errors_tell_the_difference(name):
    own = exact(name)
    few = few_nodes(own.coarse)
    assert len(few.sigma) <= 210
    assert few.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(few.lower.sum(axis=1), 1)
    weights, values, sigma = of_all(own.lattice)
    expected = smooth(own.target, values, sigma) @ weights
    at_few = smooth(own.target, few.nodes.values, few.sigma)
    difference = np.abs(at_few @ few.weights / expected - 1)
    error = few.error(at_few)
    assert (difference < error + 1e-7).all()
    assert error.max() < 1e-3


def test_the_error_of_a_rough_quantity_is_large():
    own = exact("crossed")
    few = few_nodes(own.coarse)
    ratio = few.sigma / (few.weights @ few.sigma)
    rough = np.stack([np.exp(150 * ratio), (ratio > 1.02).astype(float)])
    assert (few.error(rough) > 1e-2).all()


def test_the_error_of_the_lattice_counts():
    own = exact("one factor")
    wide = lattice(own.frame, np.full(2, 0.9))
    coarse, fine = few_nodes(wide), few_nodes(own.lattice)
    flat = [np.ones((1, len(few.sigma))) for few in (coarse, fine)]
    assert coarse.error(flat[0])[0] < 1e-12  # a constant has no error on any lattice
    shares = [np.abs(few.alternating.sum(axis=1)).max() for few in (coarse, fine)]
    assert shares[0] > 10 * shares[1]
    alternating = np.exp(wide.log_density - wide.log_density.max()).sum(axis=1)
    signed = alternating @ (1 - 2 * (wide.z[:, 0] % 2)) / alternating.sum()
    assert coarse.alternating.sum(axis=1)[0] == pytest.approx(signed, abs=1e-8)
