"""Generalised models, small."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from ranef.design.design import build_design, full_rank
from ranef.formula.terms import read_formula


@cache
def frame(seed=0, n=300, m=15):
    """Return counts and successes that vary between groups in level and slope."""
    rng = np.random.default_rng(seed)
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.uniform(1, 3, n)})
    data["g"], data["h"] = rng.integers(0, m, n), rng.integers(0, 8, n)
    data["s"] = data["g"] // 4
    b = rng.normal(size=(m, 2)) @ np.array([[0.8, 0.2], [0, 0.5]])
    eta = 0.3 + 0.5 * data["x"] + b[data["g"], 0] + b[data["g"], 1] * data["x"]
    eta += 0.6 * rng.normal(size=8)[data["h"]] + 0.7 * rng.normal(size=m)[data["s"]]
    data["count"] = rng.poisson(np.exp(eta))
    data["size"] = rng.integers(1, 8, n)
    data["won"] = rng.binomial(data["size"], 1 / (1 + np.exp(-eta)))
    data["share"] = data["won"] / data["size"]
    data["one"] = (rng.uniform(size=n) < 1 / (1 + np.exp(-eta))).astype(float)
    data["time"] = rng.gamma(3, np.exp(eta) / 3)
    data["level"] = eta + 0.5 * rng.standard_t(4, n)
    return data


def design_of(formula, data=None, weights=None, offset=None):
    data = frame() if data is None else data
    design = full_rank(build_design(read_formula(formula), data))
    if weights is not None:
        design = design.with_rows(weights=np.asarray(weights, dtype=float))
    return design if offset is None else design.with_rows(offset=np.asarray(offset, dtype=float))
