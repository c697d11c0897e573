"""Models side by side: checked numbers of four structures, and what is said of them in words."""

import pickle
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from comparison_cases import PRIORS, TAU, P, sleep, structures, two, yields

import ranef as rf
from ranef import progress
from ranef.comparison import compare as module
from ranef.comparison.words.legend import priors_note
from ranef.posterior.prior_sensitivity import SCALES

mpl.use("Agg")
NAMES = ["no random effects", "(1 | Subject)", "(Days || Subject)", "(Days | Subject)"]


# ------------------------------------------------------------------------------ the numbers


def test_marginal_likelihoods_by_another_program():
    table = structures().to_frame().loc[NAMES]
    # the last two are 2.0e-6 and 3.5e-6 above what an earlier quadrature gave
    wanted = [-959.34556067, -907.69622008, -889.6568369, -890.2440625]
    np.testing.assert_allclose(table["log_ml"], wanted, atol=1e-6)
    np.testing.assert_allclose(table["probability"], [0, 9.4e-9, 0.643, 0.357], atol=5e-4)


def test_elpd_of_new_groups_by_another_program():
    table = structures().to_frame().loc[NAMES]
    wanted = [-958.85483, -904.54370, -885.04722, -885.87635]
    np.testing.assert_allclose(table["elpd_group"], wanted, atol=0.001)
    np.testing.assert_allclose(table["se_group"], [24.0, 20.0, 25.7, 25.6], atol=0.05)


def test_differences_are_paired():
    elpd = structures().new_group.elpd
    table = structures().to_frame()
    each = elpd["(1 | Subject)"] - elpd["(Days || Subject)"]
    assert table.loc["(1 | Subject)", "elpd_diff_group"] == pytest.approx(each.sum())
    assert table.loc["(1 | Subject)", "se_diff_group"] == pytest.approx(
        np.sqrt(18 * each.var(ddof=1)), rel=1e-9
    )
    assert list(elpd.index[:2]) == ["308", "309"]


def test_the_range_over_prior_scales_is_that_of_refits():
    table = two().to_frame().loc["none"]
    prior = sleep_prior = yields().asked.priors.terms[0].sd[0]
    assert isinstance(prior, P.HalfStudentT)
    found = []
    for s in (0.25, 4):
        scaled = P.HalfStudentT(sleep_prior.nu, sleep_prior.sigma * s)
        evidence = yields(sd=scaled).log_marginal_likelihood().value
        found.append(yields("Yield ~ 1").log_marginal_likelihood().value - evidence)
    sensitivity = two().sensitivity.query("model == 'none'").set_index("scale")["log_bf"]
    np.testing.assert_allclose(sensitivity[[0.25, 4]], found, atol=1e-4)
    assert table["log_bayes_factor_lower"] == sensitivity.min()
    assert table["log_bayes_factor_upper"] == sensitivity.max()


def test_prior_probabilities_of_models():
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    table = rf.compare(fits, prior={"batches": 1, "none": 3}, seed=1).to_frame()
    odds = table["probability"]["none"] / table["probability"]["batches"]
    assert odds == pytest.approx(3 * np.exp(table.loc["none", "log_bayes_factor"]))
    with pytest.raises(rf.FitError, match="`batches` and `none`; got `a`"):
        rf.compare(fits, prior={"a": 1})
    with pytest.raises(rf.FitError, match="`prior` must be probabilities, got"):
        rf.compare(fits, prior={"batches": -1, "none": 1})


def test_flat_priors_that_cancel():
    flat = {"Intercept": P.Flat(), "sigma": P.Flat()}
    fits = {"batches": yields(**flat), "none": yields("Yield ~ 1", **flat)}
    found = rf.compare(fits, seed=1).to_frame()
    wide = {"Intercept": P.Normal(1500, 1e6), "sigma": P.HalfNormal(1e6)}
    near = {"batches": yields(**wide), "none": yields("Yield ~ 1", **wide)}
    other = rf.compare(near, seed=1).to_frame()
    np.testing.assert_allclose(found["log_bayes_factor"], other["log_bayes_factor"], atol=1e-4)
    with pytest.raises(rf.FitError, match="not defined under flat priors"):
        fits["batches"].log_marginal_likelihood()


def test_no_bayes_factors_but_predictions():
    found = rf.compare({"flat": yields(sd=P.Flat()), "none": yields("Yield ~ 1")}, seed=1)
    assert "log_ml" not in found.to_frame()
    assert found.to_frame()["elpd_group"].notna().all()
    assert "No Bayes factors: `flat` has a flat prior on `sd_Batch[Intercept]`" in str(found)
    with pytest.raises(rf.FitError, match="there are no Bayes factors to draw"):
        found.plot_sensitivity()


# ---------------------------------------------------------------------------------- in words


def test_the_same_seed_and_any_executor_give_the_same_table():
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    alone = rf.compare_structures(model, seed=1, progressbar=False).to_frame()
    with ThreadPoolExecutor(2) as pool:
        found = rf.compare_structures(model, seed=1, progressbar=False, executor=pool)
    pd.testing.assert_frame_equal(found.to_frame(), alone)
    assert alone.loc["(1 | Batch)", "random"] == "(1 | Batch)"
    assert structures().to_frame().loc["(Days | Subject)", "random"] == "(Days | Subject)"


def test_fits_travel_to_other_processes():
    fit = pickle.loads(pickle.dumps(yields()))
    assert fit.loo("group").elpd == yields().loo("group").elpd


def test_point_estimates_offer_what_they_have():
    fits = {"batches": yields(method="ml"), "none": yields("Yield ~ 1", method="ml")}
    found = rf.compare(fits)
    table = found.to_frame()
    assert table.loc["batches", "loglik"] == pytest.approx(-327.327059881135 / 2)
    assert table.loc["none", "df"] == 2
    assert "elpd_group" not in table
    assert "point estimates, which have no predictive densities" in str(found)
    with pytest.raises(rf.FitError, match="no groups were left out"):
        found.plot_elpd()


def test_points_beside_posteriors():
    fits = {"exact": yields(), "none": yields("Yield ~ 1"), "reml": yields(method="reml")}
    found = rf.compare(fits, seed=1)
    table = found.to_frame()
    assert np.isnan(table.loc["reml", "elpd_group"])
    assert np.isnan(table.loc["exact", "loglik"])
    assert "`reml`: restricted log-likelihoods compare only with each other" in str(found)


# ---------------------------------------------------------------------------------- groups


def test_the_first_factor_of_the_largest_model_is_left_out_by_default():
    model = rf.Model("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes"))
    fits = {"nested": model.fit("quadrature", seed=1), "none": None}
    fits["none"] = model.structures()["no random effects"].fit("quadrature", seed=1)
    said = rf.compare(fits, seed=1)
    assert said.new_group.factor == "cask:batch"
    assert said.caveats[0] == (
        "The groups left out are levels of `cask:batch`, the first factor of the largest model; "
        "`group=` takes `batch`, or labels of the rows."
    )
    with pytest.raises(rf.FitError, match="no model has the grouping factor 'btch'"):
        rf.compare(fits, group="btch")
    named = rf.compare(fits, group="batch", seed=1)
    assert len(named.new_group.elpd) == 10
    assert not any("first factor" in text for text in named.caveats)


def test_a_question_that_is_not_asked_has_no_columns():
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    every = rf.compare(fits, seed=1)
    wanted = {"group": ("group",), "row": ("observation",), "": ()}
    for suffix, units in wanted.items():
        found = rf.compare(fits, seed=1, units=units)
        kept = [c for c in every.table if not c.endswith(("_group", "_row")) or f"_{suffix}" in c]
        kept = [c for c in kept if suffix or not c.endswith(("_group", "_row"))]
        pd.testing.assert_frame_equal(found.table, every.table[kept])
        assert ("a new Batch" in str(found)) == (suffix == "group")
        assert ("a new row" in str(found)) == (suffix == "row")
        assert ("Scores are" in str(found)) == bool(suffix)
    assert rf.compare(fits, seed=1, units="group").known_group is None


def test_progress_names_the_model_and_stays_out_of_what_is_not_looked_at(monkeypatch, capsys):
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    rf.compare(fits, seed=1, units=())
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "clock", count(0, 5).__next__)
    rf.compare(fits, seed=1, units=())
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = [line.strip() for line in shown.err.split("\r") if line.strip()]
    assert "Comparing batches: 0 of 2 (5 s)" in lines
    assert "Comparing none: 1 of 2 (15 s)" in lines
    rf.compare(fits, seed=1, units=(), progressbar=False)
    assert capsys.readouterr() == ("", "")


def test_groups_may_be_given_as_labels():
    labels = rf.load_dataset("Dyestuff")["Batch"].to_numpy()
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    found = rf.compare(fits, group=labels, seed=1)
    np.testing.assert_allclose(found.new_group.elpd, two().new_group.elpd, atol=1e-9)
    assert found.new_group.factor == "group"


def test_without_any_grouping_factor():
    fits = {"mean": yields("Yield ~ 1"), "none": yields("Yield ~ 0", "laplace")}
    found = rf.compare(fits, seed=1)
    assert found.new_group is None
    assert "known group" not in str(found)
    assert "The mean has an intercept: without that the data are 10^44 times" in found.verdict


# --------------------------------------------------------------------------- other structures


def test_priors_of_parameters_that_a_simpler_model_lacks():
    priors = PRIORS | {"sd_Subject": {"Days": P.HalfNormal(10)}}
    del priors["corr"]
    model = sleep().with_priors(priors | {"corr_Subject": P.LKJ(3)})
    found = model.structures()
    assert list(found) == NAMES
    assert found["(1 | Subject)"].priors.terms[0].sd == (TAU,)
    assert found["(Days || Subject)"].priors.terms[0].sd == (TAU, P.HalfNormal(10))
    assert found["(Days | Subject)"].priors.terms[0].corr == P.LKJ(3)


def test_structures_keep_rows_weights_and_offset():
    data = rf.load_dataset("sleepstudy").assign(w=2.0, o=lambda d: d["Days"] / 3)
    data.loc[[3, 70], ["Days", "Subject"]] = np.nan
    array = np.linspace(1, 2, 180)
    for weights, offset in (("w", "o"), (array, array)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rf.DataWarning)
            model = rf.Model(
                "Reaction ~ Days + (Days | Subject)", data, weights=weights, offset=offset
            )
        for other in model.structures().values():
            assert other.design.rows.index.equals(model.design.rows.index)
            np.testing.assert_array_equal(other.design.rows.weights, model.design.rows.weights)
            np.testing.assert_array_equal(other.design.rows.offset, model.design.rows.offset)
            np.testing.assert_array_equal(other.design.rows.X, model.design.rows.X)
        same = model.structures()["(Days | Subject)"]
        assert same.fit("ml").loglik == pytest.approx(model.fit("ml").loglik, abs=1e-8)


def test_generalised_models():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    model = rf.Model(formula, data, family="binomial")
    found = rf.compare_structures(model, seed=1, progressbar=False)
    table = found.to_frame()
    assert list(table.index) == ["no random effects", "(1 | herd)"]
    assert table["elpd_group"].idxmax() == "(1 | herd)"
    assert (table["error_group"] < 0.5).all()
    assert table.loc["(1 | herd)", "probability"] > 0.99


# ---------------------------------------------------------------------------------- pictures


def test_a_lone_posterior_is_said():
    found = rf.compare({"exact": yields(), "reml": yields(method="reml")})
    assert "`exact` is the only posterior" in str(found)
    assert "Bayes factors hold" not in str(found)


def test_a_mode_has_no_maximal_likelihood():
    fits = {"mode": yields(method="map"), "ml": yields(method="ml")}
    found = rf.compare(fits)
    assert np.isnan(found.to_frame().loc["mode", "aic"])
    assert "`mode`: the likelihood at a posterior mode is not maximal." in str(found)


def test_a_model_and_itself():
    found = rf.compare({"a": yields(), "b": yields()}, seed=1)
    assert found.verdict == (
        "The data are as probable under `a` as under `b`, and a new Batch is predicted alike."
    )


def test_what_has_no_structures():
    with pytest.raises(
        rf.FitError, match=r"takes a model, got QuadratureFit: rf\.compare_structures\(rf\.Model"
    ):
        rf.compare_structures(yields())
    model = rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff"))
    with pytest.raises(rf.FitError, match="no random effects, and so no simpler structures"):
        rf.compare_structures(model)


def test_point_estimates_of_crossed_structures_need_no_group():
    crossed = rf.Model("diameter ~ 1 + (1 | plate) + (1 | sample)", rf.load_dataset("Penicillin"))
    found = rf.compare_structures(crossed, "ml", progressbar=False).to_frame()
    assert found["loglik"].idxmax() == "(1 | plate) + (1 | sample)"
    assert found["loglik"].notna().all()


def test_families_are_named_where_models_have_several():
    rng = np.random.default_rng(9)
    data = pd.DataFrame({"x": rng.normal(size=40), "g": list("abcdefgh") * 5})
    data["y"] = rng.negative_binomial(2, 0.4, size=40)
    both = [rf.Model("y ~ x + (1 | g)", data, family=f) for f in ("poisson", "negative_binomial")]
    points = str(rf.compare({"p": both[0].fit(), "n": both[1].fit()}))
    assert points.startswith("Which model?")
    assert "p: y ~ x + (1 | g), poisson family with log link" in points
    assert "n: y ~ x + (1 | g), negative_binomial family with log link" in points
    fits = {name: m.fit("laplace", seed=1) for name, m in zip("pn", both, strict=True)}
    found = rf.compare(fits, units=(), progressbar=False)
    best = found.table["log_ml"].idxmax()
    assert found.verdict.startswith(f"The data favour `{best}` ")
    alike = rf.compare(
        {"x": fits["p"], "1": both[0].update("y ~ 1 + (1 | g)").fit("laplace", seed=1)},
        units=(),
        progressbar=False,
    )
    assert str(alike).startswith("Which fixed effects?")
    assert "family" not in str(alike)


def test_priors_of_correlated_and_independent_effects_are_told_apart_where_they_differ():
    """Where zero was observed, both have the same; elsewhere those of `||` hold at zero."""
    data = rf.load_dataset("sleepstudy")
    same = "`sd_Subject[Intercept] ~ HalfStudentT(3, 56.33)`"
    corr = "`corr_Subject ~ LKJ(2)`"
    slope = "`sd_Subject[Days] ~ HalfStudentT(3, 19.56)`"
    for first, expected in (
        (0, f"{same}, {slope} and {corr}."),
        (
            1990,
            f"{same[:-1]} at Days = 1990`, {slope}, {corr[:-1]} at Days = 1990` and {same}.",
        ),
    ):
        frame = data.assign(Days=first + data["Days"])
        models = [rf.Model(f"Reaction ~ Days + (Days {bar} Subject)", frame) for bar in ("|", "||")]
        fits = {str(i): SimpleNamespace(asked=model) for i, model in enumerate(models)}
        note = "Bayes factors hold for the priors of these models: "
        assert priors_note(fits) == note + expected


# ----------------------------------------------------------- models that differ in fixed effects


def effect_fits(method="quadrature", random="(1 | g)", **options):
    rng = np.random.default_rng(21)
    g, x = np.repeat(np.arange(15), 6), rng.normal(size=90)
    y = 2 + 0.25 * x + rng.normal(0, 1, 15)[g] + rng.normal(size=90)
    data = pd.DataFrame({"y": y, "x": x, "g": g})
    common = {"Intercept": rf.priors.Normal(0, 5), "sigma": rf.priors.HalfNormal(2)}
    common |= {"sd_g": rf.priors.HalfNormal(1)} if random else {}
    plus = f" + {random}" if random else ""

    def with_x(width, method=method):
        priors = common | {"x": rf.priors.Normal(0, width)}
        return rf.fit(f"y ~ x{plus}", data, method, priors=priors, **options)

    def null(method=method):
        return rf.fit(f"y ~ 1{plus}", data, method, priors=common, **options)

    return with_x, null


@pytest.mark.parametrize("random", ["(1 | g)", ""])
def test_the_prior_of_a_fixed_effect_that_differs_is_moved(random):
    with_x, null = effect_fits(random=random)
    found = rf.compare({"with": with_x(1), "without": null()}, seed=1)
    true = [
        null().log_marginal_likelihood().value - with_x(s).log_marginal_likelihood().value
        for s in SCALES
    ]
    lines = found.sensitivity.query("priors == 'fixed effects that differ'")
    by_model = lines.pivot_table("log_bf", "scale", "model")
    np.testing.assert_allclose(by_model["without"] - by_model["with"], true, atol=2e-4)
    worse = found.to_frame().sort_values("log_ml").iloc[0]
    sign = 1 if worse.name == "without" else -1
    assert worse["log_bayes_factor_lower"] <= min(sign * np.array(true)) + 2e-4
    assert worse["log_bayes_factor_upper"] >= max(sign * np.array(true)) - 2e-4
    text = " ".join(str(found).split())
    sds = " and of the sds" if random else ""
    assert f"as the priors of `x`{sds} are scaled by 1/4 to 4)" in text
    assert ("Lindley's paradox" in text) == (min(true) < 0 < max(true))
    assert "`beta[x] ~ Normal(0, 1)`" in text


def test_draws_say_the_same_of_the_prior_of_a_fixed_effect():
    with_x, null = effect_fits("laplace", draws=4000, seed=1)
    found = rf.compare({"with": with_x(1), "without": null()}, seed=1)
    exact = rf.compare({"with": with_x(1, "quadrature"), "without": null("quadrature")}, seed=1)
    a, b = (c.sensitivity.query("priors == 'fixed effects that differ'") for c in (found, exact))
    assert np.isfinite(a["mcse"]).all()
    np.testing.assert_allclose(a["log_bf"], b["log_bf"], atol=0.15)
    axes = found.plot_sensitivity()
    assert axes.get_xlabel() == "scale of the priors of all fixed effects that differ"


def test_where_no_prior_is_moved_there_is_no_range():
    data = rf.load_dataset("sleepstudy")
    priors = {"sigma": rf.priors.HalfNormal(50)}
    fits = {
        "wide": rf.fit("Reaction ~ Days", data, "quadrature", priors=priors),
        "narrow": rf.fit(
            "Reaction ~ Days", data, "quadrature", priors=priors | {"Days": rf.priors.Normal(0, 1)}
        ),
    }
    text = str(rf.compare(fits, seed=1))
    assert "the data are" in text
    assert "scaled by" not in text


def refusing(refused, work):
    def one(fit, **options):
        if any(fit.design.formula.text.endswith(text) for text in refused):
            raise rf.FitError("the lattice is too large.")
        return work(fit, **options)

    return one


def test_a_model_that_fails_has_a_row_and_a_reason(monkeypatch):
    every = rf.compare_structures(sleep(), seed=1, units="group").to_frame()
    for name in ("_ask", "_fitted"):
        with monkeypatch.context() as patched:
            broken = refusing(["(Days || Subject)"], getattr(module, name))
            patched.setattr(module, name, broken)
            found = rf.compare_structures(sleep(), seed=1, units="group")
        text = str(found)
        row = next(line for line in text.splitlines() if line.startswith("(Days || Subject)"))
        assert row.split()[3:] == ["failed"] * 4
        assert "`(Days || Subject)` failed: the lattice is too large." in text
        kept = found.to_frame().drop(index="(Days || Subject)")
        np.testing.assert_allclose(kept["elpd_group"], every.loc[kept.index, "elpd_group"])
        assert found.to_frame()["random"].tolist() == every["random"].tolist()
        assert "Slopes of Days differ from Subject to Subject" in found.verdict


def test_what_fails_for_all_models_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "_ask", refusing(["Batch)", "1"], module._ask))
    with pytest.raises(rf.FitError, match="the lattice is too large"):
        rf.compare({"batches": yields(), "none": yields("Yield ~ 1")})
