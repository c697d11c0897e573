"""What fits answer through their engines, beside R: lme4, lmerTest, pbkrtest, performance."""

import json
from functools import cache

import numpy as np
import pytest
from reference_cases import REFERENCE
from scipy import linalg
from threadpoolctl import threadpool_info, threadpool_limits

import ranef as rf
from ranef.design import model_matrix
from ranef.effects import joint_tests
from ranef.leave_one_out import gaussian_densities
from ranef.likelihood.bootstrap import bootstrap
from ranef.likelihood.linear import crossproducts, exact_fit, expected_information
from ranef.model import shared_engine
from ranef.priors import assignment

WITH_ALL_ROWS = [
    (linalg, "solve_triangular"),
    (model_matrix, "_independent"),
    (assignment, "_resolved"),
    (crossproducts, "_cross_products"),
    (exact_fit, "_rounding"),
    (expected_information, "_traces"),
    (joint_tests, "term_contrasts"),
    (bootstrap, "span"),
    (bootstrap, "simulated"),
    (gaussian_densities, "_without_rows"),
]
CASES = json.loads((REFERENCE / "inference.json").read_text())


@cache
def fitted(formula, data, method):
    """Return a fit of a shipped data set."""
    name = data.removesuffix(".csv")
    frame = rf.load_dataset(name)
    family = "gaussian"
    if name == "Contraception":
        frame["ch"], family = np.where(frame["livch"] == "0", "N", "Y"), "binomial"
    return rf.Model(formula, frame, family=family).fit(method)


def renamed(name):
    """Return the name of a coefficient in R as it is here."""
    if name == "(Intercept)":
        return "Intercept"
    factors = {"recipe": "BC", "Machine": "BC", "sex": "F"}
    for factor, levels in factors.items():
        if name[: len(factor)] == factor and name[len(factor) :] in levels:
            return f"{factor}[T.{name[len(factor) :]}]"
    return name


@pytest.mark.parametrize("case", CASES["likelihood_ratio_tests"], ids=lambda case: case["id"])
def test_likelihood_ratios(case):
    fits = [fitted(case[k]["formula"], case["data"], "ml") for k in ("null", "alternative")]
    found = rf.anova(*fits, test="chi2").to_frame().iloc[-1]
    assert found["statistic"] == pytest.approx(case["chisq"], abs=1e-6)
    assert found["p_value"] == pytest.approx(case["p_chi2"], abs=1e-6)
    assert found["df"] == case["df"]
    for fit, key in zip(fits, ("null", "alternative"), strict=True):
        assert fit.aic == pytest.approx(case[key]["AIC"], abs=1e-5)
        assert fit.bic == pytest.approx(case[key]["BIC"], abs=1e-5)


@pytest.mark.parametrize("case", CASES["denominator_df"], ids=lambda case: case["id"])
@pytest.mark.parametrize("kind", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom(case, kind):
    found = fitted(case["formula"], case["data"], "reml").summary(df=kind).to_frame()
    wanted = case[kind.replace("-", "_")]
    assert len(found) == len(wanted)
    for name, row in wanted.items():
        own = found.loc[renamed(name)]
        assert own["df"] == pytest.approx(row["df"], rel=1e-5)
        assert own["p_value"] == pytest.approx(row["p"], rel=1e-4)
        assert own["se"] == pytest.approx(row["se"], rel=1e-6)
        assert own["t"] == pytest.approx(row["t"], rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("case", CASES["profile_confint"], ids=lambda case: case["id"])
def test_profile_intervals(case):
    fit = fitted(case["formula"], case["data"], "reml")
    found = fit.confint("profile", prob=case["level"])
    named = {renamed(row["parameter"]): row["exact"] for row in case["intervals"]}
    fixed = [name for name in named if name in found.index]
    assert "Intercept" in fixed
    for name in fixed:
        np.testing.assert_allclose(found.loc[name], named[name], rtol=1e-6)
    others = sorted(tuple(v) for k, v in named.items() if k not in fixed)
    ours = sorted(map(tuple, found.drop(index=fixed).to_numpy()))
    np.testing.assert_allclose(ours, others, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES["icc_r2"], ids=lambda case: case["id"])
def test_shares_of_variance(case):
    method = "reml" if case["criterion"] == "REML" else "ml"
    fit = fitted(case["formula"], case["data"], method)
    icc, r2 = fit.icc().to_frame()["estimate"], fit.r2().to_frame()["estimate"]
    assert icc["adjusted"] == pytest.approx(case["icc_adjusted"], abs=1e-6)
    assert icc["unadjusted"] == pytest.approx(case["icc_unadjusted"], abs=1e-6)
    assert r2["marginal"] == pytest.approx(case["r2_marginal"], abs=1e-6)
    assert r2["conditional"] == pytest.approx(case["r2_conditional"], abs=1e-6)


@pytest.mark.parametrize("case", CASES["parametric_bootstrap"]["own_loop"], ids=lambda c: c["id"])
def test_bootstrap_tests(case):
    method = case["criterion"].split()[0].lower()
    fits = [fitted(case[k], case["data"], method) for k in ("null", "alternative")]
    found = rf.anova(*fits, test="bootstrap", n=2000, seed=1).to_frame().iloc[-1]
    assert found["statistic"] == pytest.approx(case["statistic"], abs=1e-5)
    assert found["p_lower"] - 0.02 < case["p"] < found["p_upper"] + 0.02


# ----------------------------------------------------------------------------- what is refused


def dyestuff(method, **options):
    """Return a fit of batches."""
    return rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).fit(method, **options)


def test_kinds_of_degrees_of_freedom():
    with pytest.raises(rf.FitError) as caught:
        dyestuff("reml").summary(df="kenward")
    assert "`kenward-roger`" in str(caught.value)
    with pytest.raises(rf.FitError) as caught:
        dyestuff("map").summary(df="satterthwaite")
    assert str(caught.value) == (
        "degrees of freedom are those of a REML or ML fit, not of a map fit."
    )
    with pytest.raises(rf.FitError, match="is for linear models: with the binomial family"):
        fitted("use ~ age + (1 | district)", "Contraception.csv", "ml").summary(df="satterthwaite")


def test_intervals_that_do_not_exist():
    with pytest.raises(rf.FitError) as caught:
        dyestuff("reml").confint("hpd")
    assert str(caught.value).startswith("method='hpd' is not available for a reml fit.")
    with pytest.raises(rf.FitError) as caught:
        dyestuff("reml").confint("profile", n=3)
    assert (
        str(caught.value)
        == "confint('profile') has no option `n`. Known names: `prob`, `executor`."
    )
    with pytest.raises(rf.FitError, match="`n` must be a positive whole number, got 0"):
        dyestuff("reml").bootstrap(0)


def test_the_same_bootstrap_whatever_it_is_asked_through():
    fit = dyestuff("reml")
    found = fit.confint("bootstrap", n=200, seed=3)
    assert found.equals(fit.bootstrap(200, seed=3).confint())
    own = fit.bootstrap(20, statistic=lambda refit: refit.icc().to_frame()["estimate"], seed=3)
    assert list(own.estimates.columns) == ["adjusted", "unadjusted", "Batch"]


def test_savage_dickey_of_generalised_models():
    model = rf.Model(
        "cbind(incidence, size - incidence) ~ 1 + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )
    fit = model.fit("laplace", draws=1000, seed=1)
    with pytest.raises(rf.FitError, match="savage_dickey is for linear models"):
        fit.savage_dickey("sd_herd[Intercept]")
    assert fit.prior_sensitivity([1.0])["log_ratio"].tolist() == [0.0]


def test_what_the_data_can_carry_is_asked_once(monkeypatch):
    asked = []
    for name in ("check_residual_variation", "inner_products"):
        original = getattr(shared_engine, name)
        monkeypatch.setattr(
            shared_engine,
            name,
            lambda *given, name=name, original=original, **how: (
                asked.append(name) or original(*given, **how)
            ),
        )
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    first, again = model.fit(), model.fit(verbose=False)
    assert asked == ["check_residual_variation", "inner_products"]
    assert first.objective == again.objective
    model.fit("ml")
    assert asked[2:] == ["check_residual_variation"]


def test_what_is_done_with_all_rows_takes_one_thread(monkeypatch):
    seen = {}

    def watched(owner, name):
        function = getattr(owner, name)

        def call(*args, **kwargs):
            pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            seen.setdefault(name, set()).update(pool["num_threads"] for pool in pools)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    for owner, name in WITH_ALL_ROWS:
        watched(owner, name)
    with threadpool_limits(2, "blas"):
        model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
        fit = model.fit()
        fit.ranef_table()
        rf.joint_tests(fit)
        fit.bootstrap(5, seed=1)
        model.fit("quadrature", seed=1).loo("observation")
    assert seen == {name: {1} for _, name in WITH_ALL_ROWS}
