"""What is left out, and what a posterior says of it."""

from functools import cache

import numpy as np
import pandas as pd
import pytest

import ranef as rf
from ranef.fits.scored import units_of

P = rf.priors


@cache
def dyestuff(method="quadrature", **priors):
    """Return a fit of six batches of five."""
    model = rf.Model("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), priors=dict(priors))
    return model.fit(method, seed=1)


@cache
def pastes():
    """Return the design of casks in batches."""
    return rf.Model("strength ~ 1 + (1 | batch/cask)", rf.load_dataset("Pastes")).design


@cache
def mean():
    """Return the design of a model without groups."""
    return rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff")).design


# ------------------------------------------------------------------------------------ units


def test_rows():
    units = units_of(pastes(), "observation", None)
    assert (units.unit, units.factor, units.codes, units.size) == ("observation", None, None, 60)


def test_the_only_factor():
    units = units_of(dyestuff().design, "group", None)
    assert units.factor == "Batch"
    assert list(units.labels) == list("ABCDEF")


@pytest.mark.parametrize(("name", "size"), [("batch", 10), ("cask:batch", 30)])
def test_a_named_factor(name, size):
    assert units_of(pastes(), "group", name).size == size


def test_labels():
    data = rf.load_dataset("Dyestuff")
    for labels in (data["Batch"], data["Batch"].to_numpy(), data["Batch"].tolist()):
        units = units_of(mean(), "group", labels)
        np.testing.assert_array_equal(units.codes, np.repeat(np.arange(6), 5))
    assert units_of(mean(), "group", data["Batch"]).factor == "Batch"
    longer = pd.concat([data["Batch"], pd.Series(["Z"], index=[99])])[::-1]  # found by its index
    assert units_of(mean(), "group", longer).size == 6


@pytest.mark.parametrize(
    ("design", "unit", "group", "error", "text"),
    [
        (
            pastes,
            "groups",
            None,
            rf.FitError,
            "unit='groups' does not exist. Did you mean `group`?",
        ),
        (
            pastes,
            "observation",
            "batch",
            rf.FitError,
            '`group` is for unit="group"; unit="observation" leaves out single rows.',
        ),
        (
            pastes,
            "group",
            None,
            rf.FitError,
            (
                "the model has the grouping factors `cask:batch` and `batch`: name the one whose "
                "levels are to be left out, `group=`."
            ),
        ),
        (
            pastes,
            "group",
            "btch",
            rf.FitError,
            (
                "the model has no grouping factor 'btch'. Did you mean `batch`? Labels of the rows "
                "may be given as an array."
            ),
        ),
        (
            mean,
            "group",
            None,
            rf.FitError,
            (
                "the model has no grouping factor: give the labels of the rows' groups as an "
                "array, `group=`."
            ),
        ),
        (
            mean,
            "group",
            "Batch",
            rf.FitError,
            (
                "the model has no grouping factor 'Batch'. It has none. Labels of the rows may be "
                "given as an array."
            ),
        ),
        (
            mean,
            "group",
            [1, 2],
            rf.DataError,
            "`group` has shape (2,), expected (30,), one label a row of the fit.",
        ),
        (
            mean,
            "group",
            np.ones((30, 2)),
            rf.DataError,
            "`group` has shape (30, 2), expected (30,), one label a row of the fit.",
        ),
        (
            mean,
            "group",
            [None, *range(29)],
            rf.DataError,
            "`group` has 1 missing labels.",
        ),
        (
            mean,
            "group",
            ["A"] * 30,
            rf.DataError,
            "`group` has one group only, `A`: without it no row is left to predict it from.",
        ),
        (
            mean,
            "group",
            pd.Series(["A", "B"], index=["x", "y"]),
            rf.DataError,
            (
                "the index of `group` is not that of the data: pass a plain array of 30 "
                "labels, one a row of the fit."
            ),
        ),
    ],
)
def test_what_cannot_be_left_out(design, unit, group, error, text):
    with pytest.raises(error) as caught:
        units_of(design(), unit, group)
    assert str(caught.value) == text


# ------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("unit", ["group", "observation"])
def test_draws_agree_with_quadrature(unit):
    exact, drawn = dyestuff(), dyestuff("laplace")
    np.testing.assert_allclose(drawn.scores(unit).elpd, exact.scores(unit).elpd, atol=0.05)


def test_arviz_takes_it():
    import arviz as az

    found = dyestuff().loo("group")
    assert found.elpd == pytest.approx(float(found.elpd_i.sum()))
    assert list(found.elpd_i["Batch"].to_numpy()) == list("ABCDEF")
    labels = rf.load_dataset("Dyestuff")["Batch"]
    none = rf.Model("Yield ~ 1", rf.load_dataset("Dyestuff")).fit("quadrature", seed=1)
    table = az.compare({"batches": found, "none": none.loo("group", labels)})
    assert table.index[0] == "batches"


def test_the_marginal_likelihood_whatever_the_method():
    exact = dyestuff().log_marginal_likelihood()
    assert exact.method == "quadrature"
    assert dyestuff("laplace").log_marginal_likelihood().value == pytest.approx(exact.value)


def test_more_variance_parameters_than_quadrature_takes():
    data = rf.load_dataset("Machines")
    model = rf.Model("score ~ Machine + (Machine | Worker)", data)
    fit = model.fit("laplace", draws=4000, seed=1)
    evidence = fit.log_marginal_likelihood()
    assert "importance sampling" in evidence.method
    assert 0 < evidence.mcse < 0.1


def test_sensitivity_as_a_table():
    found = dyestuff().prior_sensitivity([0.5, 1, 2])
    assert list(found.columns) == ["scale", "log_ratio", "mcse"]
    prior = dyestuff().asked.priors.terms[0].sd[0]
    for s, value in zip(found["scale"], found["log_ratio"], strict=True):
        other = dyestuff(sd=P.HalfStudentT(prior.nu, prior.sigma * s))
        change = other.log_marginal_likelihood().value - dyestuff().log_marginal_likelihood().value
        assert value == pytest.approx(change, abs=1e-5)
    with pytest.raises(rf.FitError, match="scales must be positive"):
        dyestuff().prior_sensitivity([1, -1])


def test_savage_dickey_is_the_ratio_of_marginal_likelihoods():
    fit = dyestuff(Intercept=P.Normal(1500, 100), sd=P.HalfNormal(50), sigma=P.HalfNormal(80))
    none = rf.Model(
        "Yield ~ 1",
        rf.load_dataset("Dyestuff"),
        priors={"Intercept": P.Normal(1500, 100), "sigma": P.HalfNormal(80)},
    ).fit("quadrature", seed=1)
    ratio = none.log_marginal_likelihood().value - fit.log_marginal_likelihood().value
    assert fit.savage_dickey("sd_Batch[Intercept]").log_bf01 == pytest.approx(ratio, abs=1e-6)
    drawn = rf.Model(
        "Yield ~ 1 + (1 | Batch)",
        rf.load_dataset("Dyestuff"),
        priors={
            "Intercept": P.Normal(1500, 100),
            "sd": P.HalfNormal(50),
            "sigma": P.HalfNormal(80),
        },
    ).fit("laplace", seed=1)
    assert drawn.savage_dickey("sd_Batch[Intercept]").log_bf01 == pytest.approx(ratio, abs=1e-6)


def test_a_posterior_without_a_model():
    fit = type(dyestuff("laplace"))(
        dyestuff().design, dyestuff().family, "mcmc", dyestuff("laplace").posterior
    )
    with pytest.raises(rf.FitError) as caught:
        fit.loo()
    assert str(caught.value) == (
        "this fit has no model to ask, as it was put together by hand or sampled from a PyMC model "
        "of your own: fit a `ranef.Model` as it is."
    )


def test_flat_priors_leave_the_marginal_likelihood_undefined():
    with pytest.raises(rf.FitError, match="not defined under flat priors"):
        dyestuff(Intercept=P.Flat()).log_marginal_likelihood()
