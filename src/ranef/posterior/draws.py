"""From exact draws to the container of a posterior: an `xarray.DataTree` that ArviZ takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ranef._typing import Array
from ranef.design.design import Design
from ranef.design.labels import coordinates, has_corr, named
from ranef.families.family import Family
from ranef.families.gaussian import GAUSSIAN
from ranef.likelihood.predictions import Draws
from ranef.posterior.transforms import correlations

if TYPE_CHECKING:
    import xarray as xr


def tree(
    design: Design,
    draws: Draws,
    chains: int,
    stats: xr.Dataset | None = None,
    extra: xr.Dataset | None = None,
    *,
    family: Family = GAUSSIAN,
) -> xr.DataTree:
    """Return draws with the user's names and labels.

    Parameters
    ----------
    design : Design
    draws : Draws
        Of all chains together, one chain after the other.
    chains : int
    stats : xarray.Dataset, optional
        What the sampler says of the draws.
    extra : xarray.Dataset, optional
        Draws of further variables.
    family : Family
        Which has a sigma or not, and parameters of its own.

    Returns
    -------
    xarray.DataTree
        Groups `posterior`, `observed_data` and, with `stats`, `sample_stats`.
    """
    import xarray as xr

    found: dict[str, Array] = {"beta": draws.beta, **draws.parameters}
    if draws.sigma is not None:
        found["sigma"] = draws.sigma
    for term, F, b in zip(design.terms, draws.factors, draws.b, strict=True):
        sd = np.linalg.norm(F, axis=2)
        found |= {f"b_{term.label}": b, f"sd_{term.label}": sd}
        if has_corr(term):
            found[f"corr_{term.label}"] = correlations(F / sd[:, :, None])
    by_chain = {
        name: part.reshape(chains, len(part) // chains, *part.shape[1:])
        for name, part in found.items()
    }
    y = xr.Dataset({"y": ("obs", design.y)}, {"obs": list(coordinates(design, family)[1]["obs"])})
    posterior = named(design, by_chain, family)
    if extra is not None:
        posterior = posterior.assign(extra.data_vars)
    groups = {"posterior": posterior, "observed_data": y}
    return xr.DataTree.from_dict(groups if stats is None else groups | {"sample_stats": stats})
