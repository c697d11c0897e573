"""NUTS over the variance parameters of a Gaussian model, all effects integrated out.

Nutpie is given a density to call; nothing is compiled for the model at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np

from ranef._typing import Array, Dataset, DataTree
from ranef.arguments import Sampling
from ranef.numerics.matrices import threads_for
from ranef.posterior.linear_posterior import LinearPosterior
from ranef.posterior.sampling import density_arrays

type Density = Callable[[Array], tuple[float, Array]]

_KNOWN = ("chain", "draw", "tuning")  # of what nutpie says of each draw
MAX_STARTS = 20  # tried by a chain, each at half the distance: 2^-20 times the scale at the last


def sample(
    target: LinearPosterior, settings: Sampling, *, start: Array, scale: Array
) -> tuple[Array, Dataset]:
    """Draw from the posterior of the variance parameters with the no-U-turn sampler of nutpie.

    Parameters
    ----------
    target : LinearPosterior
        The log posterior density.
    settings : Sampling
    start, scale : ndarray, shape (d,)
        The chains start at independent normal points with this mean and standard deviation;
        nearer to `start` where the density is zero there.

    Returns
    -------
    x : ndarray, shape (chains, draws, d)
    sample_stats : xarray.Dataset
        `diverging`, `energy`, `maxdepth_reached`, `n_steps` and so on, dimensions (chain, draw).
    """
    chains, draws = settings.chains, settings.draws
    if not target.space.d:
        return np.empty((chains, draws, 0)), _no_stats(chains, draws)
    with threads_for(target.cross.q_rest):
        _import_without_arviz()
        model = _nutpie_model(target, start, scale)
        trace = to_the_end(model, **settings.of_nutpie(), return_raw_trace=True)
        draws_of, statistics_of = trace.get_arrow_trace()
    return _arrays(draws_of, statistics_of, settings)


class _Later(ModuleType):
    """A module that is loaded when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


def to_the_end(model: Any, **options: Any) -> Any:
    """Return what `nutpie.sample` does; an interrupt stops it, where nutpie gives what there is."""
    import nutpie

    sampler = nutpie.sample(model, blocking=False, **options)
    try:
        return sampler.wait()
    except BaseException:
        sampler.cancel()
        raise


def _import_without_arviz() -> None:
    """Import nutpie without ArviZ and all its plots, which it would load to convert draws."""
    if not {"arviz", "nutpie"} & set(sys.modules):
        sys.modules["arviz"] = _Later("arviz")
        try:
            import_module("nutpie")
        finally:
            del sys.modules["arviz"]


def _arrays(
    draws: Sequence[Any], statistics: Sequence[Any], settings: Sampling
) -> tuple[Array, Dataset]:
    """Return the draws after adaptation, and the statistics that are one number a draw.

    Parameters
    ----------
    draws, statistics : sequence of record batch
        Of each chain.
    settings : Sampling
    """
    import pyarrow as pa
    import xarray as xr

    n, is_of = settings.draws, pa.types
    x = [pa.array(chain.column("x"))[-n:].flatten().to_numpy() for chain in draws]
    chains = [{name: pa.array(s.column(name))[-n:] for name in s.column_names} for s in statistics]
    names = [k for k, v in chains[0].items() if is_of.is_primitive(v.type) and k not in _KNOWN]
    values: dict[str, list[Any]] = {name: [] for name in names}
    for name, chain in product(names, chains):
        column = chain[name].fill_null(0) if is_of.is_integer(chain[name].type) else chain[name]
        values[name].append(column.to_numpy(zero_copy_only=False))
    axes = {"chain": np.arange(len(chains)), "draw": np.arange(n)}
    stats = {name: (tuple(axes), np.array(value)) for name, value in values.items()}
    return np.array(x).reshape(len(x), n, -1), xr.Dataset(stats, axes)


def numeric_statistics(tree: DataTree) -> Dataset:
    """Return the statistics of nutpie that are numbers, by chain and draw."""
    statistics = tree["sample_stats"].to_dataset()
    return statistics.drop_vars([n for n, values in statistics.items() if values.dtype == object])


def _nutpie_model(target: LinearPosterior, start: Array, scale: Array) -> Any:
    """Return a model of nutpie with the fastest function for the density and its gradient."""
    if density_arrays.suits(target):
        from ranef.posterior.sampling import density_for_nutpie

        packed = density_arrays.pack(target)
        logp = density_for_nutpie.density(packed)
        return density_for_nutpie.nutpie_model(packed, partial(_near, logp, start, scale))
    from nutpie.compiled_pyfunc import from_pyfunc

    return from_pyfunc(
        target.space.d,
        make_logp_fn=lambda: target,
        make_expand_fn=lambda *_: _as_drawn,
        expanded_dtypes=[np.dtype(np.float64)],
        expanded_shapes=[(target.space.d,)],
        expanded_names=["x"],
        make_initial_point_fn=partial(_near, target, start, scale),
    )


def _as_drawn(x: Array) -> dict[str, Array]:
    return {"x": np.array(x)}


def _near(logp: Density, start: Array, scale: Array, seed: int) -> Array:
    """Return the start of a chain: a normal point, nearer to `start` where the density is zero."""
    step = scale * np.random.default_rng(seed).standard_normal(len(start))
    points = (start + 0.5**i * step for i in range(MAX_STARTS))
    return next((x for x in points if np.isfinite(logp(x)[0])), start)


def _no_stats(chains: int, draws: int) -> Dataset:
    """Return the statistics of a sampler that has nothing to do."""
    import xarray as xr

    zeros = np.zeros((chains, draws))
    stats = {"diverging": zeros > 0, "maxdepth_reached": zeros > 0, "energy": zeros}
    dims = ("chain", "draw")
    return xr.Dataset({name: (dims, value) for name, value in stats.items()})
