"""Marginal likelihoods: closed forms, known values, brute force, and one way against another."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from density_cases import SLEEP, SLEEP_PRIORS, density, schools, sleep
from lattice_cases import integral, log_axis
from marginal_cases import everything
from scipy import special, stats
from sleepstudy_by_hand import log_evidence as by_hand

import ranef as rf
from ranef.design.design import build_design
from ranef.formula.terms import read_formula
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.numerics.importance_sampling import fitted_split_t, log_mean
from ranef.posterior import generalized_posterior, marginal_likelihood
from ranef.posterior.generalized_posterior import GeneralizedPosterior, joint_of
from ranef.posterior.laplace import approximate, find_mode
from ranef.posterior.marginal_likelihood import BRIDGE, MarginalLikelihood, log_evidence
from ranef.priors.assignment import resolve as resolved
from ranef.priors.distributions import (
    Constant,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    Normal,
    StudentT,
    Uniform,
)


def generator(seed=1):
    return np.random.default_rng(seed)


# ------------------------------------------------------------------------------- by quadrature


@pytest.mark.parametrize("random", SLEEP)
def test_the_sleep_study(random):
    found = log_evidence(sleep(random), rng=generator())
    assert found.value == pytest.approx(SLEEP[random][0], abs=1e-6)
    assert (found.method, found.mcse < 1e-6) == ("quadrature", True)


@pytest.mark.parametrize(
    "random", ["(1 | Subject)", "(0 + Days | Subject)", "(Days || Subject)", "(Days | Subject)"]
)
def test_the_sleep_study_under_the_defaults_by_cubature(random):
    data = rf.load_dataset("sleepstudy")
    found = log_evidence(density(f"Reaction ~ Days + {random}", data, "default"), rng=generator())
    assert found.value == pytest.approx(by_hand(random), abs=1e-6)
    moved = data.assign(Days=1990 + data["Days"])  # where zero is not observed, |, but not ||
    if random == "(Days | Subject)":
        model = density(f"Reaction ~ Days + {random}", moved, "default")
        assert log_evidence(model, rng=generator()).value == pytest.approx(found.value, abs=1e-6)


@pytest.mark.parametrize(
    ("sd", "log_bf01"),
    [
        (HalfCauchy(5), np.log(1.5953756509)),
        (HalfNormal(10), np.log(1.6836527265)),
        (HalfNormal(5), np.log(1.2116720680)),
        (HalfStudentT(3, 10), np.log(1.8740388515)),
    ],
    ids=str,
)
def test_eight_schools(sd, log_bf01):
    full = log_evidence(schools(sd), rng=generator())
    simple = log_evidence(schools(None, "y ~ 1"), rng=generator())
    assert simple.value - full.value == pytest.approx(log_bf01, abs=1e-6)
    if sd == HalfCauchy(5):
        assert full.value == pytest.approx(-31.311347352293, abs=1e-8)


def test_nothing_to_integrate_over():
    """Every variance is known: the density of a multivariate normal distribution."""
    data = rf.load_dataset("Dyestuff")
    priors = {"Intercept": Normal(1500, 100), "sigma": Constant(50), "sd": Constant(40)}
    found = log_evidence(density("Yield ~ 1 + (1 | Batch)", data, priors), rng=generator())
    same = data["Batch"].to_numpy()[:, None] == data["Batch"].to_numpy()
    V = 50.0**2 * np.eye(len(data)) + 40.0**2 * same + 100.0**2
    y = data["Yield"].to_numpy(dtype=float)
    expected = stats.multivariate_normal(np.full(len(y), 1500), V).logpdf(y)
    assert found.value == pytest.approx(expected, rel=1e-12)
    assert found.mcse == 0


def test_draws_are_not_needed_where_quadrature_is_possible():
    target = sleep(" + (1 | Subject)")
    found = log_evidence(target, draws=np.zeros((4, 100, 2)), rng=generator())
    assert found.method == "quadrature"


def test_a_quadrature_that_is_not_accurate_is_second_choice(monkeypatch):
    target = sleep(" + (1 | Subject)")
    rough = MarginalLikelihood(-900.0, 0.5, "quadrature")
    monkeypatch.setattr(marginal_likelihood, "_by_quadrature", lambda _: rough)
    found = log_evidence(target, rng=generator())
    assert found.method == "importance sampling"
    assert abs(found.value - SLEEP[" + (1 | Subject)"][0]) < 4 * found.mcse
    monkeypatch.setattr(marginal_likelihood, "_honest", lambda *_: np.inf)
    monkeypatch.setattr(marginal_likelihood, "MOST", 3000)
    assert log_evidence(target, rng=generator()) == rough


# ------------------------------------------------- closed forms of the likelihood without sigma


@cache
def dyestuff():
    """Return log p(y | sd / sigma) under flat mean and p(sigma^2) = 1 / sigma^2, and the design."""
    design = build_design(read_formula("Yield ~ 1 + (1 | Batch)"), rf.load_dataset("Dyestuff"))
    cross = cross_products(design)

    def log_density(ratio):
        found = blocked_cholesky.factorize(cross, [np.array([[ratio]]) @ cross.bases[0]])
        xx, xy, yy = found.reduced[0, 0], found.reduced[0, 1], found.reduced[1, 1]
        nu = cross.n - 1
        return -(found.logdet + np.log(xx) + nu * np.log(yy - xy**2 / xx)) / 2

    return log_density, design


def shares():
    y = rf.load_dataset("Dyestuff").groupby("Batch", observed=True)["Yield"]
    inner = y.var(ddof=0).sum() * 5
    return 1 - inner / (rf.load_dataset("Dyestuff")["Yield"].var(ddof=0) * 30)


@pytest.mark.parametrize("ratio", [0.1, 0.7, 2.0, 30.0])
def test_balanced_groups_in_closed_form(ratio):
    log_density, _ = dyestuff()
    R, u = shares(), 1 / (1 + 5 * ratio**2)
    expected = 2.5 * np.log(u) - 14.5 * np.log1p(-R + R * u)
    assert log_density(ratio) - log_density(0.0) == pytest.approx(expected, rel=1e-9)


@cache
def ratios():
    """Return nodes of sd / sigma, the logarithms of their weights, and of the Bayes factors."""
    log_density, _ = dyestuff()
    log_ratio, log_weight = log_axis(np.r_[0, np.geomspace(1e-3, 1e6, 60)], 12)
    ratio = np.exp(log_ratio)
    return ratio, log_weight + log_ratio, np.array([log_density(v) for v in ratio]) - log_density(0)


def bayes_factor(log_prior):
    """Return BF10 for a prior of sd / sigma."""
    ratio, log_weight, log_bf = ratios()
    return np.exp(special.logsumexp(log_bf + log_weight + log_prior(ratio)))


def beta_prior(a, b):
    """A beta distribution of u = 1 / (1 + 5 ratio^2)."""

    def log_prior(ratio):
        u = 1 / (1 + 5 * ratio**2)
        return stats.beta(a, b).logpdf(u) + np.log(10 * ratio * u**2)

    return log_prior


def jzs(r):
    return lambda ratio: stats.invgamma(0.5, scale=r**2 / 2).logpdf(ratio**2) + np.log(2 * ratio)


FACTORS = {
    "half-normal(1)": (stats.halfnorm().logpdf, 11.9277, 1e-5),
    "half-Cauchy(1)": (stats.halfcauchy().logpdf, 8.5180, 1e-5),
    "half-normal(10)": (stats.halfnorm(scale=10).logpdf, 2.1857, 3e-5),
    "half-normal(100)": (stats.halfnorm(scale=100).logpdf, 0.22073, 3e-5),
    "beta(1, 1)": (beta_prior(1, 1), 10.104230544586, 1e-8),
    "beta(2, 3)": (beta_prior(2, 3), 14.267626873606, 1e-8),
    "beta(.5, 11.5)": (beta_prior(0.5, 11.5), 4.425048625386, 1e-8),
    "JZS 1": (jzs(1.0), 10.63864590496, 1e-8),
    "JZS .5": (jzs(0.5), 10.99161153379, 1e-8),
    "JZS sqrt .5": (jzs(np.sqrt(0.5)), 11.58878115613, 1e-8),
}


@pytest.mark.parametrize("name", FACTORS)
def test_bayes_factors_of_batches(name):
    log_prior, printed, accuracy = FACTORS[name]
    assert bayes_factor(log_prior) == pytest.approx(printed, rel=accuracy)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 3.0), (1.5, 4.0)])
def test_beta_priors_in_closed_form(a, b):
    R, more = shares(), a + 2.5
    expected = (1 - R) ** -14.5 * special.beta(more, b) / special.beta(a, b)
    expected *= special.hyp2f1(14.5, more, more + b, -R / (1 - R))
    assert bayes_factor(beta_prior(a, b)) == pytest.approx(expected, rel=1e-8)


def test_the_elementary_case():
    R, a, b = shares(), 0.5, 11.5
    expected = special.beta(a + 2.5, b) / special.beta(a, b) * (1 - R) ** (a + 2.5 - 14.5)
    assert expected == pytest.approx(4.425048625386, rel=1e-10)
    assert bayes_factor(beta_prior(a, b)) == pytest.approx(expected, rel=1e-8)


# ------------------------------------------------------------------------ by importance sampling

UNIFORM = SLEEP_PRIORS | {"sd": Uniform(0, 80)}


@cache
def uniform():
    del_corr = {k: v for k, v in UNIFORM.items() if k != "corr"}
    return density("Reaction ~ Days + (1 | Subject)", rf.load_dataset("sleepstudy"), del_corr)


def test_a_uniform_prior_against_gauss_legendre_panels():
    ends = np.linspace(0, 80, 9)
    value, weight = log_axis(ends, 12)
    sd, weight = np.exp(value), np.exp(weight) * np.exp(value)  # of the sd itself
    x = special.logit(sd / 80)
    slope = sd * (1 - sd / 80)
    expected = integral(
        uniform(), [log_axis(np.linspace(20, 48, 6), 12), (x, np.log(weight / slope))]
    )
    found = log_evidence(uniform(), rng=generator())
    assert found.method == "importance sampling"
    assert abs(found.value - expected) < 4 * found.mcse
    assert found.mcse <= 0.01
    x = approximate(uniform(), draws=4000, rng=generator(2)).x.reshape(4, 1000, 2)
    bridged = log_evidence(uniform(), draws=x, rng=generator(3))
    assert bridged.method == BRIDGE
    assert abs(bridged.value - expected) < 4 * bridged.mcse


@pytest.mark.parametrize("random", list(SLEEP)[1:])
def test_importance_sampling_is_as_accurate_as_it_says(random):
    """Forced to go on beyond the first sample, where proposals are fitted."""
    target, z = sleep(random), []
    for seed in range(60):
        x = first_draws(random)
        proposals = fitted_split_t(x, np.atleast_2d(np.cov(x.T)), marginal_likelihood.NU)
        points, logq = proposals.draw(1000, generator(seed))
        ratios = target.log_density(points) - logq
        weights = np.exp(ratios - special.logsumexp(ratios))
        value = special.logsumexp(ratios) - np.log(1000)
        z.append((value - SLEEP[random][0]) / log_mean(ratios, weights).mcse)
    assert 0.6 < np.mean(np.square(z)) < 1.6


@cache
def first_draws(random):
    return approximate(sleep(random), draws=1000, rng=generator(11)).x


def test_seven_coordinates_by_two_ways():
    target = everything("y ~ x + (1 + x + z | c)", 3)[2]
    found = log_evidence(target, rng=generator(1))
    assert found.method == "importance sampling"
    assert found.mcse <= 0.01
    again = log_evidence(target, rng=generator(2))
    assert abs(found.value - again.value) < 4 * np.hypot(found.mcse, again.mcse)
    x = chain(target, generator(3))
    bridged = log_evidence(target, draws=x, rng=generator(4))
    assert bridged.method == BRIDGE
    assert abs(bridged.value - found.value) < 4 * np.hypot(bridged.mcse, found.mcse)


def chain(target, rng, walkers=200, steps=400):
    """Return draws by random-walk Metropolis steps of many chains at once."""
    mode = find_mode(target)
    x = mode.x + rng.standard_normal((walkers, len(mode.x))) @ mode.root.T
    logp, found = target.log_density(x), []
    for step in range(steps + 300):
        new = x + 0.7 * rng.standard_normal(x.shape) @ mode.root.T
        own = target.log_density(new)
        accepted = np.log(rng.uniform(size=walkers)) < own - logp
        x, logp = np.where(accepted[:, None], new, x), np.where(accepted, own, logp)
        if step >= 300:
            found.append(x)
    return np.stack(found, axis=1)[:20]


def test_effects_with_priors_of_their_own_against_normal_ones():
    """A t prior with many degrees of freedom is a normal one, but is not integrated out."""
    data = rf.load_dataset("sleepstudy")
    own = {k: v for k, v in SLEEP_PRIORS.items() if k != "corr"}
    given = own | {"Days": StudentT(1e7, 0, 20), "Intercept": StudentT(1e7, 250, 100)}
    target = density("Reaction ~ Days + (Days || Subject)", data, given)
    found = log_evidence(target, rng=generator(1))
    assert target.space.d == 5
    assert abs(found.value - SLEEP[" + (Days || Subject)"][0]) < 4 * found.mcse


@pytest.mark.parametrize(
    ("khat", "size", "is_sure"),
    [(0.5, 2000, True), (0.69, 2000, True), (0.71, 2000, False), (0.6, 100, False), (-1, 9, True)],
)
def test_errors_of_heavy_tails_are_not_told(khat, size, is_sure):
    assert marginal_likelihood._honest(0.02, khat, size) == (0.02 if is_sure else np.inf)


# ------------------------------------------------------------------------------ other responses


@cache
def herds(n_agq):
    data = rf.load_dataset("cbpp")
    model = rf.Model("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", data, family="binomial")
    priors = {"Intercept": Normal(-1, 1.5), "sd": HalfNormal(1)}
    return joint_of(model.design, model.family, resolved(model.design, priors, model.family), n_agq)


def brute_force(data):
    """Return log p(y): the trapezoid rule over effects of herds, intercept and sd."""
    effect, mean = np.linspace(-7, 7, 141), np.linspace(-5.0, 2.0, 71)
    log_sd, weight = log_axis([0, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 6], 7)
    sd = np.exp(log_sd)
    logs = np.zeros((len(sd), len(mean)))
    normal = stats.norm.logpdf(effect) + np.log(effect[1] - effect[0])
    eta = mean[:, None] + sd[:, None, None] * effect
    for _, rows in data.groupby("herd", observed=True):
        y, n = rows["incidence"].to_numpy(), rows["size"].to_numpy()
        own = np.log(special.binom(n, y)).sum() + y.sum() * eta - n.sum() * np.logaddexp(0, eta)
        logs += special.logsumexp(own + normal, axis=2)
    logs += stats.norm(-1, 1.5).logpdf(mean) + np.log(mean[1] - mean[0])
    logs += (stats.halfnorm.logpdf(sd) + weight + log_sd)[:, None]
    return special.logsumexp(logs)


def test_binomial_responses_by_brute_force():
    expected = brute_force(rf.load_dataset("cbpp"))
    found = log_evidence(herds(11), rng=generator(1))
    assert found.method == "importance sampling, random effects by 11-point quadrature, corrected"
    assert abs(found.value - expected) < 4 * found.mcse
    assert found.mcse <= 0.01
    x = approximate(herds(11), draws=1000, rng=generator(2)).x.reshape(4, 250, 2)
    bridged = log_evidence(herds(11), draws=x, rng=generator(3))
    assert bridged.method == BRIDGE + ", random effects by 11-point quadrature, corrected"
    assert abs(bridged.value - expected) < 4 * bridged.mcse


def test_counts_with_everything_known():
    """A generalised model without a coordinate, of two groups of one row each."""
    data = pd.DataFrame({"y": [2, 5], "g": ["a", "b"]})
    model = rf.Model("y ~ 1 + (1 | g)", data, family="poisson")
    priors = {"Intercept": Constant(1.0), "sd": Constant(0.7)}
    target = joint_of(model.design, model.family, resolved(model.design, priors, model.family), 25)
    b = np.linspace(-6, 6, 2001)
    expected = sum(
        np.log(np.sum(stats.poisson.pmf(y, np.exp(1 + b)) * stats.norm(0, 0.7).pdf(b)) * 0.006)
        for y in data["y"]
    )
    found = log_evidence(target, draws=np.zeros((2, 50, 0)), rng=generator())
    assert found.value == pytest.approx(expected, abs=1e-7)
    assert found.mcse == 0


# ----------------------------------------------------- of what the random effects are integrated by


@cache
def binary():
    """Return models, and their marginal likelihoods by many nodes."""
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(30), 3), rng.normal(size=90)
    eta = 0.3 * x + 1.5 * rng.normal(size=30)[g]
    data = pd.DataFrame({"x": x, "g": g, "y": (rng.uniform(size=90) < 1 / (1 + np.exp(-eta)))})
    cbpp = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    models = [
        rf.Model("y ~ x + (1 | g)", data.astype({"y": int}), family="bernoulli"),
        rf.Model(cbpp, rf.load_dataset("cbpp"), family="binomial"),
    ]
    nodes = [replace(model.engine.density, n_agq=9) for model in models]
    return [*zip(models, (log_evidence(target, rng=generator()) for target in nodes), strict=True)]


@pytest.mark.parametrize("by_draws", [False, True], ids=["by nodes", "by draws of the effects"])
def test_what_the_approximation_lacks_is_made_up_for(by_draws, monkeypatch):
    if by_draws:
        monkeypatch.setattr(generalized_posterior, "REFERENCE_POINTS", {})
    for model, exact in binary():
        corrected = model.fit("laplace", draws=4000, seed=1).log_marginal_likelihood()
        assert abs(exact.value - corrected.value) < 2.5 * np.hypot(corrected.error, exact.mcse)
        assert corrected.error == pytest.approx(np.hypot(corrected.mcse, corrected.bias))
        assert corrected.method.endswith("Laplace's approximation, corrected")
        assert f"error {corrected.error:.1g} (" in str(corrected)
        assert exact.bias < 1e-3
        with monkeypatch.context() as changed:
            changed.setattr(GeneralizedPosterior, "correction", lambda *_: (0.0, 0.0))
            rough = model.fit("laplace", draws=4000, seed=1).log_marginal_likelihood()
        off = abs(exact.value - rough.value)
        assert off > max(2.5 * rough.error, 2.5 * abs(exact.value - corrected.value))


def test_it_prints_in_one_line():
    found = MarginalLikelihood(-889.6568, 3e-8, "quadrature")
    assert repr(found) == "log marginal likelihood -889.6568, error 3e-08 (quadrature)"
    assert "-889.6568" in found._repr_html_()
