"""The PyMC model of a design, its table of priors, and NUTS."""

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import arviz as az
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc.model.transform.conditioning import remove_value_transforms
from pymc_prior_cases import priors_in
from reference_cases import REFERENCE
from scipy import stats

from ranef.arguments import Sampling
from ranef.covariances.covariance import Unstructured
from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.errors import FitError
from ranef.families.names import FAMILIES, find_family
from ranef.fits.diagnostics import diagnose
from ranef.formula.terms import read_formula
from ranef.likelihood.generalized.cells import cells_of
from ranef.posterior.draws import summarise
from ranef.posterior.sampling import pymc_hierarchical
from ranef.posterior.sampling.pymc_hierarchical import (
    MIN_CENTRED_INFORMATION,
    _choice,
    _information,
    choose,
)
from ranef.priors.assignment import TermPriors, resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Prior,
    Relative,
    StudentT,
    Uniform,
)

BRMS = json.loads((REFERENCE / "brms.json").read_text())
BRMS_PRIORS = {
    "Intercept": Normal(250, 100),
    "Days": Normal(0, 20),
    "sd": HalfStudentT(3, 59.3),
    "sigma": HalfStudentT(3, 59.3),
    "corr": LKJ(2),
}
PYTHON = "FAST_COMPILE"  # quick to compile, for functions that are called a few times


def design(text, data, **options):
    return build_design(read_formula(text), data, **options)


def model_of(text, data, priors="default", *, centered=False, **options):
    made = design(text, data, **options)
    return pymc_hierarchical.hierarchical(made, resolve(made, priors), centered=centered)


def small_data(n=30):
    rng = np.random.default_rng(11)
    return pd.DataFrame(
        {
            "y": rng.normal(10, 2, n),
            "x": rng.normal(3, 1, n),
            "v": rng.normal(-2, 1, n),
            "g": rng.choice(list("abcd"), n),
            "h": rng.choice([1, 2, 3], n),
            "w": rng.uniform(0.5, 4, n),
            "known": rng.normal(size=n),
        }
    )


# The density, against one that is written out with dense matrices and SciPy


def log_density(model, values):
    plain = remove_value_transforms(model)
    assert {rv.name for rv in plain.free_RVs} == set(values)
    return float(plain.compile_fn(plain.logp(), mode=PYTHON)(values))


def half_t(scale):
    return lambda value: stats.t(3, scale=scale).logpdf(value) + np.log(2)


def normal(mu, sigma):
    return stats.norm(mu, sigma).logpdf


def expected_y(made, beta, effects):
    """Return X beta + Z b + offset with an indicator matrix for every term."""
    mu = made.rows.X @ beta + made.rows.offset
    for term, b in zip(made.rows.terms, effects, strict=True):
        indicators = np.eye(term.n_levels)[term.codes]
        Z = np.concatenate([indicators * column[:, None] for column in term.columns.T], axis=1)
        mu = mu + Z @ b.T.ravel()
    return mu


def log_likelihood(made, beta, effects, sigma):
    sd = sigma / np.sqrt(made.rows.weights)
    return stats.norm(expected_y(made, beta, effects), sd).logpdf(made.rows.y).sum()


def test_density_without_random_effects():
    made = design("y ~ x", small_data())
    given = {"Intercept": Normal(1, 2), "x": Normal(3, 4), "sigma": HalfStudentT(3, 5)}
    beta, sigma = np.array([8.0, 0.5]), 1.7
    got = log_density(
        pymc_hierarchical.hierarchical(made, resolve(made, given)), {"beta": beta, "sigma": sigma}
    )
    wanted = normal(1, 2)(8.0) + normal(3, 4)(0.5) + half_t(5)(sigma)
    assert got == pytest.approx(wanted + log_likelihood(made, beta, [], sigma), rel=1e-10)


@pytest.mark.parametrize("centered", [False, True])
def test_density_with_a_scalar_term_weights_and_offset(centered):
    made = design("y ~ 1 + (1 | g)", small_data(), weights="w", offset="known")
    given = {"Intercept": Normal(0, 10), "sigma": HalfStudentT(3, 2), "sd": HalfStudentT(3, 4)}
    model = pymc_hierarchical.hierarchical(made, resolve(made, given), centered=centered)
    beta, sigma, sd = np.array([9.0]), 1.3, np.array([0.7])
    z = np.array([[0.3], [-1.0], [0.5], [2.0]])
    wanted = normal(0, 10)(9.0) + half_t(2)(sigma) + half_t(4)(sd[0])
    wanted += normal(0, 0.7)(z * sd).sum()
    wanted += log_likelihood(made, beta, [z * sd], sigma)
    values = {"beta": beta, "sigma": sigma, "sd_g": sd, "b_g": z * sd}
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("centered", [False, True])
def test_density_with_independent_coefficients(centered):
    made = design("y ~ x + (x || g)", small_data())
    half = HalfStudentT(3, 2)
    given = {"Intercept": Normal(0, 10), "beta": Normal(0, 5), "sigma": half, "sd": half}
    model = pymc_hierarchical.hierarchical(made, resolve(made, given), centered=centered)
    beta, sigma, sd = np.array([9.0, -0.3]), 1.3, np.array([0.7, 1.9])
    z = np.random.default_rng(1).normal(size=(4, 2))
    b = z * sd
    wanted = normal([0, 0], [10, 5])(beta).sum() + half_t(2)(np.array([sigma, *sd])).sum()
    wanted += normal(0, sd)(b).sum()
    wanted += log_likelihood(made, beta, [b], sigma)
    values = {"beta": beta, "sigma": sigma, "sd_g": sd, "b_g": b}
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)


def correlations_of_three(partial):
    """Return the correlation matrix with partial correlations (12, 13, 23 given 1)."""
    r12, r13, p23 = partial
    r23 = p23 * np.sqrt((1 - r12**2) * (1 - r13**2)) + r12 * r13
    return np.array([[1, r12, r13], [r12, 1, r23], [r13, r23, 1]])


@pytest.mark.parametrize("centered", [False, True])
def test_density_with_three_correlated_coefficients(centered):
    made = design("y ~ x + v + (x + v | g)", small_data())
    half = HalfStudentT(3, 2)
    given = {"Intercept": Normal(0, 9), "beta": Normal(0, 5), "sigma": half, "sd": half}
    model = pymc_hierarchical.hierarchical(
        made, resolve(made, given | {"corr": LKJ(1.5)}), centered=centered
    )
    beta, sigma, sd = np.array([9.0, -0.3, 0.2]), 1.3, np.array([0.7, 1.9, 0.4])
    partial = np.array([0.5, -0.3, 0.6])
    cov = np.outer(sd, sd) * correlations_of_three(partial)
    z = np.random.default_rng(2).normal(size=(4, 3))
    b = z @ np.linalg.cholesky(cov).T
    wanted = normal(0, [9, 5, 5])(beta).sum() + half_t(2)(np.array([sigma, *sd])).sum()
    # C-vine: Beta(eta + (k - 2) / 2) for the pairs with the first, Beta(eta) for the last
    wanted += stats.beta([2, 2, 1.5], [2, 2, 1.5]).logpdf((1 + partial) / 2).sum()
    wanted += stats.multivariate_normal(cov=cov).logpdf(b).sum()
    wanted += log_likelihood(made, beta, [b], sigma)
    values = {"beta": beta, "sigma": sigma, "sd_g": sd, "partial_corr_g": (1 + partial) / 2}
    values["b_g"] = b
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("centered", [False, True])
def test_density_away_from_zero_with_crossed_terms(centered):
    """Where default priors hold elsewhere the likelihood is that of the usual coefficients."""
    data = small_data().assign(x=lambda t: t["x"] - t["x"].min() + 2)
    made = design("y ~ x + (x | g) + (1 | h)", data)
    model = pymc_hierarchical.hierarchical(made, resolve(made), centered=centered)
    sy, x = made.rows.y.std(ddof=1), made.rows.X[:, 1]
    sx, shift = x.std(ddof=1), np.array([[1, -x.mean()], [0, 1]])
    back = np.array([[1, -2], [0, 1]])
    at_mean, sigma, sd_g, sd_h = np.array([9.0, -0.3]), 1.3, np.array([0.7, 1.9]), np.array([0.4])
    rho = -0.6
    cov = np.outer(sd_g, sd_g) * [[1, rho], [rho, 1]]
    rng = np.random.default_rng(3)
    z_g, z_h = rng.normal(size=(4, 2)), rng.normal(size=(3, 1))
    b_g = z_g @ np.linalg.cholesky(cov).T
    wanted = normal([made.rows.y.mean(), 0], [2.5 * sy, 2.5 * sy / sx])(at_mean).sum()
    wanted += half_t(sy)(sigma) + half_t(sy)(sd_h[0]) + half_t(np.array([sy, sy / sx]))(sd_g).sum()
    wanted += stats.beta(2, 2).logpdf((1 + rho) / 2)
    wanted += log_likelihood(made, shift @ at_mean, [b_g @ back.T, z_h * sd_h], sigma)
    values = {"at_mean_beta": at_mean, "sigma": sigma, "nearest_sd_g": sd_g, "sd_h": sd_h}
    values["partial_corr_g"] = np.array([(1 + rho) / 2])
    wanted += stats.multivariate_normal(cov=cov).logpdf(b_g).sum()
    wanted += normal(0, sd_h)(z_h * sd_h).sum()
    values |= {"nearest_b_g": b_g, "b_h": z_h * sd_h}
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize(
    ("record", "frozen"),
    [
        (StudentT(4, 1, 2), stats.t(4, 1, 2)),
        (HalfNormal(2), stats.halfnorm(scale=2)),
        (HalfCauchy(2), stats.halfcauchy(scale=2)),
        (Exponential(4), stats.expon(scale=4)),
        (Gamma(3, 0.5), stats.gamma(3, scale=2)),
        (InverseGamma(3, 2), stats.invgamma(3, scale=2)),
        (LogNormal(0.5, 2), stats.lognorm(2, scale=np.exp(0.5))),
        (Uniform(0, 5), stats.uniform(0, 5)),
    ],
    ids=lambda value: str(value) if isinstance(value, Prior) else "",
)
def test_each_record_means_its_density(record, frozen):
    given = {"Intercept": Normal(0, 1), "x": record, "sigma": HalfNormal(1)}
    made = design("y ~ x", small_data())
    model = pymc_hierarchical.hierarchical(made, resolve(made, given))
    (name,) = {rv.name for rv in model.free_RVs} - {"normal_beta", "sigma"}
    plain = remove_value_transforms(model)
    value = plain.rvs_to_values[plain[name]]
    density = pm.compile(inputs=[value], outputs=plain.logp(vars=plain[name]), mode=PYTHON)
    # PyMC has some constants in single precision
    assert float(density([1.5])) == pytest.approx(frozen.logpdf(1.5), rel=1e-8)


def test_density_with_flat_known_and_relative_parameters():
    made = design("y ~ x + v + (x + v || g) + (1 | h)", small_data())
    given = {
        "Intercept": Normal(1, 9),
        "x": Flat(),
        "v": Constant(0.5),
        "sigma": Flat(),
        "sd_g": {"Intercept": Relative(HalfNormal(2)), "x": Relative(Constant(3)), "v": Flat()},
        "sd_h": Constant(0.8),
    }
    model = pymc_hierarchical.hierarchical(made, resolve(made, given))
    sigma, ratio, flat = 1.3, 0.6, 0.7
    z_g, z_h = np.random.default_rng(1).normal(size=(4, 3)), np.array([[0.2], [-1.0], [0.4]])
    sd = np.array([ratio * sigma, 3 * sigma, flat])
    wanted = normal(1, 9)(9.0) + stats.halfnorm(scale=2).logpdf(ratio)
    wanted += normal(0, sd)(z_g * sd).sum() + normal(0, 0.8)(z_h * 0.8).sum()
    wanted += log_likelihood(made, np.array([9.0, -0.3, 0.5]), [z_g * sd, z_h * 0.8], sigma)
    values = {
        "normal_beta": [9.0], "flat_beta": [-0.3], "sigma": sigma,
        "b_g": z_g * sd, "b_h": z_h * 0.8, "halfnormal_relative_sd_g": [ratio], "flat_sd_g": [flat],
    }  # fmt: skip
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)
    assert log_density(model, values | {"flat_sd_g": [-flat]}) == -np.inf


def test_relative_sds_of_a_correlated_term():
    made = design("y ~ 1 + (x | g)", small_data())
    given = {"Intercept": Flat(), "sigma": Constant(1.5), "sd": Relative(Exponential(2))}
    model = pymc_hierarchical.hierarchical(made, resolve(made, given), centered=True)
    ratio, rho = np.array([0.4, 1.1]), 0.3
    sd = 1.5 * ratio
    cov = np.outer(sd, sd) * [[1, rho], [rho, 1]]
    b = np.random.default_rng(3).normal(size=(4, 2))
    wanted = stats.expon(scale=2).logpdf(ratio).sum() + stats.beta(2, 2).logpdf((1 + rho) / 2)
    wanted += stats.multivariate_normal(cov=cov).logpdf(b).sum()
    wanted += log_likelihood(made, np.array([9.0]), [b], 1.5)
    values = {"beta": [9.0], "relative_sd_g": ratio, "partial_corr_g": [(1 + rho) / 2], "b_g": b}
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-10)


# Other families


FAMILY_RESPONSES = {
    "real": lambda rng, n: rng.normal(1, 0.3, n),
    "positive": lambda rng, n: rng.gamma(3, 1, n),
    "counts": lambda rng, n: rng.poisson(3, n).astype(float),
    "binary": lambda rng, n: rng.binomial(1, 0.4, n).astype(float),
    "unit": lambda rng, n: rng.beta(2, 3, n),
    "proportions": lambda rng, n: rng.integers(0, 4, n) / 3,
}


@pytest.mark.parametrize("name", sorted({family.name for family in FAMILIES.values()}))
def test_density_of_every_family(name):
    family = find_family(name)
    data = small_data()
    data["response"] = FAMILY_RESPONSES[family.support](np.random.default_rng(5), len(data))
    weights = np.full(len(data), 3.0) if family.support == "proportions" else None
    made = design("response ~ x + (x || g) + (1 | h)", data, weights=weights, offset="known")
    half = HalfStudentT(3, 2)
    given = {"Intercept": Normal(0, 9), "beta": Normal(0, 5), "sd": half}
    given |= {parameter: HalfNormal(2) for parameter in family.parameters}
    priors = resolve(made, given, family)
    model = pymc_hierarchical.hierarchical(made, priors, family, centered={"h": True})
    beta, sd_g, sd_h = np.array([0.4, -0.3]), np.array([0.7, 0.2]), np.array([0.4])
    psi = 1.1 + 0.3 * np.arange(len(family.parameters))
    rng = np.random.default_rng(6)
    z_g, b_h = rng.normal(size=(4, 2)), rng.normal(size=(3, 1))
    eta = expected_y(made, beta, [z_g * sd_g, b_h])
    wanted = normal(0, [9, 5])(beta).sum() + half_t(2)(np.array([*sd_g, *sd_h])).sum()
    wanted += stats.halfnorm(scale=2).logpdf(psi).sum()
    wanted += normal(0, sd_g)(z_g * sd_g).sum() + normal(0, sd_h)(b_h).sum()
    wanted += family.log_density(
        made.rows.y, family.link.inverse(eta), made.rows.weights, *psi
    ).sum()
    values = dict(zip(family.parameters, psi, strict=True))
    values |= {"beta": beta, "sd_g": sd_g, "sd_h": sd_h, "b_g": z_g * sd_g, "b_h": b_h}
    assert log_density(model, values) == pytest.approx(wanted, rel=1e-8)


@pytest.mark.parametrize(
    ("name", "link"),
    [("bernoulli", "logit"), ("bernoulli", "probit"), ("binomial", "logit"), ("poisson", "log")],
)
def test_density_of_cells_is_that_of_the_rows_but_for_a_constant(name, link):
    family = find_family(name, link)
    data = pd.DataFrame({"x": np.arange(300) % 3, "g": np.arange(300) // 3 % 4})
    data["y"] = np.random.default_rng(2).integers(0, 2 if family.is_bounded else 6, 300)
    made = design("y ~ x + (1 | g)", data, family=family)
    priors = resolve(made, {"beta": Normal(0, 5), "Intercept": Normal(0, 5)}, family)
    cells = cells_of(made.rows, family).rows
    assert len(cells.y) == 12
    models = [pymc_hierarchical.hierarchical(made, priors, family, rows=r) for r in (None, cells)]
    points = [
        {"beta": np.array(beta), "sd_g": np.array([sd]), "b_g": sd * np.arange(4.0)[:, None]}
        for beta, sd in (([0.2, 0.1], 0.3), ([-0.4, 0.2], 0.1))
    ]
    rows, few = ([log_density(model, point) for point in points] for model in models)
    assert np.ptp(np.subtract(rows, few)) == pytest.approx(0, abs=1e-9)


def count_data():
    return small_data().assign(k=np.arange(30.0) % 5)


def test_parameters_of_a_family_are_variables_in_the_table_and_in_the_tree():
    made = design("k ~ x + (1 | g)", count_data())
    family = find_family("negative_binomial")
    priors = resolve(made, "default", family)
    model = pymc_hierarchical.hierarchical(made, priors, family)
    assert "sigma" not in model.named_vars
    assert priors_in(model) == as_rows(priors)
    assert [row.parameter for row in priors.rows()] == ["beta", "beta", "shape", "sd_g"]
    tree = pymc_hierarchical.sample_pymc(
        model, Sampling(draws=20, tune=50, chains=1, seed=1, progressbar=False)
    )
    names = ["beta", "shape", "b_g", "sd_g", "at_mean_beta"]
    assert list(tree["posterior"].data_vars) == names


def test_the_table_of_a_family_with_two_parameters():
    made = design("y ~ x", small_data())
    family = find_family("t")
    for given in ("default", "flat", {"nu": Constant(4), "sigma": Flat()}):
        priors = resolve(made, given, family)
        assert priors_in(pymc_hierarchical.hierarchical(made, priors, family)) == as_rows(priors)
        assert [row.parameter for row in priors.rows()] == ["beta", "beta", "sigma", "nu"]


def test_a_factor_may_be_called_as_a_parameter_of_the_family():
    data = count_data().rename(columns={"h": "shape"})
    made = design("k ~ 1 + (1 | shape)", data)
    family = find_family("negative_binomial")
    model = pymc_hierarchical.hierarchical(made, resolve(made, "default", family), family)
    assert model.named_vars_to_dims["b_shape"][0] == "shape_"


def test_each_term_can_be_centered_on_its_own():
    made = design("y ~ 1 + (1 | g) + (1 | h)", small_data())
    for centered, names in (
        ({"g": True}, {"b_g", "b_h_standardised__"}),
        ({"h": True, "g": False}, {"b_g_standardised__", "b_h"}),
        ({}, {"b_g_standardised__", "b_h_standardised__"}),
        (True, {"b_g", "b_h"}),
    ):
        model = pymc_hierarchical.hierarchical(made, resolve(made), centered=centered)
        assert {rv.name for rv in model.free_RVs} >= {"b_g", "b_h"}
        sampled = {value.name for value in model.value_vars}
        assert {name for name in sampled if name[:2] == "b_"} == names


@pytest.mark.parametrize(
    ("centered", "message"),
    [
        (
            {"gg": True},
            "centered: there is no random-effects term 'gg'. Did you mean `g`?",
        ),
        (
            {"g": 1},
            "`centered` is True or False, or a dict of these from the label of a term, got 1.",
        ),
        (
            "g",
            "`centered` is True or False, or a dict of these from the label of a term, got 'g'.",
        ),
    ],
)
def test_centered_that_is_refused(centered, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}"):
        model_of("y ~ 1 + (1 | g) + (1 | h)", small_data(), centered=centered)


def test_a_family_that_pymc_does_not_know_is_refused():
    made = design("k ~ 1", count_data())
    family = replace(find_family("poisson"), name="mine", pymc=None)
    message = (
        "the family 'mine' cannot be sampled with PyMC: give it `pymc`, a function of (pm, name, "
        "link, eta, w, *parameters, observed=, dims=) that adds the likelihood."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        pymc_hierarchical.hierarchical(made, resolve(made, "default", family), family)


# Correlations


def lkj_factor(eta, k):
    priors = TermPriors("g", tuple("abcd"[:k]), Unstructured(k), (), LKJ(eta))
    return pymc_hierarchical.correlation_factor(priors)


def test_partial_correlations_make_the_lkj_density():
    """log p(partials) - log|d corr / d partials| - (eta - 1) log det corr is one constant."""
    eta, k = 2.5, 4
    with pm.Model() as model:
        unit = lkj_factor(eta, k)
    rv = model["partial_corr_g"]
    build = model.compile_fn(
        (unit[:, None, :] * unit).sum(-1), inputs=[rv], point_fn=False, mode=PYTHON
    )
    pairs = np.tril_indices(k, -1)
    parameters = eta + (k - 2 - pairs[1]) / 2

    def rest(u):
        step = 1e-6
        moved = [build(u + step * e)[pairs] - build(u - step * e)[pairs] for e in np.eye(len(u))]
        jacobian = np.linalg.slogdet(np.array(moved) / (2 * step)).logabsdet
        log_det = np.linalg.slogdet(build(u)).logabsdet
        return stats.beta(parameters, parameters).logpdf(u).sum() - jacobian - (eta - 1) * log_det

    points = np.random.default_rng(4).uniform(0.2, 0.8, size=(5, len(pairs[0])))
    constants = [rest(u) for u in points]
    np.testing.assert_allclose(constants, constants[0], atol=1e-6)
    np.testing.assert_allclose(np.diag(build(points[0])), 1, rtol=1e-12)


def test_prior_draws_of_correlations_are_lkj():
    """Marginally 2 Beta(a, a) - 1 with a = eta + (k - 2) / 2; E det from the Beta moments."""
    eta, k, draws = 2.0, 3, 20_000
    with pm.Model() as model:
        unit = lkj_factor(eta, k)
    build = model.compile_fn(
        (unit[:, None, :] * unit).sum(-1),
        inputs=[model["partial_corr_g"]],
        point_fn=False,
        mode=PYTHON,
    )
    partial = pm.draw(model["partial_corr_g"], draws=draws, random_seed=1, mode=PYTHON)
    corr = np.array([build(u) for u in partial])
    sd = corr[:, *np.tril_indices(k, -1)].std(axis=0)
    np.testing.assert_allclose(sd, 1 / np.sqrt(2 * (eta + 0.5) + 1), atol=0.01)
    a = np.array([eta + 0.5, eta + 0.5, eta])
    np.testing.assert_allclose(
        np.linalg.det(corr).mean(), np.prod(2 * a / (2 * a + 1)), atol=4 * 0.23 / draws**0.5
    )


# Default priors follow the data


def test_prior_draws_follow_a_shift_and_rescaling_of_the_data():
    a, c, d, e = -20.0, 3.0, 100.0, 0.25
    data = small_data()
    moved = data.assign(y=a + c * data["y"], x=d + e * data["x"])
    names = ["beta", "sigma", "sd_g", "corr_g", "b_g"]
    text = "y ~ x + (x | g)"
    before, after = (
        pm.draw([model[n] for n in names], draws=20, random_seed=7, mode=PYTHON)
        for model in (model_of(text, data), model_of(text, moved))
    )
    # intercept + slope x = intercept + slope ((d + e x) - d) / e
    change = np.array([[c, -c * d / e], [0.0, c / e]])
    cov = [corr * sd[:, :, None] * sd[:, None, :] for _, _, sd, corr, _ in (before, after)]
    np.testing.assert_allclose(after[0], before[0] @ change.T + [a, 0], rtol=1e-8)
    np.testing.assert_allclose(after[1], c * before[1], rtol=1e-8)
    np.testing.assert_allclose(cov[1], change @ cov[0] @ change.T, rtol=1e-6)
    np.testing.assert_allclose(after[4], before[4] @ change.T, rtol=1e-6, atol=1e-6)


# Names, dimensions, tables


def test_variables_and_coordinates():
    data = load_dataset("sleepstudy")
    model = model_of("Reaction ~ Days + (Days | Subject)", data, BRMS_PRIORS)
    assert [rv.name for rv in model.free_RVs] == [
        "beta", "sigma", "sd_Subject", "partial_corr_Subject", "b_Subject",
    ]  # fmt: skip
    assert model.named_vars_to_dims["beta"] == ("fixed",)
    assert model.named_vars_to_dims["sd_Subject"] == ("Subject_coef",)
    assert model.named_vars_to_dims["corr_Subject"] == ("Subject_coef", "Subject_coef_bis")
    assert model.named_vars_to_dims["b_Subject"] == ("Subject", "Subject_coef")
    assert model.named_vars_to_dims["y"] == ("obs",)
    coefs = ("Intercept", "Days")
    assert [model.coords[d] for d in ("fixed", "Subject_coef", "Subject_coef_bis")] == [coefs] * 3
    assert [str(s) for s in model.coords["Subject"][:2]] == ["308", "309"]
    assert model.coords["obs"] == tuple(data.index)


@pytest.mark.parametrize("centered", [False, True])
def test_which_variables_are_random(centered):
    for least, prefix in ((-1, ""), (2, "nearest_")):
        data = small_data().assign(x=lambda t, to=least: t["x"] - t["x"].min() + to)
        names = {rv.name for rv in model_of("y ~ x + (x | g)", data, centered=centered).free_RVs}
        assert names == {"at_mean_beta", "sigma", f"{prefix}sd_g", "partial_corr_g", f"{prefix}b_g"}


def test_scalar_and_diagonal_terms_have_no_correlations():
    model = model_of("y ~ 1 + (1 | g) + (x || h)", small_data())
    assert not [name for name in model.named_vars if "corr" in name]
    assert model.named_vars_to_dims["sd_h"] == ("h_coef",)


def test_a_model_without_fixed_effects():
    model = model_of("y ~ 0 + (1 | g)", small_data())
    assert {rv.name for rv in model.free_RVs} == {"sigma", "sd_g", "b_g"}
    assert [parameter for parameter, *_ in priors_in(model)] == ["sigma", "sd_g"]


def test_a_model_without_any_effects():
    model = model_of("y ~ 0", small_data())
    assert log_density(model, {"sigma": 2.0}) == pytest.approx(
        half_t(small_data()["y"].std())(2.0) + normal(0, 2)(small_data()["y"]).sum()
    )


def test_rows_with_repeated_or_nested_labels_are_counted():
    data = small_data()
    repeated = data.set_index(pd.Index(["r"] * len(data)))
    nested = data.set_index(pd.MultiIndex.from_arrays([data["g"], range(len(data))]))
    for frame in (repeated, nested):
        assert model_of("y ~ x", frame).coords["obs"] == tuple(range(len(data)))


TAKEN = ["fixed", "obs", "beta", "sigma", "y", "chain", "draw", "sample", "g_coef", "sd_g"]


@pytest.mark.parametrize("name", TAKEN)
def test_a_factor_may_have_a_name_that_is_taken(name):
    data = small_data().rename(columns={"y": "response", "h": name})
    model = model_of(f"response ~ x + (1 | g) + (x | {name})", data)
    assert model.named_vars_to_dims[f"b_{name}"][0] == f"{name}_"
    assert model.coords[f"{name}_"] == (1, 2, 3)
    assert model.named_vars_to_dims["beta"] == ("fixed",)
    assert model.named_vars_to_dims["b_g"][0] == "g"
    assert not set(model.coords) & set(model.named_vars)


def test_a_term_gives_way_to_the_coefficients_of_another():
    data = small_data().rename(columns={"h": "g_coef"})
    model = model_of("y ~ x + (x | g) + (1 | g_coef)", data)
    assert model.coords["g_coef"] == ("Intercept", "x")
    assert model.coords["g_coef_"] == (1, 2, 3)


def as_rows(priors):
    return [(r.parameter, r.coef, str(r.prior)) for r in priors.rows()]


MIXED = {
    "x": StudentT(4, 0, 2.5),
    "sd_g": {"Intercept": HalfNormal(3), "x": Exponential(2), "v": HalfNormal(1)},
    "sd_h": InverseGamma(2, 3),
    "sigma": Gamma(2, 0.1),
    "corr": LKJ(3.5),
}


@pytest.mark.parametrize(
    "priors",
    [
        "default",
        BRMS_PRIORS | {"x": LogNormal(0, 1)},
        MIXED,
        MIXED | {"Intercept": Uniform(0, 20), "sd_h": HalfCauchy(2)},
        "flat",
        "brms",
        {"sigma": Constant(2), "x": Constant(0), "sd_g": Relative(HalfNormal(2))},
        {
            "beta": {"x": Flat(), "v": Constant(1)},
            "sigma": Constant(2),
            "sd_g": {"Intercept": Relative(Constant(2)), "x": Flat(), "v": Relative(Flat())},
            "sd_h": Relative(Constant(0.5)),
        },
    ],
    ids=[
        "default", "as brms", "mixed", "mixed, at zero", "flat", "brms", "relative", "all kinds",
    ],
)  # fmt: skip
@pytest.mark.parametrize("centered", [False, True])
def test_the_priors_read_from_the_model_are_those_of_the_records(priors, centered):
    data = small_data()
    if isinstance(priors, dict):
        priors = {key: prior for key, prior in priors.items() if key != "Days"}
    made = design("y ~ v + x + (x + v | g) + (1 | h)", data)
    resolved = resolve(made, priors)
    model = pymc_hierarchical.hierarchical(made, resolved, centered=centered)
    assert priors_in(model) == as_rows(resolved)


def test_mixed_priors_keep_the_order_of_the_coefficients():
    made = design("y ~ v + x + (x + v | g)", small_data())
    given = {key: prior for key, prior in MIXED.items() if key != "sd_h"}
    plain = remove_value_transforms(pymc_hierarchical.hierarchical(made, resolve(made, given)))
    values = {
        "normal_at_mean_beta": [1.0, 2.0],
        "studentt_at_mean_beta": [3.0],
        "halfnormal_sd_g": [4.0, 5.0],
        "exponential_sd_g": [6.0],
    }
    inputs = [plain[name] for name in values]
    outputs = [plain["at_mean_beta"], plain["sd_g"]]
    got = plain.compile_fn(outputs, inputs=inputs, point_fn=False, mode=PYTHON)(
        *map(np.array, values.values())
    )
    np.testing.assert_allclose(got, [[1, 2, 3], [4, 6, 5]])


# Sampling


def test_flat_known_and_relative_parameters_are_sampled():
    given = {"base": "brms", "sigma": Constant(25), "Days": Constant(10)}
    given["sd_Subject"] = {"Intercept": Relative(HalfNormal(1)), "Days": Constant(6)}
    model = model_of("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), given)
    tree = pymc_hierarchical.sample_pymc(
        model, Sampling(draws=200, tune=300, chains=2, seed=1, progressbar=False)
    )
    posterior = tree["posterior"]
    assert list(posterior.data_vars) == [
        "beta", "sigma", "b_Subject", "sd_Subject", "corr_Subject", "studentt_at_mean_beta",
        "relative_sd_Subject", "partial_corr_Subject",
    ]  # fmt: skip
    assert set(posterior["sigma"].to_numpy().ravel()) == {25.0}
    assert set(posterior["beta"].sel(fixed="Days").to_numpy().ravel()) == {10.0}
    assert set(posterior["sd_Subject"].sel(Subject_coef="Days").to_numpy().ravel()) == {6.0}
    assert 5 < posterior["sd_Subject"].sel(Subject_coef="Intercept").mean() < 50


@pytest.fixture(scope="module")
def sampled():
    model = model_of("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"), BRMS_PRIORS)
    return pymc_hierarchical.sample_pymc(model, Sampling(draws=4000, seed=2, progressbar=False))


def test_the_tree_holds_what_is_documented(sampled):
    assert set(sampled.children) == {"posterior", "sample_stats", "observed_data"}
    posterior = sampled["posterior"]
    assert {name: v.shape[2:] for name, v in posterior.data_vars.items()} == {
        "beta": (2,),
        "sigma": (),
        "sd_Subject": (2,),
        "corr_Subject": (2, 2),
        "b_Subject": (18, 2),
        "partial_corr_Subject": (1,),
    }
    assert dict(posterior.sizes)["chain"] == 4
    assert dict(posterior.sizes)["draw"] == 4000
    assert posterior["fixed"].to_numpy().tolist() == ["Intercept", "Days"]
    y = sampled["observed_data"]["y"]
    np.testing.assert_array_equal(y, load_dataset("sleepstudy")["Reaction"])
    assert y.dims == ("obs",)
    assert {v.dtype.kind for v in sampled["sample_stats"].data_vars.values()} <= set("fiub")


def test_correlations_and_sds_of_the_tree_are_those_of_a_covariance(sampled):
    corr = sampled["posterior"]["corr_Subject"].to_numpy()
    np.testing.assert_allclose(np.diagonal(corr, axis1=2, axis2=3), 1, rtol=1e-12)
    np.testing.assert_array_equal(corr, corr.swapaxes(2, 3))
    assert (np.abs(corr[..., 0, 1]) < 1).all()


def test_sleepstudy_samples_without_complaint(sampled):
    found = diagnose(sampled)
    assert found.ok, found.messages()
    assert found.divergences == 0


def test_arviz_takes_the_tree(sampled):
    mpl.use("agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ divides by the variance of the unit diagonal
        table = az.summary(sampled, round_to="none")
    mine = summarise(sampled, include_b=True)
    mine.index = [f"beta[{name}]" if name in ("Intercept", "Days") else name for name in mine.index]
    np.testing.assert_allclose(table.loc[mine.index, "mean"], mine["mean"], rtol=1e-9)
    for plot in (az.plot_forest, az.plot_trace_dist):
        plot(sampled, var_names=["beta", "sd_Subject"])
    plt.close("all")


def ours(sampled):
    """Return the table of ours under brms's names."""
    table = summarise(sampled, include_b=True)
    names = {
        "Intercept": "b_Intercept",
        "Days": "b_Days",
        "sd_Subject[Intercept]": "sd_Subject__Intercept",
        "sd_Subject[Days]": "sd_Subject__Days",
        "corr_Subject[Intercept, Days]": "cor_Subject__Intercept__Days",
    }
    return table.rename(
        lambda name: names.get(name, name.replace("b_Subject", "r_Subject").replace(", ", ","))
    )


def test_the_posterior_is_that_of_brms(sampled):
    """All 42 numbers of brms's posterior, within four Monte Carlo standard errors of both runs.

    That of a bound of a highest density interval is 1.25 sd n^(-1/3), found by simulation for
    normal and gamma draws between n = 300 and 10,000.
    """
    table, brms = ours(sampled), pd.DataFrame(BRMS["summary"]).set_index("variable")
    assert set(table.index) == set(brms.index)
    table = table.loc[brms.index]
    ess, ess_brms = table["ess_bulk"], brms["ess_bulk"]
    se = brms["sd"] * np.sqrt(1 / ess + 1 / ess_brms)
    se_bound = 1.25 * brms["sd"] * np.hypot(ess ** (-1 / 3), ess_brms ** (-1 / 3))
    z = pd.DataFrame(
        {
            "mean": (table["mean"] - brms["mean"]) / se,
            "sd": (table["sd"] - brms["sd"]) / se,
            "lower": (table["lower"] - brms["hpd_low"]) / se_bound,
            "upper": (table["upper"] - brms["hpd_high"]) / se_bound,
        }
    )
    assert z.abs().to_numpy().max() < 4, z.to_string()


def test_the_same_seed_gives_the_same_draws_on_any_number_of_cores(recwarn, caplog, capfd):
    when = pd.date_range("2020-01-01", periods=30, tz="UTC")
    model = model_of("y ~ x", small_data().set_index(when))
    settings = {"draws": 50, "tune": 100, "chains": 2, "progressbar": False}
    one, two = (
        pymc_hierarchical.sample_pymc(model, Sampling(**settings, seed=5, cores=cores))
        for cores in (1, 2)
    )
    other = pymc_hierarchical.sample_pymc(model, Sampling(**settings, seed=6))
    xr.testing.assert_equal(one["posterior"].to_dataset(), two["posterior"].to_dataset())
    assert not np.array_equal(one["posterior"]["beta"], other["posterior"]["beta"])
    assert dict(one["posterior"].sizes) == {"chain": 2, "draw": 50, "fixed": 2}
    assert (list(recwarn), caplog.records, tuple(capfd.readouterr())) == ([], [], ("", ""))


DRAW_IN_A_FRESH_PROCESS = """
from ranef.arguments import Sampling
from ranef.covariances.covariance import Unstructured
from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.posterior.sampling import pymc_hierarchical
from ranef.priors.assignment import TermPriors, resolve

formula = read_formula("Reaction ~ Days + (Days | Subject)")
design = build_design(formula, load_dataset("sleepstudy"))
model = pymc_hierarchical.hierarchical(design, resolve(design))
settings = Sampling(seed=1, draws=200, tune=300, progressbar=False)
tree = pymc_hierarchical.sample_pymc(model, settings)
print(tree["posterior"]["beta"].to_numpy().tobytes().hex())
"""


@pytest.mark.slow
def test_the_same_seed_gives_the_same_draws_with_an_empty_and_a_full_cache(tmp_path):
    environment = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"}
    empty, full = (
        subprocess.run(
            [sys.executable, "-c", DRAW_IN_A_FRESH_PROCESS],
            env=environment,
            capture_output=True,
            check=True,
        ).stdout
        for _ in range(2)
    )
    assert len(empty) > 1000
    assert empty == full


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 0}, "`draws` must be a positive whole number, got 0."),
        ({"draws": 10.5}, "`draws` must be a positive whole number, got 10.5."),
        ({"tune": None}, "`tune` must be a positive whole number, got None."),
        ({"chains": True}, "`chains` must be a positive whole number, got True."),
        ({"cores": -1}, "`cores` must be a positive whole number, got -1."),
        (
            {"seed": -1},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1.",
        ),
        (
            {"seed": "a"},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got 'a'.",
        ),
        ({"target_accept": 1.0}, "`target_accept` must lie between 0 and 1, got 1.0."),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        pymc_hierarchical.sample_pymc(model_of("y ~ x", small_data()), Sampling(**settings))


def design_of(text, data, family, **options):
    return build_design(read_formula(text), data, family=family, **options)


def counts(levels, rows, sd, mean, *, slope=0.0):
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(levels), rows)
    x = rng.normal(size=len(g))
    eta = np.log(mean) + sd * rng.normal(size=levels)[g] + slope * rng.normal(size=levels)[g] * x
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)).astype(float), "g": g, "x": x})


def worths(text, data, family):
    family = find_family(family)
    reasons = [choice.reason for choice in choose(design_of(text, data, family), family)]
    return [float(reason.split("worth ")[1].split(" times")[0]) for reason in reasons]


def test_worth_of_one_coefficient_is_information_times_variance():
    information, variance = np.array([0.5, 4.0, 30.0]), 0.7
    after = 1 / (information + 1 / variance)
    got = _information(np.array([[variance]]), after[:, None, None])
    assert got == pytest.approx(4.0 * variance)


def test_the_worst_coefficient_counts():
    before = np.diag([2.0, 1.0])
    after = np.tile(np.diag([0.1, 0.5]), (5, 1, 1))
    assert _information(before, after) == pytest.approx(1.0)


def test_effects_that_do_not_vary_are_worth_nothing():
    assert _information(np.zeros((1, 1)), np.zeros((4, 1, 1))) == 0.0


@pytest.mark.parametrize(("rows", "sd", "mean"), [(20, 0.3, 10), (3, 0.4, 2), (8, 0.2, 5)])
def test_worth_of_counts_is_that_of_their_information(rows, sd, mean):
    found = worths("y ~ 1 + (1 | g)", counts(400, rows, sd, mean), "poisson")
    assert found == pytest.approx([rows * mean * np.exp(sd**2 / 2) * sd**2], rel=0.4)


def test_worth_of_binary_rows_is_that_of_their_information():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(400), 20)
    y = rng.uniform(size=len(g)) < 1 / (1 + np.exp(-0.5 * rng.normal(size=400)[g]))
    found = worths("y ~ 1 + (1 | g)", pd.DataFrame({"y": y * 1.0, "g": g}), "binomial")
    assert found == pytest.approx([20 * 0.25 * 0.25], rel=0.3)


def test_rich_levels_are_centred_and_poor_ones_not():
    for data, centered in ((counts(40, 10, 0.6, 8), True), (counts(50, 3, 0.5, 1), False)):
        family = find_family("poisson")
        (found,) = choose(design_of("y ~ x + (1 | g)", data, family), family)
        assert found.centered is centered
        assert found.label == "g"


def test_a_slope_that_does_not_vary_keeps_a_term_non_centred():
    data = counts(40, 10, 0.6, 8)
    (rich,) = worths("y ~ x + (1 | g)", data, "poisson")
    (poor,) = worths("y ~ x + (x || g)", data, "poisson")
    assert rich > 10 > MIN_CENTRED_INFORMATION > poor


def test_a_nested_factor_does_not_pass_for_the_outer_one():
    """Scores of classes vary with their schools; the classes themselves do not here."""
    data = counts(10, 100, 1.0, 20).rename(columns={"g": "school"})
    data["class"] = data["school"] * 5 + np.arange(len(data)) % 5
    alone = worths("y ~ 1 + (1 | class)", data, "poisson")
    classes, schools = worths("y ~ 1 + (1 | school / class)", data, "poisson")
    assert alone[0] > 10
    assert classes < 2
    assert schools > 10


def test_units_do_not_matter():
    data = counts(40, 10, 0.6, 8, slope=0.2)
    moved = data.assign(x=1e6 * data["x"])
    text = "y ~ x + (x | g)"
    np.testing.assert_allclose(
        worths(text, moved, "poisson"), worths(text, data, "poisson"), rtol=0.02
    )


@pytest.mark.parametrize(
    ("worth", "centered", "reason"),
    [
        (
            1.84,
            False,
            "g: non-centred (a level has information worth 1.8 times its prior; centred from 2.5)",
        ),
        (
            40.0,
            True,
            "g: centred (a level has information worth 40 times its prior; non-centred below 2.5)",
        ),
    ],
)
def test_reasons(worth, centered, reason):
    found = _choice("g", worth)
    assert (found.label, found.centered, found.reason) == ("g", centered, reason)


def test_extreme_responses_have_a_choice():
    data = counts(10, 4, 0.5, 3)
    for family in ("poisson", "binomial"):
        extreme = data.assign(y=np.r_[1.0, np.zeros(len(data) - 1)])
        design = design_of("y ~ x + (1 | g)", extreme, find_family(family))
        for y in (np.zeros(len(data)), extreme["y"].to_numpy()):
            (found,) = choose(design.with_rows(y=y), find_family(family))
            assert not found.centered


def test_families_with_parameters_of_their_own():
    rng = np.random.default_rng(3)
    data = counts(40, 10, 0.6, 8)
    data["y"] = rng.gamma(4, np.exp(0.8 * rng.normal(size=40))[data["g"]] / 4)
    (found,) = choose(
        design_of("y ~ x + (1 | g)", data, find_family("gamma")), find_family("gamma")
    )
    assert found.centered  # 10 rows / 0.25, times 0.64: 26


def test_columns_that_are_combinations_of_others_do_not_matter():
    data = counts(40, 10, 0.6, 8)
    data["x2"] = 2 * data["x"]
    assert worths("y ~ x + x2 + (1 | g)", data, "poisson") == pytest.approx(
        worths("y ~ x + (1 | g)", data, "poisson")
    )


def test_a_model_without_random_effects_has_no_choices():
    data = load_dataset("cbpp").assign(y=lambda d: d["incidence"] * 1.0)
    family = find_family("poisson")
    assert choose(design_of("y ~ period", data, family), family) == ()
