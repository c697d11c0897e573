"""Fits that can be compared, and those that cannot."""

from dataclasses import replace

import numpy as np
import pytest
from comparison_cases import DYESTUFF, dyestuff, fitted, yields

import ranef as rf
from ranef.comparison.comparable import check_comparable, named_fits
from ranef.fits.diagnostics import ImportanceDiagnostics


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
            lambda fit: {"a": fit, "b": rf.Model(DYESTUFF, dyestuff())},
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
    other = rf.Model(DYESTUFF, dyestuff().iloc[::-1]).fit("laplace", draws=400, seed=1)
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
    changed = dyestuff().assign(Yield=lambda d: d["Yield"] + (d.index == 3))
    other = rf.Model(DYESTUFF, changed).fit("laplace", draws=400, seed=1)
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fitted(), "b": other})
    assert str(caught.value) == (
        "`a` and `b` are not fits of the same data: the response `Yield` differs in 1 row (`3`)."
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
    other = replace(fit, design=fit.design.with_rows(weights=fit.design.rows.weights + 1))
    with pytest.raises(rf.DataError) as caught:
        check_comparable({"a": fit, "b": other})
    assert str(caught.value) == (
        "`a` and `b` are not fits of the same data: the weights or numbers of trials differ in 56 "
        "rows (`0`, `1`, `2`, `3`, `4` and 51 more)."
    )


def test_weights_of_variances_and_offsets_are_parts_of_the_models():
    weighted = rf.Model(DYESTUFF, dyestuff(), weights=np.tile([1.0, 2.0], 15))
    shifted = rf.Model(DYESTUFF, dyestuff(), offset=np.arange(30.0))
    others = {m: m.fit("laplace", draws=400, seed=1) for m in (weighted, shifted)}
    check_comparable({"plain": fitted(), "weighted": others[weighted], "offset": others[shifted]})


def test_a_failed_diagnostic():
    bad = replace(fitted(), checks=ImportanceDiagnostics(400, 0.9, 500.0, converged=True))
    with pytest.raises(rf.FitError) as caught:
        check_comparable({"good": fitted(), "bad": bad})
    assert str(caught.value).startswith(
        "the fit `bad` is not to be relied on, and neither is a comparison with it: Pareto k-hat "
        "is 0.90, above 0.7"
    )


def test_point_estimates_that_did_not_converge():
    fit = rf.Model(DYESTUFF, dyestuff()).fit("ml")
    bad = replace(fit, estimate=replace(fit.estimate, convergence=rf.Convergence.STALLED))
    with pytest.raises(rf.FitError) as caught:
        check_comparable({"good": fit, "bad": bad})
    assert str(caught.value) == (
        "the fit `bad` is not to be relied on, and neither is a comparison with it: "
        f"{rf.Convergence.STALLED.value}"
    )


@pytest.mark.parametrize(
    ("units", "group", "text"),
    [
        (("rows",), None, "units='rows' cannot be left out. Known names: `group`, `observation`."),
        (3, None, "`units` are of `group` and `observation`, got 3."),
        (
            "observation",
            "Batch",
            "`group` says which groups are left out, and units='observation' leaves none.",
        ),
    ],
)
def test_units_that_cannot_be_left_out(units, group, text):
    fits = {"batches": yields(), "none": yields("Yield ~ 1")}
    with pytest.raises(rf.FitError) as caught:
        rf.compare(fits, units=units, group=group)
    assert str(caught.value) == text
