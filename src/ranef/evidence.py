"""The marginal likelihood of any model by the most accurate way there is.

Few variance parameters of a linear model are integrated out by quadrature. Otherwise draws are
bridged to a normal distribution, or, without draws, the Laplace approximation is corrected by
importance weights.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ranef import batched, laplace, quadrature
from ranef.bridge import warp3
from ranef.errors import FitError
from ranef.estimates import MarginalLikelihood
from ranef.logposterior import LogPosterior
from ranef.marginal import Target
from ranef.whitened import frame

type Array = NDArray[np.float64]

GOAL = 0.01  # Monte Carlo error of log p(y) that is aimed at
FIRST, MOST = 2_000, 64_000  # draws


def log_evidence(
    target: LogPosterior, *, draws: Array | None = None, rng: np.random.Generator
) -> MarginalLikelihood:
    """Return log p(y), with all constants, where every prior is proper.

    Parameters
    ----------
    target : LogPosterior
    draws : ndarray, shape (chains, n, d), optional
        Of the unconstrained coordinates, from the posterior.
    rng : Generator
    """
    if _takes_quadrature(target):
        assert isinstance(target, Target)
        found = quadrature.integrate(frame(target, laplace.find_mode(target)))
        return MarginalLikelihood(found.log_evidence, found.error, "quadrature")
    if draws is not None and target.space.d:
        return warp3(partial(batched.log_density, target), draws, rng)
    size = FIRST
    found_is = laplace.approximate(target, draws=size, rng=rng)
    while found_is.mcse > GOAL and size < MOST:
        size *= 2
        found_is = laplace.approximate(target, draws=size, rng=rng)
    return MarginalLikelihood(found_is.log_evidence, found_is.mcse, "importance sampling")


def _takes_quadrature(target: LogPosterior) -> bool:
    if not isinstance(target, Target):
        return False
    try:
        quadrature.check_feasible(target)
    except FitError:
        return False
    return True
