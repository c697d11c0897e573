"""From no pooling to partial pooling: what a model does to each group's own estimate."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ranef.design.design import Design
from ranef.fits.no_pooling.own_estimates import Estimates, OwnEstimates, reliability
from ranef.fits.tables import effect_labels
from ranef.printing.frames import captioned


def shrinkage_table(design: Design, one: OwnEstimates, fit: Estimates) -> pd.DataFrame:
    """Compare each group's own estimate with the model's.

    Parameters
    ----------
    design : Design
    one : OwnEstimates
        Of a factor.
    fit : Estimates

    Returns
    -------
    DataFrame
        One row a level and coefficient, columns as of `Fit.shrinkage_table`.
    """
    factor, k = one.factor, len(one.factor.coefs)
    own = one.own[:, :k]
    scale = one.spread(pooled=True)[0][:, None] if fit.family.is_linear else 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        way = (own - one.model) / (own - one.population)
    columns = {
        "own": own,
        "model": one.model,
        "population": one.population,
        "n": np.repeat(one.regressions.counts, k),
        "se": one.unscaled[:, :k] * scale,
        "reliability": reliability(design, one, fit),
        "shrinkage": np.where(np.isfinite(way), way, np.nan),
        "held": np.repeat(one.held, k),
    }
    table = effect_labels(factor.name, factor.levels, factor.coefs).assign(
        **{name: np.asarray(values).ravel() for name, values in columns.items()}
    )
    return captioned(table, shown="no pooling (own), partial pooling (model) and complete pooling")
