"""What an engine hands over: the `Estimate`, a plain record without behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from ranef._typing import Array
from ranef.errors import Convergence


@dataclass(frozen=True, eq=False)
class Estimate:
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
        What was minimised: the deviance, the REML criterion, or -2 times the log posterior.
    loglik : float
        The (restricted) log-likelihood at the optimum.
    singular : tuple of bool
        Per term, whether its covariance is on the boundary.
    convergence : Convergence
    decrement : float
        What one more Newton step would gain in the objective, doubled.
    evaluations : int
    trace : tuple of (float, ndarray)
        The objective and theta at each step.
    parameters : tuple of float
        The family's own parameters besides sigma, in their order.
    n_agq : int
        Points of the quadrature in each dimension; 1 for the Laplace approximation, 0 for one
        whose fixed effects are found with the modes.
    working_weights : ndarray, shape (n,), or None
        The observed information of the linear predictor of each row; None for a linear model.
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
    trace: tuple[tuple[float, Array], ...]
    parameters: tuple[float, ...] = ()
    n_agq: int = 1
    working_weights: Array | None = None
