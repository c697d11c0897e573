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

PICTURES = ("fitted", "predictor", "scale", "group", "qq", "effects")
MODELS = {
    "Dyestuff": ("Yield ~ 1 + (1 | Batch)", {}),
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
SLOW = ("Penicillin", "Orthodont", "Machines", "Oats", "cake", "ScotsSec", "Contraception")


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.slow if one in SLOW else ()) for one in MODELS],
)
def test_every_picture_of_every_data_set_is_drawn_without_a_warning(name):
    formula, options = MODELS[name]
    fit = rf.fit(formula, rf.load_dataset(name), **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in PICTURES:
            if kind == "predictor" and "1 + (" in formula:
                continue
            axes = np.ravel(np.array(fit.plot_residuals(kind, n=49, seed=1), dtype=object))
            axes[0].figure.canvas.draw()
            plt.close("all")
        group = fit.design.terms[-1].factor
        levels = [str(level) for level in fit.design.terms[-1].levels[:6]]
        fit.plot_influence(group=group, levels=levels)[0].figure.canvas.draw()


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


@pytest.mark.parametrize(("data", "method"), [("sleepstudy", "reml"), ("Dyestuff", "quadrature")])
def test_every_picture_of_any_name_is_drawn_without_a_warning(data, method):
    draw_all(data, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reml", "ml", "map", "quadrature", "laplace", "mcmc"])
@pytest.mark.parametrize("data", MODELS)
def test_every_picture_of_every_fit_of_every_data_set_is_drawn_without_a_warning(data, method):
    if "family" in MODELS[data][1] and method in ("reml", "quadrature"):
        pytest.skip("is for linear models")
    draw_all(data, method)


def draw_all(data, method):
    formula, options = MODELS[data]
    if method == "mcmc":
        options = options | {"draws": 500, "seed": 1, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = rf.fit(formula, rf.load_dataset(data), method, **options)
    group = fit.design.terms[-1].factor
    levels = [str(level) for level in fit.design.terms[-1].levels[:3]]
    given = {"plot_influence": {"group": group, "levels": levels}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in filter(partial(hasattr, fit), CALLS):
            # a picture that a fit does not have says so in an error of its own
            with suppress(RanefError):
                drawn = np.ravel(np.array(getattr(fit, name)(**given.get(name, {})), dtype=object))
                getattr(drawn[0], "figure", drawn[0]).canvas.draw()
                plt.close("all")
