"""The posterior mode: REML where priors are flat, off the boundary where they say so."""

from __future__ import annotations

import large_counts
import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, between_and_within, random_frame
from scipy import optimize, stats

import ranef as rf
from ranef.design.design import build_design
from ranef.errors import FitError
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import reml
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.optimum.starts import multiple_of_identity
from ranef.posterior import mode
from ranef.posterior.linear_posterior import target_of
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Gamma,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
)


def target(formula, data, priors, weights=None):
    design = build_design(read_formula(formula), data, weights=weights)
    places = range(len(design.fixed))
    return target_of(design, cross_products(design), places, resolve(design, priors))


def structured(seed=3, scale=1.0):
    frame = random_frame(np.random.default_rng(seed))
    effects = 2 * frame["c"] / 3 + (frame["c"] % 4) * frame["x"] / 5 + frame["i"]
    frame["y"] += scale * effects - 1e3
    return frame


@pytest.mark.parametrize("scale", [0.0, 1.0], ids=["singular", "regular"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_flat_priors_make_reml(name, scale):
    own = target(STRUCTURES[name], structured(scale=scale), "flat", weights="w")
    found = mode.posterior_mode(own)
    expected = reml.estimate(own.cross, reml=True)
    assert found.objective == pytest.approx(expected.objective, abs=1e-7)
    assert found.loglik == pytest.approx(expected.loglik, abs=1e-7)
    np.testing.assert_allclose(found.theta, expected.theta, atol=2e-4)
    assert found.sigma == pytest.approx(expected.sigma, rel=1e-5)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-4, atol=1e-4)
    assert found.convergence.ok


@pytest.mark.parametrize("formula", ["Yield ~ 1 + (1 | Batch)"])
@pytest.mark.parametrize("data", ["Dyestuff", "Dyestuff2"])
def test_flat_priors_make_reml_on_the_dyestuffs(formula, data):
    frame = rf.load_dataset(data)
    mode, expected = rf.fit(formula, frame, "map", priors="flat"), rf.fit(formula, frame)
    assert mode.objective == pytest.approx(expected.objective, abs=1e-8)
    np.testing.assert_allclose(mode.theta, expected.theta, atol=1e-5)
    np.testing.assert_allclose(mode.se(), expected.se(), rtol=1e-5)
    assert mode.is_singular == expected.is_singular == (data == "Dyestuff2")


def test_of_two_optima_the_mode_is_at_that_of_reml():
    model = rf.Model("y ~ x + (1 | f) + (1 | g)", between_and_within(1000, 4), priors="flat")
    found, expected = model.fit("map"), model.fit()
    assert found.objective == pytest.approx(expected.objective, abs=1e-5)
    assert found.fixef()["x"] == pytest.approx(4.5, abs=0.3)


# ---------------------------------------------------------- against the same density, dense


def dense_mode(data, log_prior, k, columns):
    """Maximise REML plus a prior by SciPy, from the n x n matrix; returns sigma and covariance."""
    y, g = data["y"].to_numpy(), data["g"].to_numpy()
    X = np.column_stack([np.ones(len(y)), data["x"]])
    Z = np.column_stack([np.ones(len(y)), data["x"]])[:, :columns]
    same = g[:, None] == g
    rows, cols = np.tril_indices(k)

    def parts(v):
        F = np.zeros((k, k))
        F[rows, cols] = v[1:]
        return np.exp(v[0]), F @ F.T

    def negative(v):
        sigma, cov = parts(v)
        V = sigma**2 * np.eye(len(y)) + np.where(same, Z @ cov @ Z.T, 0.0)
        inverse = np.linalg.inv(V)
        information = X.T @ inverse @ X
        beta = np.linalg.solve(information, X.T @ inverse @ y)
        left = y - X @ beta
        deviance = np.linalg.slogdet(V)[1] + np.linalg.slogdet(information)[1]
        deviance += left @ inverse @ left + (len(y) - 2) * np.log(2 * np.pi)
        return deviance / 2 - log_prior(cov)

    start = np.append(np.log(y.std()), np.eye(k)[rows, cols] * y.std() / 2)
    best = min(
        (
            optimize.minimize(
                negative,
                start * factor,
                method="Nelder-Mead",
                options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 40_000, "maxfev": 40_000},
            )
            for factor in (1.0, 0.5)
        ),
        key=lambda found: found.fun,
    )
    return *parts(best.x), best.fun


def singular_data(seed=4):
    """Return data whose REML estimate of the variances is on the boundary."""
    rng = np.random.default_rng(seed)
    g = np.arange(30) % 6
    x, noise = rng.normal(size=(2, 30))
    noise -= 0.9 * (np.bincount(g, noise) / 5)[g]
    return pd.DataFrame({"g": g, "x": x, "y": 3 + x + noise})


def test_boundary_priors_keep_an_sd_off_zero():
    data = singular_data()
    assert rf.fit("y ~ x + (1 | g)", data).theta[0] == 0.0
    model = rf.Model("y ~ x + (1 | g)", data, priors="boundary")
    gamma = model.priors.terms[0].sd[0]
    assert isinstance(gamma, Gamma)
    assert gamma.alpha == 2

    def log_prior(cov):
        return stats.gamma(2, 0, 1 / gamma.beta).logpdf(np.sqrt(cov[0, 0]))

    sigma, cov, least = dense_mode(data, log_prior, 1, 1)
    fit = model.fit("map")
    assert fit.sigma == pytest.approx(sigma, rel=1e-5)
    assert fit.varcorr().cov["g"].iloc[0, 0] == pytest.approx(cov[0, 0], rel=1e-5)
    assert fit.objective == pytest.approx(2 * least, abs=1e-8)
    assert fit.theta[0] > 0.05
    assert not fit.is_singular


def test_boundary_priors_keep_a_covariance_matrix_off_the_boundary():
    """Gamma(2.5) and LKJ(1.75) are det(Sigma)^(3/4), wherever the predictor has its origin."""
    data = singular_data()
    model = rf.Model("y ~ x + (x | g)", data, priors="boundary")
    assert model.fit().is_singular
    rates = [prior.beta for prior in model.priors.terms[0].sd]
    change = model.priors.terms[0].change
    change = np.eye(2) if change is None else change

    def log_prior(cov):
        back = np.linalg.inv(change)
        own = back @ cov @ back.T
        sd = np.sqrt(np.diag(own))
        found = sum(
            stats.gamma(2.5, 0, 1 / rate).logpdf(s) for rate, s in zip(rates, sd, strict=True)
        )
        return found + 0.75 * np.log(np.linalg.det(own) / np.prod(sd) ** 2)

    sigma, cov, least = dense_mode(data, log_prior, 2, 2)
    fit = model.fit("map")
    assert fit.objective == pytest.approx(2 * least, abs=1e-6)
    assert fit.sigma == pytest.approx(sigma, rel=1e-4)
    np.testing.assert_allclose(fit.varcorr().cov["g"], cov, rtol=1e-3, atol=1e-6)
    assert not fit.is_singular


def test_boundary_prior_shifts_a_well_determined_sd_by_less_than_its_error():
    """Chung et al. (2013): about one standard error where REML is zero, nothing otherwise."""
    sleep = rf.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    reml_fit, mode = rf.fit(formula, sleep), rf.fit(formula, sleep, "map", priors="boundary")
    assert mode.loglik <= reml_fit.loglik + 1e-9
    assert reml_fit.loglik - mode.loglik < 0.2
    np.testing.assert_allclose(mode.fixef(), reml_fit.fixef(), rtol=1e-4)


# ------------------------------------------------------------------------------- the gradient

PRIORS = {
    "flat": "flat",
    "boundary": "boundary",
    "default": "default",
    "own": {"sigma": HalfStudentT(3, 2), "sd": Exponential(1), "Intercept": StudentT(3, 0, 5)},
    "relative": {"sd": Relative(HalfNormal(1.5)), "x": Normal(0, 1)},
    "known sigma": {"sigma": Constant(2.0), "sd": HalfNormal(2)},
}
GRADIENTS = ["y ~ x + (1 | c)", "y ~ x + (x | c)", "y ~ x + (x || c)", "y ~ x + (1 + x + z | c)"]
GRADIENTS += ["y ~ x + (x | s/c) + (1 | i)"]


@pytest.mark.parametrize("priors", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("formula", GRADIENTS)
def test_gradient_equals_central_differences(formula, priors):
    if isinstance(priors, dict) and ("(x | " in formula or "x + z |" in formula):
        priors = priors | {"corr": LKJ(2.5)}
    own = target(formula, structured(), priors, weights="w")
    penalty = mode._Marginal(own)
    rng = np.random.default_rng(5)
    identity = multiple_of_identity(1.0, penalty.covariances)
    first = np.concatenate([penalty.start(), identity])
    x = first + 0.1 * rng.normal(size=len(first))
    _, found = penalty(x)

    def difference(h):
        near, far = (penalty(x + s * h)[0] - penalty(x - s * h)[0] for s in (1, 2))
        return (8 * near - far) / (12 * h.sum())

    expected = np.array([difference(1e-3 * h) for h in np.eye(len(x))])
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-7)


def test_a_known_sd_is_refused():
    own = target("y ~ x + (1 | c)", structured(), {"sd": Constant(1.0)})
    with pytest.raises(FitError) as error:
        mode.posterior_mode(own)
    assert str(error.value) == (
        "the prior of `sd_c[Intercept]` is a constant: a posterior mode keeps no standard "
        'deviation of random effects fixed; use method="mcmc" or "laplace".'
    )


@pytest.mark.parametrize(
    ("priors", "name", "where"),
    [
        ({"corr": LKJ(0.5)}, "corr_c[Intercept, x]", "correlations of -1 and 1"),
        ({"sd": Gamma(0.5, 1)}, "sd_c[Intercept]", "zero"),
    ],
)
def test_a_prior_without_a_mode_is_refused(priors, name, where):
    own = target("y ~ x + (x | c)", structured(), priors)
    with pytest.raises(FitError) as error:
        mode.posterior_mode(own)
    assert str(error.value) == (
        f"the prior of `{name}` has no greatest density, but rises without end towards {where}, so "
        "that there is no mode: use another prior, such as LKJ(2) or HalfNormal(1), or "
        'method="mcmc" or "laplace".'
    )


def flat_slopes(seed, groups=10, n=120):
    """Rows whose slopes and contrasts vary no more between groups than by chance."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(size=n), "g": rng.integers(0, groups, n)})
    frame["f"] = rng.choice(list("abc"), n)
    frame["y"] = frame["x"] + rng.normal(size=groups)[frame["g"]] + rng.normal(size=n)
    return frame


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("terms", [("(f | g)", 3), ("(x + f | g)", 4)], ids=lambda terms: terms[0])
def test_a_mode_where_sds_vanish_is_that_without_them(terms, seed):
    """At sds of zero, where no correlation is seen, a prior adds its own density there."""
    (term, k), scale = terms, 2.0
    priors = {"sd": HalfStudentT(3, scale), "sigma": HalfStudentT(3, 2), "corr": LKJ(3)}
    found = mode.posterior_mode(target(f"y ~ x + {term}", flat_slopes(seed), priors))
    alone = mode.posterior_mode(target("y ~ x + (1 | g)", flat_slopes(seed), priors))
    others = -2 * (k - 1) * np.log(2 * stats.t(3, 0, scale).pdf(0))
    assert found.convergence.ok
    assert found.objective <= alone.objective + others + 1e-7
    if not np.array(found.Lambdas[0])[1:].any():
        assert found.objective == pytest.approx(alone.objective + others, abs=1e-7)
        assert found.theta[0] == pytest.approx(alone.theta[0], rel=1e-6)


@pytest.mark.parametrize("c", [1e-6, -1e5])
def test_units_do_not_matter(c):
    data = structured()
    assert data["x"].min() > 0
    formula = "y ~ x + (x | c)"
    base = rf.fit(formula, data, "map", priors="default")
    moved = rf.fit(formula, data.assign(y=1e3 + c * data["y"], x=-2015 - 1e3 * data["x"]), "map")
    assert moved.sigma == pytest.approx(abs(c) * base.sigma, rel=1e-5)
    assert moved.fixef()["x"] == pytest.approx(-c / 1e3 * base.fixef()["x"], rel=1e-5)
    own = moved.varcorr().sd["c"]["x"]
    assert own == pytest.approx(abs(c) / 1e3 * base.varcorr().sd["c"]["x"], rel=1e-4)


# ------------------------------------------------------------------------ parameters that are known


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(3)
    n, g = 120, np.arange(120) % 12
    frame = pd.DataFrame({"x": rng.normal(size=n) + 1, "z": rng.normal(size=n), "g": g})
    mean = np.exp(0.8 + 0.3 * frame["z"] + rng.normal(0, 0.5, 12)[g])
    frame["k"] = rng.negative_binomial(3, 3 / (3 + mean))
    frame["b"] = (rng.random(n) < mean / (1 + mean)).astype(int)
    frame["t"] = mean * rng.gamma(2, 0.5, n)
    return frame


@pytest.mark.parametrize(("name", "value"), [("x", 0.25), ("x", 0.0), ("Intercept", 0.5)])
@pytest.mark.parametrize(
    ("family", "y"),
    [
        ("gaussian", "t"),
        ("poisson", "k"),
        ("bernoulli", "b"),
        ("negative_binomial", "k"),
        ("gamma", "t"),
    ],
)
def test_a_known_coefficient_is_an_offset(many, family, y, name, value):
    """With flat priors else, the mode is the (restricted) maximum of the model with an offset."""
    known = rf.fit(
        f"{y} ~ x + z + (1 | g)", many, "map", family=family,
        priors={"base": "flat", name: Constant(value)},
    )  # fmt: skip
    part = value * (many["x"] if name == "x" else np.ones(120))
    rest = "z" if name == "x" else "0 + x + z"
    plain = rf.fit(f"{y} ~ {rest} + (1 | g)", many, family=family, offset=part)
    assert known.fixef()[name] == value
    assert known.se()[name] == 0
    assert known.df == plain.df
    assert known.aic == pytest.approx(plain.aic, abs=1e-4)
    assert known.bic == pytest.approx(plain.bic, abs=1e-4)
    others = plain.fixef().index
    np.testing.assert_allclose(known.fixef()[others], plain.fixef(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(known.vcov().loc[others, others], plain.vcov(), rtol=2e-3)
    row = known.summary().to_frame().loc[name]
    assert np.isnan(row["t" if family == "gaussian" else "z"])
    assert row["lower"] == row["upper"] == value


def test_a_known_sigma_or_shape_is_no_parameter(many):
    C = Constant
    frame = many.assign(w=1 / np.linspace(0.3, 2, 120) ** 2)
    meta = rf.fit("t ~ 1 + (1 | g)", frame, "map", weights="w", priors={"sigma": C(1.0)})
    assert (meta.df, meta.parameters) == (2, {"sigma": 1.0})
    assert meta.aic == pytest.approx(-2 * meta.loglik + 4)
    counts = {"shape": C(5.0), "z": C(0.1)}
    known = rf.fit("k ~ z + (z || g)", many, "map", family="negative_binomial", priors=counts)
    assert known.df == 1 + 2
    everything = {"beta": C(0.1), "Intercept": C(0.5), "shape": C(5.0)}
    none = rf.fit("k ~ z", many, "map", family="negative_binomial", priors=everything)
    assert (none.df, none.se().tolist()) == (0, [0, 0])


def test_standard_errors_at_the_mode_are_those_of_the_coefficients():
    """A coefficient with bounds is searched for on another scale."""
    data = structured().assign(k=lambda d: (d["x"] - d["x"].min()).round())
    free = rf.fit("k ~ z + (1 | c)", data, "map", family="poisson", priors="flat")
    wide = {"base": "flat", "z": rf.priors.Uniform(-50, 40)}
    bound = rf.fit("k ~ z + (1 | c)", data, "map", family="poisson", priors=wide)
    np.testing.assert_allclose(bound.fixef(), free.fixef(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(bound.se(), free.se(), rtol=1e-2)


@pytest.mark.parametrize("size", [1e4, 1e8])
@pytest.mark.parametrize(
    ("family", "rows"), [("poisson", " + (1 | row)"), ("negative_binomial", "")]
)
def test_the_mode_of_large_counts_has_the_errors_of_the_likelihood(size, family, rows):
    model = rf.Model(f"y ~ x + (1 | g){rows}", large_counts.frame(size), family=family)
    found, likelihood = model.fit("map"), model.fit("ml")
    assert found.converged
    np.testing.assert_allclose(found.se(), likelihood.se(), rtol=0.03)
