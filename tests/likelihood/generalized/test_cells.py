"""A likelihood that reads equal rows as one is that of the rows, to rounding."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.design.design import build_design
from ranef.families.names import find_family
from ranef.formula.terms import read_formula
from ranef.likelihood.generalized import cells
from ranef.likelihood.generalized.cells import cells_of
from ranef.likelihood.generalized.glmm import prepare, users_likelihood
from ranef.posterior.sampling.pymc_hierarchical import choose

CASES = {
    "bernoulli": ("one", "bernoulli", None),
    "probit": ("one", ("bernoulli", "probit"), None),
    "weighted": ("one", ("bernoulli", "cloglog"), "w"),
    "cauchit": ("one", ("binomial", "cauchit"), None),
    "trials": ("cbind(won, size - won)", "binomial", None),
    "poisson": ("count", "poisson", None),
    "weighted counts": ("count", "poisson", "w"),
    "root": ("count", ("poisson", "sqrt"), None),
    "identity": ("count", ("poisson", "identity"), None),
}
RIGHT = "a + b + offset(e) + (1 + a | g)"


def frame(n: int = 600, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"a": rng.integers(0, 3, n), "b": rng.integers(0, 2, n)})
    data["g"], data["e"] = rng.integers(0, 12, n), 0.1 * rng.integers(0, 2, n)
    eta = 0.4 + 0.2 * data["a"] + 0.3 * data["b"] + 0.3 * rng.normal(size=12)[data["g"]]
    data["count"], data["size"] = rng.poisson(3 * np.exp(eta)), rng.integers(1, 9, n)
    p = 1 / (1 + np.exp(-eta))
    data["one"], data["won"] = rng.binomial(1, p), rng.binomial(data["size"], p)
    data["w"] = rng.choice([0.5, 1.0, 2.5], n)
    return data


def design_and_family(name: str):
    response, family, weights = CASES[name]
    known = find_family(*family) if isinstance(family, tuple) else find_family(family)
    formula = read_formula(f"{response} ~ {RIGHT}")
    return build_design(formula, frame(), family=known, weights=weights), known


@pytest.mark.parametrize("n_agq", [1, 5])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_rows(name: str, n_agq: int) -> None:
    design, family = design_and_family(name)
    few, rows = prepare(design, family), prepare(design, family, together=False)
    assert len(few.X) < len(rows.X) / 2
    at = np.array([0.3, 0.1, 0.2]), np.array([0.9, 0.15, 0.1]), np.empty(0)
    one, other = (users_likelihood(model, *at, n_agq) for model in (few, rows))
    assert one.value == pytest.approx(other.value, rel=1e-13)
    np.testing.assert_allclose(one.theta, other.theta, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(one.beta, other.beta, rtol=1e-9, atol=1e-9)


def test_without_random_effects_it_is_the_sum_of_the_densities_of_scipy() -> None:
    data = frame()

    def value(response, name):
        family = find_family(name)
        design = build_design(read_formula(f"{response} ~ a"), data, family=family)
        at = np.empty(0), np.array([0.7, 0.2]), np.empty(0)
        return users_likelihood(prepare(design, family), *at, 1).value

    mean = np.exp(0.7 + 0.2 * data["a"])
    expected = stats.poisson.logpmf(data["count"], mean).sum()
    assert value("count", "poisson") == pytest.approx(expected, rel=1e-13)
    chance = 1 / (1 + np.exp(-0.7 - 0.2 * data["a"]))
    expected = stats.binom.logpmf(data["won"], data["size"], chance).sum()
    assert value("cbind(won, size - won)", "binomial") == pytest.approx(expected, rel=1e-13)


def test_a_cell_has_the_sum_of_the_weights_and_the_mean_of_the_responses() -> None:
    data = frame()
    design, family = design_and_family("weighted counts")
    found = cells_of(design.rows, family)
    groups = data.assign(wy=data["w"] * data["count"]).groupby(["a", "b", "g", "e"], sort=False)
    sums = groups[["w", "wy"]].sum()
    np.testing.assert_allclose(found.rows.weights, sums["w"], rtol=1e-14)
    np.testing.assert_allclose(found.rows.y, sums["wy"] / sums["w"], rtol=1e-14)
    np.testing.assert_array_equal(found.codes, groups.ngroup())


@pytest.mark.parametrize("response", ["one", "count"])
def test_other_responses_are_read_as_the_own_ones(response: str) -> None:
    name = {"one": "cauchit", "count": "root"}[response]
    design, family = design_and_family(name)
    found = cells_of(design.rows, family)
    y = np.stack([design.rows.y, design.rows.y[::-1]])
    means, constants = found.responses(y)
    own, constant = found.responses(y[1])
    assert constants is not None
    np.testing.assert_allclose(means[1], own, rtol=1e-15)
    np.testing.assert_allclose(constants[1], constant, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(constants[0], found.constant, rtol=1e-13, atol=1e-13)


def test_rows_stay_apart_where_the_mean_does_not_suffice_or_little_is_saved() -> None:
    data = frame()
    formula = read_formula("count ~ a + (1 | g)")
    negative = find_family("negative_binomial")
    assert cells_of(build_design(formula, data, family=negative).rows, negative).codes is None
    poisson = find_family("poisson")
    data["x"] = np.arange(len(data)) // 1.5
    formula = read_formula("count ~ x + (1 | g)")
    assert cells_of(build_design(formula, data, family=poisson).rows, poisson).codes is None
    few = build_design(read_formula("count ~ a + (1 | g)"), data.head(100), family=poisson)
    assert cells_of(few.rows, poisson).codes is None


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch):
    """Return what makes a number from a fit, with rows taken together and one by one."""

    def numbers(fitted, ask):
        with monkeypatch.context() as patch:
            together = ask(fitted())
            patch.setattr(cells, "FEWEST", np.inf)
            return together, ask(fitted())

    return numbers


@pytest.mark.parametrize("name", ["weighted", "trials", "identity"])
def test_fits_say_the_same_of_parameters_and_of_rows(name: str, both) -> None:
    response, family, weights = CASES[name]
    link = family[1] if isinstance(family, tuple) else None
    known = find_family(*family) if link else find_family(family)

    def fitted():
        return rf.fit(f"{response} ~ a + b + (1 | g)", frame(), family=known, weights=weights)

    def ask(fit):
        return [
            *(fit.loglik, fit.aic, fit.bic, *fit.theta, *fit.fixef(), *fit.se()),
            *(*fit.fitted()[:20], *fit.residuals()[:20], *fit.leverage()[:20]),
            *fit.estimate.working_weights[:20],
            *fit.ranef()["g"].to_numpy().ravel(),
        ]

    one, other = both(fitted, ask)
    np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_bootstraps_posteriors_and_rows_left_out_are_the_same(both) -> None:
    data = frame()

    def model():
        return rf.Model("one ~ a + b + (1 | g)", data, family="bernoulli")

    def bootstrap(model):
        return model.fit().bootstrap(6, seed=1).estimates.to_numpy()

    np.testing.assert_allclose(*both(model, bootstrap), rtol=1e-5, atol=1e-6)

    def posterior(model):
        fit = model.fit("laplace", draws=200, seed=1)
        scores = [fit.loo("group", seed=1), fit.loo("observation", seed=1)]
        points = [score.elpd_i.to_numpy() for score in scores]
        return np.concatenate([[fit.log_marginal_likelihood(seed=1).value], *points])

    np.testing.assert_allclose(*both(model, posterior), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::ranef.errors.ConvergenceWarning")
def test_levels_of_another_factor_that_divide_a_cell_are_left_out_by_rows(both) -> None:
    data = frame()
    other = np.where(np.arange(len(data)) % 40, 0, 1)

    def ask(model):
        return (
            model.fit("laplace", draws=100, seed=1)
            .loo("group", group=other, seed=1)
            .elpd_i.to_numpy()
        )

    def model():
        return rf.Model("one ~ a + (1 | g)", data, family="bernoulli")

    np.testing.assert_allclose(*both(model, ask), rtol=1e-6)


def test_whether_terms_are_centred_for_nuts_is_seen_from_all_rows(both) -> None:
    data = frame()

    def model():
        return rf.Model("count ~ a + (1 | g)", data, family="poisson")

    def ask(model):
        return choose(model.design, model.family)

    one, other = both(model, ask)
    assert one == other


def test_groups_are_within_cells_or_not() -> None:
    design, family = design_and_family("poisson")
    found = cells_of(design.rows, family)
    assert found.are_within(design.rows.terms[0].codes)
    assert not found.are_within(np.arange(len(design.rows.y)))
    assert not found.are_within(None)
    assert replace(found, codes=None).are_within(None)
