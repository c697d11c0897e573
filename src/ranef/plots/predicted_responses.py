"""Draw the distribution of a response over that of simulated ones.

The plot takes a tidy table, so that any table made by hand can be drawn too, on given axes or on a
new figure. Matplotlib loads with the first plot.
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Axes, Style
from ranef.plots import canvas

MOST_TICKS = 12  # of values that have a bar each
COLUMNS = ("value", "observed", "median", "lower", "upper")


def predictive(table: pd.DataFrame, **style: Unpack[Style]) -> Axes:
    """Draw the distribution of the observed responses over that of simulated ones.

    Parameters
    ----------
    table : DataFrame
        Columns `value, observed, median, lower, upper`; `.attrs["what"]` "density" for lines,
        "share of rows" for bars.
    ax : Axes, optional
        A new figure is made by default.
    figsize : tuple of float, optional
        Width and height of the new figure, in inches.

    Returns
    -------
    Axes

    Raises
    ------
    DataError
        If the table is empty or lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame(
    ...     {"value": [0.0, 1.0], "observed": 0.5, "median": 0.5, "lower": 0.4, "upper": 0.6})
    >>> predictive(table).get_ylabel()
    'density'
    """
    axes = canvas.one_axes("responses", (5.6, 3.8), **style)
    value, observed, median, lower, upper = (table[c].to_numpy(dtype=float) for c in COLUMNS)
    what = table.attrs.get("what", "density")
    said = f"{100 * table.attrs.get('prob', 0.95):g} % of simulations, and their median"
    if what == "density":
        axes.fill_between(
            value, lower, upper, color=canvas.ACCENT, alpha=0.2, linewidth=0.0, label=said
        )
        axes.plot(value, median, color=canvas.ACCENT, linewidth=1.0)
        axes.plot(value, observed, color=canvas.ink(axes), linewidth=1.6, label="observed")
    else:
        if len(value) <= MOST_TICKS:
            axes.set_xticks(value)
        width = 0.8 * float(np.diff(value).min()) if len(value) > 1 else 0.8
        axes.bar(value, observed, width, color=canvas.GREY, alpha=0.35, label="observed")
        axes.errorbar(
            value, median, [median - lower, upper - median], fmt="o", color=canvas.ACCENT,
            markersize=3.5, elinewidth=1.4, label=said,
        )  # fmt: skip
    axes.set_ylim(bottom=0.0)
    canvas.label_x(axes, str(table.attrs.get("response", "response")))
    canvas.label_y(axes, what)
    axes.grid(axis="y", color=canvas.GREY, alpha=0.2, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=2, **canvas.LEGEND_ABOVE)
    return axes
