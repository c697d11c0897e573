"""The matrices of a point fit: rows that are asked for, correlations, and generalised models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ranef as rf
from fits import fit_of, frame
from ranef.errors import FitError


@pytest.mark.parametrize("kind", ["crossed", "weights and offset", "no random terms"])
def test_V_of_some_rows(kind):
    fit = fit_of(kind, "reml")
    V, of_g = fit.V().toarray(), (frame()["g"] == "a b").to_numpy()
    np.testing.assert_array_equal(fit.V(of_g).toarray(), V[np.ix_(of_g, of_g)])
    places = [7, 3, 200]
    np.testing.assert_array_equal(fit.V(places).toarray(), V[np.ix_(places, places)])
    sds = np.sqrt(np.diag(V))
    correlations = fit.V(of_g, correlation=True).toarray()
    np.testing.assert_allclose(correlations, (V / np.outer(sds, sds))[np.ix_(of_g, of_g)])


def test_the_correlation_of_two_rows_of_a_group_is_the_icc():
    data = rf.load_dataset("Dyestuff")
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", data)
    found = fit.V(data["Batch"] == "A", correlation=True).toarray()
    icc = fit.icc().to_frame().loc["adjusted", "estimate"]
    np.testing.assert_allclose(found, np.where(np.eye(5), 1.0, icc))


def test_generalised_models_have_none():
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    herds = rf.fit(formula, rf.load_dataset("cbpp"), family="binomial")
    with pytest.raises(FitError, match=r"of a binomial model have no covariance apart .* fit\.Z"):
        herds.V()


def test_rows_that_are_none_and_rows_without_memory(monkeypatch):
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    for rows in ([30], [True, False], "a", [1.5]):
        with pytest.raises(FitError, match="rows= is a mask of 30 truth values, or places from 0"):
            fit.V(rows)
    monkeypatch.setattr("ranef.numerics.memory.available", lambda: 100.0)
    monkeypatch.setattr("ranef.numerics.memory.ALWAYS_FREE", 8 * 5 * 150 - 1)
    with pytest.raises(FitError, match=r"the covariance of 30 rows needs .* Ask for some of the"):
        fit.V()
    assert fit.V(range(29)).shape == (29, 29)


def test_R_X_of_a_generalised_model_has_the_errors_given_theta():
    """lme4: vcov(fit, use.hessian = FALSE)."""
    path = Path(__file__).parents[2] / "reference" / "lme4.json"
    cases = {case["id"]: case for case in json.loads(path.read_text())["cases"]}
    case = cases["contraception_cm1"]
    fit = rf.fit(case["formula"], rf.load_dataset("Contraception"), family="binomial")
    R_X = fit.cholesky(fixed=True)[60:, 60:].T
    np.testing.assert_allclose(np.linalg.inv(R_X.T @ R_X), case["vcov"], rtol=1e-4)
    assert (np.sqrt(np.diag(case["vcov"])) < fit.se()).all()
