"""What all answers of a fit start from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fits import fit_of
from ranef.errors import FitError


def test_a_fit_without_its_model_says_so_when_it_is_asked():
    fit = replace(fit_of("correlated slopes", "reml"), engine=None)
    with pytest.raises(FitError, match="this fit has no model to ask"):
        _ = fit.asked
    assert fit_of("correlated slopes", "reml").asked.posterior_method


def test_estimates_have_the_values_of_their_parts():
    fit = fit_of("correlated slopes", "reml")
    estimates = fit.estimates()
    assert list(estimates[: len(fit.fixef())]) == list(fit.fixef())
    assert estimates["sigma"] == fit.sigma
