"""The density of the data with all random effects, and the fixed ones, integrated out.

With beta ~ N(m, S), or flat, the prior of the fixed effects acts like further rows of data with
the residual variance sigma^2: rows (S^-1/2, S^-1/2 m) in the cross-products of [X y]. So the
density is a function of the factors from `blocked_cholesky.factorize`, and of sigma:

    -2 log p(y | theta, sigma) = log|M| + log|K| + (n - p) log(2 pi sigma^2) - log|W| + r^2/sigma^2

K and r^2 being the cross-products of X and the residual sum of squares with these rows added, up
to the constant of the prior. Fixed effects with any other prior are given. Coefficients gamma are
those of an orthonormal basis of the integrated columns, and y is the least-squares residual.

Equations `marginal-likelihood` and `effects-given-variances` in docs/mathematics.
Source: Bates & DebRoy (2004), *Journal of Multivariate Analysis* 91; Gelman et al., *Bayesian Data
Analysis*, 3rd ed., section 14.8 (prior information as additional data points).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranef._typing import Array, Places
from ranef.covariances.covariance import factors
from ranef.design.design import Design
from ranef.likelihood.linear import blocked_cholesky, many_thetas
from ranef.likelihood.linear.crossproducts import CrossProducts
from ranef.likelihood.linear.equal_levels import condensed
from ranef.likelihood.linear.optimum.starts import moment_start
from ranef.likelihood.predictions import Draws
from ranef.numerics.constants import LOG_2PI
from ranef.numerics.matrices import leading_choleskies
from ranef.posterior.log_posterior import LogPosterior
from ranef.posterior.transforms import Space, given_effects, space_of
from ranef.priors.assignment import Priors
from ranef.priors.distributions import Flat, Normal

MIN_SQUARES = 1e-28  # of residuals, relative to those of fitted values: less is rounding
FIRST_SQUARES = 1e-12  # of residuals where fixed effects fit exactly, relative to the same
MIN_SINGULAR_RATIO = 1e-7  # of dependent columns that span a direction of their own

type Derived = tuple[float, list[Array], float, Array]  # by Lambdas, sigma, given effects


@dataclass(frozen=True, eq=False)
class FixedPart:
    """The fixed effects of a model: which are integrated out, and under which prior.

    Attributes
    ----------
    J : ndarray, shape (p, r)
        Orthonormal basis of the integrated columns, in the basis of the cross-products.
    rows : ndarray, shape (l, r + 1)
        The prior as rows of data: their part in the columns of gamma, and in y.
    constant : float
        Logarithm of the prior's factor in the density.
    given : ndarray, shape (p, n_given)
        Columns of the fixed effects that are given.
    shift : ndarray, shape (p,)
        Minus the residual of the least-squares fit from J.
    mean, back, noise : ndarray, shapes (p',), (p', r) and (p', p')
        The integrated effects are mean + back gamma + noise z, z standard normal.
    change : ndarray, shape (p'', p'')
        Turns effects at centred columns into the user's.
    order : tuple of ndarray of int
        Places of the integrated and of the given effects among all p''.
    """

    J: Array
    rows: Array
    constant: float
    given: Array
    shift: Array
    mean: Array
    back: Array
    noise: Array
    change: Array
    order: tuple[Places, Places]

    def effects(self, gamma: Array, given: Array, z: Array | None = None) -> Array:
        """Return all fixed effects on the user's scale, shape (..., p'').

        Parameters
        ----------
        gamma : ndarray, shape (..., r)
        given : ndarray, shape (..., n_given)
        z : ndarray, shape (..., p'), optional
            Standard normal; without it the mean.
        """
        integrated, others = self.order
        beta = np.empty((*gamma.shape[:-1], len(self.change)))
        beta[..., integrated] = self.mean + gamma @ self.back.T
        if z is not None:
            beta[..., integrated] += z @ self.noise.T
        beta[..., others] = given
        return beta @ self.change.T

    def covariance(self, gamma_cov: Array) -> Array:
        """Return the covariance of the user's fixed effects from that of gamma, (..., p'', p'')."""
        change = self.change[:, self.order[0]]
        turned, known = change @ self.back, change @ self.noise
        half = (gamma_cov @ turned.T).swapaxes(-1, -2)  # gamma_cov is symmetric
        return np.asarray(half @ turned.T + known @ known.T)

    def turn(self, given: Array) -> Array:
        """Return the map from [X y] to the integrated columns and y less the given effects.

        Shape (..., p + 1, r + 1), for given effects of shape (..., n_given).
        """
        p, r = self.J.shape
        turn = np.zeros((*given.shape[:-1], p + 1, r + 1))
        turn[..., :-1, :-1], turn[..., -1, -1] = self.J, 1.0
        turn[..., :-1, -1] = -self.offset(given)
        return turn

    def offset(self, given: Array) -> Array:
        """Return the coefficients of all columns of the basis where gamma is zero, (..., p)."""
        return given @ self.given.T + self.shift


def fixed_part(cross: CrossProducts, combinations: Array, priors: Priors) -> FixedPart:
    """Return the fixed effects of a model in the basis of its cross-products.

    Parameters
    ----------
    cross : CrossProducts
        Of a design with independent columns.
    combinations : ndarray, shape (p, p'')
        All columns of X, also dependent ones, as combinations of those of the cross-products.
    priors : Priors
        Of all p'' fixed effects.

    Notes
    -----
    Effects of dependent columns need a proper prior: `ranef.priors.propriety.check_proper`.
    """
    size = combinations.shape[1]
    change = np.eye(size) if priors.change is None else priors.change
    K = cross.R @ combinations @ change
    given = np.array(given_effects(priors), dtype=np.intp)
    integrated = np.setdiff1d(np.arange(size), given)
    target = cross.R @ cross.beta_ols
    normal = [p for p in (priors.beta[j] for j in integrated) if isinstance(p, Normal | Flat)]
    J, rows, constant, (mean, back, noise) = _integrated(K[:, integrated], target, normal)
    return FixedPart(
        J=J,
        rows=rows,
        constant=constant,
        given=K[:, given],
        shift=J @ (J.T @ target) - target,
        mean=mean,
        back=back,
        noise=noise,
        change=change,
        order=(integrated, given),
    )


def _integrated(
    K: Array, target: Array, priors: Sequence[Normal | Flat]
) -> tuple[Array, Array, float, tuple[Array, Array, Array]]:
    """Return J, the prior as rows, its constant, and the way back, for effects K beta.

    J gamma + J J' target = K beta. Of independent columns gamma determines beta; of dependent
    ones beta given gamma is normal, and gamma has the prior that this induces.
    """
    m = np.array([p.mu if isinstance(p, Normal) else 0.0 for p in priors])
    s = np.array([p.sigma if isinstance(p, Normal) else np.inf for p in priors])
    proper = np.isfinite(s)
    size = np.maximum(np.linalg.norm(K, axis=0), np.finfo(np.float64).tiny)
    if np.linalg.matrix_rank(K / size) == len(m):
        J, R = np.linalg.qr(K)
        back = np.linalg.inv(R)
        mean = back @ (J.T @ target)
        rows = np.column_stack([back, mean * -1 + m])[proper] / s[proper, None]
        constant = -np.log(np.abs(np.diag(R))).sum() - (np.log(s[proper]) + LOG_2PI / 2).sum()
        return J, rows, float(constant), (mean, back, np.zeros((len(m), len(m))))
    left, singular, _ = np.linalg.svd(K / size, full_matrices=False)
    J = left[:, singular > MIN_SINGULAR_RATIO * singular[0]]
    H = J.T @ K
    C = np.linalg.cholesky(H * s**2 @ H.T)
    inverse = np.linalg.inv(C)
    back = (s**2)[:, None] * H.T @ inverse.T @ inverse
    mean = m + back @ (J.T @ target - H @ m)
    noise = np.diag(s) - back @ H * s  # (I - back H) S^1/2, a root of cov(beta | gamma)
    rows = inverse @ np.column_stack([np.eye(len(H)), H @ m - J.T @ target])
    constant = -np.log(np.diag(C)).sum() - len(H) * LOG_2PI / 2
    return J, rows, float(constant), (mean, back, noise)


# ------------------------------------------------------------------------- the density itself


@dataclass(frozen=True, eq=False)
class Marginal:
    """The log density of the data at one point, with its derivatives.

    Attributes
    ----------
    value : float
    slope : ndarray, shape (p + 1, p + 1)
        The derivative of -2 `value` with respect to the reduced cross-products.
    d_sigma : float
        The derivative with respect to sigma at constant Lambda.
    d_given : ndarray, shape (n_given,)
    gamma, gamma_cov : ndarray, shapes (r,) and (r, r)
        Mean of gamma given the data, and its covariance over sigma^2.
    """

    value: float
    slope: Array
    d_sigma: float
    d_given: Array
    gamma: Array
    gamma_cov: Array


def marginal(
    factorized: blocked_cholesky.Factorized, fixed: FixedPart, sigma: float, given: Array
) -> Marginal:
    """Integrate the fixed effects out of a factorised model.

    Parameters
    ----------
    factorized : Factorized
    fixed : FixedPart
    sigma : float
        Residual standard deviation.
    given : ndarray, shape (n_given,)
        Values of the fixed effects that are not integrated out.
    """
    cross, r = factorized.cross, fixed.J.shape[1]
    turn = fixed.turn(given)
    variance = sigma**2
    turned = factorized.reduced @ turn
    prior = fixed.rows.T @ fixed.rows
    total = turn.T @ turned + variance * prior
    root = np.linalg.cholesky(total[:-1, :-1])
    inverse = np.linalg.inv(root)
    half = inverse @ total[:-1, -1]
    gamma_cov, gamma = inverse.T @ inverse, inverse.T @ half
    r2 = float(total[-1, -1] - half @ half)
    v = np.append(-gamma, 1.0)
    nu = cross.n - r
    deviance = factorized.logdet + 2 * np.log(np.diag(root)).sum() - cross.log_weights
    deviance += nu * (LOG_2PI + np.log(variance)) + r2 / variance
    slope = np.outer(v, v) / variance
    slope[:-1, :-1] += gamma_cov
    penalty = v @ prior @ v / variance + np.sum(gamma_cov * prior[:-1, :-1])
    return Marginal(
        value=float(fixed.constant - deviance / 2),
        slope=turn @ slope @ turn.T,
        d_sigma=float(-sigma * (nu / variance + penalty - r2 / variance**2)),
        d_given=fixed.given.T @ (turned @ v)[:-1] / variance,
        gamma=gamma,
        gamma_cov=gamma_cov,
    )


def log_marginal(
    cross: CrossProducts, fixed: FixedPart, Lambdas: Sequence[Array], sigma: float, given: Array
) -> Derived:
    """Return log p(y | Lambda, sigma, given effects) and its derivatives.

    Parameters
    ----------
    cross : CrossProducts
    fixed : FixedPart
    Lambdas : sequence of ndarray, shape (k, k)
        Relative factors in the basis of the cross-products.
    sigma : float
    given : ndarray, shape (n_given,)

    Returns
    -------
    value : float
    d_Lambdas : list of ndarray, shape (k, k)
    d_sigma : float
        At constant Lambda.
    d_given : ndarray, shape (n_given,)

    Raises
    ------
    numpy.linalg.LinAlgError
        If a matrix is not positive definite in floating point.
    """
    factorized = blocked_cholesky.factorize(cross, Lambdas)
    density = marginal(factorized, fixed, sigma, given)
    slopes = [-0.5 * slope for slope in blocked_cholesky.gradient(factorized, density.slope)]
    return density.value, slopes, density.d_sigma, density.d_given


# --------------------------------------------------------------- as a function of coordinates


@dataclass(frozen=True, eq=False)
class LinearPosterior(LogPosterior):
    """The posterior density of the variance parameters, up to p(y).

    Attributes
    ----------
    cross : CrossProducts
    fixed : FixedPart
    space : Space
    bases : tuple of ndarray, shape (k, k)
    """

    cross: CrossProducts
    fixed: FixedPart
    space: Space
    bases: tuple[Array, ...]

    def likelihood(self, values: Array) -> tuple[float, Array]:
        g, sigma = self.space.n_given, values[self.space.n_given]
        derivatives = np.zeros(len(values))
        Lambdas = [F / sigma for F in self.basis_factors(values)]
        try:
            value, slopes, derivatives[g], derivatives[:g] = log_marginal(
                self.condensed, self.fixed, Lambdas, sigma, values[:g]
            )
        except np.linalg.LinAlgError:
            return -np.inf, derivatives
        by_scale = sum(float(np.vdot(s, f)) for s, f in zip(slopes, Lambdas, strict=True))
        derivatives[g] -= by_scale / sigma
        self.by_values([slope / sigma for slope in slopes], values, derivatives)
        return (value, derivatives) if np.isfinite(value) else (-np.inf, np.zeros(len(values)))

    @cached_property
    def condensed(self) -> CrossProducts:
        """The cross-products with levels of one kind brought together, for the density alone."""
        return condensed(self.cross)

    @property
    def can_be_integrated(self) -> bool:
        return True

    @cached_property
    def term_changes(self) -> list[Array]:
        return [np.linalg.solve(T, A) for T, A in zip(self.cross.bases, self.bases, strict=True)]

    def given_values(self, draws: Draws) -> Array:
        return np.linalg.solve(self.fixed.change, draws.beta.T).T[:, self.fixed.order[1]]

    def relative_factors(self, values: Array) -> list[Array]:
        """Return the relative factor of each term in the basis, shape (points, k, k)."""
        sigma = values[:, self.space.n_given, None, None]
        return [F / sigma for F in self.basis_factors(values)]

    def log_density(self, x: Array) -> Array:
        with np.errstate(all="ignore"):
            values, logp = self.space.values(x)
            metric = many_thetas.reduced(self.condensed, self.relative_factors(values))
            logp = logp + self._integrated(values, *metric)[0]
        return np.where(np.isfinite(logp), logp, -np.inf)

    def _integrated(
        self, values: Array, logdet: Array, reduced: Array
    ) -> tuple[Array, Array, Array]:
        """Return log p(y), the mean of gamma, and the factor of its precision times sigma^2.

        For many points, at which log|M| and the cross-products in the metric of V^-1 are known.
        """
        cross, fixed, g = self.cross, self.fixed, self.space.n_given
        r, variance = fixed.J.shape[1], values[:, g] ** 2
        turn = fixed.turn(values[:, :g])
        total = turn.swapaxes(1, 2) @ reduced @ turn
        total += variance[:, None, None] * (fixed.rows.T @ fixed.rows)
        root, usable = leading_choleskies(total)
        half = np.linalg.solve(root, total[:, :-1, -1:])
        gamma = np.linalg.solve(root.swapaxes(1, 2), half)[:, :, 0]
        r2 = total[:, -1, -1] - (half[:, :, 0] ** 2).sum(axis=1)
        deviance = logdet + 2 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
        deviance += (cross.n - r) * (LOG_2PI + np.log(variance)) + r2 / variance - cross.log_weights
        return np.where(usable, fixed.constant - deviance / 2, -np.inf), gamma, root

    def draw(self, values: Array, rng: np.random.Generator) -> Draws:
        """Draw beta and b from their exact conditional distribution.

        Notes
        -----
        gamma ~ N(gamma-hat, sigma^2 K^-1) with K its cross-products, prior included; then b given
        it.
        """
        space, fixed, cross = self.space, self.fixed, self.cross
        sigma, given = values[:, space.n_given], values[:, : space.n_given]
        z = rng.standard_normal((len(values), fixed.J.shape[1]))
        z_of_dependent = rng.standard_normal((len(values), len(fixed.mean)))

        def gammas(points: slice, logdet: Array, reduced: Array) -> tuple[Array, Array]:
            _, gamma, root = self._integrated(values[points], logdet, reduced)
            noise = np.linalg.solve(root.swapaxes(1, 2), z[points, :, None])[:, :, 0]
            gamma = gamma + sigma[points, None] * noise
            return gamma, gamma @ fixed.J.T + fixed.offset(given[points])

        gamma, b = many_thetas.effects(
            cross, self.relative_factors(values), gammas, r=fixed.J.shape[1], sigma=sigma, rng=rng
        )
        return Draws(
            beta=fixed.effects(gamma, given, z_of_dependent),
            sigma=sigma,
            factors=self.users_factors(values),
            b=[of_term @ np.linalg.inv(T).T for of_term, T in zip(b, cross.bases, strict=True)],
        )

    def first_values(self) -> tuple[Array, list[Array]]:
        cross, fixed = self.cross, self.fixed
        columns = np.column_stack([fixed.given, fixed.J])
        fitted, squares = cross.R @ cross.beta_ols, cross.fixed[-1, -1]
        effects = np.linalg.lstsq(columns, fitted, rcond=None)[0]
        if squares <= MIN_SQUARES * (explained := fitted @ fitted):
            squares = FIRST_SQUARES * (explained or 1.0)
        sigma = np.sqrt(squares / max(cross.n - cross.p, 1))
        Lambdas = factors(moment_start(cross), cross.covariances)
        leading = np.append(effects[: self.space.n_given], sigma)
        return leading, [sigma * Lambda for Lambda in Lambdas]

    @property
    def width(self) -> int:
        return len(self.cross.fixed)


def target_of(
    design: Design, cross: CrossProducts, kept: Sequence[int], priors: Priors
) -> LinearPosterior:
    """Return the posterior density of a model.

    Parameters
    ----------
    design : Design
        With all columns of X, also those that are combinations of others.
    cross : CrossProducts
        Of the design without such combinations.
    kept : sequence of int
        The columns that the cross-products have.
    priors : Priors
        Of all parameters.
    """
    changes = [np.eye(len(t.coefs)) if t.change is None else t.change for t in priors.terms]
    return LinearPosterior(
        cross=cross,
        fixed=fixed_part(cross, _combinations(design, kept), priors),
        space=space_of(priors),
        bases=tuple(T @ change for T, change in zip(cross.bases, changes, strict=True)),
    )


def _combinations(design: Design, kept: Sequence[int]) -> Array:
    """Return the fixed columns as combinations of those kept, for which no row need be read."""
    size = len(design.fixed)
    if len(kept) == size:
        return np.eye(size)
    X = design.sufficient.X * np.sqrt(design.sufficient.weights)[:, None]
    combinations = np.linalg.lstsq(X[:, kept], X, rcond=None)[0]
    combinations[:, kept] = np.eye(len(kept))
    return combinations
