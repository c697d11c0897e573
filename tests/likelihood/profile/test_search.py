"""Profile likelihoods: against lme4, closed forms, dense brute force and finite differences."""

from __future__ import annotations

import json
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from designs import random_frame
from profile_cases import generalised, profile, small
from reference_cases import REFERENCE, python_formula
from scipy import optimize, stats

import ranef as rf
from ranef.errors import Convergence, FitError
from ranef.likelihood.profile.constrained import Focus
from ranef.likelihood.profile.search import _curve

Q = stats.chi2.ppf(0.95, 1)


REFERENCES = json.loads((REFERENCE / "profiles.json").read_text())


# ---------------------------------------------------------------------------------- lme4


def case_of(name):
    (found,) = [case for case in REFERENCES["cases"] if case["id"] == name]
    folder = found.get("data_dir", REFERENCES["meta"]["data_dir"])
    return found | {"folder": REFERENCE / folder}


def fit_of_case(case, **options):
    labels = {name: list(own) for name, own in case["levels"].items()}
    path, texts = case["folder"] / case["data"], dict.fromkeys(labels, str)
    data = pd.read_csv(path, dtype=texts).iloc[: case.get("rows")]
    data = data.assign(**{name: pd.Categorical(data[name], own) for name, own in labels.items()})
    kind = {} if case["family"] == "gaussian" else {"family": case["family"], "link": case["link"]}
    extra = {key: case.get(key) for key in ("weights", "offset")}
    model = rf.Model(python_formula(case), data, **kind, **extra)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        return model.fit("ml", **options)


def as_r_writes(name):
    """Return a name without the marks of a level: `Machine[T.B]` is MachineB."""
    kind, bracket, inside = name.partition("[")
    if kind.startswith(("sd_", "corr_")):
        return kind + bracket + as_r_writes(inside[:-1]) + "]"
    return name.replace("[T.", "").replace("[", "").replace("]", "")


@pytest.mark.parametrize("name", [case["id"] for case in REFERENCES["cases"]])
def test_intervals_are_those_of_lme4s_deviance(name):
    case = case_of(name)
    fit = fit_of_case(case, **({} if case["family"] == "gaussian" else {"n_agq": case["nAGQ"]}))
    found = profile(fit, prob=0.95)
    limits = found.confint().rename(index=as_r_writes)
    assert set(limits.index) == {one["parameter"] for one in case["intervals"]}
    for one in case["intervals"]:
        lower, upper = limits.loc[one["parameter"]]
        width = one["exact"][1] - one["exact"][0]
        np.testing.assert_allclose([lower, upper], one["exact"], rtol=2e-6, atol=2e-5 * width)


# --------------------------------------------------------------------------- closed forms


@cache
def plain():
    return rf.Model("y ~ x * f", random_frame(np.random.default_rng(1), 40), weights="w")


@pytest.mark.parametrize("prob", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_a_linear_model_has_intervals_in_closed_form(prob):
    fit = plain().fit("reml")
    n, p = fit.design.rows.X.shape
    cutoff = stats.chi2.ppf(prob, 1)
    found = profile(fit).confint(prob)
    half = np.sqrt((n - p) * np.expm1(cutoff / n)) * fit.se()
    np.testing.assert_allclose(found["lower"][:p], fit.fixef() - half, rtol=1e-7, atol=1e-4)
    np.testing.assert_allclose(found["upper"][:p], fit.fixef() + half, rtol=1e-7, atol=1e-4)
    sigma = plain().fit("ml").sigma
    for limit in found.loc["sigma"]:
        rise = n * (np.log(limit**2 / sigma**2) + sigma**2 / limit**2 - 1)
        assert rise == pytest.approx(cutoff, rel=2e-5)


@cache
def one_way(J=8, m=4):
    rng = np.random.default_rng(3)
    y = 10 + 2 * rng.normal(size=(J, 1)) + 1.5 * rng.normal(size=(J, m))
    return y, rf.Model(
        "y ~ 1 + (1 | g)", pd.DataFrame({"y": y.ravel(), "g": np.arange(J).repeat(m)})
    )


def one_way_deviance(y, mean, sigma, sd):
    """The likelihood of a balanced one-way layout is that of its two sums of squares."""
    J, m = y.shape
    within = ((y - y.mean(1, keepdims=True)) ** 2).sum()
    between = m * ((y.mean(1) - mean) ** 2).sum()
    ahead = sigma**2 + m * sd**2
    constant = J * m * np.log(2 * np.pi)
    return (
        constant
        + J * ((m - 1) * np.log(sigma**2) + np.log(ahead))
        + within / sigma**2
        + between / ahead
    )


def test_a_balanced_one_way_layout_has_its_profiles_in_closed_form():
    y, model = one_way()
    m = y.shape[1]
    found = profile(model.fit("ml"))
    grid = np.geomspace(0.05, 50, 200_001)
    for prob in (0.9, 0.95, 0.99):
        limits, cutoff = found.confint(prob), stats.chi2.ppf(prob, 1)
        for sigma in limits.loc["sigma"]:  # sigma^2 + m sd^2 is free, from sigma^2 on
            ahead = max(m * y.mean(1).var(), sigma**2)
            least = one_way_deviance(y, y.mean(), sigma, np.sqrt((ahead - sigma**2) / m))
            assert least - found.deviance == pytest.approx(cutoff, rel=2e-5)
        for sd in limits.loc["sd_g[Intercept]"]:
            least = one_way_deviance(y, y.mean(), grid, sd).min()
            assert least - found.deviance == pytest.approx(cutoff, rel=2e-5)
        sigma = np.sqrt(y.var(axis=1).mean() * m / (m - 1))
        for mean in limits.loc["Intercept"]:
            ahead = m * ((y.mean(1) - mean) ** 2).mean()
            assert ahead > sigma**2
            least = one_way_deviance(y, mean, sigma, np.sqrt((ahead - sigma**2) / m))
            assert least - found.deviance == pytest.approx(cutoff, rel=2e-5)


def test_an_sd_of_zero_is_a_node_with_the_deviance_of_the_model_without_it():
    data = rf.load_dataset("Dyestuff")
    found = profile(rf.fit("Yield ~ 1 + (1 | Batch)", data, method="ml"), "sd_Batch[Intercept]")
    first = found.table.iloc[0]
    assert first["value"] == 0
    assert first["deviance"] == pytest.approx(rf.fit("Yield ~ 1", data, method="ml").objective)
    assert first["zeta"] == pytest.approx(-2.3244, abs=1e-4)  # lme4's profile


# ---------------------------------------------------------------------------- brute force


def dense_deviance(fit, values):
    """Return the deviance at values of all parameters, from the n x n covariance matrix of y."""
    design = fit.design
    V = values["sigma"] ** 2 * np.diag(1 / design.rows.weights)
    for term in design.terms:
        sd = np.array([values[f"sd_{term.label}[{c}]"] for c in term.coefs])
        corr = np.eye(len(sd))
        if len(sd) == 2 and term.covariance.has_correlations:
            name = f"corr_{term.label}[{term.coefs[0]}, {term.coefs[1]}]"
            corr[0, 1] = corr[1, 0] = values[name]
        same = design.rows.term(term.label).codes[:, None] == design.rows.term(term.label).codes
        V = V + same * (
            design.rows.term(term.label).columns
            @ (corr * np.outer(sd, sd))
            @ design.rows.term(term.label).columns.T
        )
    left = (
        design.rows.y - design.rows.offset - design.rows.X @ [values[name] for name in design.fixed]
    )
    L = np.linalg.cholesky(V)
    half = np.linalg.solve(L, left)
    return len(left) * np.log(2 * np.pi) + 2 * np.log(np.diag(L)).sum() + half @ half


def brute_force(fit, name, value):
    """Minimise the dense deviance over all parameters but one, in coordinates without bounds."""
    start = fit.estimates()
    free = [other for other in start.index if other != name]

    def values(z):
        found = {name: value}
        for other, one in zip(free, z, strict=True):
            is_sd = other == "sigma" or other.startswith("sd_")
            found[other] = one**2 if is_sd else np.sin(one) if other.startswith("corr_") else one
        return found

    x0 = [
        np.sqrt(start[o]) if o == "sigma" or o.startswith("sd_")
        else np.arcsin(start[o]) if o.startswith("corr_") else start[o]
        for o in free
    ]  # fmt: skip

    def minimised(z):
        return optimize.minimize(lambda z: dense_deviance(fit, values(z)), z, method="BFGS")

    found = [minimised(np.array(x0)), minimised(np.array(x0) + 0.3)]
    return minimised(min(found, key=lambda one: one.fun).x).fun


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("correlated slope", ("x", "sd_c[Intercept]", "sd_c[x]", "corr_c[Intercept, x]")),
        ("two terms of one factor", ("sigma", "sd_c[Intercept]", "sd_c_1[x]")),
        ("crossed slopes", ("Intercept", "sd_c[x]", "sd_i[Intercept]")),
    ],
)
def test_limits_are_where_brute_force_finds_the_cutoff(kind, names):
    fit = small(kind)
    found = profile(fit, names)
    inside = 0
    for name, limits in found.confint().iterrows():
        for limit in limits:
            if limit in (-1, 0, 1):
                continue
            inside += 1
            rise = brute_force(fit, name, limit) - fit.objective
            assert rise == pytest.approx(Q, abs=2e-3)
    assert inside >= len(names)


def test_a_generalised_linear_model_has_the_profile_of_its_likelihood():
    data = pd.read_csv(REFERENCE / "data" / "glmm_groups.csv")
    fit = rf.fit("count ~ x + z", data, family="poisson")
    X, y = fit.design.rows.X, data["count"].to_numpy()

    def rise(j, value):
        others = np.delete(np.arange(3), j)

        def deviance(b):
            eta = X[:, others] @ b + X[:, j] * value
            slope = -2 * X[:, others].T @ (y - np.exp(eta))
            return -2 * stats.poisson.logpmf(y, np.exp(eta)).sum(), slope

        start = fit.fixef().to_numpy()[others]
        return optimize.minimize(deviance, start, jac=True, tol=1e-12).fun - fit.objective

    limits = profile(fit).confint()
    for j, name in enumerate(fit.design.fixed):
        for limit in limits.loc[name]:
            assert rise(j, limit) == pytest.approx(Q, abs=1e-5)


# ------------------------------------------------------------------- the coordinates


# ----------------------------------------------------------------------- invariances, edges


def test_units_and_origin_of_a_predictor_do_not_matter():
    data = rf.load_dataset("sleepstudy")
    there = data.assign(Days=1000 * data["Days"] + 2e6)
    names = ("sigma", "sd_Subject[Days]")
    first, second = (
        profile(rf.fit("Reaction ~ Days + (Days | Subject)", d, method="ml"), names).confint()
        for d in (data, there)
    )
    np.testing.assert_allclose(first.loc["sigma"], second.loc["sigma"], rtol=1e-5)
    np.testing.assert_allclose(first.loc[names[1]], 1000 * second.loc[names[1]], rtol=1e-5)


def test_a_reml_fit_is_profiled_by_ml_and_says_so():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    reml, ml = profile(model.fit("reml")), profile(model.fit("ml"))
    pd.testing.assert_frame_equal(reml.confint(), ml.confint())
    assert reml.estimates["sigma"] == pytest.approx(model.fit("ml").sigma)
    assert reml.notes[0] == (
        "The likelihood is profiled, not the REML criterion: the estimates are those by ML."
    )
    (note,) = ml.notes
    assert note == (
        "sd_Batch[Intercept]: intervals of more than 98 % end at 0, which the likelihood does not "
        "exclude."
    )


def test_an_engine_profiles_as_its_likelihood_does():
    fit = one_way()[1].fit("ml")
    pd.testing.assert_frame_equal(fit.profile().table, profile(fit).table)


def test_an_sd_estimated_as_zero_has_a_profile_on_one_side():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"), method="ml")
    found = profile(fit, "sd_Batch[Intercept]")
    lower, upper = found.confint().iloc[0]
    assert (lower, round(upper, 4)) == (0.0, 2.084)  # lme4: 0, 2.08404
    assert (found.table["zeta"] >= 0).all()
    assert found.notes == [
        "sd_Batch[Intercept]: all intervals end at 0, which the likelihood does not exclude."
    ]


def test_another_variance_may_leave_zero_on_the_way():
    """Away from its estimate the mean leaves something for the variance that is zero there."""
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"), method="ml")
    y = np.array([g["Yield"] for _, g in rf.load_dataset("Dyestuff2").groupby("Batch")])
    sigma, sd = np.meshgrid(np.linspace(3, 5, 801), np.linspace(0, 3, 601))
    for mean in profile(fit, "Intercept").confint().iloc[0]:
        least = one_way_deviance(y, mean, sigma, sd)
        assert np.unravel_index(least.argmin(), least.shape)[0] > 0
        assert least.min() - fit.objective == pytest.approx(Q, abs=1e-3)


def test_a_parameter_that_may_be_infinite_has_no_end():
    fit = generalised("t ~ x + (1 | g)", "t")
    found = profile(fit, "nu")
    lower, upper = found.confint().iloc[0]
    assert 1 < lower < fit.parameters["nu"]
    assert upper == np.inf
    assert found.table["value"].max() < 1e9
    assert found.notes[0].endswith(" % end at inf, which the likelihood does not exclude.")


def test_an_unconverged_fit_and_a_better_maximum_are_told():
    from dataclasses import replace

    fit = one_way()[1].fit("ml")
    worse = replace(fit.estimate, sigma=1.2 * fit.sigma, convergence=Convergence.STALLED)
    found = profile(rf.PointFit(fit.design, fit.family, "ml", worse))
    assert found.notes[0] == Convergence.STALLED.value
    assert found.notes[1].startswith("The likelihood has another, higher maximum: a deviance ")
    assert found.notes[1].endswith(
        "was found on the way. The estimates and these intervals are not to be relied on."
    )


def test_names_and_titles():
    fit = generalised("nb ~ x + (1 | g) + (1 | h)", "negative_binomial")
    found = profile(fit, "shape")
    assert list(found.curves) == ["shape"]
    assert found.title == "Profile likelihood (Laplace approximation)"
    assert profile(one_way()[1].fit("ml"), ["sigma", "Intercept"]).title == "Profile likelihood"


def test_what_has_no_profile_is_refused():
    fit = one_way()[1].fit("ml")
    with pytest.raises(FitError) as error:
        profile(fit, "sigmo")
    assert str(error.value) == "there is no parameter 'sigmo'. Did you mean `sigma`?"
    with pytest.raises(FitError, match="`prob` must lie between 0 and 1"):
        profile(fit, prob=95)
    with pytest.raises(FitError) as error:
        profile(one_way()[1].fit("map", priors="boundary"))
    assert str(error.value) == (
        "a fit by 'map' has no profile likelihood: what it rests on is not the likelihood alone. "
        'Profile the fit by method="ml".'
    )
    with pytest.raises(FitError) as error:
        profile(generalised("count ~ x + (1 | g)", "poisson", 0))
    assert str(error.value) == (
        "the estimates of n_agq=0 do not maximise the likelihood, so that it has no profile around "
        "them. Fit with n_agq=1, the default."
    )


def test_a_step_that_went_too_far_is_halved():
    """Flat at the estimate and steep beyond: the first step passes the cutoff by far."""

    def objective(w, x):
        return 1e4 * w**8, 8e4 * w**7, 0 * x

    curve, _ = _curve(Focus("a", objective, 0.0, np.empty(0)), 2.6)
    for prob in (0.5, 0.8, 0.95):
        cutoff = stats.norm.ppf((1 + prob) / 2)
        assert curve.limits(cutoff)[1] == pytest.approx((cutoff**2 / 1e4) ** (1 / 8), rel=2e-3)
