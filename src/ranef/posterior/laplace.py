"""The Laplace approximation of a posterior of variance parameters, corrected by importance weights.

The mode and the curvature there, in unconstrained coordinates, give a normal approximation; a
split multivariate t distribution around it proposes points, and Pareto-smoothed importance
weights correct its error. Their shape k-hat says whether that is reliable.

Source: Geweke (1989), *Econometrica* 57, 1317-1339 (split-t proposals); Vehtari, Simpson, Gelman,
Yao & Gabry (2024), *JMLR* 25(72) (Pareto smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranef._typing import Array
from ranef.errors import Convergence, FitError
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.finite_differences import standardised_hessian
from ranef.numerics.importance_sampling import SplitT, log_mean, smoothed, systematic
from ranef.numerics.matrices import threads_for
from ranef.numerics.minimize import minimize
from ranef.posterior.log_posterior import LogPosterior

NU = 4.0  # degrees of freedom of the proposals: few, as the log of an sd has an exponential tail
REACH = 3.5  # how far out, in standard deviations, the widths of the proposals are fitted
FEWEST = 200  # proposals: of fewer there is no tail to be smoothed
NARROWEST, WIDEST = 0.5, 6.0  # widths, relative to those of the normal approximation
NOWHERE_AROUND = (
    "the posterior density cannot be computed around the highest point that was found, so that it "
    "has no normal approximation: look for responses that are far from all others, or give "
    "stronger priors."
)


@dataclass(frozen=True, eq=False)
class Mode:
    """The mode of a posterior in its coordinates.

    Attributes
    ----------
    x : ndarray, shape (d,)
    logp : float
        Log density there, up to p(y).
    root : ndarray, shape (d, d)
        Lower triangular L with L L' the inverse of the negative Hessian.
    convergence : Convergence
    evaluations : int
    """

    x: Array
    logp: float
    root: Array
    convergence: Convergence
    evaluations: int

    @property
    def log_evidence(self) -> float:
        """Laplace's approximation of log p(y)."""
        d = len(self.x)
        return float(self.logp + d * LOG_2PI / 2 + np.log(np.diag(self.root)).sum())


@dataclass(frozen=True, eq=False)
class Approximation:
    """Draws from a posterior of variance parameters by importance resampling.

    Attributes
    ----------
    mode : Mode
    x : ndarray, shape (draws, d)
    khat : float
        Shape of the Pareto tail of the importance ratios.
    ess : float
        Effective sample size of the weights.
    log_evidence, mcse : float
        log p(y) and its Monte Carlo standard error.
    """

    mode: Mode
    x: Array
    khat: float
    ess: float
    log_evidence: float
    mcse: float


def find_mode(target: LogPosterior) -> Mode:
    """Maximise the posterior density of the coordinates.

    Raises
    ------
    FitError
        If the density cannot be computed around the highest point.
    """
    units = target.units()

    def objective(x: Array) -> tuple[float, Array]:
        logp, gradient = target(x)
        is_finite = np.isfinite(logp) and np.isfinite(gradient).all()
        return (-logp, -gradient) if is_finite else (np.inf, np.zeros_like(x))

    with threads_for(target.width), np.errstate(over="ignore", invalid="ignore"):
        optimum = minimize(objective, target.start(), units=units)
        hessian = standardised_hessian(objective, optimum.x, units)
    if not np.isfinite(hessian).all():
        raise FitError(NOWHERE_AROUND)
    values, vectors = np.linalg.eigh(hessian) if len(hessian) else (np.ones(0), np.eye(0))
    curved = np.maximum(values, 1e-6 * np.abs(values).max(initial=0.0))
    spread = units @ (vectors / np.sqrt(curved))
    return Mode(
        x=optimum.x,
        logp=-optimum.value,
        root=np.linalg.cholesky(spread @ spread.T),
        convergence=optimum.convergence,
        evaluations=optimum.evaluations,
    )


def approximate(target: LogPosterior, *, draws: int, rng: np.random.Generator) -> Approximation:
    """Approximate the posterior and draw from it.

    Parameters
    ----------
    target : LogPosterior
    draws : int
        Number of draws; twice as many proposals are made, and at least `FEWEST`.
    rng : Generator

    Raises
    ------
    FitError
        As of `find_mode`.
    """
    mode = find_mode(target)
    if not target.space.d:
        x = np.zeros((draws, 0))
        return Approximation(mode, x, np.nan, float(draws), mode.logp, 0.0)
    size = max(2 * draws, FEWEST)
    x, logq = _proposals(target, mode).draw(size, rng)
    ratios = target.log_density(x) - logq
    if not np.isfinite(ratios).any():
        raise FitError(NOWHERE_AROUND)
    weights, khat = smoothed(ratios)
    chosen = systematic(weights, draws, rng)
    evidence = log_mean(ratios, weights)
    return Approximation(
        mode=mode,
        x=x[rng.permutation(chosen)],
        khat=khat,
        ess=float(1 / np.sum(weights**2)),
        log_evidence=evidence.value,
        mcse=evidence.mcse,
    )


def _proposals(target: LogPosterior, mode: Mode) -> SplitT:
    """Return a split-t distribution around the mode.

    Along each axis a normal density with the width on either side would fall as much as the
    target's does.
    """
    d = len(mode.x)
    ends = np.concatenate([REACH * np.eye(d), -REACH * np.eye(d)])
    drop = mode.logp - target.log_density(mode.x + ends @ mode.root.T)
    widths = REACH / np.sqrt(2 * np.maximum(drop, 1e-3))
    right, left = np.clip(widths, NARROWEST, WIDEST).reshape(2, d)
    return SplitT(NU, np.zeros(d), right, left, mode.x, mode.root)
