"""Many points at once: the same numbers as one by one, and draws with the right moments."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES
from marginal_cases import (
    ODD,
    PRIORS,
    build_design,
    dense_covariance,
    everything,
    odd_frame,
    random_point,
    read_formula,
    resolve,
    target_of,
)
from scipy import stats

from ranef.likelihood.linear import blocked_cholesky, many_thetas
from ranef.priors.distributions import Normal

POINTS = 4


def points_of(space, seed=1):
    rng = np.random.default_rng(seed)
    return np.array([random_point(space, rng) for _ in range(POINTS)])


def odd(formula, priors="default"):
    design = build_design(read_formula(formula), odd_frame(), weights="w")
    resolved = resolve(design, priors)
    return design, resolved, target_of(design, resolved)


def relative_factors(target, values):
    sigma = values[:, target.space.n_given, None, None]
    pairs = zip(target.bases, target.space.factors(values), strict=True)
    return [A @ F / sigma for A, F in pairs]


@pytest.mark.parametrize("priors", ["default", "given", "relative"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_log_density_is_that_of_the_target_at_every_point(name, priors):
    _, _, target = everything(STRUCTURES[name], 1, PRIORS[priors], n=80)
    x = points_of(target.space)
    expected = [target(one)[0] for one in x]
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ODD)
def test_log_density_of_an_odd_design_is_that_of_the_target(name):
    _, _, target = odd(ODD[name])
    x = points_of(target.space)
    expected = [target(one)[0] for one in x]
    np.testing.assert_allclose(target.log_density(x), expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["correlated slope", "crossed"])
def test_log_density_is_minus_infinity_where_it_cannot_be_computed(name):
    _, _, target = everything(STRUCTURES[name], 1, n=60)
    x = points_of(target.space)
    x[1] = 600.0
    x[2] = np.nan
    found = target.log_density(x)
    assert (found[1], found[2]) == (-np.inf, -np.inf)
    assert found[3] == pytest.approx(target(x[3])[0], rel=1e-11)


@pytest.mark.parametrize("name", ["correlated slope", "crossed"])
def test_points_in_chunks_are_the_same_points(monkeypatch, name):
    """And so are those of crossed factors with too many products, which go one by one."""
    _, _, target = everything(STRUCTURES[name], 1, n=60)
    x = points_of(target.space)
    whole = target.log_density(x)
    values, _ = target.space.values(x)
    drawn = target.draw(values, np.random.default_rng(1))
    parts = many_thetas.moments(target.cross, relative_factors(target, values))
    monkeypatch.setattr(many_thetas, "CHUNK", 1)
    np.testing.assert_allclose(target.log_density(x), whole, rtol=1e-12)
    again = target.draw(values, np.random.default_rng(1))
    for own, other in zip(again.b, drawn.b, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-9)
    for own, other in zip(
        parts, many_thetas.moments(target.cross, relative_factors(target, values)), strict=True
    ):
        np.testing.assert_allclose(own.cov, other.cov, atol=1e-12)


@pytest.mark.parametrize("name", STRUCTURES)
def test_moments_are_those_of_the_engine_point_by_point(name):
    _, _, target = everything(STRUCTURES[name], 2, n=80)
    values, _ = target.space.values(points_of(target.space, 2))
    Lambdas = relative_factors(target, values)
    gamma = np.random.default_rng(3).normal(size=target.cross.p)
    found = many_thetas.moments(target.cross, Lambdas)
    for i in range(POINTS if Lambdas else 0):
        factorized = blocked_cholesky.factorize(target.cross, [L[i] for L in Lambdas])
        pairs = zip(
            blocked_cholesky.modes(factorized, gamma),
            blocked_cholesky.conditional_covariances(factorized),
            strict=True,
        )
        for own, (mode, cov) in zip(found, pairs, strict=True):
            np.testing.assert_allclose(own.mean[i] + own.slope[i] @ gamma, mode, atol=1e-9)
            np.testing.assert_allclose(own.cov[i], cov, atol=1e-11)


# ------------------------------------------------------------------------------------ draws


def dense_posterior(design, priors, target, values):
    """Return mean and covariance of all effects, (beta, b of all terms), given the variances.

    From the joint normal distribution of (beta, b, y), on the user's scale; all beta are normal.
    """
    sd_given = values[target.space.n_given]
    X = design.rows.X if priors.change is None else design.rows.X @ priors.change
    own, others = target.fixed.order
    mean_beta = np.zeros(len(priors.beta))
    var_beta = np.zeros(len(priors.beta))
    mean_beta[others] = values[: target.space.n_given]
    mean_beta[own] = [priors.beta[j].mu for j in own]
    var_beta[own] = [priors.beta[j].sigma ** 2 for j in own]
    columns, blocks, changes = [X], [np.diag(var_beta)], [target.fixed.change]
    for t, term in enumerate(design.rows.terms):
        m, k = term.n_levels, term.n_coefs
        change = np.eye(k) if priors.terms[t].change is None else priors.terms[t].change
        F = change @ target.space.factors(values)[t]
        Z = np.zeros((len(design.rows.y), m * k))
        for a in range(k):
            Z[np.arange(len(Z)), term.codes * k + a] = term.columns[:, a]
        columns.append(Z)
        blocks.append(np.kron(np.eye(m), F @ F.T))
        changes.append(np.eye(m * k))
    W, prior = np.hstack(columns), _block_diagonal(blocks)
    noise = np.diag(sd_given**2 / design.rows.weights)
    V = W @ prior @ W.T + noise
    assert np.allclose(
        V - X @ np.diag(var_beta) @ X.T, dense_covariance(design, priors, target, values)
    )
    gain = prior @ W.T @ np.linalg.inv(V)
    mean = np.append(mean_beta, np.zeros(W.shape[1] - X.shape[1]))
    mean = mean + gain @ (design.rows.y - design.rows.offset - W @ mean)
    cov, turn = prior - gain @ W @ prior, _block_diagonal(changes)
    return turn @ mean, turn @ cov @ turn.T


def _block_diagonal(blocks):
    size = sum(len(b) for b in blocks)
    found, start = np.zeros((size, size)), 0
    for b in blocks:
        found[start : start + len(b), start : start + len(b)] = b
        start += len(b)
    return found


OWN = {"Intercept": Normal(4, 6), "beta": Normal(0.5, 2)}
DRAWN = {
    "one factor": ("y ~ x + (1 | c)", OWN),
    "correlated, priors away from zero": ("y ~ x + (x | c)", "default"),
    "nested": ("y ~ x + (1 | s/c)", "default"),
    "crossed": ("y ~ x + (1 | i) + (x | j)", "default"),
    "dependent fixed effects": ("y ~ x + x2 + f + (x | c)", OWN),
    "dependent columns of a term": ("y ~ x + (x + x2 | j)", OWN),
    "a given effect": ("y ~ x + f + (x | c)", PRIORS["given"]),
}


class UnitNumbers:
    """Stands for a generator: nothing but zeros at point 0, then one noise number of 1 a point.

    As draws are linear in their noise, those at the points show its matrix, column by column.
    """

    def __init__(self):
        self.used = 0

    def standard_normal(self, shape):
        found = np.zeros((shape[0], int(np.prod(shape[1:]))))
        rows = np.arange(self.used + 1, self.used + 1 + found.shape[1])
        found[rows, np.arange(found.shape[1])] = 1.0
        self.used += found.shape[1]
        return found.reshape(shape)


@pytest.mark.parametrize(("formula", "priors"), DRAWN.values(), ids=DRAWN)
def test_draws_have_mean_and_covariance_of_the_normal_distribution(formula, priors):
    design, resolved, target = odd(formula, priors)
    values, _ = target.space.values(0.3 * random_point(target.space, np.random.default_rng(4)))
    fixed = target.fixed
    noise = fixed.J.shape[1] + len(fixed.mean) + sum(t.n_levels * t.n_coefs for t in design.terms)
    drawn = target.draw(np.tile(values, (noise + 1, 1)), UnitNumbers())
    all_effects = np.hstack([drawn.beta, *(b.reshape(noise + 1, -1) for b in drawn.b)])
    mean, cov = dense_posterior(design, resolved, target, values)
    np.testing.assert_allclose(all_effects[0], mean, rtol=1e-8, atol=1e-8)
    root = all_effects[1:] - all_effects[0]
    np.testing.assert_allclose(root.T @ root, cov, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["correlated, priors away from zero", "crossed"])
def test_draws_at_different_points_are_independent_normal_numbers(name):
    formula, priors = DRAWN[name]
    design, resolved, target = odd(formula, priors)
    values, _ = target.space.values(np.zeros(target.space.d))
    size = 1500
    found = target.draw(np.tile(values, (size, 1)), np.random.default_rng(5))
    mean, cov = dense_posterior(design, resolved, target, values)
    b = found.b[0][:, 0, 0]
    place = found.beta.shape[1]
    z = (b - mean[place]) / np.sqrt(cov[place, place])
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 4 / np.sqrt(size)
    assert (np.diff(found.beta, axis=0) != 0).all()


def test_draws_carry_sigma_and_the_users_factors():
    design, _, target = odd("y ~ x + (x | c)")
    values, _ = target.space.values(points_of(target.space))
    found = target.draw(values, np.random.default_rng(1))
    np.testing.assert_array_equal(found.sigma, values[:, 0])
    for i in range(POINTS):
        F = target.space.factors(values[i])[0]
        np.testing.assert_allclose(found.factors[0][i] @ found.factors[0][i].T, F @ F.T, rtol=1e-10)
    assert found.b[0].shape == (POINTS, design.terms[0].n_levels, 2)


def test_known_effects_are_drawn_as_they_are():
    _, _, target = odd("y ~ x + f + (x | c)", PRIORS["given"])
    values, _ = target.space.values(points_of(target.space))
    found = target.draw(values, np.random.default_rng(1))
    np.testing.assert_allclose(found.beta[:, 0], values[:, 0], rtol=1e-12)


def test_the_same_generator_gives_the_same_draws():
    _, _, target = odd("y ~ x + (1 | i) + (x | j)")
    values, _ = target.space.values(points_of(target.space))
    one, two = (target.draw(values, np.random.default_rng(8)) for _ in range(2))
    np.testing.assert_array_equal(one.b[1], two.b[1])
    np.testing.assert_array_equal(one.beta, two.beta)


def test_draws_without_random_effects_are_those_of_a_linear_model():
    """At known sigma: the posterior of beta alone, a normal distribution."""
    _, _, target = everything("y ~ x", 1, {"Intercept": Normal(1e3, 50), "x": Normal(0, 3)}, n=40)
    values = np.tile([2.0], (4000, 1))
    found = target.draw(values, np.random.default_rng(2))
    design, resolved, _ = everything(
        "y ~ x", 1, {"Intercept": Normal(1e3, 50), "x": Normal(0, 3)}, n=40
    )
    mean, cov = dense_posterior(design, resolved, target, values[0])
    white = np.linalg.solve(np.linalg.cholesky(cov), (found.beta - mean).T)
    assert all(stats.kstest(part, "norm").pvalue > 1e-3 for part in white)
    assert found.b == []
