"""What is to be found has the names that fits give it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.errors import FitError
from ranef.planning.findings import Sought, wanted
from ranef.planning.planned_rows import Plan

FRAME = pd.DataFrame({"g": np.repeat(range(6), 6), "f": list("abc") * 12, "x": np.arange(36.0) % 7})


def findings(find, test=None, formula="y ~ f * x + (x | g)", family="gaussian"):
    plan = Plan.of(formula, FRAME, family)
    return wanted(plan.design(), plan, find, test)


def test_columns_and_terms_are_found_by_name():
    assert [(one.label, one.test, one.places) for one in findings(None)] == [
        (name, "t", (place,))
        for place, name in enumerate(["f[T.b]", "f[T.c]", "x", "f[T.b]:x", "f[T.c]:x"], 1)
    ]
    assert findings(["f", "f:x", "x"]) == [
        Sought("f", "F", (1, 2)),
        Sought("f:x", "F", (4, 5)),
        Sought("x", "t", (3,)),
    ]


@pytest.mark.parametrize(
    ("find", "asked", "test"),
    [("f", "t", "F"), ("x", "F", "t"), ("f", "z", "z"), ("f", "chi2", "chi2")],
)
def test_tests_of_linear_models(find, asked, test):
    assert findings(find, asked)[0].test == test


@pytest.mark.parametrize("asked", [None, "chi2", "bootstrap"])
def test_a_smaller_model_is_tested_as_wanted(asked):
    assert findings("~ f * x + (1 | g)", asked)[0].test == (asked or "bootstrap")
    assert findings("~ f + x + (x | g)", asked)[0].test == (asked or "chi2")


def test_tests_of_generalised_models():
    formula = "y ~ f + (1 | g)"
    assert findings("f", None, formula, "poisson")[0].test == "chi2"
    assert findings("f[T.b]", "z", formula, "poisson")[0].test == "z"


@pytest.mark.parametrize(
    ("find", "test", "family", "said"),
    [
        ("f", "t", "poisson", "needs degrees of freedom, which a generalised model does not have"),
        (
            "sd_g[Intercept]",
            "z",
            "gaussian",
            'test="z" is for fixed effects: use `chi2`, `mixture` or',
        ),
        (". ~ . - x", "F", "gaussian", 'test="F" is for fixed effects: use'),
        ("f[T.d]", None, "gaussian", r"no effect 'f\[T.d\]' to be found. Did you mean `f\[T"),
        ("sd_g[f[T.b]]", None, "gaussian", "the coefficients of .* are levels of a factor"),
    ],
)
def test_what_there_is_not_is_said(find, test, family, said):
    formula = "y ~ f + x + (f | g)" if "sd_g[f" in find else "y ~ f + x + (1 | g)"
    with pytest.raises(FitError, match=said):
        findings(find, test, formula, family)


def test_a_column_of_a_factor_is_tested_against_the_model_without_it():
    """The ratio of the model without one column, which no formula of factors writes."""
    data = rf.load_dataset("cbpp")
    fit = rf.fit("incidence ~ period + (1 | herd)", data, "ml")
    without = data.assign(**{f"p{i}": (data["period"].astype(str) == i) * 1.0 for i in "34"})
    options = {"test": "chi2", "n": 300, "seed": 1}
    by_column = rf.power(fit, "period[T.2]", **options).to_frame()["power"]
    both = rf.fit(
        "incidence ~ I(1.0 - (period == '1') - p3 - p4) + p3 + p4 + (1 | herd)", without, "ml"
    )
    by_formula = rf.power(both, both.fixef().index[1], **options).to_frame()["power"]
    np.testing.assert_allclose(by_column, by_formula, atol=0.01)
