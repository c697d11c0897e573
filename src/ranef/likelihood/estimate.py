"""Records of a likelihood's results: the `Estimate`, a model with it, refits of responses."""

from __future__ import annotations

from dataclasses import dataclass

from ranef._typing import Array, Flags
from ranef.design.design import Design
from ranef.errors import Convergence
from ranef.families.family import Family
from ranef.numerics.matrices import ReadOnly


@dataclass(frozen=True, eq=False)
class Estimate(ReadOnly):
    """Point estimates of a mixed model on the user's scale.

    Attributes
    ----------
    theta : ndarray
        Relative covariance parameters in lme4's order.
    Lambdas : tuple of ndarray, shape (k, k)
        Relative covariance factor of each term.
    beta : ndarray, shape (p,)
    vcov : ndarray, shape (p, p)
        Covariance of beta: sigma^2 (R_X' R_X)^-1; of a generalised model from the Hessian of the
        log-likelihood in all parameters.
    sigma : float
        1 where the family has none.
    b : tuple of ndarray, shape (m, k)
        Conditional modes.
    b_cov : tuple of ndarray, shape (m, k, k)
        Conditional covariance of b given theta, sigma and beta.
    objective : float
        The minimum of the deviance, the REML criterion, or -2 times the log posterior.
    loglik : float
        The (restricted) log-likelihood at the optimum.
    singular : tuple of bool
        Per term, whether its covariance is on the boundary.
    convergence : Convergence
    decrement : float
        Twice the gain of one more Newton step in the objective.
    evaluations : int
    trace : tuple of (float, ndarray, float)
        The objective and theta at each step, and by how much the next is predicted to fall; nan
        where the optimiser does not say.
    parameters : tuple of float
        The family's own parameters besides sigma, in their order.
    n_agq : int
        Points of the quadrature in each dimension; 1 for the Laplace approximation, 0 for one
        whose fixed effects are found with the modes.
    working_weights : ndarray, shape (n,), or None
        The observed information of the linear predictor of each row; None for a linear model.
    n_known : int
        The number of fixed effects and own parameters of the family that were not estimated, as
        their prior is a constant.
    """

    theta: Array
    Lambdas: tuple[Array, ...]
    beta: Array
    vcov: Array
    sigma: float
    b: tuple[Array, ...]
    b_cov: tuple[Array, ...]
    objective: float
    loglik: float
    singular: tuple[bool, ...]
    convergence: Convergence
    decrement: float
    evaluations: int
    trace: tuple[tuple[float, Array, float], ...]
    parameters: tuple[float, ...] = ()
    n_agq: int = 1
    working_weights: Array | None = None
    n_known: int = 0

    @property
    def roots(self) -> list[Array]:
        """A square root of the covariance of each term, on the user's scale."""
        return [self.sigma * Lambda for Lambda in self.Lambdas]


@dataclass(frozen=True, eq=False, repr=False)
class FittedModel:
    """A model with its estimates.

    Attributes
    ----------
    design : Design
        Columns of X that are combinations of others are left out.
    family : Family
    method : {"reml", "ml", "map"}
    estimate : Estimate
    """

    design: Design
    family: Family
    method: str
    estimate: Estimate

    @property
    def parameters(self) -> dict[str, float]:
        """The family's own parameters by name, `sigma` among them where it has one."""
        others = iter(self.estimate.parameters)
        return {
            name: self.estimate.sigma if name == "sigma" else next(others)
            for name in self.family.parameters
        }

    @property
    def approximation(self) -> str:
        """How the random effects of a generalised model were integrated out; empty for others."""
        n_agq = self.estimate.n_agq
        if self.family.is_linear or not self.design.terms:
            return ""
        if n_agq > 1:
            return f"adaptive Gauss-Hermite quadrature, {n_agq} points"
        return f"Laplace approximation{', n_agq=0' * (n_agq == 0)}"


@dataclass(frozen=True, eq=False)
class Replicates(ReadOnly):
    """The estimates from simulated responses.

    Attributes
    ----------
    values : ndarray, shape (n, d)
        One row for each replicate.
    failed : ndarray of bool, shape (n,)
        The replicates that could not be fitted.
    seed : int
        Makes the same replicates again.
    """

    values: Array
    failed: Flags
    seed: int
