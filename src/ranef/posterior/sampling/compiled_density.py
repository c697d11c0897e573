"""The posterior density of the variance parameters, compiled: NUTS spends its time here.

It is the density of `LinearPosterior`, from the two arrays of `density_arrays.Packed`: their types
are the same for every model, so that it is compiled once on a machine. Importing this module
imports Numba.

All random effects of the rest and all integrated fixed effects go in one sweep over

    N = E'T'ST E + blockdiag(I, sigma^2 prior),

S the rest with the levels absorbed, T the block diagonal of the relative factors and E the
contrast y - (given columns) (given effects): it leaves -N^-1, their estimates and r^2.

Sources: as `linear_posterior`; Goodnight (1979), *The American Statistician* 33 (the sweep).
"""

# ruff: noqa: C901, PLR0912, PLR0917 -- loops over small matrices; Numba knows no keyword-only ones

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ranef._typing import Array, Integers
from ranef.numerics import constants
from ranef.numerics.constants import LOG_2PI
from ranef.posterior import transforms
from ranef.posterior.sampling import compilation, density_arrays
from ranef.posterior.sampling.compilation import inner

N_SIZES, TERM_SIZE = 9, 6  # numbers in `Packed.counts`: of the model, and of each term


# All that the functions below are compiled from, or that writes the arrays that they read
SOURCES = (sys.modules[__name__], transforms, density_arrays, constants)


def kept[F: Callable[..., Any]](function: F) -> F:
    """Compile a function, or read it from where it was kept."""
    return compilation.compiled(function, SOURCES)


def revision() -> int:
    """Return a number that changes with the compiled code, for caches of what calls it."""
    return compilation.revision(SOURCES)


evaluate = inner(transforms.evaluate)


@numba.njit(inline="always", error_model="numpy")  # into the C function of `density_for_nutpie`
def posterior(x: Array, counts: Integers, numbers: Array, gradient: Array) -> float:
    """Return the log posterior density at x, shape (d,), and write its gradient.

    Minus infinity where it cannot be computed.
    """
    g, n_terms, d, n_values = counts[4], counts[5], counts[7], counts[8]
    codes = counts[N_SIZES + TERM_SIZE * n_terms :]
    relative = codes[3 * d :]
    prior = numbers[len(numbers) - n_values - 3 * d :]
    values = numbers[len(numbers) - n_values :].copy()
    slopes, by_value = np.empty(d), np.empty(n_values)
    logp = numbers[3]
    for i in range(d):
        a, b, c = prior[3 * i], prior[3 * i + 1], prior[3 * i + 2]
        values[codes[3 * i + 2]], slopes[i], log_prior, gradient[i] = evaluate(
            codes[3 * i], codes[3 * i + 1], a, b, c, x[i], is_natural=False
        )
        logp += log_prior
    for i in range(g + 1, n_values):
        if relative[i]:
            values[i] *= values[g]
    logp += _density(values, counts, numbers, by_value)
    for i in range(g + 1, n_values):
        if relative[i]:
            by_value[g] += by_value[i] * values[i] / values[g]
            by_value[i] *= values[g]
    for i in range(d):
        gradient[i] += by_value[codes[3 * i + 2]] * slopes[i]
    return float(logp)


@kept
def likelihood(values: Array, counts: Integers, numbers: Array, gradient: Array) -> float:
    """Return log p(y | values), and write its derivatives, shape (n_values,).

    Minus infinity, and zeros, where it cannot be computed.
    """
    return float(_density(values, counts, numbers, gradient))


@numba.njit(inline="always", error_model="numpy")  # to optimise it twice takes seconds
def _density(values: Array, counts: Integers, numbers: Array, gradient: Array) -> float:
    m, k, q, r, g, n_terms, k_max = counts[:7]
    w, sigma = q + r + g + 1, values[g]
    size, variance = q + r, sigma * sigma
    terms = counts[N_SIZES : N_SIZES + TERM_SIZE * n_terms].reshape(n_terms, TERM_SIZE)
    D, C, repeats, S, prior, origin, bases = _arrays(counts, numbers)
    U, Lambda = np.zeros((n_terms, k_max, k_max)), np.zeros((n_terms, k_max, k_max))
    _factors(values, sigma, terms, bases, U, Lambda)
    V = np.empty((m, k, k))
    logdet = _absorb(D, C, repeats, Lambda, V, S) if m else 0.0
    slopes, more = np.zeros((n_terms, k_max, k_max)), np.zeros((q, q))
    logdet += _count(S, repeats[m:], terms, Lambda, slopes, more)
    contrast = np.zeros(w)  # over the rest: (-estimates, origin - given effects, 1)
    for i in range(g):
        contrast[size + i] = origin[i] - values[i]
    contrast[w - 1] = 1.0
    N = _system(S, terms, Lambda, contrast, q, size)
    for i in range(r + 1):
        for j in range(i, r + 1):
            N[q + i, q + j] += variance * prior[i, j]
    logdet += _sweep(N, size)
    r2 = N[size, size]
    nu = numbers[0] - r
    deviance = logdet - numbers[1] + nu * (LOG_2PI + np.log(variance)) + r2 / variance
    value = numbers[2] - 0.5 * deviance
    gradient[:] = 0.0
    if not np.isfinite(value):
        return -np.inf
    for i in range(size):
        contrast[i] = -N[i, size]
    penalty = _penalty(N, prior, contrast, variance, q, r)
    gradient[g] = -sigma * (nu / variance + penalty - r2 / variance**2)
    bar = _rest_slopes(S, N, terms, Lambda, contrast, variance, slopes)
    bar[:q, :q] += more
    for i in range(g):
        for j in range(w):
            gradient[i] += S[size + i, j] * contrast[j] / variance
    if m:
        _chain_slopes(D, C, repeats, Lambda, V, bar, slopes)
    _pull_back(values, sigma, terms, bases, U, Lambda, slopes, gradient, g)
    return float(value)


@inner
def _arrays(
    counts: Integers, numbers: Array
) -> tuple[Array, Array, Array, Array, Array, Array, Array]:
    """Return D, C and counts, a copy of the rest, the fixed effects' prior and origin, bases."""
    m, k, q, r, g = counts[:5]
    w = q + r + g + 1
    a = 4
    b = a + m * k * k
    c = b + m * k * w
    s = c + m + q
    d = s + w * w
    e = d + (r + 1) * (r + 1)
    return (
        numbers[a:b].reshape(m, k, k),
        numbers[b:c].reshape(m, k, w),
        numbers[c:s],
        numbers[s:d].reshape(w, w).copy(),
        numbers[d:e].reshape(r + 1, r + 1),
        numbers[e : e + g],
        numbers[e + g :],
    )


# ---------------------------------------------------------------- from values to relative factors


@inner
def _factors(
    values: Array, sigma: float, terms: Integers, bases: Array, U: Array, Lambda: Array
) -> None:
    """Write the unit factor of each term, and Lambda = base diag(sd) U / sigma."""
    start = 0
    for t in range(len(terms)):
        k, sd, partial, correlated = terms[t, 0], terms[t, 3], terms[t, 4], terms[t, 5] > 0
        for row in range(k):
            length = 1.0
            for c in range(row if correlated else 0):
                U[t, row, c] = values[partial] * length
                length *= np.sqrt(1.0 - values[partial] ** 2)
                partial += 1
            U[t, row, row] = length
        base = bases[start : start + k * k].reshape(k, k)
        start += k * k
        for a in range(k):
            for b in range(k):
                total = 0.0
                for c in range(b, k):
                    total += base[a, c] * values[sd + c] * U[t, c, b]
                Lambda[t, a, b] = total / sigma


@inner
def _pull_back(
    values: Array,
    sigma: float,
    terms: Integers,
    bases: Array,
    U: Array,
    Lambda: Array,
    slopes: Array,
    gradient: Array,
    g: int,
) -> None:
    """Turn derivatives by the Lambdas into ones by sigma, the sds and partial correlations."""
    start = 0
    for t in range(len(terms)):
        k, sd, partial, correlated = terms[t, 0], terms[t, 3], terms[t, 4], terms[t, 5] > 0
        base = bases[start : start + k * k].reshape(k, k)
        start += k * k
        by_factor = np.zeros((k, k))  # diag(sd) U
        for a in range(k):
            for b in range(k):
                gradient[g] -= slopes[t, a, b] * Lambda[t, a, b] / sigma
                for c in range(k):
                    by_factor[c, b] += base[a, c] * slopes[t, a, b] / sigma
        for row in range(k):
            for c in range(row + 1):
                gradient[sd + row] += by_factor[row, c] * U[t, row, c]
                by_factor[row, c] *= values[sd + row]
        for row in range(1, k if correlated else 0):
            ahead = by_factor[row, row] * U[t, row, row]
            for c in range(row - 1, -1, -1):
                p = values[partial + c]
                before = 1.0
                for b in range(c):
                    before -= U[t, row, b] ** 2
                before = np.sqrt(max(0.0, before))
                gradient[partial + c] = by_factor[row, c] * before - ahead * p / max(
                    1.0 - p * p, 1e-300
                )
                ahead += by_factor[row, c] * U[t, row, c]
            partial += row


# ----------------------------------------------------------------------------- the levels


@inner
def _absorb(D: Array, C: Array, repeats: Array, Lambda: Array, V: Array, S: Array) -> float:
    """Take the levels out of S; write V = R^-1 Lambda'; return log|RR'|."""
    m, k, w = C.shape
    R, VC = np.empty((k, k)), np.empty((m * k, w))
    logdet = 0.0
    for level in range(m):
        logdet += repeats[level] * _level_factor(D[level], Lambda, R, V[level])
        for a in range(k):
            row = VC[level * k + a]
            for j in range(w):
                row[j] = V[level, a, 0] * C[level, 0, j]
            for b in range(1, k):
                for j in range(w):
                    row[j] += V[level, a, b] * C[level, b, j]
    S -= np.dot(VC.T, VC)
    return logdet


@inner
def _level_factor(D: Array, Lambda: Array, R: Array, V: Array) -> float:
    """Write V = R^-1 Lambda', R R' = I + Lambda' D Lambda, of one level; return log|RR'|."""
    k = len(D)
    for a in range(k):  # D Lambda
        for b in range(k):
            total = 0.0
            for c in range(k):
                total += D[a, c] * Lambda[0, c, b]
            V[a, b] = total
    determinant = 1.0
    for j in range(k):
        for i in range(j, k):
            total = 1.0 if i == j else 0.0
            for a in range(k):
                total += Lambda[0, a, i] * V[a, j]
            for c in range(j):
                total -= R[i, c] * R[j, c]
            R[i, j] = np.sqrt(total) if i == j else total / R[j, j]
        determinant *= R[j, j]
    for b in range(k):
        for a in range(k):
            total = Lambda[0, b, a]
            for c in range(a):
                total -= R[a, c] * V[c, b]
            V[a, b] = total / R[a, a]
    return float(2.0 * np.log(determinant))


@inner
def _chain_slopes(
    D: Array, C: Array, repeats: Array, Lambda: Array, V: Array, bar: Array, slopes: Array
) -> None:
    """Write -Score Lambda of the levels: Score = sum of N D - N Q N', Q = C bar C'."""
    m, k, w = C.shape
    N, Q, score = np.empty((k, k)), np.empty((k, k)), np.zeros((k, k))
    barC = np.dot(C.reshape(m * k, w), bar)
    for level in range(m):
        for a in range(k):
            for b in range(k):
                total = 0.0
                for j in range(w):
                    total += barC[level * k + a, j] * C[level, b, j]
                Q[a, b] = total
        for a in range(k):  # N = I - D V'V
            for b in range(k):
                total = 1.0 if a == b else 0.0
                for c in range(k):
                    for d in range(k):
                        total -= D[level, a, c] * V[level, d, c] * V[level, d, b]
                N[a, b] = total
        for a in range(k):
            for b in range(k):
                for c in range(k):
                    total = repeats[level] * D[level, c, b]
                    for d in range(k):
                        total -= Q[c, d] * N[b, d]
                    score[a, b] += N[a, c] * total
    for a in range(k):
        for b in range(k):
            total = 0.0
            for c in range(k):
                total += 0.5 * (score[a, c] + score[c, a]) * Lambda[0, c, b]
            slopes[0, a, b] = -total


# ------------------------------------------------------------------------------- the rest


@inner
def _count(
    S: Array, repeats: Array, terms: Integers, Lambda: Array, slopes: Array, more: Array
) -> float:
    """Return the log determinant of the further levels that levels of the rest stand for.

    These depend on no other effects. Write what they add to the derivatives, by S to `more`.
    """
    logdet, k_max = 0.0, Lambda.shape[1]
    R, Y = np.empty((k_max, k_max)), np.empty((k_max, k_max))
    for t in range(1, len(terms)):
        k, first = terms[t, 0], terms[t, 2]
        for start in range(first, first + k * terms[t, 1], k):
            others = repeats[start] - 1.0
            if others == 0.0:
                continue
            D, V = S[start : start + k, start : start + k].copy(), np.empty((k, k))
            logdet += others * _level_factor(D, Lambda[t : t + 1], R, V)
            for a in range(k):
                for b in range(k):
                    Y[a, b] = 0.0
                    for c in range(k):
                        Y[a, b] += V[c, a] * V[c, b]
                    more[start + a, start + b] += others * Y[a, b]
            for a in range(k):  # D Lambda - D Y D Lambda, as no Lambda need be inverted
                for c in range(k):
                    score = D[a, c]
                    for d in range(k):
                        for e in range(k):
                            score -= D[a, d] * Y[d, e] * D[e, c]
                    for b in range(k):
                        slopes[t, a, b] -= others * score * Lambda[t, c, b]
    return logdet


@inner
def _system(S: Array, terms: Integers, Lambda: Array, contrast: Array, q: int, size: int) -> Array:
    """Return E'T'ST E + blockdiag(I, 0)."""
    w = len(S)
    N = np.empty((size + 1, size + 1))
    N[size, size] = 0.0
    for i in range(w):
        total = 0.0
        for j in range(size, w):
            total += S[i, j] * contrast[j]
        if i < size:
            N[i, size] = N[size, i] = total
            for j in range(size):
                N[i, j] = S[i, j]
        else:
            N[size, size] += contrast[i] * total
    flipped = Lambda.copy()
    for t in range(len(Lambda)):
        _transpose(flipped[t])
    _times(flipped, terms, N)
    _transpose(N)
    _times(flipped, terms, N)
    for i in range(q):
        N[i, i] += 1.0
    return N


@inner
def _transpose(A: Array) -> None:
    for i in range(len(A)):
        for j in range(i):
            A[i, j], A[j, i] = A[j, i], A[i, j]


@inner
def _times(factors: Array, terms: Integers, A: Array) -> None:
    """Replace A by T A, T the block diagonal of the factors of the rest."""
    n = A.shape[1]
    product = np.empty((factors.shape[1], n))
    for t in range(1, len(terms)):
        k, first = terms[t, 0], terms[t, 2]
        for start in range(first, first + k * terms[t, 1], k):
            for a in range(k):
                for j in range(n):
                    product[a, j] = 0.0
                for b in range(k):
                    factor = factors[t, a, b]
                    for j in range(n):
                        product[a, j] += factor * A[start + b, j]
            A[start : start + k] = product[:k]


@inner
def _sweep(N: Array, size: int) -> float:
    """Sweep the upper triangle of N on its first `size` rows; return their log determinant.

    This leaves minus the inverse, the solutions for the later columns, the Schur complement.
    """
    n = len(N)
    row = np.empty(n)
    logdet = 0.0
    for pivot in range(size):
        for j in range(pivot):
            row[j] = N[j, pivot]
        for j in range(pivot, n):
            row[j] = N[pivot, j]
        d = row[pivot]
        logdet += np.log(d)
        row[pivot] = 0.0
        for i in range(n):
            factor = row[i] / d
            for j in range(n - i):  # as it is vectorised
                N[i, i + j] -= factor * row[i + j]
        for j in range(pivot):
            N[j, pivot] = row[j] / d
        for j in range(pivot + 1, n):
            N[pivot, j] = row[j] / d
        N[pivot, pivot] = -1.0 / d
    return logdet


@inner
def _penalty(N: Array, prior: Array, contrast: Array, variance: float, q: int, r: int) -> float:
    """Return the derivative of the deviance by the variance due to the prior as rows of data."""
    last, w = contrast[q : q + r], 0.0
    for i in range(r):
        for j in range(r):
            inverse = -N[q + min(i, j), q + max(i, j)]
            w += prior[i, j] * (last[i] * last[j] / variance + inverse)
        w += 2.0 * prior[i, r] * last[i] / variance
    return float(w + prior[r, r] / variance)


@inner
def _rest_slopes(
    S: Array,
    N: Array,
    terms: Integers,
    Lambda: Array,
    contrast: Array,
    variance: float,
    slopes: Array,
) -> Array:
    """Write the derivatives by the factors of the rest; return the one by S as `bar`.

    With M-bar = N^-1 + v v' / sigma^2, v = `contrast`: the derivative of the deviance by the
    Lambda of a term is 2 sum over its levels of [S T M-bar], and the one by S is T M-bar T'.
    `contrast` is changed to T v.
    """
    w, size = len(S), len(N) - 1
    bar = np.empty((w, w))
    for i in range(w):
        for j in range(i, w):
            bar[i, j] = contrast[i] * contrast[j] / variance
            if j < size:
                bar[i, j] -= N[i, j]
            bar[j, i] = bar[i, j]
    _times(Lambda, terms, bar)
    _transpose(bar)
    for t in range(1, len(terms)):
        k, first = terms[t, 0], terms[t, 2]
        for start in range(first, first + k * terms[t, 1], k):
            for a in range(k):
                for b in range(k):
                    for j in range(w):
                        slopes[t, a, b] -= S[start + a, j] * bar[start + b, j]
    _times(Lambda, terms, bar)
    _times(Lambda, terms, contrast.reshape(w, 1))
    return bar
