"""Shares of variance against R's performance, closed forms, simulation and row-by-row sums."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from reference_cases import REFERENCE, python_formula, read_frame
from scipy import special, stats

import ranef as rf
from fits import fit_of, frame, known_posterior, model_of
from ranef.families.names import find_family
from ranef.fits.fitted import Numbers
from ranef.fits.reports.icc_and_r2 import (
    average_response,
    bayes_r2,
    icc,
    observation_variance,
    ordinary_r2,
    r2,
    variances,
)
from ranef.posterior.draws import hdi

CASES = {
    case["id"]: case | {"folder": REFERENCE / case["data_dir"]}
    for case in json.loads((REFERENCE / "explained.json").read_text())["cases"]
}
LOG = "Residual variance on the log scale: by the {} method at the model's mean response"


@cache
def design_of(name):
    case = CASES[name]
    data = read_frame(case)
    data["row"] = np.arange(len(data))
    options = {key: case.get(key) for key in ("weights", "offset", "family", "link")}
    model = rf.Model(python_formula(case), data, **options)
    return model.design, model.family


def numbers_in_r(name):
    case = CASES[name]
    covs = tuple(np.array(cov, dtype=float) for cov in case["covs"])
    own = {"sigma": case["sigma"], "shape": case.get("shape")}
    return Numbers(np.array(case["beta"]), covs, own)


def at_estimates_of_r(name, **options):
    design, family = design_of(name)
    return variances(design, family, numbers_in_r(name), mean=CASES[name].get("mean"), **options)


# -------------------------------------------------------------------------------- against R


@pytest.mark.parametrize("name", [n for n in CASES if n != "sleepstudy_double_bar"])
def test_as_performance(name):
    case = CASES[name]
    found = at_estimates_of_r(name, approximation="delta" if name == "gamma_log" else "lognormal")
    residual = case["var_residual"]
    assert found.fixed == pytest.approx(case["var_fixed"], rel=1e-9, abs=1e-12)
    assert found.all_random == pytest.approx(case["var_random"], rel=1e-9)
    if name == "groups_weights":  # performance takes no notice of weights
        residual *= np.mean(1 / design_of(name)[0].rows.weights)
        assert found.residual == pytest.approx(residual, rel=1e-12)
        return
    assert found.residual == pytest.approx(residual, rel=1e-9)
    assert icc(found)["adjusted"] == pytest.approx(case["icc_adjusted"], rel=1e-9)
    assert icc(found)["unadjusted"] == pytest.approx(case["icc_unadjusted"], rel=1e-9)
    assert r2(found)["marginal"] == pytest.approx(case["r2_marginal"], rel=1e-9)
    assert r2(found)["conditional"] == pytest.approx(case["r2_conditional"], rel=1e-9)


@pytest.mark.parametrize("name", ["pastes_nested", "penicillin", "poisson_crossed", "cbpp_probit"])
def test_by_factor_as_performance(name):
    found = icc(at_estimates_of_r(name))
    for factor, value in CASES[name]["by_group"].items():
        own = factor if factor in found else ":".join(reversed(factor.split(":")))
        assert found[own] == pytest.approx(value, rel=1e-9)


def test_two_terms_of_one_factor():
    """Their variances add up, which performance leaves out."""
    case = CASES["sleepstudy_double_bar"]
    design, family = design_of("sleepstudy_double_bar")
    cov = np.diag([np.array(cov).item() for cov in case["covs"]])
    numbers = Numbers(np.array(case["beta"]), (cov,), {"sigma": case["sigma"]})
    found = variances(design, family, numbers)
    days = rf.load_dataset("sleepstudy")["Days"]
    slope = cov[1, 1] * np.mean(days**2)
    assert list(found.random) == ["Subject"]
    assert found.random["Subject"] == pytest.approx(case["var_random"] + slope, rel=1e-9)


def test_two_terms_are_as_one_that_is_diagonal():
    beta, covs = np.array([1.0, 0.5]), (np.array([[2.0]]), np.array([[3.0]]))
    two, one = model_of("two terms of one factor"), model_of("independent slopes")
    apart = covs if two.design.terms[0].coefs == ("Intercept",) else covs[::-1]
    parts = variances(two.design, two.family, Numbers(beta, apart, {"sigma": 1.0}))
    whole = variances(one.design, one.family, Numbers(beta, (np.diag([2.0, 3]),), {"sigma": 1.0}))
    assert list(parts.random) == list(whole.random) == ["g"]
    assert parts.random["g"] == pytest.approx(whole.random["g"], rel=1e-12)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Reaction ~ Days + (Days | Subject)", (0.721658475853, 0.520566873981, 0.2786520336)),
        ("Reaction ~ Days + (1 | Subject)", (0.589308916076, 0.424369814604, 0.2798856372)),
    ],
)
def test_tables_of_a_fit(formula, expected):
    fit = rf.Model(formula, rf.load_dataset("sleepstudy")).fit()
    found, shares = fit.icc().frame, fit.r2().frame
    assert list(found.index) == ["adjusted", "unadjusted", "Subject"]
    assert list(shares.index) == ["marginal", "conditional"]
    assert list(found.columns) == list(shares.columns) == ["estimate"]
    values = [found.loc["adjusted"].item(), found.loc["unadjusted"].item()]
    values.append(shares.loc["marginal"].item())
    np.testing.assert_allclose(values, expected, rtol=1e-8)
    assert found.loc["Subject"].item() == found.loc["adjusted"].item()


# ------------------------------------------------------------- the variance of observations


@pytest.mark.parametrize("approximation", ["lognormal", "delta", "trigamma"])
@pytest.mark.parametrize(
    ("family", "own", "v"),
    [
        ("poisson", {}, 1 / 3),
        ("negative_binomial", {"shape": 2.0}, 1 / 3 + 1 / 2),
        ("gamma", {"sigma": 0.7}, 0.49),
        ("inverse_gaussian", {"sigma": 0.7}, 0.49 * 3),
    ],
)
def test_log_link(approximation, family, own, v):
    """Nakagawa, Johnson & Schielzeth (2017), table 2; v is the squared coefficient of variation."""
    formulas = {"lognormal": np.log(1 + v), "delta": v, "trigamma": special.polygamma(1, 1 / v)}
    design, numbers = model_of("one factor").design, Numbers(np.zeros(2), (), own)
    options = {"approximation": approximation, "mean": 3.0}
    found = observation_variance(design, find_family(family), numbers, **options)
    assert found == pytest.approx(formulas[approximation], rel=1e-12)


def test_trigamma_is_the_variance_of_a_log_gamma_variable():
    design, numbers = model_of("one factor").design, Numbers(np.zeros(2), (), {"sigma": 0.7})
    family = find_family("gamma")
    found = observation_variance(design, family, numbers, approximation="trigamma", mean=5.0)
    assert found == pytest.approx(stats.loggamma(1 / 0.49).var(), rel=1e-9)


@pytest.mark.parametrize(
    ("family", "link", "own", "expected"),
    [
        ("bernoulli", "logit", {}, stats.logistic.var()),
        ("binomial", "probit", {}, stats.norm.var()),
        ("binomial", "cloglog", {}, stats.gumbel_l.var()),
        ("poisson", "sqrt", {}, 1 / 4),
        ("poisson", "identity", {}, 0.3),
        ("gamma", "inverse", {"sigma": 0.5}, 0.25 / 0.3**2),
        ("gamma", "identity", {"sigma": 0.5}, 0.25 * 0.3**2),
        ("beta", "logit", {"phi": 4.0}, 1 / (5 * 0.3 * 0.7)),
        ("t", "identity", {"sigma": 2.0, "nu": 6.0}, 4 * 6 / 4),
        ("gaussian", "identity", {"sigma": 2.0}, 4.0),
    ],
)
def test_other_links(family, link, own, expected):
    design, numbers = model_of("one factor").design, Numbers(np.zeros(2), (), own)
    found = observation_variance(design, find_family(family, link), numbers, mean=0.3)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("link", "slope"), [("logit", 0.21), ("probit", stats.norm.pdf(stats.norm.ppf(0.3)))]
)
def test_one_trial_by_the_delta_method(link, slope):
    design, numbers = model_of("one factor").design, Numbers(np.zeros(2), (), {})
    family = find_family("binomial", link)
    found = observation_variance(design, family, numbers, approximation="delta", mean=0.3)
    assert found == pytest.approx(0.21 / slope**2, rel=1e-9)


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_unit_of_weights_does_not_matter(factor):
    data = frame().assign(w=factor * frame()["w"])
    shares = rf.Model("y ~ x + (x | g)", data, weights="w").fit().r2().frame["estimate"]
    numbers = rf.Model("y ~ x + (x | g)", frame(), weights="w").fit()._numbers()
    noise = np.mean(numbers.parameters["sigma"] ** 2 / data["w"] * factor)
    fixed = np.var(data["x"], ddof=1) * numbers.beta[1] ** 2
    z = np.column_stack([np.ones(240), data["x"]])
    random = np.mean([row @ numbers.covs[0] @ row for row in z])
    expected = np.array([fixed, fixed + random]) / (fixed + random + noise)
    np.testing.assert_allclose(shares, expected, rtol=1e-5)


def test_mean_response_by_simulation():
    """Of new groups, with a log link; exact for a normal linear predictor."""
    model = rf.Model("n ~ x + (x | g)", frame().assign(n=1), family="poisson")
    cov = np.array([[0.3, 0.1], [0.1, 0.2]])
    numbers = Numbers(np.array([0.5, 0.4]), (cov,), {})
    found = average_response(model.design, model.family, numbers)
    rng = np.random.default_rng(1)
    b = rng.multivariate_normal([0.5, 0.4], cov, size=40_000)
    simulated = np.exp(b @ model.design.rows.X.T).mean()
    assert found == pytest.approx(simulated, rel=0.02)
    both = Numbers(np.stack([numbers.beta, [0, 0.1]]), (np.stack([cov, 0 * cov]),), {})
    two = average_response(model.design, model.family, both)
    assert two[0] == pytest.approx(found, rel=1e-12)
    assert two[1] == pytest.approx(np.exp(0.1 * frame()["x"]).mean(), rel=1e-12)


def test_default_mean_is_that_of_the_model():
    """And for a null model Nakagawa's exp(beta + variance / 2)."""
    data = pd.DataFrame({"n": np.random.default_rng(1).poisson(4, 240), "g": frame()["g"]})
    model = rf.Model("n ~ 1 + (1 | g)", data, family="poisson")
    numbers = Numbers(np.array([1.2]), (np.array([[0.5]]),), {})
    found = variances(model.design, model.family, numbers)
    assert found.residual == pytest.approx(np.log(1 + 1 / np.exp(1.45)), rel=1e-12)


# ---------------------------------------------------------------------------------- posteriors


def test_draws_are_done_one_by_one():
    fit = fit_of("nested", "posterior")
    numbers = fit._numbers()
    found = variances(fit.design, fit.family, numbers)
    for s in (0, 7, 599):
        own = {name: value[s] for name, value in numbers.parameters.items()}
        one = Numbers(numbers.beta[s], tuple(cov[s] for cov in numbers.covs), own)
        alone = variances(fit.design, fit.family, one)
        for name in ("marginal", "conditional"):
            assert r2(found)[name][s] == pytest.approx(r2(alone)[name], rel=1e-12)
        for name, values in icc(found).items():
            assert values[s] == pytest.approx(icc(alone)[name], rel=1e-12)


@pytest.mark.parametrize("kind", ["correlated slopes", "independent slopes", "no fixed effects"])
def test_covariances_of_a_posterior(kind):
    fit = fit_of(kind, "posterior")
    numbers = fit._numbers()
    assert numbers.beta.shape == (600, len(fit.design.fixed))
    for term, cov in zip(fit.design.terms, numbers.covs, strict=True):
        np.testing.assert_allclose(cov.mean(axis=0), fit.varcorr().cov[term.label], atol=1e-12)


def test_table_of_a_posterior():
    fit = fit_of("correlated slopes", "posterior")
    numbers = fit._numbers()
    values = icc(variances(fit.design, fit.family, numbers))["adjusted"]
    found = fit.icc(0.8).frame
    assert list(found.columns) == ["mean", "sd", "lower", "upper"]
    assert list(found.index) == ["adjusted", "unadjusted", "g"]
    expected = [values.mean(), values.std(ddof=1), *hdi(values[None], 0.8)]
    np.testing.assert_allclose(found.loc["adjusted"], expected, rtol=1e-12)
    assert list(fit.r2().frame.index) == ["marginal", "conditional"]
    assert "HPD" in str(fit.r2())
    assert "80 % HPD" in str(fit.icc(0.8))


def test_bayes_r2_of_numbers():
    """Gelman et al. (2019): a mean that varies as much as the noise explains one half."""
    mu = np.array([[0.0, 1, 2], [0, 2, 4], [5, 5, 5]])
    np.testing.assert_allclose(bayes_r2(mu, np.array([1.0, 1.0, 2.0])), [1 / 2, 4 / 5, 0])


@pytest.mark.parametrize("kind", ["weights and offset", "no fixed effects", "nested"])
def test_bayes_r2_of_a_posterior(kind):
    fit = fit_of(kind, "posterior")
    design, numbers = fit.design, fit._numbers()
    population = design.rows.offset + numbers.beta @ design.rows.X.T
    mu = population.copy()
    for term in design.rows.terms:
        mu += np.einsum("srk,rk->sr", fit.draws(f"b_{term.label}")[:, term.codes], term.columns)
    noise = fit.draws("sigma") ** 2 * np.mean(1 / design.rows.weights)
    conditional = mu.var(axis=1, ddof=1) / (mu.var(axis=1, ddof=1) + noise)
    left = noise + np.mean((mu - population) ** 2, axis=1)
    marginal = population.var(axis=1, ddof=1) / (population.var(axis=1, ddof=1) + left)
    found = fit.r2(kind="bayes").frame["mean"]
    assert found["conditional"] == pytest.approx(conditional.mean(), rel=1e-9)
    assert found["marginal"] == pytest.approx(marginal.mean(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("family", "trials"), [("binomial", "t"), ("bernoulli", None)])
def test_bayes_r2_of_proportions(family, trials):
    data = frame().assign(t=5, k=lambda d: (d["y"] > 50) * (5 if trials else 1))
    response = "cbind(k, t - k)" if trials else "k"
    model = rf.Model(f"{response} ~ x + (1 | g)", data, family=family)
    fit = known_posterior(model, beta=0.2 * np.random.default_rng(1).normal(size=(4, 150, 2)))
    b, beta = fit.draws("b_g")[:, :, 0], fit.draws("beta")
    p = special.expit(beta @ model.design.rows.X.T + b[:, model.design.rows.terms[0].codes])
    noise = np.mean(p * (1 - p), axis=1) / (5 if trials else 1)
    expected = p.var(axis=1, ddof=1) / (p.var(axis=1, ddof=1) + noise)
    found = fit.r2(kind="bayes").frame
    assert found.loc["conditional", "mean"] == pytest.approx(expected.mean(), rel=1e-9)


# ------------------------------------------------------------------------------------ edges


@pytest.mark.parametrize(("weights", "offset"), [(None, None), ("w", "z")])
@pytest.mark.parametrize("formula", ["y ~ x * f", "y ~ 0 + f + x", "y ~ 0 + x"])
def test_ordinary_r2(formula, weights, offset):
    """R^2 is the squared correlation of observed and fitted, uncentred without an intercept."""
    fit = rf.Model(formula, frame(), weights=weights, offset=offset).fit()
    found = fit.r2().frame["estimate"]
    y, fitted, w = (
        fit.design.rows.y - fit.design.rows.offset,
        fit.fitted() - fit.design.rows.offset,
        fit.design.rows.weights,
    )
    if formula != "y ~ 0 + x":
        y, fitted = y - np.average(y, weights=w), fitted - np.average(fitted, weights=w)
    expected = (w @ (y * fitted)) ** 2 / (w @ y**2) / (w @ fitted**2)
    assert found["marginal"] == found["conditional"] == pytest.approx(expected, rel=1e-9)
    assert ordinary_r2(fit.design, fit.estimate.beta) == found["marginal"]


def test_generalised_model_without_random_effects():
    data = frame().assign(n=np.random.default_rng(1).poisson(np.exp(0.5 * frame()["x"])))
    fit = rf.Model("n ~ x", data, family="poisson").fit()
    found = fit.r2(mean=2.0).frame["estimate"]
    fixed = fit.fixef()["x"] ** 2 * np.var(data["x"], ddof=1)
    assert found["marginal"] == found["conditional"]
    assert found["marginal"] == pytest.approx(fixed / (fixed + np.log(1.5)), rel=1e-9)


def test_names_that_are_taken():
    data = frame().assign(adjusted=frame()["g"])
    fit = rf.Model("y ~ x + (1 | adjusted) + (1 | h)", data).fit()
    found = fit.icc().frame["estimate"]
    assert list(found.index) == ["adjusted", "unadjusted", "factor[adjusted]", "h"]
    parts = found["factor[adjusted]"] + found["h"]
    assert found["adjusted"] == pytest.approx(parts, rel=1e-12)


def test_printed():
    fit = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).fit()
    assert str(fit.icc()) == (
        "Intraclass correlation\n"
        "\n"
        "Shares of variance\n"
        "              estimate\n"
        "  adjusted      0.4185\n"
        "  unadjusted    0.4185\n"
        "  Batch         0.4185\n"
        "\n"
        "Variances\n"
        "                 estimate\n"
        "  fixed effects         0\n"
        "  Batch              1764\n"
        "  residual           2451\n"
        "\n"
        "Residual variance: sigma^2."
    )


@pytest.mark.parametrize(
    ("name", "options", "note"),
    [
        (
            "cloglog",
            {},
            "Residual variance on the cloglog scale: pi^2 / 6, that of a latent variable.",
        ),
        (
            "poisson_log",
            {},
            LOG.format("lognormal") + ".",
        ),
        (
            "poisson_sqrt",
            {"mean": 2.5},
            "Residual variance on the sqrt scale: by the delta method at a mean response of 2.5.",
        ),
        (
            "poisson_observations",
            {"approximation": "trigamma"},
            LOG.format("trigamma") + "; plus that of `row`, one level a row.",
        ),
        ("groups_weights", {}, "Residual variance: sigma^2 times the mean of 1 / weight."),
    ],
)
def test_notes(name, options, note):
    fit = known_posterior(
        rf.Model(python_formula(CASES[name]), read_with_row(name), **model_options(name))
    )
    assert fit.icc(**options).notes == (note,)
    assert fit.r2(**options).notes == (note,)


def read_with_row(name):
    data = read_frame(CASES[name])
    return data.assign(row=np.arange(len(data)))


def model_options(name):
    return {key: CASES[name].get(key) for key in ("weights", "offset", "family", "link")}


@pytest.mark.parametrize(
    ("table", "kind", "options", "message"),
    [
        (
            "icc",
            "no random terms",
            {},
            "the model has no random effects: there is no intraclass correlation.",
        ),
        (
            "r2",
            "one factor",
            {"kind": "bayes"},
            'kind="bayes" is for a posterior, such as model.fit("mcmc").',
        ),
        (
            "r2",
            "one factor",
            {"kind": "nakagawas"},
            "kind='nakagawas' does not exist. Did you mean `nakagawa`?",
        ),
        (
            "r2",
            "one factor",
            {"approximation": "normal"},
            "approximation='normal' does not exist. Did you mean `lognormal`?",
        ),
        ("icc", "one factor", {"prob": 95}, "`prob` must lie between 0 and 1, got 95."),
    ],
)
def test_bad_requests(table, kind, options, message):
    with pytest.raises(rf.FitError) as caught:
        getattr(fit_of(kind, "reml"), table)(**options)
    assert str(caught.value) == message


def test_a_latent_variable_without_variance():
    data = frame().assign(k=1 * (frame()["y"] > 50))
    model = rf.Model("k ~ x + (1 | g)", data, family="bernoulli", link="cauchit")
    numbers = Numbers(np.zeros(2), (np.eye(1),), {})
    with pytest.raises(rf.FitError) as caught:
        variances(model.design, model.family, numbers)
    assert str(caught.value) == (
        "the latent variable of the cauchit link has no variance that is known here: use "
        'approximation="delta", the variance of one trial on the link scale.'
    )
    found = variances(model.design, model.family, numbers, approximation="delta", mean=0.5)
    assert found.residual == pytest.approx(np.pi**2 / 4, rel=1e-9)
