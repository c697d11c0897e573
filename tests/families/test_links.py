"""Link functions: inverses, derivatives, and what happens far out in the tails."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy import special

from ranef.families.derivatives import differenced
from ranef.families.links import (
    CAUCHIT,
    CLOGLOG,
    IDENTITY,
    INVERSE,
    LINKS,
    LOG,
    LOGIT,
    PROBIT,
    SQRT,
    Link,
)

OF_CHANCE = {"logit": LOGIT, "probit": PROBIT, "cloglog": CLOGLOG, "cauchit": CAUCHIT}
ETA = np.array([0.4, 0.7, 1.0, 1.3])
BOTH = np.concatenate([-ETA, ETA])
FAR = np.array([-700.0, -300, -40, -21, -20, -19, 0, 19, 20, 21, 40, 300, 700])

every_link = pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
every_chance = pytest.mark.parametrize("link", OF_CHANCE.values(), ids=OF_CHANCE)


def slopes(function, eta, h=0.004):
    return differenced(function, eta, np.asarray(h))


def is_curve(curve, function, eta):
    tolerances = (1e-13, 1e-10, 1e-8, 1e-5)
    floors = (1e-8, 1e-8, 1e-8, 1e-7)  # what differences leave of a derivative that is zero
    for found, expected, tolerance, floor in zip(
        curve, slopes(function, eta), tolerances, floors, strict=True
    ):
        np.testing.assert_allclose(
            found + 0 * eta,
            expected,
            rtol=tolerance,
            atol=tolerance * np.abs(expected).max() + floor,
        )


@every_link
def test_a_link_and_its_inverse(link):
    mu = np.linspace(0.01, 0.99, 9)
    np.testing.assert_allclose(link.inverse(link.link(mu)), mu, rtol=1e-13)
    assert link.positive == (link.name in {"inverse", "inverse_squared"})


@every_link
def test_slopes_and_curves_are_those_of_the_inverse(link):
    eta = ETA if link.positive else BOTH
    is_curve(link.at(eta), link.inverse, eta)


@every_link
def test_curves_of_log_mu(link):
    eta = ETA if link.positive or link is IDENTITY else BOTH
    is_curve(link.log_mean(eta), lambda eta: np.log(link.inverse(eta)), eta)


@every_chance
def test_curves_of_both_logarithms(link):
    A, B = link.log_chances(BOTH)
    is_curve(A, lambda eta: np.log(link.inverse(eta)), BOTH)
    is_curve(B, lambda eta: np.log1p(-link.inverse(eta)), BOTH)


@every_link
def test_a_link_of_three_functions_does_the_same(link):
    eta = ETA if link.positive or link is IDENTITY else BOTH
    plain = replace(link, curve=None, logs=None)
    for a, b, tolerance in zip(
        plain.log_mean(eta), link.log_mean(eta), (1e-13, 1e-8, 1e-7, 1e-5), strict=True
    ):
        np.testing.assert_allclose(a, b + 0 * eta, rtol=tolerance, atol=10 * tolerance)


@every_chance
def test_tails_have_no_holes(link):
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        sides = link.log_chances(FAR)
        for curve in (*sides, link.at(FAR), link.log_mean(FAR)):
            assert np.isfinite(curve).all()
    assert all((side[0] <= 0).all() for side in sides)
    assert (np.diff(sides[0][0]) >= 0).all()
    assert (np.diff(sides[1][0]) <= 0).all()


def test_logit_of_one_outcome_alone():
    """The chance of a success at eta is that of a failure at -eta."""
    (A, A1, A2, _), (B, *_) = LOGIT.log_chances(FAR)
    np.testing.assert_allclose(LOGIT.log_slopes(FAR), (A, A1, A2), rtol=1e-15)
    np.testing.assert_allclose(LOGIT.log_value(FAR), A, rtol=1e-15)
    np.testing.assert_allclose(LOGIT.log_probabilities(FAR), (A, B), rtol=1e-15)


def test_tails_of_the_logit():
    A, B = LOGIT.log_chances(np.array([-40.0, 40.0]))
    e = np.exp(-40.0)
    np.testing.assert_allclose(A, [[-40, -e], [1, e], [-e, -e], [-e, e]], rtol=1e-15)
    np.testing.assert_allclose(B, [[-e, -40], [-e, -1], [-e, -e], [-e, e]], rtol=1e-15)


@pytest.mark.parametrize("x", [-50.0, -100.0, -700.0])
def test_the_lower_tail_of_the_probit(x):
    """Four terms of the asymptotic series, which miss by less than the fifth."""
    value, first, second, third = PROBIT.log_chances(np.array([x]))[0]
    t = x**-2
    np.testing.assert_allclose(value, special.log_ndtr(x), rtol=1e-14)
    np.testing.assert_allclose(
        first, -x - (1 - 2 * t + 10 * t**2 - 74 * t**3) / x, rtol=1000 * t**5
    )
    np.testing.assert_allclose(
        second, -1 + t * (1 - 6 * t + 50 * t**2 - 518 * t**3), rtol=1e-15 + 1e4 * t**5
    )
    np.testing.assert_allclose(
        third, -t / x * (2 - 24 * t + 300 * t**2 - 4144 * t**3), rtol=1e-14 + 1e5 * t**4
    )


def test_both_forms_of_the_probit_agree_where_they_meet():
    near, beyond = np.array([-20.0]), np.array([-20.000001])
    for a, b, tolerance in zip(
        PROBIT.log_chances(near)[0],
        PROBIT.log_chances(beyond)[0],
        (1e-6, 1e-6, 1e-8, 1e-6),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=tolerance)


def test_tails_of_the_cloglog():
    eta = np.array([-40.0, -700.0])
    (value, *of_A), (other, *of_B) = CLOGLOG.log_chances(eta)
    t = np.exp(eta)
    np.testing.assert_allclose(value, eta, rtol=1e-15)
    np.testing.assert_allclose(of_A, [[1, 1], -t / 2, -t / 2], rtol=1e-15)
    np.testing.assert_allclose([other, *of_B], [-t] * 4, rtol=1e-15)
    (value, *of_A), _ = CLOGLOG.log_chances(np.array([4.0]))
    t = np.exp(4.0)
    np.testing.assert_allclose(value, -np.exp(-t), rtol=1e-12)
    h = t * np.exp(-t)
    np.testing.assert_allclose(np.ravel(of_A), [h, h * (1 - t), h * ((1 - t) ** 2 - t)], rtol=1e-11)


def test_both_forms_of_the_cloglog_agree_where_they_meet():
    t = np.array([0.1 * (1 - 1e-12), 0.1 * (1 + 1e-12), 0.5 * (1 - 1e-12), 0.5 * (1 + 1e-12)])
    for part in CLOGLOG.log_chances(np.log(t))[0]:
        np.testing.assert_allclose(part[[0, 2]], part[[1, 3]], rtol=1e-10)


def test_tails_of_the_cauchit():
    eta = np.array([-1e6, 1e6])
    A, B = CAUCHIT.log_chances(eta)
    np.testing.assert_allclose(CAUCHIT.inverse(eta[:1]), 1e-6 / np.pi, rtol=1e-12)
    np.testing.assert_allclose([p[0] for p in A[1:]], [1e-6, 1e-12, 2e-18], rtol=1e-10)
    np.testing.assert_allclose([p[1] for p in B[1:]], [-1e-6, 1e-12, -2e-18], rtol=1e-10)


@pytest.mark.parametrize("eta", [-1e4, -700.0, 700.0, 1e4])
def test_the_log_link_does_not_overflow(eta):
    at = np.array([eta])
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(LOG.inverse(at)).all()
        assert np.isfinite(LOG.at(at)).all()
    assert LOG.log_mean(at)[0] == eta


def test_a_mean_that_is_no_chance_is_impossible():
    (A, *_), (B, *_) = LOG.log_chances(np.array([-1.0, 0.5]))
    np.testing.assert_allclose([A[0], B[0]], [-1, np.log1p(-np.exp(-1.0))], rtol=1e-14)
    assert A[1] == B[1] == np.finfo(float).min


def test_what_a_link_says_of_its_scale():
    facts = {name: (link.is_identity, link.is_log, link.is_sigmoid) for name, link in LINKS.items()}
    assert {name for name, (is_identity, _, _) in facts.items() if is_identity} == {"identity"}
    assert {name for name, (_, is_log, _) in facts.items() if is_log} == {"log"}
    sigmoids = {name for name, (_, _, is_sigmoid) in facts.items() if is_sigmoid}
    assert sigmoids == {"logit", "probit", "cloglog", "cauchit"}


def test_steps_stay_where_eta_is_possible():
    assert INVERSE.step(np.array([0.1])) < 0.1 / 4
    assert LOGIT.step(np.array([0.1])) == INVERSE.step(np.array([5.0]))


@every_link
def test_links_can_be_pickled(link):
    again = pickle.loads(pickle.dumps(link))
    assert again == link
    np.testing.assert_array_equal(again.inverse(ETA), link.inverse(ETA))


@every_link
def test_what_pymc_makes_of_a_mean(link):
    pm = pytest.importorskip("pymc")
    found = link.graph(pm, pm.math.constant(ETA)).eval(mode="FAST_COMPILE")
    np.testing.assert_allclose(found, link.inverse(ETA), rtol=1e-12)


def test_a_link_without_a_graph_is_its_inverse():
    square = Link("square", np.sqrt, lambda eta: eta * eta)
    assert square.graph(None, 3.0) == 9.0
    np.testing.assert_allclose(SQRT.inverse(ETA), square.inverse(ETA))
