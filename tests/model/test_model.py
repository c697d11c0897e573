"""`Model` and `fit`: what goes where, what is refused, what is said on the way."""

from __future__ import annotations

import warnings
from dataclasses import asdict, replace
from types import SimpleNamespace

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pymc as pm
import pytest
from meta_cases import SCHOOLS
from scipy import optimize, stats

import ranef as rf
from fits import FORMULAS, dense_Z, frame, known_posterior, model_of
from ranef.likelihood.generalized import gauss_hermite
from ranef.likelihood.linear import reml
from ranef.likelihood.predictions import log_likelihood
from ranef.model.describe import describe
from ranef.posterior.sampling import pymc_hierarchical

SLEEP = "Reaction ~ Days + (Days | Subject)"
OF_MODEL = "`family`, `link`, `weights`, `offset`, `priors`, `missing`, `functions`"
FIT_OPTIONS = {
    "draws": 7,
    "tune": 8,
    "chains": 3,
    "seed": 5,
    "cores": 1,
    "progressbar": False,
    "target_accept": 0.8,
}


BUILT = SimpleNamespace(named_vars={})  # stands for a model in PyMC
METHODS = "`reml`, `ml`, `map`, `laplace`, `quadrature`, `mcmc`"


@pytest.fixture
def sleep():
    return rf.Model(SLEEP, rf.load_dataset("sleepstudy"))


def same(a, b):
    pd.testing.assert_series_equal(a.estimates(), b.estimates())
    assert a.method == b.method


# ----------------------------------------------------------------------------- what goes where


def test_reml_is_what_a_model_is_fitted_by(sleep):
    assert sleep.fit().method == sleep.fit("reml").method == "reml"
    same(sleep.fit(), sleep.fit("reml"))
    assert sleep.fit("ml").method == "ml"
    assert sleep.fit("ml").objective != sleep.fit().objective


def test_a_model_can_be_fitted_again(sleep):
    first = sleep.fit()
    sleep.fit("ml")
    same(first, sleep.fit())
    assert first.design is sleep.design


def test_fit_is_model_and_fit_in_one_call(sleep):
    for method in ("reml", "ml"):
        same(rf.fit(SLEEP, rf.load_dataset("sleepstudy"), method), sleep.fit(method))


@pytest.mark.parametrize(
    "options",
    [
        {"weights": "w"},
        {"offset": "z"},
        {"weights": "w", "offset": np.arange(240.0)},
        {"family": "gaussian", "link": "identity"},
        {"functions": {"half": lambda v: v / 2}},
        {"missing": "raise"},
        {"priors": {"sigma": rf.priors.HalfNormal(3)}},
    ],
)
def test_fit_passes_the_options_of_the_model_on(options):
    formula = "y ~ half(x) + (1 | g)" if "functions" in options else "y ~ x + (1 | g)"
    same(rf.fit(formula, frame(), **options), rf.Model(formula, frame(), **options).fit())


def test_priors_and_links_are_held_against_what_there_is():
    model = rf.Model("y ~ x + (1 | g)", frame(), priors={"sigma": rf.priors.HalfNormal(3)})
    assert "HalfNormal(3)" in repr(model)
    with pytest.raises(rf.FitError, match="link='logit' is not available"):
        rf.Model("y ~ x + (1 | g)", frame(), link="logit")


def test_options_of_the_model_change_the_estimates():
    plain = rf.fit("y ~ x + (1 | g)", frame())
    for options in ({"weights": "w"}, {"offset": "z"}):
        fit = rf.fit("y ~ x + (1 | g)", frame(), **options)
        assert fit.sigma != pytest.approx(plain.sigma, rel=1e-3)


def test_missing_rows_are_dropped_or_refused():
    data = frame().assign(x=frame()["x"].where(frame()["x"] > -2))
    with pytest.warns(rf.DataWarning) as caught:
        assert rf.fit("y ~ x + (1 | g)", data).n_obs < 240
    assert [w.filename for w in caught] == [__file__]
    with pytest.raises(rf.DataError):
        rf.fit("y ~ x + (1 | g)", data, missing="raise")


@pytest.mark.parametrize("through", ["model", "fit"])
def test_options_of_the_sampler_reach_it(monkeypatch, through):
    model = model_of("one factor")
    seen, tree = {}, known_posterior(model, draws=1000).posterior

    def sample(built, settings, starts):
        assert set(starts.data_vars) >= {"beta", "sigma", "b_g"}
        seen.update(asdict(settings), model=built.made)
        return tree

    def hierarchical(design, priors, *, centered):
        assert priors.rows() == model.priors.rows()
        return SimpleNamespace(named_vars={}, made=(design.fixed, centered))

    monkeypatch.setattr(pymc_hierarchical, "sample_pymc", sample)
    monkeypatch.setattr(pymc_hierarchical, "hierarchical", hierarchical)
    if through == "model":
        fit = model.fit("mcmc", centered=True, **FIT_OPTIONS)
    else:
        fit = rf.fit(FORMULAS["one factor"], frame(), "mcmc", centered=True, **FIT_OPTIONS)
    assert seen == FIT_OPTIONS | {"model": (("Intercept", "x"), True)}
    assert fit.method == "mcmc"
    assert fit.posterior is tree
    model.fit("mcmc", form="hierarchical")
    defaults = {"draws": 1000, "tune": 1000, "chains": 4, "seed": None, "cores": None}
    defaults |= {"progressbar": True, "target_accept": 0.9}
    assert seen == defaults | {"model": (("Intercept", "x"), False)}


def test_a_polars_frame_is_as_good():
    for kind in ("nested", "levels as coefficients"):
        fit = rf.fit(FORMULAS[kind], pl.DataFrame(frame().to_dict("list")))
        same(fit, model_of(kind).fit())


def test_what_a_model_prints(sleep):
    assert repr(sleep) == str(describe(sleep.design, sleep.family, sleep.priors.rows()))
    assert list(sleep.to_frame().index) == [row.name for row in sleep.priors.rows()]
    assert "<pre>" in sleep._repr_html_()
    assert repr(sleep).startswith(f"{SLEEP}\n  gaussian family with identity link, 180 rows\n")


def test_the_pymc_model_has_the_documented_variables(sleep):
    names = {"beta", "sigma", "sd_Subject", "corr_Subject", "b_Subject", "y"}
    assert names <= set(sleep.to_pymc().named_vars)
    assert sleep.to_pymc(centered=True).rvs_to_transforms != sleep.to_pymc().rvs_to_transforms
    table = sleep.prior_table()
    assert list(table.columns) == ["parameter", "coef", "prior", "note"]
    expected = ["beta", "beta", "sigma", "sd_Subject", "sd_Subject", "corr_Subject"]
    assert list(table["parameter"]) == expected


# ----------------------------------------------------------------------------- the criterion


def dense_criterion(design, theta, *, reml):
    X, y, w, theta = (
        design.rows.X,
        design.rows.y - design.rows.offset,
        design.rows.weights,
        list(theta),
    )
    V = np.diag(1 / w)
    for term in design.terms:
        Lambda = np.zeros((term.n_coefs, term.n_coefs))
        for j in range(term.n_coefs):
            for i in range(j, term.n_coefs if term.covariance.has_correlations else j + 1):
                Lambda[i, j] = theta.pop(0)
        half = dense_Z(design.rows.term(term.label)) @ np.kron(np.eye(term.n_levels), Lambda)
        V += half @ half.T
    inverse = np.linalg.inv(V)
    information = X.T @ inverse @ X
    left = y - X @ np.linalg.solve(information, X.T @ inverse @ y)
    degrees = len(y) - reml * X.shape[1]
    value = degrees * (1 + np.log(2 * np.pi * (left @ inverse @ left) / degrees))
    return value + np.linalg.slogdet(V)[1] + reml * np.linalg.slogdet(information)[1]


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_criterion_is_the_dense_one_at_any_theta(kind, method):
    model, rng = model_of(kind), np.random.default_rng(3)
    fit = model.fit(method)
    for theta in (fit.theta, rng.normal(size=fit.theta.shape), 0 * fit.theta):
        expected = dense_criterion(model.design, theta, reml=method == "reml")
        assert model.criterion(list(theta), method) == pytest.approx(expected, rel=1e-9)
    assert model.criterion(fit.theta, method) == pytest.approx(fit.objective, rel=1e-12)


@pytest.mark.parametrize(
    ("theta", "method", "message"),
    [
        ([1.0], "reml", "theta has shape (1,), expected (3,)."),
        (1.0, "ml", "theta has shape (), expected (3,)."),
        (np.ones((3, 1)), "ml", "theta has shape (3, 1), expected (3,)."),
        (
            [1, 0, 1],
            "mcmc",
            "method='mcmc' has no criterion. Known names: `reml`, `ml`.",
        ),
        ([1, 0, 1], "REML", "method='REML' has no criterion. Did you mean `reml` or `ml`?"),
    ],
)
def test_where_there_is_no_criterion(sleep, theta, method, message):
    with pytest.raises(rf.FitError) as caught:
        sleep.criterion(theta, method)
    assert str(caught.value) == message


# --------------------------------------------------------------------- what is said on the way


def test_verbose_prints_the_steps(sleep, capsys):
    fit = sleep.fit("ml", verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(fit.trace)
    for line, row in zip(lines, fit.trace.itertuples(index=False), strict=True):
        assert [float(word) for word in line.split()] == pytest.approx(list(row), abs=1e-6)
    rf.fit(SLEEP, rf.load_dataset("sleepstudy"), verbose=True)
    assert capsys.readouterr().out.count("\n") >= 1
    sleep.fit(verbose=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["ml", "map"])
def test_steps_of_generalised_models_are_printed_when_they_are_taken(method, capsys, monkeypatch):
    printed, laplace = [], gauss_hermite.laplace
    cbpp = rf.load_dataset("cbpp")
    model = rf.Model("cbind(incidence, size - incidence) ~ period + (1 | herd)", cbpp, "binomial")

    def watched(*args):
        printed.append(capsys.readouterr().out)
        return laplace(*args)

    monkeypatch.setattr(gauss_hermite, "laplace", watched)
    fit = model.fit(method, verbose=True)
    assert sum(map(bool, printed)) > 5
    lines = ("".join(printed) + capsys.readouterr().out).splitlines()
    values = np.array([[float(word) for word in line.split()] for line in lines])
    trace = fit.trace.to_numpy()[:, : values.shape[1]]
    starts = range(len(values) - len(trace) + 1)  # of one of the searches, that was the best
    assert any(np.allclose(values[i:][: len(trace)], trace, atol=1e-6) for i in starts)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_an_optimiser_that_stopped_short_warns(sleep, monkeypatch, method):
    stopped = replace(sleep.fit(method).estimate, convergence=rf.Convergence.MAX_ITERATIONS)
    monkeypatch.setattr(reml, "estimate", lambda *_, **__: stopped)
    for call in (sleep.fit, lambda how: rf.fit(SLEEP, rf.load_dataset("sleepstudy"), how)):
        with pytest.warns(rf.ConvergenceWarning) as caught:
            fit = call(method)
        assert [str(w.message) for w in caught] == [rf.Convergence.MAX_ITERATIONS.value]
        assert [w.filename for w in caught] == [__file__]
        assert fit.converged is False
        assert str(fit).endswith("the gradient vanished; the estimates are not\nat the optimum.")


def test_chains_that_disagree_warn(monkeypatch):
    model = model_of("one factor")
    sigma = np.random.default_rng(1).gamma(50, 0.02, (4, 1000)) + np.arange(4)[:, None]
    posterior = known_posterior(model, draws=1000, sigma=sigma)
    monkeypatch.setattr(pymc_hierarchical, "hierarchical", lambda *_, **__: BUILT)
    monkeypatch.setattr(pymc_hierarchical, "sample_pymc", lambda *_, **__: posterior.posterior)
    for call in (model.fit, lambda *a, **k: rf.fit(FORMULAS["one factor"], frame(), *a, **k)):
        with pytest.warns(rf.ConvergenceWarning) as caught:
            call("mcmc", form="hierarchical")
        assert [w.filename for w in caught] == [__file__]
        assert str(caught[0].message) == " ".join(posterior.diagnostics.messages())


def test_dependent_columns_are_left_out_by_reml_and_kept_by_mcmc(monkeypatch):
    model = rf.Model("y ~ x + twice + (1 | g)", frame().assign(twice=2 * frame()["x"]))
    with pytest.warns(rf.DataWarning, match="`twice` left out"):
        fit = model.fit()
    same(fit, model_of("one factor").fit())
    tree = known_posterior(model, draws=1000).posterior
    monkeypatch.setattr(pymc_hierarchical, "hierarchical", lambda *_, **__: BUILT)
    monkeypatch.setattr(pymc_hierarchical, "sample_pymc", lambda *_, **__: tree)
    with pytest.warns(rf.DataWarning, match="the priors tell them apart"):
        assert list(model.fit("mcmc", form="hierarchical").fixef().index) == [
            "Intercept",
            "x",
            "twice",
        ]


def test_one_level_is_refused_by_reml_and_left_to_the_prior_by_mcmc(monkeypatch):
    model = rf.Model("y ~ x + (1 | one)", frame().assign(one="a"))
    with pytest.raises(rf.DataError, match="`one` has one level only"):
        model.fit()
    tree = known_posterior(model, draws=1000).posterior
    monkeypatch.setattr(pymc_hierarchical, "hierarchical", lambda *_, **__: BUILT)
    monkeypatch.setattr(pymc_hierarchical, "sample_pymc", lambda *_, **__: tree)
    with pytest.warns(rf.DataWarning, match="informed by the prior alone"):
        assert "240 rows; 1 level of one\n" in str(model.fit("mcmc", form="hierarchical"))


# ----------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mcm", {}, "method='mcm' does not exist. Did you mean `mcmc`?"),
        (["ml"], {}, f"method=['ml'] does not exist. Known names: {METHODS}."),
        ("ml", {"verbos": 1}, "fit('ml') has no option `verbos`. Did you mean `verbose`?"),
        (
            "reml",
            {"seed": 1},
            f"fit('reml') has no option `seed`. Known names: `verbose`, {OF_MODEL}.",
        ),
        ("mcmc", {"drawz": 1}, "fit('mcmc') has no option `drawz`. Did you mean `draws`?"),
        (
            "reml",
            {"REML": 0},
            'fit(\'reml\') has no option `REML`. It is the method, "reml" or "ml".',
        ),
        (
            "reml",
            {"groups": "Subject"},
            (
                "fit('reml') has no option `groups`. Random effects stand in the formula, as "
                "`y ~ x + (x | g)`."
            ),
        ),
        ("reml", {"weigths": 1}, "fit('reml') has no option `weigths`. Did you mean `weights`?"),
    ],
)
def test_what_does_not_exist_is_named(sleep, method, options, message):
    for call in (sleep.fit, lambda *a, **k: rf.fit(SLEEP, rf.load_dataset("sleepstudy"), *a, **k)):
        with pytest.raises(rf.FitError) as caught:
            call(method, **options)
        assert str(caught.value) == message


def test_an_option_of_the_model_is_no_option_of_its_fit(sleep):
    with pytest.raises(rf.FitError) as caught:
        sleep.fit("ml", weights="w")
    assert str(caught.value) == "fit('ml') has no option `weights`. It is an option of Model."


def test_structures_without_marginality_and_up_to_a_limit():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    assert "(0 + Days | Subject)" not in model.structures()
    assert "(0 + Days | Subject)" in model.structures(marginality=False)
    assert len(model.structures(limit=4)) == 4
    with pytest.raises(rf.FitError, match="more than limit=3"):
        model.structures(limit=3)


# What PyMC's own functions make of a posterior

DAYS, YEARS = "Reaction ~ Days + (Days | Subject)", "Reaction ~ Year + (Year | Subject)"
CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
MIXED = {
    "Days": rf.priors.StudentT(4, 0, 20),
    "Intercept": rf.priors.Normal(250, 50),
    "sd_Subject": {"Days": rf.priors.Exponential(10)},
}
RATIOS = {"sd_Subject": {"Intercept": rf.priors.Relative(rf.priors.HalfNormal(2))}}
SHARED = [  # formula, options of the model, method
    (DAYS, {}, "quadrature"),
    (DAYS, {}, "mcmc"),
    (YEARS, {}, "laplace"),
    (DAYS, {"priors": MIXED}, "laplace"),
    (DAYS.replace("|", "||"), {"priors": RATIOS}, "quadrature"),
    (DAYS, {"priors": "brms"}, "laplace"),
    (DAYS, {"priors": {"sigma": rf.priors.Constant(25)}}, "quadrature"),
    ("Reaction ~ 0 + (1 | Subject)", {}, "quadrature"),
    ("Reaction ~ Days", {}, "laplace"),
    (CBPP, {"family": "binomial"}, "laplace"),
    ("incidence ~ period + (size | herd)", {"family": "negative_binomial"}, "laplace"),
]


@pytest.mark.filterwarnings("ignore::ranef.ConvergenceWarning")
@pytest.mark.parametrize(("formula", "options", "method"), SHARED)
def test_posterior_and_pymc_model_agree(formula, options, method):
    data = rf.load_dataset("cbpp" if "herd" in formula else "sleepstudy")
    if "Year" in formula:
        data["Year"] = data["Days"] + 1990.0
    model = rf.Model(formula, data, **options)
    short = {"chains": 2, "tune": 200, "progressbar": False} if method == "mcmc" else {}
    fit = model.fit(method, draws=200, seed=1, **short)
    tree, written = fit.posterior, model.to_pymc()
    python = {"compile_kwargs": {"mode": "FAST_COMPILE"}, "progressbar": False}
    posterior = tree["posterior"].to_dataset()
    computed = pm.compute_deterministics(posterior, model=written, **python)
    for name in (
        computed.data_vars.keys() & posterior.data_vars.keys()
    ):  # they follow from what has priors
        np.testing.assert_allclose(computed[name], posterior[name], rtol=1e-6, atol=1e-8)
    rows = pm.stats.compute_log_likelihood(
        tree, model=written, extend_inferencedata=False, **python
    )
    known = log_likelihood(model.design, model.family, posterior)
    np.testing.assert_allclose(rows["y"], known["y"], rtol=1e-8, atol=1e-8)
    prior = pm.stats.compute_log_prior(tree, model=written, extend_inferencedata=False, **python)
    assert np.isfinite(prior.to_array()).all()
    assert not [name for name in prior.data_vars if str(name).startswith("z_")]
    densities = fit.add_groups("log_prior")["log_prior"].to_dataset()
    effects = {name for name in prior.data_vars if "b_" in str(name)}
    assert set(densities.data_vars) == set(prior.data_vars) - effects
    for name, density in densities.data_vars.items():
        np.testing.assert_allclose(density, prior[name], rtol=1e-8, atol=1e-8)
    drawn = pm.sample_posterior_predictive(tree, model=written, random_seed=2, **python)
    y = drawn["posterior_predictive"]["y"].to_numpy().reshape(-1, model.design.n_obs)
    mine = fit.simulate(400, seed=3, groups="known").T
    mine = mine * model.design.rows.weights if model.family.is_bounded else mine
    error = y.std() / np.sqrt(y.size)
    assert y.mean() == pytest.approx(mine.mean(), abs=8 * error)
    assert y.std(axis=0).mean() == pytest.approx(
        mine.std(axis=0).mean(), rel=0.15
    )  # heavy tails of a negative binomial
    predicted = fit.posterior_predictive(seed=4)["posterior_predictive"]["y"]
    predicted = predicted * model.design.rows.weights if model.family.is_bounded else predicted
    assert float(predicted.mean()) == pytest.approx(y.mean(), abs=8 * error)


# --------------------------------------------------------------------- known standard errors


def test_known_errors_are_weights_and_a_constant():
    data = SCHOOLS.assign(w=1 / SCHOOLS["s"] ** 2)
    by_se = rf.Model("y ~ 1 + (1 | study)", data, se="s")
    by_hand = rf.Model(
        "y ~ 1 + (1 | study)", data, weights="w", priors={"sigma": rf.priors.Constant(1)}
    )
    for method in ("reml", "ml", "map", "quadrature"):
        one, other = by_se.fit(method), by_hand.fit(method)
        pd.testing.assert_series_equal(one.estimates(), other.estimates())
        assert "8 rows with known standard errors" in str(one)
    flat = by_se.fit("map", priors="flat")
    assert flat.objective == pytest.approx(by_se.fit().objective, rel=1e-12)
    assert by_se.with_priors("brms").priors.sigma == rf.priors.Constant(1)
    for simpler in by_se.structures().values():
        assert simpler.priors.sigma == rf.priors.Constant(1)
        assert simpler.fit().sigma == 1.0
    assert "gaussian family with identity link, 8 rows with known standard errors" in repr(by_se)
    assert "sigma                Constant(1)" in repr(by_se)


def test_rows_without_an_error_are_left_out():
    data = SCHOOLS.assign(s=SCHOOLS["s"].where(SCHOOLS.index > 1))
    with pytest.warns(rf.DataWarning, match=r"2 of 8 rows left out for missing values in `se=`"):
        assert rf.Model("y ~ 1 + (1 | study)", data, se="s").design.n_obs == 6


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda fit: fit.bootstrap(5), "a parametric bootstrap is for models whose sigma"),
        (lambda fit: fit.summary(df="satterthwaite"), "df='satterthwaite' is for models whose"),
        (lambda fit: fit.confint("bootstrap"), "a parametric bootstrap is for models whose sigma"),
    ],
)
def test_what_is_for_a_sigma_that_is_estimated(ask, message):
    with pytest.raises(rf.FitError, match=message):
        ask(rf.fit("y ~ 1 + (1 | study)", SCHOOLS, "ml", se="s"))


def test_a_profile_of_slopes_with_a_known_sigma_is_dense():
    data = frame().assign(s=1 / np.sqrt(frame()["w"]))
    model = rf.Model("y ~ x + (x | g)", data, se="s")
    fit = model.fit("ml")
    limits = fit.profile(["sd_g[x]", "corr_g[Intercept, x]", "x"]).confint(0.9)
    rise = stats.chi2.ppf(0.9, 1)

    def lowest(objective, start):
        options = {"xatol": 1e-8, "fatol": 1e-10, "maxiter": 4000}
        return optimize.minimize(objective, start, method="Nelder-Mead", options=options).fun

    def deviance(sd0, sd1, corr):
        return model.criterion([sd0, corr * sd1, sd1 * np.sqrt(1 - corr**2)], "ml")

    sd0, sd1 = fit.varcorr().sd["g"]
    corr = fit.varcorr().corr["g"].iloc[0, 1]
    for end in limits.loc["sd_g[x]"]:
        value = lowest(lambda p, end=end: deviance(p[0], end, np.tanh(p[1])), [sd0, corr])
        assert value - fit.objective == pytest.approx(rise, abs=1e-3)
    for end in limits.loc["corr_g[Intercept, x]"]:
        value = lowest(lambda p, end=end: deviance(p[0], p[1], end), [sd0, sd1])
        assert value - fit.objective == pytest.approx(rise, abs=1e-3)
    held = rf.Model(
        "y ~ 1 + (x | g)", data.assign(o=limits.loc["x", "upper"] * data["x"]), se="s", offset="o"
    ).fit("ml")
    assert held.objective - fit.objective == pytest.approx(rise, abs=1e-3)


def test_a_fit_with_known_errors_comes_back_from_its_file(tmp_path):
    fit = rf.fit("y ~ 1 + (1 | study)", SCHOOLS, "quadrature", se="s", file=tmp_path / "fit.zip")
    again = rf.load(tmp_path / "fit.zip")
    pd.testing.assert_frame_equal(again.forest_table(), fit.forest_table(), check_exact=True)
    assert str(again.engine.refit("ml")) == str(fit.engine.refit("ml"))


def test_rows_that_were_left_out_are_counted_wherever_rows_are(tmp_path):
    data = rf.load_dataset("sleepstudy").assign(half=lambda d: d["Days"] < 5)
    data.loc[[3, 5], "Days"] = np.nan
    data.loc[7, "Reaction"] = np.nan
    formula = "Reaction ~ Days + (Days | Subject)"
    said = "177 rows (3 more left out for missing values)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.DataWarning)
        model = rf.Model(formula, data)
        summaries = [rf.summarize(formula, rows, min_rows=0) for _, rows in data.groupby("half")]
        lazy = rf.Model(formula, duckdb.sql("SELECT * FROM data"))
    fit, both = model.fit(), sum(summaries)
    fit.save(tmp_path / "fit.zip")
    both.save(tmp_path / "summary.zip")
    told = [
        model,
        fit,
        rf.load(tmp_path / "fit.zip"),
        model.fit("quadrature"),
        model.structures()["(1 | Subject)"],
        fit.refit(model.design.rows.y + 1.0),
        rf.Model(both),
        rf.Model(rf.load(tmp_path / "summary.zip")).fit(),
        lazy.fit(),
    ]
    for one in told:
        assert said in str(one)
        assert said in one._repr_html_()
    assert "left out" not in str(rf.Model(formula, data.dropna()))


def test_rows_that_were_left_out_of_counted_rows():
    data = rf.load_dataset("Contraception").assign(year=lambda d: d["age"].round())
    data.loc[4, "urban"] = None
    with pytest.warns(rf.DataWarning):
        model = rf.Model("use ~ year + urban + (1 | district)", duckdb.sql("SELECT * FROM data"),
                         family="binomial")  # fmt: skip
    assert "1933 rows (1 more left out for missing values)" in str(model)
