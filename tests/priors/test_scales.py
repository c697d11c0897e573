"""Scales of linear predictors: what default priors are in units of."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

from ranef.design.design import build_design
from ranef.design.model_matrix import Origin
from ranef.errors import DataError
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import Link
from ranef.families.names import find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.priors.scales import (
    centring,
    link_scale,
    lower_columns,
    median,
    median_deviation,
    moved_coefs,
    observed_mean,
    response_scale,
)


def design(y, *, weights=None, offset=None):
    data = pd.DataFrame({"y": np.asarray(y, dtype=float)})
    made = build_design(read_formula("y ~ 1"), data, offset=offset)
    w = np.ones(len(data)) if weights is None else np.asarray(weights, dtype=float)
    return made.with_rows(weights=w)


def numbers(scale):
    return scale.location, scale.intercept, scale.slope, scale.sd


COUNTS = np.array([0.0, 3.0, 1.0, 7.0, 2.0])
POWERS = {"log": 0, "sqrt": 0.5, "inverse": -1, "inverse_squared": -2}
LOGLOG = Link("loglog", lambda mu: -np.log(-np.log(mu)), lambda eta: np.exp(-np.exp(-eta)))


def with_link(family, name):
    """Return a family with a link that its constructor may not offer for it."""
    power = POWERS[name]
    if power == 0:
        return replace(family, link=Link(name, np.log, np.exp))
    return replace(family, link=Link(name, lambda mu: mu**power, lambda eta: eta ** (1 / power)))


def test_on_the_identity_the_response_less_its_offset_is_the_scale():
    made = design([1.0, 4.0, 9.0], offset=[0.0, 1.0, 2.0])
    z = np.array([1.0, 3.0, 7.0])
    scale = link_scale(made, GAUSSIAN)
    s = z.std(ddof=1)
    assert numbers(scale) == pytest.approx((z.mean(), 2.5 * s, 2.5 * s, s))
    assert str(scale.sd_prior(2.0)) == "HalfStudentT(3, 2)"


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog", "cauchit"])
def test_a_probability_has_the_scale_of_log_odds_whatever_the_data(link):
    family = find_family("binomial", link)
    for y in ([0.0, 0.0, 0.0], [1.0, 1.0, 0.5]):
        scale = link_scale(design(y, weights=[4, 4, 4]), family)
        assert numbers(scale) == (0.0, 1.5, 1.0, 1.0)
        assert str(scale.sd_prior(0.5)) == "HalfNormal(0.5)"
    moved = link_scale(design([0.0, 1.0, 1.0], offset=[1.0, 2.0, 6.0]), family)
    assert moved.location == -3.0


def test_on_the_log_the_location_is_that_of_total_response_over_total_exposure():
    w, exposure = np.array([1.0, 2.0, 1.0, 1.0, 3.0]), np.array([10.0, 20.0, 5.0, 1.0, 2.0])
    made = design(COUNTS, weights=w, offset=np.log(exposure))
    scale = link_scale(made, POISSON)
    assert numbers(scale) == pytest.approx((np.log(w @ COUNTS / (w @ exposure)), 2.5, 1, 1))
    assert str(scale.sd_prior(0.5)) == "Exponential(0.5)"
    glm_score = w @ (COUNTS - exposure * np.exp(scale.location))  # it is the estimate as well
    assert glm_score == pytest.approx(0, abs=1e-12)


def test_huge_offsets_do_not_overflow():
    made = design(COUNTS, offset=np.full(5, 1000.0))
    assert link_scale(made, POISSON).location == pytest.approx(np.log(13 / 5) - 1000)


@pytest.mark.parametrize("family", [POISSON, with_link(POISSON, "sqrt"), BINOMIAL], ids=str)
def test_without_any_event_the_mean_is_that_of_half_an_event(family):
    made = design(np.zeros(4), weights=[2, 2, 2, 2])
    assert observed_mean(made, POISSON) == 0.5 / 8
    assert observed_mean(made, BINOMIAL) == 0.5 / 9
    assert observed_mean(made.with_rows(y=np.ones(4)), BINOMIAL) == 8.5 / 9
    assert np.isfinite(numbers(link_scale(made, family))).all()


def test_counts_and_proportions_that_do_not_vary_have_the_scale_of_their_mean():
    assert response_scale(design([0, 0, 0, 0]), POISSON) == 0.125
    assert response_scale(design([3, 3, 3, 3]), POISSON) == 3.0
    assert response_scale(design([1, 1, 1]), BINOMIAL) == pytest.approx(0.875 * 0.125)
    message = (
        "The response `y` does not vary, so the default priors have no scale; "
        "give priors for all parameters."
    )
    for family in (GAUSSIAN, find_family("gamma")):
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            response_scale(design([2, 2, 2]), family)


@pytest.mark.parametrize("name", POWERS)
def test_the_unit_is_what_eta_changes_by_to_first_order_as_mu_is_multiplied_by_e(name):
    family = with_link(POISSON, name)
    mean, power = COUNTS.mean(), POWERS[name]
    unit = abs(power) * mean**power if power else 1.0
    location = mean**power if power else np.log(mean)
    found = numbers(link_scale(design(COUNTS), family))
    assert found == pytest.approx((location, 2.5 * unit, unit, unit), rel=1e-7)


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("c", [1e-6, 0.3, 1e9])
def test_the_scales_follow_the_units_of_the_response(name, c):
    """From y to c y a power of mu goes to c^power of it, and a logarithm is shifted."""
    power = POWERS[name]
    family = with_link(find_family("gamma"), name)
    y = COUNTS + 0.5
    before, after = (np.array(numbers(link_scale(design(v), family))) for v in (y, c * y))
    expected = before * c**power if power else before + np.array([np.log(c), 0, 0, 0])
    np.testing.assert_allclose(after, expected, rtol=1e-7)


@pytest.mark.parametrize("name", POWERS)
def test_an_offset_that_is_shifted_shifts_the_location(name):
    family, offset = with_link(POISSON, name), np.array([0.1, 0.4, 0.0, 0.2, 0.9])
    before, after = (
        np.array(numbers(link_scale(design(COUNTS, offset=own), family)))
        for own in (offset, offset + 5)
    )
    np.testing.assert_allclose(after, before - [5, 0, 0, 0], rtol=1e-12, atol=1e-12)


def test_another_link_of_a_probability_has_the_unit_of_log_odds():
    family = replace(BINOMIAL, link=LOGLOG)
    made, mean = design([0.0, 0.5, 1.0, 0.25], weights=[2, 2, 1, 4]), 3 / 9
    unit = mean * (1 - mean) / (mean * -np.log(mean))
    found = link_scale(made, family)
    location = -np.log(-np.log(mean))
    assert numbers(found) == pytest.approx((location, 1.5 * unit, unit, unit), rel=1e-7)
    assert str(found.sd_prior(0.5)) == "HalfNormal(0.5)"
    as_logit = replace(BINOMIAL, link=Link("mine", special.logit, special.expit))
    assert numbers(link_scale(made, as_logit)) == pytest.approx((special.logit(mean), 1.5, 1, 1))


def test_a_mean_that_the_link_cannot_take_is_refused():
    family = replace(GAUSSIAN, link=Link("log", np.log, np.exp))
    message = (
        "The mean of the response `y` is -2, which is none for the log link, so the default priors "
        "have no scale; give priors for all parameters, or choose another link."
    )
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        link_scale(design([-3.0, -1.0]), family)


def test_a_t_response_is_measured_by_quantiles():
    y = np.append(stats.norm.ppf((np.arange(2000) + 0.5) / 2000, 5, 2), [1e9] * 3)
    found = link_scale(design(y), find_family("t"))
    assert numbers(found) == pytest.approx((5, 5, 5, 2), rel=0.01)
    mostly = design([1.0, 1.0, 1.0, 1.0, 4.0])  # the median deviation is zero
    assert response_scale(mostly, find_family("t")) == mostly.rows.spread(mostly.rows.y)


NAMES = ("Intercept", "a", "b", "a:b")
ORIGINS = [Origin(i, frozenset(v)) for i, v in enumerate(["", "a", "b", "ab"])]


def columns(shift=0.0):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=30) + shift, rng.normal(size=30)
    return np.column_stack([np.ones(30), a, b, a * b])


def test_a_product_is_above_its_factors():
    assert lower_columns(ORIGINS) == [(), (0,), (0,), (0, 1, 2)]


def test_columns_of_one_term_are_not_below_each_other():
    origins = [Origin(0, frozenset()), *[Origin(1, frozenset("f"))] * 2, Origin(2, frozenset("f"))]
    assert lower_columns(origins) == [(), (0,), (0,), (0, 1, 2)]


def test_centred_columns_are_residuals_and_do_not_move_with_the_origin():
    lower = lower_columns(ORIGINS)
    centred = columns() @ centring(columns(), lower)
    for j, below in enumerate(map(list, lower)):
        np.testing.assert_allclose(columns()[:, below].T @ centred[:, j], 0, atol=1e-12)
    moved = columns(1e3) @ centring(columns(1e3), lower)
    np.testing.assert_allclose(moved, centred, atol=1e-8)


def test_an_empty_column_is_no_trouble():
    empty = columns()
    empty[:, 1] = empty[:, 3] = 0.0
    np.testing.assert_allclose(centring(empty, lower_columns(ORIGINS))[:2, :2], np.eye(2))


def test_which_coefficients_are_moved():
    change = centring(columns(), lower_columns(ORIGINS))
    assert moved_coefs(NAMES, change) == ("Intercept", "a", "b")
    assert moved_coefs(NAMES, None) == ()


def test_medians_of_values_that_are_there_several_times():
    rng = np.random.default_rng(1)
    for n in range(1, 30):
        values, counts = rng.integers(0, 9, n) / 4, rng.integers(1, 5, n)
        repeated = np.repeat(values, counts)
        assert median(values, counts) == np.median(repeated)
        assert median_deviation(values, counts) == median_deviation(repeated)
