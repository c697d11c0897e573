"""Log densities against SciPy, their derivatives against differences, and the tails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from ranef.families.derivatives import differenced
from ranef.families.family import FAMILIES, find_family
from ranef.families.link import Link

PSI = {
    "gaussian": (0.8,),
    "gamma": (0.6,),
    "inverse_gaussian": (0.7,),
    "negative_binomial": (1.7,),
    "beta": (5.5,),
    "t": (0.9, 4.5),
}
LINKS_OF = {
    "gaussian": ("identity", "log", "inverse"),
    "binomial": ("logit", "probit", "cloglog", "cauchit"),
    "bernoulli": ("logit", "probit", "cloglog", "cauchit"),
    "poisson": ("log", "sqrt", "identity"),
    "negative_binomial": ("log",),
    "gamma": ("log", "inverse", "identity"),
    "inverse_gaussian": ("log", "inverse_squared", "inverse"),
    "beta": ("logit", "probit", "cloglog"),
    "t": ("identity", "log"),
}
PAIRS = [(name, link) for name, links in LINKS_OF.items() for link in links]
REFERENCES = {
    "gaussian": lambda y, mu, w, s: stats.norm(mu, s / np.sqrt(w)).logpdf(y),
    "t": lambda y, mu, w, s, nu: stats.t(nu, mu, s / np.sqrt(w)).logpdf(y),
    "binomial": lambda y, mu, w: stats.binom(w, mu).logpmf(np.round(w * y)),
    "bernoulli": lambda y, mu, w: w * stats.bernoulli(mu).logpmf(y),
    "poisson": lambda y, mu, w: w * stats.poisson(mu).logpmf(y),
    "negative_binomial": lambda y, mu, w, k: w * stats.nbinom(k, k / (k + mu)).logpmf(y),
    "gamma": lambda y, mu, w, s: stats.gamma(w / s**2, scale=mu * s**2 / w).logpdf(y),
    "inverse_gaussian": lambda y, mu, w, s: stats.invgauss(mu * s**2 / w, scale=w / s**2).logpdf(y),
    "beta": lambda y, mu, w, phi: w * stats.beta(mu * phi, (1 - mu) * phi).logpdf(y),
}
every_pair = pytest.mark.parametrize(("name", "link"), PAIRS)


def setting(name, link, seed=1, n=40):
    family = find_family(name, link)
    rng = np.random.default_rng(seed)
    eta, w = rng.uniform(0.3, 1.5, n), rng.integers(1, 5, n).astype(float)
    psi = np.array(PSI.get(name, ()))
    return family, family.draw(rng, family.link.inverse(eta), w, *psi), eta, w, psi


@every_pair
def test_log_densities_are_those_of_scipy(name, link):
    family, y, eta, w, psi = setting(name, link)
    mu = family.link.inverse(eta)
    expected = REFERENCES[name](y, mu, w, *psi)
    np.testing.assert_allclose(family.log_density(y, mu, w, *psi), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        family.expansion(y, eta, w, psi).value, expected, rtol=1e-11, atol=1e-13
    )


def close(found, expected, tolerance):
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * (1 + np.abs(expected).max())
    )


@every_pair
def test_derivatives_are_those_of_scipys_densities(name, link):
    family, y, eta, w, psi = setting(name, link)

    def density(eta):
        return REFERENCES[name](y, family.link.inverse(eta), w, *psi)

    _, first, second, third = differenced(density, eta, np.asarray(0.006))
    found, further = family.expansion(y, eta, w, psi), family.further_expansion(y, eta, w, psi)
    close(found.score, first, 1e-9)
    close(found.weight, -second, 1e-8)
    close(further.third, -third, 1e-5)


@every_pair
def test_third_derivatives_are_slopes_of_the_weights(name, link):
    family, y, eta, w, psi = setting(name, link)

    def weight(eta):
        return family.expansion(y, eta, w, psi).weight

    expected = differenced(weight, eta, np.asarray(0.006))[1]
    close(family.further_expansion(y, eta, w, psi).third, expected, 1e-8)


@pytest.mark.parametrize(("name", "link"), [pair for pair in PAIRS if pair[0] in PSI])
def test_derivatives_in_the_logarithms_of_parameters(name, link):
    family, y, eta, w, psi = setting(name, link)
    further = family.further_expansion(y, eta, w, psi)
    for j in range(len(psi)):
        for part, tolerance in {"value": 1e-9, "score": 1e-8, "weight": 1e-8}.items():

            def at(log_psi, j=j, part=part):
                own = np.where(np.arange(len(psi)) == j, np.exp(log_psi), psi)
                return getattr(family.expansion(y, eta, w, own), part)

            h = 0.01
            expected = sum(
                c * (at(np.log(psi[j]) + k * h) - at(np.log(psi[j]) - k * h))
                for k, c in zip((1, 2, 3, 4), (4 / 5, -1 / 5, 4 / 105, -1 / 280), strict=True)
            )
            close(getattr(further, part)[j], expected / h, tolerance)


@every_pair
def test_many_rows_of_eta_at_once(name, link):
    family, y, eta, w, psi = setting(name, link)
    rows = np.stack([eta, eta + 0.1, eta - 0.1])
    found, further = family.expansion(y, rows, w, psi), family.further_expansion(y, rows, w, psi)
    information = family.information(rows, w, psi)
    assert found.weight.shape == further.third.shape == information.shape == rows.shape
    assert further.value.shape == further.weight.shape == (len(psi), *rows.shape)
    for k, row in enumerate(rows):
        one, more = family.expansion(y, row, w, psi), family.further_expansion(y, row, w, psi)
        np.testing.assert_allclose(found.value[k], one.value, rtol=1e-13)
        np.testing.assert_allclose(found.weight[k], one.weight, rtol=1e-13)
        np.testing.assert_allclose(further.score[:, k], more.score, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(information[k], family.information(row, w, psi), rtol=1e-13)


@every_pair
def test_the_expected_information(name, link):
    """The variance of the score, and what the variance function says where the two agree."""
    family, _, _, _, psi = setting(name, link)
    eta, w = np.full(40_000, 0.7), np.full(40_000, 3.0)
    y = family.draw(np.random.default_rng(4), family.link.inverse(eta), w, *psi)
    multiplies = not family.has_sigma and name != "binomial"
    score = family.expansion(y, eta, w / w if multiplies else w, psi).score
    found = family.information(eta[:1], w[:1], psi)
    squares = score**2 * (3 if multiplies else 1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - found[0]) < 5 * error
    if name not in {"t", "beta"}:
        plain = replace(family, expected=None).information(eta[:1], w[:1], psi)
        np.testing.assert_allclose(found, plain, rtol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_density_outside_of_the_support(name):
    family, psi = find_family(name), PSI.get(name, ())
    outside = {"counts": [-1, 0.5], "positive": [0, -1], "unit": [0, 1, 2], "real": []}
    y = np.array(outside.get(family.support, [-1, 2]), dtype=float)
    mu, w = np.full(len(y), 0.4), np.ones(len(y))
    np.testing.assert_array_equal(family.log_density(y, mu, w, *psi), -np.inf)


def test_means_at_the_edge():
    binomial, poisson = find_family("binomial"), find_family("poisson")
    y, w = np.array([0.0, 1.0, 0.5]), np.array([2.0, 2.0, 2.0])
    np.testing.assert_array_equal(binomial.log_density(y, y * (y != 0.5), w), [0, 0, -np.inf])
    counts, zero = np.array([0.0, 1.0]), np.zeros(2)
    np.testing.assert_allclose(poisson.log_density(counts, zero, w[:2]), [0, -1488.9], atol=0.1)
    np.testing.assert_array_equal(poisson.log_density(counts, zero - 1, w[:2]), -np.inf)


OF_EXP = [(name, "log") for name, links in LINKS_OF.items() if "log" in links]
OF_CHANCE = [(name, link) for name, link in PAIRS if name in {"binomial", "bernoulli", "beta"}]
RESPONSES = {"real": (-2.0, 0.0, 3.0), "positive": (1e-3, 1.0, 50.0), "counts": (0.0, 1.0, 500.0)}


@pytest.mark.parametrize(("name", "link"), OF_EXP + OF_CHANCE)
def test_nothing_breaks_far_out(name, link):
    family, psi = find_family(name, link), np.array(PSI.get(name, ()))
    default = (0.01, 0.5, 0.99) if name == "beta" else (0.0, 1.0)
    y, eta = (
        one.ravel()
        for one in np.meshgrid(
            RESPONSES.get(family.support, default), [-700.0, -300, -40, -9, 0, 9, 40, 300, 700]
        )
    )
    w = np.full(len(y), 2.0)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = family.expansion(y, eta, w, psi)
        further = family.further_expansion(y, eta, w, psi)
        information = family.information(eta, w, psi)
    for part in (found.value, found.score, found.weight, information, further.third):
        assert np.isfinite(part).all()
    for part in (further.value, further.score, further.weight):
        assert np.isfinite(part).all()


def single(name, y, eta, psi=(), link=None):
    family = find_family(name, link)
    args = np.array([y]), np.array([eta]), np.ones(1), np.array(psi)
    one, more = family.expansion(*args), family.further_expansion(*args)
    return [one.value[0], one.score[0], one.weight[0], more.third[0]]


def test_tails_keep_their_digits():
    e = np.exp(-40.0)
    np.testing.assert_allclose(single("bernoulli", 0.0, -40.0), [-e, -e, e, e], rtol=1e-14)
    np.testing.assert_allclose(single("bernoulli", 1.0, -40.0), [-40, 1, e, e], rtol=1e-14)
    np.testing.assert_allclose(single("bernoulli", 1.0, 40.0), [-e, e, e, -e], rtol=1e-14)
    mills = single("bernoulli", 1.0, -40.0, link="probit")
    np.testing.assert_allclose(mills[0], special.log_ndtr(-40.0), rtol=1e-14)
    np.testing.assert_allclose(mills[1], 40 + 1 / 40 - 2 / 40**3, rtol=1e-8)
    np.testing.assert_allclose(mills[2], 1 - 1 / 40**2 + 6 / 40**4, rtol=1e-7)
    np.testing.assert_allclose(single("poisson", 0.0, -700.0)[:2], [-np.exp(-700)] * 2)
    np.testing.assert_allclose(single("gamma", 2.0, 700.0, (0.5,))[1:3], [-4, 0], atol=1e-12)
    np.testing.assert_allclose(
        single("negative_binomial", 3.0, 700.0, (2.0,))[1:], [-2, 0, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        single("beta", 0.3, -700.0, (2.0,)), [-700 + np.log(2 * 0.7 / 0.3), 1, 0, 0], atol=1e-12
    )
    np.testing.assert_allclose(
        single("t", 1.0, 150.0, (0.9, 4.5), "log")[1:], [-5.5, 0, 0], rtol=1e-12, atol=1e-12
    )


def test_a_large_shape_is_a_poisson_distribution():
    for y, eta in [(0.0, 0.3), (4.0, 1.2), (60.0, 4.0)]:
        poisson = single("poisson", y, eta)
        for shape in (1e10, 1e13, 1e15):
            np.testing.assert_allclose(
                single("negative_binomial", y, eta, (shape,)),
                poisson,
                rtol=1e-12 + 1e4 / shape,
                atol=1e-12,
            )
        further = find_family("negative_binomial").further_expansion(
            np.array([y]), np.array([eta]), np.ones(1), np.array([1e10])
        )
        expected = (y - (y - np.exp(eta)) ** 2) / 2e10  # from the series of L in 1 / shape
        np.testing.assert_allclose(further.value[0], expected, rtol=1e-4, atol=2e-13)


@pytest.mark.parametrize("nu", [1e4, 1e6, 1e9])
def test_many_degrees_of_freedom_are_a_normal_distribution(nu):
    normal = single("gaussian", 1.3, 0.4, (0.8,))
    np.testing.assert_allclose(
        single("t", 1.3, 0.4, (0.8, nu)), normal, rtol=1e-12 + 3 / nu, atol=1e-12 + 20 / nu
    )
    further = find_family("t").further_expansion(
        np.array([1.3]), np.array([0.4]), np.ones(1), np.array([0.8, nu])
    )
    assert (np.abs(further.value[1]) < 2 / nu + 1e-15).all()


@pytest.mark.parametrize("phi", [1e-6, 1e-2, 1e4, 1e8])
def test_any_precision_of_a_beta_distribution(phi):
    p = 0.42
    y = p + 0.3 * np.sqrt(p * (1 - p) / (1 + phi))
    value, score, weight, _ = single("beta", y, special.logit(p), (phi,))
    expected = stats.beta(p * phi, (1 - p) * phi).logpdf(y)
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-15 * phi * np.log(2 + phi))
    alpha, beta = p * phi, (1 - p) * phi
    excess = special.logit(y) - special.digamma(alpha) + special.digamma(beta)
    np.testing.assert_allclose(score, phi * p * (1 - p) * excess, rtol=1e-8)
    curvature = special.polygamma(1, alpha) + special.polygamma(1, beta)
    slope = p * (1 - p)
    np.testing.assert_allclose(
        weight,
        slope**2 * phi**2 * curvature - phi * slope * (1 - 2 * p) * excess,
        rtol=1e-8,
        atol=1e-15,
    )


@pytest.mark.parametrize("sigma", [1e-4, 1e-7])
def test_a_small_coefficient_of_variation(sigma):
    """The gamma distribution is normal then, up to the third moment."""
    z = 0.7
    value, score, weight, _ = single("gamma", np.exp(1 + sigma * z), 1.0, (sigma,))
    log_normal = stats.norm.logpdf(z) - np.log(sigma) - 1 - sigma * z
    np.testing.assert_allclose(value, log_normal, rtol=1e-9 + sigma)
    np.testing.assert_allclose(score, z / sigma, rtol=1e-8 + sigma)
    np.testing.assert_allclose(weight, 1 / sigma**2, rtol=1e-8 + sigma)


def test_the_curve_of_a_log_mean_is_eta_for_the_log_link():
    link = find_family("poisson").link
    assert isinstance(link, Link)
    assert link.log_mean(np.array([3.0]))[0] == 3.0
