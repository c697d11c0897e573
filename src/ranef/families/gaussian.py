"""The normal distribution: its mean is mu, its standard deviation sigma over the root of w."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from ranef._typing import Array
from ranef.families.derivatives import ByPsi, Distribution, Parts
from ranef.families.family import SIGMA, Family, PymcForm, over_root
from ranef.families.links import IDENTITY, INVERSE, LOG, Link


def gaussian_parts(y: Array, mu: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in mu."""
    precision, r = w / sigma**2, y - mu
    L = 0.5 * np.log(w / (2 * np.pi)) - np.log(sigma) - 0.5 * precision * r**2
    return L, precision * r, -precision


def gaussian_others(y: Array, mu: Array, w: Array, sigma: float) -> tuple[Array, list[ByPsi]]:
    """Return L3, and the derivatives in log sigma."""
    precision, r = w / sigma**2, y - mu
    return np.zeros(()), [(precision * r**2 - 1, -2 * precision * r, 2 * precision)]


def gaussian_information(mu: Array, w: Array, sigma: float) -> Array:
    """Return the expected information of mu."""
    return np.ones_like(mu) * (w / sigma**2)


def constant_variance(mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return 1."""
    return np.ones_like(mu)


def gaussian_deviance(y: Array, mu: Array, sigma: Any = 1.0) -> Array:  # noqa: ARG001
    """Return the squared residual."""
    return (y - mu) ** 2


def gaussian_draw(rng: Generator, mu: Array, w: Array, sigma: Any) -> Array:
    """Draw responses."""
    return np.asarray(rng.normal(mu, sigma / np.sqrt(w)))


def gaussian_graph(pm: Any, link: Link, eta: Any, w: Array, sigma: Any) -> dict[str, Any]:
    """Return the parameters of PyMC's distribution."""
    return {"mu": link.graph(pm, eta), "sigma": over_root(sigma, w)}


GAUSSIAN_DENSITY = Distribution(
    "GAUSSIAN_DENSITY",
    Link.at,
    gaussian_parts,
    gaussian_others,
    gaussian_information,
    is_normal=True,
)

GAUSSIAN = Family(
    "gaussian",
    IDENTITY,
    parameters=("sigma",),
    variance=constant_variance,
    deviance=gaussian_deviance,
    draw=gaussian_draw,
    pymc=PymcForm("Normal", gaussian_graph),
    own_parameters=(replace(SIGMA, brms=SIGMA.default, rstanarm=("Exponential", ())),),
    links=(IDENTITY, LOG, INVERSE),
    aliases=("normal",),
    **GAUSSIAN_DENSITY.fields(),
)
"""The normal distribution; sigma is its standard deviation."""
