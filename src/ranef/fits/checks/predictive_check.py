"""The distribution of the response beside that of responses that the fit simulates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from ranef._typing import Array

FEW_VALUES = 40  # of a discrete response, whose shares are shown
PLACES = 256  # of a density
MARGIN = 0.15  # of the range of the response, beyond it


def predictive_table(fit: Any, groups: str, prob: float, n: int, seed: int | None) -> pd.DataFrame:
    """Return densities, or shares, of the observed and of simulated responses."""
    y, simulated = fit.design.rows.y, fit.simulate(n, seed, groups)
    values = np.unique(np.append(np.unique(y), np.unique(simulated[:, :FEW_VALUES])))
    is_share = fit.family.is_discrete and len(values) <= FEW_VALUES
    if is_share:
        found = np.array([_shares(one, values) for one in (y, *simulated.T)])
    else:
        values, edges, width = _grid(y)
        found = np.array([_density(one, edges, width) for one in (y, *simulated.T)])
    lower, median, upper = np.quantile(found[1:], [(1 - prob) / 2, 0.5, (1 + prob) / 2], axis=0)
    table = pd.DataFrame(
        {"value": values, "observed": found[0], "median": median, "lower": lower, "upper": upper}
    )
    what = "share of rows" if is_share else "density"
    table.attrs |= {"what": what, "response": fit.design.response, "prob": prob, "simulations": n}
    return table


def _shares(y: Array, values: Array) -> Array:
    places = np.searchsorted(values, y)
    inside = (places < len(values)) & (values[np.minimum(places, len(values) - 1)] == y)
    return np.bincount(places[inside], minlength=len(values)) / len(y)


def _grid(y: Array) -> tuple[Array, Array, float]:
    """Return places for a density, the edges of bins around them, and a width of the kernel.

    Source: Silverman (1986), *Density Estimation*, equation 3.31.
    """
    low, high = float(y.min()), float(y.max())
    spread = min(float(y.std()), float(np.ptp(np.quantile(y, [0.25, 0.75]))) / 1.34)
    width = 0.9 * (spread or float(y.std()) or 1.0) * len(y) ** -0.2
    reach = max(MARGIN * (high - low), 3 * width)
    edges = np.linspace(low - reach, high + reach, PLACES + 1)
    return (edges[1:] + edges[:-1]) / 2, edges, width


def _density(y: Array, edges: Array, width: float) -> Array:
    step = edges[1] - edges[0]
    counts = np.histogram(y, edges)[0] / (len(y) * step)
    return np.asarray(gaussian_filter1d(counts, width / step, mode="constant"))
