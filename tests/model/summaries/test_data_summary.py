"""Models of summaries against those of the pooled rows: everything, by every way to add up."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from reference_cases import read_cases, read_frame

import ranef as rf
from ranef.errors import DataError, DataWarning, FitError
from ranef.model.summaries.data_summary import DataSummary

TIGHT = 1e-10


def _frame(n: int = 600, seed: int = 1) -> pd.DataFrame:
    """Return data of sites with arms, nested and crossed factors, weights and offsets."""
    rng = np.random.default_rng(seed)
    site = rng.integers(6, size=n)
    unit = site * 4 + rng.integers(4, size=n)
    rater = rng.integers(5, size=n)
    x, z = rng.normal(size=n) + 0.2 * site, rng.normal(100, 3, size=n)
    arm = rng.integers(3, size=n)
    effect = rng.normal(0, 2, 6)[site] + rng.normal(0, 1, 24)[unit] + rng.normal(0, 1, 5)[rater]
    y = 5000 + 2 * x + 0.3 * z + arm + effect + rng.normal(size=6)[site] * x + rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "z": z,
            "year": rng.integers(1990, 2001, size=n),
            "arm": np.array(["a", "b", "c"])[arm],
            "site": np.array([f"s{i}" for i in range(6)])[site],
            "unit": unit,
            "rater": np.array(list("vwxyz"))[rater],
            "w": rng.uniform(0.5, 2, size=n),
            "o": rng.normal(size=n),
        }
    )


FRAME = _frame()
LEVELS = {"arm": ["a", "b", "c"]}
CASES: dict[str, tuple[str, Mapping[str, object]]] = {
    "plain": ("y ~ x + z + (1 | site)", {}),
    "slopes": ("y ~ arm * x + z + (x | site)", {"levels": LEVELS}),
    "independent slopes": ("y ~ x + (x || site) + (1 | unit)", {}),
    "nested": ("y ~ x + (1 | site/unit)", {}),
    "crossed": ("y ~ x + arm + (1 | rater) + (1 | site)", {"levels": LEVELS}),
    "cells of a factor": ("y ~ arm + (0 + arm | site)", {"levels": LEVELS}),
    "powers": ("y ~ x + I(x^2) + log(z) + (1 | site)", {}),
    "far origin": ("y ~ year + (year | site)", {}),
    "weights": ("y ~ x + (x | site)", {"weights": "w"}),
    "offset": ("y ~ x + offset(o) + (1 | site)", {}),
    "offset column": ("y ~ x + (1 | site)", {"offset": "o"}),
    "no intercept": ("y ~ 0 + arm + x + (1 | site)", {"levels": LEVELS}),
    "coding": ("y ~ C(arm, contr.sum) + (1 | site)", {"levels": LEVELS}),
    "no random effects": ("y ~ x + arm", {"levels": LEVELS}),
}


def _parts(formula: str, options: Mapping[str, object], by: str = "site") -> DataSummary:
    parts = [rf.summarize(formula, part, min_rows=0, **options) for _, part in FRAME.groupby(by)]
    return sum(parts[1:], parts[0])


def _pooled(formula: str, options: Mapping[str, object]) -> rf.Model:
    return rf.Model(formula, FRAME, **{k: v for k, v in options.items() if k != "levels"})


@pytest.mark.parametrize("by", ["site", "rater"])
@pytest.mark.parametrize("name", CASES)
def test_parts_add_up_to_the_pooled_fit(name: str, by: str) -> None:
    formula, options = CASES[name]
    pooled, model = _pooled(formula, options), rf.Model(_parts(formula, options, by))
    assert model.design.n_obs == len(FRAME)
    for method in ("reml", "ml"):
        one, other = pooled.fit(method), model.fit(method)
        assert other.loglik == pytest.approx(one.loglik, rel=TIGHT)
        pd.testing.assert_series_equal(one.fixef(), other.fixef(), rtol=1e-8)
        np.testing.assert_allclose(one.vcov(), other.vcov(), rtol=1e-7)
        np.testing.assert_allclose(one.theta, other.theta, rtol=1e-6, atol=1e-8)
        for label, effects in one.ranef().items():
            again = other.ranef()[label].loc[effects.index]
            np.testing.assert_allclose(effects, again, rtol=1e-6, atol=1e-8)
        assert one.bic == pytest.approx(other.bic, rel=TIGHT)


@pytest.mark.parametrize("name", CASES)
def test_default_priors_are_those_of_the_pooled_rows(name: str) -> None:
    formula, options = CASES[name]
    pooled, model = _pooled(formula, options), rf.Model(_parts(formula, options))
    for one, other in zip(pooled.priors.rows(), model.priors.rows(), strict=True):
        assert str(one.prior) == str(other.prior)
        assert (one.name, one.note) == (other.name, other.note)


def test_posterior_evidence_and_leaving_out_sites_are_exact() -> None:
    formula, options = CASES["slopes"]
    pooled = _pooled(formula, options).fit("quadrature", seed=1)
    post = rf.Model(_parts(formula, options)).fit("quadrature", seed=1)
    evidence = [fit.log_marginal_likelihood() for fit in (pooled, post)]
    assert evidence[0].value == pytest.approx(evidence[1].value, abs=1e-6)
    scores = [fit.scores("group", "site").elpd for fit in (pooled, post)]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
    pd.testing.assert_frame_equal(pooled.hdi(), post.hdi(), rtol=1e-3)  # errors of quadrature


def test_structures_are_compared_without_rows() -> None:
    sleep = rf.load_dataset("sleepstudy")
    formula = "Reaction ~ Days + (Days | Subject)"
    one = rf.compare_structures(rf.Model(formula, sleep), units=("group",), seed=1)
    model = rf.Model(rf.summarize(formula, sleep))
    other = rf.compare_structures(model, units=("group",), seed=1)
    first, second = one.to_frame(), other.to_frame()
    assert list(first.index) == list(second.index)
    numbers = first.select_dtypes("number").columns.intersection(
        ["elpd_group", "log_evidence", "posterior_probability"]
    )
    np.testing.assert_allclose(first[numbers], second[numbers], atol=1e-3)


def test_inference_needs_no_rows() -> None:
    formula, options = CASES["nested"]
    pooled, model = _pooled(formula, options).fit(), rf.Model(_parts(formula, options)).fit()
    for df in ("satterthwaite", "kenward-roger"):
        one, other = (fit.summary(df=df).to_frame() for fit in (pooled, model))
        np.testing.assert_allclose(one, other, rtol=1e-5)
    np.testing.assert_allclose(pooled.confint("profile"), model.confint("profile"), rtol=1e-6)
    np.testing.assert_allclose(pooled.icc().to_frame(), model.icc().to_frame(), rtol=1e-7)
    np.testing.assert_allclose(pooled.r2().to_frame(), model.r2().to_frame(), rtol=1e-7)
    new = FRAME.head(20)
    one, other = (fit.predict(new, prob=0.9) for fit in (pooled, model))
    np.testing.assert_allclose(one, other, rtol=1e-8)


def test_groups_are_left_out_with_all_their_rows() -> None:
    formula, options = CASES["plain"]
    one, other = (
        m.fit().influence() for m in (_pooled(formula, options), rf.Model(_parts(formula, options)))
    )
    assert one["n"].tolist() == other["n"].tolist()
    np.testing.assert_allclose(one["cook"], other["cook"], rtol=1e-6)


def test_bootstrap_draws_responses_of_all_rows() -> None:
    """The residual sum of squares has the rows' degrees of freedom, not those of the summary."""
    formula, options = CASES["plain"]
    intervals = rf.Model(_parts(formula, options)).fit().confint("bootstrap", seed=1)
    expected = _pooled(formula, options).fit().confint("bootstrap", seed=2)
    width = (expected["upper"] - expected["lower"]).to_numpy()[:, None]
    assert (np.abs(intervals - expected) < 0.25 * width).all().all()


def test_a_site_may_lack_levels_and_have_new_groups() -> None:
    formula = "y ~ arm + (1 | unit)"
    few = FRAME[FRAME["arm"] != "b"].iloc[:200]
    rest = FRAME.drop(few.index)
    parts = [rf.summarize(formula, p, levels=LEVELS, min_rows=0) for p in (few, rest)]
    pooled = rf.Model(formula, FRAME).fit()
    assert rf.Model(parts[0] + parts[1]).fit().loglik == pytest.approx(pooled.loglik, rel=TIGHT)
    assert rf.Model(parts[1] + parts[0]).fit().loglik == pytest.approx(pooled.loglik, rel=TIGHT)


def test_the_sum_says_what_it_is_of() -> None:
    summary = _parts(*CASES["crossed"])
    assert summary.n_groups == {"rater": 5, "site": 6}
    assert "600 rows of 30 cells (5 rater, 6 site)" in repr(summary)


def test_what_needs_rows_says_so() -> None:
    fit = rf.Model(_parts(*CASES["plain"])).fit()
    for call in (fit.fitted, fit.residuals, fit.simulate, fit.predict):
        with pytest.raises(FitError, match="has no rows: it was made from cross-products alone"):
            call()


def _summarize(text: str, frame: pd.DataFrame = FRAME, **options: object) -> DataSummary:
    return rf.summarize(text, frame, min_rows=0, **options)  # type: ignore[arg-type]


def test_summaries_that_do_not_add_up_are_refused() -> None:
    one = _summarize("y ~ x + (1 | site)")
    with pytest.raises(DataError, match="summaries of two formulas do not add up"):
        one + _summarize("y ~ z + (1 | site)")
    arms = [_summarize("y ~ arm + (1 | site)", FRAME[FRAME["arm"] != arm]) for arm in "ab"]
    with pytest.raises(
        DataError, match=r"different levels of `arm`, `b` and `c` and `a` and `c`: give"
    ):
        arms[0] + arms[1]
    with pytest.raises(DataError, match="offset='o' and the other offset=None"):
        _summarize("y ~ x + (1 | site)", offset="o") + one
    text = FRAME.assign(x=FRAME["x"].round().astype(str))
    with pytest.raises(DataError, match=r"different columns|different levels"):
        one + _summarize("y ~ x + (1 | site)", text)


def test_models_with_fewer_fixed_effects_share_a_summary() -> None:
    large = rf.Model(_summarize("y ~ arm * x + z + (x | site)", weights="w"))
    for formula in ("y ~ x + (1 | site)", ". ~ . - arm:x", "y ~ z + (0 + x | site)", "y ~ 1"):
        small = large.update(formula)
        rows = rf.Model(small.formula.text, FRAME, weights="w")
        assert small.fit("ml").loglik == pytest.approx(rows.fit("ml").loglik, abs=1e-8)
    small = large.update(". ~ . - arm:x")
    tested = rf.anova(small.fit("ml"), large.fit("ml")).to_frame()
    expected = rf.anova(
        *(rf.Model(m.formula.text, FRAME, weights="w").fit("ml") for m in (small, large))
    ).to_frame()
    assert tested["p_value"].iloc[-1] == pytest.approx(expected["p_value"].iloc[-1], rel=1e-6)
    with pytest.raises(FitError, match=r"does not have the columns of .*Summarise the data"):
        large.update("y ~ x:z")
    shifted = rf.Model(_summarize("y ~ x + offset(z) + (1 | site)"))
    for model, formula in ((large, "log(y) ~ x"), (large, "y ~ x + offset(z)"), (shifted, "y ~ x")):
        with pytest.raises(FitError, match=r"has the sums of `y`.*, and .*Summarise the data"):
            model.update(formula)


def test_structures_of_other_columns_are_refused() -> None:
    model = rf.Model(_summarize("y ~ arm + (arm | site)"))
    with pytest.raises(FitError, match="does not have the columns of"):
        model._with_formula("y ~ arm + (0 + arm | site)")


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_eleven_parts_give_the_pooled_fit_of_lme4(method: str) -> None:
    (case,) = (c for c in read_cases("lme4.json") if c["id"] == f"scotssec_verbal_slope_{method}")
    frame = read_frame(case)
    levels = {"sex": frame["sex"].cat.categories}
    parts = [
        rf.summarize(case["formula"], part, levels=levels, min_rows=0)
        for _, part in frame.groupby(np.arange(len(frame)) % 11)
    ]
    fit = rf.Model(sum(parts[1:], parts[0])).fit(method)
    assert fit.loglik == pytest.approx(case["logLik"], abs=1e-6)
    np.testing.assert_allclose(fit.fixef(), [*case["fixef"].values()], rtol=1e-5)
    np.testing.assert_allclose(fit.se(), [*case["se"].values()], rtol=1e-4)
    np.testing.assert_allclose(fit.theta, case["theta"], rtol=1e-3, atol=1e-4)
    assert fit.sigma == pytest.approx(case["sigma"], rel=1e-5)


def test_new_rows_without_a_complete_one():
    sleep = rf.load_dataset("sleepstudy")
    fit = rf.Model(rf.summarize("Reaction ~ Days + (Days | Subject)", sleep)).fit()
    assert fit.predict(sleep.head(0)).shape == (0,)
    with pytest.warns(DataWarning, match="nan is predicted for 2 of 2 rows, for missing values"):
        assert np.isnan(fit.predict(sleep.head(2).assign(Days=np.nan))).all()
