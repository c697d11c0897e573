"""Flat priors are refused where the posterior would be improper, and only there."""

import re
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

from ranef.design.design import build_design
from ranef.errors import FitError
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import Link
from ranef.families.names import FAMILIES, find_family
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula
from ranef.priors.assignment import resolve
from ranef.priors.distributions import (
    Constant,
    Flat,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    InverseGamma,
    LogNormal,
    Normal,
    Relative,
    StudentT,
    Uniform,
)
from ranef.priors.propriety import check_proper, is_proper_prior

PROPER = "Give it a proper prior with priors=, such as HalfNormal or HalfStudentT."


def design(text, data, **options):
    return build_design(read_formula(text), data, **options)


def small_data(seed, n=14):
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {"y": rng.normal(size=n), "x": rng.normal(3, 1, n), "v": rng.normal(size=n)}
    )
    for name, levels in (("g", 2), ("h", 3), ("i", 4), ("j", 6)):
        data[name] = rng.integers(0, levels, n).astype(str)
    data["x0"] = np.where(data["h"] == "0", data["x"], 0.0)
    data["row"] = np.arange(n).astype(str)
    return data


def balanced(levels, per_level):
    rng = np.random.default_rng(levels)
    g = np.repeat(np.arange(levels), per_level)
    return pd.DataFrame({"y": rng.normal(size=len(g)), "g": g.astype(str)})


# The rule by brute force, with dense matrices and every set of standard deviations


def parts(made, priors):
    """Return K (n, n - p_F), and the columns of each sd with a flat prior."""
    flat = [isinstance(prior, Flat) for prior in priors.beta]
    X = made.rows.X[:, flat]
    K = np.linalg.svd(X)[0][:, np.linalg.matrix_rank(X) :] if any(flat) else np.eye(made.n_obs)
    return K, [
        np.eye(term.n_levels)[term.codes] * term.columns[:, [j]]
        for term, own in zip(made.rows.terms, priors.terms, strict=True)
        for j, prior in enumerate(own.sd)
        if prior in (Flat(), Relative(Flat()))
    ]


def power(K, columns):
    """Return with what power of s the density of K'y falls off as V = I + s^2 Z Z'."""
    Z = np.column_stack(columns)

    def log_det(log_s):
        V = np.eye(len(Z)) + np.exp(2 * log_s) * Z @ Z.T
        return np.linalg.slogdet(K.T @ V @ K).logabsdet / 2

    return (log_det(9.0) - log_det(8.0)) / 1.0


def is_proper_by_brute_force(made, priors):
    K, columns = parts(made, priors)
    sets = [T for k in range(1, len(columns) + 1) for T in combinations(range(len(columns)), k)]
    falls_off = all(power(K, [columns[i] for i in T]) > len(T) + 0.5 for T in sets)
    sds = [prior for own in priors.terms for prior in own.sd]
    enough_rows = priors.sigma != Flat() or K.shape[1] > 1 + sds.count(Flat())
    # with no effects left over, sigma can go to zero as ratios go to infinity
    Z = [
        np.eye(t.n_levels)[t.codes] * t.columns[:, [j]]
        for t in made.rows.terms
        for j in range(t.n_coefs)
    ]
    fits_all = np.linalg.matrix_rank(np.column_stack([made.rows.X, *Z])) == made.n_obs
    return falls_off and enough_rows and not (fits_all and Relative(Flat()) in sds)


FORMULAS = [
    "y ~ 1 + (1 | g)",
    "y ~ 0 + (1 | g)",
    "y ~ 1 + (1 | h) + (1 | g)",
    "y ~ x + (x | h)",
    "y ~ x + (x + v || h)",
    "y ~ 0 + (x + v || g)",
    "y ~ h + (1 | h)",
    "y ~ 1 + (h | i)",
    "y ~ 1 + (1 | g / h)",
    "y ~ 1 + (1 | h) + (1 | i) + (1 | j)",
    "y ~ x + v + (1 | i) + (0 + x | i)",
    "y ~ 1 + (0 + x0 | h)",
    "y ~ 1 + (x0 || i)",
    "y ~ v + (x + v | j) + (1 | h)",
]
SETTINGS = [
    "flat",
    {"base": "flat", "sigma": HalfNormal(1)},
    {"sd": Flat()},
    {"base": "flat", "sd": Relative(Flat())},
]


def test_the_rule_is_that_of_brute_force():
    verdicts = []
    for text in FORMULAS:
        for seed in range(4):
            made = design(text, small_data(seed))
            for priors in (resolve(made, setting) for setting in SETTINGS):
                verdicts.append(is_proper_by_brute_force(made, priors))
                assert is_accepted(made, priors) == verdicts[-1], (text, seed, priors)
    assert min(sum(verdicts), len(verdicts) - sum(verdicts)) > 40


def is_accepted(made, priors):
    try:
        check_proper(made, priors)
    except FitError as error:
        assert "the posterior improper" in str(error)  # noqa: PT017 -- not what is tested
        return False
    return True


def test_the_named_set_is_one_that_lacks_rank():
    """The message's set T has r(T) <= |T|; a smaller set is not what is wrong."""
    data = small_data(0).assign(k=lambda d: d["h"])
    made = design("y ~ 1 + (1 | j) + (1 | h) + (1 | k)", data)
    message = (
        "flat priors on `sd_h` and `sd_k` leave the posterior improper: together they need random "
        "effects of rank 3 beside the fixed effects that have flat priors, and the rank is 2. Give "
        "one of them a proper prior with priors=, such as HalfNormal or HalfStudentT."
    )
    with pytest.raises(FitError) as caught:
        check_proper(made, resolve(made, "flat"))
    assert str(caught.value).replace("`sd_k` and `sd_h`", "`sd_h` and `sd_k`") == message
    check_proper(made, resolve(made, {"base": "flat", "sd_k": HalfNormal(1)}))


# The rule itself, against integrals: balanced one-way, with everything but the sds in closed form


def mass(levels, per_level, upper):
    """Integrate the posterior kernel under flat priors on mu, sigma, tau over tau < upper."""
    data = balanced(levels, per_level)
    groups = data.groupby("g")["y"]
    within = float(((data["y"] - groups.transform("mean")) ** 2).sum())
    between = per_level * float(((groups.mean() - data["y"].mean()) ** 2).sum())

    def kernel(log_tau, log_sigma):
        v, lam = np.exp(2 * log_sigma), np.exp(2 * log_sigma) + per_level * np.exp(2 * log_tau)
        logp = -(len(data) - levels) * log_sigma - (levels - 1) / 2 * np.log(lam)
        return np.exp(logp - within / 2 / v - between / 2 / lam + log_tau + log_sigma)

    return integrate.dblquad(kernel, -4, 12, -12, np.log(upper), epsabs=1e-10, epsrel=1e-7)[0]


@pytest.mark.parametrize(("levels", "is_proper"), [(2, False), (3, True)])
def test_two_levels_are_too_few_and_three_enough(levels, is_proper):
    uppers = (1e2, 1e3, 1e4)
    first, second, third = (mass(levels, 5, upper) for upper in uppers)
    growth = (third - second) / (second - first)  # 1 if the mass grows like log(upper)
    assert growth == pytest.approx(0.1 if is_proper else 1, rel=0.05)
    made = design("y ~ 1 + (1 | g)", balanced(levels, 5))
    if is_proper:
        check_proper(made, resolve(made, "flat"))
        return
    message = (
        "a flat prior on `sd_g` leaves the posterior improper: it needs at least 3 levels of `g`, "
        f"and there are 2. {PROPER}"
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, resolve(made, "flat"))


@pytest.mark.parametrize("eta", [0.2, 0.5, 1.0, 3.0])
def test_a_perfect_correlation_does_not_slow_the_fall_too_much(eta):
    """Two correlated coefficients of three levels, both sds like s: s^-(2 + min(2 eta, 2)).

    The rank is 4 where the correlation matrix has rank 2, and 2 where it has rank 1; the LKJ
    density makes up for more of the difference than the 2 that two sds need.
    """
    made, priors = with_priors("y ~ x + (x | h)", small_data(5), "flat")
    K, (one, x) = parts(made, priors)
    A, B, C = (K.T @ M @ K for M in (one @ one.T, x @ x.T, one @ x.T + x @ one.T))

    def density(log_s):
        def kernel(log_rest):  # of 1 - |rho|, for either sign
            rho, total = 1 - np.exp(log_rest), 0.0
            for r in (rho, -rho):
                V = np.eye(len(A)) + np.exp(2 * log_s) * (A + B + r * C)
                total += np.exp(-np.linalg.slogdet(V).logabsdet / 2)
            return total * np.exp(log_rest) * (np.exp(log_rest) * (1 + rho)) ** (eta - 1)

        grid = np.linspace(-60, 0, 4001)
        return np.trapezoid([kernel(value) for value in grid], grid)

    slope = (np.log(density(10.0)) - np.log(density(9.0))) / 1.0
    assert slope == pytest.approx(-(2 + min(2 * eta, 2)), abs=0.15)
    assert slope < -2.2


@pytest.mark.parametrize(
    ("sigma", "order"),
    [
        (HalfNormal(1), 0),
        (Flat(), 0),
        (Gamma(1.5, 1), 0.5),
        (Gamma(1, 1), 0),
        (Uniform(0, 3), 0),
        (Uniform(0.1, 3), np.inf),
        (Constant(1), np.inf),
        (InverseGamma(2, 1), np.inf),
        (LogNormal(0, 1), np.inf),
    ],
    ids=str,
)
def test_a_ratio_with_a_flat_prior_and_an_effect_of_every_row(sigma, order):
    made = design("y ~ 1 + (1 | g)", balanced(8, 1))
    given = resolve(made, {"Intercept": Flat(), "sigma": sigma, "sd": Relative(Flat())})
    if order > 0:
        check_proper(made, given)
        return
    message = (
        "a flat prior on `sd_g` relative to sigma leaves the posterior improper: the model has as "
        "many effects as rows, so that sigma can go to zero. Give the ratio a proper prior with "
        "priors=, such as Relative(HalfNormal(1))."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, given)


def test_effects_that_go_to_zero_with_sigma_do_not_fit_the_rows():
    made = design("y ~ 1 + (1 | row) + (1 | h)", small_data(0))
    given = {"sd_row": Relative(HalfNormal(1)), "sd_h": Relative(Flat())}
    check_proper(made, resolve(made, given))
    with pytest.raises(FitError, match="as many effects as rows"):
        check_proper(made, resolve(made, given | {"sd_row": HalfNormal(1)}))


@pytest.mark.parametrize(("power_at_zero", "is_proper"), [(0.0, False), (0.5, True)])
def test_the_integral_over_the_ratio(power_at_zero, is_proper):
    """y has variance sigma^2 (1 + ratio^2); what is left after sigma must fall faster than 1/t."""
    ss = float(((y := balanced(8, 1)["y"]) - y.mean()).pow(2).sum())

    def left(ratio):
        def kernel(log_sigma):
            v = np.exp(2 * log_sigma) * (1 + ratio**2)
            prior = np.exp(power_at_zero * log_sigma - np.exp(2 * log_sigma) / 2)
            return v**-3.5 * np.exp(-ss / 2 / v + log_sigma) * prior

        return integrate.quad(kernel, -25, 3, epsabs=0, limit=400)[0]

    slope = np.log(left(1e4) / left(1e3)) / np.log(10)
    assert slope == pytest.approx(-1 - power_at_zero, abs=1e-3)
    assert (slope < -1 - 1e-2) == is_proper


def test_a_saturating_set_of_terms_counts_as_one():
    data = small_data(3, n=8).assign(a=list("aabbccdd"), b=list("abababab"))
    made = design("y ~ 0 + a + (1 | j) + (1 | h)", data.assign(j=data["row"]))
    with pytest.raises(FitError, match="as many effects as rows"):
        check_proper(made, resolve(made, {"sd": Relative(Flat()), "sigma": HalfNormal(1)}))
    pairs = design("y ~ a + (0 + b | a)", data)
    given = {"sd": Relative(Flat()), "sigma": HalfNormal(1)}
    with pytest.raises(FitError, match="as many effects as rows"):
        check_proper(pairs, resolve(pairs, given))
    fewer = design("y ~ a + (1 | a) + (1 | b)", data)
    with pytest.raises(FitError, match=r"^a flat prior on `sd_b` leaves"):
        check_proper(fewer, resolve(fewer, {"base": "flat", "sd_a": HalfNormal(1)}))


# Fixed effects and sigma


def test_flat_priors_on_dependent_fixed_effects():
    made = design("y ~ x + I(2 * x) + v + I(x + v)", small_data(1))
    message = (
        "flat priors on linearly dependent fixed effects leave the posterior improper: `I(2 * x)` "
        "and `I(x + v)` are combinations of the columns before. Leave out what is not needed, or "
        "give it a proper prior with priors=, such as Normal."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, resolve(made, "flat"))
    one = {"base": "flat", "I(x + v)": Normal(0, 1)}
    with pytest.raises(FitError, match=re.escape("improper: `I(2 * x)` is a combination of")):
        check_proper(made, resolve(made, one))
    check_proper(made, resolve(made, one | {"x": Normal(0, 1)}))
    check_proper(made, resolve(made, one | {"x": Constant(1)}))


def test_a_flat_sigma_needs_two_rows_more_than_flat_fixed_effects():
    data = pd.DataFrame({"y": [1.0, 3.0, 2.0], "x": [1.0, 2.0, 4.0]})
    check_proper(*with_priors("y ~ 1", data, "flat"))
    check_proper(*with_priors("y ~ x", data, {"base": "flat", "sigma": HalfNormal(1)}))
    message = (
        "a flat prior on `sigma` leaves the posterior improper: with 2 flat priors on fixed "
        "effects at least 4 rows are needed, and there are 3. Give `sigma` a proper prior with "
        "priors=, such as HalfStudentT."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(*with_priors("y ~ x", data, "flat"))
    message = (
        "flat priors on `sigma` and `sd_g` leave the posterior improper: with 1 flat priors on "
        "fixed effects at least 4 rows are needed, and there are 3. Give `sigma` a proper prior "
        "with priors=, such as HalfStudentT."
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(*with_priors("y ~ 1 + (1 | g)", balanced(3, 1), "flat"))


def with_priors(text, data, setting):
    made = design(text, data)
    return made, resolve(made, setting)


# Messages, and what is fine


def test_a_coefficient_that_is_zero_in_most_levels():
    made, priors = with_priors("y ~ x0 + (x0 || h)", small_data(2), {"sd": Flat()})
    message = (
        "a flat prior on `sd_h[x0]` leaves the posterior improper: it needs at least 2 levels of "
        f"`h` with `x0` other than 0, and there is 1. {PROPER}"
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, priors)


def test_a_factor_that_is_a_fixed_effect_too():
    made, priors = with_priors("y ~ i + (1 | i)", small_data(2, n=30), "flat")
    message = (
        "a flat prior on `sd_i` leaves the posterior improper: it needs random effects of rank 2 "
        f"beside the fixed effects that have flat priors, and the rank is 0. {PROPER}"
    )
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, priors)
    check_proper(made, resolve(made, {"sd": Flat()}))


@pytest.mark.parametrize("setting", ["default", "boundary", "brms", {"sd": Gamma(2, 1e-6)}])
def test_proper_priors_on_sds_are_enough(setting):
    check_proper(*with_priors("y ~ x + (1 | g)", small_data(0), setting))


def test_rows_in_many_chunks_and_columns_of_any_size():
    n = 50_000
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.normal(size=n), "year": rng.integers(1990, 2020, n) * 1.0})
    data["g"], data["h"] = (np.arange(n) * 3 // n).astype(str), (np.arange(n) % 2).astype(str)
    data["tiny"] = 1e-9 * rng.normal(size=n)
    text = "y ~ year + I(year^2) + (0 + tiny | g)"
    check_proper(*with_priors(f"{text} + (1 | g)", data, "flat"))
    with pytest.raises(FitError, match=r"on `sd_h` leaves .* at least 3 levels of `h`"):
        check_proper(*with_priors(f"{text} + (1 | h)", data, "flat"))


def test_which_sets_of_priors_are_proper():
    made = design("y ~ x + (1 | g)", small_data(0))
    settings = ["default", "rstanarm", {"sigma": Constant(1)}]
    assert all(is_proper_prior(resolve(made, setting)) for setting in settings)
    settings = ["flat", "boundary", "brms", {"x": Flat()}, {"sd": Relative(Flat())}]
    assert not any(is_proper_prior(resolve(made, setting)) for setting in settings)


# Generalised models


def binary(**columns):
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"x": rng.normal(size=40), "g": np.arange(40) % 8})
    data["y"] = (rng.uniform(size=40) < 0.5) * 1.0
    return data.assign(**columns)


def refused(made, priors, family, message):
    with pytest.raises(FitError, match=f"^{re.escape(message)}$"):
        check_proper(made, resolve(made, priors, family), family)


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_are_proper_in_every_family(family):
    made, own = design("y ~ x + (1 | g)", binary(y=lambda d: d["x"] ** 2)), find_family(family)
    priors = resolve(made, family=own)
    assert is_proper_prior(priors)
    check_proper(made, priors, own)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_flat_effects_of_a_probability_need_data_without_separation(link):
    family = find_family("binomial", link)
    check_proper(design("y ~ x + (1 | g)", binary()), with_flat(binary(), family), family)
    apart = binary(y=lambda d: (d["x"] > 0) * 1.0)
    message = (
        "a flat prior on `x` leaves the posterior improper: the data are separated, so that the "
        "likelihood does not fall to zero along it. Give it a proper prior with priors=, such as "
        "Normal."
    )
    refused(
        design("y ~ x + (1 | g)", apart), {"beta": Flat(), "Intercept": Flat()}, family, message
    )
    proper = resolve(design("y ~ x + (1 | g)", apart), {"Intercept": Flat()}, family)
    check_proper(design("y ~ x + (1 | g)", apart), proper, family)  # the intercept alone is pinned


def with_flat(data, family):
    made = design("y ~ x + (1 | g)", data)
    return resolve(made, {"beta": Flat(), "Intercept": Flat()}, family)


def mass_of_slope(y, x, upper):
    """Integrate a logistic likelihood under a flat prior of a slope over abs(slope) < upper."""
    sign = 2 * y - 1

    def kernel(slope):
        return np.exp(special.log_expit(sign * slope * x).sum())

    ends = np.append(0.0, np.geomspace(1e-3, upper, 40))
    ends = np.append(-ends[:0:-1], ends)
    return sum(integrate.quad(kernel, a, b)[0] for a, b in pairwise(ends))


def test_separation_is_what_makes_the_mass_infinite():
    x = binary()["x"].to_numpy()
    for y, is_proper in ((binary()["y"].to_numpy(), True), ((x > 0) * 1.0, False)):
        small, large = (mass_of_slope(y, x, upper) for upper in (1e6, 1e7))
        assert large == pytest.approx(small if is_proper else 10 * small, rel=0.02)
        made = design("y ~ 0 + x", binary(y=y))
        if is_proper:
            check_proper(made, resolve(made, "flat", BINOMIAL), BINOMIAL)
        else:
            with pytest.raises(FitError, match="the data are separated"):
                check_proper(made, resolve(made, "flat", BINOMIAL), BINOMIAL)


@pytest.mark.parametrize(
    ("intercept", "is_proper"),
    [(Normal(0, 1), True), (StudentT(3, 0, 1), True), (StudentT(1, 0, 1), False)],
    ids=str,
)
def test_a_proper_prior_holds_a_flat_slope_back_if_its_tails_are_light(intercept, is_proper):
    """Outcomes that change at x = 1 to 2: far out the intercept is between -2 and -1 slopes.

    The mass of slopes around s is P(-2 s < intercept < -s), and its integral over s > 0 half the
    mean of the absolute value of the intercept.
    """
    data = binary(x=np.repeat([0.0, 1.0, 2.0, 3.0], 10), y=np.repeat([0.0, 0.0, 1.0, 1.0], 10))
    made = design("y ~ x + (1 | g)", data)
    priors = resolve(made, {"x": Flat(), "Intercept": intercept}, BINOMIAL)
    frozen = stats.norm() if isinstance(intercept, Normal) else stats.t(intercept.nu)
    small, large = (
        integrate.quad(lambda s: (frozen.sf(np.exp(s)) - frozen.sf(2 * np.exp(s))) * np.exp(s),
                       -9, np.log(upper), limit=500)[0]
        for upper in (1e3, 1e6)
    )  # fmt: skip
    assert (large < 1.001 * small) == is_proper
    if is_proper:
        check_proper(made, priors, BINOMIAL)
    else:
        with pytest.raises(FitError, match=r"^a flat prior on `x` leaves the posterior improper"):
            check_proper(made, priors, BINOMIAL)


@pytest.mark.parametrize(
    ("prior", "order"),
    [
        (HalfStudentT(4, 1), 4), (HalfCauchy(1), 1), (InverseGamma(0.4, 1), 0.4),
        (StudentT(2.5, 0, 1), 2.5), (Flat(), 0), (Uniform(0, 1), np.inf), (LogNormal(0, 1), np.inf),
    ],
    ids=str,
)  # fmt: skip
def test_the_order_of_the_moments(prior, order):
    """A prior with an order up to the number of flat effects is counted as one of them."""
    assert prior.moments == order


def test_brms_has_flat_slopes_and_a_t_intercept():
    """Three flat slopes are too many for it where there is separation with an intercept."""
    x = binary()["x"].rank()
    for shift, is_proper in ((0, False), (10, True)):
        data = binary(x=x, y=(x > 20.5 + shift) * 1.0)  # at the mean, or elsewhere
        made = design("y ~ x + (1 | g)", data)
        assert _accepts(made, "brms") == is_proper
    data = data.assign(u=np.arange(40) % 3, v=np.arange(40) % 7)
    assert _accepts(design("y ~ x + u + (1 | g)", data), "brms")
    assert not _accepts(design("y ~ x + u + v + (1 | g)", data), "brms")


def _accepts(made, priors):
    try:
        check_proper(made, resolve(made, priors, BINOMIAL), BINOMIAL)
    except FitError as error:
        assert "the data are separated" in str(error)  # noqa: PT017 -- not what is tested
        return False
    return True


@pytest.mark.parametrize("name", ["poisson", "negative_binomial"])
def test_flat_effects_of_counts_need_a_count_on_every_side(name):
    family, setting = find_family(name), {"beta": Flat(), "Intercept": Flat()}
    check_proper(design("y ~ x", binary()), with_flat(binary(), family), family)
    data = binary(y=lambda d: np.where(d["x"] > 0, 3.0, 0.0), f=lambda d: (d["x"] > 0) * 1.0)
    message = (
        "a flat prior on `f` leaves the posterior improper: the data are separated, so that the "
        "likelihood does not fall to zero along it. Give it a proper prior with priors=, such as "
        "Normal."
    )
    refused(design("y ~ f + (1 | g)", data), setting, family, message)
    for link in ("sqrt", "identity"):
        other = find_family("poisson", link)
        check_proper(design("y ~ f + (1 | g)", data), resolve(
            design("y ~ f + (1 | g)", data), setting, other), other)  # fmt: skip


def test_a_flat_intercept_of_nothing_but_failures():
    message = (
        "a flat prior on `Intercept` leaves the posterior improper: the data are separated, so "
        "that the likelihood does not fall to zero along it. Give it a proper prior with priors=, "
        "such as Normal."
    )
    for family in (BINOMIAL, POISSON):
        refused(design("y ~ 1 + (1 | g)", binary(y=0.0)), {"Intercept": Flat()}, family, message)


POSITIVE = [("gamma", "log"), ("gamma", "inverse"), ("inverse_gaussian", "inverse_squared"),
            ("inverse_gaussian", "inverse"), ("beta", "logit"), ("t", "identity")]  # fmt: skip


@pytest.mark.parametrize(("name", "link"), POSITIVE)
def test_flat_effects_of_other_responses_need_independent_columns(name, link):
    family = find_family(name, link)
    data = binary(y=lambda d: 0.1 + 0.8 * d["x"].rank() / 41)
    check_proper(design("y ~ x + (1 | g)", data), with_flat(data, family), family)
    twice = binary(y=data["y"], z=lambda d: 2 * d["x"])
    refused(
        design("y ~ x + z", twice), {"beta": Flat()}, family,
        "flat priors on linearly dependent fixed effects leave the posterior improper: `z` is a "
        "combination of the columns before. Leave out what is not needed, or give it a proper "
        "prior with priors=, such as Normal.",
    )  # fmt: skip


UNKNOWN = [("gaussian", "log"), ("inverse_gaussian", "log"), ("binomial", "cauchit"),
           ("gamma", "identity"), ("t", "log")]  # fmt: skip


@pytest.mark.parametrize(("name", "link"), UNKNOWN)
def test_flat_effects_where_a_likelihood_falls_slowly_or_not_at_all(name, link):
    family = find_family(name, link)
    data = binary(y=lambda d: 0.1 + 0.8 * d["x"].rank() / 41)
    message = (
        f"flat priors on `Intercept` and `x` cannot be used in a {name} model with {link} link, "
        "whose likelihood is not known to fall to zero fast enough as the linear predictor goes to "
        "infinity. Give them proper priors with priors=, such as Normal."
    )
    setting = {"beta": Flat(), "Intercept": Flat()}
    refused(design("y ~ x + (1 | g)", data), setting, family, message)


def test_an_inverse_gaussian_likelihood_does_not_fall_on_the_log():
    """It tends to a constant as the mean goes to infinity, so that a refusal is right."""
    family, y = find_family("inverse_gaussian"), np.array([0.5, 2.0, 3.0])
    far = [family.log_density(y, np.exp(eta), np.ones(3), 1.0).sum() for eta in (50.0, 200.0)]
    assert far[0] == pytest.approx(far[1])
    assert np.isfinite(far[0])


def test_families_and_links_of_the_users_need_proper_priors():
    mine = replace(POISSON, name="mine", pins=())
    message = (
        "a flat prior on `x` cannot be used in a mine model with log link, whose likelihood is not "
        "known to fall to zero fast enough as the linear predictor goes to infinity. Give it a "
        "proper prior with priors=, such as Normal."
    )
    refused(design("y ~ x + (1 | g)", binary()), {"x": Flat()}, mine, message)
    own = replace(BINOMIAL, link=Link("own", special.logit, special.expit))
    priors = with_flat(binary(), own)
    with pytest.raises(FitError, match="with own link, whose"):
        check_proper(design("y ~ x", binary()), priors, own)


def test_flat_priors_on_anything_else_are_refused():
    made = design("y ~ x + (x | g)", binary(y=lambda d: d["x"] ** 2))
    message = (
        "flat priors on `shape`, `sd_g[Intercept]` and `sd_g[x]` cannot be used in a "
        "negative_binomial model: whether the posterior is proper is known for normal responses "
        "only. Give them proper priors with priors=, such as HalfNormal or Gamma."
    )
    refused(made, {"shape": Flat(), "sd": Flat()}, find_family("negative_binomial"), message)
    message = (
        "a flat prior on `sigma` cannot be used in a gaussian model: whether the posterior is "
        "proper is known for normal responses only. Give it a proper prior with priors=, such as "
        "HalfNormal or Gamma."
    )
    positive = design("y ~ x + (1 | g)", binary(y=lambda d: 1 + d["x"] ** 2))
    refused(positive, {"sigma": Flat()}, find_family("gaussian", "log"), message)
    check_proper(positive, resolve(positive, {"sigma": Flat()}), GAUSSIAN)


def test_flat_effects_are_judged_where_their_priors_hold():
    """At centred predictors: dropping the intercept's column leaves a slope that is pinned."""
    data = binary(x=lambda d: d["x"] + 100)
    made = design("y ~ x + (1 | g)", data)
    priors = resolve(made, "brms", BINOMIAL)
    assert priors.change is not None
    check_proper(made, priors, BINOMIAL)
