"""What cannot be compared is refused, with the reason."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import ranef as rf
from ranef.comparison.comparable import check_comparable, named_fits, no_bayes_factors
from ranef.fits.diagnostics import ImportanceDiagnostics

DYESTUFF = "Yield ~ 1 + (1 | Batch)"
P = rf.priors


@cache
def yields():
    """Return the data."""
    return rf.load_dataset("Dyestuff")


@cache
def fitted(formula=DYESTUFF, rows=30, family="gaussian", **priors):
    """Return a quick posterior fit."""
    model = rf.Model(formula, yields().head(rows), family=family, priors=dict(priors))
    return model.fit("laplace", draws=400, seed=1)


def test_fits_by_name():
    fit = fitted()
    assert named_fits({"a": fit, "b": fit}) == {"a": fit, "b": fit}
    assert named_fits([("a", fit), ("b", fit)]) == {"a": fit, "b": fit}


HINT = "give them names: rf.compare({'slopes': fit, 'intercepts': fit0})."


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda fit: fit, f"compare takes several fits; {HINT}"),
        (lambda _: 3, f"compare takes several fits; {HINT}"),
        (lambda fit: [fit, fit], f"the fits to compare have no names; {HINT}"),
        (lambda fit: {"": fit, "b": fit}, f"'' is not the name of a fit; {HINT}"),
        (lambda fit: {1: fit, "b": fit}, f"1 is not the name of a fit; {HINT}"),
        (
            lambda fit: [("a", fit), ("b", fit), ("a", fit)],
            "two fits have the name `a`: every fit needs a name of its own.",
        ),
        (lambda fit: {"a": fit}, "compare takes two fits or more, got 1."),
        (lambda _: {}, "compare takes two fits or more, got 0."),
        (
            lambda fit: {"a": fit, "b": rf.Model(DYESTUFF, yields())},
            "`b` is not a fit but Model: fit the model first, as by model.fit('quadrature').",
        ),
    ],
)
def test_what_is_no_collection_of_named_fits(make, text):
    with pytest.raises(rf.FitError) as caught:
        named_fits(make(fitted()))
    assert str(caught.value) == text


def test_different_rows():
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"all": fitted(), "few": fitted(rows=28)})
    assert str(caught.value) == (
        "`all` and `few` are fits of different rows (30 and 28: 2 only in `all` (`28` and `29`)): "
        "fit both to the rows that are complete in all columns that either uses."
    )


def test_rows_in_another_order():
    other = rf.Model(DYESTUFF, yields().iloc[::-1]).fit("laplace", draws=400, seed=1)
    with pytest.raises(rf.DataError, match=r"different rows \(30 and 30: in another order\)"):
        check_comparable({"a": fitted(), "b": other})


def test_a_transformed_response():
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fitted(), "b": fitted("log(Yield) ~ 1 + (1 | Batch)")})
    assert str(caught.value) == (
        "`a` is a model of `Yield` and `b` one of `log(Yield)`: densities of a response and of its "
        "transform are in different units and cannot be compared. Fit both to the same response; a "
        "link function transforms its mean instead."
    )


def test_other_values_of_the_response():
    changed = yields().assign(Yield=lambda d: d["Yield"] + (d.index == 3))
    other = rf.Model(DYESTUFF, changed).fit("laplace", draws=400, seed=1)
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fitted(), "b": other})
    assert str(caught.value) == (
        "the response `Yield` of `a` differs from that of `b` in 1 row (`3`): they are fits of "
        "different data."
    )


def test_a_density_and_a_probability():
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fitted(), "b": fitted(family="poisson")})
    assert str(caught.value) == (
        "`a` has the gaussian family and `b` the poisson family: a probability and a density "
        "cannot be compared."
    )


def test_other_numbers_of_trials():
    data = rf.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ 1 + (1 | herd)"
    fit = rf.Model(formula, data, family="binomial").fit("laplace", draws=400, seed=1)
    other = replace(fit, design=replace(fit.design, weights=fit.design.weights + 1))
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fit, "b": other})
    assert str(caught.value) == "`a` and `b` have different numbers of trials or weights."


def test_a_failed_diagnostic():
    bad = replace(fitted(), checks=ImportanceDiagnostics(400, 0.9, 500.0, converged=True))
    with pytest.raises(rf.FitError) as caught:
        check_comparable({"good": fitted(), "bad": bad})
    assert str(caught.value).startswith(
        "the fit `bad` is not to be relied on, and neither is a comparison with it: Pareto k-hat "
        "is 0.90, above 0.7"
    )


def test_point_estimates_that_did_not_converge():
    fit = rf.Model(DYESTUFF, yields()).fit("ml")
    bad = replace(fit, estimate=replace(fit.estimate, convergence=rf.Convergence.STALLED))
    with pytest.raises(rf.FitError) as caught:
        check_comparable({"good": fit, "bad": bad})
    assert str(caught.value) == (
        "the fit `bad` is not to be relied on, and neither is a comparison with it: "
        f"{rf.Convergence.STALLED.value}"
    )


# ---------------------------------------------------------------------------- Bayes factors


def test_proper_priors_have_bayes_factors():
    assert no_bayes_factors({"a": fitted(), "b": fitted("Yield ~ 1")}) == ""


def test_flat_priors_of_what_all_models_share_cancel():
    flat = {"Intercept": P.Flat(), "sigma": P.Flat()}
    assert no_bayes_factors({"a": fitted(**flat), "b": fitted("Yield ~ 1", **flat)}) == ""


def test_a_flat_prior_of_a_variance():
    other = fitted(sd=P.Flat())
    assert no_bayes_factors({"a": fitted("Yield ~ 1"), "b": other}) == (
        "`b` has a flat prior on `sd_Batch[Intercept]`, whose arbitrary height would be a factor "
        "of its marginal likelihood: give it a proper prior."
    )


def test_flat_priors_of_different_parameters():
    assert no_bayes_factors({"a": fitted(), "b": fitted(Intercept=P.Flat())}) == (
        "`a` and `b` do not have flat priors on the same parameters (none; `Intercept`), so that "
        "their arbitrary heights do not cancel: give all of them proper priors."
    )


def test_flat_priors_of_different_columns():
    def fit(x):
        model = rf.Model("Yield ~ x + (1 | Batch)", yields().assign(x=x), priors={"x": P.Flat()})
        return model.fit("laplace", draws=400, seed=1)

    fits = {"a": fit(np.arange(30.0)), "b": fit(np.arange(30.0) ** 2)}
    assert no_bayes_factors(fits) == (
        "`a` and `b` have different fixed effects with flat priors, whose arbitrary heights do not "
        "cancel: give the fixed effects proper priors."
    )
