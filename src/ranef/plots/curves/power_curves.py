"""Power against the size of a study, with its intervals."""

from __future__ import annotations

from typing import Unpack

import pandas as pd
from matplotlib.ticker import MaxNLocator

from ranef._typing import Axes, Style
from ranef.plots import canvas

MAX_LINES = 10  # that have colours of their own


def power_curves(
    table: pd.DataFrame,
    *,
    size: str,
    target: float | None = 0.8,
    alpha: float = 0.05,
    **style: Unpack[Style],
) -> Axes:
    """Draw power against size, one line for each effect.

    Parameters
    ----------
    table : DataFrame
        Columns `size`, `line` (what the line is), `power`, `lower`, `upper`.
    size : str
        What the size is, below the axis.
    target : float, optional
        Where a line is drawn.
    alpha : float
        The level of the test, below which no power can fall; a line is drawn there too.
    ax : Axes, optional
    figsize : tuple of float, optional
        Of a new figure, in inches.
    """
    axes = canvas.one_axes("power", (6.4, 4.4), **style)
    for level, words in ((target, "target"), (alpha, "level of the test")):
        if level is not None:
            axes.axhline(level, color=canvas.GREY, linewidth=0.8, linestyle="--", zorder=1)
            place = {"xytext": (-2.0, 2.0), "ha": "right", "va": "bottom"}
            canvas.note(axes, f"{words}, {level:g}", (1.0, (level + 0.02) / 1.04), **place)
    groups = list(table.groupby("line", sort=False))
    for i, (name, line) in enumerate(groups):
        drawn = line.sort_values("size")
        color = f"C{i % MAX_LINES}"
        axes.fill_between(drawn["size"], drawn["lower"], drawn["upper"], color=color, alpha=0.2)
        axes.plot(drawn["size"], drawn["power"], "o-", color=color, markersize=4, label=str(name))
    axes.set_ylim(-0.02, 1.02)
    canvas.label_x(axes, size)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # sizes are counts
    canvas.label_y(axes, "power, with 95 % interval")
    axes.spines[["top", "right"]].set_visible(False)
    if len(groups) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small")
    else:
        axes.set_title(str(groups[0][0]), loc="left", parse_math=False)
    return axes
