"""Densities of one number against distributions that SciPy knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lattice_cases import sleep_exact
from scipy import optimize, stats

from ranef.errors import FitError
from ranef.posterior.quadrature.marginal_densities import (
    Curve,
    along,
    marginal_density,
    mixture,
    shows,
    tabulated,
)


def curve_of(distribution, lower, upper, points=401, *, log=False):
    """Return the curve of a distribution, on an even grid of the value or of its logarithm."""
    t = (
        np.linspace(np.log(lower), np.log(upper), points)
        if log
        else np.linspace(lower, upper, points)
    )
    values = np.exp(t) if log else t
    slope = values if log else np.ones_like(t)
    return tabulated(t, distribution.logpdf(values) + np.log(slope) + 7.0, values, slope)


CURVES = {
    "normal": (stats.norm(3, 2), curve_of(stats.norm(3, 2), -12, 18)),
    "gamma": (stats.gamma(3, 0, 2), curve_of(stats.gamma(3, 0, 2), 1e-4, 90, log=True)),
    "exponential": (stats.expon(0, 5), curve_of(stats.expon(0, 5), 1e-11, 170, 801, log=True)),
    "log-normal": (stats.lognorm(0.8), curve_of(stats.lognorm(0.8), 2e-3, 500, log=True)),
    "skewed": (stats.skewnorm(6), curve_of(stats.skewnorm(6), -1.2, 7)),
    "far": (stats.norm(), curve_of(stats.norm(), -38.4, 38.4, 2001)),
}
ALL = pytest.mark.parametrize(("distribution", "curve"), CURVES.values(), ids=CURVES)


@ALL
def test_density_and_probabilities(distribution, curve):
    x = distribution.ppf(np.linspace(0.001, 0.999, 97))
    top = curve.density.max()
    np.testing.assert_allclose(curve.pdf(x), distribution.pdf(x), atol=1e-6 * top)
    np.testing.assert_allclose(curve.cdf(x), distribution.cdf(x), atol=5e-6)
    q = np.linspace(0.001, 0.999, 97)
    np.testing.assert_allclose(curve.quantile(q), distribution.ppf(q), atol=2e-4 * curve.sd)


@ALL
def test_moments(distribution, curve):
    assert curve.mean == pytest.approx(distribution.mean(), rel=1e-6)
    assert curve.sd == pytest.approx(distribution.std(), rel=1e-5)


@pytest.mark.parametrize("curve", [curve for _, curve in CURVES.values()], ids=CURVES)
def test_cdf_and_quantile_are_inverse(curve):
    q = np.array([0.0, 1e-6, 0.02, 0.5, 0.9, 1 - 1e-6, 1.0])
    np.testing.assert_allclose(curve.cdf(curve.quantile(q)), q, atol=2e-6)
    assert (np.diff(curve.cdf(np.linspace(-5, 30, 999))) >= 0).all()


@pytest.mark.parametrize("curve", [curve for _, curve in CURVES.values()], ids=CURVES)
def test_outside_the_range_there_is_nothing(curve):
    low, high = curve.values[0] - 1e-9, curve.values[-1] + 1e-9
    np.testing.assert_array_equal(curve.pdf([low, high, -1e9, 1e9]), 0.0)
    np.testing.assert_allclose(curve.cdf([low - 1, high + 1]), [0.0, 1.0], atol=1e-12)
    assert (curve.pdf(np.linspace(low, high, 999)) >= 0).all()


def test_a_single_number_gives_a_single_number():
    curve = CURVES["normal"][1]
    assert curve.pdf(3.0).shape == curve.cdf(3.0).shape == curve.quantile(0.5).shape == ()
    assert float(curve.cdf(3.0)) == pytest.approx(0.5, abs=1e-9)


# -------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("prob", [0.5, 0.9, 0.95, 0.99])
def test_shortest_interval_of_symmetric_and_of_falling_densities(prob):
    normal, exponential = CURVES["normal"][1], CURVES["exponential"][1]
    expected = stats.norm(3, 2).interval(prob)
    assert normal.hdi(prob) == pytest.approx(expected, abs=1e-3)
    lower, upper = exponential.hdi(prob)
    assert lower == pytest.approx(0.0, abs=1e-3)
    assert upper == pytest.approx(stats.expon(0, 5).ppf(prob), rel=1e-4)


@pytest.mark.parametrize("name", ["gamma", "log-normal", "skewed"])
@pytest.mark.parametrize("prob", [0.5, 0.95])
def test_shortest_interval_has_equal_densities_at_its_ends(name, prob):
    distribution, curve = CURVES[name]
    lower, upper = curve.hdi(prob)
    assert distribution.cdf(upper) - distribution.cdf(lower) == pytest.approx(prob, abs=1e-5)
    assert distribution.pdf(lower) == pytest.approx(distribution.pdf(upper), rel=3e-2)
    starts = np.linspace(0, 1 - prob, 20_001)[1:-1]
    shortest = (distribution.ppf(starts + prob) - distribution.ppf(starts)).min()
    assert upper - lower == pytest.approx(shortest, rel=1e-5)


def test_shortest_interval_of_a_rising_density_ends_at_its_top():
    falling = CURVES["exponential"][1]
    rising = Curve(
        -falling.values[::-1], falling.density[::-1], -falling.t[::-1], falling.slope[::-1]
    )
    lower, upper = falling.hdi(0.9)
    assert rising.hdi(0.9) == pytest.approx((-upper, -lower), abs=1e-3)


@pytest.mark.parametrize("prob", [0, 1, 1.5, -0.1])
def test_a_probability_lies_between_0_and_1(prob):
    with pytest.raises(FitError, match="prob"):
        CURVES["normal"][1].hdi(prob)


# --------------------------------------------------------------------------------- mixtures


def truth(weights, means, sds):
    weights, parts = np.asarray(weights) / np.sum(weights), stats.norm(means, sds)
    mean = float(weights @ means)
    sd = float(np.sqrt(weights @ (np.square(sds) + np.square(means)) - mean**2))
    return (
        lambda x: parts.pdf(np.asarray(x)[:, None]) @ weights,
        lambda x: parts.cdf(np.asarray(x)[:, None]) @ weights,
        mean,
        sd,
    )


MIXTURES = {
    "one": ([1.0], [2.0], [3.0]),
    "two": ([1.0, 3.0], [-1.0, 2.0], [1.0, 0.7]),
    "a sharp peak": ([0.5, 0.5], [0.0, 0.2], [1e-3, 1.0]),
    "a very sharp peak": ([0.2, 0.8], [0.3, 0.0], [2e-4, 1.0]),
    "all widths": (np.geomspace(1e-6, 1, 400), np.zeros(400), np.geomspace(1e-6, 1, 400)),
    "far from zero": ([0.5, 0.5], [1e6, 1e6 + 1], [0.5, 2.0]),
    "many": (np.ones(5000), np.sin(np.arange(5000)), 0.5 + np.arange(5000) / 9000),
}


@pytest.mark.parametrize("parts", MIXTURES.values(), ids=MIXTURES)
def test_mixture_is_the_sum_of_its_parts(parts):
    parts = tuple(np.asarray(part, dtype=float) for part in parts)
    pdf, cdf, mean, sd = truth(*parts)
    found = mixture(*parts)
    assert found.mean == pytest.approx(mean, abs=1e-5 * sd)
    assert found.sd == pytest.approx(sd, rel=5e-5)
    peak = pdf(found.values).max()  # what is nearly the same was merged
    np.testing.assert_allclose(found.density, pdf(found.values), atol=5e-5 * peak)
    x = np.unique([m + s * z for m, s in zip(*parts[1:], strict=True) for z in (-2, -0.3, 0.7)])
    x = x[:: max(1, len(x) // 60)]
    np.testing.assert_allclose(found.cdf(x), cdf(x), atol=2e-4)
    assert found.cdf(found.values[0]) < 1e-9
    assert found.quantile(0.5) == pytest.approx(
        np.interp(0.5, cdf(found.values), found.values), abs=1e-3 * sd
    )


def test_shortest_interval_of_a_mixture_keeps_to_the_sharp_peak():
    found = mixture(np.array([0.5, 0.5]), np.array([0.3, 0.0]), np.array([1e-3, 1.0]))
    lower, upper = found.hdi(0.4)
    assert (lower, upper) == pytest.approx((0.3, 0.3), abs=2e-3)


def test_weights_need_not_add_up_to_one():
    one = mixture(np.array([2.0, 6.0]), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    two = mixture(np.array([0.25, 0.75]), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(one.density, two.density, rtol=1e-14)


@pytest.mark.parametrize(
    ("law", "starts_at_zero"), [(stats.halfnorm, True), (stats.gamma(40), False)]
)
def test_the_interval_of_a_positive_number_starts_at_zero_where_its_density_is_highest(
    law, starts_at_zero
):
    values = np.exp(np.linspace(-18, 5, 2001))
    kept = values > law.ppf(1e-9)
    t = np.log(values[kept])
    curve = tabulated(t, law.logpdf(values[kept]) + t, values[kept], values[kept], from_zero=True)
    lower, upper = curve.hdi(0.9)
    assert (lower == 0) is starts_at_zero
    assert law.cdf(upper) - law.cdf(lower) == pytest.approx(0.9, abs=1e-4)
    assert (curve.quantile(0.0) == 0) == starts_at_zero


def test_a_curve_prints_in_one_line_with_the_digits_of_its_sd():
    curve = curve_of(stats.norm(1234.5678, 0.05), 1234, 1235.2)
    assert repr(curve) == (
        "posterior density: mean 1234.568, sd 0.050, 95 % HPD interval 1234.470 to 1234.666"
    )
    assert "1234.470" in curve._repr_html_()


@pytest.mark.parametrize("terms", [" + (1 | Subject)", " + (Days | Subject)"])
def test_a_density_read_from_the_lattice_is_that_of_a_lattice_of_its_own(terms):
    exact = sleep_exact(terms)
    for place in map(int, exact.target.space.free):
        assert shows(exact.lattice, exact.mode, place)
        alone = marginal_density(along(exact.target, exact.mode, place), place)
        found, x = exact.curve(place), alone.quantile(np.linspace(0.001, 0.999, 40))
        np.testing.assert_allclose(found.pdf(x), alone.pdf(x), atol=3e-5 * alone.density.max())
        assert found.hdi(0.9) == pytest.approx(alone.hdi(0.9), abs=1e-4 * alone.sd)


def test_a_lattice_in_other_coordinates_shows_no_density():
    exact = sleep_exact(" + (Days | Subject)")
    root = exact.frame.root.copy()
    root[1, 0] += 0.3 * root[1, 1]
    turned = replace(exact.lattice, frame=replace(exact.frame, root=root))
    assert shows(exact.lattice, exact.mode, 1)
    assert not shows(turned, exact.mode, 1)


def test_the_density_is_the_same_at_both_ends_of_the_shortest_interval():
    rng = np.random.default_rng(3)
    parts = rng.dirichlet(np.ones(300)), rng.normal(2, 0.5, 300), rng.gamma(4, 0.3, 300)
    pdf, cdf, _, sd = truth(*parts)

    def upper(low):
        return optimize.brentq(lambda x: (cdf([x]) - cdf([low]) - 0.9).item(), low, 99)

    def difference(low):
        return (pdf([low]) - pdf([upper(low)])).item()

    last = optimize.brentq(lambda x: (cdf([x]) - 0.0999).item(), -30, 30)
    low = optimize.brentq(difference, -10, last)
    assert mixture(*parts).hdi(0.9) == pytest.approx((low, upper(low)), abs=5e-5 * sd)
