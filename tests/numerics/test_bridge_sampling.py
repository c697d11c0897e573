"""Bridge sampling against integrals in closed form, its error, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
from density_cases import SLEEP, sleep
from scipy import special

from ranef.errors import FitError
from ranef.numerics.bridge_sampling import bridge, warp3
from ranef.posterior.laplace import approximate


def chains(rng, shape, rho=0.0):
    """Return standard normal draws, (chains, n, d), that are autocorrelated along a chain."""
    noise = rng.standard_normal(shape)
    found = noise.copy()
    for t in range(1, shape[1]):
        found[:, t] = rho * found[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return found


def logs_of_gammas(d):
    """Return a skewed density, its integral, and draws of it from normal ones."""
    a = np.linspace(0.7, 4, d)
    return (
        lambda x: (a * x - np.exp(x)).sum(axis=1),
        special.gammaln(a).sum(),
        lambda z: np.log(special.gammaincinv(a, special.ndtr(z))),
    )


def students(d, nu=5.0):
    constant = special.gammaln((nu + 1) / 2) - special.gammaln(nu / 2) - np.log(nu * np.pi) / 2
    return (
        lambda x: -(nu + 1) / 2 * np.log1p(x**2 / nu).sum(axis=1),
        -d * constant,
        lambda z: special.stdtrit(nu, special.ndtr(z)),
    )


def normals(d):
    return lambda x: -0.5 * (x**2).sum(axis=1), d / 2 * np.log(2 * np.pi), lambda z: z


CASES = {"skewed": logs_of_gammas, "heavy tails": students, "normal": normals}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("d", [1, 3, 8])
def test_integrals_in_closed_form(case, d):
    log_density, truth, draws_of = CASES[case](d)
    rng = np.random.default_rng(d)
    found = warp3(log_density, draws_of(chains(rng, (4, 1500, d))), rng)
    assert abs(found.value - truth) < 4 * found.mcse
    assert found.mcse < 0.02


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_error_is_as_large_as_it_says(case, rho):
    """Of independent draws, and of correlated ones, whose number counts for a ninth."""
    log_density, truth, draws_of = CASES[case](2)
    rng, z = np.random.default_rng(7), []
    for _ in range(150):
        found = warp3(log_density, draws_of(chains(rng, (4, 250, 2), rho)), rng)
        z.append((found.value - truth) / found.mcse)
    assert 0.75 < np.var(z) < 1.35
    assert abs(np.mean(z)) < 0.35


@pytest.mark.slow
@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.8])
@pytest.mark.parametrize("d", [2, 6])
def test_the_error_in_hundreds_of_replicates(rho, d):
    z = []
    for case in CASES.values():
        log_density, truth, draws_of = case(d)
        rng = np.random.default_rng(11)
        for _ in range(300):
            found = warp3(log_density, draws_of(chains(rng, (4, 500, d), rho)), rng)
            z.append((found.value - truth) / found.mcse)
    assert 0.85 < np.var(z) < 1.15


def test_correlated_draws_have_a_larger_error():
    log_density, _, draws_of = students(3)
    errors = {}
    for rho in (0.0, 0.95):
        rng = np.random.default_rng(3)
        errors[rho] = warp3(log_density, draws_of(chains(rng, (4, 2000, 3), rho)), rng).mcse
    assert 1.7 < errors[0.95] / errors[0.0] < 6


@pytest.mark.parametrize("random", list(SLEEP)[1:])
def test_evidences_of_the_sleep_study(random):
    target = sleep(random)
    x = approximate(target, draws=4000, rng=np.random.default_rng(1)).x
    draws, rng = x.reshape(4, 1000, -1), np.random.default_rng(2)
    found = warp3(target.log_density, draws, rng)
    assert abs(found.value - SLEEP[random][0]) < 4 * found.mcse
    assert found.mcse < 0.004


def test_constants_and_units_move_the_result_and_nothing_else():
    """A change of variables x = A u + b divides the integral by |det A|."""
    log_density, _, draws_of = logs_of_gammas(3)
    draws = draws_of(chains(np.random.default_rng(1), (2, 400, 3)))
    A, b = np.tril(np.arange(1.0, 10).reshape(3, 3)), np.array([1.0, -20, 300])
    plain = warp3(log_density, draws, np.random.default_rng(5))
    more = warp3(lambda x: log_density(x) - 900, draws, np.random.default_rng(5))
    turned = warp3(
        lambda u: log_density(np.linalg.solve(A, (u - b).T).T),
        draws @ A.T + b,
        np.random.default_rng(5),
    )
    assert more.value == pytest.approx(plain.value - 900, abs=1e-9)
    assert turned.value == pytest.approx(plain.value + np.log(np.linalg.det(A)), abs=1e-9)
    assert [more.mcse, turned.mcse] == pytest.approx([plain.mcse] * 2, rel=1e-6)


def test_the_balance_is_the_fixed_point_of_meng_and_wong():
    rng = np.random.default_rng(1)
    l1, l2, s1 = np.exp(rng.normal(1, 1, 500)), np.exp(rng.normal(0, 2, 900)), 0.3
    r = 1.0
    for _ in range(300):
        r = np.mean(l2 / (s1 * l2 + (1 - s1) * r)) / np.mean(1 / (s1 * l1 + (1 - s1) * r))
    odds = np.log(s1 / (1 - s1))
    log_r, at_ours, at_theirs = bridge(np.log(l1), np.log(l2), odds)
    assert log_r == pytest.approx(np.log(r))
    f, complement = s1 * l2 / (s1 * l2 + (1 - s1) * r), (1 - s1) * r / (s1 * l1 + (1 - s1) * r)
    np.testing.assert_allclose(at_theirs, f / f.mean())
    np.testing.assert_allclose(at_ours, complement / complement.mean())


def test_two_densities_far_apart():
    """Where no draw of either has density under the other that is told from zero."""
    log_r, at_ours, at_theirs = bridge(np.full(9, 2000.0), np.full(9, -2000.0), 0.0)
    assert log_r == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose([at_ours, at_theirs], 1.0)


def test_proposals_without_density_are_no_harm():
    """Half a normal distribution in its own coordinate, which ends where it is highest."""
    z = np.abs(chains(np.random.default_rng(2), (4, 2000, 1)))
    found = warp3(
        lambda x: np.where(x[:, 0] > 0, -0.5 * x[:, 0] ** 2, -np.inf), z, np.random.default_rng(1)
    )
    assert abs(found.value - np.log(np.pi / 2) / 2) < 4 * found.mcse


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        (np.zeros((40, 2)), "draws must have shape (chains, draws, coordinates), got (40, 2)."),
        (
            np.zeros((4, 19, 2)),
            (
                "bridge sampling of 2 parameters needs at least 80 draws, 8 in each chain, and "
                "there are 4 chains of 19: sample more."
            ),
        ),
        (
            np.zeros((40, 7, 2)),
            (
                "bridge sampling of 2 parameters needs at least 80 draws, 8 in each chain, and "
                "there are 40 chains of 7: sample more."
            ),
        ),
        (
            np.zeros((4, 50, 2)),
            (
                "the draws have no covariance of full rank: bridge sampling needs draws that vary "
                "in every parameter."
            ),
        ),
        (
            np.full((4, 50, 2), -1.0),
            (
                "200 of 200 draws have density zero: they are not draws of this posterior. Use "
                "those of a fit of the same model and data."
            ),
        ),
    ],
)
def test_what_is_refused(draws, message):
    def log_density(x):
        return np.where((x >= 0).all(axis=1), -x.sum(axis=1), -np.inf)

    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        warp3(log_density, draws, np.random.default_rng(1))
