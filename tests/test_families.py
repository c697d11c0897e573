"""Families and links by name."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import ranef as rf
from ranef.families import FAMILIES, GAUSSIAN, IDENTITY, find_family

LOG = rf.Link("log", np.log, np.exp)


def test_the_gaussian_family():
    mu = np.array([-2.0, 0.0, 3.5])
    assert find_family("gaussian") is find_family(GAUSSIAN) is find_family("gaussian", "identity")
    np.testing.assert_array_equal(GAUSSIAN.link.link(mu), mu)
    np.testing.assert_array_equal(GAUSSIAN.variance(mu), np.ones(3))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_link_and_its_inverse(family):
    mu = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(family.link.inverse(family.link.link(mu)), mu)
    assert (family.variance(mu) > 0).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_found_by_its_own_name(name):
    assert find_family(name).name == name


def test_records_are_frozen():
    with pytest.raises(FrozenInstanceError):
        GAUSSIAN.name = "poisson"
    with pytest.raises(FrozenInstanceError):
        IDENTITY.name = "log"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gausian",), "family='gausian' is not available. Did you mean `gaussian`?"),
        (("zzz",), "family='zzz' is not available. Known names: `gaussian`."),
        ((None,), "family= takes a name or a Family, got NoneType."),
        ((["gaussian"],), "family= takes a name or a Family, got list."),
        (
            ("gaussian", "log"),
            "link='log' is not available for the gaussian family: there is 'identity'.",
        ),
        (
            (rf.Family("gaussian", LOG, np.ones_like),),
            "the gaussian family with log link as given is not available: there is `gaussian`.",
        ),
        (
            (replace(GAUSSIAN, name="tweedie"),),
            "the tweedie family with identity link as given is not available: there is `gaussian`.",
        ),
    ],
)
def test_what_is_not_there(arguments, message):
    with pytest.raises(rf.FitError) as caught:
        find_family(*arguments)
    assert str(caught.value) == message
