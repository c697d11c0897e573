"""Forest plots: estimates with known errors, what a model makes of them, and their mean."""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Axes, Style
from ranef.plots import canvas

APART = 0.17  # of a row, between a study's own estimate and the model's
HALF_HEIGHT = 0.3  # of the diamond
SMALLEST, LARGEST = 12.0, 70.0  # areas of squares, in square points
ROW_HEIGHT = 0.31  # of few studies, in inches
LAST_ROWS = {"mean": "mean", "new": "a new study"}


def forest(table: pd.DataFrame, *, response: str = "", **style: Unpack[Style]) -> Axes:
    """Draw a forest: studies from the top, then their mean and a new study.

    Parameters
    ----------
    table : DataFrame
        Columns `kind, label, own, own_lower, own_upper, estimate, lower, upper`, one row a line.
        Of the kinds "mean" and "new" only the last three are drawn.
    response : str
        What the estimates are, written below the axis.
    ax : matplotlib Axes, optional
    figsize : tuple of float, optional
        Of a new figure, in inches.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    DataError
        If the table is empty or lacks a column.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "kind": ["study", "study", "mean"], "label": ["A", "B", "mean"],
    ...     "own": [1.0, 3.0, None], "own_lower": [0.0, 1.0, None], "own_upper": [2.0, 5.0, None],
    ...     "estimate": [1.5, 2.5, 2.0], "lower": [0.5, 1.0, 1.0], "upper": [2.5, 4.0, 3.0]})
    >>> axes = forest(table)
    >>> [label.get_text() for label in axes.get_yticklabels()]
    ['mean', 'B', 'A']
    """
    table = table.iloc[::-1].reset_index(drop=True)
    names = [LAST_ROWS.get(k, str(n)) for k, n in zip(table["kind"], table["label"], strict=True)]
    m = len(table)
    size = canvas.labels_width(names) + 5.2, canvas.rows_height(m, ROW_HEIGHT)
    axes = canvas.one_axes("forest", size, **style)
    canvas.name_rows(axes, names, m)
    studies = table[table["kind"] == "study"]
    _draw_studies(axes, studies, str(table.attrs.get("interval", "")))
    for row in np.flatnonzero(table["kind"] != "study"):
        _draw_last(axes, float(row), table.iloc[row])
    if len(studies) < m:
        axes.axhline(m - len(studies) - 0.5, color=canvas.GREY, linewidth=0.6)
    if studies["own_lower"].min() <= 0.0 <= studies["own_upper"].max():
        axes.axvline(0.0, color=canvas.GREY, linewidth=0.8, zorder=1)
    canvas.strip(axes, "x")
    canvas.label_x(axes, response)
    axes.legend(ncols=2, handletextpad=0.4, columnspacing=1.2, **canvas.LEGEND_ABOVE)
    return axes


def _draw_studies(axes: Axes, studies: pd.DataFrame, interval: str) -> None:
    rows = studies.index.to_numpy(dtype=np.float64)
    width = (studies["own_upper"] - studies["own_lower"]).to_numpy(dtype=np.float64)
    share = width.min() / width
    above, below = rows + APART, rows - APART
    axes.hlines(above, studies["own_lower"], studies["own_upper"], color=canvas.GREY, linewidth=1)
    axes.scatter(
        studies["own"],
        above,
        s=np.maximum(SMALLEST, LARGEST * share**2),
        marker="s",
        color=canvas.GREY,
        label="the study by itself",
        zorder=3,
    )
    axes.hlines(below, studies["lower"], studies["upper"], color=canvas.TINT, linewidth=1.8)
    axes.plot(
        studies["estimate"],
        below,
        "o",
        color=canvas.ACCENT,
        markersize=4,
        label=", ".join(filter(None, ["in the light of the others", interval])),
        zorder=4,
    )


def _draw_last(axes: Axes, row: float, line: pd.Series) -> None:
    """Draw the mean as a diamond, as wide as its interval, and a new study as a bar."""
    lower, middle, upper = float(line["lower"]), float(line["estimate"]), float(line["upper"])
    if line["kind"] == "new":
        axes.hlines(row, lower, upper, color=canvas.ACCENT, linewidth=3, alpha=0.5)
        return
    x = [lower, middle, upper, middle]
    axes.fill(x, row + HALF_HEIGHT * np.array([0.0, 1.0, 0.0, -1.0]), color=canvas.ACCENT, zorder=4)
    axes.axvline(middle, color=canvas.ACCENT, linewidth=0.8, linestyle="--", zorder=1)
