"""Simulated cross-products against rows: the same algebra, the same distribution."""

from __future__ import annotations

import numpy as np
import pytest
from designs import STRUCTURES, random_design, random_factors
from scipy import stats

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.errors import DataError
from ranef.likelihood.bootstrap import simulated_responses
from ranef.likelihood.bootstrap.simulated_responses import (
    Null,
    entropy_of,
    null_of,
    responses,
    seeds_of_replicates,
    simulated,
    span,
    sums_of,
    with_response,
)
from ranef.likelihood.linear import blocked_cholesky, crossproducts
from ranef.likelihood.linear.crossproducts import cross_products

WAYS = [False, True]


def indicators(design):
    """Return Z, dense, of all terms."""
    blocks = [np.zeros((design.n_obs, 0))]
    for term in design.rows.terms:
        Z = np.zeros((design.n_obs, term.n_levels, term.n_coefs))
        Z[np.arange(design.n_obs), term.codes] = term.columns
        blocks.append(Z.reshape(design.n_obs, -1))
    return np.hstack(blocks)


def span_of(*designs, by_rows):
    """Return the columns of designs, for responses drawn row by row or not."""
    with pytest.MonkeyPatch.context() as patch:
        if by_rows:
            patch.setattr(simulated_responses, "MAX_DENSE", -1)
        return span(*designs)


def null_for(design, seed):
    """Return an arbitrary model of a design to draw from."""
    rng = np.random.default_rng(seed)
    roots = [np.tril(rng.normal(size=(t.n_coefs, t.n_coefs))) for t in design.terms]
    return Null(tuple(roots), 0.7)


def flat(drawn):
    """Return everything but the squares as one row a response."""
    B = len(drawn)
    parts = [one.reshape(B, -1) for one in drawn.sums]
    return np.concatenate([*parts, drawn.beta_ols], axis=1)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("by_rows", WAYS)
def test_a_response_of_known_rows(name, by_rows):
    design = random_design(STRUCTURES[name], 3)
    offset = np.random.default_rng(4).normal(size=design.n_obs)
    design = design.with_rows(offset=offset)
    cross, columns = cross_products(design), span_of(design, by_rows=by_rows)
    y = np.random.default_rng(1).normal(size=(2, design.n_obs)) + 3
    sums = sums_of(columns, (y - offset) * np.sqrt(design.rows.weights))
    drawn = responses(columns, sums, cross)
    for i in range(2):
        expected = cross_products(design.with_rows(y=y[i]))
        found = with_response(cross, drawn, i)
        np.testing.assert_allclose(found.rest, expected.rest, atol=1e-10)
        np.testing.assert_allclose(found.beta_ols, expected.beta_ols, atol=1e-11)
        for one, other in zip(found.chain, expected.chain, strict=True):
            np.testing.assert_allclose(one.rest.dense(), other.rest.dense(), atol=1e-10)
            np.testing.assert_array_equal(one.front, other.front)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_rank_of_all_columns(name):
    design = random_design(STRUCTURES[name], 3)
    rank = np.linalg.matrix_rank(np.hstack([indicators(design), design.rows.X]))
    root = span(design).root
    assert root.rank == rank


@pytest.mark.parametrize(
    "name",
    ["no random effects", "correlated slope", "nested slopes", "crossed slopes", "all of it"],
)
@pytest.mark.parametrize("by_rows", WAYS)
def test_moments_are_those_of_the_model(name, by_rows):
    design = random_design(STRUCTURES[name], 3, n=90)
    cross, columns, null = (
        cross_products(design),
        span_of(design, by_rows=by_rows),
        null_for(design, 8),
    )
    B, w = 6000, np.sqrt(design.rows.weights)
    drawn = responses(columns, simulated(columns, null, seeds_of_replicates(11, B)), cross)
    V = null.sigma**2 * np.eye(design.n_obs)  # of the rows times the roots of the weights
    start, Z = 0, indicators(design) * w[:, None]
    for term, root in zip(design.terms, null.factors, strict=True):
        width = term.n_levels * term.n_coefs
        own = Z[:, start : start + width]
        V += own @ np.kron(np.eye(term.n_levels), root @ root.T) @ own.T
        start += width
    linear = flat(responses(columns, sums_of(columns, np.eye(design.n_obs)), cross))  # a map of y
    cov, found = linear.T @ V @ linear, flat(drawn)
    variance = np.diag(cov)
    z = found.mean(axis=0) / np.sqrt(variance / B)
    assert np.abs(z).max() < 5
    spread = np.sqrt((np.outer(variance, variance) + cov**2) / B)
    assert np.abs((found.T @ found / B - cov) / spread).max() < 6
    X = design.rows.X * w[:, None]
    P = np.eye(design.n_obs) - X @ np.linalg.pinv(X)
    mean, sd = np.trace(P @ V), np.sqrt(2 * np.trace(P @ V @ P @ V))
    assert abs(drawn.squares.mean() - mean) < 5 * sd / np.sqrt(B)
    assert drawn.squares.std() == pytest.approx(sd, rel=0.15)


@pytest.mark.parametrize("name", ["three coefficients", "nested", "crossed"])
def test_both_ways_draw_from_one_distribution(name):
    design = random_design(STRUCTURES[name], 5, n=60)
    null, found = null_for(design, 2), []
    for by_rows, seed in zip(WAYS, (1, 2), strict=True):
        columns = span_of(design, by_rows=by_rows)
        drawn = responses(
            columns,
            simulated(columns, null, seeds_of_replicates(seed, 3000)),
            cross_products(design),
        )
        found.append(np.column_stack([drawn.squares, (flat(drawn) ** 2).sum(axis=1)]))
    for one, other in zip(found[0].T, found[1].T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


def test_errors_outside_of_all_columns():
    """Without random effects y'y of the residual is sigma^2 times a chi-square of n - p."""
    design = random_design(STRUCTURES["no random effects"], 1, n=20)
    columns = span(design)
    drawn = responses(
        columns,
        simulated(columns, Null((), 3.0), seeds_of_replicates(1, 4000)),
        cross_products(design),
    )
    degrees = 20 - np.linalg.matrix_rank(design.rows.X)
    assert stats.kstest(drawn.squares / 9, stats.chi2(degrees).cdf).pvalue > 1e-3


def test_levels_that_do_not_determine_their_coefficients():
    """With fewer rows than coefficients a level's columns depend on each other."""
    design = random_design("y ~ x + (1 + x + z | c)", 1, n=30)
    columns = span(design)
    assert not columns.root.used.all()
    zero = tuple(np.zeros((3, 3)) for _ in design.terms)
    drawn = responses(
        columns,
        simulated(columns, Null(zero, 3.0), seeds_of_replicates(1, 4000)),
        cross_products(design),
    )
    assert stats.kstest(drawn.squares / 9, stats.chi2(28).cdf).pvalue > 1e-3


def test_columns_that_leave_nothing():
    """A level for every row: no error is outside of the span."""
    data = rf.load_dataset("Dyestuff").assign(row=range(30))
    design = rf.Model("Yield ~ 1 + (1 | row)", data).design
    columns = span(design)
    assert columns.root.rank == 30
    drawn = responses(
        columns,
        simulated(columns, Null((np.array([[2.0]]),), 1.5), seeds_of_replicates(1, 4000)),
        cross_products(design),
    )
    assert stats.kstest(drawn.squares / (4 + 2.25), stats.chi2(29).cdf).pvalue > 1e-3


@pytest.mark.parametrize("by_rows", WAYS)
def test_a_replicate_is_the_same_whatever_else_is_drawn(by_rows):
    design = random_design(STRUCTURES["crossed slopes"], 3)
    columns, null = span_of(design, by_rows=by_rows), null_for(design, 2)
    many = simulated(columns, null, seeds_of_replicates(9, 12))
    few = simulated(columns, null, seeds_of_replicates(9, 3, first=5))
    np.testing.assert_allclose(few.squares, many.squares[5:8], rtol=1e-12)
    for one, other in zip(few.blocks, many.blocks, strict=True):
        np.testing.assert_allclose(one, other[5:8], rtol=1e-10, atol=1e-10)
    assert len(np.unique(many.squares)) == 12


def test_seeds_are_the_children_of_one():
    spawned = np.random.SeedSequence(7).spawn(4)[2:]
    for one, other in zip(seeds_of_replicates(7, 2, first=2), spawned, strict=True):
        assert np.random.default_rng(one).random() == np.random.default_rng(other).random()
    assert entropy_of(7) == 7
    assert entropy_of(None) != entropy_of(None)


def test_the_null_is_the_fit():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    null = null_of(fit.estimate)
    root = null.factors[0]
    np.testing.assert_allclose(root @ root.T, fit.varcorr().cov["Subject"], rtol=1e-12)
    assert null.sigma == fit.sigma


def test_fixed_effects_are_added():
    design = random_design(STRUCTURES["one factor"], 3)
    columns, cross = span(design), cross_products(design)
    sums = simulated(columns, null_for(design, 1), seeds_of_replicates(1, 2))
    beta = np.array([5.0, -2.0])
    without = responses(columns, sums, cross)
    found = responses(columns, sums, cross, beta=beta)
    np.testing.assert_allclose(found.beta_ols, without.beta_ols + beta)
    np.testing.assert_array_equal(found.squares, without.squares)


def test_two_models_see_the_same_response():
    small = random_design("y ~ x + (1 | c)", 3)
    large = random_design("y ~ x + f + (x | c) + (1 | s) + (z | i)", 3)
    for by_rows in WAYS:
        columns = span_of(small, large, by_rows=by_rows)
        assert len(columns.blocks) == 3  # the terms of one factor are taken together
        y = np.random.default_rng(1).normal(size=(1, small.n_obs))
        sums = sums_of(columns, y * np.sqrt(small.rows.weights))
        for model, design in enumerate((small, large)):
            cross = cross_products(design)
            found = with_response(cross, responses(columns, sums, cross, model), 0)
            expected = cross_products(design.with_rows(y=y[0] + design.rows.offset))
            np.testing.assert_allclose(found.rest, expected.rest, atol=1e-10)
            one, other = found.chain[0].rest, expected.chain[0].rest
            np.testing.assert_allclose(one.dense(), other.dense(), atol=1e-10)


@pytest.mark.parametrize("what", ["weights", "offset", "rows"])
def test_models_of_different_rows_are_refused(what):
    small, large = random_design("y ~ x + (1 | c)", 3), random_design("y ~ x + (x | c)", 3)
    changed = {
        "weights": {"weights": large.rows.weights * 2},
        "offset": {"offset": large.rows.offset + 1},
        "rows": {"index": large.rows.index + 1},
    }[what]
    with pytest.raises(DataError, match=rf"^`y ~ x \+ \(1 \| c\)` and .* {what} "):
        span(small, large.with_rows(**changed))


def test_many_levels_go_by_rows(monkeypatch):
    design = random_design(STRUCTURES["crossed"], 3)
    assert span(design).root is not None
    monkeypatch.setattr(simulated_responses, "MAX_DENSE", 5)
    assert span(design).root is None
    monkeypatch.setattr(simulated_responses, "MAX_DENSE", 300)
    monkeypatch.setattr(simulated_responses, "MAX_ELEMENTS", 5)
    assert span(design).root is None


def test_sparse_cross_products(monkeypatch):
    monkeypatch.setattr(crossproducts, "SPARSE_SIZE", 0)
    monkeypatch.setattr(crossproducts, "SPARSE_SHARE", 2.0)
    design = random_design(STRUCTURES["crossed slopes"], 3)
    cross, columns = cross_products(design), span(design)
    y = np.random.default_rng(1).normal(size=(1, design.n_obs))
    y[0, design.rows.terms[0].codes == 2] = 0.0
    sums = sums_of(columns, y * np.sqrt(design.rows.weights))
    found = with_response(cross, responses(columns, sums, cross), 0)
    expected = cross_products(design.with_rows(y=y[0] + design.rows.offset))
    one, other = found.chain[0].rest, expected.chain[0].rest
    np.testing.assert_allclose(one.dense(), other.dense(), atol=1e-10)
    Lambdas = factors(
        np.full(sum(s.n_theta for s in cross.covariances), 0.5), cross.covariances
    ) or random_factors(cross, 1)
    values = [blocked_cholesky.factorize(c, Lambdas).reduced for c in (found, expected)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-9)


def test_columns_of_any_size():
    """Units of a predictor that no default tolerance expects."""
    data = rf.load_dataset("sleepstudy")
    data["tiny"], data["far"] = data["Days"] * 1e-9, data["Days"] + 1e5
    design = rf.Model("Reaction ~ far + (tiny | Subject)", data).design
    assert span(design).root.rank == 36
    cross, columns = cross_products(design), span(design)
    drawn = responses(columns, sums_of(columns, design.rows.y[None]), cross)
    np.testing.assert_allclose(drawn.squares[0], cross.rest[-1, -1], rtol=1e-8)
    np.testing.assert_allclose(
        drawn.sums[0][0], cross.chain[0].rest.dense()[:, :, -1], rtol=1e-6, atol=1e-5
    )
