"""The binomial and the Bernoulli distribution."""

from __future__ import annotations

import large_counts
import numpy as np
import pandas as pd
import pytest
from family_cases import check_unit_deviances, family_cases

import ranef as rf
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


# ------------------------------------------------------------------------------- relative risks


def test_the_log_link_agrees_with_glmmtmb():
    """glmmTMB 1.1.5: cbind(yes, no) ~ cond + (1 | s), family = binomial(link = "log")."""
    rng = np.random.default_rng(179)
    s = np.repeat(np.arange(24), 4)
    frame = pd.DataFrame({"s": s, "cond": np.tile(list("ABAB"), 24)})
    risk = np.minimum(0.3 * np.exp(rng.normal(size=24)[s] * 0.2), 0.95)
    frame["yes"] = rng.binomial(10, risk)
    model = rf.Model("cbind(yes, 10 - yes) ~ cond + (1 | s)", frame, family="binomial", link="log")
    fit = model.fit()
    assert fit.converged
    np.testing.assert_allclose(fit.loglik, -178.960508823, atol=1e-8)
    np.testing.assert_allclose(fit.fixef(), [-1.232640494, -0.031649225], atol=1e-6)
    np.testing.assert_allclose(fit.se(), [0.07832286, 0.10074866], atol=1e-7)
    np.testing.assert_allclose(fit.theta, [0.16041608], atol=1e-6)
    assert ((fit.predict() > 0) & (fit.predict() < 1)).all()
    assert model.fit("map").converged


def test_a_log_link_whose_maximum_is_at_certainty_says_what_else_there_is():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"g": np.repeat(np.arange(20), 10), "x": rng.normal(size=200)})
    frame["y"] = rng.binomial(1, np.minimum(np.exp(-0.3 + 0.3 * frame["x"]), 1))
    with pytest.raises(rf.RanefError, match=r"family=.poisson. estimates the same"):
        rf.fit("y ~ x + (1 | g)", frame, family="binomial", link="log")
