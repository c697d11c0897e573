"""What is checked of every family and link: densities, their derivatives, draws, PyMC's form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ranef.families.derivatives import differenced
from ranef.families.names import find_family

PSI = {
    "gaussian": (0.8,),
    "gamma": (0.6,),
    "inverse_gaussian": (0.7,),
    "negative_binomial": (1.7,),
    "beta": (5.5,),
    "t": (0.9, 4.5),
}
PSI_OF_DRAWS = {**PSI, "negative_binomial": (5.3,), "t": (0.9, 9.5)}  # with four moments
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


def setting(name, link, seed=1, n=40):
    family = find_family(name, link)
    rng = np.random.default_rng(seed)
    eta, w = rng.uniform(0.3, 1.5, n), rng.integers(1, 5, n).astype(float)
    psi = np.array(PSI.get(name, ()))
    return family, family.draw(rng, family.link.inverse(eta), w, *psi), eta, w, psi


def close(found, expected, tolerance):
    np.testing.assert_allclose(
        found, expected, rtol=tolerance, atol=tolerance * (1 + np.abs(expected).max())
    )


def single(name, y, eta, psi=(), link=None):
    family = find_family(name, link)
    args = np.array([y]), np.array([eta]), np.ones(1), np.array(psi)
    one, more = family.expansion(*args), family.further_expansion(*args)
    return [one.value[0], one.score[0], one.weight[0], more.third[0]]


def check_log_densities_are_those_of_scipy(name, link):
    family, y, eta, w, psi = setting(name, link)
    mu = family.link.inverse(eta)
    expected = REFERENCES[name](y, mu, w, *psi)
    np.testing.assert_allclose(family.log_density(y, mu, w, *psi), expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(
        family.expansion(y, eta, w, psi).value, expected, rtol=1e-11, atol=1e-13
    )


def check_derivatives_are_those_of_scipys_densities(name, link):
    family, y, eta, w, psi = setting(name, link)

    def density(eta):
        return REFERENCES[name](y, family.link.inverse(eta), w, *psi)

    _, first, second, third = differenced(density, eta, np.asarray(0.006))
    found, further = family.expansion(y, eta, w, psi), family.further_expansion(y, eta, w, psi)
    close(found.score, first, 1e-9)
    close(found.weight, -second, 1e-8)
    close(further.third, -third, 1e-5)


def check_third_derivatives_are_slopes_of_the_weights(name, link):
    family, y, eta, w, psi = setting(name, link)

    def weight(eta):
        return family.expansion(y, eta, w, psi).weight

    expected = differenced(weight, eta, np.asarray(0.006))[1]
    close(family.further_expansion(y, eta, w, psi).third, expected, 1e-8)


def check_derivatives_in_the_logarithms_of_parameters(name, link):
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


def check_many_rows_of_eta_at_once(name, link):
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


def check_the_expected_information(name, link):
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


def check_draws_have_the_mean_and_the_variance(name, link):
    family, psi = find_family(name, link), PSI_OF_DRAWS.get(name, ())
    n, w = 40_000, 3.0
    y = family.draw(np.random.default_rng(5), np.full(n, 0.3), np.full(n, w), *psi)
    variance = family.variance(np.array(0.3), *psi) * (psi[0] ** 2 if family.has_sigma else 1)
    if family.has_sigma or name == "binomial":
        variance = variance / w
    assert y.dtype == np.float64
    assert abs(y.mean() - 0.3) < 5 * np.sqrt(variance / n)
    squares = (y - 0.3) ** 2
    assert abs(squares.mean() - variance) < 5 * squares.std() / np.sqrt(n)


def check_no_density_outside_of_the_support(name, link):
    family, psi = find_family(name, link), PSI.get(name, ())
    outside = {"counts": [-1, 0.5], "positive": [0, -1], "unit": [0, 1, 2], "real": []}
    y = np.array(outside.get(family.support, [-1, 2]), dtype=float)
    mu, w = np.full(len(y), 0.4), np.ones(len(y))
    np.testing.assert_array_equal(family.log_density(y, mu, w, *psi), -np.inf)


def _in_pymc(name, link, *, weighted):
    pm = pytest.importorskip("pymc")
    rng, n = np.random.default_rng(7), 6
    family, psi = find_family(name, link), np.array(PSI_OF_DRAWS.get(name, ()))
    eta = rng.uniform(0.3, 1.2, n)
    w = rng.integers(2, 5, n).astype(float) if weighted else np.ones(n)
    y = family.draw(rng, family.link.inverse(eta), w, *psi)
    with pm.Model(coords={"obs": range(n)}) as model:
        x = pm.Flat("x", shape=n)
        own = [pm.HalfFlat(parameter) for parameter in family.parameters]
        family.pymc(pm, "y", family.link, x, w, *own, observed=y, dims="obs")
    log_density = model.compile_logp(jacobian=False, mode="FAST_COMPILE")
    at = {f"{p}_log__": np.log(v) for p, v in zip(family.parameters, psi, strict=True)}
    expected = family.expansion(y, eta, w, psi).value.sum()
    np.testing.assert_allclose(log_density({"x": eta, **at}), expected, rtol=1e-11)
    is_potential = weighted and not family.has_sigma and name != "binomial"
    assert [v.name for v in model.potentials] == (["y"] if is_potential else [])
    assert model.named_vars_to_dims["y"] == ("obs",)


def check_the_likelihood_in_pymc(name, link):
    """Of rows without weights."""
    _in_pymc(name, link, weighted=False)


def check_the_weighted_likelihood_in_pymc(name, link):
    """Of rows with weights."""
    _in_pymc(name, link, weighted=True)


RESPONSES = {"real": (-2.0, 0.0, 3.0), "positive": (1e-3, 1.0, 50.0), "counts": (0.0, 1.0, 500.0)}


def check_nothing_breaks_far_out(name, link):
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


EVERY_LINK = (
    check_log_densities_are_those_of_scipy,
    check_derivatives_are_those_of_scipys_densities,
    check_third_derivatives_are_slopes_of_the_weights,
    check_derivatives_in_the_logarithms_of_parameters,
    check_many_rows_of_eta_at_once,
    check_the_expected_information,
    check_draws_have_the_mean_and_the_variance,
    check_no_density_outside_of_the_support,
    check_the_likelihood_in_pymc,
    check_the_weighted_likelihood_in_pymc,
)


def family_cases(name, links, tails=()):
    """Return a mark for a test of (check, name, link): all checks of a family with its links."""
    cases = [(check, name, link) for link in links for check in EVERY_LINK]
    cases += [(check_nothing_breaks_far_out, name, link) for link in tails]
    ids = [f"{check.__name__[6:]}-{link}" for check, _, link in cases]
    return pytest.mark.parametrize(("check", "name", "link"), cases, ids=ids)


def check_unit_deviances(name, psi, at, expected):
    """Compare with R 4.5: dev.resids of stats and MASS; for beta and t from dbeta and dt."""
    y, mu = map(np.array, at)
    deviance = find_family(name).deviance
    np.testing.assert_allclose(deviance(y, mu, *psi), expected, rtol=1e-12)
    np.testing.assert_allclose(deviance(mu, mu, *psi), 0, atol=1e-14)
