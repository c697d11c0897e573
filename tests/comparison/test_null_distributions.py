"""Null distributions, against closed forms, refits, brute force and R's numbers."""

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

import ranef as rf
from ranef.comparison import null_distributions
from ranef.comparison.f_test import f_test
from ranef.comparison.null_distributions import (
    Spectrum,
    binomial_interval,
    chi_bar_squared,
    closed_form,
    exact_null_statistics,
    monte_carlo,
    sequential,
    spectrum,
)
from ranef.design.design import build_design, full_rank
from ranef.errors import FitError
from ranef.formula.terms import read_formula
from ranef.likelihood.linear.crossproducts import cross_products
from ranef.likelihood.linear.reml import criterion, estimate


def unbalanced(rng, n=60, m=9):
    """Return rows in levels of many sizes."""
    data = pd.DataFrame({"x": rng.normal(size=n), "u": rng.normal(size=n) + 3})
    data["g"] = np.minimum(rng.geometric(0.3, n), m)
    data["h"] = np.arange(n) % 6
    data["w"] = rng.uniform(0.2, 3, n)
    data["y"] = 5 + data["x"] + rng.normal(size=n) + rng.normal(size=m + 1)[data["g"]]
    return data


FRAME = unbalanced(np.random.default_rng(5))
CASES = {  # small, large, options
    "intercepts": ("y ~ x", "y ~ x + (1 | g)", {}),
    "weights": ("y ~ x", "y ~ x + (1 | g)", {"weights": "w"}),
    "offset": ("y ~ x", "y ~ x + (1 | g)", {"offset": "u"}),
    "slopes": ("y ~ x + u", "y ~ x + u + (0 + u | g)", {}),
    "equal levels": ("y ~ x", "y ~ x + (1 | h)", {}),
    "no fixed effects": ("y ~ 0", "y ~ 0 + (1 | g)", {}),
    "fixed effects too": ("y ~ 1", "y ~ x + u + (1 | g)", {}),
    "no intercept": ("y ~ 0 + x", "y ~ 0 + x + (1 | h)", {}),
}


def design(text, frame=FRAME, **options):
    return full_rank(build_design(read_formula(text), frame, **options))


def designs(case, frame=FRAME):
    small, large, options = CASES[case]
    return design(small, frame, **options), design(large, frame, **options)


def observed(small, large, *, reml):
    """Return the statistic of two fits."""
    fits = [estimate(cross_products(d), reml=reml) for d in (small, large)]
    return 2 * (fits[1].loglik - fits[0].loglik)


def draw_of(small, large, *, reml):
    """Return the spectral form of a design by dense matrices, and what the data are in it."""
    root = np.sqrt(large.rows.weights)
    X, X0 = large.rows.X * root[:, None], small.rows.X * root[:, None]
    y = (large.rows.y - large.rows.offset) * root
    (term,) = large.rows.terms
    Z = np.eye(term.n_levels)[term.codes] * (term.columns * root[:, None])
    left = np.linalg.svd(X, full_matrices=True)[0][:, X.shape[1] :]
    U, s, _ = np.linalg.svd(left.T @ Z, full_matrices=True)
    mu = np.zeros(U.shape[0])
    mu[: len(s)] = s**2
    w2 = (U.T @ left.T @ y) ** 2
    kept = mu > 1e-9 * mu.max()
    xi = mu[kept] if reml else np.linalg.eigvalsh(Z.T @ Z)
    n, p = X.shape
    rest = float(w2[~kept].sum())
    before = (y - X0 @ np.linalg.lstsq(X0, y, rcond=None)[0]) ** 2 if X0.shape[1] else y**2
    return mu[kept], w2[kept], rest, xi, n - p if reml else n, float(before.sum())


def brute(mu, w2, c, xi, nu):
    """Return the supremum over l by a fine grid."""
    l = np.concatenate([[0.0], np.geomspace(1e-7 / mu.max(), 1e9 / mu.min(), 20_001)])
    D = sum(w / (1 + l * m) for m, w in zip(mu, w2, strict=True)) + c
    return float((nu * np.log((w2.sum() + c) / D) - sum(np.log1p(l * x) for x in xi)).max())


def suprema(form, w2, c):
    return null_distributions.supremum(form, null_distributions._grid(form), w2, c)


# ------------------------------------------------------------------- the search for the supremum


def grid_of(points):
    step = null_distributions.GRID_STEP
    return null_distributions._Grid(1.0, step * np.arange(points), np.empty((1, points)))


@pytest.mark.parametrize("place", [0.7, -0.4, 0.0])
def test_the_vertex_of_a_parabola_is_found_from_three_of_its_points(place):
    grid = grid_of(9)
    lowest = grid.t[4] + place * null_distributions.GRID_STEP
    values = 3.0 * (grid.t - lowest) ** 2 + 1.0
    found = null_distributions._vertex(grid, np.array([4]), values[None])
    np.testing.assert_allclose(found, lowest, rtol=1e-12)


def test_a_vertex_stays_between_the_neighbours():
    """Far off, above a maximum, and at the first point, which has one neighbour."""
    grid, step = grid_of(9), null_distributions.GRID_STEP
    far, top = (grid.t - grid.t[8]) ** 2, -((grid.t - grid.t[3]) ** 2)
    found = null_distributions._vertex(grid, np.array([4, 4, 0]), np.stack([far, top, far]))
    np.testing.assert_allclose(found, [grid.t[4] + 0.9 * step, grid.t[4], step / 4])


def test_a_supremum_is_found_by_halving_where_newton_leads_nowhere(monkeypatch):
    form = spectrum(*designs("intercepts"), reml=True)
    rng = np.random.default_rng(2)
    w2, c = rng.chisquare(form.counts, (200, len(form.counts))), rng.chisquare(9, 200)
    w2 *= 1 + 4 * form.mu / form.mu.max()
    expected, criterion = suprema(form, w2, c), null_distributions._criterion
    assert (expected > 0.1).sum() > 20

    def concave(*arguments):
        value, slope, curvature = criterion(*arguments)
        return value, slope, -np.abs(curvature)

    monkeypatch.setattr(null_distributions, "_criterion", concave)
    np.testing.assert_allclose(suprema(form, w2, c), expected, atol=1e-6)


# ----------------------------------------------------------------------- chi-squared mixtures


def test_one_variance_is_half_the_tail_of_chi_squared():
    # R: inference from lme4 fits of Pastes, batch in the presence of samples, by ML
    assert chi_bar_squared(0.407233941893935, 1, 0) == pytest.approx(0.523376796461217, abs=1e-12)
    assert chi_bar_squared(0.407233941893935, 0, 1) == pytest.approx(0.261688398230609, abs=1e-12)
    assert chi_bar_squared(3.0, 0, 1) == pytest.approx(stats.chi2.sf(3.0, 1) / 2)


def test_a_slope_with_its_covariances():
    wanted = (stats.chi2.sf(4.2, 2) + stats.chi2.sf(4.2, 3)) / 2
    assert chi_bar_squared(4.2, 2, 1) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("free", "bounded"), [(0, 2), (1, 3), (2, 1), (0, 1)])
def test_mixtures_are_of_normal_variables_cut_at_zero(free, bounded):
    z = np.random.default_rng(1).normal(size=(200_000, free + bounded))
    z[:, free:] = np.maximum(z[:, free:], 0)
    T = (z**2).sum(axis=1)
    for t in (0.5, 2.0, 6.0):
        share = (t <= T).mean()
        assert chi_bar_squared(t, free, bounded) == pytest.approx(share, abs=5 * 0.5 / 200_000**0.5)


def test_a_statistic_of_zero_has_p_of_one():
    assert chi_bar_squared(0.0, 0, 2) == 1.0
    assert chi_bar_squared(0.0, 1, 2) == 1.0
    assert chi_bar_squared(1e-300, 0, 1) == pytest.approx(0.5)


# -------------------------------------------------------------------------- simulated p-values


def test_p_counts_zeros_and_ties():
    found = monte_carlo(0.0, np.array([0.0, 0.0, 0.0, 1.0]))
    assert (found.p_value, found.hits, found.n_zero) == (1.0, 4, 3)
    found = monte_carlo(1.0, np.array([0.0, 1.0 - 1e-9, 1.0, 2.0, 0.5]))
    assert (found.p_value, found.hits, found.n, found.n_zero) == (4 / 6, 3, 5, 1)
    assert not found.stopped
    assert monte_carlo(9.0, np.zeros(999)).p_value == 1e-3


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (7, 50), (1, 1000)])
def test_interval_of_a_binomial_probability(hits, n):
    wanted = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert binomial_interval(hits, n) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def sequence(statistics, failed=None):
    """Return a callable that hands out parts of a sequence, and how it was called."""
    failed = np.zeros(len(statistics), dtype=bool) if failed is None else failed
    calls = []

    def simulate(size, first):
        calls.append((size, first))
        return statistics[first : first + size], failed[first : first + size]

    return simulate, calls


def test_a_sequence_stops_at_the_fiftieth_hit():
    T = np.random.default_rng(0).uniform(size=5000)
    simulate, calls = sequence(T)
    found = sequential(0.8, simulate, 5000)
    last = int(np.flatnonzero(T >= 0.8)[49]) + 1
    assert found.stopped
    assert (found.hits, found.n, found.p_value) == (50, last, 50 / last)
    assert calls == [(100, 0), (100, 100)]
    # the number of trials until 50 hits is negative binomial
    assert stats.nbinom.cdf(last - 50, 50, found.lower) == pytest.approx(0.025, abs=1e-9)
    assert stats.nbinom.sf(last - 51, 50, found.upper) == pytest.approx(0.025, abs=1e-9)


def test_a_sequence_that_does_not_stop():
    T = np.random.default_rng(0).uniform(size=700)
    simulate, calls = sequence(T)
    found = sequential(0.99, simulate, 700)
    hits = int((T >= 0.99).sum())
    assert not found.stopped
    assert (found.n, found.p_value) == (700, (1 + hits) / 701)
    assert (found.lower, found.upper) == binomial_interval(hits, 700)
    assert sum(size for size, _ in calls) == 700


def test_all_statistics_of_a_sequence():
    T = np.random.default_rng(0).uniform(size=700)
    whole = sequential(0.5, sequence(T)[0], 700, stop=False)
    assert not whole.stopped
    assert whole == monte_carlo(0.5, T)
    np.testing.assert_array_equal(whole.statistics, T)
    stopped = sequential(0.5, sequence(T)[0], 700)
    np.testing.assert_array_equal(stopped.statistics, T[: stopped.n])
    lost = sequential(0.5, sequence(T, T < 0.1)[0], 700, stop=False)
    np.testing.assert_array_equal(lost.statistics, T[T >= 0.1])


def test_a_sequence_is_the_same_however_many_are_simulated_at_a_time(monkeypatch):
    T = np.random.default_rng(0).uniform(size=9000)
    found = sequential(0.95, sequence(T)[0], 9000)
    monkeypatch.setattr(null_distributions, "MIN_BATCH", 7)
    monkeypatch.setattr(null_distributions, "MAX_BATCH", 11)
    assert sequential(0.95, sequence(T)[0], 9000) == found


def test_failures_are_counted_and_left_out():
    T = np.random.default_rng(0).uniform(size=400)
    failed = np.arange(400) % 4 == 0
    T[failed] = np.nan
    found = sequential(0.97, sequence(T, failed)[0], 400)
    assert (found.n, found.n_failed) == (300, 100)
    assert found.p_value == (1 + (T >= 0.97).sum()) / 301
    unmarked = sequential(0.97, sequence(T)[0], 400)
    assert unmarked == found
    stopped = sequential(0.1, sequence(T, failed)[0], 400)
    last = int(np.flatnonzero(T >= 0.1)[49]) + 1
    assert (stopped.n, stopped.n_failed) == (last - failed[:last].sum(), failed[:last].sum())
    assert stopped.p_value == 50 / stopped.n
    odd = np.where(failed, 99.0, T)  # what a failure leaves behind does not matter
    assert sequential(0.1, sequence(odd, failed)[0], 400) == stopped
    assert sequential(0.97, sequence(odd, failed)[0], 400) == found


def test_nothing_but_failures():
    T = np.full(120, np.nan)
    with pytest.raises(FitError) as error:
        sequential(1.0, sequence(T)[0], 120)
    message = "the models could not be fitted to any of 120 simulated responses, so that there is "
    assert str(error.value) == message + "no bootstrap."


def test_p_values_of_sequences_are_unbiased_enough():
    rng = np.random.default_rng(6)

    def simulate(size, _):
        return rng.uniform(size=size), np.zeros(size, dtype=bool)

    p = [sequential(0.7, simulate, 900).p_value for _ in range(400)]
    assert np.mean(p) == pytest.approx(0.3, abs=0.01)  # h / l is biased by about p (1 - p) / h


# ----------------------------------------------------------------------------- the spectral form


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_data_have_the_statistic_of_the_fits_in_it(case, reml):
    small, large = designs(case)
    if reml and small.rows.X.shape != large.rows.X.shape:
        return
    form = spectrum(small, large, reml=reml)
    mu, w2, c, xi, nu, before = draw_of(small, large, reml=reml)
    unit = mu.max()
    assert np.repeat(form.mu, form.counts) == pytest.approx(np.sort(mu) / unit, rel=1e-6)
    xi = np.sort(xi)
    expanded = np.repeat(form.xi, form.xi_counts)
    assert expanded / form.mu.max() == pytest.approx(xi / unit, rel=1e-6, abs=1e-9)
    assert (form.nu, form.fixed) == (nu, large.rows.X.shape[1] - small.rows.X.shape[1])
    assert form.df_residual == large.n_obs - large.rows.X.shape[1] - len(mu)
    pooled = np.add.reduceat(w2[np.argsort(mu)], np.cumsum(form.counts) - form.counts)
    found = suprema(form, pooled[None], np.array([c]))[0]
    found += nu * np.log(before / (w2.sum() + c))
    assert found == pytest.approx(observed(small, large, reml=reml), abs=1e-7)
    assert found > 0.05


@pytest.mark.parametrize("seed", range(4))
def test_suprema_are_those_of_a_fine_grid(seed):
    rng = np.random.default_rng(seed)
    r = int(rng.integers(1, 6))
    mu = np.sort(10 ** rng.uniform(-4 * (seed > 1), 0, r))
    mu /= mu[-1]
    counts = rng.integers(1, 4, r)
    xi = np.sort(rng.uniform(0.0, 1.5, 4)) if seed % 2 else mu
    xi_counts = np.ones(4, dtype=int) if seed % 2 else counts
    left = int(rng.integers(1, 12))
    form = Spectrum(mu, counts, xi, xi_counts, left, left + int(counts.sum()))
    w2, c = rng.chisquare(counts, (150, r)), rng.chisquare(left, 150)
    found = suprema(form, w2, c)
    wanted = [
        brute(mu, row, rest, np.repeat(xi, xi_counts), form.nu)
        for row, rest in zip(w2, c, strict=True)
    ]
    assert found == pytest.approx(np.array(wanted), abs=1e-5)
    assert (found > 1e-4).any()


def test_the_highest_of_several_maxima_is_found():
    mu, counts = np.array([1e-4, 1.0]), np.array([3, 3])
    form = Spectrum(mu, counts, mu, counts, 30, 36)
    w2 = np.array([[a, b] for a in np.linspace(20, 200, 25) for b in np.linspace(8, 40, 7)])
    c = np.full(len(w2), 30.0)
    l = np.geomspace(1e-3, 1e7, 4000)
    D = c[:, None] + (w2[:, None] / (1 + l[:, None] * mu)).sum(axis=2)
    profile = 36 * np.log((w2.sum(axis=1) + c)[:, None] / D) - np.log1p(l[:, None] * mu) @ counts
    peaks = ((profile[:, 1:-1] > profile[:, :-2]) & (profile[:, 1:-1] > profile[:, 2:])).sum(axis=1)
    late = l[profile.argmax(axis=1)] > 100
    assert ((peaks > 1) & late).sum() > 20
    assert ((peaks > 1) & ~late).sum() > 20
    assert suprema(form, w2, c) == pytest.approx(np.maximum(profile.max(axis=1), 0), abs=1e-4)


@pytest.mark.parametrize("reml", [True, False])
def test_with_levels_of_one_size_the_statistic_is_a_function_of_f(reml):
    pair = design("y ~ 1"), design("y ~ 1 + (1 | h)")
    form, f = spectrum(*pair, reml=reml), f_test(*pair)
    T = observed(*pair, reml=reml)
    assert closed_form(form, f, T) == f.p_value == stats.f.sf(f.statistic, 5, 54)
    drawn = exact_null_statistics(form, 40_000, 1)
    found = monte_carlo(T, drawn)
    assert found.lower <= f.p_value <= found.upper
    if reml:
        assert (drawn == 0).mean() == pytest.approx(stats.f.cdf(1.0, 5, 54), abs=0.01)
    assert closed_form(form, f, 0.0) == 1.0


def test_there_is_no_closed_form_for_levels_of_several_sizes_or_with_fixed_effects():
    small, large = designs("intercepts")
    assert closed_form(spectrum(small, large, reml=True), f_test(small, large), 3.0) is None
    both = design("y ~ 1 + (1 | h)", FRAME.assign(x=1.0))
    form = spectrum(design("y ~ 0"), both, reml=False)
    assert (len(form.mu), form.fixed) == (1, 1)
    assert closed_form(form, f_test(design("y ~ 1"), both), 3.0) is None


@pytest.mark.parametrize(
    ("reml", "statistic", "p"),
    [(True, 6.36895531362114, 0.004457), (False, 5.40282609364596, 0.004451)],
)
def test_dyestuff_as_rlrsim(reml, statistic, p):
    # RLRsim 3.1.8, exactRLRT and exactLRT, 1,000,000 draws each
    data = rf.load_dataset("Dyestuff")
    pair = design("Yield ~ 1", data), design("Yield ~ 1 + (1 | Batch)", data)
    T = exact_null_statistics(spectrum(*pair, reml=reml), 400_000, 3)
    found = (statistic <= T).mean()
    assert found == pytest.approx(p, abs=4 * np.sqrt(p * (1 / 400_000 + 1 / 1_000_000)))
    assert found == pytest.approx(0.00439753126830609, abs=4 * np.sqrt(p / 400_000))
    assert observed(*pair, reml=reml) == pytest.approx(statistic, abs=1e-7)


def searched(small, large, *, reml):
    """Return the statistic by a search over the one variance, on the rows' cross-products."""
    (a, _), cross = criterion(cross_products(small), np.zeros(0), reml=reml), cross_products(large)

    def at(theta):
        return criterion(cross, np.array([theta]), reml=reml)[0]

    grid = np.concatenate([[0.0], np.geomspace(0.02, 4, 18)])
    best = int(np.argmin([at(theta) for theta in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(at, bounds=bounds, method="bounded", options={"xatol": 1e-5})
    return a - min(found.fun, at(0.0))


@pytest.mark.parametrize(
    ("case", "reml"), [("weights", True), ("slopes", False), ("fixed effects too", False)]
)
def test_the_distribution_is_that_of_refits(case, reml):
    small, large = designs(case)
    rng = np.random.default_rng(11)
    T = []
    for _ in range(120):
        y = rng.normal(size=60) / np.sqrt(small.rows.weights)
        T.append(searched(*(built.with_rows(y=y) for built in (small, large)), reml=reml))
    drawn = exact_null_statistics(spectrum(small, large, reml=reml), 20_000, 2)
    T = np.maximum(T, 0)
    assert (T < 1e-6).mean() == pytest.approx((drawn < 1e-6).mean(), abs=0.13)
    assert stats.ks_2samp(np.round(T, 5), np.round(drawn, 5)).pvalue > 0.005


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("scale", [1e-6, 0.1, 1e5])
def test_units_do_not_matter(scale, reml):
    frame = FRAME.assign(u=FRAME["u"] * scale)
    plain, scaled = (spectrum(*designs("slopes", data), reml=reml) for data in (FRAME, frame))
    found = exact_null_statistics(scaled, 2000, 1)
    assert found == pytest.approx(exact_null_statistics(plain, 2000, 1), abs=1e-6)


def test_the_same_seed_draws_the_same():
    form = spectrum(*designs("intercepts"), reml=True)
    assert np.array_equal(exact_null_statistics(form, 500, 4), exact_null_statistics(form, 500, 4))
    assert not np.array_equal(
        exact_null_statistics(form, 500, 4), exact_null_statistics(form, 500, 5)
    )
    assert len(exact_null_statistics(form, 1, None)) == 1


def test_chunks_are_seamless(monkeypatch):
    form = spectrum(*designs("fixed effects too"), reml=False)
    whole = exact_null_statistics(form, 20_000, 4)
    monkeypatch.setattr(null_distributions, "MAX_ELEMENTS", 5000)
    parts = exact_null_statistics(form, 20_000, 4)
    assert len(parts) == 20_000
    assert stats.ks_2samp(whole, parts).pvalue > 0.01


@pytest.mark.parametrize("m", [3, 40])
@pytest.mark.parametrize("p", [0, 2])
def test_eigenvalues_of_a_diagonal_less_few_columns(m, p):
    rng = np.random.default_rng(m + p)
    d = rng.choice([1.0, 2.0, 7.0], m)
    U = 0.3 * rng.normal(size=(m, p))
    found = null_distributions._eigenvalues(d, U)
    assert np.sort(found) == pytest.approx(np.linalg.eigvalsh(np.diag(d) - U @ U.T), abs=1e-9)


def test_few_degrees_of_freedom_have_heavy_tails():
    one = np.ones(1)
    form = Spectrum(one, np.array([1]), one, np.array([1]), 1, 2)
    T = exact_null_statistics(form, 100_000, 1)
    # monotone in F(1, 1): the same share exceeds the statistic that belongs to a quantile of F
    F = stats.f.isf(1e-3, 1, 1)
    at = suprema(form, np.array([[F]]), one)[0]
    assert (at <= T).mean() == pytest.approx(1e-3, abs=5e-4)


def test_x_and_z_can_leave_nothing():
    one = np.array([0.4, 1.0])
    counts = np.array([2, 2])
    T = exact_null_statistics(Spectrum(one, counts, one, counts, 0, 4), 1000, 1)
    assert np.isfinite(T).all()
    assert T.max() > 0.1


def test_fixed_effects_that_contain_the_factor_leave_no_eigenvalue():
    frame = FRAME.assign(f=FRAME["h"].astype(str))
    pair = design("y ~ f", frame), design("y ~ f + (1 | h)", frame)
    assert len(spectrum(*pair, reml=False).mu) == 0
