"""Fits of every kind through a file and back: the same answers, and clear refusals."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from generalized_fits import FAMILIES, simulated

import ranef as rf
from fits import FORMULAS, fit_of, frame, known_posterior, model_of
from ranef.errors import DataError, FitError, FormulaError
from ranef.families.links import LOG
from ranef.model import archive, storage

SLEEP = "Reaction ~ Days + (Days | Subject)"


def through(fit, tmp_path, **options):
    path = tmp_path / "fit.zip"
    fit.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rf.load(path, **options)


def check_same(fit, again, *, rows=None):
    """Two fits give the same numbers, bit by bit."""
    assert type(again) is type(fit)
    assert str(again) == str(fit)
    exactly = {"check_exact": True}
    pd.testing.assert_series_equal(again.estimates(), fit.estimates(), **exactly)
    pd.testing.assert_frame_equal(again.vcov(), fit.vcov(), **exactly)
    pd.testing.assert_frame_equal(again.ranef_table(), fit.ranef_table(), **exactly)
    np.testing.assert_array_equal(again.theta, fit.theta)
    np.testing.assert_array_equal(again.residuals("pearson"), fit.residuals("pearson"))
    assert again.design.rows.index.equals(fit.design.rows.index)
    if rows is not None:
        np.testing.assert_array_equal(again.predict(rows), fit.predict(rows))
    if isinstance(fit, rf.PointFit):
        assert (again.loglik, again.aic, again.convergence) == (
            fit.loglik,
            fit.aic,
            fit.convergence,
        )
        pd.testing.assert_frame_equal(again.trace, fit.trace, **exactly)
    else:
        assert again.diagnostics == fit.diagnostics
        assert again.evidence == fit.evidence
        for name in fit.posterior.children:
            one, other = again.posterior[name].to_dataset(), fit.posterior[name].to_dataset()
            assert one.identical(other.assign_attrs(one.attrs)), name
            assert list(one.variables) == list(other.variables)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        *((kind, "reml") for kind in FORMULAS),
        ("crossed", "ml"),
        ("one factor", "quadrature"),
        ("no fixed effects", "quadrature"),
        ("four coefficients", "laplace"),
        ("no random terms", "laplace"),
    ],
)
def test_linear_fits(kind, method, tmp_path):
    fit = fit_of(kind, method)
    check_same(fit, through(fit, tmp_path), rows=frame().iloc[:20])


@pytest.mark.parametrize("kind", ["weights and offset", "no fixed effects", "crossed"])
def test_sampled_fits(kind, tmp_path):
    fit = replace(known_posterior(model_of(kind)), engine=model_of(kind).engine)
    check_same(fit, through(fit, tmp_path), rows=frame().iloc[:20])


@pytest.mark.parametrize("family", FAMILIES)
def test_generalised_fits(family, tmp_path):
    link, _ = FAMILIES[family]
    response = "cbind(k, trials - k)" if family == "binomial" else "y"
    model = rf.Model(f"{response} ~ x + (1 | g)", simulated(family), family, link=link)
    fit = model.fit("ml", n_agq=3)
    check_same(fit, through(fit, tmp_path), rows=simulated(family).iloc[:20])


def test_posteriors_of_generalised_models(tmp_path):
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    for fit in (
        rf.fit(formula, data, "laplace", family="binomial", draws=400, seed=1),
        rf.fit(formula, data, "map", family="binomial", priors="boundary"),
    ):
        check_same(fit, through(fit, tmp_path), rows=data.iloc[:9])


def test_a_loaded_fit_answers_what_needs_the_data(tmp_path):
    fit = rf.fit(SLEEP, rf.load_dataset("sleepstudy"))
    again = through(fit, tmp_path)
    for one, other in [
        (again.profile("Days").table, fit.profile("Days").table),
        (again.bootstrap(5, seed=1).estimates, fit.bootstrap(5, seed=1).estimates),
        (again.simulate(2, seed=1), fit.simulate(2, seed=1)),
    ]:
        np.testing.assert_array_equal(one, other)
    null = rf.fit("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"), "ml")
    of_file, of_memory = again.engine.refit("ml"), fit.engine.refit("ml")
    assert str(rf.anova(of_file, null, seed=1)) == str(rf.anova(of_memory, null, seed=1))


def test_a_loaded_lattice_answers_what_needs_the_data(tmp_path):
    lattice = fit_of("one factor", "quadrature")
    again, name = through(lattice, tmp_path), "sd_g[Intercept]"
    assert again.loo("group").elpd == lattice.loo("group").elpd
    assert again.log_marginal_likelihood() == lattice.log_marginal_likelihood()
    np.testing.assert_array_equal(again.curve(name).pdf([1, 3]), lattice.curve(name).pdf([1, 3]))
    pd.testing.assert_frame_equal(
        again.prior_sensitivity(), lattice.prior_sensitivity(), check_exact=True
    )


# -------------------------------------------------------------------- what a model is made of

P = rf.priors
BASE = frame().assign(
    size=pd.cut(frame()["x"], 3),
    day=pd.Timestamp("2024-02-28") + pd.to_timedelta(frame()["h"], unit="D"),
    f=pd.Categorical(frame()["f"], ["mid", "lo", "never", "hi"]),
)
MODELS = {
    "priors": (
        "y ~ x + (x | g)",
        {"priors": {"x": P.Normal(3, 1), "sd_g": {"x": P.HalfNormal(2)}}},
    ),
    "a base": ("y ~ x + (1 | g)", {"priors": {"base": "brms", "sd": P.Relative(P.HalfCauchy(1))}}),
    "known sigma": ("y ~ x + (1 | g)", {"priors": {"sigma": P.Constant(2)}, "weights": BASE["w"]}),
    "a named offset": ("y ~ x + (1 | g)", {"offset": "z"}),
    "an offset in x": ("y ~ x + z + (1 | g)", {"offset": "z"}),
    "an offset": ("y ~ x + (1 | g)", {"offset": BASE["z"].to_numpy()}),
    "weights": ("y ~ x + (1 | g)", {"weights": BASE["w"].to_numpy()}),
    "contrasts": ("y ~ C(f, contr.sum) * size + (1 | g)", {}),
    "transforms": ("log(y + 90) ~ poly(x, 2) + bs(z, df=4) + scale(u) + I(x^2) + (1 | g)", {}),
    "dates": ("y ~ factor(day) + (1 | day)", {}),
    "interactions": ("y ~ 1 + (1 | f:size) + (0 + f || g)", {}),
}


@pytest.mark.parametrize("place", range(len(MODELS)), ids=list(MODELS))
def test_models(place, tmp_path):
    name, labels = list(MODELS)[place], ["numbers", "text", "two levels", "dates"][place % 4]
    formula, options = MODELS[name]
    index = {
        "numbers": BASE.index[::-1],
        "text": [f"row {i}" for i in range(len(BASE))],
        "two levels": pd.MultiIndex.from_product([range(24), range(10)]),
        "dates": pd.date_range("2020-01-01", periods=len(BASE), name="when"),
    }[labels]
    options = {n: v.set_axis(index) if isinstance(v, pd.Series) else v for n, v in options.items()}
    fit = rf.Model(formula, BASE.set_axis(index), **options).fit("map")
    rows = None if name == "an offset" else BASE.iloc[:15]
    again = through(fit, tmp_path)
    check_same(fit, again, rows=rows)
    assert dict(again.engine.priors.parameters) == dict(fit.engine.priors.parameters)


def test_rows_that_were_left_out_are_not_saved(tmp_path):
    data = BASE.assign(x=BASE["x"].where(BASE.index > 5))
    with pytest.warns(rf.DataWarning, match="6 of 240 rows left out"):
        fit = rf.fit("y ~ x + (1 | g)", data)
    check_same(fit, through(fit, tmp_path))


def test_columns_that_are_combinations_stay_out(tmp_path):
    with pytest.warns(rf.DataWarning):
        fit = rf.fit("y ~ x + I(2 * x) + (1 | g)", BASE)
    check_same(fit, through(fit, tmp_path), rows=BASE.iloc[:9])


@pytest.mark.parametrize("kind", ["polars", "pyarrow", "mapping"])
def test_data_of_other_kinds(kind, tmp_path):
    polars = pytest.importorskip("polars")
    data = polars.from_pandas(rf.load_dataset("Machines"))
    data = {"polars": data, "pyarrow": data.to_arrow(), "mapping": data.to_dict()}[kind]
    fit = rf.fit("score ~ Machine + (1 | Worker)", data)
    check_same(fit, through(fit, tmp_path))


def test_own_functions_are_to_be_given(tmp_path):
    fit = rf.fit("y ~ half(x) + (1 | g)", BASE, functions={"half": lambda x: x / 2})
    fit.save(tmp_path / "fit.zip")
    with pytest.raises(FormulaError, match="the function `half` is not available"):
        rf.load(tmp_path / "fit.zip")
    again = rf.load(tmp_path / "fit.zip", functions={"half": lambda x: x / 2})
    check_same(fit, again, rows=BASE.iloc[:9])
    with pytest.raises(FitError) as caught:
        rf.load(tmp_path / "fit.zip", functions={"half": lambda x: x / 3})
    assert str(caught.value).replace(str(tmp_path), "") == (
        "the fit in `/fit.zip` was saved with other model matrices than its formula and data give "
        "here: functions= that compute something else, or another version of ranef."
    )


def geometric(rate=1.0):
    return rf.Family(
        "geometric",
        LOG,
        variance=lambda mu: mu + mu**2,
        log_density=lambda y, mu, w: rate * w * (y * np.log(mu) - (y + 1) * np.log1p(mu)),
        support="counts",
    )


def test_own_families_are_to_be_given(tmp_path):
    data = simulated("poisson")
    fit = rf.fit("y ~ x + (1 | g)", data, family=geometric())
    fit.save(tmp_path / "fit.zip")
    with pytest.raises(FitError) as caught:
        rf.load(tmp_path / "fit.zip")
    assert str(caught.value).replace(str(tmp_path), "") == (
        "the fit in `/fit.zip` has a family of your own, `geometric` with the link `log`, which no "
        "file can hold: give it to rf.load as family=."
    )
    with pytest.raises(FitError) as caught:
        rf.load(tmp_path / "fit.zip", family="gamma")
    assert str(caught.value).replace(str(tmp_path), "") == (
        "the fit in `/fit.zip` has the family `geometric` with the link `log`, got family= with "
        "`gamma` and `log`."
    )
    check_same(fit, rf.load(tmp_path / "fit.zip", family=geometric()))


def test_a_changed_family_is_one_of_the_users(tmp_path):
    poisson = replace(rf.Model("y ~ x", simulated("poisson"), "poisson").family, variance=np.sqrt)
    rf.fit("y ~ x + (1 | g)", simulated("poisson"), family=poisson).save(tmp_path / "fit.zip")
    with pytest.raises(FitError, match="has a family of your own, `poisson`"):
        rf.load(tmp_path / "fit.zip")


def test_without_a_model_there_is_nothing_to_save(tmp_path):
    fit = known_posterior(model_of("one factor"))
    with pytest.raises(FitError, match="this fit has no model to ask"):
        fit.save(tmp_path / "fit.zip")
    assert not (tmp_path / "fit.zip").exists()


def test_values_that_no_file_holds_are_refused(tmp_path):
    data = BASE.assign(k=[frozenset([i % 3]) for i in range(len(BASE))])
    fit = rf.fit("y ~ x + (1 | k)", data)
    with pytest.raises(DataError, match="a file cannot hold the value frozenset"):
        fit.save(tmp_path / "fit.zip")


# ------------------------------------------------------------------------------ other processes

READ = """
import json, sys, warnings
warnings.simplefilter("error")
import ranef as rf
for path in sys.argv[1:]:
    fit = rf.load(path)
    table = fit.ranef_table()
    found = [*fit.estimates(), *fit.fitted(), *table["estimate"], *table["upper"]]
    print(json.dumps([str(fit), found]))
"""


def test_a_fresh_process_gives_the_same(tmp_path):
    fits = [fit_of("correlated slopes", method) for method in ("reml", "ml", "laplace")]
    fits.append(fit_of("one factor", "quadrature"))
    fits.append(replace(known_posterior(model_of("nested")), engine=model_of("nested").engine))
    fits.append(rf.fit("y ~ x + (1 | g)", simulated("gamma"), family="gamma", link="log"))
    fits.append(rf.fit(*("y ~ x + (x | g)", BASE), "map", priors={"sd": P.Gamma(2, 0.1)}))
    paths = [tmp_path / f"{i}.zip" for i in range(len(fits))]
    for fit, path in zip(fits, paths, strict=True):
        fit.save(path)
    command = [sys.executable, "-c", READ, *map(str, paths)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    for fit, line in zip(fits, run.stdout.splitlines(), strict=True):
        text, numbers = json.loads(line)
        table = fit.ranef_table()
        expected = [*fit.estimates(), *fit.fitted(), *table["estimate"], *table["upper"]]
        assert text == str(fit)
        np.testing.assert_allclose(numbers, expected, rtol=1e-13)  # as BLAS has other threads


def test_nothing_that_is_cached_is_saved(tmp_path):
    model = rf.Model("y ~ x + (1 | g)", BASE)
    fit, other = model.fit("quadrature", seed=1), model.fit("quadrature", seed=1)
    str(fit), fit.posterior, fit.loo(), fit.prior_sensitivity()
    for one, name in ((fit, "used.zip"), (other, "fresh.zip")):
        one.save(tmp_path / name)
    used, fresh = (tmp_path / name for name in ("used.zip", "fresh.zip"))
    assert used.read_bytes() == fresh.read_bytes()
    assert len(pickle.dumps(fit)) < 1.01 * len(pickle.dumps(other))
    assert fresh.stat().st_size < len(pickle.dumps(other))
    check_same(pickle.loads(pickle.dumps(fit)), fit)


def test_draws_without_a_seed_are_the_same_later(tmp_path):
    fit = rf.fit("y ~ x + (1 | g)", BASE, "quadrature", draws=50)
    again = through(fit, tmp_path)
    np.testing.assert_array_equal(again.draws("beta"), fit.draws("beta"))
    other = rf.fit("y ~ x + (1 | g)", BASE, "quadrature", draws=50)
    assert not np.array_equal(other.draws("beta"), fit.draws("beta"))


# --------------------------------------------------------------------------- formulas in files


def with_model(path, **changes):
    """Change what a file says of the model."""
    with zipfile.ZipFile(path) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    attributes = json.loads(contents[".zattrs"])
    body = json.loads(attributes["ranef"])
    body["record"]["dict"]["model"]["dict"] |= changes
    attributes["ranef"] = json.dumps(body)
    contents[".zattrs"] = json.dumps(attributes).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in contents.items():
            new.writestr(name, content)
        new.comment = archive._seal(new)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ __import__('os').system('touch x') + (1 | g)",
        "y ~ eval(x) + (1 | g)",
        "y ~ x.to_csv('x') + (1 | g)",
        "y ~ {open('x', 'w')} + (1 | g)",
    ],
)
def test_a_formula_from_a_file_is_held_against_the_list(formula, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "fit.zip"
    rf.fit("y ~ x + (1 | g)", BASE).save(path)
    with_model(path, formula=formula)
    with pytest.raises(FormulaError):
        rf.load(path)
    assert [one.name for one in tmp_path.iterdir()] == ["fit.zip"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"formula": "y ~ (1 | g)"}, "was saved with other model matrices"),
        ({"formula": 3}, "a formula is text, got int"),
        ({"formula": "y ~ nothing"}, "the column `nothing` is not in the data"),
        ({"family": {"dict": {}}}, "is damaged"),
        ({"columns": {"dict": {}}}, "the column `y` is not in the data"),
        ({"priors": "none"}, "There are no priors named `none`"),
        ({"weights": [1, 2]}, "weights= has shape"),
    ],
)
def test_a_file_that_was_changed_by_hand_is_refused(changes, message, tmp_path):
    path = tmp_path / "fit.zip"
    rf.fit("y ~ x + (1 | g)", BASE).save(path)
    with_model(path, **changes)
    with pytest.raises(rf.RanefError, match=message):
        rf.load(path)


# ----------------------------------------------------------------------------- file= of a fit


@pytest.fixture
def counted(monkeypatch):
    """Count the fits that are made."""
    made = []
    monkeypatch.setattr(
        storage, "save", lambda *args, _save=storage.save: (made.append(args[0]), _save(*args))
    )
    return made


def test_a_fit_is_made_once(tmp_path, counted):
    path = tmp_path / "fit.zip"
    model = rf.Model("y ~ x + (1 | g)", BASE)
    first = model.fit("quadrature", file=path)
    again = rf.Model("y ~ x + (1 | g)", BASE.copy()).fit("quadrature", file=str(path))
    assert len(counted) == 1
    check_same(first, again)
    check_same(rf.load(path), first)
    assert again.engine is not first.engine
    assert rf.fit("y ~ x + (1 | g)", BASE, "quadrature", file=path).n_obs == 240
    assert len(counted) == 1


def options_of(**changes):
    return {"formula": "y ~ x + (1 | g)", "data": BASE, "method": "map"} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"formula": "y ~ x + z + (1 | g)"},
        {"formula": "y ~ x + (1 | f)"},
        {"method": "laplace", "seed": 1},
        {"priors": {"sd": P.HalfNormal(3)}},
        {"priors": "boundary"},
        {"weights": "w"},
        {"offset": "z"},
        {"family": "t"},
        {"data": BASE.iloc[1:]},
        {"data": BASE.assign(y=BASE["y"] + 1e-9)},
        {"data": BASE.assign(x=BASE["x"].astype(np.float32))},
        {"data": BASE.assign(g=pd.Categorical(BASE["g"]))},
        {"data": BASE.set_axis(BASE.index + 1)},
    ],
    ids=str,
)
def test_a_change_is_fitted(changes, tmp_path, counted):
    path = tmp_path / "fit.zip"
    rf.fit(**options_of(), file=path)
    fit = rf.fit(**options_of(**changes), file=path)
    assert len(counted) == 2
    check_same(fit, rf.fit(**options_of(**changes)))
    check_same(rf.fit(**options_of(**changes), file=path), fit)
    assert len(counted) == 2


def test_what_does_not_matter_is_no_change(tmp_path, counted, capsys):
    path = tmp_path / "fit.zip"
    priors = {"x": P.Normal(0, 1), "sd": P.HalfNormal(3)}
    rf.fit(**options_of(priors=priors), file=path)
    turned = dict(reversed(priors.items()))
    data = BASE.assign(unused=1)[[*reversed(BASE.columns), "unused"]]
    rf.fit(**options_of(priors=turned, data=data), file=path, verbose=True)
    rf.Model("y ~ x + (1 | g)", BASE).fit("map", priors=priors, file=path)
    assert len(counted) == 1
    assert not capsys.readouterr().out


@pytest.mark.parametrize("formula", ["y ~ f1(x) + (1 | g)", "y ~ x + offset(f1(z)) + (1 | g)"])
def test_other_functions_are_a_change(formula, tmp_path, counted):
    path = tmp_path / "fit.zip"
    for factor, made in ((2, 1), (2, 1), (3, 2)):
        functions = {"f1": lambda x, factor=factor: x * factor}
        rf.fit(formula, BASE, functions=functions, file=path)
        assert len(counted) == made


@pytest.mark.parametrize(
    "formula",
    ["y ~ f1(x) + (1 | g)", "y ~ x + (f1(x) | g)", "y ~ big + f1(x) + (1 | g)"],
)
def test_a_function_that_turns_a_scale_round_is_a_change(formula, tmp_path, counted):
    path = tmp_path / "fit.zip"
    data = BASE.assign(x=np.arange(len(BASE)) % 6 / 5, big=np.linspace(1e9, 2e9, len(BASE)))
    for function in (lambda x: x * 1.0, lambda x: 1.0 - x):  # of one mean and mean square
        rf.fit(formula, data, functions={"f1": function}, file=path)
    assert len(counted) == 2


def test_a_file_that_is_none_of_ours_is_not_replaced(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("important")
    with pytest.raises(FitError, match="is not a file that fit"):
        rf.fit("y ~ x + (1 | g)", BASE, file=path)
    assert path.read_text() == "important"


def test_what_cannot_be_kept_is_said_before_the_work(tmp_path, monkeypatch):
    model = rf.Model("y ~ x + (1 | g)", BASE)
    with pytest.raises(FitError, match="a file cannot hold <object"):
        model.fit("mcmc", pymc_model=object(), file=tmp_path / "fit.zip")
    made = []
    monkeypatch.setattr(type(model.engine), "methods", {"reml": lambda: made.append(1)})
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        model.fit("reml", file=tmp_path / "none" / "fit.zip")
    odd = BASE.assign(g=[(v,) for v in BASE["g"]])
    with pytest.raises(rf.DataError, match="a file cannot hold the value"):
        rf.Model("y ~ x + (1 | g)", odd).fit("reml", file=tmp_path / "fit.zip")
    assert not made
