"""Linear hypotheses, as text and as weights, against the covariance of the fixed effects."""

import numpy as np
import pytest
from effect_cases import fit_of
from scipy import stats

import ranef as rf
from fits import frame
from ranef.errors import DataWarning, FitError, FormulaError


def test_an_equation_is_left_less_right():
    fit = fit_of("sleepstudy")
    beta, V = fit.fixef().to_numpy(), fit.vcov().to_numpy()
    texts = ["Days = 10", "Days", "2 * (Days - 10) == -Intercept/25 - 3 * 2", "Days * 2 - Days = 1"]
    found = rf.hypothesis(fit, texts)
    weights = np.array([[0, 1], [0, 1], [1 / 25, 2], [0, 1]])
    estimate = weights @ beta - [10, 0, 20 - 6, 1]
    se = np.sqrt(np.diag(weights @ V @ weights.T))
    np.testing.assert_allclose(found["estimate"], estimate, rtol=1e-10)
    np.testing.assert_allclose(found["se"], se, rtol=1e-10)
    np.testing.assert_allclose(found["p_value"], 2 * stats.norm.sf(abs(estimate / se)), rtol=1e-9)
    assert found["hypothesis"].tolist() == texts


def test_weights_are_compared_with_zero():
    found = rf.hypothesis(fit_of("cake"), {"recipe[T.B]": 1, "recipe[T.C]": -1.0})
    same = rf.hypothesis(fit_of("cake"), "recipe[T.B] = `recipe[T.C]`")
    assert found["hypothesis"].tolist() == ["recipe[T.B] - recipe[T.C] = 0"]
    np.testing.assert_array_equal(found.iloc[:, 1:], same.iloc[:, 1:])
    negative = rf.hypothesis(fit_of("cake"), {"recipe[T.B]": -1, "recipe[T.C]": 0.5})
    assert negative["hypothesis"].tolist() == ["-recipe[T.B] + 0.5 * recipe[T.C] = 0"]
    product = rf.hypothesis(fit_of("cake"), "recipe[T.B]:temp - 1 = 0")
    assert product["estimate"][0] == pytest.approx(fit_of("cake").fixef()["recipe[T.B]:temp"] - 1)


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom_of_a_coefficient_are_those_of_the_summary(df):
    fit = fit_of("sleepstudy")
    expected = fit.summary(df=df).to_frame().loc["Days"]
    found = rf.hypothesis(fit, "Days", df=df).iloc[0]
    names = ["estimate", "se", "df", "t", "p_value"]
    np.testing.assert_allclose(found[names].astype(float), expected[names], rtol=1e-12)
    half = stats.t.ppf(0.975, expected["df"]) * expected["se"]
    assert found["upper"] - found["estimate"] == pytest.approx(half, rel=1e-10)


def test_a_posterior_has_the_probability_of_the_larger_side():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    fit = model.fit("quadrature")
    found = rf.hypothesis(fit, "Intercept = 1550").iloc[0]
    curve = fit.curve("Intercept")
    assert found["probability"] == pytest.approx(1 - float(curve.cdf(1550.0)), abs=1e-6)
    assert found["estimate"] == pytest.approx(curve.mean - 1550, rel=1e-8)
    np.testing.assert_allclose(found[["lower", "upper"]].astype(float) + 1550, curve.hdi(0.95))
    assert "p_value" not in found


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("Dayz = 1", FormulaError, "there is no fixed effect `Dayz`. Did you mean `Days`?"),
        ({"Dayz": 1}, FitError, "there is no fixed effect `Dayz`. Did you mean `Days`?"),
        ("Days * Days = 1", FormulaError, "a hypothesis is linear"),
        ("1 / Days = 1", FormulaError, "a hypothesis is linear"),
        ("Days / 0 = 1", FormulaError, "a hypothesis is linear"),
        ("Days > 1", FormulaError, "a hypothesis is linear"),
        ("Days ^ 2", FormulaError, "a hypothesis is linear"),
        ("Days = 1 = 2", FormulaError, "a hypothesis has one `=`."),
        ("Days =", FormulaError, "expected a column, a number or `(`"),
        ("exp(Days) = 1", FormulaError, "there is no fixed effect `exp(Days)`."),
        ("Days.__class__", FormulaError, "there is no fixed effect `Days.__class__`"),
        ("Days[0]", FormulaError, "subscripts and lists are not allowed"),
        ("Days - Days = 1", FitError, "has no coefficient with a weight."),
        ({}, FitError, "has no coefficient with a weight."),
        ([], FitError, "there is no hypothesis"),
        ({"Days": "1"}, FitError, "the weight of `Days` is not a number: '1'."),
        ([3], FitError, "a hypothesis is an equation, 'Days = 10', or a dict"),
    ],
)
def test_what_is_no_hypothesis(asked, error, message):
    with pytest.raises(error) as caught:
        rf.hypothesis(fit_of("sleepstudy"), asked)
    assert message in str(caught.value)


def test_a_coefficient_that_was_left_out_is_read_as_one_name():
    data = frame().assign(f=lambda d: np.where(d["x"] > 0, "a", "b"), h=lambda d: d["f"])
    with pytest.warns(DataWarning, match="linearly dependent"):
        fit = rf.fit("y ~ f + h + (1 | g)", data)
    with pytest.raises(FormulaError, match=r"there is no fixed effect `h\[T.b\]`"):
        rf.hypothesis(fit, "h[T.b] = 0")
