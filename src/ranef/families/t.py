"""The t distribution around mu, with scale sigma over the root of w and nu degrees of freedom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.random import Generator

from ranef._typing import Array
from ranef.families.derivatives import ByPsi, Distribution, Parts, log_rising, log_rising_slope
from ranef.families.family import SIGMA, Family, OwnParameter, PymcForm, over_root
from ranef.families.gaussian import gaussian_information
from ranef.families.links import IDENTITY, LOG, Link


def t_parts(y: Array, mu: Array, w: Array, sigma: float, nu: float) -> Parts:
    """Return L, L1 and L2 in mu."""
    s = sigma / np.sqrt(w)
    z = (y - mu) / s
    h = 1 / (nu + z**2)
    constant = log_rising(0.5, nu / 2) - 0.5 * np.log(2 * np.pi)
    L = constant - np.log(s) - 0.5 * (nu + 1) * np.log1p(z**2 / nu)
    return L, (nu + 1) / s * (z * h), -(nu + 1) / s**2 * ((nu - z**2) * h) * h


def t_others(y: Array, mu: Array, w: Array, sigma: float, nu: float) -> tuple[Array, list[ByPsi]]:
    """Return L3, and the derivatives in log sigma and in log nu."""
    s = sigma / np.sqrt(w)
    z = (y - mu) / s
    q = z**2
    h = 1 / (nu + q)
    zh, qh, nh = z * h, q * h, nu * h
    L3 = -2 * (nu + 1) / s**3 * zh * (3 * nh - qh) * h
    of_sigma = (
        (nu + 1) * qh - 1,
        -2 * (nu + 1) / s * zh * nh,
        2 * (nu + 1) / s**2 * nh * (nh - 3 * qh) * h,
    )
    of_nu = (
        log_rising_slope(0.5, nu / 2) + 0.5 * ((nu + 1) * qh - nu * np.log1p(q / nu)),
        zh / s * (nh * (q - 1)),
        nh / s**2 * (qh * (qh - 3 * nh) + (nh - 3 * qh) * h),
    )
    return L3, [of_sigma, of_nu]


def t_information(mu: Array, w: Array, sigma: float, nu: float) -> Array:
    """Return the expected information of mu."""
    return gaussian_information(mu, w, sigma) * ((nu + 1) / (nu + 3))


def t_variance(mu: Array, sigma: Any, nu: Any) -> Array:  # noqa: ARG001
    """Return nu / (nu - 2), which is infinite for nu <= 2."""
    with np.errstate(divide="ignore"):
        return np.ones_like(mu) * np.where(nu > 2, nu / np.maximum(nu - 2, 0.0), np.inf)


def t_deviance(y: Array, mu: Array, sigma: Any, nu: Any) -> Array:
    """Return sigma^2 (nu + 1) log(1 + z^2 / nu), with z the residual over sigma."""
    return np.asarray(sigma**2 * (nu + 1) * np.log1p(((y - mu) / sigma) ** 2 / nu))


def t_draw(rng: Generator, mu: Array, w: Array, sigma: Any, nu: Any) -> Array:
    """Draw responses."""
    return np.asarray(mu + sigma / np.sqrt(w) * rng.standard_t(nu, np.shape(mu)))


def t_graph(pm: Any, link: Link, eta: Any, w: Array, *psi: Any) -> dict[str, Any]:
    """Return the parameters of PyMC's distribution."""
    sigma, nu = psi
    return {"nu": nu, "mu": link.graph(pm, eta), "sigma": over_root(sigma, w)}


T_DENSITY = Distribution("T_DENSITY", Link.at, t_parts, t_others, t_information)

T = Family(
    "t",
    IDENTITY,
    parameters=("sigma", "nu"),
    variance=t_variance,
    deviance=t_deviance,
    draw=t_draw,
    pymc=PymcForm("StudentT", t_graph),
    own_parameters=(
        replace(SIGMA, brms=SIGMA.default),
        OwnParameter("nu", default=("Gamma", (2, 0.1)), brms=("Gamma", (2, 0.1)), limit="normal"),
    ),
    links=(IDENTITY, LOG),
    aliases=("student", "studentt", "tfamily"),
    pins=("identity",),
    heavy_tailed=True,
    **T_DENSITY.fields(),
)
"""Student's t distribution around mu, with scale sigma and nu degrees of freedom."""
