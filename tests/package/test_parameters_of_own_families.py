"""Families of the user's own, whose parameters are of any kind and as many as the data ask for."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from nonlinear import central, direction
from pymc.model.transform.conditioning import remove_value_transforms
from scipy import integrate, special, stats

import ranef as rf
from ranef.families.family import OwnParameter
from ranef.likelihood.profile.search import generalized_surface
from ranef.posterior.generalized_posterior import joint_of

# ------------------------------------------------------------------------------ ordered classes
# A latent logistic variable around eta is cut at 0 and at the sums of gaps; -Intercept is the first
# threshold, as software without an intercept has it.


def _cuts(mu, gaps):
    return np.cumsum(np.array(np.broadcast_arrays(0 * mu, *gaps)), axis=0)


def cumulative_density(y, mu, w, *gaps):
    y, mu = np.broadcast_arrays(y, mu)
    none = np.full((1, *mu.shape), np.inf)
    edges = np.concatenate([-none, _cuts(mu, gaps) + 0 * mu, none])
    lower, upper = (
        np.take_along_axis(edges, y[None].astype(int) + side, axis=0)[0] - mu for side in (0, 1)
    )
    with np.errstate(all="ignore"):
        rest = np.log(-np.expm1(np.where(np.isfinite(lower), lower - upper, -np.inf)))
    return w * (special.log_expit(upper) + special.log_expit(-lower) + rest)


def cumulative_mean(mu, *gaps):
    return special.expit(mu - _cuts(mu, gaps)).sum(axis=0)


def cumulative_variance(mu, *gaps):
    above = special.expit(mu - _cuts(mu, gaps))
    odd = 2 * np.arange(len(above)).reshape(-1, *[1] * (above.ndim - 1)) + 1
    return (odd * above).sum(axis=0) - above.sum(axis=0) ** 2


def cumulative_draw(rng, mu, w, *gaps):  # noqa: ARG001
    return (mu + rng.logistic(size=np.shape(mu)) > _cuts(mu, gaps)).sum(axis=0).astype(float)


def cumulative_pymc(pm, name, link, eta, w, *gaps, observed, dims):  # noqa: ARG001
    cuts = pm.math.stack([0.0 * eta.sum(), *gaps]).cumsum()  # noqa: PD013
    return pm.OrderedLogistic(
        name, eta=eta, cutpoints=cuts, observed=observed.astype(int), compute_p=False, dims=dims
    )


def gaps_between(y):
    names = (f"gap_{j}" for j in range(2, int(y.max()) + 1))
    return tuple(OwnParameter(name, default=("Gamma", (2, 1)), start=1.0) for name in names)


CUMULATIVE = rf.Family(
    "cumulative",
    rf.links.IDENTITY,
    variance=cumulative_variance,
    log_density=cumulative_density,
    draw=cumulative_draw,
    pymc=cumulative_pymc,
    support="ordered",
    parameters_of=gaps_between,
    response_mean=cumulative_mean,
    latent_variance=math.pi**2 / 3,
)

# --------------------------------------------- parameters between 0 and 1, and of either sign


def inflated_density(y, mu, w, zeros):
    poisson = special.xlogy(y, mu) - mu - special.gammaln(y + 1)
    return w * np.where(
        y == 0, np.log(zeros + (1 - zeros) * np.exp(poisson)), np.log1p(-zeros) + poisson
    )


def inflated_mean(mu, zeros):
    return (1 - zeros) * mu


def inflated_variance(mu, zeros):
    return (1 - zeros) * mu * (1 + zeros * mu)


def inflated_draw(rng, mu, w, zeros):  # noqa: ARG001
    return rng.poisson(mu) * (rng.random(np.shape(mu)) > zeros).astype(float)


INFLATED = rf.Family(
    "zero_inflated",
    rf.links.LOG,
    variance=inflated_variance,
    log_density=inflated_density,
    draw=inflated_draw,
    support="counts",
    parameters=("zeros",),
    response_mean=inflated_mean,
    own_parameters=(OwnParameter("zeros", link=rf.links.LOGIT),),
)


def power_density(y, mu, w, sigma, power):
    s = sigma * mu**power / np.sqrt(w)
    return -0.5 * ((y - mu) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)


def power_variance(mu, sigma, power):  # noqa: ARG001
    return mu ** (2 * power)


def power_draw(rng, mu, w, sigma, power):
    return mu + sigma * mu**power / np.sqrt(w) * rng.normal(size=np.shape(mu))


POWER = rf.Family(
    "power",
    rf.links.LOG,
    variance=power_variance,
    log_density=power_density,
    draw=power_draw,
    parameters=("sigma", "power"),
    own_parameters=(OwnParameter("power", link=rf.links.IDENTITY),),
)
FAMILIES = {"cumulative": CUMULATIVE, "zero_inflated": INFLATED, "power": POWER}
TRUTH = {
    "cumulative": {"gap_2": 1.0, "gap_3": 1.5},
    "zero_inflated": {"zeros": 0.3},
    "power": {"sigma": 0.3, "power": 0.7},
}
every_family = pytest.mark.parametrize("name", FAMILIES)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    g, x = np.repeat(np.arange(25), 16), rng.normal(size=400)
    frame = pd.DataFrame({"g": g, "x": x})
    eta = 0.8 + 0.4 * x + rng.normal(0, 0.5, 25)[g]
    for name, family in FAMILIES.items():
        mu = family.link.inverse(eta)
        frame[name] = family.draw(rng, mu, np.ones(400), *TRUTH[name].values())
    return frame


@pytest.fixture(scope="module")
def model(data):
    return cache(lambda name: rf.Model(f"{name} ~ x + (1 | g)", data, family=FAMILIES[name]))


@pytest.fixture(scope="module")
def fit(model):
    return cache(lambda name: model(name).fit("ml"))


@every_family
def test_the_truth_is_within_four_standard_errors(fit, name):
    found = fit(name)
    assert list(found.parameters) == list(TRUTH[name])
    np.testing.assert_allclose(found.fixef(), [0.8, 0.4], atol=0.4)
    for own, value in TRUTH[name].items():
        assert found.parameters[own] == pytest.approx(value, rel=0.25)


@every_family
def test_the_likelihood_equals_dense_integration(model, fit, data, name):
    made, found = model(name), fit(name)
    sd, own = 0.6, dict(zip(found.parameters, [0.8, 1.2], strict=False))
    theta, beta = [sd / own.get("sigma", 1.0)], found.fixef().to_numpy()
    value = made.log_likelihood(theta, beta, parameters=own, n_agq=25)
    family, expected = made.family, 0.0
    nodes = np.linspace(-6 * sd, 6 * sd, 801)
    for _, rows in data.groupby("g"):
        eta = beta[0] + beta[1] * rows["x"].to_numpy() + nodes[:, None]
        log_f = family.log_density(
            rows[name].to_numpy(), family.link.inverse(eta), 1.0, *own.values()
        )
        logs = log_f.sum(axis=1) + stats.norm(0, sd).logpdf(nodes)
        expected += logs.max() + np.log(integrate.simpson(np.exp(logs - logs.max()), x=nodes))
    assert value == pytest.approx(expected, rel=1e-7)


@every_family
def test_the_users_gradient_equals_differences(model, fit, name):
    made, found = model(name), fit(name)
    beta, theta = found.fixef().to_numpy(), found.theta * 1.2
    own = np.array(list(found.parameters.values())) * 0.9

    def value(own):
        parameters = dict(zip(found.parameters, own, strict=True))
        return made.log_likelihood(theta, beta, parameters=parameters)

    slopes = made.log_likelihood_gradient(
        theta, beta, parameters=dict(zip(found.parameters, own, strict=True))
    )[-1]
    along = np.array([slopes[key] for key in found.parameters]) @ direction(own)
    assert along == pytest.approx(central(value, own), rel=1e-5)


@every_family
@pytest.mark.parametrize("priors", ["default", "flat"])
@pytest.mark.parametrize("natural", [False, True])
def test_the_gradient_of_the_posterior_equals_differences(model, name, priors, natural):
    made = model(name).with_priors(priors)
    joint = joint_of(made.design, made.family, made.priors)
    x = joint.start() + 0.1 * np.random.default_rng(2).normal(size=joint.space.d)
    slope = central(lambda x: joint(x, natural=natural)[0], x)
    assert joint(x, natural=natural)[1] @ direction(x) == pytest.approx(slope, rel=1e-5)


@every_family
def test_many_points_at_once_have_the_same_density(model, name):
    made = model(name)
    joint = joint_of(made.design, made.family, made.priors, 5)
    x = joint.start() + 0.05 * np.random.default_rng(3).normal(size=(3, joint.space.d))
    np.testing.assert_allclose(joint.log_density(x), [joint(one)[0] for one in x], rtol=1e-9)


@every_family
def test_flat_priors_of_own_parameters_give_the_maximum_of_the_likelihood(model, fit, name):
    flat = model(name).fit("map", priors="flat")
    assert flat.convergence.ok
    np.testing.assert_allclose(flat.fixef(), fit(name).fixef(), rtol=2e-4)
    for own, value in fit(name).parameters.items():
        assert flat.parameters[own] == pytest.approx(value, rel=2e-4)


@every_family
def test_own_parameters_are_profiled_through_their_links(model, fit, name):
    made, found = model(name), fit(name)
    surface = generalized_surface(found, made.engine.data.generalized)
    for i, own in enumerate(found.parameters):
        focus = surface.focus(2 + i, own)
        assert focus.scale.value(focus.w) == pytest.approx(found.parameters[own])
        deviance, slope, _ = focus.objective(focus.w + 0.1, focus.x)
        assert deviance > focus.objective(focus.w, focus.x)[0] == pytest.approx(-2 * found.loglik)
        h = 1e-4
        up, down = (focus.objective(focus.w + 0.1 + s * h, focus.x)[0] for s in (1, -1))
        assert slope == pytest.approx((up - down) / (2 * h), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The effective sample size")
@pytest.mark.parametrize("name", ["zero_inflated", "power"])
def test_a_posterior_by_laplace(model, fit, name):
    found, point = model(name).fit("laplace", draws=100, seed=1), fit(name)
    assert found.diagnostics.khat < 0.7
    np.testing.assert_allclose(found.fixef(), point.fixef(), atol=0.15)
    for own, value in point.parameters.items():
        assert found.parameters[own] == pytest.approx(value, rel=0.1)
    assert np.isfinite(found.predict()).all()
    y = np.asarray(found.simulate(3, seed=1))
    assert abs(y.mean() - np.mean(found.design.rows.y)) < 0.3


# ---------------------------------------------------------------------- ordered classes alone


@pytest.fixture(scope="module")
def wine():
    """Return the bitterness of wines, 1 to 5, by nine judges (Randall 1989)."""
    ratings = "23344455 12132354 23325544 32323253 23433333 32322454 11222323 22233334 12323244"
    return pd.DataFrame(
        {
            "rating": pd.Categorical(list(ratings.replace(" ", "")), ordered=True),
            "warm": np.tile([0, 0, 0, 0, 1, 1, 1, 1], 9),
            "contact": np.tile([0, 0, 1, 1], 18),
            "judge": np.repeat(np.arange(9), 8),
        }
    )


@pytest.fixture(scope="module")
def of_wine(wine):
    return rf.Model("rating ~ warm + contact + (1 | judge)", wine, family=CUMULATIVE)


def test_a_cumulative_logit_model_has_the_numbers_of_the_ordinal_package(of_wine):
    # ordinal 2023.12, `clmm2(rating ~ temp + contact, random = judge, nAGQ = 10)`: its vignette
    fit = of_wine.fit("ml", n_agq=10)
    assert fit.loglik == pytest.approx(-81.53247, abs=3e-5)
    np.testing.assert_allclose(fit.fixef()[["warm", "contact"]], [3.0619, 1.8334], atol=1e-4)
    np.testing.assert_allclose(fit.se()[["warm", "contact"]], [0.5951, 0.5122], atol=1e-4)
    thresholds = np.cumsum([-fit.fixef()["Intercept"], *fit.parameters.values()])
    np.testing.assert_allclose(thresholds, [-1.6236, 1.5133, 4.2285, 6.0888], atol=3e-3)
    assert fit.varcorr().sd["judge"].iloc[0] == pytest.approx(1.134887, abs=3e-4)


def test_ordered_classes_are_labels_or_whole_numbers(wine, of_wine):
    numbers = wine.assign(rating=10 * wine["rating"].astype(int))
    of_numbers = rf.Model("rating ~ warm + contact + (1 | judge)", numbers, family=CUMULATIVE)
    np.testing.assert_array_equal(of_numbers.design.rows.y, of_wine.design.rows.y)
    assert of_numbers.family == of_wine.family
    assert of_wine.family.parameters == ("gap_2", "gap_3", "gap_4")
    three = wine[wine["rating"].isin(["2", "3", "4"])]
    assert rf.Model(
        "rating ~ warm + (1 | judge)", three, family=of_wine.family
    ).family.parameters == ("gap_2",)
    with pytest.raises(rf.DataError, match=r"`rating` is not a whole number in 72 of 72 rows.*"):
        rf.Model("rating ~ warm", numbers.assign(rating=numbers["rating"] + 0.5), family=CUMULATIVE)


def test_two_ordered_classes_are_a_logistic_model(wine):
    two = wine.assign(rating=wine["rating"].astype(int) > 2)
    found, expected = (
        rf.Model("rating ~ warm + contact + (1 | judge)", two, family=family).fit("ml")
        for family in (CUMULATIVE, "bernoulli")
    )
    assert found.parameters == {}
    assert found.loglik == pytest.approx(expected.loglik, rel=1e-8)
    np.testing.assert_allclose(found.fixef(), expected.fixef(), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:The effective sample size")
def test_the_posterior_of_thresholds_holds_the_maximum(of_wine):
    wide = dict.fromkeys(of_wine.family.parameters, rf.priors.HalfNormal(10))
    wide |= {"beta": rf.priors.Normal(0, 10), "Intercept": rf.priors.Normal(0, 10)}
    posterior = of_wine.fit("laplace", draws=150, seed=1, priors=wide)
    fit = of_wine.fit("ml")
    for name in ("warm", "contact", *fit.parameters):
        lower, upper = posterior.hdi().loc[name]
        point = {**fit.fixef(), **fit.parameters}[name]
        assert lower < point < upper
    assert posterior.simulate(2, seed=1).shape == (72, 2)


def test_draws_from_the_prior_are_classes(of_wine):
    y = of_wine.prior_predictive(200, seed=1)["prior_predictive"]["y"].to_numpy()
    assert set(np.unique(y)) == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_pymc_has_the_same_density(of_wine):
    pm_model = remove_value_transforms(of_wine.to_pymc(centered=True))
    rng = np.random.default_rng(5)
    point = {"beta": rng.normal(size=3), "sd_judge": np.array([0.7])}
    point |= {name: np.array(rng.gamma(2)) for name in of_wine.family.parameters}
    point |= {"b_judge": rng.normal(size=(9, 1))}
    at = {v.name: point[v.name.removeprefix("at_mean_")] for v in pm_model.free_RVs}
    names = {"gap_2", "gap_3", "gap_4", "at_mean_beta", "b_judge"}
    likelihood = pm_model.compile_fn(pm_model.observedlogp, mode="FAST_COMPILE")
    value = float(likelihood({k: v for k, v in at.items() if k in names}))
    design = of_wine.design
    X = design.rows.X
    beta = point["beta"] if of_wine.priors.change is None else of_wine.priors.change @ point["beta"]
    eta = X @ beta + point["b_judge"][design.rows.terms[0].codes, 0]
    gaps = [point[name] for name in of_wine.family.parameters]
    expected = cumulative_density(design.rows.y, eta, 1.0, *gaps).sum()
    assert value == pytest.approx(expected, rel=1e-8)


# ------------------------------------------------------------------------------------- refusals


def test_a_parameter_that_cannot_be():
    with pytest.raises(rf.FitError, match="expected a Link: `identity`, `log` or `logit`"):
        OwnParameter("share", link=rf.links.PROBIT)
    message = "the parameter 'share' is a number between 0 and 1, and cannot start at 2.0."
    with pytest.raises(rf.FitError, match=message):
        OwnParameter("share", link=rf.links.LOGIT, start=2.0)


def test_priors_that_do_not_fit(data):
    def of(name, **priors):
        return rf.Model(f"{name} ~ x + (1 | g)", data, family=FAMILIES[name], priors=priors)

    with pytest.raises(rf.FitError, match="`zeros`, which is a number between 0 and 1; give a"):
        of("zero_inflated", zeros=rf.priors.Gamma(2, 1))
    with pytest.raises(rf.FitError, match="`zeros`, which is a number between 0 and 1; give a"):
        of("zero_inflated", zeros=rf.priors.Uniform(0, 2))
    with pytest.raises(rf.FitError, match="`gap_2`, which is a positive number; give a prior"):
        of("cumulative", gap_2=rf.priors.Normal(0, 1))
    priors = of("power", power=rf.priors.Normal(0, 1)).priors
    assert dict(priors.parameters)["power"] == rf.priors.Normal(0, 1)
    assert (
        str(of("zero_inflated", zeros=rf.priors.Uniform(0, 0.5)).priors.rows()[2].prior)
        == "Uniform(0, 0.5)"
    )


def test_values_that_a_parameter_cannot_have(model):
    made = model("zero_inflated")
    message = "`zeros` must be a number between 0 and 1, got 1.5."
    with pytest.raises(rf.FitError, match=message):
        made.log_likelihood([0.5], [0.8, 0.4], parameters={"zeros": 1.5})


def test_more_classes_change_the_parameters_alone(of_wine):
    assert of_wine.family == replace(
        CUMULATIVE,
        parameters=of_wine.family.parameters,
        own_parameters=gaps_between(of_wine.design.rows.y),
    )
