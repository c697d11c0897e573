"""A criterion over one or two covariance parameters: a curve, or contours."""

from __future__ import annotations

from typing import Unpack

import pandas as pd

from ranef._typing import Axes, Style
from ranef.plots import canvas

LEVELS = {50: 1.386, 80: 3.219, 95: 5.991, 99: 9.210}  # quantiles of chi-squared with 2 df
RISE_OF_95 = 3.841  # with one


def criterion_lines(table: pd.DataFrame, **style: Unpack[Style]) -> Axes:
    """Draw a criterion over one parameter, or over two as contours.

    Parameters
    ----------
    table : DataFrame
        One or two columns of parameters, and `criterion`; `.attrs["optimum"]` has the parameters
        and the criterion at its minimum, `.attrs["label"]` says which criterion it is.
    ax : Axes, optional
    figsize : tuple of float, optional
        Of a new figure, in inches.
    """
    names = [name for name in table.columns if name != "criterion"]
    size = (5.2, 4.6) if len(names) == 2 else (5.2, 3.4)
    axes = canvas.one_axes("criterion", size, **style)
    optimum, label = table.attrs["optimum"], table.attrs["label"]
    said = [name if name == "sigma" else f"theta: {name}" for name in names]
    canvas.label_x(axes, said[0])
    axes.spines[["top", "right"]].set_visible(False)
    if len(names) == 1:
        lowest = optimum["criterion"]
        axes.plot(table[names[0]], table["criterion"], color=canvas.ACCENT, linewidth=1.6)
        axes.axhline(lowest + RISE_OF_95, color=canvas.GREY, linewidth=0.8, linestyle="--")
        axes.plot(optimum[names[0]], lowest, "o", color=canvas.ink(axes), markersize=5)
        canvas.label_y(axes, label)
        canvas.note(axes, f"dashed: {RISE_OF_95:g} above the minimum", (1.0, 1.0), **_corner())
        return axes
    grid = table.pivot_table(index=names[1], columns=names[0], values="criterion")
    rise = grid.to_numpy() - optimum["criterion"]
    drawn = axes.contour(
        grid.columns, grid.index, rise, levels=list(LEVELS.values()), colors=[canvas.ACCENT]
    )
    words = {level: f"{prob} %" for prob, level in LEVELS.items()}
    axes.clabel(drawn, fmt=words, fontsize="small")
    axes.plot(optimum[names[0]], optimum[names[1]], "o", color=canvas.ink(axes), markersize=5)
    canvas.label_y(axes, said[1])
    axes.set_title(label, loc="left", fontsize="medium", pad=18.0)
    canvas.note(axes, "rise by quantiles of chi-squared with 2 df", (1.0, 1.0), **_corner())
    return axes


def _corner() -> dict[str, object]:
    return {"xytext": (0.0, 4.0), "ha": "right", "va": "bottom"}
