"""The covariance of a term: theta, Lambda, standard deviations and correlations."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from other_covariances import Autoregressive, CompoundSymmetry

from ranef.covariances.covariance import (
    NEARLY_ZERO_SD,
    Diagonal,
    Unstructured,
    factors,
    n_theta,
    pull_back,
    sd_and_corr,
    simplest,
    theta_of,
)
from ranef.covariances.partial_correlations import correlations, unit_factor
from ranef.errors import FitError

TERMS = [Unstructured(3), Diagonal(2), Unstructured(1)]
EACH = [Unstructured(1), Unstructured(2), Unstructured(4), Diagonal(1), Diagonal(3)]
ALL = [*EACH, CompoundSymmetry(3), Autoregressive(4)]


def test_theta_goes_down_the_columns_of_each_factor():
    theta = np.arange(1.0, 10.0)
    full, diagonal, scalar = factors(theta, TERMS)
    np.testing.assert_array_equal(full, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])
    np.testing.assert_array_equal(diagonal, [[7, 0], [0, 8]])
    np.testing.assert_array_equal(scalar, [[9]])
    np.testing.assert_allclose(theta_of([full, diagonal, scalar], TERMS), theta, rtol=1e-14)
    np.testing.assert_array_equal(pull_back([full, diagonal, scalar], theta, TERMS), theta)
    assert n_theta(TERMS) == 9


def test_many_points_are_one_after_the_other():
    theta = np.random.default_rng(1).normal(size=(4, 9))
    many = factors(theta, TERMS)
    gradient, back = pull_back(many, theta, TERMS), theta_of(many, TERMS)
    for i, point in enumerate(theta):
        one = factors(point, TERMS)
        for F, Fs in zip(one, many, strict=True):
            np.testing.assert_array_equal(Fs[i], F)
        np.testing.assert_array_equal(gradient[i], pull_back(one, point, TERMS))
        np.testing.assert_allclose(back[i], theta_of(one, TERMS), rtol=1e-14)


def test_no_terms_no_theta():
    assert factors(np.empty(0), []) == []
    assert theta_of([], []).shape == (0,)
    assert pull_back([], np.empty((5, 0)), []).shape == (5, 0)


@pytest.mark.parametrize("covariance", ALL, ids=str)
def test_theta_of_a_factor_has_its_covariance(covariance):
    theta = np.random.default_rng(2).normal(size=(5, covariance.n_theta))
    F = covariance.factor(theta)
    again = covariance.factor(covariance.theta_of(F))
    np.testing.assert_allclose(again @ again.swapaxes(1, 2), F @ F.swapaxes(1, 2), rtol=1e-12)
    usual = covariance.theta_of(F)
    np.testing.assert_allclose(covariance.theta_of(covariance.factor(usual)), usual, rtol=1e-12)
    assert len(covariance.theta_names("g", "abcd")) == covariance.n_theta


@pytest.mark.parametrize("covariance", ALL, ids=str)
def test_derivatives_equal_central_differences(covariance):
    rng = np.random.default_rng(3)
    slope = rng.normal(size=(covariance.k, covariance.k))

    def differences(value, x):
        steps = 1e-6 * np.eye(len(x))
        return [(np.sum(slope * (value(x + h) - value(x - h)))) / 2e-6 for h in steps]

    theta = rng.normal(size=covariance.n_theta)
    found = covariance.pull_back(slope, theta)
    np.testing.assert_allclose(found, differences(covariance.factor, theta), atol=1e-8)
    n = covariance.n_sds
    natural = np.append(rng.uniform(0.5, 2, n), rng.uniform(-0.4, 0.4, covariance.n_correlations))
    found = np.concatenate(covariance.slopes_of(slope, natural[:n], natural[n:]))
    expected = differences(lambda x: covariance.factor_of(x[:n], x[n:]), natural)
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize("covariance", ALL, ids=str)
def test_standard_deviations_and_correlations_and_back(covariance):
    rng = np.random.default_rng(4)
    sds = rng.uniform(0.5, 2, (6, covariance.n_sds))
    corr = rng.uniform(-0.4, 0.4, (6, covariance.n_correlations))
    F = covariance.factor_of(sds, corr)
    turn = np.linalg.qr(rng.normal(size=(covariance.k, covariance.k)))[0]
    back = covariance.sds_and_correlations(F @ turn)
    np.testing.assert_allclose(back[0], sds, rtol=1e-12)
    np.testing.assert_allclose(back[1], corr, atol=1e-12)
    lengths = np.linalg.norm(F, axis=2)
    np.testing.assert_allclose(lengths, np.broadcast_to(sds, lengths.shape), rtol=1e-12)
    assert len(covariance.pairs) == (covariance.k * (covariance.k - 1) / 2) * bool(corr.size)


@pytest.mark.parametrize("covariance", ALL, ids=str)
def test_partial_correlations_make_the_correlations(covariance):
    rng = np.random.default_rng(5)
    sds = rng.uniform(0.5, 2, (4, covariance.n_sds))
    free = rng.uniform(-0.8, 0.8, (4, covariance.n_correlations))
    F = covariance.factor_of(sds, free)
    lengths = np.linalg.norm(F, axis=2, keepdims=True)
    if covariance.n_correlations:
        partial = np.stack(covariance.partials(list(free.T)), axis=-1)
        expected = correlations(unit_factor(partial, covariance.k))
    else:
        expected = np.broadcast_to(np.eye(covariance.k), F.shape)
    unit = F / lengths
    np.testing.assert_allclose(unit @ unit.swapaxes(1, 2), expected, atol=1e-12)
    coefs = "abcd"[: covariance.k]
    assert len(covariance.sd_coefs(coefs)) == covariance.n_sds
    assert len(covariance.correlation_names(coefs)) == covariance.n_correlations
    assert covariance.correlation_shapes(2.0).shape == (covariance.n_correlations,)


def test_an_autoregressive_covariance_has_powers_of_one_correlation():
    F = Autoregressive(4).factor_of(np.array([2.0]), np.array([-0.7]))
    lags = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    np.testing.assert_allclose(F @ F.T, 4 * (-0.7) ** lags, atol=1e-14)


def test_the_simplest_theta_has_exact_zeros():
    near = NEARLY_ZERO_SD / 2
    np.testing.assert_array_equal(Diagonal(2).simplest(np.array([-near, 1.0])), [0.0, 1.0])
    theta = np.array([1.0, 0.5, near])
    found = simplest(np.append(theta, -near), [Unstructured(2), Unstructured(1)])
    assert (found[2], found[3]) == (0.0, 0.0)
    np.testing.assert_allclose(found[:2], theta[:2], atol=near)
    apart = np.array([1.0, 0.0, near])
    np.testing.assert_array_equal(Unstructured(2).simplest(apart), [1.0, 0.0, 0.0])
    assert Unstructured(2).simplest(found[:3] + 1.0) is not None


def test_free_blocks():
    assert Unstructured(3).free_blocks == ((0, 1, 2),)
    assert Diagonal(2).free_blocks == ((0,), (1,))
    message = (
        "random effects have the covariance CompoundSymmetry(k=3): this can be done where it is "
        "unstructured or diagonal."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        _ = CompoundSymmetry(3).free_blocks


def test_records_are_equal_and_travel():
    assert Unstructured(2) == pickle.loads(pickle.dumps(Unstructured(2)))
    assert len({Unstructured(2), Unstructured(2), Diagonal(2), Unstructured(3)}) == 3


def test_sds_and_correlations():
    sd, corr = sd_and_corr(np.array([[4.0, -3.0, 0.0], [-3.0, 9.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(sd, [2, 3, 0])
    assert corr[0, 1] == corr[1, 0] == -0.5
    assert np.isnan(corr[0, 2])
    np.testing.assert_array_equal(np.diag(corr), 1)


def test_names_are_lme4s():
    coefs = [["Intercept", "x", "z"], ["Intercept", "x"], ["Intercept"]]
    terms = zip(TERMS, ["g", "h", "h_1"], coefs, strict=True)
    assert [name for c, label, own in terms for name in c.theta_names(label, own)] == [
        "g.Intercept",
        "g.x.Intercept",
        "g.z.Intercept",
        "g.x",
        "g.z.x",
        "g.z",
        "h.Intercept",
        "h.x",
        "h_1.Intercept",
    ]
