"""The deviance with one parameter held: every parameter of a model as a coordinate."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from profile_cases import generalised, profile, small
from reference_cases import REFERENCE

import ranef as rf
from ranef.likelihood.generalized.glmm import prepare
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.profile.constrained import (
    Linear,
    Nonlinear,
    held_factors,
)


def surface_of(fit):
    psi = np.array(list(fit.parameters.values()))
    if fit.family.is_linear:
        return Linear(fit.estimate, cross_products(fit.design), psi)
    return Nonlinear(fit.estimate, prepare(fit.design, fit.family), psi)


FITS = {
    "three coefficients": lambda: small("three coefficients", 150),
    "independent slope": lambda: small("independent slope"),
    "nested and crossed": lambda: small("crossed slopes", 150),
    "binomial quadrature": lambda: generalised("cbind(k, trials - k) ~ x + (x | g)", "binomial", 5),
    "negative binomial": lambda: generalised("nb ~ x + (1 | g) + (1 | h)", "negative_binomial"),
    "gamma slopes": lambda: generalised("gamma ~ x + (z + x | g)", "gamma"),
}


@pytest.mark.parametrize("kind", FITS)
def test_every_objective_starts_at_the_fit_and_has_its_derivatives(kind):
    fit = FITS[kind]()
    surface, rng = surface_of(fit), np.random.default_rng(2)
    for place, (name, value) in enumerate(fit.estimates().items()):
        focus = surface.focus(place, name)
        at, _, _ = focus.objective(focus.w, focus.x)
        assert at == pytest.approx(fit.objective, abs=1e-7)
        assert float(focus.scale.value(focus.w)) == pytest.approx(value, rel=1e-7, abs=1e-9)
        z = np.append(focus.w, focus.x) + rng.uniform(-0.1, 0.1, len(focus.x) + 1)
        _, slope, gradient = focus.objective(z[0], z[1:])
        for i, analytic in enumerate([slope, *gradient]):
            h = 1e-5 * np.eye(len(z))[i]
            up, down = (focus.objective(end[0], end[1:])[0] for end in (z + h, z - h))
            assert analytic == pytest.approx((up - down) / 2e-5, rel=2e-5, abs=2e-4), (name, i)


@pytest.mark.parametrize("coefs", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_what_is_held_is_what_it_is_called(coefs):
    cross = cross_products(small("three coefficients", 150).design)
    held, turn = held_factors(cross.bases, cross.covariances, 0, coefs)
    theta = np.random.default_rng(5).normal(size=5) + 1
    for w in (0.7, -0.3, 0.0, np.pi / 2):
        (Lambda,) = held.factors(w, theta)
        users = np.linalg.solve(cross.bases[0], Lambda)
        cov = users @ users.T
        if len(coefs) == 1:
            assert np.sqrt(cov[coefs * 2]) == pytest.approx(abs(w) / turn[0, coefs[0]], abs=1e-12)
        else:
            i, j = coefs
            assert cov[i, j] / np.sqrt(cov[i, i] * cov[j, j]) == pytest.approx(np.sin(w), abs=1e-9)


def test_a_correlation_with_an_sd_of_zero_is_not_defined():
    data = pd.read_csv(REFERENCE / "data" / "singular.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rf.RanefWarning)
        fit = rf.fit("none ~ x + (x | g)", data, method="ml")
    assert fit.varcorr().sd["g"].min() < 1e-6
    found = profile(fit, "corr_g[Intercept, x]")
    assert list(found.confint().iloc[0]) == [-1.0, 1.0]
    (note,) = found.notes
    assert note == (
        "corr_g[Intercept, x]: it has no estimate, as a standard deviation is estimated as zero: "
        "the likelihood does not exclude any correlation."
    )


def test_a_correlation_is_free_where_an_sd_is_zero():
    """lme4's lower limit is -1: with no slope variance, 0.83 above the minimum, it can be any."""
    fit = rf.fit("distance ~ age * Sex + (age | Subject)", rf.load_dataset("Orthodont"), "ml")
    found = fit.profile("corr_Subject[Intercept, age]")
    assert found.confint(0.95).to_numpy().tolist() == [[-1.0, 1.0]]
    simple = rf.fit("distance ~ age * Sex + (1 | Subject)", rf.load_dataset("Orthodont"), "ml")
    rise = found.table["deviance"] - fit.objective
    assert rise.max() <= simple.objective - fit.objective + 1e-6
    lower, upper = found.confint(0.3).to_numpy()[0]
    assert -1 < lower < upper < 1
