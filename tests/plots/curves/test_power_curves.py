"""Power against size, as it is drawn."""

from __future__ import annotations

import pandas as pd

from ranef.plots.curves.power_curves import power_curves


def test_lines_bands_and_levels():
    table = pd.DataFrame(
        {
            "size": [12, 10],
            "line": "x",
            "power": [0.8, 0.5],
            "lower": [0.7, 0.4],
            "upper": [0.9, 0.6],
        }
    )
    axes = power_curves(table, size="groups", target=0.9)
    levels = [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"]
    assert levels == [0.9, 0.05]
    (line,) = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([10, 12], [0.5, 0.8])
    assert axes.get_title(loc="left") == "x"
    assert axes.get_legend() is None
    assert all(tick == round(tick) for tick in axes.get_xticks())
