"""One model against another that is nested in it: the statistic, and which test is the default."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from meta_cases import model_of
from scipy import stats

import ranef as rf
from ranef.comparison.nested_tests import default_test, pair_of
from ranef.likelihood.bootstrap.refits import RATIO_ROUNDING


@cache
def fitted(formula):
    return rf.fit(formula, rf.load_dataset("sleepstudy"), method="ml")


SMALL = "Reaction ~ Days + (1 | Subject)"
LARGE = "Reaction ~ Days + (Days || Subject)"


def raised(fit, gain):
    """Return a fit whose log-likelihood is that of the small model and what is gained."""
    estimate = replace(fit.estimate, loglik=fitted(SMALL).estimate.loglik + gain)
    return replace(fit, estimate=estimate)


@pytest.mark.parametrize("share", [-0.9, -0.1, 0.0, 0.1, 0.9])
def test_a_gain_within_rounding_is_a_statistic_of_zero(share):
    """So that P(T >= t) of a mixture is 1, whatever the order of BLAS' sums."""
    pair = pair_of(fitted(SMALL), raised(fitted(LARGE), share * RATIO_ROUNDING / 2), 2)
    assert pair.statistic == 0


def test_a_gain_above_rounding_is_the_statistic():
    pair = pair_of(fitted(SMALL), raised(fitted(LARGE), 2 * RATIO_ROUNDING), 2)
    assert pair.statistic == pytest.approx(4 * RATIO_ROUNDING, rel=1e-3)


def test_a_likelihood_that_falls_is_another_maximum():
    with pytest.raises(rf.FitError, match=r"is 0.001 below that of .* ended in a lower maximum"):
        pair_of(fitted(SMALL), raised(fitted(LARGE), -1e-3), 2)


def test_the_default_depends_on_what_is_new():
    exact = pair_of(fitted("Reaction ~ Days"), fitted(SMALL), 2)
    several = pair_of(fitted(SMALL), fitted("Reaction ~ Days + (Days | Subject)"), 2)
    fixed = pair_of(fitted("Reaction ~ 1 + (1 | Subject)"), fitted(SMALL), 2)
    assert [default_test(pair) for pair in (exact, several, fixed)] == [
        "exact",
        "bootstrap",
        "chi2",
    ]


def test_the_same_model_is_not_tested():
    with pytest.raises(rf.FitError, match="are the same model: there is nothing to test"):
        pair_of(fitted(SMALL), fitted("Reaction ~ 1 + Days + (1 | Subject)"), 2)


def test_studies_have_the_mixture_of_a_known_sigma():
    """The exact distribution, and F, are those where sigma is estimated."""
    common, random = (model_of("molloy2014", f).fit("ml") for f in ("y ~ 1", "y ~ 1 + (1 | study)"))
    pair = pair_of(common, random, 2)
    assert default_test(pair) == "mixture"
    found = rf.anova(common, random).to_frame().iloc[1]
    assert found["statistic"] == pytest.approx(2 * (random.loglik - common.loglik))
    assert found["p_value"] == pytest.approx(stats.chi2.sf(found["statistic"], 1) / 2)
    assert np.isfinite(rf.anova(common, random, test="chi2").to_frame()["p_value"].iloc[1])
    for test, reason in [
        ("exact", "where sigma is estimated"),
        ("f", "it is for a sigma that is estimated"),
        ("bootstrap", "for models whose sigma is estimated"),
    ]:
        with pytest.raises(rf.FitError, match=reason):
            rf.anova(common, random, test=test)


def test_a_known_sigma_is_no_effect_to_be_tested():
    data = rf.load_dataset("sleepstudy")
    small, large = "Reaction ~ Days + (1 | Subject)", "Reaction ~ Days + (Days | Subject)"
    known = [{"sigma": rf.priors.Constant(sigma)} for sigma in (25.0, 30.0)]
    one = rf.fit(large, data, "ml", priors=known[0])
    for formula in (small, large):
        with pytest.raises(rf.FitError, match=r"sigma is estimated in .* and known, 25, in"):
            rf.anova(rf.fit(formula, data, "ml"), one)
        with pytest.raises(rf.FitError, match=r"sigma is known, 30, in .* and known, 25, in"):
            rf.anova(rf.fit(formula, data, "ml", priors=known[1]), one)
    both = rf.anova(rf.fit(small, data, "ml", priors=known[0]), one, test="chi2")
    assert both.comparisons[0].df == 2
