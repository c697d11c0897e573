"""The records that an engine hands over: frozen, complete, and travelling."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

import ranef as rf
from ranef.likelihood.estimate import Estimate


def estimate_of(formula, method):
    return rf.fit(formula, rf.load_dataset("sleepstudy"), method=method).estimate


@pytest.mark.parametrize("method", ["reml", "ml", "map"])
@pytest.mark.parametrize("bars", ["|", "||"])
def test_shapes_belong_together(method, bars):
    estimate = estimate_of(f"Reaction ~ Days + (Days {bars} Subject)", method)
    assert estimate.beta.shape == (2,)
    assert estimate.vcov.shape == (2, 2)
    assert [b.shape for b in estimate.b] == [(18, 2)]
    assert [cov.shape for cov in estimate.b_cov] == [(18, 2, 2)]
    assert [Lambda.shape for Lambda in estimate.Lambdas] == [(2, 2)]
    assert len(estimate.singular) == 1
    assert estimate.trace[-1][1].shape == estimate.theta.shape


def test_theta_is_that_of_the_factors():
    estimate = estimate_of("Reaction ~ Days + (Days | Subject)", "reml")
    np.testing.assert_allclose(estimate.theta, estimate.Lambdas[0][[0, 1, 1], [0, 0, 1]])


def test_it_is_frozen_and_travels():
    estimate = estimate_of("Reaction ~ Days + (1 | Subject)", "ml")
    with pytest.raises(FrozenInstanceError):
        estimate.sigma = 1.0
    copy = pickle.loads(pickle.dumps(estimate))
    assert isinstance(copy, Estimate)
    assert copy.convergence is estimate.convergence
    for field in fields(Estimate):
        np.testing.assert_equal(getattr(copy, field.name), getattr(estimate, field.name))
