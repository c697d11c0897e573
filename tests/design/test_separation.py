"""Separation: against ridge paths on random data, by hand, and in time."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import ranef as rf
from ranef.design.design import build_design, full_rank
from ranef.design.separation import separated_columns
from ranef.families.binomial import BINOMIAL
from ranef.families.gaussian import GAUSSIAN
from ranef.families.links import IDENTITY, LOG, Link
from ranef.families.poisson import POISSON
from ranef.formula.terms import read_formula

BERNOULLI = replace(BINOMIAL, name="bernoulli", support="binary")
PROBIT = Link("probit", stats.norm.ppf, stats.norm.cdf)
CLOGLOG = Link("cloglog", lambda mu: np.log(-np.log1p(-mu)), lambda eta: -np.expm1(-np.exp(eta)))
CAUCHIT = Link("cauchit", stats.cauchy.ppf, stats.cauchy.cdf)
INVERSE = Link("inverse", np.reciprocal, np.reciprocal, positive=True)
SQRT = Link("sqrt", np.sqrt, np.square)


def design(text, frame, family=BINOMIAL, **options):
    return full_rank(build_design(read_formula(text), frame, family=family, **options))


def found(text, frame, family=BINOMIAL, **options):
    return separated_columns(design(text, frame, family, **options), family)


# ------------------------------------------------------------------------------ by brute force


def ridge_estimate(X, y, w, family, penalty):
    """Maximise the log-likelihood minus a ridge penalty by Newton's method with halved steps."""

    def logistic(eta):
        mu = special.expit(eta)
        value = w @ (y * special.log_expit(eta) + (1 - y) * special.log_expit(-eta))
        return value, w * (y - mu), w * mu * (1 - mu)

    def poisson(eta):
        mu = np.exp(np.minimum(eta, 50))
        return w @ (y * eta - mu), w * (y - mu), w * mu

    rise = logistic if family is BINOMIAL else poisson
    beta = np.zeros(X.shape[1])
    for _ in range(500):
        value, score, weight = rise(X @ beta)
        gradient = X.T @ score - penalty * beta
        step = np.linalg.solve((X.T * weight) @ X + penalty * np.eye(len(beta)), gradient)
        if gradient @ step < 1e-18:
            break
        size = 1.0
        goal = value - penalty / 2 * beta @ beta
        while size > 1e-10:
            new = beta + size * step
            if rise(X @ new)[0] - penalty / 2 * new @ new >= goal:
                break
            size /= 2
        beta = beta + size * step
    return beta


def is_without_estimate(built, family):
    """Whether the estimate goes on growing as the penalty vanishes."""
    path = [
        ridge_estimate(built.rows.X, built.rows.y, built.rows.weights, family, penalty)
        for penalty in (1e-4, 1e-7)
    ]
    return np.abs(path[1] - path[0]).max() > 1.0


def random_frame(seed, family):
    rng = np.random.default_rng(seed)
    n = rng.integers(5, 30)
    frame = pd.DataFrame(
        {
            "x": rng.integers(-2, 3, n),
            "z": rng.normal(size=n).round(1),
            "f": [*"abc", *rng.choice(list("abc"), n - 3)],
            "n": rng.integers(1, 4, n),
        }
    )
    eta = rng.normal(size=4) * [1, 1, 1, 2] @ [
        np.ones(n), frame["x"], frame["z"], frame["f"] == "a"
    ]  # fmt: skip
    if family is BINOMIAL:
        frame["y"] = rng.binomial(frame["n"], special.expit(eta)) / frame["n"]
    else:
        frame["y"] = rng.poisson(np.exp(np.clip(eta - 1, -5, 3)))
    return frame


FORMULAS = ["y ~ x", "y ~ x + z", "y ~ 0 + x + z", "y ~ 0 + f", "y ~ f + z", "y ~ x*z", "y ~ f + x"]


@pytest.mark.parametrize("family", [BINOMIAL, POISSON], ids=lambda f: f.name)
def test_separation_is_where_estimates_go_on_growing(family):
    outcomes = []
    for seed, formula in enumerate(FORMULAS * 8):
        frame = random_frame(seed, family)
        built = design(formula, frame, family, weights="n" if family is BINOMIAL else None)
        names = separated_columns(built, family)
        assert bool(names) == is_without_estimate(built, family), (seed, formula)
        outcomes.append(bool(names))
        if names:  # and the columns that are named do it alone
            kept = [name in (*names, "Intercept") for name in built.fixed]
            fixed = tuple(np.array(built.fixed)[kept].tolist())
            part = replace(built.with_rows(X=built.rows.X[:, kept]), fixed=fixed)
            assert is_without_estimate(part, family), (seed, formula)
    assert 5 < sum(outcomes) < len(outcomes) - 5


# ------------------------------------------------------------------------------------- by hand

N = 40
RNG = np.random.default_rng(5)
FRAME = pd.DataFrame(
    {
        "x": np.arange(N) / 10 + 2000,
        "z": RNG.normal(size=N),
        "f": np.tile(list("abcd"), 10),
        "mixed": np.tile([0, 1, 1, 0, 1], 8),
    }
)
LATE = (FRAME["x"] > 2001.75).astype(float)


@pytest.mark.parametrize(
    ("formula", "y", "names"),
    [
        ("y ~ x + z + f", FRAME["mixed"], ()),
        ("y ~ x + z + f", LATE, ("x",)),
        ("y ~ 0 + x + z", LATE, ()),
        ("y ~ z + f", LATE.where(FRAME["f"] != "b", 1.0), ("f[T.b]",)),
        ("y ~ z + f", LATE.where(FRAME["f"] != "a", 0.0), ("f[T.b]", "f[T.c]", "f[T.d]")),
        ("y ~ 0 + f + z", LATE.where(FRAME["f"] != "a", 0.0), ("f[a]",)),
        (
            "y ~ z + f",
            LATE.where(FRAME["f"] != "b", 1.0).where(FRAME["f"] != "d", 0.0),
            ("f[T.b]", "f[T.d]"),
        ),
        ("y ~ z + f", LATE * 0, ("Intercept",)),
        ("y ~ 1", LATE * 0 + 1, ("Intercept",)),
        ("y ~ 0 + z", LATE * 0 + 1, ()),  # as conditional logistic regression has it
        ("y ~ 0 + x", LATE * 0 + 1, ("x",)),
        ("y ~ 0 + f", LATE * 0, ("f[a]", "f[b]", "f[c]", "f[d]")),
        ("y ~ 0", LATE, ()),
        ("y ~ f*z", (FRAME["z"] > 0.1) * 1.0, ("z",)),
    ],
)
def test_the_columns_that_separate_are_named(formula, y, names):
    if formula == "y ~ 0":
        formula = "y ~ 0 + (1 | f)"
    assert found(formula, FRAME.assign(y=y)) == names
    assert found(formula, FRAME.assign(y=1 - y)) == names
    assert found(formula, FRAME.assign(y=y), BERNOULLI) == names


def test_a_row_on_the_threshold_of_both_kinds_is_quasi_separation():
    frame = pd.DataFrame({"x": [1, 2, 3, 3, 4, 5], "y": [0, 0, 0, 1, 1, 1]})
    assert found("y ~ x", frame) == ("x",)
    frame.loc[5, "y"] = 0
    assert found("y ~ x", frame) == ()
    trials = frame.assign(y=[0, 0, 0, 0.5, 1, 1], n=2)
    assert found("y ~ x", trials, weights="n") == ("x",)
    assert found("y ~ x", trials.assign(y=[0, 0, 0.5, 0.5, 1, 1]), weights="n") == ("x",)
    assert found("y ~ x", trials.assign(y=[0, 0.5, 0, 0.5, 1, 1]), weights="n") == ()


def test_counts_are_separated_where_they_are_zero():
    counts = np.where(FRAME["f"] == "b", 0, 1 + FRAME["mixed"])
    assert found("y ~ z + f", FRAME.assign(y=counts), POISSON) == ("f[T.b]",)
    assert found("y ~ z + f", FRAME.assign(y=counts + 1), POISSON) == ()
    assert found("y ~ z", FRAME.assign(y=0), POISSON) == ("Intercept",)
    assert found("y ~ z + x", FRAME.assign(y=LATE), POISSON) == ()
    after = FRAME.assign(y=np.where(LATE == 1, 0, 1 + FRAME["mixed"]), s=LATE * FRAME["z"] ** 2)
    assert found("y ~ z + s", after, POISSON) == ("s",)


@pytest.mark.parametrize("link", [PROBIT, CLOGLOG, CAUCHIT], ids=lambda link: link.name)
def test_links_that_reach_both_ends(link):
    family = replace(BINOMIAL, link=link)
    assert found("y ~ x + z", FRAME.assign(y=LATE), family) == ("x",)
    assert found("y ~ x + z", FRAME.assign(y=FRAME["mixed"]), family) == ()


def test_links_that_reach_one_end_or_none():
    separated = FRAME.assign(y=LATE)
    assert found("y ~ x", separated, replace(BINOMIAL, link=LOG)) == ()
    zeros = FRAME.assign(y=np.where(FRAME["f"] == "b", 0.0, FRAME["mixed"]))
    ones = zeros.assign(y=1 - zeros["y"])
    assert found("y ~ f", zeros, replace(BINOMIAL, link=LOG)) == ("f[T.b]",)
    assert found("y ~ f", ones, replace(BINOMIAL, link=LOG)) == ()
    for link in (IDENTITY, INVERSE, SQRT):
        assert found("y ~ f", zeros, replace(BINOMIAL, link=link)) == ()
        assert found("y ~ f", zeros, replace(POISSON, link=link)) == ()


def test_families_of_measurements_know_no_separation():
    for support in ("real", "positive", "unit"):
        family = replace(GAUSSIAN, link=LOG, support=support)
        built = design("y ~ x", FRAME.assign(y=LATE))
        assert separated_columns(built, family) == ()


@pytest.mark.parametrize("shift", [0, 1e3, -1e6])
@pytest.mark.parametrize("scale", [1e-8, 1, 1e8])
def test_shifts_and_scales_of_a_predictor_change_nothing(shift, scale):
    frame = FRAME.assign(x=(FRAME["x"] - 2000 + shift) * scale)
    assert found("y ~ x + z", frame.assign(y=LATE)) == ("x",)
    assert found("y ~ x", frame.assign(y=LATE.where(FRAME.index != 16, 1.0))) == ()


# ---------------------------------------------------------------------------------- many rows


@pytest.mark.parametrize("family", [BINOMIAL, POISSON], ids=lambda f: f.name)
def test_many_rows_are_as_few(family):
    n = 6000
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "rare": 0.0})
    frame["y"] = rng.integers(0, 2, n).astype(float)
    frame.loc[frame["x"].nlargest(5).index, ["rare", "y"]] = 1.0, 0.0
    assert found("y ~ x + z", frame, family) == ()
    assert found("y ~ x + z + rare", frame, family) == ("rare",)
    frame.loc[frame["x"].idxmax(), "y"] = 1.0
    assert found("y ~ x + z + rare", frame, family) == ()


def test_contraception_takes_no_time():
    frame = rf.load_dataset("Contraception")
    text = "use ~ age + I(age^2) + urban + livch + (1 | district)"
    built = design(text, frame)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert separated_columns(built, BINOMIAL) == ()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # a millisecond or two, on a machine that has nothing else to do
