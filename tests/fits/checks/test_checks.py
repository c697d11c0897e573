"""Every fit answers the same questions of how far it describes the data."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

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
