"""The space of the variance parameters: what its coordinates stand for, and the way back."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, stats

import ranef as rf
from ranef.covariances.covariance import Diagonal, Unstructured
from ranef.covariances.partial_correlations import correlations, unit_factor
from ranef.families.names import find_family
from ranef.posterior.transforms import (
    Coordinate,
    coordinate,
    coordinate_of,
    evaluate,
    free_correlation,
    given_effects,
    space_of,
)
from ranef.priors.assignment import Priors, TermPriors, resolve
from ranef.priors.distributions import (
    LKJ,
    Constant,
    Exponential,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    StudentT,
    Uniform,
)

HALF_NORMAL, LKJ_2 = HalfNormal(2), LKJ(2)


def priors_of(*, beta=(), sigma=HALF_NORMAL, terms=()):
    fixed = tuple(f"x{j}" for j in range(len(beta)))
    return Priors(fixed=fixed, beta=tuple(beta), sigma=sigma, terms=tuple(terms), change=None)


def term(k, corr=LKJ_2, sd=HALF_NORMAL, label="g"):
    coefs = tuple("abcd"[:k])
    sds = sd if isinstance(sd, tuple) else (sd,) * k
    covariance = Unstructured(k) if corr else Diagonal(k)
    return TermPriors(label, coefs, covariance, sds, corr if k > 1 else None)


FULL = priors_of(
    beta=(Normal(0, 1), StudentT(3, 1, 2), Uniform(-2, 2)),
    terms=(term(3), term(2, corr=None, label="h"), term(2, sd=Relative(HalfNormal(1)), label="i")),
)


def test_names_and_places_follow_the_terms():
    space = space_of(FULL)
    assert space.names == (
        "x1",
        "x2",
        "sigma",
        "sd_g[a]",
        "sd_g[b]",
        "sd_g[c]",
        "corr_g[a, b]",
        "corr_g[a, c]",
        "corr_g[b, c]",
        "sd_h[a]",
        "sd_h[b]",
        "sd_i[a]",
        "sd_i[b]",
        "corr_i[a, b]",
    )
    assert space.free_names == space.names
    assert space.d == 14
    assert given_effects(FULL) == [1, 2]
    assert space.places == (
        (slice(3, 6), slice(6, 9)),
        (slice(9, 11), slice(11, 11)),
        (slice(11, 13), slice(13, 14)),
    )


def test_point_is_the_way_back_from_values():
    space = space_of(FULL)
    x = np.random.default_rng(1).normal(size=(20, space.d))
    values, _ = space.values(x)
    np.testing.assert_allclose([space.point(v) for v in values], x, atol=1e-12)


def test_values_of_many_points_are_those_of_each():
    space = space_of(FULL)
    x = np.random.default_rng(2).normal(size=(2, 3, space.d))
    values, logp = space.values(x, natural=True)
    for place in np.ndindex(2, 3):
        own, density = space.values(x[place], natural=True)
        np.testing.assert_array_equal(values[place], own)
        assert logp[place] == pytest.approx(float(density), rel=1e-14)


def test_prior_density_is_that_of_scipy_with_all_constants():
    priors = priors_of(
        beta=(StudentT(3, 1, 2),),
        sigma=HalfStudentT(4, 3),
        terms=(term(2, corr=LKJ(1.5)), term(1, sd=Relative(HalfNormal(1.7)), label="h")),
    )
    space = space_of(priors)
    x = np.array([0.3, 0.7, -0.4, 0.2, 0.9, -0.6])
    values, logp = space.values(x, natural=True)
    beta, sigma, sd_a, sd_b, corr, sd_h = values
    expected = stats.t(3, 1, 2).logpdf(beta) + stats.t(4, 0, 3).logpdf(sigma) + np.log(2)
    expected += stats.halfnorm(0, 2).logpdf([sd_a, sd_b]).sum()
    expected += stats.beta(1.5, 1.5, -1, 2).logpdf(corr)
    expected += stats.halfnorm(0, 1.7).logpdf(sd_h / sigma)  # a density of the ratio
    assert logp == pytest.approx(expected, rel=1e-13)
    jacobian = np.log(sigma * sd_a * sd_b * (sd_h / sigma) * (1 - corr**2) / 2)
    assert space.values(x)[1] == pytest.approx(expected + jacobian, rel=1e-13)


def test_a_relative_sd_grows_with_sigma():
    space = space_of(priors_of(terms=(term(2, sd=Relative(HalfNormal(1))),)))
    x = np.array([np.log(3.0), np.log(0.5), np.log(2.0), 0.0])
    values, _ = space.values(x)
    np.testing.assert_allclose(values, [3.0, 1.5, 6.0, 0.0])
    np.testing.assert_array_equal(space.relative, [False, True, True, False])


def test_known_values_are_left_out_of_the_coordinates():
    sd = (Constant(1.5), Relative(Constant(0.5)))
    space = space_of(priors_of(beta=(Constant(7),), terms=(term(2, sd=sd),)))
    assert space.free_names == ("sigma", "corr_g[a, b]")
    np.testing.assert_array_equal(space.free, [1, 4])
    values, logp = space.values(np.array([np.log(4.0), 0.0]))
    np.testing.assert_allclose(values, [7.0, 4.0, 1.5, 2.0, 0.0])
    assert logp == pytest.approx(
        stats.halfnorm(0, 2).logpdf(4) + np.log(4) + stats.beta(2, 2, -1, 2).logpdf(0) - np.log(2)
    )
    np.testing.assert_allclose(space.point(values), [np.log(4.0), 0.0])


def test_a_space_without_coordinates():
    space = space_of(priors_of(sigma=Constant(2)))
    values, logp = space.values(np.empty((3, 0)))
    assert (space.d, space.codes.shape, space.numbers.shape) == (0, (0, 2), (0, 3))
    np.testing.assert_array_equal(values, [[2.0]] * 3)
    np.testing.assert_array_equal(logp, np.zeros(3))
    assert space.point(values[0]).shape == (0,)


def test_factors_are_square_roots_of_the_covariances():
    space = space_of(FULL)
    values, _ = space.values(np.random.default_rng(3).normal(size=(5, space.d)))
    for F, (sd, partial), covariance in zip(
        space.factors(values), space.places, space.covariances, strict=True
    ):
        k = covariance.k
        assert F.shape == (5, k, k)
        cov = F @ F.swapaxes(1, 2)
        np.testing.assert_allclose(np.sqrt(np.diagonal(cov, axis1=1, axis2=2)), values[:, sd])
        if not covariance.has_correlations:
            np.testing.assert_array_equal(F, values[:, sd, None] * np.eye(k))
        if k == 2 and covariance.has_correlations:
            product = values[:, sd].prod(axis=1)
            np.testing.assert_allclose(cov[:, 0, 1] / product, values[:, partial.start])


def test_names_are_those_of_the_estimates():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    names = space_of(model.priors).names
    assert set(names) <= set(model.fit().estimates().index)


# ------------------------------------------------------------------- generalised models

OWN = replace(
    priors_of(
        beta=(Normal(1, 2), Flat(), StudentT(3, 1, 2), Constant(7)),
        sigma=Constant(1.0),
        terms=(term(2),),
    ),
    parameters=(("shape", InverseGamma(0.4, 0.3)), ("zeta", Constant(5))),
    has_sigma=False,
)


def test_all_effects_and_the_own_parameters_come_before_sigma():
    space = space_of(OWN, all_effects=True)
    names = ("x0", "x1", "x2", "x3", "shape", "zeta", "sigma")
    assert space.names == (*names, "sd_g[a]", "sd_g[b]", "corr_g[a, b]")
    assert space.free_names == ("x0", "x1", "x2", "shape", "sd_g[a]", "sd_g[b]", "corr_g[a, b]")
    assert (space.n_given, space.d) == (6, 7)
    np.testing.assert_array_equal(space.known[[3, 5, 6]], [7.0, 5.0, 1.0])
    assert space.places == ((slice(7, 9), slice(9, 10)),)
    some = space_of(OWN)
    assert some.names[:5] == ("x2", "x3", "shape", "zeta", "sigma")
    assert some.n_given == 4


def test_the_density_of_a_generalised_model_is_that_of_scipy():
    space = space_of(OWN, all_effects=True)
    x = np.random.default_rng(5).normal(size=(20, space.d))
    values, natural = space.values(x, natural=True)
    np.testing.assert_array_equal(values[:, [3, 5, 6]], [[7.0, 5.0, 1.0]] * 20)
    np.testing.assert_array_equal(values[:, :3], x[:, :3])
    np.testing.assert_allclose(values[:, 4], np.exp(x[:, 3]))
    expected = stats.norm(1, 2).logpdf(values[:, 0]) + stats.t(3, 1, 2).logpdf(values[:, 2])
    expected += stats.invgamma(0.4, scale=0.3).logpdf(values[:, 4])
    expected += stats.halfnorm(0, 2).logpdf(values[:, 7:9]).sum(axis=1)
    corr = values[:, 9]
    expected += stats.beta(2, 2, -1, 2).logpdf(corr)
    np.testing.assert_allclose(natural, expected, rtol=1e-12)
    jacobian = np.log(values[:, [4, 7, 8]]).sum(axis=1) + np.log((1 - corr**2) / 2)
    np.testing.assert_allclose(space.values(x)[1], expected + jacobian, rtol=1e-12)
    np.testing.assert_allclose([space.point(v) for v in values], x, atol=1e-12)


@pytest.mark.parametrize("natural", [False, True])
def test_the_slope_of_the_density_equals_central_differences(natural):
    space = space_of(OWN, all_effects=True)
    x = np.random.default_rng(6).normal(size=space.d)
    h = 1e-6 * np.eye(space.d)
    expected = space.values(x + h, natural=natural)[1] - space.values(x - h, natural=natural)[1]
    found = [
        evaluate(c.family, c.transform, c.a, c.b, c.c, own, is_natural=natural)[3]
        for c, own in zip(space.coordinates, x, strict=True)
    ]
    np.testing.assert_allclose(found, expected / 2e-6, atol=1e-8)


def test_sds_may_be_relative_to_the_sigma_of_a_family_that_has_one():
    priors = replace(
        priors_of(beta=(Flat(),), terms=(term(1, sd=Relative(HalfNormal(1))),)),
        parameters=(("nu", Gamma(2, 0.1)),),
    )
    space = space_of(priors, all_effects=True)
    assert space.names == ("x0", "nu", "sigma", "sd_g[a]")
    values, _ = space.values(np.log([np.e, 4.0, 3.0, 0.5]))
    np.testing.assert_allclose(values, [1.0, 4.0, 3.0, 1.5])
    np.testing.assert_allclose(space.point(values), np.log([np.e, 4.0, 3.0, 0.5]), atol=1e-12)


def test_the_space_of_resolved_priors():
    cbpp = rf.load_dataset("cbpp")
    made = rf.Model("incidence ~ period + (1 | herd)", cbpp).design
    family = find_family("negative_binomial")
    space = space_of(resolve(made, family=family), all_effects=True)
    own = ("shape", "sigma", "sd_herd[Intercept]")
    assert space.names == (*made.fixed, *own)
    assert space.free_names == (*made.fixed, own[0], own[2])
    flat = space_of(resolve(made, "flat", family), all_effects=True)
    assert flat.free_names == space.free_names
    x = np.arange(6.0)
    assert flat.values(x)[1] == x[4:].sum()  # only what the logarithms add


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


def partial_correlation(eta, k, column):
    """Return the coordinate of a partial correlation of a k x k LKJ matrix."""
    return free_correlation(eta, eta + (k - 2 - column) / 2)


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


def test_values_far_out_are_infinite_without_a_warning():
    space = space_of(FULL)
    far = np.full((2, space.d), [[-800.0], [800.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, logp = space.values(far)
    assert np.isinf(values[1, space.places[0][0]]).all()
    assert not (logp > -800).any()


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
