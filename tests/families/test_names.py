"""Families and links by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ranef as rf
from ranef.families.gamma import GAMMA
from ranef.families.links import CAUCHIT, LINKS, LOG
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
    own = replace(GAMMA, name="tweedie", draw=np.add, links=())
    assert find_family(own) is own
    for link in LINKS:
        assert find_family(own, link).link is LINKS[link]
    assert find_family(T, LOG).link is LOG


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
        (
            ("Logit",),
            (
                "family='Logit' is not available. It is a link: family='binomial', "
                "link='Logit', for one."
            ),
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
            (replace(POISSON, draw=np.add, links=()), "logarithm"),
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
