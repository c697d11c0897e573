"""Point fits of generalised models: lme4's and R's numbers, every family, the printed page."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from generalized_fits import (
    FAMILIES,
    FORMULAS,
    TRIALS,
    cases,
    made_up,
    of_reference,
    point_fit,
    simulated,
)
from scipy import optimize, special, stats

import ranef as rf
from ranef.families.names import find_family
from ranef.fits.diagnostics import LITTLE, NO_ERRORS, laplace_notes

CASES = {case["id"]: case for case in cases()}
KINDS = "Known names: `response`, `link`, `observation`."


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=FAMILIES)
def family_name(request):
    return request.param


@pytest.fixture(params=FORMULAS)
def fit(request, family_name):
    return made_up(family_name, request.param)


# ------------------------------------------------------------------------- numbers of others


def test_fitted_values_and_residuals_are_lme4s(case):
    fit = of_reference(case)
    np.testing.assert_allclose(fit.fitted()[:5], case["fitted5"], rtol=1e-9)
    np.testing.assert_allclose(fit.predict(kind="link")[:5], special.logit(case["fitted5"]))
    for kind, name in (("response", "resid5"), ("pearson", "resid5_pearson")):
        np.testing.assert_allclose(fit.residuals(kind)[:5], case[name], rtol=1e-8)
    deviance = fit.residuals("deviance")
    np.testing.assert_allclose(deviance[:5], case["resid5_deviance"], rtol=1e-8)
    assert deviance @ deviance == pytest.approx(case["sum_sq_deviance_residuals"], rel=1e-9)


def test_counts_and_criteria_are_lme4s(case):
    fit = of_reference(case)
    left_out = 2 * (case.get("logLik_absolute", case["logLik"]) - case["logLik"])
    assert fit.df == case["df"]
    assert fit.aic == pytest.approx(case["AIC"] - left_out, abs=1e-8)
    assert fit.bic == pytest.approx(case["BIC"] - left_out, abs=1e-8)
    assert (fit.sigma, fit.parameters) == (1.0, {})
    assert list(fit.se()) == pytest.approx(list(case["se_hessian"].values()), rel=1e-8)
    for found, expected in zip(fit.varcorr().sd.values(), case["varcomp"], strict=True):
        assert list(found) == pytest.approx(expected["sd"], rel=1e-9)


def test_the_laplace_criterion_is_made_of_L():
    """-2 log f(y | modes) + u'u + log |L|^2, with lme4's numbers."""
    for name in ("cbpp", "contraception_cm1"):
        case = CASES[name]
        fit = of_reference(case)
        mu, y, w = fit.fitted(), fit.design.rows.y, fit.design.rows.weights
        information = {"working_weights": w * mu * (1 - mu)}
        L = rf.PointFit(
            fit.design, fit.family, "ml", type(fit.estimate)(**vars(fit.estimate) | information)
        ).cholesky()
        u = fit.ranef()[fit.design.terms[0].label].to_numpy() / fit.theta
        rows = stats.binom.logpmf(np.round(w * y), w, mu)
        criterion = -2 * rows.sum() + np.sum(u**2) + 2 * np.log(np.diag(L)).sum()
        assert criterion == pytest.approx(case["minus2logLik"], abs=1e-7)


FIVE = pd.DataFrame(
    {"y": [0.5, 2, 3.5, 1, 6], "k": [0, 2, 3, 1, 6], "x": range(5), "w": [1.0, 2, 1, 3, 1]}
)
R_GLM = {  # residuals() of R's glm: response, pearson, deviance
    ("gamma", "y"): (
        (0.0786968470917631, 0.2864730365232325),
        (-0.581876298405949, 0.559241251335514, 1.581309503765127, -1.555162843018983),
        (-0.537839953849893, 0.548937539341890, 0.824160804917832, -1.054187628593396),
        (-0.684111209967817, 0.490632895642182, 0.667893339629453, -1.406016597732809),
    ),
    ("inverse_gaussian", "y"): (
        (0.00371975088034974, 0.32884528630462190),
        (-0.503726677739723, 0.605459406769843, 1.562477057453473, -1.691922466164158),
        (-0.500923897614530, 0.519940069725526, 0.579353144485997, -0.663509681336242),
        (-0.709732156360384, 0.434164060701471, 0.431055085506073, -1.088625586620016),
    ),
    ("gaussian", "y"): (
        (-0.736344472704519, 0.557244929562058),
        (0.0211387898418454, 1.1639773250693402, 2.0404248701468690, -1.5482078699151032),
        (0.0211387898418454, 1.6461125194078177, 2.0404248701468690, -2.6815746913709457),
        (0.0211387898418454, 1.6461125194078177, 2.0404248701468690, -2.6815746913709457),
    ),
    ("poisson", "k"): (
        (-0.383956239732539, 0.507475116852313),
        (-0.681161234325156, 0.868528636739073, 1.120522159268364, -2.121985291453323),
        (-0.825324926513889, 0.816511599941610, 0.817338289579036, -1.200955576075563),
        (-1.167185704440520, 0.735836897880598, 0.751442246376537, -1.402509308795435),
    ),
    ("negative_binomial", "k"): (
        (-0.391963417264969, 0.512376700272704),
        (-0.675728833517338, 0.872037076827491, 1.117143604144833, -2.142965193786357),
        (-0.729347541964850, 0.681594571034523, 0.614882011972267, -0.804565952222758),
        (-1.093723977955068, 0.593532503182398, 0.545354971348901, -1.026252186339574),
    ),
}


@pytest.mark.parametrize(("name", "response"), R_GLM)
def test_residuals_are_those_of_R(name, response):
    """The scale of a family has no part in them, the shape of the negative binomial has."""
    family = find_family(name, "log")
    beta, *expected = R_GLM[name, response]
    psi = [2.5 if own == "shape" else 0.37 for own in family.parameters]
    fit = point_fit(f"{response} ~ x", FIVE, family, beta=beta, psi=psi)
    if response == "y":
        design = fit.design.with_rows(weights=FIVE["w"].to_numpy())
        fit = rf.PointFit(design, family, "ml", fit.estimate)
    for kind, values in zip(("response", "pearson", "deviance"), expected, strict=True):
        np.testing.assert_allclose(fit.residuals(kind)[:4], values, rtol=1e-7)


# ------------------------------------------------------------------------------ the contract


def linear(fit):
    """Return the linear predictor, row by row."""
    eta = fit.design.rows.offset + fit.design.rows.X @ fit.fixef().to_numpy()
    for term in fit.design.rows.terms:
        b = fit.ranef()[term.label].to_numpy()
        eta += [column @ b[code] for column, code in zip(term.columns, term.codes, strict=True)]
    return eta


def test_predictions_are_on_the_scale_of_the_link_or_of_the_response(fit):
    np.testing.assert_allclose(fit.predict(kind="link"), linear(fit), atol=1e-12)
    mu = fit.family.link.inverse(linear(fit))
    np.testing.assert_allclose(fit.fitted(), mu, rtol=1e-12)
    data = simulated(fit.family.name).drop(columns=["y", "k"])
    np.testing.assert_allclose(fit.predict(data), mu, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(data, kind="link"), linear(fit), atol=1e-12)
    fixed = fit.design.rows.offset + fit.design.rows.X @ fit.fixef().to_numpy()
    mu, strangers = fit.family.link.inverse(fixed), data.assign(g="new", h=99)
    np.testing.assert_allclose(fit.predict(strangers, "new", kind="link"), fixed, rtol=1e-10)
    np.testing.assert_allclose(fit.predict(groups="population", kind="link"), fixed, rtol=1e-10)
    np.testing.assert_allclose(fit.predict(groups="population"), mu, rtol=1e-10)
    variance = np.zeros(len(mu)) + sum(
        np.sum(term.columns @ fit.varcorr().cov[term.label].to_numpy() * term.columns, axis=1)
        for term in fit.design.rows.terms
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    at = fixed[:, None] + np.sqrt(variance)[:, None] * nodes
    average = fit.family.link.inverse(at) @ weights / weights.sum()
    np.testing.assert_allclose(fit.predict(strangers, "new"), average, rtol=1e-5, atol=1e-12)


def test_a_typical_group_is_not_the_average_over_groups():
    fit = made_up("binomial", "one factor")
    typical = fit.predict(simulated("binomial").assign(g="new"), "population")
    b = np.random.default_rng(1).normal(0, 2.0, 20_000)[:, None]
    average = special.expit(special.logit(typical) + b).mean(axis=0)
    assert (abs(average - 0.5) < abs(typical - 0.5)).mean() > 0.9


LAWS = {
    "bernoulli": stats.bernoulli,
    "poisson": stats.poisson,
    "negative_binomial": lambda mu, shape: stats.nbinom(shape, shape / (shape + mu)),
    "gamma": lambda mu, sigma: stats.gamma(sigma**-2, scale=mu * sigma**2),
    "inverse_gaussian": lambda mu, s: stats.invgauss(mu * s**2, scale=s**-2),
    "beta": lambda mu, phi: stats.beta(mu * phi, (1 - mu) * phi),
    "t": lambda mu, sigma, nu: stats.t(nu, mu, sigma),
    "gaussian": stats.norm,
}


def law_of(fit, mu):
    """Return SciPy's distribution of every row, and the response as it counts it."""
    if fit.family.name == "binomial":
        w = fit.design.rows.weights
        return stats.binom(w, mu), np.round(w * fit.design.rows.y)
    return LAWS[fit.family.name](mu, *fit.parameters.values()), fit.design.rows.y


def test_pearson_residuals_have_the_variance_of_the_distribution(fit):
    law, y = law_of(fit, fit.fitted())
    expected = (y - law.mean()) / law.std() * fit.sigma
    np.testing.assert_allclose(fit.residuals("pearson"), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in FAMILIES if n not in ("t", "beta")])
def test_deviance_residuals_add_up_to_the_deviance(name):
    fit = made_up(name, "crossed")
    (law, y), perfect = (
        law_of(fit, fit.fitted()),
        np.where(fit.design.rows.y, fit.design.rows.y, 1e-300),
    )
    which = "logpmf" if hasattr(law.dist, "pmf") else "logpdf"
    ours, best = (getattr(one, which)(y) for one in (law, law_of(fit, perfect)[0]))
    found = fit.residuals("deviance")
    np.testing.assert_allclose(found**2, 2 * fit.sigma**2 * (best - ours), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(np.sign(found), np.sign(fit.residuals()))


def test_parameters_of_the_family(fit):
    own = dict(zip(fit.family.parameters, FAMILIES[fit.family.name][1], strict=True))
    assert fit.parameters == own
    assert list(fit.parameters) == list(own)
    assert fit.sigma == own.get("sigma", 1.0)
    assert fit.df == len(fit.fixef()) + len(fit.theta) + len(own)
    assert fit.aic == pytest.approx(246.8 + 2 * fit.df)
    assert fit.bic == pytest.approx(246.8 + np.log(200) * fit.df)
    names = list(fit.estimates().index)
    p = len(fit.fixef())
    assert names[:p] == list(fit.fixef().index)
    assert names[p : p + len(own)] == list(own)
    assert len(names) == fit.df
    assert fit.estimates()[list(own)].tolist() == list(own.values())


def test_variance_components_are_relative_to_sigma(fit):
    found = fit.varcorr()
    assert found.has_sigma is fit.family.has_sigma
    assert (found.sigma, found.sigma2) == (fit.sigma, fit.sigma**2)
    for term, Lambda in zip(fit.design.terms, fit.lambda_blocks().values(), strict=True):
        cov = fit.sigma**2 * Lambda.to_numpy() @ Lambda.to_numpy().T
        np.testing.assert_allclose(found.cov[term.label], cov)
    assert ("Residual" in list(found.table["grp"])) is fit.family.has_sigma
    assert ("Residual" in repr(found)) is fit.family.has_sigma


def test_L_has_the_information_of_the_rows(fit):
    L, W = fit.cholesky(), np.diag(fit.estimate.working_weights)
    ZL = fit.sigma * fit.Z().toarray() @ fit.Lambda().toarray()
    np.testing.assert_allclose(L @ L.T, ZL.T @ W @ ZL + np.eye(len(L)), atol=1e-10)
    np.testing.assert_array_equal(L, np.tril(L))


def test_the_summary_prints(fit):
    text = str(fit)
    assert max(map(len, text.split("\n"))) <= 100
    assert fit._repr_html_().count("<table") == len(fit.summary().sections)
    frame = fit.summary().to_frame()
    assert list(frame.columns) == ["estimate", "se", "z", "lower", "upper"]
    assert list(frame.index) == list(fit.fixef().index)
    kind = "linear mixed model" if fit.design.terms else "linear model"
    link = FAMILIES[fit.family.name][0]
    assert text.startswith(f"Generalised {kind} ({fit.family.name}, {link} link) fitted by")
    assert "The optimiser converged." in text


def test_pictures_say_the_scale():
    try:
        fit = made_up("poisson", "correlated slopes")
        axes = fit.plot_shrinkage()
        labels = axes.get_xlabel(), axes.get_ylabel()
        assert labels == ("Intercept, log scale", "x, log scale")
        assert fit.plot_shrinkage(coefs="x").get_xlabel() == "x, log scale"
        assert made_up("t", "one factor").plot_shrinkage().get_xlabel() == "Intercept"
        panels = fit.plot_caterpillar()
        assert [panel.get_xlabel().replace("\n", " ") for panel in panels] == [
            f"deviation of {c}, log scale" for c in ("Intercept", "x")
        ]
        assert len(made_up("binomial", "crossed").plot_caterpillar(kind="qq")) == 3
    finally:
        plt.close("all")


# ---------------------------------------------------------------------------------- the page

CBPP = """\
Generalised linear mixed model (binomial, logit link) fitted by maximum likelihood (Laplace
approximation)
  cbind(incidence, size - incidence) ~ period + (1 | herd)
  56 rows with 842 trials; 15 levels of herd
  -2 log-likelihood 184.0526, log-likelihood -92.0263, AIC 194.05, BIC 204.18, 5 parameters

Random effects
                   variance      sd
  herd  Intercept    0.4125  0.6423

Fixed effects, with 95 % Wald intervals
               estimate    se      z  lower  upper
  Intercept       -1.40  0.23  -6.02  -1.85  -0.94
  period[T.2]     -0.99  0.31  -3.24  -1.59  -0.39
  period[T.3]     -1.13  0.33  -3.46  -1.77  -0.49
  period[T.4]     -1.58  0.43  -3.70  -2.42  -0.74

The optimiser converged."""

COUNTS = """\
Generalised linear model (negative_binomial, log link) fitted by maximum likelihood
  k ~ x
  5 rows
  -2 log-likelihood 246.8000, log-likelihood -123.4000, AIC 252.80, BIC 251.63, 3 parameters
  shape 2.5

Fixed effects, with 95 % Wald intervals
             estimate    se     z  lower  upper
  Intercept      0.30  0.14  2.09   0.02   0.58
  x              0.36  0.16  2.31   0.05   0.67

The optimiser converged."""


def test_what_is_printed():
    assert str(of_reference(CASES["cbpp"])) == CBPP
    assert str(of_reference(CASES["cbpp_agq10"])).startswith(
        "Generalised linear mixed model (binomial, logit link) fitted by maximum likelihood "
        "(adaptive\nGauss-Hermite quadrature, 10 points)\n"
    )
    family = find_family("negative_binomial")
    assert str(point_fit("k ~ x", FIVE, family, psi=[2.5])) == COUNTS


def test_the_head_says_how_it_was_done():
    def title(**changed):
        return made_up("poisson", "one factor", **changed).summary().title

    head = "Generalised linear mixed model (poisson, log link) fitted by maximum "
    assert title() == f"{head}likelihood (Laplace approximation)"
    assert title(n_agq=0) == f"{head}likelihood (Laplace approximation, n_agq=0)"
    assert title(n_agq=7) == (f"{head}likelihood (adaptive Gauss-Hermite quadrature, 7 points)")
    assert title(method="map") == f"{head}a posteriori (Laplace approximation)"
    assert "-2 log posterior 246.8000" in str(made_up("poisson", "one factor", method="map"))


def test_own_parameters_are_said_once():
    assert "\n  sigma 1.3, nu 4.5\n" in str(made_up("t", "no random terms"))
    mixed = str(made_up("t", "one factor"))
    assert "\n  nu 4.5\n" in mixed
    assert "Residual" in mixed
    assert "\n  sigma 0.6\n" in str(made_up("gamma", "no random terms"))
    assert "sigma" not in str(made_up("gamma", "one factor"))
    assert "\n  phi 7\n" in str(made_up("beta", "one factor"))
    assert "Residual" not in str(made_up("beta", "one factor"))


def test_what_counts_as_a_success_is_said():
    data = FIVE.assign(use=list("NYNYY"), g=list("aabbc"))
    fit = point_fit("use ~ x + (1 | g)", data, find_family("binomial"))
    assert str(fit).split("\n")[2:5] == [
        "  use ~ x + (1 | g)",
        "  success: use == 'Y'",
        "  5 rows; 3 levels of g",
    ]


def test_a_model_without_random_terms_can_fail_too():
    stalled = rf.Convergence.STALLED
    fit = point_fit("k ~ x", FIVE, find_family("poisson"), convergence=stalled)
    assert not fit.converged
    assert stalled.value in str(fit).replace("\n", " ")


# ------------------------------------------------------------- where Laplace is not enough


def binary(n_levels, rows, *, more="", formula="y ~ 1 + (1 | g)", **changed):
    """Return a fit of rows whose mean is 1/2, so that each has an information of 1/4."""
    n = n_levels * rows
    data = pd.DataFrame({"y": np.arange(n) % 2, "g": np.repeat(np.arange(n_levels), rows)})
    data["x"], data["h"] = np.sin(np.arange(n)), np.arange(n) % 40
    family = find_family("binomial")
    zeros = point_fit(formula + more, data, family, **changed)
    b = [np.zeros_like(one) for one in zeros.estimate.b]
    return point_fit(formula + more, data, family, beta=[0.0], b=b, **changed)


NOTE = (
    "The sds of the random effects may be well off, mostly too small: the rows of a level are too "
    "few for the Laplace approximation. For each coefficient they should have an information of 2 "
    "about its log odds (a yes or no has at most 0.25 of it); half of the levels have less than "
    '0.75 in (1 | g). Compare model.fit(n_agq=25) or model.fit("mcmc").'
)


def notes(fit):
    return [note for note in fit.summary().notes if "Laplace" in note]


def test_laplace_is_warned_of_where_a_level_says_little():
    assert notes(binary(50, 3)) == [NOTE]
    assert notes(binary(50, 3, method="map")) == [NOTE]
    assert notes(binary(50, 3, n_agq=0)) == [NOTE]
    assert notes(binary(50, 3, n_agq=2)) == []
    assert "than 1.8 in (1 | g)." in notes(binary(50, 7))[0]
    assert notes(binary(50, 8)) == []


@pytest.mark.parametrize(("events", "is_rare"), [(3, True), (5, True), (30, False), (155, True)])
def test_the_note_says_in_which_direction_the_sd_is_off(events, is_rare):
    """Few events in all: the sd by Laplace is several times that of the likelihood itself."""
    rng = np.random.default_rng(events)
    data = pd.DataFrame({"g": np.repeat(np.arange(80), 2), "y": 0})
    data.loc[rng.choice(160, events, replace=False), "y"] = 1
    data.loc[:1, "y"] = int(events < 80)
    fits = [rf.fit("y ~ 1 + (1 | g)", data, family="binomial", n_agq=n) for n in (1, 25)]
    laplace, exact = (fit.varcorr().sd["g"].iloc[0] for fit in fits)
    how = "mostly too large, severalfold where" if is_rare else "mostly too small: the"
    assert how in notes(fits[0])[0]
    assert laplace > 1.5 * exact if is_rare else laplace < exact


def test_estimates_without_standard_errors_say_why():
    """Two events in all: coefficients and variances grow together, and nothing holds them."""
    rng, n = np.random.default_rng(18), 56
    data = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(list("ab"), n)})
    data["g"], data["w"] = rng.integers(0, 14, n), rng.integers(1, 5, n)
    data["y"] = 0
    data.loc[rng.choice(n, 2, replace=False), "y"] = 1
    fit = rf.fit("y ~ x + (x | g)", data, family="bernoulli", n_agq=5)
    assert fit.se().isna().all()
    assert NO_ERRORS in fit.summary().notes
    assert ("trouble", NO_ERRORS) in [(f.verdict, f.text) for f in fit.check().findings]
    better = rf.fit("y ~ x + (x | g)", data, "map", family="bernoulli", n_agq=5)
    assert better.se().notna().all()
    assert NO_ERRORS not in better.summary().notes


def test_the_remedy_fits_the_model():
    crossed = notes(binary(80, 3, more=" + (1 | h)"))[0]
    assert "0.75 in (1 | g) and 1.5 in (1 | h)." in crossed
    assert crossed.endswith('Compare model.fit("mcmc").')
    slopes = notes(binary(50, 10, formula="y ~ 1 + (x | g)"))[0]
    assert "1.2 in (1 + x | g)." in slopes
    assert 'Compare model.fit(n_agq=11) or model.fit("mcmc").' in slopes
    two = notes(binary(50, 5, more=" + (0 + x | g)"))[0]
    assert 'Compare model.fit(n_agq=11) or model.fit("mcmc").' in two
    four = notes(binary(50, 12, formula="y ~ 1 + (x + I(x^2) + I(x^3) | g)"))[0]
    assert four.endswith('Compare model.fit("mcmc").')


def test_counts_and_trials_inform_and_measurements_do_not_need_to():
    for name, shown in (("poisson", True), ("negative_binomial", True), ("gamma", False)):
        family = find_family(name, "log")
        data = pd.DataFrame({"y": [1.0, 1, 1, 2, 1, 1] * 10, "g": np.repeat(np.arange(60), 1)})
        fit = point_fit(
            "y ~ 1 + (1 | g)", data, family, psi=(2.0,) * bool(family.parameters),
            beta=[0.0], b=[np.zeros((60, 1))],
        )  # fmt: skip
        assert bool(notes(fit)) is shown
        if shown:  # mu^2 / V
            amount = {"poisson": "1", "negative_binomial": "0.67"}[name]
            assert f"less than {amount} in (1 | g)." in notes(fit)[0]
            assert "about its log mean (a count has at most its mean of it)" in notes(fit)[0]
    assert notes(of_reference(CASES["cbpp"])) == []
    assert notes(of_reference(CASES["contraception_cm1"])) == []


def test_certain_rows_have_no_information():
    fit = binary(50, 3)
    assert "less than 0 in (1 | g)." in laplace_notes(fit.design, fit.family, np.ones(150), {})[0]


@pytest.mark.parametrize(
    ("trials", "p", "expected", "shown"),
    [(2, 0.5, 0.70, True), (7, 0.5, 0.93, True), (10, 0.5, 0.96, False), (10, 0.05, 1.42, True)],
)
def test_how_far_laplace_is_off(trials, p, expected, shown):
    """The sd that maximises the expected Laplace likelihood, with many levels; the true is 0.3."""
    k, b0, sd = np.arange(trials + 1.0), special.logit(p), 0.3
    z, weights = np.polynomial.hermite_e.hermegauss(40)

    def rows(eta):
        successes = k[:, None] * special.log_expit(eta)
        return successes + (trials - k)[:, None] * special.log_expit(-eta)

    truth = np.exp(rows(b0 + sd * z[None, :])) @ weights * special.binom(trials, k)
    truth /= truth.sum()

    def laplace(mean, sd):
        u = np.zeros((len(k), 1))
        for _ in range(60):
            mu = special.expit(mean + sd * u)
            curve = sd**2 * trials * mu * (1 - mu) + 1
            u += np.clip((sd * (k[:, None] - trials * mu) - u) / curve, -1, 1)
        return (rows(mean + sd * u) - u**2 / 2 - np.log(curve) / 2)[:, 0]

    best = optimize.minimize(
        lambda x: -truth @ laplace(x[0], np.exp(x[1])), [b0, np.log(sd)], method="Nelder-Mead",
        options={"xatol": 1e-5, "fatol": 1e-12},
    )  # fmt: skip
    assert np.exp(best.x[1]) / sd == pytest.approx(expected, abs=0.006)
    assert (trials * p * (1 - p) < LITTLE) is shown


# ----------------------------------------------------------------------- names and mistakes


def test_a_coefficient_called_as_a_parameter_keeps_its_estimate():
    data = FIVE.rename(columns={"x": "shape", "w": "sigma"})
    fit = point_fit("k ~ shape + sigma", data, find_family("negative_binomial"), psi=[2.5])
    assert list(fit.estimates().index) == ["Intercept", "beta[shape]", "sigma", "shape"]
    assert fit.estimates()["beta[shape]"] == fit.fixef()["shape"]
    assert fit.estimates()["shape"] == 2.5


def test_side_by_side_takes_fits_of_different_families():
    fits = {name: made_up(name, "one factor") for name in ("poisson", "t", "negative_binomial")}
    table = rf.side_by_side(fits)
    assert list(table.index) == ["Intercept", "x", "sd_g[Intercept]", "sigma", "nu", "shape"]
    for name, fit in fits.items():
        expected = fit.estimates()
        pd.testing.assert_series_equal(
            table[name].dropna().loc[expected.index], expected, check_names=False
        )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("respnse", "kind='respnse' is not a kind of prediction. Did you mean `response`?"),
        (
            "eta",
            f"kind='eta' is not a kind of prediction. {KINDS}",
        ),
        (
            None,
            f"kind=None is not a kind of prediction. {KINDS}",
        ),
    ],
)
def test_kinds_of_prediction(kind, message):
    with pytest.raises(rf.FitError) as caught:
        made_up("binomial", "one factor").predict(kind=kind)
    assert str(caught.value) == message


def test_the_response_of_trials_is_a_proportion():
    fit = made_up("binomial", "crossed")
    data = simulated("binomial")
    np.testing.assert_allclose(fit.residuals() + fit.fitted(), data["k"] / data["trials"])
    assert fit.design.formula.text == f"{TRIALS} ~ x + (1 | g) + (x || h)"
