"""Densities of rows that are left out against dense multivariate normal densities."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, random_frame
from marginal_cases import PRIORS, dense_covariance, everything, target_of

import ranef as rf
from ranef.design.design import build_design, leaving_out
from ranef.errors import DataError, FitError
from ranef.formula.terms import read_formula
from ranef.leave_one_out import gaussian_densities
from ranef.leave_one_out.elpd import Units
from ranef.leave_one_out.gaussian_densities import held_out
from ranef.numerics import matrices
from ranef.priors.assignment import resolve
from ranef.priors.distributions import Flat, Normal


def all_units(design, rng):
    """Return the rows, the levels of every factor, and those of one that the model has not."""
    found = [Units("observation", None, None, design.rows.index)]
    found += [Units("group", t.factor, t.codes, t.grouping.levels) for t in design.rows.terms]
    codes = rng.permutation(np.arange(design.n_obs) % 4)
    return [*found, Units("group", "other", codes, pd.Index(list("abcd")))]


def points(target, seed, size=2):
    x = target.start() + 0.4 * np.random.default_rng(seed).normal(size=(size, target.space.d))
    return target.space.values(x)[0]


def dense(design, priors, target, values):
    """Return the precision matrix Q of y, beta integrated out, and Q (y - its mean)."""
    g, X = target.space.n_given, design.rows.X
    X = X if priors.change is None else X @ priors.change
    own, given = target.fixed.order
    V = dense_covariance(design, priors, target, values)
    y = design.rows.y - design.rows.offset - X[:, given] @ values[:g]
    for j in own:
        if isinstance(priors.beta[j], Normal):
            y = y - X[:, j] * priors.beta[j].mu
            V = V + np.outer(X[:, j], X[:, j]) * priors.beta[j].sigma ** 2
    Q = np.linalg.inv(V)
    F = X[:, [j for j in own if isinstance(priors.beta[j], Flat)]]
    Q = Q - Q @ F @ np.linalg.solve(F.T @ Q @ F, F.T @ Q)
    return Q, Q @ y


def dense_log_p(Q, Qy, rows):
    """Return log p(y_A | y_-A) as Buerkner, Gabry & Vehtari (2021) have it."""
    own = Q[np.ix_(rows, rows)]
    squares = Qy[rows] @ np.linalg.solve(own, Qy[rows])
    return (np.linalg.slogdet(own)[1] - len(rows) * np.log(2 * np.pi) - squares) / 2


def check(design, priors, target, *, seed=1, rtol=1e-9):
    values = points(target, seed)
    dense_parts = [dense(design, priors, target, own) for own in values]
    for units in all_units(design, np.random.default_rng(seed)):
        found = held_out(target, design, units).log_p(values)
        expected = [
            [dense_log_p(*parts, units.rows(place)) for place in range(units.size)]
            for parts in dense_parts
        ]
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol, err_msg=units.factor)


# --------------------------------------------------------------------------- every structure


@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
def test_equals_the_dense_density(formula, priors):
    check(*everything(formula, 3, priors, n=70))


@pytest.mark.parametrize("formula", ["correlated slope", "nested slopes", "crossed", "all of it"])
def test_elementwise_and_by_lapack(formula, monkeypatch):
    monkeypatch.setattr(matrices, "MAX_ELEMENTWISE_SIZE", 0)
    check(*everything(STRUCTURES[formula], 4, PRIORS["some flat"], n=60))


def test_difference_of_the_densities_of_the_data():
    """By the density of `marginal`, with and without the rows, under the same priors."""
    design, priors, target = everything("y ~ x + (x | c) + (1 | i)", 5)
    values = points(target, 1, 1)
    for units in all_units(design, np.random.default_rng(2)):
        found = held_out(target, design, units).log_p(values)[0]
        for place in range(0, units.size, 5):
            left = target_of(leaving_out(design, units.rows(place)), priors)
            expected = target.likelihood(values[0])[0] - left.likelihood(values[0])[0]
            assert found[place] == pytest.approx(expected, rel=1e-9)


def test_an_offset_and_dependent_columns():
    frame = random_frame(np.random.default_rng(6), 60)
    frame["twice"], frame["o"] = 2 * frame["x"], np.random.default_rng(1).normal(size=60)
    formula = read_formula("y ~ x + twice + f + offset(o) + (1 | s/c)")
    design = build_design(formula, frame, weights="w")
    priors = resolve(design, "default")
    check(design, priors, target_of(design, priors), rtol=1e-8)


def test_a_level_with_one_row_and_one_with_many():
    frame = random_frame(np.random.default_rng(7), 80)
    frame.loc[3, "c"], frame.loc[20:70, "c"] = 77, 5
    design = build_design(read_formula("y ~ x + f + (x | c)"), frame, weights="w")
    priors = resolve(design, "flat")
    check(design, priors, target_of(design, priors))


def test_a_perfect_correlation_and_an_sd_of_zero():
    """Lambda may be singular."""
    design, priors, target = everything("y ~ x + (x | c)", 8, n=60)
    values = points(target, 1, 2)
    values[0, [1, 3]] = 0.0, 1.0
    values[1, 1:3] = 0.0
    units = Units("group", "c", design.rows.terms[0].codes, design.terms[0].levels)
    found = held_out(target, design, units).log_p(values)
    for s in range(2):
        parts = dense(design, priors, target, values[s])
        expected = [dense_log_p(*parts, units.rows(place)) for place in range(units.size)]
        np.testing.assert_allclose(found[s], expected, rtol=1e-9)


def test_large_random_effects():
    """Sds of 10^4 sigma, against what is left if the level has an effect of its own."""
    design, priors, target = everything("y ~ 1 + (1 | c)", 9, {"Intercept": Normal(1000, 5)})
    values = target.space.values(target.start()[None])[0]
    values[0] = 1.0, 1e4
    units = Units("observation", None, None, design.rows.index)
    found = held_out(target, design, units).log_p(values)[0]
    codes, w, y = design.rows.terms[0].codes, design.rows.weights, design.rows.y
    for i in range(0, len(y), 20):
        others = (codes == codes[i]) & (np.arange(len(y)) != i)
        variance = 1 / w[i] + 1 / w[others].sum()
        left = y[i] - np.average(y[others], weights=w[others])
        expected = -0.5 * (np.log(2 * np.pi * variance) + left**2 / variance)
        assert found[i] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    check(design, priors, target)


# ---------------------------------------------------------------------------- parts and pieces


@pytest.mark.parametrize("formula", ["correlated slope", "nested and crossed"])
def test_in_parts_and_for_some_units(formula, monkeypatch):
    design, _, target = everything(STRUCTURES[formula], 10, PRIORS["given"], n=60)
    values = points(target, 1, 5)
    for units in all_units(design, np.random.default_rng(3)):
        held = held_out(target, design, units)
        whole = held.log_p(values)
        chosen = np.array([3, 0, 2])
        some = held.only(chosen)
        np.testing.assert_allclose(some.log_p(values), whole[:, chosen], rtol=1e-12)
        again = some.only(np.array([2, 1]))
        np.testing.assert_allclose(again.log_p(values), whole[:, [2, 0]], rtol=1e-12)
        with monkeypatch.context() as patch:
            patch.setattr(gaussian_densities, "MAX_ELEMENTS", 1)
            np.testing.assert_allclose(held.log_p(values), whole, rtol=1e-12)


def test_units_of_very_different_sizes():
    design, priors, target = everything(STRUCTURES["nested and crossed"], 10, n=60)
    units = Units("group", "other", np.repeat(range(4), [1, 2, 9, 48]), pd.Index(list("abcd")))
    held, values = held_out(target, design, units), points(target, 1)
    assert len(held.pieces) > 2
    for found, own in zip(held.log_p(values), values, strict=True):
        parts = dense(design, priors, target, own)
        expected = [dense_log_p(*parts, units.rows(place)) for place in range(4)]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_point_that_cannot_be_computed_is_nan():
    design, _, target = everything("y ~ x + (x | c)", 11)
    values = points(target, 1, 3)
    values[1, 1] = np.nan
    units = Units("group", "c", design.rows.terms[0].codes, design.terms[0].levels)
    for small in (8, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matrices, "MAX_ELEMENTWISE_SIZE", small)
            found = held_out(target, design, units).log_p(values)
        assert np.isnan(found[1]).all()
        assert np.isfinite(found[[0, 2]]).all()


# -------------------------------------------------------------------------------------- refusals


def units_by(codes, labels):
    return Units("group", "g", np.asarray(codes), pd.Index(labels))


def test_a_flat_effect_that_a_unit_determines():
    frame = random_frame(np.random.default_rng(12), 40).drop(columns="w")
    frame["only"] = np.where(frame["c"] == 4, 1.5, 0.0)
    design = build_design(read_formula("y ~ x + only + (1 | c)"), frame)
    priors = resolve(design, "flat")
    term = design.rows.terms[0]
    units = Units("group", "c", term.codes, term.grouping.levels)
    with pytest.raises(DataError) as caught:
        held_out(target_of(design, priors), design, units)
    assert str(caught.value) == (
        "without level `4` of `c` of the data the fixed effect `only` is not determined, and its "
        "flat prior does not help: give beta a proper prior, such as Normal, to leave out every "
        "unit."
    )
    mixed = resolve(design, {"beta": Flat(), "only": Normal(0, 1), "sd": rf.priors.HalfNormal(1)})
    found = held_out(target_of(design, mixed), design, units)
    assert np.isfinite(found.log_p(points(found.target, 1))).all()


def test_a_flat_effect_that_a_row_determines():
    frame = random_frame(np.random.default_rng(13), 30).drop(columns="w")
    frame["one"] = (np.arange(30) == 17).astype(float)
    frame.index = [f"r{i}" for i in range(30)]
    design = build_design(read_formula("y ~ one + (1 | s)"), frame)
    priors = resolve(design, "flat")
    units = Units("observation", None, None, design.rows.index)
    message = "without row `r17` of the data the fixed effect `one` is not determined"
    with pytest.raises(DataError, match=message):
        held_out(target_of(design, priors), design, units)


def test_units_of_all_rows_or_none():
    design, _, target = everything("y ~ x + (1 | c)", 14, n=20)
    with pytest.raises(FitError) as caught:
        held_out(target, design, units_by(np.zeros(20, dtype=int), ["all"]))
    assert str(caught.value) == (
        "level `all` of `g` is all the data there are: without it nothing is left to predict it "
        "from."
    )
    with pytest.raises(DataError) as caught:
        held_out(target, design, units_by(np.arange(20) % 2, ["a", "b", "c"]))
    assert str(caught.value) == "level `c` of `g` has no rows to be left out."


def test_too_many_random_effects_that_depend_on_each_other(monkeypatch):
    monkeypatch.setattr(gaussian_densities, "MAX_DEPENDENT_EFFECTS", 18)
    design, _, target = everything("y ~ x + (1 | c) + (1 | i)", 15)
    units = Units("observation", None, None, design.rows.index)
    with pytest.raises(FitError) as caught:
        held_out(target, design, units)
    assert str(caught.value) == (
        "19 random effects depend on each other through the data, and leave-one-out takes up to "
        "18 that do: the work grows with their cube."
    )
    design, _, target = everything("y ~ x + (x | c)", 15)
    assert held_out(target, design, replace(units, labels=design.rows.index)).size > 0
