"""Every fit answers the same questions of how far it describes the data."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

import ranef as rf
from ranef.errors import FitError, RanefError

RESIDUALS = ("fitted", "predictor", "scale", "group", "qq", "effects")
MODELS = {
    "Dyestuff": ("Yield ~ 1 + (1 | Batch)", {}),
    "Dyestuff2": ("Yield ~ 1 + (1 | Batch)", {}),
    "sleepstudy": ("Reaction ~ Days + (Days | Subject)", {}),
    "Penicillin": ("diameter ~ 1 + (1 | plate) + (1 | sample)", {}),
    "Pastes": ("strength ~ 1 + (1 | batch/cask)", {}),
    "Orthodont": ("distance ~ age * Sex + (1 | Subject)", {}),
    "Machines": ("score ~ Machine + (1 | Worker)", {}),
    "Oats": ("yield ~ nitro + (1 | Block)", {}),
    "cake": ("angle ~ recipe + temp + (1 | replicate)", {}),
    "ScotsSec": ("attain ~ sex + (1 | primary) + (1 | second)", {}),
    "cbpp": ("cbind(incidence, size - incidence) ~ period + (1 | herd)", {"family": "binomial"}),
    "Contraception": ("use ~ age + urban + (1 | district)", {"family": "binomial"}),
}


@pytest.mark.parametrize("method", ["ml", "map", "laplace", "quadrature"])
def test_every_kind_of_fit_answers(method):
    options = {"seed": 1} if method in ("laplace", "quadrature") else {}
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), method, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("fitted", "scale", "group", "qq", "effects"):
            fit.plot_residuals(kind, n=49, seed=1)
        fit.plot_influence()
    assert fit.leverage().shape == fit.cooks_distance().shape == (30,)


def test_axes_are_the_users():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    _, axes = plt.subplots(1, 2)
    assert fit.plot_residuals("fitted", ax=axes[0]) is axes[0]
    with pytest.raises(RanefError, match=r"one axes for each panel, 1 in all \(residuals\), but"):
        fit.plot_residuals("fitted", ax=axes)
    assert list(fit.plot_residuals("effects", ax=axes, n=39, seed=1)) == list(axes)
    grid = fit.plot_influence(["cook", "Days"], levels=["308", "309"], ax=axes)
    assert list(grid) == list(axes)


def test_what_only_a_posterior_has_is_said():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match=r'by "reml": fit by method="quadrature"'):
        fit.plot_influence("elpd")
    with pytest.raises(FitError, match="`seed` must be None, a whole number from 0 on"):
        fit.influence(seed=-1)


ALONE = ("forest", "savage_dickey", "profile")  # pictures of some models, or of a named parameter
CALLS = [
    name
    for name in dir(rf.QuadratureFit)
    if name.startswith("plot_") and not any(name == f"plot_{one}" for one in ALONE)
]


def test_models_are_of_all_data_sets():
    assert set(MODELS) == set(rf.list_datasets()["name"])


@pytest.mark.parametrize("data", MODELS)
def test_every_picture_of_every_data_set_is_drawn_without_a_warning(data):
    draw_all(data, "ml" if "family" in MODELS[data][1] else "reml")


def test_every_picture_of_a_posterior_is_drawn_without_a_warning():
    draw_all("Dyestuff", "quadrature")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml", "map", "quadrature", "laplace", "mcmc"])
@pytest.mark.parametrize("data", MODELS)
def test_every_picture_of_every_fit_of_every_data_set_is_drawn_without_a_warning(data, method):
    if "family" in MODELS[data][1] and method in ("reml", "quadrature"):
        pytest.skip("is for linear models")
    draw_all(data, method)


def draw_all(data, method):
    formula, options = MODELS[data]
    options = dict(options)
    if method == "mcmc":
        options |= {"draws": 500, "seed": 1, "progressbar": False}
    model = rf.Model(formula, rf.load_dataset(data), family=options.pop("family", "gaussian"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(method, **options)
    group = fit.design.terms[-1].factor
    levels = [str(level) for level in fit.design.terms[-1].levels[:3]]
    calls = {name: {} for name in filter(partial(hasattr, fit), CALLS)}
    calls |= {"plot_influence": {"group": group, "levels": levels}}
    pictures = [partial(getattr(fit, name), **given) for name, given in calls.items()]
    pictures += [partial(fit.plot_residuals, kind, n=49, seed=1) for kind in RESIDUALS]
    pictures += [partial(model.plot_data, kind=kind) for kind in (None, "dots")]
    pictures += [model.plot_criterion]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for picture in pictures:
            # a picture that a fit does not have says so in an error of its own
            with suppress(RanefError):
                drawn = np.ravel(np.array(picture(), dtype=object))
                getattr(drawn[0], "figure", drawn[0]).canvas.draw()
                plt.close("all")


def test_a_density_is_that_of_the_rows_with_a_normal_kernel():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    table = fit.ppc_table(n=60, seed=1)
    y = rf.load_dataset("sleepstudy")["Reaction"].to_numpy()
    width = 0.9 * min(y.std(), np.ptp(np.quantile(y, [0.25, 0.75])) / 1.34) * 180**-0.2
    direct = norm.pdf(table["value"].to_numpy()[:, None], y, width).mean(axis=1)
    assert np.abs(table["observed"] - direct).max() < 0.02 * direct.max()
    step = np.diff(table["value"])[0]
    assert table["observed"].sum() * step == pytest.approx(1, abs=1e-3)
    assert (table["lower"] <= table["upper"]).all()
    assert table.attrs["what"] == "density"
    inside = table["observed"].between(table["lower"], table["upper"])
    assert inside.mean() > 0.7


def test_shares_of_counts():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 10)
    y = rng.poisson(np.exp(0.5 + 0.5 * rng.normal(size=20)[g]))
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson")
    table = fit.ppc_table(n=99, seed=1).set_index("value")
    assert table.attrs["what"] == "share of rows"
    for value in range(4):
        assert table.loc[value, "observed"] == pytest.approx(np.mean(y == value))
    assert table.loc[0, "observed"] < table.loc[0, "upper"]
    axes = fit.plot_ppc(n=20, seed=1)
    assert axes.get_ylabel() == "share of rows"


def test_of_a_posterior_draws_are_its_own():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature", seed=1)
    table = fit.ppc_table(n=40, seed=1, groups="new")
    point = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).ppc_table(n=40, seed=1)
    width = (table["upper"] - table["lower"]).mean()
    assert width > (point["upper"] - point["lower"]).mean()


def test_a_density_ends_where_responses_do():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = rf.fit(formula, data, family="binomial")
    table = fit.ppc_table(n=60, seed=1)
    step = np.diff(table["value"])[0]
    assert table["value"].iloc[0] == pytest.approx(step / 2)
    for name in ("observed", "median"):
        assert table[name].sum() * step == pytest.approx(1, abs=0.05)
    y = (data["incidence"] / data["size"]).to_numpy()
    width = 0.9 * min(y.std(), np.ptp(np.quantile(y, [0.25, 0.75])) / 1.34) * len(y) ** -0.2
    at = table["value"].to_numpy()[:, None]
    direct = (norm.pdf(at, y, width) + norm.pdf(-at, y, width)).mean(axis=1)
    assert np.abs(table["observed"] - direct).max() < 0.03 * direct.max()
    assert table.attrs["response"] == "share of incidence"
