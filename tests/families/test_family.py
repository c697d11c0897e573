"""Families and links by name."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import ranef as rf
from ranef.families.family import FAMILIES, GAMMA, GAUSSIAN, POISSON, T, find_family
from ranef.families.link import CAUCHIT, IDENTITY, LINKS, LOG, LOGIT

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


def test_all_families_are_there():
    assert list(FAMILIES) == list(LINKS_OF)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_and_its_links_are_found_by_their_names(name):
    assert find_family(name).name == name
    assert find_family(name) is find_family(find_family(name))
    assert find_family(name).link.name == LINKS_OF[name][0]
    for link in LINKS_OF[name]:
        assert find_family(name, link).link.name == link
    assert find_family(name, LINKS_OF[name][0]) is find_family(name)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("normal", "gaussian"),
        ("Gaussian", "gaussian"),
        ("Gamma", "gamma"),
        ("inverse.gaussian", "inverse_gaussian"),
        ("InverseGaussian", "inverse_gaussian"),
        ("wald", "inverse_gaussian"),
        ("nbinom2", "negative_binomial"),
        ("negbinomial", "negative_binomial"),
        ("negativebinomial", "negative_binomial"),
        ("NegativeBinomial", "negative_binomial"),
        ("neg_binomial_2", "negative_binomial"),
        ("negbin", "negative_binomial"),
        ("beta_family", "beta"),
        ("student", "t"),
        ("student_t", "t"),
        ("StudentT", "t"),
        ("Bernoulli", "bernoulli"),
    ],
)
def test_names_of_other_packages(alias, name):
    assert find_family(alias) is FAMILIES[name]


@pytest.mark.parametrize(
    ("family", "alias", "name"),
    [
        ("inverse_gaussian", "1/mu^2", "inverse_squared"),
        ("gamma", "inverse_power", "inverse"),
        ("binomial", "CLogLog", "cloglog"),
        ("poisson", "Log", "log"),
    ],
)
def test_links_by_names_of_other_packages(family, alias, name):
    assert find_family(family, alias).link.name == name


def test_records_of_ones_own_are_taken_as_they_are():
    loglog = rf.Link("loglog", lambda mu: -np.log(-np.log(mu)), lambda eta: np.exp(-np.exp(-eta)))
    family = find_family("binomial", loglog)
    assert family.link is loglog
    own = replace(GAMMA, name="tweedie", draw=np.add)
    assert find_family(own) is own
    for link in LINKS:
        assert find_family(own, link).link is LINKS[link]
    assert find_family(T, LOG).link is LOG


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
    assert GAUSSIAN.is_normal
    assert not find_family("gaussian", "log").is_normal
    assert not T.is_normal


@pytest.mark.parametrize("name", FAMILIES)
def test_families_can_be_pickled(name):
    family = FAMILIES[name]
    again = pickle.loads(pickle.dumps(family))
    assert again == family
    assert again.is_normal == family.is_normal
    eta, w = np.array([0.3, 0.6]), np.ones(2)
    psi = np.array([0.9, 4.5])[: len(family.parameters)]
    y = family.draw(np.random.default_rng(1), family.link.inverse(eta), w, *psi)
    np.testing.assert_array_equal(
        again.expansion(y, eta, w, psi).score, family.expansion(y, eta, w, psi).score
    )
    with pytest.raises(rf.FitError, match="which has"):
        find_family(again, "none")


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        GAUSSIAN.name = "poisson"
    with pytest.raises(FrozenInstanceError):
        IDENTITY.name = "log"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("gausian",),
            "family='gausian' is not available. Did you mean `gaussian` or `inverse_gaussian`?",
        ),
        (
            ("zzz",),
            (
                "family='zzz' is not available. Known names: `gaussian`, `binomial`, `bernoulli`, "
                "`poisson`, `negative_binomial`, `gamma`, `inverse_gaussian`, `beta`, `t`."
            ),
        ),
        (
            ("nbinom1",),
            "family='nbinom1' is not available. Did you mean `binomial`?",
        ),
        ((None,), "family= takes a name or a Family, got NoneType."),
        ((["gaussian"],), "family= takes a name or a Family, got list."),
        (
            ("gaussian", "logit"),
            (
                "link='logit' is not available for the gaussian family, which has `identity`, "
                "`log` and `inverse`."
            ),
        ),
        (
            ("negative_binomial", "sqrt"),
            "link='sqrt' is not available for the negative_binomial family, which has `log`.",
        ),
        (
            (replace(POISSON, link=CAUCHIT), "logit"),
            (
                "link='logit' is not available for the poisson family, which has `log`, `sqrt` and "
                "`identity`."
            ),
        ),
        (
            (replace(POISSON, draw=np.add), "logarithm"),
            (
                "link='logarithm' is not available for the poisson family, which has `identity`, "
                "`log`, `logit`, `probit`, `cloglog`, `cauchit`, `inverse`, `inverse_squared` and "
                "`sqrt`."
            ),
        ),
        (("gaussian", 3), "link= takes a name or a Link, got int."),
    ],
)
def test_what_is_not_there(arguments, message):
    with pytest.raises(rf.FitError) as caught:
        find_family(*arguments)
    assert str(caught.value) == message


def test_a_support_that_is_not_there():
    with pytest.raises(rf.FitError) as caught:
        replace(POISSON, support="count")
    assert str(caught.value) == (
        "the poisson family has support='count', expected one of `real`, `positive`, `counts`, "
        "`proportions`, `binary` or `unit`."
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


def test_logit_is_the_canonical_link_of_the_binomial():
    """The observed information is the expected one."""
    family = find_family("binomial")
    assert family.link is LOGIT
    eta, w = np.array([-2.0, 0.3]), np.array([4.0, 5.0])
    found = family.expansion(np.array([0.25, 0.8]), eta, w, np.empty(0))
    np.testing.assert_allclose(found.weight, family.information(eta, w, np.empty(0)), rtol=1e-14)
