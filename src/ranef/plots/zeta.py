"""Zeta plots: the signed root of a profiled deviance against a parameter, one panel each.

A straight line is the profile of a parameter whose Wald interval is exact (Bates & Watts 1988).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np

from ranef._typing import Array, Axes, Panels, Style
from ranef.plots import canvas

PANELS_PER_ROW = 3


@dataclass(frozen=True, eq=False)
class ZetaPanel:
    """The profile of one parameter, as a zeta plot draws it.

    Attributes
    ----------
    name : str
    values, zeta : ndarray, shape (points,)
        The line, by increasing values.
    nodes, node_zeta : ndarray, shape (nodes,)
        The points where the profile was computed.
    estimate : float
        The value where zeta is 0.
    slope : float
        The slope of the line at the estimate; nan where it has none.
    limits : tuple of float
        The ends of an interval; those that are not finite are not drawn.
    """

    name: str
    values: Array
    zeta: Array
    nodes: Array
    node_zeta: Array
    estimate: float
    slope: float
    limits: tuple[float, ...]


def zeta_plots(panels: Sequence[ZetaPanel], **style: Unpack[Style]) -> Panels:
    """Draw profiles, one a panel.

    Parameters
    ----------
    panels : sequence of ZetaPanel
    ax : Axes or several Axes, optional
        One for each panel. By default a new figure is made.
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    ndarray of Axes, shape (panels,)

    Raises
    ------
    RanefError
        If the number of axes is wrong.
    """
    names = [panel.name for panel in panels]
    axes = canvas.panels_of(
        names, lambda *shape: (3.2 * shape[0], 2.6 * shape[1]), PANELS_PER_ROW, **style
    )
    for panel_axes, panel in zip(axes, panels, strict=True):
        draw_zeta(panel_axes, panel)
    for left_axes in axes[::PANELS_PER_ROW]:
        canvas.label_y(left_axes, "zeta, signed root of the deviance")
    return axes


def draw_zeta(axes: Axes, panel: ZetaPanel) -> None:
    """Draw one profile: its line and nodes, the tangent at the estimate, and the limits."""
    axes.axhline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    if math.isfinite(panel.slope):
        reach = np.array([panel.zeta.min(), panel.zeta.max()])
        tangent = panel.estimate + reach / panel.slope
        axes.plot(tangent, reach, "--", color=canvas.GREY, linewidth=1, zorder=2)
    axes.plot(panel.values, panel.zeta, color=canvas.ACCENT, linewidth=1.6, zorder=3)
    axes.plot(panel.nodes, panel.node_zeta, "o", color=canvas.ACCENT, markersize=3, zorder=4)
    for limit in filter(math.isfinite, panel.limits):
        height = float(np.interp(limit, panel.values, panel.zeta))
        axes.vlines(limit, 0.0, height, color=canvas.ACCENT, linewidth=1, alpha=0.6, zorder=2)
    pad = 0.06 * float(np.ptp(panel.values)) or 1.0
    axes.set_xlim(float(panel.values.min()) - pad, float(panel.values.max()) + pad)
    canvas.head_panel(axes, panel.name, loc="left", fontsize="medium")
    axes.spines[["top", "right"]].set_visible(False)
