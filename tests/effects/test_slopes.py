"""Slopes against R's emtrends, and by differences of means."""

import numpy as np
import pandas as pd
import pytest
from effect_cases import DF, TABLES, data, fit_of

import ranef as rf
from ranef.errors import FitError

BOTH = [(case, df) for case in TABLES["slopes"] for df in case["results"]]


@pytest.mark.parametrize(("case", "df"), BOTH, ids=lambda x: x if isinstance(x, str) else x["id"])
def test_slopes_are_those_of_emtrends(case, df):
    fit = rf.fit(case["formula"], data(case["data"]), family=case["family"])
    by = [case["by"]] * bool(case["by"])
    table = rf.slopes(fit, case["variable"], by=by, df=DF[df], prob=0.9)
    for name in ["estimate", "se", "lower", "upper", "p_value", *["df"] * bool(DF[df])]:
        np.testing.assert_allclose(
            table[name], case["results"][df][name], rtol=2e-6, atol=1e-8, err_msg=name
        )


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"x": rng.uniform(1, 4, 200), "f": list("ab") * 100})
    frame["g"] = np.repeat(range(20), 10)
    eta = (
        np.log(frame["x"])
        + 0.5 * (frame["f"] == "a") * frame["x"]
        + rng.normal(size=20)[frame["g"]]
    )
    frame["y"] = rng.poisson(np.exp(eta))
    return rf.Model("y ~ f * poly(x, 2) + log(x) + (1 | g)", frame, family="poisson")


def test_slopes_of_responses_are_those_of_the_means(model):
    fit, h = model.fit(), 1e-3
    at = [2.0, 3.0]
    table = rf.slopes(fit, "x", by="f", at={"x": at}, kind="response")
    assert table[["f", "x"]].to_numpy().tolist() == [["a", 2.0], ["b", 2.0], ["a", 3.0], ["b", 3.0]]

    def rises(kind):
        means = rf.means(
            fit, ["f", "x"], at={"x": [x + s * h for x in at for s in (-1, 1)]}, kind=kind
        )
        values = means["estimate"].to_numpy().reshape(2, 2, 2)
        return ((values[:, :, 1] - values[:, :, 0]) / (2 * h)).T.ravel()

    np.testing.assert_allclose(table["estimate"], rises("response"), rtol=1e-6)
    linked = rf.slopes(fit, "x", by="f", at={"x": at})
    np.testing.assert_allclose(linked["estimate"], rises("link"), rtol=1e-6)


def test_errors_of_slopes_of_responses_are_those_of_small_changes():
    fit = rf.fit("use ~ age * urban + (1 | district)", data("Contraception"), family="binomial")
    table = rf.slopes(fit, "age", by="urban", at={"age": 5}, kind="response")
    beta, V = fit.fixef().to_numpy(), fit.vcov().to_numpy()

    def slope(b):
        eta = np.array([b[0] + 5 * b[1], b[0] + b[2] + 5 * (b[1] + b[3])])
        mu = 1 / (1 + np.exp(-eta))
        return mu * (1 - mu) * np.array([b[1], b[1] + b[3]])

    steps = 1e-5 * np.eye(4)
    J = np.array([(slope(beta + e) - slope(beta - e)) / 2e-5 for e in steps]).T
    np.testing.assert_allclose(table["estimate"], slope(beta), rtol=1e-8)
    np.testing.assert_allclose(table["se"], np.sqrt(np.diag(J @ V @ J.T)), rtol=1e-6)


def test_posteriors_of_slopes_are_those_of_their_draws():
    cbpp = data("cbpp").assign(time=lambda d: d["period"].astype(float))
    formula = "cbind(incidence, size - incidence) ~ time + (1 | herd)"
    fit = rf.Model(formula, cbpp, family="binomial").fit("laplace", draws=400, seed=1)
    draws = fit.draws_at().beta
    table = rf.slopes(fit, "time", at={"time": 2}, kind="response")
    mu = 1 / (1 + np.exp(-draws @ [1, 2]))
    rise = mu * (1 - mu) * draws[:, 1]
    assert table["estimate"][0] == pytest.approx(rise.mean(), rel=1e-8)
    assert table["sd"][0] == pytest.approx(rise.std(ddof=1), rel=1e-8)
    linked = rf.slopes(fit, "time")
    assert linked["estimate"][0] == pytest.approx(fit.fixef()["time"], rel=1e-9)
    assert linked["probability"][0] == pytest.approx((draws[:, 1] > 0).mean(), abs=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: rf.slopes(f, "tmp"), "`tmp` is not a predictor of the fixed effects."),
        (lambda f: rf.slopes(f, ["temp"]), "`['temp']` is not a predictor"),
        (lambda f: rf.slopes(f, "temp", by=2), "by= takes the name of a column, or several, got 2"),
        (lambda f: rf.slopes(f, "recipe"), "`recipe` is a factor and has no slope"),
        (lambda f: rf.slopes(f, "temp", by="temp"), "has slopes at several places by at="),
        (lambda f: rf.slopes(f, "temp", by="x"), "`x` is not a predictor"),
    ],
)
def test_what_has_no_slope(call, message):
    with pytest.raises(FitError) as caught:
        call(fit_of("cake"))
    assert message in str(caught.value)


def test_slopes_at_the_ends_of_a_spline():
    """A spline is a cubic up to its first knot, whose derivative four of its values give."""
    fit = rf.fit("Reaction ~ bs(Days, 5) + (1 | Subject)", rf.load_dataset("sleepstudy"))
    found = rf.slopes(fit, "Days", at={"Days": [0.0, 9.0]})["estimate"]
    weights = np.array([-11.0, 18.0, -9.0, 2.0]) / 6.0
    for slope, start, step in zip(found, (0.0, 9.0), (1.0, -1.0), strict=True):
        values = fit.predict({"Days": start + step * np.arange(4)}, groups="population")
        assert slope == pytest.approx(weights @ values / step, rel=1e-3)
    with pytest.raises(rf.DataError, match="leaves the range"):
        rf.slopes(fit, "Days", at={"Days": 9.5})


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_predictor_that_does_not_vary_has_no_slope_that_is_known(value):
    data = rf.load_dataset("sleepstudy").assign(dose=value)
    with pytest.warns(rf.DataWarning, match="`dose` left out as a combination of the columns"):
        fit = rf.fit("Reaction ~ Days + dose + (1 | Subject)", data)
    said = "nan stands for 1 of 1 slopes of `dose`, which the data do not determine: "
    with pytest.warns(rf.DataWarning, match=said) as warned:
        found = rf.slopes(fit, "dose")
    assert len(warned) == 1
    assert found["dose"].tolist() == [value]
    assert found["estimate"].isna().all()
