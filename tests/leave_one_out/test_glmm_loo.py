"""Leave-one-out of generalised models against dense, integrated and refitted posteriors."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from component_cases import by_integration, data_of, joint_case, some_values
from designs import STRUCTURES, random_frame
from scipy import special, stats

import ranef as rf
from ranef.design.design import build_design, leaving_out
from ranef.errors import DataError
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.leave_one_out import glmm_loo
from ranef.leave_one_out.elpd import Units
from ranef.leave_one_out.glmm_loo import joint_scores, log_predictive
from ranef.likelihood.generalized.gauss_hermite import rule
from ranef.posterior.generalized_posterior import joint_of
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Constant, Flat, HalfNormal, Normal


def rows_of(design):
    return Units("observation", None, None, design.rows.index)


def levels_of(design, factor):
    term = next(term for term in design.rows.terms if term.factor == factor)
    return Units("group", factor, term.codes, term.grouping.levels)


def scores(joint, design, units, values, priors, **settings):
    settings |= {"values": values, "family": joint.model.family, "priors": priors}
    return joint_scores(joint, design, units, rng=np.random.default_rng(1), **settings)


# ------------------------------------------------------------------- given the parameters


def dense(design, joint, priors, values):
    """Return log p of any rows of a normal response: a function, by the full covariance matrix."""
    sigma = values[joint.space.names.index("sigma")]
    V, mu = (
        np.diag(sigma**2 / design.rows.weights),
        design.rows.offset + joint.X @ values[: joint.p],
    )
    for term, own, factor in zip(
        design.rows.terms, priors.terms, joint.space.factors(values), strict=True
    ):
        root = factor if own.change is None else own.change @ factor
        Z = np.zeros((design.n_obs, term.n_levels, term.n_coefs))
        Z[np.arange(design.n_obs), term.codes] = term.columns @ root
        Z = Z.reshape(design.n_obs, -1)
        V = V + Z @ Z.T
    return lambda rows: stats.multivariate_normal.logpdf(
        design.rows.y[rows], mu[rows], V[np.ix_(rows, rows)]
    )


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_normal_response_equals_the_dense_computation(structure):
    frame = random_frame(np.random.default_rng(2), 60)
    frame["y"] -= 1e3
    family = find_family("gaussian")
    design = build_design(read_formula(STRUCTURES[structure]), frame, weights="w")
    priors = resolve(design, "default", family)
    joint = joint_of(design, family, priors)
    values = some_values(joint, 2)
    groups = [Units("group", t.factor, t.codes, t.grouping.levels) for t in design.rows.terms]
    outside = Units("group", "j", frame["j"].to_numpy(), pd.Index(range(5)))
    for units in (*groups, outside, rows_of(design)):
        found = log_predictive(joint, units, values).log_p
        exact = np.empty_like(found)
        for s, value in enumerate(values):
            log_p, everything = dense(design, joint, priors, value), np.arange(60)
            whole = log_p(everything)
            for a in range(units.size):
                exact[s, a] = whole - log_p(np.setdiff1d(everything, units.rows(a)))
        few = joint.model.has_one_factor and units.codes is None
        np.testing.assert_allclose(found, exact, atol=2e-3 if few else 1e-8)


@pytest.mark.parametrize("family", ["poisson", "bernoulli", "inverse_gaussian"])
def test_rows_of_small_and_large_levels_equal_numerical_integration(family):
    frame = data_of(family)
    frame["g"] = np.r_[np.arange(6), np.repeat([6, 7], 3), np.repeat([8, 9], 18)]
    design, joint, _ = joint_case("x + (1 | g)", family, frame)
    values = some_values(joint, 3)
    found = log_predictive(joint, rows_of(design), values).log_p
    for s, value in enumerate(values):
        log_p = by_integration(joint, value)
        codes = design.rows.terms[0].codes
        for i in (0, 5, 6, 11, 12, 30, 47):
            own = np.flatnonzero(codes == codes[i])
            left = log_p(own[own != i]) if len(own) > 1 else 0.0
            assert found[s, i] == pytest.approx(log_p(own) - left, abs=1e-3)


def test_an_effect_of_each_row_is_integrated_out():
    """Given such effects rows are independent: each is as a group of its own."""
    design, joint, _ = joint_case("x + (1 | row)", "poisson")
    values = some_values(joint)
    found = log_predictive(joint, rows_of(design), values).log_p
    np.testing.assert_allclose(found, log_predictive(joint, levels_of(design, "row"), values).log_p)
    log_p = by_integration(joint, values[1])
    np.testing.assert_allclose(found[1], [log_p([i]) for i in range(48)], atol=1e-4)


def importance_sampled(design, joint, value, draws=10_000):
    """Return log p of any rows given the parameters: a function, by draws of all effects."""
    setting, rng = joint.setting(value), np.random.default_rng(4)
    Z = np.hstack(
        [
            np.eye(block.n_levels)[block.codes] * (block.columns @ Lambda)
            for block, Lambda in zip(joint.model.problem.Z.blocks, setting.Lambdas, strict=True)
        ]
    )
    q, nu = Z.shape[1], 8
    t = rng.standard_normal((draws, q)) / np.sqrt(rng.chisquare(nu, draws) / nu)[:, None]
    logq = stats.multivariate_t(np.zeros(q), df=nu).logpdf(t)

    def log_p(rows):
        X, y, w = Z[rows], design.rows.y[rows], design.rows.weights[rows]
        u = np.zeros(q)
        for _ in range(30):
            at = joint.model.family.expansion(y, setting.base[rows] + X @ u, w, setting.psi)
            H = np.eye(q) + (X.T * at.weight) @ X
            u = u + np.linalg.solve(H, X.T @ at.score - u)
        L = np.linalg.cholesky(H)
        drawn = u + np.linalg.solve(L.T, t.T).T
        eta = setting.base[rows] + drawn @ X.T
        logs = joint.model.family.expansion(y, eta, w, setting.psi).value.sum(1)
        logs += -0.5 * (drawn**2).sum(1) - q / 2 * np.log(2 * np.pi) - logq
        return special.logsumexp(logs) - np.log(draws) - np.log(np.diag(L)).sum()

    return log_p


@pytest.mark.parametrize("family", ["bernoulli", "poisson"])
def test_crossed_factors_are_near_the_exact_integral(family):
    design, joint, _ = joint_case("x + (1 | g) + (1 | h)", family)
    values = some_values(joint, 2)
    log_p, everything = importance_sampled(design, joint, values[1]), np.arange(48)
    whole = log_p(everything)
    for units, off in (
        (levels_of(design, "g"), 0.05),
        (levels_of(design, "h"), 0.05),
        (rows_of(design), 0.02),
    ):
        found = log_predictive(joint, units, values).log_p[1]
        for a in range(0, units.size, units.size // 3):
            left = np.setdiff1d(everything, units.rows(a))
            assert found[a] == pytest.approx(whole - log_p(left), abs=off)


# ---------------------------------------------------------------------- over the posterior


@cache
def integrated(right, family, priors_of, sizes=(27, 21)):
    """Return a model of two parameters, and its posterior on a lattice of them."""
    priors = dict(priors_of)
    data = data_of(family)
    design, joint, found = joint_case(right, family, data, priors)
    axes = [np.linspace(-0.5, 1.5, sizes[0]), np.linspace(-4, 1.5, sizes[1])]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    values, logp = joint.space.values(x)
    return design, joint, found, x, values, logp


ONE = (("Intercept", Normal(0, 1)), ("sd", HalfNormal(1)))


@pytest.mark.parametrize(
    ("family", "unit"),
    [("poisson", "group"), ("binomial", "group"), ("binomial", "observation")],
)
def test_the_posterior_without_a_unit_is_integrated_exactly(family, unit):
    """Two parameters on a lattice; every level by the trapezoidal rule, without this package."""
    design, joint, priors, _, values, logp = integrated("1 + (1 | g)", family, ONE)
    codes = design.rows.terms[0].codes
    levels = [np.flatnonzero(codes == level) for level in range(8)]
    sets = levels if unit == "group" else [levels[i % 8][i // 8 : i // 8 + 1] for i in range(10)]
    whole, left = np.empty((len(values), 8)), np.zeros((len(values), len(sets)))
    for s, value in enumerate(values):
        log_p = by_integration(joint, value, 201)
        whole[s] = [log_p(rows) for rows in levels]
        for a, rows in enumerate(sets):
            rest = np.setdiff1d(levels[codes[rows[0]]], rows)
            left[s, a] = log_p(rest) if len(rest) else 0.0
    total = whole.sum(axis=1)
    own = [codes[rows[0]] for rows in sets]
    without = total[:, None] - whole[:, own] + left
    exact = special.logsumexp(total + logp) - special.logsumexp(without + logp[:, None], axis=0)
    weights = np.exp(total + logp - special.logsumexp(total + logp))
    drawn = np.random.default_rng(1).choice(len(values), 4000, p=weights)
    units = levels_of(design, "g") if unit == "group" else rows_of(design)
    found = scores(joint, design, units, values[drawn], priors)
    places = range(8) if unit == "group" else [int(rows[0]) for rows in sets]
    np.testing.assert_allclose(found.elpd[list(places)], exact, atol=0.05)
    assert (np.abs(found.elpd[list(places)] - exact) < 5 * found.mcse[list(places)] + 0.002).all()
    assert found.draws == 4000
    assert 0 < found.p_loo < 8
    assert found.method.startswith(
        "Pareto-smoothed importance sampling over 4,000 draws, random effects by quadrature with "
    )


CROSSED = (("Intercept", Normal(0, 1)), ("sd_g", HalfNormal(1)), ("sd_h", Constant(0.6)))


def crossed():
    """Return a crossed model of two parameters and draws from its posterior on a lattice."""
    right = "1 + (1 | g) + (1 | h)"
    design, joint, priors, x, values, _ = integrated(right, "poisson", CROSSED, (15, 11))
    density = joint.log_density(x)
    weights = np.exp(density - special.logsumexp(density))
    drawn = np.random.default_rng(1).choice(len(x), 1000, p=weights)
    return design, joint, priors, x, values[drawn], density


@cache
def crossed_case():
    return crossed()


def refitted(units, place):
    """Return the ratio of marginal likelihoods with and without a unit, on the lattice."""
    design, joint, priors, x, _, density = crossed_case()
    left = joint_of(leaving_out(design, units.rows(place)), joint.model.family, priors)
    return special.logsumexp(density) - special.logsumexp(left.log_density(x))


def test_crossed_factors_equal_refits():
    design, joint, priors, _, values, _ = crossed_case()
    for units, places in ((levels_of(design, "g"), (0, 3)), (rows_of(design), (7,))):
        found = scores(joint, design, units, values, priors)
        for place in places:
            assert found.elpd[place] == pytest.approx(refitted(units, place), abs=0.05)
        assert "Laplace's approximation" in found.method


def test_what_importance_weights_cannot_do_is_done_by_refits(monkeypatch):
    design, joint, priors, _, values, _ = crossed_case()
    units = levels_of(design, "h")
    before = scores(joint, design, units, values, priors)
    limit = float(np.sort(before.khat)[-2])
    monkeypatch.setattr(glmm_loo, "good_khat", lambda _: limit)
    found = scores(joint, design, units, values, priors)
    (bad,) = np.flatnonzero(found.repaired)
    assert bad == np.argmax(before.khat)
    assert np.isnan(found.khat[bad])
    assert found.elpd[bad] != before.elpd[bad]
    assert found.elpd[bad] == pytest.approx(refitted(units, int(bad)), abs=4 * found.mcse[bad])
    assert 0 < found.mcse[bad] < 0.05
    others = np.arange(units.size) != bad
    np.testing.assert_array_equal(found.elpd[others], before.elpd[others])
    assert found.method.endswith("; 1 of 4 by ratios of marginal likelihoods")


def test_where_no_density_is_found_the_unit_is_refitted():
    data = data_of("poisson", 12, 4)
    design, joint, priors = joint_case("1 + (1 | g)", "poisson", data, dict(ONE))
    values = some_values(joint, 60)
    values[5, 0] = 1e4
    halves = Units("group", "half", design.rows.terms[0].codes // 2, pd.Index(["first", "second"]))
    found = scores(joint, design, halves, values, priors)
    assert found.repaired.all()
    assert np.isfinite(found.elpd).all()


def test_a_model_without_random_terms():
    """Rows are independent: the posterior of the intercept on a lattice says it all."""
    priors = {"Intercept": Normal(0, 1)}
    design, joint, found_priors = joint_case("1", "poisson", None, priors)
    beta = np.linspace(-1.5, 2.5, 801)
    rows = stats.poisson.logpmf(design.rows.y, np.exp(beta)[:, None])
    logp = stats.norm.logpdf(beta) + rows.sum(axis=1)
    codes = np.arange(48) % 5
    units = Units("group", "fifth", codes, pd.Index(range(5)))
    out = np.stack([rows[:, codes == a].sum(axis=1) for a in range(5)], axis=1)
    exact = special.logsumexp(logp) - special.logsumexp(logp[:, None] - out, axis=0)
    weights = np.exp(logp - special.logsumexp(logp))
    drawn = np.random.default_rng(1).choice(beta, 4000, p=weights)
    values = np.repeat(joint.space.values(joint.start())[0][None], 4000, axis=0)
    values[:, 0] = drawn
    found = scores(joint, design, units, values, found_priors)
    np.testing.assert_allclose(found.elpd, exact, atol=0.05)
    assert found.method == "Pareto-smoothed importance sampling over 4,000 draws"
    repeated = np.repeat(values[:1000], 4, axis=0)  # a chain that moves at every fourth draw
    alone = scores(joint, design, units, repeated, found_priors)
    of_chains = scores(joint, design, units, repeated, found_priors, chains=4)
    np.testing.assert_allclose(of_chains.mcse, 2 * alone.mcse, rtol=0.3)
    single = log_predictive(joint, rows_of(design), values[:3]).log_p
    np.testing.assert_allclose(single, stats.poisson.logpmf(design.rows.y, np.exp(drawn[:3, None])))


def test_nested_factors_are_independent_between_outer_levels():
    """A level of the outer factor is as a data set of its own."""
    design, joint, priors = joint_case("x + (1 | s/g)", "bernoulli")
    values = some_values(joint)
    found = log_predictive(joint, levels_of(design, "s"), values).log_p
    for level in range(4):
        rows = np.flatnonzero(design.rows.term("s").codes != level)
        alone = joint_of(leaving_out(design, rows), joint.model.family, priors, 1)
        expected = replace(alone, component_points=glmm_loo.REPAIR)
        x = np.array([joint.space.point(value) for value in values])
        prior = joint.space.values(x)[1]
        np.testing.assert_allclose(found[:, level], expected.log_density(x) - prior, atol=1e-4)


def test_a_flat_prior_needs_the_other_rows():
    data = data_of("poisson").assign(f=["b", "a", "a", "a", "a", "a", "a", "a"] * 6)
    design, joint, priors = joint_case(
        "f + (1 | g)", "poisson", data, {"beta": Flat(), "Intercept": Flat()}
    )
    proper = resolve(design, "default", joint.model.family)
    values = some_values(joint)
    with pytest.raises(DataError) as error:
        scores(joint, design, levels_of(design, "g"), values, priors)
    assert str(error.value) == (
        "without level `0` of `g` the fixed effect `f[T.b]` is not determined, as its prior is "
        "flat: give it a proper prior."
    )
    glmm_loo._check_determined(joint, levels_of(design, "g"), proper)
    glmm_loo._check_determined(joint, rows_of(design), priors)


def test_rows_are_left_out_of_a_design_with_their_levels():
    design, joint, _ = joint_case("x + (1 | g) + (1 | h)", "binomial")
    left = leaving_out(design, np.flatnonzero(design.rows.term("g").codes == 2))
    assert left.n_obs == 42
    assert list(left.term("g").levels) == [0, 1, 3, 4, 5, 6, 7]
    assert list(left.term("h").levels) == [0, 1, 2, 3]
    old = design.term("g").levels[design.rows.term("g").codes]
    new = left.term("g").levels[left.rows.term("g").codes]
    assert list(new) == [level for level in old if level != 2]
    np.testing.assert_array_equal(left.rows.y, design.rows.y[left.rows.index])
    np.testing.assert_array_equal(left.rows.weights, design.rows.weights[left.rows.index])
    assert joint.model.problem.Z.blocks[0].n_levels == 8


def test_the_error_of_crossed_groups_covers_that_of_laplace():
    """Exactly, on a lattice over all five effects."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"g": np.arange(18) % 3, "h": np.arange(18) % 2, "x": rng.normal(size=18)})
    frame["y"] = (rng.uniform(size=18) < [0.2, 0.5, 0.9] * 6).astype(int)
    priors = {"sd": Constant(2.0)}
    model = rf.Model("y ~ x + (1 | g) + (1 | h)", frame, family="bernoulli", priors=priors)
    joint, z = model.engine.density, rule(9, 5)
    values = joint.space.values(joint.start()[None])[0]
    units = levels_of(model.design, "g")
    found = log_predictive(joint, units, values)
    X, y = joint.X @ values[0, : joint.p], frame["y"].to_numpy()
    eta = X + 2 * z.nodes[:, frame["g"]] + 2 * z.nodes[:, 3 + frame["h"]]
    rows = np.where(y == 1, -np.log1p(np.exp(-eta)), -np.log1p(np.exp(eta)))

    def log_p(kept):
        return special.logsumexp(rows[:, kept].sum(1) + z.log_weights)

    whole = log_p(np.ones(18, dtype=bool))
    exact = np.array([whole - log_p((frame["g"] != g).to_numpy()) for g in range(3)])
    off = exact - found.log_p[0]
    assert np.abs(off).max() > 0.03
    assert (np.abs(off) < 2 * found.error).all()
    assert abs((off - found.bias).sum()) < 0.5 * abs(off.sum())
