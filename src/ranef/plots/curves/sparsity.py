"""Patterns of matrices: where there are entries, and of which sign."""

from __future__ import annotations

from functools import partial
from typing import Unpack

import numpy as np
import pandas as pd

from ranef._typing import Axes, Panels, Size, Style
from ranef.plots import canvas

MAX_CELLS = 400  # rows, or columns, that are drawn one by one


def sparsity(table: pd.DataFrame, **style: Unpack[Style]) -> Panels:
    """Draw matrices, one a panel.

    Parameters
    ----------
    table : DataFrame
        Columns `matrix, row, column, value`; `.attrs["shapes"]` has the shape of each matrix.
    ax : sequence of Axes, optional
        One for each matrix.
    figsize : tuple of float, optional
        Of a new figure, in inches.
    """
    shapes = table.attrs["shapes"]
    axes = canvas.axes_of(list(shapes), partial(_new_axes, shapes), **style)
    for place, (name, shape) in zip(axes, shapes.items(), strict=True):
        entries = table[table["matrix"] == name]
        draw_matrix(place, entries, shape)
        count = f"{shape[0]:,} x {shape[1]:,}, {len(entries):,} entries"
        title = f"{name}, permuted" if name == "L" and _is_permuted(table) else name
        place.set_title(f"{title}\n{count}", loc="left", fontsize="small", parse_math=False)
    return axes


def _is_permuted(table: pd.DataFrame) -> bool:
    order = np.asarray(table.attrs.get("permutation", ()))
    return bool((order != np.arange(len(order))).any())


def draw_matrix(axes: Axes, entries: pd.DataFrame, shape: tuple[int, int]) -> None:
    """Draw the entries of one matrix; in cells that take several, the sum of their signs."""
    rows, columns = (min(size, MAX_CELLS) for size in shape)
    image = np.zeros((rows, columns))
    row = entries["row"].to_numpy() * rows // shape[0]
    column = entries["column"].to_numpy() * columns // shape[1]
    value = entries["value"].to_numpy()
    if (rows, columns) != shape:
        value = np.sign(value)
    np.add.at(image, (row, column), value)
    top = np.abs(image).max() or 1.0
    shown = np.sign(image) * np.maximum(np.sqrt(np.abs(image) / top), 0.25 * (image != 0))
    axes.imshow(
        shown, cmap="RdBu", vmin=-1.3, vmax=1.3, aspect="auto", interpolation="nearest",
        extent=(-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5),
    )  # fmt: skip
    axes.locator_params(nbins=4, integer=True)
    axes.tick_params(labelsize="x-small", length=2)


def _new_axes(shapes: dict[str, tuple[int, int]], figsize: Size | None) -> Panels:
    figure = canvas.new_figure((8.4, 5.2), figsize)
    grid = figure.add_gridspec(2, 6, height_ratios=(1, 1.15))
    wide = [name for name, (rows, columns) in shapes.items() if rows != columns]
    square = [name for name in shapes if name not in wide] if wide else list(shapes)[2:]
    wide = wide or list(shapes)[:2]
    places = {name: grid[0, 3 * i : 3 * i + 3] for i, name in enumerate(wide)}
    width = 6 // len(square)
    places |= {name: grid[1, width * i : width * (i + 1)] for i, name in enumerate(square)}
    return np.array([figure.add_subplot(places[name]) for name in shapes], dtype=object)
