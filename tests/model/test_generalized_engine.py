"""Which methods a model has, and why it has no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from maximum_cases import frame

import ranef as rf


def model(family, formula="count ~ x + (1 | g)"):
    return rf.Model(formula, frame(), family=family)


def test_the_default_is_reml_for_linear_models_and_ml_for_all_others():
    assert model("gaussian").fit().method == "reml"
    assert model("poisson").fit().method == "ml"


def test_methods_of_linear_models_say_why_others_have_none():
    for method, reason in {
        "reml": "is for linear models: the poisson family with log link has no restricted "
        'likelihood. Use method="ml", or method="map" with priors="boundary" against variances '
        "of zero.",
        "quadrature": "is for linear models: with the poisson family with log link the fixed "
        "effects do not integrate out in closed form. Use "
        'method="laplace" or "mcmc"; for a quadrature over the random effects use n_agq=.',
    }.items():
        with pytest.raises(rf.FitError) as caught:
            model("poisson").fit(method)
        assert str(caught.value) == f"method={method!r} {reason}"


@pytest.mark.parametrize("method", ["ml", "map"])
def test_points_of_a_quadrature_reach_the_engine(method):
    found = [model("poisson").fit(method, n_agq=n).loglik for n in (1, 7)]
    assert found[0] != found[1]
    assert found[0] == pytest.approx(found[1], abs=0.1)


@pytest.mark.parametrize("n_agq", [1, 5])
@pytest.mark.parametrize("formula", ["count ~ x + (1 | g)", "count ~ x + (x | g)"])
def test_the_likelihood_of_the_model_is_that_of_its_fit(formula, n_agq):
    one = model("poisson", formula)
    fit = one.fit(n_agq=n_agq)
    found = one.log_likelihood(fit.theta, fit.fixef(), n_agq=n_agq)
    assert found == pytest.approx(fit.loglik, rel=1e-10)


def test_separation_has_no_maximum_but_a_mode():
    data = pd.DataFrame({"x": np.linspace(-2, 2, 60), "g": np.arange(60) % 6})
    data["y"] = (data["x"] > 0).astype(int)
    separated = rf.Model("y ~ x + (1 | g)", data, family="binomial")
    with pytest.raises(rf.DataError, match=r"^the fixed effects separate the values of the "):
        separated.fit()
    with pytest.warns(rf.DataWarning, match=r"^the fixed effects separate the values of the "):
        assert np.isfinite(separated.fit("map").fixef()).all()
