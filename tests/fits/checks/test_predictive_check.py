"""The distribution of responses beside simulated ones: densities and shares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

import ranef as rf


def test_a_density_is_that_of_the_rows_with_a_normal_kernel():
    fit = rf.fit("Reaction ~ Days + (Days | Subject)", rf.load_dataset("sleepstudy"))
    table = fit.ppc_table(n=60, seed=1)
    y = rf.load_dataset("sleepstudy")["Reaction"].to_numpy()
    width = 0.9 * min(y.std(), np.ptp(np.quantile(y, [0.25, 0.75])) / 1.34) * 180**-0.2
    direct = norm.pdf(table["value"].to_numpy()[:, None], y, width).mean(axis=1)
    assert np.abs(table["observed"] - direct).max() < 0.02 * direct.max()
    step = np.diff(table["value"])[0]
    assert table["observed"].sum() * step == pytest.approx(1, abs=1e-3)
    assert (table["lower"] <= table["upper"]).all()
    assert table.attrs["what"] == "density"
    inside = table["observed"].between(table["lower"], table["upper"])
    assert inside.mean() > 0.7


def test_shares_of_counts():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(20), 10)
    y = rng.poisson(np.exp(0.5 + 0.5 * rng.normal(size=20)[g]))
    fit = rf.fit("y ~ 1 + (1 | g)", {"y": y, "g": g}, family="poisson")
    table = fit.ppc_table(n=99, seed=1).set_index("value")
    assert table.attrs["what"] == "share of rows"
    for value in range(4):
        assert table.loc[value, "observed"] == pytest.approx(np.mean(y == value))
    assert table.loc[0, "observed"] < table.loc[0, "upper"]
    axes = fit.plot_ppc(n=20, seed=1)
    assert axes.get_ylabel() == "share of rows"


def test_of_a_posterior_draws_are_its_own():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature", seed=1)
    table = fit.ppc_table(n=40, seed=1, groups="new")
    point = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff")).ppc_table(n=40, seed=1)
    width = (table["upper"] - table["lower"]).mean()
    assert width > (point["upper"] - point["lower"]).mean()
