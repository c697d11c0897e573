"""What every family says of itself; far out, at the edge, and in other processes."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from family_cases import PSI, single
from scipy import special

import ranef as rf
from ranef.families.gamma import GAMMA
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import IDENTITY
from ranef.families.names import FAMILIES, find_family
from ranef.families.poisson import POISSON
from ranef.families.t import T

LINKS_OF = {
    "gaussian": ["identity", "log", "inverse"],
    "binomial": ["logit", "probit", "cloglog", "cauchit"],
    "bernoulli": ["logit", "probit", "cloglog", "cauchit"],
    "poisson": ["log", "sqrt", "identity"],
    "negative_binomial": ["log"],
    "gamma": ["log", "inverse", "identity"],
    "inverse_gaussian": ["log", "inverse_squared", "inverse"],
    "beta": ["logit", "probit", "cloglog"],
    "t": ["identity", "log"],
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_closed_form_serves_a_link_of_ones_own(name):
    family = find_family(name)
    eta = np.array([0.3, 0.6, 0.9])
    w, psi = np.array([1.0, 2.0, 3.0]), np.array([0.9, 4.5])[: len(family.parameters)]
    y = family.draw(np.random.default_rng(2), family.link.inverse(eta), w, *psi)
    other = find_family(family, rf.Link("own", family.link.link, family.link.inverse))
    one, two = (f.expansion(y, eta, w, psi) for f in (family, other))
    np.testing.assert_allclose(one.value, two.value, rtol=1e-13)
    np.testing.assert_allclose(one.score, two.score, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.weight, two.weight, rtol=1e-8, atol=1e-8)


def test_poisson_needs_a_positive_identity():
    assert find_family("poisson", "identity").link.positive
    assert not IDENTITY.positive


def test_what_families_say_of_themselves():
    assert [name for name, family in FAMILIES.items() if family.has_sigma] == [
        "gaussian",
        "gamma",
        "inverse_gaussian",
        "t",
    ]
    assert GAUSSIAN.is_linear
    assert not find_family("gaussian", "log").is_linear
    assert not T.is_linear


@pytest.mark.parametrize("name", FAMILIES)
def test_families_can_be_pickled(name):
    family = FAMILIES[name]
    again = pickle.loads(pickle.dumps(family))
    assert again == family
    assert again.is_linear == family.is_linear
    eta, w = np.array([0.3, 0.6]), np.ones(2)
    psi = np.array([0.9, 4.5])[: len(family.parameters)]
    y = family.draw(np.random.default_rng(1), family.link.inverse(eta), w, *psi)
    np.testing.assert_array_equal(
        again.expansion(y, eta, w, psi).score, family.expansion(y, eta, w, psi).score
    )
    for link in family.links:
        other = find_family(again, link)
        assert pickle.loads(pickle.dumps(other)) == find_family(family, link)
    with pytest.raises(rf.FitError, match="which has"):
        find_family(again, "none")


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        GAUSSIAN.name = "poisson"
    with pytest.raises(FrozenInstanceError):
        IDENTITY.name = "log"


def test_a_support_that_is_not_there():
    with pytest.raises(rf.FitError) as caught:
        replace(POISSON, support="count")
    assert str(caught.value) == (
        "the poisson family has support='count', expected one of `real`, `positive`, `counts`, "
        "`proportions`, `binary`, `unit` or `ordered`."
    )


@pytest.mark.parametrize("name", ["poisson", "gamma", "inverse_gaussian"])
def test_eta_outside_of_a_links_domain_is_impossible(name):
    family = find_family(name, LINKS_OF[name][-1])
    eta = np.array([-1e3, -1.0, 0.0, 1.0])
    y, w, psi = np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4), np.full(len(family.parameters), 0.7)
    found = family.expansion(y, eta, w, psi)
    np.testing.assert_array_equal(found.value[:3], -np.inf)
    assert np.isfinite(found.value[3])
    for part in (found.score, found.weight, family.information(eta, w, psi)):
        assert np.isfinite(part).all()
    assert np.isfinite(family.further_expansion(y, eta, w, psi).third).all()


def test_means_at_the_edge():
    binomial, poisson = find_family("binomial"), find_family("poisson")
    y, w = np.array([0.0, 1.0, 0.5]), np.array([2.0, 2.0, 2.0])
    np.testing.assert_array_equal(binomial.log_density(y, y * (y != 0.5), w), [0, 0, -np.inf])
    counts, zero = np.array([0.0, 1.0]), np.zeros(2)
    np.testing.assert_allclose(poisson.log_density(counts, zero, w[:2]), [0, -1488.9], atol=0.1)
    np.testing.assert_array_equal(poisson.log_density(counts, zero - 1, w[:2]), -np.inf)


def test_tails_keep_their_digits():
    e = np.exp(-40.0)
    np.testing.assert_allclose(single("bernoulli", 0.0, -40.0), [-e, -e, e, e], rtol=1e-14)
    np.testing.assert_allclose(single("bernoulli", 1.0, -40.0), [-40, 1, e, e], rtol=1e-14)
    np.testing.assert_allclose(single("bernoulli", 1.0, 40.0), [-e, e, e, -e], rtol=1e-14)
    mills = single("bernoulli", 1.0, -40.0, link="probit")
    np.testing.assert_allclose(mills[0], special.log_ndtr(-40.0), rtol=1e-14)
    np.testing.assert_allclose(mills[1], 40 + 1 / 40 - 2 / 40**3, rtol=1e-8)
    np.testing.assert_allclose(mills[2], 1 - 1 / 40**2 + 6 / 40**4, rtol=1e-7)
    np.testing.assert_allclose(single("poisson", 0.0, -700.0)[:2], [-np.exp(-700)] * 2)
    np.testing.assert_allclose(single("gamma", 2.0, 700.0, (0.5,))[1:3], [-4, 0], atol=1e-12)
    np.testing.assert_allclose(
        single("negative_binomial", 3.0, 700.0, (2.0,))[1:], [-2, 0, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        single("beta", 0.3, -700.0, (2.0,)), [-700 + np.log(2 * 0.7 / 0.3), 1, 0, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        single("t", 1.0, 150.0, (0.9, 4.5), "log")[1:], [-5.5, 0, 0], rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", ["gaussian", "binomial", "poisson", "negative_binomial", "gamma"])
def test_unit_deviances_are_twice_a_difference_of_log_densities(name):
    family, psi = find_family(name), PSI.get(name, ())
    y, mu, w = np.array([1.0, 1.0]), np.array([0.3, 0.8]), np.ones(2)
    difference = family.log_density(y, y, w, *psi) - family.log_density(y, mu, w, *psi)
    scale = psi[0] ** 2 if family.has_sigma else 1
    np.testing.assert_allclose(family.deviance(y, mu, *psi), 2 * scale * difference, rtol=1e-12)


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


def test_means_and_variances_of_responses():
    eta, w = np.array([0.2, 0.7]), np.array([2.0, 4.0])
    for name, family in FAMILIES.items():
        psi = PSI.get(name, ())
        mu = family.mean(eta, psi)
        np.testing.assert_array_equal(mu, family.link.inverse(eta))
        y = family.draw(np.random.default_rng(3), np.full((60_000, 2), mu), w, *psi)
        found = np.broadcast_to(family.response_variance(mu, w, psi), (2,))
        np.testing.assert_allclose(y.var(axis=0), found, rtol=0.06)
    doubled = replace(GAMMA, response_mean=lambda mu, sigma: 2 * mu * sigma)
    np.testing.assert_allclose(doubled.mean(eta, (3.0,)), 6 * np.exp(eta))
    assert GAUSSIAN.mean_is_eta
    assert not replace(GAUSSIAN, response_mean=lambda mu, sigma: mu + sigma).mean_is_eta


def test_information_of_a_mean_that_is_not_mu():
    plain = replace(GAMMA, expected=None)
    doubled = replace(plain, response_mean=lambda mu, _: 2 * mu, variance=lambda mu, _: 4 * mu**2)
    at = np.array([0.3, 1.1]), np.ones(2), np.array([0.7])
    np.testing.assert_allclose(doubled.information(*at), plain.information(*at), rtol=1e-9)


def test_what_a_support_says():
    says = {
        name: (family.is_discrete, family.is_bounded, family.has_trials, family.reachable_ends)
        for name, family in FAMILIES.items()
    }
    assert says["gaussian"] == says["t"] == (False, False, False, ())
    assert says["gamma"] == says["inverse_gaussian"] == (False, False, False, ())
    assert says["poisson"] == says["negative_binomial"] == (True, False, False, (0.0,))
    assert says["binomial"] == (True, True, True, (0.0, 1.0))
    assert says["bernoulli"] == (True, True, False, (0.0, 1.0))
    assert says["beta"] == (False, True, False, ())
