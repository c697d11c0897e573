"""Power of planned studies, against closed forms and brute force."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import DataError, FitError

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def pilot():
    return rf.fit(SLEEP, rf.load_dataset("sleepstudy"))


def test_a_comparison_of_two_arms_has_the_power_of_a_t_test():
    """With one row a group and no random effects the t value has the noncentral t distribution."""
    design = pd.DataFrame({"arm": np.repeat(["a", "b"], 10)})
    found = rf.power("y ~ arm", design=design, beta=[0, 1], sigma=1, n=4000, seed=1)
    wanted = stats.nct.sf(stats.t.ppf(0.975, 18), 18, 1 / np.sqrt(2 / 10))
    power = found.to_frame()["power"].item()
    assert power == pytest.approx(wanted, abs=4 * np.sqrt(0.25 / 4000))


def test_a_treatment_of_groups_has_the_power_of_a_t_test_of_their_means():
    """Balanced groups of m rows: means of variance tau^2 + sigma^2 / m, df of the groups."""
    design = pd.DataFrame({"g": np.repeat(range(12), 4), "arm": np.repeat([0, 1], 24)})
    found = rf.power(
        "y ~ arm + (1 | g)",
        groups=[8, 20],
        design=design,
        beta=[0, 2],
        theta={"g": 1.5},
        sigma=1,
        n=1500,
        seed=1,
    )
    table = found.to_frame()
    for g, power, lower, upper in table[["g", "power", "lower", "upper"]].to_numpy():
        se = np.sqrt((1.5**2 + 1 / 4) * 4 / g)
        wanted = stats.nct.sf(stats.t.ppf(0.975, g - 2), g - 2, 2 / se)
        assert power == pytest.approx(wanted, abs=4 * np.sqrt(0.25 / 1500))
        exact = stats.binomtest(round(power * 1500), 1500).proportion_ci(method="exact")
        assert (lower, upper) == pytest.approx(tuple(exact), abs=1e-9)


def test_a_variance_has_the_power_of_its_f_test():
    """With balanced data the restricted ratio is a function of F: the exact null is simulated."""
    design = pd.DataFrame({"g": np.repeat(range(8), 5)})
    found = rf.power(
        "y ~ 1 + (1 | g)",
        "sd_g[Intercept]",
        design=design,
        beta=[0],
        theta={"g": 0.6},
        sigma=1,
        n=2000,
        seed=2,
    )
    limit = stats.f.ppf(0.95, 7, 32)
    wanted = stats.f.sf(limit / (1 + 5 * 0.36), 7, 32)
    assert found.table["test"].item() == "bootstrap"
    assert found.table["power"].item() == pytest.approx(wanted, abs=0.05)


def test_everything_that_can_be_found_is(pilot):
    found = rf.power(
        pilot,
        ["Days", "sd_Subject[Days]", ". ~ . - (Days | Subject) + (1 | Subject)"],
        groups=[6, 10],
        rows=[4],
        beta={"Days": 8},
        n=200,
        seed=1,
    )
    table = found.to_frame()
    assert table["found"].tolist()[:3] == [
        "Days",
        "sd_Subject[Days]",
        "against Reaction ~ Days + (1 | Subject)",
    ]
    assert table["test"].tolist() == ["t", "bootstrap", "bootstrap"] * 2
    # a slope's sd has the same smaller model, written in another way
    np.testing.assert_array_equal(table["power"][1::3], table["power"][2::3])
    assert "Days 8" in found.truth
    assert str(found).startswith("Power of a planned study\n  Reaction ~ Days + (Days | Subject)\n")


def test_the_same_seed_gives_the_same_studies_whoever_works(pilot):
    alone = rf.power(pilot, groups=[5, 9], n=150, seed=7).to_frame()
    with ThreadPoolExecutor(2) as executor:
        together = rf.power(pilot, groups=[5, 9], n=150, seed=7, executor=executor).to_frame()
    pd.testing.assert_frame_equal(alone, together)


def test_a_generalised_model():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = rf.fit(formula, data, family="binomial")
    found = rf.power(fit, ["sd_herd[Intercept]", ". ~ . - period"], groups=[15], n=40, seed=1)
    table = found.to_frame()
    assert table["test"].tolist() == ["mixture", "chi2"]
    assert (table["power"] > [0.7, 0.9]).all()
    boots = rf.power(fit, ". ~ . - period", test="bootstrap", groups=[15], n=40, seed=1)
    assert 0.85 < boots.to_frame()["power"].item() <= table["power"].iloc[1]
    wald = rf.power(fit, ["period", "period[T.2]"], test="z", groups=[15], n=40, seed=1).to_frame()
    assert wald["test"].tolist() == ["z", "z"]
    assert wald["power"].iloc[0] == pytest.approx(table["power"].iloc[1], abs=0.05)


def test_a_posterior_and_weights_can_be_pilots():
    data = rf.load_dataset("sleepstudy").assign(w=lambda d: 1.0 + d["Days"] % 2)
    fit = rf.fit("Reaction ~ Days + (1 | Subject)", data, "quadrature", weights="w")
    found = rf.power(fit, groups=6, n=100, seed=1, theta={"Subject": 60}, sigma=50)
    assert "sd_Subject[Intercept] 60" in found.truth
    assert "sigma 50" in found.truth


def test_known_standard_errors_are_no_pilot():
    data = {"g": list("ABCDEFGH"), "y": [28, 8, -3, 7, -1, 1, 18, 12.0]}
    fit = rf.fit("y ~ 1 + (1 | g)", data | {"s": [15, 10, 16, 11, 9, 11, 10, 18.0]}, "ml", se="s")
    with pytest.raises(FitError, match="the pilot study has known standard errors of its rows"):
        rf.power(fit, n=10, seed=1)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"find": "Dys"}, FitError, "there is no effect 'Dys' to be found. Did you mean `Days`?"),
        ({"find": []}, FitError, "find= is empty"),
        ({"find": ". ~ ."}, FitError, "is not a smaller model than"),
        ({"find": "sd_Subject[Days]", "test": "t"}, FitError, 'test="t" is for fixed effects: use'),
        ({"test": "wald"}, FitError, "test='wald' does not exist"),
        (
            {"groups": 1},
            DataError,
            "a study of 10 rows cannot be fitted: the grouping factor `Subject` has one level only",
        ),
        ({"rows": 1}, FitError, "a study of 18 rows has other fixed effects than the plan"),
        ({"groups": {"Sub": 3}}, FitError, "`Sub` is not a column of the design"),
        ({"beta": {"Dys": 3}}, FitError, "beta: there is no fixed effect `Dys`. Did you mean"),
        ({"theta": {"sd_Subject[Dys]": 3}}, FitError, "theta: `sd_Subject[Dys]` is no parameter"),
        ({"alpha": 2}, FitError, "`alpha` must lie between 0 and 1, got 2."),
        ({"find": 3}, FitError, "there is no effect 3 to be found. Known names: `Days`, `Inter"),
        ({"design": [1]}, FitError, "`design` is for a study that is given as a formula: a pilot"),
        ({"family": "poisson"}, FitError, "`family` is for a study that is given as a formula"),
        ({"n": 10**12}, FitError, "1,000,000,000,000 studies needs"),
        ({"groups": [10**12]}, FitError, "a study of 10,000,000,000,000 rows needs"),
        ({"n": 0}, FitError, "`n` must be a positive whole number, got 0."),
        ({"study": 3}, FitError, "study is a fit or a formula, got int."),
        ({"study": SLEEP}, FitError, "design is missing: give the rows of the study"),
    ],
)
def test_what_cannot_be_planned_is_said(pilot, options, error, said):
    arguments = {"study": pilot, "n": 20, "seed": 1} | options
    with pytest.raises(error) as caught:
        rf.power(**arguments)
    assert said in str(caught.value)


def test_responses_out_of_reach_are_refused():
    design = pd.DataFrame({"x": np.tile([0, 1], 10), "g": np.repeat(range(10), 2)})
    with pytest.raises(FitError, match=r"row 0 has a response of 1e\+18, which is out of reach"):
        rf.power(
            "y ~ x + (1 | g)", "x", design=design, beta=[800, 1], theta=[0.5], family="poisson", n=2
        )
