"""Whatever takes a seed takes a Generator of NumPy: it draws one number of it, and keeps that."""

from __future__ import annotations

import inspect
from functools import cache

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.arguments import Sampling, check_seed

FORMULA = "Yield ~ 1 + (1 | Batch)"
DATA = rf.load_dataset("Dyestuff")
STRANGER = {"Batch": ["Z"]}


def with_seed():
    """Return the names of the public functions and methods that have a seed, where they stand."""
    public = [getattr(rf, name) for name in rf.__all__]
    found = [value for value in public if inspect.isfunction(value)]
    for value in filter(inspect.isclass, public):
        methods = inspect.getmembers(value, inspect.isfunction)
        found += [method for name, method in methods if name[0] != "_"]
    return {f.__qualname__ for f in found if "seed" in inspect.signature(f).parameters}


@cache
def model():
    return rf.Model(FORMULA, DATA)


@cache
def reml():
    return model().fit()


@cache
def post():
    return model().fit("laplace", draws=5000, seed=1)


@cache
def alike(method):
    return rf.fit("Yield ~ 1", DATA, method)


def drawn(axes):
    """Return where the marks of a picture are."""
    return [line.get_xydata() for line in axes.lines] + [
        np.asarray(marks.get_offsets()) for marks in axes.collections
    ]


def fitted(method, seed):
    fit = model().fit(method, draws=500, seed=seed)
    assert fit.options["seed"] == fit.seed == fit.posterior["posterior"].attrs["seed"]
    assert fit.refit(fit.design.rows.y).seed == fit.seed
    return [fit.seed, fit.posterior["posterior"]["sigma"]]


def bootstrap(seed):
    found = reml().bootstrap(5, seed=seed)
    return [found.seed, found.estimates]


def power(seed):
    found = rf.power(reml(), "sd_Batch[Intercept]", groups=[4], n=20, seed=seed)
    return [found.seed, found.to_frame()[["power"]]]


CALLS = {
    "Anew.simulate": lambda seed: reml().simulate(2, seed),
    "Checks.influence": lambda seed: post().influence(levels=["A"], seed=seed)[["elpd", "p"]],
    "Checks.plot_ppc": lambda seed: drawn(reml().plot_ppc(n=20, seed=seed)),
    "Residuals.plot_residuals": lambda seed: drawn(
        reml().plot_residuals(residuals="quantile", seed=seed)
    ),
    "Checks.ppc_table": lambda seed: reml().ppc_table(n=20, seed=seed),
    "Residuals.residual_table": lambda seed: reml().residual_table("qq", n=40, seed=seed),
    "Checks.residuals": lambda seed: reml().residuals("quantile", n=30, seed=seed),
    "Fit.coef_table": lambda seed: reml().coef_table(uncertainty="all", n=5, seed=seed)[["sd"]],
    "Fit.draws_of": lambda seed: reml().draws_of(STRANGER, "new", n=4, seed=seed),
    "Fit.predict": lambda seed: reml().predict(STRANGER, "new", draws=True, n=4, seed=seed),
    "Model.prior_predictive": lambda seed: model().prior_predictive(3, seed)["prior"]["sigma"],
    "PointFit.bootstrap": bootstrap,
    "PointFit.ranef_table": lambda seed: reml().ranef_table(uncertainty="all", n=5, seed=seed)[
        ["sd"]
    ],
    "PosteriorFit.add_groups": lambda seed: post().add_groups("prior", seed=seed)["prior"]["sigma"],
    "PosteriorFit.log_marginal_likelihood": lambda seed: (
        post().log_marginal_likelihood(seed=seed).value
    ),
    "PosteriorFit.loo": lambda seed: post().loo("group", seed=seed).elpd,
    "PosteriorFit.posterior_predictive": lambda seed: post().posterior_predictive(3, seed)[
        "posterior_predictive"
    ]["y"],
    "PosteriorFit.scores": lambda seed: post().scores("group", seed=seed).elpd,
    "anova": lambda seed: rf.anova(
        alike("reml"), reml(), test="bootstrap", n=50, seed=seed
    ).to_frame()["p_value"][1:],
    "compare": lambda seed: rf.compare(
        {"a": post(), "b": alike("quadrature")}, seed=seed
    ).weights(),
    "compare_structures": lambda seed: rf.compare_structures(
        model(), seed=seed, progressbar=False
    ).weights(),
    "power": power,
    "simulate": lambda seed: rf.simulate(
        FORMULA, DATA, beta={"Intercept": 1}, theta={"Batch": 1}, sigma=1, seed=seed
    ),
    # that pass options on
    "Model.fit, laplace": lambda seed: fitted("laplace", seed),
    "Model.fit, quadrature": lambda seed: fitted("quadrature", seed),
    "Model.fit, mcmc": lambda seed: Sampling(seed=seed).seed,
    "PointFit.confint": lambda seed: reml().confint("bootstrap", n=100, seed=seed),
}


def numbers(found):
    return [np.asarray(part) for part in (found if isinstance(found, list) else [found])]


def test_no_function_with_a_seed_is_forgotten():
    assert with_seed() == {name for name in CALLS if "," not in name} - {"PointFit.confint"}


@pytest.mark.parametrize("name", CALLS)
def test_one_number_is_drawn_of_a_generator(name):
    given, other = np.random.default_rng(5), np.random.default_rng(5)
    found = numbers(CALLS[name](given))
    seed = check_seed(other)
    assert given.bit_generator.state == other.bit_generator.state
    for one, by_number in zip(found, numbers(CALLS[name](seed)), strict=True):
        np.testing.assert_array_equal(one, by_number)


def test_a_fit_in_a_file_keeps_the_number(tmp_path):
    path = tmp_path / "fit.ranef"
    made = model().fit("laplace", draws=500, seed=np.random.SeedSequence(3), file=path)
    assert rf.load(path).seed == made.seed == check_seed(np.random.SeedSequence(3))
    pd.testing.assert_frame_equal(rf.load(path).hdi(), made.hdi())
    again = model().fit("laplace", draws=500, seed=made.seed, file=path)
    pd.testing.assert_frame_equal(again.hdi(), made.hdi())
