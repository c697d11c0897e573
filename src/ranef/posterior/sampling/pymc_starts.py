"""Where the chains of a PyMC model start, and what is said if they cannot.

PyMC starts from the priors. Where these are wide beside the likelihood, as for the slope of an
unscaled predictor, the density there is so steep that the sampler gives up. Chains therefore start
at draws near the mode, where these are known; else at the starts of PyMC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy

from ranef._typing import Array, Dataset, DataTree
from ranef.errors import FitError
from ranef.posterior.sampling.nuts import to_the_end

if TYPE_CHECKING:
    import pymc as pm

type Density = Callable[[Array], tuple[float, Array]]

N_TRIED = 20  # starts of PyMC
MAX_STEPS = 50  # uphill from a start


def sample(model: pm.Model, compiled: Any, starts: Dataset | None, **options: Any) -> DataTree:
    """Sample a compiled model from starts where its density can be computed.

    Parameters
    ----------
    model : pymc.Model
    compiled : nutpie.CompiledPyMCModel
    starts : Dataset, optional
        Draws by the names of the variables. Without a draw of each free variable the chains start
        where PyMC has them start.
    **options
        Of `nutpie.sample`.

    Raises
    ------
    FitError
        If they cannot, from there or from where the density is flatter.
    """
    density = density_of(compiled)
    points = _first_points(model, compiled, starts)
    for tried in (points, [_ascended(density, x) for x in points[: options["chains"]]]):
        usable = [x for x in tried if _is_usable(density, x)]
        if usable:
            try:
                tree: DataTree = to_the_end(_from(compiled, usable), **options)
            except BaseException as error:  # a panic of the sampler is no Exception
                if not _says_no_start(error):
                    raise
            else:
                return tree
    raise cannot_start(model, density, points)


def _first_points(model: pm.Model, compiled: Any, starts: Dataset | None) -> list[Array]:
    if starts is not None and {rv.name for rv in model.free_RVs} <= set(starts.data_vars):
        points = unconstrained(model, starts)
        if any(_is_usable(density_of(compiled), x) for x in points):
            return points
    return [compiled.initial_point_func(seed) for seed in range(N_TRIED)]


def _from(compiled: Any, points: Sequence[Array]) -> Any:
    """Return a compiled model whose chains start at some of these points."""

    def start(seed: int) -> Array:
        return np.array(points[int(np.random.default_rng(seed).integers(len(points)))])

    return replace(compiled, initial_point_func=start)


def _ascended(density: Density, x: Array) -> Array:
    """Return a point from which the density does not rise as steeply."""

    def objective(x: Array) -> tuple[float, Array]:
        value, gradient = density(x)
        return (-value, -gradient) if np.isfinite(value) else (np.inf, np.zeros_like(x))

    found = scipy.optimize.minimize(
        objective, x, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS}
    )
    return np.asarray(found.x)


def _says_no_start(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException" or (
        isinstance(error, RuntimeError) and "initial" in str(error).lower()
    )


def unconstrained(model: pm.Model, values: Dataset) -> list[Array]:
    """Return the coordinates that the sampler moves in, shape (d,), of the draws of a chain."""
    import pymc as pm

    transforms = [(rv, model.rvs_to_transforms[rv]) for rv in model.free_RVs]
    coordinates = [rv if t is None else t.forward(rv, *rv.owner.inputs) for rv, t in transforms]
    forward = pm.compile(model.free_RVs, coordinates, mode="FAST_COMPILE", on_unused_input="ignore")
    draws = [values[rv.name].to_numpy()[0] for rv in model.free_RVs]
    with np.errstate(all="ignore"):
        found = [forward(*row) for row in zip(*draws, strict=True)]
    return [np.concatenate([np.ravel(part) for part in row]) for row in found]


def density_of(compiled: Any) -> Density:
    """Return the log density of a compiled model with its gradient."""
    function = compiled.compiled_logp_func.ctypes

    def density(x: Array) -> tuple[float, Array]:
        x, gradient, value = np.ascontiguousarray(x), np.full(len(x), np.nan), np.full(1, -np.inf)
        arrays = (x, gradient, value, compiled.user_data)
        pointers = zip(arrays, function.argtypes[1:], strict=True)
        function(len(x), *(array.ctypes.data_as(kind) for array, kind in pointers))
        return float(value[0]), gradient

    return density


def cannot_start(model: pm.Model, density: Density, points: Sequence[Array]) -> FitError:
    """Return the error of chains that cannot start: it names the variable that is the steepest."""
    found = [density(x) for x in points]
    steepness = [
        np.abs(gradient).max() if np.isfinite(value) else np.inf for value, gradient in found
    ]
    steepest = np.nan_to_num(np.abs(found[int(np.argmin(steepness))][1]), nan=np.inf)
    sizes = [np.size(part) for part in model.initial_point().values()]
    place = np.searchsorted(np.cumsum(sizes), int(np.argmax(steepest)), side="right")
    name, slope = model.free_RVs[int(place)].name, f"changes by {min(steepness):.1g} a unit"
    if not np.isfinite(min(steepness)):
        parts = model.point_logps()
        name = next((part for part, value in parts.items() if not np.isfinite(value)), name)
        slope = "is not finite"
    return FitError(
        f"the chains cannot start: the log density {slope} in `{name}` where they do. Rescale the "
        "predictor or response that it belongs to, or give it a prior that says about where it "
        'lies; method="laplace" needs no start.'
    )


def _is_usable(density: Density, x: Array) -> bool:
    value, gradient = density(x)
    return bool(np.isfinite(value) and np.isfinite(gradient).all())
