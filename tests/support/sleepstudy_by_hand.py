"""Marginal likelihoods of sleepstudy under the default priors, by cubature, written out by hand.

All subjects have the same ten days: their mean and their scatter are sufficient. A rotation splits
the days into two that the random effects reach and eight that they do not.
"""

from __future__ import annotations

import numpy as np
from scipy import special, stats

import ranef as rf

DATA = rf.load_dataset("sleepstudy")
Y = DATA.pivot_table(index="Subject", columns="Days", values="Reaction").to_numpy()
M, S_Y, S_X = len(Y), DATA["Reaction"].std(), DATA["Days"].std()
Q, R = np.linalg.qr(np.column_stack([np.ones(10), np.arange(10.0)]))
SCATTER = (Y - Y.mean(axis=0)).T @ (Y - Y.mean(axis=0))
AT_MEAN = np.array([[1, -4.5], [0, 1]])
PRIOR = AT_MEAN @ np.diag([(2.5 * S_Y) ** 2, (2.5 * S_Y / S_X) ** 2]) @ AT_MEAN.T
RESIDUAL = np.sqrt(M) * (Y.mean(axis=0) - Y.mean())


def log_likelihood(sigma, a, b, rho):
    """Return log p(y | sigma, sds a and b, correlation rho), the fixed effects integrated out."""
    cov = np.empty((*np.broadcast(a, b, rho).shape, 2, 2))
    cov[..., 0, 0], cov[..., 1, 1] = a**2, b**2
    cov[..., 0, 1] = cov[..., 1, 0] = a * b * rho
    V = R @ cov @ R.T + sigma**2 * np.eye(2)
    u = Q.T @ RESIDUAL
    inside, outside = Q.T @ SCATTER @ Q, np.trace(SCATTER) - np.trace(Q.T @ SCATTER @ Q)
    total = (M - 1) * np.log(_det(V)) + _trace_of_ratio(inside, V)
    V = V + M * R @ PRIOR @ R.T
    total += np.log(_det(V)) + _trace_of_ratio(np.outer(u, u), V)
    total += 8 * M * np.log(sigma**2) + (outside + RESIDUAL @ RESIDUAL - u @ u) / sigma**2
    return -0.5 * (total + 10 * M * np.log(2 * np.pi))


def log_evidence(random):
    """Return log p(y) with the random effects of a formula, by Gauss-Legendre quadrature."""
    has_corr, nodes = random == "(Days | Subject)", 48 if random == "(Days | Subject)" else 64
    sigma, log_w = _nodes(15.0, 45.0, 48)
    log_w += _half_t(sigma, S_Y)
    a, log_a = np.zeros(1), np.zeros(1)
    b, log_b = np.zeros(1), np.zeros(1)
    rho, log_rho = np.zeros(1), np.zeros(1)
    if random != "(0 + Days | Subject)":
        a, log_a = _nodes(0.0, 160.0, nodes)
        log_a += _half_t(a, S_Y)
    if random != "(1 | Subject)":
        b, log_b = _nodes(0.0, 48.0, nodes)
        log_b += _half_t(b, S_Y / S_X)
    if has_corr:
        rho, log_rho = _nodes(-1.0, 1.0, 32)
        log_rho += np.log(0.75 * (1 - rho**2))  # LKJ(2)
    priors = log_a[:, None, None] + log_b[:, None] + log_rho
    by_sigma = [
        special.logsumexp(priors + log_likelihood(s, a[:, None, None], b[:, None], rho))
        for s in sigma
    ]
    return float(special.logsumexp(by_sigma + log_w))


def _nodes(lower, upper, n):
    x, w = np.polynomial.legendre.leggauss(n)
    return (lower + upper + (upper - lower) * x) / 2, np.log(w * (upper - lower) / 2)


def _half_t(x, scale):
    return np.log(2) + stats.t(3, scale=scale).logpdf(x)


def _det(A):
    return A[..., 0, 0] * A[..., 1, 1] - A[..., 0, 1] * A[..., 1, 0]


def _trace_of_ratio(W, A):
    crossed = A[..., 0, 1] * W[1, 0] + A[..., 1, 0] * W[0, 1]
    return (A[..., 1, 1] * W[0, 0] + A[..., 0, 0] * W[1, 1] - crossed) / _det(A)
