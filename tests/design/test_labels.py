"""The names of a posterior: variables, dimensions, labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ranef.arguments import Sampling
from ranef.design import labels as module
from ranef.design.design import build_design
from ranef.families.binomial import BINOMIAL
from ranef.families.names import find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.posterior.sampling import pymc_hierarchical
from ranef.priors.assignment import resolve
from ranef.priors.random_variables import is_helper


def small_design(text="response ~ x + (x | g) + (1 | sigma) + (x || h)"):
    rng = np.random.default_rng(11)
    n = 30
    data = pd.DataFrame({"response": rng.normal(10, 2, n), "x": rng.normal(3, 1, n)})
    data["g"], data["h"] = rng.choice(list("abcde"), n), rng.choice([1, 2, 3], n)
    data["sigma"] = rng.choice(list("abcd"), n)
    return build_design(read_formula(text), data)


def test_variables_dimensions_and_labels():
    dims, coords = module.coordinates(small_design())
    assert dims == {
        "g": ("g", "g_coef", "g_coef_bis"),
        "sigma": ("sigma_", "sigma_coef", "sigma_coef_bis"),
        "h": ("h", "h_coef", "h_coef_bis"),
    }
    assert coords["fixed"] == coords["g_coef"] == coords["g_coef_bis"] == ("Intercept", "x")
    assert (coords["sigma_"], coords["sigma_coef"]) == (list("abcd"), ("Intercept",))
    assert module.variables(small_design()) == {
        "beta": ("fixed",),
        "sigma": (),
        "b_g": ("g", "g_coef"),
        "b_sigma": ("sigma_", "sigma_coef"),
        "b_h": ("h", "h_coef"),
        "sd_g": ("g_coef",),
        "sd_sigma": ("sigma_coef",),
        "sd_h": ("h_coef",),
        "corr_g": ("g_coef", "g_coef_bis"),
    }
    assert list(module.variables(small_design("response ~ 0"))) == ["sigma"]


def test_variables_are_those_of_the_family():
    made = small_design("response ~ x + (1 | g)")
    start, end = ["beta"], ["b_g", "sd_g"]
    for name, own in {
        "binomial": [],
        "poisson": [],
        "negative_binomial": ["shape"],
        "gamma": ["sigma"],
        "beta": ["phi"],
        "t": ["sigma", "nu"],
    }.items():
        found = module.variables(made, find_family(name))
        assert list(found) == start + own + end
        assert {found[parameter] for parameter in own} <= {()}
    backwards = replace(POISSON, parameters=("zeta", "sigma"))
    assert list(module.variables(made, backwards)) == [*start, "sigma", "zeta", *end]


def test_factors_that_are_called_like_parameters():
    """Only a parameter that the family has takes the name away from a dimension."""
    rng = np.random.default_rng(1)
    names = ("shape", "phi", "nu", "sigma")
    data = pd.DataFrame({name: rng.choice(list("abc"), 30) for name in names})
    data["y"] = rng.normal(size=30)
    text = "y ~ 1 + (1 | shape) + (1 | phi) + (1 | nu) + (1 | sigma)"
    made = build_design(read_formula(text), data)
    for family in map(find_family, ("binomial", "negative_binomial", "beta", "gaussian", "t")):
        dims, coords = module.coordinates(made, family)
        expected = {name: name + "_" * (name in family.parameters) for name in names}
        assert {label: own[0] for label, own in dims.items()} == expected
        assert set(expected.values()) <= set(coords)
        found = module.variables(made, family)
        assert {f"b_{name}" for name in names} | {f"sd_{name}" for name in names} <= set(found)
        assert not set(family.parameters) & {dim for own in found.values() for dim in own}
        draws = {name: np.zeros((1, 2, *(3 if d in expected.values() else 1 for d in own)))
                 for name, own in found.items()}  # fmt: skip
        assert list(module.named(made, draws, family).data_vars) == list(found)


def test_draws_of_what_the_family_does_not_have_are_left_out():
    draws = {"beta": np.zeros((1, 4, 2)), "sigma": np.ones((1, 4)), "shape": np.ones((1, 4))}
    made = small_design("response ~ x")
    assert list(module.named(made, draws, BINOMIAL).data_vars) == ["beta"]
    nb = find_family("negative_binomial")
    assert list(module.named(made, draws, nb).data_vars) == ["beta", "shape"]


@pytest.mark.parametrize("text", ["response ~ x + (x | g) + (1 | h)", "response ~ 0 + (1 | sigma)"])
def test_draws_are_named_as_those_of_the_sampler(text):
    made = small_design(text)
    model = pymc_hierarchical.hierarchical(made, resolve(made))
    tree = pymc_hierarchical.sample_pymc(
        model, Sampling(draws=5, tune=20, chains=2, seed=1, progressbar=False)
    )
    sampled = tree["posterior"].to_dataset()
    sampled = sampled[[name for name in sampled.data_vars if not is_helper(str(name))]]
    found = module.named(made, {name: v.to_numpy() for name, v in sampled.data_vars.items()})
    assert list(found.data_vars) == list(sampled.data_vars) == list(module.variables(made))
    assert dict(found.sizes) == dict(sampled.sizes)
    for name, variable in sampled.variables.items():
        assert found[name].dims == variable.dims
        assert found[name].to_numpy().tolist() == variable.to_numpy().tolist()


def test_some_of_the_variables_bring_their_own_dimensions_only():
    found = module.named(
        small_design(), {"beta": np.zeros((1, 4, 2)), "b_h": np.ones((1, 4, 3, 2))}
    )
    assert list(found.data_vars) == ["beta", "b_h"]
    assert set(found.dims) == {"chain", "draw", "fixed", "h", "h_coef"}


@pytest.mark.parametrize(
    ("index", "labels"),
    [
        (pd.Index([3, 1]), [3, 1]),
        (pd.Index([0.5, 1.0]), [0.5, 1.0]),
        (pd.Index(["b", "a"]), ["b", "a"]),
        (pd.Index([True, False]), [True, False]),
        (pd.CategoricalIndex(["b", "a"]), ["b", "a"]),
        (pd.CategoricalIndex([2, 1]), [2, 1]),
        (pd.Index([1, "a"]), ["1", "a"]),
        (pd.interval_range(0, 2), ["(0, 1]", "(1, 2]"]),
        (pd.period_range("2020-01", periods=2, freq="M"), ["2020-01", "2020-02"]),
        (pd.date_range("2020-01-01", periods=2), list(pd.date_range("2020-01-01", periods=2))),
        (pd.date_range("2020-01-01", periods=1, tz="UTC"), ["2020-01-01 00:00:00+00:00"]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, pd.Index) else "",
)
def test_labels_are_the_users_where_nutpie_can_carry_them_and_else_text(index, labels):
    assert list(module.labels(index)) == labels
