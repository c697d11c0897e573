"""Posterior densities of parameters over their priors, or their quantiles over normal ones."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
import scipy
from scipy.special import ndtr, ndtri

from ranef._typing import Axes, Panels, Size, Style
from ranef.arguments import check_choice
from ranef.plots import canvas

KINDS = ("density", "qq")
PANELS_PER_ROW = 3
FAR = 2.5  # normal quantiles that are drawn on either side
MARKS = {"REML": ("v", 0.11), "ML": ("D", 0.03)}  # marker, share of height


def densities(
    table: pd.DataFrame, *, kind: str = "density", of: str = "posterior", **style: Unpack[Style]
) -> Panels:
    """Draw densities, or the quantiles of their distributions, one parameter a panel.

    Parameters
    ----------
    table : DataFrame
        Columns `parameter, value, posterior, prior`, the prior nan where there is none;
        `.attrs["estimates"]`, if there, has other estimates by parameter and method.
    kind : {"density", "qq"}
        "qq": quantiles against those of the normal distribution, with the line through quartiles.
    of : str
        What the densities are of.
    ax : Axes or sequence of Axes, optional
        One for each parameter.
    figsize : tuple of float, optional
        Of a new figure, in inches.
    """
    check_choice("kind", kind, KINDS, "is no kind of plot")
    panels = dict(iter(table.groupby("parameter", sort=False)))
    names = [str(name) for name in panels]
    axes = canvas.panels_of(names, _size, PANELS_PER_ROW, **style)
    estimates = table.attrs.get("estimates", {})
    for place, (name, panel) in zip(axes, panels.items(), strict=True):
        if kind == "qq":
            draw_quantiles(place, panel, has_label=place is axes[0])
        else:
            draw_density(place, panel, estimates.get(name, {}), of=of)
        canvas.head_panel(place, str(name), loc="left", fontsize="medium")
    handles: dict[str, object] = {}
    for place in axes:
        drawn, labels = place.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    if handles and style.get("ax") is None:
        figure = axes[0].figure
        figure.legend(
            handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles),
            frameon=False, fontsize="small",
        )  # fmt: skip
    return axes


def draw_density(
    axes: Axes, panel: pd.DataFrame, estimates: dict[str, float], *, of: str = "posterior"
) -> None:
    """Draw the densities of one parameter, and mark other estimates on its axis."""
    value, posterior = panel["value"].to_numpy(), panel["posterior"].to_numpy()
    axes.fill_between(value, posterior, color=canvas.TINT, alpha=0.45, linewidth=0.0, zorder=1)
    axes.plot(value, posterior, color=canvas.ACCENT, linewidth=1.6, label=of, zorder=3)
    prior = panel["prior"].to_numpy()
    if np.isfinite(prior).all():
        axes.plot(
            value, prior, color=canvas.GREY, linewidth=1.2, linestyle="--", label="prior", zorder=2
        )
    for method, estimate in estimates.items():
        marker, share = MARKS.get(method, ("o", 0.03))
        color, height = canvas.GREY if method == "ML" else canvas.ink(axes), share * posterior.max()
        axes.plot(
            estimate, height, marker, color=color, markersize=6, label=method, zorder=5,
            linestyle="none", clip_on=False,
        )  # fmt: skip
    axes.set_ylim(0.0, 1.08 * posterior.max())
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def draw_quantiles(axes: Axes, panel: pd.DataFrame, *, has_label: bool = True) -> None:
    """Draw the quantiles of one parameter's distribution against those of the normal one."""
    value, density = panel["value"].to_numpy(), panel["posterior"].to_numpy()
    below = scipy.integrate.cumulative_trapezoid(density, value, initial=0)
    below /= below[-1]
    inside = (below > ndtr(-FAR)) & (below < ndtr(FAR))
    axes.plot(value[inside], ndtri(below[inside]), color=canvas.ACCENT, linewidth=1.6, zorder=3)
    low, high = np.interp([0.25, 0.75], below, value)
    axes.axline(
        (low, ndtri(0.25)), (high, ndtri(0.75)), linestyle="--", color=canvas.GREY, linewidth=1.0
    )
    axes.spines[["top", "right"]].set_visible(False)
    if has_label:
        canvas.label_y(axes, "normal quantile")


def single_density(
    table: pd.DataFrame,
    *,
    interval: tuple[float, float],
    mean: float,
    prob: float = 0.95,
    name: str = "",
    **style: Unpack[Style],
) -> Axes:
    """Draw one density, with an interval below the curve and its mean.

    Parameters
    ----------
    table : DataFrame
        Columns `value` and `density`.
    interval : tuple of float
    mean : float
    prob : float
        Probability of the interval.
    name : str
        The label of the axis.
    ax : Axes, optional
    figsize : tuple of float
        Of a new figure, in inches.
    """
    axes = canvas.one_axes("density", (4.8, 3.0), **style)
    value, density = table["value"].to_numpy(), table["density"].to_numpy()
    inside = (value >= interval[0]) & (value <= interval[1])
    words = f"{100 * prob:g} % HPD interval"
    axes.fill_between(
        value, density, where=inside, color=canvas.TINT, alpha=0.6, linewidth=0, label=words
    )
    axes.plot(value, density, color=canvas.ACCENT, linewidth=1.6, label="posterior density")
    height = float(np.interp(mean, value, density))
    axes.vlines(mean, 0.0, height, color=canvas.ink(axes), linewidth=1, linestyle=":", label="mean")
    axes.set_ylim(0.0, 1.08 * density.max())
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    canvas.label_x(axes, name)
    if style.get("ax") is None:
        axes.figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return axes


def _size(columns: int, rows: int) -> Size:
    return max(3.0 * columns, 3.6), 1.9 * rows + 0.4
