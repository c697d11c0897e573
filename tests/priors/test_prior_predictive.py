"""Draws from the priors, and of the response."""

import re
from dataclasses import replace

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

from ranef.covariances.covariance import Unstructured
from ranef.covariances.partial_correlations import correlations, unit_factor
from ranef.datasets import load_dataset
from ranef.design.design import build_design
from ranef.design.labels import variables
from ranef.errors import FitError, RanefWarning
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.names import find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.posterior.sampling import pymc_hierarchical
from ranef.priors.assignment import resolve
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
from ranef.priors.prior_predictive import (
    _covariance,
    draw,
    draw_correlations,
    prior_draws,
    prior_predictive,
    response,
)

N = 20_000


def design(text, data=None, **options):
    return build_design(read_formula(text), small_data() if data is None else data, **options)


def small_data(n=40):
    rng = np.random.default_rng(11)
    data = pd.DataFrame({"y": rng.normal(10, 2, n), "x": rng.normal(30, 1, n)})
    data["v"], data["known"] = rng.normal(-2, 1, n), rng.normal(size=n)
    data["g"], data["h"] = rng.choice(list("abcd"), n), rng.choice([1, 2, 3], n)
    data["w"] = rng.uniform(0.5, 4, n)
    return data


# Single records


@pytest.mark.parametrize(
    ("record", "frozen"),
    [
        (Normal(3, 2), stats.norm(3, 2)),
        (StudentT(4, 1, 2), stats.t(4, 1, 2)),
        (HalfNormal(2), stats.halfnorm(scale=2)),
        (HalfStudentT(3, 2), stats.foldnorm(0)),
        (HalfCauchy(2), stats.halfcauchy(scale=2)),
        (Exponential(4), stats.expon(scale=4)),
        (Gamma(3, 0.5), stats.gamma(3, scale=2)),
        (InverseGamma(3, 2), stats.invgamma(3, scale=2)),
        (LogNormal(0.5, 2), stats.lognorm(2, scale=np.exp(0.5))),
        (Uniform(-2, 5), stats.uniform(-2, 7)),
    ],
    ids=lambda value: str(value) if isinstance(value, Prior) else "",
)
def test_each_record_is_drawn_from_its_distribution(record, frozen):
    values = draw(record, np.random.default_rng(1), N)
    half_t = isinstance(record, HalfStudentT)
    cdf = (lambda x: 2 * stats.t(3, scale=2).cdf(x) - 1) if half_t else frozen.cdf
    assert values.shape == (N,)
    assert stats.kstest(values, cdf).pvalue > 0.001


def test_a_constant_is_drawn_as_it_is():
    np.testing.assert_array_equal(draw(Constant(-2), np.random.default_rng(1), 3), [-2.0] * 3)


@pytest.mark.parametrize("record", [Flat(), LKJ(1), Relative(HalfNormal(1))], ids=str)
def test_what_is_no_distribution_of_a_number(record):
    message = f"nothing can be drawn from {record} alone: it is no distribution of one number."
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        draw(record, np.random.default_rng(1), 3)


@pytest.mark.parametrize(("eta", "k"), [(1.0, 2), (0.5, 3), (2.0, 4)])
def test_correlations_are_lkj(eta, k):
    """Every correlation is 2 Beta(a, a) - 1 with a = eta + (k - 2) / 2, whatever its place."""
    partial = draw_correlations(
        Unstructured(k).correlation_shapes(eta), np.random.default_rng(2), N
    )
    corr = correlations(unit_factor(partial, k))
    a = eta + (k - 2) / 2
    for row, column in zip(*np.tril_indices(k, -1), strict=True):
        values = (1 + corr[:, row, column]) / 2
        assert stats.kstest(values, stats.beta(a, a).cdf).pvalue > 0.001


def test_the_density_of_three_correlations_is_a_power_of_the_determinant():
    """Draws of LKJ(1), weighted by det(R), have the determinant's mean of LKJ(2)."""
    rng = np.random.default_rng(3)
    dets = []
    for eta in (1.0, 2.0):
        factors = unit_factor(draw_correlations(Unstructured(3).correlation_shapes(eta), rng, N), 3)
        diagonal = np.diagonal(factors, axis1=1, axis2=2)
        dets.append(np.prod(diagonal**2, axis=1))
    weighted = np.sum(dets[0] ** 2) / np.sum(dets[0])
    assert weighted == pytest.approx(dets[1].mean(), abs=0.01)


# All parameters


def test_shapes():
    made = design("y ~ x + (x + v | g) + (1 | h)")
    drawn = prior_draws(made, resolve(made), 7, np.random.default_rng(1))
    assert {name: values.shape[1:] for name, values in drawn.items()} == {
        "beta": (2,),
        "sigma": (),
        "b_g": (4, 3),
        "sd_g": (3,),
        "corr_g": (3, 3),
        "b_h": (3, 1),
        "sd_h": (1,),
        "corr_h": (1, 1),
    }
    assert {len(values) for values in drawn.values()} == {7}


def test_sds_correlations_and_factors_are_of_one_covariance():
    made = design("y ~ x + (x + v | g) + (x || h)")
    for priors in (resolve(made), resolve(made, {"sd": HalfNormal(2)})):
        for term in priors.terms:
            sd, corr, factor = _covariance(term, np.full(50, 2.0), np.random.default_rng(4))
            cov = factor @ factor.transpose(0, 2, 1)
            of_parts = sd[:, :, None] * corr * sd[:, None, :]
            np.testing.assert_allclose(cov, of_parts, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "setting",
    [
        "default",
        {
            "sd_g": {"x": Relative(HalfNormal(1)), "v": Constant(2)},
            "corr": LKJ(1),
            "x": Constant(1),
        },
    ],
    ids=["default", "mixed"],
)
def test_the_draws_are_those_of_pymc(setting):
    """At centred columns and at zero, for known and relative parameters: the same distributions."""
    made = design("y ~ x + (x + v | g) + (x || h)")
    priors = resolve(made, setting)
    n = 4000
    ours = prior_draws(made, priors, n, np.random.default_rng(5))
    names = ["beta", "sigma", "sd_g", "sd_h", "corr_g", "b_g", "b_h"]
    model = pymc_hierarchical.hierarchical(made, priors)
    theirs = pm.draw([model[name] for name in names], draws=n, random_seed=6, mode="FAST_COMPILE")
    for name, two in zip(names, theirs, strict=True):
        for a, b in zip(ours[name].reshape(n, -1).T, two.reshape(n, -1).T, strict=True):
            if np.ptp(b) > 1e-9:
                assert stats.ks_2samp(a, b).pvalue > 1e-4, name
            else:
                np.testing.assert_allclose(a, b, rtol=1e-9)


def test_default_draws_follow_a_shift_and_rescaling_of_the_data():
    a, c, d, e = -20.0, 3.0, 100.0, 0.25
    data = small_data()
    moved = data.assign(y=a + c * data["y"], x=d + e * data["x"])
    before, after = (
        prior_draws(made, resolve(made), 20, np.random.default_rng(7))
        for made in (design("y ~ x + (x | g)", data), design("y ~ x + (x | g)", moved))
    )
    change = np.array([[c, -c * d / e], [0.0, c / e]])
    np.testing.assert_allclose(after["beta"], before["beta"] @ change.T + [a, 0], rtol=1e-8)
    np.testing.assert_allclose(after["sigma"], c * before["sigma"], rtol=1e-8)
    np.testing.assert_allclose(after["b_g"], before["b_g"] @ change.T, rtol=1e-6, atol=1e-6)


# The response


def test_the_response_has_the_mean_and_covariance_of_the_model():
    made = design("y ~ x + (x | g) + (1 | h)", weights="w", offset="known")
    given = {
        "Intercept": Normal(1, 0.5), "x": Normal(0.2, 0.1), "sigma": Constant(2), "corr": LKJ(1e6),
        "sd_g": {"Intercept": Constant(1.5), "x": Constant(0.05)}, "sd_h": Relative(Constant(0.7)),
    }  # fmt: skip
    y = prior_predictive(made, resolve(made, given), n=N, seed=8)["prior_predictive"]["y"][0]
    mean = made.rows.X @ [1, 0.2] + made.rows.offset
    root = [made.rows.X * [0.5, 0.1], np.diag(2 / np.sqrt(made.rows.weights))]
    for term, sd in zip(made.rows.terms, ([1.5, 0.05], [1.4]), strict=True):
        indicators = np.eye(term.n_levels)[term.codes]
        root += [indicators * (term.columns[:, [j]] * s) for j, s in enumerate(sd)]
    cov = np.column_stack(root) @ np.column_stack(root).T
    z = (y.to_numpy() - mean) / np.sqrt(np.diag(cov))
    assert np.abs(z.mean(axis=0)).max() < 5 / N**0.5
    corr = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    np.testing.assert_allclose(np.cov(z.T), corr, atol=0.05)


def test_the_tree_has_the_names_of_a_posterior():
    made = design("y ~ x + (x | g) + (1 | h)")
    tree = prior_predictive(made, resolve(made), n=10, seed=1)
    assert list(tree.children) == ["prior", "prior_predictive", "observed_data"]
    prior = tree["prior"].to_dataset()
    assert {name: v.dims[2:] for name, v in prior.data_vars.items()} == variables(made)
    assert list(prior.data_vars) == list(variables(made))
    assert (prior.sizes["chain"], prior.sizes["draw"]) == (1, 10)
    assert prior["g"].to_numpy().tolist() == list("abcd")
    assert tree["prior_predictive"]["y"].dims == ("chain", "draw", "obs")
    np.testing.assert_array_equal(tree["observed_data"]["y"], made.rows.y)


def test_models_without_fixed_or_random_effects():
    for text, names in [("y ~ 0 + (1 | g)", {"sigma", "b_g", "sd_g"}), ("y ~ 0", {"sigma"})]:
        made = design(text)
        tree = prior_predictive(made, resolve(made), n=4, seed=1)
        assert set(tree["prior"].data_vars) == names
        assert tree["prior_predictive"]["y"].shape == (1, 4, 40)


def test_the_same_seed_gives_the_same_draws():
    made = design("y ~ x + (x | g)")
    one, two, other = (prior_predictive(made, resolve(made), n=5, seed=s) for s in (3, 3, 4))
    xr.testing.assert_identical(one, two)
    assert not np.array_equal(one["prior_predictive"]["y"], other["prior_predictive"]["y"])


def test_arviz_takes_the_tree():
    sleep = load_dataset("sleepstudy")
    made = design("Reaction ~ Days + (Days | Subject)", sleep)
    tree = prior_predictive(made, resolve(made), n=50, seed=1)
    az.plot_ppc_dist(tree, group="prior_predictive")
    az.plot_dist(tree, group="prior", var_names=["sd_Subject"])
    plt.close("all")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("brms", "`beta[x]`"),
        ({"sd_g": {"x": Relative(Flat())}, "sigma": Flat()}, "`sigma` and `sd_g[x]`"),
    ],
)
def test_improper_priors_are_refused(setting, named):
    made = design("y ~ x + (x | g)")
    message = (
        f"nothing can be drawn from the prior of {named}, which is flat; "
        "give a proper one with priors=, such as Normal or HalfNormal."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        prior_predictive(made, resolve(made, setting))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "`n` must be a positive whole number, got 0."),
        ({"n": 2.5}, "`n` must be a positive whole number, got 2.5."),
        (
            {"seed": -1},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1.",
        ),
        (
            {"seed": True},
            "`seed` must be None, a whole number from 0 on or a numpy Generator, got True.",
        ),
    ],
)
def test_settings_that_are_refused(options, message):
    made = design("y ~ 1")
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        prior_predictive(made, resolve(made), **options)


# Generalised models


KNOWN = {"sd": Constant(0.6), "Intercept": Constant(0.3), "x": Constant(0.02)}


def known_model(name, link=None, **own):
    """Return draws of the response under known parameters, and eta's mean and variance."""
    made = design("y ~ x + (1 | g) + (1 | h)").with_rows(weights=np.tile([1.0, 3.0, 5.0, 8.0], 10))
    family = find_family(name, link)
    setting = KNOWN | {parameter: Constant(value) for parameter, value in own.items()}
    priors = resolve(made, setting, family)
    y = prior_predictive(made, priors, n=N, seed=9, family=family)["prior_predictive"]["y"][0]
    return y.to_numpy(), made.rows.X @ [0.3, 0.02], made.rows.weights


def check_moments(y, mean, variance):
    """Within five standard errors; those of the variance from the draws themselves."""
    assert np.abs((y.mean(axis=0) - mean) / np.sqrt(variance / N)).max() < 5
    squares = (y - mean) ** 2
    assert np.abs((squares.mean(axis=0) - variance) / (squares.std(axis=0) / N**0.5)).max() < 5


@pytest.mark.parametrize(
    ("name", "own", "spread"),
    [
        ("poisson", {}, lambda mu, mu2, w: mu),  # noqa: ARG005
        ("negative_binomial", {"shape": 2.0}, lambda mu, mu2, w: mu + mu2 / 2),  # noqa: ARG005
        ("gamma", {"sigma": 0.5}, lambda mu, mu2, w: 0.25 * mu2 / w),  # noqa: ARG005
    ],
)
def test_moments_on_a_log_link_are_those_of_log_normal_means(name, own, spread):
    """mu = exp(eta), eta ~ N(m, 2 0.36): E mu^k = exp(k m + k^2 0.36)."""
    y, m, w = known_model(name, **own)
    mu, mu2 = np.exp(m + 0.36), np.exp(2 * m + 4 * 0.36)
    check_moments(y, mu, spread(mu, mu2, w) + mu2 - mu**2)


@pytest.mark.parametrize(("name", "own"), [("binomial", {}), ("beta", {"phi": 4.0})])
def test_moments_of_proportions_are_those_of_integrals_over_a_probit(name, own):
    """E Phi(eta) = Phi(m / sqrt(1 + v)); E Phi(eta)^2 is a bivariate normal probability."""
    y, m, w = known_model(name, "probit", **own)
    v = 0.72
    mean = stats.norm.cdf(m / np.sqrt(1 + v))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights /= weights.sum()
    square = stats.norm.cdf(m[:, None] + np.sqrt(v) * nodes) ** 2 @ weights
    size = 1 + own["phi"] if own else w
    check_moments(y, mean, (mean - square) / size + square - mean**2)
    if name == "binomial":
        np.testing.assert_allclose(y * w, np.round(y * w), atol=1e-9)


def test_moments_of_a_t_response():
    y, m, w = known_model("t", sigma=0.8, nu=9.0)
    check_moments(y, m, 0.64 / w * 9 / 7 + 0.72)


def test_the_tree_of_a_family_with_own_parameters():
    made, family = design("y ~ x + (1 | g)"), find_family("negative_binomial")
    priors = resolve(made, {"shape": Gamma(2, 0.1)}, family)
    tree = prior_predictive(made, priors, n=500, seed=1, family=family)
    prior = tree["prior"].to_dataset()
    assert (
        list(prior.data_vars) == list(variables(made, family)) == ["beta", "shape", "b_g", "sd_g"]
    )
    assert stats.kstest(prior["shape"].values[0], stats.gamma(2, scale=10).cdf).pvalue > 0.001
    draws = prior_draws(made, priors, 500, np.random.default_rng(1))
    np.testing.assert_array_equal(draws["shape"], prior["shape"].values[0])
    np.testing.assert_array_equal(draws["sigma"], np.ones(500))


def test_defaults_of_binary_data_spread_over_all_probabilities():
    """The intercept alone is 1.5 wide: a bit flatter than uniform in its middle."""
    data = small_data().assign(y=lambda d: (d["y"] > 10) * 1.0)
    made = design("y ~ 1", data)
    tree = prior_predictive(made, resolve(made, family=BINOMIAL), n=N, seed=2, family=BINOMIAL)
    p = 1 / (1 + np.exp(-tree["prior"]["beta"].values.ravel()))
    assert np.mean((p > 0.25) & (p < 0.75)) == pytest.approx(0.536, abs=0.02)
    y = tree["prior_predictive"]["y"].values
    assert set(np.unique(y)) == {0.0, 1.0}
    assert y.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_counts_too_large_to_be_drawn_are_drawn_smaller_and_scaled(name):
    """NumPy refuses Poisson means from 9.2e18 on."""
    family, rng = find_family(name), np.random.default_rng(3)
    psi = () if name == "poisson" else (np.full((2000, 1), 4.0),)
    eta = np.full((2000, 3), [np.log(1e15), np.log(1e25), 1e4])
    y = response(family, eta, np.ones(3), psi, rng)
    assert np.isfinite(y[:, :2]).all()
    for j, mu in enumerate([1e15, 1e25]):
        ratio = y[:, j] / mu
        if name == "poisson":
            np.testing.assert_allclose(ratio, 1.0, atol=1e-5)
        else:
            assert stats.kstest(ratio, stats.gamma(4, scale=1 / 4).cdf).pvalue > 0.001
    assert (y[:, 2] > 1e285).all()  # some may be infinite


def test_small_counts_are_drawn_as_they_are():
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    eta = np.array([[0.0, 5.0, -700.0, 20.0]])
    y = response(POISSON, eta, np.ones(4), (), rng)
    np.testing.assert_array_equal(y, other.poisson(np.exp(eta)))


@pytest.mark.parametrize("name", ["gamma", "inverse_gaussian", "beta", "binomial", "bernoulli"])
@pytest.mark.parametrize("end", [-800.0, 800.0])
def test_nothing_breaks_at_the_ends(name, end):
    family, rng = find_family(name), np.random.default_rng(4)
    psi = tuple(np.full((5, 1), 1.0) for _ in family.parameters)
    y = response(family, np.full((5, 3), end), np.ones(3), psi, rng)
    assert not np.isnan(y).any()
    if family.support != "positive":
        assert (np.abs(y - (end > 0)) < 1e-9).all()
    elif end < 0:
        assert (y < 1e-250).all()


def test_predictors_that_have_no_mean_are_counted():
    """An inverse link has a mean for positive eta only."""
    made, family = design("y ~ 1"), find_family("gamma", "inverse")
    priors = resolve(made, {"Intercept": Normal(0, 1)}, family)
    with pytest.warns(RanefWarning) as caught:
        tree = prior_predictive(made, priors, n=1000, seed=1, family=family)
    beta, y = tree["prior"]["beta"].values.ravel(), tree["prior_predictive"]["y"].values[0]
    below = (beta < 0).sum()
    assert 400 < below < 600
    np.testing.assert_array_equal(np.isnan(y), np.repeat(beta[:, None] < 0, 40, axis=1))
    message = (
        f"{below} of 1000 prior draws have linear predictors outside of the range of the inverse "
        f"link of a gamma mean, which makes {below / 1000:.1%} of the responses nan; narrower "
        "priors or another link avoid that."
    )
    assert [str(warning.message) for warning in caught] == [message]


def test_a_poisson_mean_on_the_identity_is_positive():
    family = find_family("poisson", "identity")
    eta = np.array([[-1.0, 2.0]])
    y = response(family, eta, np.ones(2), (), np.random.default_rng(1))
    assert np.isnan(y).tolist() == [[True, False]]
    roots = response(find_family("poisson", "sqrt"), eta, np.ones(2), (), np.random.default_rng(1))
    assert np.isfinite(roots).all()  # (-1)^2 is a mean
    linear = replace(BINOMIAL, link=GAUSSIAN.link)  # of a family of the user's
    y = response(linear, np.array([[-0.1, 0.5, 1.1]]), np.ones(3), (), np.random.default_rng(1))
    assert np.isnan(y).tolist() == [[True, False, True]]


def test_flat_parameters_of_a_family_are_named():
    made, family = design("y ~ 1"), find_family("t")
    priors = resolve(made, {"nu": Flat()}, family)
    message = (
        "nothing can be drawn from the prior of `nu`, which is flat; "
        "give a proper one with priors=, such as Normal or HalfNormal."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        prior_predictive(made, priors, family=family)
