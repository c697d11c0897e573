"""The errors of point predictions, with those of the variances: against refits by simulation."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from fits import fit_of, frame
from ranef.errors import FitError


def test_errors_of_variances_are_added():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    rows = pd.DataFrame({"Batch": list("ABC")})
    usual = fit.predict(rows, prob=0.95)
    whole = fit.predict(rows, prob=0.95, uncertainty="all", n=100, seed=1)
    conditional = fit.predict(rows, prob=0.95, uncertainty="none")
    assert (conditional["sd"] < usual["sd"]).all()
    assert (usual["sd"] < whole["sd"]).all()
    np.testing.assert_allclose(conditional["sd"], fit.estimate.b_cov[0][:3, 0, 0] ** 0.5)
    np.testing.assert_array_equal(usual["mean"], whole["mean"])
    assert whole.attrs["interval"].endswith("of the mean, fixed effects and variances estimated")


def test_the_error_of_a_typical_group_is_the_bootstraps_of_its_fixed_effects():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"))
    found = fit.predict({"x": [1]}, "population", prob=0.95, uncertainty="all", n=400, seed=1)
    spread = fit.bootstrap(400, seed=1).estimates["Intercept"] - fit.fixef()["Intercept"]
    assert found["sd"].iloc[0] == pytest.approx(np.sqrt(np.mean(spread**2)), rel=1e-9)


def test_the_average_over_groups_moves_with_the_variance():
    fit = rf.fit(
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
        rf.load_dataset("cbpp"),
        family="binomial",
    )
    rows = pd.DataFrame({"period": ["1"]})
    with_all = fit.predict(rows, "average", prob=0.95, uncertainty="all", n=60, seed=1)
    estimates = fit.bootstrap(60, seed=1).estimates
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    eta = estimates["Intercept"].to_numpy()[:, None]
    at = eta + estimates["sd_herd[Intercept]"].to_numpy()[:, None] * nodes
    means = 1 / (1 + np.exp(-at)) @ weights / weights.sum()
    error = np.sqrt(np.mean((means - fit.predict(rows, "average")) ** 2))
    assert with_all["sd"].iloc[0] == pytest.approx(error, rel=1e-6)


def test_a_typical_group_of_a_generalised_model_moves_on_the_scale_of_the_link():
    data, formula = (
        rf.load_dataset("cbpp"),
        "cbind(incidence, size - incidence) ~ period + (1 | herd)",
    )
    fit = rf.fit(formula, data, family="binomial")
    rows, asked = pd.DataFrame({"period": ["1"]}), {"prob": 0.95, "kind": "link"}
    found = fit.predict(rows, "population", **asked, uncertainty="all", n=60, seed=1)
    spread = fit.bootstrap(60, seed=1).estimates["Intercept"] - fit.fixef()["Intercept"]
    assert found["sd"].iloc[0] == pytest.approx(np.sqrt(np.mean(spread**2)), rel=1e-9)


@pytest.mark.parametrize("method", ["reml", "quadrature"])
def test_an_uncertainty_that_is_not_known_is_refused(method):
    fit = fit_of("one factor", method)
    with pytest.raises(FitError, match="uncertainty='some'"):
        fit.predict(frame(), prob=0.9, uncertainty="some")
