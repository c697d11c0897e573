"""The package marginaleffects says of our fits what our own functions say."""

import pydoc
import sys
from importlib import import_module

import marginaleffects as me
import numpy as np
import pandas as pd
import pytest
from effect_cases import data

import ranef as rf
from ranef.errors import FitError

FRAME = data("Contraception").iloc[::4]


@pytest.fixture(scope="module")
def fit():
    formula = "use ~ age * urban + livch + (age | district)"
    return rf.fit(formula, FRAME, family="binomial")


@pytest.fixture(scope="module")
def linear():
    return rf.fit("Reaction ~ Days + I(Days^2) + (Days | Subject)", data("sleepstudy"))


def same(theirs, ours):
    np.testing.assert_allclose(theirs["estimate"].to_numpy(), ours["estimate"], atol=1e-7)
    np.testing.assert_allclose(theirs["std_error"].to_numpy(), ours["se"], atol=1e-6, rtol=2e-5)


@pytest.mark.parametrize("groups", ["population", "average"])
def test_comparisons(fit, groups):
    model = rf.to_marginaleffects(fit, groups=groups)
    for variable, contrast, by, comparison in [
        ("age", "sd", "urban", "ratio"),
        ("age", 5, "livch", "difference"),
        ("age", "iqr", True, "difference"),
        ("livch", "pairwise", True, "lnor"),
        ("livch", "sequential", "urban", "lnratio"),
        ("urban", "reference", "livch", "difference"),
    ]:
        theirs = me.avg_comparisons(
            model, variables={variable: contrast}, by=by, comparison=comparison
        )
        ours = rf.comparisons(
            fit,
            variable,
            contrast=contrast,
            by=() if by is True else by,
            comparison=comparison,
            groups=groups,
        )
        if by is not True:  # theirs by contrast, then by level
            ours = ours.sort_values([by], kind="stable")
            theirs = theirs.sort(by, maintain_order=True)
        same(theirs, ours)


def test_each_row(fit):
    same(
        me.comparisons(rf.to_marginaleffects(fit), variables="age"),
        rf.comparisons(fit, "age", average=False),
    )


def test_predictions(fit, linear):
    frame = FRAME.iloc[:50]
    for kind in ("response", "link"):
        model = rf.to_marginaleffects(fit, kind=kind)
        theirs = me.predictions(model).to_pandas().iloc[:50]
        ours = fit.predict(frame, "population", kind, prob=0.95)
        np.testing.assert_allclose(theirs["estimate"], ours.iloc[:, 0], rtol=1e-9)
        np.testing.assert_allclose(theirs["std_error"], ours["sd"], rtol=1e-5)
    grid = pd.DataFrame({"Days": [0.0, 4.5, 9.0]})
    theirs = me.predictions(rf.to_marginaleffects(linear), newdata=grid)
    ours = linear.predict(grid, "population", prob=0.95)
    for name, own in [("estimate", "mean"), ("conf_low", "lower"), ("conf_high", "upper")]:
        np.testing.assert_allclose(theirs[name].to_numpy(), ours[own], rtol=1e-6)


def test_slopes(fit, linear):
    grid = pd.DataFrame({"Days": [0.0, 4.5, 9.0]})
    theirs = me.slopes(rf.to_marginaleffects(linear), variables="Days", newdata=grid)
    ours = rf.slopes(linear, "Days", at={"Days": [0.0, 4.5, 9.0]})
    np.testing.assert_allclose(theirs["estimate"].to_numpy(), ours["estimate"], atol=1e-5)
    small, step = 1e-4, 1e-6  # the second of their derivatives by the parameters, beyond rounding
    theirs = me.avg_slopes(rf.to_marginaleffects(fit), variables="age", eps_vcov=step)
    ours = rf.comparisons(fit, "age", contrast=small)
    assert theirs["estimate"].item() == pytest.approx(ours["estimate"][0] / small, abs=1e-7)
    assert theirs["std_error"].item() == pytest.approx(ours["se"][0] / small, abs=1e-6)


def test_hypotheses(fit):
    theirs = me.hypotheses(rf.to_marginaleffects(fit), hypothesis="age = 0")
    ours = rf.hypothesis(fit, "age = 0")
    assert theirs["estimate"].item() == pytest.approx(ours["estimate"][0], rel=1e-9)
    assert theirs["std_error"].item() == pytest.approx(ours["se"][0], rel=1e-6)


def test_numbers_that_the_formula_makes_factors():
    frame = pd.DataFrame({"x": np.repeat([1, 3, 7], 20), "g": list("abcde") * 12})
    frame["on"] = np.arange(60) % 2 == 0
    frame["y"] = np.random.default_rng(1).normal(size=60) + frame["x"]
    fit = rf.fit("y ~ factor(x) + on + (1 | g)", frame)
    model = rf.to_marginaleffects(fit)
    same(
        me.avg_comparisons(model, variables={"x": "reference"}),
        rf.comparisons(fit, "x"),
    )
    same(me.avg_comparisons(model, variables="on"), rf.comparisons(fit, "on"))


def test_what_it_does_not_take(fit):
    posterior = rf.Model("Yield ~ 1 + (1 | Batch)", data("Dyestuff")).fit("quadrature")
    with pytest.raises(FitError, match=r"takes a point fit .reml, ml, map., got QuadratureFit"):
        rf.to_marginaleffects(posterior)
    with pytest.raises(FitError, match="is not a scale"):
        rf.to_marginaleffects(fit, kind="odds")
    with pytest.raises(FitError, match="is not an option"):
        rf.to_marginaleffects(fit, groups="known")
    with pytest.raises(FitError, match="vcov='HC3' is not known for these fits"):
        me.avg_comparisons(rf.to_marginaleffects(fit), variables="age", vcov="HC3")
    table = me.avg_comparisons(rf.to_marginaleffects(fit), variables="age", vcov=False)
    assert "std_error" not in table.columns


def test_without_the_package(monkeypatch):
    name = "ranef.effects.marginaleffects_adapter"
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "marginaleffects", None)
    monkeypatch.setitem(sys.modules, "marginaleffects.classes", None)
    adapter = import_module(name)
    assert "marginaleffects" in pydoc.render_doc(adapter.to_marginaleffects)
    with pytest.raises(ImportError, match=r"pip install .ranef.marginaleffects"):
        adapter.to_marginaleffects(None)
