"""Variances, deviances, draws, and the likelihoods in PyMC."""

from __future__ import annotations

import numpy as np
import pytest

from ranef.families.family import FAMILIES, find_family
from ranef.families.observations import t_variance

PSI = {
    "gaussian": (0.8,),
    "gamma": (0.6,),
    "inverse_gaussian": (0.7,),
    "negative_binomial": (5.3,),
    "beta": (5.5,),
    "t": (0.9, 9.5),
}
LINKS_OF = {
    "gaussian": ("identity", "log", "inverse"),
    "binomial": ("logit", "probit", "cloglog", "cauchit"),
    "bernoulli": ("logit", "probit"),
    "poisson": ("log", "sqrt", "identity"),
    "negative_binomial": ("log",),
    "gamma": ("log", "inverse"),
    "inverse_gaussian": ("log", "inverse_squared"),
    "beta": ("logit", "probit"),
    "t": ("identity", "log"),
}
PAIRS = [(name, link) for name, links in LINKS_OF.items() for link in links]

CHANCES = [0.0, 1.0, 0.25], [0.1, 0.7, 0.4]
COUNTS = [0.0, 3.0, 7.0], [0.5, 2.2, 9.1]
POSITIVE = [0.2, 3.0, 7.0], [0.5, 2.2, 9.1]
# R 4.5: dev.resids of the families of stats and MASS; for beta and t from dbeta and dt
DEVIANCES = [
    ("binomial", (), CHANCES, [0.2107210313156527, 0.7133498878774648, 0.0997135123484469]),
    ("bernoulli", (), CHANCES, [0.2107210313156527, 0.7133498878774648, 0.0997135123484469]),
    ("poisson", (), COUNTS, [1.0, 0.260929569823037, 0.526900297455125]),
    (
        "negative_binomial",
        (1.7,),
        COUNTS,
        [0.876618971627140, 0.107021587367163, 0.089182384826791],
    ),
    ("gamma", (0.5,), POSITIVE, [0.6325814637483100, 0.1069628706650482, 0.0631900673965206]),
    ("inverse_gaussian", (0.5,), POSITIVE, [1.8, 0.04407713498622586, 0.00760777683854607]),
    ("gaussian", (0.5,), POSITIVE, [0.09, 0.64, 4.41]),
    (
        "beta",
        (5.5,),
        ([0.2, 0.5, 0.93], [0.1, 0.7, 0.9]),
        [1.108727060042010, 1.101841516697418, 0.357568275807114],
    ),
    ("t", (0.8, 4.5), POSITIVE, [0.108316238506973, 0.706360848026772, 3.269070646591946]),
]


@pytest.mark.parametrize(("name", "psi", "at", "expected"), DEVIANCES)
def test_unit_deviances_are_those_of_r(name, psi, at, expected):
    y, mu = map(np.array, at)
    found = find_family(name).deviance(y, mu, *psi)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(find_family(name).deviance(mu, mu, *psi), 0, atol=1e-14)


@pytest.mark.parametrize("name", ["gaussian", "binomial", "poisson", "negative_binomial", "gamma"])
def test_unit_deviances_are_twice_a_difference_of_log_densities(name):
    family, psi = find_family(name), PSI.get(name, ())
    y, mu, w = np.array([1.0, 1.0]), np.array([0.3, 0.8]), np.ones(2)
    difference = family.log_density(y, y, w, *psi) - family.log_density(y, mu, w, *psi)
    scale = psi[0] ** 2 if family.has_sigma else 1
    np.testing.assert_allclose(family.deviance(y, mu, *psi), 2 * scale * difference, rtol=1e-12)


def test_the_deviance_of_a_large_shape_is_that_of_the_poisson_distribution():
    y, mu = map(np.array, COUNTS)
    found = find_family("negative_binomial").deviance(y, mu, 1e14)
    np.testing.assert_allclose(found, find_family("poisson").deviance(y, mu), rtol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_draws_have_the_mean_and_the_variance(name):
    family, psi = find_family(name), PSI.get(name, ())
    n, w = 40_000, 3.0
    y = family.draw(np.random.default_rng(5), np.full(n, 0.3), np.full(n, w), *psi)
    variance = family.variance(np.array(0.3), *psi) * (psi[0] ** 2 if family.has_sigma else 1)
    if family.has_sigma or name == "binomial":
        variance = variance / w
    assert y.dtype == np.float64
    assert abs(y.mean() - 0.3) < 5 * np.sqrt(variance / n)
    squares = (y - 0.3) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(n)


def test_draws_far_out_are_possible_responses():
    rng, w = np.random.default_rng(6), np.ones(50)
    huge, tiny = np.full(50, 1e300), np.full(50, 1e-300)
    assert np.isfinite(find_family("poisson").draw(rng, huge, w)).all()
    assert np.isfinite(find_family("negative_binomial").draw(rng, huge, w, 0.5)).all()
    assert (find_family("gamma").draw(rng, tiny, w, 40.0) > 0).all()
    assert (find_family("inverse_gaussian").draw(rng, tiny, w, 40.0) > 0).all()
    for mu in (np.zeros(50), tiny, np.ones(50)):
        y = find_family("beta").draw(rng, mu, w, 0.01)
        assert ((y > 0) & (y < 1)).all()


def test_a_t_distribution_of_two_degrees_of_freedom_has_no_variance():
    mu = np.zeros(2)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 2.0), np.inf)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 1.0), np.inf)
    np.testing.assert_array_equal(t_variance(mu, 1.0, 4.0), 2)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "link"), PAIRS)
def test_likelihoods_in_pymc(name, link, weighted):
    pm = pytest.importorskip("pymc")
    rng, n = np.random.default_rng(7), 6
    family, psi = find_family(name, link), np.array(PSI.get(name, ()))
    eta = rng.uniform(0.3, 1.2, n)
    w = rng.integers(2, 5, n).astype(float) if weighted else np.ones(n)
    y = family.draw(rng, family.link.inverse(eta), w, *psi)
    with pm.Model(coords={"obs": range(n)}) as model:
        x = pm.Flat("x", shape=n)
        own = [pm.HalfFlat(parameter) for parameter in family.parameters]
        family.pymc(pm, "y", family.link, x, w, *own, observed=y, dims="obs")
    log_density = model.compile_logp(jacobian=False, mode="FAST_COMPILE")
    at = {f"{p}_log__": np.log(v) for p, v in zip(family.parameters, psi, strict=True)}
    expected = family.expansion(y, eta, w, psi).value.sum()
    np.testing.assert_allclose(log_density({"x": eta, **at}), expected, rtol=1e-11)
    is_potential = weighted and not family.has_sigma and name != "binomial"
    assert [v.name for v in model.potentials] == (["y"] if is_potential else [])
    assert model.named_vars_to_dims["y"] == ("obs",)


def test_gradients_stay_numbers_where_a_mean_is_one_to_rounding():
    pm = pytest.importorskip("pymc")
    family, eta = find_family("bernoulli", "probit"), np.array([12.0, -45.0])
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        family.pymc(pm, "y", family.link, x, np.ones(2), observed=np.array([1.0, 0.0]), dims=None)
    assert np.isfinite(model.compile_dlogp(mode="FAST_COMPILE")({"x": eta})).all()
