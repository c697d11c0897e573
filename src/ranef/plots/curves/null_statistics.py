"""Statistics simulated under a smaller model, with the one that was observed."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Array, Axes, Panels, Style
from ranef.plots import canvas

BINS = 40
ZERO = 1e-6  # a statistic below it is zero


def null_statistics(table: pd.DataFrame, **style: Unpack[Style]) -> Panels:
    """Draw the distribution of simulated statistics, one test a panel.

    Parameters
    ----------
    table : DataFrame
        Columns `test` and `statistic`; `.attrs["observed"]` has, by test, the observed statistic
        and its p-value, and `.attrs["kind"]` what the statistic is.
    ax : Axes or sequence of Axes, optional
        One for each test.
    figsize : tuple of float, optional
        Of a new figure, in inches.
    """
    tests = [str(test) for test in table.attrs["observed"]]
    axes = canvas.panels_of(tests, lambda _, rows: (5.6, 0.4 + 2.6 * rows), most=1, **style)
    for place, (test, (observed, p_value)) in zip(
        axes, table.attrs["observed"].items(), strict=True
    ):
        drawn = table.loc[table["test"] == test, "statistic"].to_numpy()
        draw_null(place, drawn, observed, p_value)
        place.set_title(str(test), loc="left", fontsize="medium", parse_math=False)
        canvas.label_x(place, table.attrs["kind"])
    return axes


def draw_null(axes: Axes, drawn: Array, observed: float, p_value: float) -> None:
    """Draw the share of statistics of zero, a histogram of all others, and the observed one."""
    top = max(float(np.max(drawn, initial=1.0)), observed) * 1.03
    edges = np.linspace(0.0, top, BINS + 1)
    positive = drawn[drawn > ZERO]
    shares, _ = np.histogram(positive, edges)
    reached = edges[1:] > observed
    axes.stairs(shares / len(drawn), edges, fill=True, color=canvas.TINT, alpha=0.8)
    axes.stairs(
        np.where(reached, shares / len(drawn), 0.0),
        edges,
        fill=True,
        color=canvas.ACCENT,
        alpha=0.6,
    )
    zeros = 1 - len(positive) / len(drawn)
    if zeros > 0:
        axes.vlines(0.0, 0.0, zeros, color=canvas.GREY, linewidth=4)
        axes.annotate(
            f"{zeros:.0%} are zero", (0.0, zeros), textcoords="offset points", xytext=(-3.0, 3.0),
            ha="left", va="bottom", fontsize="small", color=canvas.GREY,
        )  # fmt: skip
    axes.axvline(observed, ymax=0.8, color=canvas.ink(axes), linewidth=1.4)
    side = -1 if observed > 0.7 * top else 1
    axes.annotate(
        f"observed {observed:.3g}\np = {p_value:.3g}",
        (observed, 0.66),
        xycoords=axes.get_xaxis_transform(),
        xytext=(5.0 * side, 0.0),
        textcoords="offset points",
        ha="left" if side > 0 else "right",
        fontsize="small",
    )
    canvas.note(
        axes, f"{len(drawn):,} simulated", (1.0, 1.0), xytext=(0.0, 4.0), ha="right", va="bottom"
    )
    canvas.label_y(axes, "share")
    axes.set_ylim(0.0, 1.25 * max(zeros, float(np.max(shares)) / len(drawn)))
    axes.set_xlim(-0.02 * top, top)
    axes.spines[["top", "right"]].set_visible(False)
