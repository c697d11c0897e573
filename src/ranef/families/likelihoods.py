"""Log densities of responses and their derivatives in closed form, for any link.

A distribution is written where it is simplest: in mu (normal, t), in lambda = log mu (counts and
positive responses), or in log mu and log(1 - mu) (proportions). There it has three derivatives, and
the link's curve carries them to eta by the chain rule. For counts and positive responses with the
log link, eta is lambda itself.

Notation: y the response, w the prior weight, psi the parameters besides the mean; L the log
density, with derivatives L1, L2, L3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ranef._typing import Array
from ranef.families.derivatives import (
    Expansion,
    Further,
    log_rising,
    log_rising_slope,
    remainder,
    remainder_slope,
    trigamma,
)
from ranef.families.link import HUGE, LOGIT, SQUARED, Curve, Link

type Parts = tuple[Array, Array, Array]  # L, L1, L2
type Own = tuple[Array, Array, Array]  # the derivatives of L, L1 and L2 in the logarithm of one psi

TINY = 5e-324


@dataclass(frozen=True, eq=False)
class Distribution:
    """A distribution that is written in one function x of eta: mu or log mu.

    Attributes
    ----------
    inner : callable (link, eta)
        The curve of x.
    parts : callable (y, x, w, *psi)
        L, L1 and L2.
    others : callable (y, x, w, *psi)
        L3, and for each of psi the derivatives of L, L1 and L2 in its logarithm.
    information : callable (x, w, *psi)
        The expected information of x.
    supported : callable (y), optional
        Which responses are possible, if not all are.
    """

    inner: Callable[[Link, Array], Curve]
    parts: Callable[..., Parts]
    others: Callable[..., tuple[Array, list[Own]]]
    information: Callable[..., Array]
    supported: Callable[[Array], NDArray[np.bool_]] | None = None

    def __reduce__(self) -> str:
        """Travel to other processes by name: a family is known by its distribution."""
        return _NAMES[self.parts]

    def density(self, y: Array, mu: Array, w: Array, *psi: Any) -> Array:
        """Return the log density, -inf outside of the support."""
        if self.supported is None:
            return self.parts(y, mu, w, *psi)[0]
        with np.errstate(all="ignore"):
            L = self.parts(y, np.log(np.maximum(mu, TINY)), w, *psi)[0]
        return np.where(self.supported(y) & (mu >= 0), L, -np.inf)

    def expand(self, link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:
        """Return the log density and its derivatives in eta."""
        x, first, second, _ = self.inner(link, eta)
        L, L1, L2 = self.parts(y, x, w, *psi)
        return Expansion(L, L1 * first, -(L2 * (first * first) + L1 * second))

    def further(self, link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:
        """Return the higher derivatives."""
        x, first, second, third = self.inner(link, eta)
        _, L1, L2 = self.parts(y, x, w, *psi)
        L3, own = self.others(y, x, w, *psi)
        square = first * first
        of_weight = -(L3 * (square * first) + 3 * L2 * (first * second) + L1 * third)
        carried = [(l, l1 * first, -(l2 * square + l1 * second)) for l, l1, l2 in own]
        return _stacked(of_weight, carried)

    def expected(self, link: Link, eta: Array, w: Array, psi: Array) -> Array:
        """Return the expected information of eta."""
        x, first, _, _ = self.inner(link, eta)
        return self.information(x, w, *psi) * (first * first)


def is_count(y: Array) -> NDArray[np.bool_]:
    """Return whether numbers are 0, 1, 2 and so on."""
    return np.asarray((y >= 0) & (y == np.floor(y)))


def is_positive(y: Array) -> NDArray[np.bool_]:
    """Return whether numbers are above 0."""
    return np.asarray(y > 0)


def _stacked(third: Array, own: list[Own]) -> Further:
    parts = np.empty((3, len(own), *third.shape))
    for j, derivatives in enumerate(own):
        for part, derivative in zip(parts, derivatives, strict=True):
            part[j] = derivative
    return Further(third, *parts)


def gaussian_parts(y: Array, mu: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in mu."""
    precision, r = w / sigma**2, y - mu
    L = 0.5 * np.log(w / (2 * np.pi)) - np.log(sigma) - 0.5 * precision * r**2
    return L, precision * r, -precision


def gaussian_others(y: Array, mu: Array, w: Array, sigma: float) -> tuple[Array, list[Own]]:
    """Return L3, and the derivatives in log sigma."""
    precision, r = w / sigma**2, y - mu
    return np.zeros(()), [(precision * r**2 - 1, -2 * precision * r, 2 * precision)]


def gaussian_information(mu: Array, w: Array, sigma: float) -> Array:
    """Return the expected information of mu."""
    return np.ones_like(mu) * (w / sigma**2)


def t_parts(y: Array, mu: Array, w: Array, sigma: float, nu: float) -> Parts:
    """Return L, L1 and L2 in mu."""
    s = sigma / np.sqrt(w)
    z = (y - mu) / s
    h = 1 / (nu + z**2)
    constant = log_rising(0.5, nu / 2) - 0.5 * np.log(2 * np.pi)
    L = constant - np.log(s) - 0.5 * (nu + 1) * np.log1p(z**2 / nu)
    return L, (nu + 1) / s * (z * h), -(nu + 1) / s**2 * ((nu - z**2) * h) * h


def t_others(y: Array, mu: Array, w: Array, sigma: float, nu: float) -> tuple[Array, list[Own]]:
    """Return L3, and the derivatives in log sigma and in log nu."""
    s = sigma / np.sqrt(w)
    z = (y - mu) / s
    q = z**2
    h = 1 / (nu + q)
    zh, qh, nh = z * h, q * h, nu * h
    L3 = -2 * (nu + 1) / s**3 * zh * (3 * nh - qh) * h
    of_sigma = (
        (nu + 1) * qh - 1,
        -2 * (nu + 1) / s * zh * nh,
        2 * (nu + 1) / s**2 * nh * (nh - 3 * qh) * h,
    )
    of_nu = (
        log_rising_slope(0.5, nu / 2) + 0.5 * ((nu + 1) * qh - nu * np.log1p(q / nu)),
        zh / s * (nh * (q - 1)),
        nh / s**2 * (qh * (qh - 3 * nh) + (nh - 3 * qh) * h),
    )
    return L3, [of_sigma, of_nu]


def t_information(mu: Array, w: Array, sigma: float, nu: float) -> Array:
    """Return the expected information of mu."""
    return gaussian_information(mu, w, sigma) * ((nu + 1) / (nu + 3))


def poisson_parts(y: Array, lam: Array, w: Array) -> Parts:
    """Return L, L1 and L2 in log mu."""
    mu = np.exp(np.minimum(lam, HUGE))
    return w * (y * lam - mu - special.gammaln(y + 1)), w * (y - mu), -w * mu


def poisson_others(y: Array, lam: Array, w: Array) -> tuple[Array, list[Own]]:  # noqa: ARG001
    """Return L3; there are no parameters."""
    return -w * np.exp(np.minimum(lam, HUGE)), []


def poisson_information(lam: Array, w: Array) -> Array:
    """Return the expected information of log mu."""
    return w * np.exp(np.minimum(lam, HUGE))


def negative_binomial_parts(y: Array, lam: Array, w: Array, shape: float) -> Parts:
    """Return L, L1 and L2 in log mu; stable up to the Poisson distribution, shape = inf nearly."""
    p, q, log_q = _failure(lam, shape)
    constant = log_rising(y, shape) - special.gammaln(y + 1)
    L = w * (y * lam + (shape + y) * log_q + constant)
    return L, w * (y * q - shape * p), -w * (shape + y) * p * q


def negative_binomial_others(
    y: Array, lam: Array, w: Array, shape: float
) -> tuple[Array, list[Own]]:
    """Return L3, and the derivatives in log shape."""
    p, q, log_q = _failure(lam, shape)
    score = y * q - shape * p
    both = w * (shape + y) * p * q
    of_shape = (
        w * (shape * log_q + (shape + y) * p + log_rising_slope(y, shape)),
        w * p * score,
        -w * p * q * (2 * p * (shape + y) - y),
    )
    return both * (p - q), [of_shape]


def negative_binomial_information(lam: Array, w: Array, shape: float) -> Array:
    """Return the expected information of log mu."""
    return np.asarray(w * shape * special.expit(lam - np.log(shape)))


def _failure(lam: Array, shape: float) -> tuple[Array, Array, Array]:
    """Return p = mu / (mu + shape), 1 - p and log(1 - p)."""
    (_, q, _, _), (log_q, minus_p, _, _) = LOGIT.log_chances(lam - np.log(shape))
    return -minus_p, q, log_q


def gamma_parts(y: Array, lam: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in log mu."""
    a, v = w / sigma**2, np.minimum(np.log(y) - lam, SQUARED)
    excess = np.expm1(v)
    L = 0.5 * np.log(a / (2 * np.pi)) - remainder(a) - np.log(y) - a * (excess - v)
    return L, a * excess, -a * (excess + 1)


def gamma_others(y: Array, lam: Array, w: Array, sigma: float) -> tuple[Array, list[Own]]:
    """Return L3, and the derivatives in log sigma."""
    a, v = w / sigma**2, np.minimum(np.log(y) - lam, SQUARED)
    excess = np.expm1(v)
    value = 2 * a * (remainder_slope(a) + excess - v) - 1
    return a * (excess + 1), [(value, -2 * a * excess, 2 * a * (excess + 1))]


def gamma_information(lam: Array, w: Array, sigma: float) -> Array:
    """Return the expected information of log mu."""
    return gaussian_information(lam, w, sigma)


def inverse_gaussian_parts(y: Array, lam: Array, w: Array, sigma: float) -> Parts:
    """Return L, L1 and L2 in log mu."""
    tau, v = w / sigma**2, np.minimum(np.log(y) - lam, SQUARED)
    excess, ratio = np.expm1(v), np.exp(v)
    L = 0.5 * np.log(tau / (2 * np.pi)) - 1.5 * np.log(y) - 0.5 * (tau / y) * excess**2
    return L, tau / y * excess * ratio, -tau / y * ratio * (2 * ratio - 1)


def inverse_gaussian_others(
    y: Array, lam: Array, w: Array, sigma: float
) -> tuple[Array, list[Own]]:
    """Return L3, and the derivatives in log sigma."""
    tau, v = w / sigma**2, np.minimum(np.log(y) - lam, SQUARED)
    excess, ratio = np.expm1(v), np.exp(v)
    of_sigma = (
        tau / y * excess**2 - 1,
        -2 * tau / y * excess * ratio,
        2 * tau / y * ratio * (2 * ratio - 1),
    )
    return tau / y * ratio * (4 * ratio - 1), [of_sigma]


def inverse_gaussian_information(lam: Array, w: Array, sigma: float) -> Array:
    """Return the expected information of log mu."""
    return w / sigma**2 * np.exp(np.minimum(-lam, HUGE))


GAUSSIAN = Distribution(Link.at, gaussian_parts, gaussian_others, gaussian_information)
T = Distribution(Link.at, t_parts, t_others, t_information)
POISSON = Distribution(Link.log_mean, poisson_parts, poisson_others, poisson_information, is_count)
NEGATIVE_BINOMIAL = Distribution(
    Link.log_mean,
    negative_binomial_parts,
    negative_binomial_others,
    negative_binomial_information,
    is_count,
)
GAMMA = Distribution(Link.log_mean, gamma_parts, gamma_others, gamma_information, is_positive)
INVERSE_GAUSSIAN = Distribution(
    Link.log_mean,
    inverse_gaussian_parts,
    inverse_gaussian_others,
    inverse_gaussian_information,
    is_positive,
)
_NAMES = {
    gaussian_parts: "GAUSSIAN",
    t_parts: "T",
    poisson_parts: "POISSON",
    negative_binomial_parts: "NEGATIVE_BINOMIAL",
    gamma_parts: "GAMMA",
    inverse_gaussian_parts: "INVERSE_GAUSSIAN",
}


def binomial_density(y: Array, mu: Array, w: Array) -> Array:
    """Return the log density of w y successes in w trials."""
    k = w * y
    with np.errstate(all="ignore"):
        L = special.xlogy(k, mu) + special.xlog1py(w - k, -mu) + _log_choices(k, w)
    return np.where((y >= 0) & (y <= 1) & (mu >= 0) & (mu <= 1), L, -np.inf)


def binomial_expand(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:  # noqa: ARG001
    """Return the expansion of the binomial distribution."""
    (A, A1, A2, _), (B, B1, B2, _) = link.log_chances(eta)
    won = w * y
    lost = w - won
    L = won * A + lost * B + _log_choices(won, w)
    return Expansion(L, won * A1 + lost * B1, -(won * A2 + lost * B2))


def binomial_further(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:  # noqa: ARG001
    """Return the higher derivatives of the binomial distribution."""
    A, B = link.log_chances(eta)
    won = w * y
    return _stacked(-(won * A[3] + (w - won) * B[3]), [])


def binomial_expected(link: Link, eta: Array, w: Array, psi: Array) -> Array:  # noqa: ARG001
    """Return the expected information of eta, (d mu / d eta)^2 / (mu (1 - mu)) per trial."""
    A, B = link.log_chances(eta)
    return -w * A[1] * B[1]


def _log_choices(k: Array, n: Array) -> Array:
    if (n == 1).all():  # 0 or 1 of one: the usual case, and the quick one
        return np.zeros(())
    return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def beta_density(y: Array, mu: Array, w: Array, phi: Any) -> Array:
    """Return the log density of a proportion, by its mean and precision, times w."""
    with np.errstate(all="ignore"):
        first, second = mu * phi, (1 - mu) * phi
        L = special.xlogy(first - 1, y) + special.xlog1py(second - 1, -y)
        L = w * (L - special.betaln(first, second))
    return np.where((y > 0) & (y < 1) & (mu > 0) & (mu < 1), L, -np.inf)


def beta_expand(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Expansion:
    """Return the expansion of the beta distribution."""
    (A, A1, A2, _), (B, B1, B2, _) = link.log_chances(eta)
    (phi,) = psi
    T, U = _beta_side(np.log(y), A, phi), _beta_side(np.log1p(-y), B, phi)
    constant = special.gammaln(phi) - np.log(y) - np.log1p(-y)
    return Expansion(
        w * (T[0] + U[0] + constant),
        w * (T[1] * A1 + U[1] * B1),
        -w * (T[2] * A1 * A1 + T[1] * A2 + U[2] * B1 * B1 + U[1] * B2),
    )


def beta_further(link: Link, y: Array, eta: Array, w: Array, psi: Array) -> Further:
    """Return the higher derivatives of the beta distribution."""
    (phi,) = psi
    third: Array = np.zeros_like(eta)
    value = phi * special.digamma(phi)
    score, weight = np.zeros_like(eta), np.zeros_like(eta)
    sides = zip((np.log(y), np.log1p(-y)), link.log_chances(eta), strict=True)
    for log_y, (A, A1, A2, A3) in sides:
        _, T1, T2, T3 = _beta_side(log_y, A, phi)
        third = third - (T3 * A1 * A1 * A1 + 3 * T2 * A1 * A2 + T1 * A3)
        value = value + T1
        score = score + T2 * A1
        weight = weight - (T3 * A1 * A1 + T2 * A2)
    return _stacked(w * third, [(w * value, w * score, w * weight)])


def beta_expected(link: Link, eta: Array, w: Array, psi: Array) -> Array:
    """Return the expected information of eta."""
    found: Array = np.zeros_like(eta)
    for A, A1, _, _ in link.log_chances(eta):
        alpha = psi[0] * np.exp(A)
        found = found + (1 + alpha * alpha * trigamma(1 + alpha)[0]) * (A1 * A1)
    return w * found


def _beta_side(log_y: Array, A: Array, phi: float) -> Curve:
    """Return alpha log y - log Gamma(alpha) and its derivatives in log alpha = A + log phi.

    log Gamma(alpha) = log Gamma(1 + alpha) - log alpha keeps all digits where alpha is small.
    """
    alpha = phi * np.exp(A)
    second, third = trigamma(1 + alpha)
    psi, square = alpha * special.digamma(1 + alpha), alpha * alpha
    psi1, psi2 = square * second, square * alpha * third
    of_y = alpha * log_y
    return (
        of_y - special.gammaln(1 + alpha) + A + np.log(phi),
        of_y - psi + 1,
        of_y - psi - psi1,
        of_y - psi - 3 * psi1 - psi2,
    )
