"""Evidence by quadrature: known values, an integration by another rule, and units."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from density_cases import SCHOOLS, SLEEP, density, schools, sleep
from lattice_cases import integral, log_axis, panels, sleep_exact, slopes_frame
from scipy import integrate, stats

import ranef as rf
from ranef.errors import FitError
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.moments import Exact
from ranef.priors.distributions import (
    Constant,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    Normal,
    Relative,
    StudentT,
)

# As printed by an independent program; its grid cut the tails of the last two where an sd nears
# zero, so that they are low by 2.0e-6 and 3.5e-6
PRINTED = (-959.34556067, -907.69622008, -889.65683896, -890.24406605)


def corr_axis(size):
    value, weight = panels(np.linspace(-1, 1, 4), size)
    return 2 * np.arctanh(value), np.log(weight * 2 / (1 - value**2))


SIGMA = np.linspace(16, 42, 4)
SD = [0, 3, 8, 16, 30, 60, 130, 500, 5000]
SLOPE = [0, 0.5, 2, 5, 10, 20, 60, 500]


# -------------------------------------------------------------------------------- known values


@pytest.mark.parametrize(("random", "printed"), list(zip(SLEEP, PRINTED, strict=True)))
def test_evidences_of_the_sleep_study(random, printed):
    exact = sleep_exact(random)
    assert exact.log_evidence == pytest.approx(printed, abs=5e-6)
    assert exact.log_evidence == pytest.approx(SLEEP[random][0], abs=1e-6)
    assert exact.error < 1e-6


def test_evidence_of_the_linear_model_by_adaptive_integration():
    target = sleep("")
    value, error = integrate.quad(
        lambda s: np.exp(target.log_density(np.log([[s]]))[0] - np.log(s) + 959),
        *(20, 120),
        epsrel=1e-12,
    )
    assert error < 1e-8
    assert sleep_exact("").log_evidence == pytest.approx(np.log(value) - 959, abs=1e-8)


def test_evidence_of_random_intercepts_by_gauss_legendre_panels():
    axes = [log_axis(np.linspace(20, 48, 6), 12), log_axis(SD, 12)]
    expected = integral(sleep(" + (1 | Subject)"), axes)
    assert sleep_exact(" + (1 | Subject)").log_evidence == pytest.approx(expected, abs=2e-8)


def test_evidence_of_independent_slopes_by_gauss_legendre_panels():
    axes = [log_axis(SIGMA, 11), log_axis(SD, 12), log_axis(SLOPE, 12)]
    expected = integral(sleep(" + (Days || Subject)"), axes)
    assert sleep_exact(" + (Days || Subject)").log_evidence == pytest.approx(expected, abs=1e-7)


@pytest.mark.slow
def test_evidence_of_correlated_slopes_by_gauss_legendre_panels():
    axes = [log_axis(SIGMA, 10), log_axis(SD, 12), log_axis(SLOPE, 12), corr_axis(12)]
    expected = integral(sleep(" + (Days | Subject)"), axes)
    assert sleep_exact(" + (Days | Subject)").log_evidence == pytest.approx(expected, abs=2e-7)


def test_eight_schools():
    """Known residual sds; posteriordb's model: mu ~ N(0, 5), tau ~ half-Cauchy(5)."""
    exact = Exact.of(schools())
    assert exact.log_evidence == pytest.approx(-31.311347352293, abs=1e-7)
    assert exact.error < 1e-6
    tau = exact.curve(1)
    assert tau.mean == pytest.approx(3.5977054841, abs=2e-6)
    mean, cov = exact.beta_moments
    assert mean[0] == pytest.approx(4.3968207138, abs=1e-6)
    assert np.sqrt(cov[0, 0]) == pytest.approx(3.3177044632, abs=1e-6)


BAYES_FACTORS = {
    HalfCauchy(5): 1.5953756509,
    HalfNormal(10): 1.6836527265,
    HalfNormal(5): 1.2116720680,
    HalfStudentT(3, 10): 1.8740388515,
}


AT_ZERO = {
    HalfCauchy(5): stats.halfcauchy(0, 5).pdf(0),
    HalfNormal(10): stats.halfnorm(0, 10).pdf(0),
    HalfNormal(5): stats.halfnorm(0, 5).pdf(0),
    HalfStudentT(3, 10): 2 * stats.t(3, 0, 10).pdf(0),
}


@pytest.mark.parametrize(("prior", "expected"), list(BAYES_FACTORS.items()), ids=str)
def test_bayes_factor_against_no_heterogeneity(prior, expected):
    null = Exact.of(schools(None, "y ~ 1"))
    y, cov = SCHOOLS["y"], np.diag(1 / SCHOOLS["w"]) + 25.0
    log_null = stats.multivariate_normal(np.zeros(8), cov).logpdf(y)
    assert null.log_evidence == pytest.approx(log_null, rel=1e-13)
    assert null.error == 0.0
    exact = Exact.of(schools(prior))
    assert np.exp(null.log_evidence - exact.log_evidence) == pytest.approx(expected, abs=1e-6)
    # Savage & Dickey: the posterior over the prior density at tau = 0
    tau = exact.curve(1)
    assert tau.density[0] / AT_ZERO[prior] == pytest.approx(expected, rel=1e-5)


def test_evidence_of_a_conjugate_model():
    """sd / sigma known, beta known up to sigma: a multivariate t density after one integral."""
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(6), 4)
    y = rng.normal(size=24) + rng.normal(size=6)[g]
    data = pd.DataFrame({"y": y, "g": g})
    priors = {"Intercept": Normal(0, 2), "sigma": HalfNormal(3), "sd": Relative(Constant(0.8))}
    exact = Exact.of(density("y ~ 1 + (1 | g)", data, priors))
    same = np.eye(24) + 0.64 * (g[:, None] == g)

    def joint(sigma):
        cov = sigma**2 * same + 4.0
        likelihood = stats.multivariate_normal(np.zeros(24), cov).logpdf(y)
        return np.exp(likelihood + stats.halfnorm(0, 3).logpdf(sigma) + 40)

    expected, _ = integrate.quad(joint, 0.3, 5, epsrel=1e-11)
    assert exact.log_evidence == pytest.approx(np.log(expected) - 40, abs=1e-8)


def test_evidence_of_a_relative_sd():
    """Given the ratio all of sigma's powers come out: the integral in two steps by SciPy."""
    data = rf.load_dataset("Dyestuff")
    priors = {"Intercept": Normal(1500, 80), "sigma": HalfNormal(70), "sd": Relative(HalfNormal(1))}
    target = density("Yield ~ 1 + (1 | Batch)", data, priors)
    sigma = log_axis([15, 30, 45, 60, 90, 150], 12)
    ratio = log_axis([0, 0.3, 0.8, 1.5, 3, 8], 12)
    assert Exact.of(target).log_evidence == pytest.approx(
        integral(target, [sigma, ratio]), abs=1e-7
    )
    # a prior on the ratio is one on the sd, if that scales with sigma
    values, logp = target.space.values(np.array([np.log(50.0), np.log(0.5)]), natural=True)
    assert values[1] == pytest.approx(25.0)
    assert logp == pytest.approx(stats.halfnorm(0, 70).logpdf(50) + stats.halfnorm.logpdf(0.5))


# ------------------------------------------------------------------------- what it is made of


def test_steps_do_not_matter():
    exact = sleep_exact(" + (Days || Subject)")
    finer = lattice.lattice(exact.frame, exact.lattice.steps * 0.6)
    assert finer.log_evidence == pytest.approx(exact.log_evidence, abs=1e-8)


@pytest.mark.parametrize("term", ["1 | Subject", "Days || Subject", "Days | Subject"])
def test_values_of_sigma_lie_as_on_a_chessboard(term):
    """So that fewer of them than of a cubic lattice are as exact, and no rule has two of them."""
    exact = sleep_exact(f" + ({term})")
    steps = lattice.even_steps(exact.frame, 0.6)
    longer = 1 / np.sqrt([3 / 4, 2 / 4, 1 / 4])[exact.frame.heavy - 1]
    np.testing.assert_allclose(steps, [*np.full(exact.frame.heavy, 0.6), 0.6 * longer])
    made = lattice.lattice(exact.frame, steps, cut=24.0)
    finer = lattice.lattice(exact.frame, np.append(steps[:-1], steps[-1] / 3), cut=24.0)
    assert made.log_evidence == pytest.approx(finer.log_evidence, abs=1e-8)
    plain = made.center - made.spread * steps[-1] / 2 * (made.z.sum(axis=1) % 2)
    straight = exact.frame.log_sigma + (made.z * steps[:-1]) @ made.slope
    np.testing.assert_allclose(plain, straight, rtol=1e-14)
    np.testing.assert_array_equal(made.signs[:, -1], np.prod(made.signs[:, :-1], axis=1))


@pytest.mark.parametrize("formula", ["y ~ x + (x | g)", "y ~ x + (x || g)", "y ~ x + (1 | g)"])
@pytest.mark.parametrize("seed", range(3))
def test_error_bounds_that_of_coarser_rules(formula, seed):
    """With few groups, so that the posterior is far from normal."""
    exact = Exact.of(density(formula, slopes_frame(seed, 24), "default"))
    d = exact.target.space.d
    assert exact.error < 2e-6
    for step in (0.8, 1.1, 1.5, 2.0):
        coarse = lattice.lattice(exact.frame, np.full(d, step))
        assert abs(coarse.log_evidence - exact.log_evidence) < 1.5 * coarse.error + 1e-7


def test_error_says_that_a_lattice_was_not_finished(monkeypatch):
    exact = sleep_exact(" + (Days || Subject)")
    monkeypatch.setattr(lattice, "MAX_VALUES", 1300)
    monkeypatch.setattr(lattice, "MIN_RADIUS", 1.5)
    found = lattice.lattice(exact.frame, np.full(3, 0.6))
    missing = abs(found.log_evidence - exact.log_evidence)
    assert found.is_edge.any()
    assert 1e-3 < missing < found.error
    assert not exact.lattice.is_edge.any()


def test_four_sds_beside_a_known_sigma_reach_their_tails():
    """Sds of separate parts of the data: the evidence is that of the parts."""
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"part": np.repeat(range(4), 12), "g": np.tile(list("aabbcc"), 8)})
    data["y"] = rng.normal(size=len(data))
    for i in range(4):
        data["abcd"[i]] = 1.0 * (data["part"] == i)
    priors = {"sigma": Constant(1.0), "sd": HalfNormal(1.0)}
    whole = Exact.of(density("y ~ 0 + (0 + a + b + c + d || g)", data, priors))
    parts = [Exact.of(density("y ~ 0 + (1 | g)", part, priors)) for _, part in data.groupby("part")]
    assert whole.log_evidence == pytest.approx(sum(part.log_evidence for part in parts), abs=1e-6)
    assert whole.error < 1e-6
    assert not whole.lattice.is_edge.any()


def test_a_finer_lattice_that_is_not_finished_is_not_taken(monkeypatch):
    target = density("y ~ x + (x || g)", slopes_frame(0, 24), "default")
    coarse = Exact.of(target, max_error=1.0)
    monkeypatch.setattr(lattice, "MAX_VALUES", coarse.lattice.log_density.size + 1)
    assert Exact.of(target, max_error=0.0).log_evidence == coarse.log_evidence


# ---------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("formula", "c"),
    [("y ~ x + (1 | g)", -1e4), ("y ~ x + (x | g)", -1e4), ("y ~ x + (0 + x | g)", 1e-3)],
)
def test_units_of_the_response_shift_the_evidence(formula, c):
    data = slopes_frame()
    base = Exact.of(density(formula, data, "default"))
    moved = Exact.of(density(formula, data.assign(y=1e3 + c * data["y"]), "default"))
    expected = base.log_evidence - len(data) * np.log(abs(c))
    assert moved.log_evidence == pytest.approx(expected, abs=1e-7)
    q = np.array([0.01, 0.3, 0.5, 0.9, 0.999])
    for place in range(base.target.space.d):
        scale = 1.0 if base.target.space.names[place].startswith("corr") else abs(c)
        own = np.sort(base.curve(place).quantile(q) * scale)
        np.testing.assert_allclose(moved.curve(place).quantile(q), own, rtol=3e-5, atol=1e-7)
    slope = np.sort(c * base.beta_curve(1).quantile(q))
    other = moved.beta_curve(1).quantile(q if c > 0 else np.sort(1 - q))
    np.testing.assert_allclose(other, slope, rtol=1e-4)


@pytest.mark.parametrize(("d", "e"), [(1000.0, 1.0), (-3.0, -1e-3)])
def test_units_and_origin_of_a_predictor_without_zero_do_not_matter(d, e):
    formula, data = "y ~ x + (x | g)", slopes_frame().assign(x=lambda t: t["x"] + 3)
    base = Exact.of(density(formula, data, "default"))
    moved = Exact.of(density(formula, data.assign(x=d + e * data["x"]), "default"))
    assert moved.log_evidence == pytest.approx(base.log_evidence, abs=1e-6)
    q = np.array([0.01, 0.3, 0.5, 0.9, 0.999])
    assert base.target.space.names[2] == "sd_g[x]"
    for place, scale in ((0, 1.0), (2, 1 / abs(e))):
        np.testing.assert_allclose(
            moved.curve(place).quantile(q), base.curve(place).quantile(q) * scale, rtol=1e-4
        )
    mean, cov = base.beta_moments
    own_mean, own_cov = moved.beta_moments
    assert own_mean[1] == pytest.approx(mean[1] / e, rel=1e-5)
    assert own_cov[1, 1] == pytest.approx(cov[1, 1] / e**2, rel=1e-5)
    assert own_mean[0] == pytest.approx(mean[0] - mean[1] * d / e, rel=1e-5)


def test_evidence_does_not_depend_on_the_order_of_rows_and_terms():
    data = slopes_frame().assign(h=np.arange(80) // 16)
    base = Exact.of(density("y ~ x + (1 | g) + (1 | h)", data, "default"))
    turned = data.sample(frac=1, random_state=1)
    other = Exact.of(density("y ~ x + (1 | h) + (1 | g)", turned, "default"))
    assert other.log_evidence == pytest.approx(base.log_evidence, abs=2e-7)


# --------------------------------------------------------------------------------- refusals


def test_too_many_parameters_are_refused():
    data = slopes_frame().assign(h=np.arange(80) // 16)
    target = density("y ~ x + (x | g) + (1 | h)", data, "default")
    with pytest.raises(FitError) as error:
        lattice.check_feasible(target)
    assert str(error.value) == (
        "the posterior has 5 parameters that are not integrated out (`sigma`, "
        "`sd_g[Intercept]`, `sd_g[x]`, `corr_g[Intercept, x]` and `sd_h[Intercept]`); "
        'quadrature takes up to 4: use method="mcmc" or "laplace".'
    )


def test_a_known_sd_without_a_known_sigma_is_refused():
    target = density("y ~ x + (1 | g)", slopes_frame(), {"sd": Constant(1.5)})
    with pytest.raises(FitError) as error:
        lattice.check_feasible(target)
    assert str(error.value) == (
        "`sd_g[Intercept]` known without sigma leaves no ratio to it to integrate over: know "
        'sigma too, or the ratio, Relative(Constant(...)); or use method="mcmc" or "laplace".'
    )
    lattice.check_feasible(
        density("y ~ x + (1 | g)", slopes_frame(), {"sd": Relative(Constant(1.5))})
    )


# ----------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("random", list(SLEEP)[1:])
def test_draws_of_the_values_have_the_posterior_density(random):
    """Against curves, which come from another lattice."""
    exact = sleep_exact(random)
    values = lattice.draw_values(exact.lattice, 4000, np.random.default_rng(1))
    assert values.shape == (4000, len(exact.target.space.names))
    for place in range(exact.target.space.d):
        assert stats.kstest(values[:, place], exact.curve(place).cdf).pvalue > 1e-3


def test_draws_do_not_show_the_cells_of_a_coarse_lattice():
    exact = sleep_exact(" + (1 | Subject)")
    coarse = lattice.lattice(exact.frame, np.full(2, 1.8))
    values = lattice.draw_values(coarse, 8000, np.random.default_rng(1))
    for place in range(2):
        assert stats.kstest(values[:, place], exact.curve(place).cdf).statistic < 0.02


def test_draws_of_given_effects():
    priors = {"Intercept": StudentT(4, 5, 3), "sigma": HalfNormal(3), "sd": HalfNormal(2)}
    exact = Exact.of(density("y ~ x + (1 | g)", slopes_frame(), priors))
    values = lattice.draw_values(exact.lattice, 4000, np.random.default_rng(2))
    assert stats.kstest(values[:, 0], exact.curve(0).cdf).pvalue > 1e-3
    one, two = (lattice.draw_values(exact.lattice, 50, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("random", [" + (1 | Subject)", " + (Days || Subject)"])
def test_nodes_follow_from_what_the_random_effects_leave(random):
    """And the density at the nodes from these, as it was when the lattice was grown."""
    made = sleep_exact(random).lattice
    xi = lattice.places(made.frame, made.steps, made.z)
    again = lattice.nodes_again(made.frame, xi, made.nodes.logdet, made.nodes.products)
    anew = lattice.nodes_at(made.frame, xi)
    for field in fields(again):
        one, other, third = (getattr(of, field.name) for of in (again, made.nodes, anew))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(third, other, rtol=1e-10, atol=1e-10)
    of_file = replace(made, nodes=again)
    np.testing.assert_array_equal(of_file.log_density, made.log_density)
    assert of_file.log_evidence == made.log_evidence
    inner = made.down_to(5.0)
    np.testing.assert_array_equal(inner.log_density, replace(inner).log_density)
