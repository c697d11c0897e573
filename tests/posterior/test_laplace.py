"""The Laplace approximation and its importance weights: closed forms, known tails, quadrature."""

from __future__ import annotations

from types import SimpleNamespace

import large_counts
import numpy as np
import pytest
from density_cases import SCHOOLS, SLEEP, density, schools, sleep
from designs import STRUCTURES
from marginal_cases import everything
from scipy import special, stats

import ranef as rf
from ranef.posterior import laplace
from ranef.posterior.laplace import Mode, approximate, find_mode
from ranef.priors.distributions import (
    Constant,
    HalfNormal,
    Normal,
    StudentT,
)


def generator(seed=1):
    return np.random.default_rng(seed)


# --------------------------------------------------------------------------------- the mode


@pytest.mark.parametrize("random", SLEEP)
def test_laplace_evidences_of_the_sleep_study(random):
    assert find_mode(sleep(random)).log_evidence == pytest.approx(SLEEP[random][1], abs=1e-4)


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_mode_is_a_maximum_on_every_structure(name):
    _, _, target = everything(STRUCTURES[name], 3, n=120)
    mode = find_mode(target)
    assert mode.convergence.ok
    assert mode.logp == pytest.approx(target(mode.x)[0], rel=1e-12)
    steps = 0.3 * generator().normal(size=(40, len(mode.x))) @ mode.root.T
    assert (target.log_density(mode.x + steps) <= mode.logp + 1e-9).all()


@pytest.mark.parametrize("random", list(SLEEP)[1:])
def test_root_is_that_of_the_curvature_at_the_mode(random):
    """In the coordinates that it whitens, second differences of the density are -1 and 0."""
    target = sleep(random)
    mode, h = find_mode(target), 1e-3
    d = len(mode.x)

    def at(z):
        return target.log_density((mode.x + np.asarray(z) @ mode.root.T)[None])[0]

    unit = h * np.eye(d)
    found = [
        [(at(a + b) - at(a - b) - at(b - a) + at(-a - b)) / (4 * h * h) for b in unit] for a in unit
    ]
    np.testing.assert_allclose(found, -np.eye(d), atol=2e-3)
    assert (np.triu(mode.root, 1) == 0).all()


@pytest.mark.parametrize("name", STRUCTURES)
def test_start_is_a_usual_point(name):
    _, _, target = everything(STRUCTURES[name], 3, n=120)
    x = target.start()
    assert x.shape == (target.space.d,)
    assert np.isfinite(target(x)[0])


@pytest.mark.parametrize(
    ("name", "formula", "scale"),
    [
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)", 1e-22),
        ("sleepstudy", "Reaction ~ Days + (Days | Subject)", 1e25),
        ("Pastes", "strength ~ 1 + (1 | sample)", 1e-36),
    ],
)
@pytest.mark.filterwarnings("error")
def test_the_search_is_the_same_in_any_unit_of_the_response(name, formula, scale):
    data = rf.load_dataset(name)
    y = formula.split()[0]
    target, other = (rf.Model(formula, data.assign(**{y: data[y] * c})).engine.density
                     for c in (1.0, scale))  # fmt: skip
    mode, moved = find_mode(target), find_mode(other)
    assert moved.convergence.ok
    assert abs(moved.evaluations - mode.evaluations) < 10
    is_scale = [not name.startswith("corr") for name in target.space.free_names]
    np.testing.assert_allclose(moved.x - mode.x, np.log(scale) * np.array(is_scale), atol=1e-5)


def test_start_keeps_what_is_known():
    target = schools(Constant(3.0))
    assert target.start().shape == (0,)
    target = density("y ~ 1 + (1 | school)", SCHOOLS, {"sd": Constant(3.0)}, weights="w")
    values, _ = target.space.values(target.start())
    assert values[1] == 3.0


# ------------------------------------------------------------------------------- closed forms


def normal_target():
    """Known variances, and an intercept with a t prior that cannot be told from a normal one."""
    priors = {"Intercept": StudentT(1e9, 2, 5), "sigma": Constant(1), "sd": Constant(6)}
    return density("y ~ 1 + (1 | school)", SCHOOLS, priors, weights="w")


def normal_answer():
    """Return posterior mean and sd of the intercept, and log p(y)."""
    y, variance = SCHOOLS["y"].to_numpy(), 1 / SCHOOLS["w"].to_numpy() + 36
    precision = 1 / 25 + (1 / variance).sum()
    cov = np.diag(variance) + 25.0
    evidence = stats.multivariate_normal(np.full(8, 2.0), cov).logpdf(y)
    return (2 / 25 + (y / variance).sum()) / precision, precision**-0.5, evidence


def test_a_normal_posterior_is_found_exactly():
    mean, sd, evidence = normal_answer()
    mode = find_mode(normal_target())
    assert mode.x[0] == pytest.approx(mean, abs=1e-6)
    assert mode.root[0, 0] == pytest.approx(sd, rel=1e-6)
    assert mode.log_evidence == pytest.approx(evidence, abs=1e-6)


def test_normal_proposals_for_a_normal_posterior_have_equal_weights(monkeypatch):
    """With many degrees of freedom nothing is left for the weights to correct."""
    monkeypatch.setattr(laplace, "NU", 1e9)
    found = approximate(normal_target(), draws=500, rng=generator())
    assert found.log_evidence == pytest.approx(normal_answer()[2], abs=1e-5)
    assert found.ess == pytest.approx(1000, rel=1e-6)
    assert found.mcse < 1e-4


def test_draws_from_a_normal_posterior():
    mean, sd, evidence = normal_answer()
    found = approximate(normal_target(), draws=4000, rng=generator())
    assert found.log_evidence == pytest.approx(evidence, abs=4 * found.mcse)
    assert found.khat < 0.3
    z = (found.x[:, 0] - mean) / sd
    assert abs(z.mean()) < 4 / np.sqrt(found.ess)
    assert abs((z**2).mean() - 1) < 4 * np.sqrt(2 / found.ess)


def test_a_density_that_ends_beside_its_mode_has_no_normal_approximation():
    """Counts of zero and of 10^20 in one model."""
    rng = np.random.default_rng(1)
    x, g = rng.normal(2, 1, 20), np.repeat(np.arange(4), 5)
    y = np.floor(np.exp(1 + x * np.linspace(-14, 14, 4)[g]))
    model = rf.Model("y ~ x + (x | g)", {"y": y, "x": x, "g": g}, family="poisson")
    with pytest.raises(rf.FitError, match="has no normal approximation: look for responses"):
        model.fit("laplace", seed=1)


def test_a_mode_without_curvature_has_no_normal_approximation(monkeypatch):
    monkeypatch.setattr(laplace, "standardised_hessian", lambda *_: np.full((1, 1), np.nan))
    with pytest.raises(rf.FitError, match="has no normal approximation"):
        find_mode(normal_target())


def test_without_coordinates_there_is_nothing_to_approximate():
    found = approximate(schools(Constant(3.0)), draws=7, rng=generator())
    y, cov = SCHOOLS["y"], np.diag(1 / SCHOOLS["w"] + 9) + 25.0
    expected = stats.multivariate_normal(np.zeros(8), cov).logpdf(y)
    assert found.x.shape == (7, 0)
    assert (found.log_evidence, found.mcse) == (pytest.approx(expected, rel=1e-12), 0.0)


# ------------------------------------------------------------------------------- the proposals


@pytest.mark.parametrize("widths", [(1.0, 1.0), (2.0, 0.8)])
def test_proposals_have_the_density_that_is_claimed(widths):
    """E_q f / q is the integral of f, and the sides are as wide as the target falls off."""

    def two_sided(x):
        scale = np.where(x > 0, widths[0], widths[1])
        return -((x / scale) ** 2).sum(axis=1) / 2

    target = SimpleNamespace(log_density=two_sided)
    mode = Mode(np.zeros(2), 0.0, np.eye(2), None, 0)
    z, logq = laplace._proposals(target, mode).draw(40_000, generator())
    for f in (stats.norm(0.3, 0.6), stats.logistic(-0.2, 0.5)):
        ratios = np.exp(f.logpdf(z).sum(axis=1) - logq)
        assert abs(ratios.mean() - 1) < 4.5 * ratios.std() / np.sqrt(len(z))
    # a Student t distribution on either side, taken as often as it is wide
    right = z[:, 0] > 0
    assert right.mean() == pytest.approx(widths[0] / sum(widths), abs=0.012)
    folded = stats.t(laplace.NU, 0, widths[0])
    assert stats.kstest(z[right, 0], lambda x: 2 * folded.cdf(x) - 1).pvalue > 1e-3


# ----------------------------------------------------------------------------- whole posteriors


@pytest.mark.parametrize("random", SLEEP)
def test_evidence_is_within_its_error(random):
    found = approximate(sleep(random), draws=4000, rng=generator())
    assert found.mcse < 0.02
    assert abs(found.log_evidence - SLEEP[random][0]) < 4 * found.mcse
    assert found.khat < 0.7
    assert found.ess > 2000


def test_evidence_of_the_eight_schools_is_within_its_error():
    found = approximate(schools(), draws=4000, rng=generator())
    assert abs(found.log_evidence + 31.311347352293) < 4 * found.mcse
    tau = np.exp(found.x[:, 0])
    assert abs(tau.mean() - 3.5977054841) < 4 * tau.std() / np.sqrt(found.ess)


def test_the_error_of_the_evidence_is_what_it_says():
    target, exact = sleep(" + (1 | Subject)"), SLEEP[" + (1 | Subject)"][0]
    found = [approximate(target, draws=500, rng=generator(seed)) for seed in range(60)]
    z = np.array([(one.log_evidence - exact) / one.mcse for one in found])
    assert 0.6 < np.mean(z**2) < 1.6
    assert abs(z.mean()) < 0.5


@pytest.mark.parametrize("random", [" + (1 | Subject)", " + (Days | Subject)"])
def test_the_same_seed_gives_the_same_draws(random):
    one, two, other = (
        approximate(sleep(random), draws=300, rng=generator(seed)) for seed in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.x, two.x)
    assert (one.log_evidence, one.khat) == (two.log_evidence, two.khat)
    assert one.log_evidence != other.log_evidence


def test_copies_of_a_draw_are_not_side_by_side(monkeypatch):
    """As systematic resampling leaves them: they would look like a chain that stands still."""
    monkeypatch.setattr(
        laplace, "systematic", lambda _, draws, __: np.repeat(np.arange(draws // 2), 2)
    )
    x = approximate(sleep(" + (1 | Subject)"), draws=2000, rng=generator()).x[:, 0]
    assert len(np.unique(x)) == 1000
    assert (x[1:] == x[:-1]).mean() < 0.01


def test_as_many_effects_as_rows():
    data = SCHOOLS.iloc[:2].assign(x=[0.0, 1.0])
    priors = {"Intercept": Normal(0, 20), "x": Normal(0, 20), "sigma": HalfNormal(20)}
    target = density("y ~ x + (1 | school)", data, priors | {"sd": HalfNormal(10)})
    assert target.cross.n == target.cross.p
    found = approximate(target, draws=2000, rng=generator())
    nodes, weights = np.polynomial.legendre.leggauss(60)
    sigma, sd = 60 * (nodes + 1), 30 * (nodes + 1)
    V = (sigma[:, None] ** 2 + sd**2)[..., None, None] * np.eye(2)
    X = np.array([[1.0, 0.0], [1.0, 1.0]])
    V = V + 400 * X @ X.T
    y = data["y"].to_numpy()
    inner = np.einsum("i,abij,j->ab", y, np.linalg.inv(V), y)
    logs = -inner / 2 - np.linalg.slogdet(V)[1] / 2 - np.log(2 * np.pi)
    logs += stats.halfnorm(0, 20).logpdf(sigma)[:, None] + stats.halfnorm(0, 10).logpdf(sd)
    expected = np.log((60 * weights) @ np.exp(logs) @ (30 * weights))
    assert abs(found.log_evidence - expected) < 4 * found.mcse


@pytest.mark.parametrize("draws", [1, 3, 10])
def test_a_few_draws_can_be_had(draws):
    """Although the tail of so few ratios could not be smoothed."""
    found = approximate(sleep(""), draws=draws, rng=generator())
    assert found.x.shape == (draws, 1)
    assert abs(found.log_evidence - SLEEP[""][0]) < 4 * found.mcse


def test_evidence_is_the_mean_of_the_ratios():
    """The smoothed weights are for the draws; the evidence is unbiased without them."""
    target = sleep("")
    rng = generator(9)
    mode = find_mode(target)
    x, logq = laplace._proposals(target, mode).draw(600, rng)
    ratios = target.log_density(x) - logq
    found = approximate(target, draws=300, rng=generator(9))
    assert found.log_evidence == pytest.approx(special.logsumexp(ratios) - np.log(600), rel=1e-12)


def test_a_posterior_with_a_mode_at_a_vanishing_sd_is_reported_honestly():
    """Dyestuff2: the log of the sd has a long exponential tail, which the weights make good."""
    target = density(
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff2"),
        {"Intercept": Normal(5, 5), "sigma": HalfNormal(10), "sd": HalfNormal(10)},
    )
    found = approximate(target, draws=4000, rng=generator())
    other = approximate(target, draws=4000, rng=generator(2))
    difference = found.log_evidence - other.log_evidence
    assert abs(difference) < 4 * np.hypot(found.mcse, other.mcse)
    assert found.khat < 0.7


def test_the_curvature_at_the_mode_of_large_counts():
    """Its standard deviations are about those of smaller counts, rows having an effect each."""
    sds = []
    for size in (1e4, 1e8):
        data = large_counts.frame(size)
        model = rf.Model("y ~ x + (1 | g) + (1 | row)", data, family="poisson")
        mode = find_mode(model.engine.density)
        assert mode.convergence.ok
        sds.append(np.sqrt((mode.root**2).sum(1)))
    np.testing.assert_allclose(*sds, rtol=0.01)
