"""What a model or a fit hands out is read-only or a copy: writing into it changes no answer."""

import contextlib
import inspect

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ranef as rf

INNER = ("engine", "asked", "marginals", "family", "fitted_model", "priors")
SKIPPED = ("plot_", "confint", "bootstrap", "profile", "check", "save", "explore", "savage", *INNER)


def overwrite(value, depth=3):
    """Write into every array that can be reached, if it lets that happen."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.flags.writeable:
        value[...] = 9.0
    elif isinstance(value, pd.DataFrame | pd.Series):
        with contextlib.suppress(TypeError, ValueError):  # labels, or read-only
            value.iloc[:] = 9.0
    elif depth:
        for one in inside(value):
            overwrite(one, depth - 1)


def inside(value):
    """Yield what a container or a record of the package holds."""
    if isinstance(value, xr.DataTree):
        yield from (node[k].to_numpy() for node in value.subtree for k in node.data_vars)
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, tuple | list):
        yield from value
    elif type(value).__module__.startswith("ranef"):
        for name in dir(value):
            is_method = callable(getattr(type(value), name, None))
            if not is_method and not name.startswith(("_", *INNER)):
                with contextlib.suppress(rf.RanefError, AttributeError):
                    yield getattr(value, name)


def answers(fit):
    """Return all that a fit says without arguments, by name."""
    found = {}
    for name in dir(fit):
        if name.startswith("_") or name.startswith(SKIPPED):
            continue
        try:
            value = getattr(fit, name)
            if inspect.ismethod(value):
                value = value()
        except (TypeError, AttributeError, rf.RanefError):
            continue
        found[name] = value
    return found


def text_of(value):
    with np.printoptions(threshold=100_000):
        return value.to_string() if isinstance(value, pd.DataFrame | pd.Series) else str(value)


@pytest.mark.parametrize("method", ["reml", "map", "quadrature", "laplace", "glmm"])
def test_writing_into_answers_changes_no_answer(method):
    if method == "glmm":
        formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
        model = rf.Model(formula, rf.load_dataset("cbpp"), family="binomial")
        fit = model.fit()
    else:
        name, formula = ("sleepstudy", "Reaction ~ Days + (Days | Subject)")
        if method in ("quadrature", "laplace"):
            name, formula = ("Dyestuff", "Yield ~ 1 + (1 | Batch)")
        model = rf.Model(formula, rf.load_dataset(name))
        options = {"quadrature": {"seed": 1, "draws": 100}, "laplace": {"seed": 1, "draws": 1000}}
        fit = model.fit(method, **options.get(method, {}))
    numbers = ("fixef", "se", "vcov", "ranef", "coef", "varcorr", "fitted", "residuals", "predict",
               "theta", "sigma", "loglik", "estimates", "ranef_table", "hdi", "shrinkage_table",
               "summary", "icc", "objective")  # fmt: skip
    before = {k: text_of(v) for k, v in answers(fit).items() if k in numbers}
    assert len(before) > 12
    for value in answers(fit).values():
        overwrite(value)
    overwrite(model.design.rows)
    after = {k: text_of(v) for k, v in answers(fit).items() if k in numbers}
    assert after == before
    assert text_of(model.fit().fixef()) == text_of(rf.Model.fit(model).fixef())


@pytest.mark.parametrize("name", ["X", "y", "weights", "beta"])
def test_arrays_refuse_to_be_written_into(name):
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    array = {
        "beta": fit.estimate.beta,
        **{k: getattr(fit.design.rows, k) for k in ("X", "y", "weights")},
    }[name]
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 9.0


def test_the_users_own_arrays_stay_writable_and_apart():
    frame = rf.load_dataset("Dyestuff")
    weights, offset = np.ones(len(frame)), np.zeros(len(frame))
    model = rf.Model("Yield ~ 1 + (1 | Batch)", frame, weights=weights, offset=offset)
    before = model.fit().loglik
    weights[0] = offset[0] = 7.0
    frame.loc[:, "Yield"] = 0.0
    assert model.fit().loglik == before
