"""Densities as they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import ranef as rf
from ranef.errors import RanefError
from ranef.plots.curves.densities import densities, single_density


def test_curves_priors_and_marks():
    value = np.linspace(0, 1, 11)
    table = pd.DataFrame({"value": value, "posterior": 2 * value, "prior": np.nan})
    both = pd.concat([table.assign(parameter="a"), table.assign(parameter="b", prior=1.0)])
    both.attrs["estimates"] = {"a": {"REML": 0.3, "ML": 0.2}}
    first, second = densities(both)
    marks = {line.get_label(): float(line.get_xdata()[0]) for line in first.lines[1:]}
    assert marks == {"REML": 0.3, "ML": 0.2}
    assert [line.get_label() for line in second.lines] == ["posterior", "prior"]
    np.testing.assert_array_equal(second.lines[0].get_ydata(), 2 * value)
    assert first.get_title(loc="left") == "a"


def test_quantiles_of_a_normal_distribution_lie_on_a_line():
    value = np.linspace(-6, 10, 2001)
    table = pd.DataFrame({"parameter": "a", "value": value, "prior": np.nan})
    (axes,) = densities(table.assign(posterior=stats.norm.pdf(value, 2, 1.5)), kind="qq")
    quantiles, line = axes.lines
    x, y = np.array(quantiles.get_data())
    np.testing.assert_allclose(y, (x - 2) / 1.5, atol=1e-3)
    ends = np.array([line.get_xy1(), line.get_xy2()])
    np.testing.assert_allclose(ends[:, 0], stats.norm.ppf([0.25, 0.75], 2, 1.5), atol=1e-3)
    np.testing.assert_allclose(ends[:, 1], stats.norm.ppf([0.25, 0.75]))
    assert -2.5 < y[0] < -2.45
    with pytest.raises(RanefError, match="kind='q' is no kind of plot"):
        densities(table.assign(posterior=1.0), kind="q")


def test_a_curve_draws_itself():
    fit = rf.fit("Yield ~ 1 + (1 | Batch)", rf.load_dataset("Dyestuff"), "quadrature")
    curve = fit.curve("sd_Batch[Intercept]")
    axes = curve.plot(0.5, name="sd between batches")
    assert axes.get_xlabel() == "sd between batches"
    (band,) = axes.collections[:1]
    ends = band.get_paths()[0].vertices[:, 0]
    assert (ends.min(), ends.max()) == pytest.approx(curve.hdi(0.5), abs=1e-9)
    assert curve.plot(ax=axes) is axes


def test_a_density_without_a_legend_of_its_own():
    value = np.linspace(0, 1, 11)
    table = pd.DataFrame({"value": value, "density": 2 * value})
    axes = single_density(table, interval=(0.2, 1.0), mean=2 / 3, prob=0.9, figsize=(3, 2))
    assert axes.figure.get_size_inches().tolist() == [3, 2]
