"""The marginal likelihood of any model, by the most accurate way there is.

Few variance parameters of a linear model are integrated out by quadrature. Otherwise draws of the
posterior are bridged to a normal distribution. Without draws importance sampling makes its own:
split-t distributions propose points, first around the mode as wide as the curvature says, then
around the mean of what these found, as wide as that is on either side, until the error is small.

Source: Geweke (1989), *Econometrica* 57, 1317-1339 (split-t proposals); Oh & Berger (1992),
*J. Statistical Computation and Simulation* 41, 143-168 (proposals that are fitted to weighted
draws); Vehtari, Simpson, Gelman, Yao & Gabry (2024), *JMLR* 25(72) (k-hat).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from ranef._typing import Array
from ranef.leave_one_out.elpd import good_khat
from ranef.numerics.bridge_sampling import warp3
from ranef.numerics.constants import LOG_PI
from ranef.posterior.laplace import approximate, find_mode, smoothed, systematic
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.quadrature import lattice
from ranef.posterior.quadrature.whitening import frame

BRIDGE = "bridge sampling, warp-III"
GOAL = 0.01  # Monte Carlo error of log p(y) that is aimed at
FIRST = 1_000  # draws that the first fitted proposals follow
MOST = 32_000  # proposals
GROWTH = 4  # at most, from one sample to the next
NU = 8.0  # degrees of freedom of fitted proposals, which are near the posterior already
WIDER = 1.05  # than the fit
NARROWEST = 0.2  # width on either side, in standard deviations
CENTRES = np.linspace(-1.0, 1.0, 41)  # tried along each axis, in standard deviations


@dataclass(frozen=True)
class MarginalLikelihood:
    """The density of the data with all parameters integrated out, log p(y).

    Attributes
    ----------
    value : float
        log p(y), with all constants.
    mcse : float
        Its Monte Carlo standard error, or an estimate of the error of the quadrature.
    method : str
        How it was computed.
    """

    value: float
    mcse: float
    method: str

    def __str__(self) -> str:
        return f"log marginal likelihood {self.value:.4f}, error {self.mcse:.1g} ({self.method})"


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
        where the importance weights do not say, as their tail is too heavy.
    """
    exact = _by_quadrature(target)
    if exact is not None and exact.mcse <= GOAL:
        return exact
    if draws is not None and target.space.d:
        found = MarginalLikelihood(*warp3(target.log_density, draws, rng), BRIDGE)
    else:
        found = _by_importance(target, rng)
    if exact is not None and exact.mcse < found.mcse:
        return exact
    how = f", random effects by {target.approximation}" if target.approximation else ""
    return MarginalLikelihood(found.value, found.mcse, found.method + how)


def _by_quadrature(target: LogPosterior) -> MarginalLikelihood | None:
    """Return log p(y) by quadrature, or None where it is not possible."""
    if not lattice.is_feasible(target):
        return None
    found = lattice.integrate(frame(target, find_mode(target)))
    return MarginalLikelihood(found.log_evidence, found.error, "quadrature")


# ---------------------------------------------------------------------------- importance sampling


@dataclass(frozen=True, eq=False)
class _SplitT:
    """A multivariate t distribution with two widths along every axis.

    Attributes
    ----------
    center, right, left : ndarray, shape (d,)
        In units of `root`.
    mean : ndarray, shape (d,)
    root : ndarray, shape (d, d)
        Lower triangular.
    """

    center: Array
    right: Array
    left: Array
    mean: Array
    root: Array

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return points, shape (size, d), and the log density there."""
        d = len(self.mean)
        t = rng.standard_normal((size, d)) * np.sqrt(NU / rng.chisquare(NU, size))[:, None]
        # either side is taken as often as it is wide, so that the density has no jump
        is_right = rng.uniform(size=(size, d)) < self.right / (self.right + self.left)
        z = self.center + np.where(is_right, np.abs(t) * self.right, -np.abs(t) * self.left)
        constant = special.gammaln((NU + d) / 2) - special.gammaln(NU / 2)
        constant -= d / 2 * (np.log(NU) + LOG_PI) + np.log(np.diag(self.root)).sum()
        constant -= np.log((self.right + self.left) / 2).sum()
        logq = constant - (NU + d) / 2 * np.log1p((t**2).sum(axis=1) / NU)
        return self.mean + z @ self.root.T, logq


def _fitted(x: Array, laplace: Array) -> _SplitT:
    """Return the split-t distribution that follows draws, shape (S, d).

    Where importance weights have left few different draws, their covariance counts for less than
    that of the Laplace approximation, shape (d, d), and no width becomes nothing.

    Along each axis of what whitens them it is the split normal distribution of largest
    likelihood: with a and b the sums of squares right and left of its centre, the widths are
    proportional to the cube roots of a and b, and the sum of these is least.
    """
    mean, d = x.mean(axis=0), x.shape[1]
    share = (d + 1) / (d + 1 + len(np.unique(x[:, 0])))
    root = np.linalg.cholesky((1 - share) * np.atleast_2d(np.cov(x.T)) + share * laplace)
    z = linalg.solve_triangular(root, (x - mean).T, lower=True).T
    left_over = z[None] - CENTRES[:, None, None]
    a = np.cbrt((np.maximum(left_over, 0.0) ** 2).mean(axis=1))
    b = np.cbrt((np.minimum(left_over, 0.0) ** 2).mean(axis=1))
    best, axes = (a + b).argmin(axis=0), np.arange(d)
    a, b = a[best, axes], b[best, axes]
    right, left = np.maximum(WIDER * np.sqrt(a + b) * np.stack([a, b]), NARROWEST)
    return _SplitT(CENTRES[best], right, left, mean, root)


def _by_importance(target: LogPosterior, rng: np.random.Generator) -> MarginalLikelihood:
    """Return log p(y) by importance sampling, with proposals fitted to what is found."""
    first = approximate(target, draws=FIRST, rng=rng)
    size, x, laplace = 2 * FIRST, first.x, first.mode.root @ first.mode.root.T
    value, mcse = first.log_evidence, _honest(first.mcse, first.khat, size)
    spent = size
    while mcse > GOAL and spent < MOST:
        need = 1.1 * size * (mcse / GOAL) ** 2 if np.isfinite(mcse) else np.inf
        size = int(min(max(need, size), GROWTH * size, MOST))
        spent += size
        points, logq = _fitted(x, laplace).draw(size, rng)
        ratios = target.log_density(points) - logq
        weights, khat = smoothed(ratios)
        value = float(special.logsumexp(ratios) - np.log(size))
        mcse = _honest(_error(weights), khat, size)
        x = points[systematic(weights, size // 2, rng)]
    return MarginalLikelihood(value, mcse, "importance sampling")


def _error(weights: Array) -> float:
    return float(np.sqrt(max(0.0, (weights**2).sum() - 1 / len(weights))))


def _honest(mcse: float, khat: float, size: int) -> float:
    """Return an error that is infinite where the tail of the weights is too heavy to say."""
    return np.inf if khat > good_khat(size) else mcse
