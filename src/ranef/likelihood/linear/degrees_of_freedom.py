"""Denominator degrees of freedom of the fixed effects of a linear mixed model.

The estimated variance of a contrast c'beta is itself uncertain. Matched to a multiple of a
chi-squared variable it has df = 2 f^2 / (g'C g) degrees of freedom, f = c'Phi c with
Phi = cov(beta), g its derivative in the variance parameters and C their covariance. Two ways:

- Satterthwaite: C from the curvature of the (restricted) deviance at the optimum, as lmerTest.
- Kenward & Roger: C from the expected information of REML, Phi adjusted for the uncertainty of
  the variances, and for several contrasts an F statistic with a scaling of its own, as pbkrtest.

All is a function of the cross-products, in their basis. Satterthwaite costs four gradients of the
criterion for each variance parameter, Kenward-Roger a dense matrix of connected random effects.

Sources: Giesbrecht & Burns (1985), *Biometrics* 41, 477-486; Fai & Cornelius (1996), *Journal of
Statistical Computation and Simulation* 54, 363-378; Kenward & Roger (1997), *Biometrics* 53,
983-997; Halekoh & Højsgaard (2014), *Journal of Statistical Software* 59(9); Kuznetsova et al.
(2017), *Journal of Statistical Software* 82(13).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from scipy import special

from ranef._typing import Array
from ranef.arguments import check_choice
from ranef.covariances.covariance import Covariance
from ranef.errors import FitError
from ranef.likelihood.estimate import Estimate
from ranef.likelihood.linear import blocked_cholesky
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.linear.equal_levels import condensed
from ranef.likelihood.linear.expected_information import derivatives
from ranef.likelihood.linear.reml import MIN_RELATIVE_SD, profiled
from ranef.numerics.matrices import threads_for

KINDS = ("satterthwaite", "kenward-roger")
RELATIVE_STEP = 1e-3  # of central differences of the fourth order, relative to a parameter
MIN_SD_OF_STEP = 0.03  # a relative sd: smaller ones take the same step
MIN_RELATIVE_CURVATURE = 1e-7  # over those of its parameters, below which a direction is flat
MAX_NEGATIVE_CURVATURE = 1e-6  # by rounding, over the largest one
MIN_INDEPENDENT_SHARE = 1e-7  # of a contrast, that others leave unexplained


@dataclass(frozen=True)
class ContrastTest:
    """The F test of one or several contrasts.

    Attributes
    ----------
    f : float
        The statistic, with its scaling.
    df_num, df_den : float
        Degrees of freedom: the rank of the contrasts, and the denominator's.
    p_value : float
    scaling : float
        What the statistic is multiplied by: 1 but for Kenward-Roger.
    """

    f: float
    df_num: int
    df_den: float
    p_value: float
    scaling: float

    def __str__(self) -> str:
        scaled = "" if self.scaling == 1 else f", scaled by {self.scaling:.6g}"
        freedom = f"{self.df_num} and {self.df_den:.2f} df{scaled}"
        return f"F = {self.f:.4f} on {freedom}: p = {self.p_value:.4g}"


@dataclass(frozen=True, eq=False)
class DegreesOfFreedom:
    """The covariance of the fixed effects, and its own uncertainty.

    Attributes
    ----------
    kind : {"satterthwaite", "kenward-roger"}
    Phi : ndarray, shape (p, p)
        The covariance of the coefficients in the basis.
    adjusted : ndarray, shape (p, p)
        The same with Kenward and Roger's adjustment; Phi by Satterthwaite.
    slopes : ndarray, shape (d, p, p)
        The derivative of Phi in each variance parameter.
    C : ndarray, shape (d, d)
        The covariance of the estimates of the variance parameters.
    to_users : ndarray, shape (p, p)
        The matrix that turns coefficients in the basis into the user's.
    """

    kind: str
    Phi: Array
    adjusted: Array
    slopes: Array
    C: Array
    to_users: Array

    @property
    def vcov(self) -> Array:
        """The (adjusted) covariance of the fixed effects on the user's scale, shape (p, p)."""
        return np.asarray(self.to_users @ self.adjusted @ self.to_users.T)

    def spread(self, L: Array) -> Array:
        """Return A with A A' = L cov(beta) L', without adjustment, shape (r, p)."""
        return np.asarray(L @ self.to_users @ np.linalg.cholesky(self.Phi))

    def df(self, L: Array) -> Array:
        """Return the degrees of freedom of every row of contrasts, L of shape (r, p)."""
        c = L @ self.to_users
        f = np.einsum("ra,ab,rb->r", c, self.Phi, c)
        g = np.einsum("ra,iab,rb->ri", c, self.slopes, c)
        return np.asarray(2 * f**2 / np.einsum("ri,ij,rj->r", g, self.C, g))

    def test(self, beta: Array, L: Array) -> ContrastTest:
        """Return the F test of L beta = 0; rows that are combinations of others do not count.

        Parameters
        ----------
        beta : ndarray, shape (p,)
        L : ndarray, shape (r, p)

        Raises
        ------
        FitError
            If L is no matrix of contrasts, or if Kenward-Roger's approximation breaks down.
        """
        L = _checked(L, len(beta))
        return (_scaled if self.kind == "kenward-roger" else _fai_cornelius)(self, beta, L)


def table(
    cross: CrossProducts,
    estimate: Estimate,
    names: Sequence[str],
    kind: str,
    L: Array | None = None,
    *,
    reml: bool,
) -> pd.DataFrame:
    """Return the fixed effects, or linear functions of them, with their t tests.

    Parameters
    ----------
    cross : CrossProducts
    estimate : Estimate
        Of a linear model by REML or maximum likelihood.
    names : sequence of str
        Of the fixed effects.
    kind : {"satterthwaite", "kenward-roger"}
    L : ndarray, shape (r, p), optional
        The functions L beta; the fixed effects themselves by default.
    reml : bool

    Returns
    -------
    DataFrame
        Columns `estimate, se, df, t, p_value`; by Kenward-Roger `se` is adjusted.

    Raises
    ------
    FitError
        If there is no such kind, or the approximation cannot be had.
    """
    approximation = degrees_of_freedom(cross, estimate, kind, reml=reml)
    each = np.eye(len(names)) if L is None else L
    value, df = each @ estimate.beta, approximation.df(each)
    se = np.sqrt(np.einsum("ra,ab,rb->r", each, approximation.vcov, each))
    t = value / se
    p_value = 2 * special.stdtr(df, -np.abs(t))
    columns = {"estimate": value, "se": se, "df": df, "t": t, "p_value": p_value}
    return pd.DataFrame(columns, index=pd.Index(names) if L is None else None)


def contrast(
    cross: CrossProducts, estimate: Estimate, L: Array, kind: str, *, reml: bool
) -> ContrastTest:
    """Return the F test of several contrasts at once, L beta = 0.

    Parameters are those of `table`, and L of shape (r, p): rows of the identity test that
    coefficients are zero, such as those of a factor.

    Raises
    ------
    FitError
        As `table`, and if L is no matrix of contrasts.
    """
    return degrees_of_freedom(cross, estimate, kind, reml=reml).test(estimate.beta, L)


def degrees_of_freedom(
    cross: CrossProducts, estimate: Estimate, kind: str, *, reml: bool
) -> DegreesOfFreedom:
    """Return Satterthwaite's or Kenward and Roger's approximation at an estimate."""
    check_choice("df", kind, KINDS, "is not a kind of degrees of freedom")
    roots = [T @ Lambda for T, Lambda in zip(cross.bases, estimate.Lambdas, strict=True)]
    if kind == "satterthwaite":
        return satterthwaite(cross, roots, estimate.sigma, reml=reml)
    if not reml:
        raise FitError(
            "Kenward-Roger degrees of freedom are those of a REML fit: fit the model with "
            'method="reml", or ask for df="satterthwaite".'
        )
    return kenward_roger(cross, roots, estimate.sigma)


def _checked(L: object, p: int) -> Array:
    """Return contrasts as a matrix of p columns, or refuse them."""
    try:
        matrix = np.atleast_2d(np.asarray(L, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise FitError("`L` is not a matrix of numbers.") from error
    if matrix.ndim != 2 or matrix.shape[1] != p:
        raise FitError(
            f"`L` has the shape {matrix.shape}, expected rows of {p} numbers, one for each fixed "
            "effect."
        )
    if not np.isfinite(matrix).all():
        raise FitError("`L` has an entry that is not a finite number.")
    if not matrix.any():
        raise FitError("`L` is zero: it tests nothing.")
    return matrix


# ------------------------------------------------------------------------------ Satterthwaite


def satterthwaite(
    cross: CrossProducts, Lambdas: Sequence[Array], sigma: float, *, reml: bool
) -> DegreesOfFreedom:
    """Return Satterthwaite's approximation.

    The parameters are log sigma and what moves the relative covariances without changing their
    rank, so that on the boundary only what can still vary counts: in these the optimum is a
    stationary point, and the curvature does not depend on how the covariance is written. A
    model without random effects has n - p degrees of freedom exactly, by maximum likelihood too.

    Parameters
    ----------
    cross : CrossProducts
    Lambdas : sequence of ndarray, shape (k, k)
        In the basis of the cross-products, at the optimum; any square root will do.
    sigma : float
    reml : bool

    Raises
    ------
    FitError
        If the deviance has no minimum there.
    """
    nu = cross.n - cross.p if reml or not cross.covariances else cross.n
    roots, moves = _moves(cross.covariances, Lambdas)
    criterion = _Criterion(condensed(cross, evaluations=4 * len(moves)), moves, sigma, reml)
    with threads_for(len(cross.fixed)):
        changes = np.array([criterion.change(roots, move) for move in moves])
        K = blocked_cholesky.factorize(criterion.cross, roots).reduced[:-1, :-1]
    d, p = len(moves), cross.p
    changes = changes.reshape(d, d + 1 + p * p)
    H = np.empty((d + 1, d + 1))
    H[:d, :d] = (changes[:, :d] + changes[:, :d].T) / 2
    H[:d, d] = H[d, :d] = -2 * changes[:, d]
    H[d, d] = 4 * nu
    Phi = sigma**2 * np.linalg.inv(K)
    slopes = -Phi @ changes[:, d + 1 :].reshape(d, p, p) @ Phi / sigma**2
    return DegreesOfFreedom(
        "satterthwaite",
        Phi,
        Phi,
        np.concatenate([slopes, 2 * Phi[None]]),
        2 * _inverse_curvature(H),
        np.linalg.inv(cross.R),
    )


type _Move = tuple[int, Array]  # a term, and a direction in which its root can go


def _moves(
    covariances: Sequence[Covariance], Lambdas: Sequence[Array]
) -> tuple[list[Array], list[_Move]]:
    """Return roots of the relative covariances, and the directions that keep their rank.

    Along its principal axes, longest first, a root is diagonal and can be moved within its lower
    triangle; a column of zeros stays. Every direction has the size of the sd that it changes.
    Coefficients of which nobody is correlated have axes of their own.
    """
    roots, moves = [], []
    for term, (covariance, Lambda) in enumerate(zip(covariances, Lambdas, strict=True)):
        axes, sds = np.zeros_like(Lambda), np.zeros(covariance.k)
        pairs: list[tuple[int, int]] = []
        for block in map(list, covariance.free_blocks):
            axes[np.ix_(block, block)], sds[block], _ = np.linalg.svd(Lambda[np.ix_(block, block)])
            pairs += combinations_with_replacement(block, 2)
        roots.append(axes * sds)
        for j, i in pairs:
            if sds[j] > MIN_RELATIVE_SD:
                direction = np.zeros_like(Lambda)
                direction[:, j] = axes[:, i] * max(sds[i], MIN_SD_OF_STEP)
                moves.append((term, direction))
    return roots, moves


@dataclass(frozen=True, eq=False)
class _Criterion:
    """The (restricted) deviance at a known sigma."""

    cross: CrossProducts
    moves: list[_Move]
    sigma: float
    reml: bool

    def state(self, roots: list[Array]) -> Array:
        """Return its derivative in every direction, r^2 / sigma^2 and X'V^-1 X, in a row."""
        factorized = blocked_cholesky.factorize(self.cross, roots)
        profile = profiled(factorized, self.sigma, reml=self.reml)
        gradient = blocked_cholesky.gradient(factorized, profile.slope)
        along = [float((gradient[term] * direction).sum()) for term, direction in self.moves]
        return np.array([*along, profile.r2 / self.sigma**2, *factorized.reduced[:-1, :-1].ravel()])

    def change(self, roots: list[Array], move: _Move) -> Array:
        """Return the derivative of the state in a direction, by differences of fourth order."""
        term, direction = move

        def after(steps: int) -> Array:
            moved = list(roots)
            moved[term] = roots[term] + steps * RELATIVE_STEP * direction
            return self.state(moved)

        difference = 8 * (after(1) - after(-1)) - (after(2) - after(-2))
        return np.asarray(difference / (12 * RELATIVE_STEP))


def _inverse_curvature(H: Array) -> Array:
    """Return the inverse of a Hessian where it is not flat, or refuse a negative curvature."""
    values = np.linalg.eigvalsh(H)
    if values[0] < -MAX_NEGATIVE_CURVATURE * values[-1]:
        raise FitError(
            "the estimates are not at a minimum of the deviance, so that its curvature does not "
            "say how well the variances are known: Satterthwaite degrees of freedom cannot be "
            'had. Look at `fit.convergence`; df="kenward-roger" does without the curvature.'
        )
    size = np.sqrt(np.maximum(np.diag(H), 1e-9 * values[-1]))
    values, vectors = np.linalg.eigh(H / np.outer(size, size))
    kept = values > MIN_RELATIVE_CURVATURE
    scaled = vectors[:, kept] / size[:, None]
    return np.asarray((scaled / values[kept]) @ scaled.T)


def _fai_cornelius(approximation: DegreesOfFreedom, beta: Array, L: Array) -> ContrastTest:
    """Return the F test of independent contrasts with different degrees of freedom.

    Source: Fai & Cornelius (1996), as in lmerTest: E F belongs to the denominator.
    """
    axes, sds, _ = np.linalg.svd(approximation.spread(L), full_matrices=False)
    q = len(_independent(approximation, L))
    rows = axes[:, :q].T @ L
    f = float(np.mean((rows @ beta / sds[:q]) ** 2))
    nu = approximation.df(rows)
    df = float(nu[0]) if q == 1 else _pooled(nu)
    return ContrastTest(f, q, df, float(special.fdtrc(q, df, f)), 1.0)


def _pooled(nu: Array) -> float:
    """Return the df of an F with the mean of squared t variables: 2 E / (E - q), E their sum."""
    if nu.min() <= 2:
        return 2.0
    excess = float(np.sum(2 / (nu - 2)))  # E - q
    return 2 * (len(nu) + excess) / excess


# ------------------------------------------------------------------------------ Kenward-Roger


def kenward_roger(cross: CrossProducts, Lambdas: Sequence[Array], sigma: float) -> DegreesOfFreedom:
    """Return Kenward and Roger's approximation.

    Parameters are those of `satterthwaite`, at the REML estimate. V is linear in the elements of
    the relative covariances and its own scale, which span what the elements of the covariances
    and the residual variance do; nothing depends on the choice.

    Raises
    ------
    FitError
        If data connect more random effects than `expected_information.MOST`.
    """
    products = derivatives(cross, [root @ root.T for root in Lambdas])
    T, P, Q = products.T, products.P, products.Q
    Phi = np.linalg.inv(products.K)
    of_Phi = np.einsum("iab,bc,jcd->ijad", P, Phi, P, optimize=True)
    information = T - 2 * np.einsum("ab,ijba->ij", Phi, Q) + np.einsum("ab,ijba->ij", Phi, of_Phi)
    size = np.sqrt(np.diag(T))
    size[size == 0] = 1.0  # no two rows have both coefficients: flat, as nothing depends on it
    W = 2 * np.linalg.pinv(
        information / np.outer(size, size), rcond=MIN_RELATIVE_CURVATURE, hermitian=True
    )
    W /= np.outer(size, size)
    bias = 2 * Phi @ np.einsum("ij,ijab->ab", W, Q - of_Phi) @ Phi
    variance = sigma**2
    return DegreesOfFreedom(
        "kenward-roger",
        variance * Phi,
        variance * (Phi + (bias + bias.T) / 2),
        -variance * Phi @ P @ Phi,
        W,
        np.linalg.inv(cross.R),
    )


def _scaled(approximation: DegreesOfFreedom, beta: Array, L: Array) -> ContrastTest:
    """Return Kenward and Roger's F test, whose first two moments are those of a scaled F.

    Source: Kenward & Roger (1997), section 3, with the letters of Halekoh & Højsgaard (2014).
    """
    rows = _independent(approximation, L)
    a, q = rows @ approximation.to_users, len(rows)
    precision = a.T @ np.linalg.solve(a @ approximation.Phi @ a.T, a)
    moves = precision @ approximation.slopes  # Theta Phi P_i Phi
    traces = np.einsum("iaa->i", moves)
    A1 = float(traces @ approximation.C @ traces)
    A2 = float(np.einsum("ij,iab,jba->", approximation.C, moves, moves))
    df, scaling = _matched(q, A1, A2)
    if not df > 0:
        raise FitError(
            f"Kenward and Roger's approximation has no denominator degrees of freedom for these "
            f"{q} contrasts: the variances they depend on are hardly known. Test fewer at once, "
            'or ask for df="satterthwaite".'
        )
    values = rows @ beta
    f = scaling * float(values @ np.linalg.solve(rows @ approximation.vcov @ rows.T, values)) / q
    return ContrastTest(f, q, df, float(special.fdtrc(q, df, f)), scaling)


def _independent(approximation: DegreesOfFreedom, L: Array) -> Array:
    """Return combinations of the rows of L, as many as are independent, whatever their units."""
    spread = approximation.spread(L)
    lengths = np.linalg.norm(spread, axis=1)
    L, spread = L[lengths > 0], spread[lengths > 0]
    lengths = lengths[lengths > 0, None]
    axes, sizes, _ = np.linalg.svd(spread / lengths, full_matrices=False)
    return np.asarray(axes[:, sizes > MIN_INDEPENDENT_SHARE * sizes[0]].T @ (L / lengths))


def _matched(q: int, A1: float, A2: float) -> tuple[float, float]:
    """Return the denominator df and the scaling of an F statistic of q contrasts.

    Where both mean and variance lead to 0 / 0, which a single contrast does, the ratio is 1.
    """
    B = (A1 + 6 * A2) / (2 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    c = np.array([g, q - g, q + 2 - g]) / (3 * q + 2 * (1 - g))
    V0, V1, V2 = 1 + c[0] * B, 1 - c[1] * B, 1 - c[2] * B
    E = 1 - A2 / q
    V0 = 0.0 if abs(V0) < 1e-10 else V0
    ratio = 1.0 if max(abs(E), abs(V1)) < 1e-10 else E / V1
    rho = ratio**2 * V0 / V2 / q
    df = 4 + (q + 2) / (q * rho - 1)
    return float(df), 1.0 if abs(df - 2) < 1e-2 else float(df * E / (df - 2))
