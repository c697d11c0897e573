"""The ways to a posterior as a user meets them: same answers, same numbers, refusals, seeds."""

from __future__ import annotations

import json
import re
from functools import cache

import arviz as az
import numpy as np
import pandas as pd
import pytest
from reference_cases import REFERENCE

import ranef as rf
from fits import FORMULAS, TOO_MANY, fit_of, frame, model_of
from ranef.fits.diagnostics import ImportanceDiagnostics, QuadratureDiagnostics
from ranef.posterior.draws import summarise
from ranef.priors.random_variables import is_helper

DEFAULT_PRIORS = json.loads((REFERENCE / "default_priors.json").read_text())
BRMS = json.loads((REFERENCE / "brms.json").read_text())
BRMS_PRIORS = {
    "Intercept": rf.priors.Normal(250, 100),
    "Days": rf.priors.Normal(0, 20),
    "sd": rf.priors.HalfStudentT(3, 59.3),
    "sigma": rf.priors.HalfStudentT(3, 59.3),
    "corr": rf.priors.LKJ(2),
}
SLEEP = "Reaction ~ Days + (Days | Subject)"
INTERCEPTS = "Reaction ~ Days + (1 | Subject)"
STRUCTURES = {
    "correlated": (SLEEP, "sleepstudy", {}),
    "independent": ("Reaction ~ Days + (Days || Subject)", "sleepstudy", {}),
    "crossed": ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin", {}),
    "nested": ("strength ~ 1 + (1 | batch/cask)", "Pastes", {}),
    "weights": (
        INTERCEPTS,
        "sleepstudy",
        {"weights": np.linspace(0.5, 2, 180), "priors": {"Days": rf.priors.Normal(8, 1)}},
    ),
}
DRAWN = ("laplace", "quadrature", "mcmc")
SLOW = ("slopes without a mean", "weights and offset")  # by quadrature, as the one that is left
QUICK = {"draws": 100, "tune": 100, "chains": 2, "progressbar": False}
KINDS = [
    (kind, method)
    for kind in FORMULAS
    for method in ("map", *DRAWN)
    if not (method == "quadrature" and kind in (*TOO_MANY, *SLOW))
]


@pytest.fixture(params=KINDS, ids=lambda pair: f"{pair[1]}: {pair[0]}")
def both(request):
    """Return a fit and the REML fit of the same model."""
    kind, method = request.param
    return fit_of(kind, method), fit_of(kind, "reml")


def sleep_model(formula=INTERCEPTS, **options):
    return rf.Model(formula, rf.load_dataset("sleepstudy"), **options)


@cache
def structure(name):
    formula, data, options = STRUCTURES[name]
    return rf.Model(formula, rf.load_dataset(data), **options)


@cache
def exact(name):
    return structure(name).fit("quadrature", seed=1)


# ------------------------------------------------------------- every fit answers, by the same names


def test_estimates_have_the_names_of_reml(both):
    fit, reml = both
    for name in ("fixef", "se", "estimates"):
        pd.testing.assert_index_equal(getattr(fit, name)().index, getattr(reml, name)().index)
        assert np.isfinite(getattr(fit, name)()).all()
    pd.testing.assert_index_equal(fit.vcov().columns, reml.vcov().columns)
    same = ["grp", "var1", "var2"]
    pd.testing.assert_frame_equal(fit.varcorr().table[same], reml.varcorr().table[same])
    assert np.isfinite(fit.varcorr().table[["vcov", "sdcor"]].to_numpy()).all()
    assert fit.theta.shape == reml.theta.shape
    assert fit.theta_names == reml.theta_names
    assert fit.sigma > 0
    assert fit.n_groups == reml.n_groups


def test_effects_have_the_labels_of_reml(both):
    fit, reml = both
    for name in ("ranef", "coef"):
        own, theirs = getattr(fit, name)(), getattr(reml, name)()
        assert list(own) == list(theirs)
        for label in own:
            pd.testing.assert_index_equal(own[label].index, theirs[label].index)
            pd.testing.assert_index_equal(own[label].columns, theirs[label].columns)


def test_rows_are_those_of_the_data(both):
    fit, reml = both
    np.testing.assert_allclose(fit.fitted() + fit.residuals(), reml.fitted() + reml.residuals())
    assert fit.residuals("pearson").shape == (240,)
    rows = frame().iloc[:7]
    for groups in ("known", "population", "new"):
        assert fit.predict(rows, groups=groups).shape == (7,)
    np.testing.assert_allclose(fit.predict(rows), fit.fitted()[:7])


def test_the_page_names_the_method_and_every_parameter(both):
    fit, _ = both
    summary = fit.summary()
    title = str(summary).splitlines()[0]
    kind = "Linear mixed model" if fit.design.terms else "Linear model"
    by = {
        "map": "fitted by maximum a posteriori",
        "laplace": "posterior by Laplace approximation",
        "quadrature": "posterior by quadrature",
        "mcmc": "posterior by MCMC (NUTS)",
    }
    assert title.startswith(kind)
    assert by[fit.method] in title
    rows = fit.fixef() if fit.method == "map" else fit.estimates()
    assert list(summary.to_frame().index) == list(rows.index)
    assert "None" not in str(summary)
    assert "nan" not in str(summary)
    assert max(map(len, str(summary).splitlines())) <= 130
    assert fit._repr_html_().count("<table") == len(summary.sections)


def test_fits_stand_side_by_side(both):
    fit, reml = both
    table = rf.side_by_side({"REML": reml, "new": fit})
    assert table.notna().all(axis=None)
    np.testing.assert_allclose(table["new"], fit.estimates())


def test_intervals_hold_the_estimate(both):
    fit, _ = both
    table = fit.confint(prob=0.9)
    assert list(table.columns) == ["lower", "upper"]
    inside = fit.estimates().loc[table.index]
    assert (table["lower"] < inside).all()
    assert (inside < table["upper"]).all()
    if fit.method != "map":
        assert list(table.index) == list(fit.estimates().index)
        pd.testing.assert_frame_equal(table, fit.hdi(0.9))


FEW = ["one factor", "independent slopes", "nested", "no random terms"]  # quick by quadrature


@pytest.mark.parametrize("method", ["map", *DRAWN])
@pytest.mark.parametrize("kind", FEW)
def test_tables_and_pictures_of_effects(kind, method):
    fit, reml = fit_of(kind, method), fit_of(kind, "reml")
    table = fit.ranef_table(0.8)
    pd.testing.assert_frame_equal(table.iloc[:, :3], reml.ranef_table().iloc[:, :3])
    assert (table["lower"] < table["estimate"]).all()
    assert (table["estimate"] < table["upper"]).all()
    assert (table["sd"] > 0).all()
    if fit.design.terms:
        own = np.concatenate([part.to_numpy().ravel() for part in fit.ranef().values()])
        np.testing.assert_allclose(table["estimate"], own, rtol=1e-3, atol=1e-3)
        assert fit.plot_caterpillar().size == len(table.groupby(["term", "coef"]))
        assert fit.plot_shrinkage().has_data()
        assert list(fit.shrinkage_table().columns) == list(reml.shrinkage_table().columns)


def test_draws_have_the_documented_variables(both):
    fit, _ = both
    method = fit.method
    if method == "map":
        return
    group = fit.posterior["posterior"]
    expected = {"sigma": ()} | ({"beta": ("fixed",)} if fit.design.fixed else {})
    for t in fit.design.terms:
        coef = f"{t.label}_coef"
        expected |= {f"b_{t.label}": (t.label, coef), f"sd_{t.label}": (coef,)}
        if t.covariance.has_correlations and t.n_coefs > 1:
            expected[f"corr_{t.label}"] = (coef, f"{coef}_bis")
        assert group[t.label].to_numpy().tolist() == t.levels.tolist()
        assert group[coef].to_numpy().tolist() == list(t.coefs)
    shown = {name: v.dims[2:] for name, v in group.data_vars.items() if not is_helper(str(name))}
    assert shown == expected
    assert dict(group.sizes)["draw"] * group.sizes["chain"] == (300 if method == "mcmc" else 400)
    np.testing.assert_array_equal(fit.posterior["observed_data"]["y"], fit.design.rows.y)
    assert ("sample_stats" in fit.posterior.children) == (method == "mcmc")


@pytest.mark.parametrize("method", DRAWN)
def test_arviz_takes_the_draws(method):
    fit = fit_of("nested", method)
    table = az.summary(fit.posterior, var_names=["beta", "sigma", "sd_s"], round_to="none")
    own = [
        fit.draws("beta")[:, 0].mean(),
        fit.draws("beta")[:, 1].mean(),
        fit.draws("sigma").mean(),
    ]
    np.testing.assert_allclose(table["mean"].iloc[:3].astype(float), own, rtol=1e-9)
    bounds = az.hdi(fit.posterior["posterior"].to_dataset()["sigma"], prob=0.9)
    assert float(bounds.min()) < fit.sigma < float(bounds.max())


# ------------------------------------------------------------------------------- the same numbers


def score(fit, reference, n):
    """Return how many standard errors means and sds of draws are off, over all parameters.

    `n` is the number of independent draws that they are worth: a number, or one a parameter. The
    standard error of an sd is that of the normal distribution times the excess of the draws.
    """
    draws = summarise(fit.posterior)
    values = {"mean": draws["mean"], "sd": draws["sd"]}
    expected = reference.summary().to_frame()
    tails = kurtosis(fit).loc[draws.index]
    return pd.DataFrame(
        {
            "mean": (values["mean"] - expected["mean"]) / (expected["sd"] / np.sqrt(n)),
            "sd": (values["sd"] / expected["sd"] - 1) / np.sqrt((tails - 1) / (4 * n)),
        }
    )


def kurtosis(fit):
    found = {}
    for name in summarise(fit.posterior).index:
        z = by_name(fit, name)
        found[name] = np.mean((z - z.mean()) ** 4) / np.var(z) ** 2
    return pd.Series(found)


def by_name(fit, name):
    """Return the draws of a parameter that is named as in `estimates()`."""
    if name in fit.design.fixed:
        return fit.draws("beta")[:, fit.design.fixed.index(name)]
    if name == "sigma":
        return fit.draws("sigma")
    variable, coefs = re.fullmatch(r"(.*)\[(.*)\]", name).groups()
    term = fit.design.term(variable.split("_", 1)[1])
    return fit.draws(variable)[:, *(term.coefs.index(coef) for coef in coefs.split(", "))]


def worth(fit):
    """Return how many independent draws a fit is worth: of a sampler, by parameter."""
    if fit.method == "mcmc":
        found = summarise(fit.posterior)
        size = fit.posterior["posterior"].sizes
        return np.minimum(found["ess_bulk"], size["chain"] * size["draw"])
    n = fit.posterior["posterior"].sizes["draw"]
    return n if fit.method == "quadrature" else 1 / (1 / n + 1 / fit.diagnostics.ess)


@pytest.mark.filterwarnings("ignore:Pareto k-hat")  # of the nested one, whose draws are good
@pytest.mark.parametrize("method", DRAWN)
@pytest.mark.parametrize("name", ["correlated", "crossed", "nested"])
def test_draws_are_those_of_the_exact_posterior(name, method):
    """Means, sds and tails of all parameters within 4.5 standard errors of quadrature.

    With some 70 numbers that is a chance of 1 in 2,000 for a right method on a new seed.
    """
    reference = exact(name)
    fit = structure(name).fit(
        method, seed=3, **({"progressbar": False} if method == "mcmc" else {})
    )
    n = worth(fit)
    z = score(fit, reference, n)
    assert z.abs().max(axis=None) < 4.5, z.to_string()
    for parameter in reference.estimates().index:
        share = reference.curve(parameter).cdf(by_name(fit, parameter))
        own = n if np.isscalar(n) else n[parameter]
        for q in (0.025, 0.2, 0.5, 0.8, 0.975):
            off = (np.mean(share < q) - q) / np.sqrt(q * (1 - q) / own)
            assert abs(off) < 4.5, (parameter, q, off)


@pytest.mark.filterwarnings("ignore:Pareto k-hat")
@pytest.mark.parametrize("method", ["laplace", "mcmc"])
def test_random_effects_are_those_of_the_exact_posterior(method):
    fit = structure("nested").fit(method, seed=4, draws=4000 if method == "laplace" else 1000)
    ours, expected = fit.ranef_table(), exact("nested").ranef_table()
    n = worth(fit) if method == "laplace" else fit.diagnostics.ess_bulk
    assert np.abs((ours["estimate"] - expected["estimate"]) / expected["sd"]).max() < 4.5 / n**0.5
    assert np.abs(ours["sd"] / expected["sd"] - 1).max() < 4.5 * np.sqrt(1 / n)  # kurtosis 5


@pytest.mark.filterwarnings("ignore:Pareto k-hat")
@pytest.mark.parametrize("name", STRUCTURES)
def test_importance_sampling_gives_the_marginal_likelihood_of_quadrature(name):
    found = structure(name).fit("laplace", seed=5).log_marginal_likelihood()
    expected = exact(name).log_marginal_likelihood()
    assert expected.mcse < 1e-6
    assert abs(found.value - expected.value) < 4.5 * found.mcse
    assert found.mcse < 0.05


@cache
def in_both_forms(name):
    options = {"draws": 2000, "seed": 6, "progressbar": False}
    return [structure(name).fit("mcmc", form=f, **options) for f in ("marginal", "hierarchical")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n != "weights" else ()) for n in STRUCTURES],
)
@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_both_forms_have_the_same_posterior(name):
    """Means and sds of all parameters and effects, within 4.5 standard errors of both runs.

    The hierarchical form mixes less well, for which the standard errors allow.
    """
    tables = [summarise(fit.posterior, include_b=True) for fit in in_both_forms(name)]
    marginal, hierarchical = tables
    assert set(marginal.index) == set(hierarchical.index)
    hierarchical = hierarchical.loc[marginal.index]
    sd = (marginal["sd"] + hierarchical["sd"]) / 2
    n = 1 / sum(1 / np.minimum(t["ess_bulk"], 8000) for t in (marginal, hierarchical))
    mean = (marginal["mean"] - hierarchical["mean"]) / sd * np.sqrt(n)
    spread = np.log(marginal["sd"] / hierarchical["sd"]) * np.sqrt(n)  # kurtosis 5
    assert mean.abs().max() < 4.5, mean.to_string()
    assert spread.abs().max() < 4.5, spread.to_string()
    assert in_both_forms(name)[0].diagnostics.divergences == 0
    for fit in in_both_forms(name):
        z = score(fit, exact(name), worth(fit))
        assert z.abs().max(axis=None) < 4.5, z.to_string()


def under_the_names_of_brms(table):
    names = {
        "Intercept": "b_Intercept",
        "Days": "b_Days",
        "sd_Subject[Intercept]": "sd_Subject__Intercept",
        "sd_Subject[Days]": "sd_Subject__Days",
        "corr_Subject[Intercept, Days]": "cor_Subject__Intercept__Days",
    }
    return table.rename(lambda name: names.get(name, name))


def both_tables(fit):
    """Return means, sds and bounds of all parameters and random effects, as brms has them."""
    effects = fit.ranef_table().rename(columns={"estimate": "mean"})
    effects.index = [f"r_Subject[{e.level},{e.coef}]" for e in effects.itertuples()]
    own = fit.summary().to_frame()
    return under_the_names_of_brms(pd.concat([own, effects])[["mean", "sd", "lower", "upper"]])


@pytest.mark.parametrize("first", [0, 1990])
def test_the_posterior_under_the_defaults_is_that_of_nuts(first):
    """`make_default_priors.py`: a million draws of a model that is written out by hand."""
    data = rf.load_dataset("sleepstudy")
    fit = rf.Model(SLEEP, data.assign(Days=first + data["Days"])).fit("quadrature", draws=1)
    names = {"sd_Subject[Days]": ("sd", 1), "Days": ("slope", None), "sigma": ("sigma", None)}
    if first == 0:  # elsewhere these are other parameters
        names |= {"sd_Subject[Intercept]": ("sd", 0), "Intercept": ("intercept", None)}
        names["corr_Subject[Intercept, Days]"] = ("corr", None)
    for name, (variable, place) in names.items():
        nuts = {
            key: number if place is None else number[place]
            for key, number in DEFAULT_PRIORS[variable].items()
        }
        assert fit.curve(name).mean == pytest.approx(nuts["mean"], abs=min(0.02, 4 * nuts["mcse"]))


@pytest.mark.parametrize("method", ["quadrature", "mcmc"])
def test_the_posterior_is_that_of_brms(method):
    """All 42 numbers of brms's posterior, within four Monte Carlo standard errors.

    That of a bound of a highest density interval is 1.25 sd n^(-1/3), found by simulation for
    normal and gamma draws. Quadrature has no error of its own.
    """
    options = {"seed": 7, "progressbar": False} if method == "mcmc" else {}
    fit = sleep_model(SLEEP, priors=BRMS_PRIORS).fit(method, **options)
    table, brms = both_tables(fit), pd.DataFrame(BRMS["summary"]).set_index("variable")
    assert set(table.index) == set(brms.index)
    table, n = table.loc[brms.index], brms["ess_bulk"]
    m = np.inf if method == "quadrature" else fit.diagnostics.ess_bulk
    se = brms["sd"] * np.sqrt(1 / n + 1 / m)
    se_bound = 1.25 * brms["sd"] * np.hypot(n ** (-1 / 3), m ** (-1 / 3))
    z = pd.DataFrame(
        {
            "mean": (table["mean"] - brms["mean"]) / se,
            "sd": (table["sd"] - brms["sd"]) / se,
            "lower": (table["lower"] - brms["hpd_low"]) / se_bound,
            "upper": (table["upper"] - brms["hpd_high"]) / se_bound,
        }
    )
    assert z.abs().max(axis=None) < 4, z.to_string()


def test_the_mode_under_flat_priors_is_reml(both):
    fit, reml = both
    if fit.method == "map":
        flat = rf.Model(fit.design.formula.text, frame(), **options_of(fit), priors="flat")
        pd.testing.assert_series_equal(
            flat.fit("map").estimates(), reml.estimates(), rtol=1e-5, atol=1e-4
        )


def options_of(fit):
    weighted = bool((fit.design.rows.weights != 1).any())
    return {"weights": "w", "offset": "z"} if weighted else {}


# --------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize("method", DRAWN)
def test_the_same_seed_gives_the_same_draws(method):
    options = QUICK if method == "mcmc" else {"draws": 100}
    model = model_of("independent slopes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranef.model.shared_engine.warn", lambda *_: None)
        one, two, other, free = (
            model.fit(method, **options, seed=seed).posterior["posterior"].to_dataset()
            for seed in (11, 11, 12, None)
        )
    assert one.identical(two)
    for name in one.data_vars:
        for another in (other, free):
            assert not np.isin(one[name], another[name]).all()


def test_the_number_of_cores_changes_nothing():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ranef.model.shared_engine.warn", lambda *_: None)
        one, two = (
            model_of("crossed").fit("mcmc", **QUICK, seed=3, cores=cores).posterior["posterior"]
            for cores in (1, 2)
        )
    assert one.to_dataset().identical(two.to_dataset())


def test_chains_are_not_copies_of_each_other():
    sigma = fit_of("nested", "mcmc").posterior["posterior"]["sigma"].to_numpy()
    assert not np.isin(sigma[0], sigma[1]).any()


# ------------------------------------------------------------------------------------- refusals

FLAT_SD = (
    "a flat prior on `sd_Subject` leaves the posterior improper: it needs at least 3 levels of "
    "`Subject`, and there {}. Give it a proper prior with priors=, such as HalfNormal or "
    "HalfStudentT."
)
DEPENDENT = (
    "flat priors on linearly dependent fixed effects leave the posterior improper: `twice` is a "
    "combination of the columns before. Leave out what is not needed, or give it a proper prior "
    "with priors=, such as Normal."
)
SLEEPERS = rf.load_dataset("sleepstudy")


def refused(method, formula=INTERCEPTS, data=SLEEPERS, options=None, **of_model):
    with pytest.raises(rf.FitError) as caught:
        rf.Model(formula, data, **of_model).fit(method, **(options or {}))
    return str(caught.value)


@pytest.mark.parametrize("method", DRAWN)
@pytest.mark.parametrize(("levels", "there"), [(1, "is 1"), (2, "are 2")])
def test_a_flat_prior_on_an_sd_needs_levels(method, levels, there):
    data = SLEEPERS[SLEEPERS["Subject"].isin(SLEEPERS["Subject"].unique()[:levels])]
    assert refused(method, data=data, priors="flat") == FLAT_SD.format(there)
    assert refused(method, data=data, options={"priors": "flat"}) == FLAT_SD.format(there)


@pytest.mark.parametrize("method", DRAWN)
@pytest.mark.parametrize("priors", ["flat", "brms", {"beta": rf.priors.Flat()}])
def test_flat_priors_on_dependent_columns(method, priors):
    data = SLEEPERS.assign(twice=2 * SLEEPERS["Days"])
    formula = "Reaction ~ Days + twice + (1 | Subject)"
    assert refused(method, formula, data, priors=priors) == DEPENDENT


NO_PRIOR = (
    "priors: `sd` needs a prior such as HalfNormal, HalfStudentT, Exponential or Gamma, not 3."
)
OF_MODEL = "`family`, `link`, `weights`, `offset`, `priors`, `missing`, `functions`"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        *((m, {"draws": 0}, "`draws` must be a positive whole number, got 0.") for m in DRAWN),
        *((m, {"draws": 2.5}, "`draws` must be a positive whole number, got 2.5.") for m in DRAWN),
        *(
            (
                m,
                {"seed": -1},
                "`seed` must be None, a whole number from 0 on or a numpy Generator, got -1.",
            )
            for m in DRAWN
        ),
        *(
            (m, {"draw": 9}, f"fit({m!r}) has no option `draw`. Did you mean `draws`?")
            for m in DRAWN
        ),
        (
            "laplace",
            {"chains": 4},
            f"fit('laplace') has no option `chains`. Known names: `draws`, `seed`, {OF_MODEL}.",
        ),
        (
            "map",
            {"seed": 1},
            f"fit('map') has no option `seed`. Known names: `verbose`, {OF_MODEL}.",
        ),
        ("mcmc", {"form": "marginl"}, "form='marginl' does not exist. Did you mean `marginal`?"),
        (
            "mcmc",
            {"form": "marginal", "centered": True},
            "the marginal form has no random effects that could be centered.",
        ),
        *(
            (m, {"priors": "bmrs"}, "There are no priors named `bmrs`. Did you mean `brms`?")
            for m in ("map", *DRAWN)
        ),
        (
            "laplace",
            {"priors": {"sd": 3}},
            NO_PRIOR,
        ),
        ("ml", {"priors": "flat"}, "fit('ml') has no option `priors`. It is an option of Model."),
    ],
)
def test_options_that_are_refused(method, options, message):
    assert refused(method, options=options) == message


def test_quadrature_takes_four_parameters():
    assert refused("quadrature", "y ~ x + (1 | g) + (x | h)", frame()) == (
        "the posterior has 5 parameters that are not integrated out (`sigma`, `sd_g[Intercept]`, "
        "`sd_h[Intercept]`, `sd_h[x]` and `corr_h[Intercept, x]`); quadrature takes up to 4: use "
        'method="mcmc" or "laplace".'
    )


def test_a_known_sd_beside_an_unknown_sigma():
    known = {"sd": rf.priors.Constant(30)}
    assert refused("quadrature", priors=known) == (
        "`sd_Subject[Intercept]` known without sigma leaves no ratio to it to integrate over: know "
        'sigma too, or the ratio, Relative(Constant(...)); or use method="mcmc" or "laplace".'
    )
    assert refused("map", priors=known) == (
        "the prior of `sd_Subject[Intercept]` is a constant: a posterior mode keeps no standard "
        'deviation of random effects fixed; use method="mcmc" or "laplace".'
    )


def test_nothing_to_sample():
    known = {"sd": rf.priors.Constant(30), "sigma": rf.priors.Constant(25)}
    assert refused("mcmc", priors=known) == (
        "every variance parameter is known, so that there is nothing to sample: "
        'method="quadrature" gives the exact posterior.'
    )


# ------------------------------------------------------------------------- what is said of a fit


def test_priors_of_one_fit_are_not_those_of_the_next():
    model = sleep_model()
    wide, narrow = model.fit("map"), model.fit("map", priors={"Days": rf.priors.Normal(0, 0.1)})
    assert narrow.fixef()["Days"] < 1 < wide.fixef()["Days"]
    assert model.fit("map").fixef()["Days"] == wide.fixef()["Days"]
    again = model.with_priors({"Days": rf.priors.Normal(0, 0.1)})
    pd.testing.assert_series_equal(again.fit("map").estimates(), narrow.estimates())
    assert "Normal(0, 0.1)" in repr(again)
    assert "Normal(0, 0.1)" not in repr(model)


def test_a_normal_approximation_that_is_too_far_off():
    """With one row a level, sd and sigma are told apart by their priors: the posterior is bent."""
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"y": rng.normal(size=20), "g": range(20)})
    with pytest.warns(rf.RanefWarning) as caught:
        fit = rf.Model("y ~ 1 + (1 | g)", data).fit("laplace", seed=1)
    assert isinstance(fit.diagnostics, ImportanceDiagnostics)
    assert fit.diagnostics.khat > 0.7
    assert not fit.converged
    assert fit.convergence is rf.Convergence.NOT_MIXED
    said = (
        f"Pareto k-hat is {fit.diagnostics.khat:.2f}, above 0.7: the normal approximation is too "
        'far from the posterior for importance weights to correct it. Use method="quadrature" (up '
        'to 4 variance parameters) or "mcmc".'
    )
    assert fit.diagnostics.messages()[0] == said
    assert said in " ".join(str(fit).split())
    warnings = {w.category: str(w.message) for w in caught}
    assert warnings[rf.ConvergenceWarning] == " ".join(fit.diagnostics.messages())
    assert next(w for w in caught if w.category is rf.ConvergenceWarning).filename == __file__


def test_a_warning_of_data_points_to_the_users_line():
    with pytest.warns(rf.DataWarning) as caught:
        rf.Model("y ~ x + (1 | one)", frame().assign(one="a")).fit("quadrature")
    assert caught[0].filename == __file__


def test_few_draws_warn_where_they_were_asked_for():
    with pytest.warns(rf.ConvergenceWarning, match="below 400: the numbers are noisy") as caught:
        fit = model_of("one factor").fit("laplace", draws=100, seed=1)
    assert caught[0].filename == __file__
    said = f"The effective sample size is {fit.diagnostics.ess:.0f}, below 400: the numbers are "
    said += 'noisy. Raise `draws`, or use method="mcmc".'
    assert fit.diagnostics.messages() == (said,)


def test_what_can_be_relied_on_says_so():
    for method in ("laplace", "quadrature"):
        fit = structure("weights").fit(method, seed=1)
        assert fit.converged
        assert fit.convergence is rf.Convergence.CHECKED
        assert len(fit.diagnostics.messages()) == 1
    assert isinstance(fit.diagnostics, QuadratureDiagnostics)
    assert fit.diagnostics.error < 1e-6


@pytest.mark.parametrize("priors", ["flat", "boundary", {"Days": rf.priors.Flat()}])
@pytest.mark.parametrize("method", ["laplace", "quadrature"])
def test_improper_priors_leave_no_marginal_likelihood(method, priors):
    fit = sleep_model(priors=priors).fit(method, seed=1)
    assert "marginal likelihood" not in str(fit)
    assert "None" not in str(fit)
    with pytest.raises(rf.FitError) as caught:
        fit.log_marginal_likelihood()
    assert str(caught.value) == (
        "the marginal likelihood is not defined under flat priors, as it has their arbitrary "
        "height as a factor: give every parameter a proper prior with priors=, as the default "
        "ones are."
    )


def test_a_sampler_gives_the_marginal_likelihood_too():
    sampled, exact = fit_of("one factor", "mcmc"), fit_of("one factor", "quadrature")
    found = sampled.log_marginal_likelihood()
    assert found.value == pytest.approx(exact.log_marginal_likelihood().value, abs=1e-8)
    assert found.method == "quadrature"


@pytest.mark.parametrize("method", DRAWN)
def test_known_numbers_are_no_worry(method):
    """A parameter that is known has neither a spread nor an effective sample size."""
    options = {"seed": 1, "progressbar": False} if method == "mcmc" else {"seed": 1}
    fit = sleep_model(priors={"sigma": rf.priors.Constant(30)}).fit(method, **options)
    assert fit.converged
    row = fit.summary().to_frame().loc["sigma"]
    assert row[["mean", "sd", "lower", "upper"]].tolist() == [30, 0, 30, 30]
    assert fit.sigma == pytest.approx(30, rel=1e-12)
    if method == "mcmc":
        assert row[["ess_bulk", "ess_tail", "r_hat", "mcse_mean"]].isna().all()


# ---------------------------------------------------------------------- odd priors and odd data


@pytest.mark.parametrize("method", ["laplace", "mcmc"])
@pytest.mark.parametrize(
    "priors", [{"sd": rf.priors.Uniform(0, 20)}, {"Days": rf.priors.Uniform(0, 5)}]
)
def test_a_prior_that_leaves_out_where_the_data_are(method, priors):
    options = {"seed": 1, "progressbar": False} if method == "mcmc" else {}
    fit = sleep_model(priors=priors).fit(method, **options)
    assert fit.estimates()["sd_Subject[Intercept]"] > 0
    assert fit.fixef()["Days"] < 15


def test_a_multiple_of_another_column_has_a_prior_of_a_sensible_width():
    model = rf.Model("Reaction ~ Days + I(2 * Days) + (1 | Subject)", SLEEPERS)
    widths = [row.prior.sigma for row in model.priors.rows() if row.parameter == "beta"]
    assert max(widths) < 1e4


def test_a_known_effect_by_quadrature():
    fit = sleep_model(priors={"Days": rf.priors.Constant(10)}).fit("quadrature")
    assert fit.fixef()["Days"] == pytest.approx(10, rel=1e-12)
    assert fit.se()["Days"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", ["map", "laplace", "quadrature"])
def test_a_slope_on_a_column_of_zeros(method):
    with pytest.raises(rf.DataError, match="is zero"):
        rf.Model("y ~ x + (0 + nil | g)", frame().assign(nil=0.0)).fit(method)


SCALES = {"y * 1e9": (1e9, 0.0, 0.0), "y + 1e9": (1.0, 1e9, 0.0), "x + 1e6": (1.0, 0.0, 1e6)}


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("method", ["map", "laplace", "quadrature"])
def test_units_and_origins_do_not_matter(method, name):
    factor, origin, shift = SCALES[name]
    data = SLEEPERS.assign(
        Reaction=factor * SLEEPERS["Reaction"] + origin, Days=SLEEPERS["Days"] + shift
    )
    options = {} if method == "map" else {"seed": 1}
    plain, fit = (rf.fit(INTERCEPTS, d, method, **options) for d in (SLEEPERS, data))
    for parameter in ("Days", "sigma", "sd_Subject[Intercept]"):
        expected = factor * plain.estimates()[parameter]
        # resampling may choose other draws where the weights round differently
        tolerance = 2e-2 if method == "laplace" else 1e-5
        assert fit.estimates()[parameter] == pytest.approx(expected, rel=tolerance)


def test_missing_rows_and_unused_categories():
    data = SLEEPERS.assign(Subject=SLEEPERS["Subject"].astype("category"))
    data["Subject"] = data["Subject"].cat.add_categories(["nobody"])
    data.loc[3, "Days"] = np.nan
    with pytest.warns(rf.DataWarning, match="1 of 180 rows left out"):
        fit = rf.fit(INTERCEPTS, data, "quadrature")
    assert fit.n_obs == 179
    assert "nobody" not in fit.ranef()["Subject"].index
