"""Random effects in PyMC: as they are in the model, and sampled as they are or scaled.

Whatever the sampler moves in, the random variable is the effects. Standard normal numbers that are
scaled, the form that suits groups with few rows, are its coordinates and no variable of the model.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ranef._typing import Array
from ranef.numerics.constants import LOG_2PI

type Variable = Any  # a PyTensor variable; PyMC's functions carry no types


def random_effects(
    name: str, scale: Variable, dims: tuple[str, str], *, centered: bool
) -> Variable:
    """Add the random effects (m, k) of a term to the model.

    Parameters
    ----------
    name : str
    scale : PyTensor variable
        Their standard deviations (k,), or the lower triangular factor of their covariance (k, k).
    dims : tuple of str
        Of levels and coefficients.
    centered : bool
        Whether they are sampled as they are, or as standard normal numbers that are scaled.
    """
    import pymc as pm

    independent, correlated = _transforms()
    if scale.ndim == 1:
        transform = None if centered else independent
        return pm.Normal(name, mu=0.0, sigma=scale, dims=dims, default_transform=transform)
    return pm.CustomDist(
        name,
        scale,
        logp=_log_density,
        random=_draw,
        signature="(k,k)->(k)",
        class_name="MvNormal",
        dims=dims,
        default_transform=None if centered else correlated,
    )


@cache
def _transforms() -> tuple[Any, Any]:
    """Return the transforms of independent and of correlated effects to standard normal numbers."""
    import pytensor.tensor as pt
    from pymc.logprob.transforms import Transform

    class Standardised(Transform):  # type: ignore[misc]
        name, ndim_supp = "standardised", 0

        def forward(self, value: Variable, *inputs: Variable) -> Variable:
            return value / inputs[-1]

        def backward(self, value: Variable, *inputs: Variable) -> Variable:
            return value * inputs[-1]

        def log_jac_det(self, value: Variable, *inputs: Variable) -> Variable:
            return pt.log(inputs[-1]) + 0.0 * value

    class Whitened(Transform):  # type: ignore[misc]
        name, ndim_supp = "whitened", 1

        def forward(self, value: Variable, *inputs: Variable) -> Variable:
            return pt.stack(_solved(inputs[-1], value), axis=-1)

        def backward(self, value: Variable, *inputs: Variable) -> Variable:
            return (value[..., None, :] * inputs[-1]).sum(-1)

        def log_jac_det(self, value: Variable, *inputs: Variable) -> Variable:
            return _half_log_det(inputs[-1]) + 0.0 * value[..., 0]

    return Standardised(), Whitened()


def _log_density(value: Variable, factor: Variable) -> Variable:
    """Return the normal log density of every level, without matrix products: they compile fast."""
    z = _solved(factor, value)
    return sum(-0.5 * (x**2 + LOG_2PI) for x in z) - _half_log_det(factor)


def _draw(factor: Array, rng: np.random.Generator, size: tuple[int, ...]) -> Array:
    z = rng.standard_normal((*size, factor.shape[-1]))
    return np.asarray(np.einsum("...ij,...j->...i", factor, z))


def _solved(factor: Variable, right: Variable) -> list[Variable]:
    """Return the elements of z where factor z = right, on the last dimension."""
    z: list[Variable] = []
    for i in range(factor.type.shape[-1]):
        rest = right[..., i]
        for j, element in enumerate(z):
            rest = rest - factor[..., i, j] * element
        z.append(rest / factor[..., i, i])
    return z


def _half_log_det(factor: Variable) -> Variable:
    import pytensor.tensor as pt

    return sum(pt.log(factor[..., i, i]) for i in range(factor.type.shape[-1]))
