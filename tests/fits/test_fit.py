"""The protocol of all fits: one contract, run over every structure and every method."""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import FORMULAS, METHODS, OPTIONS, fit_of, frame, known_posterior, population
from ranef.errors import FitError
from ranef.fits.fit import Fit
from ranef.plots import random_effects
from ranef.printing.summary import Summary

TIDY = ["term", "level", "coef"]
EFFECTS = [*TIDY, "estimate", "sd", "lower", "upper"]
SHRINKAGE = [*TIDY, "own", "model", "population", "n"]
SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(params=FORMULAS)
def kind(request):
    return request.param


@pytest.fixture(params=METHODS)
def fit(request, kind):
    return fit_of(kind, request.param)


def labels(fit):
    return [t.label for t in fit.design.terms]


# ------------------------------------------------------------------------------- the contract


def test_fixed_effects_have_the_names_of_the_columns(fit):
    fixed, vcov = list(fit.design.fixed), fit.vcov()
    assert isinstance(fit, Fit)
    assert (list(fit.fixef().index), fit.fixef().name) == (fixed, "estimate")
    assert (list(fit.se().index), fit.se().name) == (fixed, "se")
    assert list(vcov.index) == list(vcov.columns) == fixed
    assert fit.fixef().dtype == fit.se().dtype == np.float64
    np.testing.assert_allclose(fit.se() ** 2, np.diag(vcov), rtol=1e-12)
    np.testing.assert_allclose(vcov, vcov.T, rtol=1e-12)


def test_random_effects_are_levels_by_coefficients(fit):
    assert list(fit.ranef()) == labels(fit)
    for term in fit.design.terms:
        table = fit.ranef()[term.label]
        assert list(table.index) == list(term.levels)
        assert table.index.name == term.factor
        assert list(table.columns) == list(term.coefs)
        assert (table.dtypes == np.float64).all()


def test_the_tidy_table_holds_the_random_effects(fit):
    table = fit.ranef_table()
    assert list(table.columns) == EFFECTS
    assert (table.dtypes[EFFECTS[3:]] == np.float64).all()
    assert list(table.index) == list(range(len(table)))
    assert list(dict.fromkeys(table["term"])) == labels(fit)
    for label, effects in fit.ranef().items():
        rows = table[table["term"] == label]
        assert list(rows["level"]) == list(np.repeat(effects.index, effects.shape[1]))
        assert list(rows["coef"]) == list(effects.columns) * len(effects)
        np.testing.assert_allclose(rows["estimate"], effects.to_numpy().ravel())
    assert ((table["lower"] <= table["estimate"]) & (table["estimate"] <= table["upper"])).all()


def test_coefficients_are_fixed_plus_random_effects(fit):
    fixef = fit.fixef()
    assert list(fit.coef()) == labels(fit)
    for label, table in fit.coef().items():
        effects = fit.ranef()[label]
        assert list(table.index) == list(effects.index)
        assert table.index.name == effects.index.name
        assert list(table.columns[: len(fixef)]) == list(fixef.index)
        Z, X = fit.design.rows.term(label).columns, fit.design.rows.X
        alone = table[table.columns[len(fixef) :]]
        assert set(alone.columns) <= set(effects.columns)
        total = (
            X @ table.iloc[:, : len(fixef)].T
            + Z @ alone.reindex(columns=effects.columns).fillna(0).T
        )
        np.testing.assert_allclose(total, (X @ fixef)[:, None] + Z @ effects.T.to_numpy())


def test_variance_components_have_the_terms_names(fit):
    found = fit.varcorr()
    assert list(found.sd) == list(found.corr) == list(found.cov) == labels(fit)
    assert found.sigma == fit.sigma > 0
    for term in fit.design.terms:
        sd, corr, cov = (part[term.label] for part in (found.sd, found.corr, found.cov))
        for table in (corr, cov):
            assert list(table.index) == list(table.columns) == list(term.coefs)
            np.testing.assert_allclose(table, table.T)
        assert list(sd.index) == list(term.coefs)
        assert (sd.name, sd.dtype) == ("sd", np.float64)
        np.testing.assert_allclose(np.diag(corr), 1)
        if not term.covariance.has_correlations:
            np.testing.assert_array_equal(corr, np.eye(term.n_coefs))


def test_the_table_of_variance_components_is_lme4s(fit):
    found, table = fit.varcorr(), fit.varcorr().table
    assert list(table.columns) == ["grp", "var1", "var2", "vcov", "sdcor"]
    assert (table.dtypes[["vcov", "sdcor"]] == np.float64).all()
    rows = []
    for term in fit.design.terms:
        names, sd = term.coefs, found.sd[term.label]
        cov, corr = found.cov[term.label], found.corr[term.label]
        rows += [(term.label, a, None, cov.loc[a, a], sd[a]) for a in names]
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        if term.covariance.has_correlations:
            rows += [(term.label, a, b, cov.loc[a, b], corr.loc[a, b]) for a, b in pairs]
    rows.append(("Residual", None, None, found.sigma2, found.sigma))
    pd.testing.assert_frame_equal(table, pd.DataFrame(rows, columns=table.columns))


def test_theta_is_named(fit):
    sizes = [
        t.n_coefs * (t.n_coefs + 1) // 2 if t.covariance.has_correlations else t.n_coefs
        for t in terms(fit)
    ]
    assert fit.theta.shape == (sum(sizes),) == (len(fit.theta_names),)
    assert fit.theta.dtype == np.float64


def terms(fit):
    return fit.design.terms


def test_counts_and_state(fit):
    assert fit.n_obs == 240
    assert fit.n_groups == {t.factor: t.n_levels for t in terms(fit)}
    assert isinstance(fit.convergence, rf.Convergence)
    assert fit.converged is fit.convergence.ok
    assert fit.is_singular is (fit.convergence is rf.Convergence.SINGULAR)


def test_fitted_values_are_the_predictions(fit):
    fitted = fit.fitted()
    assert (fitted.shape, fitted.dtype) == ((240,), np.float64)
    for groups in ("known", "new"):
        np.testing.assert_array_equal(fitted, fit.predict(groups=groups))
        np.testing.assert_allclose(fitted, fit.predict(frame(), groups), rtol=1e-12)
    known = sum(
        np.sum(t.columns * fit.ranef()[t.label].to_numpy()[t.codes], axis=1)
        for t in fit.design.rows.terms
    )
    population = fit.predict(groups="population")
    np.testing.assert_allclose(population + known, fitted, rtol=1e-12)
    expected = fit.design.rows.X @ fit.fixef().to_numpy() + fit.design.rows.offset
    np.testing.assert_allclose(population, expected, rtol=1e-12)


def test_residuals_are_what_is_left(fit):
    left, weights = frame()["y"] - fit.fitted(), fit.design.rows.weights
    np.testing.assert_allclose(fit.residuals(), left, atol=1e-12)
    for name in ("pearson", "deviance"):
        np.testing.assert_allclose(fit.residuals(name), left * np.sqrt(weights), atol=1e-12)


def test_estimates_are_all_parameters_in_one_series(fit):
    found, estimates = fit.varcorr(), fit.estimates()
    assert estimates.name == "estimate"
    assert estimates.index.is_unique
    assert list(estimates.index[: len(fit.fixef())]) == list(fit.fixef().index)
    np.testing.assert_array_equal(estimates.iloc[: len(fit.fixef())], fit.fixef())
    assert estimates["sigma"] == fit.sigma
    for term in terms(fit):
        for i, a in enumerate(term.coefs):
            assert estimates[f"sd_{term.label}[{a}]"] == found.sd[term.label][a]
            for b in term.coefs[i + 1 :]:
                name = f"corr_{term.label}[{a}, {b}]"
                assert (name in estimates) == term.covariance.has_correlations
                if term.covariance.has_correlations:
                    assert estimates[name] == found.corr[term.label].loc[a, b]
    assert len(estimates) == len(fit.fixef()) + 1 + len(fit.theta)


def test_intervals_begin_with_the_fixed_effects(fit):
    table = fit.confint()
    assert list(table.columns) == ["lower", "upper"]
    assert list(table.index[: len(fit.fixef())]) == list(fit.fixef().index)
    assert (table["lower"] < table["upper"]).all()
    narrow = fit.confint(prob=0.5)
    assert ((table["lower"] < narrow["lower"]) & (narrow["upper"] < table["upper"])).all()


def test_the_summary_prints_and_holds_the_main_table(fit):
    summary = fit.summary()
    assert isinstance(summary, Summary)
    assert list(summary.to_frame().index[: len(fit.fixef())]) == list(fit.fixef().index)
    assert str(fit) == repr(fit) == str(summary)
    assert max(map(len, str(fit).split("\n"))) <= 105
    assert fit._repr_html_().count("<table") == len(summary.sections)
    assert str(fit).startswith("Linear mixed model" if terms(fit) else "Linear model")


def test_shrinkage_tables_are_tidy(fit):
    for term in terms(fit):
        table = fit.shrinkage_table(term.label)
        assert list(table.columns)[: len(SHRINKAGE)] == SHRINKAGE
        assert (table.dtypes[SHRINKAGE[3:6]] == np.float64).all()
        assert table["n"].dtype == np.int64
        of_factor = [one.label for one in terms(fit) if one.factor == term.factor]
        ours = fit.ranef_table().query("term in @of_factor").assign(term=term.factor)
        both = table.merge(ours, on=["term", "level", "coef"])
        assert len(both) == len(table) == len(ours)
        expected = [
            np.tile(population(fit, fit.design.term(one)), term.n_levels) for one in of_factor
        ]
        np.testing.assert_allclose(np.sort(both["population"]), np.sort(np.concatenate(expected)))
        if term.factor != "c:s":  # whose levels are each of a level of `s`
            np.testing.assert_allclose(both["model"] - both["population"], both["estimate"])


def test_every_method_answers_with_the_same_types(kind):
    reml, ml, posterior = (fit_of(kind, method) for method in METHODS)
    for other in (ml, posterior):
        assert list(reml.estimates().index) == list(other.estimates().index)
        for name in ("ranef_table", "vcov", "confint"):
            a, b = getattr(reml, name)(), getattr(other, name)()
            assert list(a.columns) == list(b.columns)
            assert list(a.dtypes) == list(b.dtypes), name
        assert list(reml.varcorr().table.dtypes) == list(other.varcorr().table.dtypes)
        for a, b in zip(reml.coef().values(), other.coef().values(), strict=True):
            assert list(a.dtypes) == list(b.dtypes)
            assert a.index.equals(b.index)


def test_a_sampled_posterior_keeps_the_contract(sleep_post):
    reml = rf.fit(SLEEP, rf.load_dataset("sleepstudy"))
    assert list(sleep_post.estimates().index) == list(reml.estimates().index)
    assert list(sleep_post.estimates().index) == list(sleep_post.hdi().index)
    assert sleep_post.ranef()["Subject"].index.equals(reml.ranef()["Subject"].index)
    assert list(sleep_post.ranef_table().dtypes) == list(reml.ranef_table().dtypes)
    np.testing.assert_allclose(sleep_post.predict(), sleep_post.fitted())
    assert abs(sleep_post.fitted() - reml.fitted()).max() < 5


# ----------------------------------------------------------------------------- prediction


def test_new_rows_with_new_levels():
    fit = fit_of("crossed", "reml")
    rows = pd.DataFrame({"x": [0.0, 1.0, 1.0], "g": ["x", "new", "a b"], "h": [1, 2, 99]})
    beta, g, h = fit.fixef(), fit.ranef()["g"]["Intercept"], fit.ranef()["h"]
    expected = [
        beta["Intercept"] + g["x"] + h.loc[1, "Intercept"],
        beta["Intercept"] + beta["x"] + h.loc[2, "Intercept"] + h.loc[2, "x"],
        beta["Intercept"] + beta["x"] + g["a b"],
    ]
    np.testing.assert_allclose(fit.predict(rows, "new"), expected)
    population = beta["Intercept"] + beta["x"] * rows["x"]
    np.testing.assert_allclose(fit.predict(rows, "population"), population)
    without = rows.drop(columns=["g", "h"])
    np.testing.assert_allclose(fit.predict(without, "population"), population)


def test_unseen_levels_are_refused():
    rows = pd.DataFrame({"x": [0.0, 1.0], "g": ["x", "new"], "h": [1, 2]})
    with pytest.raises(rf.DataError) as caught:
        fit_of("crossed", "reml").predict(rows)
    assert str(caught.value) == (
        "1 row has a level of `g` that the model has not seen, `new` (row `1`): predict with "
        "groups='new' (a new group, its effects drawn from their distribution), "
        "groups='population' (a typical group, effects of zero) or groups='average' (the mean over "
        "groups)."
    )
    rows["g"] = ["newer", "new"]
    with pytest.raises(rf.DataError) as caught:
        fit_of("crossed", "reml").predict(rows)
    text = "2 rows have levels of `g` that the model has not seen, `newer` and `new` (rows"
    assert str(caught.value).startswith(text)


# ----------------------------------------------------------------------- names and pictures


def test_a_coefficient_called_as_a_parameter_keeps_its_estimate():
    data = frame().rename(columns={"x": "sigma", "z": "Subject", "u": "my x", "g": "a:b"})
    model = rf.Model("y ~ sigma + Subject + `my x` + (sigma | `a:b`)", data)
    for fit in (model.fit(), known_posterior(model)):
        estimates = fit.estimates()
        assert list(estimates.index) == [
            "Intercept",
            "beta[sigma]",
            "Subject",
            "my x",
            "sigma",
            "sd_a:b[Intercept]",
            "sd_a:b[sigma]",
            "corr_a:b[Intercept, sigma]",
        ]
        assert estimates["beta[sigma]"] == fit.fixef()["sigma"]
        assert estimates["sigma"] == fit.sigma
        assert "beta[sigma]" not in fit.coef()["a:b"]


def test_side_by_side_and_compare_want_names():
    fit = fit_of("one factor", "reml")
    with pytest.raises(FitError, match="side_by_side takes a dict from names to fits"):
        rf.side_by_side(fit, fit)
    with pytest.raises(FitError, match="have no names; give them names"):
        rf.compare(fit, fit)


def test_side_by_side_takes_fits_of_different_terms():
    fits = {name: fit_of(name, "reml") for name in ("one factor", "correlated slopes", "crossed")}
    table = rf.side_by_side(fits)
    assert list(table.columns) == list(fits)
    assert list(table.index) == [
        "Intercept",
        "x",
        "sigma",
        "sd_g[Intercept]",
        "sd_g[x]",
        "corr_g[Intercept, x]",
        "sd_h[Intercept]",
        "sd_h[x]",
        "corr_h[Intercept, x]",
    ]
    for name, fit in fits.items():
        pd.testing.assert_series_equal(table[name].dropna(), fit.estimates(), check_names=False)
    assert table["one factor"].isna().sum() == 5


def test_side_by_side_of_nothing_is_empty():
    assert rf.side_by_side({}).shape == (0, 0)


@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_drawn_from_the_tables(method):
    fit = fit_of("correlated slopes", method)
    (left, right) = fit.plot_caterpillar(prob=0.5)
    drawn = {text.get_text() for text in left.get_yticklabels()}
    assert drawn == set(map(str, fit.ranef()["g"].index))
    said = " ".join(t.get_text() for t in left.figure.findobj() if hasattr(t, "get_text"))
    assert fit.ranef_table(0.5).attrs["interval"] in said
    assert right is not left
    assert fit.plot_shrinkage().get_xlabel() != ""
    assert fit.plot_shrinkage("g", coefs="x", ax=left) is left


def test_the_ellipse_of_shrinkage_is_the_models_covariance(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        random_effects, "shrinkage", lambda table, **style: seen.update(style, table=table)
    )
    fit = fit_of("crossed", "ml")
    fit.plot_shrinkage("h", coefs=["x", "Intercept"], labels=False)
    pd.testing.assert_frame_equal(seen.pop("covariance"), fit.varcorr().cov["h"])
    pd.testing.assert_frame_equal(seen.pop("table"), fit.shrinkage_table("h"))
    labels = {"Intercept": "Intercept", "x": "x"}
    assert seen == {"coefs": ["x", "Intercept"], "labels": False, "xlabels": labels}


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f: f.residuals("Pearsen"),
            "kind='Pearsen' is not a kind of residual. Did you mean `pearson`?",
        ),
        (
            lambda f: f.residuals(None),
            (
                "kind=None is not a kind of residual. Known names: `response`, `pearson`, "
                "`deviance`, `standardized`, `whitened`, `quantile`."
            ),
        ),
        (
            lambda f: f.predict(groups="all"),
            "groups='all' is not an option. Known names: `known`, `population`, `new`, `average`.",
        ),
        (
            lambda f: f.shrinkage_table("G"),
            "there is no random-effects term 'G'. Did you mean `g`?",
        ),
        (
            lambda f: f.plot_shrinkage("zzz"),
            "there is no random-effects term 'zzz'. Known names: `g`.",
        ),
        (
            lambda f: f.plot_caterpillar(7),
            "there is no random-effects term 7. Known names: `g`.",
        ),
    ],
)
def test_what_does_not_exist_is_named(call, message):
    with pytest.raises(rf.FitError) as caught:
        call(fit_of("one factor", "reml"))
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["shrinkage_table", "plot_shrinkage", "plot_caterpillar"])
@pytest.mark.parametrize("method", METHODS)
def test_without_random_effects_there_is_nothing_to_shrink(name, method):
    with pytest.raises(rf.FitError) as caught:
        getattr(fit_of("no random terms", method), name)()
    assert str(caught.value) == "the model has no random effects."


@pytest.mark.parametrize("fits", [[1, 2], {"a": 3}, None])
def test_only_named_fits_stand_side_by_side(fits):
    with pytest.raises(rf.FitError) as caught:
        rf.side_by_side(fits)
    message = "side_by_side takes a dict from names to fits: {'REML': reml, 'ML': ml}."
    assert str(caught.value) == message


# ------------------------------------------------------------ the same columns by other names

SAME_COLUMNS = [
    ("b:a", "a:b", True),
    ("I(a^2)", "I(a**2)", True),
    ("I(a*b)", "a:b", True),
    ("a", "I(3 * a)", True),
    ("f", "C(f)", True),
    ("f", "0 + f", True),
    ("0 + f", "f", True),
    ("0 + f", "1", True),
    ("f", "C(f, contr.sum)", True),
    ("C(f, contr.helmert)", "0 + f", True),
    ("f * a", "0 + f + f:a", True),
    ("poly(a, 2)", "a + I(a^2)", True),
    ("a + I(a^2)", "poly(a, 2)", True),
    ("I(a > 0)", "I(0 < a)", True),
    ("log(e)", "I(log(e) / log(2))", True),
    ("a", "b", False),
    ("a", "poly(a, 2)", False),
]


@pytest.mark.parametrize(("fixed", "random", "within"), SAME_COLUMNS)
def test_fixed_and_random_columns_are_matched_by_what_they_are(fixed, random, within):
    data = frame().rename(columns={"x": "a", "z": "b"})
    fit = known_posterior(rf.Model(f"y ~ {fixed} + ({random} | s)", data))
    coef, X = fit.coef()["s"], fit.design.rows.X
    assert (list(coef.columns) == list(fit.design.fixed)) == within
    one = fit.design.rows.term("s")
    p = len(fit.design.fixed)
    alone = [one.columns[:, fit.design.term("s").coefs.index(c)] for c in coef.columns[p:]]
    own = np.column_stack([X, *alone])
    eta = np.sum(own * coef.to_numpy()[one.codes], axis=1)
    np.testing.assert_allclose(eta, fit.predict(kind="link"), rtol=1e-9)


def test_where_no_column_is_shared_random_effects_stand_alone():
    fit = known_posterior(rf.Model("y ~ x + (0 + z | s)", frame()))
    coef = fit.coef()["s"]
    assert list(coef.columns) == ["Intercept", "x", "z"]
    np.testing.assert_array_equal(coef["z"], fit.ranef()["s"]["z"])


# --------------------------------------------------------------------- rows without a prediction


@pytest.mark.parametrize("method", ["reml", "map", "quadrature", "laplace"])
@pytest.mark.parametrize("text", ["f * s", "0 + f:s"])
def test_an_empty_cell_has_no_prediction_by_any_method(text, method):
    data = frame()[["y", "f", "s", "h"]]
    seen = data[(data.f != "hi") | (data.s != "q")]
    model = rf.Model(f"y ~ {text} + (1 | h)", seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.DataWarning)
        fit = model.fit(method, **({"draws": 1000, "seed": 1} if method in OPTIONS else {}))
    asked = pd.DataFrame({"f": ["hi", "lo", "hi"], "s": ["q", "q", "p"], "h": [0, 0, None]})
    with pytest.warns(rf.DataWarning) as said:
        found = fit.predict(asked, groups="new")
    assert np.isnan(found).tolist() == [True, False, True]
    assert [str(one.message).split(":")[0] for one in said] == [
        "nan is predicted for 1 of 3 rows, for missing values in `h` (1)",
        "nan is predicted for 1 of 2 rows, as the data do not determine the mean",
    ]


# ------------------------------------------------------------------------------- without rows


@pytest.mark.parametrize("method", ["reml", "quadrature"])
def test_a_fit_without_rows_says_all_but_what_is_of_single_rows(method):
    sleep = rf.load_dataset("sleepstudy")
    whole = rf.fit("Reaction ~ Days + (Days | Subject)", sleep, method)
    bare = replace(whole, design=replace(whole.design, _rows=None))
    pd.testing.assert_series_equal(bare.fixef(), whole.fixef())
    pd.testing.assert_frame_equal(bare.vcov(), whole.vcov())
    pd.testing.assert_frame_equal(bare.ranef()["Subject"], whole.ranef()["Subject"])
    pd.testing.assert_frame_equal(bare.ranef_table(), whole.ranef_table())
    pd.testing.assert_frame_equal(bare.confint(), whole.confint())
    np.testing.assert_array_equal(bare.predict(sleep), whole.predict(sleep))
    assert (str(bare), str(bare.varcorr())) == (str(whole), str(whole.varcorr()))
    assert str(bare.re_pca()) == str(whole.re_pca())
    assert bare.n_obs == 180
    bare.plot_caterpillar()
    for ask in (
        lambda fit: fit.fitted(),
        lambda fit: fit.residuals(),
        lambda fit: fit.predict(),
        lambda fit: fit.shrinkage_table(),
        lambda fit: fit.r2(),
    ):
        with pytest.raises(
            FitError, match=r"^this model has no rows: it was made from cross-products alone"
        ):
            ask(bare)
    if method == "reml":
        assert (bare.loglik, bare.aic, bare.bic) == (whole.loglik, whole.aic, whole.bic)
        for ask in (lambda fit: fit.Z(), lambda fit: fit.bootstrap(2, seed=1)):
            with pytest.raises(FitError, match=r"^this model has no rows"):
                ask(bare)


# --------------------------------------------------------------------------- the other kind of fit

OF_POINTS = ["aic", "bic", "df", "loglik", "objective", "profile", "bootstrap"]
OF_POSTERIORS = ["hdi", "draws", "loo", "posterior", "log_marginal_likelihood", "savage_dickey"]


@pytest.mark.parametrize("name", OF_POINTS + OF_POSTERIORS)
def test_a_method_of_the_other_kind_of_fit_says_how_to_get_there(name):
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    point, posterior = model.fit(), model.fit("laplace", seed=1, draws=1000)
    there, not_there = (point, posterior) if name in OF_POINTS else (posterior, point)
    assert hasattr(there, name)
    with pytest.raises(AttributeError) as caught:
        getattr(not_there, name)
    methods = '"reml", "ml" or "map"' if there is point else '"quadrature" (linear models)'
    assert f"has no `{name}`; a " in str(caught.value)
    assert f"fit by method={methods}" in str(caught.value)
    with pytest.raises(AttributeError, match=f"a Model has no `{name}`; a P"):
        getattr(model, name)


def test_other_names_are_missing_as_ever():
    fit = fit_of("crossed", "reml")
    with pytest.raises(AttributeError, match=r"^a PointFit has no `fixeff`$") as caught:
        _ = fit.fixeff
    assert (caught.value.name, caught.value.obj) == ("fixeff", fit)
    assert not hasattr(fit, "_secret")
    with pytest.raises(AttributeError, match=r"a QuadratureFit has: fit by method=.quadrature"):
        _ = fit.curve
    assert pickle.loads(pickle.dumps(fit)).loglik == copy.deepcopy(fit).loglik == fit.loglik
