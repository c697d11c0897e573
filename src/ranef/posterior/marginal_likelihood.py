"""The marginal likelihood of any model, by the most accurate method that it allows.

Few variance parameters of a linear model are integrated out by quadrature. Otherwise draws of the
posterior are bridged to a normal distribution. Without draws importance sampling makes its own:
split-t distributions propose points, first around the mode with widths from the curvature, then
around the mean of the first draws with their widths on either side, until the error is small.

Source: Geweke (1989), *Econometrica* 57, 1317-1339 (split-t proposals); Oh & Berger (1992),
*J. Statistical Computation and Simulation* 41, 143-168 (proposals that are fitted to weighted
draws); Vehtari, Simpson, Gelman, Yao & Gabry (2024), *JMLR* 25(72) (k-hat).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ranef._typing import Array
from ranef.numerics.bridge_sampling import warp3
from ranef.numerics.importance_sampling import (
    fitted_split_t,
    good_khat,
    log_mean,
    smoothed,
    systematic,
)
from ranef.posterior.laplace import approximate, find_mode
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.whitening import frame
from ranef.printing.summary import InNotebook

BRIDGE = "bridge sampling, warp-III"
GOAL = 0.01  # Monte Carlo error of log p(y) that is aimed at
FIRST = 1_000  # draws that the first fitted proposals follow
MOST = 32_000  # proposals
GROWTH = 4  # at most, from one sample to the next
NU = 8.0  # degrees of freedom of fitted proposals, which are near the posterior already


@dataclass(frozen=True, repr=False)
class MarginalLikelihood(InNotebook):
    """The density of the data with all parameters integrated out, log p(y).

    Attributes
    ----------
    value : float
        log p(y), with all constants.
    mcse : float
        Its Monte Carlo standard error, or an estimate of the error of the quadrature.
    method : str
        How it was computed.
    bias : float
        About how far the integral over random effects may still be off: an approximation of it is
        corrected by more nodes or by draws of the effects. 0 where it has a closed form.
    """

    value: float
    mcse: float
    method: str
    bias: float = 0.0

    @property
    def error(self) -> float:
        """All of its error: by chance, and of the approximation."""
        return float(np.hypot(self.mcse, self.bias))

    def __str__(self) -> str:
        return f"log marginal likelihood {self.value:.4f}, error {self.error:.1g} ({self.method})"


def log_evidence(
    target: LogPosterior, *, draws: Array | None = None, rng: np.random.Generator
) -> MarginalLikelihood:
    """Return log p(y), with all constants.

    Parameters
    ----------
    target : LogPosterior
        Of a model with proper priors, or else p(y) is not defined.
    draws : ndarray, shape (chains, n, d), optional
        Of the unconstrained coordinates, from the posterior; used where quadrature is not
        possible.
    rng : Generator

    Returns
    -------
    MarginalLikelihood
        Its `mcse` is the error of the quadrature, or the Monte Carlo standard error: infinite
        where the tail of the importance weights is too heavy for one.
    """
    exact = _by_quadrature(target)
    if exact is not None and exact.mcse <= GOAL:
        return exact
    if draws is not None and target.space.d:
        sampled = MarginalLikelihood(*warp3(target.log_density, draws, rng), BRIDGE)
        x = draws.reshape(-1, draws.shape[-1])
    else:
        sampled, x = _by_importance(target, rng)
    if exact is not None and exact.mcse < sampled.mcse:
        return exact
    return approximated(target, sampled, x)


def approximated(target: LogPosterior, sampled: MarginalLikelihood, x: Array) -> MarginalLikelihood:
    """Return log p(y) corrected for the approximate integral over random effects.

    Parameters
    ----------
    target : LogPosterior
    sampled : MarginalLikelihood
    x : ndarray, shape (draws, d)
        From the posterior.
    """
    if not target.approximation:
        return sampled
    lacking, bias = target.correction(x)
    method = f"{sampled.method}, random effects by {target.approximation}, corrected"
    return replace(sampled, value=sampled.value + lacking, method=method, bias=bias)


def _by_quadrature(target: LogPosterior) -> MarginalLikelihood | None:
    """Return log p(y) by quadrature, or None where it is not possible."""
    if not lattice.is_feasible(target):
        return None
    exact = lattice.integrate(frame(target, find_mode(target)))
    return MarginalLikelihood(exact.log_evidence, exact.error, "quadrature")


def _by_importance(
    target: LogPosterior, rng: np.random.Generator
) -> tuple[MarginalLikelihood, Array]:
    """Return log p(y) by importance sampling, with proposals fitted to draws; the last draws."""
    first = approximate(target, draws=FIRST, rng=rng)
    size, x, laplace = 2 * FIRST, first.x, first.mode.root @ first.mode.root.T
    value, mcse = first.log_evidence, _honest(first.mcse, first.khat, size)
    spent = size
    while mcse > GOAL and spent < MOST:
        need = 1.1 * size * (mcse / GOAL) ** 2 if np.isfinite(mcse) else np.inf
        size = int(min(max(need, size), GROWTH * size, MOST))
        spent += size
        points, logq = fitted_split_t(x, laplace, NU).draw(size, rng)
        ratios = target.log_density(points) - logq
        weights, khat = smoothed(ratios)
        value, error = log_mean(ratios, weights)
        mcse = _honest(error, khat, size)
        x = points[systematic(weights, size // 2, rng)]
    return MarginalLikelihood(value, mcse, "importance sampling"), x


def _honest(mcse: float, khat: float, size: int) -> float:
    """Return the error, infinite where the tail of the weights is too heavy for one."""
    return np.inf if khat > good_khat(size) else mcse
