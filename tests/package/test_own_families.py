"""A family of the user's own goes where the families of the package go."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import special

import ranef as rf
from ranef.families.family import OwnParameter


def geometric_density(y, mu, w):
    with np.errstate(all="ignore"):
        L = w * (special.xlogy(y, mu) - (y + 1) * np.log1p(mu))
    return np.where((y >= 0) & (y == np.floor(y)), L, -np.inf)


def geometric_variance(mu):
    return mu + mu**2


def geometric_deviance(y, mu):
    return 2 * (special.rel_entr(y, mu) - (y + 1) * np.log1p((y - mu) / (mu + 1)))


def geometric_draw(rng, mu, w):  # noqa: ARG001
    return rng.geometric(1 / (1 + mu)).astype(float) - 1


def geometric_pymc(pm, name, link, eta, w, *, observed, dims):  # noqa: ARG001
    p = 1 / (1 + link.graph(pm, eta))
    return pm.Geometric(name, p=p, observed=observed.astype(int) + 1, dims=dims)


GEOMETRIC = rf.Family(
    "geometric",
    rf.links.LOG,
    variance=geometric_variance,
    log_density=geometric_density,
    deviance=geometric_deviance,
    draw=geometric_draw,
    support="counts",
    pymc=geometric_pymc,
    pins=("log",),
)


def logistic_density(y, mu, w, scale):
    z = np.abs(y - mu) / scale
    return w * (-np.log(scale) - z - 2 * np.log1p(np.exp(-z)))


def logistic_variance(mu, scale):
    return np.pi**2 / 3 * scale**2 * np.ones_like(mu)


LOGISTIC = rf.Family(
    "logistic",
    rf.links.IDENTITY,
    variance=logistic_variance,
    log_density=logistic_density,
    parameters=("scale",),
)


def chances(mu, gap):
    """Return the probabilities of three ordered classes: a latent logistic variable is cut."""
    low, high = special.expit(-mu), special.expit(gap - mu)
    return low, high - low, special.expit(mu - gap)


def cumulative_density(y, mu, w, gap):
    first, second, third = chances(mu, gap)
    return w * np.log(np.where(y == 0, first, np.where(y == 1, second, third)))


def cumulative_mean(mu, gap):
    _, second, third = chances(mu, gap)
    return second + 2 * third


def cumulative_variance(mu, gap):
    _, second, third = chances(mu, gap)
    return second + 4 * third - (second + 2 * third) ** 2


def cumulative_deviance(y, mu, gap):
    return -2 * cumulative_density(y, mu, 1.0, gap)


def cumulative_draw(rng, mu, w, gap):  # noqa: ARG001
    latent = mu + rng.logistic(size=np.shape(mu))
    return (latent > 0).astype(float) + (latent > gap)


CUMULATIVE = rf.Family(
    "cumulative",
    rf.links.IDENTITY,
    variance=cumulative_variance,
    log_density=cumulative_density,
    deviance=cumulative_deviance,
    draw=cumulative_draw,
    support="counts",
    parameters=("gap",),
    response_mean=cumulative_mean,
    latent_variance=math.pi**2 / 3,
    own_parameters=(
        OwnParameter("gap", default=("Gamma", (2, 1)), brms=("StudentT", (3, 0, 2.5))),
    ),
)
FAMILIES = {"geometric": GEOMETRIC, "logistic": LOGISTIC, "cumulative": CUMULATIVE}
every_family = pytest.mark.parametrize("name", FAMILIES)
drawn_families = pytest.mark.parametrize("name", ["geometric", "cumulative"])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(20), 15), rng.normal(size=300)
    eta = 0.5 + 0.4 * x + rng.normal(0, 0.5, 20)[g]
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "geometric": geometric_draw(rng, np.exp(eta), 1),
            "logistic": eta + rng.logistic(0, 0.5, 300),
            "cumulative": cumulative_draw(rng, eta, 1, 1.5),
        }
    )


def model(data, name, **changed):
    return rf.Model(f"{name} ~ x + (1 | g)", data, family=FAMILIES[name], **changed)


@pytest.fixture(scope="module")
def fitted(data):
    @cache
    def fit(name, method):
        seed = {"seed": 1} if method == "laplace" else {}
        return model(data, name).fit(method, **seed)

    return fit


@every_family
@pytest.mark.parametrize("method", ["ml", "map", "laplace"])
def test_estimates_are_near_the_truth(fitted, name, method):
    fit = fitted(name, method)
    np.testing.assert_allclose(fit.fixef(), [0.5, 0.4], atol=0.3)
    for kind in ("link", "response"):
        assert np.isfinite(fit.predict(kind=kind)).all()
    assert name in str(fit)
    assert "g" in str(fit.varcorr())


@every_family
def test_a_fit_travels(fitted, name):
    fit = fitted(name, "ml")
    again = pickle.loads(pickle.dumps(fit))
    assert again.family == FAMILIES[name]
    np.testing.assert_array_equal(again.predict(), fit.predict())


@drawn_families
def test_responses_are_drawn(data, fitted, name):
    tree = model(data, name).prior_predictive(50, seed=1)
    y = tree["prior_predictive"]["y"].to_numpy()
    assert np.isfinite(y).all()
    assert (y == np.floor(y)).all()
    for fit in (fitted(name, "ml"), fitted(name, "laplace")):
        simulated = np.asarray(fit.simulate(5, seed=1))
        assert abs(simulated.mean() - data[name].mean()) < 0.3 * data[name].mean()


@drawn_families
def test_residuals_and_shares_of_variance(fitted, name):
    fit = fitted(name, "ml")
    for kind in ("response", "pearson", "deviance"):
        assert abs(fit.residuals(kind).mean()) < 0.5
    assert 0 < fit.icc().frame.loc["adjusted", "estimate"] < 0.5
    assert 0 < fit.r2().frame.loc["marginal", "estimate"] < 0.5


def test_the_mean_of_a_latent_variables_classes(data, fitted):
    fit = fitted("cumulative", "ml")
    expected = cumulative_mean(fit.predict(kind="link"), fit.parameters["gap"])
    np.testing.assert_allclose(fit.predict(), expected)
    assert abs(fit.predict().mean() - data["cumulative"].mean()) < 0.02
    posterior = fitted("cumulative", "laplace")
    np.testing.assert_allclose(posterior.predict(), fit.predict(), atol=0.1)


def test_two_classes_of_a_latent_variable_are_a_logistic_model(data):
    data = data.assign(y=(data["cumulative"] > 0).astype(float))
    two = replace(
        CUMULATIVE, parameters=(), own_parameters=(), log_density=two_classes, response_mean=chance
    )
    two = replace(two, variance=chance_variance)
    found = rf.Model("y ~ x + (1 | g)", data, family=two).fit("ml")
    expected = rf.Model("y ~ x + (1 | g)", data, family="bernoulli").fit("ml")
    np.testing.assert_allclose(found.fixef(), expected.fixef(), rtol=1e-5)
    np.testing.assert_allclose(found.predict(), expected.predict(), rtol=1e-4)
    for table in ("icc", "r2"):
        one, other = (getattr(fit, table)().frame["estimate"] for fit in (found, expected))
        np.testing.assert_allclose(one, other, rtol=1e-4)


def two_classes(y, mu, w):
    return w * np.where(y == 0, special.log_expit(-mu), special.log_expit(mu))


def chance(mu):
    return special.expit(mu)


def chance_variance(mu):
    return special.expit(mu) * special.expit(-mu)


def test_default_priors_are_those_that_the_family_has(data):
    rows = {row.parameter: str(row.prior) for row in model(data, "cumulative").priors.rows()}
    assert rows["gap"] == "Gamma(2, 1)"
    assert rows["sd_g"] == "HalfNormal(1)"
    rows = {row.parameter: str(row.prior) for row in model(data, "logistic").priors.rows()}
    assert rows["scale"] == "LogNormal(0, 2.5)"
    with pytest.raises(rf.FitError, match='"rstanarm" has no prior for `gap`'):
        model(data, "cumulative", priors="rstanarm")
    unknown = replace(CUMULATIVE, own_parameters=(OwnParameter("gap", default=("Gama", (2, 1))),))
    with pytest.raises(rf.FitError, match=r"a prior called 'Gama'\. Did you mean `Gamma`"):
        rf.Model("cumulative ~ x + (1 | g)", data, family=unknown)


def test_flat_priors_where_the_family_says_that_rows_pin_the_predictor_down(data):
    flat = {"x": rf.priors.Flat()}
    model(data, "geometric", priors=flat).fit("laplace", seed=1)
    with pytest.raises(rf.FitError, match="cannot be used in a logistic model with identity link"):
        model(data, "logistic", priors=flat).fit("laplace", seed=1)


def test_pymc_has_the_same_density(data):
    pytest.importorskip("pymc")
    made = model(data, "geometric").to_pymc()
    assert "y" in made.named_vars


def test_what_is_missing_is_named_where_it_is_needed(data, fitted):
    asked, fit = model(data, "logistic"), fitted("logistic", "ml")
    message = (
        "this needs `draw`, which the logistic family does not have: make it with a function "
        "draw(rng, mu, w, *psi)."
    )
    for call in (lambda: asked.prior_predictive(5), lambda: fit.simulate(2, seed=1)):
        with pytest.raises(rf.FitError) as caught:
            call()
        assert str(caught.value) == message
    with pytest.raises(rf.FitError, match="this needs `deviance`, which the logistic family"):
        fit.residuals("deviance")
    with pytest.raises(rf.FitError, match="cannot be sampled with PyMC: give it `pymc`"):
        asked.to_pymc()
    no_latent = replace(CUMULATIVE, latent_variance=None)
    found = rf.Model("cumulative ~ x + (1 | g)", data, family=no_latent).fit("ml")
    with pytest.raises(rf.FitError, match="make it with a `latent_variance`"):
        found.icc()


@pytest.mark.parametrize("field", ["expand", "response_mean", "draw", "log_density"])
def test_a_field_that_is_no_function(field):
    with pytest.raises(rf.FitError, match=f"the geometric family has {field}=3, not a function."):
        replace(GEOMETRIC, **{field: 3})


def test_a_link_of_ones_own_with_a_latent_variable(data):
    data = data.assign(y=(data["cumulative"] > 0).astype(float))
    logit = rf.links.LOGIT
    own = rf.Link("own", logit.link, logit.inverse, latent_variance=logit.latent_variance)
    found, expected = (
        rf.Model("y ~ x + (1 | g)", data, family="bernoulli", link=link).fit("ml")
        for link in (own, logit)
    )
    one, other = (fit.icc().frame["estimate"] for fit in (found, expected))
    np.testing.assert_allclose(one, other, rtol=1e-4)
    unknown = rf.Model(
        "y ~ x + (1 | g)", data, family="bernoulli", link=replace(own, latent_variance=None)
    )
    with pytest.raises(rf.FitError, match="the latent variable of the own link has no variance"):
        unknown.fit("ml").icc()
