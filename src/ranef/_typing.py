"""Types of arrays, as all rooms name them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

type Array = NDArray[np.float64]
type Flags = NDArray[np.bool_]
type Places = NDArray[np.intp]
"""Places in an array, as NumPy's indices."""
type Codes = NDArray[np.int64]
"""The level of each row, from 0."""
type Seed = int | np.random.Generator | np.random.SeedSequence | np.random.BitGenerator | None
"""What random numbers are made of."""
