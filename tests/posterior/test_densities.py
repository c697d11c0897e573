"""Log densities of the priors against SciPy: values, constants, Jacobians and derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from ranef.posterior.densities import (
    Coordinate,
    coordinate,
    coordinate_of,
    evaluate,
    partial_correlation,
)
from ranef.posterior.transforms import correlations, unit_factor
from ranef.priors.distributions import (
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    StudentT,
    Uniform,
)

# prior -> SciPy's distribution, and a range of x with all but a negligible share of it
CASES = {
    Normal(2, 3): (stats.norm(2, 3), (-40, 40)),
    StudentT(5, -1, 0.5): (stats.t(5, -1, 0.5), (-2000, 2000)),
    HalfNormal(2.5): (stats.halfnorm(0, 2.5), (-40, 4)),
    HalfStudentT(3, 59.3): (stats.t(3, 0, 59.3), (-40, 20)),
    HalfCauchy(5): (stats.halfcauchy(0, 5), (-40, 40)),
    Exponential(10): (stats.expon(0, 10), (-40, 9)),
    Gamma(2.5, 0.3): (stats.gamma(2.5, 0, 1 / 0.3), (-30, 8)),
    InverseGamma(1.5, 0.7): (stats.invgamma(1.5, 0, 0.7), (-8, 40)),
    LogNormal(0.3, 0.8): (stats.lognorm(0.8, 0, math.exp(0.3)), (-9, 9)),
    Uniform(-1, 4): (stats.uniform(-1, 5), (-60, 60)),
    Uniform(0, 7): (stats.uniform(0, 7), (-60, 60)),
}
PRIORS = pytest.mark.parametrize("prior", CASES, ids=str)


def at(found: Coordinate, x, *, is_natural):
    numbers = found.family, found.transform, found.a, found.b, found.c
    value, slope, logp, logp_slope = evaluate(*numbers, x, is_natural)
    return value, slope, logp + found.constant, logp_slope


def is_positive(prior):
    return prior.positive and not isinstance(prior, Uniform)


def own(prior):
    return coordinate(prior, positive=is_positive(prior))


@PRIORS
def test_density_is_that_of_scipy(prior):
    distribution, _ = CASES[prior]
    x = np.linspace(-3, 3, 13)
    value, slope, logp, _ = at(own(prior), x, is_natural=True)
    half = math.log(2) if isinstance(prior, HalfStudentT) else 0.0
    np.testing.assert_allclose(logp, distribution.logpdf(value) + half, rtol=1e-12, atol=1e-12)
    found = at(own(prior), x, is_natural=False)
    np.testing.assert_allclose(found[2], logp + np.log(slope), rtol=1e-12, atol=1e-12)
    assert (found[0] == value).all()


@PRIORS
def test_density_of_the_coordinate_integrates_to_one(prior):
    found, (lower, upper) = own(prior), CASES[prior][1]
    total, _ = integrate.quad(
        lambda x: math.exp(at(found, x, is_natural=False)[2]), lower, upper, limit=500, points=[0]
    )
    assert total == pytest.approx(1.0, abs=2e-8)


ALL = [own(prior) for prior in CASES]
ALL += [coordinate(Flat(), positive=positive) for positive in (True, False)]
ALL += [partial_correlation(eta, 4, column) for eta in (1.0, 2.5) for column in (0, 2)]


@pytest.mark.parametrize("is_natural", [True, False])
@pytest.mark.parametrize("found", ALL, ids=str)
def test_slopes_equal_central_differences(found, is_natural):
    x, h = np.linspace(-2.9, 3.1, 9), 1e-3

    def difference(place):
        near, far = (
            at(found, x + s * h, is_natural=is_natural)[place]
            - at(found, x - s * h, is_natural=is_natural)[place]
            for s in (1, 2)
        )
        return (8 * near - far) / (12 * h)

    _, slope, _, logp_slope = at(found, x, is_natural=is_natural)
    np.testing.assert_allclose(slope, difference(0), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(logp_slope, difference(2), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("is_natural", [True, False])
@pytest.mark.parametrize("found", ALL, ids=str)
def test_nothing_is_nan_far_out(found, is_natural):
    far = np.array([-300.0, -50.0, 50.0, 300.0])
    with np.errstate(over="ignore"):
        values = np.array(at(found, far, is_natural=is_natural))
    assert not np.isnan(values).any()
    assert (values[2] < np.inf).all()


@pytest.mark.parametrize("found", ALL, ids=str)
def test_numbers_and_arrays_are_evaluated_alike(found):
    x = np.linspace(-2, 2, 5)
    arrays = np.array(at(found, x, is_natural=False))
    numbers = np.array([at(found, float(one), is_natural=False) for one in x]).T
    np.testing.assert_array_equal(arrays, numbers)


@pytest.mark.parametrize("found", ALL, ids=str)
def test_coordinate_of_a_value_is_the_way_back(found):
    for x in (-2.3, 0.0, 1.7):
        value = float(at(found, x, is_natural=False)[0])
        assert coordinate_of(found, value) == pytest.approx(x, abs=1e-12)


def test_a_flat_prior_is_one_for_the_parameter():
    x = np.linspace(-3, 3, 7)
    plain = coordinate(Flat(), positive=False)
    positive = coordinate(Flat(), positive=True)
    assert (at(plain, x, is_natural=False)[2] == 0).all()
    assert (at(positive, x, is_natural=True)[2] == 0).all()
    np.testing.assert_array_equal(at(positive, x, is_natural=False)[2], x)


# ---------------------------------------------------------------------------- correlations


@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0, 7.0])
def test_one_correlation_has_the_lkj_density(eta):
    """(1 - r^2)^(eta - 1) Gamma(eta + 1/2) / (sqrt(pi) Gamma(eta))."""
    r = np.linspace(-0.95, 0.95, 9)
    log_constant = math.lgamma(eta + 0.5) - math.lgamma(eta) - math.log(math.pi) / 2
    expected = log_constant + (eta - 1) * np.log1p(-(r**2))
    x = 2 * np.arctanh(r)
    found = partial_correlation(eta, 2, 0)
    value, slope, logp, _ = at(found, x, is_natural=True)
    np.testing.assert_allclose(value, r, rtol=1e-14)
    np.testing.assert_allclose(logp, expected, rtol=1e-12)
    np.testing.assert_allclose(
        at(found, x, is_natural=False)[2], expected + np.log(slope), rtol=1e-12
    )


@pytest.mark.parametrize("eta", [1.0, 2.0])
@pytest.mark.parametrize("k", [2, 3])
def test_partial_correlations_give_the_lkj_density_of_the_matrix(eta, k):
    """Theirs times the Jacobian of the matrix is det(R)^(eta - 1), up to one constant."""
    order = [(r, c) for r in range(k) for c in range(r)]
    coordinates = [partial_correlation(eta, k, c) for _, c in order]
    matrices = np.tril_indices(k, -1)

    def matrix(x):
        return correlations(unit_factor(np.tanh(x / 2), k))

    def log_densities(x):
        found = sum(at(c, x[i], is_natural=False)[2] for i, c in enumerate(coordinates))
        matrix_density = sum(at(c, x[i], is_natural=True)[2] for i, c in enumerate(coordinates))
        h = 1e-5 * np.eye(len(x))
        jacobian = np.array([(matrix(x + s) - matrix(x - s))[matrices] / 2e-5 for s in h])
        return found - np.linalg.slogdet(jacobian)[1], matrix_density

    rng = np.random.default_rng(k)
    points = rng.normal(size=(6, len(order)))
    dets = np.array([np.linalg.slogdet(matrix(x))[1] for x in points])
    found, natural = np.array([log_densities(x) for x in points]).T
    constant = found - (eta - 1) * dets
    np.testing.assert_allclose(constant, constant[0], atol=1e-8)
    np.testing.assert_allclose(natural, found, atol=1e-8)


def test_a_uniform_3_by_3_correlation_matrix_has_the_known_volume():
    """The set of 3 x 3 correlation matrices has volume pi^2 / 2 (Rousseeuw & Molenberghs 1994)."""
    constants = [partial_correlation(1.0, 3, c).constant for c in (0, 0, 1)]
    assert sum(constants) == pytest.approx(-math.log(math.pi**2 / 2), rel=1e-13)


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_partial_correlation_is_a_stretched_beta_variable(column):
    b = 2.0 + (4 - 2 - column) / 2
    x = np.linspace(-4, 4, 9)
    value, slope, _, _ = at(partial_correlation(2.0, 4, column), x, is_natural=False)
    expected = stats.beta(b, b, -1, 2).logpdf(value) + np.log(slope)
    found = at(partial_correlation(2.0, 4, column), x, is_natural=False)[2]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
