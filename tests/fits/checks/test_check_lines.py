"""What a check says of fits whose faults are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import ranef as rf
from ranef.fits.checks.case_deletion import one_step_distances
from ranef.model.summaries import lazy_basis


def lines(fit):
    """Return the findings by topic, the first of each."""
    return fit.check().to_frame().drop_duplicates("topic").set_index("topic")


@pytest.fixture(scope="module")
def sleep():
    return rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))


def test_a_fit_that_is_well_says_so_with_figures(sleep):
    found = lines(sleep)
    assert found.loc[["convergence", "boundary", "groups", "influence"], "verdict"].eq("fine").all()
    assert found.loc["groups", "text"] == "18 levels of Subject, 10 rows each."
    exact = sleep.influence()
    assert found.loc["influence", "figure"] == pytest.approx(exact["cook"].max())
    change = (exact["sd_Subject[Days]"] / sleep.estimates()["sd_Subject[Days]"]).abs()
    assert f"{-change.max():.0%} without `335`" in found.loc["influence", "text"]
    assert found.loc["distribution", "verdict"] == "look"  # its tails are heavy
    assert found.loc["distribution", "call"] == ".plot_residuals('qq')"


def test_the_boundary_is_said():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff2"))
    found = lines(fit).loc["boundary"]
    assert (found["verdict"], found["call"]) == ("look", '.fit("map", priors="boundary")')
    assert found["text"] == "(1 | Batch): the estimated sd of Intercept is zero."


def test_few_groups_are_said():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(3), 10)
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": rng.normal(size=30) + 2.0 * g, "g": g})
    found = lines(fit).loc["groups"]
    assert (found["verdict"], found["call"]) == ("look", '.fit("quadrature")')
    assert found["text"].startswith("3 levels of g, 10 rows each. So few hardly determine")


def test_a_group_that_moves_everything_is_named():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(8), 6)
    y = rng.normal(size=48) + np.where(g == 5, 30.0, 0.0)
    found = lines(rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g})).loc["influence"]
    assert found["verdict"] in ("look", "trouble")
    assert "without `5`" in found["text"]
    assert found["call"] == ".plot_influence(group='g')"


def test_levels_that_say_nothing_of_a_slope_are_counted():
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(12), 6)
    x = np.where(g < 4, 1.0, rng.normal(size=72))
    y = rng.normal(size=72) + rng.normal(size=12)[g] * (1 + x)
    found = lines(rf.fit("y ~ x + (x | g)", {"y": y, "x": x, "g": g})).loc["groups"]
    assert "4 tell nothing of their own about `x`" in found["text"]


def test_weak_information_about_effects_is_said():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(40), 2)
    y = 3 * rng.normal(size=80)
    known = {"sd": rf.priors.Constant(0.5)}
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, "laplace", priors=known, seed=1)
    found = lines(fit).loc["information"]
    assert found["verdict"] == "look"
    assert found["figure"] < 0.1


def counts(kind):
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 15)
    mu = np.exp(1 + 0.6 * rng.normal(size=20)[g])
    y = {
        "well": lambda: rng.poisson(mu),
        "overdispersed": lambda: rng.poisson(mu * rng.gamma(1, 1, size=300)),
        "zeros": lambda: np.where(rng.random(300) < 0.3, 0, rng.poisson(mu)),
    }[kind]()
    return rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson")


def test_counts_that_are_well():
    found = lines(counts("well"))
    assert found.loc[["distribution", "dispersion", "zeros", "Laplace"], "verdict"].eq("fine").all()


@pytest.mark.parametrize("kind", ["overdispersed", "zeros"])
def test_planted_faults_of_counts_are_found(kind):
    found = lines(counts(kind))
    topic = "dispersion" if kind == "overdispersed" else "zeros"
    assert found.loc[topic, "verdict"] == "trouble"
    assert found.loc["distribution", "verdict"] == "look"


def test_laplace_is_compared_with_quadrature():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(60), 4)
    p = 1 / (1 + np.exp(-2.0 * rng.normal(size=60)[g]))
    data = {"y": (rng.random(240) < p).astype(int), "g": g}
    fit = rf.fit("y ~ 1 + (1 | g)", data, family="binomial")
    found = lines(fit).loc["Laplace"]
    exact = rf.fit("y ~ 1 + (1 | g)", data, family="binomial", n_agq=25)
    ratio = exact.estimates()["sd_g[Intercept]"] / fit.estimates()["sd_g[Intercept]"]
    assert found["figure"] == pytest.approx(ratio - 1, rel=1e-6)
    assert found["verdict"] == ("look" if abs(ratio - 1) > 0.05 else "fine")


def test_prior_and_data_in_conflict():
    data = rf.load_dataset("Dyestuff")
    priors = {"Intercept": rf.priors.Normal(1000, 50)}
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", data, "quadrature", priors=priors, seed=1)
    found = lines(fit).loc["priors"]
    assert found["verdict"] == "look"
    assert found["text"].startswith("Prior and data are in conflict about")
    assert "`sd_Batch[Intercept]`" in found["text"]
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", data, "quadrature", seed=1)
    assert lines(fit).loc["priors", "verdict"] == "fine"


def test_draws_that_are_too_few_are_trouble():
    data = rf.load_dataset("Dyestuff")
    with pytest.warns(rf.ConvergenceWarning):
        fit = rf.fit("Yield ~ 1 + (1 | Batch)", data, "laplace", draws=100, seed=1)
    found = lines(fit).loc[["convergence"]]
    assert found["verdict"].eq("trouble").all()
    assert found["text"].str.contains("effective sample size").any()


def test_one_step_distances_are_exact_for_independent_groups(sleep):
    codes = sleep.design.rows.terms[0].codes
    found = one_step_distances(sleep, codes, 18)
    data = rf.load_dataset("sleepstudy")
    beta, V = sleep.fixef().to_numpy(), sleep.vcov().to_numpy()
    rows, estimate = sleep.design.rows, sleep.estimate
    total, right = np.zeros((2, 2)), np.zeros(2)
    for level in range(1, 18):
        own = codes == level
        half = estimate.sigma * rows.terms[0].columns[own] @ estimate.Lambdas[0]
        inverse = np.linalg.inv(half @ half.T + estimate.sigma**2 * np.eye(own.sum()))
        total += rows.X[own].T @ inverse @ rows.X[own]
        right += rows.X[own].T @ inverse @ data["Reaction"].to_numpy()[own]
    change = np.linalg.solve(total, right) - beta
    assert found[0] == pytest.approx(change @ np.linalg.solve(V, change) / 2, rel=1e-6)


def test_a_model_without_groups_is_checked():
    found = rf.fit("Reaction ~ Days", rf.load_dataset("sleepstudy")).check().to_frame()
    assert found["topic"].tolist() == ["convergence", "distribution", "spread"]


def test_what_takes_long_is_said_and_not_computed():
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(500), 220)
    fit = rf.fit(
        "y ~ 1 + (1 | g)", {"y": rng.normal(size=110_000) + rng.normal(size=500)[g], "g": g}
    )
    page = fit.check()
    assert len(page.skipped) == 2
    assert "Not computed: influence of groups, a fit each: .influence(group='g', levels=)" in str(
        page
    )


def test_a_fit_without_fixed_effects_or_without_a_model_is_checked():
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(10), 6)
    data = {"y": rng.normal(size=60) + rng.normal(size=10)[g], "g": g}
    fit = rf.fit("y ~ 0 + (1 | g)", data)
    assert lines(fit).loc["influence", "text"].startswith("g; `sd_g[Intercept]` changes by")
    page = replace(fit, engine=None).check()
    assert page.to_frame()["topic"].tolist() == ["convergence", "boundary", "groups", "information"]
    assert page.skipped == ("influence, residuals and priors, as this fit has no model to ask",)


def test_a_formula_with_quoted_names_is_not_quoted_again():
    data = rf.load_dataset("sleepstudy").rename(columns={"Days": "days awake"})
    page = str(rf.fit("Reaction ~ `days awake` + (1 | Subject)", data).check())
    assert page.splitlines()[0] == "Check of Reaction ~ `days awake` + (1 | Subject), REML"


def _without_rows(kind):
    rng = np.random.default_rng(11)
    g, h = rng.integers(9, size=400), rng.integers(3, size=400)
    x = rng.integers(4, size=400)
    y = x + rng.normal(size=9)[g] + rng.normal(size=3)[h] + rng.normal(size=400)
    data = {"y": y, "x": x, "double": 2 * x, "good": (y > 1).astype(int), "g": g, "h": h}
    formula, options = "y ~ x + double + (x | g) + (1 | h)", {"method": "reml"}
    if kind == "counted":
        formula, options = "good ~ x + (1 | g)", {"method": "ml", "family": "bernoulli"}
    if kind == "posterior":
        options = {"method": "laplace", "seed": 1, "draws": 500}
    lazy = pl.DataFrame(data).lazy()
    given = (rf.summarize(formula, data), None) if kind == "summary" else (formula, lazy)
    method = options.pop("method")
    of_fit = {name: options.pop(name) for name in ("seed", "draws") if name in options}
    fits = [rf.Model(*one, **options).fit(method, **of_fit) for one in (given, (formula, data))]
    assert not fits[0].design.has_rows
    return fits


@pytest.mark.filterwarnings("ignore:the fixed effects are linearly dependent")
@pytest.mark.parametrize("kind", ["summary", "lazy", "pairs", "counted", "posterior"])
def test_a_fit_without_rows_is_checked_for_what_needs_none(kind, monkeypatch):
    if kind == "pairs":
        monkeypatch.setattr(lazy_basis, "MAX_SUMS", 0)
    without, with_rows = _without_rows(kind)
    found, full = without.check().to_frame(), with_rows.check().to_frame()
    expected = full[full["topic"].isin(found["topic"])]
    assert set(found["topic"]) >= {"convergence", "groups", "information"}
    assert found["topic"].tolist() == expected["topic"].tolist()
    assert found["verdict"].tolist() == expected["verdict"].tolist()
    if without.design.sufficient.is_paired:
        assert kind == "pairs"
        said = found.loc[found["topic"] == "groups", "text"].tolist()
        assert [text.split(".")[0] for text in said] == ["9 levels of g", "3 levels of h"]
    elif kind != "posterior":
        assert kind != "pairs"
        assert found["text"].tolist() == expected["text"].tolist()
    (skipped,) = without.check().skipped
    made_from = "counts of equal rows" if kind == "counted" else "cross-products"
    assert skipped.startswith(f"influence and residuals, as this model was made from {made_from} ")
