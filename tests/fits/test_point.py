"""REML and ML fits against dense formulas, printed lectures and the printed page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from fits import FORMULAS, dense_Z, fit_of, frame
from ranef.errors import FitError
from ranef.fits.diagnostics import singular_note
from ranef.fits.predictions.prediction_table import normal_quantile

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(params=FORMULAS)
def kind(request):
    return request.param


@pytest.fixture(params=["reml", "ml"])
def fit(request, kind):
    return fit_of(kind, request.param)


def fit_data(name, formula, method="reml", **options):
    return rf.fit(formula, rf.load_dataset(name), method, **options)


def dense(fit):
    """Return y less offset, V and [(Z, G)] from the variance components as they are reported."""
    V = np.diag(fit.sigma**2 / fit.design.rows.weights)
    blocks = []
    for term in fit.design.rows.terms:
        Z = dense_Z(term)
        G = np.kron(np.eye(term.n_levels), fit.varcorr().cov[term.label])
        V = V + Z @ G @ Z.T
        blocks.append((Z, G))
    return fit.design.rows.y - fit.design.rows.offset, V, blocks


# ------------------------------------------------------------------- the textbook's formulas


def test_fixed_effects_are_generalised_least_squares(fit):
    (y, V, _), X = dense(fit), fit.design.rows.X
    if X.shape[1] == 0:
        assert fit.fixef().empty
        assert fit.vcov().shape == (0, 0)
        return
    information = X.T @ np.linalg.solve(V, X)
    np.testing.assert_allclose(fit.vcov(), np.linalg.inv(information), rtol=1e-6, atol=1e-12)
    beta = np.linalg.solve(information, X.T @ np.linalg.solve(V, y))
    np.testing.assert_allclose(fit.fixef(), beta, rtol=1e-8)


def test_the_log_likelihood_is_that_of_the_normal_distribution(fit):
    (y, V, _), X = dense(fit), fit.design.rows.X
    left, (n, p) = y - X @ fit.fixef().to_numpy(), X.shape
    quadratic = left @ np.linalg.solve(V, left)
    expected = -(n * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + quadratic) / 2
    if fit.method == "reml":  # beta integrated out under a flat prior
        expected += (p * np.log(2 * np.pi) + np.linalg.slogdet(fit.vcov())[1]) / 2
    assert fit.loglik == pytest.approx(expected, rel=1e-10)
    assert fit.objective == -2 * fit.loglik


@pytest.mark.parametrize("uncertainty", [None, "fixed", "none"])
def test_random_effects_are_best_linear_predictions(fit, uncertainty):
    """And their errors those of Henderson: b - b-hat with beta estimated, or as if known."""
    (y, V, blocks), X = dense(fit), fit.design.rows.X
    left = np.linalg.solve(V, y - X @ fit.fixef().to_numpy())
    table = fit.ranef_table(prob=0.9, uncertainty=uncertainty)
    P = np.linalg.inv(V)
    if uncertainty != "none" and X.shape[1]:
        P -= P @ X @ np.linalg.inv(X.T @ P @ X) @ X.T @ P
    for term, (Z, G) in zip(fit.design.terms, blocks, strict=True):
        rows = table[table["term"] == term.label]
        modes, cov = G @ Z.T @ left, G - G @ Z.T @ P @ Z @ G
        np.testing.assert_allclose(rows["estimate"], modes, atol=1e-6)
        np.testing.assert_allclose(rows["sd"] ** 2, np.diag(cov), atol=1e-8)
    half = stats.norm.ppf(0.95) * table["sd"]
    np.testing.assert_allclose(table["lower"], table["estimate"] - half)
    np.testing.assert_allclose(table["upper"], table["estimate"] + half)


def test_intervals_of_effects_say_what_they_contain(fit):
    if not fit.design.terms or not fit.design.fixed:
        return
    said = {u: fit.ranef_table(0.9, uncertainty=u).attrs["interval"] for u in (None, "none")}
    assert said == {
        None: "conditional mode with 90 % interval, variances as if known",
        "none": "conditional mode with 90 % interval, fixed effects and variances as if known",
    }
    with pytest.raises(FitError, match=r"^uncertainty='some'"):
        fit.ranef_table(uncertainty="some")
    bare = replace(fit, engine=None)
    assert bare.ranef_table(0.9).attrs["interval"] == said["none"]


@pytest.mark.parametrize("kind", ["correlated slopes", "nested", "crossed", "weights and offset"])
def test_errors_with_estimated_variances_are_those_over_replicates(kind):
    """Modes and conditional variances at the parameters of every replicate, from dense V."""
    fit = fit_of(kind, "reml")
    table = fit.ranef_table(uncertainty="all", n=6, seed=4)
    assert table.attrs["interval"].endswith("fixed effects and variances estimated")
    moved = [np.zeros(b.size) for b in fit.ranef().values()]
    within = [np.zeros(b.size) for b in fit.ranef().values()]
    rows = fit.design.rows
    for _, one in fit.bootstrap(6, seed=4).estimates.iterrows():
        V, blocks = np.diag(one["sigma"] ** 2 / rows.weights), []
        for term in fit.design.terms:
            sd = one[[f"sd_{term.label}[{c}]" for c in term.coefs]].to_numpy()
            cov = np.diag(sd**2)
            for i, j in term.covariance.pairs:
                r = one[f"corr_{term.label}[{term.coefs[i]}, {term.coefs[j]}]"]
                cov[i, j] = cov[j, i] = sd[i] * sd[j] * np.nan_to_num(r)
            Z, G = dense_Z(rows.term(term.label)), np.kron(np.eye(term.n_levels), cov)
            V, blocks = V + Z @ G @ Z.T, [*blocks, (Z, G)]
        left = rows.y - rows.offset - rows.X @ one[list(fit.design.fixed)].to_numpy()
        for t, ((Z, G), b) in enumerate(zip(blocks, fit.ranef().values(), strict=True)):
            mode = G @ Z.T @ np.linalg.solve(V, left)
            own = np.diag(G - G @ Z.T @ np.linalg.solve(V, Z @ G))
            moved[t] += (mode - b.to_numpy().ravel()) ** 2 / 6
            within[t] += own / 6
    mean, known = np.concatenate(within), fit.ranef_table(uncertainty="none")["sd"] ** 2
    expected = np.concatenate(moved) + np.maximum(mean, 2 * known - mean)
    np.testing.assert_allclose(table["sd"] ** 2, expected, rtol=1e-5)


def test_intervals_of_effects_hold_the_true_effects():
    """12 groups of 2 to 8 rows, sds equal; the shares of many more are in the docstring."""
    rng, held = np.random.default_rng(6), {"none": [], "fixed": []}
    for _ in range(40):
        g = np.repeat(np.arange(12), rng.integers(2, 9, 12))
        data, b = pd.DataFrame({"g": g, "x": rng.normal(size=len(g))}), rng.normal(size=12)
        data["y"] = 1 + data["x"] / 2 + b[g] + rng.normal(size=len(g))
        fit = rf.fit("y ~ x + (1 | g)", data)
        for uncertainty, shares in held.items():
            table = fit.ranef_table(uncertainty=uncertainty)
            shares.append(((table["lower"] <= b) & (b <= table["upper"])).mean())
    none, fixed = (np.mean(held[uncertainty]) for uncertainty in ("none", "fixed"))
    assert 0.86 < fixed < 0.98  # 0.93 within four standard errors
    assert fixed - none > 0.03


def test_wald_intervals(fit):
    for method in (None, "wald"):
        table = fit.confint(method, 0.8)
        for name in fit.fixef().index:
            expected = stats.norm(fit.fixef()[name], fit.se()[name]).interval(0.8)
            np.testing.assert_allclose(table.loc[name], expected)


def test_theta_and_lambda_are_the_covariance_over_sigma(fit):
    free = []
    for term, (label, Lambda) in zip(fit.design.terms, fit.lambda_blocks().items(), strict=True):
        assert label == term.label
        assert list(Lambda.index) == list(Lambda.columns) == list(term.coefs)
        cov = fit.sigma**2 * Lambda.to_numpy() @ Lambda.to_numpy().T
        np.testing.assert_allclose(cov, fit.varcorr().cov[label], atol=1e-12)
        assert (np.triu(Lambda, 1) == 0).all()
        lower = zip(*np.triu_indices(term.n_coefs), strict=True)
        keep = [(i, j) for j, i in lower if i == j or term.covariance.has_correlations]
        free += [Lambda.to_numpy()[i, j] for i, j in keep]
    np.testing.assert_array_equal(fit.theta, free)


def test_counting_parameters(fit):
    assert fit.df == len(fit.fixef()) + len(fit.theta) + 1
    assert fit.aic == pytest.approx(-2 * fit.loglik + 2 * fit.df)
    assert fit.bic == pytest.approx(-2 * fit.loglik + np.log(240) * fit.df)


def test_the_trace_leads_to_the_optimum(fit):
    trace = fit.trace
    assert list(trace.columns) == ["objective", *fit.theta_names, "predicted_decrease"]
    if fit.design.terms:
        assert len(trace) >= 2
        assert trace["objective"].iloc[-1] == pytest.approx(fit.objective)
        np.testing.assert_allclose(trace.iloc[-1, 1:-1], fit.theta, atol=1e-3)
        assert trace["objective"].iloc[0] > fit.objective


def test_ordinary_least_squares_without_random_terms():
    for method, divisor in (("reml", 240 - 6), ("ml", 240)):
        fit = fit_of("no random terms", method)
        X, y = fit.design.rows.X, fit.design.rows.y
        beta, squares, *_ = np.linalg.lstsq(X, y, rcond=None)
        np.testing.assert_allclose(fit.fixef(), beta)
        assert fit.sigma**2 == pytest.approx(squares[0] / divisor)
        assert fit.ranef() == fit.coef() == fit.varcorr().sd == {}
        assert fit.theta.shape == (0,)


# -------------------------------------------- D. Bates, IMPS 2008, lme4 course (slides)


def test_slides_dyestuff():
    fit = fit_data("Dyestuff", "Yield ~ 1 + (1 | Batch)")
    modes = [-17.60597, 0.39124, 28.56079, -23.08338, 56.73033, -44.99302]
    np.testing.assert_allclose(fit.ranef()["Batch"]["Intercept"], modes, rtol=1e-4)
    assert list(fit.ranef()["Batch"].index) == list("ABCDEF")
    np.testing.assert_allclose(
        fit.fitted()[::5], [1509.9, 1527.9, 1556.1, 1504.4, 1584.2, 1482.5], atol=0.05
    )
    assert fit.theta == pytest.approx([0.848324], abs=1e-6)
    assert (fit.aic, fit.bic) == pytest.approx((325.7, 329.9), abs=0.05)
    assert fit.fixef()["Intercept"] / fit.se()["Intercept"] == pytest.approx(78.81, abs=0.01)


def test_slides_penicillin():
    fit = fit_data("Penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)")
    modes = [2.187057, -1.010476, 1.937898, -0.096895, -0.013842, -3.003742]
    np.testing.assert_allclose(fit.ranef()["sample"]["Intercept"], modes, atol=2e-4)
    found = fit.varcorr()
    sds = [found.sd["plate"].iloc[0], found.sd["sample"].iloc[0], found.sigma]
    assert sds == pytest.approx([0.84671, 1.93140, 0.54992], rel=2e-4)
    assert fit.n_groups == {"plate": 24, "sample": 6}


def test_slides_sleepstudy_with_independent_slopes():
    fit = fit_data("sleepstudy", "Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)")
    modes = pd.DataFrame(
        {"308": (1.51382, 9.32321), "335": (0.57741, -10.90564), "337": (34.76895, 8.62736)}
    )
    found = pd.concat([table.T for table in fit.ranef().values()])  # Subject, Subject_1
    np.testing.assert_allclose(found[modes.columns], modes, atol=3e-3)
    se, vcov = fit.se(), fit.vcov()
    assert list(se) == pytest.approx([6.885, 1.559], abs=1e-3)
    assert vcov.loc["Intercept", "Days"] / se.prod() == pytest.approx(-0.184, abs=5e-4)


# --------------------------------------------------------------------------------- printing

SLEEP_REML = """\
Linear mixed model fitted by REML
  Reaction ~ Days + (Days | Subject)
  180 rows; 18 levels of Subject
  REML criterion 1743.6283, log-likelihood -871.8141, AIC 1755.63, BIC 1774.79, 6 parameters

Random effects
                       variance      sd   corr
  Subject   Intercept    612.1   24.74
            Days          35.07   5.922  0.066
  Residual               654.9   25.59

Fixed effects, with 95 % Wald intervals
             estimate   se      t  lower  upper
  Intercept     251.4  6.8  36.84  238.0  264.8
  Days           10.5  1.5   6.77    7.4   13.5

The optimiser converged."""

SLEEP_ML = """\
Linear mixed model fitted by maximum likelihood
  Reaction ~ Days + (Days | Subject)
  180 rows; 18 levels of Subject
  deviance 1751.9393, log-likelihood -875.9697, AIC 1763.94, BIC 1783.10, 6 parameters

Random effects
                       variance      sd   corr
  Subject   Intercept    565.5   23.78
            Days          32.68   5.717  0.081
  Residual               654.9   25.59

Fixed effects, with 95 % Wald intervals
             estimate   se      t  lower  upper
  Intercept     251.4  6.6  37.91  238.4  264.4
  Days           10.5  1.5   6.97    7.5   13.4

The optimiser converged."""

PASTES = """\
Linear mixed model fitted by REML
  strength ~ 1 + (1 | batch/cask)
  60 rows; 30 levels of cask:batch; 10 levels of batch
  REML criterion 246.9907, log-likelihood -123.4954, AIC 254.99, BIC 263.37, 4 parameters

Random effects
                         variance      sd
  cask:batch  Intercept    8.434   2.904
  batch       Intercept    1.657   1.287
  Residual                 0.6780  0.8234

Fixed effects, with 95 % Wald intervals
             estimate    se      t  lower  upper
  Intercept     60.05  0.68  88.72  58.73  61.38

The optimiser converged."""

DYESTUFF2 = """\
Linear mixed model fitted by REML
  Yield ~ 1 + (1 | Batch)
  30 rows; 6 levels of Batch
  REML criterion 161.8283, log-likelihood -80.9141, AIC 167.83, BIC 172.03, 3 parameters

Random effects
                       variance     sd
  Batch     Intercept      0     0
  Residual                13.81  3.716

Fixed effects, with 95 % Wald intervals
             estimate    se     t  lower  upper
  Intercept      5.67  0.68  8.35   4.34   7.00

The optimiser converged to a singular fit: the estimated covariance of a random-effects term is on
the boundary of its space (a zero variance or a perfect correlation).
(1 | Batch): the estimated sd of Intercept is zero.
This is an estimate, not a failure. To keep it off the boundary use model.fit("map",
priors="boundary"); a posterior, model.fit("mcmc"), does not sit there; or simplify the term."""

LINEAR = """\
Linear model fitted by maximum likelihood
  Reaction ~ Days
  180 rows
  deviance 1900.2931, log-likelihood -950.1465, AIC 1906.29, BIC 1915.87, 3 parameters
  residual sd 47.4489

Fixed effects, with 95 % Wald intervals
             estimate   se      t  lower  upper
  Intercept     251.4  6.6  38.25  238.5  264.3
  Days           10.5  1.2   8.50    8.1   12.9"""


@pytest.mark.parametrize(
    ("name", "formula", "method", "expected"),
    [
        ("sleepstudy", SLEEP, "reml", SLEEP_REML),
        ("sleepstudy", SLEEP, "ml", SLEEP_ML),
        ("Pastes", "strength ~ 1 + (1 | batch/cask)", "reml", PASTES),
        ("Dyestuff2", "Yield ~ 1 + (1 | Batch)", "reml", DYESTUFF2),
        ("sleepstudy", "Reaction ~ Days", "ml", LINEAR),
    ],
)
def test_what_is_printed(name, formula, method, expected):
    assert str(fit_data(name, formula, method)) == expected


def test_what_was_done_is_said():
    data = frame().assign(twice=2 * frame()["x"], k=frame()["h"] % 4)
    with pytest.warns(rf.DataWarning):
        fit = rf.fit("y ~ x + twice + (1 | k)", data, weights="w", offset="z")
    lines = str(fit).split("\n")
    assert lines[1:4] == [
        "  y ~ x + twice + (1 | k)",
        "  240 rows with prior weights and an offset; 4 levels of k",
        "  left out as combinations of other columns: `twice`",
    ]
    assert " ".join(lines[-2:]) == (
        "Few levels (k has 4): their standard deviation is hardly determined by the data; its "
        "posterior shows how little."
    )
    assert "240 rows with prior weights; 4" in str(rf.fit("y ~ (1 | k)", data, weights="w"))
    assert "240 rows with an offset; 4" in str(rf.fit("y ~ (1 | k)", data, offset="z"))


def test_few_levels_are_fewer_than_five():
    assert "Few levels" not in str(fit_data("Penicillin", "diameter ~ (1 | plate) + (1 | sample)"))
    five = frame()[frame()["h"] < 5]
    assert "Few levels" not in str(rf.fit("y ~ (1 | h)", five))
    assert "Few levels (h has 4)" in str(rf.fit("y ~ (1 | h)", five[five["h"] < 4]))


# --------------------------------------------------------------------------- singular terms


def term(k, unit=1.0):
    columns = np.random.default_rng(1).normal(size=(240, k)) * unit
    coefs = tuple("abcd"[:k])
    mean_products = columns.T @ columns / len(columns)
    known = fit_of("one factor", "ml").design.terms[0]
    return replace(known, text="(t)", coefs=coefs, mean_products=mean_products)


@pytest.mark.parametrize("unit", [1.0, 1e9, 1e-9])
@pytest.mark.parametrize(
    ("Lambda", "expected"),
    [
        ([[0.0]], "(t): the estimated sd of a is zero."),
        ([[5e-5]], "(t): the estimated sd of a is zero."),
        ([[0, 0], [0, 0]], "(t): the estimated sd of a, b is zero."),
        ([[1, 0], [0, 0]], "(t): the estimated sd of b is zero."),
        ([[0, 0, 0], [0, 1, 0], [0, 1, 0]], "(t): the estimated sd of a is zero."),
        ([[1, 0], [1, 0.02]], "(t): estimated correlation of a and b +1.000."),
        ([[1, 0], [1, 1]], "(t): the estimated covariance of the 2 coefficients has rank 1."),
        ([[1, 0], [-1, 0]], "(t): estimated correlation of a and b -1.000."),
        (
            [[1, 0, 0], [2, 0, 0], [3, 0, 0]],
            "(t): estimated correlation of a and b +1.000, a and c +1.000, b and c +1.000.",
        ),
        ([[1, 0, 0], [2, 1e-6, 0], [0, 1, 1]], "(t): estimated correlation of a and b +1.000."),
        (
            [[1, 0, 0], [0, 1, 0], [1, 1, 0]],
            "(t): the estimated covariance of the 3 coefficients has rank 2.",
        ),
    ],
)
def test_a_singular_term_is_explained_in_any_unit(Lambda, expected, unit):
    Lambda = np.array(Lambda, dtype=float) / unit
    assert singular_note(term(len(Lambda), unit), Lambda) == expected


def test_a_singular_fit_says_where():
    fit = fit_of("crossed", "reml")
    assert fit.is_singular
    assert fit.convergence is rf.Convergence.SINGULAR
    assert "\n(1 + x | h): estimated correlation of Intercept and x -1.000.\n" in str(fit)
    assert "(1 | g):" not in str(fit)


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("prob", [0, 1, -0.5, 95, np.nan])
def test_probabilities_lie_between_0_and_1(prob):
    fit = fit_of("one factor", "ml")
    for call in (fit.ranef_table, lambda p: fit.confint(prob=p), fit.plot_caterpillar):
        with pytest.raises(rf.FitError) as caught:
            call(**{"p": prob} if call.__name__ == "<lambda>" else {"prob": prob})
        assert str(caught.value) == f"`prob` must lie between 0 and 1, got {prob!r}."


def test_normal_quantiles():
    assert normal_quantile(0.95) == pytest.approx(1.959963984540054, abs=1e-14)


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("Wald", "Did you mean `wald`?"),
        ("hpd", "Known names: `wald`, `profile`, `bootstrap`."),
        (3, "Known names: `wald`, `profile`, `bootstrap`."),
    ],
)
@pytest.mark.parametrize("kind", ["reml", "ml"])
def test_intervals_that_a_point_has_not(kind, method, hint):
    with pytest.raises(rf.FitError) as caught:
        fit_of("one factor", kind).confint(method)
    assert str(caught.value) == f"method={method!r} is not available for a {kind} fit. {hint}"


def test_a_fit_is_frozen():
    with pytest.raises(AttributeError):
        fit_of("one factor", "ml").method = "reml"
