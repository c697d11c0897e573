"""Nesting, against dense covariance matrices and against likelihoods; the words of obstacles."""

import numpy as np
import pytest
from designs import random_frame

import ranef as rf
from ranef.comparison.nesting import Extra, extra, obstacle, same_fixed
from ranef.covariances.covariance import factors
from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import estimate

FRAME = random_frame(np.random.default_rng(8), 120)
FRAME["x"] -= 7
FRAME["t"] = FRAME["x"] * 0.1 + 20  # x on another scale, from another origin
FRAME["k"] = np.random.default_rng(9).choice(list("AB"), 120)
FRAME["g"] = FRAME["c"].astype(str)  # the same groups, other labels

ROOM = [  # small, large: nested; Extra(fixed, variances, covariances, bounded)
    ("y ~ x", "y ~ x + (1 | c)", Extra(0, 1, 0, 1)),
    ("y ~ 1", "y ~ x + f + (1 | c)", Extra(3, 1, 0, 1)),
    ("y ~ x", "y ~ x + (x | c)", Extra(0, 2, 1, None)),
    ("y ~ x", "y ~ x + (x || c)", Extra(0, 2, 0, 2)),
    ("y ~ x + (1 | c)", "y ~ x + (1 | g)", Extra(0, 0, 0, 0)),
    ("y ~ x + (1 | c)", "y ~ t + (t | c)", Extra(0, 1, 1, 1)),
    ("y ~ x + (t | c)", "y ~ t + (x | c)", Extra(0, 0, 0, 0)),
    ("y ~ x + (x || c)", "y ~ x + (x | c)", Extra(0, 0, 1, 0)),
    ("y ~ x + (x || c)", "y ~ x + (t | c)", Extra(0, 0, 1, 0)),
    ("y ~ x + (1 | c) + (0 + x | c)", "y ~ x + (x || g)", Extra(0, 0, 0, 0)),
    ("y ~ x + (x || c)", "y ~ x + (1 | g) + (0 + x | c)", Extra(0, 0, 0, 0)),
    ("y ~ x + (x | c)", "y ~ x + (x + z | c)", Extra(0, 1, 2, 1)),
    ("y ~ x + (x || c)", "y ~ x + (x + z | c)", Extra(0, 1, 3, 1)),
    ("y ~ x + (1 | c)", "y ~ x + (x + z | c)", Extra(0, 2, 3, None)),
    ("y ~ x + (1 | c)", "y ~ x + (x + z || c)", Extra(0, 2, 0, 2)),
    ("y ~ x + (1 | c)", "y ~ x + (x | c) + (1 | i)", Extra(0, 2, 1, 2)),
    ("y ~ x + (1 | c)", "y ~ x + (1 | c) + (x | i)", Extra(0, 2, 1, None)),
    ("y ~ (1 | s)", "y ~ (1 | r/s)", Extra(0, 1, 0, 1)),
    ("y ~ (1 | c:s)", "y ~ (1 | s/c)", Extra(0, 1, 0, 1)),
    ("y ~ (1 | i)", "y ~ (f | i)", Extra(0, 2, 3, None)),
    ("y ~ (f | i)", "y ~ (0 + f | i)", Extra(0, 0, 0, 0)),
    ("y ~ (1 | k:i)", "y ~ (0 + k || i)", Extra(0, 1, 0, 0)),
    ("y ~ (1 | i) + (1 | k:i)", "y ~ (k | i)", Extra(0, 0, 1, 0)),
    ("y ~ (1 | i) + (1 | i:f)", "y ~ (f | i)", Extra(0, 1, 3, 0)),
    ("y ~ (0 + x | i) + (0 + x | i:f)", "y ~ (0 + x:f | i)", Extra(0, 1, 3, 0)),
    ("y ~ 0 + x + (0 + x | c)", "y ~ x + (x || c)", Extra(1, 1, 0, 1)),
]
FIXED = "the fixed effects {} of the first are no combination of those of the second"
RANDOM = "the random effects {} of the first are not among those of the second"
OUTSIDE = [  # small, large, why not
    ("y ~ x", "y ~ z", FIXED.format("`x`")),
    ("y ~ x * f", "y ~ x + f", FIXED.format("`x:f[T.b]` and `x:f[T.c]`")),
    ("y ~ x", "y ~ 0 + x + (1 | c)", FIXED.format("`Intercept`")),
    ("y ~ (1 | c)", "y ~ 1", RANDOM.format("(1 | c)")),
    ("y ~ (1 | c)", "y ~ (1 | i)", RANDOM.format("(1 | c)")),
    ("y ~ (1 | s)", "y ~ (1 | c)", RANDOM.format("(1 | s)")),
    ("y ~ (1 | c)", "y ~ (1 | s)", RANDOM.format("(1 | c)")),
    ("y ~ (1 | c)", "y ~ (0 + x | c)", RANDOM.format("(1 | c)")),
    ("y ~ (x | c)", "y ~ (x || c)", RANDOM.format("(1 + x | c)")),
    ("y ~ (t || c)", "y ~ (x || c)", RANDOM.format("(1 + t || c)")),
    ("y ~ (x | c)", "y ~ (z | c) + (0 + x | c)", RANDOM.format("(1 + x | c)")),
    ("y ~ (x | c) + (z | i)", "y ~ (x | c) + (x | i)", RANDOM.format("(1 + z | i)")),
    ("y ~ (1 | i)", "y ~ (0 + f || i)", RANDOM.format("(1 | i)")),
    ("y ~ (0 + x | i:f)", "y ~ (0 + f | i)", RANDOM.format("(0 + x | i:f)")),
]


def design(text, frame=FRAME, **options):
    return full_rank(build_design(read_formula(text), frame, **options))


def covariance_of(term, Sigma):
    """Return the covariance of the response that a term gives, n x n."""
    same = term.codes[:, None] == term.codes
    return same * (term.columns @ Sigma @ term.columns.T)


def generators(built):
    """Return matrices whose combinations are all covariances, per term."""
    found = []
    for term, rows in zip(built.terms, built.rows.terms, strict=True):
        k = term.n_coefs
        pairs = [
            (a, b)
            for a in range(k)
            for b in range(a + 1)
            if term.covariance.has_correlations or a == b
        ]
        unit = np.eye(k)
        parts = [np.outer(unit[a], unit[b]) + np.outer(unit[b], unit[a]) for a, b in pairs]
        found.append([(part, covariance_of(rows, part).ravel()) for part in parts])
    return found


def reaches(small, large, rng):
    """Whether a covariance of the small design, drawn at random, is one of the large design's."""
    shapes = [t.covariance for t in small.terms]
    theta = rng.normal(size=sum(s.n_theta for s in shapes))
    wanted = sum(
        (
            covariance_of(t, L @ L.T)
            for t, L in zip(small.rows.terms, factors(theta, shapes), strict=True)
        ),
        np.zeros((small.n_obs, small.n_obs)),
    ).ravel()
    found = generators(large)
    columns = np.array([column for parts in found for _, column in parts]).reshape(-1, len(wanted))
    weights = np.linalg.lstsq(columns.T, wanted, rcond=1e-13)[0]
    left = np.linalg.norm(wanted - weights @ columns) > 1e-6 * np.linalg.norm(wanted)
    largest, weights = np.abs(weights).max(initial=0), iter(weights)
    matrices = [sum(next(weights) * part for part, _ in parts) for parts in found]
    lowest = [np.linalg.eigvalsh(M)[0] for M in matrices]
    return not left and min(lowest, default=0) >= -1e-6 * largest


# ------------------------------------------------------------------------------- what is nested


@pytest.mark.parametrize(("small", "large", "counts"), ROOM)
def test_nested_designs_and_what_the_larger_has_more(small, large, counts):
    assert obstacle(design(small), design(large)) == ""
    assert extra(design(small), design(large)) == counts


@pytest.mark.parametrize(("small", "large", "reason"), OUTSIDE)
def test_designs_that_are_not_nested(small, large, reason):
    assert obstacle(design(small), design(large)) == reason


@pytest.mark.parametrize(("small", "large"), [case[:2] for case in ROOM + OUTSIDE])
def test_nested_is_what_can_make_every_covariance_of_the_smaller_model(small, large):
    rng = np.random.default_rng(3)
    a, b = design(small), design(large)
    found = all(reaches(a, b, rng) for _ in range(4))
    X, Y = b.rows.X, a.rows.X
    left = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    fixed = np.abs(left).max(initial=0) < 1e-8 * np.abs(Y).max(initial=1)
    assert (obstacle(a, b) == "") == (found and fixed)


@pytest.mark.parametrize("case", ROOM[::2], ids=str)
def test_a_nested_model_never_fits_better(case):
    small, large = (design(text) for text in case[:2])
    values = [estimate(cross_products(d), reml=False).loglik for d in (small, large)]
    if case[2].total:
        assert values[1] >= values[0] - 1e-7
    else:
        assert values[1] == pytest.approx(values[0], abs=1e-6)


@pytest.mark.parametrize("case", ROOM, ids=str)
def test_counts_are_differences_of_parameters(case):
    def size(built):
        return built.rows.X.shape[1] + sum(t.covariance.n_theta for t in built.terms)

    small, large = (design(text) for text in case[:2])
    assert size(large) - size(small) == case[2].total
    assert case[2].random == case[2].total - case[2].fixed


def test_units_and_origins_do_not_matter():
    year = FRAME.assign(u=2000 + 0.01 * FRAME["x"])
    assert extra(design("y ~ x + (x | c)"), design("y ~ u + (u | c)", year)) == Extra(0, 0, 0, 0)
    assert extra(design("y ~ x + (1 | c)"), design("y ~ u + (u | c)", year)) == Extra(0, 1, 1, 1)
    for scale in (1e-6, 1e6):
        frame = FRAME.assign(u=scale * FRAME["x"], v=FRAME["x"] + 1e3, w=scale * (FRAME["x"] + 1))
        assert extra(
            design("y ~ x + (u | c)", frame), design("y ~ u + (v + z | c)", frame)
        ) == Extra(0, 1, 2, 1)
        assert obstacle(design("y ~ w", frame), design("y ~ x", frame)) == ""
        assert obstacle(design("y ~ (w || c)", frame), design("y ~ (u || c)", frame)) != ""


def test_the_same_fixed_effects_in_another_coding():
    assert same_fixed(design("y ~ f"), design("y ~ 0 + f + (1 | c)"))
    assert same_fixed(design("y ~ x + t + z"), design("y ~ x + z"))  # t is left out
    assert not same_fixed(design("y ~ x"), design("y ~ x + z"))
    assert not same_fixed(design("y ~ x + z"), design("y ~ x"))
    assert not same_fixed(design("y ~ x"), design("y ~ z"))
    assert same_fixed(design("y ~ 0 + (1 | c)"), design("y ~ 0 + (1 | i)"))


def test_machines_other_covariances_is_within_the_unstructured_covariance():
    data = rf.load_dataset("Machines")
    small = design("score ~ Machine + (1 | Worker/Machine)", data)
    large = design("score ~ Machine + (0 + Machine | Worker)", data)
    assert extra(small, large) == Extra(0, 1, 3, 0)


def test_columns_that_change_sign_between_levels_only_are_the_same():
    sign = np.where(FRAME["c"] % 2, 1.0, -1.0)
    frame = FRAME.assign(x2=sign * FRAME["x"])
    assert (
        obstacle(design("y ~ x + (0 + x2 | c)", frame), design("y ~ x + (0 + x | c)", frame)) == ""
    )
    assert obstacle(design("y ~ x + (x2 | c)", frame), design("y ~ x + (x | c)", frame)) != ""
