"""The binomial and the Bernoulli distribution."""

from __future__ import annotations

import large_counts
import numpy as np
import pytest
from family_cases import check_unit_deviances, family_cases

from ranef.families.links import LOGIT
from ranef.families.names import find_family


@family_cases(
    "binomial",
    ("logit", "probit", "cloglog", "cauchit"),
    tails=("logit", "probit", "cloglog", "cauchit"),
)
def test_binomial(check, name, link):
    check(name, link)


@family_cases(
    "bernoulli",
    ("logit", "probit", "cloglog", "cauchit"),
    tails=("logit", "probit", "cloglog", "cauchit"),
)
def test_bernoulli(check, name, link):
    check(name, link)


def test_unit_deviances_of_binomial_are_those_of_r():
    check_unit_deviances(
        "binomial",
        (),
        ([0.0, 1.0, 0.25], [0.1, 0.7, 0.4]),
        [0.2107210313156527, 0.7133498878774648, 0.0997135123484469],
    )


def test_unit_deviances_of_bernoulli_are_those_of_r():
    check_unit_deviances(
        "bernoulli",
        (),
        ([0.0, 1.0, 0.25], [0.1, 0.7, 0.4]),
        [0.2107210313156527, 0.7133498878774648, 0.0997135123484469],
    )


def test_gradients_stay_numbers_where_a_mean_is_one_to_rounding():
    pm = pytest.importorskip("pymc")
    family, eta = find_family("bernoulli", "probit"), np.array([12.0, -45.0])
    with pm.Model() as model:
        x = pm.Flat("x", shape=2)
        family.pymc(pm, "y", family.link, x, np.ones(2), observed=np.array([1.0, 0.0]), dims=None)
    assert np.isfinite(model.compile_dlogp(mode="FAST_COMPILE")({"x": eta})).all()


def test_logit_is_the_canonical_link_of_the_binomial():
    """The observed information is the expected one."""
    family = find_family("binomial")
    assert family.link is LOGIT
    eta, w = np.array([-2.0, 0.3]), np.array([4.0, 5.0])
    found = family.expansion(np.array([0.25, 0.8]), eta, w, np.empty(0))
    np.testing.assert_allclose(found.weight, family.information(eta, w, np.empty(0)), rtol=1e-14)


@pytest.mark.parametrize("n", [7, 1_000, 10**6, 10**9])
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.3, 0.9, 1.0])
def test_densities_of_many_trials_keep_their_digits(n, share):
    k, family = np.floor(n * share), find_family("binomial")
    spread = np.sqrt((k + 0.5) * (n - k + 0.5) / (n + 1))
    for z in (-1.0, 0.1, 2.5):
        p = np.clip((k + z * spread) / n, 0.1 / n, 1 - 0.1 / n)
        eta = np.array([np.log(p / (1 - p))])
        found = family.expansion(np.array([k / n]), eta, np.array([float(n)]), np.empty(0)).value
        expected = large_counts.binomial(k, n, eta[0])
        assert found[0] == pytest.approx(expected, rel=1e-12, abs=1e-9)
