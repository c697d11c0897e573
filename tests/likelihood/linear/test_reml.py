"""REML and ML estimates against closed forms, at the boundary, and under changes of units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from designs import STRUCTURES, between_and_within, dense, random_frame

import ranef as rf
from ranef.covariances.covariance import factors
from ranef.errors import Convergence
from ranef.likelihood.linear import blocked_cholesky, reml
from ranef.likelihood.linear.crossproducts import cross_products

DATA = Path(__file__).parents[2] / "reference" / "data"
DYESTUFF = "Yield ~ 1 + (1 | Batch)"


def balanced_one_way(data, response, factor):
    """Return sums of squares within and between, the number of groups and their size."""
    groups = data.groupby(factor, observed=True)[response]
    mean = groups.transform("mean")
    within = float(((data[response] - mean) ** 2).sum())
    between = float(((mean - data[response].mean()) ** 2).sum())
    return within, between, groups.ngroups, len(data) // groups.ngroups


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_dyestuff_has_a_closed_form(method):
    data = rf.load_dataset("Dyestuff")
    within, between, m, r = balanced_one_way(data, "Yield", "Batch")
    variance = within / (m * (r - 1))
    divisor = m - 1 if method == "reml" else m
    between_variance = (between / divisor - variance) / r
    fit = rf.fit(DYESTUFF, data, method)
    assert fit.sigma**2 == pytest.approx(variance, rel=1e-10)
    assert fit.varcorr().cov["Batch"].iloc[0, 0] == pytest.approx(between_variance, rel=1e-10)
    assert fit.theta[0] == pytest.approx(np.sqrt(between_variance / variance), rel=1e-10)
    se = np.sqrt(between / divisor / r / m) if method == "ml" else np.sqrt(between / (m - 1) / 30)
    assert fit.se().iloc[0] == pytest.approx(se, rel=1e-10)


def test_dyestuff_criterion():
    # the closed form at theta: Bates et al. (2015), eq. 41, for the balanced one-way layout
    model = rf.Model(DYESTUFF, rf.load_dataset("Dyestuff"))
    assert model.fit().objective == pytest.approx(319.654276842257, abs=1e-10 * 320)
    assert model.fit("ml").objective == pytest.approx(327.327059881135, abs=1e-10 * 330)
    assert model.criterion([1.0]) == pytest.approx(319.792389042002, rel=1e-12)
    assert model.criterion([0.0]) == pytest.approx(326.023232155879, rel=1e-12)


def test_dyestuff2_is_singular_and_says_so():
    fit = rf.fit(DYESTUFF, rf.load_dataset("Dyestuff2"), "ml")
    assert fit.theta.tolist() == [0.0]
    assert fit.objective == pytest.approx(162.87303665382575, abs=1e-9)
    assert fit.convergence is Convergence.SINGULAR
    assert fit.is_singular
    assert fit.converged
    assert (fit.ranef()["Batch"].to_numpy() == 0).all()


def test_a_false_boundary_point_is_left(monkeypatch):
    """At theta = 0 the gradient is zero although the minimum is elsewhere."""
    monkeypatch.setattr(
        reml, "moment_start", lambda cross, _: np.zeros(sum(s.n_theta for s in cross.covariances))
    )
    sleep = rf.load_dataset("sleepstudy")
    for formula in ("Reaction ~ Days + (Days | Subject)", "Reaction ~ Days + (Days || Subject)"):
        fit = rf.fit(formula, sleep)
        monkeypatch.undo()
        expected = rf.fit(formula, sleep)
        assert fit.objective == pytest.approx(expected.objective, rel=1e-12)
        assert not fit.is_singular
        monkeypatch.setattr(
            reml,
            "moment_start",
            lambda cross, _: np.zeros(sum(s.n_theta for s in cross.covariances)),
        )


@pytest.mark.parametrize("seed", range(40))
def test_every_stop_is_a_minimum(seed):
    """Small groups put half of these on the boundary: the score there must point inwards."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(8), 4)
    x = rng.normal(size=32)
    b = rng.normal(size=(8, 2)) * [0.4, 0.2]
    data = pd.DataFrame({"g": g, "x": x, "y": b[g, 0] + b[g, 1] * x + rng.normal(size=32)})
    model = rf.Model("y ~ x + (x | g)", data)
    fit = model.fit()
    best = min(
        model.criterion(fit.theta + step)
        for scale in (1e-3, 1e-2, 0.1, 0.5)
        for step in scale * rng.normal(size=(40, 3))
    )
    assert best >= fit.objective - 1e-8
    assert fit.converged


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["correlated slope", "nested slopes", "crossed slopes"])
def test_units_do_not_matter(name, method):
    """y -> a + c y and x -> d + e x change the estimates as they must, and nothing else."""
    formula = STRUCTURES[name]
    frame = random_frame(np.random.default_rng(3))
    frame["y"] += 2 * frame["c"] / 3 + (frame["c"] % 4) * frame["x"] / 5
    base = rf.fit(formula, frame, method)
    scaled = rf.fit(formula, frame.assign(y=1e3 - 1e4 * frame["y"]), method)
    assert scaled.sigma == pytest.approx(1e4 * base.sigma, rel=1e-8)
    assert scaled.fixef()["x"] == pytest.approx(-1e4 * base.fixef()["x"], rel=1e-8)
    np.testing.assert_allclose(scaled.theta, base.theta, rtol=1e-6, atol=1e-7)
    moved = rf.fit(formula, frame.assign(x=2015 + 1e-3 * frame["x"]), method)
    assert moved.sigma == pytest.approx(base.sigma, rel=1e-8)
    assert moved.fixef()["x"] == pytest.approx(1e3 * base.fixef()["x"], rel=1e-7)
    np.testing.assert_allclose(moved.fitted(), base.fitted(), rtol=1e-7)


def test_a_response_far_from_zero():
    sleep = rf.load_dataset("sleepstudy")
    base = rf.fit("Reaction ~ Days + (Days | Subject)", sleep)
    far = rf.fit(
        "Reaction ~ Days + (Days | Subject)", sleep.assign(Reaction=sleep["Reaction"] + 1e10)
    )
    assert far.sigma == pytest.approx(base.sigma, rel=1e-6)
    huge = rf.fit(
        "Reaction ~ Days + (Days | Subject)", sleep.assign(Reaction=sleep["Reaction"] * 1e12)
    )
    assert huge.sigma == pytest.approx(1e12 * base.sigma, rel=1e-10)


def test_order_of_rows_and_of_terms_does_not_matter():
    frame = random_frame(np.random.default_rng(4))
    base = rf.fit("y ~ x + (x | c) + (z | i)", frame)
    order = np.random.default_rng(0).permutation(len(frame))
    shuffled = rf.fit("y ~ x + (z | i) + (x | c)", frame.iloc[order])
    assert shuffled.objective == pytest.approx(base.objective, rel=1e-12)
    np.testing.assert_allclose(shuffled.fitted(), base.fitted()[order], rtol=1e-8)


def test_weights_are_replications():
    frame = random_frame(np.random.default_rng(5), 60)
    counts = np.random.default_rng(6).integers(1, 4, len(frame))
    weighted = rf.fit("y ~ x + (x | c)", frame, "ml", weights=counts)
    replicated = rf.fit("y ~ x + (x | c)", frame.loc[frame.index.repeat(counts)], "ml")
    # replicated rows give the same estimates of beta and Lambda sigma; sigma counts more rows
    ratio = len(frame) / counts.sum()
    at_same_theta = rf.Model("y ~ x + (x | c)", frame, weights=counts)
    assert weighted.objective == pytest.approx(at_same_theta.criterion(weighted.theta, "ml"))
    assert replicated.sigma**2 < weighted.sigma**2 / ratio


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e8])
def test_the_size_of_the_weights_only_scales_sigma(scale):
    frame = random_frame(np.random.default_rng(10))
    frame["y"] += frame["c"] / 5 * frame["x"]
    base = rf.fit("y ~ x + (x | c) + (1 | i)", frame, weights="w")
    scaled = rf.fit("y ~ x + (x | c) + (1 | i)", frame, weights=scale * frame["w"])
    assert scaled.sigma == pytest.approx(base.sigma * np.sqrt(scale), rel=1e-8)
    assert scaled.is_singular == base.is_singular
    assert scaled.objective == pytest.approx(base.objective, rel=1e-10)
    np.testing.assert_allclose(scaled.fitted(), base.fitted(), rtol=1e-8)


def test_columns_with_the_same_variation_far_from_zero():
    frame = random_frame(np.random.default_rng(11))
    base = rf.fit("y ~ x + (x | c)", frame, "ml")
    for shift in (1e3, 1e5):
        moved = rf.fit("y ~ x + (x | c)", frame.assign(x=frame["x"] + shift), "ml")
        assert moved.objective == pytest.approx(base.objective, abs=1e-6)


APART = (
    "is zero or a combination of the coefficients before it, so that their variances cannot be "
    "told apart: leave it out."
)
CONTAINED = (
    "the fixed effects contain every effect of `c` already, so that REML has nothing to estimate "
    "its variance from: leave one of the two out."
)
EXACTLY = (
    "the model fits the response `exact` exactly: it is constant within the levels of `c`, and "
    "there is no residual variation to estimate sigma from. Take one row of each level, without "
    "random effects of `c`. Where the standard errors of the rows are known, give them as se=."
)


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ x + (zero | c)", f"(1 + zero | c): `zero` {APART}"),
        ("y ~ x + (x + twice || c)", f"(1 + x + twice || c): `twice` {APART}"),
        ("y ~ level + (1 | c)", f"(1 | c): {CONTAINED}"),
        ("exact ~ x + (1 | c)", EXACTLY),
    ],
)
def test_what_cannot_be_estimated_is_refused(formula, message):
    frame = random_frame(np.random.default_rng(12))
    frame = frame.assign(
        zero=0.0, twice=2 * frame["x"], level=frame["c"].astype(str), exact=np.sqrt(frame["c"])
    )
    with pytest.raises(rf.DataError) as error:
        rf.fit(formula, frame)
    assert str(error.value) == message


def test_a_second_optimum_of_a_small_sample_is_found():
    # the criterion of these 13 rows has two minima; the one near zero is the higher
    rng = np.random.default_rng(142)
    lowest = []
    for _ in range(30):
        g, h = rng.integers(0, 4, 13), rng.integers(0, 3, 13)
        frame = pd.DataFrame({"g": g, "h": h, "x": rng.normal(size=13), "z": rng.normal(size=13)})
        frame["y"] = rng.normal(size=13)
        model = rf.Model("y ~ x + (1 | g) + (1 | h)", frame)
        grid = min(model.criterion([a, b], "ml") for a in (0, 0.5, 2, 8) for b in (0, 0.5, 2, 8))
        lowest.append(model.fit("ml").objective <= grid + 1e-9)
    assert all(lowest)


def test_independent_coefficients_in_one_term_or_in_two():
    sleep = rf.load_dataset("sleepstudy")
    one = rf.fit("Reaction ~ Days + (Days || Subject)", sleep)
    two = rf.fit("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", sleep)
    assert one.objective == pytest.approx(two.objective, rel=1e-13)
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-9)


def test_without_random_terms_it_is_least_squares():
    frame = random_frame(np.random.default_rng(7))
    fit = rf.fit("y ~ x * f", frame, weights="w")
    root = np.sqrt(frame["w"].to_numpy())
    X = fit.design.rows.X * root[:, None]
    beta, rss, *_ = np.linalg.lstsq(X, frame["y"].to_numpy() * root, rcond=None)
    np.testing.assert_allclose(fit.fixef(), beta, rtol=1e-9)
    assert fit.sigma**2 == pytest.approx(rss[0] / (len(frame) - X.shape[1]), rel=1e-9)
    assert fit.theta.shape == (0,)
    assert fit.ranef() == {}


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_criterion_at_a_users_theta_equals_the_dense_one(formula):
    frame = random_frame(np.random.default_rng(8))
    model = rf.Model(formula, frame, weights="w")
    cross = cross_products(model.design)
    theta = np.random.default_rng(9).uniform(0.1, 2, sum(s.n_theta for s in cross.covariances))
    users = [T @ f for T, f in zip(cross.bases, factors(theta, cross.covariances), strict=True)]
    expected = dense(model.design, cross, users)
    assert model.criterion(theta) == pytest.approx(expected.reml, rel=1e-11)
    assert model.criterion(theta, "ml") == pytest.approx(expected.deviance, rel=1e-11)


def test_where_nothing_can_be_computed_the_criterion_is_infinite():
    cross = cross_products(rf.Model(DYESTUFF, rf.load_dataset("Dyestuff")).design)
    assert reml.criterion(cross, np.array([1e200]), reml=True)[0] == np.inf


def test_the_trace_is_in_the_users_theta():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    assert list(fit.trace.columns) == [
        "objective",
        "Subject.Intercept",
        "Subject.Days.Intercept",
        "Subject.Days",
        "predicted_decrease",
    ]
    np.testing.assert_allclose(fit.trace.iloc[-1, 1:-1].to_numpy(dtype=float), fit.theta, rtol=1e-9)
    assert fit.trace["objective"].is_monotonic_decreasing


def test_a_second_optimum_far_from_zero_is_found():
    """Nineteen rows; the higher optimum is 1.9 above the one that a dense fit found."""
    data = pd.read_csv(DATA / "second_optimum.csv")
    model = rf.Model("y ~ f + (1 | g) + (0 + x | h) + (1 | q)", data, weights="w")
    assert model.fit().objective <= model.criterion([2.31316343, 1.55274592, 13.91500318]) + 1e-6


def test_an_optimum_that_the_residuals_of_a_great_sd_hide_is_found():
    """More than a hundred rows, and an intercept 273 sigma wide; the numbers are of lme4."""
    data = pd.read_csv(DATA / "great_sds.csv")
    model = rf.Model("y ~ f * e + (1 | g/e) + (0 + x | h)", data)
    assert model.criterion([0.66987864, 0.48686027, 273.25726]) == pytest.approx(
        777.3010273674, abs=1e-7
    )
    assert model.fit().objective == pytest.approx(777.3010273674, abs=1e-7)


def test_a_third_optimum_without_one_of_the_coefficients_is_found():
    """A maximum without slopes of z over h; the deviance there is that of lme4 at this theta."""
    data = pd.read_csv(DATA / "third_optimum.csv")
    model = rf.Model("y ~ z + t + (0 + x | g) + (z || h) + (x | q)", data)
    fit = model.fit("ml")
    theta = [4.4994, 0.0, 3.2724, -4.0411, 0.0, 2.1318]  # h, h, then those of q and g
    assert model.criterion(theta, "ml") == pytest.approx(722.395741664, abs=1e-8)
    assert fit.objective == pytest.approx(722.3957416615, abs=1e-8)
    assert fit.theta[1] == 0


@pytest.mark.parametrize(("seed", "theta"), [(4, [0.2, 0.4]), (5, [0.0, 0.4])])
def test_beside_a_singular_optimum_of_two_hundred_rows_a_lower_one_is_found(seed, theta):
    """The mean slope stands in the random effects: it is in the slopes, or in the residuals."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.arange(200) % 10, "x": rng.normal(5, 1, 200)})
    frame["y"] = 0.5 * frame["x"] + rng.normal(size=200)
    model = rf.Model("y ~ 1 + (x || g)", frame)
    assert model.fit().objective < model.criterion(theta)
    flat = rf.Model("y ~ 1 + (x || g)", frame, priors="flat")
    found = model.fit("ml"), flat.fit("map")
    assert found[0].objective < model.criterion(theta, "ml")
    assert found[1].theta == pytest.approx(model.fit().theta, abs=1e-4)


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize(("ratio", "slope"), [(30, 3), (1000, 4), (1e4, 5)])
def test_of_slopes_between_and_within_levels_the_likelier_is_found(ratio, slope, method):
    """A predictor's means by level differ more than its values do within; see Simpson's paradox."""
    model = rf.Model("y ~ x + (1 | f) + (1 | g)", between_and_within(ratio, slope))
    cross, fit = model.engine.data.cross, model.fit(method)
    assert fit.converged
    assert fit.fixef()["x"] == pytest.approx(slope + 0.5, abs=0.5)
    within = [slope * ratio * np.ones((1, 1)), np.ones((1, 1))]
    expected = dense(model.design, cross, within)
    assert fit.objective < (expected.reml if method == "reml" else expected.deviance)


def moved(data):
    """Yield the same data in other units, and in another order."""
    yield data
    yield data.assign(y=data["y"] + 0.01)
    yield data.assign(y=data["y"] - 17)
    yield data.assign(y=300 * data["y"], o=300 * data["o"])
    yield data.sample(frac=1, random_state=1).reset_index(drop=True)


def test_a_limit_of_no_residual_variation_is_said_the_same_way_in_all_units():
    """Relative sds in the thousands: as sigma goes to zero the criterion tends to its infimum."""
    data = pd.read_csv(DATA / "nearly_exact.csv")
    for frame in moved(data):
        with pytest.raises(rf.DataError, match="fits the response `y` exactly: there is no resid"):
            rf.fit("y ~ 1 + (x | g) + (1 | h) + (1 | q)", frame, offset="o")


@pytest.mark.parametrize("seed", range(8))
def test_with_as_many_effects_as_rows_an_optimum_is_as_low_as_the_limit(seed):
    """Either the optimum is below what great relative sds give, or there is none."""
    rng = np.random.default_rng([5, seed])
    frame = pd.DataFrame({"x": rng.normal(size=9), "o": 0.0, "y": rng.normal(size=9)})
    for name in "gh":
        frame[name] = rng.permutation(np.arange(9) % 5)
    found = set()
    for data in moved(frame):
        model = rf.Model("y ~ x + (1 | g) + (1 | h)", data, offset="o")
        try:
            fit = model.fit()
        except rf.DataError as error:
            found.add(str(error))
            continue
        found.add("an optimum")
        angles = np.linspace(0, np.pi / 2, 50)
        limits = [model.criterion(1e4 * np.array([np.cos(a), np.sin(a)])) for a in angles]
        assert fit.converged
        assert fit.objective < min(limits)
    assert len(found) == 1


# ------------------------------------------------------------------------------ a known sigma

KNOWN = ("one factor", "correlated slope", "no fixed effects", "nested slopes", "crossed slopes")


def dense_criterion(frame, model, covs, sigma, *, reml):
    """Return the criterion from the covariance of the response."""
    rows = model.design.rows
    V = np.diag(sigma**2 / rows.weights)
    for term, cov in zip(rows.terms, covs, strict=True):
        V += (term.codes[:, None] == term.codes) * (term.columns @ cov @ term.columns.T)
    X, y, inverse = rows.X, rows.y, np.linalg.inv(V)
    information = X.T @ inverse @ X
    r = y - X @ np.linalg.solve(information, X.T @ inverse @ y) if X.shape[1] else y
    nu = len(frame) - X.shape[1] if reml else len(frame)
    value = nu * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + r @ inverse @ r
    return value + (np.linalg.slogdet(information)[1] if reml else 0.0)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_criterion_of_a_known_sigma_is_dense(kind, method):
    frame = random_frame(np.random.default_rng(3), 60)
    priors = {"sigma": rf.priors.Constant(1.7)}
    model = rf.Model(STRUCTURES[kind], frame, weights="w", priors=priors)
    covariances = [term.covariance for term in model.design.terms]
    size, is_reml = sum(c.n_theta for c in covariances), method == "reml"
    theta = np.random.default_rng(4).uniform(0.3, 0.9, size)
    covs = [1.7**2 * Lambda @ Lambda.T for Lambda in factors(theta, covariances)]
    expected = dense_criterion(frame, model, covs, 1.7, reml=is_reml)
    assert model.criterion(theta, method) == pytest.approx(expected, rel=1e-9)
    cross = model.engine.data.cross
    x = reml.basis_theta(cross, theta)
    _, gradient = reml.criterion(cross, x, 1.7, reml=is_reml)
    for i, unit in enumerate(1e-6 * np.eye(size)):
        up, down = (reml.criterion(cross, x + step, 1.7, reml=is_reml)[0] for step in (unit, -unit))
        assert gradient[i] == pytest.approx((up - down) / 2e-6, rel=1e-5, abs=1e-5)
    fit = model.fit(method)
    assert fit.objective <= model.criterion(theta, method)
    assert fit.objective == pytest.approx(model.criterion(fit.theta, method), rel=1e-12)
    assert (fit.sigma, fit.df) == (1.7, len(fit.fixef()) + size)
    of_mode = rf.Model(STRUCTURES[kind], frame, weights="w", priors=priors | {"base": "flat"})
    if method == "reml" and all(c.is_free for c in covariances):
        mode = of_mode.fit("map")
        assert mode.objective == pytest.approx(fit.objective, rel=1e-9)
        np.testing.assert_allclose(mode.vcov(), fit.vcov(), rtol=1e-4)


@pytest.mark.parametrize("formula", STRUCTURES.values(), ids=STRUCTURES)
def test_what_the_last_evaluation_leaves_is_what_a_fit_has(formula, monkeypatch):
    """A costly search ends where the criterion was last computed: its inverse is not made again."""
    rng = np.random.default_rng(1)
    frame = random_frame(rng)
    for factor in ("c", "s", "i", "j"):
        frame["y"] += 4 * rng.normal(size=12)[frame[factor]]
    cross = cross_products(rf.Model(formula, frame, weights="w").design)
    exact, made = reml.estimate(cross, reml=True), []
    factorize = blocked_cholesky.factorize
    monkeypatch.setattr(
        blocked_cholesky, "factorize", lambda *given: made.append(given) or factorize(*given)
    )
    monkeypatch.setattr(reml, "COSTLY", -1)
    monkeypatch.setattr(reml, "FEW_ROWS", 0)
    found = reml.estimate(cross, reml=True)
    assert len(made) == found.evaluations or any(found.singular)  # simplified, so somewhere else
    if not any(found.singular):  # at a boundary small data have several minima
        assert found.objective == pytest.approx(exact.objective, abs=1e-5)
    users = [T @ Lambda for T, Lambda in zip(cross.bases, found.Lambdas, strict=True)]
    anew = factorize(cross, users)
    solution = reml._solution(anew, reml=True)
    turned = [np.linalg.inv(T) for T in cross.bases]
    modes = blocked_cholesky.modes(anew, solution.gamma)
    covs = blocked_cholesky.conditional_covariances(anew)
    for b, cov, mode, other, T in zip(found.b, found.b_cov, modes, covs, turned, strict=True):
        np.testing.assert_allclose(b, mode @ T.T, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(cov, found.sigma**2 * (T @ other @ T.T), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("formula", ["y ~ z + (z | g) + (1 | h)", "y ~ z + (z || g) + (1 | h)"])
def test_what_is_left_of_a_response_is_estimated_until_rounding_hides_it(formula):
    """Sigma of noise of any size is that size, or the fit is refused; never another number."""
    rng = np.random.default_rng(3)
    frame = random_frame(rng, 60).assign(g=np.arange(60) % 8, h=rng.integers(0, 5, 60))
    b, c = rng.normal(size=(8, 2)), rng.normal(size=5)
    signal = b[frame["g"], 0] + b[frame["g"], 1] * frame["z"] + c[frame["h"]]
    noise, sigmas = rng.normal(size=60), []
    for size in (1e-3, 1e-5):
        fit = rf.fit(formula, frame.assign(y=signal + size * noise))
        assert fit.converged
        sigmas.append(fit.sigma / size)
    np.testing.assert_allclose(sigmas, sigmas[0], rtol=1e-3)
    for size in (1e-6, 1e-9):
        with pytest.raises(rf.DataError, match="fits the response `y` nearly exactly: a residual"):
            rf.fit(formula, frame.assign(y=signal + size * noise))
