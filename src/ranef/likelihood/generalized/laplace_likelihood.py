"""The likelihood of a generalised model by the Laplace approximation, with its exact gradient.

With û the conditional modes given the fixed effects, and H = Lambda'Z'WZ Lambda + I with the
*observed* weights W there,

    log p(y) ~= log f(y | eta(û)) - |û|^2 / 2 - log|H| / 2.

Its derivative follows û: what eta changes in W, and û with everything. With the leverages
d_i = z_i' Lambda H^-1 Lambda' z_i, `pull` = -d (dW/d eta) / 2 is the derivative through W,
lambda = H^-1 Lambda'Z' pull the one through û, and

    r = score + pull - W Z Lambda lambda

is the derivative with respect to the fixed part of eta, row by row.

Source: Kristensen, Nielsen, Berg, Skaug & Bell (2016), *Journal of Statistical Software* 70(5);
Rasmussen & Williams (2006), *Gaussian Processes for Machine Learning*, section 5.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranef.families.derivatives import Further
from ranef.likelihood.generalized.pirls import Modes, Problem, Setting
from ranef.likelihood.linear import blocked_cholesky

type Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A log-likelihood with the random effects integrated out, and its derivatives.

    Attributes
    ----------
    value : float
    rows : ndarray, shape (n,)
        The derivative with respect to the known part of eta, row by row: X' rows is that with
        respect to the fixed effects.
    Lambdas : list of ndarray, shape (k, k)
        The derivatives with respect to the factors.
    psi : ndarray, shape (r,)
        Those with respect to the logarithms of the family's own parameters.
    modes : Modes
    """

    value: float
    rows: Array
    Lambdas: list[Array]
    psi: Array
    modes: Modes


def further_at(problem: Problem, modes: Modes, psi: Array) -> Further:
    """Return the higher derivatives of the log density at the modes."""
    return problem.family.further_expansion(problem.y, modes.eta, problem.weights, psi)


def laplace_value(modes: Modes) -> float:
    """Return the Laplace approximation without its derivatives."""
    return float(modes.value - modes.factorized.logdet / 2)


def laplace(setting: Setting, modes: Modes) -> Likelihood:
    """Return the Laplace approximation, given the conditional modes.

    Where the setting has columns whose coefficients are found together with u, this is the
    approximation at those coefficients, and its gradient follows them too.
    """
    problem, expansion = setting.problem, modes.expansion
    selected = blocked_cholesky.selected_inverse(modes.factorized)
    d = problem.Z.leverages(selected)
    further = further_at(problem, modes, setting.psi)
    pull = -0.5 * d * further.third
    lambdas, _, fitted = setting.solve(modes.factorized, expansion.weight, pull)
    through = through_modes(problem, modes, pull, lambdas, fitted)
    return Likelihood(
        value=laplace_value(modes),
        rows=expansion.score + through.rows,
        Lambdas=[
            of_score + of_modes - G / 2
            for of_score, of_modes, G in zip(
                outer_sums(problem, expansion.score, modes.u),
                through.Lambdas,
                selected.gradient,
                strict=True,
            )
        ],
        psi=further.value.sum(-1) - 0.5 * further.weight @ d + further.score @ fitted,
        modes=modes,
    )


@dataclass(frozen=True, eq=False)
class Through:
    """What reaches a likelihood through its conditional modes.

    Attributes
    ----------
    rows : ndarray, shape (n,)
        The derivative with respect to the known part of eta.
    Lambdas : list of ndarray, shape (k, k)
    """

    rows: Array
    Lambdas: list[Array]


def through_modes(
    problem: Problem, modes: Modes, pull: Array, lambdas: Sequence[Array], fitted: Array
) -> Through:
    """Carry derivatives at the modes back to the parameters.

    Parameters
    ----------
    problem : Problem
    modes : Modes
    pull : ndarray, shape (n,)
        The derivative of the likelihood with respect to eta at the modes.
    lambdas : sequence of ndarray, shape (m, k)
        H^-1 times the derivative with respect to u, all in all.
    fitted : ndarray, shape (n,)
        Z Lambda lambdas.
    """
    rows = pull - modes.expansion.weight * fitted
    direct = outer_sums(problem, rows, modes.u)
    by_score = outer_sums(problem, modes.expansion.score, lambdas)
    return Through(rows, [a + b for a, b in zip(direct, by_score, strict=True)])


def outer_sums(problem: Problem, rows: Array, u: Sequence[Array]) -> list[Array]:
    """Return the sum over levels of (Z'rows)_l u_l', term by term, shape (k, k)."""
    sums = problem.Z.sums(rows)
    return [np.asarray(s.T @ one) for s, one in zip(sums, u, strict=True)]
