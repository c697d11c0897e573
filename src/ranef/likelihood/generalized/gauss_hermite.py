"""Adaptive Gauss-Hermite quadrature: the likelihood of a generalised model with one factor.

Given the fixed effects the levels are independent, and of each an integral over its k effects u is
to be done. With h(u) = log f(y_l | u) - |u|^2 / 2, its mode û, H = -h''(û) = L L', C = L'^-1, and
nodes z and weights w of the standard normal distribution,

    log p(y_l) ~= -log|L| + log sum_i w_i exp{h(û + C z_i) + |z_i|^2 / 2}.

One node is the Laplace approximation. The gradient is that of this sum itself, the nodes moving
with û and C, so that value and gradient agree for any number of nodes.

Equations `laplace` and `agq` in docs/mathematics.
Source: Pinheiro & Bates (1995), *J. Comput. Graph. Stat.* 4, 12-35; Liu & Pierce (1994),
*Biometrika* 81, 624-629; the derivative of a Cholesky factor: Murray (2016), arXiv 1602.07527.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import special

from ranef._typing import Array, Codes
from ranef.likelihood.generalized.pirls import Modes, NoModesError, Setting
from ranef.likelihood.linear import blocked_cholesky


@dataclass(frozen=True, eq=False)
class Rule:
    """Nodes and log weights for the standard normal distribution in k dimensions.

    Attributes
    ----------
    nodes : ndarray, shape (N, k)
    log_weights : ndarray, shape (N,)
    """

    nodes: Array
    log_weights: Array


@lru_cache(maxsize=32)
def rule(points: int, k: int) -> Rule:
    """Return the product of Gauss-Hermite rules.

    Examples
    --------
    >>> hermite = rule(3, 1)
    >>> hermite.nodes[:, 0].round(6) + 0.0
    array([-1.732051,  0.      ,  1.732051])
    >>> np.exp(hermite.log_weights).round(6)
    array([0.166667, 0.666667, 0.166667])
    """
    nodes, weights = special.roots_hermitenorm(points)
    nodes = (nodes - nodes[::-1]) / 2  # symmetric to the last digit
    logs = np.log((weights + weights[::-1]) / 2) - 0.5 * np.log(2 * np.pi)
    return Rule(
        np.array(list(product(nodes, repeat=k))).reshape(-1, k),
        np.array(list(product(logs, repeat=k))).reshape(-1, k).sum(1),
    )


@dataclass(frozen=True, eq=False)
class _Nodes:
    """The integrand at the nodes of every level.

    Attributes
    ----------
    u : ndarray, shape (m, N, k)
    eta : ndarray, shape (N, n)
    shares : ndarray, shape (m, N)
        The share of each node in its level's sum.
    scores : ndarray, shape (N, n)
        The derivative of the rows' log density by eta, times the share of the node.
    value : float
        The sum of the logarithms of the levels' sums.
    """

    u: Array
    eta: Array
    shares: Array
    scores: Array
    value: float


def quadrature_value(setting: Setting, modes: Modes, points: int) -> float:
    """Return the likelihood as `quadrature` does, without its derivatives."""
    L, C = _roots(setting, modes)
    (block,) = setting.problem.Z.blocks
    return _total(_at_nodes(setting, modes, rule(points, block.k), C), L)


def quadrature(setting: Setting, modes: Modes, points: int) -> Likelihood:
    """Return the likelihood by adaptive Gauss-Hermite quadrature, given the conditional modes.

    Parameters
    ----------
    setting : Setting
        Of a problem with one block; no coefficients are found together with u.
    modes : Modes
    points : int
        Of each dimension.
    """
    problem, psi, (Lambda,) = setting.problem, setting.psi, setting.Lambdas
    (block,) = problem.Z.blocks
    z = rule(points, block.k)
    D = modes.factorized.chain[0].D
    L, C = _roots(setting, modes)
    at = _at_nodes(setting, modes, z, C)
    # derivatives by u and by C, which move the nodes
    sums = (problem.Z.transposes[0] @ at.scores.T).reshape(-1, block.k, len(at.scores))
    slopes = sums.swapaxes(1, 2) @ Lambda - at.shares[:, :, None] * at.u
    C_bar = slopes.swapaxes(1, 2) @ z.nodes + L
    H_bar = -C @ _half(C.swapaxes(1, 2) @ C_bar) @ C.swapaxes(1, 2)
    # H changes with eta and with Lambda
    scaled = block.columns @ Lambda
    d = np.einsum("na,nab,nb->n", scaled, H_bar[block.codes], scaled)
    further = problem.family.further_expansion(problem.y, modes.eta, problem.weights, psi)
    pull = d * further.third
    by_u = slopes.sum(1) + setting.scores(pull)[0]
    lambdas = (C @ (C.swapaxes(1, 2) @ by_u[:, :, None]))[:, :, 0]
    fitted = problem.Z.fitted([lambdas @ Lambda.T])
    rows, (by_modes,) = through_modes(setting, modes, pull, [lambdas], fitted)
    by_nodes = block.columns.T @ np.einsum("jn,nja->na", at.scores, at.u[block.codes])
    return Likelihood(
        value=_total(at, L),
        rows=at.scores.sum(0) + rows,
        Lambdas=[by_nodes + 2 * (D @ Lambda @ H_bar).sum(0) + by_modes],
        psi=_by_psi(setting, at, block.codes) + further.weight @ d + further.score @ fitted,
        modes=modes,
    )


def _roots(setting: Setting, modes: Modes) -> tuple[Array, Array]:
    """Return the Cholesky factors L of H at the modes, and C = L'^-1, shape (m, k, k)."""
    (Lambda,) = setting.Lambdas
    H = np.eye(len(Lambda)) + Lambda.T @ modes.factorized.chain[0].D @ Lambda
    L = np.linalg.cholesky(H)
    return L, np.linalg.inv(L).swapaxes(1, 2)


def _total(at: _Nodes, L: Array) -> float:
    return at.value - float(np.log(np.diagonal(L, axis1=1, axis2=2)).sum())


def _at_nodes(setting: Setting, modes: Modes, z: Rule, C: Array) -> _Nodes:
    problem, (Lambda,), (block,) = setting.problem, setting.Lambdas, setting.problem.Z.blocks
    moved = (C[:, None] @ z.nodes[:, :, None])[..., 0]
    steps = moved @ Lambda.T
    eta = np.repeat(modes.eta[None], len(z.nodes), axis=0)
    for a, column in enumerate(block.columns.T):
        eta += (steps[block.codes, :, a] * column[:, None]).T
    u = modes.u[0][:, None] + moved
    expansion = problem.expansion(eta, setting.psi)
    logs = block.indicator @ expansion.value.T - 0.5 * (u**2).sum(2)
    logs = logs + z.log_weights + 0.5 * (z.nodes**2).sum(1)
    totals = special.logsumexp(logs, axis=1)
    shares = np.exp(logs - totals[:, None])
    return _Nodes(u, eta, shares, shares[block.codes].T * expansion.score, float(totals.sum()))


def _half(B: Array) -> Array:
    """Return the upper triangle with half the diagonal, made symmetric."""
    upper = np.triu(B)
    upper -= 0.5 * np.triu(np.tril(B))
    return np.asarray((upper + upper.swapaxes(1, 2)) / 2)


def _by_psi(setting: Setting, at: _Nodes, codes: Codes) -> Array:
    if not len(setting.psi):
        return np.empty(0)
    problem = setting.problem
    further = problem.family.further_expansion(problem.y, at.eta, problem.weights, setting.psi)
    return np.asarray(np.einsum("rjn,nj->r", further.value, at.shares[codes]))


@dataclass(frozen=True, eq=False)
class Likelihood:
    """A log-likelihood with the random effects integrated out, and its derivatives.

    Attributes
    ----------
    value : float
    rows : ndarray, shape (n,)
        The derivative with respect to the known part of eta, row by row: X' rows is the derivative
        with respect to the fixed effects.
    Lambdas : list of ndarray, shape (k, k)
        The derivatives with respect to the factors.
    psi : ndarray, shape (r,)
        The derivatives with respect to the logarithms of the family's own parameters.
    modes : Modes
    """

    value: float
    rows: Array
    Lambdas: list[Array]
    psi: Array
    modes: Modes


def if_any(likelihood: Callable[[], Likelihood]) -> Likelihood | None:
    """Return a likelihood, or None where there is none or its derivatives are not finite."""
    with np.errstate(all="ignore"):
        try:
            result = likelihood()
        except (NoModesError, np.linalg.LinAlgError):
            return None
    derivatives = (result.rows, result.psi, *result.Lambdas)
    is_finite = np.isfinite(result.value) and all(np.isfinite(d).all() for d in derivatives)
    return result if is_finite else None


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
    further = problem.family.further_expansion(problem.y, modes.eta, problem.weights, setting.psi)
    pull = -0.5 * d * further.third
    lambdas, _, fitted = setting.solve(modes.factorized, expansion.weight, pull)
    rows, by_modes = through_modes(setting, modes, pull, lambdas, fitted)
    by_score = _outer(setting.score_sums(modes), modes.u)
    return Likelihood(
        value=laplace_value(modes),
        rows=expansion.score + rows,
        Lambdas=[
            a + b - G / 2 for a, b, G in zip(by_score, by_modes, selected.gradient, strict=True)
        ],
        psi=further.value.sum(-1) - 0.5 * further.weight @ d + further.score @ fitted,
        modes=modes,
    )


def through_modes(
    setting: Setting, modes: Modes, pull: Array, lambdas: Sequence[Array], fitted: Array
) -> tuple[Array, list[Array]]:
    """Return the derivatives that reach a likelihood through its conditional modes.

    Parameters
    ----------
    setting : Setting
    modes : Modes
    pull : ndarray, shape (n,)
        The derivative of the likelihood with respect to eta at the modes.
    lambdas : sequence of ndarray, shape (m, k)
        H^-1 times the derivative with respect to u, all in all.
    fitted : ndarray, shape (n,)
        Z Lambda lambdas.

    Returns
    -------
    rows : ndarray, shape (n,)
        The derivative with respect to the known part of eta.
    Lambdas : list of ndarray, shape (k, k)
    """
    rows = pull - modes.expansion.weight * fitted
    direct = _outer(setting.problem.Z.sums(rows), modes.u)
    by_score = _outer(setting.score_sums(modes), lambdas)
    return rows, [a + b for a, b in zip(direct, by_score, strict=True)]


def _outer(sums: Sequence[Array], u: Sequence[Array]) -> list[Array]:
    """Return the sum over levels of s_l u_l', term by term, shape (k, k)."""
    return [np.asarray(s.T @ effects) for s, effects in zip(sums, u, strict=True)]
