"""A criterion as it is drawn: a parabola, and a bowl."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ranef.plots.curves.criterion_lines import criterion_lines


def test_a_curve():
    theta = np.linspace(0, 2, 21)
    table = pd.DataFrame({"g.x": theta, "criterion": 10 + (theta - 1) ** 2})
    table.attrs |= {"optimum": {"g.x": 1.0, "criterion": 10.0}, "label": "REML criterion"}
    axes = criterion_lines(table, figsize=(3, 2))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), table["criterion"])
    assert np.isclose(axes.lines[1].get_ydata()[0], 13.841)
    assert (axes.lines[2].get_xdata()[0], axes.lines[2].get_ydata()[0]) == (1.0, 10.0)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("theta: g.x", "REML criterion")


def test_contours_are_where_the_criterion_has_risen():
    one, two = np.meshgrid(np.linspace(-4, 4, 81), np.linspace(-3, 5, 81), indexing="ij")
    values = {"a": one.ravel(), "b": two.ravel(), "criterion": (one**2 + (two - 1) ** 2).ravel()}
    table = pd.DataFrame(values)
    table.attrs |= {"optimum": {"a": 0.0, "b": 1.0, "criterion": 0.0}, "label": "deviance"}
    axes = criterion_lines(table)
    (contours,) = axes.collections[:1]
    for path, level in zip(contours.get_paths(), (1.386, 3.219, 5.991, 9.210), strict=True):
        a, b = path.vertices.T
        np.testing.assert_allclose(np.hypot(a, b - 1), np.sqrt(level), atol=0.01)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("theta: a", "theta: b")
