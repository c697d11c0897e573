"""How far to trust draws, and the table of what they say."""

import re
from dataclasses import FrozenInstanceError, replace

import arviz as az
import numpy as np
import pytest
import xarray as xr

from ranef.errors import FitError
from ranef.fits.diagnostics import Diagnostics, QuadratureDiagnostics, diagnose
from ranef.posterior.draws import hdi, summarise

FINE = Diagnostics(
    draws=4000,
    divergences=0,
    max_treedepth=0.0,
    rhat=1.0041,
    rhat_of="Days",
    ess_bulk=812.4,
    ess_bulk_of="sigma",
    ess_tail=905.0,
    ess_tail_of="Intercept",
    bfmi=0.871,
)


@pytest.fixture
def tree():
    """A posterior of independent normal draws, named as a fit's."""
    rng = np.random.default_rng(1)
    draws = {
        "beta": rng.normal([10, 1], [2, 0.5], size=(4, 500, 2)),
        "sigma": rng.gamma(20, size=(4, 500)),
        "b_g": rng.normal(size=(4, 500, 2, 3)),
        "sd_g": rng.gamma(9, size=(4, 500, 3)),
        "corr_g": np.broadcast_to(np.eye(3), (4, 500, 3, 3)).copy(),
    }
    for i, j in [(1, 0), (2, 0), (2, 1)]:
        rho = rng.uniform(-1, 1, size=(4, 500))
        draws["corr_g"][..., i, j] = draws["corr_g"][..., j, i] = rho
    draws["corr_g"][..., 0, 0] += 1e-16 * rng.integers(-2, 3, size=(4, 500))
    coefs = ["Intercept", "x", "v"]
    posterior = az.from_dict(
        {"posterior": draws},
        coords={"fixed": ["Intercept", "x"], "g": [7, 8], "g_coef": coefs, "g_coef_bis": coefs},
        dims={
            "beta": ["fixed"],
            "sd_g": ["g_coef"],
            "corr_g": ["g_coef", "g_coef_bis"],
            "b_g": ["g", "g_coef"],
        },
    )["posterior"].to_dataset()
    return with_stats(posterior, energy=rng.normal(size=(4, 500)))


def with_stats(posterior, **stats):
    shape = posterior["sigma"].shape
    default = {"diverging": np.zeros(shape, bool), "maxdepth_reached": np.zeros(shape, bool)}
    variables = {name: (("chain", "draw"), value) for name, value in (default | stats).items()}
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": xr.Dataset(variables)})


def changed(tree, **variables):
    posterior = tree["posterior"].to_dataset()
    new = {name: (posterior[name].dims, value) for name, value in variables.items()}
    stats = {name: value.to_numpy() for name, value in tree["sample_stats"].data_vars.items()}
    return with_stats(posterior.assign(new), **stats)


# Diagnostics


def test_independent_draws_are_fine(tree):
    found = diagnose(tree)
    assert found.ok
    assert (found.draws, found.divergences, found.max_treedepth) == (2000, 0, 0.0)
    assert 0.99 < found.rhat < 1.01
    assert found.ess_bulk > 1500
    assert found.bfmi == pytest.approx(2, abs=0.3)  # of white noise


def test_the_numbers_are_those_of_arviz(tree):
    found = diagnose(tree)
    names = ["beta", "sigma", "b_g", "sd_g"]
    worst = az.summary(tree, kind="diagnostics", var_names=names, round_to="none")
    assert found.rhat >= worst["r_hat"].max()
    assert found.ess_bulk <= worst["ess_bulk"].min()
    off = az.summary(
        tree,
        kind="diagnostics",
        var_names=["corr_g"],
        round_to="none",
        filter_vars=None,
        coords={"g_coef": ["Intercept"], "g_coef_bis": ["x", "v"]},
    )
    rhats = [*worst["r_hat"], *off["r_hat"]]
    last = az.rhat(tree["posterior"]["corr_g"].to_numpy()[..., 2, 1])
    assert found.rhat == pytest.approx(max(*rhats, float(last)), rel=1e-9)
    energy = tree["sample_stats"]["energy"].to_numpy()
    assert found.bfmi == pytest.approx(float(az.bfmi(energy).min()), rel=0.01)


def test_the_worst_quantity_is_named(tree):
    shifted = tree["posterior"]["b_g"].to_numpy().copy()
    shifted[0, :, 1, 2] += 3
    found = diagnose(changed(tree, b_g=shifted))
    assert found.rhat_of == found.ess_bulk_of == "b_g[8, v]"
    assert found.rhat > 1.1
    assert found.ess_bulk < 100
    assert not found.ok


def test_stretches_in_the_tails_show_in_the_tails(tree):
    draws = tree["posterior"]["sigma"].to_numpy().copy()
    draws.sort(axis=1)
    draws[:, 25:475] = np.random.default_rng(4).permuted(draws[:, 25:475], axis=1)
    found = diagnose(changed(tree, sigma=draws))
    assert found.ess_tail_of == "sigma"
    assert found.ess_tail < 100


def test_what_is_known_has_no_sample_size(tree):
    known = changed(tree, sigma=np.full((4, 500), 30.0))
    table = summarise(known)
    assert table.loc["sigma", ["mean", "sd", "lower", "upper"]].tolist() == [30, 0, 30, 30]
    assert table.loc["sigma", ["ess_bulk", "ess_tail", "r_hat", "mcse_mean"]].isna().all()
    np.testing.assert_array_equal(table.drop("sigma"), summarise(tree).drop("sigma"))


@pytest.mark.parametrize(("chains", "draws"), [(4, 3), (1, 1), (2, 1), (8, 5)])
def test_few_draws_are_not_fine_but_no_accident(chains, draws):
    rng = np.random.default_rng(1)
    posterior = xr.Dataset({"sigma": (("chain", "draw"), rng.gamma(9, size=(chains, draws)))})
    few = with_stats(posterior, energy=rng.normal(size=(chains, draws)))
    assert not diagnose(few).ok
    table = summarise(few)
    assert np.isfinite(table[["mean", "sd"]].to_numpy()).all()
    assert table["r_hat"].isna().all() == (draws < 4)


def test_a_draw_that_is_not_a_number_is_not_fine(tree):
    broken = tree["posterior"]["b_g"].to_numpy().copy()
    broken[0, 3, 1, 1] = np.nan
    found = diagnose(changed(tree, b_g=broken))
    assert found.rhat_of == found.ess_bulk_of == found.ess_tail_of == "b_g[8, x]"
    assert len(found.messages()) == 3


def test_slow_chains_have_few_effective_draws(tree):
    walk = np.random.default_rng(2).normal(size=(4, 500))
    for i in range(1, 500):
        walk[:, i] += 0.97 * walk[:, i - 1]
    found = diagnose(changed(tree, sigma=walk))
    assert found.ess_bulk_of == "sigma"
    assert found.ess_bulk < 100


def test_what_never_varies_is_left_out(tree):
    still = tree["posterior"]["beta"].to_numpy().copy()
    still[..., 1] = 3.0
    found = diagnose(changed(tree, beta=still))
    assert found.ok
    assert np.isfinite([found.rhat, found.ess_bulk, found.ess_tail]).all()


def test_a_chain_that_cannot_be_judged_is_not_fine(tree):
    stuck = tree["posterior"]["sigma"].to_numpy().copy()
    stuck[:] = np.arange(4)[:, None]
    found = diagnose(changed(tree, sigma=stuck))
    assert found.rhat_of == "sigma"
    assert not found.ok


def test_sampler_statistics_are_counted(tree):
    posterior = tree["posterior"].to_dataset()
    diverging = np.zeros((4, 500), bool)
    diverging[0, :3] = diverging[2, 5] = True
    slow = np.cumsum(np.random.default_rng(3).normal(size=(4, 500)), axis=1)
    found = diagnose(
        with_stats(posterior, diverging=diverging, maxdepth_reached=diverging, energy=slow)
    )
    assert found.divergences == 4
    assert found.max_treedepth == 4 / 2000
    assert found.bfmi < 0.1
    assert not found.ok


def test_a_clean_bill_is_one_sentence():
    assert FINE.ok
    (message,) = FINE.messages()
    assert message == (
        "No divergences in 4000 draws; R-hat at most 1.004, "
        "effective sample size at least 812, E-BFMI at least 0.87."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"divergences": 3},
            (
                "3 of 4000 draws diverged, so a part of the posterior may be missing. "
                "Raise `target_accept` (to 0.99, say), sample the marginal form (the "
                "default) if this is the hierarchical one, or give stronger "
                "priors."
            ),
        ),
        (
            {"rhat": 1.0234},
            (
                "R-hat of `Days` is 1.0234, above 1.01: the chains do not agree. Raise `tune` "
                "and `draws`; if that does not help, sample the marginal form (the "
                "default) if this is the hierarchical one, or give stronger priors."
            ),
        ),
        (
            {"ess_bulk": 399.0},
            (
                "The effective sample size of `sigma` is 399 in the bulk, below 400: the numbers "
                "are noisy. Raise `draws`."
            ),
        ),
        (
            {"ess_tail": 12.3},
            (
                "The effective sample size of `Intercept` is 12 in the tails, below 400: the "
                "numbers are noisy. Raise `draws`."
            ),
        ),
        (
            {"bfmi": 0.2},
            (
                "E-BFMI is 0.20, below 0.3: the chains hardly reach the tails. Raise `tune`, "
                "sample the marginal form (the default) if this is the hierarchical one, or give "
                "stronger priors."
            ),
        ),
    ],
    ids=str,
)
def test_every_problem_says_what_to_do(change, message):
    found = replace(FINE, **change)
    assert not found.ok
    assert found.messages() == (message,)


def test_what_could_not_be_computed_is_a_problem():
    nan = float("nan")
    found = replace(FINE, rhat=nan, ess_bulk=nan, ess_tail=nan, bfmi=nan)
    assert len(found.messages()) == 4


def test_diagnostics_do_not_change():
    with pytest.raises(FrozenInstanceError):
        FINE.divergences = 1


# The table


def test_rows_and_columns_of_the_table(tree):
    table = summarise(tree)
    assert list(table.index) == [
        "Intercept",
        "x",
        "sigma",
        "sd_g[Intercept]",
        "sd_g[x]",
        "sd_g[v]",
        "corr_g[Intercept, x]",
        "corr_g[Intercept, v]",
        "corr_g[x, v]",
    ]
    columns = ["mean", "sd", "lower", "upper", "ess_bulk", "ess_tail", "r_hat", "mcse_mean"]
    assert list(table.columns) == columns
    assert list(summarise(tree, include_b=True).index[3:9]) == [
        "b_g[7, Intercept]",
        "b_g[7, x]",
        "b_g[7, v]",
        "b_g[8, Intercept]",
        "b_g[8, x]",
        "b_g[8, v]",
    ]


def test_the_table_agrees_with_arviz(tree):
    table = summarise(tree, 0.8, include_b=True)
    names = ["beta", "sigma", "b_g", "sd_g"]
    other = az.summary(tree, var_names=names, ci_kind="hdi", ci_prob=0.8, round_to="none")
    mine = table.rename({"Intercept": "beta[Intercept]", "x": "beta[x]"}).loc[other.index]
    same = {"mean": "mean", "sd": "sd", "lower": "hdi80_lb", "upper": "hdi80_ub"}
    same |= {"r_hat": "r_hat", "mcse_mean": "mcse_mean"}
    for ours, theirs in same.items():
        np.testing.assert_allclose(mine[ours], other[theirs], rtol=1e-3, err_msg=ours)
    # ArviZ cuts these to whole numbers, and takes other tails
    np.testing.assert_allclose(mine["ess_bulk"], other["ess_bulk"], atol=1)
    np.testing.assert_allclose(mine["ess_tail"], other["ess_tail"], rtol=0.2)


def test_correlations_are_found_at_their_names(tree):
    corr = tree["posterior"]["corr_g"].sel(g_coef="v", g_coef_bis="x")
    assert summarise(tree).loc["corr_g[x, v]", "mean"] == pytest.approx(float(corr.mean()))


def test_a_coefficient_named_like_a_variable_keeps_a_name_of_its_own(tree):
    posterior = tree["posterior"].to_dataset().assign_coords(fixed=["Intercept", "sigma"])
    table = summarise(with_stats(posterior, energy=np.ones((4, 500))))
    assert list(table.index[:3]) == ["Intercept", "beta[sigma]", "sigma"]


def test_hdi_is_the_shortest_interval():
    draws = np.random.default_rng(1).exponential(size=(4, 50_000, 2)) * [1.0, 3.0]
    lower, upper = hdi(draws, 0.9)
    np.testing.assert_allclose(lower, 0, atol=2e-3)
    np.testing.assert_allclose(upper, np.log(10) * np.array([1, 3]), rtol=0.02)
    x = np.arange(11.0) ** 2
    lower, upper = hdi(x.reshape(1, 11), 0.5)
    assert (lower, upper) == (0.0, 25.0)


@pytest.mark.parametrize("prob", [0, 1, 95])
def test_a_probability_lies_between_0_and_1(tree, prob):
    message = f"^{re.escape(f'`prob` must lie between 0 and 1, got {prob}.')}$"
    with pytest.raises(FitError, match=message):
        hdi(np.zeros((2, 10)), prob)
    with pytest.raises(FitError, match=message):
        summarise(tree, prob)


def test_what_is_known_of_a_posterior_is_what_it_prints():
    exact = QuadratureDiagnostics(120, 1e-9)
    assert repr(exact) == "120 nodes; relative error of the integral about 1e-09."
    assert "relative error of the integral" in exact._repr_html_()
