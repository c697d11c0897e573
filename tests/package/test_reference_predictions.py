"""Predictions are those of lme4, their standard errors and intervals those of emmeans."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ranef as rf

FILE = Path(__file__).parents[1] / "reference" / "predictions.json"
CASES = {case["id"]: case for case in json.loads(FILE.read_text(encoding="utf-8"))}
ERRORS = {"gaussian": 1e-6, "binomial": 1e-5}  # of a Hessian by differences


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def data(case):
    return rf.load_dataset(case["data"])


@pytest.fixture(scope="module")
def fit(case, data):
    return rf.fit(case["formula"], data, family=case["family"])


def test_known_and_typical_groups_are_lme4s(case, data, fit):
    rows = data.iloc[case["rows"]]
    np.testing.assert_allclose(fit.predict(rows), case["known"], rtol=1e-6)
    np.testing.assert_allclose(fit.predict(rows, "population"), case["population"], rtol=1e-6)
    for term, expected in dict(case["terms"]).items():
        np.testing.assert_allclose(fit.predict(rows, terms=term), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["link", "response"])
def test_errors_and_intervals_of_typical_groups_are_emmeans(case, fit, kind):
    grid, expected = pd.DataFrame(dict(case["at"]) or {"nothing": [0]}), case[kind]
    found = fit.predict(grid, "population", kind, prob=0.9)
    names = zip(found.columns, ("estimate", "se", "lower", "upper"), strict=True)
    for column, name in names:
        rtol = 1e-6 if name == "estimate" else ERRORS[case["family"]]
        np.testing.assert_allclose(found[column], expected[name], rtol=rtol)
