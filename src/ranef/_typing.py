"""Types of arrays and of what holds them, and of what pictures are drawn on, for all rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import concurrent.futures
    import os
    from collections.abc import Iterable

    import matplotlib.axes
    import xarray

type Array = NDArray[np.float64]
type Flags = NDArray[np.bool_]
type Places = NDArray[np.intp]
"""Places in an array, as NumPy's indices."""
type Codes = NDArray[np.int64]
"""The level of each row, from 0."""
type Integers = NDArray[np.int64]
"""Whole numbers, such as how many rows each level has, or places on a lattice."""
type Seed = int | np.random.Generator | np.random.SeedSequence | np.random.BitGenerator | None
"""What random numbers are made of."""
type Executor = concurrent.futures.Executor
type FilePath = str | os.PathLike[str]
type DataTree = xarray.DataTree
type Dataset = xarray.Dataset
type Axes = matplotlib.axes.Axes
type Panels = NDArray[np.object_]
"""Axes side by side."""
type Size = tuple[float, float]
"""Width and height, in inches."""


class Style(TypedDict, total=False):
    """What every picture can be drawn on: axes that are there, or a new figure of some size."""

    ax: Axes | Iterable[Axes] | None
    figsize: Size | None
