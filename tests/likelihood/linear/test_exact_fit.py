"""Responses that a model fits exactly: refused by every method, and none besides."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, random_design
from scipy import integrate, stats

import ranef as rf
from fits import dense_Z
from ranef.errors import DataError
from ranef.likelihood.linear import exact_fit
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.exact_fit import _Fit, _subsets, check_residual_variation
from ranef.likelihood.linear.reml import profiled
from ranef.priors import Constant, HalfNormal, LogNormal, Normal

G = np.repeat(np.arange(8), 4)


def frame(seed=91):
    rng = np.random.default_rng(seed)
    a, slope, c = rng.normal(size=8), rng.normal(size=8), rng.normal(size=4)
    data = pd.DataFrame({"g": G, "x": np.tile(np.arange(4.0), 8), "h": G // 2})
    data["j"] = rng.permuted(np.tile(np.arange(4), (8, 1)), axis=1).ravel()
    data["w"] = rng.choice([0.5, 1.0, 7.0], 32)
    data["const"] = a[G]
    data["line"] = a[G] + slope[G] * data["x"]
    data["sums"] = a[G] + c[data["j"]]
    data["with_x"] = a[G] + 0.3 * data["x"]
    data["noise"] = rng.normal(size=32)
    data["o"] = data["noise"]
    data["less_o"] = data["const"] + data["noise"]
    return data


DATA = frame()
EXACT = [
    "const ~ 1 + (1 | g)",
    "const ~ x + (1 | g)",
    "const ~ 1 + (1 | h/g)",
    "const ~ 0 + (1 | g)",
    "const ~ x + (x || g)",
    "const ~ 1 + (1 | j) + (1 | g)",
    "line ~ x + (x | g)",
    "line ~ 1 + (x || g) + (1 | j)",
    "with_x ~ x + (1 | g)",
    "sums ~ 1 + (1 | g) + (1 | j)",
]
METHODS = {
    "reml": {},
    "ml": {},
    "map": {},
    "laplace": {"seed": 1},
    "quadrature": {},
    "mcmc": {"seed": 1},
}


def checked(formula, data=DATA, *, reml=True, **options):
    design = rf.Model(formula, data, **options).engine.data.estimable
    check_residual_variation(design, cross_products(design), reml=reml)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("formula", [EXACT[0], EXACT[6]])
def test_every_method_refuses_it(method, formula):
    with pytest.raises(DataError, match=r"exactly: .*there is no residual variation to estimate"):
        rf.fit(formula, DATA, method, **METHODS[method])


@pytest.mark.parametrize("formula", EXACT)
@pytest.mark.parametrize("weights", [None, "w"])
def test_it_is_found_in_all_units(formula, weights):
    response = formula.split(" ~ ", maxsplit=1)[0]
    for level, size in ((0.0, 1.0), (1e6, 1.0), (0.0, 1e-9), (3.0, 1e12)):
        moved = DATA.assign(**{response: level * (" 0 +" not in formula) + size * DATA[response]})
        for reml in (True, False):
            with pytest.raises(DataError, match="there is no residual variation"):
                checked(formula, moved, reml=reml, weights=weights)


@pytest.mark.parametrize("formula", EXACT)
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-7, 1e-10])
def test_a_little_noise_is_residual_variation(formula, size):
    response = formula.split(" ~ ", maxsplit=1)[0]
    for level in (0.0, 1e3):
        y = level * (" 0 +" not in formula) + DATA[response] + size * DATA["noise"]
        checked(formula, DATA.assign(**{response: y}))


def test_an_offset_counts():
    with pytest.raises(DataError, match="`less_o` exactly"):
        checked("less_o ~ 1 + offset(o) + (1 | g)")
    checked("less_o ~ 1 + (1 | g)")


def test_an_exact_fit_by_fixed_effects_is_called_so():
    message = "the fixed effects fit the response `y` exactly: there is no residual variation"
    x = DATA["noise"]
    for y in (2 + 3 * x, 1e9 + 1e6 * x, 1e3 + 1e-8 * x):
        with pytest.raises(DataError, match=message):
            checked("y ~ noise + (1 | g)", DATA.assign(y=y))
    whole = np.rint(3 * np.random.default_rng(1).normal(size=32))
    for y in (1e15 + whole, 1e12 * x + whole):
        checked("y ~ noise + (1 | g)", DATA.assign(y=y))


def test_a_known_sigma_has_a_posterior_and_so_has_one_that_keeps_from_zero():
    """Against the normal density of each group, integrated over the sd."""
    priors = {"sigma": Constant(0.7), "sd_g": HalfNormal(1), "Intercept": Normal(0, 2)}

    def density(sd):
        V = 0.49 * np.eye(32) + sd**2 * (G[:, None] == G) + 4
        return stats.multivariate_normal(np.zeros(32), V).pdf(DATA["const"]) * (
            stats.halfnorm.pdf(sd)
        )

    expected = np.log(integrate.quad(density, 0, 8, epsabs=0, epsrel=1e-9)[0])
    fit = rf.fit("const ~ 1 + (1 | g)", DATA, "quadrature", priors=priors)
    assert fit.log_marginal_likelihood().value == pytest.approx(expected, abs=1e-6)
    fit = rf.fit("const ~ 1 + (1 | g)", DATA, "map", priors={"sigma": LogNormal(0, 1)})
    assert 0 < fit.sigma < 1


def test_a_constant_response_with_known_errors_is_a_response():
    """Three studies that report the same effect: their likelihood is like any other."""
    se = np.array([0.2, 0.3, 0.5])
    data = pd.DataFrame({"eff": 0.3, "w": 1 / se**2, "study": list("abc"), "o": [0.1, 0.2, 0.6]})
    priors = {"sigma": Constant(1.0), "sd_study": HalfNormal(0.5), "Intercept": Normal(0, 1)}
    for rows, offset in ((data, None), (data.iloc[:1], None), (data, "o")):
        y, own = rows["eff"] - (0 if offset is None else rows["o"]), se[: len(rows)]

        def density(sd, y=y, own=own):
            V = np.diag(sd**2 + own**2) + 1
            normal = stats.multivariate_normal(np.zeros(len(y)), V).pdf(y)
            return normal * stats.halfnorm(scale=0.5).pdf(sd)

        expected = np.log(integrate.quad(density, 0, 8, epsabs=0, epsrel=1e-9)[0])
        model = rf.Model("eff ~ 1 + (1 | study)", rows, weights="w", priors=priors, offset=offset)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = model.fit("quadrature").log_marginal_likelihood().value
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_constant_response_less_an_offset_is_a_response():
    level = np.random.default_rng(0).normal(size=8)[G]
    data = DATA.assign(y=3.0, o=DATA["noise"] + level, z=3.0 - DATA["noise"] - level)
    found = rf.fit("y ~ 1 + offset(o) + (1 | g)", data).estimates()
    np.testing.assert_allclose(found, rf.fit("z ~ 1 + (1 | g)", data).estimates(), rtol=1e-7)


def test_by_maximum_likelihood_many_effects_fit_any_response():
    """With beta maximised over, it rises without end; REML, with beta integrated out, does not."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"x": rng.normal(size=9), "y": rng.normal(size=9)})
    data["g"], data["h"] = [0, 1, 2, 3, 0, 1, 2, 3, 0], [0, 0, 1, 1, 2, 2, 3, 3, 1]
    data["f"] = np.array(list("uvwvuwwvu"))
    formula = "y ~ f + x + (1 | g) + (1 | h)"
    design = rf.Model(formula, data).engine.data.estimable
    columns = np.column_stack([design.rows.X, *(dense_Z(term) for term in design.rows.terms)])
    assert np.linalg.matrix_rank(columns) == 9
    with pytest.raises(DataError, match="4 fixed and 8 random effects fit any response of 9 rows"):
        rf.fit(formula, data, "ml")
    model = rf.Model(formula, data)
    values = [model.criterion([t, 2 * t], "ml") for t in (1e2, 1e3, 1e4)]
    assert np.all(np.diff(values) < -4)
    checked(formula, data, reml=True)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
def test_ranks_as_those_of_dense_columns(formula):
    design = random_design(formula, seed=3)
    cross = cross_products(design)
    for chosen in list(_subsets(cross))[:1]:
        Z = np.column_stack([dense_Z(term) for term in design.rows.terms])
        both = np.column_stack([design.rows.X, Z])
        expected = np.linalg.matrix_rank(Z), np.linalg.matrix_rank(both)
        assert _Fit(design, cross, chosen).ranks == expected


def test_all_subsets_are_tried_where_together_they_fit_any_response():
    """The response is constant within g; with the other term the model is saturated."""
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": [0, 0, 0, 1, 1, 1, 2, 2, 2], "j": [0, 1, 2, 3, 4, 5, 6, 0, 1]})
    data["y"] = rng.normal(size=3)[data["g"]]
    data["z"] = rng.normal(size=9)
    with pytest.raises(DataError, match="constant within the levels of `g`"):
        checked("y ~ 1 + (1 | g) + (1 | j)", data)
    checked("z ~ 1 + (1 | g) + (1 | j)", data)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_a_bound_of_what_a_penalised_fit_leaves_is_one_and_near(formula, monkeypatch):
    design = random_design(formula, 4)
    cross = cross_products(design)
    monkeypatch.setattr(exact_fit, "MAX_STEPS", 500)
    for chosen in _subsets(cross):
        fit = _Fit(design, cross, chosen)
        for sd in (1.0, 1e4):
            exact = profiled(fit.factorized(sd), reml=True).r2
            assert not fit.surely_leaves(exact * (1 + 1e-9), sd)
        assert fit.surely_leaves(exact / 3, sd)


def test_a_bound_spares_the_factorisation_of_many_crossed_effects(monkeypatch):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"g": rng.integers(0, 90, 2000), "h": rng.integers(0, 60, 2000)})
    data["y"] = rng.normal(size=2000) + rng.normal(size=90)[data["g"]]
    data["sums"] = rng.normal(size=90)[data["g"]] + rng.normal(size=60)[data["h"]]
    monkeypatch.setattr(exact_fit, "MAX_DIRECT", 10)
    with pytest.raises(DataError, match="exactly"):
        rf.fit("sums ~ 1 + (1 | g) + (1 | h)", data)
    monkeypatch.setattr(_Fit, "factorized", None)
    assert rf.fit("y ~ 1 + (1 | g) + (1 | h)", data).converged


@pytest.mark.parametrize("sd", [0.0, 1.0])
def test_few_levels_with_very_many_rows(sd):
    rng, n, m = np.random.default_rng(0), 200_000, 4
    means = np.array([-1.5, -0.5, 0.5, 1.5]) * sd
    data = pd.DataFrame({"g": np.arange(n) % m, "y": rng.normal(size=n)})
    data["y"] += means[data["g"]]
    fit = rf.fit("y ~ 1 + (1 | g)", data)
    by_group = data.groupby("g")["y"]
    within, between = by_group.var().mean(), n / m * by_group.mean().var()
    variance = within if between > within else data["y"].var()
    assert fit.sigma**2 == pytest.approx(variance, rel=1e-9)
    of_groups = max(between - within, 0.0) * m / n
    assert fit.varcorr().cov["g"].iloc[0, 0] == pytest.approx(of_groups, rel=1e-5, abs=1e-12)
    with pytest.raises(DataError, match="it is constant within the levels of `g`"):
        rf.fit("y ~ 1 + (1 | g)", data.assign(y=data["g"] ** 2))
