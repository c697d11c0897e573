"""Marginal means and contrasts against R's emmeans, and as integrals of posteriors."""

import warnings

import numpy as np
import pandas as pd
import pytest
from effect_cases import BOTH, CASES, DF, fit_of

import ranef as rf
from ranef.errors import DataWarning, FitError

WAYS = {
    "pairs": {},
    "pairs_holm": {"adjust": "holm"},
    "reference": {"method": "reference", "adjust": "none"},
    "sequential": {"method": "sequential"},
}


def same(table, expected, *, infinite_df=True):
    """Hold a table against numbers of emmeans."""
    names = ["estimate", "se", "lower", "upper"]
    names += ["p_value"] * ("p_value" in table) + ["df"] * (not infinite_df)
    for name in names:
        np.testing.assert_allclose(table[name], expected[name], rtol=2e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(("name", "df"), BOTH)
def test_means_and_contrasts_are_those_of_emmeans(name, df):
    case, fit = CASES[name], fit_of(name)
    expected, settings = case["results"][df], {"df": DF[df], "prob": 0.9}
    by = [case["by"]] * bool(case["by"])
    variable, is_z = case["variable"], df == "asymptotic"
    same(rf.means(fit, [*by, variable], **settings), expected["means"], infinite_df=is_z)
    for way, options in WAYS.items():
        if way in expected:
            table = rf.contrasts(fit, variable, by=by, **options, **settings)
            same(table, expected[way], infinite_df=is_z)
    if "response" in expected:
        settings["kind"] = "response"
        same(rf.means(fit, [*by, variable], **settings), expected["response"])
        if not by:
            table = rf.contrasts(fit, variable, **settings)
            same(table, expected["response_pairs"])


def test_a_posterior_of_means_is_the_mixture_of_its_nodes():
    model = rf.Model("angle ~ recipe + temp + (1 | recipe:replicate)", rf.load_dataset("cake"))
    fit = model.fit("quadrature")
    mean, cov = fit.fixef(), fit.vcov().to_numpy()
    table = rf.contrasts(fit, "recipe")
    weights = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [0, 1, -1, 0]])
    np.testing.assert_allclose(table["estimate"], weights @ mean, atol=1e-9)
    np.testing.assert_allclose(table["sd"], np.sqrt(np.diag(weights @ cov @ weights.T)), rtol=1e-6)
    draws = fit.draws_at().beta @ weights.T
    error = 4 / np.sqrt(len(draws))
    np.testing.assert_allclose(table["probability"], (draws > 0).mean(axis=0), atol=error)
    inside = (draws > table["lower"].to_numpy()) & (draws < table["upper"].to_numpy())
    np.testing.assert_allclose(inside.mean(axis=0), 0.95, atol=error)
    assert table.attrs["interval"] == "95 % HPD interval"
    means = rf.means(fit, "recipe")
    ends = [fit.curve("Intercept").mean + mean["temp"] * 200, means["estimate"][0]]
    assert ends[0] == pytest.approx(ends[1], rel=1e-8)


def test_a_posterior_of_responses_is_that_of_its_draws():
    cbpp = rf.load_dataset("cbpp")
    model = rf.Model(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, family="binomial"
    )
    fit = model.fit("laplace", draws=400, seed=1)
    beta = fit.draws_at().beta
    eta = beta[:, :1] + np.column_stack([np.zeros(len(beta)), beta[:, 1:]])
    mu = 1 / (1 + np.exp(-eta))
    means, pairs = (f(fit, "period", kind="response") for f in (rf.means, rf.contrasts))
    np.testing.assert_allclose(means["estimate"], mu.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(means["sd"], mu.std(axis=0, ddof=1), rtol=1e-10)
    first = mu[:, 0] - mu[:, 1]
    assert pairs["estimate"][0] == pytest.approx(first.mean(), rel=1e-10)
    assert pairs["sd"][0] == pytest.approx(first.std(ddof=1), rel=1e-10)
    assert pairs["probability"][0] == pytest.approx((first > 0).mean(), rel=1e-12)
    linked = rf.contrasts(fit, "period")
    assert linked["probability"][0] == pytest.approx((eta[:, 0] > eta[:, 1]).mean(), rel=1e-12)


def test_a_cell_that_is_not_there_has_no_mean():
    rng = np.random.default_rng(3)
    data = pd.DataFrame(
        {"f": list("aab") * 20, "h": list("uvu") * 20, "g": np.repeat(range(12), 5)}
    )
    data["y"] = rng.normal(size=60) + rng.normal(size=12)[data["g"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = rf.fit("y ~ f * h + (1 | g)", data)
    with pytest.warns(DataWarning, match="nan is predicted for 1 of 4 rows.*f = b, h = v"):
        table = rf.means(fit, ["f", "h"])
    assert table["estimate"].isna().tolist() == [False, False, False, True]
    with pytest.warns(DataWarning, match="h = v"):
        pairs = rf.contrasts(fit, ["f", "h"])
    assert pairs["estimate"].isna().sum() == 3
    cells = data.groupby(["f", "h"])["y"].count()
    assert len(cells) == 3


@pytest.mark.parametrize("groups", ["population", "average", "new"])
@pytest.mark.parametrize("kind", ["link", "response"])
@pytest.mark.parametrize("method", ["ml", "laplace"])
def test_means_of_groups_are_predictions(groups, kind, method):
    cbpp = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    model = rf.Model(formula, cbpp, family="binomial")
    fit = model.fit() if method == "ml" else model.fit("laplace", draws=400, seed=1)
    table = rf.means(fit, "period", kind=kind, groups=groups)
    new = table[["period"]]
    expected = fit.predict(new, groups, kind, prob=0.95, seed=0)
    is_drawn = groups == "new" and method == "laplace" and kind == "response"
    for name, own in zip(table.columns[1:], expected, strict=True):
        close = 0.15 if is_drawn and name != "estimate" else 1e-9
        np.testing.assert_allclose(table[name], expected[own], rtol=close, err_msg=name)


def test_means_of_known_groups():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    table = rf.means(fit, ["Subject", "Days"], at={"Days": [0, 9]}, groups="known")
    new = table[["Subject", "Days"]]
    expected = fit.predict(new, prob=0.95)
    for name, own in [("estimate", "mean"), ("se", "sd"), ("lower", "lower"), ("upper", "upper")]:
        np.testing.assert_allclose(table[name], expected[own], rtol=1e-9, err_msg=name)
    with pytest.raises(FitError, match=r"needs a grouping factor among the variables.*'Subject'"):
        rf.means(fit, "Days", groups="known")


def test_means_of_known_groups_average_over_other_predictors():
    model = rf.Model("angle ~ recipe + temp + (1 | replicate)", rf.load_dataset("cake"))
    for fit in (model.fit(), model.fit("quadrature")):
        table = rf.means(fit, "replicate", groups="known").set_index("replicate")
        new = pd.DataFrame({"recipe": list("ABC"), "temp": 200.0, "replicate": "3"})
        assert table.loc["3", "estimate"] == pytest.approx(fit.predict(new).mean(), rel=1e-6)


def test_means_of_groups_that_vary_with_a_predictor_of_their_own():
    sleep = rf.load_dataset("sleepstudy").assign(z=lambda d: d["Days"] % 3)
    fit = rf.fit("Reaction ~ Days + (0 + z | Subject)", sleep)
    table = rf.means(fit, "Days", at={"Days": 2}, groups="new")
    new = {"Days": [2], "z": [sleep["z"].mean()]}
    expected = fit.predict(new, groups="new", prob=0.95)
    np.testing.assert_allclose(table["se"], expected["sd"], rtol=1e-9)


def test_values_of_predictors():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    table = rf.means(fit, "Days", at={"Days": [0, 9]})
    expected = fit.predict({"Days": [0, 9]}, groups="population", prob=0.95)
    np.testing.assert_allclose(table["estimate"], expected["mean"], rtol=1e-12)
    np.testing.assert_allclose(table[["lower", "upper"]], expected[["lower", "upper"]], rtol=1e-9)
    slope = rf.contrasts(fit, "Days", at={"Days": [0, 1]}, method="sequential")
    assert slope["estimate"][0] == pytest.approx(fit.fixef()["Days"], rel=1e-12)
    assert slope["contrast"].tolist() == ["1 - 0"]
    assert table.attrs["interval"] == "95 % Wald interval"


def test_the_reference_of_contrasts():
    fit = fit_of("cake")
    table = rf.contrasts(fit, "recipe", method="reference", reference="B")
    assert table["contrast"].tolist() == ["A - B", "C - B"]
    pairs = rf.contrasts(fit, "recipe").set_index("contrast")["estimate"]
    np.testing.assert_allclose(table["estimate"], [pairs["A - B"], -pairs["B - C"]], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rf.means(f, "replicat"), "`replicat` is not a predictor of the fixed effects"),
        (lambda f: rf.means(f, "recipe", at={"x": 1}), "`x` is not a predictor"),
        (lambda f: rf.means(f, 3), "variables takes the name of a column, or several, got 3."),
        (lambda f: rf.contrasts(f, "recipe", by=[1]), "by= takes the name of a column"),
        (lambda f: rf.means(f, "recipe", at=["temp"]), "at= is a dict from predictors to values"),
        (lambda f: rf.means(f, "recipe", at={"temp": []}), "has no value: give one or several."),
        (lambda _: rf.means(3, "recipe"), "expected a fit, got int"),
        (lambda f: rf.means(f, "recipe", kind="odds"), "is not a scale"),
        (lambda f: rf.means(f, "recipe", groups="all"), "is not an option"),
        (
            lambda f: rf.means(f, "recipe", groups="new", df="satterthwaite"),
            "df='satterthwaite' is for groups='population', the fixed effects, not 'new'",
        ),
        (lambda f: rf.means(f, "recipe", df="exact"), "is not a kind of degrees of freedom"),
        (lambda f: rf.means(f, "recipe", prob=95), "`prob` must lie between 0 and 1"),
        (lambda f: rf.contrasts(f, "recipe", method="all"), "is not a way to compare means"),
        (lambda f: rf.contrasts(f, "recipe", adjust="sidak"), "is not an adjustment"),
        (lambda f: rf.contrasts(f, "recipe", reference="A"), "needs method='reference'"),
        (lambda f: rf.contrasts(f, "temp"), "there is one mean, and nothing to compare it with"),
        (lambda f: rf.contrasts(f, "recipe", by="recipe"), "within its own levels"),
        (
            lambda f: rf.contrasts(f, "recipe", method="reference", reference="D"),
            "reference='D' is not one of the levels.",
        ),
        (
            lambda f: rf.contrasts(f, "recipe", method="sequential", adjust="tukey"),
            "adjust='tukey' is for all pairs, not for method='sequential'",
        ),
    ],
)
def test_what_has_no_answer(call, message):
    with pytest.raises(FitError) as caught:
        call(fit_of("cake"))
    assert message in str(caught.value)


def test_degrees_of_freedom_are_those_of_linear_point_fits():
    with pytest.raises(FitError, match="is for linear models"):
        rf.means(fit_of("cbpp"), "period", df="satterthwaite")
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match="is for point fits: a posterior"):
        rf.means(model.fit("quadrature"), [], df="satterthwaite")
