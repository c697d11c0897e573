"""Where the chains of a PyMC model start, and what is said if they cannot."""

import re

import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytest

import ranef as rf
from ranef.errors import FitError
from ranef.posterior.sampling import pymc_starts

QUICK = {"draws": 400, "tune": 300, "chains": 2, "seed": 1, "progressbar": False}


def unscaled():
    """Return a predictor in years with the prior of a scaled one: PyMC's starts are hopeless."""
    rng, year = np.random.default_rng(1), np.arange(2010.0, 2022.0)
    data = pd.DataFrame({"year": year, "y": 5 + 0.8 * (year - 2015) + rng.normal(0, 2, 12)})
    priors = {"Intercept": rf.priors.Normal(0, 10), "year": rf.priors.Normal(0, 1)}
    return rf.Model("y ~ year", data, priors=priors | {"sigma": rf.priors.Constant(2.0)})


def test_chains_start_at_draws_near_the_mode_where_the_priors_are_far_off():
    model = unscaled()
    sampled = model.fit("mcmc", form="hierarchical", **QUICK)
    exact = model.fit("quadrature")
    assert sampled.fixef()["year"] == pytest.approx(exact.fixef()["year"], abs=exact.se()["year"])


def test_starts_are_the_coordinates_of_draws():
    model = rf.Model("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    starts, written = model.engine.starts(seed=1), model.to_pymc()
    points = pymc_starts.unconstrained(written, starts)
    densities = written.compile_fn(written.logp(), mode="FAST_COMPILE")
    names = [value.name for value in written.value_vars]
    assert names[-1] == "b_Subject_whitened__"
    shapes = [part.shape for part in written.initial_point().values()]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    for x in points[:3]:
        parts = [p.reshape(s) for p, s in zip(np.split(x, ends[:-1]), shapes, strict=True)]
        assert np.isfinite(densities(dict(zip(names, parts, strict=True))))
        assert np.abs(parts[-1]).max() < 6  # standard normal numbers
    sigma = np.exp([x[2] for x in points])
    np.testing.assert_allclose(sigma, starts["sigma"].to_numpy()[0])


def test_a_density_of_zero_everywhere_is_a_fit_error_with_the_variable():
    model = unscaled()
    changed = model.to_pymc()
    with changed:
        other = pm.Normal("other", 0, 1)
        pm.Potential("nowhere", pm.math.log(-1.0 - other**2))
    message = (
        r"^the chains cannot start: the log density is not finite in `nowhere` where they do\."
    )
    with pytest.raises(FitError, match=message):
        model.fit("mcmc", pymc_model=changed, **QUICK)


class PanicException(BaseException):
    """What a panic of the sampler looks like."""


def quadratic(x):
    return -5e3 * float(x @ x), -1e4 * x


@pytest.fixture
def fake(monkeypatch):
    """Return a model with one variable, and a list of the points that a sampler is given."""
    with pm.Model() as model:
        pm.Normal("slope", 0, 1)
    given = []

    def sample(compiled, **_):
        given.append(compiled.initial_point_func(3))
        raise error.pop()

    error = []
    monkeypatch.setattr(nutpie, "sample", sample)
    monkeypatch.setattr(pymc_starts, "density_of", lambda _: quadratic)
    monkeypatch.setattr(pymc_starts, "replace", lambda _, **fields: type("Compiled", (), fields))
    compiled = type("Compiled", (), {"initial_point_func": staticmethod(lambda _: np.ones(1))})

    def run(*errors):
        error[:] = reversed(errors)
        return pymc_starts.sample(model, compiled, None, chains=2)

    return run, given


def test_a_panic_is_tried_again_further_up_and_then_is_a_fit_error(fake):
    run, given = fake
    message = (
        "the chains cannot start: the log density changes by 1e+04 a unit in `slope` where they "
        "do. Rescale the predictor or response that it belongs to, or give it a prior that says "
        'about where it lies; method="laplace" needs no start.'
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        run(
            PanicException("bad initial gradient"), RuntimeError("All initialization points failed")
        )
    assert given[0] == 1.0
    assert abs(given[1]) < 1e-6  # at the mode


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no memory"), MemoryError()])
def test_other_exceptions_pass(fake, error):
    run, given = fake
    with pytest.raises(type(error)):
        run(error)
    assert len(given) == 1
