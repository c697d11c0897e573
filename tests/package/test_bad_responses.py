"""What a user may do wrong with the response of a generalised model, through the public calls."""

import numpy as np
import pandas as pd
import pytest

import ranef as rf

N = 60
RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "y": RNG.integers(0, 2, N),
        "k": RNG.poisson(3, N),
        "n": 12,
        "use": RNG.choice(["N", "Y"], N),
        "x": RNG.normal(size=N),
        "f": np.tile(["u", "v", "w"], 20),
        "g": np.repeat(list("abcdef"), 10),
        "row": np.arange(N),
    }
)
REMEDY = 'with proper priors model.fit("map") and model.fit("mcmc") can go on.'


def refusal(formula, family, frame=FRAME, **options):
    with pytest.raises(rf.DataError) as error:
        rf.Model(formula, frame, family, **options).fit()
    return str(error.value)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_all_the_ways_to_write_a_binomial_response_are_one_model(link):
    forms = {
        "cbind(k, n - k) ~ x + (1 | g)": None,
        "k/n ~ x + (1 | g)": "n",
        "I(k / n) ~ x + (1 | g)": FRAME["n"].to_numpy(),
    }
    fits = [rf.fit(f, FRAME, family="binomial", link=link, weights=w) for f, w in forms.items()]
    for fit in fits[1:]:
        assert fit.loglik == fits[0].loglik
        pd.testing.assert_series_equal(fit.fixef(), fits[0].fixef())


@pytest.mark.parametrize("family", ["binomial", "bernoulli"])
def test_labels_are_as_what_they_say(family):
    by_label = rf.Model("use ~ x + (1 | g)", FRAME, family)
    by_test = rf.Model("(use == 'Y') ~ x + (1 | g)", FRAME, family)
    assert by_label.fit().loglik == by_test.fit().loglik
    assert "success: use == 'Y'" in str(by_label)
    new = FRAME[["x", "g"]].iloc[:5]
    np.testing.assert_array_equal(by_label.fit().predict(new), by_test.fit().predict(new))


@pytest.mark.parametrize(
    ("formula", "family", "columns", "start"),
    [
        ("k ~ x", "poisson", {"k": -1}, "`k` is negative in 60 of 60 rows: `0`, `1`, `2`,"),
        ("k ~ x", "poisson", {"k": 0.5}, "`k` is not a whole number in 60 of 60 rows: `0`,"),
        ("k ~ x", "negative_binomial", {"k": 0.5}, "`k` is not a whole number in 60 of 60"),
        ("use ~ x", "poisson", {}, "`use` is not numeric: it has the levels `N` and `Y`. The pois"),
        ("use ~ x", "gamma", {}, "`use` is not numeric: it has the levels `N` and `Y`. The gamma"),
        ("f ~ x", "binomial", {}, "`f` has 3 levels, `u`, `v` and `w`; the binomial family takes"),
        ("f ~ x", "bernoulli", {}, "`f` has 3 levels, `u`, `v` and `w`; the bernoulli family"),
        ("k ~ x", "binomial", {"k": 2}, "`k` is not between 0 and 1 in 60 of 60 rows: `0`, `1`,"),
        ("k ~ x", "binomial", {"k": 0.5}, "`k` is neither 0 nor 1 in 60 of 60 rows: `0`, `1`,"),
        ("k ~ x", "gamma", {"k": 0}, "`k` is zero or negative in 60 of 60 rows: `0`, `1`, `2`,"),
        ("k ~ x", "inverse_gaussian", {"k": 0}, "`k` is zero or negative in 60 of 60 rows: `0`,"),
        ("k ~ x", "beta", {"k": 1}, "`k` is not strictly between 0 and 1 in 60 of 60 rows: `0`,"),
        ("k ~ x", "gamma", {"k": 2}, "the response `k` is constant (2 in every row)."),
        ("k ~ x", "beta", {"k": 0.5}, "the response `k` is constant (0.5 in every row)."),
        ("k ~ x", "t", {"k": 2}, "the response `k` is constant (2 in every row)."),
        (
            "cbind(k, n - k) ~ x",
            "binomial",
            {"k": 13},
            "`n - k` is negative in 60 of 60 rows: `0`, `1`,",
        ),
    ],
)
def test_what_a_family_cannot_take(formula, family, columns, start):
    assert refusal(formula, family, FRAME.assign(**columns)).startswith(start)


@pytest.mark.parametrize("random", ["", " + (1 | g)"])
@pytest.mark.parametrize("family", ["binomial", "bernoulli", "poisson", "negative_binomial"])
def test_a_response_of_zeros_has_no_estimate(family, random):
    assert refusal(f"y ~ x{random}", family, FRAME.assign(y=0)) == (
        "the response `y` is 0 in every row, and the likelihood has no maximum: it rises without "
        f"end as the mean approaches that value; {REMEDY}"
    )


@pytest.mark.parametrize("random", ["", " + (1 | g)"])
def test_a_response_that_is_separated_has_no_estimate(random):
    frame = FRAME.assign(y=(FRAME["x"] > 0.3) * 1)
    assert refusal(f"y ~ x + f{random}", "binomial", frame) == (
        "the fixed effects separate the values of the response `y`: the likelihood has no maximum, "
        "but rises without end with the coefficients of `x`; leave out what separates, or " + REMEDY
    )


def test_priors_give_an_estimate_where_the_likelihood_has_none():
    frame = FRAME.assign(y=(FRAME["x"] > 0.3) * 1)
    with pytest.warns(rf.DataWarning, match=r"^the fixed effects separate the values of the "):
        fit = rf.fit("y ~ x", frame, "map", family="binomial")
    assert 0 < fit.fixef()["x"] < 10
    with pytest.warns(rf.DataWarning, match=r"^all 60 rows of the response `y` are 0: "):
        zeros = rf.fit("y ~ x", FRAME.assign(y=0), "map", family="poisson")
    assert -10 < zeros.fixef()["Intercept"] < 0


def test_a_constant_response_that_is_at_no_end_is_a_response():
    found = rf.fit("k ~ 1", FRAME.assign(k=3), family="poisson").fixef()
    np.testing.assert_allclose(found, np.log(3), rtol=1e-6)
    found = rf.fit("cbind(k, n - k) ~ 1", FRAME.assign(k=3), family="binomial").fixef()
    np.testing.assert_allclose(found, np.log(3 / 9), rtol=1e-6)


def test_a_random_effect_of_every_row_models_more_variance_than_poisson():
    noise = np.random.default_rng(4).normal(size=N)
    frame = FRAME.assign(k=np.random.default_rng(5).poisson(np.exp(2 + noise)))
    fit = rf.fit("k ~ x + (1 | row)", frame, family="poisson")
    assert 0.7 < fit.varcorr().sd["row"].iloc[0] < 1.3


def test_a_mean_of_zero_is_inside_under_the_root():
    """A cell without events: with the log link it separates, with the root its mean is zero."""
    frame = FRAME.assign(k=np.where(FRAME["f"] == "u", 0, FRAME["k"]))
    fits = [
        rf.fit(f"k ~ {x} + (1 | g)", frame, family="poisson", link="sqrt") for x in ("f", "0 + f")
    ]
    a, b = (fit.fixef().to_numpy() for fit in fits)
    np.testing.assert_allclose(b, [a[0], a[0] + a[1], a[0] + a[2]], atol=1e-5)
    assert b[0] == pytest.approx(0, abs=1e-5)
    assert fits[0].objective == pytest.approx(fits[1].objective, abs=1e-6)
